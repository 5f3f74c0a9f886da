//! Cameras with odd habits, by all ways: into the server, and directly into the client.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use rov_common::units::Resolution;
use rov_tests::odd_camera::{Habits, Marks, OddCamera};
use rov_tests::programs::{Client, Server};
use rov_tests::rtp_sender::free_port_pair;
use rov_tests::wait;
use rov_tests::watcher::{Watcher, datagrams_dropped};
use tokio::runtime::Runtime;

/// Waits for pictures, and sees that they are as many as the camera has sent, and not as its slices.
fn counts_pictures(runtime: &Runtime, camera: &OddCamera, most_lost: u64, args: &[&str]) {
    let dropped = datagrams_dropped();
    let watcher = Watcher::start(runtime, args);
    watcher.wait_for_shots(40);
    assert_eq!(watcher.shots()[0].resolution, Resolution::new(320, 240));
    let decoded = watcher.report().frames_decoded;
    let sent = camera.sent();
    assert!(decoded <= sent, "{args:?}: {decoded} pictures of {sent}");
    let report = watcher.report();
    let most_lost = most_lost + datagrams_dropped() - dropped;
    assert!(report.packets_lost <= most_lost && report.sessions == 1, "{most_lost}, {report:?}");
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
        counts_pictures(&runtime, &camera, 0, &["--url", &camera.url]);
        let camera = OddCamera::start(Habits { marks, slices, ..FAST });
        let port = free_port_pair();
        camera.send_rtp(port);
        counts_pictures(&runtime, &camera, 0, &["--rtp-host", "127.0.0.1", "--rtp-port", &port.to_string()]);
    }
}

