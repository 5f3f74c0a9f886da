//! Senders and receivers that are a plain pipeline, as `gst-launch-1.0` would run them, and gst-rtsp-server.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, anyhow, bail};
use gstreamer as gst;
use gstreamer::glib;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;
use gstreamer_rtsp_server as gst_rtsp_server;
use gstreamer_rtsp_server::prelude::*;
use gstreamer_video as gst_video;
use rov_bench::clock;

use super::{Delivered, Part, READY, RoleArgs, look, say, text};
use crate::figures::Shot;

/// Runs the pipeline of a part until it fails or this process is killed.
pub fn play(part: Part, args: &RoleArgs) -> Result<()> {
    let pipeline = launch(&description(part, args)?)?;
    run(&pipeline)
}

pub fn launch(text: &str) -> Result<gst::Pipeline> {
    let pipeline = gst::parse::launch(text).with_context(|| text.to_owned())?;
    let pipeline = pipeline.downcast::<gst::Pipeline>().map_err(|_| anyhow!("not a pipeline: {text}"))?;
    watch(pipeline.upcast_ref())?;
    Ok(pipeline)
}

/// Writes down what leaves the receiver in there, if there is one, and gives the times of a clip to its pictures.
pub fn watch(bin: &gst::Bin) -> Result<()> {
    if let Some(pad) = bin.by_name("pace").and_then(|pace| pace.static_pad("sink")) {
        // Annex B has none, and the parser makes up only when to decode, which without B-frames is when to show.
        pad.add_probe(gst::PadProbeType::BUFFER, |_, info| {
            if let Some(buffer) = info.buffer_mut() {
                let time = buffer.pts().or(buffer.dts());
                buffer.make_mut().set_pts(time);
            }
            gst::PadProbeReturn::Ok
        });
    }
    let depay = bin.by_name("depay");
    let newest = depay.as_ref().map(note_timestamps).transpose()?;
    match (bin.by_name("out").and_downcast::<gst_app::AppSink>(), depay.zip(newest)) {
        // Where pictures are decoded, they say all.
        (Some(sink), found) => read_pictures(&sink, found.map(|(_, newest)| newest)),
        (None, Some((depay, newest))) => note_delivery(&depay, newest)?,
        (None, None) => {}
    }
    Ok(())
}

/// Starts it, says so, and stays until an error.
pub fn run(pipeline: &gst::Pipeline) -> Result<()> {
    pipeline.set_state(gst::State::Playing).context("the pipeline does not start")?;
    eprintln!("{READY}");
    watch_bus(&pipeline.bus().context("a pipeline has a bus")?)
}

/// Stays until an error.
pub fn watch_bus(bus: &gst::Bus) -> Result<()> {
    for message in bus.iter_timed(gst::ClockTime::NONE) {
        match message.view() {
            gst::MessageView::Error(error) => bail!("{} ({})", error.error(), error.debug().unwrap_or_default()),
            gst::MessageView::Eos(_) => bail!("the stream ended"),
            _ => {}
        }
    }
    Ok(())
}

fn description(part: Part, args: &RoleArgs) -> Result<String> {
    let RoleArgs { port, path, server, client, .. } = args;
    let (coded, receiver) = (text::coded(args)?, text::receiver(args)?);
    // 4 MB, as rov-client asks for: the system's default loses packets of large pictures.
    let udp = format!(
        "udpsrc address={client} port={port} buffer-size=4194304 caps=\"{}\" ! rtpjitterbuffer latency=0",
        text::RTP_CAPS
    );
    let rtsp = |protocol| format!("rtspsrc location=rtsp://{server}:{port}/{path} protocols={protocol} latency=0");
    Ok(match part {
        Part::Local => format!("{coded} ! h264parse ! {} ! {}", text::decoder()?, text::APPSINK),
        Part::UdpSender => {
            let pay = text::payloader("pay0");
            format!("{coded} ! {pay} ! udpsink host={client} port={port} buffer-size=4194304 sync=false async=false")
        }
        Part::UdpReceiver => format!("{udp} ! {receiver}"),
        Part::UdpWindow => {
            format!("{udp} ! rtph264depay ! {} ! videoconvert ! ximagesink sync=false", text::decoder()?)
        }
        Part::RtspReceiver => format!("{} ! {receiver}", rtsp("udp")),
        Part::RtspTcpReceiver => format!("{} ! {receiver}", rtsp("tcp")),
        _ => bail!("{} is not a plain pipeline", part.name()),
    })
}

