//! A running capture pipeline: start, watch, stop. It starts once; whoever wants it again builds a new one
//! (`supervisor`).
//!
//! Limits: `start` and `stop` wait for drivers, but never longer than their limits; a pipeline that hangs is left to a
//! thread of its own, because GStreamer cannot abandon one.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use gstreamer as gst;
use gstreamer::prelude::*;
use rov_common::access_unit::AccessUnit;
use rov_common::sync::lock;
use rov_gst::{message, rtspsrc};

use super::build;
use super::capture::{Branch, Capture, Failure, GraphError, GraphEvent, STOP, SourceCounters};
use super::joint::Joint;
use super::plan::{self, Plan};
use super::source;
use crate::hanging::{Hanging, STILL_HANGS};

/// A driver may take this long to open; cameras take up to two seconds.
pub(super) const START_LIMIT: Duration = Duration::from_secs(5);
/// How long a dropped graph may hold up its owner.
const DROP_LIMIT: Duration = Duration::from_secs(1);
/// After that, for the source alone to stop.
const SOURCE_LIMIT: Duration = Duration::from_millis(500);

/// A running pipeline; dropped, it stops within a second or is left to itself.
pub struct Graph {
    pipeline: gst::Pipeline,
    pub(super) capture: Arc<Capture>,
    bus_thread: Option<thread::JoinHandle<()>>,
    hanging: Hanging,
    text: String,
    taken_down: bool,
}

impl fmt::Debug for Graph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Graph").field("pipeline", &self.pipeline.name()).finish_non_exhaustive()
    }
}

impl Graph {
    /// Builds and starts; waits for drivers 5 s at most, so run it where blocking is allowed. Refused while a former
    /// one of the same source is among `hanging`, which belongs to the owner that starts graphs again and again.
    pub fn start(
        hanging: &Hanging,
        plan: &Plan,
        on_unit: impl Fn(usize, AccessUnit) + Send + Sync + 'static,
        on_event: impl Fn(GraphEvent) + Send + Sync + 'static,
    ) -> Result<Graph, GraphError> {
        gst::init().map_err(|error| GraphError::Text(format!("GStreamer does not start: {error}")))?;
        if hanging.holds(&plan.text()) {
            return Err(GraphError::source(STILL_HANGS));
        }
        let capture = Arc::new(Capture::new(plan, Instant::now(), on_unit, on_event));
        let pipeline = gst::Pipeline::new();
        // Some elements look at their device when they are made.
        let building = {
            let (plan, pipeline, capture) = (plan.clone(), pipeline.clone(), Arc::clone(&capture));
            move || build::build(&plan, &pipeline, &capture)
        };
        let built = hanging.within(&plan.text(), START_LIMIT, building);
        let late = || format!("the elements of the pipeline were not made within {} s", START_LIMIT.as_secs());
        let head = built.unwrap_or_else(|| Err(GraphError::source(late())))?;
        // From here on, every way out stops the pipeline by dropping the graph.
        let (hanging, text) = (hanging.clone(), plan.text());
        let mut graph = Graph { pipeline, capture, bus_thread: None, hanging, text, taken_down: false };
        graph.play()?;
        graph.bus_thread = Some(build::watch_bus(plan.clone(), &graph.pipeline, head, graph.capture.clone()));
        Ok(graph)
    }

    /// In the order of the plan.
    pub fn branches(&self) -> Vec<Arc<Branch>> {
        self.capture.branches().collect()
    }

    pub fn branch(&self, stream: usize) -> Arc<Branch> {
        self.capture.branch(stream)
    }

    /// Whether a branch has taken over in this stream, while the former one is still being ended.
    pub fn has_taken_over(&self, stream: usize) -> bool {
        self.capture.has_taken_over(stream)
    }

    /// Where the branch of a stream can be replaced while the others go on; none where it is alone, or goes out
    /// untouched.
    pub fn joint(&self, stream: usize) -> Option<Joint> {
        Joint::new(&self.pipeline, &self.capture, stream, &self.hanging)
    }

    /// What the source has given since the start; cheap.
    pub fn counters(&self) -> SourceCounters {
        let capture = &self.capture;
        SourceCounters {
            frames_damaged: capture.frames_damaged.count(),
            keyframe_awaited: capture.lost.keyframe_awaited(),
            next_due: capture.next_due.get(),
            still: *lock(&capture.still),
        }
    }

