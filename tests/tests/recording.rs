//! Recordings on the vehicle, played by ffmpeg: whole, over several files, after SIGKILL, by HTTP.

use std::io::Write as _;
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, UNIX_EPOCH};

use rand::RngExt;
use rov_client::stats::{RecordingReport, Report};
use rov_common::api::{ClockSource, RecordingState, RecordingStats, Recordings};
use rov_common::capture_clock::CaptureClock;
use rov_tests::in_process::Serving;
use rov_tests::media::marks;
use rov_tests::namespace;
use rov_tests::process::program;
use rov_tests::programs::{Client, Server};
use rov_tests::proxy::Proxy;
use rov_tests::relay::Network;
use rov_tests::wait::{START, until, until_true};
use rov_tests::{events::Follower, http};
use serde_json::json;
use tempfile::TempDir;
use tokio::runtime::Runtime;

const PICTURE: [&str; 6] = ["--width", "320", "--height", "240", "--fps", "15"];

fn start(folder: &Path, args: &[&str]) -> Server {
    let folder = folder.to_str().expect("a path of plain characters");
    Server::start(&[&PICTURE[..], &["--record", folder, "--record-free", "1MB"], args].concat())
}

fn recording(server: &Server) -> RecordingStats {
    server.stats().streams[0].recording.clone().expect("it can be recorded")
}

/// Those of this kind, the oldest first.
fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().map(|entry| entry.expect("an entry").path());
    let mut files: Vec<_> = entries.filter(|path| path.extension().is_some_and(|found| found == extension)).collect();
    files.sort();
    files
}

/// Packets, and how long they last in seconds.
fn probe(file: &Path) -> (u64, f64) {
    let mut command = Command::new(program("ffprobe", "ffmpeg"));
    command.args(["-v", "error", "-count_packets", "-show_entries", "stream=nb_read_packets:format=duration"]);
    let output = command.args(["-of", "default=noprint_wrappers=1"]).arg(file).output().expect("ffprobe starts");
    let text = String::from_utf8_lossy(&output.stdout);
    let value = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('=')?.parse().ok());
    let all = value("nb_read_packets").zip(value("duration"));
    let (packets, seconds): (f64, f64) =
        all.unwrap_or_else(|| panic!("{}: {text} {}", file.display(), String::from_utf8_lossy(&output.stderr)));
    (packets as u64, seconds)
}

fn numbers(file: &Path) -> Vec<u32> {
    marks(&["-i", file.to_str().expect("a plain path")], 320, 240).iter().map(|mark| mark.frame).collect()
}

#[test]
fn no_picture_is_missing_over_several_files_and_each_is_an_ordinary_one() {
    let folder = TempDir::new().expect("a folder");
    let mut server = start(folder.path(), &["--record-split", "5s"]);
    until_true("three files", 2 * START, || files(folder.path(), "mp4").len() >= 3);
    let dropped = server.stats().streams[0].frames_dropped;
    let stats = recording(&server);
    assert_eq!((stats.gaps, stats.state), (0, RecordingState::Recording), "{stats:?}");
    assert_eq!(server.process.stop(libc::SIGTERM, START), 0);
    let files = files(folder.path(), "mp4");
    let mut all = Vec::new();
    for file in &files {
        let bytes = std::fs::read(file).expect("the file");
        assert_eq!((&bytes[4..8], &bytes[32..36]), (&b"ftyp"[..], &b"mdat"[..]), "it has its index");
        let (packets, seconds) = probe(file);
        let numbers = numbers(file);
        assert_eq!(numbers.len() as u64, packets, "each picture is decoded");
        assert!(seconds < 60.0);
        let table = std::fs::read_to_string(file.with_extension("csv")).expect("the table of times");
        assert_eq!(table.lines().count() as u64, packets + 1);
        all.extend(numbers);
    }
    assert!(all.windows(2).all(|two| two[0] < two[1]), "{all:?}");
    // What a busy machine leaves out before the encoder is in no recording.
    let missing = u64::from(all[all.len() - 1] - all[0] + 1) - all.len() as u64;
    assert!(missing <= dropped + 5, "{missing} missing, {dropped} dropped before the encoder: {all:?}");
}

/// As the client found them, once it has ended.
fn recorded(client: &Client) -> RecordingReport {
    client.report().expect("a report").recording.expect("it was recorded")
}

