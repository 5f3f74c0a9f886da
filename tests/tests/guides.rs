//! The command lines that the field's guides give for an RTSP stream, as they stand there: only the names of the host
//! and of files are replaced. Players draw on a screen in memory, and are seen to show a picture that moves.

use std::path::Path;
use std::process::{Command, Stdio};

use rov_tests::process::{Process, program};
use rov_tests::programs::Server;
use rov_tests::screen::Screen;
use rov_tests::wait::{self, until_true};
use rov_tests::{media, opencv, skipped, vlc};
use tempfile::TempDir;

/// How it is seen that a command line works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Proof {
    /// Its window shows a picture that moves.
    Shows,
    /// It ends well, and has written FILE, whose pictures carry marks in their order.
    Records,
    /// It ends well, and has printed this.
    Prints(&'static str),
}

/// Each line runs in a shell. HOST is the server with its RTSP port, WEB the same with its HTTP port, FILE the path of
/// a file without its extension.
const LINES: &[(&str, Proof)] = &[
    ("curl -s -i rtsp://HOST/stream1", Proof::Prints("RTSP/1.0 200 OK")),
    ("curl -s -o FILE.jpg http://WEB/snapshot.jpg", Proof::Records),
    ("ffprobe -v error -show_streams rtsp://HOST/stream1", Proof::Prints("codec_name=h264")),
    ("ffplay rtsp://HOST/stream1", Proof::Shows),
    ("ffplay -fflags nobuffer -flags low_delay -framedrop -rtsp_transport tcp rtsp://HOST/stream1", Proof::Shows),
    ("ffplay -fflags nobuffer -probesize 32 -analyzeduration 0 -sync ext rtsp://HOST/stream1", Proof::Shows),
    ("ffmpeg -rtsp_transport tcp -i rtsp://HOST/stream1 -c copy -t 2 FILE.mkv", Proof::Records),
    ("ffmpeg -i rtsp://HOST/stream1 -c:v copy -an -t 2 FILE.mp4", Proof::Records),
    ("ffmpeg -rtsp_transport udp -i rtsp://HOST/stream1 -frames:v 1 -update 1 FILE.png", Proof::Records),
    (
        "gst-launch-1.0 rtspsrc location=rtsp://HOST/stream1 latency=0 ! rtph264depay ! h264parse ! avdec_h264 ! \
         videoconvert ! autovideosink sync=false",
        Proof::Shows,
    ),
    ("gst-launch-1.0 rtspsrc location=rtsp://HOST/stream1 ! decodebin ! videoconvert ! autovideosink", Proof::Shows),
    ("gst-launch-1.0 playbin uri=rtsp://HOST/stream1", Proof::Shows),
    (
        "$ROV_TEST_PYTHON -c \"import cv2; c = cv2.VideoCapture('rtsp://HOST/stream1'); print(all(c.read()[0] for _ in \
         range(20)))\"",
        Proof::Prints("True"),
    ),
    (
        "$ROV_TEST_PYTHON -c \"import cv2; c = cv2.VideoCapture('rtsp://HOST/stream1', cv2.CAP_FFMPEG); \
         print(c.isOpened())\"",
        Proof::Prints("True"),
    ),
];

struct Scene {
    _server: Server,
    host: String,
    web: String,
    screen: Screen,
    folder: TempDir,
}

impl Scene {
    fn new() -> Self {
        let server = Server::start(&["--transport", "rtsp"]);
        server.wait_until_running();
        let rtsp = server.rtsp.clone().expect("RTSP is among the transports");
        let host = rtsp.trim_start_matches("rtsp://").split('/').next().expect("a host").to_owned();
        let web = server.address.to_string();
        Self { _server: server, host, web, screen: Screen::start(), folder: TempDir::new().expect("a folder") }
    }

