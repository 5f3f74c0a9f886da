//! RTSP with the programs that people use: ffmpeg, GStreamer, OpenCV, VLC.

use std::collections::HashMap;
use std::io::Write;
use std::net::TcpListener;
use std::process::Command;
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use gstreamer as gst;
use gstreamer::prelude::*;
use rov_client::stats::Report;
use rov_tests::media::{Timed, assert_each_has_its_time, is_in_time};
use rov_tests::process::{Process, binary, program};
use rov_tests::programs::{Client, Server, server_process};
use rov_tests::rtsp::{Connection, Player, Shot, defects, latencies};
use rov_tests::vlc;
use rov_tests::wait::{self, until, until_true};
use rov_tests::watcher::{Watcher, until_counted};
use rov_tests::{namespace, opencv, skipped};
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// What the server promises for its end.
const END: Duration = Duration::from_secs(5);
/// Less than the 20 ms that GStreamer's sinks add when they wait for the clock; by WebRTC there are none.
const PROMPT: Duration = Duration::from_millis(12);

/// A server that has pictures, with its RTSP address.
fn server(args: &[&str]) -> (Server, String) {
    let server = Server::start(args);
    server.wait_until_running();
    let url = server.rtsp.clone().expect("an RTSP address");
    (server, url)
}

/// The address of another path.
fn with_path(url: &str, path: &str) -> String {
    let (base, _) = url.rsplit_once('/').expect("a path");
    format!("{base}{path}")
}

fn with_credentials(url: &str, credentials: &str) -> String {
    url.replacen("rtsp://", &format!("rtsp://{credentials}@"), 1)
}

fn ffmpeg(args: &[&str]) -> Process {
    let mut command = Command::new(program("ffmpeg", "ffmpeg"));
    command.args(["-hide_banner", "-nostdin", "-y", "-loglevel", "warning"]).args(args);
    Process::spawn("ffmpeg", &mut command)
}

/// An ffmpeg that ends well once it has decoded so many pictures.
fn decoder(url: &str, transport: &str, pictures: u32) -> Process {
    ffmpeg(&["-rtsp_transport", transport, "-i", url, "-frames:v", &pictures.to_string(), "-f", "null", "-"])
}

fn clients(server: &Server) -> u64 {
    server.stats().rtsp.expect("RTSP is served").clients
}

fn nobody_plays(server: &Server) {
    until_true("nobody plays", wait::SOON, || clients(server) == 0);
}

#[test]
fn ffmpeg_decodes_every_path_by_udp_and_tcp() {
    let (server, url) = server(&["--rtsp-path", "/cam/1"]);
    assert_eq!(server.stats().rtsp.map(|rtsp| rtsp.urls.first() == Some(&url)), Some(true));
    for (path, transport) in
        [("/stream1", "udp"), ("/stream", "tcp"), ("/live", "udp"), ("/test", "tcp"), ("/cam/1", "tcp")]
    {
        let mut player = decoder(&with_path(&url, path), transport, 20);
        assert_eq!(player.wait(wait::START), 0, "{path}: {}", player.stderr());
        assert!(!player.stderr().contains("corrupt"), "{path}: {}", player.stderr());
        nobody_plays(&server);
    }
    server.process.logs(&["an RTSP client plays", "path=\"/cam/1\"", "an RTSP client has gone"]);
}

#[test]
fn an_address_without_a_path_plays_and_an_unknown_path_is_told_the_known_ones() {
    let (server, url) = server(&["--rtsp-path", "/cam/1"]);
    for path in ["", "/", "/?tcp", "/live?tcp"] {
        let mut player = decoder(&with_path(&url, path), "tcp", 10);
        assert_eq!(player.wait(wait::START), 0, "{path:?}: {}", player.stderr());
    }
    // Who takes no notice of Content-Base puts the stream behind the address.
    let mut simple = Connection::open(&with_path(&url, ""));
    simple.play_by_tcp();
    let mut none = decoder(&with_path(&url, "/nothing"), "tcp", 1);
    assert_ne!(none.wait(wait::START), 0);
    let told = none.stderr();
    assert!(told.contains("404 not served; served are /stream1, ") && told.contains("/cam/1"), "{told}");
    server.process.logs(&["not served; served are /stream1, ", "path=\"/nothing\""]);
}

