//! Receiving by WebRTC, on the sans-I/O core `rtc`: negotiation here, the connection in `engine`, its thread in
//! `thread`. These are the only modules that import it.

mod engine;
mod nack;
mod thread;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::{Duration, Instant};

use rov_common::codec::Codec;
use rov_common::discovery::key_of;
use rov_common::media_socket::{self, MediaSocket};
use rov_common::net::{self, grow_buffers};
pub use rtc::shared::error::Error;
use rtc::stun::message::{BINDING_REQUEST, Getter, Message, TransactionId};
use rtc::stun::xoraddr::XorMappedAddress;
use socket2::SockRef;
use tokio::net::UdpSocket;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use url::Url;

use self::engine::{End, Engine, State};
use self::thread::{MediaThread, Request};
use super::{ConnectError, OnPackets};
use crate::whep::{self, Answer, Http};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The thread answers in microseconds; past this it is stuck.
const REPLY_TIMEOUT: Duration = Duration::from_secs(1);
/// Requests that wait for the thread; one more is left out.
const REQUESTS: usize = 8;
/// For a STUN server to answer, and until it is asked again, twice as long each time (RFC 8489 section 6.2.1).
const STUN_TIMEOUT: Duration = Duration::from_secs(3);
const STUN_REPEAT: Duration = Duration::from_millis(500);
const STUN_PORT: u16 = 3478;
/// Of the server; more are ignored, as the server does with a viewer's.
const MAX_CANDIDATES: usize = 64;

/// With whom, and how.
#[derive(Clone, Debug, Default)]
pub struct Terms<'a> {
    /// That the server's certificate has to have.
    pub key: Option<&'a str>,
    pub stun: Option<&'a str>,
    pub http: Http,
}

/// A WebRTC session with a server. End it by [`Connection::close`]; dropped, it ends too, but nobody waits for it.
pub struct Connection {
    answer: Answer,
    key: Option<String>,
    http: Http,
    requests: SyncSender<Request>,
    waker: Arc<mio::Waker>,
    link: watch::Receiver<State>,
    keyframes: JoinHandle<()>,
}

impl Connection {
    /// Offers to the WHEP endpoint `url` and waits until media can flow. Packets that are missing are asked for again
    /// during `latency`. `on_codec` gets what the server chose to send, before the first packet. `on_packets` gets the
    /// RTP packets on the connection's own thread. For each message in `keyframe_wanted` the server is asked for a
    /// keyframe.
    pub async fn open(
        url: Url,
        terms: Terms<'_>,
        latency: Duration,
        keyframe_wanted: mpsc::Receiver<()>,
        on_codec: impl FnOnce(Codec),
        on_packets: OnPackets,
    ) -> Result<Self, ConnectError> {
        let host = url.host_str().unwrap_or_default().to_owned();
        let no_route = |source| ConnectError::NoRoute { host: host.clone(), source };
        let Terms { key, stun, http } = terms;
        let socket = open_socket(&url, &http.interfaces).await.map_err(no_route)?;
        let local = socket.local_addr().map_err(no_route)?;
        let (socket, reflexive) = match stun {
            Some(server) => seen_from_outside(socket, server).await.map_err(no_route)?,
            None => (socket, None),
        };
        let (mut engine, offer) = Engine::new(Instant::now(), local, reflexive, latency)?;
        let mut answer = whep::offer(url, offer, &http).await?;
        let certified = certified(&answer.sdp);
        if key.is_some() && certified.as_deref() != key {
            hang_up(&answer, &http).await;
            return Err(ConnectError::NotProven { host });
        }
        answer.sdp = with_few_candidates(&answer.sdp);
        on_codec(answered_codec(&answer.sdp));
        let started = engine.answered(Instant::now(), answer.sdp.clone()).map_err(ConnectError::from).and_then(|()| {
            let socket = MediaSocket::new(socket).map_err(no_route)?;
            start(socket, engine, keyframe_wanted, on_packets).map_err(no_route)
        });
        let (requests, waker, mut link, keyframes) = match started {
            Ok(started) => started,
            Err(error) => {
                hang_up(&answer, &http).await;
                return Err(error);
            }
        };
        let connection = Self { answer, key: certified, http, requests, waker, link: link.clone(), keyframes };
        let connected = tokio::time::timeout(CONNECT_TIMEOUT, link.wait_for(|state| *state != State::Connecting)).await;
        if !connected.is_ok_and(|state| state.is_ok_and(|state| *state == State::Connected)) {
            connection.close().await;
            return Err(ConnectError::NoPath { host });
        }
        Ok(connection)
    }

