//! As a service: what the service manager hears (sd_notify(3)).

use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use rov_tests::programs::{Client, Server};
use rov_tests::wait;
use tempfile::TempDir;

/// The manager's end.
struct Manager {
    socket: UnixDatagram,
    path: String,
    heard: Vec<String>,
    _folder: TempDir,
}

impl Manager {
    fn new() -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        let path = folder.path().join("notify").to_str().expect("a path of plain characters").to_owned();
        let socket = UnixDatagram::bind(&path).expect("a socket");
        socket.set_read_timeout(Some(Duration::from_millis(50))).expect("a time-out");
        Self { socket, path, heard: Vec::new(), _folder: folder }
    }

    /// Starts a server under it, which shall show a sign of life each second.
    fn start(&self, args: &[&str]) -> Server {
        Server::start_with_env(&[("NOTIFY_SOCKET", &self.path), ("WATCHDOG_USEC", "2000000")], args)
    }

    /// Waits for a message that `wanted` is true of, and forgets those before.
    fn wait_for(&mut self, what: &str, wanted: impl Fn(&str) -> bool) -> String {
        let mut buffer = [0; 4096];
        wait::until(&format!("the manager hears {what}"), wait::START, || {
            while let Ok(length) = self.socket.recv(&mut buffer) {
                self.heard.push(String::from_utf8_lossy(&buffer[..length]).into_owned());
            }
            let at = self.heard.iter().position(|message| wanted(message))?;
            self.heard.drain(..=at).next_back()
        })
    }
}

#[test]
fn the_service_manager_hears_that_it_is_ready_what_it_does_that_it_lives_and_that_it_stops() {
    let mut manager = Manager::new();
    let mut server = manager.start(&["--bitrate", "1000"]);
    manager.wait_for("READY", |message| message == "READY=1");
    for _ in 0..3 {
        manager.wait_for("a sign of life", |message| message == "WATCHDOG=1");
    }
    manager
        .wait_for("that it rests", |message| message.starts_with("STATUS=resting, nobody looks: 320x240@30 x264enc"));
    let mut client = Client::start(&["--url", &server.url("/whep")]);
    client.wait_for_frames(0, 1);
    let streaming = "STATUS=streaming 320x240@30 x264enc 1.0 Mbit/s from test picture, 1 viewer";
    manager.wait_for(streaming, |message| message == streaming);
    assert_eq!(server.process.stop(libc::SIGTERM, wait::SOON), 0);
    manager.wait_for("STOPPING", |message| message.starts_with("STOPPING=1"));
}

#[test]
fn without_a_camera_the_service_is_ready_and_says_so() {
    let mut manager = Manager::new();
    let _server = manager.start(&["--source", "webcam", "--device", "/dev/video987"]);
    let status = manager.wait_for("the status", |message| message.starts_with("STATUS=restarting: "));
    assert!(status.contains("no webcam /dev/video987"), "{status}");
    manager.wait_for("READY", |message| message == "READY=1");
    manager.wait_for("a sign of life", |message| message == "WATCHDOG=1");
}
