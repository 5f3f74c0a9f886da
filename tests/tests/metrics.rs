//! What Prometheus reads of a server that somebody watches.

use std::collections::BTreeSet;
use std::io::Write;
use std::net::UdpSocket;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rov_common::api::RtspCarrier;
use rov_tests::programs::Server;
use rov_tests::rtp::free_rtp_port;
use rov_tests::rtsp::Connection;
use rov_tests::wait::{until, until_true};
use rov_tests::{http, jpeg};
use rov_tests::{skipped, wait, watcher::Watcher};
use tokio::runtime::Runtime;

/// The value of a metric, of the first line that begins so.
fn value(text: &str, begin: &str) -> Option<f64> {
    text.lines().find(|line| line.starts_with(begin))?.rsplit(' ').next()?.parse().ok()
}

/// What `promtool check metrics` complains of; none: it cannot be had here.
fn complaints(text: &str) -> Option<String> {
    let here = std::env::var_os("ROV_TEST_PROMTOOL").map(PathBuf::from).filter(|path| path.exists());
    let promtool = here.unwrap_or_else(|| PathBuf::from("promtool"));
    let mut command = Command::new(promtool);
    command.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().ok()?;
    child.stdin.take().expect("a pipe").write_all(text.as_bytes()).expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(output.status.success() || !said.is_empty());
    Some(said)
}

#[test]
fn what_a_stream_was_watched_by_is_counted_by_stream_and_never_falls() {
    let server = Server::start(&["--stream2", "160x120@10"]);
    let runtime = Runtime::new().expect("a runtime");
    let stream = |number: usize| server.stats().streams.swap_remove(number);
    let by_webrtc = Watcher::start(&runtime, &["--url", &server.url("/whep")]);
    let by_rtsp = Watcher::start(&runtime, &["--url", server.rtsp.as_deref().expect("RTSP")]);
    by_webrtc.wait_for_shots(10);
    by_rtsp.wait_for_shots(10);
    until_true("both are counted", wait::SOON, || stream(0).client_count == 2);
    assert_eq!((stream(1).client_count, stream(1).total_bytes_streamed), (0, 0), "nobody watches the second");
    let watched = server.stats();
    let first = &watched.streams[0];
    assert!(first.uptime > 0.0 && first.current_bitrate > 0, "{first:?}");
    assert_eq!((first.errors, first.frame_drops), (0, first.frames_dropped), "{first:?}");
    let viewer = &watched.viewers[0];
    // Another has as much by RTSP, from its first keyframe on.
    assert!(first.total_bytes_streamed > viewer.bytes, "{first:?} {viewer:?}");
    by_rtsp.stop(&runtime);
    by_webrtc.stop(&runtime);
    until_true("both have gone", wait::SOON, || stream(0).client_count == 0);
    let total = stream(0).total_bytes_streamed;
    assert!(total >= first.total_bytes_streamed, "{total} after {first:?}");
    assert_eq!(jpeg::get(server.address, "/snapshot.jpg").status, 200);
    assert!(stream(0).total_bytes_streamed > total, "a snapshot is sent too");
}

/// Of a receiver that has lost a quarter, with a jitter of 450 of RTP's 90,000 a second.
fn receiver_report(own: u32, heard: &[u8]) -> Vec<u8> {
    let (sequence, source) = (&heard[2..4], &heard[8..12]);
    let own = own.to_be_bytes();
    let block = [source, &[64, 0, 0, 25], &[0, 0], sequence, &450u32.to_be_bytes(), &[0; 8]].concat();
    let name = [&[0x81, 202, 0, 3][..], &own, &[1, 4], b"test", &[0, 0]].concat();
    [&[0x81, 201, 0, 7][..], &own, &block, &name].concat()
}

