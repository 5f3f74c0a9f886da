//! SDP offer and answer, plain and by WHEP (draft-ietf-wish-whep-03).

use std::net::IpAddr;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{ConnectInfo, Path, Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use rov_common::api::{ErrorBody, MJPEG_PATH, SessionDescription, WHEP_PATH};
use rov_common::codec::Codec;
use rov_common::discovery::RtspInfo;

use super::access::{Access, asked_address, is_trusted};
use super::failure::{Failure, expect_type, text};
use super::{Api, Arrival, Choice};
use crate::config::links;
use crate::output::webrtc::{AcceptError, Accepted, CandidateError, Fragment, OfferError, WebRtcOutput};

const JSON_TYPE: &str = "application/json";
const SDP_TYPE: &str = "application/sdp";
const SDPFRAG_TYPE: &str = "application/trickle-ice-sdpfrag";

pub(super) async fn offer(
    State(api): State<Arc<Api>>,
    Extension(access): Extension<Arc<Access>>,
    ConnectInfo(arrival): ConnectInfo<Arrival>,
    choice: Result<Query<Choice>, QueryRejection>,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Failure> {
    // As text, as `fetch` sends it by itself, any page could send it: for JSON browsers ask first, and are not allowed.
    if !(may_be_text(&headers) && is_trusted(&headers, &access)) {
        expect_type(&headers, JSON_TYPE)?;
    }
    let offer: SessionDescription = serde_json::from_slice(&body).map_err(|e| {
        Failure(StatusCode::BAD_REQUEST, format!("the body is not {{\"type\":\"offer\",\"sdp\":\"...\"}}: {e}"))
    })?;
    if offer.kind != "offer" {
        return Err(Failure(StatusCode::BAD_REQUEST, format!("type is {:?}, not \"offer\"", offer.kind)));
    }
    let stream = Choice::of(choice, &api.streams)?;
    if let Some(refusal) = refusal_of_mjpeg(&api, stream, arrival) {
        return Ok(refusal);
    }
    let accepted = accept(&api, stream, arrival, &headers, offer.sdp).await?;
    let answer = SessionDescription { kind: "answer".to_owned(), sdp: accepted.sdp };
    Ok(([(header::LOCATION, location(&uri, &accepted.id)?)], Json(answer)).into_response())
}

/// The stream's name is the rest of the path, of one segment or two, or in `?stream=`.
pub(super) async fn whep(
    State(api): State<Arc<Api>>,
    ConnectInfo(arrival): ConnectInfo<Arrival>,
    name: Result<Option<Path<Vec<String>>>, PathRejection>,
    choice: Result<Query<Choice>, QueryRejection>,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Failure> {
    expect_type(&headers, SDP_TYPE)?;
    let stream = match name?.map(|Path(segments)| segments.join("/")).filter(|name| !name.is_empty()) {
        Some(name) => api.streams.find(Some(&name))?,
        None => Choice::of(choice, &api.streams)?,
    };
    if let Some(refusal) = refusal_of_mjpeg(&api, stream, arrival) {
        return Ok(refusal);
    }
    let accepted = accept(&api, stream, arrival, &headers, text(body)?).await?;
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(SDP_TYPE)),
        (header::LOCATION, location(&uri, &accepted.id)?),
        (header::ETAG, HeaderValue::from_str(&accepted.entity_tag).map_err(Failure::internal)?),
        (header::HeaderName::from_static("accept-patch"), HeaderValue::from_static(SDPFRAG_TYPE)),
    ];
    let mut response = (StatusCode::CREATED, headers, accepted.sdp).into_response();
    for link in links(&api.settings.ice_servers()) {
        response.headers_mut().append(header::LINK, HeaderValue::from_str(&link).map_err(Failure::internal)?);
    }
    Ok(response)
}

/// What can be done here; nothing of it by pages of other origins.
pub(super) async fn whep_options() -> impl IntoResponse {
    let accept = (header::HeaderName::from_static("accept-post"), HeaderValue::from_static(SDP_TYPE));
    (StatusCode::NO_CONTENT, [accept, (header::ALLOW, HeaderValue::from_static("POST, OPTIONS"))])
}

/// Trickled candidates, or an ICE restart (RFC 8840, RFC 9725 section 4.3).
pub(super) async fn modify(
    State(api): State<Arc<Api>>,
    id: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Failure> {
    let Path(id) = id?;
    expect_type(&headers, SDPFRAG_TYPE)?;
    // Whoever says nothing means what there is.
    let tag = headers.get(header::IF_MATCH).map_or(Ok("*"), HeaderValue::to_str);
    let tag = tag.map_err(|error| Failure(StatusCode::BAD_REQUEST, format!("If-Match: {error}")))?.to_owned();
    let fragment = Fragment::parse(&text(body)?);
    if fragment.candidates.is_empty() && fragment.ufrag.is_empty() && !fragment.is_last {
        return Err(Failure(StatusCode::BAD_REQUEST, "the fragment has no `a=candidate` line (RFC 8840)".to_owned()));
    }
    match webrtc(&api)?.patch(id, tag, fragment).await? {
        Ok(None) => Ok(StatusCode::NO_CONTENT.into_response()),
        Ok(Some(restarted)) => {
            let headers = [
                (header::CONTENT_TYPE, HeaderValue::from_static(SDPFRAG_TYPE)),
                (header::ETAG, HeaderValue::from_str(&restarted.entity_tag).map_err(Failure::internal)?),
            ];
            Ok((headers, restarted.sdp_fragment).into_response())
        }
        Err(error) => {
            let status = match &error {
                CandidateError::NoSuchViewer(_) => StatusCode::NOT_FOUND,
                CandidateError::NotCurrent => StatusCode::PRECONDITION_FAILED,
                CandidateError::NoPassword | CandidateError::Invalid { .. } => StatusCode::BAD_REQUEST,
                CandidateError::Restart(_) => StatusCode::UNPROCESSABLE_ENTITY,
            };
            Err(Failure(status, error.to_string()))
        }
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
    api.outputs.webrtc.as_deref().ok_or_else(|| {
        let reason = "this server was started without WebRTC: add webrtc to its --transport";
        Failure(StatusCode::SERVICE_UNAVAILABLE, reason.to_owned())
    })
}

async fn accept(
    api: &Api,
    stream: usize,
    arrival: Arrival,
    headers: &HeaderMap,
    sdp: String,
) -> Result<Accepted, Failure> {
    let local = arrival.local.ok_or_else(|| Failure::internal("the connection has no local address"))?;
    let asked = asked_address(headers, arrival.peer);
    webrtc(api)?.offer(stream, sdp, arrival.peer, local.ip(), asked).await?.map_err(|error| {
        let remedy = match &error {
            AcceptError::Offer(OfferError::NoCodec { offered, .. }) => remedy(api, stream, local.ip(), *offered),
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

/// What a viewer that cannot decode the stream may do; `offered` is what it could decode. `local` is the address by
/// which it came.
fn remedy(api: &Api, stream: usize, local: IpAddr, offered: Option<Codec>) -> String {
    let rtsp = rtsp_url(api, stream, local).map(|url| format!("watch by RTSP ({url})"));
    let restart = match offered {
        Some(codec) => format!("start the server with --codec {codec}"),
        None => "use a viewer that can decode it".to_owned(),
    };
    format!(": {}", rtsp.into_iter().chain([restart]).collect::<Vec<_>>().join(" or "))
}

fn rtsp_url(api: &Api, stream: usize, local: IpAddr) -> Option<String> {
    let RtspInfo { port, path } = api.outputs.rtsp.as_ref()?.info(stream);
    Some(format!("rtsp://{local}:{port}{path}"))
}

/// There is no session for a stream of MJPEG; it says what to open in its place.
fn refusal_of_mjpeg(api: &Api, stream: usize, arrival: Arrival) -> Option<Response> {
    let (name, codec) = (api.streams[stream].name(), api.streams[stream].codec());
    let local = arrival.local.filter(|_| codec == Codec::Mjpeg)?;
    // With TLS it leads to where it is.
    let http = format!("http://{local}{MJPEG_PATH}?stream={name}");
    let ways: Vec<_> = std::iter::once(http).chain(rtsp_url(api, stream, local.ip())).collect();
    let error = format!("this stream is MJPEG, which WebRTC does not carry: open {}", ways.join(" or "));
    let body = ErrorBody { error, field: None, mjpeg: true };
    Some((StatusCode::UNPROCESSABLE_ENTITY, Json(body)).into_response())
}

/// Text, or nothing said.
fn may_be_text(headers: &HeaderMap) -> bool {
    !headers.contains_key(header::CONTENT_TYPE) || expect_type(headers, "text/plain").is_ok()
}

/// The session's URL, relative to that of the request: a proxy may have put a path in front of it.
fn location(request: &Uri, id: &str) -> Result<HeaderValue, Failure> {
    let up = "../".repeat(request.path().matches('/').count().saturating_sub(1));
    HeaderValue::from_str(&format!("{up}{}/{id}", WHEP_PATH.trim_start_matches('/'))).map_err(Failure::internal)
}

#[cfg(test)]
mod tests {
    use url::Url;

    use super::*;

    #[test]
    fn the_location_leads_to_the_session_behind_a_proxy_too() {
        for (request, asked) in [
            ("/whep", "http://10.0.0.2:8080/whep"),
            ("/whep?stream=a/b", "http://10.0.0.2:8080/whep?stream=a/b"),
            ("/whep/stream2", "http://10.0.0.2:8080/whep/stream2"),
            ("/whep/cam2/stream1", "http://10.0.0.2:8080/whep/cam2/stream1"),
            ("/whep/cam2%2Fstream1", "http://10.0.0.2:8080/whep/cam2%2Fstream1"),
            ("/offer", "http://10.0.0.2:8080/offer"),
            ("/api/webrtc/offer", "http://10.0.0.2:8080/api/webrtc/offer"),
        ] {
            let Ok(location) = location(&request.parse().expect("a path"), "5-x") else { panic!("{request}") };
            let location = location.to_str().expect("text");
            for (prefix, session) in [("", "/whep/5-x"), ("/boats/rov1", "/boats/rov1/whep/5-x")] {
                let asked = Url::parse(&asked.replace("8080", &format!("8080{prefix}"))).expect("a URL");
                assert_eq!(asked.join(location).expect("a URL").path(), session, "{asked}");
            }
        }
    }
}