#[test]
fn who_asks_before_the_first_picture_waits_for_it_and_nobody_else_does() {
    /// As the server promises.
    const PATIENCE: Duration = Duration::from_secs(3);
    let source = TcpListener::bind("127.0.0.1:0").expect("a TCP socket");
    let port = source.local_addr().expect("its address").port();
    // Pictures come when the test sends them.
    let late = format!(
        "tcpclientsrc host=127.0.0.1 port={port} ! rawvideoparse format=i420 width=320 height=240 framerate=30/1"
    );
    let server = Server::start(&["--pipeline", &late]);
    let url = server.rtsp.clone().expect("an RTSP address");
    let (asked, is_asked) = mpsc::channel();
    let early = std::thread::spawn({
        let url = url.clone();
        move || {
            // On a machine under load, pictures may take longer than the server waits for them.
            loop {
                let (mut early, started) = (Connection::open(&url), Instant::now());
                let _ = asked.send(());
                match early.request("DESCRIBE", "", "").status {
                    503 => assert!(started.elapsed() >= PATIENCE, "refused after {:?}", started.elapsed()),
                    status => return status,
                }
            }
        }
    });
    is_asked.recv().expect("the request is on its way");
    assert_eq!(Connection::open(&url).request("OPTIONS", "", "").status, 200);
    assert_eq!(server.stats().streams[0].frames, 0, "the answer to OPTIONS has waited too");
    std::thread::spawn(move || {
        // The pipeline may be started again before.
        for mut pipeline in source.incoming().flatten() {
            while pipeline.write_all(&[128; 320 * 240 * 3 / 2]).is_ok() {
                std::thread::sleep(Duration::from_millis(33));
            }
        }
    });
    assert_eq!(early.join().expect("a status"), 200);
    assert!(server.stats().streams[0].frames > 0);
}

#[test]
fn nobody_can_send_a_stream_to_a_server_that_takes_none() {
    let (server, url) = server(&[]);
    let mut connection = Connection::open(&url);
    let options = connection.request("OPTIONS", "", "");
    let public = options.head.lines().find(|line| line.starts_with("Public:")).expect("the methods");
    assert!(public.contains("DESCRIBE") && !public.contains("ANNOUNCE") && !public.contains("RECORD"), "{public}");
    let sdp = "Content-Type: application/sdp\r\nContent-Length: 5\r\n\r\nv=0\r\n";
    assert_eq!(connection.request("ANNOUNCE", "", sdp.trim_end_matches("\r\n")).status, 405);
    server.process.logs(&["--source publish"]);
}

#[test]
fn transports_that_cannot_be_are_refused() {
    let (server, url) = server(&[]);
    for transport in ["RTP/AVP;unicast;client_port=99999", "RTP/AVP/TCP;unicast;interleaved=300"] {
        let mut connection = Connection::open(&url);
        let reply = connection.request("SETUP", "/stream=0", &format!("Transport: {transport}\r\n"));
        assert_eq!(reply.status, 461, "{transport}: {reply:?}");
    }
    server.process.logs(&["client_port=99999 is not from 1 to 65535"]);
}

#[test]
fn ffmpeg_decodes_h265_by_udp_and_tcp() {
    let (server, url) = server(&["--codec", "h265"]);
    for transport in ["udp", "tcp"] {
        let mut player = decoder(&url, transport, 20);
        assert_eq!(player.wait(wait::START), 0, "{transport}: {}", player.stderr());
        nobody_plays(&server);
    }
    let probe = Command::new(program("ffprobe", "ffmpeg"))
        .args(["-v", "error", "-show_entries", "stream=codec_name,width,height", "-of", "csv=p=0", &url])
        .output()
        .expect("ffprobe starts");
    assert_eq!(String::from_utf8_lossy(&probe.stdout).trim(), "hevc,320,240");
}

#[test]
fn what_ffmpeg_records_without_encoding_plays() {
    let (_server, url) = server(&[]);
    let folder = TempDir::new().expect("a temporary folder");
    for (transport, name) in [("udp", "udp.mp4"), ("tcp", "tcp.mkv")] {
        let file = folder.path().join(name);
        let file = file.to_str().expect("a path of plain characters");
        let mut recorder = ffmpeg(&["-rtsp_transport", transport, "-i", &url, "-t", "2", "-c", "copy", file]);
        assert_eq!(recorder.wait(wait::START), 0, "{}", recorder.stderr());
        let decoded = Command::new(program("ffmpeg", "ffmpeg"))
            .args(["-v", "error", "-xerror", "-i", file, "-map", "0:v", "-f", "framemd5", "-"])
            .output()
            .expect("ffmpeg starts");
        let errors = String::from_utf8_lossy(&decoded.stderr);
        assert!(decoded.status.success() && errors.is_empty(), "{name}: {errors}");
        let pictures = String::from_utf8_lossy(&decoded.stdout).lines().filter(|line| !line.starts_with('#')).count();
        assert!(pictures > 20, "{name}: {pictures} pictures");
    }
}

