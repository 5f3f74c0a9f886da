//! Rebuilds lost packets.

use std::collections::VecDeque;

use bytes::Bytes;

use super::packet::{self, Parity, RTP_HEADER};

/// What a receiver keeps: at 100 Mbit/s these are 100 ms of source packets, and repair packets come right behind their
/// block. A power of two, so that the places of numbers that wrap are in a row.
pub(super) const MAX_SOURCES: u16 = 1024;
/// Repair packets that wait because too many of what they cover are missing, and those packets. Bits of a `u128` each.
pub(super) const MAX_ROWS: usize = 128;
const MAX_UNKNOWN: usize = 128;

/// Of one source stream. Bounded: it remembers the newest packets of each kind.
#[derive(Debug, Default)]
pub struct Decoder {
    ssrc: Option<u32>,
    /// The number of the one that came last.
    newest: u16,
    /// Each at the place that its number gives, over the older one there.
    pub(super) sources: Vec<Option<(u16, Bytes)>>,
    pub(super) rows: VecDeque<Row>,
    recovered: u64,
}

/// An equation: the exclusive or of the packets that are not known.
#[derive(Debug)]
pub(super) struct Row {
    unknown: Vec<u16>,
    parity: Parity,
}

impl Row {
    /// A packet of it is known now.
    fn solve(&mut self, sequence: u16, packet: &[u8]) -> bool {
        let at = self.unknown.iter().position(|&unknown| unknown == sequence);
        if let Some(at) = at {
            self.unknown.swap_remove(at);
            // It was taken for RTP when it came.
            let _ = self.parity.add(packet);
        }
        at.is_some()
    }
}

impl Decoder {
    /// Packets rebuilt until now.
    pub fn recovered(&self) -> u64 {
        self.recovered
    }

    /// Takes a source packet that came; gives those that could be rebuilt by it, in their order.
    pub fn source(&mut self, packet: &Bytes) -> Vec<Bytes> {
        let Some(header) = packet.first_chunk::<RTP_HEADER>() else { return Vec::new() };
        let ssrc = u32::from_be_bytes([header[8], header[9], header[10], header[11]]);
        let sequence = u16::from_be_bytes([header[2], header[3]]);
        // Another stream, or this one after so long that the numbers of what is here come again for other packets.
        if self.ssrc != Some(ssrc) || (self.newest.wrapping_sub(sequence) as i16).unsigned_abs() > MAX_SOURCES {
            let sources = vec![None; MAX_SOURCES.into()];
            *self = Self { ssrc: Some(ssrc), recovered: self.recovered, sources, ..Self::default() };
        }
        if self.get(sequence).is_some() {
            return Vec::new();
        }
        self.newest = sequence;
        let gone = |&unknown: &u16| i32::from(sequence.wrapping_sub(unknown) as i16) > MAX_SOURCES.into();
        self.rows.retain(|row| !row.unknown.iter().any(gone));
        // Mostly there are no rows: repair packets come behind what they cover.
        if self.know(sequence, packet.clone()) { self.rebuild() } else { Vec::new() }
    }

    /// Takes a repair packet; gives the packets that can be rebuilt by it, in their order. If some are still missing it
    /// is kept, as they may only be late, and as the next repair packets may help.
    pub fn repair(&mut self, packet: &Bytes) -> Vec<Bytes> {
        let Some((ssrc, covered, mut parity)) = packet::read(packet) else { return Vec::new() };
        if self.ssrc != Some(ssrc) {
            return Vec::new();
        }
        let mut unknown = covered;
        unknown.retain(|&sequence| match self.get(sequence) {
            Some(known) => parity.add(known).is_none(),
            None => true,
        });
        if unknown.is_empty() {
            return Vec::new();
        }
        if self.rows.len() == MAX_ROWS {
            self.rows.pop_front();
        }
        self.rows.push_back(Row { unknown, parity });
        self.rebuild()
    }

    /// Solves the equations for what they determine (Gauss and Jordan, modulo 2).
    fn rebuild(&mut self) -> Vec<Bytes> {
        let unknown = self.unknown();
        // The packets in a row, and the rows that it is the sum of.
        let bit = |sequence: &u16| unknown.iter().position(|known| known == sequence).map_or(0, |at| 1_u128 << at);
        let packets = self.rows.iter().map(|row| row.unknown.iter().map(bit).sum::<u128>());
        let mut system: Vec<(u128, u128)> = packets.enumerate().map(|(at, packets)| (packets, 1 << at)).collect();
        let mut solved = 0;
        for column in 0..unknown.len() {
            let has = |row: &(u128, u128)| row.0 >> column & 1 == 1;
            let Some(pivot) = (solved..system.len()).find(|&at| has(&system[at])) else { continue };
            system.swap(solved, pivot);
            let by = system[solved];
            for (at, row) in system.iter_mut().enumerate() {
                if at != solved && has(row) {
                    *row = (row.0 ^ by.0, row.1 ^ by.1);
                }
            }
            solved += 1;
        }
        let single = system.iter().filter(|(packets, _)| packets.is_power_of_two());
        let mut rebuilt: Vec<(u16, Bytes)> = single
            .filter_map(|&(packet, rows)| {
                let mut parity = Parity::default();
                let of = self.rows.iter().enumerate().filter(|(at, _)| rows >> at & 1 == 1);
                of.for_each(|(_, row)| parity.add_parity(&row.parity));
                let sequence = unknown[packet.trailing_zeros() as usize];
                Some((sequence, parity.packet(sequence, self.ssrc?)?))
            })
            .collect();
        let oldest = unknown.first().copied().unwrap_or_default();
        rebuilt.sort_by_key(|(sequence, _)| sequence.wrapping_sub(oldest) as i16);
        self.recovered += rebuilt.len() as u64;
        for (sequence, packet) in &rebuilt {
            self.know(*sequence, packet.clone());
        }
        rebuilt.into_iter().map(|(_, packet)| packet).collect()
    }

    /// The packets that the rows wait for; the oldest rows are forgotten where they are too many.
    fn unknown(&mut self) -> Vec<u16> {
        let mut unknown = Vec::new();
        let (mut kept, mut fits) = (0, true);
        for row in self.rows.iter().rev() {
            let new: Vec<u16> = row.unknown.iter().copied().filter(|sequence| !unknown.contains(sequence)).collect();
            fits &= unknown.len() + new.len() <= MAX_UNKNOWN;
            if !fits {
                break;
            }
            unknown.extend(new);
            kept += 1;
        }
        self.rows.drain(..self.rows.len() - kept);
        unknown
    }

    /// Remembers a packet. True when a row waited for it.
    fn know(&mut self, sequence: u16, packet: Bytes) -> bool {
        let mut waited = false;
        for row in &mut self.rows {
            waited |= row.solve(sequence, &packet);
        }
        self.rows.retain(|row| !row.unknown.is_empty());
        self.sources[usize::from(sequence % MAX_SOURCES)] = Some((sequence, packet));
        waited
    }

    fn get(&self, sequence: u16) -> Option<&Bytes> {
        let place = self.sources.get(usize::from(sequence % MAX_SOURCES))?.as_ref();
        place.filter(|(known, _)| *known == sequence).map(|(_, packet)| packet)
    }
}
