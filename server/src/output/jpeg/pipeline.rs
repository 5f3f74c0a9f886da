//! The pipeline that makes JPEG pictures, and what feeds it.
//!
//! ```text
//! appsrc ! decodebin ! tee ! leaky queue(1) ! convert ! jpegenc ! appsink              (a snapshot, while one is
//! wanted)
//!                      tee ! leaky queue(1) ! scale ! convert ! jpegenc ! appsink      (previews, at the rate that is wanted)
//! ```
//!
//! The timestamps in it are times of capture, so that each picture knows its own. Everything is decoded, as each
//! picture depends on the one before, and what is not wanted is left out in front of the queues.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;
use rov_common::codec::Codec;
use rov_common::sync::lock;
use rov_gst::counter::{self, Counter};
use rov_gst::decoders::coded_caps;
use rov_gst::element::has_property;
use rov_gst::message;

use super::{PREVIEW_WIDTH, Picture, Rate, Shared, Size};
use crate::hanging::{Hanging, STILL_HANGS};
use crate::packetize::Frame;
use crate::stream::{Awake, OutputQueue, Stream};

/// Access units that wait for the decoder. One that is too slow skips to the next keyframe.
const BACKLOG: u64 = 8;
/// While the decoder waits for a keyframe it asks for one so often: they cost all viewers bandwidth.
const KEYFRAME_SPACING: Duration = Duration::from_secs(2);
/// A decoder that gives nothing for so long, although it is fed, has failed.
const DECODER_LIMIT: Duration = Duration::from_secs(3);
/// Decoders may hold back some pictures.
const DECODER_DELAY: u64 = 10;

/// JFIF is full range and BT.601 (ITU-T T.871), and video mostly neither.
const COLOURS: &str = "video/x-raw,format=I420,colorimetry=(string)1:4:0:0";

/// A decoder's driver may hang in its start and in its end.
const START_LIMIT: Duration = Duration::from_secs(5);
const STOP_LIMIT: Duration = Duration::from_secs(1);

/// A running pipeline; dropped, it stops, or is left to itself.
pub struct Maker {
    pipeline: gst::Pipeline,
    text: String,
    hanging: Hanging,
    bus: gst::Bus,
    stream: Arc<Stream>,
    queue: Arc<OutputQueue>,
    feed: Arc<Feed>,
    decoded: Arc<Counter>,
    /// When the decoder was last seen to work, and what it had been given and had given by then.
    seen: (Instant, u64, u64),
    _awake: Awake,
}

impl Maker {
    /// `software`: no hardware decoder. Refused while a former one of the same kind hangs.
    pub fn start(shared: &Arc<Shared>, software: bool) -> Result<Self, String> {
        gst::init().map_err(|error| format!("GStreamer does not start: {error}"))?;
        // The encoder works again when the decoder is ready for it.
        let awake = shared.stream.demand().keep_awake();
        let text = text(shared.stream.codec(), software, &has_property);
        let hanging = shared.hanging.clone();
        if hanging.holds(&text) {
            return Err(STILL_HANGS.to_owned());
        }
        let built = gst::parse::launch(&text).map_err(|error| format!("{} in: {text}", error.message()))?;
        let pipeline = built.downcast::<gst::Pipeline>().map_err(|_| format!("not a pipeline: {text}"))?;
        let epoch = Instant::now();
        let decoded = Arc::new(Counter::new(epoch));
        counter::count(&pad(&pipeline, "pictures", "sink")?, &decoded);
        for (size, queue, sink) in [(Size::Whole, "whole", "whole_out"), (Size::Preview, "preview", "preview_out")] {
            limit(&pad(&pipeline, queue, "sink")?, size, shared);
            deliver(&element(&pipeline, sink)?, size, shared, epoch);
        }
        let feed = Arc::new(Feed {
            appsrc: element(&pipeline, "in")?,
            stream: Arc::clone(&shared.stream),
            epoch,
            fed: AtomicU64::new(0),
            taken: Arc::new(Counter::new(epoch)),
            state: Mutex::new(FeedState { start: None, waiting: true, last: None, asked: None }),
        });
        counter::count(&pad(&pipeline, "in", "src")?, &feed.taken);
        let bus = pipeline.bus().ok_or("the pipeline has no bus")?;
        let feeding = Arc::clone(&feed);
        let queue = shared.stream.add_output(move |queue| {
            while let Some(frame) = queue.take() {
                feeding.put(&frame);
            }
        });
        let stream = Arc::clone(&shared.stream);
        let seen = (epoch, 0, 0);
        let maker = Self { pipeline, text, hanging, bus, stream, queue, feed, decoded, seen, _awake: awake };
        let playing = maker.pipeline.clone();
        let play = move || playing.set_state(gst::State::Playing).is_ok();
        if maker.hanging.within(&maker.text, START_LIMIT, play) != Some(true) {
            return Err(message::pending_error(&maker.bus).unwrap_or_else(|| "the decoder does not start".to_owned()));
        }
        maker.stream.demand().request_keyframe();
        Ok(maker)
    }

