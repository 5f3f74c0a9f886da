//! The media thread: it alone touches the UDP socket and the viewers' sessions, and waits for whichever comes first, a
//! datagram, a frame, a request or a timer.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::{Duration, Instant};

use anyhow::Result;
use mio::{Events, Interest, Poll, Token, Waker};
use rov_common::discovery::interfaces;
use rov_common::media_socket::{MediaSocket, Outbound};
use rov_common::net;
use rtc::stun::message::{BINDING_REQUEST, Getter, Message, TransactionId};
use rtc::stun::xoraddr::XorMappedAddress;
use tokio::sync::watch;

use super::engine::{Asked, Engine, Reach, Transmit};
use super::{Accepted, Command, Paths, Restarted, WebRtcStats};
use crate::identity::Identity;
use crate::packetize::Frame;
use crate::progress::Beat;
use crate::stream::{Awake, OutputQueue, Stream, Streams};

const SOCKET: Token = Token(0);
const WAKE: Token = Token(1);

/// Batches of datagrams taken before frames and timers get their turn.
const RECEIVE_BATCHES: usize = 8;
/// Requests taken before frames get their turn: an offer takes a millisecond.
const REQUESTS: usize = 4;
const STUN_INTERVAL: Duration = Duration::from_secs(20);
const LONGEST_WAIT: Duration = Duration::from_secs(1);

pub(super) struct MediaThread {
    poll: Poll,
    socket: MediaSocket,
    /// Of each stream, in the order of the catalogue.
    feeds: Vec<Feed>,
    requests: Receiver<Command>,
    engine: Engine,
    interfaces: Vec<String>,
    public: Vec<SocketAddrV4>,
    stun: Option<Stun>,
    identity: Option<Identity>,
    pub(super) beat: Arc<Beat>,
    /// Connected now.
    pub(super) viewers: Arc<AtomicUsize>,
}

struct Feed {
    stream: Arc<Stream>,
    frames: Arc<OutputQueue>,
    /// Frames left out of that queue of which the viewers know.
    left_out: u64,
    /// Held while there is a viewer, from its offer on: the encoder is at work when it has connected.
    awake: Option<Awake>,
}

