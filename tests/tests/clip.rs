//! Clips of the last seconds, played by ffmpeg; who gets them, and what is said where there are none.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rov_common::api::RingStats;
use rov_tests::media::marks;
use rov_tests::process::program;
use rov_tests::programs::Server;
use rov_tests::wait::{START, until, until_true};
use rov_tests::{http, jpeg};
use tempfile::TempDir;

const PICTURE: [&str; 6] = ["--width", "320", "--height", "240", "--fps", "15"];

fn start(args: &[&str]) -> Server {
    Server::start(&[&PICTURE[..], args].concat())
}

fn ring(server: &Server) -> RingStats {
    server.stats().streams[0].ring.clone().expect("something is kept")
}

/// When each packet is shown, in seconds, and whether it is a keyframe.
fn packets(file: &Path) -> Vec<(f64, bool)> {
    let mut command = Command::new(program("ffprobe", "ffmpeg"));
    command.args(["-v", "error", "-show_entries", "packet=pts_time,flags", "-of", "csv=p=0"]).arg(file);
    let output = command.output().expect("ffprobe starts");
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    let text = String::from_utf8_lossy(&output.stdout);
    let packet = |line: &str| {
        let (time, flags) = line.split_once(',').unwrap_or_else(|| panic!("{line}"));
        (time.parse().expect("a time"), flags.starts_with('K'))
    };
    text.lines().map(packet).collect()
}

#[test]
fn a_clip_is_a_file_that_begins_with_a_keyframe_and_has_the_last_seconds() {
    let server = start(&["--always-encode", "--keyframe-interval", "1", "--ring", "10s"]);
    until_true("eight seconds are kept", 3 * START, || ring(&server).seconds >= 8.0);
    let clip = jpeg::get(server.address, "/api/clip?seconds=3");
    assert_eq!((clip.status, clip.header("content-type")), (200, "video/mp4"), "{clip:?}");
    let name = clip.header("content-disposition").to_owned();
    assert!(name.starts_with("attachment; filename=\"clip_20") && name.ends_with("Z_cam1_stream1.mp4\""), "{name}");
    let said: f64 = clip.header("x-content-duration").parse().expect("seconds");
    assert!(clip.header("x-timestamp").parse::<f64>().expect("a time of capture") > 1_700_000_000.0);
    let age: f64 = clip.header("x-age").parse().expect("seconds");
    assert!((0.0..START.as_secs_f64()).contains(&age), "{age}");
    assert_eq!(clip.header("x-server-id"), server.stats().id);
    let (length, body) = (clip.header("content-length").to_owned(), clip.body());
    assert_eq!(body.len().to_string(), length);
    let folder = TempDir::new().expect("a folder");
    let file = folder.path().join("clip.mp4");
    std::fs::write(&file, body).expect("a file");
    let packets = packets(&file);
    assert!(packets[0].1 && packets[0].0 == 0.0, "a keyframe first: {packets:?}");
    let last = packets[packets.len() - 1].0;
    // But for the interval between two groups.
    assert!(last >= 2.5 && (said - last).abs() < 0.1, "{said} s said: {packets:?}");
    // Not a group more than is needed.
    let second = packets.iter().skip(1).find(|packet| packet.1).expect("a second keyframe");
    assert!(last - second.0 < 3.0, "{packets:?}");
    let marks = marks(&["-i", file.to_str().expect("a plain path")], 320, 240);
    assert_eq!(marks.len(), packets.len(), "each picture is decoded");
    assert!(marks.windows(2).all(|two| two[0].frame < two[1].frame), "each once, in order");
    // The same by POST, and what it would be by HEAD, for which none is made; the bounds hold.
    let posted = jpeg::post(server.address, "/api/clip?seconds=3");
    let said = (posted.status, posted.header("content-type").to_owned(), posted.header("content-length").to_owned());
    let body = posted.body();
    assert_eq!(said, (200, "video/mp4".to_owned(), body.len().to_string()));
    assert_eq!(&body[4..8], b"ftyp");
    let head = http::request_with("HEAD", &server.url("/api/clip"), &[], b"");
    assert_eq!((head.status, head.header("content-type")), (200, "video/mp4"), "{head:?}");
    assert_eq!((head.header("cache-control"), head.header("content-disposition")), ("no-store", ""), "{head:?}");
    assert_eq!(head.headers.get("content-length"), None, "nobody knows how long it would be");
    let kept = ring(&server);
    assert!(kept.bytes > 0 && kept.bytes <= kept.limit && kept.limit_seconds == 10, "{kept:?}");
}

/// What `/api/clip` gives for these times of capture, in microseconds: when its first picture and its last were
/// captured.
fn between(server: &Server, from: u64, to: u64, more: &str) -> (f64, f64) {
    let path = format!("/api/clip?from={from}&to={to}{more}");
    // Refused while the place of the one before rests.
    let clip = until("a clip", START, || Some(jpeg::get(server.address, &path)).filter(|clip| clip.status != 503));
    assert_eq!(clip.status, 200, "{clip:?}");
    let number = |name: &str| clip.header(name).parse::<f64>().expect("seconds");
    let begun = number("x-timestamp");
    (begun, begun + number("x-content-duration"))
}

