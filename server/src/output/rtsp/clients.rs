//! Who is connected: what each is allowed to take of the server, and what the log says of it.

mod admission;

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use gstreamer::glib;
use gstreamer::glib::translate::{ToGlibPtr, from_glib_none};
use gstreamer_rtsp::RTSPStatusCode;
use gstreamer_rtsp::ffi as gst_rtsp;
use gstreamer_rtsp_server as rtsp;
use gstreamer_rtsp_server::gio;
use gstreamer_rtsp_server::prelude::*;
use rov_common::api::{RtspCarrier, RtspSession};
use rov_common::net;
use rov_common::sync::lock;
use socket2::SockRef;

use self::admission::Waiting;
use super::factory::Multicast;
use super::gate::{self, Gate};
use super::paths::{Content, Paths};
use super::reports::{self, Receiver};
use super::requests::{agreed, transport_problem, wants_multicast};
use super::{Seats, Served};
use crate::inlet::Inlet;
use crate::log_limit::{LINES, Line, Lines, PERIOD};
use crate::output::places::{Place, PlaceState, gives_way};
use crate::output::takers::Taker;
use crate::users::{Caller, Denied, LoginError, User};

/// Connections without a session, beside those that may have one: for clients that only ask.
const MORE_CONNECTIONS: usize = 16;
/// Sessions that have to go while another takes their place; they are there for milliseconds.
const LEAVING_SESSIONS: usize = 64;
/// A connection without a session is closed after so long.
const IDLE_LIMIT: Duration = Duration::from_secs(30);
/// A session that has not played after so long ends; players begin at once.
const PLAY_LIMIT: Duration = Duration::from_secs(10);
/// A connection may be refused so often for want of the password, and is closed at the next. Each refusal leaves a
/// nonce in memory until the connection ends.
const MAX_REFUSALS: u32 = 20;
/// A session that shows no sign of life ends after so long (RFC 2326 section 12.37; clients are told).
const SESSION_TIMEOUT_S: u32 = 30;
/// A client by TCP that has not taken all it was sent for so long is too slow for the stream. What it would show grows
/// old, and what it has not taken fills the memory.
const SLOW_LIMIT: Duration = Duration::from_secs(3);
/// Players start recordings, seek and recover from lost packets at keyframes only, and most cannot ask for one.
const KEYFRAME_INTERVAL: Duration = Duration::from_secs(2);
/// Between two looks at what receivers report, which come seconds apart.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// So much of a path is shown in the log, in characters.
const SHOWN_PATH: usize = 100;

pub(super) struct Clients {
    server: rtsp::RTSPServer,
    state: Arc<State>,
    sessions: Sessions,
    looked_at: Mutex<Instant>,
    keyframe_asked: Mutex<Instant>,
}

/// Written by [`Clients::care`].
pub(super) type Sessions = Arc<Mutex<Vec<RtspSession>>>;

/// What those who come may have.
pub(super) struct Rules {
    pub seats: Seats,
    /// Whether a login in clear is taken.
    pub takes_basic: bool,
    pub paths: Paths,
    /// The stream that is published, and where that goes; none: nobody may publish.
    pub inlet: Option<(usize, Arc<Inlet>)>,
}

struct State {
    me: Weak<State>,
    server: glib::WeakRef<rtsp::RTSPServer>,
    rules: Rules,
    served: Arc<[Served]>,
    /// Where requests are handled.
    context: glib::MainContext,
    /// By the address of the object, which is unique while the client is connected.
    known: Mutex<HashMap<usize, Client>>,
    lines: Mutex<Lines>,
    /// Whether requests that wait are looked at.
    looks: AtomicBool,
}

