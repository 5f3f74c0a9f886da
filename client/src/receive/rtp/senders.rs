//! Which of the senders that are heard at one destination is watched. Pure; takes `now`.
//!
//! A multicast group and a UDP port are open to whoever sends: two vehicles with the same settings must not be mixed
//! into one picture, one that starts anew must be followed, and another one is never shown without the pilot's choice,
//! unless it has taken the place of the one that is watched (`docs/discovery.md`, 'Which server is watched'). A machine
//! is an IP address here, as nothing in plain RTP proves more.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use crate::receive::reports::{self, Packet};

/// The watched sender keeps its place while it is not silent for longer than this.
const SILENT: Duration = Duration::from_secs(1);
/// After a silence of this length a stream begins anew for the decoder: packets in flight are not waited for any more.
const NEW_STREAM: Duration = Duration::from_secs(3);
/// Packets that were under way when their sender said goodbye are none of a new one.
const STRAGGLERS: Duration = Duration::from_secs(1);
/// What was seen no longer ago than this is said.
const RECENT: Duration = Duration::from_secs(3);
/// A machine that sends alone since the watched one is silent, and never did beside it, is watched after this, which is
/// counted down.
const TAKEN_AFTER: Duration = Duration::from_secs(10);
/// Machines that are remembered beside the watched one; a silent one gives way.
const MAX_OTHERS: usize = 64;
/// Machines that are offered: the keys 1 to 9.
const MAX_OFFERED: usize = 9;
/// Payload types that are given out dynamically (RFC 3551 section 6): all that H.264 has.
const DYNAMIC: std::ops::RangeInclusive<u8> = 96..=127;

/// One packet, as far as its sender shows from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    pub address: SocketAddr,
    pub ssrc: u32,
    pub payload_type: u8,
}

/// What to do with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It belongs to the stream that the decoder shall know by this synchronisation source.
    Play(u32),
    /// Of a sender that is not watched, which was not said yet.
    Stranger,
    Ignore,
}

/// Machines that send beside or instead of the watched one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Others {
    /// What is so, for the pilot.
    pub text: String,
    /// That can be watched instead, in the order first heard.
    pub machines: Vec<IpAddr>,
    /// When the first is watched by itself; none: never.
    pub takes_first_at: Option<Instant>,
}

#[derive(Debug)]
pub struct Senders {
    /// Only this machine is listened to, if given.
    from: Option<IpAddr>,
    payload_type: Option<u8>,
    /// The only stream that is listened to, as its server said last.
    expected: Option<u32>,
    watched: Option<Watched>,
    /// Counts the streams. The decoder never sees the senders' own numbers, since it ignores those that it had before.
    stream: u32,
    /// Machines whose video is not watched, each once, in the order first heard; of the watched machine, each other
    /// stream.
    beside: Vec<Heard>,
    /// Of packets that carry no video.
    other: Option<(u8, Instant)>,
    reported: Option<Instant>,
    /// That another machine is watched now, until it is told.
    news: Option<String>,
}

/// A machine, and the stream of it that was heard last.
#[derive(Clone, Copy, Debug)]
struct Heard {
    origin: Origin,
    first: Instant,
    last: Instant,
}

#[derive(Clone, Copy, Debug)]
struct Watched {
    heard: Heard,
    /// When it said goodbye, if it did.
    gone: Option<Instant>,
}

impl Heard {
    fn ip(&self) -> IpAddr {
        self.origin.address.ip()
    }
}

fn is_recent(heard: &Heard, now: Instant) -> bool {
    now.saturating_duration_since(heard.last) < RECENT
}

impl Watched {
    fn is_silent(&self, now: Instant) -> bool {
        self.gone.is_some() || now.saturating_duration_since(self.heard.last) > SILENT
    }
}

impl Senders {
    /// `from`: the only machine that is listened to. `payload_type`: the only one that is video; else any dynamic one.
    pub fn new(from: Option<IpAddr>, payload_type: Option<u8>) -> Self {
        let (watched, beside, other, reported, news) = (None, Vec::new(), None, None, None);
        Self { from, payload_type, expected: None, watched, stream: 0, beside, other, reported, news }
    }

