//! The thread that owns the pipeline: starts it, watches it, replaces a decoder that fails by the next one, and asks
//! for keyframes. Pipelines are built and stopped here alone, never in a GStreamer callback, which would deadlock.

use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use gstreamer as gst;
use gstreamer::prelude::*;
use rov_common::codec::Codec;
use rov_common::units::Resolution;
use rov_gst::decoders::{self, Candidate, DecoderChoice};
use rov_gst::element::{exists, has_property};

use super::graph::{Failure, Graph, GraphShared, Note, START_TIME};
use super::{DecodeEvent, DecodeStats, DecoderConfig};
use crate::limit::within;

/// How often everything is looked at without being told: the grain of repeated keyframe requests.
const TICK: Duration = Duration::from_millis(50);
/// A decoder that gave this many pictures works; when it fails it is started again rather than passed over.
const PROVEN: u64 = 100;
/// So often a decoder is started again for want of a common format, if it gave any picture at all: the window's size or
/// the stream's changed at the wrong moment.
const RENEGOTIATIONS: u32 = 3;

/// Of a stream that another one replaced packets may still be on their way. When the other has been silent for so long,
/// it is that one which is over.
const STRAGGLING: Duration = Duration::from_secs(1);
/// The first packet is given this time to pass the jitter buffer, which does not wait for missing packets before.
const FIRST_PACKET: Duration = Duration::from_millis(100);
/// Packets kept while a pipeline is being built: a keyframe of a megabyte, which is often what a new stream begins
/// with.
const MAX_KEPT: usize = 1000;

/// The pipeline of the moment, for the threads that push packets.
#[derive(Debug)]
pub struct CurrentPipeline {
    /// What the packets hold.
    codec: Codec,
    graph: Option<Graph>,
    /// A pipeline whose stream ended, for the supervisor to stop.
    retired: Option<Graph>,
    /// The stream's synchronisation source, and the one before it, whose stragglers are ignored.
    ssrc: Option<u32>,
    ssrc_before: Option<u32>,
    /// When the last packet came that was no straggler.
    heard: Option<Instant>,
    /// Packets that the pipeline is not ready for.
    kept: Vec<gst::Buffer>,
    /// When the pipeline got its first packet.
    first_at: Option<Instant>,
    failed: bool,
    stats: DecodeStats,
}

/// What became of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    Yes,
    /// It is the first of another stream, for which a pipeline must be built.
    NewStream,
    /// Too many wait for the pipeline, or none will come.
    Full,
}

impl CurrentPipeline {
    fn new(codec: Codec) -> Self {
        Self {
            codec,
            graph: None,
            retired: None,
            ssrc: None,
            ssrc_before: None,
            heard: None,
            kept: Vec::new(),
            first_at: None,
            failed: false,
            stats: DecodeStats::default(),
        }
    }

    pub fn codec(&self) -> Codec {
        self.codec
    }

    /// True if it was another one before: then a pipeline must be built.
    pub fn set_codec(&mut self, codec: Codec) -> bool {
        if self.codec == codec {
            return false;
        }
        self.codec = codec;
        self.retired = self.graph.take().or(self.retired.take());
        self.kept.clear();
        (self.ssrc_before, self.ssrc) = (self.ssrc, None);
        true
    }

    /// Whether a packet that came at `at` belongs to a stream that is over.
    pub fn is_straggler(&mut self, ssrc: u32, at: Instant) -> bool {
        let is_over = self.heard.is_some_and(|heard| at.saturating_duration_since(heard) < STRAGGLING);
        self.ssrc_before.take_if(|before| *before == ssrc && !is_over);
        self.ssrc_before == Some(ssrc)
    }

    /// Hands a packet that came at `at`, and is no straggler, to the pipeline, or keeps it for the one that is being
    /// built. Never waits. One that is late is given the time at which it should have come.
    pub fn push(&mut self, ssrc: u32, packet: gst::Buffer, at: Instant, late_by: Duration) -> Taken {
        self.heard = Some(at);
        let new_stream = self.ssrc.is_some_and(|before| before != ssrc);
        if new_stream {
            // The jitter buffer would take the new numbers for a gap: it starts anew with everything behind it.
            self.ssrc_before = self.ssrc;
            self.retired = self.graph.take().or(self.retired.take());
            self.kept.clear();
        }
        self.ssrc = Some(ssrc);
        self.flush(at);
        match &self.graph {
            Some(graph) if self.first_at.is_none() || self.flows(at) => {
                self.first_at.get_or_insert(at);
                graph.push(packet, late_by);
            }
            _ if self.failed || self.kept.len() >= MAX_KEPT => return Taken::Full,
            _ => self.kept.push(packet),
        }
        if new_stream { Taken::NewStream } else { Taken::Yes }
    }

