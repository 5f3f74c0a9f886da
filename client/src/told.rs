//! What the server says is to be written over its pictures, and its telemetry: `GET /api/events`, followed by a thread
//! of its own while somebody wants it. One for all streams of a server.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use rov_common::exif::Position;
use rov_common::overlay::{Overlay, TIME_LIMIT, Telemetry, UNKNOWN};
use rov_common::recording::Fields;
use rov_common::sync::lock;
use url::Url;

use crate::whep::{self, Http};
use crate::who::Who;

/// Nobody has asked for so long: nobody wants it.
const WANTED_FOR: Duration = Duration::from_secs(10);
/// After an end: the server ends a connection of a reader that falls behind, and we end ours now and then.
const AGAIN: Duration = Duration::from_millis(500);
/// After a failure.
const AGAIN_AFTER_FAILURE: Duration = Duration::from_secs(3);
/// The way of the quickest values counts for so long, and up to as long again: the two clocks drift apart by 0.1 s in it
/// at most.
const ZERO_PERIOD: Duration = Duration::from_secs(120);
/// What is told in one line is some kilobytes.
const LONGEST_LINE: u64 = 64 << 10;

/// What is to be written over a picture now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Says where, too.
    pub overlay: Overlay,
    pub lines: Vec<String>,
}

/// Cheap to clone. The flag is of one viewer: whether its pictures may be another server's.
#[derive(Clone, Debug, Default)]
pub struct Told(Arc<Mutex<State>>, Arc<AtomicBool>);

#[derive(Debug, Default)]
struct State {
    /// That is followed; none: nobody is.
    server: Option<(Url, Who)>,
    wanted_until: Option<Instant>,
    /// Goes up when another is followed: the thread of before ends.
    turn: u64,
    heard: Heard,
}

#[derive(Debug, Default)]
struct Heard {
    /// By the names of the streams.
    overlays: BTreeMap<String, Overlay>,
    /// With when they came, or would have come if they had not waited on the way.
    newest: Option<(Telemetry, Instant)>,
    zero: Option<Zero>,
}

/// When the server's clock was at zero, by the values that had the shortest way: the earliest. What came later by it than
/// it should waited behind others. It outlasts connections, as one may begin with values that waited.
#[derive(Clone, Copy, Debug)]
struct Zero {
    /// Of the server: another one has another zero.
    run: u32,
    /// Since when the newest period goes on.
    since: Instant,
    newest: Instant,
    /// Of the period before.
    before: Instant,
}

impl Zero {
    /// With a value that came `now` and says that the zero was then.
    fn with(known: Option<Self>, run: u32, zero: Instant, now: Instant) -> Self {
        let age = |known: &Self| now.saturating_duration_since(known.since);
        let known = known.filter(|known| known.run == run && age(known) < ZERO_PERIOD * 2);
        match known {
            None => Self { run, since: now, newest: zero, before: zero },
            Some(known) if age(&known) >= ZERO_PERIOD => {
                Self { since: now, newest: zero, before: known.newest, ..known }
            }
            Some(known) => Self { newest: known.newest.min(zero), ..known },
        }
    }

    fn earliest(&self) -> Instant {
        self.newest.min(self.before)
    }
}

impl Heard {
    fn take(&mut self, event: &str, data: &str, now: Instant) {
        match event {
            "overlay" => {
                if let Ok(overlay) = serde_json::from_str::<Overlay>(data) {
                    self.overlays.insert(overlay.stream.clone(), overlay);
                }
            }
            "telemetry" => {
                if let Ok(newest) = serde_json::from_str::<Telemetry>(data) {
                    let since_start = Duration::from_millis(newest.at_ms);
                    let zero = now.checked_sub(since_start).unwrap_or(now);
                    let zero = Zero::with(self.zero, newest.run, zero, now);
                    self.zero = Some(zero);
                    self.newest = Some((newest, now.min(zero.earliest() + since_start)));
                }
            }
            _ => {}
        }
    }

