//! VLC without a window, which writes some of the pictures that it shows into a folder.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::process::{Process, program};
use crate::{media, wait};

/// Of the pictures that it shows, it writes one in so many.
const SHOTS: &str = "--scene-ratio=5";

/// Lets it play `url` until it has shown several pictures of a test stream of 320x240, each later than the one before.
///
/// # Panics
/// When it ends, or shows none, or old ones, or not in their order.
pub fn shows(url: &str, options: &[&str]) {
    let folder = folder();
    let shots = folder.path().join("shots");
    fs::create_dir(&shots).expect("a folder");
    open_to_others(&shots);
    let begun = media::unix_us();
    let mut command = command(folder.path());
    command.args(["--no-audio", "--vout=dummy", "--network-caching=100"]).args(options);
    command.args(["--video-filter=scene", "--scene-format=png", SHOTS, "--scene-prefix=shot"]);
    command.arg("--scene-path").arg(&shots).arg(url);
    let mut vlc = Process::spawn("cvlc", &mut command);
    // As high as the decoder's buffers, a little more than the picture.
    let all = shots.join("*.png");
    let input = ["-pattern_type", "glob", "-i", all.to_str().expect("plain characters")];
    let mut seen = 0;
    let marks = wait::until("four pictures with a mark", wait::START, || {
        assert!(vlc.is_running(), "VLC ended:\n{}", vlc.stderr());
        let count = fs::read_dir(&shots).expect("the folder").count();
        let more = std::mem::replace(&mut seen, count) < count;
        more.then(|| media::marks(&input, 320, 240)).filter(|marks| marks.len() >= 4)
    });
    let is_new = marks.iter().all(|mark| mark.time_us >= begun);
    assert!(is_new && media::is_in_order(&marks), "since {begun}: {marks:?}");
}

/// Whether it has the plugin for RTSP.
pub fn has_rtsp() -> bool {
    let folder = folder();
    let output = command(folder.path()).arg("--list").output().expect("cvlc starts");
    String::from_utf8_lossy(&output.stdout).contains("live555")
}

/// For all that it reads and writes: the user it runs as may not reach the folders of the user who runs the tests.
fn folder() -> TempDir {
    let folder = TempDir::new().expect("a temporary folder");
    open_to_others(folder.path());
    folder
}

fn open_to_others(folder: &Path) {
    fs::set_permissions(folder, fs::Permissions::from_mode(0o777)).expect("permissions");
}

fn command(home: &Path) -> Command {
    let vlc = program("cvlc", "vlc-bin vlc-plugin-base");
    // SAFETY: a system call without arguments.
    let mut command = if unsafe { libc::geteuid() } != 0 {
        Command::new(vlc)
    } else {
        // It refuses root.
        let mut command = Command::new(program("setpriv", "util-linux"));
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(vlc);
        command
    };
    command.env("HOME", home);
    let more = std::env::var_os("ROV_TEST_VLC_PLUGINS").map(PathBuf::from);
    if let Some(files) = more.and_then(|folder| fs::read_dir(folder).ok()) {
        let plugins = home.join("plugins");
        fs::create_dir(&plugins).expect("a folder");
        for file in files.map(|file| file.expect("a folder that can be read")) {
            fs::copy(file.path(), plugins.join(file.file_name())).expect("a copy of a plugin");
        }
        // The plugins, and the libraries that they need.
        command.env("VLC_PLUGIN_PATH", &plugins).env("LD_LIBRARY_PATH", &plugins);
    }
    command
}
