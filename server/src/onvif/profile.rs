//! What cameras and streams are to ONVIF: a video source for each camera, and for each stream a profile with an encoder
//! configuration. Nothing of it is kept here: it is made anew of the settings in effect for each request.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rov_common::codec::Codec;
use rov_common::units::{Bitrate, Fps, Resolution};
use serde_json::json;

use super::fault::Fault;
use crate::choices::Profile as CodecProfile;
use crate::config::{BITRATES, CameraConfig, KEYFRAME_INTERVALS, RATES, StreamConfig, auto_bitrate};
use crate::http::Api;
use crate::settings::{Scope, Values};
use crate::stream::Stream;

/// Sizes that are offered beside the one that is set and that of the source's pictures. Which of them a camera can
/// have, the settings know when one is set.
const SIZES: [Resolution; 9] = [
    Resolution::new(3840, 2160),
    Resolution::new(2560, 1440),
    Resolution::new(1920, 1080),
    Resolution::new(1280, 720),
    Resolution::new(960, 540),
    Resolution::new(640, 480),
    Resolution::new(640, 360),
    Resolution::new(320, 240),
    Resolution::new(320, 180),
];
/// The profiles of H.264, as ONVIF and as the settings write them.
pub const PROFILES: [(CodecProfile, &str, &str); 3] = [
    (CodecProfile::Baseline, "Baseline", "baseline"),
    (CodecProfile::Main, "Main", "main"),
    (CodecProfile::High, "High", "high"),
];
/// Between keyframes of a stream that makes them on demand: while RTSP is played.
const USUAL_INTERVAL: Duration = Duration::from_secs(2);

/// A stream, as it is now.
pub struct Profile {
    /// Its place in the catalogue.
    pub at: usize,
    pub scope: Scope,
    pub token: String,
    /// Its name in the catalogue.
    pub name: String,
    pub camera: String,
    /// How many streams the camera has.
    pub siblings: usize,
    pub encoder: Encoder,
    /// Of the camera's pictures, as far as is known.
    pub source: Resolution,
    pub source_fps: f64,
    /// Its source's own stream goes out: nothing of it can be set.
    pub is_passed_through: bool,
    /// The names of settings that cannot be changed, as they were given at the start.
    locked: Vec<&'static str>,
}

/// What is told of it follows from size and rate, where nobody has set it.
const BITRATE: &str = "streamBitrate";
const INTERVAL: &str = "keyframeInterval";

/// How it is encoded.
#[derive(Clone, Debug, PartialEq)]
pub struct Encoder {
    pub codec: Codec,
    pub size: Resolution,
    pub fps: f64,
    pub kbps: u32,
    /// That is made of size and rate: nobody has set one.
    pub is_automatic: bool,
    /// Frames from one keyframe to the next.
    pub gop: u32,
    /// The time that is set for these.
    pub interval: Option<Duration>,
    pub profile: CodecProfile,
}

/// What a client wants of it; None: it said nothing of that.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Wanted {
    pub encoding: Option<String>,
    pub size: Option<Resolution>,
    pub quality: Option<f64>,
    pub fps: Option<f64>,
    pub interval: Option<u32>,
    pub kbps: Option<u32>,
    pub gop: Option<u32>,
    pub profile: Option<String>,
}

impl Profile {
    /// Of all streams, in the order of the catalogue.
    pub fn all(api: &Api) -> Vec<Self> {
        let config = api.settings.running();
        let places = config.cameras.iter().enumerate().flat_map(|(at, camera)| {
            camera.streams.iter().enumerate().map(move |(number, stream)| ((at, number), camera, stream))
        });
        let one = |(at, ((place, camera, config), stream)): (usize, ((_, _, _), &Arc<Stream>))| {
            let (_, number): (usize, usize) = place;
            let scope = Scope::Stream(place.0, number);
            let is_locked = |name: &&str| api.settings.is_locked(scope, name);
            let locked = [BITRATE, INTERVAL].into_iter().filter(is_locked).collect();
            Self { locked, ..Self::of(at, place, (camera, &api.streams[at - number]), (config, stream)) }
        };
        places.zip(api.streams.iter()).enumerate().map(one).collect()
    }

