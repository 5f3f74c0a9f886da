//! Which server to connect to: the given one, or the one that is found, and found again by its id.

mod guide;
mod place;
mod ways;

use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use anyhow::Context;
use rov_common::api::{Stats, WHEP_PATH};
use rov_common::codec::Codec;
use rov_common::discovery::Announcement;
use rov_common::net;
use rov_common::sync::lock;
use url::Url;

pub use self::guide::Guide;
use self::place::Place;
pub use self::place::{Said, Seen};
use crate::discovery::{self, Discovery, Found};
use crate::heard::{Heard, Next, Wish};
use crate::receive::rtp::senders::Senders;
use crate::receive::rtp::{self, Source};
use crate::receive::rtsp::Camera;
use crate::receive::{Transport, Way};
use crate::reconnect::Supply;
use crate::streams::{Wanted, place_of};
use crate::target::{RtpHost, SessionConfig, SessionError, Target};
use crate::viewer::{Offer, Phase, Question, Server, Viewer};
use crate::whep::{self, Http, WhepError};

/// After the first of several possible servers: long enough for the others to answer the same query.
const SETTLE: Duration = Duration::from_millis(150);

/// While a server is tried, another one is listened for so often.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

pub const STATS_PATH: &str = "/api/stats";
/// Where nobody can be asked.
const CHOOSE_BY_OPTION: &str = "to watch another, start again with --name NAME, or with its ADDRESS:PORT";
/// Of a server of HTTPS.
pub const LOGIN_KEPT_BACK: &str =
    "RTSP is not encrypted and was given no login, as the server is one of HTTPS; --transport rtsp gives it";
/// Before there is anything else to say of a search.
pub const LOOKING: &str = "looking for a server";

/// A server to connect to.
#[derive(Clone, Debug)]
pub struct Located {
    /// How it can be reached, the best first; at least one.
    pub ways: Vec<Way>,
    pub label: String,
    /// Its statistics, if it has any.
    pub stats: Option<Url>,
    /// What it sends, if it said so.
    pub codec: Option<Codec>,
    /// The name of the stream, where the server has several; empty: it has one, or it is not known.
    pub stream: String,
    name: String,
    address: String,
    /// As it was heard; none: it was not discovered.
    found: Option<Found>,
    /// By the pilot.
    is_chosen: bool,
    /// It is the right one only if it proves its key.
    must_prove: bool,
    /// The server without the choice of a stream, where one was chosen.
    whole: Option<Box<Self>>,
}

impl Located {
    /// One that the user named, with nothing known of it.
    fn named(way: Way, label: String, stats: Option<Url>) -> Self {
        let (address, codec) = (way.address(), way.codec());
        let (stream, name) = (String::new(), String::new());
        let (is_chosen, must_prove) = (false, false);
        Self {
            ways: vec![way],
            label,
            stats,
            codec,
            stream,
            name,
            address,
            found: None,
            is_chosen,
            must_prove,
            whole: None,
        }
    }

    /// By a WHEP endpoint, which may name a stream.
    fn at_endpoint(url: &Url) -> Self {
        let (way, stats) = (Way::WebRtc(url.clone()), url.join(STATS_PATH).ok());
        let stream = stream_of(url).unwrap_or_default();
        Self { stream, ..Self::named(way, whep::without_user(url).to_string(), stats) }
    }

    fn chosen(self) -> Self {
        Self { is_chosen: true, ..self }
    }

    /// The stream that the user wants instead of the default: what of it the server has.
    async fn select(self, wanted: &Wanted, config: &SessionConfig) -> Result<Self, SessionError> {
        let Some(url) = self.stats.clone() else {
            let reason = format!(
                "{} has no statistics that say what streams it has: is a rov-server running there? If not, leave out \
                 --camera and --stream",
                self.label
            );
            return Err(SessionError::no_way(reason));
        };
        let stats = match (whep::stats(url, &config.http).await, self.by_name(wanted, &config.http)) {
            (Ok(stats), _) => stats,
            (Err(WhepError::Changed(changed)), _) => return Err(SessionError::changed(&changed)),
            (Err(_), Some(named)) => return Ok(named),
            (Err(error), None) => {
                let reason = format!("{} did not say what streams it has: {error}", self.label);
                return Err(SessionError::no_way(reason));
            }
        };
        let unknown = |reason| SessionError::NoWay {
            reason: format!("{}: {reason}", self.label),
            is_final: true,
            is_denied: false,
        };
        let place = wanted.place(&stats).map_err(unknown)?;
        let stream = &stats.streams[place];
        let ways: Vec<_> = self.ways.iter().filter_map(|way| ways::way_to(way.clone(), place, &stats)).collect();
        let codec = stream.codec.parse().ok();
        let carries = |way: &Way| way.transport() != Transport::WebRtc || codec != Some(Codec::Mjpeg);
        if self.must_prove && !ways.iter().any(carries) {
            return Err(SessionError::no_way(format!(
                "{} has to prove its key, as it is heard at several addresses or elsewhere than before, and its stream {} \
                 of MJPEG proves none: watch another of its streams first, or start with its ADDRESS:PORT",
                self.label, stream.name
            )));
        }
        if ways.is_empty() {
            return Err(SessionError::no_way(format!(
                "{} does not say where it sends the stream {}: try --transport auto",
                self.label, stream.name
            )));
        }
        Ok(Self {
            ways,
            label: format!("{}, {}", self.label, stream.name),
            stats: self.stats.clone(),
            codec,
            stream: if stats.streams.len() > 1 { stream.name.clone() } else { self.stream.clone() },
            name: self.name.clone(),
            address: self.address.clone(),
            found: self.found.clone(),
            is_chosen: self.is_chosen,
            must_prove: self.must_prove,
            whole: Some(Box::new(self)),
        })
    }

    /// By RTSP alone a stream is found by its name, also where the server's HTTP is closed.
    fn by_name(&self, wanted: &Wanted, http: &Http) -> Option<Self> {
        let [Way::Rtsp(camera)] = self.ways.as_slice() else { return None };
        let mut url = camera.url().clone();
        url.set_path(&wanted.address_name()?);
        // A server of HTTPS has to show its certificate all the same.
        Some(Self::named(Way::Rtsp(Camera::from(url)), self.label.clone(), self.pinned(http).cloned()))
    }

