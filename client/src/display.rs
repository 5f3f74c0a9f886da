//! The window: shows the newest picture at once, and never lets old video look live.
//!
//! minifb's, on the calling thread, which must be the main thread on macOS. What the keys do is in `overlay::KEYS`. A GStreamer sink draws into it where there is one that is better at it, and minifb where there is
//! none or it fails. The pictures come already scaled to the window's size, unless the sink scales; only the moment
//! between a resize and the first picture of the new size is bridged here. Limits: full screen needs X11 (also through
//! XWayland); if the X server itself goes away, Xlib ends the process.

mod canvas;
mod choice;
mod desktop;
mod fullscreen;
mod sink;

use std::fmt;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use minifb::{InputCallback, Key, ScaleMode, WindowOptions};
use rov_common::units::Resolution;
use tokio_util::sync::CancellationToken;

use self::canvas::{Canvas, Image};
pub use self::choice::DisplayChoice;
use self::desktop::Desktop;
use self::fullscreen::Fullscreen;
use self::sink::Sink;
use crate::decode::{Output, Picture};
use crate::mailbox::Mailbox;
use crate::overlay::{self, Badge, BadgeState, Menu, Message, OverlayData, Tone};
use crate::viewer::{Offer, Question};

/// A picture older than this is not shown as live.
pub const STALE_AFTER: Duration = Duration::from_secs(1);
/// Keys and resizing are looked at no more often, and at most twice as long apart.
const EVENT_INTERVAL: Duration = Duration::from_millis(40);
/// An unchanged window is drawn again this often, since nobody tells when another window had covered it.
const REPAIR_INTERVAL: Duration = Duration::from_millis(500);
/// A press that follows sooner on one that was not released is the keyboard's repetition. Later, the release went to
/// another window.
const KEY_REPEAT: Duration = Duration::from_millis(1000);

/// A character that was typed is not heard again sooner, as nobody tells when its key is released.
const CHARACTER_REPEAT: Duration = Duration::from_millis(700);
/// Figures in the badge change no more often, so that they can be read.
const BADGE_INTERVAL: Duration = Duration::from_millis(500);
/// So long after the last live picture the screen stays on: nobody shall look at a dark one when the picture is back.
const AWAKE_AFTER: Duration = Duration::from_secs(300);
/// In a window that is smaller, messages and panels take the badge's place.
const BADGE_BESIDE_MESSAGE: u32 = 360;
const BADGE_BESIDE_PANEL: u32 = 800;

/// The owner is asked again what the window shows beside the video when its answer is so old.
const VIEW_INTERVAL: Duration = Duration::from_millis(100);

/// What the window shows beside the video.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ViewModel {
    pub status: Status,
    pub overlay: OverlayData,
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

/// What the display asks and tells its owner, on the window's thread.
pub struct Callbacks<'a> {
    /// What to show beside the video now. It must not wait for anything.
    pub view: &'a mut dyn FnMut(Instant) -> ViewModel,
    /// A picture was handed to the screen at this time; called once for each.
    pub on_shown: &'a mut dyn FnMut(&Picture, Instant),
    /// From now on the pictures should come in this form; called at the start and at each change of the window's size.
    pub on_output: &'a mut dyn FnMut(Output),
    /// The pilot chose this one of the question's offers.
    pub on_chosen: &'a mut dyn FnMut(Offer),
}

impl fmt::Debug for Callbacks<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Callbacks")
    }
}

/// How the newest picture may be presented.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presentation {
    /// As it is.
    Live,
    /// Dimmed, with its age written over it.
    Stale { age: Duration },
    /// There is none.
    Waiting,
}

/// Decides how the newest picture, which was due at `last_picture_at`, may be presented. When the session is known to be
/// lost its last picture is old at once.
pub fn presentation(now: Instant, last_picture_at: Option<Instant>, status: &Status) -> Presentation {
    let Some(at) = last_picture_at else { return Presentation::Waiting };
    let age = now.saturating_duration_since(at);
    if age >= STALE_AFTER || matches!(status, Status::Lost { .. }) {
        Presentation::Stale { age }
    } else {
        Presentation::Live
    }
}

