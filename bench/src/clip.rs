//! The clip that is passed through: 4K at 60 fps of noise, made once by ffmpeg at the bit rate that is wanted.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rov_tests::process::Process;

use crate::point::Point;
use crate::roles::hash_of_unit;
use crate::system::{program, wait_for};

const SECONDS: u32 = 3;
/// A small computer encodes some pictures of this size in a second.
const LIMIT: Duration = Duration::from_secs(300);

pub struct Clip {
    pub file: PathBuf,
    /// Of its access units.
    hashes: HashSet<u64>,
}

impl Clip {
    /// The clip of this size and rate in `folder`, made if it is not there yet.
    pub fn make(point: &Point, folder: &Path) -> Result<Self> {
        let Point { width, height, fps, kbps } = point;
        let file = folder.join(format!("{width}x{height}at{fps}-{kbps}kbps.h264"));
        if !file.exists() {
            std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
            eprintln!("making {} (once)", file.display());
            encode(point, &file)?;
        }
        let data = std::fs::read(&file).with_context(|| file.display().to_string())?;
        let hashes = access_units(&data).map(hash_of_unit).collect();
        Ok(Self { file, hashes })
    }

    pub fn has(&self, hash: u64) -> bool {
        self.hashes.contains(&hash)
    }
}

fn encode(point: &Point, file: &Path) -> Result<()> {
    let Point { width, height, fps, kbps } = point;
    let unfinished = file.with_extension("part");
    let mut command = Command::new(program("ffmpeg")?);
    command.args(["-hide_banner", "-loglevel", "error", "-nostdin", "-y", "-f", "lavfi", "-i"]);
    // Noise, as nothing else needs so many bits; filler makes up for the rest.
    command.arg(format!("testsrc2=size={width}x{height}:rate={fps},noise=alls=30:allf=t"));
    command.args(["-t", &SECONDS.to_string(), "-c:v", "libx264", "-preset", "ultrafast", "-tune", "zerolatency"]);
    command.args(["-pix_fmt", "yuv420p", "-bf", "0", "-g", &fps.to_string(), "-x264-params", "aud=1:nal-hrd=cbr"]);
    command.args(["-b:v", &format!("{kbps}k"), "-maxrate", &format!("{kbps}k")]);
    command.args(["-bufsize", &format!("{}k", kbps / fps * 2), "-f", "h264"]).arg(&unfinished).stdin(Stdio::null());
    let mut ffmpeg = Process::spawn("ffmpeg", &mut command);
    wait_for("ffmpeg encodes the clip", LIMIT, || Ok((!ffmpeg.is_running()).then_some(())))?;
    ensure!(ffmpeg.wait(LIMIT) == 0, "ffmpeg: {}", ffmpeg.stderr());
    std::fs::rename(&unfinished, file).with_context(|| file.display().to_string())
}

/// Cut at the access unit delimiters, which each begins with.
fn access_units(data: &[u8]) -> impl Iterator<Item = &[u8]> {
    const DELIMITER: &[u8] = &[0, 0, 0, 1, 9];
    let starts: Vec<usize> = memchr::memmem::find_iter(data, DELIMITER).collect();
    let ends: Vec<usize> = starts.iter().skip(1).copied().chain([data.len()]).collect();
    starts.into_iter().zip(ends).map(|(start, end)| &data[start..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_cut_at_its_delimiters() {
        let data = [0, 0, 0, 1, 9, 16, 0, 0, 1, 0x65, 7, 7, 0, 0, 0, 1, 9, 48, 0, 0, 1, 0x41, 8];
        let units: Vec<&[u8]> = access_units(&data).collect();
        assert_eq!(units, [&data[..12], &data[12..]]);
        assert_eq!(access_units(&[]).count(), 0);
    }

    #[test]
    fn the_hash_of_a_unit_is_that_of_its_slices() {
        let unit = [0, 0, 0, 1, 9, 16, 0, 0, 0, 1, 0x65, 7, 7];
        // Another form of start code, parameter sets and no delimiter.
        let same = [0, 0, 1, 0x67, 1, 2, 0, 0, 1, 0x68, 3, 0, 0, 1, 0x65, 7, 7];
        assert_eq!(hash_of_unit(&unit), hash_of_unit(&same));
        let other = [0, 0, 1, 0x65, 7, 8];
        assert_ne!(hash_of_unit(&unit), hash_of_unit(&other));
        let two = [0, 0, 1, 0x65, 7, 7, 0, 0, 0, 1, 0x65, 5];
        let two_others = [0, 0, 0, 1, 0x65, 7, 7, 0, 0, 1, 0x65, 5];
        assert_eq!(hash_of_unit(&two), hash_of_unit(&two_others));
    }
}