    /// The server says that this is its synchronisation source now; none: it does not say.
    pub fn expect(&mut self, ssrc: Option<u32>) {
        self.expected = ssrc.or(self.expected);
    }

    pub fn packet(&mut self, origin: Origin, now: Instant) -> Verdict {
        let ip = origin.address.ip();
        if self.from.is_some_and(|from| from != ip) {
            return self.stranger(origin, now);
        }
        let is_video = self.payload_type.map_or(DYNAMIC.contains(&origin.payload_type), |t| t == origin.payload_type);
        if !is_video {
            self.other = Some((origin.payload_type, now));
            return Verdict::Ignore;
        }
        if self.expected.is_some_and(|expected| expected != origin.ssrc) {
            return self.stranger(origin, now);
        }
        let Some(watched) = &mut self.watched else {
            let heard = Heard { origin, first: now, last: now };
            self.watched = Some(Watched { heard, gone: None });
            self.stream += 1;
            return Verdict::Play(self.stream);
        };
        let is_silent = watched.is_silent(now);
        if watched.heard.origin == origin {
            if watched.gone.is_some_and(|at| now.saturating_duration_since(at) < STRAGGLERS) {
                return Verdict::Ignore;
            }
            let silent = now.saturating_duration_since(std::mem::replace(&mut watched.heard.last, now));
            self.stream += u32::from(silent > NEW_STREAM || watched.gone.take().is_some());
            return Verdict::Play(self.stream);
        }
        // Another stream of the same machine: that of a server that started anew, or that of a second server.
        let is_its = |other: &&Heard| (other.ip(), other.origin.ssrc) == (ip, origin.ssrc);
        let (former, last) = (watched.heard.origin.ssrc, watched.heard.last);
        // One packet that was overtaken, or the last ones of a program that is being replaced, make no second sender.
        let was_beside =
            former != origin.ssrc && self.beside.iter().filter(is_its).any(|other| other.first + SILENT <= last);
        let is_told = self.expected.is_some() && former != origin.ssrc;
        if watched.heard.ip() == ip && (is_told || (is_silent && !was_beside)) {
            let first = watched.heard.first;
            *watched = Watched { heard: Heard { origin, first, last: now }, gone: None };
            self.beside.retain(|other| !is_its(&other));
            self.stream += 1;
            return Verdict::Play(self.stream);
        }
        let verdict = self.stranger(origin, now);
        match self.others(now) {
            Some(Others { text, takes_first_at: Some(at), .. }) if now >= at => {
                self.watch(ip, now);
                self.news = Some(format!("{text}; taken, as nothing else sends"));
                Verdict::Play(self.stream)
            }
            _ => verdict,
        }
    }

    /// Another machine's, or another stream of the watched one.
    fn stranger(&mut self, origin: Origin, now: Instant) -> Verdict {
        let said = self.stranger_now(now).is_some();
        let ip = origin.address.ip();
        let is_of_watched = self.watched.is_some_and(|watched| watched.heard.ip() == ip);
        let is_its = |other: &&mut Heard| other.ip() == ip && (!is_of_watched || other.origin.ssrc == origin.ssrc);
        match self.beside.iter_mut().find(is_its) {
            Some(known) => (known.origin, known.last) = (origin, now),
            None => {
                if self.beside.len() >= MAX_OTHERS {
                    let silent = self.beside.iter().enumerate().min_by_key(|(_, other)| other.last);
                    let silent = silent.filter(|(_, other)| now.saturating_duration_since(other.last) >= RECENT);
                    let Some((at, _)) = silent else { return Verdict::Ignore };
                    self.beside.remove(at);
                }
                self.beside.push(Heard { origin, first: now, last: now });
            }
        }
        if said { Verdict::Ignore } else { Verdict::Stranger }
    }

