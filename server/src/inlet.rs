//! What a publisher sends, on its way from the RTSP server into the pipeline of `--source publish`.
//!
//! The pipeline is there all the time, so that a publisher's first keyframe is not lost while one starts, and so that
//! publishers come and go while viewers stay. Times are those of arrival: a publisher's own mean nothing here.

use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use gstreamer as gst;
use gstreamer::glib;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;
use rov_common::sync::lock;
use rov_gst::clock::running_time;
use rov_gst::rtp::{Judged, LeftOut};

/// Name of the element that takes what is published.
pub const ELEMENT: &str = "rov_inlet";

/// A publisher of whom nothing has come for so long is silent: that is said, and another may take its place.
const SILENT_AFTER: Duration = Duration::from_secs(1);
/// A publisher that sends nothing for so long is disconnected.
const SILENT_LIMIT: Duration = Duration::from_secs(5);
/// Both are longer where its pictures are rare: so many of their intervals, which count for so long at most.
const SILENT_INTERVALS: u32 = 3;
const LONGEST_INTERVAL: Duration = Duration::from_secs(10);
/// That another machine publishes than before is said for so long after its first picture.
const NEWS_FOR: Duration = Duration::from_secs(30);
/// Looks come a few times a second; one that comes so late was not made because the process stood still.
const STANDSTILL: Duration = Duration::from_secs(1);
/// A stream that has no keyframe for so long has none at all, and begins without.
const KEYFRAME_LIMIT: Duration = Duration::from_secs(2);
/// What waits for the pipeline, in bytes; it takes everything at once, unless the machine stands still.
const MAX_WAITING: u64 = 32 << 20;

/// Between the one publisher there may be and the one pipeline.
#[derive(Debug)]
pub struct Inlet {
    /// Where to publish, for who asks.
    path: String,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Of the pipeline that runs now.
    source: glib::WeakRef<gst_app::AppSrc>,
    lost: Weak<LeftOut>,
    publisher: Option<Publisher>,
    /// The machine whose pictures came last.
    host: Option<String>,
    /// That they come from another one now, and for how long this is said.
    news: Option<(String, Instant)>,
    /// Why its stream cannot be taken; said once.
    refusal: Option<String>,
    /// Time of the newest access unit.
    last: gst::ClockTime,
    /// When [`Inlet::look`] was called last.
    looked: Option<Instant>,
}

impl State {
    /// Whether this process has not run: nobody could be heard.
    fn stood_still(&self, now: Instant) -> bool {
        self.looked.is_some_and(|looked| now.saturating_duration_since(looked) >= STANDSTILL)
    }
}

#[derive(Debug)]
struct Publisher {
    key: usize,
    peer: String,
    by_tcp: bool,
    /// Since when a keyframe is waited for: what came before it cannot be decoded.
    waits_since: Option<Instant>,
    /// When it began, or its newest access unit came.
    heard: Instant,
    /// Between the two newest of these.
    interval: Duration,
}

impl Publisher {
    fn heard_at(&mut self, now: Instant) {
        self.interval = now.saturating_duration_since(self.heard).min(LONGEST_INTERVAL);
        self.heard = now;
    }

    fn host(&self) -> &str {
        host(&self.peer)
    }

    /// For how long nothing has come, where that is `limit` at least, and more than its frame rate explains.
    fn silent_for(&self, now: Instant, limit: Duration) -> Option<Duration> {
        let silent = now.saturating_duration_since(self.heard);
        (silent >= limit.max(self.interval * SILENT_INTERVALS)).then_some(silent)
    }
}

impl Inlet {
    /// `path` is the one that is told to whoever may publish.
    pub fn new(path: &str) -> Self {
        Self { path: path.to_owned(), state: Mutex::default() }
    }

