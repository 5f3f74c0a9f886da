//! The WebRTC output: the handle by which the HTTP API reaches the media thread.

mod addresses;
mod channel;
pub mod engine;
mod estimate;
mod feedback;
mod history;
mod liveness;
pub mod offer;
mod session;
mod share;
mod stun;
mod thinning;
mod thread;

use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};
use rov_common::api::{PictureTime, Stats, ViewerStats};
use rov_common::discovery::Announcement;
use rov_common::media_socket::{self, MediaSocket};
use rov_common::sync::lock;
use thiserror::Error;
use tokio::sync::{oneshot, watch};

pub use self::channel::Values;
use self::feedback::Pictures;
pub use engine::{AcceptError, CandidateError, Engine};
pub use offer::{Fragment, OfferError};

use super::{Given, Output};
use crate::events::{self, Events};
use crate::identity::Identity;
use crate::progress::{Beat, HANGS_AFTER};
use crate::stream::Streams;

/// Requests of the HTTP API that wait for the media thread; one more is refused with [`Busy`].
const COMMAND_CAPACITY: usize = 64;
/// The media thread answers in microseconds; past this it is stuck.
const REPLY_TIMEOUT: Duration = Duration::from_secs(2);

#[derive(Debug, Error)]
#[error("the media thread does not answer: too many requests at once, or the server is stopping")]
pub struct Busy;

/// Binds the socket that all viewers share to `host` and `port`, 0 meaning any.
fn bind(host: IpAddr, port: u16) -> Result<MediaSocket> {
    let address = SocketAddr::new(host, port);
    let (socket, short) = media_socket::open(address).with_context(|| {
        format!("cannot bind UDP {address} for media: choose another port with --media-port (0: any)")
    })?;
    for short in short {
        tracing::warn!("{short}");
    }
    MediaSocket::new(socket).context("cannot set up the media socket")
}

/// The new viewer's name and the answer to its offer.
#[derive(Clone, Debug)]
pub struct Accepted {
    /// A secret of the viewer.
    pub id: String,
    pub sdp: String,
    pub entity_tag: String,
}

impl Accepted {
    fn new(id: String, sdp: String) -> Self {
        let entity_tag = engine::entity_tag(offer::value(&sdp, "a=ice-ufrag:"));
        Self { id, sdp, entity_tag }
    }
}

/// The answer to an ICE restart: a fragment (RFC 8840) and the new entity tag.
#[derive(Clone, Debug)]
pub struct Restarted {
    pub sdp_fragment: String,
    pub entity_tag: String,
}

impl Restarted {
    fn new(answer: &str) -> Self {
        let entity_tag = engine::entity_tag(offer::value(answer, "a=ice-ufrag:"));
        Self { sdp_fragment: offer::answer_fragment(answer), entity_tag }
    }
}

enum Command {
    Offer {
        stream: usize,
        sdp: String,
        from: IpAddr,
        arrived_at: IpAddr,
        asked: Option<Ipv4Addr>,
        reply: oneshot::Sender<Result<Accepted, AcceptError>>,
    },
    Patch {
        id: String,
        tag: String,
        fragment: Fragment,
        reply: oneshot::Sender<Result<Option<Restarted>, CandidateError>>,
    },
    Close {
        id: String,
        reply: oneshot::Sender<bool>,
    },
    Stats {
        reply: oneshot::Sender<WebRtcStats>,
    },
    Shutdown,
}

/// Who watches by WebRTC, and what they were sent.
#[derive(Debug, Default)]
pub struct WebRtcStats {
    pub viewers: Vec<ViewerStats>,
    /// Of each stream: bytes of video, those to viewers who have gone as well.
    pub sent: Vec<u64>,
}

impl WebRtcStats {
    pub fn tell(self, stats: &mut Stats) {
        for (stream, sent) in stats.streams.iter_mut().zip(self.sent) {
            let watches = |viewer: &&ViewerStats| viewer.stream == stream.name && viewer.connected_s > 0.0;
            stream.client_count += self.viewers.iter().filter(watches).count() as u64;
            stream.total_bytes_streamed += sent;
        }
        stats.viewers = self.viewers;
    }
}

/// By which addresses viewers may reach the media socket, and who they find there.
#[derive(Debug, Default)]
pub struct Paths {
    /// Empty: every suitable one.
    pub interfaces: Vec<String>,
    /// Outside of a NAT; port 0: that of the socket.
    pub public: Vec<SocketAddrV4>,
    /// The address of a STUN server for viewers behind a NAT, once it is known.
    pub stun: Option<watch::Receiver<Option<SocketAddr>>>,
    /// None: each session has a certificate of its own.
    pub identity: Option<Identity>,
}

/// Dropping it ends the thread and closes every viewer.
pub struct WebRtcOutput {
    commands: SyncSender<Command>,
    waker: Arc<mio::Waker>,
    thread: Mutex<Option<JoinHandle<()>>>,
    local: SocketAddr,
    beat: Arc<Beat>,
    viewers: Arc<AtomicUsize>,
    pictures: Pictures,
    values: Option<Arc<Values>>,
}

