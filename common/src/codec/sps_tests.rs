//! Tests of the SPS parser and its rewrite, on what x264 and OpenH264 really write.

use super::*;

/// SPSs cut out of streams that ffmpeg (libx264), gst x264enc and gst openh264enc wrote.
const FIXTURES: [(&str, &str); 8] = [
    // ffmpeg -c:v libx264 -profile:v baseline -tune zerolatency, 1920x1080 at 30.
    ("baseline1080", "6742c028d900780227e5c044000003000400000300f23c60c920"),
    // ffmpeg -c:v libx264 -profile:v main -bf 2, 640x360 at 25.
    ("main360", "674d401eeca05017fcb808800000030080000019078b16cb"),
    // ffmpeg -c:v libx264 -profile:v high, 1920x1080 at 30, with B-frames.
    ("high1080", "67640028acd940780227e5c044000003000400000300f03c60c658"),
    // The same with nal-hrd=cbr, pic-struct, colours and sample aspect ratio.
    ("hrd1080", "67640028acb200f0044fcb80a101010140000003004000000f1918003d0900186b7b0c03e30649"),
    // The same with interlaced=1.
    ("interlaced1080", "67640028acd94078044fde0220000003002000000783e2c5b2c0"),
    // gst x264enc tune=zerolatency, constrained baseline, 1280x720 at 30.
    ("gst-x264-720", "6742c01fd9005005bb016a02020280000003008000001e478c1924"),
    // gst x264enc tune=zerolatency, high, 1920x1080 at 60.
    ("gst-x264-high1080", "6764002aacb200f0044fcb80b501010140000003004000001e23c60c92"),
    // gst openh264enc, 1920x1080 at 30: no timing information, and motion vector lengths of 16.
    ("openh264-1080", "6742c0288c8d403c0113f2c03c2211a8"),
];

pub(in crate::codec) fn fixture(name: &str) -> Vec<u8> {
    hex(FIXTURES.iter().find(|(known, _)| *known == name).map(|(_, hex)| hex).unwrap())
}

fn hex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

fn fixtures() -> impl Iterator<Item = (&'static str, Vec<u8>)> {
    FIXTURES.iter().map(|(name, _)| (*name, fixture(name)))
}

fn progressive_fixtures() -> impl Iterator<Item = (&'static str, Vec<u8>)> {
    fixtures().filter(|(name, _)| *name != "interlaced1080")
}

/// The SPS as an encoder writes it that has no VUI, as many hardware encoders do.
fn without_vui(nal: &[u8]) -> Vec<u8> {
    let rbsp = unescape(nal);
    let mut writer = BitWriter::default();
    writer.copy(&rbsp, 0, layout(&rbsp).unwrap().vui_flag_at);
    writer.flag(false);
    escape(&writer.finish())
}

/// The SPS with its VUI, but no bitstream restriction in it.
fn without_restriction(nal: &[u8]) -> Vec<u8> {
    let rbsp = unescape(nal);
    let mut writer = BitWriter::default();
    writer.copy(&rbsp, 0, layout(&rbsp).unwrap().vui.unwrap().restriction_flag_at);
    writer.flag(false);
    escape(&writer.finish())
}

/// `high1080` with scaling lists: one of 16 and one of 64 entries in full, one that falls back at once, the others
/// absent.
pub(in crate::codec) fn with_scaling_lists() -> Vec<u8> {
    let rbsp = unescape(&fixture("high1080"));
    // Header, profile, constraints and level take 32 bits; then come ue(0) = id, ue(1) = 4:2:0, ue(0), ue(0), the
    // bypass flag and seq_scaling_matrix_present_flag: 1 010 1 1 0 0.
    let flag_at = 32 + 7;
    let mut writer = BitWriter::default();
    writer.copy(&rbsp, 0, flag_at);
    writer.flag(true);
    for list in 0..8 {
        writer.flag(matches!(list, 0 | 1 | 6));
        match list {
            // delta_scale +1 is code 1, -1 is code 2.
            0 => (0..16).for_each(|index| writer.ue(1 + index % 2)),
            // delta_scale -8 makes the next scale 0: the default list.
            1 => writer.ue(16),
            6 => (0..64).for_each(|_| writer.ue(1)),
            _ => {}
        }
    }
    // Behind the flag up to the stop bit.
    let end = rbsp.len() * 8 - 1 - rbsp[rbsp.len() - 1].trailing_zeros() as usize;
    writer.copy(&rbsp, flag_at + 1, end);
    escape(&writer.finish())
}

