//! An RTSP camera of our own with one odd habit at a time, which gst-rtsp-server does not have. It sends pictures that
//! it has encoded before, again and again.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use gstreamer as gst;
use gstreamer::prelude::*;
use rov_common::codec::{self, Codec, NalKind};
use rov_common::sync::lock;

use crate::programs::Server;
use crate::rtp_sender::free_port_pair;
use crate::wait;

/// Which packets have the marker bit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Marks {
    /// The last of each picture, as RFC 6184 says.
    #[default]
    Picture,
    ParameterSets,
    EveryNal,
    Never,
}

/// What the camera is like; by default it has no odd habit.
#[derive(Clone, Copy, Debug)]
pub struct Habits {
    /// Pictures a second by the time stamps.
    pub stamped: f64,
    /// Pictures a second that come.
    pub delivered: f64,
    pub marks: Marks,
    /// Of each picture.
    pub slices: u32,
    /// So many pictures are sent at once, and then none for their time.
    pub together: u32,
    /// By UDP where that is asked for, else by TCP alone.
    pub udp: bool,
    /// By TCP where that is asked for, else by UDP alone.
    pub tcp: bool,
    /// Pictures from one keyframe to the next.
    pub group: u32,
    /// Makes a keyframe when it is asked for one by RTCP over UDP.
    pub answers: bool,
    /// Numbers of packets that are left out before each picture.
    pub unused: u16,
}

impl Habits {
    /// No odd one.
    pub const NONE: Self = Self {
        stamped: 25.0,
        delivered: 25.0,
        marks: Marks::Picture,
        slices: 1,
        together: 1,
        udp: false,
        tcp: true,
        group: 12,
        answers: false,
        unused: 0,
    };
}

impl Default for Habits {
    fn default() -> Self {
        Self::NONE
    }
}

/// Parameter sets are in the stream.
const SDP: &str = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=cam\r\nt=0 0\r\na=control:*\r\nm=video 0 RTP/AVP 96\r\n\
                   c=IN IP4 0.0.0.0\r\na=rtpmap:96 H264/90000\r\na=fmtp:96 \
                   packetization-mode=1\r\na=control:trackID=1\r\n";

pub struct OddCamera {
    shared: Arc<Shared>,
    /// As `rtsp://127.0.0.1:PORT/cam`.
    pub url: String,
    pub port: u16,
}

struct Shared {
    habits: Habits,
    /// Access units of one group of pictures, each as its NAL units.
    units: Vec<Vec<Vec<u8>>>,
    stop: AtomicBool,
    /// Thousandths of pictures a second.
    delivered: AtomicU64,
    /// Ticks by which the time stamps are to jump at the next picture.
    jump: AtomicI64,
    sent: AtomicU64,
    late: AtomicU64,
    /// The numbers of packets are to jump by so much at the next picture.
    number_jump: AtomicU16,
    /// The first packet of the third picture of a group is to be lost.
    lose: AtomicBool,
    /// The first packet of the next picture that is no keyframe is.
    lose_next: AtomicBool,
    /// All keyframes are.
    lose_keyframes: AtomicBool,
}

