//! The bytes of RTP and RTCP packets (RFC 3550). Pure: randomness and time are passed in.

use std::time::Instant;

use crate::packetize::Anchor;

/// Version 2, no padding; the lower five bits count report blocks or sources.
const VERSION: u8 = 2 << 6;
const SENDER_REPORT: u8 = 200;
const SOURCE_DESCRIPTION: u8 = 202;
const GOODBYE: u8 = 203;
const CNAME: u8 = 1;

/// What all receivers see: one source, the same packets for everybody.
pub(super) struct Session {
    ssrc: u32,
    payload_type: u8,
    /// Of the next packet.
    sequence: u16,
    /// Added to each timestamp.
    offset: u32,
    /// Packets, and bytes of payload, sent so far; both wrap.
    packets: u32,
    octets: u32,
    cname: String,
}

impl Session {
    /// Beginnings are random, as RFC 3550 section 5.1 wants them, and so is the CNAME (RFC 7022 section 4.2).
    pub fn new(payload_type: u8) -> Self {
        let cname = format!("{:024x}", rand::random::<u128>() >> 32);
        Self::with(payload_type, rand::random(), rand::random(), rand::random(), cname)
    }

    pub fn ssrc(&self) -> u32 {
        self.ssrc
    }

    fn with(payload_type: u8, ssrc: u32, sequence: u16, offset: u32, cname: String) -> Self {
        Self { ssrc, payload_type, sequence, offset, packets: 0, octets: 0, cname }
    }

    /// Writes the next media packet into `out`, in place of what is there.
    pub fn media(&mut self, payload: &[u8], timestamp: u32, marker: bool, out: &mut Vec<u8>) {
        out.clear();
        out.push(VERSION);
        out.push(u8::from(marker) << 7 | self.payload_type);
        out.extend_from_slice(&self.sequence.to_be_bytes());
        out.extend_from_slice(&timestamp.wrapping_add(self.offset).to_be_bytes());
        out.extend_from_slice(&self.ssrc.to_be_bytes());
        out.extend_from_slice(payload);
        self.sequence = self.sequence.wrapping_add(1);
        self.packets = self.packets.wrapping_add(1);
        self.octets = self.octets.wrapping_add(payload.len() as u32);
    }

    /// A moment on the clock of the packets' timestamps.
    pub fn timestamp(&self, anchor: Anchor, now: Instant) -> u32 {
        anchor.at(now).0.wrapping_add(self.offset)
    }

    /// A sender report with the source's name (RFC 3550 sections 6.4.1, 6.5).
    pub fn report(&self, anchor: Anchor, now: Instant) -> Vec<u8> {
        let (timestamp, utc) = (self.timestamp(anchor, now), anchor.at(now).1);
        let mut out = Vec::with_capacity(80);
        packet(&mut out, SENDER_REPORT, 0, |out| {
            out.extend_from_slice(&self.ssrc.to_be_bytes());
            out.extend_from_slice(&utc.ntp().to_be_bytes());
            for field in [timestamp, self.packets, self.octets] {
                out.extend_from_slice(&field.to_be_bytes());
            }
        });
        packet(&mut out, SOURCE_DESCRIPTION, 1, |out| {
            out.extend_from_slice(&self.ssrc.to_be_bytes());
            out.extend_from_slice(&[CNAME, self.cname.len() as u8]);
            out.extend_from_slice(self.cname.as_bytes());
            // The list of items ends with a zero, at a multiple of four bytes.
            out.push(0);
            out.resize(out.len().next_multiple_of(4), 0);
        });
        out
    }

    /// The last report, with a BYE (RFC 3550 section 6.6).
    pub fn goodbye(&self, anchor: Anchor, now: Instant) -> Vec<u8> {
        let mut out = self.report(anchor, now);
        packet(&mut out, GOODBYE, 1, |out| out.extend_from_slice(&self.ssrc.to_be_bytes()));
        out
    }
}

/// Appends one RTCP packet; `body` writes whole words of four bytes.
fn packet(out: &mut Vec<u8>, kind: u8, count: u8, body: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[VERSION | count, kind, 0, 0]);
    body(out);
    // In words, minus one: that of the header.
    let words = ((out.len() - start) / 4 - 1) as u16;
    out[start + 2..start + 4].copy_from_slice(&words.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use rov_common::capture_clock::Captured;
    use rov_common::latency_mode::LatencyMode;

    use super::*;
    use crate::packetize::Frame;

    fn anchor(timestamp: u32, captured_at: Instant, captured: Captured) -> Anchor {
        Anchor::from(&Frame {
            unit: Bytes::new(),
            payloads: Vec::new(),
            pts: Duration::ZERO,
            timestamp,
            keyframe: true,
            captured_at,
            captured,
            latency: LatencyMode::Low,
        })
    }

    fn session() -> Session {
        Session::with(96, 0x0102_0304, 0xFFFF, 0xFFFF_FF00, "abcdef".to_owned())
    }

    #[test]
    fn the_header_is_that_of_rfc_3550_and_counters_wrap() {
        let (mut session, mut out) = (session(), Vec::new());
        session.media(&[9, 8], 0x0200, false, &mut out);
        assert_eq!(out, [0x80, 96, 0xFF, 0xFF, 0, 0, 1, 0, 1, 2, 3, 4, 9, 8]);
        session.media(&[7], 0x0200, true, &mut out);
        assert_eq!(out, [0x80, 0x80 | 96, 0, 0, 0, 0, 1, 0, 1, 2, 3, 4, 7]);
        assert_eq!((session.packets, session.octets), (2, 3));
    }

    #[test]
    fn a_report_says_the_same_moment_in_both_clocks() {
        let mut session = session();
        session.media(&[0; 10], 0x0200, true, &mut Vec::new());
        let captured_at = Instant::now();
        let anchor = anchor(0x0200, captured_at, Captured(Duration::from_millis(1_480)));
        let report = session.report(anchor, captured_at + Duration::from_millis(20));
        let expected: Vec<u8> = [
            &[0x80, 200, 0, 6, 1, 2, 3, 4][..],
            &[0x83, 0xAA, 0x7E, 0x81, 0x80, 0, 0, 0], // 2,208,988,801 and a half
            &[0, 0, 0x08, 0x08],                      // 0x100 + 20 ms * 90 kHz = 0x100 + 1,800
            &[0, 0, 0, 1, 0, 0, 0, 10],
            &[0x81, 202, 0, 4, 1, 2, 3, 4, 1, 6],
            b"abcdef\0\0\0\0",
        ]
        .concat();
        assert_eq!(report, expected);
    }

    #[test]
    fn a_goodbye_ends_a_compound_packet() {
        let now = Instant::now();
        let goodbye = session().goodbye(anchor(0, now, Captured::default()), now);
        assert!(goodbye.ends_with(&[0x81, 203, 0, 1, 1, 2, 3, 4]));
        assert_eq!(goodbye.len() % 4, 0);
    }

    #[test]
    fn no_two_servers_are_one_source() {
        let (one, other) = (Session::new(96), Session::new(96));
        assert_ne!((one.ssrc, &one.cname), (other.ssrc, &other.cname));
        assert_eq!(one.cname.len(), 24);
    }
}
