//! Finds a server, watches it, and finds it again: until the viewer is closed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use rov_common::api::WHEP_PATH;
use rov_common::backoff::Backoff;
use rov_common::window::RateWindow;
use thiserror::Error;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::decode::{DecodeError, DecodeEvent, Decoder, DecoderConfig};
use crate::decoders::DecoderChoice;
use crate::discovery::{self, Discovery, Found, Wanted};
use crate::receive::webrtc::{ConnectError, Connection, Link, PAYLOAD_TYPE};
use crate::reconnect::{self, Advice, Probe, Session};
use crate::viewer::{Clock, Phase, Reception, Server, Viewer};
use crate::whep::{self, WhepError};

const TICK: Duration = Duration::from_millis(100);
const RATE_WINDOW: Duration = Duration::from_secs(2);
/// Between attempts to reach a server whose address is known.
const RETRY_MIN: Duration = Duration::from_millis(200);
const RETRY_MAX: Duration = Duration::from_secs(1);

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
    loop {
        let begun = Instant::now();
        // Building a decoder takes as long as finding a server, so the two run side by side.
        let ready = async { tokio::join!(Prepared::start(&config, &viewer), finder.find(&config, &viewer)) };
        let (prepared, server) = tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            (prepared, server) = ready => (prepared?, server?),
        };
        viewer.set_phase(Phase::Connecting(server.label.clone()));
        viewer.set_server(server.public());
        let ended = watch(&config, &viewer, prepared, &server, &shutdown).await;
        viewer.session_ended();
        if shutdown.is_cancelled() {
            return Ok(());
        }
        match ended {
            Ok(reason) => {
                backoff.reset();
                viewer.set_phase(Phase::Lost(reason));
            }
            Err(error) => viewer.set_phase(Phase::Lost(error.to_string())),
        }
        // A session that lasted is tried again at once, one that failed at once is not.
        let pause = backoff.next_delay().saturating_sub(begun.elapsed());
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// A server to connect to.
#[derive(Clone, Debug)]
struct Located {
    url: Url,
    label: String,
    id: String,
    name: String,
}

impl Located {
    fn public(&self) -> Server {
        let host = self.url.host_str().unwrap_or_default();
        let address = match self.url.port_or_known_default() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        };
        Server { id: self.id.clone(), name: self.name.clone(), address }
    }
}

/// Finds the server again, by its id once that is known, as its address may change.
struct Finder {
    discovery: Option<Discovery>,
    known_id: Option<String>,
}

impl Finder {
    fn new(config: &SessionConfig) -> Result<Self, Fatal> {
        let discovery = match config.target {
            Target::Auto { .. } => Some(discovery::bind(config.discovery_port, config.interfaces.clone())?),
            Target::Url(_) => None,
        };
        Ok(Self { discovery, known_id: None })
    }

    async fn find(&mut self, config: &SessionConfig, viewer: &Viewer) -> Result<Located, Fatal> {
        let (name, discovery) = match (&config.target, &mut self.discovery) {
            (Target::Auto { name }, Some(discovery)) => (name, discovery),
            (Target::Url(url), _) => {
                return Ok(Located {
                    url: url.clone(),
                    label: url.to_string(),
                    id: String::new(),
                    name: String::new(),
                });
            }
            // `new` made one for each Auto.
            (Target::Auto { .. }, None) => return Err(anyhow::anyhow!("there is no discovery").into()),
        };
        if self.known_id.is_none() {
            viewer.set_phase(Phase::Searching("looking for a server".to_owned()));
        }
        let wanted = Wanted { id: self.known_id.clone(), name: name.clone() };
        loop {
            let found = discovery.wait_for(&wanted, config.discovery_timeout).await;
            match found.as_slice() {
                [] if !config.wait && self.known_id.is_none() => {
                    return Err(Fatal::NothingFound(nothing_found(discovery, name.as_deref(), config)));
                }
                [] => {
                    if self.known_id.is_none() {
                        viewer.set_phase(Phase::Searching(nothing_found(discovery, name.as_deref(), config)));
                    }
                }
                [one] => {
                    self.known_id = Some(one.announcement.id.clone());
                    return located(one);
                }
                several => return Err(Fatal::Ambiguous(list(several))),
            }
        }
    }
}

fn located(found: &Found) -> Result<Located, Fatal> {
    let path = if found.announcement.whep.starts_with('/') { &found.announcement.whep } else { WHEP_PATH };
    let url = Url::parse(&format!("http://{}{path}", found.address)).context("the announced address is no URL")?;
    Ok(Located {
        label: format!("{} ({})", found.announcement.name, found.address),
        url,
        id: found.announcement.id.clone(),
        name: found.announcement.name.clone(),
    })
}

fn nothing_found(discovery: &Discovery, name: Option<&str>, config: &SessionConfig) -> String {
    let what = name.map_or_else(|| "no server".to_owned(), |name| format!("no server named {name:?}"));
    format!("{what} found within {:.1} s: {}", config.discovery_timeout.as_secs_f64(), discovery.describe())
}

