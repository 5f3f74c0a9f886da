//! The settings by HTTP: what they are, and what becomes of a change while somebody watches.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;

use rov_tests::programs::Server;
use rov_tests::{http, wait};
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

/// Follows `/api/events`.
struct Follower(BufReader<TcpStream>);

impl Follower {
    fn start(server: &Server) -> Self {
        let mut connection = TcpStream::connect(server.address).expect("a connection");
        connection.set_read_timeout(Some(wait::START)).expect("a limit");
        let request = format!("GET /api/events HTTP/1.1\r\nHost: {}\r\n\r\n", server.address);
        connection.write_all(request.as_bytes()).expect("a request");
        Self(BufReader::new(connection))
    }

    /// The next line that begins so, without that.
    fn line(&mut self, begin: &str) -> Option<String> {
        let mut line = String::new();
        while self.0.read_line(&mut line).expect("an event in time") > 0 {
            if let Some(rest) = line.strip_prefix(begin) {
                return Some(rest.trim().to_owned());
            }
            line.clear();
        }
        None
    }

    /// The next event of this name for which `wanted` is true.
    fn wait_for(&mut self, name: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        loop {
            let event = self.line("event: ").unwrap_or_else(|| panic!("no {name}"));
            let data = self.line("data: ").expect("its data");
            let data = serde_json::from_str(&data).unwrap_or_else(|error| panic!("{data}: {error}"));
            if event == name && wanted(&data) {
                return data;
            }
        }
    }
}

#[test]
fn events_tell_how_the_stream_is_and_end_with_the_server() {
    let mut server = Server::start(&[]);
    server.wait_until_running();
    let mut follower = Follower::start(&server);
    assert_eq!(follower.line("content-type: ").as_deref(), Some("text/event-stream"));
    let of_stream =
        |event: &Value| (event["stream"].as_str(), event["camera"].as_str()) == (Some("stream1"), Some("cam1"));
    let first = follower.wait_for("state", of_stream);
    assert_eq!((&first["state"], &first["reason"]), (&json!("running"), &Value::Null));
    // Nobody looks: the encoder rests.
    follower.wait_for("state", |event| event["resting"] == json!(true));
    let _places: Vec<_> = (0..31)
        .map(|_| {
            let mut other = Follower::start(&server);
            other.wait_for("state", of_stream);
            other
        })
        .collect();
    let refused = http::get(&server.url("/api/events"));
    assert!(refused.status == 503 && refused.error().contains("32 readers"), "{refused:?}");
    assert_eq!(server.process.stop(libc::SIGTERM, wait::SOON), 0);
    assert_eq!(follower.line("event: "), None, "it ends well");
}
