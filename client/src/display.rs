//! The window: shows the newest picture at once, and never lets old video look live.
//!
//! minifb's, on the calling thread, which must be the main thread on macOS. What the keys do is in `overlay::KEYS`. A
//! GStreamer sink draws into it where there is one that is better at it, and minifb where there is none or it fails.
//! The pictures come already scaled to the window's size, unless the sink scales; only the moment between a resize and
//! the first picture of the new size is bridged here. Limits: full screen needs X11 (also through XWayland); if the X
//! server itself goes away, Xlib ends the process.

mod canvas;
mod choice;
mod desktop;
mod fullscreen;
mod grid;
mod presses;
mod sink;
mod typing;
mod words;

use std::fmt;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use minifb::{Key, ScaleMode, WindowOptions};
use rov_common::sleep::Sleep;
use rov_common::units::Resolution;
use tokio_util::sync::CancellationToken;

use self::canvas::{Canvas, Image};
pub use self::choice::DisplayChoice;
use self::desktop::{Button, Desktop};
use self::fullscreen::Fullscreen;
use self::grid::{Places, Tile};
use self::presses::{Press, Presses};
use self::sink::Sink;
use self::typing::{Typed, Typing};
use self::words::{
    Presentation, aside, asking, badge, grid_title, mark, message, presentation, recorded, title, title_age,
};
use crate::decode::{Picture, PictureForm};
use crate::late::Warning;
pub use crate::overlay::Tone;
use crate::overlay::{self, Action, Badge, Corner, Mark, Message, OverlayData};
use crate::recording::Told;
use crate::streams::Doubt;
use crate::told::Written;
use crate::viewer::{Offer, Question};

/// A picture older than this is not shown as live.
pub const STALE_AFTER: Duration = Duration::from_secs(1);
/// Keys and resizing are looked at no more often, and at most twice as long apart.
const EVENT_INTERVAL: Duration = Duration::from_millis(40);
/// An unchanged window is drawn again this often, since nobody tells when another window had covered it.
const REPAIR_INTERVAL: Duration = Duration::from_millis(500);

/// Figures in the badge change no more often, so that they can be read.
const BADGE_INTERVAL: Duration = Duration::from_millis(500);
/// Likewise in the title.
const TITLE_INTERVAL: Duration = Duration::from_secs(1);
/// So long after the last live picture the screen stays on: nobody shall look at a dark one when the picture is back.
const AWAKE_AFTER: Duration = Duration::from_secs(300);
/// In a window that is smaller, messages and panels take the badge's place.
const BADGE_BESIDE_MESSAGE: u32 = 360;
const BADGE_BESIDE_PANEL: u32 = 800;

/// The owner is asked again what the window shows beside the video when its answer is so old.
const VIEW_INTERVAL: Duration = Duration::from_millis(100);

/// Tiles are drawn together, no more often than this.
const GRID_INTERVAL: Duration = Duration::from_millis(16);

/// What is said beside the video, of the large one or of a tile.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ViewModel {
    pub status: Status,
    pub overlay: OverlayData,
    pub doubt: Doubt,
    /// What the server wants over the picture.
    pub written: Option<Written>,
    /// What the pilot has to know while pictures come.
    pub notices: Vec<String>,
    /// Why a tile is not aligned with the others; may be empty.
    pub remark: &'static str,
    /// How this one is recorded; none: it is not to be.
    pub recording: Option<Told>,
    /// For a moment: what came of a key.
    pub said: Option<String>,
    /// Which server is to be watched.
    pub question: Option<Question>,
}

/// How the session stands, in words for the pilot.
#[derive(Clone, Debug, PartialEq)]
pub enum Status {
    /// `what` is being done, as `Looking for a server…`. Lines after the first are written smaller.
    Connecting { what: String },
    /// Connected: pictures should come.
    Live,
    /// The video was lost, and what is being done about it, as `server lost, looking for it…`.
    Lost { reason: String },
}

impl Default for Status {
    fn default() -> Self {
        Self::Connecting { what: "Looking for a server…".to_owned() }
    }
}

/// Why the display ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Q, Escape, or the window's own button.
    ClosedByUser,
    /// The token given to `run` was cancelled.
    Stopped,
}

/// The window cannot be opened or drawn into.
#[derive(Debug, thiserror::Error)]
pub enum DisplayError {
    #[error("cannot open a window: {0}; is there a display (DISPLAY or WAYLAND_DISPLAY)? --headless runs without")]
    Open(String),
    #[error("cannot draw into the window: {0}")]
    Draw(String),
}

/// What is in the window: one large picture, or the tiles of the grid.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    /// What tells the streams from each other; without a grid there is one.
    pub panes: Vec<u64>,
    pub grid: Option<Grid>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grid {
    /// Whose cameras they are.
    pub vehicle: String,
    /// The name of each tile.
    pub captions: Vec<String>,
    /// How well the tiles are aligned, and what that costs, in a line; none: they are not.
    pub alignment: Option<(String, Tone)>,
    /// What does not fit; may be empty.
    pub note: String,
}

