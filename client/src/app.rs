//! Wires the program: the session on the runtime's threads, the window on the main thread, statistics between them.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use rov_common::lines::Lines;
use rov_common::memory;
use rov_common::sync::lock;
use serde_json::json;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

use crate::cli::Cli;
use crate::decode::{DecodeError, Picture, read_stamp};
use crate::discovery::{self, Found};
use crate::display::{Callbacks, Status, ViewModel, Window, run_headless};
use crate::find;
use crate::overlay::OverlayData;
use crate::receive::webrtc::check_socket_buffers;
use crate::session::{self, SessionConfig, SessionError};
use crate::stats::{Passage, Report, Shown, ms};
use crate::viewer::{Phase, Viewer};

pub const EXIT_USAGE: u8 = 2;
const EXIT_NOTHING_FOUND: u8 = 3;

const REPORT_INTERVAL: Duration = Duration::from_secs(1);
/// For telling the server goodbye at the end.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(3);
/// For the last lines of the log at the end.
const LOG_LIMIT: Duration = Duration::from_millis(500);

/// Runs the client; returns when the user closes it.
pub fn run(cli: &Cli) -> ExitCode {
    let started = Instant::now();
    memory::tend_heaps();
    let log = init_log(cli);
    let code = run_logged(cli, started);
    log.drain(LOG_LIMIT);
    code
}

fn run_logged(cli: &Cli, started: Instant) -> ExitCode {
    let config = match cli.session() {
        Ok(config) => config,
        Err(message) => {
            tracing::error!("{message}");
            return ExitCode::from(EXIT_USAGE);
        }
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "cannot start the runtime");
            return ExitCode::FAILURE;
        }
    };
    let result = if cli.list { list(&runtime, cli) } else { view(&runtime, cli, config, started) };
    runtime.shutdown_background();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            match error {
                SessionError::NothingFound(_) | SessionError::NoWay { is_final: false, .. } => {
                    ExitCode::from(EXIT_NOTHING_FOUND)
                }
                SessionError::NoWay { is_final: true, .. }
                | SessionError::Ambiguous(..)
                | SessionError::Decoder(DecodeError::NoSuchDecoder { .. } | DecodeError::DoesNotWork { .. }) => {
                    ExitCode::from(EXIT_USAGE)
                }
                SessionError::Decoder(_) | SessionError::Other(_) => ExitCode::FAILURE,
            }
        }
    }
}

/// `--list`: prints the servers as they are found.
fn list(runtime: &Runtime, cli: &Cli) -> Result<(), SessionError> {
    let print = |text: &str| writeln!(std::io::stdout(), "{text}");
    let mut written = Ok(());
    let (found, tried) = runtime.block_on(async {
        let mut discovery = discovery::bind(cli.discovery_port, cli.interfaces.clone())?;
        let on_new = |server: &Found| {
            if !cli.json && written.is_ok() {
                written = print(&find::list(std::slice::from_ref(server)));
            }
        };
        let found = discovery.search(cli.name.as_deref(), cli.discovery_timeout, on_new).await;
        anyhow::Ok((found, discovery.describe()))
    })?;
    if cli.json {
        written = print(&list_json(&found)?);
    } else if let (Some(note), true) = (find::twins(&found), written.is_ok()) {
        // Known only when all are.
        written = print(&note);
    }
    match written {
        // Who reads has seen enough, as `head` does.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => return Ok(()),
        written => written.context("cannot write to standard output")?,
    }
    if found.is_empty() { Err(SessionError::NothingFound(format!("no server found: {tried}"))) } else { Ok(()) }
}

fn list_json(found: &[Found]) -> Result<String> {
    let servers: Vec<_> = found
        .iter()
        .map(|f| {
            let a = &f.announcement;
            let streams: Vec<_> = a
                .streams
                .iter()
                .map(|s| {
                    // Those of the first camera, whose name is not announced, have none before them.
                    let camera = s.name.split_once('/').map(|(camera, _)| camera);
                    json!({
                        "name": s.name, "camera": camera, "codec": s.codec, "width": s.width, "height": s.height,
                        "fps": s.fps,
                    })
                })
                .collect();
            json!({
                "id": a.id, "key": a.key, "name": a.name, "version": a.version, "address": f.address.to_string(), "whep": a.whep,
                "transports": a.transports, "streams": streams,
            })
        })
        .collect();
    serde_json::to_string_pretty(&servers).context("cannot write the list as JSON")
}

