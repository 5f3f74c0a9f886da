//! A branch that is replaced while the others go on.

use std::sync::Mutex;
use std::sync::mpsc::channel;

use rov_common::capture_clock::CaptureClock;
use rov_common::codec::{self, Codec, ParameterSetCache};
use rov_common::latency_mode::LatencyMode;
use rov_common::overlay::Where;
use rov_common::units::{Bitrate, Fps, Resolution};
use rov_gst::element::is_made_by;

use super::branch_tests::{CODED, Running, SECOND, SECOND_FRAME, plan, run, with_second};
use super::tests::{FRAME, Folder, WAIT, assert_even, chosen, file, pipeline, rate, small};
use super::*;
use crate::config::{EncodeConfig, FieldConfig, OverlayConfig, Preset, Profile, SourceKind};
use crate::overlay::{Canvas, Overlays};
use crate::pipeline::capture::Relay;
use crate::pipeline::handover::Handover;
use crate::pipeline::joint::NotPutIn;
use crate::pipeline::plan::{BranchPlan, Tail};
use crate::pipeline::{EncoderRow, prepare_branch};
use crate::rate_control::Step;
use crate::stream::Streams;
use crate::telemetry::Board;

/// Raw pictures whose times are their numbers: none can be left out in front of the tee unseen.
const RAW: &str = "videotestsrc is-live=true ! video/x-raw,format=I420,width=320,height=240,framerate=30/1";

const STOP_LIMIT: Duration = Duration::from_secs(2);

/// The times of the pictures that come to the branch of a stream, from now on.
fn arriving(running: &Running, stream: usize) -> std::sync::mpsc::Receiver<Duration> {
    passing(running, &format!("src_{stream}"))
}

/// Of those that pass this pad of the tee.
fn passing(running: &Running, pad: &str) -> std::sync::mpsc::Receiver<Duration> {
    let (sender, times) = channel();
    let sender = Mutex::new(sender);
    let pad = running.graph.pipeline.by_name(plan::TEE).unwrap().static_pad(pad).unwrap();
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        let time = info.buffer().and_then(|buffer| buffer.pts()).unwrap();
        let _ = lock(&sender).send(time.into());
        gst::PadProbeReturn::Ok
    });
    times
}

/// No picture is missing, nor comes any twice.
fn assert_unbroken(times: std::sync::mpsc::Receiver<Duration>, what: &str) {
    let times: Vec<_> = times.try_iter().collect();
    assert!(times.len() > 10, "{what}: {} pictures", times.len());
    for pair in times.windows(2) {
        let step = pair[1].saturating_sub(pair[0]);
        assert!(step.abs_diff(FRAME) < FRAME / 10, "{what}: {step:?} at {:?}", pair[0]);
    }
}

/// Has what is in front of the encoder of a stream fail.
fn broken(plan: &mut Plan, stream: usize, fails: &str) {
    let tail = match &mut plan.branches[stream].tail {
        Tail::Fixed(tail) => tail,
        Tail::ByCaps { raw, .. } => raw,
    };
    assert!(tail.contains("! x264enc"), "{tail}");
    *tail = tail.replace("! x264enc", &format!("! {fails} ! x264enc"));
}

/// Has the encoder of a stream take no more pictures, without a word.
fn refuse(running: &Running, stream: usize) {
    let input = running.branch(stream).element().unwrap().static_pad("sink").unwrap();
    input.add_probe(gst::PadProbeType::BUFFER, |_, info| {
        info.flow_res = Err(gst::FlowError::NotNegotiated);
        gst::PadProbeReturn::Handled
    });
}

fn failed(running: &Running) -> usize {
    match running.event() {
        GraphEvent::Error(Failure::Encoder { stream, .. }) => stream,
        other => panic!("{other:?}"),
    }
}

/// The branch again, by this encoder.
fn next(plan: &Plan, stream: usize, row: &'static EncoderRow) -> BranchPlan {
    prepare_branch(plan, &with_second(pipeline(RAW)), stream, row)
}

