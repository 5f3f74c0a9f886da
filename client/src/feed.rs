//! A stream that is watched, and where its pictures go: the large picture, and each tile of the grid.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rov_common::capture_clock::Captured;
use rov_common::clock_sync::Age;
use rov_common::exif::{About, Position};
use rov_common::sync::lock;
use tokio_util::sync::CancellationToken;

use crate::clock::{ServerClock, Unknown};
use crate::decode::{Picture, read_stamp};
use crate::display::{Status, ViewModel};
use crate::find;
use crate::late::{Change, LateAlarm, Warning};
use crate::overlay::OverlayData;
use crate::snapshot::Snapshot;
use crate::stats::{Passage, Report, Shown, TileReport, ms};
use crate::viewer::{Phase, Viewer};
use crate::whep::Api;

/// Between two lines of the log that pictures are late.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// Of a picture that is older when it is shown the place is not known: telemetry is that of the moment.
const POSITION_LIMIT: Duration = Duration::from_secs(1);

/// Its session, its decoder and its newest picture are the viewer's.
pub struct Feed {
    /// Tells it from others.
    pub id: u64,
    /// The name by which it was chosen; none: as the command line says.
    stream: Option<String>,
    pub viewer: Arc<Viewer>,
    seen: Mutex<Seen>,
    /// Ends its session.
    stop: CancellationToken,
}

/// What was shown of it.
struct Seen {
    shown: Shown,
    /// When the newest picture left its decoder. One that is shown after its session may be another vehicle's.
    decoded: Option<Instant>,
    /// Of the newest that was taken.
    taken: Option<Taken>,
    /// The session of the newest picture.
    session: u64,
    alarm: Option<LateAlarm>,
    /// When the log said last that pictures are late.
    logged: Option<Instant>,
}

/// What is to be said of a picture where it is kept, and who is asked for a clip of it, as of when it was taken.
#[derive(Clone)]
struct Taken {
    /// When it left its decoder, which tells it from others.
    decoded: Instant,
    about: About,
    api: Option<Api>,
    /// Which of the servers it is of, and its clock.
    followed: u64,
    clock: Option<ServerClock>,
    /// When it came, by the system's clock, which goes on while this machine sleeps.
    arrived: Captured,
}

