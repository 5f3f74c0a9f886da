//! Finding servers on the LAN: ask by broadcast on each interface, and listen to what servers announce
//! (`docs/discovery.md`).
//!
//! Limits: IPv4, and the subnets that this machine is in. What was found is what somebody on the LAN claims; a session
//! proves it.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::pending;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::Context;
use rov_common::discovery::interfaces::{
    Interface, Target, chosen, describe_rivals, is_neighbour, rivals, select, target,
};
use rov_common::discovery::{DecodeError, MAX_DATAGRAM, Message, Query, decode, encode};
use rov_common::net;
use rov_common::sleep::Sleep;
use rov_common::sync::lock;
use socket2::SockRef;
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tracing::{debug, warn};

use crate::heard::Heard;
pub use crate::heard::{FORGET_AFTER, Found};

/// After the last new server a list is complete: all answer the same queries.
const QUIET: Duration = Duration::from_millis(500);
/// Queries after the start of a search; then one a second. Three at the start, because a broadcast over Wi-Fi is not
/// repeated when it is lost.
const FIRST_QUERIES: [Duration; 3] = [Duration::ZERO, Duration::from_millis(50), Duration::from_millis(150)];
const QUERY_EVERY: Duration = Duration::from_secs(1);
/// While a server is watched: the others are kept in view, so that they are known when it falls silent.
const QUERY_WHILE_WATCHING: Duration = Duration::from_secs(3);
/// Whoever was not listened for so long, as in a machine that was suspended, has old datagrams waiting.
const STANDSTILL: Duration = Duration::from_secs(1);
const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(50);
/// Datagrams thrown away before a search; a socket buffer of the usual size holds fewer.
const MAX_STALE_DATAGRAMS: usize = 2000;

/// The sockets of discovery, and what is heard with them.
pub struct Discovery {
    port: u16,
    interfaces: Vec<String>,
    /// Asks, and receives the answers.
    asking: UdpSocket,
    /// Receives announcements; the reason where that is impossible.
    listening: Result<UdpSocket, String>,
    targets: Vec<Target>,
    /// Interfaces that are to be used and have no broadcasts.
    silent: Vec<String>,
    /// What goes wrong on an interface, by its name.
    trouble: BTreeMap<String, String>,
    newer_version: Option<SocketAddr>,
    heard: Arc<Mutex<Heard>>,
    /// Queries of the search that is going on; it began then.
    began: Instant,
    queries: u32,
    next_query: Instant,
    /// When it was listened last.
    listened: Instant,
    sleep: Sleep,
}

/// Opens the sockets; must be called inside a tokio runtime. Interfaces are given by name or address; none means every
/// suitable one.
///
/// # Errors
/// When no UDP socket can be had at all. A taken discovery port is no error: asking works without it.
pub fn bind(port: u16, interfaces: Vec<String>) -> anyhow::Result<Discovery> {
    let asking = net::broadcast_socket(0, false)
        .and_then(UdpSocket::from_std)
        .context("cannot open a UDP socket to look for servers")?;
    let listening = net::broadcast_socket(port, true).and_then(UdpSocket::from_std).map_err(|error| error.to_string());
    let now = Instant::now();
    Ok(Discovery {
        port,
        interfaces,
        asking,
        listening,
        targets: Vec::new(),
        silent: Vec::new(),
        trouble: BTreeMap::new(),
        newer_version: None,
        heard: Arc::default(),
        began: now,
        queries: 0,
        next_query: now,
        listened: now,
        sleep: Sleep::default(),
    })
}

impl Discovery {
    /// What is heard, by all that this does.
    pub fn heard(&self) -> &Arc<Mutex<Heard>> {
        &self.heard
    }

    /// Collects servers, to list them: until half a second after the last new one, at most for `timeout`. `on_new` is
    /// given each as soon as it is heard.
    pub async fn search(
        &mut self,
        name: Option<&str>,
        timeout: Duration,
        mut on_new: impl FnMut(&Found),
    ) -> Vec<Found> {
        lock(&self.heard).want(name.map(str::to_owned));
        let began = self.begin();
        let mut end = began + timeout;
        let mut found: Vec<Found> = Vec::new();
        while Instant::now() < end {
            tokio::select! {
                () = self.hear() => {}
                () = tokio::time::sleep_until(end.into()) => {}
            }
            let mut heard = lock(&self.heard).since(began);
            heard.retain(|server| name.is_none_or(|name| server.announcement.name == name));
            let is_new = |server: &&Found| !found.iter().any(|known| known.is_server_of(server));
            for server in heard.iter().filter(is_new) {
                on_new(server);
                end = (Instant::now() + QUIET).min(began + timeout);
            }
            found = heard;
        }
        found
    }

