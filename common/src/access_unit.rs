//! The seam of the system: one encoded picture. Capture and encoding are on one side of it, outputs on the other.

use std::time::{Duration, Instant};

use bytes::Bytes;

/// One coded picture in decoding order, which is also its presentation order (there are no B-frames).
#[derive(Clone, Debug)]
pub struct AccessUnit {
    /// H.264 or H.265 byte stream (Annex B of ITU-T H.264 and H.265): NAL units with start codes. A keyframe carries
    /// its parameter sets in band.
    pub data: Bytes,
    /// Presentation time since the start of the stream.
    pub pts: Duration,
    /// When the picture was captured, on this machine's monotonic clock: by the source where it knows that, else when
    /// it arrived (`CaptureTime`). What encoders take does not count.
    pub captured_at: Instant,
    /// Decoding can start here: an IDR picture, of H.265 any intra random access picture.
    pub keyframe: bool,
}
