//! The thread that owns the pipeline: starts it, watches it, replaces a decoder that fails by the next one, and asks
//! for keyframes. Pipelines are built and stopped here alone, never in a GStreamer callback, which would deadlock.

use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;
use rov_common::units::Resolution;

use super::graph::{self, Graph, Note, Shared};
use super::{DecodeEvent, DecodeStats, DecoderConfig};
use crate::decoders::{self, Candidate, DecoderChoice};

/// How often everything is looked at without being told: the grain of repeated keyframe requests.
const TICK: Duration = Duration::from_millis(50);
/// A decoder that gave this many pictures works; when it fails it is started again rather than passed over.
const PROVEN: u64 = 100;

/// The pipeline of the moment, for the threads that push packets.
#[derive(Debug, Default)]
pub struct Now {
    graph: Option<Graph>,
    stats: DecodeStats,
}

impl Now {
    pub fn input(&self) -> Option<gst_app::AppSrc> {
        self.graph.as_ref().map(|graph| graph.input.clone())
    }

    pub fn set_bounds(&self, bounds: Option<Resolution>) {
        if let Some(graph) = &self.graph {
            graph.set_bounds(bounds);
        }
    }

    /// The part of the statistics that is kept here.
    pub fn stats(&self) -> DecodeStats {
        self.stats.clone()
    }
}

pub struct Supervisor {
    candidates: Vec<Candidate>,
    /// The candidate in use.
    index: usize,
    generation: u64,
    /// `frames_decoded` when the decoder in use was started.
    decoded_before: u64,
    tried: Vec<(String, String)>,
    config: DecoderConfig,
    shared: Arc<Shared>,
    now: Arc<Mutex<Now>>,
    on_event: Box<dyn Fn(DecodeEvent) + Send + Sync>,
}

impl Supervisor {
    pub fn new(
        candidates: Vec<Candidate>,
        config: DecoderConfig,
        shared: Arc<Shared>,
        on_event: Box<dyn Fn(DecodeEvent) + Send + Sync>,
    ) -> Self {
        Self {
            candidates,
            index: 0,
            generation: 0,
            decoded_before: 0,
            tried: Vec::new(),
            config,
            shared,
            now: Arc::default(),
            on_event,
        }
    }

    pub fn now(&self) -> Arc<Mutex<Now>> {
        Arc::clone(&self.now)
    }

    /// Starts the first decoder that can be started, from the one in use on; the error holds what was tried.
    pub fn begin(&mut self) -> Result<(), Vec<(String, String)>> {
        while let Some(candidate) = self.candidates.get(self.index) {
            self.generation += 1;
            let (payload_type, latency) = (self.config.payload_type, self.config.latency);
            match Graph::start(candidate, payload_type, latency, self.generation, &self.shared) {
                Ok(graph) => {
                    tracing::info!("decoding with {}", candidate.element);
                    let name = candidate.element.clone();
                    self.decoded_before = self.shared.flow().counters.decoded;
                    let mut now = self.lock_now();
                    now.stats.decoder = name;
                    now.stats.source = None;
                    now.graph = Some(graph);
                    return Ok(());
                }
                Err(reason) => {
                    let element = candidate.element.clone();
                    self.pass_over(element, reason);
                }
            }
        }
        Err(std::mem::take(&mut self.tried))
    }

    /// Until told to stop, or until no decoder is left.
    pub fn run(mut self, inbox: &Receiver<Note>) {
        loop {
            let failure = match inbox.recv_timeout(TICK) {
                Ok(Note::Stop) | Err(RecvTimeoutError::Disconnected) => break,
                Ok(Note::Failed { generation, reason }) => (generation == self.generation).then_some(reason),
                Ok(Note::Playing { generation, resolution }) => {
                    if generation == self.generation {
                        self.playing(resolution);
                    }
                    None
                }
                Ok(Note::GateClosed) | Err(RecvTimeoutError::Timeout) => None,
            };
            let failure = failure.or_else(|| self.shared.flow().stalled(Instant::now()));
            if let Some(reason) = failure
                && let Err(tried) = self.replace(reason)
            {
                (self.on_event)(DecodeEvent::Failed { tried });
                // Stays, so that whoever stops the decoder finds somebody to stop.
                while !matches!(inbox.recv(), Ok(Note::Stop) | Err(_)) {}
                break;
            }
            self.ask_for_keyframe();
        }
        let graph = self.lock_now().graph.take();
        drop(graph);
    }

    fn playing(&self, resolution: Resolution) {
        let mut now = self.lock_now();
        now.stats.source = Some(resolution);
        let decoder = now.stats.decoder.clone();
        drop(now);
        tracing::info!("{decoder} decodes {resolution}");
        (self.on_event)(DecodeEvent::Playing { decoder, resolution });
    }

    fn ask_for_keyframe(&self) {
        let due = self.shared.flow().keyframe_due(Instant::now());
        if let Some(reason) = due {
            self.lock_now().stats.keyframe_requests += 1;
            tracing::debug!("asking for a keyframe: {reason}");
            (self.on_event)(DecodeEvent::KeyframeNeeded { reason });
        }
    }

    /// The decoder failed: starts it again if it has worked, else the next.
    fn replace(&mut self, reason: String) -> Result<(), Vec<(String, String)>> {
        let graph = self.lock_now().graph.take();
        drop(graph);
        let name = self.candidates[self.index].element.clone();
        let decoded = self.shared.flow().counters.decoded - self.decoded_before;
        if decoded >= PROVEN {
            tracing::warn!("decoder {name} failed after {decoded} pictures, starting it again: {reason}");
        } else {
            self.pass_over(name, reason);
        }
        self.shared.flow().restart("the decoder was started anew", Instant::now());
        self.lock_now().stats.restarts += 1;
        self.begin()
    }

    fn pass_over(&mut self, element: String, reason: String) {
        tracing::warn!("decoder {element} passed over: {reason}");
        self.tried.push((element, reason));
        self.index += 1;
    }

    fn lock_now(&self) -> MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The decoders of the table that can be opened here. That takes the device of each for a moment.
pub fn startable() -> Vec<String> {
    let candidates = decoders::candidates(&DecoderChoice::Auto, &graph::exists, &graph::has_property);
    let opens = |candidate: &Candidate| {
        let Ok(element) = gst::ElementFactory::make(&candidate.element).build() else { return false };
        let ready = element.set_state(gst::State::Ready).is_ok();
        let _ = element.set_state(gst::State::Null);
        ready
    };
    candidates.into_iter().filter(|candidate| opens(candidate)).map(|candidate| candidate.element).collect()
}
