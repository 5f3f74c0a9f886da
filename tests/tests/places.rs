//! Places for WebRTC viewers, against one who wants them all.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rov_tests::programs::{Client, Server};
use rov_tests::wait::{self, until_true};
use socket2::{Domain, Socket, Type};

/// An offer whose sender never connects.
const OFFER: &str = concat!(
    "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0\r\n",
    "m=video 9 UDP/TLS/RTP/SAVPF 103\r\nc=IN IP4 0.0.0.0\r\na=mid:0\r\na=recvonly\r\na=rtcp-mux\r\na=setup:actpass\r\n",
    "a=ice-ufrag:vvvv\r\na=ice-pwd:vvvvvvvvvvvvvvvvvvvvvvvv\r\n",
    "a=fingerprint:sha-256 AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:",
    "AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB\r\n",
    "a=rtpmap:103 H264/90000\r\na=fmtp:103 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f\r\n",
);
/// 80 a second.
const INTERVAL: Duration = Duration::from_micros(12_500);

/// Another computer of the LAN that sends offers until it is dropped.
struct Flood {
    stop: Arc<AtomicBool>,
    taken: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
}

impl Flood {
    fn start(server: SocketAddr) -> Self {
        let (stop, taken) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (end, count) = (Arc::clone(&stop), Arc::clone(&taken));
        let run = move || {
            while !end.load(Ordering::Relaxed) {
                let status = offer(server).expect("an answer");
                count.fetch_add(usize::from(status == 201), Ordering::Relaxed);
                std::thread::sleep(INTERVAL);
            }
        };
        Self { stop, taken, thread: Some(std::thread::spawn(run)) }
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let ended = self.thread.take().map(JoinHandle::join);
        assert!(ended.is_some_and(|ended| ended.is_ok()) || std::thread::panicking());
    }
}

/// The status of the answer to one offer that comes from 127.0.0.9.
fn offer(server: SocketAddr) -> std::io::Result<u16> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SocketAddr::from(([127, 0, 0, 9], 0)).into())?;
    socket.connect(&server.into())?;
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(wait::SOON))?;
    let head = format!(
        "POST /whep HTTP/1.1\r\nHost: {server}\r\nContent-Type: application/sdp\r\nConnection: close\r\n\
         Content-Length: {}\r\n\r\n",
        OFFER.len()
    );
    stream.write_all(format!("{head}{OFFER}").as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
    status.ok_or_else(|| std::io::Error::other(answer))
}

#[test]
fn whose_link_rules_is_said_where_there_are_several_viewers() {
    let server = Server::start(&[]);
    let news = "bit rate follows this viewer's link, connected longest of those that answer: choose another with \
                --pilot ADDRESS";
    let mut first = Client::start(&["--url", &server.url("/whep")]);
    first.wait_for_frames(0, 10);
    assert!(!server.process.stderr().contains(news), "alone it is no news");
    let pilot = server.stats().viewers.remove(0);
    let mut second = Client::start(&["--url", &server.url("/whep")]);
    second.wait_for_frames(0, 10);
    server.process.logs(&[news]);
    let log = server.process.stderr();
    let line = log.lines().find(|line| line.contains(news)).expect("the line");
    assert!(line.contains(&pilot.id) && line.contains("address=127.0.0.1"), "{line}");
    let viewers = server.stats().viewers;
    assert!(viewers.iter().all(|viewer| viewer.pilot == (viewer.id == pilot.id)), "{viewers:?}");
}

#[test]
fn a_client_that_starts_again_gets_its_picture_among_offers_that_take_every_place() {
    let server = Server::start(&["--max-viewers", "4"]);
    let mut first = Client::start(&["--url", &server.url("/whep")]);
    first.wait_for_frames(0, 10);
    let flooded = Instant::now();
    let flood = Flood::start(server.address);
    until_true("all places are taken", wait::START, || {
        flood.taken.load(Ordering::Relaxed) > 20 && server.stats().viewers.len() == 4
    });
    let shown = first.report().expect("a report").frames_shown;
    first.wait_for_frames(shown, 10);
    first.process.kill();
    let begun = Instant::now();
    let mut again = Client::start(&["--url", &server.url("/whep")]);
    again.wait_for_frames(0, 10);
    println!("ten pictures {:?} after the start", begun.elapsed());
    drop(flood);
    let said = server.process.stderr();
    // Once, and again after 30 s each.
    let lines = said.lines().filter(|line| line.contains("have not connected give way")).count() as u64;
    assert!((1..=1 + flooded.elapsed().as_secs() / 30).contains(&lines), "{lines}: {said}");
    let report = again.report().expect("a report");
    assert_eq!(report.sessions, 1, "{report:?}");
}
