//! Listens on loopback to when each picture's RTP packets are sent: the headers are in clear for SRTP too (RFC 3711),
//! so that every sender is measured from outside in the same way. Needs the network of our own, in which we may listen.

use std::collections::{HashMap, HashSet};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{SystemTime, UNIX_EPOCH};

use rov_bench::clock;

/// IP and UDP with their headers, and 12 bytes of RTP.
const HEAD: usize = 96;
/// The end is looked for so often, in milliseconds.
const TAKE_MS: libc::c_long = 50;

/// Pictures that were sent longer ago are forgotten,
const MEMORY_US: u64 = 10_000_000;
/// when there are so many: more than any sender sends in that time.
const MEMORY: usize = 1 << 15;

/// Of a picture, in microseconds of CLOCK_MONOTONIC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sent {
    pub first_us: u64,
    pub last_us: u64,
}

/// By SSRC and RTP timestamp: those of the last [`MEMORY_US`], or some more.
type Pictures = HashMap<(u32, u32), Sent>;

#[derive(Default)]
struct Seen {
    pictures: Pictures,
    /// To which port each SSRC goes.
    ports: HashMap<u32, u16>,
}

/// Ends when it is dropped.
pub struct Tap {
    stop: Arc<AtomicBool>,
    seen: Arc<Mutex<Seen>>,
    thread: Option<JoinHandle<()>>,
}

impl Tap {
    pub fn start() -> io::Result<Self> {
        let socket = open()?;
        let (stop, seen) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let thread = {
            let (stop, seen) = (stop.clone(), Arc::clone(&seen));
            std::thread::spawn(move || listen(&socket, &stop, &seen))
        };
        Ok(Self { stop, seen, thread: Some(thread) })
    }

    /// The SSRC of the source that has sent most of these pictures, to one of these ports where they are given: the
    /// timestamps of two viewers may be the same. Each viewer gets one of its own; retransmissions and repair have
    /// others.
    pub fn source(&self, timestamps: impl IntoIterator<Item = u32>, ports: Option<&[u16]>) -> Option<u32> {
        source_of(&self.lock(), timestamps, ports)
    }

    /// What each of these has sent in the last seconds, by RTP timestamp.
    pub fn pictures(&self, sources: &[u32]) -> HashMap<u32, HashMap<u32, Sent>> {
        let mut found: HashMap<u32, HashMap<u32, Sent>> = sources.iter().map(|ssrc| (*ssrc, HashMap::new())).collect();
        for ((ssrc, timestamp), sent) in &self.lock().pictures {
            if let Some(own) = found.get_mut(ssrc) {
                own.insert(*timestamp, *sent);
            }
        }
        found
    }

    /// What anybody began to send at this time or later, in microseconds.
    pub fn since(&self, from_us: u64) -> Vec<Sent> {
        self.lock().pictures.values().filter(|sent| sent.first_us >= from_us).copied().collect()
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It does not panic.
            let _ = thread.join();
        }
    }
}

fn source_of(seen: &Seen, timestamps: impl IntoIterator<Item = u32>, ports: Option<&[u16]>) -> Option<u32> {
    let may_be = |ssrc| ports.is_none_or(|ports| seen.ports.get(ssrc).is_some_and(|port| ports.contains(port)));
    let timestamps: HashSet<u32> = timestamps.into_iter().collect();
    let mut counts: HashMap<u32, usize> = HashMap::new();
    let sent = seen.pictures.keys().filter(|(ssrc, timestamp)| timestamps.contains(timestamp) && may_be(ssrc));
    for (ssrc, _) in sent {
        *counts.entry(*ssrc).or_default() += 1;
    }
    counts.into_iter().max_by_key(|(ssrc, count)| (*count, *ssrc)).map(|(ssrc, _)| ssrc)
}

