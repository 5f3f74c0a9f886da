//! Recording on the vehicle: a stream's access units as they are, into files (`rov_common::recording`).
//!
//! The thread of the pictures puts each into the recorder's queue, which never waits for the disk; all else is done by
//! the recorder's own thread. A recording that hangs, or a disk that does, is nobody's business but its own: it never
//! ends the server.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rov_common::api::{RecordingStats, Stats};
use rov_common::capture_clock::TimeOfDay;
use rov_common::recording::{Columns, Folder, Measured, Picture, Plan, Recorder};
use rov_common::sync::lock;
use tokio::sync::watch;

use super::{Given, Output, told_of};
use crate::config::RecordConfig;
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
    /// One for each stream; all are off.
    pub(super) fn of(given: &Given) -> Result<Vec<Arc<Self>>> {
        let (Some(record), Some(folder)) = (&given.config.record, given.folder) else { return Ok(Vec::new()) };
        let board = given.config.telemetry.is_on().then_some(given.board);
        let start = |stream| Self::start(stream, folder, record, (board.cloned(), given.day.clone())).map(Arc::new);
        given.streams.iter().map(start).collect()
    }

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

    fn tell(&self, stats: &mut Stats) {
        if let Some(told) = told_of(stats, &self.stream, 0, 0) {
            told.recording = Some(self.stats());
        }
    }

    /// Its file.
    fn end(&self) {
        lock(&self.taking).take();
        lock(&self.ends).get_or_insert_with(Instant::now);
        self.recorder.stop(Duration::ZERO);
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
