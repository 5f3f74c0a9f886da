//! What others may cost: memory, files and lines of the log have limits under whatever the network sends, and who
//! watches goes on watching.

use std::time::{Duration, Instant};

use rov_tests::agents;
use rov_tests::flood::flood;
use rov_tests::process::{Footprint, Process};
use rov_tests::programs::{Client, Server, free_udp_port};
use rov_tests::proxy::Proxy;
use rov_tests::rtp::free_rtp_port;
use rov_tests::rtsp::Player;
use rov_tests::sensor::Sensor;
use rov_tests::skipped;
use rov_tests::wait::{self, until_true};
use rov_tests::watcher::{Order, Watcher, until_counted};
use tokio::runtime::Runtime;

/// Junk comes for so long.
const FLOOD: Duration = Duration::from_secs(4);
/// No viewer may be without a new picture for so long, on a machine that is busy with the junk as well.
const FREEZE: Duration = Duration::from_secs(3);
/// Lines of the log for all of it.
const LINES: usize = 40;

fn lines(process: &Process) -> usize {
    process.stderr().lines().count()
}

/// That it takes no more than before: some files may be open for a moment longer, the allocator keeps some memory.
fn assert_bounded(what: &str, process: &Process, before: Footprint, megabytes: u64) {
    let now = process.footprint();
    println!("{what}: before {before:?}, after {now:?}");
    assert!(now.resident_kb <= before.resident_kb + 1024 * megabytes, "{what}: {before:?} {now:?}");
    until_true(&format!("{what} has its files back"), wait::START, || process.footprint().files <= before.files + 4);
}

/// The longest time between two pictures since `from`.
fn longest_gap(watcher: &Watcher, from: Instant) -> Duration {
    let mut times: Vec<_> = watcher.shots().iter().map(|shot| shot.shown_at).filter(|at| *at >= from).collect();
    times.insert(0, from);
    times.push(Instant::now());
    times.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
}

#[test]
fn a_viewer_that_never_reads_is_said_and_given_up_and_costs_no_memory() {
    let server = Server::start(&["--bitrate", "6000"]);
    let runtime = Runtime::new().expect("a runtime");
    let watcher = Watcher::start(&runtime, &["--url", &server.url("/whep")]);
    let mut deaf = Client::start(&["--url", &server.url("/whep")]);
    deaf.wait_for_frames(0, 30);
    watcher.wait_for_shots(30);
    let (before, from) = (server.process.footprint(), Instant::now());
    // Its socket stays open, and the system fills it.
    deaf.process.signal(libc::SIGSTOP);
    let (mut most, mut stalled) = (before.resident_kb, false);
    until_true("it is given up", wait::START, || {
        most = most.max(server.process.footprint().resident_kb);
        let viewers = server.stats().viewers;
        stalled |= viewers.iter().any(|viewer| viewer.stalled.is_some());
        viewers.len() == 1
    });
    assert!(stalled, "it was said before");
    server.process.logs(&["a viewer has stalled"]);
    println!("given up after {:?}, {} kB more at the most", from.elapsed(), most - before.resident_kb);
    assert!(most <= before.resident_kb + 20 * 1024, "{before:?} {most} kB");
    assert!(longest_gap(&watcher, from) < FREEZE, "{:?}", longest_gap(&watcher, from));
    let before = deaf.report().expect("a report").frames_shown;
    deaf.process.signal(libc::SIGCONT);
    deaf.wait_for_frames(before, 30);
    assert_eq!(watcher.report().sessions, 1);
    watcher.stop(&runtime);
}

#[test]
fn junk_on_every_udp_port_of_the_server_freezes_no_viewer_and_leaves_nothing() {
    let discovery = free_udp_port();
    let rtp = free_rtp_port();
    let (port, discovery_port) = (rtp.to_string(), discovery.to_string());
    let to = ["--transport", "webrtc,rtsp,rtp", "--rtp-host", "127.0.0.1", "--rtp-port", &port];
    let server = Server::start(&[&["--discovery-port", &discovery_port], &to[..]].concat());
    server.wait_until_running();
    let runtime = Runtime::new().expect("a runtime");
    let proxy = Proxy::start(&runtime, server.address, "", None);
    let watcher = Watcher::start(&runtime, &["--url", &proxy.url("/whep")]);
    let player = Player::start(server.rtsp.as_deref().expect("RTSP"), "udp");
    watcher.wait_for_shots(60);
    player.next_shots(30);
    let exchange = proxy.exchanges().remove(0);
    let ufrag = |sdp: &str| {
        let line = sdp.lines().find_map(|line| line.strip_prefix("a=ice-ufrag:")).expect("an ICE user name");
        line.trim().to_owned()
    };
    let users = [format!("{}:{}", ufrag(&exchange.answer), ufrag(&exchange.offer)), "nobody:x".to_owned()];
    let ports = server.process.udp_ports();
    let media = server.media.expect("WebRTC").port();
    assert!(ports.contains(&media) && ports.contains(&discovery) && ports.len() >= 5, "{ports:?}");

    let (before, said, from) = (server.process.footprint(), lines(&server.process), Instant::now());
    let shots_before = player.shots().len();
    let rate = flood(&ports, &users, FLOOD);
    println!("{rate:.0} packets a second to each of {} ports", ports.len());
    let gap = longest_gap(&watcher, from);
    watcher.wait_for_shots(watcher.shown() + 30);
    assert!(gap < FREEZE, "{gap:?} without a picture");
    assert_eq!(watcher.report().sessions, 1, "the viewer stayed connected");
    let by_rtsp = player.shots().len() - shots_before;
    println!("longest gap {gap:?}; {by_rtsp} pictures by RTSP meanwhile");
    player.next_shots(30);
    assert_bounded("server", &server.process, before, 30);
    let said = lines(&server.process) - said;
    assert!(said < LINES, "{said} lines in the log:\n{}", server.process.stderr());
    assert_eq!((server.is_well(), server.stats().streams[0].restarts), (true, 0));
    watcher.stop(&runtime);
}

