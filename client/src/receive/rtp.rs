//! Receiving plain RTP: from a multicast group, or at a UDP port that somebody sends to. Nobody can be asked for
//! anything here, neither for a lost packet nor for a keyframe: the picture resumes at the next keyframe.
//!
//! Media comes at the port, RTCP at the port above; at the port above that come repair packets, if the sender makes
//! some (RFC 8627), by which lost packets are rebuilt.

pub mod senders;

use std::io;
use std::iter;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use rov_common::codec::Codec;
use rov_common::discovery::interfaces::{Interface, is_neighbour, suitable, target};
use rov_common::fec;
use rov_common::marker::{self, Markers};
use rov_common::net::{self, grow_buffers};
use rov_common::rtp::Header;
use rov_common::sleep::Sleep;
use rov_common::sync::lock;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::UdpSocket;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

use self::senders::{Origin, Senders, Verdict};
use super::packet::Packet;
use super::reports::SenderClock;
use super::{ConnectError, LinkState, OnPackets, PAYLOAD_TYPE, Transport};

/// Where rov-server sends unless it is told otherwise.
pub const DEFAULT_HOST: Ipv4Addr = Ipv4Addr::new(239, 255, 0, 1);
pub const DEFAULT_PORT: u16 = 5004;
/// The two ports above it are used as well.
pub const HIGHEST_PORT: u16 = u16::MAX - 2;
/// Interfaces are listed anew so often: a cable may be plugged in, or a USB adapter come back.
const REJOIN_INTERVAL: Duration = Duration::from_secs(3);
const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(50);
/// So often it is noted that this process runs.
const BEAT: Duration = Duration::from_millis(100);
/// Where it has not run for so long, it stood still.
const STOOD_STILL: Duration = Duration::from_millis(500);
/// The error of a socket that is a member as often as it may be (igmp_max_memberships).
#[cfg(target_os = "linux")]
const NO_ROOM: Option<i32> = Some(libc::ENOBUFS);
#[cfg(not(target_os = "linux"))]
const NO_ROOM: Option<i32> = None;
const LARGEST_DATAGRAM: usize = 65_536;
/// Media packets that are read before a repair packet: more than wait in a socket, and a flood of them must end.
const MOST_WAITING: usize = 8_192;

/// A destination that RTP is sent to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Source {
    /// A multicast group; any other address stands for this machine.
    pub host: Ipv4Addr,
    pub port: u16,
    /// Only packets of this machine are taken; none: those of the first that is heard.
    pub from: Option<Ipv4Addr>,
    /// The synchronisation source, as the server said it last: another server of that machine may send to the same
    /// destination. None: not known.
    pub ssrc: Option<u32>,
    /// The payload type of the video; none: any dynamic one.
    pub payload_type: Option<u8>,
    pub codec: Codec,
    /// The sender says that it makes repair packets; those of one that does not say so are taken as well.
    pub fec: bool,
}

impl Source {
    /// Where nothing else is known, for tests.
    #[cfg(test)]
    pub fn of_destination(host: Ipv4Addr, port: u16) -> Self {
        Self { host, port, from: None, ssrc: None, payload_type: None, codec: Codec::H264, fec: false }
    }

