//! What the session and the screen share: the newest picture, what the session is doing, and its counters.

mod choice;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rov_common::api::Alignment;
use rov_common::capture_clock::Captured;
use rov_common::clock_sync::Age;
use rov_common::exif::{self, About};

use crate::clock::{Clocks, ServerClock, Unknown};
use crate::decode::{DecodeStats, Decoder, Picture, PictureForm};
use crate::find::Seen;
use crate::mailbox::{Bell, Mailbox};
use crate::receive::Transport;
use crate::recording::{Recording, Source, Tape};
use crate::stats::Report;
use crate::streams::{Doubt, Listed};
use crate::told::{Told, Written};
use crate::whep::Api;
use crate::who::Who;

pub use choice::{Asker, Choice, Offer, Question, is_same_offer};

/// What happened to the choice of server is shown for so long after the first picture that came of it.
const NEWS_FOR: Duration = Duration::from_secs(30);
/// What the server said of its pictures is told with its age from then on.
const DOUBT_AGES: Duration = Duration::from_secs(10);

/// What the viewer is doing, for the window and the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Phase {
    /// No server is known; the text says where it looks.
    Searching(String),
    Connecting(String),
    /// Pictures come.
    Live,
    /// The session stands, but no pictures come, for the reason given.
    Waiting(String),
    /// The session ended, for the reason given; the next is being tried.
    Lost(String),
}

impl Phase {
    fn name(&self) -> &'static str {
        match self {
            Self::Searching(_) => "searching",
            Self::Connecting(_) => "connecting",
            Self::Live => "live",
            Self::Waiting(_) => "waiting",
            Self::Lost(_) => "lost",
        }
    }
}

/// Which server is being watched.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Server {
    /// Empty: the user named it by its address.
    pub id: String,
    pub key: Option<String>,
    pub name: String,
    /// Address and port, or the URL.
    pub address: String,
    /// The name of the stream, where the server has several.
    pub stream: String,
}

impl Server {
    /// One that the user named has no name before its first session.
    fn is_other_than(&self, other: &Self) -> bool {
        let has_other_name = !self.name.is_empty() && self.name != other.name;
        (&self.id, &self.key) != (&other.id, &other.key) || self.address != other.address || has_other_name
    }
}

/// What is received now, for the overlay.
#[derive(Clone, Debug, Default)]
pub struct Reception {
    pub bitrate_kbps: f64,
    /// Of the packets of the last two seconds, 0 to 1.
    pub loss: f64,
    pub rtt: Option<Duration>,
    /// From capture to encoded, as the server says.
    pub encode: Option<Duration>,
    pub decode: DecodeStats,
    /// How it comes, as `RTSP over TCP`.
    pub transport: String,
    /// What is odd about that; empty: nothing.
    pub note: String,
}

pub struct Viewer {
    pub mailbox: Arc<Mailbox<Picture>>,
    /// Which server is to be watched, where the pilot has to say: one choice for all streams.
    pub choice: Asker,
    /// What is to be written over the pictures: of one server for all streams.
    pub told: Told,
    /// By which it is known how old pictures are: one for all streams of a server.
    pub clocks: Clocks,
    /// What goes into the decoder is recorded by it.
    pub tape: Arc<Tape>,
    /// Of which servers it has been told, at an address that the user named.
    pub seen: Mutex<Seen>,
    state: Mutex<State>,
}

struct State {
    phase: Phase,
    phase_since: Instant,
    server: Server,
    transport: Option<Transport>,
    /// Why it is not by a better transport; empty when it is by the best.
    fallback: String,
    /// Of another machine that says it is the server; none: there is none.
    warning: Option<String>,
    logged_warning: Option<String>,
    /// That another server is watched than before, or the same elsewhere; until then it is shown, once pictures have
    /// come.
    news: Option<(String, Option<Instant>)>,
    reception: Reception,
    /// The streams that the server has, as it said last, and when; or since when it is another one.
    streams: Vec<Listed>,
    streams_at: Instant,
    /// The name and the streams of the one that was watched before where the user named it, until it is known whether it
    /// is the same.
    held_back: Option<(String, Vec<Listed>, Instant)>,
    /// How it wants its cameras to be shown beside each other, as it said last.
    alignment: Alignment,
    /// Of former sessions.
    before: Counters,
    sessions: u64,
    /// Of the server of the newest session; none: it cannot be read.
    clock: Option<ServerClock>,
    /// Likewise; none: it has none that is known, or another server follows.
    api: Option<Api>,
    /// Of the server that has it, also while the next session is not there yet.
    api_clock: Option<ServerClock>,
    /// The server, as it said last.
    who: Who,
    /// Counts servers.
    followed: u64,
    decoder: Option<Arc<Decoder>>,
    output: Option<PictureForm>,
    /// The failure that was logged last: attempts that fail in the same way are not logged again.
    logged_failure: Option<String>,
}

