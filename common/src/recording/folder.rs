//! A folder of recordings: which there are, what is deleted, and how files are written.

use std::collections::{BTreeMap, BTreeSet};
#[cfg(unix)]
use std::fs::TryLockError;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, UNIX_EPOCH};

use super::limits::{Bytes, Measure};
use super::name::{NEW_TIMES, Name, SIDECARS, SUBTITLES, TIMES};
use crate::capture_clock::{CLOCK_SET, Captured};
use crate::sync::lock;

/// Between names of files that begin at the same moment: so many are tried.
const ATTEMPTS: usize = 1_000;

/// Where files lie. Tests have one that is slow, full or broken.
pub trait Disk: Send + Sync {
    /// # Errors
    /// [`ErrorKind::AlreadyExists`] where there is such a file.
    fn create(&self, name: &str) -> io::Result<Box<dyn Output>>;
    /// From its beginning.
    fn open(&self, name: &str) -> io::Result<Box<dyn Read>>;
    /// What is on the disk takes the place of another file, which outlasts a power cut.
    fn replace(&self, name: &str, by: &str) -> io::Result<()>;
    /// Bytes that can still be written.
    fn free(&self) -> io::Result<u64>;
    /// In any order.
    fn files(&self) -> io::Result<Vec<Stored>>;
    /// # Errors
    /// [`ErrorKind::ResourceBusy`] where another program is writing it.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Another program is writing it, as far as can be seen.
    fn is_written(&self, _name: &str) -> bool {
        false
    }
}

/// A file that is being written.
pub trait Output: Send {
    /// Behind all that is there.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// What was written is on the disk.
    fn sync(&mut self) -> io::Result<()>;
    fn overwrite(&mut self, at: u64, bytes: &[u8]) -> io::Result<()>;
    /// Cuts off what is behind.
    fn cut(&mut self, length: u64) -> io::Result<()>;
    /// It still has its name: nobody has deleted it or moved it away, as far as can be seen.
    fn is_there(&self) -> bool {
        true
    }
}

/// A file of whatever kind.
#[derive(Clone, Debug)]
pub struct Stored {
    pub name: String,
    pub bytes: u64,
    /// When it was last written, by this machine's clock.
    pub changed: Captured,
}

/// A recording that there is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    pub name: Name,
    pub bytes: u64,
    /// When it was last written, by this machine's clock.
    pub changed: Captured,
    /// It is being written.
    pub is_open: bool,
    /// With what the vehicle measured.
    pub has_subtitles: bool,
}

/// What may be deleted to make room: the oldest of what is more, or older.
pub type Keep = Option<Measure>;

/// Cheap to share; all recorders of a process that write here have the same.
pub struct Folder {
    path: PathBuf,
    disk: Box<dyn Disk>,
    open: Mutex<BTreeSet<Name>>,
    /// What this run of the program began, and when.
    own: Mutex<BTreeMap<Name, Instant>>,
    /// Bytes per second of each stream that is recorded.
    rates: Mutex<BTreeMap<String, f64>>,
}

impl Folder {
    pub fn new(path: &Path) -> Arc<Self> {
        Self::on(path, Box::new(Local { path: path.to_owned(), was_mounted: AtomicBool::new(false) }))
    }

