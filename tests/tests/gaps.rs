//! What a recording at the surface misses, and how it gets that: out of the vehicle's ring.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rov_client::stats::{RecordingReport, Report};
use rov_common::api::RingListing;
use rov_common::ring::{Head, Kept};
use rov_tests::media::marks;
use rov_tests::programs::{Client, Server};
use rov_tests::proxy::Proxy;
use rov_tests::recorded::{self, Row, packets, table};
use rov_tests::relay::Network;
use rov_tests::wait::{START, until};
use rov_tests::{http, jpeg};
use tempfile::TempDir;
use tokio::runtime::Runtime;

const PICTURE: [&str; 6] = ["--width", "320", "--height", "240", "--fps", "15"];

fn start(args: &[&str]) -> Server {
    Server::start(&[&PICTURE[..], args].concat())
}

fn list(server: &Server, from: u64, to: u64) -> RingListing {
    let reply = http::get(&server.url(&format!("/api/ring?from={from}&to={to}")));
    assert_eq!(reply.status, 200, "{reply:?}");
    serde_json::from_str(&reply.body).expect("a list")
}

#[test]
fn a_ring_lists_its_pictures_and_gives_each_as_it_was_sent() {
    let server = start(&["--always-encode", "--keyframe-interval", "1", "--ring", "10s"]);
    let all = until("three seconds are kept", START, || {
        Some(list(&server, 0, u64::MAX)).filter(|all| all.pictures_us.len() > 45)
    });
    let times = &all.pictures_us;
    assert!(times.windows(2).all(|two| two[0] < two[1]), "{times:?}");
    assert_eq!((all.kept_from_us, all.until_us), (Some(times[0]), u64::MAX));
    let (from, to) = (times[10], times[30]);
    assert_eq!(list(&server, from, to).pictures_us, times[10..=30], "both ends with it");
    assert_eq!(list(&server, from + 1, from + 1).pictures_us, [0; 0]);
    let ask = |path: &str| jpeg::get(server.address, &format!("{path}?from={from}&to={to}"));
    let (listed, answer) = (ask("/api/ring"), ask("/api/ring/pictures"));
    assert_eq!((answer.status, answer.header("content-type")), (200, "application/octet-stream"), "{answer:?}");
    let stats = server.stats();
    for answer in [&listed, &answer, &jpeg::get(server.address, "/api/clock")] {
        let said = ["x-server-id", "x-server-key"].map(|name| answer.header(name));
        assert_eq!(said, [stats.id.as_str(), stats.key.as_deref().expect("a key")], "{answer:?}");
    }
    let length = answer.header("content-length").to_owned();
    let body = answer.body();
    assert_eq!(body.len().to_string(), length);
    let mut rest = &body[..];
    let head = Head::read(&mut rest).expect("a head");
    assert_eq!((head.run, head.pictures), (all.run, 21));
    let pictures: Vec<_> = (0..head.pictures).map(|_| Kept::read(&mut rest).expect("a picture")).collect();
    assert!(rest.is_empty());
    let captured: Vec<_> = pictures.iter().map(|picture| picture.captured.micros()).collect();
    assert_eq!(captured, times[10..=30]);
    assert!(pictures.iter().any(|picture| picture.keyframe));
    assert!(pictures.iter().all(|picture| picture.unit.starts_with(&[0, 0, 0, 1]) || picture.unit[..3] == [0, 0, 1]));
}

#[test]
fn where_nothing_is_kept_or_the_range_is_none_the_answer_says_why() {
    let off = start(&["--ring", "off"]);
    for path in ["/api/ring", "/api/ring/pictures"] {
        let reply = http::get(&off.url(&format!("{path}?from=1&to=2")));
        assert!(reply.status == 404 && reply.error().contains("--ring 30s"), "{reply:?}");
    }
    let server =
        start(&["--user", "pilot", "--password", "secret word", "--role", "viewer", "--view", "requires-login"]);
    let login = http::basic("pilot", "secret word");
    for path in ["/api/ring", "/api/ring/pictures"] {
        assert_eq!(http::get(&server.url(&format!("{path}?from=1&to=2"))).status, 401);
        let ask = |query: &str| http::get_as(&server.url(&format!("{path}{query}")), Some(&login));
        for query in ["", "?from=1", "?from=2&to=1", "?from=x&to=2", "?from=1&to=99999999999999999999"] {
            let reply = ask(query);
            assert!(reply.status == 422 && reply.error().contains("microseconds"), "{query}: {reply:?}");
        }
        assert_eq!(ask("?from=1&to=2&stream=sonar").status, 404);
    }
}

