//! Server and client in one process: real encoding, real WebRTC on loopback, real decoding.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rov_client::receive::webrtc::{Connection, Terms};
use rov_client::viewer::Phase;
use rov_common::api::StreamState;
use rov_common::units::Resolution;
use rov_tests::http;
use rov_tests::in_process::{END, Serving};
use rov_tests::media::{Timed, assert_each_has_its_time, is_in_time};
use rov_tests::wait::{self, until_true};
use rov_tests::watcher::{Order, Watcher, until_counted};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use url::Url;

const SIZE: Resolution = Resolution::new(640, 360);

fn serve(runtime: &Runtime) -> Serving {
    Serving::start(runtime, &["--source", "test", "--width", "640", "--height", "360"], |_| ())
}

#[test]
fn every_picture_arrives_once_and_in_order() {
    let runtime = Runtime::new().expect("a runtime");
    let server = serve(&runtime);
    let watcher = Watcher::start(&runtime, &["--url", &server.url("/whep")]);
    watcher.wait_for_shots(1);
    let keyframes_at_start = server.stream().keyframes;
    // Three seconds' worth.
    watcher.wait_for_shots(91);

    let (shots, report, stats) = (watcher.shots(), watcher.report(), http::stats(server.address));
    let order = Order::of(&shots);
    let latencies: Vec<_> = shots.iter().filter_map(|shot| shot.latency).collect();
    println!("{order:?}, longest from mark to shown {:?}", latencies.iter().max());
    assert_eq!(order.read, shots.len(), "every picture carries a mark that can be read");
    assert_each_has_its_time(&shots.iter().map(Timed::of).collect::<Vec<_>>(), 1.0 / 30.0);
    until_true("a picture that was drawn when it was due", wait::START, || {
        watcher.shots().iter().map(Timed::of).any(|picture| is_in_time(picture.late()))
    });
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
    let server = serve(&runtime);
    let first = Watcher::start(&runtime, &["--url", &server.url("/whep")]);
    first.wait_for_shots(30);
    let keyframes = server.stream().keyframes;

    let begun = Instant::now();
    let second = Watcher::start(&runtime, &["--url", &server.url("/whep")]);
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
    assert_eq!(report.packets_lost, 0, "{report:?}");
    // A client that gets pictures late goes on at a keyframe, for which it asks once each time. The other does not.
    let late = [&first, &second].map(|watcher| watcher.late() as u64);
    assert!(first.was_late() || report.frames_skipped == 0, "{report:?}");
    assert!(report.keyframe_requests <= late[0], "{late:?}: {report:?}");
    assert!(second.report().keyframe_requests <= late[1], "{late:?}: {:?}", second.report());
    assert_eq!(stats.viewers.len(), 2, "{stats:?}");
    for viewer in &stats.viewers {
        assert_eq!((viewer.state.as_str(), viewer.nacks), ("connected", 0), "{viewer:?}");
        assert!(viewer.plis <= late[0].max(late[1]), "{late:?}: {viewer:?}");
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
    let server = serve(&runtime);
    let watcher = Watcher::start(&runtime, &["--url", &server.url("/whep")]);
    watcher.wait_for_shots(1);
    let packets = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&packets);
    let (_keep, keyframe_wanted) = mpsc::channel(1);
    let url = Url::parse(&server.url("/whep")).expect("a URL");
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
    let run = runtime.spawn(async move { tokio::time::timeout(END, run).await });
    // By the goodbye, which takes milliseconds; without it nobody would know for seconds.
    let told = || connection.closed_by_server();
    until_true("the viewer is told", Duration::from_secs(3), told);
    println!("the viewer knew after {:?}", begun.elapsed());
    // The client's own session notices alike, and looks for the server again.
    until_true("the session has ended", Duration::from_secs(3), || !matches!(watcher.phase(), Phase::Live));
    runtime.block_on(run).expect("no panic").expect("in time").expect("no panic").expect("a clean end");
    println!("the server had ended after {:?}", begun.elapsed());
    runtime.block_on(connection.close());
    watcher.stop(&runtime);
}
