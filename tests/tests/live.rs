//! Settings of a running stream that are changed while it is watched: no session ends, and no picture is missing.

use std::time::Duration;

use rov_common::units::{Bitrate, Fps, Resolution};
use rov_server::config::{EncodeConfig, EncoderChoice, Flip, Level, Preset, Profile};
use rov_server::supervisor::change::Applied;
use rov_tests::devtools::DevTools;
use rov_tests::http;
use rov_tests::in_process::Serving;
use rov_tests::rtsp::Player;
use rov_tests::wait::{self, until_true};
use rov_tests::watcher::{Order, Watcher, until_counted};
use tokio::runtime::Runtime;

const ARGS: &[&str] =
    &["--source", "test", "--width", "640", "--height", "360", "--transport", "webrtc,rtsp", "--bitrate", "2000"];

type Setting<'a> = &'a dyn Fn(&mut EncodeConfig);

/// The stream encoded another way; how that was done.
fn change(runtime: &Runtime, server: &Serving, change: impl FnOnce(&mut EncodeConfig)) -> Applied {
    let mut encode = server.cameras[0].camera().streams[0].encode.clone();
    change(&mut encode);
    runtime
        .block_on(server.cameras[0].change(0, encode.clone()))
        .unwrap_or_else(|refused| panic!("{refused}: {encode:?}"))
}

fn x264(encode: &mut EncodeConfig) {
    encode.encoder = EncoderChoice::Element("x264enc".to_owned());
}

#[test]
fn each_setting_is_changed_while_viewers_by_webrtc_and_rtsp_miss_no_picture() {
    let runtime = Runtime::new().expect("a runtime");
    let server = Serving::start(&runtime, ARGS, |config| x264(&mut config.cameras[0].streams[0].encode));
    let stats = || http::stats(server.address);
    let watcher = Watcher::start(&runtime, &["--url", &server.url("/whep")]);
    let rtsp = stats().rtsp.expect("RTSP").urls.remove(0);
    let player = Player::start(&rtsp, "tcp");
    watcher.wait_for_shots(10);
    player.next_shots(10);
    let small = Resolution::new(320, 180);
    let steps: [(&str, Setting, Resolution); 8] = [
        ("size", &|encode| encode.resolution = Some(small), small),
        ("preset", &|encode| encode.preset = Some(Preset::Fast), small),
        ("profile", &|encode| encode.profile = Profile::High, small),
        ("keyframe interval", &|encode| encode.keyframe_interval = Some(Duration::from_millis(500)), small),
        ("level", &|encode| encode.level = "4.1".parse::<Level>().ok(), small),
        ("encoder", &|encode| encode.encoder = EncoderChoice::Element("openh264enc".to_owned()), small),
        ("size", &|encode| encode.resolution = Some(Resolution::new(640, 360)), Resolution::new(640, 360)),
        ("encoder", &x264, Resolution::new(640, 360)),
    ];
    for (what, setting, size) in steps {
        if what == "encoder" {
            // openh264enc has no such presets as x264enc, and the baseline alone.
            change(&runtime, &server, |encode| (encode.profile, encode.preset) = (Profile::Baseline, None));
        }
        let applied = change(&runtime, &server, setting);
        assert_eq!(applied, Applied::NewBranch, "{what}");
        let shown = watcher.shown();
        watcher.wait_for_shots(shown + 20);
        player.next_shots(20);
        until_true(what, wait::SOON, || watcher.shots().last().is_some_and(|shot| shot.resolution == size));
        println!("{what}: {:?}", stats().streams[0].encoder);
    }
    assert_eq!(change(&runtime, &server, |encode| encode.bitrate = Some(Bitrate::from_kbps(800))), Applied::Live);
    let shown = watcher.shown();
    watcher.wait_for_shots(shown + 20);

    let (shots, report) = (watcher.shots(), watcher.report());
    let order = Order::of(&shots);
    let longest = shots.windows(2).map(|two| two[1].shown_at - two[0].shown_at).max();
    println!("{order:?}, the longest without a picture: {longest:?}");
    assert_eq!((order.read, order.out_of_order, report.sessions, report.packets_lost), (shots.len(), 0, 1, 0));
    until_counted(order.missing, &report, stats);
    let frames: Vec<_> = player.shots().iter().filter_map(|shot| Some(shot.stamp?.frame)).collect();
    assert!(frames.windows(2).all(|two| two[0] < two[1]), "by RTSP each picture once, in order: {frames:?}");
    let missing = frames.windows(2).map(|two| u64::from(two[1] - two[0] - 1)).sum();
    until_counted(missing, &report, stats);
    let now = stats();
    assert_eq!((now.streams[0].restarts, now.viewers.len(), now.streams[0].target_bitrate_kbps), (0, 1, 800));

    assert_eq!(runtime.block_on(server.cameras[0].flip(Flip::Half)).expect("a flip"), Applied::Live);
    // The mark is upside down now.
    until_true("turned pictures", wait::SOON, || watcher.shots().last().is_some_and(|shot| shot.frame.is_none()));
    assert_eq!(runtime.block_on(server.cameras[0].flip(Flip::None)).expect("a flip"), Applied::Live);
    until_true("upright pictures", wait::SOON, || watcher.shots().last().is_some_and(|shot| shot.frame.is_some()));
    assert_eq!(watcher.report().sessions, 1);
    drop(player);
    watcher.stop(&runtime);
    server.stop(&runtime);
}