    /// What comes from now on goes to the inlet of this head, from the next keyframe on.
    pub fn install(&self, head: &gst::Bin, lost: &Arc<LeftOut>) {
        let Some(source) = head.by_name(ELEMENT).and_downcast::<gst_app::AppSrc>() else { return };
        let mut state = lock(&self.state);
        state.source = source.downgrade();
        state.lost = Arc::downgrade(lost);
        state.last = gst::ClockTime::ZERO;
        if let Some(publisher) = &mut state.publisher {
            publisher.waits_since = Some(Instant::now());
        }
    }

    /// Somebody publishes now, known by `key` until it ends.
    pub fn begins(&self, key: usize, peer: &str, by_tcp: bool, now: Instant) {
        let mut state = lock(&self.state);
        state.refusal = None;
        let peer = peer.to_owned();
        state.publisher =
            Some(Publisher { key, peer, by_tcp, waits_since: Some(now), heard: now, interval: Duration::ZERO });
    }

    /// It does not any more; false where it did not.
    pub fn ends(&self, key: usize) -> bool {
        lock(&self.state).publisher.take_if(|publisher| publisher.key == key).is_some()
    }

    /// Whether its pictures wait for each other on their way, so that they can come later and later.
    pub fn is_by_tcp(&self, key: usize) -> bool {
        lock(&self.state).publisher.as_ref().is_some_and(|publisher| publisher.key == key && publisher.by_tcp)
    }

    /// A picture of the publisher has come.
    pub fn picture_came(&self, key: usize, judged: Judged, now: Instant) {
        let mut state = lock(&self.state);
        let State { lost, publisher, .. } = &mut *state;
        let Some(publisher) = publisher.as_mut().filter(|publisher| publisher.key == key) else { return };
        if judged.awaited.is_some() {
            publisher.heard_at(now);
        }
        if let Some(lost) = lost.upgrade() {
            lost.picture_came(judged);
        }
    }

    /// An access unit of the publisher. Never blocks.
    pub fn push(&self, key: usize, sample: &gst::Sample, now: Instant) {
        let mut state = lock(&self.state);
        let State { source, publisher, last, host, news, .. } = &mut *state;
        let Some(publisher) = publisher.as_mut().filter(|publisher| publisher.key == key) else { return };
        publisher.heard_at(now);
        if host.as_deref() != Some(publisher.host())
            && let Some(before) = host.replace(publisher.host().to_owned())
        {
            let text = format!("{} publishes the pictures now, not {before} as before", publisher.host());
            tracing::warn!("{text}");
            *news = Some((text, now + NEWS_FOR));
        }
        let Some((source, buffer)) = source.upgrade().zip(sample.buffer()) else { return };
        let is_delta = buffer.flags().contains(gst::BufferFlags::DELTA_UNIT);
        let patient = |since: Instant| now.saturating_duration_since(since) < KEYFRAME_LIMIT;
        if is_delta && publisher.waits_since.is_some_and(patient) {
            return;
        }
        if source.current_level_bytes() > MAX_WAITING {
            publisher.waits_since = Some(now);
            return;
        }
        let Some(time) = running_time(source.upcast_ref()) else { return };
        publisher.waits_since = None;
        *last = time.max(*last + gst::ClockTime::from_useconds(1));
        let mut buffer = buffer.copy();
        if let Some(buffer) = buffer.get_mut() {
            buffer.set_pts(*last);
            buffer.set_dts(*last);
        }
        let builder = gst::Sample::builder().buffer(&buffer);
        let sample = match sample.caps_owned() {
            Some(caps) => builder.caps(&caps).build(),
            None => builder.build(),
        };
        // An error is a pipeline that ends; the next begins with a keyframe.
        let _ = source.push_sample(&sample);
    }

    /// To be called a few times a second: after a standstill of this process, what the publisher sent is still to be
    /// read.
    pub fn look(&self, now: Instant) {
        let mut state = lock(&self.state);
        let stood_still = state.stood_still(now);
        state.looked = Some(now);
        if let Some(publisher) = state.publisher.as_mut().filter(|_| stood_still) {
            publisher.heard = now;
        }
    }

