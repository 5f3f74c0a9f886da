//! What runs at the ends as processes of their own, started by the bench as hidden commands of this program: the
//! viewers, which write a line for each picture that they show, and the camera.

use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, anyhow};
use clap::Parser;
use rov_client::cli::Cli;
use rov_client::decode::{Picture, read_stamp};
use rov_client::feed::Feed;
use rov_client::session;
use rov_client::stats::Report;
use rov_client::viewer::Viewer;
use rov_tests::camera::{Camera, Settings};
use rov_tests::devtools::DevTools;
use rov_tests::wait;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

use crate::run::{is_stopped, stop_on_signals};
use crate::seen::{Line, Seen};
use crate::torn::is_torn;

/// The counters are written so often, and Chromium is asked so often what it has shown.
pub const REPORT: Duration = Duration::from_millis(250);
/// The server's page, when it shows pictures.
const LIVE: &str = "document.body?.dataset.state === 'live'";
/// Notes each picture that is presented, as `tests/src/mark.js` reads its mark.
const OBSERVE: &str = "globalThis.seen = []; globalThis.observe = () => video.requestVideoFrameCallback((now, frame) \
    => { seen.push([performance.timeOrigin + frame.expectedDisplayTime, mark(video)]); observe() }); observe(); 0";

pub fn now_us() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros() as u64
}

/// The session and the decoder of rov-client with these arguments, until this process is killed.
pub fn client(out: &Path, args: &[String]) -> Result<()> {
    let arguments = ["rov-client".to_owned()].into_iter().chain(args.iter().cloned());
    let config = Cli::try_parse_from(arguments)?.session().map_err(|error| anyhow!(error))?;
    let mut lines = Lines::create(out)?;
    let runtime = Runtime::new().context("cannot start the runtime")?;
    let viewer = Viewer::new();
    let feed = Feed::new(0, None, Arc::clone(&viewer), CancellationToken::new(), config.max_age);
    let mut is_late = false;
    let session = runtime.spawn(session::run(config, Arc::clone(&viewer), CancellationToken::new()));
    let mut reported = Instant::now();
    while !session.is_finished() {
        if let Some(picture) = feed.take(|| viewer.mailbox.wait(Duration::from_millis(20))) {
            lines.write(&Line::Seen(seen(&picture, &viewer)))?;
            feed.shown(&picture, Instant::now(), None);
        }
        let warns = feed.late(Instant::now()).is_some();
        if std::mem::replace(&mut is_late, warns) != warns {
            lines.write(&Line::Late(now_us(), warns))?;
        }
        if reported.elapsed() >= REPORT {
            reported = Instant::now();
            let mut report = Report::default();
            viewer.report(&mut report);
            lines.write(&Line::Report(Box::new(report)))?;
        }
    }
    runtime.block_on(session).context("the session ended badly")?.context("the session ended")
}

fn seen(picture: &Picture, viewer: &Viewer) -> Seen {
    let (at, age) = (now_us(), viewer.age(picture.captured, Instant::now()).ok());
    let size = picture.resolution;
    let mark = read_stamp(picture).map(|stamp| (stamp.frame, stamp.time_us));
    let torn = is_torn(picture.pixels(), size.width as usize, size.height as usize);
    let age = age.map(|age| (age.age.as_micros() as u64, age.bound.as_micros() as u64));
    Seen { at, mark, torn, age, session: viewer.sessions() }
}

/// Chromium with the page of the server at `host`, until SIGTERM: its profile is deleted then.
pub fn browser(out: &Path, host: &str) -> Result<()> {
    let mut lines = Lines::create(out)?;
    stop_on_signals();
    // It knows no names and no addresses but this.
    let mut chromium = DevTools::start_with(&[&format!("--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE {host}")]);
    let page = chromium.open(&format!("http://{host}:8080/"));
    chromium.wait_for(&page, LIVE, wait::START);
    chromium.evaluate(&page, &format!("{}; {OBSERVE}", include_str!("../../tests/src/mark.js")));
    while !is_stopped() {
        let pictures = chromium.evaluate(&page, "seen.splice(0)");
        for picture in pictures.as_array().into_iter().flatten() {
            let mark = &picture[1];
            let frame = mark["frame"].as_u64().and_then(|frame| u32::try_from(frame).ok());
            let mark = frame.zip(mark["drawn"].as_f64().map(ms_to_us));
            let at = picture[0].as_f64().map(ms_to_us).with_context(|| format!("no time in {picture}"))?;
            lines.write(&Line::Seen(Seen { at, mark, torn: false, age: None, session: 0 }))?;
        }
        std::thread::sleep(REPORT);
    }
    Ok(())
}

fn ms_to_us(ms: f64) -> u64 {
    (ms * 1000.0) as u64
}

/// An RTSP camera at this port of loopback, until this process is killed.
pub fn camera(port: u16) -> Result<()> {
    // A keyframe a second, as cameras have it.
    let launch = "( videotestsrc is-live=true pattern=smpte horizontal-speed=4 ! \
        video/x-raw,format=I420,width=1280,height=720,framerate=30/1 ! identity name=mark ! queue max-size-buffers=2 ! \
        x264enc tune=zerolatency speed-preset=ultrafast bitrate=4000 key-int-max=30 ! rtph264pay name=pay0 )";
    let camera = Camera::with(launch, Settings { port, ..Settings::default() });
    eprintln!("{}", camera.url);
    loop {
        std::thread::park();
    }
}

/// The file that the bench reads.
struct Lines(File);

impl Lines {
    fn create(out: &Path) -> Result<Self> {
        Ok(Self(File::create(out).with_context(|| format!("cannot write {}", out.display()))?))
    }

    fn write(&mut self, line: &Line) -> Result<()> {
        let mut text = String::new();
        // Into a string, which always works.
        let _ = writeln!(text, "{line}");
        self.0.write_all(text.as_bytes()).context("cannot write what was seen")
    }
}
