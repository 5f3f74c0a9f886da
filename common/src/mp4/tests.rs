//! Files are read again by the crate's decoder: whole, cut off anywhere, and before and after their end.

use std::io::Cursor;

use mp4_atom::{Atom, FourCC, Header, Moof, Moov, Prft, ReadFrom, ReferenceTime};

use super::*;
use crate::codec::Codec;

/// High profile, 1280x720.
const SPS: &[u8] =
    &[103, 100, 0, 31, 172, 217, 128, 80, 5, 187, 1, 106, 2, 2, 2, 128, 0, 0, 3, 0, 128, 0, 0, 30, 7, 140, 24, 205];
const PPS: &[u8] = &[104, 233, 123, 44, 139];
/// x265, 320x240.
const X265: [&str; 3] = [
    "40010c01ffff01600000030090000003000003003cba0240",
    "42010101600000030090000003000003003ca00a080f165ba4a4c2fff000100016a0c0c0c080000003008000000f04",
    "4401c0718312",
];

/// A picture that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Read {
    pub time: u64,
    pub duration: u32,
    pub keyframe: bool,
    /// Of [`picture`]: what stands in its slice behind the header.
    pub number: u32,
}

fn annexb(nals: &[&[u8]]) -> Vec<u8> {
    nals.iter().flat_map(|nal| [&[0, 0, 0, 1][..], nal].concat()).collect()
}

/// Of H.264, at `ms`.
pub(crate) fn picture(number: u32, ms: u64, keyframe: bool) -> Picture {
    let slice = [if keyframe { "e" } else { "A" }, &number.to_string()].concat().into_bytes();
    let unit = if keyframe { annexb(&[SPS, PPS, &slice]) } else { annexb(&[&slice]) };
    Picture {
        unit: unit.into(),
        time: Duration::from_millis(ms),
        captured: Some(Captured(Duration::from_millis(1_700_000_000_000 + ms))),
        keyframe,
    }
}

fn format_of(picture: &Picture) -> Format {
    Format::of(Codec::H264, &picture.unit).expect("parameter sets")
}

fn read(sample: &[u8], time: u64, duration: u32, keyframe: bool) -> Read {
    let (mut rest, mut slice) = (sample, None);
    while let Some((length, behind)) = rest.split_first_chunk() {
        let (nal, next) = behind.split_at(u32::from_be_bytes(*length) as usize);
        slice = slice.or(Some(nal).filter(|nal| Codec::H264.nal_kind(nal).is_slice()));
        rest = next;
    }
    assert!(rest.is_empty(), "lengths of NAL units fill the sample");
    let number = std::str::from_utf8(&slice.expect("a slice")[1..]).expect("digits").parse().expect("a number");
    Read { time, duration, keyframe, number }
}

/// The boxes of a file: kind, where the contents begin, and these. One that is cut off is left out.
fn boxes(file: &[u8]) -> Vec<(FourCC, usize, &[u8])> {
    let (mut all, mut at) = (Vec::new(), 0);
    while at + 8 <= file.len() {
        let mut cursor = Cursor::new(&file[at..]);
        let Ok(header) = Header::read_from(&mut cursor) else { break };
        let begin = at + cursor.position() as usize;
        let end = begin + header.size.expect("a size");
        let Some(contents) = file.get(begin..end) else { break };
        all.push((header.kind, begin, contents));
        at = end;
    }
    all
}

/// All pictures of a file, whether it has its index or not.
pub(crate) fn pictures(file: &[u8]) -> Vec<Read> {
    let all = boxes(file);
    let of = |kind: &'static [u8; 4]| all.iter().filter(move |found| found.0 == FourCC::new(kind));
    let moov = of(b"moov").next_back().expect("what the pictures are").2;
    let moov = Moov::decode_body(&mut Cursor::new(moov)).expect("a moov");
    if moov.mvex.is_some() {
        let complete = of(b"mdat").count();
        return of(b"moof").take(complete).flat_map(|(_, begin, moof)| of_fragment(file, begin - 8, moof)).collect();
    }
    let table = &moov.trak[0].mdia.minf.stbl;
    let times = table.stts.entries.iter().flat_map(|entry| vec![entry.sample_delta; entry.sample_count as usize]);
    let mp4_atom::StszSamples::Different { sizes } = &table.stsz.samples else { panic!("sizes") };
    let keyframes = &table.stss.as_ref().expect("keyframes").entries;
    let chunks = &table.co64.as_ref().expect("chunks").entries;
    let per_chunk = (1..=chunks.len() as u32).map(|number| {
        let entry = table.stsc.entries.iter().rfind(|entry| entry.first_chunk <= number).expect("an entry");
        entry.samples_per_chunk as usize
    });
    let mut offsets = Vec::new();
    for (chunk, count) in chunks.iter().zip(per_chunk) {
        let mut offset = *chunk;
        for size in &sizes[offsets.len()..offsets.len() + count] {
            offsets.push(offset as usize);
            offset += u64::from(*size);
        }
    }
    assert_eq!(offsets.len(), sizes.len());
    let mut time = 0;
    let samples = times.zip(sizes).zip(offsets).enumerate().map(|(index, ((duration, size), offset))| {
        let is_keyframe = keyframes.contains(&(index as u32 + 1));
        let read = read(&file[offset..offset + *size as usize], time, duration, is_keyframe);
        time += u64::from(duration);
        read
    });
    samples.collect()
}

