//! The connections of the HTTP API: how many there are, and how long each may keep the server waiting.
//!
//! Nobody is locked out by those who came before. When all places are taken, a new connection gets the place of
//! another: of the address that has most of them, the one that has been silent the longest. So a thousand connections
//! that never ask anything push out each other, and no limit for one address is needed, which would hurt viewers behind
//! a proxy.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::ConnectInfo;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rov_common::net;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::Sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::tls::Tls;
use super::{Arrival, Limits};

/// A quarter of the 1024 open files that are the common limit of a process.
const MAX_CONNECTIONS: usize = 256;
/// Where a process may have fewer files open, of these: the camera and the other outputs need some, too.
const SHARE_OF_FILES: u64 = 4;
const MIN_CONNECTIONS: usize = 8;
/// Request line and header fields together; more is refused with 431. Browsers send less than one kilobyte.
const HEADER_LIMIT: usize = 32 << 10;
/// Bytes of an answer that the kernel holds unsent. By itself it would take some megabytes, in which the pictures for a
/// viewer with a slow network grow old.
#[cfg(target_os = "linux")]
const UNSENT_LIMIT: u32 = 16 << 10;
/// After an error of `accept`, as too many open files: whoever waits is served when there is room again.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Between two messages about such errors.
const ACCEPT_REPORT: Duration = Duration::from_secs(10);

