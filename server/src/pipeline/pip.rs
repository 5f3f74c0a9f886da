//! Picture-in-picture: a camera that shows another one's pictures, and those of a third small in a corner.
//!
//! ```text
//! camera:  head ! [trunk] ! ...                   behind it a probe hands on each raw picture (`Tap`)
//! pip:     large: appsrc ! leaky queue(1) ! [deinterlace] ! scale ! convert ! caps ! identity name=rov_join ! ...
//!          small: appsrc ! leaky queue(1) ! [deinterlace] ! scale ! convert ! caps ! appsink
//! ```
//!
//! A large picture goes its way as soon as it is there: what is painted into it is the newest small one, however old.
//! Not by GStreamer's `compositor`: it gives pictures at a rate of its own, and waits until each of its inputs has one
//! for that time (`ARCHITECTURE.md` has the figures).
//!
//! Limits: of NVIDIA's memory only what `nvvidconv` takes to system memory.

use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use gstreamer as gst;
use gstreamer::glib;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;
use gstreamer_video as gst_video;
use gstreamer_video::prelude::*;
use rov_common::sync::lock;
use rov_common::units::Resolution;
use rov_gst::{caps, clock, element};

use super::capture::Capture;
use super::picture::{I420, Plane};
use super::pip_text::{INPUTS, LARGE, QUEUES, SIZES, SMALL, SMALL_OUT, TURNS};
use super::place::Place;
use super::source::turning;
use super::wiring::to_paint;
use super::{at_rest, still};
use crate::config::{Flip, Layout, PipConfig};

/// A small picture that is older is not shown any more.
const SMALL_LIMIT: Duration = Duration::from_secs(1);
/// The times of two pictures are at least so far apart.
const TICK: gst::ClockTime = gst::ClockTime::from_useconds(1);

/// Between the cameras that are shown, and the pipeline that shows them. Cameras have the numbers of their `parts` in
/// the configuration, whichever is large now.
#[derive(Debug)]
pub struct Pip {
    /// Of the camera that this is.
    name: String,
    /// Names.
    parts: [String; 2],
    state: Mutex<State>,
}

/// Where a camera's pictures go.
#[derive(Clone, Debug)]
pub struct Tap {
    pip: Arc<Pip>,
    part: usize,
}

#[derive(Debug)]
struct State {
    layout: Layout,
    /// Whether the small picture is shown.
    is_enabled: bool,
    /// How each camera's pictures are turned.
    flips: [Flip; 2],
    /// Of the pipeline that runs now.
    capture: Weak<Capture>,
    inputs: [Input; 2],
    /// How large pictures leave the pipeline, once they are known: all are made alike, so that a swap is nothing to the
    /// encoder.
    rate: Option<gst::Fraction>,
    large: Option<(Resolution, gst::Caps)>,
    place: Option<Place>,
    /// The place of small pictures of another size, until one of these is there.
    next: Option<Place>,
    /// What small pictures are to be made like, from the next one on.
    small_caps: Option<gst::Caps>,
    small: Small,
    heard: [Heard; 2],
    small_is_lost: bool,
}

#[derive(Debug)]
struct Input {
    source: glib::WeakRef<gst_app::AppSrc>,
    /// Whose pictures go in from the time `since` on; before, it was the other one's.
    part: usize,
    since: gst::ClockTime,
    /// Of the newest picture.
    last: gst::ClockTime,
    /// The caps that came last, and what was made of them.
    caps: Option<(gst::Caps, gst::Caps)>,
}

/// The newest small picture and when it was captured, or since when there is none.
#[derive(Debug)]
struct Small {
    part: usize,
    picture: Option<gst::Sample>,
    at: Instant,
}

/// What a camera has given.
#[derive(Debug, Default)]
struct Heard {
    last: Option<Instant>,
    /// Its pictures cannot be shown, for this reason.
    unusable: Option<String>,
    frozen: Option<String>,
    substitute: Option<String>,
}

