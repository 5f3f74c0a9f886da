//! `--stun`: what a STUN server sees of the media socket becomes a candidate of the answers.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use rov_tests::programs::Server;
use rov_tests::wait::{self, until};
use rov_tests::{OFFER, http};
use rtc::stun::message::{BINDING_SUCCESS, Message, Setter};
use rtc::stun::xoraddr::XorMappedAddress;

/// A STUN server (RFC 8489) that says `mapped` to everyone.
struct StunServer {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl StunServer {
    fn start(mapped: SocketAddr) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a UDP socket");
        socket.set_read_timeout(Some(Duration::from_millis(50))).expect("a time limit");
        let address = socket.local_addr().expect("its address");
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let mut buffer = [0; 1500];
            while !stopped.load(Ordering::Relaxed) {
                let Ok((length, peer)) = socket.recv_from(&mut buffer) else { continue };
                let mut request = Message::new();
                request.unmarshal_binary(&buffer[..length]).expect("a STUN request");
                let address = XorMappedAddress { ip: mapped.ip(), port: mapped.port() };
                let mut reply = Message::new();
                let setters: [Box<dyn Setter>; 3] =
                    [Box::new(request.transaction_id), Box::new(BINDING_SUCCESS), Box::new(address)];
                reply.build(&setters).expect("a STUN reply");
                socket.send_to(&reply.raw, peer).expect("the reply is sent");
            }
        });
        Self { address, stop, thread: Some(thread) }
    }
}

impl Drop for StunServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[test]
fn the_address_that_a_stun_server_sees_is_offered_to_viewers() {
    let stun = StunServer::start("203.0.113.7:40000".parse().expect("an address"));
    let server = Server::start(&["--stun", &format!("stun:{}", stun.address)]);
    let answer = until("an answer with the address seen from outside", wait::SOON, || {
        let reply = http::request("POST", &server.url("/whep"), Some("application/sdp"), OFFER.as_bytes());
        assert_eq!(reply.status, 201, "{}", reply.body);
        assert_eq!(http::request("DELETE", reply.location().as_str(), None, b"").status, 200);
        reply.body.contains("203.0.113.7").then_some(reply.body)
    });
    let line = answer.lines().find(|l| l.contains("203.0.113.7")).expect("the candidate");
    assert!(line.contains(" 40000 typ srflx"), "{line}");
}
