//! The validated configuration, and the defaults of what was not given. Everything behind it may rely on what
//! `validate` states; nothing here looks at the machine (which cameras, which encoders), as that changes while the
//! server runs.

mod addresses;
mod choices;
mod pip;
mod summary;
#[cfg(test)]
mod tests;

use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use rov_common::api::Alignment;
pub use rov_common::camera::{CameraUrl, Credentials, Trust};
use rov_common::codec::Codec;
use rov_common::discovery::clean;
use rov_common::units::{Bitrate, Fps, Resolution};
use url::Url;

use crate::cli::{AlignmentOptions, CameraOptions, MachineOptions, StreamOptions, Switch};
use crate::config_file::{self, Lines, Options};
use crate::http;
use crate::identity;
use crate::pipeline::Found;
use crate::rate_control::Pilot;
use crate::rest::LINGER;

use addresses::Misnamed;
pub use choices::{
    EncoderChoice, Flip, Level, Position, Preset, Profile, SecondStream, SizeChoice, SourceKind, Transport,
};
use pip::Misset;
pub use pip::{Layout, Part, PipConfig};

/// The lowest bit rate without `--min-bitrate`: a picture to steer by in 640x360.
pub const DEFAULT_FLOOR: Bitrate = Bitrate::from_kbps(300);

/// In the administratively scoped range (RFC 2365), which does not leave a site.
const RTP_GROUP: Ipv4Addr = Ipv4Addr::new(239, 255, 0, 1);
const DEFAULT_SIZE: Resolution = Resolution::new(1920, 1080);
const TRANSPORTS: [Transport; 2] = [Transport::Webrtc, Transport::Rtsp];

/// The most that `--all-cameras` takes.
pub const MAX_CAMERAS: usize = 8;

/// Of the figures of [`Alignment`].
const ALIGNMENT_MS: RangeInclusive<u32> = 1..=500;

/// The longest name that an announcement carries, in bytes of UTF-8.
const MAX_NAME: usize = 64;

