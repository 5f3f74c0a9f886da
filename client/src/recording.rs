//! Recording at the surface: the access units that the decoder takes, as they are, into files (`rov_common::recording`).
//!
//! All streams that are watched are recorded, each into files of its own. They are taken where the decoder takes them:
//! what it left out, since something before was lost, is a gap, and the file goes on where the decoder does, with a
//! keyframe; what is missing is fetched later (`mending`). That thread only copies each into the recorder's queue; all else
//! is done by the recorder's own.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use std::{env, fmt};

use bytes::Bytes;
use rov_common::api::{RecordingGap, RecordingState};
use rov_common::capture_clock::Captured;
use rov_common::codec::Codec;
use rov_common::recording::{self, Columns, Folder, Keep, Measured, Picture, Plan, Recorded, Recorder, Split};
use rov_common::sync::lock;

use crate::mending::Mender;
use crate::stats::{RecordedFile, RecordingReport};
use crate::told::Told as Heard;
use crate::whep::Api;

/// At the end, for what waits for the disk and the index of the files, without which they can be played too: while the
/// disk takes nothing, and in all.
const STOP_LIMIT: Duration = Duration::from_millis(1_800);
const STOP_LONGEST: Duration = Duration::from_secs(30);
const STOP_TICK: Duration = Duration::from_millis(20);
/// At the end, for what is still to be fetched.
const MEND_LIMIT: Duration = Duration::from_secs(10);
/// What is watched is mostly known by its name before; if not, files are named after its address.
const NAME_LIMIT: Duration = Duration::from_secs(1);
/// Without a picture for longer, nothing is recorded.
const STILL: Duration = Duration::from_secs(2);
/// Pictures of one clock go no further back, and are not further ahead of the time that has passed here.
const BACK: Duration = Duration::from_secs(1);
const AHEAD: Duration = Duration::from_secs(5);
/// What the vehicle sent behind the last picture, up to so long before the end of a recording, is missing.
const ON_THE_WAY: Duration = Duration::from_millis(500);
/// Until the time of capture of the next recording's first picture is known, by RTP by a sender report.
const TIMES_LIMIT: Duration = Duration::from_secs(10);
/// Times of RTP that differ more from those of this machine are of another stream.
const APART: Duration = Duration::from_secs(1);
/// Recorders, with those that wait for a disk that hangs: each may hold a queue of pictures.
const MOST: usize = 24;
/// Of them; beyond it, the oldest of those that have ended wait no longer for what comes late.
const UNSETTLED: usize = 16;
/// Files, and gaps, in the report.
const LISTED_FILES: usize = 1_000;
const LISTED_GAPS: usize = 64;
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
    /// The vehicle has said how it and its streams are called.
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
    mender: Mender,
}

#[derive(Default)]
struct Reels {
    /// Those that still write.
    open: Vec<Arc<Reel>>,
    /// What became of the others.
    ended: Totals,
    /// Why no other can begin.
    failure: Option<String>,
}

#[derive(Clone, Default)]
struct Totals {
    expected: u64,
    present: u64,
    gaps: u64,
    bytes: u64,
    /// The newest of so many.
    files: VecDeque<Recorded>,
    ended_files: u64,
    uncompared_files: u64,
    newest_gaps: VecDeque<RecordingGap>,
}

impl Totals {
    fn add(&mut self, reel: &Reel) {
        let stats = reel.recorder.stats();
        self.expected += reel.expected();
        self.present += stats.pictures;
        self.gaps += stats.gaps;
        self.bytes += stats.total_bytes;
        self.ended_files += reel.recorder.ended_files();
        self.uncompared_files += reel.recorder.uncompared_files();
        self.files.extend(reel.recorder.files());
        let surplus = self.files.len().saturating_sub(LISTED_FILES);
        self.files.drain(..surplus);
        self.newest_gaps.extend(stats.newest_gaps);
        let surplus = self.newest_gaps.len().saturating_sub(LISTED_GAPS);
        self.newest_gaps.drain(..surplus);
    }
}

/// The files of one stream of one vehicle, of one codec.
pub struct Reel {
    pub recorder: Recorder,
    pub codec: Codec,
    title: String,
    has_ended: AtomicBool,
    /// Nothing more comes late.
    is_settled: AtomicBool,
    counts: Mutex<Counts>,
    /// Where it can be asked for what is missing, and the stream's name there; empty: its default.
    vehicle: Mutex<Option<(Api, String)>>,
}

#[derive(Default)]
struct Counts {
    /// Pictures from the first that was recorded on, those included that never came.
    expected: u64,
    /// When the newest one came, and its times.
    taken: Option<Instant>,
    newest: (Duration, Option<Captured>),
    /// From one picture to the next, about; and how many came since the newest of those that count for it.
    interval: Duration,
    still: u32,
    /// Those that came since and were not decoded.
    skipped: u64,
    /// Behind the last picture, what was captured up to then is asked for.
    tail: Option<Captured>,
    /// That, where the next recording's first picture does not tell it until then.
    guess: Option<(Instant, Captured)>,
}

impl Counts {
    /// So many are missing behind the newest one.
    fn miss(&mut self, recorder: &Recorder, pictures: u64) {
        if pictures > 0 && self.taken.is_some() {
            recorder.miss(pictures, self.newest, "they did not get here whole, or too late");
            self.expected += pictures;
        }
    }

    /// How many are missing between the newest one and one that comes so much later.
    fn missing(&self, passed: Duration) -> u64 {
        missing(passed, self.interval)
    }