    /// Where it is asked, if that is by HTTPS.
    fn pinned(&self, http: &Http) -> Option<&Url> {
        self.stats.as_ref().filter(|url| http.is_pinned(url))
    }

    /// Has a server of HTTPS show its certificate, before anything of it is watched that proves nothing.
    pub async fn prove(&self, http: &Http) -> Result<(), SessionError> {
        match self.pinned(http) {
            Some(url) => prove(url, &self.label, http).await.map(drop),
            None => Ok(()),
        }
    }

    /// By what carries the stream: not WebRTC for MJPEG. Where there is that alone, the server says why not.
    fn carried(self) -> Self {
        let is_other = |way: &Way| way.transport() != Transport::WebRtc;
        if self.codec != Some(Codec::Mjpeg) || !self.ways.iter().any(is_other) {
            return self;
        }
        // Another of its streams may come by it.
        let whole = Some(Box::new(self.whole()));
        Self { ways: self.ways.into_iter().filter(is_other).collect(), whole, ..self }
    }

    /// While it is watched by WebRTC alone, which has proved its key: with the other ways that it named there, for streams
    /// that WebRTC does not carry.
    fn with_proved_ways(mut self, heard: &Mutex<Heard>) -> Self {
        if let (true, Some(found)) = (self.must_prove && self.ways.len() == 1, &self.found) {
            self.ways.extend(lock(heard).fallback(found).unwrap_or_default());
        }
        self
    }

    /// The server, whichever of its streams was chosen.
    fn whole(&self) -> Self {
        self.whole.as_deref().unwrap_or(self).clone()
    }

    /// Whether both are one server at one address.
    fn is_at_place_of(&self, other: &Self) -> bool {
        let place = |it: &Self| {
            let whole = it.whole();
            (whole.address, whole.found.map(|found| (found.announcement.id, found.announcement.key)))
        };
        place(self) == place(other)
    }

    /// For the window and the statistics.
    pub fn public(&self) -> Server {
        let announced = self.found.as_ref().map(|found| &found.announcement);
        Server {
            id: announced.map(|of| of.id.clone()).unwrap_or_default(),
            key: announced.and_then(|of| of.key.clone()),
            name: self.name.clone(),
            address: self.address.clone(),
            stream: self.stream.clone(),
        }
    }

    /// Other ways to a server that the user named by its WHEP endpoint: those that its statistics name.
    pub async fn other_ways(&self, http: &Http) -> Vec<Way> {
        let (true, [Way::WebRtc(url)], Some(stats)) = (self.found.is_none(), self.ways.as_slice(), &self.stats) else {
            return Vec::new();
        };
        let stats = whep::stats(stats.clone(), http).await;
        let (Some(host), Ok(stats)) = (url.host_str(), stats) else { return Vec::new() };
        let Ok(from) = resolve(host).await else { return Vec::new() };
        ways_beside(url, host, &stats, from)
    }

    /// What to do where it does not answer, or another machine does, if several network cards lead to it.
    pub fn advice(&self, interfaces: &[String]) -> Option<String> {
        let address: SocketAddr = self.address.parse().ok()?;
        if interfaces.is_empty() { net::advice_for(address.ip()) } else { None }
    }

    /// How it is asked by `transport`. RTP and RTSP beside HTTPS neither are encrypted nor prove who is there: not before
    /// it has shown its certificate, and without a login, unless the user chose it by `--transport`.
    pub fn http_for(&self, config: &SessionConfig, transport: Transport) -> Result<Http, String> {
        let mut http = config.http.clone();
        let Some(url) = self.pinned(&http).filter(|_| transport != Transport::WebRtc) else { return Ok(http) };
        if !http.is_proven(url) {
            return Err(format!("not tried, as {} has not shown its certificate by HTTPS", self.label));
        }
        if transport == Transport::Rtsp && http.login.is_some() {
            if config.transport == Some(transport) {
                tracing::warn!("--transport rtsp: RTSP is not encrypted, and the login may cross the network readable");
            } else {
                tracing::warn!("{}: {LOGIN_KEPT_BACK}", self.label);
                http.login = None;
            }
        }
        Ok(http)
    }

    /// The key that it says it has, which a WebRTC session proves.
    pub fn key(&self) -> Option<&str> {
        self.found.as_ref()?.announcement.key.as_deref()
    }

    /// A session stands with it, by this transport.
    fn mark_watched(&self, heard: &Mutex<Heard>, by: Transport) {
        if let Some(found) = &self.found {
            lock(heard).watch(found, by == Transport::WebRtc && found.announcement.key.is_some());
        }
    }

    /// Somebody else answers where it says that it is.
    pub fn mark_refused(&self, heard: &Mutex<Heard>) {
        if let Some(found) = &self.found {
            lock(heard).refuse(found.address, Instant::now());
        }
    }

    /// No session came about, after so long.
    fn mark_failed(&self, heard: &Mutex<Heard>, waited: Duration) {
        if let Some(found) = &self.found {
            lock(heard).fail(found.address, waited, Instant::now());
        }
    }

    /// What the server says of itself in a session that proves its key.
    pub fn learn(&self, heard: &Mutex<Heard>, stats: &Stats) {
        if let (Some(found), Some(IpAddr::V4(ip))) = (&self.found, self.found.as_ref().map(|found| found.address.ip()))
            && let Some(whep) = self.stats.as_ref().and_then(|url| url.join(WHEP_PATH).ok())
        {
            lock(heard).learn(found, ways_beside(&whep, &ip.to_string(), stats, ip));
        }
    }

    /// The synchronisation source of its stream by RTP, as its statistics say; none: they do not, or are another's.
    pub fn ssrc(&self, stats: &Stats) -> Option<u32> {
        let is_its = self.found.as_ref().is_none_or(|found| found.announcement.id == stats.id);
        let named = || stats.streams.get(place_of(&self.stream, &stats.streams)?);
        let stream = if self.stream.is_empty() { stats.streams.first() } else { named() };
        stream.filter(|_| is_its)?.rtp_ssrc
    }

