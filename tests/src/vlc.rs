//! VLC without a window, which writes some of the pictures that it shows into a folder.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use tempfile::TempDir;

use crate::process::{Process, program};
use crate::wait;

/// Lets it play `url` until it has shown some pictures.
///
/// # Panics
/// When it ends, or shows none.
pub fn shows(url: &str, options: &[&str]) {
    let folder = TempDir::new().expect("a temporary folder");
    let shots = folder.path().join("shots");
    fs::create_dir(&shots).expect("a folder");
    for path in [folder.path(), &shots] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o777)).expect("permissions");
    }
    let mut command = command();
    command.args(["--no-audio", "--vout=dummy", "--network-caching=100"]).args(options);
    command.args(["--video-filter=scene", "--scene-format=png", "--scene-ratio=5", "--scene-prefix=shot"]);
    command.arg("--scene-path").arg(&shots).arg(url).env("HOME", folder.path());
    let mut vlc = Process::spawn("cvlc", &mut command);
    let pictures = || fs::read_dir(&shots).expect("the folder").count();
    wait::until_true("three snapshots", wait::START, || {
        assert!(vlc.is_running(), "VLC ended:\n{}", vlc.stderr());
        pictures() >= 3
    });
    // The bars of the test picture, and not one colour.
    let shot = shots.join("shot00006.png");
    wait::until_true("a whole snapshot", wait::SOON, || fs::metadata(&shot).is_ok_and(|file| file.len() > 1_000));
}

/// Whether it has the plugin for RTSP, which Debian leaves out.
pub fn has_rtsp() -> bool {
    let output = command().arg("--list").env("HOME", "/nonexistent").output().expect("cvlc starts");
    String::from_utf8_lossy(&output.stdout).contains("live555")
}

fn command() -> Command {
    let vlc = program("cvlc", "vlc-bin vlc-plugin-base");
    // SAFETY: a system call without arguments.
    if unsafe { libc::geteuid() } != 0 {
        return Command::new(vlc);
    }
    // It refuses root.
    let mut command = Command::new(program("setpriv", "util-linux"));
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(vlc);
    command
}
