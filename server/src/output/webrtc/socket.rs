//! The UDP socket that all viewers share: large buffers, segmentation offload (GSO), the local address of each datagram.

use std::io::{self, ErrorKind, IoSliceMut};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use quinn_udp::{BATCH_SIZE, RecvMeta, Transmit as QuinnTransmit, UdpSockRef, UdpSocketState};
use rov_common::net::{MEDIA_TOS, grow_buffers};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::engine::Transmit;

/// Largest receive: 64 KiB holds what receive offload gathers.
const RECEIVE_BYTES: usize = 65_536;

/// Send errors are said no more often.
const SAID_AGAIN: Duration = Duration::from_secs(10);

pub struct MediaSocket {
    io: mio::net::UdpSocket,
    state: UdpSocketState,
    local: SocketAddr,
    buffers: Vec<Vec<u8>>,
    /// When a send error was last said: they are frequent when a link is down.
    failing: Option<Instant>,
}

impl MediaSocket {
    /// Binds to `host` and `port`, 0 meaning any.
    pub fn bind(host: IpAddr, port: u16) -> Result<Self> {
        let address = SocketAddr::new(host, port);
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))
            .context("cannot open a UDP socket for media")?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into()).with_context(|| {
            format!("cannot bind UDP {address} for media: choose another port with --media-port (0: any)")
        })?;
        for short in grow_buffers(&SockRef::from(&socket)) {
            tracing::warn!("{short}");
        }
        if address.is_ipv4()
            && let Err(error) = socket.set_tos_v4(MEDIA_TOS)
        {
            tracing::debug!(%error, "DSCP not set");
        }
        Self::new(socket.into())
    }

    fn new(socket: UdpSocket) -> Result<Self> {
        let state = UdpSocketState::new(UdpSockRef::from(&socket)).context("cannot set up the media socket")?;
        let local = socket.local_addr()?;
        let buffers = vec![vec![0; RECEIVE_BYTES]; BATCH_SIZE];
        Ok(Self { io: mio::net::UdpSocket::from_std(socket), state, local, buffers, failing: None })
    }

    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    pub(super) fn io(&mut self) -> &mut mio::net::UdpSocket {
        &mut self.io
    }

    /// Receives what has arrived, as one batch: `(local, peer, datagram)` each. False when there was nothing.
    pub(super) fn receive(&mut self, mut each: impl FnMut(&mut Outbound<'_>, SocketAddr, SocketAddr, &[u8])) -> bool {
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

    pub(super) fn outbound(&mut self) -> Outbound<'_> {
        Outbound { io: &self.io, state: &self.state, failing: &mut self.failing }
    }
}

/// The sending half.
pub(super) struct Outbound<'a> {
    io: &'a mio::net::UdpSocket,
    state: &'a UdpSocketState,
    failing: &'a mut Option<Instant>,
}

impl Outbound<'_> {
    fn send(&self, local: IpAddr, peer: SocketAddr, bytes: &[u8], segment: Option<usize>) -> io::Result<()> {
        let src_ip = (!local.is_unspecified()).then_some(local);
        let transmit = QuinnTransmit { destination: peer, ecn: None, contents: bytes, segment_size: segment, src_ip };
        self.state.try_send(UdpSockRef::from(self.io), &transmit)
    }
}

impl Transmit for Outbound<'_> {
    fn transmit(&mut self, local: IpAddr, peer: SocketAddr, run: &[u8], segment: usize) -> bool {
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
                        tracing::warn!(%peer, %error, "cannot send to a viewer");
                    }
                }
            }
        }
        true
    }
}