    /// What can be expected of its packets.
    pub fn supply(&self, way: &Way) -> Supply {
        match way {
            Way::WebRtc(_) => Supply::Connection,
            Way::Rtp(_) if self.stats.is_none() => Supply::Destination,
            Way::Rtp(_) | Way::Rtsp(_) => Supply::Stream,
        }
    }
}

/// Finds the server, and finds it again, wherever it is then.
struct Finder {
    discovery: Option<Discovery>,
    heard: Arc<Mutex<Heard>>,
    wish: Wish,
    can_ask: bool,
    /// The window says why the last attempt failed, until there is other news.
    has_tried: bool,
    /// What the host of RTP that the user named, which is a rov-server then, said last that it sends, and where.
    said: Option<Source>,
    /// Of RTP that is listened for; none: any dynamic one.
    payload_type: Option<u8>,
}

impl Finder {
    fn new(config: &SessionConfig) -> Result<Self, SessionError> {
        let (discovery, wish) = match &config.target {
            Target::Auto { name, any } => {
                let discovery = discovery::bind(config.discovery_port, config.http.interfaces.clone())?;
                lock(discovery.heard()).want(name.clone());
                (Some(discovery), Wish { name: name.clone(), any: *any, transport: config.transport })
            }
            Target::Url(_) | Target::Rtp { .. } | Target::Camera(..) => (None, Wish::default()),
        };
        let heard = discovery.as_ref().map(|discovery| Arc::clone(discovery.heard())).unwrap_or_default();
        let payload_type = match &config.target {
            Target::Rtp { source, .. } => source.payload_type,
            _ => None,
        };
        Ok(Self { discovery, heard, wish, can_ask: config.can_ask, has_tried: false, said: None, payload_type })
    }

    /// What is known of the servers, while [`Self::listen`] keeps it up to date.
    fn knowledge(&self) -> Knowledge {
        let senders = Arc::new(Mutex::new(Senders::new(None, self.payload_type)));
        Knowledge { heard: Arc::clone(&self.heard), wish: self.wish.clone(), senders, place: Arc::default() }
    }

    /// Listens to the servers while one is watched; never ends.
    async fn listen(&mut self) {
        match &mut self.discovery {
            Some(discovery) => match discovery.listen().await {},
            None => std::future::pending().await,
        }
    }

    /// The server. Looks until there is one, unless the configuration says not to wait.
    async fn find_server(&mut self, config: &SessionConfig, viewer: &Viewer) -> Result<Located, SessionError> {
        if let Some(named) = named(config, &mut self.said).await {
            return named;
        }
        let Self { discovery: Some(discovery), heard, wish, can_ask, has_tried, .. } = self else {
            // `new` made one for each Auto.
            return Err(anyhow::anyhow!("there is no discovery").into());
        };
        let began = discovery.begin();
        let mut said_nothing_at = began + config.discovery_timeout;
        if !*has_tried {
            viewer.set_phase(Phase::Searching(LOOKING.to_owned()));
        }
        let mut first_heard: Option<Instant> = None;
        let chosen = lock(heard).take_chosen();
        if let Some(server) = chosen {
            return take(heard, viewer, &server, true, None, config).map(Located::chosen);
        }
        loop {
            let now = Instant::now();
            let is_first = !lock(heard).is_watching();
            // What was heard long ago is there no more.
            let then = began.max(now.checked_sub(discovery::FORGET_AFTER).unwrap_or(began));
            let there = lock(heard).since(then);
            let is_wanted_there = there.iter().any(|found| wish.names(&found.announcement));
            if !there.is_empty() {
                first_heard.get_or_insert(now);
            }
            // The first choice waits for all who answer; one that is known is taken at once.
            let is_settled = !is_first || first_heard.is_some_and(|first| now >= first + SETTLE);
            let next = if is_settled { lock(heard).next(wish, then, now) } else { Next::Listen };
            match next {
                Next::Watch { server, must_prove, said } => {
                    *has_tried = true;
                    return take(heard, viewer, &server, must_prove, said, config);
                }
                Next::Ask(question) => {
                    if !*can_ask && is_first && is_wanted_there {
                        return Err(SessionError::Ambiguous(question.text, list_noted(&there)));
                    }
                    if is_first {
                        // The question stands in the log, and in the window.
                        viewer.set_phase(Phase::Searching(LOOKING.to_owned()));
                    }
                    viewer.choice.ask(question, if *can_ask { "choose in the window" } else { CHOOSE_BY_OPTION });
                }
                Next::Listen => viewer.choice.withdraw(),
            }
            if now >= said_nothing_at && !is_wanted_there && is_first {
                let nothing = match there.as_slice() {
                    [] => nothing_found(discovery, wish.name.as_deref(), config),
                    others => {
                        format!(
                            "server {:?} not found, only these:\n{}",
                            wish.name.as_deref().unwrap_or(""),
                            list_noted(others)
                        )
                    }
                };
                if !config.wait {
                    return Err(SessionError::NothingFound(nothing));
                }
                // Who is there was said by the question.
                if there.is_empty() {
                    viewer.set_phase(Phase::Searching(nothing));
                }
                said_nothing_at = now + config.discovery_timeout;
            }
            let until = first_heard.filter(|_| !is_settled).map(|first| first + SETTLE);
            tokio::select! {
                () = discovery.hear() => {}
                () = at(until) => {}
                offer = viewer.choice.chosen() => {
                    let chosen = {
                        let heard = lock(heard);
                        let server = heard.offered(&offer);
                        server.map(|server| (heard.has_to_prove(&server, wish, Instant::now()), server))
                    };
                    if let Some((must_prove, server)) = chosen {
                        *has_tried = true;
                        return take(heard, viewer, &server, must_prove, None, config).map(Located::chosen);
                    }
                }
            }
        }
    }
}

