//! Signalling: WHEP (draft-ietf-wish-whep) by HTTP, and the server's own statistics.

mod bound;
mod pins;

use std::collections::HashSet;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rov_common::api::{CLIENT_TIME, ErrorBody, Stats, public_id};
use rov_common::capture_clock::Captured;
use rov_common::sync::lock;
use serde::de::DeserializeOwned;
use thiserror::Error;
use ureq::config::{Config, ConfigBuilder};
use ureq::http::Response;
use ureq::typestate::AgentScope;
use ureq::unversioned::resolver::DefaultResolver;
use ureq::unversioned::transport::{Connector, TcpConnector};
use url::{Origin, Url};

use self::bound::BoundConnector;
use self::pins::PinnedConnector;
pub use self::pins::{Changed, NO_CERTIFICATE, Pins};
use crate::login::Login;
use crate::receive::rtsp::Camera;
use crate::who::Who;

/// Attempts to connect, one after the other. The system repeats a lost SYN after a second, which is long for a LAN.
const CONNECT_TIMEOUTS: [Duration; 3] =
    [Duration::from_millis(250), Duration::from_millis(500), Duration::from_millis(1_250)];
/// Of what a session begins with: over a slow link HTTPS takes a second, and nothing is shown without.
const BEGIN_TIMEOUT: Duration = Duration::from_secs(5);
/// Of what is asked in a session.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);
/// Of a question over a connection that is kept: longer than a queue on the way.
const TALK_TIMEOUT: Duration = Duration::from_secs(5);
/// Of a connection as a whole, whose head is waited for as for other answers: it is opened again then, as one over a
/// link that is lost shows no end.
const EVENTS_TIMEOUT: Duration = Duration::from_secs(30);
/// Of a clip as a whole: half a minute of what is watched, at the tenth of the link that the server gives for it.
const CLIP_LIMIT: Duration = Duration::from_secs(600);
/// Of an answer that may take long, between two pieces: longer than an outage, as the server holds the rest of it.
const SILENCE: Duration = Duration::from_secs(45);
const MAX_REDIRECTS: usize = 3;
/// Answers are some kilobytes.
const LARGEST_REPLY: u64 = 256 << 10;
/// Servers that asked for a login; then all are forgotten, and asked once more.
const MAX_ASKED: usize = 64;

#[derive(Debug, Error)]
pub enum WhepError {
    #[error("{} does not answer: {reason}", without_user(url))]
    Unreachable { url: Url, reason: String },
    #[error("no server listens at {}: connection refused", without_user(url))]
    Closed { url: Url },
    #[error(
        "{} wants a user name and a password: give --user, and the password by the variable ROV_PASSWORD, or a token \
         by the variable ROV_TOKEN",
        without_user(url)
    )]
    NoLogin { url: Url },
    #[error(
        "{} refused the user name or the password: correct --user and --password (or the variable ROV_PASSWORD), or \
         --token (ROV_TOKEN)",
        without_user(url)
    )]
    WrongLogin { url: Url },
    #[error("{0}")]
    Changed(Changed),
    #[error("{} refused the offer ({status}): {reason}", without_user(url))]
    Refused { url: Url, status: u16, reason: String },
    #[error("{} answered, but not as WHEP: {reason}", without_user(url))]
    NotWhep { url: Url, reason: String },
    #[error("another server answers there by now")]
    OtherServer,
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
    /// Those that asked for a login in clear.
    pub asked: Arc<Mutex<HashSet<Origin>>>,
}

impl Http {
    /// What the user gave for `url`: what stands in it, or else the login.
    fn login_for(&self, url: &Url) -> Option<Login> {
        let own = Camera::from(url.clone()).credentials().cloned().map(Login::Password);
        own.or_else(|| self.login.clone())
    }

    /// Whether the certificate of the server is known.
    pub fn is_pinned(&self, url: &Url) -> bool {
        self.secured(url).scheme() == "https"
    }