    /// Whether a picture was decoded.
    pub fn has_worked(&self) -> bool {
        self.decoded.count() > 0
    }

    /// Waits `limit` for a reason to start again.
    pub fn trouble(&mut self, limit: Duration) -> Option<String> {
        let limit = gst::ClockTime::from_mseconds(limit.as_millis() as u64);
        let kinds = [gst::MessageType::Error, gst::MessageType::Eos];
        if let Some(message) = self.bus.timed_pop_filtered(limit, &kinds) {
            return Some(match message.view() {
                gst::MessageView::Error(error) => message::error_text(error),
                _ => "the decoder has ended".to_owned(),
            });
        }
        let (now, fed, decoded) = (Instant::now(), self.feed.fed.load(Ordering::Relaxed), self.decoded.count());
        let (since, fed_before, decoded_before) = self.seen;
        if decoded != decoded_before {
            self.seen = (now, fed, decoded);
            return None;
        }
        // One that takes nothing at all is not fed any more.
        let owes = fed >= fed_before + DECODER_DELAY || self.feed.is_full();
        let hangs = owes && now.saturating_duration_since(since) > DECODER_LIMIT;
        hangs.then(|| format!("the decoder has given nothing for {} s", DECODER_LIMIT.as_secs()))
    }
}

impl Drop for Maker {
    fn drop(&mut self) {
        self.stream.remove_output(&self.queue);
        let pipeline = self.pipeline.clone();
        match self.hanging.within(&self.text, STOP_LIMIT, move || pipeline.set_state(gst::State::Null).is_ok()) {
            Some(true) => {}
            Some(false) => tracing::warn!("the pipeline for JPEG pictures does not stop cleanly"),
            None => tracing::warn!("the decoder for JPEG pictures has not stopped, leaving it to itself"),
        }
    }
}

fn text(codec: Codec, software: bool, has_property: &dyn Fn(&str, &str) -> bool) -> String {
    let caps = coded_caps(codec);
    let software =
        if software && has_property("decodebin", "force-sw-decoders") { " force-sw-decoders=true" } else { "" };
    // A hardware decoder of the Jetson gives its own memory, which nothing but this takes to system memory.
    let download = if has_property("nvvidconv", "name") { "nvvidconv ! video/x-raw ! " } else { "" };
    let newest = "max-size-buffers=1 max-size-bytes=0 max-size-time=0 leaky=downstream";
    let sink = "sync=false async=false max-buffers=1 drop=true";
    format!(
        "appsrc name=in is-live=true format=time max-bytes=0 caps=\"{caps}\" ! decodebin{software} ! {download}tee \
         name=pictures pictures. ! queue name=whole {newest} ! videoconvert ! {COLOURS} ! jpegenc quality=85 \
         ! appsink name=whole_out {sink} \
         pictures. ! queue name=preview {newest} ! videoscale \
         ! video/x-raw,width=[16,{PREVIEW_WIDTH},2],height=[16,8192,2],pixel-aspect-ratio=1/1 \
         ! videoconvert ! {COLOURS} ! jpegenc quality=75 ! appsink name=preview_out {sink}"
    )
}

fn element<T: IsA<gst::Element>>(pipeline: &gst::Pipeline, name: &str) -> Result<T, String> {
    let found = pipeline.by_name(name).and_then(|element| element.downcast::<T>().ok());
    found.ok_or_else(|| format!("no {name} in the pipeline for JPEG pictures"))
}

