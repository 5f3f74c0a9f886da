//! Watches a server, and the next one when that is lost: until the viewer is closed.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::Context;
use rov_common::api::StreamState;
use rov_common::backoff::Backoff;
use rov_common::codec::Codec;
use rov_common::sync::lock;
use rov_common::window::RateWindow;
use thiserror::Error;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::decode::{DecodeError, DecodeEvent, DecodeStats, Decoder, DecoderConfig};
use crate::decoders::DecoderChoice;
use crate::find::{Finder, Located};
use crate::receive::webrtc::{ConnectError, Connection, Link, PAYLOAD_TYPE};
use crate::reconnect::{self, Advice, Probe, Session};
use crate::viewer::{Clock, Phase, Reception, Viewer};
use crate::whep::{self, WhepError};

const TICK: Duration = Duration::from_millis(100);
const RATE_WINDOW: Duration = Duration::from_secs(2);
/// Between attempts to reach a server whose address is known.
const RETRY_MIN: Duration = Duration::from_millis(200);
const RETRY_MAX: Duration = Duration::from_secs(1);
/// For the overlay, the server is asked for its figures so often.
const FIGURES_INTERVAL: Duration = Duration::from_secs(2);
/// A loop that runs every [`TICK`] and comes this late was not running.
const STANDSTILL: Duration = Duration::from_millis(700);
const CONNECT_GRACE: Duration = Duration::from_secs(1);

/// Which server to watch.
#[derive(Clone, Debug)]
pub enum Target {
    /// The one that is found, of this name if one is given.
    Auto { name: Option<String> },
    /// This WHEP endpoint.
    Url(Url),
}

#[derive(Clone, Debug)]
pub struct SessionConfig {
    pub target: Target,
    pub discovery_port: u16,
    pub discovery_timeout: Duration,
    pub interfaces: Vec<String>,
    /// Go on looking when nothing is found.
    pub wait: bool,
    pub decoder: DecoderChoice,
    pub latency: Duration,
    pub stun: Option<String>,
}

