//! The validated configuration. Everything behind it may rely on what `validate` states; nothing here looks at the machine
//! (which cameras, which encoders), as that changes while the server runs.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::ValueEnum;
pub use rov_common::camera::{CameraUrl, Credentials, Trust};
use rov_common::codec::Codec;
use rov_common::discovery::clean;
use rov_common::units::{Bitrate, Fps, Resolution};
use url::Url;

use crate::cli::{Cli, Switch};
use crate::identity;
use crate::rate_control::Pilot;

/// Where pictures come from, as `--source` names it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum SourceKind {
    #[default]
    Auto,
    Webcam,
    Csi,
    File,
    Stdin,
    Rtsp,
    Publish,
    Test,
    Pipeline,
}

/// How viewers get the video, as `--transport` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Transport {
    Webrtc,
    Rtp,
    Rtsp,
}

/// The H.264 profile asked of the encoder. `Baseline` means constrained baseline wherever the encoder knows it. With H.265 each
/// of them means main, the only one for 8 bit 4:2:0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Profile {
    #[default]
    Baseline,
    Main,
    High,
}

/// The effort of the encoder: the slower, the better the picture for the same bit rate, and the more delay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[repr(u8)]
pub enum Preset {
    Ultrafast = 0,
    Fast,
    Medium,
    Slow,
}

/// How the picture is turned before it is encoded, as for a camera that hangs upside down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Flip {
    #[default]
    None,
    /// Left and right change places.
    Horizontal,
    Vertical,
    #[value(name = "180")]
    Half,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum SizeChoice {
    /// A slow link makes it smaller.
    #[default]
    Adaptive,
    Fixed,
}

/// A level of H.264 (ITU-T H.264 table A-1), by its place among `LEVELS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Level(usize);

/// Ten times the number; macroblocks of a picture; macroblocks a second.
const LEVELS: [(u32, u64, f64); 16] = [
    (10, 99, 1_485.0),
    (11, 396, 3_000.0),
    (12, 396, 6_000.0),
    (13, 396, 11_880.0),
    (20, 396, 11_880.0),
    (21, 792, 19_800.0),
    (22, 1_620, 20_250.0),
    (30, 1_620, 40_500.0),
    (31, 3_600, 108_000.0),
    (32, 5_120, 216_000.0),
    (40, 8_192, 245_760.0),
    (41, 8_192, 245_760.0),
    (42, 8_704, 522_240.0),
    (50, 22_080, 589_824.0),
    (51, 36_864, 983_040.0),
    (52, 36_864, 2_073_600.0),
];

impl Level {
    pub const L4: Self = Self(10);
    pub const L4_2: Self = Self(12);
    pub const L5_1: Self = Self(14);

    /// Ten times the number, as the SPS has it.
    pub fn idc(self) -> u32 {
        LEVELS[self.0].0
    }

    pub fn allows(self, resolution: Resolution, fps: f64) -> bool {
        let (_, most, most_per_second) = LEVELS[self.0];
        let macroblocks = u64::from(resolution.width.div_ceil(16)) * u64::from(resolution.height.div_ceil(16));
        macroblocks <= most && macroblocks as f64 * fps <= most_per_second
    }

    fn lowest(resolution: Resolution, fps: f64) -> Option<Self> {
        (0..LEVELS.len()).map(Self).find(|level| level.allows(resolution, fps))
    }
}

impl FromStr for Level {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let at = LEVELS.iter().position(|(idc, ..)| {
            let (whole, tenth) = (idc / 10, idc % 10);
            text == format!("{whole}.{tenth}") || tenth == 0 && text == whole.to_string()
        });
        at.map(Self).ok_or_else(|| "give a level from 1 to 5.2, as 4 or 4.1".to_owned())
    }
}

