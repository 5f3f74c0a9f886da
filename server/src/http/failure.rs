//! What is refused, and how that is said: JSON, `{"error": "..."}`. Bodies are read here, within limits.

use std::future::poll_fn;
use std::pin::Pin;
use std::time::{Duration, Instant};

use axum::Json;
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::rejection::PathRejection;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use rov_common::api::ErrorBody;

use crate::output::webrtc::Busy;

/// Offers of browsers are some kilobytes; 64 KiB is far more than any needs.
const BODY_LIMIT: usize = 64 << 10;
/// Bodies up to this are read to their end although they are refused: closing a connection with data unread resets it,
/// and the sender would see that instead of the answer (RFC 9112 section 9.6).
const READ_LIMIT: usize = 4 << 20;

/// A reply that is an error.
pub(super) struct Failure(pub StatusCode, pub String);

impl Failure {
    pub fn internal(error: impl std::fmt::Display) -> Self {
        Self(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
    }
}

impl From<Busy> for Failure {
    fn from(busy: Busy) -> Self {
        Self(StatusCode::SERVICE_UNAVAILABLE, busy.to_string())
    }
}

impl From<PathRejection> for Failure {
    fn from(rejection: PathRejection) -> Self {
        Self(rejection.status(), rejection.body_text())
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        fail(self.0, &self.1)
    }
}

pub(super) fn fail(status: StatusCode, error: &str) -> Response {
    (status, Json(ErrorBody { error: error.to_owned(), field: None, mjpeg: false })).into_response()
}

pub(super) fn expect_type(headers: &HeaderMap, wanted: &str) -> Result<(), Failure> {
    let given = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or("");
    if given.split(';').next().unwrap_or("").trim().eq_ignore_ascii_case(wanted) {
        return Ok(());
    }
    Err(Failure(StatusCode::UNSUPPORTED_MEDIA_TYPE, format!("Content-Type is {given:?}, not {wanted}")))
}

/// When a request's header had come.
#[derive(Clone, Copy, Debug)]
pub(super) struct Received(pub Instant);

/// Reads the body of each request before its handler is called, within `limit`: no handler waits for a slow sender.
pub(super) async fn receive(State(limit): State<Duration>, mut request: Request, next: Next) -> Response {
    // Before who asks is found out, which takes its time.
    request.extensions_mut().insert(Received(Instant::now()));
    let (parts, body) = request.into_parts();
    match tokio::time::timeout(limit, read(body)).await {
        Ok(Ok(body)) => next.run(Request::from_parts(parts, Body::from(body))).await,
        Ok(Err(failure)) => failure.into_response(),
        Err(_) => {
            let limit = limit.as_secs();
            fail(StatusCode::REQUEST_TIMEOUT, &format!("the body of the request did not come within {limit} s"))
        }
    }
}

async fn read(mut body: Body) -> Result<Bytes, Failure> {
    let (mut kept, mut length) = (Vec::new(), 0);
    while length <= READ_LIMIT
        && let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await
    {
        let frame =
            frame.map_err(|e| Failure(StatusCode::BAD_REQUEST, format!("the body of the request broke off: {e}")))?;
        let data = frame.into_data().unwrap_or_default();
        length += data.len();
        if length <= BODY_LIMIT {
            kept.extend_from_slice(&data);
        }
    }
    if length > BODY_LIMIT {
        return Err(Failure(StatusCode::PAYLOAD_TOO_LARGE, format!("the body is larger than {BODY_LIMIT} bytes")));
    }
    Ok(kept.into())
}

pub(super) fn text(body: Bytes) -> Result<String, Failure> {
    String::from_utf8(body.into()).map_err(|_| Failure(StatusCode::BAD_REQUEST, "the body is not UTF-8".to_owned()))
}
