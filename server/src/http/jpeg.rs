//! JPEG pictures over HTTP: the newest one, and MJPEG for whatever shows an `<img>`.
//!
//! A viewer whose link needs longer for a picture than [`FRESH`] is ended.
//!
//! `X-Timestamp` is the time of capture in seconds since 1970, as mjpg-streamer and uStreamer give it.

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
use serde::Deserialize;

use super::Api;
use super::failure::Failure;
use crate::output::jpeg::{FRESH, Picture, Previews, TooMany};

/// For the decoder to start, and for the next keyframe of a stream that is passed through.
const FIRST_LIMIT: Duration = Duration::from_secs(5);
const BOUNDARY: &str = "frame";
const DEFAULT_FPS: u32 = 5;
const MAX_FPS: u32 = 15;

#[derive(Deserialize)]
pub(super) struct Wish {
    fps: Option<u32>,
}

impl From<TooMany> for Failure {
    fn from(too_many: TooMany) -> Self {
        Self(StatusCode::SERVICE_UNAVAILABLE, too_many.to_string())
    }
}

/// `GET /snapshot.jpg`: a picture that is captured now, in full size; never one of before.
pub(super) async fn snapshot(State(api): State<Arc<Api>>) -> Result<Response, Failure> {
    running(&api)?;
    let picture = match tokio::time::timeout(FIRST_LIMIT, api.jpeg.snapshot()).await {
        Ok(picture) => picture?.ok_or_else(ending)?,
        Err(_) => return Err(late(&api)),
    };
    let mut headers = fresh("image/jpeg")?;
    let modified = httpdate::fmt_http_date(picture.time());
    headers.insert(header::LAST_MODIFIED, HeaderValue::from_str(&modified).map_err(Failure::internal)?);
    let timestamp = HeaderValue::from_str(&timestamp(&picture)).map_err(Failure::internal)?;
    headers.insert(HeaderName::from_static("x-timestamp"), timestamp);
    Ok((headers, picture.data).into_response())
}

/// `GET /stream.mjpg`: `multipart/x-mixed-replace`, at `?fps=`. It ends when no pictures come any more: a picture that
/// stands still would look live.
pub(super) async fn mjpeg(
    State(api): State<Arc<Api>>,
    wish: Result<Query<Wish>, QueryRejection>,
) -> Result<Response, Failure> {
    let fps = match wish {
        Ok(Query(wish)) => wish.fps.unwrap_or(DEFAULT_FPS),
        // No number.
        Err(_) => 0,
    };
    if !(1..=MAX_FPS).contains(&fps) {
        return Err(Failure(StatusCode::BAD_REQUEST, format!("?fps= must be a whole number from 1 to {MAX_FPS}")));
    }
    running(&api)?;
    let mut previews = api.jpeg.previews(fps)?;
    let first = match tokio::time::timeout(FIRST_LIMIT, previews.next()).await {
        Ok(picture) => picture.ok_or_else(ending)?,
        Err(_) => return Err(late(&api)),
    };
    let headers = fresh(&format!("multipart/x-mixed-replace; boundary={BOUNDARY}"))?;
    let parts = stream::unfold((previews, Some(first), Instant::now()), next_part);
    Ok((headers, Body::from_stream(parts)).into_response())
}

/// What makes the next part; and when the last was given to the connection, which asks for more when most of it is sent.
type Parts = (Previews, Option<Picture>, Instant);

async fn next_part((mut previews, first, given_at): Parts) -> Option<(Result<Bytes, Infallible>, Parts)> {
    // Over such a link every picture would be old.
    if given_at.elapsed() > FRESH {
        return None;
    }
    let opening = first.is_some();
    let picture = match first {
        Some(picture) => picture,
        None => tokio::time::timeout(FRESH, previews.next()).await.ok()??,
    };
    Some((Ok(part(&picture, opening)), (previews, None, Instant::now())))
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
    let since_1970 = picture.time().duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("{}.{:06}", since_1970.as_secs(), since_1970.subsec_micros())
}

fn fresh(content_type: &str) -> Result<HeaderMap, Failure> {
    let content_type = HeaderValue::from_str(content_type).map_err(Failure::internal)?;
    let no_store = HeaderValue::from_static("no-store");
    Ok(HeaderMap::from_iter([(header::CONTENT_TYPE, content_type), (header::CACHE_CONTROL, no_store)]))
}

/// The stream runs, so that there will be a picture.
fn running(api: &Api) -> Result<(), Failure> {
    let (state, reason) = api.stream.health();
    if state == StreamState::Running {
        return Ok(());
    }
    let reason = reason.unwrap_or_else(|| "no picture has come yet".to_owned());
    let state = format!("{state:?}").to_lowercase();
    Err(Failure(StatusCode::SERVICE_UNAVAILABLE, format!("the stream does not run ({state}): {reason}")))
}

fn late(api: &Api) -> Failure {
    if let Err(stopped) = running(api) {
        return stopped;
    }
    let reason = api.jpeg.trouble().unwrap_or_else(|| "the source has given no keyframe".to_owned());
    let waited = FIRST_LIMIT.as_secs();
    Failure(StatusCode::SERVICE_UNAVAILABLE, format!("no picture within {waited} s: {reason}"))
}

fn ending() -> Failure {
    Failure(StatusCode::SERVICE_UNAVAILABLE, "the server is stopping".to_owned())
}
