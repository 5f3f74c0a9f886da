//! The fan-out: one encoded stream in, any number of outputs out.
//!
//! An output holds a bounded queue. One that falls behind loses what it holds, skips to the next keyframe and asks for
//! it; it never slows the camera or another output. Beside it stand what is told of the stream (`status`), what is
//! wanted of it (`demand`), and all streams of the server (`catalogue`).

mod catalogue;
mod demand;
mod status;
mod timeline;
mod troubles;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rov_common::access_unit::AccessUnit;
use rov_common::api::{CaptureTime, StreamStats};
use rov_common::capture_clock::CaptureClock;
use rov_common::codec::{self, Codec, ParameterSetCache, ParameterSets, jpeg};
use rov_common::latency_mode::LatencyMode;
use rov_common::sync::lock;
use rov_common::units::Bitrate;
use tokio::sync::mpsc;

pub use self::catalogue::{NoSuchStream, Streams};
pub use self::demand::{Awake, Control, Demand};
pub use self::status::{Keyframes, Keyless, Status};
use self::timeline::Timeline;
use crate::packetize::{self, Frame, packetize};

/// Frames that wait for one output, for so long: then the newest keyframe is worth more than the rest.
const OUTPUT_CAPACITY: usize = 8;
const LONGEST_WAIT: Duration = Duration::from_millis(250);
/// Those of a camera that sends pictures in groups, or whose link held them back, come at once.
const MOST_AT_ONCE: usize = 64;

pub struct Stream {
    camera: String,
    name: String,
    full_name: String,
    codec: Codec,
    clock: CaptureClock,
    status: Status,
    demand: Arc<Demand>,
    rewriting: Mutex<Rewriting>,
    outputs: Mutex<Vec<Arc<OutputQueue>>>,
}

/// What must be known of earlier pictures to hand on the next. It has a lock of its own: packetising a large picture
/// takes a while, and nobody who asks for statistics waits for it.
struct Rewriting {
    timeline: Timeline,
    parameter_sets: ParameterSetCache,
    latency: LatencyMode,
    /// Why the newest picture of MJPEG that is whole has no room in RTP, as was said.
    no_room: Option<jpeg::Problem>,
}

impl Stream {
    /// `name` is the one that is shown: without that of the camera only where it is the first camera.
    /// `clock` is that of all streams of the server.
    pub fn new(camera: &str, name: &str, codec: Codec, clock: CaptureClock) -> (Arc<Self>, mpsc::Receiver<Control>) {
        let (demand, requests) = Demand::new(clock.started());
        let stream = Self {
            camera: camera.to_owned(),
            name: name.to_owned(),
            full_name: if name.contains('/') { name.to_owned() } else { format!("{camera}/{name}") },
            codec,
            clock,
            status: Status::default(),
            demand,
            rewriting: Mutex::new(Rewriting {
                timeline: Timeline::new(clock.started()),
                parameter_sets: ParameterSetCache::new(codec),
                latency: LatencyMode::default(),
                no_room: None,
            }),
            outputs: Mutex::new(Vec::new()),
        };
        (Arc::new(stream), requests)
    }