    fn start(&self, line: &str) -> Process {
        let file = self.folder.path().join("file");
        let line = line.replace("HOST", &self.host).replace("WEB", &self.web);
        let line = line.replace("FILE", file.to_str().expect("plain characters"));
        let mut command = Command::new("sh");
        command.args(["-c", &format!("exec {line}")]).current_dir(self.folder.path());
        command.env("DISPLAY", &self.screen.display).env("SDL_AUDIODRIVER", "dummy").stdin(Stdio::null());
        Process::spawn(line.split(' ').next().unwrap_or_default(), &mut command)
    }

    /// The luma of the whole screen.
    fn screenshot(&self) -> Vec<u8> {
        let mut command = Command::new(program("import", "imagemagick"));
        command.args(["-display", &self.screen.display, "-window", "root", "-depth", "8", "gray:-"]);
        let output = command.output().expect("import starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }

    /// That something is drawn which changes: more than a cursor or a clock of the program's own would.
    fn moves(&self) -> bool {
        let (before, after) = (self.screenshot(), self.screenshot());
        let changed = before.iter().zip(&after).filter(|(a, b)| a.abs_diff(**b) > 16).count();
        changed > 1000
    }
}

/// Whether what the line needs is there; if not, it is said.
fn can_run(line: &str) -> bool {
    !line.starts_with("$ROV_TEST_PYTHON") || opencv::python(line).is_some()
}

fn has_pictures(folder: &Path) -> bool {
    let file =
        std::fs::read_dir(folder).expect("the folder").next().expect("a file was written").expect("an entry").path();
    let marks = media::marks(&["-i", file.to_str().expect("plain characters")], 320, 240);
    std::fs::remove_file(file).expect("the file is removed");
    !marks.is_empty() && media::is_in_order(&marks)
}

#[test]
fn the_command_lines_of_the_usual_guides_work() {
    let scene = Scene::new();
    for (line, proof) in LINES.iter().filter(|(line, _)| can_run(line)) {
        let mut process = scene.start(line);
        match proof {
            // Players that keep to the clock show hardly a picture on a busy machine.
            Proof::Shows => until_true(&format!("a picture that moves: {line}"), 3 * wait::START, || {
                assert!(process.is_running(), "{line} ended: {}", process.stderr());
                scene.moves()
            }),
            Proof::Records | Proof::Prints(_) => {
                assert_eq!(process.wait(wait::START), 0, "{line}: {}", process.stderr());
                let printed = process.stdout();
                match proof {
                    Proof::Prints(text) => assert!(printed.contains(text), "{line}: {printed}"),
                    _ => assert!(has_pictures(scene.folder.path()), "{line}"),
                }
            }
        }
        println!("works: {line}");
    }
}

#[test]
fn vlc_plays_the_command_line_of_the_guides() {
    if !vlc::has_rtsp() {
        skipped("VLC has no plugin live555 here (scripts/test prepares one): vlc rtsp://HOST:8554/stream1");
        return;
    }
    let server = Server::start(&["--transport", "rtsp"]);
    server.wait_until_running();
    vlc::shows(server.rtsp.as_ref().expect("RTSP is among the transports"), &[]);
}

/// By a server in between, as for a network that the first does not reach.
#[test]
fn a_stream_is_sent_on_to_another_server() {
    let scene = Scene::new();
    let second = Server::start(&["--source", "rtsp", "--url", &format!("rtsp://{}/stream1", scene.host)]);
    second.wait_until_running();
    assert_eq!(second.stats().streams[0].encoder, "passthrough");
    let host = second.rtsp.as_ref().expect("RTSP").trim_start_matches("rtsp://").split('/').next().expect("a host");
    let line = "ffmpeg -rtsp_transport tcp -i rtsp://HOST/stream1 -c copy -t 2 FILE.mkv".replace("HOST", host);
    let mut process = scene.start(&line);
    assert_eq!(process.wait(wait::START), 0, "{}", process.stderr());
    assert!(has_pictures(scene.folder.path()), "{line}");
}
