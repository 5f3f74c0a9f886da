//! The UDP socket of WebRTC on both sides: large buffers, segmentation offload (GSO, GRO), datagrams in batches, the
//! local address of each.

#[cfg(target_os = "linux")]
use std::io::IoSlice;
use std::io::{self, ErrorKind, IoSliceMut};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use quinn_udp::{BATCH_SIZE, RecvMeta, Transmit, UdpSockRef, UdpSocketState};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
#[cfg(target_os = "linux")]
use socket2::{MsgHdr, SockAddr};

use crate::discovery::interfaces::Interface;
use crate::net::{MEDIA_TOS, bind_to, grow_buffers};

/// Largest receive: 64 KiB holds what receive offload gathers.
const RECEIVE_BYTES: usize = 65_536;

/// Send errors are said no more often.
const SAID_AGAIN: Duration = Duration::from_secs(10);

/// A socket for media at `address`, port 0 meaning any; and what the system does not grant it, with what to do.
pub fn open(address: SocketAddr) -> io::Result<(UdpSocket, Vec<String>)> {
    bound(address, |socket| socket.bind(&address.into()))
}

/// As [`open`], at any port, to reach `peer` by this interface.
pub fn open_by(interface: &Interface, peer: IpAddr) -> io::Result<(UdpSocket, Vec<String>)> {
    let address = SocketAddr::from((interface.address, 0));
    bound(address, |socket| bind_to(socket, interface, peer))
}

fn bound(address: SocketAddr, bind: impl FnOnce(&Socket) -> io::Result<()>) -> io::Result<(UdpSocket, Vec<String>)> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    bind(&socket)?;
    let short = grow_buffers(&SockRef::from(&socket));
    if address.is_ipv4()
        && let Err(error) = socket.set_tos_v4(MEDIA_TOS)
    {
        tracing::debug!(%error, "DSCP not set");
    }
    Ok((socket.into(), short))
}

pub struct MediaSocket {
    io: mio::net::UdpSocket,
    state: UdpSocketState,
    local: SocketAddr,
    buffers: Vec<Vec<u8>>,
    /// When a send error was last said: they are frequent when a link is down.
    failing: Option<Instant>,
}

impl MediaSocket {
    /// `socket` is one of [`open`].
    pub fn new(socket: UdpSocket) -> io::Result<Self> {
        let state = UdpSocketState::new(UdpSockRef::from(&socket))?;
        let local = socket.local_addr()?;
        let buffers = vec![vec![0; RECEIVE_BYTES]; BATCH_SIZE];
        Ok(Self { io: mio::net::UdpSocket::from_std(socket), state, local, buffers, failing: None })
    }

    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    pub fn io(&mut self) -> &mut mio::net::UdpSocket {
        &mut self.io
    }

    /// Receives what has arrived, as one batch: `(local, peer, datagram)` each. False when there was nothing.
    pub fn receive(&mut self, mut each: impl FnMut(&mut Outbound<'_>, SocketAddr, SocketAddr, &[u8])) -> bool {
        let mut meta = [RecvMeta::default(); BATCH_SIZE];
        let result = {
            let mut slices: Vec<IoSliceMut<'_>> = self.buffers.iter_mut().map(|b| IoSliceMut::new(b)).collect();
            self.state.recv(UdpSockRef::from(&self.io), &mut slices, &mut meta)
        };
        let count = match result {
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
            // ICMP errors of former sends surface here; the next receive goes on.
            Err(error) => {
                tracing::debug!(%error, "receiving on the media socket");
                return matches!(
                    error.kind(),
                    ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset | ErrorKind::Interrupted
                );
            }
        };
        let Self { io, state, buffers, failing, local } = self;
        let mut out = Outbound { io, state, failing };
        for (meta, buffer) in meta.iter().zip(buffers.iter()).take(count) {
            let ip = meta.dst_ip.unwrap_or(local.ip());
            for datagram in buffer[..meta.len].chunks(meta.stride.max(1)) {
                each(&mut out, SocketAddr::new(ip, local.port()), meta.addr, datagram);
            }
        }
        true
    }

    pub fn outbound(&mut self) -> Outbound<'_> {
        Outbound { io: &self.io, state: &self.state, failing: &mut self.failing }
    }
}

