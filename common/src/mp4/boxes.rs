//! The boxes of a file, ISO/IEC 14496-12.

use mp4_atom::{
    Co64, Dinf, Dref, DrefEntry, Encode, FourCC, Ftyp, Hdlr, Ilst, IlstData, IlstDataValue, KeyEntry, Keys, Mdhd, Mdia,
    Meta, Mfhd, Minf, Moof, Moov, Mvex, Mvhd, Prft, ReferenceTime, Stbl, Stsc, StscEntry, Stsd, Stss, Stsz,
    StszSamples, Stts, SttsEntry, Tfdt, Tfhd, Tkhd, Traf, Trak, Trex, Trun, TrunEntry, TrunSamples, Url, Vmhd,
};

use super::format::Format;
use super::{Created, Ending, Sample, TIMESCALE, durations};
use crate::capture_clock::Captured;
use crate::recording::rfc3339;

const TRACK: u32 = 1;
/// From 1904, where the times in headers begin, to 1970.
const EPOCH: u64 = 2_082_844_800;
/// The header of an `mdat` whose size has 64 bits.
pub const COVER: usize = 16;
const CREATION_DATE: &str = "com.apple.quicktime.creationdate";
const TITLE: &str = "title";
/// By whose clock it was captured then.
const CLOCK: &str = "clock";
pub const BOX_HEADER: usize = 8;
/// Of samples (section 8.8.3.1): one depends on no other; or it does, and is no place to begin at.
const KEYFRAME: u32 = 0x0200_0000;
const OTHER: u32 = 0x0101_0000;

/// When the first picture was captured, and what players are to say of the file.
type About<'a> = (Option<Created>, Option<&'a str>);

/// What stands before all pictures: what the file is, room for what covers them in the end, and what they are.
pub fn header(format: &Format, created: Option<Created>) -> Vec<u8> {
    let mut out = encoded(&file_type());
    let room = [&(COVER as u32).to_be_bytes()[..], b"free", &[0; COVER - BOX_HEADER]].concat();
    out.extend_from_slice(&room);
    let trex = Trex { track_id: TRACK, default_sample_description_index: 1, ..Trex::default() };
    let movie = movie(format, (created, None), 0, Stbl::default());
    out.extend(encoded(&Moov { mvex: Some(Mvex { trex: vec![trex], ..Mvex::default() }), ..movie }));
    out
}

/// All of a fragment but the pictures themselves, which come behind it; and how long that is.
pub fn fragment(
    number: u32,
    samples: &[Sample],
    next: Option<u64>,
    captured: Option<Captured>,
    data: usize,
) -> (Vec<u8>, usize) {
    let begun = samples[0].time;
    let reference = captured.map(|captured| Prft {
        reference_track_id: TRACK,
        ntp_timestamp: captured.ntp(),
        media_time: begun,
        utc_time_semantics: ReferenceTime::RealTime,
    });
    let mut out = reference.map_or_else(Vec::new, |reference| encoded(&reference));
    let entries = samples.iter().zip(durations(samples, next)).map(|(sample, duration)| TrunEntry {
        duration: Some(duration),
        size: Some(sample.size),
        flags: Some(if sample.keyframe { KEYFRAME } else { OTHER }),
        ..TrunEntry::default()
    });
    let mut moof = Moof {
        mfhd: Mfhd { sequence_number: number },
        traf: vec![Traf {
            tfhd: Tfhd { track_id: TRACK, default_base_is_moof: true, ..Tfhd::default() },
            tfdt: Some(Tfdt { base_media_decode_time: begun }),
            trun: vec![Trun { data_offset: Some(0), samples: TrunSamples::Explicit(entries.collect()) }],
            ..Traf::default()
        }],
    };
    // From the beginning of the `moof`, whose length does not depend on it.
    let offset = encoded(&moof).len() + BOX_HEADER;
    moof.traf[0].trun[0].data_offset = i32::try_from(offset).ok();
    out.extend(encoded(&moof));
    out.extend_from_slice(&((BOX_HEADER + data) as u32).to_be_bytes());
    out.extend_from_slice(b"mdat");
    let length = out.len();
    (out, length)
}

/// What ends a file of `length` bytes: the samples are in the order of their times.
pub fn ending(format: &Format, created: Option<Created>, samples: &[Sample], length: u64) -> Ending {
    let cover_at = encoded(&file_type()).len() as u64;
    Ending { index: index(format, (created, None), samples), cover: cover(length - cover_at), cover_at }
}

/// What stands before all pictures of a file that is made at once: the samples lie behind it, `data` bytes together.
/// Their offsets are counted from the first.
pub fn whole(format: &Format, about: About<'_>, samples: &[Sample], data: u64) -> Vec<u8> {
    let file_type = encoded(&file_type());
    let begun = (file_type.len() + index(format, about, samples).len() + COVER) as u64;
    let samples: Vec<_> = samples.iter().map(|sample| Sample { offset: begun + sample.offset, ..*sample }).collect();
    [&file_type[..], &index(format, about, &samples), &cover(COVER as u64 + data)].concat()
}

/// The header of an `mdat` that is so long with it.
fn cover(length: u64) -> [u8; COVER] {
    let mut cover = [0; COVER];
    cover[..4].copy_from_slice(&1_u32.to_be_bytes());
    cover[4..8].copy_from_slice(b"mdat");
    cover[8..].copy_from_slice(&length.to_be_bytes());
    cover
}