    /// Whether the server has shown the right certificate in this run, and has answered since.
    pub fn is_proven(&self, url: &Url) -> bool {
        address_of(url).is_some_and(|address| self.pins.is_proven(&address))
    }

    /// By HTTPS where the server is known to have it.
    pub fn secured(&self, url: &Url) -> Url {
        let mut secured = url.clone();
        let Some(port) = url.port_or_known_default().filter(|_| url.scheme() == "http") else { return secured };
        if address_of(url).is_some_and(|address| self.pins.in_clear(&address).is_some()) {
            // Neither fails for a URL of HTTP with a host.
            let _ = (secured.set_scheme("https"), secured.set_port(Some(port)));
        }
        secured
    }

    fn no_answer(&self, url: &Url, error: &ureq::Error) -> WhepError {
        let address = address_of(url).filter(|_| url.scheme() == "https");
        let is_no_tls = match error {
            ureq::Error::Io(io) => io.kind() == io::ErrorKind::InvalidData,
            ureq::Error::Rustls(_) => true,
            _ => false,
        };
        let changed = address.and_then(|address| {
            // Another may have its address by now.
            self.pins.unproven(&address);
            self.pins.changed(&address).or_else(|| self.pins.in_clear(&address).filter(|_| is_no_tls))
        });
        changed.map_or_else(|| no_answer(url, error), WhepError::Changed)
    }

    /// Asks for `url`, and where that leads (RFC 9110 sections 15.4.8 and 15.4.9): with method and body kept, as WHEP
    /// wants it. Gives the place of the answer, too. `first`: of the server that the user named or found, which alone
    /// is given the login.
    fn ask(
        &self,
        (first, url): (&Url, &Url),
        by: Connection<'_>,
        request: impl Fn(&ureq::Agent, &str, Option<&str>) -> Reply,
    ) -> Result<(Url, Response<ureq::Body>), WhepError> {
        let given = self.login_for(first);
        let mut url = self.secured(url);
        for _ in 0..=MAX_REDIRECTS {
            // What was meant for one server is not for another to which it leads.
            let login = given.as_ref().filter(|_| is_same_server(first, &url)).map(Login::header);
            let bare = without_user(&url);
            let ask = |login: Option<&str>| {
                let ask = |agent: &ureq::Agent| request(agent, bare.as_str(), login);
                let reply = match by {
                    Connection::New(timeout) => ask_anew(timeout, self, ask),
                    Connection::Kept(agent) => ask(agent),
                };
                reply.map_err(|error| self.no_answer(&url, &error))
            };
            let is_asked = url.scheme() == "https" || lock(&self.asked).contains(&url.origin());
            let mut reply = ask(login.as_deref().filter(|_| is_asked))?;
            if reply.status() == 401 && !is_asked && login.is_some() {
                let mut asked = lock(&self.asked);
                if asked.len() >= MAX_ASKED {
                    asked.clear();
                }
                asked.insert(url.origin());
                drop(asked);
                reply = ask(login.as_deref())?;
            }
            let to = location(&url, &reply).filter(|_| matches!(reply.status().as_u16(), 307 | 308));
            match to {
                Some(to) => url = self.secured(&to),
                None if reply.status() != 401 => return Ok((url, reply)),
                None => {
                    let url = without_user(&url);
                    return Err(match given {
                        Some(_) if login.is_none() => {
                            let reason = format!("{} led to it, and its login is not for others", without_user(first));
                            WhepError::Refused { url, status: 401, reason }
                        }
                        Some(_) => WhepError::WrongLogin { url },
                        None => WhepError::NoLogin { url },
                    });
                }
            }
        }
        Err(WhepError::NotWhep { url, reason: format!("it redirected more than {MAX_REDIRECTS} times") })
    }
}

/// By which connection something is asked.
#[derive(Clone, Copy)]
enum Connection<'a> {
    /// One of its own, within this time.
    New(Duration),
    /// That of this agent, or another where that has ended.
    Kept(&'a ureq::Agent),
}

