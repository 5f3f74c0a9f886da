//! The table of settings: a row for each, from which the HTTP API, its description and the form of the page are made.
//! What a value may be is checked where that of the command line and the file is (`config`), and the bounds are those
//! of there.

use std::ops::RangeInclusive;

use clap::{CommandFactory, ValueEnum};
use rov_common::api::IceServer;
use rov_common::codec::Codec;
use rov_common::latency_mode::LatencyMode;
use rov_common::overlay::Where;
use rov_common::units::Resolution;
use serde_json::{Map, Value, json};

use crate::choices::{Flip, Level, Position, Preset, Profile, SizeChoice, Timestamp, Transport};
use crate::cli::{CameraOptions, Cli, MachineOptions, StreamOptions, Switch};
use crate::config::{
    ALIGNMENT_MS, BITRATES, CameraConfig, Config, KEYFRAME_INTERVALS, MAX_BORDER, MAX_ICE_SERVERS, PLACES, RATES,
    RtspConfig, SCALES, StreamConfig, TETHERS, TRANSPORTS, check_ice_server, ice_options,
};

pub struct Setting {
    /// In the API and the file of what was changed.
    pub name: &'static str,
    /// On the command line and in the configuration file: one of them given there locks it.
    pub keys: &'static [&'static str],
    /// In words; None: those of the one key's help.
    about: Option<&'static str>,
    pub kind: Kind,
    pub applies: Applies,
    /// By a controller; otherwise by nobody.
    pub is_writable: bool,
    pub access: Access,
}

/// Of what it is a setting, how its value is read there, and how it is written into the options. What is written has
/// been found right by [`Kind::check`]; null takes the option away.
pub enum Access {
    Server(fn(&Config) -> Value, fn(&mut MachineOptions, &Value)),
    Camera(fn(&CameraConfig) -> Value, fn(&mut CameraOptions, &Value)),
    Stream(fn(&StreamConfig) -> Value, fn(&mut StreamOptions, &Value)),
}

/// When a change is seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applies {
    /// At once, and nobody's session ends.
    Live,
    AtRestart,
}

impl Applies {
    pub fn name(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::AtRestart => "restart of the server",
        }
    }
}