    /// Of a camera its first stream is needed, too.
    fn of(
        at: usize,
        (camera_at, number): (usize, usize),
        (camera, first): (&CameraConfig, &Stream),
        (config, stream): (&StreamConfig, &Stream),
    ) -> Self {
        let now = Instant::now();
        let (negotiated, nominal) = stream.status().format();
        let (source, source_fps) = first.status().format();
        // What comes out of a pipeline of the user's own shows when it runs.
        let is_coded =
            camera.source.is_passed_through() || source.pixels() > 0 && first.status().foreign_keyframes(now).is_some();
        let is_passed_through = number == 0 && is_coded;
        let encode = &camera.streams[0].encode;
        // What is encoded may be smaller for a while, as for a slow link; what is set is not.
        let (size, fps) = if is_passed_through {
            (negotiated, nominal)
        } else {
            (config.encode.resolution.unwrap_or(negotiated), config.encode.fps.map_or(nominal, Fps::as_f64))
        };
        Self {
            at,
            scope: Scope::Stream(camera_at, number),
            token: token(stream.name()),
            name: stream.name().to_owned(),
            camera: camera.name.clone(),
            siblings: camera.streams.len(),
            encoder: Encoder::of(config, stream, size, fps, !is_passed_through),
            source: encode.resolution.filter(|_| !is_coded).unwrap_or(source),
            source_fps: encode.fps.filter(|_| !is_coded).map_or(source_fps, Fps::as_f64),
            is_passed_through,
            locked: Vec::new(),
        }
    }

    /// Of its encoder configuration.
    pub fn encoder_token(&self) -> String {
        format!("encoder.{}", self.token)
    }

    /// Of the configuration of its video source.
    pub fn source_token(&self) -> String {
        source_token(&self.camera)
    }

    /// That it may have, the largest first.
    pub fn sizes(&self) -> Vec<Resolution> {
        let now = self.encoder.size;
        let mut sizes = vec![now];
        if !self.is_passed_through {
            sizes.extend(SIZES.into_iter().chain([self.source]).filter(|size| size.pixels() > 0));
        }
        sizes.sort_unstable_by_key(|size| (std::cmp::Reverse(size.pixels()), size.width));
        sizes.dedup();
        sizes
    }

    pub fn rates(&self) -> (f64, f64) {
        self.free(self.encoder.fps, RATES.into_inner())
    }

    pub fn bitrates(&self) -> (u32, u32) {
        self.free(self.encoder.kbps, BITRATES.into_inner())
    }

    /// In frames.
    pub fn gops(&self) -> (u32, u32) {
        self.gops_at(self.encoder.fps)
    }

    fn gops_at(&self, fps: f64) -> (u32, u32) {
        let frames = |seconds: f64| seconds * fps.max(1.0);
        let (least, most) = KEYFRAME_INTERVALS.into_inner();
        self.free(self.encoder.gop, (frames(least).ceil().max(1.0) as u32, frames(most).floor() as u32))
    }

    /// A range, or what is now where nothing can be set.
    fn free<T: Copy>(&self, now: T, range: (T, T)) -> (T, T) {
        if self.is_passed_through { (now, now) } else { range }
    }

    /// What has to be set for what is wanted. What is so already is not set again: clients write back what they have
    /// read.
    ///
    /// # Errors
    /// Says which value cannot be.
    pub fn changes(&self, wanted: &Wanted) -> Result<Values, Fault> {
        let now = &self.encoder;
        let mut changes = Values::new();
        let mut codec = now.codec;
        if let Some(encoding) = &wanted.encoding {
            codec = named_codec(encoding)
                .ok_or_else(|| Fault::cannot_be(format!("Encoding {encoding}: must be JPEG, H264 or H265")))?;
            if codec != now.codec {
                changes.insert("videoEncoder".to_owned(), json!(codec.to_string()));
            }
        }
        if let Some(size) = wanted.size.filter(|size| *size != now.size) {
            if !self.sizes().contains(&size) {
                let sizes: Vec<_> = self.sizes().iter().map(Resolution::to_string).collect();
                return Err(Fault::cannot_be(format!("Resolution {size}: must be one of {}", sizes.join(", "))));
            }
            changes.insert("streamResolution".to_owned(), json!(size.to_string()));
        }
        let mut rate = now.fps;
        if let Some(fps) = wanted.fps.filter(|fps| !is_same_rate(*fps, now.fps)) {
            within("FrameRateLimit", fps, self.rates())?;
            changes.insert("streamFramerate".to_owned(), json!(fps));
            rate = fps;
        }
        // What follows from other values would change with them, and does where it is locked so.
        let is_locked = |name: &str| self.locked.contains(&name);
        let follows = now.is_automatic && !changes.is_empty() && !is_locked(BITRATE);
        // That of what is passed through is measured, and another one each time.
        let kbps = wanted.kbps.filter(|_| !self.is_passed_through);
        if let Some(kbps) = kbps.filter(|kbps| *kbps != now.kbps || follows) {
            within("BitrateLimit", kbps, self.bitrates())?;
            changes.insert(BITRATE.to_owned(), json!(kbps));
        }
        let kept = if rate == now.fps { Some(now.gop) } else { now.interval.map(|interval| frames(interval, rate)) };
        let is_as_read = |gop: u32| Some(gop) == kept || gop == now.gop && is_locked(INTERVAL);
        if let Some(gop) = wanted.gop.filter(|gop| !is_as_read(*gop)) {
            within("GovLength", gop, self.gops_at(rate))?;
            let seconds = (f64::from(gop) / rate.max(1.0) * 1000.0).round() / 1000.0;
            changes.insert(INTERVAL.to_owned(), json!(seconds));
        }
        if let Some(profile) = wanted.profile.as_deref().filter(|_| codec == Codec::H264) {
            let (known, _, setting) = PROFILES
                .iter()
                .find(|(_, name, _)| *name == profile)
                .ok_or_else(|| Fault::cannot_be(format!("Profile {profile}: must be Baseline, Main or High")))?;
            if *known != now.profile {
                changes.insert("encoderProfile".to_owned(), json!(setting));
            }
        }
        // There is no quality besides the bit rate, and every picture is encoded.
        within("Quality", wanted.quality.unwrap_or(1.0), (1.0, 1.0))?;
        within("EncodingInterval", wanted.interval.unwrap_or(1), (1, 1))?;
        Ok(changes)
    }
}

