//! Telemetry by the WebRTC data channel, to implementations that others wrote.

use std::time::Duration;

use rov_tests::agents;
use rov_tests::devtools::DevTools;
use rov_tests::events::Follower;
use rov_tests::process::Process;
use rov_tests::programs::Server;
use rov_tests::sensor::Sensor;
use rov_tests::skipped;
use rov_tests::wait::{self, until_true};
use serde_json::Value;

/// At 30 a second.
const PICTURES: usize = 60;
/// In which they come, from the first one on: until then a busy machine may take what it likes.
const IN: Duration = Duration::from_secs(10);

fn server() -> (Server, Sensor) {
    let server = Server::start(&["--telemetry", "udp://127.0.0.1:0"]);
    server.wait_until_running();
    let sensor = Sensor::start(&server);
    (server, sensor)
}

/// That a text is an event of telemetry, as `/api/events` gives them.
fn assert_is_telemetry(server: &Server, text: &str) {
    let told: Value = serde_json::from_str(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    let event = Follower::start(server.address).wait_for("telemetry", |event| event["fields"]["depth"].is_object());
    let keys = |value: &Value| value.as_object().expect("an object").keys().cloned().collect::<Vec<_>>();
    let depth = |value: &Value| value["fields"]["depth"].clone();
    assert_eq!((keys(&told), told["run"].as_u64()), (keys(&event), event["run"].as_u64()));
    assert_eq!(keys(&depth(&told)), keys(&depth(&event)));
    assert!(depth(&told)["text"].as_str().is_some_and(|text| text.ends_with(" m")), "{text}");
}

fn assert_is_told(name: &str, agent: impl FnOnce(&str) -> Option<Process>) {
    let (server, _sensor) = server();
    let Some(mut agent) = agent(&server.url("/whep")) else {
        return skipped(&format!("{name} cannot be had here (scripts/test gets it)"));
    };
    until_true(&format!("{name} gets media"), wait::START, || !agent.is_running() || !agent.stdout().is_empty());
    let (code, said) = (agent.wait(IN), agent.stdout());
    let told = said.strip_prefix("first picture\npictures 60\ntelemetry ");
    let told = told.unwrap_or_else(|| panic!("{name} ended with {code} and said {said}: {}", agent.stderr()));
    assert_is_telemetry(&server, told);
    assert_eq!(code, 0, "{name}: {}", agent.stderr());
    until_true("the server knows that the viewer has gone", wait::SOON, || server.stats().viewers.is_empty());
}

#[test]
fn aiortc_is_told() {
    assert_is_told("aiortc", |url| agents::aiortc(url, PICTURES, Some("telemetry")));
}

#[test]
fn libdatachannel_is_told() {
    let agent = |url: &str| agents::npm("node-datachannel", "datachannel.mjs", url, PICTURES, Some("telemetry"));
    assert_is_told("libdatachannel", agent);
}

/// As the README says how.
#[test]
fn a_page_is_told_ten_times_a_second_at_most_and_plays() {
    let (server, _sensor) = server();
    let mut chromium = DevTools::start();
    let page = chromium.open(&server.url("/healthz"));
    let watch = "window.told = []; window.pc = new RTCPeerConnection(); \
        pc.createDataChannel(''); pc.addTransceiver('video', { direction: 'recvonly' }); \
        pc.ondatachannel = ({ channel }) => { channel.onmessage = ({ data }) => \
            told.push([channel.label, data, channel.ordered]) }; \
        pc.ontrack = ({ streams }) => { const video = document.createElement('video'); video.muted = true; \
            video.srcObject = streams[0]; document.body.append(video); video.play() }; \
        (async () => { await pc.setLocalDescription(); \
            const reply = await fetch('/offer', { method: 'POST', body: JSON.stringify(pc.localDescription) }); \
            await pc.setRemoteDescription(await reply.json()) })()";
    chromium.evaluate(&page, watch);
    chromium.wait_for(&page, "told.length >= 20", wait::START);
    chromium.wait_for(&page, "document.querySelector('video').currentTime > 1", wait::START);
    let told = chromium.evaluate(&page, "told");
    for message in told.as_array().expect("messages") {
        assert_eq!((message[0].as_str(), message[2].as_bool()), (Some("telemetry"), Some(true)));
    }
    assert_is_telemetry(&server, told[0][1].as_str().expect("a text"));
    // None comes twice, nor behind a newer one.
    let at: Vec<u64> = told
        .as_array()
        .expect("messages")
        .iter()
        .map(|message| {
            let told: Value = serde_json::from_str(message[1].as_str().expect("a text")).expect("JSON");
            told["at_ms"].as_u64().expect("a time")
        })
        .collect();
    assert!(at.windows(2).all(|pair| pair[0] < pair[1]), "{at:?}");
}
