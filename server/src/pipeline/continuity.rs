//! One unbroken time line over the rounds of a file that loops. Pure decisions in [`Continuity`]; [`install`] is the
//! thin probe.
//!
//! Segment seeks would do it for some containers only (not for raw H.264, hardly for MPEG-TS), so a file is opened
//! again at its end, and here the timestamps of all rounds are placed one behind the other. What is downstream sees one
//! segment.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use gstreamer as gst;
use gstreamer::prelude::*;
use rov_gst::clock;

/// The name of the application message that asks for the next round.
pub const REWIND: &str = "rov-rewind";

/// So late may a frame be before those after it are put off too: more than a busy machine makes up for.
const LATE: Duration = Duration::from_millis(500);

/// A longer gap is a break in the file's clock, and not a picture that stands still; so is a jump back. It is closed.
const LONGEST_GAP: Duration = Duration::from_secs(60);

/// Where frames stand in running time.
#[derive(Debug)]
pub struct Continuity {
    /// The rate of a source that says nothing of time.
    interval: Duration,
    /// When the next frame is due if the rate goes on.
    next: Duration,
    last: Option<Duration>,
    /// The last frame's time in the file.
    last_time: Option<Duration>,
    /// Time in the file, and running time, of the round's first frame.
    round: Option<(Duration, Duration)>,
    frames_in_round: u64,
}

impl Continuity {
    pub fn new(interval: Duration) -> Self {
        Self { interval, next: Duration::ZERO, last: None, last_time: None, round: None, frames_in_round: 0 }
    }

    /// The running time for a frame with this time in the file and this duration, at running time `now`.
    ///
    /// A round begins where the one before ended, or now if that is later (the file was slow to open): late frames
    /// would come in a burst. A file that cannot be decoded in time is slowed down likewise, or its frames would claim
    /// to be ever older.
    pub fn place(&mut self, time: Option<Duration>, duration: Option<Duration>, now: Duration) -> Duration {
        // FFmpeg's decoders of animations give all frames the same time, and only their durations are right.
        let stuck = time.is_some() && time == self.last_time && self.round.is_some();
        let jumped_back = self.last_time.zip(time).is_some_and(|(last, time)| time + LATE < last);
        self.last_time = time;
        let time = time.filter(|_| !stuck);
        let placed = match (time, self.round) {
            (Some(time), Some((first, base))) => base + time.saturating_sub(first),
            (None, Some(_)) => self.next,
            (time, None) => {
                let base = self.next.max(now);
                self.round = Some((time.unwrap_or_default(), base));
                base
            }
        };
        let placed = if placed + LATE < now {
            self.round = Some((time.unwrap_or_default(), now));
            now
        } else if jumped_back || placed > self.next.max(now) + LONGEST_GAP {
            self.round = Some((time.unwrap_or_default(), self.next));
            self.next
        } else {
            placed
        };
        // Never backwards, whatever the file says.
        let placed = self.last.map_or(placed, |last| placed.max(last + Duration::from_micros(1)));
        if let Some(duration) = duration.filter(|duration| !duration.is_zero()) {
            self.interval = duration;
        } else if let Some(step) = self.last.filter(|_| self.frames_in_round > 0).map(|last| placed - last)
            && time.is_some()
            && (Duration::from_millis(1)..Duration::from_secs(1)).contains(&step)
        {
            self.interval = step;
        }
        self.last = Some(placed);
        self.next = placed + self.interval;
        self.frames_in_round += 1;
        placed
    }

    /// The file has ended; false if there was no frame in it, so that a next round would be as empty.
    pub fn end_round(&mut self) -> bool {
        self.round = None;
        self.last_time = None;
        std::mem::take(&mut self.frames_in_round) > 0
    }
}

struct State {
    continuity: Continuity,
    segment: gst::FormattedSegment<gst::ClockTime>,
    started: bool,
    segment_sent: bool,
}

