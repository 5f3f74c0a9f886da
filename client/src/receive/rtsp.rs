//! Receiving by RTSP, from any camera or server: GStreamer's `rtspsrc`, which tries UDP first and TCP where that is
//! blocked. Beside `decode` the only client-side GStreamer code, and nothing of GStreamer is seen outside.
//!
//! Its jitter buffer puts packets in order and waits at gaps only. The first H.264 or H.265 video of the camera is
//! taken; sound and metadata are not asked for.

pub mod parameter_sets;

use std::iter;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use gstreamer as gst;
use gstreamer::glib;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;
use gstreamer_video as gst_video;
pub use rov_common::camera::{CameraUrl as Camera, Credentials, Trust};
use rov_common::challenge::unknown_digest_advice;
use rov_common::codec::Codec;
use rov_common::latency_mode::LatencyMode;
use rov_common::lateness::Received;
use rov_common::marker::{self, Markers};
use rov_common::sync::lock;
use rov_gst::rtspsrc;
use thiserror::Error;
use tokio::sync::{mpsc, watch};

use self::parameter_sets::ParameterSets;
use super::packet::Packet;
use super::reports::SenderClock;
use super::{ConnectError, LinkState, OnCodec, OnPackets, PAYLOAD_TYPE, Transport};
use crate::limit::within;

/// A firewall that swallows UDP costs this much, and then TCP is used.
const UDP_TIMEOUT: Duration = Duration::from_millis(1500);
const TCP_TIMEOUT: Duration = Duration::from_secs(5);
/// From the start to the first packet: connecting, UDP in vain, then TCP.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);
/// A camera that is gone does not answer the goodbye.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);
/// Who waits for longer has a link that mixes up what it carries.
const ORDERLY: Duration = LatencyMode::Low.longest_wait();
/// The jitter buffer counts from a packet that was quick, the server's own delays included.
const MARGIN: Duration = Duration::from_millis(300);
/// As for the other sockets for media.
const UDP_BUFFER: &str = "4194304";

#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RtspError {
    #[error(
        "{address} wants a user name and a password: give --user, and the password by the variable ROV_PASSWORD or \
         --password"
    )]
    NoPassword { address: String },
    #[error(
        "{address} refused the user name or the password: correct --user and --password (or the variable \
         ROV_PASSWORD), or what stands in --url"
    )]
    WrongPassword { address: String },
    #[error(
        "{address} refused the user name or the password (403), or has as many viewers as it takes: correct --user and \
         --password (or the variable ROV_PASSWORD), or what stands in --url"
    )]
    Forbidden { address: String },
    #[error("{address} {}", unknown_digest_advice(.algorithm))]
    UnknownDigest { address: String, algorithm: String },
    #[error("{address}: {}", Trust::advice(.fingerprint))]
    NotTrusted { address: String, fingerprint: String },
    #[error("{address} has nothing at {path} (404): is the path right?")]
    NotFound { address: String, path: String },
    #[error("{address} does not answer by RTSP: {reason}")]
    NoAnswer { address: String, reason: String },
    #[error(
        "{address} has no H.264, H.265 or MJPEG video at {path}, only {found}: choose one of them in the camera's \
         settings"
    )]
    NoVideo { address: String, path: String, found: String },
    #[error(
        "the link to {address} is slower than its stream, pictures came {seconds} s late: choose a lower bit rate in \
         the camera's settings"
    )]
    Late { address: String, seconds: u64 },
    #[error("RTSP from {address} failed: {reason}")]
    Other { address: String, reason: String },
    #[error("GStreamer element {0} is missing; install the GStreamer 'good' plugins (gstreamer1.0-plugins-good)")]
    MissingElement(&'static str),
}

impl RtspError {
    /// Cameras lock out whoever tries a wrong password again and again. `was_right`: it was taken before.
    pub fn is_denied(&self, was_right: bool) -> bool {
        match self {
            Self::WrongPassword { .. } | Self::UnknownDigest { .. } => true,
            Self::Forbidden { .. } => !was_right,
            _ => false,
        }
    }

