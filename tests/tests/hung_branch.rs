//! The named encoder of a second stream hangs for longer than it is tried anew: it is waited for, and comes back when
//! it can. This file has no other test: see `fake_encoder`.

use rov_common::api::StreamState;
use rov_server::config::EncoderChoice;
use rov_tests::fake_encoder::{self, ELEMENT, Fate};
use rov_tests::http;
use rov_tests::in_process::Serving;
use rov_tests::wait::{self, until_true};
use rov_tests::watcher::Watcher;
use tokio::runtime::Runtime;

/// The first is on trial.
fn fate(made: u32) -> Fate {
    if made == 1 { Fate::Hangs(10) } else { Fate::Works }
}

#[test]
fn a_named_encoder_of_the_second_stream_that_hangs_is_waited_for_and_comes_back() {
    fake_encoder::register(fate);
    let runtime = Runtime::new().expect("a runtime");
    let args = ["--source", "test", "--width", "320", "--height", "240", "--stream2", "160x120@15"];
    let server = Serving::start(&runtime, &args, |config| {
        for (stream, element) in config.cameras[0].streams.iter_mut().zip(["x264enc", ELEMENT]) {
            stream.encode.encoder = EncoderChoice::Element(element.to_owned());
        }
    });
    let second = || http::stats(server.address).streams.remove(1);
    let [pilot, spectator] =
        ["/whep", "/whep/stream2"].map(|path| Watcher::start(&runtime, &["--url", &server.url(path)]));
    pilot.wait_for_shots(1);
    // More often than an encoder is tried that fails.
    until_true("it is tried again and again", 2 * wait::START, || {
        let second = second();
        second.restarts >= 8 && second.reason.is_some_and(|reason| reason.contains("still hangs"))
    });
    let shown = pilot.shown();
    pilot.wait_for_shots(shown + 30);
    fake_encoder::release();
    until_true("it is back", wait::START, || second().state == StreamState::Running);
    let shown = spectator.shown();
    spectator.wait_for_shots(shown + 15);
    // Who has seen nothing for so long may have begun anew.
    assert_eq!((server.stream().restarts, pilot.report().sessions), (0, 1));
    [pilot, spectator].into_iter().for_each(|watcher| watcher.stop(&runtime));
    server.stop(&runtime);
}