struct Client {
    /// Its address, its port, and both.
    host: IpAddr,
    port: Option<u16>,
    peer: String,
    /// What it plays, or played last.
    path: Option<String>,
    content: Option<Content>,
    playing: bool,
    /// It sends a stream.
    recording: bool,
    /// Since when it is connected, has a session, plays or does not play any more, whichever came last; or those of the
    /// same address that gave way to it.
    since: Instant,
    /// It sends a stream, or is about to.
    announced: bool,
    /// By which it was set up last.
    carrier: RtspCarrier,
    rtcp_port: Option<u16>,
    /// When it began to play, and what the stream had been fed then.
    began: (Instant, u64),
    /// It has to go, for this reason; its connection is about to be closed.
    leaving: Option<String>,
    /// Identifiers of its sessions.
    sessions: Vec<glib::GString>,
    /// Since when it has no session.
    idle_since: Instant,
    /// Since when it has a session that has never played.
    set_up_since: Option<Instant>,
    /// Answers that asked it for the password since it had a session.
    refusals: u32,
    /// What it was refused for want of a login, and has not come back for with one.
    turned_away: Option<String>,
    /// Since when data for it waits in the kernel.
    unsent_since: Option<Instant>,
    /// Who has logged in by it.
    user: Option<User>,
    /// The login that was wrong last, as `Users::mark` has it.
    wrong: Option<[u8; 32]>,
    /// Its request that waits, and since when.
    waiting: Option<Waiting>,
    waits_since: Option<Instant>,
}

impl Clients {
    /// Everything is handled in `context`; `gate` is the authentication of the server.
    pub fn new(
        server: &rtsp::RTSPServer,
        gate: &Gate,
        context: &glib::MainContext,
        served: Arc<[Served]>,
        rules: Rules,
    ) -> Self {
        if let Some(pool) = server.session_pool() {
            pool.set_max_sessions((rules.seats.max_clients + LEAVING_SESSIONS) as u32);
        }
        let state = Arc::new_cyclic(|me| State {
            me: Weak::clone(me),
            server: server.downgrade(),
            rules,
            served,
            context: context.clone(),
            known: Mutex::default(),
            lines: Mutex::default(),
            looks: AtomicBool::new(false),
        });
        let arrivals = Arc::clone(&state);
        server.connect_client_connected(move |_, client| State::arrived(&arrivals, client));
        let [requests, logins, wishes] = [(); 3].map(|()| Arc::downgrade(&state));
        gate.set_judges(
            move |context| requests.upgrade().is_none_or(|state| state.admit(context)),
            move |context| logins.upgrade().is_none_or(|state| state.asks(context)),
            move |context| wishes.upgrade().is_none_or(|state| state.serves(context)),
        );
        let now = Instant::now();
        Self {
            server: server.clone(),
            state,
            sessions: Sessions::default(),
            looked_at: Mutex::new(now),
            keyframe_asked: Mutex::new(now),
        }
    }

    /// Those that play, for the statistics.
    pub fn sessions(&self) -> Sessions {
        Arc::clone(&self.sessions)
    }

    /// Closes what has no right to stay, and asks for keyframes. To be called now and then on the thread of the server.
    pub fn care(&self) {
        let now = Instant::now();
        if let Some((_, inlet)) = &self.state.rules.inlet {
            inlet.look(now);
        }
        let failed: Vec<_> = self.state.failed().collect();
        for Content { stream, mjpeg } in &failed {
            let (name, what) =
                (self.state.served[*stream].feeder.stream.name(), if *mjpeg { "MJPEG" } else { "video" });
            tracing::error!(
                stream = name,
                "the RTSP media of {what} has failed: its clients are disconnected, and may come again"
            );
        }
        for client in self.server.client_filter(None) {
            let unsent = unsent(&client);
            let has_session = !client.session_filter(None).is_empty();
            if !has_session {
                // Its time was over.
                self.state.stops(&client);
            }
            let reason = self.state.with(&client, |known| known.look(now, has_session, unsent)).flatten();
            let reason = reason.or_else(|| self.state.look_at_publisher(&client, now));
            let played = self.state.with(&client, |known| known.content).flatten();
            // One that has not played yet may have come for any of them.
            let broken = played.map_or(!failed.is_empty(), |content| failed.contains(&content));
            if let Some(reason) = reason.as_deref().or(broken.then_some("the media has failed")) {
                self.state.say_closed(&client, reason);
                client.close();
            }
        }
        let mut looked_at = lock(&self.looked_at);
        if now.saturating_duration_since(*looked_at) >= LOOK_INTERVAL {
            *looked_at = now;
            *lock(&self.sessions) = self.state.sessions(now);
            self.state.rules.seats.takers.set("RTSP", self.state.takers());
        }
        let mut asked = lock(&self.keyframe_asked);
        if now.saturating_duration_since(*asked) >= KEYFRAME_INTERVAL {
            let mut played = self.state.served.iter().filter(|served| served.feeder.playing() > 0).peekable();
            if played.peek().is_some() {
                *asked = now;
            }
            played.for_each(|served| served.feeder.stream.demand().request_keyframe());
        }
    }
}