/// As GStreamer's caps have it: `4`, `4.1`.
impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.idc() / 10, self.idc() % 10) {
            (whole, 0) => write!(f, "{whole}"),
            (whole, tenth) => write!(f, "{whole}.{tenth}"),
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum EncoderChoice {
    /// The first that works, hardware first.
    #[default]
    Auto,
    /// This element and no other. Whether it is known and works is seen where encoders are tried (`pipeline::probe`), as
    /// the answer is to name those that work here.
    Element(String),
}

/// The lowest bit rate without `--min-bitrate`: a picture to steer by in 640x360.
pub const DEFAULT_FLOOR: Bitrate = Bitrate::from_kbps(300);

/// The longest name that an announcement carries, in bytes of UTF-8.
const MAX_NAME: usize = 64;

/// What is captured and how it is encoded.
#[derive(Clone, Debug, PartialEq)]
pub struct CaptureConfig {
    /// Never `Auto` when a file, a pipeline or a device was named.
    pub source: SourceKind,
    pub device: Option<String>,
    /// Set when `source` is `File`.
    pub file: Option<PathBuf>,
    pub file_passthrough: bool,
    /// Start the file again at its end.
    pub looping: bool,
    /// Set when `source` is `Pipeline`.
    pub pipeline: Option<String>,
    /// Set when `source` is `Rtsp`.
    pub url: Option<CameraUrl>,
    /// Of its certificate, by `rtsps`.
    pub camera_certificate: Trust,
    /// Both sides even; None: the source's own.
    pub resolution: Option<Resolution>,
    /// An upper bound: a slower source keeps its rate. None: the source's own.
    pub fps: Option<Fps>,
    /// None: `auto_bitrate`.
    pub bitrate: Option<Bitrate>,
    pub codec: Codec,
    pub encoder: EncoderChoice,
    pub profile: Profile,
    pub low_latency: bool,
    /// None: by `low_latency`.
    pub preset: Option<Preset>,
    /// None: by `low_latency`.
    pub keyframe_interval: Option<Duration>,
    /// None: what the encoder finds right.
    pub level: Option<Level>,
    pub flip: Flip,
    /// The rate control makes no picture smaller.
    pub fixed_size: bool,
    pub max_quality: bool,
    /// A camera whose picture does not change for so long is said to be frozen; None: that is not looked at.
    pub frozen_after: Option<Duration>,
}

impl Default for CaptureConfig {
    /// What the command line gives without arguments.
    fn default() -> Self {
        Self {
            source: SourceKind::Auto,
            device: None,
            file: None,
            file_passthrough: false,
            looping: true,
            pipeline: None,
            url: None,
            camera_certificate: Trust::System,
            resolution: Some(Resolution::new(1920, 1080)),
            fps: Some(Fps::whole(30)),
            bitrate: None,
            codec: Codec::H264,
            encoder: EncoderChoice::Auto,
            profile: Profile::Baseline,
            low_latency: true,
            preset: None,
            keyframe_interval: None,
            level: None,
            flip: Flip::None,
            fixed_size: false,
            max_quality: false,
            frozen_after: Some(Duration::from_secs(5)),
        }
    }
}

/// Plain RTP to whoever listens.
#[derive(Clone, Debug, PartialEq)]
pub struct RtpConfig {
    /// Multicast groups and unicast addresses; one at least, none twice.
    pub hosts: Vec<Ipv4Addr>,
    /// Even, 2 to 65532; RTCP goes to the port above, repair packets to the second above.
    pub port: u16,
    /// Of multicast.
    pub ttl: u8,
    /// From one keyframe to the next, at most.
    pub keyframe_interval: Duration,
    /// Repair packets in percent of media packets, 1 to 100; None: of keyframes alone.
    pub fec_percent: Option<u8>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct RtspConfig {
    /// 0: any free port.
    pub port: u16,
    /// Each as `/stream1`; the first is the one that is told.
    pub paths: Vec<String>,
    /// None: everybody may watch.
    pub credentials: Option<Credentials>,
    /// Take the password in clear too.
    pub basic_auth: bool,
}

/// The paths under which RTSP is served without `--rtsp-path`: ours, and those of the servers that it replaces.
pub const RTSP_PATHS: [&str; 4] = ["/stream1", "/stream", "/live", "/test"];
/// Where RTSP serves previews by MJPEG.
pub const MJPEG_PATH: &str = "/mjpeg";

/// Whether a path of RTSP leads to the previews by MJPEG.
pub fn is_mjpeg(path: &str) -> bool {
    path.strip_prefix(MJPEG_PATH).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// 1 to 64 bytes, as announcements carry it: no control characters, no space at the ends.
    pub name: String,
    pub capture: CaptureConfig,
    /// IPv4, like media and discovery.
    pub host: IpAddr,
    /// 0: any free port.
    pub signal_port: u16,
    /// Whether WebRTC viewers are served.
    pub webrtc: bool,
    /// None: not sent.
    pub rtp: Option<RtpConfig>,
    /// None: not served.
    pub rtsp: Option<RtspConfig>,
    /// The encoder does not rest while nobody looks.
    pub always_encode: bool,
    /// By WebRTC, by RTSP, and by MJPEG; at least one.
    pub max_viewers: u16,
    /// 0: any free port.
    pub media_port: u16,
    /// None: no discovery.
    pub discovery_port: Option<u16>,
    /// Empty: every suitable one.
    pub interfaces: Vec<String>,
    /// A `stun:` URL.
    pub stun: Option<String>,
    /// Where viewers reach the media socket, beside this machine's own addresses; port 0: that of the socket.
    pub public_addresses: Vec<SocketAddrV4>,
    /// Names by which HTTP may be asked, beside those of this machine.
    pub allow_hosts: Vec<String>,
    /// Of pages that may use HTTP, as browsers write them: `http://10.0.0.9:3000`.
    pub allow_origins: Vec<String>,
    pub pilot: Pilot,
    /// The bit rate follows the pilot's link, and is never lower, unless the ceiling is. None: it stays as it is.
    pub adaptive_floor: Option<Bitrate>,
    /// Where the server's key is kept; None: nowhere.
    pub state_dir: Option<PathBuf>,
}

/// A message that names the option and the value, and says what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(pub String);

fn bad<T>(message: impl Into<String>) -> Result<T, ConfigError> {
    Err(ConfigError(message.into()))
}

/// What H.265 needs of the bit rate of H.264 for about the same picture.
pub const H265_RATE: f64 = 0.6;

/// The bit rate when none is given: `15 Mbit/s * (width * height * fps / (1920 * 1080 * 30))^0.75`, doubled by
/// `max_quality`, for H.265 times 0.6, at least 500 kbit/s and at most 100 Mbit/s.
///
/// 15 Mbit/s for 1080p30 is 0.24 bit for each pixel, generous for the murk and particles under water. The exponent is below
/// one because neighbouring pixels and frames resemble each other the more, the more there are of them: 640x480 at 30
/// gets 3.6 Mbit/s (0.39 bit for each pixel), 4K60 71 Mbit/s (0.14).
pub fn auto_bitrate(codec: Codec, resolution: Resolution, fps: Fps, max_quality: bool) -> Bitrate {
    let reference = 1920.0 * 1080.0 * 30.0;
    let load = resolution.pixels() as f64 * fps.as_f64() / reference;
    let codec_rate = if codec == Codec::H265 { H265_RATE } else { 1.0 };
    let kbps = 15_000.0 * load.powf(0.75) * codec_rate * if max_quality { 2.0 } else { 1.0 };
    Bitrate::from_kbps(kbps.clamp(500.0, 100_000.0).round() as u32)
}

impl Config {
    pub fn from_cli(cli: &Cli) -> Result<Config, ConfigError> {
        let name = match &cli.name {
            Some(name) => name.trim().to_owned(),
            None => hostname::get().ok().map(|name| clean(&name.to_string_lossy(), MAX_NAME)).unwrap_or_default(),
        };
        // A host without a name is no reason to refuse; an empty --name is one.
        let name = if name.is_empty() && cli.name.is_none() { "rov".to_owned() } else { name };
        // A thing that was named is what the user wants to see, so that `--source` is rarely needed.
        let source = match cli.source {
            SourceKind::Auto if cli.file.is_some() => SourceKind::File,
            SourceKind::Auto if cli.pipeline.is_some() => SourceKind::Pipeline,
            SourceKind::Auto if cli.device.is_some() => SourceKind::Webcam,
            SourceKind::Auto if cli.url.is_some() => SourceKind::Rtsp,
            source => source,
        };
        let resolution = match (cli.width, cli.height) {
            (0, 0) => None,
            (width, height) => Some(Resolution::new(width, height)),
        };
        let encoder = match cli.encoder.as_str() {
            "auto" => EncoderChoice::Auto,
            element => EncoderChoice::Element(element.to_owned()),
        };
        let wants = |transport| cli.transports.contains(&transport);
        // Who sets a password must not believe that it is asked for.
        if cli.user.is_some() && !wants(Transport::Rtsp) {
            return bad("--user: only RTSP asks for a password: leave it out, or add rtsp to --transport");
        }
        if source == SourceKind::Publish && !wants(Transport::Rtsp) {
            return bad("--source publish: streams are published by RTSP: add rtsp to --transport");
        }
        let config = Config {
            name,
            capture: CaptureConfig {
                source,
                device: cli.device.clone(),
                file: cli.file.clone(),
                file_passthrough: cli.file_passthrough,
                looping: !cli.no_loop,
                pipeline: cli.pipeline.clone(),
                url: cli.url.as_deref().map(camera_url).transpose()?,
                camera_certificate: cli.camera_certificate.clone(),
                resolution,
                fps: (cli.fps.num > 0).then_some(cli.fps),
                bitrate: (cli.bitrate > 0).then(|| Bitrate::from_kbps(cli.bitrate)),
                codec: cli.codec,
                encoder,
                profile: cli.profile,
                low_latency: !cli.no_low_latency,
                preset: cli.preset,
                keyframe_interval: cli.keyframe_interval.map(keyframe_interval).transpose()?,
                level: cli.level,
                flip: cli.flip,
                fixed_size: cli.size == SizeChoice::Fixed,
                max_quality: cli.max_quality,
                frozen_after: (cli.frozen_after > 0).then(|| Duration::from_secs(cli.frozen_after.into())),
            },
            host: cli.host,
            signal_port: cli.signal_port,
            webrtc: wants(Transport::Webrtc),
            rtp: if wants(Transport::Rtp) { Some(rtp(cli)?) } else { None },
            rtsp: if wants(Transport::Rtsp) { Some(rtsp(cli)?) } else { None },
            always_encode: cli.always_encode,
            max_viewers: cli.max_viewers,
            media_port: cli.media_port,
            discovery_port: (!cli.no_discovery).then_some(cli.discovery_port),
            interfaces: cli.interfaces.clone(),
            stun: cli.stun.clone(),
            public_addresses: cli.public_addresses.iter().map(|text| public_address(text)).collect::<Result<_, _>>()?,
            allow_hosts: cli.allow_hosts.iter().map(|name| allow_host(name)).collect::<Result<_, _>>()?,
            allow_origins: cli.allow_origins.iter().map(|text| allow_origin(text)).collect::<Result<_, _>>()?,
            pilot: cli.pilot,
            adaptive_floor: (cli.adaptive == Switch::On).then(|| Bitrate::from_kbps(cli.min_bitrate)),
            state_dir: cli.state_dir.clone().or_else(|| identity::default_folder(|name| std::env::var(name).ok())),
        };
        config.validate()?;
        Ok(config)
    }

    /// Checks what the fields promise. Looks at no file and no device.
    pub fn validate(&self) -> Result<(), ConfigError> {
        if self.name.is_empty() || self.name.len() > MAX_NAME {
            return bad(format!(
                "--name {:?}: has {} bytes, must have 1 to {MAX_NAME} (letters other than a to z take two or more)",
                self.name,
                self.name.len()
            ));
        }
        // What an announcement would change, viewers could not find by the name that was given.
        if clean(&self.name, MAX_NAME) != self.name {
            return bad(format!(
                "--name {:?}: must have no control or invisible characters, and no space at the ends",
                self.name
            ));
        }
        if self.host.is_ipv6() {
            return bad(format!(
                "--host {}: media and discovery are IPv4 only, give an IPv4 address of this machine, or 0.0.0.0 for all",
                self.host
            ));
        }
        if self.max_viewers == 0 {
            return bad("--max-viewers 0: must be at least 1");
        }
        if self.discovery_port == Some(0) {
            return bad("--discovery-port 0: clients must know the port, give one from 1 to 65535, or --no-discovery");
        }
        if let Some(empty) = self.interfaces.iter().find(|name| name.trim().is_empty()) {
            return bad(format!("--interface {empty:?}: give the name of a network interface, as eth0"));
        }
        if let Some(url) = &self.stun
            && !(url.starts_with("stun:") && url.len() > "stun:".len())
        {
            return bad(format!("--stun {url}: give a URL of the form stun:HOST[:PORT]"));
        }
        if let (Some(floor), Some(ceiling)) = (self.adaptive_floor, self.capture.bitrate)
            && floor > ceiling
            && floor != DEFAULT_FLOOR
        {
            return bad(format!("--min-bitrate {}: is above --bitrate {}", floor.kbps(), ceiling.kbps()));
        }
        self.capture.validate()
    }
}

fn public_address(text: &str) -> Result<SocketAddrV4, ConfigError> {
    let address = text.parse().or_else(|_| text.parse().map(|ip| SocketAddrV4::new(ip, 0)));
    match address {
        Ok(address) if !address.ip().is_unspecified() && !address.ip().is_multicast() => Ok(address),
        _ => bad(format!(
            "--public-address {text:?}: give the IPv4 address that viewers reach, as 10.0.0.2, or with the UDP port, \
             as 10.0.0.2:40000"
        )),
    }
}

fn allow_host(name: &str) -> Result<String, ConfigError> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if name.is_empty() || !name.chars().all(is_name) {
        return bad(format!("--allow-host {name:?}: give a host name alone, as rov.lan, without http:// and port"));
    }
    Ok(name.trim_end_matches('.').to_ascii_lowercase())
}

/// As browsers write it: without a path, and without the port that the scheme means anyway.
fn allow_origin(text: &str) -> Result<String, ConfigError> {
    let url = Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.path() == "/");
    match url.filter(|url| url.query().is_none() && url.fragment().is_none() && url.username().is_empty()) {
        Some(url) => Ok(url.origin().ascii_serialization()),
        None => bad(format!(
            "--allow-origin {text:?}: give scheme, host and port of the page, as http://10.0.0.9:3000 (one for each; \
             there is no wildcard)"
        )),
    }
}

