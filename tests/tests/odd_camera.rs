//! Cameras with odd habits, by all ways: into the server, and directly into the client.

use std::time::Duration;

use rov_common::units::Resolution;
use rov_tests::odd_camera::{Habits, Marks, OddCamera};
use rov_tests::programs::{Client, Server};
use rov_tests::rtp_sender::free_port_pair;
use rov_tests::wait;
use rov_tests::watcher::Watcher;
use tokio::runtime::Runtime;

/// Waits for pictures, and sees that they are as many as the camera has sent, and not as its slices.
/// On a busy machine some packets are lost on loopback by UDP.
const BY_UDP: u64 = 8;

fn counts_pictures(runtime: &Runtime, camera: &OddCamera, most_lost: u64, args: &[&str]) {
    let watcher = Watcher::start(runtime, args);
    watcher.wait_for_shots(40);
    assert_eq!(watcher.shots()[0].resolution, Resolution::new(320, 240));
    let decoded = watcher.report().frames_decoded;
    let sent = camera.sent();
    assert!(decoded <= sent, "{args:?}: {decoded} pictures of {sent}");
    let report = watcher.report();
    assert!(report.packets_lost <= most_lost && report.sessions == 1, "{report:?}");
    watcher.stop(runtime);
}

/// So that the tests do not take long.
const FAST: Habits = Habits { stamped: 100.0, delivered: 100.0, ..Habits::NONE };

const MARKED: [(Marks, u32); 4] =
    [(Marks::EveryNal, 4), (Marks::ParameterSets, 4), (Marks::EveryNal, 1), (Marks::Never, 4)];

#[test]
fn an_access_unit_is_one_time_whatever_the_marker_bits_say_in_the_client() {
    let runtime = Runtime::new().expect("a runtime");
    for (marks, slices) in MARKED {
        let camera = OddCamera::start(Habits { marks, slices, ..FAST });
        counts_pictures(&runtime, &camera, 0, &["--url", &camera.url]);
        let camera = OddCamera::start(Habits { marks, slices, udp: true, ..FAST });
        counts_pictures(&runtime, &camera, BY_UDP, &["--url", &camera.url]);
        let camera = OddCamera::start(Habits { marks, slices, ..FAST });
        let port = free_port_pair();
        camera.send_rtp(port);
        counts_pictures(&runtime, &camera, BY_UDP, &["--rtp-host", "127.0.0.1", "--rtp-port", &port.to_string()]);
    }
}

#[test]
fn an_access_unit_is_one_time_whatever_the_marker_bits_say_in_the_server() {
    let runtime = Runtime::new().expect("a runtime");
    for (marks, slices) in MARKED {
        let camera = OddCamera::start(Habits { marks, slices, ..FAST });
        let server = Server::start(&["--source", "rtsp", "--url", &camera.url]);
        counts_pictures(&runtime, &camera, BY_UDP, &["--url", &server.url("/whep")]);
        let stream = &server.stats().streams[0];
        let sent = camera.sent();
        assert!(stream.restarts == 0 && stream.frames <= sent, "{marks:?}: {} of {sent}", stream.frames);
    }
}

#[test]
fn in_a_users_pipeline_an_access_unit_is_one_time_too() {
    let camera = OddCamera::start(Habits { marks: Marks::EveryNal, slices: 4, ..FAST });
    let pipeline = format!("rtspsrc location={} protocols=tcp latency=0 ! rtph264depay ! h264parse", camera.url);
    let server = Server::start(&["--pipeline", &pipeline]);
    let runtime = Runtime::new().expect("a runtime");
    counts_pictures(&runtime, &camera, BY_UDP, &["--url", &server.url("/whep")]);
    let sent = camera.sent();
    assert!(server.stats().streams[0].frames <= sent, "{} of {sent}", server.stats().streams[0].frames);
}

/// Changes the camera, shows it until it has sent `pictures`, and sees that nearly all were shown, in one session,
/// without a longer gap or a restart of the source. A machine that is too busy for its pictures leaves some out at any
/// time, or has the source started again; what a change does to them it does each time, so that one round without is
/// enough.
fn shows_nearly_all(
    runtime: &Runtime,
    camera: &OddCamera,
    (args, restarts): (&[&str], &dyn Fn() -> u64),
    pictures: u64,
    change: impl Fn(usize),
) {
    const ROUNDS: usize = 8;
    let watcher = Watcher::start(runtime, args);
    watcher.wait_for_shots(20);
    let mut rounds = (0..ROUNDS).map(|round| {
        // What was skipped until now came before the first keyframe, or in the round before.
        let (before, sent, late, restarted) = (watcher.report(), camera.sent(), camera.late(), restarts());
        change(round);
        wait::until_true("pictures are sent", wait::START, || camera.sent() >= sent + pictures);
        // Some are on their way.
        let all = (camera.sent() - sent) * 9 / 10;
        wait::until_true("nearly all are shown", wait::START, || {
            watcher.report().frames_decoded >= before.frames_decoded + all
        });
        let report = watcher.report();
        // Half a second of them, or two groups of pictures: what two delays on a busy machine cost, as the client goes
        // on at a keyframe. What the camera itself sent late may have been too old.
        let late = camera.late() - late;
        let few = (camera.rate() / 2).max(2 * camera.group()) + late;
        let skipped = report.frames_skipped - before.frames_skipped;
        assert_eq!(report.sessions, 1, "{args:?}: {report:?}");
        let restarted = restarts() - restarted;
        eprintln!("{args:?}: {skipped} skipped, {late} sent late, {restarted} restarts");
        skipped <= few && restarted == 0
    });
    assert!(rounds.any(|is_well| is_well), "{args:?}: {:?}", watcher.report());
    watcher.stop(runtime);
}