#[test]
fn what_a_client_by_rtsp_reports_is_told_of_it_and_by_udp_of_each() {
    let server = Server::start(&["--stream2", "160x120@10"]);
    server.wait_until_running();
    let url = server.rtsp.clone().expect("RTSP");
    let sessions = || server.stats().rtsp.expect("RTSP").sessions;
    assert_eq!(sessions(), []);
    let runtime = Runtime::new().expect("a runtime");
    let other = Watcher::start(&runtime, &["--url", &url]);
    other.wait_for_shots(10);

    let (media, control) = loop {
        let media = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        let next = media.local_addr().expect("bound").port().wrapping_add(1);
        if next % 2 == 1
            && let Ok(control) = UdpSocket::bind(("127.0.0.1", next))
        {
            break (media, control);
        }
    };
    media.set_read_timeout(Some(wait::START)).expect("a time-out");
    let ports = control.local_addr().map(|address| format!("{}-{}", address.port() - 1, address.port()));
    let mut client = Connection::open(&url);
    assert_eq!(client.request("DESCRIBE", "", "").status, 200);
    let transport = format!("Transport: RTP/AVP;unicast;client_port={}\r\n", ports.expect("bound"));
    let setup = client.request("SETUP", "/stream=0", &transport);
    let of = |name: &str| setup.head.split(name).nth(1).and_then(|rest| rest.split([';', '\r']).next());
    let session = format!("Session: {}\r\n", of("Session: ").expect("a session"));
    let server_port = of("server_port=").and_then(|ports| ports.split_once('-')?.1.parse::<u16>().ok());
    assert_eq!(client.request("PLAY", "", &session).status, 200);
    let mut packet = [0; 2048];
    let length = media.recv(&mut packet).expect("a packet");
    let report = receiver_report(1, &packet[..length]);
    let own = until("the report", wait::SOON, || {
        // As any packet by UDP, it may be lost.
        control.send_to(&report, ("127.0.0.1", server_port.expect("a port"))).expect("sent");
        sessions().into_iter().find(|session| session.packet_loss == Some(0.25))
    });
    assert_eq!((own.transport, own.stream.as_str(), own.mjpeg), (RtspCarrier::Udp, "stream1", false));
    assert_eq!(own.jitter, Some(5.0));
    assert!(own.bytes > 0 && own.playing_s > 0.0, "{own:?}");
    let all = sessions();
    assert_eq!(all.len(), 2, "{all:?}");
    let theirs = all.iter().find(|session| session.address != own.address).expect("the other");
    assert!(theirs.packet_loss != Some(0.25) && theirs.bytes > 0, "{all:?}");
    let metrics = http::get(&server.url("/metrics")).body;
    let line = format!("rov_rtsp_session_jitter_seconds{{session=\"{}\",stream=\"stream1\"}} ", own.address);
    assert_eq!(value(&metrics, &line), Some(0.005), "{metrics}");

    // Another of the same computer, by TCP.
    let mut by_tcp = Connection::open(&url);
    by_tcp.play_by_tcp();
    let report = receiver_report(2, &packet[..length]);
    let tcp = until("both are told apart", wait::SOON, || {
        by_tcp.send(&[&[b'$', 1, 0, report.len() as u8], &report[..]].concat());
        let all = sessions();
        let told = all.into_iter().filter(|session| session.packet_loss == Some(0.25)).collect::<Vec<_>>();
        (told.len() == 2).then_some(told)
    });
    assert!(tcp.iter().any(|session| session.address == own.address), "{tcp:?}");
    assert!(tcp.iter().any(|session| session.transport == RtspCarrier::Tcp && session.jitter == Some(5.0)), "{tcp:?}");
    drop((client, by_tcp));
    until_true("they have gone", wait::SOON, || sessions().len() == 1);
    other.stop(&runtime);
}

/// Each word of a text that may be a metric of ours.
fn names(text: &str) -> BTreeSet<&str> {
    text.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_')
        .filter(|word| word.starts_with("rov_"))
        .collect()
}

#[test]
fn the_dashboard_asks_for_what_there_is() {
    let dashboard = include_str!("../../scripts/grafana.json");
    let parsed: serde_json::Value = serde_json::from_str(dashboard).expect("JSON");
    let expressions = parsed["panels"].as_array().expect("panels").iter().flat_map(|panel| {
        panel["targets"].as_array().into_iter().flatten().map(|target| target["expr"].as_str().expect("an expression"))
    });
    let asked: BTreeSet<_> = expressions.flat_map(names).collect();
    assert!(asked.len() > 15, "{asked:?}");

    let port = free_rtp_port().to_string();
    let rtp = ["--transport", "webrtc,rtsp,rtp", "--rtp-host", "127.0.0.1", "--rtp-port", &port];
    let server = Server::start(&rtp);
    let runtime = Runtime::new().expect("a runtime");
    let by_webrtc = Watcher::start(&runtime, &["--url", &server.url("/whep")]);
    let by_rtsp = Watcher::start(&runtime, &["--url", server.rtsp.as_deref().expect("RTSP")]);
    let missing = || {
        let text = http::get(&server.url("/metrics")).body;
        let there = names(&text);
        asked.iter().copied().filter(|name| !there.contains(name)).collect::<Vec<_>>().join(" ")
    };
    let end = Instant::now() + wait::START;
    while Instant::now() < end && !missing().is_empty() {
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(missing(), "");
    by_rtsp.stop(&runtime);
    by_webrtc.stop(&runtime);
}

#[test]
fn prometheus_reads_streams_and_viewers_and_counters_grow() {
    let port = free_rtp_port().to_string();
    let rtp = ["--transport", "webrtc,rtsp,rtp", "--rtp-host", "127.0.0.1", "--rtp-port", &port];
    let server = Server::start(&[&rtp[..], &["--stream2", "160x120@10"]].concat());
    let runtime = Runtime::new().expect("a runtime");
    let watcher = Watcher::start(&runtime, &["--url", &server.url("/whep")]);
    watcher.wait_for_shots(10);
    let read = || {
        let reply = http::get(&server.url("/metrics"));
        assert_eq!((reply.status, reply.header("content-type")), (200, "text/plain; version=0.0.4"));
        reply.body
    };
    const FRAMES: &str = "rov_stream_frames_total{camera=\"cam1\",stream=\"stream1\"} ";
    let first = read();
    let frames = value(&first, FRAMES).unwrap_or_else(|| panic!("{first}"));
    until_true("more pictures", wait::SOON, || value(&read(), FRAMES).is_some_and(|now| now > frames));
    let text = read();
    let stats = server.stats();
    assert_eq!(value(&text, "rov_server_viewers{transport=\"webrtc\"} "), Some(1.0));
    assert!(value(&text, "rov_rtp_bytes_total ").is_some_and(|bytes| bytes > 0.0), "{text}");
    let viewer = format!("rov_viewer_bytes_total{{stream=\"stream1\",viewer=\"{}\"}} ", stats.viewers[0].id);
    assert!(value(&text, &viewer).is_some_and(|bytes| bytes > 0.0), "{viewer}\n{text}");
    match complaints(&text) {
        Some(said) => assert_eq!(said, "", "{text}"),
        None => skipped("promtool is not installed"),
    }
    watcher.stop(&runtime);
}
