//! Being found on the LAN: a broadcast once a second on each interface, and an answer to each query
//! (`docs/discovery.md`).
//!
//! Limits: IPv4 only, and only the subnets that this machine is in. Nothing here is authenticated; an announcement says
//! where to ask, and the key that it names is proven by the WebRTC session.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context;
use rov_common::discovery::interfaces::{
    Interface, Target, chosen, describe_rivals, is_neighbour, rivals, select, target,
};
use rov_common::discovery::{Announcement, MAX_DATAGRAM, Message, decode, encode};
use rov_common::net::{broadcast_socket, interfaces, send_by};
use socket2::SockRef;
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};
use uuid::Uuid;

use crate::identity::card_addresses;

const SYSTEMD_ID: &str = "/etc/machine-id";
const ANNOUNCE_EVERY: Duration = Duration::from_secs(1);
/// Cables are plugged and Wi-Fi comes up while the server runs.
const LOOK_FOR_INTERFACES_EVERY: Duration = Duration::from_secs(3);
/// A client asks three times in its first 150 ms and then once a second; twenty of them may start at the same moment.
const ANSWERS_PER_SECOND: u32 = 50;
const ANSWERS_PER_SECOND_AND_PEER: u32 = 20;
/// Other servers on this machine that are warned of.
const MAX_RIVALS: usize = 16;
/// After a receive error, so that one that persists does not take a whole core.
const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(50);

/// What discovery is configured with.
#[derive(Clone, Debug)]
pub struct DiscoveryConfig {
    /// UDP; 0 takes a free one, for tests.
    pub port: u16,
    /// The address of `--host` that the server listens on: only the interface with this address is used, unless it is
    /// unspecified.
    pub host: IpAddr,
    /// Names or addresses of the interfaces to use; empty means every suitable one.
    pub interfaces: Vec<String>,
}

impl DiscoveryConfig {
    /// The one address at which the server can be reached: clients connect to where an announcement comes from.
    fn own_address(&self) -> Option<Ipv4Addr> {
        match self.host {
            IpAddr::V4(host) if !host.is_unspecified() => Some(host),
            _ => None,
        }
    }
}

/// A bound socket that does not answer yet.
#[derive(Debug)]
pub struct Discovery {
    socket: std::net::UdpSocket,
    port: u16,
    config: DiscoveryConfig,
}

/// Takes the port, which several servers on one machine share.
///
/// # Errors
/// When another program has the port without sharing it. The message names the port and the flags that help.
pub fn bind(config: DiscoveryConfig) -> anyhow::Result<Discovery> {
    let port = config.port;
    let socket = broadcast_socket(port, true).with_context(|| {
        format!(
            "cannot use UDP port {port} for discovery: choose another one with --discovery-port, or do without by \
                 --no-discovery"
        )
    })?;
    let port = socket.local_addr().context("cannot read the port of the discovery socket")?.port();
    Ok(Discovery { socket, port, config })
}

impl Discovery {
    /// The UDP port, also where 0 was asked for.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Announces and answers until `shutdown`. `announcement` is called for each datagram, so that it may change; it
    /// must not block.
    ///
    /// # Errors
    /// When the socket cannot be handed to the runtime. Trouble with interfaces and peers is logged, and it carries on.
    pub async fn run(
        self,
        announcement: impl Fn() -> Announcement + Send + Sync + 'static,
        shutdown: CancellationToken,
    ) -> anyhow::Result<()> {
        let socket = UdpSocket::from_std(self.socket).context("cannot use the discovery socket")?;
        let mut sender = Sender::new(self.config, self.port);
        // Before the first query, which would find no interface to be answered on.
        sender.look_for_interfaces();
        let mut limit = AnswerLimit::new(Instant::now());
        let mut ignored = Ignored::default();
        let mut tick = tokio::time::interval(ANNOUNCE_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // One byte more than a message may have, so that a longer datagram is told from one that was cut.
        let mut buffer = [0; MAX_DATAGRAM + 1];
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                _ = tick.tick() => {
                    ignored.report();
                    sender.announce(&socket, &announcement()).await;
                }
                received = socket.recv_from(&mut buffer) => match received {
                    Ok((length, peer)) => match decode(&buffer[..length]) {
                        Ok(Message::Query(query)) => {
                            let announcement = announcement();
                            if !query.matches(&announcement) || !sender.may_answer(peer) {
                                continue;
                            }
                            if limit.allows(Instant::now(), peer.ip()) {
                                sender.answer(&socket, peer, &announcement).await;
                            } else {
                                ignored.count(peer, "too many queries");
                            }
                        }
                        // This server's own, and those of others.
                        Ok(Message::Announce(other)) => {
                            if let Some(warning) = sender.rival(peer.ip(), &other, &announcement()) {
                                warn!("{warning}");
                            }
                        }
                        Err(error) => ignored.count(peer, error),
                    },
                    Err(error) => {
                        // Windows reports here that an earlier answer found no listener, and that a datagram was too
                        // long.
                        ignored.count(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)), error);
                        tokio::time::sleep(PAUSE_AFTER_ERROR).await;
                    }
                }
            }
        }
    }
}