    /// The one that is shown, and by which it is found.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// All by which it is found, the one that is shown first.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        std::iter::once(self.name.as_str()).chain(Some(self.full_name.as_str()).filter(|full| *full != self.name))
    }

    pub fn camera(&self) -> &str {
        &self.camera
    }

    pub fn codec(&self) -> Codec {
        self.codec
    }

    /// That of the times of capture.
    pub fn clock(&self) -> CaptureClock {
        self.clock
    }

    /// What is told of it.
    pub fn status(&self) -> &Status {
        &self.status
    }

    /// The bit rate that the viewers' links allow, where that is less than was made last.
    pub fn limit(&self) -> Option<Bitrate> {
        let (rate, ceiling) = (self.demand.rate()?, self.status.ceiling());
        ceiling.is_none_or(|ceiling| rate.bitrate < ceiling.bitrate).then_some(rate.bitrate)
    }

    /// What is wanted of it.
    pub fn demand(&self) -> &Arc<Demand> {
        &self.demand
    }

    /// Adds an output. `wake` is called after each frame put into the queue, with that; it must not block.
    pub fn add_output(&self, wake: impl Fn(&OutputQueue) + Send + Sync + 'static) -> Arc<OutputQueue> {
        let queue = Arc::new(OutputQueue { state: Mutex::new(QueueState::default()), wake: Box::new(wake) });
        lock(&self.outputs).push(Arc::clone(&queue));
        queue
    }

    /// Takes an output away again; frames that it still holds are left in it.
    pub fn remove_output(&self, queue: &Arc<OutputQueue>) {
        lock(&self.outputs).retain(|output| !Arc::ptr_eq(output, queue));
    }

    /// A new pipeline is about to start: its timestamps begin again, those of the stream go on.
    /// `substitute` says why it shows something else than what it should, if it does.
    pub fn pipeline_starting(&self, source: &str, capture_time: CaptureTime, substitute: Option<String>) {
        lock(&self.rewriting).timeline.restart();
        self.status.pipeline_starting(source, capture_time, substitute);
    }

    /// What viewers' buffers may wait for from now on.
    pub fn set_latency_mode(&self, mode: LatencyMode) {
        lock(&self.rewriting).latency = mode;
    }

    /// Takes one encoded picture from the pipeline and hands it to every output. Never blocks.
    pub fn publish(&self, unit: AccessUnit, now: Instant) {
        let frame = Arc::new(self.frame(unit));
        self.status.passed(self.codec, &frame, now);
        // Who asks for one from here on wants the next one.
        if frame.keyframe {
            self.demand.keyframe_came();
        }
        // A copy of the list: what an output does with the frame may remove an output.
        let outputs = lock(&self.outputs).clone();
        for output in &outputs {
            if output.put(&frame, now) == Put::Overflow {
                self.demand.request_keyframe();
            }
        }
    }

    fn frame(&self, unit: AccessUnit) -> Frame {
        let data = match self.codec {
            Codec::H264 => codec::rewrite_access_unit(unit.data),
            // Its SPS says by itself that nothing is reordered: the field is not optional (ITU-T H.265 7.3.2.2.1).
            Codec::H265 => unit.data,
            // Webcams leave them out, and mean those of annex K; not all players know.
            Codec::Mjpeg => codec::jpeg::with_huffman_tables(unit.data),
        };
        let mut unit = AccessUnit { data, ..unit };
        let mut rewriting = lock(&self.rewriting);
        rewriting.parameter_sets.update(&unit.data);
        if unit.keyframe {
            unit.data = codec::with_parameter_sets(unit.data, &rewriting.parameter_sets);
        }
        let (pts, captured_at) = rewriting.timeline.map(unit.pts, unit.captured_at);
        let latency = rewriting.latency;
        drop(rewriting);
        let frame = packetize(self.codec, &unit, pts, self.clock.at(captured_at));
        if frame.payloads.is_empty() && self.codec == Codec::Mjpeg {
            self.say_no_room(&unit.data);
        }
        Frame { latency, ..frame }
    }

    /// Once, where a picture has no room in RTP; a damaged one says nothing of the others.
    fn say_no_room(&self, picture: &[u8]) {
        let Some(problem) = packetize::jpeg::no_room(picture) else { return };
        if lock(&self.rewriting).no_room.replace(problem) != Some(problem) {
            tracing::warn!("nothing of {} is sent by RTP and RTSP, as it is {problem}", self.name);
        }
    }

    /// `profile_idc` and `profile_iop` of a stream of H.264 (RFC 6184 section 8.1), once its SPS is known.
    pub fn profile(&self) -> Option<(u8, u8)> {
        if self.codec != Codec::H264 {
            return None;
        }
        let rewriting = lock(&self.rewriting);
        let sps = &rewriting.parameter_sets.sets().sps;
        Some((*sps.get(1)?, *sps.get(2)?))
    }

    /// The parameter sets of the newest keyframe; empty before the first.
    pub fn parameter_sets(&self) -> ParameterSets {
        lock(&self.rewriting).parameter_sets.sets().clone()
    }

    /// As [`Self::parameter_sets`], as a byte stream.
    pub fn parameter_sets_annexb(&self) -> Vec<u8> {
        let mut sets = Vec::new();
        lock(&self.rewriting).parameter_sets.write_annexb(&mut sets);
        sets
    }

    pub fn stats(&self, now: Instant) -> StreamStats {
        StreamStats {
            name: self.name.clone(),
            camera: self.camera.clone(),
            codec: self.codec.to_string(),
            ..self.status.stats(now)
        }
    }

    /// To be called now and then: whether it is well, although it runs.
    pub fn look_for_troubles(&self, now: Instant) {
        self.status.look_for_troubles(now, self.demand.watched_since());
    }
}