/// Why the viewer cannot go on.
#[derive(Debug, Error)]
pub enum Fatal {
    #[error("{0}")]
    NothingFound(String),
    #[error("several servers were found, choose one by --name:\n{0}")]
    Ambiguous(String),
    #[error(transparent)]
    Decoder(#[from] DecodeError),
    #[error("{0:#}")]
    Other(#[from] anyhow::Error),
}

/// Runs until `shutdown`.
pub async fn run(config: SessionConfig, viewer: Arc<Viewer>, shutdown: CancellationToken) -> Result<(), Fatal> {
    let mut finder = Finder::new(&config)?;
    let mut backoff = Backoff::new(RETRY_MIN, RETRY_MAX);
    // Kept until a session uses it: attempts that reach no server build no decoder.
    let mut prepared: Option<Prepared> = None;
    loop {
        let begun = Instant::now();
        let is_first = viewer.sessions() == 0;
        // Building a decoder takes as long as finding a server, so the two run side by side.
        let ready = async {
            tokio::try_join!(Prepared::keep_or_start(prepared.take(), &config, &viewer), finder.find(&config, &viewer))
        };
        let ready = tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            ready = ready => ready,
        };
        let failure = match ready {
            Ok((decoder, server)) => {
                viewer.set_phase(Phase::Connecting(server.label.clone()));
                viewer.set_server(server.public());
                let ended = watch(&config, &viewer, &decoder, &server, &shutdown).await;
                viewer.session_ended();
                if decoder.is_unused() {
                    prepared = Some(decoder);
                }
                match ended {
                    Ok(()) => {
                        backoff.reset();
                        None
                    }
                    Err(error) if is_first && !config.wait => return Err(Fatal::NothingFound(error.to_string())),
                    Err(error) => Some(error.to_string()),
                }
            }
            // In the middle of a dive a decoder that is busy for once is no reason to give up.
            Err(Fatal::Decoder(error)) if !is_first => Some(error.to_string()),
            Err(fatal) => return Err(fatal),
        };
        if shutdown.is_cancelled() {
            return Ok(());
        }
        if let Some(reason) = failure {
            viewer.set_phase(Phase::Lost(reason));
        }
        // A session that lasted is tried again at once, one that failed at once is not.
        let pause = backoff.next_delay().saturating_sub(begun.elapsed());
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// A decoder that waits for packets.
struct Prepared {
    decoder: Arc<Decoder>,
    requests: Arc<Requests>,
}

/// What the decoder wants of the session that feeds it now.
#[derive(Default)]
struct Requests {
    keyframe: Mutex<Option<mpsc::Sender<()>>>,
    /// Why no decoder works.
    failed: Mutex<Option<String>>,
}

impl Requests {
    fn take_event(&self, event: DecodeEvent) {
        match event {
            DecodeEvent::KeyframeNeeded { reason } => {
                tracing::debug!(reason, "asking for a keyframe");
                if let Some(wanted) = &*lock(&self.keyframe) {
                    // A request that waits already stands for this one too.
                    let _ = wanted.try_send(());
                }
            }
            DecodeEvent::Playing { decoder, resolution } => tracing::info!(decoder, %resolution, "decoding"),
            DecodeEvent::Failed { tried } => {
                let tried: Vec<String> = tried.iter().map(|(decoder, why)| format!("{decoder}: {why}")).collect();
                *lock(&self.failed) = Some(format!("no decoder works ({})", tried.join("; ")));
            }
        }
    }
}

impl Prepared {
    async fn keep_or_start(kept: Option<Self>, config: &SessionConfig, viewer: &Arc<Viewer>) -> Result<Self, Fatal> {
        if let Some(kept) = kept {
            return Ok(kept);
        }
        let decoder_config = DecoderConfig {
            // Until the server has answered.
            codec: Codec::H264,
            choice: config.decoder.clone(),
            latency: config.latency,
            payload_type: PAYLOAD_TYPE,
            output: None,
        };
        let requests = Arc::new(Requests::default());
        let (mailbox, events) = (Arc::clone(&viewer.mailbox), Arc::clone(&requests));
        let start = move || Decoder::start(decoder_config, mailbox, move |event| events.take_event(event));
        let decoder = tokio::task::spawn_blocking(start).await.context("the decoder's thread panicked")??;
        Ok(Self { decoder: Arc::new(decoder), requests })
    }

    fn is_unused(&self) -> bool {
        self.decoder.stats().packets == 0 && lock(&self.requests.failed).is_none()
    }
}

/// Watches one session until it ends; the viewer's phase then says why. An error when there was none.
async fn watch(
    config: &SessionConfig,
    viewer: &Arc<Viewer>,
    prepared: &Prepared,
    server: &Located,
    shutdown: &CancellationToken,
) -> Result<(), ConnectError> {
    let decoder = &prepared.decoder;
    viewer.set_decoder(Arc::clone(decoder));
    // One request that waits is enough; more say the same.
    let (wanted, keyframe_wanted) = mpsc::channel(1);
    *lock(&prepared.requests.keyframe) = Some(wanted);
    let arrivals = Arc::new(Arrivals::default());
    let (counted, sink) = (Arc::clone(&arrivals), Arc::clone(decoder));
    let clock = Arc::new(Clock::start());
    let packet_clock = Arc::clone(&clock);
    let on_packet = move |packet: bytes::Bytes, at: Instant| {
        counted.bytes.fetch_add(packet.len() as u64, Ordering::Relaxed);
        counted.last_us.store(packet_clock.micros(at), Ordering::Relaxed);
        sink.push(packet, at);
    };
    let decodes = Arc::clone(decoder);
    let on_codec = move |codec| decodes.set_codec(codec);
    let stun = config.stun.as_deref();
    let open = Connection::open(server.url.clone(), stun, config.latency, keyframe_wanted, on_codec, on_packet);
    let connection = tokio::select! {
        connection = open => connection?,
        () = given_up(shutdown) => return Ok(()),
    };
    viewer.session_started();
    let reason = tokio::select! {
        () = shutdown.cancelled() => None,
        reason = supervise(viewer, &connection, prepared, &arrivals, &clock, server) => Some(reason),
    };
    match reason {
        // The program ends, and with it whatever was not waited for.
        None => connection.close().await,
        Some(reason) => {
            viewer.set_phase(Phase::Lost(reason));
            // A server that is gone takes its time not to answer; the next one is looked for meanwhile.
            tokio::spawn(async move { connection.close().await });
        }
    }
    Ok(())
}

/// After the end was asked for, an attempt to connect has a moment to finish, so that the server is told.
async fn given_up(shutdown: &CancellationToken) {
    shutdown.cancelled().await;
    tokio::time::sleep(CONNECT_GRACE).await;
}

#[derive(Default)]
struct Arrivals {
    bytes: AtomicU64,
    /// When the last packet came, by the session's [`Clock`]; 0 before the first.
    last_us: AtomicU64,
}

async fn supervise(
    viewer: &Viewer,
    connection: &Connection,
    prepared: &Prepared,
    arrivals: &Arrivals,
    clock: &Clock,
    server: &Located,
) -> String {
    let begun = Instant::now();
    let mut link = connection.link();
    let mut session =
        Session { last_packet: begun, last_picture: begun, had_picture: false, ended: None, last_probe: None };
    let mut decoded = 0;
    let mut rates = Rates::new();
    let mut asking = Asking::new(server, connection);
    let mut tick = tokio::time::interval(TICK);
    let mut looked = begun;
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            changed = link.changed() => if changed.is_err() {
                return "the connection was dropped".to_owned();
            },
            (probe, encode) = asking.answered() => {
                session.last_probe = Some((Instant::now(), probe));
                rates.encode = encode;
            }
        }
        let now = Instant::now();
        if let Link::Ended(reason) = *link.borrow_and_update() {
            session.ended = Some(reason.to_owned());
        } else if connection.closed_by_server().await {
            session.ended = Some("the server closed the connection".to_owned());
        } else if let Some(reason) = lock(&prepared.requests.failed).clone() {
            session.ended = Some(reason);
        }
        // This program itself stood still (a suspended laptop): what came meanwhile still waits in the socket.
        if now.saturating_duration_since(looked) > STANDSTILL {
            session.last_packet = now;
            session.last_picture = now;
        }
        looked = now;
        session.last_packet = session.last_packet.max(clock.instant(arrivals.last_us.load(Ordering::Relaxed)));
        let stats = prepared.decoder.stats();
        if stats.frames_decoded > decoded {
            decoded = stats.frames_decoded;
            session.last_picture = now;
            session.had_picture = true;
        }
        viewer.set_reception(rates.reception(now, arrivals, stats, connection).await);
        match reconnect::advise(now, &session) {
            Advice::Live => {
                viewer.set_phase(Phase::Live);
                asking.ask_for_figures(now);
            }
            Advice::Starting => {}
            Advice::Wait { reason, probe } => {
                viewer.set_phase(Phase::Waiting(reason));
                if probe {
                    asking.ask(now);
                }
            }
            Advice::Leave(reason) => return reason,
        }
    }
}

/// Asks the server how it is, one question at a time, beside everything else.
struct Asking {
    url: Option<Url>,
    viewer_id: Option<String>,
    question: Option<JoinHandle<(Probe, Option<Duration>)>>,
    asked: Option<Instant>,
    /// The server has figures to give.
    has_figures: bool,
}

impl Asking {
    fn new(server: &Located, connection: &Connection) -> Self {
        Self {
            url: server.url.join("/api/stats").ok(),
            viewer_id: connection.viewer_id().map(str::to_owned),
            question: None,
            asked: None,
            has_figures: true,
        }
    }

