//! The parts of the references' pipelines. Encoder and decoder come from the project's own tables: the same elements
//! with the same settings on both sides of every comparison.

use anyhow::{Context, Result};
use rov_common::codec::Codec;
use rov_common::units::{Bitrate, Fps, Resolution};
use rov_gst::decoders::{self, DecoderChoice};
use rov_gst::element::{exists, has_property};
use rov_server::config::Profile;
use rov_server::pipeline::encoder::{self, Settings};

use super::RoleArgs;
use crate::point::Point;

pub const ENCODER: &str = "x264enc";
pub const DECODER: &str = "avdec_h264";

/// What rov-server sends, so that both cut pictures into as many packets.
const MTU: u32 = 1200;

/// RTP over UDP as the plain receiver wants it; the payload type is that of rov-server.
pub const RTP_CAPS: &str = "application/x-rtp,media=video,clock-rate=90000,encoding-name=H264,payload=96";

/// Takes pictures as they are: no clock, no queue.
pub const APPSINK: &str = "appsink name=out sync=false async=false qos=false max-buffers=1 enable-last-sample=false";

/// H.264 of the point, or of the clip at the speed of life.
pub fn coded(args: &RoleArgs) -> Result<String> {
    match &args.clip {
        None => Ok(format!("{} ! {}", source(&args.point), encoder(&args.point)?)),
        Some(clip) => Ok(format!(
            "multifilesrc location=\"{}\" loop=true caps=video/x-h264,stream-format=byte-stream ! h264parse ! {CODED} \
             ! queue max-size-buffers=4 max-size-bytes=0 max-size-time=0 ! identity name=pace sync=true",
            clip.display()
        )),
    }
}

/// From RTP to what is read: pictures, or access units where there is a clip.
pub fn receiver(args: &RoleArgs) -> Result<String> {
    let depay = "rtph264depay name=depay";
    Ok(match args.clip {
        None => format!("{depay} ! {} ! {APPSINK}", decoder()?),
        Some(_) => format!("{depay} ! {CODED} ! {} ! fakesink sync=false async=false", super::UNITS),
    })
}

const CODED: &str = "video/x-h264,stream-format=byte-stream,alignment=au";

/// Pictures of the point.
fn source(point: &Point) -> String {
    let Point { width, height, fps, .. } = point;
    format!("rovbenchsrc ! video/x-raw,format=I420,width={width},height={height},framerate={fps}/1")
}

/// From raw pictures to H.264.
fn encoder(point: &Point) -> Result<String> {
    let row = encoder::rows(Codec::H264).iter().find(|row| row.element == ENCODER);
    let settings = Settings {
        profile: Profile::Baseline,
        low_latency: true,
        preset: None,
        keyframe_interval: None,
        level: None,
        bitrate: Bitrate::from_kbps(point.kbps),
        fps: Some(Fps::whole(point.fps)),
        resolution: Some(Resolution::new(point.width, point.height)),
        cores: std::thread::available_parallelism().map_or(1, usize::from),
    };
    Ok(row.context("no x264 in the table of encoders")?.text(&settings, &has_property))
}

/// From H.264 to raw pictures.
pub fn decoder() -> Result<String> {
    let choice = DecoderChoice::Element(DECODER.to_owned());
    let candidates = decoders::candidates(Codec::H264, &choice, &exists, &has_property);
    let candidate = candidates.into_iter().next().context("no decoder avdec_h264: is gstreamer1.0-libav installed?")?;
    Ok(format!("{CODED} ! {}", candidate.description))
}

/// x264 puts the parameter sets before each keyframe. `config-interval` would put them before each of its slices, and
/// the decoder then loses all but the last.
pub fn payloader(name: &str) -> String {
    // Single packets for parameter sets are held back for ever without it; before 1.18 there is no such property, and
    // no holding.
    let aggregate = if has_property("rtph264pay", "aggregate-mode") { " aggregate-mode=zero-latency" } else { "" };
    format!("rtph264pay name={name} pt=96 mtu={MTU}{aggregate}")
}
