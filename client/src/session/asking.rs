//! Asking a server how it is, while its video is watched.

use std::time::{Duration, Instant};

use rov_common::api::{Stats, StreamState};
use tokio::task::JoinHandle;
use url::Url;

use crate::reconnect::Probe;
use crate::streams::place_of;
use crate::whep::{self, Http, WhepError};

/// For the overlay and the marks, the server is asked for its figures so often.
const FIGURES_INTERVAL: Duration = Duration::from_secs(2);
/// After one that has none, or tells them to others.
const REFUSED_INTERVAL: Duration = Duration::from_secs(30);

/// What came of a question.
pub struct Answer {
    pub probe: Probe,
    /// From capture to encoded.
    pub encode: Option<Duration>,
    /// What the server calls itself.
    pub name: Option<String>,
    /// Which of its several streams it sends here.
    pub stream: Option<String>,
    /// All that it says.
    pub stats: Option<Box<Stats>>,
    /// The server says that it has none, or none for this viewer.
    pub is_refused: bool,
}

impl From<Probe> for Answer {
    fn from(probe: Probe) -> Self {
        Self { probe, encode: None, name: None, stream: None, stats: None, is_refused: false }
    }
}

/// Asks the server how it is, one question at a time, beside everything else.
pub struct Asking {
    url: Option<Url>,
    viewer_id: Option<String>,
    /// The stream that is watched, where another than the default can be.
    stream: String,
    http: Http,
    question: Option<JoinHandle<Answer>>,
    asked: Option<Instant>,
    /// For its figures it is asked again after so long.
    pause: Duration,
}

impl Asking {
    /// `url`: the server's statistics, if it has any; `viewer_id`: its name for this viewer, if it gave one;
    /// `stream`: the one that is watched, or empty; `http`: by which.
    pub fn new(url: Option<Url>, (viewer_id, stream): (Option<&str>, &str), http: Http) -> Self {
        let (viewer_id, stream) = (viewer_id.map(str::to_owned), stream.to_owned());
        Self { url, viewer_id, stream, http, question: None, asked: None, pause: FIGURES_INTERVAL }
    }

    pub fn ask(&mut self, now: Instant) {
        if self.question.is_none() {
            self.asked = Some(now);
            let (url, viewer_id, http) = (self.url.clone(), self.viewer_id.clone(), self.http.clone());
            let stream = self.stream.clone();
            self.question = Some(tokio::spawn(async move { probe(url, (viewer_id, stream), &http).await }));
        }
    }

    /// For the overlay and the marks, now and then.
    pub fn ask_for_figures(&mut self, now: Instant) {
        if self.asked.is_none_or(|at| now.saturating_duration_since(at) >= self.pause) {
            self.ask(now);
        }
    }

    /// The answer to the question that was asked; never, when none was.
    pub async fn answered(&mut self) -> Answer {
        let Some(question) = &mut self.question else { return std::future::pending().await };
        let answer = question.await.unwrap_or(Answer::from(Probe::Silent));
        self.question = None;
        self.pause = if answer.is_refused { REFUSED_INTERVAL } else { FIGURES_INTERVAL };
        answer
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        if let Some(question) = &self.question {
            question.abort();
        }
    }
}

/// What the server says of itself.
async fn probe(url: Option<Url>, (viewer_id, stream): (Option<String>, String), http: &Http) -> Answer {
    let Some(url) = url else { return Probe::NoStatistics.into() };
    match whep::probe(url, http).await {
        Ok(stats) => Answer { stats: Some(Box::new(stats.clone())), ..judged(stats, viewer_id.as_deref(), &stream) },
        Err(WhepError::Closed { .. }) => Probe::Refused.into(),
        Err(WhepError::Unreachable { .. }) => Probe::Silent.into(),
        Err(WhepError::Changed(changed)) => {
            tracing::error!("{changed}");
            Answer { is_refused: true, ..Probe::Changed(changed.to_string()).into() }
        }
        // Too many ask it for the moment.
        Err(WhepError::Refused { status: 429 | 500..=599, .. }) => Probe::NoStatistics.into(),
        Err(
            WhepError::NoLogin { .. }
            | WhepError::WrongLogin { .. }
            | WhepError::Refused { .. }
            | WhepError::NotWhep { .. }
            | WhepError::OtherServer,
        ) => Answer { is_refused: true, ..Probe::NoStatistics.into() },
    }
}

