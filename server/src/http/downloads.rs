//! How fast clips, recordings and the pictures of a ring are given: while somebody watches, all downloads together take
//! a tenth of what the pilot's link is known to carry, so that its picture does not wait behind them; of what it is
//! sent where it watches by RTSP or RTP, which tell nothing of the link. Else as fast as connections take them.
//!
//! What is known is what the video was seen to get through, as little as that is. Where the link has not been full of
//! late, they feel their way up, and fall back to the tenth as soon as anything waits on the way. Nobody knows over
//! which link a download goes: it is taken to be the pilot's.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::header;
use axum::middleware::Next;
use axum::response::Response;
use futures_util::stream::{self, StreamExt};
use rov_common::sync::lock;

use super::Api;
use crate::output::pilots::{PilotLink, Pilots};

/// Of what the link carries.
const SHARE: f64 = 0.1;
/// The least, bit/s: a download always comes to its end.
const LEAST: f64 = 128e3;
/// The most, while somebody watches.
const MOST: f64 = 1e9;
/// Growth a second while the link is free. A queue that it causes is seen before it has grown by a twentieth.
const GROWTH: f64 = 1.3;
/// No growth for so long after something waited on the way.
const HOLD: Duration = Duration::from_secs(30);
/// Without a download for so long, what was felt out is known no more.
const FORGOTTEN: Duration = Duration::from_secs(1);
/// Between two looks at what RTSP and RTP send.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// So much of it is given at once. One packet at least.
const AT_ONCE: Duration = Duration::from_millis(20);
const SMALLEST: usize = 1_400;
const LARGEST: usize = 64 << 10;

/// Of all downloads together.
pub struct Downloads {
    pilots: Arc<Mutex<Pilots>>,
    sent: Box<Sent>,
    pace: Mutex<Pace>,
}

/// Bit/s that RTSP and RTP send now. None: to nobody.
type Sent = dyn Fn(Instant) -> Option<f64> + Send + Sync;

/// Pure: time is passed in.
#[derive(Debug)]
struct Pace {
    /// When the next may go on.
    free: Instant,
    /// Bit/s of all together.
    rate: f64,
    /// As of then.
    looked: Instant,
    held_until: Instant,
    /// What RTSP and RTP sent then.
    sent: Option<(Instant, Option<f64>)>,
}

impl Downloads {
    pub fn new(pilots: Arc<Mutex<Pilots>>, sent: impl Fn(Instant) -> Option<f64> + Send + Sync + 'static) -> Self {
        let now = Instant::now();
        let pace = Pace { free: now, rate: 0.0, looked: now, held_until: now, sent: None };
        Self { pilots, sent: Box::new(sent), pace: Mutex::new(pace) }
    }

    /// Bit/s that all together have at least; none: there is no limit.
    pub fn least(&self) -> Option<f64> {
        self.link(&mut lock(&self.pace), Instant::now()).map(tenth)
    }

    /// How much of `left` bytes may go, and when.
    fn claim(&self, left: usize, now: Instant) -> (usize, Instant) {
        let mut pace = lock(&self.pace);
        let link = self.link(&mut pace, now);
        pace.claim(link, left, now)
    }

    fn link(&self, pace: &mut Pace, now: Instant) -> Option<PilotLink> {
        let known = lock(&self.pilots).link();
        known.or_else(|| {
            let sent = pace.sent.filter(|(at, _)| now.saturating_duration_since(*at) < LOOK_EVERY);
            let (_, sent) = *pace.sent.insert(sent.unwrap_or_else(|| (now, (self.sent)(now))));
            sent.map(|carried| PilotLink { carried, is_free: false })
        })
    }
}

fn tenth(link: PilotLink) -> f64 {
    (link.carried * SHARE).max(LEAST)
}

impl Pace {
    fn claim(&mut self, link: Option<PilotLink>, left: usize, now: Instant) -> (usize, Instant) {
        let Some(link) = link else { return (left, now) };
        let rate = self.rate(link, now);
        let bytes = ((rate / 8.0 * AT_ONCE.as_secs_f64()) as usize).clamp(SMALLEST, LARGEST).min(left);
        let at = now.max(self.free);
        self.free = at + Duration::from_secs_f64(bytes as f64 * 8.0 / rate);
        (bytes, at)
    }

    fn rate(&mut self, link: PilotLink, now: Instant) -> f64 {
        let passed = now.saturating_duration_since(std::mem::replace(&mut self.looked, now));
        if !link.is_free {
            self.held_until = now + HOLD;
        }
        self.rate = if passed > FORGOTTEN || now < self.held_until {
            tenth(link)
        } else {
            (self.rate * GROWTH.powf(passed.as_secs_f64())).clamp(tenth(link), MOST)
        };
        self.rate
    }
}

