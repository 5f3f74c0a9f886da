//! Picture-in-picture: a camera that shows two others of the server.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use rov_common::api::{StreamState, StreamStats};
use rov_common::stamp::Stamp;
use rov_server::config::Config;
use rov_server::config_file;
use rov_server::server::Server as InProcess;
use rov_tests::camera::Camera;
use rov_tests::http;
use rov_tests::jpeg;
use rov_tests::programs::Server;
use rov_tests::rtsp::{Player, Shot};
use rov_tests::wait::{self, until_true};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

/// The small picture has half the size, so that its mark can be read.
const HALF: &str = "scale = 0.5\n";
const WHOLE: &str = "identity";
const CORNER: &str = "videocrop left=320 top=240";

/// A file with these cameras, each with its name and options; all pictures are 640x480.
fn file(folder: &TempDir, cameras: &[(&str, &str)]) -> std::path::PathBuf {
    let mut text = String::new();
    for (name, options) in cameras {
        let (camera, stream) = options.split_once("--").unwrap_or((options, ""));
        writeln!(text, "[[camera]]\nname = '{name}'\n{camera}").expect("a text");
        writeln!(text, "[[camera.stream]]\nwidth = 640\nheight = 480\nadaptive = 'off'\n{stream}").expect("a text");
    }
    let path = folder.path().join("rov.toml");
    std::fs::write(&path, text).expect("a file");
    path
}

fn start(file: &Path) -> Server {
    // The size that a test's server has otherwise is that of its first stream alone.
    Server::start(&["--width", "640", "--height", "480", "--config", file.to_str().expect("UTF-8")])
}

/// Plays a stream, or a part of its pictures.
fn play(rtsp: &str, stream: &str, part: &str) -> Player {
    let url = format!("{}/{stream}", rtsp.trim_end_matches("/stream1"));
    let source = format!("rtspsrc location={url} protocols=tcp latency=0 ! rtph264depay ! h264parse");
    Player::launch(&format!("{source} ! avdec_h264 max-threads=1 ! {part}"), false, |_| ())
}

fn frames(shots: &[Shot]) -> Vec<u32> {
    shots.iter().filter_map(|shot| shot.stamp).map(|stamp| stamp.frame).collect()
}

fn stream(address: SocketAddr, name: &str) -> StreamStats {
    let streams = http::stats(address).streams;
    streams.into_iter().find(|stream| stream.name == name).unwrap_or_else(|| panic!("there is no stream {name}"))
}

/// The number of the newest mark that this player has seen.
fn newest(player: &Player) -> Option<u32> {
    player.shots().iter().rev().find_map(|shot| shot.stamp).map(|stamp| stamp.frame)
}

fn median(mut all: Vec<i64>) -> i64 {
    all.sort_unstable();
    all[all.len() / 2]
}

/// A server in this process.
struct Serving {
    address: SocketAddr,
    rtsp: String,
    stop: CancellationToken,
    run: tokio::task::JoinHandle<anyhow::Result<()>>,
}

impl Serving {
    fn start(runtime: &Runtime, file: &Path) -> Self {
        let port =
            std::net::TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a port").port();
        let line = format!(
            "rov-server --host 127.0.0.1 --signal-port 0 --rtsp-port {port} --no-discovery --user pilot --password \
             deep --view open"
        );
        let folder = file.parent().expect("a folder");
        let files = ["--state-dir".into(), folder.into(), "--config".into(), file.into()];
        let arguments = line.split(' ').map(OsString::from).chain(files);
        let config = Config::new(&config_file::read(arguments).expect("options")).expect("a configuration");
        let server = runtime.block_on(InProcess::bind(config)).expect("free ports");
        let address = server.http_addr().expect("an address");
        let stop = CancellationToken::new();
        let run = runtime.spawn(server.run(stop.clone()));
        Self { address, rtsp: format!("rtsp://127.0.0.1:{port}/stream1"), stop, run }
    }

    /// Changes settings of a camera, which is in effect at once.
    fn set(&self, camera: &str, values: Value) {
        let url = format!("http://{}/api/cameras/{camera}/settings", self.address);
        let login = http::basic("pilot", "deep");
        let headers = [("Authorization", login.as_str()), ("Content-Type", "application/json")];
        let reply = http::request_with("PATCH", &url, &headers, values.to_string().as_bytes());
        assert!(reply.status == 200 && reply.json()["waiting"] == json!({}), "{values}: {reply:?}");
    }

    fn stop(self, runtime: &Runtime) {
        self.stop.cancel();
        runtime.block_on(self.run).expect("no panic").expect("it ends well");
    }
}

