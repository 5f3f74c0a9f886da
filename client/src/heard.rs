//! The servers that are heard, and which of them is watched: the one rule of `docs/discovery.md`. Pure: time is passed
//! in.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use rov_common::codec::Codec;
use rov_common::discovery::Announcement;
use tracing::debug;

use crate::receive::{Transport, Way};
use crate::viewer::{Offer, Question, is_same_offer};

/// Three announcements and a half.
pub const FORGET_AFTER: Duration = Duration::from_millis(3500);
/// More are ignored, so that a forger cannot fill the memory.
const MAX_FOUND: usize = 64;
/// Of one IP address, so that one host cannot fill the list: a server for each camera of a vehicle.
const MAX_FOUND_AT_ONE_IP: usize = 8;
/// After a search began: long enough for a server to answer although its first answer was lost. Another one is offered
/// only then.
const PATIENCE: Duration = Duration::from_secs(1);
/// With `--auto` another server, alone on the network, is taken after this, which is counted down.
const TAKEN_AFTER: Duration = Duration::from_secs(10);
/// An address whose server did not prove its key is not tried again for so long.
const REFUSED_FOR: Duration = Duration::from_secs(30);
/// An address where no session came about stands behind others for so long. Short, as most servers that say no are only
/// starting.
const FAILED_FOR: Duration = Duration::from_secs(3);
/// One that did not answer at all, so many times as long as it was waited for: it costs no more than a fifth of the
/// time. Not where the watched server was.
const FAILED_PER_WAIT: u32 = 4;
/// No server ends and is there again so quickly: two of one key that are heard closer together are two machines.
const RESTART: Duration = Duration::from_millis(100);
/// Addresses of each kind; the oldest gives way.
const MAX_SHUNNED: usize = 64;
/// Servers whose keys were proved; the one that was watched longest ago gives way.
const MAX_PROVED: usize = 8;

/// A server that was heard, at one address.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    pub announcement: Announcement,
    /// Of HTTP signalling: where the datagram came from, with the port that it names.
    pub address: SocketAddr,
    /// When it was heard there first, and last.
    pub first: Instant,
    pub seen: Instant,
    /// When its present `run` was heard there first.
    run_since: Instant,
    /// The run before that, and when that one and this were heard in turns last: two machines have that address.
    run_before: Option<u32>,
    in_turns: Option<Instant>,
    /// It was heard beside another machine with its id and key: when one of the two starts again, its number tells no
    /// more which it is.
    has_twin: bool,
}

impl Found {
    pub fn new(announcement: Announcement, address: SocketAddr, now: Instant) -> Self {
        let (run_before, in_turns, has_twin) = (None, None, false);
        Self { announcement, address, first: now, seen: now, run_since: now, run_before, in_turns, has_twin }
    }

    /// Heard again.
    fn hear(&mut self, announcement: Announcement, now: Instant) {
        let (before, run) = (self.announcement.run, announcement.run);
        if before != run {
            // After another start it is never the former one again.
            if run.is_some() && self.run_before == run {
                self.in_turns = Some(now);
            }
            (self.run_before, self.run_since) = (before, now);
        }
        (self.announcement, self.seen) = (announcement, now);
    }

    /// Whether the two are one server at two addresses, as of Ethernet and Wi-Fi. Without a key nobody can say.
    pub fn is_server_of(&self, other: &Self) -> bool {
        let (this, that) = (&self.announcement, &other.announcement);
        let is_same = this.id == that.id && this.key == that.key;
        is_same && (self.address == other.address || this.key.is_some() && !self.is_beside(other))
    }

    /// Of two with one id and key: whether they are two machines, as of a card that was copied with its key. Each start
    /// of a server has a number of its own: two numbers are two machines, unless one came after the other.
    fn is_beside(&self, other: &Self) -> bool {
        let (earlier, later) = if self.run_since <= other.run_since { (self, other) } else { (other, self) };
        differs(earlier.announcement.run, later.announcement.run)
            && (self.has_twin || other.has_twin || later.run_since < earlier.seen + RESTART)
    }

