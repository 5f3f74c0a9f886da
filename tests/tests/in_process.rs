//! Server and client in one process: real encoding, real WebRTC on loopback, real decoding.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rov_client::receive::webrtc::{Connection, Terms};
use rov_client::viewer::Phase;
use rov_common::api::{StreamState, StreamStats};
use rov_common::units::Resolution;
use rov_server::config::Config;
use rov_server::config_file;
use rov_server::server::Server;
use rov_tests::http;
use rov_tests::wait::{self, until_true};
use rov_tests::watcher::{Order, Shot, Watcher, until_counted};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use url::Url;

const SIZE: Resolution = Resolution::new(640, 360);

/// A server in this process.
struct Serving {
    address: SocketAddr,
    stop: CancellationToken,
    run: JoinHandle<anyhow::Result<()>>,
}

impl Serving {
    fn start(runtime: &Runtime) -> Self {
        let args = "rov-server --host 127.0.0.1 --signal-port 0 --rtsp-port 0 --no-discovery --source test --width 640 --height 360";
        let options = config_file::read(args.split(' ').map(OsString::from)).expect("valid options");
        let config = Config::new(&options).expect("a valid configuration");
        let server = runtime.block_on(Server::bind(config)).expect("free ports");
        let address = server.http_addr().expect("the address of HTTP");
        let stop = CancellationToken::new();
        let run = runtime.spawn(server.run(stop.clone()));
        until_true("the stream runs", wait::START, || http::health(address).0 == 200);
        Self { address, stop, run }
    }

    fn whep(&self) -> String {
        format!("http://{}/whep", self.address)
    }

    fn stream(&self) -> StreamStats {
        http::stats(self.address).streams.remove(0)
    }

    /// Stops it, and gives the time that this took.
    fn stop(self, runtime: &Runtime) -> Duration {
        let begun = Instant::now();
        self.stop.cancel();
        let ended = runtime.block_on(async { tokio::time::timeout(Duration::from_secs(5), self.run).await });
        ended.expect("the server ends within 5 s").expect("the server does not panic").expect("the server ends well");
        begun.elapsed()
    }
}

#[test]
fn every_picture_arrives_once_and_in_order() {
    let runtime = Runtime::new().expect("a runtime");
    let server = Serving::start(&runtime);
    let watcher = Watcher::start(&runtime, &["--url", &server.whep()]);
    watcher.wait_for_shots(1);
    let keyframes_at_start = server.stream().keyframes;
    // Three seconds' worth.
    watcher.wait_for_shots(91);

    let (shots, report, stats) = (watcher.shots(), watcher.report(), http::stats(server.address));
    let order = Order::of(&shots);
    let latencies: Vec<_> = shots.iter().filter_map(|shot| shot.latency).collect();
    println!("{order:?}, longest from mark to shown {:?}", latencies.iter().max());
    assert_eq!(order.read, shots.len(), "every picture carries a mark that can be read");
    // The test picture's time is that at which it was due; a busy machine draws it up to two intervals later.
    let drawn_after = |shot: &Shot| {
        let (captured, drawn) = (shot.captured.expect("a time of capture"), shot.drawn.expect("a mark"));
        drawn.as_secs_f64() - captured.as_secs_f64()
    };
    let mut drawn_after: Vec<f64> = shots.iter().map(drawn_after).collect();
    drawn_after.sort_by(f64::total_cmp);
    let (first, median, last) =
        (drawn_after[0], drawn_after[drawn_after.len() / 2], drawn_after[drawn_after.len() - 1]);
    println!("drawn {first:.6}, {median:.6}, {last:.6} s after the time of capture (least, median, most)");
    assert!(drawn_after.iter().any(|late| late.abs() < 0.005) && last < 2.0 / 30.0 + 0.005, "{drawn_after:?}");
    let captured: Vec<_> = shots.iter().map(|shot| shot.captured).collect();
    assert!(captured.windows(2).all(|pair| pair[0] < pair[1]), "each has its own: {captured:?}");
    assert_eq!(order.out_of_order, 0);
    until_counted(order.missing, &report, || http::stats(server.address));
    assert!(shots.iter().all(|shot| shot.resolution == SIZE), "{:?}", shots.last());
    assert_eq!((report.packets_lost, watcher.skipped_in_time(), report.sessions), (0, 0, 1), "{report:?}");
    let stream = &stats.streams[0];
    assert!(stream.keyframes <= keyframes_at_start + report.keyframe_requests, "no keyframe without need");
    assert_eq!(
        (stream.state, stream.width, stream.height, stream.restarts),
        (StreamState::Running, SIZE.width, SIZE.height, 0)
    );
    watcher.stop(&runtime);
    until_true("the viewer is gone", wait::SOON, || http::stats(server.address).viewers.is_empty());
    server.stop(&runtime);
}

