//! rov-client's choice among the streams of a server, and its grid: in this process, as the window would do it.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use clap::Parser;
use rov_client::cli::Cli;
use rov_client::decode::read_stamp;
use rov_client::display::{Command, Layout, Stage, Status};
use rov_client::feeds::Feeds;
use rov_client::stats::Report;
use rov_common::stamp::Stamp;
use rov_common::sync::lock;
use rov_common::units::Resolution;
use rov_tests::camera::Camera;
use rov_tests::programs::Server;
use rov_tests::wait::{self, until_true};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

/// Each stream has another size.
const SIZES: [(&str, (u32, u32)); 3] = [("stream1", (480, 360)), ("stream2", (320, 240)), ("arm/stream1", (400, 304))];
const BOW: &str = "[[camera]]\nname = 'bow'\n[[camera.stream]]\nwidth = 480\nheight = 360\n\
                   [[camera.stream]]\nwidth = 320\nheight = 240\n";
const ARM: &str = "[[camera]]\nname = 'arm'\nsource = 'test'\n[[camera.stream]]\nwidth = 400\nheight = 304\n";
const LIST: &str = "There is no stream 9. There are 1 bow/stream1, 2 arm/stream1, 3 bow/stream2";

fn server(cameras: &str) -> Server {
    let folder = TempDir::new().expect("a temporary folder");
    let file = folder.path().join("rov.toml");
    std::fs::write(&file, cameras).expect("a file");
    let size = ["--width", "480", "--height", "360"];
    let server =
        Server::start(&[&["--config", file.to_str().expect("a path of plain characters")], &size[..]].concat());
    server.wait_until_running();
    server
}

fn watched(server: &Server) -> Vec<String> {
    let mut names: Vec<_> = server.stats().viewers.into_iter().map(|viewer| viewer.stream).collect();
    names.sort_unstable();
    names
}

/// A picture that was shown, and the name under which it was.
#[derive(Debug)]
struct Seen {
    pane: usize,
    name: String,
    size: Resolution,
    mark: Option<Stamp>,
}

/// The first picture that was shown under the name of another stream.
fn wrong(seen: &[Seen]) -> String {
    let is_right = |seen: &&Seen| {
        let (width, height) = (seen.size.width, seen.size.height);
        SIZES.contains(&(seen.name.as_str(), (width, height)))
    };
    seen.iter().find(|seen| !is_right(seen)).map(|seen| format!("{seen:?}")).unwrap_or_default()
}

/// Who looks at a window.
struct Pilot {
    runtime: Runtime,
    feeds: Option<Feeds>,
    layout: Layout,
    seen: Vec<Seen>,
}

impl Pilot {
    fn start(args: &[&str]) -> Self {
        let cli = Cli::try_parse_from(["rov-client"].iter().chain(args)).unwrap_or_else(|e| panic!("{args:?}: {e}"));
        let config = cli.session().unwrap_or_else(|e| panic!("{args:?}: {e}"));
        let runtime = Runtime::new().expect("a runtime");
        let stop = CancellationToken::new();
        let feeds = Feeds::start(runtime.handle().clone(), config, cli.grid, Arc::default(), (Instant::now(), stop))
            .expect("feeds");
        Self { runtime, feeds: Some(feeds), layout: Layout::default(), seen: Vec::new() }
    }

    fn feeds(&mut self) -> &mut Feeds {
        self.feeds.as_mut().expect("not ended")
    }

    fn report(&mut self) -> Report {
        lock(&self.feeds().screen()).report(Instant::now())
    }

    fn press(&mut self, command: Command) {
        self.feeds().obey(command, Instant::now());
    }

    fn said(&mut self) -> String {
        self.feeds().view(0, Instant::now()).said.unwrap_or_default()
    }

    /// What the window does in one round.
    fn look(&mut self) {
        self.feeds().wait(Duration::from_millis(20));
        let now = Instant::now();
        self.layout = self.feeds().layout(now);
        for pane in 0..self.layout.panes.len() {
            let Some(picture) = self.feeds().take(pane) else { continue };
            let view = self.feeds().view(pane, now);
            let is_grid = self.layout.grid.is_some();
            let report = self.report();
            let name = if is_grid { report.tiles[pane].stream.clone() } else { report.stream };
            // Title and corner say the same as the statistics.
            assert!(view.overlay.server.ends_with(&name), "{} is called {:?}", name, view.overlay.server);
            let seen = Seen { pane, name, size: picture.source, mark: read_stamp(&picture) };
            self.feeds().shown(pane, &picture, Instant::now());
            self.seen.push(seen);
        }
    }

    fn until(&mut self, what: &str, mut is_so: impl FnMut(&mut Self) -> bool) {
        let end = Instant::now() + wait::START;
        while !is_so(self) {
            assert!(Instant::now() < end, "{what}: not within {:?}; last {:?}", wait::START, self.seen.last());
            self.look();
        }
    }

    /// Until so many pictures more are shown under this name.
    fn sees(&mut self, name: &str, count: usize) {
        let from = self.seen.len();
        self.until(name, |this| this.seen[from..].iter().filter(|seen| seen.name == name).count() >= count);
    }

    fn knows_the_list(&mut self, told: &str) {
        self.until("the list of streams", |this| {
            this.press(Command::Stream(9));
            this.said() == told
        });
    }

    fn end(mut self) {
        let feeds = self.feeds.take().expect("ended once");
        self.runtime.block_on(feeds.finish(wait::SOON)).expect("a good end");
    }
}

fn unix_us() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_micros() as u64
}

