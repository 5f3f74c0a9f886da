//! Encoders as rows of a table for each codec, and the text and run-time values made from a row. Pure: which properties
//! the running GStreamer has is asked through a function, so that every row is tested on a machine that has none of the
//! encoders.
//!
//! A property that is missing is left out (names and sets differ from GStreamer 1.14 to 1.28), never an error.

mod h264;
mod h265;
mod mjpeg;

use std::time::Duration;

use rov_common::codec::Codec;
use rov_common::units::{Bitrate, Fps, Resolution};

use crate::config::{Level, Preset, Profile};

/// The name of the encoder within the pipeline.
pub const NAME: &str = "rov_enc";

/// Pictures from keyframe to keyframe in low-latency mode: so many that only viewers' wishes make keyframes.
const LONG_GOP: u32 = 2560;
/// The VBV holds one frame, so that a keyframe delays little what follows, but so many bits for each pixel: with less,
/// x264 spends on one slice what the others needed. At 1.3 Mbit/s, 720p30, their part of the picture then stands for
/// seconds while the rest moves.
const BITS_PER_PIXEL: f64 = 0.125;
/// And not more frames than these, which a link at its limit delays by as many.
const MAX_VBV_FRAMES: f64 = 3.0;

/// Asks whether the running GStreamer's `element` has `property`; false too where there is no such element.
pub type HasProperty<'a> = &'a dyn Fn(&str, &str) -> bool;

/// The memory in which an encoder takes pictures, beyond plain system memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Memory {
    System,
    /// NVIDIA Jetson: what `nvarguscamerasrc` gives needs no copy.
    Nvmm,
    Cuda,
    Va,
}

/// A property's value, as far as it depends on the configuration.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value {
    Text(&'static str),
    /// The first value in low-latency mode, else the second.
    Mode(&'static str, &'static str),
    /// The second value if the element has the first as a property, else the third (for enumerations that changed).
    IfProperty(&'static str, &'static str, &'static str),
    Kbps,
    Bps,
    /// The rate control's buffer: one frame in low-latency mode, at low bit rates up to three, else half a second; in
    /// milliseconds, kbit, bit or bytes.
    VbvMs,
    VbvKbit,
    VbvBits,
    VbvBytes,
    /// Half a second in kbit, whatever the mode.
    HalfSecondKbit,
    /// Pictures from keyframe to keyframe: those of `--keyframe-interval`, else 2560 in low-latency mode, else two
    /// seconds.
    Gop,
    /// The same; in low-latency mode this, which no number exceeds where it is one.
    GopOr(&'static str),
    /// At most four: more slices cost bits, and frame threads would cost frames of delay.
    Threads,
    /// The values for baseline, main and high.
    Profile([&'static str; 3]),
    /// The whole of `extra-controls` of a V4L2 encoder.
    V4l2Controls,
    /// The quality with which pictures of JPEG have about the bit rate: how many bits they have depends on what they
    /// show.
    JpegQuality,
    /// The whole of `option-string` of x265enc, which lets x265 know what has no property of its own.
    X265Options,
}

/// How the profile is pinned downstream of the encoder.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ProfilePin {
    /// `video/x-h264,profile=...`, with this for baseline.
    Caps(&'static str),
    /// As `Caps`, with the level, without which the Pi's encoder refuses 1080p.
    CapsAndLevel(&'static str),
    /// By a property of the row: the encoder's caps know no profile.
    Property,
    /// The profile main, the only one of H.265 for 8 bit 4:2:0, whatever is asked for.
    Main,
}

/// How `--level` is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LevelPin {
    /// Not: the encoder writes the level that it finds right.
    No,
    /// By the caps behind the encoder.
    Caps,
    /// By a property, as ten times the number.
    Property(&'static str),
    /// Within [`Value::X265Options`].
    X265Options,
}

/// How the bit rate is changed while pictures flow.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum LiveRate {
    /// These properties, guarded like all others.
    Properties(&'static [(&'static str, Value)]),
    /// The control `video_bitrate` by the property `extra-controls`, which goes to the open device.
    V4l2Controls,
}

/// Whether an encoder takes another picture size while pictures flow, at the cost of a keyframe, and what it makes of
/// the bit rate when every second picture is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LiveSize {
    /// Not, or nobody has tried.
    No,
    /// It divides the bit rate among as many pictures as the caps say, so that half of them have to be given twice the
    /// rate.
    RateByCaps,
    /// It goes by the times of the pictures.
    RateByTime,
}

/// How a keyframe is forced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keyframe {
    /// The event GstForceKeyUnit.
    ForceKeyUnit,
    /// An action signal of the element.
    Signal(&'static str),
    /// The control `force_key_frame` before GStreamer 1.24, the event from then on.
    V4l2Controls,
}

/// One encoder. Several rows may name the same element; the first that works is taken.
#[derive(Debug, PartialEq)]
pub struct EncoderRow {
    pub codec: Codec,
    pub element: &'static str,
    /// What it is, for the log.
    pub title: &'static str,
    /// Properties (element, name) without which the row is not for this GStreamer.
    pub needs: &'static [(&'static str, &'static str)],
    /// The raw format in system memory that is pinned before `upload`, and what else is pinned of it.
    pub format: &'static str,
    pub memory: Memory,
    /// From system memory to the encoder's; empty where it takes system memory.
    pub upload: &'static str,
    pub properties: &'static [(&'static str, Value)],
    pub profile: ProfilePin,
    pub level: LevelPin,
    /// The property for `--preset`, with its values for ultrafast, fast, medium and slow.
    pub preset: Option<(&'static str, [Value; 4])>,
    pub live_rate: LiveRate,
    /// A change of the bit rate makes a keyframe.
    pub live_rate_costs_keyframe: bool,
    pub live_size: LiveSize,
    pub keyframe: Keyframe,
    /// Each buffer that it gives is an access unit with start codes, as far as it was seen: a parser would cost some
    /// time (x264 at 720p: 0.07 ms of 3) for nothing. Parameter sets, which a parser would add, the stream adds itself.
    pub gives_access_units: bool,
}

