//! What is refused, and how that is said: JSON, `{"error": "..."}`.

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, PathRejection};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use rov_common::api::ErrorBody;

use crate::output::webrtc::Busy;

/// Offers of browsers are some kilobytes; 64 KiB is far more than any needs.
const BODY_LIMIT: usize = 64 << 10;
/// Bodies up to this are read to their end although they are refused: closing a connection with data unread resets it,
/// and the sender would see that instead of the answer (RFC 9112 section 9.6).
pub(super) const READ_LIMIT: usize = 4 << 20;

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
    (status, Json(ErrorBody { error: error.to_owned() })).into_response()
}

pub(super) fn expect_type(headers: &HeaderMap, wanted: &str) -> Result<(), Failure> {
    let given = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or("");
    if given.split(';').next().unwrap_or("").trim().eq_ignore_ascii_case(wanted) {
        return Ok(());
    }
    Err(Failure(StatusCode::UNSUPPORTED_MEDIA_TYPE, format!("Content-Type is {given:?}, not {wanted}")))
}

pub(super) fn whole(body: Result<Bytes, BytesRejection>) -> Result<Bytes, Failure> {
    let too_large = || Failure(StatusCode::PAYLOAD_TOO_LARGE, format!("the body is larger than {BODY_LIMIT} bytes"));
    match body {
        Ok(body) if body.len() <= BODY_LIMIT => Ok(body),
        Ok(_) => Err(too_large()),
        Err(rejection) if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE => Err(too_large()),
        Err(rejection) => Err(Failure(rejection.status(), rejection.body_text())),
    }
}

pub(super) fn text(body: Bytes) -> Result<String, Failure> {
    String::from_utf8(body.into()).map_err(|_| Failure(StatusCode::BAD_REQUEST, "the body is not UTF-8".to_owned()))
}
