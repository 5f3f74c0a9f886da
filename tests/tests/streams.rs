//! Several streams of several cameras in one server: each has its addresses.

use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rov_common::access_unit::AccessUnit;
use rov_common::api::CameraInfo;
use rov_common::capture_clock::CaptureClock;
use rov_common::codec::{Codec, START_CODE, is_keyframe, nal_units};
use rov_server::config::{RTSP_PATHS, RtspConfig};
use rov_server::output::Output;
use rov_server::output::jpeg::JpegOutput;
use rov_server::output::pilots::Pilots;
use rov_server::output::rtsp::{RtspOutput, Seats};
use rov_server::rate_control::Pilot;
use rov_server::stream::{Stream, Streams};
use rov_server::users::{LoginConfig, Users};
use rov_tests::devtools::DevTools;
use rov_tests::http;
use rov_tests::media::Clip;
use rov_tests::process::program;
use rov_tests::programs::{Client, Server, client_process, free_udp_port};
use rov_tests::rtp::free_rtp_port;
use rov_tests::rtsp::Connection;
use rov_tests::wait::{self, until_true};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;
use url::Url;

const SDP: Option<&str> = Some("application/sdp");
const JSON: Option<&str> = Some("application/json");
const OFFER: &str = include_str!("../../fuzz/corpus/offer/chromium.sdp");

/// Two cameras, `bow` with two streams and `arm` with one, each of another size: 320x240, 160x120, 192x144.
const CAMERAS: &str = "[[camera]]\nname = 'bow'\n[[camera.stream]]\n[[camera.stream]]\nwidth = 160\nheight = 120\n\
                       [[camera]]\nname = 'arm'\nsource = 'test'\n[[camera.stream]]\nwidth = 192\nheight = 144\n";

fn server(args: &[&str]) -> Server {
    let folder = TempDir::new().expect("a temporary folder");
    let file = folder.path().join("rov.toml");
    std::fs::write(&file, CAMERAS).expect("a file");
    let file = file.to_str().expect("a path of plain characters");
    let server = Server::start(&[&["--config", file], args].concat());
    server.wait_until_running();
    server
}

/// What ffprobe sees at an RTSP address: codec, width and height.
fn seen(url: &str) -> String {
    let probe = Command::new(program("ffprobe", "ffmpeg"))
        .args(["-v", "error", "-show_entries", "stream=codec_name,width,height", "-of", "csv=p=0", url])
        .output()
        .expect("ffprobe starts");
    let (seen, error) = (String::from_utf8_lossy(&probe.stdout), String::from_utf8_lossy(&probe.stderr));
    format!("{}{error}", seen.trim())
}

#[test]
fn each_stream_is_found_by_its_names() {
    let transports = ["--transport", "webrtc,rtsp,rtp", "--rtp-host", "127.0.0.1", "--rtp-port", "47004"];
    let server = server(&transports);
    let (address, url) = (server.address, |path: &str| server.url(path));
    let names = ["stream1", "stream2", "arm/stream1"];
    let stats = server.stats();
    assert_eq!(stats.streams.iter().map(|stream| stream.name.as_str()).collect::<Vec<_>>(), names);
    assert_eq!(stats.streams.iter().map(|stream| stream.camera.as_str()).collect::<Vec<_>>(), ["bow", "bow", "arm"]);
    let camera = |name: &str, streams: &[&str]| CameraInfo {
        name: name.to_owned(),
        streams: streams.iter().map(ToString::to_string).collect(),
    };
    let cameras = [camera("bow", &names[..2]), camera("arm", &names[2..])];
    let health = server.health().1;
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
    for (name, port) in [("bow/stream1", 47004), ("stream2", 47008), ("arm/stream1", 47012)] {
        let description = http::get(&url(&format!("/stream.sdp?stream={name}")));
        assert!(description.body.contains(&format!("m=video {port} ")), "{name}: {description:?}");
    }
    let base = server.rtsp.as_deref().and_then(|url| url.strip_suffix("/stream1")).expect("the first stream's address");
    for (path, size) in [("stream2", "h264,160,120"), ("arm/stream1", "h264,192,144"), ("bow/stream1", "h264,320,240")]
    {
        assert_eq!(seen(&format!("{base}/{path}")), size, "{path}");
    }
}

#[test]
fn the_page_shows_the_stream_that_is_chosen() {
    let server = server(&[]);
    let mut chromium = DevTools::start();
    let page = chromium.open(&server.url("/"));
    let shows = |width: u32| format!("document.body?.dataset.state === 'live' && video.videoWidth === {width}");
    chromium.wait_for(&page, &shows(320), wait::START);
    for (name, width) in [("arm/stream1", 192), ("stream2", 160), ("stream1", 320)] {
        let choose = format!("streams.value = '{name}'; streams.dispatchEvent(new Event('change')); 0");
        let offered = format!("[...streams.options].some(option => option.value === '{name}')");
        chromium.wait_for(&page, &offered, wait::START);
        chromium.evaluate(&page, &choose);
        chromium.wait_for(&page, &shows(width), wait::START);
        until_true("it watches this one alone", wait::SOON, || {
            server.stats().viewers.iter().map(|viewer| viewer.stream.as_str()).eq([name])
        });
    }
}

