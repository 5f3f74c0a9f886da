use std::process::ExitCode;

use rov_server::{config_file, run};

fn main() -> ExitCode {
    match config_file::read(std::env::args_os()) {
        Ok(cli) => run(&cli),
        Err(error) => error.report(),
    }
}
