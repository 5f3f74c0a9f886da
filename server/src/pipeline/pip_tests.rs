//! A real pipeline, into which pictures are pushed from here.

use std::sync::mpsc::{Receiver, channel};

use super::*;
use crate::config::{CameraConfig, EncoderChoice, Layout, Part, Position, SourceKind};
use crate::hanging::Hanging;
use crate::pipeline::{Graph, Plan, encoder, prepare};
use rov_common::codec::Codec;
use rov_common::units::Resolution;

const WAIT: Duration = Duration::from_secs(10);
const BOW: usize = 0;
const ARM: usize = 1;

/// What goes to the encoder.
#[derive(Debug)]
enum Seen {
    Caps,
    Picture {
        time: gst::ClockTime,
        /// Luma of the large picture's left, of its right, and of the left and right of the small one.
        luma: [u8; 4],
    },
}

struct Running {
    pip: Arc<Pip>,
    shown: Mutex<PipConfig>,
    graph: Graph,
    seen: Receiver<Seen>,
}

impl Running {
    /// Of 320x240, with the small one in half the size at the lower right.
    fn start(flips: [Flip; 2]) -> Self {
        let part = |(name, flip): (&str, Flip)| Part { name: name.to_owned(), flip };
        let layout = Layout { position: Position::BottomRight, scale: 0.5, border: 0 };
        let [bow, arm] = flips;
        let config = PipConfig { parts: [("bow", bow), ("arm", arm)].map(part), layout, is_enabled: true };
        let shown = Mutex::new(config.clone());
        let pip = Arc::new(Pip::new("both", &config));
        let camera = CameraConfig::usual().with_source(|source| {
            source.kind = SourceKind::Pip;
            source.pip = Some(config);
        });
        let camera = camera.with_encode(|encode| {
            encode.resolution = Some(Resolution::new(320, 240));
            encode.encoder = EncoderChoice::Element("x264enc".to_owned());
        });
        let row = encoder::rows(Codec::H264).iter().find(|row| row.element == "x264enc").unwrap();
        let mut plan: Plan = prepare(&camera, &[row]).unwrap();
        plan.links.pip = Some(Arc::clone(&pip));
        let on_event = |event| assert!(matches!(event, crate::pipeline::GraphEvent::Format { .. }), "{event:?}");
        let graph = Graph::start(&Hanging::default(), &plan, |_, _| {}, on_event).unwrap();
        let encoder = graph.branches()[0].output.get().and_then(|output| output.encoder.as_ref()?.0.upgrade()).unwrap();
        let (seen, seen_here) = channel();
        let seen = Mutex::new(seen);
        let mask = gst::PadProbeType::BUFFER | gst::PadProbeType::EVENT_DOWNSTREAM;
        encoder.static_pad("sink").unwrap().add_probe(mask, move |_, info| {
            if matches!(info.event().map(|event| event.view()), Some(gst::EventView::Caps(_))) {
                let _ = lock(&seen).send(Seen::Caps);
            }
            if let Some(picture) = info.buffer() {
                let map = picture.map_readable().unwrap();
                let at = |x: usize, y: usize| map[y * 320 + x];
                let luma = [at(20, 20), at(300, 20), at(166, 126), at(314, 126)];
                let _ = lock(&seen).send(Seen::Picture { time: picture.pts().unwrap(), luma });
            }
            gst::PadProbeReturn::Ok
        });
        Self { pip, shown, graph, seen: seen_here }
    }

    /// Shows them in another way from here on.
    fn show(&self, change: impl FnOnce(&mut PipConfig)) {
        let mut shown = lock(&self.shown);
        change(&mut shown);
        self.pip.set(&shown);
    }

    fn swap(&self) {
        self.show(|shown| shown.parts.swap(LARGE, SMALL));
    }

    /// Pushes pictures of both, as cameras would, until one of those that go to the encoder is as wanted; `small`: arm
    /// gives pictures too, which are 0.3 s old. Returns all of them.
    fn until(&self, small: bool, wanted: [u8; 4]) -> Vec<Seen> {
        self.until_of_age(small.then_some(gst::ClockTime::from_mseconds(300)), wanted)
    }