#[test]
fn two_cameras_are_shown_in_one_picture_and_change_places_while_it_is_watched() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    // Their numbers differ by ten more each second.
    let both = format!("source = 'pip'\nmain = 'bow'\npip = 'arm'\n{HALF}");
    let cameras = [
        ("bow", "source = 'test'\n--fps = 30"),
        ("arm", "source = 'test'\n--fps = 20"),
        ("both", &format!("{both}--fps = 30")),
    ];
    let file = file(&folder, &cameras);
    let runtime = Runtime::new().expect("a runtime");
    let server = Serving::start(&runtime, &file);
    until_true("all run", wait::START, || http::health(server.address).0 == 200);

    let (whole, corner) = (play(&server.rtsp, "both/stream1", WHOLE), play(&server.rtsp, "both/stream1", CORNER));
    let differ =
        |more: &Player, less: &Player| newest(more).zip(newest(less)).is_some_and(|(more, less)| more > less + 30);
    until_true("bow is large, and arm small", wait::START, || differ(&whole, &corner));

    // The last one of before.
    let before = whole.shots().len() - 1;
    for swaps in 1..=7 {
        let (more, less) = if swaps % 2 == 1 { (&corner, &whole) } else { (&whole, &corner) };
        let [main, small] = if swaps % 2 == 1 { ["arm", "bow"] } else { ["bow", "arm"] };
        server.set("both", json!({ "pipLayout": { "mainSource": main, "pipSource": small } }));
        until_true("they change places", wait::SOON, || differ(more, less));
        whole.next_shots(10);
        corner.next_shots(10);
    }
    let stamps: Vec<_> = whole.shots()[before..].iter().filter_map(|shot| shot.stamp).collect();
    let pairs: Vec<_> = stamps.windows(2).collect();
    assert!(pairs.iter().all(|pair| pair[1].time_us > pair[0].time_us), "never an older picture: {pairs:?}");
    // Only where arm takes bow's place does the number fall; in between, it rises most where bow does.
    let is_fall = |pair: &&[Stamp]| pair[1].frame < pair[0].frame;
    let falls: Vec<_> = pairs.iter().copied().filter(is_fall).collect();
    let between = pairs.split(is_fall).skip(1).take(3);
    let rises = between.filter_map(|pairs| pairs.iter().copied().max_by_key(|pair| pair[1].frame - pair[0].frame));
    let swapped: Vec<_> = falls.iter().copied().chain(rises).collect();
    let gaps: Vec<_> = swapped.iter().map(|pair| ((pair[1].time_us - pair[0].time_us) / 1000) as i64).collect();
    println!("between the pictures before and after each swap: {gaps:?} ms");
    assert_eq!((falls.len(), gaps.len()), (4, 7), "each picture is that of the one camera or the other");
    // On a busy machine a picture here and there is left out.
    assert!(median(gaps) < 100);
    let unread = whole.shots().iter().filter(|shot| shot.stamp.is_none()).count();
    assert_eq!(unread, 0, "the small picture covers nothing of the large one's mark");
    // A camera is turned where it is shown as well, and the small one need not be shown.
    let is_read = || corner.shots().last().is_some_and(|shot| shot.stamp.is_some());
    server.set("bow", json!({ "flip": "180" }));
    until_true("the small picture is turned", wait::SOON, || !is_read());
    server.set("bow", json!({ "flip": "none" }));
    until_true("and turned back", wait::SOON, is_read);
    server.set("both", json!({ "pipEnabled": false }));
    until_true("there is none", wait::SOON, || !is_read());
    let stats = stream(server.address, "both/stream1");
    assert_eq!((stats.state, stats.restarts, stats.width), (StreamState::Running, 0, 640), "{stats:?}");
    drop((whole, corner));
    server.stop(&runtime);
}

#[test]
fn the_large_picture_does_not_wait_for_the_small_one() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    // The small camera is slow, so that whoever waits for it is seen to.
    let cameras = [
        ("bow", "source = 'test'\n--fps = 30"),
        ("arm", "source = 'test'\n--fps = 5"),
        ("both", "source = 'pip'\nmain = 'bow'\npip = 'arm'\nborder = 2\n--fps = 30"),
    ];
    let file = file(&folder, &cameras);
    let server = start(&file);
    let rtsp = server.rtsp.as_ref().expect("RTSP");
    let (bow, both) = (play(rtsp, "bow/stream1", WHOLE), play(rtsp, "both/stream1", WHOLE));
    both.next_shots(1);
    bow.next_shots(1);
    both.next_shots(150);
    let alone: std::collections::HashMap<_, _> =
        bow.shots().iter().filter_map(|shot| Some((shot.stamp?.frame, shot.latency?))).collect();
    let more = |shot: &Shot| {
        let alone = alone.get(&shot.stamp?.frame)?;
        Some(shot.latency?.as_micros() as i64 - alone.as_micros() as i64)
    };
    let more: Vec<_> = both.shots().iter().filter_map(more).collect();
    assert!(more.len() > 50, "{} pictures that both have shown", more.len());
    println!("later than without the small one, median of {}: {} us", more.len(), median(more.clone()));
    // Less than half an interval of the large camera, and far less than one of the small camera.
    assert!(median(more) < 16_000);
    // With the way through the whole pipeline for both, the age that the server states is that of the picture.
    let picture = jpeg::get(server.address, "/snapshot.jpg?stream=both/stream1").body();
    let (width, height, stamp) = jpeg::decode(&picture);
    assert_eq!((width, height, stamp.is_some()), (640, 480, true));
}

