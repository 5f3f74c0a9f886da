//! The client and plain RTP: what multicast and unicast do to it, and falling back to it.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use rov_client::viewer::Phase;
use rov_common::api::{RtpStats, Stats};
use rov_common::discovery::{Announcement, Message, RtpInfo, VERSION, encode};
use rov_common::units::Resolution;
use rov_tests::namespace;
use rov_tests::programs::{Client, Server, client_process, free_udp_port};
use rov_tests::proxy::Proxy;
use rov_tests::relay::Network;
use rov_tests::rtp_sender::{RtpSender, free_port_pair};
use rov_tests::wait::{self, until, until_true};
use rov_tests::watcher::{Order, Watcher, until_counted};
use tokio::runtime::Runtime;
use url::Url;

const GROUP: Ipv4Addr = Ipv4Addr::new(239, 255, 77, 1);

/// A server, and a destination on loopback that its video can be sent to.
struct Scene {
    runtime: Runtime,
    server: Server,
    port: u16,
}

impl Scene {
    fn new() -> Self {
        let server = Server::start(&[]);
        server.wait_until_running();
        Self { runtime: Runtime::new().expect("a runtime"), server, port: free_port_pair() }
    }

    fn send(&self, ssrc: u32) -> RtpSender {
        RtpSender::start(&self.runtime, &self.server, SocketAddr::from(([127, 0, 0, 1], self.port)), ssrc)
    }

    fn watch(&self) -> Watcher {
        Watcher::start(&self.runtime, &["--rtp-host", "127.0.0.1", "--rtp-port", &self.port.to_string()])
    }
}

fn wait_until_live(watcher: &Watcher) {
    until_true("live video", wait::START, || watcher.phase() == Phase::Live);
}

fn wait_for_reason(watcher: &Watcher, reason: &str) {
    until_true(reason, wait::SOON, || matches!(watcher.phase(), Phase::Waiting(text) if text.contains(reason)));
}

/// What waited in the socket would be taken for a new stream, as nothing came for so long.
#[test]
fn what_waited_while_the_client_stood_still_is_not_shown() {
    let scene = Scene::new();
    let _sender = scene.send(7);
    let mut client = Client::start(&["--rtp-host", "127.0.0.1", "--rtp-port", &scene.port.to_string()]);
    client.wait_for_frames(0, 30);
    client.process.signal(libc::SIGSTOP);
    // Not waited for anything: a machine may stand still for so long.
    std::thread::sleep(Duration::from_secs(5));
    client.process.signal(libc::SIGCONT);
    let since = client.report().map_or(0, |report| report.frames_shown);
    let report = client.wait_for_frames(since, 60);
    // What was decoded already when it stood still may be shown then.
    assert!(report.stamps.latency.p95_ms < 500.0, "{:?}", report.stamps);
    let said = |line: &str| line.contains("old RTP packets left out").then_some(());
    client.process.wait_for_line("that they were left out", wait::SOON, said);
}

#[test]
fn packets_that_overtake_each_other_lose_nothing() {
    let scene = Scene::new();
    let sender = scene.send(1);
    let watcher = scene.watch();
    watcher.wait_for_shots(1);
    // Up to the first keyframe.
    let before = watcher.report().frames_skipped;
    sender.set_disorder(7);
    watcher.wait_for_shots(61);
    let (shots, report) = (watcher.shots(), watcher.report());
    let order = Order::of(&shots);
    assert_eq!((report.packets_lost, order.out_of_order), (0, 0), "{report:?} {order:?}");
    assert!(watcher.skipped_in_time() <= before, "{before}, then {report:?}");
    until_counted(order.missing, &report, || scene.server.stats());
    assert_eq!((report.transport.as_str(), report.fallback_reason, report.sessions), ("rtp", None, 1));
    watcher.stop(&scene.runtime);
}

