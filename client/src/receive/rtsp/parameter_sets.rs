//! Parameter sets that a camera gives in its SDP alone (`sprop-parameter-sets` of RFC 6184 section 8.1, `sprop-vps` and
//! the like of RFC 7798 section 7.1), put into the stream in front of each keyframe that lacks them. Pure.

use bytes::Bytes;
use rov_common::codec::{Codec, NalKind};
use rov_common::rtp::Header;

use crate::receive::packet::Packet;

/// Types of packets that are no NAL unit: the aggregation packet (STAP-A of RFC 6184 section 5.7.1, AP of RFC 7798
/// section 4.4.2), and the fragment (FU-A of section 5.8, FU of section 4.4.3). MJPEG has none, nor any sets.
const fn packet_types(codec: Codec) -> (u8, u8) {
    match codec {
        Codec::H264 => (24, 28),
        Codec::H265 => (48, 49),
        Codec::Mjpeg => (0, 0),
    }
}

/// Sees the packets of one stream in order.
#[derive(Debug)]
pub struct ParameterSets {
    codec: Codec,
    /// Both sets in one packet's payload; none: the SDP has none.
    payload: Option<Bytes>,
    /// Of the picture whose packets come now.
    timestamp: Option<u32>,
    /// It has its sets, its own or ours.
    supplied: bool,
    /// So many packets were put in: all behind them are renumbered.
    inserted: u16,
}

impl ParameterSets {
    /// From the NAL units of the SDP.
    pub fn new(codec: Codec, nals: &[Vec<u8>]) -> Self {
        let needed: &[NalKind] = match codec {
            Codec::H264 => &[NalKind::Sps, NalKind::Pps],
            Codec::H265 => &[NalKind::Vps, NalKind::Sps, NalKind::Pps],
            Codec::Mjpeg => &[],
        };
        let complete = needed.iter().all(|kind| nals.iter().any(|nal| codec.nal_kind(nal) == *kind));
        let fits = nals.iter().all(|nal| u16::try_from(nal.len()).is_ok());
        let payload = (codec.has_parameter_sets() && complete && fits).then(|| {
            let (aggregation, _) = packet_types(codec);
            // The header has the highest importance of those within, or the lowest layer and time; then size and NAL
            // unit each.
            let mut payload = match codec {
                Codec::H264 => vec![0x60 | aggregation],
                Codec::H265 => vec![aggregation << 1, 1],
                Codec::Mjpeg => Vec::new(),
            };
            for nal in nals {
                payload.extend_from_slice(&(nal.len() as u16).to_be_bytes());
                payload.extend_from_slice(nal);
            }
            Bytes::from(payload)
        });
        Self { codec, payload, timestamp: None, supplied: false, inserted: 0 }
    }

    /// Hands `packet` on, and in front of it the sets where they are missing.
    pub fn pass(&mut self, mut packet: Packet, mut deliver: impl FnMut(Packet)) {
        let header = packet.header;
        if self.timestamp.replace(header.timestamp) != Some(header.timestamp) {
            self.supplied = false;
        }
        let sequence = header.sequence.wrapping_add(self.inserted);
        let (has_sets, begins_keyframe) = contents(self.codec, &packet.payload);
        self.supplied |= has_sets;
        if begins_keyframe
            && !self.supplied
            && let Some(payload) = &self.payload
        {
            // The picture goes on.
            let header = Header { marker: false, sequence, ..header };
            deliver(Packet { header, captured: None, payload: payload.clone() });
            self.supplied = true;
            self.inserted = self.inserted.wrapping_add(1);
        }
        packet.header.sequence = header.sequence.wrapping_add(self.inserted);
        deliver(packet);
    }
}

/// Whether a payload holds an SPS, and whether a slice of a keyframe begins in it.
fn contents(codec: Codec, payload: &[u8]) -> (bool, bool) {
    let mut found = (false, false);
    if !codec.has_parameter_sets() {
        return found;
    }
    let mut look = |nal: &[u8]| {
        let kind = codec.nal_kind(nal);
        found.0 |= kind == NalKind::Sps;
        found.1 |= kind == NalKind::KeyframeSlice;
    };
    let (aggregation, fragment) = packet_types(codec);
    let body = payload.get(codec.nal_header_len()..).unwrap_or_default();
    match codec.nal_type(payload) {
        kind if kind == aggregation => {
            let mut rest = body;
            while let [high, low, nal @ ..] = rest
                && !nal.is_empty()
            {
                look(&nal[..1]);
                rest = nal.get(usize::from(u16::from_be_bytes([*high, *low]))..).unwrap_or_default();
            }
        }
        kind if kind == fragment => {
            // The fragment's own header: start, end, and the type of the NAL unit.
            if let Some(header) = body.first().filter(|header| *header & 0x80 != 0) {
                match codec {
                    Codec::H264 => look(&[header & 0x1f]),
                    Codec::H265 => look(&[(header & 0x3f) << 1]),
                    Codec::Mjpeg => {}
                }
            }
        }
        _ => look(payload),
    }
    found
}

#[cfg(test)]
mod tests {
    use rov_common::capture_clock::Captured;

    use super::*;

