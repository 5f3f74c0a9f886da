//! Where the access units of H.264 and H.265 end in RTP: with the last packet of one time stamp. The marker bit says the same at
//! once (RFC 6184 section 5.1, RFC 7798 section 4.1), where the next packet would say it a frame interval later; but some
//! cameras set it on every NAL unit or every slice. Pure.

use crate::codec::{Codec, NalKind};

/// So many pictures without a keyframe that show the marker bits to be right are enough as well.
const PROOF: u32 = 30;
/// Where they were wrong, so many keyframes in a row have to show them to be right. Doubled each time that was too few, so that a camera
/// that sets them wrongly now and then damages ever fewer pictures. Keyframes alone: small pictures have one slice more often.
const RIGHT_AGAIN: u32 = 3;

/// What is known of the marker bits of one stream. They count from the end of its first keyframe on, if that shows them to be right:
/// a camera that makes slices of a packet's size has pictures of one slice too.
#[derive(Debug, Default)]
pub struct Markers {
    ssrc: u32,
    last: Option<Last>,
    trust: Trust,
    /// Pictures whose marker bit was right; where it was wrong before, keyframes since then.
    right: u32,
    /// How often it turned out to be wrong.
    lapses: u32,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Trust {
    #[default]
    Unknown,
    Right,
    Wrong,
}

#[derive(Clone, Copy, Debug)]
struct Last {
    sequence: u16,
    timestamp: u32,
    marked: bool,
    part: Part,
}

/// What an access unit's packet holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// Only what stands before the slices of a picture: parameter sets, delimiters and the like.
    Front,
    KeyframeSlice,
    Other,
}

impl Markers {
    /// Takes the marker bit from a packet that is not shown to be the last of its access unit.
    pub fn correct(&mut self, codec: Codec, packet: &mut [u8]) {
        if self.misleads(codec, packet) {
            clear(packet);
        }
    }

    /// Whether the packet has a marker bit that must not count. One that comes out of order teaches nothing.
    pub fn misleads(&mut self, codec: Codec, packet: &[u8]) -> bool {
        let Some((payload, marked)) = payload(packet).zip(packet.get(1).map(|second| second & 0x80 != 0)) else {
            return false;
        };
        let word = |at: usize| u32::from_be_bytes([packet[at], packet[at + 1], packet[at + 2], packet[at + 3]]);
        let (sequence, timestamp, ssrc) = (word(0) as u16, word(4), word(8));
        if self.ssrc != ssrc {
            *self = Self { ssrc, ..Self::default() };
        }
        let part = part(codec, payload);
        if let Some(last) = self.last
            && last.sequence.wrapping_add(1) == sequence
            && last.marked
            && last.part != Part::Front
        {
            if last.timestamp != timestamp || payload.is_empty() {
                self.was_right(last.part);
            } else {
                self.was_wrong();
            }
        }
        self.last = Some(Last { sequence, timestamp, marked, part });
        marked && (part == Part::Front || self.trust != Trust::Right)
    }

    fn was_right(&mut self, part: Part) {
        let is_keyframe = part == Part::KeyframeSlice;
        match self.trust {
            Trust::Unknown => {
                self.right += 1;
                if is_keyframe || self.right >= PROOF {
                    self.trust = Trust::Right;
                }
            }
            Trust::Wrong if is_keyframe => {
                self.right += 1;
                if self.right >= RIGHT_AGAIN.saturating_mul(1 << (self.lapses - 1).min(20)) {
                    self.trust = Trust::Right;
                    tracing::info!("RTP marker bits were right for {} keyframes: used again", self.right);
                }
            }
            Trust::Wrong | Trust::Right => {}
        }
    }

    fn was_wrong(&mut self) {
        if self.trust != Trust::Wrong {
            self.trust = Trust::Wrong;
            self.lapses += 1;
            tracing::info!(
                "RTP marker bit before the end of a picture: marker bits ignored, one frame interval more delay"
            );
        }
        self.right = 0;
    }
}

/// Takes the marker bit from a packet of RTP.
pub fn clear(packet: &mut [u8]) {
    if let Some(second) = packet.get_mut(1) {
        *second &= 0x7f;
    }
}

/// The payload of an RTP packet (RFC 3550 section 5.1); none unless its header is whole.
fn payload(packet: &[u8]) -> Option<&[u8]> {
    let first = *packet.first()?;
    let mut at = 12 + 4 * usize::from(first & 0x0f);
    if first & 0x10 != 0 {
        let words = packet.get(at + 2..at + 4)?;
        at += 4 + 4 * usize::from(u16::from_be_bytes([words[0], words[1]]));
    }
    let padding = if first & 0x20 != 0 { usize::from(*packet.last()?) } else { 0 };
    packet.get(at..packet.len().checked_sub(padding)?)
}