#[test]
fn a_camera_that_is_lost_leaves_the_other_running_and_its_place_says_so() {
    let camera = Camera::start(
        "( videotestsrc is-live=true pattern=ball ! video/x-raw,format=I420,width=640,height=480,framerate=25/1 \
         ! identity name=mark ! x264enc tune=zerolatency speed-preset=ultrafast key-int-max=10 threads=1 bitrate=2000 \
         ! rtph264pay name=pay0 config-interval=-1 )",
    );
    let folder = tempfile::tempdir().expect("a temporary folder");
    let decoded = format!("rtspsrc location={} latency=0 ! rtph264depay ! avdec_h264 max-threads=1", camera.url);
    let arm = format!("source = 'pipeline'\npipeline = '{decoded}'\n--fps = 25");
    let both = format!("source = 'pip'\nmain = 'bow'\npip = 'arm'\n{HALF}--fps = 30");
    let other = format!("source = 'pip'\nmain = 'arm'\npip = 'bow'\n{HALF}--fps = 25");
    let cameras = [("bow", "source = 'test'\n--fps = 30"), ("arm", &arm), ("both", &both), ("other", &other)];
    let file = file(&folder, &cameras);
    let server = start(&file);
    let rtsp = server.rtsp.as_ref().expect("RTSP");
    until_true("all run", wait::START, || {
        http::stats(server.address).streams.iter().all(|stream| stream.state == StreamState::Running)
    });
    let (whole, corner) = (play(rtsp, "both/stream1", WHOLE), play(rtsp, "both/stream1", CORNER));
    let of_other = play(rtsp, "other/stream1", WHOLE);
    let has_mark = |shot: &Shot| shot.stamp.is_some();
    until_true("arm is shown small", wait::START, || corner.next_shots(5).iter().all(has_mark));
    until_true("arm is shown large", wait::START, || of_other.next_shots(5).iter().all(has_mark));

    camera.freeze(true);
    until_true("there is nothing of arm", wait::START, || !corner.next_shots(5).iter().any(has_mark));
    assert!(whole.next_shots(30).iter().all(has_mark), "bow goes on");
    assert!(!corner.next_shots(5).iter().any(has_mark), "and arm does not come back by itself");
    let latest = corner.shots().iter().filter_map(|shot| shot.latency).max().expect("pictures of arm");
    let way = whole.shots().iter().filter_map(|shot| shot.latency).max().expect("pictures of bow");
    assert!(latest < Duration::from_millis(1_500) + way, "a small picture {latest:?} old");
    server.process.logs(&["no pictures of camera arm, NO VIDEO in its place"]);
    until_true("what has arm large says which camera is lost", wait::START, || {
        let other = stream(server.address, "other/stream1");
        other.state == StreamState::Stalled && other.reason.is_some_and(|reason| reason.contains("camera arm"))
    });

    camera.freeze(false);
    until_true("arm is shown small again", wait::START, || corner.next_shots(5).iter().all(has_mark));
    until_true("arm is shown large again", wait::START, || of_other.next_shots(5).iter().all(has_mark));
    for name in ["stream1", "both/stream1", "other/stream1"] {
        let stats = stream(server.address, name);
        assert_eq!((stats.state, stats.restarts), (StreamState::Running, 0), "{stats:?}");
    }
    assert!(frames(&whole.shots()).windows(2).all(|pair| pair[1] > pair[0]), "bow alone was large");
}

#[test]
fn a_picture_for_which_nobody_looks_rests_and_the_first_one_after_it_is_new() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let both = format!("source = 'pip'\nmain = 'bow'\npip = 'arm'\n{HALF}");
    let cameras = [("bow", "source = 'test'\n"), ("arm", "source = 'test'\n"), ("both", &both)];
    let file = file(&folder, &cameras);
    let server = start(&file);
    until_true("it rests", wait::START, || stream(server.address, "both/stream1").resting);
    let rtsp = server.rtsp.as_ref().expect("RTSP");
    let corner = play(rtsp, "both/stream1", CORNER);
    let first = corner.next_shots(1)[0];
    let latency = first.latency.expect("the first picture has the small one in it");
    assert!(latency < Duration::from_secs(3), "{latency:?}");
    assert_eq!(stream(server.address, "both/stream1").restarts, 0);
}
