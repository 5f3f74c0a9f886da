//! The bytes of a repair packet (RFC 8627 section 4.2), and the exclusive or in it.

use bytes::{BufMut, Bytes, BytesMut};

/// The payload type of repair packets. The SDP does not name them: players would take their port for a second stream.
pub const PAYLOAD_TYPE: u8 = 97;

/// Bytes of an RTP header without CSRCs and extension (RFC 3550 section 5.1).
pub(super) const RTP_HEADER: usize = 12;
/// The RTP header, and the protected SSRC as the one CSRC.
const FEC_HEADER: usize = RTP_HEADER + 4;
/// Behind the part of the FEC header that all kinds have, and behind the first sequence number.
const MASK: usize = FEC_HEADER + 10;
/// Packets that a mask reaches over, in its three lengths.
const MASK_BITS: [usize; 3] = [15, 46, 110];
pub(super) const SPAN: usize = MASK_BITS[2];

/// The exclusive or of packets (RFC 8627 section 6.2).
#[derive(Clone, Debug, Default)]
pub(super) struct Parity {
    /// Padding, extension and CSRC count, below the version.
    flags: u8,
    /// Marker and payload type.
    payload_type: u8,
    /// Of what follows the first 12 bytes.
    length: u16,
    timestamp: u32,
    /// What follows the first 12 bytes; the shorter are filled up with zeros.
    payload: Vec<u8>,
}

impl Parity {
    /// None for what is not RTP.
    pub fn add(&mut self, packet: &[u8]) -> Option<()> {
        let (header, rest) = packet.split_at_checked(RTP_HEADER)?;
        self.flags ^= header[0];
        self.payload_type ^= header[1];
        self.length ^= u16::try_from(rest.len()).ok()?;
        self.timestamp ^= u32::from_be_bytes(header[4..8].try_into().ok()?);
        self.add_payload(rest);
        Some(())
    }

    pub fn add_parity(&mut self, other: &Self) {
        self.flags ^= other.flags;
        self.payload_type ^= other.payload_type;
        self.length ^= other.length;
        self.timestamp ^= other.timestamp;
        self.add_payload(&other.payload);
    }

    fn add_payload(&mut self, rest: &[u8]) {
        if self.payload.len() < rest.len() {
            self.payload.resize(rest.len(), 0);
        }
        self.payload.iter_mut().zip(rest).for_each(|(sum, byte)| *sum ^= byte);
    }

    /// The packet that this is the parity of alone. None where a forged or damaged repair packet claims any length.
    pub fn packet(&self, sequence: u16, ssrc: u32) -> Option<Bytes> {
        let payload = self.payload.get(..usize::from(self.length))?;
        let mut out = BytesMut::with_capacity(RTP_HEADER + payload.len());
        out.put_u8((self.flags & 0x3f) | 0x80);
        out.put_u8(self.payload_type);
        out.put_u16(sequence);
        out.put_u32(self.timestamp);
        out.put_u32(ssrc);
        out.put_slice(payload);
        Some(out.freeze())
    }
}

/// What stands in the RTP header of a repair packet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Header {
    pub sequence: u16,
    /// When it is sent, on the clock of the media (section 4.2.1).
    pub timestamp: u32,
    pub ssrc: u32,
    /// Of the packets that it covers.
    pub protected: u32,
}

/// A repair packet with a flexible mask: bit `i` of `mask` stands for the packet `base + i`.
pub(super) fn write(header: Header, base: u16, mask: u128, parity: &Parity) -> Bytes {
    let mut out = BytesMut::with_capacity(MASK + 14 + parity.payload.len());
    // Version 2 and one CSRC.
    out.put_u8(0x81);
    out.put_u8(PAYLOAD_TYPE);
    out.put_u16(header.sequence);
    out.put_u32(header.timestamp);
    out.put_u32(header.ssrc);
    out.put_u32(header.protected);
    // R = 0: not a retransmission; F = 0: flexible mask. They stand where the version would.
    out.put_u8(parity.flags & 0x3f);
    out.put_u8(parity.payload_type);
    out.put_u16(parity.length);
    out.put_u32(parity.timestamp);
    out.put_u16(base);
    let [first, second, third] = MASK_BITS;
    let bits = |from, to| (from..to).fold(0, |bits: u64, i| bits << 1 | u64::from(mask >> i & 1 == 1));
    let more = |from: usize| mask >> from != 0;
    // Above each of the first two parts a bit says whether another follows.
    out.put_u16(u16::from(more(first)) << 15 | bits(0, first) as u16);
    if more(first) {
        out.put_u32(u32::from(more(second)) << 31 | bits(first, second) as u32);
    }
    if more(second) {
        out.put_u64(bits(second, third));
    }
    out.put_slice(&parity.payload);
    out.freeze()
}

/// What a repair packet says: whose packets it covers, which, and their parity. None for what is not one.
pub(super) fn read(packet: &[u8]) -> Option<(u32, Vec<u16>, Parity)> {
    let word = |at: usize| Some(u32::from_be_bytes(packet.get(at..at + 4)?.try_into().ok()?));
    let half = |at: usize| Some(u16::from_be_bytes(packet.get(at..at + 2)?.try_into().ok()?));
    let (first, kind) = (*packet.first()?, *packet.get(FEC_HEADER)?);
    // Version 2, no padding, no extension, one CSRC.
    if first != 0x81 || packet[1] & 0x7f != PAYLOAD_TYPE {
        return None;
    }
    let base = half(MASK - 2)?;
    let (covered, payload) = match kind >> 6 {
        0 => flexible(base, packet, half(MASK)?)?,
        1 => (fixed(base, *packet.get(MASK)?, *packet.get(MASK + 1)?)?, MASK + 2),
        _ => return None,
    };
    let parity = Parity {
        flags: kind,
        payload_type: packet[FEC_HEADER + 1],
        length: half(FEC_HEADER + 2)?,
        timestamp: word(FEC_HEADER + 4)?,
        payload: packet.get(payload..)?.to_vec(),
    };
    (!covered.is_empty()).then_some((word(RTP_HEADER)?, covered, parity))
}

/// What a mask covers, and where the payload begins.
fn flexible(base: u16, packet: &[u8], first: u16) -> Option<(Vec<u16>, usize)> {
    let mut mask = u128::from(first & 0x7fff) << (SPAN - MASK_BITS[0]);
    let mut payload = MASK + 2;
    if first >> 15 == 1 {
        let second = u32::from_be_bytes(packet.get(payload..payload + 4)?.try_into().ok()?);
        mask |= u128::from(second & 0x7fff_ffff) << (SPAN - MASK_BITS[1]);
        payload += 4;
        if second >> 31 == 1 {
            mask |= u128::from(u64::from_be_bytes(packet.get(payload..payload + 8)?.try_into().ok()?));
            payload += 8;
        }
    }
    // The highest bit is that of the first packet.
    let covered = (0..SPAN).filter(|i| mask >> (SPAN - 1 - i) & 1 == 1);
    Some((covered.map(|i| base.wrapping_add(i as u16)).collect(), payload))
}

/// What a row or a column of a fixed block covers.
fn fixed(base: u16, columns: u8, rows: u8) -> Option<Vec<u16>> {
    let (step, count) = match rows {
        // Rows, alone or with columns to follow.
        0 | 1 => (1, columns),
        _ => (columns, rows),
    };
    // None of a block may appear in it twice.
    (step > 0).then(|| (0..u16::from(count)).map(|i| base.wrapping_add(i * u16::from(step))).collect())
}
