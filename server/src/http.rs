//! The HTTP API: SDP offer and answer, WHEP, health, statistics. Every error is JSON, `{"error": "..."}`.
//!
//! WHEP follows draft-ietf-wish-whep-03. No cross-origin access is granted: pages of other origins cannot use it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Result;
use axum::body::Bytes;
use axum::extract::connect_info::Connected;
use axum::extract::rejection::{BytesRejection, PathRejection};
use axum::extract::{ConnectInfo, DefaultBodyLimit, Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, patch, post};
use axum::serve::IncomingStream;
use axum::{Json, Router};
use rov_common::api::{ErrorBody, Health, OFFER_PATH, SessionDescription, Stats, StreamHealth, StreamState, WHEP_PATH};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::output::webrtc::{AcceptError, Accepted, Busy, CandidateError, WebRtcOutput};
use crate::stream::Stream;

/// Offers of browsers are some kilobytes; 64 KiB is far more than any needs.
const BODY_LIMIT: usize = 64 << 10;
/// Bodies up to this are read to their end although they are refused: closing a connection with data unread resets it,
/// and the sender would see that instead of the answer (RFC 9112 section 9.6).
const READ_LIMIT: usize = 4 << 20;
const JSON_TYPE: &str = "application/json";
const SDP_TYPE: &str = "application/sdp";
const SDPFRAG_TYPE: &str = "application/trickle-ice-sdpfrag";

/// What the handlers need.
pub struct Api {
    pub id: String,
    pub name: String,
    pub started: Instant,
    pub stream: Arc<Stream>,
    pub webrtc: Arc<WebRtcOutput>,
}

/// Serves until `shutdown`; requests under way are finished.
pub async fn serve(listener: TcpListener, api: Arc<Api>, shutdown: CancellationToken) -> Result<()> {
    let app = router(api).into_make_service_with_connect_info::<Arrival>();
    axum::serve(listener, app).with_graceful_shutdown(shutdown.cancelled_owned()).await?;
    Ok(())
}

fn router(api: Arc<Api>) -> Router {
    Router::new()
        .route(OFFER_PATH, post(offer))
        .route("/api/webrtc/offer", post(offer))
        .route(WHEP_PATH, post(whep).options(whep_options))
        .route(&format!("{WHEP_PATH}/{{id}}"), patch(trickle).delete(hang_up))
        .route("/healthz", get(health))
        .route("/api/stats", get(stats))
        .fallback(|| async { fail(StatusCode::NOT_FOUND, "there is nothing at this path") })
        .method_not_allowed_fallback(|| async {
            fail(StatusCode::METHOD_NOT_ALLOWED, "this path does not take this method: see the Allow header")
        })
        .layer(DefaultBodyLimit::max(READ_LIMIT))
        .with_state(api)
}

/// Where a connection came in: viewers can surely reach that address of this machine.
#[derive(Clone, Copy, Debug)]
struct Arrival {
    local: Option<SocketAddr>,
}

impl Connected<IncomingStream<'_, TcpListener>> for Arrival {
    fn connect_info(stream: IncomingStream<'_, TcpListener>) -> Self {
        Self { local: stream.io().local_addr().ok() }
    }
}

async fn offer(
    State(api): State<Arc<Api>>,
    ConnectInfo(arrival): ConnectInfo<Arrival>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Failure> {
    // Also keeps pages of other origins out: for this type browsers ask first, and are not allowed.
    expect_type(&headers, JSON_TYPE)?;
    let offer: SessionDescription = serde_json::from_slice(&whole(body)?).map_err(|e| {
        Failure(StatusCode::BAD_REQUEST, format!("the body is not {{\"type\":\"offer\",\"sdp\":\"...\"}}: {e}"))
    })?;
    if offer.kind != "offer" {
        return Err(Failure(StatusCode::BAD_REQUEST, format!("type is {:?}, not \"offer\"", offer.kind)));
    }
    let accepted = accept(&api, arrival, offer.sdp).await?;
    let answer = SessionDescription { kind: "answer".to_owned(), sdp: accepted.sdp };
    Ok(([(header::LOCATION, location(&accepted.id)?)], Json(answer)).into_response())
}

async fn whep(
    State(api): State<Arc<Api>>,
    ConnectInfo(arrival): ConnectInfo<Arrival>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Failure> {
    expect_type(&headers, SDP_TYPE)?;
    let accepted = accept(&api, arrival, text(whole(body)?)?).await?;
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(SDP_TYPE)),
        (header::LOCATION, location(&accepted.id)?),
        (header::ETAG, HeaderValue::from_str(&etag(&accepted.id)).map_err(Failure::internal)?),
        (header::HeaderName::from_static("accept-patch"), HeaderValue::from_static(SDPFRAG_TYPE)),
    ];
    Ok((StatusCode::CREATED, headers, accepted.sdp).into_response())
}

/// What can be done here; nothing of it by pages of other origins.
async fn whep_options() -> impl IntoResponse {
    let accept = (header::HeaderName::from_static("accept-post"), HeaderValue::from_static(SDP_TYPE));
    (StatusCode::NO_CONTENT, [accept, (header::ALLOW, HeaderValue::from_static("POST, OPTIONS"))])
}

