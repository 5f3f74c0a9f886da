//! What the end-to-end tests need: child processes that never outlive their test, waiting for conditions, an HTTP
//! client, a viewer and an RTSP player in this process, Chromium, and a network that loses packets.
//!
//! Nothing here sends anything beyond loopback, every port is one that the system chose, and every wait has an end.

pub mod agents;
pub mod browser;
pub mod camera;
pub mod devtools;
pub mod events;
pub mod exif;
pub mod fake_encoder;
pub mod flood;
pub mod fuzz;
pub mod http;
pub mod in_process;
pub mod jpeg;
pub mod media;
pub mod namespace;
pub mod obs;
pub mod odd_camera;
pub mod onvif;
pub mod opencv;
pub mod process;
pub mod programs;
pub mod proxy;
pub mod recorded;
pub mod refusing;
pub mod relay;
pub mod rtp;
pub mod rtp_sender;
pub mod rtsp;
pub mod screen;
pub mod sctp;
pub mod sensor;
pub mod vlc;
pub mod wait;
pub mod watcher;

/// The offer of a viewer that receives H.264, from nowhere.
pub const OFFER: &str = "v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0\r\n\
    m=video 9 UDP/TLS/RTP/SAVPF 108\r\nc=IN IP4 0.0.0.0\r\na=recvonly\r\na=mid:0\r\na=rtcp-mux\r\na=setup:actpass\r\n\
    a=ice-ufrag:abcd\r\na=ice-pwd:0123456789012345678901\r\n\
    a=fingerprint:sha-256 00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF:\
    00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF\r\n\
    a=rtpmap:108 H264/90000\r\n\
    a=fmtp:108 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f\r\n";

/// Says that a test does not run on this machine, and why. Straight to standard error, which the test harness does not
/// hide; and as a line, name and reason, into the file that `ROV_TEST_SKIPPED` names, which `scripts/test` counts.
pub fn skipped(why: &str) {
    use std::io::Write;
    let thread = std::thread::current();
    // The harness names each test's thread so, unless it has one thread alone.
    let name = std::env::var("NEXTEST_TEST_NAME").unwrap_or_else(|_| thread.name().unwrap_or("?").to_owned());
    // Nobody may be there to read it.
    let _ = writeln!(std::io::stderr(), "skipped: {name}: {why}");
    if let Some(file) = std::env::var_os("ROV_TEST_SKIPPED") {
        let file = std::fs::OpenOptions::new().append(true).create(true).open(file);
        file.and_then(|mut file| file.write_all(format!("{name}\t{why}\n").as_bytes()))
            .expect("the list of these tests");
    }
}
