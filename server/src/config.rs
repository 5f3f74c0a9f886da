//! The validated configuration, and the defaults of what was not given. Everything behind it may rely on what
//! `validate` states; nothing here looks at the machine (which cameras, which encoders), as that changes while the
//! server runs.

mod addresses;
mod camera;
mod ice;
mod logins;
mod outputs;
mod overlay;
mod pip;
mod revise;
mod summary;
mod telemetry;
#[cfg(test)]
mod tests;

use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use rov_common::api::{Alignment, IceServer};
pub use rov_common::camera::{CameraUrl, Credentials, Trust};
use rov_common::codec::Codec;
use rov_common::discovery::clean;
use rov_common::units::Bitrate;

pub use crate::choices::{
    EncoderChoice, Flip, Level, Position, Preset, Profile, SecondStream, SizeChoice, SourceKind, Timestamp, Transport,
};
use crate::cli::{AlignmentOptions, MachineOptions};
use crate::config_file::{self, Lines, Options, Table, options_in};
use crate::http;
use crate::identity;
use crate::packetize::jpeg::LARGEST;
use crate::pipeline::Found;
use crate::rate_control::Pilot;
use crate::users::LoginConfig;

use addresses::Misnamed;
pub use camera::{
    BITRATES, CameraConfig, EncodeConfig, H265_RATE, KEYFRAME_INTERVALS, RATES, REST_AFTER, SourceConfig, StreamConfig,
    auto_bitrate,
};
use ice::ice_servers;
pub use ice::{MAX_ICE_SERVERS, check_ice_server, ice_options, links};
pub use outputs::{MJPEG_PATH, RTSP_PATHS, RecordConfig, RtpConfig, RtspConfig, TlsConfig, is_mjpeg};
use outputs::{allow_host, allow_origin, public_address, record, rtp, rtsp, tls};
pub use overlay::{OverlayConfig, PLACES};
use pip::Misset;
pub use pip::{Layout, MAX_BORDER, Part, PipConfig, SCALES};
pub use revise::OptionsOf;
pub use telemetry::{FieldConfig, TelemetryConfig, USUAL_JSON, USUAL_MAVLINK};

/// The lowest bit rate without `--min-bitrate`: a picture to steer by in 640x360.
pub const DEFAULT_FLOOR: Bitrate = Bitrate::from_kbps(300);

/// Without `--transport`.
pub const TRANSPORTS: [Transport; 2] = [Transport::Webrtc, Transport::Rtsp];

/// The most that `--all-cameras` takes.
pub const MAX_CAMERAS: usize = 8;

/// The table of a file that says it.
const ALIGNMENT: &str = "alignment";
/// Of the figures of [`Alignment`].
pub const ALIGNMENT_MS: RangeInclusive<u32> = 1..=500;
/// What a link to a viewer may carry, in kbit/s.
pub const TETHERS: RangeInclusive<u32> = 100..=1_000_000;

/// The longest name that an announcement carries, in bytes of UTF-8.
const MAX_NAME: usize = 64;

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
    /// None: nothing can be recorded.
    pub record: Option<RecordConfig>,
    /// What is kept in memory of each stream, for clips; None: nothing.
    pub ring: Option<Duration>,
    /// By WebRTC, by RTSP, and by MJPEG; at least one.
    pub max_viewers: u16,
    /// 0: any free port.
    pub media_port: u16,
    /// Whether ONVIF is served; by WS-Discovery it is found unless there is no discovery.
    pub onvif: bool,
    /// None: no discovery.
    pub discovery_port: Option<u16>,
    /// Empty: every suitable one.
    pub interfaces: Vec<String>,
    /// A `stun:` URL.
    pub stun: Option<String>,
    /// What browsers are told.
    pub ice_servers: Vec<IceServer>,
    /// Where viewers reach the media socket, beside this machine's own addresses; port 0: that of the socket.
    pub public_addresses: Vec<SocketAddrV4>,
    /// None: HTTP in clear.
    pub tls: Option<TlsConfig>,
    /// Who may watch and who may change things.
    pub logins: LoginConfig,
    /// Names by which HTTP may be asked, beside those of this machine.
    pub allow_hosts: Vec<String>,
    /// Of pages that may use HTTP, as browsers write them: `http://10.0.0.9:3000`.
    pub allow_origins: Vec<String>,
    pub pilot: Pilot,
    /// What all streams to one viewer's address may have together.
    pub tether: Option<Bitrate>,
    /// What clients are told.
    pub alignment: Alignment,
    pub telemetry: TelemetryConfig,
    /// Where the server's key is kept; None: nowhere.
    pub state_dir: Option<PathBuf>,
    /// No option.
    pub http_limits: http::Limits,
    /// What it was made of, but for its cameras.
    pub given: Table<MachineOptions>,
}

