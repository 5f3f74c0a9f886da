//! The fan-out: one encoded stream in, any number of outputs out.
//!
//! An output holds a bounded queue. One that falls behind loses what it holds, skips to the next keyframe and asks for
//! it; it never slows the camera or another output.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rov_common::access_unit::AccessUnit;
use rov_common::api::{StreamState, StreamStats};
use rov_common::codec::{self, Codec, ParameterSetCache, ParameterSets};
use rov_common::sync::lock;
use rov_common::units::{Bitrate, Resolution};
use rov_common::window::RateWindow;
use tokio::sync::mpsc;

use crate::packetize::{RtpFrame, packetize};
use crate::rate_control::{Full, Rate};

/// What outputs ask of the supervisor of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Control {
    KeyframeWanted,
    /// What [`Stream::rate`] gives is another now.
    RateChanged,
    /// Somebody looks, which nobody did before.
    Wanted,
}

/// Requests that wait for the supervisor. More would say nothing new: they are coalesced anyway.
pub const CONTROL_CAPACITY: usize = 16;

/// Frames that wait for one output. At 30 fps this is a quarter of a second: later than that, the newest keyframe is
/// worth more than the rest.
const OUTPUT_CAPACITY: usize = 8;

const STATS_WINDOW: Duration = Duration::from_secs(2);

pub struct Stream {
    name: String,
    codec: Codec,
    control: mpsc::Sender<Control>,
    inner: Mutex<Inner>,
    outputs: Mutex<Vec<Arc<OutputQueue>>>,
    lookers: Mutex<Lookers>,
}

/// Those for whom pictures are encoded.
struct Lookers {
    count: usize,
    /// When the last has gone.
    gone: Instant,
}

struct Inner {
    timeline: Timeline,
    parameter_sets: ParameterSetCache,
    state: StreamState,
    reason: Option<String>,
    /// Why what is shown is not what should be: there is no camera.
    substitute: Option<String>,
    /// Why what is shown may be old although it comes: the camera has hung.
    frozen: Option<String>,
    /// Pictures come with which no viewer can begin: the state stays as it is until a keyframe comes.
    keyless: bool,
    /// Nobody looks, and the encoder gets nothing.
    resting: bool,
    source: String,
    encoder: String,
    target_kbps: u32,
    full: Option<Full>,
    rate: Option<Rate>,
    resolution: Resolution,
    nominal_fps: f64,
    frames: u64,
    keyframes: u64,
    /// When the last keyframe came, and how long after the one before it in the same pipeline.
    last_keyframe: Option<Instant>,
    keyframe_interval: Option<Duration>,
    /// When the first picture of the pipeline came.
    first_picture: Option<Instant>,
    /// Since the last keyframe.
    recovery_points: u32,
    starts: u64,
    restarts: u64,
    frames_in: u64,
    /// The counter of the pipeline at some moments of the last two seconds, the oldest first.
    history_in: VecDeque<(Instant, u64)>,
    /// Counters of the pipeline start again with each restart: what former ones counted.
    frames_dropped_before: u64,
    frames_dropped: u64,
    frames_damaged: u64,
    window_bits: RateWindow,
    window_latency_us: RateWindow,
}

impl Stream {
    pub fn new(name: &str, codec: Codec, now: Instant) -> (Arc<Self>, mpsc::Receiver<Control>) {
        let (control, requests) = mpsc::channel(CONTROL_CAPACITY);
        let stream = Self {
            name: name.to_owned(),
            codec,
            control,
            inner: Mutex::new(Inner {
                timeline: Timeline::new(now),
                parameter_sets: ParameterSetCache::new(codec),
                state: StreamState::Starting,
                reason: None,
                substitute: None,
                frozen: None,
                keyless: false,
                resting: false,
                source: String::new(),
                encoder: String::new(),
                target_kbps: 0,
                full: None,
                rate: None,
                resolution: Resolution::new(0, 0),
                nominal_fps: 0.0,
                frames: 0,
                keyframes: 0,
                last_keyframe: None,
                keyframe_interval: None,
                first_picture: None,
                recovery_points: 0,
                starts: 0,
                restarts: 0,
                frames_in: 0,
                history_in: VecDeque::new(),
                frames_dropped_before: 0,
                frames_dropped: 0,
                frames_damaged: 0,
                window_bits: RateWindow::new(STATS_WINDOW),
                window_latency_us: RateWindow::new(STATS_WINDOW),
            }),
            outputs: Mutex::new(Vec::new()),
            lookers: Mutex::new(Lookers { count: 0, gone: now }),
        };
        (Arc::new(stream), requests)
    }

