//! `/api/ring`: which pictures are kept of a stream, and the pictures themselves by their times of capture, for whoever
//! may watch. rov-client fetches by it what its recording misses.
//!
//! Pictures are given in the background: no faster than `downloads` allows. Each answer holds its pictures until it is through,
//! also those that the ring has left out since.

use std::io::ErrorKind;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::rejection::QueryRejection;
use axum::extract::{ConnectInfo, Query, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use rov_common::api::{RING_PICTURES_PATH, RingListing};
use rov_common::capture_clock::Captured;
use rov_common::mp4::Picture;
use rov_common::ring::{Head, Kept, PICTURE_HEAD};
use rov_common::sync::lock;
use serde::Deserialize;

use super::{Api, Arrival, Choice, Failure};
use crate::output::ring::RingOutput;

/// Answers with pictures at once, of which one address has half: each may hold as much as a ring, of pictures that others
/// hold as well.
const PLACES: usize = 8;
/// For one to be fetched, after which it holds no memory any more.
const LIMIT: Duration = Duration::from_secs(600);
/// In one list: the rest is asked for again.
const LISTED: usize = 8_192;
/// Sent at once.
const PIECE: usize = 16 << 10;

/// `?from=` and `?to=`, both with what is captured then: microseconds since 1970. Read here, so that what is no number is
/// told like what is missing.
#[derive(Deserialize)]
pub(super) struct Range {
    from: Option<String>,
    to: Option<String>,
}

impl Range {
    fn read(range: Result<Query<Self>, QueryRejection>) -> Result<(Captured, Captured), Failure> {
        let Query(Self { from, to }) = range.map_err(|rejection| Failure(rejection.status(), rejection.body_text()))?;
        let time = |text: Option<String>| text?.parse().ok().map(|micros| Captured(Duration::from_micros(micros)));
        time(from).zip(time(to)).filter(|(from, to)| from <= to).ok_or_else(|| {
            let reason =
                "?from= and ?to= must be times of capture, in microseconds since 1970, one not behind the other";
            Failure(StatusCode::UNPROCESSABLE_ENTITY, reason.to_owned())
        })
    }
}

/// Places for so many answers at once, and for so many of them to one address.
#[derive(Clone)]
pub struct Places {
    most: usize,
    each: usize,
    /// The addresses that are given something now, once for each answer.
    taken: Arc<Mutex<Vec<IpAddr>>>,
}

impl Default for Places {
    /// For pictures.
    fn default() -> Self {
        Self::new(PLACES, PLACES / 2)
    }
}

pub(super) struct Place(Places, IpAddr);

impl Places {
    pub(super) fn new(most: usize, each: usize) -> Self {
        Self { most, each, taken: Arc::default() }
    }

    pub(super) fn take(&self, address: IpAddr) -> Option<Place> {
        let mut all = lock(&self.taken);
        let its = all.iter().filter(|other| **other == address).count();
        if all.len() >= self.most || its >= self.each {
            return None;
        }
        all.push(address);
        Some(Place(self.clone(), address))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut all = lock(&self.0.taken);
        if let Some(at) = all.iter().position(|address| *address == self.1) {
            all.swap_remove(at);
        }
    }
}

type Asked = (Result<Query<Choice>, QueryRejection>, Result<Query<Range>, QueryRejection>);

/// The stream's place, its ring, and what is asked of it.
fn asked(api: &Api, (choice, range): Asked) -> Result<(usize, &RingOutput, (Captured, Captured)), Failure> {
    let at = Choice::of(choice, &api.streams)?;
    let ring = api.clips.of(at).ok_or_else(|| {
        let reason = "nothing is kept here: start the server with --ring 30s";
        Failure(StatusCode::NOT_FOUND, reason.to_owned())
    })?;
    Ok((at, ring, Range::read(range)?))
}

/// `GET /api/ring`.
pub(super) async fn list(
    State(api): State<Arc<Api>>,
    choice: Result<Query<Choice>, QueryRejection>,
    range: Result<Query<Range>, QueryRejection>,
) -> Result<Response, Failure> {
    let (at, ring, (from, to)) = asked(&api, (choice, range))?;
    let (kept_from, times) = ring.times(from, to, LISTED + 1);
    let is_whole = times.len() <= LISTED;
    let times = &times[..times.len().min(LISTED)];
    let listing = RingListing {
        run: api.streams[at].clock().run(),
        kept_from_us: kept_from.map(Captured::micros),
        until_us: times.last().filter(|_| !is_whole).unwrap_or(&to).micros(),
        pictures_us: times.iter().map(|captured| captured.micros()).collect(),
    };
    Ok(([(header::CACHE_CONTROL, "no-store")], Json(listing)).into_response())
}

/// `GET /api/ring/pictures`.
pub(super) async fn pictures(
    State(api): State<Arc<Api>>,
    ConnectInfo(arrival): ConnectInfo<Arrival>,
    choice: Result<Query<Choice>, QueryRejection>,
    range: Result<Query<Range>, QueryRejection>,
) -> Result<Response, Failure> {
    let (at, ring, (from, to)) = asked(&api, (choice, range))?;
    let Some(place) = api.ring_places.take(arrival.peer) else { return Ok(busy()) };
    let pictures = ring.between(from, to);
    let stream = &api.streams[at];
    let head = Head { run: stream.clock().run(), codec: stream.codec(), pictures: pictures.len() as u32 };
    let head = head.encode();
    let length = head.len() + pictures.iter().map(|picture| PICTURE_HEAD + picture.unit.len()).sum::<usize>();
    let described = [
        (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
        (header::CONTENT_LENGTH, length.to_string()),
        (header::CACHE_CONTROL, "no-store".to_owned()),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned()),
    ];
    let rest = Rest {
        head: Bytes::copy_from_slice(&head),
        unit: Bytes::new(),
        pictures: pictures.into_iter(),
        until: Instant::now() + LIMIT,
        _place: place,
    };
    Ok((described, Body::from_stream(stream::unfold(Some(rest), next_piece))).into_response())
}

fn busy() -> Response {
    let again = [(header::RETRY_AFTER, HeaderValue::from_static("5"))];
    let reason = format!(
        "{PLACES} answers are given at once at most, half of them to one address: try again when one of them is through"
    );
    (again, Failure(StatusCode::SERVICE_UNAVAILABLE, reason)).into_response()
}

/// What is left of an answer.
struct Rest {
    /// What stands before the access unit that is under way, and what is left of that.
    head: Bytes,
    unit: Bytes,
    pictures: std::vec::IntoIter<Picture>,
    until: Instant,
    _place: Place,
}

impl Rest {
    fn next(&mut self) -> Option<Bytes> {
        if !self.head.is_empty() {
            return Some(std::mem::take(&mut self.head));
        }
        if self.unit.is_empty() {
            let Picture { unit, captured, keyframe, .. } = self.pictures.next()?;
            self.unit = unit;
            let head = Kept::head(captured.unwrap_or_default(), keyframe, self.unit.len());
            return Some(Bytes::copy_from_slice(&head));
        }
        Some(self.unit.split_to(PIECE.min(self.unit.len())))
    }
}

async fn next_piece(rest: Option<Rest>) -> Option<(std::io::Result<Bytes>, Option<Rest>)> {
    let mut rest = rest?;
    let piece = rest.next()?;
    if Instant::now() > rest.until {
        tracing::warn!("{RING_PICTURES_PATH}: not fetched within {} s, broken off", LIMIT.as_secs());
        return Some((Err(ErrorKind::TimedOut.into()), None));
    }
    Some((Ok(piece), Some(rest)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_leaves_half_of_the_places_to_others() {
        let (places, ip) = (Places::default(), |host| IpAddr::from([10, 0, 0, host]));
        let mut held: Vec<_> = (0..PLACES).filter_map(|_| places.take(ip(1))).collect();
        assert_eq!(held.len(), PLACES / 2);
        held.extend((2..20).filter_map(|host| places.take(ip(host))));
        assert_eq!(held.len(), PLACES);
        held.remove(0);
        assert!(places.take(ip(1)).is_some(), "one that is through leaves its place");
    }

    #[test]
    fn a_range_has_two_times_in_their_order() {
        let read = |from: Option<&str>, to: Option<&str>| {
            let range = Range { from: from.map(str::to_owned), to: to.map(str::to_owned) };
            let times = Range::read(Ok(Query(range))).ok();
            times.map(|(from, to)| (from.micros(), to.micros()))
        };
        assert_eq!(read(Some("5"), Some("7")), Some((5, 7)));
        assert_eq!(read(Some("5"), Some("5")), Some((5, 5)));
        for (from, to) in [(Some("7"), Some("5")), (None, Some("5")), (Some("5"), None), (Some("-1"), Some("x"))] {
            assert_eq!(read(from, to), None, "{from:?} {to:?}");
        }
    }
}