impl State {
    fn is_wanted(&self, part: usize) -> bool {
        let is_shown = self.is_enabled || self.inputs[LARGE].part == part;
        is_shown && self.capture.upgrade().is_some_and(|capture| !capture.rests())
    }

    /// No picture of the small camera has come yet, and none is missed.
    fn await_small(&mut self) {
        self.small = Small { part: self.inputs[SMALL].part, picture: None, at: Instant::now() };
        self.small_is_lost = false;
    }

    /// Puts the small picture where the layout says, at once where its size is the same.
    fn lay_out(&mut self) {
        let Some((size, caps)) = &self.large else { return };
        let (place, made) = (Place::new(*size, &self.layout), self.next.or(self.place).map(|place| place.inner()));
        let inner = place.inner();
        if made.is_some_and(|made| (made.width, made.height) != (inner.width, inner.height)) {
            self.small_caps = Some(small_caps(caps, &inner));
            self.next = Some(place);
        } else if self.next.is_some() {
            self.next = Some(place);
        } else {
            self.place = Some(place);
        }
    }

    /// Whose picture the one of this time is.
    fn part_at(&self, input: usize, time: Option<gst::ClockTime>) -> usize {
        let input = &self.inputs[input];
        if time.is_none_or(|time| time >= input.since) { input.part } else { 1 - input.part }
    }
}

impl Input {
    fn new(part: usize) -> Self {
        let (since, last) = (gst::ClockTime::ZERO, gst::ClockTime::ZERO);
        Self { source: glib::WeakRef::new(), part, since, last, caps: None }
    }

    /// Gives it the other camera's pictures from the next one on.
    fn swap(&mut self) {
        self.part = 1 - self.part;
        // Where no picture has come since the last swap, that one is undone.
        self.since = if self.since > self.last { gst::ClockTime::ZERO } else { self.last + TICK };
    }
}

impl Tap {
    /// Hands on what passes `pad`, as long as the camera's pipeline runs.
    pub(super) fn install(&self, pad: &gst::Pad) {
        let Self { pip, part } = self.clone();
        pad.add_probe(gst::PadProbeType::BUFFER, move |pad, info| {
            let Some((picture, caps)) = info.buffer().zip(pad.current_caps()) else { return gst::PadProbeReturn::Ok };
            let now = pad.parent_element().and_then(|element| clock::running_time(&element));
            let segment = pad.sticky_event::<gst::event::Segment>(0);
            let running = |pts| segment?.segment().downcast_ref::<gst::ClockTime>()?.to_running_time(pts);
            let age = now.zip(picture.pts().and_then(running)).map_or(gst::ClockTime::ZERO, |(now, pts)| {
                now.saturating_sub(pts).min(gst::ClockTime::from_seconds(1))
            });
            pip.push(part, picture, &caps, age, Instant::now());
            gst::PadProbeReturn::Ok
        });
    }

    /// Whether somebody looks at what it is shown in.
    pub(super) fn is_wanted(&self) -> bool {
        lock(&self.pip.state).is_wanted(self.part)
    }

    /// Turns the camera's pictures like this from the next one on.
    pub fn set_flip(&self, flip: Flip) {
        lock(&self.pip.state).flips[self.part] = flip;
    }

    /// The camera repeats its picture, for this reason; or it does not.
    pub fn set_frozen(&self, reason: Option<String>) {
        lock(&self.pip.state).heard[self.part].frozen = reason;
    }

    /// The camera's pictures are test pictures in its place, for this reason; or they are not.
    pub fn set_substitute(&self, reason: Option<String>) {
        lock(&self.pip.state).heard[self.part].substitute = reason;
    }
}

impl Pip {
    /// `name`: that of the camera that shows the others.
    pub fn new(name: &str, config: &PipConfig) -> Self {
        let [large, small] = &config.parts;
        let state = State {
            layout: config.layout,
            is_enabled: config.is_enabled,
            flips: [large.flip, small.flip],
            capture: Weak::new(),
            inputs: [LARGE, SMALL].map(Input::new),
            rate: None,
            large: None,
            place: None,
            next: None,
            small_caps: None,
            small: Small { part: SMALL, picture: None, at: Instant::now() },
            heard: Default::default(),
            small_is_lost: false,
        };
        let parts = [large.name.clone(), small.name.clone()];
        Self { name: name.to_owned(), parts, state: Mutex::new(state) }
    }

