//! Forward error correction for RTP (RFC 8627, FLEX FEC): parity packets that let a receiver rebuild lost ones where nobody can
//! be asked to send them again.
//!
//! Each access unit is a block of its own, so that its repair packets leave right behind it and a loss costs no wait for later
//! pictures. Within a block the parity is interleaved (RFC 8627 section 4.2.2.2, F = 1): with `k` repair packets, the `i`-th
//! covers each `k`-th packet from the `i`-th on, so that up to `k` packets lost in a row come back. What is lost besides, two
//! packets of one parity, does not.
//!
//! Limits: fixed blocks alone (neither the flexible mask nor retransmissions of RFC 8627), one source SSRC, no recursion over
//! rows and columns. Pure: the sockets are in the server's output and the client's receiver.

use std::collections::VecDeque;

use bytes::{BufMut, Bytes, BytesMut};

/// The payload type of repair packets. The SDP does not name them: players would take their port for a second stream.
pub const PAYLOAD_TYPE: u8 = 97;

/// Bytes of an RTP header without CSRCs and extension (RFC 3550 section 5.1).
const RTP_HEADER: usize = 12;
/// Of a repair packet: the RTP header, the protected SSRC as the one CSRC, the FEC header.
const REPAIR_HEADER: usize = RTP_HEADER + 4 + 12;
/// Source packets of one block: `L` and `D` have eight bits each.
const MAX_BLOCK: usize = 250;
/// What a receiver keeps: at 100 Mbit/s these are 100 ms of source packets, and repair packets come right behind their block.
const MAX_SOURCES: usize = 1024;
const MAX_REPAIRS: usize = 256;

/// Makes repair packets.
#[derive(Debug)]
pub struct Encoder {
    percent: u8,
    ssrc: u32,
    sequence: u16,
}

impl Encoder {
    /// `percent` repair packets for 100 source packets, 1 to 100; at least one for each block. `ssrc` and `sequence` are those
    /// of the repair stream, chosen at random as RFC 3550 wants.
    pub fn new(percent: u8, ssrc: u32, sequence: u16) -> Self {
        Self { percent: percent.clamp(1, 100), ssrc, sequence }
    }

    /// How many repair packets an access unit of so many packets gets.
    pub fn repairs(&self, packets: usize) -> usize {
        let of_block = |block: usize| (block * usize::from(self.percent)).div_ceil(100);
        packets / MAX_BLOCK * of_block(MAX_BLOCK) + of_block(packets % MAX_BLOCK)
    }

    /// The repair packets of one access unit, given its RTP packets in the order of their sequence numbers.
    pub fn protect<P: AsRef<[u8]>>(&mut self, packets: &[P]) -> Vec<Bytes> {
        let mut repairs = Vec::new();
        for block in packets.chunks(MAX_BLOCK) {
            let count = self.repairs(block.len());
            for first in 0..count {
                let covered: Vec<&[u8]> = block[first..].iter().step_by(count).map(AsRef::as_ref).collect();
                repairs.extend(self.repair(&covered, count));
            }
        }
        repairs
    }

    /// One packet that covers these, which are `step` sequence numbers apart. None for what is not RTP.
    fn repair(&mut self, covered: &[&[u8]], step: usize) -> Option<Bytes> {
        let mut parity = Parity::default();
        for packet in covered {
            parity.add(packet)?;
        }
        let first = covered.first()?;
        // A single packet is a row of one; a column has two at least.
        let (columns, rows) = if covered.len() > 1 { (step, covered.len()) } else { (1, 0) };
        let mut out = BytesMut::with_capacity(REPAIR_HEADER + parity.payload.len());
        // Version 2 and one CSRC.
        out.put_u8(0x81);
        out.put_u8(PAYLOAD_TYPE);
        out.put_u16(self.sequence);
        out.put_slice(&first[4..8]);
        out.put_u32(self.ssrc);
        out.put_slice(&first[8..12]);
        // R = 0: not a retransmission; F = 1: fixed block. They stand where the version would.
        out.put_u8((parity.flags & 0x3f) | 0x40);
        out.put_u8(parity.payload_type);
        out.put_u16(parity.length);
        out.put_u32(parity.timestamp);
        out.put_slice(&first[2..4]);
        out.put_u8(u8::try_from(columns).ok()?);
        out.put_u8(u8::try_from(rows).ok()?);
        out.put_slice(&parity.payload);
        self.sequence = self.sequence.wrapping_add(1);
        Some(out.freeze())
    }
}

