//! What the pilot notes of a dive: the picture of that moment, a clip around it, what the vehicle measured, and a text, in a
//! folder of its own (`event.json` says what is in it; `report` reads that).
//!
//! One thread writes: what is known at once, the text when it is typed, and what became of pictures and clips. Other threads
//! make and fetch these, as many at once as there may be. What fails is said in `event.json` and in the window.

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
/// Of what was still to come.
const NOT_AWAITED: &str = "the program ended before it was there";
/// Characters of a text.
pub const LONGEST_TEXT: usize = 300;
/// Around the moment, and a little for the way of the picture to here.
const AFTER: Duration = Duration::from_millis(5_500);
const CLIP_SECONDS: u64 = 11;
/// A clip of an event shows its moment, but for what clocks differ by.
const NEAR: Duration = Duration::from_millis(100);
/// Events of which nothing is written yet; those after that have no pictures, and then none can begin.
const WAITING: usize = 4;
const MOST_WAITING: usize = 64;
/// Events whose pictures are made into files at once, with those in which the encoder hangs.
const MOST_DRAWN: usize = 2;
/// Clips that are waited for or fetched at once: those of a grid.
const MOST_CLIPS: usize = 16;
/// A server that gives others their clips, or does not answer, is asked again while it can still have the moment.
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

/// A file in the folder of the event, or why it is not there. Awaited: it was still to come when this was written.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Part {
    File(String),
    Awaited(String),
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
    /// Or why there is none.
    pub picture: Result<Kept, String>,
    pub about: About,
    /// When the picture was captured by the server's clock, where that is known.
    pub captured: Option<Captured>,
    /// Of its vehicle; none: there is none that is known.
    pub api: Option<Api>,
}

/// What an event begins with.
struct Moment {
    seen: Vec<Seen>,
    telemetry: Fields,
    now: Instant,
}

