//! The sequence parameter set: parsed in full (ITU-T H.264 7.3.2.1.1 and annex E), and rewritten so that decoders do
//! not wait.
//!
//! A decoder that is not told how many pictures may be reordered holds back as many as the level permits. The rewrite
//! tells it: none. Its limits: progressive streams without B-frames, as the callers make or check them.

use std::ops::RangeInclusive;

use thiserror::Error;

use super::bits::{BitReader, BitWriter, escape, unescape};
use super::{Codec, NalKind};

/// Why an SPS was refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SpsError {
    #[error("not an SPS but a NAL unit of type {0}")]
    NotAnSps(u8),
    #[error("an SPS of {0} bytes is longer than the {MAX_SPS_BYTES} that any stream needs")]
    TooLong(usize),
    #[error("the SPS ends too early")]
    Truncated,
    #[error("the SPS has {field} {value}, which ITU-T H.264 does not permit")]
    OutOfRange { field: &'static str, value: i64 },
    #[error("the SPS describes an interlaced stream")]
    Interlaced,
    #[error("the SPS goes on after its last field")]
    TrailingData,
}

/// What an SPS says about its stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpsInfo {
    pub profile_idc: u8,
    /// `constraint_set0_flag` is the highest bit.
    pub constraint_flags: u8,
    /// Ten times the level: 40 is level 4.
    pub level_idc: u8,
    /// Pixels of luma, after cropping.
    pub width: u32,
    pub height: u32,
    /// `chroma_format_idc`: 0 grey, 1 4:2:0, 2 4:2:2, 3 4:4:4.
    pub chroma_format: u8,
    /// Of luma and of chroma.
    pub bit_depth: (u8, u8),
    pub max_num_ref_frames: u32,
    pub pic_order_cnt_type: u32,
    /// False for interlaced streams.
    pub frame_mbs_only: bool,
    /// Frames per second as a reduced fraction, if the VUI has timing information.
    pub fps: Option<(u32, u32)>,
    /// Pictures that may precede another one in decoding order and follow it in output order; `None` if the SPS does
    /// not say.
    pub max_num_reorder_frames: Option<u32>,
    /// Frames that the decoder must be able to hold; `None` if the SPS does not say.
    pub max_dec_frame_buffering: Option<u32>,
}

/// Twelve scaling lists and two HRD tables of 32 entries each come to less.
const MAX_SPS_BYTES: usize = 2048;
/// The size of the largest picture and its longest side, in macroblocks (level 6.2, ITU-T H.264 table A-1 and A.3.1).
const MAX_FRAME_MBS: u32 = 139_264;
const MAX_SIDE_MBS: u32 = 1055;
/// The largest decoded picture buffer in frames (ITU-T H.264 A.3.1 h).
const MAX_DPB_FRAMES: u32 = 16;

/// What the rewrite needs beside the contents: positions in bits from the start of the unescaped NAL unit.
struct Layout {
    info: SpsInfo,
    /// Of `vui_parameters_present_flag`.
    vui_flag_at: usize,
    /// `None` without VUI.
    vui: Option<VuiLayout>,
    /// Whether nothing follows the VUI.
    complete: bool,
}

struct VuiLayout {
    fps: Option<(u32, u32)>,
    /// Of `bitstream_restriction_flag`.
    restriction_flag_at: usize,
    restriction: Option<Restriction>,
}

struct Restriction {
    /// Of `max_num_reorder_frames`.
    reorder_at: usize,
    max_num_reorder_frames: u32,
    max_dec_frame_buffering: u32,
}

/// Parses an SPS, given with its header byte and without start code.
///
/// # Errors
/// When it is no SPS, ends early, or holds a value that the standard forbids. Interlaced streams are no error here.
pub fn parse_sps(nal: &[u8]) -> Result<SpsInfo, SpsError> {
    layout(&unescaped(nal)?).map(|layout| layout.info)
}