    /// A server of one stream does not name it.
    fn written(&self, stream: &str, now: Instant) -> Option<Written> {
        let only = || self.overlays.values().next().filter(|_| stream.is_empty() && self.overlays.len() == 1);
        let overlay = self.overlays.get(stream).or_else(only).filter(|overlay| overlay.drawn.is_for_clients())?;
        let since = self.newest.as_ref().map_or(Duration::ZERO, |(_, at)| now.saturating_duration_since(*at));
        let lines = overlay.lines_of(self.newest.as_ref().map(|(newest, _)| newest), since);
        Some(Written { overlay: overlay.clone(), lines })
    }
}

impl Told {
    /// The same, for another viewer.
    pub fn for_viewer(&self) -> Self {
        Self(Arc::clone(&self.0), Arc::default())
    }

    /// Nothing is told to this viewer meanwhile: it is not known whether its pictures are of the server that is followed.
    pub fn hold_back(&self, is_held_back: bool) {
        self.1.store(is_held_back, Ordering::Relaxed);
    }

    /// Follows this server, whose statistics are at this URL, for some seconds; to be called again and again.
    pub fn follow(&self, stats: &Url, who: &Who, http: &Http, now: Instant) {
        let Ok(url) = stats.join("events") else { return };
        let server = (url, who.clone());
        let mut state = lock(&self.0);
        let is_same = state.server.as_ref() == Some(&server);
        let is_followed = state.wanted_until.is_some() && is_same;
        state.wanted_until = Some(now + WANTED_FOR);
        if is_followed {
            return;
        }
        if !is_same {
            state.heard = Heard::default();
        }
        state.server = Some(server.clone());
        state.turn += 1;
        let (told, turn, http) = (self.clone(), state.turn, http.clone());
        // It ends by itself, at the next sign of life of the server at the latest, or when that gives none.
        std::thread::spawn(move || told.run(&server, turn, &http));
    }

    /// Another server is watched, or this one has nothing to be written.
    pub fn forget(&self) {
        let mut state = lock(&self.0);
        let turn = state.turn + 1;
        *state = State { turn, ..State::default() };
    }

    /// As where it is followed and says this.
    #[cfg(test)]
    pub fn tell(&self, telemetry: &str, now: Instant) {
        let mut state = lock(&self.0);
        state.wanted_until = Some(now + WANTED_FOR);
        state.heard.take("telemetry", telemetry, now);
    }

    /// What is to be written over the pictures of a stream of the server that is followed.
    pub fn written(&self, stream: &str, now: Instant) -> Option<Written> {
        let state = self.state(now)?;
        state.heard.written(stream, now)
    }

    /// Where the vehicle is, by the newest values, if these are of now.
    pub fn position(&self, now: Instant) -> Position {
        let state = self.state(now);
        let newest = state.as_ref().and_then(|state| state.heard.newest.as_ref());
        let newest = newest.filter(|(_, at)| now.saturating_duration_since(*at) <= TIME_LIMIT);
        newest.map(|(newest, _)| Position::of(&newest.fields)).unwrap_or_default()
    }

    /// What the vehicle measures now; empty: it says nothing of that.
    pub fn fields(&self, now: Instant) -> Fields {
        let state = self.state(now);
        let newest = state.as_ref().and_then(|state| state.heard.newest.as_ref());
        let Some((newest, at)) = newest else { return Fields::new() };
        let since = now.saturating_duration_since(*at);
        let mut fields = newest.fields.clone();
        for field in fields.values_mut() {
            field.age_ms = field.age_ms.saturating_add(since.as_millis() as u64);
            if since > TIME_LIMIT {
                (field.value, field.text) = (None, UNKNOWN.to_owned());
            }
        }
        fields
    }

