//! The SCTP of the WebRTC core, with a peer made by hand at the other end: what a viewer may send by a data channel.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use bytes::Bytes;
use rtc::sctp::{
    Association, AssociationHandle, ClientConfig, DatagramEvent, Endpoint, EndpointConfig, Event, Payload, StreamEvent,
};
use rtc::shared::TransportProtocol;

pub const DATA: u8 = 0;
pub const INIT: u8 = 1;
pub const INIT_ACK: u8 = 2;
pub const SACK: u8 = 3;
pub const HEARTBEAT: u8 = 4;
pub const ABORT: u8 = 6;
pub const ERROR: u8 = 9;
pub const COOKIE_ECHO: u8 = 10;
pub const COOKIE_ACK: u8 = 11;
pub const RE_CONFIG: u8 = 130;
pub const FORWARD_TSN: u8 = 192;

/// Of DATA: the first and the last fragment of its message.
pub const WHOLE: u8 = 3;
pub const FIRST: u8 = 2;

const PORT: u16 = 5000;
const PEER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), PORT);
const COOKIE: &[u8] = b"cook";
const HEADER: usize = 12;

/// An association that the core has opened, and its peer.
pub struct Peer {
    endpoint: Endpoint,
    handle: AssociationHandle,
    pub association: Association,
    /// What has to be in each packet for it.
    pub tag: u32,
    /// Of what it sends.
    pub first_sent: u32,
    pub now: Instant,
    /// Reads what can be read, as the core does.
    pub reads: bool,
}

impl Peer {
    /// The handshake is over; the first TSN of the peer is this.
    pub fn connected(first_tsn: u32) -> Self {
        let mut this = Self::asked();
        this.give(&[this.init_ack(first_tsn)]);
        assert_eq!(this.take()[0][HEADER], COOKIE_ECHO);
        this.give(&[chunk(COOKIE_ACK, 0, &[])]);
        assert!(!this.association.is_handshaking() && !this.association.is_closed());
        this
    }

    /// It has the INIT, and has not answered.
    pub fn asked() -> Self {
        let now = Instant::now();
        let mut endpoint = Endpoint::new(PEER, TransportProtocol::UDP, EndpointConfig::default().into(), None);
        let (handle, association) = endpoint.connect(now, ClientConfig::default(), PEER).expect("an association");
        let mut this = Self { endpoint, handle, association, tag: 0, first_sent: 0, now, reads: true };
        let init = this.take().remove(0);
        assert_eq!(init[HEADER], INIT);
        let number = |at: usize| u32::from_be_bytes(init[at..at + 4].try_into().expect("four bytes"));
        (this.tag, this.first_sent) = (number(16), number(28));
        this
    }

    pub fn init_ack(&self, first_tsn: u32) -> Vec<u8> {
        let parameters = [parameter(7, COOKIE), parameter(0x8008, &[RE_CONFIG, FORWARD_TSN])];
        chunk(INIT_ACK, 0, &init(0x0102_0304, first_tsn, &parameters))
    }

    /// A packet of these chunks.
    pub fn give(&mut self, chunks: &[Vec<u8>]) {
        self.give_with_tag(self.tag, chunks);
    }

    pub fn give_with_tag(&mut self, tag: u32, chunks: &[Vec<u8>]) {
        self.give_bytes(packet(tag, chunks));
    }

    pub fn give_bytes(&mut self, packet: Bytes) {
        match self.endpoint.handle(self.now, PEER, None, packet) {
            Some((handle, DatagramEvent::AssociationEvent(event))) => {
                assert_eq!(handle, self.handle);
                self.association.handle_event(event);
            }
            Some(_) => panic!("a peer cannot open a second association"),
            None => {}
        }
        self.poll();
    }

    pub fn passes(&mut self, time: Duration) {
        self.now += time;
        self.association.handle_timeout(self.now);
        self.poll();
    }

    fn poll(&mut self) {
        while let Some(event) = self.association.poll() {
            let Event::Stream(StreamEvent::Readable { id }) = event else { continue };
            if let Ok(mut stream) = self.association.stream(id) {
                while self.reads && matches!(stream.read_sctp(), Ok(Some(_))) {}
            }
        }
    }

