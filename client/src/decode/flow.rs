//! What goes through the decoder, kept beside it: which packet came when, which access unit has a hole, which may be
//! decoded, how long decoding took. Pure; takes `now`. The GStreamer probes of `graph` are the thin part around it.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use rov_common::capture_clock::Captured;
use rov_common::lateness::{LATE, Lateness, Received};
use rov_common::rtp::Header;

use super::gate::KeyframeGate;
use super::rtp::Part;
use crate::receive::OUTAGE_PACKETS;

/// Access units remembered on their way through the decoder: more than any decoder holds.
const UNITS: usize = 64;
/// Packets remembered, by sequence number, until they leave the jitter buffer: over a second of 100 Mbit/s. A power of
/// two.
const ARRIVALS: usize = 16_384;
/// An access unit that waited this much longer than the jitter buffer may hold it shows that decoding cannot keep up:
/// skip to a keyframe, as each unit decoded late would make the delay grow.
const BEHIND: Duration = Duration::from_millis(300);
/// How late a picture may be, however often such lateness was met before: the window dims what is older anyway.
const LATEST: Duration = Duration::from_secs(1);
/// Lateness met again within this time was not cured by skipping to a keyframe. On a slow link it may come from the
/// keyframes themselves; so each time more of it is borne.
const LATE_MEMORY: Duration = Duration::from_secs(10);
/// Looked at this late, the whole process stood still, and the decoder could do nothing in the meantime.
const STOOD_STILL: Duration = Duration::from_millis(500);
/// A decoder that got this many access units for this long without giving a picture does not work.
const STALL_UNITS: u32 = 20;
const STALL_TIME: Duration = Duration::from_secs(2);
/// After a stall, packets that are late by no more than this are live again: less than any jitter buffer holds.
const CAUGHT_UP: Duration = Duration::from_millis(20);
/// The time over which means are taken.
const WINDOW: Duration = Duration::from_secs(2);

/// One access unit, from its packets to its picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unit {
    pub rtp_timestamp: u32,
    /// When its first and its last packet came in.
    pub first_packet_at: Instant,
    pub last_packet_at: Instant,
    /// How much later than it should be its last packet came.
    pub late_by: Duration,
    /// When it was captured, by the server's clock.
    pub captured: Option<Captured>,
    /// How long that packet waited for the decoder, in the jitter buffer.
    waited: Duration,
    /// Its time on GStreamer's clock, by which it is found again behind the depayloader and the decoder: that of its
    /// first and of its last packet, since the depayloader may take either.
    pts: (Option<u64>, Option<u64>),
    intact: bool,
    pub decoding_since: Option<Instant>,
}

impl Unit {
    fn is_at(&self, pts: Option<u64>) -> bool {
        self.pts.0 <= pts && pts <= self.pts.1
    }
}

/// Counters for the statistics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Packets that went in.
    pub packets: u64,
    /// Packets that never came, or too late.
    pub lost: u64,
    /// Pictures that came out.
    pub decoded: u64,
    /// Access units kept from the decoder, because they were incomplete or waited for a keyframe.
    pub skipped: u64,
}

#[derive(Clone, Copy, Debug)]
struct Arrival {
    packet: Part,
    at: Instant,
    late_by: Duration,
}

/// The state of one stream.
#[derive(Debug)]
pub struct Flow {
    pub gate: KeyframeGate,
    pub counters: Counters,
    latency: Duration,
    behind: Duration,
    /// A picture may be so late, where that was not met before: what the jitter buffer may wait for is not late.
    usual_limit: Duration,
    arrivals: Vec<Option<Arrival>>,
    lateness: Lateness,
    /// A backlog is coming in.
    catching_up: bool,
    /// It is what waited while the whole process stood still.
    after_standstill: bool,
    /// How late a picture may be just now.
    late_limit: Duration,
    /// When a picture was last found to be too late.
    too_late_at: Option<Instant>,
    last_look: Instant,
    last_arrival: Option<Instant>,
    /// Of all that came: stream and sequence number.
    newest: Option<(u32, u16)>,
    last: Option<Part>,
    last_out: Instant,
    units: VecDeque<Unit>,
    without_picture: Option<(Instant, u32)>,
    decode_times: VecDeque<(Instant, Duration)>,
}