    /// Of the camera that shows the others.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where the pictures of this camera go, if it is one of those that are shown.
    pub fn tap(self: &Arc<Self>, camera: &str) -> Option<Tap> {
        let part = self.parts.iter().position(|part| part == camera)?;
        Some(Tap { pip: Arc::clone(self), part })
    }

    /// Shows its two cameras like this from their next pictures on. Nothing is restarted.
    pub fn set(&self, config: &PipConfig) {
        let mut state = lock(&self.state);
        if self.part_name(state.inputs[LARGE].part) != config.parts[LARGE].name {
            self.swap(&mut state);
        }
        if config.is_enabled && !state.is_enabled {
            state.await_small();
        }
        state.is_enabled = config.is_enabled;
        if state.layout != config.layout {
            state.layout = config.layout;
            state.lay_out();
        }
    }

    /// Has the two cameras change places, from their next pictures on, for good.
    fn swap(&self, state: &mut State) {
        state.inputs.iter_mut().for_each(Input::swap);
        state.await_small();
        let [large, small] = [LARGE, SMALL].map(|input| self.part_name(state.inputs[input].part));
        tracing::info!(camera = self.name, "{large} is large now, and {small} small");
    }

    /// Why no large pictures come, if none has come for so long.
    pub fn why_silent(&self, now: Instant, limit: Duration) -> Option<String> {
        let state = lock(&self.state);
        let part = state.inputs[LARGE].part;
        let Heard { last, unusable, .. } = &state.heard[part];
        if last.is_some_and(|last| now.saturating_duration_since(last) <= limit) {
            return None;
        }
        let name = self.part_name(part);
        Some(match unusable {
            Some(reason) => format!("the pictures of camera {name} cannot be shown: {reason}"),
            None => format!("camera {name}, which fills the picture, gives no pictures"),
        })
    }

    /// Why what is shown may be old although it comes, if so.
    pub fn why_frozen(&self) -> Option<String> {
        self.of_shown(|heard| heard.frozen.as_ref())
    }

    /// Why what is shown is no picture of a camera, if so.
    pub fn why_substitute(&self) -> Option<String> {
        self.of_shown(|heard| heard.substitute.as_ref())
    }

    /// Of the first camera that is shown and of which this is said.
    fn of_shown(&self, said: impl Fn(&Heard) -> Option<&String>) -> Option<String> {
        let state = lock(&self.state);
        let is_shown = |part: usize| state.is_enabled || state.inputs[LARGE].part == part;
        let mut shown = state.heard.iter().enumerate().filter(|(part, _)| is_shown(*part));
        let (part, reason) = shown.find_map(|(part, heard)| Some((part, said(heard)?)))?;
        Some(format!("camera {}: {reason}", self.part_name(part)))
    }

    /// Says in the log when the small camera's pictures stop, and when they come again. To be called now and then.
    pub fn look(&self, now: Instant) {
        let mut state = lock(&self.state);
        let since = now.saturating_duration_since(state.small.at);
        let is_lost = since > SMALL_LIMIT && state.is_enabled;
        if std::mem::replace(&mut state.small_is_lost, is_lost) == is_lost {
            return;
        }
        let part = state.small.part;
        let (camera, name) = (&self.name, self.part_name(part));
        match (is_lost, &state.heard[part].unusable) {
            (true, Some(reason)) => {
                tracing::warn!(
                    camera,
                    "the pictures of camera {name} cannot be shown, NO VIDEO in its place: {reason}"
                );
            }
            (true, None) => tracing::warn!(camera, "no pictures of camera {name}, NO VIDEO in its place"),
            (false, _) => tracing::info!(camera, "pictures of camera {name} again"),
        }
    }

