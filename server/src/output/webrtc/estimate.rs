//! How much a viewer's link carries, from what its receiver reports. Pure: time is passed in.
//!
//! Receivers with transport-wide congestion control (draft-holmer-rmcat-transport-wide-cc-extensions-01) tell when each
//! packet arrived. A queue that stands on the way says that more is sent than the link carries, and packets that leave
//! a queue say how much that is. Loss alone says nothing below 15 %: a bad tether loses packets whatever the rate is.
//!
//! The `Gcc` of the core is not used: near the rate of the last congestion it climbs by 60 kbit/s each second, which
//! takes half a minute from 2 to 4 Mbit/s, it runs down for ever where 10 % are lost at random, and it does not tell
//! how long the queue is.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::history::Report;
use super::share::Trouble;
use crate::rate_control;

/// A queue that stands for longer than this is congestion. A frame's own packets do not count: the first of them sees
/// only what was there before.
const QUEUE_LIMIT: Duration = Duration::from_millis(40);
/// With a longer one, in microseconds, the estimate does not grow.
const SHORT: i64 = 12_000;
/// The queue is the least that a packet of so many last microseconds has met: two frames at 30 fps. Where the receiver
/// was only late in reading, the last packet of them has met none.
const STANDING: i64 = 60_000;
/// What arrived during so many last microseconds tells the rate at which a queue is served.
const SERVED: i64 = 200_000;
/// What is remembered of packets, in microseconds of sending time.
const HISTORY: i64 = 1_000_000;
/// The same in packets, for any bit rate.
const MAX_PACKETS: usize = 16_384;
/// Without reports for so long, or where nothing arrived that was sent during so long, the link was down. What was sent
/// meanwhile says nothing of congestion.
const OUTAGE: Duration = Duration::from_millis(500);
/// The least delay of so long is that of the link without a queue. Clocks drift by some milliseconds meanwhile.
const BASE_SPAN: Duration = Duration::from_secs(30);
const RTT_SPAN: Duration = Duration::from_secs(4);
/// A delay that stays the same for so long, with no loss, is no queue: the path has become longer. It is longer by what
/// the queue would be, behind which a lower rate shows itself.
const STEADY: Duration = Duration::from_secs(2);
const STEADY_WITHIN: i64 = 8_000;
/// Nor is one that is about the same, with no loss, after so much less was sent.
const LESS: f64 = 0.75;
const ABOUT: f64 = 0.25;
const LESS_WITHIN: Duration = Duration::from_secs(10);
/// For so long packets were sent of which the viewer, which is heard, tells nothing: they wait on the way, or are lost.
const BLIND: Duration = Duration::from_secs(1);
const BLIND_BACK_OFF: f64 = 0.5;
/// One that tells only losses for so long tells nothing better any more.
const TELLS_LOSSES: Duration = Duration::from_secs(10);
/// An arrival that differs by so much from the one before: the receiver's clock has begun anew.
const CLOCK_JUMP: i64 = 30_000_000;

/// Not less than this, bit/s, is said of any link.
const MIN: f64 = 50e3;
/// The same where only the receiver's reports say it: a link that loses more than 5 % whatever is sent would get ever
/// less, and be taken at last for one that carries nothing.
const MIN_BY_LOSS: f64 = 400e3;
/// Under what a congested link was seen to carry, so that its queue drains.
const BACK_OFF: f64 = 0.85;
/// The same where the queue is so long that the picture is of little use.
const LONG: Duration = Duration::from_secs(1);
const LONG_BACK_OFF: f64 = 0.5;
/// No growth so soon after congestion.
const HOLD: Duration = Duration::from_millis(500);
/// Growth a second, near what the link carried at the last congestion, and elsewhere.
const CAREFUL: f64 = 1.04;
/// Of the time between two reports, so much counts for growth.
const UNSEEN: Duration = Duration::from_millis(250);
/// A thinned viewer gets a keyframe every two seconds, and the steps above would take minutes. The spacing in which so
/// many packets arrive that were sent at once says that the link carries more; then one step of this size is made.
const TRAIN: usize = 10;
const PROBED: f64 = 1.5;
const QUICK: f64 = 1.2;

