//! H.264 that is there already, sent without re-encoding: files and standard input.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rov_common::units::Resolution;
use rov_tests::devtools::DevTools;
use rov_tests::jpeg;
use rov_tests::media::Clip;
use rov_tests::programs::{Client, Server, server_process};
use rov_tests::rtsp::Player;
use rov_tests::wait::{self, until_true};
use rov_tests::watcher::Watcher;
use tempfile::TempDir;
use tokio::runtime::Runtime;

fn clip(folder: &TempDir, name: &str, clip: Clip) -> PathBuf {
    let file = folder.path().join(name);
    clip.write(&file);
    file
}

#[test]
fn a_file_goes_out_as_it_is_and_loops_without_a_break() {
    let folder = TempDir::new().expect("a temporary folder");
    let runtime = Runtime::new().expect("a runtime");
    // Two seconds, with sound that nobody asked for.
    for name in ["clip.mp4", "clip.mkv", "clip.ts", "clip.h264"] {
        let file = clip(&folder, name, Clip { audio: name != "clip.h264", ..Clip::default() });
        let file = file.to_str().expect("plain characters");
        let server = Server::start(&["--source", "file", "--file", file, "--file-passthrough"]);
        server.wait_until_running();
        let watcher = Watcher::start(&runtime, &["--url", &server.url("/whep")]);
        watcher.wait_for_shots(1);
        // Over one join for certain: the file has 50 pictures.
        watcher.wait_for_shots(60);
        let (shots, report, stats) = (watcher.shots(), watcher.report(), server.stats());
        assert_eq!(shots.last().expect("pictures").resolution, Resolution::new(640, 360), "{name}");
        assert_eq!((report.packets_lost, report.frames_skipped, report.sessions), (0, 0, 1), "{name}: {report:?}");
        let stream = &stats.streams[0];
        assert_eq!((stream.encoder.as_str(), stream.restarts), ("passthrough", 0), "{name}: {stream:?}");
        assert_eq!((stream.width, stream.height), (640, 360), "{name}: {stream:?}");
        let longest = shots.windows(2).map(|pair| pair[1].shown_at - pair[0].shown_at).max();
        println!("{name}: longest time between two pictures {longest:?}");
        watcher.stop(&runtime);
    }
}

#[test]
fn a_viewer_waits_in_one_session_for_the_next_keyframe_of_a_file() {
    let folder = TempDir::new().expect("a temporary folder");
    // One keyframe in six seconds, and the viewer comes after it.
    let file = clip(&folder, "clip.mp4", Clip { seconds: 6, gop: 1000, ..Clip::default() });
    let file = file.to_str().expect("plain characters");
    let server = Server::start(&["--source", "file", "--file", file, "--file-passthrough"]);
    server.wait_until_running();
    let runtime = Runtime::new().expect("a runtime");
    let watcher = Watcher::start(&runtime, &["--url", &server.url("/whep")]);
    until_true("a viewer without a keyframe", wait::SOON, || server.stats().viewers.iter().any(|v| v.skipped > 0));
    watcher.wait_for_shots(10);
    assert_eq!(watcher.report().sessions, 1, "{:?}", watcher.report());
    watcher.stop(&runtime);
}

/// A server of its own, whose next keyframe comes in some seconds.
fn between_rare_keyframes(file: &str) -> Server {
    let server = Server::start(&["--source", "file", "--file", file, "--file-passthrough"]);
    server.wait_until_running();
    until_true("the first keyframe is gone", wait::SOON, || server.stats().streams[0].frames > 10);
    server
}

