//! `GET /api/clock`: the clock of the times of capture, with the times at which the question came and the answer left,
//! so that clients learn from the round trip what their own clock is ahead by (`common`'s `clock_sync`).

use std::sync::Arc;
use std::time::Instant;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use rov_common::api::ClockReading;
use serde::Deserialize;

use super::Api;
use super::failure::{Failure, Received};
use crate::stream::Stream;

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
    let sent = |id: &str| Some((id.to_owned(), api.webrtc.as_ref()?.sent(id)?));
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