/// What the thread that writes is told.
enum Message {
    Begin {
        id: u64,
        moment: Moment,
        /// Counts those that wait.
        _waits: Arc<()>,
    },
    /// None: it is cancelled.
    End {
        id: u64,
        text: Option<String>,
    },
    /// Of the picture of this number: its file.
    Picture {
        id: u64,
        at: usize,
        saved: Result<String, String>,
    },
    Clip {
        id: u64,
        at: usize,
        fetched: Result<Fetched, String>,
    },
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
        Self::by(Means { encode: snapshot::jpeg, write }, folder)
    }

    fn by(means: Means, folder: PathBuf) -> std::io::Result<Self> {
        let ((messages, told), (say, said)) = (channel(), channel());
        let writer = Writer {
            means,
            folder,
            messages: messages.clone(),
            say,
            works: BTreeMap::new(),
            failed: None,
            ends: Arc::default(),
            drawing: Arc::default(),
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
    pub fn begin(&mut self, mut seen: Vec<Seen>, telemetry: Fields, now: Instant) -> Result<(), String> {
        self.open = None;
        // One is that of this.
        let waiting = Arc::strong_count(&self.waiting) - 1;
        if waiting >= MOST_WAITING {
            return Err(format!("No event: {MOST_WAITING} still wait to be written to the disk"));
        }
        if waiting >= WAITING {
            let reason = || format!("{WAITING} events before it still waited to be written to the disk");
            seen.iter_mut().for_each(|seen| seen.picture = Err(reason()));
        }
        self.begun += 1;
        let (id, _waits) = (self.begun, Arc::clone(&self.waiting));
        let begin = Message::Begin { id, moment: Moment { seen, telemetry, now }, _waits };
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
    /// Pictures and clips that are still to come.
    missing: usize,
    /// Ends them.
    stop: Arc<AtomicBool>,
}

/// What may hang, or fail.
#[derive(Clone, Copy)]
struct Means {
    encode: fn(Kept, Drawing) -> Result<Vec<u8>, String>,
    write: fn(&Path, &Event) -> Result<(), String>,
}

/// Counts the events whose pictures are made into files: one for each, also where the encoder hangs and is left behind.
type Drawing = Arc<Arc<()>>;

/// A picture that is to become a file.
struct Drawn {
    at: usize,
    picture: Kept,
    about: About,
    file: String,
}

/// The thread that writes.
struct Writer {
    means: Means,
    folder: PathBuf,
    messages: Sender<Message>,
    say: Sender<String>,
    works: BTreeMap<u64, Work>,
    /// The last one that has no folder.
    failed: Option<(u64, Moment)>,
    /// The program does.
    ends: Arc<AtomicBool>,
    drawing: Arc<()>,
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
        if let Some((id, moment)) = self.failed.take() {
            self.begin(id, moment);
        }
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
            Message::Begin { id, moment, .. } => {
                if let Some(reason) = self.begin(id, moment) {
                    self.say(format!("No event can be saved: {reason}"));
                }
            }
            Message::End { id, text } => self.end(id, text),
            Message::Picture { id, at, saved } => {
                self.add(id, at, |picture| picture.snapshot = saved.map_or_else(Part::Failed, Part::File));
            }
            Message::Clip { id, at, fetched } => self.add(id, at, |picture| {
                picture.clip = match fetched {
                    Ok(Fetched { file, remark }) => {
                        picture.remarks.extend(remark);
                        Part::File(file)
                    }
                    Err(reason) => Part::Failed(reason),
                };
            }),
            Message::Close => {}
        }
        self.settle();
    }

    /// Says why it has no folder, if so; there may be one when its text is there.
    fn begin(&mut self, id: u64, moment: Moment) -> Option<String> {
        match self.folder_for(&moment.seen[0].about) {
            Ok(path) => {
                self.open(id, path, moment);
                None
            }
            Err(reason) => {
                tracing::error!("no event: {reason}");
                self.failed = Some((id, moment));
                Some(reason)
            }
        }
    }

    fn folder_for(&self, about: &About) -> Result<PathBuf, String> {
        clip::make_folder(&self.folder)?;
        // Nor one that was cancelled, whose folder is deleted once more when no clip can come into it.
        create(&self.folder, about, |path| self.works.values().any(|work| work.path == path))
    }

    fn end(&mut self, id: u64, text: Option<String>) {
        let failed = self.failed.take_if(|(failed, _)| *failed == id);
        match text {
            Some(text) => {
                if let Some((id, moment)) = failed
                    && let Some(reason) = self.begin(id, moment)
                {
                    self.failed = None;
                    tracing::error!("no event with the text {text:?}");
                    return self.say(format!("No event was saved: {reason}"));
                }
                let Some(work) = self.works.get_mut(&id) else { return };
                (work.event.text, work.state) = (text, State::Saved);
                // At once, as the clips may take long.
                self.write(id);
            }
            None => {
                let Some(work) = self.works.get_mut(&id) else { return };
                work.state = State::Cancelled;
                work.stop.store(true, Ordering::Release);
            }
        }
    }

    /// Something has come, or does not come any more.
    fn add(&mut self, id: u64, at: usize, add: impl FnOnce(&mut Picture)) {
        let Some(work) = self.works.get_mut(&id) else { return };
        work.missing -= 1;
        work.event.pictures.get_mut(at).map(add);
        if work.state != State::Cancelled {
            self.write(id);
        }
    }

    /// What is known is written; pictures are made into files, and clips fetched, from now on.
    fn open(&mut self, id: u64, path: PathBuf, Moment { seen, telemetry, now }: Moment) {
        let first = &seen[0].about;
        let event = Event {
            captured: rfc3339(first.taken),
            vehicle: first.vehicle.clone(),
            place: first.position.into(),
            telemetry,
            ..Event::default()
        };
        let mut work = Work { path, event, state: State::Typed, missing: 0, stop: Arc::default() };
        let (is_one, mut drawn) = (seen.len() == 1, Vec::new());
        // One is that of this.
        let is_free = Arc::strong_count(&self.drawing) <= MOST_DRAWN;
        for (at, Seen { picture, about, captured, api }) in seen.into_iter().enumerate() {
            let file_of = |what, extension| file_of(what, &about, Some(at + 1).filter(|_| !is_one), extension);
            let (file, clip_file) = (file_of("snapshot", ".jpg"), file_of("clip", EXTENSION));
            let wanted = (clip_file.clone(), about.stream.clone(), captured, now + AFTER);
            let clip = self.fetch((id, at), &work, api, wanted);
            let clip = clip.map_or_else(Part::Failed, |()| Part::Awaited(clip_file));
            let mut shown = Picture {
                camera: about.camera.clone(),
                stream: about.stream.clone(),
                captured: rfc3339(about.taken),
                remarks: about.remarks.clone(),
                snapshot: Part::Awaited(file.clone()),
                clip,
            };
            match picture {
                Ok(picture) if is_free => drawn.push(Drawn { at, picture, about, file }),
                Ok(_) => {
                    let reason = "the JPEG encoder is still busy with earlier events";
                    shown.snapshot = Part::Failed(reason.to_owned());
                }
                Err(reason) => shown.snapshot = Part::Failed(reason),
            }
            let parts = [&shown.snapshot, &shown.clip];
            work.missing += parts.iter().filter(|part| matches!(part, Part::Awaited(_))).count();
            work.event.pictures.push(shown);
        }
        let path = work.path.clone();
        self.works.insert(id, work);
        self.write(id);
        snapshot::keep_names(&self.folder);
        self.draw(id, path, drawn);
    }

    /// By a thread of its own: an encoder that hangs holds up no text.
    fn draw(&self, id: u64, folder: PathBuf, drawn: Vec<Drawn>) {
        if drawn.is_empty() {
            return;
        }
        let places: Vec<_> = drawn.iter().map(|drawn| drawn.at).collect();
        let (messages, encode) = (self.messages.clone(), self.means.encode);
        let busy: Drawing = Arc::new(Arc::clone(&self.drawing));
        let work = move || {
            priority::lower();
            for Drawn { at, picture, about, file } in drawn {
                // That of the picture before was left behind.
                let jpeg = match Arc::strong_count(&busy) {
                    1 => encode(picture, Arc::clone(&busy)),
                    _ => Err("the JPEG encoder hangs".to_owned()),
                };
                let saved = jpeg.and_then(|jpeg| snapshot::write_new(&folder.join(&file), &about.write_into(&jpeg)?));
                // The thread that writes may not have waited for it.
                let _ = messages.send(Message::Picture { id, at, saved: saved.map(|()| file) });
            }
        };
        if let Err(error) = std::thread::Builder::new().name("event picture".to_owned()).spawn(work) {
            for at in places {
                let saved = Err(format!("there is no thread for it: {error}"));
                let _ = self.messages.send(Message::Picture { id, at, saved });
            }
        }
    }

    /// Begins to fetch the clip of a stream, at its time; says why not.
    fn fetch(
        &self,
        (id, at): (u64, usize),
        work: &Work,
        api: Option<Api>,
        (file, stream, captured, due): (String, String, Option<Captured>, Instant),
    ) -> Result<(), String> {
        let api = api.ok_or_else(|| "the sender has no HTTP API that is known here".to_owned())?;
        // One is that of this.
        if Arc::strong_count(&self.fetching) > MOST_CLIPS {
            return Err(format!("{MOST_CLIPS} clips are still being fetched"));
        }
        let (busy, messages, path) = (Arc::clone(&self.fetching), self.messages.clone(), work.path.join(&file));
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
        if let Err(reason) = (self.means.write)(&work.path, &work.event) {
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
        let (say, write) = (self.say.clone(), self.means.write);
        self.works.retain(|_, work| {
            let is_done = work.missing == 0;
            match work.state {
                State::Typed => return true,
                State::Saved if is_done => drop(say.send(finish(work, write))),
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
            Err(error) if is_for_now(&error) && late < BUSY_LIMIT && !ends.any() => {
                ends.wait_until(Instant::now() + BUSY_PAUSE);
            }
            clip => break clip.map_err(clip::reason)?,
        }
    };
    let remark = moment.and_then(|moment| remark_on(moment, clip.captured?, clip.seconds));
    clip::write(clip, path, &ends.event)?;
    Ok(remark)
}

/// It gives others their clips, or an outage goes on.
fn is_for_now(error: &WhepError) -> bool {
    let is_away = matches!(error, WhepError::Unreachable { .. } | WhepError::Closed { .. });
    is_away || matches!(error, WhepError::Refused { status: 503, .. })
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

/// The name of a file. Of several streams it has number and stream: some names of streams are alike in those of files.
fn file_of(what: &str, about: &About, number: Option<usize>, extension: &str) -> String {
    let Some(number) = number else { return format!("{what}{extension}") };
    let label = Name::new(about.taken, &format!("{what}_{number}_{}", about.stream)).label().to_owned();
    format!("{label}{extension}")
}

fn write(path: &Path, event: &Event) -> Result<(), String> {
    let json = serde_json::to_vec_pretty(event).map_err(|error| error.to_string())?;
    let file = path.join(FILE);
    let part = fs::File::create(clip::part(&file));
    snapshot::write_whole(part.map_err(|error| format!("{}: cannot write: {error}", file.display()))?, &file, &json)
}

/// In words for the pilot.
fn finish(Work { path, event, .. }: &Work, write: fn(&Path, &Event) -> Result<(), String>) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    if let Err(reason) = write(path, event) {
        tracing::error!("event with the text {:?}: {reason}", event.text);
        return format!("The event was not saved: {reason}");
    }
    let parts = event.pictures.iter().flat_map(|picture| [("picture", &picture.snapshot), ("clip", &picture.clip)]);
    let failed = parts.filter_map(|(what, part)| match part {
        Part::Failed(reason) => Some(format!("no {what}: {reason}")),
        Part::Awaited(_) => Some(format!("no {what}: {NOT_AWAITED}")),
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
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use rov_common::units::Resolution;

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
        Seen { picture: Err("there was no picture".to_owned()), about, captured: None, api: None }
    }

    fn with_picture(stream: &str) -> Seen {
        gstreamer::init().expect("GStreamer");
        let size = Resolution::new(32, 32);
        let picture = crate::decode::Picture::from_pixels(size, vec![0; size.pixels() as usize], Instant::now());
        Seen { picture: Ok(picture.expect("a picture").to_keep().expect("kept")), ..seen(stream) }
    }

    fn name_of(stream: &str) -> String {
        format!("2023-11-14_22-13-20.012Z_Nemo_bow_{stream}_event")
    }

    /// Of a server that takes the request for a clip and never answers, while it is there.
    fn with_clip(stream: &str) -> (Seen, TcpListener) {
        let server = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = server.local_addr().expect("its address");
        let stats = format!("http://{address}/api/stats").parse().expect("a URL");
        (Seen { api: Some(Api { stats, http: Http::default(), id: String::new() }), ..seen(stream) }, server)
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
            let clip = read(folder.path(), &name).pictures[0].clip.clone();
            let refused = Part::Failed(format!("{MOST_CLIPS} clips are still being fetched"));
            assert_eq!(clip, if number < MOST_CLIPS { Part::Awaited("clip.mp4".to_owned()) } else { refused });
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
        assert_eq!(read(folder.path(), &name_of("stream1")).text, "text");
        let second = read(folder.path(), &name_of("stream2"));
        assert_eq!(second.text, "", "nobody had typed anything yet");
        assert_eq!(second.pictures[0].clip, Part::Awaited("clip.mp4".to_owned()));
    }

    fn hang(_: Kept, _busy: Drawing) -> Result<Vec<u8>, String> {
        std::thread::sleep(2 * LIMIT);
        Err("it goes on after all".to_owned())
    }

    #[test]
    fn an_encoder_that_hangs_holds_up_no_text_and_no_later_event_also_at_the_end() {
        let folder = tempfile::tempdir().expect("a folder");
        let means = Means { encode: hang, write };
        let mut events = Events::by(means, folder.path().to_owned()).expect("a thread");
        let streams = ["stream1", "stream2", "stream3"];
        for stream in streams {
            events.begin(vec![with_picture(stream)], Fields::new(), Instant::now()).expect("begun");
            assert!(events.end(Some(stream.to_owned())));
        }
        // All at once behind the last key.
        drop(events);
        let read = streams.map(|stream| read(folder.path(), &name_of(stream)));
        assert_eq!(read.each_ref().map(|event| event.text.as_str()), streams);
        let waited = Part::Awaited("snapshot.jpg".to_owned());
        let busy = Part::Failed("the JPEG encoder is still busy with earlier events".to_owned());
        assert_eq!(read.map(|event| event.pictures[0].snapshot.clone()), [waited.clone(), waited, busy]);
    }

    /// The thread that encodes is left behind.
    fn leave(_: Kept, busy: Drawing) -> Result<Vec<u8>, String> {
        std::mem::forget(busy);
        Err("not within 15 s".to_owned())
    }

    #[test]
    fn one_picture_of_an_event_waits_for_an_encoder_that_hangs_and_none_of_names_that_are_alike_is_lost() {
        let folder = tempfile::tempdir().expect("a folder");
        let seen = || ["arm/stream1", "arm-stream1"].map(with_picture).into();
        for (encode, expected) in [
            (snapshot::jpeg as fn(Kept, Drawing) -> _, ["snapshot_1_arm-stream1.jpg", "snapshot_2_arm-stream1.jpg"]),
            (leave, ["not within 15 s", "the JPEG encoder hangs"]),
        ] {
            let mut events = Events::by(Means { encode, write }, folder.path().to_owned()).expect("a thread");
            events.begin(seen(), Fields::new(), Instant::now()).expect("begun");
            events.end(Some("text".to_owned()));
            let said = events.said.recv_timeout(LIMIT).expect("it is said");
            let name = said.split([' ', ',']).nth(3).expect("a name");
            let parts = read(folder.path(), name).pictures.into_iter().map(|picture| picture.snapshot);
            let parts: Vec<_> = parts.collect();
            let is_file = |name: &&str| name.ends_with(".jpg");
            let expected = expected
                .map(|text| if is_file(&text) { Part::File(text.to_owned()) } else { Part::Failed(text.to_owned()) });
            assert_eq!(parts, expected);
        }
    }

    static IS_FULL: AtomicBool = AtomicBool::new(true);

    #[test]
    fn a_disk_that_is_full_for_a_moment_at_the_key_takes_no_text() {
        let folder = tempfile::tempdir().expect("a folder");
        let write_or_not = |path: &Path, event: &Event| match IS_FULL.load(Ordering::Acquire) {
            true => Err("the disk is full".to_owned()),
            false => write(path, event),
        };
        let means = Means { encode: snapshot::jpeg, write: write_or_not };
        let mut events = Events::by(means, folder.path().to_owned()).expect("a thread");
        events.begin(vec![with_picture("stream1")], Fields::new(), Instant::now()).expect("begun");
        assert!(events.said.recv_timeout(LIMIT).is_ok_and(|said| said == "The event is not saved: the disk is full"));
        wait_for("its picture", || folder.path().join(name_of("stream1")).join("snapshot.jpg").exists());
        IS_FULL.store(false, Ordering::Release);
        events.end(Some("text".to_owned()));
        wait_for("its text", || folder.path().join(name_of("stream1")).join(FILE).exists());
        drop(events);
        let event = read(folder.path(), &name_of("stream1"));
        let snapshot = &event.pictures[0].snapshot;
        assert_eq!((event.text.as_str(), snapshot), ("text", &Part::File("snapshot.jpg".to_owned())));
    }

    #[test]
    fn more_events_than_can_wait_for_the_disk_have_their_texts_without_pictures() {
        static GOES_ON: AtomicBool = AtomicBool::new(false);
        let slow = |path: &Path, event: &Event| {
            while !GOES_ON.load(Ordering::Acquire) {
                std::thread::sleep(Duration::from_millis(1));
            }
            write(path, event)
        };
        let folder = tempfile::tempdir().expect("a folder");
        let means = Means { encode: snapshot::jpeg, write: slow };
        let mut events = Events::by(means, folder.path().to_owned()).expect("a thread");
        let mut begin = |stream: &str| {
            let begun = events.begin(vec![with_picture(stream)], Fields::new(), Instant::now());
            begun.is_ok() && events.end(Some(stream.to_owned()))
        };
        let mut streams = (0..).map(|number| format!("stream{number}"));
        let begun: Vec<_> = streams.by_ref().take_while(|stream| begin(stream)).collect();
        assert_eq!(begun.len(), MOST_WAITING);
        GOES_ON.store(true, Ordering::Release);
        for text in &begun {
            let is_there = || folder.path().join(name_of(text)).join(FILE).exists();
            wait_for(text, || is_there() && read(folder.path(), &name_of(text)).text == *text);
        }
        let last = &read(folder.path(), &name_of(&begun[begun.len() - 1])).pictures[0].snapshot;
        assert!(matches!(last, Part::Failed(reason) if reason.contains("still waited to be written")), "{last:?}");
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
    fn a_folder_that_can_be_made_when_the_text_is_there_or_the_program_ends_is_early_enough() {
        for text in ["text", ""] {
            let folder = tempfile::tempdir().expect("a folder");
            let dive = folder.path().join("dive");
            fs::write(&dive, "").expect("a file");
            let mut events = Events::start(dive.clone()).expect("a thread");
            events.begin(vec![seen("stream1")], Fields::new(), Instant::now()).expect("begun");
            assert!(events.said.recv_timeout(LIMIT).is_ok_and(|said| said.starts_with("No event can be saved: ")));
            fs::remove_file(&dive).expect("removed");
            if !text.is_empty() {
                events.end(Some(text.to_owned()));
            }
            drop(events);
            assert_eq!(read(&dive, &name_of("stream1")).text, text);
        }
    }

    /// Answers requests one by one with these heads and no body; none: the connection ends.
    fn serve(replies: Vec<Option<&'static str>>) -> Api {
        let server = TcpListener::bind("127.0.0.1:0").expect("a port");
        let stats = format!("http://{}/api/stats", server.local_addr().expect("its address")).parse().expect("a URL");
        std::thread::spawn(move || {
            for reply in replies {
                let (mut client, _) = server.accept().expect("a client");
                let mut asked = Vec::new();
                while reply.is_some() && !asked.ends_with(b"\r\n\r\n") {
                    let mut byte = [0];
                    client.read_exact(&mut byte).expect("a request");
                    asked.push(byte[0]);
                }
                let end = "Content-Length: 0\r\nConnection: close\r\n\r\n";
                let reply = reply.map(|head| format!("HTTP/1.1 {head}\r\n{end}"));
                client.write_all(reply.unwrap_or_default().as_bytes()).expect("answered");
            }
        });
        Api { stats, http: Http::default(), id: "nemo".to_owned() }
    }

    #[test]
    fn a_clip_outlasts_an_outage_and_is_of_the_same_vehicle_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let (busy, nemo, dory, old) = (
            Some("503 Service Unavailable"),
            Some("200 OK\r\nContent-Type: video/mp4\r\nX-Server-Id: nemo"),
            Some("200 OK\r\nContent-Type: video/mp4\r\nX-Server-Id: dory"),
            Some("200 OK\r\nContent-Type: video/mp4"),
        );
        for (number, (replies, reason)) in [
            (vec![None, busy, nemo], None),
            (vec![old], None),
            (vec![None, dory], Some("another server answers there by now")),
        ]
        .into_iter()
        .enumerate()
        {
            let ends = Ends { event: Arc::default(), program: Arc::default() };
            let path = folder.path().join(format!("{number}.mp4"));
            let fetched = fetch(&serve(replies), "stream1", None, Instant::now(), &path, &ends);
            assert_eq!(fetched.as_ref().err().map(String::as_str), reason, "{number}");
            assert_eq!(path.exists(), reason.is_none(), "{number}");
        }
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