/// Of all samples, in the order of their times. Its length does not depend on where they lie, only on which of them lie
/// together.
fn index(format: &Format, about: About<'_>, samples: &[Sample]) -> Vec<u8> {
    let (mut times, mut total) = (Vec::<SttsEntry>::new(), 0);
    for duration in durations(samples, None) {
        total += u64::from(duration);
        match times.last_mut().filter(|last| last.sample_delta == duration) {
            Some(last) => last.sample_count += 1,
            None => times.push(SttsEntry { sample_count: 1, sample_delta: duration }),
        }
    }
    // A chunk is what lies together.
    let chunks: Vec<_> = samples.chunk_by(|one, next| one.offset + u64::from(one.size) == next.offset).collect();
    let mut lengths = Vec::<StscEntry>::new();
    for (number, chunk) in (1..).zip(&chunks) {
        let samples_per_chunk = chunk.len() as u32;
        if lengths.last().is_none_or(|last| last.samples_per_chunk != samples_per_chunk) {
            lengths.push(StscEntry { first_chunk: number, samples_per_chunk, sample_description_index: 1 });
        }
    }
    let keyframes = (1..).zip(samples).filter(|(_, sample)| sample.keyframe).map(|(number, _)| number);
    let table = Stbl {
        stts: Stts { entries: times },
        stss: Some(Stss { entries: keyframes.collect() }),
        stsc: Stsc { entries: lengths },
        stsz: Stsz { samples: StszSamples::Different { sizes: samples.iter().map(|sample| sample.size).collect() } },
        co64: Some(Co64 { entries: chunks.iter().map(|chunk| chunk[0].offset).collect() }),
        ..Stbl::default()
    };
    encoded(&movie(format, about, total, table))
}

fn file_type() -> Ftyp {
    let brand = |name: &[u8; 4]| FourCC::new(name);
    Ftyp {
        major_brand: brand(b"iso6"),
        minor_version: 0,
        compatible_brands: [b"iso6", b"isom", b"mp41"].map(brand).into(),
    }
}

/// One track, `duration` ticks long, with this table, to which the sample entry is added.
fn movie(format: &Format, about: About<'_>, duration: u64, table: Stbl) -> Moov {
    let time = about.0.map_or(0, |created| created.at.0.as_secs() + EPOCH);
    let size = format.size();
    Moov {
        mvhd: Mvhd {
            creation_time: time,
            modification_time: time,
            timescale: TIMESCALE,
            duration,
            rate: 1.into(),
            volume: 1.into(),
            next_track_id: TRACK + 1,
            ..Mvhd::default()
        },
        trak: vec![Trak {
            tkhd: Tkhd {
                creation_time: time,
                modification_time: time,
                track_id: TRACK,
                duration,
                enabled: true,
                in_movie: true,
                width: (size.width as u16).into(),
                height: (size.height as u16).into(),
                ..Tkhd::default()
            },
            mdia: Mdia {
                mdhd: Mdhd {
                    creation_time: time,
                    modification_time: time,
                    timescale: TIMESCALE,
                    duration,
                    language: "und".into(),
                },
                hdlr: Hdlr { handler: FourCC::new(b"vide"), name: "VideoHandler".into() },
                minf: Minf {
                    vmhd: Some(Vmhd::default()),
                    dinf: Dinf { dref: Dref { entries: vec![DrefEntry::Url(Url::default())] } },
                    stbl: Stbl { stsd: Stsd { codecs: vec![format.entry.clone()] }, ..table },
                    ..Minf::default()
                },
            },
            ..Trak::default()
        }],
        meta: metadata(about),
        ..Moov::default()
    }
}

/// The time to a microsecond: headers have whole seconds. Players and tools show it, and the title.
fn metadata((created, title): About<'_>) -> Option<Meta> {
    let clock = created.and_then(|created| created.clock).map(|clock| clock.name().to_owned());
    let date = created.map(|created| rfc3339(created.at));
    let known = [(CREATION_DATE, date), (CLOCK, clock), (TITLE, title.map(str::to_owned))];
    let (keys, values): (Vec<_>, Vec<_>) = known.into_iter().filter_map(|(key, value)| Some((key, value?))).unzip();
    if keys.is_empty() {
        return None;
    }
    let key = |name: &str| KeyEntry { key_namespace: FourCC::new(b"mdta"), key_value: name.to_owned() };
    let value = |text| IlstData { country_indicator: 0, language_indicator: 0, value: IlstDataValue::Utf8(text) };
    let mut meta = Meta { hdlr: Hdlr { handler: FourCC::new(b"mdta"), name: String::new() }, items: Vec::new() };
    meta.push(Keys { entries: keys.into_iter().map(key).collect() });
    meta.push(Ilst { mdta: (1..).zip(values.into_iter().map(value)).collect(), ..Ilst::default() });
    Some(meta)
}

fn encoded(it: &impl Encode) -> Vec<u8> {
    let mut out = Vec::new();
    // It fails only where a box is longer than 4 GiB or a count does not fit: the muxer's bounds are far below that.
    it.encode(&mut out).expect("boxes within their bounds");
    out
}
