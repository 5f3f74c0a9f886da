use std::process::ExitCode;

use clap::Parser;
use rov_server::{cli::Cli, run};

fn main() -> ExitCode {
    run(&Cli::parse())
}
