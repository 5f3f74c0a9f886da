//! What `rov-server` and `rov-client` share of GStreamer.

pub mod caps;
pub mod clock;
pub mod counter;
pub mod decoders;
pub mod element;
mod losses;
pub mod message;
pub mod rtp;
pub mod rtspsrc;