/// The frames that wait for one output.
pub struct OutputQueue {
    state: Mutex<QueueState>,
    wake: Box<dyn Fn(&Self) + Send + Sync>,
}

#[derive(Default)]
struct QueueState {
    /// With when each came.
    frames: VecDeque<(Instant, Arc<Frame>)>,
    /// The output fell behind: nothing is kept until the next keyframe.
    skipping: bool,
    skipped: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Put {
    Kept,
    /// Left out, and the first one of a gap: a keyframe is needed.
    Overflow,
    Skipped,
}

impl OutputQueue {
    /// The oldest frame that waits.
    pub fn take(&self) -> Option<Arc<Frame>> {
        lock(&self.state).frames.pop_front().map(|(_, frame)| frame)
    }

    /// Frames left out because this output was too slow.
    pub fn skipped(&self) -> u64 {
        lock(&self.state).skipped
    }

    /// Whether it fell behind, and nothing is kept before the next keyframe.
    pub fn is_skipping(&self) -> bool {
        lock(&self.state).skipping
    }

    fn put(&self, frame: &Arc<Frame>, now: Instant) -> Put {
        {
            let mut state = lock(&self.state);
            let waiting = state.frames.len();
            let is_late =
                state.frames.front().is_some_and(|(at, _)| now.saturating_duration_since(*at) >= LONGEST_WAIT);
            if state.skipping && frame.keyframe {
                state.skipping = false;
                state.skipped += state.frames.len() as u64;
                state.frames.clear();
            } else if state.skipping {
                state.skipped += 1;
                return Put::Skipped;
            } else if waiting >= MOST_AT_ONCE || waiting >= OUTPUT_CAPACITY && is_late {
                state.skipping = true;
                state.skipped += 1 + state.frames.len() as u64;
                state.frames.clear();
                return Put::Overflow;
            }
            state.frames.push_back((now, Arc::clone(frame)));
        }
        (self.wake)(self);
        Put::Kept
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rov_common::api::StreamState;

    use super::*;

    fn unit(keyframe: bool, pts_ms: u64) -> AccessUnit {
        let header = if keyframe { 0x65 } else { 0x41 };
        AccessUnit {
            data: vec![0, 0, 0, 1, header, 0x88, 0x80, 0x40].into(),
            pts: Duration::from_millis(pts_ms),
            captured_at: Instant::now(),
            keyframe,
        }
    }

    #[test]
    fn a_passed_through_stream_without_keyframes_runs_when_one_comes() {
        let now = Instant::now();
        let (stream, _requests) = Stream::new("cam1", "stream1", Codec::H264, CaptureClock::start());
        let refresh = [&[0, 0, 0, 1, 6, 6, 1, 0xc4, 0x80][..], &unit(false, 0).data].concat();
        for at in 0..3 {
            stream.publish(AccessUnit { data: refresh.clone().into(), ..unit(false, at * 33) }, now);
        }
        let later = now + Duration::from_secs(8);
        let keyless = Keyless { lasted: Duration::from_secs(8), interval: None, recovery_points: 3 };
        assert_eq!(stream.status().keyless(later), Some(keyless));
        stream.status().set_keyless("no keyframe".to_owned());
        stream.publish(unit(false, 99), later);
        assert_eq!(stream.status().health(), (StreamState::Stalled, Some("no keyframe".to_owned())));
        stream.publish(unit(true, 132), later);
        assert_eq!(stream.status().health(), (StreamState::Running, None));
        assert_eq!(stream.status().keyless(later).map(|keyless| keyless.lasted), Some(Duration::ZERO));
    }

    #[test]
    fn what_has_no_room_in_rtp_is_said_of_the_stream_and_not_of_a_damaged_picture() {
        let (stream, _requests) = Stream::new("cam1", "stream1", Codec::Mjpeg, CaptureClock::start());
        let usual: &[u8] = include_bytes!("../../fuzz/corpus/jpeg/420.jpg");
        let grey: &[u8] = include_bytes!("../../fuzz/corpus/jpeg/grey.jpg");
        let said = |picture: &'static [u8]| {
            stream.publish(AccessUnit { data: picture.into(), ..unit(true, 0) }, Instant::now());
            lock(&stream.rewriting).no_room
        };
        assert_eq!([said(usual), said(&usual[..200])], [None, None]);
        assert_eq!(said(grey), Some(jpeg::Problem("grey without colour")));
    }

