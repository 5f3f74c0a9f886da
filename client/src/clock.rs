//! The clock of the server that is watched: `GET /api/clock`, asked by a thread of its own over one connection while
//! somebody wants it. One for all streams of a server. From it and the time of capture follows how old a picture is.

use std::cell::Cell;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rov_common::api::{CLOCK_PATH, ClockReading};
use rov_common::capture_clock::Captured;
use rov_common::clock_sync::{Age, ClockSync, Exchange, Shown};
use rov_common::sync::lock;
use url::Url;

use crate::whep::{Http, Talk, WhepError};

/// Nobody has asked for so long: nobody wants it.
const WANTED_FOR: Duration = Duration::from_secs(10);
/// Between exchanges, of which the first are closer together: so one of them is quick.
const INTERVAL: Duration = Duration::from_secs(1);
const FIRST_INTERVAL: Duration = Duration::from_millis(50);
const FIRST: u32 = 8;
/// After a server that has no such clock.
const REFUSED_INTERVAL: Duration = Duration::from_secs(30);

/// Why it is not known how old a picture is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unknown {
    /// The picture came without a time of capture.
    NoCaptureTime,
    /// Whoever sends has no HTTP API here.
    NoClock,
    /// The clock was not read since the session began.
    NotRead,
    /// The server refuses to tell it, as one of an earlier version.
    Refused,
}

impl fmt::Display for Unknown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoCaptureTime => "the pictures come without a time of capture",
            Self::NoClock => "the sender's clock cannot be read: it has no HTTP API that is known here",
            Self::NotRead => "the server's clock has not been read yet",
            Self::Refused => "the server does not tell its clock",
        })
    }
}

/// Cheap to clone.
#[derive(Clone, Debug)]
pub struct ServerClock(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    /// Of the statistics of the server that is followed; none: nobody is.
    server: Option<Url>,
    wanted_until: Option<Instant>,
    /// Goes up with each session: the thread of before ends.
    turn: u64,
    sync: ClockSync,
    /// When the clock was started: another run of the server has another one.
    started: Option<u64>,
    /// A session began to read it at this time.
    begun: Option<Instant>,
    /// When the last exchange that counts ended.
    read_at: Option<Instant>,
    is_refused: bool,
}

impl Default for ServerClock {
    fn default() -> Self {
        let (server, wanted_until, turn, started, begun, read_at, is_refused) = Default::default();
        let sync = ClockSync::new(Instant::now());
        Self(Arc::new(Mutex::new(State { server, wanted_until, turn, sync, started, begun, read_at, is_refused })))
    }
}

impl ServerClock {
    /// A session begins with the server whose statistics are at this URL: its clock is read at once, by a connection of
    /// its own, as the one before may be lost with the link.
    pub fn begin(&self, stats: &Url, http: &Http, now: Instant) {
        let Ok(url) = stats.join(CLOCK_PATH) else { return };
        let mut state = lock(&self.0);
        if state.server.as_ref() != Some(stats) {
            state.forget();
        }
        state.server = Some(stats.clone());
        state.wanted_until = Some(now + WANTED_FOR);
        state.turn += 1;
        state.begun = Some(now);
        let (clock, turn, talk) = (self.clone(), state.turn, Talk::new(url, http.clone()));
        // It ends by itself after the exchange that is under way when it is not wanted any more.
        std::thread::spawn(move || clock.run(turn, &talk));
    }

    /// The session with this server goes on; to be called again and again.
    pub fn keep(&self, stats: &Url, http: &Http, now: Instant) {
        let mut state = lock(&self.0);
        let is_followed = state.server.as_ref() == Some(stats) && state.wanted_until.is_some();
        state.wanted_until = state.wanted_until.map(|_| now + WANTED_FOR);
        // Sessions with two servers, of which each would read its own.
        let is_recent = state.begun.is_some_and(|at| now.saturating_duration_since(at) < INTERVAL);
        drop(state);
        if !is_followed && !is_recent {
            self.begin(stats, http, now);
        }
    }

