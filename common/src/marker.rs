//! Where the access units of H.264, H.265 and MJPEG end in RTP: with the last packet of one time stamp. The marker bit
//! says the same at once (RFC 6184 section 5.1, RFC 7798 section 4.1), where the next packet would say it a frame
//! interval later; but some cameras set it on every NAL unit or every slice. Pure.

use crate::codec::{Codec, NalKind, jpeg};
use crate::rtp::Header;

/// So many pictures without a keyframe that show the marker bits to be right are enough as well.
const PROOF: u32 = 30;
/// Where they were wrong, so many keyframes in a row have to show them to be right. Doubled each time that was too few,
/// so that a camera that sets them wrongly now and then damages ever fewer pictures. Keyframes alone: small pictures
/// have one slice more often.
const RIGHT_AGAIN: u32 = 3;

/// What is known of the marker bits of one stream. They count from the end of its first keyframe on, if that shows them
/// to be right: a camera that makes slices of a packet's size has pictures of one slice too.
///
/// Until they count, a packet of type `P` that has one waits for the next, which shows whether it is the last of its
/// access unit. Its marker bit is not simply cleared: GStreamer's depayloaders would take the picture for one with the
/// next, whose marker bit counts.
#[derive(Debug)]
pub struct Markers<P> {
    ssrc: u32,
    last: Option<Packet>,
    trust: Trust,
    /// Pictures whose marker bit was right; where it was wrong before, keyframes since then.
    right: u32,
    /// How often it turned out to be wrong.
    lapses: u32,
    waiting: Option<(Packet, P)>,
}

impl<P> Default for Markers<P> {
    fn default() -> Self {
        Self { ssrc: 0, last: None, trust: Trust::default(), right: 0, lapses: 0, waiting: None }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Trust {
    #[default]
    Unknown,
    Right,
    Wrong,
}

/// What counts of a packet.
#[derive(Clone, Copy, Debug)]
pub struct Packet {
    sequence: u16,
    timestamp: u32,
    ssrc: u32,
    marked: bool,
    /// None: padding alone.
    part: Option<Part>,
}

/// What an access unit's packet holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// Only what stands before the slices of a picture: parameter sets, delimiters and the like.
    Front,
    KeyframeSlice,
    Other,
}

impl Packet {
    /// None unless `packet` is one of RTP.
    pub fn parse(codec: Codec, packet: &[u8]) -> Option<Self> {
        let (header, payload) = Header::parse_whole(packet)?;
        Some(Self::of(codec, &header, &packet[payload]))
    }

    pub fn of(codec: Codec, header: &Header, payload: &[u8]) -> Self {
        Self {
            sequence: header.sequence,
            timestamp: header.timestamp,
            ssrc: header.ssrc,
            marked: header.marker,
            part: (!payload.is_empty()).then(|| match codec {
                Codec::H264 | Codec::H265 => part(codec, payload),
                Codec::Mjpeg => part_of_jpeg(payload, header.marker),
            }),
        }
    }

    /// Where packets are missing between this one and the next that came: whether the picture of the next is damaged by
    /// that too.
    pub fn is_gap_before(&self, next: &Self) -> Option<bool> {
        let ahead = next.sequence.wrapping_sub(self.sequence);
        // Not where another source begins, or the same one again.
        let is_gap = self.ssrc == next.ssrc && (2..0x8000).contains(&ahead);
        let begins = next.timestamp != self.timestamp && next.part == Some(Part::Front);
        is_gap.then_some(!begins)
    }

    /// Both have one time stamp.
    pub fn is_of_the_picture_of(&self, other: &Self) -> bool {
        self.ssrc == other.ssrc && self.timestamp == other.timestamp
    }

    fn is_behind(&self, other: &Self) -> bool {
        self.sequence.wrapping_sub(other.sequence).cast_signed() > 0
    }
}

impl<P> Markers<P> {
    /// Takes the next packet, and gives those that go on now, with whether the marker bit has to be taken from them
    /// (`clear`).
    pub fn pass(&mut self, header: Option<Packet>, packet: P) -> impl Iterator<Item = (P, bool)> + use<P> {
        let passed = match header {
            Some(header) => self.judge(header, packet),
            None => [None, Some((packet, false))],
        };
        passed.into_iter().flatten()
    }