/// What does not parse is not repeated: it may have a password in it.
fn camera_url(text: &str) -> Result<CameraUrl, ConfigError> {
    CameraUrl::parse(text).map_err(|error| {
        ConfigError(format!("--url: give an address as rtsp://USER:PASSWORD@10.0.0.3/stream ({error})"))
    })
}

fn keyframe_interval(seconds: f64) -> Result<Duration, ConfigError> {
    if !(0.1..=300.0).contains(&seconds) {
        return bad(format!("--keyframe-interval {seconds}: must be from 0.1 to 300 seconds"));
    }
    Ok(Duration::from_secs_f64(seconds))
}

fn rtp(cli: &Cli) -> Result<RtpConfig, ConfigError> {
    let mut hosts = cli.rtp_hosts.clone();
    hosts.sort();
    hosts.dedup();
    if hosts.len() != cli.rtp_hosts.len() {
        return bad("--rtp-host: an address is given twice, and its receivers would get each packet twice");
    }
    if let Some(host) = hosts.iter().find(|host| host.is_unspecified() || host.is_broadcast()) {
        return bad(format!("--rtp-host {host}: give the address of a receiver, or a multicast group as 239.255.0.1"));
    }
    // RFC 3550 section 11: RTP has an even port and RTCP the odd one above.
    if cli.rtp_port < 2 || cli.rtp_port > 65_532 || !cli.rtp_port.is_multiple_of(2) {
        return bad(format!(
            "--rtp-port {}: must be even, from 2 to 65532 (RTCP has the odd port above)",
            cli.rtp_port
        ));
    }
    if !(0.1..=60.0).contains(&cli.rtp_keyframe_interval) {
        return bad(format!("--rtp-keyframe-interval {}: must be from 0.1 to 60 seconds", cli.rtp_keyframe_interval));
    }
    if cli.rtp_fec > 100 {
        return bad(format!("--rtp-fec {}: must be from 1 to 100 percent, or 0 for keyframes alone", cli.rtp_fec));
    }
    Ok(RtpConfig {
        hosts: cli.rtp_hosts.clone(),
        port: cli.rtp_port,
        ttl: cli.rtp_ttl,
        keyframe_interval: Duration::from_secs_f64(cli.rtp_keyframe_interval),
        fec_percent: (cli.rtp_fec > 0).then_some(cli.rtp_fec),
    })
}

