//! Recording on the vehicle: a stream's access units as they are, into files (`rov_common::recording`).
//!
//! The thread of the pictures puts each into the recorder's queue, which never waits for the disk; all else is done by
//! the recorder's own thread. A recording that hangs, or a disk that does, is nobody's business but its own: it never ends
//! the server.

use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rov_common::api::RecordingStats;
use rov_common::capture_clock::TimeOfDay;
use rov_common::discovery::Announcement;
use rov_common::recording::{Columns, Folder, Measured, Picture, Plan, Recorder};
use rov_common::sync::lock;
use tokio::sync::watch;

use super::Output;
use crate::config::RecordConfig;
use crate::progress::Beat;
use crate::stream::{Awake, OutputQueue, Stream};
use crate::telemetry::Board;

/// For the index of the file; without it, it can be played too.
const STOP_LIMIT: Duration = Duration::from_millis(1_800);

pub struct RecordingOutput {
    stream: Arc<Stream>,
    recorder: Arc<Recorder>,
    /// Of the vehicle; none: no telemetry is received.
    board: Option<Arc<Board>>,
    changed: watch::Receiver<RecordingStats>,
    /// While it is on.
    taking: Mutex<Option<Taking>>,
    /// Since when it ends for good.
    ends: Mutex<Option<Instant>>,
}

/// Pictures come, also while nobody watches.
struct Taking {
    stream: Arc<Stream>,
    queue: Arc<OutputQueue>,
    _awake: Awake,
}

impl RecordingOutput {
    /// Is off.
    pub fn start(
        stream: &Arc<Stream>,
        folder: &Arc<Folder>,
        config: &RecordConfig,
        (board, day): (Option<Arc<Board>>, TimeOfDay),
    ) -> Result<Self> {
        let title = stream.names().last().unwrap_or_default().to_owned();
        let plan = Plan {
            label: title.replace('/', "_"),
            title,
            codec: stream.codec(),
            split: config.split,
            keep: config.keep,
            spare: config.spare,
            columns: Columns::new(board.iter().flat_map(|board| board.fields()).map(|field| field.name.clone())),
            day: Some(day),
            mends: false,
        };
        let (change, changed) = watch::channel(RecordingStats::default());
        let recorder = Recorder::start(Arc::clone(folder), plan, move |stats| drop(change.send_replace(stats.clone())));
        let recorder = Arc::new(recorder.context("cannot start the thread that records")?);
        let stream = Arc::clone(stream);
        Ok(Self { stream, recorder, board, changed, taking: Mutex::default(), ends: Mutex::default() })
    }

    pub fn stream(&self) -> &Arc<Stream> {
        &self.stream
    }

    /// Begins at the next keyframe, or ends the file; does not wait for that.
    pub fn set_on(&self, on: bool) {
        let mut taking = lock(&self.taking);
        if on == taking.is_some() {
            return;
        }
        self.recorder.set_on(on);
        *taking = on.then(|| self.take());
    }

    fn take(&self) -> Taking {
        let (recorder, demand) = (Arc::clone(&self.recorder), Arc::clone(self.stream.demand()));
        let (board, newest) = (self.board.clone(), Mutex::new(Measured::default()));
        let queue = self.stream.add_output(move |queue| {
            while let Some(frame) = queue.take() {
                let picture = Picture {
                    unit: frame.unit.clone(),
                    time: frame.pts,
                    captured: Some(frame.captured),
                    keyframe: frame.keyframe,
                };
                let now = Instant::now();
                let fields = board.as_ref().and_then(|board| lock(&newest).at(now, || board.values(now)));
                if recorder.push(picture, fields, now) {
                    demand.request_keyframe();
                }
            }
        });
        self.stream.demand().request_keyframe();
        Taking { stream: Arc::clone(&self.stream), queue, _awake: self.stream.demand().keep_awake() }
    }

    /// Ends its file; does not wait for that. So several do it at once before each is waited for.
    pub fn end(&self) {
        lock(&self.taking).take();
        lock(&self.ends).get_or_insert_with(Instant::now);
        self.recorder.stop(Duration::ZERO);
    }

    pub fn stats(&self) -> RecordingStats {
        self.recorder.stats()
    }

    /// Is another value whenever it goes on, pauses or takes another file.
    pub fn follow(&self) -> watch::Receiver<RecordingStats> {
        self.changed.clone()
    }
}

impl Drop for Taking {
    fn drop(&mut self) {
        self.stream.remove_output(&self.queue);
    }
}

impl Output for RecordingOutput {
    fn name(&self) -> &'static str {
        "recording"
    }

    fn place(&self, _here: IpAddr) -> Option<String> {
        None
    }

    fn announce(&self, _announcement: &mut Announcement) {}

    /// A disk may hang, and pictures go on.
    fn beat(&self) -> Option<(&Arc<Beat>, Duration)> {
        None
    }

    fn viewers(&self) -> u64 {
        0
    }

    /// Its statistics say it; the pilot's picture goes on.
    fn has_died(&self) -> bool {
        false
    }

    fn shutdown(&self) {
        self.end();
        let since = lock(&self.ends).map_or(Duration::ZERO, |since| since.elapsed());
        if !self.recorder.stop(STOP_LIMIT.saturating_sub(since)) {
            let title = self.stream.names().last().unwrap_or_default();
            tracing::warn!(
                "recording of {title}: the disk did not take the end of the file, which plays without an index"
            );
        }
    }
}