/// More packets lost than this, beyond what the link loses whatever is sent, is congestion of a link with a short
/// queue.
const CONGESTED_LOSS: f64 = 0.15;
const LOSS_PACKETS: usize = 50;
/// A second loss so soon after the rate was lowered, and about the same, was not caused by the rate.
const LOSS_MEMORY: Duration = Duration::from_secs(5);
const HARDLY: f64 = 0.85;
/// Nor was one so long after, at a rate that is lower by this, as of an antenna in the swell.
const BURST_MEMORY: Duration = Duration::from_secs(60);
const LOWER: f64 = 0.8;
/// Losses that grow with a rate that grows by this are caused by it.
const GREW: f64 = 1.1;
/// One that is seen for longer, in the losses of the last second, is none: the link carries less.
const LONGEST_BURST: Duration = Duration::from_secs(4);
/// What a link loses whatever is sent, for viewers that tell nothing better: the least of so long, and no more than
/// this.
const OWN_LOSS_SPAN: Duration = Duration::from_secs(30);
const MOST_OWN_LOSS: f64 = 0.05;
/// Congestion again within this is the same one.
const SAME_TROUBLE: Duration = Duration::from_secs(1);
/// Until a lower rate shows in what is sent, microseconds.
const REACTION: i64 = 150_000;

#[derive(Debug)]
pub struct Estimator {
    max: f64,
    estimate: f64,
    epoch: Option<Instant>,
    /// In the order of sending.
    recent: VecDeque<Sample>,
    /// One-way delays in microseconds, beside a constant: the clocks are not the same.
    base: Least,
    rtt: Least,
    last_report: Option<Instant>,
    last_down: Option<Instant>,
    queue_at_down: Duration,
    /// What the link carried when it was congested last.
    capacity: Option<f64>,
    /// The standing queue, microseconds.
    queue: i64,
    steady: Option<(Instant, i64)>,
    /// When a queue was met with a lower rate first.
    lowered: Option<Lowered>,
    /// The estimate before nothing was told for a while, until something is.
    before_blind: Option<f64>,
    /// A queue that has to drain, since it was last asked for.
    drain: Option<Duration>,
    /// When the rate was lowered for losses, and these, if all of them were at one rate.
    lossy: Option<(Instant, Option<f64>)>,
    /// The first loss of late that was met with a lower rate.
    burst: Option<Burst>,
    /// Since when losses are taken for those of a burst.
    own_since: Option<Instant>,
    /// By receiver reports, the number of the last packet that has arrived.
    highest: Option<u32>,
    /// When the first and the last receiver report came without news of arrivals.
    only_losses: Option<(Instant, Instant)>,
    /// By receiver reports, in millionths.
    own_loss: Least,
    /// Packets that departed before say nothing of the losses at the present rate.
    fresh_from: i64,
    inherent_loss: f64,
    /// The estimate at which that was seen.
    inherent_at: f64,
    /// The last congestion.
    trouble: Option<Trouble>,
    /// Nothing was reported for a while: the first packets after that are looked at as a train.
    probing: bool,
    /// When the last packet left of those that an outage took, until it was asked for.
    lost_until: Option<Instant>,
}

/// The queue, in microseconds, and the rate that was measured behind it, bit/s.
#[derive(Clone, Copy, Debug)]
struct Lowered {
    at: Instant,
    queue: i64,
    served: f64,
}

/// The estimate at which packets were lost, and how many of them, once that is known.
#[derive(Clone, Copy, Debug)]
struct Burst {
    at: Instant,
    estimate: f64,
    loss: Option<f64>,
    /// Few were lost afterwards.
    is_over: bool,
}

#[derive(Clone, Copy, Debug)]
struct Sample {
    departure: i64,
    size: usize,
    arrived: bool,
    arrival: Option<i64>,
}

impl Estimator {
    /// `max` is the most it says, in bit/s, and the first guess: too much shows itself within 200 ms.
    pub fn new(max: f64) -> Self {
        Self {
            max,
            estimate: max,
            epoch: None,
            recent: VecDeque::new(),
            base: Least::new(BASE_SPAN),
            rtt: Least::new(RTT_SPAN),
            last_report: None,
            last_down: None,
            queue_at_down: Duration::ZERO,
            capacity: None,
            queue: 0,
            steady: None,
            lowered: None,
            before_blind: None,
            drain: None,
            lossy: None,
            burst: None,
            own_since: None,
            highest: None,
            only_losses: None,
            own_loss: Least::new(OWN_LOSS_SPAN),
            fresh_from: 0,
            inherent_loss: 0.0,
            inherent_at: max,
            trouble: None,
            probing: false,
            lost_until: None,
        }
    }