#[test]
fn the_client_records_what_it_receives_and_ends_the_file_at_sigterm() {
    let folder = TempDir::new().expect("a folder");
    let server = Server::start(&[&PICTURE[..], &["--name", "Nemo"]].concat());
    let path = folder.path().join("new").to_str().expect("a plain path").to_owned();
    let args = ["--url", &server.url("/whep"), "--record", &path, "--record-split", "5s", "--record-free", "1MB"];
    let mut client = Client::start(&args);
    let enough = |report: &Report| report.recording.as_ref().is_some_and(|one| one.files.len() >= 2);
    client.wait_for("two files", 2 * START, enough);
    assert_eq!(client.process.stop(libc::SIGTERM, START), 0);
    let (report, stats) = (recorded(&client), server.stats());
    let files = files(Path::new(&path), "mp4");
    assert_eq!(report.files.iter().map(|file| PathBuf::from(&file.file)).collect::<Vec<_>>(), files);
    let mut all = Vec::new();
    for (file, said) in files.iter().zip(&report.files) {
        assert!(file.to_string_lossy().ends_with("Z_Nemo_cam1_stream1.mp4"), "{}", file.display());
        let bytes = std::fs::read(file).expect("the file");
        assert_eq!((&bytes[32..36], bytes.len() as u64), (&b"mdat"[..], said.bytes), "it has its index");
        let (packets, numbers) = (probe(file).0, numbers(file));
        assert_eq!((numbers.len() as u64, said.pictures_present), (packets, packets), "each picture is decoded");
        all.extend(numbers);
    }
    assert!(all.windows(2).all(|two| two[0] < two[1]), "none twice: {all:?}");
    assert_eq!((report.pictures_present, report.on), (all.len() as u64, false), "{report:?}");
    let log = client.process.stderr();
    let told = format!("pictures expected {}, present {}, gaps {}", report.pictures_expected, all.len(), report.gaps);
    assert!(log.contains(&told), "{told}: {log}");
    // What a busy machine leaves out before the encoder was never sent.
    let missing = u64::from(all[all.len() - 1] - all[0] + 1) - all.len() as u64;
    let known = report.pictures_expected - report.pictures_present;
    assert!(missing <= stats.streams[0].frames_dropped + known + 5, "{missing} are missing: {report:?} {all:?}");
}

/// Sends a depth of metres to the vehicle, again and again, until it is dropped.
struct Depth(Arc<AtomicBool>);

impl Depth {
    fn send(server: &Server, metres: f64) -> Self {
        let address = server.stats().telemetry.expect("telemetry").addresses.remove(0).replace("udp://", "");
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                socket.send_to(json!({ "depth": metres }).to_string().as_bytes(), &address).expect("sent");
                std::thread::sleep(Duration::from_millis(50));
            }
        });
        Self(stop)
    }
}