/// What the pilot wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// This one of the question's offers.
    Server(Offer),
    /// The stream of this number, from 1.
    Stream(usize),
    /// The next stream.
    Next,
    /// The grid, or back from it.
    Grid,
    /// The tiles of the grid aligned, or not.
    Align,
    /// Recording on, or off.
    Record,
    /// The last seconds are to be kept as a file.
    Clip,
    /// This tile.
    Enlarge(usize),
}

/// The pictures that the window shows, and whoever gets the pilot's commands: on the window's thread. Nothing but
/// `wait` may wait for anything.
pub trait Stage {
    /// Waits for a picture, at most so long.
    fn wait(&mut self, limit: Duration);
    /// What is to be in the window now.
    fn layout(&mut self, now: Instant) -> Layout;
    /// What to show beside the video of this pane.
    fn view(&mut self, pane: usize, now: Instant) -> ViewModel;
    /// The newest picture of this pane, once.
    fn take(&mut self, pane: usize) -> Option<Picture>;
    /// How old the pictures of this pane are, while they move and are older than they may be, or that this is not
    /// known.
    fn late(&mut self, _pane: usize, _now: Instant) -> Option<Warning> {
        None
    }
    /// A picture of this pane was handed to the screen at this time; called once for each.
    fn shown(&mut self, pane: usize, picture: &Picture, at: Instant);
    /// From now on the pictures should come in this form: a large one, and each tile in its size. Called at the start,
    /// and at each change of the window's size or of the layout.
    fn set_outputs(&mut self, large: PictureForm, tiles: &[Resolution]);
    fn obey(&mut self, command: Command, now: Instant);
    /// These are to be kept as files: what each pane that has one shows.
    fn save(&mut self, shown: &[Snapped<'_>], now: Instant);
    /// An event of this moment begins. Its text is typed from now on, also where it cannot be saved: who types does not
    /// look at why, and letters would be keys.
    fn begin_event(&mut self, shown: &[Snapped<'_>], now: Instant);
    /// The event is to be saved with this text; none: it is cancelled.
    fn end_event(&mut self, text: Option<String>);
}

/// A picture that is on the screen.
#[derive(Clone, Copy, Debug)]
pub struct Snapped<'a> {
    /// Of its pane: what is watched may be other panes by now.
    pub id: u64,
    pub picture: &'a Picture,
    /// New ones come. Otherwise the window says how old it is.
    pub is_moving: bool,
}

/// A pane as the window has it.
struct Pane {
    id: u64,
    model: ViewModel,
    last: Option<Picture>,
    /// That was not drawn yet.
    is_fresh: bool,
    presentation: Presentation,
    tile: Tile,
}

impl Pane {
    fn new(id: u64) -> Self {
        let (model, tile) = (ViewModel::default(), Tile::default());
        Self { id, model, last: None, is_fresh: false, presentation: Presentation::Waiting, tile }
    }

    /// Its picture moves.
    fn is_live(&self) -> bool {
        self.presentation.is_moving()
    }
}

fn is_any_live(panes: &[Pane]) -> bool {
    panes.iter().any(Pane::is_live)
}

/// An open window.
pub struct Window {
    /// Draws into the window; none: minifb does. Before the window, so that it is stopped first.
    sink: Option<Sink>,
    /// Why minifb has to draw; empty where that is as it should be.
    note: String,
    window: minifb::Window,
    /// None where it cannot be had.
    desktop: Option<Desktop>,
    presses: Receiver<Press>,
    fullscreen: Fullscreen,
    /// Until the vehicle's is known.
    name: String,
    /// Without the age, the age, and since when.
    title: (String, String, Instant),
    show_stats: bool,
    show_keys: bool,
    typing: Typing,
    /// Of the offers of the last question, the one that Enter takes.
    selected: Option<Offer>,
    /// The last click chose one of the offers, or a key.
    clicked_row: bool,
    /// A click asked for the end.
    is_closed: bool,
    corner: CornerShown,
    written: WrittenShown,
    canvas: Canvas,
}

/// The corner as it is shown.
#[derive(Debug)]
struct CornerShown {
    /// What it says, in a window of which size, and since when.
    shown: (Corner, Resolution, Instant),
    covers: Resolution,
    /// The badge in it.
    wanted: bool,
    /// The desktop cannot show it: it is painted over each picture.
    painted: bool,
}

/// Where lines are wanted over the large picture.
#[derive(Clone, Debug, Default, PartialEq)]
struct Lines {
    texts: Vec<String>,
    place: (i32, i32),
    /// None: they were not looked at yet.
    window: Option<Resolution>,
    /// The statistics stand where they are wanted.
    makes_room: bool,
}

/// What is written over the large picture, as it is shown.
#[derive(Debug, Default)]
struct WrittenShown {
    wanted: Lines,
    place: (i32, i32),
    /// Width and height.
    covers: (u32, u32),
    /// The desktop cannot show it: it is painted over each picture.
    painted: bool,
}

impl fmt::Debug for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Window").field("show_stats", &self.show_stats).finish_non_exhaustive()
    }
}

impl Window {
    /// Opens a window of `size`, or one that fills the screen. `name` stands in its title until the vehicle's is known.
    pub fn open(name: &str, size: Resolution, fullscreen: bool, display: DisplayChoice) -> Result<Self, DisplayError> {
        let options = WindowOptions { resize: true, scale_mode: ScaleMode::Center, ..WindowOptions::default() };
        let mut window = minifb::Window::new(name, size.width.max(1) as usize, size.height.max(1) as usize, options)
            .map_err(|error| DisplayError::Open(error.to_string()))?;
        // No sleeping inside minifb: a picture is drawn when it comes.
        window.set_target_fps(0);
        let (sender, presses) = channel();
        window.set_input_callback(Box::new(Presses::into(sender)));
        // The window manager must have seen the window before it can be asked to change it.
        window.update();
        let (sink, note) = match Sink::open(display, &window) {
            Ok(sink) => (Some(sink), String::new()),
            Err(reason) => (None, reason),
        };
        let desktop = Desktop::open(&window);
        if let Err(reason) = &desktop {
            tracing::warn!("no badge, no double click, and the screen may go to sleep: {reason}");
        }
        let desktop = desktop.ok();
        let mut this = Self {
            sink,
            note: String::new(),
            window,
            desktop,
            presses,
            fullscreen: Fullscreen::default(),
            name: name.to_owned(),
            title: (name.to_owned(), String::new(), Instant::now()),
            show_stats: false,
            show_keys: false,
            typing: Typing::default(),
            selected: None,
            clicked_row: false,
            is_closed: false,
            corner: CornerShown {
                shown: (Corner::default(), size, Instant::now()),
                covers: Resolution::new(0, 0),
                wanted: true,
                painted: false,
            },
            written: WrittenShown::default(),
            canvas: Canvas::default(),
        };
        tracing::info!("{} draws the window", this.drawn_by());
        if this.sink.is_none() {
            this.give_up_sink(note);
        }
        if fullscreen {
            this.toggle_fullscreen();
        }
        Ok(this)
    }

