//! Sequence numbers of RTP by TCP: some cameras leave numbers out at each picture, or jump, which all that comes behind
//! would take for a loss. TCP loses nothing on the way, but cameras and relays drop packets, or whole pictures, when a
//! connection is full: so a gap is closed only where it is a habit, or too large for that. One within a picture always
//! stays. Pure.

use crate::rtp::Header;

/// So many pictures one after another began with a gap: it is a habit.
const HABIT: u32 = 8;
/// So many packets, some megabytes, are not dropped between two pictures.
const JUMP: u16 = 2_000;

/// Closes the gaps between the pictures of one sender.
#[derive(Debug, Default)]
pub struct Numbering {
    last: Option<Header>,
    /// What is added to each number.
    offset: u16,
    /// The sender marks the last packets of pictures, some at least.
    marks: bool,
    /// Pictures that began with a gap, without one between them that did not.
    gaps: u32,
}

impl Numbering {
    /// The number that the next packet gets.
    pub fn number(&mut self, header: Header) -> u16 {
        self.marks |= header.marker;
        match self.last.replace(header) {
            Some(last) if last.ssrc != header.ssrc => *self = Self { last: self.last, ..Self::default() },
            Some(last) => {
                let is_next_picture = last.timestamp != header.timestamp && (last.marker || !self.marks);
                let expected = last.sequence.wrapping_add(1);
                if is_next_picture {
                    let gap = header.sequence.wrapping_sub(expected);
                    let is_habit = self.gaps >= HABIT;
                    self.gaps = if gap == 0 { 0 } else { self.gaps.saturating_add(1) };
                    if gap >= JUMP || is_habit {
                        self.offset = self.offset.wrapping_sub(gap);
                    }
                }
            }
            None => {}
        }
        header.sequence.wrapping_add(self.offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What becomes of packets with these numbers, times and marker bits.
    fn numbered(packets: &[(u16, u32, bool)]) -> Vec<u16> {
        let mut numbering = Numbering::default();
        let header = |&(sequence, timestamp, marker): &(u16, u32, bool)| Header {
            payload_type: 96,
            sequence,
            timestamp,
            marker,
            ssrc: 1,
        };
        packets.iter().map(|packet| numbering.number(header(packet))).collect()
    }

    #[test]
    fn jumps_between_pictures_are_closed() {
        let packets = [(65_534, 0, false), (65_535, 0, true), (7_000, 9, false), (7_001, 9, true), (3, 18, true)];
        assert_eq!(numbered(&packets), [65_534, 65_535, 0, 1, 2]);
    }

    #[test]
    fn gaps_at_each_picture_are_closed_once_they_are_a_habit() {
        let marked = |last| (0..12).map(move |at| (1 + 2 * at, 9 * u32::from(at), last)).collect::<Vec<_>>();
        let closed = [1, 3, 5, 7, 9, 11, 13, 15, 17, 18, 19, 20];
        assert_eq!(numbered(&marked(true)), closed);
        assert_eq!(numbered(&marked(false)), closed, "without marker bits");
    }

    #[test]
    fn what_is_missing_between_pictures_now_and_then_stays_missing() {
        // Each fourth picture is dropped, or begins without its first packet.
        let kept = (0..100_u16).filter(|at| at % 4 != 3);
        let packets: Vec<_> = kept.map(|at| (at, 9 * u32::from(at), true)).collect();
        let numbers: Vec<_> = packets.iter().map(|packet| packet.0).collect();
        assert_eq!(numbered(&packets), numbers);
    }

    #[test]
    fn within_a_picture_and_where_its_end_is_missing_they_stay() {
        assert_eq!(numbered(&[(1, 0, true), (2, 9, false), (4, 9, true), (5, 18, true)]), [1, 2, 4, 5]);
        assert_eq!(numbered(&[(1, 0, true), (2, 9, false), (4, 18, true)]), [1, 2, 4]);
    }
}
