//! The settings by HTTP: what they are, and what becomes of a change while somebody watches.

use std::ffi::OsString;
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rov_server::config::Config;
use rov_server::config_file;
use rov_tests::devtools::DevTools;
use rov_tests::events::Follower;
use rov_tests::in_process::Serving;
use rov_tests::process::program;
use rov_tests::programs::{PILOT, Server};
use rov_tests::wait::until_true;
use rov_tests::watcher::Watcher;
use rov_tests::{http, skipped, wait};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

fn read(server: &Server, path: &str) -> Value {
    let reply = http::get(&server.url(path));
    assert_eq!(reply.status, 200, "{path}: {reply:?}");
    reply.json()
}

#[test]
fn settings_are_found_by_server_camera_and_stream() {
    let server = Server::start(&["--fps", "20", "--stream2", "160x120@10"]);
    let all = read(&server, "/api/settings");
    let first = &all["cameras"]["cam1"]["streams"]["stream1"];
    assert_eq!(
        (&first["streamFramerate"]["value"], &first["streamFramerate"]["locked"]),
        (&json!(20), &json!("the command line"))
    );
    for (path, part) in [
        ("/api/settings/rtspEnabled", &all["server"]["rtspEnabled"]),
        ("/api/settings/flip", &all["cameras"]["cam1"]["settings"]["flip"]),
        ("/api/settings/streamFramerate", &first["streamFramerate"]),
        (
            "/api/settings/streamFramerate?stream=stream2",
            &all["cameras"]["cam1"]["streams"]["stream2"]["streamFramerate"],
        ),
        ("/api/cameras/cam1/settings", &all["cameras"]["cam1"]["settings"]),
        ("/api/cameras/cam1/streams/stream1/settings", first),
    ] {
        assert_eq!(&read(&server, path), part, "{path}");
        assert!(part.is_object(), "{path}");
    }
    let bitrate = &first["streamBitrate"];
    assert_eq!((&bitrate["value"], &bitrate["default"], &bitrate["maximum"]), (&json!(0), &json!(0), &json!(500_000)));
    assert_eq!((&bitrate["read"], &bitrate["write"]), (&json!("viewer"), &json!("controller")));
    for (path, known) in [
        ("/api/settings/pipeline", "rtspEnabled"),
        ("/api/settings/streamBitrate?stream=other", "stream2"),
        ("/api/cameras/other/settings", "cam1/stream1"),
        ("/api/cameras/cam1/streams/other/settings", "cam1/stream1"),
    ] {
        let reply = http::get(&server.url(path));
        assert!(reply.status == 404 && reply.error().contains(known), "{path}: {reply:?}");
    }
}

#[test]
fn events_tell_how_the_stream_is_and_end_with_the_server() {
    let mut server = Server::start(&[]);
    server.wait_until_running();
    let mut follower = Follower::start(server.address);
    assert_eq!(follower.line("Content-Type: ").as_deref(), Some("text/event-stream"));
    assert_eq!(follower.line("X-Server-Id: "), Some(http::stats(server.address).id));
    let of_stream =
        |event: &Value| (event["stream"].as_str(), event["camera"].as_str()) == (Some("stream1"), Some("cam1"));
    let first = follower.wait_for("state", of_stream);
    assert_eq!((&first["state"], &first["reason"]), (&json!("running"), &Value::Null));
    // Nobody looks: the encoder rests.
    follower.wait_for("state", |event| event["resting"] == json!(true));
    let _places: Vec<_> = (0..23)
        .map(|_| {
            let mut other = Follower::start(server.address);
            other.wait_for("state", of_stream);
            other
        })
        .collect();
    let refused = http::get(&server.url("/api/events"));
    assert!(refused.status == 503 && refused.error().contains("for readers of other addresses"), "{refused:?}");
    assert_eq!(server.process.stop(libc::SIGTERM, wait::SOON), 0);
    assert_eq!(follower.line("event: "), None, "it ends well");
}