/// A message that names the option and the value, and says what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(pub String);

impl ConfigError {
    /// The names of the options that it is about.
    pub fn options(&self) -> impl Iterator<Item = &str> {
        options_in(&self.0)
    }
}

fn bad<T>(message: impl Into<String>) -> Result<T, ConfigError> {
    Err(ConfigError(message.into()))
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
            let mut camera = CameraConfig {
                name,
                source: SourceConfig::default(),
                is_part: false,
                streams: Vec::new(),
                given: source.clone(),
            };
            camera.source = SourceConfig::new(&source.options).map_err(located(options, &[&source.lines]))?;
            camera.source.pip = PipConfig::new(camera.source.kind, &source.options)
                .map_err(|Misset { key, message }| ConfigError(options.at(Some(source.line_of(key)), &message)))?;
            check_publish(&camera.source, transports).map_err(located(options, &[&source.lines, &machine.lines]))?;
            let passed = camera.source.is_passed_through();
            for (number, stream) in (1..).zip(streams) {
                let is_decoded = passed && number > 1;
                if is_decoded && !stream.options.says_what_to_encode() {
                    let message = format!(
                        "--source {}: its stream is passed through untouched, and a further one is encoded from it: \
                         give width and height, fps or bitrate for that, or leave it out; a second stream of the \
                         camera's own can be a [[camera]] of its own",
                        camera.source.kind.name()
                    );
                    return bad(options.at(Some(stream.line), &message));
                }
                let name = stream.options.name.clone().unwrap_or_else(|| format!("stream{number}"));
                if camera.streams.iter().any(|stream| stream.name == name) {
                    let message = format!("name: two streams of a camera have the name {name:?}, give each its own");
                    return bad(options.at(Some(stream.line_of("name")), &message));
                }
                let config = StreamConfig::new(name, &camera.source, is_decoded, stream);
                camera.streams.push(config.map_err(located(options, &[&stream.lines, &source.lines, &machine.lines]))?);
            }
            if let Some(second) = source.options.stream2 {
                let name = "stream2".to_owned();
                if camera.streams.iter().any(|stream| stream.name == name) {
                    let message = "--stream2: the camera has a stream of this name already, leave one of them out";
                    return bad(options.locate(message, &[&source.lines]));
                }
                let config = StreamConfig::new(name, &camera.source, passed, &streams[0].second(second));
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
        let config = Self::with(machine, transports, cameras);
        let mut config = config.map_err(|error| match error.0.starts_with(ALIGNMENT) {
            true => ConfigError(options.at(Some(machine.line_of(ALIGNMENT)), &error.0)),
            false => located(options, &[&machine.lines])(error),
        })?;
        config.logins = logins::logins(&machine.options, &options.users, transports).map_err(|(line, message)| {
            ConfigError(match line {
                Some(line) => options.at(Some(line), &message),
                None => options.locate(&message, &[&machine.lines]),
            })
        })?;
        logins::set_digest(&mut config.rtsp, &config.logins);
        let config = Self { all_cameras: all_cameras.is_some(), ..config };
        config.check_names().map_err(|Misnamed { camera, stream, message }| {
            let camera = &options.cameras[camera];
            let of_stream = stream.and_then(|at| camera.streams.get(at)).map(|stream| stream.line_of("name"));
            ConfigError(options.at(Some(of_stream.unwrap_or(camera.source.line_of("name"))), &message))
        })?;
        Ok(config)
    }

    fn with(
        given: &Table<MachineOptions>,
        transports: &[Transport],
        cameras: Vec<CameraConfig>,
    ) -> Result<Config, ConfigError> {
        let options = &given.options;
        if transports.is_empty() {
            return bad("--transport: give one at least of webrtc, rtp and rtsp");
        }
        let name = match &options.name {
            Some(name) => name.trim().to_owned(),
            None => hostname::get().ok().map(|name| clean(&name.to_string_lossy(), MAX_NAME)).unwrap_or_default(),
        };
        // A host without a name is no reason to refuse; an empty --name is one.
        let name = if name.is_empty() && options.name.is_none() { "rov".to_owned() } else { name };
        let wants = |transport| transports.contains(&transport);
        let discovery = !options.no_discovery.unwrap_or_default();
        let record = record(options)?;
        let mut cameras = cameras;
        for camera in &mut cameras {
            for (number, stream) in camera.streams.iter_mut().enumerate() {
                check_jpeg(&stream.encode, transports)?;
                stream.is_recorded = outputs::is_recorded(record.as_ref(), stream.recording, number == 0)?;
            }
        }
        let config = Config {
            name,
            cameras,
            all_cameras: false,
            host: options.host.unwrap_or(Ipv4Addr::UNSPECIFIED.into()),
            signal_port: options.signal_port.unwrap_or(8080),
            webrtc: wants(Transport::Webrtc),
            rtp: if wants(Transport::Rtp) { Some(rtp(options)?) } else { None },
            rtsp: if wants(Transport::Rtsp) { Some(rtsp(options)?) } else { None },
            record,
            ring: options.ring.unwrap_or_default().0,
            max_viewers: options.max_viewers.unwrap_or(16),
            media_port: options.media_port.unwrap_or(0),
            onvif: options.onvif.unwrap_or_default(),
            discovery_port: discovery.then(|| options.discovery_port.unwrap_or(5003)),
            interfaces: options.interface.clone(),
            stun: options.stun.clone(),
            ice_servers: ice_servers(&options.ice_server)?,
            public_addresses: options
                .public_address
                .iter()
                .map(|text| public_address(text))
                .collect::<Result<_, _>>()?,
            tls: tls(options)?,
            logins: LoginConfig::default(),
            allow_hosts: options.allow_host.iter().map(|name| allow_host(name)).collect::<Result<_, _>>()?,
            allow_origins: options.allow_origin.iter().map(|text| allow_origin(text)).collect::<Result<_, _>>()?,
            pilot: options.pilot.unwrap_or_default(),
            alignment: alignment(&options.alignment)?,
            telemetry: TelemetryConfig::new(options)?,
            tether: options.tether.map(Bitrate::from_kbps).filter(|tether| tether.kbps() > 0),
            state_dir: options.state_dir.clone().or_else(|| identity::default_folder(|name| std::env::var(name).ok())),
            http_limits: http::Limits::default(),
            given: given.clone(),
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
            given: usual.given.clone(),
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
            && !TETHERS.contains(&tether.kbps())
        {
            let (kbps, (least, most)) = (tether.kbps(), TETHERS.into_inner());
            return bad(format!("--tether {kbps}: must be from {least} to {most} kbit/s, or 0 for none"));
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
        overlay::check_fields(self)
    }
}

fn located<'a>(options: &'a Options, tables: &'a [&'a Lines]) -> impl FnOnce(ConfigError) -> ConfigError {
    |ConfigError(message)| ConfigError(options.locate(&message, tables))
}