impl MediaThread {
    pub(super) fn new(
        streams: &Streams,
        mut socket: MediaSocket,
        paths: Paths,
        engine: Engine,
        requests: Receiver<Command>,
    ) -> Result<(Self, Arc<Waker>)> {
        let poll = Poll::new()?;
        poll.registry().register(socket.io(), SOCKET, Interest::READABLE)?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKE)?);
        let feed = |stream: &Arc<Stream>| {
            let wake = Arc::clone(&waker);
            let frames = stream.add_output(move |_| {
                if let Err(error) = wake.wake() {
                    tracing::error!(%error, "cannot wake the media thread");
                }
            });
            Feed { stream: Arc::clone(stream), frames, left_out: 0, awake: None }
        };
        let feeds = streams.iter().map(feed).collect();
        let this = Self {
            poll,
            socket,
            feeds,
            requests,
            engine,
            interfaces: paths.interfaces,
            public: paths.public,
            stun: paths.stun.map(Stun::new),
            identity: paths.identity,
            beat: Arc::default(),
            viewers: Arc::default(),
        };
        Ok((this, waker))
    }

    pub(super) fn run(&mut self) {
        let mut events = Events::with_capacity(8);
        // The poll tells of a change only, so what was left unread has to be remembered.
        let mut readable = false;
        let mut more_requests = false;
        loop {
            self.beat.beat();
            self.viewers.store(self.engine.connected(), Ordering::Relaxed);
            for (at, Feed { stream, awake, .. }) in self.feeds.iter_mut().enumerate() {
                stream.demand().keep_awake_while(self.engine.is_watched(at), awake);
                stream.demand().set_least_decoder(self.engine.least_decoder(at));
            }
            let wait = if readable || more_requests { Duration::ZERO } else { self.wait() };
            match self.poll.poll(&mut events, Some(wait)) {
                Ok(()) => {}
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    tracing::error!(%error, "the media thread cannot wait for the network");
                    return;
                }
            }
            readable |= events.iter().any(|event| event.token() == SOCKET);
            match self.handle_requests() {
                Some(more) => more_requests = more,
                None => {
                    self.engine.close_all(&mut self.socket.outbound());
                    return;
                }
            }
            self.send_frames();
            self.engine.tell_values(Instant::now(), &mut self.socket.outbound());
            if readable {
                readable = self.receive();
            }
            let now = Instant::now();
            self.engine.handle_timeouts(now, &mut self.socket.outbound());
            if let Some(stun) = &mut self.stun {
                stun.refresh(now, &mut self.socket);
            }
            self.engine.look_for_keyframes(now);
            let feeds = &self.feeds;
            self.engine.rates(
                now,
                |at| feeds[at].stream.status().ceiling(),
                |at, rate| feeds[at].stream.demand().set_rate(rate),
            );
            for (at, Feed { stream, .. }) in self.feeds.iter().enumerate() {
                if self.engine.take_keyframe_wanted(at) {
                    stream.demand().request_keyframe();
                }
            }
        }
    }

    fn wait(&self) -> Duration {
        let next = self.engine.next_timeout();
        next.map_or(LONGEST_WAIT, |at| at.saturating_duration_since(Instant::now()).min(LONGEST_WAIT))
    }

    fn send_frames(&mut self) {
        while let Some((stream, frame)) = self.next_frame() {
            self.engine.send_frame(Instant::now(), stream, &frame, &mut self.socket.outbound());
        }
    }

    /// The next one that waits, of the pilot's stream before the others.
    fn next_frame(&self) -> Option<(usize, Arc<Frame>)> {
        let first = self.engine.pilot_stream();
        let others = (0..self.feeds.len()).filter(|at| *at != first);
        std::iter::once(first).chain(others).find_map(|at| Some((at, self.feeds[at].frames.take()?)))
    }

    /// What did not wait for this thread, as too much waited already, is left out for the viewers that are there.
    fn count_left_out(&mut self) {
        for (at, feed) in self.feeds.iter_mut().enumerate() {
            let all = feed.frames.skipped();
            self.engine.left_out(at, all - std::mem::replace(&mut feed.left_out, all));
        }
    }

    /// Whether more may be waiting.
    fn receive(&mut self) -> bool {
        for _ in 0..RECEIVE_BATCHES {
            let now = Instant::now();
            let (engine, stun) = (&mut self.engine, &mut self.stun);
            let any = self.socket.receive(|out, local, peer, datagram| {
                if !stun.as_mut().is_some_and(|s| s.take_response(peer, datagram)) {
                    engine.handle_datagram(now, local, peer, datagram, out);
                }
            });
            if !any {
                return false;
            }
        }
        true
    }

    /// Whether more may be waiting; `None` when the thread is to end.
    fn handle_requests(&mut self) -> Option<bool> {
        for _ in 0..REQUESTS {
            let now = Instant::now();
            // Whoever asked may have given up waiting; then nobody hears the reply, which is fine.
            match self.requests.try_recv() {
                Ok(Command::Offer { stream, sdp, from, arrived_at, asked, reply }) => {
                    let id = new_id();
                    let local = self.local_addresses(arrived_at);
                    let seen = self.stun.as_ref().and_then(|stun| stun.mapped);
                    let public = public_addresses(&local, asked, &self.public, seen);
                    let certificate = self.identity.as_ref().map(Identity::certificate);
                    let reach = Reach { local, public, certificate };
                    self.count_left_out();
                    let of = &self.feeds[stream].stream;
                    let asked = Asked { stream, profile: of.profile(), ceiling: of.status().ceiling() };
                    let out = &mut self.socket.outbound();
                    let answer = self.engine.accept(now, &id, &sdp, from, asked, &reach, out);
                    if reply.send(answer.map(|sdp| Accepted::new(id.clone(), sdp))).is_err() {
                        self.engine.close(&id, &mut self.socket.outbound());
                    }
                }
                Ok(Command::Patch { id, tag, fragment, reply }) => {
                    let answer = self.engine.patch(now, &id, &tag, &fragment);
                    let _ = reply.send(answer.map(|sdp| sdp.map(|sdp| Restarted::new(&sdp))));
                }
                Ok(Command::Close { id, reply }) => {
                    let _ = reply.send(self.engine.close(&id, &mut self.socket.outbound()));
                }
                Ok(Command::Stats { reply }) => {
                    self.count_left_out();
                    let stats = self.engine.stats(now).into_iter().map(|(at, mut viewer)| {
                        let frames = &self.feeds[at].frames;
                        // Of what waited for this thread, nothing is sent either.
                        viewer.awaits_keyframe |= viewer.connected_s > 0.0 && frames.is_skipping();
                        viewer
                    });
                    let viewers = stats.collect();
                    let _ = reply.send(WebRtcStats { viewers, sent: self.engine.sent() });
                }
                Ok(Command::Shutdown) | Err(TryRecvError::Disconnected) => return None,
                Err(TryRecvError::Empty) => return Some(false),
            }
        }
        Some(true)
    }

    /// Where a viewer can reach the socket. First the address that its request came to: that one surely works.
    fn local_addresses(&self, arrived_at: IpAddr) -> Vec<SocketAddr> {
        let bound = self.socket.local_addr();
        if !bound.ip().is_unspecified() {
            return vec![bound];
        }
        let mut addresses = vec![arrived_at];
        match net::interfaces() {
            Ok(all) => {
                let chosen = interfaces::chosen(&all, &self.interfaces, bound.ip());
                addresses.extend(chosen.iter().map(|i| IpAddr::V4(i.address)).filter(|ip| *ip != arrived_at));
            }
            Err(error) => tracing::warn!(%error, "cannot list the network interfaces"),
        }
        addresses.into_iter().filter(IpAddr::is_ipv4).map(|ip| SocketAddr::new(ip, bound.port())).collect()
    }
}

