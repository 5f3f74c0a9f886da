//! An RTSP client that does just what a test tells it, and a player that reads the marks of the pictures.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use gstreamer as gst;
use gstreamer::prelude::*;
use rov_common::stamp::{self, Stamp};
use socket2::{Domain, Socket, Type};
use url::Url;

use crate::wait;

/// A connection that speaks RTSP. It never reads unless it waits for an answer.
pub struct Connection {
    stream: TcpStream,
    received: Vec<u8>,
    sequence: u32,
    url: String,
}

#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub head: String,
}

impl Connection {
    pub fn open(url: &str) -> Self {
        Self::open_from([127, 0, 0, 1], url)
    }

    /// As another computer, which has this address.
    pub fn open_from(from: [u8; 4], url: &str) -> Self {
        let address =
            Url::parse(url).ok().and_then(|url| url.socket_addrs(|| None).ok()?.pop()).expect("an RTSP address");
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        socket.bind(&SocketAddr::from((from, 0)).into()).expect("an address on loopback");
        socket.connect(&address.into()).expect("a connection");
        let stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(wait::START)).expect("a time-out");
        Self { stream, received: Vec::new(), sequence: 0, url: url.to_owned() }
    }

    /// Sends a request for the address and `suffix`, and gives the answer. `headers` end with line ends.
    ///
    /// # Panics
    /// When the server closes the connection instead.
    pub fn request(&mut self, method: &str, suffix: &str, headers: &str) -> Reply {
        self.try_request(method, suffix, headers).unwrap_or_else(|| panic!("{method}: the connection was closed"))
    }

    /// As [`Self::request`]; none when the server closes the connection.
    pub fn try_request(&mut self, method: &str, suffix: &str, headers: &str) -> Option<Reply> {
        self.sequence += 1;
        let request = format!("{method} {}{suffix} RTSP/1.0\r\nCSeq: {}\r\n{headers}\r\n", self.url, self.sequence);
        self.stream.write_all(request.as_bytes()).ok()?;
        self.reply()
    }

    /// The next answer; none when the server closes the connection.
    pub fn reply(&mut self) -> Option<Reply> {
        loop {
            // What comes before is video.
            let text = String::from_utf8_lossy(&self.received);
            if let Some((_, answer)) = text.split_once("RTSP/1.0 ")
                && let Some((head, _)) = answer.split_once("\r\n\r\n")
            {
                let reply = Reply { status: head[..3].parse().expect("a status"), head: head.to_owned() };
                self.received.clear();
                return Some(reply);
            }
            if self.read() == 0 {
                return None;
            }
        }
    }

    /// Describes, sets up by TCP and plays. Gives the header that names the session.
    pub fn play_by_tcp(&mut self) -> String {
        assert_eq!(self.request("DESCRIBE", "", "").status, 200);
        let setup = self.set_up();
        assert_eq!(setup.status, 200, "{setup:?}");
        let session = setup.head.split("Session: ").nth(1).and_then(|rest| rest.split([';', '\r']).next());
        let session = format!("Session: {}\r\n", session.expect("a session"));
        assert_eq!(self.request("PLAY", "", &session).status, 200);
        session
    }

    pub fn set_up(&mut self) -> Reply {
        self.request("SETUP", "/stream=0", "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n")
    }

    pub fn send(&mut self, bytes: &[u8]) {
        // The server may have closed it already.
        let _ = self.stream.write_all(bytes);
    }

    /// Reads until the server closes the connection.
    pub fn wait_for_close(&mut self, limit: Duration) {
        let end = Instant::now() + limit;
        while self.read() > 0 {
            assert!(Instant::now() < end, "the server keeps the connection open");
        }
    }

    fn read(&mut self) -> usize {
        let mut buffer = [0; 65_536];
        match self.stream.read(&mut buffer) {
            Ok(length) => {
                self.received.extend_from_slice(&buffer[..length]);
                length
            }
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => 0,
            Err(error) => panic!("the server says nothing: {error}"),
        }
    }
}

/// One decoded picture.
#[derive(Clone, Copy, Debug)]
pub struct Shot {
    pub at: Instant,
    pub pts: Option<gst::ClockTime>,
    pub stamp: Option<Stamp>,
    /// Since its mark was drawn.
    pub latency: Option<Duration>,
}

/// GStreamer's RTSP source and a decoder in this process.
pub struct Player {
    pipeline: gst::Element,
    shots: Arc<Mutex<Vec<Shot>>>,
    pub started: Instant,
}

