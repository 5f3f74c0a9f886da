//! Leaves out damaged JPEG pictures of a source, in front of whatever takes them apart: of one that is cut off a
//! decoder shows the rest grey, and `jpegparse` ends the pipeline.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use gstreamer as gst;
use gstreamer::prelude::*;

use super::graph::Capture;

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
    // A parser may get a stream in pieces of any size: of those, some do not begin as a picture does. And what it takes
    // by itself (pull mode) are pieces as well.
    let (weak, has_whole, is_pieces) = (Arc::downgrade(capture), AtomicBool::new(false), AtomicBool::new(false));
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        if info.mask.contains(gst::PadProbeType::PULL) || is_pieces.load(Ordering::Relaxed) {
            return gst::PadProbeReturn::Ok;
        }
        let Some(map) = info.buffer().and_then(|buffer| buffer.map_readable().ok()) else {
            return gst::PadProbeReturn::Ok;
        };
        let (whole, begins) = (is_whole(&map), map.starts_with(BEGINNING));
        drop(map);
        if whole || !begins || !has_whole.load(Ordering::Relaxed) {
            has_whole.fetch_or(whole, Ordering::Relaxed);
            is_pieces.fetch_or(!begins, Ordering::Relaxed);
            return gst::PadProbeReturn::Ok;
        }
        if let Some(capture) = weak.upgrade() {
            capture.frames_damaged.add();
        }
        // As in `valve`.
        gst::PadProbeReturn::Handled
    });
}

/// The marker SOI.
const BEGINNING: &[u8] = &[0xff, 0xd8];

/// Whether a JPEG picture has its beginning and its end, and between them markers where they may be (ITU-T T.81 annex
/// B). What the markers hold is not looked at: nothing is decoded. Cameras write anything behind the end.
fn is_whole(data: &[u8]) -> bool {
    const SOI: u8 = 0xd8;
    const EOI: u8 = 0xd9;
    const SOS: u8 = 0xda;
    if !data.starts_with(BEGINNING) {
        return false;
    }
    let (mut at, mut in_scan, mut has_scan, mut next_restart) = (2, false, false, 0);
    loop {
        // In a scan, up to the next marker; elsewhere one is due.
        match data.get(at..).and_then(|rest| memchr::memchr(0xff, rest)) {
            Some(0) => {}
            Some(length) if in_scan => at += length,
            _ => return false,
        }
        let Some(&marker) = data.get(at + 1) else { return false };
        match marker {
            // Fill bytes.
            0xff => at += 1,
            0x00 if in_scan => at += 2,
            0xd0..=0xd7 if in_scan => {
                if marker & 7 != next_restart {
                    return false;
                }
                next_restart = (next_restart + 1) & 7;
                at += 2;
            }
            EOI => return has_scan,
            0x00..=0x01 | 0xd0..=SOI => return false,
            _ => {
                let Some(&[high, low]) = data.get(at + 2..at + 4) else { return false };
                let length = usize::from(u16::from_be_bytes([high, low]));
                if length < 2 {
                    return false;
                }
                in_scan = marker == SOS;
                has_scan |= in_scan;
                next_restart = 0;
                at += 2 + length;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &[u8] = &[0xff, 0xdb, 0, 4, 1, 2];
    const SCAN: &[u8] = &[0xff, 0xda, 0, 3, 9];

    #[test]
    fn a_picture_is_whole_from_its_beginning_to_its_end() {
        let data =
            [&[0xff, 0xd8], TABLE, SCAN, &[1, 2, 0xff, 0, 3, 0xff, 0xd0, 4, 0xff, 0xd1, 5, 0xff, 0xff, 0xd9]].concat();
        assert!(is_whole(&data));
        assert!(is_whole(&[&data[..], &[0; 9]].concat()), "padding");
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
}
