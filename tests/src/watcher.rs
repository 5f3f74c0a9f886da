//! A viewer in this process: the client's own session and decoder, and a thread that takes each picture as the window
//! would, and notes what it saw.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use clap::Parser;
use rov_client::cli::Cli;
use rov_client::clock::{Clocks, Unknown};
use rov_client::decode::{Picture, read_stamp};
use rov_client::find::Guide;
use rov_client::session;
use rov_client::stats::Report;
use rov_client::streams::Wanted;
use rov_client::target::{SessionConfig, SessionError};
use rov_client::told::Told;
use rov_client::viewer::{Choice, Phase, Viewer};
use rov_common::api::Stats;
use rov_common::capture_clock::beside_monotonic;
use rov_common::clock_sync::Age;
use rov_common::units::Resolution;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::wait;

/// The end of a watcher is looked for so often.
const TAKE: Duration = Duration::from_millis(50);
/// From mark to shown on loopback it takes some 20 ms, and the client leaves out what is 300 ms late.
const IN_TIME: Duration = Duration::from_millis(150);

/// One picture that was shown.
#[derive(Clone, Copy, Debug)]
pub struct Shot {
    /// The number in its mark, if that could be read.
    pub frame: Option<u32>,
    pub shown_at: Instant,
    /// Since its mark was drawn.
    pub latency: Option<Duration>,
    /// What the server says of when it was captured, and when its mark was drawn: since 1970.
    pub captured: Option<Duration>,
    pub drawn: Option<Duration>,
    /// How old the client says that it is, or why that is not known.
    pub age: Result<Age, Unknown>,
    /// When it was shown, by the system's clock, since 1970.
    pub shown: Duration,
    /// As decoded.
    pub resolution: Resolution,
    /// The viewer's session, from 1.
    pub session: u64,
}

pub struct Watcher {
    viewer: Arc<Viewer>,
    shots: Arc<Mutex<Vec<Shot>>>,
    stop: CancellationToken,
    session: Option<JoinHandle<Result<(), SessionError>>>,
    pump: Option<std::thread::JoinHandle<()>>,
}

impl Watcher {
    /// Watches what the arguments of `rov-client` say.
    pub fn start(runtime: &Runtime, args: &[&str]) -> Self {
        let config = config(args);
        let guide = guide(runtime, &config);
        Self::follow(runtime, config, guide, Viewer::new())
    }

    /// Watches these streams of what the arguments say, as the tiles of a grid do.
    pub fn start_grid(runtime: &Runtime, args: &[&str], streams: &[&str]) -> Vec<Self> {
        let config = config(args);
        let guide = guide(runtime, &config);
        let (told, clocks) = (Told::default(), Clocks::default());
        let tile = |stream: &&str| {
            let stream = Some(Wanted { camera: None, stream: Some((*stream).to_owned()) });
            let config = SessionConfig { stream, ..config.clone() };
            let viewer = Viewer::with(Arc::default(), Arc::default(), told.clone(), clocks.clone(), Arc::default());
            Self::follow(runtime, config, Arc::clone(&guide), viewer)
        };
        streams.iter().map(tile).collect()
    }

    fn follow(runtime: &Runtime, config: SessionConfig, guide: Arc<Guide>, viewer: Arc<Viewer>) -> Self {
        let stop = CancellationToken::new();
        let session = runtime.spawn(session::follow(config, guide, Arc::clone(&viewer), stop.clone()));
        let shots = Arc::new(Mutex::new(Vec::new()));
        let pump = {
            let (viewer, shots, stop) = (Arc::clone(&viewer), Arc::clone(&shots), stop.clone());
            std::thread::spawn(move || {
                while !stop.is_cancelled() {
                    if let Some(picture) = viewer.mailbox.wait(TAKE) {
                        let shot = shot(&picture, &viewer);
                        lock(&shots).push(shot);
                    }
                }
            })
        };
        Self { viewer, shots, stop, session: Some(session), pump: Some(pump) }
    }

    /// Everything that was shown so far.
    pub fn shots(&self) -> Vec<Shot> {
        lock(&self.shots).clone()
    }

    pub fn shown(&self) -> usize {
        lock(&self.shots).len()
    }

    /// Counters of the session: packets, losses, pictures replaced before they were taken. Not what was shown.
    pub fn report(&self) -> Report {
        let mut report = Report::default();
        self.viewer.report(&mut report);
        report
    }

    /// Pictures that the client left out although it had them in time. On a busy machine some come late to the decoder,
    /// and it goes on at a keyframe: then what it shows is late, too, and none are counted.
    pub fn skipped_in_time(&self) -> u64 {
        if self.was_late() { 0 } else { self.report().frames_skipped }
    }

    /// Whether some pictures came late, as on a busy machine.
    pub fn was_late(&self) -> bool {
        self.late() > 0
    }

    /// How many did.
    pub fn late(&self) -> usize {
        let is_late = |shot: &&Shot| shot.latency.is_some_and(|latency| latency > IN_TIME);
        lock(&self.shots).iter().filter(is_late).count()
    }

    pub fn phase(&self) -> Phase {
        self.viewer.phase()
    }

    /// What the pilot is asked.
    pub fn choice(&self) -> &Choice {
        &self.viewer.choice
    }

    /// What the pilot has to know.
    pub fn notices(&self) -> Vec<String> {
        self.viewer.notices(Instant::now())
    }

    /// What is to be written over the picture.
    pub fn written(&self) -> Vec<String> {
        self.viewer.written(Instant::now()).map(|written| written.lines).unwrap_or_default()
    }

