//! The command line of `rov-client`, and what it means.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::{ArgGroup, Parser, Subcommand, ValueEnum};
use rov_common::api::WHEP_PATH;
use rov_common::camera::{Trust, parse_url};
use rov_common::codec::Codec;
use rov_common::discovery::{DEFAULT_PORT, key_of};
use rov_common::latency_mode::LatencyMode;
use rov_common::recording::{Bytes, Measure, SPARE, Split};
use rov_common::units::{Resolution, address, whole, within};
use rov_gst::decoders::DecoderChoice;
use url::Url;

use crate::align::Wish;
use crate::display::DisplayChoice;
use crate::find::STATS_PATH;
use crate::login::Login;
use crate::receive::Transport;
use crate::receive::rtp::{self, Source};
use crate::receive::rtsp::{Camera, Credentials};
use crate::recording;
use crate::streams::{GridOf, Wanted};
use crate::target::{RtpHost, SessionConfig, Target};
use crate::whep::{self, Http, NO_CERTIFICATE, Pins};

/// The groups of `--help`.
const SERVER: &str = "Server";
const TRANSPORT: &str = "Transport";
const DISCOVERY: &str = "Discovery";
const PICTURE: &str = "Picture";
const RECORDING: &str = "Recording";
const RUNNING: &str = "Running";
const LOGGING: &str = "Logging";

/// See through the camera of an underwater robot.
///
/// Without options, finds a rov-server on the network by itself and shows its picture. Keys: Q or ESC close, F or
/// a double click fullscreen, 1 to 9 and Tab choose among the server's streams, G shows all cameras, A aligns them,
/// R records, S saves the picture and C the last seconds, E notes an event, I information, ? or F1 or a right click all
/// of them.
#[derive(Clone, Debug, Parser)]
#[command(name = "rov-client", version, max_term_width = 100, after_help = EXIT_CODES)]
#[command(group(ArgGroup::new("server").args(["address", "host"])))]
#[command(args_conflicts_with_subcommands = true, disable_help_subcommand = true)]
pub struct Cli {
    #[command(subcommand)]
    pub task: Option<Task>,

    /// The server, as --list prints it, instead of finding it: ADDRESS, ADDRESS:PORT with the port of its HTTP API, or
    /// a URL as for --url; `auto` finds it
    #[arg(value_name = "ADDRESS[:PORT]|URL", conflicts_with_all = ["auto", "url"])]
    pub address: Option<String>,

    /// Find the server by itself, as is also the default; with this, when it is silent and one single other server
    /// appears elsewhere, that one is taken after 10 s
    #[arg(help_heading = SERVER, long, conflicts_with_all = ["host", "url"])]
    pub auto: bool,

    /// The same as an option: address or name of the server, with the port of its HTTP API where that is another
    #[arg(help_heading = SERVER, long, value_name = "ADDRESS[:PORT]", conflicts_with = "url")]
    pub host: Option<String>,

    /// How the video comes; `auto`: the first of WebRTC, RTP and RTSP that the server has and that works
    #[arg(help_heading = TRANSPORT, long = "transport", value_name = "TRANSPORT", value_enum, default_value = "auto")]
    pub transport: TransportChoice,