    /// What came behind the newest one is missing, and what may have.
    fn end(&mut self, recorder: &Recorder, now: Instant, next: Option<&Taken<'_>>) {
        let skipped = std::mem::take(&mut self.skipped);
        let passed = self.taken.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        // Where pictures of another clock come, by the time that has passed here.
        self.miss(recorder, next.map_or(0, |_| self.missing(passed)).max(skipped));
        let Some(last) = self.newest.1 else { return };
        match next.map(|next| next.captured) {
            Some(Some(next)) if last < next && next.0 <= last.0 + passed + BACK => self.ask_before(next),
            Some(None) => {
                let guess = Captured(last.0 + passed.saturating_sub(self.interval / 2));
                self.guess = Some((now + TIMES_LIMIT, guess));
            }
            // Nothing came for a while, as in an outage.
            None if passed >= STILL => self.tail = self.tail.max(Some(Captured(last.0 + passed - ON_THE_WAY))),
            _ => {}
        }
    }

    /// That one must not be fetched as well.
    fn ask_before(&mut self, next: Captured) {
        self.tail = self.tail.max(Some(Captured(next.0.saturating_sub(self.interval / 2))));
    }
}

impl Reel {
    fn new(recorder: Recorder, codec: Codec, title: String, vehicle: Option<(Api, String)>) -> Self {
        Self {
            recorder,
            codec,
            title,
            has_ended: AtomicBool::new(false),
            is_settled: AtomicBool::new(false),
            counts: Mutex::default(),
            vehicle: Mutex::new(vehicle),
        }
    }

    /// Of nothing yet.
    #[cfg(test)]
    pub fn of(folder: &Path, vehicle: Option<(Api, String)>) -> Self {
        let plan = Plan {
            label: "video".to_owned(),
            title: "video".to_owned(),
            codec: Codec::H264,
            split: Split::default(),
            keep: None,
            spare: 0,
            columns: Columns::default(),
            day: None,
            mends: true,
        };
        let recorder = Recorder::start(Folder::new(folder), plan, |_| {}).expect("a thread");
        Self::new(recorder, Codec::H264, "video".to_owned(), vehicle)
    }

    pub fn has_ended(&self) -> bool {
        self.has_ended.load(Ordering::Relaxed)
    }

    pub fn title(&self) -> &str {
        &self.title
    }

    pub fn vehicle(&self) -> Option<(Api, String)> {
        lock(&self.vehicle).clone()
    }

    /// Where it has ended and all of it is in files: up to when what was captured behind its last picture is asked for.
    pub fn ended(&self) -> Option<Option<Captured>> {
        if !self.has_ended() || !self.recorder.is_over() {
            return None;
        }
        let mut counts = lock(&self.counts);
        if let Some((_, guess)) = counts.guess.take_if(|(limit, _)| *limit <= Instant::now()) {
            counts.tail = counts.tail.max(Some(guess));
        }
        counts.guess.is_none().then_some(counts.tail)
    }

    fn is_guessed(&self) -> bool {
        lock(&self.counts).guess.is_some()
    }

    /// The next recording goes on with a picture of then.
    fn goes_on_at(&self, next: Captured) {
        let mut counts = lock(&self.counts);
        if counts.guess.take().is_some() {
            counts.ask_before(next);
        }
    }

    /// Nothing that comes late is waited for any more.
    pub fn is_settled(&self) -> bool {
        self.is_settled.load(Ordering::Relaxed)
    }

    fn expected(&self) -> u64 {
        lock(&self.counts).expected.saturating_add_signed(self.recorder.corrected())
    }

    /// Does not wait for that.
    pub fn settle(&self) {
        self.is_settled.store(true, Ordering::Relaxed);
        self.recorder.stop(Duration::ZERO);
    }

    /// Does not wait for that; its files end once nothing more comes late. `next`: with which another one goes on.
    pub fn end(&self, now: Instant, next: Option<&Taken<'_>>) {
        let mut counts = lock(&self.counts);
        if self.has_ended.swap(true, Ordering::Relaxed) {
            // The next one has ended, too, or the program does.
            counts.guess = counts.guess.map(|(limit, guess)| (limit.min(now), guess));
            return;
        }
        counts.end(&self.recorder, now, next.filter(|next| next.resumes));
        drop(counts);
        self.recorder.set_on(false);
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
        let reels = lock(&self.reels);
        self.is_on.store(on, Ordering::Relaxed);
        let now = Instant::now();
        reels.open.iter().for_each(|reel| reel.end(now, None));
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
    fn begin(&self, source: &Source, vehicle: Option<Api>, codec: Codec) -> Option<Arc<Reel>> {
        let (folder, options) = self.place.as_ref()?;
        let mut reels = lock(&self.reels);
        reels.fold();
        // It may be off by now.
        if !self.is_on() {
            return None;
        }
        if reels.open.len() >= MOST {
            return reels.fail("the disk does not take the ends of former files".to_owned());
        }
        let label = if source.title.is_empty() { "video" } else { &source.title };
        let plan = Plan {
            label: label.replace([' ', '/'], "_"),
            title: label.to_owned(),
            codec,
            split: options.split,
            keep: options.keep,
            spare: options.spare,
            // As they come.
            columns: Columns::default(),
            day: None,
            mends: true,
        };
        match Recorder::start(Arc::clone(folder), plan, |_| {}) {
            Ok(recorder) => {
                recorder.set_on(true);
                let vehicle = vehicle.map(|vehicle| (vehicle, source.stream.clone()));
                let reel = Arc::new(Reel::new(recorder, codec, label.to_owned(), vehicle));
                if let Err(error) = self.mender.add(Arc::clone(&reel)) {
                    return reels.fail(format!("cannot start the threads for it: {error}"));
                }
                reels.failure = None;
                reels.open.push(Arc::clone(&reel));
                Some(reel)
            }
            Err(error) => reels.fail(format!("cannot start the thread for it: {error}")),
        }
    }

    /// What is said of what is watched, whose files are of this reel. None: it is off.
    fn told(&self, reel: Option<&Reel>, now: Instant) -> Option<Told> {
        if !self.is_on() {
            return None;
        }
        let not = |reason: &str| Some(Told { text: format!("NOT RECORDING: {reason}"), works: false });
        let waits = Some(Told { text: "REC waits for a picture".to_owned(), works: false });
        let Some(reel) = reel.filter(|reel| !reel.has_ended()) else {
            let failure = lock(&self.reels).failure.clone();
            return failure.map_or(waits, |failure| not(&failure));
        };
        let stats = reel.recorder.stats();
        if stats.state == RecordingState::Paused || stats.reason.is_some() {
            return not(stats.reason.as_deref().unwrap_or_default());
        }
        let comes = lock(&reel.counts).taken.is_some_and(|taken| now.saturating_duration_since(taken) < STILL);
        if stats.state != RecordingState::Recording || !comes {
            return waits;
        }
        let seconds = stats.seconds as u64;
        let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
        let hours = if hours > 0 { format!("{hours}:") } else { String::new() };
        let text = format!("REC {hours}{minutes:02}:{:02} {}", seconds % 60, recording::Bytes(stats.bytes));
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
            compared: file.is_compared,
        };
        Some(RecordingReport {
            on: self.is_on(),
            reason: reels.failure.clone().or_else(|| open.iter().find_map(|stats| stats.reason.clone())),
            bytes: totals.bytes,
            pictures_expected: totals.expected,
            pictures_present: totals.present,
            gaps: totals.gaps,
            newest_gaps: totals.newest_gaps.into(),
            writing: open.iter().filter_map(|stats| stats.file.as_deref().map(path)).collect(),
            files_ended: totals.ended_files,
            files_not_compared: totals.uncompared_files,
            files: totals.files.iter().map(file).collect(),
        })
    }

