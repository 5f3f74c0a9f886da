//! Whether the pictures differ: a camera that has hung may repeat its last one for ever, which looks alive to
//! everything else.
//!
//! A sample of the raw picture is compared a few times a second, in front of the encoder. Sensors are never without
//! noise, so only what is exactly alike counts. Pictures that the processor cannot read (NVIDIA's memory) are not
//! looked at, nor are those of a stream that goes out untouched, of which the sizes alone say too little.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_video as gst_video;
use gstreamer_video::prelude::*;
use rov_common::sync::lock;

pub(super) const INTERVAL: Duration = Duration::from_millis(250);
/// Compared are of every fourth row [`SAMPLE`] of each [`STEP`] bytes, in each such row [`SHIFT`] further to the right.
const ROWS: usize = 4;
const STEP: usize = 256;
const SAMPLE: usize = 64;
const SHIFT: usize = 16;

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
    let (still, seen) = (still.clone(), Mutex::new(None::<gst::Caps>));
    pad.add_probe(gst::PadProbeType::BUFFER, move |pad, info| {
        let (now, mut still) = (Instant::now(), lock(&still));
        let due = still.is_none_or(|still| now.saturating_duration_since(still.until) >= INTERVAL);
        if due
            && let Some((picture, caps)) = info.buffer().zip(pad.current_caps())
            && let Some(checksum) = checksum(picture, &caps)
        {
            // The same in another format is not another picture.
            let same_format = lock(&seen).replace(caps.clone()).is_some_and(|before| before == caps);
            *still = Some(Still::next(still.filter(|_| same_format), checksum, now));
        }
        gst::PadProbeReturn::Ok
    });
}

fn is_readable(caps: &gst::CapsRef) -> bool {
    let foreign = |feature: &gst::glib::GStr| feature.starts_with("memory:") && feature != "memory:SystemMemory";
    caps.features(0).is_none_or(|features| !features.iter().any(foreign))
}

/// Of a sample of the first plane. What stands between its rows is no picture, and differs from buffer to buffer.
fn checksum(picture: &gst::BufferRef, caps: &gst::CapsRef) -> Option<u64> {
    let info = gst_video::VideoInfo::from_caps(caps).ok().filter(|info| info.is_valid() && is_readable(caps))?;
    let frame = gst_video::VideoFrameRef::from_buffer_ref_readable(picture, &info).ok()?;
    let (stride, pixel) =
        (*frame.plane_stride().first()? as usize, *info.format_info().pixel_stride().first()? as usize);
    let used = (info.width() as usize * pixel.max(1)).min(stride);
    let rows = frame.plane_data(0).ok()?.chunks(stride.max(1)).enumerate().step_by(ROWS);
    // The hash of Firefox and rustc: it need not resist anybody.
    Some(rows.fold(0, |sum, (number, row)| {
        let row = row.get(..used).and_then(|row| row.get(number * SHIFT % STEP..)).unwrap_or_default();
        let words = row.chunks(STEP).flat_map(|step| step[..step.len().min(SAMPLE)].chunks(8));
        words.fold(sum, |sum: u64, word| {
            let word = word.iter().fold(0, |word, byte| (word << 8) | u64::from(*byte));
            (sum.rotate_left(5) ^ word).wrapping_mul(0x517c_c1b7_2722_0a95)
        })
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
    fn a_difference_of_one_in_the_sample_is_seen_and_what_is_between_the_rows_is_not() {
        gst::init().unwrap();
        // Rows of 101 pixels lie 104 bytes apart.
        let info = gst_video::VideoInfo::builder(gst_video::VideoFormat::I420, 101, 48).build().unwrap();
        let (caps, stride) = (info.to_caps().unwrap(), info.stride()[0] as usize);
        assert_eq!(stride, 104);
        let sum = |at: Option<usize>| {
            let mut bytes = vec![16_u8; info.size()];
            at.into_iter().for_each(|at| bytes[at] += 1);
            checksum(&gst::Buffer::from_mut_slice(bytes), &caps)
        };
        assert!(sum(None).is_some());
        for seen in [0, 63, 4 * stride + 4 * SHIFT, 4 * stride + 100] {
            assert_ne!(sum(Some(seen)), sum(None), "{seen}");
        }
        for ignored in [101, 4 * stride + 103] {
            assert_eq!(sum(Some(ignored)), sum(None), "{ignored}");
        }
    }

    #[test]
    fn what_the_processor_cannot_read_is_not_looked_at() {
        gst::init().unwrap();
        let caps = |text: &str| text.parse::<gst::Caps>().unwrap();
        let picture = gst::Buffer::from_slice([0; 6]);
        let size = "format=I420,width=2,height=2,framerate=30/1";
        assert_eq!(checksum(&picture, &caps(&format!("video/x-raw(memory:NVMM),{size}"))), None);
        assert_eq!(checksum(&picture, &caps("video/x-h264")), None);
        assert_eq!(checksum(&gst::Buffer::new(), &caps(&format!("video/x-raw,{size}"))), None, "no memory");
    }
}
