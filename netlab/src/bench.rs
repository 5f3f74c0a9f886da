//! A lab with rov-server at one end and a viewer at the other, for one row of the matrix.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rov_client::stats::Report;
use rov_common::api::Stats;
use rov_tests::http;
use rov_tests::process::Process;
use rov_tests::wait;
use tempfile::TempDir;

use crate::ends::{DEVICE, End};
use crate::lab::{Lab, ROV};
use crate::seen::{Line, Seen, Span};
use crate::watch::{REPORT, now_us};

/// The link unless a row says otherwise.
pub const LINK: &str = "clear delay=2ms";
pub const FPS: f64 = 30.0;
const SERVER: [&str; 9] = ["--name", "netlab", "--width", "1280", "--height", "720", "--fps", "30", "--bitrate"];
const BITRATE: &str = "4000";
/// Who may change things, where a row does.
pub const CONTROLLER: (&str, &str) = ("pilot", "lab-password");
/// Pictures before anything is measured.
const SETTLE: (usize, usize) = (90, 20);
/// The statistics of the client that records.
const RECORDED: &str = "client.json";
/// Where the address of the robot moves to.
const OTHER_ROV: &str = "10.99.0.1";
const OTHER_TOPSIDE: &str = "10.99.0.2";
/// A camera at the robot's end, on loopback.
const CAMERA_PORT: u16 = 8555;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ViewerKind {
    Client,
    Chromium,
}

pub struct Bench {
    pub lab: Lab,
    pub viewer: ViewerKind,
    /// A run of a few seconds, for a test.
    pub is_short: bool,
    address: &'static str,
    server_args: Vec<String>,
    server: Option<Process>,
    camera: Option<Process>,
    watch: Option<Watch>,
    folder: TempDir,
}

/// A viewer, and what it has written so far.
struct Watch {
    process: Process,
    path: PathBuf,
    read_to: u64,
    /// The beginning of a line whose end is not written yet.
    rest: String,
    seen: Vec<Seen>,
    /// When it began to warn that pictures are late, and when it ended that.
    warned: Vec<(u64, bool)>,
    report: Report,
}

/// Counters at one moment.
#[derive(Clone, Debug)]
pub struct Snapshot {
    pub at: u64,
    pub stats: Stats,
    pub report: Report,
    /// Bytes that the robot's end gave to the link.
    pub link_bytes: u64,
}

impl Bench {
    pub fn new(viewer: ViewerKind, seed: u64, is_short: bool, server_args: &[&str]) -> Result<Self> {
        let lab = Lab::start(seed)?;
        lab.link(LINK)?;
        Ok(Self {
            lab,
            viewer,
            is_short,
            address: ROV,
            server_args: server_args.iter().map(ToString::to_string).collect(),
            server: None,
            camera: None,
            watch: None,
            folder: TempDir::new().context("cannot make a temporary folder")?,
        })
    }

    /// What the full form takes, or the short one.
    pub fn pick<T>(&self, full: T, short: T) -> T {
        if self.is_short { short } else { full }
    }

    /// Starts rov-server, and waits until it listens: gives that time.
    pub fn start_server(&mut self) -> Result<u64> {
        let mut command = self.lab.rov.command(program("rov-server")?);
        // The user's own server keeps its key.
        command
            .env_remove("RUST_LOG")
            .env("STATE_DIRECTORY", self.folder.path())
            .args(SERVER)
            .arg(BITRATE)
            .args(&self.server_args);
        if self.camera.is_some() {
            command.args(["--source", "rtsp", "--url", &format!("rtsp://127.0.0.1:{CAMERA_PORT}/cam")]);
        } else {
            command.args(["--source", "test"]);
        }
        let mut server = Process::spawn("rov-server", &mut command);
        server.wait_for_line("the line with its addresses", wait::START, |line| line.contains("http://").then_some(()));
        self.server = Some(server);
        Ok(now_us())
    }

    /// The folder into which this end records.
    pub fn recordings(&self, end: &str) -> PathBuf {
        self.folder.path().join(end)
    }

    /// The server and rov-client record; that is started in the place of a viewer of this program, without a window.
    pub fn start_recording(&mut self, args: &[&str]) -> Result<Process> {
        let [vehicle, surface] = ["vehicle", "surface"].map(|end| self.recordings(end));
        self.start_recording_server(&vehicle)?;
        let mut command = self.lab.topside.command(program("rov-client")?);
        command
            .env_remove("RUST_LOG")
            .args(args)
            .args(["--headless", "--record-free", "100MB", "--record"])
            .arg(surface);
        command.arg("--stats-json").arg(self.folder.path().join(RECORDED));
        Ok(Process::spawn("rov-client", &mut command))
    }

