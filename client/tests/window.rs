//! The window under a virtual X server: what is on the screen, and what keys do.
//!
//! Each test starts an Xvfb of its own and, as a child process, this very test program: it runs `child` alone, which
//! opens the window and obeys the lines it reads. Each is made for every way of drawing that works there. With
//! ROV_SCREENSHOTS=FOLDER some screenshots are kept there.

#![cfg(all(unix, not(target_os = "macos")))]

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rov_client::decode::{Picture, PictureForm};
use rov_client::display::{Command as Wish, DisplayChoice, Grid, Layout, Snapped, Stage, Status, ViewModel, Window};
use rov_client::late::Warning;
use rov_client::mailbox::{Bell, Mailbox};
use rov_client::overlay::{OverlayData, Tone};
use rov_client::streams::Doubt;
use rov_client::told::Written;
use rov_client::viewer::{Offer, Question};
use rov_common::clock_sync::Age;
use rov_common::overlay::Overlay;
use rov_common::units::Resolution;
use tokio_util::sync::CancellationToken;

const SCREEN: Resolution = Resolution::new(1280, 800);
const WINDOW: Resolution = Resolution::new(640, 480);
/// Of the pictures, as decoded: wider than the window.
const SOURCE: Resolution = Resolution::new(1920, 1080);
const LEFT: u32 = 0xe0_30_20;
const RIGHT: u32 = 0x20_60_e0;
/// Of what is written, and behind it.
const TEXT: u32 = 0xf2_f5_f7;
const PANEL: u32 = 0x0a_0f_14;
/// Of what is said below the tiles of how it is.
const LINE: u32 = 0x93_a4_b3;
const LONG: Duration = Duration::from_secs(20);
/// Between two pictures of the child's camera.
const PICTURE_INTERVAL: Duration = Duration::from_millis(40);

/// Not a test: the window that the tests look at.
#[test]
fn child() {
    if std::env::var_os("ROV_WINDOW_CHILD").is_none() {
        return;
    }
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let display = std::env::var("ROV_WINDOW_DISPLAY").map_or(DisplayChoice::Auto, |name| name.parse().unwrap());
    let mut window = Window::open("ROV window test", WINDOW, false, display).unwrap();
    window.show_badge(std::env::var_os("ROV_WINDOW_NO_BADGE").is_none());
    println!("\n@drawn by {}", window.drawn_by());
    let scene = Arc::new(Mutex::new(Show::default()));
    let bell = Arc::<Bell>::default();
    let mailboxes = Arc::new([(); TILES].map(|()| Mailbox::with(bell.clone())));
    let stop = CancellationToken::new();
    let commands = {
        let (scene, stop) = (scene.clone(), stop.clone());
        move || {
            for line in std::io::stdin().lines().map_while(Result::ok) {
                obey(&line, &mut scene.lock().unwrap(), &stop);
            }
        }
    };
    std::thread::spawn(commands);
    let film = {
        let (mailboxes, scene) = (mailboxes.clone(), scene.clone());
        move || {
            loop {
                let (cameras, sizes) = {
                    let scene = scene.lock().unwrap();
                    (scene.cameras, scene.sizes.clone())
                };
                for (at, camera) in cameras.iter().enumerate() {
                    match camera {
                        Camera::Off => {}
                        // As the decoder does: as large as the window takes.
                        Camera::Fitting => {
                            let room = sizes.get(at).copied().unwrap_or(WINDOW);
                            mailboxes[at].put(picture(SOURCE.fit_into(room)));
                        }
                        Camera::Small => mailboxes[at].put(picture(Resolution::new(320, 180))),
                    }
                }
                std::thread::sleep(PICTURE_INTERVAL);
            }
        }
    };
    std::thread::spawn(film);
    let ended = window.run(&mut Theatre { scene, bell, mailboxes }, &stop).unwrap();
    println!("\n@ended {ended:?}");
}

const TILES: usize = 4;

/// What the tests tell the child.
struct Show {
    layout: Layout,
    views: [ViewModel; TILES],
    cameras: [Camera; TILES],
    /// What is warned of with the pictures of the first pane.
    late: Option<Warning>,
    /// Of the panes, as the window wants them.
    sizes: Vec<Resolution>,
}

impl Default for Show {
    fn default() -> Self {
        let layout = Layout { panes: vec![0], grid: None };
        Self { layout, views: Default::default(), cameras: [Camera::Off; TILES], late: None, sizes: vec![WINDOW] }
    }
}

struct Theatre {
    scene: Arc<Mutex<Show>>,
    bell: Arc<Bell>,
    mailboxes: Arc<[Mailbox<Picture>; TILES]>,
}

impl Stage for Theatre {
    fn wait(&mut self, limit: Duration) {
        self.bell.wait(limit);
    }

    fn layout(&mut self, _: Instant) -> Layout {
        self.scene.lock().unwrap().layout.clone()
    }

    fn view(&mut self, pane: usize, _: Instant) -> ViewModel {
        self.scene.lock().unwrap().views[pane].clone()
    }

    fn take(&mut self, pane: usize) -> Option<Picture> {
        self.mailboxes[pane].take()
    }

    fn late(&mut self, pane: usize, _: Instant) -> Option<Warning> {
        self.scene.lock().unwrap().late.filter(|_| pane == 0)
    }

    fn shown(&mut self, pane: usize, picture: &Picture, _: Instant) {
        match pane {
            0 => println!("\n@shown {}", picture.resolution),
            tile => println!("\n@tile {tile} {}", picture.resolution),
        }
    }

    fn set_outputs(&mut self, large: PictureForm, tiles: &[Resolution]) {
        let size = large.bounds.expect("the window's size");
        self.scene.lock().unwrap().sizes = if tiles.is_empty() { vec![size] } else { tiles.to_vec() };
        println!("\n@resized {size}");
    }

