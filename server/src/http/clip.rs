//! `/api/clip`: the last seconds of a stream, or those around a moment, as a file out of its ring (`output/ring`), for
//! whoever may watch.
//!
//! A clip holds the pictures that were in the ring, also those that the ring has left out since, and makes the file of
//! them one by one, as the connection takes them. After a limit it lets go of them, whatever the connection does.

use std::io::ErrorKind;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Extension;
use axum::body::{Body, Bytes};
use axum::extract::rejection::QueryRejection;
use axum::extract::{ConnectInfo, Query, State};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream::{self, Stream as Pieces};
use rov_common::api::CLIP_PATH;
use rov_common::capture_clock::Captured;
use rov_common::codec::Codec;
use rov_common::exif;
use rov_common::mp4::{Clip, Picture};
use rov_common::recording::Name;
use rov_common::sync::lock;
use serde::Deserialize;
use tokio::runtime::Handle;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::connections::Patience;
use super::ring::{Place, Places, Range};
use super::{Api, Arrival, Choice, Failure};
use crate::output::ring::RingOutput;
use crate::stream::Stream;

/// Clips of a stream at once, and of them to one address: each may hold as much as its ring.
const CLIPS: usize = 4;
const EACH: usize = 3;
/// The place of a clip is taken for so many times as long as it took to make it: a loop leaves the processor to the
/// pictures.
const REST: u32 = 10;
/// For a clip to be fetched, after which it holds no memory any more; where downloads are paced (`downloads`), with
/// twice what that takes, as others may have a part of it, up to the longest.
const LIMIT: Duration = Duration::from_secs(300);
const LONGEST: Duration = Duration::from_secs(3600);
/// Without `?seconds=`, where the ring reaches back so far.
const USUAL: Duration = Duration::from_secs(30);

/// Places for the clips of each stream.
pub struct Clips(Vec<Places>);

impl Clips {
    pub fn new(streams: usize) -> Self {
        Self((0..streams).map(|_| Places::new(CLIPS, EACH)).collect())
    }

    fn place(&self, stream: usize, address: IpAddr) -> Option<Place> {
        self.0.get(stream)?.take(address)
    }
}

fn busy() -> Response {
    let again = [(header::RETRY_AFTER, HeaderValue::from_static("5"))];
    let reason = format!(
        "{CLIPS} clips of a stream are fetched at once at most, {EACH} of them by one address: try again when one is \
         through"
    );
    (again, Failure(StatusCode::SERVICE_UNAVAILABLE, reason)).into_response()
}

/// The last seconds, or from one time of capture to another, which is the same however late it is asked for: then of
/// this run of the server alone, where one is named.
#[derive(Deserialize)]
pub(super) struct Wish {
    /// Read here, so that what is no number is told like what is too large.
    seconds: Option<String>,
    run: Option<u64>,
}

impl Wish {
    fn pictures(&self, range: Range, stream: &Stream, ring: &RingOutput) -> Result<Vec<Picture>, Failure> {
        let name = stream.name();
        let (pictures, why) = if range.is_given() {
            let (from, to) = range.times()?;
            if self.run.is_some_and(|run| run != stream.clock().run()) {
                let why = "the server was started again since: what was captured before is not kept";
                return Err(Failure(StatusCode::GONE, why.to_owned()));
            }
            let pictures = ring.around(from, to);
            if let Some(oldest) = ring.times(from, to, 0).0.filter(|oldest| pictures.is_empty() && to < *oldest) {
                let since = (oldest.0 - to.0).as_secs_f64();
                let why =
                    format!("nothing of {name} is kept of that time any more: what is kept begins {since:.1} s later");
                return Err(Failure(StatusCode::GONE, why));
            }
            (pictures, "of that time")
        } else {
            (ring.newest(self.time(ring.longest())?), "yet: that begins with the next keyframe")
        };
        let none = || Failure(StatusCode::CONFLICT, format!("nothing of {name} is kept {why}"));
        Some(pictures).filter(|pictures| !pictures.is_empty()).ok_or_else(none)
    }

