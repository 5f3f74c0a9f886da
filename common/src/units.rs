//! Quantities that are easy to confuse, as types.

use std::fmt;
use std::str::FromStr;
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

/// Frames per second as a fraction, as in `30000/1001`; written as that, as a number, or as the short form of a rate of
/// television: `29.97` and `23.976` are `30000/1001` and `24000/1001`.
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

/// A number of the command line, from 0 to the largest of its type. The error says that in words.
pub fn whole<T: TryFrom<u64>>(text: &str) -> Result<T, String> {
    within(0, u64::MAX >> (64 - 8 * size_of::<T>()))(text)
}

/// As [`whole`], from `least` to `most`.
pub fn within<T: TryFrom<u64>>(least: u64, most: u64) -> impl Fn(&str) -> Result<T, String> + Clone {
    move |text| {
        let number = text.parse().ok().filter(|number| (least..=most).contains(number));
        let number = number.and_then(|number: u64| T::try_from(number).ok());
        number.ok_or_else(|| format!("give a whole number from {least} to {most}"))
    }
}

/// As [`whole`], with a fraction.
pub fn decimal(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|number: &f64| number.is_finite());
    number.ok_or_else(|| "give a number, as 0.5".to_owned())
}

/// An IPv4 address of the command line or a file. The error says that in words.
pub fn address<T: FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| "give an IPv4 address, as 192.168.2.2".to_owned())
}

/// What is no frame rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoFps;

impl fmt::Display for NoFps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("give frames per second, as 30, 29.97 or 30000/1001")
    }
}

impl std::error::Error for NoFps {}

impl FromStr for Fps {
    type Err = NoFps;

    fn from_str(text: &str) -> Result<Self, NoFps> {
        if let Some((num, den)) = text.split_once('/') {
            let fps = Fps { num: num.parse().map_err(|_| NoFps)?, den: den.parse().map_err(|_| NoFps)? };
            return if fps.den == 0 { Err(NoFps) } else { Ok(fps) };
        }
        let is_plain = text.chars().all(|c| c.is_ascii_digit() || c == '.');
        let value = text.parse().ok().filter(|value: &f64| is_plain && *value <= 1e6).ok_or(NoFps)?;
        // Half a digit of the shortest form that is written, 23.98.
        let whole = value.ceil();
        if value.fract() != 0.0 && (value - whole * 1000.0 / 1001.0).abs() < 0.005 {
            return Ok(Fps { num: whole as u32 * 1000, den: 1001 });
        }
        let thousandths = (value * 1000.0).round() as u32;
        let common = (1..=1000).rev().find(|by| thousandths.is_multiple_of(*by) && 1000_u32.is_multiple_of(*by));
        let common = common.unwrap_or(1);
        Ok(Fps { num: thousandths / common, den: 1000 / common })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_number_is_said_in_words() {
        assert_eq!((whole("65535"), whole::<u8>("0"), decimal("0.5")), (Ok(u16::MAX), Ok(0), Ok(0.5)));
        assert_eq!(whole::<u16>("65536"), Err("give a whole number from 0 to 65535".to_owned()));
        assert_eq!(whole::<u32>("12x"), Err("give a whole number from 0 to 4294967295".to_owned()));
        assert_eq!(whole::<u8>("-1"), Err("give a whole number from 0 to 255".to_owned()));
        let percent = within::<u8>(1, 100);
        assert_eq!((percent("100"), percent("0")), (Ok(100), Err("give a whole number from 1 to 100".to_owned())));
        assert!(decimal("x").is_err() && decimal("inf").is_err());
    }

    #[test]
    fn a_frame_rate_is_read_as_people_write_it() {
        for (text, num, den) in [
            ("30", 30, 1),
            ("0", 0, 1),
            ("29.97", 30_000, 1001),
            ("30000/1001", 30_000, 1001),
            ("23.976", 24_000, 1001),
            ("23.98", 24_000, 1001),
            ("59.94", 60_000, 1001),
            ("12.5", 25, 2),
            ("7.5", 15, 2),
            ("29.5", 59, 2),
            ("0.125", 1, 8),
            ("30.0", 30, 1),
        ] {
            assert_eq!(text.parse(), Ok(Fps { num, den }), "{text}");
        }
        for text in ["", "fast", "-30", "1e3", "inf", "NaN", "30/0", "30/", "/1", "30/1/1", "99999999999", "+30", "30 "]
        {
            assert_eq!(text.parse::<Fps>(), Err(NoFps), "{text}");
        }
    }

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
