//! The two programs, as a user starts them.

use std::net::{TcpListener, UdpSocket};
use std::process::Command;
use std::time::{Duration, Instant};

use rov_client::discovery;
use rov_common::api::StreamState;
use rov_common::sync::lock;
use rov_tests::process::{Process, binary, program};
use rov_tests::programs::{Client, Server, client_process, free_udp_port, server_process, signalled_server_process};
use rov_tests::wait::{self, until, until_true};
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// What the programs promise for their end.
const END: Duration = Duration::from_secs(5);

/// A server of this name that is found at this port, and nowhere else.
fn server(name: &str, discovery_port: &str) -> Server {
    Server::start(&["--name", name, "--discovery-port", discovery_port])
}

#[test]
fn a_client_finds_the_server_and_shows_its_pictures() {
    let port = free_udp_port().to_string();
    let server = server("Nemo", &port);
    let mut client = Client::start(&["--auto", "--discovery-port", &port, "--duration", "4"]);
    assert_eq!(client.process.wait(wait::START), 0, "--duration is over");
    let report = client.report().expect("--stats-json was written");
    assert_eq!((report.server_name.as_str(), report.server.as_str()), ("Nemo", server.address.to_string().as_str()));
    assert_eq!((report.width, report.height, report.sessions), (320, 240, 1), "{report:?}");
    assert!(report.frames_shown > 20 && report.stamps.read == report.frames_shown, "{report:?}");
    assert_eq!((report.packets_lost, report.stamps.out_of_order), (0, 0), "{report:?}");
    assert!(client.process.stdout().contains("320x240"), "a line of figures each second");
    until_true("the server knows that the viewer has gone", wait::SOON, || server.stats().viewers.is_empty());
}

#[test]
fn a_server_that_is_given_by_its_address_is_known_by_its_name_too() {
    let server = Server::start(&["--name", "Nemo"]);
    let mut client = Client::start(&["--url", &server.url("/whep")]);
    let report = client.wait_for("its name", wait::START, |report| !report.server_name.is_empty());
    assert_eq!((report.server_name.as_str(), report.server), ("Nemo", server.address.to_string()));
}

#[test]
fn a_client_is_back_by_itself_after_the_server_died_and_started_on_another_port() {
    let port = free_udp_port().to_string();
    let mut first = server("Nemo", &port);
    let mut client = Client::start(&["--auto", "--discovery-port", &port]);
    let before = client.wait_for_frames(0, 20);
    assert_eq!(before.server, first.address.to_string());
    first.process.kill();
    let second = server("Nemo", &port);
    assert_ne!(second.address.port(), first.address.port());
    let after = client.wait_for("a second session", wait::START, |r| r.sessions == 2);
    let after = client.wait_for_frames(after.frames_shown, 20);
    assert_eq!((after.server, after.server_id), (second.address.to_string(), before.server_id));
    assert_eq!(after.sessions, 2);
    assert_eq!(client.process.stop(libc::SIGTERM, END), 0);
}

#[test]
fn a_server_that_is_ended_before_it_has_begun_ends_in_order() {
    for signal in [libc::SIGTERM, libc::SIGINT] {
        let mut server = signalled_server_process(signal);
        assert_eq!(server.wait(wait::START), 0);
        server.logs(&["stopping"]);
    }
}

#[test]
fn both_programs_end_cleanly_on_sigterm_and_on_ctrl_c() {
    for signal in [libc::SIGTERM, libc::SIGINT] {
        let mut server = Server::start(&[]);
        let mut client = Client::start(&["--url", &server.url("/whep")]);
        client.wait_for_frames(0, 5);
        assert_eq!(client.process.stop(signal, END), 0);
        assert!(client.process.left_nothing());

        // Now with a viewer that is connected.
        let mut client = Client::start(&["--url", &server.url("/whep")]);
        client.wait_for_frames(0, 5);
        let begun = Instant::now();
        assert_eq!(server.process.stop(signal, END), 0);
        println!("the server ended {:?} after signal {signal}", begun.elapsed());
        assert!(server.process.left_nothing());
        client.wait_for("notices that the server has gone", wait::SOON, |r| r.state != "live");
    }
}

