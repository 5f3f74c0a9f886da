//! Parameter sets that a camera gives in its SDP alone (`sprop-parameter-sets` of RFC 6184 section 8.1, `sprop-vps` and
//! the like of RFC 7798 section 7.1), put into the stream in front of each keyframe that lacks them. Pure.

use bytes::Bytes;
use rov_common::codec::{Codec, NalKind};
use rov_common::rtp::{self, Header};

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
    payload: Option<Vec<u8>>,
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
            payload
        });
        Self { codec, payload, timestamp: None, supplied: false, inserted: 0 }
    }

    /// Hands `packet` on, and in front of it the sets where they are missing.
    pub fn pass(&mut self, mut packet: Vec<u8>, mut deliver: impl FnMut(Bytes)) {
        let Some(header) = Header::parse(&packet) else { return };
        if self.timestamp.replace(header.timestamp) != Some(header.timestamp) {
            self.supplied = false;
        }
        let sequence = header.sequence.wrapping_add(self.inserted);
        let (has_sets, begins_keyframe) = contents(self.codec, &packet[header.payload_at..]);
        self.supplied |= has_sets;
        if begins_keyframe
            && !self.supplied
            && let Some(payload) = &self.payload
        {
            let mut sets = packet[..rtp::PLAIN_LENGTH].to_vec();
            // Version alone: neither padding nor extension; and no marker, as the picture goes on.
            sets[0] = 0x80;
            sets[1] &= 0x7f;
            rtp::set_sequence(&mut sets, sequence);
            sets.extend_from_slice(payload);
            deliver(sets.into());
            self.supplied = true;
            self.inserted = self.inserted.wrapping_add(1);
        }
        rtp::set_sequence(&mut packet, header.sequence.wrapping_add(self.inserted));
        deliver(packet.into());
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
    use super::*;

    const SPS_NAL: [u8; 3] = [0x67, 0x42, 0];
    const PPS_NAL: [u8; 2] = [0x68, 0xce];

    fn packet(sequence: u16, timestamp: u8, payload: &[u8]) -> Vec<u8> {
        let [high, low] = sequence.to_be_bytes();
        [&[0x80, 0xe0, high, low, 0, 0, 0, timestamp, 0, 0, 0, 7], payload].concat()
    }

    /// Passes packets on, and gives sequence number, timestamp and first payload byte of what comes out.
    fn passed(sets: &mut ParameterSets, packets: &[Vec<u8>]) -> Vec<(u16, u32, u8)> {
        let mut out = Vec::new();
        for packet in packets {
            sets.pass(packet.clone(), |bytes| {
                let header = Header::parse(&bytes).unwrap();
                out.push((header.sequence, header.timestamp, bytes.get(header.payload_at).copied().unwrap_or(0)));
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
        sets.pass(packet(9, 1, &[0x65, 1]), |bytes| out.push(bytes));
        let first = &out[0];
        assert_eq!(first[..4], [0x80, 0x60, 0, 9], "no marker");
        assert_eq!(first[12..], [0x78, 0, 3, 0x67, 0x42, 0, 0, 2, 0x68, 0xce]);
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
        sets.pass(packet(9, 1, &[0x62, 1, 0x93, 5]), |bytes| out.push(bytes));
        sets.pass(packet(10, 2, &[0x62, 1, 0x81, 5]), |bytes| out.push(bytes));
        assert_eq!(out.len(), 3);
        assert_eq!(out[0][12..], [0x60, 1, 0, 3, 0x40, 1, 7, 0, 3, 0x42, 1, 7, 0, 3, 0x44, 1, 7]);
        let own = [&[0x60, 1][..], &out[0][14..]].concat();
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
