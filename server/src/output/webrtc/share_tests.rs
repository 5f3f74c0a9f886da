//! Sessions of one address over one scripted link.

use rov_common::units::{Bitrate, Resolution};

use super::super::estimate::Estimator;
use super::super::history::Report;
use super::*;
use crate::rate_control::{Ceiling, RateControl, ViewerLink};

const FRAME_US: i64 = 33_333;
const REPORT_US: i64 = 50_000;
const SHARE_US: i64 = 20_000;
const PACKET: usize = 1_200;
const DELAY_US: i64 = 2_000;

fn micros(us: i64) -> Duration {
    Duration::from_micros(us.unsigned_abs())
}

/// A stream with its encoder and its one viewer.
struct Sender {
    estimator: Estimator,
    control: RateControl,
    ceiling: Ceiling,
    part: Part,
    /// Its clock began at another time than those of the others.
    offset: i64,
    encoder: f64,
    pause_until: Option<Instant>,
    /// When each packet arrives.
    waiting: Vec<(i64, Report)>,
    bits: f64,
}

struct World {
    start: Instant,
    now: i64,
    tether: Option<f64>,
    /// Of the one link of all, bit/s.
    rate: f64,
    free: i64,
    senders: Vec<Sender>,
    longest_queue: i64,
    /// Of all encoders together, each time that they are set.
    sums: Vec<f64>,
}

impl World {
    fn new(rate: f64) -> Self {
        let (start, senders, sums) = (Instant::now(), Vec::new(), Vec::new());
        Self { start, now: 0, tether: None, rate, free: 0, senders, longest_queue: 0, sums }
    }

    fn join(&mut self, kbps: u32) {
        let resolution = Resolution::new(1280, 720);
        let bitrate = Bitrate::from_kbps(kbps);
        self.senders.push(Sender {
            estimator: Estimator::new(f64::from(bitrate.bps()) * 1.25),
            control: RateControl::new(Bitrate::from_kbps(300)),
            ceiling: Ceiling { bitrate, resolution, fps: 30.0, costly: false, fixed_size: true },
            part: Part::default(),
            offset: 5_000_000 * (self.senders.len() as i64 + 1),
            encoder: f64::from(bitrate.bps()),
            pause_until: None,
            waiting: Vec::new(),
            bits: 0.0,
        });
    }

    fn at(&self, us: i64) -> Instant {
        self.start + micros(us)
    }

    fn run(&mut self, seconds: f64) {
        let end = self.now + (seconds * 1e6) as i64;
        self.longest_queue = 0;
        self.sums.clear();
        self.senders.iter_mut().for_each(|sender| sender.bits = 0.0);
        while self.now < end {
            self.now += 1_000;
            for at in 0..self.senders.len() {
                // One after the other, not all at the same moment.
                let shifted = self.now - 7_000 * at as i64;
                if shifted.rem_euclid(FRAME_US) < 1_000 {
                    self.frame(at);
                }
                if shifted.rem_euclid(REPORT_US) < 1_000 {
                    self.report(at);
                }
            }
            if self.now.rem_euclid(SHARE_US) < 1_000 {
                self.control();
            }
        }
    }

    fn frame(&mut self, at: usize) {
        let (now, departure) = (self.now, self.at(self.now));
        let sender = &mut self.senders[at];
        if sender.pause_until.is_some_and(|until| departure < until) {
            return;
        }
        let packets = (sender.encoder / 8.0 * FRAME_US as f64 / 1e6 / PACKET as f64).round().max(1.0) as usize;
        for _ in 0..packets {
            self.free = now.max(self.free) + (PACKET as f64 * 8.0 / self.rate * 1e6) as i64;
            self.longest_queue = self.longest_queue.max(self.free - now);
            let arrival = self.free + DELAY_US;
            let report = Report {
                departure,
                size: PACKET,
                arrived: true,
                arrival: Some(micros(arrival + sender.offset)),
                missed: false,
                carried: None,
            };
            sender.waiting.push((arrival, report));
            sender.bits += PACKET as f64 * 8.0;
        }
    }

