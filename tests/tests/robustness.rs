//! What the network may send to a server that has a viewer: nothing of it harms the stream.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};
use rov_client::discovery;
use rov_client::receive::packet::Packet;
use rov_client::receive::webrtc::{Connection, Terms};
use rov_tests::http;
use rov_tests::process::Footprint;
use rov_tests::programs::{Server, free_udp_port};
use rov_tests::proxy::{Exchange, Proxy};
use rov_tests::wait::{self, until, until_true};
use rov_tests::watcher::{Order, Watcher, until_counted};
use tokio::runtime::Runtime;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;
use url::Url;

const SDP: Option<&str> = Some("application/sdp");
const JSON: Option<&str> = Some("application/json");
const FRAGMENT: Option<&str> = Some("application/trickle-ice-sdpfrag");

/// A server with a viewer that must not notice anything.
struct Scene {
    server: Server,
    watcher: Watcher,
    /// The viewer's own.
    exchange: Exchange,
    _proxy: Proxy,
    runtime: Runtime,
}

impl Scene {
    fn new(args: &[&str]) -> Self {
        let server = Server::start(args);
        let runtime = Runtime::new().expect("a runtime");
        // It only listens to what they negotiate.
        let proxy = Proxy::start(&runtime, server.address, "", None);
        let watcher = Watcher::start(&runtime, &["--url", &proxy.url("/whep")]);
        watcher.wait_for_shots(10);
        let exchange = proxy.exchanges().remove(0);
        Self { server, watcher, exchange, _proxy: proxy, runtime }
    }

    fn viewer(&self) -> String {
        self.server.stats().viewers.remove(0).id
    }

    /// The stream goes on, and the viewer has lost nothing.
    fn assert_unharmed(self) {
        self.watcher.wait_for_shots(self.watcher.shown() + 15);
        let (report, order, stats) = (self.watcher.report(), Order::of(&self.watcher.shots()), self.server.stats());
        let skipped = self.watcher.skipped_in_time();
        assert_eq!((report.sessions, report.packets_lost, skipped), (1, 0, 0), "{report:?}");
        assert_eq!(order.out_of_order, 0);
        until_counted(order.missing, &report, || self.server.stats());
        assert_eq!((stats.viewers.len(), stats.streams[0].restarts), (1, 0), "{stats:?}");
        self.watcher.stop(&self.runtime);
    }
}

const H264: &str = "m=video 9 UDP/TLS/RTP/SAVPF 96\r\nc=IN IP4 0.0.0.0\r\na=rtpmap:96 H264/90000\r\n\
    a=fmtp:96 packetization-mode=1;profile-level-id=42e01f\r\n";

/// The beginning of an offer, as far as it does not depend on the media.
fn offer_of(media: &str) -> String {
    format!(
        "v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0\r\na=ice-ufrag:abcd\r\n\
         a=ice-pwd:0123456789012345678901\r\na=fingerprint:sha-256 \
         {}00\r\na=setup:actpass\r\n{media}a=mid:0\r\na=recvonly\r\n\
         a=rtcp-mux\r\n",
        "00:".repeat(31)
    )
}

