//! Links that become slow: the bit rate follows the pilot's, the picture stays new, and a slow spectator costs the
//! pilot nothing.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rov_common::api::{StreamStats, ViewerStats};
use rov_common::units::Resolution;
use rov_tests::browser::{Browser, PAGE};
use rov_tests::media::Clip;
use rov_tests::programs::Server;
use rov_tests::proxy::Proxy;
use rov_tests::relay::Network;
use rov_tests::wait;
use rov_tests::watcher::{Order, Watcher};
use tempfile::TempDir;
use tokio::runtime::Runtime;

const ARGS: &[&str] = &["--width", "1280", "--height", "720", "--bitrate", "4000"];
const LIMIT: u64 = 2_000_000;

/// One test after another: a machine that is too busy to encode says nothing of links.
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn stream(server: &Server) -> StreamStats {
    server.stats().streams.remove(0)
}

fn viewers(server: &Server) -> Vec<ViewerStats> {
    server.stats().viewers
}

/// Of the pictures shown since `from`, the latency of the middle one in milliseconds.
fn latency(watcher: &Watcher, from: usize) -> Option<u128> {
    let mut all: Vec<_> = watcher.shots()[from..].iter().filter_map(|shot| shot.latency).collect();
    all.sort();
    all.get(all.len() / 2).map(Duration::as_millis)
}

#[test]
fn the_bit_rate_follows_the_pilots_link_and_comes_back() {
    let _alone = alone();
    let server = Server::start(ARGS);
    let runtime = Runtime::new().expect("a runtime");
    let network = Network::new(Duration::from_millis(2), 1);
    let proxy = Proxy::start(&runtime, server.address, "", Some(network.clone()));
    let watcher = Watcher::start(&runtime, &["--url", &proxy.url("/whep")]);
    watcher.wait_for_shots(60);
    assert_eq!(stream(&server).target_bitrate_kbps, 4_000);

    network.set_rate(LIMIT);
    let limited = Instant::now();
    wait::until_true("a bit rate below the limit", wait::SOON, || stream(&server).target_bitrate_kbps < 2_000);
    println!("lowered after {} ms", limited.elapsed().as_millis());
    // What the queue on the way held has been shown; the rest comes in time.
    wait::until_true("a latency below 150 ms", wait::SOON, || {
        let from = watcher.shown();
        watcher.wait_for_shots(from + 10);
        latency(&watcher, from).is_some_and(|ms| ms < 150)
    });
    println!("in time again after {} ms", limited.elapsed().as_millis());
    let from = watcher.shown();
    watcher.wait_for_shots(from + 90);
    let (order, stats) = (Order::of(&watcher.shots()[from..]), server.stats());
    println!("{order:?}, {} ms, {:?}", latency(&watcher, from).unwrap_or_default(), stats.viewers);
    let actual = stats.streams[0].bitrate_kbps;
    assert!((500.0..2_000.0).contains(&actual), "it fits through, and is not much less: {actual}");
    assert!(stats.viewers[0].pilot && stats.viewers[0].thinned == 0, "{stats:?}");
    assert_eq!(order.out_of_order, 0);

    network.set_rate(0);
    let free = Instant::now();
    wait::until_true("nine tenths of the former bit rate", wait::START, || {
        stream(&server).target_bitrate_kbps >= 3_600
    });
    println!("back after {} ms", free.elapsed().as_millis());
    assert_eq!(watcher.report().sessions, 1);
    watcher.stop(&runtime);
    wait::until_true("the ceiling, with no viewer", wait::SOON, || stream(&server).target_bitrate_kbps == 4_000);
}

