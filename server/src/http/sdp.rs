//! `GET /stream.sdp`: what players open plain RTP with.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::extract::{ConnectInfo, RawQuery, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::failure::Failure;
use super::{Api, Arrival};
use crate::output::rtp::RtpOutput;
use crate::output::rtp::sdp::Description;

/// Of the stream that `?stream=NAME` names, or else the default; of the destination that `?host=ADDRESS` names, or else
/// the first multicast group, or else the first address.
pub(super) async fn sdp(
    State(api): State<Arc<Api>>,
    ConnectInfo(arrival): ConnectInfo<Arrival>,
    RawQuery(query): RawQuery,
) -> Result<Response, Failure> {
    let query = query.unwrap_or_default();
    let at = api.streams.find(value(&query, "stream").as_deref())?;
    let stream = &api.streams[at];
    let rtp = api.outputs.rtp.get(at).ok_or_else(|| {
        let reason =
            "this server does not send RTP: start it with rtp among its --transport, as --transport webrtc,rtp";
        Failure(StatusCode::NOT_FOUND, reason.to_owned())
    })?;
    let host = host(rtp, value(&query, "host"))?;
    let sets = stream.parameter_sets();
    if stream.codec().has_parameter_sets() && sets.sps.is_empty() {
        let why = stream.status().health().1.map(|reason| format!(": {reason}")).unwrap_or_default();
        let reason = format!("there was no keyframe yet, which the description needs: try again in a second{why}");
        return Err(Failure(StatusCode::SERVICE_UNAVAILABLE, reason));
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let description = Description {
        name: &title(&api, at),
        origin: arrival.local.map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |local| local.ip()),
        session: now.saturating_sub(api.started.elapsed().as_secs()),
        version: now,
        host,
        port: rtp.config().port,
        ttl: rtp.config().ttl,
        codec: stream.codec(),
        sets: &sets,
        fps: stream.status().format().1,
    };
    let headers = [
        (header::CONTENT_TYPE, "application/sdp"),
        // Parameter sets change when the pipeline restarts.
        (header::CACHE_CONTROL, "no-store"),
        (header::CONTENT_DISPOSITION, "inline; filename=\"stream.sdp\""),
    ];
    Ok((headers, description.text()).into_response())
}

fn value<'a>(query: &'a str, name: &str) -> Option<Cow<'a, str>> {
    url::form_urlencoded::parse(query.as_bytes()).find(|(key, _)| key == name).map(|(_, value)| value)
}

/// What players show: the server's name, and the stream's where there are several.
fn title(api: &Api, at: usize) -> String {
    if api.streams.len() == 1 { api.name.clone() } else { format!("{} {}", api.name, api.streams[at].name()) }
}

fn host(rtp: &RtpOutput, asked: Option<Cow<'_, str>>) -> Result<Ipv4Addr, Failure> {
    let Some(asked) = asked else { return Ok(rtp.main_host()) };
    let hosts = &rtp.config().hosts;
    hosts.iter().find(|host| asked.parse() == Ok(**host)).copied().ok_or_else(|| {
        let known: Vec<_> = hosts.iter().map(Ipv4Addr::to_string).collect();
        Failure(StatusCode::NOT_FOUND, format!("RTP is not sent to {asked:?}, but to {}", known.join(" and ")))
    })
}