    fn part_name(&self, part: usize) -> &str {
        &self.parts[part]
    }

    /// A picture of a camera, `age` old. Never blocks.
    fn push(&self, part: usize, picture: &gst::BufferRef, caps: &gst::Caps, age: gst::ClockTime, now: Instant) {
        let mut state = lock(&self.state);
        let state = &mut *state;
        let at = if state.inputs[LARGE].part == part { LARGE } else { SMALL };
        let input = &mut state.inputs[at];
        if input.caps.as_ref().is_none_or(|(before, _)| before != caps) {
            input.caps = usual(caps, (at == LARGE).then_some(&mut state.rate)).map(|usual| (caps.clone(), usual));
        }
        let Some((_, caps)) = &input.caps else {
            let reason =
                format!("they are {}; end its pipeline in raw video", caps.structure(0).map_or("", |s| s.name()));
            state.heard[part].unusable = Some(reason);
            return;
        };
        (state.heard[part].last, state.heard[part].unusable) = (Some(now), None);
        let Some(source) = input.source.upgrade() else { return };
        // One that waits is on its way to the queue, or the pipeline stands still.
        let Some(time) = clock::running_time(source.upcast_ref()).filter(|_| source.current_level_bytes() == 0) else {
            return;
        };
        if at == SMALL && (state.place.is_none() || !state.is_enabled) {
            return;
        }
        input.last = time.saturating_sub(age).max(input.last + TICK);
        let mut picture = picture.to_owned();
        let buffer = picture.make_mut();
        buffer.set_pts(input.last);
        buffer.set_dts(gst::ClockTime::NONE);
        // An error is a pipeline that ends.
        let _ = source.push_sample(&gst::Sample::builder().buffer(&picture).caps(caps).build());
    }

    /// Makes a head that was made of the source's text show the cameras; `join` is its output.
    pub(super) fn install(self: &Arc<Self>, head: &gst::Bin, join: &gst::Pad, capture: &Arc<Capture>) {
        {
            let mut state = lock(&self.state);
            let parts = [LARGE, SMALL].map(|input| state.inputs[input].part);
            state.capture = Arc::downgrade(capture);
            (state.rate, state.large, state.place) = (None, None, None);
            (state.next, state.small_caps) = (None, None);
            state.await_small();
            for (at, name) in INPUTS.into_iter().enumerate() {
                state.inputs[at] = Input::new(parts[at]);
                if let Some(source) = head.by_name(name).and_downcast::<gst_app::AppSrc>() {
                    state.inputs[at].source = source.downgrade();
                }
            }
        }
        for (at, name) in INPUTS.into_iter().enumerate() {
            // Both, so that what is painted when somebody looks again is not old.
            if let Some(pad) = head.by_name(name).and_then(|source| source.static_pad("src")) {
                match at {
                    LARGE => at_rest::rest_decoder(&pad, capture),
                    _ => rest_small(&pad, capture),
                }
            }
            if let Some(turn) = head.by_name(TURNS[at]) {
                self.turn(&turn, at);
            }
        }
        if let (Some(queue), Some(filter)) = (head.by_name(QUEUES[SMALL]), head.by_name(SIZES[SMALL])) {
            self.resize_small(&queue, &filter);
        }
        if let Some(sink) = head.by_name(SMALL_OUT).and_downcast::<gst_app::AppSink>() {
            let pip = Arc::clone(self);
            let callbacks = gst_app::AppSinkCallbacks::builder().new_sample(move |sink| {
                let picture = sink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
                pip.take_small(picture, clock::running_time(sink.upcast_ref()), Instant::now());
                Ok(gst::FlowSuccess::Ok)
            });
            sink.set_callbacks(callbacks.build());
        }
        let (pip, head) = (Arc::clone(self), head.downgrade());
        join.add_probe(gst::PadProbeType::BUFFER | gst::PadProbeType::EVENT_DOWNSTREAM, move |pad, info| {
            if let Some(gst::EventView::Caps(caps)) = info.event().map(|event| event.view())
                && let Some(head) = head.upgrade()
            {
                pip.set_format(&head, caps.caps());
            }
            if let Some((picture, caps)) = info.buffer_mut().zip(pad.current_caps()) {
                pip.paint(picture.make_mut(), &caps);
            }
            gst::PadProbeReturn::Ok
        });
    }