    /// Those whose video comes now: each other machine, and where the watched stream is silent, another one of its
    /// machine.
    fn candidates(&self, now: Instant) -> impl Iterator<Item = &Heard> {
        let watched = self.watched.map(|watched| (watched.heard.ip(), watched.is_silent(now)));
        let others = self.beside.iter().filter(move |other| is_recent(other, now)).filter(move |other| match watched {
            Some((ip, is_silent)) if ip == other.ip() => is_silent && self.expected.is_none(),
            // Where one machine was named, no other can be chosen.
            _ => self.from.is_none(),
        });
        // A machine is offered once, by the stream that was heard first.
        let mut seen = Vec::new();
        others.filter(move |other| {
            let is_new = !seen.contains(&other.ip());
            seen.push(other.ip());
            is_new
        })
    }

    /// Who can be watched instead, where another machine sends too.
    pub fn others(&self, now: Instant) -> Option<Others> {
        let watched = self.watched.as_ref()?;
        let there: Vec<&Heard> = self.candidates(now).collect();
        let who = match there.as_slice() {
            [] => return None,
            [one] if one.ip() == watched.heard.ip() => "another program there sends".to_owned(),
            [one] => format!("{} sends", one.ip()),
            several => format!("{} other senders send", several.len()),
        };
        let (ip, is_silent) = (watched.heard.ip(), watched.is_silent(now));
        let text = match (is_silent, watched.gone) {
            (false, _) => format!("watching {ip}; {who} to this destination too"),
            (true, None) => format!("{ip} is silent; {who} video here"),
            (true, Some(_)) => format!("{ip} said goodbye; {who} video here"),
        };
        let takes_first_at = match there.as_slice() {
            // It may be the watched one at another address, if it was never heard beside that, and is alone.
            [heir] if is_silent && heir.first > watched.heard.last => {
                let others = self.beside.iter().filter(|other| other.ip() != heir.ip()).map(|other| other.last);
                Some(others.fold(heir.first.max(watched.heard.last + SILENT), Instant::max) + TAKEN_AFTER)
            }
            _ => None,
        };
        let machines = there.iter().take(MAX_OFFERED).map(|other| other.ip()).collect();
        Some(Others { text, machines, takes_first_at })
    }

    /// The pilot chose this machine. False: it is not heard any more.
    pub fn choose(&mut self, ip: IpAddr, now: Instant) -> bool {
        let is_there = self.candidates(now).any(|other| other.ip() == ip);
        if is_there {
            self.watch(ip, now);
        }
        is_there
    }

    fn watch(&mut self, ip: IpAddr, now: Instant) {
        let Some(at) = self.beside.iter().position(|other| other.ip() == ip && is_recent(other, now)) else { return };
        let heard = self.beside.remove(at);
        if let Some(before) = self.watched.replace(Watched { heard, gone: None }) {
            self.beside.retain(|other| other.ip() != before.heard.ip());
            self.beside.push(before.heard);
        }
        // Who fell silent before it came was not beside it: it may be the same machine at its former address.
        self.beside.retain(|other| other.last >= heard.first);
        self.reported = None;
        self.stream += 1;
    }

    /// That another machine is watched than before; once.
    pub fn take_news(&mut self) -> Option<String> {
        self.news.take()
    }

    /// A compound RTCP packet (RFC 3550 section 6.1). True when the watched sender said goodbye by it.
    pub fn control(&mut self, from: IpAddr, packet: &[u8], now: Instant) -> bool {
        let Some(watched) = self.watched.as_mut().filter(|it| it.heard.ip() == from && it.gone.is_none()) else {
            return false;
        };
        let ssrc = watched.heard.origin.ssrc.to_be_bytes();
        for Packet { kind, count, body } in reports::packets(packet) {
            let mut sources = body.chunks_exact(4).map(|word| word == ssrc);
            match kind {
                reports::SENDER_REPORT if sources.next() == Some(true) => self.reported = Some(now),
                reports::BYE if sources.take(count.into()).any(|is_ours| is_ours) => {
                    self.reported = None;
                    watched.gone = Some(now);
                    return true;
                }
                _ => {}
            }
        }
        false
    }

