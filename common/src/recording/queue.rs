//! What waits for the disk, between whoever has pictures and the thread that writes.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::api::RecordingStats;
use crate::capture_clock::Captured;
use crate::mp4::Picture;
use crate::sync::lock;

/// What waits for the disk.
pub const QUEUE_BYTES: usize = 32 << 20;
pub const QUEUE_TIME: Duration = Duration::from_secs(30);
/// How often the writer looks for more.
const TICK: Duration = Duration::from_millis(100);
/// A player begins at a keyframe: there is one as often in a recording.
const KEYFRAME_EVERY: Duration = Duration::from_secs(5);
/// Between two requests for one.
const ASK_EVERY: Duration = Duration::from_secs(1);

/// Pictures that are in no file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// Of the first.
    pub time: Duration,
    pub captured: Option<Captured>,
    pub pictures: u64,
}

impl Gap {
    pub fn of(picture: &Picture) -> Self {
        Self { time: picture.time, captured: picture.captured, pictures: 1 }
    }

    /// What is missing together with what came behind.
    pub fn and(self, later: Self) -> Self {
        Self { pictures: self.pictures + later.pictures, ..self }
    }
}

#[derive(Debug)]
pub struct Queued {
    pub picture: Picture,
    /// What is missing before it.
    pub gap: Option<Gap>,
    /// When it came.
    pub at: Instant,
}

/// What the writer is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    Record,
    /// End the file, and wait.
    Rest,
    /// And the thread.
    Stop,
}

pub struct Shared {
    title: String,
    state: Mutex<State>,
    /// The order is another one.
    ordered: Condvar,
    ended: Condvar,
}

#[derive(Default)]
struct State {
    is_on: bool,
    is_stopping: bool,
    has_ended: bool,
    queue: VecDeque<Queued>,
    bytes: usize,
    /// The queue was full: what is left out until a keyframe finds room.
    left_out: Option<Gap>,
    /// The writer can go on with nothing else.
    needs_keyframe: bool,
    /// Of the last one that came.
    keyframe: Option<Instant>,
    asked: Option<Instant>,
    stats: RecordingStats,
}

impl Shared {
    pub fn new(title: String) -> Self {
        Self { title, state: Mutex::default(), ordered: Condvar::new(), ended: Condvar::new() }
    }

    pub fn set_on(&self, on: bool) {
        let mut state = lock(&self.state);
        if on && !state.is_on {
            state.needs_keyframe = true;
        }
        state.is_on = on;
        self.ordered.notify_all();
    }

    pub fn push(&self, picture: Picture, now: Instant) -> bool {
        let mut state = lock(&self.state);
        if !state.is_on || state.is_stopping {
            return false;
        }
        if picture.keyframe {
            state.keyframe = Some(now);
        }
        let was_full = state.left_out.is_some();
        state.take(picture, now);
        let is_full = state.left_out.is_some() && !was_full;
        let asks = state.asks(now);
        drop(state);
        if is_full {
            tracing::warn!("recording of {}: the disk is too slow, pictures are left out until it is not", self.title);
        }
        asks
    }

    /// The oldest that waits.
    pub fn pop(&self) -> Option<Queued> {
        let mut state = lock(&self.state);
        let queued = state.queue.pop_front()?;
        state.bytes -= queued.picture.unit.len();
        Some(queued)
    }

    /// What could not be written yet.
    pub fn put_back(&self, queued: Queued) {
        let mut state = lock(&self.state);
        state.bytes += queued.picture.unit.len();
        state.queue.push_front(queued);
    }

    /// Leaves out what waits, as nothing of it will be written.
    pub fn clear(&self) {
        let mut state = lock(&self.state);
        state.queue.clear();
        (state.bytes, state.left_out) = (0, None);
    }

    pub fn need_keyframe(&self, needs: bool) {
        lock(&self.state).needs_keyframe = needs;
    }

    /// What to do now: after some time, or when that changes. While there is nothing to do, it waits.
    pub fn order(&self, last: Order) -> Order {
        let limit = if last == Order::Rest { Duration::MAX } else { TICK };
        let waited = self.ordered.wait_timeout_while(lock(&self.state), limit, |state| state.order() == last);
        waited.unwrap_or_else(PoisonError::into_inner).0.order()
    }

    pub fn is_stopping(&self) -> bool {
        lock(&self.state).is_stopping
    }

    /// Of the writer, at its end.
    pub fn ended(&self) {
        lock(&self.state).has_ended = true;
        self.ended.notify_all();
    }

    pub fn stop(&self, limit: Duration) -> bool {
        let mut state = lock(&self.state);
        state.is_stopping = true;
        self.ordered.notify_all();
        let waited = self.ended.wait_timeout_while(state, limit, |state| !state.has_ended);
        waited.is_ok_and(|(state, _)| state.has_ended)
    }

    pub fn stats(&self) -> RecordingStats {
        lock(&self.state).stats.clone()
    }

    pub fn set_stats(&self, change: impl FnOnce(&mut RecordingStats)) {
        change(&mut lock(&self.state).stats);
    }
}

impl State {
    fn order(&self) -> Order {
        match (self.is_stopping, self.is_on) {
            (true, _) => Order::Stop,
            (false, true) => Order::Record,
            (false, false) => Order::Rest,
        }
    }

    fn take(&mut self, picture: Picture, now: Instant) {
        let bytes = self.bytes + picture.unit.len();
        let is_full = bytes > QUEUE_BYTES || self.waits(now) > QUEUE_TIME;
        let has_room = self.has_room(now);
        match &mut self.left_out {
            Some(_) if picture.keyframe && has_room => {}
            Some(gap) => {
                gap.pictures += 1;
                return;
            }
            None if is_full => {
                self.left_out = Some(Gap::of(&picture));
                return;
            }
            None => {}
        }
        self.bytes = bytes;
        self.queue.push_back(Queued { gap: self.left_out.take(), picture, at: now });
    }

    /// How long the oldest has waited.
    fn waits(&self, now: Instant) -> Duration {
        self.queue.front().map_or(Duration::ZERO, |first| now.saturating_duration_since(first.at))
    }

    /// Enough to go on after a gap: not for a few pictures alone.
    fn has_room(&self, now: Instant) -> bool {
        self.bytes < QUEUE_BYTES / 2 && self.waits(now) < QUEUE_TIME / 2
    }

    fn asks(&mut self, now: Instant) -> bool {
        let since = |at: Option<Instant>| at.map(|at| now.saturating_duration_since(at));
        let is_due = since(self.keyframe).is_none_or(|since| since >= KEYFRAME_EVERY);
        let asks = is_due || self.needs_keyframe || self.left_out.is_some() && self.has_room(now);
        let asks = asks && since(self.asked).is_none_or(|since| since >= ASK_EVERY);
        if asks {
            self.asked = Some(now);
        }
        asks
    }
}