    fn name(&self) -> String {
        match self.announcement.name.as_str() {
            "" => self.address.to_string(),
            name => name.to_owned(),
        }
    }

    fn offer(&self, label: String) -> Offer {
        let Announcement { id, key, .. } = &self.announcement;
        Offer { label, address: self.address.to_string(), id: id.clone(), key: key.clone() }
    }

    /// Whether an offer is of this server.
    fn is_offered_as(&self, offer: &Offer) -> bool {
        let announced = &self.announcement;
        self.address.to_string() == offer.address && announced.id == offer.id && announced.key == offer.key
    }
}

/// The server that is watched, or was last.
#[derive(Clone, Debug)]
struct Watched {
    /// As it was heard when it was chosen, or followed.
    server: Found,
    /// When there was a sign of it last: an announcement from where it is watched, or video.
    alive: Instant,
}

/// A server whose key a session proved.
#[derive(Clone, Debug)]
struct Proved {
    announcement: Announcement,
    ip: IpAddr,
    /// RTP and RTSP as its own statistics named them in such a session. Announcements prove nothing.
    ways: Vec<Way>,
}

impl Proved {
    fn is_of(&self, announcement: &Announcement) -> bool {
        self.announcement.id == announcement.id && self.announcement.key == announcement.key
    }
}

/// Addresses with a bad mark, and until when.
#[derive(Debug, Default)]
struct Shunned(Vec<(SocketAddr, Instant)>);

impl Shunned {
    fn add(&mut self, address: SocketAddr, now: Instant, lasts: Duration) {
        self.0.retain(|(known, until)| *known != address && *until > now);
        if self.0.len() >= MAX_SHUNNED {
            self.0.remove(0);
        }
        self.0.push((address, now + lasts));
    }

    fn has(&self, address: SocketAddr, now: Instant) -> bool {
        self.0.iter().any(|(known, until)| *known == address && *until > now)
    }
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq)]
pub enum Next {
    /// Watch this one.
    Watch {
        server: Box<Found>,
        /// It is the same only if it proves its key.
        must_prove: bool,
        /// What to tell the pilot, where it is another server than before, or the same elsewhere.
        said: Option<String>,
    },
    /// Several can be meant, or none is the right one.
    Ask(Question),
    Listen,
}

/// What the user said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wish {
    /// `--name`.
    pub name: Option<String>,
    /// `--auto`: a server that is alone is as good as another.
    pub any: bool,
    /// By which transport alone.
    pub transport: Option<Transport>,
}

impl Wish {
    pub fn names(&self, announcement: &Announcement) -> bool {
        self.name.as_ref().is_none_or(|name| *name == announcement.name)
    }

    /// Whether the session will prove the key that is announced: WebRTC does, by DTLS.
    fn proves(&self, announcement: &Announcement) -> bool {
        let by_webrtc = self.transport.is_none_or(|transport| transport == Transport::WebRtc);
        by_webrtc && can_prove(announcement)
    }

    /// Whether the two are one entry: one server at two addresses that can prove so, or one of them on this machine,
    /// where no other machine sends from.
    fn is_one(&self, this: &Found, that: &Found) -> bool {
        let is_local = this.address.ip().is_loopback() || that.address.ip().is_loopback();
        let can_prove = self.proves(&this.announcement) && self.proves(&that.announcement);
        this.is_server_of(that) && (this.address == that.address || is_local || can_prove)
    }
}

/// What is kept when there is no room for all, the least first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Worth {
    Other,
    /// It has the name that the user wants.
    Named,
    /// It says that it is the server that is watched.
    SameKey,
    /// It says so where that is watched.
    Watched,
}

