//! When the access units of a stream come from another branch: none is missing, and none comes twice. Pure.
//!
//! The next branch is at work beside the former one before anything is decided, so that opening its encoder costs no
//! time. Then it begins anew, with a keyframe, at a picture that both get: first as a rehearsal, for which nothing
//! waits, and where that keyframe came in time, once more. From that picture on the units of the former one are held
//! back: they are for nothing once the keyframe is there, and go out after all where it does not come. So an encoder
//! that is too slow costs nothing.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use rov_common::access_unit::AccessUnit;

use super::valve::COARSE;

/// For one branch to wait for the other.
const LIMIT: Duration = Duration::from_millis(200);
/// Units that are held back; they are few, as `LIMIT` is short.
const HELD: usize = 64;
/// So often the former branch is held back to the limit for nothing.
const MOST_LATE: usize = 2;

/// By running times.
#[derive(Debug)]
pub(super) struct Handover<U> {
    state: State,
    /// Of the former branch, and of the next.
    former: VecDeque<(Duration, U)>,
    next: VecDeque<(Duration, U)>,
    /// Of the last that went out.
    last_out: Option<Duration>,
    /// That the next branch gives something was said.
    is_alive: bool,
    /// Its last rehearsal went well.
    is_rehearsed: bool,
    /// How often it was late although it had.
    late: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The next branch gives nothing yet, or what it gives is for nothing.
    Beside,
    /// It began anew then, for nothing.
    Rehearsal(Instant),
    /// From this picture on, since then.
    From(Duration, Instant),
    Over,
}

/// What goes out.
pub(super) trait Unit {
    fn is_keyframe(&self) -> bool;
}

impl Unit for AccessUnit {
    fn is_keyframe(&self) -> bool {
        self.keyframe
    }
}

/// What comes of a unit, or of time that has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sign {
    /// The next branch has given something; said once.
    Alive,
    /// It has begun with a keyframe in time: the next time that it begins anew, it takes over.
    Rehearsed,
    /// What goes out is the next branch's from here on.
    TookOver,
    /// The next branch was too late, or did not begin with a keyframe: the former one goes on.
    GaveUp,
    /// The same, and another attempt is not worth the pictures that it would hold back.
    TooSlow,
}

impl<U: Unit> Handover<U> {
    pub fn new() -> Self {
        let (former, next) = (VecDeque::new(), VecDeque::new());
        Self { state: State::Beside, former, next, last_out: None, is_alive: false, is_rehearsed: false, late: 0 }
    }

    /// After a rehearsal that went well.
    #[cfg(test)]
    pub fn rehearsed() -> Self {
        Self { is_rehearsed: true, ..Self::new() }
    }

    pub fn is_over(&self) -> bool {
        self.state == State::Over
    }

    /// The next branch begins anew with the picture of this time.
    pub fn begin(&mut self, first: Duration, now: Instant) {
        if self.state == State::Beside {
            self.state = if self.is_rehearsed { State::From(first, now) } else { State::Rehearsal(now) };
        }
    }

    /// A unit of the former branch. What goes out now is put into `out`.
    pub fn former(&mut self, time: Duration, unit: U, now: Instant, out: &mut Vec<U>) -> Option<Sign> {
        match self.state {
            State::Over => return None,
            State::From(first, _) if time + COARSE >= first => {
                self.former.push_back((time, unit));
                if self.former.len() > HELD {
                    return Some(self.give_up(out));
                }
            }
            State::Beside | State::Rehearsal(_) | State::From(..) => {
                self.last_out = Some(time);
                out.push(unit);
            }
        }
        self.look(now, false, out)
    }

    /// A unit of the next branch. `alone`: the former one gives nothing any more.
    pub fn next(&mut self, time: Duration, unit: U, alone: bool, now: Instant, out: &mut Vec<U>) -> Option<Sign> {
        match self.state {
            State::Over => out.push(unit),
            State::Beside => return (!std::mem::replace(&mut self.is_alive, true)).then_some(Sign::Alive),
            State::Rehearsal(since) => {
                if !unit.is_keyframe() || is_late(since, now) {
                    return Some(self.give_up(out));
                }
                (self.state, self.is_rehearsed) = (State::Beside, true);
                return Some(Sign::Rehearsed);
            }
            State::From(..) => {
                let is_late = self.last_out.is_some_and(|last| time <= last);
                if self.next.is_empty() && (!unit.is_keyframe() || is_late) || self.next.len() >= HELD {
                    return Some(self.give_up(out));
                }
                self.next.push_back((time, unit));
            }
        }
        self.look(now, alone, out)
    }

