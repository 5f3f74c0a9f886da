//! What waits for the disk, between whoever has pictures and the thread that writes.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::mending::{Late, Present};
use super::telemetry::Fields;
use crate::api::{RecordingState, RecordingStats};
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
/// The disk takes nothing for longer: that is said.
const STUCK: Duration = Duration::from_secs(2);
/// Between two requests for one.
const ASK_EVERY: Duration = Duration::from_secs(1);

/// What came late and waits for the disk; more waits outside.
const LATE_BYTES: usize = 8 << 20;
/// Taken by the writer at once.
const LATE_AT_ONCE: usize = 2 << 20;
/// Pictures in files that were not compared with what there was: then the oldest will not be.
const JOURNAL: usize = 65_536;

/// Files that have ended: so many are remembered, of ten minutes each those of a day.
const LISTED_FILES: usize = 144;

/// A file that has ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recorded {
    pub name: String,
    pub bytes: u64,
    pub pictures: u64,
    /// How often pictures are missing before one of these, and how many.
    pub gaps: u64,
    pub missing: u64,
    /// All of it was compared with what there was, where the plan has that: no more is missing than is told.
    pub is_compared: bool,
}

/// Pictures that are in no file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// Of the first.
    pub time: Duration,
    pub captured: Option<Captured>,
    pub pictures: u64,
    /// So many of them the statistics have already.
    pub counted: u64,
    /// Empty: the disk was too slow.
    pub why: &'static str,
}

impl Gap {
    pub fn of(picture: &Picture) -> Self {
        Self { time: picture.time, captured: picture.captured, pictures: 1, counted: 0, why: "" }
    }

    /// What is missing together with what came behind.
    pub fn and(self, later: Self) -> Self {
        let why = if self.why.is_empty() { later.why } else { self.why };
        Self { pictures: self.pictures + later.pictures, counted: self.counted + later.counted, why, ..self }
    }
}

#[derive(Debug)]
pub struct Queued {
    pub picture: Picture,
    /// What the vehicle measured then.
    pub fields: Option<Arc<Fields>>,
    /// What is missing before it.
    pub gap: Option<Gap>,
    /// When it came.
    pub at: Instant,
    /// How often recording had been put on then: what differs in this belongs into different files.
    pub session: u64,
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

pub type Changed = Box<dyn Fn(&RecordingStats) + Send + Sync>;

pub struct Shared {
    title: String,
    changed: Changed,
    /// State and file that were told last. Held while another is told, so that the last one is true.
    told: Mutex<(RecordingState, Option<String>)>,
    state: Mutex<State>,
    /// The order is another one.
    ordered: Condvar,
    ended: Condvar,
    /// There is room for what comes late.
    room: Condvar,
}

#[derive(Default)]
struct State {
    is_on: bool,
    is_stopping: bool,
    has_ended: bool,
    queue: VecDeque<Queued>,
    bytes: usize,
    /// When the writer took something, or something came into an empty queue.
    moved: Option<Instant>,
    session: u64,
    /// The last one of which nothing waits any more.
    rested: u64,
    /// Nothing of this session came yet: it begins with a keyframe.
    is_new: bool,
    /// The disk is full: nothing waits for it.
    is_closed: bool,
    was_stuck: bool,
    /// The queue was full: what is left out until a keyframe finds room.
    left_out: Option<Gap>,
    /// Since when that is so.
    left_since: Option<Instant>,
    /// The writer can go on with nothing else.
    needs_keyframe: bool,
    /// Of the last one that came.
    keyframe: Option<Instant>,
    asked: Option<Instant>,
    stats: RecordingStats,
    files: VecDeque<Recorded>,
    /// Of all; and those of them that were not compared.
    ended_files: u64,
    uncompared_files: u64,
    late: VecDeque<Late>,
    late_bytes: usize,
    /// What is in files and was not compared.
    journal: VecDeque<Present>,
    /// By how much more, or less, is missing than was guessed.
    corrected: i64,
}

impl Shared {
    pub fn new(title: String, changed: Changed) -> Self {
        Self {
            title,
            changed,
            told: Mutex::default(),
            state: Mutex::default(),
            ordered: Condvar::new(),
            ended: Condvar::new(),
            room: Condvar::new(),
        }
    }

    pub fn set_on(&self, on: bool) {
        let mut state = lock(&self.state);
        if on && !state.is_on {
            state.needs_keyframe = true;
            state.session += 1;
            // The writer may still be busy with what came before it was off.
            (state.is_new, state.is_closed, state.left_out) = (true, false, None);
        }
        state.is_on = on;
        self.ordered.notify_all();
    }

    pub fn push(&self, picture: Picture, fields: Option<Arc<Fields>>, now: Instant) -> bool {
        let mut state = lock(&self.state);
        if !state.is_on || state.is_stopping {
            return false;
        }
        if picture.keyframe {
            state.keyframe = Some(now);
        }
        let was_full = state.left_out.is_some();
        state.take(picture, fields, now);
        let is_full = state.left_out.is_some() && !was_full && !state.is_closed;
        state.left_since = state.left_out.and(state.left_since.or(Some(now)));
        let asks = state.asks(now);
        let is_stuck = state.is_stuck(now).is_some();
        let tells = is_stuck != std::mem::replace(&mut state.was_stuck, is_stuck);
        drop(state);
        if tells {
            self.tell(now);
        }
        if is_full {
            tracing::warn!("recording of {}: the disk is too slow, pictures are left out until it is not", self.title);
        }
        asks
    }

