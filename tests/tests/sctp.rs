//! What a hostile viewer can have the SCTP of the WebRTC core do and hold (`vendor/rtc-sctp`): all of it is bounded.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rov_tests::sctp::{
    ABORT, COOKIE_ACK, COOKIE_ECHO, ERROR, FIRST, HEARTBEAT, INIT, Peer, SACK, WHOLE, chunk, data, forward_tsn, init,
    packet, packet_from, parameter, reset, sack,
};
use rtc::sctp::{
    Association, DatagramEvent, Endpoint, EndpointConfig, Payload, PayloadProtocolIdentifier, ServerConfig,
};
use rtc::shared::TransportProtocol;

/// Of what the association keeps, see its `config.rs`.
const STREAMS: u16 = 16;
const GAP: u32 = 128;
const UNREAD: u32 = 256;
const UNACKNOWLEDGED: usize = 256;
const REPLIES: usize = 16;

const KIND: usize = 12;

/// One chunk of eight bytes went through all 2^31 numbers between.
#[test]
fn a_forward_tsn_far_ahead_ends_the_association() {
    let mut peer = Peer::connected(1);
    peer.give(&[forward_tsn(1 + GAP, &[])]);
    assert!(peer.association.is_closed());
    let mut peer = Peer::connected(1);
    peer.give(&[forward_tsn(1 << 31, &[])]);
    assert!(peer.association.is_closed());
}

#[test]
fn a_forward_tsn_passes_over_what_was_lost() {
    let mut peer = Peer::connected(1);
    peer.give(&[data(WHOLE, 3, 0, 1, b"third")]);
    assert_eq!(peer.acknowledged(), Some((0, 1)));
    peer.give(&[forward_tsn(2, &[0])]);
    assert_eq!(peer.acknowledged(), Some((3, 0)));
    peer.give(&[forward_tsn(3 + GAP, &[])]);
    assert_eq!(peer.acknowledged(), Some((3 + GAP, 0)));
}

#[test]
fn a_forward_tsn_of_more_streams_than_there_are_ends_the_association() {
    let mut peer = Peer::connected(1);
    peer.give(&[forward_tsn(1, &[0; STREAMS as usize + 1])]);
    assert!(peer.association.is_closed());
}

#[test]
fn resets_that_wait_take_each_others_place() {
    let mut peer = Peer::connected(1);
    for request in 0..1_000 {
        peer.give(&[reset(request, 9, &[0])]);
        assert!(peer.take().len() <= REPLIES);
    }
    // Each that waits is looked at, and answered, with each TSN that comes.
    peer.give(&[data(WHOLE, 1, 0, 0, b"one")]);
    let replies = peer.take().iter().filter(|packet| packet[KIND] == 130).count();
    assert!((1..=3).contains(&replies), "{replies} replies");
    assert!(!peer.association.is_closed());
}

#[test]
fn a_reset_of_more_streams_than_there_are_ends_the_association() {
    let mut peer = Peer::connected(1);
    peer.give(&[reset(1, 0, &[0; 5_000])]);
    assert!(peer.association.is_closed());
}

#[test]
fn a_packet_has_few_replies_whatever_is_asked() {
    let asks = [chunk(HEARTBEAT, 0, &parameter(1, b"beat")), reset(1, 9, &[0])];
    for ask in asks {
        let mut peer = Peer::connected(1);
        peer.give(&vec![ask.clone(); 100]);
        let packets = peer.take();
        assert!((1..=REPLIES).contains(&packets.len()), "{} replies", packets.len());
        peer.give(&[ask]);
        assert_eq!(peer.take().len(), 1, "there is room again");
    }
}

/// A read that leaves nothing answers a reset that waits, and there is one for each message of a packet.
#[test]
fn what_is_read_has_few_replies_too() {
    let mut peer = Peer::connected(1);
    peer.give(&[reset(1, 1_000, &[0])]);
    peer.take();
    peer.give(&(1..=100).map(|tsn| data(WHOLE, tsn, 0, tsn as u16 - 1, b"message")).collect::<Vec<_>>());
    let replies = peer.take().iter().filter(|packet| packet[KIND] == 130).count();
    assert!(replies <= REPLIES, "{replies} replies");
}

#[test]
fn a_packet_with_more_chunks_than_fit_is_dropped() {
    let mut peer = Peer::connected(1);
    peer.give(&[vec![chunk(COOKIE_ACK, 0, &[]); 1_000], vec![data(WHOLE, 1, 0, 0, b"one")]].concat());
    assert_eq!(peer.acknowledged(), None);
    peer.give(&[vec![chunk(COOKIE_ACK, 0, &[]); 100], vec![data(WHOLE, 1, 0, 0, b"one")]].concat());
    assert_eq!(peer.acknowledged(), Some((1, 0)));
}