    /// Has small pictures made in another size, between two of them: on another thread than theirs the scaler could be
    /// at work.
    fn resize_small(self: &Arc<Self>, queue: &gst::Element, filter: &gst::Element) {
        let Some(pad) = queue.static_pad("src") else { return };
        let (pip, filter) = (Arc::clone(self), filter.downgrade());
        pad.add_probe(gst::PadProbeType::BUFFER, move |_, _| {
            let caps = lock(&pip.state).small_caps.take();
            if let Some((filter, caps)) = filter.upgrade().zip(caps) {
                filter.set_property("caps", caps);
            }
            gst::PadProbeReturn::Ok
        });
    }

    /// Has the pictures of each camera turned as they are in its own streams.
    fn turn(self: &Arc<Self>, flip: &gst::Element, input: usize) {
        let Some(pad) = flip.static_pad("sink") else { return };
        let (pip, flip, set) = (Arc::clone(self), flip.downgrade(), Mutex::new(Flip::None));
        pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
            let wanted = {
                let state = lock(&pip.state);
                state.flips[state.part_at(input, info.buffer().and_then(|picture| picture.pts()))]
            };
            if std::mem::replace(&mut *lock(&set), wanted) != wanted
                && let Some(flip) = flip.upgrade()
            {
                element::set_property(&flip, "method", turning(wanted));
            }
            gst::PadProbeReturn::Ok
        });
    }

    /// The first large picture's format is that of all that follow.
    fn set_format(&self, head: &gst::Bin, caps: &gst::CapsRef) {
        let Some((size, _)) = caps::format_of(caps) else { return };
        let mut state = lock(&self.state);
        if state.place.is_some() {
            return;
        }
        let place = Place::new(size, &state.layout);
        (state.large, state.place) = (Some((size, caps.to_owned())), Some(place));
        drop(state);
        for (name, caps) in [(SIZES[LARGE], caps.to_owned()), (SIZES[SMALL], small_caps(caps, &place.inner()))] {
            if let Some(filter) = head.by_name(name) {
                filter.set_property("caps", &caps);
            }
        }
    }

    /// `running`: the pipeline's time at `now`.
    fn take_small(&self, picture: gst::Sample, running: Option<gst::ClockTime>, now: Instant) {
        let mut state = lock(&self.state);
        let time = picture.buffer().and_then(gst::BufferRef::pts);
        let part = state.part_at(SMALL, time);
        // It may have been old as it came.
        let age = running.zip(time).map_or(Duration::ZERO, |(running, time)| running.saturating_sub(time).into());
        if let Some(next) = state.next.take_if(|next| fits(&next.inner(), &picture)) {
            state.place = Some(next);
        }
        // One that was on its way while the cameras were swapped is none of the small camera's.
        if part == state.small.part {
            state.small = Small { part, picture: Some(picture), at: now.checked_sub(age).unwrap_or(now) };
        }
    }

    /// Into a large picture the newest small one, or why there is none.
    fn paint(&self, picture: &mut gst::BufferRef, caps: &gst::CapsRef) {
        let Ok(video) = gst_video::VideoInfo::from_caps(caps) else { return };
        let (place, small, part, since) = {
            let state = lock(&self.state);
            if !state.is_enabled {
                return;
            }
            // Without small pictures none of another size will come.
            let is_lost = state.small.at.elapsed() > SMALL_LIMIT;
            let Some(place) = state.next.filter(|_| is_lost).or(state.place) else { return };
            let Small { part, picture: small, at } = &state.small;
            // Of a large picture from before a swap, the small one is not there any more.
            let is_after_swap = state.part_at(LARGE, picture.pts()) != *part;
            (place, small.clone().filter(|_| is_after_swap), *part, at.elapsed())
        };
        let Ok(mut frame) = gst_video::VideoFrameRef::from_buffer_ref_writable(picture, &video) else { return };
        let mut large = to_paint(&mut frame);
        large.frame(&place);
        let small = small.filter(|_| since <= SMALL_LIMIT);
        if !small.is_some_and(|small| paste(&mut large, &place.inner(), &small)) {
            let name = format!("{}:", self.part_name(part));
            let words: &[&str] = if since > SMALL_LIMIT { &[&name, "NO VIDEO"] } else { &[] };
            large.empty(&place.inner(), words);
        }
    }
}

