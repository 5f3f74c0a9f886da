//! The sockets: one for each unicast address, and one for each multicast group on each interface.
//!
//! Unicast is routed by the system. Multicast leaves by every interface that discovery would use too: without a route
//! for it, as on an isolated LAN, the system knows none, and with one it knows only one.

use std::collections::HashSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rov_common::discovery::interfaces::{Target, one_for_each_subnet, select};
use rov_common::net::{MEDIA_TOS, grow_send_buffer, interfaces};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::Shared;
use crate::config::RtpConfig;

/// Adapters are plugged in and tethers come up while the server runs.
const LOOK_EVERY: Duration = Duration::from_secs(3);

/// Which port of a destination a packet goes to, as an offset from that of media.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Port {
    Media = 0,
    Rtcp = 1,
    /// Forward error correction: a stream of its own, so that receivers that do not know it are not disturbed.
    Repair = 2,
}

/// A destination and the way there.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Route {
    to: Ipv4Addr,
    /// None: as the system routes it.
    by: Option<Target>,
}

impl std::fmt::Display for Route {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.by {
            Some(target) => write!(f, "{} by {} ({})", self.to, target.interface, target.address),
            None => write!(f, "{}", self.to),
        }
    }
}

struct Link {
    route: Route,
    /// Not connected: a receiver that is not there yet is no error.
    socket: UdpSocket,
    /// Packets of the access unit that is being sent, taken by the system, and not.
    taken: usize,
    refused: usize,
    last_error: Option<io::Error>,
}

pub(super) struct Links {
    config: RtpConfig,
    host: IpAddr,
    interfaces: Vec<String>,
    links: Vec<Link>,
    /// Each is said once, until it works again.
    failing: HashSet<Route>,
    said_none: bool,
    said_buffer: bool,
    looked_at: Instant,
    shared: Arc<Shared>,
}

impl Links {
    pub fn new(config: &RtpConfig, host: IpAddr, interfaces: Vec<String>, shared: Arc<Shared>) -> Self {
        let mut this = Self {
            config: config.clone(),
            host,
            interfaces,
            links: Vec::new(),
            failing: HashSet::new(),
            said_none: false,
            said_buffer: false,
            looked_at: Instant::now(),
            shared,
        };
        this.look();
        this
    }

    /// When [`Self::refresh`] has something to do.
    pub fn due(&self) -> Instant {
        self.looked_at + LOOK_EVERY
    }

    /// Follows the interfaces of the machine as they come and go.
    pub fn refresh(&mut self, now: Instant) {
        if now >= self.due() {
            self.look();
        }
    }