    fn save(&mut self, shown: &[Snapped<'_>], _: Instant) {
        for Snapped { id, picture, is_moving } in shown {
            println!("\n@saved {id} {} {is_moving}", picture.resolution);
        }
    }

    fn begin_event(&mut self, shown: &[Snapped<'_>], _: Instant) {
        println!("\n@event of {}", shown.len());
    }

    fn end_event(&mut self, text: Option<String>) {
        println!("\n@event {text:?}");
    }

    fn obey(&mut self, command: Wish, _: Instant) {
        match command {
            Wish::Server(offer) => println!("\n@chosen {}", offer.address),
            command => println!("\n@{command:?}"),
        }
    }
}

/// What gives the child pictures. It goes on by itself, so that no test depends on how quick a screenshot is: a picture
/// that is a second old is dimmed.
#[derive(Clone, Copy)]
enum Camera {
    Off,
    Fitting,
    Small,
}

fn obey(line: &str, scene: &mut Show, stop: &CancellationToken) {
    if let Some(late) = line.strip_prefix("late ") {
        let old = |ms| Warning::Old(Duration::from_millis(ms));
        scene.late = if late == "unknown" { Some(Warning::Unknown) } else { late.parse().ok().map(old) };
        return;
    }
    let (view, all) = (&mut scene.views[0], &mut scene.cameras);
    match line.split_once(' ').unwrap_or((line, "")) {
        ("pictures", _) => *all = [Camera::Fitting; TILES],
        ("small-pictures", _) => *all = [Camera::Small; TILES],
        ("no-pictures", "") => *all = [Camera::Off; TILES],
        ("no-pictures", tile) => all[tile.parse::<usize>().unwrap()] = Camera::Off,
        ("live", _) => view.status = Status::Live,
        ("connecting", what) => view.status = Status::Connecting { what: what.replace('|', "\n") },
        ("lost", reason) => view.status = Status::Lost { reason: reason.to_owned() },
        ("question", text) => view.question = Some(question(text)),
        ("no-question", _) => view.question = None,
        ("stats", _) => view.overlay = stats(),
        ("notice", text) => view.notices = vec![text.to_owned()],
        ("written", text) => {
            let lines: Vec<_> = text.split('|').map(str::to_owned).collect();
            // As on a slow link: the picture has half the size of that in which the place is meant.
            let overlay = Overlay { x: 600, y: 600, height: 2 * SOURCE.fit_into(WINDOW).height, ..Overlay::default() };
            view.written = (!text.is_empty()).then_some(Written { overlay, lines });
        }
        ("frozen", reason) => view.doubt = Doubt::Frozen(reason.to_owned()),
        ("substitute", reason) => view.doubt = Doubt::Substitute(reason.to_owned()),
        ("said", text) => view.said = Some(text.to_owned()),
        ("grid", captions) => {
            let captions: Vec<_> = captions.split('|').map(str::to_owned).collect();
            let panes = (0..captions.len() as u64).collect();
            let grid = Grid { vehicle: "Nemo".to_owned(), captions, ..Grid::default() };
            scene.layout = Layout { panes, grid: Some(grid) };
        }
        ("alignment", text) => {
            let grid = scene.layout.grid.as_mut().expect("a grid");
            grid.alignment = (!text.is_empty()).then(|| (text.to_owned(), Tone::Waiting));
            scene.views[1].remark = if text.is_empty() { "" } else { "no capture time" };
        }
        ("no-grid", _) => scene.layout = Layout { panes: vec![0], grid: None },
        ("stop", _) => stop.cancel(),
        (other, _) => panic!("{other}?"),
    }
}

fn picture(size: Resolution) -> Picture {
    let half = |x: u32| if x < size.width / 2 { LEFT } else { RIGHT };
    let pixels = (0..size.height).flat_map(|_| (0..size.width).map(half)).collect();
    Picture::from_pixels(size, pixels, Instant::now()).unwrap()
}

fn question(text: &str) -> Question {
    let offer = |number: u8| {
        let address = format!("10.0.0.{number}:8080");
        Offer { label: format!("Nemo {number}  {address}"), address, id: number.to_string(), key: None }
    };
    Question { text: text.to_owned(), offers: (1..=12).map(offer).collect(), takes_first_at: None }
}

fn stats() -> OverlayData {
    OverlayData {
        server: "rov-bow".into(),
        address: "192.168.2.2:8080".into(),
        resolution: Some(SOURCE),
        fps: Some(30.0),
        bitrate_kbps: Some(14_800.0),
        loss: Some(0.0),
        rtt_ms: Some(0.8),
        decoder: "avdec_h264".into(),
        display: String::new(),
        transport: "WebRTC".into(),
        // The stages that a client knows of by itself.
        latency: [("receive", 1.9), ("decode", 5.2), ("show", 2.4)].map(|(stage, ms)| (stage.to_owned(), ms)).into(),
        notes: Vec::new(),
        age: Some(Ok(Age { age: Duration::from_millis(42), bound: Duration::from_micros(400) })),
        ages: Some([40.2, 52.0, 61.0]),
    }
}

struct Bench {
    xvfb: Child,
    display: String,
    client: Child,
    commands: ChildStdin,
    lines: Receiver<String>,
}

impl Bench {
    fn new(drawn_by: &str) -> Self {
        Self::start(drawn_by, &[])
    }

    fn start(drawn_by: &str, environment: &[(&str, &str)]) -> Self {
        let screen = format!("{}x{}x24", SCREEN.width, SCREEN.height);
        let mut xvfb = Command::new("Xvfb")
            .args(["-displayfd", "1", "-screen", "0", &screen, "-nolisten", "tcp"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("Xvfb, of the package xvfb");
        let mut number = String::new();
        // Xvfb writes it once it can be connected to.
        BufReader::new(xvfb.stdout.take().unwrap()).read_line(&mut number).unwrap();
        let display = format!(":{}", number.trim());
        let mut client = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child", "--nocapture", "--test-threads=1"])
            .env("ROV_WINDOW_CHILD", "1")
            .env("ROV_WINDOW_DISPLAY", drawn_by)
            .env("DISPLAY", &display)
            .envs(environment.iter().copied())
            .env_remove("WAYLAND_DISPLAY")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let commands = client.stdin.take().unwrap();
        let output = BufReader::new(client.stdout.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if let Some(event) = line.strip_prefix('@') {
                    let _ = sender.send(event.to_owned());
                }
            }
        });
        let mut bench = Self { xvfb, display, client, commands, lines };
        bench.expect(&format!("drawn by {drawn_by}"));
        bench.expect("resized 640x480");
        // Without a window manager keys go to where the pointer is.
        bench.xdotool(&["mousemove", "640", "400"]);
        bench
    }

    fn send(&mut self, command: &str) {
        writeln!(self.commands, "{command}").unwrap();
    }

    /// Waits for this event, passing over others.
    fn expect(&mut self, event: &str) {
        let end = Instant::now() + LONG;
        loop {
            match self.lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(line) if line == event => return,
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout) => panic!("no '{event}' within {LONG:?}"),
                Err(RecvTimeoutError::Disconnected) => panic!("the window ended before '{event}'"),
            }
        }
    }