impl State {
    fn arrived(this: &Arc<Self>, client: &rtsp::RTSPClient) {
        let (peer, now) = (peer(client), Instant::now());
        tracing::debug!(peer = peer.map(tracing::field::display), "an RTSP client has connected");
        // The end of a picture is not to wait until the peer has acknowledged its beginning.
        if let Some(error) = socket(client).and_then(|socket| SockRef::from(&socket).set_tcp_nodelay(true).err()) {
            tracing::debug!(%error, "TCP_NODELAY");
        }
        lock(&this.known).insert(key(client), Client::new(peer, now));
        let (limit, reason) = (this.rules.seats.max_clients + MORE_CONNECTIONS, "there are too many connections");
        if !this.make_room(client, limit, |_| true, reason) {
            this.with(client, |known| known.leaving = Some(reason.to_owned()));
            this.close_leaving();
        }

        let state = Arc::clone(this);
        client.connect_pre_setup_request(move |client, context| state.may_set_up(client, context));
        let state = Arc::clone(this);
        client.connect_new_session(move |client, session| {
            session.set_timeout(SESSION_TIMEOUT_S);
            state.with(client, |known| {
                known.sessions.extend(session.sessionid());
                known.set_up_since = Some(Instant::now());
            });
        });
        let state = Arc::clone(this);
        let weak = client.downgrade();
        // The bindings have no typed form of this one.
        client.connect("send-message", false, move |_| {
            if let Some(client) = weak.upgrade() {
                rtsp::RTSPContext::with_current_context(|context| State::answers(&state, &client, context));
            }
            None
        });
        let state = Arc::clone(this);
        client.connect_play_request(move |client, context| {
            state.plays(client, path(context));
        });
        let state = Arc::clone(this);
        client.connect_announce_request(move |client, _| state.announces(client));
        let state = Arc::clone(this);
        client.connect_record_request(move |client, context| state.records(client, &path(context)));
        let state = Arc::clone(this);
        client.connect_pause_request(move |client, _| state.stops(client));
        let state = Arc::clone(this);
        client.connect_teardown_request(move |client, _| state.stops(client));
        let state = Arc::clone(this);
        client.connect_closed(move |client| {
            state.stops(client);
            let known = lock(&state.known).remove(&key(client));
            let Some(known) = known else { return };
            tracing::debug!(peer = known.peer, "an RTSP client has disconnected");
            // Players ask once without: only who goes without was refused.
            if let Some(what) = &known.turned_away {
                state.rules.seats.users.refused(&Caller { from: known.host, user: None }, what, Denied::NoLogin);
            }
            // Otherwise they would count until their time is over.
            if let Some(pool) = client.session_pool() {
                for session in known.sessions.iter().filter_map(|id| pool.find(id)) {
                    let _ = pool.remove(&session);
                }
            }
        });
    }