    /// Ends all files, and says what is in them. Waits for a disk that is slow, within bounds.
    pub fn finish(&self) {
        let was_on = self.is_on();
        self.set_on(false);
        self.mender.finish(MEND_LIMIT);
        let mut open = lock(&self.reels).open.clone();
        open.iter().for_each(|reel| _ = reel.recorder.stop(Duration::ZERO));
        let (begun, mut grown, mut bytes) = (Instant::now(), Instant::now(), 0);
        loop {
            open.retain(|reel| !reel.recorder.stop(STOP_TICK));
            let written = open.iter().map(|reel| reel.recorder.stats().total_bytes).sum();
            if std::mem::replace(&mut bytes, written) != written {
                grown = Instant::now();
            }
            if open.is_empty() || grown.elapsed() >= STOP_LIMIT || begun.elapsed() >= STOP_LONGEST {
                break;
            }
        }
        if !open.is_empty() {
            let lost = |reel: &Arc<Reel>| {
                let stats = reel.recorder.stats();
                reel.expected().saturating_sub(stats.pictures + stats.missing)
            };
            let lost: u64 = open.iter().map(lost).sum();
            tracing::warn!(
                "recording: the disk did not take the end of a file, which plays without an index; {lost} pictures are lost"
            );
        }
        let totals = lock(&self.reels).totals();
        if was_on || totals.expected > 0 {
            // Nor is what the disk still holds.
            let uncompared = totals.uncompared_files + open.len() as u64;
            tracing::info!(
                "recorded in all: {} files, {}, pictures expected {}, present {}, gaps {}{}",
                totals.ended_files,
                recording::Bytes(totals.bytes),
                totals.expected,
                totals.present,
                totals.gaps,
                not_compared(uncompared)
            );
        }
    }
}

/// Behind the numbers of all files.
fn not_compared(files: u64) -> String {
    if files == 0 {
        return String::new();
    }
    format!("; {files} of the files not compared with what the vehicle sent: more may be missing there")
}

impl Reels {
    fn fail(&mut self, reason: String) -> Option<Arc<Reel>> {
        if self.failure.as_ref() != Some(&reason) {
            tracing::warn!("nothing is recorded: {reason}");
        }
        self.failure = Some(reason);
        None
    }

    /// Of those that have ended, only what became of them is kept.
    fn fold(&mut self) {
        let unsettled = self.open.iter().filter(|reel| !reel.is_settled());
        let surplus = (unsettled.clone().count() + 1).saturating_sub(UNSETTLED);
        unsettled.filter(|reel| reel.has_ended()).take(surplus).for_each(|reel| reel.settle());
        let is_done = |reel: &Arc<Reel>| reel.is_settled() && reel.recorder.stop(Duration::ZERO);
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
    /// What the vehicle says of what it measures.
    heard: Heard,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    source: Source,
    vehicle: Option<Api>,
    is_closed: bool,
    reel: Option<Arc<Reel>>,
    /// Since when the name of what is watched is waited for; not again for the next file of it.
    unnamed: Option<Instant>,
    timeline: Timeline,
    /// The one before, and the time of this one's first picture, of which no time of capture is known yet.
    former: Option<(Arc<Reel>, Option<Duration>)>,
    measured: Measured,
}

impl Tape {
    pub fn of(recording: Arc<Recording>, heard: Heard) -> Self {
        Self { recording, heard, state: Mutex::default() }
    }

    /// What is watched, or that it is known better. Another one begins new files.
    pub fn set_source(&self, mut source: Source) {
        let mut state = lock(&self.state);
        if source.is_other(&state.source) {
            state.end(Instant::now(), None);
            (state.unnamed, state.vehicle) = (None, None);
        } else if source.stream.is_empty() {
            // As at each attempt to reach the vehicle again.
            source.stream = std::mem::take(&mut state.source.stream);
        }
        if let Some(reel) = &state.reel
            && let Some((_, stream)) = &mut *lock(&reel.vehicle)
        {
            stream.clone_from(&source.stream);
        }
        state.source = source;
    }