    fn time(&self, longest: Duration) -> Result<Duration, Failure> {
        let Some(seconds) = &self.seconds else { return Ok(USUAL.min(longest)) };
        let range = 1..=longest.as_secs();
        seconds.parse().ok().filter(|seconds| range.contains(seconds)).map(Duration::from_secs).ok_or_else(|| {
            let last = longest.as_secs();
            let reason = format!("?seconds= must be a whole number from 1 to {last}, which is what --ring keeps");
            Failure(StatusCode::UNPROCESSABLE_ENTITY, reason)
        })
    }
}

/// `GET` and `POST /api/clip`, with `?stream=`, and `?seconds=` or `?from=` and `?to=`, as those of `/api/ring`. HEAD
/// says what it would be, and not how long, as none is made.
pub(super) async fn clip(
    method: Method,
    State(api): State<Arc<Api>>,
    ConnectInfo(arrival): ConnectInfo<Arrival>,
    Extension(patience): Extension<Patience>,
    choice: Result<Query<Choice>, QueryRejection>,
    (wish, range): (Result<Query<Wish>, QueryRejection>, Result<Query<Range>, QueryRejection>),
) -> Result<Response, Failure> {
    let at = Choice::of(choice, &api.streams)?;
    let Query(wish) = wish.map_err(|rejection| Failure(rejection.status(), rejection.body_text()))?;
    let stream = &api.streams[at];
    let ring = api.outputs.rings.get(at).ok_or_else(|| {
        let reason = "nothing is kept for clips here: start the server with --ring 30s";
        Failure(StatusCode::NOT_FOUND, reason.to_owned())
    })?;
    if method == Method::HEAD {
        let described = [(header::CONTENT_TYPE, "video/mp4"), (header::CACHE_CONTROL, "no-store")];
        // Of a body whose length is known, as of none, it would be told.
        return Ok((described, Body::from_stream(stream::empty::<std::io::Result<Bytes>>())).into_response());
    }
    let Query(range) = range.map_err(|rejection| Failure(rejection.status(), rejection.body_text()))?;
    let Some(place) = api.clips.place(at, arrival.peer) else { return Ok(busy()) };
    let (pictures, codec) = (wish.pictures(range, stream, ring)?, stream.codec());
    let newest = pictures.last().and_then(|picture| picture.captured);
    let ahead = api.day.now().1;
    let pictures = ahead_by(ahead, pictures);
    let title = stream.status().picture_doubt().as_ref().map(exif::remark_on_doubt);
    let (handle, place) = (Handle::current(), Arc::new(place));
    // It reads all pictures once; its place is taken until then, also where nobody waits for it any more.
    let make = move || {
        let begun = Instant::now();
        let made = Clip::new(codec, pictures, title.as_deref());
        handle.spawn(rest(Arc::clone(&place), begun.elapsed()));
        (made, place)
    };
    let made = tokio::task::spawn_blocking(make).await;
    let (made, place) = made.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()));
    let Clip { header, length, captured, seconds, pictures } = made.map_err(|error| {
        let reason = format!("no file can be made of what is kept of {}: {error}", stream.name());
        Failure(StatusCode::CONFLICT, reason)
    })?;
    // What is held for it outlasts an outage of the link in the middle of it.
    patience.have();
    let age = newest.map(|newest| stream.clock().at(Instant::now()).0.saturating_sub(newest.0));
    let captured = captured.unwrap_or_default();
    let label = stream.names().last().unwrap_or_default().replace('/', "_");
    let described = [
        (header::CONTENT_TYPE, "video/mp4".to_owned()),
        (header::CONTENT_LENGTH, length.to_string()),
        // Of plain characters.
        (header::CONTENT_DISPOSITION, format!("attachment; filename=\"{}\"", Name::new(captured, &label).of_clip())),
        (header::CACHE_CONTROL, "no-store".to_owned()),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned()),
        // A time of capture, as clients compare it.
        (HeaderName::from_static("x-timestamp"), format!("{:.6}", captured.0.saturating_sub(ahead).as_secs_f64())),
        (HeaderName::from_static("x-content-duration"), format!("{seconds:.3}")),
    ];
    // Of a stream that stands still, or rests, its end may be long ago.
    let age = age.map(|age| [(HeaderName::from_static("x-age"), format!("{:.3}", age.as_secs_f64()))]);
    let rest = Rest { header: Some(header), codec, pictures: pictures.into_iter(), _place: place };
    Ok((described, age, Body::from_stream(pieces(rest, limit(length, api.downloads.least())))).into_response())
}