#[test]
fn a_branch_that_fails_is_replaced_and_the_other_misses_no_picture() {
    let row = chosen("openh264enc")[0];
    // With a word of the element's own, and without one.
    for is_said in [true, false] {
        for (stream, other) in [(1, 0), (0, 1)] {
            let mut plan = plan(pipeline(RAW));
            let whole = plan.clone();
            if is_said {
                broken(&mut plan, stream, "identity error-after=5");
            }
            let running = run(&plan);
            let what = format!("stream {stream}, said by the element: {is_said}");
            running.take(other, 1);
            if !is_said {
                refuse(&running, stream);
            }
            let (times, interval) = (arriving(&running, other), [FRAME, SECOND_FRAME][other]);
            assert_eq!(failed(&running), stream, "{what}");
            running.units[stream].try_iter().for_each(drop);
            let mut units = running.take(other, 10);
            let joint = running.graph.joint(stream).expect("a branch beside another");
            assert_eq!(joint.take_out(STOP_LIMIT), Ok(true), "{what}");
            units.extend(running.take(other, 10));
            assert_eq!(joint.put_in(&next(&whole, stream, row), whole.codec), Ok(()), "{what}");
            let again = running.take(stream, 20);
            assert!(again[0].keyframe && again[1..].iter().all(|unit| !unit.keyframe), "{what}");
            assert_even(&again, [FRAME, SECOND_FRAME][stream], &what);
            assert_eq!(running.branch(stream).encoder().map(|row| row.element), Some("openh264enc"));
            units.extend(running.take(other, 20));
            assert_even(&units, interval, &what);
            assert_unbroken(times, &what);
            let more: Vec<_> = running.events.try_iter().filter(|e| !matches!(e, GraphEvent::Format { .. })).collect();
            assert_eq!(more, [], "{what}");
            running.graph.stop(STOP_LIMIT);
        }
    }
}

#[test]
fn a_branch_that_hangs_is_left_to_itself_and_replaced_and_the_other_misses_no_picture() {
    let plan = plan(pipeline(RAW));
    let mut running = run(&plan);
    running.take(1, 3);
    let times = arriving(&running, 0);
    let gate = running.gate(1);
    let shut = lock(&gate);
    running.take(0, 10);
    let joint = running.graph.joint(1).unwrap();
    assert_eq!(joint.take_out(Duration::from_millis(200)), Ok(false));
    running.units[1].try_iter().for_each(drop);
    // None like it is started while it hangs.
    let again = joint.put_in(&plan.branches[1], plan.codec).expect_err("it hangs");
    assert!(matches!(&again, NotPutIn::StillHangs(why) if why.to_string().contains("still hangs")), "{again:?}");
    assert_eq!(joint.put_in(&next(&plan, 1, chosen("openh264enc")[0]), plan.codec), Ok(()));
    assert!(running.take(1, 10)[0].keyframe);
    assert_even(&running.take(0, 30), FRAME, "beside one that hangs");
    assert_unbroken(times, "beside one that hangs");
    // What it held does not come out, whenever it comes back, and the pipeline stops without it.
    let latest = running.take(1, 1)[0].pts;
    let hanging = running.graph.hanging.clone();
    assert_eq!(hanging.count(), 1);
    drop(shut);
    let end = Instant::now() + WAIT;
    while hanging.count() > 0 {
        assert!(Instant::now() < end, "it has come back and does not end");
        thread::sleep(Duration::from_millis(5));
    }
    assert!(running.take(1, 10).windows(2).all(|two| two[0].pts > latest && two[0].pts < two[1].pts));
    running.graph.take_down(STOP_LIMIT);
    assert_eq!(hanging.count(), 0);
}