#[test]
fn a_clip_by_times_of_capture_is_the_same_however_late_it_is_asked_for() {
    let server = start(&["--always-encode", "--keyframe-interval", "1", "--ring", "5s"]);
    until_true("something is kept", START, || ring(&server).seconds >= 4.0);
    let listed = || http::get(&server.url("/api/ring?from=0&to=99999999999999999")).json();
    let first = listed();
    let times: Vec<_> =
        first["pictures_us"].as_array().expect("times").iter().filter_map(|time| time.as_u64()).collect();
    let (from, to, run) = (times[times.len() - 30], times[times.len() - 10], first["run"].as_u64().expect("a run"));
    let seconds = |micros: u64| micros as f64 / 1e6;
    let is_it = |(begun, ended): (f64, f64)| {
        let (early, late) = (seconds(from) - begun, ended - seconds(to));
        // From the keyframe before it, to the end of its last picture.
        assert!((-0.01..1.5).contains(&early) && (-0.01..0.2).contains(&late), "{early} s early, {late} s late");
        begun
    };
    let begun = is_it(between(&server, from, to, ""));
    assert_eq!(is_it(between(&server, from, to, &format!("&run={run}&seconds=3"))), begun);
    let later = to + 1_000_000;
    until_true("pictures come", START, || {
        listed()["pictures_us"].as_array().is_some_and(|all| all.last().is_some_and(|last| last.as_u64() > Some(later)))
    });
    assert_eq!(is_it(between(&server, from, to, "")), begun, "a second later");
    let refused = |query: &str| {
        let get = || http::get(&server.url(&format!("/api/clip?{query}")));
        let reply = until("a refusal", START, || Some(get()).filter(|reply| reply.status != 503));
        (reply.status, reply.error())
    };
    let (status, reason) = refused(&format!("from={from}&to={to}&run={}", run + 1));
    assert!(status == 410 && reason.contains("started again"), "{status} {reason}");
    let (status, reason) = refused("from=1000000&to=2000000");
    assert!(status == 410 && reason.contains("any more"), "{status} {reason}");
    let (status, reason) = refused("from=99999999999999998&to=99999999999999999");
    assert!(status == 409 && reason.contains("of that time"), "{status} {reason}");
    for wrong in ["from=1", "to=1", "from=2&to=1", "from=x&to=1"] {
        assert_eq!(refused(wrong).0, 422, "{wrong}");
    }
    until_true("it is not kept any more", 3 * START, || listed()["kept_from_us"].as_u64() > Some(to));
    assert_eq!(refused(&format!("from={from}&to={to}")).0, 410);
}

#[test]
fn a_ring_keeps_no_encoder_awake_and_gives_what_was_before_the_rest() {
    let server = start(&[]);
    until_true("a snapshot", START, || jpeg::get(server.address, "/snapshot.jpg").status == 200);
    let resting = || server.stats().streams[0].resting;
    until_true("the encoder rests", START, resting);
    let before = until("what is kept stays as it is", START, || {
        let before = ring(&server);
        std::thread::sleep(Duration::from_millis(300));
        Some(before.clone()).filter(|before| before.bytes > 0 && *before == ring(&server))
    });
    let clip = jpeg::get(server.address, "/api/clip");
    assert_eq!(clip.status, 200, "{clip:?}");
    assert!(clip.body().len() as u64 >= before.bytes, "all that is kept");
    // Refused while the places of the clips before rest.
    let age = || {
        let clip = jpeg::get(server.address, "/api/clip");
        (clip.status == 200).then(|| clip.header("x-age").parse::<f64>().expect("seconds"))
    };
    until_true("its end is as old as it is said to be", START, || age().is_some_and(|age| age >= 2.0));
    assert!(resting() && ring(&server) == before);
}

#[test]
fn where_there_is_no_clip_the_answer_says_why() {
    let server = start(&["--source", "publish", "--ring", "20s"]);
    let ask = |path: &str| {
        let reply = http::get(&server.url(path));
        (reply.status, reply.error())
    };
    let (status, reason) = ask("/api/clip");
    assert!(status == 409 && reason.contains("nothing of stream1 is kept yet"), "{status} {reason}");
    assert_eq!(http::request("POST", &server.url("/api/clip"), None, b"").status, 409);
    let (status, reason) = ask("/api/clip?stream=sonar");
    assert!(status == 404 && reason.contains("only stream1"), "{status} {reason}");
    for seconds in ["0", "21", "x", ""] {
        let (status, reason) = ask(&format!("/api/clip?seconds={seconds}"));
        assert!(status == 422 && reason.contains("from 1 to 20") && reason.contains("--ring"), "{status} {reason}");
    }
    let off = start(&["--ring", "off"]);
    let reply = http::get(&off.url("/api/clip"));
    assert!(reply.status == 404 && reply.error().contains("--ring 30s"), "{reply:?}");
    assert_eq!(off.stats().streams[0].ring, None);
    for wrong in ["4s", "11min", "60", "64MB"] {
        let mut server = rov_tests::programs::server_process(&["--ring", wrong]);
        assert_eq!(server.wait(START), 2, "{wrong}");
        assert!(server.stderr().contains("5s to 10min"), "{}", server.stderr());
    }
}

#[test]
fn clips_are_for_whoever_may_watch() {
    let server = start(&["--always-encode", "--user", "pilot", "--password", "secret word", "--role", "viewer"]);
    let login = http::basic("pilot", "secret word");
    until_true("a clip", START, || jpeg::get_as(server.address, "/api/clip", &login).status == 200);
    let url = server.url("/api/clip");
    for method in ["GET", "POST"] {
        assert_eq!(http::request(method, &url, None, b"").status, 401, "{method}");
        let headers = [
            ("Authorization", login.as_str()),
            ("Sec-Fetch-Site", "cross-site"),
            ("Sec-Fetch-Mode", "no-cors"),
            ("Origin", "http://elsewhere.example"),
        ];
        assert_eq!(http::request_with(method, &url, &headers, b"").status, 403, "{method}");
    }
}