/// The processor has its rest from a clip that took so long to be made.
async fn rest(place: Arc<Place>, took: Duration) {
    tokio::time::sleep(took * (REST - 1)).await;
    drop(place);
}

/// By the time of day, which is so much ahead of times of capture.
fn ahead_by(ahead: Duration, pictures: Vec<Picture>) -> Vec<Picture> {
    let told = |captured: Captured| Captured(captured.0 + ahead);
    pictures.into_iter().map(|picture| Picture { captured: picture.captured.map(told), ..picture }).collect()
}

/// For a clip of so many bytes at this pace.
fn limit(length: u64, rate: Option<f64>) -> Duration {
    let paced = rate.map(|rate| Duration::from_secs_f64(2.0 * length as f64 * 8.0 / rate));
    (LIMIT + paced.unwrap_or_default()).min(LONGEST)
}

/// What is left of a clip; the next piece is made when the connection has taken most of the one before.
struct Rest {
    header: Option<Vec<u8>>,
    codec: Codec,
    pictures: std::vec::IntoIter<Picture>,
    _place: Arc<Place>,
}

impl Rest {
    fn next(&mut self) -> Option<Bytes> {
        let piece = self.header.take().or_else(|| Some(Clip::sample(self.codec, &self.pictures.next()?)));
        piece.map(Bytes::from)
    }
}

/// A clip on its way; `rest` is none once the limit is over.
struct Given {
    rest: Arc<Mutex<Option<Rest>>>,
    /// Ends the task that waits for the limit.
    _done: DropGuard,
}