/// The sending half.
pub struct Outbound<'a> {
    io: &'a mio::net::UdpSocket,
    state: &'a UdpSocketState,
    failing: &'a mut Option<Instant>,
}

impl Outbound<'_> {
    fn send(&self, local: IpAddr, peer: SocketAddr, bytes: &[u8], segment: usize) -> io::Result<()> {
        #[cfg(target_os = "linux")]
        if peer.is_ipv4() {
            let rest = match send_marked(self.io, local, peer, bytes, segment) {
                // What the kernel or the card cannot do, quinn-udp finds out, and does without from then on.
                Err(error) if matches!(error.raw_os_error(), Some(libc::EIO | libc::EINTR)) => bytes,
                // The same, or this machine does not have the address any more: that shows by one datagram, and must
                // not cost all other viewers the segmentation offload.
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) && bytes.len() > segment => {
                    let (first, rest) = bytes.split_at(segment);
                    send_marked(self.io, local, peer, first, segment)?;
                    rest
                }
                result => return result,
            };
            return self.send_plainly(local, peer, rest, segment);
        }
        self.send_plainly(local, peer, bytes, segment)
    }

    fn send_plainly(&self, local: IpAddr, peer: SocketAddr, bytes: &[u8], segment: usize) -> io::Result<()> {
        let src_ip = (!local.is_unspecified()).then_some(local);
        let transmit = Transmit { destination: peer, ecn: None, contents: bytes, segment_size: Some(segment), src_ip };
        self.state.try_send(UdpSockRef::from(self.io), &transmit)
    }

    /// Sends a run of datagrams of `segment` bytes each, the last of which may be shorter. False when the socket is
    /// full and the rest of the run was not sent.
    pub fn transmit(&mut self, local: IpAddr, peer: SocketAddr, run: &[u8], segment: usize) -> bool {
        // Read each time: the kernel may turn out not to offload, and then this becomes 1.
        let step = self.state.max_gso_segments().max(1) * segment.max(1);
        for part in run.chunks(step) {
            match self.send(local, peer, part, segment) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
                Err(error) => {
                    // The path is down, or the peer's port closed: ICE notices and ends the session.
                    let now = Instant::now();
                    if self.failing.is_none_or(|said| now.saturating_duration_since(said) >= SAID_AGAIN) {
                        *self.failing = Some(now);
                        tracing::warn!(%peer, %error, "cannot send");
                    }
                }
            }
        }
        true
    }
}