impl OddCamera {
    pub fn start(habits: Habits) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("its address").port();
        let shared = Arc::new(Shared {
            habits,
            units: encode(habits.slices, habits.group),
            stop: AtomicBool::new(false),
            delivered: AtomicU64::new((habits.delivered * 1e3) as u64),
            jump: AtomicI64::new(0),
            sent: AtomicU64::new(0),
            late: AtomicU64::new(0),
            number_jump: AtomicU16::new(0),
            lose: AtomicBool::new(false),
            lose_next: AtomicBool::new(false),
            lose_keyframes: AtomicBool::new(false),
        });
        let for_clients = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if for_clients.stop.load(Ordering::Relaxed) {
                    break;
                }
                let shared = Arc::clone(&for_clients);
                std::thread::spawn(move || Client::new(shared, stream).serve());
            }
        });
        Self { shared, url: format!("rtsp://127.0.0.1:{port}/cam"), port }
    }

    /// Delivers so many pictures a second from now on, whatever the time stamps say.
    pub fn deliver(&self, fps: f64) {
        self.shared.delivered.store((fps * 1e3) as u64, Ordering::Relaxed);
    }

    /// Pictures a second that it delivers.
    pub fn rate(&self) -> u64 {
        self.shared.delivered.load(Ordering::Relaxed) / 1000
    }

    /// Lets the time stamps jump.
    pub fn jump(&self, seconds: f64) {
        self.shared.jump.fetch_add((seconds * 90_000.0) as i64, Ordering::Relaxed);
    }

    /// Loses one packet, the first of the third picture of a group.
    pub fn lose(&self) {
        self.shared.lose.store(true, Ordering::Relaxed);
    }

    /// Loses one packet by UDP, of the next picture that is no keyframe.
    pub fn lose_next(&self) {
        self.shared.lose_next.store(true, Ordering::Relaxed);
    }

    /// Lets the packets' numbers jump.
    pub fn jump_numbers(&self, by: u16) {
        self.shared.number_jump.store(by, Ordering::Relaxed);
    }

    /// Loses all keyframes from now on, or none.
    pub fn lose_keyframes(&self, all: bool) {
        self.shared.lose_keyframes.store(all, Ordering::Relaxed);
    }

    /// Loses a packet three times, and sees that the server goes on at the next keyframe each time.
    pub fn loses_packets(&self, server: &Server) {
        server.wait_until_running();
        let stream = || server.stats().streams.remove(0);
        for _ in 0..3 {
            let before = stream();
            self.lose();
            wait::until_true("pictures are left out", wait::SOON, || stream().frames_damaged > before.frames_damaged);
            let since = stream();
            let two = since.frames + 2 * self.group();
            wait::until_true("two groups more", wait::SOON, || stream().frames >= two);
            // The third is gone, or torn where it has several packets.
            let left_out = stream().frames_damaged - before.frames_damaged;
            assert!((self.group() - 3..=self.group() - 2).contains(&left_out), "{left_out}: {:?}", stream());
        }
        assert_eq!(stream().restarts, 0);
    }

    /// Pictures from one keyframe to the next.
    pub fn group(&self) -> u64 {
        self.shared.units.len() as u64
    }

    /// Sends plain RTP to a port of this machine, until the camera is dropped.
    pub fn send_rtp(&self, port: u16) {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
        let way = Way::Udp { socket, to: SocketAddr::from(([127, 0, 0, 1], port)), asks: Arc::default() };
        let shared = Arc::clone(&self.shared);
        std::thread::spawn(move || stream(&shared, &way, &AtomicBool::new(false)));
    }

    /// Pictures sent to all clients.
    pub fn sent(&self) -> u64 {
        self.shared.sent.load(Ordering::Relaxed)
    }

    /// Of these, pictures that came more than their interval after their time, as this machine was busy.
    pub fn late(&self) -> u64 {
        self.shared.late.load(Ordering::Relaxed)
    }
}

impl Drop for OddCamera {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        // Wakes the listener.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

/// One group of pictures, the first of which is a keyframe.
fn encode(slices: u32, group: u32) -> Vec<Vec<Vec<u8>>> {
    gst::init().expect("GStreamer");
    let text = format!(
        "videotestsrc num-buffers={group} pattern=smpte ! video/x-raw,format=I420,width=320,height=240,framerate=25/1 \
         ! x264enc tune=zerolatency speed-preset=ultrafast key-int-max={group} bitrate=1000 threads=1 \
         sliced-threads=false option-string=slices={slices} ! h264parse ! \
         video/x-h264,stream-format=byte-stream,alignment=au ! fakesink name=sink signal-handoffs=true"
    );
    let pipeline = gst::parse::launch(&text).expect("the elements are installed");
    let pipeline = pipeline.downcast::<gst::Pipeline>().expect("a pipeline");
    let units = Arc::new(Mutex::new(Vec::new()));
    let taken = Arc::clone(&units);
    pipeline.by_name("sink").expect("the sink").connect("handoff", false, move |values| {
        let buffer = values[1].get::<gst::Buffer>().expect("a buffer");
        let map = buffer.map_readable().expect("an access unit");
        lock(&taken).push(codec::nal_units(&map).map(<[u8]>::to_vec).collect());
        None
    });
    pipeline.set_state(gst::State::Playing).expect("the encoder starts");
    let bus = pipeline.bus().expect("a bus");
    let end = bus.timed_pop_filtered(gst::ClockTime::from_seconds(20), &[gst::MessageType::Eos]);
    pipeline.set_state(gst::State::Null).expect("the encoder stops");
    assert!(end.is_some(), "the pictures are not encoded");
    std::mem::take(&mut *lock(&units))
}

/// Where the packets go.
enum Way {
    Tcp {
        writer: Arc<Mutex<TcpStream>>,
        channel: u8,
    },
    /// `asks`: a keyframe is wanted.
    Udp {
        socket: UdpSocket,
        to: SocketAddr,
        asks: Arc<AtomicBool>,
    },
}

struct Request {
    method: String,
    url: String,
    /// Their names in small letters.
    headers: Vec<(String, String)>,
}

struct Client {
    shared: Arc<Shared>,
    /// Answers and packets are written by two threads.
    writer: Arc<Mutex<TcpStream>>,
    reader: BufReader<TcpStream>,
    way: Option<Way>,
    gone: Arc<AtomicBool>,
}

impl Client {
    fn new(shared: Arc<Shared>, stream: TcpStream) -> Self {
        stream.set_nodelay(true).expect("TCP_NODELAY");
        let reader = BufReader::new(stream.try_clone().expect("a second handle"));
        Self { shared, writer: Arc::new(Mutex::new(stream)), reader, way: None, gone: Arc::default() }
    }

