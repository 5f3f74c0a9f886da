//! The ways in: each gives whole RTP packets of one H.264 or H.265 stream.

pub mod webrtc;
