//! How long files get, how much of them is kept, and what stays free: as the options say it, `10min`, `2GB`, `7d`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// The longest file, in time and in bytes: its index is in memory until it ends, and FAT takes none of 4 GiB.
pub const LONGEST: Duration = Duration::from_secs(2 * 3600);
pub const LARGEST: u64 = 4_000_000_000;
const SHORTEST: Duration = Duration::from_secs(5);
const SMALLEST: u64 = 1_000_000;

/// By `kB`, `MB`, `GB` and `TB`, powers of 1,000.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bytes(pub u64);

/// What stays free on the disk, unless it is said.
pub const SPARE: Bytes = Bytes(2_000_000_000);

/// A time or a size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    Time(Duration),
    Bytes(Bytes),
}

/// When a file is long enough. The next one begins with the first keyframe then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Split {
    pub time: Duration,
    pub bytes: u64,
}

impl Default for Split {
    fn default() -> Self {
        Self { time: Duration::from_secs(600), bytes: LARGEST }
    }
}

impl Split {
    /// # Errors
    /// Says what is possible.
    pub fn at(measure: Measure) -> Result<Self, String> {
        match measure {
            Measure::Time(time) if (SHORTEST..=LONGEST).contains(&time) => Ok(Self { time, bytes: LARGEST }),
            Measure::Bytes(Bytes(bytes)) if (SMALLEST..=LARGEST).contains(&bytes) => Ok(Self { time: LONGEST, bytes }),
            _ => Err("must be from 5s to 2h, or from 1MB to 4GB".to_owned()),
        }
    }
}

const SIZES: [(&str, u64); 5] =
    [("TB", 1_000_000_000_000), ("GB", 1_000_000_000), ("MB", 1_000_000), ("kB", 1_000), ("B", 1)];
const TIMES: [(&str, u64); 4] = [("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1)];

/// A whole number in front of one of these units, upper and lower case alike.
fn in_units(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let (_, factor) = units.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit.trim()))?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

impl FromStr for Bytes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        in_units(text, &SIZES).map(Self).ok_or_else(|| "must be a size, as 500MB or 2GB".to_owned())
    }
}

impl FromStr for Measure {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let time = in_units(text, &TIMES).map(|seconds| Self::Time(Duration::from_secs(seconds)));
        let bytes = || in_units(text, &SIZES).map(|bytes| Self::Bytes(Bytes(bytes)));
        time.or_else(bytes).ok_or_else(|| "must be a time or a size, as 10min, 7d or 2GB".to_owned())
    }
}

/// With three digits at most, as people read it.
impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, factor) = SIZES.into_iter().find(|(_, factor)| self.0 >= *factor).unwrap_or(("B", 1));
        let number = self.0 as f64 / factor as f64;
        let digits = usize::from(number < 10.0 && factor > 1 && !self.0.is_multiple_of(factor));
        write!(f, "{number:.digits$} {unit}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times_are_read_with_their_units() {
        let time = |seconds| Ok(Measure::Time(Duration::from_secs(seconds)));
        let bytes = |bytes| Ok(Measure::Bytes(Bytes(bytes)));
        for (text, measure) in [
            ("10min", time(600)),
            ("7d", time(604_800)),
            ("90 s", time(90)),
            ("2h", time(7_200)),
            ("2GB", bytes(2_000_000_000)),
            ("500mb", bytes(500_000_000)),
            ("0B", bytes(0)),
        ] {
            assert_eq!(text.parse::<Measure>(), measure, "{text}");
        }
        for text in ["", "10", "GB", "-1GB", "1.5GB", "10 m", "2GiB", "99999999999TB", "1e3s"] {
            assert!(text.parse::<Measure>().is_err() && text.parse::<Bytes>().is_err(), "{text}");
        }
        assert!("10min".parse::<Bytes>().is_err());
    }

    #[test]
    fn files_have_bounds_whatever_is_said() {
        let at = |text: &str| Split::at(text.parse().unwrap());
        assert_eq!(at("10min"), Ok(Split::default()));
        assert_eq!(at("2GB"), Ok(Split { time: LONGEST, bytes: 2_000_000_000 }));
        for text in ["0s", "4s", "3h", "1kB", "5GB"] {
            assert!(at(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_are_written_for_people() {
        let written = [0, 999, 1_000, 1_500, 12_345_678, 2_000_000_000].map(|bytes| Bytes(bytes).to_string());
        assert_eq!(written, ["0 B", "999 B", "1 kB", "1.5 kB", "12 MB", "2 GB"]);
    }
}
