//! Recording at the surface: the access units that the decoder takes, as they are, into files (`rov_common::recording`).
//!
//! All streams that are watched are recorded, each into files of its own. They are taken where the decoder takes them:
//! what it left out, since something before was lost, is a gap, and the file goes on where the decoder does, with a
//! keyframe. That thread only copies each into the recorder's queue; all else is done by the recorder's own.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use std::{env, fmt};

use bytes::Bytes;
use rov_common::api::RecordingState;
use rov_common::capture_clock::Captured;
use rov_common::codec::Codec;
use rov_common::recording::{self, Folder, Keep, Picture, Plan, Recorded, Recorder, Split};
use rov_common::sync::lock;

use crate::stats::{RecordedFile, RecordingReport};

/// For the index of the files at the end; without it, they can be played too.
const STOP_LIMIT: Duration = Duration::from_millis(1_800);
/// What is watched is mostly known by its name before; if not, files are named after its address.
const NAME_LIMIT: Duration = Duration::from_secs(1);
/// Without a picture for longer, nothing is recorded.
const STILL: Duration = Duration::from_secs(2);
/// Pictures of one clock go no further back.
const BACK: Duration = Duration::from_secs(1);
/// Times of RTP that differ more from those of this machine are of another stream.
const APART: Duration = Duration::from_secs(1);
/// Recorders that wait for a disk that hangs.
const MOST: usize = 64;
/// Files in the report.
const LISTED_FILES: usize = 1_000;
const RTP_CLOCK: f64 = 90_000.0;

/// What the command line says.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    pub folder: PathBuf,
    /// From the start.
    pub is_on: bool,
    pub split: Split,
    /// None: nothing is deleted.
    pub keep: Keep,
    /// Bytes that stay free on the disk.
    pub spare: u64,
}

/// Where the key R records without `--record`; none: there is no home folder.
pub fn default_folder() -> Option<PathBuf> {
    let home = ["HOME", "USERPROFILE"].into_iter().find_map(|name| env::var_os(name).filter(|home| !home.is_empty()));
    let home = home.map(PathBuf::from).filter(|home| home.is_absolute());
    home.map(|home| home.join("Videos").join("ROV"))
}

/// What is watched, as far as it is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Source {
    pub id: String,
    pub address: String,
    pub stream: String,
    /// Of vehicle, camera and stream.
    pub title: String,
    /// The vehicle has said how it is called.
    pub is_named: bool,
}

impl Source {
    /// Whether that is another vehicle, or another stream; not where one of the two is only known better.
    fn is_other(&self, before: &Self) -> bool {
        let has_ids = !self.id.is_empty() && !before.id.is_empty();
        let is_other_vehicle = if has_ids { self.id != before.id } else { self.address != before.address };
        let has_streams = !self.stream.is_empty() && !before.stream.is_empty();
        is_other_vehicle || has_streams && self.stream != before.stream
    }
}

/// Of the whole program.
#[derive(Default)]
pub struct Recording {
    /// None: there is no folder for it.
    place: Option<(Arc<Folder>, Options)>,
    is_on: AtomicBool,
    reels: Mutex<Reels>,
}

#[derive(Default)]
struct Reels {
    /// Those that still write.
    open: Vec<Arc<Reel>>,
    /// What became of the others.
    ended: Totals,
    /// Since when it is on, and how many bytes there were then.
    on: Option<(Instant, u64)>,
}

#[derive(Clone, Default)]
struct Totals {
    expected: u64,
    present: u64,
    gaps: u64,
    bytes: u64,
    files: VecDeque<Recorded>,
}

impl Totals {
    fn add(&mut self, reel: &Reel) {
        let stats = reel.recorder.stats();
        self.expected += lock(&reel.counts).expected;
        self.present += stats.pictures;
        self.gaps += stats.gaps;
        self.bytes += stats.total_bytes;
        self.files.extend(reel.recorder.files());
        let surplus = self.files.len().saturating_sub(LISTED_FILES);
        self.files.drain(..surplus);
    }
}

/// The files of one stream of one vehicle, of one codec.
struct Reel {
    recorder: Recorder,
    codec: Codec,
    has_ended: AtomicBool,
    counts: Mutex<Counts>,
}

#[derive(Default)]
struct Counts {
    /// Pictures from the first that was recorded on, those included that never came.
    expected: u64,
    /// When the newest one came.
    taken: Option<Instant>,
}

impl Reel {
    fn has_ended(&self) -> bool {
        self.has_ended.load(Ordering::Relaxed)
    }

