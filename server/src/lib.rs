
mod net;
pub mod output;
pub mod packetize;
pub mod stream;
pub mod http;
pub mod watchdog;
