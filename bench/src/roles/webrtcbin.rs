//! GStreamer's own WebRTC, `webrtcbin` to `webrtcbin`. Signalling is a TCP connection on loopback with one JSON object
//! a line.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_sdp as gst_sdp;
use gstreamer_video as gst_video;
use gstreamer_webrtc::{WebRTCSDPType, WebRTCSessionDescription};
use serde::{Deserialize, Serialize};

use super::{READY, RoleArgs, pipeline, text};

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Message {
    Offer(String),
    Answer(String),
    /// The m-line's number, and the candidate.
    Candidate(u32, String),
}

/// The way to the other side.
#[derive(Clone)]
struct Link(Arc<Mutex<TcpStream>>);

impl Link {
    fn send(&self, message: &Message) {
        let Ok(mut line) = serde_json::to_string(message) else { return };
        line.push('\n');
        let mut stream = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if stream.write_all(line.as_bytes()).is_err() {
            eprintln!("the other side is gone");
        }
    }
}

/// Offers to the first who connects.
pub fn send(args: &RoleArgs) -> Result<()> {
    let address = (args.server, args.port);
    let listener = TcpListener::bind(address).with_context(|| format!("TCP {address:?}"))?;
    eprintln!("{READY}");
    let (stream, _) = listener.accept().context("waiting for the receiver")?;
    let pipeline = create(args)?;
    let (webrtc, link) = connect(&pipeline, stream)?;
    webrtc.connect("on-negotiation-needed", false, move |values| {
        let webrtc = values[0].get::<gst::Element>().ok()?;
        let link = link.clone();
        describe(&webrtc, "create-offer", move |sdp| link.send(&Message::Offer(sdp)));
        None
    });
    pipeline::run(&pipeline)
}

/// The sender's pipeline.
pub fn create(args: &RoleArgs) -> Result<gst::Pipeline> {
    pipeline::launch(&format!(
        "{} ! {} ! {} ! webrtcbin name=webrtc bundle-policy=max-bundle latency=0",
        text::coded(args)?,
        text::payloader("pay0"),
        text::RTP_CAPS
    ))
}

/// By itself webrtcbin leaves loopback out.
pub fn add_address(webrtc: &gst::Element, address: &str) -> Result<()> {
    let ice = webrtc.property::<gst::Object>("ice-agent");
    ensure!(ice.emit_by_name::<bool>("add-local-ip-address", &[&address]), "webrtcbin does not take {address}");
    Ok(())
}

pub fn set_remote(webrtc: &gst::Element, kind: WebRTCSDPType, sdp: &str) -> Result<()> {
    let sdp = gst_sdp::SDPMessage::parse_buffer(sdp.as_bytes())?;
    let description = WebRTCSessionDescription::new(kind, sdp);
    webrtc.emit_by_name::<()>("set-remote-description", &[&description, &None::<gst::Promise>]);
    Ok(())
}

pub fn receive(args: &RoleArgs) -> Result<()> {
    let address = (args.server, args.port);
    let stream = TcpStream::connect(address).with_context(|| format!("TCP {address:?}"))?;
    let pipeline = gst::Pipeline::new();
    let webrtc = gst::ElementFactory::make("webrtcbin")
        .name("webrtc")
        .property_from_str("bundle-policy", "max-bundle")
        .property("latency", 0_u32)
        .build()?;
    pipeline.add(&webrtc)?;
    let receiver = text::receiver(args)?;
    let target = pipeline.downgrade();
    webrtc.connect_pad_added(move |_, pad| {
        if pad.direction() == gst::PadDirection::Src
            && let Some(pipeline) = target.upgrade()
            && let Err(error) = attach(&pipeline, pad, &receiver)
        {
            eprintln!("cannot decode: {error:#}");
        }
    });
    // The offer is refused by a webrtcbin that has not been started.
    pipeline.set_state(gst::State::Playing).context("webrtcbin does not start")?;
    connect(&pipeline, stream)?;
    pipeline::run(&pipeline)
}

fn attach(pipeline: &gst::Pipeline, pad: &gst::Pad, receiver: &str) -> Result<()> {
    let bin = gst::parse::bin_from_description(receiver, true)?;
    pipeline::watch(&bin)?;
    pipeline.add(&bin)?;
    bin.sync_state_with_parent()?;
    pad.link(&bin.static_pad("sink").context("no sink pad")?)?;
    ask_for_keyframe(&bin)
}