/// The source asks its branches then what memory they take, which waits in their queues for their encoders.
#[test]
fn a_source_that_negotiates_again_waits_for_no_branch_that_hangs() {
    let plan = plan(pipeline(&RAW.replace("width=320,height=240", "width=640,height=480")).with_encode(|encode| {
        encode.resolution = None;
    }));
    let running = run(&plan);
    running.take(1, 3);
    let gate = running.gate(1);
    let shut = lock(&gate);
    running.take(0, 10);
    for (step, resolution) in [(Step::Half, Resolution::new(320, 240)), (Step::Full, Resolution::new(640, 480))] {
        running.events.try_iter().for_each(drop);
        assert!(running.branch(0).apply(&rate(300, step)).unwrap());
        running.take(0, 12);
        let formats: Vec<_> = running.events.try_iter().collect();
        assert_eq!(formats, [GraphEvent::Format { stream: 0, resolution, fps: Some(Fps::whole(30)) }]);
    }
    drop(shut);
    running.take(1, 3);
    running.graph.stop(STOP_LIMIT);
}

#[test]
fn both_branches_may_be_out_at_once_and_the_source_goes_on() {
    let plan = plan(pipeline(RAW));
    let running = run(&plan);
    running.take(0, 3);
    let times = passing(&running, "sink");
    let joints = [0, 1].map(|stream| running.graph.joint(stream).unwrap());
    assert_eq!(joints.each_ref().map(|joint| joint.take_out(STOP_LIMIT)), [Ok(true), Ok(true)]);
    assert_eq!(joints[0].take_out(STOP_LIMIT), Ok(true), "it is out");
    running.units.iter().for_each(|units| units.try_iter().for_each(drop));
    let mut arrived = Duration::ZERO;
    for _ in 0..20 {
        arrived = times.recv_timeout(WAIT).expect("the source goes on");
    }
    for (stream, joint) in joints.iter().enumerate() {
        assert_eq!(joint.put_in(&plan.branches[stream], plan.codec), Ok(()));
        let units = running.take(stream, 10);
        assert!(units[0].keyframe && units[0].pts > arrived, "stream {stream}");
    }
    assert_unbroken(times, "both");
}

#[test]
fn what_a_branch_begins_with_is_its_own_and_what_is_wanted_then() {
    let plan = plan(pipeline(RAW));
    let running = run(&plan);
    running.take(1, 5);
    running.branch(1).rest();
    let joint = running.graph.joint(1).unwrap();
    joint.take_out(STOP_LIMIT).unwrap();
    let limited = BranchPlan { limit: Some(Bitrate::from_kbps(300)), ..plan.branches[1].clone() };
    joint.put_in(&limited, plan.codec).unwrap();
    running.units[1].try_iter().for_each(drop);
    assert!(running.take(1, 5)[0].keyframe, "it is awake");
    let branch = running.branch(1);
    assert_eq!([0, 1].map(|stream| running.branch(stream).bitrate().kbps()), [1000, 300]);
    assert_eq!(branch.ceiling().map(|ceiling| (ceiling.resolution, ceiling.bitrate.kbps())), Some((SECOND, 1000)));
    assert!(branch.counters().frames_in < 1000 && branch.counters().first_out.is_some());
    branch.force_keyframe();
    assert!(running.take(1, 5).iter().any(|unit| unit.keyframe));
    branch.rest();
    assert!(!running.graph.capture.rests(), "the other is at work");
}

#[test]
fn one_that_cannot_start_says_why_and_holds_up_nothing() {
    let plan = plan(pipeline(RAW));
    let running = run(&plan);
    running.take(0, 3);
    let times = arriving(&running, 0);
    let joint = running.graph.joint(1).unwrap();
    joint.take_out(STOP_LIMIT).unwrap();
    let mut wrong = plan.branches[1].clone();
    let Tail::ByCaps { raw, .. } = &mut wrong.tail else { panic!("a user's pipeline") };
    raw.insert_str(0, "filesrc location=/no/such/file ! fakesink async=false  ");
    let refused = joint.put_in(&wrong, plan.codec).expect_err("there is no such file");
    let NotPutIn::Failed { failure, hangs: false } = &refused else { panic!("{refused:?}") };
    assert!(failure.to_string().starts_with("filesrc /no/such/file: Resource not found"), "{refused:?}");
    running.take(0, 10);
    assert_eq!(joint.put_in(&plan.branches[1], plan.codec), Ok(()));
    running.take(1, 5);
    assert_unbroken(times, "beside one that does not start");
}