#[test]
fn in_order_packets_are_shown_without_delay() {
    let scene = Scene::new();
    let _sender = scene.send(1);
    let (rtp, webrtc) = (scene.watch(), Watcher::start(&scene.runtime, &["--url", &scene.server.url("/whep")]));
    for watcher in [&rtp, &webrtc] {
        watcher.wait_for_shots(31);
    }
    let best = || (rtp.best_latency(), webrtc.best_latency());
    // Some pictures' time would be a buffer.
    until_true("a picture by RTP as soon as by WebRTC", wait::START, || {
        let (by_rtp, by_webrtc) = best();
        by_rtp < by_webrtc + Duration::from_millis(60)
    });
    println!("from mark to shown, at best, by RTP (relayed from WebRTC) and WebRTC: {:?}", best());
    rtp.stop(&scene.runtime);
    webrtc.stop(&scene.runtime);
}

#[test]
fn silence_is_said_and_the_picture_comes_back_by_itself() {
    let scene = Scene::new();
    let watcher = scene.watch();
    wait_for_reason(&watcher, &format!("no RTP packets at UDP port {}", scene.port));
    let sender = scene.send(1);
    wait_until_live(&watcher);
    for pause in [Duration::from_millis(1500), Duration::from_millis(4000)] {
        let shown = watcher.shown();
        sender.pause(true);
        wait_for_reason(&watcher, "no RTP packets");
        std::thread::sleep(pause);
        sender.pause(false);
        wait_until_live(&watcher);
        watcher.wait_for_shots(shown + 10);
    }
    assert_eq!(watcher.report().sessions, 1);
    assert_eq!(Order::of(&watcher.shots()).out_of_order, 0);
    watcher.stop(&scene.runtime);
}

#[test]
fn a_sender_that_starts_anew_is_followed() {
    let scene = Scene::new();
    let watcher = scene.watch();
    let first = scene.send(7);
    wait_until_live(&watcher);
    // It crashes, and starts again; then it ends as it should.
    drop(first);
    let second = scene.send(8);
    watcher.wait_for_shots(watcher.shown() + 20);
    wait_until_live(&watcher);
    second.say_goodbye();
    wait_for_reason(&watcher, "said goodbye");
    let _third = scene.send(7);
    let shown = watcher.shown();
    watcher.wait_for_shots(shown + 20);
    wait_until_live(&watcher);
    assert_eq!(watcher.report().sessions, 1);
    watcher.stop(&scene.runtime);
}

/// Another machine, as far as plain RTP shows.
const NEIGHBOUR: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
const SMALL: Resolution = Resolution { width: 320, height: 240 };
const LARGE: Resolution = Resolution { width: 480, height: 270 };

/// Sends pictures of another size from there.
fn neighbour(scene: &Scene, ssrc: u32) -> (Server, RtpSender) {
    let server = Server::start(&["--width", "480", "--height", "270"]);
    server.wait_until_running();
    let destination = SocketAddr::from(([127, 0, 0, 1], scene.port));
    let sender = RtpSender::start_from(NEIGHBOUR, &scene.runtime, &server, destination, ssrc);
    (server, sender)
}

#[test]
fn another_machine_at_the_destination_is_not_mixed_in_and_shown_only_when_it_is_chosen() {
    let scene = Scene::new();
    let watcher = scene.watch();
    let first = scene.send(1);
    watcher.wait_for_shots(5);
    let _second = neighbour(&scene, 2);
    let asks = |text: &str| watcher.choice().question().filter(|question| question.text == text);
    let beside = "watching 127.0.0.1; 127.0.0.2 sends to this destination too";
    let asked = until("it is said beside the picture", wait::START, || asks(beside));
    assert_eq!((asked.offers.len(), asked.takes_first_at), (1, None));
    watcher.wait_for_shots(watcher.shown() + 45);
    assert_eq!(watcher.report().packets_lost, 0);
    drop(first);
    let silent = "127.0.0.1 is silent; 127.0.0.2 sends video here";
    let asked = until("a question", wait::START, || asks(silent));
    assert_eq!(asked.takes_first_at, None, "it was there all the time");
    // A restart is followed; only what was begun before it can still be shown.
    let again = scene.send(3);
    let shown = watcher.shown();
    watcher.wait_for_shots(shown + 20);
    assert!(watcher.shots().iter().all(|shot| shot.resolution == SMALL), "another machine's picture was shown");
    again.say_goodbye();
    let asked = until("a question", wait::START, || asks("127.0.0.1 said goodbye; 127.0.0.2 sends video here"));
    watcher.choice().choose(asked.offers[0].clone());
    until_true("the other is shown", wait::START, || {
        watcher.shots().last().is_some_and(|shot| shot.resolution == LARGE)
    });
    assert_eq!(watcher.report().sessions, 1);
    watcher.stop(&scene.runtime);
}

