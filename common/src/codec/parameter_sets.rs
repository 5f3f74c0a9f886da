//! The parameter sets of a stream: kept, and put before a keyframe that came without them.

use bytes::Bytes;
use memchr::memmem;

use super::bits::{BitReader, unescape};
use super::{Codec, NalKind, SHORT_START_CODE, START_CODE, is_keyframe, spans_before_slices};

/// One SPS and the PPSs that came with or after it, and the VPS before it, without start codes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ParameterSets {
    /// Of H.265; empty while none was seen, and always with H.264.
    pub vps: Bytes,
    /// Empty while none was seen.
    pub sps: Bytes,
    /// One for each `pic_parameter_set_id`, in the order of the ids; 256 at most (H.265: 64).
    pub pps: Vec<Bytes>,
}

/// Remembers the newest parameter sets of a stream with one SPS (all encoders of this project, and all common cameras).
#[derive(Clone, Debug)]
pub struct ParameterSetCache {
    codec: Codec,
    sets: ParameterSets,
}

impl ParameterSets {
    /// In the order in which a decoder needs them.
    fn all(&self) -> impl Iterator<Item = &Bytes> {
        [&self.vps, &self.sps].into_iter().chain(&self.pps).filter(|nal| !nal.is_empty())
    }
}

impl ParameterSetCache {
    pub fn new(codec: Codec) -> Self {
        Self { codec, sets: ParameterSets::default() }
    }

    /// Takes over the parameter sets that stand before the first slice of the access unit; true if any of them is new
    /// or different.
    pub fn update(&mut self, au: &[u8]) -> bool {
        if !self.codec.has_parameter_sets() {
            return false;
        }
        let mut changed = false;
        for (start, end) in spans_before_slices(self.codec, au) {
            let nal = &au[start..end];
            changed |= match self.codec.nal_kind(nal) {
                NalKind::Vps => self.set_vps(nal),
                NalKind::Sps => self.set_sps(nal),
                NalKind::Pps => self.set_pps(nal),
                _ => false,
            };
        }
        changed
    }

    /// Whether a decoder can start with what is here.
    pub fn complete(&self) -> bool {
        let vps = self.codec == Codec::H264 || !self.sets.vps.is_empty();
        vps && !self.sets.sps.is_empty() && !self.sets.pps.is_empty()
    }

    pub fn sets(&self) -> &ParameterSets {
        &self.sets
    }

    /// Appends VPS, SPS and PPSs with start codes of four bytes; nothing unless [`complete`](Self::complete).
    pub fn write_annexb(&self, out: &mut Vec<u8>) {
        if !self.complete() {
            return;
        }
        for nal in self.sets.all() {
            out.extend_from_slice(&START_CODE);
            out.extend_from_slice(nal);
        }
    }

    /// Bytes that [`write_annexb`](Self::write_annexb) appends.
    fn annexb_len(&self) -> usize {
        self.sets.all().map(|nal| START_CODE.len() + nal.len()).sum()
    }

    // A PPS is parsed with the SPS it refers to, and an SPS belongs to a VPS, so that those of another mean nothing any
    // more. The copies are small; slices of the access unit would keep all of it in memory.
    fn set_vps(&mut self, nal: &[u8]) -> bool {
        if self.sets.vps == nal {
            return false;
        }
        self.sets = ParameterSets { vps: Bytes::copy_from_slice(nal), ..ParameterSets::default() };
        true
    }

    fn set_sps(&mut self, nal: &[u8]) -> bool {
        if self.sets.sps == nal {
            return false;
        }
        let vps = std::mem::take(&mut self.sets.vps);
        self.sets = ParameterSets { vps, sps: Bytes::copy_from_slice(nal), pps: Vec::new() };
        true
    }

    fn set_pps(&mut self, nal: &[u8]) -> bool {
        let id = |nal: &[u8]| pps_id(self.codec, nal);
        let Some(new) = id(nal) else { return false };
        let found = self.sets.pps.binary_search_by_key(&Some(new), |known| id(known));
        match found {
            Ok(index) if self.sets.pps[index] == nal => return false,
            Ok(index) => self.sets.pps[index] = Bytes::copy_from_slice(nal),
            Err(index) => self.sets.pps.insert(index, Bytes::copy_from_slice(nal)),
        }
        true
    }
}

