//! What becomes of the programs when what they write cannot be written: a full disk, a reader that is gone or stands
//! still.

use std::fs::{File, OpenOptions};
use std::io::PipeReader;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsRawFd;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rov_client::stats::Report;
use rov_tests::process::binary;
use rov_tests::programs::{Server, client_process};
use rov_tests::{http, wait};
use tempfile::TempDir;

const END: Duration = Duration::from_secs(5);

/// A program with standard output and error of its own choice; killed when it is dropped.
struct Program(Child);

impl Program {
    fn start(name: &str, args: &[&str], out: impl Into<Stdio>, err: impl Into<Stdio>) -> Self {
        let mut command = Command::new(binary(name));
        command.env_remove("RUST_LOG").env_remove("ROV_PASSWORD").args(args);
        Self(command.stdin(Stdio::null()).stdout(out).stderr(err).spawn().expect("it starts"))
    }

    /// Ends it by SIGTERM, and gives the exit code.
    fn stop(mut self) -> Option<i32> {
        // SAFETY: a system call without pointers; the child is not reaped yet, so that the id is its own.
        unsafe { libc::kill(self.0.id() as libc::pid_t, libc::SIGTERM) };
        wait::until("the end", END, || self.0.try_wait().expect("a child")).code()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn full() -> File {
    OpenOptions::new().write(true).open("/dev/full").expect("/dev/full, where every write finds the disk full")
}

/// A small pipe that nobody reads, as long as its reader is held.
fn unread() -> (PipeReader, Stdio) {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    // SAFETY: a system call without pointers.
    let size = unsafe { libc::fcntl(writer.as_raw_fd(), libc::F_SETPIPE_SZ, 4096) };
    assert!(size > 0, "{}", std::io::Error::last_os_error());
    (reader, writer.into())
}

/// A pipe whose reader is gone.
fn gone() -> Stdio {
    std::io::pipe().expect("a pipe").1.into()
}

/// Has `test` run with each kind of standard output and error that takes nothing.
fn with_each_broken_log(test: impl Fn(&str, Stdio, Stdio)) {
    test("a full disk", full().into(), full().into());
    test("readers that are gone", gone(), gone());
    let ((_reader, out), (_other, err)) = (unread(), unread());
    test("readers that stand still", out, err);
}

fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a free port")
}

#[test]
fn figures_that_cannot_be_written_end_no_client_and_are_tried_again() {
    let server = Server::start(&[]);
    let folder = TempDir::new().expect("a folder");
    let file = folder.path().join("missing").join("figures.json");
    let path = file.to_str().expect("UTF-8");
    let mut client = client_process(&["--headless", "--url", &server.url("/whep"), "--stats-json", path]);
    let said = |line: &str| line.contains("cannot write").then(|| line.to_owned());
    let line = client.wait_for_line("the reason", wait::START, said);
    assert!(line.contains(path) && line.contains("No such file"), "{line}");
    wait::until_true("pictures all the same", wait::START, || {
        server.stats().viewers.first().is_some_and(|viewer| viewer.packets > 100)
    });
    std::fs::create_dir(folder.path().join("missing")).expect("a folder");
    let shown = || Some(serde_json::from_slice::<Report>(&std::fs::read(&file).ok()?).expect("whole").frames_shown);
    wait::until_true("the file is written", wait::SOON, || shown().is_some_and(|frames| frames > 0));
    let log = client.stderr();
    assert_eq!(log.matches("cannot write").count(), 1, "said once: {log}");
    assert_eq!(client.stop(libc::SIGTERM, END), 0);
}

#[test]
fn a_device_for_the_figures_is_written_into_and_not_replaced() {
    let server = Server::start(&[]);
    let mut client = client_process(&["--headless", "--url", &server.url("/whep"), "--stats-json", "/dev/full"]);
    let said = |line: &str| line.contains("--stats-json /dev/full: cannot write: No space left").then_some(());
    client.wait_for_line("the reason", wait::START, said);
    assert_eq!(client.stop(libc::SIGTERM, END), 0);
    assert!(std::fs::metadata("/dev/full").is_ok_and(|file| !file.is_file()), "the device is still there");
}

#[test]
fn a_client_shows_pictures_whatever_becomes_of_its_log() {
    let server = Server::start(&[]);
    let url = server.url("/whep");
    with_each_broken_log(|what, out, err| {
        let folder = TempDir::new().expect("a folder");
        let file = folder.path().join("figures.json");
        let path = file.to_str().expect("UTF-8");
        let args = ["--headless", "-vv", "--url", &url, "--stats-json", path];
        let client = Program::start("rov-client", &args, out, err);
        let frames = || {
            let text = std::fs::read(&file).ok()?;
            Some(serde_json::from_slice::<Report>(&text).expect("a whole report").frames_shown)
        };
        wait::until_true(&format!("{what}: pictures"), wait::START, || frames().is_some_and(|frames| frames > 90));
        assert_eq!(client.stop(), Some(0), "{what}");
    });
}

#[test]
fn a_server_serves_whatever_becomes_of_its_log() {
    with_each_broken_log(|what, out, err| {
        let address = free_address();
        let port = address.port().to_string();
        let args = ["-vv", "--host", "127.0.0.1", "--signal-port", &port, "--rtsp-port", "0", "--no-discovery"];
        let picture = ["--source", "test", "--width", "320", "--height", "240", "--always-encode"];
        let server = Program::start("rov-server", &[&args[..], &picture[..]].concat(), out, err);
        let answers = || std::net::TcpStream::connect(address).is_ok();
        wait::until_true(&format!("{what}: it listens"), wait::START, answers);
        let frames = || http::stats(address).streams[0].frames;
        wait::until_true(&format!("{what}: pictures"), wait::START, || frames() > 0);
        let before = frames();
        wait::until_true(&format!("{what}: more pictures"), wait::START, || frames() > before + 60);
        assert_eq!(server.stop(), Some(0), "{what}");
    });
}

#[test]
fn the_log_is_in_the_file_too_from_when_that_can_be_written() {
    let folder = TempDir::new().expect("a folder");
    let (missing, client_file) = (folder.path().join("missing"), folder.path().join("client.log"));
    let file = missing.join("server.log");
    let server = Server::start(&["--log-file", file.to_str().expect("UTF-8")]);
    const FAILED: &str = "the log file cannot be written (No such file";
    server.process.logs(&[FAILED]);
    std::fs::create_dir(&missing).expect("a folder");
    let path = client_file.to_str().expect("UTF-8");
    let mut client = client_process(&["--headless", "--url", &server.url("/whep"), "--log-file", path]);
    let has = |file: &std::path::Path, text: &str| {
        std::fs::read_to_string(file).is_ok_and(|log| log.contains(text) && !log.contains('\u{1b}'))
    };
    wait::until_true("the client's log", wait::START, || has(&client_file, "video from "));
    assert_eq!(client.stop(libc::SIGTERM, END), 0);
    wait::until_true("the server's log", wait::SOON, || has(&file, "viewer gone"));
    assert_eq!(server.process.stderr().matches(FAILED).count(), 1, "said once");
}
