//! Leaves out damaged JPEG pictures of a source. One that is cut off ends the pipeline in `jpegparse`, and is left out
//! in front of whatever takes it apart. Of one that misses something in its middle, decoders show the rest grey, and
//! those of GStreamer tell nobody (`jpegdec` ignores what libjpeg says): it is left out behind the decoder.

pub mod entropy;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_video as gst_video;
use gstreamer_video::prelude::*;
use rov_common::sync::lock;
use rov_gst::element::is_made_by;

use self::entropy::{Entropy, ends_of_intervals, scan_has_zeros};
use super::capture::Capture;

/// A picture of a stream in pieces is no larger than that.
const MAX_PICTURE: usize = 32 << 20;

/// Looks at what goes into each element of `head` that takes JPEG and nothing else, now and later.
pub(super) fn watch(head: &gst::Bin, capture: &Arc<Capture>) {
    head.iterate_recurse().into_iter().flatten().for_each(|element| watch_element(&element, capture));
    let weak = Arc::downgrade(capture);
    head.connect_deep_element_added(move |_, _, element| {
        if let Some(capture) = weak.upgrade() {
            watch_element(element, &capture);
        }
    });
}

fn watch_element(element: &gst::Element, capture: &Arc<Capture>) {
    let Some(pad) = element.static_pad("sink") else { return };
    let caps = pad.pad_template_caps();
    if caps.is_any() || caps.is_empty() || caps.iter().any(|structure| structure.name() != "image/jpeg") {
        return;
    }
    if is_made_by(element, "jpegparse") {
        watch_parser(&pad, capture);
    } else {
        let decoded = Arc::new(Mutex::new(Decoded::default()));
        watch_pictures(&pad, &decoded, capture);
        if let Some(pad) = element.static_pad("src") {
            watch_decoded(&pad, &decoded, capture);
        }
    }
}

/// A parser may get a stream in pieces of any size; it is given whole pictures.
fn watch_parser(pad: &gst::Pad, capture: &Arc<Capture>) {
    // What it takes by itself (pull mode) could not be changed here.
    pad.add_probe(gst::PadProbeType::QUERY_UPSTREAM, |_, info| {
        let Some(gst::QueryViewMut::Scheduling(query)) = info.query_mut().map(gst::QueryRef::view_mut) else {
            return gst::PadProbeReturn::Ok;
        };
        query.set(gst::SchedulingFlags::SEQUENTIAL, 1, -1, 0);
        query.add_scheduling_modes([gst::PadMode::Push]);
        gst::PadProbeReturn::Handled
    });
    let (weak, pieces) = (Arc::downgrade(capture), Mutex::new(Pieces::default()));
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        let Some(buffer) = info.buffer_mut() else { return gst::PadProbeReturn::Ok };
        let Ok(map) = buffer.map_readable() else { return gst::PadProbeReturn::Ok };
        let Taken { whole, damaged } = lock(&pieces).take(&map);
        drop(map);
        if let Some(capture) = weak.upgrade() {
            (0..damaged).for_each(|_| capture.frames_damaged.add());
        }
        match whole {
            Whole::AsItIs => gst::PadProbeReturn::Ok,
            Whole::None => gst::PadProbeReturn::Handled,
            Whole::Pictures(pictures) => {
                let mut pictures = gst::Buffer::from_mut_slice(pictures);
                if let Some(pictures) = pictures.get_mut() {
                    pictures.set_pts(buffer.pts());
                    pictures.set_dts(buffer.dts());
                }
                *buffer = pictures;
                gst::PadProbeReturn::Ok
            }
        }
    });
}

/// Whole pictures or none: as they come from cameras and from files with a container.
fn watch_pictures(pad: &gst::Pad, decoded: &Arc<Mutex<Decoded>>, capture: &Arc<Capture>) {
    let decoded = Arc::clone(decoded);
    // Of a stream in pieces some do not begin as a picture does.
    let (weak, has_whole, is_pieces) = (Arc::downgrade(capture), AtomicBool::new(false), AtomicBool::new(false));
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        if info.mask.contains(gst::PadProbeType::PULL) || is_pieces.load(Ordering::Relaxed) {
            return gst::PadProbeReturn::Ok;
        }
        let Some(map) = info.buffer().and_then(|buffer| buffer.map_readable().ok()) else {
            return gst::PadProbeReturn::Ok;
        };
        let (end, begins) = (end_of(&map), map.starts_with(BEGINNING));
        drop(map);
        lock(&decoded).coded = info.buffer().cloned().zip(end);
        if end.is_some() || !begins || !has_whole.load(Ordering::Relaxed) {
            has_whole.fetch_or(end.is_some(), Ordering::Relaxed);
            is_pieces.fetch_or(!begins, Ordering::Relaxed);
            return gst::PadProbeReturn::Ok;
        }
        if let Some(capture) = weak.upgrade() {
            capture.frames_damaged.add();
        }
        gst::PadProbeReturn::Handled
    });
}

