//! A change that was put off while nobody looked, and a camera that fails while it is made and is busy then. This file
//! has no other test: see `fake_encoder`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rov_common::api::StreamState;
use rov_common::capture_clock::CaptureClock;
use rov_common::codec::Codec;
use rov_common::units::Resolution;
use rov_server::config::{Config, EncoderChoice};
use rov_server::config_file;
use rov_server::pipeline::Links;
use rov_server::stream::Stream;
use rov_server::supervisor::{self, change::Applied, change::Handle};
use rov_tests::camera::{Camera, Settings};
use rov_tests::fake_encoder::{self, ELEMENT, Fate};
use rov_tests::refusing::Refusing;
use rov_tests::wait::{self, until_true};
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

const PICTURES: &str = "( videotestsrc is-live=true ! video/x-raw,width=320,height=240,framerate=30/1 \
                        ! x264enc tune=zerolatency speed-preset=ultrafast key-int-max=15 ! rtph264pay name=pay0 )";

/// From now on the next one that is made waits.
static IS_CHANGING: AtomicBool = AtomicBool::new(false);

fn fate(_: u32) -> Fate {
    if IS_CHANGING.load(Ordering::Relaxed) { Fate::OpensLate } else { Fate::Works }
}

#[test]
fn what_was_put_off_is_so_after_the_camera_was_lost_while_it_was_made() {
    fake_encoder::register(fate);
    let settings = Settings { user: Some(("pilot", "deep", true)), tcp_only: true, ..Settings::default() };
    let source = Camera::with(PICTURES, settings);
    let url = format!("rtsp://pilot:deep@127.0.0.1:{}/cam", source.port);
    let args = ["rov-server", "--source", "rtsp", "--url", &url, "--stream2", "160x120@15"];
    let options = config_file::read(args.iter().map(Into::into)).expect("valid options");
    let mut camera = Config::new(&options).expect("a valid configuration").cameras.remove(0);
    let second = &mut camera.streams[1].encode;
    (second.encoder, second.rest_after) = (EncoderChoice::Element(ELEMENT.to_owned()), Duration::ZERO);
    let runtime = Runtime::new().expect("a runtime");
    let clock = CaptureClock::start();
    let made = ["stream1", "stream2"].map(|name| Stream::new("cam1", name, Codec::H264, clock));
    let streams = made.each_ref().map(|(stream, _)| Arc::clone(stream));
    let (handle, asked) = Handle::new(camera);
    let stop = CancellationToken::new();
    let run = runtime.spawn(supervisor::run(asked, Links::default(), made.into(), stop.clone()));
    let stats = || streams.each_ref().map(|stream| stream.stats(Instant::now()));
    until_true("pictures", wait::START, || stats().iter().all(|stream| stream.frames > 0));
    until_true("nobody looks at the second", wait::START, || stats()[1].resting);
    let mut smaller = handle.camera().streams[1].encode.clone();
    smaller.resolution = Some(Resolution::new(80, 60));
    let applied = runtime.block_on(handle.change(1, smaller.clone())).expect("taken");
    assert_eq!(applied, Applied::WhenWatched);

    // Somebody looks, and while the other encoder is being opened, the camera goes.
    let before = fake_encoder::made();
    IS_CHANGING.store(true, Ordering::Relaxed);
    let _looks = streams[1].demand().keep_awake();
    until_true("the other one is being opened", wait::START, || fake_encoder::made() > before);
    IS_CHANGING.store(false, Ordering::Relaxed);
    let port = source.port;
    drop(source);
    until_true("the camera is lost", wait::START, || stats()[0].state == StreamState::Restarting);
    fake_encoder::release();
    // What begins with the change fails by the camera, and not by the change.
    let busy = Refusing::forbidding(port, &["Basic realm=\"cam\""]);
    until_true("it is tried more than once", wait::START, || busy.attempts() > 1);
    drop(busy);
    let _source = Camera::with(PICTURES, Settings { port, ..settings });
    let frames = stats()[1].frames;
    until_true("pictures again", wait::START, || stats()[1].frames > frames);
    until_true("as it was wanted", wait::START, || stats()[1].height == 60);
    assert_eq!(handle.camera().streams[1].encode, smaller);
    // It is at work, and another change is taken.
    smaller.resolution = Some(Resolution::new(160, 120));
    assert_eq!(runtime.block_on(handle.change(1, smaller)).expect("taken"), Applied::NewBranch);
    stop.cancel();
    runtime.block_on(run).expect("no panic").expect("it ends well");
}
