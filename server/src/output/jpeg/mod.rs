//! JPEG pictures of the stream, for the simplest viewers: snapshots in full size, and previews at a low rate.
//!
//! They are made from the shared encode, by decoding it again. That costs as much as a viewer's decoder, so nothing of
//! it runs while nobody watches: the first who wants a picture starts the pipeline, and five seconds after the last it
//! stops. Those of a stream of MJPEG are its own, at any rate and in full size.

mod direct;
mod pipeline;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use rov_common::api::{JpegStats, Stats};
use rov_common::backoff::Backoff;
use rov_common::capture_clock::{CaptureClock, Captured};
use rov_common::codec::Codec;
use rov_common::decimate::Decimator;
use rov_common::sync::lock;
use rov_common::units::Fps;
use thiserror::Error;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use self::direct::Direct;
use self::pipeline::Maker;
use super::{Given, Output, told_of};
use crate::hanging::Hanging;
use crate::stream::Stream;

/// Previews that are made are at most so wide, and as high as that makes them.
pub const PREVIEW_WIDTH: u32 = 1280;
/// The pipeline outlives whoever wanted it, so that a program that asks for a snapshot each second starts it once.
const LINGER: Duration = Duration::from_secs(5);
/// An older picture is not shown: it would look live.
pub const FRESH: Duration = Duration::from_secs(3);
/// Snapshots that are waited for at once.
const MAX_SNAPSHOTS: usize = 64;
/// How often the thread looks whether it is still wanted.
const LOOK: Duration = Duration::from_millis(100);
/// Between two attempts with a decoder that fails.
const RETRY_MIN: Duration = Duration::from_millis(500);
const RETRY_MAX: Duration = Duration::from_secs(5);
/// For the thread to end; a decoder that hangs is left behind.
const STOP_LIMIT: Duration = Duration::from_secs(1);

/// One picture; cheap to clone.
#[derive(Clone, Debug)]
pub struct Picture {
    /// JPEG (JFIF), full range.
    pub data: Bytes,
    pub captured_at: Instant,
    /// The same by the server's clock of captures.
    pub captured: Captured,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{most} {what} at once are the limit: close one, or try again")]
pub struct TooMany {
    most: usize,
    what: &'static str,
}

pub struct JpegOutput {
    shared: Arc<Shared>,
    max_viewers: usize,
}

impl JpegOutput {
    /// One for each stream.
    pub(super) fn of(given: &Given) -> Vec<Arc<Self>> {
        given.streams.iter().map(|stream| Arc::new(Self::new(stream, given.config.max_viewers))).collect()
    }

    /// Nothing runs until somebody wants a picture. `max_viewers` may watch previews at once.
    pub fn new(stream: &Arc<Stream>, max_viewers: u16) -> Self {
        let shared = Shared {
            stream: Arc::clone(stream),
            demand: Mutex::new(Demand {
                rates: Vec::new(),
                snapshots: 0,
                last_use: Instant::now(),
                running: false,
                pictures: 0,
                trouble: None,
            }),
            idle: Condvar::new(),
            snapshots: watch::Sender::new(None),
            previews: watch::Sender::new(None),
            sent: AtomicU64::new(0),
            ended: CancellationToken::new(),
            hanging: Hanging::default(),
        };
        Self { shared: Arc::new(shared), max_viewers: usize::from(max_viewers) }
    }

    /// Pictures at up to `fps`, where they are made at most [`PREVIEW_WIDTH`] wide, until what is returned is dropped.
    pub fn previews(&self, fps: u32) -> Result<Previews, TooMany> {
        let pictures = self.shared.previews.subscribe();
        let wanted = Wanted::new(&self.shared, Want::Previews(fps.max(1)), self.max_viewers)?;
        let interval = Duration::from_secs(1) / fps.max(1);
        Ok(Previews { pictures, wanted, interval, due: Instant::now() })
    }

    /// That of the times of capture.
    pub fn clock(&self) -> CaptureClock {
        self.shared.stream.clock()
    }

    /// Whether one more may watch previews.
    pub fn has_room(&self) -> bool {
        lock(&self.shared.demand).rates.len() < self.max_viewers
    }