    /// Address and port, for people.
    pub fn destination(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// Whom of those that send there to take.
    pub fn senders(&self) -> Arc<Mutex<Senders>> {
        let mut senders = Senders::new(self.from.map(IpAddr::V4), self.payload_type);
        senders.expect(self.ssrc);
        Arc::new(Mutex::new(senders))
    }
}

/// Listens until it is dropped.
pub struct Receiver {
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

struct Shared {
    source: Source,
    senders: Arc<Mutex<Senders>>,
    state: Mutex<State>,
}

struct State {
    /// Names of the interfaces on which the group was joined.
    joined: Vec<String>,
    /// Why it could not be joined on one.
    trouble: Option<String>,
}

impl Receiver {
    /// Listens at `source`, for multicast on the interfaces of these names, else on the one that leads to the sender,
    /// or on every suitable one. `senders`: what is known of them from the session before. With `first_packet`, it is
    /// an error when none comes within that time.
    pub async fn open(
        source: &Source,
        interfaces: &[String],
        senders: Option<Arc<Mutex<Senders>>>,
        first_packet: Option<Duration>,
        on_packets: OnPackets,
    ) -> Result<Self, ConnectError> {
        let sockets = Sockets::bind(source).map_err(ConnectError::Rtp)?;
        let senders = senders.unwrap_or_else(|| source.senders());
        let state = Mutex::new(State { joined: Vec::new(), trouble: None });
        let shared = Arc::new(Shared { source: *source, senders, state });
        let (heard, mut hears) = watch::channel(false);
        let (shared_too, interfaces) = (Arc::clone(&shared), interfaces.to_owned());
        let input = Input {
            shared: shared_too,
            interfaces,
            on_packets,
            heard,
            fec: None,
            stream: 0,
            markers: Markers::default(),
            clock: SenderClock::default(),
        };
        input.join(&sockets);
        let task = tokio::spawn(input.receive(sockets));
        let receiver = Self { shared, task };
        if let Some(limit) = first_packet
            && !tokio::time::timeout(limit, hears.wait_for(|heard| *heard)).await.is_ok_and(|heard| heard.is_ok())
        {
            let silence = receiver.state().silence;
            receiver.close().await;
            return Err(ConnectError::Rtp(format!("{silence}, for {:.1} s", limit.as_secs_f64())));
        }
        Ok(receiver)
    }

    pub fn state(&self) -> LinkState {
        let (source, senders, now) = (&self.shared.source, lock(&self.shared.senders), Instant::now());
        let stranger = senders.stranger_now(now);
        LinkState {
            transport: format!("{} {}", Transport::Rtp, source.destination()),
            note: stranger
                .map(|peer| format!("{} sends there too, ignored", other(&senders, peer.ip())))
                .unwrap_or_default(),
            silence: silence(source, &senders, &lock(&self.shared.state), now),
            goodbye: senders.said_goodbye(),
        }
    }

    /// Which of the machines that send here are known, and which is watched.
    pub fn senders(&self) -> &Mutex<Senders> {
        &self.shared.senders
    }