impl Encoder {
    /// `is_ours`: it is encoded here.
    fn of(config: &StreamConfig, stream: &Stream, size: Resolution, fps: f64, is_ours: bool) -> Self {
        let encode = &config.encode;
        let rate = Fps { num: (fps * 1000.0).round() as u32, den: 1000 };
        let is_known = size.pixels() > 0 && rate.num > 0;
        let automatic = is_known.then(|| auto_bitrate(encode.codec, size, rate, encode.max_quality));
        let kbps = encode.bitrate.or(automatic).filter(|_| is_ours).map(Bitrate::kbps);
        let interval = encode.keyframe_interval;
        Self {
            codec: stream.codec(),
            size,
            fps,
            kbps: kbps.unwrap_or_else(|| stream.stats(Instant::now()).bitrate_kbps as u32),
            is_automatic: encode.bitrate.is_none() && is_ours,
            gop: frames(interval.unwrap_or(USUAL_INTERVAL), fps),
            interval,
            profile: encode.profile,
        }
    }

    /// As ONVIF writes it; H.265 has one.
    pub fn profile_name(&self) -> &'static str {
        let known = PROFILES.iter().find(|(profile, ..)| *profile == self.profile && self.codec == Codec::H264);
        known.map_or("Main", |(_, name, _)| name)
    }
}

fn frames(interval: Duration, fps: f64) -> u32 {
    (interval.as_secs_f64() * fps).round().max(1.0) as u32
}

/// A token for the name of a stream, in which names have no dot.
fn token(name: &str) -> String {
    name.replace('/', ".")
}

/// Of the configuration of a camera's video source.
pub fn source_token(camera: &str) -> String {
    format!("source.{camera}")
}

pub fn encoding(codec: Codec) -> &'static str {
    match codec {
        Codec::H264 => "H264",
        Codec::H265 => "H265",
        Codec::Mjpeg => "JPEG",
    }
}

fn named_codec(name: &str) -> Option<Codec> {
    Codec::ALL.into_iter().find(|codec| encoding(*codec) == name)
}

/// Whole numbers stand for 29.97 too.
fn is_same_rate(wanted: f64, now: f64) -> bool {
    (wanted - now).abs() < 0.01 || wanted == now.round()
}

fn within<T: PartialOrd + std::fmt::Display + Copy>(name: &str, value: T, (least, most): (T, T)) -> Result<(), Fault> {
    if least <= value && value <= most {
        return Ok(());
    }
    Err(Fault::cannot_be(format!("{name} {value}: must be from {least} to {most}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn profile(locked: &[&'static str]) -> Profile {
        let size = Resolution::new(640, 360);
        Profile {
            at: 0,
            scope: Scope::Stream(0, 0),
            token: "stream1".to_owned(),
            name: "stream1".to_owned(),
            camera: "cam1".to_owned(),
            siblings: 1,
            encoder: Encoder {
                codec: Codec::H264,
                size,
                fps: 30.0,
                kbps: 1000,
                is_automatic: true,
                gop: 60,
                interval: Some(Duration::from_secs(2)),
                profile: CodecProfile::Baseline,
            },
            source: size,
            source_fps: 30.0,
            is_passed_through: false,
            locked: locked.to_vec(),
        }
    }

    #[test]
    fn what_is_locked_and_written_back_as_it_was_read_is_no_change() {
        let back = Wanted { fps: Some(15.0), kbps: Some(1000), gop: Some(60), ..Wanted::default() };
        let names = |profile: Profile, wanted: &Wanted| {
            profile.changes(wanted).map_err(|fault| fault.reason).unwrap().into_keys().collect::<Vec<_>>().join(" ")
        };
        assert_eq!(names(profile(&[]), &back), "keyframeInterval streamBitrate streamFramerate");
        assert_eq!(names(profile(&[BITRATE, INTERVAL]), &back), "streamFramerate");
        // Another value is one, which is then refused by its name.
        let other = Wanted { kbps: Some(900), gop: Some(90), ..back };
        assert_eq!(names(profile(&[BITRATE, INTERVAL]), &other), "keyframeInterval streamBitrate streamFramerate");
    }
}
