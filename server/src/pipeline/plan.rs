//! From configuration and machine to the text of a pipeline. Pure.
//!
//! ```text
//! head: SOURCE ! identity name=rov_join
//! tail: [queue ! identity sync=true (file)] ! leaky queue of one frame ! [deinterlace] ! scale ! convert ! caps ! ENCODER ! [parse] ! appsink
//!   or: [queue ! identity sync=true (file)] ! appsink                                              (a coded stream, untouched)
//! ```
//!
//! Head and tail are two bins: the head of a file is built anew for each round, and the tail of a user's pipeline is
//! chosen when it has negotiated. Probes of `build` do the rest: counting, thinning out, pacing.

use std::sync::Arc;

use rov_common::codec::Codec;
use rov_common::units::{Bitrate, Fps, Resolution};

use super::encoder::{EncoderRow, Memory, Settings};
use super::inlet::Inlet;
use super::source::{self, Drawing, Machine, Missing, Output, Pacing};
use crate::config::{CameraConfig, CameraUrl, EncodeConfig, Flip, SourceKind, Trust, auto_bitrate};

/// Names of elements that `graph` looks for.
pub const JOIN: &str = "rov_join";
pub const AHEAD: &str = "rov_ahead";
pub const PACE: &str = "rov_pace";
pub const RAW_QUEUE: &str = "rov_raw";
pub const OUT: &str = "rov_out";
pub const FIELDS: &str = "rov_fields";

/// The raw frame that waits for the encoder: one, and the newest wins, so that a slow encoder costs frames and not delay.
const LEAKY: &str = "queue name=rov_raw max-size-buffers=1 max-size-bytes=0 max-size-time=0 leaky=downstream";

/// Access units leave in a callback that only hands over, so that two never wait here; the bound is for a stalled machine.
const SINK: &str = "appsink name=rov_out sync=false async=false max-buffers=4 drop=false";

/// What follows the head.
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
    pub tail: Tail,
    /// Of what goes out.
    pub codec: Codec,
    /// None: the source's stream goes out untouched.
    pub encoder: Option<&'static EncoderRow>,
    pub settings: Settings,
    /// The bit rate follows size and rate once they are known: `Some(max_quality)`.
    pub auto_bitrate: Option<bool>,
    /// The size never follows the link.
    pub fixed_size: bool,
    /// Begin with no more than this: what the viewers' links carried before a restart.
    pub limit: Option<Bitrate>,
    pub pacing: Pacing,
    pub drawing: Option<Drawing>,
    /// Raw frames beyond this rate are left out.
    pub max_fps: Option<Fps>,
    /// What the stream comes from where nothing here encodes it: what to do about it depends on that.
    pub source: SourceKind,
    /// The IP camera, of which the stream of `codec` is taken.
    pub camera: Option<CameraUrl>,
    pub camera_certificate: Trust,
    /// What a publisher's pictures come by.
    pub inlet: Option<Arc<Inlet>>,
    /// `--source auto` has found no camera, and shows the test picture in its place.
    pub is_fallback: bool,
}

impl Plan {
    /// The whole pipeline as launch text, for the log.
    pub fn text(&self) -> String {
        let tail = match &self.tail {
            Tail::Fixed(tail) => tail,
            Tail::ByCaps { raw, .. } => raw,
        };
        format!("{} ! {tail}", self.head_text())
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
        low_latency: config.low_latency,
        preset: config.preset,
        keyframe_interval: config.keyframe_interval,
        level: config.level,
        bitrate: config.bitrate.unwrap_or_else(|| auto_bitrate(config.codec, resolution, fps, config.max_quality)),
        fps: config.fps,
        resolution: config.resolution,
        cores,
    }
}