    const SPS_NAL: [u8; 3] = [0x67, 0x42, 0];
    const PPS_NAL: [u8; 2] = [0x68, 0xce];

    fn packet(sequence: u16, timestamp: u32, payload: &[u8]) -> Packet {
        let header = Header { marker: true, payload_type: 96, sequence, timestamp, ssrc: 7 };
        Packet { header, captured: None, payload: Bytes::copy_from_slice(payload) }
    }

    /// Passes packets on, and gives sequence number, timestamp and first payload byte of what comes out.
    fn passed(sets: &mut ParameterSets, packets: &[Packet]) -> Vec<(u16, u32, u8)> {
        let mut out = Vec::new();
        for packet in packets {
            sets.pass(packet.clone(), |Packet { header, payload, .. }| {
                out.push((header.sequence, header.timestamp, payload.first().copied().unwrap_or(0)));
            });
        }
        out
    }

    #[test]
    fn keyframes_without_sets_get_those_of_the_sdp() {
        let mut sets = ParameterSets::new(Codec::H264, &[SPS_NAL.to_vec(), PPS_NAL.to_vec()]);
        let keyframe = [0x7c, 0x85, 1];
        let packets = [
            packet(65_534, 1, &[0x41, 1]),
            packet(65_535, 2, &keyframe),
            packet(0, 2, &[0x7c, 0x45, 2]),
            packet(1, 2, &keyframe),
            packet(3, 3, &[0x65, 1]),
        ];
        let out = passed(&mut sets, &packets);
        let expected = [(65_534, 1, 0x41), (65_535, 2, 0x78), (0, 2, 0x7c), (1, 2, 0x7c), (2, 2, 0x7c), (4, 3, 0x78)];
        assert_eq!(out[..6], expected);
        assert_eq!(out[6], (5, 3, 0x65), "the gap stays one packet wide");
    }

    #[test]
    fn the_packet_that_is_put_in_holds_both_sets() {
        let mut sets = ParameterSets::new(Codec::H264, &[SPS_NAL.to_vec(), PPS_NAL.to_vec()]);
        let mut out = Vec::new();
        let keyframe = Packet { captured: Some(Captured::default()), ..packet(9, 1, &[0x65, 1]) };
        sets.pass(keyframe.clone(), |packet| out.push(packet));
        let payload = Bytes::from_static(&[0x78, 0, 3, 0x67, 0x42, 0, 0, 2, 0x68, 0xce]);
        let header = Header { marker: false, ..keyframe.header };
        let behind = Packet { header: Header { sequence: 10, ..keyframe.header }, ..keyframe };
        assert_eq!(out, [Packet { header, captured: None, payload }, behind]);
    }

    #[test]
    fn a_stream_with_sets_of_its_own_stays_as_it_is() {
        let mut sets = ParameterSets::new(Codec::H264, &[SPS_NAL.to_vec(), PPS_NAL.to_vec()]);
        let stap = [&[0x78, 0, 3][..], &SPS_NAL, &[0, 2], &PPS_NAL, &[0, 2, 0x65, 1]].concat();
        let packets = [packet(1, 1, &SPS_NAL), packet(2, 1, &PPS_NAL), packet(3, 1, &[0x65, 1]), packet(4, 2, &stap)];
        assert_eq!(passed(&mut sets, &packets).len(), 4);
        for nals in [vec![], vec![SPS_NAL.to_vec()]] {
            assert_eq!(passed(&mut ParameterSets::new(Codec::H264, &nals), &[packet(1, 1, &[0x65, 1])]).len(), 1);
        }
    }

    #[test]
    fn h265_has_three_sets_and_packets_of_its_own() {
        let nals = [vec![0x40, 1, 7], vec![0x42, 1, 7], vec![0x44, 1, 7]];
        let mut sets = ParameterSets::new(Codec::H265, &nals);
        let mut out = Vec::new();
        // The first fragment of an IDR picture, and one of another picture.
        sets.pass(packet(9, 1, &[0x62, 1, 0x93, 5]), |packet| out.push(packet));
        sets.pass(packet(10, 2, &[0x62, 1, 0x81, 5]), |packet| out.push(packet));
        assert_eq!(out.len(), 3);
        assert_eq!(out[0].payload[..], [0x60, 1, 0, 3, 0x40, 1, 7, 0, 3, 0x42, 1, 7, 0, 3, 0x44, 1, 7]);
        let own = [&[0x60, 1][..], &out[0].payload[2..]].concat();
        let packets = [packet(11, 3, &own), packet(12, 3, &[0x26, 1, 5])];
        assert_eq!(passed(&mut sets, &packets).len(), 2);
        assert!(ParameterSets::new(Codec::H265, &nals[1..]).payload.is_none(), "without the VPS");
    }

    #[test]
    fn damaged_packets_do_no_harm() {
        let mut sets = ParameterSets::new(Codec::H264, &[SPS_NAL.to_vec(), PPS_NAL.to_vec()]);
        for payload in [&[][..], &[0x78], &[0x78, 0xff], &[0x78, 0, 9, 0x41], &[0x7c], &[0x78, 0, 0, 0, 0]] {
            assert_eq!(passed(&mut sets, &[packet(1, 1, payload)]).len(), 1, "{payload:x?}");
        }
    }
}
