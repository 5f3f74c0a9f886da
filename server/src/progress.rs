//! Whether the parts that nothing works without still make progress: a process may live on while one of them hangs.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A part that shows nothing for so long hangs: most show something every three seconds at least.
pub const HANGS_AFTER: Duration = Duration::from_secs(5);
const BEAT_INTERVAL: Duration = Duration::from_millis(500);

/// When a part last showed that it makes progress.
#[derive(Debug)]
pub struct Beat {
    epoch: Instant,
    last_ms: AtomicU64,
    /// It has come to its end, and cannot hang any more.
    is_over: AtomicBool,
}

impl Default for Beat {
    fn default() -> Self {
        Self { epoch: Instant::now(), last_ms: AtomicU64::new(0), is_over: AtomicBool::new(false) }
    }
}

impl Beat {
    pub fn beat(&self) {
        self.beat_at(Instant::now());
    }

    fn beat_at(&self, now: Instant) {
        self.last_ms.store(now.saturating_duration_since(self.epoch).as_millis() as u64, Ordering::Relaxed);
    }

    fn last(&self) -> Instant {
        self.epoch + Duration::from_millis(self.last_ms.load(Ordering::Relaxed))
    }

    /// Runs `work`, and beats in the same task: what blocks it stops the beats.
    pub async fn during<T>(&self, work: impl Future<Output = T>) -> T {
        let mut work = std::pin::pin!(work);
        let mut tick = tokio::time::interval(BEAT_INTERVAL);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                done = &mut work => {
                    self.is_over.store(true, Ordering::Relaxed);
                    return done;
                }
                _ = tick.tick() => self.beat(),
            }
        }
    }
}

/// All parts, by name.
#[derive(Debug, Default)]
pub struct Parts {
    parts: Vec<Part>,
    looked: Option<Instant>,
}

#[derive(Debug)]
struct Part {
    name: &'static str,
    beat: Arc<Beat>,
    limit: Duration,
}

/// A look that comes so late shows that the whole process stood still, as on a machine that was suspended.
const STANDSTILL: Duration = Duration::from_secs(3);

impl Parts {
    /// `limit`: for how long it may show nothing, [`HANGS_AFTER`] but for good reason.
    pub fn add(&mut self, name: &'static str, beat: &Arc<Beat>, limit: Duration) {
        self.parts.push(Part { name, beat: Arc::clone(beat), limit });
    }

    /// The names of those that hang; to be asked every second or so.
    pub fn hanging(&mut self, now: Instant) -> Vec<&'static str> {
        let before = self.looked.replace(now).unwrap_or(now);
        if now.saturating_duration_since(before) > STANDSTILL {
            // They get the time that they did not have.
            self.parts.iter().for_each(|part| part.beat.beat_at(now));
        }
        let is_late = |part: &Part| now.saturating_duration_since(part.beat.last()) > part.limit;
        let hangs = |part: &&Part| is_late(part) && !part.beat.is_over.load(Ordering::Relaxed);
        self.parts.iter().filter(hangs).map(|part| part.name).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts() -> (Parts, Arc<Beat>, Arc<Beat>) {
        let (one, other) = (Arc::<Beat>::default(), Arc::<Beat>::default());
        let mut parts = Parts::default();
        parts.add("one", &one, HANGS_AFTER);
        parts.add("other", &other, HANGS_AFTER);
        (parts, one, other)
    }

    #[tokio::test]
    async fn a_part_that_is_over_does_not_hang() {
        let (mut parts, one, _other) = parts();
        one.during(async {}).await;
        assert_eq!(parts.hanging(one.epoch), [""; 0]);
        let late = (1..=10).map(|second| parts.hanging(one.epoch + Duration::from_secs(second))).last();
        assert_eq!(late, Some(vec!["other"]));
    }

    #[test]
    fn a_part_that_shows_nothing_for_five_seconds_hangs() {
        let (mut parts, one, other) = parts();
        let at = |seconds| other.epoch + Duration::from_secs(seconds);
        for second in 0..=20 {
            one.beat_at(at(second));
            if second < 3 {
                other.beat_at(at(second));
            }
            let hanging = parts.hanging(at(second));
            // Its last sign was at two seconds.
            assert_eq!(hanging.is_empty(), second <= 7, "{second}: {hanging:?}");
        }
        assert_eq!(parts.hanging(at(20)), ["other"]);
        other.beat_at(at(21));
        assert!(parts.hanging(at(21)).is_empty(), "it goes on");
    }

    #[test]
    fn a_process_that_stood_still_as_a_whole_does_not_hang() {
        let (mut parts, one, _other) = parts();
        let at = |seconds| one.epoch + Duration::from_secs(seconds);
        assert!(parts.hanging(at(1)).is_empty());
        for second in 3600..=3604 {
            assert!(parts.hanging(at(second)).is_empty(), "{second}");
        }
        assert_eq!(parts.hanging(at(3606)).len(), 2, "they have had their time");
    }

    /// A task that blocks, as in a driver, on a thread of the runtime.
    #[test]
    fn work_that_blocks_stops_its_beats() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let beat = Arc::<Beat>::default();
        let (block, blocked) = std::sync::mpsc::channel::<()>();
        let (enter, entered) = tokio::sync::oneshot::channel::<()>();
        let (task_beat, before) = (Arc::clone(&beat), beat.last());
        let work = runtime.spawn(async move {
            task_beat
                .during(async move {
                    entered.await.unwrap();
                    blocked.recv().unwrap();
                })
                .await;
        });
        let beats = |since: Instant| {
            let end = Instant::now() + Duration::from_secs(20);
            while beat.last() <= since && Instant::now() < end {
                std::thread::sleep(Duration::from_millis(5));
            }
            beat.last() > since
        };
        assert!(beats(before), "it waits without blocking");
        enter.send(()).unwrap();
        // The worker may just be beating; after that nothing comes any more.
        std::thread::sleep(2 * BEAT_INTERVAL);
        let last = beat.last();
        std::thread::sleep(3 * BEAT_INTERVAL);
        assert_eq!(beat.last(), last, "it blocks");
        let mut parts = Parts::default();
        parts.add("work", &beat, HANGS_AFTER);
        assert_eq!(parts.hanging(last + HANGS_AFTER + Duration::from_millis(1)), ["work"]);
        block.send(()).unwrap();
        runtime.block_on(work).unwrap();
    }
}