#[test]
fn pictures_come_complete_and_at_once_by_udp_and_tcp() {
    let (server, url) = server(&[]);
    let runtime = Runtime::new().expect("a runtime");
    let by_webrtc = Watcher::start(&runtime, &["--url", &server.url("/whep")]);
    by_webrtc.wait_for_shots(30);
    for protocol in ["udp", "tcp"] {
        let player = Player::start(&url, protocol);
        let first = player.next_shots(1)[0];
        let shots = player.next_shots(60);
        let (median, worst) = latencies(&shots);
        let to_first = first.at.duration_since(player.started);
        println!("{protocol}: first picture after {to_first:?}, latency {median:?}, at worst {worst:?}");
        let (missing, unread) = defects(&shots);
        assert_eq!(unread, 0);
        until_counted(missing, &Report::default(), || server.stats());
        player.wait_for_prompt_shot(PROMPT, || by_webrtc.best_latency());
        drop(player);
        nobody_plays(&server);
    }
    by_webrtc.stop(&runtime);
}

/// What the RTCP sender reports say, as `rtspsrc` takes them, of so many pictures and at least one that was drawn when
/// it was due.
fn captured_and_drawn(url: &str, pictures: usize) -> Vec<Timed> {
    let captured: Arc<Mutex<HashMap<gst::ClockTime, u64>>> = Arc::default();
    let noted = Arc::clone(&captured);
    let text = format!(
        "rtspsrc location={url} protocols=tcp latency=0 add-reference-timestamp-meta=true ! rtph264depay name=depay \
         ! h264parse ! avdec_h264 max-threads=1"
    );
    let player = Player::launch(&text, false, |bin| {
        let pad = bin.by_name("depay").and_then(|depay| depay.static_pad("sink")).expect("a depayloader");
        pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
            let buffer = info.buffer().expect("a buffer");
            if let Some((pts, meta)) = buffer.pts().zip(buffer.meta::<gst::ReferenceTimestampMeta>()) {
                noted.lock().expect("no panic").insert(pts, meta.timestamp().nseconds());
            }
            gst::PadProbeReturn::Ok
        });
    });
    // The first report comes after some seconds.
    until(&format!("{pictures} pictures with a time of capture, one of them drawn then"), wait::START, || {
        let captured = captured.lock().expect("no panic");
        let times = |shot: &Shot| {
            let since_1970 = captured.get(&shot.pts?)?.checked_sub(2_208_988_800_000_000_000)?;
            let stamp = shot.stamp?;
            let (captured, drawn) = (since_1970 as f64 / 1e9, stamp.time_us as f64 / 1e6);
            Some(Timed { frame: stamp.frame, captured, drawn })
        };
        let times: Vec<_> = player.shots().iter().filter_map(times).collect();
        (times.len() >= pictures && times.iter().any(|picture| is_in_time(picture.late()))).then_some(times)
    })
}

#[test]
fn sender_reports_tell_when_the_pictures_of_each_camera_were_captured() {
    let folder = TempDir::new().expect("a temporary folder");
    let path = folder.path().join("rov.toml");
    // Both as small as the first is by default here: a machine that cannot draw in time says nothing of their times.
    let arm = "[[camera]]\nname = 'arm'\nsource = 'test'\n[[camera.stream]]\nwidth = 320\nheight = 240\n";
    std::fs::write(&path, format!("[[camera]]\nname = 'bow'\n{arm}")).expect("a file");
    let (_server, url) = server(&["--config", path.to_str().expect("a name in UTF-8")]);
    let cameras = ["/bow/stream1", "/arm/stream1"].map(|path| {
        let url = with_path(&url, path);
        std::thread::spawn(move || captured_and_drawn(&url, 60))
    });
    for camera in cameras {
        let times = camera.join().expect("pictures");
        assert_each_has_its_time(&times, 1.0 / 30.0);
        let mut late: Vec<_> = times.iter().map(Timed::late).collect();
        late.sort_by(f64::total_cmp);
        let (first, median, last) = (late[0], late[late.len() / 2], late[late.len() - 1]);
        println!("drawn {first:.6}, {median:.6}, {last:.6} s after the time of capture (least, median, most)");
        // By the time of sending it would be drawn before.
        assert!(median > -0.001, "{late:?}");
    }
}

