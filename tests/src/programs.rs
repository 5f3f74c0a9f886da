//! `rov-server` and `rov-client` as processes.

use std::net::{SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use gstreamer as gst;
use rov_client::stats::Report;
use rov_common::api::{Health, Stats};
use tempfile::TempDir;

use crate::process::{Process, binary};
use crate::{http, wait};

/// Of a file of `--config`: the user `pilot`, whose token is `rov_test`.
pub const PILOT: &str = "[[user]]\nname = 'pilot'\nrole = 'controller'\n\
    token = 'sha256:05fdc8c415beeba8060d7ca7db3d8482e1d069c2f5f932b664aafbf144877bfa'\n";

/// `rov-server` on loopback, at ports that the system chose.
pub struct Server {
    pub process: Process,
    /// Of the HTTP API.
    pub address: SocketAddr,
    /// Of the UDP socket for WebRTC media.
    pub media: Option<SocketAddr>,
    /// The first `rtsp://` address.
    pub rtsp: Option<String>,
    /// `Authorization` of its user, where it has one by `--user`.
    pub login: Option<String>,
    /// Of its key.
    _state: TempDir,
}

impl Server {
    /// Starts it and waits until it listens. It is not found by discovery unless `args` say so.
    pub fn start(args: &[&str]) -> Self {
        Self::start_with_env(&[], args)
    }

    /// As [`Self::start`], with a standard input.
    pub fn start_with_input(args: &[&str], input: impl Into<std::process::Stdio>) -> Self {
        let (mut command, state) = command(args);
        Self::spawn(Process::spawn_with_input("rov-server", command.stdin(input)), args, state)
    }

    /// As [`Self::start`]; it logs which elements it makes, for [`Self::encoders`].
    pub fn start_traced(args: &[&str]) -> Self {
        Self::start_with_env(
            &[("GST_DEBUG", "GST_ELEMENT_FACTORY:4"), ("GST_DEBUG_NO_COLOR", "1"), ("GST_DEBUG_FILE", "")],
            args,
        )
    }

    /// How many encoders GStreamer has made for it so far, of whatever kind. Only of one that is traced.
    pub fn encoders(&self) -> usize {
        gst::init().expect("GStreamer");
        let log = self.process.stderr();
        let made = log.lines().filter_map(|line| line.split_once("creating element \"")?.1.split('"').next());
        let factories = made.filter_map(gst::ElementFactory::find);
        factories.filter(|factory| factory.has_type(gst::ElementFactoryType::ENCODER)).count()
    }

    /// As [`Self::start`], with these variables in the environment.
    pub fn start_with_env(env: &[(&str, &str)], args: &[&str]) -> Self {
        let (mut command, state) = command(args);
        Self::spawn(Process::spawn("rov-server", command.envs(env.iter().copied())), args, state)
    }

    fn spawn(mut process: Process, args: &[&str], state: TempDir) -> Self {
        let line = process.wait_for_line("the line with its addresses", wait::START, |line| {
            line.contains("watch at http").then(|| line.to_owned())
        });
        let after = |mark: &str| Some(line.split_once(mark)?.1.split([',', ' ']).next()?.to_owned());
        let parse = |address: String| address.parse().expect("an address and a port");
        let address = after("http://").or_else(|| after("https://")).map(parse).expect("the address of HTTP");
        Self {
            process,
            address,
            media: after("WebRTC media on UDP ").map(parse),
            rtsp: after(", rtsp://").map(|rest| format!("rtsp://{rest}")),
            login: login_of(args),
            _state: state,
        }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub fn stats(&self) -> Stats {
        http::stats_as(self.address, self.login.as_deref())
    }

    /// Whether all streams run as they should, but that a busy machine may leave pictures out.
    pub fn is_well(&self) -> bool {
        let (status, health) = self.health();
        status == 200 || health.streams.values().all(|stream| stream.rule.as_deref() == Some("dropped_frames"))
    }

    pub fn health(&self) -> (u16, Health) {
        http::health_as(self.address, self.login.as_deref())
    }

    /// Waits until pictures come.
    pub fn wait_until_running(&self) {
        wait::until_true("the stream runs", wait::START, || self.health().0 == 200);
    }
}

fn login_of(args: &[&str]) -> Option<String> {
    let after = |option: &str| args.iter().skip_while(|arg| **arg != option).nth(1);
    Some(http::basic(after("--user")?, after("--password")?))
}

/// `rov-server` with a small test picture on loopback, and the folder of its key; `args` may override that, but for
/// `--source`.
fn command(args: &[&str]) -> (Command, TempDir) {
    let state = TempDir::new().expect("a temporary folder");
    let mut command = Command::new(binary("rov-server"));
    command.env_remove("RUST_LOG");
    let given = |option: &str| args.contains(&option);
    if !given("--host") {
        command.args(["--host", "127.0.0.1"]);
    }
    if !given("--signal-port") {
        command.args(["--signal-port", "0"]);
    }
    if !given("--rtsp-port") {
        command.args(["--rtsp-port", "0"]);
    }
    if !given("--source") && !given("--pipeline") && !given("--file") {
        command.args(["--source", "test"]);
    }
    if !given("--width") {
        // Wide enough for the mark, and little work.
        command.args(["--width", "320", "--height", "240"]);
    }
    if !given("--discovery-port") {
        command.arg("--no-discovery");
    }
    if !given("--state-dir") {
        command.arg("--state-dir").arg(state.path());
    }
    command.args(args);
    (command, state)
}

/// The `rov-server` that [`Server::start`] would start, as a process that may end at once.
pub fn server_process(args: &[&str]) -> Process {
    // One that keeps a key is given a folder for it.
    let (mut command, _state) = command(args);
    Process::spawn("rov-server", &mut command)
}

/// As [`server_process`], but one to which this signal was sent before its first instruction.
pub fn signalled_server_process(signal: libc::c_int) -> Process {
    use std::os::unix::process::CommandExt;
    let (mut command, _state) = command(&[]);
    // Held back it is still there in the program that begins.
    let send = move || {
        // SAFETY: only what may be called between fork and exec, and a place that outlasts the calls.
        unsafe {
            let mut set: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&raw mut set);
            libc::sigaddset(&raw mut set, signal);
            libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
            libc::raise(signal);
        }
        Ok(())
    };
    // SAFETY: see there.
    unsafe { command.pre_exec(send) };
    Process::spawn("rov-server", &mut command)
}

/// The last line of figures that a rov-client without a window wrote, and how many pictures it says were shown.
///
/// # Panics
/// Where there is none.
pub fn last_figures(client: &Process) -> (String, u64) {
    let line = client.stdout().lines().last().map(str::to_owned).expect("a line of figures each second");
    let shown = line.split(" shown").next().and_then(|left| left.rsplit(' ').next()).and_then(|n| n.parse().ok());
    (line.clone(), shown.unwrap_or_else(|| panic!("no number of pictures shown: {line}")))
}

/// `rov-client` without a window, on loopback.
pub struct Client {
    pub process: Process,
    report: PathBuf,
    _folder: TempDir,
}

impl Client {
    /// Starts it; `args` say which server.
    pub fn start(args: &[&str]) -> Self {
        Self::run(args, &mut client_command())
    }

    /// As [`Self::start`], with the password in the environment.
    pub fn start_with_password(password: &str, args: &[&str]) -> Self {
        Self::run(args, client_command().env("ROV_PASSWORD", password))
    }

    fn run(args: &[&str], command: &mut Command) -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        let report = folder.path().join("stats.json");
        command.args(["--headless", "--interface", "lo", "--stats-json"]).arg(&report).args(args);
        Self { process: Process::spawn("rov-client", command), report, _folder: folder }
    }

    /// What it wrote last by `--stats-json`.
    pub fn report(&self) -> Option<Report> {
        let text = std::fs::read(&self.report).ok()?;
        Some(serde_json::from_slice(&text).unwrap_or_else(|e| panic!("{}: {e}", self.report.display())))
    }

    /// The first report for which `enough` is true.
    pub fn wait_for(&mut self, what: &str, limit: Duration, enough: impl Fn(&Report) -> bool) -> Report {
        let process = &mut self.process;
        let report = &self.report;
        wait::until(&format!("rov-client: {what}"), limit, || {
            assert!(process.is_running(), "rov-client ended before this: {what}");
            let text = std::fs::read(report).ok()?;
            serde_json::from_slice(&text).ok().filter(&enough)
        })
    }

    /// Waits until `frames` more pictures than in `since` were shown.
    pub fn wait_for_frames(&mut self, since: u64, frames: u64) -> Report {
        self.wait_for(&format!("{frames} more pictures"), wait::START, |r| r.frames_shown >= since + frames)
    }
}

/// The `rov-client` with exactly these arguments, as a process that may end at once.
pub fn client_process(args: &[&str]) -> Process {
    Process::spawn("rov-client", client_command().args(args))
}

/// As [`client_process`], with the password in the environment.
pub fn client_process_with_password(password: &str, args: &[&str]) -> Process {
    Process::spawn("rov-client", client_command().env("ROV_PASSWORD", password).args(args))
}

/// Whatever is in the environment of who runs the tests.
fn client_command() -> Command {
    let mut command = Command::new(binary("rov-client"));
    command.env_remove("RUST_LOG").env_remove("ROV_PASSWORD");
    command
}

/// A UDP port that nobody has at this moment, for discovery, whose port all programs of a test share.
pub fn free_udp_port() -> u16 {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a UDP socket");
    socket.local_addr().expect("its address").port()
}
