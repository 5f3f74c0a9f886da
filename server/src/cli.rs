//! The command line of `rov-server`: names, units, defaults and help. What the values mean together is `config`'s.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use clap::{ArgAction, Parser, ValueEnum};
use rov_common::camera::Trust;
use rov_common::codec::Codec;
use rov_common::units::{Fps, decimal, whole};

use crate::config::{DEFAULT_FLOOR, Flip, Level, Preset, Profile, SizeChoice, SourceKind, Transport};
use crate::rate_control::Pilot;

/// In the administratively scoped range (RFC 2365), which does not leave a site.
pub const DEFAULT_RTP_GROUP: Ipv4Addr = Ipv4Addr::new(239, 255, 0, 1);

/// The STUN server that a bare `--stun` means.
pub const DEFAULT_STUN: &str = "stun:stun.l.google.com:19302";

/// The groups of `--help`.
const SOURCE: &str = "Source";
const ENCODING: &str = "Encoding";
const PICTURE: &str = "Picture";
const BIT_RATE: &str = "Bit rate";
const OUTPUTS: &str = "Outputs";
const RTP: &str = "RTP";
const RTSP: &str = "RTSP";
const DISCOVERY: &str = "Discovery";
const LOGGING: &str = "Logging";

/// The form of the log on standard error.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Switch {
    #[default]
    On,
    Off,
}

/// Low-latency video server: a camera, a file, a pipe or a test picture, encoded once, to rov-client and browsers over
/// WebRTC, and to everything else over RTSP and RTP.
#[derive(Clone, Debug, Parser)]
#[command(name = "rov-server", version, about, max_term_width = 100)]
pub struct Cli {
    /// File with options: TOML, as width = 1280. The command line wins [default: none]
    ///
    /// Each key is a long option without its dashes
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Of the options that it gives: the line.
    #[arg(skip)]
    pub lines_of_file: BTreeMap<String, usize>,

    /// Name that viewers see [default: the host name]
    ///
    /// They can choose by it. 64 bytes at most
    #[arg(help_heading = DISCOVERY, long, value_name = "NAME")]
    pub name: Option<String>,

    /// Where the pictures come from
    ///
    /// auto: CSI camera, else the first camera, else a test picture labelled NO CAMERA (with --file, --url,
    /// --pipeline or --device: that file, IP camera, pipeline or webcam). stdin: an Annex B stream of the codec of
    /// --codec, sent untouched. publish: what somebody sends to an RTSP path of this server, sent untouched, as
    /// ffmpeg -i INPUT -c:v copy -f rtsp rtsp://SERVER:8554/stream1
    #[arg(help_heading = SOURCE, long, value_enum, value_name = "SOURCE", default_value_t = SourceKind::Auto)]
    pub source: SourceKind,

    /// Camera: its index, path or a part of its name [default: the first]
    ///
    /// As 0, /dev/video0; CSI: the sensor's index or name
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
    #[arg(help_heading = SOURCE, long)]
    pub file_passthrough: bool,

    /// End when --file ends, instead of starting it again [default: off]
    #[arg(help_heading = SOURCE, long)]
    pub no_loop: bool,

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

    /// Which certificate of an rtsps:// camera is taken
    ///
    /// One that the system trusts, that of this SHA-256 fingerprint too, or any
    #[arg(help_heading = SOURCE, long, value_name = "system|any|SHA256", default_value_t)]
    pub camera_certificate: Trust,

    /// Picture width in pixels, even; 0 = the source's own
    ///
    /// Then --height must be 0 too
    #[arg(help_heading = PICTURE, long, value_parser = whole::<u32>, value_name = "PIXELS", default_value_t = 1920)]
    pub width: u32,

    /// Picture height in pixels, even; 0 = the source's own
    ///
    /// Then --width must be 0 too
    #[arg(help_heading = PICTURE, long, value_parser = whole::<u32>, value_name = "PIXELS", default_value_t = 1080)]
    pub height: u32,

    /// Turn the picture
    ///
    /// As for a camera that hangs upside down: 180
    #[arg(help_heading = PICTURE, long, value_enum, value_name = "FLIP", default_value_t = Flip::None)]
    pub flip: Flip,

    /// Frames per second, as 30 or 29.97; 0 = the source's own
    ///
    /// Or a fraction, as 30000/1001. A slower source is sent at its own rate
    #[arg(help_heading = PICTURE, long, value_name = "FPS", default_value_t = Fps::whole(30))]
    pub fps: Fps,

