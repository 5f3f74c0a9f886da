//! Further streams of a camera whose first one goes out untouched: which of its access units are decoded for them, and
//! which pictures of those are shown.
//!
//! None may be left out in the middle. So nothing leaks in front of the decoder: what is too slow, rests, or was
//! damaged goes on at the next keyframe of the source, for which nobody can ask. The first stream waits for nothing
//! here.

use std::sync::Arc;

use bytes::Bytes;
use gstreamer as gst;
use gstreamer::prelude::*;
use rov_common::codec::{self, Codec};
use rov_common::sync::lock;
use rov_gst::decoders::{self, Candidate, DecoderChoice};

use super::capture::Branch;
use super::feed::{Feed, Taken};
use super::source::Machine;
use super::valve::Valve;

/// In front of the decoder.
pub const CODED_QUEUE: &str = "rov_coded";
/// Access units that wait for it: for so many it may fall behind.
const BACKLOG: u32 = 8;

/// From access units to raw pictures in system memory.
pub fn text(codec: Codec, machine: &Machine) -> String {
    // Without any, the name of this one says what is missing.
    let decoder = decoder(codec, machine).map_or_else(|| format!("avdec_{codec}"), |decoder| decoder.description);
    format!("queue name={CODED_QUEUE} max-size-buffers={BACKLOG} max-size-bytes=0 max-size-time=0 ! {decoder}")
}

/// The first of the table that this machine has and that opens.
pub fn decoder(codec: Codec, machine: &Machine) -> Option<Candidate> {
    let exists = |element: &str| (machine.has_property)(element, "name");
    let all = decoders::candidates(codec, &DecoderChoice::Auto, &exists, machine.has_property);
    all.into_iter().find(|candidate| (machine.opens)(&candidate.element))
}

/// Whether an element finds what it needs, as the driver of its hardware.
pub fn opens(element: &str) -> bool {
    let Ok(element) = gst::ElementFactory::make(element).build() else { return false };
    let opens = element.set_state(gst::State::Ready).is_ok();
    // What it holds is let go of by its end too.
    let _ = element.set_state(gst::State::Null);
    opens
}

impl Branch {
    /// Whether somebody wants its pictures, and they begin at the next keyframe of the source.
    pub fn waits_for_keyframe(&self) -> bool {
        *lock(&self.feed) == Feed::SHUT && *lock(&self.valve) != Valve::Shut
    }
}

/// `coded`, `raw`: the queues in front of the decoder and of the encoder.
pub(super) fn install(coded: &gst::Element, raw: &gst::Pad, codec: Codec, branch: &Arc<Branch>) {
    let Some(pad) = coded.static_pad("sink") else { return };
    *lock(&branch.feed) = Feed::SHUT;
    let (weak, queue) = (Arc::downgrade(branch), coded.downgrade());
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        let (Some(branch), Some(queue)) = (weak.upgrade(), queue.upgrade()) else {
            return gst::PadProbeReturn::Ok;
        };
        let Some(buffer) = info.buffer_mut() else { return gst::PadProbeReturn::Ok };
        let is_full = queue.property::<u32>("current-level-buffers") >= BACKLOG;
        match feed(buffer, codec, is_full, &branch) {
            Taken::In => {
                branch.coded.add();
                return gst::PadProbeReturn::Ok;
            }
            Taken::Waits => {
                branch.frames_in.add();
                branch.frames_unwanted.add();
            }
            Taken::Full => branch.frames_in.add(),
        }
        gst::PadProbeReturn::Handled
    });
    let weak = Arc::downgrade(branch);
    raw.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        let (Some(branch), Some(picture)) = (weak.upgrade(), info.buffer()) else { return gst::PadProbeReturn::Ok };
        let damaged = picture.flags().contains(gst::BufferFlags::CORRUPTED);
        match lock(&branch.feed).shows(picture.pts(), damaged) {
            true => gst::PadProbeReturn::Ok,
            false => gst::PadProbeReturn::Handled,
        }
    });
}

fn feed(buffer: &mut gst::Buffer, codec: Codec, is_full: bool, branch: &Branch) -> Taken {
    let mut feed = lock(&branch.feed);
    if *lock(&branch.valve) == Valve::Shut {
        *feed = Feed::SHUT;
        return Taken::Waits;
    }
    let Ok(map) = buffer.map_readable() else { return Taken::Waits };
    let keyframe = codec::is_keyframe(codec, &map);
    let rewritten =
        (keyframe && codec == Codec::H264).then(|| codec::rewrite_access_unit(Bytes::copy_from_slice(&map)));
    drop(map);
    let taken = feed.take(buffer.pts(), keyframe, is_full);
    if let Some(unit) = rewritten.filter(|_| taken == Taken::In) {
        // So that no decoder holds pictures back, as viewers' do not.
        let mut copy = gst::Buffer::from_slice(unit);
        if let Some(copy) = copy.get_mut() {
            copy.set_pts(buffer.pts());
            copy.set_dts(buffer.dts());
            copy.set_duration(buffer.duration());
            copy.set_flags(buffer.flags() & gst::BufferFlags::DISCONT);
        }
        *buffer = copy;
    }
    taken
}
