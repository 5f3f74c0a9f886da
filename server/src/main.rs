use rov_common::exit;
use rov_common::held_signals::HeldSignals;
use rov_server::{config_file, run};

fn main() {
    let held = HeldSignals::hold();
    exit::end(match config_file::read(std::env::args_os()) {
        Ok(options) => run(&options, held),
        Err(error) => error.report(),
    })
}
