//! What is measured: the project and the references, each as a sender and a receiver.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use rov_bench::clock;
use rov_client::stats::Report;
use rov_common::api::Stats;
use rov_tests::http;
use rov_tests::process::Process;
use serde::Serialize;
use tempfile::TempDir;

use crate::browser;
use crate::point::{Point, PointName};
use crate::roles::{DECODER, ENCODER, Part, READY, UNITS};
use crate::screen::Screen;
use crate::site::Site;
use crate::system::{free_port, pause, usage, wait_for};

const START: Duration = Duration::from_secs(30);

/// In the order in which a run goes through them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Subject {
    /// Reference: encoder and decoder in one process, without a network
    Local,
    /// Reference: plain RTP over UDP
    Udp,
    /// The project: rov-server to rov-client's decoder, by WebRTC
    Webrtc,
    /// Reference: GStreamer's webrtcbin on both sides
    Webrtcbin,
    /// The project: one rov-server to eight of rov-client, at 1080p30; the first alone decodes
    Webrtc8,
    /// The project's RTP output, to the plain receiver
    Rtp,
    /// The project's RTSP output, over UDP, to rtspsrc
    Rtsp,
    /// Reference: gst-rtsp-server over UDP, to rtspsrc
    RtspUdp,
    /// Reference: gst-rtsp-server over TCP, to rtspsrc
    RtspTcp,
    /// The project: rov-server to rov-client's window
    Window,
    /// Reference: plain RTP over UDP, into a window by ximagesink
    UdpWindow,
    /// The project: rov-server's page in Chromium, on the screen; over a link between two networks
    Browser,
    /// Reference: webrtcbin to Chromium, on the screen; over a link between two networks
    WebrtcbinBrowser,
}

impl Subject {
    pub fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }

    pub fn is_project(self) -> bool {
        matches!(self, Self::Webrtc | Self::Webrtc8 | Self::Rtp | Self::Rtsp | Self::Window | Self::Browser)
    }

    /// Whether it is measured there. Of a clip no picture is encoded or decoded, and each packet must be seen as it is
    /// sent: not within TCP.
    pub fn takes(self, point: PointName) -> bool {
        match self {
            Self::Webrtc8 => matches!(point, PointName::P1080At30 | PointName::P1080File),
            Self::Local | Self::RtspTcp => !point.is_clip(),
            _ => !point.is_clip() || !self.needs_screen(),
        }
    }

    /// Chromium does not use loopback.
    pub fn is_browser(self) -> bool {
        matches!(self, Self::Browser | Self::WebrtcbinBrowser)
    }

    pub fn needs_screen(self) -> bool {
        self.is_browser() || matches!(self, Self::Window | Self::UdpWindow)
    }
}

/// Where the programs are.
#[derive(Clone, Debug)]
pub struct Programs {
    /// Of the binaries.
    folder: PathBuf,
    /// Of clips that were made.
    pub clips: PathBuf,
    /// Of the source as a plugin, and nothing else.
    plugin: PathBuf,
}

impl Programs {
    /// Beside this program, as cargo builds them.
    pub fn find() -> Result<Self> {
        let this = std::env::current_exe().context("the path of this program")?;
        let folder = this.parent().context("a folder")?.to_owned();
        for name in ["rov-server", "rov-client", "librov_bench.so"] {
            ensure!(folder.join(name).exists(), "{} has no {name}: build it, as scripts/bench does", folder.display());
        }
        // GStreamer searches everything in and below the folders it is given: not cargo's own.
        let plugin = folder.join("rov-bench-plugin");
        std::fs::create_dir_all(&plugin).with_context(|| plugin.display().to_string())?;
        let link = plugin.join("librov_bench.so");
        if std::fs::symlink_metadata(&link).is_err() {
            std::os::unix::fs::symlink("../librov_bench.so", &link).with_context(|| link.display().to_string())?;
        }
        Ok(Self { clips: folder.join("rov-bench-clips"), folder, plugin })
    }

    fn command(&self, name: &str) -> Command {
        let mut command = Command::new(self.folder.join(name));
        command.env_remove("RUST_LOG").env_remove("WAYLAND_DISPLAY").env_remove("DISPLAY").stdin(Stdio::null());
        command
    }

