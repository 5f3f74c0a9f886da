//! Several streams of one camera.

use std::sync::Mutex;
use std::sync::atomic::AtomicU8;
use std::sync::mpsc::{Receiver, channel};

use rov_common::units::{Bitrate, Fps, Resolution};

use super::tests::{FRAME, Folder, WAIT, assert_even, assert_even_rounds, chosen, file, pipeline, small};
use super::*;
use crate::config::CameraConfig;
use crate::pipeline::plan::Tail;
use crate::pipeline::prepare;

pub(super) const SECOND: Resolution = Resolution::new(160, 120);
pub(super) const SECOND_FRAME: Duration = Duration::from_micros(66_667);

pub(super) struct Running {
    pub graph: Graph,
    pub units: [Receiver<AccessUnit>; 2],
    pub events: Receiver<GraphEvent>,
}

impl Running {
    pub fn take(&self, stream: usize, count: usize) -> Vec<AccessUnit> {
        let next = || self.units[stream].recv_timeout(WAIT);
        (0..count)
            .map(|_| next().unwrap_or_else(|_| panic!("stream {stream}: {:?}", self.events.try_iter().next())))
            .collect()
    }

    pub fn branch(&self, stream: usize) -> Arc<Branch> {
        self.graph.capture.branch(stream)
    }

    /// Holds what comes to the encoder of this stream while the lock that is returned is held.
    pub fn gate(&self, stream: usize) -> Arc<Mutex<()>> {
        let gate = Arc::new(Mutex::new(()));
        let input = self.branch(stream).element().unwrap().static_pad("sink").unwrap();
        let at_gate = Arc::clone(&gate);
        input.add_probe(gst::PadProbeType::BUFFER, move |_, _| {
            drop(lock(&at_gate));
            gst::PadProbeReturn::Ok
        });
        gate
    }

    /// The first event that is not about the format.
    pub fn event(&self) -> GraphEvent {
        loop {
            match self.events.recv_timeout(WAIT).expect("an event") {
                GraphEvent::Format { .. } => {}
                event => return event,
            }
        }
    }
}

/// With a second stream of half the size and half the rate.
pub(super) fn with_second(mut camera: CameraConfig) -> CameraConfig {
    let mut second = camera.streams[0].clone();
    second.encode.resolution = Some(SECOND);
    second.encode.fps = Some(Fps::whole(15));
    camera.streams.push(second);
    camera
}

pub(super) fn plan(camera: CameraConfig) -> Plan {
    let row = chosen("x264enc")[0];
    prepare(&with_second(camera), &[row, row]).unwrap()
}

pub(super) fn run(plan: &Plan) -> Running {
    let ((first, units), (second, second_units)) = (channel(), channel());
    let (event, events) = channel();
    let on_unit = move |stream: usize, unit| drop([&first, &second][stream].send(unit));
    let graph = Graph::start(&Hanging::default(), plan, on_unit, move |e| drop(event.send(e))).unwrap();
    Running { graph, units: [units, second_units], events }
}

#[test]
fn each_stream_of_a_camera_has_its_own_size_and_rate() {
    let folder = Folder::new("streams");
    let raw = "videotestsrc is-live=true ! video/x-raw,width=320,height=240,framerate=30/1";
    let clip = folder.clip("a.mp4", &["-r", "30", "-c:v", "libx264", "-bf", "0"]);
    for (what, camera) in [("test", small()), ("pipeline", pipeline(raw)), ("a file that loops", file(&clip))] {
        let running = run(&plan(camera));
        // More than a round of the file.
        assert_even_rounds(|| running.take(1, 20), SECOND_FRAME, what);
        assert_even_rounds(|| running.take(0, 40), FRAME, what);
        let mut formats: Vec<_> = running
            .events
            .try_iter()
            .map(|event| match event {
                GraphEvent::Format { stream, resolution, fps } => (stream, resolution, fps.map(|fps| fps.as_f64())),
                other => panic!("{what}: {other:?}"),
            })
            .collect();
        formats.sort_by_key(|(stream, ..)| *stream);
        assert_eq!(formats, [(0, Resolution::new(320, 240), Some(30.0)), (1, SECOND, Some(15.0))], "{what}");
        running.graph.stop(Duration::from_secs(2));
    }
}

#[test]
fn a_keyframe_and_a_bit_rate_are_for_one_stream_alone() {
    let running = run(&plan(small()));
    assert!(running.take(0, 5)[0].keyframe && running.take(1, 5)[0].keyframe);
    running.branch(1).force_keyframe();
    running.branch(1).set_bitrate(Bitrate::from_kbps(300)).unwrap();
    assert!(running.take(1, 5).iter().any(|unit| unit.keyframe));
    // Of the same time.
    assert!(running.take(0, 12).iter().all(|unit| !unit.keyframe));
    assert_eq!([0, 1].map(|stream| running.branch(stream).bitrate().kbps()), [1000, 300]);
}

