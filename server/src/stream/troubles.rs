//! Pure: rules by which a stream that runs is not well, as too much of the last minute was not as it should be.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

const MINUTE: Duration = Duration::from_secs(60);
const MOST_DROPPED: u64 = 100;
const MOST_ERRORS: usize = 10;
/// Pictures that are left out one after another are counted together for so long.
const TOGETHER: Duration = Duration::from_secs(1);
/// Somebody has watched for so long, and no picture has come for so long.
const DARK_AFTER: Duration = Duration::from_secs(5);

/// What has happened in the last minute.
#[derive(Debug, Default)]
pub(super) struct Troubles {
    /// When, and how many from then on; one for each second at most.
    dropped: VecDeque<(Instant, u64)>,
    /// The newest, one more than there may be.
    errors: VecDeque<Instant>,
    last_picture: Option<Instant>,
}

/// A rule that is broken: its name, for programs, and what is said of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    pub rule: &'static str,
    pub reason: String,
}

impl Troubles {
    pub fn picture(&mut self, now: Instant) {
        self.last_picture = Some(now);
    }

    /// So many more pictures were left out because something was too slow, or damaged.
    pub fn dropped(&mut self, now: Instant, count: u64) {
        if count == 0 {
            return;
        }
        match self.dropped.back_mut() {
            Some((since, dropped)) if now.saturating_duration_since(*since) < TOGETHER => *dropped += count,
            _ => self.dropped.push_back((now, count)),
        }
        while self.dropped.front().is_some_and(|(at, _)| now.saturating_duration_since(*at) > MINUTE) {
            self.dropped.pop_front();
        }
    }

    pub fn error(&mut self, now: Instant) {
        self.errors.push_back(now);
        if self.errors.len() > MOST_ERRORS + 1 {
            self.errors.pop_front();
        }
    }

    /// `watched_since`: none while nobody watches.
    pub fn broken(&self, now: Instant, watched_since: Option<Instant>) -> Option<Broken> {
        let recent = |at: &Instant| now.saturating_duration_since(*at) <= MINUTE;
        let long_ago = |at: Instant| now.saturating_duration_since(at) >= DARK_AFTER;
        let dropped: u64 = self.dropped.iter().filter(|(at, _)| recent(at)).map(|(_, count)| count).sum();
        let errors = self.errors.iter().filter(|at| recent(at)).count();
        let (rule, reason) = if watched_since.is_some_and(long_ago) && self.last_picture.is_none_or(long_ago) {
            let seconds = DARK_AFTER.as_secs();
            ("no_bitrate", format!("nothing has been encoded for {seconds} s although somebody watches"))
        } else if errors > MOST_ERRORS {
            ("errors", format!("more than {MOST_ERRORS} errors in the last minute; the log has them"))
        } else if dropped > MOST_DROPPED {
            ("dropped_frames", format!("more than {MOST_DROPPED} pictures of the last minute were left out"))
        } else {
            return None;
        };
        Some(Broken { rule, reason })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(troubles: &Troubles, now: Instant) -> Option<&'static str> {
        troubles.broken(now, None).map(|broken| broken.rule)
    }

    #[test]
    fn more_than_a_hundred_pictures_left_out_within_a_minute_are_told_until_the_minute_is_over() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut troubles = Troubles::default();
        for second in 0..10 {
            troubles.dropped(at(second), 10);
        }
        assert_eq!(rule(&troubles, at(10)), None, "a hundred may be");
        troubles.dropped(at(10), 1);
        assert_eq!(rule(&troubles, at(10)), Some("dropped_frames"));
        assert_eq!(rule(&troubles, at(60)), Some("dropped_frames"));
        assert_eq!(rule(&troubles, at(61)), None, "the first ten are over a minute old");
        for second in 0..1_000 {
            troubles.dropped(at(second), 1);
        }
        assert!(troubles.dropped.len() <= 62, "bounded");
        assert_eq!(rule(&troubles, at(1_000)), None, "one each second is no trouble");
    }

    #[test]
    fn more_than_ten_errors_within_a_minute_are_told() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut troubles = Troubles::default();
        (0..10).for_each(|second| troubles.error(at(second)));
        assert_eq!(rule(&troubles, at(10)), None);
        troubles.error(at(10));
        assert_eq!(rule(&troubles, at(11)), Some("errors"));
        assert_eq!(rule(&troubles, at(61)), None);
        (0..1_000).for_each(|second| troubles.error(at(second)));
        assert_eq!(troubles.errors.len(), MOST_ERRORS + 1);
    }

    #[test]
    fn no_picture_is_told_only_while_somebody_has_waited_for_one() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut troubles = Troubles::default();
        let broken = |troubles: &Troubles, since, now| troubles.broken(now, since).map(|broken| broken.rule);
        assert_eq!(broken(&troubles, None, at(100)), None);
        assert_eq!(broken(&troubles, Some(at(98)), at(100)), None, "the encoder may still be waking");
        assert_eq!(broken(&troubles, Some(at(95)), at(100)), Some("no_bitrate"));
        troubles.picture(at(99));
        assert_eq!(broken(&troubles, Some(at(95)), at(100)), None);
        assert_eq!(broken(&troubles, Some(at(95)), at(104)), Some("no_bitrate"));
    }
}
