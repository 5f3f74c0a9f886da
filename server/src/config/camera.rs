//! A camera's part of the configuration: its source, and how each of its streams is encoded.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use rov_common::camera::{CameraUrl, Trust};
use rov_common::codec::Codec;
use rov_common::latency_mode::LatencyMode;
use rov_common::units::{Bitrate, Fps, Resolution};

use super::{ConfigError, DEFAULT_FLOOR, OverlayConfig, PipConfig, bad, outputs};
use crate::choices::{EncoderChoice, Flip, Level, Preset, Profile, SizeChoice, SourceKind};
use crate::cli::{CameraOptions, StreamOptions, Switch};
use crate::config_file::Table;

/// Whoever reloads a page, or asks for a snapshot each second, finds the encoder at work.
pub const REST_AFTER: Duration = Duration::from_secs(5);
const DEFAULT_SIZE: Resolution = Resolution::new(1920, 1080);
/// Of each side, in pixels.
const SIDES: RangeInclusive<u32> = 16..=8192;
pub const RATES: RangeInclusive<f64> = 1.0..=240.0;
/// In kbit/s.
pub const BITRATES: RangeInclusive<u32> = 50..=500_000;
/// In seconds.
pub const KEYFRAME_INTERVALS: RangeInclusive<f64> = 0.1..=300.0;

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
    /// What it was made of.
    pub given: Table<CameraOptions>,
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
    /// As it was asked for; None: by `Config::record`.
    pub recording: Option<Switch>,
    /// What comes of that.
    pub is_recorded: bool,
    /// The bit rate follows the pilot's link, and is never lower, unless the ceiling is. None: it stays as it is.
    pub adaptive_floor: Option<Bitrate>,
    pub overlay: OverlayConfig,
    /// What it was made of.
    pub given: Table<StreamOptions>,
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
    pub latency: LatencyMode,
    /// None: by `latency`.
    pub preset: Option<Preset>,
    /// None: by `latency`.
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
            latency: LatencyMode::Low,
            preset: None,
            keyframe_interval: None,
            level: None,
            fixed_size: false,
            max_quality: false,
            rest_after: REST_AFTER,
        }
    }
}

/// What H.265 needs of the bit rate of H.264 for about the same picture.
pub const H265_RATE: f64 = 0.6;

/// The same of MJPEG: 1080p30 then has about quality 75. For as few as H.264 needs its pictures would be all blocks.
const MJPEG_RATE: f64 = 4.0;

/// The bit rate when none is given: `15 Mbit/s * (width * height * fps / (1920 * 1080 * 30))^0.75`, doubled by
/// `max_quality`, for H.265 times 0.6, for MJPEG times 4, at least 500 kbit/s and at most 100 Mbit/s.
///
/// 15 Mbit/s for 1080p30 is 0.24 bit for each pixel, generous for the murk and particles under water. The exponent is
/// below one because neighbouring pixels and frames resemble each other the more, the more there are of them: 640x480
/// at 30 gets 3.6 Mbit/s (0.39 bit for each pixel), 4K60 71 Mbit/s (0.14).
pub fn auto_bitrate(codec: Codec, resolution: Resolution, fps: Fps, max_quality: bool) -> Bitrate {
    let reference = 1920.0 * 1080.0 * 30.0;
    let load = resolution.pixels() as f64 * fps.as_f64() / reference;
    let codec_rate = match codec {
        Codec::H264 => 1.0,
        Codec::H265 => H265_RATE,
        Codec::Mjpeg => MJPEG_RATE,
    };
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
            recording: None,
            is_recorded: false,
            adaptive_floor: None,
            overlay: OverlayConfig::default(),
            given: Table::default(),
        };
        Self {
            name: "cam1".to_owned(),
            source: SourceConfig::default(),
            is_part: false,
            streams: vec![stream],
            given: Table::default(),
        }
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

impl SourceConfig {
    pub(super) fn new(options: &CameraOptions) -> Result<Self, ConfigError> {
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
    pub(super) fn new(
        name: String,
        source: &SourceConfig,
        is_decoded: bool,
        given: &Table<StreamOptions>,
    ) -> Result<Self, ConfigError> {
        let options = &given.options;
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
        let is_encoded = is_decoded || !source.is_passed_through();
        if let (true, true, Some(floor), None) = (is_adaptive, is_encoded, floor, encode.bitrate)
            && let Some((size, fps)) = encode.resolution.zip(encode.fps)
        {
            let automatic = auto_bitrate(encode.codec, size, fps, encode.max_quality);
            if floor > automatic {
                let (floor, automatic) = (floor.kbps(), automatic.kbps());
                return bad(format!(
                    "--min-bitrate {floor}: is above the {automatic} of {size} at {fps} fps; give --bitrate {floor} too"
                ));
            }
        }
        encode.validate(source, is_decoded)?;
        let always_encode = options.always_encode.unwrap_or_default();
        let rtp_port = options.rtp_port.map(outputs::rtp_port).transpose()?;
        Ok(Self {
            name,
            encode,
            rtp_port,
            always_encode,
            recording: options.recording,
            is_recorded: false,
            adaptive_floor: is_adaptive.then(|| floor.unwrap_or(DEFAULT_FLOOR)),
            overlay: OverlayConfig::new(options, is_encoded)?,
            given: given.clone(),
        })
    }
}

impl EncodeConfig {
    pub(super) fn new(options: &StreamOptions) -> Result<Self, ConfigError> {
        let usual = Self::default();
        let size = (options.width.unwrap_or(DEFAULT_SIZE.width), options.height.unwrap_or(DEFAULT_SIZE.height));
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
            latency: latency_mode(options)?,
            preset: options.preset,
            keyframe_interval: options.keyframe_interval.map(keyframe_interval).transpose()?,
            level: options.level,
            fixed_size: options.size.unwrap_or_default() == SizeChoice::Fixed,
            max_quality: options.max_quality.unwrap_or(usual.max_quality),
            rest_after: usual.rest_after,
        })
    }
}

