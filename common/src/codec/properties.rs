//! What holds for every SPS and every byte stream, tried on made-up ones. The SPS are written here from the tables of
//! ITU-T H.264, beside what they say, so that parser and rewrite are checked against a second reading of the standard.

use bytes::Bytes;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use super::bits::{BitWriter, escape, unescape};
use super::*;

/// Decisions, one after the other, made of what proptest gives.
struct Choices {
    words: Vec<u32>,
    at: usize,
}

impl Choices {
    /// From 0 to `most`.
    fn up_to(&mut self, most: u32) -> u32 {
        let word = self.words[self.at % self.words.len()];
        self.at += 1;
        if most == u32::MAX { word } else { word % (most + 1) }
    }

    fn yes(&mut self) -> bool {
        self.up_to(1) == 1
    }
}

/// A part of an SPS.
#[derive(Clone, Debug, Default, PartialEq)]
struct Bits(Vec<bool>);

impl Bits {
    fn flag(&mut self, bit: bool) -> bool {
        self.0.push(bit);
        bit
    }

    fn bits(&mut self, value: u32, count: u32) {
        (0..count).rev().for_each(|at| self.0.push(value >> at & 1 == 1));
    }

    fn ue(&mut self, value: u32) -> u32 {
        let width = (u64::from(value) + 1).ilog2();
        (0..width).for_each(|_| self.0.push(false));
        (0..=width).rev().for_each(|at| self.0.push((u64::from(value) + 1) >> at & 1 == 1));
        value
    }

    fn se(&mut self, value: i32) {
        let magnitude = value.unsigned_abs();
        self.ue(if value > 0 { 2 * magnitude - 1 } else { 2 * magnitude });
    }
}

/// An SPS in the parts that the rewrite tells apart, and what it says.
#[derive(Clone, Debug)]
struct Sps {
    /// Up to `vui_parameters_present_flag`.
    head: Bits,
    /// Up to `bitstream_restriction_flag`.
    vui: Option<Bits>,
    /// Up to `max_num_reorder_frames`, that and `max_dec_frame_buffering`.
    restriction: Option<(Bits, u32, u32)>,
    info: SpsInfo,
}

impl Sps {
    fn nal(&self) -> Vec<u8> {
        let mut all = self.head.clone();
        if all.flag(self.vui.is_some()) {
            all.0.extend(self.vui.iter().flat_map(|vui| &vui.0));
            all.flag(self.restriction.is_some());
            if let Some((before, reorder, buffering)) = &self.restriction {
                all.0.extend(&before.0);
                all.ue(*reorder);
                all.ue(*buffering);
            }
        }
        let mut writer = BitWriter::default();
        all.0.iter().for_each(|&bit| writer.flag(bit));
        escape(&writer.finish())
    }

    /// As the rewrite must leave it.
    fn without_reordering(mut self) -> Self {
        let buffering = self.info.max_num_ref_frames;
        let before = match self.restriction {
            Some((before, ..)) => before,
            None => {
                let mut inferred = Bits::default();
                inferred.flag(true);
                [2, 1, 15, 15].iter().for_each(|&value| _ = inferred.ue(value));
                inferred
            }
        };
        self.vui.get_or_insert(Bits(vec![false; 8]));
        self.restriction = Some((before, 0, buffering));
        self.info = SpsInfo { max_num_reorder_frames: Some(0), max_dec_frame_buffering: Some(buffering), ..self.info };
        self
    }
}