/// What values a setting has.
pub enum Kind {
    Switch,
    /// One of several names.
    Choice(fn() -> Vec<String>),
    Whole(RangeInclusive<u32>, Extra),
    Number(RangeInclusive<f64>, Extra),
    /// As `1280x720`; `0x0`: the source's own.
    Size,
    Text,
    Texts,
    /// STUN and TURN servers.
    IceServers,
    /// Several values that belong together. What is left out of a change stays as it is.
    Group(&'static [Field]),
}

/// Of a group.
pub struct Field {
    pub name: &'static str,
    /// In the configuration file: given there, it is locked. Empty: the setting's is that of all, or it is never
    /// locked.
    pub key: &'static str,
    pub kind: Kind,
}

const fn field(name: &'static str, key: &'static str, kind: Kind) -> Field {
    Field { name, key, kind }
}

/// What a number is besides its range.
pub struct Extra {
    pub unit: &'static str,
    /// What 0 stands for, where that is allowed besides the range.
    pub zero: Option<&'static str>,
}

const fn unit(unit: &'static str) -> Extra {
    Extra { unit, zero: None }
}

const fn or_zero(unit: &'static str, zero: &'static str) -> Extra {
    Extra { unit, zero: Some(zero) }
}

pub static SETTINGS: [Setting; 29] = [
    Setting {
        name: "rtspEnabled",
        keys: &["transport"],
        about: Some("Serve RTSP"),
        kind: Kind::Switch,
        applies: Applies::AtRestart,
        is_writable: true,
        access: Access::Server(|c| json!(c.rtsp.is_some()), |o, value| switch_transport(o, Transport::Rtsp, value)),
    },
    Setting {
        name: "rtspPort",
        keys: &["rtsp-port"],
        about: None,
        kind: Kind::Whole(1..=65_535, or_zero("", "any free one")),
        applies: Applies::AtRestart,
        is_writable: true,
        access: Access::Server(
            |c| json!(c.rtsp.as_ref().map(|rtsp| rtsp.port)),
            |o, value| o.rtsp_port = whole(value).and_then(|port| port.try_into().ok()),
        ),
    },
    Setting {
        name: "rtspPath",
        keys: &["rtsp-path"],
        about: Some("Paths of the first stream by RTSP"),
        kind: Kind::Texts,
        applies: Applies::AtRestart,
        is_writable: false,
        access: Access::Server(|c| json!(c.rtsp.as_ref().map_or(&[][..], |RtspConfig { paths, .. }| paths)), |_, _| {}),
    },
    Setting {
        name: "webrtcEnabled",
        keys: &["transport"],
        about: Some("Serve WebRTC"),
        kind: Kind::Switch,
        applies: Applies::AtRestart,
        is_writable: true,
        access: Access::Server(|c| json!(c.webrtc), |o, value| switch_transport(o, Transport::Webrtc, value)),
    },
    Setting {
        name: "webrtcIceServers",
        keys: &["ice-server"],
        about: Some("STUN and TURN servers for browsers that have no path to this machine; pages opened from then on"),
        kind: Kind::IceServers,
        applies: Applies::Live,
        is_writable: true,
        access: Access::Server(
            |c| json!(c.ice_servers),
            |o, value| o.ice_server = servers(value).map(|all| ice_options(&all)).unwrap_or_default(),
        ),
    },
    Setting {
        name: "rtpEnabled",
        keys: &["transport"],
        about: Some("Send plain RTP to whoever listens"),
        kind: Kind::Switch,
        applies: Applies::AtRestart,
        is_writable: true,
        access: Access::Server(|c| json!(c.rtp.is_some()), |o, value| switch_transport(o, Transport::Rtp, value)),
    },
    Setting {
        name: "maxViewers",
        keys: &["max-viewers"],
        about: None,
        kind: Kind::Whole(1..=65_535, unit("")),
        applies: Applies::AtRestart,
        is_writable: true,
        access: Access::Server(
            |c| json!(c.max_viewers),
            |o, value| o.max_viewers = whole(value).and_then(|count| count.try_into().ok()),
        ),
    },
    Setting {
        name: "tether",
        keys: &["tether"],
        about: None,
        kind: Kind::Whole(TETHERS, or_zero("kbit/s", "found out")),
        applies: Applies::AtRestart,
        is_writable: true,
        access: Access::Server(
            |c| json!(c.tether.map_or(0, |tether| tether.kbps())),
            |o, value| o.tether = whole(value),
        ),
    },
    Setting {
        name: "streamAlignment",
        keys: &["alignment"],
        about: Some("How clients show the cameras beside each other, unless their pilots want it otherwise"),
        kind: Kind::Group(&[
            field("enabled", "", Kind::Switch),
            field("method", "", Kind::Choice(|| vec!["timestamp".to_owned()])),
            field("maxLatencyMs", "", Kind::Whole(ALIGNMENT_MS, unit("ms"))),
            field("syncTolerance", "", Kind::Whole(ALIGNMENT_MS, unit("ms"))),
        ]),
        applies: Applies::Live,
        is_writable: true,
        access: Access::Server(
            |Config { alignment, .. }| {
                json!({
                    "enabled": alignment.enabled,
                    "method": alignment.method,
                    "maxLatencyMs": alignment.max_latency_ms,
                    "syncTolerance": alignment.sync_tolerance_ms,
                })
            },
            |o, value| {
                o.alignment.enabled = value["enabled"].as_bool();
                o.alignment.method = serde_json::from_value(value["method"].clone()).ok();
                o.alignment.max_latency_ms = whole(&value["maxLatencyMs"]);
                o.alignment.sync_tolerance_ms = whole(&value["syncTolerance"]);
            },
        ),
    },
    Setting {
        name: "flip",
        keys: &["flip"],
        about: None,
        kind: Kind::Choice(names::<Flip>),
        applies: Applies::Live,
        is_writable: true,
        access: Access::Camera(|c| name(c.source.flip), |o, value| o.flip = chosen(value)),
    },
    Setting {
        name: "frozenAfter",
        keys: &["frozen-after"],
        about: None,
        kind: Kind::Whole(1..=65_535, or_zero("s", "never")),
        applies: Applies::AtRestart,
        is_writable: true,
        access: Access::Camera(
            |c| json!(c.source.frozen_after.map_or(0, |time| time.as_secs())),
            |o, value| o.frozen_after = whole(value).and_then(|seconds| seconds.try_into().ok()),
        ),
    },
    Setting {
        name: "pipEnabled",
        keys: &["pip-enabled"],
        about: Some("Of a camera that shows two others: whether the small one is shown"),
        kind: Kind::Switch,
        applies: Applies::Live,
        is_writable: true,
        access: Access::Camera(
            |c| json!(c.source.pip.as_ref().map(|pip| pip.is_enabled)),
            |o, value| o.pip_enabled = value.as_bool(),
        ),
    },
    Setting {
        name: "pipLayout",
        // Which two cameras it shows, a file has to say; which of them is small, is free.
        keys: &[],
        about: Some(
            "Of a camera that shows two others: which fills the picture, which is small in it, where and how; another \
             camera than these two waits for a restart",
        ),
        kind: Kind::Group(&[
            field("mainSource", "", Kind::Text),
            field("pipSource", "", Kind::Text),
            field("pipPosition", "position", Kind::Choice(names::<Position>)),
            field("pipScale", "scale", Kind::Number(SCALES, unit("of the picture's width and height"))),
            field("pipBorder", "border", Kind::Whole(0..=MAX_BORDER, unit("pixels"))),
        ]),
        applies: Applies::Live,
        is_writable: true,
        access: Access::Camera(
            |c| {
                c.source.pip.as_ref().map_or(Value::Null, |pip| {
                    json!({
                        "mainSource": pip.parts[0].name,
                        "pipSource": pip.parts[1].name,
                        "pipPosition": pip.layout.position.name(),
                        "pipScale": pip.layout.scale,
                        "pipBorder": pip.layout.border,
                    })
                })
            },
            |o, value| {
                let text = |name: &str| value[name].as_str().map(str::to_owned);
                o.main = text("mainSource").or(o.main.take());
                o.pip = text("pipSource").or(o.pip.take());
                o.position = chosen(&value["pipPosition"]).or(o.position);
                o.scale = value["pipScale"].as_f64().or(o.scale);
                o.border = whole(&value["pipBorder"]).or(o.border);
            },
        ),
    },
    Setting {
        name: "streamResolution",
        keys: &["width", "height"],
        about: Some("Picture size, as 1280x720; 0x0 = the source's own"),
        kind: Kind::Size,
        applies: Applies::Live,
        is_writable: true,
        access: Access::Stream(
            |c| json!(c.encode.resolution.unwrap_or(Resolution::new(0, 0)).to_string()),
            |o, value| {
                let size = size(value);
                (o.width, o.height) = (size.map(|size| size.width), size.map(|size| size.height));
            },
        ),
    },
    Setting {
        name: "streamFramerate",
        keys: &["fps"],
        about: None,
        kind: Kind::Number(RATES, or_zero("frames per second", "the source's own")),
        applies: Applies::Live,
        is_writable: true,
        access: Access::Stream(
            // 29.97 for 30000/1001, as it is read again.
            |c| number(c.encode.fps.map_or(0.0, |fps| (fps.as_f64() * 1000.0).round() / 1000.0)),
            |o, value| o.fps = value.as_f64().and_then(|fps| fps.to_string().parse().ok()),
        ),
    },
    Setting {
        name: "streamBitrate",
        keys: &["bitrate"],
        about: None,
        kind: Kind::Whole(BITRATES, or_zero("kbit/s", "by size and frame rate")),
        applies: Applies::Live,
        is_writable: true,
        access: Access::Stream(
            |c| json!(c.encode.bitrate.map_or(0, |bitrate| bitrate.kbps())),
            |o, value| o.bitrate = whole(value),
        ),
    },
    Setting {
        name: "adaptiveBitrate",
        keys: &["adaptive"],
        about: None,
        kind: Kind::Switch,
        applies: Applies::AtRestart,
        is_writable: true,
        access: Access::Stream(
            |c| json!(c.adaptive_floor.is_some()),
            |o, value| o.adaptive = value.as_bool().map(|on| if on { Switch::On } else { Switch::Off }),
        ),
    },
    Setting {
        name: "minBitrate",
        keys: &["min-bitrate"],
        about: None,
        kind: Kind::Whole(0..=*BITRATES.end(), unit("kbit/s")),
        applies: Applies::AtRestart,
        is_writable: true,
        access: Access::Stream(
            |c| json!(c.adaptive_floor.map(|floor| floor.kbps())),
            |o, value| o.min_bitrate = whole(value),
        ),
    },
    Setting {
        name: "fixedSize",
        keys: &["size"],
        about: Some("On a slow link pictures get worse and rarer, and never smaller"),
        kind: Kind::Switch,
        applies: Applies::Live,
        is_writable: true,
        access: Access::Stream(
            |c| json!(c.encode.fixed_size),
            |o, value| o.size = value.as_bool().map(|on| if on { SizeChoice::Fixed } else { SizeChoice::Adaptive }),
        ),
    },
    Setting {
        name: "maxQuality",
        keys: &["max-quality"],
        about: None,
        kind: Kind::Switch,
        applies: Applies::Live,
        is_writable: true,
        access: Access::Stream(|c| json!(c.encode.max_quality), |o, value| o.max_quality = value.as_bool()),
    },
    Setting {
        name: "videoEncoder",
        keys: &["codec"],
        about: None,
        kind: Kind::Choice(|| Codec::ALL.map(|codec| codec.to_string()).into()),
        applies: Applies::AtRestart,
        is_writable: true,
        access: Access::Stream(
            |c| json!(c.encode.codec.to_string()),
            |o, value| o.codec = value.as_str().and_then(|codec| codec.parse().ok()),
        ),
    },
    Setting {
        name: "encoderProfile",
        keys: &["profile"],
        about: None,
        kind: Kind::Choice(names::<Profile>),
        applies: Applies::Live,
        is_writable: true,
        access: Access::Stream(|c| name(c.encode.profile), |o, value| o.profile = chosen(value)),
    },
    Setting {
        name: "encoderPreset",
        keys: &["preset"],
        about: None,
        kind: Kind::Choice(names::<Preset>),
        applies: Applies::Live,
        is_writable: true,
        access: Access::Stream(|c| c.encode.preset.map_or(Value::Null, name), |o, value| o.preset = chosen(value)),
    },
    Setting {
        name: "encoderLevel",
        keys: &["level"],
        about: None,
        kind: Kind::Choice(|| Level::all().map(|level| level.to_string()).collect()),
        applies: Applies::Live,
        is_writable: true,
        access: Access::Stream(
            |c| json!(c.encode.level.map(|level| level.to_string())),
            |o, value| o.level = value.as_str().and_then(|level| level.parse().ok()),
        ),
    },
    Setting {
        name: "keyframeInterval",
        keys: &["keyframe-interval"],
        about: None,
        kind: Kind::Number(KEYFRAME_INTERVALS, unit("s")),
        applies: Applies::Live,
        is_writable: true,
        access: Access::Stream(
            |c| c.encode.keyframe_interval.map_or(Value::Null, |interval| number(interval.as_secs_f64())),
            |o, value| o.keyframe_interval = value.as_f64(),
        ),
    },
    Setting {
        name: "streamLatencyMode",
        keys: &["latency-mode", "low-latency", "no-low-latency"],
        about: Some("low: least delay; normal, high: a better picture, less loss seen on a bad link"),
        kind: Kind::Choice(|| LatencyMode::ALL.iter().map(LatencyMode::to_string).collect()),
        applies: Applies::Live,
        is_writable: true,
        access: Access::Stream(
            |c| json!(c.encode.latency),
            |o, value| o.latency_mode = value.as_str().and_then(|mode| mode.parse().ok()),
        ),
    },
    Setting {
        name: "overlay",
        keys: &[],
        about: Some(
            "What is written over the picture: the time of day, a text, telemetry; by the server or by viewers",
        ),
        kind: Kind::Group(&[
            field("where", "overlay", Kind::Choice(|| Where::ALL.map(|drawn| drawn.to_string()).into())),
            field("timestamp", "overlay-timestamp", Kind::Choice(names::<Timestamp>)),
            field("timestampFormat", "overlay-timestamp-format", Kind::Text),
            field("x", "overlay-x", Kind::Whole(PLACES, unit("pixels"))),
            field("y", "overlay-y", Kind::Whole(PLACES, unit("pixels"))),
            field("text", "overlay-text", Kind::Text),
            field("fields", "overlay-fields", Kind::Texts),
        ]),
        applies: Applies::Live,
        is_writable: true,
        access: Access::Stream(
            |c| {
                let overlay = &c.overlay;
                json!({
                    "where": overlay.drawn,
                    "timestamp": name(overlay.timestamp),
                    "timestampFormat": overlay.format,
                    "x": overlay.x,
                    "y": overlay.y,
                    "text": overlay.text,
                    "fields": overlay.fields,
                })
            },
            |o, value| {
                let text = |name: &str| value[name].as_str().map(str::to_owned);
                let names =
                    |names: &Vec<Value>| names.iter().filter_map(|name| Some(name.as_str()?.to_owned())).collect();
                o.overlay = text("where").and_then(|drawn| drawn.parse().ok()).or(o.overlay);
                o.overlay_timestamp = chosen(&value["timestamp"]).or(o.overlay_timestamp);
                o.overlay_timestamp_format = text("timestampFormat").or(o.overlay_timestamp_format.take());
                o.overlay_x = whole(&value["x"]).or(o.overlay_x);
                o.overlay_y = whole(&value["y"]).or(o.overlay_y);
                o.overlay_text = text("text").or(o.overlay_text.take());
                o.overlay_fields = value["fields"].as_array().map(names).or(o.overlay_fields.take());
            },
        ),
    },
    Setting {
        name: "alwaysEncode",
        keys: &["always-encode"],
        about: None,
        kind: Kind::Switch,
        applies: Applies::AtRestart,
        is_writable: true,
        access: Access::Stream(|c| json!(c.always_encode), |o, value| o.always_encode = value.as_bool()),
    },
    Setting {
        name: "recording",
        keys: &["recording"],
        about: Some("Record this stream on the vehicle, from the next keyframe on"),
        kind: Kind::Switch,
        applies: Applies::Live,
        is_writable: true,
        access: Access::Stream(
            |c| json!(c.is_recorded),
            |o, value| o.recording = value.as_bool().map(|on| if on { Switch::On } else { Switch::Off }),
        ),
    },
];

impl Setting {
    /// In words.
    pub fn about(&self) -> String {
        let help = |key: &str| {
            let command = Cli::command();
            let option = command.get_arguments().find(|option| option.get_long() == Some(key));
            option.and_then(|option| Some(option.get_help()?.to_string())).unwrap_or_default()
        };
        let about = self.about.map_or_else(|| help(self.keys[0]), str::to_owned);
        about.split(" [default").next().unwrap_or_default().to_owned()
    }

