//! Which vehicle is shown: servers that prove who they are, others that only say so, and the pilot's choice.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rov_client::discovery;
use rov_client::viewer::{Offer, Phase};
use rov_common::discovery::{Announcement, Message, RtpInfo, encode};
use rov_common::units::Resolution;
use rov_tests::programs::{Server, client_process, free_udp_port};
use rov_tests::proxy::Proxy;
use rov_tests::relay::Network;
use rov_tests::rtp::free_rtp_port;
use rov_tests::rtp_sender::{RtpSender, free_port_pair};
use rov_tests::wait::{self, until, until_true};
use rov_tests::watcher::Watcher;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use url::Url;

const ANNOUNCE_EVERY: Duration = Duration::from_millis(100);

/// Announces what it is told, from an address of its own, until it is dropped.
struct Announcer(Arc<AtomicBool>);

impl Announcer {
    fn start(from: Ipv4Addr, discovery_port: u16, announcement: Announcement) -> Self {
        let running = Arc::new(AtomicBool::new(true));
        let socket = UdpSocket::bind((from, 0)).expect("a UDP socket");
        socket.set_broadcast(true).expect("it may broadcast");
        let datagram = encode(&Message::Announce(announcement));
        let runs = Arc::clone(&running);
        std::thread::spawn(move || {
            while runs.load(Ordering::Relaxed) {
                // The next one is sent in any case.
                let _ = socket.send_to(&datagram, ("127.255.255.255", discovery_port));
                std::thread::sleep(ANNOUNCE_EVERY);
            }
        });
        Self(running)
    }
}

impl Drop for Announcer {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

/// A vehicle with a port, a folder for its key and a name, which can be started again.
struct Vehicle {
    discovery_port: u16,
    signal_port: u16,
    state: TempDir,
}

impl Vehicle {
    fn new() -> Self {
        let free = TcpListener::bind("127.0.0.1:0").expect("a TCP socket");
        let signal_port = free.local_addr().expect("its address").port();
        Self { discovery_port: free_udp_port(), signal_port, state: TempDir::new().expect("a temporary folder") }
    }

    fn start(&self, name: &str, signal_port: u16) -> Server {
        let (discovery, signal) = (self.discovery_port.to_string(), signal_port.to_string());
        let state = self.state.path().to_str().expect("a path");
        Server::start(&["--name", name, "--discovery-port", &discovery, "--signal-port", &signal, "--state-dir", state])
    }

    /// The server called Nemo, what it announces, and a client that shows it.
    fn watched(&self, runtime: &Runtime, args: &[&str]) -> (Server, Announcement, Watcher) {
        let robot = self.start("Nemo", self.signal_port);
        let announced = self.announcement(runtime);
        let watcher = self.watch(runtime, args);
        watcher.wait_for_shots(10);
        (robot, announced, watcher)
    }

    fn watch(&self, runtime: &Runtime, args: &[&str]) -> Watcher {
        let port = self.discovery_port.to_string();
        Watcher::start(runtime, &[&["--interface", "lo", "--discovery-port", &port], args].concat())
    }