    /// What it wants sent.
    pub fn take(&mut self) -> Vec<Bytes> {
        let mut packets = Vec::new();
        while let Some(transmit) = self.association.poll_transmit(self.now) {
            let Payload::RawEncode(raw) = transmit.message else { continue };
            packets.extend(raw);
        }
        packets
    }

    /// The last acknowledgement that it wants sent: the TSN up to which it has all, and how many gaps it names.
    pub fn acknowledged(&mut self) -> Option<(u32, u16)> {
        self.passes(Duration::from_millis(200));
        let sack = self.take().into_iter().rev().find(|packet| packet[HEADER] == SACK)?;
        let tsn = u32::from_be_bytes(sack[16..20].try_into().expect("four bytes"));
        Some((tsn, u16::from_be_bytes(sack[24..26].try_into().expect("two bytes"))))
    }
}

/// A packet with its checksum.
pub fn packet(tag: u32, chunks: &[Vec<u8>]) -> Bytes {
    packet_from(PORT, tag, chunks)
}

/// One of another port than was agreed.
pub fn packet_from(port: u16, tag: u32, chunks: &[Vec<u8>]) -> Bytes {
    let ports = [port.to_be_bytes(), PORT.to_be_bytes()].concat();
    let mut packet = [&ports[..], &tag.to_be_bytes(), &[0; 4], &chunks.concat()].concat();
    let checksum = crc32c(&packet).to_le_bytes();
    packet[8..12].copy_from_slice(&checksum);
    packet.into()
}

/// A chunk, padded.
pub fn chunk(kind: u8, flags: u8, value: &[u8]) -> Vec<u8> {
    let length = (value.len() + 4) as u16;
    padded([&[kind, flags], &length.to_be_bytes()[..], value].concat())
}

pub fn parameter(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = (value.len() + 4) as u16;
    padded([&kind.to_be_bytes()[..], &length.to_be_bytes(), value].concat())
}

fn padded(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// The value of INIT and INIT-ACK.
pub fn init(tag: u32, first_tsn: u32, parameters: &[Vec<u8>]) -> Vec<u8> {
    let streams = [u16::MAX.to_be_bytes(), u16::MAX.to_be_bytes()].concat();
    let fixed = [&tag.to_be_bytes()[..], &100_000_u32.to_be_bytes(), &streams, &first_tsn.to_be_bytes()].concat();
    [fixed, parameters.concat()].concat()
}

/// A chunk with data, of a text.
pub fn data(flags: u8, tsn: u32, stream: u16, sequence: u16, user_data: &[u8]) -> Vec<u8> {
    let place = [stream.to_be_bytes(), sequence.to_be_bytes()].concat();
    chunk(DATA, flags, &[&tsn.to_be_bytes()[..], &place, &51_u32.to_be_bytes(), user_data].concat())
}

pub fn forward_tsn(tsn: u32, streams: &[u16]) -> Vec<u8> {
    let streams: Vec<u8> = streams.iter().flat_map(|id| [id.to_be_bytes(), [0; 2]]).flatten().collect();
    chunk(FORWARD_TSN, 0, &[&tsn.to_be_bytes()[..], &streams].concat())
}

/// Asks for a reset of the peer's own streams as soon as `last_tsn` has come.
pub fn reset(request: u32, last_tsn: u32, streams: &[u16]) -> Vec<u8> {
    let streams: Vec<u8> = streams.iter().flat_map(|id| id.to_be_bytes()).collect();
    let numbers = [request, 0, last_tsn].map(u32::to_be_bytes).concat();
    chunk(RE_CONFIG, 0, &parameter(13, &[numbers, streams].concat()))
}

/// All up to `tsn` has come, and of what was sent behind that these blocks.
pub fn sack(tsn: u32, blocks: &[(u16, u16)]) -> Vec<u8> {
    let count = (blocks.len() as u16).to_be_bytes();
    let blocks: Vec<u8> =
        blocks.iter().flat_map(|(from, to)| [from.to_be_bytes(), to.to_be_bytes()]).flatten().collect();
    let fixed = [&tsn.to_be_bytes()[..], &100_000_u32.to_be_bytes(), &count, &[0; 2]].concat();
    chunk(SACK, 0, &[fixed, blocks].concat())
}

/// RFC 9260 appendix A.
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0x82F6_3B78 * (crc & 1)))
    })
}
