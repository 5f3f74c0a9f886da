//! Keeps pictures from the encoder while nobody looks: scaling, conversion and encoding rest, while the source runs on
//! and is watched. Meanwhile only as many JPEG pictures are decoded as the watch on the camera needs.
//!
//! Not the element `valve`: what an encoder had in it when it was shut would come out when it is opened, and old
//! pictures would look live.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use gstreamer as gst;
use gstreamer::prelude::*;
use rov_common::sync::lock;
use rov_gst::clock;

use super::capture::{Branch, Capture};
use super::still;
use super::valve::{COARSE, Valve};

impl Capture {
    /// Whether nothing goes to an encoder.
    pub fn rests(&self) -> bool {
        self.branches().all(|branch| *lock(&branch.valve) == Valve::Shut)
    }
}

impl Branch {
    /// Gives the encoder nothing more.
    pub fn rest(&self) {
        lock(&self.valve).shut();
    }

    /// Gives it pictures again, those from now on. The first that comes out is a keyframe.
    pub fn wake(&self) {
        self.force_keyframe();
        lock(&self.valve).open(Duration::ZERO);
    }

    /// As [`Self::wake`], but no picture before this time. The encoder is asked for the keyframe by the branch's own
    /// thread: drivers take their time, and the source and the other branches must not wait for that.
    pub(super) fn wake_from(&self, first: Duration) {
        *lock(&self.keyframe_from) = Some(first);
        lock(&self.valve).open(first);
    }
}

/// Lets through `pad` what the valve lets in.
pub(super) fn rest_encoder(pad: &gst::Pad, branch: &Arc<Branch>) {
    let weak = Arc::downgrade(branch);
    pad.add_probe(gst::PadProbeType::BUFFER, move |pad, info| {
        let Some(branch) = weak.upgrade() else { return gst::PadProbeReturn::Ok };
        if lock(&branch.valve).lets_in(time_of(pad, info)) {
            return gst::PadProbeReturn::Ok;
        }
        branch.frames_unwanted.add();
        gst::PadProbeReturn::Handled
    });
}

/// Has the first picture after [`Branch::wake_from`] that passes `pad` made a keyframe.
pub(super) fn force_first(pad: &gst::Pad, branch: &Arc<Branch>) {
    let weak = Arc::downgrade(branch);
    pad.add_probe(gst::PadProbeType::BUFFER, move |pad, info| {
        let Some(branch) = weak.upgrade() else { return gst::PadProbeReturn::Ok };
        let is_first = |first: &mut Duration| time_of(pad, info) + COARSE >= *first;
        let is_due = lock(&branch.keyframe_from).take_if(is_first).is_some();
        if is_due {
            branch.force_keyframe();
        }
        gst::PadProbeReturn::Ok
    });
}

/// The running time of the picture that passes `pad`.
pub(super) fn time_of(pad: &gst::Pad, info: &gst::PadProbeInfo) -> Duration {
    let segment = || pad.sticky_event::<gst::event::Segment>(0);
    let running = |pts| segment()?.segment().downcast_ref::<gst::ClockTime>()?.to_running_time(pts);
    let now = || pad.parent_element().and_then(|element| clock::running_time(&element));
    info.buffer().and_then(|buffer| running(buffer.pts()?)).or_else(now).unwrap_or_default().into()
}

/// Lets through `pad`, in front of the decoder of a live source whose pictures do not depend on each other, only what
/// `still` looks at while all valves are shut, and nobody looks at them in another camera's either. The others count as
/// those that the valve keeps back, as long as the decoder makes pictures of those that it gets: one that makes none of
/// them must be noticed.
pub(super) fn rest_decoder(pad: &gst::Pad, capture: &Arc<Capture>) {
    let (weak, state) = (Arc::downgrade(capture), Mutex::new(RestingDecoder::default()));
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, _| {
        let Some(capture) = weak.upgrade() else { return gst::PadProbeReturn::Ok };
        let shut = capture.rests() && !(capture.is_wanted_elsewhere)();
        // As the branches are thinned apart, the one that gets most pictures tells.
        let frames_in = capture.branches().map(|branch| branch.frames_in.count()).max().unwrap_or_default();
        if !(shut && lock(&state).leaves_out(Instant::now(), frames_in)) {
            return gst::PadProbeReturn::Ok;
        }
        for branch in capture.branches() {
            branch.frames_in.add();
            branch.frames_unwanted.add();
        }
        // As above.
        gst::PadProbeReturn::Handled
    });
}

#[derive(Debug, Default)]
struct RestingDecoder {
    /// When the last picture went to the decoder, and how many were decoded or left out by then. More than that are
    /// known only once it was decoded: none is left out before.
    passed: Option<(Instant, u64)>,
}

impl RestingDecoder {
    /// Whether the decoder need not see the next picture. `frames_in`: how many were decoded or left out.
    fn leaves_out(&mut self, now: Instant, frames_in: u64) -> bool {
        let fresh = |at| now.saturating_duration_since(at) < still::INTERVAL;
        let leaves_out = self.passed.is_some_and(|(at, before)| fresh(at) && frames_in > before);
        if !leaves_out {
            self.passed = Some((now, frames_in));
        }
        leaves_out
    }
}
