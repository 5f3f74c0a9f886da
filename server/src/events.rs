//! What happens, for whoever follows it: states of streams, alarms, changed settings, overlays. Bounded: a reader that
//! falls behind is told so and loses its place, and nothing waits for it. Of the values of telemetry each gets the
//! newest when it can take them.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use rov_common::api::{
    AlarmEvent, RecordingEvent, RecordingStats, SettingsEvent, StateEvent, StreamHealth, StreamState,
};
use rov_common::exif::Position;
use rov_common::overlay::{self, Telemetry};
use rov_common::sync::lock;
use thiserror::Error;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, watch};
use tokio_util::sync::CancellationToken;

use crate::output::recording::RecordingOutput;
use crate::overlay::Overlays;
use crate::stream::{Stream, Streams};

/// What waits for a reader.
const WAITING: usize = 64;
/// Who follows at once. The last places are for addresses that have less than [`FEW`]: behind a proxy many have one.
const MAX_READERS: usize = 32;
const FOR_OTHERS: usize = 8;
const FEW: usize = 2;

#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    State(StateEvent),
    Alarm(AlarmEvent),
    Settings(SettingsEvent),
    Overlay(overlay::Overlay),
    Telemetry(Arc<Telemetry>),
    Recording(RecordingEvent),
}

/// Cheap to clone.
#[derive(Clone)]
pub struct Events {
    sender: broadcast::Sender<Event>,
    values: watch::Sender<Option<Arc<Telemetry>>>,
    overlays: Option<Arc<Overlays>>,
    recordings: Vec<Arc<RecordingOutput>>,
    readers: Readers,
    stop: CancellationToken,
}

/// What one reader gets.
pub struct Reader {
    /// What is so at the beginning.
    first: VecDeque<Event>,
    receiver: broadcast::Receiver<Event>,
    values: watch::Receiver<Option<Arc<Telemetry>>>,
    stop: CancellationToken,
    _place: Place,
}

/// How many follow from each address.
type Readers = Arc<Mutex<HashMap<IpAddr, usize>>>;

/// Of a reader, until it is dropped.
struct Place {
    readers: Readers,
    of: IpAddr,
}

/// Why somebody cannot follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum NoPlace {
    #[error("{MAX_READERS} readers follow the events already: try again when one has gone")]
    Taken,
    #[error("the last {FOR_OTHERS} places are for readers of other addresses: try again when one has gone")]
    TakenByAddress,
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
        Self {
            sender: broadcast::channel(WAITING).0,
            values: watch::Sender::new(None),
            overlays: None,
            recordings: Vec::new(),
            readers: Readers::default(),
            stop,
        }
    }

    /// Readers are told first what clients are to write over the pictures.
    pub fn with_overlays(self, overlays: Arc<Overlays>) -> Self {
        Self { overlays: Some(overlays), ..self }
    }

    /// Readers are told first how each stream is recorded.
    pub fn with_recordings(self, recordings: Vec<Arc<RecordingOutput>>) -> Self {
        Self { recordings, ..self }
    }

    /// Whether clients have something to write over the pictures.
    pub fn has_overlays(&self) -> bool {
        self.overlays.as_ref().is_some_and(|overlays| overlays.for_clients().next().is_some())
    }

    /// Where the vehicle is, as far as that is known.
    pub fn position(&self, now: Instant) -> Position {
        self.overlays.as_ref().map(|overlays| overlays.position(now)).unwrap_or_default()
    }

    pub async fn stopped(&self) {
        self.stop.cancelled().await;
    }

    pub fn tell(&self, event: Event) {
        // Nobody may be there.
        let _ = self.sender.send(event);
    }

    /// Takes the place of those before, wherever these have not been read.
    pub fn tell_values(&self, values: Telemetry) {
        self.values.send_replace(Some(Arc::new(values)));
    }

    /// The newest values of telemetry.
    pub fn values(&self) -> watch::Receiver<Option<Arc<Telemetry>>> {
        self.values.subscribe()
    }

    /// What happens from now on, after the states of all streams, for a reader at this address.
    ///
    /// # Errors
    /// When all places are taken.
    pub fn follow(&self, streams: &Streams, from: IpAddr) -> Result<Reader, NoPlace> {
        let place = Place::take(&self.readers, from)?;
        // Before the states are looked at, so that nothing is lost in between.
        let (receiver, mut values) = (self.sender.subscribe(), self.values.subscribe());
        if values.borrow().is_some() {
            values.mark_changed();
        }
        let mut first = VecDeque::new();
        for stream in streams.iter() {
            let health = stream.status().follow().borrow().clone();
            first.extend(alarm(stream, &health).raised.then(|| Event::Alarm(alarm(stream, &health))));
            first.push_front(Event::State(state(stream, health)));
        }
        first.extend(self.overlays.iter().flat_map(|overlays| overlays.for_clients()).map(Event::Overlay));
        let recordings = self.recordings.iter();
        first.extend(recordings.map(|one| Event::Recording(recording(one.stream(), one.stats()))));
        Ok(Reader { first, receiver, values, stop: self.stop.clone(), _place: place })
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

    /// Tells how a stream is recorded whenever that changes, until the end.
    pub fn tell_of_recording(&self, output: Arc<RecordingOutput>) -> impl Future<Output = ()> + use<> {
        let (events, mut changed) = (self.clone(), output.follow());
        async move {
            loop {
                tokio::select! {
                    () = events.stop.cancelled() => return,
                    // The recorder is there as long as the output.
                    more = changed.changed() => if more.is_err() { return },
                }
                let now = changed.borrow_and_update().clone();
                events.tell(Event::Recording(recording(output.stream(), now)));
            }
        }
    }
}

