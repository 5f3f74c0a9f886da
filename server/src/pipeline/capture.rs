//! What the callbacks of a running pipeline share: `Capture` is the camera's, `Branch` a stream's; what they tell the
//! owner, and how an access unit gets to it.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;
use gstreamer_video as gst_video;
use rov_common::access_unit::AccessUnit;
use rov_common::codec::{self, Codec};
use rov_common::sync::lock;
use rov_common::units::{Bitrate, Fps, Resolution};
use rov_gst::counter::{Counter, Moment};
use rov_gst::element::is_made_by;
use rov_gst::rtp::LeftOut;
use rov_gst::{clock, element};

use super::encoder::{EncoderRow, Keyframe, LiveSize, Settings};
use super::feed::Feed;
use super::handover::{Handover, Sign};
use super::live::ToSet;
use super::local_time::LocalTime;
use super::pip::Tap;
use super::plan::{BranchPlan, Plan};
use super::playable::{self, Judge, Verdict};
use super::still::Still;
use super::times::Times;
use super::valve::Valve;
use crate::config::SourceKind;
use crate::overlay::{Canvas, Overlay};
use crate::rate_control::Ceiling;

/// An IP camera's picture that is so old has waited on its way: a large keyframe takes a second on a slow link.
const WAITED: Duration = Duration::from_secs(3);
/// Ends the bus thread.
pub(super) const STOP: &str = "rov-stop";

/// Size and rate; no rate where it varies.
pub type Format = (Resolution, Option<Fps>);

/// What a graph tells its owner, on GStreamer's threads: hand over, do not work. `stream`: the number of the branch.
#[derive(Clone, Debug, PartialEq)]
pub enum GraphEvent {
    /// The size and rate that go out, when they are known and whenever they change. No rate where it varies.
    Format { stream: usize, resolution: Resolution, fps: Option<Fps> },
    /// The first picture after a rest is not the keyframe that was asked for: one that was on its way to the encoder
    /// before has become it, or the encoder made none.
    NoKeyframe { stream: usize },
    /// The source has ended.
    Eos,
    /// With element, device and reason.
    Error(Failure),
    /// An IP camera has refused the password. `if_right`: what to say where it was right before; none: it is not any
    /// more.
    Denied { reason: String, if_right: Option<String> },
    /// What comes can never be shown by WebRTC viewers, however often it is restarted.
    Refused(String),
}

/// What has failed, with the reason in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    Source(String),
    /// A stream's encoder, or what converts pictures for it: another encoder may do better.
    Encoder {
        stream: usize,
        reason: String,
    },
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Source(reason) | Self::Encoder { reason, .. }) = self;
        f.write_str(reason)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GraphError {
    /// The text of the pipeline: an element is missing, or the user's description is wrong.
    #[error("{0}")]
    Text(String),
    /// It did not start: the camera is busy or gone.
    #[error("{0}")]
    Start(Failure),
    #[error("the bit rate cannot be changed: {0}")]
    Bitrate(String),
}

impl GraphError {
    pub(super) fn source(reason: impl Into<String>) -> Self {
        Self::Start(Failure::Source(reason.into()))
    }
}

/// What the source has given since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SourceCounters {
    /// Left out because they were damaged.
    pub frames_damaged: u64,
    /// That of [`LeftOut`].
    pub keyframe_awaited: Option<(Instant, Instant)>,
    /// When a source that is paced (a file) releases its next picture, or released its last one: between two pictures
    /// of a file there may be seconds. None: not paced, or nothing has come yet.
    pub next_due: Option<Instant>,
    /// Whether raw pictures differ. None: not looked at, or nothing has come yet.
    pub still: Option<Still>,
}

/// What has passed through a branch since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BranchCounters {
    /// Frames of the source that are not too many for the stream.
    pub frames_in: u64,
    pub frames_to_encoder: u64,
    /// Not given to the encoder because it rests, or to the decoder in front of it because that needs a keyframe first.
    pub frames_unwanted: u64,
    /// Access units.
    pub frames_out: u64,
    /// Of `frames_in`, what was left out while the encoder was opened, or made nothing that anybody saw.
    pub frames_missed: u64,
    /// When the last of `frames_unwanted` came.
    pub last_unwanted: Option<Instant>,
    pub first_in: Option<Instant>,
    pub last_in: Option<Instant>,
    pub first_out: Option<Instant>,
    pub last_out: Option<Instant>,
}

