//! RTP packets in GStreamer's buffers: their headers, and marker bits that depayloaders can go by.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_video as gst_video;
use rov_common::codec::Codec;
use rov_common::marker::{self, Markers};
use rov_common::rtp::Header;
use rov_common::sync::lock;

use crate::element::is_made_by;

/// None for what is no RTP packet.
pub fn header(packet: &gst::BufferRef) -> Option<Header> {
    Header::parse(&packet.map_readable().ok()?)
}

/// That of the packet, or of the first packet, that a probe is called for.
pub fn first_header(info: &gst::PadProbeInfo) -> Option<Header> {
    header(info.buffer().map(|buffer| buffer.as_ref()).or_else(|| info.buffer_list()?.get(0))?)
}

/// Has the depayloaders of `bin` take for one access unit what has one time stamp, whatever a camera's marker bits say.
/// `on_loss` hears where packets are missing, with the times of the pictures behind which and before which they are, of
/// the latter only where it is damaged too, and says whether a keyframe is to be asked for.
pub fn correct_markers(
    bin: &gst::Bin,
    codec: Codec,
    on_loss: impl Fn(Option<gst::ClockTime>, Option<gst::ClockTime>) -> bool + Clone + Send + Sync + 'static,
) {
    let name = format!("rtp{codec}depay");
    let is_depayloader = |element: &gst::Element| is_made_by(element, &name);
    let depayloaders = bin.iterate_recurse().into_iter().flatten().filter(is_depayloader);
    for pad in depayloaders.filter_map(|depayloader| depayloader.static_pad("sink")) {
        let (markers, is_judged) = (Mutex::new(Markers::default()), AtomicBool::new(false));
        let (on_loss, last) = (on_loss.clone(), Mutex::new(None));
        pad.add_probe(gst::PadProbeType::BUFFER | gst::PadProbeType::BUFFER_LIST, move |pad, info| {
            // What is sent from below comes by here once more.
            if is_judged.load(Ordering::Relaxed) {
                return gst::PadProbeReturn::Ok;
            }
            let packets = match &info.data {
                Some(gst::PadProbeData::Buffer(packet)) => vec![packet.clone()],
                Some(gst::PadProbeData::BufferList(list)) => list.iter_owned().collect(),
                _ => return gst::PadProbeReturn::Ok,
            };
            if find_losses(&mut lock(&last), codec, &packets, &on_loss) {
                // By RTCP, where the camera's SDP offers that.
                pad.push_event(gst_video::UpstreamForceKeyUnitEvent::builder().all_headers(true).build());
            }
            let passed = pass(&mut lock(&markers), codec, packets);
            is_judged.store(true, Ordering::Relaxed);
            info.flow_res = passed.into_iter().try_fold(gst::FlowSuccess::Ok, |_, packet| pad.chain(packet));
            is_judged.store(false, Ordering::Relaxed);
            gst::PadProbeReturn::Handled
        });
    }
}

/// Whether a keyframe is to be asked for. `last`: the packet that came last, and its time.
fn find_losses(
    last: &mut Option<(marker::Packet, Option<gst::ClockTime>)>,
    codec: Codec,
    packets: &[gst::Buffer],
    on_loss: impl Fn(Option<gst::ClockTime>, Option<gst::ClockTime>) -> bool,
) -> bool {
    let headers = packets.iter().filter_map(|packet| {
        let header = marker::Packet::parse(codec, &packet.map_readable().ok()?)?;
        Some((header, packet.pts()))
    });
    let mut wanted = false;
    for (header, pts) in headers {
        if let Some((before, behind)) = last.replace((header, pts))
            && let Some(is_damaged) = before.is_gap_before(&header)
        {
            wanted |= on_loss(behind, pts.filter(|_| is_damaged));
        }
    }
    wanted
}

/// Those that go on, with the marker bits that count.
fn pass(markers: &mut Markers<gst::Buffer>, codec: Codec, packets: Vec<gst::Buffer>) -> Vec<gst::Buffer> {
    let header = |packet: &gst::Buffer| marker::Packet::parse(codec, &packet.map_readable().ok()?);
    let judged = packets.into_iter().flat_map(|packet| markers.pass(header(&packet), packet));
    judged
        .map(|(mut packet, clear)| {
            if clear && let Ok(mut bytes) = packet.make_mut().map_writable() {
                marker::clear(&mut bytes);
            }
            packet
        })
        .collect()
}
