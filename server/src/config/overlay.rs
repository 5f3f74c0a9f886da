//! What is written over a stream's pictures.

use gstreamer::glib;
use rov_common::overlay::Where;

use super::{Config, ConfigError, bad};
use crate::choices::Timestamp;
use crate::cli::StreamOptions;

/// Without `--overlay-timestamp-format`.
const FORMAT: &str = "%Y-%m-%d %H:%M:%S";
/// In characters.
const MAX_FORMAT: usize = 64;
const MAX_TEXT: usize = 256;
const MAX_LINES: usize = 8;
/// Of `--overlay-x` and `--overlay-y`, in pixels.
pub const PLACES: std::ops::RangeInclusive<u32> = 0..=8192;
const PLACE: u32 = 10;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OverlayConfig {
    pub drawn: Where,
    pub timestamp: Timestamp,
    /// Of `strftime`, as GLib knows it; valid.
    pub format: String,
    pub x: u32,
    pub y: u32,
    /// Lines with `\n` between them; may be empty.
    pub text: String,
    /// Names of telemetry fields that there are; None: all, where telemetry is received.
    pub fields: Option<Vec<String>>,
}

impl Default for OverlayConfig {
    fn default() -> Self {
        Self {
            drawn: Where::Off,
            timestamp: Timestamp::Utc,
            format: FORMAT.to_owned(),
            x: PLACE,
            y: PLACE,
            text: String::new(),
            fields: None,
        }
    }
}

impl OverlayConfig {
    /// `is_encoded`: here, as far as that is known already.
    pub(super) fn new(options: &StreamOptions, is_encoded: bool) -> Result<Self, ConfigError> {
        let usual = Self::default();
        let drawn = options.overlay.unwrap_or(usual.drawn);
        if drawn.is_burned() && !is_encoded {
            return bad(format!(
                "--overlay {drawn}: nothing is encoded here, the source's stream is sent untouched: take client, for \
                 which viewers write over the pictures"
            ));
        }
        let format = options.overlay_timestamp_format.clone().unwrap_or(usual.format);
        let is_format = format.contains('%') && time(Timestamp::Utc, &format).is_some();
        if format.chars().count() > MAX_FORMAT || !is_format {
            return bad(format!(
                "--overlay-timestamp-format {format:?}: give at most {MAX_FORMAT} characters of a format of strftime, \
                 as %H:%M:%S"
            ));
        }
        let text = options.overlay_text.clone().unwrap_or(usual.text);
        let is_plain = !text.chars().any(|c| c.is_control() && c != '\n');
        if text.chars().count() > MAX_TEXT || text.lines().count() > MAX_LINES || !is_plain {
            return bad(format!(
                "--overlay-text: give at most {MAX_TEXT} characters in {MAX_LINES} lines, and no control characters"
            ));
        }
        let (x, y) = (options.overlay_x.unwrap_or(usual.x), options.overlay_y.unwrap_or(usual.y));
        for (option, place) in [("--overlay-x", x), ("--overlay-y", y)] {
            if !PLACES.contains(&place) {
                return bad(format!("{option} {place}: must be from {} to {} pixels", PLACES.start(), PLACES.end()));
            }
        }
        let timestamp = options.overlay_timestamp.unwrap_or(usual.timestamp);
        Ok(Self { drawn, timestamp, format, x, y, text, fields: options.overlay_fields.clone() })
    }

    /// The time of day as it is to be written; None: it is not.
    pub fn time(&self) -> Option<String> {
        time(self.timestamp, &self.format)
    }
}

fn time(zone: Timestamp, format: &str) -> Option<String> {
    let now = match zone {
        Timestamp::Off => return None,
        Timestamp::Utc => glib::DateTime::now_utc(),
        Timestamp::Local => glib::DateTime::now_local(),
    };
    Some(now.and_then(|now| now.format(format)).ok()?.replace(char::is_control, " "))
}

/// Whether each stream's fields are those that there are.
pub(super) fn check_fields(config: &Config) -> Result<(), ConfigError> {
    let known: Vec<_> = config.telemetry.fields.iter().map(|field| field.name.as_str()).collect();
    for (_, stream) in config.streams() {
        let wanted = stream.overlay.fields.iter().flatten();
        if let Some(unknown) = wanted.into_iter().find(|name| !known.contains(&name.as_str())) {
            let known = known.join(", ");
            return bad(format!("--overlay-fields: there is no field {unknown:?} of telemetry, only {known}"));
        }
    }
    Ok(())
}
