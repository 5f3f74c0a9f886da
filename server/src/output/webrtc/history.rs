//! What was sent to a viewer, joined with what it says of it by transport-wide congestion control
//! (draft-holmer-rmcat-transport-wide-cc-extensions-01). Pure: time is passed in.
//!
//! Numbers are given out here without gaps, so that a packet is found by counting. The core's own history has three
//! hash maps for it, which were a sixth of what a viewer's packets cost.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use rtc::interceptor::Acknowledgement;

/// What was sent longer ago and not spoken of is forgotten: a queue that is longer than this is not seen.
const SPAN: Duration = Duration::from_secs(10);
/// The same in packets, for any bit rate: half of what can be told from each other by 16 bits.
pub const MAX_PACKETS: usize = 1 << 15;

/// Whoever sends nothing for so long has paused; unless it sent for a moment only before, as one picture now and then.
const PAUSE: Duration = Duration::from_millis(500);
const MOMENT: Duration = Duration::from_millis(250);

/// A packet and what is known of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    pub departure: Instant,
    /// With the RTP header, bytes.
    pub size: usize,
    pub arrived: bool,
    /// The receiver told that it had not come. Where it did not arrive either, the report on it may be what was lost.
    pub missed: bool,
    /// On the receiver's clock, of which only differences mean anything; none where it does not tell.
    pub arrival: Option<Duration>,
    pub carried: Option<Carried>,
}

/// The packet of a browser's picture that a packet carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Carried {
    /// Of the stream of pictures, and the packet's number in it.
    pub ssrc: u32,
    pub sequence: u16,
    /// In the stream of retransmissions (RFC 4588).
    pub again: bool,
}

#[derive(Debug, Default)]
pub struct History {
    /// In the order of sending, which is that of their numbers.
    packets: VecDeque<Report>,
    /// Of the next packet.
    next: u16,
    /// So many are known of: those up to the last that arrived.
    known: usize,
    /// When sending went on after the last pause.
    resumed: Option<Instant>,
    /// Of packets with no such time between them, when the first and the last left, and when the one before them did.
    run: Option<(Instant, Instant)>,
    before_run: Option<Instant>,
}

impl History {
    /// The number of the packet that is added next.
    pub fn next(&self) -> u16 {
        self.next
    }

    /// A packet of so many bytes leaves.
    pub fn add(&mut self, now: Instant, size: usize, carried: Option<Carried>) {
        self.forget(now, MAX_PACKETS - 1);
        let (mut began, last) = self.run.unwrap_or((now, now));
        if now.saturating_duration_since(last) > PAUSE {
            if last.saturating_duration_since(began) > MOMENT {
                self.resumed = Some(now);
            }
            (began, self.before_run) = (now, Some(last));
        }
        self.run = Some((began, now));
        self.packets.push_back(Report { departure: now, size, arrived: false, missed: false, arrival: None, carried });
        self.next = self.next.wrapping_add(1);
    }

    /// What the receiver says now. Of packets that are not there any more it says nothing new.
    pub fn acknowledge(&mut self, now: Instant, acknowledgement: Acknowledgement) {
        self.forget(now, MAX_PACKETS);
        let Acknowledgement { sequence_number, arrived, arrival, .. } = acknowledgement;
        let first = self.next.wrapping_sub(self.packets.len() as u16);
        let index = usize::from(sequence_number.wrapping_sub(first));
        let Some(packet) = self.packets.get_mut(index).filter(|packet| !packet.arrived) else { return };
        if arrived {
            (packet.arrived, packet.arrival) = (true, arrival);
            self.known = self.known.max(index + 1);
        }
        packet.missed = !arrived;
    }

    /// For how long packets were sent, without a pause, after the last one that is known to have arrived.
    pub fn unreported(&self) -> Duration {
        let (Some(first), Some((began, last))) = (self.packets.front(), self.run) else { return Duration::ZERO };
        // Of packets that have only just begun to leave nothing can be told yet, however long it is since the one
        // before, which may be lost.
        let is_new = last.saturating_duration_since(began) < PAUSE;
        let last = self.before_run.filter(|_| is_new).unwrap_or(last);
        last.saturating_duration_since(self.resumed.map_or(first.departure, |at| at.max(first.departure)))
    }

    /// Keeps so many at most, and none that is old.
    fn forget(&mut self, now: Instant, most: usize) {
        let is_old = |packet: &Report| now.saturating_duration_since(packet.departure) > SPAN;
        while self.packets.front().is_some_and(is_old) || self.packets.len() > most {
            self.packets.pop_front();
            self.known = self.known.saturating_sub(1);
        }
    }

    /// All up to the last that arrived, each once, in the order of sending: what has not arrived by then is lost.
    pub fn take(&mut self) -> Vec<Report> {
        self.packets.drain(..std::mem::take(&mut self.known)).collect()
    }
}

#[cfg(test)]
mod tests {
    use rtc::rtcp::transport_feedbacks::cc_feedback_report::Ecn;

    use super::*;

    fn arrived(number: u16, ms: u64) -> Acknowledgement {
        Acknowledgement::received(number, Some(Duration::from_millis(ms)), Ecn::NotEct)
    }

