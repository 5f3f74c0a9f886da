//! Values of the vehicle, as depth and heading, which others send by UDP: JSON lines (`json`) and MAVLink (`mavlink`).
//! Only what is declared is kept, the newest value of each field, of one sender at a time (`whose`). What cannot be
//! read is counted; each datagram costs little, so many are read in a second and no more, and the log has so many lines
//! about each sender.

mod board;
mod json;
mod mavlink;
mod receive;
mod whose;

use self::whose::Whose;
pub use board::Board;
pub use receive::{Counters, Receivers};

/// What the fuzzer is given: a datagram of either kind, on a board with all fields that there are without any declared.
pub fn take(datagram: &[u8], board: &Board) {
    let (now, sender) = (std::time::Instant::now(), std::net::Ipv4Addr::LOCALHOST.into());
    let _ = json::take(datagram, sender, &mut Whose::default(), board, now);
    let _ = mavlink::Link::default().take(datagram, sender, board, now);
}