    /// Where what is watched can be asked for what is missing. None: it is not known, and what was known holds.
    pub fn set_vehicle(&self, vehicle: Option<Api>) {
        let Some(vehicle) = vehicle else { return };
        let mut state = lock(&self.state);
        if let Some(reel) = &state.reel {
            *lock(&reel.vehicle) = Some((vehicle.clone(), state.source.stream.clone()));
        }
        state.vehicle = Some(vehicle);
    }

    /// What comes from now on is of another one, although it is not known of which.
    pub fn cut(&self) {
        let mut state = lock(&self.state);
        state.end(Instant::now(), None);
        state.source.stream.clear();
    }

    /// The stream is not watched any more.
    pub fn close(&self) {
        let mut state = lock(&self.state);
        state.is_closed = true;
        state.end(Instant::now(), None);
    }

    /// Takes what goes into the decoder; never waits for a disk. Returns whether a keyframe is to be asked for.
    pub fn take(&self, taken: Taken<'_>, now: Instant) -> bool {
        self.recording.is_on() && lock(&self.state).take((&self.recording, &self.heard), taken, now)
    }

    /// What the window says of its recording: of the file that is being written. None: it is off.
    pub fn told(&self, now: Instant) -> Option<Told> {
        let reel = lock(&self.state).reel.clone();
        self.recording.told(reel.as_deref(), now)
    }

    /// An access unit came, and is not decoded.
    pub fn skip(&self, captured: Option<Captured>) {
        if self.recording.is_on()
            && let Some(reel) = &lock(&self.state).reel
        {
            let mut counts = lock(&reel.counts);
            counts.skipped += 1;
            counts.tail = counts.tail.max(captured);
        }
    }
}

impl fmt::Debug for Tape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tape").finish_non_exhaustive()
    }
}

impl State {
    fn take(&mut self, (recording, heard): (&Recording, &Heard), taken: Taken<'_>, now: Instant) -> bool {
        let Taken { codec, captured, keyframe, .. } = taken;
        if self.is_closed {
            return false;
        }
        if self.reel.as_ref().is_some_and(|reel| reel.has_ended() || reel.codec != codec) {
            self.end(now, Some(&taken));
        }
        let time = self.timeline.next(&taken, now).or_else(|| {
            self.end(now, Some(&taken));
            self.timeline.next(&taken, now)
        });
        let time = time.unwrap_or_default();
        if let Some((former, first)) = &mut self.former {
            let passed = time - *first.get_or_insert(time);
            if let Some(captured) = captured {
                former.goes_on_at(Captured(captured.0.saturating_sub(passed)));
                self.former = None;
            }
        }
        if self.reel.is_none() {
            let since = *self.unnamed.get_or_insert(now);
            if !self.source.is_named && now.saturating_duration_since(since) < NAME_LIMIT {
                return false;
            }
            self.reel = recording.begin(&self.source, self.vehicle.clone(), codec);
        }
        let Some(reel) = &self.reel else { return false };
        let mut counts = lock(&reel.counts);
        let has_begun = counts.taken.is_some();
        let passed = time.saturating_sub(counts.newest.0);
        let skipped = std::mem::take(&mut counts.skipped);
        if has_begun && taken.resumes {
            let missing = counts.missing(passed).max(skipped);
            counts.miss(&reel.recorder, missing);
        } else if has_begun && passed.is_zero() {
            // They are shown before it, or the clock was put back.
            counts.still += 1;
        } else if has_begun {
            let passed = passed / (counts.still + 1);
            counts.interval = if counts.interval.is_zero() { passed } else { (counts.interval * 7 + passed) / 8 };
        }
        if !passed.is_zero() {
            counts.still = 0;
        }
        if has_begun || keyframe {
            counts.expected += 1;
            (counts.taken, counts.newest) = (Some(now), (time, captured));
        }
        drop(counts);
        let fields = self.measured.at(now, || heard.fields(now));
        reel.recorder.push(Picture { unit: Bytes::copy_from_slice(taken.unit), time, captured, keyframe }, fields, now)
    }

    fn end(&mut self, now: Instant, next: Option<&Taken<'_>>) {
        self.former = self.reel.take().and_then(|reel| {
            reel.end(now, next);
            reel.is_guessed().then_some((reel, None))
        });
        self.timeline = Timeline::default();
    }
}

/// How many pictures there were between two, by how far apart pictures were before.
fn missing(passed: Duration, interval: Duration) -> u64 {
    if interval.is_zero() {
        return 0;
    }
    ((passed.as_secs_f64() / interval.as_secs_f64()).round() as u64).saturating_sub(1)
}

/// When pictures were captured, where that is known; else by the clock of RTP.
#[derive(Default)]
struct Timeline {
    newest: Option<Newest>,
}

#[derive(Clone, Copy)]
struct Newest {
    time: Duration,
    rtp_timestamp: u32,
    at: Instant,
    /// Times are those of capture.
    by_capture: bool,
}

impl Timeline {
    /// The time of a picture; none where that is of another clock than the last one: after that it begins anew.
    fn next(&mut self, taken: &Taken<'_>, now: Instant) -> Option<Duration> {
        let captured = taken.captured.map(|captured| captured.0);
        let (by_capture, time) = match self.newest {
            None => (captured.is_some(), captured.unwrap_or_else(by_system)),
            Some(newest) => {
                let by_capture = if taken.resumes { captured.is_some() } else { newest.by_capture };
                let time = captured.filter(|_| by_capture).unwrap_or_else(|| newest.by_rtp(taken, now));
                let here = now.saturating_duration_since(newest.at);
                let is_other = time + BACK < newest.time || time > newest.time + here + AHEAD;
                if by_capture != newest.by_capture || is_other {
                    return None;
                }
                (by_capture, time.max(newest.time))
            }
        };
        // Pictures that are shown before one that came before them move nothing.
        let is_newest = self.newest.is_none_or(|newest| time > newest.time);
        let rtp_timestamp = self.newest.filter(|_| !is_newest).map_or(taken.rtp_timestamp, |it| it.rtp_timestamp);
        self.newest = Some(Newest { time, rtp_timestamp, at: now, by_capture });
        Some(time)
    }
}