fn of_fragment(file: &[u8], moof_at: usize, moof: &[u8]) -> Vec<Read> {
    let moof = Moof::decode_body(&mut Cursor::new(moof)).expect("a moof");
    let traf = &moof.traf[0];
    assert!(traf.tfhd.default_base_is_moof);
    let mut time = traf.tfdt.as_ref().expect("a time").base_media_decode_time;
    let mut at = moof_at + traf.trun[0].data_offset.expect("an offset") as usize;
    let entries = traf.trun[0].samples.iter().map(|entry| {
        let (duration, size) = (entry.duration.expect("a duration"), entry.size.expect("a size") as usize);
        let read = read(&file[at..at + size], time, duration, entry.flags == Some(0x0200_0000));
        (time, at) = (time + u64::from(duration), at + size);
        read
    });
    entries.collect()
}

/// A file without its end; and the muxer.
fn file_of(all: &[Picture]) -> (Muxer, Vec<u8>) {
    let (mut muxer, mut file) = Muxer::new(format_of(&all[0]), &all[0], None);
    for picture in all {
        file.extend(muxer.push(picture).unwrap_or_default());
    }
    file.extend(muxer.flush().unwrap_or_default());
    assert_eq!(muxer.length(), file.len() as u64);
    (muxer, file)
}

fn ended(muxer: Muxer, mut file: Vec<u8>) -> Vec<u8> {
    let Ending { index, cover, cover_at } = muxer.finish();
    file.extend(index);
    file[cover_at as usize..][..cover.len()].copy_from_slice(&cover);
    file
}

/// 30 fps, with a keyframe each 50 pictures.
fn some(count: u32) -> Vec<Picture> {
    (0..count).map(|number| picture(number, 5_000 + u64::from(number) * 100 / 3, number.is_multiple_of(50))).collect()
}

fn kinds(file: &[u8]) -> Vec<String> {
    boxes(file).iter().map(|(kind, ..)| kind.to_string()).collect()
}

#[test]
fn fragments_hold_all_pictures_as_they_are_and_are_short() {
    let all = some(200);
    let (_, file) = file_of(&all);
    let found = pictures(&file);
    assert_eq!(found.len(), all.len());
    for (number, (read, picture)) in (0..).zip(found.iter().zip(&all)) {
        assert_eq!((read.number, read.keyframe), (number, picture.keyframe));
        assert_eq!(read.time, ticks(picture.time - all[0].time));
    }
    let kinds = kinds(&file);
    assert_eq!(&kinds[..6], ["ftyp", "free", "moov", "prft", "moof", "mdat"]);
    let lasted = 200.0 / 30.0;
    let fragments = kinds.iter().filter(|kind| *kind == "moof").count();
    assert!((fragments as f64) >= lasted / FRAGMENT.as_secs_f64(), "{fragments} fragments");
    assert!((fragments as f64) <= 1.5 * lasted / FRAGMENT.as_secs_f64(), "{fragments} fragments");
}

#[test]
fn a_file_that_is_cut_off_anywhere_has_all_that_was_whole() {
    let all = some(60);
    let (_, file) = file_of(&all);
    let header = boxes(&file)[2].1 + boxes(&file)[2].2.len();
    let mut before = 0;
    for length in header..=file.len() {
        let count = pictures(&file[..length]).len();
        assert!(count >= before);
        before = count;
    }
    assert_eq!(before, all.len());
}

#[test]
fn at_its_end_a_file_is_an_ordinary_one_and_until_then_the_fragmented() {
    let all = some(125);
    let (muxer, file) = file_of(&all);
    let fragmented = pictures(&file);
    let Ending { index, .. } = muxer.finish();
    let before_cover = [&file[..], &index].concat();
    assert!(kinds(&before_cover).contains(&"moof".to_owned()));
    let (muxer, file) = file_of(&all);
    let whole = ended(muxer, file);
    assert_eq!(kinds(&whole), ["ftyp", "mdat", "moov"]);
    let found = pictures(&whole);
    assert_eq!(found, fragmented);
    assert_eq!(found.iter().filter(|read| read.keyframe).count(), 3);
}

