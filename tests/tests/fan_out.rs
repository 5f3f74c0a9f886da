//! One encode for all viewers, and none of them at another's cost.

use std::time::Duration;

use rov_tests::jpeg;
use rov_tests::programs::{Client, Server};
use rov_tests::rtp::free_rtp_port;
use rov_tests::rtsp::{Player, defects};
use rov_tests::wait::{self, until_true};
use rov_tests::watcher::{Order, Shot, Watcher, until_counted};
use tokio::runtime::Runtime;

#[test]
fn one_four_and_eight_viewers_cost_one_encode_and_each_gets_every_picture() {
    let port = free_rtp_port().to_string();
    let rtp = ["--rtp-host", "127.0.0.1", "--rtp-port", &port];
    let transports = ["--fps", "20", "--interface", "lo", "--transport", "webrtc,rtsp,rtp"];
    let server = Server::start_traced(&[&transports[..], &rtp].concat());
    server.wait_until_running();
    let encoders = server.encoders();
    assert!(encoders > 0, "its log tells");
    let runtime = Runtime::new().expect("a runtime");
    let url = server.url("/whep");
    let by_rtsp = ["udp", "tcp"].map(|protocol| Player::start(server.rtsp.as_ref().expect("RTSP"), protocol));
    let by_rtp = Watcher::start(&runtime, &rtp);
    let mut watchers: Vec<(Watcher, usize)> = Vec::new();
    for count in [1, 4, 8] {
        while watchers.len() < count {
            let watcher = Watcher::start(&runtime, &["--url", &url]);
            watcher.wait_for_shots(1);
            watchers.push((watcher, 0));
        }
        for (watcher, from) in &mut watchers {
            *from = watcher.shown();
        }
        let before = server.stats();
        for (watcher, from) in &watchers {
            watcher.wait_for_shots(*from + 30);
        }
        let after = server.stats();
        assert_eq!((after.viewers.len(), after.streams.len()), (count, 1));
        let encoded = after.streams[0].frames - before.streams[0].frames;
        // The numbers in the marks count what the source has made.
        let shots = watchers[0].0.shots();
        let made = u64::from(last_number(&shots) - last_number(&shots[..watchers[0].1]));
        println!("{count} viewers: {made} pictures made, {encoded} encoded, {:.1} a second", after.streams[0].fps_out);
        // Some are on their way while both are counted, but not as many as a second encode would make.
        assert!(2 * encoded < 3 * made, "{encoded} encoded of {made}");
        assert!(after.streams[0].fps_out < 25.0, "{:?}", after.streams[0]);
        for (watcher, from) in &watchers {
            let (report, order) = (watcher.report(), Order::of(&watcher.shots()[*from..]));
            let skipped = watcher.skipped_in_time();
            assert_eq!((report.packets_lost, skipped, order.out_of_order), (0, 0, 0), "{report:?}");
            assert!(order.read >= 30, "{order:?}");
            until_counted(order.missing, &report, || server.stats());
        }
    }
    by_rtsp.iter().for_each(|player| assert_eq!(defects(&player.next_shots(10)).1, 0));
    by_rtp.wait_for_shots(by_rtp.shown() + 10);
    assert_eq!(server.encoders(), encoders, "no viewer has one of its own");
    // Unlike the viewers of JPEG, which shows that one would be seen.
    assert_eq!(jpeg::get(server.address, "/snapshot.jpg").status, 200);
    assert!(server.encoders() > encoders);
    by_rtp.stop(&runtime);
    for (watcher, _) in watchers {
        watcher.stop(&runtime);
    }
}

#[test]
fn a_viewer_that_reads_nothing_for_ten_seconds_costs_another_neither_time_nor_pictures() {
    let server = Server::start(&["--width", "640", "--height", "360"]);
    let runtime = Runtime::new().expect("a runtime");
    let url = server.url("/whep");
    let good = Watcher::start(&runtime, &["--url", &url]);
    let mut stopped = Client::start(&["--url", &url]);
    stopped.wait_for_frames(0, 30);
    good.wait_for_shots(1);

    let first = good.shown();
    good.wait_for_shots(first + 90);
    let split = good.shown();
    stopped.process.signal(libc::SIGSTOP);
    let begun = std::time::Instant::now();
    while begun.elapsed() < Duration::from_secs(10) {
        good.wait_for_shots(good.shown() + 1);
    }
    let shots = good.shots();
    let (before, during) = (latencies(&shots[first..split]), latencies(&shots[split..]));
    let (report, stats) = (good.report(), server.stats());
    println!("p50 and p95 before {:?} {:?}, during {:?} {:?}", before.0, before.1, during.0, during.1);
    // Frames that queued up for the other would be as late as it has read nothing, up to ten seconds; a busy machine
    // makes them late by less than two.
    let most = |before: Duration| 2 * before + Duration::from_secs(2);
    assert!(during.0 < most(before.0) && during.1 < most(before.1));
    let order = Order::of(&shots[first..]);
    assert_eq!((report.packets_lost, good.skipped_in_time(), report.sessions), (0, 0, 1), "{report:?}");
    assert_eq!(order.out_of_order, 0);
    until_counted(order.missing, &report, || server.stats());
    assert_eq!(stats.streams[0].restarts, 0);

    let shown = stopped.report().expect("a report").frames_shown;
    stopped.process.signal(libc::SIGCONT);
    stopped.wait_for_frames(shown, 30);
    until_true("the good viewer goes on", wait::SOON, || good.shown() > shots.len() + 10);
    assert_eq!(good.report().sessions, 1);
    good.stop(&runtime);
}

fn last_number(shots: &[Shot]) -> u32 {
    shots.iter().filter_map(|shot| shot.frame).max().unwrap_or(0)
}

/// The median, and what 95 of 100 stay below, from the mark to the screen.
fn latencies(shots: &[Shot]) -> (Duration, Duration) {
    let mut all: Vec<_> = shots.iter().filter_map(|shot| shot.latency).collect();
    all.sort();
    (all[all.len() / 2], all[all.len() * 95 / 100])
}