#[test]
fn a_port_that_is_taken_is_named_with_the_option_that_changes_it() {
    let tcp = TcpListener::bind("127.0.0.1:0").expect("a TCP socket");
    let udp = UdpSocket::bind("127.0.0.1:0").expect("a UDP socket");
    let everywhere = UdpSocket::bind("0.0.0.0:0").expect("a UDP socket");
    for (option, port) in [
        ("--signal-port", tcp.local_addr().expect("its address").port()),
        ("--media-port", udp.local_addr().expect("its address").port()),
        ("--discovery-port", everywhere.local_addr().expect("its address").port()),
    ] {
        let mut server = server_process(&[option, &port.to_string()]);
        assert_eq!(server.wait(wait::START), 2, "{option}");
        let message = server.stderr();
        assert!(message.contains(option) && message.contains(&port.to_string()), "{message}");
    }
}

#[test]
fn a_client_that_is_not_to_wait_says_where_it_looked_in_vain() {
    let port = free_udp_port().to_string();
    let args = ["--headless", "--interface", "lo", "--discovery-port", &port, "--discovery-timeout", "0.5"];
    let mut client = client_process(&[&args[..], &["--no-wait"]].concat());
    assert_eq!(client.wait(wait::SOON), 3);
    let message = client.stderr();
    assert!(message.contains("on lo (127.255.255.255)") && message.contains(&port), "{message}");

    let mut list =
        client_process(&["--list", "--interface", "lo", "--discovery-port", &port, "--discovery-timeout", "0.5"]);
    assert_eq!(list.wait(wait::SOON), 3);
    assert!(list.stderr().contains("no server found") && list.stdout().is_empty(), "{}", list.stderr());
}

#[test]
fn wrong_usage_has_exit_code_2_and_a_message_that_names_the_option() {
    for (args, named) in [
        (&["--no-such-option"][..], "--no-such-option"),
        (&["--widht", "640"], "a similar argument exists: '--width'"),
        (&["--fps", "1000"], "--fps"),
        (&["--fps", "fast"], "give frames per second, as 30, 29.97 or 30000/1001"),
        (&["--width", "321", "--height", "240"], "--width"),
        (&["--encoder", "nosuchenc"], "--encoder"),
        (&["--source", "file", "--file", "/nonexistent.mp4"], "/nonexistent.mp4"),
        (&["--pipeline", "videotestsrc ! nosuchelement"], "nosuchelement"),
    ] {
        let mut server = server_process(args);
        assert_eq!(server.wait(wait::START), 2, "{args:?}: {}", server.stderr());
        assert!(server.stderr().contains(named), "{args:?}: {}", server.stderr());
    }
    for (args, named) in [
        (&["--no-such-option"][..], "--no-such-option"),
        (&["--auto", "--host", "127.0.0.1"], "--host"),
        (&["--url", "ftp://127.0.0.1/"], "--url"),
        (&["--headless", "--url", "http://127.0.0.1:9/whep", "--decoder", "nosuchdec"], "nosuchdec"),
    ] {
        let mut client = client_process(args);
        assert_eq!(client.wait(wait::START), 2, "{args:?}: {}", client.stderr());
        assert!(client.stderr().contains(named), "{args:?}: {}", client.stderr());
    }
}

#[test]
fn a_server_takes_its_settings_from_a_file_and_says_what_is_wrong_in_it() {
    let folder = TempDir::new().expect("a temporary folder");
    let path = folder.path().join("rov.toml");
    let file = path.to_str().expect("a path");
    std::fs::write(&path, "name = \"Dory\"\nfps = 5\nalways-encode = true\n").expect("a file");
    let server = Server::start(&["--config", file, "--name", "Nemo"]);
    server.wait_until_running();
    let stats = server.stats();
    assert_eq!((stats.name.as_str(), stats.streams[0].width), ("Nemo", 320), "the command line wins");
    until_true("the frame rate is that of the file", wait::SOON, || {
        (4.0..6.0).contains(&server.stats().streams[0].fps_out)
    });

    let refused = |text: &str, args: &[&str], message: &str| {
        std::fs::write(&path, text).expect("a file");
        let mut server = server_process(&[&["--config", file], args].concat());
        assert_eq!(server.wait(wait::START), 2, "{text}: {}", server.stderr());
        assert!(server.stderr().contains(file) && server.stderr().contains(message), "{text}: {}", server.stderr());
    };
    refused("\nbitrat = 1", &[], "line 2: there is no option \"bitrat\": did you mean bitrate?");
    refused("max-viewers = 0", &[], "rov.toml, line 1: --max-viewers 0: must be at least 1");
    refused("name = \"x\"\n\nfps = 1000", &[], "rov.toml, line 3: --fps 1000: must be from 1 to 240");
    refused("[[camera]]\n[[camera]]\nname = \"cam1\"", &[], "rov.toml, line 3: name: two cameras have the name");
    std::fs::remove_file(&path).expect("the file goes");
    let mut missing = server_process(&["--config", file]);
    assert_eq!(missing.wait(wait::START), 2);
    assert!(missing.stderr().contains(file) && missing.stderr().contains("No such file"), "{}", missing.stderr());
}