#[derive(Debug, Default)]
pub struct Heard {
    /// The name of the server that the user wants, if that matters.
    wanted: Option<String>,
    /// In the order first heard; one for each id, key and address. Kept when they fall silent, while there is room: who
    /// was heard beside the server that is watched does not take its place later.
    found: Vec<Found>,
    watched: Option<Watched>,
    /// The one that was watched before others took its place.
    left: Option<Watched>,
    /// Those whose key a session proved, the last watched last.
    proved: Vec<Proved>,
    /// Those that claimed a key and did not prove it.
    refused: Shunned,
    /// Those where no session came about.
    failed: Shunned,
    /// What is asked, and since when.
    asked: Option<(Vec<Offer>, Instant)>,
    /// What the pilot chose while another one was watched, until it is tried.
    chosen: Option<Offer>,
}

impl Heard {
    /// Servers of this name always have room.
    pub fn want(&mut self, name: Option<String>) {
        self.wanted = name;
    }

    /// Enters a server, or refreshes it. True when it was not known here.
    pub fn hear(&mut self, announcement: Announcement, ip: IpAddr, now: Instant) -> bool {
        let address = SocketAddr::new(ip, announcement.signal_port);
        let is_it = |known: &Found| {
            let of = &known.announcement;
            known.address == address && of.id == announcement.id && of.key == announcement.key
        };
        let known = self.found.iter().position(is_it);
        // Forged with its address, it would lead from WebRTC to what proves nothing, as MJPEG does: not while the server itself is
        // heard.
        if known.is_some_and(|at| {
            let known = &self.found[at];
            can_prove(&known.announcement) && !can_prove(&announcement) && !is_old(known, now)
        }) {
            debug!("ignored an announcement of server {} at {address} that proves nothing", announcement.id);
            return false;
        }
        if let Some(watched) = &mut self.watched
            && is_it(&watched.server)
        {
            watched.alive = watched.alive.max(now);
            watched.server.announcement.run = announcement.run;
        }
        if let Some(at) = known {
            let known = &mut self.found[at];
            let is_back = is_old(known, now);
            known.hear(announcement, now);
            self.note_twins(at);
            return is_back;
        }
        if !self.make_room(&announcement, address, now) {
            debug!("ignored server {} at {address}: too many are known already", announcement.id);
            return false;
        }
        self.found.push(Found::new(announcement, address, now));
        self.note_twins(self.found.len() - 1);
        true
    }

    /// Whether this one and others are machines with one id and key.
    fn note_twins(&mut self, at: usize) {
        let heard = self.found[at].clone();
        let of = &heard.announcement;
        let is_twin = |found: &Found| {
            let its = &found.announcement;
            let is_same = of.key.is_some() && its.id == of.id && its.key == of.key;
            is_same && found.address != heard.address && found.is_beside(&heard)
        };
        let twins: Vec<_> = (0..self.found.len()).filter(|&other| is_twin(&self.found[other])).collect();
        if !twins.is_empty() {
            self.found[at].has_twin = true;
        }
        for twin in twins {
            self.found[twin].has_twin = true;
        }
    }

    /// For one more, if need be in the place of one that is silent or matters less. False: it does not get any.
    fn make_room(&mut self, announcement: &Announcement, address: SocketAddr, now: Instant) -> bool {
        let is_there = |found: &Found| found.address.ip() == address.ip();
        let has_its_share = self.found.iter().filter(|found| is_there(found)).count() >= MAX_FOUND_AT_ONE_IP;
        if !has_its_share && self.found.len() < MAX_FOUND {
            return true;
        }
        let worth = self.worth(announcement, address);
        let least = self
            .found
            .iter()
            .enumerate()
            .filter(|(_, found)| !has_its_share || is_there(found))
            .map(|(at, found)| (self.worth(&found.announcement, found.address), found.seen, at))
            .filter(|&(its_worth, _, at)| its_worth < worth || is_old(&self.found[at], now))
            .min();
        let Some((.., at)) = least else { return false };
        self.found.remove(at);
        true
    }

