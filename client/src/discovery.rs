//! Finding servers on the LAN: ask by broadcast on each interface, and listen to what servers announce (`docs/discovery.md`).
//!
//! Limits: IPv4, and the subnets that this machine is in. What was found is what somebody on the LAN claims; nothing is authenticated.

use std::collections::BTreeMap;
use std::future::pending;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::Context;
use rov_common::discovery::interfaces::{Interface, Target, is_neighbour, select, target};
use rov_common::discovery::{Announcement, DecodeError, MAX_DATAGRAM, Message, decode, encode};
use rov_common::net;
use tokio::net::UdpSocket;
use tracing::debug;

pub use rov_common::discovery::Query as Wanted;

/// Queries after the start of a search; then one a second. Three at the start, because a broadcast over Wi-Fi is not repeated when it is
/// lost.
const FIRST_QUERIES: [Duration; 3] = [Duration::ZERO, Duration::from_millis(50), Duration::from_millis(150)];
const QUERY_EVERY: Duration = Duration::from_secs(1);
/// After the first of several possible servers: long enough for the others to answer the same query.
const SETTLE: Duration = Duration::from_millis(150);
/// Three announcements and a half.
const FORGET_AFTER: Duration = Duration::from_millis(3500);
/// A search whose future was not polled for so long was given up, and not merely cancelled by a `select!` around it.
const RESUME_WITHIN: Duration = Duration::from_secs(1);
/// More are ignored, so that a forger cannot fill the memory.
const MAX_FOUND: usize = 64;
const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(50);
/// Datagrams thrown away before a search; a socket buffer of the usual size holds fewer.
const MAX_STALE_DATAGRAMS: usize = 2000;

/// A server that was heard.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    pub announcement: Announcement,
    /// Of HTTP signalling: where the datagram came from, with the port that it names.
    pub address: SocketAddr,
    /// When it was last heard at this address.
    pub seen: Instant,
}

/// The sockets of discovery, and what was found with them.
pub struct Discovery {
    port: u16,
    interfaces: Vec<String>,
    /// Asks, and receives the answers.
    asking: UdpSocket,
    /// Receives announcements; the reason where that is impossible.
    listening: Result<UdpSocket, String>,
    targets: Vec<Target>,
    /// What goes wrong on an interface, by its name.
    trouble: BTreeMap<String, String>,
    newer_version: Option<SocketAddr>,
    /// In the order heard.
    found: Vec<Found>,
    /// The search that is going on, kept here so that it survives the cancellation of its future.
    search: Option<Search>,
}

struct Search {
    wanted: Wanted,
    started: Instant,
    queries: u32,
    first_match: Option<Instant>,
    polled: Instant,
}

/// Opens the sockets; must be called inside a tokio runtime. Interfaces are given by name or address; none means every suitable one.
///
/// # Errors
/// When no UDP socket can be had at all. A taken discovery port is no error: asking works without it.
pub fn bind(port: u16, interfaces: Vec<String>) -> anyhow::Result<Discovery> {
    let asking = net::broadcast_socket(0, false)
        .and_then(UdpSocket::from_std)
        .context("cannot open a UDP socket to look for servers")?;
    let listening = net::broadcast_socket(port, true).and_then(UdpSocket::from_std).map_err(|error| error.to_string());
    Ok(Discovery {
        port,
        interfaces,
        asking,
        listening,
        targets: Vec::new(),
        trouble: BTreeMap::new(),
        newer_version: None,
        found: Vec::new(),
        search: None,
    })
}

impl Discovery {
    /// Collects servers for all of `timeout`: to list them.
    pub async fn search(&mut self, wanted: &Wanted, timeout: Duration) -> Vec<Found> {
        self.collect(wanted, timeout, None).await
    }