    /// Waits for its end, and gives the reason. Safe to cancel.
    pub async fn ended(&self) -> String {
        let mut link = self.link.clone();
        match link.wait_for(|state| matches!(state, State::Ended(_))).await.as_deref() {
            Ok(State::Ended(end)) => end.to_string(),
            // Its thread panicked.
            _ => "the connection was dropped".to_owned(),
        }
    }

    /// Whether the server said goodbye, by a DTLS close_notify.
    pub fn closed_by_server(&self) -> bool {
        *self.link.borrow() == State::Ended(End::ClosedByServer)
    }

    /// The server's name for this viewer, when it gave one.
    pub fn viewer_id(&self) -> Option<&str> {
        self.answer.viewer_id()
    }

    /// That of the server's certificate, which DTLS has proven.
    pub fn key(&self) -> Option<&str> {
        self.key.as_deref()
    }

    /// The round trip to the server, measured by ICE.
    pub async fn rtt(&self) -> Option<Duration> {
        let (reply, answer) = oneshot::channel();
        ask(&self.requests, &self.waker, Request::Rtt(reply));
        tokio::time::timeout(REPLY_TIMEOUT, answer).await.ok()?.ok()?
    }

    /// Ends the session and tells the server.
    pub async fn close(&self) {
        ask(&self.requests, &self.waker, Request::Close);
        if tokio::time::timeout(REPLY_TIMEOUT, self.ended()).await.is_err() {
            tracing::warn!("closing the connection took longer than a second");
        }
        hang_up(&self.answer, &self.http).await;
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.keyframes.abort();
        ask(&self.requests, &self.waker, Request::Close);
    }
}

/// A thread that has ended hears nothing, which is fine.
fn ask(requests: &SyncSender<Request>, waker: &mio::Waker, request: Request) {
    if requests.try_send(request).is_ok()
        && let Err(error) = waker.wake()
    {
        tracing::error!(%error, "cannot wake the connection's thread");
    }
}

type Started = (SyncSender<Request>, Arc<mio::Waker>, watch::Receiver<State>, JoinHandle<()>);

/// Starts the thread, and the task that brings it the wishes for keyframes.
fn start(
    socket: MediaSocket,
    engine: Engine,
    mut keyframe_wanted: mpsc::Receiver<()>,
    on_packets: OnPackets,
) -> io::Result<Started> {
    let (requests, inbox) = sync_channel(REQUESTS);
    let (link_tx, link) = watch::channel(State::Connecting);
    let (thread, waker) = MediaThread::new(socket, engine, inbox, link_tx, on_packets)?;
    std::thread::Builder::new().name("webrtc-media".to_owned()).spawn(move || thread.run())?;
    let (wishes, wakes) = (requests.clone(), Arc::clone(&waker));
    let keyframes = tokio::spawn(async move {
        while keyframe_wanted.recv().await.is_some() {
            ask(&wishes, &wakes, Request::Keyframe);
        }
    });
    Ok((requests, waker, link, keyframes))
}

/// The server shall not keep a session that nobody has.
async fn hang_up(answer: &Answer, http: &Http) {
    if let Err(error) = whep::delete(answer, http).await {
        tracing::debug!(%error, "the session was not deleted");
    }
}

/// The key of the only certificate that the answer names: DTLS then proves that the server has it.
fn certified(sdp: &str) -> Option<String> {
    let fingerprints = sdp.lines().filter_map(|line| line.strip_prefix("a=fingerprint:"));
    let mut keys = fingerprints.map(|fingerprint| match fingerprint.split_once(' ') {
        Some((hash, value)) if hash.eq_ignore_ascii_case("sha-256") => key_of(value.trim()),
        _ => None,
    });
    let first = keys.next()??;
    keys.all(|key| key.as_ref() == Some(&first)).then_some(first)
}