    /// What is to be noted of an answer before it leaves.
    fn answers(&self, client: &rtsp::RTSPClient, context: &rtsp::RTSPContext) {
        let Some(response) = context.response() else { return };
        // The transport that is used, whatever was offered and however it was written.
        if let Some(transport) = gate::header(Some(response), gst_rtsp::GST_RTSP_HDR_TRANSPORT) {
            self.with(client, |known| (known.carrier, known.rtcp_port) = agreed(&transport));
        }
        if gate::method(context) == gst_rtsp::GST_RTSP_OPTIONS && self.rules.inlet.is_none() {
            gate::leave_out(response, &["ANNOUNCE", "RECORD"]);
        }
        if gate::status(response) != Some(gst_rtsp::GST_RTSP_STS_UNAUTHORIZED) {
            return;
        }
        let tried = gate::header(context.request(), gst_rtsp::GST_RTSP_HDR_AUTHORIZATION).is_some();
        let host = self.with(client, |known| {
            known.refusals = known.refusals.saturating_add(1);
            known.turned_away = (!tried).then(|| described(context));
            if known.refusals > MAX_REFUSALS {
                known.leaving = Some(format!("{} failed logins", known.refusals));
            }
            known.host
        });
        if let Some(host) = host.filter(|_| tried) {
            let (users, caller) = (&self.rules.seats.users, Caller { from: host, user: None });
            // One that was not found out to be wrong, as others of its address tried too often, may be right.
            let wrong = self.with(client, |known| known.wrong).flatten();
            let login = self.basic_login(context).filter(|login| wrong == Some(users.mark(login)));
            users.failed(host, login.as_ref(), Instant::now());
            users.refused(&caller, &described(context), LoginError::Wrong);
        }
        self.close_leaving();
    }

    /// Has clients go until fewer than `limit` of the others `among` are left, so that there is a place for `client`.
    /// False where not enough of them give way to it.
    fn make_room(&self, client: &rtsp::RTSPClient, limit: usize, among: impl Fn(usize) -> bool, reason: &str) -> bool {
        let (now, newcomer) = (Instant::now(), key(client));
        let (mut known, pilots) = (lock(&self.known), lock(&self.rules.seats.pilots));
        let Some(host) = known.get(&newcomer).map(|client| client.host) else { return false };
        let fits = loop {
            let stay =
                known.iter().filter(|(key, client)| **key != newcomer && among(**key) && client.leaving.is_none());
            let (keys, places): (Vec<_>, Vec<_>) = stay.map(|(key, client)| (*key, client.place())).unzip();
            if places.len() < limit {
                break true;
            }
            let goes = gives_way(now, &places, host, |address| pilots.rank(address)).map(|at| keys[at]);
            let Some(goes) = goes.and_then(|key| known.get_mut(&key)) else { break false };
            let (is_used, inherits) = (goes.is_used(), (goes.host == host).then_some(goes.since));
            goes.leaving = Some(if is_used { "the pilot needs its place".to_owned() } else { reason.to_owned() });
            if let Some((client, since)) = known.get_mut(&newcomer).zip(inherits.filter(|_| !is_used)) {
                client.since = since;
            }
        };
        drop((known, pilots));
        self.close_leaving();
        fits
    }

    /// Closes the connections of those that have to go: before anything else is read, but not while a request is
    /// handled.
    fn close_leaving(&self) {
        if !lock(&self.known).values().any(|known| known.leaving.is_some()) {
            return;
        }
        let state = Weak::clone(&self.me);
        let close = glib::idle_source_new(Some("rtsp-close"), glib::Priority::HIGH, move || {
            let state = state.upgrade();
            let clients = state.as_ref().and_then(|state| Some(state.server.upgrade()?.client_filter(None)));
            for (state, client) in
                state.iter().flat_map(|state| clients.iter().flatten().map(move |client| (state, client)))
            {
                if let Some(reason) = state.with(client, |known| known.leaving.take()).flatten() {
                    state.say_closed(client, &reason);
                    client.close();
                }
            }
            glib::ControlFlow::Break
        });
        close.attach(Some(&self.context));
    }

