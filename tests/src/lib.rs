//! What the end-to-end tests need: child processes that never outlive their test, waiting for conditions, an HTTP client,
//! a viewer and an RTSP player in this process, Chromium, and a network that loses packets.
//!
//! Nothing here sends anything beyond loopback, every port is one that the system chose, and every wait has an end.

pub mod browser;
pub mod camera;
pub mod devtools;
pub mod flood;
pub mod fuzz;
pub mod http;
pub mod jpeg;
pub mod media;
pub mod namespace;
pub mod obs;
pub mod process;
pub mod programs;
pub mod proxy;
pub mod relay;
pub mod rtp;
pub mod rtp_sender;
pub mod rtsp;
pub mod screen;
pub mod vlc;
pub mod wait;
pub mod watcher;

/// Says that a test does not run on this machine, and why. Straight to standard error, which the test harness does not hide;
/// `scripts/test` counts these lines.
pub fn skipped(why: &str) {
    use std::io::Write;
    // Nobody may be there to read it.
    let _ = writeln!(std::io::stderr(), "skipped: {why}");
}
