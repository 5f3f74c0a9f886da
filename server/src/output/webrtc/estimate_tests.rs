//! Scripted links: what a receiver would report of them.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rtc::interceptor::Acknowledgement;
use rtc::rtcp::transport_feedbacks::cc_feedback_report::Ecn;

use super::*;
use crate::output::webrtc::history::History;

const FRAME_US: i64 = 33_333;
const PACKET: usize = 1_200;

/// A link with one queue, and a sender that sends what it may, up to what its encoder makes.
struct Path {
    start: Instant,
    now: i64,
    /// The next frame and the next report.
    next: (i64, i64),
    /// The receiver's clock is ahead by so much.
    clock: i64,
    estimator: Estimator,
    /// Bit/s; none: no limit.
    rate: Option<f64>,
    queue_limit: i64,
    delay: i64,
    /// Each packet with a number that this divides is lost.
    lose_each: Option<u64>,
    /// Of so many reports the first few, in a row.
    lose_reports: Option<(u64, u64)>,
    reports: u64,
    down: bool,
    /// The viewer is heard, although nothing may arrive there.
    heard: bool,
    encoder: f64,
    /// The encoder does what the estimate says.
    follows: bool,
    /// It rests while a queue drains, as `RateControl` has it.
    rests_until: i64,
    free: i64,
    sent: u64,
    /// When they arrive, and their numbers; none: they are lost.
    waiting: Vec<(i64, u16, bool)>,
    history: History,
    longest_queue: i64,
    /// Delays differ by so much, one way or the other.
    jitter: i64,
    random: StdRng,
}

impl Path {
    fn new(encoder: f64) -> Self {
        Self {
            start: Instant::now(),
            now: 0,
            next: (0, 50_000),
            clock: 5_000_000,
            estimator: Estimator::new(encoder * 1.25),
            rate: None,
            queue_limit: 500_000,
            delay: 2_000,
            lose_each: None,
            lose_reports: None,
            reports: 0,
            down: false,
            heard: true,
            encoder,
            follows: true,
            rests_until: 0,
            free: 0,
            sent: 0,
            waiting: Vec::new(),
            history: History::default(),
            longest_queue: 0,
            jitter: 0,
            random: StdRng::seed_from_u64(7),
        }
    }

    fn at(&self, us: i64) -> Instant {
        self.start + micros(us)
    }

    /// Frames and reports for so long.
    fn run(&mut self, seconds: f64) {
        let end = self.now + (seconds * 1e6) as i64;
        while self.now < end {
            let (frame, report) = self.next;
            self.now = self.now.max(frame.min(report));
            if frame < report {
                self.frame();
                self.next.0 = self.now + FRAME_US;
            } else {
                self.report();
                self.next.1 = self.now + 50_000;
            }
        }
    }

    fn frame(&mut self) {
        if self.follows && self.estimator.take_drain().is_some() && self.now > self.rests_until + 1_000_000 {
            self.rests_until = self.now + 400_000;
        }
        if self.now < self.rests_until {
            return;
        }
        let rate = if self.follows { self.encoder.min(self.estimator.estimate() * 0.95) } else { self.encoder };
        // Frames differ in size.
        let bytes = rate / 8.0 * FRAME_US as f64 / 1e6 * if self.sent.is_multiple_of(3) { 1.2 } else { 0.9 };
        self.send((bytes / PACKET as f64).ceil() as u64);
    }

    fn send(&mut self, packets: u64) {
        let jitter = self.random.random_range(-self.jitter..=self.jitter);
        for _ in 0..packets {
            self.sent += 1;
            let start = self.now.max(self.free);
            let lost = self.down
                || self.lose_each.is_some_and(|each| self.sent.is_multiple_of(each))
                || start - self.now > self.queue_limit;
            if let Some(rate) = self.rate.filter(|_| !lost) {
                self.free = start + (PACKET as f64 * 8.0 / rate * 1e6) as i64;
                self.longest_queue = self.longest_queue.max(self.free - self.now);
            }
            let arrival = self.now.max(self.free) + self.delay + jitter;
            self.waiting.push((arrival, self.history.next(), !lost));
            self.history.add(self.at(self.now), PACKET, None);
        }
    }