    fn ask(&mut self, now: Instant) {
        if self.question.is_none() {
            self.asked = Some(now);
            self.question = Some(tokio::spawn(probe(self.url.clone(), self.viewer_id.clone())));
        }
    }

    /// For the overlay, now and then.
    fn ask_for_figures(&mut self, now: Instant) {
        if self.has_figures && self.asked.is_none_or(|at| now.saturating_duration_since(at) >= FIGURES_INTERVAL) {
            self.ask(now);
        }
    }

    /// The answer to the question that was asked; never, when none was.
    async fn answered(&mut self) -> (Probe, Option<Duration>) {
        let Some(question) = &mut self.question else { return std::future::pending().await };
        let answer = question.await.unwrap_or((Probe::Silent, None));
        self.question = None;
        self.has_figures = answer.0 != Probe::NoStatistics;
        answer
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        if let Some(question) = &self.question {
            question.abort();
        }
    }
}

/// What the server says of itself, and how long it takes from capture to encoded.
async fn probe(url: Option<Url>, viewer_id: Option<String>) -> (Probe, Option<Duration>) {
    let Some(url) = url else { return (Probe::NoStatistics, None) };
    match whep::stats(url).await {
        Ok(stats) => {
            let viewer = viewer_id.map(|id| stats.viewers.into_iter().find(|viewer| viewer.id == id));
            if let Some(None) = viewer {
                return (Probe::Unknown, None);
            }
            let stream = stats.streams.into_iter().next().unwrap_or_default();
            let encode = Duration::try_from_secs_f64(stream.encode_latency_ms / 1000.0).ok();
            let nothing_but_skipped = viewer.flatten().is_some_and(|viewer| viewer.packets == 0 && viewer.skipped > 0);
            if stream.state == StreamState::Running && nothing_but_skipped {
                return (Probe::AwaitsKeyframe, encode);
            }
            (Probe::Serving { state: stream.state, reason: stream.reason }, encode)
        }
        Err(WhepError::Closed { .. }) => (Probe::Refused, None),
        Err(WhepError::Unreachable { .. }) => (Probe::Silent, None),
        Err(WhepError::Refused { .. } | WhepError::NotWhep { .. }) => (Probe::NoStatistics, None),
    }
}

/// Rates of what arrives, over the last two seconds.
struct Rates {
    bits: RateWindow,
    packets: RateWindow,
    lost: RateWindow,
    bytes_before: u64,
    packets_before: u64,
    lost_before: u64,
    rtt: Option<Duration>,
    rtt_asked: Option<Instant>,
    encode: Option<Duration>,
}

impl Rates {
    fn new() -> Self {
        let window = || RateWindow::new(RATE_WINDOW);
        Self {
            bits: window(),
            packets: window(),
            lost: window(),
            bytes_before: 0,
            packets_before: 0,
            lost_before: 0,
            rtt: None,
            rtt_asked: None,
            encode: None,
        }
    }

    async fn reception(
        &mut self,
        now: Instant,
        arrivals: &Arrivals,
        decode: DecodeStats,
        connection: &Connection,
    ) -> Reception {
        let bytes = arrivals.bytes.load(Ordering::Relaxed);
        self.bits.add(now, (bytes - self.bytes_before) * 8);
        self.packets.add(now, decode.packets.saturating_sub(self.packets_before));
        self.lost.add(now, decode.lost.saturating_sub(self.lost_before));
        (self.bytes_before, self.packets_before, self.lost_before) = (bytes, decode.packets, decode.lost);
        if self.rtt_asked.is_none_or(|at| now.saturating_duration_since(at) >= Duration::from_secs(1)) {
            self.rtt_asked = Some(now);
            self.rtt = connection.rtt().await;
        }
        let (received, lost) = (self.packets.per_second(now), self.lost.per_second(now));
        Reception {
            bitrate_kbps: self.bits.per_second(now) / 1000.0,
            loss: if received + lost > 0.0 { lost / (received + lost) } else { 0.0 },
            rtt: self.rtt,
            encode: self.encode,
            decode,
        }
    }
}