/// A server that everybody may watch and `pilot` may change, with a picture whose size is free.
fn changeable(runtime: &Runtime, folder: &TempDir) -> Serving {
    let folder = folder.path().to_str().expect("a path of plain characters");
    let users = ["--user", "pilot", "--password", "deep", "--view", "open"];
    Serving::start(runtime, &[&["--source", "test", "--state-dir", folder], &users[..]].concat(), |_| {})
}

fn change(url: &str, login: Option<&str>, body: &Value) -> http::Reply {
    let login = login.map(|login| ("Authorization", login));
    let headers: Vec<_> = login.into_iter().chain([("Content-Type", "application/json")]).collect();
    http::request_with("PATCH", url, &headers, body.to_string().as_bytes())
}

#[test]
fn each_setting_is_changed_while_somebody_watches_and_is_seen_in_the_stream() {
    let folder = TempDir::new().expect("a temporary folder");
    let small = r#"{"cameras":{"cam1":{"streams":{"stream1":{"streamResolution":"320x240","streamFramerate":25}}}}}"#;
    std::fs::write(folder.path().join("settings-0.json"), small).expect("a file");
    let runtime = Runtime::new().expect("a runtime");
    let server = changeable(&runtime, &folder);
    let mut follower = Follower::start(server.address);
    let watcher = Watcher::start(&runtime, &["--url", &server.url("/whep")]);
    watcher.wait_for_shots(10);
    let viewers = || http::stats(server.address).viewers.into_iter().map(|viewer| viewer.id).collect::<Vec<_>>();
    let session = viewers();

    let pilot = http::basic("pilot", "deep");
    let mut apply = |place: &str, values: Value| {
        let reply = change(&server.url(place), Some(&pilot), &values);
        assert_eq!(reply.status, 200, "{values}: {reply:?}");
        assert_eq!(reply.json(), json!({ "applied": values, "waiting": {} }));
        let told = follower.wait_for("settings", |event| event["by"] == "pilot");
        assert_eq!((&told["camera"], &told["applied"]), (&json!("cam1"), &values));
    };
    let stream = "/api/cameras/cam1/streams/stream1/settings";
    let last = || *watcher.shots().last().expect("a picture");

    apply(stream, json!({ "streamResolution": "480x272" }));
    until_true("the size", wait::START, || last().resolution.to_string() == "480x272");
    apply(stream, json!({ "streamBitrate": 1500, "streamFramerate": 10 }));
    until_true("bit rate and frame rate", wait::START, || {
        let stream = server.stream();
        stream.target_bitrate_kbps == 1500 && (8.0..12.0).contains(&stream.fps_out)
    });
    apply(stream, json!({ "encoderPreset": "fast", "encoderProfile": "high", "keyframeInterval": 0.5 }));
    let url = http::stats(server.address).rtsp.expect("RTSP").urls.remove(0);
    until_true("the profile", wait::START, || seen(&url) == "h264,High,480,272");
    let keyframes = server.stream().keyframes;
    until_true("keyframes that nobody asked for", wait::START, || server.stream().keyframes > keyframes + 5);
    assert!(last().frame.is_some(), "its mark stands upright");
    apply("/api/cameras/cam1/settings", json!({ "flip": "180" }));
    until_true("it is turned", wait::START, || last().frame.is_none());

    assert_eq!(viewers(), session);
    assert!(watcher.shots().iter().all(|shot| shot.session == 1));
    // What viewers cannot follow waits.
    let codec = change(&server.url(stream), Some(&pilot), &json!({ "videoEncoder": "h265", "streamFramerate": 15 }));
    let expected = json!({ "applied": { "streamFramerate": 15 }, "waiting": { "videoEncoder": "h265" } });
    assert_eq!((codec.status, codec.json()), (200, expected));
    watcher.stop(&runtime);
    server.stop(&runtime);

    let again = changeable(&runtime, &folder);
    let stream = again.stream();
    assert_eq!((stream.codec.as_str(), stream.width, stream.height), ("h265", 480, 272));
    assert_eq!(http::get(&again.url("/api/settings/flip")).json()["value"], "180");
    again.stop(&runtime);
}

