//! WebRTC agents that others wrote, as WHEP viewers: GStreamer's webrtcbin in this process, and those that
//! `scripts/test` gets from PyPI and npm, kept in `target/agents`.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex, PoisonError};

use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_sdp as gst_sdp;
use gstreamer_webrtc::{
    WebRTCICEGatheringState, WebRTCRTPTransceiver, WebRTCRTPTransceiverDirection, WebRTCSDPType,
    WebRTCSessionDescription,
};
use url::Url;

use crate::process::Process;
use crate::skipped;
use crate::{http, wait};

const SDP: &str = "application/sdp";

/// A folder of `target/agents`, if it could be prepared.
fn prepared(name: &str, what: &str) -> Option<PathBuf> {
    let folder = std::env::var_os("ROV_TEST_AGENTS")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/agents"), PathBuf::from);
    let path = folder.join(name);
    path.join(what).exists().then_some(path)
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/agents").join(name)
}

/// aiortc, which watches at `url` until it has decoded so many pictures; none where it cannot be had. With `telemetry`
/// it says what comes by the data channel first, with `hostile` it is one.
pub fn aiortc(url: &str, pictures: usize, channel: Option<&str>) -> Option<Process> {
    let python = prepared("python", "bin/python")?.join("bin/python");
    let has = Command::new(&python).args(["-c", "import aiortc"]).output().is_ok_and(|output| output.status.success());
    let mut command = Command::new(python);
    // It would leave files beside its sources.
    command.env("PYTHONDONTWRITEBYTECODE", "1");
    command.arg(script("viewer.py")).args([url, &pictures.to_string()]).args(channel);
    has.then(|| Process::spawn("aiortc", &mut command))
}

/// A viewer by the npm package of that name, as [`aiortc`].
pub fn npm(package: &str, name: &str, url: &str, pictures: usize, channel: Option<&str>) -> Option<Process> {
    let folder = prepared("npm", &format!("node_modules/{package}"))?;
    let mut probe = Command::new("node");
    probe.args(["-e", "fetch; require(process.argv[1])", package]).current_dir(&folder);
    if !probe.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success()) {
        skipped(&format!("there is no Node.js here that runs {package}"));
        return None;
    }
    let mut command = Command::new("node");
    command.arg(script(name)).args([url, &pictures.to_string()]).args(channel).current_dir(folder);
    Some(Process::spawn(package, &mut command))
}

/// What a webrtcbin viewer offers, and how.
#[derive(Clone, Copy, Debug)]
pub struct Offer {
    /// Of the caps for RTP.
    pub fields: &'static str,
    /// Candidates follow one by one by PATCH.
    pub trickle: bool,
    /// `none` or `max-bundle`.
    pub bundle: &'static str,
    /// Audio stands before the video.
    pub audio: bool,
}

/// GStreamer's webrtcbin, whose ICE is libnice, in this process. Dropping it ends it.
pub struct WebRtcBin {
    pipeline: gst::Pipeline,
    session: Url,
    decoded: Arc<AtomicUsize>,
    pub offer: String,
    pub answer: String,
}

