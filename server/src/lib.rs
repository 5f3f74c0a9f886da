//! The ROV streamer's server: camera to network. See `ARCHITECTURE.md`.

pub mod cli;
pub mod config;
pub mod config_file;
pub mod discovery;
pub mod http;
mod identity;
pub mod output;
pub mod packetize;
pub mod pipeline;
pub mod progress;
pub mod rate_control;
pub mod rest;
pub mod server;
pub mod service;
pub mod stream;
pub mod supervisor;
pub mod watchdog;

use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

use cli::{Cli, LogFormat};
use config::Config;
use rov_common::lines::Lines;
use rov_common::memory;
use server::Server;
use service::Service;

/// Wrong configuration, or a port that is taken.
const EXIT_USAGE: u8 = 2;
/// For the last lines of the log at the end.
const LOG_LIMIT: Duration = Duration::from_millis(500);

/// Runs the server until Ctrl+C, SIGTERM or the end of its source.
pub fn run(cli: &Cli) -> ExitCode {
    memory::tend_heaps();
    let log = init_log(cli);
    let code = run_logged(cli);
    log.drain(LOG_LIMIT);
    code
}

fn run_logged(cli: &Cli) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "cannot start the runtime");
            return ExitCode::FAILURE;
        }
    };
    let code = runtime.block_on(async {
        let server = match prepare(cli).await {
            Ok(server) => server.managed_by(Service::from_env()),
            Err(error) => {
                tracing::error!("{error:#}");
                return ExitCode::from(EXIT_USAGE);
            }
        };
        let shutdown = CancellationToken::new();
        let signalled = shutdown.clone();
        tokio::spawn(async move {
            if let Err(error) = stop_signal().await {
                tracing::error!(%error, "cannot wait for signals");
            }
            tracing::info!("stopping");
            signalled.cancel();
        });
        match server.run(shutdown).await {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                tracing::error!("{error:#}");
                if error.is::<supervisor::Fatal>() { ExitCode::from(EXIT_USAGE) } else { ExitCode::FAILURE }
            }
        }
    });
    // A driver that hangs does not keep the process: everything that can be ended in order has ended.
    runtime.shutdown_background();
    code
}

async fn prepare(cli: &Cli) -> Result<Server> {
    if let Some(ms) = cli.webrtc_latency {
        tracing::info!(
            "--webrtc-latency {ms} has no effect: nothing waits here; rov-client --latency is for lost packets"
        );
    }
    let config = Config::from_cli(cli).map_err(|error| anyhow::anyhow!(config_file::located(&error.0, cli)))?;
    Server::bind(config).await
}

/// Ctrl+C, or SIGTERM where there is such a thing.
async fn stop_signal() -> std::io::Result<()> {
    #[cfg(unix)]
    {
        let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
        tokio::select! {
            result = tokio::signal::ctrl_c() => result,
            _ = terminate.recv() => Ok(()),
        }
    }
    #[cfg(not(unix))]
    tokio::signal::ctrl_c().await
}

/// Logs into standard error. What is returned writes it.
fn init_log(cli: &Cli) -> Lines {
    // The WebRTC core warns of each stray packet; its own troubles are reported by the sessions.
    let filter = match (cli.verbose, cli.quiet) {
        (0, 0) => "info,rtc=error,webrtc=error",
        (1, 0) => "debug,rtc=warn,webrtc=warn,hyper=info",
        (_, 0) => "trace",
        (_, 1) => "warn,rtc=error,webrtc=error",
        (..) => "error",
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(filter));
    let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|set| set.is_empty());
    let lines = Lines::stderr();
    let writer = lines.clone();
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(move || writer.clone())
        .with_ansi(colours)
        .log_internal_errors(false);
    match cli.log_format {
        LogFormat::Text => log.with_target(false).init(),
        LogFormat::Json => log.json().init(),
    }
    lines
}