/// The server that the user named by its address, if so. `said`: as in [`Finder`].
async fn named(config: &SessionConfig, said: &mut Option<Source>) -> Option<Result<Located, SessionError>> {
    Some(match &config.target {
        Target::Auto { .. } => return None,
        Target::Url(url) => Ok(Located::at_endpoint(url)),
        Target::Camera(camera, stats) => {
            // No more of the URL: many cameras have a password in it.
            let way = Way::Rtsp(camera.clone());
            let label = way.address();
            let is_pinned = stats.as_ref().is_some_and(|stats| config.http.is_pinned(stats));
            // Not asked for anything else: it may be a camera.
            let stats = stats.clone().filter(|_| is_pinned || config.stream.is_some());
            Ok(Located::named(way, label, stats))
        }
        Target::Rtp { source, host: None } => {
            Ok(Located::named(Way::Rtp(*source), format!("RTP at {}", source.destination()), None))
        }
        Target::Rtp { source, host: Some(host) } => rtp_of_host(host, source, &config.http, said).await,
    })
}

fn take(
    heard: &Mutex<Heard>,
    viewer: &Viewer,
    server: &Found,
    must_prove: bool,
    said: Option<String>,
    config: &SessionConfig,
) -> Result<Located, SessionError> {
    viewer.choice.withdraw();
    let address = server.address.to_string();
    config.http.pins.found(&address, &server.announcement.id);
    if let Some(changed) = config.http.pins.in_clear(&address).filter(|_| server.announcement.tls.is_none()) {
        lock(heard).fail(server.address, Duration::ZERO, Instant::now());
        return Err(SessionError::NoWay { reason: changed.to_string(), is_final: true, is_denied: false });
    }
    if let Some(said) = said {
        viewer.set_news(said);
    }
    // It is watched when a session stands: until then whatever was heard can be chosen.
    let fallback = lock(heard).fallback(server);
    located(server, config.transport, must_prove, fallback)
        .inspect_err(|_| lock(heard).fail(server.address, Duration::ZERO, Instant::now()))
}

/// What is heard of the servers, for a session that loses its own.
#[derive(Clone)]
pub struct Knowledge {
    pub heard: Arc<Mutex<Heard>>,
    wish: Wish,
    /// Where a destination of RTP is watched, whoever sends there.
    pub senders: Arc<Mutex<Senders>>,
    /// Where the user named an address, who answers there.
    place: Arc<Mutex<Place>>,
}

impl Knowledge {
    /// Where `server` is an address that the user named. Announcements say who they are of.
    fn place(&self, server: &Located) -> Option<MutexGuard<'_, Place>> {
        server.found.is_none().then(|| lock(&self.place))
    }

    /// A session of a stream that has been told so much stands with it, in which it proved this key, if it did: what
    /// that says of who it is. None: its statistics have to.
    pub fn proven(&self, server: &Located, key: Option<&str>, seen: &mut Seen) -> Option<Said> {
        match self.place(server) {
            Some(mut place) => place.proven(&server.address, key, seen),
            None => Some(Said::Same),
        }
    }

    /// What came from its HTTP while such a session stands. None: that ends.
    pub fn told(&self, server: &Located, key: Option<&str>, stats: &Stats, seen: &mut Seen) -> Option<Said> {
        match self.place(server) {
            Some(mut place) => place.told(&server.address, key, stats, seen),
            None => Some(Said::Same),
        }
    }

    /// Whether another server than the one that proved this key is watched there by now.
    pub fn is_left(&self, server: &Located, key: Option<&str>) -> bool {
        self.place(server).is_some_and(|place| place.is_left(key))
    }

    /// Video came from the server that is watched. What there is to warn of now.
    pub fn look(&self, last_packet: Instant, now: Instant) -> Option<String> {
        let mut heard = lock(&self.heard);
        heard.alive(last_packet);
        heard.warning(now)
    }

    /// Waits until the server that was watched is heard again where it was, while another address is tried in its place.
    pub async fn overtaken(&self, server: &Located) {
        let (Some(tried), false) = (&server.found, server.is_chosen) else { return std::future::pending().await };
        let since = Instant::now();
        while !lock(&self.heard).is_overtaken(tried, &self.wish, since, Instant::now()) {
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }

    /// A server that was watched before, to go back to.
    pub fn back(&self, now: Instant) -> Option<Question> {
        lock(&self.heard).back(now)
    }

    /// The pilot chose this one, while another is watched.
    pub fn choose(&self, offer: Offer) {
        lock(&self.heard).choose(offer);
    }

    /// Where the server that is watched is heard, when that is elsewhere.
    pub fn moved(&self, now: Instant) -> Option<String> {
        lock(&self.heard).moved(&self.wish, now).map(|address| address.to_string())
    }
}

async fn at(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time.into()).await,
        None => std::future::pending().await,
    }
}

/// Has a server of HTTPS show its certificate; and what it says of itself, or why it does not: it may want a login.
async fn prove(stats: &Url, label: &str, http: &Http) -> Result<Result<Stats, WhepError>, SessionError> {
    let reason = match whep::stats(stats.clone(), http).await {
        Err(WhepError::Changed(changed)) => return Err(SessionError::changed(&changed)),
        answer if http.is_proven(stats) => return Ok(answer),
        Err(error) => error.to_string(),
        Ok(_) => "it did not answer by HTTPS".to_owned(),
    };
    Err(SessionError::no_way(format!("{label} has not shown its certificate by HTTPS: {reason}")))
}

/// RTP from `host`: to where a rov-server there says that it sends, else to where the user says.
async fn rtp_of_host(
    host: &RtpHost,
    source: &Source,
    http: &Http,
    said: &mut Option<Source>,
) -> Result<Located, SessionError> {
    let from = resolve(&host.name).await?;
    let mut source = Source { from: Some(from), ..*source };
    let mut api = host.stats.clone();
    if let Some(url) = &api {
        let is_pinned = http.is_pinned(url);
        let answer = if is_pinned { prove(url, &host.name, http).await? } else { whep::stats(url.clone(), http).await };
        match answer {
            Ok(stats) if stats.rtp.is_none() => {
                let reason = format!(
                    "{} does not send by rtp: start rov-server with rtp among its --transport, or this program without \
                     --transport rtp",
                    host.name
                );
                return Err(SessionError::no_way(reason));
            }
            Ok(stats) => {
                source = rtp_destination(&stats, from, 0).unwrap_or(source);
                *said = Some(source);
            }
            Err(WhepError::Changed(changed)) => return Err(SessionError::changed(&changed)),
            Err(error) => match *said {
                // By its synchronisation source its video is told from what another server of that machine sends.
                Some(before) if before.ssrc.is_some() => {
                    tracing::debug!("{} does not say what it sends now: {error}", host.name);
                    source = Source { from: Some(from), ..before };
                }
                Some(_) => return Err(SessionError::no_way(error.to_string())),
                None if is_pinned => {}
                // A sender of another make.
                None => api = None,
            },
        }
    }
    let label = format!("RTP from {} at {}", host.name, source.destination());
    Ok(Located::named(Way::Rtp(source), label, api))
}