    /// The publisher that keeps its place before one that comes from `newcomer`, as ADDRESS:PORT. A pause lets in the
    /// same machine alone, whose sender has been started again: another may be another vehicle's.
    pub fn keeps_its_place(&self, newcomer: &str, now: Instant) -> Option<String> {
        let state = lock(&self.state);
        let publisher = state.publisher.as_ref()?;
        let limit = if publisher.host() == host(newcomer) { SILENT_AFTER } else { SILENT_LIMIT };
        let stays = state.stood_still(now) || publisher.silent_for(now, limit).is_none();
        stays.then(|| publisher.peer.clone())
    }

    pub fn publishes(&self, key: usize) -> bool {
        lock(&self.state).publisher.as_ref().is_some_and(|publisher| publisher.key == key)
    }

    /// For how long the publisher has sent nothing, where it cannot stay for that.
    pub fn gone_for(&self, now: Instant) -> Option<Duration> {
        lock(&self.state).publisher.as_ref()?.silent_for(now, SILENT_LIMIT)
    }

    /// Between two pictures of the publisher, as they come.
    pub fn interval(&self) -> Duration {
        lock(&self.state).publisher.as_ref().map_or(Duration::ZERO, |publisher| publisher.interval)
    }

    /// Who publishes, as ADDRESS:PORT.
    pub fn sender(&self) -> Option<String> {
        lock(&self.state).publisher.as_ref().map(|publisher| publisher.peer.clone())
    }

    /// That another machine publishes than before, for a while.
    pub fn news(&self, now: Instant) -> Option<String> {
        let mut state = lock(&self.state);
        state.news.take_if(|(_, until)| now >= *until);
        state.news.as_ref().map(|(text, _)| text.clone())
    }

    /// Why no pictures come, if so.
    pub fn why_silent(&self, now: Instant) -> Option<String> {
        let state = lock(&self.state);
        let Some(publisher) = &state.publisher else {
            return Some(format!(
                "nobody publishes; send a stream, as: ffmpeg -i INPUT -c:v copy -an -f rtsp rtsp://THIS_SERVER{}",
                self.path
            ));
        };
        publisher.silent_for(now, SILENT_AFTER).map(|_| format!("the publisher {} sends no pictures", publisher.peer))
    }

    /// The stream of the publisher cannot be taken, for this reason.
    pub fn refuse(&self, reason: &str) {
        let mut state = lock(&self.state);
        if state.publisher.is_some() {
            state.refusal = Some(reason.to_owned());
        }
    }

    /// What [`Self::refuse`] said of this publisher, once.
    pub fn take_refusal(&self, key: usize) -> Option<String> {
        let mut state = lock(&self.state);
        let is_its = state.publisher.as_ref().is_some_and(|publisher| publisher.key == key);
        is_its.then(|| state.refusal.take()).flatten()
    }
}

