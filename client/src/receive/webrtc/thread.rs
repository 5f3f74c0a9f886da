//! The thread of one connection: it alone touches the UDP socket and the core, and waits for whichever comes first,
//! datagrams, a request or a timer.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use mio::{Events, Interest, Poll, Token, Waker};
use rov_common::media_socket::MediaSocket;
use tokio::sync::{oneshot, watch};

use super::engine::{End, Engine, State};
use crate::receive::OnPackets;

const SOCKET: Token = Token(0);
const WAKE: Token = Token(1);

/// Batches of datagrams taken before timers and requests get their turn.
const RECEIVE_BATCHES: usize = 8;
/// Packets handed to the decoder at once: most pictures, and of large ones so few that its thread takes them apart
/// while the rest is decrypted.
const TOGETHER: usize = 32;
const LONGEST_WAIT: Duration = Duration::from_secs(1);

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
    together: Vec<Bytes>,
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
        Ok((Self { poll, socket, engine, requests, link, on_packets, together }, waker))
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
        let Self { socket, engine, on_packets, together, .. } = self;
        for _ in 0..RECEIVE_BATCHES {
            // Known when the first of them is there.
            let mut arrived = None;
            let any = socket.receive(|_, _, peer, datagram| {
                let arrived = *arrived.get_or_insert_with(Instant::now);
                engine.handle_datagram(arrived, peer, datagram, &mut |packet| together.push(packet));
                if together.len() >= TOGETHER {
                    on_packets(&mut together.drain(..), arrived.into());
                }
            });
            if let Some(arrived) = arrived
                && !together.is_empty()
            {
                on_packets(&mut together.drain(..), arrived.into());
            }
            if !any {
                return false;
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
