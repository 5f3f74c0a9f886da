//! Pictures of the window as files, as evidence: JPEG with EXIF, in full size, written by a thread of their own.
//!
//! The window hands over what it shows and goes on; a slow or full disk holds up nothing but the next snapshot. Nothing
//! is ever overwritten, and a file is there as a whole or not at all: until then its name ends in `.part`.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, channel, sync_channel};
use std::time::{Duration, Instant};

use rov_common::exif::About;
use rov_common::priority;
use rov_common::recording::Name;

use crate::clip::{create, part};
use crate::decode::Kept;
use crate::limit::within;

/// Snapshots that wait for the one that is being written.
const WAITING: usize = 1;
/// For those at the end of the program.
const END_LIMIT: Duration = Duration::from_secs(5);
/// For one to become a JPEG, whatever the encoder hangs in.
const JPEG_LIMIT: Duration = Duration::from_secs(15);
/// Letters of each of the names of vehicle, camera and stream in that of a file: together with a number they stay below
/// what [`Name`] takes.
const MOST_LETTERS: usize = 30;

/// One picture, and what is to be said of it.
#[derive(Debug)]
pub struct Snapshot {
    pub picture: Kept,
    pub about: About,
}

/// Writes snapshots into a folder.
#[derive(Debug)]
pub struct Saver {
    /// What is shown at a moment, in the grid of each tile. None: it ends.
    work: Option<SyncSender<Vec<Snapshot>>>,
    /// What became of them, for the pilot.
    said: Receiver<String>,
}

impl Saver {
    /// Nothing is touched before the first snapshot.
    pub fn start(folder: PathBuf) -> std::io::Result<Self> {
        let (work, snapshots) = sync_channel::<Vec<Snapshot>>(WAITING);
        let (say, said) = channel();
        let write = move || {
            priority::lower();
            for shown in snapshots {
                // It is told in the log too, whoever is still there.
                let _ = say.send(save_all(&folder, shown));
            }
        };
        std::thread::Builder::new().name("snapshots".to_owned()).spawn(write)?;
        Ok(Self { work: Some(work), said })
    }

    /// Takes what is to be saved, without waiting; says why not.
    pub fn save(&self, shown: Vec<Snapshot>) -> Result<(), &'static str> {
        match self.work.as_ref().map(|work| work.try_send(shown)) {
            Some(Ok(())) => Ok(()),
            Some(Err(TrySendError::Full(_))) => Err("Not saved: the snapshot before is still being written"),
            Some(Err(TrySendError::Disconnected(_))) | None => Err("Not saved: the thread that saves has died"),
        }
    }

    /// What became of those that are written, once.
    pub fn news(&self) -> Option<String> {
        self.said.try_iter().last()
    }
}

impl Drop for Saver {
    /// What was taken is written still.
    fn drop(&mut self) {
        self.work = None;
        let until = Instant::now() + END_LIMIT;
        loop {
            match self.said.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(_) => {}
                Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => {
                    return tracing::warn!("a snapshot was not written within {} s", END_LIMIT.as_secs());
                }
            }
        }
    }
}

/// In words for the pilot.
fn save_all(folder: &Path, shown: Vec<Snapshot>) -> String {
    let (mut saved, mut failed) = (Vec::new(), Vec::new());
    for snapshot in shown {
        match save(folder, snapshot) {
            Ok(file) => {
                tracing::info!("snapshot: {}", folder.join(&file).display());
                saved.push(file);
            }
            Err(reason) => {
                tracing::error!("no snapshot: {reason}");
                failed.push(reason);
            }
        }
    }
    let files = match &saved[..] {
        [] => String::new(),
        [file] => format!("Saved {file}"),
        [file, others @ ..] => format!("Saved {file} and {} more", others.len()),
    };
    match (failed.first(), files.is_empty()) {
        (None, _) => files,
        (Some(reason), true) => format!("Not saved: {reason}"),
        (Some(reason), false) => format!("{files}, {} not: {reason}", failed.len()),
    }
}

/// The name of the file.
fn save(folder: &Path, Snapshot { picture, about }: Snapshot) -> Result<String, String> {
    let jpeg = about.write_into(&jpeg(picture, ())?)?;
    fs::create_dir_all(folder).map_err(|error| format!("{}: cannot make this folder: {error}", folder.display()))?;
    let (name, file) = create(folder, &label(&about), |label| Name::new(about.taken, label).beside(".jpg"))?;
    write_whole(file, &folder.join(&name), &jpeg)?;
    Ok(name)
}

/// Behind the pictures, within a limit. What is `held` is let go of when the encoder is through, also after that.
pub fn jpeg(picture: Kept, held: impl Send + 'static) -> Result<Vec<u8>, String> {
    let encode = move || {
        let _held = held;
        priority::lower();
        picture.jpeg()
    };
    within(JPEG_LIMIT, "snapshot", encode).map_err(|error| format!("no JPEG: {error}"))?
}

/// Writes a file that is not there yet, as a whole or not at all.
pub fn write_new(path: &Path, bytes: &[u8]) -> Result<(), String> {
    if path.exists() {
        return Err(format!("{}: is there already", path.display()));
    }
    let file = OpenOptions::new().write(true).create_new(true).open(part(path));
    write_whole(file.map_err(|error| format!("{}: cannot create: {error}", path.display()))?, path, bytes)
}

/// Into the part of a file, which gets its name then.
pub fn write_whole(mut file: File, path: &Path, bytes: &[u8]) -> Result<(), String> {
    let part = part(path);
    let written = file.write_all(bytes).and_then(|()| file.sync_all()).and_then(|()| fs::rename(&part, path));
    written.map_err(|error| {
        // Half of it is no evidence.
        let _ = fs::remove_file(&part);
        format!("{}: cannot write: {error}", path.display())
    })?;
    path.parent().map(keep_names);
    Ok(())
}