#[test]
fn the_page_changes_over_at_the_first_picture_and_shows_all_cameras_in_a_grid() {
    let server = server(&[]);
    let watched = || {
        let mut names: Vec<_> = server.stats().viewers.into_iter().map(|viewer| viewer.stream).collect();
        names.sort_unstable();
        names
    };
    let mut chromium = DevTools::start();
    let page = chromium.open(&server.url("/"));
    chromium.wait_for(&page, "document.body?.dataset.state === 'live' && !choice.hidden", wait::START);
    let press = |key: &str| {
        format!("document.dispatchEvent(new KeyboardEvent('keydown', {{ key: '{key}', bubbles: true }})); 0")
    };
    // It is live all the time, and what the list says when the picture changes is its name.
    let note = "globalThis.states = new Set(); globalThis.sizes = []; globalThis.names = new Set(); \
                setInterval(() => { states.add(document.body.dataset.state); sizes.push(video.videoWidth); \
                names.add(`${video.videoWidth} ${streams.value}`) }, 5); 0";
    chromium.evaluate(&page, note);
    chromium.evaluate(&page, &press("2"));
    let is_arm = "document.body.dataset.state === 'live' && video.videoWidth === 192 && streams.value === \
                  'arm/stream1' && location.search === '?stream=arm%2Fstream1' && \
                  document.querySelectorAll('video').length === 1";
    chromium.wait_for(&page, is_arm, wait::START);
    assert_eq!(chromium.evaluate(&page, "[[...states], sizes.includes(0)]"), serde_json::json!([["live"], false]));
    assert_eq!(chromium.evaluate(&page, "[...names]"), serde_json::json!(["320 stream1", "192 arm/stream1"]));
    until_true("the former session is closed", wait::SOON, || watched() == ["arm/stream1"]);

    // Also by the list itself; the key takes the choice back.
    let by_list = "streams.value = 'stream2'; streams.dispatchEvent(new Event('change')); streams.value";
    assert_eq!(chromium.evaluate(&page, by_list), "arm/stream1");
    chromium.evaluate(&page, &press("2"));

    chromium.evaluate(&page, &press("9"));
    let list = "toast.textContent.endsWith('There are 1 bow/stream1, 2 arm/stream1, 3 bow/stream2')";
    chromium.wait_for(&page, list, wait::SOON);
    chromium.evaluate(&page, &press("g"));
    let tiles = "[...document.querySelectorAll('.tile')].map(tile => tile.getAttribute('aria-label')).join()";
    chromium.wait_for(&page, &format!("{tiles} === '1 bow, Live,2 arm, Live'"), wait::START);
    let sizes = "[...document.querySelectorAll('.tile video')].map(video => video.videoWidth)";
    assert_eq!(chromium.evaluate(&page, sizes), serde_json::json!([160, 192]));
    until_true("the tiles are watched alone", wait::SOON, || watched() == ["arm/stream1", "stream2"]);
    // As a click, and Enter on the button. The second of a double click opens nothing anew, and fills no screen.
    let double_click = "globalThis.filled = 0; \
                        document.documentElement.requestFullscreen = async () => { filled += 1 }; \
                        const tile = document.querySelector('.tile'); \
                        const twice = new MouseEvent('dblclick', { bubbles: true }); \
                        const opened = () => document.querySelector('body > video:not(#video)'); tile.click(); \
                        const first = opened(); tile.click(); tile.querySelector('video').dispatchEvent(twice); \
                        [first !== null, opened() === first, filled]";
    assert_eq!(chromium.evaluate(&page, double_click), serde_json::json!([true, true, 0]));
    chromium.wait_for(
        &page,
        "grid.hidden && document.body.dataset.state === 'live' && video.videoWidth === 320",
        wait::START,
    );
    until_true("the tiles are closed", wait::SOON, || watched() == ["stream1"]);
    chromium.evaluate(&page, "video.dispatchEvent(new MouseEvent('dblclick', { bubbles: true })); 0");
    assert_eq!(chromium.evaluate(&page, "filled"), 1);
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
    let (streams, _requests) = Streams::new(names, CaptureClock::start());
    let runtime = Runtime::new().expect("a runtime");
    let jpeg: Vec<_> = streams.iter().map(|stream| Arc::new(JpegOutput::new(stream, 4))).collect();
    let users = Arc::new(Users::new(&LoginConfig::default()).expect("users"));
    let (pilots, takers) = (Pilots::shared(Pilot::First), Arc::default());
    let seats = Seats { max_clients: 4, pilots, users, takers };
    let config = RtspConfig { port: 0, paths: RTSP_PATHS.map(str::to_owned).into(), digest: None, basic_auth: false };
    let rtsp = runtime.block_on(async {
        RtspOutput::start(&streams, &jpeg, None, config, [127, 0, 0, 1].into(), Vec::new(), seats).expect("a free port")
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
        assert_eq!(seen(&url(path)), size, "{path}");
    }
    stop.cancel();
    fed.into_iter().for_each(|thread| thread.join().expect("no panic"));
    rtsp.shutdown();
    jpeg.iter().for_each(|jpeg| jpeg.shutdown());
}

/// A camera with two streams, the second of half the size, as the program serves it.
const TWO_STREAMS: [&str; 2] = ["--stream2", "160x120@30,500"];

#[test]
fn a_client_shows_the_stream_that_it_is_told_by_each_transport() {
    let discovery_port = free_udp_port().to_string();
    let rtp_port = free_rtp_port().to_string();
    let rest = ["--discovery-port", &discovery_port, "--rtp-host", "127.0.0.1", "--rtp-port", &rtp_port];
    let transports = ["--transport", "webrtc,rtp,rtsp", "--rtsp-port", "0"];
    let server = Server::start(&[&TWO_STREAMS[..], &rest, &transports].concat());
    let stats = server.stats();
    let camera = stats.cameras[0].name.as_str();
    let address = server.address.to_string();
    let found = ["--discovery-port", &discovery_port];
    let named = [address.as_str()];
    let list = |more: &[&str]| {
        let mut client = client_process(&[&["--list", "--interface", "lo"], &found[..], more].concat());
        assert_eq!(client.wait(wait::START), 0, "{}", client.stderr());
        client.stdout()
    };
    let text = list(&[]);
    assert!(text.contains("[stream1 h264") && text.contains(", stream2 h264"), "{text}");
    assert!(text.contains(&address), "{text}");
    let servers: serde_json::Value = serde_json::from_str(&list(&["--json"])).expect("JSON");
    let streams = servers[0]["streams"].as_array().expect("streams").iter();
    assert_eq!(streams.map(|stream| stream["name"].clone()).collect::<Vec<_>>(), ["stream1", "stream2"]);
    for (args, transport, width, stream) in [
        (&[&found[..], &["--stream", "stream2"]].concat(), "webrtc", 160, "stream2"),
        (&[&named[..], &["--camera", camera, "--stream", "stream2"]].concat(), "webrtc", 160, "stream2"),
        (&[&found[..], &["--stream", "stream2", "--transport", "rtp"]].concat(), "rtp", 160, "stream2"),
        (&[&found[..], &["--stream", "stream2", "--transport", "rtsp"]].concat(), "rtsp", 160, "stream2"),
        (&[&found[..], &["--camera", camera]].concat(), "webrtc", 320, "stream1"),
        (&found.to_vec(), "webrtc", 320, "stream1"),
    ] {
        let mut client = Client::start(args);
        let report = client.wait_for("pictures of a stream", wait::START, |report| report.frames_shown > 5);
        assert_eq!((report.transport.as_str(), report.width), (transport, width), "{args:?}: {report:?}");
        assert_eq!(report.stream, stream, "{args:?}");
    }
}

#[test]
fn a_client_that_is_told_a_stream_that_is_not_there_ends_with_those_that_are() {
    let server = Server::start(&TWO_STREAMS);
    let address = server.address.to_string();
    let rtsp = server.rtsp.as_deref().and_then(|url| Url::parse(url).ok()?.port()).expect("a port of RTSP").to_string();
    let by_rtsp = ["--transport", "rtsp", "--rtsp-port", &rtsp];
    for (option, told, more) in [
        ("--stream", "no stream \"wide\"", &[][..]),
        ("--camera", "no camera \"wide\"", &[]),
        ("--stream", "no stream \"wide\"", &by_rtsp),
        ("--camera", "no camera \"wide\"", &by_rtsp),
    ] {
        let args = [&address, option, "wide", "--headless", "--interface", "lo"];
        let mut client = client_process(&[&args[..], more].concat());
        assert_eq!(client.wait(wait::START), 2, "{}", client.stderr());
        let said = client.stderr();
        assert!(said.contains(told) && said.contains("only the streams stream1, stream2 of the cameras "), "{said}");
    }
}

#[test]
fn one_stream_is_found_by_its_name_and_not_named_beside_the_server() {
    let server = Server::start(&["--name", "Nemo"]);
    let address = server.address.to_string();
    let mut client = Client::start(&[&address, "--stream", "stream1"]);
    let report = client.wait_for("its name", wait::START, |report| !report.server_name.is_empty());
    assert_eq!((report.server_name.as_str(), report.stream.as_str()), ("Nemo", ""));
}
