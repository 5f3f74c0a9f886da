//! The RTP header (RFC 3550 section 5.1), as far as packets are told apart and changed by it on their way. Pure.

/// The length of a header without contributing sources and extension.
pub const PLAIN_LENGTH: usize = 12;

/// The fields of one packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The last byte of the packet says how many there are behind the payload.
    pub has_padding: bool,
    pub marker: bool,
    pub payload_type: u8,
    pub sequence: u16,
    pub timestamp: u32,
    pub ssrc: u32,
    /// Where the payload begins.
    pub payload_at: usize,
}

impl Header {
    /// None unless `data` is an RTP packet of version 2 with a whole header.
    pub fn parse(data: &[u8]) -> Option<Self> {
        let (first, second) = (*data.first()?, *data.get(1)?);
        if first >> 6 != 2 {
            return None;
        }
        let word = |at: usize| Some(u32::from_be_bytes(data.get(at..at + 4)?.try_into().ok()?));
        let mut payload_at = PLAIN_LENGTH + 4 * usize::from(first & 0x0f);
        if first & 0x10 != 0 {
            payload_at += 4 + 4 * (word(payload_at)? & 0xffff) as usize;
        }
        (payload_at <= data.len()).then_some(Self {
            has_padding: first & 0x20 != 0,
            marker: second & 0x80 != 0,
            payload_type: second & 0x7f,
            sequence: (word(0)? & 0xffff) as u16,
            timestamp: word(4)?,
            ssrc: word(8)?,
            payload_at,
        })
    }

    /// What is between header and padding of the packet; none where there is more padding than that.
    pub fn payload<'a>(&self, packet: &'a [u8]) -> Option<&'a [u8]> {
        let padding = if self.has_padding { usize::from(*packet.last()?) } else { 0 };
        packet.get(self.payload_at..packet.len().checked_sub(padding)?)
    }
}

/// Changes the payload type of a packet that was parsed.
pub fn set_payload_type(packet: &mut [u8], payload_type: u8) {
    packet[1] = (packet[1] & 0x80) | payload_type;
}

pub fn set_sequence(packet: &mut [u8], sequence: u16) {
    packet[2..4].copy_from_slice(&sequence.to_be_bytes());
}

pub fn set_ssrc(packet: &mut [u8], ssrc: u32) {
    packet[8..12].copy_from_slice(&ssrc.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_is_read_and_changed() {
        let mut packet = vec![0x91, 0xe1, 0, 7, 0, 0, 0, 9, 0, 0, 0, 5, 1, 2, 3, 4, 0xbe, 0xde, 0, 1, 0, 0, 0, 0, 0x65];
        let header = Header {
            has_padding: false,
            marker: true,
            payload_type: 97,
            sequence: 7,
            timestamp: 9,
            ssrc: 5,
            payload_at: 24,
        };
        assert_eq!(Header::parse(&packet), Some(header));
        set_payload_type(&mut packet, 96);
        set_sequence(&mut packet, 0x1234);
        set_ssrc(&mut packet, 6);
        assert_eq!(packet[1], 0xe0, "the marker stays");
        let header = Header { payload_type: 96, sequence: 0x1234, ssrc: 6, ..header };
        assert_eq!(Header::parse(&packet), Some(header));
        assert_eq!(header.payload(&packet), Some(&[0x65][..]));
    }

    #[test]
    fn padding_is_no_part_of_the_payload() {
        let payload = |padding: u8| {
            let packet = [0xa0, 96, 0, 7, 0, 0, 0, 9, 0, 0, 0, 5, 0x65, 0, padding];
            Header::parse(&packet)?.payload(&packet).map(<[u8]>::to_vec)
        };
        assert_eq!([payload(2), payload(3)], [Some(vec![0x65]), Some(vec![])]);
        assert_eq!([payload(4), payload(200)], [None, None], "more of it than there is behind the header");
    }

    #[test]
    fn what_is_not_rtp_is_refused() {
        for data in [&[][..], &[0x80], &[0x40; 20], &[0x80; 11], &[0x9f; 14]] {
            assert_eq!(Header::parse(data), None, "{data:x?}");
        }
    }
}
