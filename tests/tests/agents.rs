//! WebRTC implementations that others wrote as viewers, by WHEP.

use std::collections::HashSet;
use std::process::Command;
use std::time::Duration;

use rov_tests::agents::{self, Offer, WebRtcBin};
use rov_tests::process::{Process, binary};
use rov_tests::programs::Server;
use rov_tests::skipped;
use rov_tests::wait::{self, until_true};

/// At 30 a second.
const PICTURES: usize = 60;
/// In which they come, from the first one on: until then a busy machine may take what it likes.
const IN: Duration = Duration::from_secs(10);

/// That an agent gets so many pictures, and the server knows when it has gone.
fn assert_watches(name: &str, server: &Server, agent: Option<Process>) {
    let Some(mut agent) = agent else { return skipped(&format!("{name} cannot be had here (scripts/test gets it)")) };
    until_true(&format!("{name} gets media"), wait::START, || !agent.is_running() || !agent.stdout().is_empty());
    let code = agent.wait(IN);
    assert_eq!((code, agent.stdout().as_str()), (0, "first picture\npictures 60"), "{name}: {}", agent.stderr());
    until_true("the server knows that the viewer has gone", wait::SOON, || server.stats().viewers.is_empty());
}

#[test]
fn webrtcbin_decodes_the_stream_however_it_offers() {
    let server = Server::start(&[]);
    let modes = ",packetization-mode=(string)1,profile-level-id=(string)42e01f";
    for offer in [
        // As whepsrc does, the first one by default.
        Offer { fields: "", trickle: false, bundle: "max-bundle", audio: true },
        Offer { fields: "", trickle: false, bundle: "max-bundle", audio: false },
        // As whepclientsrc does.
        Offer { fields: ",profile-level-id=(string)42e016", trickle: true, bundle: "max-bundle", audio: false },
        Offer { fields: modes, trickle: false, bundle: "none", audio: false },
        Offer { fields: modes, trickle: false, bundle: "none", audio: true },
    ] {
        let viewer = WebRtcBin::watch(&server.url("/whep"), offer);
        until_true(&format!("{offer:?}: a picture"), wait::START, || viewer.decoded() >= 1);
        until_true(&format!("{offer:?}: pictures"), IN, || viewer.decoded() >= PICTURES);
        let fmtp = viewer.answer.contains("a=fmtp:103");
        assert_eq!(fmtp, !offer.fields.is_empty(), "{}\n{}", viewer.offer, viewer.answer);
        // In a bundle all have that of the first; unbundled, each section has ICE of its own.
        let sections = viewer.offer.split("\r\nm=").skip(1);
        let kinds: Vec<&str> = sections.clone().filter_map(|section| section.split(' ').next()).collect();
        assert_eq!(kinds, if offer.audio { vec!["audio", "video"] } else { vec!["video"] });
        let ufrags: HashSet<&str> =
            sections.filter_map(|section| section.split_once("a=ice-ufrag:")?.1.lines().next()).collect();
        assert_eq!(ufrags.len(), if offer.bundle == "none" { kinds.len() } else { 1 }, "{}", viewer.offer);
        viewer.hang_up();
        until_true("it is gone", wait::SOON, || server.stats().viewers.is_empty());
    }
}

#[test]
fn aiortc_watches() {
    let server = Server::start(&[]);
    server.wait_until_running();
    assert_watches("aiortc", &server, agents::aiortc(&server.url("/whep"), PICTURES, None));
}

#[test]
fn libdatachannel_watches() {
    let server = Server::start(&[]);
    server.wait_until_running();
    let agent = agents::npm("node-datachannel", "datachannel.mjs", &server.url("/whep"), PICTURES, None);
    assert_watches("libdatachannel", &server, agent);
}

#[test]
fn werift_watches() {
    let server = Server::start(&[]);
    server.wait_until_running();
    let agent = agents::npm("werift", "werift.mjs", &server.url("/whep"), PICTURES, None);
    assert_watches("werift", &server, agent);
}

#[test]
fn the_example_of_a_viewer_watches() {
    let server = Server::start(&[]);
    let mut command = Command::new(binary("whep-viewer"));
    command.args([&server.url("/whep"), "--pictures", &PICTURES.to_string()]);
    let mut viewer = Process::spawn("whep-viewer", &mut command);
    until_true("the first second's pictures", wait::START, || {
        !viewer.is_running() || viewer.stdout().contains(" fps, ")
    });
    let (code, said) = (viewer.wait(IN), viewer.stdout());
    assert_eq!(code, 0, "{said}\n{}", viewer.stderr());
    assert!(said.contains(" fps, ") && said.ends_with(&format!("\n{PICTURES} pictures")), "{said}");
    until_true("the server knows that the viewer has gone", wait::SOON, || server.stats().viewers.is_empty());
}