    /// Sends to every destination; what the system does not take is counted and lost.
    pub fn send(&mut self, port: Port, packet: &[u8]) {
        for link in &mut self.links {
            let to = SocketAddrV4::new(link.route.to, self.config.port + port as u16);
            match link.socket.send_to(packet, to) {
                Ok(_) => {
                    link.taken += 1;
                    if port != Port::Rtcp {
                        self.shared.packets.fetch_add(1, Ordering::Relaxed);
                        self.shared.bytes.fetch_add(packet.len() as u64, Ordering::Relaxed);
                    }
                }
                Err(error) => {
                    link.refused += 1;
                    link.last_error = Some(error);
                    self.shared.errors.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    }

    /// To be called after each access unit. True when receivers somewhere need a keyframe: they got only a part of this
    /// one, or nothing of those before it. Where nothing goes at all, a keyframe would not help.
    pub fn access_unit_sent(&mut self) -> bool {
        let mut damaged = false;
        for link in &mut self.links {
            let (taken, refused) = (std::mem::take(&mut link.taken), std::mem::take(&mut link.refused));
            if refused > 0 {
                damaged |= taken > 0;
                if self.failing.insert(link.route.clone()) {
                    let error = link.last_error.take().map(|error| error.to_string()).unwrap_or_default();
                    let all = taken + refused;
                    tracing::warn!("RTP to {} is lost ({refused} of {all} packets), trying on: {error}", link.route);
                }
            } else if taken > 0 && self.failing.remove(&link.route) {
                damaged = true;
                tracing::info!("RTP goes to {} again", link.route);
            }
        }
        damaged
    }

    fn look(&mut self) {
        self.looked_at = Instant::now();
        let wanted = match self.routes() {
            Ok(wanted) => wanted,
            Err(error) => {
                // Those of the last look are the best guess; the next may succeed.
                tracing::debug!("cannot list the network interfaces: {error}");
                return;
            }
        };
        self.say_none(wanted.iter().any(|route| route.by.is_some()));
        self.links.retain(|link| {
            let stays = wanted.contains(&link.route);
            if !stays {
                tracing::info!("no more RTP to {}: the interface has gone", link.route);
            }
            stays
        });
        self.failing.retain(|route| wanted.contains(route));
        for link in &self.links {
            // An adapter that was plugged out and in again is another one to the system, although name and address are
            // the same. Should this fail, the next packet says so.
            if let (Some(target), true) = (&link.route.by, self.failing.contains(&link.route)) {
                let _ = SockRef::from(&link.socket).set_multicast_if_v4(&target.address);
            }
        }
        for route in wanted {
            if self.links.iter().any(|link| link.route == route) {
                continue;
            }
            match self.open(&route) {
                Ok(socket) => {
                    tracing::info!("RTP to {route}, port {}", self.config.port);
                    self.failing.remove(&route);
                    self.links.push(Link { route, socket, taken: 0, refused: 0, last_error: None });
                }
                Err(error) => {
                    if self.failing.insert(route.clone()) {
                        tracing::warn!("cannot send RTP to {route}, trying again every 3 s: {error}");
                    }
                }
            }
        }
    }

    /// Multicast without an interface is said once, until there is one.
    fn say_none(&mut self, any: bool) {
        let none = !any && self.config.hosts.iter().any(Ipv4Addr::is_multicast);
        if none && !self.said_none {
            let wanted = match self.interfaces.as_slice() {
                [] => "suitable".to_owned(),
                names => format!("one of --interface {}", names.join(" and ")),
            };
            tracing::warn!(
                "no RTP to multicast groups: no network interface is up that is {wanted}; looking every 3 s"
            );
        }
        self.said_none = none;
    }

    fn routes(&self) -> io::Result<Vec<Route>> {
        let (groups, addresses): (Vec<Ipv4Addr>, Vec<Ipv4Addr>) =
            self.config.hosts.iter().partition(|host| host.is_multicast());
        let mut routes: Vec<_> = addresses.into_iter().map(|to| Route { to, by: None }).collect();
        if !groups.is_empty() {
            for target in one_for_each_subnet(select(&interfaces()?, &self.interfaces, self.host)) {
                routes.extend(groups.iter().map(|&to| Route { to, by: Some(target.clone()) }));
            }
        }
        Ok(routes)
    }

    fn open(&mut self, route: &Route) -> io::Result<UdpSocket> {
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
        socket.set_nonblocking(true)?;
        let source = match &route.by {
            Some(target) => {
                socket.set_multicast_if_v4(&target.address)?;
                socket.set_multicast_ttl_v4(self.config.ttl.into())?;
                // Receivers on this machine.
                socket.set_multicast_loop_v4(true)?;
                IpAddr::V4(target.address)
            }
            None => self.host,
        };
        socket.bind(&SocketAddr::new(source, 0).into())?;
        if let Err(error) = socket.set_tos_v4(MEDIA_TOS) {
            tracing::debug!(%error, "DSCP not set");
        }
        if let Some(short) = grow_send_buffer(&SockRef::from(&socket))
            && !std::mem::replace(&mut self.said_buffer, true)
        {
            tracing::warn!("{short}");
        }
        Ok(socket.into())
    }
}