#[test]
fn without_a_window_another_machine_at_the_destination_is_logged_and_waits() {
    let scene = Scene::new();
    let mut client = Client::start(&["--rtp-host", "127.0.0.1", "--rtp-port", &scene.port.to_string()]);
    let first = scene.send(1);
    client.wait_for_frames(0, 5);
    let (_server, _second) = neighbour(&scene, 2);
    let beside = "watching 127.0.0.1; 127.0.0.2 sends to this destination too";
    client.process.wait_for_line("who is there", wait::START, |line| line.contains(beside).then_some(()));
    // One that begins as the watched one ends may be the same vehicle at another address, and is taken after a while.
    let report = client.wait_for("a report", wait::START, |_| true);
    client.wait_for_frames(report.frames_shown, 60);
    drop(first);
    let said = "127.0.0.1 is silent; 127.0.0.2 sends video here; to watch another, start again with --host ADDRESS";
    client.process.wait_for_line("what to do", wait::START, |line| line.contains(said).then_some(()));
    let report = client.wait_for("it waits", wait::START, |report| report.state == "waiting");
    assert_eq!((report.width, report.height), (SMALL.width, SMALL.height), "{report:?}");
    let _again = scene.send(3);
    let report = client.wait_for_frames(report.frames_shown, 10);
    assert_eq!((report.width, report.height), (SMALL.width, SMALL.height), "{report:?}");
}

/// As two servers on one machine do by default, of which none complains.
#[test]
fn of_two_servers_on_one_machine_that_send_to_one_destination_the_one_that_was_named_is_shown() {
    let (runtime, port) = (Runtime::new().expect("a runtime"), free_port_pair().to_string());
    let start = |width: &str, signal: u16| {
        let signal = signal.to_string();
        let here = ["--transport", "webrtc,rtp", "--rtp-host", "127.0.0.1", "--rtp-port", &port];
        Server::start(&[&here[..], &["--width", width, "--height", "240", "--signal-port", &signal]].concat())
    };
    let arm = start("320", 0);
    arm.wait_until_running();
    let mut bow = start("400", 0);
    let watcher = Watcher::start(&runtime, &["--transport", "rtp", &bow.address.to_string()]);
    watcher.wait_for_shots(10);
    // It stands still, and the other one goes on.
    bow.process.signal(libc::SIGSTOP);
    until_true("the loss", wait::START, || watcher.phase() != Phase::Live);
    // Not waited for anything: in this time the other one was taken for it.
    std::thread::sleep(Duration::from_secs(5));
    let before = watcher.shown();
    bow.process.signal(libc::SIGCONT);
    watcher.wait_for_shots(before + 10);
    // It starts anew, without a goodbye.
    bow.process.kill();
    until_true("the loss", wait::START, || watcher.phase() != Phase::Live);
    let before = watcher.shown();
    let _again = start("400", bow.address.port());
    watcher.wait_for_shots(before + 10);
    let widths: Vec<u32> =
        watcher.shots().iter().map(|shot| shot.resolution.width).filter(|width| *width != 400).collect();
    assert_eq!(widths, [0; 0], "pictures of the other one");
    watcher.stop(&runtime);
}

