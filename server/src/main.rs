use rov_common::exit;
use rov_server::{config_file, run};

fn main() {
    exit::end(match config_file::read(std::env::args_os()) {
        Ok(options) => run(&options),
        Err(error) => error.report(),
    })
}