/// A camera, and the encodes of its pictures.
#[derive(Clone, Debug, PartialEq)]
pub struct CameraConfig {
    /// A part of URLs, and no other camera's.
    pub name: String,
    pub source: SourceConfig,
    /// Another camera shows its pictures, for which they have to be raw.
    pub is_part: bool,
    /// One at least.
    pub streams: Vec<StreamConfig>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct StreamConfig {
    /// A part of URLs, and no other stream's of the camera.
    pub name: String,
    pub encode: EncodeConfig,
    /// Of RTP, as `RtpConfig::port`; None: counted up from that.
    pub rtp_port: Option<u16>,
    /// The encoder does not rest while nobody looks.
    pub always_encode: bool,
    /// The bit rate follows the pilot's link, and is never lower, unless the ceiling is. None: it stays as it is.
    pub adaptive_floor: Option<Bitrate>,
}

/// What is captured.
#[derive(Clone, Debug, PartialEq)]
pub struct SourceConfig {
    /// Never `Auto` when a file, a pipeline or a device was named.
    pub kind: SourceKind,
    pub device: Option<String>,
    /// The paths of the camera that was taken before: no other one is. See `pipeline::Found`.
    pub taken: Vec<String>,
    /// Set when `kind` is `File`.
    pub file: Option<PathBuf>,
    pub file_passthrough: bool,
    /// Start the file again at its end.
    pub looping: bool,
    /// Set when `kind` is `Pipeline`.
    pub pipeline: Option<String>,
    /// Set when `kind` is `Rtsp`.
    pub url: Option<CameraUrl>,
    /// Set when `kind` is `Pip`.
    pub pip: Option<PipConfig>,
    /// Of its certificate, by `rtsps`.
    pub camera_certificate: Trust,
    pub flip: Flip,
    /// A camera whose picture does not change for so long is said to be frozen; None: that is not looked at.
    pub frozen_after: Option<Duration>,
}

impl Default for SourceConfig {
    fn default() -> Self {
        Self {
            kind: SourceKind::Auto,
            device: None,
            taken: Vec::new(),
            file: None,
            file_passthrough: false,
            looping: true,
            pipeline: None,
            url: None,
            pip: None,
            camera_certificate: Trust::System,
            flip: Flip::None,
            frozen_after: Some(Duration::from_secs(5)),
        }
    }
}

/// How it is encoded.
#[derive(Clone, Debug, PartialEq)]
pub struct EncodeConfig {
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
    /// The rate control makes no picture smaller.
    pub fixed_size: bool,
    pub max_quality: bool,
    /// The encoder rests when nobody has looked for so long. No option.
    pub rest_after: Duration,
}

impl Default for EncodeConfig {
    fn default() -> Self {
        Self {
            resolution: Some(DEFAULT_SIZE),
            fps: Some(Fps::whole(30)),
            bitrate: None,
            codec: Codec::H264,
            encoder: EncoderChoice::Auto,
            profile: Profile::Baseline,
            low_latency: true,
            preset: None,
            keyframe_interval: None,
            level: None,
            fixed_size: false,
            max_quality: false,
            rest_after: LINGER,
        }
    }
}

/// Plain RTP to whoever listens.
#[derive(Clone, Debug, PartialEq)]
pub struct RtpConfig {
    /// Multicast groups and unicast addresses; one at least, none twice.
    pub hosts: Vec<Ipv4Addr>,
    /// From which those of the streams are counted: even, 2 to 65532; RTCP goes to the port above, repair packets to
    /// the second above.
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
    /// One at least.
    pub cameras: Vec<CameraConfig>,
    /// All cameras that are found are taken: each gets the settings of the single `auto` camera of the configuration.
    pub all_cameras: bool,
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
    /// What all streams to one viewer's address may have together.
    pub tether: Option<Bitrate>,
    /// What clients are told.
    pub alignment: Alignment,
    /// Where the server's key is kept; None: nowhere.
    pub state_dir: Option<PathBuf>,
    /// No option.
    pub http_limits: http::Limits,
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
/// 15 Mbit/s for 1080p30 is 0.24 bit for each pixel, generous for the murk and particles under water. The exponent is
/// below one because neighbouring pixels and frames resemble each other the more, the more there are of them: 640x480
/// at 30 gets 3.6 Mbit/s (0.39 bit for each pixel), 4K60 71 Mbit/s (0.14).
pub fn auto_bitrate(codec: Codec, resolution: Resolution, fps: Fps, max_quality: bool) -> Bitrate {
    let reference = 1920.0 * 1080.0 * 30.0;
    let load = resolution.pixels() as f64 * fps.as_f64() / reference;
    let codec_rate = if codec == Codec::H265 { H265_RATE } else { 1.0 };
    let kbps = 15_000.0 * load.powf(0.75) * codec_rate * if max_quality { 2.0 } else { 1.0 };
    Bitrate::from_kbps(kbps.clamp(500.0, 100_000.0).round() as u32)
}

#[cfg(test)]
impl CameraConfig {
    pub fn usual() -> Self {
        let encode = EncodeConfig::default();
        let stream = StreamConfig {
            name: "stream1".to_owned(),
            encode,
            rtp_port: None,
            always_encode: false,
            adaptive_floor: None,
        };
        Self { name: "cam1".to_owned(), source: SourceConfig::default(), is_part: false, streams: vec![stream] }
    }

    pub fn with_source(mut self, change: impl FnOnce(&mut SourceConfig)) -> Self {
        change(&mut self.source);
        self
    }

