//! HTTP: the viewer page, SDP offer and answer, WHEP, the description of plain RTP, health, statistics. Every error is
//! JSON, `{"error": "..."}`, but for what is no HTTP at all or has too large a header, which is answered with a status
//! alone.
//!
//! Pages of other origins cannot use it, unless their origin was named (`access`).

mod access;
mod clip;
mod clock;
mod connections;
mod downloads;
mod events;
mod failure;
mod jpeg;
mod login;
mod metrics;
mod onvif;
mod openapi;
mod page;
mod recordings;
mod ring;
mod sdp;
mod settings;
mod tls;
mod whep;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router, middleware};
use rov_common::api::{
    CLIP_PATH, CLOCK_PATH, Health, LOGIN_PATH, MJPEG_PATH, OFFER_PATH, RECORDINGS_PATH, RING_PATH, RING_PICTURES_PATH,
    SDP_PATH, SERVER_ID_HEADER, SERVER_KEY_HEADER, SNAPSHOT_PATH, Stats, StreamHealth, StreamState, WHEP_PATH,
};
use rov_common::capture_clock::TimeOfDay;
use serde::Deserialize;
use tokio::net::TcpListener;

use tokio_util::sync::CancellationToken;

use self::access::{Access, guard};
pub use self::clip::Clips;
pub use self::downloads::Downloads;
use self::failure::{Failure, fail, receive};
use self::jpeg::{mjpeg, snapshot};
use self::login::{authenticate, login, may_watch};
use self::metrics::metrics;
pub use self::recordings::Recorded;
pub use self::ring::RingPlaces;
use self::sdp::sdp;
pub use self::tls::{CertificateFiles, Tls};
use self::whep::{hang_up, modify, offer, whep, whep_options};
use crate::events::Events;
use crate::onvif::Onvif;
use crate::output::Outputs;
use crate::settings::Settings;
use crate::stream::{NoSuchStream, Stream, Streams};
use crate::telemetry::Counters;
use crate::users::{Caller, Users};

/// What the handlers need.
pub struct Api {
    pub id: String,
    pub key: String,
    /// As in [`Stats`].
    pub key_is_of_this_run: bool,
    pub name: String,
    pub started: Instant,
    /// For what people read.
    pub day: TimeOfDay,
    pub streams: Streams,
    pub outputs: Arc<Outputs>,
    /// What was; None where nothing can be.
    pub recorded: Option<Recorded>,
    pub clips: Clips,
    /// Of answers with pictures out of a ring.
    pub ring_places: RingPlaces,
    pub downloads: Downloads,
    pub settings: Arc<Settings>,
    pub events: Events,
    pub telemetry: Arc<Counters>,
    pub users: Arc<Users>,
    /// None: not served.
    pub onvif: Option<Arc<Onvif>>,
    /// Names by which the server may be asked, beside those of the machine, and origins of pages that may use it.
    pub allow_hosts: Vec<String>,
    pub allow_origins: Vec<String>,
    pub limits: Limits,
}

/// How long a client may keep the server waiting. The default is what is served; tests have less time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// For the whole header of a request, and for the next request on a connection that is kept open.
    pub header: Duration,
    /// For a whole body. One of 64 KiB then needs 52 kbit/s.
    pub body: Duration,
    /// A peer that takes nothing of an answer for so long is gone. An answer that is taken may last for ever: a stream.
    pub write: Duration,
    /// Likewise, of pictures out of a ring, which the answer holds: the link may be down for a while.
    pub held: Duration,
    /// For a change of settings to be through; it goes on without the client that asked for it.
    pub change: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        let limit = Duration::from_secs(10);
        let (held, change) = (Duration::from_secs(60), Duration::from_secs(30));
        Self { header: limit, body: limit, write: limit, held, change }
    }
}

/// Serves until `shutdown`; requests under way are finished.
pub async fn serve(listener: TcpListener, api: Arc<Api>, tls: Option<Tls>, shutdown: CancellationToken) -> Result<()> {
    let limits = api.limits;
    let access = Arc::new(Access::new(&api.allow_hosts, access::search_domains(), &api.allow_origins));
    let tls = tls.map(|tls| (tls, tls::to_https(Arc::clone(&access))));
    connections::serve(listener, router(api, access), tls, limits, shutdown).await;
    Ok(())
}

