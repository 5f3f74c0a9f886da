//! RTCP as receivers read it (RFC 3550 section 6), and from it when pictures were captured, for the ways in whose media
//! packets do not say it. Pure.

use std::iter;
use std::time::Duration;

use rov_common::capture_clock::Captured;
use rov_common::rtp::Header;

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

    /// When its picture was captured, of the first packet of a picture, where a report of its source has come.
    pub fn captured(&mut self, packet: &Header) -> Option<Captured> {
        let report = self.report.filter(|report| report.ssrc == packet.ssrc)?;
        let is_first = self.told.replace(packet.timestamp) != Some(packet.timestamp);
        is_first.then(|| report.captured(packet.timestamp))
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

    fn told(clock: &mut SenderClock, ssrc: u32, timestamp: u32) -> Option<Captured> {
        clock.captured(&Header { marker: false, payload_type: 96, sequence: 1, timestamp, ssrc })
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
        assert_eq!(told(&mut clock, 7, 0), None, "before the first report");
        clock.control(&report(7, AT.ntp(), 0xffff_ff00));
        let later = |ms: i64| {
            let apart = Duration::from_millis(ms.unsigned_abs());
            Some(Captured(if ms < 0 { AT.0 - apart } else { AT.0 + apart }))
        };
        let timestamp = |ms: i32| 0xffff_ff00_u32.wrapping_add_signed(90 * ms);
        for ms in [-40, 0, 40] {
            assert_eq!(told(&mut clock, 7, timestamp(ms)), later(ms.into()), "{ms} ms after the report");
            assert_eq!(told(&mut clock, 7, timestamp(ms)), None, "it is told once");
        }
        clock.control(&report(7, AT.ntp() + (1 << 32), timestamp(1_000)));
        assert_eq!(told(&mut clock, 7, timestamp(1_040)), later(1_040));
        clock.control(&report(7, 0, timestamp(2_000)));
        assert_eq!(told(&mut clock, 7, timestamp(2_040)), later(2_040), "no clock, no report");
        assert_eq!(told(&mut clock, 8, timestamp(2_080)), None, "another source");
    }
}