    /// Trying again cannot help. `was_right`: the password was taken before.
    pub fn is_final(&self, was_right: bool) -> bool {
        self.is_denied(was_right)
            || matches!(
                self,
                Self::NoPassword { .. } | Self::NotTrusted { .. } | Self::NoVideo { .. } | Self::MissingElement(_)
            )
    }
}

/// A stream that plays. End it by [`Player::close`].
pub struct Player {
    pipeline: gst::Pipeline,
    ended: watch::Receiver<Option<RtspError>>,
    /// By what media comes, once it does.
    over: &'static str,
    keyframes: tokio::task::JoinHandle<()>,
}

/// What the callbacks share.
struct Shared {
    camera: Camera,
    trust: Trust,
    ended: watch::Sender<Option<RtspError>>,
    playing: watch::Sender<bool>,
    on_codec: OnCodec,
    on_packets: OnPackets,
    sets: Mutex<ParameterSets>,
    clock: Mutex<SenderClock>,
    media: Mutex<Media>,
    /// The fingerprint of the certificate that was not taken.
    untrusted: Mutex<Option<String>>,
    /// By TCP: the connection is seen to be empty again and again.
    link_runs_empty: Arc<AtomicBool>,
}

impl Shared {
    /// The first error is the cause, the others follow from it.
    fn end(&self, error: RtspError) {
        self.ended.send_if_modified(|ended| {
            let is_first = ended.is_none();
            ended.get_or_insert(error);
            is_first
        });
    }
}

/// What the camera has.
#[derive(Default)]
struct Media {
    /// For people.
    found: Vec<String>,
    /// Number and codec of the one that is taken.
    chosen: Option<(u32, Codec)>,
}

impl Player {
    /// Plays `camera`, and waits for its first packet. A packet that is missing is waited for during `latency`.
    pub async fn open(
        camera: &Camera,
        trust: Trust,
        latency: Duration,
        mut keyframe_wanted: mpsc::Receiver<()>,
        on_codec: OnCodec,
        on_packets: OnPackets,
    ) -> Result<Self, ConnectError> {
        let (ended_tx, ended) = watch::channel(None);
        let (playing, mut plays) = watch::channel(false);
        let shared = Arc::new(Shared {
            camera: camera.clone(),
            trust,
            ended: ended_tx,
            playing,
            on_codec,
            on_packets,
            sets: Mutex::new(ParameterSets::new(Codec::H264, &[])),
            clock: Mutex::default(),
            media: Mutex::default(),
            untrusted: Mutex::default(),
            link_runs_empty: Arc::default(),
        });
        let (pipeline, output) = build(&shared, latency)?;
        let keyframes = tokio::spawn(async move {
            while keyframe_wanted.recv().await.is_some() {
                // By RTCP.
                let request = gst_video::UpstreamForceKeyUnitEvent::builder().all_headers(true).build();
                if let Some(pad) = output.static_pad("sink") {
                    pad.push_event(request);
                }
            }
        });
        let mut player = Self { pipeline, ended, over: "", keyframes };
        let _ = player.pipeline.set_state(gst::State::Playing);
        let first = tokio::select! {
            error = player.error() => Err(error),
            waited = tokio::time::timeout(OPEN_TIMEOUT, plays.wait_for(|plays| *plays)) => match waited {
                Ok(Ok(_)) => Ok(()),
                _ => {
                    let reason = format!("no video within {} s", OPEN_TIMEOUT.as_secs());
                    Err(RtspError::NoAnswer { address: camera.address(), reason })
                }
            },
        };
        match first {
            Ok(()) => {
                if rtspsrc::has_udp(player.pipeline.upcast_ref()) {
                    player.over = " over UDP";
                } else {
                    player.over = " over TCP";
                }
                Ok(player)
            }
            Err(error) => {
                player.close().await;
                Err(error.into())
            }
        }
    }

    pub fn state(&self) -> LinkState {
        LinkState {
            transport: format!("{}{}", Transport::Rtsp, self.over),
            silence: "no video arrives by RTSP".to_owned(),
            ..LinkState::default()
        }
    }

