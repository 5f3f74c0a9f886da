use std::time::SystemTime;

use gstreamer as gst;
use gstreamer::prelude::*;
use rov_common::capture_clock::CaptureClock;
use rov_common::codec::Codec;
use tokio::sync::Notify;

use rov_common::units::{Bitrate, Fps, Resolution};

use super::change::{Applied, Handle};
use super::encoders::StreamEncoder;
use super::*;
use crate::config::{EncodeConfig, EncoderChoice, Flip, Profile, SourceKind};
use crate::packetize::Frame;
use crate::pipeline::{Failure, encoder};
use crate::rate_control::{Rate, Step};

const WAIT: Duration = Duration::from_secs(10);

/// The test picture as two streams.
fn camera() -> CameraConfig {
    let mut camera = CameraConfig::usual().with_source(|source| source.kind = SourceKind::Test);
    camera = camera.with_encode(|encode| encode.resolution = Some(Resolution::new(320, 240)));
    let mut second = camera.streams[0].clone();
    second.name = "stream2".to_owned();
    second.encode.resolution = Some(Resolution::new(160, 120));
    camera.streams.push(second);
    camera
}

async fn until(what: &str, is_so: impl Fn() -> bool) {
    let end = Instant::now() + WAIT;
    while !is_so() {
        assert!(Instant::now() < end, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_stream_of_a_camera_rests_and_gets_keyframes_by_itself() {
    let mut camera = camera();
    for stream in &mut camera.streams {
        stream.encode.encoder = EncoderChoice::Element("x264enc".to_owned());
    }
    // Nobody has looked for so long that a stream rests once it has shown that it works.
    let long_ago = Instant::now().checked_sub(Duration::from_secs(60)).unwrap();
    let clock = CaptureClock::new(long_ago, SystemTime::now());
    let (first, requests) = Stream::new("cam1", "stream1", Codec::H264, clock);
    let (second, second_requests) = Stream::new("cam1", "stream2", Codec::H264, clock);
    let _awake = first.demand().keep_awake();
    let came = Arc::new(Notify::new());
    let notify = || {
        let came = Arc::clone(&came);
        move |_: &crate::stream::OutputQueue| came.notify_one()
    };
    let (units, second_units) = (first.add_output(notify()), second.add_output(notify()));
    let shutdown = CancellationToken::new();
    let served = vec![(Arc::clone(&first), requests), (Arc::clone(&second), second_requests)];
    let (_, asked) = Handle::new(camera);
    let supervisor = tokio::spawn(run(asked, Links::default(), served, shutdown.clone()));
    let next = async |queue: &crate::stream::OutputQueue, is_wanted: &dyn Fn(&Frame) -> bool| loop {
        match queue.take() {
            Some(unit) if is_wanted(&unit) => return unit,
            Some(_) => {}
            None => tokio::time::timeout(WAIT, came.notified()).await.expect("pictures"),
        }
    };
    let stats = |stream: &Stream| stream.stats(Instant::now());
    assert!(next(&units, &|_| true).await.keyframe && next(&second_units, &|_| true).await.keyframe);
    // What fell behind would ask for keyframes.
    first.remove_output(&units);
    until("nobody looks at the second", || stats(&second).resting && !stats(&first).resting).await;
    // Told beside the pictures.
    until("each has its own size", || (stats(&first).height, stats(&second).height) == (240, 120)).await;
    while second_units.take().is_some() {}
    let woken = clock.at(Instant::now());
    let looks = second.demand().keep_awake();
    // One from before the rest may have been on its way for long, where the machine is busy.
    let is_new = |unit: &Frame| unit.keyframe || unit.captured >= woken;
    assert!(next(&second_units, &is_new).await.keyframe, "the first after a rest");
    let mut others = 0;
    for _ in 0..10 {
        others += usize::from(!next(&second_units, &|_| true).await.keyframe);
    }
    assert!(others > 0, "each one is a keyframe");
    let before = stats(&first);
    second.demand().request_keyframe();
    next(&second_units, &|unit| unit.keyframe).await;
    // As many pictures again, so that one of the same time would have come.
    until("the first goes on", || stats(&first).frames >= before.frames + 15).await;
    let (after, begun) = (stats(&first), stats(&first).restarts - before.restarts);
    assert!(after.keyframes <= before.keyframes + begun, "nobody has asked for one: {after:?}");
    drop(looks);
    shutdown.cancel();
    assert_eq!(supervisor.await.unwrap(), Ok(Outcome::Stopped));
}

/// A camera at work, whose pictures somebody takes.
struct AtWork {
    handle: Handle,
    streams: [Arc<Stream>; 2],
    shutdown: CancellationToken,
    supervisor: tokio::task::JoinHandle<Result<Outcome, Fatal>>,
    _awake: Vec<crate::stream::Awake>,
}

impl AtWork {
    /// `looked_at`: the streams that somebody looks at.
    async fn start(camera: CameraConfig, looked_at: &[usize]) -> Self {
        let clock = CaptureClock::start();
        let ((first, requests), (second, second_requests)) =
            (Stream::new("cam1", "stream1", Codec::H264, clock), Stream::new("cam1", "stream2", Codec::H264, clock));
        let awake = looked_at.iter().map(|at| [&first, &second][*at].demand().keep_awake()).collect();
        let (handle, asked) = Handle::new(camera);
        let shutdown = CancellationToken::new();
        let served = vec![(Arc::clone(&first), requests), (Arc::clone(&second), second_requests)];
        let supervisor = tokio::spawn(run(asked, Links::default(), served, shutdown.clone()));
        let streams = [first, second];
        until("pictures", || streams.iter().all(|stream| stream.stats(Instant::now()).frames > 0)).await;
        Self { handle, streams, shutdown, supervisor, _awake: awake }
    }

    async fn stop(self) {
        self.shutdown.cancel();
        assert_eq!(self.supervisor.await.unwrap(), Ok(Outcome::Stopped));
    }
}

fn with_x264enc() -> CameraConfig {
    let mut camera = camera();
    for stream in &mut camera.streams {
        stream.encode.encoder = EncoderChoice::Element("x264enc".to_owned());
        stream.encode.bitrate = Some(Bitrate::from_kbps(1000));
    }
    camera
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bit_rate_is_changed_in_the_encoder_at_work_and_no_other_stream_s() {
    let at_work = AtWork::start(with_x264enc(), &[0, 1]).await;
    let encode = at_work.handle.camera().streams[0].encode.clone();
    let faster = EncodeConfig { bitrate: Some(Bitrate::from_kbps(3000)), ..encode.clone() };
    assert_eq!(at_work.handle.change(0, encode).await.unwrap(), Applied::Unchanged);
    assert_eq!(at_work.handle.change(0, faster.clone()).await.unwrap(), Applied::Live);
    assert_eq!(at_work.handle.camera().streams[0].encode, faster);
    let stats = at_work.streams.each_ref().map(|stream| stream.stats(Instant::now()));
    assert_eq!(stats.each_ref().map(|stats| stats.target_bitrate_kbps), [3000, 1000]);
    assert_eq!(at_work.streams[0].status().ceiling().map(|ceiling| ceiling.bitrate.kbps()), Some(3000));
    assert_eq!(stats.map(|stats| stats.restarts), [0, 0]);
    at_work.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_is_refused_with_the_way_out_and_leaves_all_as_it_was() {
    let camera = with_x264enc();
    let at_work = AtWork::start(camera.clone(), &[0, 1]).await;
    let change = async |stream, change: &dyn Fn(&mut EncodeConfig)| {
        let mut encode = camera.streams[0].encode.clone();
        change(&mut encode);
        at_work.handle.change(stream, encode).await.unwrap_err().to_string()
    };
    for (refused, why) in [
        (change(7, &|_| ()).await, "there is no stream number 7"),
        (change(0, &|encode| encode.codec = Codec::H265).await, "set --codec h265 and restart the server"),
        (change(0, &|encode| encode.resolution = Some(Resolution::new(15, 15))).await, "must be from 16 to 8192"),
        (
            change(0, &|encode| encode.encoder = EncoderChoice::Element("noenc".to_owned())).await,
            "--encoder noenc does not work (not known)",
        ),
    ] {
        assert!(refused.contains(why), "{refused}");
    }
    assert_eq!(*at_work.handle.camera(), camera);
    at_work.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_that_come_at_once_are_made_one_after_the_other() {
    let at_work = AtWork::start(with_x264enc(), &[0, 1]).await;
    let before = at_work.streams.each_ref().map(|stream| stream.stats(Instant::now()));
    let camera = at_work.handle.camera();
    let [mut smaller, mut other, mut slower] = [0, 0, 1].map(|stream: usize| camera.streams[stream].encode.clone());
    smaller.resolution = Some(Resolution::new(80, 60));
    (other.resolution, other.encoder) = (smaller.resolution, EncoderChoice::Element("openh264enc".to_owned()));
    slower.fps = Some(Fps::whole(10));
    let handle = &at_work.handle;
    let made = tokio::join!(handle.change(0, smaller), handle.change(1, slower), handle.change(0, other.clone()));
    assert_eq!([made.0.unwrap(), made.1.unwrap(), made.2.unwrap()], [Applied::NewBranch; 3]);
    assert_eq!(handle.camera().streams[0].encode, other);
    until("what was wanted last", || {
        let stats = at_work.streams.each_ref().map(|stream| stream.stats(Instant::now()));
        stats[0].height == 60 && stats[0].encoder == "openh264enc" && at_work.streams[1].status().format().1 == 10.0
    })
    .await;
    let stats = at_work.streams.each_ref().map(|stream| stream.stats(Instant::now()));
    assert_eq!(stats.each_ref().map(|stats| stats.restarts), [0, 0]);
    assert!(stats[0].frames > before[0].frames);
    at_work.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_at_rest_is_changed_once_somebody_looks() {
    let mut camera = with_x264enc();
    camera.streams[1].encode.rest_after = Duration::ZERO;
    let at_work = AtWork::start(camera.clone(), &[0]).await;
    let second = || at_work.streams[1].stats(Instant::now());
    until("nobody looks at the second", || second().resting).await;
    let mut smaller = camera.streams[1].encode.clone();
    smaller.resolution = Some(Resolution::new(80, 60));
    let frames = second().frames;
    assert_eq!(at_work.handle.change(1, smaller.clone()).await.unwrap(), Applied::WhenWatched);
    assert_eq!(at_work.handle.camera().streams[1].encode, smaller);
    let first = at_work.streams[0].stats(Instant::now()).frames;
    until("the first goes on", || at_work.streams[0].stats(Instant::now()).frames > first + 15).await;
    assert_eq!((second().resting, second().height, second().frames), (true, 120, frames), "no encoder is at work");
    let _looks = at_work.streams[1].demand().keep_awake();
    until("the other size", || second().height == 60).await;
    assert_eq!(second().restarts, 0);
    at_work.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_has_to_give_more_is_started_anew_and_the_picture_is_turned_while_it_flows() {
    let at_work = AtWork::start(with_x264enc(), &[0, 1]).await;
    let mut larger = at_work.handle.camera().streams[0].encode.clone();
    larger.resolution = Some(Resolution::new(640, 480));
    assert_eq!(at_work.handle.change(0, larger).await.unwrap(), Applied::Restarted);
    until("the larger size", || at_work.streams[0].stats(Instant::now()).height == 480).await;
    assert_eq!(at_work.handle.flip(Flip::Half).await.unwrap(), Applied::Live);
    assert_eq!(at_work.handle.camera().source.flip, Flip::Half);
    at_work.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_the_most_of_a_smaller_picture_is_no_limit_for_a_larger_one() {
    let mut camera = with_x264enc();
    camera.streams[0].encode.bitrate = None;
    let at_work = AtWork::start(camera, &[0, 1]).await;
    let stream = &at_work.streams[0];
    until("its most", || stream.status().ceiling().is_some()).await;
    let ceiling = stream.status().ceiling().unwrap();
    // As for a viewer whose link carries all of it.
    let rate = |bitrate| Rate { bitrate, step: Step::Full, pause_until: None };
    stream.demand().set_rate(rate(ceiling.bitrate));
    let mut larger = at_work.handle.camera().streams[0].encode.clone();
    larger.resolution = Some(Resolution::new(640, 480));
    assert_eq!(at_work.handle.change(0, larger).await.unwrap(), Applied::Restarted);
    until("the larger size", || stream.stats(Instant::now()).height == 480).await;
    let most = stream.status().ceiling().unwrap().bitrate;
    assert!(most > ceiling.bitrate, "{most} {}", ceiling.bitrate);
    assert_eq!(stream.stats(Instant::now()).target_bitrate_kbps, most.kbps());
    // What is less than all of it is a limit.
    stream.demand().set_rate(rate(Bitrate::from_kbps(300)));
    assert_eq!(stream.limit(), Some(Bitrate::from_kbps(300)));
    at_work.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_encoder_cannot_take_after_a_restart_of_the_source_is_refused_and_all_is_as_before() {
    let mut camera = with_x264enc();
    camera.streams[0].encode.encoder = EncoderChoice::Element("openh264enc".to_owned());
    let at_work = AtWork::start(camera.clone(), &[0, 1]).await;
    let mut too_large = camera.streams[0].encode.clone();
    // More than OpenH264 takes, and a size that the source has to give.
    too_large.resolution = Some(Resolution::new(3840, 2560));
    let refused = at_work.handle.change(0, too_large).await.expect_err("too large");
    assert!(matches!(refused, Refused::Failed(_)), "{refused}");
    assert_eq!(*at_work.handle.camera(), camera);
    let frames = at_work.streams.each_ref().map(|stream| stream.stats(Instant::now()).frames);
    for (stream, before) in at_work.streams.iter().zip(frames) {
        until("it goes on as before", || stream.stats(Instant::now()).frames > before + 10).await;
    }
    assert_eq!(at_work.streams[0].stats(Instant::now()).height, 240);
    at_work.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_profile_that_a_viewer_did_not_offer_is_refused() {
    let at_work = AtWork::start(with_x264enc(), &[0, 1]).await;
    let viewer = std::net::IpAddr::from([10, 0, 0, 7]);
    at_work.streams[0].demand().set_least_decoder(Some((66, viewer)));
    for stream in [0, 1] {
        let mut higher = at_work.handle.camera().streams[stream].encode.clone();
        higher.profile = Profile::High;
        let result = at_work.handle.change(stream, higher).await;
        match (stream, result) {
            (0, Err(refused)) => assert!(refused.to_string().contains("the viewer at 10.0.0.7"), "{refused}"),
            (1, Ok(Applied::NewBranch)) => {}
            other => panic!("{other:?}"),
        }
    }
    at_work.stop().await;
}

#[tokio::test]
async fn the_encoder_that_fails_is_replaced_for_its_stream_alone() {
    let camera = camera();
    let row = encoder::rows(Codec::H264).iter().find(|row| row.element == "x264enc").unwrap();
    let mut encoders = Encoders(vec![StreamEncoder::new(0, row), StreamEncoder::new(1, row)]);
    let failure = Failure::Encoder { stream: 1, reason: "gave nothing".to_owned() };
    let reason = encoders.failed(&camera, &failure, &[Some(Duration::from_secs(60)), None], true).await;
    assert_eq!(reason, "stream2: x264enc: gave nothing");
    let elements: Vec<_> = encoders.rows().iter().map(|row| row.element).collect();
    assert_eq!(elements[0], "x264enc");
    assert_ne!(elements[1], "x264enc");
    assert_eq!([0, 1].map(|stream: usize| &encoders.0[stream].failed[..]), [&[][..], &["x264enc"]]);
    // A source that is lost is the fault of none.
    let lost = Failure::Source("unplugged".to_owned());
    assert_eq!(encoders.failed(&camera, &lost, &[None, None], false).await, "unplugged");
    assert_eq!(encoders.rows().iter().map(|row| row.element).collect::<Vec<_>>(), elements);
}

#[tokio::test]
async fn a_further_stream_whose_encoder_does_not_work_is_left_out_until_the_source_fails() {
    let mut camera = camera();
    for stream in &mut camera.streams {
        stream.encode.encoder = EncoderChoice::Element("x264enc".to_owned());
    }
    let mut encoders = Encoders::choose(&camera).await.unwrap();
    let is_off = |encoders: &Encoders| [0, 1].map(|stream: usize| encoders.0[stream].is_off);
    for (stream, off) in [(1, [false, true]), (0, [false, false])] {
        let failure = Failure::Encoder { stream, reason: "x264enc: gave nothing".to_owned() };
        let first = encoders.failed(&camera, &failure, &[None, None], false).await;
        assert_eq!((first, is_off(&encoders)), (format!("stream{}: x264enc: gave nothing", stream + 1), [false; 2]));
        let again = encoders.failed(&camera, &failure, &[None, None], false).await;
        assert_eq!(
            (
                again.ends_with("stream2 stays off until the camera is started again, so that the others go on"),
                is_off(&encoders)
            ),
            (off[1], off),
            "{again}"
        );
        encoders.failed(&camera, &Failure::Source("unplugged".to_owned()), &[None, None], false).await;
        assert_eq!(is_off(&encoders), [false; 2]);
    }
}

#[test]
fn only_what_has_never_worked_is_a_mistake_for_good() {
    let refused = |well_for: Option<u64>| RunEnd::Refused {
        reason: "has B-frames".to_owned(),
        well_for: vec![None, well_for.map(Duration::from_secs)],
    };
    for (well_for, has_worked, is_over) in
        [(None, false, true), (Some(1), false, true), (Some(11), false, false), (None, true, false)]
    {
        let judged = refused(well_for).judged(has_worked);
        assert_eq!(judged.is_err(), is_over, "{well_for:?} {has_worked}");
        assert!(matches!(judged, Err(Fatal(reason)) | Ok(RunEnd::Broken { failure: Failure::Source(reason), .. })
            if reason == "has B-frames"));
    }
}

/// Writes a short H.264 clip, in the place of the one that is there, if any.
fn write_clip(file: &std::path::Path, b_frames: u32) {
    let next = file.with_extension("next");
    let text = format!(
        "videotestsrc num-buffers=30 ! video/x-raw,format=I420,width=160,height=120,framerate=30/1 \
         ! x264enc bframes={b_frames} b-adapt=false rc-lookahead=2 sync-lookahead=0 ! h264parse \
         ! video/x-h264,stream-format=byte-stream,alignment=au ! filesink location={}",
        next.display()
    );
    gst::init().unwrap();
    let pipeline = gst::parse::launch(&text).unwrap();
    pipeline.set_state(gst::State::Playing).unwrap();
    let ends = [gst::MessageType::Eos, gst::MessageType::Error];
    let end = pipeline.bus().unwrap().timed_pop_filtered(gst::ClockTime::from_seconds(WAIT.as_secs()), &ends);
    pipeline.set_state(gst::State::Null).unwrap();
    assert_eq!(end.map(|message| message.type_()), Some(gst::MessageType::Eos));
    std::fs::rename(next, file).unwrap();
}

/// As a camera whose stream is damaged for a moment, or set up otherwise for a while.
#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_has_worked_is_tried_again_when_it_gives_what_viewers_cannot_show() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("camera.h264");
    write_clip(&file, 0);
    let camera = CameraConfig::usual().with_source(|source| {
        source.kind = SourceKind::Pipeline;
        source.pipeline = Some(format!("filesrc location={} ! h264parse", file.display()));
    });
    let (stream, requests) = Stream::new("cam1", "stream1", Codec::H264, CaptureClock::start());
    let _awake = stream.demand().keep_awake();
    let shutdown = CancellationToken::new();
    let (_, asked) = Handle::new(camera);
    let served = vec![(Arc::clone(&stream), requests)];
    let supervisor = tokio::spawn(run(asked, Links::default(), served, shutdown.clone()));
    let stats = || stream.stats(Instant::now());
    // Each round ends with the file, as a camera's connection does.
    until("pictures", || stats().frames > 30).await;
    write_clip(&file, 2);
    until("B-frames are said", || {
        assert!(!supervisor.is_finished(), "the camera is off for good");
        stats().reason.is_some_and(|reason| reason.contains("has B-frames"))
    })
    .await;
    write_clip(&file, 0);
    let before = stats().frames;
    until("pictures again", || stats().frames > before + 60).await;
    shutdown.cancel();
    assert_eq!(supervisor.await.unwrap(), Ok(Outcome::Stopped));
}

#[test]
fn a_camera_that_was_named_by_its_number_is_remembered_by_what_it_is() {
    let found = Found {
        kind: SourceKind::Webcam,
        device: "/dev/v4l/by-id/usb-A".to_owned(),
        id: "/dev/video0".to_owned(),
        title: "A".to_owned(),
        known_by: vec!["/dev/v4l/by-id/usb-A".to_owned(), "/dev/v4l/by-path/usb-0:1".to_owned()],
    };
    for (device, is_remembered) in [
        (None, true),
        (Some("0"), true),
        (Some("/dev/video0"), true),
        (Some("C920"), true),
        (Some("/dev/v4l/by-path/usb-0:1"), false),
        (Some("/dev/front-camera"), false),
    ] {
        let camera = CameraConfig::usual().with_source(|source| source.device = device.map(str::to_owned));
        let (handle, asked) = Handle::new(camera);
        remember(&asked.current, None);
        assert_eq!(handle.camera().source.taken, [""; 0]);
        remember(&asked.current, Some(&found));
        assert_eq!(handle.camera().source.taken == found.known_by, is_remembered, "{device:?}");
    }
}
