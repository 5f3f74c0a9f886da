//! RTP packets in, pictures out: jitter buffer, depayloader and decoder in GStreamer, with the decoder chosen from a
//! table and replaced by the next one when it fails. The client-side GStreamer code, but for `receive/rtsp`.
//!
//! In order, packets go straight through; only a gap waits, and only as long as a retransmission may take. A picture
//! with a hole, and every one that refers to it, is never shown: decoding goes on at the next keyframe, which is asked
//! for. Limits: H.264 and H.265, one stream, no audio.

mod flow;
mod gate;
mod graph;
mod output;
mod picture;
pub mod rtp;
mod supervisor;
#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use gstreamer as gst;
use rov_common::codec::Codec;
use rov_common::lateness::Received;
use rov_common::sync::lock;
use rov_common::units::Resolution;
use rov_gst::decoders::{self, Candidate, DecoderChoice, depayloader};
use rov_gst::element::{exists, has_property};

use self::flow::Flow;
use self::graph::{GraphShared, Note};
pub use self::output::{PictureForm, packed_caps};
pub use self::picture::{Kept, Picture, read_stamp};
use self::rtp::Part;
use self::supervisor::{CurrentPipeline, Supervisor, Taken};

use crate::mailbox::Mailbox;
use crate::receive::packet::Packet;
use crate::recording::Tape;

/// Notes from the callbacks to the supervisor; more are left out, since it looks at everything each tick anyway.
const MAX_NOTES: usize = 64;
/// How long dropping a decoder waits for it to end. It mostly takes some ten milliseconds, after which a hardware
/// decoder is free for the next; one that hangs ends by itself, or never.
const END_TIME: Duration = Duration::from_millis(200);

/// What to decode, and how.
#[derive(Clone, Debug)]
pub struct DecoderConfig {
    /// What the stream is expected to be; [`Decoder::set_codec`] says it when that is known.
    pub codec: Codec,
    pub choice: DecoderChoice,
    /// The longest wait for a retransmission: how long a gap may hold up what is behind it.
    pub latency: Duration,
    /// How long one may have been waited for before the packets came here.
    pub waited: Duration,
    /// The RTP payload type of the video; packets of others are ignored.
    pub payload_type: u8,
    /// The pictures are scaled to fit into this size, aspect ratio kept; none: they keep their own.
    pub output: Option<Resolution>,
}

/// What the decoder tells its owner, on a thread of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DecodeEvent {
    /// The server should be asked for a keyframe (PLI). Already coalesced.
    KeyframeNeeded { reason: String },
    /// Pictures come, of this size as decoded; again when the decoder or the size changes.
    Playing { decoder: String, resolution: Resolution },
    /// No decoder works; these were tried, with the reasons. Nothing more will come.
    Failed { tried: Vec<(String, String)> },
}

/// Why there is no decoder at all.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    #[error("GStreamer does not start: {0}")]
    GStreamer(#[from] gst::glib::Error),
    #[error("GStreamer element {element} is missing; install {package}")]
    MissingElement { element: &'static str, package: &'static str },
    #[error("GStreamer has no decoder element {name}; it has {}", list(.available))]
    NoSuchDecoder { name: String, available: Vec<String> },
    #[error("no {} decoder works: {}", .codec.title(), reasons(.tried))]
    NoneWorks { codec: Codec, tried: Vec<(String, String)> },
    #[error("decoder {name} does not work: {reason}; those that do: {}", list(.working))]
    DoesNotWork { name: String, reason: String, working: Vec<String> },
    #[error("cannot start the decoder's thread: {0}")]
    Thread(#[from] std::io::Error),
}

/// The state of a decoder, for the statistics.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DecodeStats {
    /// The GStreamer element that decodes.
    pub decoder: String,
    /// The size as decoded, once it is known.
    pub source: Option<Resolution>,
    /// RTP packets that went in.
    pub packets: u64,
    /// RTP packets left out because the pipeline did not take them.
    pub dropped: u64,
    /// RTP packets that never came, or came too late.
    pub lost: u64,
    pub frames_decoded: u64,
    /// Access units that were not decoded, because they were incomplete or referred to one that was.
    pub frames_skipped: u64,
    pub keyframe_requests: u64,
    /// How often the pipeline was built anew.
    pub restarts: u64,
    /// Mean over the last two seconds of decoding, converting and scaling; none before the first picture.
    pub decode_ms: Option<f64>,
}

/// A running decoder; dropping it ends it, within 0.2 s for the caller whatever its driver does.
#[derive(Debug)]
pub struct Decoder {
    shared: Arc<GraphShared>,
    now: Arc<Mutex<CurrentPipeline>>,
    payload_type: u8,
    /// Packets are being left out, and that was logged.
    overflowing: AtomicBool,
    thread: Option<JoinHandle<()>>,
    /// [`END_TIME`], but for tests.
    end_time: Duration,
    /// Closed when the thread ends.
    ended: Mutex<mpsc::Receiver<()>>,
}