    fn serve(mut self) {
        while let Some(Request { method, url, headers }) = self.request() {
            let header = |name: &str| headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
            let sequence = header("cseq").unwrap_or("0").to_owned();
            let (status, answer_headers, body) = match method.as_str() {
                "OPTIONS" => {
                    ("200 OK", "Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN\r\n".to_owned(), String::new())
                }
                "DESCRIBE" => {
                    ("200 OK", format!("Content-Base: {url}/\r\nContent-Type: application/sdp\r\n"), SDP.to_owned())
                }
                "SETUP" => match self.set_up(header("transport").unwrap_or_default()) {
                    Some(transport) => ("200 OK", format!("Transport: {transport}\r\nSession: 1\r\n"), String::new()),
                    None => ("461 Unsupported Transport", String::new(), String::new()),
                },
                _ => ("200 OK", "Session: 1\r\n".to_owned(), String::new()),
            };
            let answer = format!(
                "RTSP/1.0 {status}\r\nCSeq: {sequence}\r\n{answer_headers}Content-Length: {}\r\n\r\n{body}",
                body.len()
            );
            if lock(&self.writer).write_all(answer.as_bytes()).is_err() || method == "TEARDOWN" {
                break;
            }
            if method == "PLAY"
                && let Some(way) = self.way.take()
            {
                let (shared, writer) = (Arc::clone(&self.shared), Arc::clone(&self.writer));
                let gone = Arc::clone(&self.gone);
                std::thread::spawn(move || {
                    stream(&shared, &way, &gone);
                    // As by a camera that restarts.
                    let _ = lock(&writer).shutdown(std::net::Shutdown::Both);
                });
            }
        }
        self.gone.store(true, Ordering::Relaxed);
    }

    /// None at the end.
    fn request(&mut self) -> Option<Request> {
        // RTCP of the client.
        while self.reader.fill_buf().ok()?.first()? == &b'$' {
            let mut head = [0; 4];
            self.reader.read_exact(&mut head).ok()?;
            let length = u64::from(u16::from_be_bytes([head[2], head[3]]));
            std::io::copy(&mut self.reader.by_ref().take(length), &mut std::io::sink()).ok()?;
        }
        let mut lines = std::iter::from_fn(|| {
            let mut line = String::new();
            self.reader.read_line(&mut line).ok().filter(|length| *length > 0)?;
            Some(line.trim_end().to_owned()).filter(|line| !line.is_empty())
        });
        let first = lines.next()?;
        let mut words = first.split(' ');
        let (method, url) = (words.next()?.to_owned(), words.next()?.to_owned());
        let headers: Vec<_> = lines
            .filter_map(|line| line.split_once(':').map(|(key, value)| (key.to_lowercase(), value.trim().to_owned())))
            .collect();
        let length = headers.iter().find(|(key, _)| key == "content-length").and_then(|(_, value)| value.parse().ok());
        std::io::copy(&mut self.reader.by_ref().take(length.unwrap_or(0)), &mut std::io::sink()).ok()?;
        Some(Request { method, url, headers })
    }