/// Of small pictures for this place, in large ones with these.
fn small_caps(large: &gst::CapsRef, place: &Place) -> gst::Caps {
    let side = |side: usize| i32::try_from(side).unwrap_or(i32::MAX);
    let mut small = large.to_owned();
    {
        let small = small.make_mut();
        small.set("width", side(place.width));
        small.set("height", side(place.height));
        small.iter_mut().for_each(|structure| structure.remove_field("framerate"));
    }
    small
}

/// Whether a small picture has the size of this place.
fn fits(place: &Place, picture: &gst::Sample) -> bool {
    let info = picture.caps().and_then(|caps| gst_video::VideoInfo::from_caps(caps).ok());
    info.is_some_and(|info| (info.width() as usize, info.height() as usize) == (place.width, place.height))
}

/// False where the picture has another size or format, or cannot be read.
fn paste(large: &mut I420, place: &Place, small: &gst::Sample) -> bool {
    let info = small.caps().and_then(|caps| gst_video::VideoInfo::from_caps(caps).ok());
    let Some((picture, info)) = small.buffer().zip(info) else { return false };
    let size = (info.width() as usize, info.height() as usize);
    if info.format() != gst_video::VideoFormat::I420 || size != (place.width, place.height) {
        return false;
    }
    let Ok(frame) = gst_video::VideoFrameRef::from_buffer_ref_readable(picture, &info) else { return false };
    let plane = |number: u32| {
        Some(Plane {
            bytes: frame.plane_data(number).ok()?,
            stride: *frame.plane_stride().get(number as usize)? as usize,
        })
    };
    let (Some(luma), Some(u), Some(v)) = (plane(0), plane(1), plane(2)) else { return false };
    large.paste(place, &[luma, u, v]);
    true
}

/// These caps in the form in which GStreamer always writes them, so that what differs between cameras is not only how
/// they say the same; none where they are not raw video. `rate`: that of the large pictures, of which the first
/// decides, as a rate that changes is a new stream to the encoder.
fn usual(caps: &gst::Caps, rate: Option<&mut Option<gst::Fraction>>) -> Option<gst::Caps> {
    let video = gst_video::VideoInfo::from_caps(caps)
        .ok()
        .filter(|_| caps.structure(0).is_some_and(|s| s.name() == "video/x-raw"))?;
    let mut usual = video.to_caps().ok()?;
    let changed = usual.make_mut();
    if let Some(features) = caps.features(0) {
        changed.set_features(0, Some(features.to_owned()));
    }
    if let Some(rate) = rate {
        changed.set("framerate", *rate.get_or_insert(video.fps()));
    }
    Some(usual)
}

/// Lets few small pictures through while nobody looks.
fn rest_small(pad: &gst::Pad, capture: &Arc<Capture>) {
    let (capture, passed) = (Arc::downgrade(capture), Mutex::new(None::<Instant>));
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, _| {
        let (now, mut passed) = (Instant::now(), lock(&passed));
        let is_fresh = passed.is_some_and(|at| now.saturating_duration_since(at) < still::INTERVAL);
        if is_fresh && capture.upgrade().is_none_or(|capture| capture.rests()) {
            return gst::PadProbeReturn::Handled;
        }
        *passed = Some(now);
        gst::PadProbeReturn::Ok
    });
}

#[cfg(test)]
#[path = "pip_tests.rs"]
mod tests;