    /// TCP port of the server's HTTP API, with an address that has none [default: 8080]
    #[arg(
        help_heading = SERVER, long, value_name = "PORT", requires = "server",
        value_parser = within::<u16>(1, 65_535)
    )]
    pub signal_port: Option<u16>,

    /// TCP port of the server's RTSP, with an address and --transport rtsp
    #[arg(
        help_heading = SERVER, long, value_name = "PORT", default_value_t = 8554, requires = "server",
        value_parser = within::<u16>(1, 65_535)
    )]
    pub rtsp_port: u16,

    /// Listen for RTP without discovery: the multicast group, or this machine's own address if the sender sends to
    /// that; with --host only what comes from there [default: 239.255.0.1]
    #[arg(
        help_heading = TRANSPORT, long, value_name = "ADDRESS", conflicts_with_all = ["auto", "url", "name", "list"],
        value_parser = address::<Ipv4Addr>
    )]
    pub rtp_host: Option<Ipv4Addr>,

    /// UDP port to listen at for RTP, without discovery; RTCP comes at the port above, repair packets at the second
    /// above [default: 5004]
    #[arg(
        help_heading = TRANSPORT, long, value_name = "PORT", conflicts_with_all = ["auto", "url", "name", "list"],
        value_parser = within::<u16>(1, u64::from(rtp::HIGHEST_PORT))
    )]
    pub rtp_port: Option<u16>,

    /// Codec of RTP that is listened for without discovery; all else says it by itself
    #[arg(
        help_heading = TRANSPORT, long, value_name = "h264|h265|mjpeg", default_value_t = Codec::H264,
        conflicts_with_all = ["auto", "url", "name", "list"]
    )]
    pub codec: Codec,

    /// URL of any WHEP endpoint, as http://10.0.0.2:8080/whep, or of any RTSP camera, as rtsp://10.0.0.3/stream1 or
    /// rtsp://USER:PASSWORD@10.0.0.3/stream1
    #[arg(help_heading = SERVER, long, value_name = "URL")]
    pub url: Option<String>,

    /// User name, with --password: for a rov-server or a camera that asks for one, however it is found. What stands in
    /// --url goes before it [default: none]
    #[arg(help_heading = SERVER, long, value_name = "NAME")]
    pub user: Option<String>,

    /// Password of --user. Others on this machine see it in the list of processes, as they see that of a
    /// --url: better set the environment variable [default: none]
    #[arg(help_heading = SERVER, long, value_name = "PASSWORD", env = "ROV_PASSWORD", hide_env_values = true)]
    pub password: Option<String>,

    /// Token instead of --user and --password, as `rov-server token` makes it. Others on this machine see it in the
    /// list of processes: better set the environment variable [default: none]
    #[arg(help_heading = SERVER, long, value_name = "TOKEN", env = "ROV_TOKEN", hide_env_values = true)]
    pub token: Option<String>,

    /// Take this certificate of a rov-server with --tls from now on, by its SHA-256 fingerprint, although it showed
    /// another one before; none: it has no HTTPS any more [default: what it shows first is kept]
    #[arg(help_heading = SERVER, long, value_name = "SHA256", value_parser = fingerprint)]
    pub server_certificate: Option<String>,

    /// Which certificate of an rtsps:// camera is taken: one that the system trusts, that of this SHA-256 fingerprint
    /// too, or any
    #[arg(help_heading = SERVER, long, value_name = "system|any|SHA256", default_value_t)]
    pub camera_certificate: Trust,

    /// Take the server of this name, when several are found
    #[arg(help_heading = SERVER, long, value_name = "NAME", conflicts_with = "url")]
    pub name: Option<String>,

    /// Watch this stream instead of the first: NAME, or CAMERA/NAME, as --list prints it
    #[arg(
        help_heading = SERVER, long, value_name = "[CAMERA/]NAME",
        conflicts_with_all = ["url", "list", "rtp_host", "rtp_port"], value_parser = stream_name
    )]
    pub stream: Option<String>,

    /// Watch this camera instead of the first: its first stream, or the one that --stream names
    #[arg(
        help_heading = SERVER, long, value_name = "NAME",
        conflicts_with_all = ["url", "list", "rtp_host", "rtp_port"], value_parser = camera_name
    )]
    pub camera: Option<String>,

    /// Print each server with its streams as it is found, those of other cameras than the first as CAMERA/NAME; ends
    /// half a second after the last new one
    #[arg(help_heading = SERVER, long, conflicts_with = "url")]
    pub list: bool,

    /// With --list: print JSON, one array of the announcements with their addresses
    #[arg(help_heading = SERVER, long, requires = "list")]
    pub json: bool,

    /// UDP port of discovery
    #[arg(
        help_heading = DISCOVERY, long, value_parser = whole::<u16>, value_name = "PORT",
        default_value_t = DEFAULT_PORT
    )]
    pub discovery_port: u16,

    /// Seconds to look for a server before saying that there is none (it looks on, unless --no-wait)
    #[arg(help_heading = DISCOVERY, long, value_name = "SECONDS", default_value = "3", value_parser = seconds)]
    pub discovery_timeout: Duration,

    /// Network interface to look on, to connect by and to receive multicast on, as eth1; may be given several times
    /// [default: every suitable one]
    #[arg(help_heading = TRANSPORT, long = "interface", value_name = "NAME")]
    pub interfaces: Vec<String>,

    /// End with exit code 3 when no server is found, or the given one does not answer, instead of trying on; once there
    /// was a picture, a server that is lost is looked for without end
    #[arg(help_heading = SERVER, long)]
    pub no_wait: bool,

    /// GStreamer element that decodes, or `auto`: hardware first, then software
    #[arg(
        help_heading = PICTURE, long, value_name = "auto|ELEMENT", default_value = "auto",
        value_parser = str::parse::<DecoderChoice>
    )]
    pub decoder: DecoderChoice,

    /// Longest wait for a missing packet, in milliseconds: for its retransmission, by RTP for its repair, by RTSP
    /// for one that others overtook; packets that come in order never wait [default: 100, by RTSP 20]
    #[arg(help_heading = TRANSPORT, long, value_name = "MS", value_parser = within::<u64>(0, 5_000))]
    pub latency: Option<u64>,

    /// The same in words: low 100 ms, normal 500, high 2000. The more, the less loss is seen on a bad link, and the
    /// older the picture may be
    #[arg(help_heading = TRANSPORT, long, value_name = "low|normal|high", conflicts_with = "latency")]
    pub latency_mode: Option<LatencyMode>,

    /// Warn when pictures come and are older than this on the screen, in milliseconds: a border, and their age in large
    /// digits; 0: never. Where --latency is longer than 100 ms, the default is by so much more; so it is by
    /// --align-latency
    /// [default: 300]
    #[arg(help_heading = PICTURE, long, value_name = "MS", value_parser = within::<u64>(0, 60_000))]
    pub max_age: Option<u64>,

    /// Start in fullscreen
    #[arg(help_heading = PICTURE, long)]
    pub fullscreen: bool,

    /// Start with all cameras of the server in a grid, each by the smallest of its streams; `streams`: with each stream
    #[arg(
        help_heading = PICTURE, long, value_name = "cameras|streams", num_args = 0..=1, require_equals = true,
        default_missing_value = "cameras", value_enum, conflicts_with = "list"
    )]
    pub grid: Option<GridOf>,

    /// In the grid, show pictures that were captured together at one time: those of quicker cameras wait. The key A
    /// changes it [default: as the server's `alignment` says, else off]
    #[arg(
        help_heading = PICTURE, long, value_name = "on|off", num_args = 0..=1, require_equals = true,
        default_missing_value = "on", value_enum
    )]
    pub align: Option<Switch>,

    /// Longest wait for a picture of another camera with --align, in milliseconds; a camera that is later than that is
    /// not waited for [default: as the server says, else 100]
    #[arg(help_heading = PICTURE, long, value_name = "MS", value_parser = within::<u64>(1, 500))]
    pub align_latency: Option<u64>,

    /// How far apart pictures may be captured that belong together with --align, in milliseconds [default: as
    /// the server says, else 33]
    #[arg(help_heading = PICTURE, long, value_name = "MS", value_parser = within::<u64>(1, 500))]
    pub align_tolerance: Option<u64>,

    /// Width of the window in pixels
    #[arg(
        help_heading = PICTURE, long, value_name = "PIXELS", default_value_t = 1280,
        value_parser = within::<u32>(160, 16_384)
    )]
    pub width: u32,

    /// Height of the window in pixels
    #[arg(
        help_heading = PICTURE, long, value_name = "PIXELS", default_value_t = 720,
        value_parser = within::<u32>(90, 16_384)
    )]
    pub height: u32,

    /// What draws into the window: `gst`, the best GStreamer sink that works here, or one by its name; `minifb`, which
    /// draws everywhere; `auto`: under X11 a sink, elsewhere minifb
    #[arg(
        help_heading = PICTURE, long, value_name = "auto|minifb|gst|SINK", default_value_t,
        value_parser = str::parse::<DisplayChoice>
    )]
    pub display: DisplayChoice,

    /// Without the line in the corner: the vehicle's name, whether it is live, delay, transport
    #[arg(help_heading = PICTURE, long)]
    pub no_badge: bool,

    /// Folder for snapshots (key S): JPEG in full size, with the time of capture; for clips of the last seconds (key
    /// C), and for events (key E), of which `rov-client report DIR` makes a page; made where it is not there
    #[arg(help_heading = PICTURE, long, value_name = "DIR", default_value = ".")]
    pub save_dir: PathBuf,

    /// No window: receive and decode only, and print a line of figures each second
    #[arg(help_heading = RUNNING, long)]
    pub headless: bool,

    /// End after so many seconds [default: never]
    #[arg(help_heading = RUNNING, long, value_name = "SECONDS", value_parser = seconds)]
    pub duration: Option<Duration>,

    /// Write what was received, decoded and shown into this file as JSON, each second and at the end
    #[arg(help_heading = RUNNING, long, value_name = "FILE")]
    pub stats_json: Option<PathBuf>,

    /// Record what is received into this folder, as it comes, from the start, and fetch later what did not get here,
    /// out of the vehicle's --ring; the key R ends it and begins again, also without this option [default: off, and
    /// Videos/ROV in the home folder for the key R]
    #[arg(help_heading = RECORDING, long, value_name = "FOLDER", conflicts_with = "list")]
    pub record: Option<PathBuf>,

    /// A new file after this time or size, from 5s to 2h or from 1MB to 4GB, at the next keyframe; no picture is lost
    /// between two files [default: 10min]
    #[arg(help_heading = RECORDING, long, value_name = "TIME|SIZE", conflicts_with = "list")]
    pub record_split: Option<Measure>,

    /// Delete the oldest recordings in the folder beyond this, as 50GB or 7d [default: none]
    #[arg(help_heading = RECORDING, long, value_name = "TIME|SIZE", conflicts_with = "list")]
    pub record_keep: Option<Measure>,

    /// What stays free on the disk; recording pauses before, and goes on by itself when there is room [default: 2GB]
    #[arg(help_heading = RECORDING, long, value_name = "SIZE", conflicts_with = "list")]
    pub record_free: Option<Bytes>,

    /// STUN server for viewers behind a NAT [default: off; without a URL: stun:stun.l.google.com:19302]
    #[arg(
        help_heading = TRANSPORT, long, value_name = "URL", num_args = 0..=1,
        default_missing_value = "stun:stun.l.google.com:19302", value_parser = stun
    )]
    pub stun: Option<String>,

    /// Say more; twice for everything
    #[arg(help_heading = LOGGING, short, long, action = clap::ArgAction::Count)]
    pub verbose: u8,

    /// Say only what is wrong
    #[arg(help_heading = LOGGING, short, long, conflicts_with = "verbose")]
    pub quiet: bool,

    /// Write the log into this file as well; when it is full it becomes FILE.1, and that FILE.2 and so on; five files
    /// are kept
    #[arg(help_heading = LOGGING, long, value_name = "FILE")]
    pub log_file: Option<PathBuf>,

    /// Size of each file of --log-file in MiB [default: 10]
    #[arg(help_heading = LOGGING, long, value_name = "MIB", value_parser = within::<u16>(1, 65_535))]
    pub log_file_size: Option<u16>,
}