    /// Writes a line about a client at this address, unless there have been many.
    fn say(&self, host: IpAddr, write: impl FnOnce()) {
        let line = lock(&self.lines).next(host, Instant::now());
        if line != Line::LeftOut {
            write();
        }
        if line == Line::Last {
            let seconds = PERIOD.as_secs();
            tracing::warn!("{LINES} lines about RTSP clients at {host} within {seconds} s: more are left out");
        }
    }

    /// One session for a connection, as each takes a place; and no multicast where it would end the media for all.
    fn may_set_up(&self, client: &rtsp::RTSPClient, context: &rtsp::RTSPContext) -> RTSPStatusCode {
        let transport = gate::header(context.request(), gst_rtsp::GST_RTSP_HDR_TRANSPORT).unwrap_or_default();
        let Some((playing, announced)) = self.with(client, |known| (known.playing, known.announced)) else {
            return RTSPStatusCode::InternalServerError;
        };
        let path = path(context);
        let refused = |reason: &str| {
            self.with(client, |known| {
                let (peer, path) = (&known.peer, shown(&path));
                self.say(known.host, || tracing::warn!(peer, path, "an RTSP client was refused: {reason}"));
            });
        };
        // A publisher takes no viewer's place.
        if context.session().is_none() && !announced {
            let sessions = client.session_filter(None);
            if playing && !sessions.is_empty() {
                refused("it plays already, and a connection has one session");
                return RTSPStatusCode::MethodNotValidInThisState;
            }
            if sessions.is_empty() {
                self.with(client, |known| known.since = Instant::now());
            }
            // An attempt that failed, before another way of transport.
            if let Some(pool) = client.session_pool() {
                for session in sessions {
                    let _ = pool.remove(&session);
                }
            }
            let clients = self.server.upgrade().map(|server| server.client_filter(None)).unwrap_or_default();
            let others = clients.iter().filter(|other| *other != client && !other.session_filter(None).is_empty());
            let viewers = others.filter(|other| self.with(other, |known| !known.announced) == Some(true));
            let others: HashSet<_> = viewers.map(key).collect();
            let reason = "another client needs its place, and it does not play";
            if !self.make_room(client, self.rules.seats.max_clients, |key| others.contains(&key), reason) {
                refused("as many as --max-viewers allows are playing");
                return RTSPStatusCode::ServiceUnavailable;
            }
        }
        if let Some(problem) = transport_problem(&transport) {
            refused(&format!("in its Transport {problem}"));
            return RTSPStatusCode::UnsupportedTransport;
        }
        let media = self.rules.paths.find(&path).and_then(|content| self.media(content));
        if wants_multicast(&transport) && media.is_some_and(|media| !Multicast::still_works(&media)) {
            refused("multicast has lost its interface; use UDP or TCP");
            return RTSPStatusCode::UnsupportedTransport;
        }
        RTSPStatusCode::Ok
    }

    fn plays(&self, client: &rtsp::RTSPClient, path: String) {
        let content = self.rules.paths.find(&path);
        self.with(client, |known| {
            if !known.playing {
                let (peer, path) = (&known.peer, shown(&path));
                self.say(known.host, || tracing::info!(peer, path, "an RTSP client plays"));
                known.since = Instant::now();
                known.began = (known.since, content.map_or(0, |content| self.fed(content)));
            }
            known.playing = true;
            known.set_up_since = None;
            known.path = Some(path);
            known.content = content;
        });
        self.count();
        if let Some(Content { stream, mjpeg: false }) = content {
            self.served[stream].feeder.stream.demand().request_keyframe();
        }
    }

    /// The media that is fed, if there is one.
    fn media(&self, Content { stream, mjpeg }: Content) -> Option<rtsp::RTSPMedia> {
        let Served { feeder, mjpeg: previews } = &self.served[stream];
        if mjpeg { previews.media() } else { feeder.media() }
    }