    /// A session begins with a sender whose clock cannot be read.
    pub fn forget(&self) {
        lock(&self.0).forget();
    }

    /// How old a picture is at this time, of a session that stands since `since`: the server may have another clock than
    /// in the session before.
    ///
    /// # Errors
    /// Says why that is not known.
    pub fn age(&self, captured: Option<Captured>, now: Instant, since: Instant) -> Result<Age, Unknown> {
        let state = lock(&self.0);
        let captured = captured.ok_or(Unknown::NoCaptureTime)?;
        match (&state.server, state.is_refused) {
            (None, _) => return Err(Unknown::NoClock),
            (_, true) => return Err(Unknown::Refused),
            _ => {}
        }
        state.read_at.filter(|at| *at >= since).ok_or(Unknown::NotRead)?;
        state.sync.age(captured, now).ok_or(Unknown::NotRead)
    }

    /// Whether this thread goes on; where it does not, another may begin.
    fn goes_on(&self, turn: u64) -> bool {
        let mut state = lock(&self.0);
        let is_mine = state.turn == turn;
        let is_wanted = state.wanted_until.is_some_and(|until| Instant::now() < until);
        if is_mine && !is_wanted {
            state.wanted_until = None;
        }
        is_mine && is_wanted
    }

    fn run(&self, turn: u64, talk: &Talk) {
        let mut number = 0;
        while self.goes_on(turn) {
            let exchange = exchange(talk);
            number += 1;
            let mut pause = if number < FIRST { FIRST_INTERVAL } else { INTERVAL };
            match exchange {
                Ok((exchange, started)) => self.take(exchange, started, turn),
                Err(error) => {
                    tracing::debug!("the server's clock: {error}");
                    if self.failed(&error, turn) {
                        pause = REFUSED_INTERVAL;
                    }
                }
            }
            std::thread::sleep(pause);
        }
    }

    fn take(&self, exchange: Exchange, started: u64, turn: u64) {
        let mut state = lock(&self.0);
        if state.turn != turn {
            return;
        }
        if state.started.replace(started).is_some_and(|before| before != started) {
            state.sync = ClockSync::new(exchange.asked);
        }
        state.is_refused = false;
        match state.sync.add(exchange) {
            Shown::Impossible => tracing::debug!("the server's clock: {exchange:?} cannot be"),
            Shown::Begun | Shown::Agreed => state.read_at = Some(exchange.answered),
        }
    }

    /// Whether it was refused.
    fn failed(&self, error: &WhepError, turn: u64) -> bool {
        let is_refused = matches!(error, WhepError::Refused { status: 400..=499, .. } | WhepError::NotWhep { .. });
        let mut state = lock(&self.0);
        if state.turn == turn {
            state.is_refused = is_refused;
            // The server has ended: the next run of it may have another clock.
            state.read_at = state.read_at.filter(|_| !matches!(error, WhepError::Closed { .. }));
        }
        is_refused
    }
}

impl State {
    fn forget(&mut self) {
        self.turn += 1;
        (self.server, self.wanted_until, self.started, self.begun, self.read_at, self.is_refused) = Default::default();
        self.sync = ClockSync::new(Instant::now());
    }
}

