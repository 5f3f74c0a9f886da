//! What a row of the matrix has measured, beside what was to be reached.

use std::fmt;

use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Limit {
    AtMost(f64),
    AtLeast(f64),
}

impl Limit {
    fn holds(self, value: f64) -> bool {
        match self {
            Self::AtMost(limit) => value <= limit,
            Self::AtLeast(limit) => value >= limit,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    pub name: String,
    /// None: it did not happen.
    pub value: Option<f64>,
    pub unit: String,
    /// To be reached.
    pub limit: Option<Limit>,
    /// For a run of a few seconds on a machine that is busy with other things: what a working program always reaches.
    #[serde(skip)]
    pub loose: Option<Limit>,
}

impl Figure {
    pub fn new(name: &str, value: impl Into<Option<f64>>, unit: &str) -> Self {
        Self { name: name.to_owned(), value: value.into(), unit: unit.to_owned(), limit: None, loose: None }
    }

    pub fn at_most(self, limit: f64) -> Self {
        Self { limit: Some(Limit::AtMost(limit)), loose: Some(Limit::AtMost(limit)), ..self }
    }

    pub fn at_least(self, limit: f64) -> Self {
        Self { limit: Some(Limit::AtLeast(limit)), loose: Some(Limit::AtLeast(limit)), ..self }
    }

    /// In the short form this instead.
    pub fn or_loosely(self, loose: Limit) -> Self {
        Self { loose: Some(loose), ..self }
    }

    /// Whether it reaches its limit, if it has one.
    pub fn is_met(&self) -> Option<bool> {
        Some(self.value.is_some_and(|value| self.limit.is_some_and(|limit| limit.holds(value))))
            .filter(|_| self.limit.is_some())
    }

    /// Whether it reaches its loose limit, if it has one.
    pub fn is_plausible(&self) -> bool {
        self.loose.is_none_or(|limit| self.value.is_some_and(|value| limit.holds(value)))
    }

    pub fn measured(&self) -> String {
        self.value.map_or_else(|| "not at all".to_owned(), |value| self.with_unit(value))
    }

    pub fn to_reach(&self) -> String {
        match self.limit {
            Some(Limit::AtMost(limit)) => format!("at most {}", self.with_unit(limit)),
            Some(Limit::AtLeast(limit)) => format!("at least {}", self.with_unit(limit)),
            None => String::new(),
        }
    }

    fn with_unit(&self, value: f64) -> String {
        let digits = match value.abs() {
            size if size >= 100.0 || size.fract() == 0.0 => 0,
            // What differs by a tenth does so visibly.
            size if size < 1.0 || self.unit == "times" => 2,
            _ => 1,
        };
        format!("{value:.digits$} {}", self.unit).trim_end().to_owned()
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name, self.measured())?;
        match self.is_met() {
            Some(true) => write!(f, " ({}: met)", self.to_reach()),
            Some(false) => write!(f, " ({}: NOT MET)", self.to_reach()),
            None => Ok(()),
        }
    }
}

/// The middle value, or the mean of the two in the middle; none of none.
pub fn median(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let upper = *values.get(values.len() / 2)?;
    let lower = values[(values.len() - 1) / 2];
    Some((lower + upper) / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_met_or_not_and_what_never_happened_is_not() {
        let back = |value: Option<f64>| Figure::new("back after", value, "ms").at_most(500.0);
        assert_eq!([back(Some(500.0)).is_met(), back(Some(501.0)).is_met()], [Some(true), Some(false)]);
        assert_eq!((back(None).is_met(), back(None).is_plausible()), (Some(false), false));
        assert_eq!(back(None).to_string(), "back after: not at all (at most 500 ms: NOT MET)");
        let loosely = back(Some(800.0)).or_loosely(Limit::AtMost(2000.0));
        assert_eq!((loosely.is_met(), loosely.is_plausible()), (Some(false), true));
        assert_eq!(Figure::new("pictures", 12.25, "").to_string(), "pictures: 12.2");
        assert_eq!(
            Figure::new("longer", 1.14, "times").at_most(1.1).to_string(),
            "longer: 1.14 times (at most 1.10 times: NOT MET)"
        );
    }

    #[test]
    fn the_median_of_an_even_count_lies_in_between() {
        assert_eq!(median([3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median([4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median([]), None);
    }
}
