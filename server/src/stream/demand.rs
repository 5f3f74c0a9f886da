//! What is wanted of a stream: pictures at all, a keyframe, a bit rate. Outputs say it, and the supervisor of the
//! pipeline hears it.

use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rov_common::sync::lock;
use rov_common::units::Bitrate;
use tokio::sync::mpsc;

use crate::rate_control::Rate;

/// What outputs ask of the supervisor of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Control {
    KeyframeWanted,
    /// What [`Demand::rate`] gives is another now.
    RateChanged,
    /// Somebody looks, which nobody did before.
    Wanted,
}

/// Requests that wait for the supervisor. What is wanted lies in [`Demand`] too, where the supervisor looks by itself.
pub const CONTROL_CAPACITY: usize = 16;
/// A keyframe that has not come so long after it was asked for is asked for again. A request may be lost on its way,
/// and a viewer that has not got any packet yet cannot repeat it.
const KEYFRAME_OVERDUE: Duration = Duration::from_secs(1);

pub struct Demand {
    control: mpsc::Sender<Control>,
    lookers: Mutex<Lookers>,
    rate: Mutex<Option<Rate>>,
    /// When a keyframe was asked for last; none once one has come since.
    keyframe_asked: Mutex<Option<Instant>>,
    least_decoder: Mutex<Option<(u8, IpAddr)>>,
}

/// Those for whom pictures are encoded.
struct Lookers {
    count: usize,
    /// When the first of them has come.
    come: Instant,
    /// When the last has gone.
    gone: Instant,
}

impl Demand {
    pub(super) fn new(now: Instant) -> (Arc<Self>, mpsc::Receiver<Control>) {
        let (control, requests) = mpsc::channel(CONTROL_CAPACITY);
        let lookers = Mutex::new(Lookers { count: 0, come: now, gone: now });
        let (rate, keyframe_asked, least_decoder) = Default::default();
        (Arc::new(Self { control, lookers, rate, keyframe_asked, least_decoder }), requests)
    }

    /// Has pictures encoded until what is returned is dropped. Whoever takes them from an output holds one: without,
    /// there may be none.
    pub fn keep_awake(self: &Arc<Self>) -> Awake {
        let first = {
            let mut lookers = lock(&self.lookers);
            lookers.count += 1;
            if lookers.count == 1 {
                lookers.come = Instant::now();
            }
            lookers.count == 1
        };
        if first {
            // Where the channel is full, the supervisor looks by itself soon.
            let _ = self.control.try_send(Control::Wanted);
        }
        Awake(Arc::clone(self))
    }

    /// The same while somebody looks: `awake` is taken when it begins, and given up when it ends.
    pub fn keep_awake_while(self: &Arc<Self>, looked_at: bool, awake: &mut Option<Awake>) {
        if !looked_at {
            *awake = None;
        } else if awake.is_none() {
            *awake = Some(self.keep_awake());
        }
    }

    /// Since when nobody looks; none while somebody does.
    pub fn idle_since(&self) -> Option<Instant> {
        let lookers = lock(&self.lookers);
        (lookers.count == 0).then_some(lookers.gone)
    }

    /// Since when somebody looks; none while nobody does.
    pub fn watched_since(&self) -> Option<Instant> {
        let lookers = lock(&self.lookers);
        (lookers.count > 0).then_some(lookers.come)
    }

    /// Asks the encoder for a keyframe, again and again until one comes; the supervisor coalesces requests.
    pub fn request_keyframe(&self) {
        lock(&self.keyframe_asked).get_or_insert_with(Instant::now);
        // Where the channel is full, the supervisor sees soon that it is overdue.
        let _ = self.control.try_send(Control::KeyframeWanted);
    }

    /// Whether a keyframe that was asked for has to be asked for again now.
    pub fn keyframe_overdue(&self, now: Instant) -> bool {
        let mut asked = lock(&self.keyframe_asked);
        let is_overdue = asked.is_some_and(|at| now.saturating_duration_since(at) >= KEYFRAME_OVERDUE);
        if is_overdue {
            *asked = Some(now);
        }
        is_overdue
    }

    /// A keyframe is about to reach all outputs.
    pub(super) fn keyframe_came(&self) {
        *lock(&self.keyframe_asked) = None;
    }

    /// Has the encoder make this from now on, and after a restart of the pipeline too.
    pub fn set_rate(&self, rate: Rate) {
        let changed = lock(&self.rate).replace(rate) != Some(rate);
        if changed {
            // Where the channel is full, the supervisor looks by itself soon.
            let _ = self.control.try_send(Control::RateChanged);
        }
    }

    /// See `webrtc::Engine::least_decoder`.
    pub fn set_least_decoder(&self, least: Option<(u8, IpAddr)>) {
        *lock(&self.least_decoder) = least;
    }

    /// Of the viewers the one that has offered the least of H.264's profiles, by `profile_idc`.
    pub fn least_decoder(&self) -> Option<(u8, IpAddr)> {
        *lock(&self.least_decoder)
    }

    /// What the encoder makes without a limit is another. Whoever sets the rate knows it soon; until then the former
    /// one is no limit.
    pub fn ceiling_changed(&self, before: Bitrate, now: Bitrate) {
        if let Some(rate) = lock(&self.rate).as_mut() {
            rate.bitrate = if rate.bitrate < before { rate.bitrate.min(now) } else { now };
        }
    }

    /// What the viewers' links allow; none while nothing has said so.
    pub fn rate(&self) -> Option<Rate> {
        *lock(&self.rate)
    }
}

/// Somebody looks: see [`Demand::keep_awake`].
pub struct Awake(Arc<Demand>);

impl Drop for Awake {
    fn drop(&mut self) {
        let mut lookers = lock(&self.0.lookers);
        lookers.count -= 1;
        lookers.gone = Instant::now();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_who_looks_is_told_of_and_the_last_who_goes_is_remembered() {
        let start = Instant::now();
        let (demand, mut requests) = Demand::new(start);
        assert_eq!(demand.idle_since(), Some(start), "nobody has come yet");
        let (first, second) = (demand.keep_awake(), demand.keep_awake());
        assert_eq!(requests.try_recv().ok(), Some(Control::Wanted));
        assert!(requests.try_recv().is_err(), "the second needs nothing");
        drop(first);
        assert_eq!(demand.idle_since(), None);
        let before = Instant::now();
        drop(second);
        assert!(demand.idle_since().is_some_and(|gone| gone >= before));
        let _again = demand.keep_awake();
        assert_eq!(requests.try_recv().ok(), Some(Control::Wanted));
    }

    #[test]
    fn a_keyframe_whose_request_was_lost_is_asked_for_each_second_until_it_comes() {
        let (demand, _requests) = Demand::new(Instant::now());
        let overdue = |ms| demand.keyframe_overdue(Instant::now() + Duration::from_millis(ms));
        assert!(!overdue(9_000), "nobody wants one");
        // The channel is full of others.
        while demand.control.try_send(Control::RateChanged).is_ok() {}
        demand.request_keyframe();
        assert!(!overdue(900) && overdue(1_100));
        // Who asks meanwhile puts nothing off.
        demand.request_keyframe();
        assert!(!overdue(2_000) && overdue(2_200) && overdue(3_300));
        demand.keyframe_came();
        assert!(!overdue(9_000));
    }
}
