//! A receiver of plain RTP over loopback: what came, when, and what RTCP said about it. Written from RFC 3550 and RFC
//! 6184.

use std::net::UdpSocket;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rov_common::net::grow_buffers;
use socket2::SockRef;

/// Of one access unit.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Picture {
    pub timestamp: u32,
    /// The NAL unit types in their order, each once also when it came in fragments.
    pub nal_types: Vec<u8>,
    pub packets: usize,
    /// Seconds of Unix time at which its first and its last packet came.
    pub first_at: f64,
    pub last_at: f64,
}

impl Picture {
    pub fn is_keyframe(&self) -> bool {
        self.nal_types.contains(&5)
    }
}

/// A sender report: a moment, in Unix seconds and in RTP ticks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Report {
    pub at: f64,
    pub ticks: u32,
    pub packets: u32,
    pub octets: u32,
}

impl Report {
    /// Seconds of Unix time at which the picture with this timestamp was captured.
    pub fn captured_at(&self, timestamp: u32) -> f64 {
        self.at + f64::from(timestamp.wrapping_sub(self.ticks) as i32) / 90_000.0
    }
}

/// What a [`Receiver`] has seen.
#[derive(Debug, Default)]
pub struct Seen {
    /// In the order of their last packets; the first may be a part only.
    pub pictures: Vec<Picture>,
    pub reports: Vec<Report>,
    /// Packets that did not follow the one before by number.
    pub gaps: usize,
    pub packets: usize,
    pub octets: usize,
    pub goodbye: bool,
}

/// Two sockets at 127.0.0.1: an even port for RTP, and the one above for RTCP.
pub struct Receiver {
    rtp: UdpSocket,
    rtcp: UdpSocket,
    pub port: u16,
    pub seen: Seen,
    current: Picture,
    next: Option<u16>,
    ssrc: Option<u32>,
}

impl Receiver {
    pub fn bind() -> Self {
        let (rtp, rtcp) = bind_pair();
        let port = rtp.local_addr().expect("its address").port();
        for socket in [&rtp, &rtcp] {
            socket.set_nonblocking(true).expect("a socket that does not block");
            // What the system grants: a busy machine may not let this process run for a while.
            grow_buffers(&SockRef::from(socket));
        }
        Self { rtp, rtcp, port, seen: Seen::default(), current: Picture::default(), next: None, ssrc: None }
    }

    /// Takes what has come, and waits for more until `enough`.
    ///
    /// # Panics
    /// When that is not within `limit`, and where a packet is not as the RFCs want it.
    pub fn receive_until(&mut self, what: &str, limit: Duration, enough: impl Fn(&Seen) -> bool) {
        let end = Instant::now() + limit;
        let mut buffer = [0; 65_536];
        while !enough(&self.seen) {
            assert!(Instant::now() < end, "waited {limit:?} for this, which did not come: {what}; {:?}", self.seen);
            let mut idle = true;
            while let Ok(length) = self.rtp.recv(&mut buffer) {
                self.media(&buffer[..length]);
                idle = false;
            }
            while let Ok(length) = self.rtcp.recv(&mut buffer) {
                self.control(&buffer[..length]);
                idle = false;
            }
            if idle {
                std::thread::sleep(Duration::from_micros(200));
            }
        }
    }

    fn media(&mut self, packet: &[u8]) {
        let now = unix_seconds();
        assert_eq!((packet[0], packet[1] & 0x7F), (0x80, 96), "version 2 without extras, payload type 96");
        let sequence = u16::from_be_bytes([packet[2], packet[3]]);
        let (timestamp, ssrc) = (word(packet, 4), word(packet, 8));
        assert_eq!(*self.ssrc.get_or_insert(ssrc), ssrc);
        self.seen.gaps += usize::from(self.next.is_some_and(|next| next != sequence));
        self.next = Some(sequence.wrapping_add(1));
        let payload = &packet[12..];
        self.seen.packets += 1;
        self.seen.octets += payload.len();
        if self.current.packets == 0 {
            self.current = Picture { timestamp, first_at: now, ..Picture::default() };
        }
        assert_eq!(self.current.timestamp, timestamp, "one access unit has one timestamp");
        self.current.packets += 1;
        match payload[0] & 0x1F {
            // FU-A: only the first fragment counts.
            28 if payload[1] & 0x80 != 0 => self.current.nal_types.push(payload[1] & 0x1F),
            28 => {}
            kind => self.current.nal_types.push(kind),
        }
        if packet[1] & 0x80 != 0 {
            let picture = std::mem::take(&mut self.current);
            self.seen.pictures.push(Picture { last_at: now, ..picture });
        }
    }

    fn control(&mut self, compound: &[u8]) {
        let mut rest = compound;
        let mut kinds = Vec::new();
        while !rest.is_empty() {
            let length = (usize::from(u16::from_be_bytes([rest[2], rest[3]])) + 1) * 4;
            let (packet, after) = rest.split_at(length);
            kinds.push(packet[1]);
            assert_eq!(word(packet, 4), *self.ssrc.get_or_insert(word(packet, 4)), "all of one source");
            if packet[1] == 200 {
                let at = f64::from(word(packet, 8)) - 2_208_988_800.0 + f64::from(word(packet, 12)) / 2f64.powi(32);
                let (ticks, packets, octets) = (word(packet, 16), word(packet, 20), word(packet, 24));
                self.seen.reports.push(Report { at, ticks, packets, octets });
            }
            rest = after;
        }
        assert_eq!(kinds[..2], [200, 202], "a sender report and the source's name");
        self.seen.goodbye |= kinds.get(2) == Some(&203);
    }
}

/// An even UDP port that is free at this moment at 127.0.0.1, with the two above it, for a program that binds it
/// itself.
pub fn free_rtp_port() -> u16 {
    bind_pair().0.local_addr().expect("its address").port()
}

fn bind_pair() -> (UdpSocket, UdpSocket) {
    loop {
        let rtp = UdpSocket::bind("127.0.0.1:0").expect("a UDP socket");
        let port = rtp.local_addr().expect("its address").port();
        if port.is_multiple_of(2)
            && port < 65_532
            && let Ok(rtcp) = UdpSocket::bind(("127.0.0.1", port + 1))
            && UdpSocket::bind(("127.0.0.1", port + 2)).is_ok()
        {
            return (rtp, rtcp);
        }
    }
}

fn word(packet: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(packet[at..at + 4].try_into().expect("four bytes"))
}

fn unix_seconds() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock that is set").as_secs_f64()
}
