//! The last seconds of a stream in memory, for clips and for recordings that miss something: its access units as they
//! were sent, shared and not copied.
//!
//! It is no viewer: an encoder that rests goes on resting, and the ring ends where that began. The thread of the
//! pictures puts each in, after the lock alone.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use rov_common::api::RingStats;
use rov_common::capture_clock::Captured;
use rov_common::mp4::Picture;
use rov_common::priority;
use rov_common::sync::lock;

use super::Given;
use crate::stream::{OutputQueue, Stream};

/// Of a stream, whatever its bit rate and the machine.
const MOST_BYTES: u64 = 256_000_000;
/// What the rings of all streams have of the machine's memory; clips that are being fetched hold a few times as much.
const SHARE: u64 = 16;
/// Of the machine, where that is not known.
const USUAL_MEMORY: u64 = 1_000_000_000;
/// A keyframe that does not come is asked for again.
const ASK_AGAIN: Duration = Duration::from_secs(5);
/// None is asked for sooner after one that came.
const KEYFRAMES_APART: Duration = Duration::from_secs(10);

pub struct RingOutput {
    stream: Arc<Stream>,
    limit: RingLimit,
    ring: Arc<Mutex<Ring>>,
    queue: Arc<OutputQueue>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingLimit {
    pub time: Duration,
    pub bytes: u64,
}

impl RingLimit {
    /// Of each stream of so many.
    pub fn new(time: Duration, streams: usize) -> Self {
        Self { time, bytes: (memory() / SHARE / streams.max(1) as u64).min(MOST_BYTES) }
    }
}

impl RingOutput {
    /// One for each stream, or none.
    pub(super) fn of(Given { config, streams, .. }: &Given) -> Vec<Self> {
        let limit = config.ring.map(|time| RingLimit::new(time, streams.len()));
        limit.into_iter().flat_map(|limit| streams.iter().map(move |stream| Self::start(stream, limit))).collect()
    }

    pub fn start(stream: &Arc<Stream>, limit: RingLimit) -> Self {
        let ring = Arc::new(Mutex::new(Ring::new(limit)));
        let (kept, demand) = (Arc::clone(&ring), Arc::clone(stream.demand()));
        let gone = forget();
        let queue = stream.add_output(move |queue| {
            // The lock first: so pictures are in the order of the queue.
            let mut ring = lock(&kept);
            let mut asks = false;
            while let Some(frame) = queue.take() {
                asks |= ring.push(Picture {
                    unit: frame.unit.clone(),
                    time: frame.pts,
                    captured: Some(frame.captured),
                    keyframe: frame.keyframe,
                });
            }
            let surplus = std::mem::take(&mut ring.surplus);
            drop(ring);
            if !surplus.is_empty()
                && let Some(gone) = &gone
            {
                let _ = gone.send(surplus);
            }
            if asks {
                demand.request_keyframe();
            }
        });
        Self { stream: Arc::clone(stream), limit, ring, queue }
    }

    /// The longest that it keeps for certain, where the bytes allow it.
    pub fn longest(&self) -> Duration {
        self.limit.time
    }

    pub fn limit(&self) -> RingLimit {
        self.limit
    }

    /// The newest pictures for so long, from the keyframe before that; none before the first keyframe.
    pub fn newest(&self, time: Duration) -> Vec<Picture> {
        lock(&self.ring).newest(time)
    }

    /// What was captured from `from` to `to`, and what is before that from a keyframe on; none where nothing of that
    /// time is kept.
    pub fn around(&self, from: Captured, to: Captured) -> Vec<Picture> {
        lock(&self.ring).around(from, to)
    }

    /// When the oldest was captured, from which on none is missing; and the first `most` of what was captured from
    /// `from` to `to`.
    pub fn times(&self, from: Captured, to: Captured, most: usize) -> (Option<Captured>, Vec<Captured>) {
        let ring = lock(&self.ring);
        let oldest = ring.pictures().next().and_then(|picture| picture.captured);
        let times = ring.between(from, to).filter_map(|picture| picture.captured).take(most).collect();
        (oldest, times)
    }

    /// What was captured from `from` to `to`, whole microseconds both.
    pub fn between(&self, from: Captured, to: Captured) -> Vec<Picture> {
        lock(&self.ring).between(from, to).cloned().collect()
    }

