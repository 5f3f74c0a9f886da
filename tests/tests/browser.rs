//! Chromium as a viewer: a page that knows WHEP alone.

use std::time::Duration;

use rov_tests::browser::{Browser, PAGE};
use rov_tests::programs::Server;
use rov_tests::proxy::Proxy;
use rov_tests::relay::Network;
use rov_tests::wait::{self, until, until_true};
use tokio::runtime::Runtime;

#[test]
fn chromium_shows_the_stream_by_whep_with_trickled_candidates() {
    let server = Server::start(&["--width", "640", "--height", "360"]);
    let runtime = Runtime::new().expect("a runtime");
    let proxy = Proxy::start(&runtime, server.address, PAGE, None);
    let mut browser = Browser::open(&proxy.url("/?frames=30&close"));
    let result = until("the page's result", 2 * wait::START, || {
        assert!(browser.is_running(), "chromium has ended");
        proxy.results().into_iter().next()
    });
    assert!(result.get("error").is_none(), "{result:#}");
    let number = |name: &str| result[name].as_f64().unwrap_or_else(|| panic!("{name} in {result:#}"));
    println!(
        "jitter buffer {:.1} ms, receive to decoded {:.1} ms, decoder {}",
        number("jitterBufferMs"),
        number("processingMs"),
        result["decoder"]
    );
    assert!(number("framesDecoded") >= 30.0);
    assert_eq!((number("frameWidth"), number("frameHeight")), (640.0, 360.0));
    assert_eq!((number("videoWidth"), number("videoHeight")), (640.0, 360.0), "the element shows it");
    // The pictures themselves arrive: their marks can be read on the page.
    assert!(number("marksRead") > 0.0 && result["marksInOrder"] == true, "{result:#}");
    assert_eq!(result["codec"], "video/H264");
    let answer = result["answer"].as_str().expect("the answer's text");
    for line in ["a=rtpmap:", "H264/90000", "rtx/90000", "rtp-hdrext/playout-delay", "a=sendonly"] {
        assert!(answer.contains(line), "{line:?} in {answer}");
    }
    let offer = proxy.exchanges().remove(0).offer;
    assert!(!offer.contains("a=candidate:"), "its candidates came by PATCH");
    // The page closed its connection without a DELETE: the goodbye of DTLS is enough.
    until_true("the server knows that the viewer has gone", wait::SOON, || server.stats().viewers.is_empty());
}

#[test]
fn a_viewer_that_asks_for_sound_first_gets_the_picture() {
    let server = Server::start(&["--width", "640", "--height", "360"]);
    let runtime = Runtime::new().expect("a runtime");
    let proxy = Proxy::start(&runtime, server.address, PAGE, None);
    let mut browser = Browser::open(&proxy.url("/?frames=30&audio"));
    let result = until("the page's result", 2 * wait::START, || {
        assert!(browser.is_running(), "chromium has ended");
        proxy.results().into_iter().next()
    });
    assert!(result["framesDecoded"].as_f64().is_some_and(|frames| frames >= 30.0), "{result:#}");
    let answer = result["answer"].as_str().expect("the answer's text");
    // The first section of a bundle has the candidates of all: it is accepted, without sound.
    let (sound, video) = answer.split_once("m=video 9 ").expect("a section for video");
    assert!(sound.contains("m=audio 9 ") && sound.contains("a=inactive"), "{answer}");
    assert!(sound.contains("a=candidate:") && !video.contains("a=candidate:"), "{answer}");
}

#[test]
fn chromium_is_heard_all_along_on_a_network_that_loses_packets() {
    let server = Server::start(&["--width", "640", "--height", "360"]);
    let runtime = Runtime::new().expect("a runtime");
    let network = Network::new(Duration::from_millis(2), 1);
    network.set_loss(0.03);
    let proxy = Proxy::start(&runtime, server.address, PAGE, Some(network));
    let _browser = Browser::open(&proxy.url("/?frames=100"));
    // From the first retransmission on, its reports are about two streams.
    let viewer = until("requests for lost packets, again and again", 2 * wait::START, || {
        server.stats().viewers.into_iter().next().filter(|viewer| viewer.nacks >= 10)
    });
    assert!(viewer.loss.is_some(), "{viewer:?}");
    let result = until("the page's result", wait::START, || proxy.results().into_iter().next());
    assert!(result["framesDecoded"].as_f64() >= Some(100.0) && result["marksInOrder"] == true, "{result:#}");
}