#[test]
fn an_access_unit_is_one_time_whatever_the_marker_bits_say_in_the_server() {
    let runtime = Runtime::new().expect("a runtime");
    for (marks, slices) in MARKED {
        let camera = OddCamera::start(Habits { marks, slices, ..FAST });
        let server = Server::start(&["--source", "rtsp", "--url", &camera.url]);
        counts_pictures(&runtime, &camera, 0, &["--url", &server.url("/whep")]);
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
    counts_pictures(&runtime, &camera, 0, &["--url", &server.url("/whep")]);
    let sent = camera.sent();
    assert!(server.stats().streams[0].frames <= sent, "{} of {sent}", server.stats().streams[0].frames);
}

/// What the camera does, and what is to be seen of it.
#[derive(Clone, Copy)]
struct Case {
    habits: Habits,
    /// So many kinds of change, which take turns.
    kinds: usize,
    /// Pictures that it sends after each.
    pictures: u64,
    /// Of a hundred of these, so many are shown.
    share: u64,
}

/// No pause in what is shown is this long.
const GAP: Duration = Duration::from_millis(500);
/// Pictures on their way when they are counted.
const UNDER_WAY: u64 = 5;

/// Changes the camera, shows it until it has sent the pictures of the case, and sees that nearly all were shown,
/// without a longer gap or a restart of the source. A machine that is too busy for its pictures leaves some out at any
/// time, or has the source started again; what a change does to them it does each time, so that one round without is
/// enough, of each kind. At no time there is a new session, or a link said to be slow.
fn shows_nearly_all(
    runtime: &Runtime,
    camera: &OddCamera,
    (args, server): (&[&str], Option<&Server>),
    case: Case,
    change: impl Fn(usize),
) {
    const ROUNDS: usize = 8;
    let watcher = Watcher::start(runtime, args);
    watcher.wait_for_shots(20);
    let restarts = || server.map_or(0, |server| server.stats().streams[0].restarts);
    let is_well = |kind: usize| {
        // What was skipped until now came before the first keyframe, or in the round before.
        let (before, sent, late, restarted) = (watcher.shown(), camera.sent(), camera.late(), restarts());
        change(kind);
        wait::until_true("pictures are sent", wait::START, || camera.sent() >= sent + case.pictures);
        let (sent, late, shots) = (camera.sent() - sent, camera.late() - late, watcher.shots());
        let end = Instant::now();
        let restarted = restarts() - restarted;
        let (shown, report) = (shots.len() - before, watcher.report());
        let times = shots[before - 1..].iter().map(|shot| shot.shown_at).chain([end]);
        let times: Vec<_> = times.collect();
        let gap = times.windows(2).map(|pair| pair[1].saturating_duration_since(pair[0])).max().unwrap_or_default();
        eprintln!("{args:?}, {kind}: {shown} of {sent}, {late} sent late, {gap:?} without, {restarted} restarts");
        assert_eq!(report.sessions, 1, "{args:?}: {report:?}");
        let log = server.map(|server| server.process.stderr()).unwrap_or_default();
        assert!(!log.contains("link is slower"), "{log}");
        // What the camera itself sent late may have been too old.
        let least = (sent * case.share / 100).saturating_sub(UNDER_WAY + late);
        shown as u64 >= least && gap < GAP && restarted == 0
    };
    let mut wanting: BTreeSet<_> = (0..case.kinds).collect();
    for kind in (0..case.kinds).cycle().take(ROUNDS * case.kinds) {
        if is_well(kind) {
            wanting.remove(&kind);
        }
        if wanting.is_empty() {
            break;
        }
    }
    assert!(wanting.is_empty(), "{args:?}: no round of {wanting:?} is well: {:?}", watcher.report());
    watcher.stop(runtime);
}

fn directly(runtime: &Runtime, case: Case, change: impl Fn(&OddCamera, usize)) {
    let camera = OddCamera::start(case.habits);
    shows_nearly_all(runtime, &camera, (&["--url", &camera.url], None), case, |kind| change(&camera, kind));
}

fn through_the_server(runtime: &Runtime, case: Case, change: impl Fn(&OddCamera, usize)) {
    let camera = OddCamera::start(case.habits);
    let server = Server::start(&["--source", "rtsp", "--url", &camera.url]);
    let url = server.url("/whep");
    shows_nearly_all(runtime, &camera, (&["--url", &url], Some(&server)), case, |kind| change(&camera, kind));
}

/// By every way at the same time: directly and through the server, by TCP and UDP, and by RTP.
fn by_every_way(case: Case, change: impl Fn(&OddCamera, usize) + Sync) {
    let runtime = Runtime::new().expect("a runtime");
    let (runtime, change) = (&runtime, &change);
    let by_rtp = || {
        let (camera, port) = (OddCamera::start(case.habits), free_port_pair());
        camera.send_rtp(port);
        let args = ["--rtp-host", "127.0.0.1", "--rtp-port", &port.to_string()];
        shows_nearly_all(runtime, &camera, (&args, None), case, |kind| change(&camera, kind));
    };
    std::thread::scope(|ways| {
        for udp in [false, true] {
            let case = Case { habits: Habits { udp, ..case.habits }, ..case };
            ways.spawn(move || directly(runtime, case, change));
            ways.spawn(move || through_the_server(runtime, case, change));
        }
        ways.spawn(by_rtp);
    });
}

/// As in water that becomes dim.
const DIM: Case = Case { habits: Habits::NONE, kinds: 2, pictures: 120, share: 95 };

#[test]
fn a_camera_that_delivers_half_the_pictures_that_it_stamps_is_shown() {
    // Two seconds late after four, and ten at the end: a slow link would be said three times.
    by_every_way(DIM, |camera, _| camera.deliver(12.0));
}

#[test]
fn a_camera_that_delivers_a_few_pictures_less_than_it_stamps_is_shown() {
    // Two seconds late after twelve and a half.
    by_every_way(Case { pictures: 210, ..DIM }, |camera, _| camera.deliver(21.0));
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
            // Of those that come at once the newest may be shown alone.
            let case = Case { habits: Habits { together, ..Habits::NONE }, share: 75, ..DIM };
            ways.spawn(move || directly(runtime, case, dim));
            ways.spawn(move || through_the_server(runtime, case, dim));
        }
    });
}

#[test]
fn time_stamps_that_jump_leave_no_gap() {
    // By turns, so that they do not come ever later. Half a second of a hundred pictures each may be without.
    let case = Case { habits: FAST, kinds: 2, pictures: 100, share: 50 };
    by_every_way(case, |camera, kind| camera.jump([-0.7, 0.7][kind]));
}