    /// The servers that match, as soon as there is one; empty after `timeout`.
    ///
    /// Without a filter it waits 150 ms after the first server to see whether there are several. Only servers that are heard during the
    /// search count. Dropping the future loses nothing: the next call with the same `wanted` carries on, with a new timeout.
    pub async fn wait_for(&mut self, wanted: &Wanted, timeout: Duration) -> Vec<Found> {
        let settle = if wanted.is_open() { SETTLE } else { Duration::ZERO };
        self.collect(wanted, timeout, Some(settle)).await
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
            "{asked}; {listened}{newer}. Check that the server runs, and without --no-discovery; that both machines are in the same \
             subnet; that no firewall blocks UDP port {port}; and that the server's --host is not the address of another network"
        )
    }

    async fn collect(&mut self, wanted: &Wanted, timeout: Duration, settle: Option<Duration>) -> Vec<Found> {
        self.begin_or_resume(wanted, Instant::now());
        let deadline = Instant::now() + timeout;
        loop {
            let now = Instant::now();
            let Some(search) = &mut self.search else { return Vec::new() };
            search.polled = now;
            let settled = settle.and_then(|settle| search.first_match.map(|first| first + settle));
            let end = settled.map_or(deadline, |settled| settled.min(deadline));
            if now >= end {
                return self.finish(now);
            }
            let next_query = search.started + query_time(search.queries);
            if now >= next_query {
                // Counted first: cancelled while it sends, it should not send the same again.
                search.queries += 1;
                self.ask(wanted).await;
                continue;
            }
            tokio::select! {
                received = self.receive() => match received {
                    Ok((peer, datagram)) => self.take(peer, &datagram, Instant::now()),
                    Err(error) => {
                        debug!("cannot receive discovery datagrams: {error}");
                        tokio::time::sleep(PAUSE_AFTER_ERROR).await;
                    }
                },
                () = tokio::time::sleep_until(end.min(next_query).into()) => {}
            }
        }
    }

    fn begin_or_resume(&mut self, wanted: &Wanted, now: Instant) {
        let resumable =
            |search: &Search| search.wanted == *wanted && now.saturating_duration_since(search.polled) < RESUME_WITHIN;
        if self.search.as_ref().is_some_and(resumable) {
            return;
        }
        // What waits in the sockets may be as old as the last search, from a server that is gone.
        let mut buffer = [0; MAX_DATAGRAM + 1];
        for socket in std::iter::once(&self.asking).chain(self.listening.as_ref().ok()) {
            for _ in 0..MAX_STALE_DATAGRAMS {
                if socket.try_recv_from(&mut buffer).is_err() {
                    break;
                }
            }
        }
        self.search = Some(Search { wanted: wanted.clone(), started: now, queries: 0, first_match: None, polled: now });
    }

    fn finish(&mut self, now: Instant) -> Vec<Found> {
        let Some(search) = self.search.take() else { return Vec::new() };
        forget(&mut self.found, now);
        let mut found: Vec<_> = self
            .found
            .iter()
            .filter(|found| found.seen >= search.started && search.wanted.matches(&found.announcement))
            .cloned()
            .collect();
        found.sort_by(|a, b| {
            let key =
                |found: &Found| (found.announcement.name.clone(), found.announcement.id.clone(), found.address.port());
            key(a).cmp(&key(b))
        });
        found
    }

    /// Looks for interfaces each time: Wi-Fi may come up during the search.
    async fn ask(&mut self, wanted: &Wanted) {
        match net::interfaces() {
            Ok(all) => self.targets = targets(&all, &self.interfaces),
            Err(error) => debug!("cannot list the network interfaces: {error}"),
        }
        let datagram = encode(&Message::Query(wanted.clone()));
        for target in &self.targets {
            match self.asking.send_to(&datagram, (target.broadcast, self.port)).await {
                Ok(_) => self.trouble.remove(&target.interface),
                Err(error) => self.trouble.insert(target.interface.clone(), error.to_string()),
            };
        }
    }

    /// The next datagram of either socket. Safe to cancel, as `recv_from` is.
    async fn receive(&self) -> io::Result<(SocketAddr, Vec<u8>)> {
        // One byte more than a message may have, so that a longer datagram is told from one that was cut.
        let (mut answer, mut announcement) = ([0; MAX_DATAGRAM + 1], [0; MAX_DATAGRAM + 1]);
        let listen = async {
            match &self.listening {
                Ok(socket) => socket.recv_from(&mut announcement).await,
                Err(_) => pending().await,
            }
        };
        tokio::select! {
            received = self.asking.recv_from(&mut answer) => received.map(|(length, peer)| (peer, answer[..length].to_vec())),
            received = listen => received.map(|(length, peer)| (peer, announcement[..length].to_vec())),
        }
    }

    fn take(&mut self, peer: SocketAddr, datagram: &[u8], now: Instant) {
        // An answer comes back on the interface that was asked on; an announcement may come from anywhere.
        if !self.interfaces.is_empty() && !is_neighbour(&self.targets, peer.ip()) {
            return;
        }
        match decode(datagram) {
            Ok(Message::Announce(announcement)) => {
                let Some(search) = &mut self.search else { return };
                if search.wanted.matches(&announcement) {
                    search.first_match.get_or_insert(now);
                }
                remember(&mut self.found, announcement, peer.ip(), search.started, now);
            }
            // Another client's, or this one's own.
            Ok(Message::Query(_)) => {}
            Err(DecodeError::NewerVersion(_)) => self.newer_version = Some(peer),
            Err(error) => debug!("ignored a discovery datagram of {peer}: {error}"),
        }
    }
}

/// When query number `number` is due after the start of a search.
fn query_time(number: u32) -> Duration {
    match FIRST_QUERIES.get(number as usize) {
        Some(&time) => time,
        None => QUERY_EVERY * (number - FIRST_QUERIES.len() as u32 + 1),
    }
}

/// Enters a server, or refreshes it.
///
/// A server that is heard at several addresses (Ethernet and Wi-Fi) is one entry, at the address that was heard first in this search.
/// Servers on one machine that were given the same name have the same id, and are told apart by their signalling ports.
fn remember(found: &mut Vec<Found>, announcement: Announcement, ip: IpAddr, search_started: Instant, now: Instant) {
    forget(found, now);
    let address = SocketAddr::new(ip, announcement.signal_port);
    let same = |known: &Found| known.announcement.id == announcement.id && known.address.port() == address.port();
    match found.iter().position(same) {
        Some(at) if found[at].address == address || found[at].seen < search_started => {
            found[at] = Found { announcement, address, seen: now };
        }
        Some(_) => {}
        None if found.len() < MAX_FOUND => found.push(Found { announcement, address, seen: now }),
        None => debug!("ignored server {} at {address}: {MAX_FOUND} are known already", announcement.id),
    }
}

fn forget(found: &mut Vec<Found>, now: Instant) {
    found.retain(|found| now.saturating_duration_since(found.seen) < FORGET_AFTER);
}

/// Where to ask: on the chosen interfaces, or else on every suitable one and then on loopback.
fn targets(all: &[Interface], chosen: &[String]) -> Vec<Target> {
    let mut targets = select(all, chosen, Ipv4Addr::UNSPECIFIED.into());
    if chosen.is_empty() {
        // A server on this machine with `--host 127.0.0.1` hears nothing else. Last, so that one on all addresses is known by another.
        let loopback = all.iter().find(|interface| interface.address.is_loopback()).and_then(target);
        targets.extend(loopback.filter(|loopback| !targets.contains(loopback)));
    }
    targets
}

#[cfg(test)]
#[path = "discovery_tests.rs"]
mod tests;
