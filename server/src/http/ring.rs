//! `/api/ring`: which pictures are kept of a stream, and the pictures themselves by their times of capture, for whoever
//! may watch. rov-client fetches by it what its recording misses.
//!
//! Pictures are given in the background: no faster than `downloads` allows. Each answer holds its pictures until it is
//! through, also those that the ring has left out since.

use std::io::ErrorKind;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Extension;
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

use super::connections::Patience;
use super::{Api, Arrival, Choice, Failure};
use crate::output::ring::RingOutput;

/// Answers at once, of lists and of pictures each, of which one address has half. All with pictures together hold no
/// more than all rings may: each may hold what the ring has left out since.
const PLACES: usize = 8;
/// For one to be fetched, after which it holds no memory any more.
const LIMIT: Duration = Duration::from_secs(600);
/// In one list: the rest is asked for again.
const LISTED: usize = 8_192;
/// Sent at once.
const PIECE: usize = 16 << 10;

/// `?from=` and `?to=`, both with what is captured then: microseconds since 1970. Read here, so that what is no number
/// is told like what is missing.
#[derive(Deserialize)]
pub(super) struct Range {
    from: Option<String>,
    to: Option<String>,
}

impl Range {
    fn read(range: Result<Query<Self>, QueryRejection>) -> Result<(Captured, Captured), Failure> {
        let Query(range) = range.map_err(|rejection| Failure(rejection.status(), rejection.body_text()))?;
        range.times()
    }

    /// One of both, at least.
    pub(super) fn is_given(&self) -> bool {
        self.from.is_some() || self.to.is_some()
    }

    pub(super) fn times(self) -> Result<(Captured, Captured), Failure> {
        let Self { from, to } = self;
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
    /// The addresses that are given something now, once for each answer, and how many bytes that holds.
    taken: Arc<Mutex<Vec<(IpAddr, u64)>>>,
}

/// Of the answers out of rings.
#[derive(Clone)]
pub struct RingPlaces {
    lists: Places,
    pictures: Places,
}

impl Default for RingPlaces {
    fn default() -> Self {
        let places = || Places::new(PLACES, PLACES / 2);
        Self { lists: places(), pictures: places() }
    }
}

pub(super) struct Place(Places, (IpAddr, u64));

impl Places {
    pub(super) fn new(most: usize, each: usize) -> Self {
        Self { most, each, taken: Arc::default() }
    }

    pub(super) fn take(&self, address: IpAddr) -> Option<Place> {
        self.take_for(address, 0, u64::MAX)
    }

