//! MJPEG (RFC 2435) from the previews: pictures are made while somebody plays it, and sent to all who do.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use gstreamer::glib;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;
use gstreamer_rtsp_server as rtsp;
use gstreamer_rtsp_server::prelude::RTSPMediaExt;
use rov_common::capture_clock::CaptureClock;
use rov_common::sync::lock;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use super::feed::{DESCRIPTION, Times, buffer, capture_time, leave_description_out};
use crate::output::jpeg::JpegOutput;

/// Pictures per second.
const FPS: u32 = 5;
/// Between two attempts to get previews, of which others have all.
const RETRY: Duration = Duration::from_secs(1);

pub(super) struct Mjpeg {
    jpeg: Arc<JpegOutput>,
    /// Where pictures are waited for.
    runtime: Handle,
    /// Clients that play.
    playing: watch::Sender<usize>,
    media: Mutex<glib::WeakRef<rtsp::RTSPMedia>>,
    /// Bytes of pictures.
    fed: Arc<AtomicU64>,
}

impl Mjpeg {
    pub fn new(jpeg: &Arc<JpegOutput>, runtime: Handle) -> Arc<Self> {
        Arc::new(Self {
            jpeg: Arc::clone(jpeg),
            runtime,
            playing: watch::Sender::new(0),
            media: Mutex::default(),
            fed: Arc::default(),
        })
    }

    /// Whether one client more can have pictures: all clients here share one place among the viewers of previews.
    pub fn has_room(&self) -> bool {
        self.playing() > 0 || self.jpeg.has_room()
    }

    /// That of the times of capture.
    pub fn clock(&self) -> CaptureClock {
        self.jpeg.clock()
    }

    pub fn playing(&self) -> usize {
        *self.playing.borrow()
    }

    pub fn set_playing(&self, clients: usize) {
        self.playing.send_replace(clients);
    }

    pub fn fed(&self) -> u64 {
        self.fed.load(Ordering::Relaxed)
    }

    /// The media that is fed, if there is one.
    pub fn media(&self) -> Option<rtsp::RTSPMedia> {
        lock(&self.media).upgrade()
    }

    /// Feeds `source` for as long as it lives.
    pub fn feed(&self, media: &rtsp::RTSPMedia, source: &gst_app::AppSrc) {
        *lock(&self.media) = media.downgrade();
        // The first picture may be seconds away, and until then the thread of the server would wait to describe the
        // media.
        if let Err(error) = source.push_buffer(buffer(headers(), DESCRIPTION)) {
            tracing::error!(%error, "RTSP: the media does not take the headers of a JPEG");
        }
        media.connect_prepared(leave_description_out);
        let fed = Arc::clone(&self.fed);
        let work = pump(Arc::clone(&self.jpeg), self.playing.subscribe(), source.downgrade(), fed);
        let task = AbortOnDropHandle::new(self.runtime.spawn(work));
        // The source owns the task.
        let callbacks = gst_app::AppSrcCallbacks::builder().need_data(move |_, _| _ = &task).build();
        source.set_callbacks(callbacks);
    }
}

/// Takes pictures to the source while somebody plays. When none come nothing is sent, until they do again.
async fn pump(
    jpeg: Arc<JpegOutput>,
    mut playing: watch::Receiver<usize>,
    source: glib::WeakRef<gst_app::AppSrc>,
    fed: Arc<AtomicU64>,
) {
    let mut times = Times::default();
    while playing.wait_for(|clients| *clients > 0).await.is_ok() {
        let mut previews = match jpeg.previews(FPS) {
            Ok(previews) => previews,
            Err(too_many) => {
                tracing::warn!("no MJPEG by RTSP: {too_many}");
                tokio::time::sleep(RETRY).await;
                continue;
            }
        };
        loop {
            let picture = tokio::select! {
                _ = playing.wait_for(|clients| *clients == 0) => break,
                picture = previews.next() => picture,
            };
            // The end of the output, or of the media.
            let Some((picture, source)) = picture.zip(source.upgrade()) else { return };
            // Never more than one ahead.
            if source.current_level_bytes() == 0
                && let Some(time) = capture_time(&source, picture.captured, &mut times)
            {
                let bytes = picture.data.len() as u64;
                fed.fetch_add(bytes, Ordering::Relaxed);
                jpeg.add_sent(bytes * *playing.borrow() as u64);
                if source.push_buffer(buffer(picture.data, time)).is_err() {
                    return;
                }
            }
        }
    }
}

/// A JPEG of 16x16 without its picture: all that the payloader looks at.
pub(super) fn headers() -> Vec<u8> {
    let quantization = |table| [&[0xFF, 0xDB, 0, 67, table][..], &[1; 64]].concat();
    [
        &[0xFF, 0xD8][..],
        &quantization(0),
        &quantization(1),
        // Baseline, 4:2:0.
        &[0xFF, 0xC0, 0, 17, 8, 0, 16, 0, 16, 3, 1, 0x22, 0, 2, 0x11, 1, 3, 0x11, 1],
        &[0xFF, 0xDA, 0, 12, 3, 1, 0, 2, 0x11, 3, 0x11, 0, 63, 0],
        &[0, 0, 0xFF, 0xD9],
    ]
    .concat()
}
