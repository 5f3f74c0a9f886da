//! RTP packets of a source that were lost: its stream goes on at the next keyframe that is whole. Viewers could not see
//! the loss, as the packets that they get have other numbers, and would show torn pictures. Where the source refreshes
//! its pictures in parts, it goes on at the next recovery point: a keyframe may never come, and within a refresh (a
//! second or two) no damage is left.

use gstreamer as gst;

/// A keyframe that was asked for may have been lost itself.
const ASK_AGAIN: gst::ClockTime = gst::ClockTime::from_mseconds(500);
/// Without a keyframe for so long there may never be one, as where a stream begins with one and is refreshed in parts
/// then.
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
    /// When a keyframe was asked for.
    asked: Option<gst::ClockTime>,
}

impl Losses {
    /// Packets are missing behind a picture, and before another one, where that is damaged too.
    pub fn lost(&mut self, behind: Option<gst::ClockTime>, before: Option<gst::ClockTime>) {
        self.waits = Some([behind, before]);
    }

    /// Whether a keyframe is to be asked for now, by the time of the picture that comes: at once after a loss, even of
    /// a stream that has had none yet, whose first one may be what is damaged; and again until one comes.
    pub fn asks(&mut self, time: Option<gst::ClockTime>) -> bool {
        let again = |asked| self.has_keyframes && time.is_some_and(|time| time.saturating_sub(asked) >= ASK_AGAIN);
        let is_due = self.waits.is_some() && self.asked.is_none_or(again);
        if is_due {
            self.asked = Some(time.unwrap_or_default());
        }
        is_due
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
            (self.waits, self.asked) = (None, None);
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
        losses.lost(at(80), at(120));
        assert!(!losses.lets_through(at(120), Start::None));
        losses.lost(at(160), at(160));
        assert!(!losses.lets_through(at(160), Start::Keyframe), "a keyframe with a hole");
        assert!(!losses.lets_through(at(200), Start::None));
        assert!(losses.lets_through(at(240), Start::Keyframe) && losses.lets_through(at(280), Start::None));
        losses.lost(at(280), None);
        assert!(losses.lets_through(at(320), Start::Keyframe), "it begins behind the gap");
    }

    #[test]
    fn a_keyframe_is_asked_for_each_half_second_until_it_comes() {
        let mut losses = Losses::default();
        assert!(losses.lets_through(at(0), Start::Keyframe) && !losses.asks(at(40)));
        losses.lost(at(40), at(80));
        assert!(losses.asks(at(80)) && !losses.asks(at(80)));
        losses.lost(at(80), at(120));
        assert!(!losses.asks(at(120)) && !losses.asks(at(579)) && losses.asks(at(580)) && !losses.asks(at(620)));
        assert!(losses.lets_through(at(640), Start::Keyframe) && !losses.asks(at(9_000)));
        losses.lost(at(9_000), None);
        assert!(losses.asks(at(9_040)));
    }

    #[test]
    fn a_keyframe_is_not_waited_for_for_ever() {
        let mut losses = Losses::default();
        assert!(losses.lets_through(at(0), Start::Keyframe));
        losses.lost(at(0), at(40));
        assert!(!losses.lets_through(at(40), Start::None) && !losses.lets_through(at(40_000), Start::None));
        assert!(losses.lets_through(at(40_040), Start::None) && losses.lets_through(at(40_080), Start::None));
        losses.lost(at(40_080), None);
        assert!(losses.lets_through(at(40_120), Start::None));
        assert!(!losses.lets_through(at(40_080), Start::Keyframe), "it has, and this one is damaged");
        assert!(!losses.lets_through(at(40_160), Start::None) && losses.lets_through(at(40_200), Start::Keyframe));
    }

    #[test]
    fn a_first_keyframe_that_is_damaged_is_left_out() {
        let mut losses = Losses::default();
        losses.lost(at(0), at(0));
        assert!(losses.asks(at(0)), "nothing of it has come out yet");
        assert!(!losses.lets_through(at(0), Start::Keyframe) && !losses.lets_through(at(40), Start::None));
        losses.lost(at(40), at(80));
        assert!(losses.lets_through(at(120), Start::Keyframe) && losses.lets_through(at(160), Start::None));
    }

    #[test]
    fn a_stream_without_keyframes_is_not_kept_back() {
        let mut losses = Losses::default();
        assert!(losses.lets_through(at(0), Start::None));
        losses.lost(at(40), at(80));
        assert!(losses.asks(at(80)) && !losses.asks(at(9_000)), "asked for once");
        assert!(losses.lets_through(at(80), Start::None));
    }

    #[test]
    fn where_pictures_are_refreshed_in_parts_the_next_whole_recovery_point_goes_on() {
        let mut losses = Losses::default();
        assert!(losses.lets_through(at(0), Start::Keyframe) && losses.lets_through(at(40), Start::RecoveryPoint));
        losses.lost(at(40), at(80));
        assert!(!losses.lets_through(at(80), Start::RecoveryPoint), "it has a hole");
        assert!(!losses.lets_through(at(120), Start::None));
        assert!(losses.lets_through(at(160), Start::RecoveryPoint) && losses.lets_through(at(200), Start::None));
    }
}
