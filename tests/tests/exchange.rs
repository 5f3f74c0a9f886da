//! Settings of a stream whose encoder works once only, as hardware that encodes one stream: it is ended before the next
//! one begins, and put in again where that does not work. This file has no other test: see `fake_encoder`.

use rov_common::units::Resolution;
use rov_server::config::EncoderChoice;
use rov_server::supervisor::change::Applied;
use rov_tests::fake_encoder::{self, ELEMENT, Fate};
use rov_tests::http;
use rov_tests::in_process::Serving;
use rov_tests::wait::{self, until_true};
use rov_tests::watcher::Watcher;
use tokio::runtime::Runtime;

/// On trial; at work; the next one beside it, which is refused; one as before beside it, likewise; the next one alone.
/// Then the same again, of which the last one fails, and the one of before.
fn fate(made: u32) -> Fate {
    if made == 7 { Fate::Fails(0) } else { Fate::Alone }
}

#[test]
fn an_encoder_that_works_once_only_is_ended_before_the_next_begins_and_its_viewer_stays() {
    fake_encoder::register(fate);
    let runtime = Runtime::new().expect("a runtime");
    let server = Serving::start(&runtime, &["--source", "test", "--width", "640", "--height", "360"], |config| {
        config.cameras[0].streams[0].encode.encoder = EncoderChoice::Element(ELEMENT.to_owned());
    });
    let watcher = Watcher::start(&runtime, &["--url", &server.url("/whep")]);
    watcher.wait_for_shots(10);
    let [small, smaller] = [Resolution::new(320, 180), Resolution::new(160, 90)];
    for (size, is_made) in [(small, true), (smaller, false)] {
        let mut encode = server.cameras[0].camera().streams[0].encode.clone();
        encode.resolution = Some(size);
        let result = runtime.block_on(server.cameras[0].change(0, encode));
        match result {
            Ok(applied) => assert!(is_made && applied == Applied::NewBranch, "{applied:?}"),
            Err(refused) => assert!(!is_made && refused.to_string().contains("what was before goes on"), "{refused}"),
        }
        let shown = watcher.shown();
        watcher.wait_for_shots(shown + 20);
        until_true("its size", wait::SOON, || watcher.shots().last().is_some_and(|shot| shot.resolution == small));
    }
    assert_eq!((watcher.report().sessions, http::stats(server.address).streams[0].restarts), (1, 0));
    watcher.stop(&runtime);
    server.stop(&runtime);
}