#[test]
fn several_at_once_are_served_by_one_encode_and_a_late_one_sees_a_picture_at_once() {
    let (server, url) = server(&[]);
    let players: Vec<_> = ["udp", "tcp", "udp", "tcp"].map(|protocol| Player::start(&url, protocol)).into();
    for player in &players {
        player.next_shots(20);
    }
    assert_eq!(clients(&server), 4);
    let runtime = Runtime::new().expect("a runtime");
    let by_webrtc = Watcher::start(&runtime, &["--url", &server.url("/whep")]);
    let late = Player::start(&with_path(&url, "/live"), "udp");
    let first = late.next_shots(1)[0];
    println!("a late one sees a picture after {:?}", first.at.duration_since(late.started));
    late.next_shots(20);
    println!("of its pictures {} cannot be read", defects(&late.shots()).1);
    for player in &players {
        let shots = player.next_shots(20);
        println!("latency (median, worst) {:?}", latencies(&shots));
        assert_eq!(defects(&shots).1, 0);
        // Each further PLAY configures the sinks again.
        player.wait_for_prompt_shot(PROMPT, || by_webrtc.best_latency());
    }
    by_webrtc.stop(&runtime);
    let stats = server.stats();
    assert_eq!((stats.streams.len(), stats.rtsp.map(|rtsp| rtsp.clients)), (1, Some(5)));
    assert!(stats.streams[0].fps_out < 40.0, "one encode: {}", stats.streams[0].fps_out);
}

#[test]
fn gst_launch_plays_without_a_buffer() {
    let (_server, url) = server(&[]);
    let mut command = Command::new(program("gst-launch-1.0", "gstreamer1.0-tools"));
    command.args([
        "-q",
        "rtspsrc",
        "latency=0",
        &format!("location={url}"),
        "!",
        "rtph264depay",
        "!",
        "avdec_h264",
        "!",
    ]);
    command.args(["fakesink", "num-buffers=30"]);
    let mut player = Process::spawn("gst-launch-1.0", &mut command);
    assert_eq!(player.wait(wait::START), 0, "{}", player.stderr());
}

#[test]
fn vlc_shows_the_stream() {
    if !vlc::has_rtsp() {
        skipped("VLC has no plugin live555 here (scripts/test prepares one)");
        return;
    }
    let (_server, url) = server(&[]);
    vlc::shows(&url, &[]);
    vlc::shows(&url, &["--rtsp-tcp"]);
}

#[test]
fn opencv_reads_pictures() {
    const READ: &str = "import sys, cv2
capture = cv2.VideoCapture(sys.argv[1], cv2.CAP_FFMPEG)
shapes = {capture.read()[1].shape for _ in range(20)}
assert shapes == {(240, 320, 3)}, shapes";
    let Some(python) = opencv::python("RTSP by UDP and TCP") else { return };
    let (_server, url) = server(&[]);
    for transport in ["udp", "tcp"] {
        let mut command = Command::new(&python);
        command.env("OPENCV_FFMPEG_CAPTURE_OPTIONS", format!("rtsp_transport;{transport}")).args(["-c", READ, &url]);
        let mut reader = Process::spawn("OpenCV", &mut command);
        assert_eq!(reader.wait(wait::START), 0, "{transport}: {}", reader.stderr());
    }
}

#[test]
fn only_the_right_password_opens_the_stream() {
    let (server, url) = server(&["--user", "pilot", "--password", "deep sea"]);
    let mut connection = Connection::open(&url);
    let refused = connection.request("DESCRIBE", "", "");
    assert_eq!(refused.status, 401);
    assert!(refused.head.contains("Digest ") && !refused.head.contains("Basic "), "{}", refused.head);
    // "pilot:deep sea", which is right, but not by this method.
    let basic = "Authorization: Basic cGlsb3Q6ZGVlcCBzZWE=\r\n";
    assert_eq!(connection.request("DESCRIBE", "", basic).status, 401);
    assert_eq!(Connection::open(&url).set_up().status, 401);
    for wrong in ["pilot:deep", "captain:deep%20sea"] {
        let mut player = decoder(&with_credentials(&url, wrong), "tcp", 1);
        assert_ne!(player.wait(wait::START), 0);
        assert!(player.stderr().contains("401"), "{}", player.stderr());
    }
    for transport in ["udp", "tcp"] {
        let mut player = decoder(&with_credentials(&url, "pilot:deep%20sea"), transport, 10);
        assert_eq!(player.wait(wait::START), 0, "{}", player.stderr());
    }
    assert!(!server.process.stderr().contains("deep sea"), "the log tells the password");
}

