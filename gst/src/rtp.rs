//! RTP packets in GStreamer's buffers: their headers, and marker bits that depayloaders can go by.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_video as gst_video;
use rov_common::codec::{self, Codec};
use rov_common::lossy::Keyframes;
use rov_common::marker::{self, Markers};
use rov_common::rtp::{Header, set_sequence};
use rov_common::sync::lock;

use crate::counter::Counter;
use crate::decoders;
use crate::element::is_made_by;
use crate::losses::{Losses, Start};

/// None for what is no RTP packet.
pub fn header(packet: &gst::BufferRef) -> Option<Header> {
    Header::parse(&packet.map_readable().ok()?)
}

/// Gives the packet another sequence number.
pub fn set_number(packet: &mut gst::Buffer, header: Header, number: u16) {
    if header.sequence != number
        && let Ok(mut bytes) = packet.make_mut().map_writable()
    {
        set_sequence(&mut bytes, number);
    }
}

/// That of the packet, or of the first packet, that a probe is called for.
pub fn first_header(info: &gst::PadProbeInfo) -> Option<Header> {
    header(info.buffer().map(|buffer| buffer.as_ref()).or_else(|| info.buffer_list()?.get(0))?)
}

/// What is left out of a source by RTP as packets were lost.
#[derive(Debug)]
pub struct LeftOut {
    pictures: Arc<Counter>,
    /// Since when the next whole keyframe is waited for.
    awaited: Mutex<Option<Instant>>,
    keyframes: Mutex<Keyframes>,
}

/// A picture that depayloaders give, and what is done with it.
#[derive(Clone, Copy, Debug)]
pub struct Judged {
    pub start: Start,
    /// Since when the next whole keyframe is waited for; then the picture is left out.
    pub awaited: Option<Instant>,
}

impl LeftOut {
    /// `pictures` counts them.
    pub fn new(pictures: Arc<Counter>) -> Self {
        Self { pictures, awaited: Mutex::default(), keyframes: Mutex::default() }
    }

    pub fn picture_came(&self, Judged { start, awaited }: Judged) {
        *lock(&self.awaited) = awaited;
        if start == Start::Keyframe {
            lock(&self.keyframes).came(Instant::now());
        }
        if awaited.is_some() {
            self.pictures.add();
        }
    }

    /// Since when a whole keyframe is waited for, and when the newest picture came that is left out for that.
    pub fn keyframe_awaited(&self) -> Option<(Instant, Instant)> {
        lock(&self.awaited).zip(self.pictures.last())
    }

    /// Whether a whole keyframe is waited for, and a new session with the camera would bring one sooner.
    pub fn keyframe_is_too_far(&self, now: Instant) -> bool {
        let (keyframes, awaited) = (*lock(&self.keyframes), *lock(&self.awaited));
        awaited.is_some_and(|since| keyframes.are_too_far(since, now))
    }
}

/// Has the depayloaders of `bin` take for one access unit what has one time stamp, whatever a camera's marker bits say,
/// and leave out what a loss of packets has damaged. `on_picture` hears of each picture. `renumbered`: packets have new
/// numbers, by which no loss is seen.
pub fn correct_packets(bin: &gst::Bin, renumbered: bool, on_picture: impl Fn(Judged) + Clone + Send + Sync + 'static) {
    for depayloader in bin.iterate_recurse().into_iter().flatten() {
        let is_of = |codec: &Codec| is_made_by(&depayloader, decoders::depayloader(*codec));
        let Some(codec) = Codec::ALL.into_iter().find(is_of) else { continue };
        if let Some((sink, src)) = depayloader.static_pad("sink").zip(depayloader.static_pad("src")) {
            let losses = Arc::new(Mutex::new(Losses::default()));
            judge_packets(&sink, codec, renumbered, Arc::clone(&losses));
            leave_out_damaged(&src, codec, losses, on_picture.clone());
        }
    }
}

