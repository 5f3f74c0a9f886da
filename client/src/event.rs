//! What the pilot notes of a dive: the picture of that moment, a clip around it, what the vehicle measured, and a text, in a
//! folder of its own (`event.json` says what is in it; `report` reads that).
//!
//! A thread for each event does it while the text is typed: the picture at once, and the clip as soon as the vehicle has the
//! seconds after it. What fails is said in `event.json` and in the window.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use rov_common::exif::{About, Position};
use rov_common::priority;
use rov_common::recording::{EXTENSION, Fields, Name, rfc3339};
use serde::{Deserialize, Serialize};

use crate::decode::Kept;
use crate::snapshot::label;
use crate::whep::Api;
use crate::{clip, snapshot};

/// In the folder of each event.
pub const FILE: &str = "event.json";
/// Characters of a text.
pub const LONGEST_TEXT: usize = 300;
/// Around the moment, and a little for the way of the picture to here.
const AFTER: Duration = Duration::from_millis(5_500);
const CLIP_SECONDS: u64 = 11;
/// Events that are being saved or typed.
const AT_ONCE: usize = 4;
/// For those at the end of the program; then their clips are broken off.
const END_LIMIT: Duration = Duration::from_secs(5);
const BREAK_OFF_LIMIT: Duration = Duration::from_millis(500);
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
    /// Of its vehicle; none: there is none that is known.
    pub api: Option<Api>,
}

/// What becomes of an event.
enum Verdict {
    Save(String),
    Cancel,
    /// The program ends: what is there now is what is saved.
    End,
}

/// Saves events into folders of a folder.
#[derive(Debug)]
pub struct Events {
    folder: PathBuf,
    /// Of the event whose text is being typed, and of all that are being saved.
    open: Option<Sender<Verdict>>,
    works: Vec<(Sender<Verdict>, std::thread::JoinHandle<()>)>,
    stop: Arc<AtomicBool>,
    /// None: it ends.
    say: Option<Sender<String>>,
    said: Receiver<String>,
}

impl Events {
    pub fn new(folder: PathBuf) -> Self {
        let (say, said) = channel();
        Self { folder, open: None, works: Vec::new(), stop: Arc::default(), say: Some(say), said }
    }

    /// An event begins, of which the text is still to be said; of at least one stream. Does not wait.
    ///
    /// # Errors
    /// Says why none can begin.
    pub fn begin(&mut self, seen: Vec<Seen>, telemetry: Fields, now: Instant) -> Result<(), String> {
        self.works.retain(|(_, work)| !work.is_finished());
        if self.works.len() >= AT_ONCE {
            return Err(format!("No event: {AT_ONCE} are still being saved"));
        }
        let (verdict, verdicts) = channel();
        let (folder, stop, say) = (self.folder.clone(), Arc::clone(&self.stop), self.say.clone());
        let work = move || {
            priority::lower();
            let Some(said) = save(&folder, seen, telemetry, (&verdicts, now + AFTER), &stop) else { return };
            // It is told in the log too, whoever is still there.
            let _ = say.map(|say| say.send(said));
        };
        let work = std::thread::Builder::new().name("event".to_owned()).spawn(work);
        let work = work.map_err(|error| format!("No event: there is no thread for it: {error}"))?;
        self.works.push((verdict.clone(), work));
        self.open = Some(verdict);
        Ok(())
    }

    /// The event that has begun is saved with this text, or not.
    pub fn end(&mut self, text: Option<String>) {
        if let Some(open) = self.open.take() {
            // Where its thread has died, its folder says what there was.
            let _ = open.send(text.map_or(Verdict::Cancel, Verdict::Save));
        }
    }

    /// What became of the last one that was saved, once.
    pub fn news(&self) -> Option<String> {
        self.said.try_iter().last()
    }
}

impl Drop for Events {
    /// What can be saved at once is.
    fn drop(&mut self) {
        self.say = None;
        for (verdict, _) in &self.works {
            let _ = verdict.send(Verdict::End);
        }
        for limit in [END_LIMIT, BREAK_OFF_LIMIT] {
            let until = Instant::now() + limit;
            loop {
                match self.said.recv_timeout(until.saturating_duration_since(Instant::now())) {
                    Ok(_) => {}
                    Err(RecvTimeoutError::Disconnected) => return,
                    Err(RecvTimeoutError::Timeout) => break,
                }
            }
            self.stop.store(true, Ordering::Release);
        }
        tracing::warn!("an event was not saved as a whole: its {FILE} says what is missing");
    }
}