fn router(api: Arc<Api>, access: Arc<Access>) -> Router {
    let paced = || middleware::from_fn_with_state(Arc::clone(&api), downloads::paced);
    // The page itself says nothing of the vehicle, and asks for the login.
    let watching = Router::new()
        .route(OFFER_PATH, post(offer))
        .route("/api/webrtc/offer", post(offer))
        .route(WHEP_PATH, post(whep).options(whep_options))
        // What is posted to is a stream, CAMERA/STREAM as two segments or one; what is changed is a session.
        .route(&format!("{WHEP_PATH}/{{name}}"), post(whep).options(whep_options).patch(modify).delete(hang_up))
        .route(&format!("{WHEP_PATH}/{{camera}}/{{stream}}"), post(whep).options(whep_options))
        .route(SDP_PATH, get(sdp))
        .route(CLOCK_PATH, get(clock::clock))
        .route("/api/stats", get(stats))
        .route("/metrics", get(metrics))
        .route("/api/events", get(events::events))
        .route("/api/openapi.json", get(openapi::openapi))
        .route("/api/settings", get(settings::everything))
        .route("/api/settings/{name}", get(settings::one).patch(settings::change_one))
        .route("/api/cameras/{camera}/settings", get(settings::of_place).patch(settings::change_of_place))
        .route(
            "/api/cameras/{camera}/streams/{stream}/settings",
            get(settings::of_place).patch(settings::change_of_place),
        )
        .route(SNAPSHOT_PATH, get(snapshot))
        .route(MJPEG_PATH, get(mjpeg))
        .route(RECORDINGS_PATH, get(recordings::list))
        // Nothing is changed by it: a link leads to it as well.
        .route(CLIP_PATH, get(clip::clip).post(clip::clip).layer(paced()))
        .route(RING_PATH, get(ring::list))
        .route(RING_PICTURES_PATH, get(ring::pictures).layer(paced()))
        .route_layer(middleware::map_response_with_state(Arc::clone(&api), say_who))
        .route_layer(middleware::from_fn_with_state(Arc::clone(&api), clock::hear_time))
        .route_layer(middleware::from_fn_with_state(Arc::clone(&api), may_watch));
    let opened = Router::new()
        .route(&format!("{RECORDINGS_PATH}/{{file}}"), get(recordings::open).delete(recordings::delete).layer(paced()))
        .route_layer(middleware::from_fn_with_state(Arc::clone(&api), recordings::may_open));
    let all = page::routes()
        .merge(watching)
        .merge(opened)
        .route("/healthz", get(health))
        .route(LOGIN_PATH, get(login))
        .fallback(|| async { fail(StatusCode::NOT_FOUND, "there is nothing at this path") })
        .method_not_allowed_fallback(not_allowed)
        .layer(middleware::from_fn_with_state(Arc::clone(&api), authenticate));
    // There who asks may be said in the body.
    let all = if api.onvif.is_some() { all.merge(onvif::routes()) } else { all };
    all.layer(Extension(Arc::clone(&access)))
        .layer(middleware::from_fn_with_state(access, guard))
        .layer(middleware::from_fn_with_state(api.limits.body, receive))
        .with_state(api)
}

/// Another vehicle may have this address by now.
async fn say_who(State(api): State<Arc<Api>>, answer: Response) -> Response {
    let who = [(SERVER_ID_HEADER, api.id.clone()), (SERVER_KEY_HEADER, api.key.clone())];
    (who.map(|(name, value)| (HeaderName::from_static(name), value)), answer).into_response()
}

async fn not_allowed() -> Response {
    fail(StatusCode::METHOD_NOT_ALLOWED, "this path does not take this method: see the Allow header")
}

/// Whose a connection is, and where it came in: viewers can surely reach that address of this machine.
#[derive(Clone, Copy, Debug)]
struct Arrival {
    peer: IpAddr,
    local: Option<SocketAddr>,
}

/// `?stream=NAME`; without it, it is the default.
#[derive(Deserialize)]
struct Choice {
    stream: Option<String>,
}

impl Choice {
    /// The stream's place in the catalogue.
    fn of(choice: Result<Query<Self>, QueryRejection>, streams: &Streams) -> Result<usize, Failure> {
        let Query(Self { stream }) = choice.map_err(|rejection| Failure(rejection.status(), rejection.body_text()))?;
        Ok(streams.find(stream.as_deref())?)
    }
}

impl From<NoSuchStream> for Failure {
    fn from(unknown: NoSuchStream) -> Self {
        Self(StatusCode::NOT_FOUND, unknown.to_string())
    }
}

/// Whoever may not watch learns no more than whether all is well.
async fn health(State(api): State<Arc<Api>>, Extension(caller): Extension<Caller>) -> Response {
    let of = |stream: &Arc<Stream>| (stream.name().to_owned(), stream.status().whole_health());
    let streams: BTreeMap<_, _> = api.streams.iter().map(of).collect();
    let is_well = |stream: &StreamHealth| stream.state == StreamState::Running && stream.reason.is_none();
    let (status, word) = match streams.values().all(is_well) {
        true => (StatusCode::OK, "ok"),
        false => (StatusCode::SERVICE_UNAVAILABLE, "degraded"),
    };
    let (streams, cameras) = match api.users.may_watch(caller.user.as_ref()) {
        Ok(()) => (streams, api.streams.cameras()),
        Err(_) => Default::default(),
    };
    (status, Json(Health { status: word.to_owned(), streams, cameras })).into_response()
}

async fn stats(State(api): State<Arc<Api>>) -> Result<Json<Stats>, Failure> {
    gather(&api).await.map(Json)
}

/// Everything that is counted and measured, now.
async fn gather(api: &Api) -> Result<Stats, Failure> {
    let now = Instant::now();
    let mut stats = Stats {
        id: api.id.clone(),
        key: Some(api.key.clone()),
        key_is_of_this_run: api.key_is_of_this_run,
        name: api.name.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        uptime_s: now.saturating_duration_since(api.started).as_secs_f64(),
        clock: api.day.now().0,
        cameras: api.streams.cameras(),
        streams: api.streams.iter().map(|stream| stream.stats(now)).collect(),
        alignment: Some(api.settings.alignment()),
        overlays: api.events.has_overlays(),
        telemetry: api.telemetry.stats(),
        ..Stats::default()
    };
    if let Some(webrtc) = &api.outputs.webrtc {
        webrtc.stats().await?.tell(&mut stats);
    }
    api.outputs.all().for_each(|output| output.tell(&mut stats));
    for (stream, ring) in stats.streams.iter_mut().zip(&api.outputs.rings) {
        stream.ring = Some(ring.stats());
    }
    Ok(stats)
}