    /// Ends a wait that has lasted too long.
    pub fn look(&mut self, now: Instant, alone: bool, out: &mut Vec<U>) -> Option<Sign> {
        let (State::Rehearsal(since) | State::From(_, since)) = self.state else { return None };
        let is_late = is_late(since, now);
        let Some(&(keyframe, _)) = self.next.front() else {
            self.late += usize::from(is_late && matches!(self.state, State::From(..)));
            let sign = is_late.then(|| self.give_up(out))?;
            return Some(if self.late < MOST_LATE { sign } else { Sign::TooSlow });
        };
        let is_through = self.former.back().is_some_and(|(time, _)| *time + COARSE >= keyframe);
        if !(is_through || alone || is_late) {
            return None;
        }
        let before = self.former.drain(..).filter(|(time, _)| *time + COARSE < keyframe);
        out.extend(before.chain(self.next.drain(..)).map(|(_, unit)| unit));
        self.state = State::Over;
        Some(Sign::TookOver)
    }

    /// The former branch goes on.
    pub fn give_up(&mut self, out: &mut Vec<U>) -> Sign {
        self.next.clear();
        self.last_out = self.former.back().map(|(time, _)| *time).or(self.last_out);
        out.extend(self.former.drain(..).map(|(_, unit)| unit));
        (self.state, self.is_rehearsed) = (State::Beside, false);
        Sign::GaveUp
    }
}

