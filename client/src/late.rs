//! When the pilot is warned that the picture is old. Pure.
//!
//! A picture counts as old where it is that for certain: its age less the bound of its error is over the limit. So a
//! clock that is known badly raises no false alarm. Where it is known too badly for an alarm, or not any more, that is
//! what is warned of. A single late picture, as after a retransmission, is none to warn of. One that stands grows
//! older, and is warned of where the next one is overdue.

use std::time::{Duration, Instant};

use rov_common::clock_sync::Age;

use crate::clock::Unknown;

/// Pictures have been old for so long: what the pilot sees is late.
const RAISE_AFTER: Duration = Duration::from_millis(80);
/// They have been young again for so long: the warning does not flicker.
const END_AFTER: Duration = Duration::from_millis(250);
/// For so long it has not been known how old they are, as after a new session: until then that neither ends nor raises
/// anything.
const UNKNOWN_AFTER: Duration = Duration::from_secs(5);

/// The next picture is overdue after so many intervals of those before.
const OVERDUE: u32 = 3;
/// A longer one is an outage, from which nothing follows for the next.
const LONGEST_INTERVAL: Duration = Duration::from_secs(1);

/// What the pilot is warned of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Warning {
    /// Pictures are so old.
    Old(Duration),
    /// It is not known whether they are.
    Unknown,
}

/// Of one stream.
#[derive(Debug)]
pub struct LateAlarm {
    limit: Duration,
    /// The picture on the screen, where its age is known, and when it was shown; and the longest interval of late,
    /// which fades.
    shown: Option<(Age, Instant)>,
    interval: Option<Duration>,
    /// Since when no picture has been young.
    late_since: Option<Instant>,
    young_since: Option<Instant>,
    /// It was known how old a picture is.
    was_known: bool,
    /// Since when it is not known whether they are old.
    unsure_since: Option<Instant>,
    /// The newest picture that was old, and when it was shown.
    newest: Option<(Age, Instant)>,
    raised: Option<Raised>,
    /// Since when it is warned of that the age is not known.
    blind: Option<Instant>,
}

/// A warning that stands.
#[derive(Clone, Copy, Debug)]
struct Raised {
    since: Instant,
    oldest: Age,
    /// Only as the picture stood: the warning ends with the next one, unless that is old as well.
    stands: bool,
}

/// What became of the warning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    Raised(Age),
    /// With how long it stood, and the oldest picture meanwhile.
    Ended {
        lasted: Duration,
        oldest: Age,
    },
    /// The same, as it is not known any more how old pictures are.
    Unknown {
        lasted: Duration,
        oldest: Age,
    },
    /// It is not known whether they are old, or not any more: the age as far as it is known, or why it is not.
    Blind(Result<Age, Unknown>),
    /// It is known again, after so long.
    Sees(Duration),
}

impl LateAlarm {
    pub fn new(limit: Duration) -> Self {
        let (late_since, young_since, unsure_since, newest, raised, blind) = Default::default();
        let (shown, interval, was_known) = Default::default();
        Self { limit, shown, interval, late_since, young_since, was_known, unsure_since, newest, raised, blind }
    }

    /// Another picture is about to be shown: that one stands no more.
    pub fn taken(&mut self, age: Option<Age>, at: Instant) -> Option<Change> {
        self.raised.filter(|raised| raised.stands && !self.is_old(age))?;
        (self.late_since, self.shown) = (None, None);
        self.end(at)
    }

    /// A picture was shown, of this age, or why that is not known.
    pub fn shown(&mut self, age: Result<Age, Unknown>, at: Instant) -> Option<Change> {
        let ended = self.taken(age.ok(), at);
        self.note_interval(age.ok(), at);
        self.was_known |= age.is_ok();
        let change = match age {
            Ok(age) if self.is_old(Some(age)) => {
                self.unsure_since = None;
                // What was marked stays marked.
                let since = self.blind.and(at.checked_sub(RAISE_AFTER)).unwrap_or(at);
                self.late_since.get_or_insert(since);
                self.young_since = None;
                self.newest = Some((age, at));
                if let Some(raised) = &mut self.raised {
                    raised.oldest = if age.age > raised.oldest.age { age } else { raised.oldest };
                    raised.stands = false;
                }
                self.blind = None;
                None
            }
            Ok(age) if age.bound <= self.limit => {
                (self.unsure_since, self.late_since) = (None, None);
                self.young_since.get_or_insert(at);
                self.blind.take().map(|since| Change::Sees(at.saturating_duration_since(since)))
            }
            unsure => self.unsure(unsure, at),
        };
        ended.or(change).or_else(|| self.look(at))
    }

