//! Snapshots and MJPEG: made while somebody watches, and never old.

use std::io::Write;
use std::net::{TcpStream, UdpSocket};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rov_common::api::CaptureTime;
use rov_tests::camera::{Camera, Settings};
use rov_tests::devtools::DevTools;
use rov_tests::media::Clip;
use rov_tests::process::program;
use rov_tests::programs::Server;
use rov_tests::wait::{self, until, until_true};
use rov_tests::watcher::{Order, Watcher, until_counted};
use rov_tests::{exif, http, jpeg, vlc};
use serde_json::json;
use tokio::runtime::Runtime;

fn unix_time() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970").as_secs_f64()
}

#[test]
fn a_snapshot_is_of_now_and_of_full_size() {
    let server = Server::start(&["--width", "1600", "--height", "900", "--fps", "15"]);
    server.wait_until_running();
    let mut last = None;
    for _ in 0..3 {
        let asked = unix_time();
        let answer = jpeg::get(server.address, "/snapshot.jpg");
        assert_eq!(answer.status, 200);
        assert_eq!((answer.header("content-type"), answer.header("cache-control")), ("image/jpeg", "no-store"));
        assert!(answer.header("last-modified").ends_with(" GMT"), "{answer:?}");
        let captured: f64 = answer.header("x-timestamp").parse().expect("a time");
        let (width, height, stamp) = jpeg::decode(&answer.body());
        let stamp = stamp.expect("a mark that can be read");
        assert_eq!((width, height), (1600, 900));
        let drawn = stamp.time_us as f64 / 1e6;
        println!(
            "drawn {:.3} s before it was asked for, said to be captured {:.3} s after that",
            asked - drawn,
            captured - drawn
        );
        // What the encoder and the decoder had in their hands when it was asked for; a busy machine may be slow with
        // it. The test picture's time is that at which it was due, or drawn where that is two intervals later.
        assert!(asked - drawn < 1.0 && (captured - drawn).abs() < 2.0 / 15.0 + 0.01);
        assert!(last.replace(stamp.frame).is_none_or(|last| stamp.frame > last), "the same picture again");
    }
    assert!(server.stats().jpeg.running, "it waits for the next to come");
    assert_eq!(server.stats().streams[0].capture_time, CaptureTime::Source);
    // Previews are smaller.
    let mut previews = jpeg::get(server.address, "/stream.mjpg?fps=2");
    let (width, height, _) = jpeg::decode(&previews.next_part().expect("a picture").0);
    assert_eq!((width, height), (1280, 720));
}

#[test]
fn a_snapshot_says_when_and_where_and_of_what_it_is() {
    let server =
        Server::start(&["--name", "Nemo", "--width", "640", "--height", "360", "--telemetry", "udp://127.0.0.1:0"]);
    server.wait_until_running();
    let address = server.stats().telemetry.expect("telemetry").addresses.remove(0).replace("udp://", "");
    let vehicle = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let snapshot = || {
        // They count for two seconds.
        vehicle.send_to(b"{\"depth\": 12.34, \"heading\": 271.5}", &address).expect("sent");
        let answer = jpeg::get(server.address, "/snapshot.jpg?full=1");
        let captured: f64 = answer.header("x-timestamp").parse().expect("a time");
        (answer.body(), captured)
    };
    let with_depth = |(picture, captured): (Vec<u8>, f64)| {
        let tags = exif::read(&picture);
        tags.get("GPSAltitude").is_some().then_some((picture, captured, tags))
    };
    // A busy machine may take longer than that for the first picture.
    let (picture, captured, tags) = until("a snapshot with telemetry", wait::START, || with_depth(snapshot()));
    let (width, height, stamp) = jpeg::decode(&picture);
    assert_eq!((width, height, stamp.is_some()), (640, 360, true));
    assert!((exif::taken_us(&tags) as f64 / 1e6 - captured).abs() < 1e-5, "{captured}: {tags}");
    assert_eq!((&tags["GPSAltitudeRef"], &tags["GPSImgDirection"]), (&json!(1), &json!(271.5)));
    assert!(tags["GPSAltitude"].as_f64().is_some_and(|depth| (depth.abs() - 12.34).abs() < 0.001), "{tags}");
    assert_eq!(tags["ImageDescription"], "vehicle Nemo, camera cam1, stream stream1.");
    assert_eq!((&tags["Model"], &tags["OwnerName"]), (&json!("cam1"), &json!("Nemo")));
}

