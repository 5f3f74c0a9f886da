use std::collections::HashSet;

use bytes::{BufMut, Bytes, BytesMut};
use proptest::prelude::*;

use super::code::{self, columns};
use super::decoder::{MAX_ROWS, MAX_SOURCES};
use super::*;

const SSRC: u32 = 0x0102_0304;

/// Packets of different lengths, the last with the marker.
fn unit(first: u16, count: usize) -> Vec<Bytes> {
    let packet = |i: usize| {
        let mut out = BytesMut::new();
        out.put_u8(0x80);
        out.put_u8(if i + 1 == count { 0x80 | 96 } else { 96 });
        out.put_u16(first.wrapping_add(i as u16));
        out.put_u32(90_000);
        out.put_u32(SSRC);
        out.extend((0..100 + (i * 37) % 50).map(|at| (at * 7 + i * 31 + usize::from(first)) as u8));
        out.freeze()
    };
    (0..count).map(packet).collect()
}

fn number(packet: &Bytes) -> u16 {
    u16::from_be_bytes([packet[2], packet[3]])
}

/// A sender and a receiver.
struct Link {
    encoder: Encoder,
    decoder: Decoder,
    next: u16,
}

impl Link {
    /// The numbers wrap soon.
    fn new(percent: u8) -> Self {
        Self { encoder: Encoder::new(percent, 7, 65_535), decoder: Decoder::default(), next: 65_500 }
    }

    /// Sends an access unit and its repair packets, of which those with the numbers of `lost` do not arrive, counted
    /// through. Gives the unit, and what was rebuilt.
    fn send(&mut self, count: usize, lost: &[usize]) -> (Vec<Bytes>, Vec<Bytes>) {
        let packets = unit(self.next, count);
        self.next = self.next.wrapping_add(count as u16);
        let repairs = self.encoder.protect(&packets, 1);
        let mut rebuilt = Vec::new();
        for (_, packet) in packets.iter().enumerate().filter(|(i, _)| !lost.contains(i)) {
            rebuilt.extend(self.decoder.source(packet));
        }
        for (_, repair) in repairs.iter().enumerate().filter(|(i, _)| !lost.contains(&(count + i))) {
            rebuilt.extend(self.decoder.repair(repair));
        }
        (packets, rebuilt)
    }
}

/// What comes back when `lost` of a unit do not arrive, after one that did.
fn rebuilt(percent: u8, count: usize, lost: &[usize]) -> bool {
    let mut link = Link::new(percent);
    link.send(3, &[]);
    let (packets, rebuilt) = link.send(count, lost);
    let missing: Vec<_> = lost.iter().filter(|&&i| i < count).map(|&i| packets[i].clone()).collect();
    assert!(rebuilt.iter().all(|packet| packets.contains(packet)), "{rebuilt:?}");
    assert_eq!(link.decoder.recovered(), rebuilt.len() as u64);
    // Which comes first is the matter of the repair packets.
    rebuilt.len() == missing.len() && missing.iter().all(|packet| rebuilt.contains(packet))
}

#[test]
fn any_one_lost_packet_comes_back_as_it_was() {
    for count in [1, 2, 3, 10, 41, 110, 120] {
        for lost in 0..count {
            assert!(rebuilt(20, count, &[lost]), "{lost} of {count}");
        }
    }
}

#[test]
fn a_burst_as_long_as_there_are_repair_packets_comes_back_wherever_it_begins() {
    for (percent, count, length) in [(20, 20, 4), (20, 41, 9), (50, 14, 7), (20, 80, 16), (100, 5, 5)] {
        assert_eq!(Encoder::new(percent, 7, 0).repairs(count), length);
        for first in 0..=count {
            let lost: Vec<_> = (first..first + length).collect();
            assert!(rebuilt(percent, count, &lost), "{length} from {first} of {count}");
        }
    }
}

#[test]
fn as_many_columns_in_a_row_as_there_are_repair_packets_are_independent() {
    for rows in 1..=code::MAX_ROWS {
        let powers: Vec<_> = (0..rows).map(|i| 1 << i).chain(columns(rows)).take(110).collect();
        for run in powers.windows(rows) {
            // Gauss: each new one has a highest bit that none before has.
            let mut basis: Vec<u16> = Vec::new();
            for &power in run {
                let reduced = basis.iter().fold(power, |left, known| left.min(left ^ known));
                assert_ne!(reduced, 0, "{rows} rows");
                basis.push(reduced);
                basis.sort_by(|a, b| b.cmp(a));
            }
        }
    }
}

