//! Refuses on standard input what is not the raw codec. A parser would find start codes in MPEG-TS too, and make torn
//! pictures of them that look live.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, Weak};
use std::thread;
use std::time::{Duration, Instant};

use gstreamer as gst;
use gstreamer::prelude::*;
use rov_common::codec::{self, Codec};
use rov_common::sync::lock;

use super::capture::{Capture, GraphEvent};
use super::source::{Container, STDIN, sniff};

/// From here on, what is not aligned can be told.
const ENOUGH: usize = 1024;
/// One picture at most: each begins with a start code.
const LIMIT: usize = 1 << 20;
/// For text, however slowly it comes, and for what has been a pipe's worth.
const TIME_LIMIT: Duration = Duration::from_secs(1);
const TIMED: usize = 1 << 16;
/// For anything: a single picture, in whose middle the bytes begin, takes less.
const SLOW_LIMIT: Duration = Duration::from_secs(5);
/// Of what is not known, in the message.
const SHOWN: usize = 32;

/// By their first bytes.
const FORMATS: &[(&[u8], &str)] = &[
    (&[0xff, 0xd8, 0xff], "MJPEG"),
    (b"\x89PNG", "PNG"),
    (b"FLV", "FLV"),
    (b"RIFF", "AVI or WAV"),
    (b"OggS", "Ogg"),
    (b"DKIF", "IVF"),
    (b"YUV4MPEG2", "raw pictures (yuv4mpegpipe)"),
    (b"--", "multipart"),
    (b"HTTP/", "an HTTP response"),
    (b"$\0", "RTP interleaved by RTSP"),
    (&[0x1f, 0x8b], "compressed (gzip)"),
    (&[0xfd, b'7', b'z', b'X', b'Z', 0], "compressed (xz)"),
    (&[0x28, 0xb5, 0x2f, 0xfd], "compressed (zstd)"),
    (b"BZh", "compressed (bzip2)"),
    (b"PK\x03\x04", "a ZIP archive"),
    (&[0, 0, 1, 0xba], "MPEG-PS"),
    (&[0, 0, 1, 0xb3], "MPEG-1 or MPEG-2 video"),
    (&[0, 0, 1, 0xb0], "MPEG-4 Part 2 video"),
    (&[0, 0, 1, 0x00], "MPEG-4 Part 2 video"),
];

#[derive(Clone, Debug, PartialEq, Eq)]
enum Verdict {
    Raw,
    Undecided,
    /// What is there instead, and what to do.
    Wrong(String),
}

/// Holds the first bytes back until they are known to be the raw codec.
pub(super) fn install(head: &gst::Bin, codec: Codec, capture: &Arc<Capture>) {
    let Some(pad) = head.by_name(STDIN).and_then(|source| source.static_pad("src")) else { return };
    let (capture, held) = (Arc::downgrade(capture), Arc::<Mutex<Held>>::default());
    let (of_probe, weak) = (Arc::downgrade(&held), capture.clone());
    pad.add_probe(gst::PadProbeType::BUFFER | gst::PadProbeType::EVENT_DOWNSTREAM, move |_, info| {
        let Some(capture) = capture.upgrade() else { return gst::PadProbeReturn::Ok };
        let mut held = lock(&held);
        let ended = info.event().is_some_and(|event| event.type_() == gst::EventType::Eos);
        match info.buffer().map(|buffer| buffer.map_readable()) {
            Some(Ok(bytes)) => held.bytes.extend_from_slice(&bytes),
            // Nothing at all is an end like any other.
            None if ended && !held.bytes.is_empty() => {}
            _ => return gst::PadProbeReturn::Ok,
        }
        let waited = held.since.get_or_insert_with(Instant::now).elapsed();
        match recognize(codec, &held.bytes, waited, ended) {
            Verdict::Raw => {
                // At the end of the stream there is no buffer to put it in, and not one picture either.
                if let Some(buffer) = info.buffer_mut() {
                    let mut whole = gst::Buffer::from_mut_slice(std::mem::take(&mut held.bytes));
                    if let Some(whole) = whole.get_mut() {
                        whole.set_pts(buffer.pts());
                        whole.set_dts(buffer.dts());
                    }
                    *buffer = whole;
                }
                gst::PadProbeReturn::Remove
            }
            Verdict::Undecided => {
                if !std::mem::replace(&mut held.is_watched, true) {
                    look_when_quiet(codec, of_probe.clone(), weak.clone());
                }
                gst::PadProbeReturn::Handled
            }
            Verdict::Wrong(reason) => {
                refuse(&capture, reason);
                held.bytes.clear();
                gst::PadProbeReturn::Handled
            }
        }
    });
}

