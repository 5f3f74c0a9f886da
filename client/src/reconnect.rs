//! Decides whether a session is kept. Pure: takes `now`. Liveness follows media, not sockets.

use std::time::{Duration, Instant};

use rov_common::api::StreamState;

/// Without a packet, or a picture, for so long, nothing is live any more; the server is asked what is wrong, and again
/// after each such time.
pub const PROBE_AFTER: Duration = Duration::from_secs(1);
/// The server says that it sends, and nothing arrives: a new session finds a new path.
const DEAF_AFTER: Duration = Duration::from_secs(3);
/// After an outage the first answer may come before the first packet: so long it has to answer without any.
const ANSWERED_FOR: Duration = Duration::from_millis(500);
/// Packets arrive and no picture comes of them: a new session has a new decoder. Long, because a stream that is passed
/// through may have that long from one keyframe to the next.
const BLIND_AFTER: Duration = Duration::from_secs(30);

/// Where the packets of a session come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Supply {
    /// A connection that checks its own path and says when there is none any more: WebRTC.
    Connection,
    /// A server that can be asked, or found again at another address.
    Stream,
    /// A destination that somebody sends to, or will: a new session would listen at the same.
    Destination,
}

/// What is known of a session.
#[derive(Clone, Debug)]
pub struct Session {
    pub supply: Supply,
    /// What to say while no packets come.
    pub silence: String,
    /// The sender said that it ends.
    pub goodbye: bool,
    /// When the last packet came, or the session connected.
    pub last_packet: Instant,
    /// When the last picture was decoded, or the session connected.
    pub last_picture: Instant,
    pub had_picture: bool,
    /// Why the session is over, when it is.
    pub ended: Option<String>,
    /// When the server last answered, or failed to.
    pub last_probe: Option<(Instant, Probe)>,
    /// Since when it answers each time.
    pub answers_since: Option<Instant>,
    /// Where discovery hears it now, when that is another address.
    pub moved_to: Option<String>,
}

/// What the server said when it was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probe {
    /// It has this viewer; the state of its stream, and the reason when that does not run.
    Serving { state: StreamState, reason: Option<String> },
    /// It has this viewer, and sends it nothing before the next keyframe: a stream that is passed through has them when
    /// it likes.
    AwaitsKeyframe,
    /// It does not have this viewer.
    Unknown,
    /// Its machine answers, but no server is there.
    Refused,
    /// No answer: the link may be down.
    Silent,
    /// A server of another make, which has no statistics.
    NoStatistics,
    /// It shows another certificate than it had, or none; what to say of it.
    Changed(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Advice {
    /// Pictures come.
    Live,
    /// The first picture is not due yet.
    Starting,
    /// No pictures, for the reason given; wait, and ask the server if `probe`.
    Wait { reason: String, probe: bool },
    /// End the session and make a new one.
    Leave(String),
}

impl Session {
    /// One that has just connected.
    pub fn begin(supply: Supply, now: Instant) -> Self {
        Self {
            supply,
            silence: String::new(),
            goodbye: false,
            last_packet: now,
            last_picture: now,
            had_picture: false,
            ended: None,
            last_probe: None,
            answers_since: None,
            moved_to: None,
        }
    }

    /// The server was asked; this came of it.
    pub fn probed(&mut self, now: Instant, probe: Probe) {
        self.answers_since = match probe {
            Probe::Silent | Probe::Refused => None,
            _ => self.answers_since.filter(|since| *since > self.last_packet).or(Some(now)),
        };
        self.last_probe = Some((now, probe));
    }

    /// Whether there is reason to listen for the server at another address. While packets come, an answer that was lost
    /// is none.
    pub fn is_unanswered(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.last_packet) >= PROBE_AFTER
            && matches!(&self.last_probe, Some((at, Probe::Silent)) if *at > self.last_packet)
    }
}