    fn worth(&self, announcement: &Announcement, address: SocketAddr) -> Worth {
        match &self.watched {
            Some(watched) if watched.is_key_of(announcement) && watched.server.address == address => Worth::Watched,
            Some(watched) if watched.is_key_of(announcement) => Worth::SameKey,
            _ if self.wanted.as_ref() == Some(&announcement.name) => Worth::Named,
            _ => Worth::Other,
        }
    }

    /// The servers that were heard since then, each at the address where it was heard first, sorted for people.
    pub fn since(&self, then: Instant) -> Vec<Found> {
        let mut servers: Vec<Found> = Vec::new();
        for found in self.found.iter().filter(|found| found.seen >= then) {
            if !servers.iter().any(|known| known.is_server_of(found)) {
                servers.push(found.clone());
            }
        }
        servers.sort_by(|a, b| {
            let key = |found: &Found| (found.announcement.name.clone(), found.announcement.id.clone(), found.address);
            key(a).cmp(&key(b))
        });
        servers
    }

    /// What can be chosen from, in the order first heard, so that no row moves when another server comes. Each is at
    /// its best address.
    fn entries(&self, wish: &Wish, then: Instant, now: Instant) -> Vec<Found> {
        let rank = |found: &Found| (self.is_shunned(found.address, now), !found.address.ip().is_loopback());
        let mut entries: Vec<Found> = Vec::new();
        for found in self.found.iter().filter(|found| found.seen >= then) {
            match entries.iter_mut().find(|known| wish.is_one(known, found)) {
                None => entries.push(found.clone()),
                Some(known) if rank(found) < rank(known) => *known = found.clone(),
                Some(_) => {}
            }
        }
        entries
    }

    /// Whether a server is heard at more than one address, and one of them may be another machine's: then it has to
    /// prove its key.
    pub fn has_to_prove(&self, server: &Found, wish: &Wish, now: Instant) -> bool {
        let elsewhere = |other: &Found| {
            let (this, that) = (&other.announcement, &server.announcement);
            let is_same = this.key.is_some() && this.id == that.id && this.key == that.key;
            is_same && other.address != server.address && !other.address.ip().is_loopback()
        };
        let is_local = server.address.ip().is_loopback();
        !is_local && wish.proves(&server.announcement) && self.found.iter().any(|it| elsewhere(it) && !is_old(it, now))
    }

    /// A session stands with the server: it is watched from now on. `is_proved`: the session proves its key.
    pub fn watch(&mut self, server: &Found, is_proved: bool) {
        if is_proved {
            let ip = server.address.ip();
            let known = self.proved.iter().position(|proved| proved.is_of(&server.announcement));
            let known = known.map(|at| self.proved.remove(at)).filter(|known| known.ip == ip);
            if self.proved.len() >= MAX_PROVED {
                self.proved.remove(0);
            }
            let ways = known.map(|known| known.ways).unwrap_or_default();
            self.proved.push(Proved { announcement: server.announcement.clone(), ip, ways });
        }
        let mut alive = server.seen;
        match self.watched.take() {
            // At another address, perhaps: who was beside it still was.
            Some(before) if before.is_key_of(&server.announcement) => alive = alive.max(before.alive),
            // Whoever fell silent before it came was not beside it: it may be the same machine under its former name.
            before => {
                self.found.retain(|found| found.seen >= server.first);
                let left = self.left.take().or(before);
                self.left = left.filter(|left| !left.is_key_of(&server.announcement));
            }
        }
        self.watched = Some(Watched { server: server.clone(), alive });
        self.asked = None;
    }

    /// The statistics of this server, which proves its key in the session that stands, name these other ways.
    pub fn learn(&mut self, server: &Found, ways: Vec<Way>) {
        let proved = self.proved.last_mut().filter(|proved| proved.is_of(&server.announcement));
        if let Some(proved) = proved.filter(|proved| proved.ip == server.address.ip()) {
            proved.ways = ways;
        }
    }

