//! One access unit into RTP payloads (RFC 6184, packetization-mode 1), once for all viewers.
//!
//! Only payloads are made here: each viewer has its own SSRC, sequence numbers and header extensions, so headers are
//! put on per viewer, around the same shared bytes.

use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
use rov_common::access_unit::AccessUnit;
use rov_common::codec;

/// The RTP clock of H.264, ticks per second (RFC 6184 section 8.2.1).
pub const CLOCK_RATE: u32 = 90_000;

/// The largest RTP payload in bytes. With RTP header, extension, RTX, SRTP tag, UDP and IPv4 it makes 1,266 bytes, below the
/// 1,280 that any path carries (RFC 8200), so that tunnels on the tether do not fragment it.
pub const MAX_PAYLOAD: usize = 1_200;

const FU_A: u8 = 28;

/// One access unit, ready to be sent to any number of viewers.
#[derive(Clone, Debug)]
pub struct RtpFrame {
    /// The access unit itself, in Annex B form, with its parameter sets if it is a keyframe.
    pub unit: Bytes,
    /// The payloads in order; the last one carries the marker bit.
    pub payloads: Vec<Bytes>,
    /// RTP timestamp without a viewer's offset, in ticks of [`CLOCK_RATE`].
    pub timestamp: u32,
    pub keyframe: bool,
    pub captured_at: Instant,
}

/// Splits `unit` into payloads. Access unit delimiters are left out: RTP's marker bit does their work.
pub fn packetize(unit: &AccessUnit, pts: Duration) -> RtpFrame {
    let mut payloads = Vec::with_capacity(unit.data.len() / MAX_PAYLOAD + 4);
    // Fragments carry a header of their own, so they are copied, all into one allocation; whole NAL units are not.
    let fragment_space = unit.data.len() + (unit.data.len() / (MAX_PAYLOAD - 2) + 4) * 2;
    let mut arena = BytesMut::new();
    for nal in codec::nal_units(&unit.data) {
        match codec::nal_type(nal) {
            codec::AUD => continue,
            _ if nal.len() <= MAX_PAYLOAD => payloads.push(unit.data.slice_ref(nal)),
            _ => {
                if arena.capacity() == 0 {
                    arena.reserve(fragment_space);
                }
                fragment(nal, &mut arena, &mut payloads);
            }
        }
    }
    RtpFrame {
        unit: unit.data.clone(),
        payloads,
        timestamp: rtp_ticks(pts),
        keyframe: unit.keyframe,
        captured_at: unit.captured_at,
    }
}

/// RFC 6184 section 5.8: FU-A fragments of one NAL unit, all full except the last, so that UDP segmentation offload
/// can send them as one run.
fn fragment(nal: &[u8], arena: &mut BytesMut, payloads: &mut Vec<Bytes>) {
    let (header, body) = (nal[0], &nal[1..]);
    let count = body.len().div_ceil(MAX_PAYLOAD - 2);
    for (i, chunk) in body.chunks(MAX_PAYLOAD - 2).enumerate() {
        let start = if i == 0 { 0x80 } else { 0 };
        let end = if i + 1 == count { 0x40 } else { 0 };
        arena.put_u8((header & 0xE0) | FU_A);
        arena.put_u8(start | end | (header & 0x1F));
        arena.put_slice(chunk);
        payloads.push(arena.split().freeze());
    }
}

fn rtp_ticks(pts: Duration) -> u32 {
    // Wraps at 2^32 as RTP timestamps do.
    (pts.as_nanos() * u128::from(CLOCK_RATE) / 1_000_000_000) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(nals: &[Vec<u8>]) -> AccessUnit {
        let mut data = Vec::new();
        for nal in nals {
            data.extend_from_slice(&[0, 0, 0, 1]);
            data.extend_from_slice(nal);
        }
        AccessUnit { data: data.into(), pts: Duration::ZERO, captured_at: Instant::now(), keyframe: true }
    }

    /// The receiving side of RFC 6184, written from the text, to check ours against.
    fn depacketize(payloads: &[Bytes]) -> Vec<Vec<u8>> {
        let mut nals: Vec<Vec<u8>> = Vec::new();
        for p in payloads {
            if p[0] & 0x1F == FU_A {
                if p[1] & 0x80 != 0 {
                    nals.push(vec![(p[0] & 0xE0) | (p[1] & 0x1F)]);
                }
                nals.last_mut().expect("a fragment follows its start").extend_from_slice(&p[2..]);
            } else {
                nals.push(p.to_vec());
            }
        }
        nals
    }

    fn nal(header: u8, len: usize) -> Vec<u8> {
        std::iter::once(header).chain((1..len).map(|i| (i % 250 + 3) as u8)).collect()
    }

    #[test]
    fn what_goes_in_comes_out_again() {
        for len in [2, 1_199, 1_200, 1_201, 1_202, 2_397, 2_398, 50_000] {
            let nals = vec![nal(0x67, 20), nal(0x68, 4), nal(0x65, len)];
            let frame = packetize(&unit(&nals), Duration::ZERO);
            assert_eq!(depacketize(&frame.payloads), nals, "slice of {len} bytes");
            assert!(frame.payloads.iter().all(|p| p.len() <= MAX_PAYLOAD));
        }
    }

    #[test]
    fn access_unit_delimiters_are_not_sent() {
        let frame = packetize(&unit(&[vec![0x09, 0xF0], nal(0x65, 10)]), Duration::ZERO);
        assert_eq!(frame.payloads.len(), 1);
    }

    #[test]
    fn fragments_are_equally_long_except_the_last() {
        let frame = packetize(&unit(&[nal(0x65, 10_000)]), Duration::ZERO);
        let (last, rest) = frame.payloads.split_last().expect("fragments");
        assert!(rest.iter().all(|p| p.len() == MAX_PAYLOAD));
        assert!(last.len() <= MAX_PAYLOAD);
    }

    #[test]
    fn timestamps_are_in_90_khz_and_wrap() {
        assert_eq!(rtp_ticks(Duration::from_secs(1)), 90_000);
        assert_eq!(rtp_ticks(Duration::from_secs(47_722)), (47_722u64 * 90_000 % (1 << 32)) as u32);
    }
}
