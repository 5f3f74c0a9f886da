//! The options of `rov-server`: names, types and help, on the command line (clap) and in a configuration file (serde,
//! see `config_file`). An option that was not given is None or empty; what it is then, and what the options mean
//! together, is `config`'s.

use std::fmt::{self, Display};
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::str::FromStr;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};
use rov_common::api::{AlignmentMethod, Role, View};
use rov_common::camera::Trust;
use rov_common::codec::Codec;
use rov_common::latency_mode::LatencyMode;
use rov_common::log::Form;
use rov_common::overlay::Where;
use rov_common::recording::{Bytes, Measure};
use rov_common::units::{Fps, address, decimal, whole, within};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use crate::choices::{
    Flip, Level, Position, Preset, Profile, RecordWhen, RingTime, SecondStream, SizeChoice, SourceKind, Timestamp,
    Transport,
};
use crate::config::{USUAL_JSON, USUAL_MAVLINK};
use crate::config_file::Table;
use crate::rate_control::Pilot;

/// The STUN server that a bare `--stun` means.
pub const DEFAULT_STUN: &str = "stun:stun.l.google.com:19302";

/// The longest name of a camera or a stream.
const MAX_NAME: usize = 32;

/// The groups of `--help`.
const SOURCE: &str = "Source";
const ENCODING: &str = "Encoding";
const PICTURE: &str = "Picture";
const BIT_RATE: &str = "Bit rate";
const OVERLAY: &str = "Overlay";
const OUTPUTS: &str = "Outputs";
const RTP: &str = "RTP";
const RTSP: &str = "RTSP";
const RECORDING: &str = "Recording";
const ACCESS: &str = "Access";
const DISCOVERY: &str = "Discovery";
const LOGGING: &str = "Logging";

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Switch {
    #[default]
    On,
    Off,
}

/// `alignment = { ... }` of a file; hyphens may stand for the underscores, as in all other keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AlignmentOptions {
    pub enabled: Option<bool>,
    pub method: Option<AlignmentMethod>,
    #[serde(alias = "max-latency-ms")]
    pub max_latency_ms: Option<u32>,
    #[serde(alias = "sync-tolerance-ms")]
    pub sync_tolerance_ms: Option<u32>,
}

/// A value of telemetry that is kept: a table `[[telemetry.field]]` of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct FieldOptions {
    #[serde(deserialize_with = "name")]
    pub name: Option<String>,
    pub label: Option<String>,
    pub unit: Option<String>,
    /// Behind the point.
    pub digits: Option<u8>,
    /// In milliseconds.
    pub age_limit: Option<u32>,
}

/// Low-latency video server: a camera, a file, a pipe or a test picture, encoded once, to rov-client and browsers over
/// WebRTC, and to everything else over RTSP and RTP.
#[derive(Clone, Debug, Parser)]
#[command(name = "rov-server", version, about, max_term_width = 100, args_conflicts_with_subcommands = true)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Option<Secret>,

    /// File with options: TOML, as width = 1280. The command line wins [default: none]
    ///
    /// Each key is a long option without its dashes
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Check a file for --config, say what it would stream, and end [default: none]
    ///
    /// Exit code 0, or 2 with what is wrong
    #[arg(long, value_name = "FILE", conflicts_with = "config")]
    pub check_config: Option<PathBuf>,

    /// List the cameras that are found, and end [default: off]
    ///
    /// By what stays the same when they are plugged in again, for --device
    #[arg(long, conflicts_with_all = ["config", "check_config"])]
    pub list_cameras: bool,

    #[command(flatten)]
    pub camera: CameraOptions,

    #[command(flatten)]
    pub stream: StreamOptions,

    #[command(flatten)]
    pub machine: MachineOptions,
}

/// What is made for users of a file, instead of serving.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Subcommand)]
pub enum Secret {
    /// Make the hash of a password, for `password` of a user in the file of --config
    ///
    /// The password is asked for, or is the first line of standard input
    Passwd,
    /// Make a token, and its hash for `token` of a user in the file of --config
    ///
    /// The first line is the token, which is kept nowhere, the second the hash
    Token,
}

/// Who may watch or change things: a table `[[user]]` of a file.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct UserOptions {
    pub name: Option<String>,
    #[serde(deserialize_with = "parsed")]
    pub role: Option<Role>,
    /// A hash, as `rov-server passwd` makes it.
    pub password: Option<String>,
    /// A hash, as `rov-server token` makes it.
    pub token: Option<String>,
}

/// Without hashes.
impl fmt::Debug for UserOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UserOptions").field("name", &self.name).field("role", &self.role).finish_non_exhaustive()
    }
}

