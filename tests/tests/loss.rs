//! A network that loses packets.

use std::time::Duration;

use rov_tests::programs::Server;
use rov_tests::proxy::Proxy;
use rov_tests::relay::Network;
use rov_tests::watcher::{Order, Watcher, left_out};
use tokio::runtime::Runtime;

#[test]
fn retransmissions_repair_what_the_network_loses() {
    let server = Server::start(&["--width", "640", "--height", "360"]);
    let runtime = Runtime::new().expect("a runtime");
    let network = Network::new(Duration::from_millis(2), 1);
    let proxy = Proxy::start(&runtime, server.address, "", Some(network.clone()));
    let watcher = Watcher::start(&runtime, &["--url", &proxy.url("/whep"), "--latency", "100"]);
    watcher.wait_for_shots(10);
    assert_eq!(watcher.report().packets_lost, 0, "a network without losses");

    network.set_loss(0.02);
    let from = watcher.shown();
    // Five seconds' worth.
    watcher.wait_for_shots(from + 150);
    let (order, report, stats) = (Order::of(&watcher.shots()[from..]), watcher.report(), server.stats());
    let (passed, dropped) = network.counts();
    println!("{dropped} of {} datagrams lost, {order:?}, {:?}", passed + dropped, stats.viewers);
    assert!(dropped > 0);
    assert!(stats.viewers[0].nacks > 0, "{stats:?}");
    assert_eq!((order.out_of_order, report.sessions), (0, 1), "{report:?}");
    let missing = order.missing.saturating_sub(left_out(&report, &stats));
    assert!(missing <= 3, "98 % are shown: {order:?} {report:?}");
    watcher.stop(&runtime);
}