fn directly(runtime: &Runtime, habits: Habits, pictures: u64, change: impl Fn(&OddCamera, usize)) {
    let camera = OddCamera::start(habits);
    let way = (&["--url", &camera.url][..], &(|| 0_u64) as &dyn Fn() -> u64);
    shows_nearly_all(runtime, &camera, way, pictures, |round| change(&camera, round));
}

fn through_the_server(runtime: &Runtime, habits: Habits, pictures: u64, change: impl Fn(&OddCamera, usize)) {
    let camera = OddCamera::start(habits);
    let server = Server::start(&["--source", "rtsp", "--url", &camera.url]);
    let url = server.url("/whep");
    let way = (&["--url", &url][..], &(|| server.stats().streams[0].restarts) as &dyn Fn() -> u64);
    shows_nearly_all(runtime, &camera, way, pictures, |round| change(&camera, round));
}

/// By every way at the same time: directly and through the server, by TCP and UDP, and by RTP.
fn by_every_way(habits: Habits, pictures: u64, change: impl Fn(&OddCamera, usize) + Sync) {
    let runtime = Runtime::new().expect("a runtime");
    let (runtime, change) = (&runtime, &change);
    let by_rtp = || {
        let (camera, port) = (OddCamera::start(habits), free_port_pair());
        camera.send_rtp(port);
        let args = ["--rtp-host", "127.0.0.1", "--rtp-port", &port.to_string()];
        let way = (&args[..], &(|| 0_u64) as &dyn Fn() -> u64);
        shows_nearly_all(runtime, &camera, way, pictures, |round| change(&camera, round));
    };
    std::thread::scope(|ways| {
        for udp in [false, true] {
            let habits = Habits { udp, ..habits };
            ways.spawn(move || directly(runtime, habits, pictures, change));
            ways.spawn(move || through_the_server(runtime, habits, pictures, change));
        }
        ways.spawn(by_rtp);
    });
}

#[test]
fn a_camera_that_delivers_fewer_pictures_than_it_stamps_is_shown() {
    // Two seconds late after four, so that a slow link would be said after seven.
    by_every_way(Habits::default(), 120, |camera, _| camera.deliver(12.0));
}

/// Viewers could not see it by what they get from the server.
#[test]
fn after_a_packet_of_a_camera_was_lost_the_server_goes_on_at_the_next_keyframe() {
    let camera = OddCamera::start(Habits { udp: true, ..Habits::default() });
    let server = Server::start(&["--source", "rtsp", "--url", &camera.url]);
    camera.loses_packets(&server);
}

#[test]
fn after_a_packet_for_a_users_pipeline_was_lost_the_server_goes_on_at_the_next_keyframe() {
    for end in ["h264parse", "avdec_h264 ! videoconvert"] {
        let (camera, port) = (OddCamera::start(Habits { slices: 4, ..Habits::default() }), free_port_pair());
        camera.send_rtp(port);
        let caps = "application/x-rtp,media=video,encoding-name=H264,clock-rate=90000";
        let pipeline = format!("udpsrc port={port} ! {caps} ! rtph264depay ! {end}");
        let server = Server::start(&["--pipeline", &pipeline]);
        // Otherwise the encoder rests.
        let mut viewer = Client::start(&["--url", &server.url("/whep")]);
        viewer.wait_for_frames(0, 10);
        camera.loses_packets(&server);
    }
}

/// Its keyframes are 20 s apart.
const RARE: Habits = Habits { udp: true, group: 500, ..Habits::NONE };

/// Loses a packet, and waits for pictures behind it.
fn loses_one(camera: &OddCamera, server: &Server) {
    let stream = || server.stats().streams.remove(0);
    let before = stream();
    camera.lose_next();
    wait::until_true("pictures are left out", wait::SOON, || stream().frames_damaged > before.frames_damaged);
    let since = stream();
    wait::until_true("pictures again", Duration::from_secs(10), || stream().frames >= since.frames + 10);
}