    fn flows(&self, at: Instant) -> bool {
        let flowing = self.graph.as_ref().is_some_and(|graph| graph.flowing.load(Ordering::Acquire));
        flowing || self.first_at.is_some_and(|first| at.saturating_duration_since(first) > FIRST_PACKET)
    }

    /// Hands over what was kept, as far as the pipeline is ready for it: at first one packet.
    fn flush(&mut self, at: Instant) {
        let count = if self.flows(at) { self.kept.len() } else { usize::from(self.first_at.is_none()) };
        let Some(graph) = &self.graph else { return };
        for packet in self.kept.drain(..count.min(self.kept.len())) {
            self.first_at.get_or_insert(at);
            graph.push(packet, Duration::ZERO);
        }
    }

    fn begin(&mut self, graph: Graph, codec: Codec, decoder: String) {
        if codec != self.codec {
            // It changed meanwhile.
            self.retired = Some(graph);
            return;
        }
        self.stats.decoder = decoder;
        self.stats.source = None;
        self.graph = Some(graph);
        self.first_at = None;
        self.flush(Instant::now());
    }

    #[cfg(test)]
    pub fn pipeline(&self) -> gst::Pipeline {
        self.graph.as_ref().expect("a pipeline").pipeline.clone()
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
    /// How often the decoder in use found no common format.
    renegotiations: u32,
    tried: Vec<(String, String)>,
    config: DecoderConfig,
    shared: Arc<GraphShared>,
    now: Arc<Mutex<CurrentPipeline>>,
    on_event: Box<dyn Fn(DecodeEvent) + Send + Sync>,
}

impl Supervisor {
    pub fn new(
        candidates: Vec<Candidate>,
        config: DecoderConfig,
        shared: Arc<GraphShared>,
        on_event: Box<dyn Fn(DecodeEvent) + Send + Sync>,
    ) -> Self {
        Self {
            candidates,
            index: 0,
            generation: 0,
            decoded_before: 0,
            renegotiations: 0,
            tried: Vec::new(),
            now: Arc::new(Mutex::new(CurrentPipeline::new(config.codec))),
            config,
            shared,
            on_event,
        }
    }

    pub fn now(&self) -> Arc<Mutex<CurrentPipeline>> {
        Arc::clone(&self.now)
    }

