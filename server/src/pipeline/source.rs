//! Sources as launch text: what stands before the seam to `plan`'s tail. Pure: what the machine has comes in as
//! [`Machine`].
//!
//! A source's text ends in raw video or in a coded stream as [`SourceMedia`] says; `plan` adds the rest. Which camera
//! is meant is found in `cameras`.

mod cameras;
mod coded;
mod container;

use std::path::Path;

use rov_common::api::CaptureTime;
use rov_common::codec::Codec;
use rov_common::units::{Fps, Resolution};
use rov_gst::decoders::depayloader;

pub use self::cameras::{CSI_ROWS, Camera, CsiCamera, CsiRow, Found, WEBCAM_ROWS, WebcamRow, choice};
use self::cameras::{csi_choice, find_csi, find_webcam, webcam_choice};
pub use self::coded::{access_units, parsed};
pub use self::container::{Container, sniff};
use super::encoder::HasProperty;
use super::mode::{self, Choice, Encoding};
use super::pip_text;
use crate::config::{CameraUrl, EncodeConfig, Flip, PipConfig, SourceConfig, SourceKind};
use crate::inlet;

/// Names of the elements that take what comes from an IP camera and from standard input.
pub const RTSP: &str = "rov_rtsp";
pub const STDIN: &str = "rov_stdin";

/// Name of the last element of a user's pipeline, which refuses what is neither raw nor coded as `--codec` says.
pub const END: &str = "rov_end";

/// Name of the element that turns a file's pictures upright.
pub const UPRIGHT: &str = "rov_upright";

/// What the machine has, as far as pipelines depend on it.
pub struct Machine<'a> {
    pub has_property: HasProperty<'a>,
    pub cores: usize,
    pub cameras: Vec<Camera>,
    pub csi: Vec<CsiCamera>,
    /// The container of the configured file; `None` where it is not one of the known ones or was not looked at.
    pub container: Option<Container>,
    /// File descriptor of `--source stdin`; 0 except in tests.
    pub stdin_fd: i32,
    /// Whether that is a regular file.
    pub stdin_is_file: bool,
    /// Whether an element that there is finds the hardware that it needs.
    pub opens: &'a dyn Fn(&str) -> bool,
}

impl Machine<'_> {
    /// An element that may use several threads where it can.
    pub fn threaded(&self, element: &str) -> String {
        if (self.has_property)(element, "n-threads") {
            format!("{element} n-threads={}", self.cores.clamp(1, 4))
        } else {
            element.to_owned()
        }
    }

    /// One progressive picture from the two fields of an interlaced one, without waiting for a later field
    /// (`wiring::first_fields`). Progressive pictures pass untouched. The converter works only for interlaced formats
    /// that the deinterlacer cannot take.
    pub fn progressive(&self) -> String {
        if !(self.has_property)("deinterlace", "mode") {
            return String::new();
        }
        let convert = self.threaded("videoconvert");
        format!("{convert} ! deinterlace mode=auto-strict method=greedyl fields=top ! ")
    }

    /// From NVIDIA's memory to the system's; empty where there is none of the former.
    pub fn download(&self) -> &'static str {
        if (self.has_property)("nvvidconv", "name") { "nvvidconv ! video/x-raw ! " } else { "" }
    }
}

/// What leaves a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceMedia {
    /// Raw video in system memory.
    Raw,
    /// Raw video in the memory of NVIDIA Jetson.
    Nvmm,
    /// A stream of the configured codec, byte stream, one access unit a buffer.
    Encoded,
    /// Raw or encoded: seen when the source has negotiated.
    ByCaps,
}

/// Who decides when a frame is due.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pacing {
    /// The source gives frames when they happen.
    Live,
    /// Frames have timestamps and are held until then; at the end the source starts again if `looping`.
    /// `interval_of` is the rate of a source that has no timestamps of its own.
    File { looping: bool, interval_of: Fps },
}

/// What is drawn into each picture of the test source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drawing {
    /// Text above the time, as `NO CAMERA`.
    pub label: Option<String>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Source {
    /// In words, for the log and the stats.
    pub label: String,
    pub text: String,
    pub output: SourceMedia,
    pub pacing: Pacing,
    pub drawing: Option<Drawing>,
    /// The source may be faster than wanted, so that frames have to be left out evenly.
    pub limit_fps: bool,
    /// Where an IP camera is: set by `rtsp`, and not in the text, which is logged.
    pub camera: Option<CameraUrl>,
    /// The webcam or CSI camera that is taken.
    pub found: Option<Found>,
    /// Whose time the pictures have.
    pub capture_time: CaptureTime,
}

