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
mod presses;
mod sink;
mod words;

use std::fmt;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use minifb::{Key, ScaleMode, WindowOptions};
use rov_common::units::Resolution;
use tokio_util::sync::CancellationToken;

use self::canvas::{Canvas, Image};
pub use self::choice::DisplayChoice;
use self::desktop::Desktop;
use self::fullscreen::Fullscreen;
use self::presses::{Press, Presses};
use self::sink::Sink;
use self::words::{Presentation, aside, asking, badge, message, presentation, title};
use crate::decode::{Output, Picture};
use crate::mailbox::Mailbox;
use crate::overlay::{self, Corner, Message, OverlayData};
use crate::viewer::{Offer, Question};

/// A picture older than this is not shown as live.
pub const STALE_AFTER: Duration = Duration::from_secs(1);
/// Keys and resizing are looked at no more often, and at most twice as long apart.
const EVENT_INTERVAL: Duration = Duration::from_millis(40);
/// An unchanged window is drawn again this often, since nobody tells when another window had covered it.
const REPAIR_INTERVAL: Duration = Duration::from_millis(500);

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
    /// What the pilot has to know while pictures come.
    pub notices: Vec<String>,
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
    /// The last click chose one of the offers.
    clicked_row: bool,
    corner: CornerShown,
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
            title: name.to_owned(),
            show_stats: false,
            show_keys: false,
            selected: None,
            clicked_row: false,
            corner: CornerShown {
                shown: (Corner::default(), size, Instant::now()),
                covers: Resolution::new(0, 0),
                wanted: true,
                painted: false,
            },
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
                if self.tend_corner(now, presentation, size, &model) && presentation != Presentation::Live {
                    // What it covered is empty now, and no picture comes to fill it.
                    drawn = None;
                }
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
            // Beside a live picture it stands in the corner.
            Some(question) if presentation != Presentation::Live => {
                Some(asking(message, question, self.selected(question), now))
            }
            _ => message,
        };
        Scene {
            size,
            stale: matches!(presentation, Presentation::Stale { .. }),
            message,
            keys: self.show_keys,
            corner: if self.corner.painted { self.corner.shown.0.clone() } else { Corner::default() },
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
            let offer = row.and_then(|row| offers.into_iter().nth(row));
            // The second click of two comes when the list is gone.
            let is_of_row = std::mem::replace(&mut self.clicked_row, offer.is_some());
            match offer {
                Some(offer) => on_chosen(offer.clone()),
                None if click.double && !is_of_row => self.toggle_fullscreen(),
                None => {}
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

    fn tend_title(&mut self, presentation: Presentation, view: &ViewModel) {
        let title = title(self.name(view), presentation, view);
        if title != self.title {
            self.window.set_title(&title);
            self.title = title;
        }
    }

    /// After the picture was drawn, so that none waits for it. Whether it covers less than before.
    fn tend_corner(&mut self, now: Instant, presentation: Presentation, size: Resolution, view: &ViewModel) -> bool {
        let is_live = presentation == Presentation::Live;
        let hidden = !is_live && size.height < BADGE_BESIDE_MESSAGE
            || (self.show_stats || self.show_keys) && size.width < BADGE_BESIDE_PANEL;
        let badge = (self.corner.wanted && !hidden).then(|| badge(self.name(view), presentation, view));
        // Nothing may lie over a message, and the statistics say it, too.
        let has_notices = is_live && !hidden && !self.show_stats;
        let notices = view.question.iter().map(aside).chain(view.notices.iter().cloned());
        let wanted = Corner { badge, notices: notices.filter(|_| has_notices).collect() };
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
    /// Empty where it need not be painted.
    corner: Corner,
    stats: Option<OverlayData>,
}

impl Scene {
    /// The picture and nothing else.
    fn is_plain(&self) -> bool {
        self.message.is_none() && self.stats.is_none() && self.corner == Corner::default() && !self.keys
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
        overlay::draw_corner(&mut surface, &self.corner);
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
