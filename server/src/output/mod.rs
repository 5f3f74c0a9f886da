//! What takes the encoded stream to viewers.

pub mod jpeg;
pub mod pilots;
pub mod places;
pub mod recording;
pub mod ring;
pub mod rtp;
pub mod rtsp;
pub mod takers;
pub mod webrtc;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use rov_common::discovery::Announcement;

use crate::progress::Beat;

/// Who watches a stream by one output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Audience {
    /// Now.
    pub viewers: u64,
    /// Bytes of video that they and those before them were sent.
    pub sent: u64,
}

/// One way to viewers, as the composition root needs to know it.
pub trait Output: Send + Sync {
    fn name(&self) -> &'static str;

    /// Where viewers find it, for the log; `here` is an address of this machine. None: nowhere of its own.
    fn place(&self, here: IpAddr) -> Option<String>;

    /// Adds to the announcement what viewers must know of it.
    fn announce(&self, announcement: &mut Announcement);

    /// Shows whether its thread makes progress, and after how long without it hangs. None: it has no thread all the
    /// time.
    fn beat(&self) -> Option<(&Arc<Beat>, Duration)>;

    /// How many watch now; zero where nobody can tell.
    fn viewers(&self) -> u64;

    /// Whether its thread has ended although nobody asked it to.
    fn has_died(&self) -> bool;

    /// Tells its viewers, and ends. Blocks for two seconds at most.
    fn shutdown(&self);
}