impl State {
    /// What the server said of the stream that is watched.
    fn listed(&self) -> Option<&Listed> {
        let only = || self.streams.first().filter(|_| self.streams.len() == 1);
        self.streams.iter().find(|listed| listed.name == self.server.stream).or_else(only)
    }

    fn api(&self) -> Option<Api> {
        let kept = self.listed().and_then(|listed| listed.kept).map(Duration::from_secs);
        self.api.clone().map(|api| Api { who: self.who.clone(), kept, ..api })
    }

    /// What was said before is of another server.
    fn forget_streams(&mut self) {
        (self.streams, self.held_back) = Default::default();
        (self.streams_at, self.alignment) = (Instant::now(), Alignment::default());
    }
}

#[derive(Clone, Copy, Default)]
struct Counters {
    packets: u64,
    lost: u64,
    decoded: u64,
    skipped: u64,
    keyframe_requests: u64,
}

impl Counters {
    /// Nobody is asked for keyframes by RTP, although the decoder would like it.
    fn plus(self, stats: &DecodeStats, transport: Option<Transport>) -> Self {
        let asked = if transport == Some(Transport::Rtp) { 0 } else { stats.keyframe_requests };
        Self {
            packets: self.packets + stats.packets,
            lost: self.lost + stats.lost,
            decoded: self.decoded + stats.frames_decoded,
            skipped: self.skipped + stats.frames_skipped,
            keyframe_requests: self.keyframe_requests + asked,
        }
    }
}

impl Viewer {
    pub fn new() -> Arc<Self> {
        Self::with(Arc::default(), Arc::default(), Told::default(), Clocks::default(), Arc::default())
    }

    /// One of several, whose pictures ring the same bell, whose sessions ask the same question and who are told the same
    /// by the same clocks. All are recorded, or none.
    pub fn with(
        bell: Arc<Bell>,
        choice: Arc<Choice>,
        told: Told,
        clocks: Clocks,
        recording: Arc<Recording>,
    ) -> Arc<Self> {
        let told = told.for_viewer();
        let tape = Arc::new(Tape::of(recording, told.clone()));
        Arc::new(Self {
            mailbox: Arc::new(Mailbox::with(bell)),
            choice: Asker::of(choice),
            told,
            clocks,
            tape,
            seen: Mutex::default(),
            state: Mutex::new(State {
                phase: Phase::Searching(String::new()),
                phase_since: Instant::now(),
                server: Server::default(),
                transport: None,
                fallback: String::new(),
                warning: None,
                logged_warning: None,
                news: None,
                reception: Reception::default(),
                streams: Vec::new(),
                streams_at: Instant::now(),
                held_back: None,
                alignment: Alignment::default(),
                before: Counters::default(),
                sessions: 0,
                clock: None,
                api_clock: None,
                api: None,
                who: Who::default(),
                followed: 0,
                decoder: None,
                output: None,
                logged_failure: None,
            }),
        })
    }

    pub fn phase(&self) -> Phase {
        self.lock().phase.clone()
    }

    /// The phase, and since when it is.
    pub fn phase_since(&self) -> (Phase, Instant) {
        let state = self.lock();
        (state.phase.clone(), state.phase_since)
    }

    pub fn server(&self) -> Server {
        self.lock().server.clone()
    }

    /// What title and corner call the server: with the stream, where it has several, and with its camera, where these
    /// are several too.
    pub fn called(&self) -> String {
        let state = self.lock();
        let Server { name, address, stream, .. } = &state.server;
        let has_cameras = state.streams.windows(2).any(|pair| pair[0].camera != pair[1].camera);
        let listed = state.streams.iter().find(|listed| has_cameras && listed.name == *stream);
        let stream = listed.map_or_else(|| stream.clone(), Listed::title);
        let name = if name.is_empty() && !stream.is_empty() { address } else { name };
        format!("{name} {stream}").trim_end().to_owned()
    }

    /// The streams that the server has; empty while it has not said.
    pub fn streams(&self) -> Vec<Listed> {
        self.lock().streams.clone()
    }

    pub fn set_streams(&self, streams: Vec<Listed>) {
        let mut state = self.lock();
        (state.streams, state.streams_at) = (streams, Instant::now());
        self.name_recordings(&state);
    }

