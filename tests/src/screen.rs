//! A virtual X server, for programs that need a screen.

use std::process::Command;

use crate::process::{Process, program};
use crate::wait;

/// An X server with a screen of 1280x720 in memory; it ends when it is dropped.
pub struct Screen {
    process: Process,
    /// For the environment of the programs that are to draw there.
    pub display: String,
}

impl Screen {
    /// Starts it at a display that it chooses.
    pub fn start() -> Self {
        let mut command = Command::new(program("Xvfb", "xvfb"));
        // -displayfd: it takes a free display and writes its number, once it listens.
        // -noreset: else it takes no connections for a moment when the last program has gone.
        command.args(["-displayfd", "2", "-noreset", "-nolisten", "tcp", "-screen", "0", "1280x720x24"]);
        let mut process = Process::spawn("Xvfb", &mut command);
        let number =
            process.wait_for_line("the number of its display", wait::START, |line| line.trim().parse::<u32>().ok());
        Self { process, display: format!(":{number}") }
    }

    /// It answers nobody, or again.
    pub fn set_hanging(&self, hangs: bool) {
        self.process.signal(if hangs { libc::SIGSTOP } else { libc::SIGCONT });
    }
}