/// What an encoder is set up for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    pub profile: Profile,
    pub low_latency: bool,
    /// None: by `low_latency`.
    pub preset: Option<Preset>,
    pub keyframe_interval: Option<Duration>,
    /// None: what the encoder finds right.
    pub level: Option<Level>,
    pub bitrate: Bitrate,
    /// None: not known before the source has started; one frame then counts as 1/30 s.
    pub fps: Option<Fps>,
    pub resolution: Option<Resolution>,
    /// Processor cores.
    pub cores: usize,
}

/// The table of a codec, best first.
pub fn rows(codec: Codec) -> &'static [EncoderRow] {
    match codec {
        Codec::H264 => h264::ROWS,
        Codec::H265 => h265::ROWS,
        Codec::Mjpeg => mjpeg::ROWS,
    }
}

/// What an element of the tables encodes.
pub fn codec_of(element: &str) -> Option<Codec> {
    Codec::ALL.into_iter().find(|codec| rows(*codec).iter().any(|row| row.element == element))
}

/// The elements of a codec's table in order, each once.
pub fn elements(codec: Codec) -> Vec<&'static str> {
    let mut elements: Vec<_> = rows(codec).iter().map(|row| row.element).collect();
    elements.dedup();
    elements
}

impl EncoderRow {
    /// The launch text from raw video in the encoder's memory to the codec's caps.
    pub fn text(&self, settings: &Settings, has: HasProperty) -> String {
        let mut text = format!("{} name={NAME}", self.element);
        let mut set = |property: &str, value: Value| {
            if has(self.element, property) {
                text.push_str(&format!(" {property}={}", self.value(value, settings, has)));
            }
        };
        let preset = settings.preset.zip(self.preset).map(|(preset, (name, values))| (name, values[preset as usize]));
        for (property, value) in self.properties {
            let chosen = preset.filter(|(name, _)| name == property);
            set(property, chosen.map_or(*value, |(_, value)| value));
        }
        if let Some((name, value)) = preset.filter(|(name, _)| self.properties.iter().all(|(own, _)| own != name)) {
            set(name, value);
        }
        if let (Some(level), LevelPin::Property(name)) = (settings.level, self.level)
            && has(self.element, name)
        {
            text.push_str(&format!(" {name}={}", level.idc()));
        }
        let profile = |baseline| match settings.profile {
            Profile::Baseline => baseline,
            Profile::Main => "main",
            Profile::High => "high",
        };
        let pin = match self.profile {
            ProfilePin::Caps(baseline) => format!(",profile=(string){}", profile(baseline)),
            ProfilePin::CapsAndLevel(baseline) => {
                let level = settings.level.unwrap_or_else(|| level(settings));
                format!(",profile=(string){},level=(string){level}", profile(baseline))
            }
            ProfilePin::Main => ",profile=(string)main".to_owned(),
            ProfilePin::Property => String::new(),
        };
        let level = match (settings.level, self.level, self.profile) {
            (Some(_), LevelPin::Caps, ProfilePin::CapsAndLevel(_)) => String::new(),
            (Some(level), LevelPin::Caps, _) => format!(",level=(string){level}"),
            _ => String::new(),
        };
        format!("{text} ! {}{pin}{level}", self.codec.media_type())
    }