    /// Begins a search: asks at once, and then again and again. Gives its beginning: who is there was heard since then.
    pub fn begin(&mut self) -> Instant {
        let now = Instant::now();
        (self.began, self.queries, self.next_query) = (now, 0, now);
        self.drain();
        now
    }

    /// Keeps what is heard up to date while a server is watched.
    pub async fn listen(&mut self) -> Infallible {
        loop {
            self.next_query = self.next_query.max(Instant::now()) + QUERY_WHILE_WATCHING;
            let until = self.next_query;
            while Instant::now() < until {
                self.hear_until(until).await;
            }
            self.ask().await;
        }
    }

    /// Asks if that is due, and waits until something is heard, or until the next query is due. Safe to cancel.
    pub async fn hear(&mut self) {
        let now = Instant::now();
        if now >= self.next_query {
            // Counted first: cancelled while it sends, it should not send the same again.
            self.queries += 1;
            self.next_query = (self.began + query_time(self.queries)).max(now);
            self.ask().await;
        }
        self.hear_until(self.next_query).await;
    }

    async fn hear_until(&mut self, until: Instant) {
        let stood_still = std::mem::replace(&mut self.listened, Instant::now()).elapsed() > STANDSTILL;
        if !self.sleep.look().is_zero() || stood_still {
            self.drain();
        }
        tokio::select! {
            received = self.receive() => match received {
                Ok(Received { datagram, peer, interface }) if self.is_wanted(peer, interface) => {
                    self.take(peer, &datagram, Instant::now());
                }
                Ok(_) => {}
                Err(error) => {
                    debug!("cannot receive discovery datagrams: {error}");
                    tokio::time::sleep(PAUSE_AFTER_ERROR).await;
                }
            },
            () = tokio::time::sleep_until(until.min(Instant::now() + STANDSTILL / 2).into()) => {}
        }
        self.listened = Instant::now();
    }

    /// Throws away what waits in the sockets: it may be from a server that is gone.
    fn drain(&self) {
        let mut buffer = [0; MAX_DATAGRAM + 1];
        for socket in std::iter::once(&self.asking).chain(self.listening.as_ref().ok()) {
            for _ in 0..MAX_STALE_DATAGRAMS {
                if socket.try_recv_from(&mut buffer).is_err() {
                    break;
                }
            }
        }
    }

    /// Where servers were looked for, and what to check when none was found: sentences for the user.
    pub fn describe(&self) -> String {
        let port = self.port;
        let asked: Vec<_> = self
            .targets
            .iter()
            .map(|target| match self.trouble.get(&target.interface) {
                Some(trouble) => format!("{} ({}; failed: {trouble})", target.interface, target.broadcast),
                None => format!("{} ({})", target.interface, target.broadcast),
            })
            .collect();
        let asked = match asked.is_empty() {
            true if !self.silent.is_empty() => {
                format!("{} has no broadcasts: give the server's address by --host", self.silent.join(", "))
            }
            true if self.interfaces.is_empty() => "found no network interface to ask on".to_owned(),
            true => format!("found no network interface named {}", self.interfaces.join(", ")),
            false => format!("asked on {}, UDP port {port}", asked.join(", ")),
        };
        let listened = match &self.listening {
            Ok(_) => format!("listened for announcements on UDP port {port}"),
            Err(reason) => format!("could not listen for announcements on UDP port {port}: {reason}"),
        };
        let newer = match self.newer_version {
            Some(peer) => format!(". A server at {peer} speaks a newer version: update this program"),
            None => String::new(),
        };
        format!(
            "{asked}; {listened}{newer}. Check that the server runs, and without --no-discovery; that both machines \
             are in the same subnet; that no firewall blocks UDP port {port}; and that the server's --host is not the \
             address of another network"
        )
    }