    /// Adds an output. `wake` is called after each frame put into the queue; it must not block.
    pub fn add_output(&self, wake: impl Fn() + Send + Sync + 'static) -> Arc<OutputQueue> {
        let queue = Arc::new(OutputQueue { state: Mutex::new(QueueState::default()), wake: Box::new(wake) });
        lock(&self.outputs).push(Arc::clone(&queue));
        queue
    }

    /// Takes an output away again; frames that it still holds are left in it.
    pub fn remove_output(&self, queue: &Arc<OutputQueue>) {
        lock(&self.outputs).retain(|output| !Arc::ptr_eq(output, queue));
    }

    /// Has pictures encoded until what is returned is dropped. Whoever takes them from an output holds one: without, there
    /// may be none.
    pub fn keep_awake(self: &Arc<Self>) -> Awake {
        let first = {
            let mut lookers = lock(&self.lookers);
            lookers.count += 1;
            lookers.count == 1
        };
        if first {
            // Where the channel is full, the supervisor looks by itself soon.
            let _ = self.control.try_send(Control::Wanted);
        }
        Awake(Arc::clone(self))
    }

    /// The same while somebody looks: `awake` is taken when it begins, and given up when it ends.
    pub fn keep_awake_while(self: &Arc<Self>, looked_at: bool, awake: &mut Option<Awake>) {
        if !looked_at {
            *awake = None;
        } else if awake.is_none() {
            *awake = Some(self.keep_awake());
        }
    }

    /// Since when nobody looks; none while somebody does.
    pub fn idle_since(&self) -> Option<Instant> {
        let lookers = lock(&self.lookers);
        (lookers.count == 0).then_some(lookers.gone)
    }

    /// Takes one encoded picture from the pipeline and hands it to every output. Never blocks.
    pub fn publish(&self, unit: AccessUnit, now: Instant) {
        let frame = {
            let mut inner = lock(&self.inner);
            let data = match self.codec {
                Codec::H264 => codec::rewrite_access_unit(unit.data),
                // Its SPS says by itself that nothing is reordered: the field is not optional (ITU-T H.265 7.3.2.2.1).
                Codec::H265 => unit.data,
            };
            let mut unit = AccessUnit { data, ..unit };
            inner.parameter_sets.update(&unit.data);
            if unit.keyframe {
                unit.data = codec::with_parameter_sets(unit.data, &inner.parameter_sets);
                inner.keyframes += 1;
                let before = inner.last_keyframe.replace(now);
                inner.keyframe_interval =
                    before.map(|at| now.saturating_duration_since(at)).or(inner.keyframe_interval);
            }
            inner.frames += 1;
            inner.window_bits.add(now, unit.data.len() as u64 * 8);
            inner.window_latency_us.add(now, now.saturating_duration_since(unit.captured_at).as_micros() as u64);
            inner.first_picture.get_or_insert(now);
            if unit.keyframe {
                inner.recovery_points = 0;
                inner.keyless = false;
            } else if inner.full.is_none() && codec::is_recovery_point(self.codec, &unit.data) {
                inner.recovery_points += 1;
            }
            if !inner.keyless {
                inner.state = StreamState::Running;
            }
            let pts = inner.timeline.map(unit.pts, now);
            Arc::new(packetize(self.codec, &unit, pts))
        };
        // A copy of the list: what an output does with the frame may remove an output.
        let outputs = lock(&self.outputs).clone();
        for output in &outputs {
            if output.put(&frame) == Put::Overflow {
                self.request_keyframe();
            }
        }
    }

    /// Asks the encoder for a keyframe; the supervisor coalesces requests.
    pub fn request_keyframe(&self) {
        // A full channel already holds such a request.
        let _ = self.control.try_send(Control::KeyframeWanted);
    }