    fn judge(&mut self, header: Packet, packet: P) -> [Option<(P, bool)>; 2] {
        let mut released = None;
        if self.ssrc != header.ssrc {
            released = self.waiting.take().map(|(_, waiting)| (waiting, false));
            *self = Self { ssrc: header.ssrc, ..Self::default() };
        }
        self.learn(&header);
        let Some(part) = header.part else { return [released, Some((packet, false))] };
        if let Some((before, waiting)) = self.waiting.take_if(|(before, _)| header.is_behind(before)) {
            released = Some((waiting, before.timestamp == header.timestamp));
        }
        let passed = match part {
            _ if !header.marked => Some((packet, false)),
            Part::Front => Some((packet, true)),
            _ if self.trust == Trust::Right => Some((packet, false)),
            // It is late: one that was sent after it waits.
            _ if self.waiting.is_some() => Some((packet, true)),
            _ => {
                self.waiting = Some((header, packet));
                None
            }
        };
        [released, passed]
    }

    /// One that comes out of order teaches nothing.
    fn learn(&mut self, header: &Packet) {
        if let Some(last) = self.last.replace(*header)
            && last.sequence.wrapping_add(1) == header.sequence
            && last.marked
            && let Some(part) = last.part.filter(|part| *part != Part::Front)
        {
            if last.timestamp != header.timestamp || header.part.is_none() {
                self.was_right(part);
            } else {
                self.was_wrong();
            }
        }
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
        // RFC 6184 section 5.8, RFC 7798 section 4.4.3: the type of the NAL unit that is in parts stands behind the
        // header.
        (Codec::H264, 28) => payload.get(1).map_or(Part::Other, |fu| of_type(codec, &[fu & 0x1f])),
        (Codec::H265, 49) => payload.get(2).map_or(Part::Other, |fu| of_type(codec, &[(fu & 0x3f) << 1, 1])),
        _ => of_type(codec, payload),
    }
}

/// The first fragment has the quantization tables (RFC 2435 section 3.1), and may be the last as well.
fn part_of_jpeg(payload: &[u8], is_last: bool) -> Part {
    let begins = jpeg::begins_picture(payload);
    if begins && !is_last { Part::Front } else { Part::KeyframeSlice }
}

fn of_type(codec: Codec, nal: &[u8]) -> Part {
    // SEI and what is reserved beside it; of H.265 the SEI that goes before a picture alone.
    let front = match codec {
        Codec::H264 => 6..=9,
        Codec::H265 => 39..=39,
        Codec::Mjpeg => 0..=0,
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

    #[test]
    fn a_gap_damages_what_does_not_visibly_begin_behind_it() {
        let packet =
            |sequence, timestamp, part| Packet { sequence, timestamp, ssrc: 1, marked: true, part: Some(part) };
        let last = packet(65_535, 0, Part::Other);
        assert_eq!(last.is_gap_before(&packet(0, 1, Part::Other)), None);
        assert_eq!(last.is_gap_before(&packet(65_535, 0, Part::Other)), None);
        assert_eq!(last.is_gap_before(&packet(65_000, 0, Part::Other)), None);
        assert_eq!(last.is_gap_before(&Packet { ssrc: 2, ..packet(7, 1, Part::Other) }), None);
        assert_eq!(last.is_gap_before(&packet(1, 1, Part::KeyframeSlice)), Some(true));
        assert_eq!(last.is_gap_before(&packet(1, 0, Part::Front)), Some(true));
        assert_eq!(last.is_gap_before(&packet(1, 1, Part::Front)), Some(false));
    }

    const SPS: &[u8] = &[0x67, 0x42];
    const PPS: &[u8] = &[0x68, 0xce];
    const SEI: &[u8] = &[0x06, 0x05];
    const KEY: &[u8] = &[0x65, 0x88];
    const KEY_BEGINS: &[u8] = &[0x7c, 0x85];
    const KEY_ENDS: &[u8] = &[0x7c, 0x45];
    const SLICE: &[u8] = &[0x41, 0x9a];
    const SETS_TOGETHER: &[u8] = &[0x78, 0, 2, 0x67, 1, 0, 2, 0x68, 1];
    const ALL_TOGETHER: &[u8] = &[0x78, 0, 2, 0x67, 1, 0, 2, 0x68, 1, 0, 2, 0x65, 1];

    type Payloads<'a> = &'a [(&'a [u8], bool)];

    /// Passes on packets of one source, given by sequence number, timestamp, payload and marker, and says what became
    /// of each marker bit: `m` kept at once, `w` kept after it waited, `.` none, `?` still waiting.
    fn fates(codec: Codec, packets: &[(u16, u32, &[u8], bool)]) -> String {
        let (mut markers, mut fates) = (Markers::default(), vec!['?'; packets.len()]);
        for (at, (sequence, timestamp, payload, marker)) in packets.iter().enumerate() {
            let mut packet = vec![0x80, 96 | u8::from(*marker) << 7];
            packet.extend_from_slice(&sequence.to_be_bytes());
            packet.extend_from_slice(&timestamp.to_be_bytes());
            packet.extend_from_slice(&[0, 0, 0, 7]);
            packet.extend_from_slice(payload);
            for (which, is_cleared) in markers.pass(Packet::parse(codec, &packet), at) {
                let (marked, at_once) = (packets[which].3 && !is_cleared, which == at);
                fates[which] = if !marked {
                    '.'
                } else if at_once {
                    'm'
                } else {
                    'w'
                };
            }
        }
        fates.into_iter().collect()
    }

    /// What becomes of the marker bits of these pictures, one after the other.
    fn of_pictures(codec: Codec, pictures: &[Payloads<'_>]) -> Vec<String> {
        let payloads =
            pictures.iter().zip(0_u32..).flat_map(|(packets, n)| packets.iter().map(move |packet| (n, packet)));
        let packets: Vec<_> = payloads
            .zip((0..=u16::MAX).cycle().skip(65_534))
            .map(|((n, (payload, marker)), sequence)| (sequence, n * 3600, *payload, *marker))
            .collect();
        let (all, mut at) = (fates(codec, &packets), 0);
        let mut next = |length: usize| {
            at += length;
            all[at - length..at].to_owned()
        };
        pictures.iter().map(|packets| next(packets.len())).collect()
    }

    #[test]
    fn those_of_mjpeg_count_from_the_second_picture_on() {
        let fragment = |offset: u8| [0, 0, 0, offset, 1, 255, 80, 60, 9];
        let (begins, ends) = (fragment(0), fragment(9));
        let picture: &[(&[u8], bool)] = &[(&begins, false), (&ends, true)];
        assert_eq!(
            of_pictures(Codec::Mjpeg, &[picture, picture, &[(&begins, true)], picture]),
            [".w", ".m", "m", ".m"]
        );
        let parse = |sequence: u8, timestamp: u8, payload: &[u8]| {
            let header = [0x80, 26, 0, sequence, 0, 0, 0, timestamp, 0, 0, 0, 7];
            Packet::parse(Codec::Mjpeg, &[&header, payload].concat()).expect("RTP")
        };
        let before = parse(1, 0, &begins);
        assert_eq!(
            before.is_gap_before(&parse(3, 90, &begins)),
            Some(false),
            "its end is missing, and nothing behind it"
        );
        assert_eq!(before.is_gap_before(&parse(3, 90, &ends)), Some(true));
    }

    #[test]
    fn right_ones_count_from_the_second_picture_on() {
        let key: &[_] = &[(SPS, false), (PPS, false), (KEY_BEGINS, false), (KEY_ENDS, true)];
        let slices: &[_] = &[(SLICE, false), (SLICE, true)];
        let fates = of_pictures(Codec::H264, &[key, slices, &[(SLICE, true)], key]);
        assert_eq!(fates, ["...w", ".m", "m", "...m"]);
    }

    #[test]
    fn on_every_nal_unit_or_slice_the_last_one_of_a_picture_counts_when_the_next_begins() {
        let key: &[_] = &[(SPS, true), (PPS, true), (KEY, true), (KEY, true), (KEY, true), (KEY, true)];
        let (slices, one): (&[_], &[_]) = (&[(SLICE, true); 4], &[(SLICE, true)]);
        assert_eq!(of_pictures(Codec::H264, &[key, slices, slices, key]), [".....w", "...w", "...w", ".....?"]);
        assert_eq!(of_pictures(Codec::H264, &[slices, slices, key, slices]), ["...w", "...w", ".....w", "...?"]);
        assert_eq!(of_pictures(Codec::H264, &[one, key, slices, key]), ["w", ".....w", "...w", ".....?"]);
    }

    #[test]
    fn on_parameter_sets_they_do_not_count_and_those_of_pictures_do() {
        let key: &[_] = &[(SPS, true), (PPS, true), (SEI, true), (KEY, true)];
        let pictures = [key, &[(SLICE, true)], key, &[(SETS_TOGETHER, true), (KEY, true)], &[(ALL_TOGETHER, true)]];
        assert_eq!(of_pictures(Codec::H264, &pictures), ["...w", "m", "...m", ".m", "m"]);
    }

    #[test]
    fn one_slice_in_the_first_pictures_proves_nothing_until_a_keyframe_does() {
        let slice: &[_] = &[(SLICE, true)];
        let fates = of_pictures(Codec::H264, &[slice, slice, slice, &[(KEY, true)], slice]);
        assert_eq!(fates, ["w", "w", "w", "w", "m"]);
        let without = of_pictures(Codec::H264, &[slice; 32]);
        assert_eq!(without.iter().position(|fate| fate == "m"), Some(30));
    }

    #[test]
    fn after_a_wrong_one_they_count_again_when_three_keyframes_in_a_row_were_right() {
        let (key, slice, wrong): (&[_], &[_], &[_]) = (&[(KEY, true)], &[(SLICE, true)], &[(SLICE, true); 2]);
        let pictures = [key, slice, wrong, slice, key, key, wrong, key, key, slice, key, slice, slice];
        let fates = of_pictures(Codec::H264, &pictures);
        assert_eq!(fates, ["w", "m", "mw", "w", "w", "w", ".w", "w", "w", "w", "w", "m", "m"]);
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
        let fates = of_pictures(Codec::H264, &pictures);
        let damaged: Vec<_> = (0..fates.len()).filter(|n| fates[*n] == "mw").collect();
        assert_eq!(damaged, [249, 499, 749], "three, six and twelve keyframes: there are ten in between");
    }

    #[test]
    fn where_large_pictures_alone_have_several_slices_they_never_count() {
        let (key, slice): (&[_], &[_]) = (&[(KEY, true); 3], &[(SLICE, true)]);
        let pictures: Vec<_> = (0..5_000).map(|n| if n % 250 == 0 { key } else { slice }).collect();
        assert!(of_pictures(Codec::H264, &pictures).iter().all(|fate| !fate.contains('m')));
    }

    #[test]
    fn h265_alike() {
        let (vps, sps, pps, sei): (&[u8], &[u8], &[u8], &[u8]) = (&[0x40, 1], &[0x42, 1], &[0x44, 1], &[0x4e, 1]);
        let (key, key_ends, slice, sei_behind): (&[u8], &[u8], &[u8], &[u8]) =
            (&[0x26, 1], &[0x62, 1, 0x53], &[0x02, 1], &[0x50, 1]);
        let first: &[_] = &[(vps, true), (sps, true), (pps, true), (sei, true), (key_ends, true)];
        let fates = of_pictures(Codec::H265, &[first, &[(slice, true)], &[(slice, false), (sei_behind, true)]]);
        assert_eq!(fates, ["....w", "m", ".m"]);
        assert_eq!(of_pictures(Codec::H265, &[&[(key, true); 2], &[(slice, true); 2]]), [".w", ".?"]);
    }

    #[test]
    fn one_that_waits_is_judged_by_what_was_sent_behind_it() {
        let of = |packets: &[_]| fates(Codec::H264, packets);
        assert_eq!(of(&[(5, 1, KEY, true), (4, 1, KEY, false), (6, 2, SLICE, false)]), "w..", "out of order");
        assert_eq!(of(&[(5, 1, KEY, true), (4, 1, KEY, true), (6, 2, SLICE, false)]), "w..", "and marked");
        assert_eq!(of(&[(5, 1, KEY, true), (7, 1, KEY, false)]), "..", "a gap");
        assert_eq!(of(&[(5, 1, KEY, true), (9, 2, SLICE, false)]), "w.", "the rest of the picture is lost");
        assert_eq!(of(&[(5, 1, KEY, true), (6, 1, &[], false), (7, 2, SLICE, true)]), "w.m", "padding");
    }

    #[test]
    fn another_source_is_looked_at_anew_and_what_is_no_rtp_passes() {
        let mut markers = Markers::default();
        let mut pass = |sequence: u8, timestamp: u8, ssrc: u8| {
            let packet = [0x80, 0xe0, 0, sequence, 0, 0, 0, timestamp, 0, 0, 0, ssrc, 0x65, 0x88];
            markers.pass(Packet::parse(Codec::H264, &packet), sequence).collect::<Vec<_>>()
        };
        assert_eq!([pass(1, 0, 7), pass(2, 1, 7)], [vec![], vec![(1, false), (2, false)]]);
        assert_eq!([pass(4, 3, 8), pass(6, 4, 8)], [vec![], vec![(4, false)]], "a gap teaches nothing");
        assert_eq!(pass(1, 3, 9), [(6, false)], "what waits of the source before was its last");
        for packet in [&[][..], &[0x80], &[0x80, 0xe0, 0], &[0xb0, 0xe0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]] {
            assert!(Packet::parse(Codec::H264, packet).is_none(), "{packet:?}");
            assert_eq!(Markers::default().pass(None, 5).collect::<Vec<_>>(), [(5, false)]);
        }
    }
}
