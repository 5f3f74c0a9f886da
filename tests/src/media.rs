//! Real video files, made by ffmpeg: a test picture by x264. And the marks of the pictures in those that other programs
//! make.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use rov_common::stamp::{self, Stamp};

use crate::process::program;
use crate::watcher::Shot;

/// What is in a file.
#[derive(Clone, Copy, Debug)]
pub struct Clip<'a> {
    /// A source of ffmpeg.
    pub pattern: &'a str,
    pub size: &'a str,
    pub fps: u32,
    pub seconds: u32,
    pub b_frames: u32,
    /// Pictures from one keyframe to the next.
    pub gop: u32,
    pub audio: bool,
}

impl Default for Clip<'_> {
    fn default() -> Self {
        Self { pattern: "testsrc2", size: "640x360", fps: 25, seconds: 2, b_frames: 0, gop: 25, audio: true }
    }
}

impl Clip<'_> {
    /// Writes the file; its name says which container it is.
    pub fn write(&self, file: &Path) {
        let output =
            self.command(file.to_str().expect("a path of plain characters"), &[]).output().expect("ffmpeg starts");
        assert!(output.status.success(), "ffmpeg: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// An ffmpeg that gives the video as Annex B on its standard output, as a camera would: at the speed of life.
    pub fn annex_b_command(&self) -> Command {
        let clip = Self { audio: false, ..*self };
        let mut command = clip.command("-", &["-f", "h264"]);
        command.stdout(Stdio::piped());
        command
    }

    fn command(&self, output: &str, format: &[&str]) -> Command {
        let mut command = Command::new(program("ffmpeg", "ffmpeg"));
        command.args(["-hide_banner", "-loglevel", "error", "-nostdin", "-y"]);
        if output == "-" {
            command.arg("-re");
        }
        let seconds = self.seconds.to_string();
        command.args(["-f", "lavfi", "-i", &format!("{}=size={}:rate={}", self.pattern, self.size, self.fps)]);
        if self.audio {
            command.args(["-f", "lavfi", "-i", "sine=frequency=440", "-c:a", "aac", "-b:a", "64k"]);
        }
        command.args(["-t", &seconds, "-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p"]);
        // One thread: frame threads would hold back the last pictures of a pipe.
        command.args(["-threads", "1", "-bf", &self.b_frames.to_string(), "-g", &self.gop.to_string()]);
        command.args(["-keyint_min", &self.gop.to_string(), "-sc_threshold", "0"]);
        if self.b_frames == 0 {
            command.args(["-tune", "zerolatency"]);
        }
        command.args(format).arg(output).stdin(Stdio::null()).stderr(Stdio::piped());
        command
    }
}

/// The marks that can be read in the pictures of a file, or of what else `input` tells ffmpeg to read, brought to one
/// size. The file may still be written to. Of a picture that is repeated it is there once.
pub fn marks(input: &[&str], width: usize, height: usize) -> Vec<Stamp> {
    let mut command = Command::new(program("ffmpeg", "ffmpeg"));
    command.args(["-hide_banner", "-loglevel", "quiet", "-nostdin"]).args(input);
    command.args(["-an", "-s", &format!("{width}x{height}"), "-pix_fmt", "gray", "-f", "rawvideo", "-"]);
    let output = command.output().expect("ffmpeg starts");
    let pictures = output.stdout.chunks_exact(width * height);
    let mut marks: Vec<_> = pictures.filter_map(|luma| stamp::read_luma(luma, width, width, height)).collect();
    marks.dedup();
    marks
}

/// Whether each was made after the one before it.
pub fn is_in_order(marks: &[Stamp]) -> bool {
    marks.windows(2).all(|two| two[0].frame < two[1].frame)
}

/// Unix time in microseconds, as marks have it.
pub fn unix_us() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970").as_micros() as u64
}

/// Whether a picture that is due when it is captured was drawn then, so many seconds later. A busy machine draws some
/// late.
pub fn is_in_time(late: f64) -> bool {
    late.abs() < 0.005
}

/// A picture of a test source.
#[derive(Clone, Copy, Debug)]
pub struct Timed {
    /// In its mark.
    pub frame: u32,
    /// In seconds since 1970.
    pub captured: f64,
    /// When its mark was drawn.
    pub drawn: f64,
}

impl Timed {
    /// Of one that was watched by WebRTC.
    pub fn of(shot: &Shot) -> Self {
        let (captured, drawn) = (shot.captured.expect("a time of capture"), shot.drawn.expect("a mark"));
        let frame = shot.frame.expect("a mark");
        Self { frame, captured: captured.as_secs_f64(), drawn: drawn.as_secs_f64() }
    }

    /// Seconds from its time of capture to its drawing.
    pub fn late(&self) -> f64 {
        self.drawn - self.captured
    }
}

/// Sees that pictures of a test source have times of their own, whole intervals apart, and that they were not drawn
/// before they were captured. Where a busy machine draws one more than two intervals late, it is captured when it is
/// drawn. A player that gets a report of the sender while it is busy may take one time some milliseconds wrongly.
pub fn assert_each_has_its_time(pictures: &[Timed], interval: f64) {
    let begin = |picture: &Timed| picture.captured / interval - f64::from(picture.frame);
    let is_whole = |intervals: f64| (intervals - intervals.round()).abs() < 0.1;
    let of_schedule = |first: f64| pictures.iter().filter(|picture| is_whole(begin(picture) - first)).count();
    let first = pictures.iter().map(begin).max_by_key(|first| of_schedule(*first)).expect("pictures");
    let has_its_time = |picture: &&Timed| {
        let behind = begin(picture) - first;
        is_whole(behind) || behind > 1.9 && is_in_time(picture.late())
    };
    let odd: Vec<_> = pictures.iter().filter(|picture| !has_its_time(picture)).collect();
    assert!(odd.len() <= pictures.len() / 10, "{odd:?} of {pictures:?}");
    let disordered = pictures.windows(2).filter(|two| two[0].captured >= two[1].captured).count();
    assert!(disordered <= pictures.len() / 10, "{pictures:?}");
    let before = pictures.iter().filter(|picture| picture.late() < -0.005).count();
    assert!(before <= pictures.len() / 10, "{pictures:?}");
}