/// By the system's clock.
fn utc() -> Captured {
    Captured(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}

fn arrived(picture: &Picture, now: Instant) -> Captured {
    Captured(utc().0.saturating_sub(now.saturating_duration_since(picture.first_packet_at)))
}

impl Feed {
    /// Without a session yet, which ends with `stop`. Pictures older than `max_age` are warned of.
    pub fn new(
        id: u64,
        stream: Option<String>,
        viewer: Arc<Viewer>,
        stop: CancellationToken,
        max_age: Option<Duration>,
    ) -> Self {
        let (shown, alarm) = (Shown::new(Instant::now()), max_age.map(LateAlarm::new));
        let seen = Mutex::new(Seen { shown, decoded: None, taken: None, session: 0, alarm, logged: None });
        Self { id, stream, viewer, seen, stop }
    }

    /// Cancelled when it is closed.
    pub fn stop(&self) -> &CancellationToken {
        &self.stop
    }

    /// Ends its session, and the file that it is recorded into: the server's encoder may rest.
    pub fn close(&self) {
        self.viewer.tape.close();
        self.stop.cancel();
    }

    /// The name of the stream; empty: not known.
    pub fn stream(&self) -> String {
        self.stream.clone().unwrap_or_else(|| self.viewer.server().stream)
    }

    /// Pictures of it were on the screen a moment ago.
    pub fn is_live(&self, now: Instant, limit: Duration) -> bool {
        let last = lock(&self.seen).shown.last_shown();
        last.is_some_and(|at| now.saturating_duration_since(at) < limit)
    }

    /// Takes the `next` picture, which is about to be shown, with what is to be said of it: another server may follow,
    /// and this one's picture stay. None where its session ends at that very moment.
    pub fn take(&self, next: impl FnOnce() -> Option<Picture>) -> Option<Picture> {
        let (viewer, now) = (&self.viewer, Instant::now());
        let sessions = viewer.mailbox.cleared();
        let picture = next()?;
        let (api, followed, decoded) = (viewer.api(), viewer.followed(), picture.decoded_at);
        let (clock, arrived) = (viewer.clock(), arrived(&picture, now));
        let (mut about, age) = (viewer.about(picture.captured, now), viewer.age(picture.captured, now).ok());
        if age.is_some_and(|age| age.age > POSITION_LIMIT) {
            about.position = Position::default();
        }
        // It is cleared at the end of a session, before another server is known.
        if viewer.mailbox.cleared() != sessions {
            return None;
        }
        let mut seen = lock(&self.seen);
        let before = seen.taken.replace(Taken { decoded, about, api, followed, clock, arrived });
        seen.decoded = Some(decoded);
        if before.is_some_and(|before| before.followed != followed)
            && let Some(alarm) = &mut seen.alarm
        {
            alarm.forget();
        }
        let change = seen.alarm.as_mut().and_then(|alarm| alarm.taken(age, now));
        self.log(change, &mut seen, now);
        Some(picture)
    }

    /// How old the pictures are that are shown, while they are older than they may be, or that this is not known.
    pub fn late(&self, now: Instant) -> Option<Warning> {
        let mut seen = lock(&self.seen);
        let alarm = seen.alarm.as_mut()?;
        let change = alarm.look(now);
        let warning = alarm.warning(now);
        self.log(change, &mut seen, now);
        warning
    }

    /// What comes and goes on a bad link is said now and then.
    fn log(&self, change: Option<Change>, seen: &mut Seen, now: Instant) {
        let Some(change) = change else { return };
        let is_news = seen.logged.is_none_or(|at| now.saturating_duration_since(at) >= LOG_INTERVAL);
        match change {
            Change::Raised(Age { age, bound }) if is_news => {
                seen.logged = Some(now);
                let (name, age, bound) = (self.viewer.called(), age.as_millis(), ms(bound));
                tracing::warn!("{name}: the picture is {age} ms old (\u{b1}{bound:.1} ms): over --max-age");
            }
            Change::Raised(_) => {}
            Change::Unknown { lasted, oldest } => {
                let (name, lasted, oldest) = (self.viewer.called(), lasted.as_secs_f64(), oldest.age.as_millis());
                tracing::warn!(
                    "{name}: how old the picture is is not known any more, after {lasted:.1} s with up to {oldest} ms"
                );
            }
            Change::Blind(age) => {
                let why = age.map_or_else(
                    |unknown| unknown.to_string(),
                    |age| format!("the server's clock is known to \u{b1}{:.0} ms only", ms(age.bound)),
                );
                tracing::warn!("{}: how old the picture is is not known any more: {why}", self.viewer.called());
            }
            Change::Sees(lasted) => {
                let (name, lasted) = (self.viewer.called(), lasted.as_secs_f64());
                tracing::info!("{name}: how old the picture is is known again, after {lasted:.1} s");
            }
            Change::Ended { lasted, oldest } => {
                let (name, lasted) = (self.viewer.called(), lasted.as_secs_f64());
                let text = format!(
                    "{name}: in time again after {lasted:.1} s; it was up to {} ms old",
                    oldest.age.as_millis()
                );
                if is_news || lasted >= 1.0 {
                    tracing::info!("{text}");
                } else {
                    tracing::debug!("{text}");
                }
            }
        }
    }

    /// A picture of it is on the screen. `all` counts what the pilot sees, whichever stream it is.
    pub fn shown(&self, picture: &Picture, at: Instant, all: Option<&mut Shown>) {
        let passage = Passage {
            captured: picture.captured,
            age: self.viewer.age(picture.captured, at),
            first_packet_at: picture.first_packet_at,
            last_packet_at: picture.last_packet_at,
            decoded_at: picture.decoded_at,
            converted_at: picture.converted_at,
            shown_at: at,
        };
        let unix_us = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_micros() as u64);
        let mut seen = lock(&self.seen);
        let session = self.viewer.sessions();
        let is_new = std::mem::replace(&mut seen.session, session) != session;
        if let Some(all) = all {
            if is_new {
                all.new_session();
            }
            all.add(passage, picture.source, read_stamp(picture).map(|stamp| (stamp, unix_us)));
        }
        seen.shown.add(passage, picture.source, None);
        let change = seen.alarm.as_mut().and_then(|alarm| alarm.shown(passage.age, at));
        self.log(change, &mut seen, at);
    }

    fn known(&self, picture: &Picture) -> Option<Taken> {
        lock(&self.seen).taken.clone().filter(|taken| taken.decoded == picture.decoded_at)
    }

    /// Who is asked for a clip of this picture, and has this clock; and whether its server is the one that is watched
    /// now.
    pub fn origin(&self, picture: &Picture) -> (Option<Api>, Option<ServerClock>, bool) {
        match self.known(picture) {
            Some(Taken { api, clock, followed, .. }) if followed != self.viewer.followed() => (api, clock, false),
            _ => (self.viewer.api(), self.viewer.api_clock(), true),
        }
    }

    /// Its picture as it is to be kept; none where it is gone.
    pub fn snapshot(&self, picture: &Picture, is_moving: bool, now: Instant) -> Option<Snapshot> {
        let kept = picture.to_keep()?;
        let known = self.known(picture);
        let arrived = known.as_ref().map_or_else(|| arrived(picture, now), |taken| taken.arrived);
        let age = match &known {
            Some(Taken { clock, followed, .. }) if *followed != self.viewer.followed() => {
                clock.as_ref().ok_or(Unknown::NoClock).and_then(|clock| clock.age(picture.captured, now))
            }
            _ => self.viewer.age(picture.captured, now),
        };
        let mut about = known.map_or_else(|| self.viewer.about(picture.captured, now), |taken| taken.about);
        about.taken = picture.captured.unwrap_or(arrived);
        if picture.captured.is_none() {
            let text = "The time is that of the picture's arrival at the viewer, by its clock: when it was captured is \
                        not known.";
            about.remarks.push(text.to_owned());
        }
        let late = self.late(now);
        if is_moving && late == Some(Warning::Unknown) {
            about.remarks.push("How old the picture was when it was saved is not known.".to_owned());
        } else if !is_moving || late.is_some() {
            let what = if is_moving { "late" } else { "no live one any more" };
            let (age, since) = match age {
                Ok(age) => (age.age, "its capture"),
                Err(_) => (utc().0.saturating_sub(arrived.0), "its arrival"),
            };
            about
                .remarks
                .push(format!("The picture was {what} when it was saved, {:.1} s after {since}.", age.as_secs_f64()));
        }
        if !kept.is_whole {
            let (size, source) = (kept.size, picture.source);
            about.remarks.push(format!("It is scaled to {size} from {source}: this decoder keeps no pictures."));
        }
        Some(Snapshot { picture: kept, about })
    }

    /// What is to be said of a moment without a picture of it.
    pub fn nothing(&self, now: Instant) -> About {
        About { taken: utc(), ..self.viewer.about(None, now) }
    }

    pub fn report(&self, now: Instant) -> TileReport {
        let mut report = Report::default();
        self.viewer.report(&mut report);
        lock(&self.seen).shown.report(now, &mut report);
        let Report { state, width, height, frames_shown, fps, captured, age_ms, age_unknown, .. } = report;
        TileReport { stream: self.stream(), state, width, height, frames_shown, fps, captured, age_ms, age_unknown }
    }

    /// What the window says beside the video.
    pub fn view(&self, now: Instant) -> ViewModel {
        let viewer = &self.viewer;
        let (server, reception) = (viewer.server(), viewer.reception());
        let seen = lock(&self.seen);
        let shown = &seen.shown;
        let live = shown.resolution().is_some();
        let notices = viewer.notices(now);
        let others = [viewer.fallback(), reception.note].into_iter().filter(|note| !note.is_empty());
        let overlay = OverlayData {
            server: viewer.called(),
            address: server.address,
            resolution: shown.resolution(),
            fps: live.then(|| shown.fps(now)),
            bitrate_kbps: live.then_some(reception.bitrate_kbps),
            loss: live.then_some(reception.loss),
            rtt_ms: reception.rtt.map(ms),
            decoder: reception.decode.decoder,
            display: String::new(),
            transport: reception.transport,
            notes: notices.iter().cloned().chain(others).collect(),
            latency: stages(shown, now, reception.encode, reception.rtt),
            age: shown.age(now),
            ages: shown.ages(),
        };
        let (phase, since) = viewer.phase_since();
        let status = status(phase, since, seen.decoded);
        let (written, question) = (viewer.written(now), viewer.choice.question());
        ViewModel {
            status,
            overlay,
            doubt: viewer.doubt(now),
            written,
            notices,
            remark: "",
            recording: viewer.tape.told(now),
            said: None,
            question,
        }
    }
}

