//! One access unit into RTP payloads (H.264: RFC 6184, packetization-mode 1; H.265: RFC 7798, without decoding order
//! numbers; MJPEG: RFC 2435, in `jpeg`), once for all viewers.
//!
//! Only payloads are made here: each viewer has its own SSRC, sequence numbers and header extensions, so headers are
//! put on per viewer, around the same shared bytes.

pub mod jpeg;

use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
use rov_common::access_unit::AccessUnit;
use rov_common::api::PictureTime;
use rov_common::capture_clock::Captured;
use rov_common::codec::{self, Codec, NalKind};
use rov_common::latency_mode::LatencyMode;

/// The RTP clock of all codecs, ticks per second (RFC 6184 section 8.2.1, RFC 7798 section 7.1, RFC 2435 section 3).
pub const CLOCK_RATE: u32 = 90_000;

/// The largest RTP payload in bytes. With RTP header, extensions, RTX, SRTP tag, UDP and IPv4 it makes 1,278 bytes with
/// the time of capture, below the 1,280 that any path carries (RFC 8200), so that tunnels on the tether do not fragment
/// it. The first packet of a picture is so much longer than the others: it ends a run of segmentation offload.
pub const MAX_PAYLOAD: usize = 1_200;

/// The types of fragments (RFC 6184 section 5.8, RFC 7798 section 4.4.3).
const FU_A: u8 = 28;
const H265_FU: u8 = 49;

/// One access unit, ready to be sent to any number of viewers.
#[derive(Clone, Debug)]
pub struct Frame {
    /// The access unit itself, in Annex B form, with its parameter sets if it is a keyframe; of MJPEG a picture.
    pub unit: Bytes,
    /// The payloads in order; the last one carries the marker bit. None of a JPEG picture that RTP has no room for.
    pub payloads: Vec<Bytes>,
    /// Presentation time since the start of the stream.
    pub pts: Duration,
    /// RTP timestamp without a viewer's offset, in ticks of [`CLOCK_RATE`].
    pub timestamp: u32,
    pub keyframe: bool,
    pub captured_at: Instant,
    /// The same by the server's clock of captures.
    pub captured: Captured,
    /// What viewers' buffers may wait for.
    pub latency: LatencyMode,
}

/// A moment that the stream's clocks have in common, for sender reports: the capture of a frame.
#[derive(Clone, Copy, Debug)]
pub struct Anchor {
    timestamp: u32,
    captured_at: Instant,
    captured: Captured,
}

impl From<&Frame> for Anchor {
    fn from(frame: &Frame) -> Self {
        Self { timestamp: frame.timestamp, captured_at: frame.captured_at, captured: frame.captured }
    }
}

impl Anchor {
    /// By how much the distance between its clocks is another than that of one before.
    pub fn moved(&self, before: &Self) -> Duration {
        let ticks = i64::from(self.timestamp.wrapping_sub(before.timestamp) as i32);
        let captured = self.captured.micros() as i64 - before.captured.micros() as i64;
        Duration::from_micros((ticks * 1_000_000 / i64::from(CLOCK_RATE)).abs_diff(captured))
    }

    /// The capture itself, for a viewer whose timestamps are higher by `offset`.
    pub fn picture(&self, offset: u32) -> PictureTime {
        let rtp_timestamp = self.timestamp.wrapping_add(offset);
        PictureTime { rtp_timestamp, captured_us: self.captured.micros() }
    }

    /// `now` in RTP ticks without a viewer's offset, and by the clock of captures: so receivers can tell from a report
    /// of both when the picture of any timestamp was captured.
    pub fn at(&self, now: Instant) -> (u32, Captured) {
        let since = now.saturating_duration_since(self.captured_at);
        (self.timestamp.wrapping_add(rtp_ticks(since)), Captured(self.captured.0 + since))
    }
}

/// Splits `unit` into payloads. Access unit delimiters are left out: RTP's marker bit does their work.
pub fn packetize(codec: Codec, unit: &AccessUnit, pts: Duration, captured: Captured) -> Frame {
    let payloads = match codec {
        Codec::H264 | Codec::H265 => of_nal_units(codec, unit),
        Codec::Mjpeg => jpeg::payloads(&unit.data).unwrap_or_default(),
    };
    Frame {
        unit: unit.data.clone(),
        payloads,
        pts,
        timestamp: rtp_ticks(pts),
        keyframe: unit.keyframe,
        captured_at: unit.captured_at,
        captured,
        latency: LatencyMode::default(),
    }
}