/// With when the server's clock was started.
fn exchange(talk: &Talk) -> Result<(Exchange, u64), WhepError> {
    // Of the request that was answered, where it was asked for a login before.
    let times = Cell::new(None);
    let reading: ClockReading = talk.ask(|call| {
        let asked = Instant::now();
        let reply = call();
        times.set(Some((asked, Instant::now())));
        reply
    })?;
    let (asked, answered) = times.get().unwrap_or((Instant::now(), Instant::now()));
    let time = |micros| Captured(Duration::from_micros(micros));
    let exchange = Exchange { asked, answered, received: time(reading.received_us), sent: time(reading.sent_us) };
    Ok((exchange, reading.started_us))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn begun(clock: &ServerClock) -> (Instant, u64) {
        let mut state = lock(&clock.0);
        state.server = Some(Url::parse("http://10.0.0.2:8080/api/stats").expect("a URL"));
        state.wanted_until = Some(Instant::now() + WANTED_FOR);
        (Instant::now(), state.turn)
    }

    fn exchange(asked: Instant, at: u64) -> Exchange {
        let time = Captured(Duration::from_millis(at));
        Exchange { asked, answered: asked + 2 * MS, received: time, sent: time }
    }

    #[test]
    fn an_age_is_told_only_by_a_clock_that_was_read_in_the_session() {
        let clock = ServerClock::default();
        let (captured, now) = (Some(Captured(Duration::from_millis(50_000))), Instant::now());
        assert_eq!(clock.age(captured, now, now), Err(Unknown::NoClock));
        let (begun, turn) = begun(&clock);
        assert_eq!(clock.age(captured, begun, begun), Err(Unknown::NotRead));
        clock.take(exchange(begun, 50_000), 7, turn);
        let age = clock.age(captured, begun + 101 * MS, begun).expect("known");
        assert_eq!((age.age.as_millis(), age.bound.as_millis()), (100, 1));
        assert_eq!(clock.age(None, begun, begun), Err(Unknown::NoCaptureTime));
        // The next session may be with another run of the server.
        assert_eq!(clock.age(captured, begun, begun + 3 * MS), Err(Unknown::NotRead));
        clock.take(exchange(begun + 4 * MS, 10_000), 7, turn);
        let age = clock.age(Some(Captured(Duration::from_millis(10_000))), begun + 105 * MS, begun + 3 * MS);
        assert_eq!(age.expect("known").age.as_millis(), 100);
    }

    #[test]
    fn what_a_former_connection_says_counts_no_more_and_another_server_begins_anew() {
        let clock = ServerClock::default();
        let (now, turn) = begun(&clock);
        clock.take(exchange(now, 50_000), 7, turn + 1);
        assert_eq!(clock.age(Some(Captured::default()), now, now), Err(Unknown::NotRead));
        clock.take(exchange(now, 50_000), 7, turn);
        assert!(clock.age(Some(Captured::default()), now, now).is_ok());
        clock.forget();
        assert_eq!(clock.age(Some(Captured::default()), now, now), Err(Unknown::NoClock));
        assert!(!clock.goes_on(turn));
    }

    #[test]
    fn what_was_known_of_a_former_run_of_the_server_counts_no_more() {
        let clock = ServerClock::default();
        let (now, turn) = begun(&clock);
        clock.take(exchange(now, 50_000), 7, turn);
        // Its clock was corrected by so little that a slow exchange does not contradict.
        let slow = Exchange { answered: now + 60 * MS, ..exchange(now + 10 * MS, 50_040) };
        clock.take(slow, 8, turn);
        let age = clock.age(Some(Captured(Duration::from_millis(50_040))), now + 60 * MS, now).expect("known");
        assert!(age.bound >= 24 * MS, "{age:?}");
    }

    #[test]
    fn a_server_that_has_no_such_clock_is_said_to_have_none() {
        let clock = ServerClock::default();
        let (now, turn) = begun(&clock);
        let url = Url::parse("http://10.0.0.2:8080/api/clock").expect("a URL");
        let refused = |status| WhepError::Refused { url: url.clone(), status, reason: String::new() };
        assert!(clock.failed(&refused(404), turn) && !clock.failed(&refused(503), turn + 1));
        assert_eq!(clock.age(Some(Captured::default()), now, now), Err(Unknown::Refused));
        clock.take(exchange(now, 50_000), 7, turn);
        assert!(clock.age(Some(Captured::default()), now, now).is_ok());
        // It has ended.
        clock.failed(&WhepError::Closed { url }, turn);
        assert_eq!(clock.age(Some(Captured::default()), now, now), Err(Unknown::NotRead));
    }
}