    /// Up to the last packet that has arrived.
    fn report(&mut self) {
        let now = self.at(self.now);
        let back = self.now - self.delay;
        if let Some(last) = self.waiting.iter().rposition(|(at, _, arrived)| *arrived && *at <= back) {
            self.reports += 1;
            // The next tells nothing of them, so that they are taken for lost.
            let is_lost = self.lose_reports.is_some_and(|(each, few)| self.reports % each < few);
            for (at, number, _) in self.waiting.drain(..=last).filter(|(.., arrived)| *arrived && !is_lost) {
                let arrival = Some(micros(at + self.clock));
                self.history.acknowledge(now, Acknowledgement::received(number, arrival, Ecn::NotEct));
            }
            self.estimator.on_reports(now, &self.history.take());
        }
        if self.heard {
            self.estimator.on_silence(now, self.history.unreported());
        }
    }

    fn mbps(&self) -> f64 {
        self.estimator.estimate() / 1e6
    }
}

#[test]
fn a_good_link_gets_all_that_the_encoder_makes() {
    let mut path = Path::new(4e6);
    path.run(60.0);
    assert!(!path.estimator.is_limited() && path.mbps() > 4.9, "{}", path.mbps());
}

#[test]
fn a_link_of_half_the_rate_is_seen_at_once_and_its_end_within_seconds() {
    let mut path = Path::new(4e6);
    path.run(5.0);
    path.rate = Some(2e6);
    path.run(0.5);
    assert!((1.4..1.9).contains(&path.mbps()), "{}", path.mbps());
    assert!(path.longest_queue < 400_000, "{}", path.longest_queue);
    path.run(3.0);
    path.longest_queue = 0;
    path.run(17.0);
    assert!((1.4..2.4).contains(&path.mbps()), "{}", path.mbps());
    assert!(path.longest_queue < 150_000, "while it looks for more: {}", path.longest_queue);
    path.rate = None;
    path.run(15.0);
    assert!(path.mbps() > 4.0, "{}", path.mbps());
}

/// As statistics that are asked for by HTTP.
#[test]
fn what_else_passes_while_a_queue_drains_does_not_lower_the_estimate_once_more() {
    let mut path = Path::new(4e6);
    path.run(5.0);
    path.rate = Some(500e3);
    path.run(0.1);
    path.free += 100_000;
    while path.mbps() > 1.0 {
        path.run(0.05);
    }
    let (before, drained) = (path.mbps(), path.free);
    assert!(before > 0.4, "{before} Mbit/s");
    while path.now < drained {
        path.run(0.05);
    }
    assert_eq!(path.mbps(), before);
}

#[test]
fn a_viewer_that_is_sent_keyframes_alone_gets_more_again_when_its_link_carries_more_and_not_before() {
    let keyframes = |path: &mut Path, count| {
        for _ in 0..count {
            path.send(20);
            for _ in 0..40 {
                path.now += 50_000;
                path.report();
            }
        }
    };
    let mut path = Path::new(4e6);
    path.rate = Some(1e6);
    path.run(5.0);
    keyframes(&mut path, 10);
    assert!(path.mbps() < 1.4, "{}", path.mbps());
    path.rate = None;
    keyframes(&mut path, 5);
    assert!(path.mbps() > 4.0, "{}", path.mbps());
}

#[test]
fn random_loss_is_no_congestion() {
    for each in [100, 20, 10] {
        let mut path = Path::new(4e6);
        path.lose_each = Some(each);
        path.run(30.0);
        assert!(path.mbps() > 4.2, "one of {each} lost: {}", path.mbps());
    }
}