    /// Bits per second of RTP that the viewer's link carries, as far as was seen.
    pub fn estimate(&self) -> f64 {
        self.estimate
    }

    /// Has it say this from now on, as its session's part of what all that share the link were seen to get.
    pub fn set_share(&mut self, share: f64) {
        if share != self.estimate {
            let scaled = |rate: f64| rate * share / self.estimate;
            (self.capacity, self.before_blind) = (self.capacity.map(scaled), self.before_blind.map(scaled));
            self.burst = self.burst.map(|burst| Burst { estimate: scaled(burst.estimate), ..burst });
            self.inherent_at = scaled(self.inherent_at);
            self.estimate = share;
        }
    }

    /// The most that it says.
    pub fn max(&self) -> f64 {
        self.max
    }

    /// When congestion was seen last, if ever.
    pub fn trouble(&self) -> Option<Trouble> {
        self.trouble
    }

    /// When arrivals were reported last.
    pub fn last_report(&self) -> Option<Instant> {
        self.last_report
    }

    /// Whether anything was seen that says less than the maximum.
    pub fn is_limited(&self) -> bool {
        self.estimate < self.max * 0.99
    }

    /// There is room on the way for more than goes there, as it was reported just now.
    pub fn is_way_free(&self, now: Instant) -> bool {
        let is_known = self.last_report.is_some_and(|at| now.saturating_duration_since(at) < OUTAGE);
        is_known && self.queue < SHORT
    }

    /// The queue that stands on the way.
    pub fn queue(&self) -> Duration {
        micros(self.queue)
    }

    /// From a packet's sending to the news of its arrival, the queue included; an upper bound.
    pub fn rtt(&self) -> Option<Duration> {
        self.rtt.get().map(micros)
    }

    /// The queue that was there when congestion was seen, once.
    pub fn take_drain(&mut self) -> Option<Duration> {
        self.drain.take()
    }

    /// Once after an outage: until when everything that was sent was lost.
    pub fn take_outage(&mut self) -> Option<Instant> {
        self.lost_until.take()
    }

    pub fn set_max(&mut self, max: f64) {
        if self.max != max {
            let limited = self.is_limited();
            self.max = max;
            self.estimate = if limited { self.estimate.min(max) } else { max };
        }
    }

    /// A receiver report (RFC 3550 section 6.4.2), of which the share of lost packets is used where the receiver tells
    /// nothing better. `highest`: the number of the last packet that has arrived. Where none has since the report before,
    /// as in a pause of the encoder, it says nothing.
    pub fn on_receiver_report(&mut self, now: Instant, loss: f64, highest: u32) {
        if self.highest.replace(highest) == Some(highest) {
            return;
        }
        if self.last_report.is_none() || self.tells_only_losses(now) {
            self.own_loss.add(now, (loss * 1e6) as i64);
            let own = self.own_loss.former.and(self.own_loss.get()).map_or(0.0, |least| least as f64 / 1e6);
            let loss = loss - own.min(MOST_OWN_LOSS);
            self.estimate = rate_control::by_loss(self.estimate, loss, self.max).max(MIN_BY_LOSS).min(self.max);
        }
    }

    /// Arrivals were told once, and nothing of them for long while receiver reports came.
    fn tells_only_losses(&mut self, now: Instant) -> bool {
        let since = |at: Instant| now.saturating_duration_since(at);
        if self.last_report.is_none_or(|at| since(at) <= BLIND) {
            return false;
        }
        // Not over an outage, after which the first report may be one of losses.
        let (first, _) = self.only_losses.filter(|(_, last)| since(*last) < TELLS_LOSSES).unwrap_or((now, now));
        self.only_losses = Some((first, now));
        let is_so = since(first) > TELLS_LOSSES;
        if is_so {
            (self.last_report, self.only_losses, self.drain) = (None, None, None);
            self.recent.clear();
            self.queue = 0;
            self.restore();
        }
        is_so
    }

    /// What waited or was lost while nothing was told was no congestion.
    fn restore(&mut self) {
        if let Some(before) = self.before_blind.take() {
            self.estimate = self.estimate.max(before).min(self.max);
            self.drain = None;
        }
    }