/// The same SPS with `max_num_reorder_frames` 0 and `max_dec_frame_buffering` equal to `max_num_ref_frames`.
///
/// All other fields stay bit for bit; a missing VUI or bitstream restriction is added, with the values that ITU-T H.264
/// E.2.1 infers for their absence. An SPS that is already so comes back byte for byte. Only for streams without
/// B-frames.
///
/// # Errors
/// As [`parse_sps`], and for interlaced streams and an SPS with data after its VUI, which would be lost.
pub fn rewrite_sps_zero_reorder(nal: &[u8]) -> Result<Vec<u8>, SpsError> {
    let rbsp = unescaped(nal)?;
    let Layout { info, vui_flag_at, vui, complete } = layout(&rbsp)?;
    if !info.frame_mbs_only {
        return Err(SpsError::Interlaced);
    }
    if !complete {
        return Err(SpsError::TrailingData);
    }
    // Fewer frames than the stream refers to would break its prediction; more would let a decoder hold pictures back.
    let buffering = info.max_num_ref_frames;
    if (info.max_num_reorder_frames, info.max_dec_frame_buffering) == (Some(0), Some(buffering)) {
        return Ok(nal.to_vec());
    }

    let mut writer = BitWriter::default();
    writer.copy(&rbsp, 0, vui_flag_at);
    writer.flag(true);
    match &vui {
        Some(vui) => writer.copy(&rbsp, vui_flag_at + 1, vui.restriction_flag_at),
        // The eight flags of a VUI that says nothing: aspect ratio, overscan, video signal, chroma location, timing,
        // NAL HRD, VCL HRD and pic_struct.
        None => (0..8).for_each(|_| writer.flag(false)),
    }
    writer.flag(true);
    match vui.and_then(|vui| vui.restriction.map(|restriction| (vui.restriction_flag_at, restriction))) {
        Some((flag_at, restriction)) => writer.copy(&rbsp, flag_at + 1, restriction.reorder_at),
        None => {
            // motion_vectors_over_pic_boundaries_flag, max_bytes_per_pic_denom, max_bits_per_mb_denom,
            // log2_max_mv_length_*.
            writer.flag(true);
            [2, 1, 15, 15].into_iter().for_each(|value| writer.ue(value));
        }
    }
    writer.ue(0);
    writer.ue(buffering);
    Ok(escape(&writer.finish()))
}

fn unescaped(nal: &[u8]) -> Result<Vec<u8>, SpsError> {
    match Codec::H264.nal_kind(nal) {
        NalKind::Sps if nal.len() <= MAX_SPS_BYTES => Ok(unescape(nal)),
        NalKind::Sps => Err(SpsError::TooLong(nal.len())),
        _ => Err(SpsError::NotAnSps(Codec::H264.nal_type(nal))),
    }
}

/// `seq_parameter_set_data` (ITU-T H.264 7.3.2.1.1) behind the header byte.
fn layout(rbsp: &[u8]) -> Result<Layout, SpsError> {
    let r = &mut BitReader::over_rbsp(rbsp);
    r.bits(8)?;
    let profile_idc = r.bits(8)? as u8;
    let constraint_flags = r.bits(8)? as u8;
    let level_idc = r.bits(8)? as u8;
    ue_in(r, "seq_parameter_set_id", 0..=31)?;
    let usual = Chroma { format: 1, array_type: 1, bit_depth: (8, 8) };
    let chroma = if has_chroma_format(profile_idc) { chroma_fields(r)? } else { usual };
    ue_in(r, "log2_max_frame_num_minus4", 0..=12)?;
    let pic_order_cnt_type = pic_order_cnt(r)?;
    let max_num_ref_frames = ue_in(r, "max_num_ref_frames", 0..=MAX_DPB_FRAMES)?;
    let _gaps_in_frame_num_allowed = r.flag()?;
    let width_mbs = ue_in(r, "pic_width_in_mbs_minus1", 0..=MAX_SIDE_MBS - 1)? + 1;
    let height_map_units = ue_in(r, "pic_height_in_map_units_minus1", 0..=MAX_SIDE_MBS - 1)? + 1;
    let frame_mbs_only = r.flag()?;
    let height_mbs = if frame_mbs_only { height_map_units } else { 2 * height_map_units };
    if width_mbs * height_mbs > MAX_FRAME_MBS {
        return Err(SpsError::OutOfRange {
            field: "picture size in macroblocks",
            value: i64::from(width_mbs * height_mbs),
        });
    }
    if !frame_mbs_only {
        let _mb_adaptive_frame_field = r.flag()?;
    }
    let _direct_8x8_inference = r.flag()?;
    let (width, height) = cropped(r, width_mbs * 16, height_mbs * 16, chroma.array_type, frame_mbs_only)?;
    let vui_flag_at = r.position();
    let vui = if r.flag()? { Some(vui(r)?) } else { None };
    let restriction = vui.as_ref().and_then(|vui| vui.restriction.as_ref());
    let info = SpsInfo {
        profile_idc,
        constraint_flags,
        level_idc,
        width,
        height,
        chroma_format: chroma.format,
        bit_depth: chroma.bit_depth,
        max_num_ref_frames,
        pic_order_cnt_type,
        frame_mbs_only,
        fps: vui.as_ref().and_then(|vui| vui.fps),
        max_num_reorder_frames: restriction.map(|restriction| restriction.max_num_reorder_frames),
        max_dec_frame_buffering: restriction.map(|restriction| restriction.max_dec_frame_buffering),
    };
    Ok(Layout { info, vui_flag_at, vui, complete: r.at_end() })
}