/// What the statistics of a server name beside its WHEP endpoint, for the same stream: another's picture would be taken
/// for it.
fn ways_beside(whep: &Url, host: &str, stats: &Stats, from: Ipv4Addr) -> Vec<Way> {
    let default = stats.streams.first().map(|stream| stream.name.clone());
    let named = stream_of(whep).filter(|name| Some(name) != default.as_ref());
    let place = match &named {
        None => Some(0),
        Some(name) => place_of(name, &stats.streams),
    };
    let rtp = place.and_then(|place| rtp_destination(stats, from, place)).map(Way::Rtp);
    let path = named.map(|name| format!("/{name}"));
    let mut urls = stats.rtsp.iter().flat_map(|rtsp| &rtsp.urls).filter_map(|url| Url::parse(url).ok());
    let url = urls.find(|url| path.as_ref().is_none_or(|path| url.path() == path));
    let rtsp = url.and_then(|mut url| {
        // The server may know itself by another address.
        url.set_host(Some(host)).ok()?;
        Some(Way::Rtsp(Camera::from(url)))
    });
    rtp.into_iter().chain(rtsp).collect()
}

/// The name of the stream that a WHEP endpoint of rov-server names, behind its path or in its query; none: the default.
fn stream_of(whep: &Url) -> Option<String> {
    let name = whep.query_pairs().find(|(key, _)| key == "stream").map(|(_, name)| name.into_owned());
    let behind = whep.path().split_once(&format!("{WHEP_PATH}/"));
    let behind = behind.map(|(_, name)| name.replace("%2F", "/").replace("%2f", "/"));
    behind.filter(|name| !name.is_empty()).or(name)
}

/// Where a server sends RTP that can be received here: to a group rather than to one machine, which may be another.
fn rtp_destination(stats: &Stats, from: Ipv4Addr, place: usize) -> Option<Source> {
    let all = &stats.rtp.as_ref()?.destinations;
    // Older servers with one stream tell all alone.
    let destinations = stats.streams.get(place).map(|stream| &stream.rtp).filter(|own| !own.is_empty());
    let destinations = destinations.or(Some(all).filter(|_| stats.streams.len() <= 1))?;
    let addresses: Vec<SocketAddrV4> = destinations.iter().filter_map(|text| text.parse().ok()).collect();
    let address = addresses.iter().find(|address| address.ip().is_multicast()).or(addresses.first())?;
    let port = Some(address.port()).filter(|port| (1..=rtp::HIGHEST_PORT).contains(port))?;
    let codec = stats.streams.get(place).map_or(Ok(Codec::H264), |stream| stream.codec.parse()).ok()?;
    let ssrc = stats.streams.get(place).and_then(|stream| stream.rtp_ssrc);
    let (from, payload_type) = (Some(from), Some(codec.payload_type()));
    Some(Source { host: *address.ip(), port, from, ssrc, payload_type, codec, fec: false })
}

/// `fallback`: what is taken instead of the RTP and RTSP that are announced beside WebRTC.
fn located(
    found: &Found,
    chosen: Option<Transport>,
    must_prove: bool,
    fallback: Option<Vec<Way>>,
) -> Result<Located, SessionError> {
    let announcement = &found.announcement;
    let scheme = if announcement.tls.is_some() { "https" } else { "http" };
    let api = Url::parse(&format!("{scheme}://{}", found.address)).context("the announced address is no URL")?;
    let label = format!("{} ({})", announcement.name, found.address);
    let mut all = ways(announcement, found.address.ip(), &api);
    if let (Some(fallback), Some(Way::WebRtc(_))) = (fallback, all.first()) {
        all.truncate(1);
        // What was learnt is of the session before: by now it may have started anew.
        let ssrc = announcement.rtp.and_then(|rtp| rtp.ssrc);
        all.extend(fallback.into_iter().map(|way| match way {
            Way::Rtp(source) => Way::Rtp(Source { ssrc, ..source }),
            way => way,
        }));
    }
    let codec = announcement.streams.first().and_then(|stream| stream.codec.parse().ok());
    let has: Vec<_> = all.iter().map(|way| way.transport().name()).collect();
    let has = if has.is_empty() { "nothing that this program knows".to_owned() } else { has.join(", ") };
    let is_chosen = |way: &Way| chosen.is_none_or(|chosen| chosen == way.transport());
    // WebRTC alone proves a key.
    let proves = |way: &Way| !must_prove || way.transport() == Transport::WebRtc;
    let ways: Vec<_> = all.into_iter().filter(|way| is_chosen(way) && proves(way)).collect();
    if ways.is_empty() {
        let wanted = chosen.unwrap_or(Transport::WebRtc).name();
        let reason = format!(
            "{label} does not send by {wanted}, only by {has}: start rov-server with {wanted} among its --transport, or \
             this program with --transport auto"
        );
        return Err(SessionError::no_way(reason));
    }
    Ok(Located {
        ways,
        label,
        stats: api.join(STATS_PATH).ok(),
        codec,
        stream: match announcement.streams.as_slice() {
            [default, _, ..] => default.name.clone(),
            _ => String::new(),
        },
        name: announcement.name.clone(),
        address: found.address.to_string(),
        found: Some(found.clone()),
        is_chosen: false,
        must_prove,
        whole: None,
    })
}

