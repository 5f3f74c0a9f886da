//! Scripted links: what a receiver would report of them.

use super::*;

const FRAME_US: i64 = 33_333;
const PACKET: usize = 1_200;
/// The receiver's clock began at another time.
const OFFSET: i64 = 5_000_000;

/// A link with one queue, and a sender that sends what it may, up to what its encoder makes.
struct Path {
    start: Instant,
    now: i64,
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
    encoder: f64,
    /// The encoder does what the estimate says.
    follows: bool,
    free: i64,
    sent: u64,
    waiting: Vec<(i64, Report)>,
    longest_queue: i64,
}

impl Path {
    fn new(encoder: f64) -> Self {
        Self {
            start: Instant::now(),
            now: 0,
            estimator: Estimator::new(encoder * 1.25),
            rate: None,
            queue_limit: 500_000,
            delay: 2_000,
            lose_each: None,
            lose_reports: None,
            reports: 0,
            down: false,
            encoder,
            follows: true,
            free: 0,
            sent: 0,
            waiting: Vec::new(),
            longest_queue: 0,
        }
    }

    fn at(&self, us: i64) -> Instant {
        self.start + micros(us)
    }

    /// Frames and reports for so long.
    fn run(&mut self, seconds: f64) {
        let end = self.now + (seconds * 1e6) as i64;
        let (mut frame, mut report) = (self.now, self.now + 50_000);
        while self.now < end {
            self.now = frame.min(report);
            if frame == self.now {
                self.frame();
                frame += FRAME_US;
            } else {
                self.report();
                report += 50_000;
            }
        }
    }

    fn frame(&mut self) {
        let rate = if self.follows { self.encoder.min(self.estimator.estimate() * 0.95) } else { self.encoder };
        // Frames differ in size.
        let bytes = rate / 8.0 * FRAME_US as f64 / 1e6 * if self.sent.is_multiple_of(3) { 1.2 } else { 0.9 };
        self.send((bytes / PACKET as f64).ceil() as u64);
    }

    fn send(&mut self, packets: u64) {
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
            let arrival = self.now.max(self.free) + self.delay;
            let report = Report {
                size: PACKET,
                arrived: !lost,
                departure: self.at(self.now),
                arrival: (!lost).then(|| micros(arrival + OFFSET)),
            };
            self.waiting.push((arrival, report));
        }
    }

    /// Up to the last packet that has arrived.
    fn report(&mut self) {
        let now = self.now;
        let Some(last) = self.waiting.iter().rposition(|(at, report)| report.arrived && *at + self.delay <= now) else {
            return;
        };
        self.reports += 1;
        if self.lose_reports.is_some_and(|(each, few)| self.reports % each < few) {
            // The next tells nothing of them, so that they are taken for lost.
            for (_, report) in &mut self.waiting[..=last] {
                (report.arrived, report.arrival) = (false, None);
            }
            return;
        }
        let reports: Vec<_> = self.waiting.drain(..=last).map(|(_, report)| report).collect();
        self.estimator.on_reports(self.at(now), &reports);
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
    path.down = true;
    path.run(2.0);
    assert_eq!(path.estimator.take_outage(), None, "it may last");
    path.down = false;
    let over = path.at(path.now);
    path.run(1.0);
    assert!(path.mbps() > 4.9, "{}", path.mbps());
    let lost_until = path.estimator.take_outage().expect("an outage");
    assert!(lost_until <= over && lost_until + Duration::from_millis(50) > over, "{:?}", over - lost_until);
    assert_eq!(path.estimator.take_outage(), None, "it is said once");
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
fn a_clock_that_begins_anew_is_no_congestion() {
    let mut path = Path::new(4e6);
    path.run(5.0);
    let epoch = path.estimator.estimate();
    path.delay += 100_000_000;
    // The reports come as before.
    let delay = std::mem::replace(&mut path.delay, 2_000);
    path.frame();
    for (_, report) in &mut path.waiting {
        report.arrival = report.arrival.map(|at| at + micros(delay));
    }
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
    estimator.on_receiver_report(0.1);
    assert!((estimator.estimate() - 4e6).abs() < 1.0);
    for _ in 0..20 {
        estimator.on_receiver_report(0.0);
    }
    assert!((estimator.estimate() - 5e6).abs() < 1.0);
    let mut path = Path::new(4e6);
    path.run(1.0);
    path.estimator.on_receiver_report(0.5);
    assert!(!path.estimator.is_limited(), "whoever tells more is judged by that");
}

#[test]
fn a_receiver_that_tells_only_losses_is_never_said_to_get_nothing() {
    let mut estimator = Estimator::new(5e6);
    (0..300).for_each(|_| estimator.on_receiver_report(0.06));
    assert!(estimator.estimate() > 300e3, "the floor of the encoder passes: {}", estimator.estimate());
    (0..25).for_each(|_| estimator.on_receiver_report(0.0));
    assert!(!estimator.is_limited(), "{}", estimator.estimate());
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