    /// Shows the statistics from the start, as the key I does.
    pub fn show_stats(&mut self, on: bool) {
        self.show_stats = on;
    }

    /// Shows the badge, as from the start, or not.
    pub fn show_badge(&mut self, on: bool) {
        self.corner.wanted = on;
    }

    /// The size in pixels.
    pub fn size(&self) -> Resolution {
        let (width, height) = self.window.get_size();
        Resolution::new(width as u32, height as u32)
    }

    /// The element or library that draws.
    pub fn drawn_by(&self) -> &'static str {
        self.sink.as_ref().map_or("minifb", Sink::name)
    }

    /// Lets minifb draw, and says why.
    fn give_up_sink(&mut self, reason: String) {
        let sink = self.sink.take().map(|sink| format!("{}: ", sink.name())).unwrap_or_default();
        if !reason.is_empty() {
            self.note = format!("drawn by minifb, because of {sink}{reason}");
            tracing::warn!("{}", self.note);
        }
    }

    fn output(&self, size: Resolution) -> PictureForm {
        self.sink.as_ref().map_or_else(|| PictureForm::within(size), |sink| sink.output(size))
    }

    /// Shows what is on the stage until the window is closed or `stop` is cancelled.
    pub fn run(mut self, stage: &mut dyn Stage, stop: &CancellationToken) -> Result<Ended, DisplayError> {
        let ended = self.run_on(stage, stop);
        // What was typed so far is worth more than nothing.
        if let Some(text) = self.typing.end() {
            stage.end_event(Some(text));
        }
        ended
    }

