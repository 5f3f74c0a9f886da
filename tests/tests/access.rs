//! Who may use the HTTP API: names of the machine, pages of its own and of other origins.

use std::io::{Read, Write};
use std::net::TcpStream;

use rov_client::whep::{self, Http};
use rov_tests::devtools::DevTools;
use rov_tests::programs::Server;
use rov_tests::proxy::Proxy;
use rov_tests::{OFFER, http, wait};
use serde_json::json;
use tokio::runtime::Runtime;

/// The first line of the answer to a request with these headers, and the rest.
fn ask(server: &Server, version: &str, headers: &str) -> (String, String) {
    let mut stream = TcpStream::connect(server.address).expect("a connection");
    stream.set_read_timeout(Some(wait::SOON)).expect("a time limit");
    let request = format!("GET /healthz HTTP/{version}\r\n{headers}Connection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("sending");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let (status, rest) = answer.split_once("\r\n").expect("a line");
    (status.to_owned(), rest.to_owned())
}

#[test]
fn a_name_that_is_not_the_machines_own_is_refused() {
    let server = Server::start(&["--allow-host", "rov.lan"]);
    server.wait_until_running();
    let own =
        String::from_utf8(std::process::Command::new("hostname").output().expect("a name").stdout).expect("UTF-8");
    let own = own.trim().split('.').next().expect("a first part");
    for host in ["127.0.0.1", "[::1]:8080", "localhost:8080", "rov.lan", own, &format!("{own}.lan:8080")] {
        assert_eq!(ask(&server, "1.1", &format!("Host: {host}\r\n")).0, "HTTP/1.1 200 OK", "{host}");
    }
    let (status, answer) = ask(&server, "1.1", "Host: rebound.example:8080\r\n");
    assert_eq!(status, "HTTP/1.1 421 Misdirected Request");
    assert!(answer.contains("--allow-host rebound.example\""), "{answer}");
    for headers in ["", "Host: 127.0.0.1\r\nHost: 127.0.0.1\r\n"] {
        assert_eq!(ask(&server, "1.1", headers).0, "HTTP/1.1 400 Bad Request", "{headers:?}");
    }
    assert!(ask(&server, "1.0", "").0.ends_with(" 200 OK"), "HTTP/1.0 has no Host");
}

/// What a page of another origin gets of the server: the size of a picture and of a stream by `<img>`, and a frame's
/// text.
const FOREIGN: &str = "Promise.all(['snapshot.jpg', 'stream.mjpg'].map(path => new Promise(done => { \
    const img = new Image(); img.onload = () => done(img.naturalWidth); img.onerror = () => done('refused'); \
    img.src = `${SERVER}/${path}` })))";

/// An origin of its own; what it passes on is not looked at.
fn elsewhere(runtime: &Runtime) -> Proxy {
    let page = "<!doctype html><title>elsewhere</title><body>";
    Proxy::start(runtime, "127.0.0.1:9".parse().expect("an address"), page, None)
}

#[test]
fn pages_of_other_origins_get_nothing_unless_they_are_allowed() {
    let runtime = Runtime::new().expect("a runtime");
    let elsewhere = elsewhere(&runtime);
    let mut chromium = DevTools::start();
    for (options, seen, status) in [
        (vec![], json!(["refused", "refused"]), json!("refused")),
        (vec!["--allow-origin".to_owned(), elsewhere.url("")], json!([320, 320]), json!([201, true, true])),
    ] {
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        let server = Server::start(&options);
        server.wait_until_running();
        let page = chromium.open(&elsewhere.url("/?"));
        let script = |script: &str| script.replace("${SERVER}", &server.url(""));
        assert_eq!(chromium.evaluate(&page, &script(FOREIGN)), seen, "{options:?}");
        let offer = "(async () => { const pc = new RTCPeerConnection(); \
                     pc.addTransceiver('video', { direction: 'recvonly' }); await pc.setLocalDescription(); \
                     const reply = await fetch('${SERVER}/whep', { method: 'POST', \
                     headers: { 'Content-Type': 'application/sdp' }, body: pc.localDescription.sdp }); \
                     const session = new URL(reply.headers.get('Location'), reply.url); \
                     const ended = await fetch(session, { method: 'DELETE' }); \
                     return [reply.status, ended.ok, reply.headers.has('ETag')] })().catch(() => 'refused')";
        assert_eq!(chromium.evaluate(&page, &script(offer)), status, "{options:?}");
        let framed = "new Promise(done => { const frame = document.createElement('iframe'); \
                      frame.src = '${SERVER}/healthz'; frame.onload = () => done(1); document.body.append(frame) })";
        chromium.evaluate(&page, &script(framed));
        let complaints = chromium.complaints().join(" ");
        assert_eq!(complaints.contains("frame-ancestors"), options.is_empty(), "{complaints}");
        // Whoever follows a link from there is let in.
        let link = format!("location.href = '{}'; 0", server.url("/snapshot.jpg"));
        chromium.evaluate(&page, &link);
        chromium.wait_for(&page, "document.images[0]?.naturalWidth === 320", wait::START);
    }
}

/// Of a server by HTTP that is not on this machine browsers send neither `Sec-Fetch-Site` nor, with an `<img>`,
/// `Origin`: there the answer alone keeps pages of other origins out.
#[test]
fn what_browsers_do_not_say_whose_it_is_is_kept_from_pages_of_other_origins_by_the_answer() {
    let runtime = Runtime::new().expect("a runtime");
    let elsewhere = elsewhere(&runtime);
    let named = |url: String, name: &str| url.replace("127.0.0.1", name);
    let origin = named(elsewhere.url(""), "elsewhere.lan");
    // By names that are not loopback's, as browsers trust that as if it were HTTPS.
    let names = "MAP rov.lan 127.0.0.1 , MAP elsewhere.lan 127.0.0.1 , MAP * ~NOTFOUND , EXCLUDE 127.0.0.1";
    let mut chromium = DevTools::start_with(&[&format!("--host-resolver-rules={names}"), "--no-proxy-server"]);
    for (options, seen) in [
        (vec![], json!(["refused", "refused"])),
        (vec!["--allow-origin", "http://other.lan"], json!(["refused", "refused"])),
        (vec!["--allow-origin", &origin], json!([320, 320])),
    ] {
        let server = Server::start(&[&["--allow-host", "rov.lan"], &options[..]].concat());
        server.wait_until_running();
        let page = chromium.open(&format!("{origin}/?"));
        let shown = FOREIGN.replace("${SERVER}", &named(server.url(""), "rov.lan"));
        assert_eq!(chromium.evaluate(&page, &shown), seen, "{options:?}");
    }
}

#[test]
fn every_answer_says_which_origins_may_have_it() {
    const POLICY: &str = "cross-origin-resource-policy";
    let (dash, other) = ("http://dash.example:3000", "http://other.example");
    let page = format!("{dash}/rov");
    for (option, of_dash) in [(&[][..], "same-origin"), (&["--allow-origin", dash][..], "cross-origin")] {
        let server = Server::start(option);
        server.wait_until_running();
        let asked = |path: &str, headers: &[(&str, &str)]| {
            let reply = http::request_with("HEAD", &server.url(path), headers, b"");
            assert_eq!(reply.header("vary").contains("Origin"), !option.is_empty(), "{path}: {reply:?}");
            (reply.status, reply.header(POLICY).to_owned())
        };
        for (path, status) in [
            ("/snapshot.jpg", 200),
            ("/stream.mjpg", 200),
            ("/", 200),
            ("/viewer.js", 200),
            ("/favicon.svg", 200),
            ("/api/stats", 200),
            ("/api/events", 200),
            ("/metrics", 200),
            ("/healthz", 200),
            ("/nothing", 404),
            ("/whep", 405),
        ] {
            for (headers, policy) in [
                (&[][..], "same-origin"),
                (&[("Origin", other)], "same-origin"),
                (&[("Referer", other)], "same-origin"),
                (&[("Origin", dash)], of_dash),
                // An `<img>` has no other.
                (&[("Referer", page.as_str())], of_dash),
            ] {
                assert_eq!(asked(path, headers), (status, policy.to_owned()), "{option:?} {path} {headers:?}");
            }
        }
        let refused = asked("/stream.mjpg", &[("Sec-Fetch-Site", "cross-site"), ("Origin", other)]);
        assert_eq!(refused, (403, "same-origin".to_owned()), "{option:?}");
        assert_eq!(asked("/", &[("Host", "rebound.example")]), (421, "same-origin".to_owned()), "{option:?}");
    }
}

#[test]
fn a_page_of_the_server_may_send_its_offer_as_text_and_others_may_not() {
    let server = Server::start(&[]);
    server.wait_until_running();
    let origin = server.url("");
    let offer = |headers: &[(&str, &str)]| http::request_with("POST", &server.url("/offer"), headers, b"{}").status;
    let text = ("Content-Type", "text/plain;charset=UTF-8");
    // It is read, and found wanting.
    assert_eq!(offer(&[text, ("Origin", &origin)]), 400);
    assert_eq!(offer(&[text, ("Origin", "https://proxy.example"), ("Sec-Fetch-Site", "same-origin")]), 400);
    assert_eq!(offer(&[text]), 400, "no browser");
    assert_eq!(offer(&[text, ("Origin", "http://evil.example")]), 415);
    assert_eq!(offer(&[("Origin", "null")]), 415);
    assert_eq!(offer(&[text, ("Origin", &origin), ("Sec-Fetch-Site", "cross-site")]), 403);
    assert_eq!(offer(&[("Content-Type", "application/x-www-form-urlencoded")]), 415);

    let mut chromium = DevTools::start();
    let page = chromium.open(&server.url("/healthz"));
    let watch = |path: &str, prepare: &str| {
        format!(
            "(async () => {{ const pc = new RTCPeerConnection(); {prepare}; await pc.setLocalDescription(); \
             const reply = await fetch('{path}', {{ method: 'POST', body: JSON.stringify(pc.localDescription) }}); \
             const body = await reply.json(); if (!reply.ok) return body.error; await pc.setRemoteDescription(body); \
             return new Promise(done => pc.onconnectionstatechange = () => {{ \
             if (pc.connectionState === 'connected') done('connected') }}) }})()"
        )
    };
    for path in ["/offer", "/api/webrtc/offer"] {
        let video = "pc.addTransceiver('video', { direction: 'recvonly' })";
        // A data channel is refused, and the rest of the offer is not.
        for prepare in [video, &format!("pc.createDataChannel('events'); {video}")] {
            assert_eq!(chromium.evaluate(&page, &watch(path, prepare)), "connected", "{path}: {prepare}");
        }
        for prepare in ["0", "pc.addTransceiver('audio', { direction: 'recvonly' })"] {
            let refused = chromium.evaluate(&page, &watch(path, prepare)).to_string();
            assert!(refused.contains("addTransceiver('video', {direction: 'recvonly'})"), "{prepare}: {refused}");
        }
    }
}

#[test]
fn rov_client_finds_its_session_behind_a_proxy_with_a_path_of_its_own() {
    let server = Server::start(&[]);
    server.wait_until_running();
    let runtime = Runtime::new().expect("a runtime");
    let proxy = Proxy::start_under(&runtime, "/boats/rov1", server.address);
    let http = Http::default();
    let url = proxy.url("/boats/rov1/whep").parse().expect("a URL");
    let answer = runtime.block_on(whep::offer(url, OFFER.to_owned(), &http)).expect("an answer");
    assert_eq!(server.stats().viewers[0].id, answer.viewer_id().expect("an id"));
    assert!(answer.resource.is_some(), "its URL");
    runtime.block_on(whep::delete(&answer, &http)).expect("a goodbye");
    assert_eq!(server.stats().viewers.len(), 0);
}

#[test]
fn the_address_that_was_asked_is_offered_and_so_are_public_ones() {
    let server = Server::start(&["--public-address", "203.0.113.9:4000"]);
    let headers = [("Content-Type", "application/sdp"), ("Host", "192.0.2.5:8080")];
    let reply = http::request_with("POST", &server.url("/whep"), &headers, OFFER.as_bytes());
    assert_eq!(reply.status, 201, "{reply:?}");
    let port = server.media.expect("WebRTC").port();
    for candidate in [format!(" 192.0.2.5 {port} typ srflx"), " 203.0.113.9 4000 typ srflx".to_owned()] {
        assert!(reply.body.contains(&candidate), "{candidate}: {}", reply.body);
    }
}