    /// Of a camera that shows two others, and of no other one.
    pub fn is_of_pip(&self) -> bool {
        matches!(self.name, "pipEnabled" | "pipLayout")
    }

    /// Whether it is so again after a restart. Recording begins then as the options say: who forgets to begin it again
    /// has nothing of the dive.
    pub fn is_kept(&self) -> bool {
        self.name != "recording"
    }

    /// Its options, and those of its fields.
    pub fn all_keys(&self) -> impl Iterator<Item = &'static str> {
        let of_fields = self.kind.fields().iter().map(|field| field.key).filter(|key| !key.is_empty());
        self.keys.iter().copied().chain(of_fields)
    }

    /// The schema (JSON Schema 2020-12) of its value.
    pub fn schema(&self) -> Value {
        let mut schema = self.kind.nullable();
        schema["description"] = json!(self.about());
        schema
    }
}

impl Kind {
    /// Of a group.
    pub fn fields(&self) -> &'static [Field] {
        match self {
            Self::Group(fields) => fields,
            _ => &[],
        }
    }

    /// Whether a value is of this kind.
    ///
    /// # Errors
    /// Says what is expected.
    pub fn check(&self, value: &Value) -> Result<(), String> {
        let is_right = match self {
            Self::Switch => value.is_boolean(),
            Self::Choice(choices) => {
                let choices = choices();
                return match value.as_str() {
                    Some(chosen) if choices.iter().any(|choice| choice == chosen) => Ok(()),
                    _ => Err(format!("expected one of {}", choices.join(", "))),
                };
            }
            Self::Whole(range, extra) => {
                let is_within = whole(value).is_some_and(|n| range.contains(&n) || n == 0 && extra.zero.is_some());
                return is_within.then_some(()).ok_or_else(|| expected("a whole number", range, extra));
            }
            Self::Number(range, extra) => {
                let is_within = |n: f64| range.contains(&n) || n == 0.0 && extra.zero.is_some();
                let is_within = value.as_f64().is_some_and(is_within);
                return is_within.then_some(()).ok_or_else(|| expected("a number", range, extra));
            }
            Self::Size => return size(value).map(|_| ()).ok_or_else(|| "expected a size, as 1280x720".to_owned()),
            Self::Text => value.is_string(),
            Self::Texts => value.as_array().is_some_and(|texts| texts.iter().all(Value::is_string)),
            Self::IceServers => {
                let all = servers(value).ok_or("expected a list of {\"urls\": [...], \"username\", \"credential\"}")?;
                let urls = all.iter().map(|server| server.urls.len()).sum::<usize>();
                if urls > MAX_ICE_SERVERS {
                    return Err(format!("urls: {urls} of them, and {MAX_ICE_SERVERS} are the most, of all servers"));
                }
                return all.iter().try_for_each(check_ice_server);
            }
            Self::Group(fields) => {
                let Some(given) = value.as_object() else { return Err("expected an object".to_owned()) };
                return given.iter().try_for_each(|(name, value)| {
                    match fields.iter().find(|field| field.name == name) {
                        // As it is without being set.
                        Some(_) if value.is_null() => Ok(()),
                        Some(field) => field.kind.check(value).map_err(|reason| format!("{name}: {reason}")),
                        None => {
                            let known: Vec<_> = fields.iter().map(|field| field.name).collect();
                            Err(format!("{name}: there is no such field, only {}", known.join(", ")))
                        }
                    }
                });
            }
        };
        let wanted = if matches!(self, Self::Switch) { "true or false" } else { "text" };
        is_right.then_some(()).ok_or_else(|| format!("expected {wanted}"))
    }

    /// Of two values the newer; of groups, what it does not say is of the former one.
    pub fn merged(&self, former: Option<&Value>, newer: &Value) -> Value {
        let (Self::Group(_), Some(Value::Object(former)), Value::Object(newer)) = (self, former, newer) else {
            return newer.clone();
        };
        let all = former.iter().chain(newer).map(|(name, value)| (name.clone(), value.clone()));
        Value::Object(all.collect::<Map<_, _>>())
    }

    /// Without it, it is as if nothing was said.
    fn nullable(&self) -> Value {
        let mut schema = self.schema();
        schema["type"] = json!([schema["type"], "null"]);
        if let Some(choices) = schema.get_mut("enum").and_then(Value::as_array_mut) {
            choices.push(Value::Null);
        }
        schema
    }

    fn schema(&self) -> Value {
        match self {
            Self::Switch => json!({ "type": "boolean" }),
            Self::Choice(choices) => json!({ "type": "string", "enum": choices() }),
            Self::Whole(range, extra) => ranged("integer", json!(range.start()), json!(range.end()), extra),
            Self::Number(range, extra) => ranged("number", json!(range.start()), json!(range.end()), extra),
            Self::Size => json!({ "type": "string", "pattern": "^[0-9]{1,4}x[0-9]{1,4}$" }),
            Self::Text => json!({ "type": "string" }),
            Self::Texts => json!({ "type": "array", "items": { "type": "string" } }),
            Self::IceServers => {
                let text = json!({ "type": "string", "minLength": 1, "maxLength": 256, "pattern": "^[!-~]+$" });
                let urls = json!({ "type": "string", "pattern": "^(stun|turn)s?:[^ ]+$" });
                json!({ "type": "array", "maxItems": MAX_ICE_SERVERS, "items": {
                    "type": "object",
                    "required": ["urls"],
                    "properties": {
                        "urls": { "type": "array", "minItems": 1, "maxItems": MAX_ICE_SERVERS, "items": urls },
                        "username": text, "credential": text,
                    },
                    "additionalProperties": false,
                } })
            }
            Self::Group(fields) => {
                let properties: Map<_, _> =
                    fields.iter().map(|field| (field.name.to_owned(), field.kind.nullable())).collect();
                json!({ "type": "object", "properties": properties, "additionalProperties": false })
            }
        }
    }
}

