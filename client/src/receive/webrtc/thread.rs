//! The thread of one connection: it alone touches the UDP socket and the core, and waits for whichever comes first,
//! datagrams, a request or a timer.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::{Duration, Instant};

use mio::{Events, Interest, Poll, Token, Waker};
use rov_common::media_socket::MediaSocket;
use rov_common::sleep::Sleep;
use tokio::sync::{oneshot, watch};

use super::engine::{End, Engine, State};
use crate::receive::OnPackets;
use crate::receive::packet::Packet;

const SOCKET: Token = Token(0);
const WAKE: Token = Token(1);

/// Batches of datagrams taken before timers and requests get their turn.
const RECEIVE_BATCHES: usize = 8;
/// Packets handed to the decoder at once: most pictures, and of large ones so few that its thread takes them apart
/// while the rest is decrypted.
const TOGETHER: usize = 32;
const LONGEST_WAIT: Duration = Duration::from_secs(1);
/// Batches that are left out after a sleep: more than wait in a socket, and a flood of them must end.
const MOST_WAITING: usize = 1_024;

/// What is asked of the thread; it has to be woken for it.
pub enum Request {
    Keyframe,
    Rtt(oneshot::Sender<Option<Duration>>),
    Close,
}

pub struct MediaThread {
    poll: Poll,
    socket: MediaSocket,
    engine: Engine,
    requests: Receiver<Request>,
    link: watch::Sender<State>,
    on_packets: OnPackets,
    /// What is to be handed over at once.
    together: Vec<Packet>,
    sleep: Sleep,
}