    fn note_interval(&mut self, age: Option<Age>, at: Instant) {
        let before = std::mem::replace(&mut self.shown, age.map(|age| (age, at)));
        let (Some(_), Some((_, before))) = (age, before) else { return };
        let interval = at.saturating_duration_since(before);
        if interval < LONGEST_INTERVAL {
            self.interval = Some(self.interval.map_or(interval, |longest| interval.max(longest * 7 / 8)));
        }
    }

    /// A picture was shown, and whether it is old is not known.
    fn unsure(&mut self, age: Result<Age, Unknown>, at: Instant) -> Option<Change> {
        // Where whoever sends tells it to nobody, there is nothing to warn of.
        let is_told = !matches!(age, Err(Unknown::NoClock | Unknown::NoCaptureTime));
        self.blind = self.blind.filter(|_| is_told);
        if self.raised.is_none() {
            self.late_since = None;
        }
        let since = *self.unsure_since.get_or_insert(at);
        if at.saturating_duration_since(since) < UNKNOWN_AFTER || self.blind.is_some() {
            return None;
        }
        self.late_since = None;
        let raised = self.raised.take();
        if !self.was_known || !is_told {
            let Raised { since, oldest, .. } = raised?;
            return Some(Change::Unknown { lasted: at.saturating_duration_since(since), oldest });
        }
        self.blind = Some(at);
        Some(Change::Blind(age))
    }

    fn is_old(&self, age: Option<Age>) -> bool {
        age.is_some_and(|age| age.certain() > self.limit)
    }

    fn end(&mut self, now: Instant) -> Option<Change> {
        let Raised { since, oldest, .. } = self.raised.take()?;
        Some(Change::Ended { lasted: now.saturating_duration_since(since), oldest })
    }

    /// To be called again and again, also while no picture comes.
    pub fn look(&mut self, now: Instant) -> Option<Change> {
        let has_lasted = |since: Option<Instant>, limit: Duration| {
            since.is_some_and(|since| now.saturating_duration_since(since) >= limit)
        };
        if self.raised.is_none() && has_lasted(self.late_since, RAISE_AFTER) {
            let (age, _) = self.newest?;
            self.raised = Some(Raised { since: now, oldest: age, stands: false });
            return Some(Change::Raised(age));
        }
        if let Some(age) = self.overdue(now) {
            (self.newest, self.young_since) = (self.shown, None);
            self.late_since.get_or_insert(now);
            match &mut self.raised {
                Some(raised) => raised.oldest = if age.age > raised.oldest.age { age } else { raised.oldest },
                None => {
                    self.raised = Some(Raised { since: now, oldest: age, stands: true });
                    return Some(Change::Raised(age));
                }
            }
        }
        if has_lasted(self.young_since, END_AFTER) {
            return self.end(now);
        }
        None
    }

    /// How old the picture is that stands, where that is too old and the next one is overdue.
    fn overdue(&self, now: Instant) -> Option<Age> {
        let (shown, at) = self.shown?;
        let stands = now.saturating_duration_since(at);
        let age = Age { age: shown.age + stands, ..shown };
        (stands > self.interval? * OVERDUE && age.certain() > self.limit).then_some(age)
    }

