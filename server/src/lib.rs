//! The ROV streamer's server: camera to network. See `ARCHITECTURE.md`.

pub mod choices;
pub mod cli;
pub mod config;
pub mod config_file;
pub mod discovery;
pub mod events;
pub mod hanging;
pub mod http;
mod identity;
pub mod inlet;
mod log_limit;
pub mod onvif;
pub mod output;
mod overlay;
pub mod packetize;
pub mod pipeline;
pub mod progress;
pub mod rate_control;
pub mod rest;
pub mod server;
pub mod service;
pub mod settings;
pub mod stream;
pub mod supervisor;
pub mod telemetry;
pub mod users;
pub mod watchdog;

use std::io::{self, BufRead, IsTerminal, Read, Write};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio_util::sync::CancellationToken;

use cli::Secret;
use config::{Config, MAX_CAMERAS, SourceConfig};
use config_file::Options;
use pipeline::Found;
use rov_common::exit;
use rov_common::held_signals::HeldSignals;
use rov_common::log::Log;
use rov_common::log_file::LogFile;
use rov_common::memory;
use rov_common::redact::redact;
use server::Server;
use service::Service;
use users::{PasswordHash, TokenHash};

/// For the last lines of the log at the end.
const LOG_LIMIT: Duration = Duration::from_millis(500);

/// Runs the server until Ctrl+C, SIGTERM or the end of its source; or checks the configuration, if that is asked for.
/// Signals are `held` until then.
pub fn run(options: &Options, held: HeldSignals) -> u8 {
    if options.check || options.list_cameras || options.secret.is_some() {
        drop(held);
        return match options.secret {
            _ if options.check => check(options),
            Some(secret) if !options.list_cameras => make(secret),
            _ => list_cameras(),
        };
    }
    memory::tend_heaps();
    let log = init_log(options);
    let code = run_logged(options, held);
    log.drain(LOG_LIMIT);
    code
}

fn check(options: &Options) -> u8 {
    // Nobody may be there to read it.
    match Config::new(options) {
        Ok(config) => {
            let _ = writeln!(io::stdout(), "{}", redact(&config.summary().join("\n")));
            exit::SUCCESS
        }
        Err(error) => {
            let _ = writeln!(io::stderr(), "error: {}", redact(&error.to_string()));
            exit::USAGE
        }
    }
}

fn make(secret: Secret) -> u8 {
    let made = match secret {
        Secret::Passwd => asked_password().and_then(|password| Ok(PasswordHash::of(&password)?.as_str().to_owned())),
        Secret::Token => users::new_token().map(|token| format!("{token}\n{}", TokenHash::of(&token))),
    };
    match made {
        Ok(text) => {
            // Nobody may be there to read it.
            let _ = writeln!(io::stdout(), "{text}");
            exit::SUCCESS
        }
        Err(error) => {
            let _ = writeln!(io::stderr(), "error: {error:#}");
            exit::USAGE
        }
    }
}

/// At a terminal twice, and not shown.
fn asked_password() -> Result<String> {
    if !io::stdin().is_terminal() {
        let mut line = String::new();
        io::stdin().lock().take(4096).read_line(&mut line).context("no password on standard input")?;
        return Ok(line.trim_end_matches(['\r', '\n']).to_owned());
    }
    let password = rpassword::prompt_password("Password: ").context("no password")?;
    let again = rpassword::prompt_password("Again: ").context("no password")?;
    ensure!(password == again, "the two passwords differ");
    Ok(password)
}

fn list_cameras() -> u8 {
    let found = pipeline::cameras_present(&SourceConfig::default());
    let line = |camera: &Found| format!("{camera}, now {}", camera.id);
    let lines: Vec<_> = found.iter().map(line).collect();
    let text = if lines.is_empty() { "no camera found".to_owned() } else { lines.join("\n") };
    // Nobody may be there to read it.
    let _ = writeln!(io::stdout(), "{text}");
    exit::SUCCESS
}

fn run_logged(options: &Options, held: HeldSignals) -> u8 {
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "cannot start the runtime");
            return exit::FAILURE;
        }
    };
    let code = runtime.block_on(async {
        let shutdown = CancellationToken::new();
        let signalled = shutdown.clone();
        match stop_signal() {
            Ok(stop) => drop(tokio::spawn(async move {
                stop.await;
                tracing::info!("stopping");
                signalled.cancel();
            })),
            Err(error) => tracing::error!(%error, "cannot wait for signals"),
        }
        // One that has come already is heard now.
        drop(held);
        let prepared = tokio::select! {
            prepared = prepare(options) => prepared,
            () = shutdown.cancelled() => return exit::SUCCESS,
        };
        let server = match prepared {
            Ok(server) => server.managed_by(Service::from_env()),
            Err(error) => {
                tracing::error!("{error:#}");
                return exit::USAGE;
            }
        };
        match server.run(shutdown).await {
            Ok(()) => exit::SUCCESS,
            Err(error) => {
                tracing::error!("{error:#}");
                if error.is::<supervisor::Fatal>() { exit::USAGE } else { exit::FAILURE }
            }
        }
    });
    // A driver that hangs does not keep the process: everything that can be ended in order has ended.
    runtime.shutdown_background();
    code
}

async fn prepare(options: &Options) -> Result<Server> {
    if let Some(ms) = options.machine.options.webrtc_latency {
        tracing::info!(
            "--webrtc-latency {ms} has no effect: nothing waits here; rov-client --latency is for lost packets"
        );
    }
    let config = Config::new(options)?;
    Server::bind(if config.all_cameras { with_all_cameras(config).await? } else { config }).await
}

async fn with_all_cameras(config: Config) -> Result<Config> {
    let source = config.cameras[0].source.clone();
    let found = tokio::task::spawn_blocking(move || pipeline::cameras_present(&source)).await?;
    match found.get(MAX_CAMERAS..) {
        _ if found.is_empty() => tracing::warn!(
            "--all-cameras: no camera is found; the first that comes is taken, and all that are there at the next start"
        ),
        Some(more @ [_, ..]) => {
            let more: Vec<_> = more.iter().map(Found::to_string).collect();
            tracing::warn!("--all-cameras takes {MAX_CAMERAS} and leaves out {}", more.join(", "));
        }
        _ => {}
    }
    let config = config.with_found(&found)?;
    for (camera, found) in config.cameras.iter().zip(&found) {
        tracing::info!(camera = camera.name, "{found}");
    }
    Ok(config)
}

/// Ctrl+C, or SIGTERM where there is such a thing: from this call on, not only once it is waited for.
#[cfg(unix)]
fn stop_signal() -> io::Result<impl Future<Output = ()> + Send> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    Ok(async move {
        tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} }
    })
}

#[cfg(not(unix))]
fn stop_signal() -> io::Result<impl Future<Output = ()> + Send> {
    let mut interrupt = tokio::signal::windows::ctrl_c()?;
    Ok(async move {
        interrupt.recv().await;
    })
}

fn init_log(options: &Options) -> Log {
    let options = &options.machine.options;
    // The WebRTC core warns of each stray packet; its own troubles are reported by the sessions.
    let filter = match (options.verbose.unwrap_or(0), options.quiet.unwrap_or(0)) {
        (0, 0) => "info,rtc=error,webrtc=error",
        (1, 0) => "debug,rtc=warn,webrtc=warn,hyper=info",
        (_, 0) => "trace",
        (_, 1) => "warn,rtc=error,webrtc=error",
        (..) => "error",
    };
    let file = options.log_file.as_deref().map(|path| LogFile::new(path, options.log_file_size));
    Log::start(filter, options.log_format.unwrap_or_default(), file)
}
