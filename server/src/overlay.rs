//! What is written over the pictures of each stream: how it is set, what the pipeline burns into them, and what clients
//! are told.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rov_common::exif::Position;
use rov_common::overlay::{self, Field, Telemetry};
use rov_common::sync::lock;

use crate::config::OverlayConfig;
use crate::events::{Event, Events};
use crate::stream::Streams;
use crate::telemetry::Board;

/// Clients are told no more often,
const TELL: Duration = Duration::from_millis(100);
/// and no less: by it they know that the time of day is that of now.
const REMIND: Duration = Duration::from_secs(1);

/// Of all streams, in the order of the configuration.
#[derive(Debug)]
pub struct Overlays {
    /// Of the clock in what clients are told, and which start of the server it is.
    run: u32,
    started: Instant,
    board: Arc<Board>,
    all: Vec<Arc<Overlay>>,
}

/// Of a stream.
#[derive(Debug)]
pub struct Overlay {
    stream: String,
    camera: String,
    board: Arc<Board>,
    /// Telemetry is received, of which all fields are shown without any that are named.
    has_telemetry: bool,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    config: OverlayConfig,
    canvas: Canvas,
}

/// What pictures are to what is written over them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Canvas {
    /// Why nothing can be burned into them.
    pub obstacle: Option<&'static str>,
    /// While the link is good: places are meant in such ones. 0: not known, or always as they come.
    pub height: u32,
}

impl Canvas {
    pub fn without(obstacle: &'static str) -> Self {
        Self { obstacle: Some(obstacle), height: 0 }
    }
}

impl Overlays {
    pub fn new<'a>(
        streams: &Streams,
        configs: impl Iterator<Item = &'a OverlayConfig>,
        board: Arc<Board>,
        has_telemetry: bool,
    ) -> Self {
        let all = streams.iter().zip(configs).map(|(stream, config)| {
            Arc::new(Overlay {
                stream: stream.name().to_owned(),
                camera: stream.camera().to_owned(),
                board: Arc::clone(&board),
                has_telemetry,
                state: Mutex::new(State { config: config.clone(), canvas: Canvas::default() }),
            })
        });
        Self { run: rand::random(), started: Instant::now(), all: all.collect(), board }
    }

    pub fn all(&self) -> &[Arc<Overlay>] {
        &self.all
    }

    /// What clients are to write, of each stream where they are to write something.
    pub fn for_clients(&self) -> impl Iterator<Item = overlay::Overlay> + '_ {
        self.all.iter().map(|overlay| overlay.told()).filter(|overlay| overlay.drawn.is_for_clients())
    }

    /// Where the vehicle is, by its newest telemetry.
    pub fn position(&self, now: Instant) -> Position {
        Position::of(&self.board.values(now))
    }

    fn telemetry(&self, now: Instant) -> Telemetry {
        let clients = self.all.iter().filter(|overlay| overlay.config().drawn.is_for_clients());
        let times = clients.filter_map(|overlay| Some((overlay.stream.clone(), overlay.config().time()?)));
        let at_ms = now.saturating_duration_since(self.started).as_millis() as u64;
        Telemetry { run: self.run, at_ms, fields: self.board.values(now), times: times.collect::<BTreeMap<_, _>>() }
    }

    /// Tells those who follow `events` what is to be written, when that changes, and the values.
    pub async fn tell(self: Arc<Self>, events: Events) {
        let mut told: Vec<_> = self.all.iter().map(|overlay| overlay.told()).collect();
        let (mut newest, mut changes, mut at) = (Telemetry::default(), 0, Instant::now());
        let mut ticks = tokio::time::interval(TELL);
        loop {
            tokio::select! {
                () = events.stopped() => return,
                _ = ticks.tick() => {}
            }
            for (told, overlay) in told.iter_mut().zip(&self.all) {
                let now = overlay.told();
                let is_for_clients = now.drawn.is_for_clients() || told.drawn.is_for_clients();
                if is_for_clients && *told != now {
                    events.tell(Event::Overlay(now.clone()));
                }
                *told = now;
            }
            let (now, count) = (Instant::now(), self.board.changes());
            let values = self.telemetry(now);
            // Once it is told that there are none.
            if values.is_empty() && newest.is_empty() {
                continue;
            }
            let is_new = count != changes || differs(&values, &newest);
            if is_new || now.saturating_duration_since(at) >= REMIND {
                (newest, changes, at) = (values.clone(), count, now);
                events.tell_values(values);
            }
        }
    }
}

/// By more than the age of its values.
fn differs(values: &Telemetry, newest: &Telemetry) -> bool {
    let texts = |of: &Telemetry| of.fields.values().map(|value| value.text.clone()).collect::<Vec<_>>();
    values.times != newest.times || texts(values) != texts(newest)
}

impl Overlay {
    pub fn config(&self) -> OverlayConfig {
        lock(&self.state).config.clone()
    }

    /// # Errors
    /// Where it is to be burned into pictures into which it cannot be; says why. Then it stays as it is.
    pub fn set(&self, config: &OverlayConfig) -> Result<(), String> {
        let mut state = lock(&self.state);
        if let Some(obstacle) = state.canvas.obstacle.filter(|_| config.drawn.is_burned()) {
            return Err(refusal(config, obstacle));
        }
        state.config.clone_from(config);
        Ok(())
    }

    /// The pictures that are shown from now on are such ones.
    pub fn set_canvas(&self, canvas: Canvas) {
        let mut state = lock(&self.state);
        let is_news = state.config.drawn.is_burned() && state.canvas.obstacle != canvas.obstacle;
        if let Some(obstacle) = canvas.obstacle.filter(|_| is_news) {
            tracing::warn!(stream = self.stream, "{}", refusal(&state.config, obstacle));
        }
        state.canvas = canvas;
    }

