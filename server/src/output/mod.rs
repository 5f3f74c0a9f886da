//! What takes the encoded stream to viewers.

mod catalogue;
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

use rov_common::api::{Stats, StreamStats};
use rov_common::discovery::Announcement;

pub use self::catalogue::{Given, Outputs};
use crate::progress::Beat;
use crate::stream::Stream;

/// One way to viewers, as the composition root and the statistics need to know it.
pub trait Output: Send + Sync {
    fn name(&self) -> &'static str;

    /// Where viewers find it, for the log; `here` is an address of this machine. None: nowhere of its own.
    fn place(&self, _here: IpAddr) -> Option<String> {
        None
    }

    /// Adds to the announcement what viewers must know of it.
    fn announce(&self, _announcement: &mut Announcement) {}

    /// Adds what it counts, of its streams too.
    fn tell(&self, _stats: &mut Stats) {}

    /// Shows whether its thread makes progress, and after how long without it hangs. None: it has no thread all the
    /// time.
    fn beat(&self) -> Option<(&Arc<Beat>, Duration)> {
        None
    }

    /// How many watch now; zero where nobody can tell.
    fn viewers(&self) -> u64 {
        0
    }

    /// Whether its thread has ended although nobody asked it to.
    fn has_died(&self) -> bool {
        false
    }

    /// Begins what takes time of its end. All do before the first is waited for.
    fn end(&self) {}

    /// Tells its viewers, and ends. Blocks for two seconds at most.
    fn shutdown(&self);
}

/// What is told of this stream: so many more viewers, and bytes of video that they and those before them were sent.
fn told_of<'a>(stats: &'a mut Stats, stream: &Stream, viewers: u64, sent: u64) -> Option<&'a mut StreamStats> {
    let told = stats.streams.iter_mut().find(|told| told.name == stream.name())?;
    told.client_count += viewers;
    told.total_bytes_streamed += sent;
    Some(told)
}
