//! What the pilot notes of a dive: the picture of that moment, a clip around it, what the vehicle measured, and a text, in a
//! folder of its own (`event.json` says what is in it; `report` reads that).
//!
//! One thread writes: the picture and what is known at once, the text when it is typed, and each clip when it is there, for
//! which a thread waits, as many at once as there may be. What fails is said in `event.json` and in the window.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use rov_common::capture_clock::Captured;
use rov_common::exif::{About, Position};
use rov_common::priority;
use rov_common::recording::{EXTENSION, Fields, Name, rfc3339};
use serde::{Deserialize, Serialize};

use crate::decode::Kept;
use crate::snapshot::label;
use crate::whep::{Api, WhepError};
use crate::{clip, snapshot};

/// In the folder of each event.
pub const FILE: &str = "event.json";
/// Characters of a text.
pub const LONGEST_TEXT: usize = 300;
/// Around the moment, and a little for the way of the picture to here.
const AFTER: Duration = Duration::from_millis(5_500);
const CLIP_SECONDS: u64 = 11;
/// A clip of an event shows its moment, but for what clocks differ by.
const NEAR: Duration = Duration::from_millis(100);
/// Events of which nothing is written yet.
const WAITING: usize = 4;
/// Clips that are waited for or fetched at once: those of a grid.
const MOST_CLIPS: usize = 16;
/// A server that gives others their clips is asked again so often, while it can still have the moment.
const BUSY_PAUSE: Duration = Duration::from_secs(3);
const BUSY_LIMIT: Duration = Duration::from_secs(18);
const LOOK_INTERVAL: Duration = Duration::from_millis(50);
/// For those at the end of the program; then their clips are broken off.
const END_LIMIT: Duration = Duration::from_secs(5);
const BREAK_OFF_LIMIT: Duration = Duration::from_millis(500);
const WRITE_LIMIT: Duration = Duration::from_secs(1);
/// Folders of the same moment.
const MOST_ALIKE: u32 = 1000;

/// An event as it is written.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Event {
    pub text: String,
    /// When the first of the pictures was captured, as RFC 3339 has it.
    pub captured: String,
    pub vehicle: String,
    /// Of each stream that was shown.
    pub pictures: Vec<Picture>,
    /// Where the vehicle was, as far as it says so.
    #[serde(default)]
    pub place: Place,
    /// All that it measured, by the names of the fields.
    #[serde(default)]
    pub telemetry: Fields,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Picture {
    pub camera: String,
    pub stream: String,
    pub captured: String,
    /// What somebody who goes by it has to know.
    #[serde(default)]
    pub remarks: Vec<String>,
    pub snapshot: Part,
    pub clip: Part,
}

/// A file in the folder of the event, or why it is not there.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Part {
    File(String),
    Failed(String),
}

impl Default for Part {
    fn default() -> Self {
        Self::Failed("it is not there".to_owned())
    }
}

/// In degrees, and metres below the surface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Place {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latitude: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub longitude: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub depth: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heading: Option<f64>,
}

impl From<Position> for Place {
    fn from(Position { place, depth, heading }: Position) -> Self {
        let (latitude, longitude) = place.unzip();
        Self { latitude, longitude, depth, heading }
    }
}

/// A stream at the moment of the key.
#[derive(Debug)]
pub struct Seen {
    /// None: there was none.
    pub picture: Option<Kept>,
    pub about: About,
    /// When the picture was captured by the server's clock, where that is known.
    pub captured: Option<Captured>,
    /// Of its vehicle; none: there is none that is known.
    pub api: Option<Api>,
}

/// What the thread that writes is told.
enum Message {
    Begin {
        id: u64,
        seen: Vec<Seen>,
        telemetry: Fields,
        now: Instant,
        /// Counts those that wait.
        _waits: Arc<()>,
    },
    /// None: it is cancelled.
    End { id: u64, text: Option<String> },
    /// Of the picture of this number.
    Clip { id: u64, at: usize, fetched: Result<Fetched, String> },
    /// The program ends.
    Close,
}

/// Saves events into folders of a folder.
#[derive(Debug)]
pub struct Events {
    messages: Sender<Message>,
    /// The event whose text is being typed.
    open: Option<u64>,
    begun: u64,
    waiting: Arc<()>,
    said: Receiver<String>,
}

