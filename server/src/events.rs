//! What happens, for whoever follows it: states of streams, alarms, changed settings. Bounded: a reader that falls behind
//! is told so and loses its place, and nothing waits for it.

use std::collections::VecDeque;
use std::sync::Arc;

use rov_common::api::{AlarmEvent, SettingsEvent, StateEvent, StreamHealth, StreamState};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, broadcast};
use tokio_util::sync::CancellationToken;

use crate::stream::{Stream, Streams};

/// What waits for a reader.
const WAITING: usize = 64;
/// Who follows at once.
pub const MAX_READERS: usize = 32;

#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    State(StateEvent),
    Alarm(AlarmEvent),
    Settings(SettingsEvent),
}

/// Cheap to clone.
#[derive(Clone)]
pub struct Events {
    sender: broadcast::Sender<Event>,
    readers: Arc<Semaphore>,
    stop: CancellationToken,
}

/// What one reader gets.
pub struct Reader {
    /// What is so at the beginning.
    first: VecDeque<Event>,
    receiver: broadcast::Receiver<Event>,
    stop: CancellationToken,
    _place: OwnedSemaphorePermit,
}

/// Why a reader gets nothing more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    /// It has fallen behind, and lost so many.
    Behind(u64),
    Stopping,
}

impl Events {
    /// Until `stop`.
    pub fn new(stop: CancellationToken) -> Self {
        Self { sender: broadcast::channel(WAITING).0, readers: Arc::new(Semaphore::new(MAX_READERS)), stop }
    }

    pub fn tell(&self, event: Event) {
        // Nobody may be there.
        let _ = self.sender.send(event);
    }

    /// What happens from now on, after the states of all streams. None: all places are taken.
    pub fn follow(&self, streams: &Streams) -> Option<Reader> {
        let place = Arc::clone(&self.readers).try_acquire_owned().ok()?;
        // Before the states are looked at, so that nothing is lost in between.
        let receiver = self.sender.subscribe();
        let mut first = VecDeque::new();
        for stream in streams.iter() {
            let health = stream.status().follow().borrow().clone();
            first.extend(alarm(stream, &health).raised.then(|| Event::Alarm(alarm(stream, &health))));
            first.push_front(Event::State(state(stream, health)));
        }
        Some(Reader { first, receiver, stop: self.stop.clone(), _place: place })
    }

    /// Tells of a stream what is other than now, until the end.
    pub fn tell_of(&self, stream: Arc<Stream>) -> impl Future<Output = ()> + use<> {
        let (events, mut health) = (self.clone(), stream.status().follow());
        let mut told = alarm(&stream, &health.borrow_and_update());
        async move {
            loop {
                tokio::select! {
                    () = events.stop.cancelled() => return,
                    // The stream is there as long as this.
                    changed = health.changed() => if changed.is_err() { return },
                }
                let now = health.borrow_and_update().clone();
                let alarm = alarm(&stream, &now);
                events.tell(Event::State(state(&stream, now)));
                if alarm != told {
                    events.tell(Event::Alarm(alarm.clone()));
                    told = alarm;
                }
            }
        }
    }
}

impl Reader {
    /// The next; waits for it.
    ///
    /// # Errors
    /// Says why there is none any more.
    pub async fn next(&mut self) -> Result<Event, Over> {
        if let Some(event) = self.first.pop_front() {
            return Ok(event);
        }
        tokio::select! {
            () = self.stop.cancelled() => Err(Over::Stopping),
            event = self.receiver.recv() => event.map_err(|error| match error {
                RecvError::Lagged(lost) => Over::Behind(lost),
                RecvError::Closed => Over::Stopping,
            }),
        }
    }
}

fn state(stream: &Stream, health: StreamHealth) -> StateEvent {
    StateEvent { stream: stream.name().to_owned(), camera: stream.camera().to_owned(), health }
}

fn alarm(stream: &Stream, health: &StreamHealth) -> AlarmEvent {
    AlarmEvent {
        stream: stream.name().to_owned(),
        camera: stream.camera().to_owned(),
        raised: health.state != StreamState::Running || health.reason.is_some(),
        reason: health.reason.clone(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rov_common::capture_clock::CaptureClock;
    use rov_common::codec::Codec;

    use super::*;

    fn streams() -> Streams {
        Streams::new([("bow", "stream1", Codec::H264), ("bow", "stream2", Codec::H264)], CaptureClock::start()).0
    }

    async fn next(reader: &mut Reader) -> String {
        let event = tokio::time::timeout(Duration::from_secs(10), reader.next()).await.expect("an event");
        match event {
            Ok(Event::State(StateEvent { stream, health, .. })) => format!("{stream} {:?}", health.state),
            Ok(Event::Alarm(AlarmEvent { stream, raised, reason, .. })) => format!("{stream} {raised} {reason:?}"),
            Ok(Event::Settings(SettingsEvent { by, .. })) => by,
            Err(over) => format!("{over:?}"),
        }
    }

    fn change(by: &str) -> Event {
        let (applied, waiting) = Default::default();
        Event::Settings(SettingsEvent { camera: None, stream: None, applied, waiting, by: by.to_owned() })
    }

    #[tokio::test]
    async fn a_reader_begins_with_what_is_so_and_gets_what_changes() {
        let (events, streams) = (Events::new(CancellationToken::new()), streams());
        tokio::spawn(events.tell_of(Arc::clone(&streams[0])));
        let mut reader = events.follow(&streams).expect("a place");
        for first in ["stream2 Starting", "stream1 Starting", "stream1 true None", "stream2 true None"] {
            assert_eq!(next(&mut reader).await, first);
        }
        streams[0].status().set_stopped(StreamState::Restarting, "gone".to_owned());
        assert_eq!(next(&mut reader).await, "stream1 Restarting");
        assert_eq!(next(&mut reader).await, "stream1 true Some(\"gone\")");
        streams[0].status().set_stopped(StreamState::Restarting, "gone".to_owned());
        streams[0].status().set_resting(true);
        assert_eq!(next(&mut reader).await, "stream1 Restarting", "it rests, and the alarm is the same");
        events.tell(change("pilot"));
        assert_eq!(next(&mut reader).await, "pilot");
    }

    #[tokio::test]
    async fn who_does_not_read_is_told_so_and_there_are_so_many_places() {
        let stop = CancellationToken::new();
        let (events, streams) = (Events::new(stop.clone()), streams());
        let mut readers: Vec<_> = (0..MAX_READERS).filter_map(|_| events.follow(&streams)).collect();
        assert!(readers.len() == MAX_READERS && events.follow(&streams).is_none());
        (0..=WAITING).for_each(|_| events.tell(change("pilot")));
        let mut slow = readers.remove(0);
        slow.first.clear();
        assert_eq!(next(&mut slow).await, "Behind(1)");
        drop(slow);
        let mut other = events.follow(&streams).expect("its place");
        other.first.clear();
        stop.cancel();
        assert_eq!(next(&mut other).await, "Stopping");
    }
}
