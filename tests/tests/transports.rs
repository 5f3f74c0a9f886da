//! The client and the server together, by every transport.

use std::time::{Duration, Instant};

use rov_client::viewer::Phase;
use rov_tests::namespace;
use rov_tests::programs::{Client, Server, client_process, client_process_with_password, free_udp_port};
use rov_tests::relay::{Network, RtpRelay};
use rov_tests::rtp::free_rtp_port;
use rov_tests::wait::{self, until_true};
use rov_tests::watcher::{Order, Shot, Watcher, datagrams_dropped, left_out, until_counted};
use tokio::runtime::Runtime;

/// A server with every transport, that sends RTP to `port` here.
fn server(port: u16, more: &[&str]) -> Server {
    let port = port.to_string();
    let mut args = vec!["--interface", "lo", "--rtp-host", "127.0.0.1", "--rtp-port", &port];
    if !more.contains(&"--transport") {
        args.extend(["--transport", "webrtc,rtp,rtsp"]);
    }
    args.extend_from_slice(more);
    let server = Server::start(&args);
    server.wait_until_running();
    server
}

fn watch_rtp(runtime: &Runtime, port: u16, codec: &str) -> Watcher {
    Watcher::start(runtime, &["--rtp-host", "127.0.0.1", "--rtp-port", &port.to_string(), "--codec", codec])
}

fn median_latency(shots: &[Shot]) -> Duration {
    let mut latencies: Vec<_> = shots.iter().filter_map(|shot| shot.latency).collect();
    latencies.sort();
    latencies[latencies.len() / 2]
}

#[test]
fn every_transport_shows_the_one_encode_in_order_and_without_delay() {
    let runtime = Runtime::new().expect("a runtime");
    for codec in ["h264", "h265"] {
        let (port, dropped) = (free_rtp_port(), datagrams_dropped());
        // Enough bits for every mark to be read, also where a busy machine leaves pictures out: the rate control then
        // has few.
        let server = server(port, &["--codec", codec, "--bitrate", "4000"]);
        let rtsp = server.rtsp.clone().expect("RTSP is among the transports");
        let watchers = [
            ("webrtc", "WebRTC".to_owned(), Watcher::start(&runtime, &["--url", &server.url("/whep")])),
            ("rtp", format!("RTP 127.0.0.1:{port}"), watch_rtp(&runtime, port, codec)),
            ("rtsp", "RTSP over UDP".to_owned(), Watcher::start(&runtime, &["--url", &rtsp])),
        ];
        let from = watchers.each_ref().map(|(_, _, watcher)| {
            watcher.wait_for_shots(1);
            watcher.shown()
        });
        let before = server.stats();
        for ((_, _, watcher), from) in watchers.iter().zip(from) {
            watcher.wait_for_shots(from + 90);
        }
        let (after, shots) = (server.stats(), watchers.each_ref().map(|(_, _, watcher)| watcher.shots()));
        assert_eq!(after.streams.len(), 1);
        let number = |shots: &[Shot]| shots.iter().rev().find_map(|shot| shot.frame).expect("a mark");
        let encoded = after.streams[0].frames - before.streams[0].frames;
        let made = u64::from(number(&shots[0]) - number(&shots[0][..from[0]]));
        println!("{codec}: {made} pictures made, {encoded} encoded");
        // Some are on their way while both are counted, but not as many as a second encode would make.
        assert!(2 * encoded < 3 * made, "{encoded} encoded of {made}");
        let best = |at: usize| watchers[at].2.best_latency();
        // GStreamer's sinks would hold each picture 20 ms.
        until_true("a picture by RTSP as soon as by RTP", wait::START, || {
            best(2) < best(1) + Duration::from_millis(12)
        });
        // Beside the others, some pictures' time would be a buffer.
        for (_, label, watcher) in &watchers {
            let is_prompt = || watcher.best_latency() < best(0) + Duration::from_millis(60);
            until_true(&format!("a prompt picture: {label}"), wait::START, is_prompt);
        }
        for (at, (name, label, watcher)) in watchers.into_iter().enumerate() {
            // From the first one on: a picture that the decoder was not given with its keyframe would be grey and torn.
            let (seen, report) = (&shots[at], watcher.report());
            let (order, median) = (Order::of(seen), median_latency(seen));
            println!("{codec} by {name}: from mark to shown, median {median:?}, {order:?}");
            assert_eq!((report.transport.as_str(), &watcher.transport()), (name, &label));
            assert_eq!(order.read, seen.len(), "{codec} by {name}: {order:?}");
            // Where the machine is so busy that the encoder is started again, the numbers are, too.
            let restarts = server.stats().streams[0].restarts;
            assert!(order.out_of_order as u64 <= restarts, "{codec} by {name}: {order:?}, {restarts} restarts");
            let dropped = datagrams_dropped() - dropped;
            assert!(report.packets_lost <= dropped && report.sessions == 1, "{codec} by {name}: {dropped}, {report:?}");
            until_counted(order.missing, &report, || server.stats());
            watcher.stop(&runtime);
        }
    }
}