pub fn advise(now: Instant, session: &Session) -> Advice {
    if let Some(reason) = &session.ended {
        return Advice::Leave(reason.clone());
    }
    // What WebRTC brings is still of the one that proved its key; RTP and RTSP may be of another machine by now.
    if let (Some((_, Probe::Changed(reason))), Supply::Stream | Supply::Destination) =
        (&session.last_probe, session.supply)
    {
        return Advice::Leave(reason.clone());
    }
    if session.goodbye {
        return match session.supply {
            Supply::Destination => Advice::Wait { reason: session.silence.clone(), probe: false },
            Supply::Connection | Supply::Stream => Advice::Leave(session.silence.clone()),
        };
    }
    let silent = now.saturating_duration_since(session.last_packet);
    let blind = now.saturating_duration_since(session.last_picture);
    if silent >= PROBE_AFTER {
        return without_packets(now, session, silent);
    }
    if blind >= BLIND_AFTER {
        return Advice::Leave(format!("video arrives, but no picture could be decoded for {} s", blind.as_secs()));
    }
    if blind >= PROBE_AFTER {
        return Advice::Wait { reason: "video arrives, waiting for a keyframe".to_owned(), probe: false };
    }
    if session.had_picture { Advice::Live } else { Advice::Starting }
}

fn without_packets(now: Instant, session: &Session, silent: Duration) -> Advice {
    if session.supply == Supply::Destination {
        return Advice::Wait { reason: session.silence.clone(), probe: false };
    }
    // What was said before the silence began is of no use now.
    let Some((at, probe)) = session.last_probe.as_ref().filter(|(at, _)| *at > session.last_packet) else {
        return Advice::Wait { reason: session.silence.clone(), probe: true };
    };
    let is_deaf = silent > DEAF_AFTER
        && session.answers_since.is_some_and(|since| now.saturating_duration_since(since) >= ANSWERED_FOR);
    let reason = match probe {
        Probe::Unknown => return Advice::Leave("the server has ended this session".to_owned()),
        Probe::Refused => return Advice::Leave("the server has stopped".to_owned()),
        Probe::Changed(reason) => return Advice::Leave(reason.clone()),
        Probe::Serving { state: StreamState::Running, .. } if is_deaf => {
            return Advice::Leave("the server sends video, but none arrives".to_owned());
        }
        Probe::NoStatistics if is_deaf => {
            return Advice::Leave(format!("{} for {} s", session.silence, silent.as_secs()));
        }
        Probe::Serving { state: StreamState::Running, .. } | Probe::NoStatistics => session.silence.clone(),
        Probe::Serving { state, reason } => source_trouble(*state, reason.as_deref()),
        // A new session would wait for the same one; but the server may have forgotten to make one.
        Probe::AwaitsKeyframe if silent > BLIND_AFTER => {
            return Advice::Leave(format!("no keyframe for {} s", silent.as_secs()));
        }
        Probe::AwaitsKeyframe => "waiting for a keyframe".to_owned(),
        Probe::Silent if session.supply == Supply::Stream && silent > DEAF_AFTER => {
            return Advice::Leave("the server does not answer".to_owned());
        }
        Probe::Silent if let Some(address) = &session.moved_to => {
            return Advice::Leave(format!("the server is at {address} now"));
        }
        // ICE ends the session when this lasts; until then the link may come back.
        Probe::Silent => "the server does not answer".to_owned(),
    };
    Advice::Wait { reason, probe: now.saturating_duration_since(*at) >= PROBE_AFTER }
}

