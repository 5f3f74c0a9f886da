//! The machine's network interfaces, the sockets of discovery, and what all sockets for media ask of the system.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream, UdpSocket};
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, Type};

use crate::discovery::interfaces::{Interface, describe_choice, leading_to};

/// The IPv4 addresses of this machine. A few system calls, short enough for any thread.
pub fn interfaces() -> io::Result<Vec<Interface>> {
    let all = if_addrs::get_if_addrs()?;
    Ok(all
        .into_iter()
        .filter_map(|interface| {
            let if_addrs::IfAddr::V4(v4) = &interface.addr else { return None };
            Some(Interface {
                address: v4.ip,
                prefix: v4.prefixlen,
                is_up: interface.is_oper_up(),
                is_point_to_point: interface.is_p2p(),
                name: interface.name,
            })
        })
        .collect())
}

/// A non-blocking UDP socket on all IPv4 addresses that may send broadcasts; `shared` with other programs on the same
/// port that share it too, so that several servers and clients run on one machine.
pub fn broadcast_socket(port: u16, shared: bool) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    if shared {
        socket.set_reuse_address(true)?;
        #[cfg(unix)]
        socket.set_reuse_port(true)?;
    }
    socket.set_broadcast(true)?;
    #[cfg(target_os = "linux")]
    ask_for_interfaces(&socket)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)).into())?;
    Ok(socket.into())
}

/// The interface, of those that the user named, by which `peer` is reached; none: as the system routes it.
///
/// # Errors
/// When there is none of these names.
pub fn interface_to(named: &[String], peer: IpAddr) -> io::Result<Option<Interface>> {
    if named.is_empty() {
        return Ok(None);
    }
    leading_to(&interfaces()?, named, peer).map(Option::<&Interface>::cloned).map_err(io::Error::other)
}

/// What to tell the user of a `peer` that does not answer, where several interfaces are in its subnet.
pub fn advice_for(peer: IpAddr) -> Option<String> {
    describe_choice(&interfaces().ok()?, peer)
}

/// Binds a socket to an address of `interface` and, for what it has to say to `peer`, to the interface itself: another
/// one may be in the same subnet.
///
/// # Errors
/// Also when the system does not allow that and would send by another interface.
pub fn bind_to(socket: &Socket, interface: &Interface, peer: IpAddr) -> io::Result<()> {
    // Elsewhere the address alone decides.
    #[cfg(target_os = "linux")]
    {
        // Further addresses of a card may have labels, as `eth0:1`.
        let device = interface.name.split(':').next().unwrap_or_default();
        if let Err(error) = socket.bind_device(Some(device.as_bytes())) {
            // Before Linux 5.7 it needs CAP_NET_RAW.
            tracing::debug!("cannot bind a socket to {device}: {error}");
            check_route(interface, peer)?;
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = peer;
    socket.bind(&SocketAddr::from((interface.address, 0)).into())
}

/// An error where the system sends to `peer` by another interface than this one.
pub fn check_route(interface: &Interface, peer: IpAddr) -> io::Result<()> {
    let probe = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    // Nothing is sent for it.
    probe.connect((peer, 9))?;
    let local = probe.local_addr()?.ip();
    if local == interface.address {
        return Ok(());
    }
    let Interface { name, address, .. } = interface;
    Err(io::Error::other(format!("the system sends to {peer} from {local}, not by {name} ({address})")))
}

/// A TCP connection by `interface`.
pub fn connect_by(interface: &Interface, peer: SocketAddr, limit: Option<Duration>) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(peer), Type::STREAM, Some(Protocol::TCP))?;
    bind_to(&socket, interface, peer.ip())?;
    match limit {
        Some(limit) => socket.connect_timeout(&peer.into(), limit)?,
        None => socket.connect(&peer.into())?,
    }
    Ok(socket.into())
}

/// How many files and sockets this process may have open, where the system says so.
pub fn open_files_limit() -> Option<u64> {
    #[cfg(unix)]
    {
        let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: the pointer is to a live rlimit.
        let known = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) } == 0;
        known.then_some(limit.rlim_cur)
    }
    #[cfg(not(unix))]
    None
}