/// Both record, with a network between them.
struct Dive {
    folder: TempDir,
    server: Server,
    client: Client,
    network: Arc<Network>,
    _proxy: Proxy,
    _runtime: Runtime,
}

fn dive(args: &[&str]) -> Dive {
    let folder = TempDir::new().expect("a folder");
    let [vehicle, surface] = ["vehicle", "surface"].map(|name| folder.path().join(name));
    let vehicle = ["--record", vehicle.to_str().expect("a plain path"), "--record-free", "1MB"];
    let server = start(&[&vehicle[..], args].concat());
    let runtime = Runtime::new().expect("a runtime");
    let network = Network::new(Duration::from_millis(2), 1);
    let proxy = Proxy::start(&runtime, server.address, "", Some(network.clone()));
    let surface = surface.to_str().expect("a plain path");
    let client = Client::start(&["--url", &proxy.url("/whep"), "--record", surface, "--record-free", "1MB"]);
    Dive { folder, server, client, network, _proxy: proxy, _runtime: runtime }
}

fn recording(report: &Report) -> RecordingReport {
    report.recording.clone().unwrap_or_default()
}

impl Dive {
    fn down(&self, time: Duration) {
        self.network.set_down(true);
        std::thread::sleep(time);
        self.network.set_down(false);
    }

    /// As the client found them, once both have ended.
    fn end(&mut self) -> RecordingReport {
        assert_eq!(self.client.process.stop(libc::SIGTERM, 2 * START), 0);
        assert_eq!(self.server.process.stop(libc::SIGTERM, START), 0);
        recording(&self.client.report().expect("a report"))
    }

    fn file(&self, side: &str) -> PathBuf {
        let files = recorded::files(&self.folder.path().join(side));
        let [file] = &files[..] else { panic!("{files:?}") };
        file.clone()
    }

    /// Whether both files have the same pictures from the client's first to its last, by their tables and by ffprobe;
    /// how many these are.
    fn compare(&self) -> u64 {
        let (vehicle, surface) = (self.file("vehicle"), self.file("surface"));
        let (sent, here) = (table(&vehicle), table(&surface));
        let within = |row: &&Row| here[0].captured <= row.captured && row.captured <= here[here.len() - 1].captured;
        let sent: Vec<_> = sent.iter().filter(within).cloned().collect();
        let captured = |rows: &[Row]| rows.iter().map(|row| row.captured).collect::<Vec<_>>();
        assert_eq!(captured(&here), captured(&sent));
        assert!(here.iter().all(|row| row.missing == 0), "{here:?}");
        let shown = packets(&surface);
        let (from, to) = (sent[0].seconds - 0.001, sent[sent.len() - 1].seconds + 0.001);
        let of_vehicle = packets(&vehicle).into_iter().filter(|time| (from..=to).contains(time)).count();
        assert_eq!((shown.len(), of_vehicle), (here.len(), here.len()), "by ffprobe");
        for (number, time) in shown.iter().enumerate() {
            assert!((time - here[number].seconds).abs() < 0.001, "{time} {:?}", here[number]);
        }
        let numbers: Vec<_> =
            marks(&["-i", surface.to_str().expect("a plain path")], 320, 240).iter().map(|mark| mark.frame).collect();
        assert_eq!(numbers.len(), here.len(), "each is decoded");
        assert!(numbers.windows(2).all(|two| two[0] < two[1]), "each once, in order: {numbers:?}");
        here.len() as u64
    }
}