impl Flow {
    /// `latency`: how long the jitter buffer may hold a packet.
    pub fn new(latency: Duration, now: Instant) -> Self {
        Self {
            gate: KeyframeGate::new(now),
            counters: Counters::default(),
            latency,
            behind: latency + BEHIND,
            usual_limit: LATE.max(latency),
            arrivals: vec![None; ARRIVALS],
            lateness: Lateness::default(),
            catching_up: false,
            after_standstill: false,
            late_limit: LATE.max(latency),
            too_late_at: None,
            last_look: now,
            last_arrival: None,
            newest: None,
            last: None,
            last_out: now,
            units: VecDeque::with_capacity(UNITS),
            without_picture: None,
            decode_times: VecDeque::new(),
        }
    }

    /// So long packets may have been waited for before they came here: no picture is too late for that.
    #[must_use]
    pub fn bearing(mut self, waited: Duration) -> Self {
        self.usual_limit = self.usual_limit.max(waited);
        self.late_limit = self.usual_limit;
        self
    }

    /// A new decoder takes over: it knows nothing of what went before.
    pub fn restart(&mut self, reason: impl Into<String>, now: Instant) {
        self.begin_stream(now);
        self.gate = KeyframeGate::mid_stream(reason);
    }

    /// Another stream takes over, which begins with a keyframe by itself.
    pub fn begin_stream(&mut self, now: Instant) {
        self.gate = KeyframeGate::new(now);
        self.last = None;
        self.last_out = now;
        self.units.clear();
        self.without_picture = None;
    }

    /// A packet came from the network. Gives the time by which the jitter buffer shall take it for late: it would take
    /// the first packets of a backlog for the new measure, and at the next gap wait as much longer as they were late.
    pub fn arrived(&mut self, packet: &Part, received: Received) -> Duration {
        let at = received.at;
        self.counters.packets += 1;
        let before = self.last_arrival.replace(at);
        if before.is_none() {
            self.gate.joined(at);
        }
        self.look_for_outage(&packet.header, before.map(|before| at.saturating_duration_since(before)));
        let Header { ssrc, sequence, timestamp, .. } = packet.header;
        let late_by =
            if packet.empty { Duration::ZERO } else { self.lateness.arrived(ssrc, sequence, timestamp, received) };
        // Of one that comes twice the jitter buffer takes the first, which alone may say when its picture was captured.
        let known = self.arrival(ssrc, sequence).filter(|known| known.packet.header.timestamp == timestamp);
        if known.is_none() {
            self.arrivals[usize::from(sequence) % ARRIVALS] = Some(Arrival { packet: *packet, at, late_by });
        }
        self.catching_up = late_by > LATE || (self.catching_up && late_by > CAUGHT_UP);
        self.after_standstill &= self.catching_up;
        if self.catching_up { late_by } else { Duration::ZERO }
    }

    fn arrival(&self, ssrc: u32, sequence: u16) -> Option<Arrival> {
        let arrival = self.arrivals[usize::from(sequence) % ARRIVALS];
        arrival.filter(|arrival| arrival.packet.header.ssrc == ssrc && arrival.packet.header.sequence == sequence)
    }

    /// What was lost in a pause that is longer than the jitter buffer waits will not come: there is no point in its
    /// finding out first.
    fn look_for_outage(&mut self, packet: &Header, pause: Option<Duration>) {
        let before = self.newest.filter(|(ssrc, _)| *ssrc == packet.ssrc).map(|(_, newest)| newest);
        let ahead = before.map_or(1, |newest| packet.sequence.wrapping_sub(newest));
        if ahead == 0 || ahead >= 0x8000 {
            return;
        }
        self.newest = Some((packet.ssrc, packet.sequence));
        if let Some(pause) = pause.filter(|pause| usize::from(ahead) > OUTAGE_PACKETS && *pause > self.latency) {
            self.gate.close(format!("nothing came for {} ms", pause.as_millis()));
        }
    }

