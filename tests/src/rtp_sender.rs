//! A sender of plain RTP: takes the packets of a rov-server by WebRTC and sends them on by UDP, with a keyframe twice a
//! second, in an order of its own if need be.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rov_client::receive::packet::Packet;
use rov_client::receive::webrtc::{Connection, Terms};
use rov_common::rtp::Header;
use socket2::SockRef;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use url::Url;

use crate::programs::Server;

const KEYFRAME_INTERVAL: Duration = Duration::from_millis(500);
const TICK: Duration = Duration::from_millis(1);
/// A packet that is overtaken is sent so much later.
const OVERTAKEN_BY: Duration = Duration::from_millis(5);

/// Packets that wait to be sent late.
type Late = Mutex<Vec<(Instant, Vec<u8>)>>;

struct Shared {
    socket: UdpSocket,
    destination: SocketAddr,
    ssrc: u32,
    paused: AtomicBool,
    /// Each so many packets one is overtaken by others; 0: none.
    disorder: AtomicU64,
    seen: AtomicU64,
    late: Late,
    ended: AtomicBool,
}

/// Sends until it is dropped, without a goodbye.
pub struct RtpSender {
    shared: Arc<Shared>,
    _connection: Connection,
}

impl RtpSender {
    /// Sends `server`'s video to `destination` from 127.0.0.1, as synchronisation source `ssrc`.
    pub fn start(runtime: &Runtime, server: &Server, destination: SocketAddr, ssrc: u32) -> Self {
        Self::start_from(Ipv4Addr::LOCALHOST, runtime, server, destination, ssrc)
    }

    /// As another machine.
    pub fn start_from(from: Ipv4Addr, runtime: &Runtime, server: &Server, destination: SocketAddr, ssrc: u32) -> Self {
        let socket = UdpSocket::bind((from, 0)).expect("a UDP socket");
        SockRef::from(&socket).set_multicast_if_v4(&Ipv4Addr::LOCALHOST).expect("multicast on loopback");
        let shared = Arc::new(Shared {
            socket,
            destination,
            ssrc,
            paused: AtomicBool::new(false),
            disorder: AtomicU64::new(0),
            seen: AtomicU64::new(0),
            late: Late::default(),
            ended: AtomicBool::new(false),
        });
        let (wanted, keyframe_wanted) = mpsc::channel(1);
        let sends = Arc::clone(&shared);
        let url = Url::parse(&server.url("/whep")).expect("a URL");
        let open = Connection::open(
            url,
            Terms::default(),
            Duration::from_millis(100),
            keyframe_wanted,
            |_| {},
            Arc::new(move |packets, _| packets.for_each(|packet| sends.forward(packet))),
        );
        let connection = runtime.block_on(open).expect("a connection");
        let late = Arc::clone(&shared);
        runtime.spawn(async move {
            let (mut keyframe, mut tick) = (Instant::now(), tokio::time::interval(TICK));
            while !late.ended.load(Ordering::Relaxed) {
                tick.tick().await;
                late.send_late();
                if keyframe.elapsed() >= KEYFRAME_INTERVAL {
                    keyframe = Instant::now();
                    let _ = wanted.try_send(());
                }
            }
        });
        Self { shared, _connection: connection }
    }

    /// Of each `packets` one is overtaken by those of the next 5 ms.
    pub fn set_disorder(&self, packets: u64) {
        self.shared.disorder.store(packets, Ordering::Relaxed);
    }

    /// Sends nothing, as if a cable was pulled.
    pub fn pause(&self, paused: bool) {
        self.shared.paused.store(paused, Ordering::Relaxed);
    }

    /// Ends as a sender should: by a goodbye (RTCP BYE, RFC 3550 section 6.6), behind an empty report.
    pub fn say_goodbye(self) {
        let ssrc = self.shared.ssrc.to_be_bytes();
        self.shared.ended.store(true, Ordering::Relaxed);
        let packet = [&[0x80, 201, 0, 1][..], &ssrc, &[0x81, 203, 0, 1], &ssrc].concat();
        let mut to = self.shared.destination;
        to.set_port(to.port() + 1);
        self.shared.socket.send_to(&packet, to).expect("sending on loopback");
    }
}

impl Drop for RtpSender {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Relaxed);
    }
}

impl Shared {
    fn forward(&self, packet: Packet) {
        if self.paused.load(Ordering::Relaxed) || self.ended.load(Ordering::Relaxed) {
            return;
        }
        let header = Header { ssrc: self.ssrc, ..packet.header };
        let packet = [&header.bytes(), &packet.payload[..]].concat();
        let (number, disorder) = (self.seen.fetch_add(1, Ordering::Relaxed), self.disorder.load(Ordering::Relaxed));
        if disorder > 0 && number.is_multiple_of(disorder) {
            let mut late = self.late.lock().unwrap_or_else(PoisonError::into_inner);
            late.push((Instant::now() + OVERTAKEN_BY, packet));
        } else {
            self.send(&packet);
        }
    }

    fn send_late(&self) {
        let mut late = self.late.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        late.retain(|(due, packet)| {
            if *due <= now {
                self.send(packet);
            }
            *due > now
        });
    }

    fn send(&self, packet: &[u8]) {
        // Nobody may be listening on loopback, which is no error for a sender.
        let _ = self.socket.send_to(packet, self.destination);
    }
}

/// A UDP port that nobody has at this moment, nor the one above it.
pub fn free_port_pair() -> u16 {
    (0..100)
        .find_map(|_| {
            let first = UdpSocket::bind("127.0.0.1:0").ok()?;
            let port = first.local_addr().ok().map(|address| address.port()).filter(|port| port.is_multiple_of(2))?;
            UdpSocket::bind(("127.0.0.1", port.checked_add(1)?)).ok().map(|_| port)
        })
        .expect("two UDP ports side by side, the first of them even")
}