fn rtsp(cli: &Cli) -> Result<RtspConfig, ConfigError> {
    let mut paths: Vec<String> = RTSP_PATHS.map(str::to_owned).into();
    for path in &cli.rtsp_paths {
        let plain = |c: char| c.is_ascii_alphanumeric() || "/-_.".contains(c);
        if path.len() < 2
            || path.len() > 64
            || !path.starts_with('/')
            || path.ends_with('/')
            || !path.chars().all(plain)
        {
            return bad(format!(
                "--rtsp-path {path:?}: give a path as /cam, 64 bytes at most, of letters, digits, and - _ . /"
            ));
        }
        if is_mjpeg(path) {
            return bad(format!("--rtsp-path {path}: {MJPEG_PATH} is where MJPEG is served, take another"));
        }
        if !paths.contains(path) {
            paths.push(path.clone());
        }
    }
    let credentials = match (&cli.user, &cli.password) {
        (None, None) => None,
        (Some(user), Some(password)) => {
            // A colon ends the name in RFC 7617; a quote would end it in RFC 7616.
            if user.is_empty() || user.contains(|c: char| c.is_control() || c == ':' || c == '"' || c == '\\') {
                return bad(format!(
                    "--user {user:?}: must have at least one character, and no colon, quote or backslash"
                ));
            }
            if password.is_empty() {
                return bad("--password: must not be empty");
            }
            Some(Credentials { user: user.clone(), password: password.clone() })
        }
        (Some(user), None) => return bad(format!("--user {user}: needs --password, or the variable ROV_PASSWORD")),
        (None, Some(_)) => return bad("--password (or the variable ROV_PASSWORD): needs --user"),
    };
    if cli.rtsp_basic_auth && credentials.is_none() {
        return bad("--rtsp-basic-auth: needs --user and --password");
    }
    Ok(RtspConfig { port: cli.rtsp_port, paths, credentials, basic_auth: cli.rtsp_basic_auth })
}