    fn part(&self, part: Part, scene: &Scene, port: u16) -> Command {
        let mut command = self.command("rov-bench");
        command.args(["role", &part.name()]).args(scene.point.args()).args(["--port", &port.to_string()]);
        command.args(["--server", scene.site.server(), "--client", scene.site.client()]);
        if let Some(clip) = scene.clip {
            command.arg("--clip").arg(clip);
        }
        command
    }

    fn rov_server(&self) -> Command {
        let mut command = self.command("rov-server");
        let others = std::env::var_os("GST_PLUGIN_PATH").unwrap_or_default();
        let folders = std::iter::once(self.plugin.clone()).chain(std::env::split_paths(&others));
        if let Ok(path) = std::env::join_paths(folders) {
            command.env("GST_PLUGIN_PATH", path);
        }
        // The user's own list of plugins stays as it is.
        command.env("GST_REGISTRY", self.plugin.join("registry.bin"));
        // And the user's own server keeps its key.
        command.env("STATE_DIRECTORY", &self.plugin);
        command
    }
}

/// What a subject sends, and where it shows that.
#[derive(Clone, Copy)]
pub struct Scene<'a> {
    pub point: &'a Point,
    pub clip: Option<&'a Path>,
    pub screen: Option<&'a Screen>,
    pub site: &'a Site,
}

/// A subject that runs.
pub struct Running<'a> {
    // Dropped in this order: a receiver ends before its sender.
    pub clients: Vec<Process>,
    pub server: Process,
    /// When the first client was started; none where it must be there before the server.
    pub client_started_us: Option<u64>,
    /// Of rov-server before there was a client, milliseconds of processor time per second.
    pub idle_cpu_ms_per_s: Option<f64>,
    /// Address of rov-server's HTTP API.
    api: Option<String>,
    report: Option<PathBuf>,
    site: &'a Site,
    _folder: Option<TempDir>,
}

impl<'a> Running<'a> {
    pub fn start(subject: Subject, scene: Scene<'a>, programs: &'a Programs) -> Result<Self> {
        let starter = Starter { scene, programs };
        match subject {
            Subject::Local => Ok(Self::of(starter.server(Part::Local, 0)?, Vec::new(), scene.site)),
            Subject::Udp => starter.udp(Part::UdpReceiver),
            Subject::UdpWindow => starter.udp(Part::UdpWindow),
            Subject::RtspUdp => starter.references(Part::RtspServer, Part::RtspReceiver),
            Subject::RtspTcp => starter.references(Part::RtspServer, Part::RtspTcpReceiver),
            Subject::Webrtcbin => starter.references(Part::WebrtcbinSender, Part::WebrtcbinReceiver),
            Subject::WebrtcbinBrowser => starter.page(),
            Subject::Rtp | Subject::Rtsp | Subject::Webrtc | Subject::Webrtc8 | Subject::Window | Subject::Browser => {
                starter.project(subject)
            }
        }
    }

    fn of(server: Process, clients: Vec<Process>, site: &'a Site) -> Self {
        Self {
            clients,
            server,
            client_started_us: None,
            idle_cpu_ms_per_s: None,
            api: None,
            report: None,
            site,
            _folder: None,
        }
    }

    /// Who gives the pictures: their lines are in its standard output.
    pub fn readers(&self) -> &[Process] {
        if self.clients.is_empty() { std::slice::from_ref(&self.server) } else { &self.clients }
    }

    /// An error when one of its programs has ended.
    pub fn check(&mut self) -> Result<()> {
        check(&mut self.server, "the server")?;
        self.clients.iter_mut().try_for_each(|client| check(client, "a client"))
    }

    /// What rov-server says of itself.
    pub fn server_stats(&self) -> Option<Stats> {
        let url = format!("{}/api/stats", self.api.as_ref()?);
        let reply = self.site.at_server(|| http::try_request("GET", &url, None, b"")).ok()?;
        serde_json::from_str(&reply.ok()?.body).ok()
    }

    /// What rov-client, with its window, says of itself.
    pub fn client_report(&self) -> Option<Report> {
        serde_json::from_slice(&std::fs::read(self.report.as_ref()?).ok()?).ok()
    }
}