#[test]
fn the_password_in_clear_is_taken_only_when_that_is_allowed() {
    let (_server, url) = server(&["--user", "pilot", "--password", "deep sea", "--rtsp-basic-auth"]);
    let mut connection = Connection::open(&url);
    let refused = connection.request("DESCRIBE", "", "");
    assert!(
        refused.status == 401 && refused.head.contains("Basic ") && refused.head.contains("Digest "),
        "{refused:?}"
    );
    let basic = "Authorization: Basic cGlsb3Q6ZGVlcCBzZWE=\r\n";
    assert_eq!(connection.request("DESCRIBE", "", basic).status, 200);
    let mut player = decoder(&with_credentials(&url, "pilot:deep%20sea"), "tcp", 10);
    assert_eq!(player.wait(wait::START), 0, "{}", player.stderr());
}

#[test]
fn one_client_more_than_allowed_is_refused_until_another_goes() {
    let (server, url) = server(&["--max-viewers", "2"]);
    let mut first = Connection::open(&url);
    first.play_by_tcp();
    let _second = Player::start(&url, "udp");
    until_true("two play", wait::START, || clients(&server) == 2);
    let mut third = Connection::open(&url);
    assert_eq!(third.set_up().status, 503);
    assert_eq!(clients(&server), 2);
    drop(first);
    until_true("one plays", wait::SOON, || clients(&server) == 1);
    third.play_by_tcp();
    // Who plays is counted a moment after the answer.
    until_true("two play again", wait::SOON, || clients(&server) == 2);
}

#[test]
fn one_connection_takes_one_place_only() {
    let (server, url) = server(&["--max-viewers", "2"]);
    let mut greedy = Connection::open(&url);
    for _ in 0..4 {
        assert_eq!(greedy.set_up().status, 200);
    }
    let mut other = Connection::open(&url);
    other.play_by_tcp();
    until_true("one plays", wait::SOON, || clients(&server) == 1);
    // It may have no other session beside the one that plays.
    assert_eq!(other.set_up().status, 455);
    assert_eq!(clients(&server), 1);
    // A session that does not play ends, and another may have its place.
    greedy.wait_for_close(wait::START);
    Connection::open(&url).play_by_tcp();
}

#[test]
fn sessions_that_do_not_play_lock_nobody_out() {
    let (server, url) = server(&["--max-viewers", "3"]);
    let mut playing = Connection::open(&url);
    playing.play_by_tcp();
    let mut idle = [(); 2].map(|()| Connection::open(&url));
    idle.iter_mut().for_each(|idle| assert_eq!(idle.set_up().status, 200));
    let mut next = Connection::open(&url);
    next.play_by_tcp();
    // The oldest of those that have not played.
    idle[0].wait_for_close(wait::SOON);
    assert_eq!(idle[1].request("OPTIONS", "", "").status, 200);
    until_true("two play", wait::SOON, || clients(&server) == 2);
    server.process.logs(&["another client needs its place"]);
}

/// As many addresses as they like, each with one session, so that none has more than another.
#[test]
fn sessions_of_many_addresses_that_do_not_play_lock_nobody_out() {
    let (server, url) = server(&[]);
    let mut idle = Vec::new();
    for host in 10..35 {
        let mut connection = Connection::open_from([127, 0, 0, host], &url);
        assert_eq!(connection.set_up().status, 200, "{host}");
        idle.push(connection);
        // Before and after all places are taken.
        let mut pilot = Connection::open_from([127, 0, 1, host], &url);
        pilot.play_by_tcp();
    }
    server.process.logs(&["another client needs its place"]);
}