/// A source that cannot be had now (a camera that is missing), and what there is instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing(pub String);

/// The source's text for this machine. `wanted`: what is to be made of the pictures; `alone`: nothing else is made of
/// them.
pub fn source(config: &SourceConfig, wanted: &EncodeConfig, alone: bool, machine: &Machine) -> Result<Source, Missing> {
    match config.kind {
        SourceKind::Auto => Ok(match (csi_choice(config, machine).next(), webcam_choice(config, machine).next()) {
            (Some(camera), _) => csi(wanted, camera),
            (None, Some(camera)) => webcam(wanted, alone, camera),
            (None, None) => test(wanted, Some("NO CAMERA")),
        }),
        SourceKind::Webcam => find_webcam(config, machine).map(|camera| webcam(wanted, alone, camera)),
        SourceKind::Csi => find_csi(config, machine).map(|camera| csi(wanted, camera)),
        SourceKind::File => file(config, wanted, machine),
        SourceKind::Stdin => Ok(stdin(wanted, machine)),
        SourceKind::Rtsp => Ok(ip_camera(config, wanted.codec)),
        SourceKind::Publish => Ok(published(wanted.codec)),
        SourceKind::Test => Ok(test(wanted, None)),
        SourceKind::Pipeline => Ok(user_pipeline(config, wanted.codec)),
        SourceKind::Pip => Ok(pictures(config, wanted, machine)),
    }
}