/// From capture to the screen, as far as it can be known: what the camera takes to expose and hand over its picture,
/// and what the screen takes to light up, are not in it.
fn stages(shown: &Shown, now: Instant, encode: Option<Duration>, rtt: Option<Duration>) -> Vec<(String, f64)> {
    let here = shown.recent(now);
    if here.is_empty() {
        return here;
    }
    let server = encode.map(|time| ("encode".to_owned(), ms(time)));
    let network = rtt.map(|time| ("network".to_owned(), ms(time) / 2.0));
    server.into_iter().chain(network).chain(here).collect()
}

/// What the window says. Once there was a picture, whatever is not live is a loss: the old picture must not look live.
/// A picture that was decoded since the session began to connect or to wait is a new one: the phase just does not know
/// it yet.
fn status(phase: Phase, since: Instant, last: Option<Instant>) -> Status {
    let (had_picture, is_new) = (last.is_some(), last.is_some_and(|at| at > since));
    match phase {
        Phase::Live => Status::Live,
        Phase::Connecting(_) | Phase::Waiting(_) if is_new => Status::Live,
        Phase::Waiting(reason) => Status::Lost { reason },
        Phase::Lost(reason) => Status::Lost { reason: format!("{reason}; reconnecting") },
        Phase::Searching(text) if had_picture => Status::Lost { reason: text },
        Phase::Searching(text) if text == find::LOOKING => Status::default(),
        Phase::Searching(text) => Status::Connecting { what: format!("Looking for a server…\n{text}") },
        Phase::Connecting(server) if had_picture => Status::Lost { reason: format!("connecting to {server}…") },
        Phase::Connecting(server) => Status::Connecting { what: format!("Connecting to {server}…") },
    }
}