    /// Changes the first stream.
    pub fn with_encode(mut self, change: impl FnOnce(&mut EncodeConfig)) -> Self {
        change(&mut self.streams[0].encode);
        self
    }
}

impl Config {
    /// # Errors
    /// Names the option, and where it stands in a file the line.
    pub fn new(options: &Options) -> Result<Config, ConfigError> {
        let machine = &options.machine;
        let transports = transports(&machine.options);
        let mut cameras: Vec<CameraConfig> = Vec::new();
        for (number, config_file::Camera { source, streams }) in (1..).zip(&options.cameras) {
            let name = source.options.name.clone().unwrap_or_else(|| format!("cam{number}"));
            if cameras.iter().any(|camera| camera.name == name) {
                let message = format!("name: two cameras have the name {name:?}, give each its own");
                return bad(options.at(Some(source.line_of("name")), &message));
            }
            let mut camera =
                CameraConfig { name, source: SourceConfig::default(), is_part: false, streams: Vec::new() };
            camera.source = SourceConfig::new(&source.options).map_err(located(options, &[&source.lines]))?;
            camera.source.pip = PipConfig::new(camera.source.kind, &source.options)
                .map_err(|Misset { key, message }| ConfigError(options.at(Some(source.line_of(key)), &message)))?;
            if camera.source.kind == SourceKind::Publish && !transports.contains(&Transport::Rtsp) {
                let message = "--source publish: streams are published by RTSP: add rtsp to --transport";
                return bad(options.locate(message, &[&source.lines, &machine.lines]));
            }
            let passed = camera.source.is_passed_through();
            for (number, stream) in (1..).zip(streams) {
                let is_decoded = passed && number > 1;
                if is_decoded && !stream.options.says_what_to_encode() {
                    let message = format!(
                        "--source {}: its stream is passed through untouched, and a further one is encoded from it: give \
                         width and height, fps or bitrate for that, or leave it out; a second stream of the camera's \
                         own can be a [[camera]] of its own",
                        camera.source.kind.name()
                    );
                    return bad(options.at(Some(stream.line), &message));
                }
                let name = stream.options.name.clone().unwrap_or_else(|| format!("stream{number}"));
                if camera.streams.iter().any(|stream| stream.name == name) {
                    let message = format!("name: two streams of a camera have the name {name:?}, give each its own");
                    return bad(options.at(Some(stream.line_of("name")), &message));
                }
                let config = StreamConfig::new(name, &camera.source, is_decoded, &stream.options);
                camera.streams.push(config.map_err(located(options, &[&stream.lines, &source.lines, &machine.lines]))?);
            }
            if let Some(second) = source.options.stream2 {
                let name = "stream2".to_owned();
                if camera.streams.iter().any(|stream| stream.name == name) {
                    let message = "--stream2: the camera has a stream of this name already, leave one of them out";
                    return bad(options.locate(message, &[&source.lines]));
                }
                let config = StreamConfig::new(name, &camera.source, passed, &second.options(&streams[0].options));
                let config = config.map_err(|error| ConfigError(format!("--stream2: {error}")));
                camera.streams.push(config.map_err(located(options, &[&source.lines]))?);
            }
            let conflict = |other: &CameraConfig| camera.source.conflict(&other.source);
            if let Some(message) = cameras.iter().find_map(conflict) {
                let line = source.lines.get("device").or(source.lines.get("source")).unwrap_or(&source.line);
                return bad(options.at(Some(*line), message));
            }
            cameras.push(camera);
        }
        let all_cameras = options.cameras.iter().find(|camera| camera.source.options.all_cameras.unwrap_or_default());
        if let (Some(camera), [_, _, ..]) = (all_cameras, &cameras[..]) {
            let message = "--all-cameras: takes those of the other [[camera]] too, leave it or them out";
            return bad(options.locate(message, &[&camera.source.lines]));
        }
        pip::join(&mut cameras).map_err(|(camera, Misset { key, message })| {
            ConfigError(options.at(Some(options.cameras[camera].source.line_of(key)), &message))
        })?;
        let mut config =
            Self::with(&machine.options, transports, cameras).map_err(located(options, &[&machine.lines]))?;
        config.alignment = alignment(&machine.options.alignment)
            .map_err(|ConfigError(message)| ConfigError(options.at(Some(machine.line_of("alignment")), &message)))?;
        let config = Self { all_cameras: all_cameras.is_some(), ..config };
        config.check_names().map_err(|Misnamed { camera, stream, message }| {
            let camera = &options.cameras[camera];
            let of_stream = stream.and_then(|at| camera.streams.get(at)).map(|stream| stream.line_of("name"));
            ConfigError(options.at(Some(of_stream.unwrap_or(camera.source.line_of("name"))), &message))
        })?;
        Ok(config)
    }