impl Newest {
    fn by_rtp(&self, taken: &Taken<'_>, now: Instant) -> Duration {
        let ticks = taken.rtp_timestamp.wrapping_sub(self.rtp_timestamp) as i32;
        let by_rtp = Duration::from_secs_f64(f64::from(ticks.max(0)) / RTP_CLOCK);
        let here = now.saturating_duration_since(self.at);
        // Of another stream they say nothing.
        let is_behind = f64::from(ticks) < -BACK.as_secs_f64() * RTP_CLOCK;
        let is_same = if taken.resumes { ticks >= 0 && by_rtp.abs_diff(here) < APART } else { !is_behind };
        self.time + if is_same { by_rtp } else { here }
    }
}

fn by_system() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, Write};

    use rov_common::api::RingListing;
    use rov_common::ring::Head;
    use tempfile::TempDir;

    use super::*;

    /// High profile, 1280x720.
    const SPS: [u8; 28] =
        [103, 100, 0, 31, 172, 217, 128, 80, 5, 187, 1, 106, 2, 2, 2, 128, 0, 0, 3, 0, 128, 0, 0, 30, 7, 140, 24, 205];
    const PPS: [u8; 5] = [104, 233, 123, 44, 139];
    const INTERVAL: u32 = 3_000;

    struct Bench {
        folder: TempDir,
        recording: Arc<Recording>,
        tape: Tape,
        now: Instant,
        is_captured: bool,
        /// That of captures is ahead by so much.
        clock: Duration,
    }

    fn source(id: &str, stream: &str) -> Source {
        let (id, stream, address) = (id.to_owned(), stream.to_owned(), "10.0.0.2:8080".to_owned());
        let title = format!("{id} {stream}");
        Source { id, address, stream, title, is_named: true }
    }

    fn bench(is_captured: bool) -> Bench {
        let folder = TempDir::new().expect("a folder");
        let path = folder.path().to_owned();
        let options = Options { folder: path, is_on: true, split: Split::default(), keep: None, spare: 0 };
        let recording = Recording::new(Some(options));
        let tape = Tape::of(Arc::clone(&recording), Heard::default());
        tape.set_source(source("Nemo", "bow/stream1"));
        Bench { folder, recording, tape, now: Instant::now(), is_captured, clock: Duration::ZERO }
    }

    impl Bench {
        /// The picture of this number, of 30 each second.
        fn take(&mut self, number: u32, keyframe: bool, resumes: bool) -> bool {
            let slice = [&[0, 0, 0, 1, if keyframe { 0x65 } else { 0x41 }], &number.to_be_bytes()[..]].concat();
            let sets = [&[0, 0, 0, 1], &SPS[..], &[0, 0, 0, 1], &PPS].concat();
            let unit = if keyframe { [sets, slice].concat() } else { slice };
            // Beyond the end of the clock of RTP.
            let rtp_timestamp = (u32::MAX - 100_000).wrapping_add(number * INTERVAL);
            let passed = Duration::from_micros(u64::from(number) * 1_000_000 / 30);
            let captured = self.is_captured.then(|| Captured(Duration::from_secs(1_700_000_000) + self.clock + passed));
            let taken = Taken { codec: Codec::H264, unit: &unit, keyframe, rtp_timestamp, captured, resumes };
            self.tape.take(taken, self.now + passed)
        }

        fn run(&mut self, numbers: std::ops::Range<u32>) {
            for number in numbers.clone() {
                self.take(number, number == numbers.start, number == numbers.start);
            }
        }

        fn end(&self) -> RecordingReport {
            self.recording.finish();
            self.recording.report().expect("something was recorded")
        }

        /// Names without time, and the rows of their tables.
        fn tables(&self) -> Vec<(String, Vec<String>)> {
            let entries = std::fs::read_dir(self.folder.path()).expect("the folder");
            let mut paths: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
            paths.retain(|path| path.extension().is_some_and(|extension| extension == "csv"));
            paths.sort();
            let rows = |path: &Path| {
                let text = std::fs::read_to_string(path).expect("a table");
                text.lines().skip(1).map(str::to_owned).collect()
            };
            let name = |path: &Path| path.file_stem().expect("a name").to_string_lossy()[25..].to_owned();
            paths.iter().map(|path| (name(path), rows(path))).collect()
        }
    }

    fn counts(report: &RecordingReport) -> (u64, u64, u64) {
        (report.pictures_expected, report.pictures_present, report.gaps)
    }

    #[test]
    fn what_the_decoder_leaves_out_or_never_came_is_a_gap_in_the_same_file() {
        for is_captured in [true, false] {
            let mut bench = bench(is_captured);
            // Before the first keyframe nothing is missing.
            assert!(bench.take(0, false, true), "a keyframe is asked for");
            bench.run(1..11);
            // Ten come and wait for a keyframe, of which nothing is known of five more.
            (0..10).for_each(|_| bench.tape.skip(None));
            bench.run(26..36);
            // The last ones are never decoded.
            (0..3).for_each(|_| bench.tape.skip(None));
            let report = bench.end();
            assert_eq!(counts(&report), (38, 20, 2), "{report:?}");
            let files: Vec<_> =
                report.files.iter().map(|file| (file.pictures_expected, file.pictures_present, file.gaps)).collect();
            assert_eq!(files, [(35, 20, 1)], "the file goes on, and ends with its last picture");
            let tables = bench.tables();
            assert_eq!(tables[0].0, "Nemo_bow_stream1");
            let row = &tables[0].1[10];
            assert!(row.starts_with("11,0.8333") && row.ends_with(",1,15"), "by capture and by RTP: {row}");
        }
    }

    #[test]
    fn another_stream_vehicle_or_clock_begins_another_file() {
        let mut bench = bench(true);
        bench.run(0..5);
        // What is only known better is the same.
        bench.tape.set_source(Source { address: "10.0.0.3:8080".to_owned(), ..source("Nemo", "bow/stream1") });
        bench.run(5..10);
        bench.tape.set_source(source("Nemo", "arm/stream1"));
        bench.run(10..15);
        bench.tape.set_source(source("Dory", "arm/stream1"));
        bench.run(15..20);
        bench.is_captured = false;
        bench.run(20..25);
        let report = bench.end();
        assert_eq!(counts(&report), (25, 25, 0), "{report:?}");
        let mut names: Vec<_> = bench.tables().into_iter().map(|(name, rows)| (name, rows.len())).collect();
        names.sort();
        let named = |name: &str, rows| (name.to_owned(), rows);
        let dory = named("Dory_arm_stream1", 5);
        assert_eq!(names, [dory.clone(), dory, named("Nemo_arm_stream1", 5), named("Nemo_bow_stream1", 10)]);
    }

    #[test]
    fn a_clock_that_is_set_begins_another_file_and_invents_no_pictures() {
        let mut bench = bench(true);
        bench.run(0..10);
        bench.clock = Duration::from_secs(86_400);
        bench.take(10, false, false);
        bench.run(11..20);
        let report = bench.end();
        // The one that cannot be decoded without its keyframe is in no file.
        assert_eq!((report.pictures_present, report.files.len(), report.gaps), (19, 2, 0), "{report:?}");
        assert!(report.pictures_expected <= 20, "{report:?}");
        let tables = bench.tables();
        assert!(
            tables.iter().all(|(_, rows)| rows.last().is_some_and(|row| row.contains(",0.3") || row.contains(",0.2")))
        );
    }

    #[test]
    fn a_clock_that_is_put_back_a_little_does_not_multiply_what_is_missing_next() {
        let mut bench = bench(true);
        bench.clock = Duration::from_secs(1);
        bench.run(0..30);
        bench.clock = Duration::from_millis(200);
        (30..60).for_each(|number| _ = bench.take(number, false, false));
        bench.run(70..80);
        let report = bench.end();
        assert!((80..84).contains(&report.pictures_expected), "{report:?}");
    }

    #[test]
    fn many_short_recordings_of_a_vehicle_that_is_silent_do_not_keep_the_next_from_beginning() {
        let mut bench = bench(true);
        let stats = url::Url::parse("http://127.0.0.1:9/api/stats").expect("a URL");
        bench.tape.set_vehicle(Some(Api::new(stats, crate::whep::Http::default())));
        for number in 0..UNSETTLED as u32 + 4 {
            bench.run(number * 10..number * 10 + 5);
            let unsettled = lock(&bench.recording.reels).open.iter().filter(|reel| !reel.is_settled()).count();
            assert!(unsettled <= UNSETTLED, "{unsettled}");
            bench.tape.cut();
        }
        assert_eq!(bench.end().files.len(), UNSETTLED + 4);
    }

    #[test]
    fn another_vehicle_is_not_asked_for_what_the_former_one_sent_nor_the_former_for_its() {
        let mut bench = bench(true);
        let stats = url::Url::parse("http://127.0.0.1:9/api/stats").expect("a URL");
        bench.tape.set_vehicle(Some(Api::new(stats, crate::whep::Http::default())));
        bench.run(0..5);
        let first = lock(&bench.tape.state).reel.clone().expect("it records");
        bench.tape.set_source(source("Dory", "bow/stream1"));
        bench.run(5..10);
        let second = lock(&bench.tape.state).reel.clone().expect("it records");
        assert!(first.vehicle().is_some() && second.vehicle().is_none());
    }

    #[test]
    fn a_vehicle_that_is_tried_again_is_asked_for_the_stream_that_was_watched() {
        let mut bench = bench(true);
        let stats = url::Url::parse("http://127.0.0.1:9/api/stats").expect("a URL");
        let vehicle = Some(Api::new(stats, crate::whep::Http::default()));
        bench.tape.set_vehicle(vehicle.clone());
        bench.run(0..5);
        let reel = lock(&bench.tape.state).reel.clone().expect("it records");
        let asked = || reel.vehicle().map(|(_, stream)| stream);
        // At each attempt, until its statistics name the stream.
        bench.tape.set_source(source("Nemo", ""));
        assert_eq!(asked().as_deref(), Some("bow/stream1"));
        bench.tape.set_vehicle(vehicle);
        assert_eq!(asked().as_deref(), Some("bow/stream1"));
        // Of what is another one nothing is known.
        bench.tape.cut();
        bench.tape.set_source(source("Nemo", ""));
        assert_eq!(lock(&bench.tape.state).source.stream, "");
    }

    /// A vehicle that gives one of these lists after the other, then the last one again, refuses where there is none,
    /// and gives no picture. Tells each list.
    fn vehicle(lists: Vec<Option<RingListing>>) -> (Api, std::sync::mpsc::Receiver<()>) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let stats = format!("http://{}/api/stats", listener.local_addr().expect("bound"));
        let none = Head { run: 0, codec: Codec::H264, pictures: 0 }.encode();
        let (tell, told) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let mut next = 0;
            for client in listener.incoming().flatten() {
                let mut request = String::new();
                let mut lines = std::io::BufReader::new(&client);
                while lines.read_line(&mut request).is_ok_and(|length| length > 2) {}
                let is_list = request.starts_with("GET /api/ring?");
                let list = lists[next.min(lists.len() - 1)].clone();
                let (status, body) = match list {
                    _ if !is_list => ("200 OK", none.to_vec()),
                    None => ("404 Not Found", b"{}".to_vec()),
                    Some(mut list) => {
                        let path = request.split(' ').nth(1).expect("a path");
                        let url = url::Url::parse("http://vehicle/").and_then(|base| base.join(path)).expect("a URL");
                        let micros = |name| url.query_pairs().find(|(key, _)| key == name)?.1.parse::<u64>().ok();
                        let (from, to) = (micros("from").expect("a time"), micros("to").expect("a time"));
                        list.pictures_us.retain(|at| (from..=to).contains(at));
                        ("200 OK", serde_json::to_vec(&RingListing { until_us: to, ..list }).expect("JSON"))
                    }
                };
                next += usize::from(is_list);
                let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
                let _ = (&client).write_all(&[head.as_bytes(), &body].concat());
                if is_list {
                    let _ = tell.send(());
                }
            }
        });
        let (stats, http) = (url::Url::parse(&stats).expect("a URL"), crate::whep::Http::default());
        (Api::new(stats, http), told)
    }

    /// All pictures of these numbers.
    fn listing(run: u64, numbers: std::ops::Range<u64>) -> RingListing {
        let micros = |number: u64| 1_700_000_000_000_000 + number * 1_000_000 / 30;
        RingListing {
            run,
            kept_from_us: Some(micros(numbers.start)),
            until_us: 0,
            pictures_us: numbers.map(micros).collect(),
        }
    }

    /// Nobody here knows of the one that is missing.
    fn run_without(bench: &mut Bench, numbers: std::ops::Range<u32>, missing: u32) {
        let first = numbers.start;
        for number in numbers.filter(|number| *number != missing) {
            bench.take(number, number == first, number == first);
        }
    }

    fn not_compared_of(report: &RecordingReport) -> (u64, Vec<bool>) {
        (report.files_not_compared, report.files.iter().map(|file| file.compared).collect())
    }

    #[test]
    fn what_a_vehicle_refused_once_is_compared_at_the_end_all_the_same() {
        let mut bench = bench(true);
        let (vehicle, told) = vehicle(vec![None, Some(listing(1, 0..90))]);
        bench.tape.set_vehicle(Some(vehicle));
        run_without(&mut bench, 0..90, 10);
        told.recv_timeout(Duration::from_secs(30)).expect("it is asked");
        let report = bench.end();
        assert_eq!(counts(&report), (90, 89, 1), "{report:?}");
        assert_eq!(not_compared_of(&report), (0, vec![true]));
        assert!(
            lock(&bench.recording.reels).open.iter().all(|reel| reel.is_settled()),
            "nothing is waited for in vain"
        );
    }

    #[test]
    fn a_vehicle_that_was_silent_before_the_end_is_asked_once_more_at_the_end() {
        let mut bench = bench(true);
        let (vehicle, _told) = vehicle(vec![Some(listing(1, 0..90))]);
        bench.recording.mender.be_silent(&vehicle.stats);
        bench.tape.set_vehicle(Some(vehicle));
        run_without(&mut bench, 0..90, 10);
        let report = bench.end();
        assert_eq!((counts(&report), not_compared_of(&report)), ((90, 89, 1), (0, vec![true])), "{report:?}");
    }

    #[test]
    fn what_was_not_compared_is_not_said_to_be_whole() {
        let stats = url::Url::parse("http://127.0.0.1:9/api/stats").expect("a URL");
        for vehicle in [None, Some(Api::new(stats, crate::whep::Http::default()))] {
            let mut bench = bench(true);
            bench.tape.set_vehicle(vehicle);
            bench.run(0..10);
            let report = bench.end();
            assert_eq!((counts(&report), not_compared_of(&report)), ((10, 10, 0), (1, vec![false])), "{report:?}");
        }
        assert!(not_compared(1).contains("not compared") && not_compared(0).is_empty());
    }

    #[test]
    fn what_the_vehicle_sent_in_an_outage_before_the_end_is_missing() {
        let mut bench = bench(true);
        bench.run(0..10);
        let reel = lock(&bench.tape.state).reel.clone().expect("it records");
        reel.end(bench.now + Duration::from_millis(300 + 1_999), None);
        assert_eq!(lock(&reel.counts).tail, None, "nothing stood still");
        let mut bench = self::bench(true);
        let (vehicle, _told) = vehicle(vec![Some(listing(1, 0..100))]);
        bench.tape.set_vehicle(Some(vehicle));
        bench.run(0..10);
        let reel = lock(&bench.tape.state).reel.clone().expect("it records");
        reel.end(bench.now + Duration::from_millis(300 + 2_500), None);
        assert_eq!(lock(&reel.counts).tail, Some(Captured(Duration::from_millis(1_700_000_002_300))));
        let report = bench.end();
        assert_eq!((counts(&report), not_compared_of(&report)), ((70, 10, 1), (0, vec![true])), "{report:?}");
    }

    #[test]
    fn what_a_vehicle_sent_since_it_was_started_again_is_compared() {
        let mut bench = bench(true);
        let (vehicle, told) = vehicle(vec![Some(listing(1, 0..60)), Some(listing(2, 80..150))]);
        bench.tape.set_vehicle(Some(vehicle));
        bench.run(0..60);
        told.recv_timeout(Duration::from_secs(30)).expect("it is asked");
        run_without(&mut bench, 90..150, 100);
        told.recv_timeout(Duration::from_secs(30)).expect("it is asked again");
        let report = bench.end();
        assert_eq!((report.pictures_present, report.gaps), (119, 2), "{report:?}");
        assert!((149..152).contains(&report.pictures_expected), "{report:?}");
        assert_eq!(not_compared_of(&report), (1, vec![false]), "what it had sent before is not known");
    }

    /// When that of this number was captured, less half of what is between two.
    fn before(number: u64) -> u128 {
        u128::from(1_700_000_000_000 + (number * 2 - 1) * 1_000 / 60)
    }

    fn tail(reel: &Reel) -> Option<u128> {
        lock(&reel.counts).tail.map(|tail| tail.0.as_millis())
    }

    #[test]
    fn a_pause_after_which_another_clock_tells_the_times_is_a_gap() {
        let mut bench = bench(true);
        bench.run(0..10);
        bench.is_captured = false;
        let reel = lock(&bench.tape.state).reel.clone().expect("it records");
        bench.run(40..50);
        assert!(reel.is_guessed() && reel.ended().is_none(), "the next one may tell when it begins");
        let report = bench.end();
        assert_eq!(counts(&report), (50, 20, 1), "{report:?}");
        let tail = tail(&reel).expect("the pause is asked for");
        assert!(tail.abs_diff(before(40)) < 3, "up to the picture after it: {tail:?}");
    }

    #[test]
    fn a_pause_is_asked_for_up_to_the_first_picture_of_the_next_recording() {
        // By RTP, whose first pictures have no times; they waited for a decoder.
        let mut bench = bench(true);
        bench.run(0..10);
        bench.is_captured = false;
        bench.now += Duration::from_millis(200);
        let reel = lock(&bench.tape.state).reel.clone().expect("it records");
        bench.run(40..50);
        bench.is_captured = true;
        bench.take(50, false, false);
        let known = tail(&reel).expect("it is known now");
        assert!(known.abs_diff(before(40)) < 3, "{known}");
    }

    #[test]
    fn a_pause_of_which_the_times_before_and_after_are_known_is_asked_for() {
        // By RTP, whose first pictures had none.
        let mut bench = bench(false);
        bench.run(0..10);
        bench.is_captured = true;
        let reel = lock(&bench.tape.state).reel.clone().expect("it records");
        (10..20).for_each(|number| _ = bench.take(number, false, false));
        bench.run(40..50);
        let known = tail(&reel).expect("the pause is asked for");
        assert!(known.abs_diff(before(40)) < 3, "{known}");
        // Of another clock it is not known.
        let mut bench = self::bench(true);
        bench.run(0..10);
        bench.clock = Duration::from_secs(86_400);
        let reel = lock(&bench.tape.state).reel.clone().expect("it records");
        bench.run(40..50);
        assert_eq!(tail(&reel), None);
    }

    #[test]
    fn pictures_that_are_shown_in_another_order_than_they_come_stretch_no_time() {
        let mut bench = bench(false);
        bench.take(0, true, true);
        for number in (0..10).flat_map(|n| [3, 1, 2].map(|m| 3 * n + m)) {
            bench.take(number, false, false);
        }
        bench.end();
        let rows = &bench.tables()[0].1;
        assert!(rows.last().is_some_and(|row| row.contains(",1.0")), "{rows:?}");
    }

    #[test]
    fn each_stream_says_of_its_own_file_how_long_that_is() {
        let mut bench = bench(true);
        let other = Tape::of(Arc::clone(&bench.recording), Heard::default());
        bench.run(0..60);
        let end = Instant::now() + Duration::from_secs(30);
        let later = bench.now + Duration::from_secs(3);
        while !bench.tape.told(later).is_some_and(|told| told.works && told.text.starts_with("REC 00:01 ")) {
            assert!(Instant::now() < end, "{:?}", bench.tape.told(later));
            // More of it goes to the disk with the next.
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(other.told(later).is_some_and(|told| !told.works), "nothing of this one comes");
    }

    #[test]
    fn the_key_ends_the_file_and_begins_another_and_a_closed_stream_is_not_recorded() {
        let mut bench = bench(true);
        bench.run(0..5);
        assert_eq!(bench.recording.toggle(), "Recording ended");
        assert!(!bench.take(5, true, false) && bench.tape.told(bench.now).is_none());
        assert!(bench.recording.toggle().starts_with("Recording into /"));
        // What came in between is not missing: it was not wanted.
        bench.run(6..10);
        bench.tape.close();
        bench.run(10..15);
        let report = bench.end();
        assert_eq!((counts(&report), report.files.len()), ((9, 9, 0), 2), "{report:?}");
        assert!(Recording::default().toggle().starts_with("Nothing is recorded: "), "without a folder");
    }

    #[test]
    fn a_vehicle_without_a_name_is_recorded_after_a_moment() {
        let mut bench = bench(true);
        bench.tape.set_source(Source { is_named: false, ..source("", "") });
        bench.run(0..30);
        assert_eq!(bench.recording.report().map(|report| report.pictures_expected), Some(0));
        bench.run(30..40);
        // The next file of it is not kept waiting.
        bench.recording.toggle();
        bench.recording.toggle();
        bench.run(40..50);
        assert_eq!(bench.end().pictures_expected, 20);
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_told() {
        let folder = TempDir::new().expect("a folder");
        let file = folder.path().join("file");
        std::fs::write(&file, "").expect("a file");
        let options =
            Options { folder: file.join("dives"), is_on: true, split: Split::default(), keep: None, spare: 0 };
        let mut bench = bench(true);
        bench.recording = Recording::new(Some(options));
        bench.tape = Tape::of(Arc::clone(&bench.recording), Heard::default());
        bench.tape.set_source(source("Nemo", "stream1"));
        bench.run(0..5);
        let end = Instant::now() + Duration::from_secs(30);
        while !bench.tape.told(bench.now).expect("it is on").text.starts_with("NOT RECORDING: the folder") {
            assert!(Instant::now() < end, "{:?}", bench.tape.told(bench.now));
            std::thread::sleep(Duration::from_millis(5));
        }
        let report = bench.end();
        assert_eq!((report.pictures_expected, report.pictures_present), (5, 0));
    }

    #[test]
    fn how_many_are_missing_follows_from_the_rate_before() {
        let ms = Duration::from_millis;
        let missing = |passed, interval| missing(ms(passed), ms(interval));
        assert_eq!([missing(100, 33), missing(33, 33), missing(10, 33), missing(500, 0)], [2, 0, 0, 0]);
    }
}