/// What else this program does.
#[derive(Clone, Debug, Subcommand)]
pub enum Task {
    /// Make one page of the events (key E) in a folder of --save-dir: report.html, which needs no network
    Report {
        /// The folder of the dive
        #[arg(value_name = "DIR")]
        folder: PathBuf,
    },
}

/// Pictures of a vehicle are 30 to 150 ms old on a good link, with what is sent again after a loss; over 300 ms a pilot
/// steers by what was.
const MAX_AGE: Duration = Duration::from_millis(300);
/// Where rov-server serves HTTP and RTSP unless it is told otherwise.
const HTTP_PORT: u16 = 8080;
const RTSP_PATH: &str = "/stream1";

const EXIT_CODES: &str = "Exit codes:\n  \
    0  closed by the user, or --duration is over\n  \
    1  an error that is none of the others\n  \
    2  wrong usage: an option, a --decoder that does not work, several servers, no --name and no window, or a camera \
        that wants\n     another password or has no H.264, H.265 or MJPEG video\n  \
    3  no server found, or the given one does not answer (with --no-wait or --list)";

impl Cli {
    pub fn session(&self) -> Result<SessionConfig, String> {
        let target = self.target()?;
        Ok(SessionConfig {
            http: Http {
                interfaces: self.interfaces.clone(),
                login: self.login(&target)?,
                pins: Pins::load(Pins::default_file(), self.server_certificate.clone()),
                asked: Arc::default(),
            },
            stream: match &target {
                // Its URL names the stream.
                Target::Camera(_, None) => None,
                Target::Auto { .. } | Target::Url(_) | Target::Rtp { .. } | Target::Camera(..) => self.wanted()?,
            },
            target,
            transport: self.transport.chosen(),
            discovery_port: self.discovery_port,
            discovery_timeout: self.discovery_timeout,
            can_ask: !self.headless,
            wait: !self.no_wait,
            decoder: self.decoder.clone(),
            latency: self.latency(),
            max_age: self.max_age(),
            stun: self.stun.clone(),
            camera_certificate: self.camera_certificate.clone(),
        })
    }