    /// The viewer was heard, and has told nothing of what was sent to it for so long. Where no queue is found
    /// afterwards, it was lost, and the estimate is as before.
    pub fn on_silence(&mut self, now: Instant, unreported: Duration) {
        let is_blind = self.last_report.is_some_and(|at| now.saturating_duration_since(at) > BLIND);
        if is_blind && unreported > BLIND && self.before_blind.is_none() {
            self.before_blind = Some(self.estimate);
            self.estimate = (self.estimate * BLIND_BACK_OFF).max(MIN).min(self.estimate);
            self.drain = Some(unreported);
        }
    }

    /// Packets whose fate is known now, in the order of sending.
    pub fn on_reports(&mut self, now: Instant, reports: &[Report]) {
        let spans = |lost: &[Report]| match lost {
            [first, .., last] if last.departure.saturating_duration_since(first.departure) > OUTAGE => {
                Some(last.departure)
            }
            _ => None,
        };
        self.lost_until = reports.split(|report| report.arrived).filter_map(spans).next_back().or(self.lost_until);
        // Before the first that arrived: of these nothing is known but that no report tells of them, mostly because the
        // one that does was lost itself.
        let known = reports.iter().position(|report| report.arrived).unwrap_or(reports.len());
        let reports = &reports[known..];
        if reports.is_empty() {
            return;
        }
        let since = self.last_report.map(|at| now.saturating_duration_since(at));
        (self.last_report, self.only_losses) = (Some(now), None);
        let outage = since.is_some_and(|since| since > OUTAGE);
        if outage {
            self.recent.clear();
            self.probing = true;
            // A burst goes on after it.
            self.own_since = self.own_since.zip(since).map(|(at, since)| at + since);
        }
        self.note(now, reports, outage);
        self.probe();
        let Some(standing) = self.standing() else { return };
        self.queue = standing.saturating_sub(self.base.get().unwrap_or(standing)).max(0);
        if self.queue <= QUEUE_LIMIT.as_micros() as i64 {
            self.restore();
        }
        self.before_blind = None;
        let second = self.second();
        let (loss, received) = second.unwrap_or_default();
        if second.is_some_and(|(loss, _)| loss <= CONGESTED_LOSS) {
            self.own_since = None;
            self.burst = self.burst.map(|burst| Burst { is_over: burst.loss.is_some(), ..burst });
        } else if self.own_since.is_some_and(|at| now.saturating_duration_since(at) > LONGEST_BURST) {
            self.forget_own_loss();
        }
        if self.queue > QUEUE_LIMIT.as_micros() as i64 {
            self.note_trouble(now);
            self.congested(now, standing, loss);
        } else if loss > self.inherent_loss + CONGESTED_LOSS {
            self.lossy(now, loss, received);
        } else {
            self.steady = None;
            if let Some((loss, _)) = second {
                self.inherent_loss = self.inherent_loss.min(loss);
            }
            let held = self.last_down.is_some_and(|at| now.saturating_duration_since(at) < HOLD);
            if self.queue < SHORT {
                self.lowered = None;
            }
            if !held && self.queue < SHORT {
                self.grow(since.unwrap_or_default().min(UNSEEN));
            }
        }
    }

    fn note(&mut self, now: Instant, reports: &[Report], outage: bool) {
        let epoch = *self.epoch.get_or_insert(reports[0].departure);
        for report in reports {
            // What was sent into an outage was lost by it.
            if outage && !report.arrived {
                continue;
            }
            let departure = report.departure.saturating_duration_since(epoch).as_micros() as i64;
            let arrival = report.arrival.map(|at| at.as_micros() as i64);
            if let Some(arrival) = arrival {
                let before = self.recent.iter().rev().find_map(|sample| sample.arrival);
                if before.is_some_and(|before| before.abs_diff(arrival) > CLOCK_JUMP.unsigned_abs()) {
                    self.recent.clear();
                    self.base = Least::new(BASE_SPAN);
                }
                self.base.add(now, arrival - departure);
            }
            self.recent.push_back(Sample { departure, size: report.size, arrived: report.arrived, arrival });
        }
        if let Some(newest) = reports.iter().rev().find(|report| report.arrived) {
            self.rtt.add(now, now.saturating_duration_since(newest.departure).as_micros() as i64);
        }
        let newest = self.recent.back().map_or(0, |sample| sample.departure);
        while self.recent.front().is_some_and(|sample| newest - sample.departure > HISTORY)
            || self.recent.len() > MAX_PACKETS
        {
            self.recent.pop_front();
        }
    }