    fn xdotool(&self, arguments: &[&str]) -> String {
        let output = Command::new("xdotool").args(arguments).env("DISPLAY", &self.display).output().expect("xdotool");
        assert!(output.status.success(), "xdotool {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    fn window(&self) -> String {
        self.xdotool(&["search", "--class", "^rov-client$"])
    }

    fn title(&self) -> String {
        self.xdotool(&["getwindowname", &self.window()])
    }

    fn until_title(&self, right: impl Fn(&str) -> bool) {
        let end = Instant::now() + LONG;
        while !right(&self.title()) {
            assert!(Instant::now() < end, "the title is {:?}", self.title());
            std::thread::sleep(PICTURE_INTERVAL);
        }
    }

    fn resize(&mut self, size: Resolution) {
        let (width, height) = (size.width.to_string(), size.height.to_string());
        self.xdotool(&["windowsize", &self.window(), &width, &height]);
        self.expect(&format!("resized {size}"));
    }

    fn shot(&self) -> Shot {
        let output = Command::new("import")
            .args(["-display", &self.display, "-window", "root", "-depth", "8", "rgb:-"])
            .output()
            .expect("import, of the package imagemagick");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.stdout.len() as u64, SCREEN.pixels() * 3);
        Shot(output.stdout)
    }

    /// Looks at the screen until it is as it should be.
    fn until(&self, what: &str, right: impl Fn(&Shot) -> bool) -> Shot {
        let end = Instant::now() + LONG;
        loop {
            let shot = self.shot();
            if right(&shot) {
                return shot;
            }
            if Instant::now() > end {
                let path = std::env::temp_dir().join("rov-window-test.png");
                shot.save(&path);
                panic!("{what} does not come on the screen, see {}", path.display());
            }
            // A look takes more of the processor than what is looked at.
            std::thread::sleep(PICTURE_INTERVAL);
        }
    }

