//! SDP offer and answer, plain and by WHEP (draft-ietf-wish-whep-03).

use std::net::IpAddr;
use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{ConnectInfo, Path, Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use rov_common::api::{SessionDescription, WHEP_PATH};
use rov_common::codec::Codec;
use serde::Deserialize;

use super::failure::{Failure, expect_type, text};
use super::{Api, Arrival};
use crate::output::webrtc::offer::Fragment;
use crate::output::webrtc::{AcceptError, Accepted, CandidateError, OfferError, WebRtcOutput};

const JSON_TYPE: &str = "application/json";
const SDP_TYPE: &str = "application/sdp";
const SDPFRAG_TYPE: &str = "application/trickle-ice-sdpfrag";

pub(super) async fn offer(
    State(api): State<Arc<Api>>,
    ConnectInfo(arrival): ConnectInfo<Arrival>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Failure> {
    // Also keeps pages of other origins out: for this type browsers ask first, and are not allowed.
    expect_type(&headers, JSON_TYPE)?;
    let offer: SessionDescription = serde_json::from_slice(&body).map_err(|e| {
        Failure(StatusCode::BAD_REQUEST, format!("the body is not {{\"type\":\"offer\",\"sdp\":\"...\"}}: {e}"))
    })?;
    if offer.kind != "offer" {
        return Err(Failure(StatusCode::BAD_REQUEST, format!("type is {:?}, not \"offer\"", offer.kind)));
    }
    let accepted = accept(&api, arrival, offer.sdp).await?;
    let answer = SessionDescription { kind: "answer".to_owned(), sdp: accepted.sdp };
    Ok(([(header::LOCATION, location(&accepted.id)?)], Json(answer)).into_response())
}

/// `?stream=NAME` chooses the stream; without it, it is the first.
#[derive(Deserialize)]
pub(super) struct Choice {
    stream: Option<String>,
}

pub(super) async fn whep(
    State(api): State<Arc<Api>>,
    ConnectInfo(arrival): ConnectInfo<Arrival>,
    choice: Result<Query<Choice>, QueryRejection>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Failure> {
    expect_type(&headers, SDP_TYPE)?;
    let Query(choice) = choice.map_err(|rejection| Failure(rejection.status(), rejection.body_text()))?;
    if let Some(name) = choice.stream.filter(|name| name != api.stream.name()) {
        let reason = format!("there is no stream {name:?}, only {:?}", api.stream.name());
        return Err(Failure(StatusCode::NOT_FOUND, reason));
    }
    let accepted = accept(&api, arrival, text(body)?).await?;
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(SDP_TYPE)),
        (header::LOCATION, location(&accepted.id)?),
        (header::ETAG, HeaderValue::from_str(&etag(&accepted.id)).map_err(Failure::internal)?),
        (header::HeaderName::from_static("accept-patch"), HeaderValue::from_static(SDPFRAG_TYPE)),
    ];
    Ok((StatusCode::CREATED, headers, accepted.sdp).into_response())
}

/// What can be done here; nothing of it by pages of other origins.
pub(super) async fn whep_options() -> impl IntoResponse {
    let accept = (header::HeaderName::from_static("accept-post"), HeaderValue::from_static(SDP_TYPE));
    (StatusCode::NO_CONTENT, [accept, (header::ALLOW, HeaderValue::from_static("POST, OPTIONS"))])
}

/// Trickled candidates (RFC 8840). An ICE restart is not offered: a viewer makes a new session instead.
pub(super) async fn trickle(
    State(api): State<Arc<Api>>,
    id: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<StatusCode, Failure> {
    let Path(id) = id?;
    expect_type(&headers, SDPFRAG_TYPE)?;
    if let Some(wanted) = headers.get(header::IF_MATCH)
        && wanted.as_bytes() != b"*"
        && wanted.as_bytes() != etag(&id).as_bytes()
    {
        return Err(Failure(StatusCode::PRECONDITION_FAILED, "If-Match is not the ETag of this session".to_owned()));
    }
    let Some(Fragment { ufrag, candidates }) = Fragment::parse(&text(body)?) else {
        return Err(Failure(StatusCode::BAD_REQUEST, "the fragment has no `a=candidate` line (RFC 8840)".to_owned()));
    };
    match webrtc(&api)?.add_candidates(id, ufrag, candidates).await? {
        Ok(()) => Ok(StatusCode::NO_CONTENT),
        Err(error @ CandidateError::NoSuchViewer(_)) => Err(Failure(StatusCode::NOT_FOUND, error.to_string())),
        Err(error @ CandidateError::Restart) => Err(Failure(StatusCode::UNPROCESSABLE_ENTITY, error.to_string())),
        Err(error @ CandidateError::Invalid { .. }) => Err(Failure(StatusCode::BAD_REQUEST, error.to_string())),
    }
}

pub(super) async fn hang_up(
    State(api): State<Arc<Api>>,
    id: Result<Path<String>, PathRejection>,
) -> Result<StatusCode, Failure> {
    let Path(id) = id?;
    if webrtc(&api)?.close(id.clone()).await? {
        Ok(StatusCode::OK)
    } else {
        Err(Failure(StatusCode::NOT_FOUND, CandidateError::NoSuchViewer(id).to_string()))
    }
}

fn webrtc(api: &Api) -> Result<&WebRtcOutput, Failure> {
    api.webrtc.as_deref().ok_or_else(|| {
        let reason = "this server was started without WebRTC: add webrtc to its --transport";
        Failure(StatusCode::SERVICE_UNAVAILABLE, reason.to_owned())
    })
}

async fn accept(api: &Api, arrival: Arrival, sdp: String) -> Result<Accepted, Failure> {
    let local = arrival.local.ok_or_else(|| Failure::internal("the connection has no local address"))?;
    webrtc(api)?.offer(sdp, local.ip()).await?.map_err(|error| {
        let remedy = match &error {
            AcceptError::Offer(OfferError::NoCodec { offered, .. }) => remedy(api, local.ip(), *offered),
            _ => String::new(),
        };
        let status = match &error {
            AcceptError::Offer(OfferError::NotSdp(_)) | AcceptError::Core(_) => StatusCode::BAD_REQUEST,
            AcceptError::Offer(_) => StatusCode::UNPROCESSABLE_ENTITY,
            AcceptError::Full(_) => StatusCode::SERVICE_UNAVAILABLE,
        };
        Failure(status, format!("{error}{remedy}"))
    })
}

/// What a viewer that cannot decode the stream may do; `offered` is what it could decode. `local` is the address by which it
/// came.
fn remedy(api: &Api, local: IpAddr, offered: Option<Codec>) -> String {
    let rtsp = api
        .rtsp
        .as_ref()
        .map(|rtsp| format!("watch by RTSP (rtsp://{local}:{}{})", rtsp.info().port, rtsp.info().path));
    let restart = match offered {
        Some(codec) => format!("start the server with --codec {codec}"),
        None => "use a viewer that can decode it".to_owned(),
    };
    format!(": {}", rtsp.into_iter().chain([restart]).collect::<Vec<_>>().join(" or "))
}

fn etag(id: &str) -> String {
    format!("\"{id}\"")
}

fn location(id: &str) -> Result<HeaderValue, Failure> {
    HeaderValue::from_str(&format!("{WHEP_PATH}/{id}")).map_err(Failure::internal)
}