/// Puts the cached parameter sets before a keyframe that lacks one of them; returns any other access unit itself, not a
/// copy.
///
/// An access unit delimiter stays first, as ITU-T H.264 7.4.1.2.3 and ITU-T H.265 7.4.2.4.4 demand.
pub fn with_parameter_sets(au: Bytes, cache: &ParameterSetCache) -> Bytes {
    let codec = cache.codec;
    if !cache.complete() || !is_keyframe(codec, &au) {
        return au;
    }
    let (mut has_vps, mut has_sps, mut has_pps) = (codec == Codec::H264, false, false);
    // Behind what is no NAL unit at all, which would become the end of the last parameter set.
    let first = memmem::find(&au, SHORT_START_CODE).unwrap_or(0);
    let mut insert_at = au[..first].iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
    for (start, end) in spans_before_slices(codec, &au) {
        match codec.nal_kind(&au[start..end]) {
            NalKind::Vps => has_vps = true,
            NalKind::Sps => has_sps = true,
            NalKind::Pps => has_pps = true,
            NalKind::Delimiter => insert_at = end,
            _ => {}
        }
    }
    if has_vps && has_sps && has_pps {
        return au;
    }
    let mut out = Vec::with_capacity(au.len() + cache.annexb_len());
    out.extend_from_slice(&au[..insert_at]);
    cache.write_annexb(&mut out);
    out.extend_from_slice(&au[insert_at..]);
    out.into()
}