/// One line for each server, for people.
pub fn list(found: &[Found]) -> String {
    let line = |f: &Found| {
        let streams: Vec<String> = f
            .announcement
            .streams
            .iter()
            .map(|s| format!("{} {} {}x{} {:.0} fps", s.name, s.codec, s.width, s.height, s.fps))
            .collect();
        format!("  {}  {}  [{}]", f.announcement.name, f.address, streams.join(", "))
    };
    found.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// A decoder that waits for packets, and what it asks for.
struct Prepared {
    decoder: Arc<Decoder>,
    keyframe_wanted: mpsc::Receiver<()>,
}

impl Prepared {
    async fn start(config: &SessionConfig, viewer: &Arc<Viewer>) -> Result<Self, Fatal> {
        // One request that waits is enough; more say the same.
        let (wanted, keyframe_wanted) = mpsc::channel(1);
        let decoder_config = DecoderConfig {
            choice: config.decoder.clone(),
            latency: config.latency,
            payload_type: PAYLOAD_TYPE,
            output: None,
        };
        let mailbox = Arc::clone(&viewer.mailbox);
        let start = move || {
            Decoder::start(decoder_config, mailbox, move |event| match event {
                DecodeEvent::KeyframeNeeded { reason } => {
                    tracing::debug!(reason, "asking for a keyframe");
                    let _ = wanted.try_send(());
                }
                DecodeEvent::Playing { decoder, resolution } => {
                    tracing::info!(decoder, %resolution, "decoding");
                }
                DecodeEvent::Failed { tried } => {
                    for (decoder, reason) in tried {
                        tracing::error!(decoder, reason, "this decoder does not work");
                    }
                }
            })
        };
        let decoder = tokio::task::spawn_blocking(start).await.context("the decoder's thread panicked")??;
        Ok(Self { decoder: Arc::new(decoder), keyframe_wanted })
    }
}

/// Watches one session; returns why it ended.
async fn watch(
    config: &SessionConfig,
    viewer: &Arc<Viewer>,
    prepared: Prepared,
    server: &Located,
    shutdown: &CancellationToken,
) -> Result<String, ConnectError> {
    let Prepared { decoder, keyframe_wanted } = prepared;
    viewer.set_decoder(Arc::clone(&decoder));
    let arrivals = Arc::new(Arrivals::default());
    let (counted, sink) = (Arc::clone(&arrivals), Arc::clone(&decoder));
    let clock = Arc::new(Clock::start());
    let packet_clock = Arc::clone(&clock);
    let on_packet = move |packet: bytes::Bytes, at: Instant| {
        counted.bytes.fetch_add(packet.len() as u64, Ordering::Relaxed);
        counted.last_us.store(packet_clock.micros(at), Ordering::Relaxed);
        sink.push(packet, at);
    };
    let connection = Connection::open(server.url.clone(), config.stun.as_deref(), keyframe_wanted, on_packet).await?;
    viewer.session_started();
    // The connection is closed however this ends: the server shall know at once.
    let reason = tokio::select! {
        () = shutdown.cancelled() => "closed".to_owned(),
        reason = supervise(viewer, &connection, &decoder, &arrivals, &clock, server) => reason,
    };
    connection.close().await;
    Ok(reason)
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
    decoder: &Decoder,
    arrivals: &Arrivals,
    clock: &Clock,
    server: &Located,
) -> String {
    let mut link = connection.link();
    let mut session = Session { last_media: Instant::now(), ended: None, last_probe: None };
    let mut rates = Rates::new();
    let mut tick = tokio::time::interval(TICK);
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            changed = link.changed() => if changed.is_err() {
                return "the connection was dropped".to_owned();
            },
        }
        let now = Instant::now();
        if let Link::Ended(reason) = *link.borrow_and_update() {
            session.ended = Some(reason.to_owned());
        } else if connection.closed_by_server().await {
            session.ended = Some("the server closed the connection".to_owned());
        }
        session.last_media = session.last_media.max(clock.instant(arrivals.last_us.load(Ordering::Relaxed)));
        viewer.set_reception(rates.reception(now, arrivals, decoder, connection).await);
        match reconnect::advise(now, &session) {
            // Only a picture makes it live: packets that cannot be decoded do not.
            Advice::Keep if decoder.stats().frames_decoded > 0 => viewer.set_phase(Phase::Live),
            Advice::Keep => {}
            Advice::Wait(reason) => viewer.set_phase(Phase::Waiting(reason)),
            Advice::Probe => session.last_probe = Some((Instant::now(), probe(server, connection).await)),
            Advice::Leave(reason) => return reason,
        }
    }
}

async fn probe(server: &Located, connection: &Connection) -> Probe {
    let Ok(url) = server.url.join("/api/stats") else { return Probe::NoStatistics };
    match whep::stats(url).await {
        Ok(stats) => match connection.viewer_id() {
            Some(id) if !stats.viewers.iter().any(|v| v.id == id) => Probe::Unknown,
            _ => {
                let stream = stats.streams.into_iter().next().unwrap_or_default();
                Probe::Serving { state: stream.state, reason: stream.reason }
            }
        },
        Err(WhepError::Closed { .. }) => Probe::Refused,
        Err(WhepError::Unreachable { .. }) => Probe::Silent,
        Err(WhepError::Refused { .. } | WhepError::NotWhep { .. }) => Probe::NoStatistics,
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
        }
    }

    async fn reception(
        &mut self,
        now: Instant,
        arrivals: &Arrivals,
        decoder: &Decoder,
        connection: &Connection,
    ) -> Reception {
        let decode = decoder.stats();
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
            decode,
        }
    }
}