    /// A new pipeline is about to start: its timestamps begin again, those of the stream go on.
    /// `substitute` says why it shows something else than what it should, if it does.
    pub fn pipeline_starting(&self, source: &str, substitute: Option<String>) {
        let mut inner = lock(&self.inner);
        inner.timeline.restart();
        inner.starts += 1;
        inner.source = source.to_owned();
        inner.substitute = substitute;
        inner.frozen = None;
        inner.resting = false;
        inner.last_keyframe = None;
        inner.first_picture = None;
        inner.recovery_points = 0;
        inner.keyless = false;
        inner.frames_in = 0;
        inner.history_in.clear();
        inner.frames_dropped_before += inner.frames_dropped;
        inner.frames_dropped = 0;
    }

    /// What the pipeline negotiated. `target` is what the encoder was asked for; none where the source's stream goes out untouched.
    pub fn set_format(&self, resolution: Resolution, fps: Option<f64>, encoder: &str, target: Option<Bitrate>) {
        let mut inner = lock(&self.inner);
        inner.resolution = resolution;
        inner.nominal_fps = fps.unwrap_or(0.0);
        inner.encoder = encoder.to_owned();
        inner.target_kbps = target.map_or(0, Bitrate::kbps);
    }

    /// What the pipeline makes without a limit; none where nothing here encodes.
    pub fn set_full(&self, full: Option<Full>) {
        lock(&self.inner).full = full;
    }

    pub fn full(&self) -> Option<Full> {
        lock(&self.inner).full
    }

    /// Has the encoder make this from now on, and after a restart of the pipeline too.
    pub fn set_rate(&self, rate: Rate) {
        let changed = lock(&self.inner).rate.replace(rate) != Some(rate);
        if changed {
            // Where the channel is full, the supervisor looks by itself soon.
            let _ = self.control.try_send(Control::RateChanged);
        }
    }

    /// Keyframes of a stream that is passed through, which come when the source likes: how long ago the last came, and how long
    /// the one before had lasted. None where an encoder here makes them on demand.
    pub fn foreign_keyframes(&self, now: Instant) -> Option<Keyframes> {
        let inner = lock(&self.inner);
        let age = inner.last_keyframe.map(|at| now.saturating_duration_since(at));
        inner.full.is_none().then_some(Keyframes { age, interval: inner.keyframe_interval })
    }

    /// What the viewers' links allow; none while nothing has said so.
    pub fn rate(&self) -> Option<Rate> {
        lock(&self.inner).rate
    }

    /// The bit rate that the encoder is asked for now.
    pub fn set_target(&self, target: Bitrate) {
        lock(&self.inner).target_kbps = target.kbps();
    }

    /// Of a stream that is passed through: since when no viewer can begin. None where an encoder here makes keyframes on demand.
    pub fn keyless(&self, now: Instant) -> Option<Keyless> {
        let inner = lock(&self.inner);
        let since = inner.last_keyframe.or(inner.first_picture).filter(|_| inner.full.is_none())?;
        Some(Keyless {
            lasted: now.saturating_duration_since(since),
            interval: inner.last_keyframe.map(|_| inner.keyframe_interval.unwrap_or_default()),
            recovery_points: inner.recovery_points,
        })
    }

    /// No viewer can begin, for the reason given, before there is a keyframe.
    pub fn set_keyless(&self, reason: String) {
        let mut inner = lock(&self.inner);
        inner.keyless = true;
        inner.state = StreamState::Stalled;
        inner.reason = Some(reason);
    }

    /// The pipeline stopped; `reason` is shown to whoever asks.
    pub fn set_stopped(&self, state: StreamState, reason: String) {
        let mut inner = lock(&self.inner);
        inner.restarts += u64::from(state == StreamState::Restarting);
        inner.resting = false;
        inner.state = state;
        inner.reason = Some(reason);
    }

    /// The camera repeats its picture, for the reason given; or it does not any more.
    pub fn set_frozen(&self, reason: Option<String>) {
        lock(&self.inner).frozen = reason;
    }