/// A frame that is taken to end at a slice that is not its last would be two pictures, both damaged.
#[test]
fn pictures_of_several_slices_come_whole_by_every_transport() {
    let runtime = Runtime::new().expect("a runtime");
    let port = free_rtp_port();
    let pipeline = "videotestsrc is-live=true pattern=ball ! video/x-raw,width=320,height=240,framerate=30/1 ! \
                    x264enc tune=zerolatency speed-preset=ultrafast sliced-threads=true threads=4 key-int-max=30 \
                    option-string=slices=4 ! video/x-h264,profile=constrained-baseline";
    let server = server(port, &["--source", "pipeline", "--pipeline", pipeline]);
    let rtsp = server.rtsp.clone().expect("RTSP is among the transports");
    let watchers = [
        Watcher::start(&runtime, &["--url", &server.url("/whep")]),
        watch_rtp(&runtime, port, "h264"),
        Watcher::start(&runtime, &["--url", &rtsp]),
    ];
    for watcher in &watchers {
        watcher.wait_for_shots(1);
    }
    let from = watchers.each_ref().map(|watcher| (watcher.shown(), watcher.report(), server.stats().streams[0].frames));
    for (watcher, (shown, before, frames)) in watchers.iter().zip(from) {
        watcher.wait_for_shots(shown + 90);
        let (report, made) = (watcher.report(), server.stats().streams[0].frames - frames);
        let came = watcher.shown() - shown;
        println!("{}: {came} shown of {made} access units, {report:?}", watcher.transport());
        assert_eq!((report.packets_lost, report.frames_skipped), (before.packets_lost, before.frames_skipped));
        if report.transport == "rtsp" {
            // The payloader puts each slice into a packet of its own.
            let packets = report.packets - before.packets;
            assert!(packets > 3 * came as u64, "{packets} packets: these are no four slices");
        }
        // One picture for each access unit, not one for each slice.
        assert!(came as u64 <= made + 5, "{came} of {made}");
    }
    for watcher in watchers {
        watcher.stop(&runtime);
    }
}

/// What a viewer saw of a lossy network.
#[derive(Debug)]
struct Seen {
    /// Pictures.
    missing: u64,
    /// The most of them in a row.
    longest: u32,
    /// Packets that no repair packet could bring back.
    lost: u64,
    /// Bytes of repair packets for each of media.
    overhead: f64,
}