#[test]
fn the_end_of_the_source_is_the_end_of_all_though_a_branch_was_replaced_behind_it() {
    let folder = Folder::new("joint-end");
    let clip = folder.clip("a.mp4", &["-r", "30", "-c:v", "libx264", "-bf", "0"]);
    let plan = plan(file(&clip).with_source(|source| source.looping = false));
    let running = run(&plan);
    let tee = running.graph.pipeline.by_name(plan::TEE).unwrap();
    let joint = running.graph.joint(1).unwrap();
    running.take(1, 3);
    joint.take_out(STOP_LIMIT).unwrap();
    let end = Instant::now() + WAIT;
    while tee.static_pad("sink").unwrap().sticky_event::<gst::event::Eos>(0).is_none() {
        assert!(Instant::now() < end, "a file of a second");
        thread::sleep(Duration::from_millis(5));
    }
    joint.put_in(&plan.branches[1], plan.codec).unwrap();
    assert_eq!(running.event(), GraphEvent::Eos);
}

#[test]
fn a_decoder_that_fails_is_replaced_and_what_is_passed_through_goes_on() {
    let folder = Folder::new("joint-decoded");
    let clip = folder.clip("a.mp4", &["-r", "30", "-c:v", "libx264", "-bf", "0", "-g", "15"]);
    let passed = file(&clip).with_source(|source| source.file_passthrough = true);
    for camera in [passed, pipeline(CODED)] {
        let whole = plan(camera);
        let mut plan = whole.clone();
        let tail = match &mut plan.branches[1].tail {
            Tail::Fixed(tail) => tail,
            Tail::ByCaps { encoded, .. } => encoded,
        };
        *tail = tail.replace("! avdec_h264", "! identity error-after=20 ! avdec_h264");
        let running = run(&plan);
        let what = format!("{:?}", plan.source);
        assert!(running.graph.joint(0).is_none(), "{what}: it goes out untouched");
        assert_eq!(failed(&running), 1, "{what}");
        let mut units = running.units[0].try_iter().collect::<Vec<_>>();
        let joint = running.graph.joint(1).unwrap();
        assert_eq!(joint.take_out(STOP_LIMIT), Ok(true), "{what}");
        units.extend(running.take(0, 10));
        assert_eq!(joint.put_in(&whole.branches[1], whole.codec), Ok(()), "{what}");
        running.units[1].try_iter().for_each(drop);
        assert!(running.take(1, 10)[0].keyframe, "{what}");
        units.extend(running.units[0].try_iter());
        for pair in units.windows(2) {
            let step = pair[1].pts.saturating_sub(pair[0].pts);
            // A file that a busy machine opens late begins late.
            let is_late = plan.source == SourceKind::File && pair[1].keyframe && step > FRAME;
            assert!(step.abs_diff(FRAME) < FRAME / 10 || is_late, "{what}: {step:?} at {:?}", pair[0].pts);
        }
        running.graph.stop(STOP_LIMIT);
    }
}

