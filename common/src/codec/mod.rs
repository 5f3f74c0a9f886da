//! H.264 and H.265 byte streams (Annex B of ITU-T H.264 and of ITU-T H.265, which is the same): finding NAL units,
//! keyframes and slice types. Of MJPEG each access unit is a JPEG picture, and a keyframe.
//!
//! The SPS parsers are in [`sps`], with the rewrite for H.264, and in [`sps_h265`]; the parameter sets of a stream in
//! [`parameter_sets`]. Nothing here decodes pictures.

mod bits;
pub mod jpeg;
pub mod parameter_sets;
#[cfg(test)]
mod properties;
pub mod sps;
pub mod sps_h265;

use std::fmt;
use std::str::FromStr;

use bytes::Bytes;
use memchr::memmem;
use serde::{Deserialize, Serialize};

pub use parameter_sets::{ParameterSetCache, ParameterSets, with_parameter_sets};
pub use sps::{SpsError, SpsInfo, parse_sps, rewrite_sps_zero_reorder};
pub use sps_h265::{H265SpsInfo, parse_h265_sps};

/// The start code that this project writes. The form of four bytes is required before parameter sets and at the start
/// of an access unit (ITU-T H.264 B.1.2).
pub const START_CODE: [u8; 4] = [0, 0, 0, 1];

/// What both forms of a start code end with.
const SHORT_START_CODE: &[u8] = &[0, 0, 1];

/// A video codec of the encoded stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Codec {
    H264,
    H265,
    Mjpeg,
}

impl Codec {
    pub const ALL: [Self; 3] = [Codec::H264, Codec::H265, Codec::Mjpeg];

    /// The name on the command line, in configuration files, in the API and in announcements.
    pub const fn name(self) -> &'static str {
        match self {
            Codec::H264 => "h264",
            Codec::H265 => "h265",
            Codec::Mjpeg => "mjpeg",
        }
    }

    /// Those that it is not.
    pub fn others(self) -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(move |codec| *codec != self)
    }

    /// The encoding name of its RTP payload format, in SDP and in GStreamer's caps (RFC 6184, RFC 7798, RFC 2435).
    pub const fn rtp_name(self) -> &'static str {
        match self {
            Codec::H264 => "H264",
            Codec::H265 => "H265",
            Codec::Mjpeg => "JPEG",
        }
    }

    /// Its RTP payload type: of the dynamic range, but for JPEG, which has one of its own (RFC 3551 section 6).
    pub const fn payload_type(self) -> u8 {
        match self {
            Codec::H264 | Codec::H265 => 96,
            Codec::Mjpeg => 26,
        }
    }

    /// Whether a receiver needs parameter sets; the pictures of MJPEG say all by themselves.
    pub const fn has_parameter_sets(self) -> bool {
        match self {
            Codec::H264 | Codec::H265 => true,
            Codec::Mjpeg => false,
        }
    }

    /// The name of its elementary stream in GStreamer's caps.
    pub const fn media_type(self) -> &'static str {
        match self {
            Codec::H264 => "video/x-h264",
            Codec::H265 => "video/x-h265",
            Codec::Mjpeg => "image/jpeg",
        }
    }

    /// The name for people.
    pub const fn title(self) -> &'static str {
        match self {
            Codec::H264 => "H.264",
            Codec::H265 => "H.265",
            Codec::Mjpeg => "MJPEG",
        }
    }

    /// Bytes of a NAL unit's header, of which MJPEG has none.
    pub const fn nal_header_len(self) -> usize {
        match self {
            Codec::H264 => 1,
            Codec::H265 => 2,
            Codec::Mjpeg => 0,
        }
    }

    /// The type of a NAL unit (ITU-T H.264 table 7-1, ITU-T H.265 table 7-1), 0 for an empty one.
    pub fn nal_type(self, nal: &[u8]) -> u8 {
        nal.first().map_or(0, |header| match self {
            Codec::H264 => header & 0x1f,
            Codec::H265 => header >> 1 & 0x3f,
            Codec::Mjpeg => 0,
        })
    }

    /// What a NAL unit is.
    pub fn nal_kind(self, nal: &[u8]) -> NalKind {
        match (self, self.nal_type(nal)) {
            _ if nal.is_empty() => NalKind::Other,
            (Codec::H264, 5) => NalKind::KeyframeSlice,
            // Those of data partitions too.
            (Codec::H264, 1..=4) => NalKind::Slice,
            (Codec::H264, 7) => NalKind::Sps,
            (Codec::H264, 8) => NalKind::Pps,
            (Codec::H264, 9) => NalKind::Delimiter,
            // Intra random access pictures: BLA, IDR and CRA.
            (Codec::H265, 16..=21) => NalKind::KeyframeSlice,
            (Codec::H265, 0..=31) => NalKind::Slice,
            (Codec::H265, 32) => NalKind::Vps,
            (Codec::H265, 33) => NalKind::Sps,
            (Codec::H265, 34) => NalKind::Pps,
            (Codec::H265, 35) => NalKind::Delimiter,
            _ => NalKind::Other,
        }
    }
}