    #[test]
    fn packets_are_reported_once_up_to_the_last_that_arrived() {
        let (mut history, start) = (History::default(), Instant::now());
        (0..5).for_each(|i| history.add(start + Duration::from_millis(i), 1000, None));
        assert_eq!(history.take(), []);
        history.acknowledge(start, arrived(0, 7));
        history.acknowledge(start, Acknowledgement::lost(1));
        history.acknowledge(start, arrived(2, 9));
        history.acknowledge(start, Acknowledgement::lost(3));
        let taken = history.take();
        let arrivals: Vec<_> = taken.iter().map(|report| report.arrival.map(|at| at.as_millis())).collect();
        assert_eq!(arrivals, [Some(7), None, Some(9)]);
        assert!(!taken[1].arrived && taken[2].departure == start + Duration::from_millis(2));
        assert_eq!(history.take(), []);
        // Spoken of before, it has arrived in the end.
        history.acknowledge(start, arrived(3, 11));
        history.acknowledge(start, Acknowledgement::lost(3));
        assert_eq!(history.take().len(), 1);
    }

    #[test]
    fn numbers_that_were_not_sent_mean_nothing() {
        let (mut history, start) = (History::default(), Instant::now());
        for number in [0, 9, u16::MAX] {
            history.acknowledge(start, arrived(number, 1));
        }
        history.add(start, 1, None);
        history.acknowledge(start, arrived(1, 1));
        history.acknowledge(start, arrived(u16::MAX, 1));
        assert_eq!(history.take(), []);
    }

    #[test]
    fn numbers_begin_again() {
        let (mut history, start) = (History::default(), Instant::now());
        for i in 0..200_000_u32 {
            let now = start + Duration::from_micros(u64::from(i));
            let number = history.next();
            assert_eq!(number, i as u16);
            history.add(now, i as usize, None);
            if i % 100 == 99 {
                history.acknowledge(now, arrived(number, 1));
                let taken = history.take();
                assert_eq!((taken.len(), taken[0].size), (100, i as usize - 99));
            }
        }
    }

    #[test]
    fn what_is_never_spoken_of_takes_no_more_room() {
        let (mut history, start) = (History::default(), Instant::now());
        for _ in 0..100_000 {
            history.add(start, 1, None);
        }
        assert_eq!(history.packets.len(), MAX_PACKETS);
        // Of the oldest that is still there, and of one that is not any more.
        let oldest = history.next.wrapping_sub(MAX_PACKETS as u16);
        history.acknowledge(start, arrived(oldest, 1));
        history.acknowledge(start, arrived(oldest.wrapping_sub(1), 1));
        assert_eq!(history.take().len(), 1);
        history.add(start + SPAN + Duration::from_millis(1), 1, None);
        assert_eq!(history.packets.len(), 1);
    }

    #[test]
    fn a_packet_that_is_forgotten_is_not_reported() {
        let (mut history, start) = (History::default(), Instant::now());
        history.add(start, 1, None);
        history.acknowledge(start, arrived(0, 1));
        history.add(start + 2 * SPAN, 1, None);
        assert_eq!(history.take(), []);
    }

    #[test]
    fn what_has_waited_in_a_queue_for_seconds_is_reported() {
        let (mut history, start) = (History::default(), Instant::now());
        let at = |ms| start + Duration::from_millis(ms);
        (0..100).for_each(|i| history.add(at(i * 33), 1000, None));
        assert_eq!(history.unreported(), Duration::from_millis(99 * 33));
        history.acknowledge(at(3_300), arrived(20, 1));
        assert_eq!((history.take().len(), history.unreported()), (21, Duration::from_millis(78 * 33)));
    }

    #[test]
    fn a_pause_after_a_packet_that_was_lost_is_no_queue() {
        let (mut history, start) = (History::default(), Instant::now());
        let at = |ms| start + Duration::from_millis(ms);
        (0..10).for_each(|i| history.add(at(i * 33), 1000, None));
        history.acknowledge(at(300), arrived(8, 1));
        assert_eq!(history.take().len(), 9);
        (0..10).for_each(|i| history.add(at(3_000 + i * 33), 1000, None));
        assert_eq!(history.unreported(), Duration::ZERO);
        (10..20).for_each(|i| history.add(at(3_000 + i * 33), 1000, None));
        assert_eq!(history.unreported(), Duration::from_millis(19 * 33));
    }

    #[test]
    fn one_picture_now_and_then_is_no_pause() {
        let (mut history, start) = (History::default(), Instant::now());
        let at = |ms| start + Duration::from_millis(ms);
        for picture in 0..8 {
            let first = history.next();
            (0..10).for_each(|i| history.add(at(picture * 2_000 + i), 1000, None));
            if picture < 4 {
                (first..first + 10)
                    .for_each(|number| history.acknowledge(at(picture * 2_000 + 50), arrived(number, 1)));
                assert_eq!((history.take().len(), history.unreported()), (10, Duration::ZERO));
            }
        }
        assert_eq!(history.unreported(), Duration::from_millis(4_009));
    }

    #[test]
    fn the_last_packet_of_a_picture_that_came_long_before_the_next_may_be_lost() {
        let (mut history, start) = (History::default(), Instant::now());
        let at = |ms| start + Duration::from_millis(ms);
        (0..10).for_each(|i| history.add(at(i), 1000, None));
        history.acknowledge(at(50), arrived(8, 1));
        assert_eq!(history.take().len(), 9);
        (0..10).for_each(|i| history.add(at(2_000 + i), 1000, None));
        assert_eq!(history.unreported(), Duration::ZERO);
    }

    #[test]
    fn late_news_says_nothing_even_where_nothing_was_sent_since() {
        let (mut history, start) = (History::default(), Instant::now());
        history.add(start, 1, None);
        history.acknowledge(start + 2 * SPAN, arrived(0, 1));
        assert_eq!(history.take(), []);
    }
}