    fn report(&mut self, at: usize) {
        let (now, time) = (self.now, self.at(self.now));
        let sender = &mut self.senders[at];
        let arrived = sender.waiting.iter().take_while(|(arrival, _)| arrival + DELAY_US <= now).count();
        let reports: Vec<_> = sender.waiting.drain(..arrived).map(|(_, report)| report).collect();
        if !reports.is_empty() {
            sender.estimator.on_reports(time, &reports);
        }
    }

    fn leave(&mut self, at: usize) {
        let seen = |Sender { part, estimator, .. }: &Sender| {
            let (estimate, most, reported) = (estimator.estimate(), estimator.max(), estimator.last_report());
            (*part, Seen { estimate, most, trouble: estimator.trouble(), reported, large: false })
        };
        let gone = self.senders.remove(at);
        let sessions: Vec<_> = self.senders.iter().map(seen).collect();
        let shares = inherit(&seen(&gone), &sessions);
        self.senders.iter_mut().zip(shares).for_each(|(sender, share)| sender.estimator.set_share(share));
    }

    fn control(&mut self) {
        let (now, start) = (self.at(self.now), self.start);
        let seen = |(number, sender): (usize, &Sender)| {
            let estimator = &sender.estimator;
            let (trouble, reported) = (estimator.trouble(), estimator.last_report());
            let seen =
                Seen { estimate: estimator.estimate(), most: estimator.max(), trouble, reported, large: number == 0 };
            (sender.part, seen)
        };
        let mut sessions: Vec<_> = self.senders.iter().enumerate().map(seen).collect();
        let (shares, _) = super::share(now, self.tether, &mut sessions, &[]);
        let drain = self.senders.iter_mut().filter_map(|sender| sender.estimator.take_drain()).max();
        for ((sender, (part, _)), share) in self.senders.iter_mut().zip(sessions).zip(shares) {
            sender.part = part;
            sender.estimator.set_share(share);
            let link = ViewerLink { address: None, since: start, silent: false, estimate: share, drain };
            let rate = sender.control.update(now, sender.ceiling, &[link], Some(0));
            (sender.encoder, sender.pause_until) = (f64::from(rate.bitrate.bps()), rate.pause_until);
        }
        self.sums.push(self.senders.iter().map(|sender| sender.encoder).sum());
    }

    /// What each has sent in the last run, Mbit/s.
    fn mbit(&self, seconds: f64) -> Vec<f64> {
        self.senders.iter().map(|sender| sender.bits / seconds / 1e6).collect()
    }
}

#[test]
fn two_sessions_over_one_link_live_beside_each_other() {
    let mut world = World::new(4e6);
    world.join(6_000);
    world.run(20.0);
    assert!(world.mbit(20.0)[0] > 2.8, "{:?}", world.mbit(20.0));
    // The second begins with a part of what is known.
    world.join(3_000);
    world.run(5.0);
    assert!(world.longest_queue < 250_000, "{}", world.longest_queue);
    for _ in 0..6 {
        world.run(20.0);
        let sent = world.mbit(20.0);
        assert!(sent[0] > sent[1] && sent[1] > 0.8, "the large one gets more: {sent:?}");
        assert!((2.7..4.0).contains(&(sent[0] + sent[1])), "{sent:?}");
        assert!(world.longest_queue < 200_000, "{} us", world.longest_queue);
        let (least, most) =
            world.sums.iter().fold((f64::MAX, 0.0_f64), |(least, most), sum| (least.min(*sum), most.max(*sum)));
        assert!(least > most * 0.6, "no swinging: {least} to {most}");
        assert!(world.senders.iter().all(|sender| sender.part.is_together()));
    }
}

