//! Looks into a file before it is served: whether it is there, what it is, and for `--file-passthrough` whether WebRTC
//! viewers can show it.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use gstreamer as gst;
use gstreamer::prelude::*;

use super::graph::has_b_slices;
use super::message;
use super::plan::JOIN;
use super::source::{Container, sniff};

/// B-frames show within the first group of pictures, but a file may begin with a title that stands still.
const FRAMES: u64 = 300;
/// For a file on a slow disk.
const LIMIT: Duration = Duration::from_secs(3);

/// Why a stream with B-frames is refused, and what to do.
pub const B_FRAMES: &str = "the H.264 stream has B-frames, which WebRTC viewers cannot show; drop --file-passthrough so that it is re-encoded, or encode it without B-frames";

/// The first bytes of the file as a container; an error if it cannot be read.
pub fn container(path: &Path) -> Result<Option<Container>, String> {
    let mut head = Vec::new();
    let file = File::open(path).map_err(|error| format!("{}: {error}", path.display()))?;
    file.take(256).read_to_end(&mut head).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(sniff(&head))
}

/// Reads the first frames of a passthrough head (text ending in `identity name=rov_join`); an error says why it is refused.
pub fn passthrough(path: &Path, head_text: &str) -> Result<(), String> {
    let name = path.display();
    let refused = |reason: String| format!("{name}: {reason}; drop --file-passthrough so that it is re-encoded");
    let text = format!("{head_text} ! fakesink name=rov_out sync=false");
    let element = gst::parse::launch(&text).map_err(|error| format!("{name}: {}", error.message()))?;
    let (frames, b_frames) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let pad = element.downcast_ref::<gst::Bin>().and_then(|bin| bin.by_name(JOIN)?.static_pad("src"));
    let pad = pad.ok_or_else(|| format!("{name}: nothing to look at in {text}"))?;
    let (count, found) = (frames.clone(), b_frames.clone());
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        let map = info.buffer().and_then(|buffer| buffer.map_readable().ok());
        if map.is_some_and(|map| has_b_slices(&map)) {
            found.store(true, Ordering::Relaxed);
        }
        count.fetch_add(1, Ordering::Relaxed);
        gst::PadProbeReturn::Ok
    });
    let outcome = watch(&element, &frames, &b_frames);
    if element.set_state(gst::State::Null).is_err() {
        tracing::warn!("{name}: does not close cleanly");
    }
    if b_frames.load(Ordering::Relaxed) {
        return Err(format!("{name}: {B_FRAMES}"));
    }
    match outcome {
        _ if frames.load(Ordering::Relaxed) > 0 => Ok(()),
        Some(error) => Err(refused(format!("no H.264 video in it ({error})"))),
        None => Err(refused("no H.264 video in it".to_owned())),
    }
}

/// Until enough frames were seen, the file has ended, or the time is up; the error if there is one.
fn watch(element: &gst::Element, frames: &AtomicU64, b_frames: &AtomicBool) -> Option<String> {
    let bus = element.bus()?;
    let end = Instant::now() + LIMIT;
    if element.set_state(gst::State::Playing).is_err() {
        return message::pending_error(&bus).or_else(|| Some("cannot be opened".to_owned()));
    }
    while Instant::now() < end && frames.load(Ordering::Relaxed) < FRAMES && !b_frames.load(Ordering::Relaxed) {
        let types = [gst::MessageType::Error, gst::MessageType::Eos];
        let Some(message) = bus.timed_pop_filtered(gst::ClockTime::from_mseconds(5), &types) else { continue };
        return match message.view() {
            gst::MessageView::Error(error) => Some(message::error_text(error)),
            _ => None,
        };
    }
    None
}