#[test]
fn a_change_is_told_and_kept_also_where_nobody_waits_for_it() {
    let folder = TempDir::new().expect("a temporary folder");
    let runtime = Runtime::new().expect("a runtime");
    let state = folder.path().to_str().expect("plain characters");
    let options = ["--source", "test", "--state-dir", state, "--user", "pilot", "--password", "deep", "--view", "open"];
    let server = Serving::start(&runtime, &options, |config| config.http_limits.change = Duration::from_millis(1));
    let mut follower = Follower::start(server.address);
    let watcher = Watcher::start(&runtime, &["--url", &server.url("/whep")]);
    watcher.wait_for_shots(10);
    let pilot = http::basic("pilot", "deep");
    let path = "/api/cameras/cam1/streams/stream1/settings";
    let kept = || std::fs::read_to_string(folder.path().join("settings-0.json")).expect("the file");

    let late = change(&server.url(path), Some(&pilot), &json!({ "streamResolution": "480x272" }));
    assert!(late.status == 503 && late.error().contains("goes on"), "{late:?}");
    let told = follower.wait_for("settings", |event| event["by"] == "pilot");
    assert_eq!(told["applied"], json!({ "streamResolution": "480x272" }));
    assert!(kept().contains("480x272"), "{}", kept());

    let body = json!({ "streamResolution": "320x240" }).to_string();
    // A server that finds the connection closed before it has read the request does nothing.
    until_true("one that goes at once is served too", wait::START, || {
        let mut gone = TcpStream::connect(server.address).expect("a connection");
        write!(
            gone,
            "PATCH {path} HTTP/1.1\r\nHost: {}\r\nAuthorization: {pilot}\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            server.address,
            body.len()
        )
        .expect("a request");
        drop(gone);
        kept().contains("320x240")
    });
    let told = follower.wait_for("settings", |event| event["by"] == "pilot");
    assert_eq!(told["applied"], json!({ "streamResolution": "320x240" }));
    watcher.stop(&runtime);
    server.stop(&runtime);
}

/// At an address of this test's own, where ports are free.
fn own_server(
    runtime: &Runtime,
    host: &str,
    options: &[&str],
    folder: &TempDir,
) -> anyhow::Result<rov_server::server::Server> {
    let state = folder.path().to_str().expect("plain characters");
    let all = ["rov-server", "--host", host, "--no-discovery", "--source", "test", "--state-dir", state];
    let options = config_file::read(all.iter().chain(options).map(OsString::from)).expect("valid options");
    runtime.block_on(rov_server::server::Server::bind(Config::new(&options).expect("a valid configuration")))
}

