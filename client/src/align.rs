//! Which pictures of the grid's tiles belong together, by the times of their capture. Pure; takes `now`.
//!
//! One tile leads, that with the highest rate: each of its pictures waits as long as the slowest of the others has
//! needed lately for a picture within the tolerance, and is then shown with the nearest of each. No picture waits
//! longer than the maximum, whatever is learnt. Not waited for, and shown at once, are tiles without times of capture,
//! silent ones, and those whose pictures come later than the others' by more than the maximum.

use std::cmp::Reverse;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

use rov_common::api::Alignment;
use rov_common::capture_clock::Captured;

/// Pictures of a tile that wait, at most, and fewer where they are large: 260 ms at 60 fps. The oldest is shown then.
pub const MAX_WAITING: usize = 16;
/// What is known of a tile's pictures is what they were lately.
const WINDOW: Duration = Duration::from_secs(2);
/// Of them, as many as come in that time at 60 fps.
const MAX_KNOWN: usize = 128;
/// A tile whose next picture is overdue by so many intervals is silent, but not before so long.
const SILENT_INTERVALS: u32 = 3;
const SILENT: Duration = Duration::from_millis(200);
/// Of a tile with a single picture so far.
const SILENT_FIRST: Duration = Duration::from_secs(1);
/// Times of capture that advance otherwise than pictures come, by more than this, are of another clock than before.
const STEP: Duration = Duration::from_secs(2);
/// The leader is another one only where that has so many more pictures.
const FASTER: f64 = 1.25;

/// What alignment may cost, and what it is to reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The longest that a picture waits.
    pub max_latency: Duration,
    /// Times of capture of pictures that belong together differ by no more.
    pub tolerance: Duration,
}

/// What the pilot wants; none: as the server says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wish {
    pub aligned: Option<bool>,
    pub max_latency: Option<Duration>,
    pub tolerance: Option<Duration>,
}

impl Wish {
    /// How the tiles of a server that says this are to be aligned, if so.
    pub fn limits(&self, server: Alignment) -> Option<Limits> {
        let of = |wish: Option<Duration>, ms: u32| wish.unwrap_or(Duration::from_millis(ms.into()));
        self.aligned.unwrap_or(server.enabled).then(|| Limits {
            max_latency: of(self.max_latency, server.max_latency_ms),
            tolerance: of(self.tolerance, server.sync_tolerance_ms),
        })
    }
}

/// Whether a tile is aligned with the others, or why not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Standing {
    #[default]
    Aligned,
    /// Its pictures do not say when they were captured.
    Untimed,
    /// None comes.
    Silent,
    /// Its pictures come later than the others' by more than the maximum, or its clock is behind theirs.
    Late,
    /// Its clock is ahead of the others'.
    Early,
}

pub struct Aligner<T> {
    limits: Limits,
    tiles: Vec<Tile<T>>,
    leader: Option<usize>,
    /// For their times in nanoseconds.
    base: Instant,
    /// What was shown lately.
    chosen: VecDeque<(Instant, Chosen)>,
}

/// Of pictures that were chosen together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chosen {
    /// How far the times of capture of all that is on the screen then are apart; none where less than two tiles are
    /// aligned.
    pub skew: Option<Duration>,
    /// How long those have waited that are new.
    pub delay: Duration,
}

struct Tile<T> {
    /// In the order of their capture.
    waiting: VecDeque<(Arrival, T)>,
    /// That came lately, the shown ones too.
    known: VecDeque<Arrival>,
    /// To be taken.
    ready: Option<T>,
    /// On the screen.
    shown: Option<Captured>,
    /// The newest picture had no time.
    is_untimed: bool,
    standing: Standing,
    /// So many may wait.
    most: usize,
}

#[derive(Clone, Copy, Debug)]
struct Arrival {
    captured: Captured,
    at: Instant,
}

impl<T> Default for Tile<T> {
    fn default() -> Self {
        Self {
            waiting: VecDeque::new(),
            known: VecDeque::new(),
            ready: None,
            shown: None,
            is_untimed: false,
            standing: Standing::Silent,
            most: MAX_WAITING,
        }
    }
}

impl<T> Tile<T> {
    /// Whether too many waited.
    fn put(&mut self, captured: Option<Captured>, at: Instant, picture: T) -> bool {
        self.is_untimed = captured.is_none();
        let Some(captured) = captured else {
            self.forget();
            self.ready = Some(picture);
            return false;
        };
        if let Some(last) = self.known.back() {
            let (by_clock, here) = (captured.0.checked_sub(last.captured.0), at.saturating_duration_since(last.at));
            if by_clock.is_none_or(|by_clock| by_clock.is_zero() || by_clock.abs_diff(here) > STEP) {
                self.forget();
            }
        }
        let is_old = |known: &VecDeque<Arrival>| {
            // The last two say how many come, however few these are.
            known.len() >= MAX_KNOWN || known.len() > 1 && at.saturating_duration_since(known[0].at) > WINDOW
        };
        while is_old(&self.known) {
            self.known.pop_front();
        }
        let arrival = Arrival { captured, at };
        self.known.push_back(arrival);
        // Sooner than it should be, as otherwise none might ever be shown.
        let is_full = self.waiting.len() >= self.most;
        while self.waiting.len() >= self.most
            && let Some((arrival, picture)) = self.waiting.pop_front()
        {
            (self.shown, self.ready) = (Some(arrival.captured), Some(picture));
        }
        self.waiting.push_back((arrival, picture));
        is_full
    }

