//! Real pipelines: the test source, files made with ffmpeg, pipes. Every wait has a bound.

use std::io::Write;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};

use rov_common::codec::{self, Codec};
use rov_common::latency_mode::LatencyMode;
use rov_common::units::{Bitrate, Fps, Resolution};
use rov_gst::counter::{self, Counter};

use super::*;
use crate::config::{CameraConfig, EncoderChoice, Flip, Preset, Profile, SourceKind};
use crate::pipeline::capture::waited;
use crate::pipeline::plan::Tail;
use crate::pipeline::probe::unused;
use crate::pipeline::{EncoderRow, PrepareError, encoder, playable, prepare, prepare_from, times};
use crate::rate_control::{Rate, Step};

pub(super) const WAIT: Duration = Duration::from_secs(30);

/// One of thirty a second.
pub(super) const FRAME: Duration = Duration::from_micros(33_333);

struct Running {
    graph: Graph,
    units: Receiver<AccessUnit>,
    events: Receiver<GraphEvent>,
}

impl Running {
    fn next(&self) -> AccessUnit {
        match self.units.recv_timeout(WAIT) {
            Ok(unit) => unit,
            Err(_) => {
                panic!("no access unit within {WAIT:?}; events: {:?}", self.events.try_iter().collect::<Vec<_>>())
            }
        }
    }

    fn take(&self, count: usize) -> Vec<AccessUnit> {
        (0..count).map(|_| self.next()).collect()
    }

    /// The first event that is not about the format.
    fn event(&self) -> GraphEvent {
        loop {
            match self.events.recv_timeout(WAIT) {
                Ok(GraphEvent::Format { .. }) => {}
                Ok(event) => return event,
                Err(error) => panic!("no event within {WAIT:?}: {error}"),
            }
        }
    }

    /// All units until the end of the stream.
    fn rest(&self) -> Vec<AccessUnit> {
        assert_eq!(self.event(), GraphEvent::Eos);
        self.units.try_iter().collect()
    }
}

pub(super) fn chosen(element: &str) -> [&'static EncoderRow; 1] {
    let codec = encoder::codec_of(element).unwrap();
    [encoder::rows(codec).iter().find(|row| row.element == element).unwrap()]
}

pub(super) fn small() -> CameraConfig {
    CameraConfig::usual().with_source(|source| source.kind = SourceKind::Test).with_encode(|encode| {
        encode.resolution = Some(Resolution::new(320, 240));
        encode.bitrate = Some(Bitrate::from_kbps(1000));
        encode.encoder = EncoderChoice::Element("x264enc".to_owned())
    })
}

pub(super) fn pipeline(text: &str) -> CameraConfig {
    small().with_source(|source| {
        source.kind = SourceKind::Pipeline;
        source.pipeline = Some(text.to_owned())
    })
}

pub(super) fn file(path: &Path) -> CameraConfig {
    small().with_source(|source| {
        source.kind = SourceKind::File;
        source.file = Some(path.to_owned())
    })
}

fn passthrough(path: &Path) -> CameraConfig {
    file(path).with_source(|source| source.file_passthrough = true)
}

fn run(plan: &Plan) -> Running {
    let (unit, units) = channel();
    let (event, events) = channel();
    // The other ends live as long as the graph; after that nobody listens, which is no error.
    let graph =
        Graph::start(&Hanging::default(), plan, move |_, u| drop(unit.send(u)), move |e| drop(event.send(e))).unwrap();
    Running { graph, units, events }
}

fn start_with(config: &CameraConfig, element: &str) -> Running {
    run(&prepare(config, &chosen(element)).unwrap())
}

fn start(config: &CameraConfig) -> Running {
    start_with(config, "x264enc")
}

/// Frames come in order, each whole intervals behind the one before, and mostly one. On a busy machine some are
/// missing.
pub(super) fn assert_even(units: &[AccessUnit], interval: Duration, what: &str) {
    let step = |pair: &[AccessUnit]| pair[1].pts.saturating_sub(pair[0].pts).as_secs_f64() / interval.as_secs_f64();
    let mut steps: Vec<_> = units.windows(2).map(step).collect();
    // Where a busy machine stood still for some pictures, the test source goes on with the times at which it draws: no
    // whole intervals, but no picture twice either, nor any in a burst.
    let mut after_standstill = 0;
    for step in &steps {
        after_standstill = if *step > 3.0 { 6 } else { after_standstill };
        let is_whole = (step - step.round()).abs() < 0.2 || after_standstill > 0;
        assert!(*step > 0.5 && is_whole, "{what}: intervals {steps:?}");
        after_standstill = i32::max(after_standstill - 1, 0);
    }
    steps.sort_by(f64::total_cmp);
    assert!(steps[(steps.len() - 1) / 2] < 1.5, "{what}: fewer frames than its rate: intervals {steps:?}");
}

/// As [`assert_even`], of a file that loops. `take` gives more than a round of it. Where a busy machine opens the file
/// late the round begins late, as nothing may come in a burst: then more of them are taken, until one is in time. In
/// none of them does a picture come twice or too early.
pub(super) fn assert_even_rounds(take: impl FnMut() -> Vec<AccessUnit>, interval: Duration, what: &str) {
    let late = |units: &[AccessUnit]| {
        let steps = units.windows(2).map(|pair| pair[1].pts.saturating_sub(pair[0].pts).as_secs_f64());
        let steps: Vec<_> = steps.map(|step| step / interval.as_secs_f64()).collect();
        assert!(steps.iter().all(|step| *step > 0.8), "{what}: intervals {steps:?}");
        steps.iter().filter(|step| **step > 1.0 && (**step - step.round()).abs() >= 0.2).count()
    };
    let mut rounds = std::iter::repeat_with(take).take(30);
    let units = rounds.find(|units| late(units) == 0).unwrap_or_else(|| panic!("{what}: each round begins late"));
    assert_even(&units, interval, what);
}

/// A folder of its own for each test, removed at its end.
pub(super) struct Folder(PathBuf);