/// Where a camera's pictures come from: a table `[[camera]]` of a file.
#[derive(Clone, Debug, Default, PartialEq, Args, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct CameraOptions {
    /// Of the camera, in files alone: `--name` is the server's.
    #[arg(skip)]
    #[serde(deserialize_with = "name")]
    pub name: Option<String>,

    /// Where the pictures come from [default: auto]
    ///
    /// auto: CSI camera, else the first camera, else a test picture labelled NO CAMERA (with --file, --url,
    /// --pipeline or --device: that file, IP camera, pipeline or webcam). stdin: an Annex B stream of the codec of
    /// --codec, sent untouched; a file, as < dive.h264, is played once at its frame rate. publish: what somebody
    /// sends to an RTSP path of this server, sent untouched, as
    /// ffmpeg -i INPUT -c:v copy -f rtsp rtsp://SERVER:8554/stream1. pip: two other cameras of a file in one picture
    #[arg(help_heading = SOURCE, long, value_enum, value_name = "SOURCE")]
    pub source: Option<SourceKind>,

    /// Take all cameras that are found, up to 8 [default: off]
    ///
    /// Each with the streams given here and a name of its own, by its model and its serial number or place on the bus.
    /// They are looked for once, at the start
    #[arg(help_heading = SOURCE, long, action = ArgAction::SetTrue)]
    pub all_cameras: Option<bool>,

    /// Of `source = "pip"`, in files alone as there are other cameras only there: the camera that fills the picture.
    #[arg(skip)]
    #[serde(deserialize_with = "name")]
    pub main: Option<String>,

    /// The camera that is shown small.
    #[arg(skip)]
    #[serde(deserialize_with = "name")]
    pub pip: Option<String>,

    /// Whether it is shown.
    #[arg(skip)]
    pub pip_enabled: Option<bool>,

    /// Where that one is.
    #[arg(skip)]
    pub position: Option<Position>,

    /// Its size, of the whole picture's.
    #[arg(skip)]
    pub scale: Option<f64>,

    /// Pixels around it.
    #[arg(skip)]
    pub border: Option<u32>,

    /// Camera: its index, path or a part of its name [default: the first]
    ///
    /// As 0, /dev/video0; better a path that is the same when it is plugged in again, as --list-cameras shows it.
    /// CSI: the sensor's index or name
    #[arg(help_heading = SOURCE, long, value_name = "INDEX|PATH|NAME")]
    pub device: Option<String>,

    /// Video file for --source file [default: none]
    ///
    /// Anything that GStreamer decodes
    #[arg(help_heading = SOURCE, long, value_name = "FILE")]
    pub file: Option<PathBuf>,

    /// Send the video of --file without re-encoding [default: off]
    ///
    /// Its H.264, with --codec h265 its H.265: MP4, MKV, MPEG-TS or raw Annex B without B-frames
    #[arg(help_heading = SOURCE, long, action = ArgAction::SetTrue)]
    pub file_passthrough: Option<bool>,

    /// End when --file ends, instead of starting it again [default: off]
    #[arg(help_heading = SOURCE, long, action = ArgAction::SetTrue)]
    pub no_loop: Option<bool>,

    /// GStreamer description for --source pipeline [default: none]
    ///
    /// Its last element gives raw video, or H.264 (with --codec h265 H.265), as in "v4l2src device=/dev/video2 !
    /// image/jpeg ! jpegdec"
    #[arg(help_heading = SOURCE, long, value_name = "DESCRIPTION")]
    pub pipeline: Option<String>,

    /// Address of an IP camera, as rtsp://10.0.0.3/stream [default: none]
    ///
    /// For --source rtsp: its H.264 (with --codec h265 its H.265) is sent untouched. A user name and password may
    /// stand in it
    #[arg(help_heading = SOURCE, long, value_name = "URL")]
    pub url: Option<String>,

    /// Which certificate of an rtsps:// camera is taken [default: system]
    ///
    /// One that the system trusts, that of this SHA-256 fingerprint too, or any
    #[arg(help_heading = SOURCE, long, value_name = "system|any|SHA256")]
    #[serde(deserialize_with = "parsed")]
    pub camera_certificate: Option<Trust>,

    /// Warn when the camera's picture stands still, in seconds; 0 = never [default: 5]
    ///
    /// A picture that has not changed at all for so long: the camera may have hung
    #[arg(help_heading = SOURCE, long, value_parser = whole::<u16>, value_name = "SECONDS")]
    pub frozen_after: Option<u16>,

    /// Turn the picture [default: none]
    ///
    /// As for a camera that hangs upside down: 180
    #[arg(help_heading = PICTURE, long, value_enum, value_name = "FLIP")]
    pub flip: Option<Flip>,

    /// A second stream of the same camera, smaller as a rule [default: none]
    ///
    /// Size, and where they are wanted frames per second, kbit/s and profile; the rest is as in the first. It is
    /// stream2, and rests while nobody looks at it. In short what a second table [[camera.stream]] of a file says. Of
    /// what is passed through, as an IP camera, it is decoded and encoded, and begins at a keyframe of the source
    #[arg(help_heading = ENCODING, long, value_name = "WxH[@FPS][,KBIT/S[,PROFILE]]")]
    #[serde(deserialize_with = "parsed")]
    pub stream2: Option<SecondStream>,
}

