//! Telemetry, and what is written over the pictures: by the server into them, and by clients.

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use rov_common::api::TelemetryStats;
use rov_common::glyphs::{Face, Mask};
use rov_tests::devtools::DevTools;
use rov_tests::events::Follower;
use rov_tests::in_process::Serving;
use rov_tests::programs::Server;
use rov_tests::wait::{self, until_true};
use rov_tests::watcher::{Order, Watcher, until_counted};
use rov_tests::{http, jpeg};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::runtime::Runtime;

const SETTINGS: &str = "/api/cameras/cam1/streams/stream1/settings";

/// What sends telemetry, by the address as the server says it.
struct Sender(UdpSocket);

impl Sender {
    fn to(address: &str) -> Self {
        let address = address.trim_start_matches("udp://").trim_start_matches("udpin:").to_owned();
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
        socket.connect(address).expect("an address");
        Self(socket)
    }

    fn send(&self, datagram: &[u8]) {
        self.0.send(datagram).expect("sent");
    }
}

fn change(server: &str, overlay: &Value) -> http::Reply {
    let login = http::basic("pilot", "deep");
    let headers = [("Authorization", login.as_str()), ("Content-Type", "application/json")];
    http::request_with("PATCH", server, &headers, json!({ "overlay": overlay }).to_string().as_bytes())
}

/// A server that `pilot` may change, with these options and a folder of its own.
fn changeable(runtime: &Runtime, args: &[&str]) -> (Serving, TempDir) {
    let folder = TempDir::new().expect("a temporary folder");
    let state = folder.path().to_str().expect("plain characters").to_owned();
    let pilot = ["--user", "pilot", "--password", "deep", "--view", "open", "--state-dir", &state];
    (Serving::start(runtime, &[args, &pilot].concat(), |_| {}), folder)
}

/// VFR_HUD of MAVLink 2, as an autopilot sends it: by <https://mavlink.io/en/guide/serialization.html>.
fn hud(depth: f32, heading: i16) -> Vec<u8> {
    let mut frame = vec![0xfd, 20, 0, 0, 1, 1, 1, 74, 0, 0];
    frame.extend([0; 8]);
    frame.extend((-depth).to_le_bytes());
    frame.extend([0; 4]);
    frame.extend(heading.to_le_bytes());
    frame.extend([0; 2]);
    // CRC-16/MCRF4XX over all but the first byte, and a byte that stands for the message's form.
    let crc = frame[1..].iter().chain([&20]).fold(0xffff_u16, |crc, byte| {
        (0..8).fold(crc ^ u16::from(*byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0x8408 } else { crc >> 1 })
    });
    frame.extend(crc.to_le_bytes());
    frame
}

#[test]
fn telemetry_is_told_as_events_and_is_unknown_when_it_is_old() {
    let server = Server::start(&["--telemetry", "udp://127.0.0.1:0", "--mavlink", "udpin:127.0.0.1:0"]);
    let telemetry = || server.stats().telemetry.expect("telemetry");
    let [json, mavlink] = <[String; 2]>::try_from(telemetry().addresses).expect("two addresses");
    assert!(json.starts_with("udp://127.0.0.1:") && mavlink.starts_with("udpin:127.0.0.1:"), "{json} {mavlink}");
    let (json, mavlink) = (Sender::to(&json), Sender::to(&mavlink));
    let mut follower = Follower::start(server.address);
    let text = |event: &Value, name: &str| event["fields"][name]["text"].as_str().unwrap_or_default().to_owned();
    // From when it is told how the stream is, it is told values too.
    follower.wait_for("state", |_| true);
    json.send(b"{\"depth\": 12.34, \"battery\": 15.2, \"gps\": \"none\"}\n");
    follower.wait_for("telemetry", |event| text(event, "depth") == "12.3 m" && text(event, "battery") == "15.2 V");
    mavlink.send(&hud(3.5, 270));
    let told = follower.wait_for("telemetry", |event| text(event, "heading") == "270°");
    assert_eq!((text(&told, "depth").as_str(), &told["fields"]["heading"]["value"]), ("3.5 m", &json!(270.0)));
    let old = follower.wait_for("telemetry", |event| text(event, "depth") == "--");
    assert_eq!(old["fields"]["depth"]["value"], Value::Null);
    assert!(old["fields"]["depth"]["age_ms"].as_u64().is_some_and(|age| age >= 2000), "{old}");
    let newer = Server::start(&[]).stats();
    assert_eq!(newer.telemetry, None, "nothing is received");
}