fn of_nal_units(codec: Codec, unit: &AccessUnit) -> Vec<Bytes> {
    let mut payloads = Vec::with_capacity(unit.data.len() / MAX_PAYLOAD + 4);
    // Fragments carry a header of their own, so they are copied, all into one allocation; whole NAL units are not.
    let fragment_space = unit.data.len() + (unit.data.len() / (MAX_PAYLOAD - 3) + 4) * 3;
    let mut arena = BytesMut::new();
    for nal in codec::nal_units(&unit.data) {
        match codec.nal_kind(nal) {
            NalKind::Delimiter => continue,
            // No whole header: nothing that a receiver could take.
            _ if nal.len() < codec.nal_header_len() => continue,
            _ if is_of_rtp(codec, nal) => continue,
            _ if nal.len() <= MAX_PAYLOAD => payloads.push(unit.data.slice_ref(nal)),
            _ => {
                if arena.capacity() == 0 {
                    arena.reserve(fragment_space);
                }
                fragment(codec, nal, &mut arena, &mut payloads);
            }
        }
    }
    payloads
}

/// Whether a NAL unit has a type that RTP has for packets of its own, for aggregations and fragments, or that is kept
/// for such (RFC 6184 table 1, RFC 7798 section 4.4): a receiver would take it for one of them.
fn is_of_rtp(codec: Codec, nal: &[u8]) -> bool {
    match codec {
        Codec::H264 => !(1..24).contains(&codec.nal_type(nal)),
        Codec::H265 => codec.nal_type(nal) >= 48,
        Codec::Mjpeg => false,
    }
}

/// RFC 6184 section 5.8, RFC 7798 section 4.4.3: fragments of one NAL unit, all full except the last, so that UDP
/// segmentation offload can send them as one run. The NAL unit's header goes into that of the payload, and its type
/// behind that.
fn fragment(codec: Codec, nal: &[u8], arena: &mut BytesMut, payloads: &mut Vec<Bytes>) {
    let (header, body) = nal.split_at(codec.nal_header_len());
    let room = MAX_PAYLOAD - header.len() - 1;
    let count = body.len().div_ceil(room);
    for (i, chunk) in body.chunks(room).enumerate() {
        let start = if i == 0 { 0x80 } else { 0 };
        let end = if i + 1 == count { 0x40 } else { 0 };
        match codec {
            Codec::H264 => arena.put_u8((header[0] & 0xE0) | FU_A),
            Codec::H265 => arena.put_slice(&[(header[0] & 0x81) | H265_FU << 1, header[1]]),
            Codec::Mjpeg => {}
        }
        arena.put_u8(start | end | codec.nal_type(nal));
        arena.put_slice(chunk);
        payloads.push(arena.split().freeze());
    }
}