    /// Where recordings go, and how; none: there is no folder for them.
    ///
    /// # Errors
    /// Says which option is wrong.
    pub fn recording(&self) -> Result<Option<recording::Options>, String> {
        if self.record.as_ref().is_some_and(|folder| folder.as_os_str().is_empty()) {
            return Err("--record \"\": give a folder, as /media/dives".to_owned());
        }
        let split = self.record_split.map_or(Ok(Split::default()), Split::at);
        let split = split.map_err(|reason| format!("--record-split: {reason}"))?;
        let folder = self.record.clone().or_else(recording::default_folder);
        Ok(folder.map(|folder| recording::Options {
            folder,
            is_on: self.record.is_some(),
            split,
            keep: self.record_keep,
            spare: self.record_free.unwrap_or(SPARE).0,
        }))
    }

    /// How the tiles of the grid are to be aligned.
    pub fn alignment(&self) -> Wish {
        Wish {
            aligned: self.align.map(|align| align == Switch::On),
            max_latency: self.align_latency.map(Duration::from_millis),
            tolerance: self.align_tolerance.map(Duration::from_millis),
        }
    }

    fn latency(&self) -> Option<Duration> {
        self.latency.map(Duration::from_millis).or(self.latency_mode.map(LatencyMode::longest_wait))
    }

    /// From which age on pictures are warned of. What the pilot lets the client wait for is no reason to warn.
    fn max_age(&self) -> Option<Duration> {
        let jitter = self.latency().unwrap_or_default().saturating_sub(LatencyMode::Low.longest_wait());
        let aligned =
            Some(self.alignment()).filter(|wish| wish.aligned != Some(false)).and_then(|wish| wish.max_latency);
        let more = jitter + aligned.unwrap_or_default();
        let limit = self.max_age.map_or(MAX_AGE + more, Duration::from_millis);
        (!limit.is_zero()).then_some(limit)
    }

    pub fn window_size(&self) -> Resolution {
        Resolution::new(self.width, self.height)
    }

    /// The stream that is named beside the server.
    fn wanted(&self) -> Result<Option<Wanted>, String> {
        let (camera, stream) = (self.camera.clone(), self.stream.clone());
        match (&camera, &stream) {
            (None, None) => Ok(None),
            (Some(camera), Some(stream)) if stream.contains('/') => {
                Err(format!("--stream {stream} names its camera: leave out --camera {camera}"))
            }
            _ => Ok(Some(Wanted { camera, stream })),
        }
    }

    fn login(&self, target: &Target) -> Result<Option<Login>, String> {
        // A variable that is set to nothing is none.
        let token = self.token.as_deref().filter(|token| !token.is_empty());
        if matches!(target, Target::Rtp { .. }) {
            // The variables may be there for others.
            return match self.user {
                Some(_) => Err("--user: by RTP nobody asks for a password: leave it out".to_owned()),
                None => Ok(None),
            };
        }
        let password = self.password.as_deref().filter(|password| self.user.is_some() || !password.is_empty());
        let has_rtsp = self.transport.chosen().is_none_or(|transport| transport == Transport::Rtsp);
        match (&self.user, password, token) {
            (Some(user), _, Some(_)) => {
                let name = user.split(':').next().unwrap_or_default();
                Err(format!("--user {name}: leave it out, or --token (and the variable ROV_TOKEN)"))
            }
            (None, _, Some(token)) => Ok(Some(Login::Token(token.to_owned()))),
            (Some(user), Some(password), None) => {
                let credentials = Credentials { user: user.clone(), password: password.to_owned() };
                Ok(Some(Login::Password(credentials)))
            }
            (Some(user), None, None) => {
                // Behind it stands a password, as curl takes it.
                let name = user.split(':').next().unwrap_or_default();
                Err(format!("--user {name}: needs --password, or the variable ROV_PASSWORD"))
            }
            // The variable may be there for a server.
            (None, Some(_), None) if has_rtsp => {
                Err("--password (or the variable ROV_PASSWORD): needs --user".to_owned())
            }
            (None, _, None) => Ok(None),
        }
    }

