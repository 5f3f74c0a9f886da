//! The client's window, with real video, on the screen of a virtual X server.

use std::collections::BTreeSet;
use std::net::UdpSocket;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rov_client::event::{Event, Part};
use rov_client::overlay::{Action, key_at};
use rov_client::stats::Report;
use rov_common::stamp::{self, Stamp};
use rov_common::units::Resolution;
use rov_tests::devtools::DevTools;
use rov_tests::media::marks;
use rov_tests::process::{Process, binary, program};
use rov_tests::programs::{Server, client_process, free_udp_port};
use rov_tests::screen::Screen;
use rov_tests::wait::{self, until, until_true};
use rov_tests::{exif, jpeg};
use serde_json::json;
use tempfile::TempDir;

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
        Process::spawn("rov-client", &mut self.command(args))
    }

    fn client_at(&self, home: &Path, args: &[&str]) -> Process {
        Process::spawn("rov-client", self.command(args).env("HOME", home))
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(binary("rov-client"));
        command.env_remove("RUST_LOG").env_remove("WAYLAND_DISPLAY").env("DISPLAY", &self.0.display);
        command.args(["--interface", "lo", "--width", "1280", "--height", "720"]);
        // On a busy machine pictures are old indeed; the frame of those would lie over the mark.
        command.args(["--max-age", "0"]).args(args);
        command
    }

    fn press(&self, key: &str) {
        self.xdotool(&["key", key]);
    }

    fn xdotool(&self, args: &[&str]) -> String {
        self.try_xdotool(args).unwrap_or_else(|| panic!("xdotool {args:?} failed"))
    }

    fn try_xdotool(&self, args: &[&str]) -> Option<String> {
        let mut command = Command::new(program("xdotool", "xdotool"));
        let output = command.env("DISPLAY", &self.0.display).args(args).output().expect("xdotool starts");
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
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
    // The default, minifb, and a sink that is not there, in whose place minifb draws.
    for (key, display) in [("q", "auto"), ("Escape", "minifb"), ("q", "d3d11videosink")] {
        let begun = unix_us();
        let mut client = screen.client(&["--display", display, "--url", &server.url("/whep")]);
        let drawn_by = client.wait_for_line("what draws", END, |line| {
            line.split_once(" draws the window")?.0.split_whitespace().last().map(str::to_owned)
        });
        assert_eq!(drawn_by, if display == "auto" { "ximagesink" } else { "minifb" });
        let first = screen.wait_for_stamp("the picture is on the screen", |_| true);
        assert!(first.time_us >= begun, "a picture made after the client began");
        let later = screen.wait_for_stamp("the picture moves", |stamp| stamp.frame > first.frame);
        assert!(later.time_us > first.time_us && later.time_us <= unix_us());
        screen.press(key);
        assert_eq!(client.wait(END), 0, "closed by the user with {key}");
        until_true("the server knows", wait::SOON, || server.stats().viewers.is_empty());
    }
}

/// The pictures lie in memory of the sink's, from the decoder to the screen: it must stay right through each change.
#[test]
fn the_picture_stays_right_when_the_window_changes_its_size() {
    let screen = Desk::start();
    let server = Server::start(&["--width", "640", "--height", "360"]);
    let mut client = screen.client(&["--display", "ximagesink", "--url", &server.url("/whep")]);
    screen.wait_for_stamp("the picture is on the screen", |_| true);
    let id = screen.xdotool(&["search", "--class", "^rov-client$"]);
    for window in [Resolution::new(640, 360), Resolution::new(900, 420), Resolution::new(1280, 720)] {
        screen.xdotool(&["windowsize", &id, &window.width.to_string(), &window.height.to_string()]);
        screen.xdotool(&["windowmove", &id, "0", "0"]);
        // In the middle of what the window leaves it.
        let picture = Resolution::new(640, 360).fit_into(window);
        let left = ((window.width - picture.width) / 2) as usize;
        let (width, height) = (picture.width as usize, picture.height as usize);
        let stamp = |shot: &Shot| stamp::read_with(width, height, |x, y| shot.pixels[y * shot.width + left + x]);
        let first = until("the picture in its new size", wait::START, || stamp(&screen.shot()));
        let moves = || stamp(&screen.shot()).is_some_and(|stamp| stamp.frame > first.frame);
        until_true("the picture moves", wait::START, moves);
    }
    // Statistics are painted over it, and taken away.
    let corner = |shot: &Shot| shot.pixels[20 * shot.width + 20];
    let before = corner(&screen.shot());
    screen.press("i");
    until_true("statistics", wait::START, || corner(&screen.shot()).abs_diff(before) > 20);
    let with = screen.wait_for_stamp("the picture goes on", |_| true);
    screen.press("i");
    screen.wait_for_stamp("the picture still goes on", |stamp| stamp.frame > with.frame);
    assert_eq!(client.stop(libc::SIGTERM, END), 0);
}