    /// What is to be burned into the pictures now: where it begins, and the lines; none: nothing.
    pub fn burned(&self, now: Instant) -> Option<((u32, u32), Vec<String>)> {
        if !lock(&self.state).config.drawn.is_burned() {
            return None;
        }
        let (told, time) = (self.told(), self.config().time());
        let lines = told.lines(time.as_deref(), |field| self.board.text(&field.name, now));
        (!lines.is_empty()).then_some(((told.x, told.y), lines))
    }

    fn told(&self) -> overlay::Overlay {
        let (config, height) = {
            let state = lock(&self.state);
            (state.config.clone(), state.canvas.height)
        };
        let is_shown = |name: &str| match &config.fields {
            Some(names) => names.iter().any(|shown| shown == name),
            None => self.has_telemetry,
        };
        let shown = self.board.fields().iter().filter(|field| is_shown(&field.name));
        let fields =
            shown.map(|field| Field { name: field.name.clone(), label: field.label.clone(), limit_ms: field.limit_ms });
        overlay::Overlay {
            stream: self.stream.clone(),
            camera: self.camera.clone(),
            drawn: config.drawn,
            x: config.x,
            y: config.y,
            height,
            has_time: config.time().is_some(),
            fields: fields.collect(),
            text: config.text,
        }
    }
}

fn refusal(config: &OverlayConfig, obstacle: &str) -> String {
    format!(
        "--overlay {}: nothing can be burned into the pictures, as {obstacle}: take client, for which viewers write \
         over them",
        config.drawn
    )
}

#[cfg(test)]
mod tests {
    use rov_common::capture_clock::CaptureClock;
    use rov_common::codec::Codec;
    use rov_common::overlay::Where;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::choices::Timestamp;
    use crate::config::FieldConfig;

    fn overlays(config: OverlayConfig) -> (Arc<Overlays>, Streams) {
        let streams = Streams::new([("cam1", "stream1", Codec::H264)], CaptureClock::start()).0;
        let board = Arc::new(Board::new(FieldConfig::usual()));
        (Arc::new(Overlays::new(&streams, [&config].into_iter(), board, true)), streams)
    }

    fn config(drawn: Where) -> OverlayConfig {
        let fields = Some(vec!["heading".to_owned(), "depth".to_owned()]);
        OverlayConfig {
            drawn,
            timestamp: Timestamp::Off,
            text: "Dive 7".to_owned(),
            fields,
            ..OverlayConfig::default()
        }
    }

    #[test]
    fn what_is_burned_has_the_newest_values_and_none_that_are_old() {
        let (overlays, _) = overlays(config(Where::Burn));
        let (overlay, now) = (&overlays.all()[0], Instant::now());
        overlays.board.set("depth", 3.21, now);
        let lines = |at| overlay.burned(at).expect("lines").1.join("|");
        assert_eq!(lines(now), "Dive 7|Depth 3.2 m|Heading --");
        assert_eq!(lines(now + Duration::from_millis(2001)), "Dive 7|Depth --|Heading --");
        overlay.set(&config(Where::Client)).expect("that can be");
        assert_eq!(overlay.burned(now), None);
        overlay.set(&OverlayConfig { timestamp: Timestamp::Utc, ..config(Where::Both) }).expect("that can be");
        assert_eq!(overlay.burned(now).expect("lines").1.len(), 4);
    }

    #[test]
    fn what_cannot_be_burned_is_refused_and_stays_as_it_was() {
        let (overlays, _) = overlays(config(Where::Client));
        let overlay = &overlays.all()[0];
        overlay.set_canvas(Canvas::without("they are sent as they come"));
        let refused = overlay.set(&config(Where::Both)).expect_err("no burning");
        assert!(refused.contains("as they are sent as they come: take client"), "{refused}");
        assert_eq!(overlay.config(), config(Where::Client));
        overlay.set(&config(Where::Off)).expect("that can be");
        overlay.set_canvas(Canvas::default());
        overlay.set(&config(Where::Burn)).expect("now that can be");
    }

    #[tokio::test]
    async fn clients_are_told_what_to_write_and_the_newest_values() {
        let (overlays, streams) = overlays(config(Where::Client));
        let events = Events::new(CancellationToken::new()).with_overlays(Arc::clone(&overlays));
        tokio::spawn(Arc::clone(&overlays).tell(events.clone()));
        let mut reader = events.follow(&streams, [127, 0, 0, 1].into()).expect("a place");
        let mut next = async || loop {
            let event = tokio::time::timeout(Duration::from_secs(10), reader.next()).await.expect("an event in time");
            match event.expect("no end") {
                Event::State(_) | Event::Alarm(_) => {}
                other => return other,
            }
        };
        let Event::Overlay(first) = next().await else { panic!("what is so at the beginning comes first") };
        assert_eq!((first.drawn, first.text.as_str(), first.fields.len()), (Where::Client, "Dive 7", 2));
        for depth in [1.0, 2.0, 3.0] {
            overlays.board.set("depth", depth, Instant::now());
        }
        let Event::Telemetry(values) = next().await else { panic!("values") };
        assert_eq!((values.fields["depth"].text.as_str(), values.fields.len()), ("3.0 m", 1), "the newest alone");
        overlays.all()[0].set(&config(Where::Off)).expect("that can be");
        loop {
            match next().await {
                Event::Overlay(last) => break assert_eq!(last.drawn, Where::Off),
                Event::Telemetry(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }
}