    fn set_up(&mut self, wanted: &str) -> Option<String> {
        let after = |name: &str| {
            let digits = wanted.split(name).nth(1)?;
            digits.split(|c: char| !c.is_ascii_digit()).next()?.parse::<u16>().ok()
        };
        if wanted.contains("TCP") && !self.shared.habits.tcp {
            return None;
        }
        if wanted.contains("TCP") {
            let channel = after("interleaved=").unwrap_or(0) as u8;
            self.way = Some(Way::Tcp { writer: Arc::clone(&self.writer), channel });
            return Some(format!("RTP/AVP/TCP;unicast;interleaved={channel}-{}", channel + 1));
        }
        let port = after("client_port=").filter(|_| self.shared.habits.udp)?;
        let own = free_port_pair();
        let socket = UdpSocket::bind(("127.0.0.1", own)).expect("its port");
        let asks = Arc::default();
        if self.shared.habits.answers {
            hear_requests(own + 1, Arc::clone(&self.gone), Arc::clone(&asks));
        }
        self.way = Some(Way::Udp { socket, to: SocketAddr::from(([127, 0, 0, 1], port)), asks });
        Some(format!("RTP/AVP;unicast;client_port={port}-{};server_port={own}-{}", port + 1, own + 1))
    }
}

/// Sets `asks` when a picture loss is indicated at this port (RFC 4585 section 6.3.1), until the client has gone.
fn hear_requests(port: u16, gone: Arc<AtomicBool>, asks: Arc<AtomicBool>) {
    let socket = UdpSocket::bind(("127.0.0.1", port)).expect("the port for RTCP");
    socket.set_read_timeout(Some(Duration::from_millis(100))).expect("a limit");
    std::thread::spawn(move || {
        let mut compound = [0; 1500];
        while !gone.load(Ordering::Relaxed) {
            // Without a report within the limit it looks whether the client is still there.
            let Ok(length) = socket.recv(&mut compound) else { continue };
            let mut rest = &compound[..length];
            while let [first, kind, high, low, ..] = *rest {
                if kind == 206 && first & 0x1f == 1 {
                    asks.store(true, Ordering::Relaxed);
                }
                rest = rest.get(4 * (usize::from(u16::from_be_bytes([high, low])) + 1)..).unwrap_or_default();
            }
        }
    });
}

/// Sends pictures until the client, or the camera, has gone.
fn stream(shared: &Shared, way: &Way, gone: &AtomicBool) {
    let (mut sequence, mut timestamp, mut due) = (1_u16, 1_000.0_f64, Instant::now());
    let mut of_group = 0;
    for number in 1_u32.. {
        let is_asked = matches!(way, Way::Udp { asks, .. } if asks.swap(false, Ordering::Relaxed));
        of_group = if is_asked { 0 } else { of_group % shared.units.len() };
        let unit = &shared.units[of_group];
        of_group += 1;
        let skipped = shared.habits.unused.wrapping_add(shared.number_jump.swap(0, Ordering::Relaxed));
        sequence = sequence.wrapping_add(skipped);
        if gone.load(Ordering::Relaxed) || shared.stop.load(Ordering::Relaxed) {
            return;
        }
        let interval = Duration::from_secs_f64(1e3 / shared.delivered.load(Ordering::Relaxed) as f64);
        if due.elapsed() > interval {
            shared.late.fetch_add(1, Ordering::Relaxed);
        }
        timestamp += shared.jump.swap(0, Ordering::Relaxed) as f64;
        for (payload, marker) in payloads(unit, shared.habits.marks) {
            let mut packet = vec![0x80, 96 | u8::from(marker) << 7];
            packet.extend_from_slice(&sequence.to_be_bytes());
            packet.extend_from_slice(&(timestamp as i64 as u32).to_be_bytes());
            packet.extend_from_slice(&[0x11, 0x22, 0x33, 0x44]);
            packet.extend_from_slice(&payload);
            sequence = sequence.wrapping_add(1);
            let is_lost = match of_group {
                1 => shared.lose_keyframes.load(Ordering::Relaxed),
                3 => shared.lose.swap(false, Ordering::Relaxed),
                _ => false,
            };
            let by_udp = matches!(way, Way::Udp { .. });
            if is_lost || by_udp && of_group > 1 && shared.lose_next.swap(false, Ordering::Relaxed) {
                continue;
            }
            let sent = match way {
                Way::Tcp { writer, channel } => {
                    let mut framed = vec![b'$', *channel];
                    framed.extend_from_slice(&(packet.len() as u16).to_be_bytes());
                    framed.extend_from_slice(&packet);
                    lock(writer).write_all(&framed)
                }
                // Where nobody listens yet, or any more, the system says that by an error.
                Way::Udp { socket, to, .. } => {
                    let _ = socket.send_to(&packet, to);
                    Ok(())
                }
            };
            if sent.is_err() {
                return;
            }
        }
        shared.sent.fetch_add(1, Ordering::Relaxed);
        timestamp += 90_000.0 / shared.habits.stamped;
        due += interval;
        if number.is_multiple_of(shared.habits.together) {
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
        }
    }
}

/// The payloads of an access unit (RFC 6184 sections 5.6 and 5.8), and which of them have the marker bit.
fn payloads(unit: &[Vec<u8>], marks: Marks) -> Vec<(Vec<u8>, bool)> {
    const LARGEST: usize = 1_200;
    let mut payloads = Vec::new();
    for (at, nal) in unit.iter().enumerate() {
        let is_slice = matches!(Codec::H264.nal_kind(nal), NalKind::Slice | NalKind::KeyframeSlice);
        let marked = match marks {
            Marks::Picture => at == unit.len() - 1,
            Marks::ParameterSets => at == unit.len() - 1 || !is_slice,
            Marks::EveryNal => true,
            Marks::Never => false,
        };
        if nal.len() <= LARGEST {
            payloads.push((nal.clone(), marked));
            continue;
        }
        let chunks = nal[1..].chunks(LARGEST);
        let last = chunks.len() - 1;
        for (i, chunk) in chunks.enumerate() {
            let flags = u8::from(i == 0) << 7 | u8::from(i == last) << 6;
            let mut payload = vec![nal[0] & 0xe0 | 28, flags | nal[0] & 0x1f];
            payload.extend_from_slice(chunk);
            payloads.push((payload, marked && i == last));
        }
    }
    payloads
}
