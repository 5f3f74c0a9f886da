//! Pictures into an MP4 file that outlasts a power cut: pictures in, bytes out, no I/O.
//!
//! While it is written, a file is fragmented (ISO/IEC 14496-12 section 8.8): each fragment of at most [`FRAGMENT`] can
//! be played once it is on the disk, whatever becomes of the next. At a proper end one index of all pictures is put
//! behind them, and the fragments become the inside of one `mdat`: then it is an ordinary file, in which every player
//! seeks at once. Until the few bytes that cover the fragments are written, it is still the fragmented one.
//!
//! Before each fragment stands when its first picture was captured (`prft`, section 8.16.5). Pictures stay as they are,
//! with their parameter sets in band, but for the start codes of Annex B, in whose place are lengths; those of MJPEG
//! stay as they are. They are in decoding order, which is also that of presentation.

mod boxes;
mod clip;
mod format;
#[cfg(test)]
pub(crate) mod tests;

use std::time::Duration;

use bytes::Bytes;

pub use self::clip::Clip;
pub use self::format::{Format, Unrecordable};
use crate::api::ClockSource;
use crate::capture_clock::Captured;
use crate::codec::{Codec, nal_units};

/// Ticks per second of all times in a file: those of RTP, so that no time is rounded.
pub const TIMESCALE: u32 = 90_000;
/// The longest that pictures of one fragment last: what a power cut takes, with what was being written.
pub const FRAGMENT: Duration = Duration::from_millis(500);
/// The longest that a picture is shown until another one is known to come: what players would stand still for.
const LAST_SHOWN: u32 = TIMESCALE / 30;

/// One coded picture.
#[derive(Clone, Debug)]
pub struct Picture {
    /// Annex B, of MJPEG a JPEG picture. A keyframe carries its parameter sets.
    pub unit: Bytes,
    /// By any clock, which need not begin at zero.
    pub time: Duration,
    /// None where that is not known.
    pub captured: Option<Captured>,
    pub keyframe: bool,
}

/// When a file begins, as it says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Created {
    pub at: Captured,
    /// By whose clock. None: nothing is said.
    pub clock: Option<ClockSource>,
}

/// What ends a file: `index` behind all that was given before; and once that is on the disk, `cover` at `cover_at`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ending {
    pub index: Vec<u8>,
    pub cover: [u8; boxes::COVER],
    pub cover_at: u64,
}

/// Of one file. What it gives belongs behind what it gave before.
#[derive(Debug)]
pub struct Muxer {
    format: Format,
    /// Of the picture that the file begins with.
    begun: Duration,
    created: Option<Created>,
    /// Of what was given so far.
    length: u64,
    fragments: u32,
    /// Those that were given.
    samples: Vec<Sample>,
    /// Of what [`Self::written`] was said: samples, and length.
    written: (usize, u64),
    open: Open,
}

/// Where a picture lies, and when it is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sample {
    /// Ticks since the file's beginning.
    time: u64,
    offset: u64,
    size: u32,
    keyframe: bool,
}

/// The fragment that is being collected. Offsets are within its data.
#[derive(Debug, Default)]
struct Open {
    samples: Vec<Sample>,
    data: Vec<u8>,
    captured: Option<Captured>,
}

impl Muxer {
    /// A file that begins with this keyframe, which is still to be pushed; and what stands before all pictures.
    /// `clock`: of its time of capture.
    pub fn new(format: Format, first: &Picture, clock: Option<ClockSource>) -> (Self, Vec<u8>) {
        let created = first.captured.map(|at| Created { at, clock });
        let header = boxes::header(&format, created);
        let length = header.len() as u64;
        let muxer = Self {
            format,
            begun: first.time,
            created,
            length,
            fragments: 0,
            samples: Vec::new(),
            written: (0, 0),
            open: Open::default(),
        };
        (muxer, header)
    }

    /// What its pictures are.
    pub fn format(&self) -> &Format {
        &self.format
    }

    /// No picture was given.
    pub fn is_empty(&self) -> bool {
        self.samples.is_empty()
    }