fn open() -> io::Result<OwnedFd> {
    let protocol = (libc::ETH_P_IP as u16).to_be();
    let check = |result: libc::c_int| if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) };
    let set = |socket: &OwnedFd, level, name, value: &[u8]| {
        // SAFETY: a pointer to so many bytes, which are only read.
        let result = unsafe {
            libc::setsockopt(socket.as_raw_fd(), level, name, value.as_ptr().cast(), value.len() as libc::socklen_t)
        };
        check(result)
    };
    // SAFETY: the descriptor is new and checked; an address of zeros is valid before it is filled in; lengths are those
    // of the types.
    let socket = unsafe {
        let kind = libc::SOCK_DGRAM | libc::SOCK_CLOEXEC;
        let socket = OwnedFd::from_raw_fd(check(libc::socket(libc::AF_PACKET, kind, i32::from(protocol)))?);
        let mut address: libc::sockaddr_ll = std::mem::zeroed();
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = protocol;
        address.sll_ifindex = check(libc::if_nametoindex(c"lo".as_ptr()) as libc::c_int)?;
        let length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
        check(libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length))?;
        socket
    };
    // Loopback shows each packet as sent and as received: once is enough (Linux 4.20).
    const PACKET_IGNORE_OUTGOING: libc::c_int = 23;
    set(&socket, libc::SOL_PACKET, PACKET_IGNORE_OUTGOING, &1_i32.to_ne_bytes())?;
    set(&socket, libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, &1_i32.to_ne_bytes())?;
    let timeout = [0, TAKE_MS * 1000].map(libc::c_long::to_ne_bytes).concat();
    set(&socket, libc::SOL_SOCKET, libc::SO_RCVTIMEO, &timeout)?;
    // Enough for a burst of large pictures; without the right to it, the default.
    let _ = set(&socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, &(16_i32 << 20).to_ne_bytes());
    Ok(socket)
}

fn listen(socket: &OwnedFd, stop: &AtomicBool, seen: &Mutex<Seen>) {
    // The kernel's times are those of CLOCK_REALTIME.
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros() as u64;
    let ahead = unix.wrapping_sub(clock::now_us());
    let mut head = [0; HEAD];
    while !stop.load(Ordering::Relaxed) {
        let Some((length, unix_us)) = receive(socket, &mut head) else { continue };
        let Some((port, key)) = rtp(&head[..length]) else { continue };
        let at_us = unix_us.wrapping_sub(ahead);
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        let Seen { pictures, ports } = &mut *seen;
        ports.insert(key.0, port);
        pictures.entry(key).or_insert(Sent { first_us: at_us, last_us: at_us }).last_us = at_us;
        forget(pictures, at_us);
    }
}

fn forget(pictures: &mut Pictures, now_us: u64) {
    if pictures.len() >= MEMORY {
        pictures.retain(|_, sent| sent.last_us + MEMORY_US >= now_us);
    }
}

/// The beginning of a packet, and when it passed, in microseconds of Unix time.
fn receive(socket: &OwnedFd, head: &mut [u8]) -> Option<(usize, u64)> {
    let mut part = libc::iovec { iov_base: head.as_mut_ptr().cast(), iov_len: head.len() };
    let mut control = [0_u64; 8];
    // SAFETY: pointers to what outlives the call, with its sizes; the control message is only read where the system
    // says that it is there, and holds a timespec where it says so.
    unsafe {
        let mut message: libc::msghdr = std::mem::zeroed();
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = size_of_val(&control) as _;
        let length = usize::try_from(libc::recvmsg(socket.as_raw_fd(), &raw mut message, 0)).ok()?;
        let first = libc::CMSG_FIRSTHDR(&raw const message);
        if first.is_null() || (*first).cmsg_type != libc::SCM_TIMESTAMPNS {
            return None;
        }
        let time = libc::CMSG_DATA(first).cast::<libc::timespec>().read_unaligned();
        Some((length, time.tv_sec as u64 * 1_000_000 + time.tv_nsec as u64 / 1000))
    }
}