/// How a server that announces itself from `ip` can be reached, the best first: WebRTC recovers what is lost; RTP at
/// least has no delay of its own.
fn ways(announcement: &Announcement, ip: IpAddr, api: &Url) -> Vec<Way> {
    let mut ways = Vec::new();
    if announcement.transports.iter().any(|transport| transport == Transport::WebRtc.name()) {
        let path = if announcement.whep.starts_with('/') { &announcement.whep } else { WHEP_PATH };
        ways.extend(api.join(path).ok().map(Way::WebRtc));
    }
    // Without a stream in the announcement it is what it always was.
    let codec = announcement.streams.first().map_or(Ok(Codec::H264), |stream| stream.codec.parse());
    if let (Some(rtp), IpAddr::V4(from), Ok(codec)) = (announcement.rtp, ip, codec) {
        ways.push(Way::Rtp(Source {
            host: rtp.host,
            port: rtp.port,
            from: Some(from),
            ssrc: rtp.ssrc,
            payload_type: Some(codec.payload_type()),
            codec,
            fec: rtp.fec,
        }));
    }
    if let Some(rtsp) = &announcement.rtsp {
        let url = Url::parse(&format!("rtsp://{}{}", SocketAddr::new(ip, rtsp.port), rtsp.path)).ok();
        ways.extend(url.map(|url| Way::Rtsp(Camera::from(url))));
    }
    ways
}

/// The IPv4 address of the machine named `host`.
async fn resolve(host: &str) -> Result<Ipv4Addr, SessionError> {
    let failed = |reason: String| SessionError::no_way(format!("cannot find {host}: {reason}"));
    let found = tokio::net::lookup_host((host, 0)).await.map_err(|error| failed(error.to_string()))?;
    let ipv4 = found.filter_map(|address| match address.ip() {
        IpAddr::V4(ip) => Some(ip),
        IpAddr::V6(_) => None,
    });
    ipv4.into_iter().next().ok_or_else(|| failed("it has no IPv4 address".to_owned()))
}

fn nothing_found(discovery: &Discovery, name: Option<&str>, config: &SessionConfig) -> String {
    let what = name.map_or_else(|| "no server".to_owned(), |name| format!("no server named {name:?}"));
    format!("{what} found within {:.1} s: {}", config.discovery_timeout.as_secs_f64(), discovery.describe())
}

/// One line for each server, for people.
pub fn list(found: &[Found]) -> String {
    let line = |f: &Found| {
        let streams: Vec<String> = f
            .announcement
            .streams
            .iter()
            .map(|s| match s.width {
                // There was no room for it in the announcement, or there has been no picture.
                0 => format!("{} {}", s.name, s.codec),
                width => format!("{} {} {width}x{} {:.0} fps", s.name, s.codec, s.height, s.fps),
            })
            .collect();
        format!("  {}  {}  [{}]", f.announcement.name, f.address, streams.join(", "))
    };
    found.iter().map(line).collect::<Vec<_>>().join("\n")
}

fn list_noted(found: &[Found]) -> String {
    std::iter::once(list(found)).chain(twins(found)).collect::<Vec<_>>().join("\n")
}