#[cfg(test)]
mod tests {
    use rov_common::api::StreamStats;
    use rov_common::units::Resolution;

    use super::*;
    use crate::streams::Listed;
    use crate::viewer::Server;
    use crate::whep::Http;

    #[test]
    fn title_and_corner_name_the_stream_of_a_server_that_has_several() {
        let listed = |name: &str, camera: &str| {
            let (name, camera) = (name.to_owned(), camera.to_owned());
            Listed::of(&StreamStats { name, camera, ..StreamStats::default() })
        };
        let of_one = [listed("stream1", "bow"), listed("stream2", "bow")];
        let of_two = [listed("stream1", "bow"), listed("stream2", "bow"), listed("arm/stream1", "arm")];
        let called_where = |streams: &[Listed], name: &str, stream: &str| {
            let viewer = Viewer::new();
            let (name, address) = (name.to_owned(), "10.0.0.2:8080".to_owned());
            viewer.set_server(Server { name, address, ..Default::default() });
            viewer.set_streams(streams.to_vec());
            viewer.set_stream(stream.to_owned());
            Feed::new(0, None, viewer, CancellationToken::new(), None).view(Instant::now()).overlay.server
        };
        let called = |name: &str, stream: &str| called_where(&[], name, stream);
        assert_eq!(called_where(&of_one, "Nemo", "stream2"), "Nemo stream2");
        assert_eq!(called_where(&of_two, "Nemo", "stream2"), "Nemo bow/stream2");
        assert_eq!(called_where(&of_two, "Nemo", "arm/stream1"), "Nemo arm/stream1");
        assert_eq!(called("Nemo", "arm/stream1"), "Nemo arm/stream1");
        assert_eq!(called("Nemo", ""), "Nemo");
        assert_eq!(called("", "stream2"), "10.0.0.2:8080 stream2");
    }

