//! The UDP socket of WebRTC on both sides: large buffers, segmentation offload (GSO, GRO), datagrams in batches, the local address
//! of each.

use std::io::{self, ErrorKind, IoSliceMut};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use quinn_udp::{BATCH_SIZE, RecvMeta, Transmit, UdpSockRef, UdpSocketState};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use crate::net::{MEDIA_TOS, grow_buffers};

/// Largest receive: 64 KiB holds what receive offload gathers.
const RECEIVE_BYTES: usize = 65_536;

/// Send errors are said no more often.
const SAID_AGAIN: Duration = Duration::from_secs(10);

/// A socket for media at `address`, port 0 meaning any; and what the system does not grant it, with what to do.
pub fn open(address: SocketAddr) -> io::Result<(UdpSocket, Vec<String>)> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
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
    fn send(&self, local: IpAddr, peer: SocketAddr, bytes: &[u8], segment: Option<usize>) -> io::Result<()> {
        let src_ip = (!local.is_unspecified()).then_some(local);
        let transmit = Transmit { destination: peer, ecn: None, contents: bytes, segment_size: segment, src_ip };
        self.state.try_send(UdpSockRef::from(self.io), &transmit)
    }

    /// Sends a run of datagrams of `segment` bytes each, the last of which may be shorter. False when the socket is full and the
    /// rest of the run was not sent.
    pub fn transmit(&mut self, local: IpAddr, peer: SocketAddr, run: &[u8], segment: usize) -> bool {
        // Read each time: the kernel may turn out not to offload, and then this becomes 1.
        let step = self.state.max_gso_segments().max(1) * segment.max(1);
        for part in run.chunks(step) {
            match self.send(local, peer, part, Some(segment)) {
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