    /// Starts the first decoder that can be started, from the one in use on; the error holds what was tried.
    pub fn begin(&mut self) -> Result<(), Vec<(String, String)>> {
        self.follow_codec();
        while let Some(candidate) = self.candidates.get(self.index) {
            self.generation += 1;
            let (payload_type, latency) = (self.config.payload_type, self.config.latency);
            match Graph::start(candidate, payload_type, latency, self.generation, &self.shared) {
                Ok(graph) => {
                    tracing::debug!("decoding with {}", candidate.element);
                    let name = candidate.element.clone();
                    self.decoded_before = self.shared.flow().counters.decoded;
                    let codec = candidate.codec;
                    self.lock_now().begin(graph, codec, name);
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

    /// Where the stream is of another codec than before, its decoders are those to try.
    fn follow_codec(&mut self) {
        let codec = self.lock_now().codec;
        if codec == self.config.codec {
            return;
        }
        self.config.codec = codec;
        self.candidates = decoders::candidates(codec, &self.config.choice, &exists, &has_property);
        self.index = 0;
        self.tried.clear();
        self.renegotiations = 0;
        if self.candidates.is_empty() {
            self.tried.push(match &self.config.choice {
                DecoderChoice::Element(name) => {
                    (name.clone(), format!("it does not decode {}, which this stream is", codec.title()))
                }
                DecoderChoice::Auto => {
                    let (element, package) = super::software(codec);
                    (element.to_owned(), format!("missing; install {package}"))
                }
            });
        }
    }

    /// Until told to stop, or until no decoder is left.
    pub fn run(mut self, inbox: &Receiver<Note>) {
        loop {
            let note = inbox.recv_timeout(TICK);
            // The note that says so may have found the channel full.
            if self.shared.is_stopped() {
                break;
            }
            let failure = match note {
                Ok(Note::Stop) | Err(RecvTimeoutError::Disconnected) => break,
                Ok(Note::Failed { generation, failure }) => (generation == self.generation).then_some(failure),
                Ok(Note::Playing { generation, resolution }) => {
                    if generation == self.generation {
                        self.playing(resolution);
                    }
                    None
                }
                Ok(Note::Flowing) => {
                    self.lock_now().flush(Instant::now());
                    None
                }
                Ok(Note::KeyframeWanted) => {
                    self.lock_now().stats.keyframe_requests += 1;
                    (self.on_event)(DecodeEvent::KeyframeNeeded { reason: "the recording needs one".to_owned() });
                    None
                }
                Ok(Note::GateClosed | Note::NewStream) | Err(RecvTimeoutError::Timeout) => None,
            };
            let retired = self.lock_now().retired.take();
            if let Some(graph) = retired {
                drop(graph);
                self.shared.flow().begin_stream(Instant::now());
                if let Err(tried) = self.begin() {
                    self.give_up(tried, inbox);
                    break;
                }
                continue;
            }
            let stalled = self.shared.flow().stalled(Instant::now());
            let failure = failure.or_else(|| stalled.map(|reason| Failure { reason, negotiation: false }));
            if let Some(failure) = failure
                && let Err(tried) = self.replace(failure)
            {
                self.give_up(tried, inbox);
                break;
            }
            self.ask_for_keyframe();
        }
        let mut now = self.lock_now();
        let graphs = (now.graph.take(), now.retired.take());
        // Stopping takes a while, and pushing never waits.
        drop(now);
        drop(graphs);
    }

    /// Says so, and stays until the owner stops the decoder.
    fn give_up(&self, tried: Vec<(String, String)>, inbox: &Receiver<Note>) {
        let mut now = self.lock_now();
        now.failed = true;
        now.kept.clear();
        drop(now);
        (self.on_event)(DecodeEvent::Failed { tried });
        while !self.shared.is_stopped() && !matches!(inbox.recv(), Ok(Note::Stop) | Err(_)) {}
    }

    fn playing(&self, resolution: Resolution) {
        let mut now = self.lock_now();
        now.stats.source = Some(resolution);
        let decoder = now.stats.decoder.clone();
        drop(now);
        tracing::debug!("{decoder} decodes {resolution}");
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
    fn replace(&mut self, failure: Failure) -> Result<(), Vec<(String, String)>> {
        let Failure { reason, negotiation } = failure;
        // With one whose stream ended just now, or the next round would throw the new one away.
        let mut now = self.lock_now();
        let graphs = (now.graph.take(), now.retired.take());
        drop(now);
        drop(graphs);
        let name = self.candidates[self.index].element.clone();
        let decoded = self.shared.flow().counters.decoded - self.decoded_before;
        let excused = negotiation && decoded > 0 && self.renegotiations < RENEGOTIATIONS;
        if decoded >= PROVEN || excused {
            self.renegotiations = if decoded >= PROVEN { 0 } else { self.renegotiations + 1 };
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
        self.renegotiations = 0;
    }

    fn lock_now(&self) -> MutexGuard<'_, CurrentPipeline> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The decoders of the table that can be opened here. That takes the device of each for a moment.
pub fn startable(codec: Codec) -> Vec<String> {
    let candidates = decoders::candidates(codec, &DecoderChoice::Auto, &exists, &has_property);
    let opens = |candidate: &Candidate| {
        let name = candidate.element.clone();
        let open = move || {
            let Ok(element) = gst::ElementFactory::make(&name).build() else { return false };
            let ready = element.set_state(gst::State::Ready).is_ok();
            let _ = element.set_state(gst::State::Null);
            ready
        };
        within(START_TIME, "decoder-probe", open).unwrap_or(false)
    };
    candidates.into_iter().filter(|candidate| opens(candidate)).map(|candidate| candidate.element).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_that_comes_back_is_taken_when_the_other_is_silent() {
        gst::init().expect("GStreamer");
        let (begun, mut now) = (Instant::now(), CurrentPipeline::new(Codec::H264));
        let mut push = |ssrc, ms| {
            let at = begun + Duration::from_millis(ms);
            (!now.is_straggler(ssrc, at)).then(|| now.push(ssrc, gst::Buffer::new(), at, Duration::ZERO))
        };
        let (yes, new_stream, straggler) = (Some(Taken::Yes), Some(Taken::NewStream), None);
        assert_eq!([push(1, 0), push(2, 10), push(1, 20)], [yes, new_stream, straggler]);
        // Of two that send at the same time, it stays with one.
        for ms in (100..5000).step_by(100) {
            assert_eq!([push(2, ms), push(1, ms + 50)], [yes, straggler]);
        }
        assert_eq!([push(1, 5899), push(1, 5900), push(1, 5901)], [straggler, new_stream, yes]);
        assert_eq!([push(2, 5950), push(1, 6000)], [straggler, yes]);
    }
}
