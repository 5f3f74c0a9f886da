//! MJPEG by RTSP: made while somebody plays it, and never old.

use std::process::Command;
use std::time::{Duration, Instant};

use rov_tests::camera::{Camera, Settings};
use rov_tests::process::{Process, program};
use rov_tests::programs::Server;
use rov_tests::rtsp::{Connection, Player, defects};
use rov_tests::wait::{self, until_true};
use rov_tests::{http, jpeg};

/// A server that has pictures, with its address of MJPEG.
fn server(args: &[&str]) -> (Server, String) {
    let server = Server::start(args);
    server.wait_until_running();
    let url = server.stats().rtsp.expect("RTSP is served").mjpeg_urls.remove(0);
    assert!(url.ends_with("/mjpeg"), "{url}");
    (server, url)
}

#[test]
fn ffmpeg_decodes_it_by_udp_and_tcp_and_the_decoder_runs_only_while_somebody_plays() {
    let (server, url) = server(&["--width", "640", "--height", "360"]);
    assert_eq!(Connection::open(&url).request("DESCRIBE", "", "").status, 200);
    assert!(!server.stats().jpeg.running, "to ask is not to play");
    for transport in ["udp", "tcp"] {
        let mut ffmpeg = Command::new(program("ffmpeg", "ffmpeg"));
        ffmpeg.args(["-hide_banner", "-nostdin", "-loglevel", "warning", "-rtsp_transport", transport, "-i", &url]);
        ffmpeg.args(["-frames:v", "10", "-f", "framemd5", "-"]);
        let mut ffmpeg = Process::spawn("ffmpeg", &mut ffmpeg);
        assert_eq!(ffmpeg.wait(wait::START), 0, "{}", ffmpeg.stderr());
        let text = ffmpeg.stdout();
        assert!(text.contains("#dimensions 0: 640x360"), "{text}");
        assert_eq!(text.lines().filter(|line| !line.starts_with('#')).count(), 10, "{text}");
    }
    until_true("nobody plays", wait::SOON, || server.stats().jpeg.viewers == 0);
    until_true("the decoder has stopped", wait::START, || !server.stats().jpeg.running);
}

#[test]
fn five_new_pictures_a_second_reach_everyone_who_plays() {
    let (server, url) = server(&[]);
    let players = ["udp", "tcp"].map(|protocol| Player::start_mjpeg(&url, protocol));
    for player in &players {
        player.next_shots(1);
    }
    let keyframes = server.stats().streams[0].keyframes;
    let begun = Instant::now();
    for player in &players {
        let shots = player.next_shots(15);
        let numbers: Vec<_> = shots.iter().filter_map(|shot| shot.stamp).map(|stamp| stamp.frame).collect();
        assert!(defects(&shots).1 == 0 && numbers.windows(2).all(|pair| pair[0] < pair[1]), "{numbers:?}");
        println!("{:?}", shots.iter().filter_map(|shot| shot.latency).max());
    }
    assert!(begun.elapsed() > Duration::from_secs(2), "15 pictures in {:?}", begun.elapsed());
    let stats = server.stats();
    assert_eq!((stats.jpeg.viewers, stats.rtsp.map(|rtsp| rtsp.clients)), (1, Some(2)));
    assert_eq!(stats.streams[0].keyframes, keyframes, "it needs none");
}

#[test]
fn nothing_comes_while_the_stream_stands_still_and_then_it_goes_on() {
    let launch = |width| {
        format!(
            "( videotestsrc is-live=true ! video/x-raw,format=I420,width={width},height=240,framerate=25/1 \
             ! x264enc tune=zerolatency speed-preset=ultrafast key-int-max=25 threads=1 ! rtph264pay name=pay0 )"
        )
    };
    let camera = Camera::start(&launch(320));
    let (camera_url, port) = (camera.url.clone(), camera.port);
    let (server, url) = server(&["--source", "rtsp", "--url", &camera_url]);
    let player = Player::start_mjpeg(&url, "tcp");
    player.next_shots(3);
    drop(camera);
    until_true("the camera is missed", wait::SOON, || server.health().0 == 503);
    let before = player.shots().len();
    assert_eq!(Connection::open(&url).request("DESCRIBE", "", "").status, 503);
    assert_eq!(player.shots().len(), before, "an old picture looks live");
    let _camera = Camera::with(&launch(480), Settings { port, ..Settings::default() });
    player.next_shots(5);
    assert_eq!(server.stats().rtsp.map(|rtsp| rtsp.clients), Some(1), "the same session");
}

#[test]
fn only_the_right_password_opens_it() {
    let (_server, url) = server(&["--user", "pilot", "--password", "deep"]);
    assert_eq!(Connection::open(&url).request("DESCRIBE", "", "").status, 401);
    let player = Player::start_mjpeg(&url.replacen("rtsp://", "rtsp://pilot:deep@", 1), "tcp");
    player.next_shots(1);
}

#[test]
fn it_counts_among_the_viewers_of_previews() {
    let (server, url) = server(&["--max-viewers", "1"]);
    let mut previews = jpeg::get(server.address, "/stream.mjpg");
    previews.next_part().expect("a picture");
    assert_eq!(Connection::open(&url).request("DESCRIBE", "", "").status, 503);
    server.process.logs(&["are watching MJPEG"]);
    drop(previews);
    until_true("there is room", wait::SOON, || server.stats().jpeg.viewers == 0);
    let player = Player::start_mjpeg(&url, "tcp");
    player.next_shots(1);
    assert_eq!(http::get(&server.url("/stream.mjpg")).status, 503);
}

#[test]
fn the_end_of_the_server_ends_it() {
    let (mut server, url) = server(&[]);
    let player = Player::start_mjpeg(&url, "udp");
    player.next_shots(1);
    assert_eq!(server.process.stop(libc::SIGTERM, Duration::from_secs(5)), 0);
    assert!(!server.process.stderr().contains("could not be"), "{}", server.process.stderr());
}