    /// Does not wait for that.
    fn end(&self) {
        self.has_ended.store(true, Ordering::Relaxed);
        self.recorder.stop(Duration::ZERO);
    }
}

/// What the window says of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    pub text: String,
    /// Pictures go into files.
    pub works: bool,
}

impl Recording {
    pub fn new(options: Option<Options>) -> Arc<Self> {
        let place = options.map(|options| (Folder::new(&options.folder), options));
        let this = Self { place, ..Self::default() };
        if this.place.as_ref().is_some_and(|(_, options)| options.is_on) {
            this.set_on(true);
        }
        Arc::new(this)
    }

    fn folder(&self) -> Option<&Path> {
        self.place.as_ref().map(|(folder, _)| folder.path())
    }

    pub fn is_on(&self) -> bool {
        self.is_on.load(Ordering::Relaxed)
    }

    /// Each stream begins at its next keyframe, or ends its file; that is not waited for.
    fn set_on(&self, on: bool) {
        let mut reels = lock(&self.reels);
        self.is_on.store(on, Ordering::Relaxed);
        reels.open.iter().for_each(|reel| reel.end());
        reels.on = on.then(|| (Instant::now(), reels.totals().bytes));
    }

    /// What the key R does. Says what came of it.
    pub fn toggle(&self) -> String {
        let Some(folder) = self.folder() else {
            return "Nothing is recorded: start with --record FOLDER, there is no home folder".to_owned();
        };
        let on = !self.is_on();
        self.set_on(on);
        let text = if on { format!("Recording into {}", folder.display()) } else { "Recording ended".to_owned() };
        tracing::info!("{text}");
        text
    }

    /// Begins files of this source.
    fn begin(&self, source: &Source, codec: Codec) -> Option<Arc<Reel>> {
        let (folder, options) = self.place.as_ref()?;
        let mut reels = lock(&self.reels);
        reels.fold();
        // It may be off by now.
        if !self.is_on() || reels.open.len() >= MOST {
            return None;
        }
        let label = if source.title.is_empty() { "video" } else { &source.title };
        let plan = Plan {
            label: label.replace([' ', '/'], "_"),
            title: label.to_owned(),
            codec,
            split: options.split,
            keep: options.keep,
            spare: options.spare,
        };
        match Recorder::start(Arc::clone(folder), plan, |_| {}) {
            Ok(recorder) => {
                recorder.set_on(true);
                let reel = Reel { recorder, codec, has_ended: AtomicBool::new(false), counts: Mutex::default() };
                let reel = Arc::new(reel);
                reels.open.push(Arc::clone(&reel));
                Some(reel)
            }
            Err(error) => {
                tracing::warn!("nothing is recorded: cannot start the thread for it: {error}");
                None
            }
        }
    }

    /// None: it is off.
    pub fn told(&self, now: Instant) -> Option<Told> {
        let reels = lock(&self.reels);
        let (since, before) = reels.on?;
        let open: Vec<_> = reels.open.iter().filter(|reel| !reel.has_ended()).collect();
        let all: Vec<_> = open.iter().map(|reel| reel.recorder.stats()).collect();
        let paused = all.iter().find(|stats| stats.state == RecordingState::Paused);
        if let Some(paused) = paused.or(all.iter().find(|stats| stats.reason.is_some())) {
            let reason = paused.reason.as_deref().unwrap_or_default();
            return Some(Told { text: format!("NOT RECORDING: {reason}"), works: false });
        }
        let comes = |reel: &Reel| {
            lock(&reel.counts).taken.is_some_and(|taken| now.saturating_duration_since(taken) < STILL)
        };
        let works = all.iter().any(|stats| stats.state == RecordingState::Recording);
        if !works || !open.iter().any(|reel| comes(reel)) {
            return Some(Told { text: "REC waits for a picture".to_owned(), works: false });
        }
        let (seconds, bytes) = (now.saturating_duration_since(since).as_secs(), reels.totals().bytes - before);
        let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
        let hours = if hours > 0 { format!("{hours}:") } else { String::new() };
        let text = format!("REC {hours}{minutes:02}:{:02} {}", seconds % 60, recording::Bytes(bytes));
        Some(Told { text, works: true })
    }