fn part(codec: Codec, payload: &[u8]) -> Part {
    let header = codec.nal_header_len();
    match (codec, codec.nal_type(payload)) {
        // RFC 6184 section 5.7.1, RFC 7798 section 4.4.2: after the header, each NAL unit behind its length of 16 bits.
        (Codec::H264, 24) | (Codec::H265, 48) => {
            let (mut rest, mut whole) = (payload.get(header..).unwrap_or_default(), Part::Front);
            while let [high, low, after @ ..] = rest {
                let (nal, next) = after.split_at(after.len().min(usize::from(u16::from_be_bytes([*high, *low]))));
                if whole == Part::Front && !nal.is_empty() {
                    whole = of_type(codec, nal);
                }
                rest = next;
            }
            whole
        }
        // RFC 6184 section 5.8, RFC 7798 section 4.4.3: the type of the NAL unit that is in parts stands behind the header.
        (Codec::H264, 28) => payload.get(1).map_or(Part::Other, |fu| of_type(codec, &[fu & 0x1f])),
        (Codec::H265, 49) => payload.get(2).map_or(Part::Other, |fu| of_type(codec, &[(fu & 0x3f) << 1, 1])),
        _ => of_type(codec, payload),
    }
}

fn of_type(codec: Codec, nal: &[u8]) -> Part {
    // SEI and what is reserved beside it; of H.265 the SEI that goes before a picture alone.
    let front = match codec {
        Codec::H264 => 6..=9,
        Codec::H265 => 39..=39,
    };
    match codec.nal_kind(nal) {
        NalKind::KeyframeSlice => Part::KeyframeSlice,
        NalKind::Vps | NalKind::Sps | NalKind::Pps | NalKind::Delimiter => Part::Front,
        _ if front.contains(&codec.nal_type(nal)) => Part::Front,
        _ => Part::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPS: &[u8] = &[0x67, 0x42];
    const PPS: &[u8] = &[0x68, 0xce];
    const SEI: &[u8] = &[0x06, 0x05];
    const KEY: &[u8] = &[0x65, 0x88];
    const KEY_BEGINS: &[u8] = &[0x7c, 0x85];
    const KEY_ENDS: &[u8] = &[0x7c, 0x45];
    const SLICE: &[u8] = &[0x41, 0x9a];
    const SETS_TOGETHER: &[u8] = &[0x78, 0, 2, 0x67, 1, 0, 2, 0x68, 1];
    const ALL_TOGETHER: &[u8] = &[0x78, 0, 2, 0x67, 1, 0, 2, 0x68, 1, 0, 2, 0x65, 1];

    /// Which of the packets of these pictures, payload and marker, still have it.
    fn kept(codec: Codec, pictures: &[&[(&[u8], bool)]]) -> Vec<Vec<bool>> {
        let (mut markers, mut sequence) = (Markers::default(), u16::MAX - 1);
        let mut one = |timestamp: u32, payload: &[u8], marker| {
            sequence = sequence.wrapping_add(1);
            let mut packet = vec![0x80, 96 | u8::from(marker) << 7];
            packet.extend_from_slice(&sequence.to_be_bytes());
            packet.extend_from_slice(&timestamp.to_be_bytes());
            packet.extend_from_slice(&[0, 0, 0, 7]);
            packet.extend_from_slice(payload);
            markers.correct(codec, &mut packet);
            packet[1] & 0x80 != 0
        };
        let numbered = pictures.iter().zip(0_u32..);
        numbered
            .map(|(packets, n)| packets.iter().map(|(payload, marker)| one(n * 3600, payload, *marker)).collect())
            .collect()
    }

    #[test]
    fn right_ones_count_from_the_second_picture_on() {
        let key: &[_] = &[(SPS, false), (PPS, false), (KEY_BEGINS, false), (KEY_ENDS, true)];
        let slices: &[_] = &[(SLICE, false), (SLICE, true)];
        assert_eq!(
            kept(Codec::H264, &[key, slices, &[(SLICE, true)], key]),
            [vec![false; 4], vec![false, true], vec![true], vec![false, false, false, true]]
        );
    }

    #[test]
    fn on_every_nal_unit_or_slice_they_never_count() {
        let key: &[_] = &[(SPS, true), (PPS, true), (KEY, true), (KEY, true), (KEY, true), (KEY, true)];
        let slices: &[_] = &[(SLICE, true); 4];
        for pictures in
            [[key, slices, slices, key], [slices, slices, key, slices], [&[(SLICE, true)], key, slices, key]]
        {
            assert!(kept(Codec::H264, &pictures).iter().flatten().all(|kept| !kept), "{pictures:?}");
        }
    }

    #[test]
    fn on_parameter_sets_they_do_not_count_and_those_of_pictures_do() {
        let key: &[_] = &[(SPS, true), (PPS, true), (SEI, true), (KEY, true)];
        let slice: &[_] = &[(SLICE, true)];
        assert_eq!(
            kept(Codec::H264, &[key, slice, key, &[(SETS_TOGETHER, true), (KEY, true)], &[(ALL_TOGETHER, true)]]),
            [vec![false; 4], vec![true], vec![false, false, false, true], vec![false, true], vec![true]]
        );
    }

    #[test]
    fn one_slice_in_the_first_pictures_proves_nothing_until_a_keyframe_does() {
        let slice: &[_] = &[(SLICE, true)];
        let kept = kept(Codec::H264, &[slice, slice, slice, &[(KEY, true)], slice]);
        assert_eq!(kept, [[false], [false], [false], [false], [true]]);
        let without = vec![slice; 32];
        assert_eq!(self::kept(Codec::H264, &without).concat().iter().position(|kept| *kept), Some(30));
    }

    #[test]
    fn after_a_wrong_one_they_count_again_when_three_keyframes_in_a_row_were_right() {
        let (key, slice, wrong): (&[_], &[_], &[_]) = (&[(KEY, true)], &[(SLICE, true)], &[(SLICE, true); 2]);
        let pictures = [key, slice, wrong, slice, key, key, wrong, key, key, slice, key, slice, slice];
        let kept = kept(Codec::H264, &pictures);
        let counted: Vec<_> = kept.iter().map(|kept| kept[0]).collect();
        let [no, yes] = [false, true];
        assert_eq!(counted, [no, yes, yes, no, no, no, no, no, no, no, no, yes, yes]);
        assert!(!kept[2][1] && !kept[6][1], "{kept:?}");
    }

    #[test]
    fn a_camera_that_sets_them_wrongly_now_and_then_damages_ever_fewer_pictures() {
        let wrong: &[_] = &[(SLICE, true); 2];
        // An hour and a half, with a keyframe each second and a wrong one each ten.
        let pictures: Vec<&[_]> = (0..5_400 * 25)
            .map(|n| match n {
                n if n % 250 == 249 => wrong,
                n if n % 25 == 0 => &[(KEY, true)],
                _ => &[(SLICE, true)],
            })
            .collect();
        let kept = kept(Codec::H264, &pictures);
        let damaged: Vec<_> = (0..pictures.len()).filter(|n| pictures[*n].len() > 1 && kept[*n][0]).collect();
        assert_eq!(damaged, [249, 499, 749], "three, six and twelve keyframes: there are ten in between");
    }

    #[test]
    fn where_large_pictures_alone_have_several_slices_they_never_count() {
        let (key, slice): (&[_], &[_]) = (&[(KEY, true); 3], &[(SLICE, true)]);
        let pictures: Vec<_> = (0..5_000).map(|n| if n % 250 == 0 { key } else { slice }).collect();
        assert!(kept(Codec::H264, &pictures).iter().flatten().all(|kept| !kept));
    }

    #[test]
    fn h265_alike() {
        let (vps, sps, pps, sei): (&[u8], &[u8], &[u8], &[u8]) = (&[0x40, 1], &[0x42, 1], &[0x44, 1], &[0x4e, 1]);
        let (key, key_ends, slice, sei_behind): (&[u8], &[u8], &[u8], &[u8]) =
            (&[0x26, 1], &[0x62, 1, 0x53], &[0x02, 1], &[0x50, 1]);
        let first: &[_] = &[(vps, true), (sps, true), (pps, true), (sei, true), (key_ends, true)];
        assert_eq!(
            kept(Codec::H265, &[first, &[(slice, true)], &[(slice, false), (sei_behind, true)]]),
            [vec![false; 5], vec![true], vec![false, true]]
        );
        assert_eq!(kept(Codec::H265, &[&[(key, true); 2], &[(slice, true); 2]]), [[false; 2], [false; 2]]);
    }

    #[test]
    fn another_source_is_looked_at_anew_and_what_is_no_rtp_is_left_alone() {
        let mut markers = Markers::default();
        let mut packet = |sequence: u8, timestamp: u8, ssrc: u8| {
            let packet = [0x80, 0xe0, 0, sequence, 0, 0, 0, timestamp, 0, 0, 0, ssrc, 0x65, 0x88];
            markers.misleads(Codec::H264, &packet)
        };
        assert_eq!([packet(1, 0, 7), packet(2, 1, 7), packet(3, 2, 7)], [true, false, false]);
        assert_eq!([packet(4, 3, 8), packet(6, 4, 8), packet(7, 5, 8)], [true, true, false], "a gap teaches nothing");
        for packet in [&[][..], &[0x80], &[0x80, 0xe0, 0], &[0xb0, 0xe0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]] {
            assert!(!markers.misleads(Codec::H264, packet), "{packet:?}");
        }
    }
}
