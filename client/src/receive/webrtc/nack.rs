//! Asking again for packets that were lost (RFC 4585 section 6.2.1), in the place of the crate's generator, which asks
//! at a fixed interval: on a LAN a request may follow the loss within milliseconds, but packets that merely overtook
//! each other are not lost, and over a longer path an answer takes its time. So both waits are learnt: how far packets
//! are reordered, and how long an answer takes. The decisions are pure and take `now`.
//!
//! What cannot come in time is not asked for: many packets missing behind a pause longer than the jitter buffer waits,
//! or more than [`MAX_MISSING`] at once, are an outage, after which the decoder asks for a keyframe.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use rtc::interceptor::{AttributedPacket, Interceptor, Packet, StreamInfo, TaggedPacket};
use rtc::rtcp::transport_feedbacks::transport_layer_nack::{TransportLayerNack, nack_pairs_from_sequence_numbers};
use rtc::sansio::Protocol;
use rtc::shared::TransportContext;
use rtc::shared::error::Error;

use crate::receive::OUTAGE_PACKETS;

/// More packets missing at once are not asked for. A large keyframe of 50 Mbit/s video has fewer.
const MAX_MISSING: usize = 512;
/// Between two requests for the same packet, at least.
const INTERVAL_MIN: Duration = Duration::from_millis(5);
/// Until the first answer shows what the path takes.
const INTERVAL_START: Duration = Duration::from_millis(20);
/// A packet that is missing for less may have been overtaken; within these bounds as learnt.
const REORDER_MIN: Duration = Duration::from_millis(2);
const REORDER_START: Duration = Duration::from_millis(5);
const REORDER_MAX: Duration = Duration::from_millis(20);
/// A picture whose last packet is missing is found out by the next one, a frame interval later. Its packets are sent at
/// once; so when they pause for so long before the last, the next is asked for. Where they come further apart, four
/// such times.
const TAIL_MIN: Duration = Duration::from_millis(8);

/// Requests are paid for by packets that come, a quarter of a request each, up to this credit: a link that is full
/// loses ever more if what it lost is sent on top.
const PRICE: usize = 4;
const CREDIT_MAX: usize = PRICE * 256;
/// Packets that were asked for and came, remembered for the case that they come again.
const MAX_FILLED: usize = 64;

/// A packet that did not come.
#[derive(Clone, Copy, Debug)]
struct Missing {
    sequence: u16,
    since: Instant,
    requests: Option<Requests>,
    /// Nothing behind it came yet: it may not even be sent.
    is_guess: bool,
}

impl Missing {
    /// When it is to be asked for, or given up.
    fn due_at(&self, reorder: Duration, interval: Duration) -> Instant {
        self.requests.map_or(self.since + reorder, |requests| requests.last + interval)
    }
}

#[derive(Clone, Copy, Debug)]
struct Requests {
    first: Instant,
    last: Instant,
    count: u32,
}

/// One that was asked for, and came at `at`.
#[derive(Clone, Copy, Debug)]
struct Filled {
    sequence: u16,
    since: Instant,
    requests: Requests,
    at: Instant,
}

/// The gaps of one stream.
#[derive(Debug)]
pub struct Gaps {
    /// The longest wait for a packet.
    patience: Duration,
    newest: Option<Newest>,
    /// By age, the oldest first.
    missing: VecDeque<Missing>,
    filled: VecDeque<Filled>,
    /// How long a packet that was overtaken may take.
    reorder: Duration,
    /// Of answers: the smoothed time and its deviation (RFC 6298 section 2).
    answer: Option<(Duration, Duration)>,
    /// The time between packets of one picture.
    spacing: Duration,
    credit: usize,
}

#[derive(Clone, Copy, Debug)]
struct Newest {
    sequence: u16,
    at: Instant,
    /// The last packet of its picture.
    marker: bool,
    timestamp: u32,
    /// The one behind it was already asked for on a guess.
    guessed: bool,
}

impl Gaps {
    /// `patience`: how long the jitter buffer waits.
    pub fn new(patience: Duration) -> Self {
        Self {
            patience,
            newest: None,
            missing: VecDeque::new(),
            filled: VecDeque::new(),
            reorder: REORDER_START.min(patience),
            answer: None,
            spacing: Duration::ZERO,
            credit: CREDIT_MAX,
        }
    }