    /// Why the pictures of the stream that is watched may not be live ones of its camera, by what the server said last,
    /// with its statistics or its clock, which it is asked more often. It stands until the server says otherwise; where it
    /// says nothing for long, that is said.
    pub fn doubt(&self, now: Instant) -> Doubt {
        let state = self.lock();
        let listed = state.listed();
        let stream = listed.map_or(&state.server.stream, |listed| &listed.name);
        let by_clock = state.clock.as_ref().and_then(|clock| clock.doubt(stream));
        let (mut doubt, at) = match by_clock.filter(|(_, asked)| *asked > state.streams_at) {
            Some((told, asked)) => (told.map(Doubt::from).unwrap_or_default(), asked),
            None => (listed.map(|listed| listed.doubt.clone()).unwrap_or_default(), state.streams_at),
        };
        let since = now.saturating_duration_since(at);
        if let (Doubt::Frozen(reason) | Doubt::Substitute(reason), true) = (&mut doubt, since >= DOUBT_AGES) {
            let separator = if reason.is_empty() { "" } else { "; " };
            *reason += &format!("{separator}as the server said {} s ago", since.as_secs());
        }
        doubt
    }

    /// What is to be said of a picture of it that is on the screen now and was captured then, as far as the server has
    /// told.
    pub fn about(&self, captured: Option<Captured>, now: Instant) -> About {
        let position = self.told.position(now);
        let doubt = self.doubt(now).told();
        let state = self.lock();
        let listed = state.listed();
        let of_time = listed.and_then(|listed| exif::remark_on_time(listed.capture_time));
        let Server { name, address, stream, .. } = &state.server;
        About {
            taken: captured.unwrap_or_default(),
            vehicle: if name.is_empty() { address.clone() } else { name.clone() },
            camera: listed.map(|listed| listed.camera.clone()).unwrap_or_default(),
            stream: listed.map_or_else(|| stream.clone(), |listed| listed.name.clone()),
            position,
            remarks: of_time
                .filter(|_| captured.is_some())
                .into_iter()
                .chain(doubt.as_ref().map(exif::remark_on_doubt))
                .collect(),
        }
    }

    /// What is to be written over the pictures now.
    pub fn written(&self, now: Instant) -> Option<Written> {
        self.told.written(&self.server().stream, now)
    }

    /// How the server wants its cameras to be shown beside each other.
    pub fn alignment(&self) -> Alignment {
        self.lock().alignment
    }

    pub fn set_alignment(&self, alignment: Alignment) {
        self.lock().alignment = alignment;
    }

    pub fn reception(&self) -> Reception {
        self.lock().reception.clone()
    }

    /// Sessions that connected so far.
    pub fn sessions(&self) -> u64 {
        self.lock().sessions
    }

    /// How old a picture that was captured then is at `now`.
    ///
    /// # Errors
    /// Says why that is not known.
    pub fn age(&self, captured: Option<Captured>, now: Instant) -> Result<Age, Unknown> {
        self.clock().ok_or(Unknown::NoClock)?.age(captured, now)
    }

    pub fn clock(&self) -> Option<ServerClock> {
        self.lock().clock.clone()
    }

    /// That of the server which [`Self::api`] asks.
    pub fn api_clock(&self) -> Option<ServerClock> {
        self.lock().api_clock.clone()
    }

    /// Of the server of a session that begins.
    pub fn set_clock(&self, clock: Option<ServerClock>) {
        self.lock().clock = clock;
    }

    /// Which of the servers that were followed is watched now.
    pub fn followed(&self) -> u64 {
        self.lock().followed
    }

    /// By which the server of the newest session is asked for more.
    pub fn api(&self) -> Option<Api> {
        self.lock().api()
    }

    pub fn set_api(&self, api: Option<Api>) {
        let mut state = self.lock();
        state.api_clock = state.clock.clone();
        state.api = api;
        self.tape.set_vehicle(state.api());
    }

    /// Sets the phase; logs it when it is another than before.
    pub fn set_phase(&self, phase: Phase) {
        let mut state = self.lock();
        if state.phase == phase {
            return;
        }
        match &phase {
            Phase::Searching(text) => tracing::info!("{text}"),
            Phase::Connecting(text) if state.logged_failure.is_none() => tracing::info!("connecting to {text}"),
            Phase::Connecting(_) => {}
            Phase::Live => {
                state.logged_failure = None;
                tracing::info!("video from {}", state.server.address);
            }
            // What only counts on, as the seconds of it, is said once.
            Phase::Waiting(reason) if matches!(&state.phase, Phase::Waiting(before) if is_same_text(before, reason)) => {
            }
            Phase::Waiting(reason) => tracing::warn!("no video: {reason}"),
            Phase::Lost(reason) if state.logged_failure.as_ref() == Some(reason) => {}
            Phase::Lost(reason) => {
                state.logged_failure = Some(reason.clone());
                tracing::warn!("no connection: {reason}; trying again until it works");
            }
        }
        let now = Instant::now();
        if let (Phase::Live, Some((_, until))) = (&phase, &mut state.news) {
            until.get_or_insert(now + NEWS_FOR);
        }
        state.phase = phase;
        state.phase_since = now;
    }

