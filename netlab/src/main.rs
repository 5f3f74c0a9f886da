//! `netlab`: see `netlab --help`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use netlab::lab::Lab;
use netlab::report::{self, ReportArgs, RowArgs};
use netlab::run::{self, RunArgs};
use netlab::watch;

/// A link that loses, delays, reorders and breaks, between a robot's end and a pilot's end on this machine, and what
/// rov-server and its viewers make of it. Needs root and /dev/net/tun; nothing leaves the machine.
#[derive(Debug, Parser)]
#[command(name = "netlab", version)]
struct Cli {
    #[command(subcommand)]
    command: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Run any commands at the two ends of the link
    Run(RunArgs),
    /// Measure what the link itself adds on this machine
    Check,
    /// Run the whole matrix, and write its figures down
    Report(ReportArgs),
    /// Run one row of the matrix, and print its figures
    Row(RowArgs),
    /// A viewer that writes down what it shows; the rest are options of rov-client
    #[command(hide = true)]
    Watch { out: PathBuf, args: Vec<String> },
    #[command(hide = true)]
    WatchChromium { out: PathBuf, host: String },
    #[command(hide = true)]
    Camera { port: u16 },
}

fn main() -> ExitCode {
    match act(Cli::parse()) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("netlab: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn act(cli: Cli) -> Result<u8> {
    match cli.command {
        Action::Run(args) => run::run(&args),
        Action::Check => check(),
        Action::Report(args) => report::report(&args),
        Action::Row(args) => report::row(&args),
        Action::Watch { out, args } => watch::client(&out, &args).map(|()| 0),
        Action::WatchChromium { out, host } => watch::browser(&out, &host).map(|()| 0),
        Action::Camera { port } => watch::camera(port).map(|()| 0),
    }
}

fn check() -> Result<u8> {
    let lab = Lab::start(1)?;
    for link in ["clear", "delay=2ms", "delay=20ms jitter=5ms"] {
        lab.link("clear")?;
        lab.link(link)?;
        let [p50, p99, max] = lab.crossing(1000, 1200)?;
        println!("{link}: one way {p50:?} (p50), {p99:?} (p99), {max:?} (longest)");
    }
    let [p50, p99, max] = lab.figures().late;
    println!("frames left later than due by {p50:?} (p50), {p99:?} (p99), {max:?} (max)");
    Ok(0)
}