/// The profiles whose SPS has `chroma_format_idc` and what follows it.
const fn has_chroma_format(profile_idc: u8) -> bool {
    matches!(profile_idc, 100 | 110 | 122 | 244 | 44 | 83 | 86 | 118 | 128 | 138 | 139 | 134 | 135)
}

struct Chroma {
    format: u8,
    /// `ChromaArrayType`: 0 also for colour planes that are coded separately.
    array_type: u8,
    /// Of luma and of chroma.
    bit_depth: (u8, u8),
}

fn chroma_fields(r: &mut BitReader) -> Result<Chroma, SpsError> {
    let format = ue_in(r, "chroma_format_idc", 0..=3)? as u8;
    let separate_planes = format == 3 && r.flag()?;
    let luma = 8 + ue_in(r, "bit_depth_luma_minus8", 0..=6)? as u8;
    let chroma = 8 + ue_in(r, "bit_depth_chroma_minus8", 0..=6)? as u8;
    let _qpprime_y_zero_transform_bypass = r.flag()?;
    if r.flag()? {
        for list in 0..if format == 3 { 12 } else { 8 } {
            if r.flag()? {
                skip_scaling_list(r, if list < 6 { 16 } else { 64 })?;
            }
        }
    }
    Ok(Chroma { format, array_type: if separate_planes { 0 } else { format }, bit_depth: (luma, chroma) })
}

/// `scaling_list` (ITU-T H.264 7.3.2.1.1.1).
fn skip_scaling_list(r: &mut BitReader, size: usize) -> Result<(), SpsError> {
    let (mut last, mut next) = (8, 8);
    for _ in 0..size {
        if next != 0 {
            let delta = r.se()?;
            if !(-128..=127).contains(&delta) {
                return Err(SpsError::OutOfRange { field: "delta_scale", value: delta });
            }
            next = (last + delta + 256) % 256;
        }
        if next != 0 {
            last = next;
        }
    }
    Ok(())
}

fn pic_order_cnt(r: &mut BitReader) -> Result<u32, SpsError> {
    let kind = ue_in(r, "pic_order_cnt_type", 0..=2)?;
    if kind == 0 {
        ue_in(r, "log2_max_pic_order_cnt_lsb_minus4", 0..=12)?;
    } else if kind == 1 {
        let _delta_pic_order_always_zero = r.flag()?;
        let _offset_for_non_ref_pic = r.se()?;
        let _offset_for_top_to_bottom_field = r.se()?;
        for _ in 0..ue_in(r, "num_ref_frames_in_pic_order_cnt_cycle", 0..=255)? {
            let _offset_for_ref_frame = r.se()?;
        }
    }
    Ok(kind)
}

/// Width and height in pixels after the cropping that follows in `r` (ITU-T H.264 7.4.2.1.1, equations 7-19 to 7-22).
fn cropped(
    r: &mut BitReader,
    width: u32,
    height: u32,
    array_type: u8,
    frame_mbs_only: bool,
) -> Result<(u32, u32), SpsError> {
    if !r.flag()? {
        return Ok((width, height));
    }
    let unit_x = if matches!(array_type, 1 | 2) { 2 } else { 1 };
    let unit_y = if array_type == 1 { 2 } else { 1 } * if frame_mbs_only { 1 } else { 2 };
    let crop = |field, unit: u32, low: u32, high: u32, side: u32| {
        let cut = u64::from(unit) * (u64::from(low) + u64::from(high));
        // The cut is compared first, so that the cast cannot lose anything.
        if cut < u64::from(side) {
            Ok(side - cut as u32)
        } else {
            Err(SpsError::OutOfRange { field, value: cut as i64 })
        }
    };
    let (left, right, top, bottom) = (r.ue()?, r.ue()?, r.ue()?, r.ue()?);
    Ok((
        crop("horizontal cropping", unit_x, left, right, width)?,
        crop("vertical cropping", unit_y, top, bottom, height)?,
    ))
}

