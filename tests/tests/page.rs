//! The viewer page in Chromium, as it is served.

use std::net::{TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rov_client::event::{Event, Part, Place};
use rov_tests::camera::{Camera, Settings};
use rov_tests::devtools::{DevTools, Page};
use rov_tests::exif;
use rov_tests::http;
use rov_tests::jpeg;
use rov_tests::programs::{Client, PILOT, Server};
use rov_tests::proxy::Proxy;
use rov_tests::relay::Network;
use rov_tests::wait::{self, until, until_true};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::runtime::Runtime;

const LIVE: &str = "document.body?.dataset.state === 'live'";
const OLD: &str = "document.body.dataset.state === 'old' \
                   && /^NO VIDEO \\d+ s$/.test(document.getElementById('title').textContent) \
                   && getComputedStyle(document.getElementById('last')).filter.includes('brightness')";

/// Counts the pictures that are presented, and reads their marks.
fn observe(chromium: &mut DevTools, page: &Page) {
    let observer = "globalThis.seen = []; globalThis.observe = () => \
                    video.requestVideoFrameCallback((now, { expectedDisplayTime }) => { \
                    seen.push({ at: performance.timeOrigin + expectedDisplayTime, mark: mark(video) }); observe() }); observe(); 0";
    chromium.evaluate(page, &format!("{}; {observer}", include_str!("../src/mark.js")));
}

fn wait_for_pictures(chromium: &mut DevTools, page: &Page, count: usize) {
    chromium.evaluate(page, "seen.length = 0");
    chromium.wait_for(page, &format!("seen.length >= {count}"), wait::START);
}

/// A file with this extension, once the browser has downloaded it as a whole.
fn downloaded(folder: &Path, extension: &str) -> Option<PathBuf> {
    let mut files = std::fs::read_dir(folder).expect("the folder").filter_map(|file| Some(file.ok()?.path()));
    files.find(|file| file.extension().is_some_and(|found| found == extension))
}

/// What is observed shows pictures of the server again, in one session.
fn wait_until_watched_again(chromium: &mut DevTools, page: &Page, server: &Server) {
    chromium.wait_for(page, LIVE, wait::START);
    wait_for_pictures(chromium, page, 30);
    assert_eq!(server.stats().viewers.len(), 1, "one session, not several");
}

fn reason(chromium: &mut DevTools, page: &Page) -> String {
    let text = chromium.evaluate(page, "document.getElementById('reason').textContent");
    text.as_str().unwrap_or_default().to_owned()
}

#[test]
fn the_page_plays_at_once_with_low_latency_and_without_complaints() {
    let server = Server::start(&["--name", "deep", "--width", "640", "--height", "360"]);
    server.wait_until_running();
    let mut chromium = DevTools::start();
    let page = chromium.open(&server.url("/"));
    chromium.wait_for(&page, LIVE, wait::START);
    observe(&mut chromium, &page);
    wait_for_pictures(&mut chromium, &page, 90);
    let seen = chromium.evaluate(&page, "seen.filter(s => s.mark).map(s => [s.mark.frame, s.at - s.mark.drawn])");
    let seen: Vec<(u64, f64)> = serde_json::from_value(seen).expect("frame numbers and latencies");
    assert!(seen.len() > 60, "marks can be read: {}", seen.len());
    assert!(seen.windows(2).all(|pair| pair[0].0 <= pair[1].0), "pictures are in order");
    let mut latencies: Vec<f64> = seen.iter().map(|(_, latency)| *latency).collect();
    latencies.sort_by(f64::total_cmp);
    let quantile = |q: f64| latencies[((latencies.len() - 1) as f64 * q) as usize];
    println!("drawn to displayed: p50 {:.1} ms, p95 {:.1} ms", quantile(0.5), quantile(0.95));
    assert!(quantile(0.5) < 500.0 && quantile(0.5) > 0.0, "{latencies:?}");

    // The panel, its figures, and its estimate.
    chromium.evaluate(&page, "document.dispatchEvent(new KeyboardEvent('keydown', { key: 'i', bubbles: true }))");
    chromium.wait_for(&page, "/\\d ms/.test(document.getElementById('latency').textContent)", wait::SOON);
    let figures = chromium.evaluate(&page, "document.getElementById('info').innerText");
    println!("{}", figures.as_str().unwrap_or_default().replace('\n', " "));
    for part in ["640 × 360", "fps", "Mbit/s", "Loss", "Round trip", "Jitter buffer", "H264", "estimated"] {
        assert!(figures.as_str().is_some_and(|text| text.contains(part)), "{part} in {figures}");
    }
    // Of several viewers, whose link the bit rate follows: that of the page, which came first.
    let mut other = Client::start(&["--url", &server.url("/whep")]);
    other.wait_for_frames(0, 1);
    let follows = "/Rate follows\\s+[\\d.]+ \\(this viewer\\)/.test(document.getElementById('info').innerText)";
    chromium.wait_for(&page, follows, wait::SOON);
    assert_eq!(other.process.stop(libc::SIGTERM, wait::SOON), 0);
    assert_eq!(
        chromium.evaluate(&page, "[document.title, document.getElementById('choice').hidden]"),
        json!(["deep - live", true])
    );
    // A snapshot, in the size of the video, named after the server.
    let folder = TempDir::new().expect("a temporary folder");
    let download = json!({ "behavior": "allow", "downloadPath": folder.path() });
    chromium.call(None, "Browser.setDownloadBehavior", download);
    chromium.evaluate(&page, "document.getElementById('snapshot').click()");
    let png = until("the snapshot", wait::SOON, || downloaded(folder.path(), "png"));
    let name = png.file_name().unwrap_or_default().to_string_lossy().into_owned();
    assert!(name.starts_with("20") && name.ends_with("Z_deep_cam1_stream1.png"), "{name}");
    let png = std::fs::read(&png).expect("the snapshot");
    let (width, height, mark) = jpeg::decode(&png);
    let mark = mark.expect("a mark");
    assert_eq!((width, height), (640, 360));
    // It has the time of the capture, of this picture or of one shortly before it, and not that of the click.
    let tags = exif::read(&png);
    assert!(exif::taken_us(&tags).abs_diff(mark.time_us) < 5_000_000, "{mark:?}: {tags}");
    assert_eq!(tags["ImageDescription"], "vehicle deep, camera cam1, stream stream1.");
    assert_eq!((&tags["Model"], &tags["OwnerName"]), (&json!("cam1"), &json!("deep")));
    assert!(tags.get("GPSAltitude").is_none(), "{tags}");
    // The last seconds, by the key C, as the page says.
    chromium.wait_for(&page, "!document.getElementById('clip').hidden", wait::SOON);
    chromium.evaluate(&page, "document.dispatchEvent(new KeyboardEvent('keydown', { key: 'c', bubbles: true }))");
    let toast = "document.getElementById('toast').textContent";
    chromium.wait_for(&page, &format!("/^Saved \\S+\\.mp4: \\d+ s, /.test({toast})"), wait::START);
    let mp4 = until("the clip", wait::SOON, || downloaded(folder.path(), "mp4"));
    let said = chromium.evaluate(&page, toast);
    let name = mp4.file_name().unwrap_or_default().to_string_lossy().into_owned();
    assert!(said.as_str().is_some_and(|said| said.starts_with(&format!("Saved {name}: "))), "{said} {name}");
    assert!(name.starts_with("clip_20") && name.contains("Z_cam1_stream1"), "{name}");
    assert_eq!(std::fs::read(&mp4).expect("the clip").get(4..8), Some(&b"ftyp"[..]));
    // The browser may refuse a download so long after the key: there is a link, and not one for each of many.
    let links = "[...document.querySelectorAll('#offered a')].map(({ download }) => download)";
    assert_eq!(chromium.evaluate(&page, links), json!([name]));
    let quick = "globalThis.number = 0; const real = fetch; globalThis.fetch = async (path, options) => \
                 path.startsWith('api/clip') ? new Response('x', { headers: { 'content-disposition': \
                 `attachment; filename=\"${number += 1}.mp4\"` } }) : real(path, options); 0";
    chromium.evaluate(&page, quick);
    for number in 1..=4 {
        chromium.evaluate(&page, "document.dispatchEvent(new KeyboardEvent('keydown', { key: 'c', bubbles: true }))");
        chromium.wait_for(&page, &format!("{toast}.startsWith('Saved {number}.mp4')"), wait::SOON);
    }
    assert_eq!(chromium.evaluate(&page, links), json!(["2.mp4", "3.mp4", "4.mp4"]));
    assert_eq!(chromium.complaints(), Vec::<String>::new());

    // Leaving the page ends its session by HTTP, at once.
    assert_eq!(server.stats().viewers.len(), 1);
    chromium.call(Some(&page), "Page.navigate", json!({ "url": "about:blank" }));
    until_true("the viewer has gone", wait::SOON, || server.stats().viewers.is_empty());
}

#[test]
fn the_age_on_the_page_agrees_with_the_marks_and_old_pictures_are_marked() {
    let server = Server::start(&["--width", "640", "--height", "360"]);
    server.wait_until_running();
    let mut chromium = DevTools::start();
    let page = chromium.open(&server.url("/"));
    chromium.wait_for(&page, LIVE, wait::START);
    observe(&mut chromium, &page);
    chromium.evaluate(&page, "document.dispatchEvent(new KeyboardEvent('keydown', { key: 'i', bubbles: true }))");
    let figures = "document.getElementById('info').innerText";
    chromium.wait_for(&page, &format!("/Age\\s+\\d+ ms \u{b1}\\d/.test({figures})"), wait::SOON);
    let quantiles = "/Age p50, p95, p99\\s+\\d+, \\d+, \\d+ ms/";
    chromium.wait_for(&page, &format!("{quantiles}.test({figures})"), wait::SOON);
    // Of the pictures of the same two seconds, but for the moment until the page looks.
    let compared = "(() => { const now = performance.timeOrigin + performance.now(), \
                    recent = seen.filter(({ at, mark }) => mark && at > now - 2100).map(({ at, mark }) => at - mark.drawn); \
                    return [parseInt(document.getElementById('delay').textContent), recent.reduce((a, b) => a + b, 0) / recent.length, \
                    recent.length] })()";
    let mut differences = Vec::new();
    for _ in 0..5 {
        wait_for_pictures(&mut chromium, &page, 60);
        let found: (f64, f64, usize) =
            serde_json::from_value(chromium.evaluate(&page, compared)).expect("an age, and the marks");
        println!("age {} ms, by {} marks {:.1} ms", found.0, found.2, found.1);
        differences.push((found.0 - found.1).abs());
    }
    differences.sort_by(f64::total_cmp);
    // On a busy machine a mark is drawn later than the picture is due, and few pictures come in these seconds.
    assert!(differences[2] < 30.0, "{differences:?}");

    // Nothing is so young: a frame, and the age in large digits.
    let strict = chromium.open(&server.url("/?max-age=1"));
    let is_marked = "document.body?.dataset.state === 'late' && /^\\d+\\.\\d s OLD$/.test(document.getElementById('mark').textContent) \
                     && getComputedStyle(document.body, '::after').borderImageSource.includes('gradient') \
                     && document.title.endsWith(' OLD')";
    chromium.wait_for(&strict, is_marked, wait::START);
    assert_eq!(
        chromium
            .evaluate(&page, "document.body.classList.contains('marked') && document.body.dataset.state === 'live'"),
        false
    );
    assert_eq!(chromium.complaints(), Vec::<String>::new());
}

/// As where the page is opened through a queue of 2 s.
#[test]
fn an_age_that_is_known_badly_is_marked_as_not_known_until_it_is() {
    let server = Server::start(&["--width", "640", "--height", "360"]);
    server.wait_until_running();
    let mut chromium = DevTools::start();
    let page = chromium.open("about:blank");
    // It is seen for some seconds only.
    let slow = "globalThis.seenBad = false; new MutationObserver(() => { \
                seenBad ||= /^\\d+ ms \u{b1}1\\d\\d\\d$/.test(document.getElementById('delay')?.textContent) \
                }).observe(document, { subtree: true, childList: true, characterData: true }); \
                globalThis.slow = 2000; { const ask = fetch; globalThis.fetch = async (url, options) => { \
                const reply = await ask(url, options); \
                if (String(url).includes('api/clock')) await new Promise(done => setTimeout(done, slow)); return reply } }";
    chromium.call(Some(&page), "Page.addScriptToEvaluateOnNewDocument", json!({ "source": slow }));
    chromium.call(Some(&page), "Page.navigate", json!({ "url": server.url("/?max-age=500") }));
    let text = |id: &str| format!("document.getElementById('{id}').textContent");
    chromium.wait_for(&page, "seenBad", wait::START);
    let is_marked = format!(
        "document.body.dataset.state === 'blind' && {} === 'AGE NOT KNOWN' && {} === 'age ?' && {}.includes('only') \
         && getComputedStyle(document.body, '::after').borderImageSource.includes('gradient') \
         && document.title.endsWith('AGE NOT KNOWN') && {} === ''",
        text("mark"),
        text("badge"),
        text("mark-detail"),
        text("delay")
    );
    chromium.wait_for(&page, &is_marked, wait::START);
    chromium.evaluate(&page, "slow = 0");
    chromium.wait_for(&page, "document.body.dataset.state !== 'blind'", wait::START);
}

/// As where an outage took the connections of all that was asked.
#[test]
fn questions_for_the_clock_that_hang_are_given_up_for_new_ones() {
    let server = Server::start(&["--width", "640", "--height", "360"]);
    server.wait_until_running();
    let mut chromium = DevTools::start();
    let page = chromium.open("about:blank");
    let hangs = "globalThis.hangs = false; globalThis.hung = []; globalThis.given = []; globalThis.answered = 0; \
                 { const ask = fetch; globalThis.fetch = async (url, options) => { \
                 if (!String(url).includes('api/clock')) return ask(url, options); \
                 if (!hangs) { const reply = await ask(url, options); answered += 1; return reply } \
                 hung.push(url); \
                 return new Promise((_, fail) => options.signal.addEventListener('abort', () => { \
                 given.push(options.signal.reason.name); fail(options.signal.reason) })) } }";
    chromium.call(Some(&page), "Page.addScriptToEvaluateOnNewDocument", json!({ "source": hangs }));
    chromium.call(Some(&page), "Page.navigate", json!({ "url": server.url("/") }));
    chromium.wait_for(&page, LIVE, wait::START);
    chromium.evaluate(&page, "hangs = true");
    chromium.wait_for(&page, "hung.length >= 3", wait::START);
    // A time limit has another name.
    assert_eq!(chromium.evaluate(&page, "given[0]"), json!("AbortError"));
    chromium.evaluate(&page, "hangs = false; answered = 0");
    // The one that hangs still does not slow the next ones.
    chromium.wait_for(&page, "answered > 2 && given.length === hung.length", wait::START);
}

#[test]
fn the_vehicles_name_stays_with_state_and_delay_also_in_a_small_window() {
    let server = Server::start(&["--name", "Nemo of the deep blue harbour", "--stream2", "160x120@15,200"]);
    server.wait_until_running();
    let mut chromium = DevTools::start();
    let page = chromium.open(&server.url("/"));
    chromium.wait_for(&page, LIVE, wait::START);
    for (width, height) in [(1280, 720), (320, 240), (240, 160)] {
        let size = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        chromium.call(Some(&page), "Emulation.setDeviceMetricsOverride", size);
        // Nobody moves: the buttons go.
        chromium.wait_for(&page, "document.body.classList.contains('idle')", wait::SOON);
        let shown = "(() => { const seen = id => { const element = document.getElementById(id), \
                     box = element.getBoundingClientRect(), style = getComputedStyle(element.parentElement); \
                     return getComputedStyle(element).opacity === '1' && style.opacity === '1' && box.width > 20 \
                     && box.left >= 0 && box.top >= 0 && box.right <= innerWidth && box.bottom <= innerHeight / 4 }; \
                     return ['name', 'badge', 'delay'].every(seen) && /^\\d+ ms$/.test(document.getElementById('delay').textContent) \
                     && document.getElementById('name').textContent.startsWith('Nemo') })()";
        chromium.wait_for(&page, shown, wait::SOON);
    }
    assert_eq!(chromium.complaints(), Vec::<String>::new());
}

#[test]
fn two_viewers_watch_at_once() {
    let server = Server::start(&[]);
    let mut chromium = DevTools::start();
    let pages = [chromium.open(&server.url("/")), chromium.open(&server.url("/"))];
    for page in &pages {
        chromium.wait_for(page, LIVE, wait::START);
        observe(&mut chromium, page);
    }
    for page in &pages {
        wait_for_pictures(&mut chromium, page, 30);
    }
    assert_eq!(server.stats().viewers.len(), 2);
    assert_eq!(chromium.complaints(), Vec::<String>::new());
}

#[test]
fn a_server_that_is_killed_and_comes_back_is_watched_again() {
    let mut server = Server::start(&[]);
    let port = server.address.port().to_string();
    let mut chromium = DevTools::start();
    let page = chromium.open(&server.url("/"));
    chromium.wait_for(&page, LIVE, wait::START);
    observe(&mut chromium, &page);
    // Every state from the first 'old' on.
    let states = "globalThis.states = []; new MutationObserver(() => { const { state } = document.body.dataset; \
                  if (states.at(-1) !== state) states.push(state) }).observe(document.body, { attributes: true }); 0";
    server.process.kill();
    chromium.wait_for(&page, OLD, wait::SOON);
    chromium.evaluate(&page, states);
    until("the reason", wait::SOON, || {
        reason(&mut chromium, &page).contains("The server does not answer").then_some(())
    });
    // It is still there, and not black.
    let brightest = chromium.evaluate(
        &page,
        "(() => { const { width, height } = last; \
         return [width, Math.max(...last.getContext('2d').getImageData(0, 0, width, height / 2).data.filter((_, i) => i % 4 < 3))] })()",
    );
    assert!(brightest[0] == 320 && brightest[1].as_f64() > Some(100.0), "{brightest}");
    // The last picture can be kept, and its file says what it is.
    let name = chromium.evaluate(
        &page,
        "(() => { const links = []; HTMLAnchorElement.prototype.click = function () { links.push(this.download) }; \
         document.getElementById('snapshot').click(); \
         return new Promise(done => setTimeout(function look() { links.length ? done(links[0]) : setTimeout(look, 20) })) })()",
    );
    assert!(name.as_str().is_some_and(|name| name.ends_with("_not-live.png")), "{name}");

    // A tab says it too, which may be behind others.
    let title = chromium.evaluate(&page, "document.title");
    assert!(title.as_str().is_some_and(|title| title.contains(" - NO VIDEO ") && title.ends_with(" s")), "{title}");
    // Through all the tries to connect: nothing on the screen was new.
    let age = "/^NO VIDEO ([5-9]|\\d\\d+) s$/.test(document.getElementById('title').textContent)";
    chromium.wait_for(&page, age, wait::SOON);
    assert!(!chromium.evaluate(&page, "states").to_string().contains("live"), "an old picture was shown as live");

    let server = Server::start(&["--signal-port", &port]);
    wait_until_watched_again(&mut chromium, &page, &server);
}

/// As Chromium after many connections that it has not freed yet, and Firefox without a network.
#[test]
fn a_browser_that_refuses_a_connection_for_a_while_is_tried_again() {
    let mut server = Server::start(&[]);
    let port = server.address.port().to_string();
    let mut chromium = DevTools::start();
    let page = chromium.open(&server.url("/"));
    chromium.wait_for(&page, LIVE, wait::START);
    let refuse = "globalThis.made = 0; globalThis.refuses = false; const Real = RTCPeerConnection; \
                  globalThis.RTCPeerConnection = class extends Real { constructor() { made += 1; \
                  if (refuses) throw new DOMException('Cannot create so many', 'UnknownError'); super() } }; 0";
    chromium.evaluate(&page, refuse);
    server.process.kill();
    let age = "/^NO VIDEO ([6-9]|\\d\\d+) s$/.test(document.getElementById('title').textContent)";
    chromium.wait_for(&page, age, wait::SOON);
    let made = chromium.evaluate(&page, "refuses = true; made");
    assert!(made.as_u64().is_some_and(|made| made <= 1), "{made}: none is made for a server that does not answer");
    let server = Server::start(&["--signal-port", &port]);
    until("the reason", wait::START, || {
        reason(&mut chromium, &page).contains("The browser makes no connection: Cannot create so many").then_some(())
    });
    chromium.wait_for(&page, "made >= 3", wait::SOON);
    observe(&mut chromium, &page);
    chromium.evaluate(&page, "refuses = false");
    wait_until_watched_again(&mut chromium, &page, &server);
}

/// As Firefox, which leaves `getStats` open for ever where the connection is closed meanwhile.
#[test]
fn counters_that_the_browser_never_tells_hold_up_nothing() {
    let mut server = Server::start(&[]);
    let port = server.address.port().to_string();
    let mut chromium = DevTools::start();
    let page = chromium.open(&server.url("/"));
    chromium.wait_for(&page, LIVE, wait::START);
    observe(&mut chromium, &page);
    let never = "globalThis.asked = 0; RTCPeerConnection.prototype.getStats = () => { asked += 1; return new Promise(() => {}) }; 0";
    chromium.evaluate(&page, never);
    chromium.wait_for(&page, "asked > 0", wait::SOON);
    // Pictures are proof enough: the session goes on.
    let session = server.stats().viewers[0].id.clone();
    let until_later = "(start => () => performance.now() - start > 6000)(performance.now())";
    chromium.evaluate(&page, &format!("globalThis.later = {until_later}; 0"));
    chromium.wait_for(&page, "later()", wait::SOON);
    wait_for_pictures(&mut chromium, &page, 30);
    let viewers = server.stats().viewers;
    assert!(viewers.len() == 1 && viewers[0].id == session, "{viewers:?}");
    server.process.kill();
    chromium.wait_for(&page, OLD, wait::SOON);
    chromium.wait_for(&page, "document.getElementById('title').textContent !== 'NO VIDEO 1 s'", wait::SOON);
    let server = Server::start(&["--signal-port", &port]);
    wait_until_watched_again(&mut chromium, &page, &server);
}

#[test]
fn a_picture_that_stands_is_kept_under_the_name_of_its_vehicle_whoever_answers_by_now() {
    let states = [(); 2].map(|()| TempDir::new().expect("a temporary folder"));
    let start = |name: &str, port: u16, state: &TempDir, more: &[&str]| {
        let (port, state) = (port.to_string(), state.path().to_str().expect("a path"));
        Server::start(&[&["--name", name, "--signal-port", &port, "--state-dir", state], more].concat())
    };
    let free = TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a free port");
    let (port, telemetry) = (free.port(), ["--telemetry", "udp://127.0.0.1:0"]);
    let mut server = start("Nemo", port, &states[0], &telemetry);
    server.wait_until_running();
    let mut chromium = DevTools::start();
    let page = chromium.open(&server.url("/"));
    chromium.wait_for(&page, &format!("{LIVE} && document.getElementById('name').textContent === 'Nemo'"), wait::START);
    let folder = TempDir::new().expect("a temporary folder");
    let download = json!({ "behavior": "allow", "downloadPath": folder.path() });
    chromium.call(None, "Browser.setDownloadBehavior", download);
    let press = |key: &str| {
        format!("document.dispatchEvent(new KeyboardEvent('keydown', {{ key: '{key}', bubbles: true }})); 0")
    };
    let saved = |chromium: &mut DevTools, extension: &str| {
        let file = until("a file", wait::SOON, || downloaded(folder.path(), extension));
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let bytes = std::fs::read(&file).expect("the file");
        std::fs::remove_file(&file).expect("removed");
        chromium.evaluate(&page, "document.getElementById('toast').textContent = ''; 0");
        (name, bytes)
    };
    // Its time is known, which names it.
    chromium.wait_for(&page, "/^\\d+ ms/.test(document.getElementById('delay').textContent)", wait::START);
    // Another one has the address, and no picture yet.
    server.process.kill();
    chromium.wait_for(&page, &format!("!({LIVE})"), wait::START);
    server = start("Dory", port, &states[1], &["--source", "publish", "--telemetry", "udp://127.0.0.1:0"]);
    chromium.wait_for(&page, "document.getElementById('name').textContent === 'Dory'", wait::START);
    let address = server.stats().telemetry.expect("telemetry").addresses.remove(0).replace("udp://", "");
    let sender = UdpSocket::bind("127.0.0.1:0").expect("a port");
    until_true("the page knows the depth of Dory", wait::START, || {
        sender.send_to(br#"{"depth": 12.5}"#, &address).expect("sent");
        chromium.evaluate(&page, "import('/written.js').then(written => written.measured().depth?.value === 12.5)")
            == true
    });
    chromium.evaluate(&page, &press("s"));
    let (name, _) = saved(&mut chromium, "png");
    assert!(name.contains("Z_Nemo_") && name.ends_with("_not-live.png"), "{name}");
    chromium.evaluate(&page, &press("e"));
    chromium.evaluate(&page, "document.getElementById('event').requestSubmit(); 0");
    let (_, zip) = saved(&mut chromium, "zip");
    let files = unzip(&zip);
    let event: Event = serde_json::from_slice(&files[files.len() - 1].1).expect("an event");
    assert_eq!((event.vehicle.as_str(), event.telemetry.len(), event.place), ("Nemo", 0, Place::default()));
    assert_eq!(event.pictures[0].clip, Part::Failed("another server answers by now".to_owned()));
    assert!(!event.pictures[0].camera.is_empty());
    // A second one of this picture has a folder of its own.
    chromium.evaluate(&page, &press("e"));
    chromium.evaluate(&page, "document.getElementById('event').requestSubmit(); 0");
    let (name, zip) = saved(&mut chromium, "zip");
    assert!(name.ends_with("_event-2.zip"), "{name}");
    let in_folder = format!("{}/", name.trim_end_matches(".zip"));
    assert!(unzip(&zip).iter().all(|(path, _)| path.starts_with(&in_folder)), "{name}");
    // The last seconds would be those of the other one.
    chromium.evaluate(&page, &press("c"));
    let refused = "document.getElementById('toast').textContent === 'No clip: another server answers by now'";
    chromium.wait_for(&page, refused, wait::SOON);
    // The other way round: the pictures of a third one, before it has said its name.
    let silent = "const real = fetch; globalThis.fetch = (path, options) => path === 'api/stats' \
                  ? Promise.resolve(new Response('', { status: 503 })) : real(path, options); 0";
    chromium.evaluate(&page, silent);
    server.process.kill();
    let _server = start("Squid", port, &TempDir::new().expect("a temporary folder"), &[]);
    chromium.wait_for(&page, LIVE, wait::START);
    chromium.evaluate(&page, &press("s"));
    let (name, _) = saved(&mut chromium, "png");
    assert!(name.starts_with("20") && name.ends_with("Z.png"), "no name of a vehicle: {name}");
    // Where the browser gives no picture, that is said, and what is typed are no keys.
    chromium.evaluate(&page, "HTMLCanvasElement.prototype.getContext = () => null; 0");
    chromium.evaluate(&page, &press("e"));
    let is_said = "document.getElementById('toast').textContent.startsWith('The browser gives no picture: ') \
                   && document.activeElement.id === 'event-text'";
    assert_eq!(chromium.evaluate(&page, is_said), true);
    chromium.evaluate(&page, "document.getElementById('event').requestSubmit(); 0");
    let is_refused = "document.getElementById('toast').textContent.startsWith('No event was saved: The browser gives')";
    chromium.wait_for(&page, is_refused, wait::SOON);
}

#[test]
fn mjpeg_of_another_server_is_shown_only_under_its_own_name() {
    let states = [(); 2].map(|()| TempDir::new().expect("a temporary folder"));
    let start = |name: &str, port: u16, state: &TempDir| {
        let (port, state) = (port.to_string(), state.path().to_str().expect("a path"));
        Server::start(&["--codec", "mjpeg", "--name", name, "--signal-port", &port, "--state-dir", state])
    };
    let free = TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a free port");
    let port = free.port();
    let mut server = start("Nemo", port, &states[0]);
    server.wait_until_running();
    let mut chromium = DevTools::start();
    let page = chromium.open("about:blank");
    let silent = "globalThis.silent = false; globalThis.opened = 0; const real = fetch; \
                  globalThis.fetch = (path, options) => { if (path.startsWith('stream.mjpg')) opened += 1; \
                  return silent && path === 'api/stats' ? Promise.resolve(new Response('', { status: 503 })) \
                  : real(path, options) }";
    chromium.call(Some(&page), "Page.addScriptToEvaluateOnNewDocument", json!({ "source": silent }));
    chromium.call(Some(&page), "Page.navigate", json!({ "url": server.url("/") }));
    let shows = |name: &str| {
        format!("document.body?.dataset.state === 'backup' && document.getElementById('name').textContent === '{name}'")
    };
    chromium.wait_for(&page, &shows("Nemo"), wait::START);
    server.process.kill();
    chromium.wait_for(&page, "document.body.dataset.state !== 'backup'", wait::START);
    // The other one is there, and has not said its name.
    let watch = format!(
        "silent = true; globalThis.mistaken = 0; new MutationObserver(() => {{ mistaken += {} }}) \
         .observe(document.body, {{ attributes: true }}); 0",
        shows("Nemo")
    );
    chromium.evaluate(&page, &watch);
    let server = start("Dory", port, &states[1]);
    until_true("its pictures come", wait::START, || server.stats().jpeg.pictures > 60);
    assert_eq!(chromium.evaluate(&page, "mistaken"), 0);
    until("the reason", wait::SOON, || {
        reason(&mut chromium, &page).contains("the server has not said its name yet").then_some(())
    });
    chromium.evaluate(&page, "silent = false; 0");
    chromium.wait_for(&page, &shows("Dory"), wait::START);
    assert_eq!(chromium.evaluate(&page, "mistaken"), 0);
    // A third one answers while the pictures go on: these are left, and asked for at the new one.
    let third = "opened = 0; const before = fetch; globalThis.fetch = async (path, options) => { \
                 const reply = await before(path, options); if (path !== 'api/stats') return reply; \
                 return Response.json({ ...await reply.json(), id: 'third', key: 'third', name: 'Squid' }) }; \
                 document.getElementById('show-info').click(); 0";
    chromium.evaluate(&page, third);
    let is_left = "opened > 0 && document.getElementById('name').textContent === 'Squid' \
                   && document.body.dataset.state !== 'backup'";
    chromium.wait_for(&page, is_left, wait::SOON);
}

/// Of two machines at one address, while the first tile has no session, as MJPEG.
#[test]
fn whose_statistics_come_is_told_by_the_session_of_any_tile() {
    let server = Server::start(&["--name", "Nemo", "--stream2", "160x120@15,200"]);
    server.wait_until_running();
    let mut chromium = DevTools::start();
    let page = chromium.open("about:blank");
    let two = "globalThis.isOther = false; const real = fetch; globalThis.fetch = async (path, options = {}) => { \
               if (options.method === 'POST' && path === 'whep?stream=stream1') \
               return Response.json({ error: 'no', mjpeg: true }, { status: 406 }); \
               const reply = await real(path, options); if (path !== 'api/stats' || !isOther) return reply; \
               return Response.json({ ...await reply.json(), id: 'other', key: 'other', name: 'Dory' }) }";
    chromium.call(Some(&page), "Page.addScriptToEvaluateOnNewDocument", json!({ "source": two }));
    chromium.call(Some(&page), "Page.navigate", json!({ "url": server.url("/") }));
    chromium.wait_for(&page, "document.getElementById('choice')?.hidden === false", wait::START);
    chromium.evaluate(&page, "document.getElementById('show-grid').click(); 0");
    let is_live = "[...document.querySelectorAll('.tile')].map(({ dataset }) => dataset.state)[1] === 'live'";
    chromium.wait_for(&page, is_live, wait::START);
    chromium.evaluate(&page, "isOther = true; document.getElementById('show-info').click(); 0");
    chromium.wait_for(&page, "!news.hidden", wait::START);
    let said = "[news.textContent, document.getElementById('name').textContent]";
    assert_eq!(
        chromium.evaluate(&page, said),
        json!(["Two servers have this address: Dory answers here, too", "Nemo"])
    );
}

const TOO_SMALL: &str = "(() => { const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), found = []; \
    while (walker.nextNode()) { const { parentElement: of, data } = walker.currentNode; \
    if (!data.trim() || !of.getClientRects().length || of.closest('.spoken, script, noscript, option')) continue; \
    const size = parseFloat(getComputedStyle(of).fontSize); \
    if (size < 0.023 * innerHeight) found.push(`${of.tagName}#${of.id}.${of.className} ${size}: ${data.trim()}`) } \
    return found })()";

fn resize(chromium: &mut DevTools, page: &Page, (width, height): (u32, u32)) {
    let size = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
    chromium.call(Some(page), "Emulation.setDeviceMetricsOverride", size);
    chromium.wait_for(page, &format!("innerWidth === {width} && innerHeight === {height}"), wait::SOON);
}

#[test]
fn text_over_the_picture_has_at_least_2_3_percent_of_the_windows_height() {
    let folder = TempDir::new().expect("a temporary folder");
    let record = ["--record", folder.path().to_str().expect("a path"), "--record-free", "1MB", "--ring", "30s"];
    let config = folder.path().join("rov.toml");
    std::fs::write(&config, PILOT).expect("a file");
    let config = ["--config", config.to_str().expect("a path"), "--stream2", "160x120@15,200"];
    let server = Server::start(&[&config[..], &record[..]].concat());
    server.wait_until_running();
    let mut chromium = DevTools::start();
    let page = chromium.open(&server.url("/?max-age=1#token=rov_test"));
    let click = |id: &str| format!("document.getElementById('{id}').click(); 0");
    let is_there = |selector: &str| format!("document.querySelector('{selector}')?.getClientRects().length > 0");
    chromium.wait_for(&page, "document.body?.dataset.state === 'late' && !choice.hidden", wait::START);
    chromium.wait_for(&page, &is_there("#clip"), wait::START);
    // As the server gives it in its own time.
    let quick = "const real = fetch; globalThis.fetch = async (path, options) => \
                 path.startsWith('api/clip') ? new Response('x') : real(path, options); 0";
    chromium.evaluate(&page, quick);
    chromium.evaluate(&page, &click("clip"));
    chromium.wait_for(&page, &is_there("#offered a"), wait::START);
    chromium.evaluate(&page, "news.textContent = 'news'; news.hidden = false; 0");
    chromium.evaluate(&page, &click("note"));
    let sizes = [(320, 240), (1280, 720), (1920, 1080), (3840, 2160)];
    for (button, part) in [
        ("show-info", "#info dd"),
        ("show-settings", "#settings fieldset"),
        ("show-recordings", "#recordings li"),
        ("show-grid", ".tile .name"),
    ] {
        chromium.wait_for(&page, &is_there(&format!("#{button}")), wait::START);
        chromium.evaluate(&page, &click(button));
        chromium.wait_for(&page, &is_there(part), wait::START);
        for size in sizes {
            resize(&mut chromium, &page, size);
            assert_eq!(chromium.evaluate(&page, TOO_SMALL), json!([]), "{part} {size:?}");
        }
    }
}

/// In the frame of a dashboard, on a phone and on a screen.
#[test]
fn state_and_warning_are_seen_whole_and_above_the_panel_in_a_window_of_any_size() {
    let server = Server::start(&["--name", "Nemo of the deep blue harbour"]);
    let mut chromium = DevTools::start();
    let page = chromium.open(&server.url("/?max-age=1"));
    chromium.wait_for(&page, "document.body?.dataset.state === 'late'", wait::START);
    chromium.evaluate(&page, "document.getElementById('show-info').click(); 0");
    // What lies on top there: a warning lets clicks through, unless the test says otherwise.
    let seen = "(() => { const mark = document.getElementById('mark').parentElement; mark.style.pointerEvents = 'auto'; \
                return ['mark', 'badge'].map(id => document.getElementById(id)).flatMap(element => { \
                const { left, top, right, bottom } = element.getBoundingClientRect(); \
                const isInside = left >= 0 && top >= 0 && right <= innerWidth && bottom <= innerHeight && right > left; \
                const points = [0.05, 0.5, 0.95].flatMap(x => [0.2, 0.5, 0.8].map(y => \
                [left + x * (right - left), top + y * (bottom - top)])); \
                const hidden = points.filter(([x, y]) => document.elementFromPoint(x, y) !== element); \
                return isInside && !hidden.length ? [] : [`${element.id} ${[left, top, right, bottom]} ${hidden}`] }) })()";
    for size in [(160, 90), (240, 160), (320, 240), (390, 844), (1280, 720), (1920, 1080)] {
        resize(&mut chromium, &page, size);
        chromium.wait_for(
            &page,
            "document.body.dataset.state === 'late' && mark.textContent.endsWith(' OLD')",
            wait::START,
        );
        let open = "document.getElementById('info').getClientRects().length";
        assert_eq!(chromium.evaluate(&page, open), 1, "{size:?}");
        // On a busy machine the warning ends for moments.
        chromium.wait_for(
            &page,
            &format!("document.body.dataset.state === 'late' && {seen}.length === 0"),
            wait::START,
        );
    }
}

#[test]
fn another_server_at_the_address_of_the_page_is_said_until_that_was_read() {
    let states = [(); 2].map(|()| TempDir::new().expect("a temporary folder"));
    let config = states[0].path().join("rov.toml");
    std::fs::write(&config, PILOT).expect("a file");
    let start = |port: u16, state: &TempDir| {
        let (port, state) = (port.to_string(), state.path().to_str().expect("a path"));
        let config = config.to_str().expect("a path");
        Server::start(&["--config", config, "--name", "Nemo", "--signal-port", &port, "--state-dir", state])
    };
    let free = TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a free port");
    let port = free.port();
    let mut server = start(port, &states[0]);
    server.wait_until_running();
    let mut chromium = DevTools::start();
    let page = chromium.open(&server.url("/#token=rov_test"));
    chromium.wait_for(&page, &format!("{LIVE} && document.getElementById('name').textContent === 'Nemo'"), wait::START);
    // The same one again, and then another one of the same name, whose settings are not those of the form.
    chromium.wait_for(&page, "!document.getElementById('show-settings').hidden", wait::START);
    chromium.evaluate(&page, "document.getElementById('show-settings').click(); 0");
    for (state, is_said) in [(0, false), (1, true)] {
        assert_eq!(chromium.evaluate(&page, "document.getElementById('settings').hidden"), false);
        server.process.kill();
        chromium.wait_for(&page, &format!("!({LIVE})"), wait::START);
        server = start(port, &states[state]);
        chromium.wait_for(&page, LIVE, wait::START);
        let news = chromium.evaluate(&page, "!news.hidden && news.textContent");
        let said = json!("Another server answers here, or Nemo with a new key");
        assert_eq!(news, if is_said { said } else { json!(false) });
        assert_eq!(chromium.evaluate(&page, "document.getElementById('settings').hidden"), is_said);
    }
    chromium.evaluate(&page, "news.click(); 0");
    chromium.wait_for(&page, "news.hidden", wait::SOON);
}

#[test]
fn a_source_that_stalls_shows_as_old_with_the_reason_and_comes_back() {
    let launch = "( videotestsrc is-live=true ! video/x-raw,format=I420,width=320,height=240,framerate=25/1 ! x264enc \
                  tune=zerolatency speed-preset=ultrafast key-int-max=25 bitrate=500 ! video/x-h264,profile=baseline ! \
                  rtph264pay name=pay0 config-interval=-1 )";
    let camera = Camera::start(launch);
    let port = camera.port;
    let server = Server::start(&["--source", "rtsp", "--url", &camera.url]);
    let mut chromium = DevTools::start();
    let page = chromium.open(&server.url("/"));
    chromium.wait_for(&page, LIVE, wait::START);
    drop(camera);
    chromium.wait_for(&page, OLD, wait::START);
    until("the reason", wait::START, || {
        reason(&mut chromium, &page).starts_with("The source is being restarted").then_some(())
    });
    let _camera = Camera::with(launch, Settings { port, ..Settings::default() });
    chromium.wait_for(&page, LIVE, wait::START);
}

#[test]
fn without_a_camera_the_page_says_why_there_is_no_picture() {
    let server = Server::start(&["--source", "pipeline", "--pipeline", "v4l2src device=/dev/video-none"]);
    let mut chromium = DevTools::start();
    let page = chromium.open(&server.url("/"));
    let said = "document.getElementById('title')?.textContent === 'Waiting for the first picture…' \
                && document.getElementById('reason').textContent.includes('/dev/video-none')";
    chromium.wait_for(&page, said, wait::START);
    assert_eq!(chromium.evaluate(&page, "document.body.dataset.state"), "waiting");
}

#[test]
fn a_tab_that_was_hidden_is_not_called_old_when_it_is_shown_again() {
    let server = Server::start(&[]);
    let mut chromium = DevTools::start();
    let page = chromium.open(&server.url("/"));
    chromium.wait_for(&page, LIVE, wait::START);
    let states = "globalThis.states = []; new MutationObserver(() => states.push(document.body.dataset.state)) \
                  .observe(document.body, { attributes: true }); globalThis.since = performance.now(); 0";
    chromium.evaluate(&page, states);
    chromium.show(&page, false);
    // Long enough for its picture to be old, and dimmed for the case that none comes later.
    chromium.wait_for(
        &page,
        "document.hidden && performance.now() - since > 4000 && document.body.classList.contains('dim')",
        wait::SOON,
    );
    // Its tab says what comes all the same.
    chromium.wait_for(&page, "document.title.endsWith(' - live')", wait::SOON);
    server.process.signal(libc::SIGSTOP);
    chromium.wait_for(&page, "/ - NO VIDEO [2-9] s$/.test(document.title)", wait::SOON);
    server.process.signal(libc::SIGCONT);
    chromium.wait_for(&page, "document.title.endsWith(' - live')", wait::START);
    chromium.show(&page, true);
    chromium.wait_for(&page, LIVE, wait::SOON);
    let states = chromium.evaluate(&page, "states").to_string();
    assert!(!states.contains("old"), "{states}");
    until_true("one session", wait::SOON, || server.stats().viewers.len() == 1);
}

#[test]
fn media_that_no_longer_arrives_leads_to_a_new_session() {
    let server = Server::start(&[]);
    let runtime = Runtime::new().expect("a runtime");
    let network = Network::new(Duration::from_millis(2), 1);
    let proxy = Proxy::start(&runtime, server.address, "", Some(network.clone()));
    let mut chromium = DevTools::start();
    let page = chromium.open(&proxy.url("/"));
    chromium.wait_for(&page, LIVE, wait::START);
    network.set_loss(1.0);
    chromium.wait_for(&page, OLD, wait::SOON);
    until_true("a second session", wait::START, || proxy.exchanges().len() > 1);
    network.set_loss(0.0);
    chromium.wait_for(&page, LIVE, wait::START);
}

#[test]
fn where_udp_is_blocked_the_page_says_so_and_shows_pictures_by_http() {
    let server = Server::start(&["--name", "deep"]);
    server.wait_until_running();
    let mut chromium = DevTools::start();
    let page = chromium.open("about:blank");
    // No path: the answer leads nowhere, and the server does not learn where the browser is.
    let blocked = "globalThis.blocked = true; const real = fetch; globalThis.fetch = async (path, options = {}) => { \
                   if (blocked && options.method === 'PATCH') return new Response(null, { status: 204 }); \
                   const reply = await real(path, options); if (!blocked || options.method !== 'POST') return reply; \
                   const body = (await reply.text()).replace(/(udp \\d+ 127.0.0.1) \\d+/g, '$1 9'); \
                   const changed = new Response(body, reply); \
                   Object.defineProperty(changed, 'url', { value: reply.url }); return changed }";
    chromium.call(Some(&page), "Page.addScriptToEvaluateOnNewDocument", json!({ "source": blocked }));
    let opened = std::time::Instant::now();
    chromium.call(Some(&page), "Page.navigate", json!({ "url": server.url("/") }));
    // It is said, and shown, within 10 s, of which the page gives 4 to UDP.
    let backup = "document.body?.dataset.state === 'backup' && !last.hidden && last.width === 320";
    chromium.wait_for(&page, backup, Duration::from_secs(10).saturating_sub(opened.elapsed()));
    println!("pictures by HTTP {:.1} s after the page was opened", opened.elapsed().as_secs_f64());
    let why = reason(&mut chromium, &page);
    assert!(why.starts_with("No UDP gets through to 127.0.0.1:9: a firewall") && why.contains("--media-port"), "{why}");
    let said = chromium.evaluate(&page, "[badge.textContent, document.title]");
    assert_eq!(said, json!(["Live, MJPEG", "deep - live"]));
    // They move.
    let marks = format!(
        "{}; for (const side of ['Width', 'Height']) \
         Object.defineProperty(last, `video${{side}}`, {{ get() {{ return this[side.toLowerCase()] }} }}); \
         globalThis.numbers = new Set(); globalThis.look = setInterval(() => numbers.add(mark(last)?.frame), 50); 0",
        include_str!("../src/mark.js")
    );
    chromium.evaluate(&page, &marks);
    chromium.wait_for(&page, "numbers.size > 10", wait::SOON);
    // Through the next session too, and they are old when they stop.
    let before = server.stats().jpeg.pictures;
    until_true("pictures while a second session is tried", wait::START, || server.stats().jpeg.pictures > before + 60);
    chromium.wait_for(&page, backup, wait::SOON);
    server.process.signal(libc::SIGSTOP);
    chromium.wait_for(&page, OLD, wait::SOON);
    server.process.signal(libc::SIGCONT);
    chromium.wait_for(&page, backup, wait::START);
    // A path that opens is taken.
    chromium.evaluate(&page, "clearInterval(look); blocked = false; 0");
    chromium.wait_for(&page, LIVE, wait::START);
    assert_eq!(reason(&mut chromium, &page), "");
    until_true("no more pictures by HTTP", wait::SOON, || server.stats().jpeg.viewers == 0);
}

#[test]
fn the_tiles_leave_connections_for_the_rest_where_udp_is_blocked() {
    let server = Server::start(&[]);
    server.wait_until_running();
    let mut chromium = DevTools::start();
    let page = chromium.open("about:blank");
    // Of a server of six streams, as far as the page can tell, none of which gets through.
    let blocked = "const real = fetch; globalThis.fetch = async (path, options = {}) => { \
                   if (options.method === 'PATCH') return new Response(null, { status: 204 }); \
                   const reply = await real(path.replace(/stream=tile\\d/, 'stream=stream1'), options); \
                   if (path === 'api/stats') { const stats = await reply.json(); \
                   for (let n = 2; n <= 6; n += 1) stats.streams.push({ ...stats.streams[0], name: `tile${n}` }); \
                   return Response.json(stats) } if (options.method !== 'POST') return reply; \
                   const body = (await reply.text()).replace(/(udp \\d+ 127.0.0.1) \\d+/g, '$1 9'); \
                   const changed = new Response(body, reply); \
                   Object.defineProperty(changed, 'url', { value: reply.url }); return changed }";
    chromium.call(Some(&page), "Page.addScriptToEvaluateOnNewDocument", json!({ "source": blocked }));
    chromium.call(Some(&page), "Page.navigate", json!({ "url": server.url("/") }));
    chromium.wait_for(&page, "document.getElementById('choice')?.hidden === false", wait::START);
    chromium.evaluate(&page, "document.getElementById('show-grid').click(); 0");
    let tiles = "(() => { const said = [...document.querySelectorAll('.tile')].map(tile => tile.innerText); \
                 const with_text = text => said.filter(one => one.includes(text)).length; \
                 return [said.length, with_text('Live, MJPEG'), with_text('when it is made large')].join() })()";
    chromium.wait_for(&page, &format!("{tiles} === '6,4,2'"), wait::START);
    assert_eq!(server.stats().jpeg.viewers, 4);
    // The one without becomes large, and has pictures.
    let waits = "[...document.querySelectorAll('.tile')] \
                 .find(tile => tile.innerText.includes('when it is made large')).click(); 0";
    chromium.evaluate(&page, waits);
    chromium.wait_for(&page, "grid.hidden && document.body.dataset.state === 'backup'", wait::START);
    until_true("one alone", wait::SOON, || server.stats().jpeg.viewers == 1);
}

#[test]
fn the_screen_stays_on_while_pictures_come() {
    let mut server = Server::start(&[]);
    let mut chromium = DevTools::start();
    let page = chromium.open("about:blank");
    // Nothing can be seen of the real one.
    let lock = "globalThis.locks = []; navigator.wakeLock.request = async kind => { \
                const lock = { kind, released: false, release() { this.released = true } }; \
                locks.push(lock); return lock }";
    chromium.call(Some(&page), "Page.addScriptToEvaluateOnNewDocument", json!({ "source": lock }));
    chromium.call(Some(&page), "Page.navigate", json!({ "url": server.url("/") }));
    chromium.wait_for(&page, LIVE, wait::START);
    chromium.wait_for(&page, "locks.length === 1 && locks[0].kind === 'screen' && !locks[0].released", wait::SOON);
    server.process.kill();
    chromium.wait_for(&page, OLD, wait::SOON);
    chromium.wait_for(&page, "locks.length === 1 && locks[0].released", wait::SOON);
}

#[test]
fn behind_a_proxy_with_a_path_of_its_own_the_page_reaches_its_session() {
    let server = Server::start(&[]);
    let runtime = Runtime::new().expect("a runtime");
    let proxy = Proxy::start_under(&runtime, "/boats/rov1", server.address);
    let mut chromium = DevTools::start();
    let page = chromium.open(&proxy.url("/boats/rov1/"));
    chromium.wait_for(&page, LIVE, wait::START);
    let session = proxy.exchanges().remove(0).session;
    let answered = |method: &str| {
        let requests = proxy.requests();
        requests.into_iter().find(|(asked, path, _)| asked == method && *path == session).map(|(.., status)| status)
    };
    assert_eq!(until("its candidates", wait::SOON, || answered("PATCH")), 204);
    chromium.call(Some(&page), "Page.navigate", json!({ "url": "about:blank" }));
    // Where the goodbye of DTLS was quicker, the session has gone by then.
    assert!([200, 404].contains(&until("its goodbye", wait::SOON, || answered("DELETE"))));
    assert_eq!(chromium.complaints(), Vec::<String>::new());
}

#[test]
fn a_refusal_is_shown_in_the_words_of_the_server() {
    let server = Server::start(&["--max-viewers", "1"]);
    server.wait_until_running();
    let mut chromium = DevTools::start();
    let first = chromium.open(&server.url("/"));
    chromium.wait_for(&first, LIVE, wait::START);
    let second = chromium.open(&server.url("/"));
    chromium.wait_for(&second, "document.getElementById('reason')?.textContent.includes('--max-viewers')", wait::SOON);
    chromium.call(Some(&first), "Page.navigate", json!({ "url": "about:blank" }));
    chromium.wait_for(&second, LIVE, wait::START);
}

#[test]
fn several_streams_can_be_chosen_from() {
    let server = Server::start(&[]);
    let mut chromium = DevTools::start();
    let page = chromium.open("about:blank");
    // A server that has two of them, as far as the page can tell.
    let two = "globalThis.asked = []; const real = fetch; globalThis.fetch = async (path, options) => { \
               asked.push(path); const reply = await real(path, options); if (path !== 'api/stats') return reply; \
               const stats = await reply.json(); stats.streams.push({ ...stats.streams[0], name: 'down & up' }); \
               return Response.json(stats) }";
    chromium.call(Some(&page), "Page.addScriptToEvaluateOnNewDocument", json!({ "source": two }));
    chromium.call(Some(&page), "Page.navigate", json!({ "url": server.url("/") }));
    chromium.wait_for(&page, LIVE, wait::START);
    chromium.wait_for(
        &page,
        "!choice.hidden && streams.options.length === 2 && streams.value === 'stream1'",
        wait::SOON,
    );
    chromium.evaluate(&page, "streams.value = 'down & up'; streams.dispatchEvent(new Event('change')); 0");
    chromium.wait_for(&page, "asked.includes('whep?stream=down%20%26%20up')", wait::SOON);
    // The server does not have it, and no other is shown in its place.
    let told = "document.getElementById('reason')?.textContent.includes('there is no stream \"down & up\"')";
    chromium.wait_for(&page, told, wait::SOON);
    // The page's address says it too.
    chromium.call(Some(&page), "Page.reload", json!({}));
    chromium.wait_for(
        &page,
        "asked.find(path => path.startsWith('whep')) === 'whep?stream=down%20%26%20up'",
        wait::START,
    );
    chromium.wait_for(&page, "streams.options.length === 2", wait::SOON);
    chromium.evaluate(&page, "streams.value = 'stream1'; streams.dispatchEvent(new Event('change')); 0");
    chromium.wait_for(&page, LIVE, wait::START);
    until_true("one session, not two", wait::SOON, || server.stats().viewers.len() == 1);
}

/// Names and contents of the files in a ZIP file whose files are not compressed.
fn unzip(zip: &[u8]) -> Vec<(String, Vec<u8>)> {
    let number =
        |at: usize, size: usize| zip[at..at + size].iter().rev().fold(0, |sum, byte| sum << 8 | usize::from(*byte));
    let end = zip.len() - 22;
    assert_eq!(&zip[end..end + 4], b"PK\x05\x06", "the end of the directory");
    let (mut at, mut files) = (number(end + 16, 4), Vec::new());
    for _ in 0..number(end + 10, 2) {
        assert_eq!((&zip[at..at + 4], number(at + 10, 2)), (&b"PK\x01\x02"[..], 0), "stored");
        let (size, name, head) = (number(at + 24, 4), number(at + 28, 2), number(at + 42, 4));
        let path = String::from_utf8(zip[at + 46..at + 46 + name].to_vec()).expect("UTF-8");
        let data = head + 30 + name;
        assert_eq!((&zip[head..head + 4], number(head + 14, 4)), (&b"PK\x03\x04"[..], number(at + 16, 4)), "one CRC");
        files.push((path, zip[data..data + size].to_vec()));
        at += 46 + name;
    }
    assert_eq!(at, end);
    files
}

#[test]
fn the_page_notes_an_event_as_the_client_does() {
    let picture = ["--width", "640", "--height", "360", "--ring", "10min"];
    let server = Server::start(&[&["--name", "deep", "--telemetry", "udp://127.0.0.1:0"][..], &picture].concat());
    server.wait_until_running();
    let address = server.stats().telemetry.expect("telemetry").addresses.remove(0).replace("udp://", "");
    let sender = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let mut chromium = DevTools::start();
    let page = chromium.open(&server.url("/"));
    chromium.wait_for(&page, LIVE, wait::START);
    let folder = TempDir::new().expect("a temporary folder");
    let download = json!({ "behavior": "allow", "downloadPath": folder.path() });
    chromium.call(None, "Browser.setDownloadBehavior", download);
    until_true("the page knows the depth", wait::START, || {
        sender.send_to(br#"{"depth": 12.5}"#, &address).expect("sent");
        chromium.evaluate(&page, "import('/written.js').then(written => written.measured().depth?.value === 12.5)")
            == true
    });
    chromium.wait_for(&page, "import('/watched.js').then(({ Watched }) => Watched.latest() !== null)", wait::START);
    // An outage begins, which takes what is asked and whose end the test says, and others have their clips then.
    let outage = "globalThis.clips = 0; globalThis.isOver = false; globalThis.asked = []; const real = fetch; \
                  globalThis.fetch = async (path, options) => { \
                  if (!path.startsWith('api/clip')) return real(path, options); \
                  asked.push(path); \
                  if (!isOver) return new Promise((_, fail) => \
                  options.signal.addEventListener('abort', () => fail(options.signal.reason))); \
                  const failures = clips++; \
                  if (failures === 0) throw new TypeError('Failed to fetch'); \
                  return failures === 1 ? new Response('{}', { status: 503 }) : real(path, options) }; 0";
    chromium.evaluate(&page, outage);
    let press = "document.dispatchEvent(new KeyboardEvent('keydown', { key: 'e', bubbles: true })); 0";
    chromium.evaluate(&page, press);
    let typed = |text: &str| {
        format!(
            "document.activeElement.id === 'event-text' && (document.getElementById('event-text').value = '{text}') && 0"
        )
    };
    assert_eq!(chromium.evaluate(&page, &typed("a squid <3")), 0, "a text can be typed");
    // A click on the picture takes the focus; what is typed then is no key, but of the text.
    let letter = "document.activeElement.blur(); \
                document.body.dispatchEvent(new KeyboardEvent('keydown', { key: 'i', bubbles: true })); \
                document.activeElement.id + document.getElementById('info').hidden";
    assert_eq!(chromium.evaluate(&page, letter), "event-texttrue");
    // All of it is in the window, on a phone and in the frame of a dashboard too, and the state is seen.
    let is_inside = "[...document.querySelectorAll('#event, #event input, #event button')].every(element => { \
                     const { left, top, right, bottom } = element.getBoundingClientRect(); \
                     return left >= 0 && top >= 0 && right <= innerWidth && bottom <= innerHeight }) \
                     && (({ left, top, right, bottom }) => document.elementFromPoint((left + right) / 2, \
                     (top + bottom) / 2)?.id === 'badge')(document.getElementById('badge').getBoundingClientRect())";
    for size in [(1280, 720), (320, 480), (160, 90)] {
        resize(&mut chromium, &page, size);
        chromium.wait_for(&page, is_inside, wait::SOON);
    }
    // An input method's Escape ends what is composed with it.
    let composing = "document.getElementById('event-text').dispatchEvent(new KeyboardEvent('keydown', \
                     { key: 'Escape', isComposing: true, bubbles: true })); document.getElementById('event').hidden";
    assert_eq!(chromium.evaluate(&page, composing), false);
    chromium.evaluate(&page, "document.getElementById('event').requestSubmit(); 0");
    let toast = "document.getElementById('toast').textContent";
    // Picture and text at once.
    chromium.wait_for(&page, &format!("/^Saved \\S+_event\\.zip; its clip follows$/.test({toast})"), wait::START);
    let zip = until("the event", wait::SOON, || downloaded(folder.path(), "zip"));
    assert_eq!(chromium.evaluate(&page, "clips"), 0, "before its clip can come");
    chromium.wait_for(&page, "asked.length >= 2", 2 * wait::START);
    chromium.evaluate(&page, "isOver = true; 0");
    let name = zip.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let event_in = |zip: &Path, expected: &[&str]| {
        let files = unzip(&std::fs::read(zip).expect("the event"));
        let names: Vec<_> =
            files.iter().map(|(path, _)| path.strip_prefix(&format!("{name}/")).expect("in its folder")).collect();
        assert_eq!(names, expected);
        let event: Event = serde_json::from_slice(&files[files.len() - 1].1).expect("an event");
        (event, files)
    };
    let (early, files) = event_in(&zip, &["snapshot.png", "event.json"]);
    let tags = exif::read(&files[0].1);
    assert_eq!((&tags["GPSAltitude"], &tags["GPSAltitudeRef"]), (&json!(-12.5), &json!(1)), "{tags}");
    assert_eq!((early.text.as_str(), &early.pictures[0].clip), ("a squid <3", &Part::Awaited("clip.mp4".to_owned())));
    let clip = folder.path().join(format!("{name}_clip.zip"));
    // At the pace of downloads beside the video.
    until_true("its clip", 4 * wait::START, || clip.exists());
    let (event, files) = event_in(&clip, &["clip.mp4", "event.json"]);
    assert!(files[0].1.get(4..8) == Some(b"ftyp"));
    assert_eq!(event.pictures[0].snapshot, Part::File("snapshot.png".to_owned()));
    assert_eq!((event.text.as_str(), event.vehicle.as_str(), event.place.depth), ("a squid <3", "deep", Some(12.5)));
    assert_eq!(event.telemetry["depth"].text, "12.5 m");
    assert_eq!(event.pictures[0].clip, Part::File("clip.mp4".to_owned()));
    // It is asked for by when its pictures were captured, however late.
    let times = "new Set(asked.map(path => { const query = new URLSearchParams(path.split('?')[1]); \
                 return ['from', 'to', 'run'].map(name => query.get(name)).join() })).size + asked[0]";
    let times = chromium.evaluate(&page, times);
    let times = times.as_str().expect("a text");
    assert!(times.starts_with("1api/clip?") && times.contains("&from=1") && times.contains("&run=1"), "{times}");
    assert_eq!(event.pictures[0].remarks, early.pictures[0].remarks, "nothing is said against the clip");
    // Where the browser refuses a second download there is a link to it.
    let link = "document.querySelector('#offered a').download";
    assert_eq!(chromium.evaluate(&page, link), format!("{name}_clip.zip"));
    // Whose clip it is, is known.
    let with = "const { clock } = await import('/watched.js'); const { fetchClip } = await import('/clip.js'); \
                const around = { stream: 'stream1', moment: clock(), before: 1000, after: 0 }; \
                const options = { signal: new AbortController().signal }";
    let other = format!(
        "(async () => {{ {with}; await fetchClip(around, {{ ...options, server: 'other' }}) }})() \
                 .catch(error => error.message)"
    );
    assert_eq!(chromium.evaluate(&page, &other), "another server answers there by now");
    // It is given up where the ring cannot have it any more.
    let late = format!(
        "(async () => {{ {with}; const real = fetch; globalThis.fetch = async (path, options) => \
                 path.startsWith('api/clip') ? new Response('{{\"error\":\"busy\"}}', {{ status: 503 }}) : real(path, options); \
                 await fetchClip(around, {{ ...options, kept: 1 }}).finally(() => {{ globalThis.fetch = real }}) }})() \
                 .catch(error => error.message)"
    );
    let late = chromium.evaluate(&page, &late);
    assert!(
        late.as_str()
            .is_some_and(|why| why.starts_with("busy; given up after ") && why.ends_with(" keeps 1 s (--ring)")),
        "{late}"
    );
    // What others read it by.
    let sum =
        chromium.evaluate(&page, "import('/zip.js').then(zip => zip.crc32(new TextEncoder().encode('123456789')))");
    assert_eq!(sum, 0xcbf4_3926_u32);
    // Cancelled: nothing more comes.
    chromium.evaluate(&page, press);
    let escape = "document.getElementById('event-text').dispatchEvent(new KeyboardEvent('keydown', { key: 'Escape', bubbles: true })); 0";
    chromium.evaluate(&page, escape);
    assert_eq!(chromium.evaluate(&page, "document.getElementById('event').hidden"), true);
    // However many are being saved, their texts can be typed.
    for number in 1..=5 {
        chromium.evaluate(&page, press);
        assert_eq!(chromium.evaluate(&page, &typed(&number.to_string())), 0, "{number}");
        chromium.evaluate(&page, "document.getElementById('event').requestSubmit(); 0");
    }
    chromium.wait_for(&page, &format!("{toast}.endsWith('but no clip: 3 clips are still being fetched')"), wait::SOON);
    assert_eq!(chromium.complaints(), Vec::<String>::new());
}

#[test]
fn a_clip_that_does_not_come_is_said_to_be_waited_for_and_can_be_broken_off() {
    let server = Server::start(&["--ring", "30s"]);
    let mut chromium = DevTools::start();
    let page = chromium.open(&server.url("/"));
    chromium.wait_for(&page, &format!("{LIVE} && !document.getElementById('clip').hidden"), wait::START);
    let hang = "const { fetch: real, setInterval: often } = globalThis; globalThis.fetch = (path, options) => \
                path.startsWith('api/clip') ? new Promise((_, fail) => \
                options.signal.addEventListener('abort', () => fail(options.signal.reason))) : real(path, options); \
                globalThis.setInterval = then => often(then, 50); 0";
    chromium.evaluate(&page, hang);
    let press = "document.dispatchEvent(new KeyboardEvent('keydown', { key: 'c', bubbles: true })); 0";
    chromium.evaluate(&page, press);
    let toast = "document.getElementById('toast').textContent";
    let waits = format!("/^Still waiting for the clip, \\d+ s. C breaks it off$/.test({toast})");
    chromium.wait_for(&page, &waits, wait::SOON);
    chromium.wait_for(&page, "document.getElementById('clip').title === 'Break off the clip (C)'", wait::SOON);
    // Who leaves the page is asked first.
    let asks = "!dispatchEvent(new Event('beforeunload', { cancelable: true }))";
    assert_eq!(chromium.evaluate(&page, asks), true);
    chromium.evaluate(&page, press);
    chromium.wait_for(&page, &format!("{toast} === 'No clip was saved: it was broken off'"), wait::SOON);
    chromium.wait_for(&page, "document.getElementById('clip').title.startsWith('Save the last')", wait::SOON);
    assert_eq!(chromium.evaluate(&page, asks), false);
}

#[test]
fn a_connection_of_events_that_was_lost_with_the_link_is_opened_again() {
    let server = Server::start(&["--telemetry", "udp://127.0.0.1:0"]);
    let mut chromium = DevTools::start();
    let page = chromium.open(&server.url("/"));
    chromium.wait_for(&page, LIVE, wait::START);
    // Of one the answer never begins, of the next nothing comes.
    let lost = "globalThis.opened = 0; const { fetch: real, setTimeout: later } = globalThis; \
                globalThis.setTimeout = (then, ms) => later(then, ms / 50); \
                globalThis.fetch = async (path, options) => { if (path !== 'api/events') return real(path, options); \
                opened += 1; const lost = fail => options.signal.addEventListener('abort', () => fail(options.signal.reason)); \
                if (opened === 1) return new Promise((_, fail) => lost(fail)); \
                const start = stream => lost(reason => stream.error(reason)); \
                return opened === 2 ? new Response(new ReadableStream({ start })) : real(path, options) }; \
                import('/events.js').then(({ listen, reconnect }) => { listen('state', () => 0); reconnect(); return 0 })";
    assert_eq!(chromium.evaluate(&page, lost), 0);
    chromium.wait_for(&page, "opened > 2", wait::START);
    assert_eq!(chromium.complaints(), Vec::<String>::new());
}

#[test]
fn a_recording_is_listed_with_what_lies_beside_it() {
    let folder = TempDir::new().expect("a temporary folder");
    let into = folder.path().to_str().expect("a path of plain characters");
    let server = Server::start(&["--record", into, "--record-free", "1MB", "--telemetry", "udp://127.0.0.1:0"]);
    let address = server.stats().telemetry.expect("telemetry").addresses.remove(0).replace("udp://", "");
    let sender = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let mut chromium = DevTools::start();
    let page = chromium.open(&server.url("/"));
    chromium.wait_for(&page, LIVE, wait::START);
    chromium.wait_for(&page, "!document.getElementById('show-recordings').hidden", wait::START);
    chromium.evaluate(&page, "document.getElementById('show-recordings').click()");
    let links = "[...document.querySelectorAll('#recordings li a')].map(a => [a.textContent, a.download.slice(-4)])";
    until_true("three files", wait::START, || {
        sender.send_to(br#"{"depth": 12.5}"#, &address).expect("sent");
        chromium.evaluate(&page, links) == json!([["Download", ".mp4"], ["Table", ".csv"], ["Subtitles", ".ass"]])
    });
    let read = "fetch([...document.querySelectorAll('#recordings li a')].at(-1).href).then(reply => reply.text())";
    let text = chromium.evaluate(&page, read);
    assert!(text.as_str().is_some_and(|text| text.starts_with("[Script Info]\n")), "{text}");
    assert_eq!(chromium.complaints(), Vec::<String>::new());
}

#[test]
fn the_decisions_of_the_page_hold() {
    let server = Server::start(&[]);
    let mut chromium = DevTools::start();
    let page = chromium.open(&server.url("/"));
    let failures = chromium.evaluate(
        &page,
        &format!(
            "Promise.all(['advice', 'mjpeg', 'lineup', 'age', 'place', 'exif', 'clip'].map(name => import(`/${{name}}.js`))) \
             .then(modules => {{ {}; \
             return check(...modules) }})",
            include_str!("../src/advice_cases.js")
        ),
    );
    assert_eq!(failures, Value::Array(Vec::new()));
}

#[test]
fn the_parts_of_the_page_are_served_as_what_they_are() {
    let server = Server::start(&[]);
    for (path, kind) in [
        ("/", "text/html"),
        ("/viewer.js", "text/javascript"),
        ("/advice.js", "text/javascript"),
        ("/age.js", "text/javascript"),
        ("/mjpeg.js", "text/javascript"),
        ("/watched.js", "text/javascript"),
        ("/lineup.js", "text/javascript"),
        ("/place.js", "text/javascript"),
        ("/viewer.css", "text/css"),
        ("/favicon.svg", "image/svg+xml"),
    ] {
        let reply = http::get(&server.url(path));
        assert_eq!(reply.status, 200, "{path}");
        assert!(reply.header("content-type").starts_with(kind), "{path}: {reply:?}");
        assert_eq!(reply.header("cache-control"), "no-cache");
        assert_eq!(reply.header("x-content-type-options"), "nosniff");
        assert_eq!(reply.header("referrer-policy"), "no-referrer");
        let policy = reply.header("content-security-policy");
        assert!(policy.contains("default-src 'none'") && policy.contains("frame-ancestors"), "{policy}");
        assert!(!policy.contains("unsafe"), "{policy}");
        let head = http::request("HEAD", &server.url(path), None, b"");
        assert_eq!((head.status, head.body.as_str(), head.header("etag")), (200, "", reply.header("etag")));
        let again = http::get_if_none_match(&server.url(path), reply.header("etag"));
        assert_eq!((again.status, again.body.as_str()), (304, ""));
        assert_eq!(http::get_if_none_match(&server.url(path), "\"other\"").status, 200);
    }
    assert_eq!(http::request("POST", &server.url("/"), None, b"x").status, 405);
}