    fn until_of_age(&self, small: Option<gst::ClockTime>, wanted: [u8; 4]) -> Vec<Seen> {
        let (bow, arm) = (picture("I420", 640, 480, 30, [60, 90]), picture("YUY2", 320, 240, 20, [160, 200]));
        let (end, mut all) = (Instant::now() + WAIT, Vec::new());
        loop {
            assert!(Instant::now() < end, "{:?}", all.last());
            let now = Instant::now();
            self.pip.push(BOW, bow.0.as_ref(), &bow.1, gst::ClockTime::ZERO, now);
            if let Some(age) = small {
                self.pip.push(ARM, arm.0.as_ref(), &arm.1, age, now);
            }
            if let Ok(seen) = self.seen.recv_timeout(Duration::from_millis(20)) {
                let is_wanted = matches!(&seen, Seen::Picture { luma, .. }
                    if luma.iter().zip(wanted).all(|(luma, wanted)| luma.abs_diff(wanted) < 8));
                all.push(seen);
                if is_wanted {
                    return all;
                }
            }
        }
    }
}

/// Grey, with another luma at the left than at the right.
fn picture(format: &str, width: usize, height: usize, fps: i32, luma: [u8; 2]) -> (gst::Buffer, gst::Caps) {
    let half = |x: usize| luma[usize::from(x >= width / 2)];
    let rows = |row: Vec<u8>| row.repeat(height);
    let bytes = match format {
        "I420" => [rows((0..width).map(half).collect()), vec![128; width * height / 2]].concat(),
        _ => rows((0..width).flat_map(|x| [half(x), 128]).collect()),
    };
    // They differ in all that cameras may differ in.
    let colours = if format == "I420" { "bt709" } else { "bt601" };
    let caps =
        format!("video/x-raw,format={format},width={width},height={height},framerate={fps}/1,colorimetry={colours}");
    (gst::Buffer::from_mut_slice(bytes), caps.parse().unwrap())
}

#[test]
fn a_swap_is_nothing_to_the_encoder_whatever_the_cameras_differ_in() {
    gst::init().unwrap();
    let running = Running::start([Flip::Horizontal, Flip::None]);
    // The one camera's pictures are turned as it says, and the other's are not.
    let mut all = running.until(true, [90, 60, 160, 200]);
    for swap in 1..=4 {
        running.swap();
        let wanted = if swap % 2 == 1 { [160, 200, 90, 60] } else { [90, 60, 160, 200] };
        all.extend(running.until(true, wanted));
    }
    let caps = all.iter().filter(|seen| matches!(seen, Seen::Caps)).count();
    assert_eq!(caps, 1, "the format never changes");
    let time = |seen: &Seen| match seen {
        Seen::Picture { time, .. } => Some(*time),
        Seen::Caps => None,
    };
    let times: Vec<_> = all.iter().filter_map(time).collect();
    assert!(times.windows(2).all(|pair| pair[1] > pair[0]), "{times:?}");
    // Never one camera in both places; for a moment after a swap the small one is grey.
    for seen in &all {
        if let Seen::Picture { luma: [left, _, small_left, _], .. } = *seen {
            let is = |luma: u8, wanted: u8| luma.abs_diff(wanted) < 8;
            assert!(is(small_left, 80) || is(left, 90) != is(small_left, 90), "{seen:?}");
        }
    }
}

#[test]
fn the_small_picture_is_moved_resized_turned_and_left_out_while_they_are_shown() {
    gst::init().unwrap();
    let running = Running::start([Flip::None; 2]);
    let mut caps = 0;
    let mut until = |wanted, never: &[(usize, u8)]| {
        let all = running.until(true, wanted);
        caps += all.iter().filter(|seen| matches!(seen, Seen::Caps)).count();
        for seen in &all {
            if let Seen::Picture { luma, .. } = seen {
                assert!(
                    never.iter().all(|(at, grey)| luma[*at].abs_diff(*grey) > 4),
                    "{seen:?} on the way to {wanted:?}"
                );
            }
        }
    };
    until([60, 90, 160, 200], &[]);
    // Never grey in between, wherever it is.
    let grey = [(0, 80), (2, 80)];
    running.show(|shown| shown.layout.position = Position::TopLeft);
    until([160, 90, 90, 90], &grey);
    running.show(|shown| shown.layout = Layout { position: Position::BottomRight, scale: 0.25, border: 2 });
    until([60, 90, 90, 90], &grey);
    running.show(|shown| shown.layout = Layout { position: Position::BottomRight, scale: 0.5, border: 0 });
    until([60, 90, 160, 200], &grey);
    running.pip.tap("arm").unwrap().set_flip(Flip::Horizontal);
    until([60, 90, 200, 160], &grey);
    running.show(|shown| shown.is_enabled = false);
    until([60, 90, 90, 90], &grey);
    assert!(running.pip.tap("bow").unwrap().is_wanted() && !running.pip.tap("arm").unwrap().is_wanted());
    running.pip.look(Instant::now() + Duration::from_secs(5));
    assert!(!lock(&running.pip.state).small_is_lost, "it is not missed");
    running.show(|shown| shown.is_enabled = true);
    until([60, 90, 200, 160], &[]);
    assert_eq!(caps, 1, "nothing of it is anything to the encoder");
}

