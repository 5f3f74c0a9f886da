//! The client's window, with real video, on the screen of a virtual X server.

use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rov_common::stamp::{self, Stamp};
use rov_tests::process::{Process, binary, program};
use rov_tests::programs::{Server, free_udp_port};
use rov_tests::screen::Screen;
use rov_tests::wait::{self, until, until_true};

const WIDTH: usize = 1280;
const HEIGHT: usize = 720;
const END: Duration = Duration::from_secs(5);

/// A screen, and what the user does there.
struct Desk(Screen);

/// What is on it, 8 bits of luminance each.
struct Shot {
    width: usize,
    pixels: Vec<u8>,
}

impl Desk {
    fn start() -> Self {
        Self(Screen::start())
    }

    fn client(&self, args: &[&str]) -> Process {
        let mut command = Command::new(binary("rov-client"));
        command.env_remove("RUST_LOG").env_remove("WAYLAND_DISPLAY").env("DISPLAY", &self.0.display);
        command.args(["--interface", "lo", "--width", "1280", "--height", "720"]).args(args);
        Process::spawn("rov-client", &mut command)
    }

    fn press(&self, key: &str) {
        let status =
            Command::new(program("xdotool", "xdotool")).env("DISPLAY", &self.0.display).args(["key", key]).status();
        assert!(status.expect("xdotool starts").success(), "xdotool key {key}");
    }

    fn shot(&self) -> Shot {
        let output = Command::new(program("import", "imagemagick"))
            .args(["-display", &self.0.display, "-window", "root", "-depth", "8", "-colorspace", "Gray", "pgm:-"])
            .output()
            .expect("import starts");
        assert!(output.status.success(), "import: {}", String::from_utf8_lossy(&output.stderr));
        // PGM: "P5", width, height, 255, one white space, pixels.
        let header = output.stdout.splitn(4, |byte| byte.is_ascii_whitespace()).take(3).map(<[u8]>::len).sum::<usize>();
        let fields: Vec<_> = output.stdout[..header + 2].split(|b| b.is_ascii_whitespace()).collect();
        let number = |at: usize| std::str::from_utf8(fields[at]).expect("text").parse::<usize>().expect("a number");
        let (width, height) = (number(1), number(2));
        Shot { width, pixels: output.stdout[output.stdout.len() - width * height..].to_vec() }
    }

    /// The mark of the picture on the screen, once there is one that `wanted` likes.
    fn wait_for_stamp(&self, what: &str, wanted: impl Fn(&Stamp) -> bool) -> Stamp {
        until(what, wait::START, || self.shot().stamp().filter(&wanted))
    }
}

impl Shot {
    fn stamp(&self) -> Option<Stamp> {
        stamp::read_with(WIDTH, HEIGHT, |x, y| self.pixels[y * self.width + x])
    }

    fn brightness(&self) -> f64 {
        self.pixels.iter().map(|p| f64::from(*p)).sum::<f64>() / self.pixels.len() as f64
    }
}

fn unix_us() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_micros() as u64
}

#[test]
fn the_window_shows_the_picture_and_q_and_escape_close_it() {
    let screen = Desk::start();
    let server = Server::start(&["--width", "640", "--height", "360"]);
    for key in ["q", "Escape"] {
        let begun = unix_us();
        let mut client = screen.client(&["--url", &server.url("/whep")]);
        let first = screen.wait_for_stamp("the picture is on the screen", |_| true);
        assert!(first.time_us >= begun, "a picture made after the client began");
        let later = screen.wait_for_stamp("the picture moves", |stamp| stamp.frame > first.frame);
        assert!(later.time_us > first.time_us && later.time_us <= unix_us());
        screen.press(key);
        assert_eq!(client.wait(END), 0, "closed by the user with {key}");
        until_true("the server knows", wait::SOON, || server.stats().viewers.is_empty());
    }
}

#[test]
fn old_video_is_dimmed_until_the_server_is_back() {
    let screen = Desk::start();
    let port = free_udp_port().to_string();
    let start = || Server::start(&["--width", "640", "--height", "360", "--name", "Nemo", "--discovery-port", &port]);
    let mut server = start();
    let mut client = screen.client(&["--auto", "--discovery-port", &port]);
    let before = screen.wait_for_stamp("the picture is on the screen", |_| true);
    let bright = screen.shot().brightness();
    server.process.kill();
    until_true("the old picture is dimmed", wait::SOON, || screen.shot().brightness() < bright * 0.7);

    let _server = start();
    screen.wait_for_stamp("a new picture", |stamp| stamp.time_us > before.time_us && stamp.frame < 1_000);
    until_true("as bright as before", wait::SOON, || screen.shot().brightness() > bright * 0.9);
    assert!(client.is_running());
    assert_eq!(client.stop(libc::SIGTERM, END), 0);
}
