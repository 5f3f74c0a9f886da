//! What is written over the pictures: how clients are told of it, and the lines that it is at a moment. Pure.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::api::named;

/// In place of what is not known, or no longer.
pub const UNKNOWN: &str = "--";
/// A time of day that is older is not shown.
pub const TIME_LIMIT: Duration = Duration::from_secs(2);

/// Who writes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Where {
    #[default]
    Off,
    /// The server, into the pictures: all see it, in recordings too.
    Burn,
    /// The clients, over the pictures.
    Client,
    Both,
}

impl Where {
    pub const ALL: [Self; 4] = [Self::Off, Self::Burn, Self::Client, Self::Both];

    pub fn is_burned(self) -> bool {
        matches!(self, Self::Burn | Self::Both)
    }

    pub fn is_for_clients(self) -> bool {
        matches!(self, Self::Client | Self::Both)
    }
}

impl fmt::Display for Where {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Off => "off",
            Self::Burn => "burn",
            Self::Client => "client",
            Self::Both => "both",
        })
    }
}

impl FromStr for Where {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        named(&Self::ALL, text)
    }
}

/// Of `GET /api/events`, as `overlay`: what is written over a stream's pictures.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Overlay {
    pub stream: String,
    pub camera: String,
    #[serde(rename = "where")]
    pub drawn: Where,
    /// Of the first line's upper left corner, in pixels of the full picture.
    pub x: u32,
    pub y: u32,
    /// Of the full picture: on a slow link a smaller one is sent. 0: it is as it comes.
    #[serde(default)]
    pub height: u32,
    /// The first line is the time of day.
    pub has_time: bool,
    /// The next lines; may be empty.
    pub text: String,
    /// A line each, below that.
    pub fields: Vec<Field>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Field {
    pub name: String,
    pub label: String,
    /// An older value is not shown.
    pub limit_ms: u32,
}

/// As `telemetry`: all values, ten times a second at most.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Telemetry {
    /// Random at each start of the server, at which `at_ms` begins anew.
    #[serde(default)]
    pub run: u32,
    /// By a clock of the server's that never steps, when they were so: what comes late by it has waited on the way.
    #[serde(default)]
    pub at_ms: u64,
    /// By the names of the fields; those that have had none are not there.
    pub fields: BTreeMap<String, Value>,
    /// The times of day, as they are to be written, by the names of the streams.
    pub times: BTreeMap<String, String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Value {
    /// None: it is too old.
    pub value: Option<f64>,
    /// As it is to be written, with its unit.
    pub text: String,
    pub age_ms: u64,
}

impl Telemetry {
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty() && self.times.is_empty()
    }
}

impl Overlay {
    /// Where the first line begins in a picture of this height.
    #[must_use]
    pub fn place(&self, height: u32) -> (u32, u32) {
        let full = u64::from(if self.height == 0 { height } else { self.height }.max(1));
        let scaled = |side: u32| u32::try_from(u64::from(side) * u64::from(height) / full).unwrap_or(u32::MAX);
        (scaled(self.x), scaled(self.y))
    }

    /// What is to be written, where this is the time of day, and `value` the text of a field that is not too old.
    pub fn lines(&self, time: Option<&str>, value: impl Fn(&Field) -> Option<String>) -> Vec<String> {
        let time = self.has_time.then(|| time.unwrap_or(UNKNOWN).to_owned());
        let field = |field: &Field| format!("{} {}", field.label, value(field).as_deref().unwrap_or(UNKNOWN));
        time.into_iter().chain(self.text.lines().map(str::to_owned)).chain(self.fields.iter().map(field)).collect()
    }

    /// What a client writes that was told `newest` so long ago.
    pub fn lines_of(&self, newest: Option<&Telemetry>, since: Duration) -> Vec<String> {
        let time = newest.filter(|_| since <= TIME_LIMIT).and_then(|newest| newest.times.get(&self.stream));
        self.lines(time.map(String::as_str), |field| {
            let value = newest?.fields.get(&field.name)?;
            let age = Duration::from_millis(value.age_ms) + since;
            (age <= Duration::from_millis(field.limit_ms.into())).then(|| value.text.clone())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn overlay() -> Overlay {
        let depth = Field { name: "depth".to_owned(), label: "Depth".to_owned(), limit_ms: 1000 };
        Overlay {
            stream: "stream1".to_owned(),
            has_time: true,
            text: "Dive 7\nleft".to_owned(),
            fields: vec![depth],
            ..Overlay::default()
        }
    }

    fn told(age_ms: u64) -> Telemetry {
        let value = Value { value: Some(12.3), text: "12.3 m".to_owned(), age_ms };
        Telemetry {
            run: 0,
            at_ms: 0,
            fields: BTreeMap::from([("depth".to_owned(), value)]),
            times: BTreeMap::from([("stream1".to_owned(), "12:00:00".to_owned())]),
        }
    }

    #[test]
    fn a_value_is_shown_until_it_is_too_old_here() {
        let lines = |age, since| overlay().lines_of(Some(&told(age)), Duration::from_millis(since)).join("|");
        assert_eq!(lines(400, 600), "12:00:00|Dive 7|left|Depth 12.3 m");
        assert_eq!(lines(400, 601), "12:00:00|Dive 7|left|Depth --");
        assert_eq!(lines(0, 2001), "--|Dive 7|left|Depth --", "the connection is lost");
        assert_eq!(overlay().lines_of(None, Duration::ZERO).join("|"), "--|Dive 7|left|Depth --");
    }

    #[test]
    fn places_are_those_of_the_full_picture_where_a_smaller_one_comes() {
        let place = |full, height| Overlay { x: 320, y: 100, height: full, ..overlay() }.place(height);
        assert_eq!([place(720, 720), place(720, 360), place(720, 180)], [(320, 100), (160, 50), (80, 25)]);
        assert_eq!(place(0, 360), (320, 100), "of a server that does not say it");
        let told = r#"{"stream":"stream1","camera":"cam1","where":"client","x":1,"y":2,"has_time":false,"text":"","fields":[]}"#;
        assert_eq!(serde_json::from_str::<Overlay>(told).unwrap().height, 0);
    }

    #[test]
    fn who_writes_is_read_as_it_is_written() {
        for drawn in Where::ALL {
            assert_eq!(drawn.to_string().parse(), Ok(drawn));
            assert_eq!(serde_json::to_value(drawn).unwrap(), drawn.to_string());
        }
        assert_eq!("Burn".parse::<Where>(), Err("must be off or burn or client or both".to_owned()));
    }
}
