//! One GStreamer pipeline, from RTP packets to pictures of the wanted size, and the probes that keep `Flow` informed.
//! The callbacks here only hand over; one waits, for the rest of the packets that are being handed over.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;
use gstreamer_video as gst_video;
use rov_common::codec::{self, Codec};
use rov_common::rtp::Header;
use rov_common::sync::lock;
use rov_common::units::Resolution;
use rov_gst::decoders::{Candidate, coded_caps, depayloader};
use rov_gst::element::has_property;

use super::flow::Flow;
use super::output::{PACKED, PictureForm};
use super::picture::{Picture, may_keep};
use crate::limit::within;
use crate::mailbox::Mailbox;
use crate::receive::packet::Packet;
use crate::recording::{Taken, Tape};

/// How long a pipeline may take to start. Opening a hardware decoder takes up to a second where it loads firmware or a
/// compiler; one that hangs in its driver must not keep the next one from being tried.
pub const START_TIME: Duration = Duration::from_secs(5);
/// How long a pipeline may take to stop before it is left behind: a hung driver must not hang the program.
const STOP_TIME: Duration = Duration::from_secs(2);
/// Converting and scaling a 4K picture takes more than one core; more than four bring little. Up to 1080p, waiting for
/// another thread costs more than its help is worth: the median picture came 1 ms later, the slow ones more.
const MAX_CONVERT_THREADS: usize = 4;
const PIXELS_PER_THREAD: u64 = 1920 * 1088;

/// What the callbacks tell the supervisor. `generation` tells an old pipeline's last words from the present one's.
#[derive(Debug)]
pub enum Note {
    /// The gate closed: a keyframe may have to be asked for.
    GateClosed,
    Failed {
        generation: u64,
        failure: Failure,
    },
    /// The first picture, or the first of a new size.
    Playing {
        generation: u64,
        resolution: Resolution,
    },
    /// Packets of another stream come.
    NewStream,
    /// The recording wants a keyframe.
    KeyframeWanted,
    /// The first packet is out: the others may follow.
    Flowing,
    Stop,
}

/// Why a pipeline stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub reason: String,
    /// Two elements found no common format. Once there were pictures, that says nothing about the decoder.
    pub negotiation: bool,
}

/// What the pipeline's threads share with the decoder's owner.
#[derive(Debug)]
pub struct GraphShared {
    pub flow: Mutex<Flow>,
    /// In what form the pictures are wanted.
    pub output: Mutex<PictureForm>,
    pub mailbox: Arc<Mailbox<Picture>>,
    pub notes: mpsc::SyncSender<Note>,
    /// Packets left out because too many waited, or no pipeline was there to take them.
    pub dropped: AtomicU64,
    /// Held while packets that came together go in. The jitter buffer's thread waits at the first of them until the
    /// last is in: otherwise the two would wake and hold up each other at every packet. Held under the supervisor's
    /// `CurrentPipeline`, which that thread never takes.
    pub together: Mutex<()>,
    /// The owner is gone: nothing more is given to anybody.
    pub stopped: AtomicBool,
    /// By which access units are recorded, on their way into the decoder.
    pub tape: Mutex<Option<Arc<Tape>>>,
}

impl GraphShared {
    pub fn flow(&self) -> MutexGuard<'_, Flow> {
        // Its fields are valid after each statement, so a panic elsewhere while it was held does no harm.
        self.flow.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn together(&self) -> MutexGuard<'_, ()> {
        self.together.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Called from threads that must not wait. A full channel is no loss: the supervisor looks at everything each tick
    /// anyway.
    pub fn tell(&self, note: Note) {
        let _ = self.notes.try_send(note);
    }