impl CaptureConfig {
    fn validate(&self) -> Result<(), ConfigError> {
        self.validate_source()?;
        self.validate_encoding()?;
        if let Some(Resolution { width, height }) = self.resolution {
            if width == 0 || height == 0 {
                return bad(format!(
                    "--width {width} --height {height}: give both, or 0 for both to take the source's own size"
                ));
            }
            for (option, value) in [("--width", width), ("--height", height)] {
                if !(16..=8192).contains(&value) {
                    return bad(format!("{option} {value}: must be from 16 to 8192 pixels"));
                }
                if value % 2 != 0 {
                    // 4:2:0 video has one chroma sample for two pixels each way.
                    return bad(format!("{option} {value}: must be even (4:2:0 video), try {}", value + 1));
                }
            }
        }
        if let Some(fps) = self.fps
            && !(1.0..=240.0).contains(&fps.as_f64())
        {
            return bad(format!("--fps {fps}: must be from 1 to 240, or 0 for the source's own"));
        }
        if let Some(bitrate) = self.bitrate
            && !(50..=500_000).contains(&bitrate.kbps())
        {
            return bad(format!("--bitrate {}: must be from 50 to 500000 kbit/s, or 0 for auto", bitrate.kbps()));
        }
        Ok(())
    }

    /// An option that was given and that only an encoder here can keep.
    pub fn encoding_option(&self) -> Option<&'static str> {
        let given = [
            ("--preset", self.preset.is_some()),
            ("--keyframe-interval", self.keyframe_interval.is_some()),
            ("--level", self.level.is_some()),
            ("--flip", self.flip != Flip::None),
        ];
        given.into_iter().find_map(|(option, given)| given.then_some(option))
    }

    fn validate_encoding(&self) -> Result<(), ConfigError> {
        let untouched =
            self.file_passthrough || matches!(self.source, SourceKind::Stdin | SourceKind::Rtsp | SourceKind::Publish);
        if let Some(option) = self.encoding_option().filter(|_| untouched) {
            return bad(format!(
                "{option}: nothing is encoded here, the source's stream is sent untouched; leave it out"
            ));
        }
        if let (Some(level), Some(resolution), Codec::H264) = (self.level, self.resolution, self.codec) {
            let fps = self.fps.map_or(30.0, Fps::as_f64);
            if !level.allows(resolution, fps) {
                let needed = Level::lowest(resolution, fps);
                let needed = needed.map_or_else(|| "no level does".to_owned(), |level| format!("--level {level} does"));
                return bad(format!("--level {level}: does not allow {resolution} at {fps} fps; {needed}"));
            }
        }
        Ok(())
    }

    fn validate_source(&self) -> Result<(), ConfigError> {
        let source = self.source.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned());
        if self.source == SourceKind::File && self.file.is_none() {
            return bad("--source file: needs --file FILE");
        }
        if self.source != SourceKind::File {
            if let Some(file) = &self.file {
                return bad(format!("--file {}: needs --source file, but --source is {source}", file.display()));
            }
            if self.file_passthrough {
                return bad(format!(
                    "--file-passthrough: needs --source file and --file FILE, but --source is {source}"
                ));
            }
            if !self.looping {
                return bad(format!("--no-loop: needs --source file and --file FILE, but --source is {source}"));
            }
        }
        if self.source == SourceKind::Pipeline && self.pipeline.as_deref().is_none_or(|text| text.trim().is_empty()) {
            return bad("--source pipeline: needs --pipeline DESCRIPTION, as \"videotestsrc is-live=true\"");
        }
        if self.source != SourceKind::Pipeline
            && let Some(text) = &self.pipeline
        {
            return bad(format!("--pipeline '{text}': needs --source pipeline, but --source is {source}"));
        }
        match (&self.url, self.source) {
            (None, SourceKind::Rtsp) => return bad("--source rtsp: needs --url URL, as rtsp://10.0.0.3/stream"),
            (Some(url), SourceKind::Rtsp)
                if !matches!(url.url().scheme(), "rtsp" | "rtsps") || !url.url().has_host() =>
            {
                return bad(format!("--url {url}: give the address of an RTSP camera, as rtsp://10.0.0.3/stream"));
            }
            (Some(url), source_kind) if source_kind != SourceKind::Rtsp => {
                return bad(format!("--url {url}: needs --source rtsp, but --source is {source}"));
            }
            _ => {}
        }
        if self.camera_certificate != Trust::System && !self.url.as_ref().is_some_and(CameraUrl::is_tls) {
            return bad("--camera-certificate: needs --url rtsps://..., other addresses have no certificate");
        }
        if !matches!(self.source, SourceKind::Webcam | SourceKind::Csi)
            && let Some(device) = &self.device
        {
            return bad(format!("--device {device}: needs --source webcam or csi, but --source is {source}"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    fn config(args: &[&str]) -> Result<Config, ConfigError> {
        Config::from_cli(&Cli::try_parse_from(std::iter::once(&"rov-server").chain(args)).unwrap())
    }

    #[test]
    fn the_defaults_of_the_command_line_are_those_of_the_type() {
        let config = config(&[]).unwrap();
        assert_eq!(config.capture, CaptureConfig::default());
        assert_eq!((config.signal_port, config.media_port, config.discovery_port), (8080, 0, Some(5003)));
        assert!(!config.name.is_empty());
        assert!(config.webrtc && config.rtp.is_none());
        assert_eq!(config.rtsp.unwrap().paths, RTSP_PATHS);
    }

    #[test]
    fn transports_are_chosen_by_name_and_rtp_has_the_usual_group() {
        let config = config(&["--transport", "rtp"]).unwrap();
        assert!(!config.webrtc && config.rtsp.is_none());
        let rtp = config.rtp.unwrap();
        assert_eq!((rtp.hosts.as_slice(), rtp.port, rtp.ttl), (&[Ipv4Addr::new(239, 255, 0, 1)][..], 5004, 1));
        assert_eq!((rtp.keyframe_interval, rtp.fec_percent), (Duration::from_secs(1), None));
    }

    #[test]
    fn the_password_is_not_shown() {
        let config = config(&["--user", "pilot", "--password", "deep"]).unwrap();
        assert!(!format!("{config:?}").contains("deep"), "{config:?}");
    }

    #[test]
    fn a_cameras_address_is_shown_without_what_is_secret() {
        for (url, shown) in [
            ("rtsp://pilot:d%65ep@10.0.0.3:554/cam", "rtsp://10.0.0.3:554/cam"),
            ("rtsp://pilot:1#deep@10.0.0.3:554/cam", "rtsp://10.0.0.3:554/cam"),
            ("rtsp://10.0.0.3/cam?token=deep", "rtsp://10.0.0.3/cam..."),
            ("rtsp://10.0.0.3/user=pilot&password=deep&channel=1", "rtsp://10.0.0.3/user..."),
        ] {
            let config = config(&["--url", url]).unwrap();
            assert_eq!(config.capture.url.as_ref().unwrap().to_string(), shown);
            let text = format!("{config:?}");
            assert!(
                config.capture.source == SourceKind::Rtsp && !text.contains("deep") && text.contains(shown),
                "{text}"
            );
        }
        let refused = config(&["--source", "test", "--url", "rtsp://pilot:deep@10.0.0.3/"]).unwrap_err().0;
        assert!(!refused.contains("deep"), "{refused}");
    }

    #[test]
    fn zero_means_the_sources_own_or_automatic() {
        let capture = config(&["--width", "0", "--height", "0", "--fps", "0", "--bitrate", "0"]).unwrap().capture;
        assert_eq!((capture.resolution, capture.fps, capture.bitrate), (None, None, None));
    }

    #[test]
    fn levels_are_named_as_usual() {
        let level = |text: &str| text.parse::<Level>().map(|level| (level.to_string(), level.idc()));
        assert_eq!(level("4.0"), Ok(("4".to_owned(), 40)));
        assert_eq!(level("4.1"), Ok(("4.1".to_owned(), 41)));
        assert!(level("6").is_err() && level("4.10").is_err());
        assert_eq!((Level::L4.idc(), Level::L4_2.idc(), Level::L5_1.idc()), (40, 42, 51));
    }

    #[test]
    fn a_named_file_pipeline_or_device_decides_an_automatic_source() {
        assert_eq!(config(&["--file", "a.mp4"]).unwrap().capture.source, SourceKind::File);
        assert_eq!(config(&["--pipeline", "videotestsrc"]).unwrap().capture.source, SourceKind::Pipeline);
        assert_eq!(config(&["--device", "1"]).unwrap().capture.source, SourceKind::Webcam);
    }

    #[test]
    fn a_wrong_value_is_refused_with_the_option_the_value_and_what_to_do() {
        for (args, message) in [
            (&["--width", "0"][..], "--width 0 --height 1080: give both, or 0 for both to take the source's own size"),
            (&["--width", "641"], "--width 641: must be even (4:2:0 video), try 642"),
            (&["--height", "8"], "--height 8: must be from 16 to 8192 pixels"),
            (&["--fps", "500"], "--fps 500: must be from 1 to 240, or 0 for the source's own"),
            (
                &["--source", "stdin", "--flip", "180"],
                "--flip: nothing is encoded here, the source's stream is sent untouched; leave it out",
            ),
            (&["--level", "3.1"], "--level 3.1: does not allow 1920x1080 at 30 fps; --level 4 does"),
            (&["--keyframe-interval", "0"], "--keyframe-interval 0: must be from 0.1 to 300 seconds"),
            (&["--bitrate", "5"], "--bitrate 5: must be from 50 to 500000 kbit/s, or 0 for auto"),
            (&["--source", "file"], "--source file: needs --file FILE"),
            (
                &["--source", "pipeline"],
                "--source pipeline: needs --pipeline DESCRIPTION, as \"videotestsrc is-live=true\"",
            ),
            (&["--source", "test", "--file", "a"], "--file a: needs --source file, but --source is test"),
            (&["--file-passthrough"], "--file-passthrough: needs --source file and --file FILE, but --source is auto"),
            (&["--source", "rtsp"], "--source rtsp: needs --url URL, as rtsp://10.0.0.3/stream"),
            (
                &["--url", "rtsp://admin:secret@:99999/x"],
                "--url: give an address as rtsp://USER:PASSWORD@10.0.0.3/stream (empty host)",
            ),
            (&["--url", "http://a/"], "--url http://a/: give the address of an RTSP camera, as rtsp://10.0.0.3/stream"),
            (
                &["--url", "rtsp://a/", "--camera-certificate", "any"],
                "--camera-certificate: needs --url rtsps://..., other addresses have no certificate",
            ),
            (&["--max-viewers", "0"], "--max-viewers 0: must be at least 1"),
            (
                &["--transport", "rtp", "--rtp-port", "5005"],
                "--rtp-port 5005: must be even, from 2 to 65532 (RTCP has the odd port above)",
            ),
            (
                &["--transport", "rtp", "--rtp-host", "0.0.0.0"],
                "--rtp-host 0.0.0.0: give the address of a receiver, or a multicast group as 239.255.0.1",
            ),
            (
                &["--transport", "rtp", "--rtp-host", "10.0.0.1,10.0.0.1"],
                "--rtp-host: an address is given twice, and its receivers would get each packet twice",
            ),
            (
                &["--transport", "rtp", "--rtp-keyframe-interval", "0"],
                "--rtp-keyframe-interval 0: must be from 0.1 to 60 seconds",
            ),
            (
                &["--transport", "rtp", "--rtp-fec", "101"],
                "--rtp-fec 101: must be from 1 to 100 percent, or 0 for keyframes alone",
            ),
            (
                &["--rtsp-path", "cam"],
                "--rtsp-path \"cam\": give a path as /cam, 64 bytes at most, of letters, digits, and - _ . /",
            ),
            (&["--user", "a"], "--user a: needs --password, or the variable ROV_PASSWORD"),
            (&["--password", "a"], "--password (or the variable ROV_PASSWORD): needs --user"),
            (&["--rtsp-path", "/mjpeg"], "--rtsp-path /mjpeg: /mjpeg is where MJPEG is served, take another"),
            (&["--rtsp-basic-auth"], "--rtsp-basic-auth: needs --user and --password"),
            (
                &["--transport", "webrtc", "--user", "pilot", "--password", "deep"],
                "--user: only RTSP asks for a password: leave it out, or add rtsp to --transport",
            ),
            (
                &["--source", "publish", "--transport", "webrtc"],
                "--source publish: streams are published by RTSP: add rtsp to --transport",
            ),
            (&["--source", "test", "--device", "0"], "--device 0: needs --source webcam or csi, but --source is test"),
            (&["--stun", "example.org"], "--stun example.org: give a URL of the form stun:HOST[:PORT]"),
            (
                &["--public-address", "0.0.0.0"],
                "--public-address \"0.0.0.0\": give the IPv4 address that viewers reach, as 10.0.0.2, or with the UDP \
                 port, as 10.0.0.2:40000",
            ),
            (
                &["--allow-host", "http://rov.lan"],
                "--allow-host \"http://rov.lan\": give a host name alone, as rov.lan, without http:// and port",
            ),
            (
                &["--allow-origin", "*"],
                "--allow-origin \"*\": give scheme, host and port of the page, as http://10.0.0.9:3000 (one for each; \
                 there is no wildcard)",
            ),
            (
                &["--discovery-port", "0"],
                "--discovery-port 0: clients must know the port, give one from 1 to 65535, or --no-discovery",
            ),
        ] {
            assert_eq!(config(args).unwrap_err().0, message);
        }
    }

    #[test]
    fn origins_and_addresses_are_kept_in_one_form() {
        let config = config(&[
            "--allow-origin",
            "HTTP://Dash.Example:80/",
            "--allow-host",
            "Rov.Lan.",
            "--public-address",
            "10.0.0.2",
            "--public-address",
            "10.0.0.3:40000",
        ])
        .unwrap();
        assert_eq!(
            (config.allow_origins[0].as_str(), config.allow_hosts[0].as_str()),
            ("http://dash.example", "rov.lan")
        );
        assert_eq!(
            config.public_addresses.iter().map(|address| address.to_string()).collect::<Vec<_>>(),
            ["10.0.0.2:0", "10.0.0.3:40000"]
        );
    }

    #[test]
    fn a_name_that_viewers_could_not_find_is_refused() {
        let longest = "é".repeat(32);
        assert_eq!(config(&["--name", &longest]).unwrap().name, longest);
        assert_eq!(config(&["--name", " rov 1 "]).unwrap().name, "rov 1");
        let long = config(&["--name", &"é".repeat(33)]).unwrap_err().0;
        assert!(long.contains("has 66 bytes, must have 1 to 64"), "{long}");
        for name in ["", "  ", "a\u{7}b", "a\u{202e}b"] {
            let refused = config(&["--name", name]).unwrap_err().0;
            assert!(refused.starts_with("--name "), "{name:?}: {refused}");
        }
    }

    #[test]
    fn an_address_that_media_cannot_use_is_refused() {
        for host in ["::1", "::", "fe80::1"] {
            let refused = config(&["--host", host]).unwrap_err().0;
            assert!(refused.starts_with(&format!("--host {host}: media and discovery are IPv4 only")), "{refused}");
        }
        assert!(config(&["--host", "127.0.0.1"]).is_ok());
    }

    #[test]
    fn the_automatic_bitrate_follows_the_stated_formula() {
        let kbps = |w, h, fps, max| auto_bitrate(Codec::H264, Resolution::new(w, h), Fps::whole(fps), max).kbps();
        assert_eq!(auto_bitrate(Codec::H265, Resolution::new(1920, 1080), Fps::whole(30), false).kbps(), 9_000);
        assert_eq!(kbps(1920, 1080, 30, false), 15_000);
        assert_eq!(kbps(1920, 1080, 30, true), 30_000);
        assert_eq!(kbps(640, 480, 30, false), 3_582);
        assert_eq!(kbps(3840, 2160, 60, false), 71_352);
        assert_eq!(kbps(3840, 2160, 60, true), 100_000);
        assert_eq!(kbps(16, 16, 1, false), 500);
    }
}