#[test]
fn a_small_picture_that_is_old_is_not_shown_and_the_large_one_goes_on() {
    gst::init().unwrap();
    let running = Running::start([Flip::None; 2]);
    running.until(false, [60, 90, 80, 80]);
    running.until(true, [60, 90, 160, 200]);
    let since = Instant::now();
    running.until(false, [60, 90, 80, 80]);
    // It came before `since`, and every 20 ms there is another look.
    println!("shown for {:?}", since.elapsed());
    assert!(running.pip.why_silent(Instant::now(), Duration::from_secs(1)).is_none());
    let later = Instant::now() + Duration::from_secs(5);
    let reason = running.pip.why_silent(later, Duration::from_secs(1)).unwrap();
    assert!(reason.contains("camera bow"), "{reason}");
    running.swap();
    let reason = running.pip.why_silent(later, Duration::from_secs(1)).unwrap();
    assert!(reason.contains("camera arm"), "{reason}");
    running.until(true, [160, 200, 60, 90]);
}

#[test]
fn a_small_picture_that_was_old_as_it_came_is_not_shown() {
    gst::init().unwrap();
    let running = Running::start([Flip::None; 2]);
    running.until(true, [60, 90, 160, 200]);
    let since = Instant::now();
    // The camera's pictures come all the time.
    running.until_of_age(Some(gst::ClockTime::from_mseconds(1500)), [60, 90, 80, 80]);
    println!("shown for {:?}", since.elapsed());
    running.until(true, [60, 90, 160, 200]);
}

#[test]
fn what_is_coded_cannot_be_shown_and_is_told() {
    gst::init().unwrap();
    let running = Running::start([Flip::None; 2]);
    let coded = "video/x-h264,stream-format=byte-stream".parse().unwrap();
    running.pip.push(BOW, gst::Buffer::new().as_ref(), &coded, gst::ClockTime::ZERO, Instant::now());
    let reason = running.pip.why_silent(Instant::now(), Duration::from_secs(1)).unwrap();
    assert_eq!(
        reason,
        "the pictures of camera bow cannot be shown: they are video/x-h264; end its pipeline in raw video"
    );
}

#[test]
fn two_swaps_without_a_picture_between_them_are_none() {
    let mut input = Input::new(BOW);
    input.last = gst::ClockTime::from_mseconds(40);
    input.swap();
    assert_eq!((input.part, input.since), (ARM, input.last + TICK));
    input.swap();
    assert_eq!((input.part, input.since), (BOW, gst::ClockTime::ZERO));
}

#[test]
fn the_cameras_are_told_whether_somebody_looks_and_tell_that_they_are_frozen() {
    gst::init().unwrap();
    let running = Running::start([Flip::None; 2]);
    let (bow, arm) = (running.pip.tap("bow").unwrap(), running.pip.tap("arm").unwrap());
    assert!(running.pip.tap("both").is_none());
    running.until(true, [60, 90, 160, 200]);
    // Only then is a camera's JPEG decoded for it while the camera's own streams rest.
    let is_wanted = || [&bow, &arm].map(Tap::is_wanted);
    assert_eq!(is_wanted(), [true, true]);
    running.graph.branches()[0].rest();
    assert_eq!(is_wanted(), [false, false]);
    running.graph.branches()[0].wake();
    assert_eq!(is_wanted(), [true, true]);

    assert_eq!(running.pip.why_frozen(), None);
    arm.set_frozen(Some("the picture has not changed".to_owned()));
    bow.set_substitute(Some("no camera was found".to_owned()));
    running.until(true, [60, 90, 160, 200]);
    assert_eq!(running.pip.why_frozen().as_deref(), Some("camera arm: the picture has not changed"));
    assert_eq!(running.pip.why_substitute().as_deref(), Some("camera bow: no camera was found"));
    arm.set_frozen(None);
    bow.set_substitute(None);
    assert_eq!((running.pip.why_frozen(), running.pip.why_substitute()), (None, None));
    drop(running.graph);
    // It is taken down by a thread of its own.
    let end = Instant::now() + WAIT;
    while is_wanted() != [false, false] {
        assert!(Instant::now() < end, "its pipeline is gone");
        std::thread::sleep(Duration::from_millis(5));
    }
}