    /// Bytes of what everybody there has been sent.
    fn fed(&self, Content { stream, mjpeg }: Content) -> u64 {
        let Served { feeder, mjpeg: previews } = &self.served[stream];
        if mjpeg { previews.fed() } else { feeder.fed() }
    }

    /// Whom each stream is sent to as it is; previews have a rate of their own. However often an address plays a
    /// stream, it counts once, as a group does: by many sessions it would leave nothing for each.
    fn takers(&self) -> Vec<Taker> {
        let known = lock(&self.known);
        let mut counted = HashSet::new();
        let taker = |client: &Client| {
            let Content { stream, mjpeg: false } = client.content? else { return None };
            let address = Some(client.host).filter(|_| client.carrier != RtspCarrier::Multicast);
            counted.insert((address, stream)).then_some(Taker { address, stream, factor: 1.0 })
        };
        known.values().filter(|client| client.playing).filter_map(taker).collect()
    }

    fn sessions(&self, now: Instant) -> Vec<RtspSession> {
        let playing: Vec<_> = {
            let known = lock(&self.known);
            let playing = known.values().filter(|known| known.playing);
            let mut playing: Vec<_> = playing
                .filter_map(|known| {
                    let rtcp_port = if known.is_by_tcp() { known.port } else { known.rtcp_port };
                    let receiver = Receiver { host: known.host, rtcp_port, carrier: known.carrier };
                    Some((known.peer.clone(), known.content?, receiver, known.began))
                })
                .collect();
            playing.sort_by_key(|(.., (began, _))| *began);
            playing
        };
        let mut sessions = Vec::new();
        let mut reports = HashMap::new();
        for (peer, content, receiver, (began, fed)) in &playing {
            let all = playing.iter().filter(|(_, other, ..)| other == content).map(|(_, _, receiver, _)| *receiver);
            let reports = reports
                .entry(*content)
                .or_insert_with(|| self.media(*content).map(|media| reports::of(&media)).unwrap_or_default());
            let report = reports::find(reports, &all.collect::<Vec<_>>(), *receiver);
            sessions.push(RtspSession {
                address: peer.clone(),
                stream: self.served[content.stream].feeder.stream.name().to_owned(),
                mjpeg: content.mjpeg,
                transport: receiver.carrier,
                playing_s: now.saturating_duration_since(*began).as_secs_f64(),
                bytes: self.fed(*content).saturating_sub(*fed),
                packet_loss: report.map(|report| report.loss),
                jitter: report.map(|report| report.jitter_ms),
                rtt: report.and_then(|report| report.rtt_ms),
            });
        }
        sessions
    }

    /// The media that are played and have failed.
    fn failed(&self) -> impl Iterator<Item = Content> {
        let all = (0..self.served.len()).flat_map(|stream| [false, true].map(|mjpeg| Content { stream, mjpeg }));
        all.filter(|content| {
            let Served { feeder, mjpeg } = &self.served[content.stream];
            let playing = if content.mjpeg { mjpeg.playing() } else { feeder.playing() };
            let media = (playing > 0).then(|| self.media(*content)).flatten();
            media.is_some_and(|media| media.status() == rtsp::RTSPMediaStatus::Error)
        })
    }

    fn stops(&self, client: &rtsp::RTSPClient) {
        self.with(client, |known| {
            let (peer, path) = (&known.peer, known.path.as_deref().map(shown));
            if std::mem::take(&mut known.playing) {
                known.since = Instant::now();
                self.say(known.host, || tracing::info!(peer, path, "an RTSP client has gone"));
            }
            known.recording = false;
            if self.rules.inlet.as_ref().is_some_and(|(_, inlet)| inlet.ends(key(client))) {
                self.say(known.host, || tracing::info!(peer, "the RTSP publisher has gone"));
            }
        });
        self.count();
    }

