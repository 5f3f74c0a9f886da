//! OBS Studio.

use rov_tests::obs::Obs;
use rov_tests::programs::Server;
use rov_tests::wait::{self, until_true};
use rov_tests::{media, namespace};
use serde_json::json;

#[test]
fn obs_records_a_media_source_by_rtsp() {
    if !namespace::is_inside("obs_records_a_media_source_by_rtsp") {
        return;
    }
    let server = Server::start(&[]);
    server.wait_until_running();
    let begun = media::unix_us();
    // What README says, and OBS' own choice for the rest.
    let source = json!({ "is_local_file": false, "input": server.rtsp, "buffering_mb": 0 });
    let mut obs = Obs::start(source);
    let mut marks = Vec::new();
    until_true("thirty pictures are recorded", 2 * wait::START, || {
        assert!(obs.process.is_running(), "OBS ended");
        marks = obs.recorded();
        marks.len() >= 30
    });
    assert!(media::is_live(&marks, begun), "since {begun}: {marks:?}");
    assert_eq!(server.stats().rtsp.map(|rtsp| rtsp.clients), Some(1));
}
