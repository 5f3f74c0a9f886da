//! Senders and receivers that are a plain pipeline, as `gst-launch-1.0` would run them, and gst-rtsp-server.

use anyhow::{Context, Result, anyhow, bail};
use gstreamer as gst;
use gstreamer::glib;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;
use gstreamer_rtsp_server as gst_rtsp_server;
use gstreamer_rtsp_server::prelude::*;
use gstreamer_video as gst_video;
use gstreamer_video::prelude::*;
use rov_bench::clock;
use rov_bench::picture::{Range, wrong_patches};
use rov_common::stamp;

use super::{Part, READY, RoleArgs, say, text};
use crate::figures::Shot;
use crate::point::Point;

/// Runs the pipeline of a part until it fails or this process is killed.
pub fn play(part: Part, args: &RoleArgs) -> Result<()> {
    let pipeline = launch(&description(part, args)?)?;
    run(&pipeline)
}

pub fn launch(text: &str) -> Result<gst::Pipeline> {
    let pipeline = gst::parse::launch(text).with_context(|| text.to_owned())?;
    let pipeline = pipeline.downcast::<gst::Pipeline>().map_err(|_| anyhow!("not a pipeline: {text}"))?;
    if let Some(sink) = pipeline.by_name("out").and_then(|sink| sink.downcast::<gst_app::AppSink>().ok()) {
        read_pictures(&sink);
    }
    Ok(pipeline)
}

/// Starts it, says so, and stays until an error.
pub fn run(pipeline: &gst::Pipeline) -> Result<()> {
    pipeline.set_state(gst::State::Playing).context("the pipeline does not start")?;
    eprintln!("{READY}");
    let bus = pipeline.bus().context("a pipeline has a bus")?;
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
    let (port, point, path) = (args.port, &args.point, &args.path);
    let encode = || Ok::<_, anyhow::Error>(format!("{} ! {}", text::source(point), text::encoder(point)?));
    let decode = || Ok::<_, anyhow::Error>(format!("rtph264depay ! {}", text::decoder()?));
    // 4 MB, as rov-client asks for: the system's default loses packets of large pictures.
    let udp = format!(
        "udpsrc address=127.0.0.1 port={port} buffer-size=4194304 caps=\"{}\" ! rtpjitterbuffer latency=0",
        text::RTP_CAPS
    );
    let rtsp = |protocol| format!("rtspsrc location=rtsp://127.0.0.1:{port}/{path} protocols={protocol} latency=0");
    let appsink = text::APPSINK;
    Ok(match part {
        Part::Local => format!("{} ! h264parse ! {} ! {appsink}", encode()?, text::decoder()?),
        Part::UdpSender => {
            let pay = text::payloader("pay0");
            format!("{} ! {pay} ! udpsink host=127.0.0.1 port={port} sync=false async=false", encode()?)
        }
        Part::UdpReceiver => format!("{udp} ! {} ! {appsink}", decode()?),
        Part::UdpWindow => format!("{udp} ! {} ! videoconvert ! ximagesink sync=false", decode()?),
        Part::RtspReceiver => format!("{} ! {} ! {appsink}", rtsp("udp"), decode()?),
        Part::RtspTcpReceiver => format!("{} ! {} ! {appsink}", rtsp("tcp"), decode()?),
        _ => bail!("{} is not a plain pipeline", part.name()),
    })
}

/// Notes each picture that comes out.
pub fn read_pictures(sink: &gst_app::AppSink) {
    let callbacks = gst_app::AppSinkCallbacks::builder().new_sample(|sink| {
        let sample = sink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
        let shown_us = clock::now_us();
        if let Some(shot) = read(&sample, shown_us) {
            say(&shot);
        }
        Ok(gst::FlowSuccess::Ok)
    });
    sink.set_callbacks(callbacks.build());
}

fn read(sample: &gst::Sample, shown_us: u64) -> Option<Shot> {
    let info = gst_video::VideoInfo::from_caps(sample.caps()?).ok()?;
    let frame = gst_video::VideoFrameRef::from_buffer_ref_readable(sample.buffer()?, &info).ok()?;
    let (width, height) = (frame.width() as usize, frame.height() as usize);
    let (luma, stride) = (frame.plane_data(0).ok()?, *frame.plane_stride().first()? as usize);
    let stamp = stamp::read_luma(luma, stride, width, height)?;
    let sample = |x: usize, y: usize| luma[y * stride + x];
    let is_damaged = wrong_patches(stamp.frame, width, height, Range::Limited, sample) > 0;
    Some(Shot { frame: stamp.frame, drawn_us: stamp.time_us, shown_us, is_damaged, passage: None })
}

/// One encode for all clients, which begins when the first one comes.
pub fn serve_rtsp(point: &Point, port: u16) -> Result<()> {
    let server = gst_rtsp_server::RTSPServer::new();
    server.set_address("127.0.0.1");
    server.set_service(&port.to_string());
    let factory = gst_rtsp_server::RTSPMediaFactory::new();
    let launch = format!("( {} ! {} ! {} )", text::source(point), text::encoder(point)?, text::payloader("pay0"));
    factory.set_launch(&launch);
    factory.set_shared(true);
    let mounts = server.mount_points().context("a server has mount points")?;
    mounts.add_factory("/stream1", factory);
    let _id = server.attach(None).with_context(|| format!("cannot listen on TCP {port}"))?;
    eprintln!("{READY}");
    glib::MainLoop::new(None, false).run();
    Ok(())
}
