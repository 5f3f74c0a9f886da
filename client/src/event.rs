//! What the pilot notes of a dive: the picture of that moment, a clip around it, what the vehicle measured, and a text,
//! in a folder of its own (`event.json` says what is in it; `report` reads that).
//!
//! One thread writes: what is known at once, the text when it is typed, and what became of pictures and clips. Other
//! threads make and fetch these, as many at once as there may be. What fails is said in `event.json` and in the window.
//! A text that the disk does not take stays here, and is tried again until the program ends.

use std::borrow::Cow;
use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use rov_common::backoff::Backoff;
use rov_common::capture_clock::Captured;
use rov_common::exif::{About, Position};
use rov_common::priority;
use rov_common::recording::{EXTENSION, Fields, Name, rfc3339};
use serde::{Deserialize, Serialize};

use crate::clip::{Around, Failure};
use crate::decode::Kept;
use crate::snapshot::label;
use crate::whep::Api;
use crate::{clip, snapshot};

/// In the folder of each event.
pub const FILE: &str = "event.json";
/// Of what was still to come.
const NOT_AWAITED: &str = "the program ended before it was there";
/// Characters of a text.
pub const LONGEST_TEXT: usize = 300;
/// Before the moment and after it, and a little for the way of the picture to here.
const AROUND: Duration = Duration::from_millis(5_500);
/// A clip of an event shows its moment, but for what clocks differ by.
const NEAR: Duration = Duration::from_millis(100);
/// Events that wait to be written; those after that have no pictures, and then none can begin.
const WAITING: usize = 4;
const MOST_WAITING: usize = 64;
/// What the disk did not take is tried again, and said again.
const RETRY: Duration = Duration::from_secs(2);
const SAY_AGAIN: Duration = Duration::from_secs(15);
/// Events whose pictures are made into files at once, with those in which the encoder hangs; pictures that wait for
/// that, as those of a grid, and how long; until one that is made is on the disk.
const MOST_DRAWN: usize = 2;
const MOST_QUEUED: usize = 16;
const QUEUE_LIMIT: Duration = Duration::from_secs(30);
const SAVE_LIMIT: Duration = Duration::from_secs(300);
/// Clips that are waited for or fetched at once: those of a grid.
const MOST_CLIPS: usize = 16;
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
    /// When the picture was captured by the clock of this run of the server, or what may have been by the key, where
    /// that is known.
    pub captured: Option<Captured>,
    pub run: Option<u64>,
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
        waits: Arc<()>,
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
    /// For the pilot.
    Say(String),
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
    /// Counts those that wait to be written.
    waiting: Arc<()>,
    said: Receiver<String>,
}

impl Events {
    /// Nothing is touched before the first event.
    pub fn start(folder: PathBuf) -> std::io::Result<Self> {
        Self::by(Means { encode: snapshot::jpeg, write }, folder)
    }