    #[test]
    fn after_the_first_picture_whatever_is_not_live_is_a_loss() {
        let shown = Instant::now();
        let since = shown + Duration::from_millis(1);
        let phases = [
            Phase::Searching("looking".to_owned()),
            Phase::Connecting("rov".to_owned()),
            Phase::Waiting("no camera".to_owned()),
            Phase::Lost("gone".to_owned()),
        ];
        for phase in phases {
            let status = status(phase.clone(), since, Some(shown));
            assert!(matches!(status, Status::Lost { .. }), "{phase:?}: {status:?}");
        }
        assert_eq!(status(Phase::Live, since, Some(shown)), Status::Live);
    }

    #[test]
    fn the_first_pictures_of_a_session_are_live_before_the_phase_says_so() {
        let since = Instant::now();
        let shown = Some(since + Duration::from_millis(1));
        assert_eq!(status(Phase::Connecting("rov".to_owned()), since, shown), Status::Live);
        assert_eq!(status(Phase::Waiting("no camera".to_owned()), since, shown), Status::Live);
        assert!(matches!(status(Phase::Lost("gone".to_owned()), since, shown), Status::Lost { .. }));
    }

    #[test]
    fn a_picture_of_the_session_before_is_not_live_however_late_it_is_shown() {
        let feed = Feed::new(0, None, Viewer::new(), CancellationToken::new(), None);
        let picture = || Picture::from_pixels(Resolution::new(1, 1), vec![0], Instant::now()).expect("a picture");
        let old = picture();
        feed.viewer.set_phase(Phase::Connecting("Dory".to_owned()));
        let shown_as = |picture: Picture| {
            let picture = feed.take(|| Some(picture)).expect("of this session");
            feed.shown(&picture, Instant::now(), None);
            feed.view(Instant::now()).status
        };
        let status = shown_as(old);
        assert!(matches!(&status, Status::Lost { reason } if reason.contains("Dory")), "{status:?}");
        assert_eq!(shown_as(picture()), Status::Live);
    }

    #[test]
    fn a_snapshot_names_whom_its_picture_is_of_whatever_follows() {
        gstreamer::init().expect("GStreamer");
        let feed = Feed::new(0, None, Viewer::new(), CancellationToken::new(), None);
        let picture = || Picture::from_pixels(Resolution::new(2, 2), vec![0; 4], Instant::now()).expect("a picture");
        let follow = |name: &str| feed.viewer.set_server(Server { name: name.to_owned(), ..Default::default() });
        let named = |picture: &Picture| feed.snapshot(picture, true, Instant::now()).expect("kept").about.vehicle;
        follow("Nemo");
        let api = |host: &str| {
            let stats = format!("http://{host}:8080/api/stats").parse().expect("a URL");
            feed.viewer.set_api(Some(Api::new(stats, Http::default())));
        };
        let origin = |picture: &Picture| {
            let (api, _, is_watched) = feed.origin(picture);
            (api.and_then(|api| api.stats.host_str().map(str::to_owned)), is_watched)
        };
        api("nemo");
        let old = feed.take(|| Some(picture())).expect("of this session");
        assert_eq!(origin(&old), (Some("nemo".to_owned()), true));
        follow("Dory");
        api("dory");
        assert_eq!(origin(&old), (Some("nemo".to_owned()), false), "its clip is not Dory's");
        // It waited to be drawn together with others.
        assert_eq!(named(&old), "Nemo");
        feed.shown(&old, Instant::now(), None);
        assert_eq!(named(&old), "Nemo");
        let new = feed.take(|| Some(picture())).expect("of this session");
        assert_eq!(named(&new), "Dory");
        assert_eq!(origin(&new), (Some("dory".to_owned()), true));
        feed.viewer.set_other("another one answers there".to_owned());
        assert_eq!(origin(&new), (Some("dory".to_owned()), false), "at the same address");
        // Nobody knows whose one is that is taken while its session ends.
        assert!(feed.take(|| Some((picture(), feed.viewer.mailbox.clear()).0)).is_none());
    }

