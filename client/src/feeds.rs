//! Which streams are watched, and which of them are on the screen: one that is large, or the tiles of the grid.
//!
//! Another stream takes the place of the large one at its first picture: until then the former goes on under its own
//! name. Streams that are not on the screen have no session.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rov_common::sync::lock;
use rov_common::units::Resolution;
use tokio::runtime::Handle;
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::align::{Limits, Wish};
use crate::aligned::Aligned;
use crate::beat::Beat;
use crate::clip::{Around, Clips};
use crate::clock::Clocks;
use crate::decode::{Picture, PictureForm};
use crate::display::{Command, Grid, Layout, STALE_AFTER, Snapped, Stage, ViewModel};
use crate::event::{Events, Seen};
use crate::feed::Feed;
use crate::find::Guide;
use crate::late::Warning;
use crate::mailbox::Bell;
use crate::recording::Recording;
use crate::session;
use crate::snapshot::{Saver, Snapshot};
use crate::stats::{AlignmentReport, Report, Shown};
use crate::streams::{GridOf, Lineup, Tile, Wanted};
use crate::target::{SessionConfig, SessionError};
use crate::told::Told;
use crate::viewer::{Choice, Viewer};

/// More streams do not fit into the grid.
pub const MAX_TILES: usize = 16;
/// A chosen stream that has no picture by then is shown without: the pilot wants to know how it is.
const CHANGE_LIMIT: Duration = Duration::from_secs(2);
/// What was chosen is said for so long, and a list.
const SAID_FOR: Duration = Duration::from_secs(3);
const LISTED_FOR: Duration = Duration::from_secs(6);
/// What the key C saves, where so much is kept.
const LAST: Duration = Duration::from_secs(30);
/// What is said of the alignment changes no more often.
const TOLD_INTERVAL: Duration = Duration::from_millis(500);
/// The server's list is looked at so often.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// What is on the screen, for the figures.
pub struct OnScreen {
    /// At least one; the large one, or the tiles.
    panes: Vec<Arc<Feed>>,
    is_grid: bool,
    /// Pictures of the large stream, or of the first tile.
    shown: Shown,
    /// Counters of streams that were closed.
    closed: Report,
    alignment: Option<AlignmentReport>,
    recording: Arc<Recording>,
    /// Of the thread that shows them.
    beat: Arc<Beat>,
}

impl OnScreen {
    pub fn beat(&self) -> &Arc<Beat> {
        &self.beat
    }

    /// Names and momentary figures are of the large stream, or of the first tile; counters of all that were watched.
    pub fn report(&self, now: Instant) -> Report {
        let mut report = Report::default();
        for (at, feed) in self.panes.iter().enumerate() {
            let mut one = Report::default();
            feed.viewer.report(&mut one);
            if at == 0 {
                one.stream = feed.stream();
                report = one;
            } else {
                report.count(&one);
            }
        }
        report.count(&self.closed);
        self.shown.report(now, &mut report);
        report.recording = self.recording.report();
        if self.is_grid {
            report.alignment.clone_from(&self.alignment);
            report.tiles = self.panes.iter().map(|feed| feed.report(now)).collect();
        }
        report
    }
}

/// A stream that was chosen and has no picture yet.
struct Opening {
    feed: Arc<Feed>,
    asked: Instant,
}

pub struct Feeds {
    config: SessionConfig,
    runtime: Handle,
    guide: Arc<Guide>,
    choice: Arc<Choice>,
    told: Told,
    clocks: Clocks,
    recording: Arc<Recording>,
    /// Rung by the pictures of all.
    bell: Arc<Bell>,
    beat: Arc<Beat>,
    stop: CancellationToken,
    sessions: JoinSet<()>,
    /// Why the program cannot go on.
    failure: Arc<Mutex<Option<SessionError>>>,
    screen: Arc<Mutex<OnScreen>>,
    layout: Layout,
    opening: Option<Opening>,
    lineup: Lineup,
    looked: Option<Instant>,
    grid_of: GridOf,
    /// The grid is to be shown as soon as the streams are known.
    wants_grid: bool,
    /// The name of the stream that was large before the grid.
    before_grid: String,
    tiles: Vec<Tile>,
    /// How the pilot wants the grid.
    wish: Wish,
    aligned: Option<Aligned>,
    /// What is said of it changes no more often than it can be read.
    aligned_told: Option<Instant>,
    /// Feeds so far.
    number: u64,
    /// In what form the large picture is wanted.
    large: Option<PictureForm>,
    said: Option<(String, Instant)>,
    /// None: without a window.
    saver: Option<Saver>,
    clips: Option<Clips>,
    events: Option<Events>,
}