    fn with(
        options: &MachineOptions,
        transports: &[Transport],
        cameras: Vec<CameraConfig>,
    ) -> Result<Config, ConfigError> {
        let name = match &options.name {
            Some(name) => name.trim().to_owned(),
            None => hostname::get().ok().map(|name| clean(&name.to_string_lossy(), MAX_NAME)).unwrap_or_default(),
        };
        // A host without a name is no reason to refuse; an empty --name is one.
        let name = if name.is_empty() && options.name.is_none() { "rov".to_owned() } else { name };
        let wants = |transport| transports.contains(&transport);
        // Who sets a password must not believe that it is asked for.
        if options.user.is_some() && !wants(Transport::Rtsp) {
            return bad("--user: only RTSP asks for a password: leave it out, or add rtsp to --transport");
        }
        let discovery = !options.no_discovery.unwrap_or_default();
        let config = Config {
            name,
            cameras,
            all_cameras: false,
            host: options.host.unwrap_or(Ipv4Addr::UNSPECIFIED.into()),
            signal_port: options.signal_port.unwrap_or(8080),
            webrtc: wants(Transport::Webrtc),
            rtp: if wants(Transport::Rtp) { Some(rtp(options)?) } else { None },
            rtsp: if wants(Transport::Rtsp) { Some(rtsp(options)?) } else { None },
            max_viewers: options.max_viewers.unwrap_or(16),
            media_port: options.media_port.unwrap_or(0),
            discovery_port: discovery.then(|| options.discovery_port.unwrap_or(5003)),
            interfaces: options.interface.clone(),
            stun: options.stun.clone(),
            public_addresses: options
                .public_address
                .iter()
                .map(|text| public_address(text))
                .collect::<Result<_, _>>()?,
            allow_hosts: options.allow_host.iter().map(|name| allow_host(name)).collect::<Result<_, _>>()?,
            allow_origins: options.allow_origin.iter().map(|text| allow_origin(text)).collect::<Result<_, _>>()?,
            pilot: options.pilot.unwrap_or_default(),
            alignment: Alignment::default(),
            tether: options.tether.map(Bitrate::from_kbps).filter(|tether| tether.kbps() > 0),
            state_dir: options.state_dir.clone().or_else(|| identity::default_folder(|name| std::env::var(name).ok())),
            http_limits: http::Limits::default(),
        };
        config.validate()?;
        Ok(config)
    }

    /// For `--all-cameras`, with those that were found, which all have the same streams; as it is where none was.
    ///
    /// # Errors
    /// Where there are not enough addresses for all.
    pub fn with_found(mut self, found: &[Found]) -> Result<Self, ConfigError> {
        let (usual, taken) = (self.cameras[0].clone(), &found[..found.len().min(MAX_CAMERAS)]);
        if taken.is_empty() {
            return Ok(self);
        }
        let camera = |found: &Found| CameraConfig {
            name: found.name(),
            source: SourceConfig {
                kind: found.kind,
                device: Some(found.device.clone()),
                taken: found.known_by.clone(),
                ..usual.source.clone()
            },
            is_part: false,
            streams: usual.streams.clone(),
        };
        self.cameras = taken.iter().map(camera).collect();
        self.check_names().map_err(|misnamed| ConfigError(format!("--all-cameras: {}", misnamed.message)))?;
        self.validate()?;
        Ok(self)
    }

    /// Each with its camera, in order.
    pub fn streams(&self) -> impl Iterator<Item = (&CameraConfig, &StreamConfig)> {
        self.cameras.iter().flat_map(|camera| camera.streams.iter().map(move |stream| (camera, stream)))
    }

    /// The first stream of the first camera, which there always is.
    pub fn default_stream(&self) -> &StreamConfig {
        &self.cameras[0].streams[0]
    }

