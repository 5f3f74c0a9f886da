use std::process::ExitCode;

use clap::Parser;
use rov_client::{app, cli::Cli};

fn main() -> ExitCode {
    app::run(&Cli::parse())
}
