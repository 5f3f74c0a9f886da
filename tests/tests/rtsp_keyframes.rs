//! Keyframes for those who watch by RTSP.

use std::net::UdpSocket;
use std::time::Instant;

use rov_tests::programs::Server;
use rov_tests::rtp_sender::free_port_pair;
use rov_tests::rtsp::{Connection, Player, Reply};
use rov_tests::wait::{self, until_true};

/// A server that has pictures, with its RTSP address.
fn server(args: &[&str]) -> (Server, String) {
    let server = Server::start(args);
    server.wait_until_running();
    let url = server.rtsp.clone().expect("an RTSP address");
    (server, url)
}

fn keyframes(server: &Server) -> u64 {
    server.stats().streams[0].keyframes
}

#[test]
fn keyframes_come_regularly_while_somebody_plays() {
    let (server, url) = server(&[]);
    let player = Player::start(&url, "udp");
    player.next_shots(1);
    let before = keyframes(&server);
    until_true("three more keyframes", wait::START, || keyframes(&server) >= before + 3);
}

/// That the server makes more keyframes than one in two seconds, which it makes in any case, while `ask` asks for them.
fn answers(server: &Server, mut ask: impl FnMut()) {
    let (before, begun) = (keyframes(server), Instant::now());
    // One of PLAY, one for each two seconds that have begun, and one that was on its way are none of those asked for.
    until_true("keyframes that were asked for", wait::START, || {
        ask();
        keyframes(server) - before > begun.elapsed().as_secs() / 2 + 4
    });
}

/// What stands behind `name` in an answer's header.
fn field<'a>(reply: &'a Reply, name: &str) -> &'a str {
    let rest = reply.head.split(name).nth(1).unwrap_or_else(|| panic!("no {name} in {reply:?}"));
    rest.split([';', '\r']).next().unwrap_or_default()
}

/// A report about nothing and a picture loss indication (RFC 4585 section 6.3.1) of the media that `setup` answers for.
fn picture_loss(setup: &Reply) -> Vec<u8> {
    let media = u32::from_str_radix(field(setup, "ssrc="), 16).expect("an SSRC");
    let own = [0x50, 0x4c, 0x49, 0x21];
    let report = [&[0x80, 201, 0, 1][..], &own].concat();
    [&report[..], &[0x81, 206, 0, 2], &own, &media.to_be_bytes()].concat()
}

/// Of a connection that has asked for the session.
fn play(connection: &mut Connection, setup: &Reply) {
    let session = format!("Session: {}\r\n", field(setup, "Session: "));
    assert_eq!(connection.request("PLAY", "", &session).status, 200);
}

#[test]
fn a_keyframe_that_a_player_asks_for_by_rtcp_is_made() {
    let (server, url) = server(&[]);
    let mut by_tcp = Connection::open(&url);
    let setup = by_tcp.set_up();
    let request = picture_loss(&setup);
    let interleaved = [&[b'$', 1, 0, request.len() as u8][..], &request].concat();
    play(&mut by_tcp, &setup);
    answers(&server, || {
        by_tcp.send(&interleaved);
        // Reads the video that has come: who reads nothing is disconnected.
        assert_eq!(by_tcp.request("OPTIONS", "", "").status, 200);
    });
    drop(by_tcp);

    let mut by_udp = Connection::open(&url);
    let port = free_port_pair();
    let [_rtp, rtcp] = [port, port + 1].map(|port| UdpSocket::bind(("127.0.0.1", port)).expect("its port"));
    let transport = format!("Transport: RTP/AVP;unicast;client_port={port}-{}\r\n", port + 1);
    let setup = by_udp.request("SETUP", "/stream=0", &transport);
    let request = picture_loss(&setup);
    let ports = field(&setup, "server_port=").split_once('-').expect("two ports");
    let reports: u16 = ports.1.parse().expect("the port for RTCP");
    play(&mut by_udp, &setup);
    answers(&server, || {
        rtcp.send_to(&request, ("127.0.0.1", reports)).expect("a datagram on loopback");
    });
}
