use std::process::ExitCode;

use rov_server::{config_file, run};

fn main() -> ExitCode {
    match config_file::read(std::env::args_os()) {
        Ok(options) => run(&options),
        Err(error) => error.report(),
    }
}