#[test]
fn reports_that_are_lost_are_no_congestion() {
    for (packets, reports) in [(20, (20, 1)), (20, (60, 4)), (20, (110, 5)), (100, (5, 1))] {
        let mut path = Path::new(4e6);
        (path.lose_each, path.lose_reports) = (Some(packets), Some(reports));
        path.run(60.0);
        assert!(path.mbps() > 4.2, "{reports:?} reports lost: {}", path.mbps());
        assert_eq!(path.estimator.take_outage(), None, "{reports:?} reports lost");
    }
}

#[test]
fn loss_that_does_not_get_less_with_the_rate_is_the_links_own() {
    let mut path = Path::new(4e6);
    path.lose_each = Some(4);
    path.run(30.0);
    assert!(path.mbps() > 3.0, "{}", path.mbps());
}

#[test]
fn a_link_with_a_short_queue_is_known_by_its_losses() {
    let mut path = Path::new(4e6);
    path.run(2.0);
    (path.rate, path.queue_limit) = (Some(2e6), 20_000);
    path.run(5.0);
    assert!((1.2..2.4).contains(&path.mbps()), "{}", path.mbps());
    path.rate = None;
    path.run(20.0);
    assert!(path.mbps() > 4.0, "{}", path.mbps());
}

#[test]
fn an_encoder_that_makes_less_neither_lowers_nor_freezes_the_estimate() {
    let mut path = Path::new(4e6);
    path.rate = Some(2e6);
    path.run(5.0);
    assert!(path.mbps() < 2.4);
    path.rate = None;
    path.encoder = 0.4e6;
    path.run(20.0);
    assert!(path.mbps() > 4.0, "{}", path.mbps());
}

#[test]
fn an_outage_is_no_congestion() {
    let mut path = Path::new(4e6);
    path.run(5.0);
    (path.down, path.heard) = (true, false);
    path.run(2.0);
    assert_eq!(path.estimator.take_outage(), None, "it may last");
    (path.down, path.heard) = (false, true);
    let over = path.at(path.now);
    path.run(1.0);
    assert!(path.mbps() > 4.9, "{}", path.mbps());
    let lost_until = path.estimator.take_outage().expect("an outage");
    assert!(lost_until <= over && lost_until + Duration::from_millis(50) > over, "{:?}", over - lost_until);
    assert_eq!(path.estimator.take_outage(), None, "it is said once");
}

#[test]
fn what_is_lost_while_the_viewer_is_heard_counts_as_a_queue_until_none_is_found() {
    let mut path = Path::new(4e6);
    path.run(5.0);
    path.down = true;
    path.run(0.9);
    assert!(path.mbps() > 4.9, "{}", path.mbps());
    path.run(1.1);
    assert!((2.4..2.6).contains(&path.mbps()), "half, and once: {}", path.mbps());
    path.down = false;
    path.run(1.0);
    assert!(path.mbps() > 4.9, "{}", path.mbps());
}

/// As of a tether that holds packets while it is down.
#[test]
fn a_queue_of_seconds_is_seen_and_drained() {
    for (encoder, rate, heard) in
        [(4e6, 2e6, true), (4e6, 4e6, true), (4e6, 2e6, false), (4e6, 4e6, false), (2e6, 2e6, false)]
    {
        let mut path = Path::new(encoder);
        path.run(5.0);
        path.heard = heard;
        (path.rate, path.queue_limit) = (Some(rate), i64::MAX);
        path.free = path.now + 2_500_000;
        path.run(if heard { 8.0 } else { 13.0 });
        let queue = path.free - path.now;
        assert!(queue < 100_000, "{queue} us at {rate} bit/s, {heard}, {} Mbit/s", path.mbps());
        path.run(15.0);
        assert!(path.mbps() > rate / 1e6 * 0.7, "{} of {rate}", path.mbps());
    }
}

#[test]
fn what_comes_late_or_was_not_sent_was_no_outage() {
    let mut path = Path::new(4e6);
    path.run(2.0);
    // The link stands still, and loses nothing.
    (path.free, path.queue_limit) = (path.now + 2_000_000, i64::MAX);
    path.run(3.0);
    // The camera is away, and the last packet before is lost.
    path.down = true;
    path.send(1);
    path.down = false;
    path.now += 3_000_000;
    path.run(3.0);
    assert_eq!(path.estimator.take_outage(), None);
}

