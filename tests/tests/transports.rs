//! The client and the server together, by every transport.

use std::time::{Duration, Instant};

use rov_client::viewer::Phase;
use rov_tests::namespace;
use rov_tests::programs::{Client, Server, client_process, free_udp_port};
use rov_tests::relay::{Network, RtpRelay};
use rov_tests::rtp::free_rtp_port;
use rov_tests::wait::{self, until_true};
use rov_tests::watcher::{Order, Shot, Watcher, left_out};
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
        let port = free_rtp_port();
        let server = server(port, &["--codec", codec]);
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
        for (at, (name, label, watcher)) in watchers.into_iter().enumerate() {
            let (seen, report) = (&shots[at][from[at]..], watcher.report());
            let (order, median) = (Order::of(seen), median_latency(seen));
            println!("{codec} by {name}: from mark to shown, median {median:?}, {order:?}");
            assert_eq!((report.transport.as_str(), &watcher.transport()), (name, &label));
            assert_eq!((order.read, order.out_of_order), (seen.len(), 0), "{codec} by {name}: {order:?}");
            assert_eq!((report.packets_lost, report.sessions), (0, 1), "{codec} by {name}: {report:?}");
            assert!(order.missing <= left_out(&report, &after), "{codec} by {name}: {order:?} {report:?} {after:?}");
            // Encoding and decoding on a busy machine; a buffer of some pictures would be more.
            assert!(median < Duration::from_millis(400), "{codec} by {name}: {median:?}");
            watcher.stop(&runtime);
        }
    }
}

/// Slices of a picture are decoded apart: a frame that ends at the wrong one shows grey or the past in a part.
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
    /// Pauses of more than 100 ms between two pictures.
    freezes: usize,
    longest: Duration,
    missing: u64,
    out_of_order: usize,
    skipped: u64,
    overhead: f64,
    kbit_s: f64,
}

fn on_a_lossy_network(runtime: &Runtime, fec: &str, loss: f64, time: Duration) -> Seen {
    let viewer = free_rtp_port();
    let network = Network::new(Duration::ZERO, 5);
    let relay = RtpRelay::start(viewer, &network).expect("three ports");
    let size = ["--width", "640", "--height", "360", "--bitrate", "4000"];
    let server = server(relay.port(), &[&["--transport", "rtp", "--rtp-fec", fec][..], &size].concat());
    let watcher = watch_rtp(runtime, viewer, "h264");
    watcher.wait_for_shots(30);
    let (from, before, bytes, begun) = (watcher.shown(), watcher.report(), relay.bytes(), Instant::now());
    network.set_loss(loss);
    std::thread::sleep(time);
    let (shots, report, after) = (watcher.shots(), watcher.report(), relay.bytes());
    let seconds = begun.elapsed().as_secs_f64();
    network.set_loss(0.0);
    let gaps = shots[from - 1..].windows(2).map(|two| two[1].shown_at - two[0].shown_at);
    let order = Order::of(&shots[from..]);
    let (media, repair) = ((after.0 - bytes.0) as f64, (after.1 - bytes.1) as f64);
    let seen = Seen {
        freezes: gaps.clone().filter(|gap| *gap > Duration::from_millis(100)).count(),
        longest: gaps.max().unwrap_or_default(),
        missing: order.missing.saturating_sub(left_out(&report, &server.stats())),
        out_of_order: order.out_of_order,
        skipped: report.frames_skipped - before.frames_skipped,
        overhead: repair / media,
        kbit_s: (media + repair) / seconds / 125.0,
    };
    println!("{:.0} % lost, repair packets {fec} %: {seen:?}", loss * 100.0);
    assert_eq!((order.read, report.sessions), (shots.len() - from, 1), "{report:?}");
    watcher.stop(runtime);
    seen
}

#[test]
fn repair_packets_mend_what_the_network_loses_and_without_them_the_next_keyframe_does() {
    let runtime = Runtime::new().expect("a runtime");
    let time = std::env::var("ROV_LOSS_SECONDS").ok().and_then(|s| s.parse().ok()).unwrap_or(6);
    for loss in [0.01, 0.05] {
        let [without, some, many] =
            ["0", "20", "50"].map(|fec| on_a_lossy_network(&runtime, fec, loss, Duration::from_secs(time)));
        for seen in [&without, &some, &many] {
            assert_eq!(seen.out_of_order, 0, "{seen:?}");
        }
        assert_eq!(without.overhead, 0.0);
        assert!(without.missing > 10, "{without:?}");
        // Two lost packets of one frame may be more than one parity mends.
        assert!(4 * many.missing < without.missing && 4 * many.skipped < without.skipped, "{many:?} {without:?}");
        if loss < 0.02 {
            assert!(2 * some.missing < without.missing && 2 * some.skipped < without.skipped, "{some:?} {without:?}");
            // A keyframe each second, which is whole mostly.
            assert!(without.longest < Duration::from_secs(4), "{without:?}");
        }
    }
}