fn pad(pipeline: &gst::Pipeline, name: &str, pad: &str) -> Result<gst::Pad, String> {
    let element: gst::Element = element(pipeline, name)?;
    element.static_pad(pad).ok_or_else(|| format!("no pad {pad} of {name}"))
}

/// Lets through what is wanted.
fn limit(pad: &gst::Pad, size: Size, shared: &Arc<Shared>) {
    let shared = Arc::downgrade(shared);
    let rate = Mutex::new(Rate::default());
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        let time = info.buffer().and_then(|buffer| buffer.pts()).unwrap_or_default();
        let wanted = shared.upgrade().is_some_and(|shared| match size {
            Size::Whole => shared.snapshot_wanted(),
            Size::Preview => lock(&rate).keeps(shared.preview_rate(), time.into()),
        });
        if wanted { gst::PadProbeReturn::Ok } else { gst::PadProbeReturn::Handled }
    });
}

/// Hands over each picture.
fn deliver(sink: &gst_app::AppSink, size: Size, shared: &Arc<Shared>, epoch: Instant) {
    let (shared, clock) = (Arc::downgrade(shared), shared.stream.clock());
    let callbacks = gst_app::AppSinkCallbacks::builder().new_sample(move |sink| {
        let sample = sink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
        let picture = sample.buffer().and_then(|buffer| {
            let captured_at = epoch + Duration::from(buffer.pts()?);
            let captured = clock.at(captured_at);
            Some(Picture { data: Bytes::copy_from_slice(&buffer.map_readable().ok()?), captured_at, captured })
        });
        if let Some((shared, picture)) = shared.upgrade().zip(picture) {
            shared.publish(size, picture);
        }
        Ok(gst::FlowSuccess::Ok)
    });
    sink.set_callbacks(callbacks.build());
}

/// Puts access units into the pipeline, on the thread of the capture: it never blocks.
struct Feed {
    appsrc: gst_app::AppSrc,
    stream: Arc<Stream>,
    epoch: Instant,
    fed: AtomicU64,
    /// By the decoder.
    taken: Arc<Counter>,
    state: Mutex<FeedState>,
}

struct FeedState {
    /// Which start of the capture the last one was of: after another nothing can be decoded before a keyframe.
    start: Option<u64>,
    /// For a keyframe.
    waiting: bool,
    last: Option<Duration>,
    /// When a keyframe was last asked for.
    asked: Option<Instant>,
}

impl Feed {
    fn is_full(&self) -> bool {
        self.fed.load(Ordering::Relaxed).saturating_sub(self.taken.count()) >= BACKLOG
    }

    fn put(&self, frame: &Frame) {
        let mut state = lock(&self.state);
        let start = Some(self.stream.status().starts());
        let full = self.is_full();
        state.waiting |= full || std::mem::replace(&mut state.start, start) != start;
        if state.waiting && (full || !frame.keyframe) {
            let now = Instant::now();
            if !full && state.asked.is_none_or(|at| now.saturating_duration_since(at) > KEYFRAME_SPACING) {
                state.asked = Some(now);
                self.stream.demand().request_keyframe();
            }
            return;
        }
        state.waiting = false;
        // No two alike, as decoders take that for a mistake.
        let time = frame.captured_at.saturating_duration_since(self.epoch);
        let time = state.last.map_or(time, |last| time.max(last + Duration::from_micros(1)));
        state.last = Some(time);
        let mut buffer = gst::Buffer::from_slice(frame.unit.clone());
        if let Some(buffer) = buffer.get_mut() {
            buffer.set_pts(gst::ClockTime::from_nseconds(u64::try_from(time.as_nanos()).unwrap_or_default()));
        }
        // Refused only while the pipeline is taken down.
        if self.appsrc.push_buffer(buffer).is_ok() {
            self.fed.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_machine_lacks_is_not_in_the_text() {
        let plain = text(Codec::H264, true, &|_, _| false);
        assert!(!plain.contains("nvvidconv") && !plain.contains("force-sw"), "{plain}");
        let jetson = text(Codec::H265, true, &|_, _| true);
        assert!(
            jetson.contains("video/x-h265") && jetson.contains("decodebin force-sw-decoders=true ! nvvidconv ! "),
            "{jetson}"
        );
    }
}
