//! Several streams of several cameras in one server: each has its addresses.

use std::ffi::OsString;

use rov_common::api::CameraInfo;
use rov_server::config::{CameraConfig, Config, StreamConfig};
use rov_server::config_file;
use rov_server::server::Server;
use rov_tests::http;
use rov_tests::wait::{self, until_true};
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

const SDP: Option<&str> = Some("application/sdp");
const JSON: Option<&str> = Some("application/json");
const OFFER: &str = include_str!("../../fuzz/corpus/offer/chromium.sdp");

/// Two cameras, `bow` with two streams and `arm` with one.
fn config() -> Config {
    let args = "rov-server --host 127.0.0.1 --signal-port 0 --rtsp-port 0 --no-discovery --source test --width 320 \
                --height 240 --transport webrtc,rtsp,rtp --rtp-host 127.0.0.1 --rtp-port 47004";
    let options = config_file::read(args.split(' ').map(OsString::from)).expect("valid options");
    let mut config = Config::new(&options).expect("a valid configuration");
    let usual = config.cameras[0].clone();
    let camera = |name: &str, streams: &[&str]| {
        let stream = |name: &&str| StreamConfig { name: name.to_string(), ..usual.streams[0].clone() };
        CameraConfig { name: name.to_owned(), streams: streams.iter().map(stream).collect(), ..usual.clone() }
    };
    config.cameras = vec![camera("bow", &["stream1", "stream2"]), camera("arm", &["stream1"])];
    config
}

#[test]
fn each_stream_is_found_by_its_names_over_http() {
    let runtime = Runtime::new().expect("a runtime");
    let server = runtime.block_on(Server::bind(config())).expect("free ports");
    let address = server.http_addr().expect("the address of HTTP");
    let stop = CancellationToken::new();
    let run = runtime.spawn(server.run(stop.clone()));
    let url = |path: &str| format!("http://{address}{path}");
    until_true("the first stream runs", wait::START, || http::stats(address).streams[0].frames > 0);

    let names = ["stream1", "stream2", "arm/stream1"];
    let stats = http::stats(address);
    assert_eq!(stats.streams.iter().map(|stream| stream.name.as_str()).collect::<Vec<_>>(), names);
    assert_eq!(stats.streams.iter().map(|stream| stream.camera.as_str()).collect::<Vec<_>>(), ["bow", "bow", "arm"]);
    let camera = |name: &str, streams: &[&str]| CameraInfo {
        name: name.to_owned(),
        streams: streams.iter().map(ToString::to_string).collect(),
    };
    let cameras = [camera("bow", &names[..2]), camera("arm", &names[2..])];
    let health = http::health(address).1;
    assert_eq!((&stats.cameras[..], &health.cameras[..]), (&cameras[..], &cameras[..]));
    assert_eq!(health.streams.len(), 3);
    let ports: Vec<_> = stats.rtp.expect("RTP").destinations;
    assert_eq!(ports, ["127.0.0.1:47004", "127.0.0.1:47008", "127.0.0.1:47012"]);

    let json = serde_json::json!({ "type": "offer", "sdp": OFFER }).to_string();
    for (path, stream) in [
        ("/whep", "stream1"),
        ("/whep/stream2", "stream2"),
        ("/whep?stream=bow/stream2", "stream2"),
        ("/whep/arm/stream1", "arm/stream1"),
        ("/whep/arm%2Fstream1", "arm/stream1"),
        ("/offer?stream=arm%2Fstream1", "arm/stream1"),
        ("/offer", "stream1"),
    ] {
        let (content_type, body) = if path.starts_with("/offer") { (JSON, json.as_str()) } else { (SDP, OFFER) };
        let reply = http::request("POST", &url(path), content_type, body.as_bytes());
        assert!([200, 201].contains(&reply.status), "{path}: {reply:?}");
        let watched: Vec<_> = http::stats(address).viewers.into_iter().map(|viewer| viewer.stream).collect();
        assert_eq!(watched, [stream], "{path}");
        let session = reply.location();
        assert_eq!(http::request("DELETE", session.as_str(), None, b"").status, 200, "{path}: {session}");
    }
    for path in ["/whep/other", "/whep?stream=other", "/offer?stream=other", "/whep/arm/stream2"] {
        let (content_type, body) = if path.starts_with("/offer") { (JSON, json.as_str()) } else { (SDP, OFFER) };
        let reply = http::request("POST", &url(path), content_type, body.as_bytes());
        assert_eq!(reply.status, 404, "{path}: {reply:?}");
        assert!(reply.error().ends_with("only stream1, stream2, arm/stream1"), "{reply:?}");
    }
    for path in ["/snapshot.jpg?stream=other", "/stream.mjpg?stream=other", "/stream.sdp?stream=other"] {
        assert_eq!(http::get(&url(path)).status, 404, "{path}");
    }
    let description = http::get(&url("/stream.sdp?stream=bow/stream1"));
    assert!(description.status == 200 && description.body.contains("m=video 47004 "), "{description:?}");

    stop.cancel();
    let ended = runtime.block_on(async { tokio::time::timeout(wait::START, run).await });
    ended.expect("it ends").expect("no panic").expect("it ends well");
}