    /// Checks what the fields promise. Looks at no file and no device.
    fn validate(&self) -> Result<(), ConfigError> {
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
                "--host {}: media and discovery are IPv4 only, give an IPv4 address of this machine, or 0.0.0.0 for \
                 all",
                self.host
            ));
        }
        self.validate_addresses()?;
        if let Some(tether) = self.tether
            && !(100..=1_000_000).contains(&tether.kbps())
        {
            return bad(format!("--tether {}: must be from 100 to 1000000 kbit/s, or 0 for none", tether.kbps()));
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
        Ok(())
    }
}

fn located<'a>(options: &'a Options, tables: &'a [&'a Lines]) -> impl FnOnce(ConfigError) -> ConfigError {
    |ConfigError(message)| ConfigError(options.locate(&message, tables))
}

fn transports(options: &MachineOptions) -> &[Transport] {
    if options.transport.is_empty() { &TRANSPORTS } else { &options.transport }
}

impl SourceConfig {
    fn new(options: &CameraOptions) -> Result<Self, ConfigError> {
        // A thing that was named is what the user wants to see, so that `--source` is rarely needed.
        let kind = match options.source.unwrap_or_default() {
            SourceKind::Auto if options.file.is_some() => SourceKind::File,
            SourceKind::Auto if options.pipeline.is_some() => SourceKind::Pipeline,
            SourceKind::Auto if options.device.is_some() => SourceKind::Webcam,
            SourceKind::Auto if options.url.is_some() => SourceKind::Rtsp,
            kind => kind,
        };
        let usual = Self::default();
        let frozen_after = options.frozen_after.map(|seconds| Duration::from_secs(seconds.into()));
        let config = Self {
            kind,
            device: options.device.clone(),
            taken: Vec::new(),
            file: options.file.clone(),
            file_passthrough: options.file_passthrough.unwrap_or(usual.file_passthrough),
            looping: options.no_loop.map_or(usual.looping, |no_loop| !no_loop),
            pipeline: options.pipeline.clone(),
            url: options.url.as_deref().map(camera_url).transpose()?,
            pip: None,
            camera_certificate: options.camera_certificate.clone().unwrap_or(usual.camera_certificate),
            flip: options.flip.unwrap_or(usual.flip),
            frozen_after: frozen_after.or(usual.frozen_after).filter(|time| !time.is_zero()),
        };
        config.validate()?;
        if options.all_cameras.unwrap_or_default() && kind != SourceKind::Auto {
            return bad(format!("--all-cameras: needs --source auto and no --device, but --source is {}", kind.name()));
        }
        Ok(config)
    }
}

impl StreamConfig {
    /// `is_decoded`: it is made of a stream that is passed through.
    fn new(
        name: String,
        source: &SourceConfig,
        is_decoded: bool,
        options: &StreamOptions,
    ) -> Result<Self, ConfigError> {
        let mut encode = EncodeConfig::new(options)?;
        if is_decoded {
            // What is not given is the source's, and not what a camera is asked for.
            encode.resolution = encode.resolution.filter(|_| options.width.or(options.height).is_some());
            encode.fps = encode.fps.filter(|_| options.fps.is_some());
        }
        let is_adaptive = options.adaptive.unwrap_or_default() == Switch::On;
        let floor = options.min_bitrate.map(Bitrate::from_kbps);
        if let (true, Some(floor), Some(ceiling)) = (is_adaptive, floor, encode.bitrate)
            && floor > ceiling
        {
            return bad(format!("--min-bitrate {}: is above --bitrate {}", floor.kbps(), ceiling.kbps()));
        }
        encode.validate(source, is_decoded)?;
        let always_encode = options.always_encode.unwrap_or_default();
        let rtp_port = options.rtp_port.map(rtp_port).transpose()?;
        Ok(Self {
            name,
            encode,
            rtp_port,
            always_encode,
            adaptive_floor: is_adaptive.then(|| floor.unwrap_or(DEFAULT_FLOOR)),
        })
    }
}

