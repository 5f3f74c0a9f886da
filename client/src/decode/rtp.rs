//! What the decoder needs from an RTP packet (RFC 3550) that carries H.264 (RFC 6184) or H.265 (RFC 7798). Pure.

use rov_common::capture_clock::Captured;
use rov_common::codec::{Codec, NalKind, jpeg};
use rov_common::rtp::Header;

use crate::receive::packet::Packet;

/// A packet as a part of an access unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    pub header: Header,
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

impl Part {
    pub fn of(codec: Codec, packet: &Packet) -> Self {
        Self {
            header: packet.header,
            begins_unit: begins_unit(codec, &packet.payload),
            empty: packet.payload.is_empty(),
            captured: packet.captured,
        }
    }
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

    #[test]
    fn parameter_sets_and_delimiters_begin_a_unit() {
        for payload in [&[0x67, 0x42][..], &[0x09, 0x10], &[0x78, 0, 4, 0x67, 1, 2, 3], &[0x18, 0, 2, 0x09, 0x10]] {
            assert!(begins_unit(Codec::H264, payload), "{payload:x?}");
        }
        for payload in [&[0x65, 0x88][..], &[0x68, 0], &[0x78, 0, 2, 0x68, 1], &[0x7c, 0x85], &[0x78], &[]] {
            assert!(!begins_unit(Codec::H264, payload), "{payload:x?}");
        }
    }

    #[test]
    fn in_h265_the_video_parameter_set_and_delimiters_begin_a_unit() {
        let begins = |payload: &[u8]| begins_unit(Codec::H265, payload);
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
}
