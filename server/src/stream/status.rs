//! What is told of a stream: its state and why, its format, its counters. Nothing here decides anything.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use rov_common::api::{CaptureTime, PictureDoubt, StreamHealth, StreamState, StreamStats};
use rov_common::codec::{self, Codec};
use rov_common::lossy;
use rov_common::sync::lock;
use rov_common::units::{Bitrate, Resolution};
use rov_common::window::RateWindow;
use tokio::sync::watch;

use super::troubles::{Broken, Troubles};
use crate::packetize::Frame;
use crate::rate_control::Ceiling;

const WINDOW: Duration = Duration::from_secs(2);

#[derive(Default)]
pub struct Status {
    inner: Mutex<Inner>,
    health: watch::Sender<StreamHealth>,
}

struct Inner {
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
    /// Whose pictures these are, where others send them, and what has to be known of that.
    sender: Option<String>,
    notice: Option<String>,
    capture_time: CaptureTime,
    encoder: String,
    target_kbps: u32,
    ceiling: Option<Ceiling>,
    resolution: Resolution,
    nominal_fps: f64,
    frames: u64,
    keyframes: u64,
    /// When those of this pipeline came.
    came: lossy::Keyframes,
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
    troubles: Troubles,
    errors: u64,
    /// Since when the stream runs, without an interruption.
    running_since: Option<Instant>,
    /// It has stalled, which was counted: the restart that follows is of the same error.
    stop_counted: bool,
    /// The rule by which it is not well although it runs.
    broken: Option<Broken>,
}

impl Default for Inner {
    fn default() -> Self {
        Self {
            state: StreamState::Starting,
            reason: None,
            substitute: None,
            frozen: None,
            keyless: false,
            resting: false,
            source: String::new(),
            sender: None,
            notice: None,
            capture_time: CaptureTime::default(),
            encoder: String::new(),
            target_kbps: 0,
            ceiling: None,
            resolution: Resolution::new(0, 0),
            nominal_fps: 0.0,
            frames: 0,
            keyframes: 0,
            came: lossy::Keyframes::default(),
            first_picture: None,
            recovery_points: 0,
            starts: 0,
            restarts: 0,
            frames_in: 0,
            history_in: VecDeque::new(),
            frames_dropped_before: 0,
            frames_dropped: 0,
            frames_damaged: 0,
            window_bits: RateWindow::new(WINDOW),
            window_latency_us: RateWindow::new(WINDOW),
            troubles: Troubles::default(),
            errors: 0,
            running_since: None,
            stop_counted: false,
            broken: None,
        }
    }
}

impl Status {
    /// See `Stream::pipeline_starting`.
    pub(super) fn pipeline_starting(&self, source: &str, capture_time: CaptureTime, substitute: Option<String>) {
        self.change(|inner| {
            inner.source = source.to_owned();
            inner.capture_time = capture_time;
            inner.substitute = substitute;
            inner.frozen = None;
            inner.encoder_starting();
        });
    }

    /// Its health now, and each time that it is another.
    pub fn follow(&self) -> watch::Receiver<StreamHealth> {
        self.health.subscribe()
    }

    /// A change by which its health may be another.
    fn change(&self, change: impl FnOnce(&mut Inner)) {
        let mut inner = lock(&self.inner);
        change(&mut inner);
        self.tell(&inner);
    }

    fn tell(&self, inner: &Inner) {
        self.health.send_if_modified(|known| {
            let is_known = known.state == inner.state
                && known.resting == inner.resting
                && known.reason.as_deref() == inner.why_not_well()
                && known.rule.as_deref() == inner.rule()
                && known.notice == inner.notice;
            if !is_known {
                *known = inner.health();
            }
            !is_known
        });
    }

    /// Another encoder is about to start, of the same source.
    pub fn encoder_starting(&self) {
        self.change(Inner::encoder_starting);
    }

    /// Another encoder has taken over from the one before, without a gap: its counters begin again.
    pub fn encoder_changed(&self) {
        lock(&self.inner).count_anew();
    }

    /// A picture has come out of the pipeline.
    pub(super) fn passed(&self, codec: Codec, frame: &Frame, now: Instant) {
        let is_recovery_point =
            !frame.keyframe && self.ceiling().is_none() && codec::is_recovery_point(codec, &frame.unit);
        let mut inner = lock(&self.inner);
        let ran = inner.state == StreamState::Running;
        inner.passed(frame, is_recovery_point, now);
        // One picture more of a stream that runs is no news: whoever follows costs nothing then.
        if !(ran && inner.state == StreamState::Running) {
            self.tell(&inner);
        }
    }

    /// What the pipeline negotiated. `target` is what the encoder was asked for; none where the source's stream goes
    /// out untouched.
    pub fn set_format(&self, resolution: Resolution, fps: Option<f64>, encoder: &str, target: Option<Bitrate>) {
        let mut inner = lock(&self.inner);
        inner.resolution = resolution;
        inner.nominal_fps = fps.unwrap_or(0.0);
        inner.encoder = encoder.to_owned();
        inner.target_kbps = target.map_or(0, Bitrate::kbps);
    }