#[test]
fn a_file_with_a_camera_and_its_stream_is_checked_and_streamed() {
    let folder = TempDir::new().expect("a temporary folder");
    let path = folder.path().join("rov.toml");
    let file = path.to_str().expect("a path");
    let text = "name = 'Dory'\nuser = 'pilot'\npassword = 'deep'\n[[camera]]\nname = 'nose'\nsource = 'test'\n\
                [[camera.stream]]\nname = 'main'\nwidth = 640\nheight = 360\nbitrate = 900\n";
    std::fs::write(&path, text).expect("a file");
    let check = |args: &[&str]| {
        let output = Command::new(binary("rov-server")).args(args).output().expect("rov-server starts");
        let text = |bytes| String::from_utf8(bytes).expect("text");
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    let (code, said, error) = check(&["--check-config", file, "--fps", "25"]);
    assert_eq!((code, error.as_str()), (Some(0), ""), "{said}");
    for part in [
        "camera nose: test",
        "stream main: H.264, 640x360 at 25 fps, 900 kbit/s, by the first encoder that works",
        "server \"Dory\", announced: HTTP on TCP 0.0.0.0:8080, WebRTC, RTSP on TCP 8554",
        "pilot may watch; pilot may change things",
    ] {
        assert!(said.contains(part), "{part:?} in {said}");
    }

    // The environment is between the two.
    std::fs::write(&path, "user = 'pilot'\npassword = ''").expect("a file");
    let with_password = |password: &str, args: &[&str]| {
        let mut command = Command::new(binary("rov-server"));
        let command = command.args(["--check-config", file]).args(args).env("ROV_PASSWORD", password);
        command.output().expect("rov-server starts").status.code()
    };
    assert_eq!((with_password("deep", &[]), with_password("deep", &["--password", ""])), (Some(0), Some(2)));
    assert_eq!(check(&["--check-config", file]).0, Some(2));

    std::fs::write(&path, text).expect("a file");
    let server = Server::start(&["--config", file, "--view", "open"]);
    until("the stream by its name", wait::START, || {
        let (_, mut health) = server.health();
        health.streams.remove("main").filter(|stream| stream.state == StreamState::Running)
    });
    assert_eq!(server.stats().streams[0].name, "main");

    std::fs::write(&path, format!("{text}level = \"1\"\n")).expect("a file");
    let (code, said, error) = check(&["--check-config", file]);
    assert_eq!((code, said.as_str()), (Some(2), ""), "{error}");
    assert!(
        error.starts_with(&format!("error: {file}, line 12: --level 1: does not allow 640x360 at 30 fps")),
        "{error}"
    );
}

#[test]
fn a_source_that_comes_and_goes_is_said_once_to_stream() {
    let some = "videotestsrc is-live=true num-buffers=5 ! video/x-raw,width=320,height=240,framerate=30/1";
    let server = Server::start(&["--source", "pipeline", "--pipeline", some]);
    until_true("it came back", wait::START, || server.stats().streams[0].restarts >= 3);
    until_true("with pictures", wait::START, || server.process.stderr().contains("streaming "));
    let restarts = server.stats().streams[0].restarts;
    until_true("and again", wait::START, || server.stats().streams[0].restarts >= restarts + 2);
    let log = server.process.stderr();
    for line in ["streaming ", "the source ended; restarting"] {
        assert_eq!(log.matches(line).count(), 1, "{line:?} in {log}");
    }
}

#[test]
fn the_log_of_a_start_is_short_and_says_what_is_streamed_and_where() {
    let mut server =
        Server::start(&["--fps", "29.97", "--encoder", "x264enc", "--user", "pilot", "--password", "deep"]);
    let streaming = "streaming test picture, 320x240 at 29.97 fps, H.264 by x264enc (x264, software) at ";
    server.process.wait_for_line("what it streams", wait::START, |line| line.contains(streaming).then_some(()));
    let log = server.process.stderr();
    let ways = format!("watch at http://{}, WebRTC media on UDP 127.0.0.1:", server.address);
    for part in [ways.as_str(), ", rtsp://127.0.0.1:", "pilot may watch; pilot may change things"] {
        assert!(log.contains(part), "{part:?} in {log}");
    }
    for part in ["0.0.0.0", "not installed", "nvh264enc", "deep", "\u{1b}["] {
        assert!(!log.contains(part), "{part:?} in {log}");
    }
    assert!(log.lines().count() <= 6, "{log}");

    // On all interfaces: an address that another machine can open, where there is one.
    let mut everywhere = Process::spawn("rov-server", &mut {
        let mut command = Command::new(binary("rov-server"));
        command.args([
            "--source",
            "test",
            "--width",
            "320",
            "--height",
            "240",
            "--signal-port",
            "0",
            "--rtsp-port",
            "0",
        ]);
        command.args(["--no-discovery"]).env_remove("RUST_LOG");
        command
    });
    let line = everywhere
        .wait_for_line("its addresses", wait::START, |line| line.contains("http://").then(|| line.to_owned()));
    assert!(!line.contains("0.0.0.0"), "{line}");
}

#[test]
fn an_option_of_other_servers_that_has_no_effect_is_accepted_and_explained() {
    let mut server = Server::start(&["--webrtc-latency", "200"]);
    let line = server.process.wait_for_line("what it does", wait::START, |line| {
        line.contains("--webrtc-latency 200 has no effect").then(|| line.to_owned())
    });
    assert!(line.contains("rov-client --latency"), "{line}");
    server.wait_until_running();
}

#[test]
fn colours_are_for_terminals_that_want_them() {
    program("script", "bsdutils");
    for (no_color, coloured) in [("", true), ("1", false)] {
        // `script` gives it a terminal.
        let line = format!("{} --source test --encoder nosuchenc --no-discovery", binary("rov-server").display());
        let mut command = Command::new("script");
        command.args(["-qec", &format!("{line} --host 127.0.0.1 --signal-port 0 --rtsp-port 0"), "/dev/null"]);
        let output = command.env_remove("RUST_LOG").env("NO_COLOR", no_color).output().expect("script starts");
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.contains("nosuchenc"), "{text}");
        assert_eq!(text.contains("\u{1b}["), coloured, "NO_COLOR={no_color:?}: {text}");
    }
}