fn is_late(since: Instant, now: Instant) -> bool {
    now.saturating_duration_since(since) >= LIMIT
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A picture's number, above a hundred where it is of the next branch.
    type Numbered = (u64, bool);

    impl Unit for Numbered {
        fn is_keyframe(&self) -> bool {
            self.1
        }
    }

    struct Run {
        handover: Handover<Numbered>,
        now: Instant,
        out: Vec<Numbered>,
    }

    impl Run {
        fn new() -> Self {
            Self { handover: Handover::new(), now: Instant::now(), out: Vec::new() }
        }

        fn former(&mut self, picture: u64) -> Option<Sign> {
            self.handover.former(at(picture), (picture, false), self.now, &mut self.out)
        }

        fn next(&mut self, picture: u64, keyframe: bool) -> Option<Sign> {
            self.handover.next(at(picture), (100 + picture, keyframe), false, self.now, &mut self.out)
        }

        /// After a rehearsal that went well.
        fn begin(&mut self, picture: u64) {
            self.handover.is_rehearsed = true;
            self.handover.begin(at(picture), self.now);
        }

        fn out(&self) -> Vec<u64> {
            self.out.iter().map(|(picture, _)| *picture).collect()
        }
    }

    fn at(picture: u64) -> Duration {
        Duration::from_millis(picture * 33)
    }

    #[test]
    fn each_picture_goes_out_once_whichever_encoder_is_the_quicker() {
        // The pictures in the order in which they come out; those of the next branch above a hundred.
        for order in [[4, 5, 105, 6, 106], [105, 106, 4, 5, 6], [4, 105, 5, 106, 6], [4, 5, 6, 105, 106]] {
            let mut run = Run::new();
            assert_eq!((run.former(3), run.next(3, true)), (None, Some(Sign::Alive)));
            run.begin(5);
            let signs = order.iter().filter_map(|picture| match picture {
                100.. => run.next(picture - 100, *picture == 105),
                _ => run.former(*picture),
            });
            assert_eq!(signs.collect::<Vec<_>>(), [Sign::TookOver], "{order:?}");
            assert_eq!(run.out(), [3, 4, 105, 106], "{order:?}");
            assert!(run.handover.is_over());
        }
    }

    #[test]
    fn pictures_that_the_next_branch_left_out_before_its_keyframe_are_the_former_ones() {
        let mut run = Run::new();
        run.begin(5);
        for picture in [4, 5, 6, 7] {
            assert_eq!(run.former(picture), None);
        }
        assert_eq!(run.next(7, true), Some(Sign::TookOver));
        assert_eq!(run.out(), [4, 5, 6, 107]);
    }

    #[test]
    fn without_a_keyframe_in_time_the_former_goes_on_and_nothing_is_lost() {
        let mut run = Run::new();
        run.begin(5);
        assert_eq!((run.former(5), run.former(6), run.out()), (None, None, vec![]));
        run.now += LIMIT;
        assert_eq!(run.handover.look(run.now, false, &mut run.out), Some(Sign::GaveUp));
        assert_eq!(run.out(), [5, 6]);
        // The next one comes late, and begins again.
        assert_eq!((run.next(5, true), run.next(6, false)), (Some(Sign::Alive), None));
        run.begin(8);
        assert_eq!(run.former(7), None);
        assert_eq!(run.next(8, false), Some(Sign::GaveUp), "its first is no keyframe");
        run.begin(10);
        assert_eq!((run.former(8), run.former(9), run.former(10)), (None, None, None));
        assert_eq!(run.next(10, true), Some(Sign::TookOver));
        assert_eq!(run.out(), [5, 6, 7, 8, 9, 110]);
    }

    #[test]
    fn one_that_is_too_slow_holds_nothing_back_and_one_in_time_takes_over_the_next_time() {
        let mut run = Run::new();
        for _ in 0..3 {
            run.handover.begin(at(5), run.now);
            run.out.clear();
            assert_eq!((run.former(5), run.former(6), run.out()), (None, None, vec![5, 6]));
            run.now += LIMIT;
            assert_eq!(run.handover.look(run.now, false, &mut run.out), Some(Sign::GaveUp));
        }
        run.handover.begin(at(7), run.now);
        assert_eq!(run.next(7, false), Some(Sign::GaveUp), "its first is no keyframe");
        run.handover.begin(at(8), run.now);
        run.now += LIMIT;
        assert_eq!(run.next(8, true), Some(Sign::GaveUp), "it is late, though nobody has looked");
        run.out.clear();
        run.handover.begin(at(9), run.now);
        assert_eq!((run.former(9), run.next(9, true)), (None, Some(Sign::Rehearsed)));
        assert_eq!((run.next(10, false), run.former(10), run.out()), (Some(Sign::Alive), None, vec![9, 10]));
        run.handover.begin(at(11), run.now);
        assert_eq!((run.former(11), run.next(11, true)), (None, Some(Sign::TookOver)));
        assert_eq!(run.out(), [9, 10, 111]);
        // Where that fails, it is rehearsed again; and where it was late for it, not often.
        let mut run = Run::new();
        run.begin(5);
        assert_eq!(run.next(5, false), Some(Sign::GaveUp));
        run.handover.begin(at(6), run.now);
        assert_eq!((run.former(6), run.out()), (None, vec![6]));
        for sign in [Sign::GaveUp, Sign::TooSlow] {
            run.handover.give_up(&mut Vec::new());
            run.begin(7);
            run.now += LIMIT;
            assert_eq!(run.handover.look(run.now, false, &mut run.out), Some(sign));
        }
    }

    #[test]
    fn more_than_can_be_held_back_goes_out_in_its_order_and_the_former_goes_on() {
        let mut run = Run::new();
        run.begin(5);
        let last = 5 + HELD as u64;
        let signs: Vec<_> = (5..=last).filter_map(|picture| run.former(picture)).collect();
        assert_eq!(signs, [Sign::GaveUp]);
        run.former(last + 1);
        assert_eq!(run.out(), (5..=last + 1).collect::<Vec<_>>());
    }

    #[test]
    fn one_that_was_overtaken_by_the_former_does_not_show_a_picture_again() {
        let mut run = Run::new();
        assert_eq!(run.former(5), None);
        run.begin(5);
        assert_eq!(run.next(5, true), Some(Sign::GaveUp));
        assert_eq!(run.out(), [5]);
    }

    #[test]
    fn a_former_that_is_slow_or_gives_nothing_any_more_is_not_waited_for() {
        let mut run = Run::new();
        run.begin(5);
        assert_eq!(run.next(5, true), None, "the former may still give the picture before");
        run.now += LIMIT;
        assert_eq!(run.handover.look(run.now, false, &mut run.out), Some(Sign::TookOver));
        assert_eq!((run.former(4), run.next(6, false)), (None, None));
        assert_eq!(run.out(), [105, 106]);
        let mut run = Run::new();
        run.begin(5);
        assert_eq!(run.handover.next(at(5), (105, true), true, run.now, &mut run.out), Some(Sign::TookOver));
    }
}
