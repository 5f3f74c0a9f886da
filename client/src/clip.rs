//! The last seconds of the stream that is shown as a file, beside the snapshots: the vehicle keeps them in memory, and a
//! thread of its own fetches them (`/api/clip`), one clip at a time.
//!
//! A file is there as a whole or not at all: until then its name ends in `.part`.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rov_common::capture_clock::Captured;
use rov_common::exif::About;
use rov_common::priority;
use rov_common::recording::{Bytes, Name};

use crate::snapshot;
use crate::whep::{Api, Clip, WhepError};

/// A server gives no clip that is larger: it has some hundred megabytes of memory for it.
const MOST_BYTES: u64 = 2_000_000_000;
const PIECE: usize = 64 << 10;
/// For the clip that is being fetched at the end of the program; then it is broken off.
const END_LIMIT: Duration = Duration::from_secs(5);
const BREAK_OFF_LIMIT: Duration = Duration::from_millis(500);
/// Files of the same name.
const MOST_ALIKE: u32 = 1000;
/// What a server says at a path that it does not know.
const NO_SUCH_PATH: &str = "there is nothing at this path";

/// Fetches clips into a folder.
#[derive(Debug)]
pub struct Clips {
    folder: PathBuf,
    is_busy: Arc<AtomicBool>,
    /// What is being fetched is broken off.
    stop: Arc<AtomicBool>,
    say: Sender<String>,
    /// What became of them, for the pilot.
    said: Receiver<String>,
}

impl Clips {
    pub fn new(folder: PathBuf) -> Self {
        let (say, said) = channel();
        Self { folder, is_busy: Arc::default(), stop: Arc::default(), say, said }
    }

    /// Begins to fetch the last seconds of a stream; does not wait. Says so, or why not.
    pub fn fetch(&self, api: Api, about: About) -> &'static str {
        if self.is_busy.swap(true, Ordering::AcqRel) {
            return "The clip before is still being fetched";
        }
        let (folder, busy, stop, say) =
            (self.folder.clone(), Arc::clone(&self.is_busy), Arc::clone(&self.stop), self.say.clone());
        let work = move || {
            priority::lower();
            let said = match save(&folder, &api, &about, &stop) {
                Ok(said) => said,
                Err(reason) => {
                    tracing::error!("no clip: {reason}");
                    format!("No clip was saved: {reason}")
                }
            };
            busy.store(false, Ordering::Release);
            // It is told in the log too, whoever is still there.
            let _ = say.send(said);
        };
        match std::thread::Builder::new().name("clip".to_owned()).spawn(work) {
            Ok(_) => "Saving the last seconds...",
            Err(_) => {
                self.is_busy.store(false, Ordering::Release);
                "No clip was saved: there is no thread for it"
            }
        }
    }

    /// What became of the last one, once.
    pub fn news(&self) -> Option<String> {
        self.said.try_iter().last()
    }
}

impl Drop for Clips {
    /// What is nearly there is waited for.
    fn drop(&mut self) {
        for limit in [END_LIMIT, BREAK_OFF_LIMIT] {
            if !self.is_busy.load(Ordering::Acquire) {
                return;
            }
            if self.said.recv_timeout(limit) != Err(RecvTimeoutError::Timeout) {
                return;
            }
            self.stop.store(true, Ordering::Release);
        }
        tracing::warn!("a clip was not fetched whole: its file ends in .part");
    }
}

/// Says what was saved.
fn save(folder: &Path, api: &Api, about: &About, stop: &AtomicBool) -> Result<String, String> {
    let clip = request(api, &about.stream, None).map_err(reason)?;
    let begun =
        clip.captured.unwrap_or_else(|| Captured(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()));
    let seconds = clip.seconds.map(|seconds| format!("{seconds:.0} s, ")).unwrap_or_default();
    make_folder(folder)?;
    let (name, file) = create(folder, &snapshot::label(about), |label| Name::new(begun, label).of_clip())?;
    let bytes = write_into(clip, file, &folder.join(&name), stop)?;
    tracing::info!("clip: {}", folder.join(&name).display());
    let remarks = about.remarks.iter().map(|remark| format!(". {}", remark.trim_end_matches('.'))).collect::<String>();
    Ok(format!("Saved {name}: {seconds}{}{remarks}", Bytes(bytes)))
}

/// Asks a server for a clip of so many seconds, or of as many as it keeps.
pub fn request(api: &Api, stream: &str, seconds: Option<u64>) -> Result<Clip, WhepError> {
    match api.clip(stream, seconds) {
        // It keeps less: all of that.
        Err(WhepError::Refused { status: 422, .. }) if seconds.is_some() => api.clip(stream, None),
        clip => clip,
    }
}

/// Why a server gives none, for people.
pub fn reason(error: WhepError) -> String {
    match error {
        WhepError::Refused { status: 404, reason, .. } if reason == NO_SUCH_PATH => {
            "the server keeps nothing for clips: it is of an earlier version".to_owned()
        }
        WhepError::Refused { reason, .. } => reason,
        error => error.to_string(),
    }
}

pub fn make_folder(folder: &Path) -> Result<(), String> {
    fs::create_dir_all(folder).map_err(|error| format!("{}: cannot make this folder: {error}", folder.display()))
}

/// The part of a file that is not there yet, of the name that goes with this label, or with `-2` and so on: a part keeps
/// its name for it.
pub fn create(folder: &Path, label: &str, name: impl Fn(&str) -> String) -> Result<(String, File), String> {
    for number in 1..=MOST_ALIKE {
        let label = if number == 1 { label.to_owned() } else { format!("{label}-{number}") };
        let name = name(&label);
        let path = folder.join(&name);
        if path.exists() {
            continue;
        }
        match OpenOptions::new().write(true).create_new(true).open(part(&path)) {
            Ok(file) => return Ok((name, file)),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(format!("{}: cannot create: {error}", path.display())),
        }
    }
    Err(format!("{}: there are {MOST_ALIKE} files of this moment", folder.display()))
}