    fn run_on(&mut self, stage: &mut dyn Stage, stop: &CancellationToken) -> Result<Ended, DisplayError> {
        let mut layout = Layout::default();
        let mut panes: Vec<Pane> = Vec::new();
        let mut asked: Option<Instant> = None;
        let mut size = self.size();
        let mut output: Option<(PictureForm, Vec<Resolution>)> = None;
        let mut drawn: Option<(Content, Instant)> = None;
        let mut looked: Option<Instant> = None;
        let mut live_at: Option<Instant> = None;
        let mut sleep = Sleep::default();
        loop {
            let is_waiting = panes.iter().any(|pane| pane.is_fresh);
            stage.wait(if is_waiting { GRID_INTERVAL } else { EVENT_INTERVAL });
            if stop.is_cancelled() {
                return Ok(Ended::Stopped);
            }
            let now = Instant::now();
            sleep.look();
            let wanted = stage.layout(now);
            // Picture and name change together.
            let is_other = wanted.panes != layout.panes;
            layout = wanted;
            if is_other {
                arrange(&mut panes, &layout.panes);
            }
            let is_due = asked.is_none_or(|at| now.saturating_duration_since(at) >= VIEW_INTERVAL);
            for (at, pane) in panes.iter_mut().enumerate() {
                let fresh = stage.take(at);
                // The first picture after an outage is shown as the live one that it is.
                let is_back = fresh.is_some() && !pane.is_live();
                pane.is_fresh |= fresh.is_some();
                pane.last = fresh.or(pane.last.take());
                if is_other || is_due || is_back {
                    pane.model = stage.view(at, now);
                }
                let due_at = pane.last.as_ref().map(|picture| sleep.before(picture.due_at(), now));
                pane.presentation = presentation(now, due_at, &pane.model.status, stage.late(at, now));
            }
            asked = if is_other || is_due { Some(now) } else { asked };
            let content = self.content(now, size, &layout, &panes);
            let is_old = |at: Instant| now.saturating_duration_since(at) >= REPAIR_INTERVAL;
            // Many tiles are drawn together.
            let is_soon = |at: Instant| layout.grid.is_some() && now.saturating_duration_since(at) < GRID_INTERVAL;
            let is_fresh = panes.iter().any(|pane| pane.is_fresh);
            let redraw = match &drawn {
                Some((before, at)) if *before == content => is_old(*at) || (is_fresh && !is_soon(*at)),
                _ => true,
            };
            if redraw {
                self.draw(&content, &mut panes)?;
                drawn = Some((content.clone(), now));
                for (at, pane) in panes.iter_mut().enumerate() {
                    if std::mem::take(&mut pane.is_fresh)
                        && let Some(picture) = &pane.last
                    {
                        stage.shown(at, picture, Instant::now());
                    }
                }
            }
            // Drawing by minifb looks at the events, too. To look waits for an answer of the X server.
            let due = is_other || looked.is_none_or(|at| now.saturating_duration_since(at) >= EVENT_INTERVAL);
            if due {
                looked = Some(now);
                if !redraw || self.sink.is_some() {
                    self.window.update();
                }
                live_at = if is_any_live(&panes) { Some(now) } else { live_at };
                self.tend_desktop(now, live_at, (&content, &panes), stage);
                self.tend_title(now, &layout, &panes);
                let is_uncovered =
                    self.tend_corner(now, size, &layout, &panes) | self.tend_written(size, &layout, &panes);
                if is_uncovered && !panes.iter().all(Pane::is_live) {
                    // What it covered is empty now, and no picture comes to fill it.
                    drawn = None;
                }
            }
            let question = panes.first().and_then(|pane| pane.model.question.as_ref());
            if self.handle_presses(question, &panes, stage) || self.is_closed || !self.window.is_open() {
                return Ok(Ended::ClosedByUser);
            }
            if self.size() != size {
                size = self.size();
                if let Some(sink) = &self.sink {
                    sink.resized();
                }
            }
            let tiles = match &content {
                Content::Large(_) => Vec::new(),
                Content::Grid(tiles) => vec![tiles.places.picture(); panes.len()],
            };
            let wanted = (self.output(size), tiles);
            if is_other || output.as_ref() != Some(&wanted) {
                stage.set_outputs(wanted.0.clone(), &wanted.1);
                output = Some(wanted);
            }
        }
    }

    /// What is to be drawn, beside the pictures.
    fn content(&self, now: Instant, size: Resolution, layout: &Layout, panes: &[Pane]) -> Content {
        match (&layout.grid, panes) {
            (None, [pane]) => Content::Large(Box::new(self.scene(now, size, pane))),
            (grid, panes) => {
                let (question, grid) = (panes.first().and_then(|pane| pane.model.question.clone()), grid.clone());
                let grid = grid.unwrap_or_default();
                let mut said: Vec<_> = panes.iter().flat_map(|pane| pane.model.said.clone()).collect();
                let recording = recorded(&panes.iter().map(|pane| pane.model.recording.clone()).collect::<Vec<_>>());
                said.extend((!grid.note.is_empty()).then_some(grid.note));
                for notice in panes.iter().flat_map(|pane| &pane.model.notices) {
                    if !said.contains(notice) {
                        said.push(notice.clone());
                    }
                }
                // Beside live pictures it stands below them.
                let is_live = is_any_live(panes);
                said.extend(question.iter().filter(|_| is_live).map(aside));
                let question = question.filter(|_| !is_live);
                let asked = question.map(|question| asking(None, &question, self.selected(&question), now));
                let status = grid.alignment.into_iter().chain(recording).collect();
                let places = Places::of(panes.len(), size, status, &said);
                let states = panes.iter().map(|pane| pane.presentation.in_seconds()).collect();
                let (captions, keys, message) = (grid.captions, self.show_keys, asked);
                let typing = self.typing.text().cloned();
                Content::Grid(Box::new(Tiles { size, places, captions, states, keys, message, typing }))
            }
        }
    }

    fn scene(&self, now: Instant, size: Resolution, pane: &Pane) -> Scene {
        let (presentation, view) = (pane.presentation, &pane.model);
        let mut message = message(presentation, &view.status);
        if let (Some(message), Some(said)) = (&mut message, &view.said) {
            message.detail = format!("{said}. {}", message.detail);
        }
        let message = match &view.question {
            // Beside a live picture it stands in the corner.
            Some(question) if !presentation.is_moving() => {
                Some(asking(message, question, self.selected(question), now))
            }
            _ => message,
        };
        Scene {
            size,
            stale: matches!(presentation, Presentation::Stale { .. }),
            mark: mark(presentation.in_seconds(), view),
            message,
            typing: self.typing.text().cloned(),
            keys: self.show_keys,
            corner: if self.corner.painted { self.corner.shown.0.clone() } else { Corner::default() },
            written: self.written.painted.then(|| (self.written.wanted.texts.clone(), self.written.place)),
            stats: self.show_stats.then(|| {
                let mut stats = view.overlay.clone();
                stats.display = self.drawn_by().to_owned();
                stats.notes.extend((!self.note.is_empty()).then(|| self.note.clone()));
                stats
            }),
        }
    }