    /// What never came to be pushed, before the keyframe that is pushed next.
    pub fn miss(&self, gap: Gap) {
        let mut state = lock(&self.state);
        if state.is_on && !state.is_new {
            state.count(gap);
        }
    }

    /// The oldest that waits, of this session or one before.
    pub fn pop(&self, last: u64) -> Option<Queued> {
        let mut state = lock(&self.state);
        state.queue.front().filter(|first| first.session <= last)?;
        let queued = state.queue.pop_front()?;
        state.bytes -= queued.picture.unit.len();
        state.moved = Some(Instant::now());
        Some(queued)
    }

    /// What could not be written yet.
    pub fn put_back(&self, queued: Queued) {
        let mut state = lock(&self.state);
        state.bytes += queued.picture.unit.len();
        state.queue.push_front(queued);
    }

    /// What comes late, or is known of what is missing. Waits for room; false: there was none within `limit`, or it is
    /// the end, for which nothing more may keep the disk busy.
    pub fn give(&self, late: Late, limit: Duration) -> bool {
        let is_full = |state: &mut State| state.late_bytes > LATE_BYTES && !state.is_stopping;
        let waited = self.room.wait_timeout_while(lock(&self.state), limit, is_full);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if is_full(&mut state) || state.is_stopping || state.has_ended {
            return false;
        }
        state.late_bytes += late.bytes();
        state.late.push_back(late);
        self.ordered.notify_all();
        true
    }

    pub fn take_late(&self) -> Vec<Late> {
        let mut state = lock(&self.state);
        let (mut taken, mut bytes) = (Vec::new(), 0);
        while bytes < LATE_AT_ONCE
            && let Some(late) = state.late.pop_front()
        {
            bytes += late.bytes();
            taken.push(late);
        }
        state.late_bytes -= bytes;
        self.room.notify_all();
        taken
    }

    /// These are in a file.
    pub fn note(&self, present: &[Present]) {
        let mut state = lock(&self.state);
        state.journal.extend(present);
        let surplus = state.journal.len().saturating_sub(JOURNAL);
        state.journal.drain(..surplus);
    }

    pub fn journal(&self) -> Vec<Present> {
        lock(&self.state).journal.iter().copied().collect()
    }

    /// What was captured before is not compared again.
    pub fn compared(&self, to: Captured) {
        lock(&self.state).journal.retain(|present| present.captured >= to);
    }

    pub fn correct(&self, by: i64) {
        lock(&self.state).corrected += by;
    }

    pub fn corrected(&self) -> i64 {
        lock(&self.state).corrected
    }

    /// Leaves out what waits of this session and those before, as nothing of it will be written; how many pictures, and
    /// how many of them were counted.
    pub fn clear(&self, last: u64) -> (u64, u64) {
        let mut state = lock(&self.state);
        let (kept, gone): (VecDeque<_>, VecDeque<_>) =
            std::mem::take(&mut state.queue).into_iter().partition(|queued| queued.session > last);
        state.queue = kept;
        state.bytes = state.queue.iter().map(|queued| queued.picture.unit.len()).sum();
        let left_out = if state.session <= last { state.left_out.take() } else { None };
        state.rested = last;
        // Freed without the lock, for which whoever has pictures would wait.
        drop(state);
        (gone.len() as u64, left_out.map_or(0, |gap| gap.pictures))
    }

    /// The disk is full, for hours maybe: nothing is kept for it, and no keyframe asked for, until it is not.
    pub fn close(&self, is_closed: bool) {
        let mut state = lock(&self.state);
        state.is_closed = is_closed;
        if is_closed {
            let (waiting, after) = (std::mem::take(&mut state.queue), state.left_out.take());
            state.bytes = 0;
            for queued in &waiting {
                queued.gap.into_iter().for_each(|gap| state.leave_out(gap));
                state.leave_out_new(&queued.picture);
            }
            after.into_iter().for_each(|gap| state.leave_out(gap));
            drop(state);
        }
    }

    pub fn need_keyframe(&self, needs: bool) {
        lock(&self.state).needs_keyframe = needs;
    }

    /// What to do now: after some time, or when that changes. While there is nothing to do, it waits.
    pub fn order(&self, last: Order, last_session: u64, takes_late: bool) -> (Order, u64) {
        let limit = if last == Order::Rest { Duration::MAX } else { TICK };
        let waited = self.ordered.wait_timeout_while(lock(&self.state), limit, |state| {
            // It may have been on meanwhile.
            (state.order(), state.session) == (last, last_session) && (!takes_late || state.late.is_empty())
        });
        let state = waited.unwrap_or_else(PoisonError::into_inner).0;
        (state.order(), state.session)
    }

