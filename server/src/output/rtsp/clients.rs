//! Who is connected: what each is allowed to take of the server, and what the log says of it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use gstreamer::glib;
use gstreamer::glib::translate::{ToGlibPtr, from_glib_none};
use gstreamer_rtsp as gst_rtsp;
use gstreamer_rtsp::RTSPStatusCode;
use gstreamer_rtsp_server as rtsp;
use gstreamer_rtsp_server::gio;
use gstreamer_rtsp_server::prelude::*;
use rov_common::api::StreamState;
use rov_common::net;
use rov_common::sync::lock;
use socket2::SockRef;
use url::Url;

use super::factory::Multicast;
use super::feed::Feeder;
use super::mjpeg::Mjpeg;
use crate::config::{MJPEG_PATH, is_mjpeg};

/// Connections without a session, beside those that may have one: for clients that only ask, and for one more that is to
/// be refused politely.
const MORE_CONNECTIONS: usize = 16;
/// A connection without a session is closed after so long.
const IDLE_LIMIT: Duration = Duration::from_secs(30);
/// A session that does not play takes the place of one that would; players begin at once.
const PLAY_LIMIT: Duration = Duration::from_secs(10);
/// A connection may be refused so often for want of the password. Each refusal leaves a nonce in memory until the connection
/// ends.
const MAX_REFUSALS: u32 = 20;
/// A session that shows no sign of life ends after so long (RFC 2326 section 12.37; clients are told).
const SESSION_TIMEOUT_S: u32 = 30;
/// A client by TCP that has not taken all it was sent for so long is too slow for the stream. What it would show grows old,
/// and what it has not taken fills the memory.
const SLOW_LIMIT: Duration = Duration::from_secs(3);
/// Players start recordings, seek and recover from lost packets at keyframes only, and most cannot ask for one.
const KEYFRAME_INTERVAL: Duration = Duration::from_secs(2);

pub(super) struct Clients {
    server: rtsp::RTSPServer,
    state: Arc<State>,
    keyframe_asked: Mutex<Instant>,
}

struct State {
    feeder: Arc<Feeder>,
    mjpeg: Arc<Mjpeg>,
    max_connections: usize,
    /// By the address of the object, which is unique while the client is connected.
    known: Mutex<HashMap<usize, Client>>,
}

struct Client {
    /// Address and port.
    peer: String,
    /// What it plays, or played last.
    path: Option<String>,
    playing: bool,
    /// It came when there were enough connections.
    excess: bool,
    /// Identifiers of its sessions.
    sessions: Vec<glib::GString>,
    /// Since when it has no session.
    idle_since: Instant,
    /// Since when it has a session that has never played.
    set_up_since: Option<Instant>,
    /// Answers that asked it for the password since it had a session.
    refusals: u32,
    /// Since when data for it waits in the kernel.
    unsent_since: Option<Instant>,
}

impl Clients {
    pub fn new(server: &rtsp::RTSPServer, feeder: &Arc<Feeder>, mjpeg: &Arc<Mjpeg>, max_clients: usize) -> Self {
        let state = Arc::new(State {
            feeder: Arc::clone(feeder),
            mjpeg: Arc::clone(mjpeg),
            max_connections: max_clients + MORE_CONNECTIONS,
            known: Mutex::default(),
        });
        let arrivals = Arc::clone(&state);
        server.connect_client_connected(move |_, client| State::arrived(&arrivals, client));
        Self { server: server.clone(), state, keyframe_asked: Mutex::new(Instant::now()) }
    }