/// `pic_parameter_set_id`, 0 to 255 (ITU-T H.264 7.4.2.2), of H.265 0 to 63 (ITU-T H.265 7.4.3.3.1).
fn pps_id(codec: Codec, nal: &[u8]) -> Option<u32> {
    // The id takes 17 bits at most, so that five bytes hold it with any emulation prevention.
    let header = codec.nal_header_len();
    let start = unescape(nal.get(header..nal.len().min(header + 5))?);
    let largest = if codec == Codec::H264 { 255 } else { 63 };
    BitReader::over_prefix(&start).ue().ok().filter(|&id| id <= largest)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::codec::nal_units;

    const SPS_A: &[u8] = &[0x67, 0x42, 0xc0, 0x28, 0xd9];
    const SPS_B: &[u8] = &[0x67, 0x42, 0xc0, 0x1f, 0xd9];
    /// PPSs with the ids 0 ('1'), 0 again and 1 ('010').
    const PPS_0: &[u8] = &[0x68, 0xce, 0x3c];
    const PPS_0_OTHER: &[u8] = &[0x68, 0xee, 0x3c];
    const PPS_1: &[u8] = &[0x68, 0x53, 0x80];
    const IDR_SLICE: &[u8] = &[0x65, 0x88, 0x84];
    const P_SLICE: &[u8] = &[0x41, 0x9a, 0x02];

    fn join(nals: &[&[u8]]) -> Bytes {
        nals.iter().flat_map(|nal| START_CODE.iter().chain(nal.iter()).copied()).collect()
    }

    fn cache(nals: &[&[u8]]) -> ParameterSetCache {
        let mut cache = ParameterSetCache::new(Codec::H264);
        cache.update(&join(nals));
        cache
    }

    #[test]
    fn the_cache_reports_a_change_once() {
        let mut cache = ParameterSetCache::new(Codec::H264);
        assert!(!cache.complete());
        let keyframe = join(&[SPS_A, PPS_0, IDR_SLICE]);
        assert!(cache.update(&keyframe));
        assert!(cache.complete());
        assert!(!cache.update(&keyframe));
        assert!(!cache.update(&join(&[P_SLICE])));
        assert!(cache.update(&join(&[SPS_A, PPS_0_OTHER, IDR_SLICE])));
        assert_eq!(cache.sets().pps, [PPS_0_OTHER]);
    }

    #[test]
    fn picture_parameter_sets_are_kept_by_id() {
        let cache = cache(&[SPS_A, PPS_1, PPS_0, IDR_SLICE]);
        assert_eq!(cache.sets().pps, [PPS_0, PPS_1]);
        let mut written = Vec::new();
        cache.write_annexb(&mut written);
        assert_eq!(written, join(&[SPS_A, PPS_0, PPS_1]));
        assert_eq!(written.len(), cache.annexb_len());
    }

    #[test]
    fn a_new_sps_discards_the_old_picture_parameter_sets() {
        let mut cache = cache(&[SPS_A, PPS_0, PPS_1, IDR_SLICE]);
        assert!(cache.update(&join(&[SPS_B])));
        assert!(!cache.complete());
        let mut written = Vec::new();
        cache.write_annexb(&mut written);
        assert!(written.is_empty());
    }

    #[test]
    fn a_keyframe_without_parameter_sets_gets_them_behind_its_delimiter() {
        let cache = cache(&[SPS_A, PPS_0, IDR_SLICE]);
        assert_eq!(with_parameter_sets(join(&[IDR_SLICE]), &cache), join(&[SPS_A, PPS_0, IDR_SLICE]));
        let aud: &[u8] = &[9, 0x10];
        assert_eq!(with_parameter_sets(join(&[aud, IDR_SLICE]), &cache), join(&[aud, SPS_A, PPS_0, IDR_SLICE]));
        let completed = with_parameter_sets(join(&[SPS_A, IDR_SLICE]), &cache);
        assert!(nal_units(&completed).any(|nal| nal == PPS_0));
    }

    #[test]
    fn what_stands_before_the_first_start_code_stays_out_of_the_parameter_sets() {
        let cache = cache(&[SPS_A, PPS_0, IDR_SLICE]);
        let unit = [&[7, 0, 7, 0][..], &join(&[IDR_SLICE])].concat();
        let completed = with_parameter_sets(unit.into(), &cache);
        assert_eq!(nal_units(&completed).collect::<Vec<_>>(), [SPS_A, PPS_0, IDR_SLICE]);
    }

    #[test]
    fn other_access_units_are_passed_on_uncopied() {
        let full = cache(&[SPS_A, PPS_0, IDR_SLICE]);
        for au in [join(&[P_SLICE]), join(&[SPS_A, PPS_0, IDR_SLICE])] {
            assert_eq!(with_parameter_sets(au.clone(), &full).as_ptr(), au.as_ptr());
        }
        let keyframe = join(&[IDR_SLICE]);
        assert_eq!(
            with_parameter_sets(keyframe.clone(), &ParameterSetCache::new(Codec::H264)).as_ptr(),
            keyframe.as_ptr()
        );
    }

    #[test]
    fn a_damaged_picture_parameter_set_is_ignored() {
        assert!(!cache(&[SPS_A, &[0x68], &[0x68, 0, 1, 0], IDR_SLICE]).complete());
    }

    /// The parameter sets that x265 3.5 writes for 320x240 at 30 fps, tuned for zero latency, and the beginning of its
    /// slice.
    pub const X265_VPS: &str = "40010c01ffff01600000030090000003000003003cba0240";
    pub const X265_SPS: &str =
        "42010101600000030090000003000003003ca00a080f165ba4a4c2fff000100016a0c0c0c080000003008000000f04";
    pub const X265_PPS: &str = "4401c0718312";
    pub const X265_SLICE: &str = "2801acb102c7001a01a02c05f39d25d3d66fd5fb6403d2c3";

    pub fn bytes(hex: &str) -> Vec<u8> {
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
    }

    pub fn x265_keyframe() -> Bytes {
        let nals = [X265_VPS, X265_SPS, X265_PPS, X265_SLICE].map(bytes);
        join(&nals.each_ref().map(Vec::as_slice))
    }

    #[test]
    fn a_keyframe_of_h265_gets_all_three_parameter_sets() {
        let mut cache = ParameterSetCache::new(Codec::H265);
        assert!(cache.update(&x265_keyframe()));
        assert!(cache.complete() && !cache.update(&x265_keyframe()));
        let sets = cache.sets();
        assert_eq!((&sets.vps[..], &sets.sps[..]), (&bytes(X265_VPS)[..], &bytes(X265_SPS)[..]));
        assert_eq!(sets.pps, [bytes(X265_PPS)]);
        let slice = bytes(X265_SLICE);
        assert_eq!(with_parameter_sets(join(&[&slice]), &cache), x265_keyframe());
        let aud: &[u8] = &[0x46, 1, 0x10];
        let delimited = with_parameter_sets(join(&[aud, &slice]), &cache);
        assert_eq!(nal_units(&delimited).next(), Some(aud));
        assert_eq!(nal_units(&delimited).count(), 5);
        // An SPS and a PPS alone do for no decoder.
        let without_vps = join(&[&bytes(X265_SPS), &bytes(X265_PPS), &slice]);
        assert_eq!(nal_units(&with_parameter_sets(without_vps, &cache)).next(), Some(&bytes(X265_VPS)[..]));
        let whole = x265_keyframe();
        assert_eq!(with_parameter_sets(whole.clone(), &cache).as_ptr(), whole.as_ptr());
    }

    #[test]
    fn another_vps_discards_what_belongs_to_the_old_one() {
        let mut cache = ParameterSetCache::new(Codec::H265);
        cache.update(&x265_keyframe());
        let mut other = bytes(X265_VPS);
        other[4] ^= 1;
        assert!(cache.update(&join(&[&other])));
        assert!(!cache.complete());
    }
}