    fn by(means: Means, folder: PathBuf) -> std::io::Result<Self> {
        let ((messages, told), (say, said), waiting) = (channel(), channel(), Arc::default());
        let writer = Writer {
            means,
            folder,
            messages: messages.clone(),
            say,
            works: BTreeMap::new(),
            homeless: BTreeMap::new(),
            waiting: Arc::downgrade(&waiting),
            retried: Instant::now(),
            told: None,
            queue: VecDeque::new(),
            ends: Arc::default(),
            drawing: Arc::default(),
            fetching: Arc::default(),
        };
        std::thread::Builder::new().name("events".to_owned()).spawn(move || {
            priority::lower();
            writer.run(&told);
        })?;
        Ok(Self { messages, open: None, begun: 0, waiting, said })
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
        let (id, waits) = (self.begun, Arc::clone(&self.waiting));
        let begin = Message::Begin { id, moment: Moment { seen, telemetry, now }, waits };
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
    /// Why the disk does not have it as it is known now; then it waits.
    unwritten: Option<String>,
    waits: Option<Arc<()>>,
    /// What the pilot is to know of its clips.
    remarks: Vec<String>,
}

/// An event that has no folder yet.
struct Homeless {
    moment: Moment,
    /// None: it is still typed.
    text: Option<String>,
    reason: String,
    waits: Arc<()>,
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
    homeless: BTreeMap<u64, Homeless>,
    waiting: Weak<()>,
    /// What the disk did not take was tried again then, and the pilot told of it.
    retried: Instant,
    told: Option<Instant>,
    /// Pictures that wait until others are made, with their events.
    queue: VecDeque<(u64, Vec<Drawn>, Instant)>,
    /// The program does.
    ends: Arc<AtomicBool>,
    drawing: Arc<()>,
    /// Counts the threads that fetch.
    fetching: Arc<()>,
}

impl Writer {
    fn run(mut self, told: &Receiver<Message>) {
        loop {
            let is_calm = self.queue.is_empty() && !self.is_unwritten();
            let message = match is_calm {
                true => told.recv().map_err(RecvTimeoutError::from),
                false => told.recv_timeout(LOOK_INTERVAL),
            };
            match message {
                Ok(Message::Close) | Err(RecvTimeoutError::Disconnected) => break,
                Ok(message) => self.take(message),
                Err(RecvTimeoutError::Timeout) => self.tend(),
            }
        }
        self.ends.store(true, Ordering::Release);
        self.homeless.values_mut().for_each(|homeless| _ = homeless.text.get_or_insert_default());
        for work in self.works.values_mut().filter(|work| work.state == State::Typed) {
            work.state = State::Saved;
        }
        self.retry();
        self.settle();
        for limit in [END_LIMIT, BREAK_OFF_LIMIT] {
            let until = Instant::now() + limit;
            while !(self.works.is_empty() && self.homeless.is_empty()) && Instant::now() < until {
                match told.recv_timeout(LOOK_INTERVAL) {
                    Ok(message) => self.take(message),
                    Err(_) => self.tend(),
                }
            }
            self.works.values().for_each(|work| work.stop.store(true, Ordering::Release));
        }
        // What did not end is not waited for.
        self.works.values_mut().for_each(|work| work.missing = 0);
        self.retry();
        self.settle();
        let works = self.works.values().filter_map(|work| Some((&work.event.text, work.unwritten.as_ref()?)));
        let homeless = self.homeless.values().filter_map(|homeless| Some((homeless.text.as_ref()?, &homeless.reason)));
        for (text, reason) in works.chain(homeless) {
            tracing::error!("the event with the text {text:?} was not saved: {reason}");
        }
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Begin { id, moment, waits } => {
                self.house(id, Homeless { moment, text: None, reason: String::new(), waits });
                self.say_unwritten(self.homeless.contains_key(&id));
            }
            Message::End { id, text: Some(text) } => {
                self.end(id, text);
                self.say_text(id);
            }
            Message::End { id, text: None } => {
                self.homeless.remove(&id);
                if let Some(work) = self.works.get_mut(&id) {
                    (work.state, work.unwritten, work.waits) = (State::Cancelled, None, None);
                    work.stop.store(true, Ordering::Release);
                }
            }
            Message::Picture { id, at, saved } => {
                self.add(id, at, |work| {
                    work.event.pictures[at].snapshot = saved.map_or_else(Part::Failed, Part::File);
                });
            }
            Message::Clip { id, at, fetched } => self.add(id, at, |work| {
                let picture = &mut work.event.pictures[at];
                picture.clip = match fetched {
                    Ok(Fetched { file, remark }) => {
                        picture.remarks.extend(remark.clone());
                        work.remarks.extend(remark);
                        Part::File(file)
                    }
                    Err(reason) => Part::Failed(reason),
                };
            }),
            Message::Say(text) => self.say(text),
            Message::Close => {}
        }
        self.draw_next();
        self.settle();
    }

    /// What has its time.
    fn tend(&mut self) {
        if self.is_unwritten() && self.retried.elapsed() >= RETRY {
            self.retry();
        }
        self.draw_next();
        self.settle();
    }

    fn is_unwritten(&self) -> bool {
        !self.homeless.is_empty() || self.works.values().any(|work| work.unwritten.is_some())
    }