#[test]
fn junk_on_every_udp_port_of_a_client_freezes_no_picture_and_leaves_nothing() {
    let discovery = free_udp_port().to_string();
    let rtp = free_rtp_port().to_string();
    let to = ["--transport", "webrtc,rtp", "--rtp-host", "127.0.0.1", "--rtp-port", &rtp, "--rtp-fec", "20"];
    let server = Server::start(&[&["--discovery-port", &discovery], &to[..]].concat());
    server.wait_until_running();
    let mut by_rtp = Client::start(&["--rtp-host", "127.0.0.1", "--rtp-port", &rtp]);
    let mut by_webrtc = Client::start(&["--discovery-port", &discovery]);
    let clients = [&mut by_rtp, &mut by_webrtc];
    let mut states = Vec::new();
    for client in clients {
        client.wait_for_frames(0, 60);
        let ports = client.process.udp_ports();
        states.push((ports, client.process.footprint(), lines(&client.process)));
    }
    assert!(states[0].0.len() >= 3 && !states[1].0.is_empty(), "{states:?}");
    let ports: Vec<u16> = states.iter().flat_map(|(ports, ..)| ports.clone()).collect();
    let junk = std::thread::spawn(move || (flood(&ports, &[], FLOOD), ports.len()));
    // Their reports come each second: what is seen is a gap of whole seconds.
    let mut gaps = [Duration::ZERO; 2];
    let mut last = [(0, Instant::now()); 2];
    while !junk.is_finished() {
        for (at, client) in [&by_rtp, &by_webrtc].into_iter().enumerate() {
            let shown = client.report().expect("a report").frames_shown;
            if shown > last[at].0 {
                last[at] = (shown, Instant::now());
            }
            gaps[at] = gaps[at].max(last[at].1.elapsed());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    let (rate, count) = junk.join().expect("no panic");
    println!("{rate:.0} packets a second to each of {count} ports; at the most {gaps:?} without more pictures");
    for (at, (client, (_, before, said))) in [&mut by_rtp, &mut by_webrtc].into_iter().zip(states).enumerate() {
        let name = ["by RTP", "by WebRTC"][at];
        let report = client.report().expect("a report");
        client.wait_for_frames(report.frames_shown, 30);
        assert!(gaps[at] < FREEZE + Duration::from_secs(1), "{name}: {:?} without more pictures", gaps[at]);
        assert_eq!(report.sessions, 1, "{name}: {report:?}");
        assert_bounded(name, &client.process, before, 30);
        let said = lines(&client.process) - said;
        assert!(said < LINES, "{said} lines in the log:\n{}", client.process.stderr());
    }
}

/// What one chunk did alone: `vendor/rtc-sctp`.
#[test]
fn a_viewer_that_attacks_by_its_data_channel_costs_nobody_a_picture() {
    let server = Server::start(&["--telemetry", "udp://127.0.0.1:0"]);
    let _sensor = Sensor::start(&server);
    let runtime = Runtime::new().expect("a runtime");
    let watcher = Watcher::start(&runtime, &["--url", &server.url("/whep")]);
    watcher.wait_for_shots(30);
    let (before, from) = (server.process.footprint(), Instant::now());
    let Some(mut hostile) = agents::aiortc(&server.url("/whep"), 1, Some("hostile")) else {
        watcher.stop(&runtime);
        return skipped("aiortc cannot be had here (scripts/test gets it)");
    };
    // What it sends takes it seconds.
    let code = hostile.wait(4 * wait::START);
    let said = hostile.stdout();
    assert!(code == 0 && said.contains("telemetry {") && said.ends_with("attacked"), "{said}\n{}", hostile.stderr());
    watcher.wait_for_shots(watcher.shown() + 30);
    assert_bounded("the server", &server.process, before, 40);
    let gap = longest_gap(&watcher, from);
    let (order, report) = (Order::of(&watcher.shots()), watcher.report());
    println!("{gap:?} without a picture, {} of {} missing", order.missing, order.read);
    assert!(gap < FREEZE, "{gap:?} without a picture");
    until_counted(order.missing, &report, || server.stats());
    assert_eq!(report.sessions, 1);
    let lines = lines(&server.process);
    assert!(lines <= LINES, "{lines} lines: {}", server.process.stderr());
    watcher.stop(&runtime);
}
