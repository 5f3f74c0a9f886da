//! Signalling: WHEP (draft-ietf-wish-whep) by HTTP, and the server's own statistics.

mod bound;
mod pins;

use std::time::{Duration, Instant};

use rov_common::api::{ErrorBody, Stats, public_id};
use thiserror::Error;
use ureq::unversioned::resolver::DefaultResolver;
use ureq::unversioned::transport::{Connector, TcpConnector};
use url::Url;

use self::bound::BoundConnector;
use self::pins::PinnedConnector;
pub use self::pins::{Changed, Pins};
use crate::login::Login;

/// Attempts to connect, one after the other. The system repeats a lost SYN after a second, which is long for a LAN.
const CONNECT_TIMEOUTS: [Duration; 3] =
    [Duration::from_millis(250), Duration::from_millis(500), Duration::from_millis(1_250)];
const OFFER_TIMEOUT: Duration = Duration::from_secs(5);
const STATS_TIMEOUT: Duration = Duration::from_millis(1_000);
const MAX_REDIRECTS: usize = 3;
/// Answers are some kilobytes.
const LARGEST_REPLY: u64 = 256 << 10;

#[derive(Debug, Error)]
pub enum WhepError {
    #[error("{} does not answer: {reason}", without_user(url))]
    Unreachable { url: Url, reason: String },
    #[error("no server listens at {}: connection refused", without_user(url))]
    Closed { url: Url },
    #[error(
        "{} wants a user name and a password: give --user, and the password by the variable ROV_PASSWORD, or a token by the \
         variable ROV_TOKEN",
        without_user(url)
    )]
    NoLogin { url: Url },
    #[error(
        "{} refused the user name or the password: correct --user and --password (or the variable ROV_PASSWORD), or --token \
         (ROV_TOKEN)",
        without_user(url)
    )]
    WrongLogin { url: Url },
    #[error("{0}")]
    Changed(Changed),
    #[error("{} refused the offer ({status}): {reason}", without_user(url))]
    Refused { url: Url, status: u16, reason: String },
    #[error("{} answered, but not as WHEP: {reason}", without_user(url))]
    NotWhep { url: Url, reason: String },
}

/// The URL for people: a user name and a password in it are nobody else's business.
pub fn without_user(url: &Url) -> Url {
    let mut url = url.clone();
    // Both fail for URLs without a host only, which have neither.
    let _ = (url.set_username(""), url.set_password(None));
    url
}

/// How servers are asked.
#[derive(Clone, Debug, Default)]
pub struct Http {
    /// Network interfaces to connect by; empty: as the system routes.
    pub interfaces: Vec<String>,
    /// For servers that ask for one, where it does not stand in the URL.
    pub login: Option<Login>,
    pub pins: Pins,
}

impl Http {
    /// The login for `url`.
    fn login_for(&self, url: &Url) -> Option<String> {
        self.login.as_ref().filter(|_| url.username().is_empty() && url.password().is_none()).map(Login::header)
    }

    fn is_login_given(&self, url: &Url) -> bool {
        self.login.is_some() || !url.username().is_empty() || url.password().is_some()
    }

    fn no_answer(&self, url: &Url, error: &ureq::Error) -> WhepError {
        let address = url.host_str().zip(url.port_or_known_default()).map(|(host, port)| format!("{host}:{port}"));
        match address.filter(|_| url.scheme() == "https").and_then(|address| self.pins.changed(&address)) {
            Some(changed) => WhepError::Changed(changed),
            None => no_answer(url, error),
        }
    }

    /// A server that wants another login.
    fn denied(&self, url: &Url) -> WhepError {
        match self.is_login_given(url) {
            true => WhepError::WrongLogin { url: url.clone() },
            false => WhepError::NoLogin { url: url.clone() },
        }
    }
}

fn by<B>(request: ureq::RequestBuilder<B>, login: Option<&str>) -> ureq::RequestBuilder<B> {
    match login {
        Some(login) => request.header("Authorization", login),
        None => request,
    }
}