#[test]
fn a_flood_of_telemetry_good_and_bad_costs_no_picture() {
    let server = Server::start(&["--telemetry", "udp://127.0.0.1:0", "--fps", "10"]);
    let address = server.stats().telemetry.expect("telemetry").addresses.remove(0);
    let sender = Sender::to(&address);
    let runtime = Runtime::new().expect("a runtime");
    let watcher = Watcher::start(&runtime, &["--url", &server.url("/whep")]);
    watcher.wait_for_shots(10);
    let huge = [&b"{\"depth\": 1, \"x\": \""[..], &b"x".repeat(9000), b"\"}"].concat();
    let kinds: [&[u8]; 5] = [b"{\"depth\": 1.5}", b"{\"depth\": NaN}", b"\xff\x00[[[[", &huge, b"{\"depth\": 2.5}"];
    let begun = Instant::now();
    let mut sent = 0;
    for kind in kinds.iter().cycle().take(2000) {
        sender.send(kind);
        sent += 1;
        let due = begun + Duration::from_millis(sent);
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
    }
    // A busy machine may lose some before they are read.
    let TelemetryStats { datagrams, refused, .. } = server.stats().telemetry.expect("telemetry");
    assert!(refused > 100 && datagrams > refused && datagrams <= 2000, "{datagrams} datagrams, {refused} refused");
    let mut follower = Follower::start(server.address);
    sender.send(b"{\"depth\": 7.5}");
    follower.wait_for("telemetry", |event| event["fields"]["depth"]["text"] == "7.5 m");
    watcher.wait_for_shots(watcher.shown() + 10);
    let (stats, report) = (server.stats(), watcher.report());
    let order = Order::of(&watcher.shots());
    until_counted(order.missing, &report, || server.stats());
    // Of the 30 at least that came; a busy machine may drop some.
    assert!(stats.streams[0].frames_dropped <= 5, "{:?}", stats.streams[0]);
    assert_eq!((stats.streams[0].restarts, report.sessions), (0, 1));
    let log = server.process.stderr();
    let lines = log.lines().filter(|line| line.contains("telemetry not taken")).count();
    assert!((1..=32).contains(&lines), "{lines} lines");
    watcher.stop(&runtime);
}

/// The part of the picture, from left and top to right and bottom, that differs from an even grey.
fn written(server: &Serving) -> Option<[usize; 4]> {
    let picture = jpeg::get(server.address, "/snapshot.jpg").body();
    let (width, _, luma) = jpeg::luma(&picture);
    let ground = luma[luma.len() - 1];
    let places = luma.iter().enumerate().filter(|(_, pixel)| pixel.abs_diff(ground) > 40).map(|(at, _)| at);
    places
        .map(|at| [at % width, at / width, at % width, at / width])
        .reduce(|a, b| [a[0].min(b[0]), a[1].min(b[1]), a[2].max(b[2]), a[3].max(b[3])])
}