/// What a NAL unit is, as far as this project looks at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NalKind {
    /// Of a picture at which decoding can start.
    KeyframeSlice,
    /// Of any other picture.
    Slice,
    /// Video parameter set, in H.265 alone.
    Vps,
    /// Sequence parameter set.
    Sps,
    /// Picture parameter set.
    Pps,
    /// Access unit delimiter.
    Delimiter,
    Other,
}

impl NalKind {
    pub const fn is_slice(self) -> bool {
        matches!(self, Self::KeyframeSlice | Self::Slice)
    }
}

impl FromStr for Codec {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let found = Codec::ALL.into_iter().find(|codec| codec.name() == name);
        found.ok_or_else(|| format!("{name:?} is no codec: give h264, h265 or mjpeg"))
    }
}

impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How the macroblocks of a slice are predicted (ITU-T H.264 table 7-6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SliceType {
    P,
    B,
    I,
    SP,
    SI,
}

/// The NAL units of an Annex B byte stream, without start codes and without the zero bytes that may follow a NAL unit.
///
/// What stands before the first start code is not a NAL unit and is left out; empty NAL units are left out too.
pub fn nal_units(data: &[u8]) -> impl Iterator<Item = &[u8]> {
    spans(data).map(|(start, end)| &data[start..end])
}

/// Whether decoding can start at the access unit: an IDR picture of H.264, an intra random access picture of H.265,
/// each picture of MJPEG. Looks no further than the header of the first slice.
pub fn is_keyframe(codec: Codec, au: &[u8]) -> bool {
    if codec == Codec::Mjpeg {
        return au.starts_with(&jpeg::SOI);
    }
    // The slices of one picture are all of this kind or none of them is (ITU-T H.264 7.4.1.2.4, ITU-T H.265 7.4.2.2),
    // so that the first one answers the question without a scan over what may be a megabyte of slice data.
    first_slice(codec, au).is_some_and(|at| codec.nal_kind(&au[at..]) == NalKind::KeyframeSlice)
}

/// The access units that begin in a byte stream, which may begin and end anywhere: where each begins, with its start
/// code, and whether it is a keyframe. One whose first slice has not come yet is left out.
pub fn access_units(codec: Codec, data: &[u8]) -> impl Iterator<Item = (usize, bool)> {
    let mut begun = None;
    nal_headers(data).filter_map(move |at| {
        let nal = &data[at..];
        let kind = codec.nal_kind(nal);
        let start = at - SHORT_START_CODE.len() - usize::from(data[..at - SHORT_START_CODE.len()].ends_with(&[0]));
        if kind.is_slice() {
            // `first_mb_in_slice` is 0, or `first_slice_segment_in_pic_flag` is set: either is a bit that is one.
            let is_first = nal.get(codec.nal_header_len()).is_some_and(|byte| byte & 0x80 != 0);
            let start = begun.take().unwrap_or(start);
            return is_first.then_some((start, kind == NalKind::KeyframeSlice));
        }
        // What may stand before the first slice (ITU-T H.264 7.4.1.2.3, ITU-T H.265 7.4.2.4.4).
        let kind = (codec, codec.nal_type(nal));
        if matches!(kind, (Codec::H264, 6..=9 | 14..=18) | (Codec::H265, 32..=35 | 39 | 41..=44)) {
            begun.get_or_insert(start);
        }
        None
    })
}

/// Whether an access unit has an SEI message "recovery point" (type 6 in both codecs): decoding may begin there,
/// although it is no keyframe, where the decoder can do that.
pub fn is_recovery_point(codec: Codec, au: &[u8]) -> bool {
    let (sei, header) = match codec {
        Codec::H264 => (6, 1),
        Codec::H265 => (39, 2),
        Codec::Mjpeg => return false,
    };
    let head = &au[..first_slice(codec, au).unwrap_or(au.len())];
    nal_units(head).filter(|nal| codec.nal_type(nal) == sei && nal.len() > header).any(|nal| {
        let messages = bits::unescape(&nal[header..]);
        sei_types(&messages).any(|kind| kind == 6)
    })
}

/// The types of the messages of an SEI NAL unit (ITU-T H.264 7.3.2.3.1).
fn sei_types(mut messages: &[u8]) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let mut number = || {
            let full = messages.iter().take_while(|byte| **byte == 0xff).count();
            let last = *messages.get(full)?;
            messages = &messages[full + 1..];
            Some(full * 255 + usize::from(last))
        };
        let (kind, size) = (number()?, number()?);
        messages = messages.get(size..)?;
        Some(kind)
    })
}