    /// The least delay of the newest packets: what stands on the way even between frames.
    fn standing(&self) -> Option<i64> {
        let newest = self.recent.back()?.departure;
        let last = self.recent.iter().rev().take_while(|sample| newest - sample.departure <= STANDING);
        last.filter_map(|sample| Some(sample.arrival? - sample.departure)).min()
    }

    /// The rate at which the link gave out the newest packets while more of them waited, bit/s.
    fn served(&self) -> Option<f64> {
        let base = self.base.get()?;
        let newest = self.recent.iter().rev().find_map(|sample| sample.arrival)?;
        let mut arrived = self.recent.iter().filter_map(|sample| Some((sample, sample.arrival?)));
        let (_, mut before) = arrived.find(|(_, arrival)| newest - arrival <= SERVED)?;
        let (mut bytes, mut time, mut packets) = (0, 0, 0);
        for (sample, arrival) in arrived {
            // It had reached the queue when the one before left it: the link was busy all the time between.
            if sample.departure + base <= before && arrival >= before {
                bytes += sample.size;
                time += arrival - before;
                packets += 1;
            }
            before = before.max(arrival);
        }
        (packets >= 4 && time > 20_000).then(|| bytes as f64 * 8.0 / (time as f64 / 1e6))
    }

    /// Looks at the first packets after a while without any.
    fn probe(&mut self) {
        if !self.probing {
            return;
        }
        let arrivals: Vec<_> = self.recent.iter().filter_map(|sample| Some((sample.arrival?, sample.size))).collect();
        if arrivals.len() < TRAIN {
            return;
        }
        self.probing = false;
        let time = arrivals[arrivals.len() - 1].0 - arrivals[0].0;
        let bits = arrivals[1..].iter().map(|(_, size)| *size as f64 * 8.0).sum::<f64>();
        let carries = bits / (time.max(1) as f64 / 1e6);
        if carries > self.estimate * PROBED {
            self.estimate = (self.estimate * PROBED).min(self.max);
            self.capacity = None;
        }
    }

    /// Of the last second, if there are enough packets to say: the share of them that was lost, and bit/s received.
    fn second(&self) -> Option<(f64, f64)> {
        let fresh = self.recent.iter().filter(|sample| sample.departure >= self.fresh_from);
        let (mut first, mut count, mut lost, mut received) = (None, 0, 0, 0);
        for sample in fresh {
            first.get_or_insert(sample.departure);
            count += 1;
            match sample.arrived {
                true => received += sample.size,
                false => lost += 1,
            }
        }
        let (first, last) = (first?, self.recent.back()?);
        if count < LOSS_PACKETS {
            return None;
        }
        let seconds = ((last.departure - first) as f64 / 1e6).max(0.1);
        Some((f64::from(lost) / count as f64, received as f64 * 8.0 / seconds))
    }

    fn congested(&mut self, now: Instant, standing: i64, loss: f64) {
        let has_lost = loss > self.inherent_loss + 0.02;
        let (since, was) = *self.steady.get_or_insert((now, self.queue));
        if was.abs_diff(self.queue) > STEADY_WITHIN.unsigned_abs() || has_lost {
            self.steady = Some((now, self.queue));
        } else if now.saturating_duration_since(since) > STEADY + self.queue() {
            return self.rebase(now, standing);
        }
        // Each report would say the same until what was done about it arrives, behind the queue that was there.
        let waits = (self.rtt().unwrap_or_default() + self.queue_at_down).min(HOLD) + Duration::from_millis(100);
        if self.last_down.is_some_and(|at| now.saturating_duration_since(at) < waits) {
            return;
        }
        let Some(served) = self.served() else { return };
        // A queue would have drained, and is served at the rate of the link, whatever is sent.
        let is_about = |lowered: &Lowered| (self.queue - lowered.queue).abs() as f64 <= lowered.queue as f64 * ABOUT;
        let is_recent = |lowered: &Lowered| now.saturating_duration_since(lowered.at) < LESS_WITHIN;
        let lowered = self.lowered.filter(|lowered| !has_lost && is_recent(lowered) && is_about(lowered));
        if lowered.is_some_and(|lowered| served < lowered.served * LESS) {
            self.capacity = None;
            return self.rebase(now, standing);
        }
        self.lowered = lowered.or(Some(Lowered { at: now, queue: self.queue, served }));
        self.down(now, served, if self.queue() > LONG { LONG_BACK_OFF } else { BACK_OFF });
        self.drain = Some(self.queue());
    }

