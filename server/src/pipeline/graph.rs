//! A running capture pipeline: start, watch, stop. It starts once; whoever wants it again builds a new one
//! (`supervisor`).
//!
//! Limits: `start` and `stop` wait for drivers, but never longer than their limits; a pipeline that hangs is left to a
//! thread of its own, because GStreamer cannot abandon one.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use gstreamer as gst;
use gstreamer::prelude::*;
use rov_common::access_unit::AccessUnit;
use rov_common::sync::lock;
use rov_gst::counter::{Counter, Moment};
use rov_gst::message;
use rov_gst::rtp::LeftOut;

use super::build;
use super::capture::{Branch, Capture, Failure, GraphError, GraphEvent, STOP, SourceCounters};
use super::pip::Tap;
use super::plan::{self, BranchPlan, Plan};

/// A driver may take this long to open; cameras take up to two seconds.
const START_LIMIT: Duration = Duration::from_secs(5);
/// How long a dropped graph may hold up its owner.
const DROP_LIMIT: Duration = Duration::from_secs(1);
/// After that, for the source alone to stop.
const SOURCE_LIMIT: Duration = Duration::from_millis(500);

/// The pipelines of one owner that are being started or stopped now, by their texts.
///
/// A driver that never comes back keeps a thread and a pipeline for ever. One is bearable, one for each try is not.
#[derive(Clone, Debug, Default)]
pub struct Hanging(Arc<Mutex<Vec<Weak<String>>>>);

impl Hanging {
    /// How many there are; one that hangs stays among them.
    pub fn count(&self) -> usize {
        self.lock().len()
    }

    fn check(&self, text: &str) -> Result<(), GraphError> {
        let hangs = self.lock().iter().filter_map(Weak::upgrade).any(|other| *other == text);
        let reason =
            "the former attempt still hangs in the driver; if it stays so, unplug the device or restart the machine";
        if hangs { Err(GraphError::source(reason)) } else { Ok(()) }
    }

    /// Counts until what is returned is dropped.
    fn enter(&self, text: &str) -> Arc<String> {
        let work = Arc::new(text.to_owned());
        self.lock().push(Arc::downgrade(&work));
        work
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Weak<String>>> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|work| work.strong_count() > 0);
        all
    }
}

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
        hanging.check(&plan.text())?;
        let epoch = Instant::now();
        let taps = plan.links.taps.clone();
        let branches = plan.branches.iter().enumerate();
        let branch = |(stream, plan): (usize, &BranchPlan)| {
            Arc::new(Branch::new(stream, plan.is_off, plan.codec, plan.settings, epoch))
        };
        let frames_damaged = Arc::new(Counter::new(epoch));
        let capture = Arc::new(Capture {
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
            is_wanted_elsewhere: Box::new(move || taps.iter().any(Tap::is_wanted)),
            branches: branches.map(branch).collect(),
        });
        let pipeline = gst::Pipeline::new();
        let head = build::build(plan, &pipeline, &capture)?;
        // From here on, every way out stops the pipeline by dropping the graph.
        let (hanging, text) = (hanging.clone(), plan.text());
        let mut graph = Graph { pipeline, capture, bus_thread: None, hanging, text, taken_down: false };
        graph.play()?;
        graph.bus_thread = Some(build::watch_bus(plan.clone(), &graph.pipeline, head, graph.capture.clone()));
        Ok(graph)
    }

    /// In the order of the plan.
    pub fn branches(&self) -> &[Arc<Branch>] {
        &self.capture.branches
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

    /// Stops and waits for it, `limit` at most. No callback begins after this returns.
    pub fn stop(mut self, limit: Duration) {
        self.take_down(limit);
    }

    /// Sets the pipeline to playing on a thread of its own: opening a device can hang in the driver.
    fn play(&self) -> Result<(), GraphError> {
        let (done, result) = mpsc::channel();
        let (pipeline, work) = (self.pipeline.clone(), self.hanging.enter(&self.text));
        thread::spawn(move || {
            let started = pipeline.set_state(gst::State::Playing).is_ok();
            drop(work);
            // Fails only when the owner has stopped waiting.
            let _ = done.send(started);
        });
        let reason = |fallback: String| {
            let message = self.pipeline.bus().and_then(|bus| bus.pop_filtered(&[gst::MessageType::Error]));
            if let Some(gst::MessageView::Error(error)) = message.as_ref().map(|message| message.view()) {
                return GraphError::Start(self.capture.failure(error.src(), message::error_text(error)));
            }
            // Elements start from the sink to the source: an encoder that has not started keeps the source waiting.
            let waits = |encoder: gst::Element| encoder.current_state() < gst::State::Paused;
            let branch = self.capture.branches.iter().find(|branch| branch.element().is_some_and(waits));
            GraphError::Start(match branch {
                Some(branch) => branch.failure(fallback),
                None => Failure::Source(fallback),
            })
        };
        match result.recv_timeout(START_LIMIT) {
            Ok(true) => Ok(()),
            Ok(false) => Err(reason("the pipeline does not start, and GStreamer says no reason".to_owned())),
            Err(_) => Err(reason(format!("the pipeline has not started after {} s", START_LIMIT.as_secs()))),
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
        let (done, result) = mpsc::channel();
        let (pipeline, bus_thread) = (self.pipeline.clone(), self.bus_thread.take());
        let work = self.hanging.enter(&self.text);
        thread::spawn(move || {
            if bus_thread.is_some_and(|thread| thread.join().is_err()) {
                tracing::error!("the thread that reads GStreamer's messages has panicked");
            }
            let stopped = pipeline.set_state(gst::State::Null).is_ok();
            drop(work);
            let _ = done.send(stopped);
        });
        match result.recv_timeout(limit) {
            Ok(true) => {}
            Ok(false) => tracing::warn!("the pipeline does not stop cleanly"),
            Err(_) => {
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
        if self.capture.branches.iter().all(|branch| branch.element().is_none()) {
            return;
        }
        let bins = self.pipeline.iterate_elements().into_iter().flatten().filter_map(|e| e.downcast::<gst::Bin>().ok());
        for head in bins.filter(|bin| bin.by_name(plan::JOIN).is_some()) {
            let (done, result) = mpsc::channel();
            let work = self.hanging.enter(&self.text);
            thread::spawn(move || {
                let stopped = head.set_state(gst::State::Null).is_ok();
                drop(work);
                let _ = done.send(stopped);
            });
            if result.recv_timeout(SOURCE_LIMIT) != Ok(true) {
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
