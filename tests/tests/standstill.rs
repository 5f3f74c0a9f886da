//! The server stands still for some seconds, as on a machine that is suspended: what waited meanwhile is not shown, and
//! the picture comes back once.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use rov_tests::camera::{Camera, PipedCamera, Settings};
use rov_tests::programs::Server;
use rov_tests::wait::{self, until_true};
use rov_tests::watcher::Watcher;
use tokio::runtime::Runtime;

/// Pictures with a mark, six megabits a second of them, and a keyframe each second.
const PICTURES: &str = "videotestsrc is-live=true pattern=zone-plate kx2=20 ky2=20 kt=10 \
                        ! video/x-raw,format=I420,width=640,height=360,framerate=25/1 ! identity name=mark \
                        ! x264enc tune=zerolatency speed-preset=ultrafast key-int-max=25 threads=1 bitrate=6000";
/// What is dark a second time is so within five seconds.
const SHOWN: usize = 7 * 25;
const BACK: Duration = Duration::from_millis(1_500);
/// No pause after that is this long.
const GAP: Duration = Duration::from_millis(500);
/// One keyframe interval, and some for a busy machine.
const OLD: Duration = Duration::from_millis(2_500);
/// Of each length. A busy machine may be late in one, or have the source started again.
const ROUNDS: usize = 4;

/// Lets the server stand still for `time`, and sees that nothing old is shown after that; whether pictures came back
/// soon, and went on.
fn is_back_once(server: &Server, watcher: &Watcher, time: Duration) -> bool {
    watcher.wait_for_shots(watcher.shown() + 30);
    server.process.signal(libc::SIGSTOP);
    // Not waited for anything: a machine may stand still for so long.
    std::thread::sleep(time);
    let before = watcher.shown();
    server.process.signal(libc::SIGCONT);
    let back = Instant::now();
    until_true("pictures", wait::START, || watcher.shown() >= before + SHOWN);
    let shots = watcher.shots()[before..].to_vec();
    let oldest = shots.iter().filter_map(|shot| shot.latency).max().expect("marks");
    assert!(oldest < OLD, "after {time:?}: {shots:?}");
    let took = shots[0].shown_at.saturating_duration_since(back);
    let gaps = shots.windows(2).map(|pair| pair[1].shown_at.saturating_duration_since(pair[0].shown_at));
    let gap = gaps.max().unwrap_or_default();
    println!("after {time:?}: back after {took:?}, then {gap:?} without, the oldest {oldest:?}");
    took < BACK && gap < GAP
}

/// What the pipe or the connection does not take waits in the camera, and then comes at once.
fn comes_back(server: &Server, what: &str, times: &[u64]) {
    let runtime = Runtime::new().expect("a runtime");
    let watcher = Watcher::start(&runtime, &["--url", &server.url("/whep")]);
    for seconds in times {
        let time = Duration::from_secs(*seconds);
        let mut rounds = (0..ROUNDS).map(|_| is_back_once(server, &watcher, time));
        assert!(rounds.any(|is_well| is_well), "{what}, after {time:?}: {}", server.process.stderr());
    }
    watcher.stop(&runtime);
}

/// A machine that is too busy for the source to go on within a second has it started again, which leaves them out too.
fn says_that_old_ones_are_left_out(mut server: Server) {
    let said = |line: &str| (line.contains("old pictures left out") || line.contains("restarting in")).then_some(());
    server.process.wait_for_line("that they were left out", wait::SOON, said);
}

#[test]
fn what_waited_in_a_pipe_is_not_shown() {
    for (source, times) in [(["--source", "stdin"], &[2, 5, 12][..]), (["--pipeline", "fdsrc ! h264parse"], &[5])] {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        let _camera = PipedCamera::start(PICTURES, writer);
        let server = Server::start_with_input(&source, reader);
        comes_back(&server, source[1], times);
        says_that_old_ones_are_left_out(server);
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
    comes_back(&server, &pipeline, &[5]);
    says_that_old_ones_are_left_out(server);
}

#[test]
fn what_an_ip_camera_sent_by_udp_meanwhile_is_not_shown() {
    of_an_ip_camera(false, &[2, 5, 12]);
}

#[test]
fn what_an_ip_camera_sent_by_tcp_meanwhile_is_not_shown() {
    of_an_ip_camera(true, &[2, 5]);
}

fn of_an_ip_camera(tcp_only: bool, times: &[u64]) {
    let launch = format!("( {PICTURES} ! h264parse ! rtph264pay name=pay0 config-interval=-1 )");
    let camera = Camera::with(&launch, Settings { tcp_only, ..Settings::default() });
    let server = Server::start(&["--source", "rtsp", "--url", &camera.url]);
    comes_back(&server, &camera.url, times);
}