/// `seq_parameter_set_data` (ITU-T H.264 7.3.2.1.1).
fn sps(c: &mut Choices, frame_mbs_only: bool) -> Sps {
    const PROFILES: [u32; 16] = [66, 77, 88, 100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135];
    let mut b = Bits::default();
    let profile_idc = PROFILES[c.up_to(15) as usize];
    let (constraint_flags, level_idc) = (c.up_to(255), c.up_to(255));
    for byte in [(c.up_to(3) << 5) | 7, profile_idc, constraint_flags, level_idc] {
        b.bits(byte, 8);
    }
    b.ue(c.up_to(31));
    let (mut format, mut array_type, mut bit_depth) = (1, 1, (8, 8));
    // Profiles from 66 to 88 are those without what follows; 83 and 86 belong to scalable streams.
    if ![66, 77, 88].contains(&profile_idc) {
        format = b.ue(c.up_to(3));
        array_type = if format == 3 && b.flag(c.yes()) { 0 } else { format };
        bit_depth = (8 + b.ue(c.up_to(6)) as u8, 8 + b.ue(c.up_to(6)) as u8);
        b.flag(c.yes());
        if b.flag(c.yes()) {
            scaling_lists(c, &mut b, if format == 3 { 12 } else { 8 });
        }
    }
    b.ue(c.up_to(12));
    let pic_order_cnt_type = b.ue(c.up_to(2));
    match pic_order_cnt_type {
        0 => _ = b.ue(c.up_to(12)),
        1 => {
            b.flag(c.yes());
            // Two offsets, and those of a cycle.
            b.se(c.up_to(u32::MAX - 1) as i32 / 2);
            b.se(c.up_to(u32::MAX - 1) as i32 / 2);
            for _ in 0..b.ue(c.up_to(255)) {
                b.se(c.up_to(2000) as i32 - 1000);
            }
        }
        _ => {}
    }
    let max_num_ref_frames = b.ue(c.up_to(16));
    b.flag(c.yes());
    let (width_mbs, height_units) = (b.ue(1 + c.up_to(254)) + 1, b.ue(1 + c.up_to(254)) + 1);
    if !b.flag(frame_mbs_only) {
        b.flag(c.yes());
    }
    b.flag(c.yes());
    let (mut width, mut height) = (16 * width_mbs, 16 * height_units * if frame_mbs_only { 1 } else { 2 });
    if b.flag(c.yes()) {
        let [left, right, top, bottom] = [(); 4].map(|()| b.ue(c.up_to(3)));
        // ITU-T H.264 table 6-1 and equations 7-19 to 7-22.
        width -= (left + right) * if [1, 2].contains(&array_type) { 2 } else { 1 };
        height -= (top + bottom) * if array_type == 1 { 2 } else { 1 } * if frame_mbs_only { 1 } else { 2 };
    }
    let (mut fps, mut vui_bits, mut restriction) = (None, None, None);
    if c.yes() {
        let mut b = Bits::default();
        fps = vui(c, &mut b);
        vui_bits = Some(b);
        restriction = c.yes().then(|| {
            let mut before = Bits::default();
            before.flag(c.yes());
            (0..4).for_each(|_| _ = before.ue(c.up_to(16)));
            (before, c.up_to(16), c.up_to(16))
        });
    }
    let info = SpsInfo {
        profile_idc: profile_idc as u8,
        constraint_flags: constraint_flags as u8,
        level_idc: level_idc as u8,
        width,
        height,
        chroma_format: format as u8,
        bit_depth,
        max_num_ref_frames,
        pic_order_cnt_type,
        frame_mbs_only,
        fps,
        max_num_reorder_frames: restriction.as_ref().map(|restriction| restriction.1),
        max_dec_frame_buffering: restriction.as_ref().map(|restriction| restriction.2),
    };
    Sps { head: b, vui: vui_bits, restriction, info }
}

/// ITU-T H.264 7.3.2.1.1.1.
fn scaling_lists(c: &mut Choices, b: &mut Bits, count: usize) {
    for list in 0..count {
        if !b.flag(c.yes()) {
            continue;
        }
        let (mut last, mut next) = (8, 8);
        for _ in 0..if list < 6 { 16 } else { 64 } {
            if next != 0 {
                let delta = c.up_to(255) as i32 - 128;
                b.se(delta);
                next = (last + delta + 256) % 256;
            }
            last = if next == 0 { last } else { next };
        }
    }
}