impl BranchCounters {
    /// Raw frames left out because the encoder was busy. Two may be on their way between the points where they are
    /// counted.
    pub fn frames_dropped(&self) -> u64 {
        // Before its first picture it is being opened.
        if self.frames_out == 0 { 0 } else { self.left_out() }
    }

    fn left_out(&self) -> u64 {
        self.frames_wanted().saturating_sub(self.frames_to_encoder + self.frames_missed + 2)
    }

    /// Raw frames that were for the encoder. The two counts are read one after the other, while frames come.
    pub fn frames_wanted(&self) -> u64 {
        self.frames_in.saturating_sub(self.frames_unwanted)
    }
}

/// What the callbacks of a pipeline share: a camera's, and its streams'.
pub(super) struct Capture {
    pub on_unit: Box<dyn Fn(usize, AccessUnit) + Send + Sync>,
    pub on_event: Box<dyn Fn(GraphEvent) + Send + Sync>,
    pub stopped: AtomicBool,
    pub frames_damaged: Arc<Counter>,
    pub lost: Arc<LeftOut>,
    pub next_due: Arc<Moment>,
    pub local_time: Mutex<LocalTime>,
    pub still: Arc<Mutex<Option<Still>>>,
    /// The pictures come from a pipe, and have the times of their arrival.
    pub is_piped: AtomicBool,
    pub source: SourceKind,
    /// What an IP camera offers instead of the video that is wanted.
    pub left_out: Mutex<Vec<String>>,
    /// The fingerprint of an IP camera's certificate that was not taken.
    pub untrusted: Mutex<Option<String>>,
    /// In the order of the plan; one that is replaced gives way to another one with its number.
    branches: Vec<Mutex<Arc<Branch>>>,
    /// Likewise: while one takes over from another.
    relays: Vec<Mutex<Option<Relay>>>,
    /// Held while a branch is added to the pipeline, which must not be stopped at that moment.
    pub joining: Mutex<()>,
    /// Whether somebody looks at its pictures in those of another camera.
    pub is_wanted_elsewhere: Box<dyn Fn() -> bool + Send + Sync>,
    /// Those of [`Links`](super::plan::Links).
    pub overlays: Vec<Arc<Overlay>>,
}

/// A branch that is to take the place of the one at work, and what is heard of it.
pub(super) struct Relay {
    pub former: Arc<Branch>,
    pub next: Arc<Branch>,
    pub handover: Handover<AccessUnit>,
    pub news: SyncSender<News>,
}

/// What whoever waits for the next branch is told; one that is not heard says nothing new.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum News {
    Sign(Sign),
    Failed(String),
}

/// What makes a stream of the source's pictures.
pub struct Branch {
    /// Its number.
    pub(super) stream: usize,
    pub(super) is_off: bool,
    /// It has failed, or is taken out: nothing goes into it any more.
    has_failed: AtomicBool,
    pub(super) frames_in: Arc<Counter>,
    /// Access units for the decoder in front of the encoder, and what is shown of its pictures.
    pub(super) coded: Counter,
    pub(super) feed: Mutex<Feed>,
    pub(super) frames_to_encoder: Arc<Counter>,
    pub(super) frames_unwanted: Arc<Counter>,
    pub(super) frames_out: Arc<Counter>,
    pub(super) frames_missed: AtomicU64,
    pub(super) valve: Mutex<Valve>,
    /// The encoder is to make a keyframe of the first picture from this time on.
    pub(super) keyframe_from: Mutex<Option<Duration>>,
    /// Those of pictures from a pipe.
    pub(super) times: Mutex<Times>,
    pub(super) settings: Mutex<Settings>,
    /// What the encoder makes without a limit, once size and rate are known.
    pub(super) ceiling: Mutex<Option<Ceiling>>,
    /// No picture goes to the encoder before.
    pub(super) held_until: Arc<Moment>,
    /// The `rate_control::Step`.
    pub(super) step: Arc<AtomicU8>,
    /// What comes out, once that is known.
    pub(super) format: Mutex<Option<Format>>,
    canvas: Mutex<Canvas>,
    /// Properties that are set between two pictures: see `live::set_in_stream`.
    pub(super) to_set: Mutex<Vec<ToSet>>,
    pub(super) codec: Codec,
    /// Of what nothing here has encoded.
    judge: Mutex<Judge>,
    /// Set when the tail is there, for a user's pipeline only after the start.
    pub(super) output: OnceLock<TailElements>,
}

