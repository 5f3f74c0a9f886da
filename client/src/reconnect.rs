//! Decides whether a session is kept. Pure: takes `now`. Liveness follows media, not sockets.

use std::time::{Duration, Instant};

use rov_common::api::StreamState;

/// Without a packet for so long, the server is asked what is wrong, and again after each such time.
pub const PROBE_AFTER: Duration = Duration::from_secs(1);
/// The server says that it sends, and nothing arrives: a new session finds a new path.
const DEAF_AFTER: Duration = Duration::from_secs(3);

/// What is known of a session.
#[derive(Clone, Debug)]
pub struct Session {
    /// When the last packet came, or the session connected.
    pub last_media: Instant,
    /// Why the connection ended, when it did.
    pub ended: Option<String>,
    pub last_probe: Option<(Instant, Probe)>,
}

/// What the server said when it was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probe {
    /// It has this viewer; the state of its stream, and the reason when that does not run.
    Serving { state: StreamState, reason: Option<String> },
    /// It does not have this viewer.
    Unknown,
    /// Its machine answers, but no server is there.
    Refused,
    /// No answer: the link may be down.
    Silent,
    /// A server of another make, which has no statistics.
    NoStatistics,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Advice {
    /// Pictures come.
    Keep,
    /// No pictures; ask the server now.
    Probe,
    /// No pictures, for the reason given; wait.
    Wait(String),
    /// End the session and make a new one.
    Leave(String),
}

pub fn advise(now: Instant, session: &Session) -> Advice {
    if let Some(reason) = &session.ended {
        return Advice::Leave(reason.clone());
    }
    let silent = now.saturating_duration_since(session.last_media);
    if silent < PROBE_AFTER {
        return Advice::Keep;
    }
    // What was said before the silence began is of no use now.
    let probe = session.last_probe.as_ref().filter(|(at, _)| *at > session.last_media);
    let Some((at, probe)) = probe else { return Advice::Probe };
    match probe {
        Probe::Unknown => Advice::Leave("the server has ended this session".to_owned()),
        Probe::Refused => Advice::Leave("the server has stopped".to_owned()),
        Probe::Serving { state: StreamState::Running, .. } | Probe::NoStatistics if silent > DEAF_AFTER => {
            Advice::Leave(format!("no video packets for {} s", silent.as_secs()))
        }
        _ if now.saturating_duration_since(*at) >= PROBE_AFTER => Advice::Probe,
        Probe::Serving { state: StreamState::Running, .. } | Probe::NoStatistics => {
            Advice::Wait("no video packets arrive".to_owned())
        }
        Probe::Serving { reason, .. } => {
            let reason = reason.as_deref().unwrap_or("no reason given");
            Advice::Wait(format!("the server has no picture: {reason}"))
        }
        // ICE ends the session when this lasts; until then the link may come back.
        Probe::Silent => Advice::Wait("the server does not answer".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(start: Instant, ms: u64) -> Instant {
        start + Duration::from_millis(ms)
    }

    fn session(start: Instant, probe: Option<(u64, Probe)>) -> Session {
        Session { last_media: start, ended: None, last_probe: probe.map(|(ms, p)| (at(start, ms), p)) }
    }

    #[test]
    fn pictures_that_come_are_kept() {
        let start = Instant::now();
        assert_eq!(advise(at(start, 900), &session(start, None)), Advice::Keep);
    }

    #[test]
    fn a_closed_connection_is_left_at_once() {
        let start = Instant::now();
        let ended = Session { ended: Some("closed".to_owned()), ..session(start, None) };
        assert_eq!(advise(start, &ended), Advice::Leave("closed".to_owned()));
    }

    #[test]
    fn silence_makes_it_ask_each_second() {
        let start = Instant::now();
        assert_eq!(advise(at(start, 1_000), &session(start, None)), Advice::Probe);
        let asked = session(start, Some((1_050, Probe::Silent)));
        assert!(matches!(advise(at(start, 1_100), &asked), Advice::Wait(_)));
        assert_eq!(advise(at(start, 2_050), &asked), Advice::Probe);
    }

    #[test]
    fn a_dead_camera_does_not_end_the_session() {
        let start = Instant::now();
        let probe = Probe::Serving { state: StreamState::Restarting, reason: Some("/dev/video0 is gone".to_owned()) };
        let advice = advise(at(start, 60_000), &session(start, Some((59_500, probe))));
        assert!(matches!(&advice, Advice::Wait(reason) if reason.contains("/dev/video0")), "{advice:?}");
    }

    #[test]
    fn a_server_that_stopped_or_forgot_us_is_left() {
        let start = Instant::now();
        for probe in [Probe::Refused, Probe::Unknown] {
            assert!(matches!(advise(at(start, 1_100), &session(start, Some((1_050, probe)))), Advice::Leave(_)));
        }
    }

    #[test]
    fn packets_that_are_sent_but_do_not_come_make_it_leave_after_three_seconds() {
        let start = Instant::now();
        let running = Probe::Serving { state: StreamState::Running, reason: None };
        let asked = session(start, Some((1_050, running)));
        assert!(matches!(advise(at(start, 1_500), &asked), Advice::Wait(_)));
        assert!(matches!(advise(at(start, 3_100), &asked), Advice::Leave(_)));
    }

    #[test]
    fn what_was_said_before_the_last_packet_does_not_count() {
        let start = Instant::now();
        let old =
            Session { last_media: at(start, 5_000), ended: None, last_probe: Some((at(start, 4_000), Probe::Refused)) };
        assert_eq!(advise(at(start, 6_000), &old), Advice::Probe);
    }
}