#[test]
fn pictures_of_a_stream_with_rare_keyframes_wait_for_the_next() {
    let folder = TempDir::new().expect("a temporary folder");
    let file = clip(&folder, "clip.mp4", Clip { seconds: 8, gop: 1000, ..Clip::default() });
    let file = file.to_str().expect("plain characters");
    std::thread::scope(|ways| {
        ways.spawn(|| {
            let server = between_rare_keyframes(file);
            let answer = jpeg::get(server.address, "/snapshot.jpg");
            let (status, body) = (answer.status, answer.body());
            assert_eq!(status, 200, "{}", String::from_utf8_lossy(&body));
            assert_eq!(jpeg::decode(&body).0, 640);
        });
        ways.spawn(|| {
            let server = between_rare_keyframes(file);
            let mut answer = jpeg::get(server.address, "/stream.mjpg");
            assert_eq!(answer.status, 200);
            for _ in 0..3 {
                assert_eq!(jpeg::decode(&answer.next_part().expect("a picture").0).0, 640);
            }
        });
        // By UDP players give up before that.
        ways.spawn(|| {
            let server = between_rare_keyframes(file);
            let url = server.stats().rtsp.expect("RTSP is served").mjpeg_urls.remove(0);
            Player::start_mjpeg(&url, "tcp").next_shots(3);
        });
    });
}

/// Says of an MP4 file with one track that its picture is to be turned, as phones do: by the matrix of its `tkhd` box
/// (ISO/IEC 14496-12 8.3.2).
fn turn(file: &Path, [a, b, c, d, x, y]: [i32; 6]) {
    const MATRIX_AT: usize = 44;
    let mut data = std::fs::read(file).expect("the file");
    let header = data.windows(4).position(|bytes| bytes == b"tkhd").expect("a track") + MATRIX_AT;
    let matrix = [a << 16, b << 16, 0, c << 16, d << 16, 0, x << 16, y << 16, 1 << 30];
    data[header..header + 36].copy_from_slice(&matrix.map(i32::to_be_bytes).concat());
    std::fs::write(file, data).expect("the file is written");
}

/// A quarter to the right: what is at the left comes to the top.
const RIGHT: [i32; 6] = [0, 1, -1, 0, 360, 0];

#[test]
fn a_phones_video_is_turned_the_right_way() {
    let folder = TempDir::new().expect("a temporary folder");
    let bars = Clip { pattern: "smptebars", audio: false, ..Clip::default() };
    for (turned, size, corner) in [
        ([1, 0, 0, 1, 0, 0], (640, 360), "top left"),
        (RIGHT, (360, 640), "top right"),
        ([-1, 0, 0, -1, 640, 360], (640, 360), "bottom right"),
        ([0, -1, 1, 0, 0, 640], (360, 640), "bottom left"),
    ] {
        let file = clip(&folder, "phone.mp4", bars);
        turn(&file, turned);
        let file = file.to_str().expect("plain characters");
        let server = Server::start(&["--source", "file", "--file", file, "--width", "0", "--height", "0"]);
        server.wait_until_running();
        let (width, height, luma) = jpeg::luma(&jpeg::get(server.address, "/snapshot.jpg").body());
        assert_eq!((width, height), size, "{corner}");
        // The first bar is the brightest there is in a corner.
        let at = |row: usize, column: usize| luma[row * width + column];
        let (far, below) = (width - 9, height - 9);
        let corners =
            [(8, 8, "top left"), (8, far, "top right"), (below, 8, "bottom left"), (below, far, "bottom right")];
        let brightest = corners.into_iter().max_by_key(|(row, column, _)| at(*row, *column));
        assert_eq!(brightest.map(|(.., name)| name), Some(corner), "{:?}", corners.map(|(y, x, _)| at(y, x)));
    }
}

#[test]
fn a_phones_video_is_upright_when_it_is_encoded_and_passed_through_it_is_said_to_be_turned() {
    let folder = TempDir::new().expect("a temporary folder");
    let file = clip(&folder, "phone.mp4", Clip { audio: false, ..Clip::default() });
    turn(&file, RIGHT);
    let file = ["--source", "file", "--file", file.to_str().expect("plain characters")];
    let encoding = Server::start(&[&file[..], &["--width", "0", "--height", "0"]].concat());
    encoding.wait_until_running();
    let size = |server: &Server| (server.stats().streams[0].width, server.stats().streams[0].height);
    assert_eq!(size(&encoding), (360, 640));
    let mut passing = Server::start(&[&file[..], &["--file-passthrough"]].concat());
    let said = |line: &str| line.contains("its pictures are to be turned").then_some(());
    passing.process.wait_for_line("the picture is turned", wait::START, said);
    passing.wait_until_running();
    assert_eq!(size(&passing), (640, 360));
    until_true("the file was started again", wait::SOON, || passing.stats().streams[0].frames > 60);
    let said = passing.process.stderr().lines().filter(|line| line.contains("are to be turned")).count();
    assert_eq!(said, 1, "said once, not at each round");
}

