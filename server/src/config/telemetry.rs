//! Where telemetry comes from, and the fields that are kept of it.

use std::net::SocketAddrV4;
use std::ops::RangeInclusive;

use super::{ConfigError, bad};
use crate::cli::{FieldOptions, MachineOptions};
use crate::config_file::Table;

/// All of them go to each client.
const MAX_FIELDS: usize = 32;
/// In characters.
const MAX_LABEL: usize = 32;
const MAX_UNIT: usize = 8;
const MAX_DIGITS: u8 = 6;
/// In milliseconds.
const LIMITS: RangeInclusive<u32> = 100..=3_600_000;
/// Of a field that says nothing else.
const LIMIT_MS: u32 = 2000;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TelemetryConfig {
    /// None: not received; so for the other.
    pub json: Option<SocketAddrV4>,
    pub mavlink: Option<SocketAddrV4>,
    /// Of MAVLink, the one whose values are taken; None: the one that is heard first.
    pub system: Option<u8>,
    /// At most 32, each with another name.
    pub fields: Vec<FieldConfig>,
}

/// A value that is kept and shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldConfig {
    /// In JSON; what MAVLink says has the names of `KNOWN`.
    pub name: String,
    pub label: String,
    /// Empty: none.
    pub unit: String,
    /// Behind the point.
    pub digits: u8,
    /// An older value is not shown.
    pub limit_ms: u32,
}

/// Name, label, unit, digits and age limit in milliseconds.
const KNOWN: [(&str, &str, &str, u8, u32); 7] = [
    ("depth", "Depth", "m", 1, LIMIT_MS),
    ("heading", "Heading", "°", 0, LIMIT_MS),
    ("roll", "Roll", "°", 0, LIMIT_MS),
    ("pitch", "Pitch", "°", 0, LIMIT_MS),
    ("battery", "Battery", "V", 1, 5000),
    ("temperature", "Water", "°C", 1, 5000),
    (TIME, "Vehicle time", "", 0, LIMIT_MS),
];
/// Seconds since 1970, written as a time of day.
const TIME: &str = "time";
/// Without any that are declared.
const USUAL: [&str; 5] = ["depth", "heading", "roll", "pitch", "battery"];

impl TelemetryConfig {
    pub(super) fn new(options: &MachineOptions) -> Result<Self, ConfigError> {
        let json = options.telemetry.as_deref().map(|text| {
            address(text, "udp://").ok_or_else(|| {
                ConfigError(format!("--telemetry {text}: give udp:// and an IPv4 address with a port, as {USUAL_JSON}"))
            })
        });
        let mavlink = options.mavlink.as_deref().map(|text| {
            address(text, "udpin:").ok_or_else(|| {
                ConfigError(format!(
                    "--mavlink {text}: give udpin: and an IPv4 address with a port, as {USUAL_MAVLINK}"
                ))
            })
        });
        let (json, mavlink) = (json.transpose()?, mavlink.transpose()?);
        if json.is_some() && json == mavlink && json.is_some_and(|address| address.port() > 0) {
            return bad("--mavlink: is the address of --telemetry, give another port");
        }
        if options.mavlink_system == Some(0) {
            return bad("--mavlink-system 0: that number is nobody's, give one from 1 to 255, as the autopilot has it");
        }
        if options.mavlink_system.is_some() && mavlink.is_none() {
            return bad("--mavlink-system: no MAVLink is taken, give --mavlink as well");
        }
        let mut fields = Vec::<FieldConfig>::new();
        for given in &options.fields {
            let field = FieldConfig::new(given)?;
            if fields.iter().any(|other| other.name == field.name) {
                return wrong(given, &format!("two have the name {:?}, give each its own", field.name));
            }
            fields.push(field);
        }
        if let Some(given) = options.fields.get(MAX_FIELDS) {
            return wrong(given, &format!("there are more than {MAX_FIELDS}, leave some out"));
        }
        if fields.is_empty() {
            fields = FieldConfig::usual();
        }
        Ok(Self { json, mavlink, system: options.mavlink_system, fields })
    }

    /// Whether any is received.
    pub fn is_on(&self) -> bool {
        self.json.is_some() || self.mavlink.is_some()
    }
}

/// Of `--telemetry` without a value.
pub const USUAL_JSON: &str = "udp://127.0.0.1:5601";
/// Of `--mavlink` without a value; where ArduSub and BlueOS send to a program on the same machine.
pub const USUAL_MAVLINK: &str = "udpin:127.0.0.1:14551";

fn address(text: &str, scheme: &str) -> Option<SocketAddrV4> {
    text.strip_prefix(scheme)?.parse().ok()
}

fn wrong<T>(given: &Table<FieldOptions>, message: &str) -> Result<T, ConfigError> {
    bad(format!("line {}, [[telemetry.field]]: {message}", given.line))
}

impl FieldConfig {
    /// Those without any that are declared.
    pub fn usual() -> Vec<Self> {
        USUAL.map(Self::named).into()
    }