/// Says what was saved; none: it was cancelled.
fn save(
    folder: &Path,
    seen: Vec<Seen>,
    telemetry: Fields,
    (verdicts, clip_at): (&Receiver<Verdict>, Instant),
    stop: &AtomicBool,
) -> Option<String> {
    let made = clip::make_folder(folder).and_then(|()| create(folder, &seen[0].about));
    let path = match made {
        Ok(path) => path,
        Err(reason) => {
            tracing::error!("no event: {reason}");
            // The pilot types meanwhile.
            return (!matches!(verdicts.recv(), Ok(Verdict::Cancel))).then(|| format!("No event was saved: {reason}"));
        }
    };
    let (mut event, apis) = begin(&path, seen, telemetry);
    let (mut has_text, mut ends) = (false, false);
    while !ends {
        match verdicts.recv_timeout(clip_at.saturating_duration_since(Instant::now())) {
            Ok(Verdict::Save(text)) => {
                (event.text, has_text) = (text, true);
                // Whatever happens until the clip is there; what fails now is said at the end.
                let _ = write(&path, &event);
            }
            Ok(Verdict::Cancel) => return discard(&path),
            Err(RecvTimeoutError::Timeout) => break,
            Ok(Verdict::End) | Err(RecvTimeoutError::Disconnected) => ends = true,
        }
    }
    fetch_clips(&path, &mut event, apis, stop);
    if !has_text && !ends {
        match verdicts.recv() {
            Ok(Verdict::Save(text)) => event.text = text,
            Ok(Verdict::Cancel) => return discard(&path),
            Ok(Verdict::End) | Err(_) => {}
        }
    }
    Some(finish(&path, &event))
}

/// A folder that was not there, as `2026-11-30_19-30-12.345Z_Nemo_bow_stream1_event`; of the same moment `-2` and so on.
fn create(folder: &Path, about: &About) -> Result<PathBuf, String> {
    for number in 1..=MOST_ALIKE {
        let label = format!("{}_event", label(about));
        let label = if number == 1 { label } else { format!("{label}-{number}") };
        let path = folder.join(Name::new(about.taken, &label).to_string().replace(EXTENSION, ""));
        match fs::create_dir(&path) {
            Ok(()) => return Ok(path),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(format!("{}: cannot make this folder: {error}", path.display())),
        }
    }
    Err(format!("{}: there are {MOST_ALIKE} events of this moment", folder.display()))
}

/// With the pictures; and who is asked for the clips.
fn begin(path: &Path, seen: Vec<Seen>, telemetry: Fields) -> (Event, Vec<Option<Api>>) {
    let first = &seen[0].about;
    let mut event = Event {
        captured: rfc3339(first.taken),
        vehicle: first.vehicle.clone(),
        place: first.position.into(),
        telemetry,
        ..Event::default()
    };
    // Of one stream without its name.
    let is_one = seen.len() == 1;
    let mut apis = Vec::new();
    for Seen { picture, about, api } in seen {
        let file = if is_one { "snapshot.jpg".to_owned() } else { file_of("snapshot", &about, ".jpg") };
        let jpeg = picture.ok_or_else(|| "there was no picture".to_owned()).and_then(Kept::jpeg);
        let saved = jpeg.and_then(|jpeg| snapshot::write_new(&path.join(&file), &about.write_into(&jpeg)?));
        event.pictures.push(Picture {
            camera: about.camera,
            stream: about.stream,
            captured: rfc3339(about.taken),
            remarks: about.remarks,
            snapshot: saved.map_or_else(Part::Failed, |()| Part::File(file)),
            clip: Part::Failed("the program ended before it was there".to_owned()),
        });
        apis.push(api);
    }
    (event, apis)
}

/// In the name of a file, with the camera where the stream does not have it.
fn file_of(what: &str, about: &About, extension: &str) -> String {
    let stream = Name::new(about.taken, &format!("{what}_{}", about.stream)).label().to_owned();
    format!("{stream}{extension}")
}