impl EncodeConfig {
    fn new(options: &StreamOptions) -> Result<Self, ConfigError> {
        let usual = Self::default();
        let size = (options.width.unwrap_or(DEFAULT_SIZE.width), options.height.unwrap_or(DEFAULT_SIZE.height));
        let low_latency = match (options.low_latency, options.no_low_latency) {
            (Some(low), Some(not_low)) if low == not_low => {
                return bad("--low-latency: contradicts --no-low-latency, leave one of them out");
            }
            (low, not_low) => low.or(not_low.map(|not_low| !not_low)).unwrap_or(usual.low_latency),
        };
        Ok(Self {
            resolution: (size != (0, 0)).then(|| Resolution::new(size.0, size.1)),
            fps: options.fps.or(usual.fps).filter(|fps| fps.num > 0),
            bitrate: options.bitrate.map(Bitrate::from_kbps).filter(|bitrate| bitrate.kbps() > 0),
            codec: options.codec.unwrap_or(usual.codec),
            encoder: match options.encoder.as_deref() {
                None | Some("auto") => EncoderChoice::Auto,
                Some(element) => EncoderChoice::Element(element.to_owned()),
            },
            profile: options.profile.unwrap_or(usual.profile),
            low_latency,
            preset: options.preset,
            keyframe_interval: options.keyframe_interval.map(keyframe_interval).transpose()?,
            level: options.level,
            fixed_size: options.size.unwrap_or_default() == SizeChoice::Fixed,
            max_quality: options.max_quality.unwrap_or(usual.max_quality),
            rest_after: usual.rest_after,
        })
    }
}

