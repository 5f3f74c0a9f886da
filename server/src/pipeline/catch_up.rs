//! Raw video from a pipe or a TCP connection: what waited in it and in its writer, while nothing was read, comes at
//! once. Of that only the newest keyframe and what follows it go on, as old pictures would look live.
//!
//! The decisions are pure, in [`CatchUp`]; [`install`] is the thin probe.

use std::net::ToSocketAddrs;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use gstreamer as gst;
use gstreamer::prelude::*;
use rov_common::codec::{self, Codec};
use rov_common::descriptor;
use rov_common::sync::lock;
use rov_common::unread::Unread;
use rov_gst::decoders;
use rov_gst::element::is_made_by;

use super::capture::Capture;

/// After so long without a byte, what comes may have waited: the process, the machine, or the link in front of the pipe
/// stood still.
const STANDSTILL: Duration = Duration::from_millis(500);
/// All that waited has come when nothing more comes for so long: a writer on a busy machine needs some time to go on.
const QUIET: Duration = Duration::from_millis(100);
/// A connection is looked at so often in that time.
const LOOK_AGAIN: Duration = Duration::from_millis(5);
/// Live pictures come sooner than that. They are counted over so long, to see whether they still come faster than
/// usual.
const WINDOW: Duration = Duration::from_millis(200);
const FASTER: f64 = 1.5;
/// The usual rate is known after so long, and is that of no more than four times as long.
const LEARNT: Duration = Duration::from_secs(1);
/// Taken for the usual rate before that.
const UNKNOWN: f64 = 120.0;
/// A writer that has not caught up after so long is shown as it comes.
const LIMIT: Duration = Duration::from_secs(5);
/// In bytes.
const MAX_HELD: usize = 32 << 20;

/// What becomes of a piece.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Pass,
    Hold,
    /// This goes on in its place.
    Release {
        bytes: Vec<u8>,
        /// Pictures left out.
        dropped: usize,
    },
}

#[derive(Debug, Default)]
struct CatchUp {
    /// When the piece before came.
    last: Option<(Instant, SystemTime)>,
    /// Pictures, and the time in which they came.
    usual: (u32, Duration),
    burst: Option<Burst>,
}

/// What has come since a standstill.
#[derive(Debug)]
struct Burst {
    began: Instant,
    window: (u32, Instant),
    bytes: Vec<u8>,
}

impl CatchUp {
    /// A piece has been read. `more` waits for another one, [`QUIET`] at most.
    fn piece(
        &mut self,
        codec: Codec,
        piece: &[u8],
        (now, wall): (Instant, SystemTime),
        more: impl FnOnce() -> bool,
    ) -> Step {
        let pictures = codec::access_units(codec, piece).count() as u32;
        let Some((last, last_wall)) = self.last.replace((now, wall)) else { return Step::Pass };
        let passed = now.saturating_duration_since(last);
        if self.burst.is_none() {
            // A suspended machine shows by the wall clock alone. Where that is set, nothing is lost.
            if passed.max(wall.duration_since(last_wall).unwrap_or_default()) < STANDSTILL {
                self.learn(pictures, passed);
                return Step::Pass;
            }
            self.burst = Some(Burst { began: now, window: (0, now), bytes: Vec::new() });
        }
        let usual = self.usual();
        let Some(burst) = &mut self.burst else { return Step::Pass };
        burst.bytes.extend_from_slice(piece);
        if burst.bytes.len() < MAX_HELD && burst.goes_on(pictures, usual, now) && more() {
            return Step::Hold;
        }
        let bytes = std::mem::take(&mut burst.bytes);
        self.burst = None;
        let (bytes, dropped) = newest_group(codec, bytes);
        Step::Release { bytes, dropped }
    }

    fn learn(&mut self, pictures: u32, passed: Duration) {
        self.usual.0 += pictures;
        self.usual.1 += passed;
        if self.usual.1 > LEARNT * 4 {
            self.usual = (self.usual.0 / 2, self.usual.1 / 2);
        }
    }

    /// Pictures a second before the standstill, where that is known.
    fn usual(&self) -> Option<f64> {
        (self.usual.1 >= LEARNT).then(|| f64::from(self.usual.0) / self.usual.1.as_secs_f64())
    }
}

