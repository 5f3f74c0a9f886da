//! A network in user space: it passes the datagrams between one viewer and the server on, loses some each way, lets
//! some be overtaken on the way to the viewer, breaks down, and takes its time. Losses come from a seeded generator, so that they
//! are the same each time. For TCP, a link that is too slow, and one that lets no UDP through beside it.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use socket2::{Domain, SockRef, Socket, Type};

/// A datagram of the media is shorter by far.
const LARGEST: usize = 65_536;
/// The threads look so often for the end of the relay.
const TICK: Duration = Duration::from_millis(50);
/// Of a link with a limited rate.
const QUEUE: Duration = Duration::from_millis(500);
/// UDP and IPv4.
const HEADERS: usize = 28;
/// Of TCP.
const SEGMENT: usize = 1_400;
/// A keyframe comes as one burst.
const BUFFER: usize = 4 << 20;

/// What the network does.
#[derive(Debug, Default)]
pub struct Network {
    /// Datagrams lost on the way to the viewer, in a million.
    loss: AtomicU32,
    /// And on the way to the server.
    loss_back: AtomicU32,
    /// Datagrams to the viewer that take up to [`Self::OVERTAKEN`] longer, in a million.
    reordering: AtomicU32,
    /// Nothing gets through.
    down: AtomicBool,
    /// Each way.
    pub delay: Duration,
    /// So much more on the way to the viewer, and so much more or less each way.
    asymmetry: Duration,
    jitter: Duration,
    pub seed: u64,
    /// Bit/s on the way to the viewer; 0: no limit.
    rate: AtomicU64,
    /// When that link is free again; all relays share it.
    free: Mutex<Option<Instant>>,
    passed: AtomicU64,
    dropped: AtomicU64,
}

impl Network {
    /// One that loses nothing yet.
    pub fn new(delay: Duration, seed: u64) -> Arc<Self> {
        Arc::new(Self { delay, seed, ..Self::default() })
    }

    /// Takes so much longer to the viewer, and up to `jitter` more or less each way.
    pub fn uneven(delay: Duration, asymmetry: Duration, jitter: Duration) -> Arc<Self> {
        Arc::new(Self { delay, asymmetry, jitter, seed: 1, ..Self::default() })
    }

    /// Loses this share, 0 to 1, of the datagrams to the viewer from now on.
    pub fn set_loss(&self, share: f64) {
        self.loss.store((share * 1e6) as u32, Ordering::Relaxed);
    }

    /// Loses this share of what the viewer sends as well, what asks for packets among it.
    pub fn set_loss_back(&self, share: f64) {
        self.loss_back.store((share * 1e6) as u32, Ordering::Relaxed);
    }

    /// How much longer a datagram that is overtaken takes at most.
    pub const OVERTAKEN: Duration = Duration::from_millis(5);

    /// Lets this share of the datagrams to the viewer be overtaken from now on.
    pub fn set_reordering(&self, share: f64) {
        self.reordering.store((share * 1e6) as u32, Ordering::Relaxed);
    }

    /// Breaks down, or comes back: nothing gets through either way, of HTTP neither.
    pub fn set_down(&self, down: bool) {
        self.down.store(down, Ordering::Relaxed);
    }

    pub fn is_down(&self) -> bool {
        self.down.load(Ordering::Relaxed)
    }

    /// Lets so many bit/s through to the viewer from now on, with a queue of a fixed time; what does not fit into it is
    /// lost. 0: no limit.
    pub fn set_rate(&self, bits_per_second: u64) {
        self.rate.store(bits_per_second, Ordering::Relaxed);
    }

    /// Datagrams to the viewer that were passed on, and that were lost.
    pub fn counts(&self) -> (u64, u64) {
        (self.passed.load(Ordering::Relaxed), self.dropped.load(Ordering::Relaxed))
    }