/// The message for a presentation. The page (`advice.js`) says the same.
fn message(presentation: Presentation, status: &Status) -> Option<Message> {
    let explained = match status {
        Status::Connecting { what } => what.as_str(),
        Status::Live => "",
        Status::Lost { reason } => reason,
    };
    let message = |title: String, detail: &str, tone| Message { title, detail: sentence(detail), tone, menu: None };
    match presentation {
        Presentation::Live => None,
        Presentation::Stale { age } => {
            let why = if explained.is_empty() { "connected, but no picture comes" } else { explained };
            Some(message(format!("NO VIDEO {}", duration(age)), why, Tone::Warning))
        }
        Presentation::Waiting => Some(match status {
            Status::Connecting { what } => {
                let (title, detail) = what.split_once('\n').unwrap_or((what, ""));
                message(title.to_owned(), detail, Tone::Waiting)
            }
            Status::Live => message("Waiting for the first picture…".to_owned(), "", Tone::Waiting),
            Status::Lost { reason } => message("NO VIDEO".to_owned(), reason, Tone::Warning),
        }),
    }
}

/// The message with a question to the pilot in it, which a warning stays above of.
fn asking(message: Option<Message>, question: &Question, selected: usize, now: Instant) -> Message {
    let text = sentence(&question.text);
    let rows = question.offers.iter().map(|offer| offer.label.clone()).collect();
    let note = match question.takes_first_at {
        Some(at) => format!("Takes 1 by itself in {}", duration(at.saturating_duration_since(now))),
        None => "Choose by 1 to 9, arrows and Enter, or a click".to_owned(),
    };
    let menu = Some(Menu { rows, selected, note });
    match message {
        Some(warning) if warning.tone == Tone::Warning => Message { detail: text, menu, ..warning },
        _ => Message { title: text, detail: String::new(), tone: Tone::Waiting, menu },
    }
}

/// The window's title. Without what no title can have: minifb would panic.
fn title(name: &str, presentation: Presentation, status: &Status) -> String {
    let state = match (presentation, status) {
        (Presentation::Live, _) => "live".to_owned(),
        (Presentation::Stale { age }, _) => format!("NO VIDEO {}", duration(age)),
        (Presentation::Waiting, Status::Lost { .. }) => "NO VIDEO".to_owned(),
        (Presentation::Waiting, _) => "connecting".to_owned(),
    };
    format!("{name} - {state}").chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect()
}

/// What the corner says.
fn badge(name: &str, presentation: Presentation, view: &ViewModel) -> Badge {
    let state = match (presentation, &view.status) {
        (Presentation::Live, _) => BadgeState::Live,
        (Presentation::Waiting, Status::Connecting { .. } | Status::Live) => BadgeState::Connecting,
        (Presentation::Stale { .. } | Presentation::Waiting, _) => BadgeState::NoVideo,
    };
    let is_live = state == BadgeState::Live;
    let delay: f64 = view.overlay.latency.iter().map(|(_, ms)| ms.max(0.0)).sum();
    Badge {
        name: name.to_owned(),
        state,
        delay_ms: (is_live && delay > 0.0).then_some(delay.round() as u32),
        link: if is_live { view.overlay.transport.clone() } else { String::new() },
    }
}

/// In whole units and rounded down, so that it never says more than is true.
fn duration(age: Duration) -> String {
    match age.as_secs() {
        seconds @ ..120 => format!("{seconds} s"),
        seconds @ ..7200 => format!("{} min", seconds / 60),
        seconds => format!("{} h", seconds / 3600),
    }
}

