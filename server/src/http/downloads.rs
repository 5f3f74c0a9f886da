//! How fast clips and recordings are given: while somebody watches by WebRTC, all downloads together take a tenth of what
//! the pilot's link is known to carry, so that its picture does not wait behind them. Else as fast as connections take
//! them.
//!
//! Nobody knows over which link a download goes: it is taken to be the pilot's.

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
use crate::output::pilots::Pilots;

/// Of what the link carries.
const SHARE: f64 = 0.1;
/// The least, bit/s: a download always comes to its end.
const LEAST: f64 = 128e3;
/// What is given at once takes the link's whole rate for a few milliseconds. One packet at least.
const AT_ONCE: Duration = Duration::from_millis(50);
const SMALLEST: usize = 1_400;
const LARGEST: usize = 64 << 10;

/// Of all downloads together.
pub struct Downloads {
    pilots: Arc<Mutex<Pilots>>,
    /// When the next may go on.
    free: Mutex<Instant>,
}

impl Downloads {
    pub fn new(pilots: Arc<Mutex<Pilots>>) -> Self {
        Self { pilots, free: Mutex::new(Instant::now()) }
    }

    /// Bit/s of all together; none: there is no limit.
    pub fn rate(&self) -> Option<f64> {
        lock(&self.pilots).carried().map(|carried| (carried * SHARE).max(LEAST))
    }

    /// How much of `left` bytes may go, and when.
    fn claim(&self, left: usize, now: Instant) -> (usize, Instant) {
        let Some(rate) = self.rate() else { return (left, now) };
        let bytes = ((rate / 8.0 * AT_ONCE.as_secs_f64()) as usize).clamp(SMALLEST, LARGEST).min(left);
        let mut free = lock(&self.free);
        let at = now.max(*free);
        *free = at + Duration::from_secs_f64(bytes as f64 * 8.0 / rate);
        (bytes, at)
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

    #[test]
    fn all_downloads_together_have_a_tenth_of_the_pilots_link_and_all_of_it_without_a_pilot() {
        let pilots = Pilots::shared(Pilot::First);
        let downloads = Downloads::new(Arc::clone(&pilots));
        let start = Instant::now() + Duration::from_secs(1);
        assert_eq!(downloads.claim(1_000_000, start), (1_000_000, start));
        for (carried, rate) in [(4e6, 400e3), (200e3, LEAST)] {
            lock(&pilots).set_carried(Some(carried));
            assert_eq!(downloads.rate(), Some(rate));
            // Two at once.
            let mut sent = 0;
            loop {
                let (bytes, at) = downloads.claim(1_000_000, start);
                if at >= start + Duration::from_secs(10) {
                    break;
                }
                assert!((SMALLEST..=LARGEST).contains(&bytes), "{bytes}");
                sent += bytes;
            }
            let most = rate / 8.0 * 10.0;
            assert!((most * 0.95..most * 1.05).contains(&(sent as f64)), "{sent} of {most}");
            *lock(&downloads.free) = start;
        }
        lock(&pilots).set_carried(None);
        assert_eq!(downloads.claim(1_000_000, start), (1_000_000, start), "the pilot has gone");
    }
}