    /// The encoder rests, or works again.
    pub fn set_resting(&self, resting: bool) {
        lock(&self.inner).resting = resting;
    }

    pub fn is_resting(&self) -> bool {
        lock(&self.inner).resting
    }

    /// The pipeline's counters: raw pictures in, and of those left out before the encoder.
    pub fn set_counters(&self, now: Instant, frames_in: u64, frames_dropped: u64) {
        let mut inner = lock(&self.inner);
        inner.frames_in = frames_in;
        inner.history_in.push_back((now, frames_in));
        while inner.history_in.front().is_some_and(|(at, _)| now.saturating_duration_since(*at) > STATS_WINDOW) {
            inner.history_in.pop_front();
        }
        inner.frames_dropped = frames_dropped;
    }

    /// So many more pictures of the source were damaged.
    pub fn add_damaged(&self, frames: u64) {
        lock(&self.inner).frames_damaged += frames;
    }

    /// How many pipelines have been started: pictures of one cannot be decoded with those of another.
    pub fn starts(&self) -> u64 {
        lock(&self.inner).starts
    }

    /// The state and, unless all is well, the reason.
    pub fn health(&self) -> (StreamState, Option<String>) {
        let inner = lock(&self.inner);
        let running = inner.state == StreamState::Running;
        (inner.state, if running { inner.doubt() } else { inner.reason.clone() })
    }

    /// `profile_idc` and `profile_iop` of a stream of H.264 (RFC 6184 section 8.1), once its SPS is known.
    pub fn profile(&self) -> Option<(u8, u8)> {
        if self.codec != Codec::H264 {
            return None;
        }
        let inner = lock(&self.inner);
        let sps = &inner.parameter_sets.sets().sps;
        Some((*sps.get(1)?, *sps.get(2)?))
    }

    /// The parameter sets of the newest keyframe; empty before the first.
    pub fn parameter_sets(&self) -> ParameterSets {
        lock(&self.inner).parameter_sets.sets().clone()
    }

    /// As [`Self::parameter_sets`], as a byte stream.
    pub fn parameter_sets_annexb(&self) -> Vec<u8> {
        let mut sets = Vec::new();
        lock(&self.inner).parameter_sets.write_annexb(&mut sets);
        sets
    }

    /// Picture size and frames per second as the pipeline negotiated them; zero before that.
    pub fn format(&self) -> (Resolution, f64) {
        let inner = lock(&self.inner);
        (inner.resolution, inner.nominal_fps)
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn codec(&self) -> Codec {
        self.codec
    }

    pub fn stats(&self, now: Instant) -> StreamStats {
        let inner = lock(&self.inner);
        StreamStats {
            name: self.name.clone(),
            state: inner.state,
            reason: inner.doubt().or_else(|| inner.reason.clone()),
            source: inner.source.clone(),
            encoder: inner.encoder.clone(),
            codec: self.codec.to_string(),
            width: inner.resolution.width,
            height: inner.resolution.height,
            fps_in: rate(&inner.history_in),
            fps_out: inner.window_bits.events_per_second(now),
            bitrate_kbps: inner.window_bits.per_second(now) / 1000.0,
            target_bitrate_kbps: inner.target_kbps,
            frames: inner.frames,
            keyframes: inner.keyframes,
            frames_dropped: inner.frames_dropped_before + inner.frames_dropped,
            frames_damaged: inner.frames_damaged,
            encode_latency_ms: inner.window_latency_us.mean(now) / 1000.0,
            restarts: inner.restarts,
            frozen: inner.frozen.is_some(),
            resting: inner.resting,
        }
    }
}

impl Inner {
    /// Why pictures that come are not what they should be.
    fn doubt(&self) -> Option<String> {
        self.substitute.clone().or_else(|| self.frozen.clone())
    }
}

fn rate(history: &VecDeque<(Instant, u64)>) -> f64 {
    let (Some((from, before)), Some((to, after))) = (history.front(), history.back()) else { return 0.0 };
    let seconds = to.saturating_duration_since(*from).as_secs_f64();
    if seconds > 0.0 { after.saturating_sub(*before) as f64 / seconds } else { 0.0 }
}

/// See [`Stream::keyless`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keyless {
    /// Since the last keyframe, or the first picture where there was none.
    pub lasted: Duration,
    /// Between the last two keyframes, zero with only one so far; None: none has come since the source was started.
    pub interval: Option<Duration>,
    /// Since the last keyframe.
    pub recovery_points: u32,
}