    /// None: it was never on.
    pub fn report(&self) -> Option<RecordingReport> {
        let reels = lock(&self.reels);
        let totals = reels.totals();
        let open: Vec<_> = reels.open.iter().map(|reel| reel.recorder.stats()).collect();
        if !self.is_on() && open.is_empty() && totals.files.is_empty() && totals.expected == 0 {
            return None;
        }
        let path = |name: &str| self.folder().unwrap_or(Path::new("")).join(name).display().to_string();
        let file = |file: &Recorded| RecordedFile {
            file: path(&file.name),
            bytes: file.bytes,
            pictures_expected: file.pictures + file.missing,
            pictures_present: file.pictures,
            gaps: file.gaps,
        };
        Some(RecordingReport {
            on: self.is_on(),
            reason: open.iter().find_map(|stats| stats.reason.clone()),
            bytes: totals.bytes,
            pictures_expected: totals.expected,
            pictures_present: totals.present,
            gaps: totals.gaps,
            writing: open.iter().filter_map(|stats| stats.file.as_deref().map(path)).collect(),
            files: totals.files.iter().map(file).collect(),
        })
    }

    /// Ends all files, and says what is in them. Waits for a disk that is slow, within bounds.
    pub fn finish(&self) {
        let was_on = self.is_on();
        self.set_on(false);
        let end = Instant::now() + STOP_LIMIT;
        let open = lock(&self.reels).open.clone();
        let whole = |reel: &Arc<Reel>| reel.recorder.stop(end.saturating_duration_since(Instant::now()));
        if !open.iter().map(whole).fold(true, |all, one| all & one) {
            tracing::warn!("recording: the disk did not take the end of a file, which plays without an index");
        }
        let totals = lock(&self.reels).totals();
        if was_on || totals.expected > 0 {
            tracing::info!(
                "recorded in all: {} files, {}, pictures expected {}, present {}, gaps {}",
                totals.files.len(),
                recording::Bytes(totals.bytes),
                totals.expected,
                totals.present,
                totals.gaps
            );
        }
    }
}

impl Reels {
    /// Of those that have ended, only what became of them is kept.
    fn fold(&mut self) {
        let is_done = |reel: &Arc<Reel>| reel.has_ended() && reel.recorder.stop(Duration::ZERO);
        for reel in self.open.extract_if(.., |reel| is_done(reel)) {
            self.ended.add(&reel);
        }
    }

    fn totals(&self) -> Totals {
        let mut totals = self.ended.clone();
        self.open.iter().for_each(|reel| totals.add(reel));
        totals
    }
}

/// An access unit that the decoder takes.
#[derive(Clone, Copy, Debug)]
pub struct Taken<'a> {
    pub codec: Codec,
    /// Annex B.
    pub unit: &'a [u8],
    pub keyframe: bool,
    pub rtp_timestamp: u32,
    pub captured: Option<Captured>,
    /// The decoder begins, or goes on after something was lost.
    pub resumes: bool,
}

/// Of one of the streams that are watched.
#[derive(Default)]
pub struct Tape {
    recording: Arc<Recording>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    source: Source,
    is_closed: bool,
    reel: Option<Arc<Reel>>,
    /// Since when the name of what is watched is waited for.
    unnamed: Option<Instant>,
    timeline: Timeline,
    /// From one picture to the next, about.
    interval: Duration,
    /// Pictures that came and were not decoded, since the last one that was.
    skipped: u64,
}

impl Tape {
    pub fn of(recording: Arc<Recording>) -> Self {
        Self { recording, state: Mutex::default() }
    }

    /// What is watched, or that it is known better. Another one begins new files.
    pub fn set_source(&self, source: Source) {
        let mut state = lock(&self.state);
        if source.is_other(&state.source) {
            state.end();
        }
        state.source = source;
    }

    /// What comes from now on is of another one, although it is not known of which.
    pub fn cut(&self) {
        lock(&self.state).end();
    }

    /// The stream is not watched any more.
    pub fn close(&self) {
        let mut state = lock(&self.state);
        state.is_closed = true;
        state.end();
    }

    /// Takes what goes into the decoder; never waits for a disk. Returns whether a keyframe is to be asked for.
    pub fn take(&self, taken: Taken<'_>, now: Instant) -> bool {
        self.recording.is_on() && lock(&self.state).take(&self.recording, taken, now)
    }

    /// An access unit came, and is not decoded.
    pub fn skip(&self) {
        if self.recording.is_on() {
            lock(&self.state).skipped += 1;
        }
    }
}

impl fmt::Debug for Tape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tape").finish_non_exhaustive()
    }
}