/// In full size although the window is smaller, with the time of its capture; when the video is lost the last picture,
/// which says that it is old.
#[test]
fn s_saves_the_picture_that_is_shown_by_a_sink() {
    the_picture_that_is_shown_is_saved("ximagesink");
}

#[test]
fn s_saves_the_picture_that_is_shown_by_minifb() {
    the_picture_that_is_shown_is_saved("minifb");
}

fn the_picture_that_is_shown_is_saved(display: &str) {
    let screen = Desk::start();
    let folder = TempDir::new().expect("a temporary folder");
    let path = folder.path().join("dive");
    let args = ["--name", "Nemo", "--width", "1280", "--height", "720"];
    let mut server = Server::start(&args);
    let into = ["--save-dir", path.to_str().expect("a path of plain characters")];
    // The later --width counts.
    let url = server.url("/whep");
    let shown = ["--display", display, "--url", &url];
    let mut command = Command::new(binary("rov-client"));
    command.env_remove("RUST_LOG").env_remove("WAYLAND_DISPLAY").env("DISPLAY", &screen.0.display);
    command.args(["--interface", "lo", "--width", "640", "--height", "360", "--max-age", "0"]).args(into).args(shown);
    let mut client = Process::spawn("rov-client", &mut command);
    let id = until("a window", wait::START, || {
        let found = screen.try_xdotool(&["search", "--class", "^rov-client$"])?;
        found.lines().next().map(str::to_owned)
    });
    screen.xdotool(&["windowmove", &id, "0", "0"]);
    // Keys go where the pointer is.
    screen.xdotool(&["mousemove", "100", "100"]);
    let small = |shot: &Shot| stamp::read_with(640, 360, |x, y| shot.pixels[y * shot.width + x]);
    until("the picture is on the screen", wait::START, || small(&screen.shot()));
    let files = || {
        let names = std::fs::read_dir(&path).into_iter().flatten().map(|file| file.expect("a file").path());
        let mut names: Vec<_> = names.collect();
        names.sort();
        names
    };
    let mut known: Vec<String> = Vec::new();
    let mut saved = |client: &mut Process, how: &[&str]| {
        screen.xdotool(how);
        let file = client.wait_for_line("it is saved", wait::START, |line| {
            let file = line.split_once("snapshot: ")?.1.to_owned();
            (!known.contains(&file)).then_some(file)
        });
        known.push(file.clone());
        file
    };

    let before = unix_us();
    let file = saved(&mut client, &["key", "s"]);
    let picture = std::fs::read(&file).expect("the file");
    let (width, height, stamp) = jpeg::decode(&picture);
    assert_eq!((width, height), (1280, 720), "as it is decoded, not as it is shown");
    let (stamp, tags) = (stamp.expect("a mark that can be read"), exif::read(&picture));
    let taken = exif::taken_us(&tags);
    // The test picture's time is that at which it was due, or drawn where that is two intervals later.
    assert!(taken.abs_diff(stamp.time_us) < 200_000, "captured {taken}, drawn {}", stamp.time_us);
    assert!(taken.abs_diff(before) < wait::START.as_micros() as u64);
    assert_eq!(tags["ImageDescription"], "vehicle Nemo, camera cam1, stream stream1.");
    assert!(file.contains("Z_Nemo_cam1_stream1") && file.ends_with(".jpg"), "{file}");

    server.process.kill();
    until_true("the old picture is dimmed", wait::START, || small(&screen.shot()).is_none());
    let last = [["key", "s"], ["click", "2"]].map(|how| saved(&mut client, &how));
    assert!(last[0] != last[1] && last[1].ends_with("-2.jpg"), "the same picture, not overwritten: {last:?}");
    let picture = std::fs::read(&last[0]).expect("the file");
    let (width, height, stamp) = jpeg::decode(&picture);
    let (stamp, tags) = (stamp.expect("neither dimmed nor written over"), exif::read(&picture));
    assert_eq!((width, height), (1280, 720));
    assert!(exif::taken_us(&tags).abs_diff(stamp.time_us) < 200_000, "the time of its capture, not of the key");
    let described = tags["ImageDescription"].as_str().expect("a text");
    assert!(described.contains("no live one any more when it was saved, "), "{described}");
    assert_eq!(tags["UserComment"], described);
    assert_eq!(files().len(), 3);
    screen.press("q");
    assert_eq!(client.wait(END), 0);
}