#[test]
fn the_pilot_gets_a_place_and_who_pauses_loses_its_own() {
    let (server, url) = server(&["--max-viewers", "1", "--pilot", "127.0.0.2"]);
    let [mut spectator, mut other, mut pilot] = [1, 3, 2].map(|host| Connection::open_from([127, 0, 0, host], &url));
    spectator.play_by_tcp();
    assert_eq!(other.set_up().status, 503);
    let session = pilot.play_by_tcp();
    spectator.wait_for_close(wait::SOON);
    server.process.logs(&["the pilot needs its place"]);
    assert_eq!(other.set_up().status, 503);
    assert_eq!(pilot.request("PAUSE", "", &session).status, 200);
    until_true("another has the place", wait::SOON, || other.set_up().status == 200);
    server.process.logs(&["another client needs its place"]);
}

#[test]
fn one_address_cannot_fill_the_log() {
    let (server, url) = server(&[]);
    let mut stranger = Connection::open(&with_path(&url, &format!("/{}", "x".repeat(2_000))));
    (0..100).for_each(|_| assert_eq!(stranger.request("DESCRIBE", "", "").status, 404));
    server.process.logs(&["more are left out"]);
    let log = server.process.stderr();
    assert!(log.matches("not served").count() <= 32 && !log.contains(&"x".repeat(200)), "{log}");
    assert_eq!(
        Connection::open_from([127, 0, 0, 2], &with_path(&url, "/other")).request("DESCRIBE", "", "").status,
        404
    );
    server.process.logs(&["path=\"/other\""]);
}

#[test]
fn logins_of_an_address_that_wait_come_one_after_the_other() {
    let (_server, url) = server(&["--user", "pilot", "--password", "deep sea"]);
    let guess = |connection: &mut Connection| {
        connection.request("DESCRIBE", "", "Authorization: Basic cGlsb3Q6c2hhbGxvdw==\r\n").status
    };
    let started = Instant::now();
    (0..20).for_each(|_| assert_eq!(guess(&mut Connection::open(&url)), 401));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| assert_eq!(guess(&mut Connection::open(&url)), 401));
        }
    });
    assert!(started.elapsed() >= Duration::from_millis(3_900), "{:?}", started.elapsed());
}

#[test]
fn who_does_not_know_the_password_has_few_guesses_and_then_one_a_second() {
    let (server, url) = server(&["--user", "pilot", "--password", "deep sea"]);
    let mut asker = Connection::open(&url);
    let asked = (0..).take_while(|_| asker.try_request("DESCRIBE", "", "").is_some()).count();
    assert!(asked <= 21, "{asked} requests on a connection");
    // By different connections, which makes no difference.
    const GUESSES: u64 = 23;
    let started = Instant::now();
    for _ in 0..GUESSES {
        let guess = "Authorization: Basic cGlsb3Q6c2hhbGxvdw==\r\n";
        assert_eq!(Connection::open(&url).request("DESCRIBE", "", guess).status, 401);
    }
    assert!(started.elapsed() >= Duration::from_millis((GUESSES - 20) * 1_000 - 100), "{:?}", started.elapsed());
    server.process.logs(&["failed logins from 127.0.0.1"]);
    let mut player = decoder(&with_credentials(&url, "pilot:deep%20sea"), "tcp", 10);
    assert_eq!(player.wait(wait::START), 0, "{}", player.stderr());
}

#[test]
fn connections_that_say_nothing_are_limited_and_lock_nobody_out() {
    let (server, url) = server(&["--max-viewers", "1"]);
    let mut player = Connection::open(&url);
    player.play_by_tcp();
    // Beside the one that may play, 16 may ask.
    let mut silent: Vec<_> = (0..16).map(|_| Connection::open(&url)).collect();
    let mut another = Connection::open(&url);
    assert_eq!(another.request("OPTIONS", "", "").status, 200);
    // The oldest has made room.
    silent[0].wait_for_close(wait::SOON);
    assert_eq!(silent[1].request("OPTIONS", "", "").status, 200);
    assert_eq!(clients(&server), 1);
}

#[test]
fn clients_that_come_and_go_leave_nothing_behind() {
    let (server, url) = server(&[]);
    let come_and_go = |times| {
        for _ in 0..times {
            Connection::open(&url).play_by_tcp();
        }
        nobody_plays(&server);
    };
    come_and_go(5);
    let before = server.process.footprint();
    come_and_go(50);
    until_true(&format!("what they used is free again, {before:?}"), wait::START, || {
        let now = server.process.footprint();
        now.threads <= before.threads && now.files <= before.files && now.resident_kb < before.resident_kb + 20_000
    });
    let mut player = decoder(&url, "udp", 10);
    assert_eq!(player.wait(wait::START), 0, "{}", player.stderr());
}

