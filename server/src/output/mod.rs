//! The ways out of the server. Each takes RTP frames from its queue of the stream.

pub mod webrtc;
