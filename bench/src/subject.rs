//! What is measured: the project and the references, each as a sender and a receiver.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;
use rov_bench::clock;
use rov_client::stats::Report;
use rov_common::api::{Stats, WHEP_PATH};
use rov_tests::http;
use rov_tests::process::Process;
use serde::Serialize;
use tempfile::TempDir;

use crate::browser;
use crate::point::{Point, PointName};
use crate::roles::{DECODER, ENCODER, JanusPlace, Part, READY, UNITS};
use crate::screen::Screen;
use crate::site::Site;
use crate::system::{free_port, pause, program, usage, wait_for};

const START: Duration = Duration::from_secs(30);
/// Names of those of one server.
const CAMERAS: [&str; 4] = ["cam1", "cam2", "cam3", "cam4"];

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
    /// The project: as webrtc, while the server records the stream
    Recorded,
    /// Reference: GStreamer's webrtcbin on both sides
    Webrtcbin,
    /// The project: one rov-server to eight of rov-client, at 1080p30 and of clips; of pictures the first alone decodes
    Webrtc8,
    /// The project: to 32 of them, of a clip of 4 Mbit/s
    Webrtc32,
    /// Reference: Janus's streaming plugin, fed by RTP, to rov-client's decoder
    Janus,
    /// Reference: to eight of them
    Janus8,
    /// Reference: to 32 of them
    Janus32,
    /// The project: as webrtc, with a second stream that nobody watches
    Stream2Resting,
    /// The project: as webrtc, with a second stream that is watched as well
    Stream2,
    /// The project: the second stream is watched for a second every 7 s, and rests between
    Stream2Visits,
    /// The project: the second stream goes over a link that is too small for it
    Stream2Choked,
    /// For comparison: the second stream is another rov-server's, of a camera of its own
    TwoServers,
    /// The project: four cameras in one rov-server, each watched
    Cameras4,
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
        match self {
            Self::Local | Self::Udp | Self::RtspUdp | Self::RtspTcp | Self::UdpWindow => false,
            Self::Webrtcbin | Self::WebrtcbinBrowser => false,
            Self::Janus | Self::Janus8 | Self::Janus32 | Self::TwoServers => false,
            Self::Webrtc | Self::Webrtc8 | Self::Webrtc32 | Self::Rtp | Self::Rtsp | Self::Window | Self::Browser => {
                true
            }
            Self::Recorded => true,
            Self::Stream2Resting | Self::Stream2 | Self::Stream2Visits | Self::Stream2Choked | Self::Cameras4 => true,
        }
    }

    /// Whether it is measured there. Of a clip no picture is encoded or decoded, and each packet must be seen as it is
    /// sent: not within TCP.
    pub fn takes(self, point: PointName) -> bool {
        match self {
            Self::Webrtc => true,
            Self::Webrtc8 => matches!(point, PointName::P1080At30 | PointName::P1080File | PointName::P720File),
            Self::Webrtc32 | Self::Janus | Self::Janus8 | Self::Janus32 => point == PointName::P720File,
            Self::Stream2Resting | Self::Stream2 | Self::Stream2Visits | Self::Stream2Choked | Self::TwoServers => {
                point == PointName::P720Two
            }
            Self::Cameras4 => point == PointName::P360At30,
            Self::Recorded => point == PointName::P1080At30,
            _ if matches!(point, PointName::P720File | PointName::P720Two | PointName::P360At30) => false,
            Self::Local | Self::RtspTcp => !point.is_clip(),
            _ => !point.is_clip() || !self.needs_screen(),
        }
    }

    /// Of one stream.
    fn viewers(self) -> usize {
        match self {
            Self::Webrtc8 | Self::Janus8 => 8,
            Self::Webrtc32 | Self::Janus32 => 32,
            _ => 1,
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
    pub servers: Vec<Process>,
    /// What is needed besides, at nobody's cost.
    beside: Vec<Process>,
    /// So many clients, the first ones, are looked at.
    readers: usize,
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
            Subject::Janus | Subject::Janus8 | Subject::Janus32 => starter.janus(subject.viewers()),
            _ => starter.project(subject),
        }
    }

    /// All clients are looked at.
    fn of(server: Process, clients: Vec<Process>, site: &'a Site) -> Self {
        Self {
            readers: clients.len(),
            clients,
            servers: vec![server],
            beside: Vec::new(),
            client_started_us: None,
            idle_cpu_ms_per_s: None,
            api: None,
            report: None,
            site,
            _folder: None,
        }
    }

    /// Who gives the pictures that count: their lines are in its standard output.
    pub fn readers(&self) -> &[Process] {
        if self.clients.is_empty() { &self.servers } else { &self.clients[..self.readers] }
    }

    /// What each of the [`readers`](Self::readers) has written since the last call. What others write is forgotten.
    pub fn take_lines(&self) -> Vec<Vec<String>> {
        self.clients.iter().skip(self.readers).for_each(|client| drop(client.take_stdout()));
        self.readers().iter().map(Process::take_stdout).collect()
    }

    /// An error when one of its programs has ended.
    pub fn check(&mut self) -> Result<()> {
        let servers = self.servers.iter_mut().map(|server| (server, "the server"));
        let clients = self.clients.iter_mut().map(|client| (client, "a client"));
        let beside = self.beside.iter_mut().map(|process| (process, "what feeds the server"));
        servers.chain(clients).chain(beside).try_for_each(|(process, what)| check(process, what))
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
    match process.ended() {
        Some(status) => bail!("{what} ended ({status}): {}", process.stderr()),
        None => Ok(()),
    }
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

    /// Its streaming plugin gets the RTP of the plain sender.
    fn janus(&self, viewers: usize) -> Result<Running<'a>> {
        let site = self.scene.site;
        let (host, interface, whep) = (site.server(), site.interface(), free_port()?);
        let place = JanusPlace { host, interface, http_port: free_port()?, rtp_port: free_port()? };
        let folder = TempDir::new().context("a temporary folder")?;
        place.configure(folder.path())?;
        let mut command = Command::new(program("janus")?);
        command
            .args(["--disable-colors", "--disable-stdout", "--log-file", "/dev/stderr", "--configs-folder"])
            .arg(folder.path());
        site.place_server(&mut command);
        let mut server = Process::spawn("janus", &mut command);
        self.wait_for_reply(&mut server, "janus", &format!("{}/info", place.api()))?;
        let feeder = self.server(Part::UdpSender, place.rtp_port)?;
        let mut command = self.programs.part(Part::JanusWhep, &self.scene, whep);
        command.args(["--api", &place.api()]);
        site.place_server(&mut command);
        let whep_server = until_ready(Process::spawn("WHEP for janus", &mut command), Part::JanusWhep)?;
        let url = format!("http://{host}:{whep}/whep");
        let started = clock::now_us();
        let client = |_| self.spawn_client(&mut self.rov_client(&["--url", &url], UNITS));
        let clients = (0..viewers).map(client).collect();
        Ok(Running {
            client_started_us: Some(started),
            beside: vec![feeder, whep_server],
            _folder: Some(folder),
            ..Running::of(server, clients, site)
        })
    }

    fn project(&self, subject: Subject) -> Result<Running<'a>> {
        let (site, point) = (self.scene.site, self.scene.point);
        let folder = TempDir::new().context("a temporary folder")?;
        let server = self.rov_server(point, &self.server_args(subject, folder.path())?)?;
        let RovServer { api, rtsp_port, rtp_port, discovery, .. } = &server;
        let (api, discovery) = (api.as_str(), discovery.as_str());
        let has_encoder = self.scene.clip.is_none();
        let idle_cpu_ms_per_s =
            (subject == Subject::Webrtc && has_encoder).then(|| self.idle(&server.process, api)).transpose()?;
        let report = folder.path().join("client.json");
        let url = format!("{api}{WHEP_PATH}");
        // As the pilot starts it: it finds the server by itself. Nothing is found by an interface's own loopback.
        let found = match site {
            Site::Interface(_) => vec!["--url", &url],
            _ => vec!["--auto", "--discovery-port", discovery, "--interface", site.interface()],
        };
        let mut command = match subject {
            Subject::Rtp => self.programs.part(Part::UdpReceiver, &self.scene, *rtp_port),
            Subject::Rtsp => self.programs.part(Part::RtspReceiver, &self.scene, *rtsp_port),
            Subject::Window => {
                let size = (point.width.to_string(), point.height.to_string());
                let mut command = self.programs.command("rov-client");
                command.args(&found).args(["--decoder", DECODER]);
                // The frame of late pictures would lie over their mark.
                command.args(["--max-age", "0"]);
                command.args(["--width", &size.0, "--height", &size.1]).arg("--stats-json").arg(&report);
                command
            }
            Subject::Browser => browser::command(&format!("{api}/"), point, folder.path())?,
            _ => self.rov_client(&found, if has_encoder { DECODER } else { UNITS }),
        };
        let started = clock::now_us();
        let mut clients = vec![self.spawn_client(&mut command)];
        // Eight decoders would be most of what is measured.
        let more = (1..subject.viewers()).map(|_| self.spawn_client(&mut self.rov_client(&found, UNITS)));
        clients.extend(more);
        if subject == Subject::Cameras4 {
            let camera = |name| format!("{url}/{name}/stream1");
            let watch = |name| self.spawn_client(&mut self.rov_client(&["--url", &camera(name)], DECODER));
            clients.extend(CAMERAS[1..].iter().map(watch));
        }
        let readers = if has_encoder && subject != Subject::Cameras4 { 1 } else { clients.len() };
        let mut running = Running {
            readers,
            client_started_us: Some(started),
            idle_cpu_ms_per_s,
            api: Some(api.to_owned()),
            report: (subject == Subject::Window).then_some(report),
            ..Running::of(server.process, clients, site)
        };
        running._folder = Some(folder);
        self.second_stream(subject, url, &mut running)?;
        Ok(running)
    }

    /// Adds who watches the second stream, if somebody is to: once the first stream has its viewer, the pilot.
    fn second_stream(&self, subject: Subject, url: String, running: &mut Running) -> Result<()> {
        let url = match subject {
            Subject::Stream2Resting => {
                return wait_for("the second stream rests", START, || {
                    running.check()?;
                    let stats = running.server_stats();
                    Ok(stats.filter(|stats| stats.streams.iter().any(|stream| stream.resting)).map(drop))
                });
            }
            Subject::Stream2 | Subject::Stream2Visits | Subject::Stream2Choked => format!("{url}/stream2"),
            Subject::TwoServers => {
                let second = self.rov_server(&Point::SMALL, &[])?;
                running.servers.push(second.process);
                format!("{}{WHEP_PATH}", second.api)
            }
            _ => return Ok(()),
        };
        wait_for("the first stream has a viewer", START, || {
            running.check()?;
            Ok(running.server_stats().filter(|stats| !stats.viewers.is_empty()))
        })?;
        let mut command = self.programs.part(Part::RovClient, &self.scene, 0);
        if subject == Subject::Stream2Visits {
            command.arg("--visits");
        }
        command.args(["--", "--url", &url, "--decoder", UNITS]);
        match subject {
            Subject::Stream2Choked => self.scene.site.place_at_far_end(&mut command),
            _ => self.scene.site.place_client(&mut command),
        }
        let mut viewer = Process::spawn("the viewer of the second stream", &mut command);
        wait_for("the second stream's first picture", START, || {
            check(&mut viewer, "its viewer")?;
            Ok((!viewer.take_stdout().is_empty()).then_some(()))
        })
        .with_context(|| viewer.stderr())?;
        running.clients.push(viewer);
        Ok(())
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

    /// What a subject wants of rov-server besides the picture of the point.
    fn server_args(&self, subject: Subject, folder: &Path) -> Result<Vec<String>> {
        let Point { width, height, fps, kbps } = Point::SMALL;
        let args = match subject {
            Subject::Rtp => ["--transport", "webrtc,rtp"].map(str::to_owned),
            Subject::Rtsp => ["--transport", "webrtc,rtsp"].map(str::to_owned),
            Subject::Webrtc32 => ["--max-viewers", "32"].map(str::to_owned),
            Subject::Recorded => ["--record".to_owned(), folder.display().to_string()],
            Subject::Stream2Resting | Subject::Stream2 | Subject::Stream2Visits | Subject::Stream2Choked => {
                ["--stream2".to_owned(), format!("{width}x{height}@{fps},{kbps}")]
            }
            Subject::Cameras4 => {
                // The first is that of the command line.
                let camera = |name| {
                    format!(
                        "[[camera]]\nname = '{name}'\npipeline = '{}'\n[[camera.stream]]\nencoder = '{ENCODER}'\n\
                         width = {width}\nheight = {height}\nfps = {fps}\nbitrate = {kbps}\n",
                        source(self.scene.point)
                    )
                };
                let file = folder.join("cameras.toml");
                std::fs::write(&file, CAMERAS.map(camera).concat()).with_context(|| file.display().to_string())?;
                ["--config".to_owned(), file.display().to_string()]
            }
            _ => return Ok(Vec::new()),
        };
        Ok(args.to_vec())
    }

    /// rov-server as it is, with the common source and encoder, which may make smaller pictures of it; it gives
    /// pictures already.
    fn rov_server(&self, point: &Point, args: &[String]) -> Result<RovServer> {
        let [http_port, rtsp_port, rtp_port, discovery] = [free_port()?, free_port()?, free_port()?, free_port()?];
        let site = self.scene.site;
        let api = format!("http://{}:{http_port}", site.server());
        let mut command = self.programs.rov_server();
        match self.scene.clip {
            Some(clip) => command.args(["--source", "file", "--file-passthrough", "--file"]).arg(clip),
            None => {
                let Point { width, height, fps, kbps } = point;
                command.args(["--pipeline", &source(self.scene.point), "--encoder", ENCODER]);
                command.args(["--width", &width.to_string(), "--height", &height.to_string()]);
                command.args(["--fps", &fps.to_string(), "--bitrate", &kbps.to_string()])
            }
        };
        if !args.iter().any(|arg| arg == "--transport") {
            command.args(["--transport", "webrtc"]);
        }
        command.args(args).args(["--discovery-port", &discovery.to_string()]);
        command.args(["--host", site.server(), "--interface", site.interface()]);
        command.args(["--signal-port", &http_port.to_string(), "--rtsp-port", &rtsp_port.to_string()]);
        command.args(["--rtp-host", site.client(), "--rtp-port", &rtp_port.to_string()]);
        site.place_server(&mut command);
        let mut process = Process::spawn("rov-server", &mut command);
        self.wait_for_reply(&mut process, "rov-server", &format!("{api}/healthz"))?;
        Ok(RovServer { process, api, rtsp_port, rtp_port, discovery: discovery.to_string() })
    }

    /// Until the server answers there with 200.
    fn wait_for_reply(&self, server: &mut Process, name: &str, url: &str) -> Result<()> {
        wait_for(&format!("{name} gives pictures"), START, || {
            check(server, name)?;
            let reply = self.scene.site.at_server(|| http::try_request("GET", url, None, b""))?;
            Ok(reply.is_ok_and(|reply| reply.status == 200).then_some(()))
        })
        .with_context(|| server.stderr())
    }
}

struct RovServer {
    process: Process,
    /// Address of its HTTP API.
    api: String,
    rtsp_port: u16,
    rtp_port: u16,
    discovery: String,
}

fn source(point: &Point) -> String {
    let Point { width, height, fps, .. } = point;
    format!("rovbenchsrc ! video/x-raw,format=I420,width={width},height={height},framerate={fps}/1")
}

fn until_ready(mut process: Process, part: Part) -> Result<Process> {
    let name = part.name();
    wait_for(&format!("{name} is ready"), START, || {
        check(&mut process, &name)?;
        Ok(process.stderr().lines().any(|line| line == READY).then_some(()))
    })?;
    Ok(process)
}