#[test]
fn another_branch_takes_over_of_a_stream_that_is_alone() {
    let plan = crate::pipeline::prepare(&small(), &chosen("x264enc")).unwrap();
    let (unit, units) = channel();
    let graph = Graph::start(&Hanging::default(), &plan, move |_, u| drop(unit.send(u)), |_| ()).unwrap();
    let take = |count: usize| (0..count).map(|_| units.recv_timeout(WAIT).unwrap()).collect::<Vec<AccessUnit>>();
    let mut all = take(5);
    let camera = small().with_encode(|encode| encode.resolution = Some(Resolution::new(160, 120)));
    let change = prepare_branch(&plan, &camera, 0, chosen("openh264enc")[0]);
    assert_eq!(graph.joint(0).unwrap().replace(&change, plan.codec, None, STOP_LIMIT), Ok(()));
    all.extend(take(10));
    all.extend(units.try_iter());
    assert_even(&all, FRAME, "by two branches");
    assert_eq!(coded_as(&all).1, Resolution::new(160, 120));
    graph.stop(STOP_LIMIT);
}

#[test]
fn what_goes_out_untouched_alone_needs_no_tee() {
    let folder = Folder::new("joint-untouched");
    let clip = folder.clip("a.mp4", &["-r", "30", "-c:v", "libx264", "-bf", "0"]);
    let passed = file(&clip).with_source(|source| source.file_passthrough = true);
    let plan = crate::pipeline::prepare(&passed, &chosen("x264enc")).unwrap();
    let graph = Graph::start(&Hanging::default(), &plan, |_, _| (), |_| ()).unwrap();
    assert!(graph.joint(0).is_none() && graph.pipeline.by_name(plan::TEE).is_none());
}

/// The settings of a branch of a plan, changed.
fn changed(plan: &Plan, stream: usize, change: impl FnOnce(&mut EncodeConfig)) -> BranchPlan {
    let mut camera = with_second(pipeline(RAW));
    change(&mut camera.streams[stream].encode);
    prepare_branch(plan, &camera, stream, chosen("x264enc")[0])
}

/// Of the SPS of the last keyframe: profile_idc and size.
fn coded_as(units: &[AccessUnit]) -> (u8, Resolution) {
    let mut sets = ParameterSetCache::new(Codec::H264);
    for unit in units.iter().filter(|unit| unit.keyframe) {
        sets.update(&unit.data);
    }
    let sps = &sets.sets().sps;
    let info = codec::parse_sps(sps).unwrap();
    (sps[1], Resolution::new(info.width, info.height))
}

#[test]
fn another_branch_takes_over_at_a_keyframe_and_no_picture_is_missing_nor_comes_twice() {
    let plan = plan(pipeline(RAW));
    let running = run(&plan);
    let mut units = running.take(0, 5);
    let times = arriving(&running, 1);
    // By its fastest preset x264 makes the baseline of any profile.
    let (small, high) = (Resolution::new(160, 120), (Profile::High, Some(Preset::Fast)));
    for (what, change, is_so) in [
        ("smaller", changed(&plan, 0, |encode| encode.resolution = Some(small)), (66, small)),
        ("high", changed(&plan, 0, |encode| (encode.profile, encode.preset) = high), (100, Resolution::new(320, 240))),
        ("as before", changed(&plan, 0, |_| ()), (66, Resolution::new(320, 240))),
    ] {
        let joint = running.graph.joint(0).unwrap();
        assert_eq!(joint.replace(&change, plan.codec, None, STOP_LIMIT), Ok(()), "{what}");
        units.extend(running.units[0].try_iter());
        let before = units.len();
        units.extend(running.take(0, 10));
        assert!(units[before..].iter().all(|unit| !unit.keyframe), "{what}: one keyframe is enough");
        assert_eq!(coded_as(&units), is_so, "{what}");
        assert_eq!(running.branch(0).format().map(|(resolution, _)| resolution), Some(is_so.1), "{what}");
    }
    assert_even(&units, FRAME, "by four branches");
    assert_unbroken(times, "the other stream");
    let tee = running.graph.pipeline.by_name(plan::TEE).unwrap();
    assert_eq!(tee.src_pads().len(), 2, "what is over is out");
    running.graph.stop(STOP_LIMIT);
}