#[test]
fn a_viewer_that_reads_nothing_disturbs_nobody_and_the_decoder_stops_after_the_last() {
    let server = Server::start(&["--width", "640", "--height", "360"]);
    let runtime = Runtime::new().expect("a runtime");
    let watcher = Watcher::start(&runtime, &["--url", &server.url("/whep")]);
    watcher.wait_for_shots(1);
    assert!(!server.stats().jpeg.running, "nobody has asked for it");
    let mut silent = TcpStream::connect(server.address).expect("a connection");
    silent.write_all(b"GET /stream.mjpg?fps=15 HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("a request");
    let mut reader = jpeg::get(server.address, "/stream.mjpg?fps=15");
    assert!(reader.header("content-type").starts_with("multipart/x-mixed-replace; boundary="), "{reader:?}");
    until_true("both are counted", wait::SOON, || server.stats().jpeg.viewers == 2);
    let begun = unix_time();
    let parts: Vec<_> = (0..60).map(|_| reader.next_part().expect("a picture").1).collect();
    let rate = 59.0 / (parts[59] - parts[0]);
    println!("{rate:.1} pictures a second, the last {:.3} s old when it was read", unix_time() - parts[59]);
    assert!(parts.windows(2).all(|pair| pair[0] < pair[1]), "{parts:?}");
    assert!(parts[0] > begun - 3.0 && rate < 17.0);
    let (order, report) = (Order::of(&watcher.shots()), watcher.report());
    let skipped = watcher.skipped_in_time();
    assert_eq!((report.packets_lost, skipped, report.sessions, order.out_of_order), (0, 0, 1, 0));
    until_counted(order.missing, &report, || server.stats());
    watcher.stop(&runtime);
    drop((silent, reader));
    until_true("nobody watches", wait::SOON, || server.stats().jpeg.viewers == 0);
    until_true("the decoder has stopped", wait::START, || !server.stats().jpeg.running);
    // A busy machine may need longer for it than the server waits.
    until_true("it starts again", wait::START, || jpeg::get(server.address, "/snapshot.jpg").status == 200);
}

/// What the kernel held for it would be shown as if it were live.
#[test]
fn few_old_pictures_wait_for_a_viewer_that_is_too_slow_and_then_it_is_ended() {
    let server = Server::start(&["--width", "1280", "--height", "720"]);
    server.wait_until_running();
    let stream = TcpStream::connect(server.address).expect("a connection");
    socket2::SockRef::from(&stream).set_recv_buffer_size(8 << 10).expect("a small buffer");
    let mut slow = jpeg::ask(stream, "/stream.mjpg?fps=15");
    let made = server.stats().jpeg.pictures;
    until_true("many pictures are made", wait::START, || server.stats().jpeg.pictures >= made + 60);
    // Over a link as slow as this every picture would be old: it ends.
    let old = std::iter::from_fn(|| slow.next_part()).count();
    println!("{old} old pictures");
    assert!(old <= 10, "{old} old pictures");
}

#[test]
fn a_stream_that_stands_still_gives_no_picture() {
    let mut source = Clip { seconds: 600, audio: false, ..Clip::default() }.annex_b_command();
    let mut source = Reaped(source.stdin(Stdio::null()).spawn().expect("ffmpeg starts"));
    let server = Server::start_with_input(&["--source", "stdin"], source.0.stdout.take().expect("a pipe"));
    server.wait_until_running();
    assert_eq!(jpeg::get(server.address, "/snapshot.jpg").status, 200, "untouched H.264 has snapshots as well");
    let mut previews = jpeg::get(server.address, "/stream.mjpg");
    previews.next_part().expect("a picture");
    source.signal(libc::SIGSTOP);
    while previews.next_part().is_some() {}
    until_true("the server says that nothing comes", wait::SOON, || server.health().0 == 503);
    for path in ["/snapshot.jpg", "/stream.mjpg"] {
        let refused = http::get(&server.url(path));
        assert_eq!(refused.status, 503);
        assert!(
            refused.error().contains("the stream does not run (stalled): the source gave no picture"),
            "{refused:?}"
        );
    }
    source.signal(libc::SIGCONT);
    server.wait_until_running();
    assert_eq!(jpeg::get(server.address, "/snapshot.jpg").status, 200);
}

#[test]
fn a_camera_that_restarts_in_another_size_has_snapshots_in_it() {
    let launch = |width| {
        format!(
            "( videotestsrc is-live=true ! video/x-raw,format=I420,width={width},height=240,framerate=25/1 \
             ! x264enc tune=zerolatency speed-preset=ultrafast key-int-max=25 threads=1 ! rtph264pay name=pay0 )"
        )
    };
    let camera = Camera::start(&launch(320));
    let (url, port) = (camera.url.clone(), camera.port);
    let server = Server::start(&["--source", "rtsp", "--url", &url]);
    server.wait_until_running();
    let size = || jpeg::decode(&jpeg::get(server.address, "/snapshot.jpg").body());
    assert_eq!(size().0, 320);
    drop(camera);
    until_true("the camera is missed", wait::SOON, || server.health().0 == 503);
    let _camera = Camera::with(&launch(480), Settings { port, ..Settings::default() });
    server.wait_until_running();
    assert_eq!(size().0, 480);
}

#[test]
fn what_is_too_much_is_refused_with_the_reason() {
    let server = Server::start(&["--max-viewers", "1"]);
    server.wait_until_running();
    let mut first = jpeg::get(server.address, "/stream.mjpg");
    first.next_part().expect("a picture");
    let refused = http::get(&server.url("/stream.mjpg"));
    assert_eq!(
        (refused.status, refused.error().as_str()),
        (503, "1 MJPEG viewers (--max-viewers) at once are the limit: close one, or try again")
    );
    for fps in ["60", "0", "fast"] {
        let refused = http::get(&server.url(&format!("/stream.mjpg?fps={fps}")));
        assert_eq!((refused.status, refused.error().as_str()), (400, "?fps= must be a whole number from 1 to 15"));
    }
}

#[test]
fn the_end_of_the_server_ends_its_previews() {
    let mut server = Server::start(&[]);
    server.wait_until_running();
    let mut previews = jpeg::get(server.address, "/stream.mjpg");
    previews.next_part().expect("a picture");
    assert_eq!(server.process.stop(libc::SIGTERM, Duration::from_secs(5)), 0);
    while previews.next_part().is_some() {}
}

#[test]
fn ffprobe_and_chromium_show_the_previews() {
    let server = Server::start(&["--width", "640", "--height", "360"]);
    server.wait_until_running();
    let mut ffprobe = Command::new(program("ffprobe", "ffmpeg"));
    ffprobe.args(["-v", "error", "-read_intervals", "%+#5", "-count_frames"]);
    ffprobe.args(["-show_entries", "stream=codec_name,width,height,nb_read_frames", "-of", "csv=p=0"]);
    let output = ffprobe.arg(server.url("/stream.mjpg")).output().expect("ffprobe starts");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.starts_with("mjpeg,640,360,"), "{text} {}", String::from_utf8_lossy(&output.stderr));

    let mut chromium = DevTools::start();
    let page = chromium.open(&server.url("/stream.mjpg"));
    chromium.wait_for(&page, "document.images[0]?.naturalWidth === 640", wait::START);
}

#[test]
fn vlc_shows_the_previews() {
    let server = Server::start(&[]);
    server.wait_until_running();
    vlc::shows(&server.url("/stream.mjpg"), &[]);
}

/// Ends with the test.
struct Reaped(std::process::Child);

impl Reaped {
    fn signal(&self, signal: libc::c_int) {
        // SAFETY: a system call without pointers; the child is not reaped yet, so the id is its own.
        assert_eq!(unsafe { libc::kill(self.0.id() as libc::pid_t, signal) }, 0);
    }
}

impl Drop for Reaped {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