#[test]
fn a_chosen_stream_takes_over_with_its_first_picture_under_its_own_name() {
    let server = server(&[BOW, ARM].concat());
    let mut pilot = Pilot::start(&["--url", &server.url("/whep")]);
    pilot.until("the name of the stream", |pilot| pilot.report().stream == "stream1");
    pilot.knows_the_list(LIST);
    pilot.seen.clear();
    pilot.sees("stream1", 5);
    for (changes, (command, name, said)) in [
        (Command::Stream(2), "arm/stream1", "2 arm/stream1"),
        (Command::Next, "stream2", "3 bow/stream2"),
        (Command::Next, "stream1", "1 bow/stream1"),
    ]
    .into_iter()
    .enumerate()
    {
        let (before, pressed, begun) = (pilot.seen.len(), unix_us(), Instant::now());
        pilot.press(command);
        assert_eq!(pilot.said(), said);
        pilot.sees(name, 5);
        let changed = pilot.seen[before..].iter().position(|seen| seen.name == name).expect("a picture") + before;
        assert!(pilot.seen[changed..].iter().all(|seen| seen.name == name), "{:?}", &pilot.seen[changed..]);
        let first = pilot.seen[changed].mark.expect("a mark");
        assert!(first.time_us >= pressed, "{name}: an old picture, of {} us before", pressed - first.time_us);
        let (report, time) = (pilot.report(), begun.elapsed().as_secs_f64() * 1000.0);
        assert_eq!((report.stream.as_str(), report.stream_changes), (name, changes as u64 + 1));
        assert!(report.stream_change.max_ms > 0.0 && report.stream_change.p50_ms <= time, "{report:?}");
        assert_eq!(report.stamps.out_of_order, 0, "numbers begin again with each stream");
        until_true("the former session is closed", wait::SOON, || watched(&server) == [name]);
    }
    assert_eq!(wrong(&pilot.seen), "", "each picture under its own name");
    println!("from a key to the first picture: {:?}", pilot.report().stream_change);
    pilot.end();
    until_true("no session is left", wait::SOON, || watched(&server).is_empty());
}

#[test]
fn the_grid_shows_each_camera_and_one_that_is_lost_leaves_the_others_alone() {
    const PICTURE: &str = "( videotestsrc is-live=true pattern=ball \
                           ! video/x-raw,format=I420,width=400,height=304,framerate=25/1 \
                           ! x264enc tune=zerolatency speed-preset=ultrafast key-int-max=25 threads=1 bitrate=500 \
                           ! rtph264pay name=pay0 config-interval=-1 )";
    let camera = Camera::start(PICTURE);
    let arm = format!("[[camera]]\nname = 'arm'\nsource = 'rtsp'\nurl = '{}'\n", camera.url);
    let server = server(&[BOW, &arm].concat());
    let mut pilot = Pilot::start(&["--url", &server.url("/whep"), "--grid"]);
    pilot.until("the grid", |pilot| pilot.layout.grid.is_some());
    let captions = pilot.layout.grid.clone().expect("a grid").captions;
    assert_eq!(captions, ["1 bow", "2 arm"], "each camera once");
    let grid_from = pilot.seen.len();
    pilot.sees("stream2", 5);
    pilot.sees("arm/stream1", 5);
    assert_eq!(wrong(&pilot.seen[grid_from..]), "");
    until_true("the large stream is closed", wait::SOON, || watched(&server) == ["arm/stream1", "stream2"]);

    drop(camera);
    let is_lost =
        |pilot: &mut Pilot, pane| matches!(pilot.feeds().view(pane, Instant::now()).status, Status::Lost { .. });
    pilot.until("the loss of one", |pilot| is_lost(pilot, 1));
    pilot.sees("stream2", 30);
    assert!(!is_lost(&mut pilot, 0) && is_lost(&mut pilot, 1));
    let tiles = pilot.report().tiles;
    let states: Vec<_> = tiles.iter().map(|tile| (tile.stream.as_str(), tile.state.as_str())).collect();
    assert_eq!(states, [("stream2", "live"), ("arm/stream1", "waiting")]);

    let before = pilot.seen.len();
    pilot.press(Command::Enlarge(0));
    pilot.sees("stream1", 5);
    assert!(pilot.layout.grid.is_none());
    assert_eq!(wrong(&pilot.seen[before..]), "");
    until_true("the tiles are closed", wait::SOON, || watched(&server) == ["stream1"]);
    // And back to it: the key that shows the grid takes it away.
    for is_grid in [true, false] {
        pilot.press(Command::Grid);
        pilot.until("the key G", |pilot| pilot.layout.grid.is_some() == is_grid);
        pilot.sees(if is_grid { "stream2" } else { "stream1" }, 3);
    }
    pilot.end();
}

#[test]
fn the_grid_of_one_camera_shows_each_of_its_streams_and_the_one_that_was_large_goes_on() {
    let server = server(BOW);
    let mut pilot = Pilot::start(&["--url", &server.url("/whep")]);
    pilot.knows_the_list("There is no stream 9. There are 1 bow/stream1, 2 bow/stream2");
    pilot.press(Command::Grid);
    let before = pilot.seen.len();
    pilot.sees("stream1", 3);
    pilot.sees("stream2", 3);
    assert_eq!(pilot.layout.grid.clone().expect("a grid").captions, ["1 bow/stream1", "2 bow/stream2"]);
    assert!(pilot.seen[before..].iter().all(|seen| seen.pane == usize::from(seen.name == "stream2")));
    assert_eq!(pilot.report().sessions, 2, "no session was opened twice");
    pilot.press(Command::Stream(2));
    pilot.look();
    assert!(pilot.layout.grid.is_none(), "what is shown already is large at once");
    pilot.sees("stream2", 3);
    until_true("the other is closed", wait::SOON, || watched(&server) == ["stream2"]);
    pilot.end();
}
