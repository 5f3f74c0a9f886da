//! `--codec mjpeg`: by RTSP, RTP and HTTP to everything that plays it, and refused in plain words by WebRTC.

use std::path::Path;
use std::process::Command;

use rov_common::codec::jpeg::parse;
use rov_tests::devtools::DevTools;
use rov_tests::process::program;
use rov_tests::programs::{Client, Server, server_process};
use rov_tests::rtp::free_rtp_port;
use rov_tests::wait::{START, until, until_true};
use rov_tests::{http, jpeg};
use tempfile::TempDir;

fn start(args: &[&str]) -> Server {
    let server = Server::start(&[&["--codec", "mjpeg"], args].concat());
    server.wait_until_running();
    server
}

/// Codec, size and number of pictures, of five at most, as ffprobe finds them.
fn probe(options: &[&str], url: &str) -> String {
    let mut ffprobe = Command::new(program("ffprobe", "ffmpeg"));
    ffprobe.args(["-v", "error", "-read_intervals", "%+#5", "-count_packets"]).args(options);
    ffprobe.args(["-show_entries", "stream=codec_name,width,height,nb_read_packets", "-of", "csv=p=0"]);
    let output = ffprobe.arg(url).output().expect("ffprobe starts");
    assert!(output.status.success(), "{url}: {output:?}");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

fn offer() -> String {
    "v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\nm=video 9 UDP/TLS/RTP/SAVPF 96\r\na=recvonly\r\n\
     a=rtpmap:96 H264/90000\r\n"
        .to_owned()
}

#[test]
fn ffprobe_opens_it_by_rtsp_and_by_the_description_of_rtp() {
    let port = free_rtp_port().to_string();
    let rtp = ["--transport", "rtp,rtsp", "--rtp-host", "127.0.0.1", "--interface", "lo", "--rtp-port", &port];
    let server = start(&rtp);
    let rtsp = server.stats().rtsp.expect("RTSP is served").urls.remove(0);
    for transport in ["udp", "tcp"] {
        assert_eq!(probe(&["-rtsp_transport", transport], &rtsp), "mjpeg,320,240,5", "{transport}");
    }
    let sdp = http::get(&server.url("/stream.sdp"));
    assert!(sdp.body.contains(&format!("m=video {port} RTP/AVP 26\r\na=rtpmap:26 JPEG/90000\r\n")), "{sdp:?}");
    let protocols = ["-protocol_whitelist", "file,http,rtp,udp,tcp"];
    assert_eq!(probe(&protocols, &server.url("/stream.sdp")), "mjpeg,320,240,5");
    let stats = server.stats();
    assert_eq!((stats.streams[0].codec.as_str(), stats.streams[0].encoder.as_str()), ("mjpeg", "jpegenc"));
}

#[test]
fn by_http_its_own_pictures_come_at_its_own_rate_and_a_snapshot_is_one_of_them() {
    let server = start(&["--fps", "30"]);
    until_true("a snapshot that is one of the pictures", START, || {
        let mut pictures = jpeg::get(server.address, "/stream.mjpg");
        let snapshot = jpeg::get(server.address, "/snapshot.jpg");
        let captured: f64 = snapshot.header("x-timestamp").parse().expect("a time");
        let snapshot = snapshot.body();
        let scan = parse(&snapshot).expect("a JPEG picture").scan;
        // A busy machine may leave some out.
        let mut parts = std::iter::from_fn(|| pictures.next_part());
        let part = parts.find(|(_, time)| *time >= captured - 1e-6).expect("pictures go on");
        part.0[parse(&part.0).expect("a JPEG picture").scan] == snapshot[scan]
    });
    let mut pictures = jpeg::get(server.address, "/stream.mjpg");
    until_true("two pictures as close as they are made", START, || {
        let [before, after] = [(); 2].map(|()| pictures.next_part().expect("a picture").1);
        after - before < 1.5 / 30.0
    });
    assert_eq!(jpeg::get(server.address, "/stream.mjpg?fps=60").status, 200);
    let refused = jpeg::get(server.address, "/stream.mjpg?fps=61");
    assert_eq!(refused.status, 400);
    assert!(String::from_utf8_lossy(&refused.body()).contains("from 1 to 60"));
}

#[test]
fn webrtc_refuses_it_with_the_way_out() {
    let server = start(&[]);
    let reply = http::request("POST", &server.url("/whep"), Some("application/sdp"), offer().as_bytes());
    assert_eq!((reply.status, reply.json()["mjpeg"].as_bool()), (422, Some(true)), "{reply:?}");
    let rtsp = server.stats().rtsp.expect("RTSP is served").urls.remove(0);
    let way = format!("open http://{}/stream.mjpg?stream=stream1 or {rtsp}", server.address);
    assert_eq!(reply.error(), format!("this stream is MJPEG, which WebRTC does not carry: {way}"));
    let json = serde_json::json!({ "type": "offer", "sdp": offer() }).to_string();
    let reply = http::request("POST", &server.url("/offer"), Some("application/json"), json.as_bytes());
    assert_eq!((reply.status, reply.json()["mjpeg"].as_bool()), (422, Some(true)), "{reply:?}");
}

#[test]
fn a_clip_and_a_recording_of_it_are_read_by_ffprobe() {
    let folder = TempDir::new().expect("a folder");
    let records = folder.path().join("records");
    let place = records.to_str().expect("a path");
    let server = start(&["--ring", "10s", "--record", place]);
    let ring = || server.stats().streams[0].ring.as_ref().map_or(0.0, |ring| ring.seconds);
    until_true("two seconds are kept", 3 * START, || ring() >= 2.0);
    let clip = jpeg::get(server.address, "/api/clip?seconds=1");
    assert_eq!(clip.status, 200, "{clip:?}");
    let file = folder.path().join("clip.mp4");
    std::fs::write(&file, clip.body()).expect("a file");
    assert_eq!(probe(&[], &path(&file)), "mjpeg,320,240,5");
    let recording = until("a recording", START, || {
        let mut all = std::fs::read_dir(&records).ok()?.filter_map(Result::ok).map(|entry| entry.path());
        all.find(|path| path.extension().is_some_and(|kind| kind == "mp4"))
    });
    // Its end is written with it.
    drop(server);
    assert_eq!(probe(&[], &path(&recording)), "mjpeg,320,240,5");
}

#[test]
fn rov_client_shows_it_by_every_way_that_carries_it() {
    let port = free_rtp_port().to_string();
    let rtp = ["--transport", "webrtc,rtp,rtsp", "--rtp-host", "127.0.0.1", "--interface", "lo", "--rtp-port", &port];
    let server = start(&rtp);
    let (whep, rtsp) = (server.url("/whep"), server.stats().rtsp.expect("RTSP is served").urls.remove(0));
    let listens = ["--transport", "rtp", "--rtp-host", "127.0.0.1", "--rtp-port", &port, "--codec", "mjpeg"];
    // By WebRTC it is refused, and comes by what the statistics name beside that.
    // A busy machine may take RTSP, where no RTP has come in time.
    let either = &["rtp", "rtsp"][..];
    for (args, ways) in [(&["--url", &rtsp][..], &["rtsp"][..]), (&listens, &["rtp"]), (&["--url", &whep], either)] {
        let mut client = Client::start(args);
        let report = client.wait_for_frames(0, 30);
        assert_eq!((report.width, report.height), (320, 240), "{report:?}");
        assert!(ways.contains(&report.transport.as_str()), "{report:?}");
        assert!(["jpegdec", "avdec_mjpeg"].contains(&report.decoder.as_str()), "{report:?}");
    }
}

#[test]
fn the_page_shows_it_by_http_and_says_why() {
    let server = start(&[]);
    let mut browser = DevTools::start();
    let page = browser.open(&server.url("/"));
    let shows = "document.body?.dataset.state === 'backup' && document.body.innerText.includes('This stream is MJPEG')";
    browser.wait_for(&page, shows, 2 * START);
    let rate = || server.stats().jpeg.pictures;
    let before = rate();
    until_true("pictures go on", START, || rate() > before + 30);
    // It asks again now and then whether there is a session now, and the pictures go on meanwhile.
    until_true("one viewer", START, || server.stats().jpeg.viewers == 1);
}

fn path(file: &Path) -> String {
    file.to_str().expect("a path").to_owned()
}

#[test]
fn what_it_cannot_be_made_of_or_told_is_refused_at_the_start() {
    for (args, reason) in [
        (&["--source", "stdin"][..], "--source stdin takes H.264 and H.265 alone"),
        (&["--width", "2560", "--height", "1440"], "RTP and RTSP have room for pictures of 2040 pixels a side"),
        (&["--preset", "fast"], "--preset: jpegenc (libjpeg, software) has no setting for it"),
        (&["--keyframe-interval", "2"], "--keyframe-interval: jpegenc (libjpeg, software) has no setting for it"),
    ] {
        let mut server = server_process(&[&["--codec", "mjpeg"], args].concat());
        assert_ne!(server.wait(START), 0, "{args:?}");
        assert!(server.stderr().contains(reason), "{args:?}: {}", server.stderr());
    }
}