/// The tail's elements that are worked with later. Weak, as the sink's callback holds `Capture`: they would keep each
/// other alive.
pub(super) struct TailElements {
    /// None: the source's stream goes out untouched.
    pub encoder: Option<(gst::glib::WeakRef<gst::Element>, &'static EncoderRow)>,
    /// Pins the size that is encoded, where it can change while pictures flow.
    pub size: Option<Size>,
    /// Turns the pictures, where that can be changed while they flow.
    pub flip: Option<gst::glib::WeakRef<gst::Element>>,
    pub sink: gst::glib::WeakRef<gst_app::AppSink>,
    /// The launch text.
    pub text: String,
}

impl Capture {
    pub fn new(
        plan: &Plan,
        epoch: Instant,
        on_unit: impl Fn(usize, AccessUnit) + Send + Sync + 'static,
        on_event: impl Fn(GraphEvent) + Send + Sync + 'static,
    ) -> Self {
        let (taps, branches) = (plan.links.taps.clone(), plan.branches.iter().enumerate());
        let frames_damaged = Arc::new(Counter::new(epoch));
        Self {
            on_unit: Box::new(on_unit),
            on_event: Box::new(on_event),
            stopped: AtomicBool::new(false),
            lost: Arc::new(LeftOut::new(Arc::clone(&frames_damaged))),
            frames_damaged,
            next_due: Arc::new(Moment::new(epoch)),
            local_time: Mutex::default(),
            still: Arc::default(),
            is_piped: AtomicBool::new(false),
            source: plan.source,
            left_out: Mutex::default(),
            untrusted: Mutex::default(),
            relays: plan.branches.iter().map(|_| Mutex::default()).collect(),
            branches: branches.map(|(stream, plan)| Mutex::new(Arc::new(Branch::new(stream, plan, epoch)))).collect(),
            joining: Mutex::default(),
            is_wanted_elsewhere: Box::new(move || taps.iter().any(Tap::is_wanted)),
            overlays: plan.links.overlays.clone(),
        }
    }

    /// Those at work, in the order of the plan.
    pub fn branches(&self) -> impl Iterator<Item = Arc<Branch>> + '_ {
        self.branches.iter().map(|branch| Arc::clone(&lock(branch)))
    }

    pub fn branch(&self, stream: usize) -> Arc<Branch> {
        Arc::clone(&lock(&self.branches[stream]))
    }

    /// It takes the place of the one with its number.
    pub fn set_branch(&self, branch: &Arc<Branch>) {
        *lock(&self.branches[branch.stream]) = Arc::clone(branch);
        self.tell_canvas(branch, &lock(&branch.canvas));
    }

    /// What the pictures of a branch are to what is written over them, which counts while it is at work.
    pub fn set_canvas(&self, branch: &Branch, now: Canvas) {
        let mut canvas = lock(&branch.canvas);
        *canvas = now;
        self.tell_canvas(branch, &canvas);
    }

    fn tell_canvas(&self, branch: &Branch, canvas: &Canvas) {
        if let Some(overlay) = self.overlays.get(branch.stream).filter(|_| self.is_at_work(branch)) {
            overlay.set_canvas(*canvas);
        }
    }