#[test]
fn after_an_outage_the_clients_file_has_what_the_vehicles_has() {
    let mut dive = dive(&["--ring", "60s"]);
    let present = |report: &Report| recording(report).pictures_present;
    let before = dive.client.wait_for("it records", START, |report| present(report) > 20);
    dive.down(Duration::from_secs(4));
    let is_mended = |report: &Report| {
        let recording = recording(report);
        present(report) > present(&before) + 75 && recording.gaps == 0
    };
    dive.client.wait_for("what was missed has come", 3 * START, is_mended);
    let report = dive.end();
    let log = dive.client.process.stderr();
    assert!(log.contains("missing pictures were fetched"), "{log}");
    assert_eq!((report.pictures_expected, report.gaps), (report.pictures_present, 0), "{report:?} {log}");
    assert!(report.files_not_compared == 0 && !log.contains("not compared"), "{report:?} {log}");
    let told = format!("pictures expected {0}, present {0}, gaps 0", report.pictures_present);
    assert!(log.contains(&told), "{told}: {log}");
    assert_eq!(dive.compare(), report.pictures_present);
}

#[test]
fn at_five_percent_loss_and_cut_short_no_picture_is_missing() {
    let mut dive = dive(&[]);
    let present = |report: &Report| recording(report).pictures_present;
    dive.client.wait_for("it records", START, |report| present(report) > 20);
    dive.network.set_loss(0.05);
    let is_long = |report: &Report| present(report) > 150;
    dive.client.wait_for("ten seconds", 3 * START, is_long);
    dive.down(Duration::from_millis(700));
    dive.client.wait_for("the picture is back", START, |report| recording(report).gaps > 0 || present(report) > 200);
    // What is still missing is fetched before the end.
    let report = dive.end();
    let log = dive.client.process.stderr();
    assert_eq!((report.pictures_expected, report.gaps), (report.pictures_present, 0), "{report:?} {log}");
    assert_eq!(dive.compare(), report.pictures_present);
}

#[test]
fn what_the_vehicle_does_not_keep_is_a_gap_with_its_time_and_the_reason_is_told_once() {
    let mut dive = dive(&["--ring", "off"]);
    let present = |report: &Report| recording(report).pictures_present;
    dive.client.wait_for("it records", START, |report| present(report) > 20);
    for gaps in [1, 2] {
        dive.down(Duration::from_millis(700));
        dive.client.wait_for("a gap", START, |report| recording(report).gaps >= gaps);
    }
    let report = dive.end();
    assert_eq!(report.newest_gaps.len() as u64, report.gaps, "{report:?}");
    let listed: u64 = report.newest_gaps.iter().map(|gap| gap.pictures).sum();
    assert_eq!(report.pictures_expected - report.pictures_present, listed, "{report:?}");
    assert!(report.newest_gaps.iter().all(|gap| gap.at.is_some() && gap.seconds > 0.3), "{report:?}");
    let log = dive.client.process.stderr();
    assert_eq!(log.matches("cannot be fetched").count(), 1, "{log}");
    assert!(log.contains("--ring 30s"), "{log}");
    assert!(report.files_not_compared == 1 && log.contains("; 1 of the files not compared"), "{report:?} {log}");
}

#[test]
fn a_client_that_is_killed_leaves_a_file_that_plays() {
    let mut dive = dive(&[]);
    let present = |report: &Report| recording(report).pictures_present;
    dive.client.wait_for("it records", START, |report| present(report) > 20);
    dive.down(Duration::from_secs(1));
    let is_mended = |report: &Report| present(report) > 60 && recording(report).gaps == 0;
    let before = dive.client.wait_for("what was missed has come", 2 * START, is_mended);
    dive.client.process.kill();
    let file = dive.file("surface");
    let times = packets(&file);
    assert!(times.windows(2).all(|two| two[0] < two[1]), "{times:?}");
    let shown = marks(&["-i", file.to_str().expect("a plain path")], 320, 240);
    assert_eq!(shown.len(), times.len(), "each is decoded");
    // All but those of the outage, which no player of an unfinished file can find.
    assert!(times.len() as u64 + 20 >= present(&before), "{} of {}", times.len(), present(&before));
}
