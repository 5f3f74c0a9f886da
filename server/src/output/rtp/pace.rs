//! When the packets of an access unit leave: in bursts, so that a large one overflows nothing on its way. Pure.
//!
//! A keyframe is some hundred packets. At once they fill the small buffers between a fast port and a slow one
//! (switches, power-line and VDSL tethers), and those of receivers: VLC, ffmpeg and GStreamer take the 208 KB of the
//! system, which is about 90 packets. WebRTC viewers have retransmission for that; here a lost packet is a damaged
//! picture until the next keyframe.
//!
//! So 32 packets (40 KB) leave at once, and then 16 (20 KB) each millisecond: 160 Mbit/s, more than the 100 Mbit/s of
//! most tethers, where this costs nothing, as the packets would only wait elsewhere. On faster networks the last packet
//! of an access unit leaves 1 ms later for each 16 packets after those: a keyframe of 200 KB takes 9 ms, a picture of
//! 60 KB 2 ms, one up to 38 KB nothing.
//!
//! An access unit takes no longer than half the frame interval; the bursts grow for that. So the sender never falls
//! behind. Those that have waited (a camera's stream that stood still) leave one after the other, a millisecond apart.
//! Within an access unit the moments are counted from when it may begin: a sleep that took too long is made up for by
//! the next burst.

use std::time::{Duration, Instant};

/// Packets that leave at once in the beginning: a third of what those buffers hold.
const FIRST: usize = 32;
/// And then in each burst.
const BURST: usize = 16;
/// From one burst to the next: what systems can sleep for with some accuracy.
const STEP: Duration = Duration::from_millis(1);
/// Where the frame rate is not known.
const FASTEST: f64 = 60.0;

/// The time from one frame to the next; `fps` is 0 while unknown.
pub(super) fn frame_interval(fps: f64) -> Duration {
    Duration::from_secs_f64(1.0 / if fps > 0.0 { fps } else { FASTEST })
}

/// The schedules of the access units of a stream.
#[derive(Debug, Default)]
pub(super) struct Pacer {
    /// When the next one may begin; none: at once.
    free_at: Option<Instant>,
}

impl Pacer {
    /// Of the next access unit, which has so many packets and is ready `now`, of a stream with a frame each `interval`.
    pub fn schedule(&mut self, now: Instant, packets: usize, interval: Duration) -> Schedule {
        let steps = (interval.as_micros() / 2 / STEP.as_micros()).max(1) as usize;
        let burst = packets.saturating_sub(FIRST).div_ceil(steps).max(BURST);
        let schedule = Schedule { start: self.free_at.map_or(now, |at| at.max(now)), burst };
        self.free_at = Some(schedule.due(packets.saturating_sub(1)) + STEP);
        schedule
    }
}

/// When the packets of one access unit leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Schedule {
    start: Instant,
    burst: usize,
}

impl Schedule {
    /// When the packet `index`, counted from 0, may leave.
    pub fn due(self, index: usize) -> Instant {
        let bursts = (index + self.burst).saturating_sub(FIRST) / self.burst;
        self.start + STEP * u32::try_from(bursts).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT_30_FPS: Duration = Duration::from_micros(33_333);

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn a_small_frame_leaves_at_once() {
        let now = Instant::now();
        let schedule = Pacer::default().schedule(now, 32, AT_30_FPS);
        assert!((0..32).all(|index| schedule.due(index) == now));
    }

    #[test]
    fn a_larger_frame_leaves_in_bursts_a_millisecond_apart() {
        let now = Instant::now();
        let schedule = Pacer::default().schedule(now, 68, AT_30_FPS);
        let due: Vec<_> = [0, 31, 32, 47, 48, 67].map(|index| schedule.due(index) - now).into();
        assert_eq!(due, [ms(0), ms(0), ms(1), ms(1), ms(2), ms(3)]);
    }

    #[test]
    fn no_frame_takes_longer_than_half_the_interval() {
        for fps in [1.0, 15.0, 30.0, 60.0, 240.0] {
            let interval = frame_interval(fps);
            for packets in [1, 17, 100, 256, 1_000, 10_000] {
                let now = Instant::now();
                let last = Pacer::default().schedule(now, packets, interval).due(packets - 1) - now;
                assert!(last <= interval / 2, "{packets} packets at {fps} fps: {last:?}");
            }
        }
    }

    #[test]
    fn frames_that_have_waited_leave_one_after_the_other() {
        let (now, mut pacer) = (Instant::now(), Pacer::default());
        let mut first = |at, packets| pacer.schedule(at, packets, AT_30_FPS).due(0) - now;
        assert_eq!([first(now, 32), first(now, 40), first(now, 1), first(now, 1)], [ms(0), ms(1), ms(3), ms(4)]);
        assert_eq!(first(now + ms(33), 1), ms(33), "the next comes when it comes");
    }

    #[test]
    fn an_unknown_frame_rate_is_taken_for_a_fast_one() {
        assert_eq!(frame_interval(0.0), frame_interval(60.0));
        assert_eq!(frame_interval(25.0), ms(40));
    }
}
