//! What takes the encoded stream to viewers.

pub mod jpeg;
pub mod rtp;
pub mod rtsp;
pub mod webrtc;
