//! From configuration and machine to the text of a pipeline. Pure.
//!
//! ```text
//! head:  SOURCE ! identity name=rov_join
//! trunk: [queue ! identity sync=true (file)]
//!        tee, where anything is encoded here or the camera has several streams; a tail for each
//! tail:  leaky queue of one frame ! [deinterlace] ! scale ! convert ! caps ! ENCODER ! [parse] ! appsink
//!   or:  appsink                                                                                    (a coded stream, untouched)
//!   and: [parse] ! queue ! DECODER ! leaky queue of one frame ! as above                     (of that, each stream but the first)
//! ```
//!
//! Each is a bin: the head of a file is built anew for each round, and the tails of a user's pipeline are chosen when
//! it has negotiated. Probes of `build` do the rest: counting, thinning out, pacing.

use std::sync::{Arc, Mutex};

use rov_common::api::CaptureTime;
use rov_common::codec::Codec;
use rov_common::latency_mode::LatencyMode;
use rov_common::lossy::Path;
use rov_common::units::{Bitrate, Fps, Resolution};

use super::decoded;
use super::encoder::{EncoderRow, Memory, Settings};
use super::pip::{Pip, Tap};
use super::source::{self, Drawing, Found, Machine, Missing, Pacing, SourceMedia};
use crate::config::{CameraConfig, CameraUrl, EncodeConfig, Flip, SourceConfig, SourceKind, Trust, auto_bitrate};
use crate::inlet::Inlet;
use crate::overlay::Overlay;

/// Names of elements that `graph` looks for.
pub const JOIN: &str = "rov_join";
pub const AHEAD: &str = "rov_ahead";
pub const PACE: &str = "rov_pace";
pub const RAW_QUEUE: &str = "rov_raw";
pub const OUT: &str = "rov_out";
pub const TEE: &str = "rov_tee";
pub const FLIP: &str = "rov_flip";

/// The raw frame that waits for the encoder: one (those that are too many are left out at the queue, by `decimate`),
/// and the newest wins, so that a slow encoder costs frames and not delay.
const LEAKY: &str = "queue name=rov_raw max-size-buffers=1 max-size-bytes=0 max-size-time=0 leaky=downstream";

/// Access units leave in a callback that only hands over, so that two never wait here; the bound is for a stalled
/// machine.
const SINK: &str = "appsink name=rov_out sync=false async=false max-buffers=4 drop=false";

/// What makes a stream of the pictures.
#[derive(Clone, Debug, PartialEq)]
pub enum Tail {
    Fixed(String),
    /// By what the head has negotiated.
    ByCaps {
        raw: String,
        /// For NVIDIA's memory; `None` without the elements for it.
        nvmm: Option<String>,
        encoded: String,
    },
}

/// All that `graph` needs.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The source in words.
    pub source_label: String,
    pub head: String,
    /// Paces the pictures; empty where nothing does.
    pub trunk: String,
    /// One for each stream of the camera.
    pub branches: Vec<BranchPlan>,
    /// Of a coded stream that goes out untouched.
    pub codec: Codec,
    /// What the head gives.
    pub output: SourceMedia,
    /// The rate that it was asked for and does not exceed; None: it may.
    pub given_fps: Option<Fps>,
    pub pacing: Pacing,
    pub drawing: Option<Drawing>,
    /// Whose time the pictures have.
    pub capture_time: CaptureTime,
    /// What the stream comes from where nothing here encodes it: what to do about it depends on that.
    pub source: SourceKind,
    /// The IP camera, of which the stream of `codec` is taken.
    pub camera: Option<CameraUrl>,
    pub camera_certificate: Trust,
    pub links: Links,
    /// Why `--source auto` shows the test picture in place of a camera.
    pub substitute: Option<String>,
    /// The camera that was taken.
    pub found: Option<Found>,
    /// Those that `--source auto` might have taken as well.
    pub others: Vec<Found>,
}

/// What ties a camera's pipelines, one after the other, to the rest of the server.
#[derive(Clone, Debug, Default)]
pub struct Links {
    /// What a publisher's pictures come by.
    pub inlet: Option<Arc<Inlet>>,
    /// What the pictures of the cameras come by that it shows.
    pub pip: Option<Arc<Pip>>,
    /// Where its own pictures go, beside its streams.
    pub taps: Vec<Tap>,
    /// By what an IP camera sends.
    pub path: Arc<Mutex<Path>>,
    /// What is written over the pictures of each of its streams; empty: nothing.
    pub overlays: Vec<Arc<Overlay>>,
}