#[test]
fn what_was_changed_does_not_keep_the_server_from_its_start() {
    let runtime = Runtime::new().expect("a runtime");
    let pid = std::process::id();
    let host = format!("127.77.{}.{}", (pid >> 8) & 0xff, (pid & 0xff).clamp(1, 254));
    let taken = TcpListener::bind((host.as_str(), 0)).expect("a port");
    let port = taken.local_addr().expect("its address").port();
    for (options, kept) in [
        (&[][..], json!({ "server": { "rtspPort": port } })),
        (
            &["--encoder", "openh264enc"][..],
            json!({ "cameras": { "cam1": { "streams": { "stream1": { "streamResolution": "8192x8192" } } } } }),
        ),
    ] {
        let folder = TempDir::new().expect("a temporary folder");
        let file = folder.path().join("settings-8080.json");
        std::fs::write(&file, kept.to_string()).expect("a file");
        let server = own_server(&runtime, &host, options, &folder).expect("it starts as it was given");
        let address = server.http_addr().expect("the address of HTTP");
        let stop = CancellationToken::new();
        let run = runtime.spawn(server.run(stop.clone()));
        // It may be starting a second time.
        until_true("the stream runs", wait::START, || {
            let health = http::try_request("GET", &format!("http://{address}/healthz"), None, b"");
            health.is_ok_and(|reply| reply.status == 200)
        });
        assert!(!file.exists() && folder.path().join("settings-8080.json.broken").exists(), "{kept}");
        stop.cancel();
        runtime.block_on(run).expect("no panic").expect("it ends well");
    }
    // What is not to blame stays.
    let folder = TempDir::new().expect("a temporary folder");
    let file = folder.path().join("settings-8080.json");
    std::fs::write(&file, r#"{"server":{"maxViewers":3}}"#).expect("a file");
    let server = own_server(&runtime, &host, &["--encoder", "no-such-one"], &folder).expect("free ports");
    assert!(runtime.block_on(server.run(CancellationToken::new())).is_err());
    assert!(file.exists());
}

/// What ffprobe sees at an RTSP address: codec, profile, width and height.
fn seen(url: &str) -> String {
    let probe = Command::new(program("ffprobe", "ffmpeg"))
        .args(["-v", "error", "-show_entries", "stream=codec_name,profile,width,height", "-of", "csv=p=0", url])
        .output()
        .expect("ffprobe starts");
    String::from_utf8_lossy(&probe.stdout).trim().to_owned()
}

#[test]
fn each_role_may_what_it_may_and_a_mistake_is_told_by_its_field() {
    let path = "/api/cameras/cam1/streams/stream1/settings";
    let bitrate = json!({ "streamBitrate": 2000 });
    let open = Server::start(&[]);
    let refused = change(&open.url(path), None, &bitrate);
    assert!(refused.status == 403 && refused.error().contains("--user NAME"), "{refused:?}");
    let viewer = Server::start(&["--user", "guest", "--password", "deep", "--role", "viewer"]);
    assert_eq!(change(&viewer.url(path), viewer.login.as_deref(), &bitrate).status, 403);

    let server = Server::start(&["--user", "pilot", "--password", "deep", "--fps", "20"]);
    let login = server.login.as_deref();
    assert_eq!(change(&server.url(path), None, &bitrate).status, 401);
    assert_eq!(http::get(&server.url("/api/settings")).status, 401);
    let before = http::get_as(&server.url("/api/settings"), login).json();
    for (path, body, status, field) in [
        (path, json!({ "streamBitrate": 2000, "encoderPreset": "quick" }), 422, json!("encoderPreset")),
        (path, json!({ "streamBitrate": "fast" }), 422, json!("streamBitrate")),
        (path, json!({ "streamBitrate": 5 }), 422, json!("streamBitrate")),
        (path, json!({ "streamBitrate": 2000, "streamFramerate": 15 }), 403, json!("streamFramerate")),
        (path, json!({ "streamBitrate": 2000, "pipeline": "videotestsrc" }), 404, json!("pipeline")),
        (path, json!([]), 422, Value::Null),
        ("/api/settings/rtspPath", json!({ "value": ["/x"] }), 403, json!("rtspPath")),
        ("/api/settings/streamBitrate", json!({ "value": 2000, "more": 1 }), 422, Value::Null),
        ("/api/settings/rtpEnabled", json!({ "value": true }), 422, json!("rtpEnabled")),
        ("/api/cameras/other/settings", json!({ "flip": "180" }), 404, Value::Null),
    ] {
        let reply = change(&server.url(path), login, &body);
        assert_eq!((reply.status, &reply.json()["field"]), (status, &field), "{path} {body}: {reply:?}");
        assert_eq!(http::get_as(&server.url("/api/settings"), login).json(), before, "{path} {body}");
    }
    let as_text = http::request_with("PATCH", &server.url(path), &[("Authorization", login.expect("a login"))], b"{}");
    assert_eq!(as_text.status, 415);
    let right = change(&server.url("/api/settings/streamBitrate"), login, &json!({ "value": 2000 }));
    assert_eq!((right.status, right.json()["applied"]["streamBitrate"].clone()), (200, json!(2000)), "{right:?}");
    server.process.logs(&["audit: changed settings of stream cam1/stream1: {\"streamBitrate\":2000}"]);
}

#[test]
fn the_page_has_a_form_for_controllers_alone() {
    let folder = TempDir::new().expect("a temporary folder");
    let file = folder.path().join("rov.toml");
    std::fs::write(&file, PILOT).expect("a file");
    let server = Server::start(&["--config", file.to_str().expect("plain characters"), "--stream2", "160x120"]);
    server.wait_until_running();
    let mut chromium = DevTools::start();
    let page = chromium.open(&server.url("/"));
    chromium.wait_for(&page, "document.body?.dataset.state === 'live'", wait::START);
    assert_eq!(chromium.evaluate(&page, "document.getElementById('show-settings').hidden"), json!(true));
    chromium.evaluate(&page, "location.hash = 'token=rov_test'; 0");
    chromium.wait_for(&page, "!document.getElementById('show-settings').hidden", wait::START);
    let press = "document.dispatchEvent(new KeyboardEvent('keydown', { key: 'o', bubbles: true })); 0";
    chromium.evaluate(&page, press);
    let input = "[...document.querySelectorAll('#settings label')].find(label => \
                 label.textContent.startsWith('NAME'))?.control";
    let of = |name: &str| input.replace("NAME", name);
    chromium.wait_for(&page, &format!("{}?.value === '0'", of("streamBitrate")), wait::START);
    assert_eq!(chromium.evaluate(&page, &format!("{}.disabled", of("streamResolution"))), json!(true), "it is given");
    let set = |name: &str, value: &str| {
        format!("{{ const it = {}; it.value = '{value}'; it.dispatchEvent(new Event('change')) }} 0", of(name))
    };
    // What a screen reader has of it, and the keyboard.
    assert_eq!(chromium.evaluate(&page, "document.activeElement.id"), json!("settings"), "the keyboard is in it");
    chromium.call(Some(&page), "Accessibility.enable", json!({}));
    let tree = chromium.call(Some(&page), "Accessibility.getFullAXTree", json!({}));
    let nodes: Vec<_> =
        tree["nodes"].as_array().expect("nodes").iter().filter(|node| node["ignored"] == false).collect();
    let named = |role: &str| {
        let of_role = nodes.iter().filter(|node| node["role"]["value"] == role);
        of_role.map(|node| node["name"]["value"].as_str().unwrap_or_default()).collect::<Vec<_>>()
    };
    let roles = ["textbox", "spinbutton", "checkbox", "combobox", "button"];
    let controls: Vec<_> = roles.into_iter().flat_map(named).collect();
    assert!(controls.len() > 30 && controls.iter().all(|name| !name.is_empty()), "{controls:?}");
    let groups = named("group");
    assert!(
        ["Stream stream1", "Camera cam1", "Server", "overlay"].iter().all(|name| groups.contains(name)),
        "{groups:?}"
    );
    chromium.evaluate(&page, &set("streamBitrate", "1500"));
    until_true("the bit rate", wait::START, || server.stats().streams[0].target_bitrate_kbps == 1500);
    // Somebody else changes it, which the form shows.
    let bearer = "Bearer rov_test";
    let reply = change(&server.url("/api/settings/encoderPreset"), Some(bearer), &json!({ "value": "fast" }));
    assert_eq!(reply.status, 200, "{reply:?}");
    chromium.wait_for(&page, &format!("{}.value === 'fast'", of("encoderPreset")), wait::START);
    // What is refused is said at once, and of which control.
    chromium.evaluate(&page, &set("minBitrate", "400000"));
    let alert = "document.querySelector('#settings [role=alert]:not(:empty)')?.textContent";
    chromium.wait_for(&page, &format!("Boolean({alert}?.includes('--min-bitrate'))"), wait::START);
    assert_eq!(chromium.evaluate(&page, &format!("{}.getAttribute('aria-invalid')", of("minBitrate"))), json!("true"));
    // The range is the server's.
    chromium.evaluate(&page, &set("keyframeInterval", "1000"));
    chromium.wait_for(&page, &format!("!{}.checkValidity()", of("keyframeInterval")), wait::START);
    chromium.evaluate(&page, press);
    chromium.wait_for(&page, "document.getElementById('settings').hidden", wait::START);
    chromium.evaluate(&page, press);
    let escape =
        "document.activeElement.dispatchEvent(new KeyboardEvent('keydown', { key: 'Escape', bubbles: true })); 0";
    chromium.evaluate(&page, escape);
    chromium.wait_for(&page, "document.getElementById('settings').hidden", wait::START);
    assert_eq!(chromium.evaluate(&page, "document.activeElement.id"), json!("show-settings"));
}

#[test]
fn the_description_of_the_api_says_what_the_server_does() {
    let Some(schemathesis) = std::env::var_os("ROV_TEST_SCHEMATHESIS").filter(|path| Path::new(path).exists()) else {
        return skipped("schemathesis is not installed");
    };
    let server = Server::start(&["--user", "pilot", "--password", "deep", "--stream2", "160x120"]);
    server.wait_until_running();
    let login = format!("Authorization: {}", server.login.as_deref().expect("a login"));
    let checks = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance,\
                  negative_data_rejection";
    let mut run = Command::new(schemathesis);
    run.args(["run", &server.url("/api/openapi.json"), "-H", &login, "--checks", checks, "--no-color"]).args([
        "--phases",
        "coverage,fuzzing",
        "--max-examples",
        "10",
        "--seed",
        "1",
    ]);
    // It makes no offers; and they have no end, or wait for the next keyframe.
    for endless in ["/api/events", "/stream.mjpg", "/snapshot.jpg"] {
        run.args(["--exclude-path", endless]);
    }
    run.args(["--exclude-path-regex", "^/whep"]);
    // It keeps what it has found beside it.
    let folder = TempDir::new().expect("a temporary folder");
    let output = run.current_dir(folder.path()).output().expect("schemathesis runs");
    let (said, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}{errors}\n{}", server.process.stderr());
}

#[test]
fn browsers_are_told_of_turn_servers_and_nobody_else_reads_the_credential() {
    let server = Server::start(&["--user", "pilot", "--password", "deep"]);
    server.wait_until_running();
    let (url, login) = (server.url("/api/settings/webrtcIceServers"), server.login.as_deref());
    for (wrong, said) in [
        (json!([{ "urls": ["turn:10.0.0.1"] }]), "needs username and credential"),
        (json!([{ "urls": ["http://10.0.0.1"] }]), "expected stun:HOST"),
        (json!([{ "urls": ["stun:10.0.0.1"], "other": 1 }]), "expected a list"),
        (json!("stun:10.0.0.1"), "expected a list"),
        (json!([{ "urls": ["stun:10.0.0.1"], "password": "deepsea" }]), "expected a list"),
        (json!(["turn:pilot:deepsea@10.0.0.1"]), "expected a list"),
    ] {
        let refused = change(&url, login, &json!({ "value": wrong }));
        assert!(refused.status == 422 && refused.error().contains(said), "{refused:?}");
    }
    // Nothing answers there, which costs nothing.
    let all = json!([
        { "urls": ["turn:127.0.0.1:9?transport=udp"], "username": "pilot", "credential": "de:ep,@\"sea" },
        { "urls": ["stun:127.0.0.1:9"] },
    ]);
    let reply = change(&url, login, &json!({ "value": all }));
    assert_eq!((reply.status, &reply.json()["applied"]["webrtcIceServers"]), (200, &all), "{reply:?}");
    assert_eq!(http::get_as(&server.url("/api/login"), login).json()["iceServers"], all);
    let nobody = http::get(&server.url("/api/login")).json();
    assert_eq!((&nobody["may_watch"], nobody.get("iceServers")), (&json!(false), None));
    server.process.logs(&["\"credential\":\"***\""]);
    assert!(!server.process.stderr().contains("sea"), "{}", server.process.stderr());
    let mut chromium = DevTools::start();
    let page = chromium.open(&server.url("/"));
    chromium.wait_for(&page, "document.getElementById('login')?.hidden === false", wait::START);
    let made = "window.made = []; const Real = RTCPeerConnection; \
        window.RTCPeerConnection = class extends Real { constructor(o) { super(o); made.push(this) } }; \
        document.getElementById('user').value = 'pilot'; document.getElementById('password').value = 'deep'; \
        document.querySelector('#login button').click(); 0";
    chromium.evaluate(&page, made);
    chromium.wait_for(&page, "document.body?.dataset.state === 'live'", wait::START);
    let told = "made.at(-1).getConfiguration().iceServers.map(({ urls, username, credential }) => [urls, username, \
                credential])";
    let told = chromium.evaluate(&page, told);
    assert_eq!(
        told,
        json!([[["turn:127.0.0.1:9?transport=udp"], "pilot", "de:ep,@\"sea"], [["stun:127.0.0.1:9"], "", ""]])
    );
}