#[test]
fn two_clients_on_one_machine_share_a_group() {
    if !namespace::is_inside("two_clients_on_one_machine_share_a_group") {
        return;
    }
    let server = Server::start(&[]);
    server.wait_until_running();
    let runtime = Runtime::new().expect("a runtime");
    let group = GROUP.to_string();
    let args = ["--rtp-host", &group, "--rtp-port", "6004"];
    let mut clients = [Client::start(&args), Client::start(&args)];
    // Of another group at the same port: not for them.
    let _other = RtpSender::start(&runtime, &server, SocketAddr::from(([239, 255, 77, 2], 6004)), 9);
    for client in &mut clients {
        client.wait_for("the reason", wait::START, |report| report.state == "waiting");
        assert_eq!(client.report().expect("a report").packets, 0);
    }
    let _sender = RtpSender::start(&runtime, &server, SocketAddr::from((GROUP, 6004)), 1);
    for client in &mut clients {
        let report = client.wait_for_frames(0, 30);
        assert_eq!((report.packets_lost, report.transport.as_str()), (0, "rtp"), "{report:?}");
    }
    clients[0].process.logs(&[&format!("no RTP packets on {group}:6004 (lo)")]);
}

#[test]
fn without_waiting_a_destination_without_packets_is_exit_code_3() {
    let port = free_port_pair().to_string();
    let mut args = vec!["--headless", "--no-wait", "--discovery-timeout", "0.3", "--rtp-port"];
    args.extend([port.as_str(), "--rtp-host", "127.0.0.1"]);
    let mut client = client_process(&args);
    assert_eq!(client.wait(wait::START), 3, "{}", client.stderr());
    assert!(client.stderr().contains("no RTP packets at UDP port"), "{}", client.stderr());
    // A port that is taken is said, with what to do.
    let _taken = UdpSocket::bind(("0.0.0.0", port.parse().expect("a port"))).expect("the port is free again");
    let mut client = client_process(&args);
    assert_eq!(client.wait(wait::START), 3, "{}", client.stderr());
    assert!(client.stderr().contains("taken by another program"), "{}", client.stderr());
}

/// Announces a server on loopback until it is dropped.
struct Announcer(Arc<AtomicBool>);

impl Announcer {
    fn start(discovery_port: u16, announcement: Announcement) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a UDP socket");
        socket.set_broadcast(true).expect("broadcasts");
        let running = Arc::new(AtomicBool::new(true));
        let runs = Arc::clone(&running);
        let datagram = encode(&Message::Announce(announcement));
        std::thread::spawn(move || {
            while runs.load(Ordering::Relaxed) {
                let _ = socket.send_to(&datagram, ("127.255.255.255", discovery_port));
                std::thread::sleep(Duration::from_millis(100));
            }
        });
        Self(running)
    }
}