impl Burst {
    /// False once the pictures come as they usually do.
    fn goes_on(&mut self, pictures: u32, usual: Option<f64>, now: Instant) -> bool {
        self.window.0 += pictures;
        let lasted = now.saturating_duration_since(self.window.1);
        if lasted < WINDOW {
            return true;
        }
        let rate = f64::from(self.window.0) / lasted.as_secs_f64();
        self.window = (0, now);
        rate > usual.unwrap_or(UNKNOWN) * FASTER && now.saturating_duration_since(self.began) < LIMIT
    }
}

/// Without what stands before the newest keyframe, but for the rest of the picture that it begins in the middle of; and
/// how many pictures that were. All of it where there is no keyframe.
fn newest_group(codec: Codec, mut bytes: Vec<u8>) -> (Vec<u8>, usize) {
    let units: Vec<_> = codec::access_units(codec, &bytes).collect();
    let Some(newest) = units.iter().rposition(|(_, is_keyframe)| *is_keyframe) else { return (bytes, 0) };
    bytes.drain(units[0].0..units[newest].0);
    (bytes, newest)
}

/// Where more may wait to be read.
#[derive(Debug)]
enum Pipe {
    Descriptor(i32),
    Connection(Unread),
}

impl Pipe {
    /// What the element reads from; none for other elements, and for a file, which is paced.
    fn of(element: &gst::Element) -> Option<Self> {
        if is_made_by(element, "fdsrc") {
            // Before it starts, the default, 0, is given as -1.
            let descriptor = element.property::<i32>("fd").max(0);
            return (!descriptor::is_file(descriptor)).then_some(Self::Descriptor(descriptor));
        }
        if !is_made_by(element, "tcpclientsrc") {
            return None;
        }
        let (host, port) = (element.property::<String>("host"), element.property::<i32>("port"));
        // An address that is not found is an error of the element's.
        let peers = (host, u16::try_from(port).unwrap_or_default()).to_socket_addrs().into_iter().flatten().collect();
        Some(Self::Connection(Unread::new(peers)))
    }

    /// Whether more is there, or comes within [`QUIET`].
    fn has_more(&mut self) -> bool {
        let unread = match self {
            Self::Descriptor(descriptor) => return descriptor::comes_within(*descriptor, QUIET),
            Self::Connection(unread) => unread,
        };
        let end = Instant::now() + QUIET;
        loop {
            if unread.waits() == Some(true) {
                return true;
            }
            if Instant::now() >= end {
                return false;
            }
            std::thread::sleep(LOOK_AGAIN);
        }
    }
}

/// Watches the pipes and connections of `head` that go straight into the parser. Their pictures have the time of their
/// arrival.
pub(super) fn install(head: &gst::Bin, codec: Codec, capture: &Arc<Capture>) {
    for element in head.iterate_recurse().into_iter().flatten() {
        let Some(pipe) = Pipe::of(&element) else { continue };
        let Some(pad) = element.static_pad("src").filter(|pad| is_parsed(pad, codec)) else { continue };
        element.set_property("do-timestamp", true);
        capture.is_piped.store(true, Ordering::Relaxed);
        let state = Mutex::new((CatchUp::default(), pipe));
        pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
            let Some(buffer) = info.buffer_mut() else { return gst::PadProbeReturn::Ok };
            let step = match buffer.map_readable() {
                Ok(piece) => {
                    let now = (Instant::now(), SystemTime::now());
                    let (state, pipe) = &mut *lock(&state);
                    state.piece(codec, &piece, now, || pipe.has_more())
                }
                Err(_) => Step::Pass,
            };
            match step {
                Step::Pass => gst::PadProbeReturn::Ok,
                Step::Hold => gst::PadProbeReturn::Handled,
                Step::Release { bytes, dropped } => {
                    if dropped > 0 {
                        tracing::info!("input resumed after a standstill; {dropped} old pictures left out");
                    }
                    let mut rest = gst::Buffer::from_mut_slice(bytes);
                    if let Some(rest) = rest.get_mut() {
                        rest.set_pts(buffer.pts());
                        rest.set_dts(buffer.dts());
                    }
                    *buffer = rest;
                    gst::PadProbeReturn::Ok
                }
            }
        });
    }
}