/// A session that the server has accepted.
#[derive(Clone, Debug)]
pub struct Answer {
    pub sdp: String,
    /// The session's own URL, to end it by DELETE.
    pub resource: Option<Url>,
}

impl Answer {
    /// The server's name for this viewer in its statistics, which the last part of the session's URL begins with.
    pub fn viewer_id(&self) -> Option<&str> {
        self.resource.as_ref()?.path_segments()?.next_back().map(public_id)
    }
}

/// Offers `sdp` to the WHEP endpoint `url`.
pub async fn offer(url: Url, sdp: String, http: &Http) -> Result<Answer, WhepError> {
    let http = http.clone();
    blocking(move || offer_blocking(&url, &sdp, &http)).await
}

/// Tells the server that this session has ended. Best effort: a server that is gone has ended it anyway.
pub async fn delete(resource: Url, http: &Http) -> Result<(), WhepError> {
    let http = http.clone();
    blocking(move || {
        let login = http.login_for(&resource);
        let reply = ask(STATS_TIMEOUT, &http, |agent| by(agent.delete(resource.as_str()), login.as_deref()).call());
        reply.map(drop).map_err(|e| http.no_answer(&resource, &e))
    })
    .await
}

/// `GET /api/stats` of a rov-server.
pub async fn stats(url: Url, http: &Http) -> Result<Stats, WhepError> {
    let http = http.clone();
    blocking(move || {
        let login = http.login_for(&url);
        let reply = ask(STATS_TIMEOUT, &http, |agent| by(agent.get(url.as_str()), login.as_deref()).call());
        let mut reply = reply.map_err(|e| http.no_answer(&url, &e))?;
        let text = body(&mut reply, &url)?;
        match reply.status().as_u16() {
            200..=299 => serde_json::from_str(&text).map_err(|e| WhepError::NotWhep { url, reason: e.to_string() }),
            401 => Err(http.denied(&url)),
            status => Err(WhepError::Refused { url, status, reason: error_text(&text) }),
        }
    })
    .await
}

fn no_answer(url: &Url, error: &ureq::Error) -> WhepError {
    match error {
        ureq::Error::Io(io) if io.kind() == std::io::ErrorKind::ConnectionRefused => {
            WhepError::Closed { url: url.clone() }
        }
        other => WhepError::Unreachable { url: url.clone(), reason: other.to_string() },
    }
}

/// Follows redirections of the POST as WHEP wants it: with method and body kept (RFC 9110 sections 15.4.8 and 15.4.9).
fn offer_blocking(url: &Url, sdp: &str, http: &Http) -> Result<Answer, WhepError> {
    let (mut url, asked) = (url.clone(), url.origin());
    for _ in 0..=MAX_REDIRECTS {
        // What was meant for one server is not for another to which it leads.
        let login = if url.origin() == asked { http.login.clone() } else { None };
        match post_offer(&url, sdp, &Http { login, ..http.clone() })? {
            Posted::Answer(answer) => return Ok(answer),
            Posted::MovedTo(to) => url = to,
        }
    }
    Err(WhepError::NotWhep { url, reason: format!("it redirected more than {MAX_REDIRECTS} times") })
}

enum Posted {
    Answer(Answer),
    MovedTo(Url),
}

fn post_offer(url: &Url, sdp: &str, http: &Http) -> Result<Posted, WhepError> {
    let login = http.login_for(url);
    let reply = ask(OFFER_TIMEOUT, http, |agent| {
        let request = by(agent.post(url.as_str()), login.as_deref()).header("Content-Type", "application/sdp");
        request.header("Accept", "application/sdp").send(sdp)
    });
    let mut reply = reply.map_err(|e| http.no_answer(url, &e))?;
    let status = reply.status().as_u16();
    let location = reply
        .headers()
        .get("location")
        .and_then(|value| value.to_str().ok())
        .and_then(|location| url.join(location).ok());
    let text = body(&mut reply, url)?;
    match status {
        201 if text.starts_with("v=0") => Ok(Posted::Answer(Answer { sdp: text, resource: location })),
        307 | 308 if let Some(to) = location => Ok(Posted::MovedTo(to)),
        401 => Err(http.denied(url)),
        200..=299 => Err(WhepError::NotWhep { url: url.clone(), reason: format!("{status} without an SDP answer") }),
        _ => Err(WhepError::Refused { url: url.clone(), status, reason: error_text(&text) }),
    }
}

