//! rov-client's own session and decoder; each picture is taken as the window would take it.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use clap::Parser;
use rov_bench::clock;
use rov_bench::picture::{Range, wrong_patches};
use rov_client::cli::Cli;
use rov_client::decode::{Picture, read_stamp};
use rov_client::session;
use rov_client::viewer::Viewer;
use tokio::runtime::Builder;
use tokio_util::sync::CancellationToken;

use super::{delivered, say};
use crate::figures::{Passage, Shot};

/// Watches what these arguments of rov-client say.
pub fn watch(args: &[String]) -> Result<()> {
    let program = "rov-client".to_owned();
    let cli = Cli::try_parse_from(std::iter::once(&program).chain(args))?;
    let config = cli.session().map_err(|message| anyhow!(message))?;
    let runtime = Builder::new_multi_thread().enable_all().build().context("a runtime")?;
    let viewer = Viewer::new();
    let stop = CancellationToken::new();
    let session = runtime.spawn(session::run(config, Arc::clone(&viewer), stop));
    while !session.is_finished() {
        if let Some(picture) = viewer.mailbox.wait(Duration::from_millis(100)) {
            let shown_us = clock::now_us();
            match read(&picture, shown_us) {
                Some(shot) => say(&shot.line()),
                // From a clip: what counts is when it was whole, and the time of the decoder does not.
                None => say(&delivered(picture.rtp_timestamp, clock::to_us(picture.decode_started_at))),
            }
        }
    }
    runtime.block_on(session).context("the session failed")??;
    Ok(())
}

fn read(picture: &Picture, shown_us: u64) -> Option<Shot> {
    let stamp = read_stamp(picture)?;
    let (width, height) = (picture.resolution.width as usize, picture.resolution.height as usize);
    let pixels = picture.pixels();
    // Green: the picture is grey.
    let sample = |x: usize, y: usize| (pixels[y * width + x] >> 8) as u8;
    let passage = Passage {
        rtp_timestamp: picture.rtp_timestamp,
        sent_us: None,
        first_packet_us: clock::to_us(picture.first_packet_at),
        last_packet_us: clock::to_us(picture.last_packet_at),
        decoded_us: clock::to_us(picture.decoded_at),
    };
    let is_damaged = wrong_patches(stamp.frame, width, height, Range::Full, sample) > 0;
    Some(Shot { frame: stamp.frame, drawn_us: stamp.time_us, shown_us, is_damaged, passage: Some(passage) })
}