#[test]
fn another_frame_rate_begins_without_a_gap() {
    let runtime = Runtime::new().expect("a runtime");
    let server = Serving::start(&runtime, ARGS, |config| x264(&mut config.cameras[0].streams[0].encode));
    let watcher = Watcher::start(&runtime, &["--url", &server.url("/whep")]);
    watcher.wait_for_shots(10);
    for (fps, step) in [(15, 2), (10, 3), (30, 1)] {
        assert_eq!(change(&runtime, &server, |encode| encode.fps = Some(Fps::whole(fps))), Applied::NewBranch);
        until_true("that rate", wait::START, || {
            let frames: Vec<_> = watcher.shots().iter().rev().take(10).filter_map(|shot| shot.frame).collect();
            frames.len() == 10 && frames.windows(2).filter(|two| two[0] - two[1] == step).count() >= 7
        });
    }
    let order = Order::of(&watcher.shots());
    assert_eq!((order.out_of_order, watcher.report().sessions), (0, 1));
    watcher.stop(&runtime);
    server.stop(&runtime);
}

/// A page that plays shows all that is changed, in the session that it has.
#[test]
fn a_browser_goes_on_playing_in_its_session() {
    let runtime = Runtime::new().expect("a runtime");
    let server = Serving::start(&runtime, ARGS, |config| x264(&mut config.cameras[0].streams[0].encode));
    let mut chromium = DevTools::start();
    let page = chromium.open(&server.url("/"));
    chromium.wait_for(&page, "document.body?.dataset.state === 'live'", wait::START);
    let session = || http::stats(server.address).viewers.into_iter().map(|viewer| viewer.id).collect::<Vec<_>>();
    let before = session();
    let small = Resolution::new(320, 180);
    let steps: [(Setting, u32); 4] = [
        (&|encode| encode.resolution = Some(small), 320),
        (&|encode| (encode.profile, encode.preset) = (Profile::High, Some(Preset::Fast)), 320),
        (&|encode| encode.resolution = Some(Resolution::new(640, 360)), 640),
        (&|encode| encode.keyframe_interval = Some(Duration::from_secs(1)), 640),
    ];
    chromium.evaluate(
        &page,
        "globalThis.gaps = []; globalThis.last = 0; globalThis.look = () => video.requestVideoFrameCallback(now => { \
         if (last) gaps.push(now - last); last = now; look() }); look(); 0",
    );
    for (setting, width) in steps {
        assert_eq!(change(&runtime, &server, setting), Applied::NewBranch);
        chromium.wait_for(&page, &format!("video.videoWidth === {width}"), wait::START);
        chromium.evaluate(&page, "globalThis.from = gaps.length");
        chromium.wait_for(&page, "gaps.length >= from + 20", wait::START);
    }
    println!("the longest without a picture: {} ms", chromium.evaluate(&page, "Math.max(...gaps)"));
    chromium.wait_for(&page, "document.body.dataset.state === 'live'", wait::SOON);
    assert_eq!((session(), http::stats(server.address).streams[0].restarts), (before, 0));
    server.stop(&runtime);
}