    /// The server, which records all the time.
    pub fn start_recording_server(&mut self, folder: &Path) -> Result<()> {
        let before = self.server_args.len();
        let folder = folder.to_str().context("the temporary folder has an odd name")?;
        self.server_args.extend(["--record", folder, "--record-free", "100MB"].map(str::to_owned));
        let started = self.start_server();
        self.server_args.truncate(before);
        started.map(|_| ())
    }

    /// Begins or ends the recording of a server that records on request, as its controller.
    pub fn set_recording(&self, on: bool) -> Result<()> {
        let url = format!("http://{}:8080/api/settings/recording", self.address);
        let login = http::basic(CONTROLLER.0, CONTROLLER.1);
        let headers = [("Authorization", login.as_str()), ("Content-Type", "application/json")];
        let body = format!("{{\"value\": {on}}}");
        let reply = self.lab.rov.enter(|| http::request_with("PATCH", &url, &headers, body.as_bytes()))?;
        if reply.status == 200 { Ok(()) } else { bail!("{url} answers {}: {}", reply.status, reply.body) }
    }

    /// What the server has taken of the processor so far, in milliseconds.
    pub fn server_cpu_ms(&self) -> Result<f64> {
        let server = self.server.as_ref().context("there is no server")?;
        Ok(server.cpu().as_secs_f64() * 1e3)
    }

    /// What rov-client, which records, has written of itself last.
    pub fn recorded(&self) -> Option<Report> {
        // It may be written at this moment.
        serde_json::from_slice(&std::fs::read(self.folder.path().join(RECORDED)).ok()?).ok()
    }

    /// As systemd would.
    pub fn stop_server(&mut self) -> Result<()> {
        let mut server = self.server.take().context("there is no server")?;
        match server.stop(libc::SIGTERM, 2 * wait::START) {
            0 => Ok(()),
            code => bail!("the server ended with code {code}: {}", server.stderr()),
        }
    }

    /// As a crash would.
    pub fn kill_server(&mut self) {
        self.server = None;
    }

    /// Starts the camera that the server is to take, and waits until it listens: gives that time.
    pub fn start_camera(&mut self) -> Result<u64> {
        let mut command = self.child(&self.lab.rov, &["camera", &CAMERA_PORT.to_string()])?;
        let mut camera = Process::spawn("the camera", &mut command);
        camera.wait_for_line("its address", wait::START, |line| line.contains("rtsp://").then_some(()));
        self.camera = Some(camera);
        Ok(now_us())
    }

    pub fn kill_camera(&mut self) {
        self.camera = None;
    }

    /// Starts the viewer, which finds the server by itself, and waits until it has shown enough.
    pub fn start_viewer(&mut self, args: &[&str]) -> Result<()> {
        let path = self.folder.path().join("seen");
        let file = path.to_str().context("the temporary folder has an odd name")?.to_owned();
        let mut all = match self.viewer {
            ViewerKind::Client => vec!["watch", &file, "--", "--auto"],
            ViewerKind::Chromium => vec!["watch-chromium", &file, self.address],
        };
        if self.viewer == ViewerKind::Client {
            all.extend(args);
        }
        let process = Process::spawn("the viewer", &mut self.child(&self.lab.topside, &all)?);
        let (rest, seen, warned, report) = (String::new(), Vec::new(), Vec::new(), Report::default());
        self.watch = Some(Watch { process, path, read_to: 0, rest, seen, warned, report });
        let (full, short) = SETTLE;
        let enough = self.pick(full, short);
        wait::until_true(&format!("{enough} pictures"), 2 * wait::START, || {
            // What cannot be read now is read the next time, or the wait ends.
            self.seen().is_ok_and(|seen| seen.len() >= enough)
        });
        Ok(())
    }

    /// All that was shown so far.
    pub fn seen(&mut self) -> Result<&[Seen]> {
        let watch = self.watch.as_mut().context("there is no viewer")?;
        watch.read()?;
        Ok(&watch.seen)
    }

    /// When rov-client began to warn that pictures are late, and when it ended that.
    pub fn warned(&self) -> &[(u64, bool)] {
        self.watch.as_ref().map_or(&[], |watch| &watch.warned)
    }