    /// A packet of this source and sequence number left the jitter buffer; these come in order.
    pub fn packet(&mut self, (ssrc, sequence): (u32, u16), pts: Option<u64>, now: Instant) {
        self.last_out = now;
        let Some(Arrival { packet, at, late_by }) = self.arrival(ssrc, sequence) else {
            // So many came behind it that it is forgotten.
            self.given_up();
            return;
        };
        let timestamp = packet.header.timestamp;
        // Of the first picture, packets may have gone by before the first that came.
        let (mut missing, mut unit_has_hole) = (0, !packet.begins_unit);
        if let Some(last) = self.last.replace(packet) {
            unit_has_hole = false;
            missing = sequence.wrapping_sub(last.header.sequence).wrapping_sub(1);
            if missing > 0 {
                // The hole is in the picture before it unless that had ended, and in the one behind it unless that
                // visibly begins there.
                let new_unit = timestamp != last.header.timestamp;
                unit_has_hole = !(new_unit && packet.begins_unit);
                if !last.header.marker
                    && let Some(unit) = self.units.back_mut()
                {
                    unit.intact = false;
                }
            }
        }
        if missing > 0 {
            // A jump this wide is a new stream, not a loss.
            if missing < 0x8000 {
                self.counters.lost += u64::from(missing);
            }
            self.gate.close(format!("{missing} packets lost"));
        }
        if packet.empty {
            return;
        }
        let waited = now.saturating_duration_since(at);
        match self.units.back_mut().filter(|unit| unit.rtp_timestamp == timestamp) {
            Some(unit) => {
                // After a retransmission the jitter buffer may give the first packet a later time than the last.
                unit.pts = (unit.pts.0.min(pts), unit.pts.1.max(pts));
                unit.intact &= !unit_has_hole;
                unit.captured = unit.captured.or(packet.captured);
                unit.first_packet_at = unit.first_packet_at.min(at);
                if unit.last_packet_at <= at {
                    (unit.last_packet_at, unit.late_by, unit.waited) = (at, late_by, waited);
                }
            }
            None => {
                if self.units.len() == UNITS {
                    self.units.pop_front();
                }
                self.units.push_back(Unit {
                    rtp_timestamp: timestamp,
                    first_packet_at: at,
                    last_packet_at: at,
                    late_by,
                    captured: packet.captured,
                    waited,
                    pts: (pts, pts),
                    intact: !unit_has_hole,
                    decoding_since: None,
                });
            }
        }
    }

    /// The jitter buffer gave a packet up. Only closes the gate: `packet` counts the gap when it sees its other side.
    pub fn given_up(&mut self) {
        if self.gate.is_open() {
            self.gate.close("packets lost");
        }
    }

    /// An access unit is about to enter the decoder; whether it may.
    pub fn access_unit(&mut self, pts: Option<u64>, keyframe: bool, now: Instant) -> bool {
        let behind = self.behind;
        let late_by = self.units.iter().rev().find(|unit| unit.is_at(pts)).map(|unit| unit.late_by);
        // Decoding a backlog would show the past: rather jump to what is live.
        if let Some(late_by) = late_by
            && self.is_too_late(late_by, keyframe, now)
        {
            self.gate.close(format!("the video is {} ms late", late_by.as_millis()));
            self.counters.skipped += 1;
            return false;
        }
        let unit = self.units.iter_mut().rev().find(|unit| unit.is_at(pts));
        let intact = unit.as_ref().is_some_and(|unit| unit.intact);
        if let Some(unit) = unit {
            // Not until now: where marker bits are wrong, it ends only with the next one.
            if unit.waited > behind {
                self.gate.close(format!("decoding is {} ms behind", unit.waited.as_millis()));
                self.counters.skipped += 1;
                return false;
            }
            unit.decoding_since = Some(now);
        }
        let admitted = self.gate.admit(keyframe, intact);
        if admitted {
            self.without_picture.get_or_insert((now, 0)).1 += 1;
        } else {
            self.counters.skipped += 1;
        }
        admitted
    }

    /// What is known of the access unit of this time.
    pub fn unit(&self, pts: Option<u64>) -> Option<Unit> {
        self.units.iter().rev().find(|unit| unit.is_at(pts)).copied()
    }