fn judge_packets(sink: &gst::Pad, codec: Codec, renumbered: bool, losses: Arc<Mutex<Losses>>) {
    let (markers, is_judged, last) = (Mutex::new(Markers::default()), AtomicBool::new(false), Mutex::new(None));
    sink.add_probe(gst::PadProbeType::BUFFER | gst::PadProbeType::BUFFER_LIST, move |pad, info| {
        // What is sent from below comes by here once more.
        if is_judged.load(Ordering::Relaxed) {
            return gst::PadProbeReturn::Ok;
        }
        let packets = match &info.data {
            Some(gst::PadProbeData::Buffer(packet)) => vec![packet.clone()],
            Some(gst::PadProbeData::BufferList(list)) => list.iter_owned().collect(),
            _ => return gst::PadProbeReturn::Ok,
        };
        // One after the other: a loss counts from the pictures on that come out behind it.
        info.flow_res = packets.into_iter().try_fold(gst::FlowSuccess::Ok, |_, mut packet| {
            find_loss(&mut lock(&last), codec, renumbered, &mut packet, &losses);
            if lock(&losses).asks(packet.pts()) {
                pad.push_event(gst_video::UpstreamForceKeyUnitEvent::builder().all_headers(true).build());
            }
            let passed = pass(&mut lock(&markers), codec, packet);
            is_judged.store(true, Ordering::Relaxed);
            let flow = passed.into_iter().try_fold(gst::FlowSuccess::Ok, |_, packet| pad.chain(packet));
            is_judged.store(false, Ordering::Relaxed);
            flow
        });
        gst::PadProbeReturn::Handled
    });
}

/// `last`: the packet that came last, and its time.
fn find_loss(
    last: &mut Option<(marker::Packet, Option<gst::ClockTime>)>,
    codec: Codec,
    renumbered: bool,
    packet: &mut gst::Buffer,
    losses: &Mutex<Losses>,
) {
    let header = packet.map_readable().ok().and_then(|bytes| marker::Packet::parse(codec, &bytes));
    let Some(header) = header else { return };
    let Some((before, behind)) = last.replace((header, packet.pts())) else { return };
    // A picture is known by its time, which from a bare socket is that of each packet's arrival.
    if before.is_of_the_picture_of(&header) && packet.pts() != behind {
        packet.make_mut().set_pts(behind);
        *last = Some((header, behind));
    }
    // So a jitter buffer marks the first packet behind a gap.
    let is_gap = renumbered && packet.flags().contains(gst::BufferFlags::DISCONT);
    let is_damaged = before.is_gap_before(&header).or(is_gap.then_some(true));
    if let Some(is_damaged) = is_damaged {
        lock(losses).lost(behind, packet.pts().filter(|_| is_damaged));
    }
}

fn leave_out_damaged(
    src: &gst::Pad,
    codec: Codec,
    losses: Arc<Mutex<Losses>>,
    on_picture: impl Fn(Judged) + Send + Sync + 'static,
) {
    let since = Mutex::new(None);
    src.add_probe(gst::PadProbeType::BUFFER, move |pad, info| {
        let Some(picture) = info.buffer() else { return gst::PadProbeReturn::Ok };
        let mut losses = lock(&losses);
        let start = start_of(pad, codec, picture, losses.are_waited_out());
        let lets_through = losses.lets_through(picture.pts(), start);
        drop(losses);
        let mut since = lock(&since);
        *since = if lets_through { None } else { since.or_else(|| Some(Instant::now())) };
        on_picture(Judged { start, awaited: *since });
        if lets_through { gst::PadProbeReturn::Ok } else { gst::PadProbeReturn::Drop }
    });
}

/// Whether decoding may begin with what a depayloader gives, or it stands before that. The depayloader takes parameter
/// sets for a keyframe, with whatever picture they come. `seeks`: recovery points matter now.
fn start_of(pad: &gst::Pad, codec: Codec, unit: &gst::BufferRef, seeks: bool) -> Start {
    let is_delta = unit.flags().contains(gst::BufferFlags::DELTA_UNIT);
    if is_delta && !seeks {
        return Start::None;
    }
    let format = pad.current_caps().and_then(|caps| caps.structure(0)?.get::<String>("stream-format").ok());
    // Otherwise parameter sets are in the caps.
    if format.as_deref() != Some("byte-stream") {
        return if is_delta { Start::None } else { Start::Keyframe };
    }
    let Ok(data) = unit.map_readable() else { return Start::None };
    let has_slice = || codec::nal_units(&data).any(|nal| codec.nal_kind(nal).is_slice());
    if !is_delta && (codec::is_keyframe(codec, &data) || !has_slice()) {
        return Start::Keyframe;
    }
    if seeks && codec::is_recovery_point(codec, &data) { Start::RecoveryPoint } else { Start::None }
}

