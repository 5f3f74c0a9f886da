//! Several streams of several cameras in one server: each has its addresses.

use std::ffi::OsString;
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rov_common::access_unit::AccessUnit;
use rov_common::api::CameraInfo;
use rov_common::codec::{Codec, START_CODE, is_keyframe, nal_units};
use rov_server::config::{CameraConfig, Config, StreamConfig};
use rov_server::config_file;
use rov_server::output::Output;
use rov_server::output::jpeg::JpegOutput;
use rov_server::output::pilots::Pilots;
use rov_server::output::rtsp::{RtspOutput, Seats};
use rov_server::rate_control::Pilot;
use rov_server::server::Server;
use rov_server::stream::{Stream, Streams};
use rov_tests::http;
use rov_tests::media::Clip;
use rov_tests::process::program;
use rov_tests::rtsp::Connection;
use rov_tests::wait::{self, until_true};
use tempfile::TempDir;
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

/// Pictures of this size, each of which is a keyframe, again and again until `stop`.
fn feed(stream: &Arc<Stream>, size: &str, stop: CancellationToken) -> thread::JoinHandle<()> {
    let folder = TempDir::new().expect("a temporary folder");
    let file = folder.path().join("clip.h264");
    Clip { size, seconds: 1, gop: 1, audio: false, ..Clip::default() }.write(&file);
    let mut units = vec![Vec::new()];
    for nal in nal_units(&std::fs::read(&file).expect("a clip")) {
        let unit = units.last_mut().expect("one at least");
        unit.extend([&START_CODE, nal].concat());
        if is_keyframe(Codec::H264, unit) {
            units.push(Vec::new());
        }
    }
    units.retain(|unit| !unit.is_empty());
    let (stream, start) = (Arc::clone(stream), Instant::now());
    thread::spawn(move || {
        for data in units.iter().cycle().take_while(|_| !stop.is_cancelled()) {
            let now = Instant::now();
            let data = data.clone().into();
            stream.publish(AccessUnit { data, pts: start.elapsed(), captured_at: now, keyframe: true }, now);
            thread::sleep(Duration::from_millis(33));
        }
    })
}

#[test]
fn each_stream_is_played_by_its_paths_over_rtsp() {
    let names = [("bow", "stream1"), ("bow", "stream2"), ("arm", "stream1")];
    let names = names.map(|(camera, stream)| (camera, stream, Codec::H264));
    let (streams, _requests) = Streams::new(names, Instant::now());
    let runtime = Runtime::new().expect("a runtime");
    let jpeg: Vec<_> = streams.iter().map(|stream| Arc::new(JpegOutput::new(stream, 4))).collect();
    let (config, seats) = (config(), Seats { max_clients: 4, pilots: Pilots::shared(Pilot::First) });
    let rtsp = config.rtsp.clone().expect("RTSP");
    let rtsp = runtime.block_on(async {
        RtspOutput::start(&streams, &jpeg, None, rtsp, config.host, Vec::new(), seats).expect("a free port")
    });
    let url = |path: &str| format!("rtsp://127.0.0.1:{}{path}", rtsp.info(0).port);
    assert_eq!([0, 1, 2].map(|stream| rtsp.info(stream).path), ["/stream1", "/stream2", "/arm/stream1"]);

    let stop = CancellationToken::new();
    // Nothing comes from the second.
    let fed = [(0, "320x240"), (2, "160x128")].map(|(stream, size)| feed(&streams[stream], size, stop.clone()));
    // One that stands still is no reason to show another, nor to keep anybody from one.
    let mut waiting = Connection::open(&url("/bow/stream2"));
    let mut watching = Connection::open(&url("/arm/stream1"));
    let is_watched = || [0, 1, 2].map(|stream| streams[stream].demand().idle_since().is_none());
    assert_eq!(is_watched(), [false; 3]);
    watching.play_by_tcp();
    until_true("the stream that is played is encoded", wait::SOON, || is_watched()[2]);
    assert_eq!(is_watched(), [false, false, true]);
    assert_eq!(waiting.request("DESCRIBE", "", "").status, 503);
    let unknown = Connection::open(&url("/arm")).request("DESCRIBE", "", "");
    assert!(
        unknown.status == 404 && unknown.head.contains("served are /stream1, /stream2, /arm/stream1"),
        "{unknown:?}"
    );
    drop(watching);
    for (path, size) in [
        ("/stream1", "h264,320,240"),
        ("/bow/stream1", "h264,320,240"),
        ("/live", "h264,320,240"),
        ("/arm/stream1", "h264,160,128"),
        ("/mjpeg", "mjpeg,320,240"),
        ("/mjpeg/arm/stream1", "mjpeg,160,128"),
    ] {
        let probe = Command::new(program("ffprobe", "ffmpeg"))
            .args(["-v", "error", "-show_entries", "stream=codec_name,width,height", "-of", "csv=p=0", &url(path)])
            .output()
            .expect("ffprobe starts");
        assert_eq!(String::from_utf8_lossy(&probe.stdout).trim(), size, "{path}: {probe:?}");
    }
    stop.cancel();
    fed.into_iter().for_each(|thread| thread.join().expect("no panic"));
    rtsp.shutdown();
    jpeg.iter().for_each(|jpeg| jpeg.shutdown());
}
