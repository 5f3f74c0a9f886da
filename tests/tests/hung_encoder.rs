//! An encoder that works for a while hangs, and does not stop. This file has no other test: see `fake_encoder`.

use rov_common::api::StreamState;
use rov_tests::fake_encoder::{self, ELEMENT, Fate};
use rov_tests::http;
use rov_tests::in_process::Serving;
use rov_tests::wait::{self, until_true};
use rov_tests::watcher::Watcher;
use tokio::runtime::Runtime;

#[test]
fn an_encoder_that_hangs_after_it_worked_is_replaced_and_the_viewer_stays() {
    // The first is on trial.
    fake_encoder::register(|made| if made == 1 { Fate::Hangs(40) } else { Fate::Works });
    let runtime = Runtime::new().expect("a runtime");
    let server = Serving::start(&runtime, &["--source", "test", "--width", "320", "--height", "240"], |_| ());
    let stream = || http::stats(server.address).streams.remove(0);
    let watcher = Watcher::start(&runtime, &["--url", &server.url("/whep")]);
    watcher.wait_for_shots(1);
    assert_eq!(stream().encoder, ELEMENT);
    until_true("the next encoder", wait::START, || {
        let stream = stream();
        stream.state == StreamState::Running && stream.encoder == "x264enc"
    });
    let shown = watcher.shown();
    watcher.wait_for_shots(shown + 30);
    assert_eq!((stream().restarts, watcher.report().sessions), (1, 1));
    watcher.stop(&runtime);
    server.stop(&runtime);
    fake_encoder::release();
}
