//! RTP packets of a source that were lost: its stream goes on at the next keyframe that is whole. Viewers could not see
//! the loss, as the packets that they get have other numbers, and would show torn pictures. Where the source refreshes
//! its pictures in parts, it goes on at the next recovery point: a keyframe may never come, and within a refresh (a second
//! or two) no damage is left.

use gstreamer as gst;

/// Without a keyframe for so long there may never be one, as where a stream begins with one and is refreshed in parts then.
const LONGEST_WAIT: gst::ClockTime = gst::ClockTime::from_seconds(40);

/// What decoding may begin with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    None,
    /// Of pictures that are refreshed in parts.
    RecoveryPoint,
    Keyframe,
}

/// Pure; pictures are known by their times.
#[derive(Debug, Default)]
pub struct Losses {
    /// A stream that is refreshed in parts never has one, and shows what it can.
    has_keyframes: bool,
    /// The pictures on both sides of the last gap; the second may have begun behind it.
    waits: Option<[Option<gst::ClockTime>; 2]>,
    /// The first picture that was left out.
    first: Option<gst::ClockTime>,
}

impl Losses {
    /// Packets are missing behind a picture, and before another one, where that is damaged too. True: a keyframe is
    /// wanted: once, even of a stream that has had none yet, whose first one may be what is damaged.
    pub fn lost(&mut self, behind: Option<gst::ClockTime>, before: Option<gst::ClockTime>) -> bool {
        self.waits.replace([behind, before]).is_none()
    }

    /// Whether pictures are left out until decoding may begin again.
    pub fn are_waited_out(&self) -> bool {
        self.waits.is_some()
    }

    /// Whether the access unit goes on, which begins with this.
    pub fn lets_through(&mut self, time: Option<gst::ClockTime>, start: Start) -> bool {
        self.has_keyframes |= start == Start::Keyframe;
        let is_damaged = |times: &[Option<gst::ClockTime>; 2]| time.is_some() && times.contains(&time);
        if start != Start::None && !self.waits.as_ref().is_some_and(is_damaged) {
            self.waits = None;
        }
        if self.waits.is_none() || !self.has_keyframes {
            self.first = None;
            return true;
        }
        let Some(time) = time else { return false };
        if time.saturating_sub(*self.first.get_or_insert(time)) >= LONGEST_WAIT {
            *self = Self::default();
        }
        self.waits.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Option<gst::ClockTime> {
        Some(gst::ClockTime::from_mseconds(ms))
    }

    #[test]
    fn after_a_loss_the_next_whole_keyframe_goes_on() {
        let mut losses = Losses::default();
        assert!(losses.lets_through(at(0), Start::Keyframe) && losses.lets_through(at(40), Start::None));
        assert!(losses.lost(at(80), at(120)));
        assert!(!losses.lets_through(at(120), Start::None));
        assert!(!losses.lost(at(160), at(160)), "asked for once");
        assert!(!losses.lets_through(at(160), Start::Keyframe), "a keyframe with a hole");
        assert!(!losses.lets_through(at(200), Start::None));
        assert!(losses.lets_through(at(240), Start::Keyframe) && losses.lets_through(at(280), Start::None));
        assert!(losses.lost(at(280), None));
        assert!(losses.lets_through(at(320), Start::Keyframe), "it begins behind the gap");
    }

    #[test]
    fn a_keyframe_is_not_waited_for_for_ever() {
        let mut losses = Losses::default();
        assert!(losses.lets_through(at(0), Start::Keyframe));
        assert!(losses.lost(at(0), at(40)));
        assert!(!losses.lets_through(at(40), Start::None) && !losses.lets_through(at(40_000), Start::None));
        assert!(losses.lets_through(at(40_040), Start::None) && losses.lets_through(at(40_080), Start::None));
        assert!(losses.lost(at(40_080), None) && !losses.lost(at(40_080), None), "asked for once more");
        assert!(losses.lets_through(at(40_120), Start::None));
        assert!(!losses.lets_through(at(40_080), Start::Keyframe), "it has, and this one is damaged");
        assert!(!losses.lets_through(at(40_160), Start::None) && losses.lets_through(at(40_200), Start::Keyframe));
    }

    #[test]
    fn a_first_keyframe_that_is_damaged_is_left_out() {
        let mut losses = Losses::default();
        assert!(losses.lost(at(0), at(0)), "nothing of it has come out yet");
        assert!(!losses.lets_through(at(0), Start::Keyframe) && !losses.lets_through(at(40), Start::None));
        assert!(!losses.lost(at(40), at(80)), "it is waited for already");
        assert!(losses.lets_through(at(120), Start::Keyframe) && losses.lets_through(at(160), Start::None));
    }

    #[test]
    fn a_stream_without_keyframes_is_not_kept_back() {
        let mut losses = Losses::default();
        assert!(losses.lets_through(at(0), Start::None));
        assert!(losses.lost(at(40), at(80)) && !losses.lost(at(40), at(80)), "asked for once");
        assert!(losses.lets_through(at(80), Start::None));
    }

    #[test]
    fn where_pictures_are_refreshed_in_parts_the_next_whole_recovery_point_goes_on() {
        let mut losses = Losses::default();
        assert!(losses.lets_through(at(0), Start::Keyframe) && losses.lets_through(at(40), Start::RecoveryPoint));
        assert!(losses.lost(at(40), at(80)));
        assert!(!losses.lets_through(at(80), Start::RecoveryPoint), "it has a hole");
        assert!(!losses.lets_through(at(120), Start::None));
        assert!(losses.lets_through(at(160), Start::RecoveryPoint) && losses.lets_through(at(200), Start::None));
    }
}