/// What is odd about servers that were found: several of one id.
pub fn twins(found: &[Found]) -> Option<String> {
    // One server would be one entry.
    let is_twin = |f: &&Found| found.iter().filter(|other| other.announcement.id == f.announcement.id).count() > 1;
    let twins: Vec<_> = found.iter().filter(is_twin).map(|f| f.address.to_string()).collect();
    (!twins.is_empty()).then(|| format!("  same id at {}: a copied card, or an impostor", twins.join(", ")))
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use rov_common::api::{RtpStats, RtspStats, StreamStats};
    use rov_common::discovery::{RtpInfo, RtspInfo, StreamInfo};

    use super::*;

    fn found() -> Found {
        let announcement = Announcement {
            v: 1,
            id: "7".to_owned(),
            key: None,
            tls: None,
            run: None,
            name: "Nemo".to_owned(),
            version: String::new(),
            signal_port: 8080,
            whep: "/whep".to_owned(),
            transports: vec!["webrtc".to_owned(), "rtp".to_owned(), "rtsp".to_owned()],
            rtp: Some(RtpInfo { host: rtp::DEFAULT_HOST, port: 6000, fec: false, ssrc: None }),
            rtsp: Some(RtspInfo { port: 8554, path: "/stream1".to_owned() }),
            streams: Vec::new(),
        };
        Found::new(announcement, "10.0.0.2:8080".parse().unwrap(), Instant::now())
    }

    #[tokio::test]
    async fn rtp_of_a_host_that_said_its_source_is_received_though_it_does_not_answer_any_more() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = Url::parse(&format!("http://{}/api/stats", listener.local_addr().unwrap())).unwrap();
        let host = RtpHost { name: "127.0.0.1".to_owned(), stats: Some(url) };
        let asked = Source::of_destination(rtp::DEFAULT_HOST, rtp::DEFAULT_PORT);
        for ssrc in [Some(7), None] {
            let stats = Stats {
                rtp: Some(RtpStats { destinations: vec!["239.255.0.9:6000".to_owned()], ..RtpStats::default() }),
                streams: vec![StreamStats {
                    name: "a".to_owned(),
                    codec: "h264".to_owned(),
                    rtp_ssrc: ssrc,
                    ..StreamStats::default()
                }],
                ..Stats::default()
            };
            let body = serde_json::to_string(&stats).unwrap();
            let well = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len());
            let ill = "HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_owned();
            let (mut said, http) = (None, Http::default());
            for (answer, is_well) in [(well, true), (ill, ssrc.is_some())] {
                let serve = async {
                    let (mut socket, _) = listener.accept().await.unwrap();
                    let mut request = [0; 4096];
                    assert_ne!(tokio::io::AsyncReadExt::read(&mut socket, &mut request).await.unwrap(), 0);
                    tokio::io::AsyncWriteExt::write_all(&mut socket, answer.as_bytes()).await.unwrap();
                };
                let (located, ()) = tokio::join!(rtp_of_host(&host, &asked, &http, &mut said), serve);
                let way = located.map(|located| located.ways.first().cloned());
                match (way, is_well) {
                    (Ok(Some(Way::Rtp(source))), true) => {
                        assert_eq!((source.port, source.ssrc), (6000, ssrc));
                        assert_eq!(source.from, Some(std::net::Ipv4Addr::LOCALHOST));
                    }
                    (Err(SessionError::NoWay { .. }), false) => {}
                    (way, _) => panic!("{ssrc:?}: {:?}", way.map(|way| way.is_some())),
                }
            }
        }
    }

    #[test]
    fn the_ways_of_an_announcement_are_tried_from_the_best_on() {
        let server = located(&found(), None, false, None).unwrap();
        let addresses: Vec<_> = server.ways.iter().map(|way| (way.transport().name(), way.address())).collect();
        let expected = [("webrtc", "10.0.0.2:8080"), ("rtp", "239.255.0.1:6000"), ("rtsp", "10.0.0.2:8554")];
        assert_eq!(addresses, expected.map(|(name, address)| (name, address.to_owned())));
        assert!(matches!(&server.ways[1], Way::Rtp(source) if source.from == Some(Ipv4Addr::new(10, 0, 0, 2))));
        assert!(server.ways.iter().skip(1).all(|way| server.supply(way) == Supply::Stream));
    }

    #[tokio::test]
    async fn beside_https_rtsp_gets_no_login_and_nothing_at_all_before_the_certificate_was_shown() {
        let config = |args: &[&str]| {
            let args = [&["rov-client", "--token", "rov_abc"], args].concat();
            crate::cli::Cli::try_parse_from(args).unwrap().session().unwrap()
        };
        let mut by_https = config(&["https://10.0.0.2:8080/whep"]);
        by_https.http.pins = whep::Pins::default();
        let server = named(&by_https, &mut None).await.unwrap().unwrap();
        assert!(server.http_for(&by_https, Transport::WebRtc).unwrap().login.is_some());
        assert!(server.http_for(&by_https, Transport::Rtsp).is_err());
        by_https.http.pins.judge("10.0.0.2:8080", &"a".repeat(64)).unwrap();
        assert_eq!(server.http_for(&by_https, Transport::Rtsp).unwrap().login, None);
        by_https.transport = Some(Transport::Rtsp);
        assert!(server.http_for(&by_https, Transport::Rtsp).unwrap().login.is_some(), "the user's word");
        let in_clear = config(&["10.0.0.3:8080"]);
        let server = named(&in_clear, &mut None).await.unwrap().unwrap();
        assert!(server.http_for(&in_clear, Transport::Rtsp).unwrap().login.is_some());
    }

    #[test]
    fn two_with_one_id_are_noted_under_the_list() {
        let mut twin = found();
        twin.address = "10.0.0.3:8080".parse().unwrap();
        let note = twins(&[found(), twin]).unwrap();
        assert_eq!(note, "  same id at 10.0.0.2:8080, 10.0.0.3:8080: a copied card, or an impostor");
        assert_eq!(twins(&[found()]), None);
    }

    #[test]
    fn whoever_has_to_prove_its_key_is_reached_by_webrtc_alone() {
        let server = located(&found(), None, true, None).unwrap();
        assert!(matches!(server.ways.as_slice(), [Way::WebRtc(_)]));
    }

    #[test]
    fn after_a_proof_what_is_announced_beside_webrtc_does_not_count() {
        let known = Way::Rtsp(Camera::from(Url::parse("rtsp://10.0.0.2:9554/stream1").unwrap()));
        for fallback in [vec![known], Vec::new()] {
            let server = located(&found(), None, false, Some(fallback.clone())).unwrap();
            assert_eq!(server.ways[1..], fallback);
            assert_eq!(server.ways[0].transport(), Transport::WebRtc);
        }
        // Whoever announces no WebRTC was the pilot's choice.
        let mut without = found();
        without.announcement.transports = vec!["rtp".to_owned()];
        let server = located(&without, None, false, Some(Vec::new())).unwrap();
        assert_eq!(server.ways.len(), 2);
    }

    #[test]
    fn a_transport_that_was_chosen_is_the_only_one_or_an_error_that_says_what_to_do() {
        let server = located(&found(), Some(Transport::Rtsp), false, None).unwrap();
        assert!(matches!(server.ways.as_slice(), [Way::Rtsp(_)]));
        let mut without = found();
        without.announcement.rtp = None;
        let error = located(&without, Some(Transport::Rtp), false, None).unwrap_err().to_string();
        assert!(error.contains("does not send by rtp, only by webrtc, rtsp: start rov-server with rtp"), "{error}");
    }

    #[test]
    fn a_stream_of_mjpeg_is_not_asked_for_by_webrtc_unless_that_is_wanted() {
        let mut mjpeg = found();
        let (name, codec) = ("stream1".to_owned(), "mjpeg".to_owned());
        mjpeg.announcement.streams = vec![StreamInfo { name, codec, width: 1280, height: 720, fps: 30.0 }];
        let names = |found: &Found, chosen| {
            let ways = located(found, chosen, false, None).unwrap().carried().ways;
            ways.iter().map(|way| way.transport().name()).collect::<Vec<_>>()
        };
        assert_eq!(names(&mjpeg, None), ["rtp", "rtsp"]);
        let server = located(&mjpeg, None, false, None).unwrap().carried();
        assert!(server.whole().ways.iter().any(|way| way.transport() == Transport::WebRtc), "for its other streams");
        // A stream that was chosen counts, not the first one.
        let other = Located { codec: Some(Codec::H264), ..server.whole() }.carried();
        assert_eq!(other.ways[0].transport(), Transport::WebRtc);
        assert!(matches!(server.ways[0], Way::Rtp(Source { codec: Codec::Mjpeg, payload_type: Some(26), .. })));
        // The server says why not.
        assert_eq!(names(&mjpeg, Some(Transport::WebRtc)), ["webrtc"]);
        let (rtp, rtsp) = (mjpeg.announcement.rtp.take(), mjpeg.announcement.rtsp.take());
        assert!(rtp.is_some() && rtsp.is_some());
        assert_eq!(names(&mjpeg, None), ["webrtc"]);
    }

    /// Which is heard at two addresses, and has a second camera of MJPEG.
    #[tokio::test]
    async fn a_stream_that_proves_nothing_is_watched_once_another_one_of_its_server_has_proved_the_key() {
        let stats = Stats {
            streams: [("stream1", "h264"), ("cam2", "mjpeg")]
                .map(|(name, codec)| StreamStats {
                    name: name.to_owned(),
                    codec: codec.to_owned(),
                    ..StreamStats::default()
                })
                .into(),
            rtsp: Some(RtspStats { urls: vec!["rtsp://10.0.0.2:8554/stream1".to_owned()], ..RtspStats::default() }),
            ..Stats::default()
        };
        let body = serde_json::to_string(&stats).unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut found = found();
        found.announcement.key = Some("k".to_owned());
        found.address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                let reply =
                    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len());
                let _ = tokio::io::AsyncReadExt::read(&mut socket, &mut [0; 4096]).await;
                let _ = tokio::io::AsyncWriteExt::write_all(&mut socket, reply.as_bytes()).await;
            }
        });
        let config = crate::cli::Cli::try_parse_from(["rov-client", "--stream", "cam2"]).unwrap().session().unwrap();
        let wanted = config.stream.clone().unwrap();
        let server = located(&found, None, true, None).unwrap();
        let refused = server.clone().select(&wanted, &config).await.unwrap_err().to_string();
        assert!(refused.contains("its stream cam2 of MJPEG proves none"), "{refused}");
        let heard = Mutex::default();
        assert_eq!(server.clone().with_proved_ways(&heard).ways.len(), 1, "it has not proved it");
        server.mark_watched(&heard, Transport::WebRtc);
        server.learn(&heard, &stats);
        let chosen = server.with_proved_ways(&heard).select(&wanted, &config).await.unwrap().carried();
        let [Way::Rtsp(camera)] = chosen.ways.as_slice() else { panic!("{:?}", chosen.ways) };
        assert_eq!(camera.url().path(), "/cam2");
    }

    #[test]
    fn the_stream_of_an_endpoint_is_known() {
        let stream = |url: &str| stream_of(&Url::parse(url).unwrap()).unwrap_or_default();
        for (url, named) in [
            ("http://10.0.0.2:8080/whep", ""),
            ("http://10.0.0.2:8080/whep/", ""),
            ("http://10.0.0.2:8080/whep/stream2", "stream2"),
            ("http://10.0.0.2/boats/rov1/whep/cam2/stream1", "cam2/stream1"),
            ("http://10.0.0.2:8080/whep/cam2%2Fstream1", "cam2/stream1"),
            ("http://10.0.0.2:8080/whep?stream=cam2%2Fstream1", "cam2/stream1"),
            ("http://10.0.0.2:8889/mystream/whep", ""),
        ] {
            assert_eq!(stream(url), named, "{url}");
            assert_eq!(Located::at_endpoint(&Url::parse(url).unwrap()).public().stream, named, "{url}");
        }
    }

    #[test]
    fn by_rtp_the_source_is_that_of_the_stream_that_the_endpoint_names() {
        let stream = |camera: &str, name: &str, ssrc| StreamStats {
            camera: camera.to_owned(),
            name: name.to_owned(),
            rtp_ssrc: Some(ssrc),
            ..StreamStats::default()
        };
        let streams = vec![stream("bow", "stream1", 1), stream("bow", "stream2", 2), stream("arm", "arm/stream1", 3)];
        let stats = Stats { streams, ..Stats::default() };
        for (path, ssrc) in [("", 1), ("/stream2", 2), ("/bow/stream2", 2), ("/arm/stream1", 3)] {
            let url = Url::parse(&format!("http://10.0.0.2:8080/whep{path}")).unwrap();
            assert_eq!(Located::at_endpoint(&url).ssrc(&stats), Some(ssrc), "{path}");
        }
    }

    #[test]
    fn another_way_is_to_the_same_stream() {
        let urls = ["/stream1", "/live", "/bow/stream1", "/stream2", "/arm/stream1"];
        let urls = urls.map(|path| format!("rtsp://192.168.2.2:8554{path}")).into();
        let destinations = vec!["239.255.0.1:5004".to_owned(), "239.255.0.1:5008".to_owned()];
        let stats = Stats {
            streams: vec![StreamStats {
                name: "stream1".to_owned(),
                codec: "h264".to_owned(),
                ..StreamStats::default()
            }],
            rtp: Some(RtpStats { destinations, ..RtpStats::default() }),
            rtsp: Some(RtspStats { urls, ..RtspStats::default() }),
            ..Stats::default()
        };
        let ways = |whep: &str| {
            let whep = Url::parse(&format!("http://10.0.0.2:8080{whep}")).unwrap();
            let ways = ways_beside(&whep, "10.0.0.2", &stats, Ipv4Addr::new(10, 0, 0, 2));
            let address = |way: &Way| match way {
                Way::Rtsp(camera) => camera.url().to_string(),
                way => way.address(),
            };
            ways.iter().map(address).collect::<Vec<_>>()
        };
        let default = ["239.255.0.1:5004", "rtsp://10.0.0.2:8554/stream1"];
        assert_eq!(ways("/whep"), default);
        assert_eq!(ways("/whep/stream1"), default);
        assert_eq!(ways("/whep?stream=arm/stream1"), ["rtsp://10.0.0.2:8554/arm/stream1"]);
        assert_eq!(ways("/whep/other"), [""; 0]);
    }

    #[test]
    fn of_several_destinations_a_group_is_taken() {
        let from = Ipv4Addr::new(10, 0, 0, 2);
        let stats = |destinations: &[&str]| {
            let destinations = destinations.iter().map(|text| (*text).to_owned()).collect();
            let rtp = Some(RtpStats { destinations, ..RtpStats::default() });
            rtp_destination(&Stats { rtp, rtsp: Some(RtspStats::default()), ..Stats::default() }, from, 0)
        };
        let host = |found: Option<Source>| found.map(|source| source.destination());
        assert_eq!(host(stats(&["10.0.0.9:5004", "239.1.1.1:5004"])).as_deref(), Some("239.1.1.1:5004"));
        assert_eq!(host(stats(&["10.0.0.9:5004"])).as_deref(), Some("10.0.0.9:5004"));
        assert_eq!(host(stats(&["nonsense", "239.1.1.1:65535"])), None);
    }
}
