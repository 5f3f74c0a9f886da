//! Whether viewers can show a stream that goes out untouched, and what to do where they cannot. Pure.
//!
//! What is encoded here needs no look: format and profile are pinned.

use std::time::Duration;

use rov_common::codec::{self, Codec, H265SpsInfo, NalKind, SliceType, SpsInfo, jpeg, parse_h265_sps, parse_sps};

use crate::config::SourceKind;

/// Why a stream cannot be shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Problem {
    /// WebRTC has no room for pictures that are sent in another order than they are shown.
    BFrames,
    Interlaced,
    /// Viewers cannot start: none has come for so long. The stream may have been joined in the middle of a long group
    /// of pictures.
    NoKeyframeFor(Duration),
    /// Viewers can never start: it is refreshed in parts (intra refresh).
    NoKeyframes,
    /// More bits than decoders take, or more colour than 4:2:0: what it is, in words.
    Format(&'static str),
}

/// What is wrong with an access unit, by its parameter sets and the header of its first slice alone, or by the headers
/// of a JPEG picture.
pub fn problem(codec: Codec, au: &[u8]) -> Option<Problem> {
    if codec == Codec::Mjpeg {
        let problem = jpeg::parse(au).err().filter(|problem| *problem != jpeg::NOT_WHOLE);
        return problem.map(|jpeg::Problem(what)| Problem::Format(what));
    }
    for nal in codec::nal_units(au) {
        // An SPS that cannot be read is not judged here: the stream shows whether it matters.
        let problem = match (codec, codec.nal_kind(nal)) {
            (Codec::H264, NalKind::Sps) => parse_sps(nal).ok().and_then(|sps| sps_problem(&sps)),
            (Codec::H265, NalKind::Sps) => parse_h265_sps(nal).ok().and_then(|sps| h265_sps_problem(&sps)),
            (Codec::H264, NalKind::Slice | NalKind::KeyframeSlice) => {
                return (codec::slice_type(nal) == Some(SliceType::B)).then_some(Problem::BFrames);
            }
            (Codec::H265, NalKind::Slice | NalKind::KeyframeSlice) => return None,
            _ => None,
        };
        if problem.is_some() {
            return problem;
        }
    }
    None
}

/// Of MJPEG, where each picture stands for itself: a damaged header is of one picture, a format of all.
const REFUSED_AFTER: u32 = 10;

/// What becomes of an access unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Passes,
    /// It is taken for damaged.
    LeftOut,
    Refused(Problem),
}

/// Judges one access unit after the other.
#[derive(Debug, Default)]
pub struct Judge {
    /// That of the newest, and how many in a row have it.
    problem: Option<(Problem, u32)>,
}

impl Judge {
    pub fn judge(&mut self, codec: Codec, au: &[u8]) -> Verdict {
        let Some(problem) = problem(codec, au) else {
            self.problem = None;
            return Verdict::Passes;
        };
        let before = self.problem.filter(|(before, _)| *before == problem).map_or(0, |(_, count)| count);
        self.problem = Some((problem, before + 1));
        match codec == Codec::Mjpeg && before + 1 < REFUSED_AFTER {
            true => Verdict::LeftOut,
            false => Verdict::Refused(problem),
        }
    }
}

/// Decoders of H.265 take main and main 10: 4:2:0 with 8 or 10 bit. Slices of type B are no problem by themselves, as
/// many encoders use them without looking ahead; the SPS says whether pictures change their order.
fn h265_sps_problem(sps: &H265SpsInfo) -> Option<Problem> {
    match sps.chroma_format {
        0 => return Some(Problem::Format("grey without colour (4:0:0)")),
        2 => return Some(Problem::Format("4:2:2")),
        3 => return Some(Problem::Format("4:4:4")),
        _ => {}
    }
    if sps.bit_depth.0.max(sps.bit_depth.1) > 10 {
        return Some(Problem::Format("of more than 10 bit"));
    }
    if sps.interlaced {
        return Some(Problem::Interlaced);
    }
    (sps.max_num_reorder_pics > 0).then_some(Problem::BFrames)
}

/// Browsers, and hardware decoders in general, take baseline, main and high: progressive, 8 bit, 4:2:0.
fn sps_problem(sps: &SpsInfo) -> Option<Problem> {
    match (sps.chroma_format, sps.profile_idc) {
        (0, _) => Some(Problem::Format("grey without colour (4:0:0)")),
        (2, _) => Some(Problem::Format("4:2:2")),
        (3, _) => Some(Problem::Format("4:4:4")),
        (_, 66 | 77 | 100) if !sps.frame_mbs_only => Some(Problem::Interlaced),
        (_, 66 | 77 | 100) => None,
        (_, 110) => Some(Problem::Format("10 bit (profile High 10)")),
        (_, 122) => Some(Problem::Format("of profile High 4:2:2")),
        (_, 244) => Some(Problem::Format("of profile High 4:4:4")),
        (_, 88) => Some(Problem::Format("of profile Extended")),
        _ => Some(Problem::Format("of a profile beyond High")),
    }
}

