//! Looks into a file before it is served: whether it is there, what it is, whether there is video in it, and for
//! `--file-passthrough` whether viewers can show it.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use gstreamer as gst;
use gstreamer::prelude::*;
use rov_common::codec::Codec;
use rov_gst::message;

use super::plan::JOIN;
use super::playable::{self, Problem};
use super::source::{Container, sniff};
use crate::config::SourceKind;

/// B-frames show within the first group of pictures, but a file may begin with a title that stands still.
const PASSTHROUGH_FRAMES: u64 = 300;
/// A picture is one frame.
const VIDEO_FRAMES: u64 = 2;
/// For a file on a slow disk, or a machine that has much else to do.
const LIMIT: Duration = Duration::from_secs(10);

/// The first bytes of the file as a container; an error if it cannot be read.
pub fn container(path: &Path) -> Result<Option<Container>, String> {
    beginning(path).map(|head| sniff(&head))
}

fn beginning(path: &Path) -> Result<Vec<u8>, String> {
    let mut head = Vec::new();
    let file = File::open(path).map_err(|error| format!("{}: {error}", path.display()))?;
    file.take(256).read_to_end(&mut head).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(head)
}

/// Reads the first frames of a passthrough head (text ending in `identity name=rov_join`); an error says why it is
/// refused.
pub fn passthrough(path: &Path, codec: Codec, head_text: &str) -> Result<(), String> {
    let name = path.display();
    let problem = Arc::new(OnceLock::<Problem>::new());
    let found = problem.clone();
    let look = look(path, head_text, PASSTHROUGH_FRAMES, move |au| {
        let problem = playable::problem(codec, au);
        problem.is_some_and(|problem| {
            // The first one is as good as any.
            let _ = found.set(problem);
            true
        })
    })?;
    match problem.get() {
        Some(problem) => Err(format!("{name}: {}", playable::refusal(codec, *problem, SourceKind::File))),
        None if look.frames > 0 => Ok(()),
        None => {
            let error = look.error.map_or_else(String::new, |error| format!(" ({error})"));
            let others = codec.others().filter(|other| other.has_parameter_sets());
            let others: Vec<_> = others.map(|other| format!("--codec {other} if it is {}", other.title())).collect();
            Err(format!(
                "{name}: no {} video in it{error}; drop --file-passthrough so that it is re-encoded, or give {}",
                codec.title(),
                others.join(", ")
            ))
        }
    }
}

/// Decodes the first frames; an error says why there is nothing to play.
pub fn video(path: &Path, head_text: &str) -> Result<(), String> {
    let name = path.display();
    // At its end FFmpeg's demuxer in GStreamer (1.22) goes round in circles at full load, and never says that it is the
    // end.
    if beginning(path)?.starts_with(b"GIF8") {
        return Err(format!(
            "{name}: is a GIF animation, which GStreamer does not read to its end; convert it: ffmpeg -i FILE.gif \
             -pix_fmt yuv420p FILE.mp4"
        ));
    }
    let Look { frames, ended, error, missing } = look(path, head_text, VIDEO_FRAMES, |_| false)?;
    match (frames, error) {
        (1, None) if ended => Err(format!("{name}: is a picture, not a video")),
        (1.., _) => Ok(()),
        (0, Some(_)) if missing.is_some() => Err(format!(
            "{name}: no {} is installed here; install gstreamer1.0-libav, or convert the file",
            missing.unwrap_or_default()
        )),
        // What has only sound fails because nothing takes its sound: GStreamer's words for that help nobody.
        (0, Some(error)) if !error.contains("not-linked") => Err(format!("{name}: no video in it ({error})")),
        (0, Some(_)) => Err(format!("{name}: no video in it")),
        (0, None) if ended => Err(format!("{name}: no video in it")),
        // A slow disk or a slow decoder; the start will tell.
        (0, None) => Ok(()),
    }
}

/// What a look into a file has shown.
#[derive(Debug, Default)]
struct Look {
    frames: u64,
    /// The file's end was reached.
    ended: bool,
    error: Option<String>,
    /// The plug-in that GStreamer misses, as `H.265 (Main Profile) decoder`.
    missing: Option<String>,
}

impl Look {
    fn says_nothing(&self) -> bool {
        !self.ended && self.error.is_none() && self.missing.is_none()
    }
}

/// Runs the head until `enough` frames came, `found` says so, or the file or the time is over.
fn look(
    path: &Path,
    head_text: &str,
    enough: u64,
    found: impl Fn(&[u8]) -> bool + Send + Sync + 'static,
) -> Result<Look, String> {
    let name = path.display();
    let text = format!("{head_text} ! fakesink name=rov_out sync=false");
    let element = gst::parse::launch(&text).map_err(|error| format!("{name}: {}", error.message()))?;
    let pad = element.downcast_ref::<gst::Bin>().and_then(|bin| bin.by_name(JOIN)?.static_pad("src"));
    let pad = pad.ok_or_else(|| format!("{name}: nothing to look at in {text}"))?;
    let frames = Arc::new(AtomicU64::new(0));
    let count = frames.clone();
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        let map = info.buffer().and_then(|buffer| buffer.map_readable().ok());
        // Found is enough.
        let step = if map.is_some_and(|map| found(&map)) { enough } else { 1 };
        count.fetch_add(step, Ordering::AcqRel);
        gst::PadProbeReturn::Ok
    });
    let mut look = watch(&element, &frames, enough);
    let close = || {
        if element.set_state(gst::State::Null).is_err() {
            tracing::warn!("{name}: does not close cleanly");
        }
    };
    close();
    // decodebin keeps an error to itself that comes while it is still connecting elements, and then nothing comes at
    // all.
    if look.says_nothing() && frames.load(Ordering::Acquire) == 0 {
        look = watch(&element, &frames, enough);
        close();
    }
    Ok(Look { frames: frames.load(Ordering::Acquire), ..look })
}

fn watch(element: &gst::Element, frames: &AtomicU64, enough: u64) -> Look {
    let mut look = Look::default();
    let Some(bus) = element.bus() else { return look };
    let end = Instant::now() + LIMIT;
    // A failure leaves its reason on the bus.
    let started = element.set_state(gst::State::Playing).is_ok();
    let types = [gst::MessageType::Error, gst::MessageType::Eos, gst::MessageType::Element];
    while Instant::now() < end && frames.load(Ordering::Acquire) < enough {
        let wait = gst::ClockTime::from_mseconds(if started { 5 } else { 0 });
        let message = bus.timed_pop_filtered(wait, &types);
        match message.as_ref().map(|message| message.view()) {
            Some(gst::MessageView::Error(error)) => {
                look.error = Some(message::error_text(error));
                return look;
            }
            Some(gst::MessageView::Eos(_)) => {
                look.ended = true;
                return look;
            }
            Some(gst::MessageView::Element(message)) => {
                let structure = message.structure().filter(|structure| structure.name() == "missing-plugin");
                look.missing = look.missing.or(structure.and_then(|structure| structure.get("name").ok()));
            }
            _ if started => {}
            _ => {
                look.error = Some("cannot be opened".to_owned());
                return look;
            }
        }
    }
    look
}