    /// What it announces.
    fn announcement(&self, runtime: &Runtime) -> Announcement {
        let found = runtime.block_on(async {
            let mut discovery = discovery::bind(self.discovery_port, vec!["lo".to_owned()]).expect("sockets");
            // It ends soon after the one that there is.
            discovery.search(None, wait::START, |_| ()).await
        });
        assert_eq!(found.len(), 1, "{found:?}");
        found[0].announcement.clone()
    }
}

/// Another vehicle, which nobody finds by itself.
fn stranger(host: Ipv4Addr) -> Server {
    Server::start(&["--host", &host.to_string()])
}

fn offers(watcher: &Watcher, number: usize) -> Vec<Offer> {
    until("a question", wait::START, || {
        watcher.choice().question().map(|question| question.offers).filter(|offers| offers.len() == number)
    })
}

fn offer_of(offers: &[Offer], address: SocketAddr) -> Offer {
    let address = address.to_string();
    offers.iter().find(|offer| offer.address == address).unwrap_or_else(|| panic!("{address} in {offers:?}")).clone()
}

#[test]
fn whoever_repeats_a_servers_announcement_is_not_shown_and_the_server_is_when_it_is_back() {
    let (runtime, vehicle) = (Runtime::new().expect("a runtime"), Vehicle::new());
    let (mut robot, real, watcher) = vehicle.watched(&runtime, &["--auto"]);
    assert!(real.key.is_some(), "{real:?}");
    let from = Ipv4Addr::new(127, 0, 0, 3);
    let other = stranger(from);
    let replayed = Announcement { signal_port: other.address.port(), ..real };
    let _impostor = Announcer::start(from, vehicle.discovery_port, replayed);
    robot.process.kill();
    until_true(
        "the impostor is tried and left",
        wait::START,
        || matches!(watcher.phase(), Phase::Lost(reason) if reason.contains("does not prove the key")),
    );
    let again = vehicle.start("Nemo", vehicle.signal_port);
    until_true("the second session", wait::START, || watcher.report().sessions == 2);
    assert_eq!(watcher.report().server, again.address.to_string());
    let shown = watcher.shown();
    watcher.wait_for_shots(shown + 10);
    assert!(other.stats().viewers.is_empty());
    watcher.stop(&runtime);
}

#[test]
fn whoever_proves_no_key_at_a_servers_address_is_not_shown_and_the_server_is_when_it_is_back() {
    let (runtime, vehicle) = (Runtime::new().expect("a runtime"), Vehicle::new());
    let (mut robot, real, watcher) = vehicle.watched(&runtime, &["--auto"]);
    robot.process.kill();
    let rtp = RtpInfo { host: Ipv4Addr::new(239, 255, 77, 9), port: free_rtp_port(), fec: false, ssrc: None };
    let forged = Announcement {
        id: "forged".to_owned(),
        key: None,
        transports: vec!["rtp".to_owned()],
        rtp: Some(rtp),
        ..real.clone()
    };
    let _impostor = Announcer::start(Ipv4Addr::LOCALHOST, vehicle.discovery_port, forged);
    let asked = offers(&watcher, 1);
    assert!(asked[0].label.contains("proves no key, unlike Nemo before"), "{asked:?}");
    assert_eq!(watcher.choice().question().and_then(|question| question.takes_first_at), None);
    let _again = vehicle.start("Nemo", vehicle.signal_port);
    until_true("the second session", wait::START, || watcher.report().sessions == 2);
    assert_eq!((watcher.report().server_id, watcher.report().transport), (real.id, "webrtc".to_owned()));
    watcher.stop(&runtime);
}

#[test]
fn from_a_server_that_proves_nothing_the_pilot_goes_back_to_the_one_that_proved_its_key() {
    let (runtime, vehicle) = (Runtime::new().expect("a runtime"), Vehicle::new());
    let (mut robot, real, watcher) = vehicle.watched(&runtime, &[]);
    robot.process.kill();
    let from = Ipv4Addr::new(127, 0, 0, 3);
    let other = stranger(from);
    let (id, signal_port) = ("other".to_owned(), other.address.port());
    let announced = Announcement { id, key: None, run: None, signal_port, ..real.clone() };
    let _announced = Announcer::start(from, vehicle.discovery_port, announced);
    let asked = offers(&watcher, 1);
    watcher.choice().choose(asked[0].clone());
    until_true("it is watched", wait::START, || watcher.report().sessions == 2);
    assert_eq!(watcher.report().server, other.address.to_string());
    let again = vehicle.start("Nemo", vehicle.signal_port);
    let question = until("the way back", wait::START, || {
        watcher
            .choice()
            .question()
            .filter(|question| question.text.contains("Nemo, verified by its key before, is back"))
    });
    // Not by itself.
    assert_eq!((question.takes_first_at, watcher.report().sessions), (None, 2));
    watcher.choice().choose(offer_of(&question.offers, again.address));
    until_true("the third session", wait::START, || watcher.report().sessions == 3);
    assert_eq!((watcher.report().server_id, watcher.report().transport), (real.id, "webrtc".to_owned()));
    watcher.stop(&runtime);
}

#[test]
fn after_a_proof_rtp_of_a_forged_announcement_is_not_shown_where_webrtc_fails() {
    let (runtime, vehicle) = (Runtime::new().expect("a runtime"), Vehicle::new());
    let robot = vehicle.start("Nemo", vehicle.signal_port);
    // Its HTTP passes, and its media as long as it shall.
    let network = Network::new(Duration::ZERO, 1);
    let proxy = Proxy::start(&runtime, robot.address, "", Some(Arc::clone(&network)));
    let signal_port = Url::parse(&proxy.url("/")).expect("a URL").port().expect("its port");
    let real = Announcement { signal_port, ..vehicle.announcement(&runtime) };
    let discovery_port = free_udp_port();
    let announced = Announcer::start(Ipv4Addr::LOCALHOST, discovery_port, real.clone());
    let watcher = Watcher::start(&runtime, &["--interface", "lo", "--discovery-port", &discovery_port.to_string()]);
    watcher.wait_for_shots(10);
    // All that it says is public.
    let port = free_port_pair();
    let rtp = RtpInfo { host: Ipv4Addr::LOCALHOST, port, fec: false, ssrc: None };
    let other = Server::start(&["--width", "480", "--height", "270"]);
    let _sent = RtpSender::start(&runtime, &other, SocketAddr::from(([127, 0, 0, 1], port)), 1);
    drop(announced);
    let forged = Announcement { rtp: Some(rtp), ..real };
    let _forged = Announcer::start(Ipv4Addr::LOCALHOST, discovery_port, forged);
    network.set_loss(1.0);
    // What its own statistics said is taken: it has RTSP.
    let is_live = || watcher.report().transport != "webrtc" && watcher.phase() == Phase::Live;
    until_true("another way", 2 * wait::START, is_live);
    let shown = watcher.shown();
    watcher.wait_for_shots(shown + 10);
    assert_eq!(watcher.report().transport, "rtsp");
    assert!(watcher.shots().iter().all(|shot| shot.resolution != Resolution::new(480, 270)), "another's picture");
    watcher.stop(&runtime);
}

#[test]
fn a_server_that_comes_back_with_another_name_and_port_is_followed() {
    let (runtime, vehicle) = (Runtime::new().expect("a runtime"), Vehicle::new());
    let mut before = vehicle.start("Nemo", vehicle.signal_port);
    let watcher = vehicle.watch(&runtime, &[]);
    watcher.wait_for_shots(10);
    before.process.kill();
    let after = vehicle.start("Dory", 0);
    until_true("the second session", wait::START, || watcher.report().sessions == 2);
    assert_eq!((watcher.report().server, watcher.report().server_name), (after.address.to_string(), "Dory".to_owned()));
    let news = format!("Dory answers in the place of Nemo, at {}", after.address);
    assert_eq!(watcher.notices(), [news], "the pilot is told");
    watcher.stop(&runtime);
}

#[test]
fn another_machine_with_the_servers_id_is_said_beside_the_picture_while_it_is_heard() {
    let (runtime, vehicle) = (Runtime::new().expect("a runtime"), Vehicle::new());
    let (robot, real, watcher) = vehicle.watched(&runtime, &[]);
    assert_eq!(watcher.notices(), [""; 0]);
    let copied = Announcement { key: None, ..real.clone() };
    let twin = Announcer::start(Ipv4Addr::new(127, 0, 0, 3), vehicle.discovery_port, copied);
    let says = |part: &str| watcher.notices().iter().any(|notice| notice.contains(part));
    until_true("the twin is said", wait::SOON, || says("127.0.0.3:") && says("also claims to be Nemo"));
    drop(twin);
    until_true("it is silent", wait::SOON, || watcher.notices().is_empty());
    // A copy with the key too is told by the number of its start.
    let copied = Announcement { run: real.run.map(|run| !run), ..real.clone() };
    assert!(copied.run.is_some(), "{real:?}");
    let twin = Announcer::start(Ipv4Addr::new(127, 0, 0, 3), vehicle.discovery_port, copied);
    until_true("the copy is said", wait::SOON, || says("127.0.0.3:") && says("with the same key: a copied card"));
    drop(twin);
    until_true("it is silent", wait::SOON, || watcher.notices().is_empty());
    assert_eq!((watcher.report().sessions, watcher.report().server), (1, robot.address.to_string()));
    watcher.stop(&runtime);
}

/// As of two vehicles with copies of one image and one factory address: names and ids are the same, too.
#[test]
fn at_a_named_address_another_server_is_followed_and_said_but_not_one_that_was_started_again() {
    let (runtime, vehicle) = (Runtime::new().expect("a runtime"), Vehicle::new());
    let start = |state: &TempDir| {
        let (port, state) = (vehicle.signal_port.to_string(), state.path().to_str().expect("a path"));
        Server::start(&["--name", "Nemo", "--signal-port", &port, "--state-dir", state])
    };
    let mut first = start(&vehicle.state);
    let watcher = Watcher::start(&runtime, &["--url", &first.url("/whep")]);
    let sees = |session: u64| {
        until_true("pictures of a new session, and whose", wait::START, || {
            watcher.shots().last().is_some_and(|shot| shot.session == session) && watcher.report().server_name == "Nemo"
        });
    };
    sees(1);
    first.process.kill();
    let mut again = start(&vehicle.state);
    sees(2);
    assert_eq!(watcher.notices(), [""; 0], "the same one");
    again.process.kill();
    let copied = TempDir::new().expect("a temporary folder");
    let other = start(&copied);
    sees(3);
    let news = format!("another server answers at {}, or Nemo with a new key", other.address);
    assert_eq!(watcher.notices(), [news]);
    watcher.stop(&runtime);
}

/// Where another vehicle is plugged in instead.
#[test]
fn of_another_server_at_a_named_address_each_stream_is_told() {
    let (runtime, vehicle) = (Runtime::new().expect("a runtime"), Vehicle::new());
    let start = |name: &str, state: &TempDir| {
        let (port, state) = (vehicle.signal_port.to_string(), state.path().to_str().expect("a path"));
        let two = ["--stream2", "160x120@30,500"];
        Server::start(&[&["--name", name, "--signal-port", &port, "--state-dir", state], &two[..]].concat())
    };
    let mut nemo = start("Nemo", &vehicle.state);
    let address = nemo.address.to_string();
    let tiles = Watcher::start_grid(&runtime, &[&address], &["stream1", "stream2"]);
    let see = |name: &str| {
        until_true(&format!("both see {name}"), wait::START, || {
            tiles.iter().all(|tile| tile.phase() == Phase::Live && tile.report().server_name == name)
        });
    };
    see("Nemo");
    nemo.process.kill();
    let other = TempDir::new().expect("a temporary folder");
    let _dory = start("Dory", &other);
    see("Dory");
    let news = format!("another server answers at {address}, or Nemo with a new key");
    assert_eq!(tiles.iter().map(Watcher::notices).collect::<Vec<_>>(), [[news.clone()], [news]]);
    tiles.into_iter().for_each(|tile| tile.stop(&runtime));
}

#[test]
fn with_auto_another_server_that_proves_its_key_is_taken_after_the_countdown() {
    let (runtime, vehicle) = (Runtime::new().expect("a runtime"), Vehicle::new());
    let (mut robot, real, watcher) = vehicle.watched(&runtime, &["--auto"]);
    robot.process.kill();
    // It was not beside the first.
    let from = Ipv4Addr::new(127, 0, 0, 3);
    let other = stranger(from);
    let (id, key, name) = ("other".to_owned(), other.stats().key, "Dory".to_owned());
    assert!(key.is_some() && key != real.key, "{key:?}");
    let _announced = Announcer::start(
        from,
        vehicle.discovery_port,
        Announcement { id, key, name, signal_port: other.address.port(), run: None, ..real },
    );
    let asked = until("a question with a countdown", wait::START, || {
        watcher.choice().question().filter(|question| question.takes_first_at.is_some())
    });
    assert!(asked.text.contains("Nemo is silent"), "{asked:?}");
    assert_eq!((asked.offers.len(), watcher.report().sessions), (1, 1));
    until_true("the second session", wait::START, || watcher.report().sessions == 2);
    let limit = asked.takes_first_at.expect("a countdown");
    assert!(Instant::now() >= limit, "not before its end");
    assert_eq!(watcher.report().server, other.address.to_string());
    watcher.stop(&runtime);
}

#[test]
fn of_several_servers_the_pilot_chooses_and_chooses_again_when_that_one_is_lost() {
    let (runtime, vehicle) = (Runtime::new().expect("a runtime"), Vehicle::new());
    let mut robot = vehicle.start("Nemo", vehicle.signal_port);
    let real = vehicle.announcement(&runtime);
    // A vehicle with a copied card, of the version before.
    let from = Ipv4Addr::new(127, 0, 0, 3);
    let copy = stranger(from);
    let copied = Announcement { signal_port: copy.address.port(), key: None, ..real };
    let _announced = Announcer::start(from, vehicle.discovery_port, copied);
    let watcher = vehicle.watch(&runtime, &["--auto"]);
    let both = offers(&watcher, 2);
    assert!(both.iter().all(|offer| offer.label.contains("a copied card, or an impostor")), "{both:?}");
    assert_eq!(watcher.report().sessions, 0);
    watcher.choice().choose(offer_of(&both, robot.address));
    watcher.wait_for_shots(10);
    assert_eq!(watcher.report().server, robot.address.to_string());
    robot.process.kill();
    let left = offers(&watcher, 1);
    assert_eq!(watcher.choice().question().and_then(|question| question.takes_first_at), None);
    assert_eq!(watcher.report().sessions, 1);
    watcher.choice().choose(offer_of(&left, copy.address));
    until_true("the second session", wait::START, || watcher.report().sessions == 2);
    assert_eq!(watcher.report().server, copy.address.to_string());
    watcher.stop(&runtime);
}

#[test]
fn without_a_window_the_user_is_told_what_to_give_on_the_command_line() {
    let (runtime, vehicle) = (Runtime::new().expect("a runtime"), Vehicle::new());
    let mut robot = vehicle.start("Nemo", vehicle.signal_port);
    let port = vehicle.discovery_port.to_string();
    let client = |args: &[&str]| {
        client_process(&[&["--headless", "--interface", "lo", "--discovery-port", &port], args].concat())
    };
    let mut other = client(&["--name", "Dory"]);
    let said = |line: &str| line.contains("server \"Dory\" not found").then(|| line.to_owned());
    let line = other.wait_for_line("what to do", wait::START, said);
    assert!(line.contains("start again with --name NAME, or with its ADDRESS:PORT"), "{line}");
    // Nobody answers where this one says that it is.
    let real = vehicle.announcement(&runtime);
    robot.process.kill();
    let dead = Announcement { id: "dead".to_owned(), name: "Dead".to_owned(), signal_port: 9, ..real };
    let _announced = Announcer::start(Ipv4Addr::new(127, 0, 0, 3), vehicle.discovery_port, dead);
    let mut several = client(&[]);
    several.wait_for_line("it is tried", wait::START, |line| line.contains("no connection").then_some(()));
    let robot = vehicle.start("Nemo", vehicle.signal_port);
    assert_eq!(several.wait(wait::START), 2, "{}", several.stderr());
    let said = several.stderr();
    let parts = ["--name NAME", "ADDRESS:PORT", &robot.address.to_string(), "127.0.0.3:9"];
    assert!(parts.iter().all(|part| said.contains(part)) && !said.contains("window"), "{said}");
}