impl Events {
    /// Nothing is touched before the first event.
    pub fn start(folder: PathBuf) -> std::io::Result<Self> {
        let ((messages, told), (say, said)) = (channel(), channel());
        let writer = Writer {
            folder,
            messages: messages.clone(),
            say,
            works: BTreeMap::new(),
            failed: String::new(),
            ends: Arc::default(),
            fetching: Arc::default(),
        };
        std::thread::Builder::new().name("events".to_owned()).spawn(move || {
            priority::lower();
            writer.run(&told);
        })?;
        Ok(Self { messages, open: None, begun: 0, waiting: Arc::default(), said })
    }

    /// An event begins, of which the text is still to be said; of at least one stream. Does not wait.
    ///
    /// # Errors
    /// Says why none can begin.
    pub fn begin(&mut self, seen: Vec<Seen>, telemetry: Fields, now: Instant) -> Result<(), String> {
        self.open = None;
        // One is that of this.
        if Arc::strong_count(&self.waiting) > WAITING {
            return Err(format!("No event: {WAITING} still wait to be written to the disk"));
        }
        self.begun += 1;
        let (id, _waits) = (self.begun, Arc::clone(&self.waiting));
        let begin = Message::Begin { id, seen, telemetry, now, _waits };
        self.messages.send(begin).map_err(|_| "No event: the thread that saves them has died".to_owned())?;
        self.open = Some(id);
        Ok(())
    }

    /// The event that has begun is saved with this text, or not; false: none has.
    pub fn end(&mut self, text: Option<String>) -> bool {
        self.open.take().is_some_and(|id| self.messages.send(Message::End { id, text }).is_ok())
    }

    /// What became of the last one that was saved, once.
    pub fn news(&self) -> Option<String> {
        self.said.try_iter().last()
    }
}

impl Drop for Events {
    /// What can be saved at once is.
    fn drop(&mut self) {
        let _ = self.messages.send(Message::Close);
        let until = Instant::now() + END_LIMIT + BREAK_OFF_LIMIT + WRITE_LIMIT;
        loop {
            match self.said.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(_) => {}
                Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => {
                    return tracing::warn!("an event was not saved as a whole: its {FILE} says what is missing");
                }
            }
        }
    }
}

#[derive(Clone, Copy, PartialEq)]
enum State {
    Typed,
    Saved,
    Cancelled,
}

/// An event that is not done.
struct Work {
    path: PathBuf,
    event: Event,
    state: State,
    /// Clips that are still to come.
    missing: usize,
    /// Ends them.
    stop: Arc<AtomicBool>,
}

/// The thread that writes.
struct Writer {
    folder: PathBuf,
    messages: Sender<Message>,
    say: Sender<String>,
    works: BTreeMap<u64, Work>,
    /// Why the last one could not begin, if so.
    failed: String,
    /// The program does.
    ends: Arc<AtomicBool>,
    /// Counts the threads that fetch.
    fetching: Arc<()>,
}

