//! The decoder of a session, which may be ready before there is one.

use std::sync::{Arc, Mutex};

use anyhow::Context;
use rov_common::codec::Codec;
use rov_common::sync::lock;
use rov_gst::decoders::DecoderChoice;
use tokio::sync::mpsc;

use crate::decode::{DecodeEvent, Decoder, DecoderConfig};
use crate::receive::{PAYLOAD_TYPE, Waits};
use crate::target::SessionError;
use crate::viewer::Viewer;

/// A decoder that waits for packets.
pub struct Prepared {
    pub decoder: Arc<Decoder>,
    pub requests: Arc<Requests>,
    waits: Waits,
}

/// What the decoder wants of the session that feeds it now.
#[derive(Default)]
pub struct Requests {
    pub keyframe: Mutex<Option<mpsc::Sender<()>>>,
    /// Why no decoder works.
    pub failed: Mutex<Option<String>>,
}

impl Requests {
    fn take_event(&self, event: DecodeEvent) {
        match event {
            DecodeEvent::KeyframeNeeded { reason } => {
                tracing::debug!(reason, "asking for a keyframe");
                if let Some(wanted) = &*lock(&self.keyframe) {
                    // A request that waits already stands for this one too.
                    let _ = wanted.try_send(());
                }
            }
            DecodeEvent::Playing { decoder, resolution } => tracing::info!(decoder, %resolution, "decoding"),
            DecodeEvent::Failed { tried } => {
                let tried: Vec<String> = tried.iter().map(|(decoder, why)| format!("{decoder}: {why}")).collect();
                *lock(&self.failed) = Some(format!("no decoder works ({})", tried.join("; ")));
            }
        }
    }
}

impl Prepared {
    /// Takes the one in `kept` if it fits, else starts one that waits so. `codec` is what is
    /// expected; the way in says what really comes.
    pub async fn keep_or_start(
        kept: &mut Option<Self>,
        choice: &DecoderChoice,
        codec: Codec,
        waits: Waits,
        viewer: &Viewer,
    ) -> Result<Self, SessionError> {
        if let Some(kept) = kept.take().filter(|kept| kept.waits == waits) {
            return Ok(kept);
        }
        let decoder_config = DecoderConfig {
            codec,
            choice: choice.clone(),
            latency: waits.by_decoder,
            waited: waits.before,
            payload_type: PAYLOAD_TYPE,
            output: None,
        };
        let requests = Arc::new(Requests::default());
        let (mailbox, events) = (Arc::clone(&viewer.mailbox), Arc::clone(&requests));
        let start = move || Decoder::start(decoder_config, mailbox, move |event| events.take_event(event));
        let decoder = tokio::task::spawn_blocking(start).await.context("the decoder's thread panicked")??;
        Ok(Self { decoder: Arc::new(decoder), requests, waits })
    }

    /// It can be given to the next session.
    pub fn is_unused(&self) -> bool {
        self.decoder.stats().packets == 0 && lock(&self.requests.failed).is_none()
    }
}
