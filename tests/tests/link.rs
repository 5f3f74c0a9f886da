//! A link that breaks down, and one that changes the order of packets.

use std::time::{Duration, Instant};

use rov_client::viewer::Phase;
use rov_tests::programs::{Server, free_udp_port};
use rov_tests::proxy::Proxy;
use rov_tests::relay::Network;
use rov_tests::wait::{self, until_true};
use rov_tests::watcher::{Order, Watcher, until_counted};
use tokio::runtime::Runtime;

/// A server, and a viewer of it behind a network.
struct Watched {
    server: Server,
    network: std::sync::Arc<Network>,
    _proxy: Proxy,
    watcher: Watcher,
    runtime: Runtime,
}

fn watch() -> Watched {
    let server = Server::start(&["--width", "640", "--height", "360"]);
    let runtime = Runtime::new().expect("a runtime");
    let network = Network::new(Duration::from_millis(2), 1);
    let proxy = Proxy::start(&runtime, server.address, "", Some(network.clone()));
    let watcher = Watcher::start(&runtime, &["--url", &proxy.url("/whep")]);
    watcher.wait_for_shots(20);
    Watched { server, network, _proxy: proxy, watcher, runtime }
}

impl Watched {
    /// The link breaks down until `is_over`, and comes back, and with it the picture.
    fn outage(&self, what: &str, is_over: impl FnMut() -> bool) {
        self.network.set_down(true);
        until_true(what, wait::START, is_over);
        let shown = self.watcher.shown();
        let back = Instant::now();
        self.network.set_down(false);
        self.watcher.wait_for_shots(shown + 1);
        let first = self.watcher.shots()[shown];
        self.watcher.wait_for_shots(shown + 20);
        let order = Order::of(&self.watcher.shots());
        assert_eq!(order.out_of_order, 0, "nothing old is shown: {order:?}");
        println!("the first picture came {:?} after the link, {:?} old", first.shown_at - back, first.latency);
        // Not of the beginning of the outage, which was longer.
        let made = first.latency.and_then(|latency| first.shown_at.checked_sub(latency)).expect("a mark");
        assert!(made + Duration::from_secs(1) > back, "{first:?}");
    }

    fn nacks(&self) -> u64 {
        self.server.stats().viewers.iter().map(|viewer| viewer.nacks).sum()
    }
}

#[test]
fn after_a_short_outage_the_picture_moves_again_in_the_same_session_and_nothing_old_is_sent() {
    let watched = watch();
    let begun = Instant::now();
    watched.outage("an outage of two seconds", || begun.elapsed() >= Duration::from_secs(2));
    let report = watched.watcher.report();
    assert_eq!((report.sessions, watched.watcher.phase()), (1, Phase::Live), "{report:?}");
    assert!(report.keyframe_requests >= 1, "{report:?}");
    assert!(watched.nacks() < 50, "{:?}", watched.server.stats());
    watched.watcher.stop(&watched.runtime);
}

#[test]
fn after_a_long_outage_there_is_a_new_session_by_itself_and_by_no_worse_transport() {
    let watched = watch();
    let phase = || watched.watcher.phase();
    watched.outage("the session is given up", || matches!(phase(), Phase::Lost(_) | Phase::Connecting(_)));
    assert_eq!((watched.watcher.report().sessions, watched.watcher.transport()), (2, "WebRTC".to_owned()));
    until_true("the former session has ended", wait::START, || watched.server.stats().viewers.len() == 1);
    watched.watcher.stop(&watched.runtime);
}

#[test]
fn packets_that_overtake_each_other_are_neither_lost_nor_sent_again() {
    let watched = watch();
    watched.network.set_reordering(0.05);
    let from = watched.watcher.shown();
    // Five seconds' worth.
    watched.watcher.wait_for_shots(from + 150);
    let (order, report) = (Order::of(&watched.watcher.shots()[from..]), watched.watcher.report());
    let (passed, _) = watched.network.counts();
    println!("{passed} datagrams, {} requests, {order:?}", watched.nacks());
    assert_eq!((report.packets_lost, order.out_of_order), (0, 0), "{report:?}");
    until_counted(order.missing, &report, || watched.server.stats());
    assert!(watched.nacks() <= passed / 100, "{} requests for {passed} datagrams", watched.nacks());
    watched.watcher.stop(&watched.runtime);
}

#[test]
fn a_server_that_answers_no_more_and_is_heard_at_another_address_is_followed() {
    let port = free_udp_port().to_string();
    let options = ["--name", "Nemo", "--discovery-port", &port];
    let first = Server::start(&options);
    let runtime = Runtime::new().expect("a runtime");
    let watcher = Watcher::start(&runtime, &["--auto", "--interface", "lo", "--discovery-port", &port]);
    watcher.wait_for_shots(10);
    // As when its link is gone: its sockets are there, and nothing answers.
    first.process.signal(libc::SIGSTOP);
    let second = Server::start(&options);
    let begun = Instant::now();
    until_true("a second session", wait::START, || watcher.report().sessions == 2);
    println!("followed after {:?}", begun.elapsed());
    let shown = watcher.shown();
    watcher.wait_for_shots(shown + 10);
    assert_eq!(watcher.report().server, second.address.to_string());
    watcher.stop(&runtime);
}
