//! The newest value of each field that is declared.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rov_common::overlay::{UNKNOWN, Value};
use rov_common::sync::lock;

use crate::config::FieldConfig;

/// Larger numbers are written with an exponent.
const MANY: f64 = 1e9;

#[derive(Debug)]
pub struct Board {
    fields: Vec<FieldConfig>,
    /// In the order of the fields.
    newest: Mutex<Vec<Option<(f64, Instant)>>>,
    changes: AtomicU64,
}

impl Board {
    pub fn new(fields: Vec<FieldConfig>) -> Self {
        let newest = Mutex::new(vec![None; fields.len()]);
        Self { fields, newest, changes: AtomicU64::new(0) }
    }

    pub fn fields(&self) -> &[FieldConfig] {
        &self.fields
    }

    /// Goes up with each value.
    pub fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    /// Whether there is such a field, and the value is a number.
    pub fn set(&self, name: &str, value: f64, now: Instant) -> bool {
        let Some(at) = self.fields.iter().position(|field| field.name == name).filter(|_| value.is_finite()) else {
            return false;
        };
        lock(&self.newest)[at] = Some((value, now));
        self.changes.fetch_add(1, Ordering::AcqRel);
        true
    }

    /// For which a value may be shown.
    pub fn longest_limit(&self) -> Duration {
        self.fields.iter().map(FieldConfig::limit).max().unwrap_or_default()
    }

    /// Forgets what was set of these fields at this time or before.
    pub fn forget(&self, fields: &BTreeSet<String>, until: Instant) {
        let mut newest = lock(&self.newest);
        for (_, newest) in self.fields.iter().zip(&mut *newest).filter(|(field, _)| fields.contains(&field.name)) {
            *newest = newest.filter(|(_, since)| *since > until);
        }
        drop(newest);
        self.changes.fetch_add(1, Ordering::AcqRel);
    }

    /// The value of a field as it is to be written, unless it is too old.
    pub fn text(&self, name: &str, now: Instant) -> Option<String> {
        let at = self.fields.iter().position(|field| field.name == name)?;
        let (value, since) = lock(&self.newest)[at]?;
        let field = &self.fields[at];
        (now.saturating_duration_since(since) <= field.limit()).then(|| written(field, value))
    }

    /// All that have a value.
    pub fn values(&self, now: Instant) -> BTreeMap<String, Value> {
        let newest = lock(&self.newest).clone();
        let values = self.fields.iter().zip(newest).filter_map(|(field, newest)| Some((field, newest?)));
        let told = values.map(|(field, (value, since))| {
            let age = now.saturating_duration_since(since);
            let is_new = age <= field.limit();
            let text = if is_new { written(field, value) } else { UNKNOWN.to_owned() };
            let age_ms = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
            (field.name.clone(), Value { value: is_new.then_some(value), text, age_ms })
        });
        told.collect()
    }
}

impl FieldConfig {
    fn limit(&self) -> Duration {
        Duration::from_millis(self.limit_ms.into())
    }
}

/// With its unit.
fn written(field: &FieldConfig, value: f64) -> String {
    if field.is_time() {
        let second_of_day = value.rem_euclid(86_400.0) as u32;
        let (hours, minutes, seconds) = (second_of_day / 3600, second_of_day / 60 % 60, second_of_day % 60);
        return format!("{hours:02}:{minutes:02}:{seconds:02}");
    }
    let digits = usize::from(field.digits);
    let number = if value.abs() < MANY { format!("{value:.digits$}") } else { format!("{value:.digits$e}") };
    // No value is less than nothing by less than its last digit.
    let is_nothing = number.bytes().all(|digit| matches!(digit, b'-' | b'0' | b'.'));
    let number = if is_nothing { number.trim_start_matches('-') } else { &number };
    let gap = if field.unit.is_empty() || field.unit == "°" { "" } else { " " };
    format!("{number}{gap}{}", field.unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn board() -> Board {
        Board::new(FieldConfig::usual())
    }

    #[test]
    fn the_newest_value_is_told_until_it_is_too_old() {
        let (board, start) = (board(), Instant::now());
        assert!(board.set("depth", 12.34, start) && board.set("depth", 12.36, start + Duration::from_millis(10)));
        let at = |ms| start + Duration::from_millis(ms);
        assert_eq!(board.text("depth", at(2010)).as_deref(), Some("12.4 m"));
        assert_eq!(board.text("depth", at(2011)), None);
        assert_eq!(board.text("heading", at(0)), None);
        let old = &board.values(at(2011))["depth"];
        assert_eq!((old.value, old.text.as_str(), old.age_ms), (None, "--", 2001));
        assert_eq!(board.values(at(2010))["depth"].value, Some(12.36));
        assert_eq!((board.values(start).len(), board.changes()), (1, 2));
    }

    #[test]
    fn what_is_no_number_or_not_declared_is_refused() {
        let (board, now) = (board(), Instant::now());
        for (name, value) in [("depth", f64::NAN), ("depth", f64::INFINITY), ("other", 1.0), ("", 1.0)] {
            assert!(!board.set(name, value, now), "{name} {value}");
        }
        assert_eq!((board.values(now).len(), board.changes()), (0, 0));
    }

    #[test]
    fn values_are_written_with_their_digits_and_unit() {
        let usual = FieldConfig::usual();
        let text = |name: &str, value| written(usual.iter().find(|field| field.name == name).expect(name), value);
        assert_eq!(text("heading", 359.6), "360°");
        assert_eq!((text("depth", -0.04), text("depth", -0.06)), ("0.0 m".to_owned(), "-0.1 m".to_owned()));
        assert_eq!(text("depth", 1e300), "1.0e300 m");
        assert_eq!(written(&FieldConfig::named("time"), 1_700_000_000.9), "22:13:20");
        assert_eq!(written(&FieldConfig::named("time"), -1.0), "23:59:59");
        assert_eq!(written(&FieldConfig::named("salinity"), 35.25), "35.2");
    }
}