fn expected<T: std::fmt::Display>(kind: &str, range: &RangeInclusive<T>, extra: &Extra) -> String {
    let zero = extra.zero.map_or_else(String::new, |zero| format!(", or 0 ({zero})"));
    let unit = if extra.unit.is_empty() { String::new() } else { format!(" {}", extra.unit) };
    format!("expected {kind} from {} to {}{unit}{zero}", range.start(), range.end())
}

fn ranged(kind: &str, least: Value, most: Value, extra: &Extra) -> Value {
    let mut schema = json!({ "type": kind, "maximum": most });
    match extra.zero {
        // The least and 0 besides.
        Some(zero) => {
            schema["anyOf"] = json!([{ "minimum": least }, { "const": 0, "title": zero }, { "type": "null" }]);
        }
        None => schema["minimum"] = least,
    }
    if !extra.unit.is_empty() {
        schema["x-unit"] = json!(extra.unit);
    }
    schema
}

/// JSON has one kind of numbers: 900.0 is a whole one.
fn whole(value: &Value) -> Option<u32> {
    let fractional = || value.as_f64().filter(|number| number.fract() == 0.0 && *number >= 0.0);
    let number = value.as_u64().or_else(|| fractional().map(|number| number as u64));
    number.and_then(|number| number.try_into().ok())
}

