//! Headless Chromium.

use std::process::Command;

use tempfile::TempDir;

use crate::process::{Process, program};

/// The page that watches a stream; behind a [`Proxy`](crate::proxy::Proxy). Its comments say what it takes and gives.
pub const PAGE: &str = concat!(include_str!("page.html"), "<script>", include_str!("mark.js"), "</script>");

/// A running Chromium with a profile of its own; it ends when it is dropped.
pub struct Browser {
    process: Process,
    // Dropped after the process, which writes into it to the end.
    _profile: TempDir,
}

impl Browser {
    /// Opens `url`, which must be on loopback: nothing else can be reached.
    pub fn open(url: &str) -> Self {
        Self::start(|command| command.arg(url))
    }

    /// Starts it with what `more` adds to its command line.
    pub(crate) fn start(more: impl FnOnce(&mut Command) -> &mut Command) -> Self {
        let profile = TempDir::new().expect("a temporary folder");
        let mut command = Command::new(program("chromium", "chromium"));
        command
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-quic"])
            .args(["--no-first-run", "--no-default-browser-check", "--disable-extensions", "--disable-sync"])
            .args(["--disable-background-networking", "--disable-component-update", "--disable-default-apps"])
            .arg("--autoplay-policy=no-user-gesture-required")
            // No multicast DNS, and no names but loopback's: the test talks to this machine alone.
            .arg("--disable-features=WebRtcHideLocalIpsWithMdns,OptimizationHints,MediaRouter,Translate")
            .arg("--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1")
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .env("HOME", profile.path())
            .env("TMPDIR", profile.path());
        Self { process: Process::spawn("chromium", more(&mut command)), _profile: profile }
    }

    pub fn is_running(&mut self) -> bool {
        self.process.is_running()
    }
}