/// What a decoder makes of whole pictures.
fn watch_decoded(pad: &gst::Pad, decoded: &Arc<Mutex<Decoded>>, capture: &Arc<Capture>) {
    let (weak, decoded) = (Arc::downgrade(capture), Arc::clone(decoded));
    pad.add_probe(gst::PadProbeType::BUFFER, move |pad, info| {
        let Some((picture, caps)) = info.buffer().zip(pad.current_caps()) else { return gst::PadProbeReturn::Ok };
        let is_damaged = lock(&decoded).is_damaged(picture, &caps);
        if !is_damaged {
            return gst::PadProbeReturn::Ok;
        }
        if let Some(capture) = weak.upgrade() {
            capture.frames_damaged.add();
        }
        gst::PadProbeReturn::Handled
    });
}

/// Finds those pictures that were coded with a part of them missing.
#[derive(Default)]
struct Decoded {
    /// What went into the decoder last, and its length up to its EOI.
    coded: Option<(gst::Buffer, usize)>,
    entropy: Entropy,
    /// One was seen to be without a fault. A camera all of whose pictures have one is shown as it is.
    has_whole: bool,
}

impl Decoded {
    fn is_damaged(&mut self, picture: &gst::BufferRef, caps: &gst::CapsRef) -> bool {
        // Not one that came meanwhile, where a decoder takes its time. Those without a time get one there.
        let is_its = |(coded, _): &(gst::Buffer, usize)| coded.pts().is_none_or(|pts| picture.pts() == Some(pts));
        let Some((coded, end)) = self.coded.take().filter(is_its) else { return false };
        let Ok(coded) = coded.map_readable() else { return false };
        let coded = &coded[..end];
        // What costs nothing is looked at first.
        let is_suspect = picture.flags().contains(gst::BufferFlags::CORRUPTED)
            || is_grey(picture, caps, coded)
            || scan_has_zeros(coded);
        if !is_suspect && self.has_whole {
            self.entropy.read_header(coded);
            return false;
        }
        // Until one is, those that are not suspect are looked at as well: they prove nothing otherwise.
        let is_whole = self.entropy.is_whole(coded);
        self.has_whole |= is_whole;
        self.has_whole && !is_whole
    }
}

/// Whether what was decoded last is of the grey that a block has without data.
fn is_grey(picture: &gst::BufferRef, caps: &gst::CapsRef, coded: &[u8]) -> bool {
    const GREY: u8 = 128;
    let Ok(info) = gst_video::VideoInfo::from_caps(caps) else { return false };
    let is_plain = info.n_planes() == info.n_components() && info.comp_depth(0) == 8;
    let is_here = caps.features(0).is_none_or(|features| features.contains("memory:SystemMemory"));
    if !(is_plain && is_here) {
        return false;
    }
    let Ok(frame) = gst_video::VideoFrameRef::from_buffer_ref_readable(picture, &info) else { return false };
    ends_of_intervals(coded).any(|(x, y)| {
        (0..info.n_components()).all(|plane| {
            let (format, component) = (info.format_info(), plane as usize);
            let (x, y) = (x >> format.w_sub()[component], y >> format.h_sub()[component]);
            let row = frame.plane_stride()[component] as usize * y;
            let pixel = frame.plane_data(plane).ok().and_then(|data| data.get(row + x).copied());
            pixel == Some(GREY)
        })
    })
}

/// Cuts a stream in pieces into its pictures.
#[derive(Debug, Default)]
struct Pieces {
    /// From the beginning of a picture on; else the last byte, with which one may begin.
    held: Vec<u8>,
    scan: Scan,
    /// Some have not begun as a picture does.
    are_of_any_size: bool,
}

/// What becomes of a piece.
#[derive(Debug, PartialEq, Eq)]
struct Taken {
    whole: Whole,
    /// Pictures that are left out.
    damaged: usize,
}

/// The pictures that are whole with it.
#[derive(Debug, PartialEq, Eq)]
enum Whole {
    None,
    AsItIs,
    Pictures(Vec<u8>),
}

