//! Files in the folder for what outlasts a restart. Vehicles lose their power without warning: whoever reads a file sees
//! the old one or the new one.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// They have some kilobytes.
const LARGEST: u64 = 64 << 10;
/// Broken ones of a file.
const MOST_ASIDE: usize = 10;

/// What is in a file; none where there is no file. What is too large, or no text, is none of ours.
pub fn read(file: &Path) -> io::Result<Option<String>> {
    match std::fs::metadata(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
        Ok(found) if found.len() > LARGEST => return Ok(Some(String::new())),
        Ok(_) => {}
    }
    std::fs::read(file).map(|bytes| Some(String::from_utf8_lossy(&bytes).into_owned()))
}

/// A file of `text`, in a folder that is made if there is none. Nobody else can ever read it.
pub fn write(file: &Path, text: &str) -> io::Result<()> {
    let folder = file.parent().ok_or_else(|| io::Error::other("it has no folder"))?;
    std::fs::create_dir_all(folder)?;
    // Servers that share a folder, which cannot be locked everywhere, do not write into each other's file.
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

/// A new file, which nobody else could ever read. What a server that died has left there keeps its mode, and is
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