#[test]
fn sizes_are_read_after_cropping() {
    for (name, nal) in fixtures() {
        let info = parse_sps(&nal).unwrap();
        let expected = match name {
            "main360" => (640, 360),
            "gst-x264-720" => (1280, 720),
            _ => (1920, 1080),
        };
        assert_eq!((info.width, info.height), expected, "{name}");
    }
}

#[test]
fn all_fields_of_a_high_profile_sps_are_read() {
    let expected = SpsInfo {
        profile_idc: 100,
        constraint_flags: 0,
        level_idc: 40,
        width: 1920,
        height: 1080,
        chroma_format: 1,
        bit_depth: (8, 8),
        max_num_ref_frames: 4,
        pic_order_cnt_type: 0,
        frame_mbs_only: true,
        fps: Some((30, 1)),
        max_num_reorder_frames: Some(2),
        max_dec_frame_buffering: Some(4),
    };
    assert_eq!(parse_sps(&fixture("high1080")), Ok(expected));
}

#[test]
fn fields_that_differ_between_encoders_are_read() {
    let baseline = parse_sps(&fixture("baseline1080")).unwrap();
    assert_eq!((baseline.profile_idc, baseline.constraint_flags, baseline.pic_order_cnt_type), (66, 0xc0, 2));
    let openh264 = parse_sps(&fixture("openh264-1080")).unwrap();
    assert_eq!((openh264.fps, openh264.max_num_ref_frames, openh264.max_num_reorder_frames), (None, 1, Some(0)));
    let hrd = parse_sps(&fixture("hrd1080")).unwrap();
    assert_eq!((hrd.fps, hrd.max_num_ref_frames, hrd.max_dec_frame_buffering), (Some((30, 1)), 3, Some(3)));
    assert_eq!(parse_sps(&fixture("gst-x264-high1080")).unwrap().fps, Some((60, 1)));
    assert_eq!(parse_sps(&fixture("main360")).unwrap().fps, Some((25, 1)));
    assert!(!parse_sps(&fixture("interlaced1080")).unwrap().frame_mbs_only);
}

#[test]
fn scaling_lists_are_skipped_and_kept() {
    let nal = with_scaling_lists();
    assert_eq!(parse_sps(&nal), parse_sps(&fixture("high1080")));
    let rewritten = rewrite_sps_zero_reorder(&nal).unwrap();
    let vui_flag_at = layout(&unescape(&nal)).unwrap().vui_flag_at;
    assert_eq!(unescape(&nal)[..vui_flag_at / 8], unescape(&rewritten)[..vui_flag_at / 8]);
    assert_eq!(parse_sps(&rewritten).unwrap().max_num_reorder_frames, Some(0));
}

#[test]
fn the_rewrite_changes_only_reordering_and_buffering() {
    for (name, nal) in progressive_fixtures() {
        for variant in [nal.clone(), without_restriction(&nal), without_vui(&nal)] {
            let before = parse_sps(&variant).unwrap();
            let rewritten = rewrite_sps_zero_reorder(&variant).unwrap();
            let references = before.max_num_ref_frames;
            let expected =
                SpsInfo { max_num_reorder_frames: Some(0), max_dec_frame_buffering: Some(references), ..before };
            assert_eq!(parse_sps(&rewritten), Ok(expected), "{name}");
        }
    }
}