pub type Reply = Result<Response<ureq::Body>, ureq::Error>;

/// Host and port.
fn address_of(url: &Url) -> Option<String> {
    Some(format!("{}:{}", url.host_str()?, url.port_or_known_default()?))
}

/// Also where it leads to its own HTTPS.
fn is_same_server(first: &Url, url: &Url) -> bool {
    first.origin() == url.origin()
        || (first.host() == url.host() && (first.scheme(), url.scheme()) == ("http", "https"))
}

fn location<B>(url: &Url, reply: &Response<B>) -> Option<Url> {
    url.join(reply.headers().get("location")?.to_str().ok()?).ok()
}

fn by<B>(request: ureq::RequestBuilder<B>, login: Option<&str>) -> ureq::RequestBuilder<B> {
    match login {
        Some(login) => request.header("Authorization", login),
        None => request,
    }
}

/// For a vehicle whose clock is not set: microseconds since 1970.
fn time_of_day() -> String {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    since_1970.as_micros().to_string()
}

/// A session that the server has accepted.
#[derive(Clone, Debug)]
pub struct Answer {
    pub sdp: String,
    /// The session's own URL, to end it by DELETE.
    pub resource: Option<Url>,
    /// Whom it was offered to.
    endpoint: Url,
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

/// Tells the server that this session has ended, where that can be told. Best effort: a server that is gone has ended
/// it anyway.
pub async fn delete(answer: &Answer, http: &Http) -> Result<(), WhepError> {
    let Answer { resource: Some(resource), endpoint, .. } = answer.clone() else { return Ok(()) };
    let http = http.clone();
    blocking(move || {
        let delete = |agent: &ureq::Agent, url: &str, login: Option<&str>| by(agent.delete(url), login).call();
        http.ask((&endpoint, &resource), Connection::New(PROBE_TIMEOUT), delete).map(drop)
    })
    .await
}

/// `GET /api/stats` of a rov-server, before a session.
pub async fn stats(url: Url, http: &Http) -> Result<Stats, WhepError> {
    stats_within(BEGIN_TIMEOUT, url, http).await
}

/// As [`stats`], in a session: an answer that takes long is none.
pub async fn probe(url: Url, http: &Http) -> Result<Stats, WhepError> {
    stats_within(PROBE_TIMEOUT, url, http).await
}

async fn stats_within(timeout: Duration, url: Url, http: &Http) -> Result<Stats, WhepError> {
    let http = http.clone();
    blocking(move || {
        let get = |agent: &ureq::Agent, url: &str, login: Option<&str>| by(agent.get(url), login).call();
        let (url, reply) = http.ask((&url, &url), Connection::New(timeout), get)?;
        json(url, reply)
    })
    .await
}

/// Questions to one URL of a rov-server, over one connection as long as that lasts. Blocks.
pub struct Talk {
    url: Url,
    http: Http,
    agent: ureq::Agent,
}

impl Talk {
    pub fn new(url: Url, http: Http) -> Self {
        Self::within(TALK_TIMEOUT, url, http)
    }

    /// An answer is waited for so long.
    pub fn within(limit: Duration, url: Url, http: Http) -> Self {
        let agent = agent(limit, TALK_TIMEOUT, &http);
        Self { url, http, agent }
    }

    /// Asks once, and tells the time of day; `around` is called around each request that it takes.
    pub fn ask<T: DeserializeOwned>(
        &self,
        around: impl Fn(&mut dyn FnMut() -> Reply) -> Reply,
    ) -> Result<T, WhepError> {
        let (url, reply) =
            self.http.ask((&self.url, &self.url), Connection::Kept(&self.agent), |agent, url, login| {
                around(&mut || by(agent.get(url), login).header(CLIENT_TIME, time_of_day()).call())
            })?;
        json(url, reply)
    }

    pub fn url(&self) -> &Url {
        &self.url
    }

