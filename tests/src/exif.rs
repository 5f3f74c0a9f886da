//! EXIF of a JPEG or PNG, as exiftool reads it, which others wrote.

use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::process::program;

/// All tags by their names, numbers as such; what it finds wrong fails the test.
pub fn read(picture: &[u8]) -> Value {
    let mut command = Command::new(program("exiftool", "libimage-exiftool-perl"));
    command.args(["-json", "-n", "-"]);
    let mut exiftool = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("exiftool starts");
    // It reads all of the picture before it writes, or no more than it needs.
    let _ = exiftool.stdin.take().expect("a pipe").write_all(picture);
    let output = exiftool.wait_with_output().expect("exiftool ends").stdout;
    let Ok(Value::Array(mut all)) = serde_json::from_slice(&output) else {
        panic!("exiftool: {}", String::from_utf8_lossy(&output))
    };
    let tags = all.remove(0);
    assert!(tags.get("Error").is_none() && tags.get("Warning").is_none(), "{tags}");
    tags
}

/// The time of capture, in microseconds since 1970.
pub fn taken_us(tags: &Value) -> u64 {
    assert_eq!(tags["OffsetTimeOriginal"], "+00:00", "{tags}");
    let text = |name: &str| tags[name].as_str().map_or_else(|| tags[name].to_string(), str::to_owned);
    let (day, of_day) = tags["DateTimeOriginal"].as_str().and_then(|text| text.split_once(' ')).expect("a time");
    let time = format!("{} {of_day}", day.replace(':', "-"));
    let date = Command::new("date").args(["-u", "-d", &time, "+%s"]).output().expect("date starts").stdout;
    let seconds: u64 = String::from_utf8_lossy(&date).trim().parse().expect("seconds");
    // Digits of the fraction, as many as are known.
    let micros: u64 = format!("{:0<6}", text("SubSecTimeOriginal")).parse().expect("digits");
    seconds * 1_000_000 + micros
}
