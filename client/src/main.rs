use std::io::{IsTerminal, stderr};

use clap::Parser;
use rov_client::{app, cli::Cli};
use rov_common::exit;
use rov_common::redact::redact_typed;

fn main() {
    exit::end(match Cli::try_parse() {
        Ok(cli) => app::run(&cli),
        // It may repeat what was typed, and this goes into a log.
        Err(error) if error.use_stderr() && !stderr().is_terminal() => {
            eprint!("{}", redact_typed(&error.to_string(), std::env::args_os()));
            exit::USAGE
        }
        Err(error) => error.exit(),
    })
}