#[test]
fn a_clip_that_is_loaded_takes_a_tenth_of_the_pilots_link_and_delays_no_picture() {
    let _alone = alone();
    let server = Server::start(ARGS);
    let runtime = Runtime::new().expect("a runtime");
    let network = Network::new(Duration::from_millis(2), 1);
    let proxy = Proxy::start(&runtime, server.address, "", Some(network.clone()));
    let watcher = Watcher::start(&runtime, &["--url", &proxy.url("/whep")]);
    watcher.wait_for_shots(150);
    network.set_rate(LIMIT);
    wait::until_true("a latency below 150 ms at a bit rate below the limit", wait::START, || {
        let from = watcher.shown();
        watcher.wait_for_shots(from + 10);
        stream(&server).target_bitrate_kbps < 2_000 && latency(&watcher, from).is_some_and(|ms| ms < 150)
    });

    let mut download = TcpStream::connect(("127.0.0.1", network.tcp(server.address.port()))).expect("a connection");
    write!(download, "GET /api/clip HTTP/1.0\r\nHost: {}\r\n\r\n", server.address).expect("a request");
    let loaded = Arc::new(AtomicU64::new(0));
    let (counted, begun) = (Arc::clone(&loaded), Instant::now());
    let loads = std::thread::spawn(move || {
        let mut data = [0; 16 << 10];
        while let Ok(length @ 1..) = download.read(&mut data) {
            counted.fetch_add(length as u64, Ordering::Relaxed);
        }
    });
    let from = watcher.shown();
    watcher.wait_for_shots(from + 150);
    let (bits, seconds) = (loaded.load(Ordering::Relaxed) * 8, begun.elapsed().as_secs_f64());
    let ms = latency(&watcher, from).expect("marks");
    println!("{} kbit/s of the clip, pictures {ms} ms old, {:?}", bits as f64 / seconds / 1e3, viewers(&server));
    assert!(ms < 250, "{ms} ms");
    assert!(bits > 0 && bits as f64 / seconds < LIMIT as f64 * 0.2, "{bits} bits in {seconds} s");
    assert!(!loads.is_finished(), "it is under way");

    // Without the pilot it has what there is.
    watcher.stop(&runtime);
    network.set_rate(0);
    wait::until_true("the whole clip", wait::START, || loads.is_finished());
    assert!(loaded.load(Ordering::Relaxed) > 1_000_000, "{loaded:?}");
}

#[test]
fn the_bit_rate_follows_chromiums_link_and_comes_back() {
    let _alone = alone();
    let server = Server::start(ARGS);
    let runtime = Runtime::new().expect("a runtime");
    let network = Network::new(Duration::from_millis(2), 1);
    let proxy = Proxy::start(&runtime, server.address, PAGE, Some(network.clone()));
    let _browser = Browser::open(&proxy.url("/?frames=100000"));
    let packets = |server: &Server| viewers(server).first().map_or(0, |viewer| viewer.packets);
    wait::until_true("a picture in Chromium", wait::START, || packets(&server) > 500);
    let answer = proxy.exchanges().remove(0).answer;
    assert!(answer.contains("transport-wide-cc-extensions-01") && answer.contains("transport-cc"), "{answer}");
    network.set_rate(LIMIT);
    let limited = Instant::now();
    wait::until_true("a bit rate below the limit", wait::SOON, || stream(&server).target_bitrate_kbps < 2_000);
    println!("lowered after {} ms", limited.elapsed().as_millis());
    wait::until_true("a queue that is gone", wait::SOON, || viewers(&server)[0].queue_ms < 20.0);
    println!("in time again after {} ms, {:?}", limited.elapsed().as_millis(), viewers(&server));
    network.set_rate(0);
    let free = Instant::now();
    wait::until_true("nine tenths of the former bit rate", wait::START, || {
        stream(&server).target_bitrate_kbps >= 3_600
    });
    println!("back after {} ms", free.elapsed().as_millis());
}