    fn target(&self) -> Result<Target, String> {
        let (option, server) = match (&self.address, &self.host, &self.url) {
            (_, _, Some(url)) => ("--url", Some(url.as_str())),
            (Some(address), ..) => ("the address", Some(address.as_str())),
            (_, host, _) => ("--host", host.as_deref()),
        };
        if self.list && server.is_some_and(|server| server != "auto") {
            return Err(format!("--list finds servers, it cannot be used with {option}: leave one of them out"));
        }
        let of_page = server.and_then(server_of_page);
        let server = of_page.as_deref().or(server);
        if let Some(url) = server.filter(|server| option == "--url" && of_page.is_none() || server.contains("://")) {
            return self.url_target(option, url);
        }
        let host = match server.filter(|server| *server != "auto") {
            Some(server) => Some(self.host(option, server)?),
            None => None,
        };
        if self.rtp_host.is_some() || self.rtp_port.is_some() {
            if !self.fits(Transport::Rtp) {
                let transport = self.transport.name();
                return Err(format!(
                    "--rtp-host and --rtp-port are for RTP: leave them out, or --transport {transport}"
                ));
            }
            return Ok(self.rtp(host));
        }
        let Some((host, port)) = host else {
            return Ok(Target::Auto { name: self.name.clone(), any: self.auto || server.is_some() });
        };
        if self.name.is_some() {
            return Err(format!("--name is for servers that are found: leave it out, {option} says which one"));
        }
        let parse = |url: String| Url::parse(&url).map_err(|error| format!("{option} {host}: {error}"));
        match self.transport.chosen() {
            None | Some(Transport::WebRtc) => parse(format!("http://{host}:{port}{WHEP_PATH}")).map(Target::Url),
            Some(Transport::Rtp) => Ok(self.rtp(Some((host, port)))),
            Some(Transport::Rtsp) => {
                let url = parse(format!("rtsp://{host}:{}{RTSP_PATH}", self.rtsp_port))?;
                let stats = parse(format!("http://{host}:{port}{STATS_PATH}"))?;
                Ok(Target::Camera(Camera::from(url), Some(stats)))
            }
        }
    }

    fn fits(&self, only: Transport) -> bool {
        self.transport.chosen().is_none_or(|transport| transport == only)
    }

    /// Host, and port of its HTTP API. What does not parse is not repeated: it may have a password in it.
    fn host(&self, option: &str, server: &str) -> Result<(String, u16), String> {
        let form = format!("{option}: give ADDRESS or ADDRESS:PORT, as 10.0.0.2:8080, or a URL");
        if server.parse::<Ipv6Addr>().is_ok() || server.starts_with('[') {
            return Err(format!("{option} {server}: only names and IPv4 addresses can be reached"));
        }
        let (host, port) = match server.split_once(':') {
            None => (server, None),
            Some((host, port)) => (host, Some(port.parse().ok().filter(|port| *port > 0).ok_or_else(|| form.clone())?)),
        };
        let is_plain = |letter: char| letter.is_alphanumeric() || "-._".contains(letter);
        if host.is_empty() || !host.chars().all(is_plain) {
            return Err(form);
        }
        match (port, self.signal_port) {
            (Some(port), Some(other)) if port != other => {
                Err(format!("{option} {host}:{port}: --signal-port {other} is another port: give one of them"))
            }
            (port, other) => Ok((host.to_owned(), port.or(other).unwrap_or(HTTP_PORT))),
        }
    }

    fn url_target(&self, option: &str, text: &str) -> Result<Target, String> {
        // What does not parse is not repeated: it may have a password in it.
        let url = parse_url(text).map_err(|error| {
            format!(
                "{option}: give a WHEP URL, http://..., or an RTSP URL, as rtsp://USER:PASSWORD@10.0.0.3/stream1 \
                     ({error})"
            )
        })?;
        if self.name.is_some() {
            return Err(format!("--name is for servers that are found: leave it out, {option} says which one"));
        }
        if self.stream.is_some() || self.camera.is_some() {
            return Err(format!("--stream and --camera: leave them out, the URL of {option} says which stream"));
        }
        // Without what may be a password in it.
        let named = format!("{option} {}://{}", url.scheme(), url.host_str().unwrap_or_default());
        let transport = self.transport.name();
        match url.scheme() {
            "http" | "https" if self.fits(Transport::WebRtc) => Ok(Target::Url(endpoint(url))),
            "rtsp" | "rtsps" if url.host_str().unwrap_or_default().is_empty() => {
                Err(format!("{named}: the host is missing"))
            }
            "rtsp" | "rtsps" if self.fits(Transport::Rtsp) => Ok(Target::Camera(Camera::from(url), None)),
            "http" | "https" => Err(format!("{named} is WebRTC: leave out --transport {transport}")),
            "rtsp" | "rtsps" => Err(format!("{named} is RTSP: leave out --transport {transport}")),
            _ => Err(format!("{named}: give a WHEP URL, http://..., or an RTSP URL, rtsp://...")),
        }
    }

    fn rtp(&self, from: Option<(String, u16)>) -> Target {
        let source = Source {
            host: self.rtp_host.unwrap_or(rtp::DEFAULT_HOST),
            port: self.rtp_port.unwrap_or(rtp::DEFAULT_PORT),
            from: None,
            ssrc: None,
            // One of its own is none of the dynamic range.
            payload_type: Some(self.codec.payload_type()).filter(|_| self.codec == Codec::Mjpeg),
            codec: self.codec,
            fec: false,
        };
        // What the user said goes before what the server says.
        let ask = self.rtp_host.is_none() && self.rtp_port.is_none();
        let host = |(name, port): (String, u16)| {
            let stats = Url::parse(&format!("http://{name}:{port}{STATS_PATH}")).ok();
            RtpHost { name, stats: stats.filter(|_| ask) }
        };
        Target::Rtp { source, host: from.map(host) }
    }
}

/// Of `--align`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Switch {
    On,
    Off,
}

/// `--transport`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TransportChoice {
    Auto,
    Webrtc,
    Rtp,
    Rtsp,
}

impl TransportChoice {
    fn chosen(self) -> Option<Transport> {
        match self {
            Self::Auto => None,
            Self::Webrtc => Some(Transport::WebRtc),
            Self::Rtp => Some(Transport::Rtp),
            Self::Rtsp => Some(Transport::Rtsp),
        }
    }

