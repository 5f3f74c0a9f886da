//! The validated configuration. Everything behind it may rely on what `validate` states; nothing here looks at the machine
//! (which cameras, which encoders), as that changes while the server runs.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::ValueEnum;
use rov_common::discovery::clean;
use rov_common::units::{Bitrate, Fps, Resolution};

use crate::cli::Cli;

/// Where pictures come from, as `--source` names it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum SourceKind {
    #[default]
    Auto,
    Webcam,
    Csi,
    File,
    Stdin,
    Test,
    Pipeline,
}

/// The H.264 profile asked of the encoder. `Baseline` means constrained baseline wherever the encoder knows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Profile {
    #[default]
    Baseline,
    Main,
    High,
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
    /// Both sides even; None: the source's own.
    pub resolution: Option<Resolution>,
    /// An upper bound: a slower source keeps its rate. None: the source's own.
    pub fps: Option<Fps>,
    /// None: `auto_bitrate`.
    pub bitrate: Option<Bitrate>,
    pub encoder: EncoderChoice,
    pub profile: Profile,
    pub low_latency: bool,
    pub max_quality: bool,
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
            resolution: Some(Resolution::new(1920, 1080)),
            fps: Some(Fps::whole(30)),
            bitrate: None,
            encoder: EncoderChoice::Auto,
            profile: Profile::Baseline,
            low_latency: true,
            max_quality: false,
        }
    }
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
    /// 0: any free port.
    pub media_port: u16,
    /// None: no discovery.
    pub discovery_port: Option<u16>,
    /// Empty: every suitable one.
    pub interfaces: Vec<String>,
    /// A `stun:` URL.
    pub stun: Option<String>,
}

/// A message that names the option and the value, and says what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(pub String);

fn bad<T>(message: impl Into<String>) -> Result<T, ConfigError> {
    Err(ConfigError(message.into()))
}

/// The bit rate when none is given: `15 Mbit/s * (width * height * fps / (1920 * 1080 * 30))^0.75`, doubled by
/// `max_quality`, at least 500 kbit/s and at most 100 Mbit/s.
///
/// 15 Mbit/s for 1080p30 is 0.24 bit for each pixel, generous for the murk and particles under water. The exponent is below
/// one because neighbouring pixels and frames resemble each other the more, the more there are of them: 640x480 at 30
/// gets 3.6 Mbit/s (0.39 bit for each pixel), 4K60 71 Mbit/s (0.14).
pub fn auto_bitrate(resolution: Resolution, fps: Fps, max_quality: bool) -> Bitrate {
    let reference = 1920.0 * 1080.0 * 30.0;
    let load = resolution.pixels() as f64 * fps.as_f64() / reference;
    let kbps = 15_000.0 * load.powf(0.75) * if max_quality { 2.0 } else { 1.0 };
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
        let config = Config {
            name,
            capture: CaptureConfig {
                source,
                device: cli.device.clone(),
                file: cli.file.clone(),
                file_passthrough: cli.file_passthrough,
                looping: !cli.no_loop,
                pipeline: cli.pipeline.clone(),
                resolution,
                fps: (cli.fps > 0).then(|| Fps::whole(cli.fps)),
                bitrate: (cli.bitrate > 0).then(|| Bitrate::from_kbps(cli.bitrate)),
                encoder,
                profile: cli.profile,
                low_latency: !cli.no_low_latency,
                max_quality: cli.max_quality,
            },
            host: cli.host,
            signal_port: cli.signal_port,
            media_port: cli.media_port,
            discovery_port: (!cli.no_discovery).then_some(cli.discovery_port),
            interfaces: cli.interfaces.clone(),
            stun: cli.stun.clone(),
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
        self.capture.validate()
    }
}

impl CaptureConfig {
    fn validate(&self) -> Result<(), ConfigError> {
        self.validate_source()?;
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
            return bad(format!("--pipeline {text:?}: needs --source pipeline, but --source is {source}"));
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
    }

    #[test]
    fn zero_means_the_sources_own_or_automatic() {
        let capture = config(&["--width", "0", "--height", "0", "--fps", "0", "--bitrate", "0"]).unwrap().capture;
        assert_eq!((capture.resolution, capture.fps, capture.bitrate), (None, None, None));
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
            (&["--bitrate", "5"], "--bitrate 5: must be from 50 to 500000 kbit/s, or 0 for auto"),
            (&["--source", "file"], "--source file: needs --file FILE"),
            (
                &["--source", "pipeline"],
                "--source pipeline: needs --pipeline DESCRIPTION, as \"videotestsrc is-live=true\"",
            ),
            (&["--source", "test", "--file", "a"], "--file a: needs --source file, but --source is test"),
            (&["--file-passthrough"], "--file-passthrough: needs --source file and --file FILE, but --source is auto"),
            (&["--source", "test", "--device", "0"], "--device 0: needs --source webcam or csi, but --source is test"),
            (&["--stun", "example.org"], "--stun example.org: give a URL of the form stun:HOST[:PORT]"),
            (
                &["--discovery-port", "0"],
                "--discovery-port 0: clients must know the port, give one from 1 to 65535, or --no-discovery",
            ),
        ] {
            assert_eq!(config(args).unwrap_err().0, message);
        }
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
        let kbps = |w, h, fps, max| auto_bitrate(Resolution::new(w, h), Fps::whole(fps), max).kbps();
        assert_eq!(kbps(1920, 1080, 30, false), 15_000);
        assert_eq!(kbps(1920, 1080, 30, true), 30_000);
        assert_eq!(kbps(640, 480, 30, false), 3_582);
        assert_eq!(kbps(3840, 2160, 60, false), 71_352);
        assert_eq!(kbps(3840, 2160, 60, true), 100_000);
        assert_eq!(kbps(16, 16, 1, false), 500);
    }
}
