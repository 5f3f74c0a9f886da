//! Whether bytes wait unread in a TCP connection that a library holds and does not hand out, as GStreamer's `rtspsrc`
//! does.

use std::net::SocketAddr;

/// This process's connections to one peer.
#[derive(Debug)]
pub struct Unread {
    /// What the peer's name stands for.
    peers: Vec<SocketAddr>,
    #[cfg(target_os = "linux")]
    connections: Vec<std::os::fd::RawFd>,
}

impl Unread {
    pub fn new(peers: Vec<SocketAddr>) -> Self {
        Self {
            peers,
            #[cfg(target_os = "linux")]
            connections: Vec::new(),
        }
    }

    /// None where the system does not say, or there is no connection. Two system calls, but for the first time.
    #[cfg(target_os = "linux")]
    pub fn waits(&mut self) -> Option<bool> {
        let is_open = |descriptor: &std::os::fd::RawFd| linux::peer(*descriptor).is_some_and(|peer| self.has(peer));
        if self.connections.is_empty() || !self.connections.iter().all(is_open) {
            self.connections = linux::descriptors().filter(is_open).collect();
        }
        self.connections.iter().map(|descriptor| linux::unread(*descriptor) > 0).reduce(|one, other| one || other)
    }

    #[cfg(not(target_os = "linux"))]
    pub fn waits(&mut self) -> Option<bool> {
        None
    }

    #[cfg(target_os = "linux")]
    fn has(&self, peer: SocketAddr) -> bool {
        self.peers.iter().any(|known| known.ip().to_canonical() == peer.ip() && known.port() == peer.port())
    }
}

/// The descriptors belong to others, who may close them at any time: each call checks what it is given, and only asks.
#[cfg(target_os = "linux")]
mod linux {
    use std::net::SocketAddr;
    use std::os::fd::RawFd;

    use socket2::SockAddr;

    pub fn descriptors() -> impl Iterator<Item = RawFd> {
        let files = std::fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
        files.filter_map(|file| file.file_name().to_str()?.parse().ok())
    }

    /// The other end, where it is a connection by IP.
    pub fn peer(descriptor: RawFd) -> Option<SocketAddr> {
        // SAFETY: the call writes no more than the storage's length, and says how much that is; a descriptor that is no
        // socket, or none any more, is an error.
        let (_, address) = unsafe {
            SockAddr::try_init(|storage, length| match libc::getpeername(descriptor, storage.cast(), length) {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            })
        }
        .ok()?;
        let address = address.as_socket()?;
        Some(SocketAddr::new(address.ip().to_canonical(), address.port()))
    }

    pub fn unread(descriptor: RawFd) -> libc::c_int {
        let mut bytes: libc::c_int = 0;
        // SAFETY: the request writes one c_int; a descriptor that is none any more is an error.
        let result = unsafe { libc::ioctl(descriptor, libc::FIONREAD, std::ptr::from_mut(&mut bytes)) };
        if result == 0 { bytes } else { 0 }
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn bytes_that_wait_in_a_connection_are_seen() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let peer = listener.local_addr().unwrap();
        let mut unread = Unread::new(vec![peer]);
        assert_eq!(unread.waits(), None);
        let mut reader = TcpStream::connect(peer).unwrap();
        let (mut writer, _) = listener.accept().unwrap();
        assert_eq!(unread.waits(), Some(false));
        writer.write_all(b"ab").unwrap();
        let mut byte = [0; 1];
        reader.read_exact(&mut byte).unwrap();
        assert_eq!(unread.waits(), Some(true));
        reader.read_exact(&mut byte).unwrap();
        assert_eq!(unread.waits(), Some(false));
        drop(reader);
        assert_eq!(unread.waits(), None);
    }

    #[test]
    fn connections_to_others_say_nothing() {
        let (one, other) = (TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
        let _reader = TcpStream::connect(other.local_addr().unwrap()).unwrap();
        let (mut writer, _) = other.accept().unwrap();
        writer.write_all(b"a").unwrap();
        let mut unread = Unread::new(vec![one.local_addr().unwrap()]);
        assert_eq!(unread.waits(), None);
    }
}