    /// A packet came, for the first time or again.
    pub fn arrived(&mut self, sequence: u16, timestamp: u32, marker: bool, now: Instant) {
        self.credit = (self.credit + 1).min(CREDIT_MAX);
        let newest = Newest { sequence, at: now, marker, timestamp, guessed: false };
        let Some(before) = self.newest else {
            self.newest = Some(newest);
            return;
        };
        let ahead = sequence.wrapping_sub(before.sequence);
        if ahead == 0 || ahead >= 0x8000 {
            self.filled(sequence, now);
            // One that was guessed to be missing, and is the newest.
            if ahead == 0 {
                self.newest = Some(newest);
            }
            return;
        }
        let pause = now.saturating_duration_since(before.at);
        if timestamp == before.timestamp && ahead == 1 {
            self.spacing = (self.spacing * 7 + pause) / 8;
        }
        self.newest = Some(newest);
        let gap = usize::from(ahead - 1);
        if gap > MAX_MISSING || (gap > OUTAGE_PACKETS && pause > self.patience) {
            self.missing.clear();
            return;
        }
        for missing in &mut self.missing {
            missing.is_guess = false;
        }
        for offset in 1..ahead {
            let sequence = before.sequence.wrapping_add(offset);
            self.missing.push_back(Missing { sequence, since: now, requests: None, is_guess: false });
        }
        while self.missing.len() > MAX_MISSING {
            self.missing.pop_front();
        }
    }

    /// A packet that was missing came, or one that was not comes again: what that teaches.
    fn filled(&mut self, sequence: u16, now: Instant) {
        let Some(at) = self.missing.iter().position(|missing| missing.sequence == sequence) else {
            return self.came_again(sequence, now);
        };
        let Some(missing) = self.missing.remove(at).filter(|missing| !missing.is_guess) else { return };
        let Some(requests) = missing.requests else {
            self.overtaken(now.saturating_duration_since(missing.since));
            return;
        };
        // Of several requests nobody knows which was answered (Karn's algorithm).
        if requests.count == 1 {
            self.answered(now.saturating_duration_since(requests.last));
        }
        if self.filled.len() == MAX_FILLED {
            self.filled.pop_front();
        }
        self.filled.push_back(Filled { sequence, since: missing.since, requests, at: now });
    }

    /// A request was one too many: the packet itself had come, or the answer to a former request.
    fn came_again(&mut self, sequence: u16, now: Instant) {
        let Some(at) = self.filled.iter().position(|filled| filled.sequence == sequence) else { return };
        let Some(Filled { since, requests, at, .. }) = self.filled.remove(at) else { return };
        if requests.count == 1 {
            self.overtaken(at.saturating_duration_since(since));
            self.answered(now.saturating_duration_since(requests.last));
        } else {
            self.answered(at.saturating_duration_since(requests.first));
        }
    }

    fn overtaken(&mut self, late: Duration) {
        self.reorder = self.reorder.max(late * 5 / 4).min(REORDER_MAX);
    }

    fn answered(&mut self, took: Duration) {
        self.answer = Some(match self.answer {
            None => (took, took / 2),
            Some((smoothed, deviation)) => ((smoothed * 7 + took) / 8, (deviation * 3 + smoothed.abs_diff(took)) / 4),
        });
        // A real loss: packets are reordered less than was thought.
        self.reorder = (self.reorder * 31 / 32).max(REORDER_MIN);
    }

    fn interval(&self) -> Duration {
        self.answer.map_or(INTERVAL_START, |(smoothed, deviation)| smoothed + 4 * deviation).max(INTERVAL_MIN)
    }

    /// When the packet behind the newest is taken to be missing.
    fn tail_at(&self) -> Option<Instant> {
        let newest = self.newest.filter(|newest| !newest.marker && !newest.guessed)?;
        Some(newest.at + (4 * self.spacing).max(TAIL_MIN).max(self.reorder))
    }

    /// When [`Self::due`] has something to ask for.
    pub fn next(&self) -> Option<Instant> {
        let (reorder, interval) = (self.reorder, self.interval());
        let due = self.missing.iter().map(|missing| missing.due_at(reorder, interval));
        due.chain(self.tail_at()).min()
    }

