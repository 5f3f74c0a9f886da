//! Quantities that are easy to confuse, as types.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A bit rate. Kept in kbit/s, the unit of the command line and of most encoders.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Bitrate(u32);

impl Bitrate {
    /// From kbit/s (1 kbit = 1000 bits).
    pub const fn from_kbps(kbps: u32) -> Self {
        Self(kbps)
    }

    pub const fn kbps(self) -> u32 {
        self.0
    }

    /// In bit/s; does not overflow below 4.29 Gbit/s and saturates above.
    pub const fn bps(self) -> u32 {
        self.0.saturating_mul(1000)
    }
}

impl fmt::Display for Bitrate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} kbit/s", self.0)
    }
}

/// Picture size in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Resolution {
    pub width: u32,
    pub height: u32,
}

impl Resolution {
    pub const fn new(width: u32, height: u32) -> Self {
        Self { width, height }
    }

    pub const fn pixels(self) -> u64 {
        self.width as u64 * self.height as u64
    }

    /// The largest size of this picture's aspect ratio that fits into `bounds`, at least 1x1.
    pub fn fit_into(self, bounds: Resolution) -> Resolution {
        let (w, h) = (self.width.max(1) as u64, self.height.max(1) as u64);
        let (bw, bh) = (bounds.width.max(1) as u64, bounds.height.max(1) as u64);
        if bw * h <= bh * w {
            Resolution::new(bw as u32, ((bw * h + w / 2) / w).max(1) as u32)
        } else {
            Resolution::new(((bh * w + h / 2) / h).max(1) as u32, bh as u32)
        }
    }
}

impl fmt::Display for Resolution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}", self.width, self.height)
    }
}

/// Frames per second as a fraction, as in `30000/1001`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fps {
    pub num: u32,
    pub den: u32,
}

impl Fps {
    pub const fn whole(fps: u32) -> Self {
        Self { num: fps, den: 1 }
    }

    pub fn as_f64(self) -> f64 {
        f64::from(self.num) / f64::from(self.den.max(1))
    }

    /// The time from one frame to the next; a rate of zero counts as one frame a second.
    pub fn interval(self) -> Duration {
        Duration::from_secs_f64(f64::from(self.den.max(1)) / f64::from(self.num.max(1)))
    }
}

impl fmt::Display for Fps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.den == 1 { write!(f, "{}", self.num) } else { write!(f, "{}/{}", self.num, self.den) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fitting_keeps_the_aspect_ratio() {
        let hd = Resolution::new(1920, 1080);
        assert_eq!(hd.fit_into(Resolution::new(1280, 1280)), Resolution::new(1280, 720));
        assert_eq!(hd.fit_into(Resolution::new(4000, 720)), Resolution::new(1280, 720));
        assert_eq!(hd.fit_into(Resolution::new(0, 0)), Resolution::new(1, 1));
    }

    #[test]
    fn an_interval_is_the_inverse_of_the_rate() {
        assert_eq!(Fps::whole(50).interval(), Duration::from_millis(20));
        assert_eq!(Fps { num: 30000, den: 1001 }.to_string(), "30000/1001");
    }
}