    /// Looks for interfaces each time: Wi-Fi may come up during the search.
    async fn ask(&mut self) {
        match net::interfaces() {
            Ok(all) => {
                let targets = targets(&all, &self.interfaces);
                if targets != self.targets {
                    for pair in rivals(&targets) {
                        warn!("{}; or choose by --interface", describe_rivals(pair));
                    }
                }
                self.targets = targets;
                let chosen = chosen(&all, &self.interfaces, Ipv4Addr::UNSPECIFIED.into());
                let silent = chosen.into_iter().filter(|interface| target(interface).is_none());
                self.silent = silent.map(|interface| interface.name.clone()).collect();
            }
            Err(error) => debug!("cannot list the network interfaces: {error}"),
        }
        let datagram = encode(&Message::Query(Query::default()));
        for target in &self.targets {
            let to = SocketAddrV4::new(target.broadcast, self.port);
            let send = || net::send_by(&SockRef::from(&self.asking), &target.interface, target.address, &datagram, to);
            match self.asking.async_io(Interest::WRITABLE, send).await {
                Ok(_) => self.trouble.remove(&target.interface),
                Err(error) => self.trouble.insert(target.interface.clone(), error.to_string()),
            };
        }
    }

    /// The next datagram of either socket. Safe to cancel, as `recv_from` is.
    async fn receive(&self) -> io::Result<Received> {
        let listen = async {
            match &self.listening {
                Ok(socket) => receive(socket).await,
                Err(_) => pending().await,
            }
        };
        tokio::select! {
            received = receive(&self.asking) => received,
            received = listen => received,
        }
    }

    /// By the interfaces that the user named, if any: both of two may be in one subnet, with a server at the same
    /// address of each.
    fn is_wanted(&self, peer: SocketAddr, interface: Option<u32>) -> bool {
        let came_by = |target: &Target| {
            // What this machine sends to itself comes by whatever the system likes.
            let is_it = |index| peer.ip() == target.address || net::interface_index(&target.interface) == index;
            interface.is_none_or(is_it) && is_neighbour(std::slice::from_ref(target), peer.ip())
        };
        self.interfaces.is_empty() || self.targets.iter().any(came_by)
    }

    fn take(&mut self, peer: SocketAddr, datagram: &[u8], now: Instant) {
        match decode(datagram) {
            Ok(Message::Announce(announcement)) => {
                lock(&self.heard).hear(announcement, peer.ip(), now);
            }
            // Another client's, or this one's own.
            Ok(Message::Query(_)) => {}
            Err(DecodeError::NewerVersion(_)) => self.newer_version = Some(peer),
            Err(error) => debug!("ignored a discovery datagram of {peer}: {error}"),
        }
    }
}

/// A datagram, and the index of the interface by which it came, where that is known.
struct Received {
    datagram: Vec<u8>,
    peer: SocketAddr,
    interface: Option<u32>,
}

async fn receive(socket: &UdpSocket) -> io::Result<Received> {
    // One byte more than a message may have, so that a longer datagram is told from one that was cut.
    let mut buffer = [0; MAX_DATAGRAM + 1];
    let receive = || net::receive_by(&SockRef::from(socket), &mut buffer);
    let (length, peer, interface) = socket.async_io(Interest::READABLE, receive).await?;
    Ok(Received { datagram: buffer[..length].to_vec(), peer, interface })
}

/// When query number `number` is due after the start of a search.
fn query_time(number: u32) -> Duration {
    match FIRST_QUERIES.get(number as usize) {
        Some(&time) => time,
        None => QUERY_EVERY * (number - FIRST_QUERIES.len() as u32 + 1),
    }
}

/// Where to ask: on the chosen interfaces, or else on every suitable one and then on loopback.
fn targets(all: &[Interface], chosen: &[String]) -> Vec<Target> {
    let mut targets = select(all, chosen, Ipv4Addr::UNSPECIFIED.into());
    if chosen.is_empty() {
        // A server on this machine with `--host 127.0.0.1` hears nothing else. Last, so that one on all addresses is
        // known by another.
        let loopback = all.iter().find(|interface| interface.address.is_loopback()).and_then(target);
        targets.extend(loopback.filter(|loopback| !targets.contains(loopback)));
    }
    targets
}

#[cfg(test)]
#[path = "discovery_tests.rs"]
mod tests;
