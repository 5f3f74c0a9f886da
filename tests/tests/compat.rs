//! Programs of before and those of now: `fixtures/first` has what the former ones wrote.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::time::Instant;

use rov_common::api::StreamState;
use rov_common::codec::Codec;
use rov_server::config::Config;
use rov_server::config_file;
use rov_server::output::pilots::Pilots;
use rov_server::output::webrtc::engine::{Asked, Engine, Reach, Transmit};
use rov_server::rate_control::Pilot;
use rov_tests::events::Follower;
use rov_tests::http;
use rov_tests::in_process::Serving;
use rov_tests::rtp::free_rtp_port;
use serde_json::Value;
use tokio::runtime::Runtime;

fn file(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/first").join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// Whether a program that reads what was told `before` reads what is told `now`: all that was there is, and is the same
/// kind of value.
fn is_read(now: &Value, before: &Value) -> bool {
    match (now, before) {
        (Value::Object(now), Value::Object(before)) => {
            before.iter().all(|(name, value)| now.get(name).is_some_and(|now| is_read(now, value)))
        }
        (Value::Array(now), Value::Array(before)) => {
            before.first().is_none_or(|before| now.iter().all(|now| is_read(now, before)))
        }
        (Value::Number(now), Value::Number(before)) => before.is_f64() || now.is_u64(),
        (now, before) => std::mem::discriminant(now) == std::mem::discriminant(before),
    }
}

struct Nowhere;

impl Transmit for Nowhere {
    fn transmit(&mut self, _local: IpAddr, _peer: SocketAddr, _run: &[u8], _segment: usize) -> bool {
        true
    }
}

#[test]
fn the_first_client_is_answered_as_the_first_server_did() {
    let mut engine = Engine::new([("stream1", Codec::H264, None)], 1, Pilots::shared(Pilot::First));
    let from = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let reach = Reach { local: vec![SocketAddr::new(from, 5010)], ..Reach::default() };
    let answer = engine.accept(Instant::now(), "id", &file("offer.sdp"), from, Asked::default(), &reach, &mut Nowhere);
    let answer = answer.expect("an answer");
    // All but what is drawn anew for each session, and what of the stream its SPS says.
    let told = |sdp: &str| {
        let drawn = ["o=", "a=fingerprint:", "a=ice-", "a=ssrc:", "a=candidate:"];
        let lines = sdp.lines().filter(|line| !drawn.iter().any(|drawn| line.starts_with(drawn)));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    let (now, before) = (told(&answer), told(&file("answer.sdp")));
    assert!(before.iter().all(|line| now.contains(line)), "{now:#?} {before:#?}");
}

#[test]
fn what_the_first_client_reads_is_told_as_it_was() {
    let runtime = Runtime::new().expect("a runtime");
    let port = free_rtp_port().to_string();
    let args = ["--source", "test", "--transport", "webrtc,rtp,rtsp", "--rtp-host", "127.0.0.1", "--rtp-port", &port];
    let overlay = ["--overlay", "client", "--overlay-text", "Dive 7", "--telemetry", "udp://127.0.0.1:0"];
    let serving = Serving::start(&runtime, &[&args[..], &overlay].concat(), |_| ());
    for (path, before) in [("/api/stats", "stats.json"), ("/api/clock", "clock.json")] {
        let now = http::get(&serving.url(path)).json();
        assert!(is_read(&now, &json(&file(before))), "{path}: {now:#}");
    }
    let told = http::stats(serving.address).telemetry.expect("telemetry").addresses.remove(0);
    let values = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    values.send_to(br#"{"depth":3.5}"#, told.trim_start_matches("udp://")).expect("sent");
    let mut follower = Follower::start(serving.address);
    let before = file("events.txt");
    let mut lines = before.lines().filter(|line| !line.is_empty());
    while let (Some(event), Some(data)) = (lines.next(), lines.next()) {
        let (event, data) = (&event["event: ".len()..], json(&data["data: ".len()..]));
        // The others come where something is wrong or changed.
        if matches!(event, "state" | "overlay" | "telemetry") {
            follower.wait_for(event, |now| is_read(now, &data));
        }
    }
    // It knows no other, and would read nothing of the statistics.
    let states = [
        StreamState::Starting,
        StreamState::Running,
        StreamState::Stalled,
        StreamState::Restarting,
        StreamState::Ended,
    ];
    for state in states {
        match state {
            StreamState::Starting
            | StreamState::Running
            | StreamState::Stalled
            | StreamState::Restarting
            | StreamState::Ended => {}
        }
    }
    let names = states.map(|state| serde_json::to_value(state).expect("a name"));
    assert_eq!(names, ["starting", "running", "stalled", "restarting", "ended"]);
    serving.stop(&runtime);
}

#[test]
fn the_first_configuration_and_settings_that_were_kept_then_are_in_force() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/first/rov-server.toml");
    // The lines that were to be filled in as well.
    let all = file("rov-server.toml").lines().fold(String::new(), |all, line| {
        let is_key = line.starts_with('#') && line.contains(" = ");
        all + if is_key { &line[1..] } else { line } + "\n"
    });
    let folder = tempfile::tempdir().expect("a folder");
    let filled = folder.path().join("rov-server.toml");
    fs::write(&filled, all).expect("written");
    for path in [&path, &filled] {
        let options = config_file::read(["rov-server".into(), "--config".into(), path.into()]).expect("valid options");
        let config = Config::new(&options).expect("a valid configuration");
        assert_eq!(config.cameras[0].streams[0].encode.resolution.map(|size| size.width), Some(1280));
    }
    fs::write(folder.path().join("settings-0.json"), file("settings.json")).expect("written");
    let runtime = Runtime::new().expect("a runtime");
    let kept = folder.path().to_str().expect("a path");
    let serving = Serving::start(&runtime, &["--source", "test", "--state-dir", kept], |_| ());
    assert_eq!(serving.stream().target_bitrate_kbps, 1234);
    serving.stop(&runtime);
}
