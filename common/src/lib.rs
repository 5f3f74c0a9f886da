//! What `rov-server` and `rov-client` share. Pure code only: no tokio, no GStreamer, no WebRTC, no clock of its own.

pub mod access_unit;
pub mod api;
pub mod backoff;
pub mod codec;
pub mod discovery;
pub mod stamp;
pub mod units;
pub mod window;