/// How the socket, which is at `local`, is reached from outside of a NAT: by the address that the viewer `asked`, those
/// that were configured, and the one that a STUN server has `seen`.
fn public_addresses(
    local: &[SocketAddr],
    asked: Option<Ipv4Addr>,
    configured: &[SocketAddrV4],
    seen: Option<SocketAddr>,
) -> Vec<SocketAddr> {
    let port = local.first().map_or(0, SocketAddr::port);
    let asked = asked.filter(|ip| !ip.is_unspecified()).map(|ip| SocketAddrV4::new(ip, 0));
    let mut public: Vec<SocketAddr> = Vec::new();
    for address in asked.iter().chain(configured) {
        let port = if address.port() == 0 { port } else { address.port() };
        public.push((*address.ip(), port).into());
    }
    public.extend(seen);
    let mut known = local.to_vec();
    public.retain(|address| {
        !known.contains(address) && {
            known.push(*address);
            true
        }
    });
    public
}

/// A new session's id: what may be shown of it ([`rov_common::api::public_id`]), and a secret.
fn new_id() -> String {
    format!("{:08x}-{:032x}", rand::random::<u32>(), rand::random::<u128>())
}

impl Transmit for Outbound<'_> {
    fn transmit(&mut self, local: IpAddr, peer: SocketAddr, run: &[u8], segment: usize) -> bool {
        Outbound::transmit(self, local, peer, run, segment)
    }
}

/// Asks a STUN server how the socket looks from outside (RFC 8489), for viewers behind a NAT.
struct Stun {
    /// `None` until its name is resolved, which another thread does: it can take seconds.
    server: watch::Receiver<Option<SocketAddr>>,
    transaction: Option<TransactionId>,
    next: Option<Instant>,
    mapped: Option<SocketAddr>,
}

impl Stun {
    fn new(server: watch::Receiver<Option<SocketAddr>>) -> Self {
        Self { server, transaction: None, next: None, mapped: None }
    }

    fn refresh(&mut self, now: Instant, socket: &mut MediaSocket) {
        if self.next.is_some_and(|next| now < next) {
            return;
        }
        let Some(address) = *self.server.borrow() else { return };
        self.next = Some(now + STUN_INTERVAL);
        let transaction = TransactionId::new();
        let mut request = Message::new();
        if request.build(&[Box::new(transaction), Box::new(BINDING_REQUEST)]).is_err() {
            return;
        }
        self.transaction = Some(transaction);
        let local = socket.local_addr().ip();
        socket.outbound().transmit(local, address, &request.raw, request.raw.len());
    }

    /// True when `datagram` is the reply to our request.
    fn take_response(&mut self, peer: SocketAddr, datagram: &[u8]) -> bool {
        if *self.server.borrow() != Some(peer) {
            return false;
        }
        let mut message = Message::new();
        if message.unmarshal_binary(datagram).is_err() || Some(message.transaction_id) != self.transaction {
            return false;
        }
        let mut mapped = XorMappedAddress::default();
        if mapped.get_from(&message).is_ok() {
            let mapped = SocketAddr::new(mapped.ip, mapped.port);
            if self.mapped != Some(mapped) {
                tracing::info!(%mapped, "address seen from outside");
            }
            self.mapped = Some(mapped);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn behind_a_nat_the_address_that_the_viewer_asked_is_offered_too() {
        let local: Vec<SocketAddr> = vec!["172.17.0.2:40000".parse().expect("an address")];
        let public = |asked: &str, configured: &[&str], seen: Option<&str>| {
            let configured: Vec<_> = configured.iter().map(|text| text.parse().expect("an address")).collect();
            let seen = seen.map(|text| text.parse().expect("an address"));
            let public = public_addresses(&local, asked.parse().ok(), &configured, seen);
            public.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(public("192.168.2.2", &[], None), ["192.168.2.2:40000"]);
        assert_eq!(public("172.17.0.2", &[], None), [""; 0], "it is known already");
        assert_eq!(public("rov.lan", &["10.0.0.2:0", "10.0.0.3:5000"], None), ["10.0.0.2:40000", "10.0.0.3:5000"]);
        assert_eq!(public("10.0.0.2", &["10.0.0.2:0"], Some("10.0.0.2:40000")), ["10.0.0.2:40000"]);
        assert_eq!(public("0.0.0.0", &[], Some("203.0.113.1:1")), ["203.0.113.1:1"]);
    }
}