fn refuse(capture: &Capture, reason: String) {
    if !capture.stopped.swap(true, Ordering::AcqRel) {
        (capture.on_event)(GraphEvent::Refused(reason));
    }
}

/// Has what was written last judged like the end, once nothing more comes: a writer may wait then with the pipe open.
/// Ends with the probe, which goes when the bytes are known to be the raw codec.
fn look_when_quiet(codec: Codec, held: Weak<Mutex<Held>>, capture: Weak<Capture>) {
    thread::spawn(move || {
        let mut before = 0;
        loop {
            thread::sleep(TIME_LIMIT / 2);
            let (Some(held), Some(capture)) = (held.upgrade(), capture.upgrade()) else { return };
            let held = lock(&held);
            if capture.stopped.load(Ordering::Acquire) || held.bytes.is_empty() {
                return;
            }
            if std::mem::replace(&mut before, held.bytes.len()) != held.bytes.len() {
                continue;
            }
            if let Verdict::Wrong(reason) = recognize(codec, &held.bytes, TIME_LIMIT, true) {
                refuse(&capture, reason);
            }
            return;
        }
    });
}

#[derive(Default)]
struct Held {
    bytes: Vec<u8>,
    /// When the first byte came.
    since: Option<Instant>,
    is_watched: bool,
}

/// What the first bytes of standard input are. `waited`: since the first of them.
fn recognize(codec: Codec, head: &[u8], waited: Duration, ended: bool) -> Verdict {
    let wrong = |what: &str| {
        let format = if codec == Codec::H264 { "h264" } else { "hevc" };
        Verdict::Wrong(format!("standard input is {what}; expected raw {} (ffmpeg -f {format})", codec.title()))
    };
    // Zeros before a start code are as many as there please.
    let zeros = head.iter().take_while(|byte| **byte == 0).count();
    let start = (zeros >= 2 && head.get(zeros) == Some(&1)).then(|| &head[zeros + 1..]);
    if start.is_some_and(|nal| begins_nal(codec, nal) && !codec.others().any(|other| begins_nal(other, nal))) {
        return Verdict::Raw;
    }
    let from_start_code = &head[if start.is_some() { zeros - 2 } else { 0 }..];
    if let Some((_, name)) = FORMATS.iter().find(|(magic, _)| from_start_code.starts_with(magic)) {
        return wrong(name);
    }
    match sniff(head) {
        Some(Container::Mp4) => return wrong("MP4"),
        Some(Container::Matroska) => return wrong("MKV or WebM"),
        Some(Container::MpegTs) => return wrong("MPEG-TS"),
        Some(Container::AnnexB) | None => {}
    }
    let is_text = head.iter().all(|byte| byte.is_ascii_graphic() || byte.is_ascii_whitespace());
    let ended = ended || waited >= if is_text || head.len() >= TIMED { TIME_LIMIT } else { SLOW_LIMIT };
    if head.len() < ENOUGH && !ended {
        return Verdict::Undecided;
    }
    // Whoever reads in the middle of a transport stream.
    if is_transport_stream(head) {
        return wrong("MPEG-TS");
    }
    // Whoever reads in the middle of a picture.
    let nals: Vec<_> = codec::nal_units(head).collect();
    let count = |codec| nals.iter().filter(|nal| begins_nal(codec, nal)).count();
    let ours = count(codec);
    let most = |count: usize| count * 2 > nals.len() && (count > 1 || ended);
    if most(ours) && codec.others().all(|other| ours > count(other)) {
        return Verdict::Raw;
    }
    if let Some(other) = codec.others().find(|other| most(count(*other)) && count(*other) > ours) {
        let title = codec.title();
        let text = format!("standard input is raw {}; expected raw {title}: give --codec {other}", other.title());
        return Verdict::Wrong(text);
    }
    if ended || head.len() >= LIMIT {
        // RFC 3550 section 5.1; the types of video: MJPEG, MPEG, and those that the SDP tells.
        let is_type = |byte: u8| matches!(byte & 0x7f, 26 | 32 | 33 | 96..=127);
        let is_rtp = matches!(head, [first, second, ..] if first >> 6 == 2 && is_type(*second));
        let begins = head[..head.len().min(SHOWN)].escape_ascii();
        return wrong(&if is_rtp { "RTP".to_owned() } else { format!("not recognized (it begins with \"{begins}\")") });
    }
    Verdict::Undecided
}