    pub fn set_server(&self, server: Server) {
        let mut state = self.lock();
        if server.is_other_than(&state.server) {
            state.forget_streams();
            self.told.forget();
            self.told.hold_back(false);
            (state.api, state.api_clock) = (None, None);
            state.who = Who { id: server.id.clone(), key: server.key.clone() };
            state.followed += 1;
            if server.key != state.server.key {
                // As a copy of a card, whose id and address are the same.
                self.tape.cut();
            }
        } else if server.id.is_empty() {
            // Another one may be there by now: until it is known, nothing of the former is written over its pictures.
            let former = (state.server.name.clone(), std::mem::take(&mut state.streams), state.streams_at);
            state.held_back.get_or_insert(former);
            state.streams_at = Instant::now();
            self.told.hold_back(true);
        }
        state.server = server;
        self.name_recordings(&state);
    }

    /// Who the server says that it is.
    pub fn set_who(&self, who: Who) {
        let mut state = self.lock();
        state.who = who;
        self.tape.set_vehicle(state.api());
    }

    /// What the server that is watched calls itself.
    pub fn set_name(&self, name: String) {
        let mut state = self.lock();
        state.server.name = name;
        self.name_recordings(&state);
    }

    /// Which of its several streams is watched.
    pub fn set_stream(&self, stream: String) {
        let mut state = self.lock();
        state.server.stream = stream;
        self.name_recordings(&state);
    }

    /// By what the server is tried or watched, and why not by something better, if so.
    pub fn set_transport(&self, transport: Transport, fallback: String) {
        let mut state = self.lock();
        (state.transport, state.fallback) = (Some(transport), fallback);
    }

    /// Why the video does not come by a better transport; empty when it does.
    pub fn fallback(&self) -> String {
        self.lock().fallback.clone()
    }

    /// What the pilot has to know about the server while it is so; logged when it is new.
    pub fn set_warning(&self, warning: Option<String>) {
        let mut state = self.lock();
        if let Some(text) = warning.as_ref().filter(|_| state.logged_warning != warning) {
            tracing::warn!("{text}");
            state.logged_warning = Some(text.clone());
        }
        state.warning = warning;
    }

    /// Another server is watched than before, or the same elsewhere.
    pub fn set_news(&self, news: String) {
        tracing::warn!("{news}");
        let mut state = self.lock();
        let until = (state.phase == Phase::Live).then(|| Instant::now() + NEWS_FOR);
        state.news = Some((news, until));
    }

    /// The server where the user named one is the same as before: what it said is true of it.
    pub fn set_same(&self) {
        let mut state = self.lock();
        if let Some(former) = state.held_back.take() {
            (state.server.name, state.streams, state.streams_at) = former;
            self.name_recordings(&state);
        }
        self.told.hold_back(false);
    }

    /// Another server is watched than before, at the same address: what the former one said is not true of it.
    pub fn set_other(&self, news: String) {
        self.set_news(news);
        let mut state = self.lock();
        state.server.name.clear();
        state.who = Who::default();
        state.followed += 1;
        state.forget_streams();
        self.told.forget();
        self.told.hold_back(false);
        if let Some(clock) = &state.clock {
            clock.forget();
        }
        self.tape.cut();
        // It is not known yet who that is.
        self.tape.set_vehicle(state.api());
        self.name_recordings(&state);
    }

    fn name_recordings(&self, state: &State) {
        let Server { id, name, address, stream, .. } = state.server.clone();
        let only = state.streams.first().filter(|_| state.streams.len() == 1);
        let listed = state.streams.iter().find(|listed| listed.name == stream).or(only);
        // Always with the camera and the stream, where they are known.
        let of = listed.map_or_else(|| stream.clone(), Listed::title);
        let is_named = !name.is_empty() && listed.is_some();
        let title = format!("{} {of}", if name.is_empty() { &address } else { &name }).trim().to_owned();
        self.tape.set_source(Source { id, address, stream, title, is_named });
    }

    /// What the pilot has to know beside the picture.
    pub fn notices(&self, now: Instant) -> Vec<String> {
        let state = self.lock();
        let is_new = |(_, until): &&(String, Option<Instant>)| until.is_none_or(|until| now < until);
        let news = state.news.as_ref().filter(is_new).map(|(text, _)| text);
        state.warning.iter().chain(news).cloned().collect()
    }

    /// A session connected.
    pub fn session_started(&self) {
        let mut state = self.lock();
        state.sessions += 1;
        if let Some(transport) = state.transport.filter(|_| !state.fallback.is_empty()) {
            tracing::warn!("{transport}, because {}", state.fallback);
        }
    }

    /// The decoder of a session that begins.
    pub fn set_decoder(&self, decoder: Arc<Decoder>) {
        let mut state = self.lock();
        if let Some(output) = &state.output {
            decoder.set_output(output.clone());
        }
        decoder.record_by(Arc::clone(&self.tape));
        state.decoder = Some(decoder);
    }

    pub fn set_reception(&self, reception: Reception) {
        self.lock().reception = reception;
    }

