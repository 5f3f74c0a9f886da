//! Makes repair packets.

use bytes::Bytes;

use super::code::{MAX_ROWS, columns, columns_before};
use super::packet::{self, Header, Parity, SPAN};

/// Of one source stream.
#[derive(Debug)]
pub struct Encoder {
    percent: usize,
    ssrc: u32,
    sequence: u16,
    /// The block before.
    previous: Vec<Vec<u8>>,
}

impl Encoder {
    /// `percent` repair packets for 100 source packets, 1 to 100; at least one for each block. `ssrc` and `sequence`
    /// are those of the repair stream, chosen at random as RFC 3550 wants.
    pub fn new(percent: u8, ssrc: u32, sequence: u16) -> Self {
        let mut this = Self { percent: 0, ssrc, sequence, previous: Vec::new() };
        this.set_percent(percent);
        this
    }

    /// From the next access unit on.
    pub fn set_percent(&mut self, percent: u8) {
        self.percent = percent.clamp(1, 100).into();
    }

    /// How many repair packets an access unit of so many packets gets.
    pub fn repairs(&self, packets: usize) -> usize {
        self.blocks(packets).map(|block| self.rows(block)).sum()
    }

    /// The repair packets of one access unit, given its RTP packets in the order of their sequence numbers; the access
    /// units in their order. `timestamp` is the time of sending on the clock of the media.
    pub fn protect<P: AsRef<[u8]>>(&mut self, packets: &[P], timestamp: u32) -> Vec<Bytes> {
        let (mut repairs, mut rest) = (Vec::with_capacity(self.repairs(packets.len())), packets);
        let sizes: Vec<usize> = self.blocks(packets.len()).collect();
        for size in sizes {
            let (block, behind) = rest.split_at(size);
            rest = behind;
            // None only for what is not RTP.
            repairs.extend(self.block(block, timestamp).unwrap_or_default());
            self.previous = block.iter().map(|packet| packet.as_ref().to_vec()).collect();
        }
        repairs
    }

    /// The sizes of the blocks of one access unit: about the same, within what a mask and the code reach.
    fn blocks(&self, packets: usize) -> impl Iterator<Item = usize> + use<> {
        let count = packets.div_ceil(SPAN).max(self.share(packets).div_ceil(MAX_ROWS));
        (0..count).map(move |i| packets / count + usize::from(i < packets % count))
    }

    fn rows(&self, block: usize) -> usize {
        self.share(block).min(MAX_ROWS)
    }

    fn share(&self, packets: usize) -> usize {
        (packets * self.percent).div_ceil(100)
    }

    fn block<P: AsRef<[u8]>>(&mut self, block: &[P], timestamp: u32) -> Option<Vec<Bytes>> {
        let first = block.first()?.as_ref();
        let base = sequence(first)?;
        let protected = u32::from_be_bytes(first.get(8..12)?.try_into().ok()?);
        // As many of the newest before as a mask reaches back to, if there is no gap between.
        let reach = self.previous.len().min(SPAN - block.len());
        let previous = &self.previous[self.previous.len() - reach..];
        let joins = previous.last().is_none_or(|last| sequence(last) == Some(base.wrapping_sub(1)));
        let previous = if joins { previous } else { &[] };
        let rows = self.rows(block.len());
        let before = previous.iter().map(Vec::as_slice).zip(columns_before(rows));
        let mut columns: Vec<u16> = columns(rows).take(block.len()).collect();
        columns.reverse();
        let covered = before.chain(block.iter().map(AsRef::as_ref).zip(columns));
        let mut parities = vec![(0_u128, Parity::default()); rows];
        for (at, (packet, column)) in covered.enumerate() {
            for (row, (mask, parity)) in parities.iter_mut().enumerate() {
                if column >> row & 1 == 1 {
                    *mask |= 1 << at;
                    parity.add(packet)?;
                }
            }
        }
        let start = base.wrapping_sub(previous.len() as u16);
        let mut repairs = Vec::with_capacity(rows);
        for (mask, parity) in parities.into_iter().rev() {
            // No row is empty, as the columns of as many packets as there are rows are independent.
            let skipped = mask.trailing_zeros();
            let header = Header { sequence: self.sequence, timestamp, ssrc: self.ssrc, protected };
            repairs.push(packet::write(header, start.wrapping_add(skipped as u16), mask >> skipped, &parity));
            self.sequence = self.sequence.wrapping_add(1);
        }
        Some(repairs)
    }
}

fn sequence(packet: &[u8]) -> Option<u16> {
    Some(u16::from_be_bytes(packet.get(2..4)?.try_into().ok()?))
}
