//! One RTP packet on its way from the socket to the decoder: read once, where it comes in.

use std::ops::Range;

use bytes::Bytes;
use rov_common::capture_clock::Captured;
use rov_common::rtp::{Header, PLAIN_LENGTH};

/// What contributing sources, header extension and padding say is left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    pub header: Header,
    /// When its picture was captured: in the first packet of a picture, where that is known.
    pub captured: Option<Captured>,
    pub payload: Bytes,
}

impl Packet {
    /// None for what is no RTP packet, or has more padding than there is behind its header.
    pub fn read(data: &Bytes) -> Option<Self> {
        Header::parse_whole(data).map(|(header, payload)| Self::of(header, data, payload))
    }

    /// Of a packet that was parsed; its bytes are shared.
    pub fn of(header: Header, data: &Bytes, payload: Range<usize>) -> Self {
        Self { header, captured: None, payload: data.slice(payload) }
    }

    /// Its bytes, but for what is left out.
    pub fn size(&self) -> usize {
        PLAIN_LENGTH + self.payload.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_payload_is_without_padding_and_not_copied() {
        let data = Bytes::from_static(&[
            0xb1, 0xe0, 0, 1, 0, 0, 0, 90, 0, 0, 0, 7, 1, 2, 3, 4, 0xbe, 0xde, 0, 1, 0x10, 0, 0, 0, 0x65, 0x88, 0, 2,
        ]);
        let packet = Packet::read(&data).expect("an RTP packet");
        let header = Header { marker: true, payload_type: 96, sequence: 1, timestamp: 90, ssrc: 7 };
        assert_eq!((packet.header, packet.captured, packet.size()), (header, None, 14));
        assert_eq!((&packet.payload[..], packet.payload.as_ptr()), (&[0x65, 0x88][..], data[24..].as_ptr()));
        let probe = Bytes::from_static(&[0xa0, 96, 0, 1, 0, 0, 0, 90, 0, 0, 0, 7, 0, 0, 0, 4]);
        assert_eq!(Packet::read(&probe).map(|packet| packet.payload.len()), Some(0), "padding alone");
    }

    #[test]
    fn what_is_not_rtp_is_refused() {
        let padded = [0xa0, 96, 0, 1, 0, 0, 0, 90, 0, 0, 0, 7, 200];
        for data in [&[][..], &[0x80], &[0x40; 20], &[0x80; 11], &padded] {
            assert_eq!(Packet::read(&Bytes::copy_from_slice(data)), None, "{data:x?}");
        }
    }
}