    /// What the disk did not take.
    fn retry(&mut self) {
        self.retried = Instant::now();
        let mut tried: Vec<_> =
            self.works.iter().filter(|(_, work)| work.unwritten.is_some()).map(|(id, _)| *id).collect();
        tried.iter().for_each(|id| self.write(*id));
        for (id, homeless) in std::mem::take(&mut self.homeless) {
            tried.push(id);
            self.house(id, homeless);
        }
        for work in tried.iter().filter_map(|id| self.works.get(id)) {
            if work.state == State::Saved && work.unwritten.is_none() {
                self.say(format!("The text of the event {} is saved now", name_of(&work.path)));
            }
        }
        self.say_unwritten(false);
    }

    /// Says what the disk does not take: at once where that `is_new`, else now and then.
    fn say_unwritten(&mut self, is_new: bool) {
        let works = self.works.values().filter_map(|work| work.unwritten.as_ref());
        let reasons: Vec<_> = works.chain(self.homeless.values().map(|homeless| &homeless.reason)).collect();
        let is_due = is_new || self.told.is_some_and(|told| told.elapsed() >= SAY_AGAIN);
        let [.., reason] = &reasons[..] else { return self.told = None };
        if is_due {
            let what =
                if reasons.len() == 1 { "The event is".to_owned() } else { format!("{} events are", reasons.len()) };
            self.say(format!(
                "{what} not saved yet: {reason}. Make room there: it is tried again until the program ends"
            ));
            self.told = Some(Instant::now());
        }
    }

    /// An event gets its folder, or waits for it.
    fn house(&mut self, id: u64, Homeless { moment, text, waits, .. }: Homeless) {
        match self.folder_for(&moment.seen[0].about) {
            Ok(path) => {
                self.open(id, path, moment, waits);
                if let Some(text) = text {
                    self.end(id, text);
                }
            }
            Err(reason) => drop(self.homeless.insert(id, Homeless { moment, text, reason, waits })),
        }
    }

    fn folder_for(&self, about: &About) -> Result<PathBuf, String> {
        clip::make_folder(&self.folder)?;
        // Nor one that was cancelled, whose folder is deleted once more when no clip can come into it.
        create(&self.folder, about, |path| self.works.values().any(|work| work.path == path))
    }

    fn end(&mut self, id: u64, text: String) {
        if let Some(mut homeless) = self.homeless.remove(&id) {
            homeless.text = Some(text);
            return self.house(id, homeless);
        }
        let Some(work) = self.works.get_mut(&id) else { return };
        (work.event.text, work.state) = (text, State::Saved);
        // At once, as the clips may take long.
        self.write(id);
    }

    /// The disk does not have the event of this text: the log has it, at least.
    fn say_text(&mut self, id: u64) {
        let of_work = |work: &Work| Some((work.event.text.clone(), work.unwritten.clone()?));
        let of_homeless = |homeless: &Homeless| Some((homeless.text.clone()?, homeless.reason.clone()));
        let work = self.works.get(&id).and_then(of_work);
        if let Some((text, reason)) = work.or_else(|| self.homeless.get(&id).and_then(of_homeless)) {
            tracing::error!("the event with the text {text:?} is not saved yet: {reason}");
            self.say_unwritten(true);
        }
    }

    /// Something has come, or does not come any more.
    fn add(&mut self, id: u64, at: usize, add: impl FnOnce(&mut Work)) {
        let Some(work) = self.works.get_mut(&id).filter(|work| at < work.event.pictures.len()) else { return };
        work.missing -= 1;
        add(work);
        if work.state != State::Cancelled {
            self.write(id);
        }
    }