    /// How the video comes, as the overlay says it.
    pub fn transport(&self) -> String {
        self.viewer.reception().transport
    }

    /// The least of the latencies so far: a buffer delays every picture, and a busy machine only some.
    pub fn best_latency(&self) -> Duration {
        lock(&self.shots).iter().filter_map(|shot| shot.latency).min().unwrap_or(Duration::MAX)
    }

    /// Waits until `count` pictures were shown in all.
    pub fn wait_for_shots(&self, count: usize) {
        let what = format!("{count} pictures (phase {:?})", self.phase());
        wait::until_true(&what, wait::START, || self.shown() >= count);
    }

    /// Ends the session as the user would, and waits for it.
    pub fn stop(mut self, runtime: &Runtime) {
        self.stop.cancel();
        let session = self.session.take().expect("a session is stopped once");
        let ended = runtime.block_on(async { tokio::time::timeout(wait::SOON, session).await });
        ended.expect("the session ends in time").expect("the session does not panic").expect("the session ends well");
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(pump) = self.pump.take() {
            // A panic of it has been printed.
            let _ = pump.join();
        }
    }
}

fn config(args: &[&str]) -> SessionConfig {
    let cli = Cli::try_parse_from(["rov-client"].iter().chain(args)).unwrap_or_else(|e| panic!("{args:?}: {e}"));
    cli.session().unwrap_or_else(|e| panic!("{args:?}: {e}"))
}

fn guide(runtime: &Runtime, config: &SessionConfig) -> Arc<Guide> {
    // Its sockets belong to the runtime.
    let _runtime = runtime.enter();
    Guide::new(config).unwrap_or_else(|e| panic!("{config:?}: {e}"))
}

fn shot(picture: &Picture, viewer: &Viewer) -> Shot {
    let (shown_at, now) = beside_monotonic(SystemTime::now);
    let now_us = now.duration_since(UNIX_EPOCH).expect("a clock after 1970").as_micros() as u64;
    let stamp = read_stamp(picture);
    Shot {
        frame: stamp.map(|stamp| stamp.frame),
        shown_at,
        latency: stamp.map(|stamp| Duration::from_micros(now_us.saturating_sub(stamp.time_us))),
        captured: picture.captured.map(|captured| captured.0),
        drawn: stamp.map(|stamp| Duration::from_micros(stamp.time_us)),
        age: viewer.age(picture.captured, shown_at),
        shown: Duration::from_micros(now_us),
        resolution: picture.source,
        session: viewer.sessions(),
    }
}

/// What the marks of some pictures of one session say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Order {
    /// Pictures with a mark that could be read.
    pub read: usize,
    /// Numbers between the first and the last that were not shown.
    pub missing: u64,
    /// Numbers that were not greater than the one before.
    pub out_of_order: usize,
}

impl Order {
    pub fn of(shots: &[Shot]) -> Self {
        let numbers: Vec<u32> = shots.iter().filter_map(|shot| shot.frame).collect();
        let steps = numbers.windows(2).map(|pair| (pair[0], pair[1]));
        Self {
            read: numbers.len(),
            missing: steps.clone().filter(|(a, b)| b > a).map(|(a, b)| u64::from(b - a - 1)).sum(),
            out_of_order: steps.filter(|(a, b)| b <= a).count(),
        }
    }
}

/// Pictures that may be missing although the network lost none: on a machine that is busy with other things some are
/// left out before the encoder, by an output that fell behind, and of two that come at once only the newer one is
/// shown. All are counted, but the count before the encoder may be two short, which it takes to be on their way.
pub fn left_out(report: &Report, stats: &Stats) -> u64 {
    let rtp = stats.rtp.as_ref().map_or(0, |rtp| rtp.skipped);
    let rtsp = stats.rtsp.as_ref().map_or(0, |rtsp| rtsp.skipped);
    rtp + rtsp + report.frames_replaced + stats.streams.iter().map(|stream| stream.frames_dropped + 2).sum::<u64>()
}

/// Datagrams for which the sockets of this network had no room so far, as on a machine that is too busy to read them:
/// nothing else loses any on loopback.
pub fn datagrams_dropped() -> u64 {
    let counters = std::fs::read_to_string("/proc/net/snmp").expect("the counters of the network");
    let mut of_udp = counters.lines().filter_map(|line| line.strip_prefix("Udp: "));
    let (names, values) = (of_udp.next().expect("names"), of_udp.next().expect("their values"));
    let each = names.split(' ').zip(values.split(' '));
    let dropped = each.filter(|(name, _)| ["RcvbufErrors", "SndbufErrors"].contains(name));
    dropped.map(|(_, value)| value.parse::<u64>().expect("a number")).sum()
}

/// Waits until all `missing` pictures are counted as left out, by the client where it got them late, or before: the
/// server looks at its counters now and then, on a busy machine late.
///
/// # Panics
/// When they are not: some were lost on their way.
pub fn until_counted(missing: u64, report: &Report, stats: impl Fn() -> Stats) {
    let missing = missing.saturating_sub(report.frames_skipped);
    let counted = wait::within(wait::SOON, || (missing <= left_out(report, &stats())).then_some(()));
    assert!(counted.is_some(), "{missing} pictures are missing: {report:?} {:?}", stats());
}

fn lock(shots: &Mutex<Vec<Shot>>) -> MutexGuard<'_, Vec<Shot>> {
    shots.lock().unwrap_or_else(PoisonError::into_inner)
}
