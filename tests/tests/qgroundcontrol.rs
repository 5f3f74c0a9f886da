//! QGroundControl's video, without the rest of it: neither Debian nor PyPI has the program. The pipelines are those of
//! `GstVideoReceiver::_makeSource` and `start` in its `src/VideoManager/VideoReceiver/GStreamer/GstVideoReceiver.cc`
//! (<https://github.com/mavlink/qgroundcontrol>).

use std::time::Duration;

use gstreamer as gst;
use gstreamer::prelude::*;
use rov_client::stats::Report;
use rov_tests::programs::Server;
use rov_tests::rtsp::{Player, defects, latencies};
use rov_tests::watcher::until_counted;
use rov_tests::{media, namespace, wait};

/// What `udpsrc` of the video source "UDP h.264 Video Stream" is told, at its default port.
const UDP: &str = "udpsrc uri=udp://0.0.0.0:5600 caps=\"application/x-rtp, media=(string)video, clock-rate=(int)90000, \
                   encoding-name=(string)H264\"";
/// Its setting "Low Latency Mode" leaves out the buffer, and shows each picture at once.
const BUFFER: &str = " ! rtpjitterbuffer";

/// The receiver with this source, decoding but not recording.
fn receiver(source: &str, low_latency: bool) -> Player {
    let text = format!("{source} ! parsebin name=parser ! tee ! queue ! valve ! decodebin3");
    Player::launch(&text, !low_latency, |pipeline| {
        // `_filterParserCaps`
        pipeline.by_name("parser").expect("it is there").connect("autoplug-query", false, |values| {
            // SAFETY: the signal lends the query, which a copy of it would make read-only.
            let query = unsafe { gst::glib::gobject_ffi::g_value_get_boxed(values[3].as_ptr()) };
            let query = unsafe { gst::QueryRef::from_mut_ptr(query.cast()) };
            let gst::QueryViewMut::Caps(query) = query.view_mut() else { return Some(false.to_value()) };
            let is_h264 = query.filter().is_some_and(|caps| caps.iter().any(|one| one.name() == "video/x-h264"));
            if is_h264 {
                query.set_result(&gst::Caps::builder("video/x-h264").field("stream-format", "avc").build());
            }
            Some(is_h264.to_value())
        });
    })
}

/// That `player` shows live pictures, all of them, and nearly at once beside what its buffer adds.
fn shows(player: &Player, server: &Server, buffered: Duration) {
    let first = player.next_shots(1)[0];
    let shots = player.next_shots(60);
    let (median, worst) = latencies(&shots);
    println!("first after {:?}, latency {median:?}, at worst {worst:?}", first.at.duration_since(player.started));
    let (missing, unread) = defects(&shots);
    assert_eq!(unread, 0);
    until_counted(missing, &Report::default(), || server.stats());
    assert!(median < buffered + Duration::from_secs(1), "{median:?}");
}

#[test]
fn the_source_udp_h264_video_stream_shows_rtp_at_port_5600() {
    if !namespace::is_inside("the_source_udp_h264_video_stream_shows_rtp_at_port_5600") {
        return;
    }
    let args = ["--transport", "webrtc,rtsp,rtp", "--rtp-host", "127.0.0.1", "--rtp-port", "5600"];
    for low_latency in [false, true] {
        let mut server = Server::start(&args);
        server.wait_until_running();
        let buffer = if low_latency { "" } else { BUFFER };
        let player = receiver(&format!("{UDP}{buffer}"), low_latency);
        shows(&player, &server, Duration::from_millis(200));
        // Another server, as after a restart of the vehicle.
        server.process.kill();
        let killed = media::unix_us();
        let again = Server::start(&args);
        again.wait_until_running();
        wait::until_true("pictures of the new server", wait::START, || {
            player.shots().last().and_then(|shot| shot.stamp).is_some_and(|stamp| stamp.time_us > killed)
        });
        shows(&player, &again, Duration::from_millis(200));
    }
}

#[test]
fn the_source_rtsp_video_stream_shows_rtsp() {
    let server = Server::start(&[]);
    server.wait_until_running();
    let url = server.rtsp.as_ref().expect("an RTSP address");
    let source = format!("rtspsrc location={url} latency=17 udp-reconnect=1 timeout=5000000");
    for low_latency in [false, true] {
        shows(&receiver(&source, low_latency), &server, Duration::from_millis(17));
    }
}