/// The exclusive or of packets (RFC 8627 section 6.2).
#[derive(Default)]
struct Parity {
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
    fn add(&mut self, packet: &[u8]) -> Option<()> {
        let (header, rest) = packet.split_at_checked(RTP_HEADER)?;
        self.flags ^= header[0];
        self.payload_type ^= header[1];
        self.length ^= u16::try_from(rest.len()).ok()?;
        self.timestamp ^= u32::from_be_bytes(header[4..8].try_into().ok()?);
        self.add_payload(rest);
        Some(())
    }

    fn add_payload(&mut self, rest: &[u8]) {
        if self.payload.len() < rest.len() {
            self.payload.resize(rest.len(), 0);
        }
        self.payload.iter_mut().zip(rest).for_each(|(sum, byte)| *sum ^= byte);
    }
}

/// Rebuilds lost packets of one source stream. Bounded: it remembers the newest packets of each kind.
#[derive(Debug, Default)]
pub struct Decoder {
    ssrc: Option<u32>,
    sources: VecDeque<(u16, Bytes)>,
    repairs: VecDeque<Repair>,
    recovered: u64,
}

#[derive(Debug)]
struct Repair {
    packet: Bytes,
    base: u16,
    step: u16,
    count: u16,
}

impl Repair {
    fn parse(packet: &Bytes) -> Option<(u32, Self)> {
        let word = |at: usize| Some(u32::from_be_bytes(packet.get(at..at + 4)?.try_into().ok()?));
        // Version 2, no padding, no extension, one CSRC; behind it a fixed block that is no retransmission.
        let is_ours = packet.len() >= REPAIR_HEADER && packet[0] == 0x81 && packet[16] & 0xc0 == 0x40;
        if !is_ours || packet[1] & 0x7f != PAYLOAD_TYPE {
            return None;
        }
        let last = word(24)?;
        let (columns, rows) = ((last >> 8 & 0xff) as u16, (last & 0xff) as u16);
        let (step, count) = match rows {
            // Rows, alone or with columns to follow.
            0 | 1 => (1, columns),
            _ => (columns, rows),
        };
        // None of a block may appear in it twice.
        if step == 0 || count == 0 {
            return None;
        }
        Some((word(12)?, Self { packet: packet.clone(), base: (last >> 16) as u16, step, count }))
    }

    fn covers(&self) -> impl Iterator<Item = u16> {
        let (base, step) = (self.base, self.step);
        (0..self.count).map(move |i| base.wrapping_add(i.wrapping_mul(step)))
    }
}

impl Decoder {
    /// Packets rebuilt until now.
    pub fn recovered(&self) -> u64 {
        self.recovered
    }

    /// Takes a source packet that came; gives the one that could be rebuilt by it, if any.
    pub fn source(&mut self, packet: &Bytes) -> Option<Bytes> {
        let header = packet.get(..RTP_HEADER)?;
        let ssrc = u32::from_be_bytes(header[8..12].try_into().ok()?);
        if self.ssrc != Some(ssrc) {
            *self = Self { ssrc: Some(ssrc), recovered: self.recovered, ..Self::default() };
        }
        let sequence = u16::from_be_bytes(header[2..4].try_into().ok()?);
        if self.get(sequence).is_some() {
            return None;
        }
        self.keep(sequence, packet.clone());
        // What they cover is forgotten by then, and its numbers come again for other packets.
        self.repairs.retain(|repair| i32::from(sequence.wrapping_sub(repair.base) as i16) <= MAX_SOURCES as i32);
        // Mostly there are none that wait: repair packets come behind what they cover.
        self.repairs.iter().position(|repair| repair.covers().any(|covered| covered == sequence)).and_then(|at| {
            let repair = self.repairs.remove(at)?;
            self.rebuild(repair)
        })
    }

    /// Takes a repair packet; gives the packet that it rebuilds, if one is missing. With more than one missing it is kept, as
    /// some may only be late.
    pub fn repair(&mut self, packet: &Bytes) -> Option<Bytes> {
        let (ssrc, repair) = Repair::parse(packet)?;
        if self.ssrc != Some(ssrc) {
            return None;
        }
        self.rebuild(repair)
    }