    fn say_closed(&self, client: &rtsp::RTSPClient, reason: &str) {
        self.with(client, |known| {
            let (peer, path) = (&known.peer, known.path.as_deref().map(shown));
            self.say(known.host, || tracing::warn!(peer, path, "an RTSP client is disconnected: {reason}"));
        });
    }

    fn count(&self) {
        let known = lock(&self.known);
        for (stream, Served { feeder, mjpeg }) in self.served.iter().enumerate() {
            let of = |mjpeg| {
                let content = Some(Content { stream, mjpeg });
                known.values().filter(|known| known.playing && known.content == content).count()
            };
            feeder.set_playing(of(false));
            mjpeg.set_playing(of(true));
        }
    }

    fn with<T>(&self, client: &rtsp::RTSPClient, act: impl FnOnce(&mut Client) -> T) -> Option<T> {
        lock(&self.known).get_mut(&key(client)).map(act)
    }
}

impl Client {
    fn new(peer: Option<SocketAddr>, now: Instant) -> Self {
        Self {
            host: peer.map_or(Ipv4Addr::UNSPECIFIED.into(), |peer| peer.ip().to_canonical()),
            port: peer.map(|peer| peer.port()),
            peer: peer.map_or_else(|| "?".to_owned(), |peer| peer.to_string()),
            path: None,
            content: None,
            playing: false,
            recording: false,
            since: now,
            announced: false,
            carrier: RtspCarrier::default(),
            rtcp_port: None,
            began: (now, 0),
            leaving: None,
            sessions: Vec::new(),
            idle_since: now,
            set_up_since: None,
            refusals: 0,
            turned_away: None,
            unsent_since: None,
            user: None,
            wrong: None,
            waiting: None,
            waits_since: None,
        }
    }

    /// It has what it came for.
    fn is_used(&self) -> bool {
        self.playing || self.recording
    }

    fn is_by_tcp(&self) -> bool {
        self.carrier == RtspCarrier::Tcp
    }

    fn place(&self) -> Place {
        let state = match self.is_used() {
            // Others may publish when it is gone.
            true => PlaceState::Connected { silent: false, pilot: self.recording },
            false => PlaceState::Idle,
        };
        Place { address: self.host, since: self.since, state }
    }

    /// Why it cannot stay, if so.
    fn look(&mut self, now: Instant, has_session: bool, unsent: bool) -> Option<String> {
        if has_session {
            self.idle_since = now;
            self.refusals = 0;
        } else {
            self.set_up_since = None;
        }
        let since = self.unsent_since.filter(|_| unsent);
        self.unsent_since = unsent.then_some(since.unwrap_or(now));
        let waits = |since: Instant, limit| now.saturating_duration_since(since) >= limit;
        if self.unsent_since.is_some_and(|since| waits(since, SLOW_LIMIT)) {
            Some(format!(
                "it has not kept up with the stream for {} s; use UDP, or lower --bitrate",
                SLOW_LIMIT.as_secs()
            ))
        } else if self.set_up_since.is_some_and(|since| waits(since, PLAY_LIMIT)) {
            Some(format!("it has not played within {} s", PLAY_LIMIT.as_secs()))
        } else if waits(self.idle_since, IDLE_LIMIT) {
            Some(format!("it had no session for {} s", IDLE_LIMIT.as_secs()))
        } else {
            None
        }
    }
}

pub(super) fn key(client: &rtsp::RTSPClient) -> usize {
    client.as_ptr() as usize
}

/// A request, for the log.
fn described(context: &rtsp::RTSPContext) -> String {
    format!("RTSP {} {}", gate::method_name(context), shown(&path(context)))
}

/// The path of a request, without what follows the stream's.
fn path(context: &rtsp::RTSPContext) -> String {
    gate::path(context).trim_end_matches('/').to_owned()
}

/// The beginning of a path, for the log.
fn shown(path: &str) -> &str {
    path.char_indices().nth(SHOWN_PATH).map_or(path, |(at, _)| &path[..at])
}