#[test]
fn what_is_burned_in_is_in_the_picture_where_it_should_be() {
    let runtime = Runtime::new().expect("a runtime");
    let grey = "videotestsrc is-live=true pattern=solid-color foreground-color=0xff808080 \
                ! video/x-raw,width=640,height=360,framerate=15/1";
    let args = ["--pipeline", grey, "--width", "640", "--height", "360", "--telemetry", "udp://127.0.0.1:0"];
    let (server, _folder) = changeable(&runtime, &args);
    assert_eq!(written(&server), None);
    let overlay =
        json!({ "where": "burn", "timestamp": "off", "text": "DIVE 7", "x": 200, "y": 100, "fields": ["depth"] });
    let reply = change(&server.url(SETTINGS), &overlay);
    assert_eq!((reply.status, &reply.json()["applied"]["overlay"]["where"]), (200, &json!("burn")), "{reply:?}");
    let mut seen = None;
    until_true("the text", wait::START, || {
        seen = written(&server);
        seen.is_some()
    });
    // Two lines of 13 pixels and the longest of 8 letters of 6 pixels, with their ground; compression blurs the edges.
    let [left, top, right, bottom] = seen.expect("a text");
    assert!((194..=206).contains(&left) && (94..=106).contains(&top), "{seen:?}");
    assert!((240..=270).contains(&right) && (126..=146).contains(&bottom), "{seen:?}");
    // A value makes the last line longer.
    let sender = Sender::to(&http::stats(server.address).telemetry.expect("telemetry").addresses[0]);
    until_true("a longer line", wait::START, || {
        sender.send(b"{\"depth\": 1234567.8}");
        written(&server).is_some_and(|[_, _, now, _]| now > right + 20)
    });
    until_true("the value is old", wait::START, || written(&server).is_some_and(|[_, _, now, _]| now <= right + 8));
    let reply = change(&server.url(SETTINGS), &json!({ "where": "client" }));
    assert_eq!(reply.status, 200, "{reply:?}");
    until_true("no text", wait::START, || written(&server).is_none());
    server.stop(&runtime);
}

/// The digit that is the last letter of `Text 0` or the like, burned in there, by what the letters cover; none where
/// they do not stand out from their ground.
fn digit(server: &Serving, x: usize, y: usize) -> Option<usize> {
    let (width, height, luma) = jpeg::luma(&jpeg::get(server.address, "/snapshot.jpg").body());
    // As the server has them: the height of letters, and what is left beside them.
    let face = Face::at_least(height as i32 * 24 / 1000).1;
    let (pad, advance) = (face.height() as usize / 3, face.advance() as usize);
    let brightness = |digit: usize| {
        let mask = Mask::of(&format!("Text {digit}"), face);
        let places = (0..mask.height()).flat_map(|dy| (0..mask.width()).map(move |dx| (dx, dy)));
        let (mut letters, mut ground) = ((0.0, 0.0), (0.0, 0.0));
        for (dx, dy) in places {
            let pixel = f64::from(luma[(y + pad + dy as usize) * width + x + pad + dx as usize]);
            // The last letter alone tells one from the other; all together, that there are any.
            let weight = if dx as usize >= 5 * advance { 10.0 } else { 1.0 };
            let side = if mask.coverage(dx, dy) > 128 { &mut letters } else { &mut ground };
            *side = (side.0 + pixel * weight, side.1 + weight);
        }
        letters.0 / letters.1 - ground.0 / ground.1
    };
    let best = (0..10).max_by(|a, b| brightness(*a).total_cmp(&brightness(*b)))?;
    (brightness(best) > 60.0).then_some(best)
}