/// Without a fraction where it has none.
fn number(value: f64) -> Value {
    if value.fract() == 0.0 { json!(value as i64) } else { json!(value) }
}

/// None where it is no list of such, or has anything else in it.
fn servers(value: &Value) -> Option<Vec<IceServer>> {
    let is_known = |name: &String| ["urls", "username", "credential"].contains(&name.as_str());
    let all = value.as_array().filter(|all| all.len() <= MAX_ICE_SERVERS)?;
    let is_right = all.iter().all(|one| one.as_object().is_some_and(|fields| fields.keys().all(is_known)));
    is_right.then(|| serde_json::from_value(value.clone()).ok()).flatten()
}

fn size(value: &Value) -> Option<Resolution> {
    let (width, height) = value.as_str()?.split_once('x')?;
    let side = |text: &str| text.bytes().all(|digit| digit.is_ascii_digit()).then(|| text.parse().ok()).flatten();
    Some(Resolution::new(side(width)?, side(height)?))
}

fn names<T: ValueEnum>() -> Vec<String> {
    let values = T::value_variants().iter().filter_map(ValueEnum::to_possible_value);
    values.map(|value| value.get_name().to_owned()).collect()
}

fn name<T: ValueEnum>(value: T) -> Value {
    json!(value.to_possible_value().map(|value| value.get_name().to_owned()))
}

fn chosen<T: ValueEnum>(value: &Value) -> Option<T> {
    value.as_str().and_then(|name| T::from_str(name, false).ok())
}

/// One of the transports in or out of the list that the option is.
fn switch_transport(options: &mut MachineOptions, transport: Transport, on: &Value) {
    let Some(on) = on.as_bool() else { return };
    let transports = options.transport.get_or_insert_with(|| TRANSPORTS.into());
    transports.retain(|other| *other != transport);
    if on {
        transports.push(transport);
    }
}
