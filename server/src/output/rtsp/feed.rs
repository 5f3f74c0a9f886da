//! From the stream into the media: only while somebody plays, never more than one access unit ahead.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use gstreamer as gst;
use gstreamer::glib;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;
use gstreamer_rtsp_server as rtsp;
use gstreamer_rtsp_server::prelude::RTSPMediaExt;
use gstreamer_video as gst_video;
use rov_common::capture_clock::{CaptureClock, Captured, NTP_EPOCH, beside_monotonic};
use rov_common::codec::Codec;
use rov_common::sync::lock;
use rov_gst::clock::running_time;
use rov_gst::element::is_made_by;

use super::mjpeg;
use crate::stream::{Awake, OutputQueue, Stream};

/// The time of the parameter sets by which the media is described; pictures come later.
pub(super) const DESCRIPTION: gst::ClockTime = gst::ClockTime::ZERO;

/// Of keyframes that the clients of a media ask for: each costs the others bit rate.
const KEYFRAME_SPACING: Duration = Duration::from_secs(1);

/// What the media, the clients and the statistics share.
pub(super) struct Feeder {
    pub stream: Arc<Stream>,
    /// Clients that play.
    playing: AtomicUsize,
    /// Held while there are such.
    awake: Mutex<Option<Awake>>,
    skips: Mutex<Skips>,
    /// Bytes of access units.
    fed: AtomicU64,
    /// The same, for each client that played then.
    sent: AtomicU64,
    /// The one that is fed.
    media: Mutex<glib::WeakRef<rtsp::RTSPMedia>>,
}

/// Access units that were skipped, of feeds that are over and of those that there are.
#[derive(Default)]
struct Skips {
    before: u64,
    queues: Vec<Arc<OutputQueue>>,
}

impl Feeder {
    pub fn new(stream: &Arc<Stream>) -> Arc<Self> {
        Arc::new(Self {
            stream: Arc::clone(stream),
            playing: AtomicUsize::new(0),
            awake: Mutex::default(),
            skips: Mutex::default(),
            fed: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            media: Mutex::default(),
        })
    }

    /// Whether the parameter sets are known, without which a media cannot be described.
    pub fn can_describe(&self) -> bool {
        !self.description().is_empty()
    }

    /// By which the media is described: parameter sets, or of MJPEG the headers of any picture.
    fn description(&self) -> Vec<u8> {
        match self.stream.codec() {
            Codec::H264 | Codec::H265 => self.stream.parameter_sets_annexb(),
            Codec::Mjpeg => mjpeg::headers(),
        }
    }

    /// Feeds `source` for as long as it lives.
    pub fn feed(self: &Arc<Self>, media: &rtsp::RTSPMedia, source: &gst_app::AppSrc) {
        let feed = Arc::new(Feed {
            feeder: Arc::clone(self),
            source: source.downgrade(),
            queue: OnceLock::new(),
            state: Mutex::new(State { waits_for_keyframe: true, times: Times::default() }),
        });
        *lock(&self.media) = media.downgrade();
        // gst-rtsp-server wants packets to describe the media by, and holds them back until somebody plays. A picture
        // would be old by then, and there is none between keyframes: the parameter sets do.
        let described = source.push_buffer(buffer(self.description(), DESCRIPTION));
        if let Err(error) = described {
            tracing::error!(%error, "RTSP: the media does not take its description");
        }
        media.connect_prepared(leave_description_out);
        let weak = Arc::downgrade(&feed);
        let queue = self.stream.add_output(move |_| {
            if let Some(feed) = weak.upgrade() {
                feed.pump();
            }
        });
        lock(&self.skips).queues.push(Arc::clone(&queue));
        let _ = feed.queue.set(queue);
        if let Some(pad) = source.static_pad("src") {
            self.answer_requests(&pad);
        }
        // The source owns the feed.
        let callbacks = gst_app::AppSrcCallbacks::builder().need_data(move |_, _| feed.pump()).build();
        source.set_callbacks(callbacks);
    }