#[test]
fn another_text_is_burned_in_while_a_viewer_misses_no_picture() {
    let runtime = Runtime::new().expect("a runtime");
    let args = ["--source", "test", "--width", "640", "--height", "360", "--overlay", "burn", "--overlay-y", "120"];
    let (server, _folder) = changeable(&runtime, &args);
    let locked = change(&server.url(SETTINGS), &json!({ "where": "off" }));
    assert!(locked.status == 403 && locked.error().contains("overlay.where: is given by"), "{locked:?}");
    let watcher = Watcher::start(&runtime, &["--url", &server.url("/whep")]);
    watcher.wait_for_shots(10);
    for number in 0..10 {
        let overlay = json!({ "text": format!("Text {number}"), "x": number * 20, "timestamp": "off" });
        let reply = change(&server.url(SETTINGS), &overlay);
        assert_eq!(reply.status, 200, "{reply:?}");
        watcher.wait_for_shots(watcher.shown() + 5);
        until_true(&format!("text {number}"), wait::START, || digit(&server, number * 20, 120) == Some(number));
    }
    let (shots, report) = (watcher.shots(), watcher.report());
    let order = Order::of(&shots);
    let longest = shots.windows(2).map(|two| two[1].shown_at - two[0].shown_at).max();
    println!("{order:?}, the longest without a picture: {longest:?}");
    assert_eq!((order.read, order.out_of_order, report.sessions), (shots.len(), 0, 1));
    until_counted(order.missing, &report, || http::stats(server.address));
    assert_eq!(server.stream().restarts, 0);
    watcher.stop(&runtime);
    server.stop(&runtime);
}

#[test]
fn where_nothing_is_encoded_burning_is_refused_and_clients_are_told_what_to_write() {
    let runtime = Runtime::new().expect("a runtime");
    let coded = "videotestsrc is-live=true ! video/x-raw,width=320,height=240,framerate=15/1 \
                 ! x264enc tune=zerolatency key-int-max=15 ! video/x-h264,profile=baseline ! h264parse";
    let (server, _folder) = changeable(&runtime, &["--pipeline", coded]);
    let before = http::get(&server.url("/api/settings/overlay")).json()["value"].clone();
    for drawn in ["burn", "both"] {
        let refused = change(&server.url(SETTINGS), &json!({ "where": drawn, "text": "Dive 7" }));
        assert_eq!((refused.status, &refused.json()["field"]), (422, &json!("overlay")), "{refused:?}");
        assert!(refused.error().contains("sent untouched: take client"), "{refused:?}");
        assert_eq!(http::get(&server.url("/api/settings/overlay")).json()["value"], before);
    }
    let mut follower = Follower::start(server.address);
    let reply = change(&server.url(SETTINGS), &json!({ "where": "client", "text": "Dive 7", "x": 40 }));
    assert_eq!(reply.status, 200, "{reply:?}");
    let told = follower.wait_for("overlay", |event| event["text"] == "Dive 7");
    assert_eq!((&told["where"], &told["stream"], &told["x"]), (&json!("client"), &json!("stream1"), &json!(40)));
    let time = follower.wait_for("telemetry", |event| event["times"]["stream1"].is_string());
    let shown = time["times"]["stream1"].as_str().expect("a time").to_owned();
    assert!(shown.len() == 19 && shown.as_bytes()[4] == b'-' && shown.as_bytes()[13] == b':', "{shown}");
    follower.wait_for("telemetry", |event| event["times"]["stream1"] != json!(shown));
    // Whoever comes later is told at once.
    Follower::start(server.address).wait_for("overlay", |event| event["text"] == "Dive 7");
    server.stop(&runtime);
}

