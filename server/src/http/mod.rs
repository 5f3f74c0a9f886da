//! HTTP: the viewer page, SDP offer and answer, WHEP, the description of plain RTP, health, statistics. Every error is
//! JSON, `{"error": "..."}`, but for what is no HTTP at all or has too large a header, which is answered with a status alone.
//!
//! Pages of other origins cannot use it, unless their origin was named (`access`).

mod access;
mod connections;
mod failure;
mod jpeg;
mod page;
mod sdp;
mod whep;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use anyhow::Result;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, patch, post};
use axum::{Extension, Json, Router, middleware};
use rov_common::api::{
    Health, MJPEG_PATH, OFFER_PATH, SDP_PATH, SNAPSHOT_PATH, Stats, StreamHealth, StreamState, WHEP_PATH,
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use self::access::{Access, guard};
use self::failure::{Failure, fail, receive};
use self::jpeg::{mjpeg, snapshot};
use self::sdp::sdp;
use self::whep::{hang_up, modify, offer, whep, whep_options};
use crate::output::jpeg::JpegOutput;
use crate::output::rtp::RtpOutput;
use crate::output::rtsp::RtspOutput;
use crate::output::webrtc::WebRtcOutput;
use crate::stream::Stream;

/// What the handlers need.
pub struct Api {
    pub id: String,
    pub name: String,
    pub started: Instant,
    pub stream: Arc<Stream>,
    /// None: not among the transports; so for the others.
    pub webrtc: Option<Arc<WebRtcOutput>>,
    pub rtp: Option<Arc<RtpOutput>>,
    pub rtsp: Option<Arc<RtspOutput>>,
    pub jpeg: Arc<JpegOutput>,
    /// Names by which the server may be asked, beside those of the machine, and origins of pages that may use it.
    pub allow_hosts: Vec<String>,
    pub allow_origins: Vec<String>,
}

/// Serves until `shutdown`; requests under way are finished.
pub async fn serve(listener: TcpListener, api: Arc<Api>, shutdown: CancellationToken) -> Result<()> {
    connections::serve(listener, router(api), shutdown).await;
    Ok(())
}

fn router(api: Arc<Api>) -> Router {
    let access = Arc::new(Access::new(&api.allow_hosts, access::search_domains(), &api.allow_origins));
    page::routes()
        .route(OFFER_PATH, post(offer))
        .route("/api/webrtc/offer", post(offer))
        .route(WHEP_PATH, post(whep).options(whep_options))
        .route(&format!("{WHEP_PATH}/{{id}}"), patch(modify).delete(hang_up))
        .route(SDP_PATH, get(sdp))
        .route("/healthz", get(health))
        .route("/api/stats", get(stats))
        .route(SNAPSHOT_PATH, get(snapshot))
        .route(MJPEG_PATH, get(mjpeg))
        .fallback(|| async { fail(StatusCode::NOT_FOUND, "there is nothing at this path") })
        .method_not_allowed_fallback(|| async {
            fail(StatusCode::METHOD_NOT_ALLOWED, "this path does not take this method: see the Allow header")
        })
        .layer(Extension(Arc::clone(&access)))
        .layer(middleware::from_fn_with_state(access, guard))
        .layer(middleware::from_fn(receive))
        .with_state(api)
}

/// Whose a connection is, and where it came in: viewers can surely reach that address of this machine.
#[derive(Clone, Copy, Debug)]
struct Arrival {
    peer: IpAddr,
    local: Option<SocketAddr>,
}

async fn health(State(api): State<Arc<Api>>) -> Response {
    let (state, trouble) = api.stream.status().health();
    let running = state == StreamState::Running && trouble.is_none();
    let stream = StreamHealth { state, reason: trouble, resting: api.stream.status().is_resting() };
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
        viewers: match &api.webrtc {
            Some(webrtc) => webrtc.stats().await?,
            None => Vec::new(),
        },
        rtp: api.rtp.as_ref().map(|rtp| rtp.stats()),
        rtsp: api.rtsp.as_ref().map(|rtsp| rtsp.stats()),
        jpeg: api.jpeg.stats(),
    }))
}