#[test]
fn a_slow_spectator_is_thinned_and_costs_the_pilot_nothing() {
    let _alone = alone();
    let server = Server::start(ARGS);
    let runtime = Runtime::new().expect("a runtime");
    let watch = |network: &Arc<Network>| {
        let proxy = Proxy::start(&runtime, server.address, "", Some(network.clone()));
        let watcher = Watcher::start(&runtime, &["--url", &proxy.url("/whep")]);
        watcher.wait_for_shots(30);
        (proxy, watcher)
    };
    let (fast, slow) = (Network::new(Duration::from_millis(2), 1), Network::new(Duration::from_millis(2), 2));
    let (_first, pilot) = watch(&fast);
    let (_second, spectator) = watch(&slow);
    slow.set_rate(1_000_000);
    wait::until_true("a thinned spectator", wait::SOON, || viewers(&server).iter().any(|viewer| viewer.thinned > 0));
    let (before, from, of_spectator) = (stream(&server).keyframes, pilot.shown(), spectator.shown());
    let begun = Instant::now();
    pilot.wait_for_shots(from + 240);
    let (stats, seconds) = (server.stats(), begun.elapsed().as_secs());
    println!("{:?}\n{:?}", stats.streams, stats.viewers);
    let seen = &spectator.shots()[of_spectator..];
    println!("spectator: {} pictures, {:?} ms", seen.len(), latency(&spectator, of_spectator));
    assert_eq!(stats.streams[0].target_bitrate_kbps, 4_000);
    let (pilots, others): (Vec<_>, Vec<_>) = stats.viewers.iter().partition(|viewer| viewer.pilot);
    assert_eq!((pilots.len(), pilots[0].thinned, others.len()), (1, 0, 1), "{stats:?}");
    // One in two seconds.
    let keyframes = stats.streams[0].keyframes - before;
    assert!((1..=seconds / 2 + 3).contains(&keyframes), "{keyframes} keyframes in {seconds} s");
    assert!(seen.len() >= 3, "the spectator still sees pictures: {}", seen.len());
    let [late, usual] =
        [(&spectator, of_spectator), (&pilot, from)].map(|(who, from)| latency(who, from).expect("marks"));
    assert!(late < usual + 500, "and no old ones: {late} ms, the pilot's {usual} ms");
    pilot.stop(&runtime);
    // Nobody flies: the bit rate is now the spectator's.
    wait::until_true("the next viewer's link decides", wait::SOON, || stream(&server).target_bitrate_kbps < 1_500);
    spectator.stop(&runtime);
}

#[test]
fn two_streams_that_one_client_watches_share_its_link() {
    let _alone = alone();
    let server =
        Server::start(&["--width", "640", "--height", "480", "--bitrate", "3000", "--stream2", "640x480@30,3000"]);
    let runtime = Runtime::new().expect("a runtime");
    let network = Network::new(Duration::from_millis(2), 1);
    let proxy = Proxy::start(&runtime, server.address, "", Some(network.clone()));
    let watchers = ["/whep", "/whep/stream2"].map(|path| {
        let watcher = Watcher::start(&runtime, &["--url", &proxy.url(path)]);
        watcher.wait_for_shots(30);
        watcher
    });
    let streams = || server.stats().streams;
    // A test picture needs less than it may have.
    let sent = || streams().iter().map(|stream| stream.bitrate_kbps).sum::<f64>();
    let both = sent() * 0.6;
    println!("{both:.0} kbit/s for both, which send {:.0}", sent());
    network.set_rate((both * 1000.0) as u64);
    let targets = || streams().iter().map(|stream| stream.target_bitrate_kbps).collect::<Vec<_>>();
    wait::until_true("two streams that fit through together", wait::START, || sent() < both);
    wait::until_true("the larger part for what was watched first", wait::START, || targets()[0] > targets()[1]);
    let in_time = |watcher: &Watcher| {
        let from = watcher.shown();
        watcher.wait_for_shots(from + 10);
        latency(watcher, from).is_some_and(|ms| ms < 150)
    };
    wait::until_true("a latency below 150 ms", wait::START, || watchers.iter().all(in_time));
    let from = watchers.each_ref().map(Watcher::shown);
    for (watcher, from) in watchers.iter().zip(from) {
        watcher.wait_for_shots(from + 150);
        let latency = latency(watcher, from);
        println!("{latency:?} ms, {:?}", targets());
        assert!(latency.is_some_and(|ms| ms < 250), "{latency:?} ms");
    }
    let stats = server.stats();
    println!("{:?}", stats.viewers);
    assert_eq!((stats.viewers.len(), watchers.each_ref().map(|watcher| watcher.report().sessions)), (2, [1, 1]));
    let [_, second] = watchers;
    second.stop(&runtime);
}

#[test]
fn the_tether_bounds_what_goes_by_rtsp_too() {
    let _alone = alone();
    let server = Server::start(&[ARGS, &["--tether", "2000"]].concat());
    let runtime = Runtime::new().expect("a runtime");
    let target = || stream(&server).target_bitrate_kbps;
    let by_rtsp = Watcher::start(&runtime, &["--url", server.rtsp.as_deref().expect("RTSP")]);
    by_rtsp.wait_for_shots(10);
    wait::until_true("below the tether", wait::SOON, || target() <= 2_000);
    assert!(target() > 1_500, "nobody else is there: {}", target());
    let by_webrtc = Watcher::start(&runtime, &["--url", &server.url("/whep")]);
    by_webrtc.wait_for_shots(10);
    wait::until_true("both together below it", wait::SOON, || target() <= 1_000);
    by_rtsp.stop(&runtime);
    wait::until_true("the rest is for who stays", wait::SOON, || (1_500..=2_000).contains(&target()));
    by_webrtc.stop(&runtime);
    wait::until_true("nobody is there", wait::SOON, || target() == 4_000);
}