#[test]
fn no_more_streams_are_taken_than_were_agreed() {
    let mut peer = Peer::connected(1);
    for stream in 0..=u16::MAX {
        peer.give(&[data(WHOLE, 1 + u32::from(stream), stream, 0, b"hello")]);
        peer.take();
    }
    assert_eq!(peer.association.stream_ids().len(), usize::from(STREAMS));
    // What is dropped is acknowledged, or it would come again.
    peer.give(&[data(WHOLE, 65_537, 9_999, 0, b"hello")]);
    assert_eq!(peer.acknowledged(), Some((65_537, 0)));
}

/// The layers above keep something of each stream that ever was.
#[test]
fn streams_that_are_reset_and_opened_again_are_counted() {
    let mut peer = Peer::connected(1);
    let (mut tsn, mut opened) = (1, 0);
    for _ in 0..1_000 {
        peer.give(&[data(WHOLE, tsn, 0, 0, b"hello")]);
        opened += peer.association.stream_ids().len();
        peer.give(&[reset(tsn, tsn, &[0])]);
        assert!(peer.association.stream_ids().is_empty(), "it is reset");
        peer.take();
        tsn += 1;
    }
    assert_eq!(opened, usize::from(STREAMS));
}

#[test]
fn data_far_ahead_is_not_taken() {
    let mut peer = Peer::connected(1);
    for tsn in (2..10_000).step_by(2) {
        peer.give(&[data(WHOLE, tsn, 0, 1, b"later")]);
    }
    let (tsn, gaps) = peer.acknowledged().expect("an acknowledgement");
    assert_eq!((tsn, u32::from(gaps)), (0, GAP / 2));
}

#[test]
fn fragments_of_a_message_that_never_ends_are_held_up_to_a_bound() {
    let mut peer = Peer::connected(1);
    peer.give(&[data(FIRST, 1, 0, 0, b"once")]);
    for tsn in 2..10_000 {
        peer.give(&[data(0, tsn, 0, 0, b"more")]);
        peer.take();
    }
    // The last did not change that, so it says again where it is.
    peer.give(&[forward_tsn(1, &[])]);
    assert_eq!(peer.acknowledged(), Some((UNREAD, 0)));
}

#[test]
fn messages_that_nobody_reads_are_held_up_to_a_bound() {
    let mut peer = Peer::connected(1);
    peer.reads = false;
    for tsn in 1..10_000 {
        peer.give(&[data(WHOLE, tsn, 0, tsn as u16 - 1, b"m")]);
        peer.take();
    }
    peer.give(&[forward_tsn(1, &[])]);
    assert_eq!(peer.acknowledged(), Some((UNREAD, 0)));
}

#[test]
fn data_without_any_is_not_taken() {
    let mut peer = Peer::connected(1);
    peer.give(&[data(WHOLE, 1, 0, 0, b"")]);
    assert_eq!(peer.acknowledged(), None);
    peer.give(&[data(WHOLE, 1, 0, 0, b"1")]);
    assert_eq!(peer.acknowledged(), Some((1, 0)));
}

