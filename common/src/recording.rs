//! Recording: coded pictures into files on a disk that may be slow, full or gone.
//!
//! [`Recorder::push`] never waits: a queue of [`QUEUE_BYTES`] and [`QUEUE_TIME`] is between it and the thread that
//! writes. When that is full, pictures are left out up to the next keyframe that finds room: a gap, which is counted,
//! logged and listed. Files are those of `mp4`; each write takes all that waits, so that a slow disk gets few and large
//! ones, and is followed by `fdatasync`. Beside each file lies a table of when its pictures were captured, with what
//! the vehicle measured then; that as subtitles too, where something was measured.

mod folder;
mod limits;
mod mending;
mod name;
mod queue;
mod telemetry;
#[cfg(test)]
mod tests;
mod writer;

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

pub use self::folder::{Disk, Folder, Found, Keep, Output, Stored};
pub use self::limits::{Bytes, LARGEST, LONGEST, Measure, SPARE, Split};
pub use self::mending::{CLOSE, Compared, Late, Present, Run, runs};
pub use self::name::{EXTENSION, Name, SUBTITLES, TIMES, rfc3339};
use self::queue::{Gap, Shared};
pub use self::queue::{QUEUE_BYTES, QUEUE_TIME, Recorded};
pub use self::telemetry::{Columns, Fields, Measured};
use self::writer::Writer;
use crate::api::{ClockSource, RecordingState, RecordingStats};
use crate::capture_clock::{Captured, TimeOfDay};
use crate::codec::Codec;
pub use crate::mp4::Picture;

/// What is recorded, and how.
#[derive(Clone, Debug)]
pub struct Plan {
    /// In the names of files, as `cam1_stream1`.
    pub label: String,
    /// In the log.
    pub title: String,
    pub codec: Codec,
    pub split: Split,
    pub keep: Keep,
    /// Bytes that stay free on the disk.
    pub spare: u64,
    /// What the vehicle measures; others that come get a column too, in the next file where this one has its head.
    pub columns: Columns,
    /// Whose clock tells the time of day of pictures, in names and in files. None: theirs, of which nothing is known.
    pub day: Option<TimeOfDay>,
    /// What is missing may come late: files end when [`Late::Settled`] says that nothing does.
    pub mends: bool,
}

impl Plan {
    /// Whose clock tells the time of day, and by how much it is ahead of times of capture.
    fn clock(&self) -> (Option<ClockSource>, Duration) {
        let now = self.day.as_ref().map(TimeOfDay::now);
        (now.map(|(clock, _)| clock), now.map_or(Duration::ZERO, |(_, ahead)| ahead))
    }
}

/// Records one stream while it is on, with a thread of its own.
pub struct Recorder {
    shared: Arc<Shared>,
    thread: JoinHandle<()>,
}

impl Recorder {
    /// Is off. `changed` is called when it goes on, pauses, or takes another file: by its thread, and while the disk
    /// holds that one by [`Self::push`]. So it must not wait.
    ///
    /// # Errors
    /// Where there is no thread for it.
    pub fn start(
        folder: Arc<Folder>,
        plan: Plan,
        changed: impl Fn(&RecordingStats) + Send + Sync + 'static,
    ) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::new(plan.title.clone(), Box::new(changed)));
        let writer = Writer::new(Arc::clone(&shared), folder, plan);
        let thread = std::thread::Builder::new().name("recording".to_owned()).spawn(move || writer.run())?;
        Ok(Self { shared, thread })
    }

    /// Begins at the next keyframe; or ends, with the index of the file. Does not wait for that.
    pub fn set_on(&self, on: bool) {
        self.shared.set_on(on);
    }

    /// Takes a picture, and what the vehicle measured then; never waits. Returns whether a keyframe is to be asked for.
    pub fn push(&self, picture: Picture, fields: Option<Arc<Fields>>, now: Instant) -> bool {
        self.shared.push(picture, fields, now)
    }

    /// So many pictures never came, behind this one, which was pushed. The next one that is pushed is a keyframe. Of
    /// these, only what is missing after something was recorded is a gap.
    pub fn miss(&self, pictures: u64, behind: (Duration, Option<Captured>), why: &'static str) {
        let (time, captured) = behind;
        self.shared.miss(Gap { time, captured, pictures, counted: 0, why });
    }

    /// It is off, and all that came is in files, or in none for good.
    pub fn is_over(&self) -> bool {
        self.shared.is_over()
    }

    /// What comes late, or is known of what is missing, where the plan has that. Waits for a disk that is slow; false:
    /// it did not take it within `limit`.
    pub fn give(&self, late: Late, limit: Duration) -> bool {
        self.shared.give(late, limit)
    }

    /// What is in files, was captured at a known time and was not compared, where the plan has that.
    pub fn journal(&self) -> Vec<Present> {
        self.shared.journal()
    }

    /// What was captured before is not compared again.
    pub fn compared(&self, to: Captured) {
        self.shared.compared(to);
    }

    /// By how many pictures more, or less, were missing than was told by [`Self::miss`].
    pub fn corrected(&self) -> i64 {
        self.shared.corrected()
    }

    /// The files that have ended; of very many, the newest.
    pub fn files(&self) -> Vec<Recorded> {
        self.shared.files()
    }

    /// How many have ended.
    pub fn ended_files(&self) -> u64 {
        self.shared.ended_files()
    }

    /// Of them, those that were not wholly compared with what there was: more may be missing than is told.
    pub fn uncompared_files(&self) -> u64 {
        self.shared.uncompared_files()
    }

    pub fn stats(&self) -> RecordingStats {
        let stats = self.shared.seen(Instant::now());
        if !self.thread.is_finished() || self.shared.is_stopping() {
            return stats;
        }
        let reason = Some("the thread that records has died: restart the program".to_owned());
        RecordingStats { state: RecordingState::Paused, reason, file: None, ..stats }
    }

    /// Ends the file, within this time at most; returns whether that was done. One that was not ended can be played
    /// too.
    pub fn stop(&self, limit: Duration) -> bool {
        self.shared.stop(limit)
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.shared.stop(Duration::ZERO);
    }
}