    /// Clicks; the screen stays on since and for a while after pictures came.
    fn tend_desktop(
        &mut self,
        now: Instant,
        live_at: Option<Instant>,
        (content, panes): (&Content, &[Pane]),
        stage: &mut dyn Stage,
    ) {
        let Some(desktop) = &mut self.desktop else { return };
        desktop.keep_awake(live_at.is_some_and(|at| now.saturating_duration_since(at) < AWAKE_AFTER), now);
        for click in desktop.clicks(&self.window, now) {
            let (message, size) = match content {
                Content::Large(scene) => (&scene.message, scene.size),
                Content::Grid(tiles) => (&tiles.message, tiles.size),
            };
            match click.button {
                Button::Middle => {
                    save(panes, stage, now);
                    continue;
                }
                Button::Right => {
                    self.show_keys = !self.show_keys;
                    continue;
                }
                Button::Left | Button::LeftTwice => {}
            }
            let saves = overlay::typing_at(size, click.at);
            if let Some(saves) = saves.filter(|_| self.typing.text().is_some() && message.is_none()) {
                self.clicked_row = true;
                let key = if saves { Key::Enter } else { Key::Escape };
                if let Typed::End(text) = self.typing.press(Press::Key(key), now) {
                    stage.end_event(text);
                }
                continue;
            }
            // A question lies over the keys.
            let key = overlay::key_at(size, click.at).filter(|_| self.show_keys && message.is_none());
            if let Some(action) = key {
                (self.show_keys, self.clicked_row) = (false, true);
                self.is_closed |= self.act(action, panes, stage, now);
                continue;
            }
            let row = message.as_ref().and_then(|message| overlay::row_at(message, size, click.at));
            let question = panes.first().and_then(|pane| pane.model.question.as_ref());
            let offers = question.iter().flat_map(|question| &question.offers);
            let offer = row.and_then(|row| offers.into_iter().nth(row));
            // The second click of two comes when the list is gone.
            let is_of_row = std::mem::replace(&mut self.clicked_row, offer.is_some());
            let tile = match content {
                Content::Large(_) => None,
                Content::Grid(tiles) => tiles.places.tile_at(click.at, panes.len()),
            };
            match (offer, tile) {
                (Some(offer), _) => stage.obey(Command::Server(offer.clone()), now),
                _ if click.button == Button::Left || is_of_row => {}
                (None, Some(tile)) => stage.obey(Command::Enlarge(tile), now),
                (None, None) => self.toggle_fullscreen(),
            }
        }
    }

    /// The number of the offer that Enter takes: the first, until another is selected.
    fn selected(&self, question: &Question) -> usize {
        question.place_of(self.selected.as_ref())
    }

    fn name<'a>(&'a self, view: &'a ViewModel) -> &'a str {
        let known = [&view.overlay.server, &view.overlay.address].into_iter().find(|text| !text.is_empty());
        known.unwrap_or(&self.name)
    }

    fn tend_title(&mut self, now: Instant, layout: &Layout, panes: &[Pane]) {
        let mut age = String::new();
        let title = match (&layout.grid, panes) {
            (None, [pane]) => {
                age = title_age(pane.presentation, &pane.model);
                title(self.name(&pane.model), pane.presentation, &pane.model)
            }
            (grid, panes) => {
                let vehicle = grid.as_ref().map(|grid| grid.vehicle.as_str()).filter(|name| !name.is_empty());
                let tiles: Vec<_> = panes.iter().map(|pane| (pane.presentation, pane.model.doubt.clone())).collect();
                grid_title(vehicle.unwrap_or(&self.name), &tiles)
            }
        };
        let (state, shown, at) = &self.title;
        let is_recent = now.saturating_duration_since(*at) < TITLE_INTERVAL;
        // Tenths of a second that count on.
        let is_same = title == *state || (title.ends_with(" OLD") && state.ends_with(" OLD"));
        if !is_same || ((title != *state || age != *shown) && !is_recent) {
            self.window.set_title(&format!("{title}{age}"));
            self.title = (title, age, now);
        }
    }

    /// After the picture was drawn, so that none waits for it. Whether it covers less than before.
    fn tend_corner(&mut self, now: Instant, size: Resolution, layout: &Layout, panes: &[Pane]) -> bool {
        // Each tile says it by itself.
        let wanted = match panes {
            [pane] if layout.grid.is_none() => self.wanted_corner(pane, size),
            _ => Corner::default(),
        };
        let (shown, of, at) = &self.corner.shown;
        let is_recent = now.saturating_duration_since(*at) < BADGE_INTERVAL;
        if *of == size && (*shown == wanted || is_recent && shown.differs_in_figures(&wanted)) {
            return false;
        }
        let drawn = overlay::corner(&wanted, size);
        let picture = drawn.as_ref().map(|(pixels, size)| (pixels.as_slice(), *size));
        let composed = self.desktop.as_mut().is_some_and(|desktop| desktop.show_corner(picture, size.width));
        self.corner.painted = !composed;
        self.corner.shown = (wanted, size, now);
        let covers = drawn.map_or(Resolution::new(0, 0), |(_, size)| size);
        let before = std::mem::replace(&mut self.corner.covers, covers);
        covers.width < before.width || covers.height < before.height
    }

