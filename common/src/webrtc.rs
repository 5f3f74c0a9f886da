//! What both ends of a WebRTC session go by.

use std::time::Duration;

/// The RTP header extension by which receivers tell when each packet arrived
/// (draft-holmer-rmcat-transport-wide-cc-extensions-01).
pub const TRANSPORT_CC_URI: &str = "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01";

/// Between connectivity checks, and how many for each candidate: three seconds. The default of 200 ms makes a viewer
/// wait that long for its first picture, because the first check is always too early for one side.
pub const ICE_CHECK_INTERVAL: Duration = Duration::from_millis(20);
pub const ICE_CHECKS: u16 = 150;
