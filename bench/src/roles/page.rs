//! `webrtcbin` to a browser: a page, and signalling by HTTP. It serves one browser, one request at a time, and knows no
//! more of HTTP than that needs.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_webrtc::{WebRTCICEGatheringState, WebRTCSDPType, WebRTCSessionDescription};

use super::webrtcbin::{add_address, create, describe, set_remote};
use super::{READY, RoleArgs, pipeline};

const PAGE: &str = include_str!("page.html");
const LIMIT: Duration = Duration::from_secs(10);
/// Of the body of a request.
const MAX_BODY: usize = 1 << 16;

/// Serves the page; the pipeline starts when it asks for the offer.
pub fn serve(args: &RoleArgs) -> Result<()> {
    let address = (args.server, args.port);
    let listener = TcpListener::bind(address).with_context(|| format!("TCP {address:?}"))?;
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
        for stream in listener.incoming().flatten() {
            if let Err(error) = answer(stream, &run, &webrtc) {
                eprintln!("HTTP: {error:#}");
            }
        }
    });
    // Until the browser comes there is nothing to watch.
    let bus = pipeline.bus().context("a pipeline has a bus")?;
    pipeline::watch_bus(&bus)
}

fn answer(mut stream: TcpStream, pipeline: &gst::Pipeline, webrtc: &gst::Element) -> Result<()> {
    stream.set_read_timeout(Some(LIMIT))?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let (mut request, mut length) = (String::new(), 0);
    reader.read_line(&mut request)?;
    loop {
        let mut header = String::new();
        if reader.read_line(&mut header)? == 0 || header.trim().is_empty() {
            break;
        }
        if let Some(value) = header.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse()?;
        }
    }
    if length > MAX_BODY {
        bail!("a body of {length} bytes");
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let (kind, reply) = match request.split(' ').take(2).collect::<Vec<_>>()[..] {
        ["GET", "/"] => ("text/html", PAGE.to_owned()),
        ["GET", "/offer"] => ("application/sdp", offer(pipeline, webrtc)?),
        ["POST", "/answer"] => {
            set_remote(webrtc, WebRTCSDPType::Answer, &String::from_utf8(body)?)?;
            ("text/plain", String::new())
        }
        _ => {
            stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")?;
            return Ok(());
        }
    };
    let length = reply.len();
    let head =
        format!("HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
    stream.write_all((head + &reply).as_bytes())?;
    Ok(())
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