/// The plan with this encoder; it is not used where the source gives a coded stream.
pub fn plan(camera: &CameraConfig, machine: &Machine, encoder: &'static EncoderRow) -> Result<Plan, Missing> {
    let encode = &camera.streams[0].encode;
    let source = source::source(&camera.source, encode, machine)?;
    let settings = settings(encode, machine.cores);
    let builder = Builder { encode, flip: camera.source.flip, machine, encoder, settings: &settings, source: &source };
    let tail = match source.output {
        Output::Raw => Tail::Fixed(builder.raw()),
        Output::Nvmm => Tail::Fixed(builder.nvmm()),
        Output::Encoded => Tail::Fixed(builder.encoded(false)),
        Output::ByCaps => Tail::ByCaps {
            raw: builder.raw(),
            nvmm: (machine.has_property)("nvvidconv", "name").then(|| builder.nvmm()),
            encoded: builder.encoded(true),
        },
    };
    Ok(Plan {
        source_label: source.label,
        head: source.text,
        tail,
        codec: encode.codec,
        encoder: (source.output != Output::Encoded).then_some(encoder),
        settings,
        auto_bitrate: encode.bitrate.is_none().then_some(encode.max_quality),
        fixed_size: encode.fixed_size,
        limit: None,
        pacing: source.pacing,
        drawing: source.drawing,
        max_fps: encode.fps.filter(|_| source.limit_fps),
        source: camera.source.kind,
        camera: source.camera,
        camera_certificate: camera.source.camera_certificate.clone(),
        inlet: None,
        is_fallback: camera.source.kind == SourceKind::Auto && machine.csi.is_empty() && machine.cameras.is_empty(),
    })
}

struct Builder<'a> {
    encode: &'a EncodeConfig,
    flip: Flip,
    machine: &'a Machine<'a>,
    encoder: &'static EncoderRow,
    settings: &'a Settings,
    source: &'a source::Source,
}

impl Builder<'_> {
    /// What both kinds of tail begin with.
    fn start(&self) -> String {
        match self.source.pacing {
            Pacing::Live if self.source.output == Output::ByCaps => format!("identity name={PACE} ! "),
            Pacing::Live => String::new(),
            // Four frames ahead hide that the file is opened again at its end. identity and not clocksync, which is new in 1.18.
            Pacing::File { .. } => format!(
                "queue name={AHEAD} max-size-buffers=4 max-size-bytes=0 max-size-time=0 ! identity name={PACE} sync=true ! "
            ),
        }
    }

    /// Frames that are too many are left out at the queue (`thin`).
    fn queue(&self) -> String {
        format!("{}{LEAKY}", self.start())
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

    /// An element that may use several threads where it can.
    fn threaded(&self, element: &str) -> String {
        if (self.machine.has_property)(element, "n-threads") {
            format!("{element} n-threads={}", self.machine.cores.clamp(1, 4))
        } else {
            element.to_owned()
        }
    }

    /// One progressive picture from the two fields of an interlaced one, without waiting for a later field (`wiring::first_field`).
    /// Progressive pictures pass untouched. The converter works only for interlaced formats that the deinterlacer cannot take.
    fn progressive(&self) -> String {
        if !(self.machine.has_property)("deinterlace", "mode") {
            return String::new();
        }
        let convert = self.threaded("videoconvert");
        format!("{convert} ! deinterlace name={FIELDS} mode=auto-strict method=greedyl fields=top ! ")
    }

    fn raw(&self) -> String {
        let encoder = self.encoder.text_from_system(self.settings, self.machine.has_property);
        let flip = match self.flip {
            Flip::None => "",
            Flip::Horizontal => "videoflip method=horizontal-flip ! ",
            Flip::Vertical => "videoflip method=vertical-flip ! ",
            Flip::Half => "videoflip method=rotate-180 ! ",
        };
        format!(
            "{} ! {}{} ! {} ! {flip}video/x-raw,format={},{} ! {encoder} ! {}",
            self.queue(),
            self.progressive(),
            self.threaded("videoscale"),
            self.threaded("videoconvert"),
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
            "{} ! nvvidconv{flip} ! video/x-raw{features},format={format}{size} ! {encoder} ! {}",
            self.queue(),
            self.encoder_end()
        )
    }

    /// Encoded frames go through as they are: none may be dropped, so nothing here leaks.
    fn encoded(&self, parse: bool) -> String {
        let end = if parse { self.end() } else { SINK.to_owned() };
        format!("{}{end}", self.start())
    }
}

/// The bit rate for a size and rate that have become known.
pub fn bitrate_for(plan: &Plan, resolution: Resolution, fps: Option<Fps>) -> Bitrate {
    match plan.auto_bitrate {
        Some(max_quality) => auto_bitrate(plan.codec, resolution, fps.unwrap_or(Fps::whole(30)), max_quality),
        None => plan.settings.bitrate,
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
