//! JPEG pictures over HTTP: the newest one, and MJPEG for whatever shows an `<img>`.
//!
//! A viewer whose link needs longer for a picture than [`FRESH`] is ended.
//!
//! `X-Timestamp` is the time of capture (`capture_clock`) in seconds since 1970, as mjpg-streamer and uStreamer give
//! it.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant, UNIX_EPOCH};

use axum::body::{Body, Bytes};
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use rov_common::api::StreamState;
use rov_common::codec::Codec;
use rov_common::exif::{self, About};
use serde::Deserialize;

use super::failure::Failure;
use super::{Api, Choice};
use crate::output::jpeg::{FRESH, JpegOutput, Picture, Previews, TooMany};
use crate::stream::{Keyframes, Stream};

/// For the decoder to start, once there is a keyframe.
const FIRST_LIMIT: Duration = Duration::from_secs(5);
/// For the next keyframe of a stream that is passed through, whose source cannot be asked for one.
const KEYFRAME_LIMIT: Duration = Duration::from_secs(30);
const BOUNDARY: &str = "frame";
/// Usual and most pictures per second: those that are made for it, and those of a stream of MJPEG, which cost nothing.
const MADE_FPS: (u32, u32) = (5, 15);
const OWN_FPS: (u32, u32) = (60, 60);

#[derive(Deserialize)]
pub(super) struct Wish {
    fps: Option<u32>,
}

/// A stream and the pictures of it.
struct Source<'a> {
    stream: &'a Stream,
    jpeg: &'a Arc<JpegOutput>,
}

impl<'a> Source<'a> {
    fn new(api: &'a Api, choice: Result<Query<Choice>, QueryRejection>) -> Result<Self, Failure> {
        let at = Choice::of(choice, &api.streams)?;
        Ok(Self { stream: &api.streams[at], jpeg: &api.outputs.jpeg[at] })
    }
}

impl From<TooMany> for Failure {
    fn from(too_many: TooMany) -> Self {
        Self(StatusCode::SERVICE_UNAVAILABLE, too_many.to_string())
    }
}

/// `GET /snapshot.jpg`, with `?stream=`: a picture that is captured now, in full size; never one of before. It says as
/// EXIF when and where.
pub(super) async fn snapshot(
    State(api): State<Arc<Api>>,
    choice: Result<Query<Choice>, QueryRejection>,
) -> Result<Response, Failure> {
    let source = Source::new(&api, choice)?;
    running(source.stream)?;
    let limit = first_limit(source.stream.status().foreign_keyframes(Instant::now()));
    let picture = match tokio::time::timeout(limit, source.jpeg.snapshot()).await {
        Ok(picture) => picture?.ok_or_else(ending)?,
        Err(_) => return Err(late(&source, limit)),
    };
    let mut headers = fresh("image/jpeg")?;
    let modified = httpdate::fmt_http_date(UNIX_EPOCH + picture.captured.0);
    headers.insert(header::LAST_MODIFIED, HeaderValue::from_str(&modified).map_err(Failure::internal)?);
    let timestamp = HeaderValue::from_str(&timestamp(&picture)).map_err(Failure::internal)?;
    headers.insert(HeaderName::from_static("x-timestamp"), timestamp);
    let data = about(&api, source.stream, &picture).write_into(&picture.data).map_err(Failure::internal)?;
    source.jpeg.add_sent(data.len() as u64);
    Ok((headers, data).into_response())
}

/// What a snapshot says of itself.
fn about(api: &Api, stream: &Stream, picture: &Picture) -> About {
    let of_time = exif::remark_on_time(stream.status().capture_time());
    let doubt = stream.status().picture_doubt();
    About {
        taken: api.day.of_capture(picture.captured),
        vehicle: api.name.clone(),
        camera: stream.camera().to_owned(),
        stream: stream.name().to_owned(),
        position: api.events.position(Instant::now()),
        remarks: of_time.into_iter().chain(doubt.as_ref().map(exif::remark_on_doubt)).collect(),
    }
}

/// `GET /stream.mjpg`: `multipart/x-mixed-replace`, at `?fps=`, of `?stream=`. It ends when no pictures come any more:
/// a picture that stands still would look live.
pub(super) async fn mjpeg(
    State(api): State<Arc<Api>>,
    choice: Result<Query<Choice>, QueryRejection>,
    wish: Result<Query<Wish>, QueryRejection>,
) -> Result<Response, Failure> {
    let source = Source::new(&api, choice)?;
    let (usual, most) = if source.stream.codec() == Codec::Mjpeg { OWN_FPS } else { MADE_FPS };
    let fps = match wish {
        Ok(Query(wish)) => wish.fps.unwrap_or(usual),
        // No number.
        Err(_) => 0,
    };
    if !(1..=most).contains(&fps) {
        return Err(Failure(StatusCode::BAD_REQUEST, format!("?fps= must be a whole number from 1 to {most}")));
    }
    running(source.stream)?;
    let mut previews = source.jpeg.previews(fps)?;
    let limit = first_limit(source.stream.status().foreign_keyframes(Instant::now()));
    let first = match tokio::time::timeout(limit, previews.next()).await {
        Ok(picture) => picture.ok_or_else(ending)?,
        Err(_) => return Err(late(&source, limit)),
    };
    let headers = fresh(&format!("multipart/x-mixed-replace; boundary={BOUNDARY}"))?;
    let parts = stream::unfold((Arc::clone(source.jpeg), previews, Some(first), Instant::now()), next_part);
    Ok((headers, Body::from_stream(parts)).into_response())
}