pub fn part(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".part");
    name.into()
}

/// Writes the clip into a file that is not there yet.
pub fn write(clip: Clip, path: &Path, stop: &AtomicBool) -> Result<u64, String> {
    let file = OpenOptions::new().write(true).create_new(true).open(part(path));
    let file = file.map_err(|error| format!("{}: cannot create: {error}", path.display()))?;
    write_into(clip, file, path, stop)
}

/// Writes it into its part, and gives it its name; how many bytes it has.
fn write_into(clip: Clip, file: File, path: &Path, stop: &AtomicBool) -> Result<u64, String> {
    let part = part(path);
    let written = copy(clip, file, stop).and_then(|bytes| {
        let named = fs::rename(&part, path).map(|()| bytes);
        // The name, too, outlasts a power cut.
        path.parent().filter(|_| named.is_ok()).map(snapshot::keep_names);
        named.map_err(|error| format!("{}: cannot rename: {error}", part.display()))
    });
    if written.is_err() {
        let _ = fs::remove_file(&part);
    }
    written
}

fn copy(mut clip: Clip, mut file: File, stop: &AtomicBool) -> Result<u64, String> {
    let cannot_write = |error: std::io::Error| match error.kind() {
        ErrorKind::StorageFull => "the disk is full".to_owned(),
        _ => format!("it cannot be written: {error}"),
    };
    let (mut bytes, mut piece) = (0, vec![0; PIECE]);
    loop {
        if stop.load(Ordering::Acquire) {
            return Err("the program ended before it was there".to_owned());
        }
        let read = match clip.body.read(&mut piece) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(format!("it broke off after {}: {error}", Bytes(bytes))),
        };
        bytes += read as u64;
        if bytes > MOST_BYTES {
            return Err(format!("it is larger than {}", Bytes(MOST_BYTES)));
        }
        file.write_all(&piece[..read]).map_err(cannot_write)?;
    }
    if let Some(expected) = clip.bytes.filter(|expected| *expected != bytes) {
        return Err(format!("it broke off after {} of {}", Bytes(bytes), Bytes(expected)));
    }
    file.sync_all().map_err(cannot_write)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clip(body: &'static [u8], bytes: Option<u64>) -> Clip {
        Clip { captured: None, seconds: None, bytes, body: Box::new(body) }
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).expect("the folder");
        let mut names: Vec<_> =
            entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_clip_is_there_as_a_whole_or_not_at_all_and_overwrites_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let begun = Captured(Duration::from_millis(1_700_000_000_012));
        let save = |body, bytes, stop: bool| {
            let (name, file) = create(folder.path(), "Nemo bow", |label| Name::new(begun, label).of_clip())?;
            write_into(clip(body, bytes), file, &folder.path().join(name), &AtomicBool::new(stop))
        };
        assert_eq!(save(b"whole", Some(5), false), Ok(5));
        assert_eq!(save(b"of unknown length", None, false), Ok(17));
        assert_eq!(save(b"half", Some(8), false), Err("it broke off after 4 B of 8 B".to_owned()));
        assert!(save(b"whole", Some(5), true).is_err_and(|why| why.contains("ended before")));
        let saved = ["Nemo-bow-2.mp4", "Nemo-bow.mp4"].map(|name| format!("clip_2023-11-14_22-13-20.012Z_{name}"));
        assert_eq!(names(folder.path()), saved, "nothing else is left");
        assert_eq!(fs::read(folder.path().join(&saved[1])).expect("the first"), b"whole");
    }

    #[test]
    fn what_is_saved_says_what_is_wrong_with_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let server = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let stats = format!("http://{}/api/stats", server.local_addr().expect("its address")).parse().expect("a URL");
        let serving = std::thread::spawn(move || {
            let (mut client, _) = server.accept().expect("a client");
            let mut asked = Vec::new();
            while !asked.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                client.read_exact(&mut byte).expect("a request");
                asked.push(byte[0]);
            }
            let head = "HTTP/1.1 200 OK\r\nContent-Type: video/mp4\r\nX-Timestamp: 1700000000.012\r\n\
                        X-Content-Duration: 30.4\r\nContent-Length: 4\r\nConnection: close\r\n\r\nclip";
            client.write_all(head.as_bytes()).expect("answered");
        });
        let api = Api { stats, http: crate::whep::Http::default(), id: String::new() };
        let about = About {
            taken: Captured(Duration::ZERO),
            vehicle: "Nemo".to_owned(),
            camera: "bow".to_owned(),
            stream: "stream1".to_owned(),
            position: rov_common::exif::Position::default(),
            remarks: vec!["The camera is frozen: no motion.".to_owned()],
        };
        let said = save(folder.path(), &api, &about, &AtomicBool::new(false)).expect("a clip");
        serving.join().expect("served");
        let name = "clip_2023-11-14_22-13-20.012Z_Nemo_bow_stream1.mp4";
        assert_eq!(said, format!("Saved {name}: 30 s, 4 B. The camera is frozen: no motion"));
    }

    #[test]
    fn where_nothing_can_be_written_the_reason_is_said() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("file");
        fs::write(&file, "").expect("a file");
        assert!(make_folder(&file.join("dive")).is_err_and(|why| why.contains("cannot make this folder")));
        let full = OpenOptions::new().write(true).open("/dev/full");
        if let Ok(full) = full {
            assert_eq!(copy(clip(b"x", None), full, &AtomicBool::new(false)), Err("the disk is full".to_owned()));
        }
    }
}