/// The port that it goes to, and SSRC and timestamp, of an IPv4 packet that holds RTP. Told from STUN, DTLS and RTCP as
/// in RFC 7983 and RFC 5761. Of packets that are sent in one go (segmentation offload) only the first is seen; they
/// belong to one picture.
fn rtp(packet: &[u8]) -> Option<(u16, (u32, u32))> {
    const UDP: u8 = 17;
    let header = usize::from(packet.first()? & 0xf) * 4;
    if packet[0] >> 4 != 4 || *packet.get(9)? != UDP {
        return None;
    }
    let rtp = packet.get(header + 8..header + 20)?;
    let is_rtp = rtp[0] >> 6 == 2 && !(192..=223).contains(&rtp[1]);
    let word = |at: usize| u32::from_be_bytes([rtp[at], rtp[at + 1], rtp[at + 2], rtp[at + 3]]);
    let port = u16::from_be_bytes([packet[header + 2], packet[header + 3]]);
    is_rtp.then(|| (port, (word(8), word(4))))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An IPv4 packet with UDP and this payload.
    fn packet(payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![0; 28];
        packet[0] = 0x45;
        packet[9] = 17;
        packet[23] = 5;
        packet.extend(payload);
        packet
    }

    #[test]
    fn rtp_is_told_from_what_shares_its_port() {
        let rtp_header = [0x80, 96, 0, 1, 0, 0, 0, 9, 0xa, 0xb, 0xc, 0xd];
        assert_eq!(rtp(&packet(&rtp_header)), Some((5, (0x0a0b_0c0d, 9))));
        let with = |first: u8, second: u8| {
            let mut header = rtp_header;
            (header[0], header[1]) = (first, second);
            rtp(&packet(&header))
        };
        assert_eq!(with(0x90, 0x80 | 96), Some((5, (0x0a0b_0c0d, 9))), "with an extension and the marker");
        assert_eq!(with(0x80, 200), None, "RTCP");
        assert_eq!(with(0, 1), None, "STUN");
        assert_eq!(with(22, 254), None, "DTLS");
        assert_eq!(rtp(&packet(&rtp_header[..11])), None);
        let mut tcp = packet(&rtp_header);
        tcp[9] = 6;
        assert_eq!(rtp(&tcp), None);
        assert_eq!(rtp(&[]), None);
    }

    #[test]
    fn pictures_of_long_ago_are_forgotten() {
        let sent = |us| Sent { first_us: us, last_us: us };
        let now_us = 100 * MEMORY_US;
        let mut pictures: Pictures = (0..10).map(|timestamp| ((1, timestamp), sent(5))).collect();
        forget(&mut pictures, now_us);
        assert_eq!(pictures.len(), 10, "few take no room");
        pictures.extend((0..MEMORY as u32).map(|timestamp| ((2, timestamp), sent(now_us))));
        forget(&mut pictures, now_us);
        assert!(pictures.len() == MEMORY && pictures.keys().all(|(ssrc, _)| *ssrc == 2));
    }

    #[test]
    fn the_source_is_that_of_the_pictures_that_came() {
        let sent = |us| Sent { first_us: us, last_us: us + 1 };
        let pictures = HashMap::from([((7, 1), sent(10)), ((7, 2), sent(20)), ((9, 1), sent(11)), ((8, 5), sent(11))]);
        let seen = Seen { pictures, ports: HashMap::from([(7, 70), (8, 80), (9, 90)]) };
        assert_eq!(source_of(&seen, [1, 2], None), Some(7));
        assert_eq!(source_of(&seen, [1, 2], Some(&[89, 90])), Some(9));
        assert_eq!(source_of(&seen, [5], Some(&[80])), Some(8));
        assert_eq!(source_of(&seen, [5], Some(&[70])), None);
        assert_eq!(source_of(&seen, [3], None), None);
    }
}