impl Writer {
    fn run(mut self, told: &Receiver<Message>) {
        for message in told {
            if matches!(message, Message::Close) {
                break;
            }
            self.take(message);
        }
        self.ends.store(true, Ordering::Release);
        for work in self.works.values_mut().filter(|work| work.state == State::Typed) {
            work.state = State::Saved;
        }
        self.settle();
        for limit in [END_LIMIT, BREAK_OFF_LIMIT] {
            let until = Instant::now() + limit;
            while !self.works.is_empty()
                && let Ok(message) = told.recv_timeout(until.saturating_duration_since(Instant::now()))
            {
                self.take(message);
            }
            self.works.values().for_each(|work| work.stop.store(true, Ordering::Release));
        }
        // What did not end is not waited for.
        self.works.values_mut().for_each(|work| work.missing = 0);
        self.settle();
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Begin { id, seen, telemetry, now, .. } => match self.begin(id, seen, telemetry, now) {
                Ok(work) => {
                    self.works.insert(id, work);
                    self.write(id);
                }
                Err(reason) => {
                    tracing::error!("no event: {reason}");
                    self.say(format!("No event can be saved: {reason}"));
                    self.failed = reason;
                }
            },
            Message::End { id, text } => match (self.works.get_mut(&id), text) {
                (Some(work), Some(text)) => {
                    (work.event.text, work.state) = (text, State::Saved);
                    // At once, as the clips may take long.
                    self.write(id);
                }
                (Some(work), None) => {
                    work.state = State::Cancelled;
                    work.stop.store(true, Ordering::Release);
                }
                (None, Some(_)) => self.say(format!("No event was saved: {}", self.failed)),
                (None, None) => {}
            },
            Message::Clip { id, at, fetched } => {
                let Some(work) = self.works.get_mut(&id) else { return };
                work.missing -= 1;
                if let Some(picture) = work.event.pictures.get_mut(at) {
                    picture.clip = match fetched {
                        Ok(Fetched { file, remark }) => {
                            picture.remarks.extend(remark);
                            Part::File(file)
                        }
                        Err(reason) => Part::Failed(reason),
                    };
                }
                if work.state != State::Cancelled {
                    self.write(id);
                }
            }
            Message::Close => {}
        }
        self.settle();
    }

    /// With the pictures; the clips are fetched from now on.
    fn begin(&mut self, id: u64, seen: Vec<Seen>, telemetry: Fields, now: Instant) -> Result<Work, String> {
        clip::make_folder(&self.folder)?;
        // Nor one that was cancelled, whose folder is deleted once more when no clip can come into it.
        let is_taken = |path: &Path| self.works.values().any(|work| work.path == path);
        let path = create(&self.folder, &seen[0].about, is_taken)?;
        let first = &seen[0].about;
        let event = Event {
            captured: rfc3339(first.taken),
            vehicle: first.vehicle.clone(),
            place: first.position.into(),
            telemetry,
            ..Event::default()
        };
        let mut work = Work { path, event, state: State::Typed, missing: 0, stop: Arc::default() };
        let is_one = seen.len() == 1;
        // First, as their time runs out.
        let clips: Vec<_> =
            seen.iter().enumerate().map(|(at, seen)| self.fetch(id, at, seen, (&work, is_one), now + AFTER)).collect();
        work.missing = clips.iter().filter(|clip| clip.is_ok()).count();
        let pending = || "the program ended before it was there".to_owned();
        work.event.pictures = seen
            .iter()
            .zip(clips)
            .map(|(Seen { about, .. }, clip)| Picture {
                camera: about.camera.clone(),
                stream: about.stream.clone(),
                captured: rfc3339(about.taken),
                remarks: about.remarks.clone(),
                snapshot: Part::Failed(pending()),
                clip: Part::Failed(clip.err().unwrap_or_else(pending)),
            })
            .collect();
        write(&work.path, &work.event)?;
        snapshot::keep_names(&self.folder);
        for (Seen { picture, about, .. }, written) in seen.into_iter().zip(&mut work.event.pictures) {
            let file = file_of("snapshot", &about, is_one, ".jpg");
            let jpeg = picture.ok_or_else(|| "there was no picture".to_owned()).and_then(snapshot::jpeg);
            let saved = jpeg.and_then(|jpeg| snapshot::write_new(&work.path.join(&file), &about.write_into(&jpeg)?));
            written.snapshot = saved.map_or_else(Part::Failed, |()| Part::File(file));
        }
        Ok(work)
    }

    /// Begins to fetch the clip of a stream; says why not.
    fn fetch(
        &self,
        id: u64,
        at: usize,
        seen: &Seen,
        (work, is_one): (&Work, bool),
        due: Instant,
    ) -> Result<(), String> {
        let api = seen.api.clone().ok_or_else(|| "the sender has no HTTP API that is known here".to_owned())?;
        // One is that of this.
        if Arc::strong_count(&self.fetching) > MOST_CLIPS {
            return Err(format!("{MOST_CLIPS} clips are still being fetched"));
        }
        let busy = Arc::clone(&self.fetching);
        let (file, stream, captured) =
            (file_of("clip", &seen.about, is_one, EXTENSION), seen.about.stream.clone(), seen.captured);
        let (messages, path) = (self.messages.clone(), work.path.join(&file));
        let ends = Ends { event: Arc::clone(&work.stop), program: Arc::clone(&self.ends) };
        let work = move || {
            priority::lower();
            let fetched = fetch(&api, &stream, captured, due, &path, &ends);
            drop(busy);
            // The thread that writes may not have waited for it.
            let _ = messages.send(Message::Clip { id, at, fetched: fetched.map(|remark| Fetched { file, remark }) });
        };
        let thread = std::thread::Builder::new().name("event clip".to_owned()).spawn(work);
        thread.map(drop).map_err(|error| format!("there is no thread for it: {error}"))
    }

    /// What fails is said.
    fn write(&self, id: u64) {
        let Some(work) = self.works.get(&id) else { return };
        if let Err(reason) = write(&work.path, &work.event) {
            tracing::error!("event: {reason}");
            self.say(format!("The event is not saved: {reason}"));
        }
    }

    fn say(&self, text: String) {
        // It is told in the log too, whoever is still there.
        let _ = self.say.send(text);
    }

    /// Ends those that are done, and deletes those that were cancelled.
    fn settle(&mut self) {
        let say = self.say.clone();
        self.works.retain(|_, work| {
            let is_done = work.missing == 0;
            match work.state {
                State::Typed => return true,
                State::Saved if is_done => drop(say.send(finish(&work.path, &work.event))),
                State::Saved => {}
                // Once more when no clip can come into it any more.
                State::Cancelled => discard(&work.path, is_done),
            }
            !is_done
        });
    }
}