    /// Asks once, at another URL of the same server, which is this one.
    pub fn ask_at<T: DeserializeOwned>(&self, url: &Url, who: &Who) -> Result<T, WhepError> {
        let (url, reply) = self
            .http
            .ask((url, url), Connection::Kept(&self.agent), |agent, url, login| by(agent.get(url), login).call())?;
        if who.is_other(&Who::answering(reply.headers())) { Err(WhepError::OtherServer) } else { json(url, reply) }
    }
}

/// What `/api/ring/pictures` of this rov-server gives, however long that takes as long as something comes. Blocks.
pub fn ring_pictures(url: &Url, who: &Who, http: &Http) -> Result<impl io::Read + use<>, WhepError> {
    whatever_comes(url, who, http, &patient_agent(TALK_TIMEOUT, None, http))
}

/// `GET /api/events` of this rov-server, for half a minute. Blocks.
pub fn events(url: &Url, who: &Who, http: &Http) -> Result<impl io::Read + use<>, WhepError> {
    whatever_comes(url, who, http, &patient_agent(TALK_TIMEOUT, Some(EVENTS_TIMEOUT), http))
}

fn whatever_comes(url: &Url, who: &Who, http: &Http, agent: &ureq::Agent) -> Result<impl io::Read + use<>, WhepError> {
    let (url, mut reply) =
        http.ask((url, url), Connection::Kept(agent), |agent, url, login| by(agent.get(url), login).call())?;
    match reply.status().as_u16() {
        _ if who.is_other(&Who::answering(reply.headers())) => Err(WhepError::OtherServer),
        200..=299 => Ok(reply.into_body().into_reader()),
        status => Err(WhepError::Refused { reason: error_text(&body(&mut reply, &url)?), url, status }),
    }
}

fn json<T: DeserializeOwned>(url: Url, mut reply: Response<ureq::Body>) -> Result<T, WhepError> {
    let text = body(&mut reply, &url)?;
    match reply.status().as_u16() {
        200..=299 => serde_json::from_str(&text).map_err(|e| WhepError::NotWhep { url, reason: e.to_string() }),
        status => Err(WhepError::Refused { url, status, reason: error_text(&text) }),
    }
}

/// The HTTP API of a rov-server.
#[derive(Clone, Debug)]
pub struct Api {
    /// Of its statistics.
    pub stats: Url,
    pub http: Http,
    pub who: Who,
    /// How long its ring has for certain what the stream sent, where it says so.
    pub kept: Option<Duration>,
}

/// Which pictures of a stream a clip is to have: the last seconds, or all that are kept; or those of these times, which
/// a server of an earlier version does not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    pub seconds: Option<u64>,
    pub times: Option<Times>,
}

/// From one time of capture to another, by the clock of this run of the server, where that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    pub from: Captured,
    pub to: Captured,
    pub run: Option<u64>,
}

/// A clip that the server has begun to send.
pub struct Clip {
    /// When its first picture was captured, and how long it plays, where the server says so.
    pub captured: Option<Captured>,
    pub seconds: Option<f64>,
    pub bytes: Option<u64>,
    pub body: Box<dyn io::Read + Send>,
}

impl Api {
    pub fn new(stats: Url, http: Http) -> Self {
        Self { stats, http, who: Who::default(), kept: None }
    }