#[test]
fn any_two_lost_packets_of_a_small_unit_come_back_where_there_are_four_repair_packets() {
    for first in 0..11 {
        for second in 0..first {
            assert!(rebuilt(36, 11, &[second, first]), "{second} and {first}");
        }
    }
}

#[test]
fn what_is_lost_with_its_repair_packets_comes_back_with_the_next_unit() {
    for count in [1, 2, 3, 14] {
        let mut link = Link::new(20);
        link.send(count, &[]);
        let repairs = link.encoder.repairs(count);
        // The last packet and all that would repair it: a burst.
        let lost: Vec<_> = (count - 1..count + repairs).collect();
        let (first, nothing) = link.send(count, &lost);
        assert!(nothing.is_empty());
        let (_, rebuilt) = link.send(count, &[]);
        assert_eq!(rebuilt, first[count - 1..], "{count} packets");
    }
}

#[test]
fn a_repair_packet_that_overtakes_its_sources_helps_when_they_come() {
    let packets = unit(1, 4);
    let repairs = Encoder::new(25, 7, 0).protect(&packets, 0);
    let mut decoder = Decoder::default();
    assert!(decoder.source(&packets[0]).is_empty());
    assert!(decoder.repair(&repairs[0]).is_empty());
    assert!(decoder.source(&packets[3]).is_empty(), "one is missing still");
    assert_eq!(decoder.source(&packets[2]), [packets[1].clone()]);
    assert!(decoder.source(&packets[1]).is_empty(), "the late one is known");
}

#[test]
fn a_gap_between_units_is_not_covered_over() {
    let mut encoder = Encoder::new(25, 7, 0);
    encoder.protect(&unit(1, 4), 0);
    let packets = unit(100, 2);
    let repairs = encoder.protect(&packets, 0);
    let mut decoder = Decoder::default();
    decoder.source(&packets[0]);
    assert_eq!(decoder.repair(&repairs[0]), [packets[1].clone()]);
}

#[test]
fn the_share_of_repair_packets_is_that_which_was_asked_for() {
    let count = |percent, packets| {
        let mut encoder = Encoder::new(percent, 7, 0);
        let repairs = encoder.protect(&unit(0, packets), 0).len();
        assert_eq!(encoder.repairs(packets), repairs);
        repairs
    };
    assert_eq!((count(20, 100), count(100, 10), count(1, 10), count(10, 600)), (20, 10, 1, 60));
    assert_eq!((count(100, 330), count(20, 0)), (330, 0));
}

#[test]
fn the_header_is_that_of_rfc_8627() {
    let mut encoder = Encoder::new(25, 0xaabb_ccdd, 0x55);
    let first = unit(0x1234, 4);
    let repair = &encoder.protect(&first, 0x0a0b_0c0d)[0];
    // V=2, CC=1; PT; sequence number; time of sending; SSRC; CSRC.
    assert_eq!(repair[..16], [0x81, 97, 0, 0x55, 10, 11, 12, 13, 0xaa, 0xbb, 0xcc, 0xdd, 1, 2, 3, 4]);
    // R=0, F=0; M and PT: 96 four times, the marker once; length; timestamp four times; SN base; k=0, four bits of
    // fifteen.
    let length = (0..4).fold(0, |sum, i| sum ^ (100 + (i * 37) % 50));
    assert_eq!(repair[16..28], [0, 0x80, 0, length, 0, 0, 0, 0, 0x12, 0x34, 0b0111_1000, 0]);
    // Of two units of 20 and 40 packets: all of the first, and the second.
    encoder.protect(&unit(0x1238, 20), 0);
    let repair = &encoder.protect(&unit(0x1238 + 20, 40), 0)[0];
    let mask = [&repair[26..28], &repair[28..32], &repair[32..40]];
    assert_eq!((mask[0][0] >> 7, mask[1][0] >> 7), (1, 1), "both are followed by more");
}