#[test]
fn after_a_loss_a_camera_with_rare_keyframes_is_asked_for_one() {
    let camera = OddCamera::start(Habits { answers: true, ..RARE });
    let server = Server::start(&["--source", "rtsp", "--url", &camera.url]);
    server.wait_until_running();
    (0..3).for_each(|_| loses_one(&camera, &server));
    assert_eq!(server.stats().streams[0].restarts, 0);
    drop(server);
    let runtime = Runtime::new().expect("a runtime");
    let watcher = Watcher::start(&runtime, &["--url", &camera.url]);
    watcher.wait_for_shots(20);
    for _ in 0..3 {
        let lost = watcher.report().packets_lost;
        camera.lose_next();
        wait::until_true("a packet is lost", wait::SOON, || watcher.report().packets_lost > lost);
        watcher.wait_for_shots(watcher.shown() + 10);
    }
    assert_eq!(watcher.report().sessions, 1);
    watcher.stop(&runtime);
}

#[test]
fn after_a_loss_a_camera_that_makes_no_keyframe_when_asked_is_played_by_tcp() {
    let camera = OddCamera::start(RARE);
    let server = Server::start(&["--source", "rtsp", "--url", &camera.url]);
    server.wait_until_running();
    // By TCP nothing is lost any more.
    loses_one(&camera, &server);
    server.process.logs(&["starting a new session with it, by TCP"]);
    camera.lose_next();
    let since = server.stats().streams.remove(0);
    wait::until_true("pictures go on", wait::SOON, || server.stats().streams[0].frames >= since.frames + 50);
    let stream = server.stats().streams.remove(0);
    assert_eq!((stream.restarts, stream.frames_damaged), (1, since.frames_damaged));
}

#[test]
fn after_a_loss_a_camera_without_tcp_begins_a_new_session_by_udp() {
    let camera = OddCamera::start(Habits { tcp: false, ..RARE });
    let server = Server::start(&["--source", "rtsp", "--url", &camera.url]);
    server.wait_until_running();
    loses_one(&camera, &server);
    server.process.logs(&["taking UDP again"]);
}

/// By TCP, once it is seen to be a habit.
#[test]
fn numbers_of_packets_that_are_left_out_by_tcp_are_no_loss() {
    let runtime = Runtime::new().expect("a runtime");
    let camera = OddCamera::start(Habits { unused: 1, ..FAST });
    // Of them, eight are taken for lost first.
    counts_pictures(&runtime, &camera, 8, &["--url", &camera.url]);
    let pipeline = format!("rtspsrc location={} protocols=tcp latency=0 ! rtph264depay ! h264parse", camera.url);
    for source in [&["--source", "rtsp", "--url", &camera.url][..], &["--pipeline", &pipeline]] {
        let server = Server::start(source);
        server.wait_until_running();
        let more_pictures = || {
            let frames = server.stats().streams[0].frames;
            wait::until_true("pictures go on", wait::SOON, || server.stats().streams[0].frames >= frames + 50);
        };
        more_pictures();
        let damaged = server.stats().streams[0].frames_damaged;
        for by in [3_000, 40_000] {
            camera.jump_numbers(by);
            more_pictures();
        }
        let stream = &server.stats().streams[0];
        assert_eq!((stream.restarts, stream.frames_damaged), (0, damaged), "{source:?}: {stream:?}");
    }
}

#[test]
fn while_a_keyframe_is_waited_for_the_reason_is_told() {
    let camera = OddCamera::start(Habits { udp: true, ..Habits::default() });
    let server = Server::start(&["--source", "rtsp", "--url", &camera.url]);
    server.wait_until_running();
    camera.lose_keyframes(true);
    let reason = "packets of the source were lost on their way to this machine: waiting for its next keyframe, for";
    let mut client = Client::start(&["--url", &server.url("/whep")]);
    wait::until_true("the reason in /healthz", wait::START, || {
        let (status, health) = server.health();
        status == 503 && health.streams.into_values().any(|stream| stream.reason.is_some_and(|it| it.contains(reason)))
    });
    client.process.logs(&[reason]);
    server.process.logs(&["waiting for its next keyframe; "]);
    camera.lose_keyframes(false);
    server.wait_until_running();
    client.wait_for_frames(0, 10);
    assert_eq!(server.stats().streams[0].restarts, 0);
}

/// By TCP alone, where it can be told from a slow link.
#[test]
fn a_camera_that_sends_pictures_in_groups_and_fewer_than_it_stamps_is_shown() {
    let runtime = &Runtime::new().expect("a runtime");
    let dim = |camera: &OddCamera, _| camera.deliver(12.0);
    std::thread::scope(|ways| {
        for together in [2, 3] {
            let habits = Habits { together, ..Habits::default() };
            ways.spawn(move || directly(runtime, habits, 120, dim));
            ways.spawn(move || through_the_server(runtime, habits, 120, dim));
        }
    });
}

#[test]
fn time_stamps_that_jump_leave_no_gap() {
    for jump in [-0.7, 0.7] {
        // Back again, so that they do not come ever later.
        by_every_way(FAST, 60, |camera, round| camera.jump(if round % 2 == 0 { jump } else { -jump }));
    }
}