    /// Picture size and frames per second as the pipeline negotiated them; zero before that.
    pub fn format(&self) -> (Resolution, f64) {
        let inner = lock(&self.inner);
        (inner.resolution, inner.nominal_fps)
    }

    /// What the pipeline makes without a limit; none where nothing here encodes.
    pub fn set_ceiling(&self, ceiling: Option<Ceiling>) {
        lock(&self.inner).ceiling = ceiling;
    }

    pub fn ceiling(&self) -> Option<Ceiling> {
        lock(&self.inner).ceiling
    }

    /// The bit rate that the encoder is asked for now.
    pub fn set_target(&self, target: Bitrate) {
        lock(&self.inner).target_kbps = target.kbps();
    }

    /// Keyframes of a stream that is passed through, which come when the source likes: how long ago the last came, and
    /// how long the one before had lasted. None where an encoder here makes them on demand.
    pub fn foreign_keyframes(&self, now: Instant) -> Option<Keyframes> {
        let inner = lock(&self.inner);
        let age = inner.came.last().map(|at| now.saturating_duration_since(at));
        inner.ceiling.is_none().then_some(Keyframes { age, interval: inner.came.interval() })
    }

    /// Of a stream that is passed through: since when no viewer can begin. None where an encoder here makes keyframes
    /// on demand.
    pub fn keyless(&self, now: Instant) -> Option<Keyless> {
        let inner = lock(&self.inner);
        let since = inner.came.last().or(inner.first_picture).filter(|_| inner.ceiling.is_none())?;
        Some(Keyless {
            lasted: now.saturating_duration_since(since),
            interval: inner.came.last().map(|_| inner.came.interval().unwrap_or_default()),
            recovery_points: inner.recovery_points,
        })
    }

    /// No viewer can begin, for the reason given, before there is a keyframe.
    pub fn set_keyless(&self, reason: String) {
        self.change(|inner| {
            inner.keyless = true;
            inner.stopped(StreamState::Stalled);
            inner.reason = Some(reason);
        });
    }

    /// The pipeline is stopped for settings that need another; it is no error.
    pub fn set_changing(&self, reason: &str) {
        self.change(|inner| {
            inner.running_since = None;
            inner.resting = false;
            inner.stopped(StreamState::Stalled);
            inner.reason = Some(reason.to_owned());
        });
    }

    /// The pipeline stopped; `reason` is shown to whoever asks.
    pub fn set_stopped(&self, state: StreamState, reason: String) {
        self.change(|inner| {
            inner.restarts += u64::from(state == StreamState::Restarting);
            inner.resting = false;
            inner.stopped(state);
            inner.reason = Some(reason);
        });
    }

    /// The camera repeats its picture, for the reason given; or it does not any more.
    pub fn set_frozen(&self, reason: Option<String>) {
        self.change(|inner| inner.frozen = reason);
    }

    /// Who sends the pictures, as ADDRESS:PORT, and what whoever watches has to know of that now.
    pub fn set_sender(&self, sender: Option<String>, notice: Option<String>) {
        self.change(|inner| (inner.sender, inner.notice) = (sender, notice));
    }

    /// The encoder rests, or works again.
    pub fn set_resting(&self, resting: bool) {
        self.change(|inner| inner.resting = resting);
    }

    pub fn is_resting(&self) -> bool {
        lock(&self.inner).resting
    }

    /// The pipeline's counters: raw pictures in, and of those left out before the encoder.
    pub fn set_counters(&self, now: Instant, frames_in: u64, frames_dropped: u64) {
        let mut inner = lock(&self.inner);
        inner.frames_in = frames_in;
        inner.history_in.push_back((now, frames_in));
        while inner.history_in.front().is_some_and(|(at, _)| now.saturating_duration_since(*at) > WINDOW) {
            inner.history_in.pop_front();
        }
        // With pictures on their way it may be one less than a moment ago; a total never falls.
        let frames_dropped = inner.frames_dropped.max(frames_dropped);
        let more = frames_dropped - inner.frames_dropped;
        inner.troubles.dropped(now, more);
        inner.frames_dropped = frames_dropped;
    }

    /// So many more pictures of the source were damaged.
    pub fn add_damaged(&self, frames: u64) {
        let mut inner = lock(&self.inner);
        inner.frames_damaged += frames;
        inner.troubles.dropped(Instant::now(), frames);
    }

    /// How many encoders have been started: pictures of one cannot be decoded with those of another.
    pub fn starts(&self) -> u64 {
        lock(&self.inner).starts
    }

    pub fn whole_health(&self) -> StreamHealth {
        lock(&self.inner).health()
    }

    /// It shows a test picture in the place of a camera, for the reason given; or it does not.
    pub fn set_substitute(&self, reason: Option<String>) {
        self.change(|inner| inner.substitute = reason);
    }

    /// Why pictures that come are not live ones of the camera; none: they are.
    pub fn picture_doubt(&self) -> Option<PictureDoubt> {
        let inner = lock(&self.inner);
        let reason = inner.doubt()?.to_owned();
        Some(PictureDoubt { frozen: inner.frozen.is_some(), substitute: inner.substitute.is_some(), reason })
    }