    /// Where WebRTC fails with a server whose key was proved: the ways that it named then, at its own IP address. None:
    /// it was not proved, and what it announces is as good as the rest of it; or it proves none now, and was chosen so.
    pub fn fallback(&self, server: &Found) -> Option<Vec<Way>> {
        let is_it = |proved: &&Proved| proved.is_of(&server.announcement) && can_prove(&server.announcement);
        let proved = self.proved.iter().find(is_it)?;
        Some(if proved.ip == server.address.ip() { proved.ways.clone() } else { Vec::new() })
    }

    /// Whether whoever comes after the one that is watched, unless the pilot chooses it, has to prove a key: its own
    /// was proved, and addresses can be forged. A session by RTP or RTSP does not change that, as long as it announces
    /// WebRTC.
    fn needs_proof(&self, watched: &Watched) -> bool {
        can_prove(&watched.server.announcement)
            && self.proved.last().is_some_and(|proved| watched.is_key_of(&proved.announcement))
    }

    pub fn is_watching(&self) -> bool {
        self.watched.is_some()
    }

    /// Video comes from the server that is watched.
    pub fn alive(&mut self, at: Instant) {
        if let Some(watched) = &mut self.watched {
            watched.alive = watched.alive.max(at);
        }
    }

    /// Whoever answers at this address claims a key, and does not prove it.
    pub fn refuse(&mut self, address: SocketAddr, now: Instant) {
        self.refused.add(address, now, REFUSED_FOR);
    }

    /// No session came about with the server at this address, which was found out by waiting for so long.
    pub fn fail(&mut self, address: SocketAddr, waited: Duration, now: Instant) {
        let is_watched = self.watched.as_ref().is_some_and(|watched| watched.server.address == address);
        let lasts = if is_watched { FAILED_FOR } else { FAILED_FOR.max(waited * FAILED_PER_WAIT) };
        self.failed.add(address, now, lasts);
    }

    /// While this one is tried, since then, in the place of the watched one: whether that is heard again where it was.
    pub fn is_overtaken(&self, tried: &Found, wish: &Wish, since: Instant, now: Instant) -> bool {
        let Some(watched) = &self.watched else { return false };
        let address = watched.server.address;
        let is_trusted = |found: &Found| wish.proves(&found.announcement) || !self.needs_proof(watched);
        let is_back = |found: &Found| {
            found.address == address && found.seen > since && watched.is_itself(found) && is_trusted(found)
        };
        tried.address != address && !self.is_shunned(address, now) && self.found.iter().any(is_back)
    }

    fn is_shunned(&self, address: SocketAddr, now: Instant) -> bool {
        self.refused.has(address, now) || self.failed.has(address, now)
    }

    /// Where the server that is watched is heard now, or who took its place, when that is elsewhere.
    pub fn moved(&self, wish: &Wish, now: Instant) -> Option<SocketAddr> {
        let watched = self.watched.as_ref()?;
        let then = now.checked_sub(2 * PATIENCE).unwrap_or(watched.server.first);
        match self.next_after(watched, &self.entries(wish, then, now), wish, then, now) {
            Next::Watch { server, .. } => Some(server.address).filter(|address| *address != watched.server.address),
            Next::Ask(_) | Next::Listen => None,
        }
    }

    /// What is to be done, of the servers that were heard since `then`, when a search began.
    pub fn next(&mut self, wish: &Wish, then: Instant, now: Instant) -> Next {
        let servers = self.entries(wish, then, now);
        let next = match &self.watched {
            None => self.first_choice(&servers, wish, now),
            Some(watched) => self.next_after(watched, &servers, wish, then, now),
        };
        let Next::Ask(mut question) = next else {
            self.asked = None;
            return next;
        };
        // The time runs from the moment at which just these were offered.
        let since = match &self.asked {
            Some((offers, since)) if is_same_offer(offers, &question.offers) => *since,
            _ => now,
        };
        self.asked = Some((question.offers.clone(), since));
        if question.takes_first_at.is_some() {
            question.takes_first_at = Some(since + TAKEN_AFTER);
            if now >= since + TAKEN_AFTER
                && let Some(server) = servers.into_iter().find(|server| server.is_offered_as(&question.offers[0]))
            {
                let said = format!("{}; taken, as nothing else answers", question.text);
                let must_prove = self.has_to_prove(&server, wish, now)
                    || self.watched.as_ref().is_some_and(|watched| self.needs_proof(watched));
                return Next::Watch { server: Box::new(server), must_prove, said: Some(said) };
            }
        }
        Next::Ask(question)
    }