/// With a capital letter, unless it begins with a name of a machine or an element.
fn sentence(text: &str) -> String {
    let word = text.split_whitespace().next().unwrap_or_default().trim_end_matches([',', ';', ':']);
    let mut letters = text.chars();
    match letters.next() {
        Some(first) if word.chars().all(char::is_lowercase) => first.to_uppercase().chain(letters).collect(),
        _ => text.to_owned(),
    }
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
    title: String,
    show_stats: bool,
    show_keys: bool,
    /// Of the offers of the last question, the one that Enter takes.
    selected: Option<Offer>,
    corner: Corner,
    canvas: Canvas,
}

/// The badge as it is shown.
#[derive(Debug)]
struct Corner {
    /// What it says, in a window of which size, and since when.
    shown: Option<(Badge, Resolution, Instant)>,
    wanted: bool,
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
        window.set_input_callback(Box::new(Presses { presses: sender, held: Vec::new(), typed: None }));
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
            title: name.to_owned(),
            show_stats: false,
            show_keys: false,
            selected: None,
            corner: Corner { shown: None, wanted: true, painted: false },
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

    fn output(&self, size: Resolution) -> Output {
        self.sink.as_ref().map_or_else(|| Output::within(size), |sink| sink.output(size))
    }

    /// Shows what comes into `mailbox` until the window is closed or `stop` is cancelled.
    pub fn run(
        mut self,
        mailbox: &Mailbox<Picture>,
        stop: &CancellationToken,
        callbacks: Callbacks<'_>,
    ) -> Result<Ended, DisplayError> {
        let Callbacks { view, on_shown, on_output, on_chosen } = callbacks;
        let mut asked = Instant::now();
        let mut model = view(asked);
        let mut size = self.size();
        let mut output = self.output(size);
        on_output(output.clone());
        let mut last: Option<Picture> = None;
        let mut drawn: Option<(Scene, Instant)> = None;
        let mut looked: Option<Instant> = None;
        let mut live_at: Option<Instant> = None;
        loop {
            let fresh = mailbox.wait(EVENT_INTERVAL);
            if stop.is_cancelled() {
                return Ok(Ended::Stopped);
            }
            let is_fresh = fresh.is_some();
            last = fresh.or(last);
            let now = Instant::now();
            if now.saturating_duration_since(asked) >= VIEW_INTERVAL {
                (model, asked) = (view(now), now);
            }
            let presentation = presentation(now, last.as_ref().map(Picture::due_at), &model.status);
            let scene = self.scene(now, presentation, size, &model);
            let same = |(before, at): &(Scene, Instant)| {
                *before == scene && now.saturating_duration_since(*at) < REPAIR_INTERVAL
            };
            let redraw = is_fresh || !drawn.as_ref().is_some_and(same);
            if redraw {
                self.draw(&scene, last.as_ref())?;
                drawn = Some((scene.clone(), now));
                if is_fresh && let Some(picture) = &last {
                    on_shown(picture, Instant::now());
                }
            }
            // Drawing by minifb looks at the events, too. To look waits for an answer of the X server.
            let due = looked.is_none_or(|at| now.saturating_duration_since(at) >= EVENT_INTERVAL);
            if due {
                looked = Some(now);
                if !redraw || self.sink.is_some() {
                    self.window.update();
                }
                live_at = if presentation == Presentation::Live { Some(now) } else { live_at };
                self.tend_desktop(now, live_at, (&scene, &model), on_chosen);
                self.tend_title(presentation, &model);
                self.tend_badge(now, presentation, size, &model);
            }
            if self.handle_presses(model.question.as_ref(), on_chosen) || !self.window.is_open() {
                return Ok(Ended::ClosedByUser);
            }
            if self.size() != size {
                size = self.size();
                if let Some(sink) = &self.sink {
                    sink.resized();
                }
            }
            let wanted = self.output(size);
            if wanted != output {
                output = wanted;
                on_output(output.clone());
            }
        }
    }

