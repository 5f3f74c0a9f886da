//! Files in the folder for what outlasts a restart. Vehicles lose their power without warning: whoever reads a file
//! sees the old one or the new one.

use std::fs::{File, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

/// Broken ones of a file.
const MOST_ASIDE: usize = 10;

/// What is in a file; none where there is no file. What is larger than `largest` is none of ours: its beginning alone
/// is read. What is no text has U+FFFD in its place.
pub fn read(file: &Path, largest: u64) -> io::Result<Option<String>> {
    let mut bytes = Vec::new();
    match File::open(file).and_then(|opened| opened.take(largest).read_to_end(&mut bytes)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        read => read.map(|_| Some(String::from_utf8_lossy(&bytes).into_owned())),
    }
}

/// A file of `text`, in a folder that is made if there is none. Nobody else can ever read it.
pub fn write(file: &Path, text: &str) -> io::Result<()> {
    let folder = file.parent().ok_or_else(|| io::Error::other("it has no folder"))?;
    std::fs::create_dir_all(folder)?;
    // Programs that share a folder, which cannot be locked everywhere, do not write into each other's file.
    let new = with_suffix(file, &format!(".{}", std::process::id()));
    let written = write_private(&new, text.as_bytes()).and_then(|()| std::fs::rename(&new, file));
    if written.is_err() {
        let _ = std::fs::remove_file(&new);
    }
    written?;
    // The new name, too, outlasts a power cut; not every system can do that.
    let _ = File::open(folder).and_then(|folder| folder.sync_all());
    Ok(())
}

/// Has no other process claim the file until what this gives is dropped.
///
/// # Errors
/// [`TryLockError::WouldBlock`] where another one has.
pub fn claim(file: &Path) -> Result<File, TryLockError> {
    let make = || {
        let folder = file.parent().ok_or_else(|| io::Error::other("it has no folder"))?;
        std::fs::create_dir_all(folder)?;
        File::create(with_suffix(file, ".lock"))
    };
    let claim = make().map_err(TryLockError::Error)?;
    claim.try_lock()?;
    Ok(claim)
}

/// Gives a broken file another name, which is returned. Those that were set aside before stay, but for the last where
/// there are too many.
pub fn set_aside(file: &Path) -> io::Result<PathBuf> {
    let name = |number: usize| match number {
        1 => with_suffix(file, ".broken"),
        number => with_suffix(file, &format!(".broken{number}")),
    };
    let free = (1..MOST_ASIDE).map(name).find(|aside| !aside.exists());
    let aside = free.unwrap_or_else(|| name(MOST_ASIDE));
    std::fs::rename(file, &aside)?;
    Ok(aside)
}

fn with_suffix(file: &Path, suffix: &str) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// A new file, which nobody else could ever read. What a program that died has left there keeps its mode, and is
/// removed.
fn write_private(file: &Path, data: &[u8]) -> io::Result<()> {
    match std::fs::remove_file(file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut options = File::options();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(file)?;
    file.write_all(data)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_written_as_a_whole_claimed_once_and_set_aside_beside_those_of_before() {
        let folder = std::env::temp_dir().join(format!("rov-state-file-{}", std::process::id()));
        let file = folder.join("below").join("known");
        assert_eq!(read(&file, 10).expect("none"), None);
        for text in ["one", "other"] {
            write(&file, text).expect("written");
            assert_eq!(read(&file, 10).expect("read").as_deref(), Some(text));
        }
        assert_eq!(read(&file, 4).expect("too large").as_deref(), Some("othe"));
        let claimed = claim(&file).expect("free");
        assert!(matches!(claim(&file), Err(TryLockError::WouldBlock)));
        drop(claimed);
        assert!(claim(&file).is_ok());
        let aside = [(); 2].map(|()| {
            write(&file, "broken").expect("written");
            set_aside(&file).expect("another name")
        });
        assert!(aside[0] != aside[1] && aside.iter().all(|aside| aside.exists()) && !file.exists());
        std::fs::remove_dir_all(folder).expect("removed");
    }
}