/// A clip that is there.
struct Fetched {
    file: String,
    /// What somebody who looks at it has to know.
    remark: Option<String>,
}

/// Whoever ends does not wait for a clip: the event when it is cancelled, or the program.
struct Ends {
    event: Arc<AtomicBool>,
    program: Arc<AtomicBool>,
}

impl Ends {
    /// Waits, until one of them ends.
    fn wait_until(&self, time: Instant) {
        while Instant::now() < time && !self.any() {
            std::thread::sleep(LOOK_INTERVAL.min(time.saturating_duration_since(Instant::now())));
        }
    }

    fn any(&self) -> bool {
        self.event.load(Ordering::Acquire) || self.program.load(Ordering::Acquire)
    }
}

/// Into this file, once the vehicle has the seconds after the moment. Says what is to be known of it.
fn fetch(
    api: &Api,
    stream: &str,
    moment: Option<Captured>,
    due: Instant,
    path: &Path,
    ends: &Ends,
) -> Result<Option<String>, String> {
    ends.wait_until(due);
    let clip = loop {
        if ends.event.load(Ordering::Acquire) {
            return Err("it was cancelled".to_owned());
        }
        // The newest seconds are given.
        let late = Instant::now().saturating_duration_since(due);
        let seconds = CLIP_SECONDS + late.as_secs_f64().round() as u64;
        match clip::request(api, stream, Some(seconds)) {
            Err(WhepError::Refused { status: 503, .. }) if late < BUSY_LIMIT && !ends.any() => {
                ends.wait_until(Instant::now() + BUSY_PAUSE);
            }
            clip => break clip.map_err(clip::reason)?,
        }
    };
    let remark = moment.and_then(|moment| remark_on(moment, clip.captured?, clip.seconds));
    clip::write(clip, path, &ends.event)?;
    Ok(remark)
}

/// None: the moment is in the clip.
fn remark_on(moment: Captured, begun: Captured, seconds: Option<f64>) -> Option<String> {
    let seconds = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    let before = begun.0.saturating_sub(moment.0);
    let after = seconds.map_or(Duration::ZERO, |seconds| moment.0.saturating_sub(begun.0 + seconds));
    let differs = |by: Duration, what| (by > NEAR).then(|| format!("The clip {what} ({:.1} s).", by.as_secs_f64()));
    differs(before, "begins after the picture").or_else(|| differs(after, "ends before the picture"))
}

/// A folder that was not there, as `2026-11-30_19-30-12.345Z_Nemo_bow_stream1_event`; of the same moment `-2` and so on.
fn create(folder: &Path, about: &About, is_taken: impl Fn(&Path) -> bool) -> Result<PathBuf, String> {
    for number in 1..=MOST_ALIKE {
        let label = format!("{}_event", label(about));
        let label = if number == 1 { label } else { format!("{label}-{number}") };
        let path = folder.join(Name::new(about.taken, &label).to_string().replace(EXTENSION, ""));
        if is_taken(&path) {
            continue;
        }
        match fs::create_dir(&path) {
            Ok(()) => return Ok(path),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(format!("{}: cannot make this folder: {error}", path.display())),
        }
    }
    Err(format!("{}: there are {MOST_ALIKE} events of this moment", folder.display()))
}