    /// Whether packets of an IP camera were lost on their way by UDP, and a new session with it, by TCP, would bring a
    /// picture sooner than its next keyframe.
    pub fn needs_tcp(&self, now: Instant) -> bool {
        let has_udp = |source: gst::Element| rtspsrc::has_udp(&source);
        self.capture.lost.keyframe_is_too_far(now) && self.pipeline.by_name(source::RTSP).is_some_and(has_udp)
    }

    /// Stops and waits for it, `limit` at most. No callback begins after this returns.
    pub fn stop(mut self, limit: Duration) {
        self.take_down(limit);
    }

    /// Sets the pipeline to playing on a thread of its own: opening a device can hang in the driver.
    fn play(&self) -> Result<(), GraphError> {
        let pipeline = self.pipeline.clone();
        let start = move || pipeline.set_state(gst::State::Playing).is_ok();
        let started = self.hanging.within(&self.text, START_LIMIT, start);
        let reason = |fallback: String| {
            let message = self.pipeline.bus().and_then(|bus| bus.pop_filtered(&[gst::MessageType::Error]));
            if let Some(gst::MessageView::Error(error)) = message.as_ref().map(|message| message.view()) {
                return GraphError::Start(self.capture.failure(error.src(), message::error_text(error)));
            }
            // Elements start from the sink to the source: an encoder that has not started keeps the source waiting.
            let waits = |encoder: gst::Element| encoder.current_state() < gst::State::Paused;
            let branch = self.capture.branches().find(|branch| branch.element().is_some_and(waits));
            GraphError::Start(match branch {
                Some(branch) => branch.failure(fallback),
                None => Failure::Source(fallback),
            })
        };
        match started {
            Some(true) => Ok(()),
            Some(false) => Err(reason("the pipeline does not start, and GStreamer says no reason".to_owned())),
            None => Err(reason(format!("the pipeline has not started after {} s", START_LIMIT.as_secs()))),
        }
    }

    fn take_down(&mut self, limit: Duration) {
        // Set already where a stream was refused, whose pipeline still runs.
        self.capture.stopped.store(true, Ordering::Release);
        if std::mem::replace(&mut self.taken_down, true) {
            return;
        }
        let structure = gst::Structure::new_empty(STOP);
        // Fails only when there is no bus, and then there is no thread to end.
        let _ = self.pipeline.post_message(gst::message::Application::builder(structure).src(&self.pipeline).build());
        let (pipeline, bus_thread) = (self.pipeline.clone(), self.bus_thread.take());
        let capture = Arc::clone(&self.capture);
        let stop = move || {
            if bus_thread.is_some_and(|thread| thread.join().is_err()) {
                tracing::error!("the thread that reads GStreamer's messages has panicked");
            }
            // A branch that is added now would go on alone.
            drop(lock(&capture.joining));
            pipeline.set_state(gst::State::Null).is_ok()
        };
        match self.hanging.within(&self.text, limit, stop) {
            Some(true) => {}
            Some(false) => tracing::warn!("the pipeline does not stop cleanly"),
            None => {
                tracing::warn!("the pipeline has not stopped after {} ms, leaving it to itself", limit.as_millis());
                self.let_go_of_source();
            }
        }
    }
}

impl Graph {
    /// Elements stop from the sink to the source: while an encoder hangs, the camera would stay open, and busy for the
    /// next pipeline.
    fn let_go_of_source(&self) {
        if self.capture.branches().all(|branch| branch.element().is_none()) {
            return;
        }
        let bins = self.pipeline.iterate_elements().into_iter().flatten().filter_map(|e| e.downcast::<gst::Bin>().ok());
        for head in bins.filter(|bin| bin.by_name(plan::JOIN).is_some()) {
            let stop = move || head.set_state(gst::State::Null).is_ok();
            if self.hanging.within(&self.text, SOURCE_LIMIT, stop) != Some(true) {
                tracing::warn!("the source has not stopped either");
            }
        }
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        self.take_down(DROP_LIMIT);
    }
}

#[cfg(test)]
#[path = "graph_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "branch_tests.rs"]
mod branch_tests;

#[cfg(test)]
#[path = "joint_tests.rs"]
mod joint_tests;