impl Pieces {
    fn take(&mut self, piece: &[u8]) -> Taken {
        let begins = piece.starts_with(BEGINNING);
        self.are_of_any_size |= !begins;
        let mut damaged = 0;
        if begins && !self.are_of_any_size {
            // A picture each.
            damaged = usize::from(!self.held.is_empty());
            self.restart(0..self.held.len());
            if end_of(piece).is_some() {
                return Taken { whole: Whole::AsItIs, damaged };
            }
        }
        self.held.extend_from_slice(piece);
        let mut whole = Vec::new();
        loop {
            if self.scan == Scan::default() {
                let Some(start) = memchr::memmem::find(&self.held, BEGINNING) else {
                    let last = self.held.pop_if(|last| *last == BEGINNING[0]);
                    self.held.clear();
                    self.held.extend(last);
                    break;
                };
                self.held.drain(..start);
            }
            match self.scan.go_on(&self.held) {
                Found::Whole(end) => {
                    whole.extend_from_slice(&self.held[..end]);
                    self.restart(0..end);
                }
                Found::Damage => {
                    // What was left out may have a small picture in it, which is none of the stream's.
                    damaged += 1;
                    self.restart(0..self.scan.at.min(self.held.len()));
                }
                Found::More if self.held.len() > MAX_PICTURE => {
                    damaged += 1;
                    self.restart(0..self.held.len());
                }
                Found::More => break,
            }
        }
        let whole = if whole.is_empty() { Whole::None } else { Whole::Pictures(whole) };
        Taken { whole, damaged }
    }

    fn restart(&mut self, done: std::ops::Range<usize>) {
        self.held.drain(done);
        self.scan = Scan::default();
    }
}

/// The marker SOI.
const BEGINNING: &[u8] = &[0xff, 0xd8];

/// The end of a JPEG picture that has its beginning and its end, and between them markers where they may be (ITU-T T.81
/// annex B). What the markers hold is not looked at: nothing is decoded. Cameras write anything behind the end.
fn end_of(data: &[u8]) -> Option<usize> {
    match data.starts_with(BEGINNING).then(|| Scan::default().go_on(data)) {
        Some(Found::Whole(end)) => Some(end),
        _ => None,
    }
}

/// A look through a picture that begins with SOI, of which the rest may come later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Scan {
    /// So far it is whole.
    at: usize,
    in_scan: bool,
    has_scan: bool,
    next_restart: u8,
}