/// An encode of a camera's pictures: a table `[[camera.stream]]` of a file.
#[derive(Clone, Debug, Default, PartialEq, Args, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct StreamOptions {
    /// Of the stream, in files alone.
    #[arg(skip)]
    #[serde(deserialize_with = "name")]
    pub name: Option<String>,

    /// Of the stream, in `[[camera.stream]]` alone: `--rtp-port` is that from which those of the others are counted.
    #[arg(skip)]
    pub rtp_port: Option<u16>,

    /// Picture width in pixels, even; 0 = the source's own [default: 1920]
    ///
    /// Then --height must be 0 too
    #[arg(help_heading = PICTURE, long, value_parser = whole::<u32>, value_name = "PIXELS")]
    pub width: Option<u32>,

    /// Picture height in pixels, even; 0 = the source's own [default: 1080]
    ///
    /// Then --width must be 0 too
    #[arg(help_heading = PICTURE, long, value_parser = whole::<u32>, value_name = "PIXELS")]
    pub height: Option<u32>,

    /// Frames per second, as 30 or 29.97; 0 = the source's own [default: 30]
    ///
    /// Or a fraction, as 30000/1001. A slower source is sent at its own rate
    #[arg(help_heading = PICTURE, long, value_name = "FPS")]
    #[serde(deserialize_with = "parsed")]
    pub fps: Option<Fps>,

    /// Write the time and telemetry over the picture [default: off]
    ///
    /// burn: the server, into the pictures, which all see, in recordings too. client: rov-client and the page, over the
    /// pictures, also of a stream that is sent untouched
    #[arg(help_heading = OVERLAY, long, value_name = "off|burn|client|both")]
    #[serde(deserialize_with = "parsed")]
    pub overlay: Option<Where>,

    /// Time of day in the overlay [default: utc]
    #[arg(help_heading = OVERLAY, long, value_enum, value_name = "off|utc|local")]
    pub overlay_timestamp: Option<Timestamp>,

    /// Its form, as of strftime [default: %Y-%m-%d %H:%M:%S]
    #[arg(help_heading = OVERLAY, long, value_name = "FORMAT")]
    pub overlay_timestamp_format: Option<String>,

    /// Where the overlay begins, in pixels from the left [default: 10]
    #[arg(help_heading = OVERLAY, long, value_parser = whole::<u32>, value_name = "PIXELS")]
    pub overlay_x: Option<u32>,

    /// And from the top [default: 10]
    #[arg(help_heading = OVERLAY, long, value_parser = whole::<u32>, value_name = "PIXELS")]
    pub overlay_y: Option<u32>,

    /// Text below the time of day [default: none]
    #[arg(help_heading = OVERLAY, long, value_name = "TEXT")]
    pub overlay_text: Option<String>,

    /// Fields of telemetry in the overlay [default: all]
    ///
    /// Separated by commas; all are shown where --telemetry or --mavlink is given
    #[arg(help_heading = OVERLAY, long, value_name = "NAMES", value_delimiter = ',')]
    pub overlay_fields: Option<Vec<String>>,

    /// Bit rate in kbit/s; 0 = auto, by size and frame rate [default: 0]
    ///
    /// Auto: 15000 * (width * height * fps / 62208000)^0.75, that is 15 Mbit/s for 1080p30, 3.6 for 640x480 at 30, 71
    /// for 4K60; with --codec h265 0.6 times that; at least 500 kbit/s and at most 100 Mbit/s
    #[arg(help_heading = BIT_RATE, long, value_parser = whole::<u32>, value_name = "KBIT/S")]
    pub bitrate: Option<u32>,

    /// Follow the pilot's link with the bit rate [default: on]
    ///
    /// Down to --min-bitrate and up to --bitrate; slow spectators are sent less. off: the bit rate stays as it is
    #[arg(help_heading = BIT_RATE, long, value_enum, value_name = "on|off")]
    pub adaptive: Option<Switch>,

    /// Lowest bit rate on a slow link, in kbit/s [default: 300]
    ///
    /// A slower link loses pictures instead
    #[arg(help_heading = BIT_RATE, long, value_parser = whole::<u32>, value_name = "KBIT/S")]
    pub min_bitrate: Option<u32>,

    /// What a slow link does to the picture size [default: adaptive]
    ///
    /// fixed: pictures get worse and rarer, never smaller, for readers that cannot follow a change of size, as a script
    /// that reads raw frames
    #[arg(help_heading = BIT_RATE, long, value_enum, value_name = "adaptive|fixed")]
    pub size: Option<SizeChoice>,

    /// Double the automatic bit rate [default: off]
    ///
    /// No effect with --bitrate
    #[arg(help_heading = BIT_RATE, long, action = ArgAction::SetTrue)]
    pub max_quality: Option<bool>,

    /// GStreamer encoder element; auto = the first that works [default: auto]
    ///
    /// As x264enc. auto: the first of the table, hardware first, that really encodes a frame
    #[arg(help_heading = ENCODING, long, value_name = "auto|ELEMENT")]
    pub encoder: Option<String>,

    /// Codec of the stream [default: h264]
    ///
    /// h265 needs fewer bits, and reaches RTSP, RTP and rov-client, but not browsers. mjpeg needs many times more, and
    /// reaches these too, and by HTTP everything that shows an <img>, but not WebRTC; its --bitrate is only aimed at,
    /// as how many bits its pictures have depends on what they show
    #[arg(help_heading = ENCODING, long, value_name = "h264|h265|mjpeg")]
    pub codec: Option<Codec>,

    /// H.264 profile; baseline plays everywhere [default: baseline]
    ///
    /// Baseline (constrained) plays everywhere, high gives a better picture for the same bit rate. With --codec h265
    /// it is always H.265's main
    #[arg(help_heading = ENCODING, long, value_enum, value_name = "PROFILE")]
    pub profile: Option<Profile>,

    /// H.264 level, as 4.1 [default: the encoder's choice]
    ///
    /// From 1 to 5.2, for decoders that take no higher one
    #[arg(help_heading = ENCODING, long, value_name = "LEVEL")]
    #[serde(deserialize_with = "parsed")]
    pub level: Option<Level>,

    /// Effort of the encoder [default: ultrafast]
    ///
    /// Slower gives a better picture for the same bit rate, and more delay. With --latency-mode normal and high the
    /// default is a slower one
    #[arg(help_heading = ENCODING, long, value_enum, value_name = "PRESET")]
    pub preset: Option<Preset>,

    /// Longest time between keyframes [default: on demand]
    ///
    /// Whether viewers ask for one or not. With --latency-mode normal the default is 2
    #[arg(help_heading = ENCODING, long, value_parser = decimal, value_name = "SECONDS")]
    pub keyframe_interval: Option<f64>,

    /// Least delay, or a better picture [default: low]
    ///
    /// Low: fastest preset, rate control over one frame (at low bit rates up to three), keyframes only on demand, and
    /// browsers show each picture at once. Normal and high: slower preset, rate control over half a second, a keyframe
    /// every 2 s; browsers may wait 500 ms and 2 s for what is late. In none does the encoder hold pictures back, by
    /// lookahead or B-frames
    #[arg(help_heading = ENCODING, long, value_name = "low|normal|high")]
    pub latency_mode: Option<LatencyMode>,

    /// The same as --latency-mode low [default: on]
    #[arg(
        help_heading = ENCODING, long, hide_short_help = true, action = ArgAction::SetTrue,
        overrides_with = "no_low_latency"
    )]
    pub low_latency: Option<bool>,

    /// The same as --latency-mode normal [default: off]
    #[arg(
        help_heading = ENCODING, long, hide_short_help = true, action = ArgAction::SetTrue,
        overrides_with = "low_latency"
    )]
    pub no_low_latency: Option<bool>,

    /// Encode while nobody watches, too [default: off]
    ///
    /// Otherwise the encoder rests then, and the camera stays open; with RTP, whose receivers nobody knows, it never
    /// rests
    #[arg(help_heading = ENCODING, long, action = ArgAction::SetTrue)]
    pub always_encode: Option<bool>,

    /// Record this stream [default: with --record, the first stream of each camera]
    ///
    /// Given here, nobody can change it while the server runs
    #[arg(help_heading = RECORDING, long, value_enum, value_name = "on|off")]
    pub recording: Option<Switch>,
}

