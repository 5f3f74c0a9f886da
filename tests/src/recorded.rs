//! Recordings of rov-server and rov-client, as their tables of times and ffprobe have them.

use std::path::{Path, PathBuf};
use std::process::Command;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::process::program;

/// A picture, by the table of times.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// From the file's beginning.
    pub seconds: f64,
    /// Microseconds since 1970; none where that is not known.
    pub captured: Option<u64>,
    /// Pictures that are known to be missing before it.
    pub missing: u64,
}

/// The videos in a folder, in the order of their names, which is that of time.
pub fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("a folder");
    let all = entries.map(|entry| entry.expect("an entry").path());
    let mut files: Vec<_> = all.filter(|path| path.extension().is_some_and(|extension| extension == "mp4")).collect();
    files.sort();
    files
}

/// The table of times beside a video.
pub fn table(file: &Path) -> Vec<Row> {
    let text = std::fs::read_to_string(file.with_extension("csv")).expect("the table of times");
    let row = |(number, line): (usize, &str)| {
        let fields: Vec<_> = line.split(',').collect();
        assert_eq!(fields[0], (number + 1).to_string(), "{line}");
        let captured = (!fields[2].is_empty()).then(|| {
            let at = OffsetDateTime::parse(fields[2], &Rfc3339).expect("a time");
            (at.unix_timestamp_nanos() / 1000) as u64
        });
        Row { seconds: fields[1].parse().expect("seconds"), captured, missing: fields[4].parse().expect("a count") }
    };
    text.lines().skip(1).enumerate().map(row).collect()
}

/// When each picture is shown, as ffprobe finds it in the video.
pub fn packets(file: &Path) -> Vec<f64> {
    let mut command = Command::new(program("ffprobe", "ffmpeg"));
    command.args(["-v", "error", "-show_entries", "packet=pts_time", "-of", "csv=p=0"]).arg(file);
    let output = command.output().expect("ffprobe starts");
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().map(|line| line.trim_end_matches(',').parse().expect("a time")).collect()
}