#[test]
fn a_gap_stays_one_in_time() {
    let mut all = some(20);
    let late = Duration::from_secs(7);
    all[10..].iter_mut().for_each(|picture| picture.time += late);
    let (muxer, file) = file_of(&all);
    for file in [file.clone(), ended(muxer, file)] {
        let found = pictures(&file);
        assert_eq!(found[10].time - found[9].time, ticks(all[10].time - all[9].time));
    }
}

#[test]
fn pictures_that_come_late_are_in_their_place_at_the_end() {
    let all = some(90);
    let ordered: Vec<_> = all[..30].iter().chain(&all[60..]).chain(&all[30..60]).cloned().collect();
    let (muxer, file) = file_of(&ordered);
    let numbers: Vec<_> = pictures(&ended(muxer, file)).iter().map(|read| (read.number, read.time)).collect();
    let (muxer, file) = file_of(&all);
    let expected: Vec<_> = pictures(&ended(muxer, file)).iter().map(|read| (read.number, read.time)).collect();
    assert_eq!(numbers, expected);
}

#[test]
fn what_did_not_reach_the_disk_is_not_in_the_index() {
    let all = some(60);
    let (mut muxer, mut file) = Muxer::new(format_of(&all[0]), &all[0], None);
    for picture in &all[..30] {
        file.extend(muxer.push(picture).unwrap_or_default());
    }
    file.extend(muxer.flush().unwrap_or_default());
    muxer.written();
    let lost: Vec<_> = all[30..50].iter().filter_map(|picture| muxer.push(picture)).collect();
    assert!(!lost.is_empty());
    assert_eq!(muxer.take_back(), file.len() as u64);
    for picture in &all[50..] {
        file.extend(muxer.push(picture).unwrap_or_default());
    }
    file.extend(muxer.flush().unwrap_or_default());
    let numbers: Vec<_> = pictures(&ended(muxer, file)).iter().map(|read| read.number).collect();
    assert_eq!(numbers, (0..30).chain(50..60).collect::<Vec<_>>());
}

#[test]
fn before_each_fragment_stands_when_it_was_captured() {
    let all = some(60);
    let (_, file) = file_of(&all);
    for (kind, _, contents) in boxes(&file) {
        if kind != FourCC::new(b"prft") {
            continue;
        }
        let prft = Prft::decode_body(&mut Cursor::new(contents)).expect("a time");
        let (captured, time) = (Captured::from_ntp(prft.ntp_timestamp), prft.media_time);
        assert_eq!((prft.reference_track_id, prft.utc_time_semantics), (1, ReferenceTime::RealTime));
        let at = all.iter().find(|picture| ticks(picture.time - all[0].time) == time).expect("a picture");
        assert_eq!(Some(captured), at.captured);
    }
}

#[test]
fn other_pictures_are_another_format_and_other_parameter_sets_are_not() {
    let keyframe = picture(0, 0, true);
    let format = format_of(&keyframe);
    assert_eq!((format.size().width, format.size().height), (1280, 720));
    let other_pps = annexb(&[SPS, &[104, 233, 123, 44, 139, 1], &[0x65, 0x88]]);
    assert_eq!(Format::of(Codec::H264, &other_pps), Ok(format.clone()));
    let bytes = |hex: &str| -> Vec<u8> {
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
    };
    let sets = X265.map(bytes);
    let h265 = annexb(&[&sets[0], &sets[1], &sets[2], &[0x28, 1, 0xac]]);
    let h265 = Format::of(Codec::H265, &h265).expect("parameter sets");
    assert_eq!((h265.size().width, h265.size().height), (320, 240));
    assert_ne!(h265, format);
    assert_eq!(Format::of(Codec::H264, &annexb(&[&[0x65, 0x88]])), Err(Unrecordable::NoParameterSets));
    assert!(matches!(Format::of(Codec::H264, &annexb(&[&[0x67, 1], PPS, &[0x65, 0x88]])), Err(Unrecordable::Sps(_))));
}