    fn is_too_late(&mut self, late_by: Duration, keyframe: bool, now: Instant) -> bool {
        let since = self.too_late_at.map(|at| now.saturating_duration_since(at));
        let again = since.is_some_and(|since| since <= LATE_MEMORY);
        // What waited meanwhile says nothing of the link.
        if !again || self.after_standstill {
            self.late_limit = self.usual_limit;
        }
        if late_by <= self.late_limit {
            return false;
        }
        // What is found right after is the same backlog.
        if (keyframe || self.gate.is_open()) && since.is_none_or(|since| since > LATE) {
            if again && !self.after_standstill {
                self.late_limit = (2 * self.late_limit).min(LATEST.max(self.usual_limit));
            }
            self.too_late_at = Some(now);
        }
        late_by > self.late_limit
    }

    /// A picture came out of the decoder. Gives the access unit it was made from.
    pub fn picture(&mut self, pts: Option<u64>, now: Instant) -> Option<Unit> {
        self.without_picture = None;
        self.counters.decoded += 1;
        let decoding = |unit: &Unit| unit.decoding_since.is_some();
        let exact = self.units.iter().position(|unit| decoding(unit) && unit.is_at(pts));
        // A decoder that makes up its own times still keeps the order.
        let at = exact.or_else(|| self.units.iter().position(decoding))?;
        self.units.drain(..at);
        let unit = self.units.pop_front()?;
        let took = now.saturating_duration_since(unit.decoding_since?);
        self.decode_times.push_back((now, took));
        while self.decode_times.front().is_some_and(|(at, _)| now.saturating_duration_since(*at) > WINDOW) {
            self.decode_times.pop_front();
        }
        Some(unit)
    }

    /// Mean time in the decoder, converting and scaling included, over the last two seconds.
    pub fn decode_time(&self, now: Instant) -> Option<Duration> {
        let recent = self.decode_times.iter().filter(|(at, _)| now.saturating_duration_since(*at) <= WINDOW);
        let (sum, count) = recent.fold((Duration::ZERO, 0), |(sum, count), (_, took)| (sum + *took, count + 1));
        (count > 0).then(|| sum / count)
    }

    /// The reason, if a keyframe should be asked for now. Nobody is asked while nothing comes at all: a keyframe would
    /// not come either.
    pub fn keyframe_due(&mut self, now: Instant) -> Option<String> {
        let alive = self.last_arrival.is_some_and(|at| now.saturating_duration_since(at) < Duration::from_secs(1));
        if alive { self.gate.request_due(now) } else { None }
    }

