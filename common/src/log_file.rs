//! A file for the log that has a limit: when it is full it becomes `FILE.1`, that becomes `FILE.2`, and so on; the
//! oldest is removed. One that cannot be renamed begins anew.
//!
//! What cannot be written is lost; the file is opened anew for the next line. The first failure of a row is told, which
//! is to be read elsewhere.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// The file itself and those before it.
const FILES: usize = 5;
/// The size of one, unless told otherwise.
const MIB: u16 = 10;

#[derive(Debug)]
pub struct LogFile {
    path: PathBuf,
    /// Bytes of one file.
    limit: u64,
    /// With its length.
    open: Option<(File, u64)>,
    failing: bool,
}

impl LogFile {
    /// Opens nothing yet. `mib` is the size of one file; none: 10.
    #[must_use]
    pub fn new(path: &Path, mib: Option<u16>) -> Self {
        Self::limited(path, u64::from(mib.unwrap_or(MIB).max(1)) << 20)
    }

    fn limited(path: &Path, limit: u64) -> Self {
        Self { path: path.to_owned(), limit, open: None, failing: false }
    }

    fn try_write(&mut self, text: &[u8]) -> io::Result<()> {
        let there = fs::metadata(&self.path).ok().map(|found| found.len());
        if there.is_some_and(|length| length > 0 && length + text.len() as u64 > self.limit) {
            self.open = None;
            if self.make_older().is_err() {
                // In a folder that may not be written, or as a file that is mounted: the newest lines are worth most.
                OpenOptions::new().write(true).truncate(true).open(&self.path)?;
            }
        }
        // Somebody may have removed or emptied it.
        let open = self.open.take().filter(|(_, length)| there == Some(*length));
        let (mut file, length) = open.map_or_else(|| self.opened(), Ok)?;
        let written = file.write_all(text);
        if written.is_err() {
            // The beginning of a line would be taken for one with the next.
            let _ = file.set_len(length);
        }
        written?;
        self.open = Some((file, length + text.len() as u64));
        Ok(())
    }

    fn opened(&self) -> io::Result<(File, u64)> {
        let file = OpenOptions::new().create(true).append(true).open(&self.path)?;
        let length = file.metadata()?.len();
        Ok((file, length))
    }

    fn make_older(&self) -> io::Result<()> {
        for age in (1..FILES - 1).rev() {
            let (newer, older) = (self.older(age), self.older(age + 1));
            if newer.exists() {
                fs::rename(newer, older)?;
            }
        }
        fs::rename(&self.path, self.older(1))
    }

    fn older(&self, age: usize) -> PathBuf {
        let mut name = OsString::from(&self.path);
        name.push(format!(".{age}"));
        name.into()
    }
}

impl Write for LogFile {
    /// All of it or nothing: lines stay whole.
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        let written = self.try_write(text);
        let was_failing = std::mem::replace(&mut self.failing, written.is_err());
        if let (Err(error), false) = (&written, was_failing) {
            let file = self.path.display();
            tracing::warn!(%file, "the log file cannot be written ({error}): its lines are lost until it can be");
        }
        written.map(|()| text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    fn texts(path: &Path) -> Vec<Option<String>> {
        let file = LogFile::limited(path, 0);
        let all = std::iter::once(path.to_owned()).chain((1..=FILES).map(|age| file.older(age)));
        all.map(|path| fs::read_to_string(path).ok()).collect()
    }

    #[test]
    fn a_full_file_becomes_an_older_one_and_the_oldest_goes() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("rov.log");
        let mut file = LogFile::limited(&path, 8);
        for number in 0..12 {
            file.write_all(format!("{number:02}.\n").as_bytes()).unwrap();
        }
        let expected = ["10.\n11.\n", "08.\n09.\n", "06.\n07.\n", "04.\n05.\n", "02.\n03.\n"];
        let expected: Vec<_> = expected.iter().map(|text| Some((*text).to_owned())).chain([None]).collect();
        assert_eq!(texts(&path), expected);
        // Another start goes on where that one ended, and a line that is longer than all is not cut.
        let mut file = LogFile::limited(&path, 8);
        file.write_all(b"a line of more\n").unwrap();
        assert_eq!(texts(&path)[..2], [Some("a line of more\n".to_owned()), Some("10.\n11.\n".to_owned())]);
    }

    #[test]
    fn one_that_cannot_be_renamed_begins_anew() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("rov.log");
        // In the way of the oldest.
        fs::create_dir_all(folder.path().join("rov.log.4").join("full")).unwrap();
        fs::write(folder.path().join("rov.log.3"), "old").unwrap();
        let mut file = LogFile::limited(&path, 8);
        for number in 0..3 {
            file.write_all(format!("{number:02}.\n").as_bytes()).unwrap();
        }
        assert_eq!(texts(&path)[0].as_deref(), Some("02.\n"));
    }

    #[test]
    fn a_file_that_cannot_be_written_is_opened_again_for_the_next_line() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("later").join("rov.log");
        let mut file = LogFile::limited(&path, 100);
        assert!(file.write_all(b"lost\n").is_err());
        fs::create_dir(folder.path().join("later")).unwrap();
        file.write_all(b"kept\n").unwrap();
        fs::remove_dir_all(folder.path().join("later")).unwrap();
        assert_eq!(texts(&path)[0], None);
        // What is written into a file that was removed can be read by nobody.
        assert!(file.write_all(b"lost\n").is_err());
        fs::create_dir(folder.path().join("later")).unwrap();
        file.write_all(b"again\n").unwrap();
        assert_eq!(texts(&path)[0].as_deref(), Some("again\n"));
    }
}