/// A string as a value in launch text.
pub fn quote(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

fn size_caps(resolution: Option<Resolution>) -> String {
    resolution.map_or_else(String::new, |r| format!(",width={},height={}", r.width, r.height))
}

fn rate_caps(fps: Option<Fps>) -> String {
    fps.map_or_else(String::new, |fps| format!(",framerate={}/{}", fps.num, fps.den))
}

fn live(label: String, text: String, output: SourceMedia) -> Source {
    Source {
        label,
        text,
        output,
        pacing: Pacing::Live,
        drawing: None,
        limit_fps: false,
        camera: None,
        found: None,
        capture_time: CaptureTime::Arrival,
    }
}

fn test(wanted: &EncodeConfig, label: Option<&str>) -> Source {
    let resolution = wanted.resolution.unwrap_or(Resolution::new(1280, 720));
    let caps = format!(
        "video/x-raw,format=I420{}{}",
        size_caps(Some(resolution)),
        rate_caps(Some(wanted.fps.unwrap_or(Fps::whole(30))))
    );
    let source = live(
        label.map_or_else(|| "test picture".to_owned(), |label| format!("test picture ({label})")),
        format!("videotestsrc is-live=true pattern=smpte horizontal-speed=4 ! {caps}"),
        SourceMedia::Raw,
    );
    let drawing = Some(Drawing { label: label.map(str::to_owned) });
    Source { drawing, capture_time: CaptureTime::Source, ..source }
}

fn webcam(wanted: &EncodeConfig, alone: bool, camera: &Camera) -> Source {
    let label = format!("webcam {} ({})", camera.id, camera.name);
    let found = Some(Found::webcam(camera));
    // V4L2 says when the picture began to come from the sensor; `do-timestamp` only fills in where an element does not.
    let capture_time = if camera.element == "v4l2src" { CaptureTime::Source } else { CaptureTime::Arrival };
    let element = format!("{} {}={}", camera.element, camera.property, quote(&camera.id));
    // A camera's H.264 is of use only where H.264 is wanted, and nothing else.
    let passes = wanted.codec == Codec::H264 && alone;
    let passes_jpeg = wanted.codec == Codec::Mjpeg && alone;
    let usable = |mode: &&mode::Mode| match mode.encoding {
        Encoding::H264 => passes,
        // To decode pictures and encode them again costs a processor core, and makes them worse.
        Encoding::Raw(_) if passes_jpeg => !camera.modes.iter().any(|mode| mode.encoding == Encoding::Jpeg),
        _ => true,
    };
    let modes: Vec<_> = camera.modes.iter().filter(usable).cloned().collect();
    let Some(Choice { encoding, resolution, fps }) = mode::choose(&modes, wanted.resolution, wanted.fps) else {
        // Negotiated when it starts; decodebin passes raw video through and decodes the rest.
        return Source {
            limit_fps: true,
            found,
            capture_time,
            ..live(label, format!("{element} do-timestamp=true ! decodebin ! video/x-raw"), SourceMedia::Raw)
        };
    };
    let caps = format!("{}{}", size_caps(Some(resolution)), rate_caps(fps));
    let (text, output) = match encoding {
        Encoding::Raw(format) => (format!("video/x-raw,format={format}{caps}"), SourceMedia::Raw),
        Encoding::Jpeg if passes_jpeg => (format!("image/jpeg{caps} ! {}", parsed(Codec::Mjpeg)), SourceMedia::Encoded),
        // A picture that waits for the JPEG decoder is old: the same rule as before the encoder.
        Encoding::Jpeg => (
            format!(
                "image/jpeg{caps} ! queue max-size-buffers=1 max-size-bytes=0 max-size-time=0 leaky=downstream ! \
                 jpegdec"
            ),
            SourceMedia::Raw,
        ),
        Encoding::H264 => (format!("video/x-h264{caps} ! {}", parsed(Codec::H264)), SourceMedia::Encoded),
    };
    let limit_fps = matches!((wanted.fps, fps), (Some(wanted), Some(own)) if own.as_f64() > wanted.as_f64());
    Source { limit_fps, found, capture_time, ..live(label, format!("{element} do-timestamp=true ! {text}"), output) }
}

fn csi(wanted: &EncodeConfig, camera: &CsiCamera) -> Source {
    let row = camera.row;
    let caps = format!("{}{}{}", row.caps, size_caps(wanted.resolution), rate_caps(wanted.fps));
    let source = live(
        format!("CSI camera {} ({})", camera.id, row.element),
        format!("{} {}={} ! {caps}", row.element, row.property, quote(&camera.id)),
        if row.nvmm { SourceMedia::Nvmm } else { SourceMedia::Raw },
    );
    Source { found: Some(Found::csi(camera)), capture_time: row.capture_time, ..source }
}

fn file(config: &SourceConfig, wanted: &EncodeConfig, machine: &Machine) -> Result<Source, Missing> {
    // `Config::validate` lets no file source through without a file.
    let path = config.file.as_deref().unwrap_or(Path::new(""));
    let reader = format!("filesrc location={}", quote(&path.to_string_lossy()));
    let (label, text, output) = if config.file_passthrough {
        let demuxer = match machine.container {
            Some(Container::Mp4) => "qtdemux ! ",
            Some(Container::Matroska) => "matroskademux ! ",
            Some(Container::MpegTs) => "tsdemux ! ",
            Some(Container::AnnexB) => "",
            None => {
                return Err(Missing(format!(
                    "{}: not MP4, MKV, MPEG-TS or raw {}; drop --file-passthrough so that it is re-encoded",
                    path.display(),
                    wanted.codec.title()
                )));
            }
        };
        // The caps name the video: of the demuxer's pads only that of the codec is linked, and audio stays out.
        let text = format!("{reader} ! {demuxer}{} ! {}", wanted.codec.media_type(), parsed(wanted.codec));
        (format!("file {} (passthrough)", path.display()), text, SourceMedia::Encoded)
    } else {
        // A hardware decoder of the Jetson gives its own memory, which nothing but this takes to system memory.
        let download = machine.download();
        let caps = if download.is_empty() { "video/x-raw" } else { "video/x-raw(ANY)" };
        // Phones film on their side, and say in the file how to turn it (`wiring::turn`). Otherwise the pictures pass
        // untouched.
        let turns = (machine.has_property)("videoflip", "video-direction");
        let flip = if turns { format!(" ! videoflip name={UPRIGHT}") } else { String::new() };
        let text = format!("{reader} ! decodebin ! {caps} ! {download}videoconvert{flip}");
        (format!("file {}", path.display()), text, SourceMedia::Raw)
    };
    let pacing = Pacing::File { looping: config.looping, interval_of: wanted.fps.unwrap_or(Fps::whole(30)) };
    Ok(Source {
        label,
        text,
        output,
        pacing,
        drawing: None,
        limit_fps: output == SourceMedia::Raw,
        camera: None,
        found: None,
        capture_time: CaptureTime::Arrival,
    })
}

fn stdin(wanted: &EncodeConfig, machine: &Machine) -> Source {
    let (name, fd) = (STDIN, machine.stdin_fd);
    let text = |times: &str| format!("fdsrc name={name} fd={fd}{times} blocksize=65536 ! {}", parsed(wanted.codec));
    if machine.stdin_is_file {
        let pacing = Pacing::File { looping: false, interval_of: wanted.fps.unwrap_or(Fps::whole(30)) };
        return Source { pacing, ..live("standard input (a file)".to_owned(), text(""), SourceMedia::Encoded) };
    }
    // Time of arrival is all that a pipe knows of time.
    live("standard input".to_owned(), text(" do-timestamp=true"), SourceMedia::Encoded)
}

/// Packets that come in order go straight through the jitter buffer; `latency` is how long a gap waits for packets that
/// were overtaken. Without packets by UDP for two seconds `rtspsrc` takes TCP. Parameter sets come in the SDP, in the
/// stream or in both: as `avc` they are in the caps, from where the parser writes them before each keyframe.
fn ip_camera(config: &SourceConfig, codec: Codec) -> Source {
    let packed = match codec {
        Codec::H264 => ",stream-format=avc,alignment=au",
        Codec::H265 => ",stream-format=hvc1,alignment=au",
        Codec::Mjpeg => "",
    };
    let text = format!(
        "rtspsrc name={} latency=40 protocols=udp+tcp timeout=2000000 tcp-timeout=5000000 udp-buffer-size=2097152 \
         ! application/x-rtp,media=video,encoding-name={} ! {} \
         ! {}{packed} ! {}",
        RTSP,
        codec.rtp_name(),
        depayloader(codec),
        codec.media_type(),
        parsed(codec)
    );
    let label = config.url.as_ref().map_or_else(String::new, |url| format!("camera {url}"));
    Source { camera: config.url.clone(), ..live(label, text, SourceMedia::Encoded) }
}

/// What `Inlet` puts in: access units with the time of arrival.
fn published(codec: Codec) -> Source {
    let text = format!("appsrc name={} is-live=true format=time ! {}", inlet::ELEMENT, parsed(codec));
    live("what is published by RTSP".to_owned(), text, SourceMedia::Encoded)
}

/// What `Pip` puts in, at the rate of the camera that is large.
fn pictures(config: &SourceConfig, wanted: &EncodeConfig, machine: &Machine) -> Source {
    let before = format!("{}{}", machine.download(), machine.progressive());
    let (scale, convert) = (&machine.threaded("videoscale"), &machine.threaded("videoconvert"));
    let text = |pip: &PipConfig| {
        // One that has to be turned says by itself what is missing.
        let turns = (machine.has_property)("videoflip", "method") || pip.parts.iter().any(|p| p.flip != Flip::None);
        (pip_text::label(pip), pip_text::text(wanted.resolution, &before, scale, convert, turns))
    };
    let texts = config.pip.as_ref().map(text);
    // `Config` lets no such source through without its cameras.
    let (label, text) = texts.unwrap_or_default();
    Source { limit_fps: true, ..live(label, text, SourceMedia::Raw) }
}

fn user_pipeline(config: &SourceConfig, codec: Codec) -> Source {
    let description = config.pipeline.as_deref().unwrap_or_default().trim().trim_end_matches('!').trim_end();
    let coded = codec.media_type();
    let text = format!("{description} ! capsfilter name={END} caps=\"video/x-raw;video/x-raw(memory:NVMM);{coded}\"");
    Source { limit_fps: true, ..live("user's pipeline".to_owned(), text, SourceMedia::ByCaps) }
}

/// The property `method` of the element `videoflip`.
pub fn turning(flip: Flip) -> &'static str {
    match flip {
        Flip::None => "none",
        Flip::Horizontal => "horizontal-flip",
        Flip::Vertical => "vertical-flip",
        Flip::Half => "rotate-180",
    }
}

#[cfg(test)]
#[path = "source_tests.rs"]
mod tests;