    /// The watched one said goodbye, and there is no other yet.
    pub fn said_goodbye(&self) -> bool {
        self.watched.is_some_and(|watched| watched.gone.is_some())
    }

    pub fn watched(&self) -> Option<SocketAddr> {
        self.watched.filter(|watched| watched.gone.is_none()).map(|watched| watched.heard.origin.address)
    }

    /// A sender that is heard now and not watched: the one that was heard last.
    pub fn stranger_now(&self, now: Instant) -> Option<SocketAddr> {
        let last = self.beside.iter().max_by_key(|other| other.last)?;
        (now.saturating_duration_since(last.last) < RECENT).then_some(last.origin.address)
    }

    /// Whether it is the machine that is watched, or that was named.
    pub fn is_of_machine(&self, ip: IpAddr) -> bool {
        self.from == Some(ip) || self.watched.is_some_and(|watched| watched.heard.ip() == ip)
    }

    /// The payload type of packets that come now and are no video.
    pub fn other_now(&self, now: Instant) -> Option<u8> {
        self.other.filter(|(_, at)| now.saturating_duration_since(*at) < RECENT).map(|(payload_type, _)| payload_type)
    }

    /// The watched sender reported by RTCP lately. Such reports come every five seconds or so.
    pub fn reports(&self, now: Instant) -> bool {
        self.reported.is_some_and(|at| now.saturating_duration_since(at) < 3 * RECENT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(last: u8, ssrc: u32) -> Origin {
        Origin { address: SocketAddr::from(([10, 0, 0, last], 4000)), ssrc, payload_type: 96 }
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn the_first_sender_is_watched_and_others_are_said_once() {
        let (start, mut senders) = (Instant::now(), Senders::new(None, None));
        assert_eq!(senders.packet(origin(2, 7), start), Verdict::Play(1));
        assert_eq!(senders.packet(origin(3, 8), start + ms(1)), Verdict::Stranger);
        assert_eq!(senders.packet(origin(2, 7), start + ms(33)), Verdict::Play(1));
        assert_eq!(senders.packet(origin(3, 8), start + ms(34)), Verdict::Ignore);
        assert_eq!(senders.packet(origin(2, 9), start + ms(35)), Verdict::Ignore, "the same machine, another stream");
        assert_eq!(senders.others(start + ms(100)).map(|others| others.machines), Some(vec![[10, 0, 0, 3].into()]));
        assert_eq!(senders.stranger_now(start + ms(100)), Some(origin(2, 9).address));
        assert_eq!(senders.stranger_now(start + ms(5000)), None);
    }

    /// 10.0.0.2 is watched for ten seconds, in which `beside` is heard too.
    fn watching(start: Instant, beside: Option<Origin>) -> Senders {
        let mut senders = Senders::new(None, None);
        for second in 0..=10 {
            senders.packet(origin(2, 7), start + ms(1000 * second));
            beside.map(|beside| senders.packet(beside, start + ms(1000 * second + 1)));
        }
        senders
    }

    #[test]
    fn another_machine_that_was_beside_the_watched_one_is_never_shown_without_being_chosen() {
        let (start, other) = (Instant::now(), origin(3, 8));
        let mut senders = watching(start, Some(other));
        let said = senders.others(start + ms(10_100)).map(|others| others.text).unwrap_or_default();
        assert_eq!(said, "watching 10.0.0.2; 10.0.0.3 sends to this destination too");
        // It is silent, or said goodbye.
        for (begun, goodbye, why) in [(10_000, false, "10.0.0.2 is silent"), (60_000, true, "10.0.0.2 said goodbye")] {
            senders.packet(origin(2, 7), start + ms(begun));
            if goodbye {
                assert!(senders.control([10, 0, 0, 2].into(), &rtcp(reports::BYE, 7), start + ms(begun)));
            }
            for tenth in 11..400 {
                let now = start + ms(begun + 100 * tenth);
                assert!(!matches!(senders.packet(other, now), Verdict::Play(_)), "{tenth}");
                let others = senders.others(now).expect("it is offered");
                assert_eq!(others.text, format!("{why}; 10.0.0.3 sends video here"));
                assert_eq!((others.machines, others.takes_first_at), (vec![other.address.ip()], None));
            }
        }
        // A restart at the same address is followed; the other is shown when the pilot chooses it.
        let now = start + ms(100_000);
        assert_eq!(senders.packet(origin(2, 9), now), Verdict::Play(3));
        assert!(!senders.choose([10, 0, 0, 4].into(), now), "nobody");
        senders.packet(other, now);
        assert!(senders.choose(other.address.ip(), now));
        assert_eq!(senders.packet(other, now + ms(1)), Verdict::Play(4));
        assert!(!matches!(senders.packet(origin(2, 9), now + ms(2)), Verdict::Play(_)));
        assert_eq!(senders.others(now + ms(3)).map(|others| others.machines), Some(vec![[10, 0, 0, 2].into()]));
        assert_eq!(senders.take_news(), None, "the pilot knows");
    }

    #[test]
    fn a_machine_that_comes_after_the_watched_one_is_taken_after_a_countdown_while_it_is_alone() {
        let (start, heir, third) = (Instant::now(), origin(3, 8), origin(4, 9));
        let mut senders = watching(start, None);
        let mut played = Vec::new();
        for tenth in 0..300 {
            let now = start + ms(10_500 + 100 * tenth);
            // Another one comes in between.
            if tenth == 50 {
                senders.packet(third, now);
                assert_eq!(senders.others(now).map(|others| others.takes_first_at), Some(None), "two are there");
            }
            if matches!(senders.packet(heir, now), Verdict::Play(_)) {
                played.push(tenth);
            }
        }
        assert_eq!(played.first(), Some(&150), "ten seconds after the third was heard last");
        let news = "10.0.0.2 is silent; 10.0.0.3 sends video here; taken, as nothing else sends";
        assert_eq!((senders.take_news().as_deref(), senders.take_news()), (Some(news), None));
        // The watched one comes back in time.
        let mut senders = watching(start, None);
        senders.packet(heir, start + ms(12_000));
        let taken = senders.others(start + ms(12_000)).and_then(|others| others.takes_first_at);
        assert_eq!(taken, Some(start + ms(22_000)));
        assert!(matches!(senders.packet(origin(2, 7), start + ms(21_000)), Verdict::Play(_)));
        senders.packet(heir, start + ms(22_000));
        assert_eq!(senders.others(start + ms(22_000)).map(|others| others.takes_first_at), Some(None));
        assert!(!matches!(senders.packet(heir, start + ms(40_000)), Verdict::Play(_)), "it was beside it now");
    }

    #[test]
    fn a_flood_of_addresses_is_bounded_and_where_one_machine_was_named_no_other_is_offered() {
        let (start, mut senders) = (Instant::now(), watching(Instant::now(), None));
        for last in 3..200 {
            senders.packet(origin(last, 8), start + ms(10_000));
        }
        assert_eq!(senders.beside.len(), MAX_OTHERS);
        assert_eq!(senders.others(start + ms(10_000)).map(|others| others.machines.len()), Some(MAX_OFFERED));
        senders.packet(origin(250, 8), start + ms(14_000));
        assert_eq!(
            senders.others(start + ms(14_000)).map(|others| others.machines),
            Some(vec![[10, 0, 0, 250].into()])
        );
        let mut named = Senders::new(Some([10, 0, 0, 2].into()), None);
        named.packet(origin(2, 7), start);
        named.packet(origin(3, 8), start);
        assert_eq!(named.others(start), None);
    }

    #[test]
    fn a_stream_of_the_same_machine_takes_the_place_of_one_that_falls_silent() {
        let (start, mut senders) = (Instant::now(), Senders::new(None, None));
        senders.packet(origin(2, 7), start);
        assert_eq!(senders.packet(origin(2, 8), start + ms(1000)), Verdict::Stranger);
        assert_eq!(senders.packet(origin(2, 8), start + ms(1001)), Verdict::Play(2));
        assert_ne!(senders.packet(origin(2, 7), start + ms(1002)), Verdict::Play(3));
        // And back, under a number that the decoder has not had.
        assert_eq!(senders.packet(origin(2, 7), start + ms(2100)), Verdict::Play(3));
    }

    #[test]
    fn a_stream_of_the_same_machine_that_was_heard_beside_the_watched_one_is_no_restart_of_it() {
        let start = Instant::now();
        for goodbye in [false, true] {
            let mut senders = Senders::new(None, None);
            for tenth in 0..100 {
                assert_eq!(senders.packet(origin(2, 7), start + ms(100 * tenth)), Verdict::Play(1));
                senders.packet(origin(2, 8), start + ms(100 * tenth + 1));
            }
            if goodbye {
                assert!(senders.control([10, 0, 0, 2].into(), &rtcp(reports::BYE, 7), start + ms(9_950)));
            }
            for tenth in 100..400 {
                let verdict = senders.packet(origin(2, 8), start + ms(100 * tenth));
                assert!(!matches!(verdict, Verdict::Play(_)), "a second server on it, {tenth}");
            }
            // One that was not heard before is.
            assert_eq!(senders.packet(origin(2, 9), start + ms(40_000)), Verdict::Play(2));
            assert!(!matches!(senders.packet(origin(2, 8), start + ms(50_000)), Verdict::Play(_)), "nor of that");
        }
    }

    #[test]
    fn another_stream_of_the_machine_that_was_beside_a_silent_one_is_offered() {
        let start = Instant::now();
        for from in [None, Some([10, 0, 0, 2].into())] {
            let mut senders = Senders::new(from, None);
            for tenth in 0..100 {
                senders.packet(origin(2, 7), start + ms(100 * tenth));
                senders.packet(origin(2, 8), start + ms(100 * tenth + 1));
            }
            assert_eq!(senders.others(start + ms(9_950)), None, "while the watched one is there");
            for tenth in 100..140 {
                assert!(!matches!(senders.packet(origin(2, 8), start + ms(100 * tenth)), Verdict::Play(_)));
            }
            let (now, ip) = (start + ms(14_000), [10, 0, 0, 2].into());
            let others = senders.others(now).expect("it is offered");
            assert_eq!(others.text, "10.0.0.2 is silent; another program there sends video here");
            assert_eq!((others.machines, others.takes_first_at), (vec![ip], None));
            assert!(senders.choose(ip, now));
            assert_eq!(senders.packet(origin(2, 8), now + ms(1)), Verdict::Play(2));
            assert_eq!(senders.others(now + ms(2)), None);
            assert!(!matches!(senders.packet(origin(2, 7), now + ms(3)), Verdict::Play(_)));
            // Where the server says which stream is its own, no other can be chosen.
            senders.expect(Some(8));
            senders.packet(origin(2, 7), now + ms(5_000));
            assert_eq!(senders.others(now + ms(5_000)), None);
        }
    }

    #[test]
    fn a_restart_of_which_a_packet_comes_before_the_last_ones_of_the_former_stream_is_followed() {
        let (start, mut senders) = (Instant::now(), Senders::new(None, None));
        senders.packet(origin(2, 7), start);
        assert_eq!(senders.packet(origin(2, 8), start + ms(5_000)), Verdict::Play(2));
        // Beside each other for less than a second.
        for tenth in 0..9 {
            assert_eq!(senders.packet(origin(2, 8), start + ms(6_000 + 100 * tenth)), Verdict::Play(2));
            assert!(!matches!(senders.packet(origin(2, 9), start + ms(6_001 + 100 * tenth)), Verdict::Play(_)));
        }
        assert_eq!(senders.packet(origin(2, 9), start + ms(7_900)), Verdict::Play(3));
    }

    #[test]
    fn where_the_server_said_its_source_no_other_is_played_whoever_is_silent() {
        let (start, mut senders) = (Instant::now(), Senders::new(Some([10, 0, 0, 2].into()), None));
        senders.expect(Some(7));
        assert_eq!(senders.packet(origin(2, 8), start), Verdict::Stranger, "it is heard first");
        assert_eq!(senders.packet(origin(2, 7), start + ms(2_000)), Verdict::Play(1));
        assert!(!matches!(senders.packet(origin(2, 9), start + ms(8_000)), Verdict::Play(_)), "new, and 7 is silent");
        // It started anew: what is under way of before does not count any more.
        senders.expect(Some(9));
        senders.expect(None);
        assert_eq!(senders.packet(origin(2, 9), start + ms(8_010)), Verdict::Play(2));
        assert!(!matches!(senders.packet(origin(2, 7), start + ms(8_020)), Verdict::Play(_)));
        assert_eq!(senders.packet(origin(2, 9), start + ms(8_030)), Verdict::Play(2));
    }

    #[test]
    fn after_a_long_silence_the_same_sender_begins_a_new_stream() {
        let (start, mut senders) = (Instant::now(), Senders::new(None, None));
        senders.packet(origin(2, 7), start);
        assert_eq!(senders.packet(origin(2, 7), start + ms(2900)), Verdict::Play(1));
        assert_eq!(senders.packet(origin(2, 7), start + ms(6000)), Verdict::Play(2));
    }

    #[test]
    fn only_the_given_machine_and_payload_type_are_listened_to() {
        let start = Instant::now();
        let mut senders = Senders::new(Some([10, 0, 0, 2].into()), Some(97));
        assert_eq!(senders.packet(origin(3, 8), start), Verdict::Stranger);
        assert_eq!(senders.packet(origin(2, 7), start), Verdict::Ignore);
        assert_eq!(senders.other_now(start), Some(96));
        assert_eq!(senders.packet(Origin { payload_type: 97, ..origin(2, 7) }, start), Verdict::Play(1));
        let mut any = Senders::new(None, None);
        assert_eq!(any.packet(Origin { payload_type: 33, ..origin(2, 7) }, start), Verdict::Ignore, "MPEG-TS");
        assert_eq!(any.packet(Origin { payload_type: 127, ..origin(2, 7) }, start), Verdict::Play(1));
    }

    /// A sender report or goodbye of `ssrc`, in a compound packet behind an empty receiver report.
    fn rtcp(kind: u8, ssrc: u8) -> Vec<u8> {
        vec![0x80, 201, 0, 1, 0, 0, 0, 9, 0x81, kind, 0, 1, 0, 0, 0, ssrc]
    }

    #[test]
    fn a_goodbye_makes_room_at_once() {
        let (start, mut senders) = (Instant::now(), Senders::new(None, None));
        senders.packet(origin(2, 7), start);
        assert!(!senders.control([10, 0, 0, 2].into(), &rtcp(reports::SENDER_REPORT, 7), start));
        assert!(senders.reports(start));
        for (machine, ssrc) in [(3, 7), (2, 8)] {
            assert!(!senders.control([10, 0, 0, machine].into(), &rtcp(reports::BYE, ssrc), start), "another's");
        }
        assert!(senders.control([10, 0, 0, 2].into(), &rtcp(reports::BYE, 7), start));
        assert!(senders.said_goodbye());
        assert_eq!(senders.packet(origin(2, 7), start + ms(1)), Verdict::Ignore, "it was under way");
        assert_eq!(senders.packet(origin(2, 8), start + ms(2)), Verdict::Play(2));
        assert!(!senders.said_goodbye());
    }

    #[test]
    fn damaged_rtcp_is_ignored() {
        let (start, mut senders) = (Instant::now(), Senders::new(None, None));
        senders.packet(origin(2, 7), start);
        for packet in
            [&[][..], &[0x81, reports::BYE], &[0x81, reports::BYE, 0, 9, 0, 0, 0, 7], &[0x80, reports::BYE, 0, 0]]
        {
            assert!(!senders.control([10, 0, 0, 2].into(), packet, start), "{packet:?}");
        }
    }
}