impl StreamOptions {
    /// Whether it is more than a name for what there is.
    pub fn says_what_to_encode(&self) -> bool {
        self.width.or(self.height).or(self.bitrate).is_some() || self.fps.is_some()
    }
}

/// What all cameras of a server share: the top level of a file.
#[derive(Clone, Debug, Default, PartialEq, Args, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct MachineOptions {
    /// Whose link the bit rate follows [default: first]
    ///
    /// Of several WebRTC viewers: the one connected longest of those that answer (first), or the one at this IP
    /// address, which always gets a place
    #[arg(help_heading = BIT_RATE, long, value_name = "first|ADDRESS")]
    #[serde(deserialize_with = "parsed")]
    pub pilot: Option<Pilot>,

    /// What the link to a viewer carries, in kbit/s; 0 = found out [default: 0]
    ///
    /// The bit rates of all streams that go to one address by WebRTC, RTSP and RTP stay below it together, where WebRTC
    /// is served. The one watched first gets the larger part. Two exceptions: no encoder goes below its --min-bitrate,
    /// and a stream that is passed through has no encoder: where it is too much, only its keyframes are sent by WebRTC
    #[arg(help_heading = BIT_RATE, long, value_parser = whole::<u32>, value_name = "KBIT/S")]
    pub tether: Option<u32>,

    /// Take telemetry as JSON lines by UDP [default: none]
    ///
    /// As {"depth": 12.3, "heading": 270}, for --overlay and /api/events; without an address udp://127.0.0.1:5601,
    /// which only programs on this machine reach. In a file, each [[telemetry.field]] declares a value: name, label,
    /// unit, digits, age-limit in ms; without any they are depth, heading, roll, pitch and battery
    #[arg(help_heading = OVERLAY, long, value_name = "udp://ADDRESS:PORT", num_args = 0..=1,
        default_missing_value = USUAL_JSON)]
    pub telemetry: Option<String>,

    /// Take telemetry as MAVLink by UDP [default: none]
    ///
    /// Depth, heading, roll, pitch, battery, temperature of the water and time, into the fields of these names; without
    /// an address udpin:127.0.0.1:14551
    #[arg(help_heading = OVERLAY, long, value_name = "udpin:ADDRESS:PORT", num_args = 0..=1,
        default_missing_value = USUAL_MAVLINK)]
    pub mavlink: Option<String>,

    /// The number of the vehicle whose MAVLink is taken [default: none]
    ///
    /// Without it, of the one that is heard first: give it where other vehicles send to the same port. As SYSID_THISMAV
    /// (MAV_SYSID) of ArduSub: 1 unless it was changed
    #[arg(help_heading = OVERLAY, long, value_name = "NUMBER", value_parser = within::<u8>(1, 255))]
    pub mavlink_system: Option<u8>,

    /// What is kept of telemetry, in files alone, as tables.
    #[arg(skip)]
    #[serde(skip)]
    pub fields: Vec<Table<FieldOptions>>,

    /// How clients are to show the cameras beside each other, in files alone as there are several cameras only there.
    #[arg(skip)]
    pub alignment: AlignmentOptions,

    /// How viewers get the video, separated by commas [default: webrtc,rtsp]
    ///
    /// rtp is multicast to whoever listens; HTTP is always served
    #[arg(help_heading = OUTPUTS, long, value_enum, value_name = "webrtc|rtp|rtsp", value_delimiter = ',')]
    pub transport: Option<Vec<Transport>>,

    /// Viewers at once, of each kind [default: 16]
    ///
    /// WebRTC viewers, RTSP clients and MJPEG viewers; one more is refused with 503. By WebRTC and RTSP it first takes
    /// the place of one that has not connected or does not play, and the pilot that of a spectator
    #[arg(help_heading = OUTPUTS, long, value_parser = whole::<u16>, value_name = "COUNT")]
    pub max_viewers: Option<u16>,

    /// IPv4 addresses to send RTP to, separated by commas [default: 239.255.0.1]
    ///
    /// Multicast or unicast
    #[arg(help_heading = RTP, long, value_parser = address::<Ipv4Addr>, value_name = "ADDRESS", value_delimiter = ',')]
    #[serde(deserialize_with = "addresses")]
    pub rtp_host: Vec<Ipv4Addr>,

    /// UDP port to send RTP to, even [default: 5004]
    ///
    /// RTCP goes to the port above, repair packets to the second above. The next stream's ports are 4 higher
    #[arg(help_heading = RTP, long, value_parser = whole::<u16>, value_name = "PORT")]
    pub rtp_port: Option<u16>,

    /// Routers that multicast RTP may pass, plus one [default: 1]
    ///
    /// 1 = it stays in this network
    #[arg(help_heading = RTP, long, value_parser = whole::<u8>, value_name = "HOPS")]
    pub rtp_ttl: Option<u8>,

    /// Longest time between keyframes with RTP, in seconds [default: 1]
    ///
    /// Receivers can start, and go on after a loss, only at one
    #[arg(help_heading = RTP, long, value_parser = decimal, value_name = "SECONDS")]
    pub rtp_keyframe_interval: Option<f64>,

    /// Repair packets for RTP, in percent; 0 = for keyframes alone [default: 0]
    ///
    /// Forward error correction (RFC 8627), in percent of the media packets, one for each picture at least: 25 mends
    /// 1 % of loss, 50 mends 5 %. Costs that much bandwidth or some more
    #[arg(help_heading = RTP, long, value_parser = whole::<u8>, value_name = "PERCENT")]
    pub rtp_fec: Option<u8>,

    /// Has no effect, as nothing waits here: for scripts made for other servers
    ///
    /// How long a viewer waits for lost packets is rov-client --latency [default: none]
    #[arg(help_heading = OUTPUTS, long, value_parser = whole::<u32>, value_name = "MS")]
    pub webrtc_latency: Option<u32>,

    /// TCP port of RTSP; 0 = any free one [default: 8554]
    #[arg(help_heading = RTSP, long, value_parser = whole::<u16>, value_name = "PORT")]
    pub rtsp_port: Option<u16>,

    /// Another path of the RTSP stream, as /cam [default: none]
    ///
    /// Beside /stream1, /stream, /live and /test; may be given several times
    #[arg(help_heading = RTSP, long, value_name = "PATH", action = ArgAction::Append)]
    pub rtsp_path: Vec<String>,

    /// Take the RTSP password of --user in clear, too [default: off]
    ///
    /// Basic authentication, for clients that do not know digest. With users of a file RTSP takes nothing else
    #[arg(help_heading = RTSP, long, action = ArgAction::SetTrue)]
    pub rtsp_basic_auth: Option<bool>,

    /// IPv4 address to bind [default: 0.0.0.0]
    ///
    /// For signalling and media
    #[arg(help_heading = OUTPUTS, long, value_parser = address::<IpAddr>, value_name = "ADDRESS")]
    #[serde(deserialize_with = "host")]
    pub host: Option<IpAddr>,

    /// Record into this folder [default: off]
    ///
    /// MP4 that is never encoded again, and that plays after a power cut up to the last second. A folder on a disk of
    /// its own is best; pictures never wait for it
    #[arg(help_heading = RECORDING, long, value_name = "FOLDER")]
    pub record: Option<PathBuf>,

    /// When recording begins [default: on-start]
    ///
    /// on-request: when a controller says so, by the page or the setting "recording"
    #[arg(help_heading = RECORDING, long, value_enum, value_name = "on-start|on-request")]
    pub record_when: Option<RecordWhen>,

    /// A new file after this time or size, as 10min or 2GB [default: 10min]
    ///
    /// At the next keyframe; no picture is lost between two files. 5s to 2h, 1MB to 4GB
    #[arg(help_heading = RECORDING, long, value_name = "TIME|SIZE")]
    #[serde(deserialize_with = "parsed")]
    pub record_split: Option<Measure>,

    /// Delete the oldest recordings beyond this, as 50GB or 7d [default: none]
    ///
    /// Of all streams together; only files that this program made
    #[arg(help_heading = RECORDING, long, value_name = "TIME|SIZE")]
    #[serde(deserialize_with = "parsed")]
    pub record_keep: Option<Measure>,

    /// What stays free on the disk [default: 2GB]
    ///
    /// Recording pauses before, and goes on by itself when there is room
    #[arg(help_heading = RECORDING, long, value_name = "SIZE")]
    #[serde(deserialize_with = "parsed")]
    pub record_free: Option<Bytes>,

    /// Keep the last seconds of each stream in memory, for clips [default: 30s]
    ///
    /// "/api/clip", in the page key C, saves them as MP4. 5s to 10min, or off. 8 Mbit/s need 60 MB a minute; all
    /// streams together keep a sixteenth of the memory at most, whatever the time
    #[arg(help_heading = RECORDING, long, value_name = "TIME|off")]
    #[serde(deserialize_with = "parsed")]
    pub ring: Option<RingTime>,

    /// TCP port of HTTP and signalling; 0 = any free one [default: 8080]
    #[arg(help_heading = OUTPUTS, long, value_parser = whole::<u16>, value_name = "PORT")]
    pub signal_port: Option<u16>,

    /// UDP port of WebRTC media; 0 = any free one [default: 0]
    ///
    /// One for all viewers
    #[arg(help_heading = OUTPUTS, long, value_parser = whole::<u16>, value_name = "PORT")]
    pub media_port: Option<u16>,

    /// Network interface to use, as eth0 [default: every suitable one]
    ///
    /// To announce on, to offer to viewers and to send multicast by; may be given several times
    #[arg(help_heading = OUTPUTS, long, value_name = "NAME", action = ArgAction::Append)]
    pub interface: Vec<String>,

    /// Ask a STUN server for the public address [default: off]
    ///
    /// For viewers outside the LAN; without URL stun:stun.l.google.com:19302
    #[arg(help_heading = OUTPUTS, long, value_name = "URL", num_args = 0..=1, default_missing_value = DEFAULT_STUN)]
    #[serde(deserialize_with = "stun")]
    pub stun: Option<String>,

    /// STUN or TURN server for browsers, as turn:USER:CREDENTIAL@10.0.0.1:3478 [default: none]
    ///
    /// By which they find a path where there is none to this machine; may be given several times. Whoever may watch is
    /// told the credential. Others on this machine see it in the list of processes: better write it into the file of
    /// --config
    #[arg(help_heading = OUTPUTS, long, value_name = "URL", action = ArgAction::Append)]
    pub ice_server: Vec<String>,

    /// Address by which viewers reach this machine [default: none]
    ///
    /// Where it is not its own, as in a container or behind port forwarding: 10.0.0.2, or with the UDP port of the
    /// media 10.0.0.2:40000; may be given several times. The IP address that a viewer opened is always offered
    #[arg(help_heading = OUTPUTS, long, value_name = "ADDRESS[:PORT]", action = ArgAction::Append)]
    pub public_address: Vec<String>,

    /// Who may watch [default: open]
    ///
    /// open: everybody. requires-login, as is the default with --user: users alone, by HTTP, WebRTC and RTSP alike. To
    /// change something takes a controller in any case
    #[arg(help_heading = ACCESS, long, value_name = "open|requires-login")]
    #[serde(deserialize_with = "parsed")]
    pub view: Option<View>,

    /// Name of a user [default: none]
    ///
    /// With --password. More than one, and their tokens, stand in a file, as tables named user
    #[arg(help_heading = ACCESS, long, value_name = "NAME")]
    pub user: Option<String>,

    /// Password of --user [default: none]
    ///
    /// Others on this machine see it in the list of processes: better set the environment variable
    #[arg(help_heading = ACCESS, long, value_name = "PASSWORD", env = "ROV_PASSWORD", hide_env_values = true)]
    pub password: Option<String>,

    /// What --user may do [default: controller]
    ///
    /// viewer: watch. controller: also change what can be changed, and publish
    #[arg(help_heading = ACCESS, long, value_name = "viewer|controller")]
    #[serde(deserialize_with = "parsed")]
    pub role: Option<Role>,

    /// HTTPS instead of HTTP [default: off]
    ///
    /// With the certificate of --tls-certificate, or else one of its own, made at the first start and kept in
    /// --state-dir; the log has its fingerprint. RTSP stays in clear
    #[arg(help_heading = ACCESS, long, action = ArgAction::SetTrue)]
    pub tls: Option<bool>,

    /// Certificate for HTTPS, a file in PEM [default: none]
    ///
    /// With those between it and its root. With --tls-key
    #[arg(help_heading = ACCESS, long, value_name = "FILE")]
    pub tls_certificate: Option<PathBuf>,

    /// Private key of --tls-certificate, a file in PEM [default: none]
    #[arg(help_heading = ACCESS, long, value_name = "FILE")]
    pub tls_key: Option<PathBuf>,

    /// Host name by which browsers may ask, as rov.lan [default: none]
    ///
    /// Beside IP addresses, localhost and this machine's own name; may be given several times
    #[arg(help_heading = ACCESS, long, value_name = "NAME", action = ArgAction::Append)]
    pub allow_host: Vec<String>,

    /// Origin of a web page that may use this server [default: none]
    ///
    /// As of a dashboard, http://10.0.0.9:3000: it may use HTTP and WebRTC, show the pictures and have the viewer
    /// page in a frame; may be given several times
    #[arg(help_heading = ACCESS, long, value_name = "ORIGIN", action = ArgAction::Append)]
    pub allow_origin: Vec<String>,

    /// Name that viewers see [default: the host name]
    ///
    /// They can choose by it. 64 bytes at most
    #[arg(help_heading = DISCOVERY, long, value_name = "NAME")]
    pub name: Option<String>,

    /// UDP port of discovery [default: 5003]
    ///
    /// Announcements go to it, and queries come to it
    #[arg(help_heading = DISCOVERY, long, value_parser = whole::<u16>, value_name = "PORT")]
    pub discovery_port: Option<u16>,

    /// Be an ONVIF camera for recorders [default: off]
    ///
    /// Profiles S and T: found by WS-Discovery (UDP 3702), then by HTTP at /onvif/device_service; the video goes by
    /// RTSP. Who may watch and change things is as by HTTP
    #[arg(help_heading = DISCOVERY, long, action = ArgAction::SetTrue)]
    pub onvif: Option<bool>,

    /// Do not announce this server [default: off]
    ///
    /// Nor answer queries
    #[arg(help_heading = DISCOVERY, long, action = ArgAction::SetTrue)]
    pub no_discovery: Option<bool>,

    /// Folder for the server's key and its changed settings [default: systemd's StateDirectory, else
    /// ~/.local/state/rov-server]
    ///
    /// By the key, made at the first start, clients know this server again
    #[arg(help_heading = DISCOVERY, long, value_name = "FOLDER")]
    pub state_dir: Option<PathBuf>,

    /// More log: -v debug, -vv trace [default: info]
    #[arg(help_heading = LOGGING, short, long, action = ArgAction::Count)]
    pub verbose: Option<u8>,

    /// Less log: -q warnings, -qq errors alone [default: info]
    #[arg(help_heading = LOGGING, short, long, action = ArgAction::Count)]
    pub quiet: Option<u8>,

    /// Form of the log: text, or json for an object in each line [default: text]
    #[arg(help_heading = LOGGING, long, value_name = "FORMAT")]
    pub log_format: Option<Form>,

    /// Write the log into this file as well [default: none]
    ///
    /// When it is full it becomes FILE.1, and that FILE.2 and so on; five files are kept
    #[arg(help_heading = LOGGING, long, value_name = "FILE")]
    pub log_file: Option<PathBuf>,

    /// Size of each file of --log-file in MiB [default: 10]
    #[arg(help_heading = LOGGING, long, value_name = "MIB", value_parser = within::<u16>(1, 65_535))]
    pub log_file_size: Option<u16>,
}