fn on_a_lossy_network(runtime: &Runtime, fec: &str, loss: f64, pictures: u64) -> Seen {
    let viewer = free_rtp_port();
    let network = Network::new(Duration::ZERO, 5);
    let relay = RtpRelay::start(viewer, &network).expect("three ports");
    let size = ["--width", "640", "--height", "360", "--bitrate", "4000"];
    let server = server(relay.port(), &[&["--transport", "rtp", "--rtp-fec", fec][..], &size].concat());
    let watcher = watch_rtp(runtime, viewer, "h264");
    watcher.wait_for_shots(30);
    let (from, before, bytes) = (watcher.shown(), watcher.report(), relay.bytes());
    let frames = || server.stats().streams[0].frames;
    let begun = frames();
    network.set_loss(loss);
    until_true("enough pictures were sent", 3 * wait::START, || frames() >= begun + pictures);
    network.set_loss(0.0);
    let (report, after) = (watcher.report(), relay.bytes());
    // The next keyframe mends the rest.
    watcher.wait_for_shots(watcher.shown() + 5);
    let (shots, left_out) = (watcher.shots(), left_out(&watcher.report(), &server.stats()));
    let gaps = shots[from - 1..].windows(2).map(|two| two[1].shown_at - two[0].shown_at);
    let order = Order::of(&shots[from..]);
    let numbers: Vec<u32> = shots[from - 1..].iter().filter_map(|shot| shot.frame).collect();
    let seen = Seen {
        longest: numbers.windows(2).map(|two| two[1] - two[0] - 1).max().unwrap_or_default(),
        missing: order.missing.saturating_sub(left_out),
        lost: report.packets_lost - before.packets_lost,
        overhead: (after.1 - bytes.1) as f64 / (after.0 - bytes.0) as f64,
    };
    let longest = gaps.clone().max().unwrap_or_default();
    let freezes = gaps.filter(|gap| *gap > Duration::from_millis(100)).count();
    println!(
        "{:.0} % lost, repair packets {fec} %: {freezes} freezes of over 100 ms, the longest {longest:?}, {seen:?}",
        loss * 100.0
    );
    assert_eq!((order.read, order.out_of_order), (shots.len() - from, 0), "{order:?}");
    assert_eq!(report.sessions, 1, "{report:?}");
    watcher.stop(runtime);
    seen
}

#[test]
fn repair_packets_mend_what_the_network_loses_and_without_them_a_keyframe_does() {
    let runtime = Runtime::new().expect("a runtime");
    let [without, some, many] = ["0", "20", "50"].map(|fec| on_a_lossy_network(&runtime, fec, 0.01, 150));
    assert!(without.overhead < 0.1 && without.lost > 0 && without.missing > 10, "{without:?}");
    assert!((0.15..0.4).contains(&some.overhead) && (0.4..0.8).contains(&many.overhead), "{some:?} {many:?}");
    // Keyframes are mended: at most a second is missing, and what a busy machine leaves out.
    assert!(without.longest < 40, "{without:?}");
    // Once in some minutes one is not mended with 20 %.
    assert!(some.lost * 5 < without.lost && many.lost == 0, "{some:?} {many:?} {without:?}");
}

#[test]
fn a_server_that_is_killed_and_started_again_is_shown_again_by_rtp_and_by_rtsp() {
    let runtime = Runtime::new().expect("a runtime");
    let port = free_rtp_port();
    let mut first = server(port, &[]);
    let url = first.rtsp.clone().expect("RTSP is among the transports");
    let rtsp_port = url.trim_start_matches("rtsp://127.0.0.1:").split('/').next().expect("a port").to_owned();
    let watchers = [watch_rtp(&runtime, port, "h264"), Watcher::start(&runtime, &["--url", &url])];
    for watcher in &watchers {
        watcher.wait_for_shots(10);
    }
    first.process.kill();
    for watcher in &watchers {
        let what = format!("the viewer by {} says that there is no video", watcher.transport());
        until_true(&what, wait::START, || watcher.phase() != Phase::Live);
    }
    let shown = watchers.each_ref().map(Watcher::shown);
    let _second = server(port, &["--rtsp-port", &rtsp_port]);
    let begun = Instant::now();
    for (watcher, shown) in watchers.into_iter().zip(shown) {
        watcher.wait_for_shots(shown + 10);
        println!("{}: shown again {:?} after the server was there", watcher.transport(), begun.elapsed());
        assert_eq!(watcher.phase(), Phase::Live);
        watcher.stop(&runtime);
    }
}