    /// Waits for the end, and gives the reason.
    pub async fn ended(&self) -> String {
        self.error().await.to_string()
    }

    async fn error(&self) -> RtspError {
        let mut ended = self.ended.clone();
        let error = ended.wait_for(Option::is_some).await.ok().and_then(|error| error.clone());
        match error {
            Some(error) => error,
            // The callbacks live as long as the pipeline.
            None => std::future::pending().await,
        }
    }

    /// Ends it and tells the camera.
    pub async fn close(self) {
        let pipeline = self.pipeline.clone();
        let ended = tokio::task::spawn_blocking(|| within(STOP_TIMEOUT, "rtsp-stop", || stop(pipeline))).await;
        if let Ok(Err(error)) = ended {
            tracing::warn!("the RTSP session is left behind, it did not end: {error}");
        }
    }
}

impl Drop for Player {
    fn drop(&mut self) {
        self.keyframes.abort();
        // Where nobody closed it: beside everything else, as it may take its time.
        let pipeline = self.pipeline.clone();
        if pipeline.current_state() != gst::State::Null {
            let _ = std::thread::Builder::new().name("rtsp-stop".into()).spawn(|| stop(pipeline));
        }
    }
}

fn stop(pipeline: gst::Pipeline) {
    // Going down never fails.
    let _ = pipeline.set_state(gst::State::Null);
}

fn build(shared: &Arc<Shared>, mut latency: Duration) -> Result<(gst::Pipeline, gst_app::AppSink), RtspError> {
    let other = |error: String| RtspError::Other { address: shared.camera.address(), reason: error };
    gst::init().map_err(|error| other(error.to_string()))?;
    let make = |name| gst::ElementFactory::make(name).build().map_err(|_| RtspError::MissingElement(name));
    let source = make("rtspsrc")?;
    rtspsrc::set_address(&source, &shared.camera);
    rtspsrc::limit_attempts(&source);
    rtspsrc::ask_for_keyframes(&source);
    rtspsrc::number_packets(&source);
    if latency > ORDERLY {
        rtspsrc::bear_disorder(&source, latency);
        latency += MARGIN;
    }
    for (property, value) in [
        ("latency", latency.as_millis().to_string()),
        // Follows the camera's clock, and never buffers: 'auto' would for a camera whose SDP has a duration.
        ("buffer-mode", "slave".to_owned()),
        // The wait at a gap is limited anyway. This would throw away packets behind the gap as well.
        ("drop-on-latency", "false".to_owned()),
        ("timeout", UDP_TIMEOUT.as_micros().to_string()),
        ("tcp-timeout", TCP_TIMEOUT.as_micros().to_string()),
        ("do-rtsp-keep-alive", "true".to_owned()),
        ("udp-buffer-size", UDP_BUFFER.to_owned()),
        // Else the first packets are held until a second one has proved the sender.
        ("probation", "0".to_owned()),
    ] {
        if source.has_property(property) {
            source.set_property_from_str(property, &value);
        }
    }
    let sink = gst_app::AppSink::builder().sync(false).async_(false).max_buffers(0).build();
    sink.set_property("qos", false);
    take_packets(&sink, shared);
    choose_media(&source, shared);
    let weak = Arc::downgrade(shared);
    rtspsrc::on_certificate(&source, shared.trust.clone(), move |fingerprint| {
        if let Some(shared) = weak.upgrade() {
            *lock(&shared.untrusted) = Some(fingerprint);
        }
    });
    let weak = Arc::downgrade(shared);
    rtspsrc::on_control(&source, move |compound| {
        if let Some(shared) = weak.upgrade() {
            lock(&shared.clock).control(compound);
        }
    });
    let (weak_sink, link_shared) = (sink.downgrade(), Arc::downgrade(shared));
    source.connect_pad_added(move |source, pad| {
        let (Some(sink), Some(shared)) = (weak_sink.upgrade(), link_shared.upgrade()) else { return };
        let caps = pad.current_caps().unwrap_or_else(|| pad.query_caps(None));
        let chosen = lock(&shared.media).chosen;
        if let Some((_, codec)) = chosen {
            *lock(&shared.sets) = ParameterSets::new(codec, &sprop(&caps));
        }
        let (camera, link_runs_empty) = (shared.camera.clone(), Arc::clone(&shared.link_runs_empty));
        let shared = Arc::downgrade(&shared);
        rtspsrc::watch_lateness(source, pad, &camera, link_runs_empty, move |late| {
            if let Some(shared) = shared.upgrade() {
                shared.end(RtspError::Late { address: shared.camera.address(), seconds: late.as_secs() });
            }
        });
        if let Some(input) = sink.static_pad("sink") {
            // After UDP in vain, the pads come again over TCP.
            if let Some(before) = input.peer() {
                let _ = before.unlink(&input);
            }
            if let Err(error) = pad.link(&input) {
                tracing::warn!("the RTSP stream cannot be linked: {error}");
            }
        }
    });
    let pipeline = gst::Pipeline::new();
    pipeline.add_many([&source, sink.upcast_ref()]).map_err(|error| other(error.to_string()))?;
    watch_bus(&pipeline, shared);
    Ok((pipeline, sink))
}