    fn rebuild(&mut self, repair: Repair) -> Option<Bytes> {
        let mut missing = repair.covers().filter(|&sequence| self.get(sequence).is_none());
        let sequence = missing.next()?;
        if missing.next().is_some() {
            drop(missing);
            if self.repairs.len() == MAX_REPAIRS {
                self.repairs.pop_front();
            }
            self.repairs.push_back(repair);
            return None;
        }
        drop(missing);
        let fec = &repair.packet[RTP_HEADER + 4..REPAIR_HEADER];
        let mut parity = Parity {
            flags: fec[0],
            payload_type: fec[1],
            length: u16::from_be_bytes([fec[2], fec[3]]),
            timestamp: u32::from_be_bytes([fec[4], fec[5], fec[6], fec[7]]),
            payload: repair.packet[REPAIR_HEADER..].to_vec(),
        };
        for covered in repair.covers().filter(|&covered| covered != sequence) {
            parity.add(self.get(covered)?)?;
        }
        // A forged or damaged repair packet may claim any length.
        let payload = parity.payload.get(..usize::from(parity.length))?;
        let mut out = BytesMut::with_capacity(RTP_HEADER + payload.len());
        out.put_u8((parity.flags & 0x3f) | 0x80);
        out.put_u8(parity.payload_type);
        out.put_u16(sequence);
        out.put_u32(parity.timestamp);
        out.put_u32(self.ssrc?);
        out.put_slice(payload);
        let packet = out.freeze();
        self.keep(sequence, packet.clone());
        self.recovered += 1;
        Some(packet)
    }

    fn get(&self, sequence: u16) -> Option<&Bytes> {
        // The newest are looked for most.
        self.sources.iter().rev().find(|(known, _)| *known == sequence).map(|(_, packet)| packet)
    }