    /// The path is longer than before.
    fn rebase(&mut self, now: Instant, standing: i64) {
        self.base = Least::new(BASE_SPAN);
        self.base.add(now, standing);
        (self.steady, self.lowered) = (None, None);
    }

    /// A link with a short queue, or one that loses much whatever is sent.
    fn lossy(&mut self, now: Instant, loss: f64, received: f64) {
        let newest = self.recent.back().map_or(0, |sample| sample.departure);
        // Else some packets are from before the link became worse.
        let is_clean = newest - self.fresh_from < HISTORY;
        let since = |at: Instant| now.saturating_duration_since(at);
        if self.inherent_loss > 0.0 && self.estimate > self.inherent_at * GREW {
            self.forget_own_loss();
        }
        let burst =
            self.burst.filter(|burst| since(burst.at) < if burst.loss.is_some() { BURST_MEMORY } else { LOSS_MEMORY });
        if let Some(Burst { estimate, loss: Some(before), is_over: true, .. }) = burst
            && self.estimate < estimate * LOWER
            && loss > before * HARDLY
        {
            self.burst = burst.map(|burst| Burst { at: now, ..burst });
            self.own_since.get_or_insert(now);
            (self.inherent_loss, self.inherent_at, self.capacity) = (loss, self.estimate, None);
            return;
        }
        self.burst = match burst {
            None => Some(Burst { at: now, estimate: self.estimate, loss: None, is_over: false }),
            Some(Burst { loss: None, .. }) if is_clean => burst.map(|burst| Burst { loss: Some(loss), ..burst }),
            known => known,
        };
        let before = self.lossy.filter(|(at, _)| since(*at) < LOSS_MEMORY);
        let is_about = |before: f64| loss > before * HARDLY && loss < before + CONGESTED_LOSS;
        if before.is_some_and(|(_, before)| before.is_some_and(is_about)) {
            (self.inherent_loss, self.inherent_at) = (loss, self.estimate);
        } else {
            self.note_trouble(now);
            self.down(now, received, 0.95);
        }
        self.lossy = Some((now, before.map(|_| loss)));
        self.fresh_from = newest + REACTION;
    }

    /// The rate has caused what was taken for the link's own loss.
    fn forget_own_loss(&mut self) {
        (self.burst, self.lossy, self.own_since) = (None, None, None);
        self.inherent_loss = 0.0;
    }

    fn note_trouble(&mut self, now: Instant) {
        let before = self.trouble.filter(|before| now.saturating_duration_since(before.last) < SAME_TROUBLE);
        self.trouble = Some(Trouble { since: before.map_or(now, |before| before.since), last: now });
    }

    fn down(&mut self, now: Instant, carried: f64, factor: f64) {
        self.estimate = self.estimate.min((carried * factor).max(MIN));
        self.capacity = Some(carried);
        (self.last_down, self.queue_at_down) = (Some(now), self.queue());
    }

    fn grow(&mut self, elapsed: Duration) {
        let near = self.capacity.is_some_and(|carried| (0.8..1.2).contains(&(self.estimate / carried)));
        let growth = if near { CAREFUL } else { QUICK };
        self.estimate = (self.estimate * growth.powf(elapsed.as_secs_f64())).min(self.max);
        if self.estimate >= self.max {
            self.capacity = None;
        }
    }
}

fn micros(us: i64) -> Duration {
    Duration::from_micros(u64::try_from(us).unwrap_or(0))
}

/// The least of the last `span`, give or take a half of it.
#[derive(Debug)]
struct Least {
    half: Duration,
    since: Option<Instant>,
    former: Option<i64>,
    current: Option<i64>,
}

impl Least {
    fn new(span: Duration) -> Self {
        Self { half: span / 2, since: None, former: None, current: None }
    }

    fn add(&mut self, now: Instant, value: i64) {
        let since = *self.since.get_or_insert(now);
        if now.saturating_duration_since(since) > self.half {
            self.former = self.current.take();
            self.since = Some(now);
        }
        self.current = Some(self.current.map_or(value, |least| least.min(value)));
    }

    fn get(&self) -> Option<i64> {
        self.former.into_iter().chain(self.current).min()
    }
}

#[cfg(test)]
#[path = "estimate_tests.rs"]
mod tests;
