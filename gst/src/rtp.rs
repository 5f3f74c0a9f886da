//! RTP packets in GStreamer's buffers.

use gstreamer as gst;
use rov_common::rtp::Header;

/// None for what is no RTP packet.
pub fn header(packet: &gst::BufferRef) -> Option<Header> {
    Header::parse(&packet.map_readable().ok()?)
}

/// That of the packet, or of the first packet, that a probe is called for.
pub fn first_header(info: &gst::PadProbeInfo) -> Option<Header> {
    header(info.buffer().map(|buffer| buffer.as_ref()).or_else(|| info.buffer_list()?.get(0))?)
}