#[test]
fn garbage_ends_neither_the_server_nor_what_others_see() {
    let (mut server, url) = server(&[]);
    let player = Player::start(&url, "tcp");
    player.next_shots(5);
    let endless = [b"DESCRIBE rtsp://x/ RTSP/1.0\r\nCSeq: 1\r\n".as_slice(), &b"X: y\r\n".repeat(20_000)].concat();
    let binary: Vec<u8> = (0..100_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    for garbage in [
        b"\r\n\r\n\r\n".as_slice(),
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"DESCRIBE * RTSP/1.0\r\n\r\n",
        b"PLAY rtsp://127.0.0.1/stream1 RTSP/9.9\r\nCSeq: -1\r\nSession: nothing\r\n\r\n",
        b"SETUP rtsp://127.0.0.1/stream1 RTSP/1.0\r\nCSeq: 1\r\nTransport: nonsense;;=;\r\n\r\n",
        b"DESCRIBE rtsp://127.0.0.1/stream1 RTSP/1.0\r\nCSeq: 1\r\nContent-Length: 4294967295\r\n\r\n",
        b"ANNOUNCE rtsp://127.0.0.1/stream1 RTSP/1.0\r\nCSeq: 1\r\nContent-Length: 3\r\n\r\nv=0",
        b"$\x00\xff\xff",
        &endless,
        &binary,
    ] {
        Connection::open(&url).send(garbage);
    }
    // In the middle of a session too.
    let mut rude = Connection::open(&url);
    rude.play_by_tcp();
    rude.send(&binary);
    let shots = player.next_shots(60);
    assert_eq!(defects(&shots).1, 0);
    let mut another = decoder(&url, "udp", 10);
    assert_eq!(another.wait(wait::START), 0, "{}", another.stderr());
    assert!(server.process.is_running());
}

#[test]
fn a_client_that_stops_reading_disturbs_nobody_and_has_to_go() {
    // Much more than what the kernel holds for it.
    let (server, url) = server(&["--bitrate", "10000", "--width", "640", "--height", "360"]);
    let by_tcp = Player::start(&url, "tcp");
    let by_udp = Player::start(&url, "udp");
    let good = [&by_tcp, &by_udp];
    let before = good.map(|player| latencies(&player.next_shots(60)).0);
    let resident = server.process.footprint().resident_kb;
    let mut viewer = Client::start(&["--url", &server.url("/whep")]);
    let viewed = viewer.wait_for_frames(0, 30);
    let mut stuck = [(); 3].map(|()| Connection::open(&url));
    stuck.iter_mut().for_each(|client| drop(client.play_by_tcp()));
    until_true("five play", wait::SOON, || clients(&server) == 5);
    let from = good.map(|player| player.shots().len());
    let mut most = resident;
    until_true("those who do not read are disconnected", wait::START, || {
        most = most.max(server.process.footprint().resident_kb);
        clients(&server) == 2
    });
    for ((player, from), before) in good.into_iter().zip(from).zip(before) {
        let shots = player.shots().split_off(from);
        let (after, worst) = latencies(&shots);
        let best = shots.iter().filter_map(|shot| shot.latency).min().expect("pictures with a mark");
        println!("latency {before:?} before, {after:?} beside (at worst {worst:?}), {} pictures", shots.len());
        let (missing, unread) = defects(&shots);
        assert_eq!(unread, 0);
        until_counted(missing, &Report::default(), || server.stats());
        // A server that waits for the others delays every picture, and a busy machine only some.
        assert!(best < before + Duration::from_millis(300), "{before:?}, at best {best:?}");
    }
    let report = viewer.wait_for_frames(viewed.frames_shown, 30);
    assert_eq!((report.packets_lost, report.sessions), (0, 1), "{report:?}");
    println!("{resident} kB before, {most} kB at most");
    assert!(most < resident + 100_000, "{resident} kB before, {most} kB at most");
    stuck.iter_mut().for_each(|client| client.wait_for_close(wait::SOON));
    server.process.logs(&["has not kept up"]);
}

#[test]
fn sessions_go_on_when_the_source_is_started_again() {
    let pipeline = "videotestsrc is-live=true num-buffers=60 ! video/x-raw,width=320,height=240,framerate=30/1";
    let (server, url) = server(&["--pipeline", pipeline]);
    let players = ["udp", "tcp"].map(|protocol| Player::start(&url, protocol));
    for player in &players {
        player.next_shots(10);
    }
    let restarts = server.stats().streams[0].restarts;
    until_true("the source is started again", wait::START, || server.stats().streams[0].restarts > restarts);
    for player in &players {
        player.next_shots(60);
    }
    assert_eq!(clients(&server), 2, "the same sessions");
}

#[test]
fn without_pictures_a_client_is_refused_in_the_end_and_the_log_says_why() {
    let nothing = "appsrc is-live=true ! video/x-raw,format=I420,width=320,height=240,framerate=30/1";
    let server = Server::start(&["--pipeline", nothing]);
    let url = server.rtsp.clone().expect("an RTSP address");
    for path in ["/stream1", "/mjpeg"] {
        assert_eq!(Connection::open(&with_path(&url, path)).request("DESCRIBE", "", "").status, 503);
    }
    // One request of a connection waits, and none is forgotten for another.
    let mut hasty = Connection::open(&url);
    hasty.send(format!("DESCRIBE {url} RTSP/1.0\r\nCSeq: 100\r\n\r\n").as_bytes());
    let replies = [hasty.request("DESCRIBE", "", ""), hasty.reply().expect("another answer")];
    for (reply, number) in replies.iter().zip(["CSeq: 1\r\n", "CSeq: 100\r\n"]) {
        assert!(reply.status == 503 && format!("{}\r\n", reply.head).contains(number), "{reply:?}");
    }
    server.process.logs(&["an RTSP client was refused", "127.0.0.1:"]);
}

#[test]
fn a_port_that_is_taken_is_named_with_its_option() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a TCP socket");
    let port = taken.local_addr().expect("its address").port().to_string();
    let mut server = server_process(&["--rtsp-port", &port]);
    assert_eq!(server.wait(wait::START), 2);
    let message = server.stderr();
    assert!(message.contains("--rtsp-port") && message.contains(&port), "{message}");
}