#[test]
fn a_longer_path_is_no_congestion_for_long() {
    let mut path = Path::new(4e6);
    path.run(5.0);
    path.delay = 80_000;
    path.run(25.0);
    assert!(path.mbps() > 4.0, "{}", path.mbps());
}

#[test]
fn a_longer_path_with_jitter_costs_a_part_of_the_rate_for_some_seconds() {
    for (delay, jitter) in [(52_000, 15_000), (102_000, 0), (102_000, 15_000), (252_000, 15_000)] {
        let mut path = Path::new(4e6);
        path.jitter = jitter;
        path.delay = jitter;
        path.run(5.0);
        path.delay += delay;
        let mut least = f64::INFINITY;
        for _ in 0..100 {
            path.run(0.1);
            least = least.min(path.mbps());
        }
        assert!(least > 1.5 && path.mbps() > 4.0, "{delay} \u{b1} {jitter}: {least}, then {}", path.mbps());
    }
}

/// As of an antenna in the swell.
#[test]
fn bursts_of_loss_that_come_again_and_again_do_not_hold_the_rate_down() {
    // With an outage of so long in the middle.
    for (encoder, burst, lose_each, outage) in [
        (4e6, 1.0, 2, 0.0),
        (4e6, 1.5, 2, 0.0),
        (4e6, 2.3, 2, 0.0),
        (4e6, 3.0, 2, 0.0),
        (4e6, 1.5, 3, 0.0),
        (8e6, 1.0, 3, 0.0),
        (4e6, 1.0, 2, 2.0),
        (8e6, 2.0, 3, 2.0),
        (8e6, 2.0, 3, 5.0),
    ] {
        let mut path = Path::new(encoder);
        let mut quiet = 0.0;
        for round in 0..200 {
            path.lose_each = None;
            path.run(0.6);
            quiet += if round < 100 { 0.0 } else { path.mbps().min(encoder / 1e6) };
            if round % 10 == 9 {
                path.lose_each = Some(lose_each);
                path.run(burst / 2.0);
                (path.down, path.heard) = (outage > 0.0, outage == 0.0);
                path.run(outage);
                (path.down, path.heard) = (false, true);
                path.run(burst / 2.0);
            }
        }
        let mean = quiet / 100.0 / (encoder / 1e6);
        assert!(mean > 0.85, "one of {lose_each} for {burst} s, {outage} s without: {mean} of {encoder} bit/s");
    }
}

#[test]
fn a_link_that_is_policed_and_then_carries_less_is_not_taken_for_one_in_the_swell() {
    let mut path = Path::new(4e6);
    (path.rate, path.queue_limit) = (Some(2e6), 20_000);
    let (mut sum, mut most) = (0.0, 0.0_f64);
    for at in 0..1_000 {
        path.run(0.1);
        if at >= 50 {
            sum += path.mbps();
            most = most.max(path.mbps());
        }
    }
    let mean = sum / 950.0;
    assert!((1.4..2.3).contains(&mean) && most < 2.8, "{mean}, up to {most}");
    path.rate = Some(1e6);
    path.run(10.0);
    assert!(path.mbps() < 1.4, "{}", path.mbps());
}