/// An id that stays the same over restarts and addresses: a hash (UUID version 5) of the machine's id, the server's
/// name, the port of `--signal-port`, and `--host` where that is one address. By these, two servers of one name on one
/// machine differ: a client that has lost one must not show the other's picture.
///
/// Where the machine has no id, its hardware address or else its host name takes the place, and a warning says so.
pub fn server_id(name: &str, host: IpAddr, port: u16) -> String {
    let machine = match machine_id(Path::new(SYSTEMD_ID), machine_uid::get) {
        Ok(id) if is_usable_machine_id(&id) => id,
        unusable => {
            let reason = unusable.map_or_else(|error| error.to_string(), |id| format!("it is {id:?}"));
            if let Some(address) = card_addresses().into_iter().next() {
                warn!("no machine id ({reason}): the server's id comes from the hardware address {address}");
                address
            } else {
                let host = hostname::get().map(|host| host.to_string_lossy().into_owned()).unwrap_or_default();
                warn!(
                    "no machine id ({reason}): the server's id comes from the host name {host:?}, which must be unique \
                     on this LAN"
                );
                host
            }
        }
    };
    id_from(&machine, name, host, port)
}

/// That of systemd, in this file, before the `other`, D-Bus's, which a copied system image keeps when only the former is renewed.
fn machine_id<E>(of_systemd: &Path, other: impl FnOnce() -> Result<String, E>) -> Result<String, E> {
    match std::fs::read_to_string(of_systemd) {
        Ok(id) if is_usable_machine_id(id.trim()) => Ok(id.trim().to_owned()),
        _ => other(),
    }
}

/// Hashed, because the machine id itself should not be sent over a network (machine-id(5)).
fn id_from(machine: &str, name: &str, host: IpAddr, port: u16) -> String {
    const NAMESPACE: Uuid = Uuid::from_u128(0x4b0d_5f6e_93a1_4c0e_8f4d_2a6b_7d10_c9e3);
    let mut text = format!("{machine}\n{name}\n{port}");
    if !host.is_unspecified() {
        text += &format!("\n{host}");
    }
    Uuid::new_v5(&NAMESPACE, text.as_bytes()).to_string()
}

/// Images that were never booted say `uninitialized`, some boards give zeros.
fn is_usable_machine_id(id: &str) -> bool {
    id.len() >= 8 && id != "uninitialized" && id.chars().any(|c| !matches!(c, '0' | '-'))
}

/// Knows where to send, and which interfaces are in trouble.
struct Sender {
    config: DiscoveryConfig,
    port: u16,
    /// `None` before the first look.
    targets: Option<Vec<Target>>,
    /// That are used, and have no broadcasts.
    silent: Vec<Interface>,
    looked_at: Instant,
    /// Logged once each, until a datagram leaves again.
    failing: HashSet<Target>,
    /// Ids of servers on this machine that send RTP where this one does, which is logged once each.
    rivals: HashSet<String>,
}

impl Sender {
    fn new(config: DiscoveryConfig, port: u16) -> Self {
        Self {
            config,
            port,
            targets: None,
            silent: Vec::new(),
            looked_at: Instant::now(),
            failing: HashSet::new(),
            rivals: HashSet::new(),
        }
    }

    async fn announce(&mut self, socket: &UdpSocket, announcement: &Announcement) {
        self.look_for_interfaces();
        let datagram = encode(&Message::Announce(announcement.clone()));
        for target in self.targets.iter().flatten() {
            let to = SocketAddrV4::new(target.broadcast, self.port);
            let from = self.config.own_address().unwrap_or(target.address);
            let send = || send_by(&SockRef::from(socket), &target.interface, from, &datagram, to);
            match socket.async_io(Interest::WRITABLE, send).await {
                Ok(_) => {
                    if self.failing.remove(target) {
                        info!("announcing on {} again", target.interface);
                    }
                }
                Err(error) => {
                    if self.failing.insert(target.clone()) {
                        warn!("cannot announce on {} to {}:{}: {error}", target.interface, target.broadcast, self.port);
                    }
                }
            }
        }
    }

    async fn answer(&self, socket: &UdpSocket, peer: SocketAddr, announcement: &Announcement) {
        let SocketAddr::V4(to) = peer else { return };
        let datagram = encode(&Message::Announce(announcement.clone()));
        let from = self.config.own_address().unwrap_or(Ipv4Addr::UNSPECIFIED);
        let send = || send_by(&SockRef::from(socket), "", from, &datagram, to);
        match socket.async_io(Interest::WRITABLE, send).await {
            Ok(_) => debug!("answered a discovery query of {peer}"),
            Err(error) => debug!("cannot answer the discovery query of {peer}: {error}"),
        }
    }

