//! Keeps pictures from the encoder while nobody looks: scaling, conversion and encoding rest, while the source runs on and
//! is watched. Of a camera's JPEG so few pictures are decoded then as that needs.
//!
//! Not the element `valve`: what an encoder had in it when it was shut would come out when it is opened, and old pictures
//! would look live.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use gstreamer as gst;
use gstreamer::prelude::*;
use rov_common::sync::lock;

use super::graph::{Graph, Shared};
use super::{still, wiring};

/// Encoders may give times back in coarser units.
const COARSE: Duration = Duration::from_millis(5);

/// By running times.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Valve {
    #[default]
    Open,
    Shut,
    /// No picture has come since it was opened.
    Opened,
    /// This is the time of the first that went in; what comes out may still be older.
    Filling(Duration),
}

impl Valve {
    fn shut(&mut self) {
        *self = Self::Shut;
    }

    fn open(&mut self) {
        if *self == Self::Shut {
            *self = Self::Opened;
        }
    }

    /// Whether the picture of this time goes to the encoder.
    fn lets_in(&mut self, time: Duration) -> bool {
        if *self == Self::Opened {
            *self = Self::Filling(time);
        }
        *self != Self::Shut
    }

    /// Whether the access unit of this time goes out.
    pub fn lets_out(&mut self, time: Duration) -> bool {
        match *self {
            Self::Filling(first) if time + COARSE >= first => *self = Self::Open,
            _ => {}
        }
        *self == Self::Open
    }
}

impl Graph {
    /// Gives the encoder nothing more.
    pub fn rest(&self) {
        lock(&self.shared.valve).shut();
    }

    /// Gives it pictures again, those from now on. The first that comes out is a keyframe.
    pub fn wake(&self) {
        self.force_keyframe();
        lock(&self.shared.valve).open();
    }
}

/// Lets through `pad` what the valve lets in.
pub(super) fn install(pad: &gst::Pad, shared: &Arc<Shared>) {
    let weak = Arc::downgrade(shared);
    pad.add_probe(gst::PadProbeType::BUFFER, move |pad, info| {
        let Some(shared) = weak.upgrade() else { return gst::PadProbeReturn::Ok };
        let segment = || pad.sticky_event::<gst::event::Segment>(0);
        let running = |pts| segment()?.segment().downcast_ref::<gst::ClockTime>()?.to_running_time(pts);
        let now = || pad.parent_element().and_then(|element| wiring::running_time(&element));
        let time = info.buffer().and_then(|buffer| running(buffer.pts()?)).or_else(now).unwrap_or_default();
        if lock(&shared.valve).lets_in(time.into()) {
            return gst::PadProbeReturn::Ok;
        }
        shared.frames_unwanted.add();
        // Handled and not Drop: with Drop, GStreamer would free again what the bindings have freed.
        gst::PadProbeReturn::Handled
    });
}

/// Lets through `pad`, in front of the decoder of a live source whose pictures do not depend on each other, only what
/// `still` looks at while the valve is shut. The others count as those that the valve keeps back.
pub(super) fn spare_decoder(pad: &gst::Pad, shared: &Arc<Shared>) {
    let (weak, passed) = (Arc::downgrade(shared), Mutex::new(None::<Instant>));
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, _| {
        let Some(shared) = weak.upgrade() else { return gst::PadProbeReturn::Ok };
        let (now, mut passed) = (Instant::now(), lock(&passed));
        let due = passed.is_none_or(|at| now.saturating_duration_since(at) >= still::INTERVAL);
        if due || *lock(&shared.valve) != Valve::Shut {
            *passed = Some(now);
            return gst::PadProbeReturn::Ok;
        }
        shared.frames_in.add();
        shared.frames_unwanted.add();
        // As above.
        gst::PadProbeReturn::Handled
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_went_in_before_the_rest_never_comes_out_after_it() {
        let ms = Duration::from_millis;
        let mut valve = Valve::default();
        valve.open();
        assert!(valve.lets_in(ms(0)) && valve.lets_out(ms(0)) && valve.lets_in(ms(33)));
        valve.shut();
        assert!(!valve.lets_in(ms(66)));
        assert!(!valve.lets_out(ms(33)), "nobody is there");
        valve.open();
        assert!(!valve.lets_out(ms(33)), "before any new picture");
        assert!(valve.lets_in(ms(9_000)));
        assert!(!valve.lets_out(ms(33)), "pushed out of the encoder by the new picture");
        assert!(valve.lets_in(ms(9_033)));
        assert!(valve.lets_out(ms(8_999)), "the new one, in whole milliseconds");
        assert!(valve.lets_out(ms(33)), "whatever the source does with its times, it is not kept shut");
        valve.open();
        assert_eq!(valve, Valve::Open, "twice is once");
    }
}
