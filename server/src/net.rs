//! The machine's network interfaces.

use std::io;

use rov_common::discovery::interfaces::Interface;

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