    #[test]
    fn the_picture_of_the_vehicle_before_is_aged_by_its_clock_and_came_when_it_came() {
        gstreamer::init().expect("GStreamer");
        let feed = Feed::new(0, None, Viewer::new(), CancellationToken::new(), None);
        let (now, second) = (Instant::now(), Duration::from_secs(1));
        let follow = |name: &str, ahead: u64| {
            feed.viewer.set_server(Server { name: name.to_owned(), ..Default::default() });
            let url = format!("http://{name}:8080/api/stats").parse().expect("a URL");
            let clock = feed.viewer.clocks.of(&url).expect("a clock");
            clock.set(Captured(Duration::from_secs(ahead)), now);
            feed.viewer.set_clock(Some(clock));
        };
        let picture = |captured| {
            let mut picture = Picture::from_pixels(Resolution::new(2, 2), vec![0; 4], now).expect("a picture");
            picture.captured = captured;
            feed.take(|| Some(picture)).expect("of this session")
        };
        follow("nemo", 5_000);
        let old = picture(Some(Captured(Duration::from_secs(5_000))));
        follow("dory", 9_000);
        let remarks = feed.snapshot(&old, false, now + 2 * second).expect("kept").about.remarks;
        assert!(remarks.iter().any(|remark| remark.ends_with("2.0 s after its capture.")), "{remarks:?}");

        // The clock of this process stood still, or went on, meanwhile.
        let uncaptured = picture(None);
        let came = feed.snapshot(&uncaptured, false, now + 3_600 * second).expect("kept").about.taken;
        assert!(utc().0.saturating_sub(came.0) < 1_800 * second, "{came:?}");
    }

    #[test]
    fn pictures_of_another_vehicle_are_warned_of_anew() {
        let feed = Feed::new(0, None, Viewer::new(), CancellationToken::new(), Some(Duration::from_millis(300)));
        // Nothing is captured later than now.
        let begun = Instant::now().checked_sub(Duration::from_secs(10)).expect("a machine that has run");
        let follow = |name: &str| feed.viewer.set_server(Server { name: name.to_owned(), ..Default::default() });
        let show = |after: u64| {
            let at = begun + Duration::from_millis(after);
            let mut picture = Picture::from_pixels(Resolution::new(1, 1), vec![0], at).expect("a picture");
            picture.captured = Some(Captured(Duration::from_millis(1_000 + after)));
            let picture = feed.take(|| Some(picture)).expect("of this session");
            feed.shown(&picture, at + Duration::from_millis(900), None);
            feed.late(at + Duration::from_millis(900)).is_some()
        };
        follow("nemo");
        let url = "http://nemo:8080/api/stats".parse().expect("a URL");
        let clock = feed.viewer.clocks.of(&url).expect("a clock");
        clock.set(Captured(Duration::from_secs(1)), begun);
        feed.viewer.set_clock(Some(clock));
        assert!((0..10).any(|n| show(33 * n)));
        follow("dory");
        feed.viewer.set_clock(None);
        assert!(!show(400));
    }

    #[test]
    fn before_the_first_picture_it_says_what_it_is_doing() {
        let status = |phase| status(phase, Instant::now(), None);
        let searching = status(Phase::Searching("on eth0".to_owned()));
        assert!(matches!(&searching, Status::Connecting { what } if what.contains("eth0")), "{searching:?}");
        let begun = status(Phase::Searching(find::LOOKING.to_owned()));
        assert!(matches!(&begun, Status::Connecting { what } if !what.contains('\n')), "said once: {begun:?}");
        assert!(matches!(status(Phase::Connecting("rov".to_owned())), Status::Connecting { .. }));
        let lost = status(Phase::Lost("refused".to_owned()));
        assert!(matches!(&lost, Status::Lost { reason } if reason.contains("refused")), "{lost:?}");
    }
}