    /// Whoever is restricted to some interfaces does not talk to the others: the address they would see is not the
    /// server's.
    fn may_answer(&self, peer: SocketAddr) -> bool {
        let restricted = !self.config.interfaces.is_empty() || !self.config.host.is_unspecified();
        peer.port() != 0 && (!restricted || is_neighbour(self.targets.as_deref().unwrap_or_default(), peer.ip()))
    }

    /// What to warn of where another server of this machine sends RTP to the same destination, once: nothing else
    /// complains, as nobody has to bind it, and players that open it mix both.
    fn rival(&mut self, peer: IpAddr, other: &Announcement, own: &Announcement) -> Option<String> {
        let place = |announcement: &Announcement| announcement.rtp.map(|rtp| (rtp.host, rtp.port));
        let is_here = peer.is_loopback() || self.targets.iter().flatten().any(|target| peer == target.address);
        let (host, port) = place(own).filter(|own| place(other) == Some(*own))?;
        // Anybody can announce on loopback.
        let is_new = other.id != own.id && self.rivals.len() < MAX_RIVALS;
        (is_here && is_new && self.rivals.insert(other.id.clone())).then(|| {
            format!(
                "the server {} on this machine sends RTP to {host}:{port}, too: players that open it show either; give \
                 one of both another --rtp-port",
                other.name
            )
        })
    }

    fn look_for_interfaces(&mut self) {
        if self.targets.is_some() && self.looked_at.elapsed() < LOOK_FOR_INTERFACES_EVERY {
            return;
        }
        self.looked_at = Instant::now();
        let (targets, silent) = match interfaces() {
            Ok(all) => {
                let chosen = chosen(&all, &self.config.interfaces, self.config.host);
                let silent = chosen.into_iter().filter(|interface| target(interface).is_none()).cloned().collect();
                (select(&all, &self.config.interfaces, self.config.host), silent)
            }
            Err(error) => {
                // The old ones are the best guess; the next look may succeed.
                debug!("cannot list the network interfaces: {error}");
                (self.targets.clone().unwrap_or_default(), self.silent.clone())
            }
        };
        if self.targets.as_ref() == Some(&targets) && self.silent == silent {
            return;
        }
        for Interface { name, address, .. } in &silent {
            warn!(
                "{name} ({address}) has no broadcasts, so nobody finds this server there: viewers need rov-client \
                 --host {address}"
            );
        }
        for pair in rivals(&targets) {
            warn!("{}", describe_rivals(pair));
        }
        if targets.is_empty() && silent.is_empty() {
            warn!(
                "no network interface to announce on (--host {}, interfaces wanted: {})",
                self.config.host,
                if self.config.interfaces.is_empty() { "all".to_owned() } else { self.config.interfaces.join(", ") }
            );
        } else if !targets.is_empty() {
            let list: Vec<_> =
                targets.iter().map(|target| format!("{} ({})", target.interface, target.broadcast)).collect();
            info!("announcing on {}, UDP port {}", list.join(", "), self.port);
        }
        self.failing.retain(|target| targets.contains(target));
        (self.targets, self.silent) = (Some(targets), silent);
    }
}

/// Answers are a little longer than queries, and a sender's address can be forged: their number is bounded, and so is
/// the memory.
pub(crate) struct AnswerLimit {
    second: Instant,
    answers: u32,
    by_peer: HashMap<IpAddr, u32>,
}

impl AnswerLimit {
    pub fn new(now: Instant) -> Self {
        Self { second: now, answers: 0, by_peer: HashMap::new() }
    }

    pub fn allows(&mut self, now: Instant, peer: IpAddr) -> bool {
        if now.saturating_duration_since(self.second) >= Duration::from_secs(1) {
            *self = Self::new(now);
        }
        // Checked first: it bounds the number of peers that are remembered.
        if self.answers >= ANSWERS_PER_SECOND {
            return false;
        }
        let answers = self.by_peer.entry(peer).or_default();
        if *answers >= ANSWERS_PER_SECOND_AND_PEER {
            return false;
        }
        *answers += 1;
        self.answers += 1;
        true
    }
}

/// Datagrams without an effect, reported with each announcement and so once a second at most.
#[derive(Default)]
struct Ignored {
    count: u64,
    last: String,
}

impl Ignored {
    fn count(&mut self, peer: SocketAddr, reason: impl std::fmt::Display) {
        // Only the first of a second is kept as an example, so that a flood costs no formatting.
        if self.count == 0 {
            self.last = format!("{peer}: {reason}");
        }
        self.count += 1;
    }

    fn report(&mut self) {
        if self.count > 0 {
            warn!("discovery ignored {} datagrams, the first from {}", self.count, self.last);
        }
        *self = Self::default();
    }
}

#[cfg(test)]
#[path = "discovery_tests.rs"]
mod tests;