impl MediaThread {
    /// Gives too what wakes it.
    pub fn new(
        mut socket: MediaSocket,
        engine: Engine,
        requests: Receiver<Request>,
        link: watch::Sender<State>,
        on_packets: OnPackets,
    ) -> io::Result<(Self, Arc<Waker>)> {
        let poll = Poll::new()?;
        poll.registry().register(socket.io(), SOCKET, Interest::READABLE)?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKE)?);
        let together = Vec::with_capacity(TOGETHER);
        let sleep = Sleep::default();
        Ok((Self { poll, socket, engine, requests, link, on_packets, together, sleep }, waker))
    }

    /// Until the connection has ended, or is to be closed.
    pub fn run(mut self) {
        let end = self.until_end();
        // Said when the server has been told.
        self.engine.close();
        self.send();
        self.link.send_replace(State::Ended(end));
    }

    fn until_end(&mut self) -> End {
        let mut events = Events::with_capacity(8);
        // The poll tells of a change only, so what was left unread has to be remembered.
        let mut readable = true;
        loop {
            if !self.handle_requests() {
                return End::Closed;
            }
            if readable {
                readable = self.receive();
            }
            let now = Instant::now();
            if self.engine.poll_timeout().is_some_and(|at| at <= now) {
                self.engine.handle_timeout(now);
            }
            let state = self.engine.state();
            self.send();
            if let State::Ended(end) = state {
                return end;
            }
            self.link.send_if_modified(|before| std::mem::replace(before, state) != state);
            let wait = if readable { Duration::ZERO } else { self.wait() };
            match self.poll.poll(&mut events, Some(wait)) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    tracing::error!(%error, "cannot wait for the network");
                    return End::Closed;
                }
            }
            readable |= events.iter().any(|event| event.token() == SOCKET);
        }
    }

    fn wait(&mut self) -> Duration {
        let next = self.engine.poll_timeout();
        next.map_or(LONGEST_WAIT, |at| at.saturating_duration_since(Instant::now()).min(LONGEST_WAIT))
    }

    /// Whether more may be waiting.
    fn receive(&mut self) -> bool {
        let Self { socket, engine, on_packets, together, sleep, .. } = self;
        for _ in 0..RECEIVE_BATCHES {
            let mut last = None;
            let batch = read(socket, sleep, |arrived, peer, datagram| {
                last = Some(arrived);
                engine.handle_datagram(arrived, peer, datagram, &mut |packet| together.push(packet));
                if together.len() >= TOGETHER {
                    on_packets(&mut together.drain(..), arrived.into());
                }
            });
            if let Some(arrived) = last
                && !together.is_empty()
            {
                on_packets(&mut together.drain(..), arrived.into());
            }
            match batch {
                Batch::Read => {}
                Batch::Nothing => return false,
                Batch::LeftOut => engine.request_keyframe(Instant::now()),
            }
        }
        true
    }

    fn send(&mut self) {
        let local = self.socket.local_addr().ip();
        let mut out = self.socket.outbound();
        while let Some((peer, datagram)) = self.engine.poll_write() {
            // What a full socket does not take is lost, as on the network; all of it is repeated where it matters.
            let _ = out.transmit(local, peer, &datagram, datagram.len());
        }
    }

    /// False when the thread is to end.
    fn handle_requests(&mut self) -> bool {
        loop {
            let now = Instant::now();
            match self.requests.try_recv() {
                Ok(Request::Keyframe) => self.engine.request_keyframe(now),
                // Whoever asked may have given up waiting.
                Ok(Request::Rtt(reply)) => drop(reply.send(self.engine.rtt(now))),
                Ok(Request::Close) | Err(TryRecvError::Disconnected) => return false,
                Err(TryRecvError::Empty) => return true,
            }
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Batch {
    Read,
    Nothing,
    /// This machine has slept: what was there, and came first, is left out.
    LeftOut,
}

/// Reads one batch of datagrams. What waited while this machine slept is old, and nothing shows that: by the clock,
/// which stood still, it has just arrived. So this is looked at behind the system call, before any of it is used.
fn read(socket: &mut MediaSocket, sleep: &mut Sleep, mut each: impl FnMut(Instant, SocketAddr, &[u8])) -> Batch {
    let (mut arrived, mut has_slept) = (None, false);
    let any = socket.receive(|_, _, peer, datagram| {
        // Known when the first of them is there.
        let arrived = *arrived.get_or_insert_with(|| {
            has_slept = !sleep.look().is_zero();
            Instant::now()
        });
        if !has_slept {
            each(arrived, peer, datagram);
        }
    });
    if has_slept {
        let batches = (0..MOST_WAITING).take_while(|_| socket.receive(|_, _, _, _| {})).count();
        tracing::info!("this machine slept; {} batches of old datagrams left out", 1 + batches);
        return Batch::LeftOut;
    }
    if any { Batch::Read } else { Batch::Nothing }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[test]
    fn what_waited_in_the_socket_while_this_machine_slept_is_left_out() {
        let (receiver, _) = rov_common::media_socket::open("127.0.0.1:0".parse().unwrap()).unwrap();
        let mut socket = MediaSocket::new(receiver).unwrap();
        let (to, sender) = (socket.local_addr(), UdpSocket::bind("127.0.0.1:0").unwrap());
        let slept = Arc::new(AtomicU64::new(0));
        let clock = Arc::clone(&slept);
        let mut sleep = Sleep::by(move || Duration::from_secs(clock.load(Ordering::Relaxed)));
        // What is sent by loopback waits in the socket when the call returns.
        let mut reads = |count: u8, sleep: &mut Sleep| {
            (0..count).for_each(|i| assert_eq!(sender.send_to(&[i; 100], to).unwrap(), 100));
            let (mut came, mut batches) = (Vec::new(), Vec::new());
            loop {
                let batch = read(&mut socket, sleep, |_, _, datagram| came.push(datagram[0]));
                if batch == Batch::Nothing {
                    return (came, batches);
                }
                batches.push(batch);
            }
        };
        assert_eq!(reads(3, &mut sleep).0, [0, 1, 2]);
        slept.store(3_600, Ordering::Relaxed);
        // More than one batch.
        assert_eq!(reads(200, &mut sleep), (vec![], vec![Batch::LeftOut]));
        assert_eq!(reads(2, &mut sleep).0, [0, 1]);
        // Nothing waited: what comes first tells of the sleep.
        slept.store(7_200, Ordering::Relaxed);
        assert_eq!(reads(0, &mut sleep), (vec![], vec![]));
        assert_eq!(reads(1, &mut sleep), (vec![], vec![Batch::LeftOut]));
        assert_eq!(reads(1, &mut sleep), (vec![0], vec![Batch::Read]));
    }
}