/// See [`Stream::foreign_keyframes`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keyframes {
    /// None: none has come since the source was started.
    pub age: Option<Duration>,
    /// Between the last two; none before there were two.
    pub interval: Option<Duration>,
}

/// Somebody looks: see [`Stream::keep_awake`].
pub struct Awake(Arc<Stream>);

impl Drop for Awake {
    fn drop(&mut self) {
        let mut lookers = lock(&self.0.lookers);
        lookers.count -= 1;
        lookers.gone = Instant::now();
    }
}

/// The frames that wait for one output.
pub struct OutputQueue {
    state: Mutex<QueueState>,
    wake: Box<dyn Fn() + Send + Sync>,
}

#[derive(Default)]
struct QueueState {
    frames: VecDeque<Arc<RtpFrame>>,
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
    pub fn take(&self) -> Option<Arc<RtpFrame>> {
        lock(&self.state).frames.pop_front()
    }

    /// Frames left out because this output was too slow.
    pub fn skipped(&self) -> u64 {
        lock(&self.state).skipped
    }

    fn put(&self, frame: &Arc<RtpFrame>) -> Put {
        {
            let mut state = lock(&self.state);
            if state.skipping && frame.keyframe {
                state.skipping = false;
                state.skipped += state.frames.len() as u64;
                state.frames.clear();
            } else if state.skipping {
                state.skipped += 1;
                return Put::Skipped;
            } else if state.frames.len() >= OUTPUT_CAPACITY {
                state.skipping = true;
                state.skipped += 1 + state.frames.len() as u64;
                state.frames.clear();
                return Put::Overflow;
            }
            state.frames.push_back(Arc::clone(frame));
        }
        (self.wake)();
        Put::Kept
    }
}

/// Maps the timestamps of one pipeline after another onto one timeline that only moves forward.
struct Timeline {
    epoch: Instant,
    /// Pipeline time plus this is stream time; `None` until the first picture of a pipeline.
    offset: Option<i128>,
    last: Duration,
}

impl Timeline {
    fn new(epoch: Instant) -> Self {
        Self { epoch, offset: None, last: Duration::ZERO }
    }

    fn restart(&mut self) {
        self.offset = None;
    }

    fn map(&mut self, pts: Duration, now: Instant) -> Duration {
        let offset = *self.offset.get_or_insert_with(|| {
            let elapsed = now.saturating_duration_since(self.epoch);
            elapsed.as_nanos() as i128 - pts.as_nanos() as i128
        });
        let mapped = Duration::from_nanos((pts.as_nanos() as i128 + offset).max(0) as u64);
        // Two access units never share an RTP timestamp: receivers would take them for one.
        let mapped = if self.last > Duration::ZERO { mapped.max(self.last + Duration::from_millis(1)) } else { mapped };
        self.last = mapped;
        mapped
    }
}