impl Folder {
    pub(super) fn new(test: &str) -> Self {
        let path = std::env::temp_dir().join(format!("rov-graph-{test}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    /// One second at 25 frames a second, 320x240.
    pub(super) fn clip(&self, name: &str, arguments: &[&str]) -> PathBuf {
        let path = self.0.join(name);
        let input = ["-y", "-v", "error", "-f", "lavfi", "-i", "testsrc=size=320x240:rate=25:duration=1"];
        let status =
            Command::new("ffmpeg").args(input).args(["-pix_fmt", "yuv420p"]).args(arguments).arg(&path).status();
        assert!(status.expect("these tests need ffmpeg").success());
        path
    }

    fn without_b_frames(&self, name: &str) -> PathBuf {
        self.clip(name, &["-c:v", "libx264", "-bf", "0", "-g", "10"])
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).unwrap();
    }
}

fn slices(data: &[u8]) -> Vec<Vec<u8>> {
    codec::nal_units(data).filter(|nal| matches!(Codec::H264.nal_type(nal), 1 | 5)).map(<[u8]>::to_vec).collect()
}

fn nal_types(unit: &AccessUnit) -> Vec<u8> {
    codec::nal_units(&unit.data).map(|nal| Codec::H264.nal_type(nal)).collect()
}

#[test]
fn the_test_source_begins_with_a_keyframe_and_keeps_its_rate() {
    for element in ["x264enc", "openh264enc"] {
        let running = start_with(&small(), element);
        let begun = Instant::now();
        let units = running.take(20);
        let (age, took) = (units[19].captured_at.elapsed(), begun.elapsed());
        assert!(units[0].keyframe && units[1..].iter().all(|unit| !unit.keyframe), "{element}");
        let types = nal_types(&units[0]);
        let sets: Vec<_> = types.iter().filter(|kind| [5, 7, 8].contains(*kind)).take(3).collect();
        assert_eq!(sets, [&7, &8, &5], "{element}: {types:?}");
        assert_even(&units, FRAME, element);
        // None is held back for others; on a busy machine all take longer.
        assert!(age < took / 2, "{element}: the last of 20 pictures is {age:?} old, they took {took:?}");
        let format = GraphEvent::Format { stream: 0, resolution: Resolution::new(320, 240), fps: Some(Fps::whole(30)) };
        assert_eq!(running.events.try_recv(), Ok(format));
        let counters = running.graph.branches()[0].counters();
        assert!(counters.frames_out >= 20, "{counters:?}");
        assert!(counters.frames_dropped() <= 2 + counters.frames_in / 4, "{counters:?}");
        assert!(counters.last_in.is_some() && counters.last_out.is_some());
        assert_eq!(running.graph.branches()[0].encoder().unwrap().element, element);
        running.graph.stop(Duration::from_secs(2));
    }
}

#[test]
fn a_forced_keyframe_comes_within_three_frames() {
    for element in ["x264enc", "openh264enc"] {
        let running = start_with(&small(), element);
        running.take(5);
        running.graph.branches()[0].force_keyframe();
        let units = running.take(4);
        let keyframe = units.iter().find(|unit| unit.keyframe).unwrap_or_else(|| panic!("{element}: no keyframe"));
        let types = nal_types(keyframe);
        assert!(types.contains(&7) && types.contains(&8) && types.contains(&5), "{element}: {types:?}");
    }
}

#[test]
fn x265_begins_with_a_keyframe_and_gives_another_on_demand() {
    let running = start_with(&small().with_encode(|encode| encode.codec = Codec::H265), "x265enc");
    let units = running.take(20);
    assert!(units[0].keyframe && units[1..].iter().all(|unit| !unit.keyframe));
    running.graph.branches()[0].force_keyframe();
    let units = running.take(6);
    let keyframe = units.iter().find(|unit| unit.keyframe).expect("a keyframe on demand");
    let types: Vec<_> = codec::nal_units(&keyframe.data).map(|nal| Codec::H265.nal_type(nal)).collect();
    assert!([32, 33, 34].iter().all(|kind| types.contains(kind)), "{types:?}");
    assert!(units.iter().all(|unit| playable::problem(Codec::H265, &unit.data).is_none()), "nothing is reordered");
}

#[test]
fn a_changed_bitrate_changes_the_size_of_the_frames() {
    // Rich in detail, but not noise: openh264 cannot bring that below a rate of its own.
    let source = "videotestsrc is-live=true pattern=zone-plate kx2=20 ky2=20 kt=10 ! \
                  video/x-raw,width=320,height=240,framerate=30/1";
    let detail = pipeline(source);
    let mean = |units: &[AccessUnit]| units.iter().map(|unit| unit.data.len()).sum::<usize>() / units.len();
    for element in ["x264enc", "openh264enc", "x265enc"] {
        let codec = encoder::codec_of(element).unwrap();
        let config = detail.clone().with_encode(|encode| {
            encode.codec = codec;
            encode.bitrate = Some(Bitrate::from_kbps(3000))
        });
        let running = start_with(&config, element);
        running.take(5);
        let before = mean(&running.take(10));
        running.graph.branches()[0].set_bitrate(Bitrate::from_kbps(600)).unwrap();
        running.take(10);
        let after = mean(&running.take(10));
        assert_eq!(running.graph.branches()[0].bitrate(), Bitrate::from_kbps(600));
        assert!(after * 2 < before, "{element}: {before} bytes a frame became {after}");
    }
}

#[test]
fn an_automatic_bitrate_is_that_of_the_negotiated_size() {
    let config =
        pipeline("videotestsrc is-live=true ! video/x-raw,width=640,height=480,framerate=30/1").with_encode(|encode| {
            encode.bitrate = None;
            encode.resolution = None
        });
    let running = start(&config);
    running.next();
    assert_eq!(running.graph.branches()[0].bitrate(), Bitrate::from_kbps(3582));
}

#[test]
fn a_file_loops_without_a_jump_in_time() {
    let folder = Folder::new("loop");
    for path in [folder.without_b_frames("a.mp4"), folder.clip("b.mkv", &["-c:v", "mpeg4"])] {
        let running = start(&file(&path));
        for _ in 0..2 {
            assert_even_rounds(|| running.take(30), Duration::from_millis(40), &path.display().to_string());
        }
    }
}

#[test]
fn a_file_is_paced_as_live_and_ends_cleanly_without_loop() {
    let folder = Folder::new("noloop");
    let config = file(&folder.without_b_frames("a.mp4")).with_source(|source| source.looping = false);
    let begin = Instant::now();
    let running = start(&config);
    let units = running.rest();
    // All frames come; on a busy machine the encoder may miss some.
    let counters = running.graph.branches()[0].counters();
    assert_eq!((counters.frames_in, units.len() as u64), (25, counters.frames_to_encoder), "{counters:?}");
    assert!(units.len() > 12, "most of them go out: {counters:?}");
    assert!(begin.elapsed() > Duration::from_millis(900), "25 frames at 25 a second took {:?}", begin.elapsed());
}

#[test]
fn an_odd_sized_file_gets_an_even_picture() {
    let folder = Folder::new("odd");
    let path = folder.clip("odd.mkv", &["-vf", "scale=321:241", "-c:v", "ffv1", "-pix_fmt", "yuv444p"]);
    let running = start(&file(&path).with_encode(|encode| encode.resolution = None));
    running.next();
    let Ok(GraphEvent::Format { resolution, .. }) = running.events.try_recv() else { panic!("no format") };
    assert_eq!((resolution.width % 2, resolution.height % 2), (0, 0), "{resolution}");
}

#[test]
fn passthrough_sends_the_files_slices_bit_for_bit_at_its_own_timing() {
    let folder = Folder::new("passthrough");
    let source = folder.without_b_frames("a.h264");
    let expected = slices(&std::fs::read(&source).unwrap());
    let source = source.to_str().unwrap();
    for name in ["a.mp4", "a.mkv", "a.ts", "a.h264"] {
        let path = folder.0.join(name);
        if name != "a.h264" {
            let copy = ["-y", "-v", "error", "-r", "25", "-i", source, "-c", "copy"];
            assert!(Command::new("ffmpeg").args(copy).arg(&path).status().unwrap().success());
        }
        let running = start(&passthrough(&path).with_source(|source| source.looping = false));
        assert!(running.graph.branches()[0].encoder().is_none());
        let units = running.rest();
        let got: Vec<_> = units.iter().flat_map(|unit| slices(&unit.data)).collect();
        assert!(got == expected, "{name}: {} slices of {} are the file's", got.len(), expected.len());
        for pair in units.windows(2) {
            let step = (pair[1].pts.saturating_sub(pair[0].pts)).as_secs_f64() * 1000.0;
            assert!((step - 40.0).abs() < 2.0, "{name}: {step} ms");
        }
        let keyframes: Vec<_> = units.iter().filter(|unit| unit.keyframe).collect();
        assert_eq!(keyframes.len(), 3, "{name}");
        assert!(keyframes.iter().all(|unit| nal_types(unit).contains(&7) && nal_types(unit).contains(&8)), "{name}");
    }
}

#[test]
fn a_passed_through_file_of_h265_is_cut_into_pictures_and_one_with_b_frames_refused() {
    let folder = Folder::new("h265");
    let h265 = |name: &str, b_frames: &str| {
        folder.clip(name, &["-c:v", "libx265", "-preset", "ultrafast", "-x265-params", b_frames])
    };
    for name in ["a.mp4", "a.mkv", "a.ts", "a.h265"] {
        let path = h265(name, "log-level=none:bframes=0:keyint=10:min-keyint=10:scenecut=0");
        let config = passthrough(&path)
            .with_source(|source| source.looping = false)
            .with_encode(|encode| encode.codec = Codec::H265);
        let units = start(&config).rest();
        assert_eq!(units.len(), 25, "{name}");
        assert_eq!(units.iter().filter(|unit| unit.keyframe).count(), 3, "{name}");
        let first = codec::nal_units(&units[0].data).map(|nal| Codec::H265.nal_type(nal)).collect::<Vec<_>>();
        assert!([32, 33, 34].iter().all(|kind| first.contains(kind)), "{name}: {first:?}");
        // As H.264, which it is not, it is refused with what to do.
        let Err(PrepareError::Fatal(reason)) =
            prepare(&config.with_encode(|encode| encode.codec = Codec::H264), &[unused()])
        else {
            panic!("{name}: H.265 is no H.264")
        };
        assert!(reason.contains("--codec h265"), "{name}: {reason}");
    }
    let path = h265("b.mp4", "log-level=none:bframes=2:b-adapt=0");
    let config = passthrough(&path).with_encode(|encode| encode.codec = Codec::H265);
    let Err(PrepareError::Fatal(reason)) = prepare(&config, &[unused()]) else { panic!("B-frames") };
    assert!(reason.contains("the H.265 stream has B-frames"), "{reason}");
}

#[test]
fn frames_without_a_duration_are_played_at_their_rate() {
    let folder = Folder::new("mjpg");
    let path = folder.clip("a.mjpg", &["-c:v", "mjpeg"]);
    let text = format!("filesrc location={} ! jpegparse ! jpegdec", path.display());
    for config in [file(&path), pipeline(&text).with_source(|source| source.looping = true)] {
        let running = start(&config);
        // A user's pipeline ends after its 25. A busy machine may leave frames out, but all come when they are due.
        for pair in running.take(15).windows(2) {
            let intervals = (pair[1].pts - pair[0].pts).as_secs_f64() / FRAME.as_secs_f64();
            assert!(
                intervals > 0.9 && (intervals - intervals.round()).abs() < 0.1,
                "{:?}: {intervals}",
                config.source.kind
            );
        }
        assert!(running.graph.counters().next_due.is_some());
    }
}

#[test]
fn a_fast_file_is_thinned_and_the_encoder_knows_the_rate_that_is_left() {
    let folder = Folder::new("fast");
    let path = folder.clip("a.mkv", &["-vf", "fps=50", "-c:v", "mpeg4"]);
    let running = start(&file(&path).with_encode(|encode| encode.fps = Some(Fps::whole(25))));
    assert_even_rounds(|| running.take(40), Duration::from_millis(40), "50 to 25");
    let Ok(GraphEvent::Format { fps, .. }) = running.events.try_recv() else { panic!("no format") };
    assert_eq!(fps, Some(Fps::whole(25)));
}

#[test]
fn a_file_with_a_pause_in_it_says_when_it_goes_on() {
    let folder = Folder::new("pause");
    let pause = ["-vf", "setpts=PTS+gte(N\\,10)*1.5/TB", "-fps_mode", "vfr", "-c:v", "libx264", "-bf", "0"];
    let path = folder.clip("a.mp4", &pause);
    for config in [file(&path), passthrough(&path)] {
        let running = start(&config.with_source(|source| source.looping = false));
        let shown = running.next().captured_at;
        let end = Instant::now() + WAIT;
        let pause = loop {
            let due = running.graph.counters().next_due.unwrap().saturating_duration_since(shown);
            if due > Duration::from_secs(1) {
                break due.as_secs_f64();
            }
            assert!(Instant::now() < end, "the next picture is due {due:?} after the first");
            thread::sleep(Duration::from_millis(5));
        };
        // Ten pictures and the pause.
        assert!((1.8..2.0).contains(&pause), "{pause}");
        let units = running.rest();
        let dropped = running.graph.branches()[0].counters().frames_dropped() as usize;
        assert!(units.len() + dropped >= 20, "{} and {dropped} that were left out", units.len());
        let gap = units.windows(2).map(|pair| (pair[1].pts - pair[0].pts).as_secs_f64()).fold(0.0, f64::max);
        assert!((1.4..2.0).contains(&gap), "{gap}");
    }
}

#[test]
fn a_file_without_video_is_refused_at_once_and_in_plain_words() {
    let folder = Folder::new("novideo");
    let video = std::fs::read(folder.without_b_frames("a.mp4")).unwrap();
    let truncated = folder.0.join("truncated.mp4");
    std::fs::write(&truncated, &video[..2000]).unwrap();
    let zeros = folder.0.join("zeros.bin");
    std::fs::write(&zeros, vec![0; 300_000]).unwrap();
    let sound = folder.0.join("a.wav");
    let sine = ["-y", "-v", "error", "-f", "lavfi", "-i", "sine=duration=1"];
    assert!(Command::new("ffmpeg").args(sine).arg(&sound).status().unwrap().success());
    let png = folder.clip("a.png", &["-frames:v", "1"]);
    let jpeg = folder.clip("a.jpg", &["-frames:v", "1"]);
    for (path, reason) in [
        (truncated, "no video in it (qtdemux: "),
        (zeros, "no video in it (typefind: "),
        (sound, "no video in it"),
        (png, "is a picture, not a video"),
        (jpeg, "is a picture, not a video"),
        (folder.clip("a.gif", &["-r", "5"]), "is a GIF animation, "),
    ] {
        match prepare(&file(&path), &chosen("x264enc")) {
            Err(PrepareError::Fatal(message)) => {
                let start = format!("--file {}: {reason}", path.display());
                assert!(message.starts_with(&start) && !message.contains("not-linked"), "{message}");
            }
            other => panic!("{}: {other:?}", path.display()),
        }
    }
}

#[test]
fn what_no_browser_decodes_is_refused_with_a_remedy() {
    let running = start(&pipeline("videotestsrc is-live=true ! video/x-raw,width=320,height=240 ! x264enc"));
    let GraphEvent::Refused(reason) = running.event() else { panic!("4:4:4 must be refused") };
    assert!(reason.contains("is 4:4:4") && reason.contains("video/x-raw,format=I420 ! x264enc"), "{reason}");
    assert!(running.units.try_recv().is_err());

    let folder = Folder::new("formats");
    let fields = "interlace=tff:bframes=0:log-level=none";
    for (codec, name, arguments, what) in [
        (Codec::H264, "ten.mp4", &["-c:v", "libx264", "-bf", "0", "-pix_fmt", "yuv420p10le"][..], "is 10 bit"),
        (Codec::H264, "colour.mp4", &["-c:v", "libx264", "-bf", "0", "-pix_fmt", "yuv422p"], "is 4:2:2"),
        (Codec::H264, "fields.mp4", &["-c:v", "libx264", "-bf", "0", "-flags", "+ildct+ilme"], "is interlaced"),
        (Codec::H265, "fields.mkv", &["-c:v", "libx265", "-x265-params", fields], "is interlaced"),
    ] {
        let config = passthrough(&folder.clip(name, arguments)).with_encode(|encode| encode.codec = codec);
        match prepare(&config, &chosen("x264enc")) {
            Err(PrepareError::Fatal(message)) => {
                assert!(message.contains(what) && message.contains("drop --file-passthrough"), "{message}");
            }
            other => panic!("{name}: {other:?}"),
        }
    }
}

#[test]
fn a_device_that_hangs_is_not_opened_again_until_it_lets_go() {
    let folder = Folder::new("hang");
    let fifo = folder.0.join("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    // Opening a FIFO blocks until somebody writes to it, as a broken driver does for ever.
    let plan = prepare(&pipeline(&format!("filesrc location={} ! h264parse", fifo.display())), &chosen("x264enc"));
    let plan = plan.unwrap();
    let hanging = Hanging::default();
    let attempt = || Graph::start(&hanging, &plan, |_, _| (), |_| ()).unwrap_err().to_string();
    assert!(attempt().contains("has not started after 5 s"));
    let work = hanging.count();
    assert!(attempt().contains("the former attempt still hangs in the driver"));
    assert_eq!(hanging.count(), work, "it was tried");
    // Another source is free.
    let other = prepare(&small(), &chosen("x264enc")).unwrap();
    Graph::start(&hanging, &other, |_, _| (), |_| ()).unwrap().stop(Duration::from_secs(2));
    let end = Instant::now() + WAIT;
    while hanging.count() > 0 {
        assert!(Instant::now() < end, "{} are still hanging", hanging.count());
        // Open for both, this end never blocks; closed again, it is the file's end for whoever reads.
        drop(std::fs::OpenOptions::new().read(true).write(true).open(&fifo).unwrap());
        thread::sleep(Duration::from_millis(10));
    }
}

/// One thread for it at most, however often it is tried.
#[test]
fn a_look_that_hangs_is_not_repeated_until_it_is_over() {
    let hanging = Hanging::default();
    let (release, released) = std::sync::mpsc::channel::<()>();
    let began = Arc::new(AtomicU64::new(0));
    let look = |limit, released: Option<std::sync::mpsc::Receiver<()>>| {
        let began = Arc::clone(&began);
        hanging.attempt("looking", limit, move || {
            began.fetch_add(1, Ordering::Relaxed);
            released.map(|released| released.recv())
        })
    };
    let limit = Duration::from_millis(100);
    assert_eq!(look(limit, Some(released)).unwrap_err(), "looking took longer than 0.1 s");
    for _ in 0..10 {
        assert!(look(WAIT, None).unwrap_err().contains("the former attempt still hangs"));
    }
    assert_eq!((hanging.count(), began.load(Ordering::Relaxed)), (1, 1));
    drop(release);
    let end = Instant::now() + WAIT;
    while look(WAIT, None).is_err() {
        assert!(Instant::now() < end, "it is over");
        thread::sleep(Duration::from_millis(5));
    }
    assert!(!hanging.any());
}

#[test]
fn a_passed_through_file_loops_too() {
    let folder = Folder::new("passloop");
    let running = start(&passthrough(&folder.without_b_frames("a.ts")));
    let units = running.take(60);
    for pair in units.windows(2) {
        let step = (pair[1].pts.saturating_sub(pair[0].pts)).as_secs_f64() * 1000.0;
        assert!((step - 40.0).abs() < 2.0, "{step} ms at {:?}", pair[0].pts);
    }
    assert!(units[25].keyframe && units[50].keyframe);
    assert!(running.graph.branches()[0].set_bitrate(Bitrate::from_kbps(1000)).is_err());
}

#[test]
fn what_viewers_cannot_show_is_refused_before_it_is_served() {
    let folder = Folder::new("refused");
    let refusal = |path: &Path| match prepare(&passthrough(path), &chosen("x264enc")) {
        Err(PrepareError::Fatal(message)) => message,
        other => panic!("{}: {other:?}", path.display()),
    };
    for path in [
        folder.clip("b.mp4", &["-c:v", "libx264", "-bf", "2"]),
        folder.clip("b.h264", &["-c:v", "libx264", "-bf", "2"]),
    ] {
        let message = refusal(&path);
        assert!(message.contains("B-frames") && message.contains("drop --file-passthrough"), "{message}");
    }
    for path in [folder.clip("m.mp4", &["-c:v", "mpeg4"]), folder.clip("m.avi", &["-c:v", "mpeg4"])] {
        let message = refusal(&path);
        assert!(message.contains("H.264") && message.contains("drop --file-passthrough"), "{message}");
    }
    let message = refusal(&folder.0.join("none.mp4"));
    assert!(message.contains("none.mp4: No such file"), "{message}");
}

#[test]
fn b_frames_that_show_up_at_run_time_are_refused_once() {
    let text = "videotestsrc is-live=true ! video/x-raw,format=I420,width=320,height=240,framerate=30/1 ! x264enc \
                bframes=2 b-adapt=false rc-lookahead=2 sync-lookahead=0";
    let running = start(&pipeline(text));
    let GraphEvent::Refused(reason) = running.event() else { panic!("B-frames must be refused") };
    assert!(reason.contains("B-frames"), "{reason}");
    let came = || running.graph.branches()[0].counters().frames_in;
    let (refused_at, end) = (came(), Instant::now() + WAIT);
    while came() < refused_at + 30 {
        assert!(Instant::now() < end, "no more pictures come");
        thread::sleep(Duration::from_millis(5));
    }
    assert!(running.events.try_recv().is_err(), "said once");
}

#[test]
fn a_users_pipeline_may_give_h264_and_takes_keyframe_requests() {
    let running = start(&pipeline(
        "videotestsrc is-live=true ! video/x-raw,format=I420,width=320,height=240,framerate=30/1 ! x264enc \
         tune=zerolatency key-int-max=2560",
    ));
    assert!(running.next().keyframe);
    assert!(running.graph.branches()[0].encoder().is_none());
    running.take(5);
    running.graph.branches()[0].force_keyframe();
    assert!(running.take(4).iter().any(|unit| unit.keyframe));
}

#[test]
fn a_source_that_is_too_fast_is_thinned_out_evenly_and_without_delay() {
    let running = start(&pipeline("videotestsrc is-live=true ! video/x-raw,width=320,height=240,framerate=60/1"));
    let units = running.take(20);
    let span = units[19].pts - units[0].pts;
    assert!(span + Duration::from_millis(1) > FRAME * 19, "20 frames in {span:?}");
    // A frame that is held until the next one comes is 16 ms old, each of them; on a busy machine only some are.
    assert!((0..300).any(|_| running.next().captured_at.elapsed() < Duration::from_millis(14)));
}

#[test]
fn a_users_pipeline_that_is_not_live_is_paced() {
    let running = start(&pipeline("videotestsrc num-buffers=15 ! video/x-raw,width=320,height=240,framerate=30/1"));
    let begin = Instant::now();
    running.rest();
    assert_eq!(running.graph.branches()[0].counters().frames_in, 15);
    assert!(begin.elapsed() > Duration::from_millis(400), "{:?}", begin.elapsed());
}

#[test]
fn sources_that_are_no_cameras_have_none() {
    assert_eq!(crate::pipeline::cameras_present(&small().source), []);
    assert_eq!(crate::pipeline::cameras_present(&pipeline("videotestsrc").source), []);
    // As prepare sees it, whatever this machine has.
    let auto = small().with_source(|source| source.kind = SourceKind::Auto);
    let fallback = prepare(&auto, &chosen("x264enc")).unwrap().substitute.is_some();
    assert_eq!(crate::pipeline::cameras_present(&auto.source).is_empty(), fallback);
}

#[test]
fn a_wrong_text_of_a_pipeline_is_said_at_once() {
    let error = prepare(&pipeline("videotestsrc ! nosuchelement"), &chosen("x264enc")).unwrap_err();
    let PrepareError::Fatal(message) = error else { panic!("{error:?}") };
    assert_eq!(message, "--pipeline 'videotestsrc ! nosuchelement': no element \"nosuchelement\"");
}

#[test]
fn a_pipeline_that_ends_in_something_else_is_refused() {
    let PrepareError::Fatal(message) =
        prepare(&pipeline("videotestsrc is-live=true ! jpegenc"), &chosen("x264enc")).unwrap_err()
    else {
        panic!("another try would end alike");
    };
    assert!(message.ends_with("; it must end in raw or H.264 video"), "{message}");
}

#[test]
fn a_source_that_is_lost_is_an_error_that_names_the_element() {
    let running = start(&pipeline(
        "videotestsrc is-live=true ! video/x-raw,width=320,height=240,framerate=30/1 ! identity error-after=10",
    ));
    let GraphEvent::Error(Failure::Source(message)) = running.event() else { panic!("a lost source is an error") };
    assert!(message.starts_with("identity: "), "{message}");
    assert!(running.units.try_iter().count() > 0);
}

/// By where it happens, whatever the text says: here in the place of the encoder's upload.
#[test]
fn a_failure_behind_the_source_is_the_encoders() {
    let mut plan = prepare(&small(), &chosen("x264enc")).unwrap();
    let Tail::Fixed(tail) = &mut plan.branches[0].tail else { panic!("the test source has one tail") };
    *tail = tail.replace("! x264enc", "! identity error-after=5 ! x264enc");
    let event = run(&plan).event();
    assert!(matches!(event, GraphEvent::Error(Failure::Encoder { .. })), "{event:?}");
}

#[test]
fn a_webcam_that_is_missing_can_be_tried_again() {
    let config = small().with_source(|source| {
        source.kind = SourceKind::Webcam;
        source.device = Some("/dev/video987".to_owned())
    });
    let error = prepare(&config, &chosen("x264enc")).unwrap_err();
    assert!(
        matches!(&error, PrepareError::Retry(message) if message.starts_with("no webcam /dev/video987: ")),
        "{error:?}"
    );
}

#[test]
fn a_slow_encoder_loses_raw_frames_and_gains_no_delay() {
    let mut plan = prepare(&small(), &chosen("x264enc")).unwrap();
    let Tail::Fixed(tail) = &mut plan.branches[0].tail else { panic!("the test source has one tail") };
    *tail = tail.replace("! x264enc", "! identity sleep-time=100000 ! x264enc");
    let running = run(&plan);
    running.next();
    let begin = Instant::now();
    let units = running.take(20);
    let (age, took) = (units[19].captured_at.elapsed(), begin.elapsed());
    let counters = running.graph.branches()[0].counters();
    assert!(counters.frames_dropped() > 0, "{counters:?}");
    // Two or three times what one frame takes, and not more with each frame, however slow this machine is.
    assert!(age < took / 3, "the last of 20 frames is {age:?} old, they took {took:?}");
    running.graph.stop(Duration::from_secs(2));
}

/// `jpegparse` alone ends the pipeline at each, and `jpegdec` alone shows the rest of the picture grey.
#[test]
fn damaged_jpeg_pictures_are_left_out_and_counted() {
    let folder = Folder::new("jpeg");
    let first = folder.clip("%02d.jpg", &[]);
    let location = first.to_str().unwrap();
    for number in [3, 4, 9, 15, 24] {
        let path = location.replace("%02d", &format!("{number:02}"));
        let data = std::fs::read(&path).unwrap();
        std::fs::write(&path, &data[..data.len() / 2]).unwrap();
    }
    for decode in ["jpegdec", "jpegparse ! jpegdec"] {
        let source =
            format!("multifilesrc location={location} start-index=1 stop-index=25 caps=image/jpeg,framerate=25/1");
        let running = start(&pipeline(&format!("{source} ! {decode}")));
        assert_eq!(running.event(), GraphEvent::Eos, "{decode}");
        let counters = running.graph.branches()[0].counters();
        assert_eq!((counters.frames_in, running.graph.counters().frames_damaged), (20, 5), "{decode}: {counters:?}");
    }
    // One behind the other, from a file and from a pipe.
    let stream: Vec<_> =
        (1..=25).flat_map(|number| std::fs::read(location.replace("%02d", &format!("{number:02}"))).unwrap()).collect();
    let file = folder.0.join("all.mjpg");
    std::fs::write(&file, &stream).unwrap();
    let (reader, mut writer) = std::io::pipe().unwrap();
    let writes = std::thread::spawn(move || writer.write_all(&stream));
    for source in [format!("filesrc location={}", file.display()), format!("fdsrc fd={}", reader.as_raw_fd())] {
        let running = start(&pipeline(&format!("{source} ! jpegparse ! jpegdec")));
        assert_eq!(running.event(), GraphEvent::Eos, "{source}");
        let counters = running.graph.branches()[0].counters();
        assert_eq!((counters.frames_in, running.graph.counters().frames_damaged), (20, 5), "{source}: {counters:?}");
    }
    writes.join().unwrap().unwrap();
}

/// With both ends they are whole to a parser; decoders show the rest grey.
#[test]
fn jpeg_pictures_that_miss_something_in_their_middle_are_left_out_and_counted() {
    let folder = Folder::new("jpeg-gap");
    for (kind, options) in [("420", "yuvj420p"), ("422", "yuvj422p"), ("444", "yuvj444p"), ("grey", "gray")] {
        let first = folder.clip(&format!("{kind}-%02d.jpg"), &["-pix_fmt", options, "-huffman", "default"]);
        let location = first.to_str().unwrap();
        let path = |number: u32| location.replace("%02d", &format!("{number:02}"));
        let change = |number: u32, change: &dyn Fn(&mut Vec<u8>)| {
            let mut data = std::fs::read(path(number)).unwrap();
            change(&mut data);
            std::fs::write(path(number), &data).unwrap();
        };
        change(3, &|data| drop(data.drain(data.len() / 2..data.len() - 2)));
        change(9, &|data| drop(data.drain(data.len() / 2..data.len() / 2 + 500)));
        change(15, &|data| {
            let middle = data.len() / 2;
            data[middle..middle + middle / 2].fill(0);
        });
        for decode in ["jpegdec", "jpegparse ! jpegdec"] {
            let source =
                format!("multifilesrc location={location} start-index=1 stop-index=25 caps=image/jpeg,framerate=25/1");
            let running = start(&pipeline(&format!("{source} ! {decode}")));
            assert_eq!(running.event(), GraphEvent::Eos, "{kind} {decode}");
            let counters = running.graph.branches()[0].counters();
            let damaged = running.graph.counters().frames_damaged;
            assert_eq!((counters.frames_in, damaged), (22, 3), "{kind} {decode}: {counters:?}");
        }
    }
}

/// A camera all of whose pictures lack their last rows is shown, as any picture is better than none.
#[test]
fn jpeg_pictures_that_all_miss_something_are_shown() {
    let folder = Folder::new("jpeg-short");
    let first = folder.clip("%02d.jpg", &[]);
    let location = first.to_str().unwrap();
    for number in 1..=25 {
        let path = location.replace("%02d", &format!("{number:02}"));
        let mut data = std::fs::read(&path).unwrap();
        data.drain(data.len() - 200..data.len() - 2);
        std::fs::write(&path, &data).unwrap();
    }
    let source = format!("multifilesrc location={location} start-index=1 stop-index=25 caps=image/jpeg,framerate=25/1");
    let running = start(&pipeline(&format!("{source} ! jpegdec")));
    assert_eq!(running.event(), GraphEvent::Eos);
    let counters = running.graph.branches()[0].counters();
    assert_eq!((counters.frames_in, running.graph.counters().frames_damaged), (25, 0), "{counters:?}");
}

#[test]
fn what_is_not_the_raw_codec_on_standard_input_is_refused_though_its_writer_waits() {
    let (reader, mut writer) = std::io::pipe().unwrap();
    let config = small().with_source(|source| source.kind = SourceKind::Stdin);
    let running = run(&prepare_from(&config, &chosen("x264enc"), reader.as_raw_fd()).unwrap());
    writer.write_all(&[0x37; 2000]).unwrap();
    match running.event() {
        GraphEvent::Refused(reason) => assert!(reason.contains("standard input is not recognized"), "{reason}"),
        other => panic!("{other:?}"),
    }
    drop(writer);
}

#[test]
fn standard_input_is_sent_untouched_until_it_ends() {
    let folder = Folder::new("stdin");
    let data = std::fs::read(folder.without_b_frames("a.h264")).unwrap();
    let (reader, mut writer) = std::io::pipe().unwrap();
    let config = small().with_source(|source| source.kind = SourceKind::Stdin);
    let running = run(&prepare_from(&config, &chosen("x264enc"), reader.as_raw_fd()).unwrap());
    let begun = Instant::now();
    writer.write_all(&data).unwrap();
    drop(writer);
    let units = running.rest();
    assert_eq!(units.len(), 25);
    // As after a standstill of the process, all come at once: their times must not run ahead, but for what keeps them
    // apart.
    let (spread, took) = (units[24].pts - units[0].pts, begun.elapsed());
    assert!(spread <= took + times::STEP * 24, "{spread:?} in {took:?}");
    assert!(units[0].keyframe);
    let got: Vec<_> = units.iter().flat_map(|unit| slices(&unit.data)).collect();
    assert!(got == slices(&data));
    assert!(units.windows(2).all(|pair| pair[0].pts < pair[1].pts));
}

#[test]
fn a_file_as_standard_input_is_paced_by_its_frame_rate() {
    let folder = Folder::new("stdin-file");
    let path = folder.without_b_frames("a.h264");
    let file = std::fs::File::open(&path).unwrap();
    let config = small().with_source(|source| source.kind = SourceKind::Stdin);
    let begun = Instant::now();
    let units = run(&prepare_from(&config, &chosen("x264enc"), file.as_raw_fd()).unwrap()).rest();
    assert_eq!(units.len(), 25);
    assert_even(&units, Duration::from_millis(40), "a.h264");
    assert!(begun.elapsed() > Duration::from_millis(900), "{:?}", begun.elapsed());
}

#[test]
fn of_what_comes_at_once_from_a_pipe_after_a_standstill_the_newest_group_goes_out() {
    let folder = Folder::new("burst");
    let data = std::fs::read(folder.without_b_frames("a.h264")).unwrap();
    for users in [false, true] {
        let (reader, mut writer) = std::io::pipe().unwrap();
        let fd = reader.as_raw_fd();
        let config = match users {
            false => small().with_source(|source| source.kind = SourceKind::Stdin),
            true => pipeline(&format!("fdsrc fd={fd} ! video/x-h264 ! h264parse")),
        };
        let running = run(&prepare_from(&config, &chosen("x264enc"), fd).unwrap());
        writer.write_all(&data).unwrap();
        // Parsers hold the last one or two until they know their end.
        let mut units = running.take(20);
        thread::sleep(Duration::from_millis(700));
        writer.write_all(&data).unwrap();
        drop(writer);
        units.extend(running.rest());
        let got: Vec<_> = units.iter().flat_map(|unit| slices(&unit.data)).collect();
        let all = slices(&data);
        // Keyframes are the first and each tenth picture.
        let expected: Vec<_> = all.iter().chain(&all[20..]).cloned().collect();
        assert!(got == expected, "users: {users}, {} pictures", units.len());
    }
}

#[test]
fn viewers_do_not_begin_at_a_cameras_keyframe_that_has_waited() {
    assert!(
        waited(SourceKind::Rtsp, Duration::from_secs(5)) && !waited(SourceKind::Rtsp, Duration::from_millis(1_500))
    );
    assert!(!waited(SourceKind::Pipeline, Duration::from_secs(10)), "it may have a clock of its own");
}

#[test]
fn after_stop_nothing_more_is_delivered() {
    let running = start(&small());
    running.next();
    let Running { graph, units, .. } = running;
    graph.stop(Duration::from_secs(2));
    units.try_iter().for_each(drop);
    // Whoever could deliver something is gone.
    assert_eq!(units.recv_timeout(WAIT).err(), Some(RecvTimeoutError::Disconnected));
}

#[test]
fn a_source_that_cannot_start_says_why() {
    let config = pipeline("filesrc location=/no/such/file ! h264parse");
    let plan = prepare(&config, &chosen("x264enc")).unwrap();
    let error = Graph::start(&Hanging::default(), &plan, |_, _| (), |_| ()).unwrap_err();
    assert!(error.to_string().starts_with("filesrc /no/such/file: Resource not found"), "{error}");
}

#[test]
fn a_stopped_graph_leaves_nothing_of_its_pipeline_behind() {
    let running = start(&small());
    running.next();
    let Running { graph, .. } = running;
    let branch = Arc::clone(&graph.branches()[0]);
    let output = branch.output.get().unwrap();
    let (encoder, sink) = (output.encoder.as_ref().unwrap().0.clone(), output.sink.clone());
    graph.stop(Duration::from_secs(2));
    // The thread that stopped it lets go of it a moment after it has said so.
    let end = Instant::now() + WAIT;
    while encoder.upgrade().is_some() || sink.upgrade().is_some() {
        assert!(Instant::now() < end, "elements are still alive {WAIT:?} after the stop");
        thread::yield_now();
    }
}

#[test]
fn a_pipeline_that_hangs_does_not_hold_up_its_owner() {
    let plan = prepare(&small(), &chosen("x264enc")).unwrap();
    let (entered, in_callback) = channel();
    let (release, released) = channel::<()>();
    let (released, hangs) = (Mutex::new(released), Arc::new(AtomicBool::new(true)));
    let is_over = Arc::clone(&hangs);
    let hang = move |_, _| {
        entered.send(()).unwrap();
        // Ends when the test drops its end.
        let _ = released.lock().unwrap().recv_timeout(2 * WAIT);
        is_over.store(false, Ordering::Relaxed);
    };
    let graph = Graph::start(&Hanging::default(), &plan, hang, |_| ()).unwrap();
    in_callback.recv_timeout(WAIT).expect("no access unit came");
    let source = graph.pipeline.by_name(plan::JOIN).expect("the head's last element");
    graph.stop(Duration::from_millis(200));
    // On a busy machine that takes longer than it is waited for.
    let end = Instant::now() + WAIT;
    while source.current_state() != gst::State::Null {
        assert!(Instant::now() < end, "its camera is not free for the next pipeline");
        thread::sleep(Duration::from_millis(5));
    }
    assert!(hangs.load(Ordering::Relaxed), "all of that while it hangs");
    drop(release);
}

/// Rich in detail, 640x480.
const DETAIL: &str = "videotestsrc is-live=true pattern=zone-plate kx2=20 ky2=20 kt=10 ! \
                      video/x-raw,width=640,height=480,framerate=30/1";

pub(super) fn rate(kbps: u32, step: Step) -> Rate {
    Rate { bitrate: Bitrate::from_kbps(kbps), step, pause_until: None }
}

#[test]
fn a_new_bit_rate_shows_within_two_frames_and_costs_no_keyframe() {
    for element in ["x264enc", "openh264enc"] {
        let config = pipeline(DETAIL).with_encode(|encode| {
            encode.bitrate = Some(Bitrate::from_kbps(3000));
            encode.resolution = None
        });
        let running = start_with(&config, element);
        let before = running.take(30);
        let before: usize = before[20..].iter().map(|unit| unit.data.len()).sum::<usize>() / 10;
        assert!(running.graph.branches()[0].apply(&rate(1000, Step::Full)).unwrap());
        assert!(!running.graph.branches()[0].apply(&rate(1000, Step::Full)).unwrap(), "nothing new");
        // One was in the encoder, and one before it.
        running.take(2 + 2);
        let units = running.take(10);
        let after: usize = units.iter().map(|unit| unit.data.len()).sum::<usize>() / 10;
        println!("{element}: {before} {after}");
        assert!(units.iter().all(|unit| !unit.keyframe), "{element}");
        assert!(after * 2 < before, "{element}: {before} bytes a frame became {after}");
    }
}

#[test]
fn the_picture_becomes_smaller_and_whole_again_at_the_cost_of_one_keyframe_each() {
    for row in encoder::rows(Codec::H264).iter().filter(|row| row.live_size != encoder::LiveSize::No) {
        let config = pipeline(DETAIL).with_encode(|encode| {
            encode.bitrate = Some(Bitrate::from_kbps(1000));
            encode.resolution = None
        });
        let running = start_with(&config, row.element);
        running.take(5);
        let ceiling = running.graph.branches()[0].ceiling().expect("a pipeline that runs");
        assert_eq!((ceiling.resolution, ceiling.bitrate.kbps()), (Resolution::new(640, 480), 1000));
        for (step, resolution) in [(Step::Half, Resolution::new(320, 240)), (Step::Full, Resolution::new(640, 480))] {
            running.events.try_iter().for_each(drop);
            assert!(running.graph.branches()[0].apply(&rate(300, step)).unwrap());
            let units = running.take(12);
            let formats: Vec<_> = running.events.try_iter().collect();
            let expected = GraphEvent::Format { stream: 0, resolution, fps: Some(Fps::whole(30)) };
            assert_eq!(formats, [expected], "{}", row.element);
            assert_eq!(units.iter().filter(|unit| unit.keyframe).count(), 1, "{}", row.element);
            assert_eq!(running.graph.branches()[0].ceiling(), Some(ceiling));
        }
    }
}

#[test]
fn half_the_pictures_get_the_same_bit_rate() {
    for element in ["x264enc", "openh264enc"] {
        let config = pipeline(DETAIL).with_encode(|encode| {
            encode.bitrate = Some(Bitrate::from_kbps(1000));
            encode.resolution = None
        });
        let running = start_with(&config, element);
        let look = |count: usize| {
            let units = running.take(count);
            let seconds = (units[count - 1].pts - units[0].pts).as_secs_f64();
            let bytes = units[1..].iter().map(|unit| unit.data.len()).sum::<usize>();
            ((count - 1) as f64 / seconds, bytes as f64 / (count - 1) as f64)
        };
        running.take(5);
        running.graph.branches()[0].apply(&rate(400, Step::Half)).unwrap();
        running.take(20);
        let (_, before) = look(40);
        running.graph.branches()[0].apply(&rate(400, Step::HalfRate)).unwrap();
        running.take(10);
        let (fps, after) = look(30);
        // On a busy machine some more are left out.
        assert!((5.0..18.0).contains(&fps), "{element}: {fps}");
        assert!((1.2..2.8).contains(&(after / before)), "{element}: {before} bytes a picture became {after}");
    }
}

#[test]
fn no_picture_goes_to_the_encoder_while_it_is_held() {
    let running = start(&small());
    let queue = running.graph.pipeline.by_name(plan::RAW_QUEUE).unwrap().static_pad("sink").unwrap();
    let source = Arc::new(Counter::new(Instant::now()));
    counter::count(&queue.peer().unwrap(), &source);
    running.take(5);
    let hold = |until| {
        running.graph.branches()[0].apply(&Rate { pause_until: Some(until), ..rate(1000, Step::Full) }).unwrap();
    };
    let the_source_gives = |more: u64| {
        let (from, end) = (source.count(), Instant::now() + WAIT);
        while source.count() < from + more {
            assert!(Instant::now() < end, "the source is held as well");
            thread::sleep(Duration::from_millis(5));
        }
    };
    hold(Instant::now() + Duration::from_secs(3_600));
    // One may have just passed.
    the_source_gives(2);
    let before = running.graph.branches()[0].counters().frames_in;
    the_source_gives(20);
    assert_eq!(running.graph.branches()[0].counters().frames_in, before);
    hold(Instant::now());
    running.units.try_iter().for_each(drop);
    assert!(
        running.take(10).iter().all(|unit| !unit.keyframe),
        "what is left out before the encoder costs no keyframe"
    );
}

#[test]
fn a_pipeline_that_starts_again_begins_with_the_rate_that_the_links_carry() {
    let mut plan = prepare(&small(), &chosen("x264enc")).unwrap();
    plan.branches[0].limit = Some(Bitrate::from_kbps(400));
    let running = run(&plan);
    running.next();
    assert_eq!(running.graph.branches()[0].bitrate(), Bitrate::from_kbps(400));
    assert_eq!(running.graph.branches()[0].ceiling().map(|ceiling| ceiling.bitrate.kbps()), Some(1000));
}

#[test]
fn an_encoder_that_rests_gives_nothing_and_wakes_with_a_keyframe_of_a_new_picture() {
    let better = small().with_encode(|encode| encode.latency = LatencyMode::Normal);
    for (element, config) in [("x264enc", small()), ("openh264enc", small()), ("x264enc", better)] {
        let running = start_with(&config, element);
        running.take(20);
        running.graph.branches()[0].rest();
        // One may be on its way out while the valve is shut.
        let out = || running.graph.branches()[0].counters().frames_out;
        let came_in = |more: u64| {
            let (from, end) = (running.graph.branches()[0].counters().frames_in, Instant::now() + WAIT);
            while running.graph.branches()[0].counters().frames_in < from + more {
                assert!(Instant::now() < end, "{element}: the source rests too");
                thread::sleep(Duration::from_millis(5));
            }
        };
        came_in(5);
        let (before, last) = (out(), running.units.try_iter().last());
        came_in(20);
        let late = Instant::now();
        came_in(10);
        assert_eq!(out(), before, "{element}");
        assert!(running.units.try_recv().is_err(), "{element}");

        running.graph.branches()[0].wake();
        let units = running.take(20);
        assert!(units[0].keyframe, "{element}");
        // A picture that is on its way to the encoder is as good as one that is captured now.
        assert!(units[0].captured_at > late, "{element}: {:?} old", units[0].captured_at.elapsed());
        if config.streams[0].encode.latency == LatencyMode::Low {
            assert!(units[1..].iter().all(|unit| !unit.keyframe), "{element}: one was asked for");
        }
        assert_even(&units, FRAME, element);
        if let Some(last) = last {
            let (by_clock, by_stream) = (units[0].captured_at - last.captured_at, units[0].pts - last.pts);
            assert!(by_clock > 30 * FRAME && by_clock.abs_diff(by_stream) < 3 * FRAME, "{by_clock:?} {by_stream:?}");
        }
        let counters = running.graph.branches()[0].counters();
        assert!(counters.frames_unwanted >= 30, "{element}: {counters:?}");
        assert!(counters.frames_dropped() <= 2 + counters.frames_in / 4, "{element}: {counters:?}");
    }
}

#[test]
fn that_a_picture_from_before_a_short_rest_took_the_keyframe_is_said() {
    let running = start_with(&small(), "x264enc");
    let input = running.graph.pipeline.by_name(encoder::NAME).unwrap().static_pad("sink").unwrap();
    let (gate, waiting) = (Arc::new(Mutex::new(())), Arc::new(AtomicBool::new(false)));
    let (at_gate, waits) = (Arc::clone(&gate), Arc::clone(&waiting));
    input.add_probe(gst::PadProbeType::BUFFER, move |_, _| {
        waits.store(true, Ordering::Release);
        drop(lock(&at_gate));
        waits.store(false, Ordering::Release);
        gst::PadProbeReturn::Ok
    });
    running.take(5);
    let shut = lock(&gate);
    // One may have just passed.
    let (came, end) = (running.graph.branches()[0].counters().frames_in, Instant::now() + WAIT);
    while running.graph.branches()[0].counters().frames_in < came + 2 || !waiting.load(Ordering::Acquire) {
        assert!(Instant::now() < end, "no picture comes to the encoder");
        thread::sleep(Duration::from_millis(1));
    }
    running.graph.branches()[0].rest();
    running.graph.branches()[0].wake();
    running.units.try_iter().for_each(drop);
    drop(shut);
    assert!(!running.take(1)[0].keyframe, "if it is one, this tests nothing");
    let said = || running.events.recv_timeout(WAIT).expect("that it was none");
    while said() != (GraphEvent::NoKeyframe { stream: 0 }) {}
}

/// A webcam that gives JPEG: what comes out of `camera` is unpacked by `unpack`.
fn webcam() -> Running {
    let caps = "video/x-raw,format=I420,width=320,height=240,framerate=30/1";
    let mut plan = prepare(&small(), &chosen("x264enc")).unwrap();
    plan.head = format!("videotestsrc is-live=true ! {caps} ! jpegenc ! queue name=camera ! jpegdec name=unpack");
    (plan.source, plan.drawing) = (SourceKind::Webcam, None);
    run(&plan)
}

#[test]
fn while_the_encoder_rests_few_pictures_of_a_webcams_jpeg_are_decoded() {
    let running = webcam();
    let decoded = Arc::new(Counter::new(Instant::now()));
    let unpack = running.graph.pipeline.by_name("unpack").unwrap();
    counter::count(&unpack.static_pad("src").unwrap(), &decoded);
    running.take(20);
    running.graph.branches()[0].rest();
    let still = || running.graph.counters().still.unwrap();
    let (before, still_before, decoded_before) = (running.graph.branches()[0].counters(), still(), decoded.count());
    let (began, end) = (Instant::now(), Instant::now() + WAIT);
    while running.graph.branches()[0].counters().frames_in < before.frames_in + 60 {
        assert!(Instant::now() < end, "the source rests too");
        thread::sleep(Duration::from_millis(5));
    }
    let resting = running.graph.branches()[0].counters();
    // Two seconds' worth at least, of which every quarter of a second one is looked at.
    let (looks, most) = (decoded.count() - decoded_before, began.elapsed().as_millis() / 250 + 2);
    assert!(looks >= 4 && u128::from(looks) <= most, "{looks} of {most}");
    assert!(still().until > still_before.until + Duration::from_secs(1), "{resting:?}");
    let dropped = resting.frames_dropped() - before.frames_dropped();
    assert!(resting.frames_unwanted >= 58 && dropped <= 2, "{resting:?}");
    running.units.try_iter().for_each(drop);
    running.graph.branches()[0].wake();
    let units = running.take(20);
    assert!(units[0].keyframe);
    assert_even(&units, FRAME, "every picture again");
}

#[test]
fn while_the_encoder_rests_jpeg_that_cannot_be_decoded_is_no_living_source() {
    let running = webcam();
    running.take(20);
    running.graph.branches()[0].rest();
    let camera = running.graph.pipeline.by_name("camera").unwrap().static_pad("src").unwrap();
    camera.add_probe(gst::PadProbeType::BUFFER, |_, info| {
        if let Some(gst::PadProbeData::Buffer(buffer)) = &mut info.data {
            *buffer = gst::Buffer::from_slice([0; 64]);
        }
        gst::PadProbeReturn::Ok
    });
    let end = Instant::now() + WAIT;
    while running.graph.branches()[0].counters().last_in.unwrap().elapsed() < Duration::from_secs(1) {
        assert!(Instant::now() < end, "it counts as alive: {:?}", running.graph.branches()[0].counters());
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn what_goes_out_untouched_has_no_encoder_that_could_rest() {
    let folder = Folder::new("untouched");
    let running = start(&passthrough(&folder.without_b_frames("clip.mp4")));
    running.take(5);
    assert!(running.graph.branches()[0].encoder().is_none());
    assert_eq!(running.graph.branches()[0].counters().frames_unwanted, 0);
}

/// PAL and NTSC grabbers: two fields a picture, by caps or by the buffers' flags.
#[test]
fn interlaced_pictures_go_out_progressive_and_wait_for_no_later_field() {
    let encoders = [("x264enc", Profile::Baseline), ("x264enc", Profile::Main), ("openh264enc", Profile::Baseline)];
    for (mode, (element, profile)) in [
        "interleaved,field-order=(string)top-field-first",
        "interleaved,field-order=(string)bottom-field-first",
        "mixed",
    ]
    .into_iter()
    .zip(encoders)
    {
        let start_at = |rate: &str| {
            let text = format!(
                "videotestsrc is-live=true ! video/x-raw,format=UYVY,width=720,height=576,framerate={rate} \
                 ! capssetter caps=video/x-raw,interlace-mode=(string){mode}"
            );
            start_with(&pipeline(&text).with_encode(|encode| encode.profile = profile), element)
        };
        // The second picture comes only when the first is waited for no longer.
        assert!(start_at("1/60").next().keyframe);
        let running = start_at("2/1");
        let units = running.take(4);
        assert_even(&units, Duration::from_millis(500), mode);
        let sps = codec::nal_units(&units[0].data).find(|nal| Codec::H264.nal_type(nal) == 7).expect("an SPS");
        assert!(codec::parse_sps(sps).expect("a readable SPS").frame_mbs_only, "{element}, {mode}: interlaced");
        assert!(running.events.try_iter().all(|event| matches!(event, GraphEvent::Format { .. })));
    }
}

/// The ways out that the refusal of an interlaced stream names.
#[test]
fn what_is_advised_for_an_interlaced_stream_works() {
    let folder = Folder::new("interlaced");
    let path = folder.clip("i.mp4", &["-vf", "interlace", "-c:v", "libx264", "-flags", "+ildct+ilme", "-bf", "0"]);
    let error = prepare(&passthrough(&path), &chosen("x264enc")).expect_err("a refusal").to_string();
    assert!(error.contains("interlaced") && error.contains("drop --file-passthrough"), "{error}");
    let source = format!("filesrc location={} ! qtdemux ! h264parse", path.display());
    let raw = pipeline(&format!("{source} ! avdec_h264"));
    let encoded = pipeline(&format!("{source} ! avdec_h264 ! deinterlace ! x264enc tune=zerolatency bframes=0"));
    for config in [file(&path), raw, encoded] {
        let running = start(&config);
        let unit = running.next();
        let sps = codec::nal_units(&unit.data).find(|nal| Codec::H264.nal_type(nal) == 7).expect("an SPS");
        assert!(codec::parse_sps(sps).expect("a readable SPS").frame_mbs_only, "{config:?}");
    }
}

#[test]
fn options_of_the_encoder_are_in_the_stream() {
    for element in ["x264enc", "openh264enc"] {
        let config = small().with_source(|source| source.flip = Flip::Half).with_encode(|encode| {
            encode.level = "4".parse().ok();
            encode.preset = Some(Preset::Fast);
            encode.keyframe_interval = Some(Duration::from_millis(500))
        });
        let units = start_with(&config, element).take(50);
        let keyframes: Vec<_> = (0..50).filter(|at| units[*at].keyframe).collect();
        assert_eq!(keyframes, [0, 15, 30, 45], "{element}");
        let sps = codec::nal_units(&units[0].data).find(|nal| Codec::H264.nal_type(nal) == 7).expect("an SPS");
        assert_eq!(sps[3], 40, "{element}: the level");
    }
}

#[test]
fn a_fixed_size_stays_while_pictures_get_rarer() {
    let config = pipeline(DETAIL).with_encode(|encode| {
        encode.fixed_size = true;
        encode.resolution = None
    });
    let running = start(&config);
    running.take(5);
    assert!(running.graph.branches()[0].apply(&rate(400, Step::HalfRate)).unwrap());
    running.take(5);
    let units = running.take(15);
    // Two intervals of the source each; more where a busy machine leaves some out.
    assert!(units.windows(2).all(|pair| pair[1].pts - pair[0].pts > FRAME * 3 / 2));
    assert!(units.iter().all(|unit| !unit.keyframe), "another size begins with a keyframe");
    let formats = running.events.try_iter().filter(|event| matches!(event, GraphEvent::Format { .. })).count();
    assert_eq!(formats, 1);
}