/// From what comes to the tee thirty times a second, a slow stream takes one picture in a second.
#[test]
fn another_branch_takes_over_of_a_slow_stream_and_becomes_slow() {
    let plan = plan(pipeline(RAW));
    let running = run(&plan);
    running.take(0, 5);
    let small = Resolution::new(160, 120);
    for fps in [1, 1, 30] {
        let slow = changed(&plan, 0, |encode| (encode.fps, encode.resolution) = (Some(Fps::whole(fps)), Some(small)));
        let joint = running.graph.joint(0).unwrap();
        assert_eq!(joint.replace(&slow, plan.codec, None, STOP_LIMIT), Ok(()), "{fps} fps");
    }
    running.graph.stop(STOP_LIMIT);
}

#[test]
fn the_encoder_that_takes_over_is_asked_for_its_keyframe_by_its_own_thread() {
    let plan = plan(pipeline(RAW));
    let running = run(&plan);
    running.take(0, 5);
    let (sender, asked) = channel();
    let sender = Mutex::new(sender);
    running.graph.pipeline.connect_deep_element_added(move |_, _, element| {
        if !is_made_by(element, "x264enc") {
            return;
        }
        let sender = lock(&sender).clone();
        element.static_pad("src").unwrap().add_probe(gst::PadProbeType::EVENT_UPSTREAM, move |_, info| {
            if info.event().is_some_and(|event| event.has_name("GstForceKeyUnit")) {
                let _ = sender.send(thread::current().id());
            }
            gst::PadProbeReturn::Ok
        });
    });
    let tee = running.graph.pipeline.by_name(plan::TEE).unwrap();
    let source = Arc::new(Mutex::new(None));
    let its = Arc::clone(&source);
    tee.static_pad("sink").unwrap().add_probe(gst::PadProbeType::BUFFER, move |_, _| {
        *lock(&its) = Some(thread::current().id());
        gst::PadProbeReturn::Ok
    });
    let joint = running.graph.joint(0).unwrap();
    assert_eq!(joint.replace(&changed(&plan, 0, |_| ()), plan.codec, None, STOP_LIMIT), Ok(()));
    let (source, asked) = (*lock(&source), asked.try_iter().collect::<Vec<_>>());
    assert!(source.is_some() && !asked.is_empty(), "{source:?} {asked:?}");
    assert!(asked.iter().all(|by| Some(*by) != source), "the source waits for no driver: {source:?} {asked:?}");
    running.graph.stop(STOP_LIMIT);
}

#[test]
fn a_former_branch_that_is_ahead_of_the_next_one_gives_no_picture_a_second_time() {
    let plan = plan(pipeline(RAW));
    let running = run(&plan);
    let mut units = running.take(0, 5);
    let tee = running.graph.pipeline.by_name(plan::TEE).unwrap();
    // The one at work is through with a picture before the next one has it.
    tee.connect_pad_added(|_, pad| {
        pad.add_probe(gst::PadProbeType::BUFFER, |_, _| {
            thread::sleep(FRAME * 3 / 4);
            gst::PadProbeReturn::Ok
        });
    });
    let joint = running.graph.joint(0).unwrap();
    assert_eq!(joint.replace(&changed(&plan, 0, |_| ()), plan.codec, None, STOP_LIMIT), Ok(()));
    units.extend(running.units[0].try_iter());
    units.extend(running.take(0, 10));
    assert!(units.is_sorted_by(|one, next| next.pts > one.pts + FRAME / 2), "{units:?}");
    running.graph.stop(STOP_LIMIT);
}