    /// While another branch is to take over from the one of this stream.
    pub fn relay(&self, stream: usize) -> MutexGuard<'_, Option<Relay>> {
        lock(&self.relays[stream])
    }

    /// Whether what it gives is that of its stream.
    pub fn is_at_work(&self, branch: &Branch) -> bool {
        std::ptr::eq(&*self.branch(branch.stream), branch)
    }

    /// Hands on what a branch gives, if it is its turn: while another one takes over, each waits for the other.
    fn pass(&self, branch: &Branch, time: Duration, unit: AccessUnit) {
        // Held while it goes out, as the two have threads of their own.
        let mut relay = self.relay(branch.stream);
        let Some(Relay { former, next, handover, .. }) = &mut *relay else {
            if !branch.has_failed() {
                self.give(branch.stream, unit);
            }
            return;
        };
        let (now, alone, mut out) = (Instant::now(), former.has_failed(), Vec::new());
        let sign = match std::ptr::eq(&**next, branch) {
            true if next.has_failed() => None,
            true => handover.next(time, unit, alone, now, &mut out),
            false => handover.former(time, unit, now, &mut out),
        };
        self.hand_on(branch.stream, relay.as_ref(), sign, out);
    }

    fn hand_on(&self, stream: usize, relay: Option<&Relay>, sign: Option<Sign>, units: Vec<AccessUnit>) {
        let Some((Relay { former, next, news, .. }, sign)) = relay.zip(sign) else {
            return units.into_iter().for_each(|unit| self.give(stream, unit));
        };
        if sign == Sign::TookOver {
            former.fail();
            self.set_branch(next);
        }
        units.into_iter().for_each(|unit| self.give(stream, unit));
        // Full: what it holds says as much.
        let _ = news.try_send(News::Sign(sign));
    }

    /// Nothing of a graph that has been stopped goes out.
    fn give(&self, stream: usize, unit: AccessUnit) {
        if !self.stopped.load(Ordering::Acquire) {
            (self.on_unit)(stream, unit);
        }
    }

    pub fn has_taken_over(&self, stream: usize) -> bool {
        self.relay(stream).as_ref().is_some_and(|relay| relay.handover.is_over())
    }

    /// Ends a wait of one branch for another that has lasted too long; whether the next one is at work.
    pub fn look_at_relay(&self, stream: usize) -> bool {
        let (mut relay, mut out) = (self.relay(stream), Vec::new());
        let Some(Relay { former, handover, .. }) = &mut *relay else { return false };
        let sign = handover.look(Instant::now(), former.has_failed(), &mut out);
        let is_over = handover.is_over();
        self.hand_on(stream, relay.as_ref(), sign, out);
        is_over
    }

    /// The next branch takes over no more; whether it has.
    pub fn end_relay(&self, stream: usize) -> bool {
        let (mut relay, mut out) = (self.relay(stream), Vec::new());
        let Some(Relay { next, handover, .. }) = &mut *relay else { return false };
        if handover.is_over() {
            return true;
        }
        next.fail();
        handover.give_up(&mut out);
        self.hand_on(stream, None, None, out);
        false
    }

    /// The next branch is to begin anew with the picture of this time, which no branch has yet. Whether that can be.
    pub fn begins(&self, branch: &Branch, first: Duration) -> bool {
        let mut relay = self.relay(branch.stream);
        let Some(Relay { next, handover, .. }) = &mut *relay else { return false };
        let is_next = std::ptr::eq(&**next, branch) && !next.has_failed();
        if is_next {
            handover.begin(first, Instant::now());
            next.count_drops_from_here();
        }
        is_next
    }

    /// Takes an error of `at` that is of a branch which is not at work: of the next one, or of the former one. False
    /// where it is another's.
    pub fn hears_beside(&self, at: Option<&gst::Object>, reason: impl FnOnce() -> String) -> bool {
        for relay in &self.relays {
            let relay = lock(relay);
            let Some(Relay { former, next, handover, news }) = &*relay else { continue };
            let beside = if handover.is_over() { former } else { next };
            if beside.holds(at) {
                beside.fail();
                let _ = news.try_send(News::Failed(reason()));
                return true;
            }
        }
        false
    }

    /// Nothing of a graph that has been stopped reaches its owner.
    pub fn event(&self, event: GraphEvent) {
        if !self.stopped.load(Ordering::Acquire) {
            (self.on_event)(event);
        }
    }

    /// What is to blame for a failure of `at`: everything in a tail is there for its encoder.
    pub fn failure(&self, at: Option<&gst::Object>, reason: String) -> Failure {
        match self.branches().find(|branch| branch.holds(at)) {
            Some(branch) => branch.failure(reason),
            None => Failure::Source(reason),
        }
    }
}

impl Branch {
    pub(super) fn new(stream: usize, plan: &BranchPlan, epoch: Instant) -> Self {
        let (is_off, codec, settings) = (plan.is_off, plan.codec, plan.settings);
        let counter = || Arc::new(Counter::new(epoch));
        Self {
            stream,
            is_off,
            has_failed: AtomicBool::new(false),
            frames_in: counter(),
            coded: Counter::new(epoch),
            feed: Mutex::new(Feed::Flows),
            frames_to_encoder: counter(),
            frames_unwanted: counter(),
            frames_out: counter(),
            frames_missed: AtomicU64::default(),
            valve: Mutex::new(if is_off { Valve::Shut } else { Valve::default() }),
            keyframe_from: Mutex::default(),
            times: Mutex::default(),
            settings: Mutex::new(settings),
            ceiling: Mutex::default(),
            canvas: Mutex::default(),
            held_until: Arc::new(Moment::new(epoch)),
            step: Arc::default(),
            format: Mutex::default(),
            to_set: Mutex::default(),
            codec,
            judge: Mutex::default(),
            output: OnceLock::new(),
        }
    }