/// Whether a NAL unit of this codec can begin so, of those that cameras and encoders write. False for too few bytes.
fn begins_nal(codec: Codec, nal: &[u8]) -> bool {
    let &[first, second, ..] = nal else { return false };
    match codec {
        Codec::Mjpeg => false,
        // ITU-T H.264 section 7.4.1: forbidden_zero_bit, nal_ref_idc by type.
        Codec::H264 => match (first >> 7, first & 0x1f, first >> 5 & 3) {
            (1, ..) => false,
            (_, 1 | 14 | 15 | 19 | 20, _) | (_, 5 | 7 | 8, 1..) | (_, 6 | 9..=12, 0) => true,
            _ => false,
        },
        // ITU-T H.265 section 7.3.1.2: the layer is 0, the temporal layer plus one is small.
        Codec::H265 => {
            let layer = (first & 1) << 5 | second >> 3;
            first >> 7 == 0
                && layer == 0
                && matches!(second & 7, 1..=4)
                && matches!(first >> 1, 0 | 1 | 6..=9 | 16..=21 | 32..=40)
        }
    }
}

/// Sync bytes at the distance of a packet, with what some write before or behind it; they may begin anywhere.
fn is_transport_stream(head: &[u8]) -> bool {
    [188, 192, 204].into_iter().any(|length| {
        (0..length).any(|first| {
            let mut at = (first..head.len()).step_by(length).take(8).peekable();
            let whole = head.len() > first + 4 * length;
            whole && at.peek().is_some() && at.all(|at| head[at] == 0x47)
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPS: &[u8] = &[0, 0, 0, 1, 0x67, 0x42, 0xc0, 0x1e];
    const VPS: &[u8] = &[0, 0, 0, 1, 0x40, 0x01, 0x0c, 0x01];

    fn now(codec: Codec, head: &[u8]) -> Verdict {
        recognize(codec, head, Duration::ZERO, false)
    }

    fn says(verdict: Verdict, part: &str) {
        assert!(matches!(&verdict, Verdict::Wrong(text) if text.contains(part)), "{verdict:?}");
    }

    #[test]
    fn the_raw_codec_is_taken_by_its_first_bytes() {
        for first in [SPS, &[0, 0, 1, 0x67, 0x42], &[0, 0, 0, 0, 0, 1, 0x09, 0xf0], &[0, 0, 1, 0x41, 0x9a]] {
            assert_eq!(now(Codec::H264, first), Verdict::Raw, "{first:?}");
        }
        for first in [VPS, &[0, 0, 1, 0x46, 0x01, 0x10], &[0, 0, 1, 0x26, 0x01]] {
            assert_eq!(now(Codec::H265, first), Verdict::Raw, "{first:?}");
        }
        assert_eq!(now(Codec::H264, &SPS[..4]), Verdict::Undecided);
    }

    #[test]
    fn other_formats_are_named_with_what_is_expected() {
        let mut packet = [0xff; 188];
        packet[0] = 0x47;
        // Start codes of H.264 stand in it.
        packet[100..108].copy_from_slice(SPS);
        let stream = packet.repeat(40);
        let expected = "standard input is MPEG-TS; expected raw H.264 (ffmpeg -f h264)";
        assert_eq!(now(Codec::H264, &stream), Verdict::Wrong(expected.to_owned()));
        assert_eq!(now(Codec::H264, &stream[50..]), Verdict::Wrong(expected.to_owned()), "from the middle of a packet");
        says(now(Codec::H265, b"\0\0\0\x18ftypisom"), "is MP4; expected raw H.265 (ffmpeg -f hevc)");
        says(now(Codec::H264, &[0x1a, 0x45, 0xdf, 0xa3, 1]), "is MKV");
        says(now(Codec::H264, &[0xff, 0xd8, 0xff, 0xe0]), "is MJPEG");
        says(now(Codec::H264, &[0, 0, 1, 0xba, 0x44]), "is MPEG-PS");
        says(now(Codec::H264, &[0, 0, 0, 1, 0xb0, 1]), "is MPEG-4 Part 2");
        // What cannot be compressed any more stands in it as it was.
        says(now(Codec::H264, &[&[0x1f, 0x8b, 8][..], &SPS.repeat(200)].concat()), "is compressed (gzip)");
    }

    #[test]
    fn the_other_codec_is_named_with_the_option() {
        let unit =
            |nals: &[[u8; 2]]| nals.iter().flat_map(|nal| [&[0, 0, 0, 1], &nal[..], &[0x55; 400]].concat()).collect();
        let h265: Vec<u8> = unit(&[[0x40, 1], [0x42, 1], [0x44, 1], [0x26, 1], [0x02, 1]]);
        let h264: Vec<u8> = unit(&[[0x06, 5], [0x67, 0x42], [0x68, 0xce], [0x65, 0x88], [0x41, 0x9a]]);
        says(now(Codec::H264, &h265), "is raw H.265; expected raw H.264: give --codec h265");
        says(now(Codec::H265, &h264), "is raw H.264; expected raw H.265: give --codec h264");
        assert_eq!(now(Codec::H264, &h264), Verdict::Raw);
        assert_eq!(now(Codec::H265, &h265), Verdict::Raw);
    }

    #[test]
    fn a_stream_may_begin_in_the_middle_of_a_picture() {
        let picture = [&[0, 0, 0, 1, 0x41, 0x9a][..], &[0x55; 2_000]].concat();
        let stream = picture.repeat(3);
        assert_eq!(now(Codec::H264, &stream[1_500..1_510]), Verdict::Undecided);
        assert_eq!(now(Codec::H264, &stream[1_500..]), Verdict::Raw);
        let large = vec![0xd5; TIMED - 1];
        let later = |head: &[u8], seconds: u64| recognize(Codec::H264, head, Duration::from_secs(seconds), false);
        assert_eq!(later(&large, 4), Verdict::Undecided);
        says(later(&large, 5), "is not recognized");
        // The next picture ends the time.
        assert_eq!(later(&[&large, &picture[..10]].concat(), 5), Verdict::Raw);
    }

    #[test]
    fn what_is_not_known_is_refused_within_a_second_and_at_its_end() {
        let noise: Vec<u8> = (0..TIMED as u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8 | 1).collect();
        assert_eq!(now(Codec::H264, &noise), Verdict::Undecided);
        says(recognize(Codec::H264, &noise, TIME_LIMIT, false), "is not recognized");
        says(now(Codec::H264, &noise.repeat(16)), "is not recognized");
        let text = b"ERROR: *** no cameras available ***";
        says(recognize(Codec::H264, text, Duration::ZERO, true), "begins with \"ERROR: *** no cameras");
        assert_eq!(now(Codec::H264, text), Verdict::Undecided);
        says(recognize(Codec::H264, text, TIME_LIMIT, false), "begins with \"ERROR: *** no cameras");
        let rtp = [&[0x80, 0x60, 0x12, 0x34][..], &noise].concat();
        says(recognize(Codec::H264, &rtp, TIME_LIMIT, false), "is RTP");
    }
}
