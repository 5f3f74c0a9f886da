//! The SPS of H.265 (ITU-T H.265 7.3.2.2), as far as it says whether a decoder can show the stream, and without delay.

use super::bits::{BitReader, unescape};
use super::sps::SpsError;

/// What the SPS says of the pictures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct H265SpsInfo {
    /// 0: grey, 1: 4:2:0, 2: 4:2:2, 3: 4:4:4.
    pub chroma_format: u32,
    /// In luma samples, without cropping.
    pub coded_width: u32,
    pub coded_height: u32,
    /// What is shown of that.
    pub width: u32,
    pub height: u32,
    /// Of luma and of chroma.
    pub bit_depth: (u32, u32),
    /// Pictures that may come before another one in the stream and are shown after it: 0 where the stream's order is
    /// that of showing, so that a decoder need not hold any back.
    pub max_num_reorder_pics: u32,
    /// All pictures are interlaced: each is a field, or holds two. Not known where the SPS says nothing of that, or
    /// both.
    pub interlaced: bool,
    /// As they stand there: `general_profile_space` to `general_level_idc`.
    pub profile_tier_level: [u8; 12],
    pub temporal_layers: u8,
    pub temporal_id_nested: bool,
}

/// Reads an SPS with its header and emulation prevention bytes, without start code.
pub fn parse_h265_sps(nal: &[u8]) -> Result<H265SpsInfo, SpsError> {
    let rbsp = unescape(nal.get(2..).unwrap_or_default());
    let mut reader = BitReader::over_rbsp(&rbsp);
    let _video_parameter_set_id = reader.bits(4)?;
    let sub_layers = reader.bits(3)?;
    let temporal_id_nested = reader.flag()?;
    let interlaced = profile_tier_level(&mut reader, sub_layers)?;
    let _sps_id = reader.ue()?;
    let chroma_format = reader.ue()?;
    if chroma_format == 3 {
        let _separate_colour_plane = reader.flag()?;
    }
    let (coded_width, coded_height) = (reader.ue()?, reader.ue()?);
    let (mut width, mut height) = (coded_width, coded_height);
    if reader.flag()? {
        // The conformance window, in samples of chroma (table 6-1).
        let (unit_x, unit_y) =
            (if matches!(chroma_format, 1 | 2) { 2 } else { 1 }, if chroma_format == 1 { 2 } else { 1 });
        let (left, right, top, bottom) = (reader.ue()?, reader.ue()?, reader.ue()?, reader.ue()?);
        let cut = |side: u32, unit: u32, one: u32, other: u32| {
            side.saturating_sub(one.saturating_add(other).saturating_mul(unit))
        };
        (width, height) = (cut(width, unit_x, left, right), cut(height, unit_y, top, bottom));
    }
    let bit_depth = (reader.ue()?.saturating_add(8), reader.ue()?.saturating_add(8));
    let _log2_max_pic_order_cnt_lsb = reader.ue()?;
    let each_sub_layer = reader.flag()?;
    let mut max_num_reorder_pics = 0;
    // The last is that of the whole stream.
    for _ in 0..=if each_sub_layer { sub_layers } else { 0 } {
        let _max_dec_pic_buffering = reader.ue()?;
        max_num_reorder_pics = reader.ue()?;
        let _max_latency_increase = reader.ue()?;
    }
    let profile_tier_level = rbsp.get(1..13).and_then(|bytes| bytes.try_into().ok()).ok_or(SpsError::Truncated)?;
    Ok(H265SpsInfo {
        chroma_format,
        coded_width,
        coded_height,
        width,
        height,
        bit_depth,
        max_num_reorder_pics,
        interlaced,
        profile_tier_level,
        temporal_layers: sub_layers as u8 + 1,
        temporal_id_nested,
    })
}

/// ITU-T H.265 7.3.3, with the general profile: whether its source flags say interlaced, and not progressive (7.4.4).
fn profile_tier_level(reader: &mut BitReader, sub_layers: u32) -> Result<bool, SpsError> {
    const PROFILE_BITS: u32 = 88;
    const LEVEL_BITS: u32 = 8;
    // The profile's name and those it is compatible with.
    const BEFORE_FLAGS: u32 = 40;
    skip(reader, BEFORE_FLAGS)?;
    let (is_progressive, is_interlaced) = (reader.flag()?, reader.flag()?);
    skip(reader, PROFILE_BITS - BEFORE_FLAGS - 2 + LEVEL_BITS)?;
    let mut present = [(false, false); 8];
    for sub_layer in present.iter_mut().take(sub_layers as usize) {
        *sub_layer = (reader.flag()?, reader.flag()?);
    }
    if sub_layers > 0 {
        skip(reader, 2 * (8 - sub_layers))?;
    }
    for (profile, level) in present {
        skip(reader, if profile { PROFILE_BITS } else { 0 } + if level { LEVEL_BITS } else { 0 })?;
    }
    Ok(is_interlaced && !is_progressive)
}

fn skip(reader: &mut BitReader, bits: u32) -> Result<(), SpsError> {
    (0..bits).try_for_each(|_| reader.flag().map(drop))
}

#[cfg(test)]
mod tests {
    use super::super::parameter_sets::tests::{X265_SPS, bytes};
    use super::*;

    #[test]
    fn x265_tuned_for_zero_latency_reorders_nothing() {
        let expected = H265SpsInfo {
            chroma_format: 1,
            coded_width: 320,
            coded_height: 240,
            width: 320,
            height: 240,
            bit_depth: (8, 8),
            max_num_reorder_pics: 0,
            interlaced: false,
            profile_tier_level: [1, 0x60, 0, 0, 0, 0x90, 0, 0, 0, 0, 0, 0x3c],
            temporal_layers: 1,
            temporal_id_nested: true,
        };
        assert_eq!(parse_h265_sps(&bytes(X265_SPS)), Ok(expected));
    }

    #[test]
    fn b_frames_and_ten_bits_show() {
        // x265 with bframes=2, 640x360, yuv420p10le.
        let sps = bytes("42010102200000030090000003000003003fa005020171f2b6595912930bc05a020000030002000003003210");
        let info = parse_h265_sps(&sps).unwrap();
        assert_eq!((info.coded_width, info.bit_depth, info.max_num_reorder_pics), (640, (10, 10), 2));
    }

    #[test]
    fn interlaced_pictures_show() {
        // x265 with interlace=tff, 320x240: fields of half the height.
        let sps = bytes("42010101600000030040000003000003003ca00a080f165ba4a4c2f0168680000003008000000c84");
        assert!(parse_h265_sps(&sps).unwrap().interlaced);
    }

    #[test]
    fn an_sps_that_is_cut_off_is_an_error() {
        let sps = bytes(X265_SPS);
        for length in 0..20 {
            assert!(parse_h265_sps(&sps[..length]).is_err(), "{length} bytes");
        }
    }
}