    /// Closes what has no right to stay, and asks for keyframes. To be called now and then on the thread of the server.
    pub fn care(&self) {
        let now = Instant::now();
        let failed =
            |media: Option<rtsp::RTSPMedia>| media.is_some_and(|media| media.status() == rtsp::RTSPMediaStatus::Error);
        let State { feeder, mjpeg, .. } = &*self.state;
        let broken = feeder.playing() > 0 && failed(feeder.media()) || mjpeg.playing() > 0 && failed(mjpeg.media());
        if broken {
            tracing::error!("the RTSP media has failed: its clients are disconnected, and may come again");
        }
        for client in self.server.client_filter(None) {
            let unsent = unsent(&client);
            let has_session = !client.session_filter(None).is_empty();
            if !has_session {
                // Its time was over.
                self.state.stops(&client);
            }
            let reason = self.state.with(&client, |known| known.look(now, has_session, unsent)).flatten();
            if let Some(reason) = reason.as_deref().or(broken.then_some("the media has failed")) {
                self.state.say_closed(&client, reason);
                client.close();
            }
        }
        let mut asked = lock(&self.keyframe_asked);
        if self.state.feeder.playing() > 0 && now.saturating_duration_since(*asked) >= KEYFRAME_INTERVAL {
            *asked = now;
            self.state.feeder.stream.request_keyframe();
        }
    }
}

impl State {
    fn arrived(this: &Arc<Self>, client: &rtsp::RTSPClient) {
        let peer = peer(client);
        tracing::debug!(peer, "an RTSP client has connected");
        // The end of a picture is not to wait until the peer has acknowledged its beginning.
        if let Some(error) = socket(client).and_then(|socket| SockRef::from(&socket).set_tcp_nodelay(true).err()) {
            tracing::debug!(%error, "TCP_NODELAY");
        }
        {
            let mut known = lock(&this.known);
            let excess = known.len() >= this.max_connections;
            known.insert(key(client), Client { excess, ..Client::new(peer, Instant::now()) });
        }

        let state = Arc::clone(this);
        client.connect_pre_describe_request(move |client, context| state.may_describe(client, &path(context)));
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
            let refused = rtsp::RTSPContext::with_current_context(asks_for_password).unwrap_or(false);
            if let Some(client) = weak.upgrade().filter(|_| refused) {
                state.with(&client, |known| known.refusals = known.refusals.saturating_add(1));
            }
            None
        });
        let state = Arc::clone(this);
        client.connect_play_request(move |client, context| {
            state.plays(client, path(context));
        });
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
            // Otherwise they would count until their time is over.
            if let Some(pool) = client.session_pool() {
                for session in known.sessions.iter().filter_map(|id| pool.find(id)) {
                    let _ = pool.remove(&session);
                }
            }
        });
    }

    /// A media without pictures would keep the client waiting in vain.
    fn may_describe(&self, client: &rtsp::RTSPClient, path: &str) -> RTSPStatusCode {
        let (state, reason) = self.feeder.stream.health();
        let reason = if state != StreamState::Running || !self.feeder.can_describe() {
            reason.unwrap_or_else(|| "there is no picture now".to_owned())
        } else if is_mjpeg(path) && !self.mjpeg.has_room() {
            "as many as --max-viewers allows are watching MJPEG".to_owned()
        } else {
            return RTSPStatusCode::Ok;
        };
        let peer = self.with(client, |known| known.peer.clone()).unwrap_or_default();
        tracing::warn!(peer, path, "an RTSP client was refused: {reason}");
        RTSPStatusCode::ServiceUnavailable
    }

    /// One session for a connection, as each takes a place; and no multicast where it would end the media for all.
    fn may_set_up(&self, client: &rtsp::RTSPClient, context: &rtsp::RTSPContext) -> RTSPStatusCode {
        let (peer, playing) =
            self.with(client, |known| (known.peer.clone(), known.playing)).unwrap_or_else(|| ("?".to_owned(), false));
        if context.session().is_none() {
            let sessions = client.session_filter(None);
            if playing && !sessions.is_empty() {
                tracing::warn!(peer, "an RTSP client was refused: it plays already, and a connection has one session");
                return RTSPStatusCode::MethodNotValidInThisState;
            }
            // An attempt that failed, before another way of transport.
            if let Some(pool) = client.session_pool() {
                for session in sessions {
                    let _ = pool.remove(&session);
                }
            }
        }
        let path = path(context);
        let media = if path.starts_with(MJPEG_PATH) { self.mjpeg.media() } else { self.feeder.media() };
        if wants_multicast(&transport(context)) && media.is_some_and(|media| !Multicast::still_works(&media)) {
            tracing::warn!(peer, path, "an RTSP client was refused: multicast has lost its interface; use UDP or TCP");
            return RTSPStatusCode::UnsupportedTransport;
        }
        RTSPStatusCode::Ok
    }

    fn plays(&self, client: &rtsp::RTSPClient, path: String) {
        let needs_keyframe = !is_mjpeg(&path);
        self.with(client, |known| {
            if !known.playing {
                tracing::info!(peer = known.peer, path, "an RTSP client plays");
            }
            known.playing = true;
            known.set_up_since = None;
            known.path = Some(path);
        });
        self.count();
        if needs_keyframe {
            self.feeder.stream.request_keyframe();
        }
    }

    fn stops(&self, client: &rtsp::RTSPClient) {
        self.with(client, |known| {
            if std::mem::take(&mut known.playing) {
                tracing::info!(peer = known.peer, path = known.path, "an RTSP client has gone");
            }
        });
        self.count();
    }

    fn say_closed(&self, client: &rtsp::RTSPClient, reason: &str) {
        self.with(client, |known| {
            tracing::warn!(peer = known.peer, path = known.path, "an RTSP client is disconnected: {reason}");
        });
    }

    fn count(&self) {
        let known = lock(&self.known);
        let of = |mjpeg| known.values().filter(|known| known.playing && known.plays_mjpeg() == mjpeg).count();
        self.feeder.set_playing(of(false));
        self.mjpeg.set_playing(of(true));
    }

    fn with<T>(&self, client: &rtsp::RTSPClient, act: impl FnOnce(&mut Client) -> T) -> Option<T> {
        lock(&self.known).get_mut(&key(client)).map(act)
    }
}