impl Feeds {
    /// Begins to watch what the configuration says; `grid`: then all of that server.
    pub fn start(
        runtime: Handle,
        config: SessionConfig,
        grid: Option<GridOf>,
        recording: Arc<Recording>,
        (started, stop): (Instant, CancellationToken),
    ) -> Result<Self, SessionError> {
        let guide = {
            // Its sockets belong to the runtime.
            let _runtime = runtime.enter();
            Guide::new(&config)?
        };
        let (bell, choice, told) = (Arc::<Bell>::default(), Arc::<Choice>::default(), Told::default());
        let clocks = Clocks::default();
        let record = Arc::clone(&recording);
        let viewer = Viewer::with(Arc::clone(&bell), Arc::clone(&choice), told.clone(), clocks.clone(), record);
        let first = Arc::new(Feed::new(0, None, viewer, stop.child_token(), config.max_age));
        let screen = OnScreen {
            panes: vec![Arc::clone(&first)],
            is_grid: false,
            shown: Shown::new(started),
            closed: Report::default(),
            alignment: None,
            recording: Arc::clone(&recording),
            beat: Arc::default(),
        };
        let mut this = Self {
            beat: Arc::clone(&screen.beat),
            config: config.clone(),
            runtime,
            guide,
            choice,
            told,
            clocks,
            recording,
            bell,
            stop,
            sessions: JoinSet::new(),
            failure: Arc::default(),
            screen: Arc::new(Mutex::new(screen)),
            layout: Layout { panes: vec![first.id], grid: None },
            opening: None,
            lineup: Lineup::default(),
            looked: None,
            grid_of: grid.unwrap_or_default(),
            wants_grid: grid.is_some(),
            before_grid: String::new(),
            tiles: Vec::new(),
            wish: Wish::default(),
            aligned: None,
            aligned_told: None,
            number: 0,
            large: None,
            said: None,
            saver: None,
            clips: None,
            events: None,
        };
        this.begin(&first, config);
        Ok(this)
    }

    /// Shows the tiles of the grid so from the start; the key A changes it.
    pub fn align(&mut self, wish: Wish) {
        self.wish = wish;
    }

    /// Snapshots, clips and events go into this folder.
    pub fn save_into(&mut self, folder: PathBuf) -> std::io::Result<()> {
        self.clips = Some(Clips::new(folder.clone()));
        self.events = Some(Events::start(folder.clone())?);
        self.saver = Some(Saver::start(folder)?);
        Ok(())
    }

    pub fn screen(&self) -> Arc<Mutex<OnScreen>> {
        Arc::clone(&self.screen)
    }

    /// Ends all sessions within `limit`, and says why the program could not go on, if so.
    pub async fn finish(mut self, limit: Duration) -> Result<(), SessionError> {
        self.stop.cancel();
        let ended = async {
            while let Some(ended) = self.sessions.join_next().await {
                self.panicked(ended);
            }
        };
        if tokio::time::timeout(limit, ended).await.is_err() {
            tracing::warn!("the sessions did not end within {} s and are cut off", limit.as_secs());
        }
        lock(&self.failure).take().map_or(Ok(()), Err)
    }

    fn panicked(&self, ended: Result<(), JoinError>) {
        if let Err(panic) = ended {
            *lock(&self.failure) = Some(anyhow::anyhow!("a session ended badly: {panic}").into());
        }
    }