    /// The session is over: its counters become history.
    pub fn session_ended(&self) {
        let mut state = self.lock();
        let decoder = state.decoder.take();
        if let Some(decoder) = &decoder {
            let stats = decoder.stats();
            state.before = state.before.plus(&stats, state.transport);
            // One without packets has no pictures, and is kept for the next session.
            if stats.packets > 0 {
                decoder.silence();
            }
        }
        state.reception = Reception::default();
        state.warning = None;
        drop(state);
        // Not under the lock, which the window needs.
        drop(decoder);
    }

    /// The window wants its pictures in this form.
    pub fn set_output(&self, output: PictureForm) {
        let mut state = self.lock();
        if let Some(decoder) = &state.decoder {
            decoder.set_output(output.clone());
        }
        state.output = Some(output);
    }

    /// Fills in what is known here.
    pub fn report(&self, report: &mut Report) {
        let state = self.lock();
        let total = match &state.decoder {
            Some(decoder) => state.before.plus(&decoder.stats(), state.transport),
            None => state.before,
        };
        report.server_id = state.server.id.clone();
        report.server_name = state.server.name.clone();
        report.stream = state.server.stream.clone();
        report.server = state.server.address.clone();
        report.transport = state.transport.map(|transport| transport.name().to_owned()).unwrap_or_default();
        report.fallback_reason = (!state.fallback.is_empty()).then(|| state.fallback.clone());
        report.state = state.phase.name().to_owned();
        report.decoder = state.reception.decode.decoder.clone();
        report.frames_decoded = total.decoded;
        report.frames_skipped = total.skipped;
        report.frames_replaced = self.mailbox.replaced();
        report.packets = total.packets;
        report.packets_lost = total.lost;
        report.keyframe_requests = total.keyframe_requests;
        report.sessions = state.sessions;
        report.bitrate_kbps = state.reception.bitrate_kbps;
        report.rtt_ms = state.reception.rtt.map(crate::stats::ms);
    }

    /// Each update is a plain assignment, so what a panicking holder left is consistent.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The clock of [`Instant`] cannot be stored atomically; microseconds since a fixed start can.
#[derive(Debug)]
pub struct Clock(Instant);

impl Clock {
    pub fn start() -> Self {
        Self(Instant::now())
    }

    pub fn micros(&self, at: Instant) -> u64 {
        at.saturating_duration_since(self.0).as_micros() as u64
    }