    /// Passes on to the TCP port `server` on loopback and back: what is sent to the viewer waits in the same queue as
    /// the datagrams. Ends with the test's process.
    pub fn tcp(self: &Arc<Self>, server: u16) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("its address").port();
        let network = Arc::clone(self);
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let (mut client, server) = (client.expect("a client"), TcpStream::connect(("127.0.0.1", server)));
                let mut server = server.expect("the server");
                let (mut from, mut to) = (server.try_clone().expect("a socket"), client.try_clone().expect("a socket"));
                std::thread::spawn(move || io::copy(&mut client, &mut server));
                let (network, (queue, due)) = (Arc::clone(&network), channel::<(Instant, Vec<u8>)>());
                std::thread::spawn(move || {
                    let mut segment = [0; SEGMENT];
                    while let Ok(length @ 1..) = from.read(&mut segment) {
                        // What finds no room is sent again.
                        let due = std::iter::repeat_with(|| network.passes(length)).find_map(|due| {
                            if due.is_none() {
                                std::thread::sleep(Duration::from_millis(5));
                            }
                            due
                        });
                        if due.is_none_or(|due| queue.send((due, segment[..length].to_vec())).is_err()) {
                            return;
                        }
                    }
                });
                std::thread::spawn(move || {
                    for (due, segment) in due {
                        std::thread::sleep(due.saturating_duration_since(Instant::now()));
                        if to.write_all(&segment).is_err() {
                            break;
                        }
                    }
                    let _ = to.shutdown(std::net::Shutdown::Both);
                });
            }
        });
        port
    }

    /// When a datagram of this size has passed the link; none when the queue is full.
    fn passes(&self, size: usize) -> Option<Instant> {
        let now = Instant::now();
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let free = free.get_or_insert(now);
        let rate = self.rate.load(Ordering::Relaxed);
        if rate > 0 {
            let start = now.max(*free);
            if start - now > QUEUE {
                self.dropped.fetch_add(1, Ordering::Relaxed);
                return None;
            }
            *free = start + Duration::from_secs_f64((size + HEADERS) as f64 * 8.0 / rate as f64);
        }
        Some(now.max(*free))
    }

    /// What it takes to the server, and to the viewer, this time.
    pub fn delays(&self, random: &mut impl RngExt) -> (Duration, Duration) {
        let mut drawn = |least: Duration| {
            let spread = self.jitter.min(least).mul_f64(2.0 * random.random::<f64>());
            (least + spread).saturating_sub(self.jitter.min(least))
        };
        (drawn(self.delay), drawn(self.delay + self.asymmetry))
    }

    fn loses(&self, random: &mut StdRng) -> bool {
        // Drawn for each datagram, so that the losses at one rate are among those at a higher one.
        let lost = random.random_range(0..1_000_000) < self.loss.load(Ordering::Relaxed) || self.is_down();
        let counter = if lost { &self.dropped } else { &self.passed };
        counter.fetch_add(1, Ordering::Relaxed);
        lost
    }

    /// Of one datagram to the viewer.
    fn extra_delay(&self, random: &mut StdRng) -> Duration {
        let draw = random.random_range(0..1_000_000);
        let extra = Self::OVERTAKEN.mul_f64(random.random::<f64>());
        if draw < self.reordering.load(Ordering::Relaxed) { extra } else { Duration::ZERO }
    }
}

