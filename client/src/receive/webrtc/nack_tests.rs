//! The requests of a stream whose losses are scripted.

use super::*;

const PATIENCE: Duration = Duration::from_millis(100);

/// A stream of pictures of ten packets each 33 ms; times in microseconds.
struct Stream {
    gaps: Gaps,
    start: Instant,
    /// Every request: when, and for what.
    asked: Vec<(u64, u16)>,
}

impl Stream {
    fn new() -> Self {
        Self { gaps: Gaps::new(PATIENCE), start: Instant::now(), asked: Vec::new() }
    }

    fn at(&self, us: u64) -> Instant {
        self.start + Duration::from_micros(us)
    }

    /// Runs the timers up to then.
    fn run(&mut self, until_us: u64) {
        let until = self.at(until_us);
        while let Some(next) = self.gaps.next().filter(|next| *next <= until) {
            let us = next.saturating_duration_since(self.start).as_micros() as u64;
            let before = self.gaps.next();
            let asked = self.gaps.due(next);
            self.asked.extend(asked.into_iter().map(|sequence| (us, sequence)));
            assert_ne!(self.gaps.next(), before, "a timer that is due for ever");
        }
    }

    fn comes(&mut self, sequence: u16, us: u64) {
        self.run(us);
        self.gaps.arrived(sequence, u32::from(sequence / 10) * 3_000, sequence % 10 == 9, self.at(us));
    }

    /// Pictures that come whole but for `lost`, which come again `round_trip_us` after they were asked for, each time.
    fn pictures(&mut self, pictures: std::ops::Range<u16>, lost: &[u16], round_trip_us: u64) {
        let mut events: Vec<(u64, u16)> = Vec::new();
        for sequence in pictures.start * 10..pictures.end * 10 {
            if !lost.contains(&sequence) {
                events.push((sent_us(sequence), sequence));
            }
        }
        let end = u64::from(pictures.end) * 33_000;
        let mut answered = self.asked.len();
        for step in (u64::from(pictures.start) * 33_000..end).step_by(100) {
            self.run(step);
            for (us, sequence) in &self.asked[answered..] {
                // What is not sent yet cannot be sent again.
                if sent_us(*sequence) <= *us {
                    events.push((us + round_trip_us, *sequence));
                }
            }
            answered = self.asked.len();
            events.sort_unstable();
            let due = events.partition_point(|(us, _)| *us <= step);
            for (_, sequence) in events.drain(..due) {
                self.comes(sequence, step);
            }
        }
    }

    fn requests_for(&self, sequence: u16) -> usize {
        self.asked.iter().filter(|(_, asked)| *asked == sequence).count()
    }
}

fn sent_us(sequence: u16) -> u64 {
    u64::from(sequence / 10) * 33_000 + u64::from(sequence % 10) * 100
}

#[test]
fn a_stream_without_losses_is_never_asked_about() {
    let mut stream = Stream::new();
    stream.pictures(0..100, &[], 4_000);
    assert_eq!(stream.asked, []);
}

#[test]
fn a_lost_packet_is_asked_for_within_milliseconds_and_once() {
    let mut stream = Stream::new();
    let lost = [13, 55, 56, 57, 101, 250, 333];
    stream.pictures(0..40, &lost, 4_000);
    for sequence in lost {
        let (us, _) = *stream.asked.iter().find(|(_, asked)| *asked == sequence).expect("asked for");
        assert!(us - sent_us(sequence) <= 6_000, "{sequence}: {} us", us - sent_us(sequence));
        assert_eq!(stream.requests_for(sequence), 1, "{sequence}: {:?}", stream.asked);
    }
    assert_eq!(stream.asked.len(), lost.len(), "{:?}", stream.asked);
}

