//! `GET /api/clock`: the clock of the times of capture, with the times at which the question came and the answer left,
//! so that clients learn from the round trip what their own clock is ahead by (`common`'s `clock_sync`). And the time
//! of day that a client tells, where the system's clock was not set at the start.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, Request, State};
use axum::http::{HeaderMap, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use rov_common::api::{CLIENT_TIME, ClockReading};
use rov_common::capture_clock::Captured;
use rov_common::recording::rfc3339;
use serde::Deserialize;

use super::Api;
use super::failure::{Failure, Received};
use crate::stream::Stream;
use crate::users::Caller;

/// `?viewers=ID,ID`, as in the statistics.
#[derive(Deserialize)]
pub(super) struct Viewers {
    #[serde(default)]
    viewers: String,
}

pub(super) async fn clock(
    State(api): State<Arc<Api>>,
    Extension(received): Extension<Received>,
    viewers: Result<Query<Viewers>, QueryRejection>,
) -> Result<Response, Failure> {
    let Query(Viewers { viewers }) = viewers.map_err(|rejection| Failure(rejection.status(), rejection.body_text()))?;
    // The media thread is not asked: each page asks once a second.
    let sent = |id: &str| Some((id.to_owned(), api.outputs.webrtc.as_ref()?.sent(id)?));
    let pictures = viewers.split(',').filter_map(sent).collect();
    let doubt = |stream: &Arc<Stream>| Some((stream.name().to_owned(), stream.status().picture_doubt()?));
    let doubts = Some(api.streams.iter().filter_map(doubt).collect());
    // One for all streams.
    let (clock, first) = (api.streams[0].clock(), api.streams[0].name().to_owned());
    let (received_us, sent_us) = (clock.at(received.0).micros(), clock.at(Instant::now()).micros());
    let reading = ClockReading { received_us, sent_us, run: clock.run(), pictures, doubts, first };
    // It is never that of another moment.
    Ok(([(header::CACHE_CONTROL, "no-store")], Json(reading)).into_response())
}

/// Takes the time of day of the first client that tells it, of those who may watch, where it is wanted.
pub(super) async fn hear_time(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    Extension(received): Extension<Received>,
    request: Request,
    next: Next,
) -> Response {
    let captured = api.streams[0].clock().at(received.0);
    if let Some(time) = client_time(request.headers()).filter(|time| api.day.tell(*time, captured)) {
        let told = format!("the time of day of recordings: {}, as the system's clock is not set", rfc3339(time));
        api.users.changed(&caller, &told);
    }
    next.run(request).await
}

/// Microseconds since 1970.
fn client_time(headers: &HeaderMap) -> Option<Captured> {
    let micros = headers.get(CLIENT_TIME)?.to_str().ok()?.parse().ok()?;
    Some(Captured(Duration::from_micros(micros)))
}