    /// Afterwards the port is free again.
    pub async fn close(mut self) {
        self.task.abort();
        let _ = (&mut self.task).await;
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A sender that is not watched, for people.
fn other(senders: &Senders, ip: IpAddr) -> String {
    if senders.is_of_machine(ip) { format!("another program on {ip}") } else { ip.to_string() }
}

/// What to say when no packets come, and what may be the matter.
fn silence(source: &Source, senders: &Senders, state: &State, now: Instant) -> String {
    let place = match (source.host.is_multicast(), state.joined.as_slice()) {
        (true, []) => {
            let trouble = state.trouble.as_deref().unwrap_or("there is no suitable network interface");
            return format!("cannot join the multicast group {}: {trouble}", source.host);
        }
        (true, joined) => format!("on {} ({})", source.destination(), joined.join(", ")),
        (false, _) => format!("at UDP port {}", source.port),
    };
    if senders.said_goodbye() {
        return format!("the sender {place} said goodbye; waiting for the next");
    }
    let hint = if let Some(peer) = senders.stranger_now(now) {
        let ip = peer.ip();
        let wanted =
            source.from.filter(|from| *from != ip).map(|from| format!(", not from {from}")).unwrap_or_default();
        format!(", only some from {}{wanted}", other(senders, ip))
    } else if let Some(payload_type) = senders.other_now(now) {
        format!(", only some of payload type {payload_type}, which is not the video's")
    } else if senders.reports(now) {
        format!(", although the sender is there: does a firewall block UDP port {}?", source.port)
    } else {
        String::new()
    };
    format!("no RTP packets {place}{hint}")
}

fn cannot_bind(port: u16, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            format!("UDP port {port} is taken by another program, which has to be closed: only multicast can be shared")
        }
        _ => format!("cannot listen at UDP port {port}: {error}"),
    }
}

/// A multicast group is shared with other programs; a port that is sent to is not, since one of them alone would get
/// it.
fn bind(host: Ipv4Addr, port: u16) -> io::Result<std::net::UdpSocket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    let mut address = Ipv4Addr::UNSPECIFIED;
    if host.is_multicast() {
        socket.set_reuse_address(true)?;
        #[cfg(all(unix, not(target_os = "linux")))]
        socket.set_reuse_port(true)?;
        // Only what this socket joined, not what other programs of this machine did.
        #[cfg(target_os = "linux")]
        socket.set_multicast_all_v4(false)?;
        // Only what is sent to the group. Windows cannot bind to one.
        #[cfg(unix)]
        {
            address = host;
        }
    }
    // What the system does not grant was said at the start.
    grow_buffers(&SockRef::from(&socket));
    socket.set_nonblocking(true)?;
    socket.bind(&SocketAddr::from((address, port)).into())?;
    Ok(socket.into())
}

/// Everything between the sockets and the decoder.
struct Input {
    shared: Arc<Shared>,
    /// As the user named them.
    interfaces: Vec<String>,
    on_packets: OnPackets,
    heard: watch::Sender<bool>,
    /// None until a repair packet comes: without them nothing needs to be remembered.
    fec: Option<fec::Decoder>,
    /// The one that was delivered last.
    stream: u32,
    markers: Markers<(Packet, Instant)>,
    clock: SenderClock,
}

struct Sockets {
    media: UdpSocket,
    /// The same socket, for what is there already: Tokio reads only what it has been told of.
    waiting: std::net::UdpSocket,
    control: Option<UdpSocket>,
    repair: Option<UdpSocket>,
}

impl Sockets {
    fn bind(source: &Source) -> Result<Self, String> {
        let bound = |port| {
            let socket = bind(source.host, port).and_then(UdpSocket::from_std);
            socket.map_err(|error| cannot_bind(port, &error))
        };
        let media = bound(source.port)?;
        // Without RTCP the sender's goodbye is not heard, and nothing else is missing.
        let control = bound(source.port + 1).inspect_err(|error| tracing::warn!("without RTCP: {error}")).ok();
        let without_repair = |error: &String| {
            if source.fec {
                tracing::warn!("without repair packets: {error}");
            } else {
                tracing::debug!("without repair packets, if there are any: {error}");
            }
        };
        let repair = bound(source.port + 2).inspect_err(without_repair).ok();
        Self::new(media, control, repair).map_err(|error| cannot_bind(source.port, &error))
    }

    fn new(media: UdpSocket, control: Option<UdpSocket>, repair: Option<UdpSocket>) -> io::Result<Self> {
        let waiting = SockRef::from(&media).try_clone()?.into();
        Ok(Self { media, waiting, control, repair })
    }
}

/// What a receiver waits for: length and sender of a packet, or a time.
enum Event {
    Media(usize, SocketAddr),
    Control(usize, SocketAddr),
    Repair(usize, SocketAddr),
    Beat,
    Rejoin,
}

impl Input {
    async fn receive(mut self, mut sockets: Sockets) {
        let [mut packet, mut report, mut parity] = std::array::from_fn(|_| vec![0; LARGEST_DATAGRAM]);
        let mut rejoin = tokio::time::interval(REJOIN_INTERVAL);
        let (mut beat, mut ran, mut sleep) = (tokio::time::interval(BEAT), Instant::now(), Sleep::default());
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut room = Room::default();
        loop {
            let Sockets { media, waiting, control, repair } = &sockets;
            let event = tokio::select! {
                received = media.recv_from(&mut packet) => received.map(|(length, from)| Event::Media(length, from)),
                received = receive_if(control.as_ref(), &mut report) => {
                    received.map(|(length, from)| Event::Control(length, from))
                }
                received = receive_if(repair.as_ref(), &mut parity) => {
                    received.map(|(length, from)| Event::Repair(length, from))
                }
                _ = beat.tick() => Ok(Event::Beat),
                _ = rejoin.tick() => Ok(Event::Rejoin),
            };
            let now = Instant::now();
            let stood_still = now.saturating_duration_since(std::mem::replace(&mut ran, now)) > STOOD_STILL
                || !sleep.look().is_zero();
            if stood_still {
                leave_out(waiting, &mut packet);
            }
            match event {
                Ok(Event::Media(length, from)) if !stood_still => self.media(&packet[..length], from, now),
                Ok(Event::Media(..) | Event::Beat) => {}
                Ok(Event::Control(length, from)) => self.control(&report[..length], from, now),
                Ok(Event::Repair(length, from)) => {
                    // On a busy machine both sockets hold packets. What is only not read yet must not be taken for
                    // lost.
                    for _ in 0..MOST_WAITING {
                        let Ok((length, from)) = waiting.recv_from(&mut packet) else { break };
                        self.media(&packet[..length], from, Instant::now());
                    }
                    self.repair(&parity[..length], from, Instant::now());
                }
                // The system keeps a place for each interface that is gone, and has 20 of them for a socket.
                Ok(Event::Rejoin) => {
                    let joined = self.join(&sockets);
                    if room.is_to_be_made(&joined) {
                        match Sockets::bind(&self.shared.source) {
                            Ok(bound) => {
                                tracing::info!("no room for more multicast memberships: the sockets are bound anew");
                                sockets = bound;
                                room.was_made(self.join(&sockets));
                            }
                            Err(error) => tracing::warn!("no room for more multicast memberships: {error}"),
                        }
                    }
                }
                Err(error) => {
                    tracing::debug!("cannot receive RTP: {error}");
                    tokio::time::sleep(PAUSE_AFTER_ERROR).await;
                }
            }
        }
    }