impl Default for Scan {
    fn default() -> Self {
        Self { at: BEGINNING.len(), in_scan: false, has_scan: false, next_restart: 0 }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Found {
    /// Up to there.
    Whole(usize),
    Damage,
    More,
}

impl Scan {
    fn go_on(&mut self, data: &[u8]) -> Found {
        const SOI: u8 = 0xd8;
        const EOI: u8 = 0xd9;
        const SOS: u8 = 0xda;
        loop {
            // In a scan, up to the next marker; elsewhere one is due.
            let rest = data.get(self.at..).unwrap_or_default();
            match memchr::memchr(0xff, rest) {
                Some(0) => {}
                Some(length) if self.in_scan => self.at += length,
                Some(_) => return Found::Damage,
                None if rest.is_empty() => return Found::More,
                None if self.in_scan => {
                    self.at = data.len();
                    return Found::More;
                }
                None => return Found::Damage,
            }
            let Some(&marker) = data.get(self.at + 1) else { return Found::More };
            match marker {
                // Fill bytes.
                0xff => self.at += 1,
                0x00 if self.in_scan => self.at += 2,
                0xd0..=0xd7 if self.in_scan => {
                    if marker & 7 != self.next_restart {
                        return Found::Damage;
                    }
                    self.next_restart = (self.next_restart + 1) & 7;
                    self.at += 2;
                }
                EOI if self.has_scan => return Found::Whole(self.at + 2),
                EOI | 0x00..=0x01 | 0xd0..=SOI => return Found::Damage,
                _ => {
                    let Some(&[high, low]) = data.get(self.at + 2..self.at + 4) else { return Found::More };
                    let length = usize::from(u16::from_be_bytes([high, low]));
                    if length < 2 {
                        return Found::Damage;
                    }
                    self.in_scan = marker == SOS;
                    self.has_scan |= self.in_scan;
                    self.next_restart = 0;
                    self.at += 2 + length;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &[u8] = &[0xff, 0xdb, 0, 4, 1, 2];
    const SCAN: &[u8] = &[0xff, 0xda, 0, 3, 9];

    fn is_whole(data: &[u8]) -> bool {
        end_of(data).is_some()
    }

    #[test]
    fn a_picture_is_whole_from_its_beginning_to_its_end() {
        let data =
            [&[0xff, 0xd8], TABLE, SCAN, &[1, 2, 0xff, 0, 3, 0xff, 0xd0, 4, 0xff, 0xd1, 5, 0xff, 0xff, 0xd9]].concat();
        assert!(is_whole(&data));
        assert_eq!(end_of(&[&data[..], &[0; 9]].concat()), Some(data.len()), "padding");
        for length in 0..data.len() {
            assert!(!is_whole(&data[..length]), "cut off after {length} bytes");
        }
        let next = [&data[..20], &data].concat();
        assert!(!is_whole(&next), "the next picture begins in it");
        let mut lost = data.clone();
        lost.drain(data.len() - 10..data.len() - 6);
        assert!(!is_whole(&lost), "a part in the middle is missing");
        assert!(!is_whole(&[0xff, 0xd8, 0xff, 0xd9]), "without a picture");
    }

    /// Whether a picture would be left out; `is_suspect` where the decoder says so.
    fn is_damaged(decoded: &mut Decoded, coded: &[u8], is_suspect: bool) -> bool {
        decoded.coded = Some((gst::Buffer::from_slice(coded.to_vec()), coded.len()));
        let mut picture = gst::Buffer::new();
        if is_suspect {
            picture.get_mut().expect("the only one").set_flags(gst::BufferFlags::CORRUPTED);
        }
        decoded.is_damaged(&picture, &gst::Caps::new_empty_simple("video/x-raw"))
    }

    #[test]
    fn a_camera_none_of_whose_pictures_was_seen_to_be_whole_is_shown_as_it_is() {
        gst::init().expect("GStreamer");
        let whole: &[u8] = include_bytes!("../../../fuzz/corpus/jpeg/optimized.jpg");
        let odd = [&whole[..whole.len() - 200], &whole[whole.len() - 2..]].concat();
        let mut decoded = Decoded::default();
        assert!(!is_damaged(&mut decoded, &odd, false) && !is_damaged(&mut decoded, &odd, true));
        assert!(!is_damaged(&mut decoded, whole, false) && is_damaged(&mut decoded, &odd, true));
        assert!(!is_damaged(&mut decoded, &odd, false), "what looks well");
    }

    #[test]
    fn the_tables_are_those_of_the_last_picture_that_had_some() {
        gst::init().expect("GStreamer");
        let usual: &[u8] = include_bytes!("../../../fuzz/corpus/jpeg/420.jpg");
        let optimized: &[u8] = include_bytes!("../../../fuzz/corpus/jpeg/optimized.jpg");
        let mut without = optimized.to_vec();
        while let Some(at) = memchr::memmem::find(&without, &[0xff, 0xc4]) {
            without.drain(at..at + 2 + usize::from(u16::from_be_bytes([without[at + 2], without[at + 3]])));
        }
        let mut decoded = Decoded::default();
        assert!(!is_damaged(&mut decoded, usual, false) && is_damaged(&mut decoded, &without, true), "by other tables");
        assert!(!is_damaged(&mut decoded, optimized, false) && !is_damaged(&mut decoded, &without, true));
    }

    fn picture(scan: u8) -> Vec<u8> {
        [BEGINNING, TABLE, SCAN, &[scan; 9], &[0xff, 0xd9]].concat()
    }

    /// All of it cut into pieces of this size: what goes on, and how many pictures are left out.
    fn in_pieces(stream: &[u8], size: usize) -> (Vec<u8>, usize) {
        let (mut pieces, mut on, mut damaged) = (Pieces::default(), Vec::new(), 0);
        for piece in stream.chunks(size) {
            let taken = pieces.take(piece);
            damaged += taken.damaged;
            match taken.whole {
                Whole::None => {}
                Whole::AsItIs => on.extend_from_slice(piece),
                Whole::Pictures(pictures) => on.extend(pictures),
            }
        }
        (on, damaged)
    }

    #[test]
    fn of_a_stream_in_pieces_whole_pictures_go_on() {
        let (a, b, c) = (picture(1), picture(2), picture(3));
        let cut = &b[..b.len() - 4];
        let with_small = [BEGINNING, &[0xff, 0xe1, 0, 30], &picture(77), &[0; 1]].concat();
        for size in 1..80 {
            // The first piece is no picture, so that no piece is taken for one.
            let stream = [&[0], &a[..], &[0xff, 0], &b, &c].concat();
            assert_eq!(in_pieces(&stream, size), ([&a[..], &b, &c].concat(), 0), "{size}");
            let stream = [&[0], &a[..], cut, cut, &c].concat();
            assert_eq!(in_pieces(&stream, size), ([&a[..], &c].concat(), 2), "{size}");
            let stream = [&[0], &a[..], &with_small, &c, &b].concat();
            let (on, damaged) = in_pieces(&stream, size);
            assert!(damaged == 1 && on.starts_with(&a) && on.ends_with(&b), "{size}: {on:?}");
            assert!(!on.contains(&77), "{size}: the small picture in one");
        }
    }

    #[test]
    fn pieces_that_are_a_picture_each_go_on_as_they_are() {
        let (whole, mut pieces) = (picture(1), Pieces::default());
        let as_it_is = Taken { whole: Whole::AsItIs, damaged: 0 };
        assert_eq!(pieces.take(&whole), as_it_is);
        assert_eq!(pieces.take(&whole[..9]), Taken { whole: Whole::None, damaged: 0 });
        assert_eq!(pieces.take(&whole), Taken { whole: Whole::AsItIs, damaged: 1 });
        assert_eq!(pieces.take(&whole), as_it_is);
    }
}