    fn begin(&mut self, feed: &Arc<Feed>, config: SessionConfig) {
        while let Some(ended) = self.sessions.try_join_next() {
            self.panicked(ended);
        }
        let (viewer, stop, guide) = (Arc::clone(&feed.viewer), feed.stop().clone(), Arc::clone(&self.guide));
        let (failure, all) = (Arc::clone(&self.failure), self.stop.clone());
        let session = async move {
            // A panic ends the program.
            let guard = all.drop_guard();
            match session::follow(config, guide, viewer, stop).await {
                // It was closed: the others go on.
                Ok(()) => drop(guard.disarm()),
                // None has ever stood.
                Err(error) => *lock(&failure) = Some(error),
            }
        };
        self.sessions.spawn_on(session, &self.runtime);
    }

    /// Begins to watch a stream of the server.
    fn open(&mut self, tile: &Tile) -> Arc<Feed> {
        let (told, clocks, recording) = (self.told.clone(), self.clocks.clone(), Arc::clone(&self.recording));
        let viewer = Viewer::with(Arc::clone(&self.bell), Arc::clone(&self.choice), told, clocks, recording);
        self.number += 1;
        let (name, stop) = (Some(tile.stream.clone()), self.stop.child_token());
        let feed = Arc::new(Feed::new(self.number, name, viewer, stop, self.config.max_age));
        let stream = Some(Wanted { camera: None, stream: Some(tile.stream.clone()) });
        self.begin(&feed, SessionConfig { stream, ..self.config.clone() });
        feed
    }

    fn panes(&self) -> Vec<Arc<Feed>> {
        lock(&self.screen).panes.clone()
    }

    fn is_grid(&self) -> bool {
        self.layout.grid.is_some()
    }

    /// The name of the large stream; in the grid that of the one that was large.
    fn current(&self) -> String {
        if self.is_grid() { self.before_grid.clone() } else { lock(&self.screen).panes[0].stream() }
    }

    fn say(&mut self, text: String, lasts: Duration) {
        self.said = Some((text, Instant::now() + lasts));
    }

    /// The stream of this key becomes large.
    fn choose(&mut self, number: usize, now: Instant) {
        let Some(stream) = self.lineup.get(number) else {
            let text = match self.lineup.len() {
                0 => "The server has not said what streams it has".to_owned(),
                1 => format!("There is no stream {number}, only {}", self.lineup.told()),
                _ => format!("There is no stream {number}. There are {}", self.lineup.told()),
            };
            return self.say(text, LISTED_FOR);
        };
        let tile = Tile { number, title: stream.title(), stream: stream.name.clone() };
        self.say(format!("{number} {}", tile.title), SAID_FOR);
        let panes = self.panes();
        // A server of one stream does not name it.
        let is_it = |stream: &str| stream == tile.stream || (stream.is_empty() && self.lineup.len() == 1);
        if let Some(shown) = panes.iter().find(|feed| is_it(&feed.stream())) {
            self.opening.take().iter().for_each(|opening| opening.feed.close());
            if self.is_grid() {
                self.show(vec![Arc::clone(shown)], None, Some(now));
            }
            return;
        }
        if self.opening.as_ref().is_some_and(|opening| opening.feed.stream() == tile.stream) {
            return;
        }
        let feed = self.open(&tile);
        if let Some(output) = &self.large {
            feed.viewer.set_output(output.clone());
        }
        let former = self.opening.replace(Opening { feed, asked: now });
        former.iter().for_each(|former| former.feed.close());
    }

    fn open_grid(&mut self) {
        let mut tiles = self.lineup.tiles(self.grid_of);
        let left_out: Vec<_> = tiles.drain(MAX_TILES.min(tiles.len())..).collect();
        if tiles.is_empty() {
            return self.say("The server has not said what streams it has".to_owned(), LISTED_FOR);
        }
        self.before_grid = self.current();
        self.opening.take().iter().for_each(|opening| opening.feed.close());
        let before = self.panes();
        let same = |tile: &Tile| before.iter().find(|feed| feed.stream() == tile.stream).cloned();
        let panes: Vec<_> = tiles.iter().map(|tile| same(tile).unwrap_or_else(|| self.open(tile))).collect();
        let names: Vec<_> = left_out.iter().map(|tile| format!("{} {}", tile.number, tile.title)).collect();
        let note = match names.len() {
            0 => String::new(),
            number => format!("{number} more do not fit: {}", names.join(", ")),
        };
        let captions = tiles.iter().map(|tile| format!("{} {}", tile.number, tile.title)).collect();
        self.tiles = tiles;
        self.show(panes, Some(Grid { captions, note, ..Grid::default() }), None);
    }