/// What makes the next part; and when the last was given to the connection, which asks for more when most of it is
/// sent.
type Parts = (Arc<JpegOutput>, Previews, Option<Picture>, Instant);

async fn next_part((jpeg, mut previews, first, given_at): Parts) -> Option<(Result<Bytes, Infallible>, Parts)> {
    // Over such a link every picture would be old.
    if given_at.elapsed() > FRESH {
        return None;
    }
    let opening = first.is_some();
    let picture = match first {
        Some(picture) => picture,
        None => tokio::time::timeout(FRESH, previews.next()).await.ok()??,
    };
    jpeg.add_sent(picture.data.len() as u64);
    Some((Ok(part(&picture, opening)), (jpeg, previews, None, Instant::now())))
}

/// One picture, with the boundary behind it: browsers show a picture when they know that it is whole.
fn part(picture: &Picture, opening: bool) -> Bytes {
    let head = format!(
        "{}Content-Type: image/jpeg\r\nContent-Length: {}\r\nX-Timestamp: {}\r\n\r\n",
        if opening { format!("--{BOUNDARY}\r\n") } else { String::new() },
        picture.data.len(),
        timestamp(picture)
    );
    [head.as_bytes(), &picture.data, format!("\r\n--{BOUNDARY}\r\n").as_bytes()].concat().into()
}

fn timestamp(picture: &Picture) -> String {
    let since_1970 = picture.captured.0;
    format!("{}.{:06}", since_1970.as_secs(), since_1970.subsec_micros())
}

fn fresh(content_type: &str) -> Result<HeaderMap, Failure> {
    let content_type = HeaderValue::from_str(content_type).map_err(Failure::internal)?;
    let no_store = HeaderValue::from_static("no-store");
    Ok(HeaderMap::from_iter([(header::CONTENT_TYPE, content_type), (header::CACHE_CONTROL, no_store)]))
}

/// The stream runs, so that there will be a picture.
fn running(stream: &Stream) -> Result<(), Failure> {
    let (state, reason) = stream.status().health();
    if state == StreamState::Running {
        return Ok(());
    }
    let reason = reason.unwrap_or_else(|| "no picture has come yet".to_owned());
    let state = format!("{state:?}").to_lowercase();
    Err(Failure(StatusCode::SERVICE_UNAVAILABLE, format!("the stream does not run ({state}): {reason}")))
}

/// How long a first picture may take: until the next keyframe is due, where that is known. One that is overdue may come
/// as late again.
fn first_limit(keyframes: Option<Keyframes>) -> Duration {
    let Some(Keyframes { age, interval }) = keyframes else { return FIRST_LIMIT };
    let due = match (age, interval) {
        (Some(age), Some(interval)) if age <= interval => interval - age,
        (_, interval) => interval.unwrap_or(KEYFRAME_LIMIT),
    };
    FIRST_LIMIT + due.min(KEYFRAME_LIMIT)
}

fn late(Source { stream, jpeg }: &Source<'_>, waited: Duration) -> Failure {
    if let Err(stopped) = running(stream) {
        return stopped;
    }
    let keyframes = stream.status().foreign_keyframes(Instant::now());
    let reason = jpeg.trouble().unwrap_or_else(|| no_keyframe(keyframes));
    let waited = waited.as_secs();
    Failure(StatusCode::SERVICE_UNAVAILABLE, format!("no picture within {waited} s: {reason}"))
}

fn no_keyframe(keyframes: Option<Keyframes>) -> String {
    const ADVICE: &str = "it cannot be asked for one: let it write one every second or two";
    match keyframes {
        None => "the encoder has made no keyframe".to_owned(),
        Some(Keyframes { age: None, .. }) => format!("the source has sent no keyframe, and {ADVICE}"),
        Some(Keyframes { age: Some(age), interval }) => {
            let age = age.as_secs();
            let due = interval
                .map_or_else(String::new, |interval| format!(", {} s after the one before", interval.as_secs()));
            format!("the source sent its last keyframe {age} s ago{due}, and {ADVICE}")
        }
    }
}

fn ending() -> Failure {
    Failure(StatusCode::SERVICE_UNAVAILABLE, "the server is stopping".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_picture_is_waited_for_until_the_next_keyframe_is_due() {
        let limit = |age: Option<u64>, interval: Option<u64>| {
            first_limit(Some(Keyframes { age: age.map(seconds), interval: interval.map(seconds) }))
        };
        assert_eq!(first_limit(None), FIRST_LIMIT, "an encoder here makes one at once");
        assert_eq!(limit(Some(4), Some(20)), FIRST_LIMIT + seconds(16));
        assert_eq!(limit(Some(21), Some(20)), FIRST_LIMIT + seconds(20), "late, so it may be a longer group");
        assert_eq!(limit(Some(4), None), FIRST_LIMIT + KEYFRAME_LIMIT, "only one came so far");
        assert_eq!(limit(None, None), FIRST_LIMIT + KEYFRAME_LIMIT);
        assert_eq!(limit(Some(1), Some(600)), FIRST_LIMIT + KEYFRAME_LIMIT);
    }

    #[test]
    fn who_waited_in_vain_is_told_when_the_last_keyframe_came() {
        let told = no_keyframe(Some(Keyframes { age: Some(seconds(40)), interval: Some(seconds(60)) }));
        assert!(
            told.starts_with("the source sent its last keyframe 40 s ago, 60 s after the one before, and"),
            "{told}"
        );
        let told = no_keyframe(Some(Keyframes { age: None, interval: None }));
        assert!(told.starts_with("the source has sent no keyframe, and it cannot be asked"), "{told}");
    }
}
