//! The link, without devices and without a clock: frames go in with the time, and come out when they are due.
//!
//! Each direction is on its own. A frame first waits for the rate limit, in a bounded queue from whose end frames are
//! dropped (tail drop); then it may get lost, and takes the delay. All chances come from a seeded generator, of which
//! each frame takes the same number: what is lost at one rate of loss is among what is lost at a higher one.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// What a direction does to frames. The default passes all at once.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Conditions {
    pub delay: Duration,
    /// The delay is up to so much longer or shorter. It wanders slowly enough to keep the order, unless `unordered`.
    pub jitter: Duration,
    /// Draws the jitter for each frame anew, so that frames overtake one another.
    pub unordered: bool,
    /// Share of the frames that are lost, each on its own.
    pub loss: f64,
    pub burst: Option<Burst>,
    pub reorder: Option<Reorder>,
    /// Share of the frames that come twice.
    pub duplicate: f64,
    /// Bits per second, counting Ethernet frames. 0: nothing leaves the queue.
    pub rate: Option<u64>,
    pub queue: Queue,
    /// Nothing passes, and what is on its way is lost.
    pub outage: bool,
}

/// Losses in bursts, as Gilbert and Elliott have them: two states, of which the bad one loses frames.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Burst {
    /// Chance of each frame to enter the bad state, and to leave it.
    pub enter: f64,
    pub leave: f64,
    /// Share of the frames that the bad state loses.
    pub loss: f64,
}

/// A share of the frames is held back, so that later ones overtake them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Reorder {
    pub share: f64,
    /// At most; as much is drawn for each.
    pub hold: Duration,
}

/// How much waits for the rate limit, at most.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Queue {
    Bytes(usize),
    /// What the link carries in this time.
    Time(Duration),
}

impl Default for Conditions {
    fn default() -> Self {
        Self {
            delay: Duration::ZERO,
            jitter: Duration::ZERO,
            unordered: false,
            loss: 0.0,
            burst: None,
            reorder: None,
            duplicate: 0.0,
            rate: None,
            queue: Queue::Time(Duration::from_millis(200)),
            outage: false,
        }
    }
}

/// What became of the frames of a direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub offered: u64,
    pub offered_bytes: u64,
    /// Given out; one that is duplicated counts twice.
    pub delivered: u64,
    /// By chance, alone or in a burst.
    pub lost: u64,
    /// Found the queue full.
    pub overflowed: u64,
    /// Were there during an outage.
    pub cut: u64,
    pub duplicated: u64,
    pub held_back: u64,
}

/// A queue that is given as time holds one such frame at any rate.
const LARGEST_FRAME: usize = 1514;
/// The jitter of ordered frames goes from one drawn value to the next in so much time, or in twice the jitter: as the
/// delay then never falls faster than time passes, the order stays.
const WANDER: Duration = Duration::from_millis(20);

/// One direction of the link.
pub struct Direction {
    conditions: Conditions,
    random: StdRng,
    /// Wait for the rate limit.
    queue: VecDeque<(Instant, Vec<u8>)>,
    queued: usize,
    /// The frame before has been sent at this time.
    sent_at: Option<Instant>,
    wire: BinaryHeap<Reverse<OnWire>>,
    sequence: u64,
    /// No ordered frame is due before the one before it.
    last_due: Option<Instant>,
    is_bad: bool,
    wander: Option<Wander>,
    pub counts: Counts,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct OnWire {
    due: Instant,
    /// Of frames that are due at once the first goes first.
    sequence: u64,
    frame: Vec<u8>,
}

/// The jitter between two drawn values, each -1 to 1.
struct Wander {
    since: Instant,
    from: f64,
    to: f64,
}

/// What chance decides for a frame, each 0 to 1.
struct Draws {
    loss: f64,
    state: f64,
    bad_loss: f64,
    jitter: f64,
    reorder: f64,
    hold: f64,
    duplicate: f64,
}

impl Direction {
    pub fn new(conditions: Conditions, seed: u64) -> Self {
        Self {
            conditions,
            random: StdRng::seed_from_u64(seed),
            queue: VecDeque::new(),
            queued: 0,
            sent_at: None,
            wire: BinaryHeap::new(),
            sequence: 0,
            last_due: None,
            is_bad: false,
            wander: None,
            counts: Counts::default(),
        }
    }

    pub fn conditions(&self) -> Conditions {
        self.conditions
    }

    /// From now on. Frames that are on their way stay so, but for an outage.
    pub fn set(&mut self, now: Instant, conditions: Conditions) {
        self.serve(now);
        if self.conditions.rate == Some(0) {
            // The time in which nothing could be sent is not made up for.
            self.sent_at = Some(now);
        }
        self.conditions = conditions;
        if conditions.outage {
            self.counts.cut += (self.queue.len() + self.wire.len()) as u64;
            self.queue.clear();
            self.wire.clear();
            self.queued = 0;
        }
        self.serve(now);
    }

