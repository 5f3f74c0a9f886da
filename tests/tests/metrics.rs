//! What Prometheus reads of a server that somebody watches.

use std::process::{Command, Stdio};

use std::io::Write;
use std::path::PathBuf;

use rov_tests::programs::Server;
use rov_tests::rtp::free_rtp_port;
use rov_tests::wait::until_true;
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