    pub fn instant(&self, micros: u64) -> Instant {
        self.0 + Duration::from_micros(micros)
    }
}

/// Whether two texts differ by their numbers alone.
fn is_same_text(this: &str, that: &str) -> bool {
    let is_text = |letter: &char| !letter.is_ascii_digit();
    this.chars().filter(is_text).eq(that.chars().filter(is_text))
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::net::TcpListener;
    use std::sync::mpsc;

    use rov_common::api::{PictureDoubt, RingListing, StreamStats};
    use rov_common::codec::Codec;
    use rov_common::recording::Split;
    use url::Url;

    use super::*;
    use crate::clock::Doubts;
    use crate::recording::{Options, Taken};
    use crate::whep::Http;

    #[test]
    fn a_mark_stands_until_the_server_says_otherwise_and_says_how_old_it_is() {
        let viewer = Viewer::new();
        let stream = |frozen| StreamStats { frozen, reason: Some("no motion".to_owned()), ..StreamStats::default() };
        viewer.set_streams(vec![Listed::of(&stream(true))]);
        let (now, doubt) = (Instant::now(), |reason: &str| Doubt::Frozen(reason.to_owned()));
        assert_eq!(viewer.doubt(now), doubt("no motion"));
        assert_eq!(viewer.doubt(now + 2 * DOUBT_AGES), doubt("no motion; as the server said 20 s ago"));
        viewer.set_streams(vec![Listed::of(&stream(false))]);
        assert_eq!(viewer.doubt(now + 2 * DOUBT_AGES), Doubt::None);
    }

    #[test]
    fn a_mark_comes_and_goes_with_the_clock_which_is_asked_more_often() {
        let viewer = Viewer::new();
        let clock = viewer.clocks.of(&"http://10.0.0.2:8080/api/stats".parse().expect("a URL"));
        let clock = clock.expect("a clock");
        viewer.set_clock(Some(clock.clone()));
        let stream = |frozen| Listed::of(&StreamStats { name: "stream1".to_owned(), frozen, ..StreamStats::default() });
        viewer.set_streams(vec![stream(false)]);
        let (told_at, ms) = (Instant::now(), Duration::from_millis);
        let is_marked = |after| viewer.doubt(told_at + after) != Doubt::None;
        let says = |streams: &[&str], after| {
            let frozen = PictureDoubt { frozen: true, ..PictureDoubt::default() };
            let of = streams.iter().map(|stream| ((*stream).to_owned(), frozen.clone())).collect();
            clock.hear(Some(Doubts { of, first: "stream1".to_owned() }), told_at + after);
        };
        says(&["stream1"], ms(10));
        assert!(is_marked(ms(20)));
        assert!(matches!(viewer.doubt(told_at + 2 * DOUBT_AGES), Doubt::Frozen(reason) if reason.contains("19 s ago")));
        says(&["stream2"], ms(1_000));
        assert!(!is_marked(ms(1_000)), "of another stream");
        // What is older than the statistics says nothing, nor does a server that does not say it here.
        viewer.set_streams(vec![stream(true)]);
        clock.hear(Some(Doubts::default()), told_at - ms(1));
        assert!(is_marked(ms(1_000)));
        clock.hear(None, told_at + ms(3_000));
        assert!(is_marked(ms(3_000)));
        // Nor is it true of the next server at the address.
        says(&["stream1"], told_at.elapsed());
        viewer.set_other("Dory answers in the place of Nemo".to_owned());
        assert!(!is_marked(ms(20)));
    }

    /// As where the statistics are refused.
    #[test]
    fn who_names_no_stream_watches_the_first_one_and_its_mark_is_told_without_the_statistics() {
        let viewer = Viewer::new();
        let clock = viewer.clocks.of(&"http://10.0.0.2:8080/api/stats".parse().expect("a URL")).expect("a clock");
        viewer.set_clock(Some(clock.clone()));
        let frozen = PictureDoubt { frozen: true, ..PictureDoubt::default() };
        for (first, is_marked) in [("stream1", true), ("stream2", false), ("", false)] {
            let of = [("stream1".to_owned(), frozen.clone())].into();
            clock.hear(Some(Doubts { of, first: first.to_owned() }), Instant::now());
            assert_eq!(viewer.doubt(Instant::now()) != Doubt::None, is_marked, "{first}");
        }
    }

    #[test]
    fn another_server_is_not_called_by_the_cameras_of_the_one_before() {
        let viewer = Viewer::new();
        let server = |name: &str, stream: &str| Server {
            id: "7".to_owned(),
            name: name.to_owned(),
            address: "10.0.0.2:8080".to_owned(),
            stream: stream.to_owned(),
            ..Server::default()
        };
        let listed = |name: &str, camera: &str| {
            Listed::of(&StreamStats { name: name.to_owned(), camera: camera.to_owned(), ..StreamStats::default() })
        };
        viewer.set_server(server("Nemo", "stream1"));
        viewer.set_streams(vec![listed("stream1", "bow"), listed("arm/stream1", "arm")]);
        let stats = "http://10.0.0.2:8080/api/stats".parse().expect("a URL");
        viewer.set_api(Some(Api::new(stats, Http::default())));
        viewer.set_server(server("Nemo", "stream1"));
        assert_eq!(viewer.called(), "Nemo bow/stream1");
        assert!(viewer.api().is_some());
        viewer.set_server(server("Dory", "stream1"));
        assert_eq!(viewer.called(), "Dory stream1");
        assert!(viewer.streams().is_empty());
        assert!(viewer.api().is_none(), "no clip of Nemo is called Dory's");
    }

    #[test]
    fn a_server_that_the_user_named_is_the_same_after_an_outage_until_another_one_is_known() {
        let viewer = Viewer::new();
        let named = |address: &str| Server { address: address.to_owned(), ..Server::default() };
        viewer.set_server(named("10.0.0.2:8080"));
        let stats = "http://10.0.0.2:8080/api/stats".parse().expect("a URL");
        viewer.set_clock(viewer.clocks.of(&stats));
        viewer.set_api(Some(Api::new(stats, Http::default())));
        viewer.set_name("Nemo".to_owned());
        viewer.set_who(Who { id: "nemo".to_owned(), key: None });
        let id = || viewer.api().map(|api| api.who.id);
        let followed = viewer.followed();
        viewer.set_server(named("10.0.0.2:8080"));
        assert_eq!((viewer.followed(), id().as_deref()), (followed, Some("nemo")));
        // A session is tried: what is asked for then is of a moment by the clock of the one before.
        viewer.set_clock(None);
        assert!(viewer.clock().is_none() && viewer.api_clock().is_some());
        viewer.set_other("Dory answers in the place of Nemo".to_owned());
        assert_eq!((viewer.followed(), id().as_deref()), (followed + 1, Some("")));
        viewer.set_server(named("10.0.0.3:8080"));
        assert_eq!((viewer.followed(), id()), (followed + 2, None));
        assert!(viewer.api_clock().is_none());
    }

    /// A viewer of one that the user named, which says that its picture is frozen, and its depth.
    fn marked(server: Server) -> Arc<Viewer> {
        let viewer = Viewer::new();
        viewer.set_server(server);
        viewer.set_name("Nemo".to_owned());
        viewer.set_streams(vec![Listed::of(&StreamStats { frozen: true, ..StreamStats::default() })]);
        let depth = r#"{"fields":{"depth":{"value":3.5,"text":"3.5 m","age_ms":100}},"times":{}}"#;
        viewer.told.tell(depth, Instant::now());
        viewer
    }

    fn is_told(viewer: &Viewer) -> (String, bool, bool) {
        let now = Instant::now();
        let is_deep = viewer.told.position(now).depth.is_some() && !viewer.told.fields(now).is_empty();
        (viewer.server().name, viewer.doubt(now) != Doubt::None, is_deep)
    }

    #[test]
    fn what_the_server_said_that_the_user_named_counts_again_when_it_is_known_to_be_the_same() {
        let named = Server { address: "10.0.0.2:8080".to_owned(), ..Server::default() };
        let viewer = marked(named.clone());
        assert_eq!(is_told(&viewer), ("Nemo".to_owned(), true, true));
        // Several attempts.
        viewer.set_server(named.clone());
        viewer.set_server(named.clone());
        assert_eq!(is_told(&viewer), (String::new(), false, false), "it may be another one");
        viewer.set_same();
        assert_eq!(is_told(&viewer), ("Nemo".to_owned(), true, true));
        viewer.set_server(named);
        viewer.set_other("Dory answers in the place of Nemo".to_owned());
        viewer.set_same();
        assert_eq!(is_told(&viewer), (String::new(), false, false));
    }

    #[test]
    fn what_a_server_said_that_was_found_counts_until_another_one_is_found() {
        let nemo = || Server { id: "7".to_owned(), name: "Nemo".to_owned(), ..Server::default() };
        let viewer = marked(nemo());
        viewer.set_server(nemo());
        assert_eq!(is_told(&viewer), ("Nemo".to_owned(), true, true));
        // As a card that was copied.
        viewer.set_server(Server { key: Some("b".to_owned()), ..nemo() });
        assert_eq!(is_told(&viewer), ("Nemo".to_owned(), false, false));
    }

    #[test]
    fn a_stream_whose_server_is_not_known_yet_takes_nothing_from_the_others_of_it() {
        let named = Server { address: "10.0.0.2:8080".to_owned(), ..Server::default() };
        let viewer = marked(named.clone());
        let told = viewer.told.clone();
        let other = Viewer::with(Arc::default(), Arc::default(), told, Clocks::default(), Arc::default());
        viewer.set_server(named);
        let now = Instant::now();
        assert!(viewer.told.fields(now).is_empty() && !other.told.fields(now).is_empty());
    }

    /// Lists 60 pictures of which the first 59 are known but one, and says with these lines who it is. Gives what was asked.
    fn ring_of(who: &'static str) -> (Url, mpsc::Receiver<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}/api/stats", listener.local_addr().expect("bound")).parse().expect("a URL");
        let (tell, asked) = mpsc::channel();
        std::thread::spawn(move || {
            let pictures_us: Vec<_> = (0..60).map(|number| captured(number).micros()).collect();
            let (kept_from_us, until_us) = (Some(pictures_us[0]), pictures_us[59]);
            let listing = RingListing { run: 1, kept_from_us, until_us, pictures_us };
            let body = serde_json::to_string(&listing).expect("JSON");
            for mut client in listener.incoming().flatten() {
                let mut request = String::new();
                let mut lines = BufReader::new(&client);
                while lines.read_line(&mut request).is_ok_and(|length| length > 2) {}
                // Before it can be over.
                let _ = tell.send(request);
                let head = format!("HTTP/1.1 200 OK\r\n{who}Connection: close");
                let _ = write!(client, "{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
            }
        });
        (url, asked)
    }

    fn captured(number: u32) -> Captured {
        Captured(Duration::from_secs(1_700_000_000) + Duration::from_millis(33) * number)
    }

    /// Records them as H.264.
    fn take(tape: &Tape, numbers: impl Iterator<Item = u32>) {
        // High profile, 1280x720.
        const SETS: [u8; 41] = [
            0, 0, 0, 1, 103, 100, 0, 31, 172, 217, 128, 80, 5, 187, 1, 106, 2, 2, 2, 128, 0, 0, 3, 0, 128, 0, 0, 30, 7,
            140, 24, 205, 0, 0, 0, 1, 104, 233, 123, 44, 139,
        ];
        let start = Instant::now();
        for number in numbers {
            let (keyframe, resumes) = (number == 0, number == 0);
            let slice = [0, 0, 0, 1, if keyframe { 0x65 } else { 0x41 }, number as u8];
            let unit = if keyframe { [&SETS[..], &slice].concat() } else { slice.to_vec() };
            let (codec, rtp_timestamp, captured) = (Codec::H264, number * 2_970, Some(captured(number)));
            let taken = Taken { codec, unit: &unit, keyframe, rtp_timestamp, captured, resumes };
            tape.take(taken, start + Duration::from_millis(33) * number);
        }
    }

    fn recording(folder: &tempfile::TempDir) -> (Arc<Recording>, Arc<Viewer>) {
        let path = folder.path().to_owned();
        let options = Options { folder: path, is_on: true, split: Split::default(), keep: None, spare: 0 };
        let recording = Recording::new(Some(options));
        let (told, clocks) = (Told::default(), Clocks::default());
        let viewer = Viewer::with(Arc::default(), Arc::default(), told, clocks, Arc::clone(&recording));
        (recording, viewer)
    }

    #[test]
    fn a_copy_of_a_card_with_a_key_of_its_own_has_files_of_its_own() {
        let nemo = || Server { id: "7".to_owned(), key: Some("a".to_owned()), ..Server::default() };
        for (next, files) in [(nemo(), 1), (Server { key: Some("b".to_owned()), ..nemo() }, 2)] {
            let folder = tempfile::TempDir::new().expect("a folder");
            let (recording, viewer) = recording(&folder);
            for server in [nemo(), next] {
                viewer.set_server(Server { name: "Nemo".to_owned(), ..server });
                viewer.set_streams(vec![Listed::of(&StreamStats::default())]);
                take(&viewer.tape, 0..30);
            }
            recording.finish();
            assert_eq!(recording.report().expect("pictures").files.len(), files);
        }
    }

    /// As where another vehicle is plugged in at the address that the user named, before and after its statistics came.
    #[test]
    fn what_a_recording_misses_is_fetched_from_its_own_vehicle_alone() {
        let nemo = "X-Server-Id: nemo\r\nX-Server-Key: a\r\n";
        let copy = "X-Server-Id: nemo\r\nX-Server-Key: b\r\n";
        let dory = "X-Server-Id: dory\r\nX-Server-Key: b\r\n";
        for (known, answers, is_fetched) in
            [("nemo", dory, false), ("", dory, false), ("nemo", copy, false), ("nemo", nemo, true)]
        {
            let folder = tempfile::TempDir::new().expect("a folder");
            let (recording, viewer) = recording(&folder);
            viewer.set_server(Server { address: "10.0.0.2:8080".to_owned(), ..Server::default() });
            let (stats, asked) = ring_of(answers);
            viewer.set_api(Some(Api::new(stats.clone(), Http::default())));
            viewer.set_name("Nemo".to_owned());
            viewer.set_streams(vec![Listed::of(&StreamStats { name: "stream1".to_owned(), ..StreamStats::default() })]);
            if !known.is_empty() {
                viewer.set_who(Who { id: known.to_owned(), key: Some("a".to_owned()) });
            }
            take(&viewer.tape, (0..60).filter(|number| *number != 30));
            let begun = Instant::now();
            while recording.report().expect("it is on").writing.is_empty() {
                assert!(begun.elapsed() < Duration::from_secs(60), "nothing is written");
                std::thread::sleep(Duration::from_millis(5));
            }
            // The next session begins.
            viewer.set_api(Some(Api::new(stats, Http::default())));
            viewer.set_other("Dory answers in the place of Nemo".to_owned());
            recording.finish();
            let asked: Vec<_> = asked.try_iter().collect();
            assert!(asked.iter().any(|request| request.starts_with("GET /api/ring?")), "{asked:?}");
            let has_fetched = asked.iter().any(|request| request.starts_with("GET /api/ring/pictures?"));
            assert_eq!(has_fetched, is_fetched, "{known} {answers}: {asked:?}");
        }
    }

    #[test]
    fn a_reason_that_only_counts_on_is_the_same() {
        assert!(is_same_text("waiting for its next keyframe, for 9 s", "waiting for its next keyframe, for 10 s"));
        assert!(!is_same_text("waiting for 9 s", "restarting for 9 s"));
    }

    #[test]
    fn a_notice_stands_as_long_as_it_is_so_and_news_for_a_while_after_pictures_have_come() {
        let viewer = Viewer::new();
        let at = |viewer: &Viewer, after: Duration| viewer.notices(Instant::now() + after);
        viewer.set_news("Dory answers in the place of Nemo".to_owned());
        // However long it takes to connect.
        assert_eq!(at(&viewer, 10 * NEWS_FOR), ["Dory answers in the place of Nemo"]);
        viewer.set_phase(Phase::Live);
        viewer.set_warning(Some("a twin".to_owned()));
        assert_eq!(at(&viewer, Duration::ZERO), ["a twin", "Dory answers in the place of Nemo"]);
        viewer.set_phase(Phase::Waiting(String::new()));
        viewer.set_phase(Phase::Live);
        assert_eq!(at(&viewer, NEWS_FOR), ["a twin"]);
        viewer.set_warning(None);
        assert!(at(&viewer, NEWS_FOR).is_empty());
    }
}
