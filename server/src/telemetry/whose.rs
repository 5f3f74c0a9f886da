//! Whose values are shown: those of one sender at a time, as another vehicle's depth is not this one's. Pure: takes
//! `now`.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use super::Board;

/// The one whose values are shown has to be silent for as long as one of them may be shown, and no less or more than
/// this, before another takes its place.
const SILENCE: RangeInclusive<Duration> = Duration::from_secs(5)..=Duration::from_secs(60);
/// Why a value is not taken.
pub const OF_ANOTHER: &str =
    "values of another sender are shown, until it is silent for the longest age-limit (5 s at least, 60 s at most)";
/// As well; by `--mavlink-system`.
pub const OF_OTHER_SYSTEM: &str = "it is of another system than --mavlink-system says";

/// By its address alone, as a sender may have another port each time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sender {
    pub address: IpAddr,
    /// Of MAVLink: several may send by one router.
    pub system: Option<u8>,
}

impl fmt::Display for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.system {
            Some(system) => write!(f, "MAVLink system {system} at {}", self.address),
            None => write!(f, "{}", self.address),
        }
    }
}

/// The sender that is heard first has the place whenever it is heard, and others stand in for it.
#[derive(Debug, Default)]
pub struct Whose {
    first: Option<Sender>,
    /// The one whose values are shown, and when it was heard last.
    shown: Option<(Sender, Instant)>,
    /// What it has said.
    fields: BTreeSet<String>,
}

impl Whose {
    /// Whether a value is taken that has come from this sender. What a former one said is forgotten.
    pub fn takes(&mut self, sender: Sender, board: &Board, now: Instant) -> bool {
        if let Some((shown, heard)) = self.shown.filter(|(shown, _)| *shown != sender) {
            if self.first == Some(sender) {
                tracing::warn!("telemetry of {sender} has come back, and that of {shown} is not shown any more");
            } else if now.saturating_duration_since(heard) > silence(board) {
                tracing::warn!("telemetry of {shown} has ended, and that of {sender} is shown until it comes back");
            } else {
                return false;
            }
            board.forget(&std::mem::take(&mut self.fields), heard);
        }
        self.first.get_or_insert(sender);
        self.shown = Some((sender, now));
        true
    }

    /// What the one says whose values are shown; as [`Board::set`].
    pub fn set(&mut self, name: &str, value: f64, board: &Board, now: Instant) -> bool {
        let is_set = board.set(name, value, now);
        if is_set && !self.fields.contains(name) {
            self.fields.insert(name.to_owned());
        }
        is_set
    }

    /// Whether it is the one whose values are shown.
    pub fn is(&self, sender: Sender) -> bool {
        self.shown.is_some_and(|(shown, _)| shown == sender)
    }
}

fn silence(board: &Board) -> Duration {
    board.longest_limit().clamp(*SILENCE.start(), *SILENCE.end())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::FieldConfig;

    #[test]
    fn another_sender_takes_its_place_while_it_is_silent_and_nothing_of_it_stays() {
        let silence = |limits: &[u32]| {
            let fields = limits.iter().map(|ms| FieldConfig { limit_ms: *ms, ..FieldConfig::named("depth") });
            silence(&Board::new(fields.collect())).as_secs()
        };
        assert_eq!([silence(&[100]), silence(&[100, 9_000, 2_000]), silence(&[3_600_000])], [5, 9, 60]);
        let usual = FieldConfig::usual().into_iter().map(|field| FieldConfig { limit_ms: 3_600_000, ..field });
        let (board, start, mut whose) = (Board::new(usual.collect()), Instant::now(), Whose::default());
        let later = start + *SILENCE.end() + Duration::from_secs(1);
        let sender = |host: u8, system| Sender { address: [10, 0, 0, host].into(), system };
        let (one, other) = (sender(2, Some(1)), sender(3, Some(1)));
        assert!(!whose.is(one) && whose.takes(one, &board, start) && whose.is(one));
        whose.set("depth", 1.0, &board, start);
        board.set("heading", 90.0, start);
        for another in [other, sender(2, Some(2)), sender(2, None)] {
            assert!(!whose.takes(another, &board, start + *SILENCE.end()), "{another}");
        }
        let changes = board.changes();
        assert!(whose.takes(other, &board, later));
        assert_eq!(board.text("depth", later), None);
        assert!(board.changes() > changes && board.values(later).len() == 1, "it is told, and what others said stays");
        whose.set("depth", 50.0, &board, later);
        assert!(!whose.takes(sender(2, None), &board, later), "a third");
        assert!(whose.takes(one, &board, later) && !whose.takes(other, &board, later), "the first is there again");
        assert_eq!(board.text("depth", later), None, "nor is anything mixed then");
    }
}
