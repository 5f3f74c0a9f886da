//! RTCP as receivers read it (RFC 3550 section 6), and from it when pictures were captured, for the ways in whose media
//! packets do not say it. Pure.

use std::iter;
use std::time::Duration;

use rov_common::capture_clock::Captured;
use rov_common::rtp::{Header, PLAIN_LENGTH};

use super::CAPTURED;

pub const SENDER_REPORT: u8 = 200;
pub const BYE: u8 = 203;
/// Of H.264 and H.265 (RFC 6184 section 8.2.1, RFC 7798 section 7.1).
const CLOCK_RATE: f64 = 90_000.0;

/// One RTCP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet<'a> {
    pub kind: u8,
    /// Of report blocks or sources.
    pub count: u8,
    /// Behind the first word.
    pub body: &'a [u8],
}

/// Those of a compound packet, up to the first that is none.
pub fn packets(compound: &[u8]) -> impl Iterator<Item = Packet<'_>> {
    let mut rest = compound;
    iter::from_fn(move || {
        let [first, kind, high, low, ..] = *rest else { return None };
        let length = 4 * (usize::from(u16::from_be_bytes([high, low])) + 1);
        let (this, behind) = rest.split_at_checked(length).filter(|_| first >> 6 == 2)?;
        rest = behind;
        Some(Packet { kind, count: first & 0x1f, body: &this[4..] })
    })
}

/// From the RTP timestamps of a sender to times of capture, by its newest report: exact where that is of the clock of
/// captures, as those of rov-server are. With others it is the time of sampling by the sender's own clock.
#[derive(Debug, Default)]
pub struct SenderClock {
    report: Option<Report>,
    /// The timestamp of the picture that was told its time last.
    told: Option<u32>,
}

#[derive(Clone, Copy, Debug)]
struct Report {
    ssrc: u32,
    at: Captured,
    timestamp: u32,
}

impl Report {
    fn parse(body: &[u8]) -> Option<Self> {
        let word = |at: usize| Some(u32::from_be_bytes(*body.get(at..)?.first_chunk()?));
        let ntp = u64::from(word(4)?) << 32 | u64::from(word(8)?);
        // A sender without a clock says zero (section 6.4.1).
        (ntp != 0).then_some(Self { ssrc: word(0)?, at: Captured::from_ntp(ntp), timestamp: word(12)? })
    }

    fn captured(&self, timestamp: u32) -> Captured {
        let ticks = timestamp.wrapping_sub(self.timestamp).cast_signed();
        let apart = Duration::from_secs_f64(f64::from(ticks.unsigned_abs()) / CLOCK_RATE);
        Captured(if ticks < 0 { self.at.0.saturating_sub(apart) } else { self.at.0 + apart })
    }
}

impl SenderClock {
    /// A compound RTCP packet of the sender.
    pub fn control(&mut self, compound: &[u8]) {
        let reports = packets(compound).filter(|packet| packet.kind == SENDER_REPORT);
        self.report = reports.filter_map(|packet| Report::parse(packet.body)).last().or(self.report);
    }