    /// As [`Self::tend_corner`], of what is written over the picture.
    fn tend_written(&mut self, size: Resolution, layout: &Layout, panes: &[Pane]) -> bool {
        let (texts, place) = match panes {
            [pane] if layout.grid.is_none() => self.wanted_lines(pane, size),
            _ => Default::default(),
        };
        let wanted = Lines { texts, place, window: Some(size), makes_room: self.show_stats };
        if self.written.wanted == wanted {
            return false;
        }
        let drawn = overlay::written(&wanted.texts, size);
        let covers = drawn.as_ref().map_or((0, 0), |(_, size)| (size.width, size.height));
        // Where the statistics stand, they come first.
        let place = if self.show_stats { (place.0, size.height as i32 - covers.1 as i32) } else { place };
        let picture = drawn.as_ref().map(|(pixels, size)| (pixels.as_slice(), *size));
        let composed = self.desktop.as_mut().is_some_and(|desktop| desktop.show_written(picture, place));
        self.written.painted = !composed && !wanted.texts.is_empty();
        (self.written.wanted, self.written.place) = (wanted, place);
        let before = std::mem::replace(&mut self.written.covers, covers);
        covers.0 < before.0 || covers.1 < before.1
    }

    /// The lines, and where they begin in the window.
    fn wanted_lines(&self, pane: &Pane, size: Resolution) -> (Vec<String>, (i32, i32)) {
        let picture = pane.last.as_ref().map(|picture| picture.source).filter(|source| source.pixels() > 0);
        let Some((written, source)) = pane.model.written.as_ref().filter(|_| pane.is_live()).zip(picture) else {
            return Default::default();
        };
        let shown = source.fit_into(size);
        let side = |at: u32, from: u32, shown: u32, window: u32| {
            (u64::from(at.min(from)) * u64::from(shown) / u64::from(from)) as i32 + (window - shown) as i32 / 2
        };
        let (x, y) = written.overlay.place(source.height);
        let left = side(x, source.width, shown.width, size.width);
        (written.lines.clone(), (left, side(y, source.height, shown.height, size.height)))
    }

    fn wanted_corner(&self, pane: &Pane, size: Resolution) -> Corner {
        let (presentation, view) = (pane.presentation, &pane.model);
        let is_live = presentation.is_moving();
        let hidden = !is_live && size.height < BADGE_BESIDE_MESSAGE
            || (self.show_stats || self.show_keys) && size.width < BADGE_BESIDE_PANEL;
        let badge = (self.corner.wanted && !hidden).then(|| badge(self.name(view), presentation, view));
        // Nothing may lie over a message, and the statistics say it, too.
        let notices = view.question.iter().map(aside).chain(view.notices.iter().cloned());
        let notices = notices.filter(|_| !self.show_stats);
        let told = view.recording.as_ref().filter(|_| !hidden);
        // That nothing is recorded is no small thing.
        let trouble = told.filter(|told| !told.works).map(|told| told.text.clone());
        let notices = view.said.iter().cloned().chain(trouble).chain(notices).filter(|_| is_live && !hidden);
        let recording = told.filter(|told| told.works).map(|told| told.text.clone());
        Corner { badge, recording, notices: notices.collect() }
    }

    fn draw(&mut self, content: &Content, panes: &mut [Pane]) -> Result<(), DisplayError> {
        match content {
            Content::Large(scene) => self.draw_large(scene, panes.first().and_then(|pane| pane.last.as_ref())),
            Content::Grid(tiles) => self.draw_grid(tiles, panes),
        }
    }

    fn draw_grid(&mut self, tiles: &Tiles, panes: &mut [Pane]) -> Result<(), DisplayError> {
        let size = tiles.places.picture();
        for (at, pane) in panes.iter_mut().enumerate() {
            let name = tiles.captions.get(at).map_or("", String::as_str);
            let caption = badge(name, pane.presentation, &pane.model);
            let scene = Scene {
                size,
                stale: matches!(pane.presentation, Presentation::Stale { .. }),
                mark: mark(pane.presentation.in_seconds(), &pane.model),
                message: message(pane.presentation, &pane.model.status),
                keys: false,
                typing: None,
                corner: Corner::default(),
                written: None,
                stats: None,
            };
            pane.tile.paint(
                &tiles.places,
                scene,
                Badge {
                    link: String::new(),
                    remark: pane.model.remark,
                    recorded: pane.model.recording.as_ref().map(|told| told.works),
                    ..caption
                },
                pane.last.as_ref(),
                pane.is_fresh,
            );
        }
        if tiles.size.pixels() == 0 {
            return Ok(());
        }
        let paint = |pixels: &mut [u32]| tiles.paint(pixels, panes);
        if let Some(sink) = &mut self.sink {
            match sink.paint(tiles.size, paint) {
                Ok(()) => return Ok(()),
                Err(reason) => self.give_up_sink(reason),
            }
        }
        self.show_by_minifb(tiles.size, |pixels| tiles.paint(pixels, panes))
    }