#[test]
fn a_second_viewer_gets_a_keyframe_at_once_and_the_first_loses_nothing() {
    let runtime = Runtime::new().expect("a runtime");
    let server = Serving::start(&runtime);
    let first = Watcher::start(&runtime, &["--url", &server.whep()]);
    first.wait_for_shots(30);
    let keyframes = server.stream().keyframes;

    let begun = Instant::now();
    let second = Watcher::start(&runtime, &["--url", &server.whep()]);
    second.wait_for_shots(1);
    println!("the second viewer's first picture came after {:?}", begun.elapsed());
    // Keyframes come on demand alone: this one was made for the second viewer.
    assert!(server.stream().keyframes > keyframes);
    second.wait_for_shots(30);
    first.wait_for_shots(first.shown() + 15);

    let (stats, report) = (http::stats(server.address), first.report());
    let order = Order::of(&first.shots());
    assert_eq!(order.out_of_order, 0);
    until_counted(order.missing, &report, || http::stats(server.address));
    assert_eq!((report.packets_lost, report.frames_skipped, report.keyframe_requests), (0, 0, 0), "{report:?}");
    assert_eq!(stats.viewers.len(), 2, "{stats:?}");
    for viewer in &stats.viewers {
        assert_eq!((viewer.state.as_str(), viewer.nacks, viewer.plis), ("connected", 0, 0), "{viewer:?}");
        assert!(viewer.packets > 0 && viewer.address.starts_with("127.0.0.1:"), "{viewer:?}");
    }
    // One encode serves both: as many pictures left the encoder as the source had made, by their numbers.
    first.wait_for_shots(first.shown() + 2);
    let made = u64::from(first.shots().iter().filter_map(|shot| shot.frame).max().expect("a mark")) + 1;
    assert_eq!(stats.streams.len(), 1);
    assert!(stats.streams[0].frames <= made, "{made} pictures, {:?}", stats.streams[0]);

    second.stop(&runtime);
    first.stop(&runtime);
    server.stop(&runtime);
}

#[test]
fn viewers_are_told_when_the_server_ends() {
    let runtime = Runtime::new().expect("a runtime");
    let server = Serving::start(&runtime);
    let watcher = Watcher::start(&runtime, &["--url", &server.whep()]);
    watcher.wait_for_shots(1);
    let packets = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&packets);
    let (_keep, keyframe_wanted) = mpsc::channel(1);
    let url = Url::parse(&server.whep()).expect("a URL");
    let open = Connection::open(
        url,
        Terms::default(),
        Duration::from_millis(100),
        keyframe_wanted,
        |_| {},
        Arc::new(move |packets, _| {
            counted.fetch_add(packets.count() as u64, Ordering::Relaxed);
        }),
    );
    let connection = runtime.block_on(open).expect("a connection");
    until_true("packets", wait::SOON, || packets.load(Ordering::Relaxed) > 0);

    let begun = Instant::now();
    let Serving { stop, run, .. } = server;
    stop.cancel();
    let run = runtime.spawn(async move { tokio::time::timeout(Duration::from_secs(5), run).await });
    // By the goodbye, which takes milliseconds; without it nobody would know for seconds.
    let told = || connection.closed_by_server();
    until_true("the viewer is told", Duration::from_secs(3), told);
    println!("the viewer knew after {:?}", begun.elapsed());
    // The client's own session notices alike, and looks for the server again.
    until_true("the session has ended", Duration::from_secs(3), || !matches!(watcher.phase(), Phase::Live));
    runtime.block_on(run).expect("no panic").expect("within 5 s").expect("no panic").expect("a clean end");
    println!("the server had ended after {:?}", begun.elapsed());
    runtime.block_on(connection.close());
    watcher.stop(&runtime);
}