/// The answer without the candidates beyond the first [`MAX_CANDIDATES`]: the core looks at each with each other one.
fn with_few_candidates(sdp: &str) -> String {
    let mut candidates = 0;
    let kept = sdp.split_inclusive('\n').filter(|line| {
        candidates += usize::from(line.starts_with("a=candidate:"));
        candidates <= MAX_CANDIDATES || !line.starts_with("a=candidate:")
    });
    kept.collect()
}

/// What the answer says that is sent: the codec of the first payload type of its video (RFC 3264 section 6.1). What
/// says nothing of H.265 is H.264.
pub fn answered_codec(sdp: &str) -> Codec {
    let video = sdp.lines().find_map(|line| line.strip_prefix("m=video "));
    let first = video.and_then(|video| video.split_whitespace().nth(2));
    let is_h265 = first.is_some_and(|payload_type| {
        let names = sdp.lines().filter_map(|line| line.strip_prefix("a=rtpmap:")?.split_once(' '));
        names.into_iter().any(|(number, name)| number == payload_type && name.to_ascii_uppercase().starts_with("H265/"))
    });
    if is_h265 { Codec::H265 } else { Codec::H264 }
}

/// A socket at the address of this machine from which the server of `url` is reached, by one of `interfaces` if there
/// are any. Nothing is sent for it.
async fn open_socket(url: &Url, interfaces: &[String]) -> io::Result<std::net::UdpSocket> {
    let host = url.host_str().ok_or_else(|| io::Error::other("the URL names no host"))?;
    let port = url.port_or_known_default().unwrap_or(80);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let server = tokio::net::lookup_host((host, port))
        .await?
        .find(SocketAddr::is_ipv4)
        .ok_or_else(|| io::Error::other("it has no IPv4 address"))?;
    // What the system does not grant to it was said at the start.
    if let Some(interface) = net::interface_to(interfaces, server.ip())? {
        return Ok(media_socket::open_by(&interface, server.ip())?.0);
    }
    let probe = tokio::net::UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await?;
    probe.connect(server).await?;
    Ok(media_socket::open(SocketAddr::new(probe.local_addr()?.ip(), 0))?.0)
}

/// How a STUN server sees `socket` (RFC 8489), for servers outside the LAN. Without an answer there is no such address.
async fn seen_from_outside(
    socket: std::net::UdpSocket,
    url: &str,
) -> io::Result<(std::net::UdpSocket, Option<SocketAddr>)> {
    let socket = UdpSocket::from_std(socket)?;
    let asked = tokio::time::timeout(STUN_TIMEOUT, ask_stun(&socket, url)).await;
    let reflexive = asked.unwrap_or_else(|_| Err(io::Error::other("no answer within 3 s")));
    if let Err(error) = &reflexive {
        tracing::warn!(server = url, %error, "the STUN server does not help: going on without it");
    }
    Ok((socket.into_std()?, reflexive.ok()))
}

async fn ask_stun(socket: &UdpSocket, url: &str) -> io::Result<SocketAddr> {
    let server = url.trim_start_matches("stun:");
    let server = if server.contains(':') { server.to_owned() } else { format!("{server}:{STUN_PORT}") };
    let mut addresses = tokio::net::lookup_host(server).await?;
    let server = addresses.find(SocketAddr::is_ipv4).ok_or_else(|| io::Error::other("it has no IPv4 address"))?;
    let mut request = Message::new();
    let transaction = TransactionId::new();
    request.build(&[Box::new(transaction), Box::new(BINDING_REQUEST)]).map_err(io::Error::other)?;
    let mut wait = STUN_REPEAT;
    loop {
        socket.send_to(&request.raw, server).await?;
        match tokio::time::timeout(wait, mapped(socket, server, transaction)).await {
            Ok(mapped) => return mapped,
            Err(_) => wait *= 2,
        }
    }
}

/// Waits for the answer to a request.
async fn mapped(socket: &UdpSocket, server: SocketAddr, transaction: TransactionId) -> io::Result<SocketAddr> {
    let mut datagram = [0; 1500];
    loop {
        let (len, peer) = socket.recv_from(&mut datagram).await?;
        let mut message = Message::new();
        if peer != server
            || message.unmarshal_binary(&datagram[..len]).is_err()
            || message.transaction_id != transaction
        {
            continue;
        }
        let mut mapped = XorMappedAddress::default();
        mapped.get_from(&message).map_err(io::Error::other)?;
        return Ok(SocketAddr::new(mapped.ip, mapped.port));
    }
}

