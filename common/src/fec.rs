//! Forward error correction for RTP (RFC 8627, FLEX FEC): parity packets that let a receiver rebuild lost ones where
//! nobody can be asked to send them again.
//!
//! Each access unit is a block of its own (a large one several), so that its repair packets leave right behind it, and
//! mostly a loss costs no wait for later pictures. Which packets each repair packet covers is that of a cyclic code
//! (`code`), which receivers solve as a system of equations: `n` repair packets bring back any burst of `n`, and most
//! other losses of up to `n`. Each repair packet covers a part of the block before as well. So what a block's own
//! repair packets could not bring back, or were lost with, the next ones mostly do, a frame later; that counts most for
//! small pictures, of a packet or two.
//!
//! Limits: one source SSRC, no retransmissions of RFC 8627 (R = 1). Flexible masks are made and taken (section
//! 4.2.2.1), fixed blocks (section 4.2.2.2) only taken. Pure: the sockets are in the server's output and the client's
//! receiver.

mod code;
mod decoder;
mod encoder;
mod packet;

pub use self::decoder::Decoder;
pub use self::encoder::Encoder;
pub use self::packet::PAYLOAD_TYPE;

#[cfg(test)]
mod tests;