impl WebRtcOutput {
    /// One for all streams. To be called where tokio runs.
    pub(super) fn of(given: &Given) -> Result<Option<Arc<Self>>> {
        let Given { config, streams, .. } = given;
        if !config.webrtc {
            return Ok(None);
        }
        let socket = bind(config.host, config.media_port)?;
        let paths = Paths {
            interfaces: config.interfaces.clone(),
            public: config.public_addresses.clone(),
            stun: config.stun.as_deref().map(stun::resolve),
            identity: Some(given.identity.clone()),
        };
        let floors = config.streams().map(|(_, config)| config.adaptive_floor);
        let encodes = streams.iter().zip(floors).map(|(stream, floor)| (stream.name(), stream.codec(), floor));
        let engine = Engine::new(encodes, config.max_viewers.into(), Arc::clone(given.pilots))
            .with_tether(config.tether, Arc::clone(given.takers))
            .with_values(config.telemetry.is_on().then(Arc::default));
        Ok(Some(Arc::new(Self::start(streams, socket, paths, engine).context("WebRTC")?)))
    }

    /// Starts the media thread on `socket`; `engine` is for these streams.
    pub fn start(streams: &Streams, socket: MediaSocket, paths: Paths, engine: Engine) -> Result<Self> {
        let local = socket.local_addr();
        let (pictures, values) = (engine.pictures(), engine.values());
        let (commands, requests) = sync_channel(COMMAND_CAPACITY);
        let (mut media, waker) = thread::MediaThread::new(streams, socket, paths, engine, requests)
            .context("cannot prepare the media thread")?;
        let (beat, viewers) = (Arc::clone(&media.beat), Arc::clone(&media.viewers));
        let thread = std::thread::Builder::new()
            .name("webrtc-media".to_owned())
            .spawn(move || media.run())
            .context("cannot start the media thread")?;
        Ok(Self { commands, waker, thread: Mutex::new(Some(thread)), local, beat, viewers, pictures, values })
    }

    /// Answers a viewer's SDP offer for the stream at this place of the catalogue. It arrived by HTTP `from` there at
    /// the local address `arrived_at`; the viewer knows it as `asked`.
    pub async fn offer(
        &self,
        stream: usize,
        sdp: String,
        from: IpAddr,
        arrived_at: IpAddr,
        asked: Option<Ipv4Addr>,
    ) -> Result<Result<Accepted, AcceptError>, Busy> {
        self.ask(|reply| Command::Offer { stream, sdp, from, arrived_at, asked, reply }).await
    }

    /// Trickled candidates, or an ICE restart, which has an answer; `tag` is the entity tag that the viewer knows, or
    /// `*`.
    pub async fn patch(
        &self,
        id: String,
        tag: String,
        fragment: Fragment,
    ) -> Result<Result<Option<Restarted>, CandidateError>, Busy> {
        self.ask(|reply| Command::Patch { id, tag, fragment, reply }).await
    }

    /// False when there is no such viewer.
    pub async fn close(&self, id: String) -> Result<bool, Busy> {
        self.ask(|reply| Command::Close { id, reply }).await
    }

    /// What others tell by [`Output::tell`]: the media thread is asked.
    pub async fn stats(&self) -> Result<WebRtcStats, Busy> {
        self.ask(|reply| Command::Stats { reply }).await
    }

    /// Gives viewers the values of telemetry by their data channels, until the end.
    pub fn tell_values(&self, events: &Events) -> impl Future<Output = ()> + use<> {
        let (values, waker) = (self.values.clone(), Arc::clone(&self.waker));
        let (events, mut told) = (events.clone(), events.values());
        async move {
            let Some(values) = values else { return };
            loop {
                tokio::select! {
                    () = events.stopped() => return,
                    changed = told.changed() => if changed.is_err() { return },
                }
                let newest = told.borrow_and_update().as_deref().map(events::json);
                // Where nobody takes them, the media thread has something better to do.
                if newest.is_some_and(|newest| values.tell(newest))
                    && let Err(error) = waker.wake()
                {
                    tracing::error!(%error, "cannot wake the media thread");
                }
            }
        }
    }

    /// The picture that was sent last to the viewer of this public name. Without asking the media thread.
    pub fn sent(&self, viewer: &str) -> Option<PictureTime> {
        self.pictures.sent(viewer)
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Result<T, Busy> {
        let (reply, answer) = oneshot::channel();
        self.commands.try_send(command(reply)).map_err(|_| Busy)?;
        self.waker.wake().map_err(|_| Busy)?;
        tokio::time::timeout(REPLY_TIMEOUT, answer).await.map_err(|_| Busy)?.map_err(|_| Busy)
    }
}

impl Output for WebRtcOutput {
    fn name(&self) -> &'static str {
        "WebRTC"
    }

    /// All viewers share one UDP socket.
    fn place(&self, here: IpAddr) -> Option<String> {
        Some(format!("WebRTC media on UDP {here}:{}", self.local.port()))
    }

    fn announce(&self, announcement: &mut Announcement) {
        announcement.transports.push("webrtc".to_owned());
    }

    fn beat(&self) -> Option<(&Arc<Beat>, Duration)> {
        Some((&self.beat, HANGS_AFTER))
    }

    /// Without asking the media thread.
    fn viewers(&self) -> u64 {
        self.viewers.load(Ordering::Relaxed) as u64
    }

    fn has_died(&self) -> bool {
        lock(&self.thread).as_ref().is_some_and(JoinHandle::is_finished)
    }

    /// By DTLS; blocks for milliseconds.
    fn shutdown(&self) {
        let Some(thread) = lock(&self.thread).take() else { return };
        if let Err(TrySendError::Full(command)) = self.commands.try_send(Command::Shutdown) {
            // The thread drains its commands at each turn, so there is room at once unless it has died.
            let _ = self.commands.send(command);
        }
        let _ = self.waker.wake();
        if thread.join().is_err() {
            tracing::error!("the media thread had panicked");
        }
    }
}

impl Drop for WebRtcOutput {
    fn drop(&mut self) {
        self.shutdown();
    }
}
