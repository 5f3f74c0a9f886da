//! A small HTTP client, for tests alone: any status is an answer, and only a missing answer is a failure.

use std::io::Read;
use std::net::SocketAddr;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rov_common::api::{ErrorBody, Health, Stats};
use serde_json::Value;
use ureq::http::{HeaderMap, Request};
use url::Url;

const TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub struct Reply {
    /// What was asked for.
    pub url: String,
    pub status: u16,
    pub headers: HeaderMap,
    pub body: String,
}

impl Reply {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("")
    }

    /// The URL that `Location` leads to, as clients resolve it.
    pub fn location(&self) -> Url {
        let asked = Url::parse(&self.url).expect("a URL");
        asked.join(self.header("location")).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The message of the JSON error that it must hold.
    pub fn error(&self) -> String {
        assert!(self.header("content-type").starts_with("application/json"), "an error that is not JSON: {self:?}");
        serde_json::from_str::<ErrorBody>(&self.body).unwrap_or_else(|e| panic!("{e}: {self:?}")).error
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }
}

/// Sends one request, without a body when `body` is empty.
pub fn try_request(method: &str, url: &str, content_type: Option<&str>, body: &[u8]) -> Result<Reply, ureq::Error> {
    let headers: Vec<_> = content_type.map(|value| ("Content-Type", value)).into_iter().collect();
    send(method, url, &headers, body)
}

fn send(method: &str, url: &str, headers: &[(&str, &str)], body: &[u8]) -> Result<Reply, ureq::Error> {
    send_with(method, url, headers, body, 10)
}

fn send_with(
    method: &str,
    url: &str,
    headers: &[(&str, &str)],
    body: &[u8],
    redirects: u32,
) -> Result<Reply, ureq::Error> {
    let mut request = Request::builder().method(method).uri(url);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let agent = ureq::Agent::config_builder()
        .timeout_global(Some(TIMEOUT))
        .http_status_as_error(false)
        .max_redirects(redirects)
        .max_redirects_will_error(false)
        .allow_non_standard_methods(true)
        .proxy(None)
        .build()
        .new_agent();
    let mut reply = if body.is_empty() {
        agent.run(request.body(()).expect("a valid request"))
    } else {
        agent.run(request.body(body).expect("a valid request"))
    }?;
    let text = reply.body_mut().read_to_string()?;
    Ok(Reply { url: url.to_owned(), status: reply.status().as_u16(), headers: reply.headers().clone(), body: text })
}

/// Sends one GET, and gives what comes while it comes, however long that takes.
pub fn open(url: &str) -> Result<(u16, HeaderMap, impl Read + use<>), ureq::Error> {
    let config = ureq::Agent::config_builder().timeout_recv_response(Some(TIMEOUT)).http_status_as_error(false);
    let reply = config.proxy(None).build().new_agent().get(url).call()?;
    let (head, body) = reply.into_parts();
    Ok((head.status.as_u16(), head.headers, body.into_reader()))
}

/// As [`try_request`].
///
/// # Panics
/// When there is no answer.
pub fn request(method: &str, url: &str, content_type: Option<&str>, body: &[u8]) -> Reply {
    try_request(method, url, content_type, body).unwrap_or_else(|error| panic!("{method} {url}: {error}"))
}

/// As [`request`], with these headers.
pub fn request_with(method: &str, url: &str, headers: &[(&str, &str)], body: &[u8]) -> Reply {
    send(method, url, headers, body).unwrap_or_else(|error| panic!("{method} {url}: {error}"))
}

pub fn get(url: &str) -> Reply {
    request("GET", url, None, b"")
}

/// GET that follows no redirection.
pub fn get_here(url: &str) -> Reply {
    send_with("GET", url, &[], b"", 0).unwrap_or_else(|error| panic!("{url}: {error}"))
}

/// GET with `If-None-Match`, as for what a browser has already.
pub fn get_if_none_match(url: &str, etag: &str) -> Reply {
    send("GET", url, &[("If-None-Match", etag)], b"").unwrap_or_else(|error| panic!("{url}: {error}"))
}

/// PATCH of what has the entity tag `etag`, or `*`.
pub fn patch(url: &str, content_type: &str, etag: &str, body: &str) -> Reply {
    let headers = [("Content-Type", content_type), ("If-Match", etag)];
    send("PATCH", url, &headers, body.as_bytes()).unwrap_or_else(|error| panic!("PATCH {url}: {error}"))
}

/// The value of `Authorization` for a name and a password.
pub fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

/// GET with this `Authorization`, if there is one.
pub fn get_as(url: &str, login: Option<&str>) -> Reply {
    let headers: Vec<_> = login.map(|login| ("Authorization", login)).into_iter().collect();
    request_with("GET", url, &headers, b"")
}

/// `GET /api/stats` of the server at `address`.
pub fn stats(address: SocketAddr) -> Stats {
    stats_as(address, None)
}

/// As [`stats`], with this `Authorization`.
pub fn stats_as(address: SocketAddr, login: Option<&str>) -> Stats {
    let reply = get_as(&format!("http://{address}/api/stats"), login);
    assert_eq!(reply.status, 200, "{reply:?}");
    serde_json::from_str(&reply.body).unwrap_or_else(|e| panic!("{e}: {reply:?}"))
}

/// `GET /healthz`, with its status.
pub fn health(address: SocketAddr) -> (u16, Health) {
    health_as(address, None)
}

/// As [`health`], with this `Authorization`.
pub fn health_as(address: SocketAddr, login: Option<&str>) -> (u16, Health) {
    let reply = get_as(&format!("http://{address}/healthz"), login);
    let health = serde_json::from_str(&reply.body).unwrap_or_else(|e| panic!("{e}: {reply:?}"));
    (reply.status, health)
}
