//! The link, without devices and without a clock: frames go in with the time, and come out when they are due.
//!
//! Each direction is on its own. A frame first waits for the rate limit, in a bounded queue from whose end frames are
//! dropped (tail drop); then it may get lost, and takes the delay. All chances come from a seeded generator, of which each
//! frame takes the same number: what is lost at one rate of loss is among what is lost at a higher one.

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
/// The jitter of ordered frames goes from one drawn value to the next in so much time, or in twice the jitter: as the delay then
/// never falls faster than time passes, the order stays.
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
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// What comes out of frames of 1000 bytes that come in at these milliseconds: their numbers and milliseconds.
    fn pass(direction: &mut Direction, start: Instant, at: impl IntoIterator<Item = u32>) -> Vec<(u16, f64)> {
        let mut out = Vec::new();
        for (number, ms) in at.into_iter().enumerate() {
            let now = start + ms * MS;
            drain(direction, now, start, &mut out);
            let mut frame = vec![0; 1000];
            frame[..2].copy_from_slice(&(number as u16).to_be_bytes());
            direction.offer(now, frame);
        }
        drain(direction, start + Duration::from_secs(1000), start, &mut out);
        out
    }

    /// Asks only when it is time, as the bridge does.
    fn drain(direction: &mut Direction, until: Instant, start: Instant, out: &mut Vec<(u16, f64)>) {
        while let Some(next) = direction.next().filter(|next| *next <= until) {
            while let Some((due, frame)) = direction.take(next) {
                assert!(due <= next);
                out.push((u16::from_be_bytes([frame[0], frame[1]]), (due - start).as_secs_f64() * 1e3));
            }
        }
    }

    fn through(conditions: Conditions, at: impl IntoIterator<Item = u32>) -> (Vec<(u16, f64)>, Counts) {
        let mut direction = Direction::new(conditions, 7);
        let out = pass(&mut direction, Instant::now(), at);
        (out, direction.counts)
    }

    fn numbers(out: &[(u16, f64)]) -> Vec<u16> {
        out.iter().map(|(number, _)| *number).collect()
    }

    #[test]
    fn without_conditions_all_comes_at_once_and_in_order() {
        let (out, counts) = through(Conditions::default(), [0, 0, 5]);
        assert_eq!(out, [(0, 0.0), (1, 0.0), (2, 5.0)]);
        assert_eq!((counts.offered, counts.delivered, counts.offered_bytes), (3, 3, 3000));
    }

    #[test]
    fn the_delay_is_exact() {
        let (out, _) = through(Conditions { delay: 20 * MS, ..Conditions::default() }, [0, 7]);
        assert_eq!(out, [(0, 20.0), (1, 27.0)]);
    }

    #[test]
    fn jitter_uses_its_whole_range_and_keeps_the_order_unless_told_otherwise() {
        let conditions = Conditions { delay: 20 * MS, jitter: 5 * MS, ..Conditions::default() };
        let at = || (0..5000).map(|frame| frame / 4 * 3);
        let (out, _) = through(conditions, at());
        assert!(numbers(&out).is_sorted(), "the order stays");
        let delays: Vec<f64> = out.iter().zip(at()).map(|((_, due), at)| due - f64::from(at)).collect();
        let (least, most) = delays.iter().fold((f64::MAX, 0.0_f64), |(a, b), d| (a.min(*d), b.max(*d)));
        assert!((15.0..16.0).contains(&least) && (24.0..=25.0).contains(&most), "{least} to {most}");
        let mean = delays.iter().sum::<f64>() / delays.len() as f64;
        assert!((19.0..21.0).contains(&mean), "{mean}");

        let (out, _) = through(Conditions { unordered: true, ..conditions }, at());
        assert_eq!(out.len(), 5000);
        assert!(!numbers(&out).is_sorted(), "frames overtake one another");
    }

    #[test]
    fn a_delay_that_shrinks_lets_no_frame_overtake() {
        let start = Instant::now();
        let mut direction = Direction::new(Conditions { delay: 50 * MS, ..Conditions::default() }, 1);
        direction.offer(start, vec![1; 100]);
        direction.set(start + MS, Conditions::default());
        direction.offer(start + 2 * MS, vec![2; 100]);
        assert_eq!(direction.take(start + 49 * MS), None);
        let out: Vec<u8> = std::iter::from_fn(|| Some(direction.take(start + 50 * MS)?.1[0])).collect();
        assert_eq!(out, [1, 2]);
    }

    #[test]
    fn random_loss_has_its_share_and_comes_from_the_seed() {
        let lossy = |loss| through(Conditions { loss, ..Conditions::default() }, 0..20_000);
        let (five, counts) = lossy(0.05);
        assert!((900..1100).contains(&counts.lost), "{counts:?}");
        assert_eq!(five.len() as u64 + counts.lost, 20_000);
        assert_eq!(lossy(0.05).0, five);
        // What one per cent loses, five per cent loses too.
        let one = numbers(&lossy(0.01).0);
        assert!(numbers(&five).iter().all(|number| one.binary_search(number).is_ok()));
    }

    #[test]
    fn burst_loss_has_the_share_and_the_length_of_its_model() {
        let burst = Some(Burst { enter: 0.01, leave: 0.25, loss: 1.0 });
        let (out, counts) = through(Conditions { burst, ..Conditions::default() }, 0..60_000);
        // enter / (enter + leave) = 3.8 %; a burst lasts 1 / leave = 4 frames.
        assert!((1900..2700).contains(&counts.lost), "{counts:?}");
        let bursts = numbers(&out).windows(2).filter(|pair| pair[1] - pair[0] > 1).count() as u64;
        let mean = counts.lost as f64 / bursts as f64;
        assert!((3.4..4.6).contains(&mean), "{mean}");
    }

    #[test]
    fn reordering_holds_back_a_share_within_its_time_and_loses_nothing() {
        let reorder = Some(Reorder { share: 0.05, hold: 5 * MS });
        let (out, counts) = through(Conditions { delay: 2 * MS, reorder, ..Conditions::default() }, 0..10_000);
        assert_eq!(out.len(), 10_000);
        assert!((400..600).contains(&counts.held_back), "{counts:?}");
        let late = out.iter().filter(|(number, due)| due - f64::from(*number) > 2.001).count() as u64;
        assert!(late.abs_diff(counts.held_back) < 5, "{late}");
        assert!(out.iter().all(|(number, due)| due - f64::from(*number) <= 7.0));
        assert!(!numbers(&out).is_sorted());
    }

    #[test]
    fn duplicates_come_right_behind_their_frame() {
        let (out, counts) = through(Conditions { duplicate: 0.1, ..Conditions::default() }, 0..1000);
        assert!((70..130).contains(&counts.duplicated), "{counts:?}");
        assert_eq!(out.len() as u64, 1000 + counts.duplicated);
        assert!(numbers(&out).is_sorted());
    }

    #[test]
    fn the_rate_spaces_frames_and_a_full_queue_drops_at_its_end() {
        // 1000 bytes take 8 ms. One is being sent, three wait, the fifth finds no room.
        let conditions = Conditions { rate: Some(1_000_000), queue: Queue::Bytes(3000), ..Conditions::default() };
        let (out, counts) = through(conditions, [0, 0, 0, 0, 0, 100]);
        assert_eq!(out, [(0, 8.0), (1, 16.0), (2, 24.0), (3, 32.0), (5, 108.0)]);
        assert_eq!(counts.overflowed, 1);
        // As time: 24 ms are 3000 bytes.
        let as_time = Conditions { queue: Queue::Time(24 * MS), ..conditions };
        assert_eq!(through(as_time, [0, 0, 0, 0, 0, 100]).0, out);
    }

    #[test]
    fn a_rate_that_changes_changes_what_waits() {
        let start = Instant::now();
        let limited = Conditions { rate: Some(1_000_000), queue: Queue::Bytes(10_000), ..Conditions::default() };
        let mut direction = Direction::new(limited, 1);
        for _ in 0..4 {
            direction.offer(start, vec![0; 1000]);
        }
        // The first is on its way; the others leave at the new rate.
        direction.set(start + 8 * MS, Conditions { rate: Some(8_000_000), ..limited });
        let mut out = Vec::new();
        drain(&mut direction, start + 1000 * MS, start, &mut out);
        let due: Vec<f64> = out.iter().map(|(_, due)| *due).collect();
        assert_eq!(due, [8.0, 16.0, 17.0, 18.0], "the second began before the change");
    }

    #[test]
    fn a_link_that_stalls_keeps_its_queue_and_does_not_make_up_for_the_time() {
        let start = Instant::now();
        let stalled = Conditions { rate: Some(0), queue: Queue::Bytes(2000), ..Conditions::default() };
        let mut direction = Direction::new(stalled, 1);
        for _ in 0..3 {
            direction.offer(start, vec![0; 1000]);
        }
        assert_eq!((direction.next(), direction.backlog(), direction.counts.overflowed), (None, 2000, 1));
        direction.set(start + 100 * MS, Conditions { rate: Some(1_000_000), ..stalled });
        let mut out = Vec::new();
        drain(&mut direction, start + 1000 * MS, start, &mut out);
        let due: Vec<f64> = out.iter().map(|(_, due)| *due).collect();
        assert_eq!(due, [108.0, 116.0]);
    }

    #[test]
    fn an_outage_loses_what_comes_and_what_is_on_its_way() {
        let start = Instant::now();
        let slow = Conditions { delay: 20 * MS, ..Conditions::default() };
        let mut direction = Direction::new(slow, 1);
        direction.offer(start, vec![0; 100]);
        direction.set(start + 10 * MS, Conditions { outage: true, ..slow });
        direction.offer(start + 15 * MS, vec![0; 100]);
        direction.set(start + 30 * MS, slow);
        direction.offer(start + 40 * MS, vec![0; 100]);
        assert_eq!(direction.next(), Some(start + 60 * MS));
        assert_eq!((direction.counts.cut, direction.counts.offered), (2, 3));
    }
}