/// Serves `app` until `shutdown`, and then until the requests under way are answered.
pub(super) async fn serve(
    listener: TcpListener,
    app: Router,
    tls: Option<(Tls, Router)>,
    limits: Limits,
    shutdown: CancellationToken,
) {
    let tasks = TaskTracker::new();
    let mut places = Places { started: Instant::now(), taken: Vec::new() };
    let mut reported: Option<Instant> = None;
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            // The trouble of one that wanted to connect.
            Err(error) if is_of_peer(&error) => continue,
            Err(error) => {
                if reported.is_none_or(|at| at.elapsed() > ACCEPT_REPORT) {
                    tracing::warn!(%error, "cannot take HTTP connections, trying again ten times a second");
                    reported = Some(Instant::now());
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        places.make_room().await;
        let activity = Arc::new(Activity {
            started: places.started,
            last_ms: AtomicU64::new(0),
            is_patient: AtomicBool::new(false),
        });
        activity.note();
        let io = Io { stream, activity: Arc::clone(&activity), limits, stalled: None };
        let task = tasks.spawn(connection(io, peer.ip(), app.clone(), tls.clone(), limits.header, shutdown.clone()));
        places.taken.push(Place { peer: peer.ip(), activity, task });
    }
    drop(listener);
    tasks.close();
    tasks.wait().await;
}

fn is_of_peer(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

/// One connection, to its end.
async fn connection(
    io: Io,
    peer: IpAddr,
    app: Router,
    tls: Option<(Tls, Router)>,
    header_limit: Duration,
    shutdown: CancellationToken,
) {
    // Answers are small and whole: nothing is gained by waiting for more.
    if let Err(error) = io.stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY");
    }
    #[cfg(target_os = "linux")]
    if let Err(error) = socket2::SockRef::from(&io.stream).set_tcp_notsent_lowat(UNSENT_LIMIT) {
        tracing::debug!(%error, "TCP_NOTSENT_LOWAT");
    }
    let arrival = Arrival { peer, local: io.stream.local_addr().ok() };
    let of = (arrival, Patience(Arc::clone(&io.activity)));
    let Some((tls, in_clear)) = tls else { return talk(io, of, app, header_limit, shutdown).await };
    match Tls::is_wanted(&io.stream, header_limit).await {
        Some(true) => {
            if let Some(io) = tls.accept(io, header_limit).await {
                talk(io, of, app, header_limit, shutdown).await;
            }
        }
        Some(false) => talk(io, of, in_clear, header_limit, shutdown).await,
        None => {}
    }
}

/// Its requests, by TLS or in clear.
async fn talk(
    io: impl AsyncRead + AsyncWrite + Unpin,
    (arrival, patience): (Arrival, Patience),
    app: Router,
    header_limit: Duration,
    shutdown: CancellationToken,
) {
    let app = TowerToHyperService::new(app);
    let service = service_fn(move |mut request: hyper::Request<hyper::body::Incoming>| {
        request.extensions_mut().insert(ConnectInfo(arrival));
        // Of the answer before.
        patience.set(false);
        request.extensions_mut().insert(patience.clone());
        app.call(request)
    });
    let mut connection = std::pin::pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(header_limit)
            .max_buf_size(HEADER_LIMIT)
            // Old recorders, as libonvif, know Content-Length by no other case.
            .title_case_headers(true)
            .serve_connection(TokioIo::new(io), service)
    );
    let served = tokio::select! {
        served = connection.as_mut() => served,
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = served {
        tracing::debug!(%error, "an HTTP connection has ended");
    }
}

/// How many connections there may be, in a process that may have so many files open.
fn most(files: Option<u64>) -> usize {
    let share = files.map_or(MAX_CONNECTIONS, |files| usize::try_from(files / SHARE_OF_FILES).unwrap_or(usize::MAX));
    share.clamp(MIN_CONNECTIONS, MAX_CONNECTIONS)
}

/// The connections that there are, at most [`most`].
struct Places {
    started: Instant,
    taken: Vec<Place>,
}

struct Place {
    peer: IpAddr,
    activity: Arc<Activity>,
    task: JoinHandle<()>,
}

impl Places {
    /// Ends the connection that is missed least, when there are too many.
    async fn make_room(&mut self) {
        self.taken.retain(|place| !place.task.is_finished());
        if self.taken.len() < most(net::open_files_limit()) {
            return;
        }
        let peers: Vec<_> = self.taken.iter().map(|place| (place.peer, place.activity.last())).collect();
        if let Some(index) = least_missed(&peers) {
            let place = self.taken.swap_remove(index);
            tracing::debug!(peer = %place.peer, "an HTTP connection gives its place to a new one");
            place.task.abort();
            // Until its socket is closed it counts.
            let _ = place.task.await;
        }
    }
}

/// Which of the connections, given by their address and last activity, gives way to a new one.
fn least_missed(connections: &[(IpAddr, u64)]) -> Option<usize> {
    let mut counts = HashMap::<IpAddr, usize>::new();
    for (peer, _) in connections {
        *counts.entry(*peer).or_default() += 1;
    }
    let most = counts.values().copied().max()?;
    let candidates = connections.iter().enumerate().filter(|(_, (peer, _))| counts[peer] == most);
    candidates.min_by_key(|(_, (_, last))| *last).map(|(index, _)| index)
}

/// When something last came in on a connection, or went out.
struct Activity {
    started: Instant,
    /// Milliseconds since `started`.
    last_ms: AtomicU64,
    /// The peer has longer to take some of the answer.
    is_patient: AtomicBool,
}

/// How long the peer may take nothing of the answer to this request.
#[derive(Clone)]
pub(super) struct Patience(Arc<Activity>);

impl Patience {
    /// `Limits::held`.
    pub(super) fn have(&self) {
        self.set(true);
    }

    fn set(&self, is_patient: bool) {
        self.0.is_patient.store(is_patient, Ordering::Relaxed);
    }
}

impl Activity {
    fn note(&self) {
        self.last_ms.store(self.started.elapsed().as_millis() as u64, Ordering::Relaxed);
    }

    fn last(&self) -> u64 {
        self.last_ms.load(Ordering::Relaxed)
    }
}

/// A TCP stream that notes its activity, and fails when the peer takes nothing for too long.
struct Io {
    stream: TcpStream,
    activity: Arc<Activity>,
    limits: Limits,
    /// Runs out while a write waits.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl Io {
    fn after_write(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if written.is_ready() {
            self.stalled = None;
            self.activity.note();
            return written;
        }
        let is_patient = self.activity.is_patient.load(Ordering::Relaxed);
        let limit = if is_patient { self.limits.held } else { self.limits.write };
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        ready!(stalled.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the peer takes nothing of the answer")))
    }
}

impl AsyncRead for Io {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if read.is_ready() {
            self.activity.note();
        }
        read
    }
}

impl AsyncWrite for Io {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, data);
        self.after_write(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, data);
        self.after_write(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    fn peer(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    #[test]
    fn the_address_with_most_connections_gives_the_one_that_was_silent_the_longest() {
        let connections = [(peer(1), 1), (peer(2), 9), (peer(2), 5), (peer(2), 7), (peer(1), 2)];
        assert_eq!(least_missed(&connections), Some(2));
    }

    /// To a peer that reads nothing, until that fails.
    async fn send_to_a_deaf_peer(is_patient: bool) -> io::Error {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let (deaf, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
        let (_deaf, (stream, _)) = (deaf.expect("a connection"), accepted.expect("a connection"));
        let activity =
            Activity { started: Instant::now(), last_ms: AtomicU64::new(0), is_patient: AtomicBool::new(is_patient) };
        let limits = Limits { write: Duration::ZERO, held: Duration::from_secs(3600), ..Limits::default() };
        let mut io = Io { stream, activity: Arc::new(activity), limits, stalled: None };
        loop {
            if let Err(error) = io.write_all(&[0; 64 << 10]).await {
                return error;
            }
        }
    }

    #[tokio::test]
    async fn pictures_that_an_answer_holds_wait_for_a_link_that_is_down_and_other_answers_do_not() {
        assert_eq!(send_to_a_deaf_peer(false).await.kind(), io::ErrorKind::TimedOut);
        let waited = tokio::time::timeout(Duration::from_millis(300), send_to_a_deaf_peer(true)).await;
        assert!(waited.is_err(), "{waited:?}");
    }

    #[test]
    fn a_process_that_may_open_few_files_has_few_connections() {
        assert_eq!([None, Some(u64::MAX), Some(1024)].map(most), [256; 3]);
        assert_eq!([Some(400), Some(0)].map(most), [100, 8]);
    }

    #[test]
    fn among_equals_the_longest_silence_decides() {
        assert_eq!(least_missed(&[(peer(1), 3), (peer(2), 2), (peer(3), 4)]), Some(1));
        assert_eq!(least_missed(&[]), None);
    }
}