    fn show_by_minifb(&mut self, size: Resolution, paint: impl FnOnce(&mut [u32])) -> Result<(), DisplayError> {
        let pixels = self.canvas.painted(size, paint);
        self.window
            .update_with_buffer(pixels, size.width as usize, size.height as usize)
            .map_err(|error| DisplayError::Draw(error.to_string()))
    }

    fn draw_large(&mut self, scene: &Scene, picture: Option<&Picture>) -> Result<(), DisplayError> {
        if scene.size.pixels() == 0 {
            return Ok(());
        }
        if let Some(sink) = &mut self.sink {
            let result = match picture.and_then(|picture| sink.ready(picture, scene.size)) {
                Some((buffer, info)) if scene.is_plain() => sink.show_ready(buffer, &info),
                _ => sink.paint(scene.size, |pixels| scene.paint(pixels, picture)),
            };
            match result {
                Ok(()) => return Ok(()),
                Err(reason) => self.give_up_sink(reason),
            }
        }
        let straight = picture.filter(|picture| scene.is_plain() && image(picture).fits(scene.size));
        match straight {
            // Straight from the decoder's memory; minifb centres it on black.
            Some(picture) if !picture.pixels().is_empty() => self
                .window
                .update_with_buffer(
                    picture.pixels(),
                    picture.resolution.width as usize,
                    picture.resolution.height as usize,
                )
                .map_err(|error| DisplayError::Draw(error.to_string())),
            _ => self.show_by_minifb(scene.size, |pixels| scene.paint(pixels, picture)),
        }
    }

    /// Whether one of them asked for the end.
    fn handle_presses(&mut self, question: Option<&Question>, panes: &[Pane], stage: &mut dyn Stage) -> bool {
        let (now, is_live) = (Instant::now(), is_any_live(panes));
        // Beside live pictures Enter takes the one that is offered, as the line says: digits are streams.
        let takes_digits = question.is_some_and(|question| !is_live || question.offers.len() > 1);
        while let Ok(press) = self.presses.try_recv() {
            match self.typing.press(press, now) {
                Typed::Other => {}
                Typed::Part => continue,
                Typed::End(text) => {
                    stage.end_event(text);
                    continue;
                }
            }
            match (press, question) {
                (Press::Character(digit @ '1'..='9'), _) if !takes_digits => {
                    stage.obey(Command::Stream(digit as usize - '0' as usize), now);
                }
                (press, question) => match (action_of(press), question) {
                    (Some(action), _) => {
                        if self.act(action, panes, stage, now) {
                            return true;
                        }
                    }
                    (None, Some(question)) => self.answer(press, question, stage),
                    (None, None) => {}
                },
            }
        }
        false
    }

    /// Does what a key says; whether that is the end.
    fn act(&mut self, action: Action, panes: &[Pane], stage: &mut dyn Stage, now: Instant) -> bool {
        match action {
            Action::Close => return true,
            Action::Fullscreen => self.toggle_fullscreen(),
            Action::Information => self.show_stats = !self.show_stats,
            Action::Keys => self.show_keys = !self.show_keys,
            Action::Next => stage.obey(Command::Next, now),
            Action::Grid => stage.obey(Command::Grid, now),
            Action::Save => save(panes, stage, now),
            Action::Clip => stage.obey(Command::Clip, now),
            Action::Event => {
                if self.typing.text().is_none() {
                    stage.begin_event(&snapped(panes), now);
                    self.typing.begin();
                }
            }
            Action::Align => stage.obey(Command::Align, now),
            Action::Record => stage.obey(Command::Record, now),
        }
        false
    }

    fn answer(&mut self, press: Press, question: &Question, stage: &mut dyn Stage) {
        let (offers, selected) = (&question.offers, self.selected(question));
        let chosen = match press {
            Press::Key(Key::Enter | Key::NumPadEnter) => offers.get(selected),
            Press::Character(digit @ '1'..='9') => offers.get(digit as usize - '1' as usize),
            _ => None,
        };
        match (press, chosen) {
            (_, Some(offer)) => stage.obey(Command::Server(offer.clone()), Instant::now()),
            (Press::Key(Key::Up), _) => self.selected = offers.get(selected.saturating_sub(1)).cloned(),
            (Press::Key(Key::Down), _) => self.selected = offers.get(selected + 1).or(offers.last()).cloned(),
            _ => {}
        }
    }

    fn toggle_fullscreen(&mut self) {
        if let Err(reason) = self.fullscreen.toggle(&self.window) {
            tracing::warn!("cannot switch full screen: {reason}");
        }
    }
}