impl State {
    fn take(&mut self, recording: &Recording, taken: Taken<'_>, now: Instant) -> bool {
        let Taken { codec, captured, keyframe, .. } = taken;
        if self.is_closed {
            return false;
        }
        let before = self.timeline.last();
        let (time, goes_on) = self.timeline.next(&taken, now);
        if !goes_on || self.reel.as_ref().is_some_and(|reel| reel.has_ended() || reel.codec != codec) {
            self.end();
        }
        if self.reel.is_none() {
            let since = *self.unnamed.get_or_insert(now);
            if !self.source.is_named && now.saturating_duration_since(since) < NAME_LIMIT {
                return false;
            }
            (self.unnamed, self.skipped) = (None, 0);
            self.reel = recording.begin(&self.source, codec);
        }
        let Some(reel) = &self.reel else { return false };
        let mut counts = lock(&reel.counts);
        let has_begun = counts.taken.is_some();
        if let Some((last, last_captured)) = before.filter(|_| has_begun) {
            let passed = time.saturating_sub(last);
            if taken.resumes {
                let missing = missing(passed, self.interval).max(self.skipped);
                if missing > 0 {
                    let behind = (last + self.interval, last_captured.map(|at| Captured(at.0 + self.interval)));
                    reel.recorder.miss(missing, behind, "they did not get here whole, or too late");
                    counts.expected += missing;
                }
            } else {
                self.interval = if self.interval.is_zero() { passed } else { (self.interval * 7 + passed) / 8 };
            }
        }
        self.skipped = 0;
        if has_begun || keyframe {
            counts.expected += 1;
            counts.taken = Some(now);
        }
        drop(counts);
        reel.recorder.push(Picture { unit: Bytes::copy_from_slice(taken.unit), time, captured, keyframe }, now)
    }

    fn end(&mut self) {
        let skipped = std::mem::take(&mut self.skipped);
        let Some(reel) = self.reel.take() else { return };
        // What came after the last one that was decoded is missing at the end.
        let mut counts = lock(&reel.counts);
        if let (Some((last, captured)), true) = (self.timeline.last(), skipped > 0 && counts.taken.is_some()) {
            reel.recorder.miss(skipped, (last, captured), "they did not get here whole, or too late");
            counts.expected += skipped;
        }
        drop(counts);
        self.interval = Duration::ZERO;
        reel.end();
    }
}

/// How many pictures there were between two, by how far apart pictures were before.
fn missing(passed: Duration, interval: Duration) -> u64 {
    if interval.is_zero() {
        return 0;
    }
    (passed.as_secs_f64() / interval.as_secs_f64()).round() as u64 - u64::from(passed > interval / 2)
}

/// When pictures were captured, where that is known; else by the clock of RTP.
#[derive(Default)]
struct Timeline {
    newest: Option<Newest>,
}

#[derive(Clone, Copy)]
struct Newest {
    time: Duration,
    captured: Option<Captured>,
    rtp_timestamp: u32,
    at: Instant,
    /// Times are those of capture.
    by_capture: bool,
}

impl Timeline {
    fn last(&self) -> Option<(Duration, Option<Captured>)> {
        self.newest.map(|newest| (newest.time, newest.captured))
    }

    /// The time of a picture, and whether that is of the same clock as the last one.
    fn next(&mut self, taken: &Taken<'_>, now: Instant) -> (Duration, bool) {
        let captured = taken.captured.map(|captured| captured.0);
        let (by_capture, time, goes_on) = match self.newest {
            None => (captured.is_some(), captured.unwrap_or_else(by_system), true),
            Some(newest) => {
                let by_capture = if taken.resumes { captured.is_some() } else { newest.by_capture };
                let time = captured.filter(|_| by_capture).unwrap_or_else(|| newest.by_rtp(taken, now));
                let goes_on = by_capture == newest.by_capture && time + BACK >= newest.time;
                let time = if by_capture { time } else { by_system_if(!goes_on, time) };
                (by_capture, if goes_on { time.max(newest.time) } else { time }, goes_on)
            }
        };
        let (rtp_timestamp, captured) = (taken.rtp_timestamp, taken.captured);
        self.newest = Some(Newest { time, captured, rtp_timestamp, at: now, by_capture });
        (time, goes_on)
    }
}

impl Newest {
    fn by_rtp(&self, taken: &Taken<'_>, now: Instant) -> Duration {
        let ticks = taken.rtp_timestamp.wrapping_sub(self.rtp_timestamp) as i32;
        let by_rtp = Duration::from_secs_f64(f64::from(ticks.max(0)) / RTP_CLOCK);
        let here = now.saturating_duration_since(self.at);
        // Of another stream they say nothing.
        let is_same = !taken.resumes || ticks >= 0 && by_rtp.abs_diff(here) < APART;
        self.time + if is_same { by_rtp } else { here }
    }
}

fn by_system_if(is_new: bool, time: Duration) -> Duration {
    if is_new { by_system() } else { time }
}

fn by_system() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