fn alignment(options: &AlignmentOptions) -> Result<Alignment, ConfigError> {
    let usual = Alignment::default();
    let given = Alignment {
        enabled: options.enabled.unwrap_or(usual.enabled),
        method: options.method.unwrap_or(usual.method),
        max_latency_ms: options.max_latency_ms.unwrap_or(usual.max_latency_ms),
        sync_tolerance_ms: options.sync_tolerance_ms.unwrap_or(usual.sync_tolerance_ms),
    };
    let figures = [("max_latency_ms", given.max_latency_ms), ("sync_tolerance_ms", given.sync_tolerance_ms)];
    match figures.into_iter().find(|(_, ms)| !ALIGNMENT_MS.contains(ms)) {
        Some((key, ms)) => {
            let (least, most) = ALIGNMENT_MS.into_inner();
            bad(format!("alignment: {key} = {ms}: must be from {least} to {most} milliseconds"))
        }
        None => Ok(given),
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

fn rtp_port(port: u16) -> Result<u16, ConfigError> {
    // RFC 3550 section 11: RTP has an even port and RTCP the odd one above.
    if !(2..=65_532).contains(&port) || !port.is_multiple_of(2) {
        return bad(format!("--rtp-port {port}: must be even, from 2 to 65532 (RTCP has the odd port above)"));
    }
    Ok(port)
}

fn rtp(options: &MachineOptions) -> Result<RtpConfig, ConfigError> {
    let hosts = if options.rtp_host.is_empty() { vec![RTP_GROUP] } else { options.rtp_host.clone() };
    if hosts.iter().enumerate().any(|(at, host)| hosts[..at].contains(host)) {
        return bad("--rtp-host: an address is given twice, and its receivers would get each packet twice");
    }
    if let Some(host) = hosts.iter().find(|host| host.is_unspecified() || host.is_broadcast()) {
        return bad(format!("--rtp-host {host}: give the address of a receiver, or a multicast group as 239.255.0.1"));
    }
    let port = rtp_port(options.rtp_port.unwrap_or(5004))?;
    let interval = options.rtp_keyframe_interval.unwrap_or(1.0);
    if !(0.1..=60.0).contains(&interval) {
        return bad(format!("--rtp-keyframe-interval {interval}: must be from 0.1 to 60 seconds"));
    }
    let fec = options.rtp_fec.unwrap_or(0);
    if fec > 100 {
        return bad(format!("--rtp-fec {fec}: must be from 1 to 100 percent, or 0 for keyframes alone"));
    }
    Ok(RtpConfig {
        hosts,
        port,
        ttl: options.rtp_ttl.unwrap_or(1),
        keyframe_interval: Duration::from_secs_f64(interval),
        fec_percent: (fec > 0).then_some(fec),
    })
}

fn rtsp(options: &MachineOptions) -> Result<RtspConfig, ConfigError> {
    let mut paths: Vec<String> = RTSP_PATHS.map(str::to_owned).into();
    for path in &options.rtsp_path {
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
    let credentials = match (&options.user, &options.password) {
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
        (Some(user), None) => {
            // Behind it stands a password, as curl takes it.
            let name = user.split(':').next().unwrap_or_default();
            return bad(format!("--user {name}: needs --password, or the variable ROV_PASSWORD"));
        }
        (None, Some(_)) => return bad("--password (or the variable ROV_PASSWORD): needs --user"),
    };
    let basic_auth = options.rtsp_basic_auth.unwrap_or_default();
    if basic_auth && credentials.is_none() {
        return bad("--rtsp-basic-auth: needs --user and --password");
    }
    Ok(RtspConfig { port: options.rtsp_port.unwrap_or(8554), paths, credentials, basic_auth })
}

impl SourceConfig {
    /// Why it and another one cannot be open at once.
    fn conflict(&self, other: &Self) -> Option<&'static str> {
        use SourceKind::{Auto, Csi, Publish, Stdin, Webcam};
        match (self.kind, other.kind) {
            (Stdin, Stdin) => Some("--source stdin: another camera reads it already, give this one another source"),
            (Publish, Publish) => Some("--source publish: another camera is it already, give this one another source"),
            (Auto, Auto | Webcam | Csi) | (Webcam | Csi, Auto) => {
                Some("--source auto: takes any camera, another one's too: give each [[camera]] its source and device")
            }
            (Webcam, Webcam) | (Csi, Csi)
                if self.device.is_none() || other.device.is_none() || self.device == other.device =>
            {
                Some("--device: two cameras may take the same one: give each [[camera]] its own device")
            }
            _ => None,
        }
    }

    /// Whether the source's stream is sent as it comes.
    pub fn is_passed_through(&self) -> bool {
        self.file_passthrough || matches!(self.kind, SourceKind::Stdin | SourceKind::Rtsp | SourceKind::Publish)
    }

    fn validate(&self) -> Result<(), ConfigError> {
        let source = self.kind.name();
        if self.kind == SourceKind::File && self.file.is_none() {
            return bad("--source file: needs --file FILE");
        }
        if self.kind != SourceKind::File {
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
        if self.kind == SourceKind::Pipeline && self.pipeline.as_deref().is_none_or(|text| text.trim().is_empty()) {
            return bad("--source pipeline: needs --pipeline DESCRIPTION, as \"videotestsrc is-live=true\"");
        }
        if self.kind != SourceKind::Pipeline
            && let Some(text) = &self.pipeline
        {
            return bad(format!("--pipeline '{text}': needs --source pipeline, but --source is {source}"));
        }
        match (&self.url, self.kind) {
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
        if !matches!(self.kind, SourceKind::Webcam | SourceKind::Csi)
            && let Some(device) = &self.device
        {
            return bad(format!("--device {device}: needs --source webcam or csi, but --source is {source}"));
        }
        Ok(())
    }
}

impl EncodeConfig {
    fn validate(&self, source: &SourceConfig, is_decoded: bool) -> Result<(), ConfigError> {
        self.validate_options(source, is_decoded)?;
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
    pub fn encoding_option(&self, source: &SourceConfig) -> Option<&'static str> {
        let given = [
            ("--preset", self.preset.is_some()),
            ("--keyframe-interval", self.keyframe_interval.is_some()),
            ("--level", self.level.is_some()),
            ("--flip", source.flip != Flip::None),
        ];
        given.into_iter().find_map(|(option, given)| given.then_some(option))
    }

    fn validate_options(&self, source: &SourceConfig, is_decoded: bool) -> Result<(), ConfigError> {
        if let Some(option) = self.encoding_option(source).filter(|_| source.is_passed_through() && !is_decoded) {
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
}
