//! Leaves out frames of a source that is faster than wanted. Pure decisions in [`Thinner`]; [`install`] is the thin
//! probe.
//!
//! Not `videorate`: it ends the whole process by an assertion when a frame has no duration (JPEG and PNG files, and
//! cameras behind `jpegdec`), and does not take NVIDIA's memory before 1.20.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use gstreamer as gst;
use gstreamer::prelude::*;
use rov_common::units::Fps;

use super::wiring;

/// A source whose own rate is so little above the wanted one is left alone: 30.00003 is 30 for every purpose.
const SAME_RATE: f64 = 1.02;

/// The least distance of two frames in intervals: 50 become 30 by steps of 0.6 and 1.2, and half is a step of a source
/// of 60, which is to be halved evenly whatever else happens.
const CLOSEST: f64 = 0.55;

/// Which frames go on, by their times.
#[derive(Debug)]
pub struct Thinner {
    interval: Duration,
    /// When the last frame went on, and when the next one is due.
    last: Option<(Duration, Duration)>,
}

impl Thinner {
    pub fn new(wanted: Fps) -> Self {
        Self { interval: wanted.interval(), last: None }
    }

    /// Whether the frame of this time goes on. One that is not yet due is left out, unless it is early by no more than
    /// a quarter of the interval (cameras jitter); and so is one that follows another much too closely, as where a late
    /// frame was the last.
    pub fn keeps(&mut self, time: Duration) -> bool {
        let tolerance = self.interval / 4;
        // The next is due by the grid, so that 50 become 30 and not 25. After a pause, and when times jump back, the
        // grid begins anew.
        let next = match self.last {
            Some((last, due)) if time >= last && time < due + self.interval => {
                if time + tolerance < due || time < last + self.interval.mul_f64(CLOSEST) {
                    return false;
                }
                due + self.interval
            }
            _ => time + self.interval,
        };
        self.last = Some((time, next));
        true
    }
}

/// The rate that goes out of a source that says it has the rate `own`, if frames have to be left out for that.
pub fn thinned_rate(own: Option<Fps>, wanted: Fps) -> Option<Fps> {
    own.filter(|own| own.as_f64() > wanted.as_f64() * SAME_RATE).map(|_| wanted)
}