/// The path between one viewer and a server's media socket; it ends when it is dropped.
pub struct Relay {
    port: u16,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Relay {
    pub fn start(server: SocketAddr, network: Arc<Network>) -> io::Result<Self> {
        let front = Arc::new(socket()?);
        let back = Arc::new(socket()?);
        back.connect(server)?;
        let port = front.local_addr()?.port();
        let stop = Arc::new(AtomicBool::new(false));
        // Whoever sent to the front last.
        let viewer = Arc::new(Mutex::new(None::<SocketAddr>));
        let mut threads = Vec::new();

        let (queue, due) = channel();
        let (from, to, seen) = (Arc::clone(&front), Arc::clone(&back), Arc::clone(&viewer));
        let (way, mut delays) = (Arc::clone(&network), StdRng::seed_from_u64(network.seed + 2));
        threads.push(receive(from, Arc::clone(&stop), queue, move |peer, _| {
            *seen.lock().unwrap_or_else(PoisonError::into_inner) = Some(peer);
            let is_lost = delays.random_range(0..1_000_000) < way.loss_back.load(Ordering::Relaxed) || way.is_down();
            (!is_lost).then(|| Instant::now() + way.delays(&mut delays).0)
        }));
        // An error is a server that is gone: its datagrams are lost, as on a network.
        threads.push(deliver(due, move |datagram| drop(to.send(datagram))));

        let (queue, due) = channel();
        let mut random = StdRng::seed_from_u64(network.seed);
        // Of its own, so that the losses are the same with and without.
        let mut order = StdRng::seed_from_u64(network.seed + 1);
        let mut delays = StdRng::seed_from_u64(network.seed + 3);
        threads.push(receive(back, Arc::clone(&stop), queue, move |_, size| {
            if network.loses(&mut random) {
                return None;
            }
            Some(network.passes(size)? + network.delays(&mut delays).1 + network.extra_delay(&mut order))
        }));
        threads.push(deliver(due, move |datagram| {
            if let Some(viewer) = *viewer.lock().unwrap_or_else(PoisonError::into_inner) {
                let _ = front.send_to(datagram, viewer);
            }
        }));
        Ok(Self { port, stop, threads })
    }

    /// Where the viewer is to send to, on loopback.
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// The path of plain RTP, which goes one way: media, RTCP and repair packets, at three ports side by side.
pub struct RtpRelay {
    port: u16,
    /// Bytes that came from the server: media, RTCP, repair packets.
    bytes: Arc<[AtomicU64; 3]>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl RtpRelay {
    /// Passes on to `viewer` on loopback and the two ports above it.
    pub fn start(viewer: u16, network: &Arc<Network>) -> io::Result<Self> {
        let (port, fronts) = (0..100).find_map(|_| three_ports()).ok_or(io::ErrorKind::AddrInUse)?;
        let (stop, bytes) = (Arc::new(AtomicBool::new(false)), Arc::<[AtomicU64; 3]>::default());
        let mut threads = Vec::new();
        for (at, front) in fronts.into_iter().enumerate() {
            let (network, bytes, stop) = (Arc::clone(network), Arc::clone(&bytes), Arc::clone(&stop));
            let to = SocketAddr::from((Ipv4Addr::LOCALHOST, viewer + at as u16));
            let mut random = StdRng::seed_from_u64(network.seed + at as u64);
            threads.push(std::thread::spawn(move || {
                let mut buffer = vec![0; LARGEST];
                while !stop.load(Ordering::Relaxed) {
                    // A time-out is for the look at `stop`; other errors tell of a viewer that is not there.
                    let Ok(length) = front.recv(&mut buffer) else { continue };
                    bytes[at].fetch_add(length as u64, Ordering::Relaxed);
                    if !network.loses(&mut random) {
                        let _ = front.send_to(&buffer[..length], to);
                    }
                }
            }));
        }
        Ok(Self { port, bytes, stop, threads })
    }

    /// Where the server is to send to, on loopback.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Bytes of media and of repair packets that the server sent.
    pub fn bytes(&self) -> (u64, u64) {
        (self.bytes[0].load(Ordering::Relaxed), self.bytes[2].load(Ordering::Relaxed))
    }
}

impl Drop for RtpRelay {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// The first of three that are free, which is even.
fn three_ports() -> Option<(u16, [UdpSocket; 3])> {
    let first = socket_at(0).ok()?;
    let port = first.local_addr().ok().map(|address| address.port()).filter(|port| port.is_multiple_of(2))?;
    Some((port, [first, socket_at(port + 1).ok()?, socket_at(port.checked_add(2)?).ok()?]))
}

/// When a datagram is due, which of those it is, and the datagram.
type Delayed = (Instant, u64, Vec<u8>);

/// Takes what comes and passes it on with the time at which it is due; `due` gives that by sender and size, or says
/// that it is lost.
fn receive(
    from: Arc<UdpSocket>,
    stop: Arc<AtomicBool>,
    queue: Sender<Delayed>,
    mut due: impl FnMut(SocketAddr, usize) -> Option<Instant> + Send + 'static,
) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let mut buffer = vec![0; LARGEST];
        let mut count = 0;
        while !stop.load(Ordering::Relaxed) {
            // A time-out is for the look at `stop`; other errors tell of a peer that is gone.
            let Ok((length, peer)) = from.recv_from(&mut buffer) else { continue };
            count += 1;
            if let Some(due) = due(peer, length)
                && queue.send((due, count, buffer[..length].to_vec())).is_err()
            {
                return;
            }
        }
    })
}

/// Sends each datagram when it is due.
fn deliver(queue: Receiver<Delayed>, send: impl Fn(&[u8]) + Send + 'static) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let mut waiting = BinaryHeap::<Reverse<Delayed>>::new();
        loop {
            let next = match waiting.peek() {
                Some(Reverse((due, ..))) => queue.recv_timeout(due.saturating_duration_since(Instant::now())),
                None => queue.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            match next {
                Ok(delayed) => waiting.push(Reverse(delayed)),
                Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => {
                    if let Some(Reverse((_, _, datagram))) = waiting.pop() {
                        send(&datagram);
                    }
                }
            }
        }
    })
}

fn socket() -> io::Result<UdpSocket> {
    socket_at(0)
}