impl WebRtcBin {
    pub fn watch(url: &str, offer: Offer) -> Self {
        gst::init().expect("GStreamer");
        let pipeline = gst::Pipeline::new();
        let webrtc = gst::ElementFactory::make("webrtcbin")
            .property_from_str("bundle-policy", offer.bundle)
            .property("latency", 0_u32)
            .build()
            .expect("webrtcbin");
        pipeline.add(&webrtc).expect("a pipeline");
        let (decoded, target) = (Arc::new(AtomicUsize::new(0)), pipeline.downgrade());
        let count = Arc::clone(&decoded);
        webrtc.connect_pad_added(move |_, pad| {
            if let Some(pipeline) = target.upgrade()
                && pad.direction() == gst::PadDirection::Src
            {
                decode(&pipeline, pad, Arc::clone(&count));
            }
        });
        pipeline.set_state(gst::State::Playing).expect("webrtcbin starts");
        // By itself it leaves loopback out.
        let ice = webrtc.property::<gst::Object>("ice-agent");
        assert!(ice.emit_by_name::<bool>("add-local-ip-address", &[&"127.0.0.1"]), "webrtcbin takes loopback");
        let (candidates, found) = mpsc::channel();
        webrtc.connect("on-ice-candidate", false, move |values| {
            let candidate = values[2].get::<String>().expect("a candidate");
            // The test may have ended.
            let _ = candidates.send(candidate);
            None
        });
        let audio = "media=audio,encoding-name=OPUS,clock-rate=48000,payload=111".to_owned();
        let video = format!("media=video,encoding-name=H264,clock-rate=90000,payload=103{}", offer.fields);
        for section in offer.audio.then_some(audio).into_iter().chain([video]) {
            let caps: gst::Caps = format!("application/x-rtp,{section}").parse().expect("caps");
            let direction = WebRTCRTPTransceiverDirection::Recvonly;
            webrtc.emit_by_name::<WebRTCRTPTransceiver>("add-transceiver", &[&direction, &caps]);
        }
        let mut sdp = describe(&webrtc);
        if !offer.trickle {
            wait::until_true("webrtcbin has its candidates", wait::SOON, || {
                webrtc.property::<WebRTCICEGatheringState>("ice-gathering-state") == WebRTCICEGatheringState::Complete
            });
            let description = webrtc.property::<WebRTCSessionDescription>("local-description");
            sdp = description.sdp().as_text().expect("an SDP");
        }
        let reply = http::request("POST", url, Some(SDP), sdp.as_bytes());
        assert_eq!(reply.status, 201, "{reply:?}\n{sdp}");
        let session = Url::parse(url).and_then(|url| url.join(reply.header("location"))).expect("an address");
        let answer = gst_sdp::SDPMessage::parse_buffer(reply.body.as_bytes()).expect("an SDP");
        let answer = WebRTCSessionDescription::new(WebRTCSDPType::Answer, answer);
        webrtc.emit_by_name::<()>("set-remote-description", &[&answer, &None::<gst::Promise>]);
        if offer.trickle {
            trickle(&session, &sdp, &found);
        }
        Self { pipeline, session, decoded, offer: sdp, answer: reply.body }
    }

    pub fn decoded(&self) -> usize {
        self.decoded.load(Ordering::Relaxed)
    }

    pub fn hang_up(self) {
        assert_eq!(http::request("DELETE", self.session.as_str(), None, b"").status, 200);
    }
}

impl Drop for WebRtcBin {
    fn drop(&mut self) {
        let _ = self.pipeline.set_state(gst::State::Null);
    }
}

/// Its offer, which from then on is its local description.
fn describe(webrtc: &gst::Element) -> String {
    let (found, offer) = mpsc::channel();
    let found = Mutex::new(found);
    let promise = gst::Promise::with_change_func(move |reply| {
        let reply = reply.ok().flatten().and_then(|reply| reply.value("offer").ok());
        let offer = reply.and_then(|value| value.get::<WebRTCSessionDescription>().ok());
        let _ = found.lock().unwrap_or_else(PoisonError::into_inner).send(offer);
    });
    webrtc.emit_by_name::<()>("create-offer", &[&None::<gst::Structure>, &promise]);
    let offer = offer.recv_timeout(wait::SOON).ok().flatten().expect("an offer");
    webrtc.emit_by_name::<()>("set-local-description", &[&offer, &None::<gst::Promise>]);
    offer.sdp().as_text().expect("an SDP")
}

/// Sends what candidates come, up to the first pause.
fn trickle(session: &Url, offer: &str, found: &Receiver<String>) {
    let value = |name: &str| offer.lines().rev().find_map(|line| line.strip_prefix(name)).unwrap_or_default().trim();
    let [ufrag, pwd] = ["a=ice-ufrag:", "a=ice-pwd:"].map(value);
    while let Ok(candidate) = found.recv_timeout(std::time::Duration::from_millis(200)) {
        let fragment = format!(
            "a=ice-ufrag:{ufrag}\r\na=ice-pwd:{pwd}\r\nm=video 9 UDP/TLS/RTP/SAVPF 0\r\na=mid:video0\r\na={candidate}\r\n"
        );
        let reply = http::patch(session.as_str(), "application/trickle-ice-sdpfrag", "*", &fragment);
        assert_eq!(reply.status, 204, "{reply:?}\n{fragment}");
    }
}

fn decode(pipeline: &gst::Pipeline, pad: &gst::Pad, count: Arc<AtomicUsize>) {
    let bin = gst::parse::bin_from_description("rtph264depay ! avdec_h264 ! fakesink name=sink sync=false", true);
    let bin = bin.expect("a decoder");
    let sink = bin.by_name("sink").and_then(|sink| sink.static_pad("sink")).expect("a sink");
    sink.add_probe(gst::PadProbeType::BUFFER, move |_, _| {
        count.fetch_add(1, Ordering::Relaxed);
        gst::PadProbeReturn::Ok
    });
    pipeline.add(&bin).expect("a pipeline");
    bin.sync_state_with_parent().expect("a decoder that starts");
    let target = bin.static_pad("sink").expect("a pad");
    pad.link(&target).expect("pads that fit");
}
