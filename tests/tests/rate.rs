//! A link that becomes slow: the bit rate follows, and the picture stays new.

use std::time::{Duration, Instant};

use rov_common::api::StreamStats;
use rov_tests::programs::Server;
use rov_tests::proxy::Proxy;
use rov_tests::relay::Network;
use rov_tests::wait;
use rov_tests::watcher::{Shot, Watcher};
use tokio::runtime::Runtime;

/// What the pilot sees beyond this is late.
const LATE: Duration = Duration::from_millis(150);

fn stream(server: &Server) -> StreamStats {
    server.stats().streams.remove(0)
}

#[test]
fn the_bit_rate_follows_the_pilots_link_and_comes_back() {
    // A picture that needs its bits.
    let server = Server::start(&["--width", "1280", "--height", "720", "--bitrate", "4000"]);
    let runtime = Runtime::new().expect("a runtime");
    let network = Network::new(Duration::from_millis(2), 1);
    let proxy = Proxy::start(&runtime, server.address, "", Some(network.clone()));
    let watcher = Watcher::start(&runtime, &["--url", &proxy.url("/whep")]);
    watcher.wait_for_shots(30);
    let start = Instant::now();
    network.set_rate(2_000_000);
    let log = |what: &str| {
        let shots = watcher.shots();
        let late: Vec<u128> = shots[shots.len().saturating_sub(4)..].iter().filter_map(|s| s.latency).map(|l| l.as_millis()).collect();
        print!("{late:?} ");
        let stats = server.stats();
        println!("{:6.2} {what} target {} actual {:.0} {:?}", start.elapsed().as_secs_f64(), stats.streams[0].target_bitrate_kbps, stats.streams[0].bitrate_kbps, stats.viewers.first().map(|v| (v.estimate_kbps, v.queue_ms as u32, v.thinned, v.nacks, v.plis, v.loss)));
    };
    for _ in 0..200 { log("limited"); std::thread::sleep(Duration::from_millis(100)); }
    network.set_rate(0);
    for _ in 0..40 { log("free"); std::thread::sleep(Duration::from_millis(500)); }
    let _ = (LATE, stream(&server), wait::SOON, None::<Shot>);
    watcher.stop(&runtime);
}