fn action_of(press: Press) -> Option<Action> {
    Some(match press {
        Press::Key(Key::Q | Key::Escape) => Action::Close,
        Press::Key(Key::F) => Action::Fullscreen,
        Press::Key(Key::I) => Action::Information,
        Press::Key(Key::F1) | Press::Character('?') => Action::Keys,
        Press::Key(Key::Tab) => Action::Next,
        Press::Key(Key::G) => Action::Grid,
        Press::Key(Key::S) => Action::Save,
        Press::Key(Key::C) => Action::Clip,
        // Not by the key: its letter comes behind it, and would be the first of the text.
        Press::Character('e' | 'E') => Action::Event,
        Press::Key(Key::A) => Action::Align,
        Press::Key(Key::R) => Action::Record,
        _ => return None,
    })
}

fn save(panes: &[Pane], stage: &mut dyn Stage, now: Instant) {
    stage.save(&snapped(panes), now);
}

fn snapped(panes: &[Pane]) -> Vec<Snapped<'_>> {
    panes
        .iter()
        .filter_map(|of| Some(Snapped { id: of.id, picture: of.last.as_ref()?, is_moving: of.is_live() }))
        .collect()
}

/// Keeps the panes that stay, each at its new place.
fn arrange(panes: &mut Vec<Pane>, wanted: &[u64]) {
    let mut before = std::mem::take(panes);
    for id in wanted {
        let kept = before.iter().position(|pane| pane.id == *id).map(|at| before.swap_remove(at));
        panes.push(kept.unwrap_or_else(|| Pane::new(*id)));
    }
}

/// All that a drawn window depends on, beside the pictures and what is in the tiles.
#[derive(Clone, Debug, PartialEq)]
enum Content {
    Large(Box<Scene>),
    Grid(Box<Tiles>),
}

#[derive(Clone, Debug, PartialEq)]
struct Tiles {
    size: Resolution,
    places: Places,
    captions: Vec<String>,
    /// That a tile is old is drawn at once.
    states: Vec<Presentation>,
    keys: bool,
    /// A question.
    message: Option<Message>,
    typing: Option<String>,
}

impl Tiles {
    fn paint(&self, pixels: &mut [u32], panes: &[Pane]) {
        self.places.paint(pixels, panes.iter().map(|pane| &pane.tile));
        let Some(mut surface) = overlay::Surface::new(pixels, self.size) else { return };
        if self.keys {
            overlay::draw_keys(&mut surface);
        }
        if let Some(text) = &self.typing {
            overlay::draw_typing(&mut surface, text);
        }
        if let Some(message) = &self.message {
            overlay::draw_message(&mut surface, message);
        }
    }
}

/// All that a drawn picture depends on, beside the picture itself: the whole window, or a tile.
#[derive(Clone, Debug, PartialEq)]
struct Scene {
    size: Resolution,
    stale: bool,
    /// It is no live picture of its camera.
    mark: Option<Mark>,
    message: Option<Message>,
    keys: bool,
    /// The text of an event.
    typing: Option<String>,
    /// Empty where it need not be painted.
    corner: Corner,
    /// Lines and their place; none where they need not be painted.
    written: Option<(Vec<String>, (i32, i32))>,
    stats: Option<OverlayData>,
}

impl Scene {
    /// The picture and nothing else.
    fn is_plain(&self) -> bool {
        let nothing = (&None, &None, &None, &Corner::default(), &None, false, &None);
        (&self.mark, &self.message, &self.stats, &self.corner, &self.written, self.keys, &self.typing) == nothing
    }

    /// Paints all of it into the pixels of a window.
    fn paint(&self, pixels: &mut [u32], picture: Option<&Picture>) {
        let fitted = picture.map(|picture| picture.source.fit_into(self.size));
        let converted = picture.zip(fitted).and_then(|(picture, size)| picture.converted(size));
        let image = picture.map(|picture| match (&converted, fitted) {
            (Some(pixels), Some(resolution)) => Image { pixels, resolution, source: picture.source },
            _ => image(picture),
        });
        canvas::fill(pixels, self.size, image, self.stale);
        let Some(mut surface) = overlay::Surface::new(pixels, self.size) else { return };
        if let Some(mark) = &self.mark {
            overlay::draw_mark(&mut surface, mark);
        }
        if let Some((lines, place)) = &self.written {
            overlay::draw_written(&mut surface, lines, *place);
        }
        if let Some(stats) = &self.stats {
            overlay::draw_stats(&mut surface, stats, self.message.is_none());
        }
        overlay::draw_corner(&mut surface, &self.corner);
        if self.keys {
            overlay::draw_keys(&mut surface);
        }
        if let Some(text) = &self.typing {
            overlay::draw_typing(&mut surface, text);
        }
        if let Some(message) = &self.message {
            overlay::draw_message(&mut surface, message);
        }
    }
}

fn image(picture: &Picture) -> Image<'_> {
    Image { pixels: picture.pixels(), resolution: picture.resolution, source: picture.source }
}

/// Takes the pictures without a window, until `stop` is cancelled.
pub fn run_headless(stage: &mut dyn Stage, stop: &CancellationToken) -> Ended {
    while !stop.is_cancelled() {
        // There are no keys to look at, only the token.
        stage.wait(EVENT_INTERVAL);
        for pane in 0..stage.layout(Instant::now()).panes.len() {
            if let Some(picture) = stage.take(pane) {
                stage.shown(pane, &picture, Instant::now());
            }
        }
    }
    Ended::Stopped
}