#[test]
fn a_stream_that_rests_costs_nothing_and_the_other_goes_on() {
    let running = run(&plan(small()));
    running.take(0, 5);
    running.take(1, 5);
    running.branch(1).rest();
    // What is on its way at this moment.
    running.take(0, 5);
    let before = running.branch(1).counters();
    running.units[1].try_iter().for_each(drop);
    assert_even(&running.take(0, 30), FRAME, "the other");
    let resting = running.branch(1).counters();
    // One in the encoder and one before it, on a machine that is that busy.
    assert!(resting.frames_to_encoder <= before.frames_to_encoder + 2, "{resting:?}");
    assert!(resting.frames_unwanted > before.frames_unwanted + 5, "{resting:?}");
    assert_eq!(running.units[1].try_iter().count(), 0);
    running.branch(1).wake();
    let woken = running.take(1, 5);
    assert!(woken[0].keyframe && woken[1..].iter().all(|unit| !unit.keyframe));
    assert!(running.take(0, 10).iter().all(|unit| !unit.keyframe));
}

#[test]
fn a_stream_whose_encoder_is_slow_or_hangs_holds_up_no_other() {
    let running = run(&plan(small()));
    running.take(1, 3);
    let gate = running.gate(1);
    let shut = lock(&gate);
    running.take(0, 10);
    running.units[0].try_iter().for_each(drop);
    running.units[1].try_iter().for_each(drop);
    let begun = Instant::now();
    let units = running.take(0, 40);
    let (age, took) = (units[39].captured_at.elapsed(), begun.elapsed());
    assert!(age < took / 2, "the last of 40 pictures is {age:?} old, they took {took:?}");
    assert_even(&units, FRAME, "beside one that hangs");
    assert!(running.units[1].try_iter().count() <= 1);
    let hung = running.branch(1).counters();
    assert!(hung.frames_dropped() >= 10, "{hung:?}");
    drop(shut);
    // The newest goes on, not what has come meanwhile.
    let opened = Instant::now();
    let units = running.take(1, 4);
    assert!(units[3].captured_at > opened - 2 * SECOND_FRAME, "{:?} before", opened - units[3].captured_at);
}

#[test]
fn a_failure_in_a_branch_names_its_stream() {
    let mut plan = plan(small());
    let Tail::Fixed(tail) = &mut plan.branches[1].tail else { panic!("the test source has fixed tails") };
    *tail = tail.replace("! x264enc", "! identity error-after=5 ! x264enc");
    let event = run(&plan).event();
    assert!(matches!(event, GraphEvent::Error(Failure::Encoder { stream: 1, .. })), "{event:?}");
}

#[test]
fn a_stream_that_is_left_out_leaves_the_other_as_it_is() {
    let raw = "videotestsrc is-live=true ! video/x-raw,width=320,height=240,framerate=30/1";
    for camera in [small(), pipeline(raw)] {
        let mut plan = plan(camera);
        plan.branches[1].turn_off();
        let running = run(&plan);
        let kind = plan.source;
        assert_even(&running.take(0, 20), FRAME, &format!("{kind:?}"));
        assert!(running.branch(1).is_off() && running.branch(1).encoder().is_none());
        assert_eq!((running.branch(1).counters().frames_in, running.units[1].try_iter().count()), (0, 0));
        running.branch(1).force_keyframe();
        assert!(running.take(0, 10).iter().all(|unit| !unit.keyframe));
        running.graph.stop(Duration::from_secs(2));
    }
}

/// Gives H.264, with a keyframe in every second.
pub(super) const CODED: &str = "videotestsrc is-live=true ! \
                     video/x-raw,format=I420,width=320,height=240,framerate=30/1 ! x264enc tune=zerolatency \
                     key-int-max=30";

/// Whether one of these is a keyframe of the same time.
fn begins_there(units: &[AccessUnit], unit: &AccessUnit) -> bool {
    units.iter().any(|other| other.keyframe && other.pts.abs_diff(unit.pts) < Duration::from_millis(2))
}

fn data(units: &[AccessUnit]) -> Vec<&[u8]> {
    units.iter().map(|unit| &unit.data[..]).collect()
}

