//! What goes into the decoder of a further stream of a coded source, and what is shown of its pictures.

use gstreamer as gst;

/// What goes into a decoder and comes out of it. Pure; pictures are known by their times.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Feed {
    /// Nothing goes in before a keyframe. `shows`: what is still in the decoder is as good as any.
    Waits {
        shows: bool,
    },
    /// A keyframe of this time went in; pictures from before it are not shown.
    Enters(Option<gst::ClockTime>),
    Flows,
}

/// What becomes of an access unit.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Taken {
    In,
    /// Left out, as nothing can be decoded before the next keyframe.
    Waits,
    /// Left out, as the decoder or the encoder behind it is too slow.
    Full,
}

impl Feed {
    pub const SHUT: Self = Self::Waits { shows: false };

    pub fn take(&mut self, time: Option<gst::ClockTime>, keyframe: bool, full: bool) -> Taken {
        if full {
            if *self == Self::Flows {
                *self = Self::Waits { shows: true };
            } else if matches!(self, Self::Enters(_)) {
                *self = Self::SHUT;
            }
            return Taken::Full;
        }
        match *self {
            Self::Waits { shows } if keyframe => *self = if shows { Self::Flows } else { Self::Enters(time) },
            Self::Waits { .. } => return Taken::Waits,
            Self::Enters(_) | Self::Flows => {}
        }
        Taken::In
    }

    /// Whether a decoded picture is shown.
    pub fn shows(&mut self, time: Option<gst::ClockTime>, damaged: bool) -> bool {
        let is_before = |from: &Option<gst::ClockTime>| time.zip(*from).is_some_and(|(time, from)| time < from);
        match self {
            Self::Enters(from) if is_before(from) => false,
            _ if damaged => {
                *self = Self::SHUT;
                false
            }
            Self::Waits { shows } => *shows,
            Self::Enters(_) | Self::Flows => {
                *self = Self::Flows;
                true
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Option<gst::ClockTime> {
        Some(gst::ClockTime::from_mseconds(ms))
    }

    #[test]
    fn a_decoder_begins_at_a_keyframe_and_shows_nothing_from_before_it() {
        let mut feed = Feed::SHUT;
        assert_eq!(feed.take(at(0), false, false), Taken::Waits);
        assert!(!feed.shows(at(0), false), "still in it from before a rest");
        assert_eq!(feed.take(at(40), true, false), Taken::In);
        assert!(!feed.shows(at(0), false), "pushed out by the new one");
        assert_eq!(feed.take(at(80), false, false), Taken::In);
        assert!(feed.shows(at(40), false) && feed.shows(at(80), false) && feed.shows(None, false));
    }

    #[test]
    fn one_that_is_too_slow_goes_on_at_a_keyframe_and_what_it_has_is_shown() {
        let mut feed = Feed::Flows;
        assert_eq!(feed.take(at(0), false, true), Taken::Full);
        assert_eq!(feed.take(at(40), false, false), Taken::Waits, "what it depends on is missing");
        assert!(feed.shows(at(0), false));
        assert_eq!(feed.take(at(80), true, true), Taken::Full, "no room for the keyframe either");
        assert_eq!(feed.take(at(120), true, false), Taken::In);
        assert!(feed.shows(at(40), false) && feed.shows(at(120), false));
    }

    #[test]
    fn damage_is_not_shown_before_a_later_keyframe() {
        let mut feed = Feed::Flows;
        assert!(!feed.shows(at(0), true));
        assert!(!feed.shows(at(40), false), "made of the damaged one");
        assert_eq!(feed.take(at(120), false, false), Taken::Waits);
        assert_eq!(feed.take(at(160), true, false), Taken::In);
        assert!(!feed.shows(at(80), true) && feed.shows(at(160), false), "that was before the keyframe");
    }
}