    /// It runs on the processor, any number of times.
    pub fn is_software(&self) -> bool {
        self.title.ends_with(", software")
    }

    /// The option that was given and that this encoder has no setting for.
    pub fn lacks(&self, settings: &Settings, has: HasProperty) -> Option<&'static str> {
        let can_preset = self.preset.is_some_and(|(property, _)| has(self.element, property));
        let can_level = match self.level {
            LevelPin::No => false,
            LevelPin::Caps => true,
            LevelPin::Property(property) => has(self.element, property),
            LevelPin::X265Options => has(self.element, "option-string"),
        };
        let gops = self.properties.iter().filter(|(_, value)| matches!(value, Value::Gop | Value::GopOr(_)));
        let controls = |(_, value): &(&str, Value)| *value == Value::V4l2Controls;
        let can_gop =
            self.properties.iter().any(controls) || gops.into_iter().any(|(property, _)| has(self.element, property));
        if settings.preset.is_some() && !can_preset {
            Some("--preset")
        } else if settings.level.is_some() && !can_level {
            Some("--level")
        } else {
            (settings.keyframe_interval.is_some() && !can_gop).then_some("--keyframe-interval")
        }
    }

    /// `text` with `upload` in front of it: from raw video in system memory.
    pub fn text_from_system(&self, settings: &Settings, has: HasProperty) -> String {
        match self.upload {
            "" => self.text(settings, has),
            upload => format!("{upload} ! {}", self.text(settings, has)),
        }
    }

    /// Every property that depends on bit rate or frame rate, for an encoder that has not been opened yet.
    pub fn rate_properties(&self, settings: &Settings, has: HasProperty) -> Vec<(&'static str, String)> {
        let depends = |value: &Value| {
            !matches!(
                value,
                Value::Text(_) | Value::Mode(..) | Value::IfProperty(..) | Value::Threads | Value::Profile(_)
            )
        };
        let properties =
            self.properties.iter().filter(|(property, value)| depends(value) && has(self.element, property));
        properties.map(|(property, value)| (*property, unquoted(self.value(*value, settings, has)))).collect()
    }

    /// The properties that change the bit rate of a running encoder; empty if this GStreamer has none of them.
    pub fn live_rate_properties(&self, settings: &Settings, has: HasProperty) -> Vec<(&'static str, String)> {
        match self.live_rate {
            LiveRate::Properties(properties) => {
                let properties = properties.iter().filter(|(property, _)| has(self.element, property));
                properties.map(|(property, value)| (*property, unquoted(self.value(*value, settings, has)))).collect()
            }
            LiveRate::V4l2Controls => {
                vec![("extra-controls", format!("controls,video_bitrate={}", settings.bitrate.bps()))]
            }
        }
    }

    /// Whether the row is for this GStreamer at all.
    pub fn suits(&self, has: HasProperty) -> bool {
        self.needs.iter().all(|(element, property)| has(element, property))
    }

    fn value(&self, value: Value, settings: &Settings, has: HasProperty) -> String {
        let interval = settings.fps.map_or(Duration::from_secs(1) / 30, Fps::interval);
        let bits = |seconds: f64| f64::from(settings.bitrate.kbps()) * 1000.0 * seconds;
        let frame = interval.as_secs_f64();
        let frames = (BITS_PER_PIXEL * pixels(settings) / bits(frame)).clamp(1.0, MAX_VBV_FRAMES);
        let vbv_s = if settings.low_latency { frames * frame } else { 0.5 };
        // No rate control takes a buffer of zero: it means its own default, of seconds.
        let whole = |number: f64| (number.round() as u64).max(1).to_string();
        match value {
            Value::Text(text) => text.to_owned(),
            Value::Mode(low_latency, relaxed) => if settings.low_latency { low_latency } else { relaxed }.to_owned(),
            Value::IfProperty(property, yes, no) => if has(self.element, property) { yes } else { no }.to_owned(),
            Value::Kbps => settings.bitrate.kbps().to_string(),
            Value::Bps => settings.bitrate.bps().to_string(),
            Value::VbvMs => whole(vbv_s * 1000.0),
            Value::VbvKbit => whole(bits(vbv_s) / 1000.0),
            Value::VbvBits => whole(bits(vbv_s)),
            Value::VbvBytes => whole(bits(vbv_s) / 8.0),
            Value::HalfSecondKbit => whole(bits(0.5) / 1000.0),
            Value::Gop => gop(settings).to_string(),
            Value::GopOr(most) if settings.low_latency => match settings.keyframe_interval {
                Some(_) => gop(settings).min(most.parse().unwrap_or(u32::MAX)).to_string(),
                None => most.to_owned(),
            },
            Value::GopOr(most) => gop(settings).min(most.parse().unwrap_or(u32::MAX)).to_string(),
            Value::Threads => settings.cores.clamp(1, 4).to_string(),
            Value::Profile([baseline, main, high]) => match settings.profile {
                Profile::Baseline => baseline.to_owned(),
                Profile::Main => main.to_owned(),
                Profile::High => high.to_owned(),
            },
            // Never video_bitrate_mode=1: constant rate costs the Pi about 100 ms a frame.
            Value::V4l2Controls => {
                let (bps, gop) = (settings.bitrate.bps(), gop(settings));
                let own = match self.codec {
                    Codec::H264 => format!("h264_i_frame_period={gop},h264_minimum_qp_value=5"),
                    Codec::H265 => format!("video_gop_size={gop},hevc_minimum_qp_value=5"),
                    Codec::Mjpeg => String::new(),
                };
                format!("\"controls,repeat_sequence_header=1,video_bitrate={bps},{own}\"")
            }
            Value::JpegQuality => jpeg_quality(settings).to_string(),
            // Two frames: with a buffer of one x265 overshoots by two thirds for seconds (measured with 3.5).
            Value::X265Options => format!(
                "\"bframes=0:rc-lookahead=0:scenecut=0:open-gop=0:info=0{}:vbv-maxrate={}:vbv-bufsize={}\"",
                settings.level.map_or_else(String::new, |level| format!(":level-idc={level}")),
                settings.bitrate.kbps(),
                whole(bits(vbv_s.max(2.0 * frame)) / 1000.0)
            ),
        }
    }
}