    /// As a substitute at 10 ms, and then a camera at 800.
    #[test]
    fn timestamps_and_capture_differ_by_the_same_whatever_the_age_of_a_pipelines_first_picture() {
        let (stream, _requests) = Stream::new("cam1", "stream1", Codec::H264, CaptureClock::start());
        let (queue, begun) = (stream.add_output(|_| {}), stream.clock().started());
        let differences: Vec<_> = [(1_000, 10), (5_000, 800), (9_000, 40)]
            .into_iter()
            .map(|(now, age)| {
                stream.pipeline_starting("camera", CaptureTime::Source, None);
                let ms = |ms| begun + Duration::from_millis(ms);
                stream.publish(AccessUnit { captured_at: ms(now - age), ..unit(true, 33) }, ms(now));
                let frame = queue.take().expect("a picture");
                frame.captured_at.saturating_duration_since(begun).as_millis() as i64 - i64::from(frame.timestamp / 90)
            })
            .collect();
        assert_eq!(differences, [0, 0, 0]);
    }

    #[test]
    fn an_output_that_falls_behind_skips_to_the_next_keyframe_and_asks_for_it() {
        let now = Instant::now();
        let (stream, mut requests) = Stream::new("cam1", "stream1", Codec::H264, CaptureClock::start());
        let queue = stream.add_output(|_| {});
        stream.publish(unit(true, 0), now);
        for i in 1..20 {
            stream.publish(unit(false, i * 33), now + Duration::from_millis(i * 33));
        }
        assert_eq!(requests.try_recv().ok(), Some(Control::KeyframeWanted));
        assert!(requests.try_recv().is_err(), "one request for one gap");
        assert!(queue.take().is_none(), "old frames are worth nothing after a gap");
        assert!(queue.is_skipping());

        stream.publish(unit(true, 700), now);
        stream.publish(unit(false, 733), now);
        assert!(!queue.is_skipping() && queue.take().expect("the keyframe").keyframe);
        assert!(!queue.take().expect("what follows it").keyframe);
        assert_eq!(queue.skipped(), 20, "the first keyframe, which was never taken, and all until the next");
    }

    #[test]
    fn pictures_that_come_at_once_are_no_output_that_falls_behind() {
        let now = Instant::now();
        let (stream, mut requests) = Stream::new("cam1", "stream1", Codec::H264, CaptureClock::start());
        let queue = stream.add_output(|_| {});
        for i in 0..MOST_AT_ONCE as u64 {
            stream.publish(unit(i == 0, i * 33), now);
        }
        assert!(requests.try_recv().is_err() && !queue.is_skipping());
        stream.publish(unit(false, 9_999), now);
        assert_eq!(requests.try_recv().ok(), Some(Control::KeyframeWanted));
        assert!(queue.take().is_none());
    }

    #[test]
    fn a_slow_output_costs_another_nothing() {
        let now = Instant::now();
        let (stream, _requests) = Stream::new("cam1", "stream1", Codec::H264, CaptureClock::start());
        let _slow = stream.add_output(|_| {});
        let fast = stream.add_output(|_| {});
        for i in 0..50 {
            stream.publish(unit(i == 0, i * 33), now);
            assert!(fast.take().is_some());
        }
        assert_eq!(fast.skipped(), 0);
    }

    #[test]
    fn an_output_that_was_removed_gets_nothing_more_even_by_its_own_wake() {
        let now = Instant::now();
        let (stream, _requests) = Stream::new("cam1", "stream1", Codec::H264, CaptureClock::start());
        let own = Arc::new(Mutex::new(None));
        let (weak, remembered) = (Arc::downgrade(&stream), Arc::clone(&own));
        let queue = stream.add_output(move |_| {
            if let (Some(stream), Some(queue)) = (weak.upgrade(), remembered.lock().unwrap().take()) {
                stream.remove_output(&queue);
            }
        });
        *own.lock().unwrap() = Some(Arc::clone(&queue));
        let other = stream.add_output(|_| {});
        stream.publish(unit(true, 0), now);
        stream.publish(unit(true, 33), now);
        assert_eq!(std::iter::from_fn(|| queue.take()).count(), 1);
        assert_eq!(std::iter::from_fn(|| other.take()).count(), 2);
    }
}