/// Whether what leaves `pad` comes to the codec's parser as it is.
fn is_parsed(pad: &gst::Pad, codec: Codec) -> bool {
    let mut next = pad.peer().and_then(|peer| peer.parent_element());
    while let Some(element) = next {
        if is_made_by(&element, decoders::parser(codec)) {
            return true;
        }
        let passes = ["capsfilter", "queue", "identity"].iter().any(|name| is_made_by(&element, name));
        let behind = element.static_pad("src").filter(|_| passes);
        next = behind.and_then(|pad| pad.peer()?.parent_element());
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYFRAME: [u8; 6] = [0, 0, 0, 1, 0x65, 0x88];
    const OTHER: [u8; 6] = [0, 0, 0, 1, 0x41, 0x9a];

    struct Pipe {
        state: CatchUp,
        start: (Instant, SystemTime),
    }

    impl Pipe {
        fn new() -> Self {
            Self { state: CatchUp::default(), start: (Instant::now(), SystemTime::now()) }
        }

        fn piece(&mut self, ms: u64, piece: &[u8], more: bool) -> Step {
            let passed = Duration::from_millis(ms);
            self.state.piece(Codec::H264, piece, (self.start.0 + passed, self.start.1 + passed), || more)
        }

        /// `fps` pictures a second, one a piece, which pass.
        fn steady(&mut self, from_ms: u64, to_ms: u64, fps: u64) {
            for i in 0..(to_ms - from_ms) * fps / 1000 {
                assert_eq!(self.piece(from_ms + i * 1000 / fps, &OTHER, false), Step::Pass, "{i}");
            }
        }
    }

    #[test]
    fn of_what_comes_at_once_after_a_standstill_only_the_newest_group_goes_on() {
        let mut pipe = Pipe::new();
        pipe.steady(0, 2_000, 25);
        let rest_of_a_picture = [7, 7, 7];
        let first = [&rest_of_a_picture[..], &OTHER, &KEYFRAME, &OTHER].concat();
        assert_eq!(pipe.piece(7_000, &first, true), Step::Hold);
        let second = [&KEYFRAME[..], &OTHER, &OTHER].concat();
        let bytes = [&rest_of_a_picture[..], &second].concat();
        assert_eq!(pipe.piece(7_001, &second, false), Step::Release { bytes, dropped: 3 });
        pipe.steady(7_040, 9_000, 25);
    }

    #[test]
    fn without_a_keyframe_everything_goes_on() {
        let mut pipe = Pipe::new();
        pipe.steady(0, 2_000, 25);
        assert_eq!(pipe.piece(4_000, &OTHER, true), Step::Hold);
        let bytes = OTHER.repeat(2);
        assert_eq!(pipe.piece(4_001, &OTHER, false), Step::Release { bytes, dropped: 0 });
    }

    /// A suspended machine, whose other clock stood still too.
    #[test]
    fn a_standstill_shows_by_the_wall_clock_too() {
        let mut pipe = Pipe::new();
        pipe.steady(0, 2_000, 25);
        let now = (pipe.start.0 + Duration::from_millis(2_040), pipe.start.1 + Duration::from_secs(60));
        assert_eq!(pipe.state.piece(Codec::H264, &OTHER, now, || true), Step::Hold);
    }

    #[test]
    fn a_writer_that_makes_up_for_lost_time_is_waited_for_until_it_has() {
        let mut pipe = Pipe::new();
        pipe.steady(0, 2_000, 25);
        // 250 a second, a keyframe each tenth of it, and then as before.
        for i in 0..250_u64 {
            let piece = if i % 25 == 0 { KEYFRAME } else { OTHER };
            assert_eq!(pipe.piece(12_000 + i * 4, &piece, true), Step::Hold, "{i}");
        }
        let released = (0..25_u64).find_map(|i| match pipe.piece(13_000 + i * 40, &OTHER, true) {
            Step::Hold => None,
            Step::Release { dropped, .. } => Some((i, dropped)),
            Step::Pass => panic!("{i} passes before the others"),
        });
        let (after, dropped) = released.expect("a release within a second");
        assert!(after <= 10 && dropped == 225, "{after} {dropped}");
    }

    #[test]
    fn a_quick_stream_that_is_never_quiet_is_released_soon() {
        for learnt_ms in [0, 3_000] {
            let mut pipe = Pipe::new();
            assert_eq!(pipe.piece(0, &OTHER, false), Step::Pass);
            pipe.steady(0, learnt_ms, 120);
            let held = (0..120_u64).take_while(|i| pipe.piece(9_000 + i * 8, &OTHER, true) == Step::Hold).count();
            assert!(held <= 60, "{held}");
        }
    }

    #[test]
    fn nothing_is_held_for_ever() {
        let mut pipe = Pipe::new();
        pipe.steady(0, 2_000, 25);
        let held = (0..1_000_u64).take_while(|i| pipe.piece(9_000 + i * 10, &OTHER, true) == Step::Hold).count();
        assert!(held <= 520, "{held}");
    }
}