/// What the statistics say of this viewer, and of the stream that it watches: of `asked` where they do not say which.
fn judged(stats: Stats, viewer_id: Option<&str>, asked: &str) -> Answer {
    let name = Some(stats.name).filter(|name| !name.is_empty());
    let viewer = viewer_id.map(|id| stats.viewers.into_iter().find(|viewer| viewer.id == id));
    if let Some(None) = viewer {
        return Answer { name, ..Probe::Unknown.into() };
    }
    let viewer = viewer.flatten();
    let watched = viewer.as_ref().map(|viewer| viewer.stream.as_str()).filter(|name| !name.is_empty()).unwrap_or(asked);
    let has_name = stats.streams.len() > 1 || !asked.is_empty();
    let place = place_of(watched, &stats.streams).or(watched.is_empty().then_some(0));
    let Some(place) = place else {
        // What it says of others is not of this one.
        return Answer { name, ..Probe::NoStatistics.into() };
    };
    let stream = stats.streams.into_iter().nth(place).unwrap_or_default();
    let encode = Duration::try_from_secs_f64(stream.encode_latency_ms / 1000.0).ok();
    let awaits_keyframe = viewer.is_some_and(|viewer| viewer.awaits_keyframe);
    let probe = if stream.state == StreamState::Running && awaits_keyframe {
        Probe::AwaitsKeyframe
    } else {
        Probe::Serving { state: stream.state, reason: stream.reason }
    };
    Answer { encode, name, stream: has_name.then_some(stream.name), ..probe.into() }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use rov_common::api::{StreamStats, ViewerStats};

    use super::*;

    /// Closes each connection after it has said something that is no TLS, `after` so long.
    fn in_clear(after: Duration) -> Url {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = Url::parse(&format!("https://{}/api/stats", listener.local_addr().expect("bound"))).expect("a URL");
        std::thread::spawn(move || {
            for mut client in listener.incoming().flatten() {
                std::thread::spawn(move || {
                    std::thread::sleep(after);
                    let _ = client.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
                    // Until the client has read it.
                    let _ = client.read_to_end(&mut Vec::new());
                });
            }
        });
        url
    }

    #[tokio::test]
    async fn whoever_has_no_certificate_in_the_place_of_a_server_that_had_one_is_told() {
        let (url, http) = (in_clear(Duration::ZERO), Http::default());
        let address = url.authority();
        http.pins.judge(address, &"a".repeat(64)).expect("the first");
        let answer = probe(Some(url.clone()), (None, String::new()), &http).await;
        assert!(matches!(&answer.probe, Probe::Changed(reason) if reason.contains(address)), "{:?}", answer.probe);
    }

    /// What is answered so, each time.
    fn answering(reply: &'static str) -> Url {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = Url::parse(&format!("http://{}/api/stats", listener.local_addr().expect("bound"))).expect("a URL");
        std::thread::spawn(move || {
            let mut open = Vec::new();
            for mut client in listener.incoming().flatten() {
                let _ = client.read(&mut [0; 4096]);
                let _ = client.write_all(reply.as_bytes());
                if reply.ends_with("stays open") {
                    open.push(client);
                }
            }
        });
        url
    }

    #[tokio::test]
    async fn an_answer_that_a_bad_link_cuts_is_none_and_the_figures_are_asked_for_again() {
        let cut = [
            "HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{\"streams\": [",
            "HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\nstays open",
            "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 500\r\n\r\n{",
        ];
        for reply in cut {
            let mut asking = Asking::new(Some(answering(reply)), (None, ""), Http::default());
            asking.ask_for_figures(Instant::now());
            let answer = asking.answered().await;
            assert_eq!((answer.probe, answer.is_refused), (Probe::Silent, false), "{reply}");
            asking.ask_for_figures(Instant::now() + FIGURES_INTERVAL);
            assert!(asking.question.is_some(), "{reply}");
        }
    }

    #[tokio::test]
    async fn a_server_without_figures_is_asked_seldom_and_one_that_is_busy_soon() {
        let replies = [
            ("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", REFUSED_INTERVAL),
            ("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<html>", REFUSED_INTERVAL),
            ("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n", FIGURES_INTERVAL),
            ("HTTP/1.1 429 Too Many Requests\r\nContent-Length: 0\r\n\r\n", FIGURES_INTERVAL),
        ];
        for (reply, pause) in replies {
            let mut asking = Asking::new(Some(answering(reply)), (None, ""), Http::default());
            asking.ask_for_figures(Instant::now());
            assert_eq!(asking.answered().await.probe, Probe::NoStatistics, "{reply}");
            assert_eq!(asking.pause, pause, "{reply}");
        }
    }

    /// As over a link with a round trip of more than half a second.
    #[tokio::test]
    async fn before_a_session_a_slow_link_has_its_time() {
        let (url, http) = (in_clear(Duration::from_millis(600)), Http::default());
        http.pins.judge(url.authority(), &"a".repeat(64)).expect("the first");
        let answer = whep::stats(url, &http).await;
        assert!(matches!(&answer, Err(WhepError::Changed(_))), "{answer:?}");
    }

    #[test]
    fn a_viewer_that_is_sent_nothing_before_the_next_keyframe_is_told_from_one_that_receives_nothing() {
        let probe = |state, packets, awaits_keyframe| {
            let viewer = ViewerStats { id: "a".to_owned(), packets, awaits_keyframe, ..ViewerStats::default() };
            let streams = vec![StreamStats { state, ..StreamStats::default() }];
            judged(Stats { streams, viewers: vec![viewer], ..Stats::default() }, Some("a"), "").probe
        };
        assert_eq!(probe(StreamState::Running, 0, true), Probe::AwaitsKeyframe);
        assert_eq!(probe(StreamState::Running, 9_000, true), Probe::AwaitsKeyframe, "in the middle of a session");
        let serving = |state| Probe::Serving { state, reason: None };
        assert_eq!(probe(StreamState::Running, 9_000, false), serving(StreamState::Running));
        assert_eq!(probe(StreamState::Stalled, 9_000, true), serving(StreamState::Stalled));
    }

    #[test]
    fn the_state_is_that_of_the_stream_that_the_viewer_watches() {
        let stream = |name: &str, state| StreamStats { name: name.to_owned(), state, ..StreamStats::default() };
        let stats = |watched: &str| Stats {
            streams: vec![stream("stream1", StreamState::Running), stream("cam2/stream1", StreamState::Stalled)],
            viewers: vec![ViewerStats { id: "a".to_owned(), stream: watched.to_owned(), ..ViewerStats::default() }],
            ..Stats::default()
        };
        let state = |watched| judged(stats(watched), Some("a"), "").probe;
        let serving = |state| Probe::Serving { state, reason: None };
        assert_eq!(state("cam2/stream1"), serving(StreamState::Stalled));
        assert_eq!(state("stream1"), serving(StreamState::Running));
        assert_eq!(state(""), serving(StreamState::Running), "a server that does not say it has one stream");
    }

    #[test]
    fn of_several_streams_the_state_is_that_of_the_one_that_is_watched() {
        let stream = |name: &str, state| StreamStats { name: name.to_owned(), state, ..StreamStats::default() };
        let all = [stream("stream1", StreamState::Running), stream("stream2", StreamState::Stalled)];
        let viewer = ViewerStats { id: "a".to_owned(), stream: "stream2".to_owned(), ..ViewerStats::default() };
        let stats = |streams: &[StreamStats]| Stats {
            streams: streams.to_vec(),
            viewers: vec![viewer.clone()],
            ..Stats::default()
        };
        let stalled = Probe::Serving { state: StreamState::Stalled, reason: None };
        // By WebRTC the server knows which; by RTP and RTSP it was chosen here.
        for (viewer, asked) in [(Some("a"), ""), (None, "stream2")] {
            let answer = judged(stats(&all), viewer, asked);
            assert_eq!((answer.probe, answer.stream.as_deref()), (stalled.clone(), Some("stream2")));
        }
        assert_eq!(judged(stats(&all[..1]), None, "").stream, None, "one needs no name");
    }

    #[test]
    fn a_stream_that_was_asked_for_is_never_taken_for_another_one() {
        let stream = |camera: &str, name: &str| StreamStats {
            camera: camera.to_owned(),
            name: name.to_owned(),
            state: if camera == "bow" { StreamState::Running } else { StreamState::Stalled },
            ..StreamStats::default()
        };
        let streams = vec![stream("bow", "stream1"), stream("bow", "stream2"), stream("arm", "arm/stream1")];
        let judged = |asked| {
            let answer = judged(Stats { streams: streams.clone(), ..Stats::default() }, None, asked);
            (answer.stream, answer.probe)
        };
        let serving = |name: &str, state| (Some(name.to_owned()), Probe::Serving { state, reason: None });
        assert_eq!(judged("arm/stream1"), serving("arm/stream1", StreamState::Stalled));
        assert_eq!(judged("bow/stream2"), serving("stream2", StreamState::Running), "by its camera's name");
        assert_eq!(judged(""), serving("stream1", StreamState::Running));
        assert_eq!(judged("stern/stream1"), (None, Probe::NoStatistics), "it is not known there any more");
    }
}
