//! Which of the senders that are heard at one destination is watched. Pure; takes `now`.
//!
//! A multicast group and a UDP port are open to whoever sends: two vehicles with the same settings must not be mixed
//! into one picture, and one that starts anew must be followed.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

/// The watched sender keeps its place while it is not silent for longer than this.
const SILENT: Duration = Duration::from_secs(1);
/// After a silence of this length a stream begins anew for the decoder: packets in flight are not waited for any more.
const NEW_STREAM: Duration = Duration::from_secs(3);
/// Packets that were under way when their sender said goodbye are none of a new one.
const STRAGGLERS: Duration = Duration::from_secs(1);
/// What was seen no longer ago than this is said.
const RECENT: Duration = Duration::from_secs(3);
/// Payload types that are given out dynamically (RFC 3551 section 6): all that H.264 has.
const DYNAMIC: std::ops::RangeInclusive<u8> = 96..=127;
const RTCP_SENDER_REPORT: u8 = 200;
const RTCP_BYE: u8 = 203;

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

#[derive(Debug)]
pub struct Senders {
    /// Only this machine is listened to, if given.
    from: Option<IpAddr>,
    payload_type: Option<u8>,
    watched: Option<Watched>,
    /// Counts the streams. The decoder never sees the senders' own numbers, since it ignores those that it had before.
    stream: u32,
    stranger: Option<(SocketAddr, Instant)>,
    gone: Option<(Origin, Instant)>,
    /// Of packets that carry no video.
    other: Option<(u8, Instant)>,
    reported: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
struct Watched {
    origin: Origin,
    last: Instant,
}

impl Senders {
    /// `from`: the only machine that is listened to. `payload_type`: the only one that is video; else any dynamic one.
    pub fn new(from: Option<IpAddr>, payload_type: Option<u8>) -> Self {
        Self { from, payload_type, watched: None, stream: 0, stranger: None, gone: None, other: None, reported: None }
    }

    pub fn packet(&mut self, origin: Origin, now: Instant) -> Verdict {
        if self.from.is_some_and(|from| from != origin.address.ip()) {
            return self.stranger(origin, now);
        }
        let is_video = self.payload_type.map_or(DYNAMIC.contains(&origin.payload_type), |t| t == origin.payload_type);
        if !is_video {
            self.other = Some((origin.payload_type, now));
            return Verdict::Ignore;
        }
        if self.gone.is_some_and(|(gone, at)| gone == origin && now.saturating_duration_since(at) < STRAGGLERS) {
            return Verdict::Ignore;
        }
        match &mut self.watched {
            Some(watched) if watched.origin == origin => {
                let silent = now.saturating_duration_since(std::mem::replace(&mut watched.last, now));
                self.stream += u32::from(silent > NEW_STREAM);
            }
            Some(watched) if now.saturating_duration_since(watched.last) <= SILENT => {
                return self.stranger(origin, now);
            }
            _ => {
                self.watched = Some(Watched { origin, last: now });
                self.gone = None;
                self.stream += 1;
            }
        }
        Verdict::Play(self.stream)
    }

    fn stranger(&mut self, origin: Origin, now: Instant) -> Verdict {
        let said = self.stranger_now(now).is_some();
        self.stranger = Some((origin.address, now));
        if said { Verdict::Ignore } else { Verdict::Stranger }
    }

    /// A compound RTCP packet (RFC 3550 section 6.1). True when the watched sender said goodbye by it.
    pub fn control(&mut self, from: IpAddr, packet: &[u8], now: Instant) -> bool {
        let Some(watched) = self.watched.filter(|watched| watched.origin.address.ip() == from) else { return false };
        let mut rest = packet;
        while let [first, kind, high, low, ..] = *rest
            && first >> 6 == 2
        {
            let length = 4 * (usize::from(u16::from_be_bytes([high, low])) + 1);
            let Some((this, behind)) = rest.split_at_checked(length) else { break };
            let mut sources = this[4..].chunks_exact(4).map(|word| word == watched.origin.ssrc.to_be_bytes());
            match kind {
                RTCP_SENDER_REPORT if sources.next() == Some(true) => self.reported = Some(now),
                RTCP_BYE if sources.take(usize::from(first & 0x1f)).any(|is_ours| is_ours) => {
                    self.watched = None;
                    self.reported = None;
                    self.gone = Some((watched.origin, now));
                    return true;
                }
                _ => {}
            }
            rest = behind;
        }
        false
    }

    /// The watched one said goodbye, and there is no other yet.
    pub fn said_goodbye(&self) -> bool {
        self.gone.is_some()
    }

    pub fn watched(&self) -> Option<SocketAddr> {
        self.watched.map(|watched| watched.origin.address)
    }

    /// A sender that is heard now and not watched.
    pub fn stranger_now(&self, now: Instant) -> Option<SocketAddr> {
        recent(self.stranger, now)
    }

    /// The payload type of packets that come now and are no video.
    pub fn other_now(&self, now: Instant) -> Option<u8> {
        recent(self.other, now)
    }

    /// The watched sender reported by RTCP lately. Such reports come every five seconds or so.
    pub fn reports(&self, now: Instant) -> bool {
        self.reported.is_some_and(|at| now.saturating_duration_since(at) < 3 * RECENT)
    }
}

fn recent<T>(seen: Option<(T, Instant)>, now: Instant) -> Option<T> {
    seen.filter(|(_, at)| now.saturating_duration_since(*at) < RECENT).map(|(what, _)| what)
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
        assert_eq!(senders.stranger_now(start + ms(100)), Some(origin(2, 9).address));
        assert_eq!(senders.stranger_now(start + ms(5000)), None);
    }

    #[test]
    fn when_the_watched_sender_falls_silent_another_takes_its_place() {
        let (start, mut senders) = (Instant::now(), Senders::new(None, None));
        senders.packet(origin(2, 7), start);
        assert_eq!(senders.packet(origin(2, 8), start + ms(1000)), Verdict::Stranger);
        assert_eq!(senders.packet(origin(2, 8), start + ms(1001)), Verdict::Play(2));
        assert_ne!(senders.packet(origin(2, 7), start + ms(1002)), Verdict::Play(3));
        // And back, under a number that the decoder has not had.
        assert_eq!(senders.packet(origin(2, 7), start + ms(2100)), Verdict::Play(3));
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
        assert!(!senders.control([10, 0, 0, 2].into(), &rtcp(RTCP_SENDER_REPORT, 7), start));
        assert!(senders.reports(start));
        for (machine, ssrc) in [(3, 7), (2, 8)] {
            assert!(!senders.control([10, 0, 0, machine].into(), &rtcp(RTCP_BYE, ssrc), start), "another's");
        }
        assert!(senders.control([10, 0, 0, 2].into(), &rtcp(RTCP_BYE, 7), start));
        assert!(senders.said_goodbye());
        assert_eq!(senders.packet(origin(2, 7), start + ms(1)), Verdict::Ignore, "it was under way");
        assert_eq!(senders.packet(origin(2, 8), start + ms(2)), Verdict::Play(2));
        assert!(!senders.said_goodbye());
    }

    #[test]
    fn damaged_rtcp_is_ignored() {
        let (start, mut senders) = (Instant::now(), Senders::new(None, None));
        senders.packet(origin(2, 7), start);
        for packet in [&[][..], &[0x81, RTCP_BYE], &[0x81, RTCP_BYE, 0, 9, 0, 0, 0, 7], &[0x80, RTCP_BYE, 0, 0]] {
            assert!(!senders.control([10, 0, 0, 2].into(), packet, start), "{packet:?}");
        }
    }
}
