//! The seam of the system: one encoded picture. Capture and encoding are on one side of it, outputs on the other.

use std::time::{Duration, Instant};

use bytes::Bytes;

/// One coded picture in decoding order, which is also its presentation order (there are no B-frames).
#[derive(Clone, Debug)]
pub struct AccessUnit {
    /// H.264 Annex B byte stream (ITU-T H.264 Annex B): NAL units with start codes. A keyframe carries SPS and PPS in band.
    pub data: Bytes,
    /// Presentation time since the start of the stream.
    pub pts: Duration,
    /// When the picture was captured (or read), on this machine's monotonic clock.
    pub captured_at: Instant,
    /// An IDR picture: decoding can start here.
    pub keyframe: bool,
}
