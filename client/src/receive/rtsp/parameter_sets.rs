//! Parameter sets that a camera gives in its SDP alone (RFC 6184 section 8.1, `sprop-parameter-sets`), put into the stream in
//! front of each keyframe that lacks them. Pure.

use bytes::Bytes;
use rov_common::codec::{self, IDR, PPS, SPS};

use crate::receive::header::{self, Header};

const STAP_A: u8 = 24;
const FU_A: u8 = 28;
/// A packet without extension or contributing sources has a header of this length.
const PLAIN_HEADER: usize = 12;

/// Sees the packets of one stream in order.
#[derive(Debug, Default)]
pub struct ParameterSets {
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
    pub fn new(nals: &[Vec<u8>]) -> Self {
        let complete = [SPS, PPS].iter().all(|kind| nals.iter().any(|nal| codec::nal_type(nal) == *kind));
        let fits = nals.iter().all(|nal| u16::try_from(nal.len()).is_ok());
        let payload = (complete && fits).then(|| {
            // RFC 6184 section 5.7.1: the header has the highest importance of those within, then size and NAL unit each.
            let mut payload = vec![0x60 | STAP_A];
            for nal in nals {
                payload.extend_from_slice(&(nal.len() as u16).to_be_bytes());
                payload.extend_from_slice(nal);
            }
            payload
        });
        Self { payload, ..Self::default() }
    }

    /// Hands `packet` on, and in front of it the sets where they are missing.
    pub fn pass(&mut self, mut packet: Vec<u8>, mut deliver: impl FnMut(Bytes)) {
        let Some(header) = Header::parse(&packet) else { return };
        if self.timestamp.replace(header.timestamp) != Some(header.timestamp) {
            self.supplied = false;
        }
        let sequence = header.sequence.wrapping_add(self.inserted);
        let (has_sets, begins_keyframe) = contents(&packet[header.payload_at..]);
        self.supplied |= has_sets;
        if begins_keyframe
            && !self.supplied
            && let Some(payload) = &self.payload
        {
            let mut sets = packet[..PLAIN_HEADER].to_vec();
            // Version alone: neither padding nor extension; and no marker, as the picture goes on.
            sets[0] = 0x80;
            sets[1] &= 0x7f;
            header::set_sequence(&mut sets, sequence);
            sets.extend_from_slice(payload);
            deliver(sets.into());
            self.supplied = true;
            self.inserted = self.inserted.wrapping_add(1);
        }
        header::set_sequence(&mut packet, header.sequence.wrapping_add(self.inserted));
        deliver(packet.into());
    }
}

/// Whether a payload holds an SPS, and whether a slice of a keyframe begins in it.
fn contents(payload: &[u8]) -> (bool, bool) {
    let mut found = (false, false);
    let mut look = |kind: u8| {
        found.0 |= kind == SPS;
        found.1 |= kind == IDR;
    };
    match codec::nal_type(payload) {
        STAP_A => {
            let mut rest = payload.get(1..).unwrap_or_default();
            while let [high, low, nal, ..] = *rest {
                look(nal & 0x1f);
                rest = rest.get(2 + usize::from(u16::from_be_bytes([high, low]))..).unwrap_or_default();
            }
        }
        FU_A if payload.get(1).is_some_and(|fragment| fragment & 0x80 != 0) => look(payload[1] & 0x1f),
        FU_A => {}
        kind => look(kind),
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
        let mut sets = ParameterSets::new(&[SPS_NAL.to_vec(), PPS_NAL.to_vec()]);
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
        let mut sets = ParameterSets::new(&[SPS_NAL.to_vec(), PPS_NAL.to_vec()]);
        let mut out = Vec::new();
        sets.pass(packet(9, 1, &[0x65, 1]), |bytes| out.push(bytes));
        let first = &out[0];
        assert_eq!(first[..4], [0x80, 0x60, 0, 9], "no marker");
        assert_eq!(first[12..], [0x78, 0, 3, 0x67, 0x42, 0, 0, 2, 0x68, 0xce]);
    }

    #[test]
    fn a_stream_with_sets_of_its_own_stays_as_it_is() {
        let mut sets = ParameterSets::new(&[SPS_NAL.to_vec(), PPS_NAL.to_vec()]);
        let stap = [&[0x78, 0, 3][..], &SPS_NAL, &[0, 2], &PPS_NAL, &[0, 2, 0x65, 1]].concat();
        let packets = [packet(1, 1, &SPS_NAL), packet(2, 1, &PPS_NAL), packet(3, 1, &[0x65, 1]), packet(4, 2, &stap)];
        assert_eq!(passed(&mut sets, &packets).len(), 4);
        for nals in [vec![], vec![SPS_NAL.to_vec()]] {
            assert_eq!(passed(&mut ParameterSets::new(&nals), &[packet(1, 1, &[0x65, 1])]).len(), 1);
        }
    }

    #[test]
    fn damaged_packets_do_no_harm() {
        let mut sets = ParameterSets::new(&[SPS_NAL.to_vec(), PPS_NAL.to_vec()]);
        for payload in [&[][..], &[0x78], &[0x78, 0xff], &[0x78, 0, 9, 0x41], &[0x7c], &[0x78, 0, 0, 0, 0]] {
            assert_eq!(passed(&mut sets, &[packet(1, 1, payload)]).len(), 1, "{payload:x?}");
        }
    }
}
