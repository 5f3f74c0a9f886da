//! rov-client's own session and decoder. Pictures are taken as they were decoded, as from the references, and as a
//! window takes them that converts by itself; the time that counts is that at which they left the decoder.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use clap::Parser;
use gstreamer as gst;
use gstreamer_video as gst_video;
use rov_bench::clock;
use rov_client::cli::Cli;
use rov_client::decode::{Picture, PictureForm};
use rov_client::session;
use rov_client::viewer::Viewer;
use tokio::runtime::{Builder, Runtime};
use tokio_util::sync::CancellationToken;

use super::{Delivered, RoleArgs, look, say};
use crate::figures::{Passage, Shot};

/// Watches what the arguments of rov-client say, to the end or for visits.
pub fn watch(args: &RoleArgs) -> Result<()> {
    let program = "rov-client".to_owned();
    let cli = Cli::try_parse_from(std::iter::once(&program).chain(&args.more))?;
    let runtime = Builder::new_multi_thread().enable_all().build().context("a runtime")?;
    if !args.visits {
        return visit(&cli, &runtime, None);
    }
    loop {
        visit(&cli, &runtime, Some(Duration::from_secs(1)))?;
        std::thread::sleep(rov_server::config::REST_AFTER + Duration::from_secs(1));
    }
}

/// A session, for so long after its first picture; none: to its end.
fn visit(cli: &Cli, runtime: &Runtime, time: Option<Duration>) -> Result<()> {
    let config = cli.session().map_err(|message| anyhow!(message))?;
    let viewer = Viewer::new();
    let formats = gst::Caps::builder("video/x-raw").field("format", "I420").build();
    viewer.set_output(PictureForm { formats: Some(formats), ..PictureForm::default() });
    let stop = CancellationToken::new();
    let session = runtime.spawn(session::run(config, Arc::clone(&viewer), stop.clone()));
    let mut first = None;
    while !session.is_finished() {
        if let Some(picture) = viewer.mailbox.wait(Duration::from_millis(100)) {
            first.get_or_insert_with(Instant::now);
            match read(&picture, clock::now_us()) {
                Some(shot) => say(&shot.line()),
                // Nobody decodes it: what counts is when it was whole.
                None => {
                    let at_us = clock::to_us(picture.decode_started_at);
                    let last_packet_us = Some(clock::to_us(picture.last_packet_at));
                    say(&Delivered { rtp_timestamp: picture.rtp_timestamp, at_us, last_packet_us }.line());
                }
            }
        }
        if time.zip(first).is_some_and(|(time, first)| first.elapsed() >= time) {
            stop.cancel();
        }
    }
    runtime.block_on(session).context("the session failed")??;
    Ok(())
}

fn read(picture: &Picture, taken_us: u64) -> Option<Shot> {
    let (buffer, info) = picture.buffer()?;
    let frame = gst_video::VideoFrameRef::from_buffer_ref_readable(&buffer, &info).ok()?;
    let (stamp, is_damaged) = look(&frame)?;
    let decoded_us = clock::to_us(picture.decoded_at);
    let passage = Passage {
        first_packet_us: clock::to_us(picture.first_packet_at),
        last_packet_us: clock::to_us(picture.last_packet_at),
        decoded_us,
        taken_us,
    };
    Some(Shot {
        frame: stamp.frame,
        drawn_us: stamp.time_us,
        shown_us: decoded_us,
        is_damaged,
        rtp_timestamp: Some(picture.rtp_timestamp),
        sent_us: None,
        passage: Some(passage),
    })
}
