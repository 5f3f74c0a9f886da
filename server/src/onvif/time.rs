//! Times as XML Schema writes them.

use std::time::{Duration, SystemTime};

use time::format_description::well_known::Rfc3339;
use time::{OffsetDateTime, UtcOffset};

/// `xs:dateTime`; without a zone it is UTC.
pub fn date_time(text: &str) -> Option<OffsetDateTime> {
    let text = text.trim();
    let parsed =
        OffsetDateTime::parse(text, &Rfc3339).or_else(|_| OffsetDateTime::parse(&format!("{text}Z"), &Rfc3339));
    parsed.ok().and_then(|time| time.checked_to_offset(UtcOffset::UTC))
}

/// `xs:duration`. A month has 30 days, a year 365.
pub fn duration(text: &str) -> Option<Duration> {
    let rest = text.trim().strip_prefix('P')?;
    let (days, times) = rest.split_once('T').map_or((rest, None), |(days, times)| (days, Some(times)));
    if times.is_some_and(str::is_empty) || rest.is_empty() {
        return None;
    }
    let day = 86_400.0;
    let seconds = sum(days, &[('Y', 365.0 * day), ('M', 30.0 * day), ('D', day)])?
        + sum(times.unwrap_or_default(), &[('H', 3600.0), ('M', 60.0), ('S', 1.0)])?;
    Duration::try_from_secs_f64(seconds).ok()
}

/// Numbers with a unit behind each, in the order of the units.
fn sum(mut text: &str, units: &[(char, f64)]) -> Option<f64> {
    let mut sum = 0.0;
    for (unit, seconds) in units {
        let Some((number, rest)) = text.split_once(*unit) else { continue };
        let is_number = !number.is_empty() && number.bytes().all(|c| c.is_ascii_digit() || c == b'.');
        sum += number.parse::<f64>().ok().filter(|_| is_number)? * seconds;
        text = rest;
    }
    text.is_empty().then_some(sum)
}

pub fn written(time: SystemTime) -> String {
    let time = OffsetDateTime::from(time).replace_nanosecond(0);
    time.ok().and_then(|time| time.format(&Rfc3339).ok()).unwrap_or_else(|| "1970-01-01T00:00:00Z".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_xml_schema_writes_them() {
        for (text, seconds) in [
            ("1970-01-01T00:01:00Z", Some(60)),
            (" 1970-01-01T00:01:00.5Z ", Some(60)),
            ("1970-01-01T01:01:00+01:00", Some(60)),
            ("1970-01-01T00:01:00", Some(60)),
            ("1970-01-01", None),
            ("", None),
            ("9999-12-31T23:59:59-23:59", None),
        ] {
            assert_eq!(date_time(text).map(OffsetDateTime::unix_timestamp), seconds, "{text}");
        }
        assert_eq!(written(SystemTime::UNIX_EPOCH + Duration::from_millis(60_900)), "1970-01-01T00:01:00Z");
    }

    #[test]
    fn durations_are_read_as_xml_schema_writes_them() {
        for (text, seconds) in [
            ("PT60S", Some(60.0)),
            ("PT1.5S", Some(1.5)),
            ("PT1H1M", Some(3660.0)),
            ("P1DT1S", Some(86_401.0)),
            ("P1M", Some(2_592_000.0)),
            ("P1Y", Some(31_536_000.0)),
            ("PT0S", Some(0.0)),
            ("P", None),
            ("PT", None),
            ("60", None),
            ("-PT1S", None),
            ("PT1M1H", None),
            ("PTS", None),
            ("PTinfS", None),
            ("PT1e9S", None),
        ] {
            assert_eq!(duration(text), seconds.map(Duration::from_secs_f64), "{text}");
        }
        assert_eq!(duration(&format!("PT{}S", "9".repeat(400))), None);
    }
}