/// The RTP timestamp of the newest packet at a depayloader.
type Newest = Arc<AtomicU32>;

/// Notes each picture that comes out, with the RTP timestamp of the packet that ended it: depayloader and decoder run
/// in one thread.
fn read_pictures(sink: &gst_app::AppSink, newest: Option<Newest>) {
    let callbacks = gst_app::AppSinkCallbacks::builder().new_sample(move |sink| {
        let sample = sink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
        let shown_us = clock::now_us();
        if let Some(shot) = read(&sample, shown_us) {
            let rtp_timestamp = newest.as_ref().map(|newest| newest.load(Ordering::Relaxed));
            say(&Shot { rtp_timestamp, ..shot }.line());
        }
        Ok(gst::FlowSuccess::Ok)
    });
    sink.set_callbacks(callbacks.build());
}

fn note_timestamps(depay: &gst::Element) -> Result<Newest> {
    let newest = Newest::default();
    let timestamp = Arc::clone(&newest);
    let note = move |buffer: &gst::BufferRef| {
        let packet = buffer.map_readable().ok();
        if let Some(bytes) = packet.as_ref().and_then(|packet| packet.get(4..8)) {
            timestamp.store(u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]), Ordering::Relaxed);
        }
    };
    let sink = depay.static_pad("sink").context("a depayloader has a sink pad")?;
    sink.add_probe(gst::PadProbeType::BUFFER | gst::PadProbeType::BUFFER_LIST, move |_, info| {
        match (info.buffer(), info.buffer_list()) {
            (Some(buffer), _) => note(buffer),
            (None, Some(list)) => list.iter().last().into_iter().for_each(&note),
            (None, None) => {}
        }
        gst::PadProbeReturn::Ok
    });
    Ok(newest)
}

/// Notes each access unit that leaves the depayloader, with the RTP timestamp of the packet that ended it.
fn note_delivery(depay: &gst::Element, newest: Newest) -> Result<()> {
    let src = depay.static_pad("src").context("a depayloader has a source pad")?;
    src.add_probe(gst::PadProbeType::BUFFER, move |_, _| {
        let rtp_timestamp = newest.load(Ordering::Relaxed);
        say(&Delivered { rtp_timestamp, at_us: clock::now_us(), last_packet_us: None }.line());
        gst::PadProbeReturn::Ok
    });
    Ok(())
}

fn read(sample: &gst::Sample, shown_us: u64) -> Option<Shot> {
    let info = gst_video::VideoInfo::from_caps(sample.caps()?).ok()?;
    let frame = gst_video::VideoFrameRef::from_buffer_ref_readable(sample.buffer()?, &info).ok()?;
    let (stamp, is_damaged) = look(&frame)?;
    Some(Shot { frame: stamp.frame, drawn_us: stamp.time_us, shown_us, is_damaged, ..Shot::default() })
}

/// One encode for all clients, which begins when the first one comes.
pub fn serve_rtsp(args: &RoleArgs) -> Result<()> {
    let port = args.port;
    let server = gst_rtsp_server::RTSPServer::new();
    server.set_address(&args.server.to_string());
    server.set_service(&port.to_string());
    let factory = gst_rtsp_server::RTSPMediaFactory::new();
    factory.set_launch(&format!("( {} ! {} )", text::coded(args)?, text::payloader("pay0")));
    factory.set_shared(true);
    factory.connect_media_configure(|_, media| {
        let failed = media.element().downcast_ref::<gst::Bin>().and_then(|bin| watch(bin).err());
        if let Some(error) = failed {
            eprintln!("{error:#}");
        }
    });
    let mounts = server.mount_points().context("a server has mount points")?;
    mounts.add_factory("/stream1", factory);
    let _id = server.attach(None).with_context(|| format!("cannot listen on TCP {port}"))?;
    eprintln!("{READY}");
    glib::MainLoop::new(None, false).run();
    Ok(())
}