#[test]
fn auto_takes_the_best_transport_that_the_server_has_at_once() {
    let runtime = Runtime::new().expect("a runtime");
    for (transports, expected) in [("webrtc,rtp,rtsp", "webrtc"), ("rtp,rtsp", "rtp"), ("rtsp", "rtsp")] {
        let discovery = free_udp_port().to_string();
        let more = ["--transport", transports, "--discovery-port", &discovery, "--codec", "h265"];
        let _server = server(free_rtp_port(), &more);
        let watcher = Watcher::start(&runtime, &["--discovery-port", &discovery, "--interface", "lo"]);
        watcher.wait_for_shots(10);
        let report = watcher.report();
        assert_eq!((report.transport.as_str(), report.fallback_reason), (expected, None), "{transports}");
        assert_eq!(report.sessions, 1, "{transports}");
        watcher.stop(&runtime);
    }
}

#[test]
fn a_server_with_a_password_is_shown_to_who_gives_it_and_others_are_told_how() {
    let runtime = Runtime::new().expect("a runtime");
    let discovery = free_udp_port().to_string();
    let server = server(
        free_rtp_port(),
        &["--transport", "rtsp", "--discovery-port", &discovery, "--user", "pilot", "--password", "deep blue"],
    );
    let url = server.rtsp.clone().expect("RTSP is among the transports");
    let with_password = url.replace("rtsp://", "rtsp://pilot:deep%20blue@");
    let watcher = Watcher::start(&runtime, &["--url", &with_password]);
    watcher.wait_for_shots(10);
    assert_eq!(watcher.transport(), "RTSP over UDP");
    watcher.stop(&runtime);
    let rtsp_port = url.trim_start_matches("rtsp://127.0.0.1:").split('/').next().expect("a port");
    let user = ["--user", "pilot"];
    for more in [
        &["--discovery-port", &discovery][..],
        &["--discovery-port", &discovery, "--transport", "rtsp"],
        &["--host", "127.0.0.1", "--rtsp-port", rtsp_port, "--transport", "rtsp"],
        &["--url", &server.url("/whep")],
    ] {
        let mut client = Client::start_with_password("deep blue", &[&user[..], more].concat());
        assert_eq!(client.wait_for_frames(0, 10).transport, "rtsp", "{more:?}");
        assert!(!client.process.stderr().contains("deep blue"), "{}", client.process.stderr());
        drop(client);
        let args = [&["--headless", "--interface", "lo"], more].concat();
        let mut without = client_process(&args);
        let mut wrong = client_process_with_password("deep red", &[&user[..], &args].concat());
        for (client, advice) in [
            (
                &mut without,
                "wants a user name and a password: give --user, and the password by the variable ROV_PASSWORD",
            ),
            (&mut wrong, "refused the user name or the password: correct --user and --password"),
        ] {
            assert_eq!(client.wait(wait::START), 2, "{more:?}");
            assert!(client.stderr().contains(advice), "{advice}: {}", client.stderr());
        }
    }
}

#[test]
fn a_multicast_group_is_shown() {
    if !namespace::is_inside("a_multicast_group_is_shown") {
        return;
    }
    let runtime = Runtime::new().expect("a runtime");
    for codec in ["h264", "h265"] {
        let dropped = datagrams_dropped();
        let more = ["--transport", "rtp", "--rtp-host", "239.255.77.2", "--rtp-fec", "20", "--codec", codec];
        let bits = ["--bitrate", "4000"];
        let server = Server::start(&[&more[..], &["--interface", "lo", "--rtp-port", "5004"], &bits].concat());
        let args = ["--rtp-host", "239.255.77.2", "--interface", "lo", "--codec", codec];
        let watchers = [Watcher::start(&runtime, &args), Watcher::start(&runtime, &args)];
        for watcher in watchers {
            watcher.wait_for_shots(60);
            let (shots, report) = (watcher.shots(), watcher.report());
            let order = Order::of(&shots);
            println!("{codec} by multicast: from mark to shown, median {:?}", median_latency(&shots));
            let dropped = datagrams_dropped() - dropped;
            assert!(report.packets_lost <= dropped, "{dropped}, {report:?}");
            assert_eq!((report.sessions, order.out_of_order), (1, 0), "{report:?} {order:?}");
            assert_eq!(order.read, shots.len(), "{codec}: {order:?}");
            until_counted(order.missing, &report, || server.stats());
            assert_eq!(watcher.transport(), "RTP 239.255.77.2:5004");
            watcher.stop(&runtime);
        }
    }
}