    /// What is warned of now. Of pictures that are old it says how old the newest of them is.
    pub fn warning(&self, now: Instant) -> Option<Warning> {
        let Some((age, at)) = self.newest.filter(|_| self.raised.is_some()) else {
            return self.blind.map(|_| Warning::Unknown);
        };
        let since = now.saturating_duration_since(at);
        // It is not on the screen any more where one came whose age is not known.
        let stands = self.shown.is_some_and(|(_, shown)| shown == at);
        Some(Warning::Old(age.age + if stands { since } else { since.min(RAISE_AFTER) }))
    }

    /// The pictures that follow are of another sender.
    pub fn forget(&mut self) {
        *self = Self::new(self.limit);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_millis(300);

    struct Pilot {
        alarm: LateAlarm,
        begun: Instant,
    }

    impl Pilot {
        fn new() -> Self {
            Self { alarm: LateAlarm::new(LIMIT), begun: Instant::now() }
        }

        /// A picture of this age at this time, both in milliseconds.
        fn sees(&mut self, at: u64, age: u64) -> Option<Change> {
            let (age, bound) = (Duration::from_millis(age), Duration::from_millis(10));
            self.alarm.shown(Ok(Age { age, bound }), self.begun + Duration::from_millis(at))
        }

        fn warned_at(&self, at: u64) -> Option<u128> {
            match self.alarm.warning(self.begun + Duration::from_millis(at))? {
                Warning::Old(age) => Some(age.as_millis()),
                Warning::Unknown => None,
            }
        }
    }

    #[test]
    fn pictures_that_stay_old_are_warned_of_within_200_ms_and_not_500_ms_after() {
        let mut pilot = Pilot::new();
        for at in (0..330).step_by(33) {
            assert_eq!(pilot.sees(at, 50), None);
        }
        let raised = (0..8).find(|n| pilot.sees(330 + 33 * n, 400).is_some()).expect("a warning");
        assert!(raised * 33 < 200 - 33, "{raised} pictures later");
        assert_eq!(pilot.warned_at(330 + 33 * raised), Some(400));
        assert_eq!(pilot.sees(700, 2_000), None);
        let ended = (1..15).find_map(|n| pilot.sees(700 + 33 * n, 60).map(|change| (n, change)));
        let (pictures, change) = ended.expect("an end");
        assert!(pictures * 33 < 400, "{pictures} pictures later");
        assert!(matches!(change, Change::Ended { oldest, .. } if oldest.age.as_millis() == 2_000), "{change:?}");
        assert_eq!(pilot.warned_at(1_500), None);
    }

    #[test]
    fn a_late_picture_now_and_then_is_none_to_warn_of() {
        let mut pilot = Pilot::new();
        for n in 0..10_000 {
            let age = if n % 10 < 2 { 450 } else { 40 };
            assert_eq!(pilot.sees(33 * n, age), None, "picture {n}");
        }
    }

    #[test]
    fn what_is_not_certainly_old_raises_nothing() {
        let mut pilot = Pilot::new();
        for n in 0..100 {
            assert_eq!(pilot.sees(33 * n, 305), None, "300 at least may be 295");
        }
        assert!((0..10).any(|n| pilot.sees(4_000 + 33 * n, 311).is_some()));
    }

    #[test]
    fn at_a_low_rate_one_old_picture_is_enough_and_it_is_looked_for() {
        let mut pilot = Pilot::new();
        assert_eq!(pilot.sees(0, 900), None);
        let begun = pilot.begun;
        let at = |ms| begun + Duration::from_millis(ms);
        assert!(matches!(pilot.alarm.look(at(100)), Some(Change::Raised(_))));
        assert_eq!(pilot.sees(500, 50), None);
        assert!(matches!(pilot.alarm.look(at(760)), Some(Change::Ended { .. })));
    }

    #[test]
    fn a_picture_that_stands_grows_old_and_is_warned_of() {
        let mut pilot = Pilot::new();
        for at in (0..=330).step_by(33) {
            assert_eq!(pilot.sees(at, 50), None);
        }
        let begun = pilot.begun;
        let at = |ms| begun + Duration::from_millis(ms);
        assert_eq!(pilot.alarm.look(at(330 + 250)), None, "300 ms old, perhaps 290");
        assert!(matches!(pilot.alarm.look(at(330 + 270)), Some(Change::Raised(age)) if age.age.as_millis() == 320));
        assert_eq!((pilot.warned_at(700), pilot.alarm.look(at(700))), (Some(420), None));
        let young = Age { age: Duration::from_millis(50), bound: Duration::from_millis(10) };
        let Some(Change::Ended { oldest, .. }) = pilot.alarm.taken(Some(young), at(733)) else {
            panic!("it is drawn with the next one")
        };
        assert_eq!((oldest.age.as_millis(), pilot.warned_at(733)), (420, None));
        assert_eq!((pilot.sees(733, 50), pilot.warned_at(733)), (None, None));
    }

    #[test]
    fn what_follows_an_outage_is_judged_alone() {
        let mut pilot = Pilot::new();
        let begun = pilot.begun;
        let at = |ms| begun + Duration::from_millis(ms);
        for next in [Some(400), None, Some(50)] {
            for ms in (0..=330).step_by(33) {
                pilot.sees(ms, 50);
            }
            assert!(matches!(pilot.alarm.look(at(30_000)), Some(Change::Raised(_))));
            let age = next.map(|ms| Age { age: Duration::from_millis(ms), bound: Duration::ZERO });
            let stays = next == Some(400);
            assert_eq!(pilot.alarm.taken(age, at(30_010)).is_none(), stays, "{next:?}");
            pilot.alarm.shown(age.ok_or(Unknown::NotRead), at(30_010));
            assert_eq!(pilot.alarm.warning(at(30_011)).is_some(), stays, "{next:?}");
            // A pause a second later is seen as the one before.
            for ms in (31_000..32_000).step_by(33) {
                pilot.sees(ms, 50);
            }
            assert!(pilot.alarm.look(at(32_400)).is_some(), "{next:?}");
            pilot = Pilot { begun, ..Pilot::new() };
        }
    }

    #[test]
    fn pictures_of_unknown_age_are_no_picture_that_stands() {
        let mut pilot = Pilot::new();
        for at in (0..=330).step_by(33) {
            assert_eq!(pilot.sees(at, 50), None);
        }
        for at in (363..4_000).step_by(33) {
            let at = pilot.begun + Duration::from_millis(at);
            assert_eq!(pilot.alarm.shown(Err(Unknown::NotRead), at), None);
            assert_eq!(pilot.alarm.look(at + Duration::from_millis(20)), None);
        }
    }

    #[test]
    fn a_picture_of_a_slow_camera_stands_until_the_next_one_is_overdue() {
        let mut pilot = Pilot::new();
        for at in (0..=3_000).step_by(500) {
            assert_eq!(pilot.sees(at, 50), None);
            assert_eq!(pilot.alarm.look(pilot.begun + Duration::from_millis(at + 499)), None);
        }
        assert!(pilot.alarm.look(pilot.begun + Duration::from_millis(3_000 + 1_501)).is_some());
    }

    /// As in a new session, whose clock has not been read.
    #[test]
    fn what_is_not_known_ends_nothing_for_some_seconds_and_then_that_is_warned_of() {
        for (why, is_told) in [
            (Unknown::NotRead, true),
            (Unknown::Refused, true),
            (Unknown::NoClock, false),
            (Unknown::NoCaptureTime, false),
        ] {
            let mut pilot = Pilot::new();
            assert!((0..10).any(|n| pilot.sees(33 * n, 900).is_some()));
            let at = |ms| pilot.begun + Duration::from_millis(ms);
            for ms in (400..5_400).step_by(40) {
                assert_eq!(pilot.alarm.shown(Err(why), at(ms)), None, "{ms}");
            }
            assert!(matches!(pilot.alarm.warning(at(5_390)), Some(Warning::Old(_))));
            let change = pilot.alarm.shown(Err(why), at(5_400));
            if is_told {
                assert_eq!(change, Some(Change::Blind(Err(why))));
                assert_eq!(pilot.alarm.warning(at(5_400)), Some(Warning::Unknown));
            } else {
                assert!(matches!(change, Some(Change::Unknown { .. })), "{why:?}");
                assert_eq!(pilot.alarm.warning(at(5_400)), None);
            }
            assert_eq!(pilot.alarm.shown(Err(why), at(5_500)), None, "nor is it raised again");
        }
    }

    #[test]
    fn an_age_that_is_not_known_any_more_or_only_badly_is_warned_of_until_it_is_known_well() {
        let vague = Ok(Age { age: Duration::from_secs(1), bound: Duration::from_secs(1) });
        for (unsure, was_known) in [(Err(Unknown::NotRead), true), (vague, true), (vague, false)] {
            let mut pilot = Pilot::new();
            if was_known {
                pilot.sees(0, 50);
            }
            let at = |ms| pilot.begun + Duration::from_millis(ms);
            for ms in (40..5_040).step_by(40) {
                assert_eq!(pilot.alarm.shown(unsure, at(ms)), None, "{ms}");
                assert_eq!(pilot.alarm.warning(at(ms)), None, "{ms}");
            }
            assert_eq!(pilot.alarm.shown(unsure, at(5_040)), Some(Change::Blind(unsure)));
            assert_eq!(pilot.alarm.warning(at(5_060)), Some(Warning::Unknown));
            assert_eq!(pilot.alarm.shown(unsure, at(5_080)), None, "it is said once");
            if was_known {
                // Nobody tells it any more, as behind another way.
                pilot.alarm.shown(Err(Unknown::NoClock), at(5_120));
                assert_eq!(pilot.alarm.warning(at(5_120)), None);
                pilot.alarm.shown(unsure, at(5_160));
                assert_eq!(pilot.alarm.warning(at(5_160)), Some(Warning::Unknown));
                assert_eq!(pilot.sees(5_200, 50), Some(Change::Sees(Duration::from_millis(40))));
                assert_eq!(pilot.alarm.warning(pilot.begun + Duration::from_millis(5_200)), None);
            } else {
                assert!(matches!(pilot.sees(5_120, 900), Some(Change::Raised(_))), "what is marked stays marked");
                assert_eq!(pilot.warned_at(5_120), Some(900));
            }
        }
    }

    #[test]
    fn pictures_whose_age_was_never_known_are_not_warned_of() {
        let mut pilot = Pilot::new();
        for ms in (0..60_000).step_by(40) {
            let at = pilot.begun + Duration::from_millis(ms);
            assert_eq!((pilot.alarm.shown(Err(Unknown::NotRead), at), pilot.alarm.warning(at)), (None, None));
        }
    }

    #[test]
    fn what_is_only_perhaps_old_ends_no_warning() {
        let mut pilot = Pilot::new();
        assert!((0..10).any(|n| pilot.sees(33 * n, 900).is_some()));
        let vague = Ok(Age { age: Duration::from_secs(1), bound: Duration::from_secs(1) });
        for ms in (330..3_000).step_by(33) {
            assert_eq!(pilot.alarm.shown(vague, pilot.begun + Duration::from_millis(ms)), None, "{ms}");
        }
        assert!(pilot.warned_at(3_000).is_some());
    }

    #[test]
    fn one_old_picture_is_none_to_warn_of_where_the_age_of_the_next_ones_is_not_known() {
        let mut pilot = Pilot::new();
        assert_eq!(pilot.sees(0, 900), None);
        for ms in (33..1_000).step_by(33) {
            let at = pilot.begun + Duration::from_millis(ms);
            assert_eq!(pilot.alarm.shown(Err(Unknown::NotRead), at), None, "{ms}");
        }
    }

    #[test]
    fn nothing_is_known_of_another_sender() {
        let mut pilot = Pilot::new();
        assert!((0..10).any(|n| pilot.sees(33 * n, 900).is_some()));
        pilot.alarm.forget();
        for ms in (330..6_000).step_by(33) {
            let at = pilot.begun + Duration::from_millis(ms);
            assert_eq!((pilot.alarm.shown(Err(Unknown::NotRead), at), pilot.alarm.warning(at)), (None, None));
        }
    }
}