fn check(process: &mut Process, what: &str) -> Result<()> {
    let is_running = process.is_running();
    ensure!(is_running, "{what} ended: {}", process.stderr());
    Ok(())
}

struct Starter<'a> {
    scene: Scene<'a>,
    programs: &'a Programs,
}

impl<'a> Starter<'a> {
    fn spawn_client(&self, command: &mut Command) -> Process {
        if let Some(screen) = self.scene.screen {
            command.env("DISPLAY", &screen.display);
        }
        self.scene.site.place_client(command);
        Process::spawn("the client", command)
    }

    /// A part on the sender's side, once it is ready.
    fn server(&self, part: Part, port: u16) -> Result<Process> {
        let mut command = self.programs.part(part, &self.scene, port);
        self.scene.site.place_server(&mut command);
        until_ready(Process::spawn(&part.name(), &mut command), part)
    }

    /// Plain UDP can ask for nothing: who comes late waits for the next keyframe. So the receiver comes first.
    fn udp(&self, receiver: Part) -> Result<Running<'a>> {
        let port = free_port()?;
        let client = self.spawn_client(&mut self.programs.part(receiver, &self.scene, port));
        let client = until_ready(client, receiver)?;
        Ok(Running::of(self.server(Part::UdpSender, port)?, vec![client], self.scene.site))
    }

    fn references(&self, server: Part, client: Part) -> Result<Running<'a>> {
        let port = free_port()?;
        let server = self.server(server, port)?;
        let started = clock::now_us();
        let client = self.spawn_client(&mut self.programs.part(client, &self.scene, port));
        Ok(Running { client_started_us: Some(started), ..Running::of(server, vec![client], self.scene.site) })
    }

    fn page(&self) -> Result<Running<'a>> {
        let (port, site) = (free_port()?, self.scene.site);
        let server = self.server(Part::WebrtcbinPage, port)?;
        let folder = TempDir::new().context("a temporary folder")?;
        let url = format!("http://{}:{port}/", site.server());
        let started = clock::now_us();
        let client = self.spawn_client(&mut browser::command(&url, self.scene.point, folder.path())?);
        let running = Running::of(server, vec![client], site);
        Ok(Running { client_started_us: Some(started), _folder: Some(folder), ..running })
    }

    fn project(&self, subject: Subject) -> Result<Running<'a>> {
        let (http_port, rtsp_port, rtp_port) = (free_port()?, free_port()?, free_port()?);
        let (site, point) = (self.scene.site, self.scene.point);
        let api = format!("http://{}:{http_port}", site.server());
        let discovery = free_port()?.to_string();
        let server = self.rov_server(subject, &api, [http_port, rtsp_port, rtp_port], &discovery)?;
        let has_encoder = self.scene.clip.is_none();
        let idle_cpu_ms_per_s =
            (subject == Subject::Webrtc && has_encoder).then(|| self.idle(&server, &api)).transpose()?;
        let folder = TempDir::new().context("a temporary folder")?;
        let report = folder.path().join("client.json");
        // As the pilot starts it: it finds the server by itself.
        let auto = ["--auto", "--discovery-port", &discovery, "--interface", site.interface()];
        let mut command = match subject {
            Subject::Rtp => self.programs.part(Part::UdpReceiver, &self.scene, rtp_port),
            Subject::Rtsp => self.programs.part(Part::RtspReceiver, &self.scene, rtsp_port),
            Subject::Window => {
                let size = (point.width.to_string(), point.height.to_string());
                let mut command = self.programs.command("rov-client");
                command.args(auto).args(["--decoder", DECODER]);
                command.args(["--width", &size.0, "--height", &size.1]).arg("--stats-json").arg(&report);
                command
            }
            Subject::Browser => browser::command(&format!("{api}/"), point, folder.path())?,
            _ => self.rov_client(&auto, if self.scene.clip.is_some() { UNITS } else { DECODER }),
        };
        let started = clock::now_us();
        let mut clients = vec![self.spawn_client(&mut command)];
        if subject == Subject::Webrtc8 {
            // Eight decoders would be most of what is measured.
            clients.extend((1..8).map(|_| self.spawn_client(&mut self.rov_client(&auto, UNITS))));
        }
        Ok(Running {
            client_started_us: Some(started),
            idle_cpu_ms_per_s,
            api: Some(api),
            report: (subject == Subject::Window).then_some(report),
            _folder: Some(folder),
            ..Running::of(server, clients, site)
        })
    }

    /// Its session and its decoder, which may be the element that only notes access units.
    fn rov_client(&self, args: &[&str], decoder: &str) -> Command {
        let mut command = self.programs.part(Part::RovClient, &self.scene, 0);
        command.arg("--").args(args).args(["--decoder", decoder]);
        command
    }

    /// What rov-server takes while nobody watches, milliseconds of processor time per second.
    fn idle(&self, server: &Process, api: &str) -> Result<f64> {
        const TIME: Duration = Duration::from_secs(2);
        // Longer than it goes on encoding for nobody. One that never rests is measured then.
        const UNTIL_REST: Duration = Duration::from_secs(8);
        let end = Instant::now() + UNTIL_REST;
        while Instant::now() < end && !self.is_resting(api)? {
            pause(Duration::from_millis(200))?;
        }
        let (before, from_us) = (usage(server.pid())?.cpu, clock::now_us());
        pause(TIME)?;
        let used = usage(server.pid())?.cpu.saturating_sub(before);
        Ok(used.as_secs_f64() * 1e9 / (clock::now_us() - from_us) as f64)
    }

    fn is_resting(&self, api: &str) -> Result<bool> {
        let url = format!("{api}/api/stats");
        let reply = self.scene.site.at_server(|| http::try_request("GET", &url, None, b""))?;
        // By name, as servers that know no rest are measured too.
        let stats: serde_json::Value =
            reply.map(|reply| serde_json::from_str(&reply.body)).unwrap_or_else(|_| Ok(serde_json::Value::Null))?;
        Ok(stats["streams"][0]["resting"] == true)
    }

    /// rov-server as it is, with the common source and encoder; it gives pictures already.
    fn rov_server(&self, subject: Subject, api: &str, ports: [u16; 3], discovery: &str) -> Result<Process> {
        let Point { width, height, fps, kbps } = self.scene.point;
        let source = format!("rovbenchsrc ! video/x-raw,format=I420,width={width},height={height},framerate={fps}/1");
        let transport = match subject {
            Subject::Rtp => "webrtc,rtp",
            Subject::Rtsp => "webrtc,rtsp",
            _ => "webrtc",
        };
        let [http_port, rtsp_port, rtp_port] = ports.map(|port| port.to_string());
        let [width, height, fps, kbps] = [width, height, fps, kbps].map(ToString::to_string);
        let mut command = self.programs.rov_server();
        command.args(["--transport", transport, "--discovery-port", discovery]);
        match self.scene.clip {
            Some(clip) => command.args(["--source", "file", "--file-passthrough", "--file"]).arg(clip),
            None => {
                command.args(["--pipeline", &source, "--encoder", ENCODER]);
                command.args(["--width", &width, "--height", &height, "--fps", &fps, "--bitrate", &kbps])
            }
        };
        let site = self.scene.site;
        command.args(["--host", site.server(), "--interface", site.interface(), "--signal-port", &http_port]);
        command.args(["--rtsp-port", &rtsp_port, "--rtp-host", site.client(), "--rtp-port", &rtp_port]);
        site.place_server(&mut command);
        let mut server = Process::spawn("rov-server", &mut command);
        wait_for("rov-server gives pictures", START, || {
            check(&mut server, "rov-server")?;
            let health = || http::try_request("GET", &format!("{api}/healthz"), None, b"");
            Ok(site.at_server(health)?.is_ok_and(|reply| reply.status == 200).then_some(()))
        })
        .with_context(|| server.stderr())?;
        Ok(server)
    }
}

fn until_ready(mut process: Process, part: Part) -> Result<Process> {
    let name = part.name();
    wait_for(&format!("{name} is ready"), START, || {
        check(&mut process, &name)?;
        Ok(process.stderr().lines().any(|line| line == READY).then_some(()))
    })?;
    Ok(process)
}