    /// Bytes of the file, once all that was given is written.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Takes a picture; returns the fragment before it, where that is complete. A time that is not behind the last one
    /// is that of a picture that came late: at the end it is in its place.
    pub fn push(&mut self, picture: &Picture) -> Option<Vec<u8>> {
        let time = ticks(picture.time.saturating_sub(self.begun));
        let is_over = match (self.open.samples.first(), self.open.samples.last()) {
            // Players seek to where a fragment begins; where all pictures are keyframes, each is no fragment of its
            // own.
            (Some(first), Some(last)) if time > last.time => {
                time - first.time >= ticks(if picture.keyframe { FRAGMENT / 2 } else { FRAGMENT })
            }
            (_, last) => last.is_some(),
        };
        let fragment = if is_over { self.close(Some(time)) } else { None };
        let offset = self.open.data.len();
        put_sample(self.format.codec(), &picture.unit, &mut self.open.data);
        let size = (self.open.data.len() - offset) as u32;
        if self.open.samples.is_empty() {
            self.open.captured = picture.captured;
        }
        self.open.samples.push(Sample { time, offset: offset as u64, size, keyframe: picture.keyframe });
        fragment
    }

    /// The fragment of the pictures that were pushed last, if there are any.
    pub fn flush(&mut self) -> Option<Vec<u8>> {
        self.close(None)
    }

    /// Takes a picture that belongs between others that were given. It lies where players of the fragments read
    /// nothing, as they could decode nothing behind it; the index has it in its place.
    pub fn late(&mut self, picture: &Picture) -> Vec<u8> {
        let mut out = vec![0; boxes::BOX_HEADER];
        put_sample(self.format.codec(), &picture.unit, &mut out);
        let length = out.len();
        out[..4].copy_from_slice(&(length as u32).to_be_bytes());
        out[4..boxes::BOX_HEADER].copy_from_slice(b"free");
        let offset = self.length + boxes::BOX_HEADER as u64;
        let size = (length - boxes::BOX_HEADER) as u32;
        let time = ticks(picture.time.saturating_sub(self.begun));
        self.samples.push(Sample { time, offset, size, keyframe: picture.keyframe });
        self.length += length as u64;
        out
    }

    /// All that was given is in the file.
    pub fn written(&mut self) {
        self.written = (self.samples.len(), self.length);
    }

    /// What was given since [`Self::written`] is not in the file, and will not be; nor will what was pushed since. The
    /// file is so long.
    pub fn take_back(&mut self) -> u64 {
        self.samples.truncate(self.written.0);
        self.length = self.written.1;
        self.open = Open::default();
        self.length
    }

    /// The end of the file. What was pushed since [`Self::flush`] is not in it.
    pub fn finish(mut self) -> Ending {
        // Those that came late.
        self.samples.sort_by_key(|sample| sample.time);
        boxes::ending(&self.format, self.created, &self.samples, self.length)
    }

    /// `next`: when the picture behind it is shown.
    fn close(&mut self, next: Option<u64>) -> Option<Vec<u8>> {
        let Open { samples, data, captured } = std::mem::take(&mut self.open);
        samples.first()?;
        self.fragments += 1;
        let (mut fragment, data_at) = boxes::fragment(self.fragments, &samples, next, captured, data.len());
        fragment.extend_from_slice(&data);
        let offset = self.length + data_at as u64;
        self.samples.extend(samples.iter().map(|sample| Sample { offset: offset + sample.offset, ..*sample }));
        self.length += fragment.len() as u64;
        Some(fragment)
    }
}

/// As pictures are in files: lengths in the place of start codes, where there are any.
fn put_sample(codec: Codec, unit: &[u8], out: &mut Vec<u8>) {
    if codec == Codec::Mjpeg {
        out.extend_from_slice(unit);
        return;
    }
    for nal in nal_units(unit) {
        out.extend_from_slice(&(nal.len() as u32).to_be_bytes());
        out.extend_from_slice(nal);
    }
}

/// Bytes that [`put_sample`] writes.
fn sample_len(codec: Codec, unit: &[u8]) -> usize {
    match codec {
        Codec::H264 | Codec::H265 => nal_units(unit).map(|nal| nal.len() + 4).sum(),
        Codec::Mjpeg => unit.len(),
    }
}

/// How long each is shown: until the next, the last one until `next`, where that is not known a usual time.
fn durations(samples: &[Sample], next: Option<u64>) -> impl Iterator<Item = u32> {
    let last = samples.last().map(|last| {
        let known = next.filter(|next| *next > last.time);
        known.unwrap_or(last.time + u64::from(LAST_SHOWN))
    });
    let ends = samples.iter().skip(1).map(|sample| sample.time).chain(last);
    samples.iter().zip(ends).map(|(sample, end)| u32::try_from(end - sample.time).unwrap_or(u32::MAX))
}

fn ticks(time: Duration) -> u64 {
    // Rounded, as times that were made of ticks come a nanosecond short of them.
    let ticks = (time.as_nanos() * u128::from(TIMESCALE) + 500_000_000) / 1_000_000_000;
    u64::try_from(ticks).unwrap_or(u64::MAX)
}
