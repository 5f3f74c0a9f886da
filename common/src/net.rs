//! The machine's network interfaces and the sockets of discovery: the one module of this crate that does I/O.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};

use socket2::{Domain, Protocol, Socket, Type};

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