    /// `GET /api/clip` of a stream, of its only one where it has no name, which begins to come within `head`. Blocks.
    pub fn clip(&self, stream: &str, Asked { seconds, times }: Asked, head: Duration) -> Result<Clip, WhepError> {
        let not = |reason: &str| WhepError::NotWhep { url: self.stats.clone(), reason: reason.to_owned() };
        let mut url = self.stats.join("clip").map_err(|error| not(&error.to_string()))?;
        if !stream.is_empty() {
            url.query_pairs_mut().append_pair("stream", stream);
        }
        if let Some(seconds) = seconds {
            url.query_pairs_mut().append_pair("seconds", &seconds.to_string());
        }
        if let Some(Times { from, to, run }) = times {
            let given = [("from", Some(from.micros())), ("to", Some(to.micros())), ("run", run)];
            let given = given.into_iter().filter_map(|(name, value)| Some((name, value?.to_string())));
            url.query_pairs_mut().extend_pairs(given);
        }
        let get = |agent: &ureq::Agent, url: &str, login: Option<&str>| by(agent.get(url), login).call();
        let agent = patient_agent(head, Some(CLIP_LIMIT), &self.http);
        let (url, mut reply) = self.http.ask((&self.stats, &url), Connection::Kept(&agent), get)?;
        if self.who != Who::default() && self.who.is_other(&Who::answering(reply.headers())) {
            return Err(WhepError::OtherServer);
        }
        let status = reply.status().as_u16();
        if !(200..=299).contains(&status) {
            return Err(WhepError::Refused { reason: error_text(&body(&mut reply, &url)?), url, status });
        }
        let header = |name: &str| reply.headers().get(name)?.to_str().ok().map(str::to_owned);
        if header("content-type").as_deref() != Some("video/mp4") {
            return Err(not("no MP4 came"));
        }
        let number = |name: &str| header(name)?.parse::<f64>().ok();
        let captured = number("x-timestamp").and_then(|at| Duration::try_from_secs_f64(at).ok()).map(Captured);
        let bytes = header("content-length").and_then(|length| length.parse().ok());
        let seconds = number("x-content-duration");
        Ok(Clip { captured, seconds, bytes, body: Box::new(reply.into_body().into_reader()) })
    }
}

fn no_answer(url: &Url, error: &ureq::Error) -> WhepError {
    match error {
        ureq::Error::Io(io) if io.kind() == io::ErrorKind::ConnectionRefused => WhepError::Closed { url: url.clone() },
        other => WhepError::Unreachable { url: url.clone(), reason: other.to_string() },
    }
}

fn offer_blocking(endpoint: &Url, sdp: &str, http: &Http) -> Result<Answer, WhepError> {
    let (url, mut reply) = http.ask((endpoint, endpoint), Connection::New(BEGIN_TIMEOUT), |agent, url, login| {
        let request = by(agent.post(url), login).header("Content-Type", "application/sdp");
        let request = request.header(CLIENT_TIME, time_of_day());
        request.header("Accept", "application/sdp").send(sdp)
    })?;
    let resource = location(&url, &reply);
    let text = body(&mut reply, &url)?;
    match reply.status().as_u16() {
        201 if text.starts_with("v=0") => Ok(Answer { sdp: text, resource, endpoint: endpoint.clone() }),
        status @ 200..=299 => Err(WhepError::NotWhep { url, reason: format!("{status} without an SDP answer") }),
        status => Err(WhepError::Refused { url, status, reason: error_text(&text) }),
    }
}

fn body(reply: &mut Response<ureq::Body>, url: &Url) -> Result<String, WhepError> {
    reply.body_mut().with_config().limit(LARGEST_REPLY).read_to_string().map_err(|error| match &error {
        ureq::Error::BodyExceedsLimit(_) | ureq::Error::Protocol(_) => {
            WhepError::NotWhep { url: url.clone(), reason: error.to_string() }
        }
        // No text.
        ureq::Error::Io(io) if io.kind() == io::ErrorKind::InvalidData => {
            WhepError::NotWhep { url: url.clone(), reason: error.to_string() }
        }
        // The rest of it did not come.
        _ => no_answer(url, &error),
    })
}

/// What the server says of the error: its JSON, else the first line of the text.
fn error_text(body: &str) -> String {
    match serde_json::from_str::<ErrorBody>(body) {
        Ok(body) => body.error,
        Err(_) => body.lines().next().unwrap_or("no reason given").chars().take(200).collect(),
    }
}