    /// That of its stream, in the order of the configuration.
    pub fn number(&self) -> usize {
        self.stream
    }

    /// Whether it was left out and gives nothing.
    pub fn is_off(&self) -> bool {
        self.is_off
    }

    /// Whether it has failed, or is taken out.
    pub fn has_failed(&self) -> bool {
        self.has_failed.load(Ordering::Acquire)
    }

    /// It has failed, or is to be taken out; false where that was known.
    pub fn fail(&self) -> bool {
        !self.has_failed.swap(true, Ordering::AcqRel)
    }

    /// The encoder at work; None where the source's stream goes out untouched, or while a user's pipeline has not shown
    /// yet which it is.
    pub fn encoder(&self) -> Option<&'static EncoderRow> {
        self.output.get()?.encoder.as_ref().map(|(_, row)| *row)
    }

    /// Whether the source's stream goes out untouched.
    pub fn is_passed(&self) -> bool {
        !self.is_off && self.output.get().is_some_and(|output| output.encoder.is_none())
    }

    /// The bit rate that the encoder was last asked for.
    pub fn bitrate(&self) -> Bitrate {
        lock(&self.settings).bitrate
    }

    /// Asks the encoder, or whatever is upstream, for a keyframe.
    pub fn force_keyframe(&self) {
        let Some(output) = self.output.get() else { return };
        let event = gst_video::UpstreamForceKeyUnitEvent::builder().all_headers(true).build();
        let Some((encoder, row)) = &output.encoder else {
            // A user's pipeline may have an encoder; anything else ignores it.
            output.sink.upgrade().and_then(|sink| sink.static_pad("sink")).map(|pad| pad.push_event(event));
            return;
        };
        // Gone only while the pipeline is being taken down.
        let Some(encoder) = encoder.upgrade() else { return };
        let event_works = match row.keyframe {
            Keyframe::ForceKeyUnit => true,
            Keyframe::Signal(signal) => {
                let known = gst::glib::subclass::SignalId::lookup(signal, encoder.type_()).is_some();
                if known {
                    encoder.emit_by_name::<()>(signal, &[]);
                }
                !known
            }
            Keyframe::V4l2Controls => {
                let event_works = gst::version() >= (1, 24, 0, 0);
                if !event_works {
                    element::set_property(&encoder, "extra-controls", "controls,force_key_frame=1");
                }
                event_works
            }
        };
        if event_works && !encoder.send_event(event) {
            tracing::debug!("{}: takes no keyframe request now", row.element);
        }
    }

    /// What has passed since the start; cheap.
    pub fn counters(&self) -> BranchCounters {
        let (frames_in, to_encoder) = (&self.frames_in, &self.frames_to_encoder);
        let encodes = self.output.get().is_some_and(|output| output.encoder.is_some());
        BranchCounters {
            frames_to_encoder: if encodes { to_encoder.count() } else { frames_in.count() },
            frames_in: frames_in.count(),
            frames_unwanted: self.frames_unwanted.count(),
            frames_out: self.frames_out.count(),
            frames_missed: self.frames_missed.load(Ordering::Relaxed),
            last_unwanted: self.frames_unwanted.last(),
            first_in: [frames_in.first(), self.coded.first()].into_iter().flatten().min(),
            last_in: frames_in.last().max(self.coded.last()),
            first_out: self.frames_out.first(),
            last_out: self.frames_out.last(),
        }
    }

    /// What was left out so far is not counted as dropped: the encoder was being opened.
    pub(super) fn count_drops_from_here(&self) {
        self.frames_missed.fetch_add(self.counters().left_out(), Ordering::Relaxed);
    }

    pub(super) fn failure(&self, reason: String) -> Failure {
        Failure::Encoder { stream: self.stream, reason }
    }

    /// The launch text of the tail; empty before there is one.
    pub(super) fn text(&self) -> String {
        self.output.get().map_or_else(String::new, |output| output.text.clone())
    }

    /// Whether this is a part of its tail.
    fn holds(&self, at: Option<&gst::Object>) -> bool {
        at.zip(self.tail()).is_some_and(|(at, tail)| at.has_as_ancestor(&tail))
    }

    /// All that is its own in the pipeline; none while nothing encodes, or once it is gone.
    pub(super) fn tail(&self) -> Option<gst::Object> {
        self.element()?.parent()
    }

    /// What comes out, once that is known.
    pub fn format(&self) -> Option<Format> {
        *lock(&self.format)
    }

    pub(super) fn element(&self) -> Option<gst::Element> {
        self.output.get()?.encoder.as_ref()?.0.upgrade()
    }
}

