//! Which pictures go to an encoder that rests now and then, and which of those that it gives go out: what was in it
//! when it was shut would come out when it is opened, and old pictures would look live. Pure.

use std::time::Duration;

/// Encoders may give times back in coarser units.
pub(super) const COARSE: Duration = Duration::from_millis(5);

/// By running times.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Valve {
    #[default]
    Open,
    Shut,
    /// No picture has come since it was opened, of this time or later.
    Opened(Duration),
    /// This is the time of the first that went in; what comes out may still be older.
    Filling(Duration),
}

impl Valve {
    pub fn shut(&mut self) {
        *self = Self::Shut;
    }

    /// Lets in the picture of this time and those behind it.
    pub fn open(&mut self, first: Duration) {
        if *self == Self::Shut {
            *self = Self::Opened(first);
        }
    }

    /// Whether the picture of this time would be the first since it was opened.
    pub fn awaits(&self, time: Duration) -> bool {
        matches!(*self, Self::Opened(first) if time + COARSE >= first)
    }

    /// Whether the picture of this time goes to the encoder.
    pub fn lets_in(&mut self, time: Duration) -> bool {
        if self.awaits(time) {
            *self = Self::Filling(time);
        }
        !matches!(self, Self::Shut | Self::Opened(_))
    }

    /// Whether the access unit of this time goes out.
    pub fn lets_out(&mut self, time: Duration) -> bool {
        match *self {
            Self::Filling(first) if time + COARSE >= first => *self = Self::Open,
            _ => {}
        }
        *self == Self::Open
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_went_in_before_the_rest_never_comes_out_after_it() {
        let ms = Duration::from_millis;
        let mut valve = Valve::default();
        valve.open(ms(0));
        assert!(valve.lets_in(ms(0)) && valve.lets_out(ms(0)) && valve.lets_in(ms(33)));
        valve.shut();
        assert!(!valve.lets_in(ms(66)));
        assert!(!valve.lets_out(ms(33)), "nobody is there");
        valve.open(ms(0));
        assert!(!valve.lets_out(ms(33)), "before any new picture");
        assert!(valve.lets_in(ms(9_000)));
        assert!(!valve.lets_out(ms(33)), "pushed out of the encoder by the new picture");
        assert!(valve.lets_in(ms(9_033)));
        assert!(valve.lets_out(ms(8_999)), "the new one, in whole milliseconds");
        assert!(valve.lets_out(ms(33)), "whatever the source does with its times, it is not kept shut");
        valve.open(ms(0));
        assert_eq!(valve, Valve::Open, "twice is once");
        valve.shut();
        valve.open(ms(12_000));
        assert!(!valve.lets_in(ms(11_967)), "it was on its way");
        assert!(valve.lets_in(ms(11_999)) && valve.lets_out(ms(12_000)), "that one, in whole milliseconds");
    }
}