/// Nothing was sent where the connection was not made, so that another attempt repeats nothing.
fn ask_anew<T>(
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
    let config = config().timeout_connect(Some(connect_timeout)).timeout_global(Some(timeout)).build();
    with_parts(config, http)
}

/// For an answer that begins within `head`, and is then given at the pace of a slow link, within `whole`; where nothing
/// comes, TCP alone would wait for minutes.
fn patient_agent(head: Duration, whole: Option<Duration>, http: &Http) -> ureq::Agent {
    let config = config().timeout_resolve(Some(head)).timeout_connect(Some(head)).timeout_recv_response(Some(head));
    with_parts(config.timeout_per_read(Some(SILENCE)).timeout_global(whole).build(), http)
}

fn config() -> ConfigBuilder<AgentScope> {
    ureq::Agent::config_builder()
        .http_status_as_error(false)
        // A proxy of the environment does not lead to a vehicle on the LAN.
        .proxy(None)
        .max_redirects(0)
        .max_redirects_will_error(false)
}

fn with_parts(config: Config, http: &Http) -> ureq::Agent {
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

    /// Gives the replies, each on a connection of its own, and returns what was asked.
    fn serve(replies: Vec<String>) -> (Url, std::thread::JoinHandle<Vec<String>>) {
        use std::io::{Read, Write};
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = Url::parse(&format!("http://{}/api/stats", listener.local_addr().expect("bound"))).expect("a URL");
        let answer = move |reply: String| {
            let (mut stream, _) = listener.accept().expect("a client");
            let mut asked = Vec::new();
            while !asked.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).expect("a request");
                asked.push(byte[0]);
            }
            let reply = format!("HTTP/1.1 {reply}\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{{}}");
            stream.write_all(reply.as_bytes()).expect("answered");
            String::from_utf8(asked).expect("text").to_ascii_lowercase()
        };
        (url, std::thread::spawn(move || replies.into_iter().map(answer).collect()))
    }

    #[tokio::test]
    async fn in_clear_a_login_is_given_to_who_asks_for_it_alone() {
        let http = Http { login: Some(Login::Token("rov_abc".to_owned())), ..Http::default() };
        let has_login = |asked: Vec<String>| asked.iter().map(|it| it.contains("authorization")).collect::<Vec<_>>();
        let (url, asked) = serve(vec!["200 OK".to_owned()]);
        let _ = stats(url, &http).await;
        assert_eq!(has_login(asked.join().expect("served")), [false]);
        // What stands in the URL is no other login; and who has asked is not made to ask each time.
        let (url, asked) = serve(["401 Unauthorized", "200 OK", "200 OK"].map(str::to_owned).into());
        let mut own = url.clone();
        own.set_username("pilot").expect("a host");
        let _ = stats(own, &Http { login: None, ..http.clone() }).await;
        let _ = stats(url, &http).await;
        assert_eq!(has_login(asked.join().expect("served")), [false, true, true]);
        // A session that it keeps elsewhere is ended without.
        let (resource, asked) = serve(vec!["401 Unauthorized".to_owned()]);
        let endpoint = Url::parse("http://127.0.0.1:9/whep").expect("a URL");
        let answer = Answer { sdp: String::new(), resource: Some(resource), endpoint };
        delete(&answer, &http).await.expect_err("refused");
        assert_eq!(has_login(asked.join().expect("served")), [false]);
        // Another server to which it leads gets none, and that is what is said.
        let (other, asked) = serve(vec!["401 Unauthorized".to_owned()]);
        let (url, _) = serve(vec![format!("308 Permanent Redirect\r\nLocation: {other}")]);
        let error = stats(url, &http).await.expect_err("refused").to_string();
        assert!(error.contains("not for others"), "{error}");
        assert_eq!(has_login(asked.join().expect("served")), [false]);
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
        let answer = Answer { sdp: String::new(), endpoint: resource.clone(), resource: Some(resource) };
        assert_eq!(answer.viewer_id(), Some("abc"));
    }
}