    /// Why the decoder must be taken for broken, if so.
    pub fn stalled(&mut self, now: Instant) -> Option<String> {
        let since_look = now.saturating_duration_since(std::mem::replace(&mut self.last_look, now));
        if since_look > STOOD_STILL {
            self.after_standstill = true;
            self.last_out = self.last_out.max(now);
            if let Some((since, _)) = &mut self.without_picture {
                *since = now;
            }
        }
        let (since, units) = self.without_picture?;
        let waited = now.saturating_duration_since(since);
        // A decoder that does not return holds up the packets behind it, which go on arriving.
        let stuck = self.last_arrival.is_some_and(|at| at.saturating_duration_since(self.last_out) >= STALL_TIME);
        (waited >= STALL_TIME && (units >= STALL_UNITS || stuck))
            .then(|| format!("no picture in {:.1} s from {units} access units", waited.as_secs_f64()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LATENCY: Duration = Duration::from_millis(50);

    fn packet(sequence: u16, timestamp: u32, marker: bool, begins_unit: bool) -> Part {
        let header = Header { marker, payload_type: 96, sequence, timestamp, ssrc: 1 };
        Part { header, begins_unit, empty: false, captured: None }
    }

    fn number(packet: &Part) -> (u32, u16) {
        (packet.header.ssrc, packet.header.sequence)
    }

    /// Feeds packets of pictures, two each, the first of which begins with parameter sets if it is a keyframe, and
    /// gives the numbers of the pictures that pass. Picture `n` has packets `2n` and `2n + 1`.
    fn shown(pictures: u32, keyframes: &[u32], lost: &[u16]) -> (Vec<u32>, Flow) {
        let now = Instant::now();
        let mut flow = Flow::new(LATENCY, now);
        let mut passed = Vec::new();
        let mut open_unit = None;
        let finish = |flow: &mut Flow, unit: Option<u32>, passed: &mut Vec<u32>| {
            if let Some(unit) = unit
                && flow.access_unit(Some(unit.into()), keyframes.contains(&unit), now)
            {
                passed.push(unit);
            }
        };
        for sequence in (0..2 * pictures as u16).filter(|sequence| !lost.contains(sequence)) {
            let (picture, half) = (u32::from(sequence / 2), sequence % 2);
            let begins = half == 0 && keyframes.contains(&picture);
            let packet = packet(sequence, picture, half == 1, begins);
            flow.arrived(&packet, now.into());
            flow.packet(number(&packet), Some(picture.into()), now);
            // As the depayloader does: a unit ends with its marker, or where the next one begins.
            if open_unit.is_some_and(|open| open != picture) {
                finish(&mut flow, open_unit.take(), &mut passed);
            }
            open_unit = Some(picture);
            if half == 1 {
                finish(&mut flow, open_unit.take(), &mut passed);
            }
        }
        (passed, flow)
    }

    #[test]
    fn without_loss_everything_passes() {
        let (passed, flow) = shown(5, &[0], &[]);
        assert_eq!(passed, [0, 1, 2, 3, 4]);
        assert_eq!(flow.counters, Counters { packets: 10, lost: 0, decoded: 0, skipped: 0 });
    }

    #[test]
    fn a_hole_hides_the_picture_and_all_that_refer_to_it() {
        for lost in [4, 5] {
            let (passed, flow) = shown(8, &[0, 6], &[lost]);
            assert_eq!(passed, [0, 1, 6, 7], "packet {lost}");
            assert_eq!((flow.counters.lost, flow.counters.skipped), (1, 4));
        }
    }

    #[test]
    fn a_picture_lost_whole_hides_those_that_refer_to_it() {
        assert_eq!(shown(8, &[0, 6], &[4, 5]).0, [0, 1, 6, 7]);
    }

    #[test]
    fn a_keyframe_with_a_hole_opens_nothing() {
        for lost in [8, 9] {
            assert_eq!(shown(8, &[0, 4, 6], &[lost]).0, [0, 1, 2, 3, 6, 7], "packet {lost}");
        }
    }

    #[test]
    fn a_whole_keyframe_behind_the_hole_is_shown_at_once() {
        assert_eq!(shown(6, &[0, 3], &[5]).0, [0, 1, 3, 4, 5]);
    }

    #[test]
    fn a_decoder_that_is_behind_skips_to_a_keyframe() {
        let now = Instant::now();
        let mut flow = Flow::new(LATENCY, now);
        let mut feed = |n: u16, keyframe, waited| {
            let packet = packet(n, n.into(), true, keyframe);
            flow.arrived(&packet, now.into());
            flow.packet(number(&packet), Some(n.into()), now + waited);
            flow.access_unit(Some(n.into()), keyframe, now + waited)
        };
        assert!(feed(0, true, LATENCY));
        assert!(!feed(1, false, Duration::from_millis(351)));
        assert!(!feed(2, false, Duration::ZERO));
        assert!(feed(3, true, Duration::ZERO));
    }

    #[test]
    fn a_picture_finds_its_unit_and_the_time_it_took() {
        let now = Instant::now();
        let mut flow = Flow::new(LATENCY, now);
        for n in 0..3_u16 {
            let packet = packet(n, 1000 + u32::from(n / 2), n == 1, n == 0);
            flow.arrived(&packet, (now + Duration::from_millis(n.into())).into());
            flow.packet(number(&packet), Some(u64::from(n / 2)), now);
        }
        assert!(flow.access_unit(Some(0), true, now + Duration::from_millis(5)));
        let unit = flow.picture(Some(0), now + Duration::from_millis(9)).unwrap();
        assert_eq!(unit.rtp_timestamp, 1000);
        assert_eq!(unit.last_packet_at - unit.first_packet_at, Duration::from_millis(1));
        let soon = now + Duration::from_secs(1);
        assert_eq!(flow.decode_time(soon), Some(Duration::from_millis(4)));
        assert_eq!(flow.decode_time(now + Duration::from_secs(3)), None);
        assert_eq!(flow.picture(Some(0), soon), None);
    }

    #[test]
    fn a_picture_whose_first_packet_came_late_is_whole() {
        let now = Instant::now();
        let mut flow = Flow::new(LATENCY, now);
        // As the jitter buffer times them after a retransmission: the first packet later than the last.
        for (n, pts) in [(0_u16, 70_u64), (1, 40)] {
            let packet = packet(n, 1000, n == 1, n == 0);
            flow.arrived(&packet, now.into());
            flow.packet(number(&packet), Some(pts), now);
        }
        assert!(flow.access_unit(Some(70), true, now));
    }

    #[test]
    fn a_picture_knows_when_it_was_captured_by_the_first_packet_of_its_source_that_says_it() {
        let now = Instant::now();
        let mut flow = Flow::new(LATENCY, now);
        let captured = Some(Captured(Duration::from_millis(1_764_000_000_123)));
        let [first, second] = [(0, false), (1, true)].map(|(n, marker)| packet(n, 1000, marker, n == 0));
        for packet in [Part { captured, ..first }, second, first] {
            flow.arrived(&packet, now.into());
        }
        for packet in [first, second] {
            flow.packet(number(&packet), Some(0), now);
        }
        assert_eq!(flow.unit(Some(0)).and_then(|unit| unit.captured), captured);
        assert!(flow.access_unit(Some(0), true, now));
        // A packet in the place of another source's.
        let other = packet(2, 2000, true, true);
        flow.arrived(&Part { captured, header: Header { ssrc: 2, ..other.header }, ..other }, now.into());
        flow.packet(number(&other), Some(1), now);
        assert_eq!((flow.unit(Some(1)), flow.gate.is_open()), (None, false));
    }

    #[test]
    fn a_packet_that_is_forgotten_closes_the_gate() {
        let now = Instant::now();
        let mut flow = Flow::new(LATENCY, now);
        for n in 0..=ARRIVALS as u16 {
            flow.arrived(&packet(n, u32::from(n) * 3_000, true, true), now.into());
        }
        flow.packet((1, 1), Some(1), now);
        assert!(flow.access_unit(Some(1), true, now));
        flow.packet((1, 0), Some(0), now);
        assert!(!flow.gate.is_open());
    }

    #[test]
    fn a_decoder_that_gives_nothing_is_noticed() {
        let start = Instant::now();
        let mut flow = Flow::new(LATENCY, start);
        for n in 0..60_u16 {
            let now = start + Duration::from_millis(40 * u64::from(n));
            let packet = packet(n, u32::from(n) * 3600, true, n == 0);
            flow.arrived(&packet, now.into());
            flow.packet(number(&packet), Some(n.into()), now);
            assert!(flow.access_unit(Some(n.into()), n == 0, now));
            assert_eq!(flow.stalled(now).is_some(), n >= 50, "{n}");
        }
        flow.picture(Some(0), start + Duration::from_secs(3));
        assert_eq!(flow.stalled(start + Duration::from_secs(9)), None);
    }

    #[test]
    fn a_decoder_that_does_not_return_is_noticed() {
        let start = Instant::now();
        let mut flow = Flow::new(LATENCY, start);
        flow.arrived(&packet(0, 0, true, true), start.into());
        flow.packet((1, 0), Some(0), start);
        assert!(flow.access_unit(Some(0), true, start));
        let later = start + Duration::from_secs(2);
        for tick in 1..=40 {
            assert_eq!(flow.stalled(start + Duration::from_millis(50 * tick)), None, "no packets, no picture");
        }
        flow.arrived(&packet(1, 180_000, true, false), later.into());
        assert!(flow.stalled(later).is_some());
    }

    #[test]
    fn a_keyframe_is_asked_for_only_while_packets_come() {
        let start = Instant::now();
        let mut flow = Flow::new(LATENCY, start);
        let later = start + Duration::from_secs(5);
        assert_eq!(flow.keyframe_due(later), None);
        flow.arrived(&packet(9, 0, false, false), later.into());
        assert_eq!(flow.keyframe_due(later), None, "the stream begins with one");
        let later = later + Duration::from_millis(500);
        assert!(flow.keyframe_due(later).is_some());
    }

    #[test]
    fn a_process_that_stood_still_does_not_blame_the_decoder() {
        let start = Instant::now();
        let mut flow = Flow::new(LATENCY, start);
        flow.arrived(&packet(0, 0, true, true), start.into());
        flow.packet((1, 0), Some(0), start);
        assert!(flow.access_unit(Some(0), true, start));
        assert_eq!(flow.stalled(start), None);
        let resumed = start + Duration::from_secs(3);
        flow.arrived(&packet(1, 3_000, true, false), resumed.into());
        assert_eq!(flow.stalled(resumed), None);
    }

    /// A stream of 30 pictures a second, one packet each, to which things happen.
    struct Live {
        flow: Flow,
        start: Instant,
    }

    impl Live {
        fn new() -> Self {
            let start = Instant::now();
            Self { flow: Flow::new(LATENCY, start), start }
        }

        fn at(&self, ms: u64) -> Instant {
            self.start + Duration::from_millis(ms)
        }

        /// Picture `n` comes `ms` after the start; whether it is decoded.
        fn comes(&mut self, n: u16, ms: u64, keyframe: bool) -> bool {
            let (packet, now) = (packet(n, u32::from(n) * 3_000, true, keyframe), self.at(ms));
            self.flow.arrived(&packet, now.into());
            self.flow.packet(number(&packet), Some(n.into()), now);
            let admitted = self.flow.access_unit(Some(n.into()), keyframe, now);
            self.flow.without_picture = None;
            admitted
        }

        fn steady(&mut self, pictures: std::ops::Range<u16>, delay: u64) -> usize {
            pictures.filter(|n| self.comes(*n, u64::from(*n) * 100 / 3 + delay, *n == 0)).count()
        }
    }

    #[test]
    fn after_a_stall_the_backlog_is_skipped_and_a_keyframe_asked_for() {
        let mut live = Live::new();
        assert_eq!(live.steady(0..60, 0), 60);
        // Two seconds of standing still; the keyframe in the middle is as old as the rest.
        for n in 60..120 {
            assert!(!live.comes(n, 4_000, n == 70), "{n}");
        }
        let due = live.flow.keyframe_due(live.at(4_000)).expect("a request");
        assert!(due.contains("ms late"), "{due}");
        assert!(!live.comes(120, 4_001, false), "it refers to what was skipped");
        assert!(live.comes(121, 4_034, true));
        assert_eq!(live.steady(122..200, 0), 78);
    }

    #[test]
    fn what_the_jitter_buffer_may_wait_for_is_shown_and_what_is_later_is_not() {
        for (latency, limit) in [(100, 300), (500, 500), (2_000, 2_000)] {
            let latency = Duration::from_millis(latency);
            // By WebRTC and RTP it is waited here, by RTSP before.
            for (here, before) in [(latency, Duration::ZERO), (Duration::ZERO, latency)] {
                for (late, is_shown) in [(limit - 10, true), (limit + 10, false)] {
                    let mut live = Live::new();
                    live.flow = Flow::new(here, live.start).bearing(before);
                    assert_eq!(live.steady(0..300, 0), 300, "{latency:?}");
                    assert_eq!(live.comes(300, 10_000 + late, false), is_shown, "{latency:?}: {late}");
                }
            }
        }
    }

    #[test]
    fn of_what_waited_during_a_standstill_nothing_late_is_shown_however_long_reading_it_takes() {
        let mut live = Live::new();
        // Lateness that was met before makes more of it borne.
        live.steady(0..60, 0);
        for n in 60..82 {
            assert!(!live.comes(n, 2_700, false), "{n}");
        }
        assert!(live.comes(82, 2_734, true));
        live.steady(83..120, 0);
        let _ = live.flow.stalled(live.at(11_000));
        // Seven seconds, with a keyframe each third of one, read in one.
        let mut oldest = 0;
        for n in 120..360 {
            let ms = 11_000 + u64::from(n - 120) * 1_000 / 240;
            if live.comes(n, ms, n % 10 == 0) {
                oldest = oldest.max(ms - u64::from(n) * 100 / 3);
            }
        }
        assert!((1..=LATE.as_millis() as u64).contains(&oldest), "{oldest} ms");
        assert_eq!(live.steady(360..400, 0), 40);
    }

    #[test]
    fn the_jitter_buffer_is_told_of_a_backlog_to_its_end() {
        let mut live = Live::new();
        live.steady(0..60, 0);
        let mut told = |n: u16, ms: u64| {
            let packet = packet(n, u32::from(n) * 3_000, true, false);
            live.flow.arrived(&packet, (live.start + Duration::from_millis(ms)).into()).as_millis()
        };
        assert_eq!(told(60, 2_250), 0, "250 ms late are no backlog");
        assert_eq!([told(61, 3_000), told(75, 3_000), told(89, 3_000), told(90, 3_000)], [967, 500, 34, 0]);
        assert_eq!(told(91, 3_073), 0);
    }

    #[test]
    fn a_picture_knows_how_late_its_last_packet_was() {
        let mut live = Live::new();
        live.steady(0..30, 0);
        let rtp = |sequence, marker| packet(sequence, 90_000, marker, false);
        for (packet, ms) in [(rtp(30, false), 1_000), (rtp(31, true), 3_500)] {
            live.flow.arrived(&packet, live.at(ms).into());
            live.flow.packet(number(&packet), Some(30), live.at(ms));
        }
        let unit = live.flow.units.back().unwrap();
        assert_eq!((unit.last_packet_at, unit.late_by.as_millis()), (live.at(3_500), 2_500));
    }

    #[test]
    fn a_path_that_got_longer_is_dark_for_little_more_than_two_seconds() {
        let mut live = Live::new();
        live.steady(0..90, 0);
        let mut shown = Vec::new();
        let mut wanted = false;
        for n in 90..240 {
            let ms = u64::from(n) * 100 / 3 + 800;
            // The keyframe comes with the picture after the request.
            if live.comes(n, ms, std::mem::take(&mut wanted)) {
                shown.push(n);
            }
            wanted = live.flow.keyframe_due(live.at(ms)).is_some();
        }
        assert!(shown[0] <= 90 + 60 + 20, "{shown:?}");
        assert_eq!(shown.last(), Some(&239));
        assert!(shown.windows(2).all(|pair| pair[1] == pair[0] + 1), "{shown:?}");
    }

    #[test]
    fn keyframes_that_take_long_on_a_slow_link_are_not_asked_for_for_ever() {
        let mut live = Live::new();
        live.steady(0..300, 0);
        live.flow.gate.close("a packet was lost");
        let (mut asked_at, mut busy_until, mut keyframes, mut last_shown) = (Some(0), 0, 0, 0);
        for n in 300..900 {
            let sent = u64::from(n) * 100 / 3;
            let keyframe = asked_at.take_if(|asked| *asked <= sent).is_some();
            keyframes += u32::from(keyframe);
            // A keyframe holds the link for 480 ms, another picture for 10.
            busy_until = sent.max(busy_until) + if keyframe { 480 } else { 10 };
            if live.comes(n, busy_until, keyframe) {
                last_shown = n;
            }
            if live.flow.keyframe_due(live.at(busy_until)).is_some() {
                asked_at = Some(busy_until);
            }
        }
        assert!(keyframes <= 4, "{keyframes}");
        assert_eq!(last_shown, 899);
    }

    #[test]
    fn after_an_outage_a_keyframe_is_asked_for_by_the_first_packet_that_comes() {
        let start = Instant::now();
        let mut flow = Flow::new(LATENCY, start);
        let comes = |flow: &mut Flow, sequence: u16, timestamp: u32, ms: u64| {
            let now = start + Duration::from_millis(ms);
            let packet = packet(sequence, timestamp, true, true);
            flow.arrived(&packet, now.into());
            now
        };
        comes(&mut flow, 65_534, 0, 0);
        flow.packet((1, 65_534), Some(0), start);
        assert!(flow.access_unit(Some(0), true, start));
        // A pause without a gap, and a gap without a pause, are the jitter buffer's.
        let now = comes(&mut flow, 65_535, 90_000, 1_000);
        assert_eq!(flow.keyframe_due(now), None);
        let now = comes(&mut flow, 2, 91_000, 1_010);
        assert_eq!(flow.keyframe_due(now), None);
        // Nor is a packet missing where pictures are far apart.
        let now = comes(&mut flow, 4, 100_000, 1_510);
        assert_eq!(flow.keyframe_due(now), None);
        let now = comes(&mut flow, 900, 270_000, 3_010);
        assert_eq!(flow.keyframe_due(now).as_deref(), Some("nothing came for 1500 ms"));
        assert_eq!(flow.keyframe_due(now), None, "asked once");
    }
}