#[test]
fn a_coded_source_goes_out_untouched_and_is_decoded_for_the_second_stream() {
    let folder = Folder::new("decoded");
    let clip = folder.clip("a.mp4", &["-r", "30", "-c:v", "libx264", "-bf", "0", "-g", "15"]);
    let passed = file(&clip).with_source(|source| source.file_passthrough = true);
    let alone = run(&prepare(&passed, &chosen("x264enc")).unwrap()).take(0, 40);
    let running = run(&plan(passed));
    assert_eq!(data(&running.take(0, 40)), data(&alone), "a file, over its end");
    for (what, running) in [("a file", running), ("a pipeline", run(&plan(pipeline(CODED))))] {
        let units = running.take(1, 15);
        assert!(units[0].keyframe, "{what}");
        assert_even(&units, SECOND_FRAME, what);
        assert_even(&running.take(0, 20), FRAME, what);
        assert!(running.branch(0).encoder().is_none() && running.branch(1).encoder().is_some());
        let second = |event: GraphEvent| match event {
            GraphEvent::Format { stream: 1, resolution, .. } => Some(resolution),
            GraphEvent::Format { .. } => None,
            other => panic!("{what}: {other:?}"),
        };
        assert_eq!(running.events.try_iter().filter_map(second).collect::<Vec<_>>(), [SECOND], "{what}");
        running.graph.stop(Duration::from_secs(2));
    }
}

#[test]
fn while_a_decoded_stream_rests_nothing_is_decoded_and_it_begins_at_the_next_keyframe() {
    let running = run(&plan(pipeline(CODED)));
    running.take(1, 5);
    running.branch(1).rest();
    // What is on its way at this moment.
    running.take(0, 10);
    let before = running.branch(1).counters();
    let decoded = running.branch(1).coded.count();
    running.units[1].try_iter().for_each(drop);
    assert_even(&running.take(0, 45), FRAME, "the first");
    let resting = running.branch(1).counters();
    assert_eq!((running.branch(1).coded.count(), running.units[1].try_iter().count()), (decoded, 0));
    assert!(resting.frames_unwanted > before.frames_unwanted + 30 && resting.last_in > before.last_in, "{resting:?}");
    assert!(!running.branch(1).waits_for_keyframe());
    running.branch(1).wake();
    let woken = running.take(1, 5);
    assert!(woken[0].keyframe && woken[1..].iter().all(|unit| !unit.keyframe));
    let firsts: Vec<_> = running.units[0].try_iter().collect();
    assert!(begins_there(&firsts, &woken[0]), "{:?} is no keyframe of the source", woken[0].pts);
}

#[test]
fn a_decoder_that_hangs_holds_up_no_other_stream_and_goes_on_at_a_keyframe() {
    let running = run(&plan(pipeline(CODED)));
    running.take(1, 3);
    let queue = running.graph.pipeline.by_name(crate::pipeline::decoded::CODED_QUEUE).unwrap();
    let gate = Arc::new(Mutex::new(()));
    let at_gate = Arc::clone(&gate);
    queue.static_pad("src").unwrap().add_probe(gst::PadProbeType::BUFFER, move |_, _| {
        drop(lock(&at_gate));
        gst::PadProbeReturn::Ok
    });
    let shut = lock(&gate);
    running.take(0, 10);
    running.units[0].try_iter().for_each(drop);
    let begun = Instant::now();
    let units = running.take(0, 60);
    let (age, took) = (units[59].captured_at.elapsed(), begun.elapsed());
    assert!(age < took / 2, "the last of 60 pictures is {age:?} old, they took {took:?}");
    assert_even(&units, FRAME, "beside one that hangs");
    assert!(queue.property::<u32>("current-level-buffers") <= 8);
    let hung = running.branch(1).counters();
    assert!(hung.frames_dropped() >= 20, "{hung:?}");
    running.units[1].try_iter().for_each(drop);
    drop(shut);
    // Whole pictures of the newest group, and not what has come meanwhile.
    let opened = Instant::now();
    let fresh = running.units[1].iter().take(60).filter(|unit| unit.captured_at > opened).count();
    assert!(fresh >= 30, "{fresh}");
    let GraphEvent::Format { .. } = running.events.try_iter().last().unwrap() else { panic!("no failure") };
}

#[test]
fn damaged_pictures_of_the_decoder_are_not_shown() {
    let running = run(&plan(pipeline(CODED)));
    running.take(1, 3);
    let queue = running.graph.pipeline.by_name(plan::RAW_QUEUE).unwrap();
    // The decoder's own word for it.
    let count = AtomicU8::new(0);
    let decoder = queue.static_pad("sink").unwrap().peer().unwrap();
    decoder.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        if count.fetch_add(1, Ordering::Relaxed) == 5
            && let Some(picture) = info.buffer_mut()
        {
            picture.make_mut().set_flags(gst::BufferFlags::CORRUPTED);
        }
        gst::PadProbeReturn::Ok
    });
    let (firsts, seconds) = (running.take(0, 90), running.take(1, 30));
    let gap = seconds.windows(2).find(|two| two[1].pts - two[0].pts > 2 * SECOND_FRAME).expect("what is left out");
    assert!(begins_there(&firsts, &gap[1]), "it goes on at {:?}, which is no keyframe of the source", gap[1].pts);
}