    fn scene(&self, now: Instant, presentation: Presentation, size: Resolution, view: &ViewModel) -> Scene {
        let message = message(presentation, &view.status);
        let message = match &view.question {
            Some(question) => Some(asking(message, question, self.selected(question), now)),
            None => message,
        };
        let painted = self.corner.shown.as_ref().filter(|_| self.corner.painted);
        Scene {
            size,
            stale: matches!(presentation, Presentation::Stale { .. }),
            message,
            keys: self.show_keys,
            badge: painted.map(|(badge, ..)| badge.clone()),
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
        (scene, view): (&Scene, &ViewModel),
        on_chosen: &mut dyn FnMut(Offer),
    ) {
        let Some(desktop) = &mut self.desktop else { return };
        desktop.keep_awake(live_at.is_some_and(|at| now.saturating_duration_since(at) < AWAKE_AFTER), now);
        for click in desktop.clicks(&self.window, now) {
            let row = scene.message.as_ref().and_then(|message| overlay::row_at(message, scene.size, click.at));
            let offers = view.question.iter().flat_map(|question| &question.offers);
            match row.and_then(|row| offers.into_iter().nth(row)) {
                Some(offer) => on_chosen(offer.clone()),
                None if click.double => self.toggle_fullscreen(),
                None => {}
            }
        }
    }

    /// The number of the offer that Enter takes: the first, until another is selected.
    fn selected(&self, question: &Question) -> usize {
        let same = |offer: &Offer| {
            self.selected.as_ref().is_some_and(|wanted| (&wanted.id, &wanted.address) == (&offer.id, &offer.address))
        };
        question.offers.iter().position(same).unwrap_or(0)
    }

    fn name<'a>(&'a self, view: &'a ViewModel) -> &'a str {
        let known = [&view.overlay.server, &view.overlay.address].into_iter().find(|text| !text.is_empty());
        known.unwrap_or(&self.name)
    }

    fn tend_title(&mut self, presentation: Presentation, view: &ViewModel) {
        let title = title(self.name(view), presentation, &view.status);
        if title != self.title {
            self.window.set_title(&title);
            self.title = title;
        }
    }

    /// After the picture was drawn, so that none waits for it.
    fn tend_badge(&mut self, now: Instant, presentation: Presentation, size: Resolution, view: &ViewModel) {
        let hidden = presentation != Presentation::Live && size.height < BADGE_BESIDE_MESSAGE
            || (self.show_stats || self.show_keys) && size.width < BADGE_BESIDE_PANEL;
        let badge = (self.corner.wanted && !hidden).then(|| badge(self.name(view), presentation, view));
        let same = match (&self.corner.shown, &badge) {
            (None, None) => true,
            (Some((shown, of, at)), Some(badge)) if *of == size && shown.name == badge.name => {
                let figures = shown.state == badge.state && now.saturating_duration_since(*at) < BADGE_INTERVAL;
                shown == badge || figures
            }
            _ => false,
        };
        if same {
            return;
        }
        let drawn = badge.as_ref().and_then(|badge| overlay::badge(badge, size));
        let picture = drawn.as_ref().map(|(pixels, size)| (pixels.as_slice(), *size));
        let composed = self.desktop.as_mut().is_some_and(|desktop| desktop.show_badge(picture, size.width));
        self.corner.painted = !composed;
        self.corner.shown = badge.map(|badge| (badge, size, now));
    }

    fn draw(&mut self, scene: &Scene, picture: Option<&Picture>) -> Result<(), DisplayError> {
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
        let (pixels, size) = match straight {
            // Straight from the decoder's memory; minifb centres it on black.
            Some(picture) if !picture.pixels().is_empty() => (picture.pixels(), picture.resolution),
            _ => (self.canvas.painted(scene.size, |pixels| scene.paint(pixels, picture)), scene.size),
        };
        self.window
            .update_with_buffer(pixels, size.width as usize, size.height as usize)
            .map_err(|error| DisplayError::Draw(error.to_string()))
    }

    /// Whether one of them asked for the end.
    fn handle_presses(&mut self, question: Option<&Question>, on_chosen: &mut dyn FnMut(Offer)) -> bool {
        while let Ok(press) = self.presses.try_recv() {
            match press {
                Press::Key(Key::Q | Key::Escape) => return true,
                Press::Key(Key::F) => self.toggle_fullscreen(),
                Press::Key(Key::I) => self.show_stats = !self.show_stats,
                Press::Key(Key::F1) | Press::Character('?') => self.show_keys = !self.show_keys,
                other => {
                    let Some(question) = question else { continue };
                    let (offers, selected) = (&question.offers, self.selected(question));
                    let chosen = match other {
                        Press::Key(Key::Enter | Key::NumPadEnter) => offers.get(selected),
                        Press::Character(digit @ '1'..='9') => offers.get(digit as usize - '1' as usize),
                        _ => None,
                    };
                    match (other, chosen) {
                        (_, Some(offer)) => on_chosen(offer.clone()),
                        (Press::Key(Key::Up), _) => self.selected = offers.get(selected.saturating_sub(1)).cloned(),
                        (Press::Key(Key::Down), _) => {
                            self.selected = offers.get(selected + 1).or(offers.last()).cloned();
                        }
                        _ => {}
                    }
                }
            }
        }
        false
    }

    fn toggle_fullscreen(&mut self) {
        if let Err(reason) = self.fullscreen.toggle(&self.window) {
            tracing::warn!("cannot switch full screen: {reason}");
        }
    }
}

/// All that a drawn window depends on, beside the picture.
#[derive(Clone, Debug, PartialEq)]
struct Scene {
    size: Resolution,
    stale: bool,
    message: Option<Message>,
    keys: bool,
    /// Where it has to be painted.
    badge: Option<Badge>,
    stats: Option<OverlayData>,
}

impl Scene {
    /// The picture and nothing else.
    fn is_plain(&self) -> bool {
        self.message.is_none() && self.stats.is_none() && self.badge.is_none() && !self.keys
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
        if let Some(stats) = &self.stats {
            overlay::draw_stats(&mut surface, stats, self.message.is_none());
        }
        if let Some(badge) = &self.badge {
            overlay::draw_badge(&mut surface, badge);
        }
        if self.keys {
            overlay::draw_keys(&mut surface);
        }
        if let Some(message) = &self.message {
            overlay::draw_message(&mut surface, message);
        }
    }
}

fn image(picture: &Picture) -> Image<'_> {
    Image { pixels: picture.pixels(), resolution: picture.resolution, source: picture.source }
}