impl Decoder {
    /// Starts the first decoder of `config.choice` that can be started. Pictures go to `mailbox`. `on_event` is called
    /// on the decoder's own thread, one call at a time; it must not drop the decoder.
    pub fn start(
        config: DecoderConfig,
        mailbox: Arc<Mailbox<Picture>>,
        on_event: impl Fn(DecodeEvent) + Send + Sync + 'static,
    ) -> Result<Self, DecodeError> {
        gst::init()?;
        let config = DecoderConfig { codec: decoders::first_codec(config.codec, &config.choice), ..config };
        need_elements(config.codec)?;
        let candidates = decoders::candidates(config.codec, &config.choice, &exists, &has_property);
        if candidates.is_empty() {
            return Err(no_candidate(config.codec, &config.choice));
        }
        Self::start_with(candidates, config, mailbox, on_event)
    }

    /// As `start`, with the decoders to try given.
    fn start_with(
        candidates: Vec<Candidate>,
        config: DecoderConfig,
        mailbox: Arc<Mailbox<Picture>>,
        on_event: impl Fn(DecodeEvent) + Send + Sync + 'static,
    ) -> Result<Self, DecodeError> {
        let (notes, inbox) = mpsc::sync_channel(MAX_NOTES);
        let shared = Arc::new(GraphShared {
            flow: Mutex::new(Flow::new(config.latency, Instant::now()).bearing(config.waited)),
            output: Mutex::new(config.output.map(PictureForm::within).unwrap_or_default()),
            mailbox,
            notes,
            dropped: AtomicU64::new(0),
            together: Mutex::default(),
            stopped: AtomicBool::new(false),
            tape: Mutex::default(),
        });
        let payload_type = config.payload_type;
        let (codec, choice) = (config.codec, config.choice.clone());
        let mut supervisor = Supervisor::new(candidates, config, Arc::clone(&shared), Box::new(on_event));
        if let Err(tried) = supervisor.begin() {
            return Err(nothing_started(codec, choice, tried));
        }
        let now = supervisor.now();
        let (alive, ended) = mpsc::sync_channel(1);
        let run = move || {
            let _alive: mpsc::SyncSender<()> = alive;
            supervisor.run(&inbox);
        };
        let thread = std::thread::Builder::new().name("decoder".into()).spawn(run)?;
        Ok(Self {
            shared,
            now,
            payload_type,
            overflowing: AtomicBool::new(false),
            thread: Some(thread),
            end_time: END_TIME,
            ended: Mutex::new(ended),
        })
    }

    /// RTP packets that came together. Never waits; a packet that does not fit is counted and left out, and decoding
    /// goes on at the next keyframe. What is of another payload type is ignored.
    pub fn push(&self, rtp_packets: impl IntoIterator<Item = Packet>, received: Received) {
        let mut now = self.now();
        let packets = rtp_packets.into_iter();
        // One alone has nobody to be waited for.
        let _together = (packets.size_hint().1 != Some(1)).then(|| self.shared.together());
        for packet in packets {
            self.push_one(&mut now, packet, received);
        }
    }

    fn push_one(&self, now: &mut CurrentPipeline, packet: Packet, received: Received) {
        let ssrc = packet.header.ssrc;
        if packet.header.payload_type != self.payload_type || now.is_straggler(ssrc, received.at) {
            return;
        }
        let part = Part::of(now.codec(), &packet);
        let buffer = graph::buffer(packet);
        // First the arrival, as the pipeline's threads look it up as soon as they have the packet.
        let mut flow = self.shared.flow();
        let was_open = flow.gate.is_open();
        let late_by = flow.arrived(&part, received);
        let closed = was_open && !flow.gate.is_open();
        drop(flow);
        if closed {
            self.shared.tell(Note::GateClosed);
        }
        let taken = now.push(ssrc, buffer, received.at, late_by);
        match taken {
            Taken::Yes => {}
            Taken::NewStream => self.shared.tell(Note::NewStream),
            Taken::Full => self.shared.flow().gate.close("the decoder took no packets"),
        }
        if taken == Taken::Full {
            let dropped = self.shared.dropped.fetch_add(1, Ordering::Relaxed) + 1;
            if !self.overflowing.swap(true, Ordering::Relaxed) {
                tracing::warn!("the decoder takes no packets, {dropped} dropped until now");
            }
        } else {
            self.overflowing.store(false, Ordering::Relaxed);
        }
    }

    /// What the packets that follow hold. Another codec than before costs the time to build another pipeline, during
    /// which packets are kept.
    pub fn set_codec(&self, codec: Codec) {
        let changed = self.now().set_codec(codec);
        if changed {
            self.shared.tell(Note::NewStream);
        }
    }

    /// Gives the pictures in this form from the next one on. May be called from any thread, however often.
    pub fn set_output(&self, output: PictureForm) {
        *self.shared.output.lock().unwrap_or_else(PoisonError::into_inner) = output;
    }