    /// As it is where nothing but its name is said.
    pub fn named(name: &str) -> Self {
        let known = KNOWN.iter().find(|known| known.0 == name);
        let (_, label, unit, digits, limit_ms) = *known.unwrap_or(&(name, name, "", 1, LIMIT_MS));
        Self { name: name.to_owned(), label: label.to_owned(), unit: unit.to_owned(), digits, limit_ms }
    }

    pub fn is_time(&self) -> bool {
        self.name == TIME
    }

    fn new(given: &Table<FieldOptions>) -> Result<Self, ConfigError> {
        let options = &given.options;
        let Some(name) = &options.name else { return wrong(given, "name: is missing") };
        let usual = Self::named(name);
        let text = |key: &str, text: &Option<String>, usual: String, most: usize| {
            let text = text.clone().unwrap_or(usual);
            if text.chars().count() > most || text.chars().any(char::is_control) {
                return wrong(given, &format!("{key}: give at most {most} characters, and no control characters"));
            }
            Ok(text)
        };
        let (digits, limit_ms) = (options.digits.unwrap_or(usual.digits), options.age_limit.unwrap_or(usual.limit_ms));
        if digits > MAX_DIGITS {
            return wrong(given, &format!("digits: {digits} must be from 0 to {MAX_DIGITS}"));
        }
        if !LIMITS.contains(&limit_ms) {
            let (least, most) = LIMITS.into_inner();
            return wrong(given, &format!("age-limit: {limit_ms} must be from {least} to {most} milliseconds"));
        }
        Ok(Self {
            label: text("label", &options.label, usual.label, MAX_LABEL)?,
            unit: text("unit", &options.unit, usual.unit, MAX_UNIT)?,
            name: usual.name,
            digits,
            limit_ms,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::config_file;

    fn config(file: &str) -> Result<Config, String> {
        let options = config_file::parse(file).map_err(|mistake| mistake.to_string())?;
        Config::new(&options).map_err(|error| error.to_string())
    }

    #[test]
    fn fields_are_declared_in_a_file_with_what_is_usual_where_nothing_is_said() {
        let file = "[telemetry]\nlisten = 'udp://127.0.0.1:5601'\n[[telemetry.field]]\nname = 'depth'\ndigits = 2\n\
                    [[telemetry.field]]\nname = 'salinity'\nunit = 'PSU'\nage-limit = 5000\n";
        let telemetry = config(file).expect("right").telemetry;
        assert_eq!(telemetry.json.map(|address| address.to_string()).as_deref(), Some("127.0.0.1:5601"));
        let depth = FieldConfig { digits: 2, ..FieldConfig::named("depth") };
        let salinity = FieldConfig { unit: "PSU".to_owned(), limit_ms: 5000, ..FieldConfig::named("salinity") };
        assert_eq!(telemetry.fields, [depth, salinity]);
        let usual = config("telemetry = 'udp://0.0.0.0:9'\n").expect("right").telemetry;
        assert_eq!((usual.is_on(), usual.fields), (true, FieldConfig::usual()));
        assert!(!config("").expect("right").telemetry.is_on());
    }

    #[test]
    fn what_cannot_be_is_told_with_its_place() {
        let many: String = (0..=MAX_FIELDS).map(|n| format!("[[telemetry.field]]\nname = 'f{n}'\n")).collect();
        let field = |rest: &str| format!("[[telemetry.field]]\nname = 'depth'\n{rest}\n");
        for (file, told) in [
            (field("digits = 7"), "line 1, [[telemetry.field]]: digits: 7"),
            (field("age-limit = 10"), "age-limit: 10 must be from 100"),
            (field("unit = 'a long unit'"), "unit: give at most 8"),
            (field("name2 = 'x'"), "did you mean name?"),
            (field("[[telemetry.field]]\nname = 'depth'"), "two have the name \"depth\""),
            ("[[telemetry.field]]\nlabel = 'x'".to_owned(), "name: is missing"),
            ("[telemetry]\nport = 1".to_owned(), "line 2"),
            (many, "more than 32"),
            ("telemetry = 'tcp://127.0.0.1:1'".to_owned(), "--telemetry tcp://127.0.0.1:1: give udp://"),
            ("mavlink = 'udpin:here:1'".to_owned(), "--mavlink udpin:here:1: give udpin:"),
            ("mavlink-system = 1".to_owned(), "give --mavlink as well"),
            ("mavlink-system = 0\nmavlink = 'udpin:0.0.0.0:9'".to_owned(), "--mavlink-system 0: "),
            ("overlay-fields = ['depht']".to_owned(), "no field \"depht\" of telemetry, only depth, heading"),
            ("overlay = 'burn'\nsource = 'rtsp'\nurl = 'rtsp://10.0.0.3/a'".to_owned(), "take client"),
        ] {
            let error = config(&file).expect_err(&file);
            assert!(error.contains(told), "{file}\n{error}");
        }
    }
}