/// Only the first video of a codec that is known here is asked for.
fn choose_media(source: &gst::Element, shared: &Arc<Shared>) {
    let shared = Arc::downgrade(shared);
    rtspsrc::on_stream(source, move |number, kind, encoding| {
        let Some(shared) = shared.upgrade() else { return false };
        let (kind, encoding) = (kind.unwrap_or("unknown"), encoding.unwrap_or("unknown"));
        let mut media = lock(&shared.media);
        if media.chosen.is_none() {
            let codec = Codec::ALL.into_iter().find(|c| encoding.eq_ignore_ascii_case(c.rtp_name()));
            if let Some(codec) = codec.filter(|_| kind == "video") {
                (shared.on_codec)(codec);
                media.chosen = Some((number, codec));
            }
            media.found.push(format!("{kind} {encoding}"));
        }
        // After UDP in vain it is asked again about the same.
        media.chosen.is_some_and(|(chosen, _)| chosen == number)
    });
}

/// The parameter sets of the SDP (RFC 6184 section 8.1, RFC 7798 section 7.1): base64, with commas between.
fn sprop(caps: &gst::CapsRef) -> Vec<Vec<u8>> {
    let Some(structure) = caps.structure(0) else { return Vec::new() };
    let fields = ["sprop-parameter-sets", "sprop-vps", "sprop-sps", "sprop-pps"];
    let texts = fields.into_iter().filter_map(|field| structure.get::<&str>(field).ok());
    let nals = texts.flat_map(|text| text.split(',')).map(|nal| glib::base64_decode(nal).to_vec());
    nals.filter(|nal| !nal.is_empty()).collect()
}

fn take_packets(sink: &gst_app::AppSink, shared: &Arc<Shared>) {
    let shared = Arc::clone(shared);
    let mut markers = Markers::default();
    let callbacks = gst_app::AppSinkCallbacks::builder()
        .new_sample(move |sink| {
            let sample = sink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
            let link_runs_empty = shared.link_runs_empty.load(Ordering::Relaxed);
            let received = Received { at: Instant::now(), link_runs_empty };
            // The packet keeps the buffer's own memory.
            let data = sample.buffer_owned().and_then(|buffer| buffer.into_mapped_buffer_readable().ok());
            let Some(mut packet) = data.and_then(|data| Packet::read(&Bytes::from_owner(data))) else {
                return Ok(gst::FlowSuccess::Ok);
            };
            packet.captured = lock(&shared.clock).captured(&packet.header);
            packet.header.payload_type = PAYLOAD_TYPE;
            let codec = lock(&shared.media).chosen.map(|(_, codec)| codec);
            let judged = codec.map(|codec| marker::Packet::of(codec, &packet.header, &packet.payload));
            for ((mut packet, received), clear) in markers.pass(judged, (packet, received)) {
                packet.header.marker &= !clear;
                lock(&shared.sets).pass(packet, |packet| (shared.on_packets)(&mut iter::once(packet), received));
            }
            shared.playing.send_if_modified(|plays| !std::mem::replace(plays, true));
            Ok(gst::FlowSuccess::Ok)
        })
        .build();
    sink.set_callbacks(callbacks);
}