impl Place {
    fn take(readers: &Readers, of: IpAddr) -> Result<Self, NoPlace> {
        let mut all = lock(readers);
        let taken = all.values().sum::<usize>();
        if taken >= MAX_READERS {
            return Err(NoPlace::Taken);
        }
        let count = all.entry(of).or_default();
        if *count >= FEW && taken >= MAX_READERS - FOR_OTHERS {
            return Err(NoPlace::TakenByAddress);
        }
        *count += 1;
        Ok(Self { readers: Arc::clone(readers), of })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut all = lock(&self.readers);
        if let Some(count) = all.get_mut(&self.of) {
            *count -= 1;
            if *count == 0 {
                all.remove(&self.of);
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
            Ok(()) = self.values.changed() => {
                Ok(Event::Telemetry(self.values.borrow_and_update().clone().unwrap_or_default()))
            }
        }
    }
}

/// Values of telemetry, as viewers get them.
pub fn json(values: &Telemetry) -> String {
    // Texts and numbers alone.
    serde_json::to_string(values).unwrap_or_default()
}

fn state(stream: &Stream, health: StreamHealth) -> StateEvent {
    StateEvent { stream: stream.name().to_owned(), camera: stream.camera().to_owned(), health }
}

fn recording(stream: &Stream, stats: RecordingStats) -> RecordingEvent {
    RecordingEvent { stream: stream.name().to_owned(), camera: stream.camera().to_owned(), stats }
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
            Ok(other) => format!("{other:?}"),
            Err(over) => format!("{over:?}"),
        }
    }

    fn ip(host: u8) -> IpAddr {
        [10, 0, 0, host].into()
    }

    fn change(by: &str) -> Event {
        let (applied, waiting) = Default::default();
        Event::Settings(SettingsEvent { camera: None, stream: None, applied, waiting, by: by.to_owned() })
    }

    #[tokio::test]
    async fn a_reader_begins_with_what_is_so_and_gets_what_changes() {
        let (events, streams) = (Events::new(CancellationToken::new()), streams());
        tokio::spawn(events.tell_of(Arc::clone(&streams[0])));
        let mut reader = events.follow(&streams, ip(1)).expect("a place");
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
        let follow = |host: usize| events.follow(&streams, ip(host as u8));
        let mut readers: Vec<_> = (0..MAX_READERS - FOR_OTHERS).map(|_| follow(0).expect("a place")).collect();
        assert_eq!(follow(0).err(), Some(NoPlace::TakenByAddress), "the others' places are left");
        let others = (0..FOR_OTHERS).map(|at| follow(1 + at / FEW).expect("a place"));
        readers.extend(others);
        assert_eq!(follow(MAX_READERS).err(), Some(NoPlace::Taken));
        (0..=WAITING).for_each(|_| events.tell(change("pilot")));
        let mut slow = readers.remove(0);
        slow.first.clear();
        assert_eq!(next(&mut slow).await, "Behind(1)");
        drop(slow);
        assert_eq!(follow(0).err(), Some(NoPlace::TakenByAddress));
        let mut other = follow(MAX_READERS).expect("its place");
        other.first.clear();
        stop.cancel();
        assert_eq!(next(&mut other).await, "Stopping");
    }
}
