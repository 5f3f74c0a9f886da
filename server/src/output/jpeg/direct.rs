//! The pictures of a stream of MJPEG, which go out as they are.

use std::sync::{Arc, Mutex};

use rov_common::sync::lock;

use super::{Picture, Rate, Shared, Size};
use crate::packetize::Frame;
use crate::stream::{Awake, OutputQueue, Stream};

/// Hands pictures on until it is dropped.
pub struct Direct {
    stream: Arc<Stream>,
    queue: Arc<OutputQueue>,
    _awake: Awake,
}

impl Direct {
    pub fn start(shared: &Arc<Shared>) -> Self {
        let awake = shared.stream.demand().keep_awake();
        let (weak, rate) = (Arc::downgrade(shared), Mutex::new(Rate::default()));
        // On the thread of the capture: nothing here blocks.
        let queue = shared.stream.add_output(move |queue| {
            while let Some(frame) = queue.take() {
                if let Some(shared) = weak.upgrade() {
                    hand_on(&frame, &shared, &mut lock(&rate));
                }
            }
        });
        Self { stream: Arc::clone(&shared.stream), queue, _awake: awake }
    }
}

fn hand_on(frame: &Frame, shared: &Shared, rate: &mut Rate) {
    let Frame { captured_at, captured, .. } = *frame;
    let picture = || Picture { data: frame.unit.clone(), captured_at, captured };
    if shared.snapshot_wanted() {
        shared.publish(Size::Whole, picture());
    }
    if rate.keeps(shared.preview_rate(), frame.pts) {
        shared.publish(Size::Preview, picture());
    }
}

impl Drop for Direct {
    fn drop(&mut self) {
        self.stream.remove_output(&self.queue);
    }
}