impl Player {
    /// `protocols` are those of `rtspsrc`: `tcp`, `udp` or `udp-mcast`.
    pub fn start(url: &str, protocols: &str) -> Self {
        Self::decode(url, protocols, "rtph264depay ! h264parse ! avdec_h264 max-threads=1")
    }

    /// As [`Self::start`], for MJPEG.
    pub fn start_mjpeg(url: &str, protocols: &str) -> Self {
        Self::decode(url, protocols, "rtpjpegdepay ! jpegdec")
    }

    fn decode(url: &str, protocols: &str, decoder: &str) -> Self {
        let source = format!("rtspsrc location={url} protocols={protocols} latency=0 udp-buffer-size=4194304");
        Self::launch(&format!("{source} ! {decoder}"), false, |_| ())
    }

    /// Shows what the pipeline in text gives, as raw video; `sync`: each picture at its time. `prepare` sees it before
    /// it starts.
    pub fn launch(text: &str, sync: bool, prepare: impl FnOnce(&gst::Bin)) -> Self {
        gst::init().expect("GStreamer");
        let started = Instant::now();
        let pipeline = gst::parse::launch(&format!(
            "{text} ! videoconvert ! video/x-raw,format=GRAY8 ! fakesink name=sink sync={sync} signal-handoffs=true"
        ))
        .expect("the elements are installed");
        prepare(pipeline.downcast_ref().expect("a pipeline"));
        let shots = Arc::new(Mutex::new(Vec::new()));
        let sink = pipeline.downcast_ref::<gst::Bin>().and_then(|bin| bin.by_name("sink")).expect("the sink");
        let taken = Arc::clone(&shots);
        sink.connect("handoff", false, move |values| {
            let buffer = values[1].get::<gst::Buffer>().expect("a buffer");
            let caps = values[2].get::<gst::Pad>().ok().and_then(|pad| pad.current_caps()).expect("caps");
            taken.lock().unwrap_or_else(PoisonError::into_inner).push(shot(&buffer, &caps));
            None
        });
        pipeline.set_state(gst::State::Playing).expect("the player starts");
        Self { pipeline, shots, started }
    }

    pub fn shots(&self) -> Vec<Shot> {
        self.shots.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits for so many pictures more than there are now, and gives those.
    pub fn next_shots(&self, count: usize) -> Vec<Shot> {
        let before = self.shots().len();
        wait::until(&format!("{count} pictures by RTSP"), wait::START, || {
            let shots = self.shots();
            (shots.len() >= before + count).then(|| shots[before..].to_vec())
        })
    }

    /// Waits for a picture that comes less than `limit` later after its mark was drawn than the quickest of another
    /// viewer of the same stream, `best`. A sink that waits for the clock delays every picture, and a busy machine only
    /// some.
    pub fn wait_for_prompt_shot(&self, limit: Duration, best: impl Fn() -> Duration) {
        let from = self.shots().len();
        wait::until_true(&format!("a picture within {limit:?} of the quickest"), wait::START, || {
            let limit = best().saturating_add(limit);
            self.shots()[from..].iter().any(|shot| shot.latency.is_some_and(|latency| latency < limit))
        });
    }
}

impl Drop for Player {
    fn drop(&mut self) {
        let _ = self.pipeline.set_state(gst::State::Null);
    }
}

fn shot(buffer: &gst::Buffer, caps: &gst::Caps) -> Shot {
    let structure = caps.structure(0).expect("caps of a picture");
    let side = |name| structure.get::<i32>(name).expect("its size") as usize;
    let (width, height) = (side("width"), side("height"));
    let now_us = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970").as_micros() as u64;
    let map = buffer.map_readable().expect("a picture that can be read");
    let stamp = stamp::read_luma(&map, width.next_multiple_of(4), width, height);
    let latency = stamp.map(|stamp| Duration::from_micros(now_us.saturating_sub(stamp.time_us)));
    Shot { at: Instant::now(), pts: buffer.pts(), stamp, latency }
}

/// The median and the largest of the latencies.
pub fn latencies(shots: &[Shot]) -> (Duration, Duration) {
    let mut all: Vec<_> = shots.iter().filter_map(|shot| shot.latency).collect();
    all.sort();
    (all[all.len() / 2], all[all.len() - 1])
}

/// Numbers that are missing between the first and the last, and pictures whose mark cannot be read.
pub fn defects(shots: &[Shot]) -> (u64, usize) {
    let frames: Vec<u64> = shots.iter().filter_map(|shot| shot.stamp).map(|stamp| stamp.frame.into()).collect();
    let missing = frames.windows(2).map(|pair| pair[1].saturating_sub(pair[0] + 1)).sum();
    (missing, shots.len() - frames.len())
}