#[test]
fn a_file_that_webrtc_viewers_cannot_show_is_refused_with_the_remedy() {
    let folder = TempDir::new().expect("a temporary folder");
    let with_b_frames = clip(&folder, "b.mp4", Clip { b_frames: 2, audio: false, ..Clip::default() });
    let not_a_video = folder.path().join("text.mp4");
    std::fs::write(&not_a_video, "not a video\n".repeat(1000)).expect("a file");
    for (file, reason) in [(&with_b_frames, "B-frames"), (&not_a_video, "text.mp4")] {
        let path = file.to_str().expect("plain characters");
        let mut server = server_process(&["--source", "file", "--file", path, "--file-passthrough"]);
        assert_eq!(server.wait(wait::START), 2, "{}", server.stderr());
        let message = server.stderr();
        assert!(message.contains(reason) && message.contains(path), "{message}");
        if file == &with_b_frames {
            assert!(message.contains("drop --file-passthrough"), "{message}");
        }
    }
    // The remedy works.
    let path = with_b_frames.to_str().expect("plain characters");
    let server = Server::start(&["--source", "file", "--file", path]);
    let mut client = Client::start(&["--url", &server.url("/whep")]);
    let report = client.wait_for_frames(0, 30);
    assert_eq!((report.width, report.height, report.packets_lost), (320, 240, 0), "{report:?}");
}

#[test]
fn a_file_that_is_not_to_loop_ends_the_server_cleanly() {
    let folder = TempDir::new().expect("a temporary folder");
    let file = clip(&folder, "clip.mp4", Clip::default());
    let file = file.to_str().expect("plain characters");
    let mut server = Server::start(&["--source", "file", "--file", file, "--file-passthrough", "--no-loop"]);
    assert_eq!(server.process.wait(wait::START), 0);
    assert!(server.process.stderr().contains("is at its end"), "{}", server.process.stderr());
}

#[test]
fn a_camera_program_on_standard_input_is_shown_and_its_end_is_the_servers() {
    let clip = Clip { seconds: 4, ..Clip::default() };
    let (reader, writer) = std::io::pipe().expect("a pipe");
    let mut command = clip.annex_b_command();
    command.stdout(writer);
    let mut camera = command.spawn().map(Reaped).expect("ffmpeg starts");
    // The command holds the writing end as well, and the server would wait for it.
    drop(command);
    let mut server = Server::start_with_input(&["--source", "stdin"], reader);
    let runtime = Runtime::new().expect("a runtime");
    let watcher = Watcher::start(&runtime, &["--url", &server.url("/whep")]);
    watcher.wait_for_shots(20);
    assert_eq!(watcher.shots()[0].resolution, Resolution::new(640, 360));
    assert_eq!(watcher.report().packets_lost, 0, "{:?}", watcher.report());
    assert_eq!(server.stats().streams[0].encoder, "passthrough");
    assert_eq!(server.process.wait(wait::START), 0, "the end of its input is the end of the server");
    assert!(server.process.stderr().contains("standard input is at its end"), "{}", server.process.stderr());
    camera.0.wait().expect("ffmpeg ends");
    watcher.stop(&runtime);
}

