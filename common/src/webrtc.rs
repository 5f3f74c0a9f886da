//! What both ends of a WebRTC session go by.

use std::time::Duration;

/// The RTP header extension by which receivers tell when each packet arrived
/// (draft-holmer-rmcat-transport-wide-cc-extensions-01).
pub const TRANSPORT_CC_URI: &str = "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01";

/// The RTP header extension with the time of capture, in the first packet of each picture: the short form, 64 bits as
/// NTP has them: <https://webrtc.googlesource.com/src/+/main/docs/native-code/rtp-hdrext/abs-capture-time/README.md>
pub const ABS_CAPTURE_TIME_URI: &str = "http://www.webrtc.org/experiments/rtp-hdrext/abs-capture-time";

/// Between connectivity checks, and how many for each candidate: three seconds. The default of 200 ms makes a viewer
/// wait that long for its first picture, because the first check is always too early for one side.
pub const ICE_CHECK_INTERVAL: Duration = Duration::from_millis(20);
pub const ICE_CHECKS: u16 = 150;