/// In the name of a file, with the camera where the stream does not have it; of one stream without its name.
fn file_of(what: &str, about: &About, is_one: bool, extension: &str) -> String {
    if is_one {
        return format!("{what}{extension}");
    }
    let stream = Name::new(about.taken, &format!("{what}_{}", about.stream)).label().to_owned();
    format!("{stream}{extension}")
}

fn write(path: &Path, event: &Event) -> Result<(), String> {
    let json = serde_json::to_vec_pretty(event).map_err(|error| error.to_string())?;
    let file = path.join(FILE);
    let part = fs::File::create(clip::part(&file));
    snapshot::write_whole(part.map_err(|error| format!("{}: cannot write: {error}", file.display()))?, &file, &json)
}

/// In words for the pilot.
fn finish(path: &Path, event: &Event) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    if let Err(reason) = write(path, event) {
        tracing::error!("event: {reason}");
        return format!("The event was not saved: {reason}");
    }
    let parts = event.pictures.iter().flat_map(|picture| [("picture", &picture.snapshot), ("clip", &picture.clip)]);
    let failed = parts.filter_map(|(what, part)| match part {
        Part::Failed(reason) => Some(format!("no {what}: {reason}")),
        Part::File(_) => None,
    });
    let failed = failed.collect::<Vec<_>>().join("; ");
    if failed.is_empty() {
        tracing::info!("event: {}", path.display());
        return format!("Saved the event {name}");
    }
    tracing::warn!("event: {}: {failed}", path.display());
    format!("Saved the event {name}, but {failed}")
}