#[test]
fn a_link_that_is_policed_more_once_it_was_is_not_overrun() {
    let falls: [(&[f64], f64); 11] = [
        (&[1.5e6], 0.0),
        (&[2e6], 0.0),
        (&[2.4e6], 0.0),
        (&[2e6, 1e6], 12.0),
        (&[2.4e6, 1.2e6], 12.0),
        (&[2.4e6, 1.2e6], 17.0),
        (&[2.4e6, 1.2e6], 26.0),
        (&[2.4e6, 1.2e6], 31.0),
        (&[3e6, 1.5e6], 1.0),
        (&[3e6, 1.5e6], 17.0),
        (&[3e6, 1.5e6], 31.0),
    ];
    let links = [(4e6, 20_000), (4e6, 30_000), (8e6, 20_000), (8e6, 30_000)];
    for ((encoder, queue), (rates, after)) in links.into_iter().flat_map(|link| falls.map(|fall| (link, fall))) {
        let mut path = Path::new(encoder);
        path.run(5.0);
        path.queue_limit = queue;
        for rate in rates {
            path.rate = Some(*rate);
            path.run(after);
        }
        let rate = rates.last().expect("one") / 1e6;
        path.run(15.0);
        let (mut sum, mut most) = (0.0, 0.0_f64);
        for _ in 0..1_200 {
            path.run(0.1);
            sum += path.mbps();
            most = most.max(path.mbps());
        }
        let mean = sum / 1_200.0;
        let fits = (rate * 0.6..rate * 1.25).contains(&mean) && most < rate * 2.0;
        assert!(fits, "{encoder} bit/s, queue {queue}, {rates:?} after {after} s: {mean}, up to {most}");
    }
}

#[test]
fn a_share_that_is_given_is_no_lower_rate_than_before() {
    let mut estimator = Estimator::new(4e6);
    let at = Instant::now();
    estimator.burst = Some(Burst { at, estimate: 4e6, loss: Some(0.3), is_over: true });
    estimator.set_share(2e6);
    assert_eq!((estimator.burst.map(|burst| burst.estimate), estimator.inherent_at), (Some(2e6), 2e6));
}

#[test]
fn a_pause_with_a_lost_packet_before_lowers_nothing() {
    let mut path = Path::new(4e6);
    path.run(5.0);
    path.down = true;
    path.send(1);
    path.down = false;
    for _ in 0..60 {
        path.now += 50_000;
        path.report();
    }
    path.send(1);
    path.estimator.on_silence(path.at(path.now), path.history.unreported());
    path.run(1.0);
    assert!(path.mbps() > 4.9 && path.estimator.take_drain().is_none(), "{}", path.mbps());
}

#[test]
fn a_viewer_that_tells_only_losses_after_it_told_more_is_judged_by_these() {
    let mut path = Path::new(4e6);
    path.run(5.0);
    path.down = true;
    let report = |path: &mut Path, seconds: u32, loss| {
        for _ in 0..seconds {
            path.run(1.0);
            path.estimator.on_receiver_report(path.at(path.now), loss, path.sent as u32);
        }
    };
    report(&mut path, 5, 0.0);
    assert!((2.4..2.6).contains(&path.mbps()), "{}", path.mbps());
    report(&mut path, 10, 0.0);
    assert!(path.mbps() > 4.9, "{}", path.mbps());
    report(&mut path, 5, 0.3);
    assert!(path.mbps() < 2.5, "{}", path.mbps());
    report(&mut path, 30, 0.0);
    assert!(path.mbps() > 4.9, "{}", path.mbps());
}

/// Its viewer goes on to report each second that nothing more is lost.
#[test]
fn a_pause_of_the_encoder_does_not_make_it_forget_what_the_link_carries() {
    let mut path = Path::new(8e6);
    path.rate = Some(1.5e6);
    path.run(20.0);
    let before = path.mbps();
    assert!(before < 1.8, "{before}");
    for _ in 0..25 {
        path.estimator.on_receiver_report(path.at(path.now), 0.0, path.sent as u32);
        for _ in 0..20 {
            path.now += 50_000;
            path.report();
        }
    }
    assert!(path.mbps() < before * 1.05, "{before}, then {}", path.mbps());
    path.longest_queue = 0;
    path.run(5.0);
    assert!(path.longest_queue < 300_000, "{}", path.longest_queue);
}

#[test]
fn a_receiver_report_after_an_outage_does_not_hide_it() {
    let mut path = Path::new(4e6);
    path.run(5.0);
    path.down = true;
    path.run(2.0);
    path.estimator.on_receiver_report(path.at(path.now), 0.0, path.sent as u32);
    path.heard = false;
    path.run(20.0);
    (path.down, path.heard) = (false, true);
    path.estimator.on_receiver_report(path.at(path.now), 0.5, path.sent as u32);
    assert!(path.estimator.last_report().is_some());
    path.run(1.0);
    assert!(path.mbps() > 4.9, "{}", path.mbps());
}

