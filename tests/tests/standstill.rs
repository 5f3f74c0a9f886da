//! The server stands still for some seconds, as on a machine that is suspended: what waited meanwhile is not shown.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use rov_tests::camera::PipedCamera;
use rov_tests::programs::Server;
use rov_tests::wait::{self, until_true};
use rov_tests::watcher::{Shot, Watcher};
use tokio::runtime::Runtime;

/// Pictures with a mark, six megabits a second of them, and a keyframe each second.
const PICTURES: &str = "videotestsrc is-live=true pattern=zone-plate kx2=20 ky2=20 kt=10 \
                        ! video/x-raw,format=I420,width=640,height=360,framerate=25/1 ! identity name=mark \
                        ! x264enc tune=zerolatency speed-preset=ultrafast key-int-max=25 threads=1 bitrate=6000";

/// Lets the server stand still for `time`, and gives what was shown after that until `count` new pictures were.
fn stand_still(server: &Server, watcher: &Watcher, time: Duration, count: usize) -> Vec<Shot> {
    watcher.wait_for_shots(watcher.shown() + 30);
    server.process.signal(libc::SIGSTOP);
    // Not waited for anything: a machine may stand still for so long.
    std::thread::sleep(time);
    let before = watcher.shown();
    server.process.signal(libc::SIGCONT);
    let back = Instant::now();
    until_true("pictures", wait::START, || watcher.shown() >= before + count);
    let shots = watcher.shots()[before..].to_vec();
    let oldest = shots.iter().filter_map(|shot| shot.latency).max();
    println!("back after {:?}, the oldest {oldest:?}", shots[0].shown_at - back);
    shots
}

/// What the pipe or the connection does not take waits in the camera, and then comes at once.
fn shows_nothing_old(mut server: Server, what: &str) {
    let runtime = Runtime::new().expect("a runtime");
    let watcher = Watcher::start(&runtime, &["--url", &server.url("/whep")]);
    let shots = stand_still(&server, &watcher, Duration::from_secs(5), 60);
    // One keyframe interval, and some for a busy machine.
    let old = shots.iter().filter(|shot| shot.latency.is_some_and(|age| age > Duration::from_millis(2_500))).count();
    assert_eq!(old, 0, "{what}: {shots:?}");
    // A machine that is too busy for the source to go on within a second has it started again, which leaves them out
    // too.
    let said = |line: &str| (line.contains("old pictures left out") || line.contains("restarting in")).then_some(());
    server.process.wait_for_line("that they were left out", wait::SOON, said);
    watcher.stop(&runtime);
}

#[test]
fn what_waited_in_a_pipe_is_not_shown() {
    for source in [["--source", "stdin"], ["--pipeline", "fdsrc ! h264parse"]] {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        let _camera = PipedCamera::start(PICTURES, writer);
        shows_nothing_old(Server::start_with_input(&source, reader), source[1]);
    }
}

#[test]
fn what_waited_in_a_connection_is_not_shown() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("its address").port();
    let pipeline = format!("tcpclientsrc host=127.0.0.1 port={port} ! h264parse");
    let server = Server::start(&["--pipeline", &pipeline]);
    listener.set_nonblocking(true).expect("a socket");
    let (connection, _) = wait::until("a connection", wait::START, || listener.accept().ok());
    let _camera = PipedCamera::start(PICTURES, connection);
    shows_nothing_old(server, &pipeline);
}