    pub fn stats(&self) -> RingStats {
        lock(&self.ring).stats()
    }
}

impl Drop for RingOutput {
    fn drop(&mut self) {
        self.stream.remove_output(&self.queue);
    }
}

/// A thread that frees what leaves a ring: the thread of the pictures does not wait for it, nor whoever reads the ring.
/// None: there is no thread for it.
fn forget() -> Option<mpsc::Sender<Vec<Group>>> {
    let (gone, groups) = mpsc::channel::<Vec<Group>>();
    let thread = std::thread::Builder::new().name("ring".to_owned());
    let started = thread.spawn(move || {
        priority::lower();
        groups.into_iter().for_each(drop);
    });
    started.is_ok().then_some(gone)
}

/// Whole groups, each from a keyframe to the next; the oldest is left out once its last picture is too old, or the
/// bytes are too many.
struct Ring {
    limit: RingLimit,
    groups: VecDeque<Group>,
    bytes: u64,
    /// What was left out, and is to be freed without the lock.
    surplus: Vec<Group>,
    /// When a keyframe was asked for that has not come.
    asked: Option<Duration>,
    /// When the last one came.
    keyframe: Option<Duration>,
}

/// One picture at least.
struct Group {
    pictures: Vec<Picture>,
    bytes: u64,
}

impl Group {
    fn begun(&self) -> Duration {
        self.pictures[0].time
    }

    fn ended(&self) -> Duration {
        self.pictures[self.pictures.len() - 1].time
    }
}

impl Ring {
    fn new(limit: RingLimit) -> Self {
        Self { limit, groups: VecDeque::new(), bytes: 0, surplus: Vec::new(), asked: None, keyframe: None }
    }

    /// Returns whether a keyframe is to be asked for: without any the oldest pictures could never be left out. That is
    /// as rare as the bounds allow.
    fn push(&mut self, picture: Picture) -> bool {
        let (time, length) = (picture.time, picture.unit.len() as u64);
        let open = if picture.keyframe {
            (self.asked, self.keyframe) = (None, Some(time));
            self.groups.push_back(Group { pictures: Vec::new(), bytes: 0 });
            self.groups.back_mut()
        } else {
            self.groups.back_mut()
        };
        if let Some(open) = open {
            open.pictures.push(picture);
            open.bytes += length;
            self.bytes += length;
        }
        let reach = time.saturating_sub(self.limit.time);
        while self.bytes > self.limit.bytes || self.groups.front().is_some_and(|oldest| oldest.ended() < reach) {
            // The only one, too, where that is too large: what follows could not be shown without it.
            let Some(oldest) = self.groups.pop_front() else { break };
            self.bytes -= oldest.bytes;
            self.surplus.push(oldest);
        }
        let is_due = self.groups.back().is_none_or(|open| {
            time.saturating_sub(open.begun()) >= self.limit.time || open.bytes > self.limit.bytes / 2
        });
        // Where there is little memory the ring is shorter, or empty for a while: keyframes cost the picture its
        // quality.
        let is_due = is_due && self.keyframe.is_none_or(|at| time.saturating_sub(at) >= KEYFRAMES_APART);
        let asks = is_due && self.asked.is_none_or(|at| time.saturating_sub(at) >= ASK_AGAIN);
        if asks {
            self.asked = Some(time);
        }
        asks
    }

    fn newest(&self, time: Duration) -> Vec<Picture> {
        let Some(reach) = self.last().map(|last| last.saturating_sub(time)) else { return Vec::new() };
        // By its end: what was before a rest is no part of the seconds after it.
        let kept = self.groups.iter().skip_while(|group| group.ended() < reach);
        kept.flat_map(|group| &group.pictures).cloned().collect()
    }

    fn around(&self, from: Captured, to: Captured) -> Vec<Picture> {
        let is_in =
            |picture: &Picture| picture.captured.is_some_and(|at| (from.micros()..=to.micros()).contains(&at.micros()));
        let groups = self.groups.iter().skip_while(|group| !group.pictures.iter().any(is_in));
        let mut pictures: Vec<_> = groups.flat_map(|group| &group.pictures).collect();
        // Whole up to there: what is shown earlier may come later.
        let end = pictures.iter().rposition(|picture| is_in(picture)).map_or(0, |last| last + 1);
        pictures.truncate(end);
        pictures.into_iter().cloned().collect()
    }

    fn pictures(&self) -> impl Iterator<Item = &Picture> {
        self.groups.iter().flat_map(|group| &group.pictures)
    }

    fn between(&self, from: Captured, to: Captured) -> impl Iterator<Item = &Picture> {
        let range = from.micros()..=to.micros();
        self.pictures().filter(move |picture| picture.captured.is_some_and(|at| range.contains(&at.micros())))
    }

    fn last(&self) -> Option<Duration> {
        Some(self.groups.back()?.ended())
    }