#[test]
fn a_stream_without_keyframes_is_said_everywhere_with_the_remedy() {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    let mut command = std::process::Command::new("ffmpeg");
    command
        .args("-v error -re -f lavfi -i testsrc2=size=320x240:rate=25 -c:v libx264 -preset ultrafast -bf 0".split(' '));
    command
        .args("-x264-params intra-refresh=1:keyint=25 -pix_fmt yuv420p -bsf:v filter_units=remove_types=5".split(' '));
    let camera = command.args(["-f", "h264", "-"]).stdout(writer).spawn().map(Reaped).expect("ffmpeg starts");
    drop(command);
    let server = Server::start_with_input(&["--source", "stdin"], reader);
    let client = Client::start(&["--url", &server.url("/whep")]);
    let mut chromium = DevTools::start();
    let page = chromium.open(&server.url("/"));
    // Eight seconds of pictures until it is sure.
    until_true("the reason in /healthz", Duration::from_secs(30), || {
        let (status, health) = server.health();
        let reason = health.streams.values().next().and_then(|stream| stream.reason.clone()).unwrap_or_default();
        status == 503 && reason.contains("has no keyframes") && reason.contains("ffmpeg: -g 30")
    });
    server.process.logs(&["has no keyframes"]);
    client.process.logs(&["has no keyframes"]);
    let said = "document.getElementById('reason').textContent.includes('has no keyframes') \
                && document.body.dataset.state === 'waiting'";
    chromium.wait_for(&page, said, wait::SOON);
    drop(camera);
}

/// A parser would find start codes in a transport stream too, and its torn pictures would look live.
#[test]
fn what_is_not_the_raw_codec_on_standard_input_is_named_and_refused() {
    let folder = TempDir::new().expect("a temporary folder");
    let made = |name: &str| {
        clip(&folder, name, Clip { audio: false, ..Clip::default() });
        std::fs::read(folder.path().join(name)).expect("the clip")
    };
    let raw = made("clip.h264");
    let middle = raw[raw.len() / 3..].to_vec();
    let expected = "expected raw H.264 (ffmpeg -f h264)";
    for (bytes, code, message) in [
        (made("clip.ts"), 2, format!("standard input is MPEG-TS; {expected}")),
        (made("clip.ts")[1_000..].to_vec(), 2, format!("standard input is MPEG-TS; {expected}")),
        (made("clip.mkv"), 2, format!("standard input is MKV or WebM; {expected}")),
        (made("clip.mp4"), 2, format!("standard input is MP4; {expected}")),
        (b"ERROR: no camera\n".to_vec(), 2, "(it begins with \"ERROR: no camera\\n\")".to_owned()),
        (raw, 0, "standard input is at its end".to_owned()),
        (middle, 0, "standard input is at its end".to_owned()),
    ] {
        let (reader, mut writer) = std::io::pipe().expect("a pipe");
        // The server may have ended meanwhile.
        let feeder = std::thread::spawn(move || drop(std::io::Write::write_all(&mut writer, &bytes)));
        let mut server = Server::start_with_input(&["--source", "stdin"], reader);
        assert_eq!(server.process.wait(wait::START), code, "{message}: {}", server.process.stderr());
        assert!(server.process.stderr().contains(&message), "{message}: {}", server.process.stderr());
        drop(server);
        feeder.join().expect("the feeder ends");
    }
}

#[test]
fn text_that_trickles_into_standard_input_is_refused_too() {
    let (reader, mut writer) = std::io::pipe().expect("a pipe");
    // Until the server has ended.
    let feeder = std::thread::spawn(move || {
        while std::io::Write::write_all(&mut writer, b"waiting for the camera\n").is_ok() {
            std::thread::sleep(Duration::from_millis(100));
        }
    });
    let mut server = Server::start_with_input(&["--source", "stdin"], reader);
    assert_eq!(server.process.wait(wait::START), 2, "{}", server.process.stderr());
    let log = server.process.stderr();
    assert!(log.contains("(it begins with \"waiting for the camera\\n") && !log.contains("restarting"), "{log}");
    drop(server);
    feeder.join().expect("the feeder ends");
}

/// Ends with the test.
struct Reaped(std::process::Child);

impl Drop for Reaped {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