    /// These are on the screen from now on; `asked`: since when the pilot waits for the first.
    fn show(&mut self, panes: Vec<Arc<Feed>>, grid: Option<Grid>, asked: Option<Instant>) {
        let mut screen = lock(&self.screen);
        screen.shown.change(asked);
        screen.is_grid = grid.is_some();
        let before = std::mem::replace(&mut screen.panes, panes);
        let gone: Vec<_> = before.iter().filter(|old| !screen.panes.iter().any(|new| Arc::ptr_eq(old, new))).collect();
        for feed in gone {
            let mut counters = Report::default();
            feed.viewer.report(&mut counters);
            screen.closed.count(&counters);
            feed.close();
        }
        let panes = screen.panes.iter().map(|feed| feed.id).collect();
        self.layout = Layout { panes, grid };
        drop(screen);
        self.end_alignment();
    }

    /// Says that it is being fetched, or why not.
    fn fetch_clip(&self, now: Instant) -> &'static str {
        if self.is_grid() {
            return "Make one of the tiles large first: a clip is of one stream";
        }
        let viewer = &self.panes()[0].viewer;
        match (&self.clips, viewer.api()) {
            (Some(clips), Some(api)) => {
                let about = viewer.about(None, now);
                let latest = viewer.api_clock().and_then(|clock| clock.latest(now));
                let wanted = Around {
                    stream: about.stream.clone(),
                    moment: now,
                    captured: latest.map(|(captured, _)| captured),
                    run: latest.map(|(_, run)| run),
                    before: api.kept.unwrap_or(LAST).min(LAST),
                    after: Duration::ZERO,
                };
                clips.fetch(api, about, wanted)
            }
            (None, _) => "No clip was saved: there is no folder for it",
            (_, None) => "No clip was saved: the sender has no HTTP API that is known here",
        }
    }

    /// Each tile shows its newest picture again.
    fn end_alignment(&mut self) {
        if self.aligned.take().is_some() {
            let mut screen = lock(&self.screen);
            screen.alignment = None;
            screen.panes.iter().for_each(|feed| feed.viewer.mailbox.set_depth(1));
        }
        self.aligned_told = None;
        if let Some(grid) = &mut self.layout.grid {
            grid.alignment = None;
        }
    }

    /// Begins or ends it, as the pilot and the server want it, and chooses the pictures of this moment.
    fn tend_alignment(&mut self, now: Instant) {
        let limits = self.limits();
        if self.aligned.as_ref().map(Aligned::limits) != limits {
            self.end_alignment();
            let panes = self.panes();
            self.aligned = limits.map(|limits| Aligned::begin(&panes, limits, now));
        }
        let Some(aligned) = &mut self.aligned else { return };
        aligned.choose(now);
        if self.aligned_told.is_none_or(|at| now.saturating_duration_since(at) >= TOLD_INTERVAL) {
            self.aligned_told = Some(now);
            lock(&self.screen).alignment = Some(aligned.report());
            if let Some(grid) = &mut self.layout.grid {
                grid.alignment = Some(aligned.told());
            }
        }
    }

    /// How the tiles of the grid are to be aligned, if so.
    fn limits(&self) -> Option<Limits> {
        self.is_grid()
            .then(|| lock(&self.screen).panes[0].viewer.alignment())
            .and_then(|server| self.wish.limits(server))
    }

    /// Takes what the server says of its streams.
    fn look(&mut self) {
        let panes = self.panes();
        let Some(streams) = panes.iter().map(|feed| feed.viewer.streams()).find(|streams| !streams.is_empty()) else {
            return;
        };
        let lineup = Lineup::of(&streams);
        let is_other = lineup.told() != self.lineup.told();
        self.lineup = lineup;
        if self.wants_grid || (is_other && self.is_grid()) {
            self.wants_grid = false;
            self.open_grid();
        }
    }

    /// The chosen stream takes its place, as soon as it has a picture. There is nothing to wait for where none is seen.
    fn change_over(&mut self, now: Instant) {
        let Some(opening) = &self.opening else { return };
        let is_there = opening.feed.viewer.mailbox.is_filled();
        let is_long = now.saturating_duration_since(opening.asked) >= CHANGE_LIMIT;
        if is_there || is_long || !self.panes().iter().any(|feed| feed.is_live(now, STALE_AFTER)) {
            let (feed, asked) = (Arc::clone(&opening.feed), opening.asked);
            self.opening = None;
            self.show(vec![feed], None, Some(asked));
        }
    }
}

