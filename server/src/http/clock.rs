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

/// `?viewer=ID`, as in the statistics.
#[derive(Deserialize)]
pub(super) struct Viewer {
    viewer: Option<String>,
}

pub(super) async fn clock(
    State(api): State<Arc<Api>>,
    Extension(received): Extension<Received>,
    viewer: Result<Query<Viewer>, QueryRejection>,
) -> Result<Response, Failure> {
    let Query(Viewer { viewer }) = viewer.map_err(|rejection| Failure(rejection.status(), rejection.body_text()))?;
    let picture = match (viewer, &api.webrtc) {
        (Some(id), Some(webrtc)) => {
            let viewers = webrtc.stats().await?.viewers;
            viewers.into_iter().find(|viewer| viewer.id == id).and_then(|viewer| viewer.picture)
        }
        _ => None,
    };
    // One for all streams.
    let clock = api.streams[0].clock();
    let (received_us, sent_us) = (clock.at(received.0).micros(), clock.at(Instant::now()).micros());
    let started_us = clock.at(clock.started()).micros();
    let reading = ClockReading { received_us, sent_us, started_us, picture };
    // It is never that of another moment.
    Ok(([(header::CACHE_CONTROL, "no-store")], Json(reading)).into_response())
}