/// The caps filter before an encoder, with its caps for the full picture.
pub(super) struct Size {
    pub filter: gst::glib::WeakRef<gst::Element>,
    pub full: gst::Caps,
}

impl Size {
    /// Of an encoder whose row allows it.
    pub fn of(encoder: &gst::Element, row: &EncoderRow) -> Option<Self> {
        let filter = encoder.static_pad("sink")?.peer()?.parent_element()?;
        let is_filter = is_made_by(&filter, "capsfilter");
        (row.live_size != LiveSize::No && is_filter)
            .then(|| Self { full: filter.property("caps"), filter: filter.downgrade() })
    }
}

/// Delivers one sample of the sink; `checked` when nothing here has encoded it, so that anything may be in it.
pub(super) fn deliver(
    sink: &gst_app::AppSink,
    capture: &Capture,
    branch: &Branch,
    sample: &gst::Sample,
    checked: bool,
) {
    let Some(buffer) = sample.buffer() else { return };
    let Ok(map) = buffer.map_readable() else {
        tracing::warn!("an access unit cannot be read, it is left out");
        return;
    };
    if capture.stopped.load(Ordering::Acquire) {
        return;
    }
    match if checked { lock(&branch.judge).judge(branch.codec, &map) } else { Verdict::Passes } {
        Verdict::Passes => {}
        Verdict::LeftOut => return capture.frames_damaged.add(),
        Verdict::Refused(problem) => {
            // Once: nothing goes out after it.
            if !capture.stopped.swap(true, Ordering::AcqRel) {
                (capture.on_event)(GraphEvent::Refused(playable::refusal(branch.codec, problem, capture.source)));
            }
            return;
        }
    }
    // Side by side, for `LocalTime`.
    let (now, here) = (clock::running_time(sink.upcast_ref()), Instant::now());
    let time = buffer.pts().or(buffer.dts());
    let running = time.and_then(|time| sample.segment()?.downcast_ref::<gst::ClockTime>()?.to_running_time(time));
    let pts = match (running.or(now).unwrap_or_default(), now) {
        (pts, Some(now)) if capture.is_piped.load(Ordering::Relaxed) => {
            lock(&branch.times).time(pts.into(), now.into())
        }
        (pts, _) => pts.into(),
    };
    let opens = {
        let mut valve = lock(&branch.valve);
        let before = *valve;
        if !valve.lets_out(pts) {
            return;
        }
        before != *valve
    };
    let local = now.and_then(|now| lock(&capture.local_time).at(pts, now.into(), here)).unwrap_or(here);
    // A source whose clock is not the pipeline's could claim any age.
    let age = here.saturating_duration_since(local).min(Duration::from_secs(10));
    let keyframe = codec::is_keyframe(branch.codec, &map) && !waited(capture.source, age);
    if branch.frames_out.count() == 0 {
        branch.count_drops_from_here();
    }
    branch.frames_out.add();
    let unit = AccessUnit {
        // A copy, because encoders lend buffers from a small pool, and outputs keep keyframes for long.
        data: Bytes::copy_from_slice(&map),
        pts,
        captured_at: here.checked_sub(age).unwrap_or(here),
        keyframe,
    };
    capture.pass(branch, pts, unit);
    if opens && !keyframe && capture.is_at_work(branch) {
        capture.event(GraphEvent::NoKeyframe { stream: branch.stream });
    }
}

/// Whether a picture of this age has waited on its way, as while the process stood still: nobody begins there, as what
/// follows is old as well, or lost. Only with an IP camera is that known: the times of other sources may be anything.
pub(super) fn waited(source: SourceKind, age: Duration) -> bool {
    source == SourceKind::Rtsp && age > WAITED
}
