//! Viewers that come, stay for a while and go, in order or by a cut cable; and those that mean no good.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::Result;
use rand::RngExt;
use rand::rngs::StdRng;
use rov_tests::process::{Process, program};
use rov_tests::wait;

use crate::bench::program as of_workspace;
use crate::lab::{Lab, ROV};

/// At once.
const MOST: usize = 4;
/// A place that is free is taken with this chance each second.
const ARRIVAL: f64 = 0.2;
const STAYS: std::ops::Range<u64> = 3..30;
const FREEZES_AFTER: Duration = Duration::from_secs(3);
/// Connections that one visitor of [`Kind::HalfOpen`] holds.
const HALF_OPEN: usize = 40;
const CONNECT: Duration = Duration::from_secs(2);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// rov-client by this transport.
    Client(&'static str),
    Chromium,
    /// ffmpeg by RTSP over this transport.
    Rtsp(&'static str),
    Mjpeg,
    Snapshots,
    /// ffmpeg by RTSP over TCP that stands still after a while, as a computer whose lid is closed.
    Frozen,
    /// HTTP requests that are never finished.
    HalfOpen,
}

const KINDS: [(&str, Kind); 10] = [
    ("rov-client, WebRTC", Kind::Client("webrtc")),
    ("rov-client, RTSP", Kind::Client("rtsp")),
    ("rov-client, RTP multicast", Kind::Client("rtp")),
    ("Chromium", Kind::Chromium),
    ("ffmpeg, RTSP over UDP", Kind::Rtsp("udp")),
    ("ffmpeg, RTSP over TCP", Kind::Rtsp("tcp")),
    ("ffmpeg, MJPEG", Kind::Mjpeg),
    ("snapshots", Kind::Snapshots),
    ("RTSP player that stands still", Kind::Frozen),
    ("HTTP requests never finished", Kind::HalfOpen),
];

struct Visitor {
    until: Instant,
    freezes: Option<Instant>,
    program: Option<Process>,
    /// Held open until it goes; those that could not be made are missing.
    _connections: Vec<TcpStream>,
}

pub struct Visitors<'a> {
    lab: &'a Lab,
    present: Vec<Visitor>,
    visits: [u64; KINDS.len()],
}

impl<'a> Visitors<'a> {
    pub fn new(lab: &'a Lab) -> Self {
        Self { lab, present: Vec::new(), visits: [0; KINDS.len()] }
    }

    /// Called each second.
    pub fn come_and_go(&mut self, random: &mut StdRng) -> Result<()> {
        let now = Instant::now();
        for visitor in self.present.extract_if(.., |visitor| now >= visitor.until) {
            visitor.leave(random.random_bool(0.5));
        }
        for visitor in &mut self.present {
            if visitor.freezes.take_if(|at| now >= *at).is_some()
                && let Some(program) = &mut visitor.program
                && program.is_running()
            {
                program.signal(libc::SIGSTOP);
            }
        }
        if self.present.len() < MOST && random.random_bool(ARRIVAL) {
            let which = random.random_range(0..KINDS.len());
            let kind = KINDS[which].1;
            self.visits[which] += 1;
            self.present.push(Visitor {
                until: now + Duration::from_secs(random.random_range(STAYS)),
                freezes: (kind == Kind::Frozen).then_some(now + FREEZES_AFTER),
                program: self.start(kind)?,
                _connections: if kind == Kind::HalfOpen { self.half_open() } else { Vec::new() },
            });
        }
        Ok(())
    }

    pub fn leave(&mut self) {
        self.present.clear();
    }

    pub fn present(&self) -> usize {
        self.present.len()
    }

    /// How many of each kind there were.
    pub fn visits(&self) -> Vec<(&'static str, u64)> {
        KINDS.iter().map(|(name, _)| *name).zip(self.visits).collect()
    }

    fn start(&self, kind: Kind) -> Result<Option<Process>> {
        let topside = |name: &str, command: &mut Command| {
            self.lab.topside.place(command);
            Ok(Some(Process::spawn(name, command)))
        };
        let ffmpeg = |args: &[&str]| {
            let mut command = Command::new(program("ffmpeg", "ffmpeg"));
            command.args(["-hide_banner", "-loglevel", "error", "-nostdin"]).args(args);
            topside("ffmpeg", command.args(["-c", "copy", "-f", "null", "-"]))
        };
        let http = format!("http://{ROV}:8080");
        let rtsp = format!("rtsp://{ROV}:8554/stream1");
        match kind {
            Kind::Client(transport) => {
                let mut command = Command::new(of_workspace("rov-client")?);
                command.env_remove("RUST_LOG").args(["--headless", "-q", "--transport", transport]);
                let server = if transport == "rtp" { ["--rtp-host", "239.255.0.1"] } else { ["--host", ROV] };
                topside("rov-client", command.args(server))
            }
            Kind::Chromium => {
                let mut command = Command::new(of_workspace("netlab")?);
                topside("Chromium", command.args(["watch-chromium", "/dev/null", ROV]))
            }
            Kind::Rtsp(transport) => ffmpeg(&["-rtsp_transport", transport, "-i", &rtsp]),
            Kind::Frozen => ffmpeg(&["-rtsp_transport", "tcp", "-i", &rtsp]),
            Kind::Mjpeg => ffmpeg(&["-f", "mpjpeg", "-i", &format!("{http}/stream.mjpg")]),
            Kind::Snapshots => {
                let get = format!("ffmpeg -loglevel quiet -nostdin -i {http}/snapshot.jpg -f null -");
                let mut command = Command::new("bash");
                topside("snapshots", command.args(["-c", &format!("while sleep 1; do {get}; done")]))
            }
            Kind::HalfOpen => Ok(None),
        }
    }

    fn half_open(&self) -> Vec<TcpStream> {
        let open = self.lab.topside.enter(|| {
            let mut open = Vec::new();
            let address: SocketAddr = format!("{ROV}:8080").parse().expect("an address");
            // The link may be down just now.
            while open.len() < HALF_OPEN
                && let Ok(mut stream) = TcpStream::connect_timeout(&address, CONNECT)
                && stream.write_all(b"GET /api/st").is_ok()
            {
                open.push(stream);
            }
            open
        });
        open.unwrap_or_default()
    }
}

impl Visitor {
    /// As a user would end it, or as a computer that loses power.
    fn leave(self, in_order: bool) {
        if in_order
            && let Some(mut program) = self.program
            && program.is_running()
        {
            program.signal(libc::SIGTERM);
            // It may take its time to say goodbye over a broken link; dropping it ends it.
            wait::within(Duration::from_secs(1), || (!program.is_running()).then_some(()));
        }
    }
}