/// `vui_parameters` (ITU-T H.264 E.1.1).
fn vui(r: &mut BitReader) -> Result<VuiLayout, SpsError> {
    const EXTENDED_SAR: u32 = 255;
    if r.flag()? && r.bits(8)? == EXTENDED_SAR {
        r.bits(32)?;
    }
    if r.flag()? {
        let _overscan_appropriate = r.flag()?;
    }
    if r.flag()? {
        let _video_format_and_full_range = r.bits(4)?;
        if r.flag()? {
            let _primaries_transfer_matrix = r.bits(24)?;
        }
    }
    if r.flag()? {
        ue_in(r, "chroma_sample_loc_type_top_field", 0..=5)?;
        ue_in(r, "chroma_sample_loc_type_bottom_field", 0..=5)?;
    }
    let fps = if r.flag()? { timing(r)? } else { None };
    let nal_hrd = r.flag()?;
    if nal_hrd {
        skip_hrd(r)?;
    }
    let vcl_hrd = r.flag()?;
    if vcl_hrd {
        skip_hrd(r)?;
    }
    if nal_hrd || vcl_hrd {
        let _low_delay_hrd = r.flag()?;
    }
    let _pic_struct_present = r.flag()?;
    let restriction_flag_at = r.position();
    let restriction = if r.flag()? { Some(restriction(r)?) } else { None };
    Ok(VuiLayout { fps, restriction_flag_at, restriction })
}

/// Frames per second; a tick is the time of a field (ITU-T H.264 E.2.1).
fn timing(r: &mut BitReader) -> Result<Option<(u32, u32)>, SpsError> {
    let (units_in_tick, time_scale) = (r.bits(32)?, r.bits(32)?);
    let _fixed_frame_rate = r.flag()?;
    let (num, den) = (u64::from(time_scale), 2 * u64::from(units_in_tick));
    let divisor = gcd(num, den).max(1);
    let reduced = u32::try_from(num / divisor).ok().zip(u32::try_from(den / divisor).ok());
    Ok(reduced.filter(|&(num, den)| num > 0 && den > 0))
}

/// `hrd_parameters` (ITU-T H.264 E.1.2).
fn skip_hrd(r: &mut BitReader) -> Result<(), SpsError> {
    let count = ue_in(r, "cpb_cnt_minus1", 0..=31)? + 1;
    let _bit_rate_and_cpb_size_scale = r.bits(8)?;
    for _ in 0..count {
        let _bit_rate_value_minus1 = r.ue()?;
        let _cpb_size_value_minus1 = r.ue()?;
        let _cbr = r.flag()?;
    }
    let _delay_lengths_and_time_offset_length = r.bits(20)?;
    Ok(())
}

fn restriction(r: &mut BitReader) -> Result<Restriction, SpsError> {
    let _motion_vectors_over_pic_boundaries = r.flag()?;
    ue_in(r, "max_bytes_per_pic_denom", 0..=16)?;
    ue_in(r, "max_bits_per_mb_denom", 0..=16)?;
    // Editions up to 2014 permit 16, later ones 15.
    ue_in(r, "log2_max_mv_length_horizontal", 0..=16)?;
    ue_in(r, "log2_max_mv_length_vertical", 0..=16)?;
    let reorder_at = r.position();
    let max_num_reorder_frames = ue_in(r, "max_num_reorder_frames", 0..=MAX_DPB_FRAMES)?;
    let max_dec_frame_buffering = ue_in(r, "max_dec_frame_buffering", 0..=MAX_DPB_FRAMES)?;
    Ok(Restriction { reorder_at, max_num_reorder_frames, max_dec_frame_buffering })
}

fn ue_in(r: &mut BitReader, field: &'static str, range: RangeInclusive<u32>) -> Result<u32, SpsError> {
    let value = r.ue()?;
    if range.contains(&value) { Ok(value) } else { Err(SpsError::OutOfRange { field, value: value.into() }) }
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
#[path = "sps_tests.rs"]
pub(super) mod tests;