/// Trickled candidates (RFC 8840). An ICE restart is not offered: a viewer makes a new session instead.
async fn trickle(
    State(api): State<Arc<Api>>,
    id: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<StatusCode, Failure> {
    let Path(id) = id?;
    expect_type(&headers, SDPFRAG_TYPE)?;
    if let Some(wanted) = headers.get(header::IF_MATCH)
        && wanted.as_bytes() != b"*"
        && wanted.as_bytes() != etag(&id).as_bytes()
    {
        return Err(Failure(StatusCode::PRECONDITION_FAILED, "If-Match is not the ETag of this session".to_owned()));
    }
    if let Some(wanted) = headers.get(header::IF_MATCH)
        && wanted.as_bytes() != b"*"
        && wanted.as_bytes() != etag(&id).as_bytes()
    {
        return Err(Failure(StatusCode::PRECONDITION_FAILED, "If-Match is not the ETag of this session".to_owned()));
    }
    let fragment = text(whole(body)?)?;
    let ufrag = fragment.lines().find_map(|l| l.trim().strip_prefix("a=ice-ufrag:")).unwrap_or_default().to_owned();
    let candidates: Vec<String> = fragment
        .lines()
        .filter_map(|l| l.trim().strip_prefix("a=candidate:"))
        .map(|c| format!("candidate:{c}"))
        .collect();
    if candidates.is_empty() && ufrag.is_empty() && !fragment.contains("a=end-of-candidates") {
        return Err(Failure(StatusCode::BAD_REQUEST, "the fragment has no `a=candidate` line (RFC 8840)".to_owned()));
    }
    match api.webrtc.add_candidates(id, ufrag, candidates).await? {
        Ok(()) => Ok(StatusCode::NO_CONTENT),
        Err(error @ CandidateError::NoSuchViewer(_)) => Err(Failure(StatusCode::NOT_FOUND, error.to_string())),
        Err(error @ CandidateError::Restart) => Err(Failure(StatusCode::UNPROCESSABLE_ENTITY, error.to_string())),
        Err(error @ CandidateError::Invalid { .. }) => Err(Failure(StatusCode::BAD_REQUEST, error.to_string())),
    }
}

async fn hang_up(State(api): State<Arc<Api>>, id: Result<Path<String>, PathRejection>) -> Result<StatusCode, Failure> {
    let Path(id) = id?;
    if api.webrtc.close(id.clone()).await? {
        Ok(StatusCode::OK)
    } else {
        Err(Failure(StatusCode::NOT_FOUND, CandidateError::NoSuchViewer(id).to_string()))
    }
}

async fn health(State(api): State<Arc<Api>>) -> Response {
    let (state, trouble) = api.stream.health();
    let running = state == StreamState::Running && trouble.is_none();
    let stream = StreamHealth { state, reason: trouble };
    let health = Health {
        status: if running { "ok" } else { "degraded" }.to_owned(),
        streams: BTreeMap::from([(api.stream.name().to_owned(), stream)]),
    };
    let status = if running { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(health)).into_response()
}

async fn stats(State(api): State<Arc<Api>>) -> Result<Json<Stats>, Failure> {
    let now = Instant::now();
    Ok(Json(Stats {
        id: api.id.clone(),
        name: api.name.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        uptime_s: now.saturating_duration_since(api.started).as_secs_f64(),
        streams: vec![api.stream.stats(now)],
        viewers: api.webrtc.stats().await?,
    }))
}

async fn accept(api: &Api, arrival: Arrival, sdp: String) -> Result<Accepted, Failure> {
    let local = arrival.local.ok_or_else(|| Failure::internal("the connection has no local address"))?;
    api.webrtc.offer(sdp, local.ip()).await?.map_err(|error| {
        let status = match &error {
            AcceptError::Offer(crate::output::webrtc::OfferError::NotSdp(_)) | AcceptError::Core(_) => {
                StatusCode::BAD_REQUEST
            }
            AcceptError::Offer(_) => StatusCode::UNPROCESSABLE_ENTITY,
            AcceptError::Full => StatusCode::SERVICE_UNAVAILABLE,
        };
        Failure(status, error.to_string())
    })
}

fn etag(id: &str) -> String {
    format!("\"{id}\"")
}

fn location(id: &str) -> Result<HeaderValue, Failure> {
    HeaderValue::from_str(&format!("{WHEP_PATH}/{id}")).map_err(Failure::internal)
}

fn expect_type(headers: &HeaderMap, wanted: &str) -> Result<(), Failure> {
    let given = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or("");
    if given.split(';').next().unwrap_or("").trim().eq_ignore_ascii_case(wanted) {
        return Ok(());
    }
    Err(Failure(StatusCode::UNSUPPORTED_MEDIA_TYPE, format!("Content-Type is {given:?}, not {wanted}")))
}

fn whole(body: Result<Bytes, BytesRejection>) -> Result<Bytes, Failure> {
    let too_large = || Failure(StatusCode::PAYLOAD_TOO_LARGE, format!("the body is larger than {BODY_LIMIT} bytes"));
    match body {
        Ok(body) if body.len() <= BODY_LIMIT => Ok(body),
        Ok(_) => Err(too_large()),
        Err(rejection) if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE => Err(too_large()),
        Err(rejection) => Err(Failure(rejection.status(), rejection.body_text())),
    }
}

fn text(body: Bytes) -> Result<String, Failure> {
    String::from_utf8(body.into()).map_err(|_| Failure(StatusCode::BAD_REQUEST, "the body is not UTF-8".to_owned()))
}

/// A reply that is an error.
struct Failure(StatusCode, String);

impl Failure {
    fn internal(error: impl std::fmt::Display) -> Self {
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

fn fail(status: StatusCode, error: &str) -> Response {
    (status, Json(ErrorBody { error: error.to_owned() })).into_response()
}