/// Thins what comes through `pad` down to `wanted`. A source that states a rate is believed, as its frames may jitter;
/// one that states none is thinned by the times of its frames, and frames without times by when they come. What is
/// behind sees the rate that is left.
pub fn install(pad: &gst::Pad, wanted: Fps) {
    // The second: the stated rate is not above the wanted one.
    let thinner = Mutex::new((Thinner::new(wanted), false));
    let mask = gst::PadProbeType::BUFFER | gst::PadProbeType::EVENT_DOWNSTREAM;
    pad.add_probe(mask, move |pad, info| {
        let mut thinner = thinner.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(buffer) = info.buffer() {
            let now = || pad.parent_element().and_then(|element| wiring::running_time(&element));
            let time = match buffer.pts() {
                Some(_) if thinner.1 => None,
                time => time.or_else(now),
            };
            let keeps = time.is_none_or(|time| thinner.0.keeps(time.into()));
            // Handled and not Drop: with Drop, GStreamer would free again what the bindings have freed.
            return if keeps { gst::PadProbeReturn::Ok } else { gst::PadProbeReturn::Handled };
        }
        let Some(gst::EventView::Caps(caps)) = info.event().map(|event| event.view()) else {
            return gst::PadProbeReturn::Ok;
        };
        let own = wiring::format_of(caps.caps()).and_then(|(_, fps)| fps);
        let left = thinned_rate(own, wanted);
        thinner.1 = own.is_some() && left.is_none();
        let rate = left.and_then(|left| Some((i32::try_from(left.num).ok()?, i32::try_from(left.den).ok()?)));
        if let Some((num, den)) = rate {
            // The encoder divides its bits among as many frames as the caps say.
            let mut caps = caps.caps_owned();
            caps.make_mut().set("framerate", gst::Fraction::new(num, den));
            info.data = Some(gst::PadProbeData::Event(gst::event::Caps::new(&caps)));
        }
        gst::PadProbeReturn::Ok
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many of `count` frames at `own` a second go on, each time shifted by `jitter` microseconds.
    fn kept(own: u32, wanted: u32, count: u64, jitter: impl Fn(u64) -> i64) -> Vec<Duration> {
        let mut thinner = Thinner::new(Fps::whole(wanted));
        let time = |i: u64| {
            let us = i64::try_from(i * 1_000_000 / u64::from(own)).unwrap() + jitter(i) + 20_000;
            Duration::from_micros(u64::try_from(us).unwrap())
        };
        (0..count).map(time).filter(|time| thinner.keeps(*time)).collect()
    }

    #[test]
    fn sixty_are_halved_exactly_and_stay_even() {
        let times = kept(60, 30, 600, |_| 0);
        assert_eq!(times.len(), 300);
        let even = |pair: &[Duration]| (pair[1] - pair[0]).abs_diff(Duration::from_micros(33_333)).as_micros() < 10;
        assert!(times.windows(2).all(even), "{times:?}");
        // Up to 5 ms to and fro, by a fixed pattern.
        assert_eq!(kept(60, 30, 600, |i| i64::try_from(i * 7919 % 10_000).unwrap() - 5_000).len(), 300);
    }

    #[test]
    fn as_many_as_wanted_or_fewer_all_go_on() {
        assert_eq!(kept(30, 30, 300, |_| 0).len(), 300);
        assert_eq!(kept(30, 30, 300, |i| if i % 2 == 0 { 0 } else { 7_000 }).len(), 300);
        assert_eq!(kept(25, 30, 300, |_| 0).len(), 300);
        assert_eq!(kept(15, 30, 300, |_| 0).len(), 300);
    }

    #[test]
    fn a_rate_that_is_no_multiple_is_met_on_average() {
        for (own, wanted) in [(50, 30), (30, 25), (120, 50), (31, 30), (60, 24)] {
            let left = kept(own, wanted, u64::from(own) * 10, |_| 0).len();
            assert!((left as i64 - i64::from(wanted) * 10).abs() <= 2, "{own} to {wanted}: {left}");
        }
    }

    #[test]
    fn after_a_lost_frame_the_others_are_even_again() {
        let mut thinner = Thinner::new(Fps::whole(30));
        let frames = (0..60).filter(|i| *i != 6).map(|i| Duration::from_micros(i * 16_667));
        let times: Vec<_> = frames.filter(|time| thinner.keeps(*time)).collect();
        assert!(times.windows(2).all(|pair| pair[1] - pair[0] > Duration::from_millis(33)), "{times:?}");
    }

    #[test]
    fn a_pause_is_not_made_up_for_and_a_jump_back_begins_anew() {
        let ms = Duration::from_millis;
        let mut thinner = Thinner::new(Fps::whole(10));
        assert!(thinner.keeps(ms(0)) && thinner.keeps(ms(5_000)));
        assert!(!thinner.keeps(ms(5_020)) && !thinner.keeps(ms(5_040)));
        assert!(thinner.keeps(ms(10)));
        assert!(!thinner.keeps(ms(20)));
    }

    #[test]
    fn a_source_that_says_it_is_slow_enough_is_believed() {
        let rate = |num, den| thinned_rate(Some(Fps { num, den }), Fps::whole(30));
        assert_eq!((rate(30, 1), rate(30_000, 1001), rate(30_001, 1000), rate(1, 1)), (None, None, None, None));
        assert_eq!((rate(60, 1), rate(50, 1)), (Some(Fps::whole(30)), Some(Fps::whole(30))));
        assert_eq!(thinned_rate(None, Fps::whole(30)), None);
    }

    /// As of a pipe or of `udpsrc do-timestamp=false`: the rate in the caps is somebody's guess.
    #[test]
    fn frames_without_times_are_thinned_by_when_they_come_whatever_the_caps_say() {
        gst::init().unwrap();
        let text = "appsrc name=in is-live=true format=time caps=video/x-raw,format=GRAY8,width=16,height=16,framerate=10/1 \
                    ! identity name=thinned ! appsink name=out sync=false";
        let pipeline = gst::parse::launch(text).unwrap().downcast::<gst::Pipeline>().unwrap();
        let source = pipeline.by_name("in").unwrap().downcast::<gstreamer_app::AppSrc>().unwrap();
        let sink = pipeline.by_name("out").unwrap().downcast::<gstreamer_app::AppSink>().unwrap();
        install(&pipeline.by_name("thinned").unwrap().static_pad("sink").unwrap(), Fps::whole(10));
        pipeline.set_state(gst::State::Playing).unwrap();
        let begun = std::time::Instant::now();
        for _ in 0..100 {
            source.push_buffer(gst::Buffer::from_slice([0_u8; 256])).unwrap();
        }
        source.end_of_stream().unwrap();
        let mut kept = 0;
        while sink.pull_sample().is_ok() {
            kept += 1;
        }
        let most = 2.0 + begun.elapsed().as_secs_f64() * 10.0;
        pipeline.set_state(gst::State::Null).unwrap();
        assert!(kept >= 1 && f64::from(kept) < most.min(100.0), "{kept} of 100");
    }
}