    /// What is known is written; pictures are made into files, and clips fetched, from now on.
    fn open(&mut self, id: u64, path: PathBuf, Moment { seen, telemetry, now }: Moment, waits: Arc<()>) {
        let first = &seen[0].about;
        let event = Event {
            captured: rfc3339(first.taken),
            vehicle: first.vehicle.clone(),
            place: first.position.into(),
            telemetry,
            ..Event::default()
        };
        let (stop, waits) = (Arc::default(), Some(waits));
        let (unwritten, remarks) = Default::default();
        let mut work = Work { path, event, state: State::Typed, missing: 0, stop, unwritten, waits, remarks };
        let (is_one, mut drawn) = (seen.len() == 1, Vec::new());
        let queued: usize = self.queue.iter().map(|(_, drawn, _)| drawn.len()).sum();
        for (at, Seen { picture, about, captured, run, api }) in seen.into_iter().enumerate() {
            let file_of = |what, extension| file_of(what, &about, Some(at + 1).filter(|_| !is_one), extension);
            let (file, clip_file) = (file_of("snapshot", ".jpg"), file_of("clip", EXTENSION));
            let (before, after) = (AROUND, AROUND);
            let around = Around { stream: about.stream.clone(), moment: now, captured, run, before, after };
            let clip = self.fetch((id, at), &work, api, (clip_file.clone(), around));
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
                Ok(picture) if queued + drawn.len() < MOST_QUEUED => drawn.push(Drawn { at, picture, about, file }),
                Ok(_) => {
                    shown.snapshot = Part::Failed(format!("{MOST_QUEUED} pictures before it wait for the JPEG encoder"))
                }
                Err(reason) => shown.snapshot = Part::Failed(reason),
            }
            let parts = [&shown.snapshot, &shown.clip];
            work.missing += parts.iter().filter(|part| matches!(part, Part::Awaited(_))).count();
            work.event.pictures.push(shown);
        }
        self.works.insert(id, work);
        self.write(id);
        snapshot::keep_names(&self.folder);
        if !drawn.is_empty() {
            self.queue.push_back((id, drawn, Instant::now() + QUEUE_LIMIT));
        }
    }

    /// Pictures are made into files in their order, of so many events at once.
    fn draw_next(&mut self) {
        // One is that of this.
        while Arc::strong_count(&self.drawing) <= MOST_DRAWN
            && let Some((id, drawn, _)) = self.queue.pop_front()
        {
            self.draw(id, drawn);
        }
        while self.queue.front().is_some_and(|(.., until)| Instant::now() >= *until)
            && let Some((id, drawn, _)) = self.queue.pop_front()
        {
            for Drawn { at, .. } in drawn {
                let reason = "the JPEG encoder is still busy with earlier events";
                self.add(id, at, |work| work.event.pictures[at].snapshot = Part::Failed(reason.to_owned()));
            }
        }
    }

    /// By a thread of its own: an encoder that hangs holds up no text.
    fn draw(&mut self, id: u64, drawn: Vec<Drawn>) {
        let Some(work) = self.works.get(&id) else { return };
        let (folder, ends) = (work.path.clone(), self.ends_of(work));
        let places: Vec<_> = drawn.iter().map(|drawn| drawn.at).collect();
        let (messages, encode) = (self.messages.clone(), self.means.encode);
        let busy: Drawing = Arc::new(Arc::clone(&self.drawing));
        let work = move || {
            priority::lower();
            let make = |Drawn { at, picture, about, file }| {
                // That of the picture before was left behind.
                let jpeg = match Arc::strong_count(&busy) {
                    _ if ends.event.load(Ordering::Acquire) => Err("it was cancelled".to_owned()),
                    1 => encode(picture, Arc::clone(&busy)),
                    _ => Err("the JPEG encoder hangs".to_owned()),
                };
                (at, file, jpeg.and_then(|jpeg| about.write_into(&jpeg)))
            };
            let made: Vec<_> = drawn.into_iter().map(make).collect();
            // A disk that takes nothing holds up no other picture.
            drop(busy);
            for (at, file, jpeg) in made {
                let say = |text| drop(messages.send(Message::Say(text)));
                let saved = jpeg.and_then(|jpeg| save(&folder.join(&file), &jpeg, &ends, say));
                // The thread that writes may not have waited for it.
                let _ = messages.send(Message::Picture { id, at, saved: saved.map(|()| file) });
            }
        };
        if let Err(error) = std::thread::Builder::new().name("event picture".to_owned()).spawn(work) {
            for at in places {
                let reason = format!("there is no thread for it: {error}");
                self.add(id, at, |work| work.event.pictures[at].snapshot = Part::Failed(reason));
            }
        }
    }

    fn ends_of(&self, work: &Work) -> Ends {
        Ends { event: Arc::clone(&work.stop), program: Arc::clone(&self.ends) }
    }

    /// Begins to fetch the clip of a stream, at its time; says why not.
    fn fetch(
        &self,
        (id, at): (u64, usize),
        work: &Work,
        api: Option<Api>,
        (file, around): (String, Around),
    ) -> Result<(), String> {
        let api = api.ok_or_else(|| "the sender has no HTTP API that is known here".to_owned())?;
        // One is that of this.
        if Arc::strong_count(&self.fetching) > MOST_CLIPS {
            return Err(format!("{MOST_CLIPS} clips are still being fetched"));
        }
        let (busy, messages, path) = (Arc::clone(&self.fetching), self.messages.clone(), work.path.join(&file));
        let ends = self.ends_of(work);
        let work = move || {
            priority::lower();
            let waits =
                |reason| drop(messages.send(Message::Say(format!("The clip of the event has to wait: {reason}"))));
            let fetched = fetch(&api, &around, &path, &ends, waits);
            drop(busy);
            // The thread that writes may not have waited for it.
            let _ = messages.send(Message::Clip { id, at, fetched: fetched.map(|remark| Fetched { file, remark }) });
        };
        let thread = std::thread::Builder::new().name("event clip".to_owned()).spawn(work);
        thread.map(drop).map_err(|error| format!("there is no thread for it: {error}"))
    }

    /// What the disk does not take is said, and tried again.
    fn write(&mut self, id: u64) {
        let Some(work) = self.works.get_mut(&id) else { return };
        match (self.means.write)(&work.path, &work.event) {
            Ok(()) => (work.unwritten, work.waits) = (None, None),
            Err(reason) => {
                work.waits = work.waits.take().or_else(|| self.waiting.upgrade());
                let is_new = work.unwritten.replace(reason).is_none();
                self.say_unwritten(is_new);
            }
        }
    }

    fn say(&self, text: String) {
        tracing::warn!("{text}");
        // Nobody may be there any more.
        let _ = self.say.send(text);
    }

    /// Ends those that are done, and deletes those that were cancelled.
    fn settle(&mut self) {
        let say = self.say.clone();
        self.works.retain(|_, work| {
            let is_done = work.missing == 0;
            match work.state {
                State::Typed => return true,
                State::Saved if is_done && work.unwritten.is_none() => {
                    // It is told in the log too, whoever is still there.
                    let _ = say.send(finish(work));
                    return false;
                }
                State::Saved => return true,
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

/// Into this file, once the vehicle has the seconds after the moment. Gives what is to be known of it.
fn fetch(
    api: &Api,
    around: &Around,
    path: &Path,
    ends: &Ends,
    waits: impl Fn(String),
) -> Result<Option<String>, String> {
    ends.wait_until(around.moment + around.after);
    clip::fetch(
        api,
        around,
        || ends.any(),
        waits,
        |clip| {
            if ends.event.load(Ordering::Acquire) {
                return Err(Failure::Final("it was cancelled".to_owned()));
            }
            let remark = around.captured.and_then(|moment| remark_on(moment, clip.captured?, clip.seconds));
            clip::write(clip, path, &ends.event)?;
            Ok(remark)
        },
    )
}

/// A new file, as soon as the disk takes it, within a limit. `say`s that it does not.
fn save(path: &Path, jpeg: &[u8], ends: &Ends, say: impl Fn(String)) -> Result<(), String> {
    let (until, mut pause, mut has_said) = (Instant::now() + SAVE_LIMIT, Backoff::default(), false);
    loop {
        match snapshot::write_new(path, jpeg) {
            Err(reason) if Instant::now() < until && !ends.any() => {
                if !std::mem::replace(&mut has_said, true) {
                    say(format!(
                        "The picture of the event is not saved yet: {reason}. Make room there: it is tried again"
                    ));
                }
                ends.wait_until(Instant::now() + pause.next_delay());
            }
            saved => return saved,
        }
    }
}

/// None: the moment is in the clip.
fn remark_on(moment: Captured, begun: Captured, seconds: Option<f64>) -> Option<String> {
    let seconds = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    let before = begun.0.saturating_sub(moment.0);
    let after = seconds.map_or(Duration::ZERO, |seconds| moment.0.saturating_sub(begun.0 + seconds));
    let differs = |by: Duration, what| (by > NEAR).then(|| format!("The clip {what} ({:.1} s).", by.as_secs_f64()));
    differs(before, "begins after the picture").or_else(|| differs(after, "ends before the picture"))
}

/// A folder that was not there, as `2026-11-30_19-30-12.345Z_Nemo_bow_stream1_event`; of the same moment `-2` and so
/// on.
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
    // It may have been deleted meanwhile.
    clip::make_folder(path)?;
    let part = fs::File::create(clip::part(&file));
    snapshot::write_whole(part.map_err(|error| format!("{}: cannot write: {error}", file.display()))?, &file, &json)
}

fn name_of(path: &Path) -> Cow<'_, str> {
    path.file_name().unwrap_or_default().to_string_lossy()
}

/// In words for the pilot.
fn finish(Work { path, event, remarks, .. }: &Work) -> String {
    let name = name_of(path);
    let parts = event.pictures.iter().flat_map(|picture| [("picture", &picture.snapshot), ("clip", &picture.clip)]);
    let failed = parts.filter_map(|(what, part)| match part {
        Part::Failed(reason) => Some(format!("no {what}: {reason}")),
        Part::Awaited(_) => Some(format!("no {what}: {NOT_AWAITED}")),
        Part::File(_) => None,
    });
    let failed = failed.collect::<Vec<_>>().join("; ");
    let remarks = remarks.iter().map(|remark| format!(". {}", remark.trim_end_matches('.'))).collect::<String>();
    if failed.is_empty() {
        tracing::info!("event: {}", path.display());
        return format!("Saved the event {name}{remarks}");
    }
    tracing::warn!("event: {}: {failed}", path.display());
    format!("Saved the event {name}, but {failed}{remarks}")
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
    use crate::who::Who;

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
        Seen { picture: Err("there was no picture".to_owned()), about, captured: None, run: None, api: None }
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
        (Seen { api: Some(Api::new(stats, Http::default())), ..seen(stream) }, server)
    }

    /// At a moment whose clip can be fetched by now.
    fn before() -> Instant {
        Instant::now().checked_sub(AROUND).unwrap_or_else(Instant::now)
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
        let clip = &second.pictures[0].clip;
        let is_there = matches!(clip, Part::File(_));
        assert!(!is_there, "{clip:?}: it did not answer in time, or was given up before");
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
        assert_eq!(read.map(|event| event.pictures[0].snapshot.clone()), [(); 3].map(|()| waited.clone()));
    }

    #[test]
    fn events_in_quick_succession_have_their_pictures_as_many_as_can_wait_for_the_encoder() {
        static GOES_ON: AtomicBool = AtomicBool::new(false);
        let slow = |picture: Kept, busy: Drawing| {
            while !GOES_ON.load(Ordering::Acquire) {
                std::thread::sleep(Duration::from_millis(1));
            }
            snapshot::jpeg(picture, busy)
        };
        let folder = tempfile::tempdir().expect("a folder");
        let mut events = Events::by(Means { encode: slow, write }, folder.path().to_owned()).expect("a thread");
        let streams: Vec<_> = (0..MOST_DRAWN + MOST_QUEUED + 1).map(|number| format!("stream{number}")).collect();
        for stream in &streams {
            events.begin(vec![with_picture(stream)], Fields::new(), Instant::now()).expect("begun");
            assert!(events.end(Some(stream.clone())));
            wait_for("its text", || folder.path().join(name_of(stream)).join(FILE).exists());
        }
        let snapshot_of = |stream: &str| read(folder.path(), &name_of(stream)).pictures[0].snapshot.clone();
        let (last, others) = streams.split_last().expect("some");
        let refused = format!("{MOST_QUEUED} pictures before it wait for the JPEG encoder");
        assert_eq!(snapshot_of(last), Part::Failed(refused.clone()));
        let is_said = || events.said.try_iter().any(|said| said.contains(&format!("no picture: {refused}")));
        wait_for("it is said", is_said);
        GOES_ON.store(true, Ordering::Release);
        for stream in others {
            wait_for(stream, || snapshot_of(stream) == Part::File("snapshot.jpg".to_owned()));
        }
    }

    #[test]
    fn pictures_that_the_disk_does_not_take_hold_up_no_other() {
        let hinder = |path: &Path, event: &Event| {
            if !path.to_string_lossy().contains("last") {
                // No file can be made in the place of this folder.
                let _ = fs::create_dir(path.join("snapshot.jpg.part"));
            }
            write(path, event)
        };
        let folder = tempfile::tempdir().expect("a folder");
        let means = Means { encode: snapshot::jpeg, write: hinder };
        let mut events = Events::by(means, folder.path().to_owned()).expect("a thread");
        let hindered: Vec<_> = (0..=MOST_DRAWN).map(|number| format!("stream{number}")).collect();
        for stream in hindered.iter().map(String::as_str).chain(["last"]) {
            events.begin(vec![with_picture(stream)], Fields::new(), Instant::now()).expect("begun");
            assert!(events.end(Some(stream.to_owned())));
        }
        let snapshot_of = |stream: &str| read(folder.path(), &name_of(stream)).pictures[0].snapshot.clone();
        wait_for("the last one's picture", || {
            folder.path().join(name_of("last")).join(FILE).exists()
                && snapshot_of("last") == Part::File("snapshot.jpg".to_owned())
        });
        assert_eq!(snapshot_of(&hindered[0]), Part::Awaited("snapshot.jpg".to_owned()));
    }

    #[test]
    fn a_picture_that_the_disk_does_not_take_is_tried_again() {
        // No file can be made in the place of this folder.
        let in_the_way = |path: &Path| path.join("snapshot.jpg.part");
        let hinder = |path: &Path, event: &Event| {
            static ONCE: AtomicBool = AtomicBool::new(true);
            if ONCE.swap(false, Ordering::AcqRel) {
                fs::create_dir(path.join("snapshot.jpg.part")).expect("a folder");
            }
            write(path, event)
        };
        let folder = tempfile::tempdir().expect("a folder");
        let means = Means { encode: snapshot::jpeg, write: hinder };
        let mut events = Events::by(means, folder.path().to_owned()).expect("a thread");
        events.begin(vec![with_picture("stream1")], Fields::new(), Instant::now()).expect("begun");
        assert!(events.end(Some("text".to_owned())));
        let is_said = |what: &str| wait_for(what, || events.said.try_iter().any(|said| said.starts_with(what)));
        is_said("The picture of the event is not saved yet: ");
        let path = folder.path().join(name_of("stream1"));
        assert_eq!(
            read(folder.path(), &name_of("stream1")).pictures[0].snapshot,
            Part::Awaited("snapshot.jpg".to_owned())
        );
        fs::remove_dir(in_the_way(&path)).expect("removed");
        wait_for("its picture", || path.join("snapshot.jpg").exists());
        is_said("Saved the event ");
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
        let said = events.said.recv_timeout(LIMIT).expect("it is said");
        let expected =
            "The event is not saved yet: the disk is full. Make room there: it is tried again until the program ends";
        assert_eq!(said, expected);
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
        for is_typed in [false, true] {
            if is_typed {
                events.end(Some("text".to_owned()));
            }
            let said = events.said.recv_timeout(LIMIT).expect("it is said");
            let is_it = said.starts_with("The event is not saved yet: ") && said.contains("cannot make this folder");
            assert!(is_it, "{said}");
        }
    }

    #[test]
    fn texts_that_the_disk_does_not_take_when_they_are_there_are_saved_when_it_does() {
        static IS_FULL: AtomicBool = AtomicBool::new(false);
        let write_or_not = |path: &Path, event: &Event| match IS_FULL.load(Ordering::Acquire) {
            true => Err("the disk is full".to_owned()),
            false => write(path, event),
        };
        let folder = tempfile::tempdir().expect("a folder");
        let means = Means { encode: snapshot::jpeg, write: write_or_not };
        let mut events = Events::by(means, folder.path().to_owned()).expect("a thread");
        let streams = ["stream1", "stream2"];
        for stream in streams {
            IS_FULL.store(false, Ordering::Release);
            events.begin(vec![seen(stream)], Fields::new(), Instant::now()).expect("begun");
            wait_for("its file", || folder.path().join(name_of(stream)).join(FILE).exists());
            IS_FULL.store(true, Ordering::Release);
            assert!(events.end(Some(stream.to_owned())));
            let is_said = |said: String| said.contains("not saved yet: the disk is full. Make room there");
            wait_for("it is said", || events.said.try_iter().any(is_said));
        }
        let text = |stream: &str| read(folder.path(), &name_of(stream)).text;
        assert_eq!(text("stream2"), "");
        IS_FULL.store(false, Ordering::Release);
        wait_for("their texts", || streams.iter().all(|stream| text(stream) == **stream));
        // The folder of one is gone when its text is there.
        events.begin(vec![seen("stream3")], Fields::new(), Instant::now()).expect("begun");
        let path = folder.path().join(name_of("stream3"));
        wait_for("its file", || path.join(FILE).exists());
        fs::remove_dir_all(&path).expect("removed");
        assert!(events.end(Some("stream3".to_owned())));
        wait_for("its text", || path.join(FILE).exists() && text("stream3") == "stream3");
    }

    #[test]
    fn several_events_that_have_no_folder_get_one_when_there_can_be_one() {
        let folder = tempfile::tempdir().expect("a folder");
        let dive = folder.path().join("dive");
        fs::write(&dive, "").expect("a file");
        let mut events = Events::start(dive.clone()).expect("a thread");
        let streams = ["stream1", "stream2"];
        for stream in streams {
            events.begin(vec![with_picture(stream)], Fields::new(), Instant::now()).expect("begun");
            assert!(events.end(Some(stream.to_owned())));
        }
        let are_said = |said: String| said.starts_with("2 events are not saved yet: ");
        wait_for("it is said", || events.said.try_iter().any(are_said));
        fs::remove_file(&dive).expect("removed");
        for stream in streams {
            wait_for(stream, || dive.join(name_of(stream)).join("snapshot.jpg").exists());
            assert_eq!(read(&dive, &name_of(stream)).text, stream);
        }
    }

    #[test]
    fn a_folder_that_can_be_made_when_the_text_is_there_or_the_program_ends_is_early_enough() {
        for text in ["text", ""] {
            let folder = tempfile::tempdir().expect("a folder");
            let dive = folder.path().join("dive");
            fs::write(&dive, "").expect("a file");
            let mut events = Events::start(dive.clone()).expect("a thread");
            events.begin(vec![seen("stream1")], Fields::new(), Instant::now()).expect("begun");
            assert!(events.said.recv_timeout(LIMIT).is_ok_and(|said| said.starts_with("The event is not saved yet: ")));
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
        Api { who: Who { id: "nemo".to_owned(), key: Some("a".to_owned()) }, ..Api::new(stats, Http::default()) }
    }

    #[test]
    fn a_clip_outlasts_an_outage_and_is_of_the_same_vehicle_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let (busy, nemo, dory, copy, old) = (
            Some("503 Service Unavailable"),
            Some("200 OK\r\nContent-Type: video/mp4\r\nX-Server-Id: nemo"),
            Some("200 OK\r\nContent-Type: video/mp4\r\nX-Server-Id: dory"),
            Some("200 OK\r\nContent-Type: video/mp4\r\nX-Server-Id: nemo\r\nX-Server-Key: b"),
            Some("200 OK\r\nContent-Type: video/mp4"),
        );
        for (number, (replies, reason)) in [
            (vec![None, busy, nemo], None),
            (vec![old], None),
            (vec![None, dory], Some("another server answers there by now")),
            (vec![None, copy], Some("another server answers there by now")),
        ]
        .into_iter()
        .enumerate()
        {
            let ends = Ends { event: Arc::default(), program: Arc::default() };
            let path = folder.path().join(format!("{number}.mp4"));
            let (stream, before, after) = ("stream1".to_owned(), AROUND, AROUND);
            let around = Around { stream, moment: self::before(), captured: None, run: None, before, after };
            let fetched = fetch(&serve(replies), &around, &path, &ends, |_| ());
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