/// Warns once, at the start, when the system does not grant the socket buffers that high bit rates need.
pub fn check_socket_buffers() {
    let Ok(socket) = std::net::UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)) else { return };
    for short in grow_buffers(&SockRef::from(&socket)) {
        tracing::warn!("{short}");
    }
}

#[cfg(test)]
mod tests {
    use rtc::stun::message::BINDING_SUCCESS;

    use super::*;

    #[test]
    fn the_certificate_has_to_be_that_of_the_key_and_the_only_one() {
        let key = "0d".repeat(32);
        let line = |byte: &str| format!("a=fingerprint:sha-256 {}\r\n", vec![byte; 32].join(":"));
        assert_eq!(certified(&format!("v=0\r\n{}", line("0D"))), Some(key.clone()));
        assert_eq!(certified(&format!("v=0\r\n{}m=video\r\n{}", line("0d"), line("0d"))), Some(key.clone()));
        for forged in [String::new(), line("0d") + &line("0e"), line("0d").replace("256", "1"), line("0d0")] {
            assert_eq!(certified(&format!("v=0\r\n{forged}")), None, "{forged}");
        }
        assert_eq!(certified(&line("0e")), Some("0e".repeat(32)));
    }

    #[test]
    fn of_thousands_of_candidates_the_first_are_looked_at() {
        let candidate = |port: usize| format!("a=candidate:1 1 udp 1 10.0.0.2 {port} typ host\r\n");
        let all: String = (1..=4_000).map(candidate).collect();
        let few = with_few_candidates(&format!("v=0\r\n{all}a=end-of-candidates\r\n"));
        assert_eq!(few.lines().filter(|line| line.starts_with("a=candidate:")).count(), MAX_CANDIDATES);
        assert!(few.starts_with(&format!("v=0\r\n{}", candidate(1))) && few.ends_with("a=end-of-candidates\r\n"));
    }

    #[test]
    fn a_stun_server_says_how_the_socket_is_seen_and_may_be_asked_twice() {
        let server = std::net::UdpSocket::bind("127.0.0.1:0").expect("a UDP socket");
        server.set_read_timeout(Some(Duration::from_secs(10))).expect("a limit");
        let url = format!("stun:{}", server.local_addr().expect("an address"));
        let seen = SocketAddr::from(([1, 2, 3, 4], 99));
        let answers = std::thread::spawn(move || {
            let mut request = [0; 1500];
            server.recv_from(&mut request).expect("a request, which is lost");
            let (len, peer) = server.recv_from(&mut request).expect("it again");
            let mut asked = Message::new();
            asked.unmarshal_binary(&request[..len]).expect("STUN");
            // What is no answer to it is passed over.
            for (transaction, port) in [(TransactionId::new(), 5), (asked.transaction_id, seen.port())] {
                server.send_to(b"junk", peer).expect("sent");
                let mut answer = Message::new();
                let mapped = XorMappedAddress { ip: seen.ip(), port };
                answer.build(&[Box::new(BINDING_SUCCESS), Box::new(transaction), Box::new(mapped)]).expect("an answer");
                server.send_to(&answer.raw, peer).expect("sent");
            }
        });
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        let (socket, _) = media_socket::open(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a socket");
        let (_, reflexive) = runtime.block_on(seen_from_outside(socket, &url)).expect("a socket");
        assert_eq!(reflexive, Some(seen));
        answers.join().expect("no panic");
    }

    #[test]
    fn the_answer_says_which_codec_comes() {
        let answer = |first: u8| {
            format!(
                "v=0\r\nm=video 9 UDP/TLS/RTP/SAVPF {first} 96\r\na=rtpmap:96 H264/90000\r\na=rtpmap:101 H265/90000\r\n"
            )
        };
        assert_eq!(answered_codec(&answer(101)), Codec::H265);
        assert_eq!(answered_codec(&answer(96)), Codec::H264);
        assert_eq!(answered_codec("v=0\r\n"), Codec::H264);
    }
}