#[test]
fn pictures_of_mjpeg_are_in_files_as_they_are() {
    let jpeg: &[u8] = include_bytes!("../../../fuzz/corpus/jpeg/420.jpg");
    let pictures: Vec<_> = (0..3).map(|n| Picture { unit: Bytes::from_static(jpeg), ..picture(n, 33, true) }).collect();
    let format = Format::of(Codec::Mjpeg, jpeg).expect("a JPEG picture");
    assert_eq!(Some(format.size()), crate::codec::jpeg::size(jpeg));
    assert_eq!(Format::of(Codec::Mjpeg, &jpeg[..9]), Err(Unrecordable::NoJpeg));
    let (mut muxer, header) = Muxer::new(format, &pictures[0], None);
    assert!(header.windows(4).any(|kind| kind == b"jpeg"), "the sample entry");
    muxer.push(&pictures[0]);
    assert!(muxer.flush().is_some_and(|fragment| fragment.ends_with(jpeg)));
    assert!(muxer.late(&pictures[1]).ends_with(jpeg));
    let damaged = Picture { unit: Bytes::from_static(&jpeg[..9]), ..picture(3, 33, true) };
    let mut with_damaged = pictures.clone();
    with_damaged.insert(1, damaged.clone());
    with_damaged.push(damaged.clone());
    assert_eq!(Clip::new(Codec::Mjpeg, with_damaged, None).expect("a clip").pictures.len(), 3);
    assert!(matches!(Clip::new(Codec::Mjpeg, vec![damaged], None), Err(Unrecordable::NoJpeg)));
    // Its size is damaged, in the frame header (ITU-T T.81 B.2.2).
    let mut unit = jpeg.to_vec();
    let header = unit.windows(2).position(|marker| marker == [0xff, 0xc0]).expect("a frame header");
    unit[header + 6] ^= 8;
    let of_other_size = Picture { unit: unit.into(), ..picture(3, 33, true) };
    let size = |pictures| Clip::new(Codec::Mjpeg, pictures, None).expect("a clip").pictures.len();
    for at in 0..=pictures.len() {
        let mut with_other_size = pictures.clone();
        with_other_size.insert(at, of_other_size.clone());
        assert_eq!(size(with_other_size), 3, "{at}");
    }
    let clip = Clip::new(Codec::Mjpeg, pictures, None).expect("a clip");
    assert_eq!(clip.length, (clip.header.len() + 3 * jpeg.len()) as u64);
    assert_eq!(Clip::sample(Codec::Mjpeg, &clip.pictures[2]), jpeg);
}

fn clip_file(clip: &Clip) -> Vec<u8> {
    let samples = clip.pictures.iter().flat_map(|picture| Clip::sample(Codec::H264, picture));
    clip.header.iter().copied().chain(samples).collect()
}

#[test]
fn a_clip_is_an_ordinary_file_with_its_index_in_front_and_all_pictures() {
    let all = some(125);
    let clip = Clip::new(Codec::H264, all.clone(), Some("A test picture.")).expect("a clip");
    let file = clip_file(&clip);
    assert_eq!((kinds(&file), file.len() as u64), (["ftyp", "moov", "mdat"].map(str::to_owned).to_vec(), clip.length));
    let (muxer, recorded) = file_of(&all);
    assert_eq!(pictures(&file), pictures(&ended(muxer, recorded)), "as in a recording");
    assert!((clip.seconds - 125.0 / 30.0).abs() < 0.01, "{}", clip.seconds);
    let moov = Moov::decode_body(&mut Cursor::new(boxes(&file)[1].2)).expect("a moov");
    let ilst = moov.meta.as_ref().and_then(|meta| meta.get::<mp4_atom::Ilst>().cloned()).expect("a time of capture");
    let said = mp4_atom::IlstDataValue::Utf8("2023-11-14T22:13:25.000000Z".to_owned());
    let title = mp4_atom::IlstDataValue::Utf8("A test picture.".to_owned());
    let values: Vec<_> = ilst.mdta.iter().map(|(key, data)| (*key, &data.value)).collect();
    assert_eq!(values, [(1, &said), (2, &title)]);
}

#[test]
fn a_clip_has_the_newest_pictures_that_are_alike() {
    let mut all = some(150);
    // What cannot be read is not like what follows it.
    all[50].unit = annexb(&[&[0x67, 1], PPS, b"e50"]).into();
    let clip = Clip::new(Codec::H264, all.clone(), None).expect("a clip");
    let numbers: Vec<_> = pictures(&clip_file(&clip)).iter().map(|read| read.number).collect();
    assert_eq!(numbers, (100..150).collect::<Vec<_>>());
    // Another PPS is nothing new, and stands in band.
    all[50].unit = annexb(&[SPS, &[104, 233, 123, 44, 139, 1], b"e50"]).into();
    assert_eq!(Clip::new(Codec::H264, all.clone(), None).expect("a clip").pictures.len(), 150);
    all[100].unit = annexb(&[b"e100"]).into();
    assert!(matches!(Clip::new(Codec::H264, all, None), Err(Unrecordable::NoParameterSets)));
}
