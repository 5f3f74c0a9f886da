//! What clients of HTTP may cost: connections, time and memory have limits, and nobody is locked out by others.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use rov_server::http::Limits;
use rov_tests::in_process::Serving;
use rov_tests::programs::Server;
use rov_tests::wait::{self, until_true};
use rov_tests::watcher::Watcher;
use rov_tests::{OFFER, http, jpeg};
use tokio::runtime::Runtime;

/// The server's limits are 10 s at the most; a busy machine may take longer.
const LIMIT: Duration = Duration::from_secs(30);
/// Those of a server in this process: long enough for a request that is sent at once.
const SHORT: Duration = Duration::from_secs(2);

/// A server with shorter limits than its own.
fn impatient(runtime: &Runtime) -> Serving {
    let limits = Limits { header: SHORT, body: SHORT, write: SHORT, ..Limits::default() };
    Serving::start(runtime, &["--source", "test", "--width", "320", "--height", "240"], |config| {
        config.http_limits = limits;
    })
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect_timeout(&address, wait::SOON).expect("a connection");
    stream.set_read_timeout(Some(LIMIT)).expect("a time limit");
    stream
}

/// All that the server sends until it closes the connection, which it must.
fn read_to_close(mut stream: TcpStream) -> String {
    let mut text = Vec::new();
    match stream.read_to_end(&mut text) {
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
        Err(error) => panic!("the connection is still open: {error}"),
    }
    String::from_utf8_lossy(&text).into_owned()
}