/// What is a stream's alone.
#[derive(Clone, Debug)]
pub struct BranchPlan {
    pub tail: Tail,
    pub codec: Codec,
    /// None: the source's stream goes out untouched.
    pub encoder: Option<&'static EncoderRow>,
    /// The source's stream is decoded for it.
    pub decodes: bool,
    pub settings: Settings,
    /// The bit rate follows size and rate once they are known: `Some(max_quality)`.
    pub auto_bitrate: Option<bool>,
    /// The size never follows the link.
    pub fixed_size: bool,
    /// Begin with no more than this: what the viewers' links carried before a restart.
    pub limit: Option<Bitrate>,
    /// Raw frames beyond this rate are left out.
    pub max_fps: Option<Fps>,
    /// It gives nothing: see [`Self::turn_off`].
    pub is_off: bool,
}

impl BranchPlan {
    /// Leaves the stream out, so that its encoder does not end those of the others again and again.
    pub fn turn_off(&mut self) {
        (self.tail, self.encoder, self.is_off) =
            (Tail::Fixed("fakesink sync=false async=false".to_owned()), None, true);
    }
}

impl Plan {
    /// The whole pipeline as launch text, for the log, but for the tee in front of a stream that is alone.
    pub fn text(&self) -> String {
        let tails = self.branches.iter().map(|branch| match &branch.tail {
            Tail::Fixed(tail) => tail,
            Tail::ByCaps { raw, .. } => raw,
        });
        let mut text = self.head_text();
        if !self.trunk.is_empty() {
            text.push_str(&format!(" ! {}", self.trunk));
        }
        if self.branches.len() > 1 {
            text.push_str(&format!(" ! tee name={TEE}"));
            tails.for_each(|tail| text.push_str(&format!(" {TEE}. ! {tail}")));
        } else {
            tails.for_each(|tail| text.push_str(&format!(" ! {tail}")));
        }
        text
    }

    /// The head with the element at which the tail is joined.
    pub fn head_text(&self) -> String {
        format!("{} ! identity name={JOIN}", self.head)
    }
}

/// The settings of an encoder for this configuration, before the source has been seen.
pub fn settings(config: &EncodeConfig, cores: usize) -> Settings {
    let resolution = config.resolution.unwrap_or(Resolution::new(1920, 1080));
    let fps = config.fps.unwrap_or(Fps::whole(30));
    Settings {
        profile: config.profile,
        low_latency: config.latency == LatencyMode::Low,
        preset: config.preset,
        keyframe_interval: config.keyframe_interval,
        level: config.level,
        bitrate: config.bitrate.unwrap_or_else(|| auto_bitrate(config.codec, resolution, fps, config.max_quality)),
        fps: config.fps,
        resolution: config.resolution,
        cores,
    }
}