#[test]
fn several_servers_are_listed_and_one_is_chosen_by_its_name() {
    let port = free_udp_port().to_string();
    let (nemo, dory) = (server("Nemo", &port), server("Dory", &port));
    for server in [&nemo, &dory] {
        server.wait_until_running();
    }

    let mut list = client_process(&[
        "--list",
        "--json",
        "--interface",
        "lo",
        "--discovery-port",
        &port,
        "--discovery-timeout",
        "2",
    ]);
    assert_eq!(list.wait(wait::SOON), 0, "{}", list.stderr());
    let servers: serde_json::Value = serde_json::from_str(&list.stdout()).expect("JSON on standard output");
    let servers = servers.as_array().expect("an array");
    let address_of = |name| {
        let server =
            servers.iter().find(|server| server["name"] == name).unwrap_or_else(|| panic!("{name} in {servers:?}"));
        assert_eq!((&server["streams"][0]["width"], &server["streams"][0]["height"]), (&320.into(), &240.into()));
        server["address"].as_str().expect("text").to_owned()
    };
    assert_eq!(servers.len(), 2);
    assert_eq!((address_of("Nemo"), address_of("Dory")), (nemo.address.to_string(), dory.address.to_string()));

    let mut undecided = client_process(&["--headless", "--interface", "lo", "--discovery-port", &port]);
    assert_eq!(undecided.wait(wait::SOON), 2);
    let message = undecided.stderr();
    for text in ["--name", "Nemo", "Dory", &nemo.address.to_string(), &dory.address.to_string()] {
        assert!(message.contains(text), "{text:?} in {message}");
    }

    let mut client = Client::start(&["--name", "Dory", "--discovery-port", &port]);
    assert_eq!(client.wait_for_frames(0, 5).server, dory.address.to_string());
    assert!(nemo.stats().viewers.is_empty());
}

#[test]
fn discovery_finds_a_server_at_once() {
    let port = free_udp_port();
    let server = server("Nemo", &port.to_string());
    let runtime = Runtime::new().expect("a runtime");
    let find = || {
        runtime.block_on(async {
            let mut discovery = discovery::bind(port, vec!["lo".to_owned()]).expect("discovery sockets");
            let begun = discovery.begin();
            while lock(discovery.heard()).since(begun).is_empty() && begun.elapsed() < wait::START {
                discovery.hear().await;
            }
            let found = lock(discovery.heard()).since(begun);
            (found, begun.elapsed())
        })
    };
    // On a machine at rest it takes a millisecond; announcements alone would take half a second on average.
    let times = std::iter::repeat_with(|| {
        let (found, elapsed) = find();
        assert_eq!(found.iter().map(|server| server.address).collect::<Vec<_>>(), [server.address]);
        elapsed
    });
    let mut times: Vec<_> = times.take(9).collect();
    times.sort();
    assert!(times[4] < Duration::from_millis(200), "found after {times:?}");
}

