//! The RTP header (RFC 3550 section 5.1), as far as packets are told apart and changed by it on their way. Pure.

use std::ops::Range;

/// The length of a header without contributing sources and extension.
pub const PLAIN_LENGTH: usize = 12;

/// The fields of one packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    pub marker: bool,
    pub payload_type: u8,
    pub sequence: u16,
    pub timestamp: u32,
    pub ssrc: u32,
}

impl Header {
    /// None unless `data` is an RTP packet of version 2 with a whole header.
    pub fn parse(data: &[u8]) -> Option<Self> {
        Self::parse_to_payload(data).map(|(header, _)| header)
    }

    /// With the place of the payload, between header and padding; none where there is more padding than that.
    pub fn parse_whole(data: &[u8]) -> Option<(Self, Range<usize>)> {
        let (header, payload_at) = Self::parse_to_payload(data)?;
        // The last byte of the packet says how many there are.
        let padding = if data[0] & 0x20 != 0 { usize::from(*data.last()?) } else { 0 };
        let payload = payload_at..data.len().checked_sub(padding)?;
        (payload.start <= payload.end).then_some((header, payload))
    }

    fn parse_to_payload(data: &[u8]) -> Option<(Self, usize)> {
        let (first, second) = (*data.first()?, *data.get(1)?);
        if first >> 6 != 2 {
            return None;
        }
        let word = |at: usize| Some(u32::from_be_bytes(data.get(at..at + 4)?.try_into().ok()?));
        let mut payload_at = PLAIN_LENGTH + 4 * usize::from(first & 0x0f);
        if first & 0x10 != 0 {
            payload_at += 4 + 4 * (word(payload_at)? & 0xffff) as usize;
        }
        let header = Self {
            marker: second & 0x80 != 0,
            payload_type: second & 0x7f,
            sequence: (word(0)? & 0xffff) as u16,
            timestamp: word(4)?,
            ssrc: word(8)?,
        };
        (payload_at <= data.len()).then_some((header, payload_at))
    }

    /// The bytes of a header that has no more than these fields.
    pub fn bytes(&self) -> [u8; PLAIN_LENGTH] {
        let mut bytes = [0; PLAIN_LENGTH];
        bytes[0] = 2 << 6;
        bytes[1] = u8::from(self.marker) << 7 | self.payload_type & 0x7f;
        set_sequence(&mut bytes, self.sequence);
        bytes[4..8].copy_from_slice(&self.timestamp.to_be_bytes());
        bytes[8..].copy_from_slice(&self.ssrc.to_be_bytes());
        bytes
    }
}

/// Changes the sequence number of a packet that was parsed.
pub fn set_sequence(packet: &mut [u8], sequence: u16) {
    packet[2..4].copy_from_slice(&sequence.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_is_read_and_changed() {
        let mut packet = vec![0x91, 0xe1, 0, 7, 0, 0, 0, 9, 0, 0, 0, 5, 1, 2, 3, 4, 0xbe, 0xde, 0, 1, 0, 0, 0, 0, 0x65];
        let header = Header { marker: true, payload_type: 97, sequence: 7, timestamp: 9, ssrc: 5 };
        assert_eq!(Header::parse(&packet), Some(header));
        set_sequence(&mut packet, 0x1234);
        let header = Header { sequence: 0x1234, ..header };
        assert_eq!(Header::parse_whole(&packet), Some((header, 24..25)));
        assert_eq!(header.bytes(), [0x80, 0xe1, 0x12, 0x34, 0, 0, 0, 9, 0, 0, 0, 5]);
        let header = Header { marker: false, payload_type: 0x7f, timestamp: 0x8765_4321, ssrc: u32::MAX, ..header };
        assert_eq!(Header::parse_whole(&header.bytes()), Some((header, 12..12)));
    }

    #[test]
    fn padding_is_no_part_of_the_payload() {
        let payload = |padding: u8| {
            let packet = [0xa0, 96, 0, 7, 0, 0, 0, 9, 0, 0, 0, 5, 0x65, 0, padding];
            Header::parse_whole(&packet).map(|(_, payload)| payload)
        };
        assert_eq!([payload(2), payload(3)], [Some(12..13), Some(12..12)]);
        assert_eq!([payload(4), payload(200)], [None, None], "more of it than there is behind the header");
    }

    #[test]
    fn what_is_not_rtp_is_refused() {
        for data in [&[][..], &[0x80], &[0x40; 20], &[0x80; 11], &[0x9f; 14]] {
            assert_eq!(Header::parse(data), None, "{data:x?}");
            assert_eq!(Header::parse_whole(data), None, "{data:x?}");
        }
    }
}