#[test]
fn a_sink_dims_old_video_until_the_server_is_back() {
    old_video_is_dimmed_until_the_server_is_back("ximagesink");
}

#[test]
fn minifb_dims_old_video_until_the_server_is_back() {
    old_video_is_dimmed_until_the_server_is_back("minifb");
}

fn old_video_is_dimmed_until_the_server_is_back(display: &str) {
    let screen = Desk::start();
    let port = free_udp_port().to_string();
    let start = || Server::start(&["--width", "640", "--height", "360", "--name", "Nemo", "--discovery-port", &port]);
    let mut server = start();
    let mut client = screen.client(&["--display", display, "--auto", "--discovery-port", &port]);
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

#[test]
fn the_key_r_records_and_ends_the_file_and_closing_the_window_ends_it_too() {
    let screen = Desk::start();
    let (folder, home) = (TempDir::new().expect("a folder"), TempDir::new().expect("a folder"));
    let figures = folder.path().join("figures.json");
    let server = Server::start(&["--width", "640", "--height", "360", "--name", "Nemo"]);
    let (url, path) = (server.url("/whep"), figures.to_str().expect("a path of plain characters"));
    let home = home.path();
    let mut client = screen.client_at(home, &["--record-free", "1MB", "--stats-json", path, "--url", &url]);
    screen.wait_for_stamp("the picture is on the screen", |_| true);
    let report = || serde_json::from_slice::<Report>(&std::fs::read(&figures).ok()?).ok()?.recording;
    assert_eq!(report(), None, "nobody wanted it");
    for files in [1, 2] {
        screen.press("r");
        until_true("it records", wait::START, || report().is_some_and(|one| one.writing.len() == 1));
        let before = report().map_or(0, |one| one.pictures_present);
        until_true("pictures", wait::START, || report().is_some_and(|one| one.pictures_present > before + 10));
        if files == 1 {
            screen.press("r");
            until_true("the file", wait::START, || report().is_some_and(|one| !one.on && one.files.len() == 1));
        }
    }
    if let Some(shot) = std::env::var_os("ROV_TEST_SHOT") {
        let command = &mut Command::new(program("import", "imagemagick"));
        command.args(["-display", &screen.0.display, "-window", "root"]).arg(shot).status().expect("a shot");
    }
    screen.press("q");
    assert_eq!(client.wait(END), 0);
    let report = report().expect("a report");
    assert_eq!((report.files.len(), report.writing.len()), (2, 0), "{report:?}");
    for file in &report.files {
        assert!(file.file.starts_with(home.join("Videos/ROV").to_str().expect("a plain path")), "{report:?}");
        let bytes = std::fs::read(&file.file).expect("the file");
        assert_eq!((&bytes[32..36], bytes.len() as u64), (&b"mdat"[..], file.bytes), "it has its index");
    }
}

/// The last seconds, as the vehicle keeps them; by the key, and by a click on the list of keys.
#[test]
fn c_saves_the_last_seconds_and_says_why_it_cannot() {
    let screen = Desk::start();
    let folder = TempDir::new().expect("a temporary folder");
    let path = folder.path().join("dive");
    let into = ["--save-dir", path.to_str().expect("a path of plain characters")];
    let start =
        |args: &[&str]| Server::start(&[&["--width", "640", "--height", "360", "--name", "Nemo"], args].concat());
    let server = start(&["--user", "pilot", "--password", "deep sea"]);
    let login = ["--user", "pilot", "--password", "deep sea"];
    let url = server.url("/whep");
    let mut client = screen.client(&[&into[..], &login, &["--url", &url]].concat());
    let before = screen.wait_for_stamp("the picture is on the screen", |_| true);
    screen.wait_for_stamp("two seconds of it", |stamp| stamp.time_us > before.time_us + 2_000_000);
    let mut known = Vec::new();
    let mut saved = |client: &mut Process| {
        let file = client.wait_for_line("it is saved", wait::START, |line| {
            let file = line.split_once("clip: ")?.1.to_owned();
            (!known.contains(&file)).then_some(file)
        });
        known.push(file.clone());
        file
    };
    screen.press("c");
    let first = saved(&mut client);
    screen.xdotool(&["mousemove", "100", "100", "click", "3"]);
    let (x, y) = overlay_row(Action::Clip);
    // The click before it is looked at first.
    screen.xdotool(&["mousemove", &x.to_string(), &y.to_string(), "click", "1"]);
    let second = saved(&mut client);
    for file in [first, second] {
        assert!(file.contains("Z_Nemo_cam1_stream1") && file.ends_with(".mp4"), "{file}");
        assert_eq!(std::fs::read(&file).expect("the file").get(4..8), Some(&b"ftyp"[..]));
        let marks = marks(&["-i", &file], 640, 360);
        assert!(marks.len() > 20 && marks.windows(2).all(|two| two[0].frame < two[1].frame), "{}", marks.len());
    }
    let names = || std::fs::read_dir(&path).expect("the folder").count();
    assert_eq!(names(), 2, "no part is left");
    screen.press("q");
    assert_eq!(client.wait(END), 0);

    let without = start(&["--ring", "off"]);
    let mut client = screen.client(&[&into[..], &["--url", &without.url("/whep")]].concat());
    screen.wait_for_stamp("the picture is on the screen", |stamp| stamp.frame < 10_000);
    screen.press("c");
    let reason =
        client.wait_for_line("the reason", wait::START, |line| Some(line.split_once("no clip: ")?.1.to_owned()));
    assert!(reason.contains("--ring 30s"), "{reason}");
    assert_eq!(names(), 2);
    assert_eq!(client.stop(libc::SIGTERM, END), 0);
}

/// A folder with the picture of that moment, a clip around it, and what the vehicle measured; a page of all of them.
#[test]
fn e_notes_an_event_of_which_report_makes_a_page() {
    let screen = Desk::start();
    let folder = TempDir::new().expect("a temporary folder");
    let dive = folder.path().join("dive");
    let path = dive.to_str().expect("a path of plain characters");
    let server =
        Server::start(&["--width", "640", "--height", "360", "--name", "Nemo", "--telemetry", "udp://127.0.0.1:0"]);
    let telemetry = server.stats().telemetry.expect("telemetry").addresses.remove(0).replace("udp://", "");
    let sender = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let url = server.url("/whep");
    let mut client = screen.client(&["--save-dir", path, "--url", &url]);
    let first = screen.wait_for_stamp("the picture is on the screen", |_| true);
    let measure = || sender.send_to(br#"{"depth": 12.5, "heading": 270}"#, &telemetry).expect("sent");
    until_true("telemetry at the client, and some seconds of video", wait::START, || {
        measure();
        screen.shot().stamp().is_some_and(|stamp| stamp.time_us > first.time_us + 2_000_000)
    });
    let pressed = unix_us();
    screen.xdotool(&["mousemove", "100", "100", "key", "e"]);
    screen.xdotool(&["type", "--delay", "20", "a squid <3"]);
    screen.press("Return");
    let saved =
        client.wait_for_line("it is saved", 2 * wait::START, |line| Some(line.split_once("event: ")?.1.to_owned()));
    let read =
        |file: &str| std::fs::read(Path::new(&saved).join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
    let event: Event = serde_json::from_slice(&read("event.json")).expect("an event");
    assert_eq!((event.text.as_str(), event.vehicle.as_str(), event.pictures.len()), ("a squid <3", "Nemo", 1));
    assert_eq!((event.place.depth, event.place.heading), (Some(12.5), Some(270.0)), "{event:?}");
    assert_eq!(event.telemetry["depth"].text, "12.5 m");
    assert!(saved.contains("Z_Nemo_cam1_stream1_event"), "{saved}");
    let files = [&event.pictures[0].snapshot, &event.pictures[0].clip];
    assert_eq!(files, [&Part::File("snapshot.jpg".to_owned()), &Part::File("clip.mp4".to_owned())]);
    let taken = exif::taken_us(&exif::read(&read("snapshot.jpg")));
    assert!(taken < pressed + wait::START.as_micros() as u64 && taken + 5_000_000 > pressed, "{taken} {pressed}");
    // The pictures before that of the snapshot and those after it.
    let marks = marks(&["-i", &format!("{saved}/clip.mp4")], 640, 360);
    let (begun, ended) = (marks[0].time_us, marks[marks.len() - 1].time_us);
    println!("from {} ms before to {} ms after", (taken - begun) / 1000, (ended - taken) / 1000);
    assert!(begun + 1_500_000 < taken && ended > taken + 4_500_000, "{begun} {taken} {ended}");

    // What is cancelled leaves nothing, whatever letters were typed; and where there is no clip, that is said.
    screen.xdotool(&["key", "e", "q", "Escape"]);
    let without = Server::start(&["--width", "640", "--height", "360", "--ring", "off"]);
    screen.press("q");
    assert_eq!(client.wait(END), 0);
    assert_eq!(std::fs::read_dir(&dive).expect("the folder").count(), 1);
    let url = without.url("/whep");
    let mut client = screen.client(&["--save-dir", path, "--url", &url]);
    screen.wait_for_stamp("the picture is on the screen", |stamp| stamp.frame < 10_000);
    screen.xdotool(&["key", "e", "x", "Return"]);
    let line =
        client.wait_for_line("what is missing", wait::START, |line| Some(line.split_once("event: ")?.1.to_owned()));
    let (other, reason) = line.split_once(": ").expect("a reason");
    assert!(reason.starts_with("no clip: ") && reason.contains("--ring 30s"), "{line}");
    let text = std::fs::read_to_string(Path::new(other).join("event.json")).expect("an event");
    let event: Event = serde_json::from_str(&text).expect("an event");
    assert!(matches!(&event.pictures[0].clip, Part::Failed(reason) if reason.contains("--ring 30s")), "{text}");
    assert_eq!(client.stop(libc::SIGTERM, END), 0);

    let mut report = client_process(&["report", path]);
    assert_eq!(report.wait(wait::START), 0, "{}", report.stderr());
    let page = dive.join("report.html");
    let mut chromium = DevTools::start_with(&["--allow-file-access-from-files"]);
    let page = chromium.open(&format!("file://{}", page.display()));
    chromium.wait_for(
        &page,
        "[...document.images].length === 2 && [...document.images].every(image => image.naturalWidth === 640)",
        wait::START,
    );
    let text = chromium.evaluate(&page, "document.body.innerText");
    let text = text.as_str().unwrap_or_default();
    for part in ["Nemo", "a squid <3", "12.5 m", "270\u{b0}", "Clip", "No clip: nothing is kept"] {
        assert!(text.contains(part), "{part} in {text}");
    }
    let shot = chromium.call(Some(&page), "Page.captureScreenshot", json!({ "format": "png" }));
    if let Some(file) = std::env::var_os("ROV_TEST_SHOT") {
        let picture = STANDARD.decode(shot["data"].as_str().expect("a picture")).expect("base64");
        std::fs::write(file, picture).expect("a file");
    }
    assert_eq!(chromium.complaints(), Vec::<String>::new());
}

#[test]
fn in_the_grid_an_event_has_a_picture_and_a_clip_of_each_tile() {
    let screen = Desk::start();
    let folder = TempDir::new().expect("a temporary folder");
    let (file, figures, dive) =
        (folder.path().join("rov.toml"), folder.path().join("figures.json"), folder.path().join("dive"));
    std::fs::write(&file, "[[camera]]\nname = 'bow'\n[[camera]]\nname = 'arm'\nsource = 'test'\n").expect("a file");
    let plain = |path: &Path| path.to_str().expect("a path of plain characters").to_owned();
    let server = Server::start(&["--config", &plain(&file), "--width", "320", "--height", "240", "--name", "Nemo"]);
    let url = server.url("/whep");
    let mut client =
        screen.client(&["--grid", "--save-dir", &plain(&dive), "--stats-json", &plain(&figures), "--url", &url]);
    until_true("both tiles live", wait::START, || {
        let report = std::fs::read(&figures).ok().and_then(|text| serde_json::from_slice::<Report>(&text).ok());
        report.is_some_and(|report| report.tiles.len() == 2 && report.tiles.iter().all(|tile| tile.frames_shown > 10))
    });
    screen.xdotool(&["mousemove", "100", "100", "key", "e", "x", "Return"]);
    let saved =
        client.wait_for_line("it is saved", 2 * wait::START, |line| Some(line.split_once("event: ")?.1.to_owned()));
    let text = std::fs::read_to_string(Path::new(&saved).join("event.json")).expect("an event");
    let event: Event = serde_json::from_str(&text).expect("an event");
    assert_eq!(event.pictures.iter().map(|one| one.camera.as_str()).collect::<Vec<_>>(), ["bow", "arm"], "{text}");
    let parts: BTreeSet<_> = event.pictures.iter().flat_map(|one| [&one.snapshot, &one.clip]).cloned().collect();
    assert_eq!(parts.len(), 4, "{text}");
    for part in parts {
        let Part::File(file) = part else { panic!("{text}") };
        assert!(std::fs::metadata(Path::new(&saved).join(&file)).is_ok_and(|it| it.len() > 1000), "{file}");
    }
    assert_eq!(client.stop(libc::SIGTERM, END), 0);
}

/// Where a row of the list of keys is on the screen.
fn overlay_row(action: Action) -> (i32, i32) {
    let window = Resolution::new(WIDTH as u32, HEIGHT as u32);
    let middle = window.width as i32 / 2;
    let rows = (0..window.height as i32).filter(|y| key_at(window, (middle, *y)) == Some(action)).collect::<Vec<_>>();
    (middle, rows[rows.len() / 2])
}

#[test]
fn a_window_that_hangs_in_its_driver_is_told_by_the_log_and_the_figures() {
    let screen = Desk::start();
    let folder = TempDir::new().expect("a temporary folder");
    let figures = folder.path().join("figures.json");
    let server = Server::start(&["--width", "320", "--height", "240"]);
    let path = figures.to_str().expect("a path of plain characters");
    let mut client = screen.client(&["--stats-json", path, "--url", &server.url("/whep")]);
    let report = || serde_json::from_slice::<Report>(&std::fs::read(&figures).ok()?).ok();
    let is_live = || report().is_some_and(|report| report.state == "live" && report.window_hangs_s.is_none());
    until_true("a picture in the window", wait::START, is_live);
    screen.0.set_hanging(true);
    let hangs = until("that it hangs", wait::START, || report().filter(|report| report.window_hangs_s.is_some()));
    assert!(hangs.state == "hangs" && hangs.window_hangs_s.is_some_and(|seconds| seconds >= 2.0), "{hangs:?}");
    screen.0.set_hanging(false);
    until_true("that it goes on", wait::START, is_live);
    assert_eq!(client.stop(libc::SIGTERM, END), 0);
    client.logs(&["the window's thread hangs", "the window goes on, after"]);
}

/// Two cameras, of which one has two streams; each key does to the real window what it says.
#[test]
fn keys_and_clicks_choose_the_stream_and_the_grid() {
    let screen = Desk::start();
    let folder = TempDir::new().expect("a temporary folder");
    let (file, figures) = (folder.path().join("rov.toml"), folder.path().join("figures.json"));
    let cameras = "[[camera]]\nname = 'bow'\n[[camera.stream]]\nwidth = 640\nheight = 360\n\
                   [[camera.stream]]\nwidth = 320\nheight = 180\n\
                   [[camera]]\nname = 'arm'\nsource = 'test'\n[[camera.stream]]\nwidth = 480\nheight = 270\n";
    std::fs::write(&file, cameras).expect("a file");
    let config = ["--config", file.to_str().expect("a path of plain characters"), "--width", "640", "--height", "360"];
    let server = Server::start(&[&["--name", "Nemo"], &config[..]].concat());
    let path = figures.to_str().expect("a path of plain characters");
    let mut client = screen.client(&["--stats-json", path, "--url", &server.url("/whep")]);
    let id = until("a window", wait::START, || {
        let found = screen.try_xdotool(&["search", "--class", "^rov-client$"])?;
        found.lines().next().map(str::to_owned)
    });
    let title = || screen.xdotool(&["getwindowname", &id]);
    let report = || serde_json::from_slice::<Report>(&std::fs::read(&figures).ok()?).ok();
    let shows = |what: &str, size: (u32, u32), name: &str| {
        until(what, wait::START, || {
            let report = report()?;
            let is_it = report.tiles.is_empty() && (report.width, report.height) == size && report.state == "live";
            (is_it && title().starts_with(&format!("{name} - live"))).then_some(report)
        })
    };
    let first = shows("the first stream", (640, 360), "Nemo bow/stream1");
    for (key, size, name) in [
        ("2", (480, 270), "Nemo arm/stream1"),
        ("Tab", (320, 180), "Nemo bow/stream2"),
        ("Tab", (640, 360), "Nemo bow/stream1"),
        ("3", (320, 180), "Nemo bow/stream2"),
    ] {
        let pressed = unix_us();
        screen.press(key);
        let report = shows(&format!("after the key {key}"), size, name);
        assert_eq!(report.stamps.out_of_order, 0, "no older picture after a newer one");
        screen.wait_for_stamp("its picture is on the screen", |stamp| stamp.time_us > pressed);
    }
    screen.press("g");
    let tiles = until("the grid", wait::START, || {
        let tiles = report()?.tiles;
        (tiles.len() == 2 && tiles.iter().all(|tile| tile.state == "live")).then_some(tiles)
    });
    assert_eq!(tiles.iter().map(|tile| tile.stream.as_str()).collect::<Vec<_>>(), ["stream2", "arm/stream1"]);
    // The right one of the two tiles.
    screen.xdotool(&["mousemove", "900", "360", "click", "--repeat", "2", "--delay", "50", "1"]);
    let last = shows("after a double click on a tile", (480, 270), "Nemo arm/stream1");
    assert!(last.stream_changes >= first.stream_changes + 4, "{last:?}");
    println!("from a key to the first picture: {:?}", last.stream_change);
    screen.press("q");
    assert_eq!(client.wait(END), 0);
}