    pub fn on(path: &Path, disk: Box<dyn Disk>) -> Arc<Self> {
        Arc::new(Self {
            path: path.to_owned(),
            disk,
            open: Mutex::default(),
            own: Mutex::default(),
            rates: Mutex::default(),
        })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn free(&self) -> io::Result<u64> {
        self.disk.free()
    }

    /// Of all streams that are recorded here.
    pub(super) fn rate(&self) -> f64 {
        lock(&self.rates).values().sum()
    }

    pub(super) fn set_rate(&self, label: &str, rate: Option<f64>) {
        let mut rates = lock(&self.rates);
        match rate {
            Some(rate) => rates.insert(label.to_owned(), rate),
            None => rates.remove(label),
        };
    }

    /// All recordings, the oldest first.
    pub fn list(&self) -> io::Result<Vec<Found>> {
        let files = self.disk.files()?;
        Ok(self.found(&files))
    }

    /// Of all recordings together.
    pub(super) fn bytes(&self) -> io::Result<u64> {
        let files = self.disk.files()?;
        Ok(files.iter().filter(|file| file.name.parse::<Name>().is_ok()).map(|file| file.bytes).sum())
    }

    fn found(&self, files: &[Stored]) -> Vec<Found> {
        let subtitles = files.iter().filter(|file| file.name.ends_with(SUBTITLES));
        let subtitled: BTreeSet<_> = subtitles.filter_map(|file| Name::of_file(&file.name)).collect();
        let found = |file: &Stored| {
            let name: Name = file.name.parse().ok()?;
            // Not with the mutex locked: the disk may hang.
            let is_open = lock(&self.open).contains(&name);
            let Stored { bytes, changed, .. } = *file;
            let (is_open, has_subtitles) = (is_open || self.disk.is_written(&file.name), subtitled.contains(&name));
            Some(Found { name, bytes, changed, is_open, has_subtitles })
        };
        let mut all: Vec<_> = files.iter().filter_map(found).collect();
        all.sort_by(|one, other| one.name.cmp(&other.name));
        all
    }

    /// Where a recording, or what is beside it, lies. None: of no such name.
    pub fn path_of(&self, file: &str) -> Option<PathBuf> {
        Name::of_file(file).map(|_| self.path.join(file))
    }

    /// Deletes a recording with what is beside it.
    ///
    /// # Errors
    /// [`ErrorKind::ResourceBusy`] where it is being written.
    pub fn remove(&self, name: &Name) -> io::Result<()> {
        if lock(&self.open).contains(name) {
            return Err(io::Error::new(ErrorKind::ResourceBusy, "it is being recorded"));
        }
        self.disk.remove(&name.to_string())?;
        for extension in SIDECARS {
            match self.disk.remove(&name.beside(extension)) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// Deletes the oldest that `keep` does not keep, at `now` of this machine's clock; returns their names. Files of
    /// others are not touched, and what lay beside a recording that is gone goes, too.
    ///
    /// Names have the clock of who captured, which may be wrong or set meanwhile, and this machine's may be as well. So
    /// the age of what this run of the program began is that by its monotonic clock, and it goes last; the others are
    /// as old as both their name and their last change say.
    pub fn prune(&self, keep: Keep, now: Captured) -> io::Result<Vec<Name>> {
        let Some(keep) = keep else { return Ok(Vec::new()) };
        let mut removed = Vec::new();
        let files = self.disk.files()?;
        self.remove_orphans(&files)?;
        let (mut all, own) = (self.found(&files), lock(&self.own).clone());
        all.sort_by_key(|found| (own.get(&found.name).copied(), found.newest()));
        let age = |found: &Found| match own.get(&found.name) {
            Some(begun) => Some(begun.elapsed()),
            None => Some(found.newest()).filter(|newest| *newest >= CLOCK_SET).map(|at| now.0.saturating_sub(at.0)),
        };
        for name in surplus(&all, keep, age) {
            match self.remove(&name) {
                Ok(()) => removed.push(name),
                // By somebody else, or by another recorder; or one has just begun to write it.
                Err(error) if is_others(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(removed)
    }

    /// What lay beside recordings that somebody else has deleted. A recording is there before that.
    fn remove_orphans(&self, files: &[Stored]) -> io::Result<()> {
        let names = || files.iter().map(|file| file.name.as_str());
        let videos: BTreeSet<&str> = names().collect();
        let is_beside = |file: &&str| SIDECARS.iter().any(|extension| file.ends_with(extension));
        for file in names().filter(is_beside) {
            let Some(name) = Name::of_file(file) else { continue };
            if videos.contains(name.to_string().as_str()) || lock(&self.open).contains(&name) {
                continue;
            }
            match self.disk.remove(file) {
                Err(error) if !is_others(&error) => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// A new recording of what begins then, and the table of its times.
    pub(super) fn create(self: &Arc<Self>, begun: Captured, label: &str) -> io::Result<Recording> {
        let mut name = Name::new(begun, label);
        for _ in 0..ATTEMPTS {
            // Before it is there: nobody deletes it.
            if !lock(&self.open).insert(name.clone()) {
                name = name.next();
                continue;
            }
            let created = self.disk.create(&name.to_string());
            if created.is_err() {
                lock(&self.open).remove(&name);
            }
            match created {
                Ok(video) => {
                    lock(&self.own).insert(name.clone(), Instant::now());
                    // Without the table the pictures are worth as much.
                    let times = self.disk.create(&name.beside(TIMES)).ok();
                    return Ok(Recording { name, video, times, subtitles: None, folder: Arc::clone(self) });
                }
                Err(error) if error.kind() == ErrorKind::AlreadyExists => name = name.next(),
                Err(error) => return Err(error),
            }
        }
        Err(io::Error::new(ErrorKind::AlreadyExists, format!("{name} and those behind it exist")))
    }
}

/// Another program has deleted it, or is writing it.
fn is_others(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ResourceBusy)
}

/// What `keep` does not keep of these, which are the oldest first: never one that is being written, or whose age is not
/// known where that counts.
fn surplus(all: &[Found], keep: Measure, age: impl Fn(&Found) -> Option<Duration>) -> Vec<Name> {
    let total: u64 = all.iter().map(|found| found.bytes).sum();
    let mut freed = 0;
    let is_surplus = |found: &&Found| match keep {
        Measure::Bytes(Bytes(most)) => {
            let is_over = total - freed > most;
            freed += found.bytes;
            is_over
        }
        Measure::Time(longest) => age(found).is_some_and(|age| age > longest),
    };
    let closed = all.iter().filter(|found| !found.is_open);
    closed.filter(is_surplus).map(|found| found.name.clone()).collect()
}

impl Found {
    /// When it was made, at the earliest that can be.
    fn newest(&self) -> Captured {
        self.name.begun().max(self.changed)
    }
}

/// A recording that is being written.
pub(super) struct Recording {
    pub name: Name,
    pub video: Box<dyn Output>,
    pub times: Option<Box<dyn Output>>,
    /// None: nothing was measured yet.
    pub subtitles: Option<Box<dyn Output>>,
    folder: Arc<Folder>,
}

impl Recording {
    pub fn begin_subtitles(&mut self) -> io::Result<()> {
        self.subtitles = Some(self.folder.disk.create(&self.name.beside(SUBTITLES))?);
        Ok(())
    }

    /// `write` makes a new table out of the one that is there, whose place it then takes: until then that stays.
    pub fn rewrite_times(
        &self,
        write: impl FnOnce(&mut dyn Read, &mut dyn Output) -> io::Result<()>,
    ) -> io::Result<()> {
        let disk = &self.folder.disk;
        let (there, new) = (self.name.beside(TIMES), self.name.beside(NEW_TIMES));
        let rewritten = (|| {
            let (mut before, mut output) = (disk.open(&there)?, disk.create(&new)?);
            write(&mut *before, &mut *output)?;
            output.sync()
        })();
        let rewritten = rewritten.and_then(|()| disk.replace(&there, &new));
        if rewritten.is_err() {
            // Where that fails too, it goes with the recording.
            let _ = disk.remove(&new);
        }
        rewritten
    }

    /// Deletes it: nothing is in it.
    pub fn discard(self) -> io::Result<()> {
        let (folder, name) = (Arc::clone(&self.folder), self.name.clone());
        drop(self);
        folder.remove(&name)
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        lock(&self.folder.open).remove(&self.name);
    }
}

/// A folder of this machine, which is made where there is none.
struct Local {
    path: PathBuf,
    /// A disk of its own was mounted there.
    was_mounted: AtomicBool,
}

impl Local {
    /// The folder is there, and on the disk where it was: without that, files would fill the disk of the system.
    fn check(&self) -> io::Result<()> {
        // Also of a folder within what is mounted, and before it is made where that is gone.
        let there = self.path.ancestors().find(|folder| folder.exists()).unwrap_or(Path::new("."));
        let is_mounted = device(there)? != device(Path::new("/"))?;
        if self.was_mounted.fetch_or(is_mounted, Ordering::Relaxed) && !is_mounted {
            return Err(io::Error::new(ErrorKind::NotFound, "the disk that was mounted there is gone"));
        }
        fs::create_dir_all(&self.path)
    }

    /// Names, too, outlast a power cut; not every system can do that.
    fn sync_names(&self) {
        let _ = File::open(&self.path).and_then(|folder| folder.sync_all());
    }
}

impl Disk for Local {
    fn create(&self, name: &str) -> io::Result<Box<dyn Output>> {
        self.check()?;
        let path = self.path.join(name);
        let file = OpenOptions::new().write(true).create_new(true).open(&path)?;
        if !hold(&file)? {
            // Another program was just looking at it, or has deleted it: the next name is as good.
            let _ = fs::remove_file(path);
            return Err(ErrorKind::AlreadyExists.into());
        }
        self.sync_names();
        Ok(Box::new(Written { file, path }))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn Read>> {
        Ok(Box::new(File::open(self.path.join(name))?))
    }

    fn replace(&self, name: &str, by: &str) -> io::Result<()> {
        fs::rename(self.path.join(by), self.path.join(name))?;
        self.sync_names();
        Ok(())
    }

    fn free(&self) -> io::Result<u64> {
        self.check()?;
        free(&self.path)
    }

    fn files(&self) -> io::Result<Vec<Stored>> {
        let found = match fs::read_dir(&self.path) {
            // Nothing was recorded yet.
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            found => found?,
        };
        let mut files = Vec::new();
        for entry in found {
            let entry = entry?;
            // One that has just gone is none.
            let Ok(metadata) = entry.metadata() else { continue };
            if let (true, Ok(name)) = (metadata.is_file(), entry.file_name().into_string()) {
                let changed = metadata.modified().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
                files.push(Stored { name, bytes: metadata.len(), changed: Captured(changed.unwrap_or_default()) });
            }
        }
        Ok(files)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let path = self.path.join(name);
        // Locked until it is gone, so that nobody begins to write it meanwhile.
        let Ok(_locked) = look(&path) else {
            return Err(io::Error::new(ErrorKind::ResourceBusy, "another program is recording it"));
        };
        fs::remove_file(path)
    }

    fn is_written(&self, name: &str) -> bool {
        look(&self.path.join(name)).is_err()
    }
}

/// A file of this machine that is being written.
struct Written {
    file: File,
    path: PathBuf,
}

impl Output for Written {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn overwrite(&mut self, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.seek(SeekFrom::Start(at))?;
        self.file.write_all(bytes)?;
        self.file.seek(SeekFrom::End(0)).map(drop)
    }

    fn cut(&mut self, length: u64) -> io::Result<()> {
        self.file.set_len(length)?;
        self.file.seek(SeekFrom::Start(length)).map(drop)
    }

    fn is_there(&self) -> bool {
        // Some network disks keep a link to what is deleted until it is closed, but not under its name. Their numbers
        // of files may change, and say nothing.
        let is_gone = matches!(fs::metadata(&self.path), Err(error) if error.kind() == ErrorKind::NotFound);
        !is_gone && has_name(&self.file)
    }
}

/// Whether any name leads to it.
#[cfg(unix)]
fn has_name(file: &File) -> bool {
    use std::os::unix::fs::MetadataExt;
    file.metadata().is_ok_and(|metadata| metadata.nlink() > 0)
}

/// Other systems do not delete what is open.
#[cfg(not(unix))]
fn has_name(_file: &File) -> bool {
    true
}

/// A recorder locks its file for as long as it writes; programs that delete look at that first. The lock ends with the
/// program, however that ends. False: another program has it. Where a disk knows no locks, it is written without.
#[cfg(unix)]
fn hold(file: &File) -> io::Result<bool> {
    Ok(!matches!(file.try_lock(), Err(TryLockError::WouldBlock)) && has_name(file))
}

/// Others could not read what is locked: on Windows locks are not only for those who ask.
#[cfg(not(unix))]
#[allow(clippy::unnecessary_wraps)]
fn hold(_file: &File) -> io::Result<bool> {
    Ok(true)
}

/// Locks it against recorders; none where that cannot be.
///
/// # Errors
/// A recorder has it.
#[cfg(unix)]
fn look(path: &Path) -> Result<Option<File>, TryLockError> {
    let Ok(file) = File::open(path) else { return Ok(None) };
    match file.try_lock_shared() {
        Err(TryLockError::WouldBlock) => Err(TryLockError::WouldBlock),
        _ => Ok(Some(file)),
    }
}

#[cfg(not(unix))]
#[allow(clippy::unnecessary_wraps)]
fn look(_path: &Path) -> Result<Option<File>, std::fs::TryLockError> {
    Ok(None)
}

/// Of the disk that holds it.
#[cfg(unix)]
fn device(path: &Path) -> io::Result<u64> {
    use std::os::unix::fs::MetadataExt;
    fs::metadata(path).map(|metadata| metadata.dev())
}

/// Other systems do not say.
#[cfg(not(unix))]
fn device(_path: &Path) -> io::Result<u64> {
    Ok(0)
}

/// Bytes that a user may still write where `path` is.
#[cfg(unix)]
fn free(path: &Path) -> io::Result<u64> {
    use std::os::unix::ffi::OsStrExt;
    let path = std::ffi::CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: plain numbers, all zero.
    let mut of: libc::statvfs = unsafe { std::mem::zeroed() };
    // SAFETY: a string that ends in zero, and a place for the answer; both outlast the call.
    if unsafe { libc::statvfs(path.as_ptr(), &raw mut of) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // The types of the fields differ between systems.
    #[allow(clippy::unnecessary_cast)]
    Ok(of.f_bavail as u64 * of.f_frsize as u64)
}

/// What other systems have is not looked at: the write that fails is what ends a recording there.
#[cfg(not(unix))]
fn free(_path: &Path) -> io::Result<u64> {
    Ok(u64::MAX)
}