#[test]
fn the_end_of_the_server_closes_its_sessions() {
    let (mut server, url) = server(&[]);
    let mut client = Connection::open(&url);
    client.play_by_tcp();
    let player = Player::start(&url, "udp");
    player.next_shots(5);
    assert_eq!(server.process.stop(libc::SIGTERM, END), 0);
    client.wait_for_close(wait::SOON);
    assert!(!server.process.stderr().contains("could not be"), "{}", server.process.stderr());
}

#[test]
fn players_receive_multicast() {
    /// Two machines with a cable between them: the port of a group can be had once on a machine. The server's has no
    /// route for multicast, as on an isolated network.
    const SCRIPT: &str = r#"
unshare --net sleep 60 &
far=$!
until [ "$(readlink /proc/$far/ns/net)" != "$(readlink /proc/self/ns/net)" ]; do sleep 0.05; done
ip link add near type veth peer name far netns $far
ip address add 10.0.0.1/24 dev near
ip link set lo up
ip link set near up
player="nsenter --target $far --net --preserve-credentials"
$player ip address add 10.0.0.2/24 dev far
$player ip link set far up
$player ip route add 224.0.0.0/4 dev far
"$SERVER" --source test --width 320 --height 240 --signal-port 0 --no-discovery &
server=$!
for path in /stream1 /live; do
    until $player "$FFMPEG" -v error -nostdin -rtsp_transport udp_multicast -i rtsp://10.0.0.1:8554$path \
        -frames:v 20 -f null -
    do sleep 0.3; done &
    players+=($!)
done
wait "${players[@]}"
code=$?
kill $far $server
exit $code
"#;
    if !namespace::is_allowed("true") {
        skipped("this system does not allow network namespaces");
        return;
    }
    let mut command = namespace::bash(SCRIPT);
    command.env("SERVER", binary("rov-server")).env("FFMPEG", program("ffmpeg", "ffmpeg")).env_remove("RUST_LOG");
    let mut both = Process::spawn("server and players", &mut command);
    assert_eq!(both.wait(wait::START), 0);
    let log = both.stderr();
    assert!(log.matches("an RTSP client plays").count() >= 2, "{log}");
    assert!(log.contains("rtsp://10.0.0.1:8554/stream1"), "an address that others can use: {log}");
}