/// `vui_parameters` (ITU-T H.264 E.1.1) up to `bitstream_restriction_flag`; gives the frame rate.
fn vui(c: &mut Choices, b: &mut Bits) -> Option<(u32, u32)> {
    if b.flag(c.yes()) {
        let aspect_ratio_idc = if c.yes() { 255 } else { c.up_to(16) };
        b.bits(aspect_ratio_idc, 8);
        if aspect_ratio_idc == 255 {
            b.bits(c.up_to(u32::MAX), 32);
        }
    }
    if b.flag(c.yes()) {
        b.flag(c.yes());
    }
    if b.flag(c.yes()) {
        b.bits(c.up_to(15), 4);
        if b.flag(c.yes()) {
            b.bits(c.up_to(u32::MAX), 24);
        }
    }
    if b.flag(c.yes()) {
        b.ue(c.up_to(5));
        b.ue(c.up_to(5));
    }
    let mut fps = None;
    if b.flag(c.yes()) {
        let (units_in_tick, time_scale) = match c.up_to(2) {
            0 => (1001, 60_000),
            1 => (1, 50),
            _ => (c.up_to(u32::MAX), c.up_to(u32::MAX)),
        };
        b.bits(units_in_tick, 32);
        b.bits(time_scale, 32);
        b.flag(c.yes());
        let (num, den) = (u64::from(time_scale), 2 * u64::from(units_in_tick));
        let (mut divisor, mut rest) = (num, den);
        while rest > 0 {
            (divisor, rest) = (rest, divisor % rest);
        }
        if num > 0 && den > 0 {
            fps = u32::try_from(num / divisor).ok().zip(u32::try_from(den / divisor).ok());
        }
    }
    let hrd = |b: &mut Bits, c: &mut Choices| {
        let present = b.flag(c.yes());
        if present {
            let count = b.ue(c.up_to(31)) + 1;
            b.bits(c.up_to(255), 8);
            for _ in 0..count {
                b.ue(c.up_to(u32::MAX - 1));
                b.ue(c.up_to(u32::MAX - 1));
                b.flag(c.yes());
            }
            b.bits(c.up_to(u32::MAX), 20);
        }
        present
    };
    let (nal, vcl) = (hrd(b, c), hrd(b, c));
    if nal || vcl {
        b.flag(c.yes());
    }
    b.flag(c.yes());
    fps
}

fn any_sps(frame_mbs_only: bool) -> impl Strategy<Value = Sps> {
    prop::collection::vec(any::<u32>(), 1..200)
        .prop_map(move |words| sps(&mut Choices { words, at: 0 }, frame_mbs_only))
}

/// Bytes among which are many that start codes are made of.
fn bytes(length: impl Into<prop::collection::SizeRange>) -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(prop_oneof![3 => 0..4_u8, 1 => any::<u8>()], length)
}

/// A NAL unit as the standards want it: its header is no zero byte, start codes are prevented, and it ends in no zero
/// byte.
fn nal() -> impl Strategy<Value = Vec<u8>> {
    // Parameter sets, delimiters and keyframes of both codecs often.
    let known = prop::sample::select(&[0x67_u8, 0x68, 0x65, 0x09, 0x40, 0x42, 0x44, 0x46, 0x28][..]);
    (prop_oneof![3 => known, 1 => 1..128_u8], bytes(0..60)).prop_map(|(header, mut rbsp)| {
        rbsp.push(0x80);
        [&[header][..], &escape(&rbsp)].concat()
    })
}

/// NAL units with start codes of both kinds and zeros between them.
fn stream() -> impl Strategy<Value = (Vec<Vec<u8>>, Vec<u8>)> {
    prop::collection::vec((0..4_usize, nal()), 0..8).prop_map(|parts| {
        let stream =
            parts.iter().flat_map(|(zeros, nal)| [&[0, 0, 0][..*zeros], SHORT_START_CODE, nal].concat()).collect();
        (parts.into_iter().map(|(_, nal)| nal).collect(), stream)
    })
}

fn split(data: &[u8]) -> Vec<Vec<u8>> {
    nal_units(data).map(<[u8]>::to_vec).collect()
}

fn join(nals: &[Vec<u8>]) -> Vec<u8> {
    nals.iter().flat_map(|nal| [&START_CODE, &nal[..]].concat()).collect()
}

fn has_start_code(data: &[u8]) -> bool {
    memmem::find(data, SHORT_START_CODE).is_some()
}

