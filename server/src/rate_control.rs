//! The bit rate of the one encode that all viewers share. Pure: the viewers' estimates in, what the encoder is to do
//! out.
//!
//! The pilot decides. A spectator never pulls the pilot's picture down: one whose link is too slow is thinned where
//! packets are sent to it (`output::webrtc`). Viewers by RTP and RTSP tell nothing and get what there is; with no
//! viewer by WebRTC the rate is the ceiling, or what `--tether` leaves for them.

use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;
use std::time::{Duration, Instant};

use rov_common::units::{Bitrate, Resolution};

/// Of what the pilot's link carries, so much is for the encoder: RTP headers and retransmissions need the rest.
const SHARE: f64 = 0.95;
/// Up no sooner than this after any change, and by no less than a part in [`LEAST_STEP`], unless it is the ceiling:
/// with some encoders each change costs a keyframe.
const UP_SPACING: Duration = Duration::from_secs(1);
const LEAST_STEP: f64 = 0.05;
/// The same where it is known to cost one.
const COSTLY_SPACING: Duration = Duration::from_secs(3);
const COSTLY_STEP: f64 = 0.25;
/// Down at once, but not for less than this.
const LEAST_DOWN: f64 = 0.02;
/// Frames are left out for as long as the queue on the way needs to drain: worth it from the first on, and no longer at
/// once than the second, well below what counts as a stall.
const DRAIN_FROM: Duration = Duration::from_millis(60);
const DRAIN_MAX: Duration = Duration::from_millis(400);
/// From the end of one pause to the next: a queue that others cause does not drain.
const DRAIN_SPACING: Duration = Duration::from_secs(1);
/// What may stay of the queue.
const DRAIN_REST: Duration = Duration::from_millis(20);

/// Bits for each pixel below which a smaller picture, or fewer of them, looks better, and above which the larger one is
/// taken again (of that one's pixels). At the ceiling the picture is whole whatever they are: whoever set it has chosen
/// both.
const LEAST_BITS: f64 = 0.02;
const ENOUGH_BITS: f64 = 0.035;
/// A change of size costs a keyframe and disturbs the eye.
const SMALLER_SPACING: Duration = Duration::from_secs(2);
const LARGER_SPACING: Duration = Duration::from_secs(8);

/// Whose link the bit rate follows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pilot {
    /// The viewer that has been connected longest.
    #[default]
    First,
    /// The viewer from this address, of several the one connected longest; while there is none, as `First`.
    Address(IpAddr),
}

impl Pilot {
    /// Which of the viewers is the pilot.
    pub fn choose(self, links: &[ViewerLink]) -> Option<usize> {
        let chosen = |link: &ViewerLink| matches!(self, Self::Address(wanted) if link.address == Some(wanted));
        // One that answers, of these the chosen, then the one that came first.
        (0..links.len()).min_by_key(|at| (links[*at].silent, !chosen(&links[*at]), links[*at].since))
    }
}

impl FromStr for Pilot {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "first" {
            return Ok(Self::First);
        }
        let address = text.parse().map(|address: Ipv4Addr| Self::Address(address.into()));
        address.map_err(|_| "give first, or the IPv4 address of the pilot's computer".to_owned())
    }
}

impl std::fmt::Display for Pilot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::First => write!(f, "first"),
            Self::Address(address) => write!(f, "{address}"),
        }
    }
}

/// A viewer that is connected.
#[derive(Clone, Copy, Debug)]
pub struct ViewerLink {
    pub address: Option<IpAddr>,
    pub since: Instant,
    /// It has not been heard of for a while, as after its program was killed.
    pub silent: bool,
    /// Bit/s that its link carries.
    pub estimate: f64,
    /// The queue that stood on its way when congestion was seen, once.
    pub drain: Option<Duration>,
}

/// What the pipeline makes without any limit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ceiling {
    pub bitrate: Bitrate,
    pub resolution: Resolution,
    pub fps: f64,
    /// A change of the bit rate costs a keyframe.
    pub costly: bool,
    /// Fewer pictures, but none smaller.
    pub fixed_size: bool,
}

/// How much of the full picture is encoded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Step {
    #[default]
    Full = 0,
    /// Half the width and height.
    Half,
    /// Of that, every second picture; with `--size fixed` of the full picture.
    HalfRate,
}

impl Step {
    /// In order; with a fixed size there is none with smaller pictures.
    fn all(fixed_size: bool) -> &'static [Self] {
        if fixed_size { &[Self::Full, Self::HalfRate] } else { &[Self::Full, Self::Half, Self::HalfRate] }
    }

    /// The part of the full picture's pixels that is left.
    fn share(self, fixed_size: bool) -> f64 {
        match self {
            Self::Full => 1.0,
            Self::Half => 0.25,
            Self::HalfRate if fixed_size => 0.5,
            Self::HalfRate => 0.125,
        }
    }
}