    /// Media packets, in the order in which they arrive.
    fn media(&mut self, packet: &[u8], from: SocketAddr, at: Instant) {
        let Some((header, payload)) = Header::parse_whole(packet) else { return };
        let origin = Origin { address: from, ssrc: header.ssrc, payload_type: header.payload_type };
        let mut senders = lock(&self.shared.senders);
        let before = senders.watched();
        let verdict = senders.packet(origin, at);
        let now = senders.watched();
        drop(senders);
        match verdict {
            Verdict::Play(stream) => {
                if before != now {
                    tracing::info!("RTP from {from}");
                }
                self.stream = stream;
                let data = Bytes::copy_from_slice(packet);
                self.deliver(Packet::of(header, &data, payload), at);
                // All of it, as the sender made the parity of these bytes.
                let rebuilt = self.fec.as_mut().map(|fec| fec.source(&data)).unwrap_or_default();
                self.deliver_rebuilt(&rebuilt, at);
            }
            Verdict::Stranger => {
                let watched =
                    now.map_or_else(|| "another is waited for".to_owned(), |peer| format!("{peer} is watched"));
                let destination = self.shared.source.destination();
                tracing::warn!("RTP from {from} (source {:08x}) to {destination} is ignored: {watched}", header.ssrc);
            }
            Verdict::Ignore => {}
        }
    }

    /// Repair packets come right behind the packets that they cover.
    fn repair(&mut self, packet: &[u8], from: SocketAddr, at: Instant) {
        if lock(&self.shared.senders).watched().is_none_or(|watched| watched.ip() != from.ip()) {
            return;
        }
        let fec = self.fec.get_or_insert_with(|| {
            tracing::info!("{} sends repair packets", from.ip());
            fec::Decoder::default()
        });
        let rebuilt = fec.repair(&Bytes::copy_from_slice(packet));
        self.deliver_rebuilt(&rebuilt, at);
    }

    fn deliver_rebuilt(&mut self, rebuilt: &[Bytes], at: Instant) {
        rebuilt.iter().filter_map(Packet::read).for_each(|packet| self.deliver(packet, at));
    }

    fn deliver(&mut self, mut packet: Packet, at: Instant) {
        packet.captured = self.clock.captured(&packet.header);
        (packet.header.payload_type, packet.header.ssrc) = (PAYLOAD_TYPE, self.stream);
        let judged = marker::Packet::of(self.shared.source.codec, &packet.header, &packet.payload);
        for ((mut packet, at), clear) in self.markers.pass(Some(judged), (packet, at)) {
            packet.header.marker &= !clear;
            (self.on_packets)(&mut iter::once(packet), at.into());
        }
        self.heard.send_if_modified(|heard| !std::mem::replace(heard, true));
    }