    /// Bit rate in kbit/s; 0 = auto, by size and frame rate
    ///
    /// Auto: 15000 * (width * height * fps / 62208000)^0.75, that is 15 Mbit/s for 1080p30, 3.6 for 640x480 at 30, 71
    /// for 4K60; with --codec h265 0.6 times that; at least 500 kbit/s and at most 100 Mbit/s
    #[arg(help_heading = BIT_RATE, long, value_parser = whole::<u32>, value_name = "KBIT/S", default_value_t = 0)]
    pub bitrate: u32,

    /// Follow the pilot's link with the bit rate
    ///
    /// Down to --min-bitrate and up to --bitrate; slow spectators are sent less. off: the bit rate stays as it is
    #[arg(help_heading = BIT_RATE, long, value_enum, value_name = "on|off", default_value_t = Switch::On)]
    pub adaptive: Switch,

    /// Lowest bit rate on a slow link, in kbit/s
    ///
    /// A slower link loses pictures instead
    #[arg(
        help_heading = BIT_RATE, long, value_parser = whole::<u32>, value_name = "KBIT/S",
        default_value_t = DEFAULT_FLOOR.kbps()
    )]
    pub min_bitrate: u32,

    /// What a slow link does to the picture size
    ///
    /// fixed: pictures get worse and rarer, never smaller, for readers that cannot follow a change of size, as a script
    /// that reads raw frames
    #[arg(
        help_heading = BIT_RATE, long, value_enum, value_name = "adaptive|fixed",
        default_value_t = SizeChoice::Adaptive
    )]
    pub size: SizeChoice,

    /// Whose link the bit rate follows
    ///
    /// Of several WebRTC viewers: the one connected longest of those that answer (first), or the one at this IP
    /// address, which always gets a place
    #[arg(help_heading = BIT_RATE, long, value_name = "first|ADDRESS", default_value_t = Pilot::First)]
    pub pilot: Pilot,

    /// GStreamer encoder element; auto = the first that works
    ///
    /// As x264enc. auto: the first of the table, hardware first, that really encodes a frame
    #[arg(help_heading = ENCODING, long, value_name = "auto|ELEMENT", default_value = "auto")]
    pub encoder: String,

    /// Codec of the stream
    ///
    /// h265 needs fewer bits, and reaches RTSP, RTP and rov-client, but not browsers
    #[arg(help_heading = ENCODING, long, value_name = "h264|h265", default_value_t = Codec::H264)]
    pub codec: Codec,

    /// H.264 profile; baseline plays everywhere
    ///
    /// Baseline (constrained) plays everywhere, high gives a better picture for the same bit rate. With --codec h265
    /// it is always H.265's main
    #[arg(help_heading = ENCODING, long, value_enum, value_name = "PROFILE", default_value_t = Profile::Baseline)]
    pub profile: Profile,

    /// H.264 level, as 4.1 [default: the encoder's choice]
    ///
    /// From 1 to 5.2, for decoders that take no higher one
    #[arg(help_heading = ENCODING, long, value_name = "LEVEL")]
    pub level: Option<Level>,

    /// Effort of the encoder [default: ultrafast]
    ///
    /// Slower gives a better picture for the same bit rate, and more delay. With --no-low-latency the default is a
    /// slower one
    #[arg(help_heading = ENCODING, long, value_enum, value_name = "PRESET")]
    pub preset: Option<Preset>,

    /// Longest time between keyframes [default: on demand]
    ///
    /// Whether viewers ask for one or not. With --no-low-latency the default is 2
    #[arg(help_heading = ENCODING, long, value_parser = decimal, value_name = "SECONDS")]
    pub keyframe_interval: Option<f64>,

    /// Lowest delay [default: on]
    ///
    /// Fastest preset, rate control over one frame, keyframes only on demand
    #[arg(help_heading = ENCODING, long, overrides_with = "no_low_latency")]
    pub low_latency: bool,

    /// Better picture for more delay [default: off]
    ///
    /// Slower preset, rate control over half a second, a keyframe every 2 s
    #[arg(help_heading = ENCODING, long, overrides_with = "low_latency")]
    pub no_low_latency: bool,

    /// Double the automatic bit rate [default: off]
    ///
    /// No effect with --bitrate
    #[arg(help_heading = BIT_RATE, long)]
    pub max_quality: bool,

    /// Warn when the camera's picture stands still, in seconds; 0 = never
    ///
    /// A picture that has not changed at all for so long: the camera may have hung
    #[arg(help_heading = SOURCE, long, value_parser = whole::<u16>, value_name = "SECONDS", default_value_t = 5)]
    pub frozen_after: u16,

    /// Encode while nobody watches, too [default: off]
    ///
    /// Otherwise the encoder rests then, and the camera stays open; with RTP, whose receivers nobody knows, it never
    /// rests
    #[arg(help_heading = ENCODING, long)]
    pub always_encode: bool,

    /// How viewers get the video, separated by commas
    ///
    /// rtp is multicast to whoever listens; HTTP is always served
    #[arg(
        help_heading = OUTPUTS,
        long = "transport",
        value_enum,
        value_name = "webrtc|rtp|rtsp",
        value_delimiter = ',',
        default_values_t = [Transport::Webrtc, Transport::Rtsp]
    )]
    pub transports: Vec<Transport>,

    /// Viewers at once, of each kind
    ///
    /// WebRTC viewers, RTSP clients and MJPEG viewers; one more is refused with 503. A WebRTC viewer first takes the
    /// place of one that has not connected, and the pilot that of a spectator
    #[arg(help_heading = OUTPUTS, long, value_parser = whole::<u16>, value_name = "COUNT", default_value_t = 16)]
    pub max_viewers: u16,

    /// IPv4 addresses to send RTP to, separated by commas
    ///
    /// Multicast or unicast
    #[arg(
        help_heading = RTP, long = "rtp-host", value_name = "ADDRESS", value_delimiter = ',',
        default_values_t = [DEFAULT_RTP_GROUP]
    )]
    pub rtp_hosts: Vec<Ipv4Addr>,

    /// UDP port to send RTP to, even
    ///
    /// RTCP goes to the port above, repair packets to the second above
    #[arg(help_heading = RTP, long, value_parser = whole::<u16>, value_name = "PORT", default_value_t = 5004)]
    pub rtp_port: u16,

    /// Routers that multicast RTP may pass, plus one
    ///
    /// 1 = it stays in this network
    #[arg(help_heading = RTP, long, value_parser = whole::<u8>, value_name = "HOPS", default_value_t = 1)]
    pub rtp_ttl: u8,

    /// Longest time between keyframes with RTP, in seconds
    ///
    /// Receivers can start, and go on after a loss, only at one
    #[arg(help_heading = RTP, long, value_parser = decimal, value_name = "SECONDS", default_value_t = 1.0)]
    pub rtp_keyframe_interval: f64,

    /// Repair packets for RTP, in percent; 0 = for keyframes alone
    ///
    /// Forward error correction (RFC 8627), in percent of the media packets, one for each picture at least: 25 mends
    /// 1 % of loss, 50 mends 5 %. Costs that much bandwidth or some more
    #[arg(help_heading = RTP, long, value_parser = whole::<u8>, value_name = "PERCENT", default_value_t = 0)]
    pub rtp_fec: u8,

    /// Has no effect, as nothing waits here: for scripts made for other servers
    ///
    /// How long a viewer waits for lost packets is rov-client --latency [default: none]
    #[arg(help_heading = OUTPUTS, long, value_name = "MS")]
    pub webrtc_latency: Option<u32>,

    /// TCP port of RTSP; 0 = any free one
    #[arg(help_heading = RTSP, long, value_parser = whole::<u16>, value_name = "PORT", default_value_t = 8554)]
    pub rtsp_port: u16,

    /// Another path of the RTSP stream, as /cam [default: none]
    ///
    /// Beside /stream1, /stream, /live and /test; may be given several times
    #[arg(help_heading = RTSP, long = "rtsp-path", value_name = "PATH", action = ArgAction::Append)]
    pub rtsp_paths: Vec<String>,

    /// User name that RTSP clients must give [default: none]
    ///
    /// With --password. Only RTSP asks for it, not HTTP, WebRTC and RTP
    #[arg(help_heading = RTSP, long, value_name = "NAME")]
    pub user: Option<String>,

    /// Password that RTSP clients must give [default: none]
    ///
    /// With --user. Others on this machine see it in the list of processes: better set the environment variable
    #[arg(help_heading = RTSP, long, value_name = "PASSWORD", env = "ROV_PASSWORD", hide_env_values = true)]
    pub password: Option<String>,

    /// Take the RTSP password in clear, too [default: off]
    ///
    /// Basic authentication, for clients that do not know digest
    #[arg(help_heading = RTSP, long)]
    pub rtsp_basic_auth: bool,

    /// IPv4 address to bind
    ///
    /// For signalling and media
    #[arg(help_heading = OUTPUTS, long, value_name = "ADDRESS", default_value = "0.0.0.0")]
    pub host: IpAddr,

    /// TCP port of HTTP and signalling; 0 = any free one
    #[arg(help_heading = OUTPUTS, long, value_parser = whole::<u16>, value_name = "PORT", default_value_t = 8080)]
    pub signal_port: u16,

    /// UDP port of WebRTC media; 0 = any free one
    ///
    /// One for all viewers
    #[arg(help_heading = OUTPUTS, long, value_parser = whole::<u16>, value_name = "PORT", default_value_t = 0)]
    pub media_port: u16,

    /// UDP port of discovery
    ///
    /// Announcements go to it, and queries come to it
    #[arg(help_heading = DISCOVERY, long, value_parser = whole::<u16>, value_name = "PORT", default_value_t = 5003)]
    pub discovery_port: u16,

    /// Do not announce this server [default: off]
    ///
    /// Nor answer queries
    #[arg(help_heading = DISCOVERY, long)]
    pub no_discovery: bool,

    /// Network interface to use, as eth0 [default: every suitable one]
    ///
    /// To announce on, to offer to viewers and to send multicast by; may be given several times
    #[arg(help_heading = OUTPUTS, long = "interface", value_name = "NAME", action = ArgAction::Append)]
    pub interfaces: Vec<String>,

    /// Ask a STUN server for the public address [default: off]
    ///
    /// For viewers outside the LAN; without URL stun:stun.l.google.com:19302
    #[arg(help_heading = OUTPUTS, long, value_name = "URL", num_args = 0..=1, default_missing_value = DEFAULT_STUN)]
    pub stun: Option<String>,

    /// Address by which viewers reach this machine [default: none]
    ///
    /// Where it is not its own, as in a container or behind port forwarding: 10.0.0.2, or with the UDP port of the
    /// media 10.0.0.2:40000; may be given several times. The IP address that a viewer opened is always offered
    #[arg(help_heading = OUTPUTS, long = "public-address", value_name = "ADDRESS[:PORT]", action = ArgAction::Append)]
    pub public_addresses: Vec<String>,

    /// Host name by which browsers may ask, as rov.lan [default: none]
    ///
    /// Beside IP addresses, localhost and this machine's own name; may be given several times
    #[arg(help_heading = OUTPUTS, long = "allow-host", value_name = "NAME", action = ArgAction::Append)]
    pub allow_hosts: Vec<String>,

    /// Origin of a web page that may use this server [default: none]
    ///
    /// As of a dashboard, http://10.0.0.9:3000: it may use HTTP and WebRTC, show the pictures and have the viewer
    /// page in a frame; may be given several times
    #[arg(help_heading = OUTPUTS, long = "allow-origin", value_name = "ORIGIN", action = ArgAction::Append)]
    pub allow_origins: Vec<String>,

    /// Folder for the key by which clients know this server again, made at its first start [default: systemd's
    /// StateDirectory, else ~/.local/state/rov-server]
    #[arg(help_heading = DISCOVERY, long, value_name = "FOLDER")]
    pub state_dir: Option<PathBuf>,

    /// More log: -v debug, -vv trace [default: info]
    #[arg(help_heading = LOGGING, short, long, action = ArgAction::Count)]
    pub verbose: u8,

    /// Less log: -q warnings, -qq errors alone [default: info]
    #[arg(help_heading = LOGGING, short, long, action = ArgAction::Count)]
    pub quiet: u8,

    /// Form of the log on standard error
    #[arg(help_heading = LOGGING, long, value_enum, value_name = "FORMAT", default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(args: &[&str]) -> Cli {
        Cli::try_parse_from(std::iter::once(&"rov-server").chain(args)).unwrap()
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
            let stated = help.contains("[default:") || !arg.get_default_values().is_empty();
            assert!(
                stated || ["help", "version"].contains(&arg.get_id().as_str()),
                "--{} states no default",
                arg.get_id()
            );
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

    #[test]
    fn stun_is_off_without_the_option_and_has_a_default_server_with_it() {
        assert_eq!(parse(&[]).stun, None);
        assert_eq!(parse(&["--stun"]).stun.as_deref(), Some(DEFAULT_STUN));
        assert_eq!(parse(&["--stun", "stun:10.0.0.1"]).stun.as_deref(), Some("stun:10.0.0.1"));
    }

    #[test]
    fn the_last_of_the_latency_flags_wins() {
        assert!(parse(&["--low-latency", "--no-low-latency"]).no_low_latency);
        assert!(!parse(&["--no-low-latency", "--low-latency"]).no_low_latency);
    }

    #[test]
    fn verbosity_is_counted_and_interfaces_add_up() {
        let cli = parse(&["-vv", "--interface", "eth0", "--interface", "wlan0"]);
        assert_eq!((cli.verbose, cli.quiet), (2, 0));
        assert_eq!(cli.interfaces, ["eth0", "wlan0"]);
    }
}
