//! Names of recordings: when they begin, and what they are of. They are right for FAT and NTFS too, sort by time, and
//! are how the program knows its own files.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use time::OffsetDateTime;

use crate::capture_clock::Captured;

pub const EXTENSION: &str = ".mp4";
/// Of the table of times beside it.
pub const TIMES: &str = ".csv";
/// Of the subtitles with what the vehicle measured.
pub const SUBTITLES: &str = ".ass";
/// Of a table that is to take the place of the one that is there.
pub const NEW_TIMES: &str = ".csv.new";
/// Of what lies beside a recording, and goes with it.
pub const SIDECARS: [&str; 3] = [TIMES, SUBTITLES, NEW_TIMES];
/// As `2026-11-30_19-30-12.345Z`.
const BEGUN: usize = 24;
/// Of a label, in bytes.
const MAX_LABEL: usize = 100;

/// As `2026-11-30_19-30-12.345Z_cam1_stream1.mp4`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name {
    /// In milliseconds.
    begun: Duration,
    label: String,
}

impl Name {
    /// `label` is made of letters of ASCII, digits, `-` and `_`; in the place of others is a `-`.
    pub fn new(begun: Captured, label: &str) -> Self {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        let label = label.chars().take(MAX_LABEL).map(|c| if is_plain(c) { c } else { '-' }).collect::<String>();
        let label = if label.is_empty() { "video".to_owned() } else { label };
        Self { begun: Duration::from_millis(begun.0.as_millis() as u64), label }
    }

    /// Where there is one of this name already.
    pub fn next(self) -> Self {
        Self { begun: self.begun + Duration::from_millis(1), ..self }
    }

    pub fn begun(&self) -> Captured {
        Captured(self.begun)
    }

    pub fn label(&self) -> &str {
        &self.label
    }

    /// Of a file that is ours, a recording or what lies beside it.
    pub fn of_file(file: &str) -> Option<Self> {
        let stem = SIDECARS.iter().find_map(|extension| file.strip_suffix(extension));
        stem.map_or_else(|| file.parse().ok(), |stem| format!("{stem}{EXTENSION}").parse().ok())
    }

    /// Of a clip: no recording, so that none is deleted to make room, or counted as one.
    pub fn of_clip(&self) -> String {
        format!("clip_{self}")
    }

    /// Of the file with this extension that lies beside it.
    pub fn beside(&self, extension: &str) -> String {
        self.to_string().replace(EXTENSION, extension)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}_{}{EXTENSION}", stamp(self.begun, '_', '-', 3), self.label)
    }
}

/// Of exactly the form that is written.
impl FromStr for Name {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (begun, label) = text.strip_suffix(EXTENSION).and_then(|stem| stem.split_at_checked(BEGUN)).ok_or(())?;
        let numbers: Vec<u32> = begun
            .strip_suffix('Z')
            .ok_or(())?
            .split(['-', '_', '.'])
            .map(|part| part.parse().map_err(|_| ()))
            .collect::<Result<_, _>>()?;
        let [year, month, day, hour, minute, second, milli] = numbers[..] else { return Err(()) };
        let small = |number: u32| u8::try_from(number).map_err(|_| ());
        let month = time::Month::try_from(small(month)?).map_err(|_| ())?;
        let date = time::Date::from_calendar_date(year as i32, month, small(day)?).map_err(|_| ())?;
        let of_day = time::Time::from_hms_milli(small(hour)?, small(minute)?, small(second)?, milli as u16);
        let at = date.with_time(of_day.map_err(|_| ())?).assume_utc();
        let begun = u64::try_from(at.unix_timestamp_nanos() / 1_000_000).map_err(|_| ())?;
        let name = Self::new(Captured(Duration::from_millis(begun)), label.strip_prefix('_').ok_or(())?);
        // Signs, missing zeros and other characters are not of ours.
        (name.to_string() == text).then_some(name).ok_or(())
    }
}

/// A time of capture as RFC 3339 has it, to a microsecond.
pub fn rfc3339(captured: Captured) -> String {
    stamp(captured.0, 'T', ':', 6)
}

fn stamp(since_1970: Duration, between: char, of_day: char, digits: usize) -> String {
    let at = OffsetDateTime::UNIX_EPOCH + since_1970.min(Duration::from_secs(253_402_300_799));
    let (hour, minute, second, nano) = at.to_hms_nano();
    let fraction = nano / 10_u32.pow(9 - digits as u32);
    format!(
        "{:04}-{:02}-{:02}{between}{hour:02}{of_day}{minute:02}{of_day}{second:02}.{fraction:0digits$}Z",
        at.year(),
        u8::from(at.month()),
        at.day()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Captured {
        Captured(Duration::from_millis(ms))
    }

    #[test]
    fn a_name_says_when_and_what_and_is_read_again() {
        let name = Name::new(at(1_764_531_012_345), "cam1_stream1");
        assert_eq!(name.to_string(), "2025-11-30_19-30-12.345Z_cam1_stream1.mp4");
        assert_eq!(name.beside(TIMES), "2025-11-30_19-30-12.345Z_cam1_stream1.csv");
        assert_eq!(name.to_string().parse(), Ok(name.clone()));
        assert_eq!(name.of_clip(), "clip_2025-11-30_19-30-12.345Z_cam1_stream1.mp4");
        assert_eq!(Name::of_file(&name.of_clip()), None);
        assert_eq!((name.begun(), name.label()), (at(1_764_531_012_345), "cam1_stream1"));
        for extension in SIDECARS {
            assert_eq!(Name::of_file(&name.beside(extension)), Some(name.clone()));
        }
        assert!(name < name.clone().next());
        let odd = Name::new(at(0), "a/../b: ü\u{0}*").to_string();
        assert_eq!(odd, "1970-01-01_00-00-00.000Z_a----b-----.mp4");
        assert_eq!(odd.parse::<Name>().expect("ours").label(), "a----b-----");
        assert_eq!(rfc3339(Captured(Duration::from_micros(1_764_531_012_345_678))), "2025-11-30T19:30:12.345678Z");
    }

    #[test]
    fn other_names_are_not_ours() {
        for name in [
            "",
            ".mp4",
            "dive.mp4",
            "../2025-11-30_19-30-12.345Z_cam1.mp4",
            "2025-11-30_19-30-12.345Z_../x.mp4",
            "2025-11-30_19-30-12.345Z_a/b.mp4",
            "2025-11-30_19-30-12.345Z_a.mp4.mp4",
            "2025-11-30_19-30-12.345Z_.mp4",
            "2025-11-30_19-30-12.345Z_a.MP4",
            "2025-11-30_19-30-12,345Z_a.mp4",
            "2025-13-30_19-30-12.345Z_a.mp4",
            "2025-11-31_19-30-12.345Z_a.mp4",
            "2025-11-30_24-30-12.345Z_a.mp4",
            "+025-11-30_19-30-12.345Z_a.mp4",
            "1969-11-30_19-30-12.345Z_a.mp4",
            "2025-11-30_19-30-12.345Z_ä.mp4",
            "2025-11-30_19-30-12.34äZ_a.mp4",
        ] {
            assert_eq!(name.parse::<Name>(), Err(()), "{name}");
        }
    }
}