/// What the encoder is to do.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    pub bitrate: Bitrate,
    pub step: Step,
    /// No picture goes into the encoder before this.
    pub pause_until: Option<Instant>,
}

pub struct RateControl {
    floor: Bitrate,
    ceiling: Option<Ceiling>,
    target: Bitrate,
    step: Step,
    changed: Option<Instant>,
    stepped: Option<Instant>,
    pause_until: Option<Instant>,
}

impl RateControl {
    /// The rate is never lower than `floor`, unless the ceiling is.
    pub fn new(floor: Bitrate) -> Self {
        Self {
            floor,
            ceiling: None,
            target: Bitrate::from_kbps(0),
            step: Step::Full,
            changed: None,
            stepped: None,
            pause_until: None,
        }
    }

    /// What the encoder is to do now. `ceiling` is what the pipeline was set up for, `links` are all viewers that are
    /// connected, `pilot` is the one that decides.
    pub fn update(&mut self, now: Instant, ceiling: Ceiling, links: &[ViewerLink], pilot: Option<usize>) -> Rate {
        if self.ceiling != Some(ceiling) {
            // Another pipeline than before; what the link carries is still true.
            if self.ceiling.is_none_or(|before| self.target >= before.bitrate) {
                self.target = ceiling.bitrate;
            }
            self.ceiling = Some(ceiling);
        }
        let pilot = pilot.and_then(|at| links.get(at));
        self.retarget(now, ceiling, pilot.map(|link| link.estimate));
        self.restep(now, ceiling, pilot.is_some());
        let rested = self.pause_until.is_none_or(|until| now > until + DRAIN_SPACING);
        if let Some(queue) = pilot.and_then(|link| link.drain).filter(|queue| rested && *queue >= DRAIN_FROM) {
            self.pause_until = Some(now + (queue - DRAIN_REST).min(DRAIN_MAX));
        }
        Rate { bitrate: self.target, step: self.step, pause_until: self.pause_until.filter(|until| *until > now) }
    }

    fn retarget(&mut self, now: Instant, ceiling: Ceiling, estimate: Option<f64>) {
        let most = ceiling.bitrate;
        let wanted = estimate
            .map_or(most, |bps| Bitrate::from_kbps((bps * SHARE / 1000.0) as u32).clamp(self.floor.min(most), most));
        let (now_kbps, wanted_kbps) = (f64::from(self.target.kbps()), f64::from(wanted.kbps()));
        let (spacing, step) = if ceiling.costly { (COSTLY_SPACING, COSTLY_STEP) } else { (UP_SPACING, LEAST_STEP) };
        let rested = self.changed.is_none_or(|at| now.saturating_duration_since(at) >= spacing);
        let up = wanted > self.target
            && (estimate.is_none() || rested && (wanted == most || wanted_kbps >= now_kbps * (1.0 + step)));
        if up || wanted_kbps < now_kbps * (1.0 - LEAST_DOWN) {
            self.target = wanted;
            self.changed = Some(now);
        }
    }

    fn restep(&mut self, now: Instant, ceiling: Ceiling, watched: bool) {
        let bits = f64::from(self.target.bps()) / (ceiling.resolution.pixels() as f64 * ceiling.fps).max(1.0);
        let fixed = ceiling.fixed_size;
        let steps = Step::all(fixed);
        let at = steps.iter().position(|step| *step == self.step).unwrap_or(0);
        let rested = |spacing| self.stepped.is_none_or(|at| now.saturating_duration_since(at) >= spacing);
        let limited = self.target < ceiling.bitrate;
        let next = match steps.get(at + 1) {
            _ if !watched => Step::Full,
            Some(smaller) if limited && bits / self.step.share(fixed) < LEAST_BITS && rested(SMALLER_SPACING) => {
                *smaller
            }
            _ if at > 0 && (!limited || bits / steps[at - 1].share(fixed) > ENOUGH_BITS) && rested(LARGER_SPACING) => {
                steps[at - 1]
            }
            _ => return,
        };
        if next != self.step {
            self.step = next;
            self.stepped = Some(now);
        }
    }
}

/// The estimate, in bit/s, after a receiver report, where the receiver tells nothing else: above 5 % of loss times 0.8;
/// with less than 2 % and room to `max` of more than 1.5 times, times 1.2, and carefully where there is less room.
pub fn by_loss(estimate: f64, loss: f64, max: f64) -> f64 {
    if loss > 0.05 {
        estimate * 0.8
    } else if loss >= 0.02 {
        estimate
    } else if max > estimate * 1.5 {
        estimate * 1.2
    } else {
        (estimate * 1.05).min(max)
    }
}

#[cfg(test)]
#[path = "rate_control_tests.rs"]
mod tests;
