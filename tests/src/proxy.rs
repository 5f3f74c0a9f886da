//! An HTTP server in front of rov-server: it serves a page, passes everything else on, and can lead the media through a
//! [`Network`], by putting the port of a [`Relay`] into the server's answers.

use std::convert::Infallible;
use std::io::Read;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, post};
use futures_util::stream;
use rov_common::api::{RING_PICTURES_PATH, WHEP_PATH};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::http;
use crate::relay::{Network, Relay};

/// Ends when it is dropped.
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    _stop: DropGuard,
}

struct Shared {
    server: SocketAddr,
    /// In front of the paths of the server.
    prefix: &'static str,
    page: &'static str,
    network: Option<Arc<Network>>,
    seen: Mutex<Seen>,
}

/// What came through.
#[derive(Default)]
struct Seen {
    relays: Vec<Relay>,
    exchanges: Vec<Exchange>,
    results: Vec<Value>,
    requests: Vec<(Method, String, u16)>,
}

/// An offer of a viewer, and the server's answer, both as their senders wrote them.
#[derive(Clone, Debug)]
pub struct Exchange {
    pub offer: String,
    pub answer: String,
    /// The path of the session.
    pub session: String,
}

impl Proxy {
    /// In front of the server whose HTTP API is at `server`; `page` is what `/` shows; if empty, the
    /// server's own.
    pub fn start(runtime: &Runtime, server: SocketAddr, page: &'static str, network: Option<Arc<Network>>) -> Self {
        Self::run(runtime, Shared { server, prefix: "", page, network, seen: Mutex::default() })
    }

    /// In front of several servers, as it were: of this one under paths that begin with `prefix`, and of none under
    /// others.
    pub fn start_under(runtime: &Runtime, prefix: &'static str, server: SocketAddr) -> Self {
        Self::run(runtime, Shared { server, prefix, page: "", network: None, seen: Mutex::default() })
    }