/// The type of an H.264 slice, from the header of a NAL unit of type 1 or 5; `None` for other NAL units and damaged
/// headers.
///
/// There is none for H.265, whose slices of type B need not refer to what is shown later: its SPS says whether any
/// does.
pub fn slice_type(nal: &[u8]) -> Option<SliceType> {
    if !matches!(Codec::H264.nal_type(nal), 1 | 5) {
        return None;
    }
    // `first_mb_in_slice` takes 31 bits at most in the largest picture that a level permits, `slice_type` takes 7.
    let header = bits::unescape(&nal[1..nal.len().min(16)]);
    let mut reader = bits::BitReader::over_prefix(&header);
    let _first_mb_in_slice = reader.ue().ok()?;
    match reader.ue().ok()? {
        0 | 5 => Some(SliceType::P),
        1 | 6 => Some(SliceType::B),
        2 | 7 => Some(SliceType::I),
        3 | 8 => Some(SliceType::SP),
        4 | 9 => Some(SliceType::SI),
        _ => None,
    }
}

/// Applies [`rewrite_sps_zero_reorder`] to each SPS of an access unit of H.264.
///
/// Returns the input itself, not a copy, when no SPS stands before the first slice or each is already as wanted. An SPS
/// that cannot be parsed stays as it is. The caller must not use it on a stream with B-frames: their pictures would
/// come out in the wrong order.
pub fn rewrite_access_unit(au: Bytes) -> Bytes {
    let mut out: Vec<u8> = Vec::new();
    let mut copied = 0;
    for (start, end) in spans_before_slices(Codec::H264, &au) {
        let nal = &au[start..end];
        if Codec::H264.nal_kind(nal) != NalKind::Sps {
            continue;
        }
        let Ok(rewritten) = rewrite_sps_zero_reorder(nal) else { continue };
        if rewritten == nal {
            continue;
        }
        // Eight bytes are more than a restriction adds where a VUI exists; the vector grows by itself in the other
        // cases.
        out.reserve(au.len() - copied + 8);
        out.extend_from_slice(&au[copied..start]);
        out.extend_from_slice(&rewritten);
        copied = end;
    }
    if copied == 0 {
        return au;
    }
    out.extend_from_slice(&au[copied..]);
    out.into()
}

/// The offset of each NAL unit's header byte; reads on only as far as it is asked for.
fn nal_headers(data: &[u8]) -> impl Iterator<Item = usize> {
    memmem::find_iter(data, SHORT_START_CODE).map(|at| at + SHORT_START_CODE.len()).filter(|&at| at < data.len())
}

/// The offset of the first slice's header.
fn first_slice(codec: Codec, data: &[u8]) -> Option<usize> {
    nal_headers(data).find(|&at| codec.nal_kind(&data[at..]).is_slice())
}

/// Start and end of each NAL unit that is not empty.
fn spans(data: &[u8]) -> impl Iterator<Item = (usize, usize)> {
    let mut starts = memmem::find_iter(data, SHORT_START_CODE);
    let mut next = starts.next();
    std::iter::from_fn(move || {
        let start = next? + SHORT_START_CODE.len();
        next = starts.next();
        // A NAL unit never ends in a zero byte (ITU-T H.264 7.4.1), so that zeros here are padding or belong to a long
        // start code.
        let padded = &data[start..next.unwrap_or(data.len())];
        let zeros = padded.iter().rev().take_while(|&&byte| byte == 0).count();
        Some((start, start + padded.len() - zeros))
    })
    .filter(|(start, end)| start < end)
}