/// Why a stream of this source is refused, and what to do.
pub fn refusal(codec: Codec, problem: Problem, source: SourceKind) -> String {
    let mut camera = "set up the camera otherwise";
    let (what, stdin, pipeline) = match problem {
        Problem::BFrames => (
            "has B-frames, which WebRTC viewers cannot show".to_owned(),
            "make what writes it write none (ffmpeg: -bf 0)",
            "set bframes=0 (b-frames=0) on the encoder in --pipeline",
        ),
        Problem::Interlaced => (
            "is interlaced, which browsers and hardware decoders cannot show".to_owned(),
            "make what writes it deinterlace it (ffmpeg: -vf yadif)",
            "put deinterlace before the encoder in --pipeline",
        ),
        Problem::NoKeyframeFor(_) | Problem::NoKeyframes => {
            camera = "set the camera's keyframe interval (GOP) to a second or two";
            let what = match problem {
                Problem::NoKeyframeFor(time) => format!("has sent no keyframe (IDR) for over {} s", time.as_secs()),
                _ => "has no keyframes (IDR)".to_owned(),
            };
            (
                format!("{what}, with which alone viewers can start"),
                "make what writes it write one every second (ffmpeg: -g 30, without intra refresh)",
                "turn off intra refresh on the encoder in --pipeline, and have it make a keyframe every second",
            )
        }
        Problem::Format(format) if codec == Codec::Mjpeg => (
            format!("is {format}, which RTP has no room for (RFC 2435)"),
            "",
            "pin the format in --pipeline, as ... ! videoconvert ! video/x-raw,format=I420 ! jpegenc",
        ),
        Problem::Format(format) => (
            format!("is {format}, which browsers and hardware decoders cannot show"),
            "make what writes it write 8 bit 4:2:0 (ffmpeg: -pix_fmt yuv420p)",
            "pin the format in --pipeline, as ... ! videoconvert ! video/x-raw,format=I420 ! x264enc ...",
        ),
    };
    let coded = if codec == Codec::Mjpeg { "jpegdec" } else { "h264parse ! avdec_h264" };
    let remedy = match source {
        SourceKind::File => "drop --file-passthrough so that it is re-encoded".to_owned(),
        SourceKind::Stdin | SourceKind::Publish => stdin.to_owned(),
        SourceKind::Rtsp => format!("{camera}, or take another of its streams"),
        SourceKind::Pipeline => format!("{pipeline}, or end it in raw video, so that it is encoded here"),
        // A picture made here is never coded before.
        SourceKind::Auto | SourceKind::Webcam | SourceKind::Csi | SourceKind::Test | SourceKind::Pip => {
            format!("{camera}, or have its pictures re-encoded: --pipeline \"v4l2src device=... ! {coded}\"")
        }
    };
    format!("the {} stream {what}; {remedy}", codec.title())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sps(profile_idc: u8, chroma_format: u8, frame_mbs_only: bool) -> SpsInfo {
        SpsInfo {
            profile_idc,
            constraint_flags: 0,
            level_idc: 40,
            width: 1920,
            height: 1080,
            chroma_format,
            bit_depth: (8, 8),
            max_num_ref_frames: 1,
            pic_order_cnt_type: 2,
            frame_mbs_only,
            fps: None,
            max_num_reorder_frames: None,
            max_dec_frame_buffering: None,
        }
    }

    #[test]
    fn what_every_decoder_takes_passes_and_the_rest_is_named() {
        for profile in [66, 77, 100] {
            assert_eq!(sps_problem(&sps(profile, 1, true)), None);
        }
        assert_eq!(sps_problem(&sps(100, 1, false)), Some(Problem::Interlaced));
        assert_eq!(sps_problem(&sps(110, 1, true)), Some(Problem::Format("10 bit (profile High 10)")));
        assert_eq!(sps_problem(&sps(244, 3, true)), Some(Problem::Format("4:4:4")));
        assert_eq!(sps_problem(&sps(122, 2, true)), Some(Problem::Format("4:2:2")));
        assert!(sps_problem(&sps(88, 1, true)).is_some() && sps_problem(&sps(118, 1, true)).is_some());
    }

    #[test]
    fn h265_is_judged_by_its_sps() {
        let sps = H265SpsInfo {
            chroma_format: 1,
            coded_width: 1920,
            coded_height: 1088,
            bit_depth: (8, 8),
            ..H265SpsInfo::default()
        };
        assert_eq!(h265_sps_problem(&sps), None);
        assert_eq!(h265_sps_problem(&H265SpsInfo { bit_depth: (10, 10), ..sps }), None);
        assert!(h265_sps_problem(&H265SpsInfo { bit_depth: (8, 12), ..sps }).is_some());
        assert_eq!(h265_sps_problem(&H265SpsInfo { chroma_format: 2, ..sps }), Some(Problem::Format("4:2:2")));
        assert_eq!(h265_sps_problem(&H265SpsInfo { interlaced: true, ..sps }), Some(Problem::Interlaced));
        assert_eq!(h265_sps_problem(&H265SpsInfo { max_num_reorder_pics: 2, ..sps }), Some(Problem::BFrames));
        let text = refusal(Codec::H265, Problem::BFrames, SourceKind::File);
        assert!(text.starts_with("the H.265 stream has B-frames"), "{text}");
    }

    #[test]
    fn of_mjpeg_that_is_refused_which_rtp_has_no_room_for_and_no_damaged_picture() {
        let usual: &[u8] = include_bytes!("../../../fuzz/corpus/jpeg/420.jpg");
        assert_eq!(problem(Codec::Mjpeg, usual), None);
        assert_eq!(problem(Codec::Mjpeg, &usual[..200]), None);
        let grey = problem(Codec::Mjpeg, include_bytes!("../../../fuzz/corpus/jpeg/grey.jpg")).expect("a problem");
        let text = refusal(Codec::Mjpeg, grey, SourceKind::Pipeline);
        assert!(text.starts_with("the MJPEG stream is grey without colour, which RTP has no room for"), "{text}");
        assert!(text.contains("format=I420 ! jpegenc, or end it"), "{text}");
    }

    #[test]
    fn a_picture_with_a_damaged_header_is_left_out_and_a_format_of_ten_is_refused() {
        let usual: &[u8] = include_bytes!("../../../fuzz/corpus/jpeg/420.jpg");
        let grey: &[u8] = include_bytes!("../../../fuzz/corpus/jpeg/grey.jpg");
        let mut judge = Judge::default();
        let mut judged = |au| judge.judge(Codec::Mjpeg, au);
        for _ in 0..20 {
            assert_eq!([judged(grey), judged(usual)], [Verdict::LeftOut, Verdict::Passes]);
        }
        assert!((1..REFUSED_AFTER).all(|_| judged(grey) == Verdict::LeftOut));
        assert_eq!(judged(grey), Verdict::Refused(Problem::Format("grey without colour")));
        let b = [0, 0, 1, 0x01, 0b1001_1100];
        assert_eq!(Judge::default().judge(Codec::H264, &b), Verdict::Refused(Problem::BFrames));
    }

    #[test]
    fn only_the_first_slice_is_asked_whether_it_is_a_b_slice() {
        // ue(0) is '1', ue(5) '00110', ue(6) '00111'.
        let (p, b) = ([0, 0, 1, 0x41, 0b1001_1000], [0, 0, 1, 0x01, 0b1001_1100]);
        assert_eq!(problem(Codec::H264, &b), Some(Problem::BFrames));
        assert_eq!(problem(Codec::H264, &[p, b].concat()), None);
        assert_eq!(problem(Codec::H264, &[]), None);
    }

    #[test]
    fn the_remedy_suits_the_source() {
        let text = |source| refusal(Codec::H264, Problem::BFrames, source);
        assert!(text(SourceKind::File).ends_with("; drop --file-passthrough so that it is re-encoded"));
        assert!(text(SourceKind::Stdin).ends_with("; make what writes it write none (ffmpeg: -bf 0)"));
        assert!(text(SourceKind::Pipeline).contains("; set bframes=0"));
        assert!(text(SourceKind::Webcam).contains("--pipeline \"v4l2src device=... "));
        let late = refusal(Codec::H264, Problem::NoKeyframeFor(Duration::from_secs(8)), SourceKind::Rtsp);
        assert_eq!(
            late,
            "the H.264 stream has sent no keyframe (IDR) for over 8 s, with which alone viewers can start; set the \
             camera's keyframe interval (GOP) to a second or two, or take another of its streams"
        );
        let none = refusal(Codec::H264, Problem::NoKeyframes, SourceKind::Stdin);
        assert!(none.contains("has no keyframes (IDR), with which"), "{none}");
        let pinned = refusal(Codec::H264, Problem::Format("4:4:4"), SourceKind::Pipeline);
        assert!(pinned.contains("is 4:4:4") && pinned.contains("video/x-raw,format=I420 ! x264enc"), "{pinned}");
        for source in [SourceKind::Stdin, SourceKind::Pipeline, SourceKind::Webcam, SourceKind::Auto] {
            assert!(!text(source).contains("--file-passthrough"));
        }
    }
}