/// The pieces of a clip, which is gone after the limit, also where nobody asks for the next piece.
fn pieces(rest: Rest, limit: Duration) -> impl Pieces<Item = std::io::Result<Bytes>> + Send + 'static {
    let (rest, done) = (Arc::new(Mutex::new(Some(rest))), CancellationToken::new());
    let (held, is_done) = (Arc::clone(&rest), done.clone());
    tokio::spawn(async move {
        tokio::select! {
            () = is_done.cancelled() => {}
            () = tokio::time::sleep(limit) => {
                *lock(&held) = None;
                tracing::warn!("{CLIP_PATH}: not fetched within {} s, broken off", limit.as_secs());
            }
        }
    });
    let given = Given { rest, _done: done.drop_guard() };
    stream::unfold(Some(given), |given| async {
        let given = given?;
        let piece = lock(&given.rest).as_mut().map(Rest::next);
        match piece {
            Some(piece) => Some((Ok(piece?), Some(given))),
            None => Some((Err(ErrorKind::TimedOut.into()), None)),
        }
    })
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use futures_util::StreamExt;

    use super::*;

    const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    #[tokio::test]
    async fn after_the_limit_a_clip_lets_go_of_its_pictures_whether_or_not_they_are_asked_for() {
        let places = Places::new(CLIPS, EACH);
        let unit = Bytes::from_static(&[0, 0, 0, 1, 0x65, 1, 2, 3]);
        let picture = Picture { unit: unit.clone(), time: Duration::ZERO, captured: None, keyframe: true };
        let clip = |limit| {
            let pictures = vec![picture.clone(); 3].into_iter();
            let (header, codec) = (Some(vec![1, 2, 3]), Codec::H264);
            let place = Arc::new(places.take(HERE).expect("a place"));
            Box::pin(pieces(Rest { header, codec, pictures, _place: place }, limit))
        };
        let whole: Vec<_> = clip(LIMIT).map(Result::unwrap).collect().await;
        assert_eq!(whole.iter().map(Bytes::len).collect::<Vec<_>>(), [3, 8, 8, 8]);
        let mut stopped = clip(Duration::from_millis(10));
        assert!(stopped.next().await.is_some_and(|piece| piece.is_ok()));
        // Nobody asks for the next one.
        let all_are_free = || {
            let held: Vec<_> = (0_u8..).take(CLIPS).map(|host| places.take([10, 0, 0, host].into())).collect();
            held.iter().all(Option::is_some)
        };
        let free = async {
            while !all_are_free() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        assert!(tokio::time::timeout(LIMIT, free).await.is_ok());
        assert!(stopped.next().await.is_some_and(|piece| piece.is_err()) && stopped.next().await.is_none());
    }

    #[test]
    fn a_clip_that_is_paced_has_the_time_that_it_needs() {
        assert_eq!(limit(10_000_000, None), LIMIT);
        assert_eq!(limit(10_000_000, Some(400e3)), LIMIT + Duration::from_secs(400));
        assert_eq!(limit(1_000_000_000, Some(128e3)), LONGEST);
    }

    #[tokio::test]
    async fn a_clip_that_took_long_to_be_made_keeps_its_place_also_where_its_connection_broke_off() {
        let places = Places::new(1, 1);
        let place = Arc::new(places.take(HERE).expect("a place"));
        let resting = tokio::spawn(rest(Arc::clone(&place), LIMIT));
        drop(place);
        tokio::task::yield_now().await;
        assert!(places.take(HERE).is_none());
        resting.abort();
        assert!(resting.await.is_err_and(|ended| ended.is_cancelled()));
        rest(Arc::new(places.take(HERE).expect("a place")), Duration::ZERO).await;
        assert!(places.take(HERE).is_some());
    }

    #[test]
    fn one_clip_too_many_is_told_when_to_ask_again_and_neither_a_stream_nor_an_address_has_all() {
        let clips = Clips::new(2);
        let other = IpAddr::from([10, 0, 0, 2]);
        let held: Vec<_> = (0..EACH).map(|_| clips.place(0, HERE).expect("a place")).collect();
        assert!(clips.place(0, HERE).is_none());
        let last = clips.place(0, other).expect("there is one for others");
        assert!(clips.place(0, IpAddr::from([10, 0, 0, 3])).is_none());
        assert!(clips.place(1, HERE).is_some(), "of another stream");
        let busy = busy();
        let again = busy.headers().get(header::RETRY_AFTER).and_then(|after| after.to_str().ok());
        assert_eq!((busy.status(), again), (StatusCode::SERVICE_UNAVAILABLE, Some("5")));
        drop((held, last));
        assert!(clips.place(0, HERE).is_some());
    }

    #[test]
    fn seconds_are_those_that_the_ring_can_have() {
        let time = |seconds: Option<&str>, longest: u64| {
            let wish = Wish { seconds: seconds.map(str::to_owned), run: None };
            wish.time(Duration::from_secs(longest)).ok().map(|time| time.as_secs())
        };
        assert_eq!([time(None, 60), time(None, 10)], [Some(30), Some(10)]);
        assert_eq!([time(Some("1"), 60), time(Some("60"), 60)], [Some(1), Some(60)]);
        for wrong in ["0", "61", "-1", "1.5", "", "x", "99999999999999999999"] {
            assert_eq!(time(Some(wrong), 60), None, "{wrong}");
        }
    }
}
