//! Wires the program: the session on the runtime's threads, the window on the main thread, statistics between them.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, TryLockError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rov_common::exit;
use rov_common::lines::Lines;
use rov_common::log::{Form, Log};
use rov_common::log_file::LogFile;
use rov_common::memory;
use rov_common::sync::lock;
use serde_json::json;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

use crate::beat::{Beat, BeatWatch, Change};
use crate::cli::{Cli, Task};
use crate::decode::DecodeError;
use crate::discovery::{self, Found};
use crate::display::{Window, run_headless};
use crate::feeds::{Feeds, OnScreen};
use crate::find;
use crate::receive::webrtc::check_socket_buffers;
use crate::recording::{self, Recording};
use crate::report;
use crate::stats::Report;
use crate::target::{SessionConfig, SessionError};

const EXIT_NOTHING_FOUND: u8 = 3;

const REPORT_INTERVAL: Duration = Duration::from_secs(1);
/// For the figures, which the window's thread may hold while it hangs.
const SCREEN_LIMIT: Duration = Duration::from_millis(500);
/// For telling the server goodbye at the end.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(3);
/// For the last lines of the log at the end.
const LOG_LIMIT: Duration = Duration::from_millis(500);

/// Runs the client; returns when the user closes it.
pub fn run(cli: &Cli) -> u8 {
    let started = Instant::now();
    memory::tend_heaps();
    let log = init_log(cli);
    let code = run_logged(cli, started);
    log.drain(LOG_LIMIT);
    code
}

fn run_logged(cli: &Cli, started: Instant) -> u8 {
    if let Some(Task::Report { folder }) = &cli.task {
        return make_report(folder);
    }
    let (config, recording) = match cli.session().and_then(|config| Ok((config, cli.recording()?))) {
        Ok(both) => both,
        Err(message) => {
            tracing::error!("{message}");
            return exit::USAGE;
        }
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "cannot start the runtime");
            return exit::FAILURE;
        }
    };
    let result = if cli.list { list(&runtime, cli) } else { view(&runtime, cli, (config, recording), started) };
    runtime.shutdown_background();
    match result {
        Ok(()) => exit::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            match error {
                SessionError::NothingFound(_) | SessionError::NoWay { is_final: false, .. } => EXIT_NOTHING_FOUND,
                SessionError::NoWay { is_final: true, .. }
                | SessionError::Ambiguous(..)
                | SessionError::Decoder(DecodeError::NoSuchDecoder { .. } | DecodeError::DoesNotWork { .. }) => {
                    exit::USAGE
                }
                SessionError::Decoder(_) | SessionError::Other(_) => exit::FAILURE,
            }
        }
    }
}

fn make_report(folder: &Path) -> u8 {
    match report::write(folder) {
        Ok((path, events)) => {
            // Nobody may be there to read it.
            let _ = writeln!(std::io::stdout(), "{}: events: {events}", path.display());
            exit::SUCCESS
        }
        Err(reason) => {
            tracing::error!("no report: {reason}");
            exit::FAILURE
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
                "id": a.id, "key": a.key, "name": a.name, "version": a.version,
                "address": f.address.to_string(), "whep": a.whep,
                "transports": a.transports, "streams": streams,
            })
        })
        .collect();
    serde_json::to_string_pretty(&servers).context("cannot write the list as JSON")
}

fn view(
    runtime: &Runtime,
    cli: &Cli,
    (config, recording): (SessionConfig, Option<recording::Options>),
    started: Instant,
) -> Result<(), SessionError> {
    check_socket_buffers();
    let stop = CancellationToken::new();
    runtime.spawn(stop_on_signal(stop.clone()));
    if let Some(duration) = cli.duration {
        let stop = stop.clone();
        runtime.spawn(async move {
            tokio::time::sleep(duration).await;
            stop.cancel();
        });
    }
    let recording = Recording::new(recording);
    let ends = (started, stop.clone());
    let mut feeds = Feeds::start(runtime.handle().clone(), config, cli.grid, Arc::clone(&recording), ends)?;
    feeds.align(cli.alignment());
    let screen = feeds.screen();
    let beat = Arc::clone(lock(&screen).beat());
    let reporter = Reporter {
        screen,
        beat: Arc::clone(&beat),
        newest: Report::default(),
        file: cli.stats_json.clone(),
        print: cli.headless.then(Lines::stdout),
        failure: None,
        watch: BeatWatch::default(),
    };
    // Whatever becomes of the figures, the picture goes on.
    let last = CancellationToken::new();
    let reporting = runtime.spawn(reporter.run(last.clone()));
    let screen = if cli.headless {
        run_headless(&mut feeds, &stop);
        Ok(())
    } else {
        window(cli, &mut feeds, &stop)
    };
    beat.end();
    stop.cancel();
    // The last figures say what became of it.
    recording.finish();
    last.cancel();
    let reported = async {
        match tokio::time::timeout(SHUTDOWN_LIMIT, reporting).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(panic)) => Err(anyhow::anyhow!("a task ended badly: {panic}")),
            Err(_) => {
                tracing::warn!("the figures did not end within {} s and are cut off", SHUTDOWN_LIMIT.as_secs());
                Ok(())
            }
        }
    };
    let (finished, reported) = runtime.block_on(async { tokio::join!(feeds.finish(SHUTDOWN_LIMIT), reported) });
    screen?;
    finished?;
    Ok(reported?)
}