#[test]
fn rov_client_and_the_page_write_what_the_server_tells_and_nothing_that_is_old() {
    let runtime = Runtime::new().expect("a runtime");
    let args = ["--source", "test", "--width", "640", "--height", "360", "--telemetry", "udp://127.0.0.1:0"];
    let (server, _folder) = changeable(&runtime, &args);
    let sender = Sender::to(&http::stats(server.address).telemetry.expect("telemetry").addresses[0]);
    let mut chromium = DevTools::start();
    let page = chromium.open(&server.url("/"));
    chromium.wait_for(&page, "document.body?.dataset.state === 'live'", wait::START);
    let watcher = Watcher::start(&runtime, &["--url", &server.url("/whep")]);
    watcher.wait_for_shots(10);
    assert_eq!(watcher.written(), Vec::<String>::new());
    assert_eq!(chromium.evaluate(&page, "written.hidden"), json!(true));

    let text = "<b>Dive</b> & 7";
    let overlay = json!({ "where": "client", "text": text, "fields": ["depth", "heading"], "timestamp": "off", "x": 40, "y": 30 });
    assert_eq!(change(&server.url(SETTINGS), &overlay).status, 200);
    let lines = |depth: &str| [text, &format!("Depth {depth}"), "Heading --"].map(str::to_owned);
    let seen = |depth: &str| format!("written.textContent === {}", json!(lines(depth).join("\n")));
    until_true("the value in rov-client", wait::START, || {
        sender.send(b"{\"depth\": 12.34}");
        watcher.written() == lines("12.3 m")
    });
    until_true("the value in the page", wait::START, || {
        sender.send(b"{\"depth\": 12.34}");
        chromium.evaluate(&page, &seen("12.3 m")) == json!(true)
    });
    assert_eq!(chromium.evaluate(&page, "written.childElementCount"), json!(0), "text alone");
    let place = "(({ left, top }, { offsetLeft, offsetTop, clientWidth, clientHeight }) => \
                 [left - offsetLeft, top - offsetTop, clientWidth, clientHeight].every(Number.isFinite) && left >= 0)\
                 (written.getBoundingClientRect(), video)";
    assert_eq!(chromium.evaluate(&page, place), json!(true));
    let id = http::stats(server.address).id;
    // On a slow link a smaller picture comes; the place stays where it is.
    let beside = |video: &str| {
        format!(
            "import('/written.js').then(({{ write }}) => {{ const root = document.createElement('div'); \
             write(root, '{id}', 'stream1', {{ clientWidth: 1280, clientHeight: 720, {video} }}, true); \
             return [root.style.left, root.style.top] }})"
        )
    };
    for video in ["videoWidth: 640, videoHeight: 360", "videoWidth: 320, videoHeight: 180"] {
        assert_eq!(chromium.evaluate(&page, &beside(video)), json!(["80px", "60px"]), "{video}");
    }
    chromium.wait_for(&page, &seen("--"), wait::START);
    until_true("the value is old in rov-client", wait::START, || watcher.written() == lines("--"));

    assert_eq!(change(&server.url(SETTINGS), &json!({ "where": "off" })).status, 200);
    until_true("nothing in rov-client", wait::START, || watcher.written().is_empty());
    chromium.wait_for(&page, "written.hidden", wait::START);
    watcher.stop(&runtime);
    server.stop(&runtime);
}

#[test]
fn what_another_server_in_its_place_wants_written_is_written_instead() {
    let runtime = Runtime::new().expect("a runtime");
    let of = |text: &'static str| ["--overlay", "client", "--overlay-text", text, "--overlay-timestamp", "off"];
    let picture = ["--source", "test", "--width", "320", "--height", "180"];
    let first = Serving::start(&runtime, &[&picture[..], &of("First")].concat(), |_| {});
    let address = first.address;
    let watcher = Watcher::start(&runtime, &["--url", &first.url("/whep")]);
    until_true("the first text", wait::START, || watcher.written() == ["First"]);
    let mut follower = Follower::start(address);
    assert_eq!(follower.wait_for("overlay", |event| event["text"] == "First")["height"], json!(180));
    first.stop(&runtime);
    let named = ["--name", "another"];
    let second = Serving::start(&runtime, &[&picture[..], &of("Second"), &named].concat(), |config| {
        config.signal_port = address.port();
    });
    assert_eq!(second.address, address);
    let (mut seen, before) = (Vec::new(), watcher.shown());
    until_true("the second text", wait::START, || {
        seen.extend(watcher.written().into_iter().filter(|_| watcher.shown() > before));
        watcher.written() == ["Second"]
    });
    assert!(!seen.iter().any(|line| line == "First"), "over pictures of the other one: {seen:?}");
    watcher.stop(&runtime);
    second.stop(&runtime);
}