fn view(runtime: &Runtime, cli: &Cli, config: SessionConfig, started: Instant) -> Result<(), SessionError> {
    check_socket_buffers();
    let viewer = Viewer::new();
    let shown = Arc::new(Mutex::new(Shown::new(started)));
    let stop = CancellationToken::new();
    runtime.spawn(stop_on_signal(stop.clone()));
    if let Some(duration) = cli.duration {
        let stop = stop.clone();
        runtime.spawn(async move {
            tokio::time::sleep(duration).await;
            stop.cancel();
        });
    }
    let reporter = Reporter {
        viewer: Arc::clone(&viewer),
        shown: Arc::clone(&shown),
        file: cli.stats_json.clone(),
        print: cli.headless.then(Lines::stdout),
        failure: None,
    };
    // Whatever becomes of the figures, the picture goes on.
    let reporting = runtime.spawn(reporter.run(stop.clone()));
    // However the session ends, a panic included, the program ends with it.
    let session = {
        let (viewer, stop) = (Arc::clone(&viewer), stop.clone());
        runtime.spawn(async move {
            let _guard = stop.clone().drop_guard();
            session::run(config, viewer, stop).await
        })
    };
    let mut on_shown = {
        let (shown, viewer) = (Arc::clone(&shown), Arc::clone(&viewer));
        let mut sessions = 0;
        move |picture: &Picture, at: Instant| {
            let mut shown = lock(&shown);
            let now = viewer.sessions();
            if std::mem::replace(&mut sessions, now) != now {
                shown.new_session();
            }
            add(&mut shown, picture, at);
        }
    };
    let screen = if cli.headless {
        run_headless(&viewer.mailbox, &stop, &mut on_shown);
        Ok(())
    } else {
        window(cli, &viewer, &shown, &stop, on_shown)
    };
    stop.cancel();
    let finish = async { tokio::join!(session, reporting) };
    let finished = runtime.block_on(async { tokio::time::timeout(SHUTDOWN_LIMIT, finish).await });
    screen?;
    match finished {
        Ok((Ok(session), Ok(()))) => session,
        Ok((Err(panic), _) | (_, Err(panic))) => Err(anyhow::anyhow!("a task ended badly: {panic}").into()),
        Err(_) => {
            tracing::warn!("session and figures did not end within {} s and are cut off", SHUTDOWN_LIMIT.as_secs());
            Ok(())
        }
    }
}

fn window(
    cli: &Cli,
    viewer: &Viewer,
    shown: &Mutex<Shown>,
    stop: &CancellationToken,
    mut on_shown: impl FnMut(&Picture, Instant),
) -> Result<()> {
    let mut window = Window::open("ROV", cli.window_size(), cli.fullscreen, cli.display)?;
    window.show_badge(!cli.no_badge);
    let callbacks = Callbacks {
        view: &mut |now| view_model(viewer, &lock(shown), now),
        on_shown: &mut on_shown,
        on_output: &mut |output| viewer.set_output(output),
        on_chosen: &mut |offer| viewer.choice.choose(offer),
    };
    window.run(&viewer.mailbox, stop, callbacks)?;
    Ok(())
}

/// What the window says beside the video.
fn view_model(viewer: &Viewer, shown: &Shown, now: Instant) -> ViewModel {
    let (server, reception) = (viewer.server(), viewer.reception());
    let live = shown.resolution().is_some();
    let notices = viewer.notices(now);
    let others = [viewer.fallback(), reception.note].into_iter().filter(|note| !note.is_empty());
    let overlay = OverlayData {
        server: server.called(),
        address: server.address,
        resolution: shown.resolution(),
        fps: live.then(|| shown.fps(now)),
        bitrate_kbps: live.then_some(reception.bitrate_kbps),
        loss: live.then_some(reception.loss),
        rtt_ms: reception.rtt.map(ms),
        decoder: reception.decode.decoder,
        display: String::new(),
        transport: reception.transport,
        notes: notices.iter().cloned().chain(others).collect(),
        latency: stages(shown, now, reception.encode, reception.rtt),
    };
    let (phase, since) = viewer.phase_since();
    ViewModel { status: status(phase, since, shown.last_shown()), overlay, notices, question: viewer.choice.question() }
}

/// From capture to the screen, as far as it can be known: what the camera takes to expose and hand over its picture,
/// and what the screen takes to light up, are not in it.
fn stages(shown: &Shown, now: Instant, encode: Option<Duration>, rtt: Option<Duration>) -> Vec<(String, f64)> {
    let here = shown.recent(now);
    if here.is_empty() {
        return here;
    }
    let server = encode.map(|time| ("encode".to_owned(), ms(time)));
    let network = rtt.map(|time| ("network".to_owned(), ms(time) / 2.0));
    server.into_iter().chain(network).chain(here).collect()
}