#[test]
fn a_change_of_stream_leaves_the_link_to_the_one_that_stays() {
    let mut world = World::new(4e6);
    world.join(6_000);
    world.run(20.0);
    for change in 1..=3 {
        world.join(6_000);
        world.run(0.3);
        assert!(world.senders[1].estimator.estimate() < world.rate * 0.5, "the new one begins with a part");
        world.leave(0);
        let estimate = world.senders[0].estimator.estimate();
        assert!(estimate > world.rate * 0.9, "change {change}: {estimate} of {} bit/s", world.rate);
        assert!(world.longest_queue < 200_000, "{} us", world.longest_queue);
    }
}

#[test]
fn what_one_had_that_goes_is_the_others_in_proportion() {
    let now = Instant::now();
    let with = |part: Part, estimate, most| (part, Seen { estimate, most, ..seen(0.0, 0.0, false).1 });
    let joined = Part { has_joined: true, ..Part::default() };
    let apart = Part { company: Company::Nobody, ..joined };
    let gone = with(joined, 6e6, 10e6);
    let stay = [with(joined, 2e6, 10e6), with(joined, 1e6, 10e6), with(apart, 1e6, 10e6)];
    assert_eq!(mbit(&inherit(&gone, &stay)), [6.0, 3.0, 1.0]);
    let small = [with(joined, 2e6, 10e6), with(joined, 2e6, 3e6)];
    assert_eq!(mbit(&inherit(&gone, &small)), [7.0, 3.0], "what the small one cannot use");
    assert_eq!(mbit(&inherit(&with(apart, 6e6, 10e6), &small)), [2.0, 2.0]);
    assert_eq!(mbit(&inherit(&with(Part::default(), 6e6, 10e6), &small)), [2.0, 2.0]);
    // One that never said what arrives, and was given no part, tells nothing of the link.
    let mut free = with(joined, 10e6, 10e6);
    assert_eq!(mbit(&inherit(&free, &small)), [2.0, 2.0]);
    free.1.reported = Some(now);
    assert_eq!(mbit(&inherit(&free, &small)), [10.0, 3.0]);
}

#[test]
fn below_the_tether_nothing_waits() {
    let mut world = World::new(4e6);
    world.tether = Some(3.5e6);
    world.join(6_000);
    world.join(6_000);
    world.join(500);
    world.run(3.0);
    world.run(30.0);
    let sent = world.mbit(30.0);
    assert!((2.8..3.5).contains(&sent.iter().sum::<f64>()), "{sent:?}");
    assert!(sent[0] > sent[1] && sent[1] > sent[2], "{sent:?}");
    let most = world.sums.iter().copied().fold(0.0, f64::max);
    assert!(most <= 3.5e6, "{most}");
    assert!(world.longest_queue < 60_000, "frames that come at once, no more: {} us", world.longest_queue);
}

fn seen(estimate: f64, most: f64, large: bool) -> (Part, Seen) {
    (Part::default(), Seen { estimate, most, trouble: None, reported: None, large })
}

fn share(now: Instant, tether: Option<f64>, sessions: &mut [(Part, Seen)]) -> Vec<f64> {
    super::share(now, tether, sessions, &[]).0
}

fn mbit(shares: &[f64]) -> Vec<f64> {
    shares.iter().map(|share| (share / 1e4).round() / 100.0).collect()
}

#[test]
fn a_link_without_congestion_limits_nobody() {
    let now = Instant::now();
    let mut all = [seen(10e6, 10e6, true), seen(5e6, 5e6, false)];
    assert_eq!(mbit(&share(now, None, &mut all)), [10.0, 5.0]);
    assert_eq!(mbit(&share(now, Some(20e6), &mut all)), [10.0, 5.0]);
}

#[test]
fn what_others_send_there_counts_too() {
    let now = Instant::now();
    let mut watched = [seen(10e6, 10e6, true)];
    let (shares, others) = super::share(now, Some(5e6), &mut watched, &[10e6]);
    assert_eq!((mbit(&shares), mbit(&others)), (vec![3.0], vec![2.0]));
    let (shares, others) = super::share(now, Some(5e6), &mut watched, &[0.5e6]);
    assert_eq!((mbit(&shares), mbit(&others)), (vec![4.5], vec![0.5]), "which needs less");
    let (shares, others) = super::share(now, Some(20e6), &mut watched, &[10e6]);
    assert_eq!((mbit(&shares), mbit(&others)), (vec![10.0], vec![10.0]), "there is room for both");
    let (shares, others) = super::share(now, Some(5e6), &mut [], &[10e6, 10e6]);
    assert_eq!((mbit(&shares), mbit(&others)), (vec![], vec![3.0, 2.0]), "nobody watches by WebRTC");
}