#[test]
fn a_link_too_slow_for_the_picture_gets_a_smaller_one_and_later_the_whole_one() {
    let _alone = alone();
    let server = Server::start(ARGS);
    let runtime = Runtime::new().expect("a runtime");
    let network = Network::new(Duration::from_millis(2), 1);
    let proxy = Proxy::start(&runtime, server.address, "", Some(network.clone()));
    let watcher = Watcher::start(&runtime, &["--url", &proxy.url("/whep")]);
    watcher.wait_for_shots(30);
    network.set_rate(500_000);
    let size = |width, height| {
        let wanted = Resolution::new(width, height);
        watcher.shots().last().is_some_and(|shot| shot.resolution == wanted)
    };
    wait::until_true("a smaller picture", wait::START, || size(640, 360));
    wait::until_true("pictures that are whole and not old", wait::START, || {
        let from = watcher.shown();
        watcher.wait_for_shots(from + 60);
        let (order, latency) = (Order::of(&watcher.shots()[from..]), latency(&watcher, from));
        println!("{order:?} {latency:?} ms {:?}", server.stats().viewers);
        order.read > 40 && latency.is_some_and(|ms| ms < 300)
    });
    network.set_rate(0);
    wait::until_true("the whole picture", 2 * wait::START, || size(1280, 720));
    assert_eq!(watcher.report().sessions, 1);
    watcher.stop(&runtime);
}

#[test]
fn what_is_passed_through_is_thinned_for_the_pilot_as_well() {
    let _alone = alone();
    let folder = TempDir::new().expect("a temporary folder");
    let file = folder.path().join("clip.mp4");
    Clip { size: "1280x720", seconds: 4, audio: false, ..Clip::default() }.write(&file);
    let file = file.to_str().expect("plain characters");
    let server = Server::start(&["--source", "file", "--file", file, "--file-passthrough"]);
    server.wait_until_running();
    let runtime = Runtime::new().expect("a runtime");
    let network = Network::new(Duration::from_millis(2), 1);
    let proxy = Proxy::start(&runtime, server.address, "", Some(network.clone()));
    let watcher = Watcher::start(&runtime, &["--url", &proxy.url("/whep")]);
    watcher.wait_for_shots(60);
    let rate = stream(&server).bitrate_kbps;
    network.set_rate((rate * 500.0) as u64);
    wait::until_true("a thinned pilot", wait::SOON, || viewers(&server)[0].thinned > 0);
    let from = watcher.shown();
    watcher.wait_for_shots(from + 20);
    let viewer = viewers(&server).remove(0);
    println!("{rate} kbit/s, {viewer:?}");
    assert!(viewer.pilot && stream(&server).target_bitrate_kbps == 0, "{viewer:?}");
    wait::until_true("no queue for long", wait::SOON, || viewers(&server)[0].queue_ms < 600.0);
    watcher.stop(&runtime);
}

#[test]
fn without_adaptation_the_bit_rate_stays() {
    let _alone = alone();
    let args = [ARGS, &["--adaptive", "off"]].concat();
    let server = Server::start(&args);
    let runtime = Runtime::new().expect("a runtime");
    let network = Network::new(Duration::from_millis(2), 1);
    let proxy = Proxy::start(&runtime, server.address, "", Some(network.clone()));
    let watcher = Watcher::start(&runtime, &["--url", &proxy.url("/whep")]);
    watcher.wait_for_shots(30);
    network.set_rate(LIMIT);
    wait::until_true("a link that is seen to be slow", wait::SOON, || viewers(&server)[0].estimate_kbps < 3_000);
    let stats = server.stats();
    assert_eq!(stats.streams[0].target_bitrate_kbps, 4_000);
    assert_eq!((stats.viewers[0].pilot, stats.viewers[0].thinned), (false, 0));
    watcher.stop(&runtime);
}