/// Names in a folder, too, outlast a power cut; not every system can do that.
pub fn keep_names(folder: &Path) {
    let _ = File::open(folder).and_then(|folder| folder.sync_all());
}

/// What stands behind the time in the names of files.
pub fn label(about: &About) -> String {
    // That of an address has the camera in front.
    let stream = about.stream.rsplit('/').next().unwrap_or_default();
    let parts = [about.vehicle.as_str(), &about.camera, stream];
    let shortened = |part: &str| part.chars().take(MOST_LETTERS).collect::<String>();
    parts.into_iter().filter(|part| !part.is_empty()).map(shortened).collect::<Vec<_>>().join("_")
}

#[cfg(test)]
mod tests {
    use rov_common::capture_clock::Captured;
    use rov_common::exif::Position;
    use rov_common::units::Resolution;

    use super::*;
    use crate::decode::Picture;

    fn snapshot(size: Resolution) -> Snapshot {
        gstreamer::init().expect("GStreamer");
        let pixels = vec![0x00c0_8040; size.pixels() as usize];
        let picture = Picture::from_pixels(size, pixels, Instant::now()).expect("a picture");
        let about = About {
            taken: Captured(Duration::from_millis(1_700_000_000_012)),
            vehicle: "Nemo 1".to_owned(),
            camera: "bow".to_owned(),
            stream: "bow/stream1".to_owned(),
            position: Position::default(),
            remarks: Vec::new(),
        };
        Snapshot { picture: picture.to_keep().expect("kept"), about }
    }

    #[test]
    fn nothing_is_overwritten_and_the_name_says_what_it_is() {
        let folder = tempfile::tempdir().expect("a folder");
        let inner = folder.path().join("dive");
        let said = save_all(&inner, vec![snapshot(Resolution::new(64, 48))]);
        assert_eq!(said, "Saved 2023-11-14_22-13-20.012Z_Nemo-1_bow_stream1.jpg");
        let first = fs::read(inner.join(&said["Saved ".len()..])).expect("a file");
        assert!(first.starts_with(&[0xff, 0xd8]));
        let said = save_all(&inner, vec![snapshot(Resolution::new(32, 32)), snapshot(Resolution::new(32, 32))]);
        assert_eq!(said, "Saved 2023-11-14_22-13-20.012Z_Nemo-1_bow_stream1-2.jpg and 1 more");
        let same = inner.join("2023-11-14_22-13-20.012Z_Nemo-1_bow_stream1.jpg");
        assert!(fs::read(same).expect("it is still there") == first);
        assert_eq!(fs::read_dir(&inner).expect("the folder").count(), 3);
    }

    #[test]
    fn names_are_bounded_and_tell_streams_and_numbers_apart() {
        let folder = tempfile::tempdir().expect("a folder");
        let long = |stream: &str| {
            let mut snapshot = snapshot(Resolution::new(32, 32));
            let About { vehicle, camera, .. } = &mut snapshot.about;
            (*vehicle, *camera) = ("\u{1f41f} of the deep blue sea".repeat(40), "bow".repeat(100));
            snapshot.about.stream = format!("{camera}/{stream}");
            snapshot
        };
        let said = save_all(folder.path(), vec![long("stream1"), long("stream1"), long("stream2")]);
        assert!(said.ends_with(" and 2 more"), "{said}");
        let names = fs::read_dir(folder.path()).expect("the folder").map(|entry| entry.expect("an entry").file_name());
        let mut names: Vec<_> = names.map(|name| name.into_string().expect("plain text")).collect();
        names.sort();
        assert!(names.iter().all(|name| name.len() < 160), "{names:?}");
        for (name, end) in names.iter().zip(["_stream1-2.jpg", "_stream1.jpg", "_stream2.jpg"]) {
            assert!(name.ends_with(end), "{names:?}");
        }
    }

    #[test]
    fn a_file_that_is_not_whole_has_another_name_and_keeps_its_own() {
        let folder = tempfile::tempdir().expect("a folder");
        let taken = Captured(Duration::from_millis(1_700_000_000_012));
        let create = || create(folder.path(), "Nemo", |label| Name::new(taken, label).beside(".jpg"));
        let (name, _file) = create().expect("a file");
        assert!(!folder.path().join(&name).exists() && folder.path().join(format!("{name}.part")).exists());
        let (second, _file) = create().expect("another one");
        assert_ne!(name, second, "another program is writing it");
    }

    #[test]
    fn why_it_cannot_be_saved_is_said() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("file");
        fs::write(&file, "").expect("a file");
        let said = save_all(&file, vec![snapshot(Resolution::new(32, 32))]);
        assert!(said.starts_with("Not saved: ") && said.contains("cannot make this folder"), "{said}");
    }

    #[test]
    fn what_was_taken_is_written_at_the_end_and_more_than_can_wait_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let saver = Saver::start(folder.path().to_owned()).expect("a thread");
        // Large ones, which take longer than to be handed over.
        let all: Vec<_> = (0..8).map(|_| vec![snapshot(Resolution::new(2560, 1440))]).collect();
        let taken: Vec<_> = all.into_iter().map(|shown| saver.save(shown)).collect();
        assert!(taken[0].is_ok() && taken.iter().any(|taken| taken.is_err_and(|why| why.contains("still being"))));
        drop(saver);
        let files = fs::read_dir(folder.path()).expect("the folder").count();
        assert_eq!(files, taken.iter().filter(|taken| taken.is_ok()).count());
    }
}