fn check_publish(source: &SourceConfig, transports: &[Transport]) -> Result<(), ConfigError> {
    if source.kind == SourceKind::Publish && !transports.contains(&Transport::Rtsp) {
        return bad("--source publish: streams are published by RTSP: add rtsp to --transport");
    }
    Ok(())
}

/// RTP has no room for larger JPEG pictures (RFC 2435 section 3.1).
fn check_jpeg(encode: &EncodeConfig, transports: &[Transport]) -> Result<(), ConfigError> {
    let is_by_rtp = |transport: &Transport| matches!(transport, Transport::Rtp | Transport::Rtsp);
    let side = encode.resolution.map_or(0, |size| size.width.max(size.height));
    if encode.codec == Codec::Mjpeg && side > LARGEST && transports.iter().any(is_by_rtp) {
        return bad(format!(
            "--codec mjpeg: RTP and RTSP have room for pictures of {LARGEST} pixels a side, and not for {side}; give a \
             smaller --width and --height, or --transport webrtc, with which it is seen by HTTP"
        ));
    }
    Ok(())
}

fn transports(options: &MachineOptions) -> &[Transport] {
    options.transport.as_deref().unwrap_or(&TRANSPORTS)
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
            bad(format!("{ALIGNMENT}: {key} = {ms}: must be from {least} to {most} milliseconds"))
        }
        None => Ok(given),
    }
}