proptest! {
    #![proptest_config(ProptestConfig {
        rng_seed: RngSeed::Fixed(7),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn any_valid_sps_is_read(sps in prop::bool::ANY.prop_flat_map(any_sps)) {
        let nal = sps.nal();
        prop_assume!(nal.len() <= 2048);
        prop_assert_eq!(parse_sps(&nal), Ok(sps.info));
    }

    #[test]
    fn the_rewrite_of_any_sps_changes_what_it_shall_and_nothing_else(sps in any_sps(true)) {
        let nal = sps.nal();
        prop_assume!(nal.len() <= 2000);
        let rewritten = rewrite_sps_zero_reorder(&nal).unwrap();
        let expected = sps.without_reordering();
        prop_assert_eq!(&rewritten, &expected.nal());
        let (before, after) = (parse_sps(&nal).unwrap(), parse_sps(&rewritten).unwrap());
        let buffering = Some(before.max_num_ref_frames);
        let expected = SpsInfo { max_num_reorder_frames: Some(0), max_dec_frame_buffering: buffering, ..before };
        prop_assert_eq!(after, expected);
        prop_assert_eq!(rewrite_sps_zero_reorder(&rewritten), Ok(rewritten));
    }

    #[test]
    fn an_interlaced_sps_is_left_alone(sps in any_sps(false)) {
        let nal = sps.nal();
        prop_assume!(nal.len() <= 2048);
        prop_assert_eq!(rewrite_sps_zero_reorder(&nal), Err(SpsError::Interlaced));
    }

    #[test]
    fn a_damaged_sps_does_no_harm(
        sps in any_sps(true),
        at in any::<prop::sample::Index>(),
        bit in 0..8_u32,
        cut in any::<bool>(),
    ) {
        let mut nal = sps.nal();
        let at = at.index(nal.len());
        if cut { nal.truncate(at) } else { nal[at] ^= 1_u8 << bit }
        let _ = parse_h265_sps(&nal);
        if let Ok(rewritten) = rewrite_sps_zero_reorder(&nal) {
            prop_assert_eq!(parse_sps(&rewritten).unwrap().max_num_reorder_frames, Some(0));
        }
    }

    #[test]
    fn emulation_prevention_is_undone_and_leaves_no_start_code(rbsp in bytes(0..200)) {
        let nal = escape(&rbsp);
        prop_assert_eq!(unescape(&nal), rbsp);
        prop_assert!(!nal.windows(3).any(|window| window[..2] == [0, 0] && window[2] < 3), "{:x?}", nal);
    }

    #[test]
    fn what_is_joined_is_split_again((nals, stream) in stream(), zeros in 0..5_usize) {
        prop_assert_eq!(&split(&stream), &nals);
        prop_assert_eq!(&split(&join(&nals)), &nals);
        prop_assert_eq!(&split(&[&stream[..], &[0, 0, 0, 0][..zeros.min(4)]].concat()), &nals);
    }

    #[test]
    fn any_bytes_are_split_and_what_comes_of_them_stays(data in bytes(0..300)) {
        let nals = split(&data);
        prop_assert!(nals.iter().all(|nal| !nal.is_empty() && nal.last() != Some(&0) && !has_start_code(nal)));
        prop_assert_eq!(&split(&join(&nals)), &nals);
        for codec in [Codec::H264, Codec::H265] {
            let first = nals.iter().find(|nal| codec.nal_kind(nal).is_slice());
            let keyframe = first.is_some_and(|nal| codec.nal_kind(nal) == NalKind::KeyframeSlice);
            prop_assert_eq!(is_keyframe(codec, &join(&nals)), keyframe);
        }
    }

    #[test]
    fn the_rewrite_of_an_access_unit_touches_sps_alone(
        (nals, stream) in stream(),
        sps in any_sps(true),
        at in any::<prop::sample::Index>(),
    ) {
        let mut nals = nals;
        nals.insert(at.index(nals.len() + 1), sps.nal());
        let rewritten = rewrite_access_unit(Bytes::from(join(&nals)));
        let after = split(&rewritten);
        prop_assert_eq!(after.len(), nals.len());
        for (before, after) in nals.iter().zip(&after) {
            prop_assert!(before == after || Codec::H264.nal_kind(before) == NalKind::Sps);
        }
        prop_assert_eq!(rewrite_access_unit(rewritten.clone()), rewritten);
        prop_assert_eq!(split(&rewrite_access_unit(stream.clone().into())).len(), split(&stream).len());
    }

    #[test]
    fn a_keyframe_gets_all_sets_and_loses_nothing(
        (nals, stream) in stream(),
        sets in prop::collection::vec(nal(), 1..6),
    ) {
        for codec in [Codec::H264, Codec::H265] {
            let mut cache = ParameterSetCache::new(codec);
            cache.update(&join(&sets));
            let unit = Bytes::from(stream.clone());
            let completed = split(&with_parameter_sets(unit, &cache));
            prop_assert!(nals.iter().all(|nal| completed.contains(nal)));
            if cache.complete() && is_keyframe(codec, &stream) {
                let count = |wanted| completed.iter().filter(|nal| codec.nal_kind(nal) == wanted).count();
                prop_assert!(count(NalKind::Sps) > 0 && count(NalKind::Pps) > 0);
            }
        }
    }
}