/// Of ADDRESS:PORT.
fn host(peer: &str) -> &str {
    peer.rsplit_once(':').map_or(peer, |(host, _)| host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_said_when_nobody_publishes_and_when_the_publisher_is_silent() {
        let (inlet, start) = (Inlet::new("/ES_MTX"), Instant::now());
        let reason = inlet.why_silent(start).expect("a reason");
        assert!(reason.contains("nobody publishes") && reason.contains("/ES_MTX"), "{reason}");
        inlet.begins(1, "10.0.0.5:4000", true, start);
        assert_eq!(inlet.why_silent(start), None);
        let own = |after| inlet.keeps_its_place("10.0.0.5:4001", start + after);
        let other = |after| inlet.keeps_its_place("10.0.0.6:4000", start + after);
        assert_eq!(own(Duration::ZERO).as_deref(), Some("10.0.0.5:4000"));
        let reason = inlet.why_silent(start + SILENT_AFTER).expect("a reason");
        assert!(reason.contains("10.0.0.5:4000 sends no pictures"), "{reason}");
        assert_eq!(own(SILENT_AFTER), None, "its machine may come again");
        assert!(other(SILENT_AFTER).is_some(), "another vehicle's picture after a pause");
        assert_eq!(other(SILENT_LIMIT), None);
    }

    #[test]
    fn a_publisher_is_not_silent_while_the_server_stands_still() {
        let (inlet, start) = (Inlet::new("/stream1"), Instant::now());
        let at = |ms| start + Duration::from_millis(ms);
        inlet.begins(1, "10.0.0.5:4000", true, start);
        (0..=5).for_each(|i| inlet.look(at(i * 200)));
        assert!(inlet.keeps_its_place("10.0.0.6:4000", at(9_000)).is_some(), "before the first look");
        inlet.look(at(9_000));
        assert!(inlet.keeps_its_place("10.0.0.6:4000", at(9_000)).is_some());
        assert_eq!(inlet.gone_for(at(9_000)), None);
        (1..=30).for_each(|i| inlet.look(at(9_000 + i * 200)));
        assert!(inlet.gone_for(at(15_000)).is_some(), "it really is");
    }

    #[test]
    fn pictures_of_another_machine_are_said_for_a_while_but_not_those_of_the_same_one() {
        gst::init().unwrap();
        let (inlet, start) = (Inlet::new("/stream1"), Instant::now());
        let empty = gst::Sample::builder().build();
        for (key, peer) in [(1, "10.0.0.5:4000"), (2, "10.0.0.5:4001"), (3, "10.0.0.6:4000")] {
            inlet.ends(key - 1);
            inlet.begins(key, peer, true, start);
            assert_eq!((inlet.news(start), inlet.sender().as_deref()), (None, Some(peer)), "no picture yet");
            inlet.push(key, &empty, start);
        }
        let news = "10.0.0.6 publishes the pictures now, not 10.0.0.5 as before";
        assert_eq!(inlet.news(start + NEWS_FOR - Duration::from_millis(1)).as_deref(), Some(news));
        assert_eq!(inlet.news(start + NEWS_FOR), None);
    }

    #[test]
    fn one_of_rare_pictures_is_silent_later() {
        gst::init().unwrap();
        let (inlet, start) = (Inlet::new("/stream1"), Instant::now());
        let at = |ms| start + Duration::from_millis(ms);
        let empty = gst::Sample::builder().build();
        inlet.begins(1, "10.0.0.5:4000", true, start);
        // Two seconds apart.
        (0..10).for_each(|i| inlet.push(1, &empty, at(i * 2_000)));
        assert_eq!(inlet.interval(), Duration::from_secs(2));
        assert_eq!(inlet.why_silent(at(23_900)), None);
        assert!(inlet.why_silent(at(24_000)).is_some());
        assert_eq!(inlet.gone_for(at(23_900)), None);
        assert_eq!(inlet.gone_for(at(24_000)), Some(Duration::from_secs(6)));
        inlet.push(1, &empty, at(600_000));
        assert!(inlet.why_silent(at(630_000)).is_some(), "not for ever");
        inlet.push(1, &empty, at(630_040));
        inlet.push(1, &empty, at(630_080));
        assert!(inlet.why_silent(at(631_080)).is_some(), "soon again where they come often");
    }

    #[test]
    fn only_the_publisher_of_now_ends_and_is_refused() {
        let (inlet, start) = (Inlet::new("/stream1"), Instant::now());
        inlet.begins(1, "a", true, start);
        inlet.begins(2, "b", false, start);
        assert!(!inlet.ends(1) && !inlet.is_by_tcp(1) && !inlet.is_by_tcp(2));
        inlet.refuse("has B-frames");
        assert_eq!(inlet.take_refusal(1), None);
        assert_eq!(inlet.take_refusal(2).as_deref(), Some("has B-frames"));
        assert_eq!(inlet.take_refusal(2), None, "once");
        assert!(inlet.ends(2) && inlet.keeps_its_place("a", start).is_none());
    }
}