#[test]
fn the_rewrite_keeps_the_rest_of_the_vui_bit_for_bit() {
    let nal = fixture("high1080");
    let (before, after) = (unescape(&nal), unescape(&rewrite_sps_zero_reorder(&nal).unwrap()));
    let reorder_at = layout(&before).unwrap().vui.unwrap().restriction.unwrap().reorder_at;
    let bit = |data: &[u8], at: usize| data[at / 8] >> (7 - at % 8) & 1;
    assert!((0..reorder_at).all(|at| bit(&before, at) == bit(&after, at)));

    let hrd = fixture("hrd1080");
    assert_eq!(unescape(&without_restriction(&hrd))[..24], unescape(&hrd)[..24]);
    let restored = rewrite_sps_zero_reorder(&without_restriction(&hrd)).unwrap();
    assert_eq!(unescape(&restored)[..24], unescape(&hrd)[..24]);
}

#[test]
fn the_rewrite_is_idempotent() {
    for (name, nal) in progressive_fixtures() {
        for variant in [nal.clone(), without_restriction(&nal), without_vui(&nal)] {
            let once = rewrite_sps_zero_reorder(&variant).unwrap();
            assert_eq!(rewrite_sps_zero_reorder(&once).unwrap(), once, "{name}");
        }
    }
}

#[test]
fn an_sps_that_is_as_wanted_comes_back_byte_for_byte() {
    for name in ["baseline1080", "hrd1080", "gst-x264-720", "gst-x264-high1080", "openh264-1080"] {
        assert_eq!(rewrite_sps_zero_reorder(&fixture(name)).unwrap(), fixture(name), "{name}");
    }
}

#[test]
fn too_small_a_buffer_is_raised_to_the_reference_frames() {
    let rbsp = unescape(&fixture("high1080"));
    let mut writer = BitWriter::default();
    writer.copy(&rbsp, 0, layout(&rbsp).unwrap().vui.unwrap().restriction.unwrap().reorder_at);
    writer.ue(0);
    writer.ue(1);
    let nal = escape(&writer.finish());
    assert_eq!(parse_sps(&nal).unwrap().max_dec_frame_buffering, Some(1));
    assert_eq!(parse_sps(&rewrite_sps_zero_reorder(&nal).unwrap()).unwrap().max_dec_frame_buffering, Some(4));
}

#[test]
fn interlaced_streams_are_not_rewritten() {
    assert_eq!(rewrite_sps_zero_reorder(&fixture("interlaced1080")), Err(SpsError::Interlaced));
}

#[test]
fn data_behind_the_vui_is_not_thrown_away() {
    let rbsp = unescape(&fixture("high1080"));
    let mut writer = BitWriter::default();
    writer.copy(&rbsp, 0, rbsp.len() * 8 - 1 - rbsp[rbsp.len() - 1].trailing_zeros() as usize);
    (0..12).for_each(|_| writer.flag(true));
    let nal = escape(&writer.finish());
    assert!(parse_sps(&nal).is_ok());
    assert_eq!(rewrite_sps_zero_reorder(&nal), Err(SpsError::TrailingData));
}

/// Some cameras write bytes behind the SPS's end: the first of these is such a camera's.
#[test]
fn bytes_behind_the_end_of_the_rbsp_are_left_out() {
    let camera = hex("67640033ac1514a0a03da1000004f6000063380404");
    let without = &camera[..camera.len() - 1];
    assert_eq!(parse_sps(&camera), parse_sps(without));
    assert_eq!(rewrite_sps_zero_reorder(&camera), rewrite_sps_zero_reorder(without));
    assert!(rewrite_sps_zero_reorder(&camera).is_ok_and(|rewritten| rewritten != camera));
    for (name, nal) in progressive_fixtures() {
        for rest in [&[0x55][..], &[0x04], &[0x80], &[0, 0, 7]] {
            let longer = [&nal, rest].concat();
            assert_eq!(parse_sps(&longer), parse_sps(&nal), "{name}");
            let expected = rewrite_sps_zero_reorder(&nal).unwrap();
            // One that needs no rewrite comes back byte for byte.
            let expected = if expected == nal { longer.clone() } else { expected };
            assert_eq!(rewrite_sps_zero_reorder(&longer), Ok(expected), "{name}");
        }
    }
}