fn body(reply: &mut ureq::http::Response<ureq::Body>, url: &Url) -> Result<String, WhepError> {
    reply
        .body_mut()
        .with_config()
        .limit(LARGEST_REPLY)
        .read_to_string()
        .map_err(|e| WhepError::NotWhep { url: url.clone(), reason: e.to_string() })
}

/// What the server says of the error: its JSON, else the first line of the text.
fn error_text(body: &str) -> String {
    match serde_json::from_str::<ErrorBody>(body) {
        Ok(body) => body.error,
        Err(_) => body.lines().next().unwrap_or("no reason given").chars().take(200).collect(),
    }
}

/// Nothing was sent where the connection was not made, so that another attempt repeats nothing.
fn ask<T>(
    timeout: Duration,
    http: &Http,
    request: impl Fn(&ureq::Agent) -> Result<T, ureq::Error>,
) -> Result<T, ureq::Error> {
    let end = Instant::now() + timeout;
    let mut connect_timeouts = CONNECT_TIMEOUTS.into_iter().peekable();
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let connect = connect_timeouts.next().unwrap_or(left);
        let reply = request(&agent(left, connect.min(left), http));
        let is_late = left <= connect || connect_timeouts.peek().is_none();
        match reply {
            Err(ureq::Error::Timeout(ureq::Timeout::Connect)) if !is_late => {}
            reply => return reply,
        }
    }
}

fn agent(timeout: Duration, connect_timeout: Duration, http: &Http) -> ureq::Agent {
    let config = ureq::Agent::config_builder()
        .timeout_connect(Some(connect_timeout))
        .timeout_global(Some(timeout))
        .http_status_as_error(false)
        // A proxy of the environment does not lead to a vehicle on the LAN.
        .proxy(None)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .build();
    let (tls, resolver) = (PinnedConnector(http.pins.clone()), DefaultResolver::default());
    if http.interfaces.is_empty() {
        return ureq::Agent::with_parts(config, ().chain(TcpConnector::default()).chain(tls), resolver);
    }
    let bound = BoundConnector { interfaces: http.interfaces.clone() };
    ureq::Agent::with_parts(config, ().chain(bound).chain(tls), resolver)
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, WhepError> + Send + 'static,
) -> Result<T, WhepError> {
    // The work has limits of its own; it fails to join only when it panicked.
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_of_an_error_is_taken_from_json_or_text() {
        assert_eq!(error_text(r#"{"error":"no H.264"}"#), "no H.264");
        assert_eq!(error_text("Not Found\nmore"), "Not Found");
        assert_eq!(error_text(""), "no reason given");
    }

    #[test]
    fn no_error_says_the_password_of_the_url() {
        let url = Url::parse("http://me:secret@10.0.0.2:8080/whep").expect("a URL");
        let (status, reason) = (401, String::new());
        for error in [
            WhepError::Unreachable { url: url.clone(), reason: reason.clone() },
            WhepError::Closed { url: url.clone() },
            WhepError::Refused { url: url.clone(), status, reason: reason.clone() },
            WhepError::NotWhep { url: url.clone(), reason },
            WhepError::NoLogin { url: url.clone() },
            WhepError::WrongLogin { url },
        ] {
            let text = error.to_string();
            assert!(text.contains("http://10.0.0.2:8080/whep") && !text.contains("secret"), "{text}");
        }
    }

    #[test]
    fn the_viewer_id_is_the_public_part_of_the_resource() {
        let resource = Url::parse("http://10.0.0.2:8080/whep/abc-5ec3e7").expect("a URL");
        let answer = Answer { sdp: String::new(), resource: Some(resource) };
        assert_eq!(answer.viewer_id(), Some("abc"));
    }
}