impl Drop for Announcer {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

/// Of a server whose HTTP nobody answers.
fn announcement(rtp: Option<RtpInfo>) -> Announcement {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("its address");
    Announcement {
        v: VERSION,
        id: "fake".to_owned(),
        key: None,
        tls: None,
        run: None,
        name: "fake".to_owned(),
        version: String::new(),
        signal_port: closed.port(),
        whep: "/whep".to_owned(),
        transports: vec!["webrtc".to_owned(), "rtp".to_owned()],
        rtp,
        rtsp: None,
        streams: Vec::new(),
    }
}

#[test]
fn where_webrtc_fails_the_announced_rtp_is_shown_and_the_reason_said() {
    let scene = Scene::new();
    let discovery_port = free_udp_port();
    let rtp = RtpInfo { host: Ipv4Addr::LOCALHOST, port: scene.port, fec: false, ssrc: None };
    let _announcer = Announcer::start(discovery_port, announcement(Some(rtp)));
    let sender = scene.send(1);
    let mut client = Client::start(&["--discovery-port", &discovery_port.to_string()]);
    let report = client.wait_for_frames(0, 20);
    assert_eq!((report.transport.as_str(), report.server_id.as_str()), ("rtp", "fake"), "{report:?}");
    let reason = report.fallback_reason.expect("a reason");
    assert!(reason.contains("WebRTC failed: ") && reason.contains("connection refused"), "{reason}");
    client.process.logs(&["RTP, because WebRTC failed"]);
    // It ends, and comes back: so does the picture, by itself.
    sender.say_goodbye();
    client.wait_for("the loss", wait::START, |report| report.state != "live");
    let shown = client.report().expect("a report").frames_shown;
    let _again = scene.send(2);
    client.wait_for_frames(shown, 20);
}

#[test]
fn where_no_media_path_is_found_rtp_is_shown_and_the_next_session_is_webrtc_again() {
    let scene = Scene::new();
    let discovery_port = free_udp_port();
    // HTTP passes, and nothing of what the server sends by UDP.
    let network = Network::new(Duration::ZERO, 1);
    network.set_loss(1.0);
    let proxy = Proxy::start(&scene.runtime, scene.server.address, "", Some(Arc::clone(&network)));
    let signal_port = Url::parse(&proxy.url("/")).expect("a URL").port().expect("its port");
    let rtp = RtpInfo { host: Ipv4Addr::LOCALHOST, port: scene.port, fec: false, ssrc: None };
    let _announcer = Announcer::start(discovery_port, Announcement { signal_port, ..announcement(Some(rtp)) });
    let sender = scene.send(1);
    let args = ["--interface", "lo", "--discovery-port", &discovery_port.to_string()];
    let watcher = Watcher::start(&scene.runtime, &args);
    watcher.wait_for_shots(1);
    let reason = watcher.report().fallback_reason.expect("a reason");
    assert!(reason.contains("WebRTC failed: ") && reason.contains("no media path"), "{reason}");
    wait_until_live(&watcher);
    // Nothing disturbs that session, although WebRTC works again.
    network.set_loss(0.0);
    watcher.wait_for_shots(watcher.shown() + 60);
    let report = watcher.report();
    assert_eq!((report.transport.as_str(), report.sessions), ("rtp", 1), "{report:?}");
    sender.say_goodbye();
    until_true("WebRTC", wait::START, || watcher.report().transport == "webrtc" && watcher.phase() == Phase::Live);
    assert_eq!(watcher.report().fallback_reason, None);
    watcher.stop(&scene.runtime);
}

#[test]
fn a_host_whose_webrtc_fails_is_asked_where_else_its_video_is() {
    let scene = Scene::new();
    let destinations = vec![format!("127.0.0.1:{}", scene.port)];
    let rtp = Some(RtpStats { destinations, ..RtpStats::default() });
    let stats = Stats { rtp, ..Stats::default() };
    let app = Router::new()
        .route("/whep", post(async || StatusCode::SERVICE_UNAVAILABLE))
        .route("/api/stats", get(async || Json(stats)));
    let listener = scene.runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).expect("a port");
    let port = listener.local_addr().expect("its address").port().to_string();
    scene.runtime.spawn(async move { axum::serve(listener, app).await });
    let _sender = scene.send(1);
    for (transport, because) in [("auto", Some("WebRTC failed: ")), ("rtp", None)] {
        let args = ["--host", "127.0.0.1", "--signal-port", &port, "--transport", transport];
        let watcher = Watcher::start(&scene.runtime, &args);
        watcher.wait_for_shots(20);
        let report = watcher.report();
        assert_eq!(report.transport, "rtp", "{report:?}");
        assert_eq!(report.fallback_reason.is_some(), because.is_some(), "{report:?}");
        assert!(report.fallback_reason.unwrap_or_default().contains(because.unwrap_or_default()));
        watcher.stop(&scene.runtime);
    }
}

#[test]
fn a_transport_that_the_server_does_not_have_is_said_with_what_it_has() {
    let discovery_port = free_udp_port();
    let _announcer = Announcer::start(discovery_port, announcement(None));
    let port = discovery_port.to_string();
    let args = ["--headless", "--interface", "lo", "--no-wait", "--discovery-port", &port, "--transport", "rtsp"];
    let mut client = client_process(&args);
    assert_eq!(client.wait(wait::START), 3, "{}", client.stderr());
    let message = client.stderr();
    assert!(message.contains("does not send by rtsp, only by webrtc: start rov-server with rtsp"), "{message}");
}