    fn run(runtime: &Runtime, shared: Shared) -> Self {
        let page = shared.page;
        let shared = Arc::new(shared);
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a TCP socket");
        let address = listener.local_addr().expect("its address");
        let app = if page.is_empty() { Router::new() } else { Router::new().route("/", get(page_of)) };
        let app = app.route("/result", post(result)).fallback(pass_on).with_state(Arc::clone(&shared));
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        runtime.spawn(async move {
            tokio::select! {
                served = axum::serve(listener, app) => served.expect("the proxy's HTTP server"),
                () = stopped.cancelled() => {}
            }
        });
        Self { address, shared, _stop: stop.drop_guard() }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Offers and answers so far.
    pub fn exchanges(&self) -> Vec<Exchange> {
        self.shared.seen().exchanges.clone()
    }

    /// Method, path and status of all requests that were passed on so far.
    pub fn requests(&self) -> Vec<(Method, String, u16)> {
        self.shared.seen().requests.clone()
    }

    /// What the page posted to `/result` so far.
    pub fn results(&self) -> Vec<Value> {
        self.shared.seen().results.clone()
    }
}

impl Shared {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn page_of(State(shared): State<Arc<Shared>>) -> Html<&'static str> {
    Html(shared.page)
}

async fn result(State(shared): State<Arc<Shared>>, body: String) -> Result<StatusCode, (StatusCode, String)> {
    let value = serde_json::from_str(&body).map_err(|e| (StatusCode::BAD_REQUEST, e.to_string()))?;
    shared.seen().results.push(value);
    Ok(StatusCode::NO_CONTENT)
}

async fn pass_on(
    State(shared): State<Arc<Shared>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, (StatusCode, String)> {
    let failed = |error: String| (StatusCode::BAD_GATEWAY, error);
    // Over a link that is down nothing comes, not even an error; whoever asked gives up.
    while shared.network.as_ref().is_some_and(|network| network.is_down()) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // A connection is there already: each request takes one round trip.
    let (there, back) = shared.network.as_ref().map(|network| network.delays(&mut rand::rng())).unwrap_or_default();
    tokio::time::sleep(there).await;
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let Some(path) = path.strip_prefix(shared.prefix).map(str::to_owned) else {
        return Err((StatusCode::NOT_FOUND, format!("no server is at {path}")));
    };
    if path.starts_with(RING_PICTURES_PATH) {
        return give_on(&shared, &path).await.map_err(failed);
    }
    let is_offer = method == Method::POST && path.starts_with(WHEP_PATH);
    let text = String::from_utf8_lossy(&body).into_owned();
    // Over a network that loses packets, the server learns the viewer's address from its checks alone: it would find
    // the short way otherwise.
    let names_candidates = is_offer || method == Method::PATCH;
    let sent = if names_candidates && shared.network.is_some() {
        without_candidates(&text).into_bytes()
    } else {
        body.to_vec()
    };
    let url = format!("http://{}{path}", shared.server);
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let name = method.to_string();
    let asked = tokio::task::spawn_blocking(move || http::try_request(&name, &url, content_type.as_deref(), &sent));
    let mut reply = asked.await.map_err(|e| failed(e.to_string()))?.map_err(|e| failed(e.to_string()))?;
    tokio::time::sleep(back).await;
    shared.seen().requests.push((method, path, reply.status));
    if is_offer && reply.status == 201 {
        let session = reply.location().path().to_owned();
        shared.seen().exchanges.push(Exchange { offer: text, answer: reply.body.clone(), session });
        if let Some(network) = &shared.network {
            let (answer, relay) = rerouted(&reply.body, network).map_err(failed)?;
            reply.body = answer;
            shared.seen().relays.push(relay);
        }
    }
    let status = StatusCode::from_u16(reply.status).map_err(|e| failed(e.to_string()))?;
    let mut response = (status, reply.body).into_response();
    for name in [header::CONTENT_TYPE, header::LOCATION, header::ETAG] {
        if let Some(value) = reply.headers.get(&name) {
            response.headers_mut().insert(name, value.clone());
        }
    }
    Ok(response)
}

/// An answer that comes slowly, as it comes; nothing of it while the link is down.
async fn give_on(shared: &Arc<Shared>, path: &str) -> Result<Response, String> {
    let (url, network) = (format!("http://{}{path}", shared.server), shared.network.clone());
    let asked = tokio::task::spawn_blocking(move || http::open(&url).map_err(|e| e.to_string()));
    let (status, headers, mut body) = asked.await.map_err(|e| e.to_string())??;
    shared.seen().requests.push((Method::GET, path.to_owned(), status));
    let (send, receive) = tokio::sync::mpsc::channel(1);
    std::thread::spawn(move || {
        let mut piece = [0; 4096];
        while let Ok(length @ 1..) = body.read(&mut piece) {
            while network.as_ref().is_some_and(|network| network.is_down()) {
                std::thread::sleep(Duration::from_millis(5));
            }
            if send.blocking_send(Ok::<_, Infallible>(Bytes::copy_from_slice(&piece[..length]))).is_err() {
                return;
            }
        }
    });
    let pieces = stream::unfold(receive, async |mut receive| Some((receive.recv().await?, receive)));
    let mut response = Body::from_stream(pieces).into_response();
    *response.status_mut() = StatusCode::from_u16(status).map_err(|e| e.to_string())?;
    for name in [header::CONTENT_TYPE, header::CONTENT_LENGTH] {
        if let Some(value) = headers.get(&name) {
            response.headers_mut().insert(name, value.clone());
        }
    }
    Ok(response)
}

/// The answer with a relay in the place of the server's socket.
fn rerouted(answer: &str, network: &Arc<Network>) -> Result<(String, Relay), String> {
    let mut relay = None;
    let mut lines = Vec::new();
    for line in answer.lines() {
        let mut fields: Vec<&str> = line.split(' ').collect();
        if !line.starts_with("a=candidate:") {
            lines.push(line.to_owned());
        } else if relay.is_none() {
            // RFC 8839 section 5.1: foundation, component, transport, priority, address, port.
            let (Some(ip), Some(port)) = (fields.get(4), fields.get(5)) else { return Err(line.to_owned()) };
            let server = format!("{ip}:{port}").parse().map_err(|e| format!("{line}: {e}"))?;
            let relay = relay.insert(Relay::start(server, Arc::clone(network)).map_err(|e| e.to_string())?);
            let port = relay.port().to_string();
            fields[5] = &port;
            lines.push(fields.join(" "));
        }
    }
    let relay = relay.ok_or("the answer has no candidate")?;
    Ok((lines.join("\r\n") + "\r\n", relay))
}

fn without_candidates(offer: &str) -> String {
    offer.lines().filter(|line| !line.starts_with("a=candidate:")).flat_map(|line| [line, "\r\n"]).collect()
}