    /// The server of an offer, if it is still heard.
    pub fn offered(&self, offer: &Offer) -> Option<Found> {
        self.found.iter().find(|found| found.is_offered_as(offer)).cloned()
    }

    /// The server that was watched before is heard again while another one is: a question beside the picture.
    pub fn back(&self, now: Instant) -> Option<Question> {
        let watched = self.watched.as_ref()?;
        let proved = self.proved.last().filter(|_| !self.needs_proof(watched));
        let is_it = |of: &Announcement| match proved {
            Some(proved) => proved.is_of(of),
            None => self.left.as_ref().is_some_and(|left| left.is_key_of(of)),
        };
        let is_back =
            |found: &&Found| !is_old(found, now) && can_prove(&found.announcement) && is_it(&found.announcement);
        let back = self.found.iter().find(is_back)?;
        let (name, here, there) = (back.name(), watched.server.address, back.address);
        let text = match proved {
            Some(_) => format!(
                "{name}, verified by its key before, is back at {there}; still watching {here}, as chosen, which \
                 proves no key"
            ),
            None => format!("{name} is back at {there}; still watching {} at {here}", watched.server.name()),
        };
        let label = format!("{name}  {there}");
        Some(Question { text, offers: vec![back.offer(label)], takes_first_at: None })
    }

    /// The pilot chose this one of [`Self::back`]: it is tried next, and has to prove its key, if it can.
    pub fn choose(&mut self, offer: Offer) {
        self.chosen = Some(offer);
    }

    /// What was chosen by [`Self::choose`], once, if it is still heard.
    pub fn take_chosen(&mut self) -> Option<Found> {
        self.chosen.take().and_then(|offer| self.offered(&offer))
    }

    /// What there is to warn of now: another machine has the id of the server that is watched.
    pub fn warning(&self, now: Instant) -> Option<String> {
        let watched = self.watched.as_ref()?;
        let (server, name) = (&watched.server, watched.server.name());
        let here = server.address;
        let is_heard = |found: &&Found| !is_old(found, now) && found.announcement.id == server.announcement.id;
        if let Some(twin) = self.found.iter().filter(is_heard).find(|found| !watched.is_itself(found)) {
            let there = twin.address;
            return Some(match twin.announcement.key == server.announcement.key && twin.announcement.key.is_some() {
                true => format!(
                    "{there} also claims to be {name}, with the same key: a copied card (delete server.key on one of \
                     the two) or an impostor; watching {here}"
                ),
                false => format!(
                    "{there} also claims to be {name}, with another key or none: a copied card or an impostor; \
                     watching {here}"
                ),
            });
        }
        let is_in_turns = |found: &Found| {
            found.address == here && found.in_turns.is_some_and(|at| now.saturating_duration_since(at) < FORGET_AFTER)
        };
        self.found.iter().filter(is_heard).any(is_in_turns).then(|| {
            format!(
                "two machines announce {name} at {here}: a copied card with the same address, or an impostor; the \
                 picture may be of either"
            )
        })
    }

    /// Before any was watched.
    fn first_choice(&self, servers: &[Found], wish: &Wish, now: Instant) -> Next {
        let named: Vec<_> = servers.iter().filter(|found| wish.names(&found.announcement)).cloned().collect();
        match (named.as_slice(), servers, &wish.name) {
            ([one], ..) => {
                let must_prove = self.has_to_prove(one, wish, now);
                Next::Watch { server: Box::new(one.clone()), must_prove, said: None }
            }
            ([], [], _) | ([], _, None) => Next::Listen,
            ([], others, Some(name)) => ask(format!("server {name:?} not found, only these"), others, None, wish, None),
            (several, ..) => ask(format!("{} servers found", several.len()), several, None, wish, None),
        }
    }