    fn control(&mut self, packet: &[u8], from: SocketAddr, at: Instant) {
        let mut senders = lock(&self.shared.senders);
        if senders.watched().is_some_and(|watched| watched.ip() == from.ip()) {
            self.clock.control(packet);
        }
        if senders.control(from.ip(), packet, at) {
            tracing::info!("{} said goodbye (RTCP BYE)", from.ip());
        }
    }

    /// Joins the group where it is not joined yet. With an interface that goes, membership in the group ends.
    fn join(&self, sockets: &Sockets) -> Joined {
        let source = &self.shared.source;
        if !source.host.is_multicast() {
            return Joined::AsFarAsPossible;
        }
        let all = net::interfaces().unwrap_or_else(|error| {
            tracing::debug!("cannot list the network interfaces: {error}");
            Vec::new()
        });
        let chosen = choose(&all, &self.interfaces, source.from);
        let (mut joined, mut trouble, mut result) = (Vec::new(), None, Joined::AsFarAsPossible);
        if chosen.is_empty() && !self.interfaces.is_empty() {
            trouble = Some(format!("there is no network interface named {}", self.interfaces.join(", ")));
        }
        for interface in &chosen {
            let join = |socket: &UdpSocket| {
                match SockRef::from(socket).join_multicast_v4(&source.host, &interface.address) {
                    // It is a member already.
                    Err(error) if error.kind() == io::ErrorKind::AddrInUse => Ok(()),
                    result => result,
                }
            };
            let others = sockets.control.iter().chain(&sockets.repair);
            match std::iter::once(&sockets.media).chain(others).try_for_each(join) {
                Ok(()) => joined.push(interface.name.clone()),
                Err(error) => {
                    if NO_ROOM.is_some() && error.raw_os_error() == NO_ROOM {
                        result = Joined::NoRoom(chosen.iter().map(|interface| interface.address).collect());
                    }
                    trouble = Some(format!("{}: {error}", interface.name));
                }
            }
        }
        let mut state = lock(&self.shared.state);
        if state.joined != joined {
            tracing::debug!("joined {} on {}", source.host, joined.join(", "));
        }
        (state.joined, state.trouble) = (joined, trouble);
        result
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Joined {
    /// Where it failed, the reason is known.
    AsFarAsPossible,
    /// The socket is a member as often as it may be; these are all the interfaces on which to join.
    NoRoom(Vec<Ipv4Addr>),
}

/// When sockets are bound anew for multicast memberships: once for each list of interfaces, as what waits in them is
/// lost by it, and a machine may have more interfaces than a socket may have memberships.
#[derive(Debug, Default)]
struct Room {
    /// More than new sockets had room for.
    too_many: Option<Vec<Ipv4Addr>>,
}

impl Room {
    fn is_to_be_made(&mut self, joined: &Joined) -> bool {
        match joined {
            Joined::NoRoom(interfaces) => self.too_many.as_ref() != Some(interfaces),
            Joined::AsFarAsPossible => {
                self.too_many = None;
                false
            }
        }
    }

    /// `joined`: by the new sockets.
    fn was_made(&mut self, joined: Joined) {
        self.too_many = match joined {
            Joined::NoRoom(interfaces) => Some(interfaces),
            Joined::AsFarAsPossible => None,
        };
        if let Some(interfaces) = &self.too_many {
            tracing::warn!(
                "this machine has {} network interfaces, more than multicast can be received on at once: name the one \
                 that leads to the sender by --interface",
                interfaces.len()
            );
        }
    }
}

/// What waited while the process stood still is old. After a pause so long it would be taken for a new stream, whose
/// age shows by nothing.
fn leave_out(waiting: &std::net::UdpSocket, packet: &mut [u8]) {
    let count = (0..MOST_WAITING).take_while(|_| waiting.recv_from(packet).is_ok()).count();
    if count > 0 {
        tracing::info!("this process stood still; {count} old RTP packets left out");
    }
}

async fn receive_if(socket: Option<&UdpSocket>, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
    match socket {
        Some(socket) => socket.recv_from(buffer).await,
        None => std::future::pending().await,
    }
}

/// The interfaces on which to join: those that the user named; else the one in whose subnet the sender is; else every
/// suitable one, and loopback for a sender on this machine.
fn choose<'a>(all: &'a [Interface], named: &[String], from: Option<Ipv4Addr>) -> Vec<&'a Interface> {
    let pick = |wanted: &dyn Fn(&Interface) -> bool| all.iter().filter(|i| wanted(i)).collect::<Vec<_>>();
    if !named.is_empty() {
        return pick(&|i| named.iter().any(|name| *name == i.name || name.parse() == Ok(i.address)));
    }
    let leads_there = |from| pick(&|i| i.is_up && target(i).is_some_and(|target| is_neighbour(&[target], from)));
    match from.map(|from| leads_there(IpAddr::V4(from))) {
        Some(found) if !found.is_empty() => found,
        _ => pick(&|i| suitable(i) || i.address.is_loopback()),
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

    use super::*;

    /// What receives from there, and the sequence numbers that it delivers.
    fn input(source: Source, interfaces: &[&str]) -> (Input, UnboundedReceiver<u16>) {
        let (sequences, delivered) = unbounded_channel();
        let senders = Arc::new(Mutex::new(Senders::new(None, None)));
        let state = Mutex::new(State { joined: Vec::new(), trouble: None });
        let input = Input {
            shared: Arc::new(Shared { source: Source { fec: true, ..source }, senders, state }),
            interfaces: interfaces.iter().map(|interface| (*interface).to_owned()).collect(),
            on_packets: Arc::new(move |packets, _| {
                packets.for_each(|packet| sequences.send(packet.header.sequence).unwrap());
            }),
            heard: watch::channel(false).0,
            fec: None,
            stream: 0,
            markers: Markers::default(),
            clock: SenderClock::default(),
        };
        (input, delivered)
    }

    #[tokio::test]
    async fn a_repair_packet_waits_for_the_media_packets_that_came_before_it() {
        let bound = || UdpSocket::from_std(bind(Ipv4Addr::LOCALHOST, 0).unwrap()).unwrap();
        let (media, repair) = (bound(), bound());
        let [to_media, to_repair] =
            [&media, &repair].map(|socket| (Ipv4Addr::LOCALHOST, socket.local_addr().unwrap().port()));
        let (sender, mut encoder) = (std::net::UdpSocket::bind("127.0.0.1:0").unwrap(), fec::Encoder::new(25, 8, 0));
        // All of them wait when the receiver begins to read.
        for picture in 0..20_u8 {
            let packet = |i| [&[0x80, 96, 0, 10 * picture + i, 0, 0, picture, 0, 0, 0, 0, 7][..], &[i; 100]].concat();
            let packets: Vec<_> = (0..10).map(packet).collect();
            for packet in &packets {
                sender.send_to(packet, to_media).unwrap();
            }
            for parity in encoder.protect(&packets, u32::from(picture) << 8) {
                sender.send_to(&parity, to_repair).unwrap();
            }
        }
        let (input, mut delivered) = input(Source::of_destination(Ipv4Addr::LOCALHOST, to_media.1), &[]);
        let receiver = tokio::spawn(input.receive(Sockets::new(media, None, Some(repair)).unwrap()));
        for expected in 0..200 {
            let sequence = tokio::time::timeout(Duration::from_secs(10), delivered.recv()).await;
            assert_eq!(sequence, Ok(Some(expected)), "rebuilt, or out of order");
        }
        receiver.abort();
    }

    /// As with an adapter that was plugged in again and again.
    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn a_socket_that_takes_no_more_memberships_is_bound_anew() {
        let group = Ipv4Addr::new(239, 255, 77, 1);
        // Three ports in a row; another program may have them, and share them then.
        let port = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().min(HIGHEST_PORT);
        let source = Source::of_destination(group, port);
        let sockets = Sockets::bind(&source).unwrap();
        let mut last = 0;
        while let Ok(()) =
            SockRef::from(&sockets.media).join_multicast_v4(&Ipv4Addr::new(239, 255, 78, last), &Ipv4Addr::LOCALHOST)
        {
            last += 1;
        }
        assert!(last >= 1);
        let (input, mut delivered) = input(source, &["127.0.0.1"]);
        assert_eq!(input.join(&sockets), Joined::NoRoom(vec![Ipv4Addr::LOCALHOST]));
        let receiver = tokio::spawn(input.receive(sockets));
        let sender = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        SockRef::from(&sender).set_multicast_if_v4(&Ipv4Addr::LOCALHOST).unwrap();
        let mut sequence = 0;
        let came = async {
            loop {
                sequence += 1;
                sender
                    .send_to(&[0x80, 96, 0, sequence, 0, 0, sequence, 0, 0, 0, 0, 7, 1, 2, 3], (group, port))
                    .unwrap();
                if let Ok(packet) = tokio::time::timeout(Duration::from_millis(20), delivered.recv()).await {
                    return packet;
                }
            }
        };
        assert!(tokio::time::timeout(Duration::from_secs(30), came).await.expect("packets").is_some());
        receiver.abort();
    }

    #[test]
    fn for_more_interfaces_than_there_is_room_for_the_sockets_are_bound_anew_once() {
        let full = |last: u8| Joined::NoRoom((1..=last).map(|i| Ipv4Addr::new(10, 0, i, 1)).collect());
        let mut room = Room::default();
        assert!(!room.is_to_be_made(&Joined::AsFarAsPossible));
        // Places of interfaces that are gone: new sockets have room.
        for _ in 0..2 {
            assert!(room.is_to_be_made(&full(3)));
            room.was_made(Joined::AsFarAsPossible);
        }
        assert!(room.is_to_be_made(&full(21)), "also where they could not be bound");
        assert!(room.is_to_be_made(&full(21)));
        room.was_made(full(21));
        assert!(!room.is_to_be_made(&full(21)));
        assert!(room.is_to_be_made(&full(22)), "another one came");
        room.was_made(full(22));
        assert!(!room.is_to_be_made(&full(22)));
        // One of them went, and came again.
        assert!(!room.is_to_be_made(&Joined::AsFarAsPossible));
        assert!(room.is_to_be_made(&full(22)));
    }

    fn interface(name: &str, address: &str, prefix: u8) -> Interface {
        let address = address.parse().unwrap();
        Interface { name: name.to_owned(), address, prefix, is_up: true, is_point_to_point: false }
    }

    #[test]
    fn a_group_is_joined_where_its_sender_is() {
        let all = [
            interface("lo", "127.0.0.1", 8),
            interface("eth0", "192.168.2.5", 24),
            interface("wlan0", "192.168.2.6", 24),
            interface("eth1", "10.0.0.5", 8),
            interface("docker0", "172.17.0.1", 16),
        ];
        let names = |named: &[&str], from: Option<&str>| -> Vec<&str> {
            let named: Vec<String> = named.iter().map(|name| (*name).to_owned()).collect();
            choose(&all, &named, from.map(|from| from.parse().unwrap())).iter().map(|i| i.name.as_str()).collect()
        };
        assert_eq!(names(&[], None), ["lo", "eth0", "wlan0", "eth1"]);
        assert_eq!(names(&[], Some("10.3.2.1")), ["eth1"]);
        assert_eq!(names(&[], Some("192.168.2.2")), ["eth0", "wlan0"], "nobody knows which of the two");
        assert_eq!(names(&[], Some("127.0.0.1")), ["lo"]);
        assert_eq!(names(&[], Some("8.8.8.8")), ["lo", "eth0", "wlan0", "eth1"], "behind a router");
        assert_eq!(names(&["docker0"], Some("10.3.2.1")), ["docker0"]);
        assert_eq!(names(&["10.0.0.5"], None), ["eth1"]);
        assert_eq!(names(&["eth9"], None), Vec::<&str>::new());
    }
}