#[test]
fn a_branch_that_does_not_come_to_life_leaves_the_one_at_work() {
    let plan = plan(pipeline(RAW));
    let running = run(&plan);
    let mut units = running.take(0, 5);
    let joint = running.graph.joint(0).unwrap();
    for (fails, why) in [
        ("identity error-after=1", "Failed after iterations as requested"),
        ("filesrc location=/no/such/file ! fakesink async=false  identity", "Resource not found"),
    ] {
        let mut wrong = plan.branches[0].clone();
        let Tail::ByCaps { raw, .. } = &mut wrong.tail else { panic!("a user's pipeline") };
        *raw = raw.replace("! x264enc", &format!("! {fails} ! x264enc"));
        if fails.starts_with("filesrc") {
            let Tail::ByCaps { raw: whole, .. } = &plan.branches[0].tail else { panic!("a user's pipeline") };
            *raw = format!("filesrc location=/no/such/file ! fakesink async=false  {whole}");
        }
        let refused = joint.replace(&wrong, plan.codec, None, STOP_LIMIT).expect_err(fails).to_string();
        assert!(refused.contains(why), "{refused}");
        units.extend(running.take(0, 10));
    }
    assert_even(&units, FRAME, "beside those that fail");
    let more: Vec<_> = running.events.try_iter().filter(|e| !matches!(e, GraphEvent::Format { .. })).collect();
    assert_eq!(more, []);
    assert!(units[5..].iter().all(|unit| !unit.keyframe), "the one at work has noticed nothing");
    running.graph.stop(STOP_LIMIT);
}

#[test]
fn one_that_has_failed_is_replaced_by_the_next_one_as_well() {
    let plan = plan(pipeline(RAW));
    let running = run(&plan);
    running.take(0, 5);
    refuse(&running, 0);
    assert_eq!(failed(&running), 0);
    running.units[0].try_iter().for_each(drop);
    let joint = running.graph.joint(0).unwrap();
    let change = changed(&plan, 0, |encode| encode.keyframe_interval = Some(Duration::from_millis(200)));
    assert_eq!(joint.replace(&change, plan.codec, None, STOP_LIMIT), Ok(()));
    let units = running.take(0, 13);
    let keyframes: Vec<_> = (0..13).filter(|at| units[*at].keyframe).collect();
    assert_eq!(keyframes, [0, 6, 12], "at each sixth of thirty");
    running.graph.stop(STOP_LIMIT);
}

/// The caps behind the scaler change while it makes a picture of the size before.
#[test]
fn a_change_of_size_while_a_picture_is_scaled_fails_nothing() {
    let plan = plan(pipeline(&RAW.replace("width=320,height=240", "width=1920,height=1080")));
    let running = run(&plan);
    running.take(0, 3);
    let scaler = running.branch(0).tail().and_downcast::<gst::Bin>().unwrap();
    let convert =
        scaler.iterate_elements().into_iter().flatten().find(|e| is_made_by(e, "videoconvert") && is_behind_scaler(e));
    let (entered, enters) = channel();
    let entered = Mutex::new(entered);
    // Between the two: as a slow scaler would.
    convert.unwrap().static_pad("sink").unwrap().add_probe(gst::PadProbeType::BUFFER, move |_, _| {
        let _ = lock(&entered).send(());
        thread::sleep(Duration::from_millis(10));
        gst::PadProbeReturn::Ok
    });
    for step in [Step::Half, Step::Full, Step::Half, Step::Full] {
        enters.try_iter().for_each(drop);
        enters.recv_timeout(WAIT).unwrap();
        assert!(running.branch(0).apply(&rate(300, step)).unwrap());
        running.take(0, 4);
    }
    let more: Vec<_> = running.events.try_iter().filter(|e| !matches!(e, GraphEvent::Format { .. })).collect();
    assert_eq!(more, []);
    running.graph.stop(STOP_LIMIT);
}

fn is_behind_scaler(convert: &gst::Element) -> bool {
    let before = convert.static_pad("sink").and_then(|pad| pad.peer()?.parent_element());
    before.is_some_and(|before| is_made_by(&before, "videoscale"))
}