fn pixels(settings: &Settings) -> f64 {
    settings.resolution.unwrap_or(Resolution::new(1920, 1080)).pixels() as f64
}

fn gop(settings: &Settings) -> u32 {
    let pictures = |seconds: f64| (settings.fps.map_or(30.0, Fps::as_f64) * seconds).round().max(1.0) as u32;
    match settings.keyframe_interval {
        Some(interval) => pictures(interval.as_secs_f64()),
        None if settings.low_latency => LONG_GOP,
        None => pictures(2.0),
    }
}

/// Bits for each pixel at some qualities, of jpegenc with 4:2:0: medians of measured pictures, of which some have half
/// as many and others twice as many.
const JPEG_BITS: [(f64, f64); 8] =
    [(0.2, 10.0), (0.3, 25.0), (0.45, 40.0), (0.6, 55.0), (0.8, 70.0), (1.1, 80.0), (1.8, 90.0), (3.2, 95.0)];

fn jpeg_quality(settings: &Settings) -> u32 {
    let bits =
        f64::from(settings.bitrate.kbps()) * 1000.0 / (pixels(settings) * settings.fps.map_or(30.0, Fps::as_f64));
    let between = JPEG_BITS.windows(2).find(|pair| bits <= pair[1].0).unwrap_or(&JPEG_BITS[6..]);
    let [(fewer, worse), (more, better)] = [between[0], between[1]];
    let share = ((bits - fewer) / (more - fewer)).clamp(0.0, 1.0);
    (worse + (better - worse) * share).round() as u32
}

/// The lowest of a few levels that allows the picture size and rate.
fn level(settings: &Settings) -> Level {
    let resolution = settings.resolution.unwrap_or(Resolution::new(1920, 1080));
    let fps = settings.fps.map_or(30.0, Fps::as_f64);
    [Level::L4, Level::L4_2].into_iter().find(|level| level.allows(resolution, fps)).unwrap_or(Level::L5_1)
}

/// Launch text quotes a value with commas; a property set directly takes it bare.
fn unquoted(value: String) -> String {
    value.trim_matches('"').to_owned()
}

#[cfg(test)]
#[path = "encoder_tests.rs"]
mod tests;