impl Drop for Depth {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The first picture, luminance of 8 bits each; `filter` of ffmpeg, where it is not empty.
fn first_picture(file: &Path, filter: &str) -> Vec<u8> {
    let mut command = Command::new(program("ffmpeg", "ffmpeg"));
    command.args(["-v", "error", "-nostdin", "-i"]).arg(file);
    if !filter.is_empty() {
        command.args(["-vf", filter]);
    }
    let output = command.args(["-frames:v", "1", "-f", "rawvideo", "-pix_fmt", "gray", "-"]).output();
    let output = output.expect("ffmpeg starts");
    assert_eq!(output.stdout.len(), 320 * 240, "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// On the vehicle and at the surface: a column in the table, and subtitles that are burned in; both go with the
/// recording.
#[test]
fn what_the_vehicle_measured_lies_beside_its_recording_and_the_clients() {
    let (vehicle, surface) = (TempDir::new().expect("a folder"), TempDir::new().expect("a folder"));
    let pilot = ["--user", "pilot", "--password", "deep sea"];
    let server = start(
        vehicle.path(),
        &[&["--telemetry", "udp://127.0.0.1:0", "--record-when", "on-request"][..], &pilot].concat(),
    );
    let _depth = Depth::send(&server, 12.5);
    let login = server.login.clone().expect("a login");
    let headers = [("Authorization", login.as_str()), ("Content-Type", "application/json")];
    let set = |on: bool| {
        let body = json!({ "value": on }).to_string();
        assert_eq!(
            http::request_with("PATCH", &server.url("/api/settings/recording"), &headers, body.as_bytes()).status,
            200
        );
    };
    until_true("telemetry came", START, || server.stats().telemetry.is_some_and(|telemetry| telemetry.datagrams > 5));
    let path = surface.path().to_str().expect("a plain path");
    let args = ["--url", &server.url("/whep"), "--record", path, "--record-free", "1MB"];
    let mut client = Client::start(&[&args[..], &pilot].concat());
    set(true);
    until_true("the vehicle records", START, || recording(&server).pictures > 30);
    // What comes after the head of the first table begins another.
    let has_text = |file: &PathBuf| std::fs::read_to_string(file).is_ok_and(|text| text.contains("Dialogue: "));
    let subtitled = || files(surface.path(), "ass").pop().filter(has_text);
    let at_surface = until("the client has subtitles", START, subtitled);
    assert_eq!(client.process.stop(libc::SIGTERM, START), 0);
    set(false);
    until_true("it is off", START, || recording(&server).state == RecordingState::Off);
    let on_vehicle = files(vehicle.path(), "ass").remove(0);
    for subtitles in [&on_vehicle, &at_surface] {
        let text = std::fs::read_to_string(subtitles).expect("subtitles");
        assert!(text.contains(",Depth 12.5 m\n"), "{text}");
        let table = std::fs::read_to_string(subtitles.with_extension("csv")).expect("a table");
        let head = table.lines().next().expect("a head");
        let column = head.split(',').position(|name| name == "depth").unwrap_or_else(|| panic!("{head}"));
        let last = table.lines().last().expect("rows");
        assert_eq!(last.split(',').nth(column), Some("12.5"), "{head} {last}");
        let rows = head.split(',').count();
        assert!(table.lines().all(|line| line.split(',').count() == rows), "{table}");
    }
    // It is seen in the picture, in the lower left corner.
    let file = on_vehicle.with_extension("mp4");
    let (plain, burned) = (first_picture(&file, ""), first_picture(&file, &format!("ass={}", on_vehicle.display())));
    let differs = |at: &usize| plain[*at].abs_diff(burned[*at]) > 60;
    let changed: Vec<_> = (0..plain.len()).filter(differs).map(|at| (at % 320, at / 320)).collect();
    assert!(changed.len() > 60, "{} pixels are letters", changed.len());
    assert!(changed.iter().all(|(x, y)| *x < 200 && *y > 180), "{changed:?}");

    let reply = http::get_as(&server.url("/api/recordings"), Some(&login));
    let listed = serde_json::from_str::<Recordings>(&reply.body).expect("a list").recordings.remove(0);
    let url = listed.subtitles_url.expect("it has subtitles");
    // Without a login, as it was listed.
    let got = http::get(&server.url(&url));
    assert_eq!((got.status, got.header("content-type")), (200, "text/x-ssa; charset=utf-8"), "{got:?}");
    assert!(got.body.starts_with("[Script Info]\n"));
    let delete =
        http::request_with("DELETE", &server.url(listed.url.split('?').next().unwrap_or_default()), &headers, b"");
    assert_eq!(delete.status, 204);
    assert_eq!(std::fs::read_dir(vehicle.path()).expect("the folder").count(), 0, "all of it is gone");
}

#[test]
fn the_client_records_each_tile_of_the_grid_into_files_of_its_own() {
    let folder = TempDir::new().expect("a folder");
    let (config, dives) = (folder.path().join("rov.toml"), folder.path().join("dives"));
    let cameras = "[[camera]]\nname = 'bow'\n[[camera]]\nname = 'arm'\nsource = 'test'\n";
    std::fs::write(&config, cameras).expect("a file");
    let config = ["--config", config.to_str().expect("a plain path"), "--name", "Nemo"];
    let server = Server::start(&[&PICTURE[..], &config[..]].concat());
    let path = dives.to_str().expect("a plain path");
    let url = server.url("/whep");
    // What is not named within a second has its name in its next file.
    let record = ["--record", path, "--record-free", "1MB", "--record-split", "5s"];
    let mut client = Client::start(&[&["--grid", "--url", &url][..], &record].concat());
    let names = ["Z_Nemo_bow_stream1.mp4", "Z_Nemo_arm_stream1.mp4"];
    let both = |report: &Report| {
        let recording = report.recording.as_ref();
        let is_written = |one: &RecordingReport, name| one.writing.iter().any(|file| file.ends_with(name));
        let are_written = |one: &RecordingReport| names.iter().all(|name| is_written(one, name));
        report.tiles.len() == 2 && recording.is_some_and(|one| are_written(one) && one.pictures_present > 60)
    };
    client.wait_for("both tiles are recorded", 2 * START, both);
    assert_eq!(client.process.stop(libc::SIGTERM, START), 0);
    let report = recorded(&client);
    let is_there = |name: &&str| report.files.iter().any(|file| file.file.ends_with(name));
    assert!(names.iter().all(is_there), "{report:?}");
    for file in &report.files {
        assert_eq!(probe(Path::new(&file.file)).0, file.pictures_present, "{file:?}");
    }
}

#[test]
fn what_the_network_loses_is_counted_as_a_gap_and_the_clients_file_goes_on_with_a_keyframe() {
    let folder = TempDir::new().expect("a folder");
    // Nothing can be fetched later.
    let server = Server::start(&[&PICTURE[..], &["--ring", "off"]].concat());
    let runtime = Runtime::new().expect("a runtime");
    let network = Network::new(Duration::from_millis(2), 1);
    let proxy = Proxy::start(&runtime, server.address, "", Some(network.clone()));
    let path = folder.path().to_str().expect("a plain path");
    let url = proxy.url("/whep");
    let mut client = Client::start(&["--url", &url, "--record", path, "--record-free", "1MB"]);
    let present = |report: &Report| report.recording.as_ref().map_or(0, |one| one.pictures_present);
    let before = client.wait_for("recorded", START, |report| present(report) > 20);
    // Shorter than a session stands it.
    network.set_down(true);
    std::thread::sleep(Duration::from_millis(700));
    network.set_down(false);
    let goes_on = |report: &Report| {
        let gaps = report.recording.as_ref().map_or(0, |one| one.gaps);
        gaps > 0 && present(report) > present(&before) + 30
    };
    client.wait_for("a gap, and more behind it", 2 * START, goes_on);
    assert_eq!(client.process.stop(libc::SIGTERM, START), 0);
    let report = recorded(&client);
    let files = files(folder.path(), "mp4");
    assert_eq!(files.len(), 1, "it goes on in the same file: {report:?}");
    let (packets, numbers) = (probe(&files[0]).0, numbers(&files[0]));
    assert_eq!((numbers.len() as u64, report.pictures_present), (packets, packets), "each picture is decoded");
    let known = report.pictures_expected - report.pictures_present;
    let missing = u64::from(numbers[numbers.len() - 1] - numbers[0] + 1) - numbers.len() as u64;
    let dropped = server.stats().streams[0].frames_dropped;
    println!("{missing} missing, {dropped} dropped before the encoder, {report:?}");
    // By the marks in the pictures. Those behind the last one have none.
    assert!(known >= 1 && known.abs_diff(missing) <= dropped + 5, "{missing} are missing, {report:?}");
}

#[test]
fn a_folder_that_cannot_be_written_takes_nothing_from_the_clients_picture_and_is_told() {
    let folder = TempDir::new().expect("a folder");
    let file = folder.path().join("file");
    std::fs::write(&file, b"no folder").expect("a file");
    let server = Server::start(&PICTURE);
    let (url, path) = (server.url("/whep"), file.join("dives"));
    let mut client = Client::start(&["--url", &url, "--record", path.to_str().expect("a plain path")]);
    client.wait_for("the reason", START, |report| {
        report.recording.as_ref().is_some_and(|one| one.reason.is_some() && one.pictures_expected > 10)
    });
    let shown = client.report().expect("a report").frames_shown;
    client.wait_for_frames(shown, 10);
    assert_eq!(client.process.stop(libc::SIGTERM, START), 0);
    let report = recorded(&client);
    assert_eq!((report.pictures_present, report.files.len()), (0, 0), "{report:?}");
    let log = client.process.stderr();
    assert!(log.contains("is paused: the folder cannot be used"), "{log}");
}

/// Of a small disk of its own.
#[test]
fn a_disk_that_is_full_costs_no_picture_and_recording_goes_on_when_there_is_room() {
    if !namespace::is_inside("a_disk_that_is_full_costs_no_picture_and_recording_goes_on_when_there_is_room") {
        return;
    }
    let folder = TempDir::new().expect("a folder");
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=160m", "none"]).arg(folder.path()).status();
    assert!(mounted.expect("mount starts").success());
    let dives = folder.path().join("dives");
    let mut server = start(&dives, &[]);
    let mut client = Client::start(&["--url", &server.url("/whep")]);
    let wait_for = |server: &Server, what: &str, state: RecordingState, pictures: u64| {
        until(what, 2 * START, || {
            Some(recording(server)).filter(|stats| stats.state == state && stats.pictures >= pictures)
        })
    };
    let before = wait_for(&server, "it records", RecordingState::Recording, 15);
    // Another program takes all that is left: writing fails, before what shall stay free is looked at.
    let filler = folder.path().join("filler");
    let fill = |most: usize| {
        let mut file = std::fs::File::create(&filler).expect("a file");
        for _ in 0..most / 4096 {
            if file.write_all(&[0; 4096]).is_err() {
                break;
            }
        }
    };
    fill(usize::MAX);
    let paused = wait_for(&server, "it pauses", RecordingState::Paused, before.pictures);
    let reason = paused.reason.expect("a reason");
    assert!(reason.contains("No space left") || reason.contains("free"), "{reason}");
    // The picture goes on.
    let shown = client.report().expect("a report").frames_shown;
    client.wait_for_frames(shown, 30);
    std::fs::remove_file(&filler).expect("removed");
    wait_for(&server, "it goes on by itself", RecordingState::Recording, paused.pictures + 15);
    // Less than 1 MB shall not be left; recording stops before that.
    let free = recording(&server).free_bytes.expect("it is known") as usize;
    fill(free - 1_200_000);
    let paused = wait_for(&server, "it stops in time", RecordingState::Paused, paused.pictures);
    assert!(paused.free_bytes.is_some_and(|free| free > 700_000), "{paused:?}");
    std::fs::remove_file(&filler).expect("removed");
    let end = wait_for(&server, "it goes on again", RecordingState::Recording, paused.pictures + 15);
    assert!(end.gaps >= 2 && end.missing > 0 && end.newest_gaps.len() as u64 == end.gaps, "{end:?}");
    let report = client.report().expect("a report");
    assert_eq!((report.packets_lost, report.sessions), (0, 1), "{report:?}");
    assert_eq!(server.process.stop(libc::SIGTERM, START), 0);
    let all = files(&dives, "mp4");
    assert!(all.len() >= 3, "{all:?}");
    let mut packets = 0;
    for file in &all {
        let of_file = probe(file).0;
        assert_eq!(numbers(file).len() as u64, of_file, "{} is played whole", file.display());
        packets += of_file;
    }
    assert!(packets >= end.pictures, "{packets} of {end:?}");
}

#[test]
fn after_sigkill_at_any_moment_what_was_recorded_plays() {
    let mut random = rand::rng();
    for _ in 0..4 {
        let folder = TempDir::new().expect("a folder");
        let mut server = start(folder.path(), &[]);
        let before = until("it records", START, || Some(recording(&server)).filter(|stats| stats.bytes > 2_000));
        std::thread::sleep(Duration::from_millis(random.random_range(0..1_500)));
        server.process.kill();
        let files = files(folder.path(), "mp4");
        assert_eq!(files.len(), 1);
        assert!(std::fs::metadata(&files[0]).expect("the file").len() >= before.bytes, "what was said is on the disk");
        let (packets, _) = probe(&files[0]);
        assert!(packets > 0);
        let numbers = numbers(&files[0]);
        assert!(numbers.len() as u64 >= packets - 1, "{packets} packets, decoded {numbers:?}");
    }
}

#[test]
fn recordings_are_listed_read_in_parts_and_deleted_by_controllers_alone() {
    let folder = TempDir::new().expect("a folder");
    std::fs::write(folder.path().join("dive.mp4"), b"somebody else's").expect("a file");
    let login = ["--user", "pilot", "--password", "secret word", "--record-when", "on-request"];
    let server = start(folder.path(), &login);
    let controller = server.login.clone().expect("a login");
    let as_controller = [("Authorization", controller.as_str()), ("Content-Type", "application/json")];
    let list = || {
        let reply = http::get_as(&server.url("/api/recordings"), Some(&controller));
        assert_eq!(reply.status, 200, "{reply:?}");
        serde_json::from_str::<Recordings>(&reply.body).expect("a list")
    };
    assert_eq!(list().recordings, [], "not before somebody wants it, and no file of somebody else's");
    assert_eq!(recording(&server).state, RecordingState::Off);
    let setting = server.url("/api/settings/recording");
    let set = |on: bool| {
        let reply =
            http::request_with("PATCH", &setting, &as_controller, json!({ "value": on }).to_string().as_bytes());
        assert_eq!((reply.status, &reply.json()["applied"]["recording"]), (200, &json!(on)), "{reply:?}");
    };
    set(true);
    until("it records", START, || Some(recording(&server)).filter(|stats| stats.bytes > 2_000));
    let open = list().recordings;
    assert_eq!((open.len(), open[0].is_open, open[0].label.as_str()), (1, true, "cam1_stream1"));
    let url = server.url(&format!("/api/recordings/{}", open[0].name));
    assert_eq!(http::request_with("DELETE", &url, &as_controller, b"").status, 409, "it is being written");
    set(false);
    until_true("it is off", START, || recording(&server).state == RecordingState::Off);
    let found = &list().recordings[0];
    assert!(!found.is_open && found.begun.ends_with('Z'), "{found:?}");
    // Without a login, by an address that was listed; and the same cut.
    assert_eq!(http::get(&url).status, 401);
    let table = http::get(&server.url(&found.times_url));
    assert_eq!((table.status, table.header("content-type")), (200, "text/csv; charset=utf-8"), "{table:?}");
    assert!(table.body.starts_with("number,time_s,captured,keyframe,missing_before\n1,0.000000,20"), "{table:?}");
    let part = http::request_with("GET", &server.url(&found.times_url), &[("Range", "bytes=7-12")], b"");
    assert_eq!((part.status, part.body.as_str()), (206, "time_s"), "{part:?}");
    assert_eq!(http::get(&server.url(found.times_url.split_once('?').expect("a proof").0)).status, 401);
    let beyond = http::request_with("GET", &server.url(&found.times_url), &[("Range", "bytes=99999999-")], b"");
    assert_eq!(beyond.status, 416);
    for other in ["dive.mp4", "..%2f..%2fetc%2fpasswd", "%2e%2e", "2025-01-01_00-00-00.000Z_cam1.mp4"] {
        let url = server.url(&format!("/api/recordings/{other}"));
        assert_eq!(http::get_as(&url, Some(&controller)).status, 404, "{other}");
        assert_eq!(http::request_with("DELETE", &url, &as_controller, b"").status, 404, "{other}");
    }
    assert_eq!(http::request("DELETE", &url, None, b"").status, 401);
    assert_eq!(http::request_with("DELETE", &url, &as_controller, b"").status, 204);
    assert_eq!(list().recordings, []);
    assert!(files(folder.path(), "csv").is_empty(), "the table goes too");
    assert_eq!(files(folder.path(), "mp4"), [folder.path().join("dive.mp4")]);
}

#[test]
fn what_becomes_of_a_recording_is_told_and_counted() {
    let folder = TempDir::new().expect("a folder");
    let server = start(folder.path(), &[]);
    until("it records", START, || Some(recording(&server)).filter(|stats| stats.seconds_left.is_some()));
    let told = Follower::start(server.address).wait_for("recording", |told| told["state"] == "recording");
    assert_eq!((&told["stream"], &told["camera"]), (&json!("stream1"), &json!("cam1")), "{told}");
    let metrics = http::get(&server.url("/metrics")).body;
    for line in [
        "rov_recording_active{camera=\"cam1\",stream=\"stream1\"} 1",
        "rov_recording_gaps_total{camera=\"cam1\",stream=\"stream1\"} 0",
    ] {
        assert!(metrics.contains(line), "{line} in {metrics}");
    }
    // The encoder does not rest, although nobody watches.
    std::thread::sleep(Duration::from_secs(6));
    let stream = &server.stats().streams[0];
    assert!(!stream.resting && stream.client_count == 0, "{stream:?}");
}

/// As on a board without a battery.
fn unset_clock() -> CaptureClock {
    CaptureClock::new(Instant::now(), UNIX_EPOCH + Duration::from_secs(60))
}

/// What a file says of whose clock its times are.
fn clock_of(file: &Path) -> String {
    let mut command = Command::new(program("ffprobe", "ffmpeg"));
    command.args(["-v", "error", "-show_entries", "format_tags=clock", "-of", "default=nw=1:nk=1"]).arg(file);
    let output = command.output().expect("ffprobe starts");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

#[test]
fn a_vehicle_whose_clock_is_not_set_takes_the_time_of_the_first_client_who_may_watch_for_names_alone() {
    let (folder, runtime) = (TempDir::new().expect("a folder"), Runtime::new().expect("a runtime"));
    let record =
        ["--source", "test", "--record", folder.path().to_str().expect("a plain path"), "--record-free", "1MB"];
    let users = ["--user", "pilot", "--password", "secret word", "--role", "viewer", "--view", "requires-login"];
    let args = [&PICTURE[..], &record, &users, &["--keyframe-interval", "1"]].concat();
    let server = Serving::start_by(&runtime, &args, unset_clock(), |_| ());
    let login = http::basic("pilot", "secret word");
    let stats = || http::stats_as(server.address, Some(&login));
    let file = || stats().streams[0].recording.clone().and_then(|recording| recording.file);
    let first = until("it records", START, file);
    let ask = |login: Option<&str>, micros: &str| {
        let login = login.map(|login| ("Authorization", login));
        let headers: Vec<_> = login.into_iter().chain([("X-Client-Time", micros)]).collect();
        let reply = http::request_with("GET", &server.url("/api/clock"), &headers, b"");
        (reply.status, stats().clock)
    };
    // 2030, 1970, and nothing at all.
    let (told, unset) = ("1893456000000000", "60000000");
    assert_eq!(ask(None, told), (401, ClockSource::Unset), "whoever may not watch");
    assert_eq!(ask(Some(&login), unset), (200, ClockSource::Unset));
    assert_eq!(ask(Some(&login), "now"), (200, ClockSource::Unset));
    assert_eq!(ask(Some(&login), told), (200, ClockSource::Client));
    assert_eq!(ask(Some(&login), "1993456000000000"), (200, ClockSource::Client));
    let second = until("the next file begins", START, || file().filter(|name| *name != first));
    assert!(first.starts_with("1970-01-01_00-0") && second.starts_with("2030-01-01_00-0"), "{first} {second}");
    let reading = http::get_as(&server.url("/api/clock"), Some(&login)).json();
    assert!(reading["sent_us"].as_u64().is_some_and(|us| us < 3_600_000_000), "ages are told by times of capture");
    let recording = || stats().streams[0].recording.clone().unwrap_or_default();
    until_true("pictures are in it", START, || recording().bytes > 0);
    assert_eq!(recording().missing, 0, "between the two no picture is missing");
    server.stop(&runtime);
    let clocks: Vec<_> = files(folder.path(), "mp4").iter().map(|file| clock_of(file)).collect();
    assert_eq!(clocks, ["unset", "client"]);
    let tables = files(folder.path(), "csv");
    let rows: Vec<_> = tables.iter().map(|path| std::fs::read_to_string(path).expect("a table")).collect();
    assert!(rows[0].contains(",1970-01-01T00:0") && !rows[0].contains("2030"), "{}", rows[0]);
    assert!(rows[1].contains(",2030-01-01T00:0") && !rows[1].contains("1970"), "{}", rows[1]);
}

#[test]
fn the_client_tells_a_vehicle_whose_clock_is_not_set_the_time() {
    let runtime = Runtime::new().expect("a runtime");
    let server = Serving::start_by(&runtime, &[&["--source", "test"], &PICTURE[..]].concat(), unset_clock(), |_| ());
    let _client = Client::start(&["--url", &server.url("/whep")]);
    until_true("it has told it", START, || http::stats(server.address).clock == ClockSource::Client);
    server.stop(&runtime);
    let server = Serving::start(&runtime, &[&["--source", "test"], &PICTURE[..]].concat(), |_| ());
    assert_eq!(http::stats(server.address).clock, ClockSource::System);
    server.stop(&runtime);
}

#[test]
fn options_of_recordings_without_a_folder_are_refused() {
    for (args, expected) in [
        (["--record-split", "1min"], "--record-split: needs --record FOLDER"),
        (["--recording", "on"], "--recording on: needs --record FOLDER"),
    ] {
        let mut server = rov_tests::programs::server_process(&args);
        assert_eq!(server.wait(START), 2);
        assert!(server.stderr().contains(expected), "{}", server.stderr());
    }
}