    /// `most`: bytes of all together, but for one that is alone.
    fn take_for(&self, address: IpAddr, bytes: u64, most: u64) -> Option<Place> {
        let mut all = lock(&self.taken);
        let its = all.iter().filter(|(other, _)| *other == address).count();
        let held: u64 = all.iter().map(|(_, bytes)| bytes).sum();
        if all.len() >= self.most || its >= self.each || held > 0 && held + bytes > most {
            return None;
        }
        all.push((address, bytes));
        Some(Place(self.clone(), (address, bytes)))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut all = lock(&self.0.taken);
        if let Some(at) = all.iter().position(|taken| *taken == self.1) {
            all.swap_remove(at);
        }
    }
}

type Asked = (Result<Query<Choice>, QueryRejection>, Result<Query<Range>, QueryRejection>);

/// The stream's place, its ring, and what is asked of it.
fn asked(api: &Api, (choice, range): Asked) -> Result<(usize, &RingOutput, (Captured, Captured)), Failure> {
    let at = Choice::of(choice, &api.streams)?;
    let ring = api.outputs.rings.get(at).ok_or_else(|| {
        let reason = "nothing is kept here: start the server with --ring 30s";
        Failure(StatusCode::NOT_FOUND, reason.to_owned())
    })?;
    Ok((at, ring, Range::read(range)?))
}

/// `GET /api/ring`.
pub(super) async fn list(
    State(api): State<Arc<Api>>,
    ConnectInfo(arrival): ConnectInfo<Arrival>,
    choice: Result<Query<Choice>, QueryRejection>,
    range: Result<Query<Range>, QueryRejection>,
) -> Result<Response, Failure> {
    let (at, ring, (from, to)) = asked(&api, (choice, range))?;
    let Some(place) = api.ring_places.lists.take(arrival.peer) else { return Ok(busy()) };
    let (kept_from, times) = ring.times(from, to, LISTED + 1);
    let is_whole = times.len() <= LISTED;
    let times = &times[..times.len().min(LISTED)];
    let listing = RingListing {
        run: api.streams[at].clock().run(),
        kept_from_us: kept_from.map(Captured::micros),
        until_us: times.last().filter(|_| !is_whole).unwrap_or(&to).micros(),
        pictures_us: times.iter().map(|captured| captured.micros()).collect(),
    };
    let listing = serde_json::to_vec(&listing)
        .map_err(|error| Failure(StatusCode::INTERNAL_SERVER_ERROR, format!("cannot write the list: {error}")))?;
    Ok(answer("application/json", listing.into(), Vec::new(), place))
}

/// `GET /api/ring/pictures`.
pub(super) async fn pictures(
    State(api): State<Arc<Api>>,
    ConnectInfo(arrival): ConnectInfo<Arrival>,
    Extension(patience): Extension<Patience>,
    choice: Result<Query<Choice>, QueryRejection>,
    range: Result<Query<Range>, QueryRejection>,
) -> Result<Response, Failure> {
    let (at, ring, (from, to)) = asked(&api, (choice, range))?;
    let pictures = ring.between(from, to);
    let bytes = pictures.iter().map(|picture| picture.unit.len() as u64).sum();
    let most = ring.limit().bytes.saturating_mul(api.streams.len() as u64);
    let Some(place) = api.ring_places.pictures.take_for(arrival.peer, bytes, most) else { return Ok(busy()) };
    // What is held for an answer outlasts an outage of the link in the middle of it.
    patience.have();
    let stream = &api.streams[at];
    let head = Head { run: stream.clock().run(), codec: stream.codec(), pictures: pictures.len() as u32 };
    Ok(answer("application/octet-stream", Bytes::copy_from_slice(&head.encode()), pictures, place))
}

/// `head`, and then the pictures; the place is taken until it is through.
fn answer(kind: &'static str, head: Bytes, pictures: Vec<Picture>, place: Place) -> Response {
    let length = head.len() + pictures.iter().map(|picture| PICTURE_HEAD + picture.unit.len()).sum::<usize>();
    let described = [
        (header::CONTENT_TYPE, kind.to_owned()),
        (header::CONTENT_LENGTH, length.to_string()),
        (header::CACHE_CONTROL, "no-store".to_owned()),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned()),
    ];
    let rest =
        Rest { head, unit: Bytes::new(), pictures: pictures.into_iter(), until: Instant::now() + LIMIT, _place: place };
    (described, Body::from_stream(stream::unfold(Some(rest), next_piece))).into_response()
}

fn busy() -> Response {
    let again = [(header::RETRY_AFTER, HeaderValue::from_static("5"))];
    let reason = format!(
        "{PLACES} answers are given at once at most, half of them to one address, with no more bytes than are kept: \
         try again when one of them is through"
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
    fn one_address_leaves_half_of_the_places_to_others_and_all_hold_no_more_than_the_rings() {
        let (places, ip) = (Places::new(PLACES, PLACES / 2), |host| IpAddr::from([10, 0, 0, host]));
        let take = |host| places.take_for(ip(host), 10, 100);
        let mut held: Vec<_> = (0..PLACES).filter_map(|_| take(1)).collect();
        assert_eq!(held.len(), PLACES / 2);
        held.extend((2..20).filter_map(take));
        assert_eq!(held.len(), PLACES);
        held.remove(0);
        let mut large = places.take_for(ip(1), 30, 100);
        assert!(large.is_some(), "one that is through leaves its place");
        held.remove(0);
        assert!(places.take_for(ip(1), 11, 100).is_none() && take(1).is_some(), "by the bytes of all");
        held.clear();
        large.take();
        assert!(places.take_for(ip(1), 101, 100).is_some(), "one always has room");
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
