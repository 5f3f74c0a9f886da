//! The machine's network interfaces, the sockets of discovery, and what all sockets for media ask of the system.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};

use socket2::{Domain, Protocol, SockRef, Socket, Type};

use crate::discovery::interfaces::Interface;

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
    socket.set_nonblocking(true)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)).into())?;
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

/// Sends one datagram by this interface, whichever the system would choose: two may be in one subnet. Where the system cannot
/// do that, as it is routed.
pub fn send_by(socket: &SockRef<'_>, interface: &str, datagram: &[u8], to: SocketAddrV4) -> io::Result<usize> {
    let is_set = set_interface(socket, interface_index(interface));
    let sent = socket.send_to(datagram, &SocketAddr::V4(to).into());
    if is_set {
        set_interface(socket, 0);
    }
    sent
}

#[cfg(target_os = "linux")]
fn interface_index(name: &str) -> u32 {
    // SAFETY: the name ends with a zero byte and lives during the call.
    std::ffi::CString::new(name).map_or(0, |name| unsafe { libc::if_nametoindex(name.as_ptr()) })
}

/// For what is sent from now on; 0: as it is routed.
#[cfg(target_os = "linux")]
fn set_interface(socket: &SockRef<'_>, index: u32) -> bool {
    use std::os::fd::AsRawFd;
    let value = index.to_be();
    // SAFETY: the descriptor is open for the life of `socket`, and the option's value is one 32-bit number.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IP,
            libc::IP_UNICAST_IF,
            std::ptr::from_ref(&value).cast(),
            size_of::<u32>() as libc::socklen_t,
        )
    };
    result == 0
}

#[cfg(not(target_os = "linux"))]
fn interface_index(_name: &str) -> u32 {
    0
}

#[cfg(not(target_os = "linux"))]
fn set_interface(_socket: &SockRef<'_>, _index: u32) -> bool {
    false
}

/// What the sockets for media ask for, bytes each way. The common default of 208 KB loses packets from 100 Mbit/s on.
const MEDIA_BUFFER: usize = 4 << 20;

/// DSCP CS5 (40) as the TOS byte: video ahead of bulk traffic, on Wi-Fi in the video queue (RFC 8325 section 4.2.3).
pub const MEDIA_TOS: u32 = 40 << 2;

/// Enlarges the buffers of a socket for media. Gives a message for each that the system grants less of, with what to do.
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
            "the UDP {name} buffer is {granted} bytes, less than the {MEDIA_BUFFER} that high bit rates need: run `sudo \
             sysctl -w {sysctl}={MEDIA_BUFFER}`"
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

/// Whether the kernel holds data of this TCP connection that it has not sent yet, because the peer does not take it or the
/// network is too slow. False where the system cannot tell.
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