    /// What is decoded from now on is recorded, whenever recording is on.
    pub fn record_by(&self, tape: Arc<Tape>) {
        *lock(&self.shared.tape) = Some(tape);
    }

    pub fn stats(&self) -> DecodeStats {
        let mut stats = self.now().stats();
        let flow = self.shared.flow();
        stats.packets = flow.counters.packets;
        stats.lost = flow.counters.lost;
        stats.frames_decoded = flow.counters.decoded;
        stats.frames_skipped = flow.counters.skipped;
        stats.decode_ms = flow.decode_time(Instant::now()).map(|time| time.as_secs_f64() * 1e3);
        stats.dropped = self.shared.dropped.load(Ordering::Relaxed);
        stats
    }

    /// Gives no picture from now on, also none that waits to be shown: the next one would pass for another session's.
    pub fn silence(&self) {
        self.shared.stopped.store(true, Ordering::Relaxed);
        self.shared.mailbox.clear();
    }

    fn now(&self) -> std::sync::MutexGuard<'_, CurrentPipeline> {
        // Written in single assignments, so valid even after a panic elsewhere.
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Decoder {
    fn drop(&mut self) {
        self.silence();
        // Full, the thread has enough to wake up for.
        self.shared.tell(Note::Stop);
        let ended = self.ended.get_mut().unwrap_or_else(PoisonError::into_inner);
        if ended.recv_timeout(self.end_time) == Err(mpsc::RecvTimeoutError::Timeout) {
            tracing::debug!("the decoder takes long to end; not waited for");
            return;
        }
        // It has ended but for its very last steps.
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the decoder's thread panicked");
        }
    }
}

/// The elements without which nothing works, and the Debian packages that hold them.
fn need_elements(codec: Codec) -> Result<(), DecodeError> {
    let good = "the GStreamer 'good' plugins (gstreamer1.0-plugins-good)";
    let base = "the GStreamer 'base' plugins (gstreamer1.0-plugins-base)";
    let bad = "the GStreamer 'bad' plugins (gstreamer1.0-plugins-bad)";
    let needed = [
        ("rtpjitterbuffer", good),
        (depayloader(codec), good),
        (decoders::parser(codec), bad),
        ("videoscale", base),
        ("videoconvert", base),
        ("appsink", base),
    ];
    let is_needed = |element: &str| codec.has_parameter_sets() || element != decoders::parser(codec);
    match needed.into_iter().find(|(element, _)| is_needed(element) && !exists(element)) {
        Some((element, package)) => Err(DecodeError::MissingElement { element, package }),
        None => Ok(()),
    }
}

fn no_candidate(codec: Codec, choice: &DecoderChoice) -> DecodeError {
    match choice {
        DecoderChoice::Auto => {
            let (element, package) = software(codec);
            DecodeError::MissingElement { element, package }
        }
        DecoderChoice::Element(name) => {
            DecodeError::NoSuchDecoder { name: name.clone(), available: available_decoders() }
        }
    }
}

/// The decoder that works everywhere, and what to install for it.
fn software(codec: Codec) -> (&'static str, &'static str) {
    match codec {
        Codec::H264 => (
            "avdec_h264",
            "an H.264 decoder for GStreamer (gstreamer1.0-libav, or gstreamer1.0-plugins-bad for openh264dec)",
        ),
        Codec::H265 => (
            "avdec_h265",
            "an H.265 decoder for GStreamer (gstreamer1.0-libav, or gstreamer1.0-plugins-bad for libde265dec)",
        ),
        Codec::Mjpeg => ("jpegdec", "a JPEG decoder for GStreamer (gstreamer1.0-plugins-good)"),
    }
}

fn nothing_started(codec: Codec, choice: DecoderChoice, tried: Vec<(String, String)>) -> DecodeError {
    match choice {
        DecoderChoice::Auto => DecodeError::NoneWorks { codec, tried },
        DecoderChoice::Element(name) => {
            let reason = tried.into_iter().map(|(_, reason)| reason).collect::<Vec<_>>().join("; ");
            let mut working = supervisor::startable(codec);
            working.retain(|element| *element != name);
            DecodeError::DoesNotWork { name, reason, working }
        }
    }
}

/// The decoders of the tables that GStreamer has here, those of H.264 first, and of each the hardware first. They are
/// registered; that they work shows only when they are started.
pub fn available_decoders() -> Vec<String> {
    let all = Codec::ALL.into_iter().flat_map(|codec| decoders::available(codec, &exists));
    let mut names: Vec<String> = Vec::new();
    for row in all {
        if !names.iter().any(|name| name == row.element) {
            names.push(row.element.to_owned());
        }
    }
    names
}

fn list(names: &[String]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

fn reasons(tried: &[(String, String)]) -> String {
    tried.iter().map(|(name, reason)| format!("{name}: {reason}")).collect::<Vec<_>>().join("; ")
}