    fn next_after(&self, watched: &Watched, servers: &[Found], wish: &Wish, then: Instant, now: Instant) -> Next {
        let before = &watched.server;
        let needs_proof = self.needs_proof(watched);
        let is_trusted = |found: &Found| !needs_proof || wish.proves(&found.announcement);
        let itself = self.itself(watched, wish, then, now).map(|server| {
            let is_elsewhere = server.address != before.address;
            let said = is_elsewhere.then(|| format!("{} is at {} now", server.name(), server.address));
            Next::Watch { server: Box::new(server), must_prove: is_elsewhere, said }
        });
        if let Some(Next::Watch { server, .. }) = &itself
            && !self.is_shunned(server.address, now)
        {
            return itself.unwrap_or(Next::Listen);
        }
        // Not what claims its key and did not prove it.
        let is_itself = |found: &Found| {
            let proves = wish.proves(&found.announcement);
            watched.is_itself(found) && (proves || found.address == before.address && !needs_proof)
        };
        let others: Vec<_> = servers.iter().filter(|found| !is_itself(found)).cloned().collect();
        // Who was not heard beside it, at any address, came after it: in its place, or elsewhere.
        let is_newer = |found: &Found| {
            let announced = &found.announcement;
            let is_known =
                |known: &&Found| known.announcement.id == announced.id && known.announcement.key == announced.key;
            let mut known = self.found.iter().filter(is_known);
            found.first > watched.alive && (watched.is_key_of(announced) || known.all(|it| it.first > watched.alive))
        };
        // The server itself may come back a moment after another one of its machine.
        let of_its_id = self
            .found
            .iter()
            .filter(|found| found.announcement.id == before.announcement.id && !self.refused.has(found.address, now));
        let last = of_its_id.map(|found| found.seen).fold(watched.alive.max(then), Instant::max);
        let is_silent = now.saturating_duration_since(last) >= PATIENCE;
        let is_its_machine = |found: &Found| {
            found.announcement.key == before.announcement.key
                && wish.proves(&found.announcement)
                && !self.refused.has(found.address, now)
        };
        let is_there = |found: &Found| found.address.ip() == before.address.ip();
        // An entry stands for all addresses of its server, of which another one may be in that place.
        let heirs = others.iter().filter_map(|entry| {
            let its = self.found.iter().filter(|found| found.seen >= then && wish.is_one(found, entry));
            let there = its.filter(|found| is_there(found)).min_by_key(|found| self.is_shunned(found.address, now));
            Some(there.unwrap_or(entry)).filter(|found| is_newer(found) && (is_there(found) || is_its_machine(found)))
        });
        if let [heir] = heirs.collect::<Vec<_>>()[..]
            && wish.names(&heir.announcement)
            && is_trusted(heir)
            && !self.failed.has(heir.address, now)
            && (is_silent || heir.announcement.id == before.announcement.id)
        {
            let must_prove = needs_proof || !is_there(heir) || self.has_to_prove(heir, wish, now);
            let said = format!("{} answers in the place of {}, at {}", heir.name(), before.name(), heir.address);
            return Next::Watch { server: Box::new((*heir).clone()), must_prove, said: Some(said) };
        }
        if others.is_empty() {
            return itself.unwrap_or(Next::Listen);
        }
        if now.saturating_duration_since(then) < PATIENCE {
            return Next::Listen;
        }
        let state = if itself.is_some() { "cannot be watched" } else { "is silent" };
        let text = match others.as_slice() {
            [one] => format!("{} {state}; {} answers at {}", before.name(), one.name(), one.address),
            several => format!("{} {state}; {} other servers answer", before.name(), several.len()),
        };
        // Never another vehicle that was there all the time, nor one that says it is the lost one, nor one that proves
        // less.
        let is_harmless =
            |one: &Found| is_newer(one) && one.announcement.id != before.announcement.id && is_trusted(one);
        let is_taken =
            itself.is_none() && wish.any && wish.name.is_none() && matches!(&others[..], [one] if is_harmless(one));
        ask(text, &others, Some((before, needs_proof)), wish, is_taken.then_some(now))
    }