    pub fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    fn output(&self) -> PictureForm {
        self.output.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A running pipeline; dropping it stops it.
#[derive(Debug)]
pub struct Graph {
    pub(super) pipeline: gst::Pipeline,
    /// In front of the jitter buffer. Whoever brings a packet pushes it there; an appsrc would wake a thread of its own
    /// for it.
    input: gst::Pad,
    generation: u64,
    shared: Arc<GraphShared>,
    /// The first packet is out of the jitter buffer, which waits for missing ones from then on.
    pub flowing: Arc<AtomicBool>,
}

/// What the pictures are converted and scaled to: known once both the source's size and the wish are.
///
/// Changed on the thread alone that brings the pictures, between two of them: a change while scaler and converter
/// negotiate leaves them with different sizes, which ends the stream.
#[derive(Debug)]
struct Scaling {
    capsfilter: gst::Element,
    /// Scaler and converter, where they can share the work among threads. Weak, as the scaler's pad holds this.
    workers: Vec<gst::glib::WeakRef<gst::Element>>,
    /// At the end, where the memory is asked for.
    end: gst::Pad,
    asked: Mutex<Asked>,
    /// When the newest picture left the decoder, and itself, where it is converted and may be kept. The same thread
    /// then converts it and gives it out.
    decoded: Mutex<Option<(Instant, Option<gst::Buffer>)>>,
}

#[derive(Debug, Default)]
struct Asked {
    /// As it is to be shown, so with square pixels.
    source: Option<Resolution>,
    /// The same as it leaves the decoder.
    info: Option<gst_video::VideoInfo>,
    /// What the pipeline was set to, and for which source.
    output: Option<(PictureForm, Option<Resolution>)>,
}

/// The pipeline as text. `has` tells whether an element has a property.
pub fn description(candidate: &Candidate, has: &dyn Fn(&str, &str) -> bool) -> String {
    let option = |element: &str, property: &str, value: String| {
        if has(element, property) { format!(" {property}={value}") } else { String::new() }
    };
    // The first packet of all waits for the whole latency, since nobody knows what came before it; so there is none
    // until it is out. `faststart-min-packets`, made for this, loses a race in one start of three (GStreamer 1.22).
    let faststart = option("rtpjitterbuffer", "faststart-min-packets", "1".to_owned());
    let coded = coded_caps(candidate.codec);
    let depay = depayloader(candidate.codec);
    // Access units are judged behind the depayloader. Scaling comes before converting because the decoder's format has
    // half the bytes or less of the window's.
    format!(
        "rtpjitterbuffer name=jitter latency=0 do-lost=true{faststart} ! \
         {depay} name=depay ! {coded} ! \
         {} ! videoscale name=scale method=bilinear ! videoconvert name=convert ! \
         capsfilter name=size caps=video/x-raw,format={PACKED},pixel-aspect-ratio=1/1 ! \
         appsink name=out sync=false async=false qos=false max-buffers=1 drop=true enable-last-sample=false",
        candidate.description,
    )
}

impl Graph {
    /// Builds and starts the pipeline, within [`START_TIME`]; the error says why it cannot work.
    pub fn start(
        candidate: &Candidate,
        payload_type: u8,
        latency: Duration,
        generation: u64,
        shared: &Arc<GraphShared>,
    ) -> Result<Self, String> {
        let (candidate, shared) = (candidate.clone(), Arc::clone(shared));
        let start = move || Self::start_here(&candidate, payload_type, latency, generation, &shared);
        within(START_TIME, "decoder-start", start).map_err(|error| format!("it does not start: {error}"))?
    }

    fn start_here(
        candidate: &Candidate,
        payload_type: u8,
        latency: Duration,
        generation: u64,
        shared: &Arc<GraphShared>,
    ) -> Result<Self, String> {
        let text = description(candidate, &has_property);
        let pipeline = gst::parse::launch(&text)
            .map_err(|error| error.to_string())?
            .downcast::<gst::Pipeline>()
            .map_err(|_| "the description is not a pipeline".to_owned())?;
        let element = |name: &str| pipeline.by_name(name).ok_or_else(|| format!("no element named {name}"));
        let pad = |name: &str, pad: &str| {
            element(name)?.static_pad(pad).ok_or_else(|| format!("no pad {pad} at element {name}"))
        };
        let output =
            element("out")?.downcast::<gst_app::AppSink>().map_err(|_| "'out' is not an appsink".to_owned())?;
        let workers =
            [element("scale")?, element("convert")?].into_iter().filter(|worker| worker.has_property("n-threads"));
        let scaling = Arc::new(Scaling {
            capsfilter: element("size")?,
            workers: workers.map(|worker| worker.downgrade()).collect(),
            end: pad("out", "sink")?,
            asked: Mutex::default(),
            decoded: Mutex::default(),
        });
        let input = source();
        input.link(&pad("jitter", "sink")?).map_err(|error| error.to_string())?;
        let flowing = Arc::new(AtomicBool::new(false));
        let jitter = JitterBuffer { element: element("jitter")?.downgrade(), latency, flowing: Arc::clone(&flowing) };
        watch_packets(&pad("jitter", "src")?, jitter, shared);
        watch_units(candidate.codec, &pad("depay", "src")?, shared);
        watch_size(&pad("scale", "sink")?, &scaling, shared, generation);
        lend_memory(&pad("out", "sink")?, shared);
        take_pictures(&output, &scaling, shared);
        watch_bus(&pipeline, shared, generation);
        let graph = Self { pipeline, input, generation, shared: Arc::clone(shared), flowing };
        if graph.pipeline.set_state(gst::State::Playing).is_err() {
            return Err(graph.first_error().unwrap_or_else(|| "it does not start".to_owned()));
        }
        graph.begin_stream(candidate.codec, payload_type);
        Ok(graph)
    }

    /// What comes before the first packet.
    fn begin_stream(&self, codec: Codec, payload_type: u8) {
        let caps = gst::Caps::builder("application/x-rtp")
            .field("media", "video")
            .field("clock-rate", 90_000)
            .field("encoding-name", codec.rtp_name())
            .field("payload", i32::from(payload_type))
            .build();
        let segment = gst::FormattedSegment::<gst::ClockTime>::new();
        self.input.push_event(gst::event::StreamStart::new("video"));
        self.input.push_event(gst::event::Caps::new(&caps));
        self.input.push_event(gst::event::Segment::new(&segment));
    }

    /// Hands over a packet that came so late, at the present. The jitter buffer only sorts it in: it never waits for
    /// room.
    pub fn push(&self, mut packet: gst::Buffer, late_by: Duration) {
        if let Some(now) = self.pipeline.current_running_time()
            && let Some(packet) = packet.get_mut()
        {
            let due = now.saturating_sub(gst::ClockTime::from_nseconds(late_by.as_nanos() as u64));
            packet.set_dts(due);
            packet.set_pts(due);
        }
        // An element that fails mostly says why by the bus, before this. Some say nothing, and no source is there to
        // say it for them.
        if let Err(error) = self.input.push(packet) {
            let negotiation = error == gst::FlowError::NotNegotiated;
            let reason = if negotiation {
                "two elements found no common format".to_owned()
            } else {
                format!("an element failed and did not say why ({error:?})")
            };
            self.shared.tell(Note::Failed { generation: self.generation, failure: Failure { reason, negotiation } });
        }
    }

    fn first_error(&self) -> Option<String> {
        // The sync handler drops nothing, so the message is still on the bus.
        match self.pipeline.bus()?.pop_filtered(&[gst::MessageType::Error])?.view() {
            gst::MessageView::Error(error) => Some(error_text(error)),
            _ => None,
        }
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        let pipeline = self.pipeline.clone();
        let stop = move || {
            let _ = pipeline.set_state(gst::State::Null);
        };
        if let Err(error) = within(STOP_TIME, "decoder-stop", stop) {
            tracing::warn!("the decoder's pipeline is left behind, it did not stop: {error}");
        }
    }
}

impl Scaling {
    fn asked(&self) -> MutexGuard<'_, Asked> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn decoded(&self) -> MutexGuard<'_, Option<(Instant, Option<gst::Buffer>)>> {
        self.decoded.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_source(&self, source: Resolution, info: gst_video::VideoInfo) {
        let mut asked = self.asked();
        (asked.source, asked.info) = (Some(source), Some(info));
        drop(asked);
        for worker in self.workers.iter().filter_map(gst::glib::WeakRef::upgrade) {
            worker.set_property("n-threads", convert_threads(source));
        }
    }

    /// To be called on the thread that brings the pictures.
    fn fit(&self, output: PictureForm) {
        let mut asked = self.asked();
        let wanted = Some((output, asked.source));
        if asked.output == wanted {
            return;
        }
        let source = asked.source;
        let before = std::mem::replace(&mut asked.output, wanted.clone());
        drop(asked);
        let Some((output, _)) = wanted else { return };
        self.capsfilter.set_property("caps", output.caps(source));
        if before.is_some_and(|(before, _)| before.memory != output.memory) {
            // The same caps ask nobody for memory again.
            self.end.push_event(gst::event::Reconfigure::new());
        }
    }
}

/// The header, and the payload's own memory.
pub fn buffer(packet: Packet) -> gst::Buffer {
    let mut buffer = gst::Buffer::new();
    let memories = buffer.make_mut();
    memories.append_memory(gst::Memory::from_slice(packet.header.bytes()));
    if !packet.payload.is_empty() {
        memories.append_memory(gst::Memory::from_slice(packet.payload));
    }
    buffer
}

/// That of a packet made by [`buffer`].
fn header(packet: &gst::BufferRef) -> Option<Header> {
    Header::parse(&packet.iter_memories().next()?.map_readable().ok()?)
}

/// A pad that says that what it brings is live: decoders then hold back no pictures for their threads.
fn source() -> gst::Pad {
    let query = |pad: &gst::Pad, parent: Option<&gst::Object>, query: &mut gst::QueryRef| {
        if let gst::QueryViewMut::Latency(latency) = query.view_mut() {
            latency.set(true, gst::ClockTime::ZERO, gst::ClockTime::NONE);
            return true;
        }
        gst::Pad::query_default(pad, parent, query)
    };
    let pad = gst::Pad::builder(gst::PadDirection::Src).name("in").query_function(query).build();
    // Nothing can keep a pad without a parent from that.
    let _ = pad.set_active(true);
    pad
}

/// How many threads convert and scale a picture.
fn convert_threads(source: Resolution) -> u32 {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let wanted = source.pixels().div_ceil(PIXELS_PER_THREAD).max(1);
    wanted.min(cores.min(MAX_CONVERT_THREADS) as u64) as u32
}

/// At the end: converter or decoder ask for memory to put the pictures into.
fn lend_memory(pad: &gst::Pad, shared: &Arc<GraphShared>) {
    let shared = Arc::clone(shared);
    pad.add_probe(gst::PadProbeType::QUERY_DOWNSTREAM, move |_, info| {
        let asked = info.query_mut().filter(|query| query.type_() == gst::QueryType::Allocation);
        if asked.is_some_and(|query| shared.output().answer(query)) {
            gst::PadProbeReturn::Handled
        } else {
            gst::PadProbeReturn::Ok
        }
    });
}

/// The one whose latency is set at its first packet.
struct JitterBuffer {
    element: gst::glib::WeakRef<gst::Element>,
    latency: Duration,
    flowing: Arc<AtomicBool>,
}

/// Behind the jitter buffer: packets in order, and the news of lost ones.
fn watch_packets(pad: &gst::Pad, jitter: JitterBuffer, shared: &Arc<GraphShared>) {
    let shared = Arc::clone(shared);
    let latency_ms = u32::try_from(jitter.latency.as_millis()).unwrap_or(u32::MAX);
    let mask = gst::PadProbeType::BUFFER | gst::PadProbeType::EVENT_DOWNSTREAM;
    pad.add_probe(mask, move |_, info| {
        if let Some(buffer) = info.buffer() {
            drop(shared.together());
            if !jitter.flowing.load(Ordering::Relaxed) {
                if let Some(element) = jitter.element.upgrade() {
                    element.set_property("latency", latency_ms);
                }
                jitter.flowing.store(true, Ordering::Release);
                shared.tell(Note::Flowing);
            }
            if let Some(Header { sequence, ssrc, .. }) = header(buffer) {
                let mut flow = shared.flow();
                let was_open = flow.gate.is_open();
                flow.packet((ssrc, sequence), buffer.pts().map(gst::ClockTime::nseconds), Instant::now());
                let closed = was_open && !flow.gate.is_open();
                drop(flow);
                if closed {
                    shared.tell(Note::GateClosed);
                }
            }
        } else if let Some(event) = info.event()
            && event.type_() == gst::EventType::CustomDownstream
            && event.structure().is_some_and(|structure| structure.name() == "GstRTPPacketLost")
        {
            shared.flow().given_up();
            shared.tell(Note::GateClosed);
        }
        gst::PadProbeReturn::Ok
    });
}

/// Behind the depayloader: whole access units, of which only those that decode without errors go on.
fn watch_units(codec: Codec, pad: &gst::Pad, shared: &Arc<GraphShared>) {
    let shared = Arc::clone(shared);
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        let Some(buffer) = info.buffer() else { return gst::PadProbeReturn::Ok };
        let Ok(map) = buffer.map_readable() else { return gst::PadProbeReturn::Drop };
        let keyframe = codec::is_keyframe(codec, &map);
        let pts = buffer.pts().map(gst::ClockTime::nseconds);
        let now = Instant::now();
        let mut flow = shared.flow();
        let was_open = flow.gate.is_open();
        let admitted = flow.access_unit(pts, keyframe, now);
        let unit = flow.unit(pts);
        let closed = was_open && !flow.gate.is_open();
        drop(flow);
        if closed {
            shared.tell(Note::GateClosed);
        }
        let tape = lock(&shared.tape).clone().filter(|_| !shared.is_stopped());
        match (tape, unit) {
            (Some(tape), Some(unit)) if admitted => {
                let (rtp_timestamp, captured) = (unit.rtp_timestamp, unit.captured);
                let taken = Taken { codec, unit: &map, keyframe, rtp_timestamp, captured, resumes: !was_open };
                if tape.take(taken, now) {
                    shared.tell(Note::KeyframeWanted);
                }
            }
            (Some(tape), unit) if !admitted => tape.skip(unit.and_then(|unit| unit.captured)),
            _ => {}
        }
        if admitted { gst::PadProbeReturn::Ok } else { gst::PadProbeReturn::Drop }
    });
}

/// In front of the scaler: when a picture is decoded, and its size, from which the size to scale to follows, looked at
/// before each.
fn watch_size(pad: &gst::Pad, scaling: &Arc<Scaling>, shared: &Arc<GraphShared>, generation: u64) {
    let (shared, scaling) = (Arc::clone(shared), Arc::clone(scaling));
    let mask = gst::PadProbeType::BUFFER | gst::PadProbeType::EVENT_DOWNSTREAM;
    pad.add_probe(mask, move |_, info| {
        if let Some(buffer) = info.buffer() {
            let (now, output) = (Instant::now(), shared.output());
            let kept = (output.formats.is_none() && may_keep(buffer)).then(|| buffer.clone());
            *scaling.decoded() = Some((now, kept));
            scaling.fit(output);
        } else if let Some(event) = info.event()
            && let gst::EventView::Caps(caps) = event.view()
            && let Ok(decoded) = gst_video::VideoInfo::from_caps(caps.caps())
            && let Some(source) = square_size(&decoded)
        {
            scaling.set_source(source, decoded);
            scaling.fit(shared.output());
            shared.tell(Note::Playing { generation, resolution: source });
        }
        gst::PadProbeReturn::Ok
    });
}

/// The picture's size with square pixels.
fn square_size(info: &gst_video::VideoInfo) -> Option<Resolution> {
    let (num, den) = (info.par().numer().max(1) as u64, info.par().denom().max(1) as u64);
    let width = (u64::from(info.width()) * num + den / 2) / den;
    Some(Resolution::new(u32::try_from(width.max(1)).ok()?, info.height().max(1)))
}

fn take_pictures(output: &gst_app::AppSink, scaling: &Arc<Scaling>, shared: &Arc<GraphShared>) {
    let (shared, scaling) = (Arc::clone(shared), Arc::clone(scaling));
    let callbacks = gst_app::AppSinkCallbacks::builder()
        .new_sample(move |sink| {
            let sample = sink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
            let (Some(buffer), Some(caps)) = (sample.buffer_owned(), sample.caps()) else {
                return Ok(gst::FlowSuccess::Ok);
            };
            let now = Instant::now();
            let pts = buffer.pts();
            let unit = shared.flow().picture(pts.map(gst::ClockTime::nseconds), now);
            // The decoder itself says that the picture has errors.
            if buffer.flags().contains(gst::BufferFlags::CORRUPTED) {
                shared.flow().gate.close("the decoder found an error");
                shared.tell(Note::GateClosed);
                return Ok(gst::FlowSuccess::Ok);
            }
            let info = gst_video::VideoInfo::from_caps(caps).map_err(|_| gst::FlowError::NotNegotiated)?;
            let asked = scaling.asked();
            let source = asked.source.unwrap_or(Resolution::new(info.width(), info.height()));
            let (decoded_at, decoded) = scaling.decoded().take().unwrap_or((now, None));
            let whole = decoded.zip(asked.info.clone());
            drop(asked);
            if let Some(mut picture) = Picture::from_buffer(buffer, &info, source, unit, decoded_at, now) {
                picture.whole = whole;
                // Of a session that is over none: the mailbox may be the next one's already.
                shared.mailbox.put_if(picture, || !shared.is_stopped());
                if shared.is_stopped() {
                    return Err(gst::FlowError::Eos);
                }
            }
            Ok(gst::FlowSuccess::Ok)
        })
        .build();
    output.set_callbacks(callbacks);
}

fn watch_bus(pipeline: &gst::Pipeline, shared: &Arc<GraphShared>, generation: u64) {
    let Some(bus) = pipeline.bus() else { return };
    let shared = Arc::clone(shared);
    bus.set_sync_handler(move |_, message| match message.view() {
        gst::MessageView::Error(error) => {
            let failure = Failure { reason: error_text(error), negotiation: is_negotiation(error) };
            shared.tell(Note::Failed { generation, failure });
            gst::BusSyncReply::Pass
        }
        gst::MessageView::Eos(_) => {
            let failure = Failure { reason: "it ended the stream".to_owned(), negotiation: false };
            shared.tell(Note::Failed { generation, failure });
            gst::BusSyncReply::Drop
        }
        // Nobody reads the bus afterwards, so nothing else may pile up on it.
        _ => gst::BusSyncReply::Drop,
    });
}

fn error_text(error: &gst::message::Error) -> String {
    let element = error.src().map(|source| source.name().to_string()).unwrap_or_default();
    format!("{element}: {}", error.error())
}

/// Whether elements found no common format. A source says so only by the number of the flow's result.
fn is_negotiation(error: &gst::message::Error) -> bool {
    let flow = error.details().and_then(|details| details.get::<i32>("flow-return").ok());
    flow == Some(gst::ffi::GST_FLOW_NOT_NEGOTIATED) || error.error().matches(gst::CoreError::Negotiation)
}
