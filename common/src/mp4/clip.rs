//! A file of pictures that are in memory: its index comes first, so that it can be played while it is still on its way,
//! and the pictures are given one by one, so that there is never a second copy of all of them.

use super::{Created, Format, Picture, Sample, Unrecordable, boxes, durations, put_sample, sample_len, ticks};
use crate::capture_clock::Captured;
use crate::codec::Codec;

/// Pictures as they become a file.
#[derive(Debug)]
pub struct Clip {
    /// What stands before the pictures.
    pub header: Vec<u8>,
    /// Of the whole file.
    pub length: u64,
    /// Of the first picture.
    pub captured: Option<Captured>,
    pub seconds: f64,
    pub pictures: Vec<Picture>,
}

impl Clip {
    /// Of one picture at least, each behind the one before, the first one a keyframe. Where what they are changes, as
    /// their size, the newest that are alike are taken: a file has one format. `title`: what players are to say of it.
    ///
    /// # Errors
    /// Where the newest keyframe is not understood.
    pub fn new(codec: Codec, mut pictures: Vec<Picture>, title: Option<&str>) -> Result<Self, Unrecordable> {
        if codec == Codec::Mjpeg {
            pictures = without_damaged(pictures);
        }
        let keyframes = pictures.iter().enumerate().rev().filter(|(_, picture)| picture.keyframe);
        let mut newest = None;
        for (at, keyframe) in keyframes {
            let format = Format::of(codec, &keyframe.unit);
            match &newest {
                None => newest = Some((at, format?)),
                Some((_, like)) if format.as_ref() == Ok(like) => newest = format.ok().map(|format| (at, format)),
                Some(_) => break,
            }
        }
        let (first, format) = newest.ok_or(Unrecordable::NoParameterSets)?;
        pictures.drain(..first);
        let (begun, captured) = (pictures[0].time, pictures[0].captured);
        let mut data = 0;
        let samples = pictures.iter().map(|picture| {
            let size = sample_len(codec, &picture.unit);
            let time = ticks(picture.time.saturating_sub(begun));
            let sample = Sample { time, offset: data, size: size as u32, keyframe: picture.keyframe };
            data += size as u64;
            sample
        });
        let samples: Vec<_> = samples.collect();
        let created = captured.map(|at| Created { at, clock: None });
        let header = boxes::whole(&format, (created, title), &samples, data);
        let lasted = durations(&samples, None).map(u64::from).sum::<u64>();
        let seconds = lasted as f64 / f64::from(super::TIMESCALE);
        Ok(Self { length: header.len() as u64 + data, header, captured, seconds, pictures })
    }

    /// As it stands in the file, behind the header and the pictures before it.
    pub fn sample(codec: Codec, picture: &Picture) -> Vec<u8> {
        let mut out = Vec::with_capacity(picture.unit.len() + 16);
        put_sample(codec, &picture.unit, &mut out);
        out
    }
}

/// Of pictures that stand for themselves a damaged one is left out, where others are not; also one that is like none of
/// the four nearest, as one whose size is damaged.
fn without_damaged(pictures: Vec<Picture>) -> Vec<Picture> {
    let format = |picture: &Picture| Format::of(Codec::Mjpeg, &picture.unit).ok();
    let whole: Vec<_> = pictures.iter().filter_map(|picture| Some((format(picture)?, picture))).collect();
    let has_alike = |at: usize| {
        let near = at.saturating_sub(2)..(at + 3).min(whole.len());
        near.filter(|other| *other != at).any(|other| whole[other].0 == whole[at].0)
    };
    let mut kept: Vec<_> = (0..whole.len()).filter(|at| has_alike(*at)).map(|at| whole[at].1.clone()).collect();
    if kept.is_empty() {
        kept = whole.into_iter().map(|(_, picture)| picture.clone()).collect();
    }
    if kept.is_empty() { pictures } else { kept }
}