    /// The server that is watched, where it was, or elsewhere if it can prove that it is the same.
    fn itself(&self, watched: &Watched, wish: &Wish, then: Instant, now: Instant) -> Option<Found> {
        let mut same: Vec<_> =
            self.found.iter().filter(|found| found.seen >= then && watched.is_itself(found)).collect();
        let address = watched.server.address;
        same.retain(|found| {
            let proves = wish.proves(&found.announcement);
            let is_where_it_was = found.address == address && (proves || !self.needs_proof(watched));
            is_where_it_was || proves && !self.refused.has(found.address, now)
        });
        // Where it was, unless somebody else answers there.
        same.sort_by_key(|found| (self.is_shunned(found.address, now), found.address != address));
        same.first().map(|found| (*found).clone())
    }
}

impl Watched {
    /// Whether this one is the server that is watched, and not another machine with its key, which was heard beside it.
    /// Without a key, at its address alone.
    fn is_itself(&self, found: &Found) -> bool {
        let is_there = found.address == self.server.address;
        // Of two runs the later one is a restart where the earlier one was not heard any more.
        let overlaps = if found.run_since <= self.server.run_since {
            self.server.run_since < found.seen + RESTART
        } else {
            found.run_since < self.alive + RESTART
        };
        let is_beside =
            || differs(found.announcement.run, self.server.announcement.run) && (found.has_twin || overlaps);
        self.is_key_of(&found.announcement) && (is_there || found.announcement.key.is_some() && !is_beside())
    }

    fn is_key_of(&self, announcement: &Announcement) -> bool {
        let before = &self.server.announcement;
        before.id == announcement.id && before.key == announcement.key
    }
}

/// Whether both numbers of a start are known, and two.
fn differs(this: Option<u32>, that: Option<u32>) -> bool {
    this.zip(that).is_some_and(|(this, that)| this != that)
}

/// A key, by WebRTC, which does not carry MJPEG.
fn can_prove(announcement: &Announcement) -> bool {
    let is_mjpeg = announcement.streams.first().is_some_and(|stream| stream.codec == Codec::Mjpeg.name());
    announcement.key.is_some() && announcement.transports.iter().any(|word| word == "webrtc") && !is_mjpeg
}

fn is_old(found: &Found, now: Instant) -> bool {
    now.saturating_duration_since(found.seen) >= FORGET_AFTER
}

/// `watched`: the one that was, and whether its key was proved.
fn ask(
    text: String,
    servers: &[Found],
    watched: Option<(&Found, bool)>,
    wish: &Wish,
    takes_first_at: Option<Instant>,
) -> Next {
    let offer = |server: &Found| {
        let (announced, address) = (&server.announcement, server.address);
        let twin = servers
            .iter()
            .chain(watched.map(|(before, _)| before))
            .find(|other| other.announcement.id == announced.id && !wish.is_one(other, server));
        let note = match (twin, watched) {
            (Some(twin), _) => format!("  (also at {}: a copied card, or an impostor)", twin.address),
            (None, Some((before, true))) if !wish.proves(announced) => {
                format!("  (proves no key, unlike {} before: another machine, or an impostor)", before.name())
            }
            _ => String::new(),
        };
        server.offer(format!("{}  {address}{note}", announced.name))
    };
    Next::Ask(Question { text, offers: servers.iter().map(offer).collect(), takes_first_at })
}

#[cfg(test)]
#[path = "heard_tests.rs"]
mod tests;