/// Gives what the handler answers at this pace.
pub(super) async fn paced(State(api): State<Arc<Api>>, request: Request, next: Next) -> Response {
    let response = next.run(request).await;
    // Errors are short, and have their length from their body.
    if !response.status().is_success() || !response.headers().contains_key(header::CONTENT_LENGTH) {
        return response;
    }
    response.map(|body| {
        let pieces = body.into_data_stream().flat_map(move |piece| slices(Arc::clone(&api), piece));
        Body::from_stream(pieces)
    })
}

/// One piece of an answer in slices, each when its time has come.
fn slices(
    api: Arc<Api>,
    piece: Result<Bytes, axum::Error>,
) -> impl stream::Stream<Item = Result<Bytes, axum::Error>> + Send {
    stream::unfold(Some(piece), move |left| {
        let api = Arc::clone(&api);
        async move {
            let mut left = match left? {
                Ok(left) if left.is_empty() => return None,
                Ok(left) => left,
                Err(error) => return Some((Err(error), None)),
            };
            let (bytes, at) = api.downloads.claim(left.len(), Instant::now());
            tokio::time::sleep_until(at.into()).await;
            let slice = left.split_to(bytes);
            Some((Ok(slice), Some(Ok(left))))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rate_control::Pilot;

    /// What they have in the time that follows, bit/s: each asks again when its slice has gone.
    fn rate(downloads: &Downloads, from: Instant, seconds: f64) -> f64 {
        let (mut now, mut sent, end) = (from, 0, from + Duration::from_secs_f64(seconds));
        loop {
            let (bytes, at) = downloads.claim(1_000_000, now);
            if at >= end {
                return sent as f64 * 8.0 / seconds;
            }
            assert!((SMALLEST..=LARGEST).contains(&bytes), "{bytes}");
            (now, sent) = (at, sent + bytes);
        }
    }

    fn bench() -> (Arc<Mutex<Pilots>>, Downloads, Instant) {
        let pilots = Pilots::shared(Pilot::First);
        let downloads = Downloads::new(Arc::clone(&pilots), |_| None);
        (pilots, downloads, Instant::now() + Duration::from_secs(60))
    }

    #[test]
    fn all_downloads_together_have_a_tenth_of_the_pilots_link_and_all_of_it_without_a_pilot() {
        let (pilots, downloads, start) = bench();
        assert_eq!((downloads.claim(1_000_000, start), downloads.least()), ((1_000_000, start), None));
        for (at, (carried, expected)) in [(4e6, 400e3), (200e3, LEAST)].into_iter().enumerate() {
            lock(&pilots).set_link(Some(PilotLink { carried, is_free: false }));
            assert_eq!(downloads.least(), Some(expected));
            let rate = rate(&downloads, start + Duration::from_secs(100 * at as u64), 10.0);
            assert!((expected * 0.95..expected * 1.05).contains(&rate), "{rate} of {expected}");
        }
        lock(&pilots).set_link(None);
        assert_eq!(downloads.claim(1_000_000, start), (1_000_000, start), "the pilot has gone");
    }

    #[test]
    fn who_watches_by_rtsp_alone_has_nine_tenths_of_what_it_is_sent_at_least() {
        let (pilots, downloads, start) = bench();
        let downloads = Downloads { sent: Box::new(|_| Some(4e6)), ..downloads };
        let taken = rate(&downloads, start, 10.0);
        assert!((380e3..420e3).contains(&taken), "{taken}");
        lock(&pilots).set_link(Some(PilotLink { carried: 20e6, is_free: false }));
        let taken = rate(&downloads, start + Duration::from_secs(20), 10.0);
        assert!((1.9e6..2.1e6).contains(&taken), "{taken}: what the pilot's link shows");
    }

    #[test]
    fn over_a_free_link_they_grow_until_something_waits_on_the_way() {
        let (pilots, downloads, start) = bench();
        let at = |seconds| start + Duration::from_secs(seconds);
        let set = |is_free| lock(&pilots).set_link(Some(PilotLink { carried: 4e6, is_free }));
        set(true);
        assert!(rate(&downloads, at(0), 1.0) < 600e3, "it begins with a tenth");
        assert!(rate(&downloads, at(1), 19.0) > 4e6);
        set(false);
        assert!(rate(&downloads, at(20), 1.0) < 600e3, "at once");
        set(true);
        assert!(rate(&downloads, at(21), 28.0) < 450e3, "for a while");
        assert!(rate(&downloads, at(60), 20.0) > 4e6);
        assert!(rate(&downloads, at(200), 1.0) < 600e3, "after a pause nothing is known of it");
    }
}