#[test]
fn a_clock_that_begins_anew_is_no_congestion() {
    let mut path = Path::new(4e6);
    path.run(5.0);
    let epoch = path.estimator.estimate();
    path.clock += 100_000_000;
    path.frame();
    path.now += 50_000;
    path.report();
    assert_eq!(path.estimator.estimate(), epoch);
    assert_eq!(path.estimator.queue(), Duration::ZERO);
}

#[test]
fn a_sender_that_cannot_follow_gets_a_steady_answer() {
    let mut path = Path::new(4e6);
    path.follows = false;
    path.rate = Some(2e6);
    path.run(20.0);
    assert!((1.4..2.2).contains(&path.mbps()), "{}", path.mbps());
}

#[test]
fn without_transport_wide_feedback_the_losses_decide() {
    let mut estimator = Estimator::new(5e6);
    let now = Instant::now();
    estimator.on_receiver_report(now, 0.1, 1);
    assert!((estimator.estimate() - 4e6).abs() < 1.0);
    for _ in 0..20 {
        estimator.on_receiver_report(now, 0.0, 1);
    }
    assert!((estimator.estimate() - 4e6).abs() < 1.0, "nothing has arrived since");
    for highest in 2..22 {
        estimator.on_receiver_report(now, 0.0, highest);
    }
    assert!((estimator.estimate() - 5e6).abs() < 1.0);
    let mut path = Path::new(4e6);
    path.run(1.0);
    path.estimator.on_receiver_report(now, 0.5, 1);
    assert!(!path.estimator.is_limited(), "whoever tells more is judged by that");
}

#[test]
fn a_receiver_that_tells_only_losses_is_never_said_to_get_nothing() {
    let mut estimator = Estimator::new(5e6);
    let start = Instant::now();
    let report = |estimator: &mut Estimator, second: u32, loss| {
        estimator.on_receiver_report(start + second * Duration::from_secs(1), loss, second);
    };
    (0..10).for_each(|second| report(&mut estimator, second, 0.0));
    (10..310).for_each(|second| report(&mut estimator, second, 0.11));
    assert!(estimator.estimate() > 300e3, "the floor of the encoder passes: {}", estimator.estimate());
    (310..335).for_each(|second| report(&mut estimator, second, 0.0));
    assert!(!estimator.is_limited(), "{}", estimator.estimate());
}

#[test]
fn what_a_link_loses_anyway_does_not_keep_down_a_viewer_that_tells_only_losses() {
    let mut estimator = Estimator::new(5e6);
    let start = Instant::now();
    let report = |estimator: &mut Estimator, second: u32, loss| {
        estimator.on_receiver_report(start + second * Duration::from_secs(1), loss, second);
    };
    (0..40).for_each(|second| report(&mut estimator, second, 0.04));
    (40..44).for_each(|second| report(&mut estimator, second, 0.3));
    assert!(estimator.estimate() < 2.5e6, "{}", estimator.estimate());
    (44..64).for_each(|second| report(&mut estimator, second, 0.04));
    assert!(!estimator.is_limited(), "{}", estimator.estimate());
    // Losses that the rate causes do not become the link's own.
    (64..400).for_each(|second| report(&mut estimator, second, 0.12));
    assert!(estimator.estimate() < 0.5e6, "{}", estimator.estimate());
}

/// What a spectator gets whose link was bad for a moment: the keyframes that its budget allows.
#[test]
fn one_that_gets_keyframes_alone_is_given_more_within_seconds() {
    let mut path = Path::new(4e6);
    path.run(5.0);
    path.estimator.estimate = 200e3;
    (path.follows, path.encoder) = (false, 7e6);
    let begin = path.now;
    while path.mbps() < 1.6 {
        path.now += 2_000_000;
        path.frame();
        path.now += 50_000;
        path.report();
        assert!(path.now - begin < 30_000_000, "{}", path.mbps());
    }
}
