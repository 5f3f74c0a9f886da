//! Whether the pictures differ: a camera that has hung may repeat its last one for ever, which looks alive to everything else.
//!
//! A sample of the raw picture is compared a few times a second, in front of the encoder. Sensors are never without noise,
//! so only what is exactly alike counts. Pictures that the processor cannot read (NVIDIA's memory) are not looked at, nor are
//! those of a stream that goes out untouched, of which the sizes alone say too little.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use gstreamer as gst;
use gstreamer::prelude::*;
use rov_common::sync::lock;

const INTERVAL: Duration = Duration::from_millis(250);
/// Of each so many bytes the first [`SAMPLE`] are compared: a prime, so that each row gives other columns.
const STEP: usize = 1031;
const SAMPLE: usize = 64;

/// What was seen of the newest picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Still {
    /// Of the sample.
    pub checksum: u64,
    /// When the first and the last of the pictures that are like it were looked at.
    pub since: Instant,
    pub until: Instant,
    /// How many were alike.
    pub looks: u32,
    /// There was another picture before.
    pub has_changed: bool,
}

impl Still {
    fn next(before: Option<Self>, checksum: u64, now: Instant) -> Self {
        match before {
            Some(same) if same.checksum == checksum => Self { until: now, looks: same.looks.saturating_add(1), ..same },
            other => Self { checksum, since: now, until: now, looks: 1, has_changed: other.is_some() },
        }
    }
}

/// Looks at the pictures that pass `pad`.
pub fn watch(pad: &gst::Pad, still: &Arc<Mutex<Option<Still>>>) {
    let still = still.clone();
    pad.add_probe(gst::PadProbeType::BUFFER, move |pad, info| {
        let (now, mut still) = (Instant::now(), lock(&still));
        let due = still.is_none_or(|still| now.saturating_duration_since(still.until) >= INTERVAL);
        if due && let Some(checksum) = info.buffer().filter(|_| is_readable(pad)).and_then(|picture| checksum(picture))
        {
            *still = Some(Still::next(*still, checksum, now));
        }
        gst::PadProbeReturn::Ok
    });
}

fn is_readable(pad: &gst::Pad) -> bool {
    let foreign = |feature: &gst::glib::GStr| feature.starts_with("memory:") && feature != "memory:SystemMemory";
    pad.current_caps().is_some_and(|caps| caps.features(0).is_none_or(|features| !features.iter().any(foreign)))
}

/// Of the first plane, as the planes may lie apart: putting them together would copy them.
fn checksum(picture: &gst::BufferRef) -> Option<u64> {
    let memory = (picture.n_memory() > 0).then(|| picture.peek_memory(0))?;
    let bytes = memory.map_readable().ok()?;
    let words = bytes.chunks(STEP).flat_map(|step| step[..step.len().min(SAMPLE)].chunks(8));
    // The hash of Firefox and rustc: it need not resist anybody.
    Some(words.fold(0, |sum: u64, word| {
        let word = word.iter().fold(0, |word, byte| (word << 8) | u64::from(*byte));
        (sum.rotate_left(5) ^ word).wrapping_mul(0x517c_c1b7_2722_0a95)
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_that_are_alike_are_counted_until_one_differs() {
        let start = Instant::now();
        let at = |quarter: u32| start + INTERVAL * quarter;
        let mut still = None;
        for (quarter, checksum) in [(0, 7), (1, 7), (2, 7), (3, 8), (4, 8)] {
            still = Some(Still::next(still, checksum, at(quarter)));
            if quarter == 2 {
                let same = Still { checksum: 7, since: at(0), until: at(2), looks: 3, has_changed: false };
                assert_eq!(still, Some(same));
            }
        }
        assert_eq!(still, Some(Still { checksum: 8, since: at(3), until: at(4), looks: 2, has_changed: true }));
    }

    #[test]
    fn a_difference_of_one_anywhere_in_the_sample_is_seen() {
        gst::init().unwrap();
        let sum = |at: Option<usize>| {
            let mut bytes = vec![16_u8; 640 * 480];
            at.into_iter().for_each(|at| bytes[at] += 1);
            checksum(&gst::Buffer::from_mut_slice(bytes))
        };
        assert_eq!(sum(None), sum(None));
        for at in [0, 63, STEP, 200 * STEP + 13] {
            assert_ne!(sum(Some(at)), sum(None), "{at}");
        }
        assert_eq!(checksum(&gst::Buffer::new()), None, "no memory");
    }
}