fn socket_at(port: u16) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, port))?;
    socket.set_read_timeout(Some(TICK))?;
    SockRef::from(&socket).set_recv_buffer_size(BUFFER)?;
    SockRef::from(&socket).set_send_buffer_size(BUFFER)?;
    Ok(socket)
}

/// Passes on to the TCP port `server` on loopback and back, so many bytes a second each way. Ends with the test's
/// process.
pub fn slow_link(server: u16, bytes_per_second: f64) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("its address").port();
    let pass = move |mut from: TcpStream, mut to: TcpStream| {
        let mut data = [0; 2048];
        while let Ok(length @ 1..) = from.read(&mut data) {
            if to.write_all(&data[..length]).is_err() {
                break;
            }
            std::thread::sleep(Duration::from_secs_f64(length as f64 / bytes_per_second));
        }
        let _ = to.shutdown(std::net::Shutdown::Both);
    };
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let (client, server) = (client.expect("a client"), TcpStream::connect(("127.0.0.1", server)));
            let server = server.expect("the server");
            let (from, to) = (server.try_clone().expect("a socket"), client.try_clone().expect("a socket"));
            std::thread::spawn(move || pass(from, to));
            std::thread::spawn(move || pass(client, server));
        }
    });
    port
}

/// Passes on to the TCP port `server` on loopback and back, as a machine of this address. Ends with the test's process.
pub fn as_of(address: Ipv4Addr, server: u16) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("its address").port();
    let connect = move || {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.bind(&SocketAddr::from((address, 0)).into())?;
        socket.connect(&SocketAddr::from((Ipv4Addr::LOCALHOST, server)).into())?;
        Ok::<TcpStream, io::Error>(socket.into())
    };
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let (client, server) = (client.expect("a client"), connect().expect("the server"));
            let back = (server.try_clone().expect("a socket"), client.try_clone().expect("a socket"));
            for (mut from, mut to) in [(client, server), back] {
                std::thread::spawn(move || {
                    let _ = io::copy(&mut from, &mut to);
                    let _ = to.shutdown(std::net::Shutdown::Both);
                });
            }
        }
    });
    port
}

/// Passes on to the TCP port `server` on loopback and back; what is sent to the server goes on together each `hold`.
/// Ends with the test's process.
pub fn bunched(server: u16, hold: Duration) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("its address").port();
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let (mut client, server) = (client.expect("a client"), TcpStream::connect(("127.0.0.1", server)));
            let mut server = server.expect("the server");
            let (mut from, mut to) = (server.try_clone().expect("a socket"), client.try_clone().expect("a socket"));
            std::thread::spawn(move || {
                let _ = io::copy(&mut from, &mut to);
                let _ = to.shutdown(std::net::Shutdown::Both);
            });
            std::thread::spawn(move || {
                let mut data = vec![0; 1 << 20];
                while let Ok(length @ 1..) = client.read(&mut data) {
                    if server.write_all(&data[..length]).is_err() {
                        break;
                    }
                    std::thread::sleep(hold);
                }
                let _ = server.shutdown(std::net::Shutdown::Both);
            });
        }
    });
    port
}

/// Passes RTSP on to `camera`, but has UDP sent where nobody is. Ends with the test's process.
pub fn firewall(camera: u16) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("its address").port();
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let (client, server) = (client.expect("a client"), TcpStream::connect(("127.0.0.1", camera)));
            let server = server.expect("the camera");
            let (mut from, mut to) = (server.try_clone().expect("a socket"), client.try_clone().expect("a socket"));
            std::thread::spawn(move || {
                let _ = std::io::copy(&mut from, &mut to);
                let _ = to.shutdown(std::net::Shutdown::Both);
            });
            let (mut from, mut to) = (client, server);
            std::thread::spawn(move || {
                let mut request = [0; 4096];
                while let Ok(length @ 1..) = from.read(&mut request) {
                    // Requests are short and come whole. Port 9 discards.
                    let text = String::from_utf8_lossy(&request[..length]);
                    let bent = match text.split_once("client_port=") {
                        Some((before, ports)) => {
                            let rest = ports.trim_start_matches(|c: char| c.is_ascii_digit() || c == '-');
                            format!("{before}client_port=9-10{rest}").into_bytes()
                        }
                        None => request[..length].to_vec(),
                    };
                    if to.write_all(&bent).is_err() {
                        break;
                    }
                }
                let _ = to.shutdown(std::net::Shutdown::Both);
            });
        }
    });
    port
}