fn window(cli: &Cli, feeds: &mut Feeds, stop: &CancellationToken) -> Result<()> {
    let mut window = Window::open("ROV", cli.window_size(), cli.fullscreen, cli.display)?;
    window.show_badge(!cli.no_badge);
    feeds.save_into(cli.save_dir.clone()).context("no thread for snapshots")?;
    window.run(feeds, stop)?;
    Ok(())
}

/// Writes the figures each second, and at the end.
struct Reporter {
    screen: Arc<Mutex<OnScreen>>,
    beat: Arc<Beat>,
    /// What was reported last.
    newest: Report,
    file: Option<PathBuf>,
    print: Option<Lines>,
    /// Why the file could not be written the last time.
    failure: Option<String>,
    /// Of the thread that shows the pictures.
    watch: BeatWatch,
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
        let now = Instant::now();
        match self.watch.look(self.beat.count(), now) {
            Some(Change::Hangs) => tracing::error!(
                "the window's thread hangs, as in the graphics driver: what is on the screen is old; if that lasts, \
                 start rov-client again, with another --display"
            ),
            Some(Change::GoesOn(lasted)) => tracing::warn!("the window goes on, after {:.1} s", lasted.as_secs_f64()),
            None => {}
        }
        if let Some(screen) = lock_within(&self.screen, SCREEN_LIMIT) {
            self.newest = screen.report(now);
        }
        let mut report = self.newest.clone();
        if let Some(hangs) = self.watch.hangs() {
            (report.state, report.window_hangs_s) = ("hangs".to_owned(), Some(hangs.as_secs_f64()));
        }
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

/// The lock, where it is free within this time.
fn lock_within<T>(mutex: &Mutex<T>, limit: Duration) -> Option<MutexGuard<'_, T>> {
    let end = Instant::now() + limit;
    loop {
        match mutex.try_lock() {
            Ok(guard) => return Some(guard),
            Err(TryLockError::Poisoned(poisoned)) => return Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) if Instant::now() >= end => return None,
            Err(TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(1)),
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
        use tokio::signal::unix::{SignalKind, signal};
        // A terminal that is closed ends what runs in it, unless it was started by `nohup`.
        let hung_up = if is_ignored(libc::SIGHUP) { None } else { signal(SignalKind::hangup()).ok() };
        let hung_up = async {
            match hung_up {
                Some(mut hung_up) => hung_up.recv().await,
                None => std::future::pending().await,
            }
        };
        match signal(SignalKind::terminate()) {
            Ok(mut terminated) => tokio::select! { _ = terminated.recv() => {}, _ = hung_up => {} },
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

/// Whoever started the program has it ignore this signal.
#[cfg(unix)]
fn is_ignored(signal: libc::c_int) -> bool {
    // SAFETY: plain numbers, all zero, and null, are valid here.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: the signal's action is read into a place that outlasts the call.
    let found = unsafe { libc::sigaction(signal, std::ptr::null(), &raw mut action) };
    found == 0 && action.sa_sigaction == libc::SIG_IGN
}

/// Logs into standard error. What is returned writes it.
fn init_log(cli: &Cli) -> Log {
    let filter = match (cli.verbose, cli.quiet) {
        (_, true) => "error",
        // The crate logs each packet that it drops, whole, just when the machine is too busy already.
        (0, _) => "info,rtc=off",
        (1, _) => "debug,rtc=off,ureq=info,rustls=info",
        (..) => "trace",
    };
    Log::start(filter, Form::Text, cli.log_file.as_deref().map(|path| LogFile::new(path, cli.log_file_size)))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[cfg(unix)]
    #[test]
    fn a_signal_that_whoever_started_the_program_has_ignored_is_known() {
        // SAFETY: nothing else here uses this signal, and its action is the usual one again.
        let set = |action| unsafe { libc::signal(libc::SIGUSR2, action) };
        assert!(!is_ignored(libc::SIGUSR2));
        set(libc::SIG_IGN);
        assert!(is_ignored(libc::SIGUSR2));
        set(libc::SIG_DFL);
    }

    #[test]
    fn a_window_that_hangs_with_the_figures_in_its_hands_is_told() {
        gstreamer::init().expect("GStreamer");
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("stats.json");
        let runtime = Runtime::new().expect("a runtime");
        let config = Cli::parse_from(["rov-client", "--url", "http://127.0.0.1:1/whep"]).session().expect("a target");
        let ends = (Instant::now(), CancellationToken::new());
        let feeds = Feeds::start(runtime.handle().clone(), config, None, Arc::default(), ends).expect("feeds");
        let (screen, beat) = (feeds.screen(), Arc::new(Beat::default()));
        beat.beat();
        let _held = lock(&screen);
        let mut reporter = Reporter {
            screen: Arc::clone(&screen),
            beat,
            newest: Report::default(),
            file: Some(file.clone()),
            print: None,
            failure: None,
            watch: BeatWatch::default(),
        };
        let (told, is_told) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            while reporter.watch.hangs().is_none() {
                reporter.report();
            }
            told.send(()).expect("waited for");
        });
        is_told.recv_timeout(Duration::from_secs(30)).expect("told");
        let report: Report = serde_json::from_slice(&std::fs::read(&file).expect("a file")).expect("a report");
        assert!(report.state == "hangs" && report.window_hangs_s.is_some(), "{report:?}");
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
