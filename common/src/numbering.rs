//! Sequence numbers of RTP by TCP, where nothing is lost on the way: some cameras leave numbers out between pictures,
//! or jump, which all that comes behind would take for a loss. A gap within a picture stays, as a camera may itself
//! leave packets out. Pure.

use crate::rtp::Header;

/// Closes the gaps between the pictures of one sender.
#[derive(Debug, Default)]
pub struct Numbering {
    last: Option<Header>,
    /// What is added to each number.
    offset: u16,
    /// The sender marks the last packets of pictures, some at least.
    marks: bool,
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
                    self.offset = self.offset.wrapping_add(expected.wrapping_sub(header.sequence));
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
            has_padding: false,
            payload_type: 96,
            sequence,
            timestamp,
            marker,
            ssrc: 1,
            payload_at: 12,
        };
        packets.iter().map(|packet| numbering.number(header(packet))).collect()
    }

    #[test]
    fn between_pictures_gaps_and_jumps_are_closed() {
        let packets =
            [(65_534, 0, false), (65_535, 0, true), (1, 9, true), (700, 18, false), (701, 18, true), (3, 27, true)];
        assert_eq!(numbered(&packets), [65_534, 65_535, 0, 1, 2, 3]);
        assert_eq!(numbered(&[(1, 0, false), (3, 9, false), (5, 18, false)]), [1, 2, 3], "without marker bits");
    }

    #[test]
    fn within_a_picture_and_where_its_end_is_missing_they_stay() {
        assert_eq!(numbered(&[(1, 0, true), (2, 9, false), (4, 9, true), (5, 18, true)]), [1, 2, 4, 5]);
        assert_eq!(numbered(&[(1, 0, true), (2, 9, false), (4, 18, true)]), [1, 2, 4]);
    }
}