    /// Whose time of capture that of its pictures is.
    pub fn capture_time(&self) -> CaptureTime {
        lock(&self.inner).capture_time
    }

    /// The state and, unless all is well, the reason.
    pub fn health(&self) -> (StreamState, Option<String>) {
        let StreamHealth { state, reason, .. } = self.whole_health();
        (state, reason)
    }

    /// Looks by which rule it is not well. `watched_since`: none while nobody watches.
    pub(super) fn look_for_troubles(&self, now: Instant, watched_since: Option<Instant>) {
        self.change(|inner| inner.broken = inner.troubles.broken(now, watched_since));
    }

    /// But for name and codec, which the stream knows.
    pub(super) fn stats(&self, now: Instant) -> StreamStats {
        let inner = lock(&self.inner);
        StreamStats {
            state: inner.state,
            reason: inner.doubt().map(str::to_owned).or_else(|| inner.reason.clone()),
            source: match &inner.sender {
                Some(sender) => format!("{} from {sender}", inner.source),
                None => inner.source.clone(),
            },
            notice: inner.notice.clone(),
            capture_time: inner.capture_time,
            encoder: inner.encoder.clone(),
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
            substitute: inner.substitute.is_some(),
            resting: inner.resting,
            current_bitrate: inner.window_bits.per_second(now) as u64,
            frame_drops: inner.frames_dropped_before + inner.frames_dropped + inner.frames_damaged,
            errors: inner.errors,
            uptime: inner.running_since.map_or(0.0, |since| now.saturating_duration_since(since).as_secs_f64()),
            ..StreamStats::default()
        }
    }
}

impl Inner {
    fn encoder_starting(&mut self) {
        self.starts += 1;
        self.resting = false;
        self.came.begin_anew();
        self.first_picture = None;
        self.recovery_points = 0;
        self.keyless = false;
        self.count_anew();
    }

    fn count_anew(&mut self) {
        self.frames_in = 0;
        self.history_in.clear();
        self.frames_dropped_before += self.frames_dropped;
        self.frames_dropped = 0;
    }

    /// A picture has come out of the pipeline.
    fn passed(&mut self, frame: &Frame, is_recovery_point: bool, now: Instant) {
        self.frames += 1;
        self.window_bits.add(now, frame.unit.len() as u64 * 8);
        self.window_latency_us.add(now, now.saturating_duration_since(frame.captured_at).as_micros() as u64);
        self.first_picture.get_or_insert(now);
        self.troubles.picture(now);
        if frame.keyframe {
            self.keyframes += 1;
            self.came.came(now);
            self.recovery_points = 0;
            self.keyless = false;
        } else {
            self.recovery_points += u32::from(is_recovery_point);
        }
        if !self.keyless {
            // The reason of a restart is still told; that of a wait is over with it.
            if self.state == StreamState::Stalled {
                self.reason = None;
            }
            self.state = StreamState::Running;
            self.running_since.get_or_insert(now);
        }
    }

    /// Each interruption counts as one error, however often it is told of.
    fn stopped(&mut self, state: StreamState) {
        let is_failed_start = state == StreamState::Restarting && !self.stop_counted;
        if self.running_since.take().is_some() {
            self.errors += 1;
            self.troubles.error(Instant::now());
        } else if is_failed_start {
            self.errors += 1;
        }
        self.stop_counted = state == StreamState::Stalled;
        self.state = state;
    }

    /// Why pictures that come are not what they should be.
    fn doubt(&self) -> Option<&str> {
        self.substitute.as_deref().or(self.frozen.as_deref())
    }

    fn why_not_well(&self) -> Option<&str> {
        if self.state != StreamState::Running {
            return self.reason.as_deref();
        }
        self.doubt().or(self.broken.as_ref().map(|broken| broken.reason.as_str()))
    }

    fn health(&self) -> StreamHealth {
        let reason = self.why_not_well().map(str::to_owned);
        let (rule, notice) = (self.rule().map(str::to_owned), self.notice.clone());
        StreamHealth { state: self.state, reason, resting: self.resting, rule, notice }
    }

    fn rule(&self) -> Option<&'static str> {
        self.broken.as_ref().filter(|_| self.state == StreamState::Running).map(|broken| broken.rule)
    }
}

fn rate(history: &VecDeque<(Instant, u64)>) -> f64 {
    let (Some((from, before)), Some((to, after))) = (history.front(), history.back()) else { return 0.0 };
    let seconds = to.saturating_duration_since(*from).as_secs_f64();
    if seconds > 0.0 { after.saturating_sub(*before) as f64 / seconds } else { 0.0 }
}

/// See [`Status::keyless`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keyless {
    /// Since the last keyframe, or the first picture where there was none.
    pub lasted: Duration,
    /// Between the last two keyframes, zero with only one so far; None: none has come since the source was started.
    pub interval: Option<Duration>,
    /// Since the last keyframe.
    pub recovery_points: u32,
}

/// See [`Status::foreign_keyframes`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keyframes {
    /// None: none has come since the source was started.
    pub age: Option<Duration>,
    /// Between the last two; none before there were two.
    pub interval: Option<Duration>,
}