    fn name(self) -> &'static str {
        self.chosen().map_or("auto", Transport::name)
    }
}

fn fingerprint(text: &str) -> Result<String, String> {
    let none = (text == NO_CERTIFICATE).then(|| text.to_owned());
    let advice = || format!("give the 64 hexadecimal digits of a SHA-256 fingerprint, or {NO_CERTIFICATE}");
    none.or_else(|| key_of(text)).ok_or_else(advice)
}

/// `ADDRESS:PORT` of a server whose page was given as browsers show it, `http://ADDRESS:PORT/`.
fn server_of_page(text: &str) -> Option<String> {
    let url = parse_url(text).ok().filter(|url| url.scheme() == "http" && url.path() == "/")?;
    let is_plain = url.query().is_none() && url.fragment().is_none() && whep::without_user(&url) == url;
    is_plain.then(|| Some(format!("{}:{}", url.host_str()?, url.port_or_known_default()?)))?
}

/// The WHEP endpoint of a server whose page was given, which may name a stream.
fn endpoint(mut url: Url) -> Url {
    if url.path() == "/" {
        url.set_path(WHEP_PATH);
    }
    url
}

fn stun(url: &str) -> Result<String, String> {
    match url.strip_prefix("stun:") {
        Some(server) if !server.is_empty() => Ok(url.to_owned()),
        _ => Err("give a URL of the form stun:HOST[:PORT]".to_owned()),
    }
}

/// Whatever is no name would be another path.
fn camera_name(text: &str) -> Result<String, String> {
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "-_".contains(letter);
    match !text.is_empty() && text.chars().all(is_plain) {
        true => Ok(text.to_owned()),
        false => Err("give a name as `rov-client --list` or the `/api/stats` of the server have it".to_owned()),
    }
}

fn stream_name(text: &str) -> Result<String, String> {
    let (camera, stream) = text.split_once('/').unwrap_or(("camera", text));
    camera_name(camera).and(camera_name(stream)).map(|_| text.to_owned())
}

fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.1..=1e6).contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
        _ => Err("give a number of seconds from 0.1 to 1000000".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn target(args: &[&str]) -> Result<Target, String> {
        let args = std::iter::once("rov-client").chain(args.iter().copied());
        Cli::try_parse_from(args).map_err(|e| e.to_string())?.target()
    }

    #[test]
    fn what_the_pilot_lets_the_client_wait_for_is_no_reason_to_warn() {
        let max_age = |args: &[&str]| {
            let args = std::iter::once("rov-client").chain(args.iter().copied());
            Cli::try_parse_from(args).expect("options").max_age().map(|limit| limit.as_millis())
        };
        assert_eq!(max_age(&[]), Some(300));
        assert_eq!(max_age(&["--latency", "300"]), Some(500));
        assert_eq!(max_age(&["--align-latency", "200"]), Some(500));
        assert_eq!(max_age(&["--align-latency", "200", "--align=off"]), Some(300));
        assert_eq!(max_age(&["--align-latency", "200", "--max-age", "400"]), Some(400));
        assert_eq!(max_age(&["--max-age", "0"]), None);
    }

    /// Of what the parsers of Rust's library say.
    const OF_RUST: [&str; 4] = ["found in string", "invalid float", "address syntax", "number too"];

    #[test]
    fn no_complaint_about_a_value_is_that_of_a_parser_of_rust() {
        for name in Cli::command().get_arguments().filter_map(|arg| arg.get_long()) {
            let error = Cli::command().try_get_matches_from(["rov-client".to_owned(), format!("--{name}=x y")]);
            let text = error.map_err(|error| error.to_string()).err().unwrap_or_default();
            assert!(!OF_RUST.iter().any(|of_rust| text.contains(of_rust)), "{text}");
        }
    }

    #[test]
    fn without_arguments_it_finds_a_server() {
        assert!(matches!(target(&[]), Ok(Target::Auto { name: None, any: false })));
        assert!(matches!(target(&["--auto", "--name", "rov"]), Ok(Target::Auto { name: Some(_), any: true })));
    }

    #[test]
    fn a_host_becomes_a_whep_url() {
        for (args, url) in [
            (vec!["--host", "10.0.0.2"], "http://10.0.0.2:8080/whep"),
            (vec!["--host", "rov.local", "--signal-port", "90"], "http://rov.local:90/whep"),
            (vec!["--host", "10.0.0.2:90"], "http://10.0.0.2:90/whep"),
            (vec!["10.0.0.2"], "http://10.0.0.2:8080/whep"),
            (vec!["rov.local:90"], "http://rov.local:90/whep"),
            (vec!["10.0.0.2", "--signal-port", "90"], "http://10.0.0.2:90/whep"),
            (vec!["http://10.0.0.2:90/whep"], "http://10.0.0.2:90/whep"),
            (vec!["http://10.0.0.2:90"], "http://10.0.0.2:90/whep"),
            (vec!["http://10.0.0.2:90/", "--stream", "stream2"], "http://10.0.0.2:90/whep"),
            (vec!["--url", "http://rov.local"], "http://rov.local/whep"),
            (vec!["--host", "http://10.0.0.2:90/?stream=arm%2Fwide"], "http://10.0.0.2:90/whep?stream=arm%2Fwide"),
            (vec!["https://rov.example/"], "https://rov.example/whep"),
            (vec!["http://10.0.0.2:8889/mystream/whep"], "http://10.0.0.2:8889/mystream/whep"),
        ] {
            assert!(matches!(target(&args), Ok(Target::Url(u)) if u.as_str() == url), "{args:?}");
        }
    }

    #[test]
    fn an_address_may_be_a_camera_and_auto_finds_the_server() {
        for args in [&["rtsp://me:s%40cret@10.0.0.3:9000/cam"][..], &["--host", "rtsp://me:s%40cret@10.0.0.3:9000/cam"]]
        {
            let Ok(Target::Camera(camera, _)) = target(args) else { panic!("{args:?}") };
            assert_eq!(camera.url().as_str(), "rtsp://10.0.0.3:9000/cam");
        }
        assert!(matches!(target(&["--host", "auto", "--name", "rov"]), Ok(Target::Auto { name: Some(_), any: true })));
        assert!(matches!(target(&["auto"]), Ok(Target::Auto { name: None, any: true })));
        let Ok(Target::Camera(camera, _)) = target(&["http://10.0.0.2:8080/", "--transport", "rtsp"]) else { panic!() };
        assert_eq!(camera.url().as_str(), "rtsp://10.0.0.2:8554/stream1");
        let Ok(Target::Rtp { host: Some(host), .. }) = target(&["10.0.0.2:90", "--transport", "rtp"]) else { panic!() };
        assert_eq!(host.stats.map(|url| url.to_string()).as_deref(), Some("http://10.0.0.2:90/api/stats"));
    }

    #[test]
    fn an_address_that_is_none_is_refused_with_the_form_and_without_a_password() {
        for address in ["10.0.0.2:x", "10.0.0.2:0", "me:secret@10.0.0.2", ":8080", "10.0.0.2:80:90", "", "ro v", "a/b"]
        {
            for args in [&["--host", address][..], &[address]] {
                let refused = target(args).unwrap_err();
                assert!(refused.contains("10.0.0.2:8080") && !refused.contains("secret"), "{address}: {refused}");
            }
        }
        for (args, advice) in [
            (&["fd00::1"][..], "IPv4"),
            (&["[fd00::1]:8080"], "IPv4"),
            (&["10.0.0.2:90", "--signal-port", "91"], "give one of them"),
            (&["10.0.0.2", "--name", "rov"], "leave it out"),
            (&["10.0.0.2", "--host", "10.0.0.3"], "cannot be used with"),
            (&["10.0.0.2", "--list"], "cannot be used with the address"),
            (&["--host", "10.0.0.2", "--list"], "cannot be used with --host"),
            (&["ftp://me:secret@10.0.0.2/"], "rtsp://..."),
        ] {
            let refused = target(args).unwrap_err();
            assert!(refused.contains(advice) && !refused.contains("secret"), "{args:?}: {refused}");
        }
    }

    #[test]
    fn servers_are_listed_where_one_is_to_be_found() {
        for args in [&["--list"][..], &["--list", "--host", "auto"], &["--list", "auto"], &["--list", "--auto"]] {
            assert!(matches!(target(args), Ok(Target::Auto { name: None, .. })), "{args:?}");
        }
    }

    #[test]
    fn a_stream_is_named_beside_the_server() {
        let session = |args: &[&str]| {
            let args = std::iter::once("rov-client").chain(args.iter().copied());
            let cli = Cli::try_parse_from(args).map_err(|error| error.to_string())?;
            Cli { password: None, ..cli }.session()
        };
        let wanted = |camera: Option<&str>, stream: Option<&str>| {
            Some(Wanted { camera: camera.map(str::to_owned), stream: stream.map(str::to_owned) })
        };
        for (args, expected) in [
            (&["--stream", "stream2"][..], wanted(None, Some("stream2"))),
            (&["10.0.0.2", "--stream", "arm/stream2"], wanted(None, Some("arm/stream2"))),
            (&["--camera", "arm", "--transport", "rtp", "--host", "10.0.0.2"], wanted(Some("arm"), None)),
            (&["10.0.0.2"], None),
        ] {
            assert_eq!(session(args).map(|config| config.stream), Ok(expected), "{args:?}");
        }
        let by_rtsp = ["10.0.0.2", "--transport", "rtsp", "--camera", "arm"];
        let Ok(config) = session(&by_rtsp) else { panic!() };
        let Target::Camera(camera, Some(stats)) = config.target else { panic!("{:?}", config.target) };
        let addresses = (camera.url().path(), stats.as_str(), config.stream);
        assert_eq!(addresses, ("/stream1", "http://10.0.0.2:8080/api/stats", wanted(Some("arm"), None)));
        for (args, advice) in [
            (&["--camera", "bow", "--stream", "arm/wide"][..], "leave out --camera bow"),
            (&["rtsp://10.0.0.2/stream1", "--stream", "stream2"], "leave them out"),
            (&["--url", "http://10.0.0.2/whep", "--stream", "stream2"], "cannot be used with"),
            (&["--rtp-port", "5004", "--camera", "arm"], "cannot be used with"),
            (&["--stream", "../stats"], "--list"),
            (&["--stream", "a/b/c"], "--list"),
            (&["--stream", ""], "--list"),
        ] {
            let refused = session(args).map(|config| config.stream).unwrap_err();
            assert!(refused.contains(advice), "{args:?}: {refused}");
        }
    }

    #[test]
    fn contradictions_are_refused() {
        assert!(target(&["--auto", "--host", "10.0.0.2"]).is_err());
        assert!(target(&["--url", "ftp://10.0.0.2/"]).is_err());
        assert!(target(&["--json"]).is_err());
        assert!(target(&["--host", "fd00::1"]).is_err());
        assert!(target(&["--signal-port", "90"]).is_err());
        assert!(target(&["--stun", "example.org"]).is_err());
        assert!(target(&["--discovery-timeout", "0"]).is_err());
    }

    #[test]
    fn rtp_is_listened_for_without_discovery() {
        let group = Source::of_destination(rtp::DEFAULT_HOST, rtp::DEFAULT_PORT);
        for (args, expected, host) in [
            (&["--rtp-port", "6000"][..], Source { port: 6000, ..group }, None),
            (&["--rtp-host", "239.1.2.3"], Source { host: Ipv4Addr::new(239, 1, 2, 3), ..group }, None),
            (&["--transport", "rtp", "--host", "10.0.0.2"], group, Some("10.0.0.2")),
            (&["--rtp-port", "5004", "--host", "10.0.0.2"], group, Some("10.0.0.2")),
        ] {
            let Ok(Target::Rtp { source, host: from }) = target(args) else { panic!("{args:?}") };
            assert_eq!((source, from.as_ref().map(|host| host.name.as_str())), (expected, host), "{args:?}");
            let asks = from.is_some_and(|host| host.stats.is_some());
            assert_eq!(asks, args[0] == "--transport", "{args:?}");
        }
        assert!(matches!(target(&["--transport", "rtp"]), Ok(Target::Auto { .. })), "by the announcement");
    }

    #[test]
    fn rtsp_urls_are_cameras_whose_password_is_never_shown() {
        let Ok(Target::Camera(camera, _)) = target(&["--url", "rtsp://me:s%40cret@10.0.0.3/cam"]) else { panic!() };
        assert_eq!(camera.url().as_str(), "rtsp://10.0.0.3/cam");
        assert!(!format!("{camera:?}").contains("cret"));
        let Ok(Target::Camera(camera, _)) = target(&["--host", "10.0.0.2", "--transport", "rtsp"]) else { panic!() };
        assert_eq!(camera.url().as_str(), "rtsp://10.0.0.2:8554/stream1");
        let refused = target(&["--url", "rtsp://me:secret@10.0.0.3/cam", "--transport", "rtp"]).unwrap_err();
        assert!(refused.contains("leave out --transport rtp") && !refused.contains("secret"), "{refused}");
    }

    #[test]
    fn a_url_that_is_none_is_not_repeated() {
        for url in ["rtsp://me:secret@10.0.0.3:port/cam", "rtsp://me:secret@/cam", "me/secret", "secret:me@10.0.0.3"] {
            let refused = target(&["--url", url]).unwrap_err();
            assert!(refused.contains("--url") && !refused.contains("me:") && !refused.contains("me/"), "{refused}");
        }
    }

    #[test]
    fn user_and_password_belong_together_and_a_token_stands_alone() {
        let session = |args: &[&str]| {
            // Not those of who runs the tests.
            let args = std::iter::once("rov-client").chain(args.iter().copied());
            let cli = Cli { password: None, token: None, ..Cli::try_parse_from(args.clone()).unwrap() };
            let given = |option| args.clone().skip_while(move |arg| *arg != option).nth(1).map(str::to_owned);
            let cli = Cli { password: given("--password"), token: given("--token"), ..cli };
            cli.session().map(|config| config.http.login)
        };
        let both = ["--user", "pilot", "--password", "deep blue"];
        let expected = Login::Password(Credentials { user: "pilot".to_owned(), password: "deep blue".to_owned() });
        for more in
            [&[][..], &["--host", "a", "--transport", "rtsp"], &["--transport", "webrtc"], &["--url", "rtsp://a/b"]]
        {
            assert_eq!(session(&[&both, more].concat()), Ok(Some(expected.clone())), "{more:?}");
        }
        assert_eq!(session(&[]), Ok(None));
        assert_eq!(session(&["--token", "rov_abc"]), Ok(Some(Login::Token("rov_abc".to_owned()))));
        assert_eq!(session(&["--token", ""]), Ok(None), "an empty variable");
        assert_eq!(session(&["--password", ""]), Ok(None), "an empty variable");
        assert_eq!(session(&["--password", "deep", "--transport", "webrtc"]), Ok(None), "the variable is a server's");
        for (args, advice) in [
            (&["--user", "pilot"][..], "--user pilot: needs --password, or the variable ROV_PASSWORD"),
            (&["--user", "pilot:deep"], "--user pilot: needs --password, or the variable ROV_PASSWORD"),
            (&["--password", "deep"], "--password (or the variable ROV_PASSWORD): needs --user"),
            (&[&both[..], &["--token", "rov_abc"]].concat(), "leave it out"),
            (&[&both[..], &["--rtp-port", "5004"]].concat(), "leave it out"),
        ] {
            let refused = session(args).unwrap_err();
            assert!(refused.contains(advice) && !refused.contains("deep"), "{args:?}: {refused}");
        }
    }

    #[test]
    fn transports_that_contradict_are_refused_with_what_to_do() {
        for (args, advice) in [
            (&["--url", "http://10.0.0.2/whep", "--transport", "rtp"][..], "leave out"),
            (&["--rtp-port", "5004", "--transport", "webrtc"], "leave them out"),
            (&["--rtp-port", "65534"], "65533"),
            (&["--rtp-host", "rov.local"], "invalid"),
            (&["--rtsp-port", "8554"], "--host"),
            (&["--url", "rtsp:///cam"], "missing"),
            (&["--rtp-host", "239.1.2.3", "--name", "rov"], "cannot be used with"),
            (&["--transport", "tcp"], "webrtc"),
        ] {
            let refused = target(args).unwrap_err();
            assert!(refused.contains(advice), "{args:?}: {refused}");
        }
    }
}