    /// All that was shown up to now, of which the viewer may write the last a moment later.
    pub fn written(&mut self) -> Result<&[Seen]> {
        self.pass(2 * REPORT)?;
        self.seen()
    }

    /// Lets so much time pass, in which the viewer and the server must live.
    pub fn pass(&mut self, time: Duration) -> Result<()> {
        std::thread::sleep(time);
        self.check()
    }

    fn check(&mut self) -> Result<()> {
        for process in [self.server.as_mut(), self.watch.as_mut().map(|watch| &mut watch.process)].into_iter().flatten()
        {
            if !process.is_running() {
                bail!("a program ended: {}", process.stderr());
            }
        }
        Ok(())
    }

    /// Waits until the picture moves after `from`, with a limit.
    pub fn wait_until_moving(&mut self, from: u64, limit: Duration) -> Result<Option<f64>> {
        let found = wait::within(limit, || {
            let seen = self.seen().unwrap_or_default();
            Span::of(seen, from, now_us()).moving_after_ms()
        });
        self.check()?;
        Ok(found)
    }

    /// The counters now; the server is asked at its own end, which does not touch the link.
    pub fn snapshot(&mut self) -> Result<Snapshot> {
        let url = format!("http://{}:8080/api/stats", self.address);
        let reply = self.lab.rov.enter(|| http::try_request("GET", &url, None, b""))?;
        let reply = reply.with_context(|| format!("no answer from {url}"))?;
        let stats = serde_json::from_str(&reply.body).with_context(|| format!("{url}: {}", reply.body))?;
        let link_bytes = self.lab.counts().0.offered_bytes;
        self.seen()?;
        let report = self.watch.as_ref().map(|watch| watch.report.clone()).unwrap_or_default();
        Ok(Snapshot { at: now_us(), stats, report, link_bytes })
    }

    /// The robot gets an address in another subnet, and no longer has its own; the pilot's computer has one there too.
    pub fn move_to_other_subnet(&mut self) -> Result<u64> {
        self.lab.topside.ip(&["address", "add", &format!("{OTHER_TOPSIDE}/24"), "broadcast", "+", "dev", DEVICE])?;
        let rov = &self.lab.rov;
        rov.ip(&["address", "flush", "dev", DEVICE])?;
        rov.ip(&["address", "add", &format!("{OTHER_ROV}/24"), "broadcast", "+", "dev", DEVICE])?;
        rov.ip(&["route", "replace", "default", "dev", DEVICE])?;
        self.address = OTHER_ROV;
        Ok(now_us())
    }

    /// This program, with a hidden command, at an end.
    fn child(&self, end: &End, args: &[&str]) -> Result<Command> {
        let mut command = end.command(program("netlab")?);
        command.env_remove("RUST_LOG").args(args);
        Ok(command)
    }
}

impl Drop for Watch {
    /// Lets Chromium clean up; whatever does not end is killed.
    fn drop(&mut self) {
        if self.process.is_running() {
            self.process.signal(libc::SIGTERM);
            wait::within(wait::SOON, || (!self.process.is_running()).then_some(()));
        }
    }
}

impl Watch {
    /// Takes the lines that were written since.
    fn read(&mut self) -> Result<()> {
        // It is there as soon as the viewer has started.
        let Ok(mut file) = File::open(&self.path) else { return Ok(()) };
        file.seek(SeekFrom::Start(self.read_to)).context("cannot read what was seen")?;
        let mut text = String::new();
        self.read_to += file.read_to_string(&mut text).context("cannot read what was seen")? as u64;
        self.rest.push_str(&text);
        let Some((lines, rest)) = self.rest.rsplit_once('\n') else { return Ok(()) };
        for line in lines.lines() {
            match Line::parse(line).with_context(|| format!("the viewer wrote: {line}"))? {
                Line::Seen(seen) => self.seen.push(seen),
                Line::Late(at, is_late) => self.warned.push((at, is_late)),
                Line::Report(report) => self.report = *report,
            }
        }
        self.rest = rest.to_owned();
        Ok(())
    }
}

/// A program of this workspace: beside this one, or above it where this is a test.
pub fn program(name: &str) -> Result<PathBuf> {
    let this = std::env::current_exe().context("the path of this program is not known")?;
    let found = this.ancestors().skip(1).take(2).map(|folder| folder.join(name)).find(|file| file.is_file());
    found.with_context(|| format!("{name} is not beside {}: run cargo build --workspace", this.display()))
}