    fn keep(&mut self, sequence: u16, packet: Bytes) {
        if self.sources.len() == MAX_SOURCES {
            self.sources.pop_front();
        }
        self.sources.push_back((sequence, packet));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SSRC: u32 = 0x0102_0304;

    /// Packets of different lengths, the last with the marker, whose sequence numbers wrap.
    fn unit(first: u16, count: usize) -> Vec<Bytes> {
        let packet = |i: usize| {
            let mut out = BytesMut::new();
            out.put_u8(0x80);
            out.put_u8(if i + 1 == count { 0x80 | 96 } else { 96 });
            out.put_u16(first.wrapping_add(i as u16));
            out.put_u32(90_000);
            out.put_u32(SSRC);
            out.extend((0..100 + (i * 37) % 50).map(|at| (at * 7 + i * 31) as u8));
            out.freeze()
        };
        (0..count).map(packet).collect()
    }

    /// What comes back when `lost` of the unit do not arrive.
    fn rebuilt(percent: u8, count: usize, lost: &[usize]) -> Vec<Bytes> {
        let packets = unit(65_530, count);
        let repairs = Encoder::new(percent, 7, 65_535).protect(&packets);
        let mut decoder = Decoder::default();
        let mut out = Vec::new();
        for (i, packet) in packets.iter().enumerate() {
            if !lost.contains(&i) {
                out.extend(decoder.source(packet));
            }
        }
        for repair in &repairs {
            out.extend(decoder.repair(repair));
        }
        assert_eq!(decoder.recovered(), out.len() as u64);
        out
    }

    #[test]
    fn any_one_lost_packet_comes_back_as_it_was() {
        for count in [2, 3, 10, 41] {
            for lost in 0..count {
                assert_eq!(rebuilt(20, count, &[lost]), [unit(65_530, count)[lost].clone()], "{lost} of {count}");
            }
        }
    }

    #[test]
    fn a_burst_as_long_as_there_are_repair_packets_comes_back() {
        // 20 % of 20 packets are 4 repair packets.
        let mut rebuilt = rebuilt(20, 20, &[7, 8, 9, 10]);
        rebuilt.sort_by_key(|packet| u16::from_be_bytes([packet[2], packet[3]]));
        assert_eq!(rebuilt, unit(65_530, 20)[7..11]);
    }

    #[test]
    fn a_unit_of_one_packet_is_repeated_in_effect() {
        assert!(rebuilt(1, 1, &[0]).is_empty(), "the source is not known yet");
        let packets = unit(1, 1);
        let mut decoder = Decoder::default();
        decoder.source(&unit(0, 1)[0]);
        let repairs = Encoder::new(1, 7, 0).protect(&packets);
        assert_eq!(decoder.repair(&repairs[0]), Some(packets[0].clone()));
    }

    #[test]
    fn two_lost_packets_of_one_parity_do_not_come_back_and_nothing_wrong_does() {
        assert_eq!(rebuilt(10, 10, &[2, 5]), Vec::<Bytes>::new());
    }

    #[test]
    fn a_repair_packet_that_overtakes_its_sources_helps_when_they_come() {
        let packets = unit(1, 4);
        let repairs = Encoder::new(25, 7, 0).protect(&packets);
        let mut decoder = Decoder::default();
        assert_eq!(decoder.source(&packets[0]), None);
        assert_eq!(decoder.repair(&repairs[0]), None);
        assert_eq!(decoder.source(&packets[3]), None, "one is missing still");
        assert_eq!(decoder.source(&packets[2]), Some(packets[1].clone()));
        assert_eq!(decoder.source(&packets[1]), None, "the late one is known");
    }

    #[test]
    fn packets_without_payload_come_back_as_well() {
        let packets: Vec<Bytes> = unit(1, 4).iter().map(|packet| packet.slice(..RTP_HEADER)).collect();
        let repairs = Encoder::new(25, 7, 0).protect(&packets);
        let mut decoder = Decoder::default();
        packets[1..].iter().for_each(|packet| assert_eq!(decoder.source(packet), None));
        assert_eq!(decoder.repair(&repairs[0]), Some(packets[0].clone()));
    }

    #[test]
    fn the_share_of_repair_packets_is_that_which_was_asked_for() {
        let count = |percent, packets| {
            let mut encoder = Encoder::new(percent, 7, 0);
            let repairs = encoder.protect(&unit(0, packets)).len();
            assert_eq!(encoder.repairs(packets), repairs);
            repairs
        };
        assert_eq!((count(20, 100), count(100, 10), count(1, 10), count(10, 600)), (20, 10, 1, 60));
    }

    #[test]
    fn the_header_is_that_of_rfc_8627() {
        let packets = unit(0x1234, 4);
        let repairs = Encoder::new(50, 0xaabb_ccdd, 0x55).protect(&packets);
        assert_eq!(repairs.len(), 2);
        // V=2, CC=1; PT; sequence number; timestamp; SSRC; CSRC.
        assert_eq!(repairs[0][..16], [0x81, 97, 0, 0x55, 0, 1, 0x5f, 0x90, 0xaa, 0xbb, 0xcc, 0xdd, 1, 2, 3, 4]);
        // R=0, F=1; M and PT: 96 twice; length: 100 and 124 bytes; timestamp twice; SN base, L = 2, D = 2.
        assert_eq!(repairs[0][16..28], [0x40, 0, 0, 100 ^ 124, 0, 0, 0, 0, 0x12, 0x34, 2, 2]);
        // The second covers the packet with the marker.
        assert_eq!(repairs[1][16..18], [0x40, 0x80]);
        assert_eq!(repairs[1][24..28], [0x12, 0x35, 2, 2]);
    }

    #[test]
    fn garbage_and_other_streams_are_ignored() {
        let packets = unit(1, 3);
        let repairs = Encoder::new(30, 7, 0).protect(&packets);
        let mut decoder = Decoder::default();
        decoder.source(&packets[0]);
        for length in 0..repairs[0].len() {
            assert_eq!(decoder.repair(&repairs[0].slice(..length)), None);
        }
        for at in 0..REPAIR_HEADER {
            let mut damaged = BytesMut::from(&repairs[0][..]);
            damaged[at] ^= 0xff;
            decoder.repair(&damaged.freeze());
        }
        assert_eq!(decoder.source(&Bytes::from_static(&[0x80; 11])), None);
        let mut other = BytesMut::from(&packets[2][..]);
        other[8] = 9;
        assert_eq!(decoder.source(&other.freeze()), None);
        assert_eq!(decoder.repair(&repairs[0]), None, "the former stream has ended");
    }

    #[test]
    fn a_repair_packet_does_not_outlive_its_block() {
        let mut decoder = Decoder::default();
        let mut encoder = Encoder::new(10, 7, 0);
        // Two of this block are lost for good; then all numbers come again, with other contents.
        let first = unit(0, 10);
        first[..8].iter().for_each(|packet| assert_eq!(decoder.source(packet), None));
        encoder.protect(&first).iter().for_each(|repair| assert_eq!(decoder.repair(repair), None));
        for i in 0..=6554_u16 {
            for (at, packet) in unit(10_u16.wrapping_add(i.wrapping_mul(10)), 10).iter().enumerate() {
                assert_eq!(decoder.source(packet), None, "packet {at} of unit {i}");
            }
        }
        assert_eq!(decoder.recovered(), 0);
    }

    #[test]
    fn memory_is_bounded() {
        let mut decoder = Decoder::default();
        let mut encoder = Encoder::new(50, 7, 0);
        for i in 0..2_000_u16 {
            let packets = unit(i.wrapping_mul(6), 6);
            for packet in &packets[..2] {
                decoder.source(packet);
            }
            for repair in encoder.protect(&packets) {
                decoder.repair(&repair);
            }
        }
        assert!(decoder.sources.len() <= MAX_SOURCES && decoder.repairs.len() <= MAX_REPAIRS);
    }
}