fn peer(client: &rtsp::RTSPClient) -> Option<SocketAddr> {
    let address = socket(client)?.remote_address().ok()?.downcast::<gio::InetSocketAddress>().ok()?;
    Some(SocketAddr::new(address.address().to_str().parse().ok()?, address.port()))
}

/// Whether the kernel holds data that it has not sent yet. What does not fit there waits in this process.
fn unsent(client: &rtsp::RTSPClient) -> bool {
    socket(client).is_some_and(|socket| net::has_unsent(&socket))
}

/// The socket that answers, and video by TCP, go to. On the thread of the server only: another could be closing it.
fn socket(client: &rtsp::RTSPClient) -> Option<gio::Socket> {
    // SAFETY: a client keeps its connection until it is freed, and the connection the socket until it is closed; here
    // it gets a reference of its own.
    unsafe {
        let connection = rtsp::ffi::gst_rtsp_client_get_connection(client.to_glib_none().0);
        if connection.is_null() {
            return None;
        }
        from_glib_none(gst_rtsp::gst_rtsp_connection_get_write_socket(connection))
    }
}

/// The socket that interleaved packets of the client come from. None where it goes through HTTP, in which they cannot
/// be seen.
pub(super) fn interleaved(client: &rtsp::RTSPClient) -> Option<gio::Socket> {
    // SAFETY: as in `socket`.
    let is_tunneled = unsafe {
        let connection = rtsp::ffi::gst_rtsp_client_get_connection(client.to_glib_none().0);
        connection.is_null() || gst_rtsp::gst_rtsp_connection_is_tunneled(connection) != glib::ffi::GFALSE
    };
    socket(client).filter(|_| !is_tunneled)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::places::SPECTATOR;

    #[test]
    fn a_client_that_never_takes_all_it_was_sent_has_to_go() {
        let start = Instant::now();
        let mut client = Client::new(None, start);
        assert_eq!(client.look(start, true, true), None);
        assert_eq!(client.look(start + SLOW_LIMIT / 2, true, true), None);
        let reason = client.look(start + SLOW_LIMIT, true, true).expect("a reason");
        assert!(reason.contains("--bitrate"), "{reason}");
    }

    #[test]
    fn a_client_that_catches_up_may_stay() {
        let start = Instant::now();
        let mut client = Client::new(None, start);
        for half in 0..20 {
            assert_eq!(client.look(start + SLOW_LIMIT / 2 * half, true, half % 2 == 0), None);
        }
    }

    #[test]
    fn a_connection_without_a_session_is_closed_in_the_end() {
        let start = Instant::now();
        let mut client = Client::new(None, start);
        assert_eq!(client.look(start + IDLE_LIMIT * 2, true, false), None);
        assert_eq!(client.look(start + IDLE_LIMIT * 2 + IDLE_LIMIT / 2, false, false), None);
        assert!(client.look(start + IDLE_LIMIT * 3, false, false).is_some());
    }

    #[test]
    fn who_plays_keeps_its_place_and_who_has_played_does_not() {
        let start = Instant::now();
        let mut client = Client::new("10.0.0.2:4000".parse().ok(), start);
        let gives_way = |client: &Client| {
            let newcomer = IpAddr::from([10, 0, 0, 3]);
            gives_way(start + Duration::from_secs(60), &[client.place()], newcomer, |_| SPECTATOR).is_some()
        };
        assert!(gives_way(&client));
        client.playing = true;
        assert!(!gives_way(&client));
        client.playing = false;
        assert!(gives_way(&client));
        client.recording = true;
        assert!(!gives_way(&client));
    }

    #[test]
    fn a_session_that_never_plays_ends() {
        let start = Instant::now();
        let mut client = Client::new(None, start);
        client.set_up_since = Some(start);
        assert_eq!(client.look(start + PLAY_LIMIT / 2, true, false), None);
        let reason = client.look(start + PLAY_LIMIT, true, false).expect("a reason");
        assert!(reason.contains("not played"), "{reason}");
    }
}
