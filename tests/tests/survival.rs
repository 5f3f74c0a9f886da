//! What must not end the server, or hold up its end.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rov_common::api::StreamState;
use rov_tests::http;
use rov_tests::media::Clip;
use rov_tests::process::binary;
use rov_tests::programs::{Client, Server};
use rov_tests::wait::{self, until_true};

/// What the server promises for its end.
const END: Duration = Duration::from_secs(5);

/// Killed at the end of a test, however that comes.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Killed {
    fn signal(&self, signal: libc::c_int) {
        // SAFETY: a system call without pointers; the child is not reaped yet, so the id is its own.
        assert_eq!(unsafe { libc::kill(self.0.id() as libc::pid_t, signal) }, 0);
    }
}

#[test]
fn a_request_that_is_never_finished_does_not_hold_up_the_end() {
    let mut server = Server::start(&[]);
    let mut client = Client::start(&["--url", &server.url("/whep")]);
    client.wait_for_frames(0, 5);
    let mut unfinished = TcpStream::connect(server.address).expect("a connection");
    unfinished.write_all(b"GET /heal").expect("half a request");
    let begun = Instant::now();
    assert_eq!(server.process.stop(libc::SIGTERM, END), 0);
    println!("the server ended after {:?}", begun.elapsed());
}

#[test]
fn standard_input_that_pauses_is_said_and_goes_on() {
    let mut source = Clip { seconds: 600, audio: false, ..Clip::default() }.annex_b_command();
    let mut source = Killed(source.stdin(Stdio::null()).spawn().expect("ffmpeg starts"));
    let server = Server::start_with_input(&["--source", "stdin"], source.0.stdout.take().expect("a pipe"));
    server.wait_until_running();
    source.signal(libc::SIGSTOP);
    until_true("the server says that nothing comes", wait::SOON, || {
        let (status, health) = server.health();
        let stream = &health.streams["stream1"];
        status == 503 && stream.state == StreamState::Stalled && stream.reason.is_some()
    });
    source.signal(libc::SIGCONT);
    server.wait_until_running();
    assert_eq!(server.stats().streams[0].restarts, 0, "a restart would lose what the pipe holds");
}

#[test]
fn a_log_that_nobody_reads_any_more_does_not_end_the_server() {
    let mut command = Command::new(binary("rov-server"));
    command
        .env_remove("RUST_LOG")
        .args(["--host", "127.0.0.1", "--signal-port", "0", "--rtsp-port", "0"])
        .args(["--no-discovery", "-v"]);
    command.args(["--source", "test", "--width", "320", "--height", "240"]);
    let mut server = Killed(command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().expect("rov-server starts"));
    let mut log = BufReader::new(server.0.stderr.take().expect("stderr is piped"));
    let mut line = String::new();
    let address: SocketAddr = loop {
        line.clear();
        assert_ne!(log.read_line(&mut line).expect("a line of the log"), 0, "it ended before it listened");
        if let Some((address, _)) = line.split_once("http://").and_then(|(_, rest)| rest.split_once(", WebRTC")) {
            break address.parse().expect("an address");
        }
    };
    drop(log);
    let mut client = Client::start(&["--url", &format!("http://{address}/whep")]);
    // Each of them makes it write lines.
    client.wait_for_frames(0, 5);
    assert_eq!(client.process.stop(libc::SIGTERM, END), 0);
    until_true("the viewer is gone", wait::SOON, || http::stats(address).viewers.is_empty());
    assert!(server.0.try_wait().expect("waiting for a child").is_none(), "the server has ended");
}

#[test]
fn a_source_that_says_it_is_over_is_started_again() {
    let server =
        Server::start(&["--pipeline", "videotestsrc is-live=true num-buffers=40 ! video/x-raw,width=320,height=240"]);
    let mut client = Client::start(&["--url", &server.url("/whep")]);
    until_true("the pipeline was restarted", wait::START, || server.stats().streams[0].restarts >= 1);
    let shown = client.wait_for_frames(0, 1).frames_shown;
    let report = client.wait_for_frames(shown, 30);
    assert_eq!(report.sessions, 1, "the viewer stayed connected");
}