    /// What clients ask for by RTCP (PLI, FIR).
    fn answer_requests(self: &Arc<Self>, pad: &gst::Pad) {
        let (feeder, asked) = (Arc::downgrade(self), Mutex::new(None::<Instant>));
        pad.add_probe(gst::PadProbeType::EVENT_UPSTREAM, move |_, info| {
            let is_request = info.event().is_some_and(|event| gst_video::ForceKeyUnitEvent::is(event));
            let (mut asked, now) = (lock(&asked), Instant::now());
            if is_request && asked.is_none_or(|at| now.saturating_duration_since(at) >= KEYFRAME_SPACING) {
                *asked = Some(now);
                if let Some(feeder) = feeder.upgrade() {
                    feeder.stream.demand().request_keyframe();
                }
            }
            gst::PadProbeReturn::Ok
        });
    }

    pub fn playing(&self) -> usize {
        self.playing.load(Ordering::Relaxed)
    }

    pub fn set_playing(&self, clients: usize) {
        self.playing.store(clients, Ordering::Relaxed);
        self.stream.demand().keep_awake_while(clients > 0, &mut lock(&self.awake));
    }

    pub fn skipped(&self) -> u64 {
        let skips = lock(&self.skips);
        skips.before + skips.queues.iter().map(|queue| queue.skipped()).sum::<u64>()
    }

    pub fn fed(&self) -> u64 {
        self.fed.load(Ordering::Relaxed)
    }

    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// The media that is fed, if there is one.
    pub fn media(&self) -> Option<rtsp::RTSPMedia> {
        lock(&self.media).upgrade()
    }
}

struct Feed {
    feeder: Arc<Feeder>,
    source: glib::WeakRef<gst_app::AppSrc>,
    queue: OnceLock<Arc<OutputQueue>>,
    state: Mutex<State>,
}

struct State {
    /// Access units were left out, so that those until the next keyframe cannot be decoded.
    waits_for_keyframe: bool,
    times: Times,
}

impl Feed {
    /// Takes what waits to the source, when that has room. Called for each access unit, and when the source has none:
    /// it never blocks, as the source only queues.
    fn pump(&self) {
        let Some((queue, source)) = self.queue.get().zip(self.source.upgrade()) else { return };
        let mut state = lock(&self.state);
        if self.feeder.playing() == 0 {
            while queue.take().is_some() {
                state.waits_for_keyframe = true;
            }
            return;
        }
        while source.current_level_bytes() == 0 {
            let Some(frame) = queue.take() else { return };
            if state.waits_for_keyframe && !frame.keyframe {
                continue;
            }
            let Some(time) = capture_time(&source, frame.captured, &mut state.times) else {
                state.waits_for_keyframe = true;
                continue;
            };
            let bytes = frame.unit.len() as u64;
            self.feeder.fed.fetch_add(bytes, Ordering::Relaxed);
            self.feeder.sent.fetch_add(bytes * self.feeder.playing() as u64, Ordering::Relaxed);
            // An error is a media that ends.
            state.waits_for_keyframe = source.push_buffer(buffer(frame.unit.clone(), time)).is_err();
        }
    }
}

/// Keeps what describes the media from the clients: its time is another than that of the keyframe behind it, which
/// confuses players about both.
pub(super) fn leave_description_out(media: &rtsp::RTSPMedia) {
    // Where gst-rtsp-server blocks until somebody plays; this probe is asked after that.
    let Some(pad) = rtpbin(media).and_then(|rtpbin| rtpbin.static_pad("send_rtp_src_0")) else { return };
    pad.add_probe(gst::PadProbeType::BUFFER | gst::PadProbeType::BUFFER_LIST, |_, info| {
        let pts = match &info.data {
            Some(gst::PadProbeData::Buffer(buffer)) => buffer.pts(),
            Some(gst::PadProbeData::BufferList(list)) => list.get(0).and_then(|buffer| buffer.pts()),
            _ => None,
        };
        if pts == Some(DESCRIPTION) { gst::PadProbeReturn::Drop } else { gst::PadProbeReturn::Remove }
    });
}

/// Between the media and the network.
pub(super) fn rtpbin(media: &rtsp::RTSPMedia) -> Option<gst::Element> {
    let children = media.element().parent().and_downcast::<gst::Bin>()?.children();
    children.into_iter().find(|child| is_made_by(child, "rtpbin"))
}

/// The clock of a media: that of captures, in nanoseconds since 1900, where NTP begins.
pub(super) fn media_clock(clock: CaptureClock) -> gst::Clock {
    // One of its own: the clock that GStreamer gives out is that of everybody.
    let own: gst::SystemClock = glib::Object::new();
    let (at, internal) = beside_monotonic(|| own.internal_time());
    own.set_calibration(internal, since_1900(clock.at(at)), 1, 1);
    own.upcast()
}