#[test]
fn other_nal_units_and_oversized_ones_are_refused() {
    assert_eq!(parse_sps(&[0x68, 0xce, 0x3c, 0x80]), Err(SpsError::NotAnSps(8)));
    assert_eq!(parse_sps(&[]), Err(SpsError::NotAnSps(0)));
    assert_eq!(parse_sps(&[0x67; 5000]), Err(SpsError::TooLong(5000)));
    assert_eq!(parse_sps(&[0x67]), Err(SpsError::Truncated));
}

#[test]
fn every_truncation_of_a_real_sps_is_an_error() {
    for (name, nal) in fixtures() {
        // The last bytes are part of the VUI, whose end a stop bit can imitate; up to the picture size there is no
        // doubt.
        for length in 0..8 {
            assert!(parse_sps(&nal[..length]).is_err(), "{name} cut to {length} bytes");
        }
    }
}

#[test]
fn absurd_values_are_named() {
    // Baseline, id 0, then log2_max_frame_num_minus4 = 200: ue(0) = '1', ue(200) = 7 zeros and '11001001'.
    let nal = [0x67, 66, 0xc0, 40, 0b1000_0000, 0b1100_1001, 0x80];
    assert_eq!(parse_sps(&nal), Err(SpsError::OutOfRange { field: "log2_max_frame_num_minus4", value: 200 }));
    // Cropping everything away.
    let mut writer = BitWriter::default();
    let rbsp = unescape(&fixture("openh264-1080"));
    writer.copy(&rbsp, 0, 32);
    // Id, frame number, count type 2, one reference; no gaps; 2 by 2 macroblocks of frames; direct_8x8.
    [0, 0, 2, 1].into_iter().for_each(|value| writer.ue(value));
    writer.flag(false);
    [1, 1].into_iter().for_each(|value| writer.ue(value));
    [true, true, true].into_iter().for_each(|flag| writer.flag(flag));
    [8, 8, 0, 0].into_iter().for_each(|value| writer.ue(value));
    writer.flag(false);
    let nal = escape(&writer.finish());
    assert_eq!(parse_sps(&nal), Err(SpsError::OutOfRange { field: "horizontal cropping", value: 32 }));
}

/// xorshift64: random enough to break things, and the same in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit as u64) as usize
    }
}

#[test]
fn damaged_sps_never_panic_and_what_is_rewritten_stays_sound() {
    let seeds: Vec<_> = fixtures().map(|(_, nal)| nal).chain([with_scaling_lists()]).collect();
    let mut random = Random(0x5eed_0f70);
    let mut rewritten = 0;
    for _ in 0..40_000 {
        let mut nal = seeds[random.below(seeds.len())].clone();
        for _ in 0..1 + random.below(4) {
            let at = random.below(nal.len());
            match random.below(5) {
                0 => nal[at] = random.below(256) as u8,
                1 => nal[at] = 0,
                2 => nal.truncate(at.max(1)),
                3 => nal.insert(at, random.below(256) as u8),
                _ => nal[at] ^= 1 << random.below(8),
            }
        }
        let parsed = parse_sps(&nal);
        let _ = super::super::slice_type(&nal);
        let Ok(result) = rewrite_sps_zero_reorder(&nal) else { continue };
        let before = parsed.unwrap();
        let references = before.max_num_ref_frames;
        let expected = SpsInfo { max_num_reorder_frames: Some(0), max_dec_frame_buffering: Some(references), ..before };
        assert_eq!(parse_sps(&result), Ok(expected), "{nal:02x?}");
        assert_eq!(rewrite_sps_zero_reorder(&result).unwrap(), result, "{nal:02x?}");
        rewritten += 1;
    }
    assert!(rewritten > 1000, "only {rewritten} of the damaged SPSs got as far as the rewrite");
}
