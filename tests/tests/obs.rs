//! OBS Studio.

use rov_tests::obs::Obs;
use rov_tests::programs::Server;
use rov_tests::wait::{self, until};
use rov_tests::{media, namespace};
use serde_json::json;

fn server() -> Server {
    let server = Server::start(&["--rtsp-port", "8554"]);
    server.wait_until_running();
    server
}

/// Waits until it has recorded pictures that were made after `begun`.
fn records(obs: &mut Obs, server: &Server, begun: u64) {
    let marks = until("thirty new pictures are recorded", 2 * wait::START, || {
        assert!(obs.process.is_running(), "OBS ended");
        let mut marks = obs.recorded()?;
        marks.retain(|mark| mark.time_us >= begun);
        (marks.len() >= 30).then_some(marks)
    });
    assert!(media::is_in_order(&marks), "{marks:?}");
    assert_eq!(server.stats().rtsp.map(|rtsp| rtsp.clients), Some(1));
}

#[test]
fn obs_records_a_media_source_by_rtsp_also_after_a_restart_of_the_server() {
    if !namespace::is_inside("obs_records_a_media_source_by_rtsp_also_after_a_restart_of_the_server") {
        return;
    }
    let first = server();
    // What README says, and OBS' own choice for the rest.
    let settings = json!({ "is_local_file": false, "input": first.rtsp, "buffering_mb": 0, "reconnect_delay_sec": 1 });
    let begun = media::unix_us();
    let mut obs = Obs::start(settings);
    records(&mut obs, &first, begun);
    drop(first);
    let begun = media::unix_us();
    records(&mut obs, &server(), begun);
}