impl Client {
    fn new(peer: String, now: Instant) -> Self {
        Self {
            peer,
            path: None,
            playing: false,
            excess: false,
            sessions: Vec::new(),
            idle_since: now,
            set_up_since: None,
            refusals: 0,
            unsent_since: None,
        }
    }

    fn plays_mjpeg(&self) -> bool {
        self.path.as_deref().is_some_and(is_mjpeg)
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
        if self.excess {
            Some("there are too many connections".to_owned())
        } else if self.unsent_since.is_some_and(|since| waits(since, SLOW_LIMIT)) {
            Some(format!(
                "it has not kept up with the stream for {} s; use UDP, or lower --bitrate",
                SLOW_LIMIT.as_secs()
            ))
        } else if self.refusals > MAX_REFUSALS {
            Some(format!("it was asked for the password {} times in vain", self.refusals))
        } else if self.set_up_since.is_some_and(|since| waits(since, PLAY_LIMIT)) {
            Some(format!("it has not played within {} s", PLAY_LIMIT.as_secs()))
        } else if waits(self.idle_since, IDLE_LIMIT) {
            Some(format!("it had no session for {} s", IDLE_LIMIT.as_secs()))
        } else {
            None
        }
    }
}

fn key(client: &rtsp::RTSPClient) -> usize {
    client.as_ptr() as usize
}

/// The path of a request, without what follows the stream's.
fn path(context: &rtsp::RTSPContext) -> String {
    let uri = context.uri().map(|uri| uri.request_uri().to_string()).unwrap_or_default();
    Url::parse(&uri).map(|url| url.path().trim_end_matches('/').to_owned()).unwrap_or(uri)
}

/// The header of a request that says by which transports it can be answered.
fn transport(context: &rtsp::RTSPContext) -> String {
    let Some(request) = context.request() else { return String::new() };
    let mut value = std::ptr::null_mut();
    // SAFETY: the message outlives the call; it keeps the text, which is copied here.
    unsafe {
        gst_rtsp::ffi::gst_rtsp_message_get_header(
            request.to_glib_none().0,
            gst_rtsp::ffi::GST_RTSP_HDR_TRANSPORT,
            &raw mut value,
            0,
        );
        let value: Option<glib::GString> = from_glib_none(value.cast_const());
        value.map(Into::into).unwrap_or_default()
    }
}

/// Whether one of the transports is multicast, which is meant where nothing else is said (RFC 2326 section 12.39).
fn wants_multicast(transport: &str) -> bool {
    let transport = transport.to_ascii_lowercase();
    let mut offers = transport.split(',').filter(|offer| !offer.trim().is_empty());
    offers.any(|offer| !offer.contains("unicast") && !offer.contains("/tcp"))
}

