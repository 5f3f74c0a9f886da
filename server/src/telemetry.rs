//! Values of the vehicle, as depth and heading, which others send by UDP: JSON lines (`json`) and MAVLink (`mavlink`).
//! Only what is declared is kept, the newest value of each field. What cannot be read is counted; each datagram costs
//! little, so many are read in a second and no more, and the log has so many lines about each sender.

mod board;
mod json;
mod mavlink;
mod receive;

pub use board::Board;
pub use receive::{Counters, Receivers};

/// What the fuzzer is given: a datagram of either kind, on a board with all fields that there are without any declared.
pub fn take(datagram: &[u8], board: &Board) {
    let now = std::time::Instant::now();
    let _ = json::take(datagram, board, now);
    let _ = mavlink::Link::default().take(datagram, board, now);
}