fn watch_bus(pipeline: &gst::Pipeline, shared: &Arc<Shared>) {
    let Some(bus) = pipeline.bus() else { return };
    let shared = Arc::clone(shared);
    bus.set_sync_handler(move |_, message| {
        // To explain an error may take a request to the camera.
        if shared.ended.borrow().is_some() {
            return gst::BusSyncReply::Drop;
        }
        let error = match message.view() {
            gst::MessageView::Error(error) => explain(&shared, error),
            gst::MessageView::Eos(_) => {
                let reason = "the camera ended the stream".to_owned();
                RtspError::Other { address: shared.camera.address(), reason }
            }
            gst::MessageView::Warning(warning) => {
                tracing::debug!("RTSP: {}", warning.error());
                return gst::BusSyncReply::Drop;
            }
            _ => return gst::BusSyncReply::Drop,
        };
        shared.end(error);
        gst::BusSyncReply::Drop
    });
}

/// The camera's refusal in words that say what to do.
fn explain(shared: &Shared, error: &gst::message::Error) -> RtspError {
    let (camera, error_kind) = (&shared.camera, error.error());
    let address = camera.address();
    let is = |kind: gst::ResourceError| error_kind.matches(kind);
    if let Some(fingerprint) = lock(&shared.untrusted).clone() {
        return RtspError::NotTrusted { address, fingerprint };
    }
    if let Some(refusal) = rtspsrc::refusal(error, camera) {
        let unknown = camera.credentials().and_then(|_| rtspsrc::unknown_digest(camera, &shared.trust));
        return match (camera.credentials(), unknown) {
            (Some(_), Some(algorithm)) => RtspError::UnknownDigest { address, algorithm },
            (Some(_), None) if refusal == rtspsrc::Refusal::Forbidden => RtspError::Forbidden { address },
            (Some(_), None) => RtspError::WrongPassword { address },
            (None, _) => RtspError::NoPassword { address },
        };
    }
    let media = lock(&shared.media);
    if is(gst::ResourceError::NotFound) {
        return RtspError::NotFound { address, path: camera.path() };
    }
    if media.chosen.is_none() && !media.found.is_empty() {
        return RtspError::NoVideo { address, path: camera.path(), found: media.found.join(", ") };
    }
    let mut reason = reason(&error_kind.to_string(), error.debug().as_deref());
    if reason.contains("TLS support is not available") {
        reason += ": install glib-networking";
    }
    if is(gst::ResourceError::OpenRead) || is(gst::ResourceError::OpenReadWrite) || is(gst::ResourceError::OpenWrite) {
        return RtspError::NoAnswer { address, reason };
    }
    RtspError::Other { address, reason }
}

/// The cause: it stands in brackets at the end of what GStreamer adds for developers, or in front of them when there is
/// only `Generic error` in them; else GStreamer's message.
fn reason(message: &str, debug: Option<&str>) -> String {
    let last = debug.and_then(|debug| debug.trim_end().strip_suffix(')')?.rsplit_once('('));
    let cause = last.map(|(before, cause)| match cause {
        "Generic error" => before.lines().last().unwrap_or_default().trim_end_matches([' ', '.']),
        cause => cause,
    });
    cause.filter(|cause| !cause.is_empty()).unwrap_or(message).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cause_is_taken_from_what_gstreamer_says() {
        let debug =
            |end: &str| format!("gstrtspsrc.c(8336): gst_rtspsrc_retrieve_sdp (): /GstRTSPSrc:rtspsrc0:\n{end}");
        let of = |end: &str| reason("Could not open resource.", Some(&debug(end)));
        assert_eq!(of("Failed to connect. (Generic error)"), "Failed to connect");
        assert_eq!(
            of("Failed to connect. (Timeout while waiting for server response)"),
            "Timeout while waiting for server response"
        );
        assert_eq!(of("something else"), "Could not open resource.");
        assert_eq!(reason("Could not open resource.", None), "Could not open resource.");
    }
}