/// Sends datagrams of `segment` bytes each, in one call, from the address `local`. Not by quinn-udp, which writes a TOS
/// byte of its own into every message: that of the socket, with our DSCP, would count for nothing.
#[cfg(target_os = "linux")]
fn send_marked(
    io: &mio::net::UdpSocket,
    local: IpAddr,
    peer: SocketAddr,
    bytes: &[u8],
    segment: usize,
) -> io::Result<()> {
    let mut control = Vec::with_capacity(64);
    // A `struct cmsghdr`, its data, and padding (cmsg(3)).
    let mut add = |level: libc::c_int, kind: libc::c_int, data: &[u8]| {
        let len = size_of::<libc::cmsghdr>() + data.len();
        control.extend(len.to_ne_bytes());
        control.extend(level.to_ne_bytes());
        control.extend(kind.to_ne_bytes());
        control.extend(data);
        control.resize(control.len().next_multiple_of(size_of::<usize>()), 0);
    };
    if bytes.len() > segment {
        add(libc::SOL_UDP, libc::UDP_SEGMENT, &(segment as u16).to_ne_bytes());
    }
    if let IpAddr::V4(local) = local
        && !local.is_unspecified()
    {
        // A `struct in_pktinfo` (ip(7)): the source is its second field.
        let mut info = [0; size_of::<libc::in_pktinfo>()];
        info[4..8].copy_from_slice(&local.octets());
        add(libc::IPPROTO_IP, libc::IP_PKTINFO, &info);
    }
    let (peer, buffers) = (SockAddr::from(peer), [IoSlice::new(bytes)]);
    let message = MsgHdr::new().with_addr(&peer).with_buffers(&buffers).with_control(&control);
    SockRef::from(io).sendmsg(&message, 0).map(drop)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::mem::MaybeUninit;

    use socket2::{MaybeUninitSlice, MsgHdrMut};

    use super::*;

    /// A datagram and its TOS byte (ip(7)).
    fn receive(socket: &UdpSocket) -> (Vec<u8>, u8) {
        let mut data = [MaybeUninit::uninit(); 2000];
        let mut control = [MaybeUninit::uninit(); 64];
        let mut slices = [MaybeUninitSlice::new(&mut data)];
        let mut message = MsgHdrMut::new().with_buffers(&mut slices).with_control(&mut control);
        let len = SockRef::from(socket).recvmsg(&mut message, 0).expect("a datagram");
        let control_len = message.control_len();
        assert!(control_len > size_of::<libc::cmsghdr>(), "no TOS");
        // SAFETY: the system has written so many bytes.
        let byte = |byte: &MaybeUninit<u8>| unsafe { byte.assume_init() };
        (data[..len].iter().map(byte).collect(), byte(&control[size_of::<libc::cmsghdr>()]))
    }

    #[test]
    fn every_datagram_of_a_run_is_marked_as_video_and_comes_from_the_address_that_is_wanted() {
        let receiver = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        receiver.set_read_timeout(Some(Duration::from_secs(10))).expect("a limit");
        SockRef::from(&receiver).set_recv_tos_v4(true).expect("TOS");
        let to = receiver.local_addr().expect("an address");
        let (socket, _) = open("0.0.0.0:0".parse().expect("an address")).expect("a socket");
        let mut socket = MediaSocket::new(socket).expect("a media socket");
        let run: Vec<u8> = (0..=u8::MAX).cycle().take(2_500).collect();
        for local in ["127.0.0.1", "0.0.0.0"] {
            let local = local.parse().expect("an address");
            assert!(socket.outbound().transmit(local, to, &run, 1_000));
            for part in run.chunks(1_000) {
                let (datagram, tos) = receive(&receiver);
                assert!(datagram == part, "{} bytes", datagram.len());
                assert_eq!(u32::from(tos), MEDIA_TOS);
            }
        }
        let from: IpAddr = "127.0.0.9".parse().expect("an address");
        assert!(socket.outbound().transmit(from, to, b"x", 1));
        assert_eq!(receiver.recv_from(&mut [0; 9]).expect("a datagram").1.ip(), from);
    }

    #[test]
    fn an_address_that_is_gone_costs_the_others_no_segmentation_offload() {
        let receiver = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        receiver.set_read_timeout(Some(Duration::from_secs(10))).expect("a limit");
        let to = receiver.local_addr().expect("an address");
        let (socket, _) = open("0.0.0.0:0".parse().expect("an address")).expect("a socket");
        let mut socket = MediaSocket::new(socket).expect("a media socket");
        let segments = socket.state.max_gso_segments();
        // Linux before 5.4 says EINVAL of any address that it does not have, later ones of such a one alone.
        let gone: IpAddr = "239.255.0.1".parse().expect("an address");
        for run in [&[0; 2_500][..], &[0; 10]] {
            assert!(socket.outbound().transmit(gone, to, run, 1_000), "the socket is not full");
        }
        let error = socket.outbound().send(gone, to, &[0; 2_500], 1_000).expect_err("no such address");
        assert_eq!(error.raw_os_error(), Some(libc::EINVAL));
        assert_eq!(socket.state.max_gso_segments(), segments);
        let here = "127.0.0.1".parse().expect("an address");
        assert!(socket.outbound().transmit(here, to, &[7; 2_500], 1_000));
        let mut datagram = [0; 2_000];
        for length in [1_000, 1_000, 500] {
            assert_eq!((receiver.recv(&mut datagram).expect("a datagram"), datagram[0]), (length, 7));
        }
    }
}