/// What was pressed.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Press {
    Key(Key),
    /// Whatever keys that takes on the user's keyboard.
    Character(char),
}

/// Turns minifb's key states into presses. Its own `get_keys_pressed` loses one that is released before the next look.
struct Presses {
    presses: Sender<Press>,
    held: Vec<(Key, Instant)>,
    typed: Option<(char, Instant)>,
}

impl InputCallback for Presses {
    fn add_char(&mut self, code: u32) {
        let Some(letter) = char::from_u32(code) else { return };
        let now = Instant::now();
        let before = self.typed.replace((letter, now));
        let repeated = |(before, at)| before == letter && now.saturating_duration_since(at) < CHARACTER_REPEAT;
        if !before.is_some_and(repeated) {
            let _ = self.presses.send(Press::Character(letter));
        }
    }

    fn set_key_state(&mut self, key: Key, down: bool) {
        let now = Instant::now();
        let held = self.held.iter().position(|(other, _)| *other == key).map(|at| self.held.swap_remove(at).1);
        if !down {
            return;
        }
        self.held.push((key, now));
        if held.is_none_or(|since| now.saturating_duration_since(since) > KEY_REPEAT) {
            // The receiver lives in the same window as this callback.
            let _ = self.presses.send(Press::Key(key));
        }
    }
}