    /// It is off, and all that came is in files, or in none for good.
    pub fn is_over(&self) -> bool {
        let state = lock(&self.state);
        !state.is_on && state.stats.state == RecordingState::Off && state.rested == state.session
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
        self.room.notify_all();
        let waited = self.ended.wait_timeout_while(state, limit, |state| !state.has_ended);
        waited.is_ok_and(|(state, _)| state.has_ended)
    }

    /// What the writer says.
    pub fn stats(&self) -> RecordingStats {
        lock(&self.state).stats.clone()
    }

    /// And what it cannot say while the disk holds it.
    pub fn seen(&self, now: Instant) -> RecordingStats {
        let state = lock(&self.state);
        let mut stats = state.stats.clone();
        if let Some(reason) = state.is_stuck(now).filter(|_| stats.state != RecordingState::Paused) {
            (stats.state, stats.reason) = (RecordingState::Paused, Some(reason.to_owned()));
        }
        stats
    }

    /// Tells a state or a file that is another than was told last.
    pub fn tell(&self, now: Instant) {
        let mut told = lock(&self.told);
        let stats = self.seen(now);
        if (told.0, &told.1) != (stats.state, &stats.file) {
            *told = (stats.state, stats.file.clone());
            (self.changed)(&stats);
        }
    }

    /// A file has ended.
    pub fn add_file(&self, file: Recorded) {
        let mut state = lock(&self.state);
        state.ended_files += 1;
        state.uncompared_files += u64::from(!file.is_compared);
        if state.files.len() == LISTED_FILES {
            state.files.pop_front();
        }
        state.files.push_back(file);
    }

    /// Those that have ended, the newest of them.
    pub fn files(&self) -> Vec<Recorded> {
        lock(&self.state).files.iter().cloned().collect()
    }

    pub fn ended_files(&self) -> u64 {
        lock(&self.state).ended_files
    }

    pub fn uncompared_files(&self) -> u64 {
        lock(&self.state).uncompared_files
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

    fn take(&mut self, picture: Picture, fields: Option<Arc<Fields>>, now: Instant) {
        if self.is_new && !picture.keyframe {
            return;
        }
        self.is_new = false;
        let bytes = self.bytes + picture.unit.len();
        let is_full = self.is_closed || bytes > QUEUE_BYTES || self.waits(now) > QUEUE_TIME;
        let goes_on = picture.keyframe && self.has_room(now);
        let is_left_out = if self.left_out.is_some() { !goes_on } else { is_full };
        if is_left_out {
            return self.leave_out_new(&picture);
        }
        if self.queue.is_empty() {
            self.moved = Some(now);
        }
        self.bytes = bytes;
        self.queue.push_back(Queued { gap: self.left_out.take(), picture, fields, at: now, session: self.session });
    }

    /// It is counted at once: the writer may hang.
    fn leave_out_new(&mut self, picture: &Picture) {
        self.count(Gap::of(picture));
    }

    fn count(&mut self, gap: Gap) {
        self.stats.missing += gap.pictures;
        self.stats.gaps += u64::from(self.left_out.is_none());
        self.leave_out(Gap { counted: gap.pictures, ..gap });
    }

    fn leave_out(&mut self, gap: Gap) {
        self.left_out = Some(self.left_out.map_or(gap, |before| before.and(gap)));
    }

    /// Why nothing of what comes is written, where the writer cannot say so.
    fn is_stuck(&self, now: Instant) -> Option<&'static str> {
        let stands = self.moved.is_some_and(|moved| now.saturating_duration_since(moved) >= STUCK);
        if !self.is_on || self.is_closed {
            None
        } else if self.left_out.is_some() && !self.has_room(now) {
            Some("the disk is too slow, or does not answer: pictures are left out")
        } else if !self.queue.is_empty() && stands {
            Some("the disk does not answer")
        } else if self.left_out.and(self.left_since).is_some_and(|since| now.saturating_duration_since(since) >= STUCK)
        {
            Some("pictures are left out until the next keyframe")
        } else {
            None
        }
    }

    /// How long the oldest has waited.
    fn waits(&self, now: Instant) -> Duration {
        self.queue.front().map_or(Duration::ZERO, |first| now.saturating_duration_since(first.at))
    }

    /// Enough to go on after a gap: not for a few pictures alone.
    fn has_room(&self, now: Instant) -> bool {
        !self.is_closed && self.bytes < QUEUE_BYTES / 2 && self.waits(now) < QUEUE_TIME / 2
    }

    fn asks(&mut self, now: Instant) -> bool {
        let since = |at: Option<Instant>| at.map(|at| now.saturating_duration_since(at));
        let is_due = since(self.keyframe).is_none_or(|since| since >= KEYFRAME_EVERY);
        let asks = is_due || self.needs_keyframe || self.left_out.is_some() && self.has_room(now);
        let asks = asks && !self.is_closed && since(self.asked).is_none_or(|since| since >= ASK_EVERY);
        if asks {
            self.asked = Some(now);
        }
        asks
    }
}