/// Those that go on, with the marker bits that count.
fn pass(markers: &mut Markers<gst::Buffer>, codec: Codec, packet: gst::Buffer) -> Vec<gst::Buffer> {
    let header = packet.map_readable().ok().and_then(|bytes| marker::Packet::parse(codec, &bytes));
    let judged = markers.pass(header, packet);
    judged
        .map(|(mut packet, clear)| {
            if clear && let Ok(mut bytes) = packet.make_mut().map_writable() {
                marker::clear(&mut bytes);
            }
            packet
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pictures of one packet each, in milliseconds, with the packets' numbers.
    fn packets(pictures: &[(u8, u8)]) -> gst::BufferList {
        let packet = |&(sequence, ms): &(u8, u8)| {
            let nal: [u8; 3] = if ms == 0 { [0x65, 0x88, 0x84] } else { [0x41, 0x9a, 0x84] };
            let bytes = [&[0x80, 0xe0, 0, sequence, 0, 0, 0, ms, 0, 0, 0, 7][..], &nal].concat();
            let mut packet = gst::Buffer::from_mut_slice(bytes);
            packet.get_mut().unwrap().set_pts(gst::ClockTime::from_mseconds(ms.into()));
            packet
        };
        pictures.iter().map(packet).collect()
    }

    #[test]
    fn after_a_loss_a_recovery_point_is_seen_in_what_the_depayloader_gives() {
        gst::init().unwrap();
        let pad = gst::Pad::new(gst::PadDirection::Src);
        pad.set_active(true).unwrap();
        pad.push_event(gst::event::StreamStart::new("test"));
        pad.push_event(gst::event::Caps::new(&"video/x-h264,stream-format=byte-stream,alignment=au".parse().unwrap()));
        let start = |bytes: &[u8], is_delta: bool| {
            let mut unit = gst::Buffer::from_mut_slice(bytes.to_vec());
            if is_delta {
                unit.get_mut().unwrap().set_flags(gst::BufferFlags::DELTA_UNIT);
            }
            start_of(&pad, Codec::H264, &unit, true)
        };
        let recovery = [0, 0, 0, 1, 6, 6, 1, 0x84, 0x80, 0, 0, 0, 1, 0x41, 0x9a, 0x84];
        for is_delta in [true, false] {
            assert_eq!(start(&recovery, is_delta), Start::RecoveryPoint);
            assert_eq!(start(&recovery[9..], is_delta), Start::None);
        }
        assert_eq!(start(&[0, 0, 0, 1, 0x65, 0x88, 0x84], false), Start::Keyframe);
        assert_eq!(start(&[0, 0, 0, 1, 0x67, 0x42, 0, 30], false), Start::Keyframe, "it stands before one");
    }

    #[test]
    fn a_loss_within_a_list_of_packets_counts_behind_the_keyframe_in_front_of_it() {
        gst::init().unwrap();
        let text = "rtph264depay name=depay ! video/x-h264,stream-format=byte-stream,alignment=au \
                    ! fakesink name=out sync=false async=false";
        let bin = gst::parse::bin_from_description(text, false).unwrap();
        let (seen, left_out) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(0)));
        let counted = Arc::clone(&left_out);
        correct_packets(&bin, false, move |judged| *lock(&counted) += i32::from(judged.awaited.is_some()));
        let (out, times) = (bin.by_name("out").unwrap().static_pad("sink").unwrap(), Arc::clone(&seen));
        out.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
            lock(&times).push(info.buffer().unwrap().pts().unwrap().mseconds());
            gst::PadProbeReturn::Ok
        });
        bin.set_state(gst::State::Playing).unwrap();
        let sink = bin.by_name("depay").unwrap().static_pad("sink").unwrap();
        sink.send_event(gst::event::StreamStart::new("test"));
        let caps = "application/x-rtp,media=video,clock-rate=90000,encoding-name=H264,payload=96";
        sink.send_event(gst::event::Caps::new(&caps.parse().unwrap()));
        sink.send_event(gst::event::Segment::new(&gst::FormattedSegment::<gst::ClockTime>::new()));
        let sent = sink.chain_list(packets(&[(1, 0), (2, 1), (3, 2), (5, 4), (6, 5), (7, 6)]));
        bin.set_state(gst::State::Null).unwrap();
        sent.unwrap();
        assert_eq!(*lock(&seen), [0, 1, 2]);
        assert_eq!(*lock(&left_out), 3);
    }
}