    /// The newest picture in full size; None when the output ends. It waits for as long as it takes: give it a limit.
    pub async fn snapshot(&self) -> Result<Option<Picture>, TooMany> {
        let mut pictures = self.shared.snapshots.subscribe();
        let _wanted = Wanted::new(&self.shared, Want::Snapshot, MAX_SNAPSHOTS)?;
        Ok(self.shared.newest(&mut pictures).await)
    }

    /// Why no pictures can be made, if that is so.
    pub fn trouble(&self) -> Option<String> {
        lock(&self.shared.demand).trouble.clone()
    }

    /// Pictures of so many bytes went to somebody.
    pub fn add_sent(&self, bytes: u64) {
        self.shared.sent.fetch_add(bytes, Ordering::Relaxed);
    }

    pub fn stats(&self) -> JpegStats {
        let demand = lock(&self.shared.demand);
        JpegStats { running: demand.running, viewers: demand.rates.len() as u64, pictures: demand.pictures }
    }
}

impl Output for JpegOutput {
    fn name(&self) -> &'static str {
        "snapshots and MJPEG"
    }

    fn tell(&self, stats: &mut Stats) {
        let (own, sent) = (self.stats(), self.shared.sent.load(Ordering::Relaxed));
        told_of(stats, &self.shared.stream, own.viewers, sent);
        stats.jpeg = std::mem::take(&mut stats.jpeg).and(own);
    }

    fn viewers(&self) -> u64 {
        self.stats().viewers
    }

    /// Ends every [`Previews`] and the pipeline; blocks for a second at most.
    fn shutdown(&self) {
        self.shared.ended.cancel();
        let demand = lock(&self.shared.demand);
        let ended = self.shared.idle.wait_timeout_while(demand, STOP_LIMIT, |demand| demand.running);
        if ended.is_ok_and(|(_, timeout)| timeout.timed_out()) {
            tracing::warn!("the decoder for JPEG pictures has not stopped, leaving it to itself");
        }
    }
}

impl Drop for JpegOutput {
    fn drop(&mut self) {
        self.shared.ended.cancel();
    }
}

/// A viewer of previews. One that is slow loses pictures: only the newest is kept.
pub struct Previews {
    pictures: watch::Receiver<Option<Picture>>,
    wanted: Wanted,
    interval: Duration,
    due: Instant,
}

impl Previews {
    /// The next picture; None when the output ends. It waits for as long as there is none. Safe to cancel.
    pub async fn next(&mut self) -> Option<Picture> {
        tokio::time::sleep_until(self.due.into()).await;
        let picture = self.wanted.shared.newest(&mut self.pictures).await?;
        // A little early: the pictures are made at the wanted rate already, or at one that another viewer wants.
        self.due = Instant::now() + self.interval.mul_f64(0.75);
        Some(picture)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Want {
    /// Pictures per second.
    Previews(u32),
    Snapshot,
}

/// What a picture is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Size {
    Whole,
    Preview,
}

struct Wanted {
    shared: Arc<Shared>,
    want: Want,
}

impl Wanted {
    fn new(shared: &Arc<Shared>, want: Want, most: usize) -> Result<Self, TooMany> {
        let mut demand = lock(&shared.demand);
        let (there, what) = match want {
            Want::Previews(_) => (demand.rates.len(), "MJPEG viewers (--max-viewers)"),
            Want::Snapshot => (demand.snapshots, "snapshots"),
        };
        if there >= most {
            return Err(TooMany { most, what });
        }
        match want {
            Want::Previews(fps) => demand.rates.push(fps),
            Want::Snapshot => demand.snapshots += 1,
        }
        if !demand.running && !shared.ended.is_cancelled() {
            let work = Arc::clone(shared);
            let thread = std::thread::Builder::new().name("jpeg".to_owned()).spawn(move || work.run());
            demand.running = thread.is_ok();
            demand.trouble = thread.err().map(|error| format!("no thread for it: {error}"));
        }
        drop(demand);
        Ok(Self { shared: Arc::clone(shared), want })
    }
}

impl Drop for Wanted {
    fn drop(&mut self) {
        let mut demand = lock(&self.shared.demand);
        match self.want {
            Want::Previews(fps) => {
                if let Some(at) = demand.rates.iter().position(|rate| *rate == fps) {
                    demand.rates.swap_remove(at);
                }
            }
            Want::Snapshot => demand.snapshots -= 1,
        }
        demand.last_use = Instant::now();
    }
}

struct Shared {
    stream: Arc<Stream>,
    demand: Mutex<Demand>,
    /// The thread has ended.
    idle: Condvar,
    snapshots: watch::Sender<Option<Picture>>,
    previews: watch::Sender<Option<Picture>>,
    /// Bytes of pictures.
    sent: AtomicU64,
    ended: CancellationToken,
    /// Decoders that were left to a driver that does not let go of them.
    hanging: Hanging,
}

struct Demand {
    /// Of each viewer of previews, pictures per second.
    rates: Vec<u32>,
    /// Snapshots that are waited for.
    snapshots: usize,
    last_use: Instant,
    /// The thread is there.
    running: bool,
    pictures: u64,
    trouble: Option<String>,
}

impl Shared {
    async fn newest(&self, pictures: &mut watch::Receiver<Option<Picture>>) -> Option<Picture> {
        loop {
            tokio::select! {
                biased;
                () = self.ended.cancelled() => return None,
                changed = pictures.changed() => changed.ok()?,
            }
            let picture = pictures.borrow_and_update().clone();
            // One may have waited for a viewer that did not read.
            if let Some(picture) = picture.filter(|picture| picture.captured_at.elapsed() < FRESH) {
                return Some(picture);
            }
        }
    }

