//! What `rov-server` and `rov-client` share of GStreamer.

pub mod element;
pub mod rtp;
pub mod rtspsrc;