/// What the window says. Once there was a picture, whatever is not live is a loss: the old picture must not look live.
/// A picture that came since the session began to connect or to wait is a new one: the phase just does not know it yet.
fn status(phase: Phase, since: Instant, last_shown: Option<Instant>) -> Status {
    let (had_picture, is_new) = (last_shown.is_some(), last_shown.is_some_and(|at| at > since));
    match phase {
        Phase::Live => Status::Live,
        Phase::Connecting(_) | Phase::Waiting(_) if is_new => Status::Live,
        Phase::Waiting(reason) => Status::Lost { reason },
        Phase::Lost(reason) => Status::Lost { reason: format!("{reason}; reconnecting") },
        Phase::Searching(text) if had_picture => Status::Lost { reason: text },
        Phase::Searching(text) if text == find::LOOKING => Status::default(),
        Phase::Searching(text) => Status::Connecting { what: format!("Looking for a server…\n{text}") },
        Phase::Connecting(server) if had_picture => Status::Lost { reason: format!("connecting to {server}…") },
        Phase::Connecting(server) => Status::Connecting { what: format!("Connecting to {server}…") },
    }
}

fn add(shown: &mut Shown, picture: &Picture, at: Instant) {
    let passage = Passage {
        first_packet_at: picture.first_packet_at,
        last_packet_at: picture.last_packet_at,
        decoded_at: picture.decoded_at,
        converted_at: picture.converted_at,
        shown_at: at,
    };
    let unix_us = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_micros() as u64);
    shown.add(passage, picture.source, read_stamp(picture).map(|stamp| (stamp, unix_us)));
}

/// Writes the figures each second, and at the end.
struct Reporter {
    viewer: Arc<Viewer>,
    shown: Arc<Mutex<Shown>>,
    file: Option<PathBuf>,
    print: Option<Lines>,
    /// Why the file could not be written the last time.
    failure: Option<String>,
}

impl Reporter {
    async fn run(mut self, stop: CancellationToken) {
        // At once: that a file cannot be written is said now, not after the dive.
        let mut tick = tokio::time::interval(REPORT_INTERVAL);
        loop {
            let last = tokio::select! {
                _ = tick.tick() => false,
                () = stop.cancelled() => true,
            };
            // A disk that hangs holds up none of the runtime's threads.
            let reported = tokio::task::spawn_blocking(move || {
                self.report();
                self
            });
            match reported.await {
                Ok(reporter) if !last => self = reporter,
                Ok(reporter) => return reporter.print.iter().for_each(|lines| lines.drain(LOG_LIMIT)),
                Err(panic) => return tracing::error!("no figures any more: {panic}"),
            }
        }
    }

    fn report(&mut self) {
        let mut report = Report::default();
        self.viewer.report(&mut report);
        lock(&self.shown).report(Instant::now(), &mut report);
        if let Some(file) = &self.file {
            let data = serde_json::to_vec_pretty(&report).map_err(std::io::Error::from);
            let failure = data.and_then(|data| write_whole(file, &data)).err().map(|error| error.to_string());
            let file = file.display();
            match (&failure, &self.failure) {
                (Some(new), old) if old.as_ref() != Some(new) => {
                    tracing::warn!("--stats-json {file}: cannot write: {new}; trying again each second");
                }
                (None, Some(_)) => tracing::info!("--stats-json {file}: written again"),
                _ => {}
            }
            self.failure = failure;
        }
        if let Some(lines) = &mut self.print {
            // It never fails.
            let _ = writeln!(lines, "{}", line(&report));
        }
    }
}

fn line(report: &Report) -> String {
    if report.frames_shown == 0 {
        return format!("{}: no picture yet", report.state);
    }
    let stamps = if report.stamps.read > 0 {
        format!(", latency {:.1}/{:.1} ms (p50/p95)", report.stamps.latency.p50_ms, report.stamps.latency.p95_ms)
    } else {
        String::new()
    };
    let fallback = report.fallback_reason.as_ref().map(|reason| format!(" (because {reason})")).unwrap_or_default();
    format!(
        "{}: {} by {}{fallback} {}x{} {:.1} fps {:.0} kbit/s, {} shown, {} lost, receive to shown {:.1} ms{stamps}",
        report.state,
        report.server,
        report.transport,
        report.width,
        report.height,
        report.fps,
        report.bitrate_kbps,
        report.frames_shown,
        report.packets_lost,
        report.receive_to_shown.p50_ms,
    )
}

/// Whoever reads the file never sees half of it. What is no plain file, as a pipe or a device, is written into: to
/// replace it would take it away.
fn write_whole(file: &Path, data: &[u8]) -> std::io::Result<()> {
    if std::fs::symlink_metadata(file).is_ok_and(|found| !found.is_file()) {
        return std::fs::write(file, data);
    }
    let mut name = file.as_os_str().to_owned();
    name.push(".new");
    let temporary = PathBuf::from(name);
    let written = std::fs::write(&temporary, data).and_then(|()| std::fs::rename(&temporary, file));
    if written.is_err() {
        // Half of it would only take the room that is missing.
        let _ = std::fs::remove_file(&temporary);
    }
    written
}