/// Asks again and again until there is a picture, as programs on webrtcbin do: the first keyframe is often sent before
/// the receiver has the key to read it.
fn ask_for_keyframe(receiver: &gst::Bin) -> Result<()> {
    const INTERVAL: Duration = Duration::from_millis(100);
    let depay = receiver.by_name("depay").context("no depayloader")?;
    let pads = depay.static_pad("sink").zip(depay.static_pad("src"));
    let (sink, src) = pads.context("a depayloader has two pads")?;
    let has_picture = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&has_picture);
    src.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        let is_keyframe = info.buffer().is_some_and(|buffer| !buffer.flags().contains(gst::BufferFlags::DELTA_UNIT));
        seen.fetch_or(is_keyframe, Ordering::Relaxed);
        if is_keyframe { gst::PadProbeReturn::Remove } else { gst::PadProbeReturn::Ok }
    });
    std::thread::spawn(move || {
        while !has_picture.load(Ordering::Relaxed) {
            sink.push_event(gst_video::UpstreamForceKeyUnitEvent::builder().all_headers(true).build());
            std::thread::sleep(INTERVAL);
        }
    });
    Ok(())
}

/// Joins the pipeline's webrtcbin to the other side.
fn connect(pipeline: &gst::Pipeline, stream: TcpStream) -> Result<(gst::Element, Link)> {
    let webrtc = pipeline.by_name("webrtc").context("no webrtcbin: is gstreamer1.0-plugins-bad installed?")?;
    add_address(&webrtc, &stream.local_addr()?.ip().to_string())?;
    stream.set_nodelay(true)?;
    let reader = BufReader::new(stream.try_clone()?);
    let link = Link(Arc::new(Mutex::new(stream)));
    let candidates = link.clone();
    webrtc.connect("on-ice-candidate", false, move |values| {
        let (line, candidate) = (values[1].get().ok()?, values[2].get().ok()?);
        candidates.send(&Message::Candidate(line, candidate));
        None
    });
    let (target, answers) = (webrtc.downgrade(), link.clone());
    std::thread::spawn(move || {
        for line in reader.lines().map_while(Result::ok) {
            let Some(webrtc) = target.upgrade() else { return };
            let taken = serde_json::from_str(&line).map_err(anyhow::Error::from);
            if let Err(error) = taken.and_then(|message| take(&webrtc, message, &answers)) {
                eprintln!("{error:#} in {line}");
            }
        }
    });
    Ok((webrtc, link))
}

fn take(webrtc: &gst::Element, message: Message, link: &Link) -> Result<()> {
    match message {
        Message::Offer(sdp) => {
            set_remote(webrtc, WebRTCSDPType::Offer, &sdp)?;
            let link = link.clone();
            describe(webrtc, "create-answer", move |sdp| link.send(&Message::Answer(sdp)));
        }
        Message::Answer(sdp) => set_remote(webrtc, WebRTCSDPType::Answer, &sdp)?,
        Message::Candidate(line, candidate) => {
            webrtc.emit_by_name::<()>("add-ice-candidate", &[&line, &candidate]);
        }
    }
    Ok(())
}

/// Makes the offer or answer, sets it and gives it to `send`.
pub fn describe(webrtc: &gst::Element, signal: &'static str, send: impl FnOnce(String) + Send + 'static) {
    let target = webrtc.downgrade();
    let promise = gst::Promise::with_change_func(move |reply| {
        let field = signal.trim_start_matches("create-");
        let description = reply.ok().flatten().and_then(|reply| reply.get::<WebRTCSessionDescription>(field).ok());
        let Some((webrtc, description)) = target.upgrade().zip(description) else {
            return eprintln!("{signal} gives nothing");
        };
        webrtc.emit_by_name::<()>("set-local-description", &[&description, &None::<gst::Promise>]);
        match description.sdp().as_text() {
            Ok(sdp) => send(sdp),
            Err(error) => eprintln!("{signal}: {error}"),
        }
    });
    webrtc.emit_by_name::<()>(signal, &[&None::<gst::Structure>, &promise]);
}