    /// The highest rate that a viewer wants.
    fn preview_rate(&self) -> Option<u32> {
        lock(&self.demand).rates.iter().max().copied()
    }

    fn snapshot_wanted(&self) -> bool {
        lock(&self.demand).snapshots > 0
    }

    /// A picture has been made.
    fn publish(&self, size: Size, picture: Picture) {
        {
            let mut demand = lock(&self.demand);
            demand.pictures += 1;
            demand.trouble = None;
        }
        let to = match size {
            Size::Whole => &self.snapshots,
            Size::Preview => &self.previews,
        };
        to.send_replace(Some(picture));
    }

    /// The thread: there while somebody wants pictures.
    fn run(self: &Arc<Self>) {
        loop {
            self.make();
            // Somebody may have come while the pipeline was taken down.
            let mut demand = lock(&self.demand);
            if self.ended.is_cancelled() || demand.is_idle() {
                demand.running = false;
                self.idle.notify_all();
                return;
            }
        }
    }

    /// Makes pictures until nobody wants any.
    fn make(self: &Arc<Self>) {
        let is_over = || self.ended.is_cancelled() || lock(&self.demand).is_idle();
        if self.stream.codec() == Codec::Mjpeg {
            let _direct = Direct::start(self);
            while !is_over() {
                std::thread::sleep(LOOK);
            }
            return;
        }
        let mut backoff = Backoff::new(RETRY_MIN, RETRY_MAX);
        // What the hardware cannot do, software can.
        let mut software = self.hanging.any();
        while !is_over() {
            let reason = match Maker::start(self, software) {
                Ok(mut maker) => loop {
                    if let Some(reason) = maker.trouble(LOOK) {
                        software |= !maker.has_worked();
                        break reason;
                    }
                    if is_over() {
                        return;
                    }
                },
                Err(reason) => reason,
            };
            let pause = backoff.next_delay();
            tracing::warn!("no JPEG pictures: {reason}; trying again in {:.1} s", pause.as_secs_f64());
            software |= self.hanging.any();
            lock(&self.demand).trouble = Some(reason);
            let retry = Instant::now() + pause;
            while Instant::now() < retry && !is_over() {
                std::thread::sleep(LOOK);
            }
        }
    }
}

/// Which pictures are previews.
struct Rate {
    fps: u32,
    decimator: Decimator,
}

impl Default for Rate {
    fn default() -> Self {
        Self { fps: 1, decimator: Decimator::new(Fps::whole(1)) }
    }
}

impl Rate {
    /// Whether the picture of this time is one, at the rate that is wanted, if any is.
    fn keeps(&mut self, fps: Option<u32>, time: Duration) -> bool {
        let Some(fps) = fps else { return false };
        if self.fps != fps {
            *self = Self { fps, decimator: Decimator::new(Fps::whole(fps)) };
        }
        self.decimator.keeps(time)
    }
}

impl Demand {
    fn is_idle(&self) -> bool {
        self.rates.is_empty() && self.snapshots == 0 && self.last_use.elapsed() > LINGER
    }
}