    /// Whatever follows is of another clock.
    fn forget(&mut self) {
        self.waiting.clear();
        self.known.clear();
        self.shown = None;
    }

    /// From one picture to the next, on the mean.
    fn interval(&self) -> Option<Duration> {
        let (first, last) = (self.known.front()?, self.known.back()?);
        let count = u32::try_from(self.known.len() - 1).ok().filter(|count| *count > 0)?;
        Some(last.captured.0.saturating_sub(first.captured.0) / count)
    }

    fn is_silent(&self, now: Instant) -> bool {
        let limit = self.interval().map_or(SILENT_FIRST, |interval| (interval * SILENT_INTERVALS).max(SILENT));
        self.known.back().is_none_or(|last| now.saturating_duration_since(last.at) > limit)
    }

    /// The least time from capture to here, in nanoseconds, to be compared with other tiles' alone: nobody knows how
    /// the two clocks differ.
    fn transit(&self, base: Instant) -> Option<i128> {
        let transit = |arrival: &Arrival| {
            arrival.at.saturating_duration_since(base).as_nanos().cast_signed()
                - arrival.captured.0.as_nanos().cast_signed()
        };
        self.known.iter().map(transit).min()
    }

    /// The waiting picture of this place is to be shown; older ones are left out. When it came.
    fn show(&mut self, place: usize) -> Option<Instant> {
        let (arrival, picture) = self.waiting.drain(..=place).next_back()?;
        self.shown = Some(arrival.captured);
        self.ready = Some(picture);
        Some(arrival.at)
    }

    /// The newest one that has waited for so long.
    fn waited(&self, now: Instant, wait: Duration) -> Option<usize> {
        self.waiting.iter().rposition(|(arrival, _)| now.saturating_duration_since(arrival.at) >= wait)
    }

    /// The waiting picture that is nearest to this time; of two the newer. None where the one that is shown is nearer.
    fn nearest(&self, captured: Captured) -> Option<usize> {
        let apart = |other: Captured| other.0.abs_diff(captured.0);
        let all = self.waiting.iter().enumerate().map(|(place, (arrival, _))| (place, apart(arrival.captured)));
        let nearest = all.min_by_key(|(place, apart)| (*apart, Reverse(*place)))?;
        self.shown.is_none_or(|shown| nearest.1 <= apart(shown)).then_some(nearest.0)
    }
}

/// How long the pictures of the leader had to wait for the first of a follower within the tolerance, at most. A wait
/// beyond the maximum counts not at all.
fn needed(leader: &VecDeque<Arrival>, follower: &VecDeque<Arrival>, limits: Limits) -> Duration {
    let mut others = follower.iter().peekable();
    let mut longest = Duration::ZERO;
    for leading in leader {
        let is_before = |other: &&Arrival| other.captured.0 + limits.tolerance < leading.captured.0;
        while others.next_if(is_before).is_some() {}
        let Some(first) = others.peek() else { break };
        let wait = first.at.saturating_duration_since(leading.at);
        if first.captured.0 <= leading.captured.0 + limits.tolerance && wait <= limits.max_latency {
            longest = longest.max(wait);
        }
    }
    longest
}

impl<T> Aligner<T> {
    pub fn new(tiles: usize, limits: Limits, now: Instant) -> Self {
        let tiles = (0..tiles).map(|_| Tile::default()).collect();
        Self { limits, tiles, leader: None, base: now, chosen: VecDeque::new() }
    }

    /// A picture that came `at` this time. Whether too many waited, so that one is shown sooner than it should be.
    pub fn put(&mut self, tile: usize, captured: Option<Captured>, at: Instant, picture: T) -> bool {
        self.tiles.get_mut(tile).is_some_and(|tile| tile.put(captured, at, picture))
    }

    /// So many pictures of this tile may wait, one at least.
    pub fn set_most(&mut self, tile: usize, most: usize) {
        if let Some(tile) = self.tiles.get_mut(tile) {
            tile.most = most.max(1);
        }
    }

    /// Nothing of this tile that came before is shown any more.
    pub fn forget(&mut self, tile: usize) {
        if let Some(tile) = self.tiles.get_mut(tile) {
            tile.forget();
            tile.ready = None;
        }
    }