fn fetch_clips(path: &Path, event: &mut Event, apis: Vec<Option<Api>>, stop: &AtomicBool) {
    for (picture, api) in event.pictures.iter_mut().zip(apis) {
        let file = match &picture.snapshot {
            Part::File(file) => file.replace("snapshot", "clip").replace(".jpg", EXTENSION),
            Part::Failed(_) => format!("clip-{}{EXTENSION}", picture.stream.replace('/', "-")),
        };
        let clip = api.ok_or_else(|| "the sender has no HTTP API that is known here".to_owned());
        let clip = clip.and_then(|api| clip::ask(&api, &picture.stream, Some(CLIP_SECONDS)));
        let saved = clip.and_then(|clip| clip::write(clip, &path.join(&file), stop));
        picture.clip = saved.map_or_else(Part::Failed, |_| Part::File(file));
    }
}

fn write(path: &Path, event: &Event) -> Result<(), String> {
    let json = serde_json::to_vec_pretty(event).map_err(|error| error.to_string())?;
    let (file, part) = (path.join(FILE), path.join(format!("{FILE}.part")));
    let written = fs::write(&part, json).and_then(|()| fs::rename(&part, &file));
    written.map_err(|error| format!("{}: cannot write: {error}", file.display()))
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
fn discard(path: &Path) -> Option<String> {
    if let Err(error) = fs::remove_dir_all(path) {
        tracing::warn!("{}: cannot delete what was cancelled: {error}", path.display());
    }
    None
}

#[cfg(test)]
mod tests {
    use rov_common::capture_clock::Captured;

    use super::*;

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
        Seen { picture: None, about, api: None }
    }

    /// At a moment whose clip can be fetched by now.
    fn before() -> Instant {
        Instant::now().checked_sub(AFTER).unwrap_or_else(Instant::now)
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
        let mut events = Events::new(dive.clone());
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
    fn what_is_cancelled_leaves_nothing_before_its_clip_and_after() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut events = Events::new(folder.path().to_owned());
        let files = || fs::read_dir(folder.path()).expect("the folder").count();
        for now in [Instant::now(), before()] {
            events.begin(vec![seen("stream1")], Fields::new(), now).expect("begun");
            let until = Instant::now() + LIMIT;
            while files() == 0 {
                assert!(Instant::now() < until, "its folder");
                std::thread::sleep(Duration::from_millis(5));
            }
            events.end(None);
            let (_, work) = events.works.pop().expect("it works");
            work.join().expect("it ends");
            assert_eq!(files(), 0);
        }
        assert_eq!(events.news(), None);
    }

    #[test]
    fn at_the_end_of_the_program_an_event_is_saved_as_it_is_and_its_clip_is_not_waited_for() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut events = Events::new(folder.path().to_owned());
        events.begin(vec![seen("stream1")], Fields::new(), Instant::now() + LIMIT).expect("begun");
        events.end(Some("text".to_owned()));
        events.begin(vec![seen("stream2")], Fields::new(), Instant::now() + LIMIT).expect("begun");
        let began = Instant::now();
        drop(events);
        assert!(began.elapsed() < END_LIMIT);
        let name = |stream: &str| format!("2023-11-14_22-13-20.012Z_Nemo_bow_{stream}_event");
        assert_eq!(read(folder.path(), &name("stream1")).text, "text");
        assert_eq!(read(folder.path(), &name("stream2")).text, "", "nobody had typed anything yet");
    }

    #[test]
    fn more_than_can_be_saved_at_once_are_refused_and_where_there_is_no_folder_that_is_said() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("file");
        fs::write(&file, "").expect("a file");
        let mut events = Events::new(file);
        for _ in 0..AT_ONCE {
            events.begin(vec![seen("stream1")], Fields::new(), Instant::now()).expect("begun");
        }
        let refused = events.begin(vec![seen("stream1")], Fields::new(), Instant::now());
        assert!(refused.is_err_and(|why| why.contains("are still being saved")));
        events.end(Some("text".to_owned()));
        let said = events.said.recv_timeout(LIMIT).expect("it is said");
        assert!(said.starts_with("No event was saved: ") && said.contains("cannot make this folder"), "{said}");
    }
}
