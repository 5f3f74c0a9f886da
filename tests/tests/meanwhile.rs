//! What is asked of a stream while one of its encoders is opened or ended, which takes long. This file has no other
//! test: see `fake_encoder`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rov_common::capture_clock::CaptureClock;
use rov_common::codec::Codec;
use rov_common::units::{Fps, Resolution};
use rov_server::config::{Config, EncoderChoice};
use rov_server::config_file;
use rov_server::pipeline::Links;
use rov_server::stream::Stream;
use rov_server::supervisor::{self, change::Applied, change::Handle};
use rov_tests::fake_encoder::{self, ELEMENT, Fate};
use rov_tests::wait::{self, until_true};
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

/// On trial; the one at work; the one that takes over from it, which fails; the one that takes its place; and the one
/// that takes over from that.
fn fate(made: u32) -> Fate {
    match made {
        1 => Fate::EndsLate,
        2 => Fate::FailsWhenTold,
        3 => Fate::OpensLate,
        _ => Fate::Works,
    }
}

#[test]
fn what_is_asked_while_an_encoder_is_opened_or_ended_is_done() {
    fake_encoder::register(fate);
    let args = ["rov-server", "--source", "test", "--width", "320", "--height", "240", "--stream2", "160x120@15"];
    let options = config_file::read(args.iter().map(Into::into)).expect("valid options");
    let mut camera = Config::new(&options).expect("a valid configuration").cameras.remove(0);
    for (stream, element) in camera.streams.iter_mut().zip(["x264enc", ELEMENT]) {
        stream.encode.encoder = EncoderChoice::Element(element.to_owned());
    }
    let runtime = Runtime::new().expect("a runtime");
    let clock = CaptureClock::start();
    let made = ["stream1", "stream2"].map(|name| Stream::new("cam1", name, Codec::H264, clock));
    let streams = made.each_ref().map(|(stream, _)| Arc::clone(stream));
    let _awake = streams.each_ref().map(|stream| stream.demand().keep_awake());
    let (handle, asked) = Handle::new(camera);
    let stop = CancellationToken::new();
    let run = runtime.spawn(supervisor::run(asked, Links::default(), made.into(), stop.clone()));
    let second = || streams[1].stats(Instant::now());
    until_true("pictures", wait::START, || second().frames > 0);

    // The one at work does not end: the other one has taken over all the same, and gives a keyframe when asked.
    let mut encode = handle.camera().streams[1].encode.clone();
    encode.resolution = Some(Resolution::new(80, 60));
    let change = {
        let (handle, encode) = (handle.clone(), encode.clone());
        runtime.spawn(async move { handle.change(1, encode).await })
    };
    let keyframes = second().keyframes;
    until_true("it takes over at a keyframe", wait::START, || second().keyframes > keyframes);
    // It does not hear the first request: it is asked again.
    fake_encoder::miss_next_request();
    let keyframes = second().keyframes;
    streams[1].demand().request_keyframe();
    // By itself x264 makes one each ten seconds.
    until_true("the keyframe that was asked for", Duration::from_secs(5), || second().keyframes > keyframes);
    assert!(fake_encoder::has_missed_request());
    assert_eq!(runtime.block_on(change).expect("no panic").expect("changed"), Applied::NewBranch);
    assert_eq!(second().height, 60);
    fake_encoder::release();
    let unchanged = runtime.block_on(handle.change(1, encode.clone())).expect("once the former one has ended");
    assert_eq!(unchanged, Applied::Unchanged);

    // It fails, and while the next one is being opened another rate is wanted.
    fake_encoder::hold();
    fake_encoder::fail();
    until_true("the next one is being opened", wait::START, || fake_encoder::made() == 4);
    encode.fps = Some(Fps::whole(5));
    let applied = runtime.block_on(handle.change(1, encode.clone())).expect("it is for the next encoder");
    assert_eq!(applied, Applied::AtStart);
    fake_encoder::release();
    until_true("the rate that was wanted", wait::START, || streams[1].status().format().1 == 5.0);
    assert_eq!((second().height, handle.camera().streams[1].encode.clone()), (60, encode));
    stop.cancel();
    runtime.block_on(run).expect("no panic").expect("it ends well");
}