/// The plan with an encoder for each stream; they are not used where the source gives a coded stream.
pub fn plan(camera: &CameraConfig, machine: &Machine, encoders: &[&'static EncoderRow]) -> Result<Plan, Missing> {
    // A coded stream is the first one's, whatever the others want.
    let mut wanted = camera.streams[0].encode.clone();
    let is_touched = camera.source.flip != Flip::None || camera.streams[0].overlay.drawn.is_burned();
    let alone = !(camera.is_part || wanted.codec == Codec::Mjpeg && is_touched);
    let mut source = source::source(&camera.source, &wanted, alone, machine)?;
    if source.output != SourceMedia::Encoded && camera.streams.len() > 1 {
        wanted = wanted_by_all(camera);
        source = source::source(&camera.source, &wanted, false, machine)?;
    }
    let given_fps = wanted.fps.filter(|_| !source.limit_fps);
    let branches = encoders.iter().enumerate().map(|(number, encoder)| {
        let source = Given { output: source.output, fps: given_fps, codec: wanted.codec };
        branch(&source, camera, number, encoder, machine)
    });
    let is_auto = camera.source.kind == SourceKind::Auto;
    let others = source::choice(&camera.source, machine).into_iter();
    Ok(Plan {
        branches: branches.collect(),
        trunk: trunk(&source),
        source_label: source.label,
        head: source.text,
        codec: wanted.codec,
        output: source.output,
        given_fps,
        pacing: source.pacing,
        drawing: source.drawing,
        capture_time: source.capture_time,
        source: camera.source.kind,
        camera: source.camera,
        camera_certificate: camera.source.camera_certificate.clone(),
        links: Links::default(),
        substitute: (is_auto && source.found.is_none()).then(|| no_camera(camera, machine)),
        others: if is_auto {
            others.filter(|other| Some(other) != source.found.as_ref()).collect()
        } else {
            Vec::new()
        },
        found: source.found,
    })
}

/// What a source gives, as far as branches depend on it.
#[derive(Clone, Copy, Debug)]
pub struct Given {
    pub output: SourceMedia,
    /// See [`Plan::given_fps`].
    pub fps: Option<Fps>,
    /// Of a coded stream.
    pub codec: Codec,
}

impl Plan {
    pub fn given(&self) -> Given {
        Given { output: self.output, fps: self.given_fps, codec: self.codec }
    }
}

/// The branch of a stream, with this encoder.
pub fn branch(
    given: &Given,
    camera: &CameraConfig,
    stream: usize,
    encoder: &'static EncoderRow,
    machine: &Machine,
) -> BranchPlan {
    let encode = &camera.streams[stream].encode;
    let settings = settings(encode, machine.cores);
    let is_coded = given.output == SourceMedia::Encoded;
    let decodes = is_coded && stream > 0;
    let (flip, source_codec) = (camera.source.flip, given.codec);
    let builder = Builder { encode, flip, machine, encoder, settings: &settings, source_codec };
    BranchPlan {
        tail: builder.tail(given.output, stream),
        codec: encode.codec,
        encoder: (!is_coded || decodes).then_some(encoder),
        decodes,
        settings,
        auto_bitrate: encode.bitrate.is_none().then_some(encode.max_quality),
        fixed_size: encode.fixed_size,
        limit: None,
        max_fps: encode.fps.filter(|fps| decodes || given.fps != Some(*fps)),
        is_off: false,
    }
}

fn no_camera(camera: &CameraConfig, machine: &Machine) -> String {
    let Some(taken) = camera.source.taken.first() else {
        return "no camera is found, a test picture is shown".to_owned();
    };
    let any = SourceConfig { taken: Vec::new(), ..camera.source.clone() };
    let there: Vec<_> = source::choice(&any, machine).iter().map(ToString::to_string).collect();
    let rest = match there.is_empty() {
        true => String::new(),
        false => format!("; there is {}: to take another camera, restart the server", there.join(", ")),
    };
    format!("camera {taken} is gone, a test picture is shown{rest}")
}

/// What the source is to give: enough for all streams.
fn wanted_by_all(camera: &CameraConfig) -> EncodeConfig {
    let encodes = || camera.streams.iter().map(|stream| &stream.encode);
    // Of those that want a size of their own: where one wants the source's, the source decides.
    let sizes: Option<Vec<_>> = encodes().map(|encode| encode.resolution).collect();
    let rates: Option<Vec<_>> = encodes().map(|encode| encode.fps).collect();
    EncodeConfig {
        resolution: sizes.and_then(|sizes| sizes.into_iter().max_by_key(|size| size.pixels())),
        fps: rates.and_then(|rates| rates.into_iter().max_by(|a, b| a.as_f64().total_cmp(&b.as_f64()))),
        ..camera.streams[0].encode.clone()
    }
}

fn trunk(source: &source::Source) -> String {
    match source.pacing {
        Pacing::Live if source.output == SourceMedia::ByCaps => format!("identity name={PACE}"),
        Pacing::Live => String::new(),
        // Four frames ahead hide that the file is opened again at its end. identity and not clocksync, which is new in
        // 1.18.
        Pacing::File { .. } => format!(
            "queue name={AHEAD} max-size-buffers=4 max-size-bytes=0 max-size-time=0 ! identity name={PACE} sync=true"
        ),
    }
}

struct Builder<'a> {
    encode: &'a EncodeConfig,
    flip: Flip,
    machine: &'a Machine<'a>,
    encoder: &'static EncoderRow,
    settings: &'a Settings,
    /// Of a coded stream.
    source_codec: Codec,
}