#[test]
fn the_sum_stays_below_the_tether_and_the_large_picture_gets_more() {
    let now = Instant::now();
    for count in 1..=8 {
        let mut all: Vec<_> = (0..count).map(|at| seen(10e6, 10e6, at == 0)).collect();
        let shares = share(now, Some(4e6), &mut all);
        assert!((shares.iter().sum::<f64>() - 4e6).abs() < 1.0, "{shares:?}");
        assert!(shares[1..].iter().all(|other| *other < shares[0]), "{shares:?}");
    }
    let mut small = [seen(10e6, 10e6, true), seen(0.5e6, 0.5e6, false)];
    assert_eq!(mbit(&share(now, Some(4e6), &mut small)), [3.5, 0.5], "what the small one cannot use");
    let mut large = [seen(1e6, 1e6, true), seen(10e6, 10e6, false), seen(5e6, 5e6, false)];
    assert_eq!(mbit(&share(now, Some(4e6), &mut large)), [1.0, 1.5, 1.5], "what the large one cannot use");
}

#[test]
fn who_joins_gets_a_part_of_what_is_known_of_the_link() {
    let now = Instant::now();
    let mut first = [seen(4e6, 10e6, true)];
    assert_eq!(mbit(&share(now, None, &mut first)), [4.0]);
    let mut all = [first[0], seen(5e6, 5e6, false)];
    let shares = share(now, None, &mut all);
    assert_eq!(mbit(&shares), [2.4, 1.6]);
    // And again, by what it was given.
    for ((_, seen), share) in all.iter_mut().zip(&shares) {
        seen.estimate = *share;
    }
    assert_eq!(mbit(&share(now, None, &mut all)), [2.4, 1.6]);
}

fn troubled(start: Instant, since: u64, last: u64) -> Option<Trouble> {
    let at = |ms| start + Duration::from_millis(ms);
    Some(Trouble { since: at(since), last: at(last) })
}

#[test]
fn sessions_of_one_address_with_links_of_their_own_are_told_apart() {
    let start = Instant::now();
    let at = |ms| start + Duration::from_millis(ms);
    let mut all = [seen(10e6, 10e6, true), seen(1e6, 5e6, false)];
    share(start, None, &mut all);
    (all[1].1.trouble, all[0].1.reported, all[1].1.reported) =
        (troubled(start, 100, 650), Some(at(640)), Some(at(650)));
    assert_eq!(mbit(&share(at(660), None, &mut all)), [10.0, 1.0]);
    assert_eq!(all.map(|(part, _)| part.company), [Company::Unknown, Company::Nobody]);
    // The tether is for both.
    assert_eq!(mbit(&share(at(680), Some(2e6), &mut all)), [1.2, 0.8]);
    // Later both see one queue.
    (all[1].1.trouble, all[0].1.trouble) = (troubled(start, 5_000, 5_400), troubled(start, 5_050, 5_500));
    share(at(5_600), None, &mut all);
    assert!(all.iter().all(|(part, _)| part.is_together()));
}

#[test]
fn one_that_is_sent_nothing_says_nothing_of_the_link() {
    let start = Instant::now();
    let at = |ms| start + Duration::from_millis(ms);
    let mut all = [seen(2e6, 10e6, true), seen(5e6, 5e6, false)];
    all.iter_mut().for_each(|(part, _)| part.company = Company::Others);
    share(start, None, &mut all);
    (all[0].1.trouble, all[0].1.reported) = (troubled(start, 100, 650), Some(at(650)));
    share(at(660), None, &mut all);
    assert!(all.iter().all(|(part, _)| part.is_together()));
}
