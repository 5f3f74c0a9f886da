//! The clocks of servers that are watched: `GET /api/clock`, asked by a thread for each server over one connection
//! while somebody wants it. One for all streams of a server. From it and the time of capture follows how old a picture
//! is. The answer also says of which streams the pictures are not live ones of their camera.

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rov_common::api::{CLOCK_PATH, ClockReading, PictureDoubt};
use rov_common::capture_clock::Captured;
use rov_common::clock_sync::{self, Age, ClockSync, Exchange, Shown};
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
/// An answer that comes so late proves little, but something.
const LATEST: Duration = Duration::from_secs(30);
/// After so long without one, another connection is tried beside it: the one before may have been lost with the link.
const RETRY: Duration = Duration::from_secs(5);
/// A server that has not answered for so long may be another run of it when it does.
const SILENT: Duration = Duration::from_millis(500);
/// Servers whose clocks are remembered; then those that nobody wants are forgotten. Where all are wanted, that of one
/// more is not known.
const MAX_SERVERS: usize = 16;

/// Why it is not known how old a picture is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unknown {
    /// The picture came without a time of capture.
    NoCaptureTime,
    /// Whoever sends has no HTTP API here.
    NoClock,
    /// The clock has not been read.
    NotRead,
    /// The picture was captured later than now: the clock is read anew.
    InFuture,
    /// The server refuses to tell it, as one of an earlier version.
    Refused,
}

impl From<clock_sync::Unknown> for Unknown {
    fn from(unknown: clock_sync::Unknown) -> Self {
        match unknown {
            clock_sync::Unknown::NotRead => Self::NotRead,
            clock_sync::Unknown::InFuture => Self::InFuture,
        }
    }
}

impl fmt::Display for Unknown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoCaptureTime => "the pictures come without a time of capture",
            Self::NoClock => "the sender's clock cannot be read: it has no HTTP API that is known here",
            Self::NotRead => "the server's clock has not been read yet",
            Self::InFuture => "the pictures' times of capture are later than the server's clock",
            Self::Refused => "the server does not tell its clock",
        })
    }
}

/// Those of all servers, by their URLs. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Clocks(Arc<Mutex<HashMap<Url, ServerClock>>>);

impl Clocks {
    /// That of the server whose statistics are at this URL. What was learned in a session before holds until the server
    /// shows another run.
    pub fn of(&self, stats: &Url) -> Option<ServerClock> {
        let url = stats.join(CLOCK_PATH).ok()?;
        let mut all = lock(&self.0);
        if all.len() >= MAX_SERVERS && !all.contains_key(&url) {
            all.retain(|_, clock| clock.lock().asker.is_some());
            if all.len() >= MAX_SERVERS {
                return None;
            }
        }
        Some(all.entry(url.clone()).or_insert_with(|| ServerClock::new(url)).clone())
    }
}

/// That of one server. Cheap to clone.
#[derive(Clone, Debug)]
pub struct ServerClock(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    url: Url,
    state: Mutex<State>,
    /// The clock shall be read at once.
    hurry: Condvar,
}

/// By the names of the streams, and that of those who name none.
#[derive(Clone, Debug, Default)]
pub struct Doubts {
    pub of: BTreeMap<String, PictureDoubt>,
    pub first: String,
}

#[derive(Debug)]
struct State {
    wanted_until: Instant,
    /// When the thread began that asks, and since when it waits for an answer.
    asker: Option<Instant>,
    asking: Option<Instant>,
    /// It shall ask at once.
    is_urgent: bool,
    sync: ClockSync,
    /// The server may be another run of it: what is known counts again when it has answered as the one before.
    is_suspect: bool,
    is_refused: bool,
    /// When what was known was last forgotten.
    forgotten: Option<Instant>,
    /// Since when the server has been asked without an answer.
    waits: Option<Instant>,
    /// What it said last of the pictures of its streams, and when it was asked.
    doubts: Option<(Doubts, Instant)>,
}