#[test]
fn viewers_stay_connected_while_a_pipeline_that_dies_is_restarted() {
    // It gives pictures for a second each time.
    let pipeline =
        "videotestsrc is-live=true ! video/x-raw,width=320,height=240,framerate=30/1 ! identity error-after=30";
    let server = Server::start(&["--pipeline", pipeline]);
    let mut client = Client::start(&["--url", &server.url("/whep")]);
    client.wait_for_frames(0, 1);
    let viewer = server.stats().viewers.remove(0).id;

    for restarts in 1..=2 {
        let (stream, reason) = until("/healthz tells of the restart", wait::START, || {
            let (status, health) = server.health();
            let stream = health.streams["stream1"].clone();
            (status == 503 && stream.state == StreamState::Restarting).then_some((stream.state, stream.reason))
        });
        assert!(reason.as_deref().is_some_and(|reason| reason.contains("identity")), "{stream:?}: {reason:?}");
        let stats = server.stats();
        assert!(stats.streams[0].restarts >= restarts, "{stats:?}");
        assert!(stats.streams[0].reason.is_some(), "{stats:?}");
        server.wait_until_running();
    }
    // More pictures than two lives of the pipeline have, so of each of three, all in one session.
    let report = client.wait_for_frames(0, 61);
    assert_eq!(report.sessions, 1, "{report:?}");
    let viewers = server.stats().viewers;
    assert_eq!((viewers.len(), &viewers[0].id), (1, &viewer));
}

#[test]
fn a_source_that_gives_nothing_for_a_second_is_restarted() {
    // Each picture takes three seconds, whatever the source says.
    let pipeline =
        "videotestsrc is-live=true ! video/x-raw,width=320,height=240,framerate=30/1 ! identity sleep-time=3000000";
    let server = Server::start(&["--pipeline", pipeline]);
    let stream = until("a restart", wait::START, || Some(server.stats().streams.remove(0)).filter(|s| s.restarts > 0));
    let reason = stream.reason.expect("the reason of the restart");
    assert!(reason.contains("gave no picture for 1.0 s"), "{reason}");
}

/// A library that is loaded into a program, and makes the file that `MARK` names when the C libraries clean up.
const LIBRARY: &str = r#"
#include <fcntl.h>
#include <stdlib.h>
__attribute__((constructor)) static void not_of_children(void) { unsetenv("LD_PRELOAD"); }
__attribute__((destructor)) static void clean_up(void) { open(getenv("MARK"), O_CREAT | O_WRONLY, 0600); }
"#;

#[test]
fn the_programs_end_without_the_clean_up_of_libraries_that_other_threads_may_still_load() {
    let folder = TempDir::new().expect("a folder");
    let (source, library, mark) =
        (folder.path().join("library.c"), folder.path().join("library.so"), folder.path().join("mark"));
    std::fs::write(&source, LIBRARY).expect("a folder that can be written");
    let built = Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source).status();
    assert!(built.expect("the C compiler by which Rust links").success());
    let cleans_up = |mut command: Command, stop: bool| {
        let name = command.get_program().to_string_lossy().into_owned();
        let mut process = Process::spawn(&name, command.env("LD_PRELOAD", &library).env("MARK", &mark));
        if stop {
            process.wait_for_line("its log", wait::START, |_| Some(()));
            assert_eq!(process.stop(libc::SIGTERM, END), 0, "{name}");
        } else {
            process.wait(END);
        }
        std::fs::remove_file(&mark).is_ok()
    };
    assert!(cleans_up(Command::new("true"), false), "the library tells it");
    let mut client = Command::new(binary("rov-client"));
    client.args(["--headless", "--url", "http://127.0.0.1:9/whep"]);
    assert!(!cleans_up(client, true));
    let mut server = Command::new(binary("rov-server"));
    server.args([
        "--source",
        "test",
        "--host",
        "127.0.0.1",
        "--signal-port",
        "0",
        "--rtsp-port",
        "0",
        "--no-discovery",
    ]);
    assert!(!cleans_up(server, true));
    let mut refused = Command::new(binary("rov-server"));
    refused.arg("--no-such-option");
    assert!(!cleans_up(refused, false));
}