#[cfg(test)]
mod tests {
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
        let (stream, _requests) = Stream::new("stream1", Codec::H264, now);
        let refresh = [&[0, 0, 0, 1, 6, 6, 1, 0xc4, 0x80][..], &unit(false, 0).data].concat();
        for at in 0..3 {
            stream.publish(AccessUnit { data: refresh.clone().into(), ..unit(false, at * 33) }, now);
        }
        let later = now + Duration::from_secs(8);
        let keyless = Keyless { lasted: Duration::from_secs(8), interval: None, recovery_points: 3 };
        assert_eq!(stream.keyless(later), Some(keyless));
        stream.set_keyless("no keyframe".to_owned());
        stream.publish(unit(false, 99), later);
        assert_eq!(stream.health(), (StreamState::Stalled, Some("no keyframe".to_owned())));
        stream.publish(unit(true, 132), later);
        assert_eq!(stream.health(), (StreamState::Running, None));
        assert_eq!(stream.keyless(later).map(|keyless| keyless.lasted), Some(Duration::ZERO));
    }

    #[test]
    fn an_output_that_falls_behind_skips_to_the_next_keyframe_and_asks_for_it() {
        let now = Instant::now();
        let (stream, mut requests) = Stream::new("stream1", Codec::H264, now);
        let queue = stream.add_output(|| {});
        stream.publish(unit(true, 0), now);
        for i in 1..20 {
            stream.publish(unit(false, i * 33), now);
        }
        assert_eq!(requests.try_recv().ok(), Some(Control::KeyframeWanted));
        assert!(requests.try_recv().is_err(), "one request for one gap");
        assert!(queue.take().is_none(), "old frames are worth nothing after a gap");

        stream.publish(unit(true, 700), now);
        stream.publish(unit(false, 733), now);
        assert!(queue.take().expect("the keyframe").keyframe);
        assert!(!queue.take().expect("what follows it").keyframe);
        assert_eq!(queue.skipped(), 20, "the first keyframe, which was never taken, and all until the next");
    }

    #[test]
    fn a_slow_output_costs_another_nothing() {
        let now = Instant::now();
        let (stream, _requests) = Stream::new("stream1", Codec::H264, now);
        let _slow = stream.add_output(|| {});
        let fast = stream.add_output(|| {});
        for i in 0..50 {
            stream.publish(unit(i == 0, i * 33), now);
            assert!(fast.take().is_some());
        }
        assert_eq!(fast.skipped(), 0);
    }

    #[test]
    fn an_output_that_was_removed_gets_nothing_more_even_by_its_own_wake() {
        let now = Instant::now();
        let (stream, _requests) = Stream::new("stream1", Codec::H264, now);
        let own = Arc::new(Mutex::new(None));
        let (weak, remembered) = (Arc::downgrade(&stream), Arc::clone(&own));
        let queue = stream.add_output(move || {
            if let (Some(stream), Some(queue)) = (weak.upgrade(), remembered.lock().unwrap().take()) {
                stream.remove_output(&queue);
            }
        });
        *own.lock().unwrap() = Some(Arc::clone(&queue));
        let other = stream.add_output(|| {});
        stream.publish(unit(true, 0), now);
        stream.publish(unit(true, 33), now);
        assert_eq!(std::iter::from_fn(|| queue.take()).count(), 1);
        assert_eq!(std::iter::from_fn(|| other.take()).count(), 2);
    }

    #[test]
    fn the_first_who_looks_is_told_of_and_the_last_who_goes_is_remembered() {
        let start = Instant::now();
        let (stream, mut requests) = Stream::new("stream1", Codec::H264, start);
        assert_eq!(stream.idle_since(), Some(start), "nobody has come yet");
        let (first, second) = (stream.keep_awake(), stream.keep_awake());
        assert_eq!(requests.try_recv().ok(), Some(Control::Wanted));
        assert!(requests.try_recv().is_err(), "the second needs nothing");
        drop(first);
        assert_eq!(stream.idle_since(), None);
        let before = Instant::now();
        drop(second);
        assert!(stream.idle_since().is_some_and(|gone| gone >= before));
        let _again = stream.keep_awake();
        assert_eq!(requests.try_recv().ok(), Some(Control::Wanted));
    }

    #[test]
    fn timestamps_go_on_after_a_restart() {
        let start = Instant::now();
        let mut timeline = Timeline::new(start);
        let at = |ms| start + Duration::from_millis(ms);
        let ms = Duration::from_millis;
        assert_eq!(timeline.map(ms(5), at(100)), ms(100));
        assert_eq!(timeline.map(ms(38), at(135)), ms(133));
        timeline.restart();
        assert_eq!(timeline.map(ms(2), at(3_000)), ms(3_000));
        assert_eq!(timeline.map(ms(35), at(3_050)), ms(3_033));
    }

    #[test]
    fn timestamps_never_repeat() {
        let start = Instant::now();
        let mut timeline = Timeline::new(start);
        let first = timeline.map(Duration::from_millis(50), start + Duration::from_millis(50));
        assert!(timeline.map(Duration::from_millis(50), start) > first);
    }
}