impl ServerClock {
    fn new(url: Url) -> Self {
        let now = Instant::now();
        let (asker, asking, is_urgent, is_suspect, is_refused, forgotten, waits, doubts) = Default::default();
        let (wanted_until, sync) = (now, ClockSync::new(now));
        let state =
            State { wanted_until, asker, asking, is_urgent, sync, is_suspect, is_refused, forgotten, waits, doubts };
        Self(Arc::new(Shared { url, state: Mutex::new(state), hurry: Condvar::new() }))
    }

    /// A session begins: it is read at once. Where the server has not answered for a while, or was not asked, it may
    /// have been started again meanwhile, with another clock: what is known of it does not count until it answers. It
    /// is not forgotten: an answer through a queue proves little, and old pictures would count as young.
    pub fn begin(&self, http: &Http, now: Instant) {
        let mut state = self.lock();
        let is_silent = state.waits.is_some_and(|since| now.saturating_duration_since(since) >= SILENT);
        state.is_suspect |= is_silent || state.asker.is_none();
        self.hurry(&mut state);
        drop(state);
        self.keep(http, now);
    }

    /// The session goes on; to be called again and again.
    pub fn keep(&self, http: &Http, now: Instant) {
        let mut state = self.lock();
        state.wanted_until = now + WANTED_FOR;
        let is_stuck = state.asking.is_some_and(|since| now.saturating_duration_since(since) >= RETRY);
        if state.asker.is_none() || is_stuck {
            (state.asker, state.asking) = (Some(now), None);
            let (clock, talk) = (self.clone(), Talk::within(LATEST, self.0.url.clone(), http.clone()));
            // It ends by itself after the exchange that is under way when it is not wanted any more.
            std::thread::spawn(move || clock.run(&talk, now));
        }
    }

    /// How old a picture is at this time.
    ///
    /// # Errors
    /// Says why that is not known.
    pub fn age(&self, captured: Option<Captured>, now: Instant) -> Result<Age, Unknown> {
        let mut state = self.lock();
        let captured = captured.ok_or(Unknown::NoCaptureTime)?;
        if state.is_refused {
            return Err(Unknown::Refused);
        }
        if state.is_suspect {
            return Err(Unknown::NotRead);
        }
        let age = state.sync.age(captured, now);
        let may_forget = state.forgotten.is_none_or(|at| now.saturating_duration_since(at) >= INTERVAL);
        if age == Err(clock_sync::Unknown::InFuture) && may_forget {
            // This machine was suspended, or the server has another clock by now.
            (state.sync, state.forgotten) = (ClockSync::new(now), Some(now));
            self.hurry(&mut state);
        }
        Ok(age?)
    }

    /// What may have been captured by now, at the latest, and the run of the server whose clock says so; none where
    /// that is not known.
    pub fn latest(&self, now: Instant) -> Option<(Captured, u64)> {
        let state = self.lock();
        state.sync.latest(now).filter(|_| !state.is_refused && !state.is_suspect)
    }

    /// Why the pictures of a stream are not live ones of its camera, as far as they are not, and when the server was
    /// asked that. Without a name it is the server's first one. None where it has not said it here.
    pub fn doubt(&self, stream: &str) -> Option<(Option<PictureDoubt>, Instant)> {
        let state = self.lock();
        let (doubts, asked) = state.doubts.as_ref()?;
        let stream = if stream.is_empty() { &doubts.first } else { stream };
        Some((doubts.of.get(stream).cloned(), *asked))
    }

    /// As where it was read without any error.
    #[cfg(test)]
    pub fn set(&self, captured: Captured, now: Instant) {
        self.take(Exchange { asked: now, answered: now, received: captured, sent: captured, run: 1 });
    }

    /// It is another one by now: read at once.
    pub fn forget(&self) {
        let mut state = self.lock();
        state.sync = ClockSync::new(Instant::now());
        self.hurry(&mut state);
    }

    fn hurry(&self, state: &mut State) {
        state.is_urgent = true;
        self.0.hurry.notify_all();
    }

