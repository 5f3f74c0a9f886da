//! The settings by HTTP: what they are, and what becomes of a change while somebody watches.

use rov_tests::http;
use rov_tests::programs::Server;
use serde_json::{Value, json};

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