impl Stage for Feeds {
    fn wait(&mut self, limit: Duration) {
        self.beat.beat();
        let due = self.aligned.as_ref().and_then(Aligned::due);
        let left = due.map_or(limit, |due| due.saturating_duration_since(Instant::now()));
        self.bell.wait(limit.min(left));
    }

    fn layout(&mut self, now: Instant) -> Layout {
        if self.looked.is_none_or(|at| now.saturating_duration_since(at) >= LOOK_INTERVAL) {
            self.looked = Some(now);
            self.look();
        }
        self.change_over(now);
        if let Some(grid) = &mut self.layout.grid {
            let vehicle = lock(&self.screen).panes[0].viewer.server();
            grid.vehicle = if vehicle.name.is_empty() { vehicle.address } else { vehicle.name };
        }
        self.tend_alignment(now);
        self.layout.clone()
    }

    fn view(&mut self, pane: usize, now: Instant) -> ViewModel {
        let feed = self.panes().get(pane).cloned();
        let mut view = feed.map(|feed| feed.view(now)).unwrap_or_default();
        let snapshot = self.saver.as_ref().and_then(Saver::news);
        let (clip, event) = (self.clips.as_ref().and_then(Clips::news), self.events.as_ref().and_then(Events::news));
        for news in [snapshot, clip, event].into_iter().flatten() {
            self.say(news, LISTED_FOR);
        }
        self.said.take_if(|(_, until)| now >= *until);
        view.remark = self.aligned.as_ref().map_or("", |aligned| aligned.remark(pane));
        view.said = self.said.as_ref().filter(|_| pane == 0).map(|(text, _)| text.clone());
        view
    }

    fn take(&mut self, pane: usize) -> Option<Picture> {
        let feed = lock(&self.screen).panes.get(pane).cloned()?;
        feed.take(|| match &mut self.aligned {
            Some(aligned) => aligned.take(pane),
            None => feed.viewer.mailbox.take(),
        })
    }

    fn late(&mut self, pane: usize, now: Instant) -> Option<Warning> {
        let feed = lock(&self.screen).panes.get(pane).cloned()?;
        feed.late(now)
    }

    fn shown(&mut self, pane: usize, picture: &Picture, at: Instant) {
        let mut screen = lock(&self.screen);
        let Some(feed) = screen.panes.get(pane).cloned() else { return };
        feed.shown(picture, at, (pane == 0).then_some(&mut screen.shown));
    }

    fn set_outputs(&mut self, large: PictureForm, tiles: &[Resolution]) {
        let panes = self.panes();
        if self.is_grid() {
            for (feed, size) in panes.iter().zip(tiles) {
                feed.viewer.set_output(PictureForm::within(*size));
            }
        } else {
            panes[0].viewer.set_output(large.clone());
        }
        if let Some(opening) = &self.opening {
            opening.feed.viewer.set_output(large.clone());
        }
        self.large = Some(large);
    }