    fn run(&self, talk: &Talk, begun: Instant) {
        let mut number = 0;
        while self.goes_on(begun) {
            self.asks(begun);
            let exchange = exchange(talk);
            let is_newest = self.asked(begun);
            number += 1;
            let mut pause = if number < FIRST { FIRST_INTERVAL } else { INTERVAL };
            match exchange {
                Ok((exchange, doubts)) => {
                    if is_newest {
                        self.hear(doubts, exchange.asked);
                    }
                    self.take(exchange);
                }
                Err(error) => {
                    tracing::debug!("the server's clock: {error}");
                    if is_newest && self.failed(&error) {
                        pause = REFUSED_INTERVAL;
                    }
                }
            }
            if self.wait(pause) {
                number = 0;
            }
        }
    }

    /// Whether the thread that began then goes on; where it does not, another may begin, or has.
    fn goes_on(&self, begun: Instant) -> bool {
        let mut state = self.lock();
        let is_wanted = Instant::now() < state.wanted_until;
        let is_it = state.asker == Some(begun);
        if is_it && !is_wanted {
            state.asker = None;
        }
        is_it && is_wanted
    }

    fn asks(&self, begun: Instant) {
        let (mut state, now) = (self.lock(), Instant::now());
        state.waits.get_or_insert(now);
        state.asking = if state.asker == Some(begun) { Some(now) } else { state.asking };
    }

    /// Whether no later one has been asked meanwhile.
    fn asked(&self, begun: Instant) -> bool {
        let mut state = self.lock();
        let is_newest = state.asker == Some(begun);
        state.asking = state.asking.filter(|_| !is_newest);
        is_newest
    }

    /// Until the next exchange; whether that is urgent.
    fn wait(&self, pause: Duration) -> bool {
        // However many sessions begin, it is asked no more often than at first.
        std::thread::sleep(FIRST_INTERVAL);
        let is_calm = |state: &mut State| !state.is_urgent;
        let waited = self.0.hurry.wait_timeout_while(self.lock(), pause.saturating_sub(FIRST_INTERVAL), is_calm);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut state.is_urgent)
    }

    /// What was answered to a question of this time.
    pub(crate) fn hear(&self, doubts: Option<Doubts>, asked: Instant) {
        self.lock().doubts = doubts.map(|doubts| (doubts, asked));
    }

    fn take(&self, exchange: Exchange) {
        let mut state = self.lock();
        (state.is_suspect, state.is_refused, state.waits) = (false, false, None);
        if state.sync.add(exchange) == Shown::Impossible {
            tracing::debug!("the server's clock: {exchange:?} cannot be");
        }
    }

    /// Whether it was refused.
    fn failed(&self, error: &WhepError) -> bool {
        let is_refused = match error {
            // Too many ask it for the moment.
            WhepError::Refused { status: 429, .. } => false,
            WhepError::Refused { status: 400..=499, .. } | WhepError::NotWhep { .. } => true,
            _ => false,
        };
        let mut state = self.lock();
        state.is_refused = is_refused;
        if matches!(error, WhepError::Closed { .. }) {
            // The server has ended: the next run of it may have another clock.
            state.sync = ClockSync::new(Instant::now());
        }
        is_refused
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        lock(&self.0.state)
    }
}