#[test]
fn the_bit_rate_that_is_changed_to_is_what_comes_out() {
    // With a buffer of one frame less comes out.
    let camera = pipeline(&RAW.replace("videotestsrc", "videotestsrc pattern=snow"));
    let camera = camera.with_encode(|encode| encode.latency = LatencyMode::Normal);
    let running = run(&plan(camera.clone()));
    running.take(0, 10);
    for kbps in [1500, 4000] {
        let bitrate = Some(Bitrate::from_kbps(kbps));
        running.branch(0).change_rate(&EncodeConfig { bitrate, ..camera.streams[0].encode.clone() }).unwrap();
        running.take(0, 30);
        // By their number: on a busy machine some are left out before the encoder.
        let bits: usize = running.take(0, 60).iter().map(|unit| unit.data.len() * 8).sum();
        let measured = bits as f64 / 60.0 * 30.0 / 1000.0;
        assert!((measured / f64::from(kbps) - 1.0).abs() < 0.15, "{measured:.0} for {kbps} kbit/s");
    }
    running.graph.stop(STOP_LIMIT);
}

#[test]
fn nothing_that_was_held_back_goes_out_of_a_graph_that_has_been_stopped() {
    let plan = plan(pipeline(RAW));
    let (former, next) = [(); 2].map(|()| Arc::new(Branch::new(0, &plan.branches[0], Instant::now()))).into();
    for is_stopped in [false, true] {
        let (unit, units) = channel();
        let capture = Capture::new(&plan, Instant::now(), move |_, u| drop(unit.send(u)), |_| ());
        let mut handover = Handover::rehearsed();
        handover.begin(Duration::ZERO, Instant::now());
        let held = AccessUnit {
            data: vec![0, 0, 0, 1, 0x41].into(),
            pts: Duration::ZERO,
            captured_at: Instant::now(),
            keyframe: false,
        };
        assert_eq!(handover.former(held.pts, held, Instant::now(), &mut Vec::new()), None);
        let (news, _heard) = std::sync::mpsc::sync_channel(1);
        let (former, next) = (Arc::clone(&former), Arc::clone(&next));
        *capture.relay(0) = Some(Relay { former, next, handover, news });
        capture.stopped.store(is_stopped, Ordering::Release);
        assert!(!capture.end_relay(0));
        assert_eq!(units.try_iter().count(), usize::from(!is_stopped));
    }
}

#[test]
fn what_was_left_out_while_the_encoder_was_opened_is_not_counted_as_dropped() {
    let running = run(&plan(pipeline(RAW)));
    running.take(0, 3);
    let branch = running.branch(0);
    running.graph.stop(STOP_LIMIT);
    (0..20).for_each(|_| branch.frames_in.add());
    assert!(branch.counters().frames_dropped() >= 18, "two may be on their way");
    branch.count_drops_from_here();
    assert_eq!(branch.counters().frames_dropped(), 0);
    (0..5).for_each(|_| branch.frames_in.add());
    assert_eq!(branch.counters().frames_dropped(), 5, "it is too slow");
}

#[test]
fn what_can_be_burned_in_is_that_of_the_branch_at_work() {
    let streams = Streams::new([("cam1", "stream1", Codec::H264)], CaptureClock::start()).0;
    let (config, board) = (OverlayConfig::default(), Arc::new(Board::new(FieldConfig::usual())));
    let overlays = Overlays::new(&streams, [&config].into_iter(), board, false);
    let mut plan = plan(pipeline(RAW));
    plan.links.overlays = overlays.all().to_vec();
    let capture = Capture::new(&plan, Instant::now(), |_, _| (), |_| ());
    let (former, next) = (capture.branch(0), Arc::new(Branch::new(0, &plan.branches[0], Instant::now())));
    let can_be = || overlays.all()[0].set(&OverlayConfig { drawn: Where::Burn, ..OverlayConfig::default() }).is_ok();
    capture.set_canvas(&next, Canvas::without("it is made elsewhere"));
    assert!(can_be(), "it is not at work");
    capture.set_branch(&next);
    assert!(!can_be());
    capture.set_canvas(&former, Canvas::default());
    assert!(!can_be(), "it is out");
}
