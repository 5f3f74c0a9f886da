//! What the decoder needs from an RTP packet (RFC 3550) that carries H.264 (RFC 6184). Pure.

/// The fields of one packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    pub payload_type: u8,
    pub sequence: u16,
    pub timestamp: u32,
    pub ssrc: u32,
    /// The last packet of its picture.
    pub marker: bool,
    /// The payload begins with an access unit delimiter or a sequence parameter set, so that nothing of its picture
    /// came before it.
    pub begins_unit: bool,
    /// No payload at all: padding that probes the network, no part of a picture.
    pub empty: bool,
}

const NAL_SPS: u8 = 7;
const NAL_DELIMITER: u8 = 9;
const STAP_A: u8 = 24;

impl Packet {
    /// None unless `data` is an RTP packet of version 2 with a whole header.
    pub fn parse(data: &[u8]) -> Option<Self> {
        let (first, second) = (*data.first()?, *data.get(1)?);
        if first >> 6 != 2 {
            return None;
        }
        let word = |at: usize| Some(u32::from_be_bytes(data.get(at..at + 4)?.try_into().ok()?));
        let mut payload_at = 12 + 4 * usize::from(first & 0x0f);
        if first & 0x10 != 0 {
            let extension_words = word(payload_at)? & 0xffff;
            payload_at += 4 + 4 * extension_words as usize;
        }
        let padding = if first & 0x20 != 0 { usize::from(*data.last()?) } else { 0 };
        let payload = data.get(payload_at..data.len().checked_sub(padding)?)?;
        Some(Self {
            payload_type: second & 0x7f,
            sequence: (word(0)? & 0xffff) as u16,
            timestamp: word(4)?,
            ssrc: word(8)?,
            marker: second & 0x80 != 0,
            begins_unit: begins_unit(payload),
            empty: payload.is_empty(),
        })
    }
}

fn begins_unit(payload: &[u8]) -> bool {
    let Some(&first) = payload.first() else { return false };
    let nal_type = match first & 0x1f {
        // RFC 6184, 5.7.1: the aggregation's own header, a 16-bit size, then the first NAL unit.
        STAP_A => payload.get(3).map_or(0, |header| header & 0x1f),
        single => single,
    };
    matches!(nal_type, NAL_SPS | NAL_DELIMITER)
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
        };
        assert_eq!(Packet::parse(&packet(0x80, &[0x61, 0x9a])), Some(expected));
    }

    #[test]
    fn parameter_sets_and_delimiters_begin_a_unit() {
        for payload in [&[0x67, 0x42][..], &[0x09, 0x10], &[0x78, 0, 4, 0x67, 1, 2, 3], &[0x18, 0, 2, 0x09, 0x10]] {
            assert!(Packet::parse(&packet(0x80, payload)).unwrap().begins_unit, "{payload:x?}");
        }
        for payload in [&[0x65, 0x88][..], &[0x68, 0], &[0x78, 0, 2, 0x68, 1], &[0x7c, 0x85], &[0x78], &[]] {
            assert!(!Packet::parse(&packet(0x80, payload)).unwrap().begins_unit, "{payload:x?}");
        }
    }

    #[test]
    fn extensions_and_padding_are_skipped() {
        let extended = packet(0x90, &[0xbe, 0xde, 0, 1, 0x10, 0, 0, 0, 0x67, 0x42]);
        assert!(Packet::parse(&extended).unwrap().begins_unit);
        let padding_only = packet(0xa0, &[0, 0, 0, 4]);
        assert!(Packet::parse(&padding_only).unwrap().empty);
    }

    #[test]
    fn what_is_not_rtp_is_refused() {
        for data in [&[][..], &[0x80], &[0x40; 20], &[0x80; 11], &packet(0x90, &[0, 0]), &packet(0xa0, &[200])] {
            assert_eq!(Packet::parse(data), None, "{data:x?}");
        }
    }
}