    fn ends(mut self) {
        self.expect("ended ClosedByUser");
        assert!(self.client.wait().unwrap().success());
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        for process in [&mut self.client, &mut self.xvfb] {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

/// The pixels of the whole screen.
struct Shot(Vec<u8>);

impl Shot {
    fn at(&self, x: u32, y: u32) -> u32 {
        let at = (y * SCREEN.width + x) as usize * 3;
        u32::from_be_bytes([0, self.0[at], self.0[at + 1], self.0[at + 2]])
    }

    /// Of the window in the middle of the screen, at its first size.
    fn in_window(&self, x: u32, y: u32) -> u32 {
        self.at((SCREEN.width - WINDOW.width) / 2 + x, (SCREEN.height - WINDOW.height) / 2 + y)
    }

    fn save(&self, path: &std::path::Path) {
        let size = format!("{}x{}", SCREEN.width, SCREEN.height);
        let mut convert = Command::new("convert")
            .args(["-size", &size, "-depth", "8", "rgb:-"])
            .arg(path)
            .stdin(Stdio::piped())
            .spawn()
            .expect("convert, of the package imagemagick");
        convert.stdin.take().unwrap().write_all(&self.0).unwrap();
        convert.wait().unwrap();
    }

    /// Keeps it for people to look at, where they ask for it.
    fn keep(&self, name: &str) {
        if let Some(folder) = std::env::var_os("ROV_SCREENSHOTS") {
            self.save(&std::path::Path::new(&folder).join(name));
        }
    }
}

const AMBER: u32 = 0xff_b0_20;
const GREEN: u32 = 0x3d_d6_8c;
const BLUE: u32 = 0x4d_a3_ff;

/// Whether it is the amber of a warning.
fn amber(pixel: u32) -> bool {
    pixel == AMBER
}

fn a_picture_fills_the_window_between_black_bars(display: &str) {
    let mut bench = Bench::new(display);
    bench.send("live");
    bench.send("pictures");
    bench.expect("shown 640x360");
    let shot = bench.until("the picture", |shot| shot.in_window(10, 240) == LEFT);
    assert_eq!(shot.in_window(630, 240), RIGHT);
    // 640x360 in 640x480: 60 rows above and below.
    assert_eq!((shot.in_window(10, 59), shot.in_window(10, 60)), (0, LEFT));
    assert_eq!((shot.in_window(630, 419), shot.in_window(630, 420)), (RIGHT, 0));
    assert_eq!((shot.in_window(319, 240), shot.in_window(320, 240)), (LEFT, RIGHT));
    bench.send("small-pictures");
    bench.expect("shown 320x180");
    let shot = bench.until("the picture, enlarged", |shot| shot.in_window(1, 61) == LEFT);
    assert_eq!(shot.in_window(638, 418), RIGHT);
    bench.send("stop");
    bench.expect("ended Stopped");
}

fn before_the_first_picture_the_window_says_what_it_does(display: &str) {
    let bench = Bench::new(display);
    let text = |shot: &Shot| (0..WINDOW.width).any(|x| (200..280).any(|y| shot.in_window(x, y) > 0xf0_f0_f0));
    bench.until("a dark window with text", |shot| shot.in_window(5, 5) < 0x20_20_20 && text(shot)).keep("waiting.png");
}

fn a_long_explanation_is_written_small_below_its_title(display: &str) {
    let mut bench = Bench::new(display);
    bench.send(
        "connecting Looking for a server…|no server found within 3.0 s: asked by multicast 239.255.42.98 port 5003 and \
         broadcast on eth0 (192.168.2.1/24) and wlan0 (10.42.0.17/24); is the server on, and does a firewall let UDP \
         port 5003 through?",
    );
    let light = |shot: &Shot, x: u32| (100..380).any(|y| shot.in_window(x, y) > 0xf0_f0_f0);
    // The explanation is as wide as the window allows, and lies inside.
    let shot = bench.until("a wide text", |shot| light(shot, 60) || light(shot, 70) || light(shot, 80));
    assert!((0..20).chain(620..640).all(|x| !light(&shot, x)));
    shot.keep("nothing-found.png");
}

fn old_video_is_dimmed_and_says_so(display: &str) {
    let mut bench = Bench::new(display);
    bench.send("live");
    bench.send("pictures");
    bench.expect("shown 640x360");
    bench.until("the picture", |shot| shot.in_window(10, 100) == LEFT);
    bench.send("no-pictures");
    let dark = |pixel: u32| (pixel >> 16) < 0x60 && (pixel & 0xff) < 0x60;
    let shot = bench.until("a dimmed picture", |shot| dark(shot.in_window(10, 100)));
    assert_ne!(shot.in_window(10, 100), 0, "the last picture is still there");
    let count = |shot: &Shot| {
        let pixels = (0..WINDOW.width).flat_map(|x| (150..330).map(move |y| (x, y)));
        pixels.filter(|(x, y)| amber(shot.in_window(*x, *y))).count()
    };
    let first = bench.until("a warning", |shot| count(shot) > 100);
    // The age counts up.
    bench.until("another age", |shot| shot.0 != first.0);
    bench.send("lost server lost, looking for it…");
    bench.until("another age and the reason", |shot| shot.0 != first.0).keep("stale.png");
    bench.send("live");
    bench.send("pictures");
    bench.until("the picture again", |shot| shot.in_window(10, 100) == LEFT && count(shot) == 0);
}

/// How much of the frame along the left edge, of so many pixels, is of the two colours of its stripes.
fn striped(shot: &Shot, size: Resolution) -> (usize, usize) {
    let (left, top) = ((SCREEN.width - size.width) / 2, (SCREEN.height - size.height) / 2);
    let pixels: Vec<_> = (0..size.height).map(|y| shot.at(left + 1, top + y)).collect();
    let count = |color: u32| pixels.iter().filter(|pixel| **pixel == color).count();
    (count(AMBER), count(PANEL))
}

fn what_is_no_live_picture_of_its_camera_is_framed_and_says_what_it_is(display: &str) {
    let mut bench = Bench::new(display);
    bench.send("live");
    bench.send("pictures");
    bench.expect("shown 640x360");
    let height = WINDOW.height as usize;
    let is_framed = |shot: &Shot| {
        let (amber, dark) = striped(shot, WINDOW);
        amber > height * 2 / 5 && dark > height * 2 / 5
    };
    let shot = bench.until("the picture", |shot| shot.in_window(10, 240) == LEFT);
    assert!(!is_framed(&shot), "a live picture has no frame");
    for (number, (mark, title)) in [
        ("late 1290", "1.2 s OLD"),
        ("late unknown", "AGE NOT KNOWN"),
        ("frozen the picture has not changed at all for 9 s", "CAMERA FROZEN"),
        ("substitute no camera was found: a test picture instead", "TEST PICTURE"),
    ]
    .into_iter()
    .enumerate()
    {
        bench.send(mark);
        bench.until_title(|name| name.ends_with(title));
        let shot = bench.until("a frame", |shot| is_framed(shot) && shot.in_window(200, 200) == LEFT);
        // In large letters, at the bottom.
        let letters = (100..540).flat_map(|x| (370..480).map(move |y| (x, y)));
        assert!(letters.filter(|(x, y)| amber(shot.in_window(*x, *y))).count() > 2_000, "{mark}");
        shot.keep(&format!("mark-{number}-{display}.png"));
        bench.send("late none");
    }
    bench.send("no-pictures");
    bench
        .until("a dimmed picture in a frame", |shot| is_framed(shot) && shot.in_window(20, 100) != LEFT)
        .keep("mark-old.png");
    // The first picture that comes again is bright at once, and has the frame of what it is.
    bench.send("late 700");
    bench.send("pictures");
    bench.until_title(|name| name.ends_with("TEST PICTURE"));
    bench.until("a bright picture in a frame", |shot| is_framed(shot) && shot.in_window(20, 100) == LEFT);
}

fn the_key_i_shows_the_statistics(display: &str) {
    let mut bench = Bench::new(display);
    bench.send("live");
    bench.send("stats");
    bench.send("pictures");
    bench.xdotool(&["key", "i"]);
    let panel = |shot: &Shot| shot.in_window(30, 100) != LEFT && shot.in_window(600, 100) == RIGHT;
    bench.until("a panel", panel).keep("stats.png");
    bench.xdotool(&["key", "i"]);
    bench.until("no panel", |shot| shot.in_window(30, 100) == LEFT);
}

fn the_key_f_fills_the_screen_and_goes_back(display: &str) {
    let mut bench = Bench::new(display);
    bench.send("live");
    bench.xdotool(&["key", "f"]);
    bench.expect("resized 1280x800");
    bench.send("pictures");
    bench.expect("shown 1280x720");
    let shot = bench.until("the picture", |shot| shot.at(10, 400) == LEFT && shot.at(1270, 400) == RIGHT);
    assert_eq!((shot.at(10, 39), shot.at(10, 40), shot.at(10, 760)), (0, LEFT, 0));
    bench.send("stats");
    bench.xdotool(&["key", "i"]);
    bench.until("a panel", |shot| shot.at(60, 100) != LEFT && shot.at(1270, 400) == RIGHT).keep("stats-big.png");
    bench.send("lost server lost, looking for it…");
    let warning = |shot: &Shot| (300..900).any(|x| (300..500).any(|y| amber(shot.at(x, y))));
    bench.until("a warning", warning).keep("stale-big.png");
    bench.xdotool(&["key", "f"]);
    bench.expect("resized 640x480");
}

fn a_resized_window_asks_for_pictures_of_its_size(display: &str) {
    let mut bench = Bench::new(display);
    let window = bench.window();
    bench.send("live");
    bench.xdotool(&["windowsize", &window, "320", "400"]);
    bench.expect("resized 320x400");
    bench.send("pictures");
    bench.expect("shown 320x180");
    // The window's corner stays where it was.
    bench.until("the picture", |shot| shot.in_window(10, 200) == LEFT && shot.in_window(300, 200) == RIGHT);
}

/// Pixels of this colour in these rows, without the frame of what is not live.
fn inside(shot: &Shot, size: Resolution, rows: std::ops::Range<u32>, color: u32) -> usize {
    let edge = (size.width.min(size.height) / 40).max(4);
    let rows = rows.start.max(edge)..rows.end.min(size.height - edge);
    let pixels = rows.flat_map(|y| (edge..size.width - edge).map(move |x| (x, y)));
    pixels.filter(|(x, y)| shot.in_window(*x, *y) == color).count()
}

/// Pixels of this colour in the upper right corner of a window of this size that lies where the first one did.
fn in_corner(shot: &Shot, size: Resolution, color: u32) -> usize {
    let pixels = (size.width / 2..size.width).flat_map(|x| (0..25).map(move |y| (x, y)));
    pixels.filter(|(x, y)| shot.in_window(*x, *y) == color).count()
}

fn the_corner_and_the_title_say_whose_picture_it_is_and_how_things_are(display: &str) {
    let mut bench = Bench::new(display);
    bench.until_title(|title| title == "ROV window test - connecting");
    bench.until("a badge that says so", |shot| in_corner(shot, WINDOW, BLUE) > 10);
    bench.send("stats");
    bench.send("live");
    bench.send("pictures");
    bench.until_title(|title| title == "rov-bow - live, 42 ms");
    let live = bench.until("a green word", |shot| in_corner(shot, WINDOW, GREEN) > 10);
    assert_eq!(live.in_window(630, 100), RIGHT, "nothing of it lies over the picture");
    // What the badge covers of the picture stays covered when pictures come.
    bench.until("the badge over later pictures", |shot| {
        in_corner(shot, WINDOW, GREEN) == in_corner(&live, WINDOW, GREEN) && shot.in_window(10, 100) == LEFT
    });
    live.keep("badge.png");
    let wide = Resolution::new(640, 400);
    bench.resize(wide);
    bench.until("the badge in a lower window", |shot| in_corner(shot, wide, GREEN) > 10);
    let narrow = Resolution::new(400, 400);
    bench.resize(narrow);
    bench.until("the badge in the new corner", |shot| in_corner(shot, narrow, GREEN) > 10);
    bench.send("no-pictures");
    let seconds = |title: &str| {
        title
            .strip_prefix("rov-bow - NO VIDEO ")?
            .strip_suffix(" s")?
            .parse::<u32>()
            .ok()
            .filter(|seconds| *seconds > 0)
    };
    bench.until_title(|title| seconds(title).is_some());
    bench.until("an amber word", |shot| in_corner(shot, narrow, AMBER) > 10 && in_corner(shot, narrow, GREEN) == 0);
}

fn the_warning_lies_over_the_panel_in_the_smallest_window(display: &str) {
    let mut bench = Bench::new(display);
    bench.send("stats");
    bench.send("live");
    bench.send("pictures");
    bench.xdotool(&["mousemove", "330", "170"]);
    for (size, name) in [(Resolution::new(320, 240), "warning-320.png"), (Resolution::new(160, 90), "warning-160.png")]
    {
        bench.resize(size);
        let middle = |shot: &Shot, color: u32| {
            let pixels = (0..size.width).flat_map(|x| (0..size.height).map(move |y| (x, y)));
            pixels.filter(|(x, y)| shot.in_window(*x, *y) == color).count()
        };
        bench.xdotool(&["key", "i"]);
        bench.until("a panel", |shot| middle(shot, 0xf2_f5_f7) > 100);
        bench.send("lost the server does not answer");
        // The title, and the edge of the card.
        let shot = bench.until("a warning", |shot| middle(shot, AMBER) > 400);
        shot.keep(name);
        bench.send("live");
        bench.xdotool(&["key", "i"]);
        bench.until("neither warning nor panel", |shot| middle(shot, AMBER) == 0);
    }
}

fn what_the_pilot_has_to_know_stands_in_the_corner_and_never_over_the_warning(display: &str) {
    let mut bench = Bench::new(display);
    bench.send("stats");
    bench.send("live");
    bench.send("pictures");
    bench.send(
        "notice 192.168.2.9:8080 also claims to be rov-bow, with another key or none: a copied card or an impostor; \
         watching 192.168.2.2:8080",
    );
    bench.xdotool(&["mousemove", "330", "170"]);
    for (size, name) in [
        (Resolution::new(640, 360), "notice-640.png"),
        (Resolution::new(320, 240), "notice-320.png"),
        (Resolution::new(160, 90), "notice-160.png"),
    ] {
        bench.resize(size);
        let amber = |shot: &Shot, rows: std::ops::Range<u32>| inside(shot, size, rows, AMBER);
        let (upper, lower) = (0..size.height / 2, size.height / 2..size.height);
        // For a moment after the change of size the screen may show what was drawn for the size before.
        let is_right = |shot: &Shot| {
            amber(shot, upper.clone()) > 300 && amber(shot, lower.clone()) == 0 && in_corner(shot, size, GREEN) > 10
        };
        bench.until("a notice in the upper half", is_right).keep(name);
        // The statistics have it, too.
        bench.xdotool(&["key", "i"]);
        bench.until("statistics alone", |shot| in_corner(shot, size, AMBER) == 0);
        bench.xdotool(&["key", "i"]);
        bench.until("the notice again", |shot| amber(shot, upper.clone()) > 300);
        bench.send("lost the server does not answer");
        // The rows of the notice are free again where the warning does not lie.
        bench.until("the warning alone", |shot| {
            amber(shot, 0..size.height) > 300 && amber(shot, 16..size.height / 6) == 0
        });
        bench.send("live");
    }
}

/// Letters that are keys elsewhere, some of them twice in a row.
fn the_text_of_an_event_is_typed_while_the_picture_goes_on_and_closes_nothing(display: &str) {
    let mut bench = Bench::new(display);
    bench.send("live");
    bench.send("pictures");
    bench.until("the picture", |shot| shot.in_window(320, 240) == RIGHT);
    let card = |shot: &Shot| shot.in_window(320, 330) != RIGHT;
    bench.xdotool(&["key", "e"]);
    bench.expect("event of 1");
    bench.until("the place for the text", card);
    bench.xdotool(&["type", "--delay", "10", "queen bee!"]);
    bench.xdotool(&["key", "BackSpace"]);
    bench.expect(&format!("shown {}", SOURCE.fit_into(WINDOW)));
    bench.until("the text", |shot| card(shot) && inside(shot, WINDOW, 300..360, 0xf2_f5_f7) > 50).keep("event.png");
    bench.xdotool(&["key", "Return"]);
    bench.expect("event Some(\"queen bee\")");
    bench.until("the picture alone", |shot| !card(shot));
    bench.xdotool(&["key", "e"]);
    bench.expect("event of 1");
    bench.xdotool(&["key", "q", "q", "Escape"]);
    bench.expect("event None");
    // One letter behind the other, without a pause.
    bench.xdotool(&["key", "e", "f"]);
    bench.expect("event of 1");
    bench.xdotool(&["key", "Return"]);
    bench.expect("event Some(\"f\")");
    bench.xdotool(&["key", "q"]);
    bench.ends();
}

fn the_question_mark_and_f1_show_the_keys(display: &str) {
    let mut bench = Bench::new(display);
    bench.send("live");
    bench.send("pictures");
    bench.until("the picture", |shot| shot.in_window(320, 240) == RIGHT);
    for key in ["question", "F1"] {
        bench.xdotool(&["key", key]);
        bench
            .until("the keys", |shot| shot.in_window(320, 215) != RIGHT && shot.in_window(10, 240) == LEFT)
            .keep("keys.png");
        bench.xdotool(&["key", "F1"]);
        bench.until("the picture alone", |shot| shot.in_window(320, 215) == RIGHT);
    }
}

fn a_server_is_chosen_by_digits_arrows_and_clicks(display: &str) {
    let mut bench = Bench::new(display);
    bench.send("question several servers were found");
    // The row that Enter takes; its place.
    let row = |shot: &Shot| (0..WINDOW.height).find(|y| shot.in_window(320, *y) == 0x1f_4b_7a);
    let first = row(&bench.until("a list", |shot| row(shot).is_some())).unwrap();
    for digit in ["1", "9", "KP_3"] {
        bench.xdotool(&["key", digit]);
        bench.expect(&format!("chosen 10.0.0.{}:8080", digit.trim_start_matches("KP_")));
    }
    // One key at first: of several, the screen may show any state between.
    bench.xdotool(&["key", "Down"]);
    let shot = bench.until("the second selected", |shot| row(shot).is_some_and(|y| y > first));
    shot.keep("choice.png");
    bench.xdotool(&["key", "Down", "Up", "Return"]);
    bench.expect("chosen 10.0.0.2:8080");
    let line = row(&shot).unwrap() - first;
    let (x, y) =
        ((SCREEN.width - WINDOW.width) / 2 + 320, (SCREEN.height - WINDOW.height) / 2 + first + 3 * line + line / 2);
    bench.xdotool(&["mousemove", &x.to_string(), &y.to_string(), "click", "1"]);
    bench.expect("chosen 10.0.0.4:8080");
    // Below a warning, which stays; also the last one in a small window.
    bench.send("live");
    bench.send("pictures");
    bench.send("lost server lost");
    bench.xdotool(&["mousemove", "330", "170"]);
    for (size, name) in [(Resolution::new(320, 240), "choice-320.png"), (Resolution::new(160, 90), "choice-160.png")] {
        bench.resize(size);
        for _ in 0..12 {
            bench.xdotool(&["key", "Down"]);
        }
        let count = |shot: &Shot, color: u32| {
            let pixels = (0..size.width).flat_map(|x| (0..size.height).map(move |y| (x, y)));
            pixels.filter(|(x, y)| shot.in_window(*x, *y) == color).count()
        };
        bench.until("warning and list", |shot| count(shot, AMBER) > 300 && count(shot, 0x1f_4b_7a) > 300).keep(name);
        bench.xdotool(&["key", "Return"]);
        bench.expect("chosen 10.0.0.12:8080");
    }
    bench.send("no-question");
    bench.until("no list", |shot| row(shot).is_none());
}

fn a_double_click_fills_the_screen_and_goes_back(display: &str) {
    let mut bench = Bench::new(display);
    // Quicker than the window looks.
    bench.xdotool(&["click", "--repeat", "2", "--delay", "15", "1"]);
    bench.expect("resized 1280x800");
    bench.xdotool(&["click", "--repeat", "2", "--delay", "15", "1"]);
    bench.expect("resized 640x480");
}

/// Pixels of this colour in the upper and in the lower half of a window.
fn halves(shot: &Shot, size: Resolution, color: impl Fn(u32) -> bool) -> (usize, usize) {
    let number = |rows: std::ops::Range<u32>| {
        let pixels = rows.flat_map(|y| (0..size.width).map(move |x| (x, y)));
        pixels.filter(|(x, y)| color(shot.in_window(*x, *y))).count()
    };
    (number(0..size.height / 2), number(size.height / 2..size.height))
}

fn each_tile_of_the_grid_has_its_name_and_its_own_no_video(display: &str) {
    let mut bench = Bench::new(display);
    bench.send("live");
    bench.send("pictures");
    bench.until("the picture", |shot| shot.in_window(10, 240) == LEFT);
    bench.send("grid 1 bow|2 arm");
    let is_whole = |number: usize| number > 10_000;
    let both = |shot: &Shot| {
        let (upper, lower) = halves(shot, WINDOW, |pixel| pixel == LEFT);
        shot.in_window(10, 240) != LEFT && is_whole(upper) && is_whole(lower)
    };
    bench.until("two tiles", both).keep("grid-2.png");
    bench.until_title(|title| title == "Nemo - all live");
    bench.send("no-pictures 1");
    let one = bench.until("one without video", |shot| {
        let (upper, lower) = halves(shot, WINDOW, |pixel| pixel == LEFT);
        is_whole(upper) && lower == 0 && halves(shot, WINDOW, amber).1 > 100
    });
    one.keep("grid-2-lost.png");
    assert_eq!(halves(&one, WINDOW, amber).0, 0, "the other one is live");
    bench.until_title(|title| title == "Nemo - 1 of 2 live");
    for (key, wish) in [("2", "Stream(2)"), ("g", "Grid"), ("a", "Align"), ("Tab", "Next")] {
        bench.xdotool(&["key", key]);
        bench.expect(wish);
    }
    // In the middle of the lower tile.
    bench.xdotool(&["mousemove", "640", "520", "click", "--repeat", "2", "--delay", "50", "1"]);
    bench.expect("Enlarge(1)");
    bench.send("notice 192.168.2.9:8080 also claims to be Nemo");
    bench.until("a notice below the tiles", |shot| {
        (470..WINDOW.height).any(|y| (0..300).any(|x| amber(shot.in_window(x, y))))
    });
    bench.send("pictures");
    bench.send("no-grid");
    bench.until("the large picture", |shot| shot.in_window(10, 240) == LEFT && shot.in_window(630, 240) == RIGHT);
}

fn the_grid_says_how_well_it_is_aligned_and_which_tile_is_not(display: &str) {
    let mut bench = Bench::new(display);
    bench.send("live");
    bench.send("pictures");
    bench.send("grid 1 bow|2 arm");
    let is_whole = |shot: &Shot| halves(shot, WINDOW, |pixel| pixel == LEFT).1 > 10_000;
    let below = |shot: &Shot| {
        (470..WINDOW.height)
            .flat_map(|y| (0..300).map(move |x| (x, y)))
            .filter(|(x, y)| shot.in_window(*x, *y) == LINE)
            .count()
    };
    let plain = bench.until("two tiles", is_whole);
    assert_eq!((below(&plain), halves(&plain, WINDOW, amber)), (0, (0, 0)));
    bench.send("alignment Aligned: skew 12 ms; pictures delayed by up to 48 ms");
    // The remark is in the caption of the second one, about in the middle.
    let ambers = |shot: &Shot, from: u32, to: u32| {
        let rows = (from..to).flat_map(|y| (0..WINDOW.width).map(move |x| (x, y)));
        rows.filter(|(x, y)| amber(shot.in_window(*x, *y))).count()
    };
    let is_told = |shot: &Shot| {
        let middle = WINDOW.height / 2;
        let remark = ambers(shot, middle - 40, middle + 40);
        below(shot) > 100 && is_whole(shot) && remark > 100 && remark == ambers(shot, 0, WINDOW.height)
    };
    bench.until("a line below the tiles and a remark", is_told).keep("grid-2-aligned.png");
    bench.send("alignment ");
    bench.until("nothing of it", |shot| below(shot) == 0 && halves(shot, WINDOW, amber) == (0, 0));
}

fn four_tiles_find_room_in_a_small_window(display: &str) {
    let mut bench = Bench::new(display);
    bench.send("pictures");
    bench.send("live");
    bench.send("grid 1 bow/stream1|2 arm/stream1|3 bow/stream2|4 manipulator/stream2");
    let number = |shot: &Shot, color: u32| halves(shot, WINDOW, |pixel| pixel == color);
    bench.until("four tiles", |shot| number(shot, RIGHT).1 > 10_000 && number(shot, LEFT).1 > 10_000);
    bench.until_title(|title| title == "Nemo - all live");
    bench.send("no-pictures 3");
    bench.xdotool(&["mousemove", "330", "170"]);
    for (size, name) in [(Resolution::new(320, 240), "grid-320.png"), (Resolution::new(160, 90), "grid-160.png")] {
        bench.resize(size);
        let shot = bench.until("three live and one without video", |shot| {
            let is_right = |pixel: u32| pixel == RIGHT;
            let (upper, lower) = halves(shot, size, is_right);
            lower > 100 && upper > lower * 3 / 2 && halves(shot, size, amber).1 > 20
        });
        shot.keep(name);
        assert_eq!(halves(&shot, size, amber).0, 0, "the upper ones are live");
    }
}

fn what_came_of_a_key_is_said_beside_the_picture_and_in_the_warning(display: &str) {
    let mut bench = Bench::new(display);
    bench.send("live");
    bench.send("pictures");
    bench.send("said There is no stream 7. There are 1 bow/stream1, 2 arm/stream1");
    // Above the picture.
    let corner = |shot: &Shot| inside(shot, WINDOW, 0..60, AMBER);
    let said = bench.until("a line in the corner", |shot| corner(shot) > 200 && shot.in_window(10, 240) == LEFT);
    bench.send("lost the server does not answer");
    // The badge has an amber word of its own.
    let is_warned = |shot: &Shot| corner(shot) < corner(&said) && shot.in_window(10, 240) != LEFT;
    bench.until("a warning with it, and nothing in the corner", is_warned).keep("said-lost.png");
}

fn what_the_server_wants_is_written_over_the_picture_in_its_place(display: &str) {
    let mut bench = Bench::new(display);
    bench.send("live");
    bench.send("stats");
    bench.send("pictures");
    bench.until("the picture", |shot| shot.in_window(10, 100) == LEFT);
    bench.send("written 2026-11-30 12:00:00|Depth 12.3 m");
    // Below the upper bar.
    let is_text = |shot: &Shot, x: u32, y: u32| {
        (x..x + 200).any(|x| (y..y + 60).any(|y| shot.in_window(x, y) == TEXT)) && shot.in_window(x, y) == PANEL
    };
    let shot = bench.until("two lines", |shot| is_text(shot, 300, 360));
    assert_eq!((shot.in_window(299, 361), shot.in_window(301, 359)), (LEFT, LEFT), "nothing beside and above it");
    shot.keep("written.png");
    bench.xdotool(&["key", "i"]);
    bench.until("it is below the statistics", |shot| is_text(shot, 300, 450) && shot.in_window(100, 200) != LEFT);
    bench.xdotool(&["key", "i"]);
    bench.until("the lines in their place", |shot| is_text(shot, 300, 360) && shot.in_window(301, 460) == 0);
    bench.send("no-pictures");
    bench.until("nothing over what is old", |shot| !is_text(shot, 300, 360));
    bench.send("pictures");
    bench.until("the lines again", |shot| is_text(shot, 300, 360));
    bench.send("written ");
    bench.until("the picture alone", |shot| shot.in_window(301, 361) == LEFT && shot.in_window(315, 370) == LEFT);
}

fn the_screen_stays_on_while_pictures_come(display: &str) {
    use x11rb::protocol::screensaver::{self, State};
    use x11rb::protocol::xproto::{Blanking, ConnectionExt, Exposures};
    let mut bench = Bench::new(display);
    let (connection, screen) = x11rb::connect(Some(&bench.display)).unwrap();
    let root = x11rb::connection::Connection::setup(&connection).roots[screen].root;
    let is_on = || screensaver::query_info(&connection, root).unwrap().reply().unwrap().state == u8::from(State::ON);
    let sleeps = |after: i16| {
        connection.set_screen_saver(after, 0, Blanking::PREFERRED, Exposures::ALLOWED).unwrap().check().unwrap();
    };
    bench.send("live");
    bench.send("pictures");
    bench.until("the picture", |shot| shot.in_window(10, 100) == LEFT);
    sleeps(1);
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(2500) {
        assert!(!is_on(), "the screen went to sleep after {:?}", begun.elapsed());
        std::thread::sleep(Duration::from_millis(100));
    }
    // What would have happened: without a client that wants it on.
    bench.send("stop");
    bench.expect("ended Stopped");
    assert!(bench.client.wait().unwrap().success());
    let end = Instant::now() + LONG;
    while !is_on() {
        assert!(Instant::now() < end, "this X server has no screen saver: the test says nothing");
        std::thread::sleep(PICTURE_INTERVAL);
    }
}

#[test]
fn desktops_know_the_window_by_its_class_and_its_icon() {
    use x11rb::protocol::xproto::{AtomEnum, ConnectionExt};
    let bench = Bench::new("minifb");
    let (connection, _) = x11rb::connect(Some(&bench.display)).unwrap();
    let window = bench.window().parse().unwrap();
    let property = |name: &str| {
        let atom = connection.intern_atom(false, name.as_bytes()).unwrap().reply().unwrap().atom;
        connection.get_property(false, window, atom, AtomEnum::ANY, 0, 64 * 64 + 2).unwrap().reply().unwrap()
    };
    assert_eq!(property("WM_CLASS").value, b"rov-client\0rov-client\0");
    let icon: Vec<_> = property("_NET_WM_ICON").value32().unwrap().collect();
    assert_eq!((icon[0], icon[1], icon.len()), (64, 64, 64 * 64 + 2));
    let entry = include_str!("../../scripts/rov-client.desktop");
    assert!(entry.contains("StartupWMClass=rov-client\n") && entry.contains("Exec=rov-client\n"), "{entry}");
}

#[test]
fn without_the_badge_the_corner_is_the_pictures() {
    let mut bench = Bench::start("minifb", &[("ROV_WINDOW_NO_BADGE", "1")]);
    bench.send("live");
    bench.send("pictures");
    let wide = Resolution::new(640, 360);
    bench.resize(wide);
    bench.until("the picture up to the corner", |shot| {
        (320..640).all(|x| shot.in_window(x, 5) == RIGHT) && shot.in_window(10, 100) == LEFT
    });
    bench.until_title(|title| title == "ROV window test - live");
}

fn q_closes_the_window(display: &str) {
    let bench = Bench::new(display);
    bench.xdotool(&["key", "q"]);
    bench.ends();
}

fn escape_closes_the_window(display: &str) {
    let bench = Bench::new(display);
    bench.xdotool(&["key", "Escape"]);
    bench.ends();
}

/// Of GStreamer's, only ximagesink is sure to be where the client can run: others come in packages of their own.
fn is_installed(element: &str) -> bool {
    gstreamer::init().unwrap();
    let is_installed = gstreamer::ElementFactory::find(element).is_some();
    if !is_installed {
        println!("left out: {element} is not installed");
    }
    is_installed
}

/// Each of the tests for each way of drawing.
macro_rules! for_each_display {
    ($($test:ident),+ $(,)?) => {
        mod minifb {
            $(#[test] fn $test() { super::$test("minifb"); })+
        }
        mod ximagesink {
            $(#[test] fn $test() { super::$test("ximagesink"); })+
        }
        /// OpenGL by the processor here, which stands for the sinks that scale.
        mod glimagesink {
            $(#[test] fn $test() { if super::is_installed("glimagesink") { super::$test("glimagesink"); } })+
        }
    };
}

for_each_display!(
    a_picture_fills_the_window_between_black_bars,
    before_the_first_picture_the_window_says_what_it_does,
    a_long_explanation_is_written_small_below_its_title,
    old_video_is_dimmed_and_says_so,
    what_is_no_live_picture_of_its_camera_is_framed_and_says_what_it_is,
    the_key_i_shows_the_statistics,
    the_key_f_fills_the_screen_and_goes_back,
    a_resized_window_asks_for_pictures_of_its_size,
    the_corner_and_the_title_say_whose_picture_it_is_and_how_things_are,
    the_warning_lies_over_the_panel_in_the_smallest_window,
    what_the_pilot_has_to_know_stands_in_the_corner_and_never_over_the_warning,
    the_question_mark_and_f1_show_the_keys,
    the_text_of_an_event_is_typed_while_the_picture_goes_on_and_closes_nothing,
    a_server_is_chosen_by_digits_arrows_and_clicks,
    a_double_click_fills_the_screen_and_goes_back,
    each_tile_of_the_grid_has_its_name_and_its_own_no_video,
    the_grid_says_how_well_it_is_aligned_and_which_tile_is_not,
    four_tiles_find_room_in_a_small_window,
    what_came_of_a_key_is_said_beside_the_picture_and_in_the_warning,
    what_the_server_wants_is_written_over_the_picture_in_its_place,
    the_screen_stays_on_while_pictures_come,
    q_closes_the_window,
    escape_closes_the_window,
    the_window_managers_close_button_closes_the_window,
);

/// Asks the window to close, as window managers do (ICCCM, 4.2.8.1).
fn close(display: &str, window: u32) {
    use x11rb::protocol::xproto::{ClientMessageEvent, ConnectionExt, EventMask};
    let (connection, _) = x11rb::connect(Some(display)).unwrap();
    let atom = |name: &str| connection.intern_atom(false, name.as_bytes()).unwrap().reply().unwrap().atom;
    let event = ClientMessageEvent::new(32, window, atom("WM_PROTOCOLS"), [atom("WM_DELETE_WINDOW"), 0, 0, 0, 0]);
    // With the answer awaited, as the server drops what a client leaves behind.
    connection.send_event(false, window, EventMask::NO_EVENT, event).unwrap().check().unwrap();
}

fn the_window_managers_close_button_closes_the_window(display: &str) {
    let bench = Bench::new(display);
    close(&bench.display, bench.window().parse().unwrap());
    bench.ends();
}

#[test]
fn without_a_display_opening_says_so() {
    let mut output = String::new();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--nocapture"])
        .env("ROV_WINDOW_CHILD", "1")
        .env("DISPLAY", ":999999")
        .env_remove("WAYLAND_DISPLAY")
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stderr.take().unwrap().read_to_string(&mut output).unwrap();
    assert!(!child.wait().unwrap().success());
    assert!(output.contains("XOpenDisplay failed"), "{output}");
}