    /// What is to be asked for now; taken as done.
    pub fn due(&mut self, now: Instant) -> Vec<u16> {
        if self.tail_at().is_some_and(|at| at <= now)
            && let Some(newest) = &mut self.newest
        {
            let sequence = newest.sequence.wrapping_add(1);
            // The reordering was waited for already.
            let since = now.checked_sub(self.reorder).unwrap_or(now);
            *newest = Newest { sequence, at: now, guessed: true, ..*newest };
            self.missing.push_back(Missing { sequence, since, requests: None, is_guess: true });
        }
        // What is asked for so late that the answer comes too late burdens the link for nothing.
        let patience = self.patience.saturating_sub(self.answer.map_or(Duration::ZERO, |(smoothed, _)| smoothed));
        let (reorder, interval) = (self.reorder, self.interval());
        let mut asked = Vec::new();
        self.missing.retain_mut(|missing| {
            if missing.due_at(reorder, interval) > now {
                return true;
            }
            let too_late = missing.requests.is_some() && now.saturating_duration_since(missing.since) > patience;
            if too_late || self.credit < PRICE {
                return false;
            }
            self.credit -= PRICE;
            let requests = missing.requests.get_or_insert(Requests { first: now, last: now, count: 0 });
            (requests.last, requests.count) = (now, requests.count + 1);
            asked.push(missing.sequence);
            true
        });
        asked
    }
}

/// The interceptor around [`Gaps`].
pub struct NackGenerator {
    patience: Duration,
    sender_ssrc: u32,
    streams: HashMap<u32, Gaps>,
    read: VecDeque<TaggedPacket>,
    write: VecDeque<TaggedPacket>,
}

impl NackGenerator {
    pub fn new(patience: Duration) -> Self {
        let (read, write) = (VecDeque::new(), VecDeque::new());
        Self { patience, sender_ssrc: 0, streams: HashMap::new(), read, write }
    }
}

impl Protocol<TaggedPacket, TaggedPacket, ()> for NackGenerator {
    type Rout = TaggedPacket;
    type Wout = TaggedPacket;
    type Eout = ();
    type Error = Error;
    type Time = Instant;

    fn handle_read(&mut self, packet: TaggedPacket) -> Result<(), Error> {
        if let Packet::Rtp(rtp) = &packet.message.packet
            && let Some(gaps) = self.streams.get_mut(&rtp.header.ssrc)
        {
            gaps.arrived(rtp.header.sequence_number, rtp.header.timestamp, rtp.header.marker, packet.now);
        }
        self.read.push_back(packet);
        Ok(())
    }

    fn poll_read(&mut self) -> Option<TaggedPacket> {
        self.read.pop_front()
    }

    fn handle_write(&mut self, packet: TaggedPacket) -> Result<(), Error> {
        self.write.push_back(packet);
        Ok(())
    }

    fn poll_write(&mut self) -> Option<TaggedPacket> {
        self.write.pop_front()
    }

    fn handle_timeout(&mut self, now: Instant) -> Result<(), Error> {
        for (&media_ssrc, gaps) in &mut self.streams {
            let due = gaps.due(now);
            if due.is_empty() {
                continue;
            }
            let nacks = nack_pairs_from_sequence_numbers(&due);
            let nack = TransportLayerNack { sender_ssrc: self.sender_ssrc, media_ssrc, nacks };
            self.write.push_back(TaggedPacket {
                now,
                transport: TransportContext::default(),
                message: AttributedPacket::new(Packet::Rtcp(vec![Box::new(nack)])),
            });
        }
        Ok(())
    }

    fn poll_timeout(&mut self) -> Option<Instant> {
        self.streams.values().filter_map(Gaps::next).min()
    }
}

impl Interceptor for NackGenerator {
    fn bind_local_stream(&mut self, _info: &StreamInfo) {}
    fn unbind_local_stream(&mut self, _info: &StreamInfo) {}

    fn bind_remote_stream(&mut self, info: &StreamInfo) {
        if info.rtcp_feedback.iter().any(|feedback| feedback.typ == "nack" && feedback.parameter.is_empty()) {
            self.streams.insert(info.ssrc, Gaps::new(self.patience));
        }
    }

    fn unbind_remote_stream(&mut self, info: &StreamInfo) {
        self.streams.remove(&info.ssrc);
    }
}

#[cfg(test)]
#[path = "nack_tests.rs"]
mod tests;
