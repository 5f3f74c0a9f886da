//! What the decoder needs from an RTP packet (RFC 3550) that carries H.264 (RFC 6184) or H.265 (RFC 7798). Pure.

use rov_common::capture_clock::Captured;
use rov_common::codec::{Codec, NalKind, jpeg};
use rov_common::rtp::{Header, PLAIN_LENGTH};

use crate::receive::CAPTURED;

/// The fields of one packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    pub payload_type: u8,
    pub sequence: u16,
    pub timestamp: u32,
    pub ssrc: u32,
    /// The last packet of its picture.
    pub marker: bool,
    /// The payload begins with an access unit delimiter or the first of the parameter sets (H.264: that of the
    /// sequence, H.265: that of the video), so that nothing of its picture came before it.
    pub begins_unit: bool,
    /// No payload at all: padding that probes the network, no part of a picture.
    pub empty: bool,
    /// When the picture was captured, where this packet says that.
    pub captured: Option<Captured>,
}

/// Several NAL units in one packet.
const STAP_A: u8 = 24;
const H265_AGGREGATION: u8 = 48;

impl Packet {
    /// None unless `data` is an RTP packet of version 2 with a whole header.
    pub fn parse(codec: Codec, data: &[u8]) -> Option<Self> {
        let header = Header::parse(data)?;
        let payload = header.payload(data)?;
        Some(Self {
            payload_type: header.payload_type,
            sequence: header.sequence,
            timestamp: header.timestamp,
            ssrc: header.ssrc,
            marker: header.marker,
            begins_unit: begins_unit(codec, payload),
            empty: payload.is_empty(),
            captured: captured(data.get(PLAIN_LENGTH..header.payload_at)?),
        })
    }
}

fn captured(extension: &[u8]) -> Option<Captured> {
    let ntp = extension.strip_prefix(&CAPTURED)?.try_into().ok()?;
    Some(Captured::from_ntp(u64::from_be_bytes(ntp)))
}

fn begins_unit(codec: Codec, payload: &[u8]) -> bool {
    if codec == Codec::Mjpeg {
        return jpeg::begins_picture(payload);
    }
    let first = match (codec, codec.nal_type(payload)) {
        // RFC 6184, 5.7.1, and RFC 7798, 4.4.2: the aggregation's own header, a 16-bit size, then the first NAL unit.
        (Codec::H264, STAP_A) | (Codec::H265, H265_AGGREGATION) => {
            payload.get(codec.nal_header_len() + 2..).unwrap_or_default()
        }
        _ => payload,
    };
    match codec.nal_kind(first) {
        NalKind::Delimiter | NalKind::Vps => true,
        NalKind::Sps => codec == Codec::H264,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut data = vec![first, 0x80 | 96, 0x12, 0x34, 0, 0, 1, 0, 0, 0, 0, 7];
        data.extend_from_slice(payload);
        data
    }

    #[test]
    fn the_header_is_read() {
        let expected = Packet {
            payload_type: 96,
            sequence: 0x1234,
            timestamp: 256,
            ssrc: 7,
            marker: true,
            begins_unit: false,
            empty: false,
            captured: None,
        };
        assert_eq!(Packet::parse(Codec::H264, &packet(0x80, &[0x61, 0x9a])), Some(expected));
        let at = Captured(std::time::Duration::from_millis(1_764_000_000_123));
        let timed = packet(0x90, &[&CAPTURED[..], &at.ntp().to_be_bytes(), &[0x61, 0x9a]].concat());
        assert_eq!(Packet::parse(Codec::H264, &timed), Some(Packet { captured: Some(at), ..expected }));
        let foreign = packet(0x90, &[&[0xbe, 0xde, 0, 2][..], &at.ntp().to_be_bytes(), &[0x61, 0x9a]].concat());
        assert_eq!(Packet::parse(Codec::H264, &foreign), Some(expected));
    }

    #[test]
    fn parameter_sets_and_delimiters_begin_a_unit() {
        for payload in [&[0x67, 0x42][..], &[0x09, 0x10], &[0x78, 0, 4, 0x67, 1, 2, 3], &[0x18, 0, 2, 0x09, 0x10]] {
            assert!(Packet::parse(Codec::H264, &packet(0x80, payload)).unwrap().begins_unit, "{payload:x?}");
        }
        for payload in [&[0x65, 0x88][..], &[0x68, 0], &[0x78, 0, 2, 0x68, 1], &[0x7c, 0x85], &[0x78], &[]] {
            assert!(!Packet::parse(Codec::H264, &packet(0x80, payload)).unwrap().begins_unit, "{payload:x?}");
        }
    }

    #[test]
    fn in_h265_the_video_parameter_set_and_delimiters_begin_a_unit() {
        let begins = |payload: &[u8]| Packet::parse(Codec::H265, &packet(0x80, payload)).unwrap().begins_unit;
        for payload in [&[0x40, 0x01, 0x0c][..], &[0x46, 0x01, 0x50], &[0x60, 0x01, 0, 3, 0x40, 0x01, 0x0c]] {
            assert!(begins(payload), "{payload:x?}");
        }
        // SPS, PPS, slices, a fragment of an IDR picture, an aggregation of a PPS, cut off ones.
        for payload in [
            &[0x42, 0x01, 0x01][..],
            &[0x44, 0x01, 0xc0],
            &[0x28, 0x01, 0xac],
            &[0x02, 0x01, 0xd0],
            &[0x62, 0x01, 0x94, 0xac],
            &[0x60, 0x01, 0, 3, 0x44, 0x01, 0xc0],
            &[0x60, 0x01, 0],
            &[],
        ] {
            assert!(!begins(payload), "{payload:x?}");
        }
    }

    #[test]
    fn extensions_and_padding_are_skipped() {
        let extended = packet(0x90, &[0xbe, 0xde, 0, 1, 0x10, 0, 0, 0, 0x67, 0x42]);
        assert!(Packet::parse(Codec::H264, &extended).unwrap().begins_unit);
        let padding_only = packet(0xa0, &[0, 0, 0, 4]);
        assert!(Packet::parse(Codec::H264, &padding_only).unwrap().empty);
    }

    #[test]
    fn what_is_not_rtp_is_refused() {
        for data in [&[][..], &[0x80], &[0x40; 20], &[0x80; 11], &packet(0x90, &[0, 0]), &packet(0xa0, &[200])] {
            assert_eq!(Packet::parse(Codec::H264, data), None, "{data:x?}");
        }
    }
}