#[test]
fn the_last_packet_of_a_picture_does_not_wait_for_the_next_picture() {
    let mut stream = Stream::new();
    stream.pictures(0..20, &[59, 119], 4_000);
    for sequence in [59, 119] {
        let (us, _) = *stream.asked.iter().find(|(_, asked)| *asked == sequence).expect("asked for");
        assert!(us - sent_us(sequence) <= 10_000, "{sequence}: {:?}", stream.asked);
    }
    assert_eq!(stream.asked.len(), 2, "{:?}", stream.asked);
}

#[test]
fn a_packet_that_does_not_come_is_asked_for_again_at_the_pace_of_the_answers_until_it_is_too_late() {
    for (round_trip_us, least, most) in [(4_000, 5, 20), (40_000, 1, 2)] {
        let mut stream = Stream::new();
        // Some answers, to learn from, and then a packet for which all requests are lost.
        let lost: Vec<u16> = (0..20).map(|n| 13 + 20 * n).collect();
        stream.pictures(0..45, &lost, round_trip_us);
        let late: usize = lost[10..].iter().map(|sequence| stream.requests_for(*sequence)).sum();
        assert_eq!(late, 10, "once each after it was learnt: {:?}", stream.asked);
        let us = 45 * 33_000;
        (450..453).chain(454..460).for_each(|sequence| stream.comes(sequence, us));
        for picture in 46..60 {
            (0..10).for_each(|n| stream.comes(picture * 10 + n, u64::from(picture) * 33_000));
        }
        let requests = stream.requests_for(453);
        assert!((least..=most).contains(&requests), "{requests} requests at {round_trip_us} us");
        let last = stream.asked.iter().rfind(|(_, asked)| *asked == 453).expect("asked for").0;
        assert!(last + round_trip_us <= us + 101_000, "the last answer comes in time");
    }
}

#[test]
fn packets_that_overtake_each_other_are_hardly_asked_for() {
    let mut stream = Stream::new();
    let mut order: Vec<(u64, u16)> =
        (0..3_000).map(|n: u16| (sent_us(n) + if n % 20 == 7 { u64::from(n % 50) * 100 } else { 0 }, n)).collect();
    order.sort_unstable();
    for (us, sequence) in order {
        stream.comes(sequence, us);
    }
    assert!(stream.asked.len() <= 2, "{:?}", stream.asked);
}

#[test]
fn after_an_outage_nothing_old_is_asked_for() {
    let mut stream = Stream::new();
    stream.pictures(0..10, &[], 4_000);
    // Two seconds.
    (700..710).for_each(|sequence| stream.comes(sequence, 70 * 33_000));
    stream.run(80 * 33_000);
    assert_eq!(stream.asked, []);
    // Nor after a jump without a pause.
    (9_000..9_010).for_each(|sequence| stream.comes(sequence, 80 * 33_000 + 1));
    stream.run(90 * 33_000);
    assert_eq!(stream.asked, []);
}

#[test]
fn a_burst_of_losses_is_asked_for_at_once() {
    let mut stream = Stream::new();
    let lost: Vec<u16> = (105..145).collect();
    stream.pictures(0..40, &lost, 4_000);
    assert!(lost.iter().all(|sequence| stream.requests_for(*sequence) >= 1), "{:?}", stream.asked);
    assert!(stream.asked.len() <= 50, "{}", stream.asked.len());
}

#[test]
fn a_link_that_is_full_is_not_filled_by_requests() {
    let mut stream = Stream::new();
    for sequence in (0..20_000).filter(|sequence| sequence % 3 == 0) {
        stream.comes(sequence, sent_us(sequence));
    }
    let (asked, came) = (stream.asked.len(), 20_000 / 3);
    assert!(asked <= came / PRICE + 256, "{asked} requests for {came} packets that came");
}

#[test]
fn sequence_numbers_wrap_around() {
    let mut gaps = Gaps::new(PATIENCE);
    let now = Instant::now();
    for sequence in [65_533, 65_534, 1, 2] {
        gaps.arrived(sequence, 7, false, now);
    }
    assert_eq!(gaps.due(now + REORDER_START), [65_535, 0]);
}