#[test]
fn a_header_that_does_not_come_ends_its_connection() {
    let runtime = Runtime::new().expect("a runtime");
    let server = impatient(&runtime);
    let begun = Instant::now();
    let silent = connect(server.address);
    let mut slow = connect(server.address);
    slow.write_all(b"GET /healthz HTTP/1.1\r\nHost: localh").expect("sending");
    // One that was used before and then is idle, too.
    let mut idle = connect(server.address);
    idle.write_all(b"GET /favicon.svg HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("sending");
    assert_eq!(read_to_close(silent), "");
    let answer = read_to_close(slow);
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
    assert!(read_to_close(idle).starts_with("HTTP/1.1 200"));
    assert!(begun.elapsed() >= SHORT, "closed by its limit, not before: {:?}", begun.elapsed());
    server.stop(&runtime);
}

#[test]
fn a_body_that_does_not_come_is_refused_with_408() {
    let runtime = Runtime::new().expect("a runtime");
    let server = impatient(&runtime);
    let mut slow = connect(server.address);
    let head =
        "POST /whep HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/sdp\r\nContent-Length: 1000\r\n\r\nv=0";
    slow.write_all(head.as_bytes()).expect("sending");
    let answer = read_to_close(slow);
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    assert!(answer.contains("{\"error\":\"the body of the request did not come within 2 s\"}"), "{answer}");
    server.stop(&runtime);
}

#[test]
fn a_header_or_body_that_is_too_large_is_refused() {
    let server = Server::start(&[]);
    let large = "x".repeat(100_000);
    let many: String = (0..500).map(|i| format!("x-{i}: 1\r\n")).collect();
    for head in [format!("GET /{large} HTTP/1.1\r\n\r\n"), format!("GET / HTTP/1.1\r\nx: {large}\r\n\r\n"), many] {
        let mut stream = connect(server.address);
        let head = if head.starts_with("GET") { head } else { format!("GET / HTTP/1.1\r\n{head}\r\n") };
        // The server may have closed before it is all sent.
        let _ = stream.write_all(head.as_bytes());
        let answer = read_to_close(stream);
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
    }
    let body = vec![b'x'; 3_000_000];
    let reply = http::request("POST", &server.url("/whep"), Some("application/sdp"), &body);
    assert_eq!((reply.status, reply.error().as_str()), (413, "the body is larger than 65536 bytes"));
    assert_eq!(http::get(&server.url("/")).status, 200);
}

#[test]
fn a_thousand_connections_that_ask_nothing_lock_nobody_out() {
    allow_open_files(4096);
    let server = Server::start(&[]);
    server.wait_until_running();
    let runtime = Runtime::new().expect("a runtime");
    let watcher = Watcher::start(&runtime, &["--url", &server.url("/whep")]);
    watcher.wait_for_shots(30);
    let before = server.process.footprint();
    let mut half_open: Vec<TcpStream> = (0..1000).map(|_| connect(server.address)).collect();
    for stream in half_open.iter_mut().skip(1).step_by(2) {
        // Those that have lost their place by now may say so.
        let _ = stream.write_all(b"POST /whep HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/sdp\r\n");
    }
    let asked = Instant::now();
    assert_eq!(http::get(&server.url("/")).status, 200);
    assert!(server.is_well());
    assert!(asked.elapsed() < wait::SOON / 2, "{:?}", asked.elapsed());
    let now = server.process.footprint();
    assert!(now.files <= before.files + 256 + 8, "{before:?} {now:?}");
    // A header of 32 KiB at the most for each place, and what a connection takes beside it.
    assert!(now.resident_kb <= before.resident_kb + 16 * 1024, "{before:?} {now:?}");
    watcher.wait_for_shots(watcher.shown() + 30);
    // They are gone without a word of theirs, by the limit of 10 s that is served.
    until_true("their places are free", LIMIT, || server.process.footprint().files <= before.files + 4);
    drop(half_open);
    let report = watcher.report();
    assert_eq!(report.sessions, 1, "the viewer has not noticed: {report:?}");
    watcher.stop(&runtime);
}

#[test]
fn an_answer_that_is_not_read_ends_its_connection() {
    let runtime = Runtime::new().expect("a runtime");
    let server = impatient(&runtime);
    let mut deaf = connect(server.address);
    deaf.set_write_timeout(Some(Duration::from_millis(100))).expect("a time limit");
    let request = b"GET /viewer.js HTTP/1.1\r\nHost: localhost\r\n\r\n";
    // Far more answers than the buffers between the two take: until the server stops reading.
    let many = request.repeat(1000);
    let stuck = (0..1000).any(|_| deaf.write_all(&many).is_err());
    assert!(stuck, "the server reads on although nobody takes its answers");
    assert_eq!(http::get(&server.url("/healthz")).status, 200);
    // Until then a write would wait for room.
    until_true("the connection has ended", LIMIT, || {
        let ended = [ErrorKind::ConnectionReset, ErrorKind::BrokenPipe];
        deaf.write(b"G").is_err_and(|error| ended.contains(&error.kind()))
    });
    server.stop(&runtime);
}

#[test]
fn too_many_open_files_end_nothing() {
    let mut server = Server::start(&[]);
    server.wait_until_running();
    let open = server.process.footprint().files as libc::rlim_t;
    let limited = limit_open_files(server.process.pid(), open + 3);
    let mut waiting: Vec<TcpStream> = (0..20).map(|_| connect(server.address)).collect();
    server
        .process
        .wait_for_line("the warning", wait::SOON, |line| line.contains("cannot take HTTP connections").then_some(()));
    for stream in &mut waiting {
        stream
            .write_all(b"GET /favicon.svg HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            .expect("sending");
    }
    limit_open_files(server.process.pid(), limited);
    for stream in waiting {
        assert!(read_to_close(stream).starts_with("HTTP/1.1 200"));
    }
    let warnings = server.process.stderr().matches("cannot take HTTP connections").count();
    assert!(warnings < 5, "it is said now and then, not at each try: {warnings}");
    assert!(server.is_well());
}

#[test]
fn where_few_files_may_be_open_connections_leave_the_others_some() {
    let server = Server::start(&[]);
    server.wait_until_running();
    // They are a quarter of it at most.
    let before = server.process.footprint().files;
    let limit = before as libc::rlim_t * 2;
    limit_open_files(server.process.pid(), limit);
    let silent: Vec<TcpStream> = (0..200).map(|_| connect(server.address)).collect();
    assert!(server.is_well());
    assert_eq!(jpeg::get(server.address, "/snapshot.jpg").status, 200, "what else needs files has them");
    let log = server.process.stderr();
    assert!(!log.contains("cannot take HTTP connections"), "{log}");
    drop(silent);
}

/// Of this process, which has the other ends.
fn allow_open_files(count: libc::rlim_t) {
    limit_open_files(std::process::id(), count);
}

/// Sets the limit of a process's open files, and gives what it was.
fn limit_open_files(pid: u32, count: libc::rlim_t) -> libc::rlim_t {
    let mut old = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the pointers are null or to a live rlimit.
    unsafe {
        assert_eq!(libc::prlimit(pid as libc::pid_t, libc::RLIMIT_NOFILE, std::ptr::null(), &mut old), 0);
        let new = libc::rlimit { rlim_cur: count.min(old.rlim_max), rlim_max: old.rlim_max };
        assert_eq!(libc::prlimit(pid as libc::pid_t, libc::RLIMIT_NOFILE, &new, std::ptr::null_mut()), 0);
    }
    old.rlim_cur
}

#[test]
fn one_viewer_more_than_the_limit_takes_the_place_of_one_that_has_not_connected() {
    let server = Server::start(&["--max-viewers", "2"]);
    let ask = || http::request("POST", &server.url("/whep"), Some("application/sdp"), OFFER.as_bytes());
    let first = ask();
    assert_eq!((first.status, ask().status), (201, 201), "{first:?}");
    assert_eq!((ask().status, server.stats().viewers.len()), (201, 2));
    assert_eq!(http::request("DELETE", first.location().as_str(), None, b"").status, 404, "it was the oldest");
}