#[test]
fn fixed_blocks_are_taken_too() {
    // SN base 10, L = 3, D = 2: packets 10 and 13; L = 4, D = 0: 10 to 13.
    let packets = unit(10, 4);
    for (columns, rows, covered) in [(3, 2, &[0, 3][..]), (4, 0, &[0, 1, 2, 3])] {
        let mut repair = BytesMut::from(&[0x81, 97, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7][..]);
        repair.put_u32(SSRC);
        let xor = |at: usize| covered.iter().fold(0, |sum, &i| sum ^ packets[i].get(at).copied().unwrap_or_default());
        let length = covered.iter().fold(0, |sum, &i| sum ^ (packets[i].len() - 12));
        repair.put_slice(&[xor(0) & 0x3f | 0x40, xor(1), 0, length as u8, xor(4), xor(5), xor(6), xor(7), 0, 10]);
        repair.put_slice(&[columns, rows]);
        repair.extend((12..200).map(xor));
        let mut decoder = Decoder::default();
        for &i in &covered[1..] {
            decoder.source(&packets[i]);
        }
        assert_eq!(decoder.repair(&repair.freeze()), [packets[0].clone()]);
    }
}

#[test]
fn a_row_that_waits_does_not_outlive_its_block() {
    let mut link = Link::new(10);
    // Two of this block are lost for good, and the next repair packets too; then all numbers come again, with other
    // contents.
    link.send(10, &[3, 5]);
    link.send(10, &[10]);
    assert_eq!(link.decoder.rows.len(), 1);
    for _ in 0..6_554 {
        let (_, rebuilt) = link.send(10, &[]);
        assert!(rebuilt.is_empty());
    }
    assert!(link.decoder.rows.is_empty());
}

#[test]
fn memory_is_bounded_and_a_receiver_goes_on_after_an_outage() {
    let mut link = Link::new(50);
    for _ in 0..2_000 {
        // Of six packets and three repair packets.
        link.send(6, &[0, 1, 2, 3, 4]);
    }
    assert!(link.decoder.sources.len() == usize::from(MAX_SOURCES) && link.decoder.rows.len() <= MAX_ROWS);
    link.send(6, &[]);
    let (packets, rebuilt) = link.send(6, &[2]);
    assert!(rebuilt.contains(&packets[2]));
}

#[test]
fn another_stream_is_another_stream() {
    let packets = unit(1, 3);
    let repairs = Encoder::new(30, 7, 0).protect(&packets, 0);
    let mut decoder = Decoder::default();
    packets[..2].iter().for_each(|packet| assert!(decoder.source(packet).is_empty()));
    let mut other = BytesMut::from(&packets[2][..]);
    other[8] = 9;
    assert!(decoder.source(&other.freeze()).is_empty());
    assert!(decoder.repair(&repairs[0]).is_empty(), "the former stream has ended");
}

/// Sizes of access units, each with a share of loss.
fn stream() -> impl Strategy<Value = (u8, Vec<(usize, Vec<usize>)>)> {
    let losses = |count: usize| prop::collection::vec(0..2 * count, 0..=count / 2);
    let unit =
        prop_oneof![1..6_usize, 1..60_usize, 1..130_usize].prop_flat_map(move |count| (Just(count), losses(count)));
    (1..=100_u8, prop::collection::vec(unit, 1..8))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_rebuilt_is_what_was_sent_and_nothing_twice((percent, units) in stream()) {
        let mut link = Link::new(percent);
        let (mut sent, mut seen) = (Vec::new(), HashSet::new());
        for (count, lost) in units {
            let (packets, rebuilt) = link.send(count, &lost);
            let arrived = packets.iter().enumerate().filter(|(i, _)| !lost.contains(i));
            seen.extend(arrived.map(|(_, packet)| number(packet)));
            sent.extend(packets);
            for packet in rebuilt {
                prop_assert!(sent.contains(&packet));
                prop_assert!(seen.insert(number(&packet)), "{} twice", number(&packet));
            }
        }
    }

    #[test]
    fn damaged_and_forged_repair_packets_do_no_harm(
        count in 1..40_usize,
        changes in prop::collection::vec((0..60_usize, any::<u8>(), 0..200_usize), 1..20),
    ) {
        let packets = unit(65_500, count);
        let repairs = Encoder::new(30, 7, 0).protect(&packets, 0);
        let mut decoder = Decoder::default();
        decoder.source(&packets[0]);
        for (repair, (at, value, length)) in repairs.iter().cycle().zip(changes) {
            let mut damaged = BytesMut::from(&repair[..repair.len().min(length)]);
            if let Some(byte) = damaged.get_mut(at) {
                *byte = value;
            }
            decoder.repair(&damaged.freeze());
        }
        prop_assert!(decoder.rows.len() <= MAX_ROWS);
    }
}