/// A value that a file has as the command line does.
fn parsed<'de, D: Deserializer<'de>, T: FromStr<Err: Display>>(deserializer: D) -> Result<Option<T>, D::Error> {
    String::deserialize(deserializer)?.parse().map(Some).map_err(D::Error::custom)
}

fn host<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<IpAddr>, D::Error> {
    address(&String::deserialize(deserializer)?).map(Some).map_err(D::Error::custom)
}

fn addresses<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Ipv4Addr>, D::Error> {
    let texts = Vec::<String>::deserialize(deserializer)?;
    texts.iter().map(|text| address(text).map_err(D::Error::custom)).collect()
}

/// Of a camera or a stream: a part of URLs.
fn name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let name = String::deserialize(deserializer)?;
    let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    match (1..=MAX_NAME).contains(&name.len()) && name.chars().all(is_plain) {
        true => Ok(Some(name)),
        false => Err(D::Error::custom(format!("expected 1 to {MAX_NAME} letters (a to z), digits, - and _"))),
    }
}

impl StreamOptions {
    /// What a second stream does not have of the first: its own, or right for the first's bit rate and size alone.
    pub const NOT_OF_SECOND: [&str; 7] =
        ["name", "rtp-port", "min-bitrate", "level", "always-encode", "recording", "bitrate"];