fn since_1900(captured: Captured) -> gst::ClockTime {
    gst::ClockTime::try_from(captured.0 + NTP_EPOCH).unwrap_or_default()
}

/// Of the newest picture.
#[derive(Default)]
pub(super) struct Times {
    captured: gst::ClockTime,
    /// The one that it has in the media.
    given: gst::ClockTime,
}

impl Times {
    /// Never the same twice, nor earlier than the one before: gst-rtsp-server aborts the process for that. Where
    /// pictures are older than those before, as of a new pipeline, time goes at half its speed until it is right again:
    /// players would take pictures of almost one time for late ones, and another time for good would be a lie.
    fn next(&mut self, captured: gst::ClockTime) -> gst::ClockTime {
        let step = captured.saturating_sub(std::mem::replace(&mut self.captured, captured)) / 2;
        self.given = captured.max(self.given + step.max(gst::ClockTime::from_mseconds(1)));
        self.given
    }
}

/// When it was captured, in the running time of `source`, whose clock is [`media_clock`].
pub(super) fn capture_time(source: &gst_app::AppSrc, captured: Captured, times: &mut Times) -> Option<gst::ClockTime> {
    // While there is none, the media has not started.
    running_time(source.upcast_ref())?;
    let captured = since_1900(captured).saturating_sub(source.base_time()?);
    Some(times.next(captured))
}

pub(super) fn buffer(data: impl AsRef<[u8]> + Send + 'static, time: gst::ClockTime) -> gst::Buffer {
    let mut buffer = gst::Buffer::from_slice(data);
    if let Some(buffer) = buffer.get_mut() {
        buffer.set_pts(time);
        buffer.set_dts(time);
    }
    buffer
}

impl Drop for Feed {
    fn drop(&mut self) {
        if let Some(queue) = self.queue.get() {
            self.feeder.stream.remove_output(queue);
            // Both at once, as a total never falls.
            let mut skips = lock(&self.feeder.skips);
            skips.queues.retain(|other| !Arc::ptr_eq(other, queue));
            skips.before += queue.skipped();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rov_common::access_unit::AccessUnit;

    use super::*;

    #[test]
    fn the_total_of_what_was_skipped_never_falls_when_a_media_gives_way_to_another() {
        let (stream, _requests) = Stream::new("cam1", "stream1", Codec::H264, CaptureClock::start());
        let feeder = Feeder::new(&stream);
        let feed = |feeder: &Arc<Feeder>| {
            let queue = stream.add_output(|_| {});
            lock(&feeder.skips).queues.push(Arc::clone(&queue));
            let state = Mutex::new(State { waits_for_keyframe: true, times: Times::default() });
            let queue = OnceLock::from(queue);
            Feed { feeder: Arc::clone(feeder), source: glib::WeakRef::new(), queue, state }
        };
        let publish = |count: u64| {
            for at in 0..count {
                let (pts, captured_at) = (Duration::from_millis(at), Instant::now());
                let data = vec![0, 0, 0, 1, 0x41, 0x88, 0x80, 0x40].into();
                stream.publish(AccessUnit { data, pts, captured_at, keyframe: false }, captured_at);
            }
        };
        let first = feed(&feeder);
        publish(100);
        let skipped = feeder.skipped();
        assert!(skipped > 0);
        let second = feed(&feeder);
        assert_eq!(feeder.skipped(), skipped, "the other begins");
        drop(first);
        assert_eq!(feeder.skipped(), skipped, "it is over");
        publish(100);
        drop(second);
        assert!(feeder.skipped() > skipped);
    }

    #[test]
    fn after_pictures_that_are_older_time_goes_on_at_half_its_speed_until_it_is_right() {
        let mut times = Times::default();
        let mut next = |ms| times.next(gst::ClockTime::from_mseconds(ms)).mseconds();
        assert_eq!([1000, 1040, 1080].map(&mut next), [1000, 1040, 1080]);
        assert_eq!([980, 1020, 1060, 1100].map(&mut next), [1081, 1101, 1121, 1141]);
        assert_eq!([1140, 1180, 1220].map(&mut next), [1161, 1181, 1220]);
        assert_eq!([1220, 5000, 5000].map(&mut next), [1221, 5000, 5001]);
    }
}