#[test]
fn bad_requests_get_their_status_and_a_json_error() {
    let scene = Scene::new(&[]);
    let server = &scene.server;
    let viewer = scene.exchange.session.clone();
    let audio = offer_of("m=audio 9 UDP/TLS/RTP/SAVPF 111\r\nc=IN IP4 0.0.0.0\r\na=rtpmap:111 opus/48000/2\r\n");
    let vp8 = offer_of("m=video 9 UDP/TLS/RTP/SAVPF 96\r\nc=IN IP4 0.0.0.0\r\na=rtpmap:96 VP8/90000\r\n");
    let json_audio = serde_json::json!({ "type": "offer", "sdp": audio }).to_string();
    let huge = "v=0\r\n".repeat(200_000);
    for (method, path, content_type, body, status) in [
        ("POST", "/whep", SDP, "hello", 400),
        ("POST", "/whep", SDP, "", 400),
        ("POST", "/whep", SDP, "v=0\r\n", 400),
        ("POST", "/whep", SDP, huge.as_str(), 413),
        ("POST", "/whep", None, "v=0\r\n", 415),
        ("POST", "/whep", Some("text/plain"), "v=0\r\n", 415),
        ("POST", "/whep", JSON, "{}", 415),
        ("POST", "/whep", SDP, &audio, 422),
        ("POST", "/whep?stream=other", SDP, &vp8, 404),
        ("POST", "/whep", SDP, &vp8, 422),
        ("GET", "/whep", None, "", 405),
        ("PUT", "/whep", SDP, "v=0\r\n", 405),
        ("POST", "/offer", JSON, "hello", 400),
        ("POST", "/offer", JSON, "", 400),
        ("POST", "/offer", JSON, "{}", 400),
        ("POST", "/offer", JSON, "[]", 400),
        ("POST", "/offer", JSON, r#"{"type":"offer","sdp":5}"#, 400),
        ("POST", "/offer", JSON, r#"{"type":"offer","sdp":"hello"}"#, 400),
        ("POST", "/offer", JSON, r#"{"type":"answer","sdp":"v=0"}"#, 400),
        ("POST", "/offer", JSON, &json_audio, 422),
        ("POST", "/offer", JSON, &huge, 413),
        ("POST", "/api/webrtc/offer", JSON, "hello", 400),
        ("GET", "/offer", None, "", 405),
        ("DELETE", "/whep/nobody", None, "", 404),
        ("DELETE", "/whep/%ff", None, "", 400),
        ("POST", &viewer, SDP, "v=0\r\n", 404),
        ("POST", "/whep/other", SDP, &vp8, 404),
        ("POST", "/offer?stream=other", JSON, &json_audio, 404),
        ("PATCH", "/whep/nobody", FRAGMENT, "a=candidate:1 1 udp 1 127.0.0.1 9 typ host\r\n", 404),
        ("PATCH", &viewer, FRAGMENT, "garbage", 400),
        ("PATCH", &viewer, FRAGMENT, "a=candidate:garbage\r\n", 400),
        ("PATCH", &viewer, FRAGMENT, "a=candidate:1 1 udp 99999999999999 127.0.0.1 999999 typ host\r\n", 400),
        ("PATCH", &viewer, FRAGMENT, "a=ice-ufrag:another\r\n", 400),
        ("PATCH", &viewer, FRAGMENT, &huge, 413),
        ("PATCH", &viewer, SDP, "v=0\r\n", 415),
        ("GET", "/nothing", None, "", 404),
        ("GET", "/whep/../../etc/passwd", None, "", 404),
        ("POST", "/healthz", None, "", 405),
        ("DELETE", "/api/stats", None, "", 405),
    ] {
        let start = &body[..body.len().min(40)];
        let reply = http::request(method, &server.url(path), content_type, body.as_bytes());
        assert_eq!(reply.status, status, "{method} {path} {content_type:?} {start:?}: {reply:?}");
        assert!(!reply.error().is_empty(), "{method} {path} {start:?}: {reply:?}");
    }
    let not_utf8 = http::request("POST", &server.url("/whep"), SDP, b"v=0\r\n\xff\xfe");
    assert_eq!((not_utf8.status, not_utf8.error().as_str()), (400, "the body is not UTF-8"));
    assert_eq!(server.stats().viewers.len(), 1, "nothing was left behind");
    scene.assert_unharmed();
}

#[test]
fn what_the_statistics_show_of_a_session_does_not_open_it() {
    let scene = Scene::new(&[]);
    let server = &scene.server;
    let (session, shown) = (&scene.exchange.session, scene.viewer());
    let secret = session.strip_prefix(&format!("/whep/{shown}-")).expect("it begins with what is shown");
    assert_eq!((shown.len(), secret.len()), (8, 32), "{session}");
    let change = |method, id: &str, body: &str| {
        http::request(method, &server.url(&format!("/whep/{id}")), FRAGMENT, body.as_bytes()).status
    };
    let candidate = "a=candidate:1 1 udp 2130706431 127.0.0.1 9 typ host\r\n";
    for strange in [&shown, &format!("{shown}-"), secret, &format!("{shown}-{}", "0".repeat(32))] {
        assert_eq!((change("PATCH", strange, candidate), change("DELETE", strange, "")), (404, 404), "{strange}");
    }
    assert_eq!(change("PATCH", &format!("{shown}-{secret}"), candidate), 204);
    let other = http::request("POST", &server.url("/whep"), SDP, offer_of(H264).as_bytes());
    assert_eq!(http::request("DELETE", other.location().as_str(), None, b"").status, 200);
    server.process.logs(&[&shown]);
    assert!(!server.process.stderr().contains(secret), "in the log");
    scene.assert_unharmed();
}

#[test]
fn an_ice_restart_is_answered_and_has_an_entity_tag_of_its_own() {
    let server = Server::start(&[]);
    server.wait_until_running();
    let created = http::request("POST", &server.url("/whep"), SDP, offer_of(H264).as_bytes());
    assert_eq!(created.status, 201, "{created:?}");
    let (session, first) = (created.location(), created.header("etag").to_owned());
    let patch = |tag: &str, body: &str| http::patch(session.as_str(), "application/trickle-ice-sdpfrag", tag, body);
    let restart = "a=ice-ufrag:efgh\r\na=ice-pwd:abcdefghijklmnopqrstuvwx\r\nm=video 9 UDP/TLS/RTP/SAVPF \
                   96\r\na=mid:0\r\n\
                   a=candidate:1 1 udp 2113937151 127.0.0.1 50000 typ host\r\n";
    let restarted = patch("*", restart);
    assert_eq!(restarted.status, 200, "{restarted:?}");
    let second = restarted.header("etag").to_owned();
    assert_ne!(first, second);
    assert_eq!(restarted.header("content-type"), "application/trickle-ice-sdpfrag");
    for line in ["a=ice-ufrag:", "a=ice-pwd:", "a=mid:0", "a=candidate:"] {
        assert!(restarted.body.lines().any(|l| l.starts_with(line)), "{line} {restarted:?}");
    }
    assert!(!created.body.contains(restarted.body.lines().next().expect("a line")), "new credentials");
    let candidate = "a=ice-ufrag:efgh\r\na=candidate:2 1 udp 2113937151 127.0.0.1 50001 typ host\r\n";
    assert_eq!(patch(&first, candidate).status, 412, "of the ICE session before");
    assert_eq!(patch(&second, candidate).status, 204);
}

#[test]
fn damaged_offers_do_no_harm() {
    let scene = Scene::new(&[]);
    let url = scene.server.url("/whep");
    let mut random = StdRng::seed_from_u64(1);
    let mut accepted = 0;
    for round in 0..400 {
        let offer = damaged(&scene.exchange.offer, &mut random);
        let reply = http::request("POST", &url, SDP, &offer);
        match reply.status {
            201 => {
                accepted += 1;
                let session = reply.location();
                let candidates =
                    damaged("a=ice-ufrag:abcd\r\na=candidate:1 1 udp 2130706431 127.0.0.1 9 typ host\r\n", &mut random);
                let patched = http::request("PATCH", session.as_str(), FRAGMENT, &candidates);
                // 422: a user name fragment that is not the session's would be an ICE restart.
                assert!(matches!(patched.status, 204 | 400 | 422), "round {round}: {patched:?}");
                let deleted = http::request("DELETE", session.as_str(), None, b"");
                assert_eq!(deleted.status, 200, "round {round}: {deleted:?}");
            }
            400 | 422 => assert!(!reply.error().is_empty(), "round {round}: {reply:?}"),
            _ => panic!("round {round}: {reply:?} to {:?}", String::from_utf8_lossy(&offer)),
        }
    }
    println!("{accepted} of 400 damaged offers were answered");
    scene.assert_unharmed();
}

/// `text` with one to four faults of the kinds that programs make.
fn damaged(text: &str, random: &mut StdRng) -> Vec<u8> {
    let mut lines: Vec<Vec<u8>> = text.lines().map(|line| line.as_bytes().to_vec()).collect();
    for _ in 0..random.random_range(1..5) {
        let at = random.random_range(0..lines.len());
        let other = random.random_range(0..lines.len());
        match random.random_range(0..8) {
            0 if lines.len() > 1 => drop(lines.remove(at)),
            1 => lines.insert(at, lines[other].clone()),
            2 => lines.swap(at, other),
            3 => lines.truncate(at.max(1)),
            4 if !lines[at].is_empty() => {
                let byte = random.random_range(0..lines[at].len());
                lines[at][byte] = random.random();
            }
            5 => {
                let keep = random.random_range(0..=lines[at].len());
                lines[at].truncate(keep);
            }
            6 => lines[at].extend_from_slice(b" 18446744073709551616 -1 \0"),
            _ => {
                let digits = |byte: &mut u8| *byte = if byte.is_ascii_digit() { b'9' } else { *byte };
                lines[at].iter_mut().for_each(digits);
            }
        }
    }
    lines.join(&b"\r\n"[..])
}

/// `http_limits` has those that have connected, and are refused.
#[test]
fn more_offers_than_the_limit_push_out_none_that_watches_and_leave_nothing() {
    let scene = Scene::new(&[]);
    let url = scene.server.url("/whep");
    let offer = || {
        let reply = http::request("POST", &url, SDP, scene.exchange.offer.as_bytes());
        assert_eq!(reply.status, 201, "{reply:?}");
        reply.location()
    };
    let sessions: Vec<_> = (0..20).map(|_| offer()).collect();
    assert_eq!(scene.server.stats().viewers.len(), 16);
    let ended: Vec<_> =
        sessions.iter().map(|session| http::request("DELETE", session.as_str(), None, b"").status).collect();
    // A place is as old as the first of its address that had it: that one gives way, then those in its place, one by
    // one.
    assert_eq!(ended, [&[404][..], &[200; 14], &[404; 4], &[200]].concat(), "15 places beside the one that watches");
    scene.assert_unharmed();
}

#[test]
fn junk_on_the_discovery_port_does_no_harm() {
    let port = free_udp_port();
    let scene = Scene::new(&["--discovery-port", &port.to_string()]);
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a UDP socket");
    let mut random = StdRng::seed_from_u64(2);
    let nested = format!(r#"{{"rov":"query","v":1,"id":{}"#, "[".repeat(1300));
    let mut datagrams: Vec<Vec<u8>> = [
        "",
        "{",
        "null",
        "[]",
        "{}",
        r#"{"rov":"query"}"#,
        r#"{"rov":"query","v":-1}"#,
        r#"{"rov":"query","v":2}"#,
        r#"{"rov":"query","v":1,"id":[]}"#,
        r#"{"rov":"announce","v":1}"#,
        r#"{"rov":5,"v":1}"#,
        r#"{"rov":"query","v":1e999}"#,
        &nested,
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec();
    datagrams.push([br#"{"rov":"query","v":1,"name":""#.to_vec(), vec![b'x'; 60_000], br#""}"#.to_vec()].concat());
    datagrams.extend((0..500).map(|_| random_bytes(&mut random, 1500)));
    // Questions that are allowed, but too many: they are answered up to a limit.
    datagrams.extend((0..500).map(|_| br#"{"rov":"query","v":1}"#.to_vec()));
    for datagram in &datagrams {
        socket.send_to(datagram, ("127.0.0.1", port)).expect("sending on loopback");
    }
    let found = scene.runtime.block_on(async {
        let mut discovery = discovery::bind(port, vec!["lo".to_owned()]).expect("discovery sockets");
        discovery.search(None, Duration::from_secs(1), |_| ()).await
    });
    assert_eq!(found.len(), 1, "the server is found all the same");
    assert_eq!(found[0].address, scene.server.address);
    scene.assert_unharmed();
}

fn random_bytes(random: &mut StdRng, longest: usize) -> Vec<u8> {
    let mut bytes = vec![0; random.random_range(0..=longest)];
    random.fill_bytes(&mut bytes);
    bytes
}

#[test]
fn junk_on_the_media_port_does_no_harm() {
    let scene = Scene::new(&[]);
    let ufrag = |sdp: &str| {
        let line = sdp.lines().find_map(|line| line.strip_prefix("a=ice-ufrag:")).expect("an ICE user name");
        line.trim().to_owned()
    };
    let (ours, theirs) = (ufrag(&scene.exchange.answer), ufrag(&scene.exchange.offer));
    let mut random = StdRng::seed_from_u64(3);
    // Thirty strangers, so that tables with a limit reach it.
    for stranger in 0..30 {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a UDP socket");
        let send = |datagram: &[u8]| {
            socket.send_to(datagram, scene.server.media.expect("WebRTC")).expect("sending on loopback");
        };
        send(b"");
        for _ in 0..20 {
            send(&random_bytes(&mut random, 1500));
        }
        // Requests for this very viewer, without its password: from now on the server may take the stranger for a
        // second address of the viewer.
        let user = format!("{ours}:{theirs}");
        for user in [user.as_str(), &format!("{ours}:x"), &ours, "nobody:x", ":", ""] {
            let request = stun_request(user, &mut random, stranger % 2 == 0);
            send(&request);
            for length in [1, 19, 20, 21, request.len() - 1] {
                send(&request[..length.min(request.len())]);
            }
        }
        // DTLS records that claim to be the viewer's: goodbye, a fatal alert, a handshake, data; then SRTP and SRTCP.
        for (kind, body) in
            [(21, &[1, 0][..]), (21, &[2, 40]), (22, &[1, 0, 0, 0]), (23, &[0; 64]), (20, &[1]), (25, &[0; 8])]
        {
            for epoch in 0..2 {
                let mut record = vec![kind, 0xfe, 0xfd, 0, epoch];
                record.extend(random.random::<[u8; 6]>());
                record.extend((body.len() as u16).to_be_bytes());
                record.extend(body);
                send(&record);
            }
        }
        for second in [96, 200, 201, 203, 205, 206] {
            let mut packet = random_bytes(&mut random, 1400);
            packet.splice(0..0, [0x80, second, 0, 1]);
            send(&packet);
        }
    }
    scene.assert_unharmed();
}

/// A STUN binding request (RFC 8489 section 5) of this user, perhaps with a signature, which is wrong.
fn stun_request(user: &str, random: &mut StdRng, signed: bool) -> Vec<u8> {
    const USERNAME: u16 = 6;
    const MESSAGE_INTEGRITY: u16 = 8;
    const USE_CANDIDATE: u16 = 0x25;
    let mut attributes = Vec::new();
    let mut add = |kind: u16, value: &[u8]| {
        attributes.extend(kind.to_be_bytes());
        attributes.extend((value.len() as u16).to_be_bytes());
        attributes.extend(value);
        attributes.resize(attributes.len().next_multiple_of(4), 0);
    };
    add(USERNAME, user.as_bytes());
    add(USE_CANDIDATE, &[]);
    if signed {
        add(MESSAGE_INTEGRITY, &random.random::<[u8; 20]>());
    }
    let mut message = vec![0, 1];
    message.extend((attributes.len() as u16).to_be_bytes());
    message.extend(0x2112_a442_u32.to_be_bytes());
    message.extend(random.random::<[u8; 12]>());
    message.extend(attributes);
    message
}

/// Connects and waits for the first packet.
async fn connect(server: SocketAddr) -> Connection {
    let url = Url::parse(&format!("http://{server}/whep")).expect("a URL");
    let arrived = Arc::new(Notify::new());
    let seen = Arc::clone(&arrived);
    let (_, keyframe_wanted) = mpsc::channel(1);
    let on_packets = Arc::new(move |_: &mut dyn Iterator<Item = Packet>, _| seen.notify_one());
    let connection =
        Connection::open(url, Terms::default(), Duration::from_millis(100), keyframe_wanted, |_| {}, on_packets).await;
    let connection = connection.expect("a connection");
    tokio::time::timeout(wait::SOON, arrived.notified()).await.expect("a first packet");
    connection
}

/// Connects `count` times, four at a time, and closes each.
fn come_and_go(runtime: &Runtime, server: SocketAddr, count: usize) {
    runtime.block_on(async {
        let mut visits = JoinSet::new();
        for _ in 0..count {
            if visits.len() == 4 {
                visits.join_next().await.expect("four of them").expect("no panic");
            }
            visits.spawn(async move { connect(server).await.close().await });
        }
        visits.join_all().await;
    });
}

fn wait_for_no_viewers(server: &Server, limit: Duration) {
    until_true("no viewer is left", limit, || server.stats().viewers.is_empty());
}

#[test]
fn two_hundred_viewers_that_come_and_go_leave_nothing_behind() {
    let server = Server::start(&[]);
    let runtime = Runtime::new().expect("a runtime");
    come_and_go(&runtime, server.address, 20);
    wait_for_no_viewers(&server, wait::SOON);
    let level = server.process.footprint();
    // A thread pool may shrink a little later, and the allocator keeps what it may need again.
    let is_level = |now: Footprint, megabytes: u64| {
        let resident = now.resident_kb <= level.resident_kb + 1024 * megabytes;
        now.threads <= level.threads + 2 && now.files <= level.files + 4 && resident
    };
    let mut now = level;
    come_and_go(&runtime, server.address, 170);
    wait_for_no_viewers(&server, wait::SOON);
    until(&format!("the level of {level:?}, not {now:?}"), wait::SOON, || {
        now = server.process.footprint();
        is_level(now, 10).then_some(())
    });
    println!("after 20: {level:?}, after 190: {now:?}");

    // Ten vanish without a word: their sockets close, as those of a process that is killed.
    let vanishing = Runtime::new().expect("a runtime");
    let connections = vanishing.block_on(async {
        let connecting: JoinSet<_> = (0..10).map(|_| connect(server.address)).collect();
        connecting.join_all().await
    });
    assert_eq!(server.stats().viewers.len(), 10);
    vanishing.shutdown_background();
    drop(connections);
    wait_for_no_viewers(&server, Duration::from_secs(20));
    // Ten at once for ten seconds: the allocator keeps what their packets took, about a megabyte for each.
    until("the level again", wait::SOON, || is_level(server.process.footprint(), 40).then_some(()));
    println!("after 200: {:?}", server.process.footprint());
    assert!(server.is_well());
}