fn rtp_ticks(pts: Duration) -> u32 {
    // Wraps at 2^32 as RTP timestamps do.
    (pts.as_nanos() * u128::from(CLOCK_RATE) / 1_000_000_000) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(nals: &[Vec<u8>]) -> AccessUnit {
        let mut data = Vec::new();
        for nal in nals {
            data.extend_from_slice(&[0, 0, 0, 1]);
            data.extend_from_slice(nal);
        }
        AccessUnit { data: data.into(), pts: Duration::ZERO, captured_at: Instant::now(), keyframe: true }
    }

    /// The receiving side of RFC 6184 and RFC 7798, written from the texts, to check ours against.
    fn depacketize(codec: Codec, payloads: &[Bytes]) -> Vec<Vec<u8>> {
        let mut nals: Vec<Vec<u8>> = Vec::new();
        for p in payloads {
            let (is_fragment, header, fu, rest) = match codec {
                Codec::H264 => (p[0] & 0x1F == 28, vec![(p[0] & 0xE0) | (p[1] & 0x1F)], p[1], &p[2..]),
                Codec::H265 => (p[0] >> 1 & 0x3F == 49, vec![(p[0] & 0x81) | (p[2] & 0x3F) << 1, p[1]], p[2], &p[3..]),
                Codec::Mjpeg => unreachable!("it has no NAL units"),
            };
            if is_fragment {
                if fu & 0x80 != 0 {
                    nals.push(header);
                }
                nals.last_mut().expect("a fragment follows its start").extend_from_slice(rest);
            } else {
                nals.push(p.to_vec());
            }
        }
        nals
    }

    fn nal(header: &[u8], len: usize) -> Vec<u8> {
        let body = (header.len()..len).map(|i| (i % 250 + 3) as u8);
        header.iter().copied().chain(body).collect()
    }

    #[test]
    fn what_goes_in_comes_out_again() {
        for len in [3, 1_199, 1_200, 1_201, 1_202, 1_203, 2_397, 2_398, 50_000] {
            for (codec, headers) in [
                (Codec::H264, [&[0x67][..], &[0x68], &[0x65]]),
                // Of a second layer and temporal level, as the header has room for.
                (Codec::H265, [&[0x42, 0x01], &[0x44, 0x01], &[0x27, 0x0A]]),
            ] {
                let nals = vec![nal(headers[0], 20), nal(headers[1], 4), nal(headers[2], len)];
                let frame = packetize(codec, &unit(&nals), Duration::ZERO, Captured::default());
                assert_eq!(depacketize(codec, &frame.payloads), nals, "{codec}, slice of {len} bytes");
                assert!(frame.payloads.iter().all(|p| p.len() <= MAX_PAYLOAD));
                let (last, rest) = frame.payloads[2..].split_last().expect("a slice");
                assert!(rest.iter().all(|p| p.len() == MAX_PAYLOAD), "only the last fragment is short");
                assert!(!last.is_empty());
            }
        }
    }

    #[test]
    fn access_unit_delimiters_are_not_sent() {
        let frame =
            packetize(Codec::H264, &unit(&[vec![0x09, 0xF0], nal(&[0x65], 10)]), Duration::ZERO, Captured::default());
        assert_eq!(frame.payloads.len(), 1);
        let frame = packetize(
            Codec::H265,
            &unit(&[vec![0x46, 0x01, 0x50], nal(&[0x28, 1], 10)]),
            Duration::ZERO,
            Captured::default(),
        );
        assert_eq!(frame.payloads.len(), 1);
    }

    #[test]
    fn what_has_no_whole_header_is_not_sent() {
        let frame =
            packetize(Codec::H265, &unit(&[vec![0x28], nal(&[0x28, 1], 10)]), Duration::ZERO, Captured::default());
        assert_eq!(frame.payloads.len(), 1);
    }

    #[test]
    fn what_receivers_would_take_for_a_fragment_is_not_sent() {
        for (codec, header, slice) in [(Codec::H264, &[0x7C][..], &[0x65][..]), (Codec::H265, &[0x62, 1], &[0x28, 1])] {
            let frame = packetize(codec, &unit(&[nal(header, 9), nal(slice, 10)]), Duration::ZERO, Captured::default());
            assert_eq!(frame.payloads, [nal(slice, 10)]);
        }
    }

    /// Through GStreamer's own depayloader.
    #[test]
    fn gstreamer_takes_the_packets_of_h265_apart() {
        use gstreamer::prelude::*;
        gstreamer::init().unwrap();
        let text = "appsrc name=in format=time \
                    caps=application/x-rtp,media=video,clock-rate=90000,encoding-name=H265,payload=96 ! rtph265depay ! \
                    video/x-h265,stream-format=byte-stream,alignment=au ! appsink name=out sync=false";
        let pipeline = gstreamer::parse::launch(text).unwrap().downcast::<gstreamer::Pipeline>().unwrap();
        let input = pipeline.by_name("in").unwrap().downcast::<gstreamer_app::AppSrc>().unwrap();
        let output = pipeline.by_name("out").unwrap().downcast::<gstreamer_app::AppSink>().unwrap();
        pipeline.set_state(gstreamer::State::Playing).unwrap();
        let nals = vec![nal(&[0x40, 1], 24), nal(&[0x42, 1], 40), nal(&[0x44, 1], 6), nal(&[0x28, 1], 9_999)];
        let frame = packetize(Codec::H265, &unit(&nals), Duration::ZERO, Captured::default());
        let mut header = [0x80, 96, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7];
        for (i, payload) in frame.payloads.iter().enumerate() {
            header[1] = 96 | if i + 1 == frame.payloads.len() { 0x80 } else { 0 };
            header[3] = i as u8;
            let packet = [&header[..], payload].concat();
            input.push_buffer(gstreamer::Buffer::from_slice(packet)).unwrap();
        }
        input.end_of_stream().unwrap();
        let sample = output.try_pull_sample(gstreamer::ClockTime::from_seconds(10)).expect("an access unit");
        let map = sample.buffer().unwrap().map_readable().unwrap();
        let found: Vec<Vec<u8>> = codec::nal_units(&map).map(<[u8]>::to_vec).collect();
        pipeline.set_state(gstreamer::State::Null).unwrap();
        assert_eq!(found, nals);
    }

    #[test]
    fn timestamps_are_in_90_khz_and_wrap() {
        assert_eq!(rtp_ticks(Duration::from_secs(1)), 90_000);
        assert_eq!(rtp_ticks(Duration::from_secs(47_722)), (47_722u64 * 90_000 % (1 << 32)) as u32);
    }
}
