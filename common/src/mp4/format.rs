//! What a file says of its pictures: the sample entry, made of parameter sets (ISO/IEC 14496-15 sections 5.3 and 8.3),
//! of MJPEG that of QuickTime.

use mp4_atom::{Avc1, Avcc, AvccExt, Codec as Entry, Hvc1, HvcCArray, Hvcc, Jpeg, Visual};
use thiserror::Error;

use crate::codec::{Codec, ParameterSetCache, ParameterSets, SpsError, jpeg, parse_h265_sps, parse_sps};
use crate::units::Resolution;

/// Of NAL units in front of each, as in all files of this project.
const LENGTH_SIZE: u8 = 4;

/// Why pictures cannot be written into a file.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Unrecordable {
    #[error("the keyframe has no parameter sets")]
    NoParameterSets,
    #[error("the parameter sets cannot be read: {0}")]
    Sps(#[from] SpsError),
    #[error("it is no whole JPEG picture")]
    NoJpeg,
    #[error("pictures of {0} are larger than a file can say")]
    TooLarge(Resolution),
}

/// What the pictures of a file are. Those of another format need a file of their own.
#[derive(Clone, Debug)]
pub struct Format {
    size: Resolution,
    /// All that a decoder has to be set up for besides the size. Other parameter sets stand in band and need nothing.
    kind: Kind,
    pub(super) entry: Entry,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Kind {
    codec: Codec,
    chroma_format: u32,
    bit_depth: (u32, u32),
}

impl PartialEq for Format {
    fn eq(&self, other: &Self) -> bool {
        (self.size, self.kind) == (other.size, other.kind)
    }
}

impl Format {
    /// Of an access unit in Annex B that has its parameter sets, as each keyframe of this project has, or of a JPEG
    /// picture.
    ///
    /// # Errors
    /// Where it has none, or what they say is not understood.
    pub fn of(codec: Codec, keyframe: &[u8]) -> Result<Self, Unrecordable> {
        let sets = || {
            let mut cache = ParameterSetCache::new(codec);
            cache.update(keyframe);
            if cache.complete() { Ok(cache.sets().clone()) } else { Err(Unrecordable::NoParameterSets) }
        };
        match codec {
            Codec::H264 => h264(&sets()?),
            Codec::H265 => h265(&sets()?),
            Codec::Mjpeg => mjpeg(keyframe),
        }
    }

    pub fn codec(&self) -> Codec {
        self.kind.codec
    }

    /// Of the pictures as they are shown.
    pub fn size(&self) -> Resolution {
        self.size
    }
}

fn visual(size: Resolution) -> Result<Visual, Unrecordable> {
    let side = |side: u32| u16::try_from(side).map_err(|_| Unrecordable::TooLarge(size));
    Ok(Visual { data_reference_index: 1, width: side(size.width)?, height: side(size.height)?, ..Visual::default() })
}

fn h264(sets: &ParameterSets) -> Result<Format, Unrecordable> {
    let sps = parse_sps(&sets.sps)?;
    let size = Resolution::new(sps.width, sps.height);
    let (luma, chroma) = sps.bit_depth;
    let avcc = Avcc {
        configuration_version: 1,
        avc_profile_indication: sps.profile_idc,
        profile_compatibility: sps.constraint_flags,
        avc_level_indication: sps.level_idc,
        length_size: LENGTH_SIZE,
        sequence_parameter_sets: vec![sets.sps.to_vec()],
        picture_parameter_sets: sets.pps.iter().map(|pps| pps.to_vec()).collect(),
        // Section 5.3.3.1.2: of these profiles alone.
        ext: matches!(sps.profile_idc, 100 | 110 | 122 | 144).then(|| AvccExt {
            chroma_format: sps.chroma_format,
            bit_depth_luma: luma,
            bit_depth_chroma: chroma,
            sequence_parameter_sets_ext: Vec::new(),
        }),
    };
    let kind =
        Kind { codec: Codec::H264, chroma_format: sps.chroma_format.into(), bit_depth: (luma.into(), chroma.into()) };
    let entry = Avc1 { visual: visual(size)?, avcc, ..Avc1::default() }.into();
    Ok(Format { size, kind, entry })
}

fn h265(sets: &ParameterSets) -> Result<Format, Unrecordable> {
    let sps = parse_h265_sps(&sets.sps)?;
    let size = Resolution::new(sps.width, sps.height);
    let [profile, c0, c1, c2, c3, constraints @ .., level] = sps.profile_tier_level;
    let array = |nals: Vec<Vec<u8>>| HvcCArray {
        completeness: true,
        nal_unit_type: Codec::H265.nal_type(&nals[0]),
        nalus: nals,
    };
    let hvcc = Hvcc {
        configuration_version: 1,
        general_profile_space: profile >> 6,
        general_tier_flag: profile & 0x20 != 0,
        general_profile_idc: profile & 0x1f,
        general_profile_compatibility_flags: [c0, c1, c2, c3],
        general_constraint_indicator_flags: constraints,
        general_level_idc: level,
        chroma_format_idc: sps.chroma_format as u8,
        bit_depth_luma_minus8: (sps.bit_depth.0 - 8) as u8,
        bit_depth_chroma_minus8: (sps.bit_depth.1 - 8) as u8,
        num_temporal_layers: sps.temporal_layers,
        temporal_id_nested: sps.temporal_id_nested,
        length_size_minus_one: LENGTH_SIZE - 1,
        arrays: vec![
            array(vec![sets.vps.to_vec()]),
            array(vec![sets.sps.to_vec()]),
            array(sets.pps.iter().map(|pps| pps.to_vec()).collect()),
        ],
        ..Hvcc::default()
    };
    let kind = Kind { codec: Codec::H265, chroma_format: sps.chroma_format, bit_depth: sps.bit_depth };
    let entry = Hvc1 { visual: visual(size)?, hvcc, ..Hvc1::default() }.into();
    Ok(Format { size, kind, entry })
}

/// Each picture says all else by itself.
fn mjpeg(picture: &[u8]) -> Result<Format, Unrecordable> {
    let size = jpeg::size(picture).ok_or(Unrecordable::NoJpeg)?;
    let kind = Kind { codec: Codec::Mjpeg, chroma_format: 1, bit_depth: (8, 8) };
    Ok(Format { size, kind, entry: Jpeg { visual: visual(size)?, ..Jpeg::default() }.into() })
}