/// Takes the pictures without a window, until `stop` is cancelled.
pub fn run_headless(
    mailbox: &Mailbox<Picture>,
    stop: &CancellationToken,
    on_shown: &mut dyn FnMut(&Picture, Instant),
) -> Ended {
    while !stop.is_cancelled() {
        // There are no keys to look at, only the token.
        if let Some(picture) = mailbox.wait(EVENT_INTERVAL) {
            on_shown(&picture, Instant::now());
        }
    }
    Ended::Stopped
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lost() -> Status {
        Status::Lost { reason: "server lost, looking for it…".into() }
    }

    #[test]
    fn video_is_live_for_one_second() {
        let now = Instant::now();
        assert_eq!(presentation(now, None, &Status::Live), Presentation::Waiting);
        assert_eq!(presentation(now + Duration::from_millis(999), Some(now), &Status::Live), Presentation::Live);
        let later = now + Duration::from_millis(1000);
        let stale = Presentation::Stale { age: Duration::from_secs(1) };
        assert_eq!(presentation(later, Some(now), &Status::Live), stale);
        assert_eq!(presentation(later, Some(now), &Status::default()), stale);
    }

    #[test]
    fn a_lost_sessions_picture_is_never_live() {
        let now = Instant::now();
        assert_eq!(presentation(now, Some(now), &lost()), Presentation::Stale { age: Duration::ZERO });
        assert_eq!(presentation(now, None, &lost()), Presentation::Waiting);
    }

    #[test]
    fn a_picture_that_came_late_is_as_old_as_it_is() {
        let now = Instant::now();
        let late_by = Duration::from_millis(700);
        let mut picture = Picture::from_pixels(Resolution::new(1, 1), vec![0], now).unwrap();
        picture.late_by = late_by;
        // When it was decoded says nothing: the process may have stood still while it waited.
        picture.decoded_at = now + Duration::from_secs(10);
        let shown =
            |after: u64| presentation(now + Duration::from_millis(after), Some(picture.due_at()), &Status::Live);
        assert_eq!(shown(299), Presentation::Live);
        assert_eq!(shown(300), Presentation::Stale { age: STALE_AFTER });
    }

    #[test]
    fn the_first_line_of_what_is_being_done_is_the_title() {
        let status = Status::Connecting { what: "Looking for a server…\nnone found within 3 s".into() };
        let said = message(Presentation::Waiting, &status).unwrap();
        assert_eq!((said.title.as_str(), said.detail.as_str()), ("Looking for a server…", "None found within 3 s"));
        assert_eq!(said.tone, Tone::Waiting);
    }

    #[test]
    fn the_message_tells_the_age_and_the_reason() {
        let stale = Presentation::Stale { age: Duration::from_millis(3_499) };
        let said = message(stale, &lost()).unwrap();
        assert_eq!((said.title.as_str(), said.detail.as_str()), ("NO VIDEO 3 s", "Server lost, looking for it…"));
        assert_eq!(said.tone, Tone::Warning);
        assert_eq!(message(stale, &Status::Live).unwrap().detail, "Connected, but no picture comes");
        assert_eq!(message(Presentation::Live, &Status::Live), None);
    }

    #[test]
    fn ages_are_rounded_down_and_reasons_begin_as_sentences() {
        let ages = [(0, "0 s"), (119_999, "119 s"), (120_000, "2 min"), (7_199_999, "119 min"), (7_200_000, "2 h")];
        for (ms, text) in ages {
            assert_eq!(duration(Duration::from_millis(ms)), text);
        }
        for (text, expected) in [
            ("the server does not answer", "The server does not answer"),
            ("rov-bow does not answer", "rov-bow does not answer"),
            ("http://10.0.0.2:8080/whep does not answer", "http://10.0.0.2:8080/whep does not answer"),
            ("x264enc: gone", "x264enc: gone"),
            ("", ""),
        ] {
            assert_eq!(sentence(text), expected);
        }
    }

    #[test]
    fn a_question_stands_below_the_warning_or_in_the_place_of_what_is_being_done() {
        let now = Instant::now();
        let offer = Offer { label: "Nemo  10.0.0.2:8080".into(), address: String::new(), id: String::new(), key: None };
        let takes_first_at = Some(now + Duration::from_secs(7));
        let question = Question { text: "rov2 answers".into(), offers: vec![offer], takes_first_at };
        let stale = Presentation::Stale { age: Duration::from_secs(12) };
        let asked = asking(message(stale, &lost()), &question, 0, now);
        assert_eq!((asked.title.as_str(), asked.detail.as_str()), ("NO VIDEO 12 s", "rov2 answers"));
        let menu = asked.menu.unwrap();
        assert_eq!((menu.rows.len(), menu.note.as_str()), (1, "Takes 1 by itself in 7 s"));
        let asked = asking(message(Presentation::Waiting, &Status::default()), &question, 0, now);
        assert_eq!((asked.title.as_str(), asked.tone), ("rov2 answers", Tone::Waiting));
    }

    #[test]
    fn title_and_badge_say_whose_picture_it_is_and_how_things_are() {
        let stale = Presentation::Stale { age: Duration::from_millis(12_900) };
        for (presentation, status, expected, state) in [
            (Presentation::Live, Status::Live, "Nemo - live", BadgeState::Live),
            (stale, Status::Live, "Nemo - NO VIDEO 12 s", BadgeState::NoVideo),
            (Presentation::Waiting, lost(), "Nemo - NO VIDEO", BadgeState::NoVideo),
            (Presentation::Waiting, Status::Live, "Nemo - connecting", BadgeState::Connecting),
        ] {
            assert_eq!(title("Nemo", presentation, &status), expected);
            let mut view = ViewModel { status, ..ViewModel::default() };
            view.overlay.transport = "WebRTC".into();
            view.overlay.latency = vec![("network".into(), 2.2), ("decode".into(), 6.0)];
            let badge = badge("Nemo", presentation, &view);
            let figures = (badge.delay_ms, badge.link.as_str());
            assert_eq!(badge.state, state);
            assert_eq!(figures, if state == BadgeState::Live { (Some(8), "WebRTC") } else { (None, "") });
        }
        assert_eq!(title("a\0b\n", Presentation::Live, &Status::Live), "a b  - live", "what comes from the network");
    }

    #[test]
    fn before_the_first_picture_the_window_says_what_is_being_done() {
        assert_eq!(message(Presentation::Waiting, &Status::default()).unwrap().title, "Looking for a server…");
    }

    #[test]
    fn a_held_key_counts_once() {
        let (presses, keys) = channel();
        let mut callback = Presses { presses, held: Vec::new(), typed: None };
        for down in [true, true, true, false, true, false] {
            callback.set_key_state(Key::F, down);
        }
        for letter in "??5?".chars() {
            callback.add_char(letter.into());
        }
        let characters = ['?', '5', '?'].map(Press::Character);
        assert_eq!(keys.try_iter().collect::<Vec<_>>(), [&[Press::Key(Key::F); 2][..], &characters].concat());
    }

    #[test]
    fn headless_takes_pictures_until_it_is_stopped() {
        let mailbox = Mailbox::new();
        let stop = CancellationToken::new();
        let picture = Picture::from_pixels(Resolution::new(1, 1), vec![0], Instant::now()).unwrap();
        mailbox.put(picture);
        let mut shown = 0;
        let ended = run_headless(&mailbox, &stop.clone(), &mut |_, _| {
            shown += 1;
            stop.cancel();
        });
        assert_eq!((ended, shown), (Ended::Stopped, 1));
    }
}