    /// Those of a second stream, where these are of the first. What it does not say is as there, but for what is right
    /// for that one's bit rate and size alone.
    pub fn second(&self, second: SecondStream) -> Self {
        Self {
            name: None,
            rtp_port: None,
            width: Some(second.resolution.width),
            height: Some(second.resolution.height),
            fps: second.fps.or(self.fps),
            bitrate: second.bitrate_kbps,
            min_bitrate: None,
            level: None,
            profile: second.profile.or(self.profile),
            always_encode: None,
            recording: None,
            ..self.clone()
        }
    }
}

/// In a file `true` stands for the option without a value.
fn stun<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "expected true, false, or the URL of a STUN server in quotes")]
    enum Stun {
        On(bool),
        Url(String),
    }
    Ok(match Stun::deserialize(deserializer)? {
        Stun::On(on) => on.then(|| DEFAULT_STUN.to_owned()),
        Stun::Url(url) => Some(url),
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use std::ffi::OsString;

    use clap::CommandFactory;

    use super::*;
    use crate::config_file::{self, Options};

    fn parse(args: &[&str]) -> Options {
        config_file::read(std::iter::once(&"rov-server").chain(args).map(OsString::from)).unwrap()
    }

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_option_has_help_that_gives_its_default() {
        for arg in Cli::command().get_arguments() {
            let help = arg.get_long_help().or(arg.get_help()).map(ToString::to_string).unwrap_or_default();
            assert!(!help.is_empty(), "--{} has no help", arg.get_id());
            let stated = help.contains("[default:") || ["help", "version"].contains(&arg.get_id().as_str());
            assert!(stated, "--{} states no default", arg.get_id());
        }
    }

    #[test]
    fn each_group_of_the_short_help_fits_a_screen() {
        let help = Cli::command().term_width(80).render_help().to_string();
        let mut groups = Vec::new();
        for line in help.lines() {
            if line.ends_with(':') && !line.starts_with(' ') {
                groups.push((line, 0));
            } else if let (Some((_, lines)), false) = (groups.last_mut(), line.is_empty()) {
                *lines += 1;
            }
            assert!(line.chars().count() <= 80, "{line}");
        }
        assert!(groups.len() >= 7, "{groups:?}");
        for (group, lines) in groups {
            assert!(lines <= 24, "{group} has {lines} lines:\n{help}");
        }
    }

    /// Of what the parsers of Rust's library say.
    pub(crate) const OF_RUST: [&str; 4] = ["found in string", "invalid float", "address syntax", "number too"];

    #[test]
    fn no_complaint_about_a_value_is_that_of_a_parser_of_rust() {
        for name in Cli::command().get_arguments().filter_map(|arg| arg.get_long()) {
            let error = Cli::command().try_get_matches_from(["rov-server".to_owned(), format!("--{name}=x y")]);
            let text = error.map_err(|error| error.to_string()).err().unwrap_or_default();
            assert!(!OF_RUST.iter().any(|of_rust| text.contains(of_rust)), "{text}");
        }
    }

    #[test]
    fn stun_is_off_without_the_option_and_has_a_default_server_with_it() {
        let stun = |args: &[&str]| parse(args).machine.options.stun;
        assert_eq!(stun(&[]), None);
        assert_eq!(stun(&["--stun"]).as_deref(), Some(DEFAULT_STUN));
        assert_eq!(stun(&["--stun", "stun:10.0.0.1"]).as_deref(), Some("stun:10.0.0.1"));
    }

    #[test]
    fn verbosity_is_counted_and_interfaces_add_up() {
        let options = parse(&["-vv", "--interface", "eth0", "--interface", "wlan0"]).machine.options;
        assert_eq!((options.verbose, options.quiet), (Some(2), None));
        assert_eq!(options.interface, ["eth0", "wlan0"]);
    }
}