/// What is the matter with the server's source.
fn source_trouble(state: StreamState, reason: Option<&str>) -> String {
    let said = match state {
        StreamState::Starting => "the source is starting",
        StreamState::Restarting => "the source is being restarted",
        StreamState::Stalled => "no usable pictures come from the source",
        StreamState::Ended => "the source has ended",
        StreamState::Running => "the server has no picture",
    };
    reason.map_or_else(|| said.to_owned(), |reason| format!("{said}: {reason}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(start: Instant, ms: u64) -> Instant {
        start + Duration::from_millis(ms)
    }

    fn session(start: Instant, probe: Option<(u64, Probe)>) -> Session {
        let mut session = Session {
            silence: "no video arrives".to_owned(),
            had_picture: true,
            ..Session::begin(Supply::Connection, start)
        };
        if let Some((ms, probe)) = probe {
            session.probed(at(start, ms), probe);
        }
        session
    }

    fn waits(advice: Advice, text: &str, asks: bool) {
        assert!(
            matches!(&advice, Advice::Wait { reason, probe } if reason.contains(text) && *probe == asks),
            "{advice:?}"
        );
    }

    #[test]
    fn pictures_that_come_are_live_and_nothing_else_is() {
        let start = Instant::now();
        assert_eq!(advise(at(start, 900), &session(start, None)), Advice::Live);
        let starting = Session { had_picture: false, ..session(start, None) };
        assert_eq!(advise(at(start, 900), &starting), Advice::Starting);
        waits(advise(at(start, 1_000), &session(start, None)), "no video arrives", true);
    }

    #[test]
    fn a_closed_connection_is_left_at_once() {
        let start = Instant::now();
        let ended = Session { ended: Some("closed".to_owned()), ..session(start, None) };
        assert_eq!(advise(start, &ended), Advice::Leave("closed".to_owned()));
    }

    #[test]
    fn a_server_that_does_not_answer_is_said_and_asked_again_each_second() {
        let start = Instant::now();
        let asked = session(start, Some((2_000, Probe::Silent)));
        waits(advise(at(start, 2_000), &asked), "does not answer", false);
        waits(advise(at(start, 2_999), &asked), "does not answer", false);
        waits(advise(at(start, 3_000), &asked), "does not answer", true);
    }

    #[test]
    fn a_dead_camera_does_not_end_the_session() {
        let start = Instant::now();
        let probe = Probe::Serving { state: StreamState::Restarting, reason: Some("/dev/video0 is gone".to_owned()) };
        waits(advise(at(start, 60_000), &session(start, Some((59_500, probe)))), "/dev/video0 is gone", false);
    }

    #[test]
    fn a_server_that_stopped_or_forgot_us_is_left() {
        let start = Instant::now();
        for probe in [Probe::Refused, Probe::Unknown] {
            assert!(matches!(advise(at(start, 1_100), &session(start, Some((1_050, probe)))), Advice::Leave(_)));
        }
    }

    #[test]
    fn another_certificate_ends_what_proves_nothing_and_nothing_that_is_proven() {
        let start = Instant::now();
        let changed = || Some((500, Probe::Changed("another one".to_owned())));
        let stream = Session { supply: Supply::Stream, last_packet: at(start, 590), ..session(start, changed()) };
        let stream = Session { last_picture: at(start, 590), ..stream };
        assert_eq!(advise(at(start, 600), &stream), Advice::Leave("another one".to_owned()));
        let connection = Session { supply: Supply::Connection, ..stream };
        assert_eq!(advise(at(start, 600), &connection), Advice::Live);
        let silent = Session { last_packet: start, ..connection };
        assert_eq!(advise(at(start, 1_500), &silent), Advice::Leave("another one".to_owned()));
    }

    #[test]
    fn packets_that_are_sent_but_do_not_come_make_it_leave_after_three_seconds() {
        let start = Instant::now();
        let running = Probe::Serving { state: StreamState::Running, reason: None };
        let asked = session(start, Some((1_050, running)));
        waits(advise(at(start, 1_500), &asked), "no video arrives", false);
        assert!(matches!(advise(at(start, 3_100), &asked), Advice::Leave(_)));
    }

    #[test]
    fn after_an_outage_the_first_answer_does_not_end_a_session_whose_packets_are_on_their_way() {
        let start = Instant::now();
        let running = || Probe::Serving { state: StreamState::Running, reason: None };
        let mut session = session(start, Some((2_000, Probe::Silent)));
        session.probed(at(start, 6_000), running());
        waits(advise(at(start, 6_499), &session), "no video arrives", false);
        session.probed(at(start, 6_499), running());
        assert!(matches!(advise(at(start, 6_500), &session), Advice::Leave(_)), "it goes on answering");
        // The next silence begins anew.
        session.last_packet = at(start, 6_600);
        session.probed(at(start, 9_700), running());
        waits(advise(at(start, 9_800), &session), "no video arrives", false);
    }

    #[test]
    fn a_server_that_moved_is_followed_when_it_does_not_answer_where_it_was() {
        let start = Instant::now();
        let moved =
            |probe| Session { moved_to: Some("10.0.1.2:80".to_owned()), ..session(start, Some((1_500, probe))) };
        let gone = moved(Probe::Silent);
        assert!(gone.is_unanswered(at(start, 2_000)));
        assert_eq!(advise(at(start, 2_000), &gone), Advice::Leave("the server is at 10.0.1.2:80 now".to_owned()));
        // It has two addresses, and no camera.
        let no_camera = moved(Probe::Serving { state: StreamState::Restarting, reason: Some("no camera".to_owned()) });
        assert!(!no_camera.is_unanswered(at(start, 2_000)));
        waits(advise(at(start, 2_000), &no_camera), "no camera", false);
        // Between two packets of a link that loses the answers.
        let live = Session { last_packet: at(start, 1_490), ..gone.clone() };
        assert!(!live.is_unanswered(at(start, 1_510)));
        // What was heard before pictures came again says nothing.
        let back = Session { last_packet: at(start, 1_900), ..gone };
        assert_eq!(advise(at(start, 2_000), &Session { last_picture: at(start, 1_900), ..back }), Advice::Live);
    }

    #[test]
    fn a_keyframe_that_is_long_in_coming_is_waited_for() {
        let start = Instant::now();
        let asked = session(start, Some((9_500, Probe::AwaitsKeyframe)));
        waits(advise(at(start, 10_000), &asked), "waiting for a keyframe", false);
        assert!(matches!(advise(at(start, 31_000), &asked), Advice::Leave(_)), "but not for ever");
    }

    #[test]
    fn what_was_said_before_the_last_packet_does_not_count() {
        let start = Instant::now();
        let old = Session { last_packet: at(start, 5_000), ..session(start, Some((4_000, Probe::Refused))) };
        waits(advise(at(start, 6_000), &old), "no video arrives", true);
    }

    #[test]
    fn packets_that_make_no_picture_are_not_live_and_are_left_in_the_end() {
        let start = Instant::now();
        let blind = |ms| Session { last_packet: at(start, ms), ..session(start, None) };
        waits(advise(at(start, 1_500), &blind(1_490)), "keyframe", false);
        assert!(matches!(advise(at(start, 30_000), &blind(29_990)), Advice::Leave(_)));
    }

    #[test]
    fn a_destination_is_listened_at_for_ever() {
        let start = Instant::now();
        let listening = Session { supply: Supply::Destination, ..session(start, None) };
        waits(advise(at(start, 1_000), &listening), "no video arrives", false);
        waits(advise(at(start, 3_600_000), &listening), "no video arrives", false);
        let left = Session { goodbye: true, silence: "goodbye".to_owned(), ..listening };
        waits(advise(at(start, 10), &left), "goodbye", false);
    }

    #[test]
    fn a_stream_whose_server_does_not_answer_is_looked_for_again() {
        let start = Instant::now();
        let stream = |probe| Session { supply: Supply::Stream, ..session(start, probe) };
        waits(advise(at(start, 1_000), &stream(None)), "no video arrives", true);
        waits(advise(at(start, 2_500), &stream(Some((2_000, Probe::Silent)))), "does not answer", false);
        for probe in [Probe::Silent, Probe::NoStatistics] {
            assert!(matches!(advise(at(start, 3_001), &stream(Some((2_500, probe)))), Advice::Leave(_)));
        }
        let no_camera = Probe::Serving { state: StreamState::Restarting, reason: Some("no camera".to_owned()) };
        waits(advise(at(start, 9_000), &stream(Some((8_500, no_camera)))), "no camera", false);
        let left = Session { goodbye: true, ..stream(None) };
        assert!(matches!(advise(at(start, 10), &left), Advice::Leave(_)));
    }
}
