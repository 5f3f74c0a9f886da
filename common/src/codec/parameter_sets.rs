//! The parameter sets of a stream: kept, and put before a keyframe that came without them.

use bytes::Bytes;

use super::bits::{BitReader, unescape};
use super::{AUD, PPS, SPS, START_CODE, is_keyframe, nal_type, spans_before_slices};

/// One SPS and the PPSs that came with or after it, without start codes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ParameterSets {
    /// Empty while none was seen.
    pub sps: Bytes,
    /// One for each `pic_parameter_set_id`, in the order of the ids; 256 at most.
    pub pps: Vec<Bytes>,
}

/// Remembers the newest parameter sets of a stream with one SPS (all encoders of this project, and all common cameras).
#[derive(Clone, Debug, Default)]
pub struct ParameterSetCache {
    sets: ParameterSets,
}

impl ParameterSetCache {
    /// Takes over the parameter sets that stand before the first slice of the access unit; true if any of them is new or different.
    pub fn update(&mut self, au: &[u8]) -> bool {
        let mut changed = false;
        for (start, end) in spans_before_slices(au) {
            let nal = &au[start..end];
            changed |= match nal_type(nal) {
                SPS => self.set_sps(nal),
                PPS => self.set_pps(nal),
                _ => false,
            };
        }
        changed
    }

    /// Whether a decoder can start with what is here.
    pub fn complete(&self) -> bool {
        !self.sets.sps.is_empty() && !self.sets.pps.is_empty()
    }

    pub fn sets(&self) -> &ParameterSets {
        &self.sets
    }

    /// Appends SPS and PPSs with start codes of four bytes; nothing unless [`complete`](Self::complete).
    pub fn write_annexb(&self, out: &mut Vec<u8>) {
        if !self.complete() {
            return;
        }
        for nal in std::iter::once(&self.sets.sps).chain(&self.sets.pps) {
            out.extend_from_slice(&START_CODE);
            out.extend_from_slice(nal);
        }
    }

    /// Bytes that [`write_annexb`](Self::write_annexb) appends.
    fn annexb_len(&self) -> usize {
        std::iter::once(&self.sets.sps).chain(&self.sets.pps).map(|nal| START_CODE.len() + nal.len()).sum()
    }

    fn set_sps(&mut self, nal: &[u8]) -> bool {
        if self.sets.sps == nal {
            return false;
        }
        // A PPS is parsed with the SPS it refers to, so that those of another SPS mean nothing any more. The copy is small; a slice of
        // the access unit would keep all of it in memory.
        self.sets = ParameterSets { sps: Bytes::copy_from_slice(nal), pps: Vec::new() };
        true
    }

    fn set_pps(&mut self, nal: &[u8]) -> bool {
        let Some(id) = pps_id(nal) else { return false };
        let found = self.sets.pps.binary_search_by_key(&Some(id), |known| pps_id(known));
        match found {
            Ok(index) if self.sets.pps[index] == nal => return false,
            Ok(index) => self.sets.pps[index] = Bytes::copy_from_slice(nal),
            Err(index) => self.sets.pps.insert(index, Bytes::copy_from_slice(nal)),
        }
        true
    }
}

/// Puts the cached SPS and PPSs before a keyframe that lacks an SPS or a PPS; returns any other access unit itself, not a copy.
///
/// An access unit delimiter stays first, as ITU-T H.264 7.4.1.2.3 demands.
pub fn with_parameter_sets(au: Bytes, cache: &ParameterSetCache) -> Bytes {
    if !cache.complete() || !is_keyframe(&au) {
        return au;
    }
    let (mut has_sps, mut has_pps, mut insert_at) = (false, false, 0);
    for (start, end) in spans_before_slices(&au) {
        match nal_type(&au[start..end]) {
            SPS => has_sps = true,
            PPS => has_pps = true,
            AUD => insert_at = end,
            _ => {}
        }
    }
    if has_sps && has_pps {
        return au;
    }
    let mut out = Vec::with_capacity(au.len() + cache.annexb_len());
    out.extend_from_slice(&au[..insert_at]);
    cache.write_annexb(&mut out);
    out.extend_from_slice(&au[insert_at..]);
    out.into()
}

/// `pic_parameter_set_id`, 0 to 255 (ITU-T H.264 7.4.2.2).
fn pps_id(nal: &[u8]) -> Option<u32> {
    // The id takes 17 bits at most, so that five bytes hold it with any emulation prevention.
    let start = unescape(nal.get(1..nal.len().min(6))?);
    BitReader::over_prefix(&start).ue().ok().filter(|&id| id <= 255)
}

#[cfg(test)]
mod tests {
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
        let mut cache = ParameterSetCache::default();
        cache.update(&join(nals));
        cache
    }

    #[test]
    fn the_cache_reports_a_change_once() {
        let mut cache = ParameterSetCache::default();
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
    fn other_access_units_are_passed_on_uncopied() {
        let full = cache(&[SPS_A, PPS_0, IDR_SLICE]);
        for au in [join(&[P_SLICE]), join(&[SPS_A, PPS_0, IDR_SLICE])] {
            assert_eq!(with_parameter_sets(au.clone(), &full).as_ptr(), au.as_ptr());
        }
        let keyframe = join(&[IDR_SLICE]);
        assert_eq!(with_parameter_sets(keyframe.clone(), &ParameterSetCache::default()).as_ptr(), keyframe.as_ptr());
    }

    #[test]
    fn a_damaged_picture_parameter_set_is_ignored() {
        assert!(!cache(&[SPS_A, &[0x68], &[0x68, 0, 1, 0], IDR_SLICE]).complete());
    }
}