fn latency_mode(options: &StreamOptions) -> Result<LatencyMode, ConfigError> {
    let low = match (options.low_latency, options.no_low_latency) {
        (Some(low), Some(not_low)) if low == not_low => {
            return bad("--low-latency: contradicts --no-low-latency, leave one of them out");
        }
        (low, not_low) => low.or(not_low.map(|not_low| !not_low)),
    };
    match (options.latency_mode, low) {
        (Some(mode), Some(low)) if low != (mode == LatencyMode::Low) => {
            bad("--latency-mode: contradicts --low-latency or --no-low-latency, leave one of them out")
        }
        (mode, low) => Ok(mode.or(low.filter(|low| !low).map(|_| LatencyMode::Normal)).unwrap_or_default()),
    }
}

impl SourceConfig {
    /// Why it and another one cannot be open at once.
    pub(super) fn conflict(&self, other: &Self) -> Option<&'static str> {
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
        self.file_passthrough || self.kind.nature().is_coded
    }

    pub(super) fn validate(&self) -> Result<(), ConfigError> {
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
    /// `is_decoded`: it is made of a stream that is passed through.
    pub fn validate(&self, source: &SourceConfig, is_decoded: bool) -> Result<(), ConfigError> {
        self.validate_options(source, is_decoded)?;
        if let Some(Resolution { width, height }) = self.resolution {
            if width == 0 || height == 0 {
                return bad(format!(
                    "--width {width} --height {height}: give both, or 0 for both to take the source's own size"
                ));
            }
            for (option, value) in [("--width", width), ("--height", height)] {
                if !SIDES.contains(&value) {
                    return bad(format!("{option} {value}: must be from {} to {} pixels", SIDES.start(), SIDES.end()));
                }
                if value % 2 != 0 {
                    // 4:2:0 video has one chroma sample for two pixels each way.
                    return bad(format!("{option} {value}: must be even (4:2:0 video), try {}", value + 1));
                }
            }
        }
        if let Some(fps) = self.fps
            && !RATES.contains(&fps.as_f64())
        {
            let (least, most) = (RATES.start(), RATES.end());
            return bad(format!("--fps {fps}: must be from {least} to {most}, or 0 for the source's own"));
        }
        if let Some(bitrate) = self.bitrate
            && !BITRATES.contains(&bitrate.kbps())
        {
            let (kbps, (least, most)) = (bitrate.kbps(), BITRATES.into_inner());
            return bad(format!("--bitrate {kbps}: must be from {least} to {most} kbit/s, or 0 for auto"));
        }
        Ok(())
    }

    /// Whether the other has another bit rate, and nothing else that the encoder is told.
    pub fn differs_in_rate_alone(&self, other: &Self) -> bool {
        let Self { bitrate, max_quality, rest_after, .. } = *other;
        Self { bitrate, max_quality, rest_after, ..self.clone() } == *other
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
        if self.codec == Codec::Mjpeg {
            let refused = match source.kind {
                SourceKind::Stdin => Some("--source stdin"),
                SourceKind::Publish => Some("--source publish"),
                SourceKind::File if source.file_passthrough => Some("--file-passthrough"),
                _ => None,
            };
            if let Some(refused) = refused.filter(|_| !is_decoded) {
                return bad(format!(
                    "--codec mjpeg: {refused} takes H.264 and H.265 alone; give one of these as --codec"
                ));
            }
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

/// What does not parse is not repeated: it may have a password in it.
fn camera_url(text: &str) -> Result<CameraUrl, ConfigError> {
    CameraUrl::parse(text).map_err(|error| {
        ConfigError(format!("--url: give an address as rtsp://USER:PASSWORD@10.0.0.3/stream ({error})"))
    })
}

fn keyframe_interval(seconds: f64) -> Result<Duration, ConfigError> {
    if !KEYFRAME_INTERVALS.contains(&seconds) {
        let (least, most) = KEYFRAME_INTERVALS.into_inner();
        return bad(format!("--keyframe-interval {seconds}: must be from {least} to {most} seconds"));
    }
    Ok(Duration::from_secs_f64(seconds))
}