/// Of a packet of ten kilobytes, one byte could be held, and that as often as there is room for a byte.
#[test]
fn data_does_not_hold_the_packet_that_it_came_in() {
    struct Packet(Bytes, #[expect(dead_code, reason = "counted")] Arc<()>);
    impl AsRef<[u8]> for Packet {
        fn as_ref(&self) -> &[u8] {
            &self.0
        }
    }
    let mut peer = Peer::connected(1);
    let held = Arc::new(());
    let padding = chunk(HEARTBEAT, 0, &parameter(1, &[0; 10_000]));
    // With a gap before it, and the beginning of a message.
    let packet = packet(peer.tag, &[data(FIRST, 3, 0, 0, b"1"), padding]);
    peer.give_bytes(Bytes::from_owner(Packet(packet, Arc::clone(&held))));
    assert_eq!(peer.acknowledged(), Some((0, 1)), "it is there");
    assert_eq!(Arc::strong_count(&held), 1);
}

/// A block names what is in flight as often as it likes; each was looked up each time.
#[test]
fn an_acknowledgement_of_more_than_is_in_flight_ends_the_association() {
    for (blocks, is_closed) in [(vec![(2, 2)], false), (vec![(2, 2); 1_000], true), (vec![(2, u16::MAX)], true)] {
        let mut peer = Peer::connected(1);
        let mut stream = peer.association.open_stream(0, PayloadProtocolIdentifier::String).expect("a stream");
        for _ in 0..2 {
            stream.write_chunk(peer.now, &Bytes::from_static(&[7; 1_000])).expect("written");
        }
        let sent = peer.take();
        let first = u32::from_be_bytes(sent[0][16..20].try_into().expect("a TSN"));
        peer.give(&[sack(first.wrapping_sub(1), &blocks)]);
        assert_eq!(peer.association.is_closed(), is_closed, "{} blocks", blocks.len());
    }
}

/// The length of a cause was believed.
#[test]
fn a_cause_longer_than_its_chunk_is_malformed() {
    for kind in [ABORT, ERROR] {
        let mut peer = Peer::connected(1);
        peer.give(&[chunk(kind, 0, &[0, 12, 0xff, 0xff])]);
        peer.give(&[data(WHOLE, 1, 0, 0, b"one")]);
        assert_eq!(peer.acknowledged(), Some((1, 0)), "the packet is dropped");
    }
}

#[test]
fn numbers_begin_again_after_the_last() {
    for first in [u32::MAX, u32::MAX - 1, 0] {
        let mut peer = Peer::connected(first);
        let tsn = |number: u32| first.wrapping_add(number);
        peer.give(&[data(FIRST, tsn(0), 0, 0, b"a"), data(0, tsn(1), 0, 0, b"b"), data(1, tsn(2), 0, 0, b"c")]);
        peer.give(&[data(WHOLE, tsn(4), 0, 1, b"later")]);
        assert_eq!(peer.acknowledged(), Some((tsn(2), 1)), "from {first}");
        peer.give(&[forward_tsn(tsn(3), &[])]);
        assert_eq!(peer.acknowledged(), Some((tsn(4), 0)), "from {first}");
    }
}

#[test]
fn a_closed_association_takes_nothing_more() {
    let mut peer = Peer::connected(1);
    peer.give(&[chunk(ABORT, 0, &[0, 12, 0, 4]), data(WHOLE, 1, 0, 0, b"one")]);
    assert!(peer.association.is_closed());
    peer.give(&[data(WHOLE, 1, 0, 0, b"one")]);
    peer.give(&[chunk(COOKIE_ECHO, 0, b"cook")]);
    peer.give_with_tag(0, &[chunk(INIT, 0, &init(1, 1, &[]))]);
    assert_eq!((peer.acknowledged(), peer.association.stream_ids()), (None, vec![]));
    assert!(peer.association.is_closed());
}

/// Each made an association, up to a hundred thousand.
#[test]
fn an_endpoint_has_one_association_however_often_a_peer_begins() {
    let (now, at) = (Instant::now(), SocketAddr::from((Ipv4Addr::LOCALHOST, 5000)));
    let config = Some(ServerConfig::default().into());
    let mut endpoint = Endpoint::new(at, TransportProtocol::UDP, EndpointConfig::default().into(), config);
    let mut begin = |tag: u32| endpoint.handle(now, at, None, packet(0, &[chunk(INIT, 0, &init(tag, 1, &[]))]));
    let Some((handle, DatagramEvent::NewAssociation(mut association))) = begin(1) else { panic!("no association") };
    for tag in 2..1_000 {
        assert!(begin(tag).is_none(), "tag {tag}");
    }
    // One that was sent again is answered, as the first was.
    let answer = |association: &mut Association| match association.poll_transmit(now).expect("an answer").message {
        Payload::RawEncode(mut sent) if sent.len() == 1 => sent.remove(0),
        other => panic!("{other:?}"),
    };
    let first = answer(&mut association);
    let Some((again, DatagramEvent::AssociationEvent(event))) = begin(1) else { panic!("not known") };
    assert_eq!(again, handle);
    association.handle_event(event);
    assert_eq!(answer(&mut association), first);
    // And where it comes late, it does no harm.
    let tag = u32::from_be_bytes(first[16..20].try_into().expect("four bytes"));
    let length = u16::from_be_bytes([first[34], first[35]]);
    let echo = packet(tag, &[chunk(COOKIE_ECHO, 0, &first[36..32 + usize::from(length)])]);
    for datagram in [echo, packet(0, &[chunk(INIT, 0, &init(1, 1, &[]))])] {
        let taken = endpoint.handle(now, at, None, datagram);
        let Some((_, DatagramEvent::AssociationEvent(event))) = taken else { panic!("not known") };
        association.handle_event(event);
        assert!(!association.is_handshaking() && !association.is_closed());
    }
}

/// The peer chose its TSNs anew as often as it liked, and what had come by then was kept.
#[test]
fn nothing_is_taken_before_the_handshake_is_over() {
    let mut peer = Peer::asked();
    let early =
        |first: u32| -> Vec<_> { (1..=GAP / 2).map(|tsn| data(WHOLE, first + tsn, 1_000, 0, b"early")).collect() };
    peer.give(&early(1));
    for first in (0..1_000_000).step_by(1_000) {
        let init_ack = peer.init_ack(first);
        peer.give_bytes(packet_from(5_001, peer.tag, std::slice::from_ref(&init_ack)));
        peer.give(&early(first));
        peer.give(&[vec![init_ack], early(first)].concat());
    }
    peer.give(&[peer.init_ack(1)]);
    assert_eq!(peer.take().last().expect("an answer")[KIND], COOKIE_ECHO);
    peer.give(&[forward_tsn(100, &[]), reset(1, 0, &[0])]);
    peer.give(&early(1));
    assert!(peer.take().is_empty());
    peer.give(&[chunk(COOKIE_ACK, 0, &[]), data(WHOLE, 1, 0, 0, b"one")]);
    assert_eq!(peer.acknowledged(), Some((1, 0)));
}

#[test]
fn an_answer_that_cannot_be_the_peers_changes_nothing() {
    let mut peer = Peer::asked();
    let init_ack = peer.init_ack(1);
    peer.give_bytes(packet_from(5_001, peer.tag, std::slice::from_ref(&init_ack)));
    peer.give(&[init_ack, data(WHOLE, 1, 0, 0, b"one")]);
    assert!(peer.take().is_empty());
    peer.passes(Duration::from_secs(1));
    let again = peer.take();
    assert_eq!((again[0][KIND], &again[0][4..8]), (INIT, &[0; 4][..]), "it has no tag of the peer yet");
}

#[test]
fn a_handshake_without_answer_ends_the_association() {
    for is_answered in [false, true] {
        let mut peer = Peer::asked();
        if is_answered {
            peer.give(&[peer.init_ack(1)]);
        }
        for _ in 0..8 {
            peer.passes(Duration::from_secs(60));
            assert!(!peer.association.is_closed());
            assert!(!peer.take().is_empty(), "it asks again");
        }
        peer.passes(Duration::from_secs(60));
        assert!(peer.association.is_closed());
        peer.give(&[peer.init_ack(1)]);
        peer.give(&[chunk(COOKIE_ACK, 0, &[])]);
        assert!(peer.association.is_closed() && peer.take().is_empty());
    }
}

/// The layers above answer as often as they are asked, as by a viewer that opens one channel again and again.
#[test]
fn messages_that_are_never_acknowledged_end_the_association() {
    let mut peer = Peer::connected(1);
    peer.association.open_stream(0, PayloadProtocolIdentifier::String).expect("a stream");
    let write = |peer: &mut Peer| {
        let now = peer.now;
        let written =
            peer.association.stream(0).and_then(|mut stream| stream.write_chunk(now, &Bytes::from_static(b"1")));
        peer.take();
        written.is_ok()
    };
    for number in 0..UNACKNOWLEDGED {
        assert!(write(&mut peer), "message {number}");
    }
    assert!(!peer.association.is_closed());
    assert!(!write(&mut peer));
    assert!(peer.association.is_closed());
    assert!(!write(&mut peer), "and it takes none after that");
}

#[test]
fn messages_that_are_acknowledged_go_on_for_ever() {
    let mut peer = Peer::connected(1);
    let mut acknowledged = peer.first_sent.wrapping_sub(1);
    peer.association.open_stream(0, PayloadProtocolIdentifier::String).expect("a stream");
    for _ in 0..10 * UNACKNOWLEDGED {
        let (now, message) = (peer.now, Bytes::from_static(b"1"));
        peer.association.stream(0).expect("a stream").write_chunk(now, &message).expect("written");
        assert_eq!(peer.take().len(), 1);
        acknowledged = acknowledged.wrapping_add(1);
        peer.give(&[sack(acknowledged, &[])]);
    }
    assert!(!peer.association.is_closed());
}

/// Or the next value waits for as long as the peer may delay it.
#[test]
fn a_message_asks_to_be_acknowledged_at_once() {
    let mut peer = Peer::connected(1);
    let mut stream = peer.association.open_stream(0, PayloadProtocolIdentifier::String).expect("a stream");
    stream.write_chunk(peer.now, &Bytes::from_static(&[7; 2_000])).expect("written");
    let sent = peer.take();
    assert_eq!(sent.iter().map(|packet| packet[KIND + 1]).collect::<Vec<_>>(), [FIRST, 8 | 1]);
    let first = u32::from_be_bytes(sent[0][16..20].try_into().expect("a TSN"));
    peer.give(&[sack(first + 1, &[])]);
    assert!(!peer.association.is_closed());
    assert!(peer.take().iter().all(|packet| packet[KIND] != SACK));
}