/// Sends one datagram by this interface, whichever the system would choose, as two may be in one subnet; without a name
/// as it is routed. It comes from the address `from`, of which one interface may have several; the unspecified one is
/// any.
#[cfg(target_os = "linux")]
pub fn send_by(
    socket: &SockRef<'_>,
    interface: &str,
    from: Ipv4Addr,
    datagram: &[u8],
    to: SocketAddrV4,
) -> io::Result<usize> {
    use std::io::IoSlice;

    use socket2::{MsgHdr, SockAddr};

    /// `struct cmsghdr` (cmsg(3)) with `struct in_pktinfo` (ip(7)).
    #[repr(C)]
    struct Control {
        header: libc::cmsghdr,
        packet: libc::in_pktinfo,
    }
    const LENGTH: usize = size_of::<libc::cmsghdr>() + size_of::<libc::in_pktinfo>();
    // SAFETY: both are plain numbers, for which zero is a value.
    let mut control: Control = unsafe { std::mem::zeroed() };
    control.header.cmsg_len = LENGTH as _;
    (control.header.cmsg_level, control.header.cmsg_type) = (libc::IPPROTO_IP, libc::IP_PKTINFO);
    control.packet.ipi_ifindex = interface_index(interface) as _;
    control.packet.ipi_spec_dst.s_addr = from.to_bits().to_be();
    // SAFETY: it is no shorter than `LENGTH`, up to which every byte was initialised, and lives during the call.
    let control = unsafe { std::slice::from_raw_parts(std::ptr::from_ref(&control).cast::<u8>(), LENGTH) };
    let to = SockAddr::from(SocketAddr::V4(to));
    let slices = [IoSlice::new(datagram)];
    socket.sendmsg(&MsgHdr::new().with_addr(&to).with_buffers(&slices).with_control(control), 0)
}

/// Where the system cannot do that, as it is routed.
#[cfg(not(target_os = "linux"))]
pub fn send_by(
    socket: &SockRef<'_>,
    _interface: &str,
    _from: Ipv4Addr,
    datagram: &[u8],
    to: SocketAddrV4,
) -> io::Result<usize> {
    socket.send_to(datagram, &SocketAddr::V4(to).into())
}

/// Lets [`receive_by`] say by which interface datagrams come.
#[cfg(target_os = "linux")]
fn ask_for_interfaces(socket: &Socket) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    let value: libc::c_int = 1;
    // SAFETY: the descriptor is open for the life of `socket`, and the option's value is one c_int.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IP,
            libc::IP_PKTINFO,
            std::ptr::from_ref(&value).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Receives a datagram on a [`broadcast_socket`]: its length, its sender, and the index of the interface by which it
/// came, where the system says that.
#[cfg(target_os = "linux")]
pub fn receive_by(socket: &SockRef<'_>, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr, Option<u32>)> {
    use std::mem::MaybeUninit;

    use socket2::{MaybeUninitSlice, MsgHdrMut, SockAddr};

    // `struct cmsghdr` (cmsg(3)) and in it `struct in_pktinfo` (ip(7)), which the index begins.
    const HEADER: usize = size_of::<libc::cmsghdr>();
    let mut control = [MaybeUninit::new(0_u8); 2 * HEADER + 2 * size_of::<libc::in_pktinfo>()];
    let mut sender = SockAddr::from(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)));
    // SAFETY: what is initialised is still so afterwards: the system writes bytes into it.
    let data = unsafe { std::slice::from_raw_parts_mut(buffer.as_mut_ptr().cast::<MaybeUninit<u8>>(), buffer.len()) };
    let mut slices = [MaybeUninitSlice::new(data)];
    let mut message = MsgHdrMut::new().with_addr(&mut sender).with_buffers(&mut slices).with_control(&mut control);
    let length = socket.recvmsg(&mut message, 0)?;
    let has_control = message.control_len() >= HEADER + size_of::<libc::in_pktinfo>();
    // SAFETY: every byte of it was initialised above.
    let control = control.map(|byte| unsafe { byte.assume_init() });
    let kind = libc::IP_PKTINFO.to_ne_bytes();
    // The only one that was asked for; its type is the header's last field.
    let is_it = has_control && control[HEADER - kind.len()..HEADER] == kind;
    let index = is_it.then(|| u32::from_ne_bytes(std::array::from_fn(|at| control[HEADER + at])));
    let sender = sender.as_socket().ok_or_else(|| io::Error::other("a datagram without a sender"))?;
    Ok((length, sender, index))
}

#[cfg(not(target_os = "linux"))]
pub fn receive_by(socket: &SockRef<'_>, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr, Option<u32>)> {
    // SAFETY: what is initialised is still so afterwards: the system writes bytes into it.
    let data = unsafe {
        std::slice::from_raw_parts_mut(buffer.as_mut_ptr().cast::<std::mem::MaybeUninit<u8>>(), buffer.len())
    };
    let (length, sender) = socket.recv_from(data)?;
    let sender = sender.as_socket().ok_or_else(|| io::Error::other("a datagram without a sender"))?;
    Ok((length, sender, None))
}

#[cfg(target_os = "linux")]
pub fn interface_index(name: &str) -> u32 {
    // SAFETY: the name ends with a zero byte and lives during the call.
    std::ffi::CString::new(name).map_or(0, |name| unsafe { libc::if_nametoindex(name.as_ptr()) })
}

#[cfg(not(target_os = "linux"))]
pub fn interface_index(_name: &str) -> u32 {
    0
}

