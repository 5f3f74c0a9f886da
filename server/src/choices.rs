//! What an option is chosen from.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use clap::ValueEnum;
use rov_common::recording::Measure;
use rov_common::units::{Fps, Resolution};
use serde::Deserialize;

/// Where pictures come from, as `--source` names it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
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
    Pip,
}

/// The time of day in an overlay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Timestamp {
    Off,
    #[default]
    Utc,
    /// That of the server's machine.
    Local,
}

/// How much is kept in memory for clips.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingTime(pub Option<Duration>);

impl RingTime {
    const SHORTEST: Duration = Duration::from_secs(5);
    const LONGEST: Duration = Duration::from_secs(600);
}

impl Default for RingTime {
    fn default() -> Self {
        Self(Some(Duration::from_secs(30)))
    }
}

impl FromStr for RingTime {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.parse() {
            _ if text == "off" => Ok(Self(None)),
            Ok(Measure::Time(time)) if (Self::SHORTEST..=Self::LONGEST).contains(&time) => Ok(Self(Some(time))),
            _ => Err("must be off, or a time from 5s to 10min, as 60s"),
        }
    }
}

/// When recording begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RecordWhen {
    #[default]
    OnStart,
    OnRequest,
}

/// What a source is, as far as the rest of the server goes by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourceNature {
    /// One of this machine's cameras, which have to be looked for.
    pub is_local_camera: bool,
    /// Its stream is coded already, and sent as it comes.
    pub is_coded: bool,
    /// It is set up on another machine: what is wrong with it may be mended there at any time.
    pub is_remote: bool,
    /// Its picture may stay the same although nothing is wrong.
    pub may_stand_still: bool,
    /// It gives another size or rate, up to its own, where one is wanted.
    pub is_choosable: bool,
}

impl SourceKind {
    pub fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// A new source is a row here, its options in `cli` and `config::SourceConfig`, and its elements in
    /// `pipeline::source`.
    pub fn nature(self) -> SourceNature {
        let (is_local_camera, is_coded, is_remote, may_stand_still, is_choosable) = match self {
            Self::Auto | Self::Webcam | Self::Csi => (true, false, false, false, true),
            Self::File => (false, false, false, true, false),
            Self::Stdin => (false, true, false, false, false),
            Self::Rtsp | Self::Publish => (false, true, true, false, false),
            Self::Pipeline => (false, false, false, false, false),
            // The cameras that a picture of two shows are looked at themselves.
            Self::Test | Self::Pip => (false, false, false, true, true),
        };
        SourceNature { is_local_camera, is_coded, is_remote, may_stand_still, is_choosable }
    }
}

/// How viewers get the video, as `--transport` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Transport {
    Webrtc,
    Rtp,
    Rtsp,
}

/// The H.264 profile asked of the encoder. `Baseline` means constrained baseline wherever the encoder knows it. With
/// H.265 each of them means main, the only one for 8 bit 4:2:0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Profile {
    #[default]
    Baseline,
    Main,
    High,
}

impl Profile {
    /// Of H.264 (ITU-T H.264 A.2).
    pub fn idc(self) -> u8 {
        match self {
            Self::Baseline => 66,
            Self::Main => 77,
            Self::High => 100,
        }
    }
}

/// The effort of the encoder: the slower, the better the picture for the same bit rate, and the more delay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[repr(u8)]
pub enum Preset {
    Ultrafast = 0,
    Fast,
    Medium,
    Slow,
}

/// How the picture is turned before it is encoded, as for a camera that hangs upside down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Flip {
    #[default]
    None,
    /// Left and right change places.
    Horizontal,
    Vertical,
    #[value(name = "180")]
    #[serde(rename = "180")]
    Half,
}

/// The corner in which a small picture lies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Position {
    TopLeft,
    TopRight,
    BottomLeft,
    #[default]
    BottomRight,
}

impl Position {
    pub fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
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

    pub fn all() -> impl Iterator<Item = Self> {
        (0..LEVELS.len()).map(Self)
    }

    /// Ten times the number, as the SPS has it.
    pub fn idc(self) -> u32 {
        LEVELS[self.0].0
    }

    pub fn allows(self, resolution: Resolution, fps: f64) -> bool {
        let (_, most, most_per_second) = LEVELS[self.0];
        let macroblocks = u64::from(resolution.width.div_ceil(16)) * u64::from(resolution.height.div_ceil(16));
        macroblocks <= most && macroblocks as f64 * fps <= most_per_second
    }

    pub fn lowest(resolution: Resolution, fps: f64) -> Option<Self> {
        Self::all().find(|level| level.allows(resolution, fps))
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

/// A second stream in short: `1280x720@30,4000,main`, of which all but the size may be left out from the end.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SecondStream {
    pub resolution: Resolution,
    pub fps: Option<Fps>,
    pub bitrate_kbps: Option<u32>,
    pub profile: Option<Profile>,
}

impl FromStr for SecondStream {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let usage = || "give size, frames per second, kbit/s and profile, as 1280x720@30,4000,main".to_owned();
        let number = |text: &str| text.parse::<u32>().map_err(|_| usage());
        let mut parts = text.split(',');
        let picture = parts.next().unwrap_or_default();
        let (size, fps) = picture.split_once('@').map_or((picture, None), |(size, fps)| (size, Some(fps)));
        let (width, height) = size.split_once('x').ok_or_else(usage)?;
        let second = Self {
            resolution: Resolution::new(number(width)?, number(height)?),
            fps: fps.map(|fps| fps.parse().map_err(|_| usage())).transpose()?,
            bitrate_kbps: parts.next().map(number).transpose()?,
            profile: parts.next().map(|name| Profile::from_str(name, false).map_err(|_| usage())).transpose()?,
        };
        if parts.next().is_none() { Ok(second) } else { Err(usage()) }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum EncoderChoice {
    /// The first that works, hardware first.
    #[default]
    Auto,
    /// This element and no other. Whether it is known and works is seen where encoders are tried (`pipeline::probe`),
    /// as the answer is to name those that work here.
    Element(String),
}