async fn stop_on_signal(stop: CancellationToken) {
    #[cfg(unix)]
    let terminated = async {
        match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
            Ok(mut signal) => {
                signal.recv().await;
            }
            Err(_) => std::future::pending().await,
        }
    };
    #[cfg(not(unix))]
    let terminated = std::future::pending::<()>();
    tokio::select! {
        result = tokio::signal::ctrl_c() => if let Err(error) = result {
            tracing::error!(%error, "cannot wait for Ctrl+C");
        },
        () = terminated => {}
    }
    stop.cancel();
}

/// Logs into standard error. What is returned writes it.
fn init_log(cli: &Cli) -> Lines {
    let filter = match (cli.verbose, cli.quiet) {
        (_, true) => "error",
        // The crate logs each packet that it drops, whole, just when the machine is too busy already.
        (0, _) => "info,rtc=off",
        (1, _) => "debug,rtc=off,ureq=info,rustls=info",
        (..) => "trace",
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(filter));
    let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|set| set.is_empty());
    let lines = Lines::stderr();
    let writer = lines.clone();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(move || writer.clone())
        .with_ansi(colours)
        .log_internal_errors(false)
        .with_target(false)
        .init();
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::viewer::Server;

    #[test]
    fn title_and_corner_name_the_stream_of_a_server_that_has_several() {
        let called = |name: &str, stream: &str| {
            let viewer = Viewer::new();
            let (name, address) = (name.to_owned(), "10.0.0.2:8080".to_owned());
            viewer.set_server(Server { name, address, ..Default::default() });
            viewer.set_stream(stream.to_owned());
            let now = Instant::now();
            view_model(&viewer, &Shown::new(now), now).overlay.server
        };
        assert_eq!(called("Nemo", "arm/stream1"), "Nemo arm/stream1");
        assert_eq!(called("Nemo", ""), "Nemo");
        assert_eq!(called("", "stream2"), "10.0.0.2:8080 stream2");
    }

    #[test]
    fn after_the_first_picture_whatever_is_not_live_is_a_loss() {
        let shown = Instant::now();
        let since = shown + Duration::from_millis(1);
        let phases = [
            Phase::Searching("looking".to_owned()),
            Phase::Connecting("rov".to_owned()),
            Phase::Waiting("no camera".to_owned()),
            Phase::Lost("gone".to_owned()),
        ];
        for phase in phases {
            let status = status(phase.clone(), since, Some(shown));
            assert!(matches!(status, Status::Lost { .. }), "{phase:?}: {status:?}");
        }
        assert_eq!(status(Phase::Live, since, Some(shown)), Status::Live);
    }

    #[test]
    fn the_first_pictures_of_a_session_are_live_before_the_phase_says_so() {
        let since = Instant::now();
        let shown = Some(since + Duration::from_millis(1));
        assert_eq!(status(Phase::Connecting("rov".to_owned()), since, shown), Status::Live);
        assert_eq!(status(Phase::Waiting("no camera".to_owned()), since, shown), Status::Live);
        assert!(matches!(status(Phase::Lost("gone".to_owned()), since, shown), Status::Lost { .. }));
    }

    #[test]
    fn before_the_first_picture_it_says_what_it_is_doing() {
        let status = |phase| status(phase, Instant::now(), None);
        let searching = status(Phase::Searching("on eth0".to_owned()));
        assert!(matches!(&searching, Status::Connecting { what } if what.contains("eth0")), "{searching:?}");
        let begun = status(Phase::Searching(find::LOOKING.to_owned()));
        assert!(matches!(&begun, Status::Connecting { what } if !what.contains('\n')), "said once: {begun:?}");
        assert!(matches!(status(Phase::Connecting("rov".to_owned())), Status::Connecting { .. }));
        let lost = status(Phase::Lost("refused".to_owned()));
        assert!(matches!(&lost, Status::Lost { reason } if reason.contains("refused")), "{lost:?}");
    }

    #[test]
    fn a_report_is_replaced_as_a_whole() {
        let folder = std::env::temp_dir().join(format!("rov-client-test-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let file = folder.join("stats.json");
        for text in ["{\"a\": 1}", "{}"] {
            write_whole(&file, text.as_bytes()).expect("written");
            assert_eq!(std::fs::read_to_string(&file).expect("read"), text);
        }
        assert_eq!(std::fs::read_dir(&folder).expect("the folder").count(), 1, "nothing else is left");
        std::fs::remove_dir_all(&folder).expect("removed");
    }
}