fn exchange(talk: &Talk) -> Result<(Exchange, Option<Doubts>), WhepError> {
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
    let ClockReading { received_us, sent_us, run, doubts, first, .. } = reading;
    let doubts = doubts.map(|of| Doubts { of, first });
    Ok((Exchange { asked, answered, received: time(received_us), sent: time(sent_us), run }, doubts))
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::net::TcpListener;

    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const LONG: Duration = Duration::from_secs(20);

    fn clock() -> (ServerClock, Instant) {
        let url = Url::parse("http://10.0.0.2:8080/api/clock").expect("a URL");
        (ServerClock::new(url), Instant::now())
    }

    fn at(ms: u64) -> Captured {
        Captured(Duration::from_millis(ms))
    }

    fn exchange(asked: Instant, ms: u64, run: u64) -> Exchange {
        Exchange { asked, answered: asked + 2 * MS, received: at(ms), sent: at(ms), run }
    }

    #[test]
    fn an_age_is_told_by_a_clock_that_was_read_and_each_run_of_a_server_has_another() {
        let (clock, now) = clock();
        assert_eq!(clock.age(Some(at(50_000)), now), Err(Unknown::NotRead));
        clock.take(exchange(now, 50_000, 1));
        let age = clock.age(Some(at(50_000)), now + 101 * MS).expect("known");
        assert_eq!((age.age.as_millis(), age.bound.as_millis()), (100, 1));
        assert_eq!(clock.age(None, now), Err(Unknown::NoCaptureTime));
        clock.take(exchange(now + 4 * MS, 10_000, 2));
        assert_eq!(clock.age(Some(at(10_000)), now + 105 * MS).expect("known").age.as_millis(), 100);
    }

    #[test]
    fn after_a_silence_a_new_session_waits_for_the_clock() {
        let (clock, now) = clock();
        clock.take(exchange(now, 50_000, 1));
        clock.lock().waits = Some(now);
        clock.lock().asker = Some(now);
        clock.begin(&Http::default(), now + 400 * MS);
        assert!(clock.age(Some(at(50_000)), now + 400 * MS).is_ok(), "a slow answer");
        clock.begin(&Http::default(), now + 600 * MS);
        assert_eq!(clock.age(Some(at(50_000)), now + 600 * MS), Err(Unknown::NotRead));
        clock.take(exchange(now + 700 * MS, 90_000, 2));
        assert_eq!(clock.lock().waits, None);
        assert!(clock.age(Some(at(90_000)), now + 702 * MS).is_ok());
        // It was not asked in between.
        clock.lock().asker = None;
        clock.begin(&Http::default(), now + 800 * MS);
        assert_eq!(clock.age(Some(at(90_000)), now + 800 * MS), Err(Unknown::NotRead));
    }

    #[test]
    fn what_was_proven_before_a_queue_holds_in_a_session_that_is_made_through_it() {
        let (clock, now) = clock();
        clock.take(exchange(now, 50_000, 1));
        clock.lock().waits = Some(now + 1_000 * MS);
        clock.lock().asker = Some(now);
        clock.begin(&Http::default(), now + 2_000 * MS);
        // The answer waited for two seconds.
        let answered = now + 3_000 * MS;
        clock.take(Exchange { answered, ..exchange(now + 1_000 * MS, 51_001, 1) });
        let age = clock.age(Some(at(51_000)), answered).expect("known");
        assert!(age.certain() > 1_990 * MS, "{age:?}");
    }

    #[test]
    fn of_one_server_there_is_one_clock_and_of_another_another() {
        let clocks = Clocks::default();
        let of = |url: &str| clocks.of(&Url::parse(url).expect("a URL")).expect("a clock");
        let (one, now) = (of("http://10.0.0.2:8080/api/stats"), Instant::now());
        one.take(exchange(now, 50_000, 1));
        assert!(of("http://10.0.0.2:8080/api/stats").age(Some(at(50_000)), now).is_ok(), "also in the next session");
        assert_eq!(of("http://10.0.0.3:8080/api/stats").age(Some(at(50_000)), now), Err(Unknown::NotRead));
        for n in 0..3 * MAX_SERVERS {
            of(&format!("http://10.0.1.{n}/api/stats"));
        }
        assert!(lock(&clocks.0).len() <= MAX_SERVERS);
        while lock(&clocks.0).len() < MAX_SERVERS {
            of(&format!("http://10.0.2.{}/api/stats", lock(&clocks.0).len()));
        }
        lock(&clocks.0).values().for_each(|clock| clock.lock().asker = Some(now));
        assert!(clocks.of(&Url::parse("http://10.0.3.1/api/stats").expect("a URL")).is_none(), "all are wanted");
    }

    #[test]
    fn what_was_captured_later_than_now_has_the_clock_read_anew_once_a_second() {
        let (clock, now) = clock();
        let later = Some(at(60_000));
        for forgets in [true, false] {
            clock.take(exchange(now, 50_000, 1));
            assert_eq!(clock.age(later, now), Err(Unknown::InFuture));
            assert_eq!(std::mem::take(&mut clock.lock().is_urgent), forgets);
        }
        assert_eq!(clock.age(later, now + INTERVAL), Err(Unknown::InFuture));
        assert_eq!(clock.age(later, now + INTERVAL), Err(Unknown::NotRead));
    }

    #[test]
    fn a_server_that_has_no_such_clock_is_said_to_have_none() {
        let (clock, now) = clock();
        let url = clock.0.url.clone();
        let refused = |status| WhepError::Refused { url: url.clone(), status, reason: String::new() };
        let age = || clock.age(Some(Captured::default()), now);
        assert!(!clock.failed(&refused(503)) && !clock.failed(&refused(429)) && clock.failed(&refused(404)));
        assert_eq!(age(), Err(Unknown::Refused));
        clock.take(exchange(now, 50_000, 1));
        assert!(age().is_ok());
        // It has ended.
        clock.failed(&WhepError::Closed { url: url.clone() });
        assert_eq!(age(), Err(Unknown::NotRead));
    }

    /// The first connection has been lost with the link, or its answer waits in a queue.
    #[test]
    fn what_is_not_answered_is_asked_by_another_connection_and_a_late_answer_still_counts() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = Url::parse(&format!("http://{}/api/stats", listener.local_addr().expect("bound"))).expect("a URL");
        let (clock, http) = (Clocks::default().of(&url).expect("a clock"), Http::default());
        clock.begin(&http, Instant::now());
        let (first, _) = listener.accept().expect("a client");
        let answer = |client: &std::net::TcpStream, run| {
            let mut questions = BufReader::new(client.try_clone().expect("a socket")).lines();
            while !questions.next().expect("a question").expect("text").is_empty() {}
            let body = serde_json::to_string(&ClockReading { run, ..Default::default() }).expect("JSON");
            let mut client = client;
            write!(client, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).expect("answered");
        };
        let until = |what: &str, is_so: &dyn Fn() -> bool| {
            let end = Instant::now() + LONG;
            while !is_so() {
                assert!(Instant::now() < end, "{what}");
                std::thread::sleep(MS);
            }
        };
        until("asked", &|| clock.lock().asking.is_some());
        let asking = clock.lock().asking.expect("asked");
        clock.keep(&http, asking + RETRY - 100 * MS);
        listener.set_nonblocking(true).expect("a listener");
        assert!(listener.accept().is_err(), "too early");
        listener.set_nonblocking(false).expect("a listener");
        clock.keep(&http, asking + RETRY);
        let (second, _) = listener.accept().expect("another connection");
        answer(&second, 1);
        let is_known = || clock.age(Some(Captured::default()), Instant::now()).is_ok();
        until("an age", &is_known);
        clock.forget();
        answer(&first, 1);
        until("the late answer counts", &is_known);
    }

    /// Each later session of this test's server goes on by the connection that was made for the first.
    #[test]
    fn sessions_that_begin_again_and_again_keep_the_connection() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = Url::parse(&format!("http://{}/api/stats", listener.local_addr().expect("bound"))).expect("a URL");
        let (clock, http) = (Clocks::default().of(&url).expect("a clock"), Http::default());
        clock.begin(&http, Instant::now());
        let (client, _) = listener.accept().expect("a client");
        let (mut questions, mut answers) = (BufReader::new(client.try_clone().expect("a socket")).lines(), client);
        for time in 0..5 {
            clock.begin(&http, Instant::now());
            while !questions.next().expect("a question").expect("text").is_empty() {}
            let frozen = PictureDoubt { frozen: true, substitute: false, reason: "no motion".to_owned() };
            let reading = ClockReading {
                received_us: 50_000 + time,
                sent_us: 50_000 + time,
                run: 1,
                doubts: Some(BTreeMap::from([("stream1".to_owned(), frozen)])),
                ..Default::default()
            };
            let body = serde_json::to_string(&reading).expect("JSON");
            write!(answers, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).expect("answered");
        }
        let end = Instant::now() + LONG;
        while clock.age(Some(Captured::default()), Instant::now()).is_err() {
            assert!(Instant::now() < end, "no age");
            std::thread::sleep(MS);
        }
        let frozen = |stream: &str| clock.doubt(stream).map(|(doubt, _)| doubt.is_some_and(|doubt| doubt.frozen));
        assert_eq!((frozen("stream1"), frozen("stream2")), (Some(true), Some(false)));
        listener.set_nonblocking(true).expect("a listener");
        assert!(listener.accept().is_err(), "another connection");
    }
}