    /// Decides what is to be shown now; none where none of the aligned tiles changes.
    pub fn choose(&mut self, now: Instant) -> Option<Chosen> {
        self.judge(now);
        self.elect();
        let wait = self.wait();
        let leader = self.leader.map(|leader| &mut self.tiles[leader]);
        let mut came = leader.and_then(|leader| leader.waited(now, wait).and_then(|place| leader.show(place)));
        let leading = self.leader.and_then(|leader| self.tiles[leader].shown);
        for (at, tile) in self.tiles.iter_mut().enumerate() {
            if Some(at) == self.leader {
                continue;
            }
            let is_aligned = tile.standing == Standing::Aligned && self.leader.is_some();
            let place = if is_aligned {
                // Whatever the leader does, nothing waits for longer.
                let overdue = tile.waited(now, self.limits.max_latency);
                leading.and_then(|leading| tile.nearest(leading)).max(overdue)
            } else {
                tile.waiting.len().checked_sub(1)
            };
            if let Some(at) = place.and_then(|place| tile.show(place)).filter(|_| is_aligned) {
                came = Some(came.map_or(at, |came| came.min(at)));
            }
        }
        while self.chosen.front().is_some_and(|(at, _)| now.saturating_duration_since(*at) > WINDOW) {
            self.chosen.pop_front();
        }
        let chosen = Chosen { skew: self.skew(), delay: now.saturating_duration_since(came?) };
        self.chosen.push_back((now, chosen));
        Some(chosen)
    }

    /// The picture of this tile that was chosen, once.
    pub fn take(&mut self, tile: usize) -> Option<T> {
        self.tiles.get_mut(tile)?.ready.take()
    }

    pub fn standing(&self, tile: usize) -> Standing {
        self.tiles.get(tile).map(|tile| tile.standing).unwrap_or_default()
    }

    /// When the next picture that waits is due.
    pub fn due(&self) -> Option<Instant> {
        let wait = self.wait();
        let due = |(at, tile): (usize, &Tile<T>)| {
            let wait = if Some(at) == self.leader { wait } else { self.limits.max_latency };
            Some(tile.waiting.front()?.0.at + wait)
        };
        self.tiles.iter().enumerate().filter_map(due).min()
    }

    /// How far the times of capture of what is on the screen are apart; none where there are less than two aligned.
    fn skew(&self) -> Option<Duration> {
        let aligned = self.tiles.iter().filter(|tile| tile.standing == Standing::Aligned);
        let times: Option<Vec<_>> = aligned.map(|tile| tile.shown).collect();
        let times = times.filter(|times| times.len() > 1)?;
        Some(times.iter().max()?.0.saturating_sub(times.iter().min()?.0))
    }

    /// The largest skew and the longest delay of the last two seconds; none where nothing aligned was shown.
    pub fn recent(&self) -> Option<Chosen> {
        let skew = self.chosen.iter().filter_map(|(_, chosen)| chosen.skew).max();
        let delay = self.chosen.iter().map(|(_, chosen)| chosen.delay).max()?;
        Some(Chosen { skew, delay })
    }

    /// How long the leader's pictures wait now.
    fn wait(&self) -> Duration {
        let Some(leader) = self.leader else { return Duration::ZERO };
        let followers = self.tiles.iter().enumerate();
        let followers = followers.filter(|(at, tile)| *at != leader && tile.standing == Standing::Aligned);
        let leading = &self.tiles[leader].known;
        followers.map(|(_, tile)| needed(leading, &tile.known, self.limits)).max().unwrap_or_default()
    }

    /// Which tiles are aligned: of those that can be, the most whose pictures come within the maximum.
    fn judge(&mut self, now: Instant) {
        let base = self.base;
        let transit = |tile: &Tile<T>| tile.transit(base).filter(|_| !tile.is_untimed && !tile.is_silent(now));
        let transits: Vec<_> = self.tiles.iter().map(transit).collect();
        let most = self.limits.max_latency.as_nanos().cast_signed();
        let together = |first: i128| transits.iter().flatten().filter(|t| (first..=first + most).contains(t)).count();
        // Of equal ones the earliest.
        let first = transits.iter().flatten().copied().max_by_key(|first| (together(*first), -first));
        for (tile, transit) in self.tiles.iter_mut().zip(&transits) {
            tile.standing = match (transit, first) {
                _ if tile.is_untimed => Standing::Untimed,
                (Some(transit), Some(first)) if *transit > first + most => Standing::Late,
                (Some(transit), Some(first)) if *transit < first => Standing::Early,
                (Some(_), Some(_)) => Standing::Aligned,
                _ => Standing::Silent,
            };
        }
    }

    /// The aligned tile of the highest rate leads, as long as no other one is much faster; of two or more.
    fn elect(&mut self) {
        let aligned = |tile: &&Tile<T>| tile.standing == Standing::Aligned;
        if self.tiles.iter().filter(aligned).count() < 2 {
            self.leader = None;
            return;
        }
        let interval = |tile: &Tile<T>| tile.interval().map_or(f64::INFINITY, |interval| interval.as_secs_f64());
        let all = self.tiles.iter().enumerate().filter(|(_, tile)| aligned(tile));
        let fastest = all.map(|(at, tile)| (at, interval(tile))).min_by(|a, b| a.1.total_cmp(&b.1));
        let stays = |at: &usize, fastest: f64| {
            self.tiles[*at].standing == Standing::Aligned && interval(&self.tiles[*at]) <= fastest * FASTER
        };
        self.leader = fastest.map(|(at, fastest)| self.leader.filter(|leader| stays(leader, fastest)).unwrap_or(at));
    }
}

#[cfg(test)]
mod tests;