/// What the sockets for media ask for, bytes each way. The common default of 208 KB loses packets from 100 Mbit/s on.
const MEDIA_BUFFER: usize = 4 << 20;

/// DSCP CS5 (40) as the TOS byte: video ahead of bulk traffic, on Wi-Fi in the video queue (RFC 8325 section 4.2.3).
pub const MEDIA_TOS: u32 = 40 << 2;

/// Enlarges the buffers of a socket for media. Gives a message for each that the system grants less of, with what to
/// do.
pub fn grow_buffers(socket: &SockRef<'_>) -> Vec<String> {
    let receive = grow_buffer(socket, true);
    receive.into_iter().chain(grow_send_buffer(socket)).collect()
}

/// As [`grow_buffers`], for a socket that only sends.
pub fn grow_send_buffer(socket: &SockRef<'_>) -> Option<String> {
    grow_buffer(socket, false)
}

fn grow_buffer(socket: &SockRef<'_>, receive: bool) -> Option<String> {
    if force_buffer(socket, receive) {
        return None;
    }
    // Linux doubles what is asked for and reports the double.
    let (name, sysctl, set, granted) = if receive {
        ("receive", "net.core.rmem_max", socket.set_recv_buffer_size(MEDIA_BUFFER), socket.recv_buffer_size())
    } else {
        ("send", "net.core.wmem_max", socket.set_send_buffer_size(MEDIA_BUFFER), socket.send_buffer_size())
    };
    let granted = granted.unwrap_or(0);
    (set.is_err() || granted < MEDIA_BUFFER).then(|| {
        format!(
            "the UDP {name} buffer is {granted} bytes, less than the {MEDIA_BUFFER} that high bit rates need: run \
             `sudo sysctl -w {sysctl}={MEDIA_BUFFER}`"
        )
    })
}

/// As root, Linux grants more than `rmem_max` and `wmem_max`.
#[cfg(target_os = "linux")]
fn force_buffer(socket: &SockRef<'_>, receive: bool) -> bool {
    use std::os::fd::AsRawFd;
    let option = if receive { libc::SO_RCVBUFFORCE } else { libc::SO_SNDBUFFORCE };
    let value = MEDIA_BUFFER as libc::c_int;
    // SAFETY: the descriptor is open for the life of `socket`, and the option's value is one c_int.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            option,
            std::ptr::from_ref(&value).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    result == 0
}

#[cfg(not(target_os = "linux"))]
fn force_buffer(_socket: &SockRef<'_>, _receive: bool) -> bool {
    false
}

/// Whether the kernel holds data of this TCP connection that it has not sent yet, because the peer does not take it or
/// the network is too slow. False where the system cannot tell.
#[cfg(target_os = "linux")]
pub fn has_unsent(socket: &impl std::os::fd::AsRawFd) -> bool {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the request writes one c_int, and the descriptor is open for the life of `socket`.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCOUTQNSD, std::ptr::from_mut(&mut bytes)) };
    result == 0 && bytes > 0
}

#[cfg(not(target_os = "linux"))]
pub fn has_unsent<T>(_socket: &T) -> bool {
    false
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::io::Write;
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn a_datagram_says_by_which_interface_it_came() {
        let receiver = broadcast_socket(0, false).unwrap();
        receiver.set_nonblocking(false).unwrap();
        receiver.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        sender.send_to(b"hello", (Ipv4Addr::LOCALHOST, receiver.local_addr().unwrap().port())).unwrap();
        let mut buffer = [0; 100];
        let (length, from, index) = receive_by(&SockRef::from(&receiver), &mut buffer).unwrap();
        assert_eq!((&buffer[..length], from), (&b"hello"[..], sender.local_addr().unwrap()));
        assert_eq!(index, Some(interface_index("lo")));
    }

    #[test]
    fn a_connection_by_an_interface_comes_from_its_address() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = Ipv4Addr::new(127, 0, 0, 9);
        let lo = Interface { name: "lo".to_owned(), address, prefix: 8, is_up: true, is_point_to_point: false };
        let limit = Some(Duration::from_secs(10));
        let stream = connect_by(&lo, listener.local_addr().unwrap(), limit).unwrap();
        assert_eq!(stream.local_addr().unwrap().ip(), address);
        assert_eq!(listener.accept().unwrap().1, stream.local_addr().unwrap());
        assert!(check_route(&lo, Ipv4Addr::LOCALHOST.into()).is_err(), "it would be sent from 127.0.0.1");
    }

    #[test]
    fn what_a_peer_does_not_take_is_unsent() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (_peer, _) = listener.accept().unwrap();
        assert!(!has_unsent(&stream));
        stream.set_nonblocking(true).unwrap();
        while stream.write(&[0; 65_536]).is_ok() {}
        assert!(has_unsent(&stream));
    }
}