    fn save(&mut self, shown: &[Snapped<'_>], now: Instant) {
        let panes = self.panes();
        let snapshot = |snapped: &Snapped<'_>| {
            let feed = panes.iter().find(|feed| feed.id == snapped.id)?;
            feed.snapshot(snapped.picture, snapped.is_moving, now)
        };
        let snapshots: Vec<_> = shown.iter().filter_map(snapshot).collect();
        let said = match &self.saver {
            _ if snapshots.is_empty() => Err("There is no picture to save yet"),
            None => Err("Not saved: there is no folder for it"),
            Some(saver) => saver.save(snapshots),
        };
        if let Err(reason) = said {
            tracing::warn!("{reason}");
            self.say(reason.to_owned(), SAID_FOR);
        }
    }

    fn begin_event(&mut self, shown: &[Snapped<'_>], now: Instant) {
        let mut telemetry = self.panes()[0].viewer.told.fields(now);
        let mut seen = |feed: &Arc<Feed>| {
            let snapped = shown.iter().find(|snapped| snapped.id == feed.id);
            let nothing = || {
                let picture = Err("there was no picture".to_owned());
                let (api, latest) = (feed.viewer.api(), feed.viewer.api_clock().and_then(|clock| clock.latest(now)));
                let (captured, run) = latest.unzip();
                Seen { picture, about: feed.nothing(now), captured, run, api }
            };
            let Some(snapped) = snapped else { return nothing() };
            let (api, clock, is_watched) = feed.origin(snapped.picture);
            let Some(snapshot) = feed.snapshot(snapped.picture, snapped.is_moving, now) else { return nothing() };
            let Snapshot { picture, mut about } = snapshot;
            if !is_watched {
                telemetry.clear();
                about.remarks.push("Another server is connected by now: its telemetry is left out.".to_owned());
            }
            let (latest, run) = clock.and_then(|clock| clock.latest(now)).unzip();
            let captured = snapped.picture.captured.or(latest);
            Seen { picture: Ok(picture), about, captured, run, api }
        };
        let seen = self.panes().iter().map(&mut seen).collect();
        let begun = match &mut self.events {
            Some(events) => events.begin(seen, telemetry, now),
            None => Err("No event: there is no folder for it".to_owned()),
        };
        if let Err(reason) = begun {
            tracing::warn!("{reason}");
            self.say(reason, LISTED_FOR);
        }
    }

    fn end_event(&mut self, text: Option<String>) {
        let is_saved = text.is_some();
        let is_saved = self.events.as_mut().is_some_and(|events| events.end(text)) && is_saved;
        let said = if is_saved { "Saving the event..." } else { "No event was saved" };
        self.say(said.to_owned(), SAID_FOR);
    }

    fn obey(&mut self, command: Command, now: Instant) {
        match command {
            Command::Server(offer) => self.choice.choose(offer),
            Command::Stream(number) => self.choose(number, now),
            Command::Next => {
                let from = self.opening.as_ref().map_or_else(|| self.current(), |opening| opening.feed.stream());
                self.choose(self.lineup.after(&from), now);
            }
            Command::Grid if self.is_grid() => {
                let number = self.lineup.number_of(&self.before_grid).unwrap_or(1);
                self.choose(number, now);
            }
            Command::Grid => {
                self.look();
                self.open_grid();
            }
            Command::Align => {
                let server = self.panes()[0].viewer.alignment();
                let aligned = !self.wish.aligned.unwrap_or(server.enabled);
                self.wish.aligned = Some(aligned);
                let text = match (aligned, self.is_grid()) {
                    (true, true) => "Align on: pictures captured together are shown together",
                    (false, true) => "Align off: each camera shows its newest picture",
                    (true, false) => "Align on: the grid (G) shows pictures captured together",
                    (false, false) => "Align off: in the grid (G) each camera shows its newest picture",
                };
                self.say(text.to_owned(), SAID_FOR);
            }
            Command::Record => {
                let text = self.recording.toggle();
                self.say(text, SAID_FOR);
            }
            Command::Clip => {
                let text = self.fetch_clip(now);
                self.say(text.to_owned(), SAID_FOR);
            }
            Command::Enlarge(pane) => {
                if let Some(number) = self.tiles.get(pane).map(|tile| tile.number) {
                    self.choose(number, now);
                }
            }
        }
    }
}