/// The spans of what precedes the first slice. Slice data is not scanned.
fn spans_before_slices(codec: Codec, data: &[u8]) -> impl Iterator<Item = (usize, usize)> {
    spans(&data[..first_slice(codec, data).map_or(data.len(), |at| at - SHORT_START_CODE.len())])
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPS_NAL: &[u8] = &[0x67, 0x42, 0xc0, 0x28];

    fn join(nals: &[&[u8]]) -> Vec<u8> {
        nals.iter().flat_map(|nal| START_CODE.iter().chain(nal.iter()).copied()).collect()
    }

    #[test]
    fn nal_units_are_found_behind_short_and_long_start_codes() {
        let data = [&[0, 0, 0, 1, 9, 0xf0, 0, 0, 1, 0x67, 1, 2][..], &[0, 0, 0, 1, 0x65, 0x88, 0, 0, 3, 1]].concat();
        let found: Vec<_> = nal_units(&data).collect();
        assert_eq!(found, [&[9, 0xf0][..], &[0x67, 1, 2], &[0x65, 0x88, 0, 0, 3, 1]]);
    }

    #[test]
    fn trailing_zeros_and_leading_garbage_are_not_part_of_a_nal_unit() {
        let data = [7, 7, 0, 0, 0, 1, 0x68, 0xce, 0, 0, 0, 0, 0, 1, 0x65, 0x80, 0, 0, 0];
        assert_eq!(nal_units(&data).collect::<Vec<_>>(), [&[0x68, 0xce][..], &[0x65, 0x80]]);
    }

    #[test]
    fn data_without_a_nal_unit_gives_none() {
        for data in [&[][..], &[0], &[0, 0, 1], &[0, 0, 1, 0, 0, 1], &[1, 2, 3, 4], &[0; 64]] {
            assert_eq!(nal_units(data).count(), 0, "{data:?}");
            assert!(!is_keyframe(Codec::H264, data) && !is_keyframe(Codec::H265, data));
        }
    }

    #[test]
    fn a_keyframe_is_told_by_its_first_slice() {
        let is_keyframe = |nals: &[&[u8]]| is_keyframe(Codec::H264, &join(nals));
        assert!(is_keyframe(&[&[9, 0xf0], SPS_NAL, &[0x68, 1], &[0x65, 0x88]]));
        assert!(!is_keyframe(&[SPS_NAL, &[0x68, 1], &[0x41, 0x9a]]));
        assert!(!is_keyframe(&[&[0x41, 0x9a], &[0x65, 0x88]]), "looked behind the first slice");
        assert!(!is_keyframe(&[SPS_NAL]));
    }

    #[test]
    fn access_units_begin_with_what_stands_before_their_first_slice() {
        let keyframe = join(&[&[9, 0xf0], SPS_NAL, &[0x68, 1], &[0x65, 0x88], &[0x65, 0x08]]);
        let other = join(&[&[0x06, 5], &[0x41, 0x9a], &[0x41, 0x1a], &[12, 0xff]]);
        let stream = [&[0x77, 0, 0][..], &other, &keyframe, &other, &other, &join(&[SPS_NAL])].concat();
        let first = 3;
        let expected = [
            (0, false),
            (other.len(), true),
            (other.len() + keyframe.len(), false),
            (2 * other.len() + keyframe.len(), false),
        ];
        let expected: Vec<_> = expected.iter().map(|(at, is_keyframe)| (at + first, *is_keyframe)).collect();
        assert_eq!(access_units(Codec::H264, &stream).collect::<Vec<_>>(), expected);
        // From the middle of a picture of two slices.
        assert_eq!(access_units(Codec::H264, &join(&[&[0x41, 0x1a], &[0x41, 0x9a]])).collect::<Vec<_>>(), [(6, false)]);
        let h265 = [&parameter_sets::tests::x265_keyframe()[..], &[0, 0, 1, 0x02, 0x01, 0xd0, 0x09]].concat();
        assert_eq!(access_units(Codec::H265, &h265).collect::<Vec<_>>(), [(0, true), (h265.len() - 7, false)]);
    }

    #[test]
    fn every_random_access_picture_of_h265_is_a_keyframe() {
        for kind in 0..64_u8 {
            let nal = [kind << 1, 1, 0x80];
            assert_eq!(Codec::H265.nal_type(&nal), kind);
            assert_eq!(is_keyframe(Codec::H265, &join(&[&[0x46, 1, 0x50], &nal])), (16..=21).contains(&kind), "{kind}");
        }
    }

    #[test]
    fn what_x265_writes_is_told_apart() {
        let (keyframe, other) = (parameter_sets::tests::x265_keyframe(), [0, 0, 1, 0x02, 0x01, 0xd0, 0x09]);
        let kinds: Vec<_> = nal_units(&keyframe).map(|nal| Codec::H265.nal_kind(nal)).collect();
        assert_eq!(kinds, [NalKind::Vps, NalKind::Sps, NalKind::Pps, NalKind::KeyframeSlice]);
        assert!(is_keyframe(Codec::H265, &keyframe));
        assert!(!is_keyframe(Codec::H265, &other));
    }

    #[test]
    fn slice_types_are_read_from_the_slice_header() {
        // ue(0) is '1'; ue(5) is '00110', ue(6) '00111', ue(7) '0001000', ue(0) '1', ue(1) '010', ue(2) '011'.
        assert_eq!(slice_type(&[0x41, 0b1001_1000]), Some(SliceType::P));
        assert_eq!(slice_type(&[0x01, 0b1001_1100]), Some(SliceType::B));
        assert_eq!(slice_type(&[0x65, 0b1000_1000]), Some(SliceType::I));
        assert_eq!(slice_type(&[0x41, 0b1100_0000]), Some(SliceType::P));
        assert_eq!(slice_type(&[0x41, 0b1010_0000]), Some(SliceType::B));
        assert_eq!(slice_type(&[0x67, 0b1010_0000]), None);
        assert_eq!(slice_type(&[0x41]), None);
        assert_eq!(slice_type(&[]), None);
        assert_eq!(slice_type(&[0x41, 0, 0, 0, 0, 0, 0, 0, 0]), None);
    }

    #[test]
    fn slice_types_are_read_across_an_emulation_prevention_byte() {
        // first_mb_in_slice: 22 zeros, a one and 22 bits more, up to bit 44; then ue(1) in the last three bits.
        assert_eq!(slice_type(&[0x41, 0, 0, 3, 2, 0, 0, 0b0001_0010]), Some(SliceType::B));
    }

    #[test]
    fn an_access_unit_is_rewritten_only_in_its_sps() {
        let sps = sps::tests::fixture("high1080");
        let au = Bytes::from(join(&[&[9, 0xf0], &sps, &[0x68, 1], &[0x65, 0x88, 0x84, 7]]));
        let rewritten = rewrite_access_unit(au);
        let nals: Vec<_> = nal_units(&rewritten).collect();
        assert_eq!(nals.len(), 4);
        assert_eq!(nals[1], rewrite_sps_zero_reorder(&sps).unwrap());
        assert_eq!(nals[3], [0x65, 0x88, 0x84, 7]);
        assert_eq!(&rewritten[..6], [0, 0, 0, 1, 9, 0xf0]);
        let again = rewrite_access_unit(rewritten.clone());
        assert_eq!(again.as_ptr(), rewritten.as_ptr(), "copied although nothing changed");
    }

    #[test]
    fn an_access_unit_without_a_sound_sps_is_passed_on_uncopied() {
        let damaged = [0x67, 0x64, 0, 0x28];
        for nals in [vec![&[0x41, 0x9a, 1][..]], vec![&damaged, &[0x65, 0x88]], vec![]] {
            let au = Bytes::from(join(&nals));
            let passed = rewrite_access_unit(au.clone());
            assert_eq!((passed.as_ptr(), passed.len()), (au.as_ptr(), au.len()));
        }
    }

    #[test]
    fn the_codec_has_one_name_everywhere() {
        for codec in Codec::ALL {
            assert_eq!(codec.name().parse(), Ok(codec));
            assert_eq!(serde_json::to_string(&codec).unwrap(), format!("\"{codec}\""));
            assert!(codec.others().all(|other| other != codec) && codec.others().count() == 2);
        }
    }
}