/// It was cancelled: what is in its folder is all of this program.
fn discard(path: &Path, is_last: bool) {
    match fs::remove_dir_all(path) {
        Err(error) if is_last && error.kind() != ErrorKind::NotFound => {
            tracing::warn!("{}: cannot delete what was cancelled: {error}", path.display());
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;
    use crate::whep::Http;

    const LIMIT: Duration = Duration::from_secs(30);

    fn seen(stream: &str) -> Seen {
        let about = About {
            taken: Captured(Duration::from_millis(1_700_000_000_012)),
            vehicle: "Nemo".to_owned(),
            camera: "bow".to_owned(),
            stream: stream.to_owned(),
            position: Position { depth: Some(3.5), ..Position::default() },
            remarks: vec!["It was late.".to_owned()],
        };
        Seen { picture: None, about, captured: None, api: None }
    }

    /// Of a server that takes the request for a clip and never answers, while it is there.
    fn with_clip(stream: &str) -> (Seen, TcpListener) {
        let server = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = server.local_addr().expect("its address");
        let stats = format!("http://{address}/api/stats").parse().expect("a URL");
        (Seen { api: Some(Api { stats, http: Http::default() }), ..seen(stream) }, server)
    }

    /// At a moment whose clip can be fetched by now.
    fn before() -> Instant {
        Instant::now().checked_sub(AFTER).unwrap_or_else(Instant::now)
    }

    fn wait_for(what: &str, is_so: impl Fn() -> bool) {
        let until = Instant::now() + LIMIT;
        while !is_so() {
            assert!(Instant::now() < until, "{what}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn read(folder: &Path, name: &str) -> Event {
        let file = folder.join(name).join(FILE);
        let text = fs::read(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        serde_json::from_slice(&text).expect("an event")
    }

    #[test]
    fn what_fails_is_in_the_file_and_said_and_nothing_is_overwritten() {
        let folder = tempfile::tempdir().expect("a folder");
        let dive = folder.path().join("new").join("dive");
        let mut events = Events::start(dive.clone()).expect("a thread");
        let name = "2023-11-14_22-13-20.012Z_Nemo_bow_stream1_event";
        for (text, name) in [("first", name.to_owned()), ("second", format!("{name}-2"))] {
            events.begin(vec![seen("stream1"), seen("arm/stream2")], Fields::new(), before()).expect("begun");
            events.end(Some(text.to_owned()));
            let said = events.said.recv_timeout(LIMIT).expect("it is said");
            assert!(
                said.starts_with(&format!("Saved the event {name}, but no picture: there was no picture; no clip: "))
            );
            let event = read(&dive, &name);
            assert_eq!((event.text.as_str(), event.captured.as_str()), (text, "2023-11-14T22:13:20.012000Z"));
            assert_eq!((event.place.depth, event.pictures.len()), (Some(3.5), 2));
            assert_eq!(event.pictures[1].snapshot, Part::Failed("there was no picture".to_owned()));
            assert_eq!(event.pictures[0].remarks, ["It was late."]);
        }
    }

    #[test]
    fn picture_and_text_are_in_the_file_at_once_however_many_clips_are_still_to_come() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut events = Events::start(folder.path().to_owned()).expect("a thread");
        let mut servers = Vec::new();
        for number in 0..MOST_CLIPS + 2 {
            let (stream, (seen, server)) = (format!("stream{number}"), with_clip(&format!("stream{number}")));
            servers.push(server);
            events.begin(vec![seen], Fields::new(), before()).expect("begun");
            let name = format!("2023-11-14_22-13-20.012Z_Nemo_bow_{stream}_event");
            wait_for("its file", || folder.path().join(&name).join(FILE).exists());
            assert_eq!(read(folder.path(), &name).text, "");
            assert!(events.end(Some(stream.clone())));
            wait_for("its text", || read(folder.path(), &name).text == stream);
            let Part::Failed(reason) = read(folder.path(), &name).pictures[0].clip.clone() else { panic!("a clip") };
            assert_eq!(reason.contains("still being fetched"), number >= MOST_CLIPS, "{number} {reason}");
        }
        assert!(!events.end(Some(String::new())), "none is open");
    }

    #[test]
    fn what_is_cancelled_leaves_nothing_before_its_clip_and_after() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut events = Events::start(folder.path().to_owned()).expect("a thread");
        let files = || fs::read_dir(folder.path()).expect("the folder").count();
        for now in [Instant::now(), before()] {
            let (seen, _server) = with_clip("stream1");
            events.begin(vec![seen], Fields::new(), now).expect("begun");
            wait_for("its folder", || files() == 1);
            events.end(None);
            wait_for("no folder", || files() == 0);
        }
        assert_eq!(events.news(), None);
    }

    #[test]
    fn at_the_end_of_the_program_an_event_is_saved_as_it_is_and_its_clip_is_not_waited_for() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut events = Events::start(folder.path().to_owned()).expect("a thread");
        let far = Instant::now() + LIMIT;
        events.begin(vec![seen("stream1")], Fields::new(), far).expect("begun");
        events.end(Some("text".to_owned()));
        let (clip, _server) = with_clip("stream2");
        events.begin(vec![clip], Fields::new(), far).expect("begun");
        drop(events);
        assert!(Instant::now() < far);
        let name = |stream: &str| format!("2023-11-14_22-13-20.012Z_Nemo_bow_{stream}_event");
        assert_eq!(read(folder.path(), &name("stream1")).text, "text");
        let second = read(folder.path(), &name("stream2"));
        assert_eq!(second.text, "", "nobody had typed anything yet");
        assert_eq!(second.pictures[0].clip, Part::Failed("the program ended before it was there".to_owned()));
    }

    #[test]
    fn where_there_is_no_folder_that_is_said_at_once_and_at_the_end() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("file");
        fs::write(&file, "").expect("a file");
        let mut events = Events::start(file).expect("a thread");
        events.begin(vec![seen("stream1")], Fields::new(), Instant::now()).expect("begun");
        let said = events.said.recv_timeout(LIMIT).expect("it is said");
        assert!(said.starts_with("No event can be saved: ") && said.contains("cannot make this folder"), "{said}");
        events.end(Some("text".to_owned()));
        let said = events.said.recv_timeout(LIMIT).expect("it is said again");
        assert!(said.starts_with("No event was saved: ") && said.contains("cannot make this folder"), "{said}");
    }

    #[test]
    fn a_clip_without_its_moment_is_remarked_on() {
        let remark = |moment: u64, seconds| {
            let at = |ms| Captured(Duration::from_millis(ms));
            remark_on(at(moment), at(10_000), seconds)
        };
        assert_eq!([remark(10_000, Some(11.0)), remark(21_050, Some(11.0)), remark(99_000, None)], [None, None, None]);
        assert_eq!(remark(7_500, Some(11.0)).as_deref(), Some("The clip begins after the picture (2.5 s)."));
        assert_eq!(remark(24_000, Some(11.0)).as_deref(), Some("The clip ends before the picture (3.0 s)."));
    }
}