impl Builder<'_> {
    /// Of the stream with this number, behind a source that gives `output`.
    fn tail(&self, output: SourceMedia, stream: usize) -> Tail {
        match output {
            SourceMedia::Raw => Tail::Fixed(self.raw()),
            SourceMedia::Nvmm => Tail::Fixed(self.nvmm()),
            SourceMedia::Encoded if stream > 0 => Tail::Fixed(self.decoded(false)),
            SourceMedia::Encoded => Tail::Fixed(self.encoded(false)),
            SourceMedia::ByCaps => Tail::ByCaps {
                raw: self.raw(),
                nvmm: (self.machine.has_property)("nvvidconv", "name").then(|| self.nvmm()),
                encoded: if stream > 0 { self.decoded(true) } else { self.encoded(true) },
            },
        }
    }

    fn end(&self) -> String {
        format!("{} ! {SINK}", source::parsed(self.encode.codec))
    }

    /// Behind the encoder.
    fn encoder_end(&self) -> String {
        format!("{} ! {SINK}", source::access_units(self.encoder))
    }

    fn size(&self) -> String {
        match self.encode.resolution {
            Some(Resolution { width, height }) => format!("width={width},height={height},pixel-aspect-ratio=1/1"),
            // The source's own, made even, as 4:2:0 video has to be.
            None => "width=[16,8192,2],height=[16,8192,2],pixel-aspect-ratio=1/1".to_owned(),
        }
    }

    fn raw(&self) -> String {
        let encoder = self.encoder.text_from_system(self.settings, self.machine.has_property);
        // It passes pictures untouched that are not turned; so they can be while they flow.
        let flip = match self.flip {
            Flip::None if !(self.machine.has_property)("videoflip", "method") => String::new(),
            flip => format!("videoflip name={FLIP} method={} ! ", source::turning(flip)),
        };
        format!(
            "{LEAKY} ! {}{} ! {} ! {flip}video/x-raw,format={},{} ! {encoder} ! {}",
            self.machine.progressive(),
            self.machine.threaded("videoscale"),
            self.machine.threaded("videoconvert"),
            self.encoder.format,
            self.size(),
            self.encoder_end()
        )
    }

    fn nvmm(&self) -> String {
        let has = self.machine.has_property;
        let (features, format, encoder) = match self.encoder.memory {
            Memory::Nvmm => ("(memory:NVMM)", "NV12", self.encoder.text(self.settings, has)),
            _ => ("", self.encoder.format, self.encoder.text_from_system(self.settings, has)),
        };
        // nvvidconv takes no ranges of sizes; without a wanted one, the sensor's sizes are even anyway.
        let size =
            self.encode.resolution.map_or_else(String::new, |r| format!(",width={},height={}", r.width, r.height));
        let flip = match self.flip {
            Flip::None => "",
            Flip::Horizontal => " flip-method=4",
            Flip::Vertical => " flip-method=6",
            Flip::Half => " flip-method=2",
        };
        format!(
            "{LEAKY} ! nvvidconv{flip} ! video/x-raw{features},format={format}{size} ! {encoder} ! {}",
            self.encoder_end()
        )
    }

    /// Encoded frames go through as they are: none may be dropped, so nothing here leaks.
    fn encoded(&self, parse: bool) -> String {
        if parse { self.end() } else { SINK.to_owned() }
    }

    /// From access units to others, by way of raw pictures. Nothing in front of the decoder leaks: see `decoded`.
    fn decoded(&self, parse: bool) -> String {
        let parser = if parse { format!("{} ! ", source::parsed(self.source_codec)) } else { String::new() };
        format!("{parser}{} ! {}", decoded::text(self.source_codec, self.machine), self.raw())
    }
}

/// The bit rate for a size and rate that have become known.
pub fn bitrate_for(plan: &BranchPlan, resolution: Resolution, fps: Option<Fps>) -> Bitrate {
    match plan.auto_bitrate {
        Some(max_quality) => auto_bitrate(plan.codec, resolution, fps.unwrap_or(Fps::whole(30)), max_quality),
        None => plan.settings.bitrate,
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