    fn stats(&self) -> RingStats {
        let lasted = self.last().zip(self.groups.front()).map(|(last, first)| last.saturating_sub(first.begun()));
        RingStats {
            seconds: lasted.unwrap_or_default().as_secs_f64(),
            bytes: self.bytes,
            limit: self.limit.bytes,
            limit_seconds: self.limit.time.as_secs(),
        }
    }
}

/// That this process may take: of the machine, and of the control groups (version 2) that it is in, as a container.
fn memory() -> u64 {
    let machine = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| total(&text));
    let of_process = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let of_process = of_process.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
    let limits = Path::new(of_process).ancestors().filter_map(|group| {
        let limit = std::fs::read_to_string(Path::new("/sys/fs/cgroup").join(group).join("memory.max"));
        // `max`: none.
        limit.ok()?.trim().parse::<u64>().ok()
    });
    limits.chain(machine).min().unwrap_or(USUAL_MEMORY)
}

/// Bytes, see proc_meminfo(5).
fn total(meminfo: &str) -> Option<u64> {
    let total = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    Some(total.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: RingLimit = RingLimit { time: Duration::from_secs(30), bytes: 1_000_000 };

    fn picture(number: u64, keyframe: bool, size: usize) -> Picture {
        Picture { unit: vec![0; size].into(), time: Duration::from_millis(number * 40), captured: None, keyframe }
    }

    /// Numbers of the pictures.
    fn newest(ring: &Ring, seconds: u64) -> Vec<u64> {
        let pictures = ring.newest(Duration::from_secs(seconds));
        pictures.iter().map(|picture| picture.time.as_millis() as u64 / 40).collect()
    }

    #[test]
    fn an_hour_leaves_the_last_seconds_in_whole_groups_and_no_more_memory() {
        let mut ring = Ring::new(LIMIT);
        let (mut most, mut longest) = (0, 0.0_f64);
        for number in 0..3600 * 25 {
            assert!(!ring.push(picture(number, number % 250 == 0, 100)), "keyframes come by themselves");
            let held: usize = ring.groups.iter().map(|group| group.pictures.len()).sum();
            assert_eq!(ring.bytes, 100 * held as u64);
            assert!(ring.groups[0].pictures[0].keyframe);
            let stats = ring.stats();
            (most, longest) = (most.max(stats.bytes), longest.max(stats.seconds));
            assert!(number < 750 || stats.seconds >= 30.0);
        }
        assert_eq!((most, longest), (100 * 1_000, 999.0 * 0.04), "30 s, and the group before");
        assert!(ring.groups.capacity() <= 8 && ring.groups.iter().all(|group| group.pictures.capacity() < 512));
        assert_eq!(ring.stats().limit, LIMIT.bytes);
    }

    #[test]
    fn a_clip_begins_with_the_keyframe_before_what_is_asked_for() {
        let mut ring = Ring::new(LIMIT);
        assert_eq!(newest(&ring, 30), [0; 0]);
        // What comes before the first keyframe cannot be shown.
        assert!(ring.push(picture(0, false, 100)), "it asks for one");
        assert!(!ring.push(picture(1, false, 100)), "once");
        assert_eq!(newest(&ring, 30), [0; 0]);
        for number in 2..1_000 {
            ring.push(picture(number, number % 250 == 2, 100));
        }
        // The last is 999, at 39.96 s.
        for (seconds, first) in [(1, 752), (9, 752), (10, 502), (30, 2), (99, 2)] {
            assert_eq!(newest(&ring, seconds), (first..1_000).collect::<Vec<_>>(), "{seconds} s");
        }
    }

    #[test]
    fn the_bytes_are_bounded_whatever_the_keyframes() {
        let mut ring = Ring::new(LIMIT);
        let mut asked = Vec::new();
        for number in 0..300 {
            if ring.push(picture(number, number == 0, 10_000)) {
                asked.push(number);
            }
            assert!(ring.bytes <= LIMIT.bytes, "{}", ring.bytes);
        }
        // Half of the bytes were there after 2 s, and the group was too large after 4 s: no sooner than after 10 s.
        assert_eq!(asked, [250]);
        assert_eq!((newest(&ring, 30), ring.bytes), (Vec::new(), 0), "nothing that cannot be shown");
        assert!(!ring.push(picture(300, true, 10_000)));
        assert_eq!(newest(&ring, 30), [300]);
        // One that is larger than all.
        ring.push(picture(301, true, 1_000_001));
        assert_eq!(ring.bytes, 0);
    }

    #[test]
    fn what_is_left_out_is_handed_on_to_be_freed_elsewhere() {
        let mut ring = Ring::new(LIMIT);
        (0..1_800).for_each(|number| _ = ring.push(picture(number, number % 250 == 0, 100)));
        let gone: usize = ring.surplus.iter().map(|group| group.pictures.len()).sum();
        assert!(gone > 0);
        assert_eq!(gone + newest(&ring, 99).len(), 1_800);
    }

    #[test]
    fn a_keyframe_is_asked_for_no_sooner_than_the_bounds_need_it() {
        let mut ring = Ring::new(LIMIT);
        let asked: Vec<_> = (0..1_800).filter(|number| ring.push(picture(*number, *number == 0, 100))).collect();
        assert_eq!(asked, [750, 875, 1_000, 1_125, 1_250, 1_375, 1_500, 1_625, 1_750], "after 30 s, each 5 s");
        assert_eq!(newest(&ring, 30).len(), 1_800, "until one comes");
        ring.push(picture(1_800, true, 100));
        for number in 1_801..2_551 {
            ring.push(picture(number, false, 100));
        }
        assert_eq!(newest(&ring, 30)[0], 1_800);
        assert_eq!(ring.groups.len(), 1, "the one before was left out");
    }

    #[test]
    fn what_was_before_a_rest_is_left_out_once_it_is_too_old() {
        let mut ring = Ring::new(LIMIT);
        (0..100).for_each(|number| _ = ring.push(picture(number, number == 0, 100)));
        assert_eq!(newest(&ring, 30).len(), 100, "the ring ends where the rest begins");
        let again = 100 + 3600 * 25;
        ring.push(picture(again, true, 100));
        ring.push(picture(again + 1, false, 100));
        assert_eq!(newest(&ring, 30), [again, again + 1]);
    }

    #[test]
    fn pictures_are_found_by_when_they_were_captured() {
        let mut ring = Ring::new(LIMIT);
        let at = |ms: u64| Captured(Duration::from_millis(ms) + Duration::from_nanos(999));
        for number in 0..20 {
            let captured = Some(at(50_000 + number * 40));
            ring.push(Picture { captured, ..picture(number, number % 10 == 0, 100) });
        }
        let between = |from: u64, to: u64| {
            let micros = |ms: u64| Captured(Duration::from_micros(ms * 1_000));
            ring.between(micros(from), micros(to)).map(|picture| picture.time.as_millis() / 40).collect::<Vec<_>>()
        };
        assert_eq!(between(50_040, 50_120), [1, 2, 3], "by whole microseconds, both ends with them");
        assert_eq!(between(50_041, 50_119), [2]);
        assert_eq!((between(0, 50_000), between(50_760, 99_999)), (vec![0], vec![19]));
        assert_eq!(between(0, 49_999), [0; 0]);
        let around = |ring: &Ring, from: u64, to: u64| {
            let pictures = ring.around(Captured(Duration::from_millis(from)), Captured(Duration::from_millis(to)));
            pictures.iter().map(|picture| picture.time.as_millis() as u64 / 40).collect::<Vec<_>>()
        };
        assert_eq!(
            around(&ring, 50_480, 50_600),
            [10, 11, 12, 13, 14, 15],
            "from the keyframe before, and no group more"
        );
        assert_eq!(around(&ring, 0, 50_400), (0..11).collect::<Vec<_>>(), "what is kept of it");
        assert_eq!(around(&ring, 50_760, 99_999), (10..20).collect::<Vec<_>>());
        assert_eq!([around(&ring, 0, 49_999), around(&ring, 50_801, 99_999)], [[0; 0], [0; 0]]);
        // What others are made of comes before them, and is shown after them.
        let mut ring = Ring::new(LIMIT);
        for (number, ms) in [(0, 0), (1, 120), (2, 40), (3, 80), (4, 240), (5, 160)] {
            ring.push(Picture { captured: Some(at(ms)), ..picture(number, number == 0, 100) });
        }
        assert_eq!((around(&ring, 40, 80), around(&ring, 0, 119)), (vec![0, 1, 2, 3], vec![0, 1, 2, 3]));
    }

    #[test]
    fn the_memory_of_the_machine_bounds_all_streams_together() {
        assert_eq!(total("MemTotal:        1024 kB\nMemFree: 1 kB\n"), Some(1 << 20));
        assert_eq!(total("MemFree: 1 kB\n"), None);
        let (one, four) = (RingLimit::new(LIMIT.time, 1).bytes, RingLimit::new(LIMIT.time, 4).bytes);
        assert!(one <= MOST_BYTES && 0 < four && four <= one && 4 * four <= memory() / SHARE);
    }
}