/// Puts every buffer that comes through `pad` on one time line, and turns the end of stream into [`REWIND`] if
/// `looping`.
pub fn install(pad: &gst::Pad, pipeline: &gst::Pipeline, interval: Duration, looping: bool) {
    let state = Arc::new(Mutex::new(State {
        continuity: Continuity::new(interval),
        segment: gst::FormattedSegment::new(),
        started: false,
        segment_sent: false,
    }));
    let pipeline = pipeline.downgrade();
    let mask = gst::PadProbeType::BUFFER | gst::PadProbeType::EVENT_DOWNSTREAM;
    pad.add_probe(mask, move |_, info| {
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(buffer) = info.buffer_mut() {
            // Without a pipeline it is being taken down.
            let Some(pipeline) = pipeline.upgrade() else { return gst::PadProbeReturn::Handled };
            let now = clock::running_time(pipeline.upcast_ref()).map_or(Duration::ZERO, Duration::from);
            let time = buffer.pts().or(buffer.dts()).and_then(|time| state.segment.to_running_time(time));
            let placed = state.continuity.place(time.map(Duration::from), buffer.duration().map(Duration::from), now);
            let buffer = buffer.make_mut();
            let placed = gst::ClockTime::from_nseconds(u64::try_from(placed.as_nanos()).unwrap_or(u64::MAX - 1));
            buffer.set_pts(placed);
            buffer.set_dts(placed);
            return gst::PadProbeReturn::Ok;
        }
        let Some(event) = info.event() else { return gst::PadProbeReturn::Ok };
        match event.view() {
            gst::EventView::StreamStart(_) if std::mem::replace(&mut state.started, true) => {
                gst::PadProbeReturn::Handled
            }
            gst::EventView::Segment(segment) => {
                if let Some(segment) = segment.segment().downcast_ref::<gst::ClockTime>() {
                    state.segment = segment.clone();
                }
                if std::mem::replace(&mut state.segment_sent, true) {
                    return gst::PadProbeReturn::Handled;
                }
                let whole = gst::FormattedSegment::<gst::ClockTime>::new();
                info.data = Some(gst::PadProbeData::Event(gst::event::Segment::new(&whole)));
                gst::PadProbeReturn::Ok
            }
            // A gap has the file's timestamps.
            gst::EventView::Gap(_) => gst::PadProbeReturn::Handled,
            gst::EventView::Eos(_) if looping && state.continuity.end_round() => {
                if let Some(pipeline) = pipeline.upgrade() {
                    let message =
                        gst::message::Application::builder(gst::Structure::new_empty(REWIND)).src(&pipeline).build();
                    // Fails only while the pipeline is being taken down.
                    let _ = pipeline.post_message(message);
                }
                gst::PadProbeReturn::Handled
            }
            _ => gst::PadProbeReturn::Ok,
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAME: Duration = Duration::from_millis(40);

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn the_next_round_goes_on_one_frame_after_the_last() {
        let mut line = Continuity::new(ms(33));
        // The file begins at 5 s, as MPEG-TS files do.
        let first: Vec<_> = (0..3).map(|i| line.place(Some(ms(5000) + FRAME * i), None, ms(10))).collect();
        assert_eq!(first, [ms(10), ms(50), ms(90)]);
        assert!(line.end_round());
        assert_eq!(line.place(Some(ms(5000)), None, ms(60)), ms(130));
        assert_eq!(line.place(Some(ms(5040)), None, ms(60)), ms(170));
    }

    #[test]
    fn a_round_that_opens_late_begins_now_and_not_in_a_burst() {
        let mut line = Continuity::new(FRAME);
        line.place(Some(ms(0)), None, ms(0));
        assert!(line.end_round());
        assert_eq!(line.place(Some(ms(0)), None, ms(900)), ms(900));
    }

    #[test]
    fn a_file_that_is_decoded_too_slowly_is_slowed_down() {
        let mut line = Continuity::new(FRAME);
        line.place(Some(ms(0)), None, ms(0));
        assert_eq!(line.place(Some(ms(40)), None, ms(500)), ms(40));
        assert_eq!(line.place(Some(ms(80)), None, ms(600)), ms(600));
        assert_eq!(line.place(Some(ms(120)), None, ms(601)), ms(640));
    }

    #[test]
    fn frames_without_time_follow_at_the_given_rate() {
        let mut line = Continuity::new(FRAME);
        assert_eq!(line.place(None, None, ms(0)), ms(0));
        assert_eq!(line.place(None, None, ms(0)), ms(40));
        assert_eq!(line.place(None, Some(ms(20)), ms(0)), ms(80));
        assert_eq!(line.place(None, Some(ms(20)), ms(0)), ms(100));
    }

    #[test]
    fn frames_that_all_claim_the_same_time_follow_by_their_durations() {
        let mut line = Continuity::new(FRAME);
        assert_eq!(line.place(Some(ms(0)), Some(ms(200)), ms(0)), ms(0));
        assert_eq!(line.place(Some(ms(0)), Some(ms(3000)), ms(0)), ms(200));
        assert_eq!(line.place(Some(ms(0)), Some(ms(200)), ms(0)), ms(3200));
        assert!(line.end_round());
        assert_eq!(line.place(Some(ms(0)), Some(ms(200)), ms(0)), ms(3400));
    }

    #[test]
    fn a_pause_is_kept_and_a_break_in_the_clock_is_closed() {
        let mut line = Continuity::new(FRAME);
        line.place(Some(ms(0)), None, ms(0));
        line.place(Some(ms(40)), None, ms(0));
        assert_eq!(line.place(Some(ms(3_040)), None, ms(40)), ms(3_040));
        let hours = ms(9_000_000);
        assert_eq!(line.place(Some(hours), None, ms(3_040)), ms(3_080));
        assert_eq!(line.place(Some(hours + FRAME), None, ms(3_080)), ms(3_120));
        // As broadcast recordings jump back.
        assert_eq!(line.place(Some(ms(500)), None, ms(3_120)), ms(3_160));
        assert_eq!(line.place(Some(ms(540)), None, ms(3_160)), ms(3_200));
    }

    #[test]
    fn time_never_goes_backwards() {
        let mut line = Continuity::new(FRAME);
        line.place(Some(ms(100)), None, ms(0));
        let second = line.place(Some(ms(180)), None, ms(0));
        assert!(line.place(Some(ms(140)), None, ms(0)) > second);
    }

    #[test]
    fn a_file_without_a_frame_is_not_started_again() {
        assert!(!Continuity::new(FRAME).end_round());
    }
}