    /// As far as this viewer is told of it: while a server is followed.
    fn state(&self, now: Instant) -> Option<MutexGuard<'_, State>> {
        let state = lock(&self.0);
        let is_followed = state.wanted_until.is_some_and(|until| now < until);
        Some(state).filter(|_| is_followed && !self.1.load(Ordering::Relaxed))
    }

    /// Whether this thread goes on; where it does not, another may begin.
    fn goes_on(&self, turn: u64) -> bool {
        let mut state = lock(&self.0);
        let is_mine = state.turn == turn;
        let is_wanted = state.wanted_until.is_some_and(|until| Instant::now() < until);
        if is_mine && !is_wanted {
            state.wanted_until = None;
            state.heard = Heard::default();
        }
        is_mine && is_wanted
    }

    fn run(&self, (url, who): &(Url, Who), turn: u64, http: &Http) {
        while self.goes_on(turn) {
            let pause = match whep::events(url, who, http) {
                Ok(events) => {
                    // What was so before may be other by now.
                    if !self.begin(turn) {
                        return;
                    }
                    self.read(BufReader::new(events), turn);
                    AGAIN
                }
                Err(error) => {
                    tracing::debug!("what is to be written over the pictures is not known: {error}");
                    AGAIN_AFTER_FAILURE
                }
            };
            std::thread::sleep(pause);
        }
    }

    /// A new connection: what is so is told at its beginning. False where another server is followed meanwhile.
    fn begin(&self, turn: u64) -> bool {
        let mut state = lock(&self.0);
        if state.turn == turn {
            state.heard = Heard { zero: state.heard.zero, ..Heard::default() };
        }
        state.turn == turn
    }

    /// Until the connection ends.
    fn read(&self, mut events: impl BufRead, turn: u64) {
        let (mut event, mut line) = (String::new(), Vec::new());
        while self.goes_on(turn) {
            line.clear();
            let read = events.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut line);
            if !read.is_ok_and(|length| length > 0) || line.last() != Some(&b'\n') {
                return;
            }
            let text = String::from_utf8_lossy(&line);
            match text.trim_end().split_once(": ") {
                Some(("event", name)) => event = name.to_owned(),
                Some(("data", data)) => {
                    let mut state = lock(&self.0);
                    if state.turn == turn {
                        state.heard.take(&event, data, Instant::now());
                    }
                }
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    const OVERLAY: &str = r#"{"stream":"stream1","camera":"cam1","where":"client","x":10,"y":20,"has_time":true,
        "text":"Dive 7","fields":[{"name":"depth","label":"Depth","limit_ms":1000}]}"#;
    const VALUES: &str = r#"{"fields":{"depth":{"value":3.5,"text":"3.5 m","age_ms":100}},
        "times":{"stream1":"12:00:00"}}"#;

    fn wanted() -> (Told, u64) {
        let told = Told::default();
        lock(&told.0).wanted_until = Some(Instant::now() + WANTED_FOR);
        (told, 0)
    }

    #[test]
    fn what_is_told_is_written_until_it_is_too_old() {
        let mut heard = Heard::default();
        let now = Instant::now();
        heard.take("overlay", OVERLAY, now);
        heard.take("telemetry", VALUES, now);
        let lines =
            |stream, ms| heard.written(stream, now + Duration::from_millis(ms)).map(|written| written.lines.join("|"));
        assert_eq!(lines("stream1", 900).as_deref(), Some("12:00:00|Dive 7|Depth 3.5 m"));
        assert_eq!(lines("", 901).as_deref(), Some("12:00:00|Dive 7|Depth --"), "the only one");
        assert_eq!(lines("stream1", 2001).as_deref(), Some("--|Dive 7|Depth --"), "the server is silent");
        assert_eq!(lines("cam2/stream1", 0), None);
        heard.take("overlay", &OVERLAY.replace("client", "off"), now);
        assert_eq!(heard.written("stream1", now), None);
    }

    #[test]
    fn what_waited_on_the_way_is_as_old_as_it_is() {
        let (mut heard, start) = (Heard::default(), Instant::now() + Duration::from_secs(100));
        let at = |ms: u64| VALUES.replace("{\"fields\"", &format!("{{\"at_ms\":{ms},\"fields\""));
        let depth = |heard: &Heard, now| heard.written("stream1", now).expect("an overlay").lines[2].clone();
        heard.take("overlay", OVERLAY, start);
        heard.take("telemetry", &at(5_000), start);
        // The link stood still for 1.2 s, and then gives what waited.
        let now = start + Duration::from_millis(1_300);
        heard.take("telemetry", &at(5_100), now);
        assert_eq!(depth(&heard, now), "Depth --");
        heard.take("telemetry", &at(6_200), now);
        assert_eq!(depth(&heard, now), "Depth 3.5 m");
    }

    /// What a value of `run` shows that was so `ms` after the start and comes then.
    fn shown(heard: &mut Heard, run: u32, ms: u64, now: Instant) -> String {
        heard.take("overlay", OVERLAY, now);
        let run = format!("{{\"run\":{run},\"at_ms\":{ms},\"fields\"");
        heard.take("telemetry", &VALUES.replace("{\"fields\"", &run), now);
        heard.written("stream1", now).expect("an overlay").lines[2].clone()
    }

    #[test]
    fn a_connection_that_begins_with_what_waited_does_not_make_it_new_and_another_run_begins_anew() {
        let (told, turn) = wanted();
        let start = Instant::now() + Duration::from_secs(100);
        let at = |ms| start + Duration::from_millis(ms);
        let shown = |run, ms, now| shown(&mut lock(&told.0).heard, run, ms, now);
        assert_eq!(shown(7, 5_000, at(0)), "Depth 3.5 m");
        // All of the next connection come 1.2 s late.
        assert!(told.begin(turn));
        assert_eq!(shown(7, 35_000, at(31_200)), "Depth --");
        assert_eq!(shown(7, 36_000, at(32_200)), "Depth --");
        assert!(told.begin(turn));
        assert_eq!(shown(8, 2_000, at(40_000)), "Depth 3.5 m", "the server was started again");
    }

    #[test]
    fn clocks_that_drift_apart_make_no_value_old() {
        let (mut heard, start) = (Heard::default(), Instant::now() + Duration::from_secs(100_000));
        // The server's is slower by 50 ppm: 1.8 s in ten hours. It is silent for a while as well.
        for minute in (0..600_u64).filter(|minute| !(200..260).contains(minute)) {
            let ms = minute * 60_000;
            assert_eq!(shown(&mut heard, 7, ms - ms / 20_000, start + Duration::from_millis(ms)), "Depth 3.5 m");
        }
    }

    #[test]
    fn what_was_measured_is_not_known_any_more_when_the_vehicle_is_silent() {
        let (told, _) = wanted();
        let now = Instant::now();
        assert!(told.fields(now).is_empty());
        lock(&told.0).heard.take("telemetry", VALUES, now);
        let depth = |ms| told.fields(now + Duration::from_millis(ms)).remove("depth").expect("a depth");
        assert_eq!((depth(500).value, depth(500).age_ms), (Some(3.5), 600));
        assert_eq!((depth(2_001).value, depth(2_001).text.as_str()), (None, "--"));
        assert!(told.fields(now + WANTED_FOR * 2).is_empty(), "nobody follows it any more");
    }

    #[test]
    fn nothing_of_another_server_is_written() {
        let (told, turn) = wanted();
        let text = format!("event: overlay\ndata: {}\n", OVERLAY.replace('\n', ""));
        told.read(text.as_bytes(), turn);
        let now = Instant::now();
        assert!(told.written("stream1", now).is_some());
        assert_eq!(told.written("stream1", now + WANTED_FOR * 2), None, "nobody follows it any more");
        told.forget();
        lock(&told.0).wanted_until = Some(Instant::now() + WANTED_FOR);
        // The thread of before still reads.
        told.read(text.as_bytes(), turn);
        assert!(!told.begin(turn) && told.written("stream1", now).is_none());
    }

    /// The first line that is written over the pictures of Nemo, where each connection begins so and says that.
    fn written_of_nemo(connections: [(&'static str, &'static str); 2]) -> String {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let stats = format!("http://{}/api/stats", listener.local_addr().expect("bound")).parse().expect("a URL");
        std::thread::spawn(move || {
            let mut open = Vec::new();
            for ((head, text), mut client) in connections.into_iter().zip(listener.incoming().flatten()) {
                let _ = client.read(&mut [0; 4096]);
                let overlay = OVERLAY.replace('\n', "").replace("Dive 7", text);
                let head = format!("HTTP/1.1 200 OK\r\n{head}Connection: close");
                let _ = write!(client, "{head}\r\n\r\nevent: overlay\ndata: {overlay}\n\n");
                open.push(client);
            }
            // Until the test ends.
            std::thread::park();
        });
        let (told, begun) = (Told::default(), Instant::now());
        let nemo = Who { id: "nemo".to_owned(), key: Some("a".to_owned()) };
        loop {
            told.follow(&stats, &nemo, &Http::default(), Instant::now());
            if let Some(written) = told.written("stream1", Instant::now()) {
                return written.lines.concat();
            }
            assert!(begun.elapsed() < Duration::from_secs(60), "nothing is written");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// As where two machines have one address, or copies of one card.
    #[test]
    fn what_comes_from_another_server_than_the_one_that_is_followed_is_not_written() {
        let nemo = ("X-Server-Id: nemo\r\nX-Server-Key: a\r\n", "of Nemo");
        for other in ["X-Server-Id: dory\r\nX-Server-Key: b\r\n", "X-Server-Id: nemo\r\nX-Server-Key: b\r\n"] {
            let written = written_of_nemo([(other, "of Dory"), nemo]);
            assert!(written.contains("of Nemo"), "{other:?}: {written}");
        }
        let written = written_of_nemo([("", "of a version that says nothing"), nemo]);
        assert!(written.contains("says nothing"), "{written}");
    }

    #[test]
    fn a_new_connection_begins_without_the_values_of_the_one_before() {
        let (told, turn) = wanted();
        let overlay = OVERLAY.replace('\n', "").replace("1000", "60000");
        let text = format!("event: overlay\ndata: {overlay}\n");
        let values = format!("event: telemetry\ndata: {}\n", VALUES.replace('\n', ""));
        let depth = |told: &Told| told.written("stream1", Instant::now()).expect("an overlay").lines.pop();
        told.read(format!("{text}{values}").as_bytes(), turn);
        assert_eq!(depth(&told).as_deref(), Some("Depth 3.5 m"));
        assert!(told.begin(turn));
        told.read(text.as_bytes(), turn);
        assert_eq!(depth(&told).as_deref(), Some("Depth --"), "it may be another vehicle's");
    }

    #[test]
    fn events_are_read_line_by_line_and_what_is_none_is_left_out() {
        let (told, turn) = wanted();
        let one_line = |text: &str| text.replace('\n', "");
        let long = format!("data: {}", "x".repeat(LONGEST_LINE as usize));
        let text = format!(
            "event: state\ndata: {{}}\n\n: \n\nevent: overlay\ndata: {}\n\nevent: telemetry\ndata: not JSON\n\n{long}\n\
             event: overlay\ndata: {}\n",
            one_line(OVERLAY),
            one_line(OVERLAY).replace("Dive 7", "behind a line without end")
        );
        told.read(text.as_bytes(), turn);
        let written = told.written("stream1", Instant::now()).expect("an overlay");
        assert_eq!((written.overlay.place(1080), written.lines.join("|")), ((10, 20), "--|Dive 7|Depth --".to_owned()));
    }

    #[test]
    fn the_first_server_that_told_events_is_understood() {
        let (told, turn) = wanted();
        told.read(include_bytes!("../../tests/fixtures/first/events.txt").as_slice(), turn);
        let written = told.written("stream1", Instant::now()).expect("an overlay");
        assert_eq!(written.lines, ["12:00:00", "Dive 7", "Depth 3.5 m"]);
    }

    #[test]
    fn another_server_is_followed_instead_and_nobody_when_nobody_wants_it() {
        let (told, turn) = wanted();
        assert!(told.goes_on(turn) && !told.goes_on(turn + 1));
        lock(&told.0).wanted_until = Some(Instant::now());
        assert!(!told.goes_on(turn));
        assert_eq!(lock(&told.0).wanted_until, None, "another thread may begin");
    }
}
