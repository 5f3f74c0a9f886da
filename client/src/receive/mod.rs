//! The ways in: each gives whole RTP packets of one H.264 stream.

pub mod webrtc;