    /// A frame comes in.
    pub fn offer(&mut self, now: Instant, frame: Vec<u8>) {
        self.counts.offered += 1;
        self.counts.offered_bytes += frame.len() as u64;
        if self.conditions.outage {
            self.counts.cut += 1;
            return;
        }
        self.serve(now);
        if self.conditions.rate.is_some_and(|rate| self.queued + frame.len() > self.room(rate)) {
            self.counts.overflowed += 1;
            return;
        }
        self.queued += frame.len();
        self.queue.push_back((now, frame));
        self.serve(now);
    }

    /// The next frame that is due.
    pub fn take(&mut self, now: Instant) -> Option<(Instant, Vec<u8>)> {
        self.serve(now);
        if self.wire.peek().is_none_or(|Reverse(first)| first.due > now) {
            return None;
        }
        let Reverse(first) = self.wire.pop()?;
        self.counts.delivered += 1;
        Some((first.due, first.frame))
    }

    /// When to ask again, unless a frame comes in or the conditions change before.
    pub fn next(&self) -> Option<Instant> {
        let due = self.wire.peek().map(|Reverse(first)| first.due);
        let is_stopped = self.conditions.rate == Some(0);
        let sent = self.queue.front().filter(|_| !is_stopped).and(self.sent_at);
        [due, sent].into_iter().flatten().min()
    }

    /// Bytes that wait for the rate limit.
    pub fn backlog(&self) -> usize {
        self.queued
    }

    fn room(&self, rate: u64) -> usize {
        match self.conditions.queue {
            Queue::Bytes(bytes) => bytes,
            Queue::Time(time) => ((rate as f64 / 8.0 * time.as_secs_f64()) as usize).max(LARGEST_FRAME),
        }
    }

    /// Sends from the queue what the rate allows by now.
    fn serve(&mut self, now: Instant) {
        while let Some((came_at, _)) = self.queue.front() {
            let start = self.sent_at.map_or(*came_at, |before| before.max(*came_at));
            let rate = self.conditions.rate;
            // Without a limit, what waited goes at once.
            let start = if rate.is_none() { start.min(now) } else { start };
            if rate == Some(0) || start > now {
                return;
            }
            let Some((_, frame)) = self.queue.pop_front() else { return };
            self.queued -= frame.len();
            let takes = rate.map_or(0.0, |rate| frame.len() as f64 * 8.0 / rate as f64);
            let sent = if rate.is_none() { now } else { start + Duration::from_secs_f64(takes) };
            self.sent_at = Some(sent);
            self.send(sent, frame);
        }
    }

    fn send(&mut self, at: Instant, frame: Vec<u8>) {
        let draws = self.draw();
        let Conditions { loss, burst, reorder, duplicate, .. } = self.conditions;
        if let Some(burst) = burst {
            self.is_bad = if self.is_bad { draws.state >= burst.leave } else { draws.state < burst.enter };
        }
        let in_burst = self.is_bad && burst.is_some_and(|burst| draws.bad_loss < burst.loss);
        if draws.loss < loss || in_burst {
            self.counts.lost += 1;
            return;
        }
        let mut due = at + self.delay(at, draws.jitter);
        if !self.conditions.unordered {
            due = self.last_due.map_or(due, |last| last.max(due));
            self.last_due = Some(due);
        }
        if let Some(reorder) = reorder.filter(|reorder| draws.reorder < reorder.share) {
            self.counts.held_back += 1;
            due += reorder.hold.mul_f64(draws.hold);
        }
        if draws.duplicate < duplicate {
            self.counts.duplicated += 1;
            self.put(due, frame.clone());
        }
        self.put(due, frame);
    }

    fn put(&mut self, due: Instant, frame: Vec<u8>) {
        self.sequence += 1;
        self.wire.push(Reverse(OnWire { due, sequence: self.sequence, frame }));
    }

    fn delay(&mut self, at: Instant, draw: f64) -> Duration {
        let Conditions { delay, jitter, unordered, .. } = self.conditions;
        if jitter.is_zero() {
            return delay;
        }
        let drawn = 2.0 * draw - 1.0;
        let share = if unordered { drawn } else { self.wander(at, drawn, WANDER.max(2 * jitter)) };
        Duration::from_secs_f64((delay.as_secs_f64() + share * jitter.as_secs_f64()).max(0.0))
    }

    fn wander(&mut self, at: Instant, drawn: f64, period: Duration) -> f64 {
        let wander = self.wander.get_or_insert(Wander { since: at, from: drawn, to: drawn });
        let mut passed = at.saturating_duration_since(wander.since).as_secs_f64() / period.as_secs_f64();
        if passed >= 1.0 {
            // After a pause too it goes on from where it was, so that the frame after the pause takes any delay.
            *wander = Wander { since: at, from: if passed < 2.0 { wander.to } else { drawn }, to: drawn };
            passed = 0.0;
        }
        wander.from + (wander.to - wander.from) * passed
    }

    fn draw(&mut self) -> Draws {
        let mut next = || self.random.random_range(0.0..1.0);
        Draws {
            loss: next(),
            state: next(),
            bad_loss: next(),
            jitter: next(),
            reorder: next(),
            hold: next(),
            duplicate: next(),
        }
    }
}

#[cfg(test)]
#[path = "link_tests.rs"]
mod tests;
