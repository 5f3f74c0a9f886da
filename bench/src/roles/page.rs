//! `webrtcbin` to a browser: a page, and signalling by HTTP. It serves one browser.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_webrtc::{WebRTCICEGatheringState, WebRTCSDPType, WebRTCSessionDescription};

use super::http::{self, Reply};
use super::webrtcbin::{add_address, create, describe, set_remote};
use super::{READY, RoleArgs, pipeline};

const PAGE: &str = include_str!("page.html");
const LIMIT: Duration = Duration::from_secs(10);

/// Serves the page; the pipeline starts when it asks for the offer.
pub fn serve(args: &RoleArgs) -> Result<()> {
    let listener = http::listen(args.server, args.port)?;
    let pipeline = create(args)?;
    let webrtc = pipeline.by_name("webrtc").context("no webrtcbin")?;
    add_address(&webrtc, &args.server.to_string())?;
    webrtc.connect("on-negotiation-needed", false, |values| {
        let webrtc = values[0].get::<gst::Element>().ok()?;
        describe(&webrtc, "create-offer", |_| {});
        None
    });
    eprintln!("{READY}");
    let run = pipeline.clone();
    std::thread::spawn(move || {
        http::serve(&listener, |method, path, body| match (method, path) {
            ("GET", "/") => Ok(Some(Reply::ok("text/html", PAGE.to_owned()))),
            ("GET", "/offer") => Ok(Some(Reply::ok("application/sdp", offer(&run, &webrtc)?))),
            ("POST", "/answer") => {
                set_remote(&webrtc, WebRTCSDPType::Answer, body)?;
                Ok(Some(Reply::ok("text/plain", String::new())))
            }
            _ => Ok(None),
        });
    });
    // Until the browser comes there is nothing to watch.
    let bus = pipeline.bus().context("a pipeline has a bus")?;
    pipeline::watch_bus(&bus)
}

/// With all candidates, which webrtcbin has once it has gathered them.
fn offer(pipeline: &gst::Pipeline, webrtc: &gst::Element) -> Result<String> {
    pipeline.set_state(gst::State::Playing).context("the pipeline does not start")?;
    let end = Instant::now() + LIMIT;
    while webrtc.property::<WebRTCICEGatheringState>("ice-gathering-state") != WebRTCICEGatheringState::Complete {
        if Instant::now() > end {
            bail!("webrtcbin has no candidates after {} s", LIMIT.as_secs());
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    let description = webrtc.property::<Option<WebRTCSessionDescription>>("local-description");
    Ok(description.context("webrtcbin has no offer")?.sdp().as_text()?)
}