fn asks_for_password(context: &rtsp::RTSPContext) -> bool {
    let Some(response) = context.response() else { return false };
    let mut code = 0;
    // SAFETY: the message outlives the call; what is not asked for may be null.
    let result = unsafe {
        gst_rtsp::ffi::gst_rtsp_message_parse_response(
            response.to_glib_none().0,
            &raw mut code,
            std::ptr::null_mut(),
            std::ptr::null_mut(),
        )
    };
    result == gst_rtsp::ffi::GST_RTSP_OK && code == gst_rtsp::ffi::GST_RTSP_STS_UNAUTHORIZED
}

fn peer(client: &rtsp::RTSPClient) -> String {
    let address = socket(client).and_then(|socket| socket.remote_address().ok());
    let address = address.and_then(|address| address.downcast::<gio::InetSocketAddress>().ok());
    address.map_or_else(|| "?".to_owned(), |peer| format!("{}:{}", peer.address().to_str(), peer.port()))
}

/// Whether the kernel holds data that it has not sent yet. What does not fit there waits in this process.
fn unsent(client: &rtsp::RTSPClient) -> bool {
    socket(client).is_some_and(|socket| net::has_unsent(&socket))
}

/// The socket that answers, and video by TCP, go to. On the thread of the server only: another could be closing it.
fn socket(client: &rtsp::RTSPClient) -> Option<gio::Socket> {
    // SAFETY: a client keeps its connection until it is freed, and the connection the socket until it is closed; here it gets a
    // reference of its own.
    unsafe {
        let connection = rtsp::ffi::gst_rtsp_client_get_connection(client.to_glib_none().0);
        if connection.is_null() {
            return None;
        }
        from_glib_none(gst_rtsp::ffi::gst_rtsp_connection_get_write_socket(connection))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_that_never_takes_all_it_was_sent_has_to_go() {
        let start = Instant::now();
        let mut client = Client::new(String::new(), start);
        assert_eq!(client.look(start, true, true), None);
        assert_eq!(client.look(start + SLOW_LIMIT / 2, true, true), None);
        let reason = client.look(start + SLOW_LIMIT, true, true).expect("a reason");
        assert!(reason.contains("--bitrate"), "{reason}");
    }

    #[test]
    fn a_client_that_catches_up_may_stay() {
        let start = Instant::now();
        let mut client = Client::new(String::new(), start);
        for half in 0..20 {
            assert_eq!(client.look(start + SLOW_LIMIT / 2 * half, true, half % 2 == 0), None);
        }
    }

    #[test]
    fn a_connection_without_a_session_is_closed_in_the_end() {
        let start = Instant::now();
        let mut client = Client::new(String::new(), start);
        assert_eq!(client.look(start + IDLE_LIMIT * 2, true, false), None);
        assert_eq!(client.look(start + IDLE_LIMIT * 2 + IDLE_LIMIT / 2, false, false), None);
        assert!(client.look(start + IDLE_LIMIT * 3, false, false).is_some());
    }

    #[test]
    fn a_session_that_never_plays_ends() {
        let start = Instant::now();
        let mut client = Client::new(String::new(), start);
        client.set_up_since = Some(start);
        assert_eq!(client.look(start + PLAY_LIMIT / 2, true, false), None);
        let reason = client.look(start + PLAY_LIMIT, true, false).expect("a reason");
        assert!(reason.contains("not played"), "{reason}");
    }

    #[test]
    fn multicast_is_recognized_among_transports() {
        for yes in ["RTP/AVP;multicast", "RTP/AVP/UDP;Multicast;ttl=1", "RTP/AVP", "RTP/AVP;unicast,RTP/AVP;multicast"]
        {
            assert!(wants_multicast(yes), "{yes}");
        }
        for no in ["RTP/AVP;unicast;client_port=1-2", "RTP/AVP/TCP;interleaved=0-1", ""] {
            assert!(!wants_multicast(no), "{no}");
        }
    }
}