    /// The packet, with the time of capture where it is the first of a picture and a report of its source has come.
    pub fn mark(&mut self, packet: &[u8]) -> Vec<u8> {
        let Some(report) = self.report else { return packet.to_vec() };
        let header = Header::parse(packet).filter(|header| header.ssrc == report.ssrc);
        let Some(header) = header.filter(|header| self.told.replace(header.timestamp) != Some(header.timestamp)) else {
            return packet.to_vec();
        };
        let captured = report.captured(header.timestamp).ntp().to_be_bytes();
        let mut marked = Vec::with_capacity(packet.len() + CAPTURED.len() + captured.len());
        marked.extend_from_slice(&packet[..PLAIN_LENGTH]);
        // Neither contributing sources nor the sender's own extension, of which nothing is read; padding stays.
        marked[0] = packet[0] & 0xe0 | 0x10;
        marked.extend_from_slice(&CAPTURED);
        marked.extend_from_slice(&captured);
        marked.extend_from_slice(&packet[header.payload_at..]);
        marked
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: Captured = Captured(Duration::from_millis(1_764_000_000_500));

    fn report(ssrc: u8, ntp: u64, timestamp: u32) -> Vec<u8> {
        let words = [&[0x80, 200, 0, 6, 0, 0, 0, ssrc][..], &ntp.to_be_bytes(), &timestamp.to_be_bytes(), &[0; 8]];
        [words.concat(), vec![0x81, 202, 0, 1, 0, 0, 0, ssrc]].concat()
    }

    fn media(ssrc: u8, timestamp: u32, first: u8, rest: &[u8]) -> Vec<u8> {
        let header = [&[first, 96, 0, 1][..], &timestamp.to_be_bytes(), &[0, 0, 0, ssrc]].concat();
        [&header, rest].concat()
    }

    fn time_in(packet: &[u8]) -> Option<Captured> {
        let header = Header::parse(packet).expect("an RTP packet");
        let ntp = packet[PLAIN_LENGTH..header.payload_at].strip_prefix(&CAPTURED)?.try_into().expect("a time alone");
        Some(Captured::from_ntp(u64::from_be_bytes(ntp)))
    }

    fn told(clock: &mut SenderClock, packet: Vec<u8>) -> Option<Captured> {
        time_in(&clock.mark(&packet))
    }

    #[test]
    fn a_compound_packet_is_read_up_to_its_damaged_end() {
        let compound = [report(7, AT.ntp(), 0), vec![0x81, 203, 0, 9, 0, 0, 0, 7]].concat();
        let kinds: Vec<_> = packets(&compound).map(|packet| (packet.kind, packet.count, packet.body.len())).collect();
        assert_eq!(kinds, [(200, 0, 24), (202, 1, 4)]);
        assert_eq!(packets(&[0x41, 200, 0, 0]).count() + packets(&[]).count(), 0);
    }

    #[test]
    fn the_first_packet_of_each_picture_is_told_its_time_by_the_newest_report() {
        let mut clock = SenderClock::default();
        assert_eq!(told(&mut clock, media(7, 0, 0x80, &[0x65])), None, "before the first report");
        clock.control(&report(7, AT.ntp(), 0xffff_ff00));
        let later = |ms: i64| {
            let apart = Duration::from_millis(ms.unsigned_abs());
            Some(Captured(if ms < 0 { AT.0 - apart } else { AT.0 + apart }))
        };
        let timestamp = |ms: i32| 0xffff_ff00_u32.wrapping_add_signed(90 * ms);
        for ms in [-40, 0, 40] {
            let [first, second] = [0x65, 0x41].map(|nal| media(7, timestamp(ms), 0x80, &[nal]));
            assert_eq!(told(&mut clock, first), later(ms.into()), "{ms} ms after the report");
            assert_eq!(told(&mut clock, second), None, "it is told once");
        }
        clock.control(&report(7, AT.ntp() + (1 << 32), timestamp(1_000)));
        assert_eq!(told(&mut clock, media(7, timestamp(1_040), 0x80, &[0x41])), later(1_040));
        clock.control(&report(7, 0, timestamp(2_000)));
        assert_eq!(told(&mut clock, media(7, timestamp(2_040), 0x80, &[0x41])), later(2_040), "no clock, no report");
        assert_eq!(told(&mut clock, media(8, timestamp(2_080), 0x80, &[0x41])), None, "another source");
    }

    #[test]
    fn payload_and_padding_stay_as_they_are() {
        let mut clock = SenderClock::default();
        clock.control(&report(7, AT.ntp(), 90));
        let extended = [1, 2, 3, 4, 0xbe, 0xde, 0, 1, 0x10, 0, 0, 0, 0x65, 0x88, 0, 2];
        let marked = clock.mark(&media(7, 90, 0xb1, &extended));
        let header = Header::parse(&marked).expect("an RTP packet");
        assert_eq!(header.payload(&marked), Some(&[0x65, 0x88][..]));
        assert_eq!(time_in(&marked), Some(AT));
    }
}
