//! What is drawn over the picture: the warning, the statistics, the keys, the corner. Pure. Drawn in this order, the
//! last on top: statistics, keys, message.

mod text;

use rov_common::clock_sync::Age;
use rov_common::units::Resolution;

pub use self::text::Surface;
use self::text::{Area, Block, Look, known, shortened, wrapped};
use crate::clock::Unknown;

const PANEL: u32 = 0x0a_0f_14;
const TEXT: u32 = 0xf2_f5_f7;
const LABEL: u32 = 0x93_a4_b3;
const GREEN: u32 = 0x3d_d6_8c;
const AMBER: u32 = 0xff_b0_20;
const RED: u32 = 0xff_3b_30;
const BLUE: u32 = 0x4d_a3_ff;
/// Behind the row that Enter takes.
const SELECTED: u32 = 0x1f_4b_7a;
/// Colours of the stages in the latency bar, one after the other.
const STAGES: [u32; 6] = [0x4d_a3_ff, 0x3d_d6_8c, 0xff_b0_20, 0xff_6b_6b, 0xb1_8c_ff, 0x5c_d9_e8];
/// Of 256: how much of the panel covers the picture.
const PANEL_OPACITY: u32 = 212;
/// What is written on it must be read, whatever is below.
const CARD_OPACITY: u32 = 244;
/// Characters in a line of a note, and in a narrow window.
const NOTE_WIDTH: usize = 36;
const NARROW_NOTE_WIDTH: usize = 18;
/// Of the smaller side of the picture: the frame of what is not live, and in pixels at least.
const FRAME: i32 = 40;
const LEAST_FRAME: i32 = 4;
/// A window of fewer characters is narrow.
const NARROW: i32 = 50;
/// Characters of a name in the badge.
const NAME_WIDTH: usize = 24;
/// Characters in a line of a notice.
const NOTICE_WIDTH: i32 = 56;

/// What the keys do, for the window and `--help`. The last ones find no room in the lowest window.
pub const KEYS: [(&str, &str, Action); 11] = [
    ("1-9, Tab", "Choose a stream", Action::Next),
    ("G", "All cameras", Action::Grid),
    ("A", "Align the cameras", Action::Align),
    ("R", "Record, or end it", Action::Record),
    ("S, middle click", "Save the picture", Action::Save),
    ("C", "Save the last seconds", Action::Clip),
    ("E", "Note an event", Action::Event),
    ("F, double click", "Fullscreen", Action::Fullscreen),
    ("I", "Information", Action::Information),
    ("Q, Esc", "Close", Action::Close),
    ("?, right click", "Keys, to be clicked", Action::Keys),
];

/// What a key does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Next,
    Grid,
    Align,
    Record,
    Save,
    Clip,
    Event,
    Fullscreen,
    Information,
    Close,
    Keys,
}

/// What the overlay says; empty and missing values are left out.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OverlayData {
    /// Name of the server.
    pub server: String,
    /// Its address and port.
    pub address: String,
    /// Size of the video as decoded.
    pub resolution: Option<Resolution>,
    /// Pictures shown per second.
    pub fps: Option<f64>,
    pub bitrate_kbps: Option<f64>,
    /// Share of packets lost, 0 to 1.
    pub loss: Option<f64>,
    pub rtt_ms: Option<f64>,
    /// The element that decodes.
    pub decoder: String,
    /// What draws it into the window.
    pub display: String,
    /// How the video comes, as `RTSP over TCP`.
    pub transport: String,
    /// What is odd about that.
    pub notes: Vec<String>,
    /// Stage and its delay in milliseconds, in the order from camera to glass.
    pub latency: Vec<(String, f64)>,
    /// From capture to the screen, as measured, or why that cannot be; none: nothing is shown.
    pub age: Option<Result<Age, Unknown>>,
    /// Of all pictures that were shown: p50, p95 and p99 of their ages, in milliseconds.
    pub ages: Option<[f64; 3]>,
}

/// The tone of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// It is as it should be, or something is being waited for.
    Waiting,
    /// Something is wrong.
    Warning,
    /// It is recorded: a red dot stands before it.
    Recording,
}

/// The line in the corner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Badge {
    /// Of the vehicle.
    pub name: String,
    pub state: BadgeState,
    /// From capture to screen, in milliseconds, as far as it is known.
    pub delay_ms: Option<u32>,
    /// By how much that may be wrong, where it is much.
    pub bound_ms: Option<u32>,
    /// How the video comes.
    pub link: String,
    /// What is odd; may be empty.
    pub remark: &'static str,
    /// Whether its pictures go into a file; none: they are not to, or that is said elsewhere.
    pub recorded: Option<bool>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadgeState {
    Connecting,
    /// The pilot is asked.
    Choosing,
    Live,
    /// The picture moves and is old.
    Late,
    /// The picture moves, and how old it is is not known any more.
    Blind,
    /// The picture is none of the camera of now, which the mark on it explains.
    Doubtful,
    NoVideo,
}

impl Badge {
    fn state(&self) -> (&'static str, u32) {
        match self.state {
            BadgeState::Connecting => ("Connecting", BLUE),
            BadgeState::Choosing => ("Choose a server", BLUE),
            BadgeState::Live => ("Live", GREEN),
            BadgeState::Late => ("OLD", AMBER),
            BadgeState::Blind => ("age ?", AMBER),
            BadgeState::Doubtful => ("NOT LIVE", AMBER),
            BadgeState::NoVideo => ("NO VIDEO", AMBER),
        }
    }

    /// Its parts and their colours, as many as fit into `room` characters. How things are is never left out.
    fn parts(&self, room: usize) -> Vec<(String, u32)> {
        let (state, color) = self.state();
        let name = shortened(&known(&self.name), NAME_WIDTH.min(room.saturating_sub(state.len() + 2)));
        let bound = self.bound_ms.map(|ms| format!(" \u{b1}{ms}")).unwrap_or_default();
        let delay = self.delay_ms.map(|ms| format!("{ms} ms{bound}")).unwrap_or_default();
        let mut parts = vec![(name, TEXT), (state.to_owned(), color)];
        parts.retain(|(text, _)| !text.is_empty());
        let unrecorded = if self.recorded == Some(false) { "NOT RECORDED" } else { "" };
        let more = [(unrecorded, AMBER), (self.remark, AMBER), (&delay, TEXT), (&known(&self.link), LABEL)];
        for (text, color) in more.map(|(text, color)| (text.to_owned(), color)) {
            if !text.is_empty() && length(&parts) + 2 + text.chars().count() <= room {
                parts.push((text, color));
            }
        }
        parts
    }
}

/// Characters of the parts in a line, two apart.
fn length(parts: &[(String, u32)]) -> usize {
    let gaps = parts.len().saturating_sub(1) * 2;
    parts.iter().map(|(text, _)| text.chars().count()).sum::<usize>() + gaps
}

/// What stands in the corner.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Corner {
    pub badge: Option<Badge>,
    /// Below it, while it is recorded, for how long and how much.
    pub recording: Option<String>,
    /// What the pilot has to know, below the badge.
    pub notices: Vec<String>,
}

impl Corner {
    /// Whether the other one says the same but for delay, link, and how much is recorded.
    pub fn differs_in_figures(&self, other: &Self) -> bool {
        let said = |badge: &Option<Badge>| badge.as_ref().map(|badge| (badge.name.clone(), badge.state));
        self.notices == other.notices
            && said(&self.badge) == said(&other.badge)
            && self.recording.is_some() == other.recording.is_some()
    }
}

/// The corner as opaque pixels for a window of this size, and their size; none where there is nothing to say, or the
/// window is too small for any. It covers no more than the upper half.
pub fn corner(corner: &Corner, window: Resolution) -> Option<(Vec<u32>, Resolution)> {
    let look = Look::of(window);
    let (advance, line, pad) = (look.plain.advance(), look.plain.height(), look.pad / 2);
    let room = ((window.width as i32 - 4 * pad) / advance).max(0);
    let badge = corner.badge.as_ref().map(|badge| badge.parts(room as usize)).unwrap_or_default();
    let recording = corner.recording.as_ref().map(|text| known(text)).filter(|text| text.len() + 2 <= room as usize);
    let head = i32::from(!badge.is_empty()) + i32::from(recording.is_some());
    let lines = (window.height as i32 / 2 - pad) / line - head;
    let number = corner.notices.len().min(lines.max(0) as usize);
    let mut notices = Vec::new();
    for notice in &corner.notices[..number] {
        let mut block = Block::new(notice, look.plain, room.min(NOTICE_WIDTH) * advance);
        // Each gets its part of the room.
        block.cut(lines / number as i32 * look.plain.line());
        notices.append(&mut block.lines);
    }
    let longest = notices.iter().map(|line| line.chars().count() as i32).max().unwrap_or(0);
    // Before it stands a dot.
    let recorded = recording.as_ref().map_or(0, |text| text.chars().count() as i32 + 2);
    let columns = longest.max(length(&badge) as i32).max(recorded);
    let rows = notices.len() as i32 + head;
    let size = Resolution::new((columns * advance + 2 * pad) as u32, (rows * line + pad) as u32);
    let least = if notices.is_empty() { 3 } else { 2 };
    if columns == 0 || size.width > window.width || size.height * least > window.height {
        return None;
    }
    let mut pixels = vec![PANEL; size.width as usize * size.height as usize];
    let mut surface = Surface::new(&mut pixels, size)?;
    let mut y = pad / 2;
    // In the corner, however long the notices are.
    let mut x = size.width as i32 - pad - length(&badge) as i32 * advance;
    y += if badge.is_empty() { 0 } else { line };
    for (text, color) in badge {
        surface.text(&text, (x, pad / 2), look.plain, color);
        x += (text.chars().count() as i32 + 2) * advance;
    }
    if let Some(text) = recording {
        let x = size.width as i32 - pad - recorded * advance;
        surface.dot((x + advance / 2, y + line / 2), line / 4, RED);
        surface.text(&text, (x + 2 * advance, y), look.plain, TEXT);
        y += line;
    }
    for text in notices {
        surface.text(&text, (pad, y), look.plain, AMBER);
        y += line;
    }
    Some((pixels, size))
}

/// Lines from the upper left corner as opaque pixels for a window of this size, and their size; none where there are
/// none, or the window is too small for any. What does not fit is cut off.
pub fn written(lines: &[String], window: Resolution) -> Option<(Vec<u32>, Resolution)> {
    let look = Look::of(window);
    let (advance, line, pad) = (look.bold.advance(), look.bold.height(), look.pad / 2);
    let columns = ((window.width as i32 - 2 * pad) / advance).max(0) as usize;
    let rows = ((window.height as i32 - pad) / line).max(0) as usize;
    let lines: Vec<_> = lines.iter().take(rows).map(|text| shortened(&known(text), columns)).collect();
    let longest = lines.iter().map(|text| text.chars().count() as i32).max().filter(|longest| *longest > 0)?;
    let size = Resolution::new((longest * advance + 2 * pad) as u32, (lines.len() as i32 * line + pad) as u32);
    let mut pixels = vec![PANEL; size.width as usize * size.height as usize];
    let mut surface = Surface::new(&mut pixels, size)?;
    for (text, y) in lines.iter().zip((pad / 2..).step_by(line as usize)) {
        surface.text(text, (pad, y), look.bold, TEXT);
    }
    Some((pixels, size))
}

/// Draws them at this place, where nothing else puts them there.
pub fn draw_written(surface: &mut Surface<'_>, lines: &[String], (x, y): (i32, i32)) {
    if let Some((pixels, size)) = written(lines, surface.size) {
        let room = |place: i32, side: u32, whole: u32| place.min(whole as i32 - side as i32).max(0);
        let place = (room(x, size.width, surface.size.width), room(y, size.height, surface.size.height));
        surface.copy(&pixels, size, place);
    }
}

/// Draws the corner, where nothing else puts it there.
pub fn draw_corner(surface: &mut Surface<'_>, data: &Corner) {
    if let Some((pixels, size)) = corner(data, surface.size) {
        surface.copy(&pixels, size, (surface.size.width as i32 - size.width as i32, 0));
    }
}

/// From one line to the next in captions and below the tiles of a window's grid.
pub fn caption_height(window: Resolution) -> u32 {
    (Look::of(window).plain.height() + 2) as u32
}

/// What is said below the tiles, broken into lines, and no more of them than `most`.
pub fn grid_lines(said: &[String], window: Resolution, most: usize) -> Vec<String> {
    let look = Look::of(window);
    let mut lines = Vec::new();
    for text in said {
        lines.append(&mut Block::new(text, look.plain, window.width as i32 - 2 * look.pad).lines);
    }
    lines.truncate(most);
    lines
}

/// Draws them at the bottom of the window, how it is above what is odd.
pub fn draw_grid_lines(surface: &mut Surface<'_>, status: &[(String, Tone)], lines: &[String]) {
    let (look, size) = (Look::of(surface.size), surface.size);
    let line = caption_height(size) as i32;
    let warnings = lines.iter().map(|text| (text, Tone::Warning));
    let lines: Vec<_> = status.iter().map(|(text, tone)| (text, *tone)).chain(warnings).collect();
    let mut y = size.height as i32 - line * lines.len() as i32;
    for (text, tone) in lines {
        let advance = look.plain.advance();
        let (color, behind) = match tone {
            Tone::Waiting => (LABEL, 0),
            Tone::Warning => (AMBER, 0),
            Tone::Recording => {
                surface.dot((look.pad + advance / 2, y + line / 2), line / 4, RED);
                (TEXT, 2 * advance)
            }
        };
        surface.text(text, (look.pad + behind, y + 1), look.plain, color);
        y += line;
    }
}

/// Fills the surface with the caption of a tile, in letters for a window of the size `window`. A red dot is in front
/// where it is recorded.
pub fn draw_caption(surface: &mut Surface<'_>, caption: &Badge, window: Resolution) {
    let (look, size) = (Look::of(window), surface.size);
    surface.fill(Area { x: 0, y: 0, width: size.width as i32, height: size.height as i32 }, PANEL, 256);
    let (advance, pad) = (look.plain.advance(), look.pad / 2);
    let mut x = pad;
    if caption.recorded == Some(true) {
        let line = caption_height(window) as i32;
        surface.dot((x + advance / 2, line / 2), line / 4, RED);
        x += 2 * advance;
    }
    let room = ((size.width as i32 - pad - x) / advance).max(0) as usize;
    for (text, color) in caption.parts(room) {
        surface.text(&text, (x, 1), look.plain, color);
        x += (text.chars().count() as i32 + 2) * advance;
    }
}

/// Draws the statistics into the upper left corner; `live` tells whether they are of the moment.
pub fn draw_stats(surface: &mut Surface<'_>, data: &OverlayData, live: bool) {
    let look = Look::of(surface.size);
    let (width, height) = (surface.size.width as i32, surface.size.height as i32);
    // In a narrow window every column counts.
    let is_narrow = width < NARROW * look.plain.advance();
    let (margin, pad, gap) = if is_narrow { (0, 2, 1) } else { (look.pad, look.pad, 2) };
    let rows = rows(data, is_narrow);
    let labels = rows.iter().map(|(label, _)| label.chars().count()).max().unwrap_or(0) as i32 + gap;
    let values = rows.iter().map(|(_, value)| value.chars().count()).max().unwrap_or(0) as i32;
    // Without a name the address; never a word that says how things are.
    let title = if data.server.is_empty() { &data.address } else { &data.server };
    let stages = data.latency.iter().map(|(stage, _)| stage.chars().count()).max().unwrap_or(0) as i32 + 2;
    let columns = (labels + values).max(title.chars().count() as i32 + 2).max(stages + 12);
    let latency_lines = if data.latency.is_empty() { 0 } else { data.latency.len() as i32 + 2 };
    let lines = rows.len() as i32 + 1 + latency_lines;
    let advance = look.plain.advance();
    // Closer together where the window is low; what finds no room then is left out.
    let line = look.plain.line().min((height - 4 * pad) / lines).max(look.plain.height());
    let fits = |y: i32| y + look.plain.height() <= height;
    let panel = Area { x: margin, y: margin, width: columns * advance + 2 * pad, height: lines * line + 2 * pad };
    surface.fill(panel, PANEL, PANEL_OPACITY);
    let accent = if live { GREEN } else { AMBER };
    surface.fill(Area { width: 3 * look.scale, ..panel }, accent, 256);
    let (left, mut y) = (panel.x + pad + 2 * look.scale, panel.y + pad);
    surface.text(title, (left, y), look.bold, TEXT);
    y += line;
    for (label, value) in &rows {
        if !fits(y) {
            break;
        }
        surface.text(label, (left, y), look.plain, LABEL);
        surface.text(value, (left + labels * advance, y), look.plain, TEXT);
        y += line;
    }
    if !data.latency.is_empty() && fits(y + line / 2) {
        let bar = Area { x: left, y: y + line / 2, width: columns * advance, height: line };
        draw_latency(surface, look, &data.latency, bar, labels);
    }
}

/// The latency: a total, a bar of its parts, and a line of the height of `at` for each.
fn draw_latency(surface: &mut Surface<'_>, look: Look, stages: &[(String, f64)], at: Area, labels: i32) {
    let total: f64 = stages.iter().map(|(_, ms)| ms.max(0.0)).sum();
    let (advance, line) = (look.plain.advance(), at.height);
    surface.text("Latency", (at.x, at.y), look.plain, LABEL);
    surface.text(&format!("{total:.1} ms"), (at.x + labels * advance, at.y), look.bold, TEXT);
    let mut x = f64::from(at.x);
    let bar_y = at.y + line;
    for (index, (stage, ms)) in stages.iter().enumerate() {
        let color = STAGES[index % STAGES.len()];
        let part = if total > 0.0 { ms.max(0.0) / total * f64::from(at.width) } else { 0.0 };
        let (from, to) = (x.round() as i32, (x + part).round() as i32);
        surface.fill(Area { x: from, y: bar_y, width: to - from, height: 4 * look.scale }, color, 256);
        x += part;
        let y = bar_y + line / 2 + line * index as i32;
        let square = 8 * look.scale;
        let middle = (look.plain.height() - square) / 2;
        surface.fill(Area { x: at.x, y: y + middle, width: square, height: square }, color, 256);
        surface.text(stage, (at.x + 2 * advance, y), look.plain, LABEL);
        let value = format!("{ms:.1} ms");
        let right = at.x + at.width - value.chars().count() as i32 * advance;
        surface.text(&value, (right, y), look.plain, TEXT);
    }
}

/// The list of keys in its places.
struct Keys {
    look: Look,
    /// Key and what it does of the rows that there is room for.
    rows: Vec<(&'static str, &'static str)>,
    has_title: bool,
    /// Characters of the longest key.
    keys: i32,
    line: i32,
    inner: (i32, i32),
}

impl Keys {
    fn of(window: Resolution) -> Self {
        let look = Look::of(window);
        let (advance, pad) = (look.plain.advance(), look.pad);
        // In the lowest window without a title.
        let room = window.height as i32 - 2 * pad;
        let fit = room / look.plain.height();
        let number = fit.clamp(1, KEYS.len() as i32);
        let has_title = number < fit;
        let lines = number + i32::from(has_title);
        // In a narrow window one key for each, in a low one closer together.
        let is_narrow = (window.width as i32) < NARROW * advance;
        let key = |keys: &'static str| if is_narrow { keys.split(',').next().unwrap_or(keys) } else { keys };
        let rows = KEYS.map(|(keys, does, _)| (key(keys), does));
        let longest = |texts: [&str; KEYS.len()]| texts.iter().map(|text| text.len()).max().unwrap_or(0) as i32;
        let (keys, does) = (longest(rows.map(|(key, _)| key)), longest(rows.map(|(_, does)| does)));
        let line = look.plain.line().min(room / lines).max(look.plain.height());
        let inner = ((keys + 2 + does) * advance, lines * line);
        Self { look, rows: rows.into_iter().take(number as usize).collect(), has_title, keys, line, inner }
    }

    fn row(&self, card: Area, index: usize) -> Area {
        let above = index as i32 + i32::from(self.has_title);
        Area { x: card.x, y: card.y + self.look.pad + above * self.line, width: card.width, height: self.line }
    }
}

/// What the row of the keys at this place does.
pub fn key_at(window: Resolution, at: (i32, i32)) -> Option<Action> {
    let keys = Keys::of(window);
    let card = card_area(keys.look, keys.inner, window);
    (0..keys.rows.len()).find(|index| keys.row(card, *index).contains(at)).map(|index| KEYS[index].2)
}

/// Draws what the keys do into the middle.
pub fn draw_keys(surface: &mut Surface<'_>) {
    let keys = Keys::of(surface.size);
    let look = keys.look;
    let card = card(surface, look, BLUE, keys.inner);
    let left = card.x + look.pad;
    if keys.has_title {
        surface.text("Keys", (left, card.y + look.pad), look.bold, TEXT);
    }
    for (index, (key, does)) in keys.rows.iter().enumerate() {
        let y = keys.row(card, index).y;
        surface.text(key, (left, y), look.plain, TEXT);
        surface.text(does, (left + (keys.keys + 2) * look.plain.advance(), y), look.plain, LABEL);
    }
}

/// Where the text of an event is typed, below the middle.
struct TypingCard {
    look: Look,
    /// Of letters.
    columns: usize,
    area: Area,
    /// Below the text: what saves it, and what does not.
    buttons: [Area; 2],
}

impl TypingCard {
    fn of(window: Resolution) -> Self {
        let (look, width, height) = (Look::of(window), window.width as i32, window.height as i32);
        let (advance, line) = (look.plain.advance(), look.plain.line());
        let columns = ((width - 4 * look.pad) / advance).clamp(1, NOTICE_WIDTH);
        let area = Area {
            x: (width - columns * advance) / 2 - look.pad,
            y: (height * 3 / 4 - 2 * line - 2 * look.pad).max(0),
            width: columns * advance + 2 * look.pad,
            height: 3 * line + 4 * look.pad,
        };
        let half = area.width / 2;
        // With what is around the letters, for fingers.
        let left = Area { y: area.y + 2 * line + look.pad, width: half, height: line + 3 * look.pad, ..area };
        Self { look, columns: columns as usize, area, buttons: [left, Area { x: area.x + half, ..left }] }
    }
}

/// Whether the button at this place saves the event whose text is typed; none: there is no button.
pub fn typing_at(window: Resolution, at: (i32, i32)) -> Option<bool> {
    let [saves, cancels] = TypingCard::of(window).buttons;
    if saves.contains(at) { Some(true) } else { cancels.contains(at).then_some(false) }
}

/// Draws the text of an event as it is typed; of a long one the end.
pub fn draw_typing(surface: &mut Surface<'_>, text: &str) {
    let TypingCard { look, columns, area, buttons } = TypingCard::of(surface.size);
    let text = format!("{}_", known(text));
    let end = text.chars().skip(text.chars().count().saturating_sub(columns)).collect::<String>();
    surface.fill(area, PANEL, CARD_OPACITY);
    surface.fill(Area { height: 3 * look.scale, ..area }, BLUE, 256);
    let (x, y) = (area.x + look.pad, area.y + look.pad);
    surface.text("Event", (x, y), look.plain, LABEL);
    surface.text(&end, (x, y + look.plain.line()), look.plain, TEXT);
    for (button, does) in buttons.into_iter().zip(["Save (Enter)", "Cancel (Esc)"]) {
        let at = (button.x + look.pad, button.y + look.pad);
        surface.text(&shortened(does, columns / 2), at, look.plain, LABEL);
    }
}

/// Around a picture that is no live picture of its camera: old, frozen, a test picture. Always a frame of stripes,
/// which are seen over white and over black, and by those who do not see its colour; and in large letters what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Empty: something else says it.
    pub title: String,
    pub detail: String,
}

/// Draws the frame along the edge, and what it is at the bottom, above whatever is there.
pub fn draw_mark(surface: &mut Surface<'_>, mark: &Mark) {
    let (look, size) = (Look::of(surface.size), surface.size);
    let (width, height) = (size.width as i32, size.height as i32);
    let edge = (width.min(height) / FRAME).max(LEAST_FRAME);
    let (right, bottom) = (width - edge, height - edge);
    for area in [
        Area { x: 0, y: 0, width, height: edge },
        Area { x: 0, y: bottom, width, height: edge },
        Area { x: 0, y: edge, width: edge, height: bottom - edge },
        Area { x: right, y: edge, width: edge, height: bottom - edge },
    ] {
        surface.stripes(area, 2 * edge, [AMBER, PANEL]);
    }
    if mark.title.is_empty() {
        return;
    }
    let room = width - 2 * edge - 2 * look.pad;
    let title = Block::large(&mark.title, look, room, height / 7);
    let mut detail = Block::new(&mark.detail, look.plain, room.min(NOTICE_WIDTH * look.plain.advance()));
    detail.cut((height / 3 - title.height()).max(0));
    if title.height() + detail.height() > height / 2 {
        detail.lines.clear();
    }
    let inner = (title.width().max(detail.width()), title.height() + detail.height());
    let (pad, top) = (look.pad / 2, bottom - inner.1 - look.pad);
    let plaque =
        Area { x: (width - inner.0) / 2 - look.pad, y: top, width: inner.0 + 2 * look.pad, height: inner.1 + look.pad };
    surface.fill(plaque, PANEL, CARD_OPACITY);
    title.draw(surface, top + pad, AMBER);
    detail.draw(surface, top + pad + title.height(), TEXT);
}

/// What stands in the middle of the window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// In big letters.
    pub title: String,
    /// In small ones.
    pub detail: String,
    pub tone: Tone,
    pub menu: Option<Menu>,
}

/// What can be chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Menu {
    pub rows: Vec<String>,
    pub selected: usize,
    /// What happens by itself; may be empty.
    pub note: String,
}

/// A message in its places.
struct Laid {
    look: Look,
    title: Block,
    detail: Block,
    note: Block,
    /// Text of the rows that there is room for, and the number of the first.
    rows: Vec<String>,
    first: usize,
    /// Width and height of all of it.
    inner: (i32, i32),
    gap: i32,
}

impl Laid {
    fn of(message: &Message, window: Resolution) -> Self {
        let look = Look::of(window);
        let (width, height, pad) = (window.width as i32, window.height as i32, look.pad);
        let (room, line, gap) = (width - 4 * pad, look.plain.line(), pad / 2);
        let title = Block::title(&message.title, look, room);
        let mut detail = Block::new(&message.detail, look.plain, room);
        let mut note = Block::new(message.menu.as_ref().map_or("", |menu| &menu.note), look.plain, room);
        let left = |used: i32| height - 3 * pad - title.height() - used;
        let (mut rows, mut first) = (Vec::new(), 0);
        if let Some(menu) = &message.menu {
            // The choice goes before the explanation of it.
            let shown = (left(0) / line).clamp(1, menu.rows.len().max(1) as i32) as usize;
            first = (menu.selected + 1).saturating_sub(shown);
            let letters = (room / look.plain.advance()).max(8) as usize;
            let row = |(number, text): (usize, &String)| {
                let key = if number < 9 { (number + 1).to_string() } else { " ".to_owned() };
                let row = known(&format!("{key}  {text}"));
                let row = if row.chars().count() > letters { row.replace("  ", " ") } else { row };
                shortened(&row, letters)
            };
            rows = menu.rows.iter().enumerate().skip(first).take(shown).map(row).collect();
        }
        let mut used = rows.len() as i32 * line + if rows.is_empty() { 0 } else { gap };
        for block in [&mut detail, &mut note] {
            let room = left(used + gap);
            if room < line && !rows.is_empty() {
                block.lines.clear();
            }
            block.cut(room);
            used += block.height() + if block.lines.is_empty() { 0 } else { gap };
        }
        let widest = rows.iter().map(|row| row.chars().count()).max().unwrap_or(0) as i32 * look.plain.advance();
        let inner = title.width().max(detail.width()).max(note.width()).max(widest);
        let inner = (inner, title.height() + used);
        Self { look, title, detail, note, rows, first, inner, gap }
    }

    /// The row of each part, from the top of the inside: detail, rows, note.
    fn tops(&self) -> (i32, i32, i32) {
        let detail = self.title.height() + self.gap;
        let rows = if self.detail.lines.is_empty() { detail } else { detail + self.detail.height() + self.gap };
        let height = self.rows.len() as i32 * self.look.plain.line();
        (detail, rows, rows + height + self.gap)
    }

    fn row(&self, card: Area, index: usize) -> Area {
        let line = self.look.plain.line();
        let (x, y) = (card.x + self.look.pad / 2, card.y + self.look.pad + self.tops().1 + index as i32 * line);
        Area { x, y, width: self.inner.0 + self.look.pad, height: line }
    }
}

/// The number of the menu's row at this place.
pub fn row_at(message: &Message, window: Resolution, at: (i32, i32)) -> Option<usize> {
    let laid = Laid::of(message, window);
    let card = card_area(laid.look, laid.inner, window);
    (0..laid.rows.len()).find(|index| laid.row(card, *index).contains(at)).map(|index| laid.first + index)
}

/// Draws a message into the middle, broken to fit.
pub fn draw_message(surface: &mut Surface<'_>, message: &Message) {
    let laid = Laid::of(message, surface.size);
    let accent = match message.tone {
        Tone::Waiting | Tone::Recording => BLUE,
        Tone::Warning => AMBER,
    };
    let card = card(surface, laid.look, accent, laid.inner);
    let top = card.y + laid.look.pad;
    laid.title.draw(surface, top, if message.tone == Tone::Warning { accent } else { TEXT });
    let (detail, _, note) = laid.tops();
    laid.detail.draw(surface, top + detail, TEXT);
    laid.note.draw(surface, top + note, LABEL);
    let plain = laid.look.plain;
    for (index, text) in laid.rows.iter().enumerate() {
        let row = laid.row(card, index);
        if message.menu.as_ref().is_some_and(|menu| menu.selected == laid.first + index) {
            surface.fill(row, SELECTED, 256);
        }
        let (x, y) = (row.x + laid.look.pad / 2, row.y + (row.height - plain.height()) / 2);
        surface.text(text, (x, y), plain, TEXT);
    }
}

/// Where a box around something of this size lies, in the middle of the window.
fn card_area(look: Look, (width, height): (i32, i32), window: Resolution) -> Area {
    let (width, height) = (width + 2 * look.pad, height + 2 * look.pad);
    let (x, y) = ((window.width as i32 - width) / 2, (window.height as i32 - height) / 2);
    // What is too high for the window loses its end.
    Area { x, y: y.max(0), width, height }
}

fn card(surface: &mut Surface<'_>, look: Look, accent: u32, inner: (i32, i32)) -> Area {
    let card = card_area(look, inner, surface.size);
    surface.fill(card, PANEL, CARD_OPACITY);
    surface.fill(Area { height: 3 * look.scale, ..card }, accent, 256);
    card
}

/// Label and value of each line, for a narrow window or another.
fn rows(data: &OverlayData, is_narrow: bool) -> Vec<(&'static str, String)> {
    let mut rows = Vec::new();
    let (note_width, space) = if is_narrow { (NARROW_NOTE_WIDTH, " ") } else { (NOTE_WIDTH, "  ") };
    if !data.address.is_empty() {
        rows.push(("Server", data.address.clone()));
    }
    if !data.transport.is_empty() {
        rows.push(("Link", data.transport.clone()));
    }
    for note in &data.notes {
        rows.extend(wrapped(&known(note), note_width).into_iter().map(|line| ("", line)));
    }
    let fps = data.fps.map(|fps| format!("{fps:.1} fps"));
    let video: Vec<_> = data.resolution.map(|size| size.to_string()).into_iter().chain(fps).collect();
    if !video.is_empty() {
        rows.push(("Video", video.join(space)));
    }
    match data.age {
        Some(Ok(Age { age, bound })) => {
            let (age, bound) = (age.as_secs_f64() * 1e3, bound.as_secs_f64() * 1e3);
            rows.push(("Age", format!("{age:.0} ms \u{b1}{bound:.1}")));
            if let Some([p50, p95, p99]) = data.ages {
                rows.push(("", format!("p50 {p50:.0}{space}p95 {p95:.0}{space}p99 {p99:.0}")));
            }
        }
        Some(Err(reason)) => {
            let lines = wrapped(&reason.to_string(), note_width).into_iter();
            rows.extend(std::iter::once("Age").chain(std::iter::repeat("")).zip(lines));
        }
        None => {}
    }
    if let Some(kbps) = data.bitrate_kbps {
        let text = if kbps >= 1000.0 { format!("{:.1} Mbit/s", kbps / 1000.0) } else { format!("{kbps:.0} kbit/s") };
        rows.push(("Bitrate", text));
    }
    if let Some(loss) = data.loss {
        rows.push(("Loss", format!("{:.2} %", loss * 100.0)));
    }
    if let Some(rtt) = data.rtt_ms {
        rows.push(("RTT", format!("{rtt:.1} ms")));
    }
    if !data.decoder.is_empty() {
        rows.push(("Decoder", data.decoder.clone()));
    }
    if !data.display.is_empty() {
        rows.push(("Display", data.display.clone()));
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHITE: u32 = 0xff_ff_ff;

    fn drawn(size: Resolution, draw: impl Fn(&mut Surface<'_>)) -> Vec<u32> {
        let mut pixels = vec![WHITE; size.pixels() as usize];
        draw(&mut Surface::new(&mut pixels, size).unwrap());
        pixels
    }

    fn data() -> OverlayData {
        OverlayData {
            server: "rov-bow".into(),
            address: "192.168.2.2:8080".into(),
            resolution: Some(Resolution::new(1920, 1080)),
            fps: Some(29.97),
            bitrate_kbps: Some(14_830.0),
            loss: Some(0.0012),
            rtt_ms: Some(1.25),
            decoder: "avdec_h264".into(),
            display: "ximagesink".into(),
            transport: "RTP".into(),
            notes: vec!["WebRTC failed: no media path to it was found".into()],
            latency: vec![("network".into(), 2.0), ("decode".into(), 6.0)],
            age: Some(Ok(Age { age: std::time::Duration::from_millis(42), bound: std::time::Duration::ZERO })),
            ages: Some([40.2, 52.0, 61.0]),
        }
    }

    fn message(title: &str, detail: &str, tone: Tone) -> Message {
        Message { title: title.into(), detail: detail.into(), tone, menu: None }
    }

    fn question(servers: usize, selected: usize) -> Message {
        let rows = (0..servers).map(|number| format!("rov{number}  10.0.0.{number}:8080")).collect();
        let menu = Some(Menu { rows, selected, note: "Enter or a click chooses".into() });
        Message { menu, ..message("Several servers were found", "", Tone::Waiting) }
    }

    #[test]
    fn each_row_of_a_menu_is_where_it_is_drawn() {
        for (width, height) in [(160, 90), (320, 240), (1280, 720)] {
            let size = Resolution::new(width, height);
            for (servers, selected) in [(1, 0), (2, 1), (30, 29)] {
                let question = question(servers, selected);
                let pixels = drawn(size, |surface| draw_message(surface, &question));
                let lit: Vec<_> = (0..pixels.len()).filter(|at| pixels[*at] == SELECTED).collect();
                let (at, y) = (lit[lit.len() / 2] % width as usize, lit[lit.len() / 2] / width as usize);
                let place = (at as i32, y as i32);
                assert_eq!(row_at(&question, size, place), Some(selected), "{size} {servers}");
                assert_eq!(row_at(&question, size, (0, 0)), None);
                assert!(pixels.contains(&TEXT) && y < height as usize - 2, "{size}: inside");
            }
        }
    }

    fn live() -> Badge {
        let (name, link) = ("Nemo".into(), "WebRTC".into());
        Badge { name, state: BadgeState::Live, delay_ms: Some(45), bound_ms: None, link, remark: "", recorded: None }
    }

    #[test]
    fn the_warning_is_the_same_whatever_is_below_it() {
        for (width, height) in [(160, 90), (320, 240), (1280, 720)] {
            let size = Resolution::new(width, height);
            let warn = |surface: &mut Surface<'_>| {
                draw_message(surface, &message("NO VIDEO 3 s", "No video arrives", Tone::Warning))
            };
            let alone = drawn(size, warn);
            let above = drawn(size, |surface| {
                draw_stats(surface, &data(), false);
                draw_keys(surface);
                warn(surface);
            });
            let ink = |pixels: &[u32], color: u32| pixels.iter().filter(|pixel| **pixel == color).count();
            for color in [AMBER, TEXT] {
                let places = (0..alone.len()).filter(|at| alone[*at] == color);
                assert!(places.clone().count() > 80, "{size}: {}", ink(&alone, color));
                assert!(places.into_iter().all(|at| above[at] == color), "{size}: it is covered");
            }
        }
    }

    #[test]
    fn a_long_reason_is_cut_rather_than_its_title() {
        let size = Resolution::new(160, 90);
        let pixels =
            drawn(size, |surface| draw_message(surface, &message("NO VIDEO 3 s", NOTHING_FOUND, Tone::Warning)));
        let amber = pixels.iter().filter(|pixel| **pixel == AMBER).count();
        assert!(amber > 300, "the title is there: {amber}");
        assert_eq!(pixels[89 * 160 + 80], WHITE, "the card ends inside the window");
    }

    #[test]
    fn the_badge_leaves_out_what_does_not_fit_but_never_how_things_are() {
        let text =
            |badge: &Badge, room| badge.parts(room).into_iter().map(|(text, _)| text).collect::<Vec<_>>().join(" ");
        assert_eq!(text(&live(), 40), "Nemo Live 45 ms WebRTC");
        assert_eq!(text(&live(), 20), "Nemo Live 45 ms");
        assert_eq!(text(&live(), 12), "Nemo Live");
        let lost = Badge { name: "A vehicle with a long name".into(), state: BadgeState::NoVideo, ..live() };
        assert_eq!(text(&lost, 18), "A veh... NO VIDEO");
        assert_eq!(text(&lost, 8), "NO VIDEO");
        let alone = Corner { badge: Some(live()), ..Corner::default() };
        let (pixels, size) = corner(&alone, Resolution::new(1280, 720)).unwrap();
        assert!(pixels.contains(&GREEN) && pixels.contains(&TEXT) && size.width < 300 && size.height < 30, "{size}");
        assert!(corner(&alone, Resolution::new(40, 30)).is_none());
        assert!(corner(&Corner::default(), Resolution::new(1280, 720)).is_none());
    }

    #[test]
    fn a_red_dot_says_that_it_is_recorded_and_no_other_colour_does() {
        let window = Resolution::new(1280, 720);
        let red = |recording: Option<&str>| {
            let recording = recording.map(str::to_owned);
            let drawn = corner(&Corner { badge: Some(live()), recording, ..Corner::default() }, window);
            let (pixels, size) = drawn.expect("a corner");
            (pixels.iter().filter(|pixel| **pixel == RED).count(), size.height)
        };
        let ((without, low), (with, high)) = (red(None), red(Some("REC 02:13 45 MB")));
        assert!(without == 0 && with > 40 && high > low, "{with} of {low} and {high}");
    }

    #[test]
    fn each_tile_says_whether_it_is_recorded() {
        let (window, size) = (Resolution::new(1280, 720), Resolution::new(600, 24));
        let drawn = |recorded| {
            let caption = Badge { recorded, ..live() };
            let mut pixels = vec![0; size.pixels() as usize];
            draw_caption(&mut Surface::new(&mut pixels, size).expect("a surface"), &caption, window);
            (pixels.iter().filter(|pixel| **pixel == RED).count(), pixels.contains(&AMBER))
        };
        assert_eq!([drawn(None), drawn(Some(false))], [(0, false), (0, true)]);
        let (red, has_amber) = drawn(Some(true));
        assert!(red > 40 && !has_amber, "{red}");
    }

    #[test]
    fn notices_stand_below_the_badge_and_leave_half_of_the_window() {
        let notice = "10.0.0.3:8080 also claims to be Nemo, with another key or none: a copied card or an impostor; \
                      watching 10.0.0.2:8080";
        let ink = |pixels: &[u32], color: u32| pixels.iter().filter(|pixel| **pixel == color).count();
        for (width, height) in [(160, 90), (320, 240), (640, 360), (1920, 1080)] {
            let window = Resolution::new(width, height);
            let said = |badge, number| {
                corner(&Corner { badge, notices: vec![notice.into(); number], ..Corner::default() }, window).unwrap()
            };
            let (both, size) = said(Some(live()), 1);
            assert!(size.height * 2 <= height && size.width <= width, "{window}: {size}");
            assert!(ink(&both, AMBER) > 300 && ink(&both, GREEN) > 20, "{window}");
            let (alone, lower) = said(None, 1);
            assert!(ink(&alone, AMBER) > 300 && lower.height <= size.height, "{window}: {lower}");
            assert!(said(Some(live()), 2).1.height * 2 <= height, "{window}");
        }
        // No room for it: the badge stays.
        let low = Corner { badge: Some(live()), notices: vec![notice.into()], ..Corner::default() };
        let (pixels, _) = corner(&low, Resolution::new(160, 50)).unwrap();
        assert!(pixels.contains(&GREEN) && !pixels.contains(&AMBER));
    }

    #[test]
    fn the_lines_say_what_is_known() {
        let expected = [
            ("Server", "192.168.2.2:8080"),
            ("Link", "RTP"),
            ("", "WebRTC failed: no media path to it"),
            ("", "was found"),
            ("Video", "1920x1080  30.0 fps"),
            ("Age", "42 ms \u{b1}0.0"),
            ("", "p50 40  p95 52  p99 61"),
            ("Bitrate", "14.8 Mbit/s"),
            ("Loss", "0.12 %"),
            ("RTT", "1.2 ms"),
            ("Decoder", "avdec_h264"),
            ("Display", "ximagesink"),
        ];
        let rows = rows(&data(), false);
        assert_eq!(rows.iter().map(|(label, value)| (*label, value.as_str())).collect::<Vec<_>>(), expected);
        assert!(super::rows(&OverlayData::default(), true).is_empty());
    }

    #[test]
    fn text_is_light_on_a_dark_box_whatever_is_behind() {
        let size = Resolution::new(1280, 720);
        let pixels = drawn(size, |surface| draw_stats(surface, &data(), true));
        let panel = pixels[20 * 1280 + 40];
        assert!(panel & 0xff < 0x50, "{panel:#08x}");
        assert!(pixels.contains(&TEXT), "white text at its own size is opaque");
        assert_eq!(pixels[719 * 1280 + 1279], WHITE, "the rest of the picture is untouched");
    }

    #[test]
    fn a_big_window_gets_bigger_text() {
        let ink = |size: Resolution| {
            let pixels = drawn(size, |surface| draw_stats(surface, &data(), true));
            pixels.iter().filter(|pixel| **pixel == TEXT).count()
        };
        let (small, big) = (ink(Resolution::new(1280, 720)), ink(Resolution::new(2560, 1440)));
        assert!(big > 2 * small, "{small} {big}");
    }

    #[test]
    fn a_message_lies_in_the_middle() {
        let size = Resolution::new(1280, 720);
        let pixels = drawn(size, |surface| draw_message(surface, &message("NO VIDEO 3 s", "looking…", Tone::Warning)));
        let column = |x: usize| (0..720).any(|y| pixels[y * 1280 + x] != WHITE);
        let (left, right) = ((0..1280).find(|x| column(*x)).unwrap(), (0..1280).rfind(|x| column(*x)).unwrap());
        assert!((left as i32 - (1279 - right as i32)).abs() <= 1, "{left} {right}");
        assert!(pixels.contains(&AMBER));
    }

    #[test]
    fn a_message_stays_on_its_card() {
        let size = Resolution::new(1280, 720);
        let pixels = drawn(size, |surface| draw_message(surface, &message("Looking for a server…", "", Tone::Waiting)));
        let card = |x: usize| pixels[340 * 1280 + x] != WHITE;
        let (left, right) = ((0..1280).find(|x| card(*x)).unwrap(), (0..1280).rfind(|x| card(*x)).unwrap());
        let text = |x: usize| (0..720).any(|y| pixels[y * 1280 + x] == TEXT);
        assert!((0..1280).filter(|x| text(*x)).all(|x| left + 10 < x && x + 10 < right));
    }

    #[test]
    fn a_mark_is_seen_on_all_sides_over_white_and_black_and_its_words_lie_in_the_frame() {
        let mark = Mark { title: "CAMERA FROZEN".into(), detail: NOTHING_FOUND.into() };
        for (width, height) in [(160, 90), (320, 240), (1280, 720), (3840, 2160), (600, 2000)] {
            let size = Resolution::new(width, height);
            let pixels = drawn(size, |surface| draw_mark(surface, &mark));
            let at = |x: u32, y: u32| pixels[(y * width + x) as usize];
            let sides: [Vec<u32>; 4] = [
                (0..width).map(|x| at(x, 1)).collect(),
                (0..width).map(|x| at(x, height - 2)).collect(),
                (0..height).map(|y| at(1, y)).collect(),
                (0..height).map(|y| at(width - 2, y)).collect(),
            ];
            for side in sides {
                // One of the two stands out from whatever is behind, also for those who see no colours.
                for color in [AMBER, PANEL] {
                    let part = side.iter().filter(|pixel| **pixel == color).count();
                    assert!(part * 5 > side.len() * 2, "{size}: {part} of {}", side.len());
                }
            }
            assert_eq!(at(width / 2, height / 4), WHITE, "{size}: the picture is seen");
            let edge = width.min(height) / 40 + 4;
            let inside = (edge..width - edge).flat_map(|x| (edge..height - edge).map(move |y| at(x, y)));
            assert!(inside.filter(|pixel| *pixel == AMBER).count() > 200, "{size}");
        }
    }

    #[test]
    fn nothing_is_drawn_outside_of_a_tiny_window() {
        for size in [Resolution::new(1, 1), Resolution::new(40, 9), Resolution::new(160, 120)] {
            drawn(size, |surface| {
                draw_stats(surface, &data(), true);
                draw_keys(surface);
                draw_mark(surface, &Mark { title: "0.4 s OLD".into(), detail: NOTHING_FOUND.into() });
                draw_typing(surface, NOTHING_FOUND);
                draw_corner(
                    surface,
                    &Corner { badge: Some(live()), notices: vec![NOTHING_FOUND.into()], ..Corner::default() },
                );
                draw_message(
                    surface,
                    &message("Looking for a server…", "on every interface, port 5003", Tone::Waiting),
                );
            });
        }
        assert!(Surface::new(&mut [0; 3], Resolution::new(2, 2)).is_none());
    }

    /// What the session says when nothing answers.
    const NOTHING_FOUND: &str = "no server named \"rov-bow\" found within 3.0 s: asked by multicast 239.255.42.98 port \
                                 5003 and broadcast on eth0 (192.168.2.1/24), wlan0 (10.42.0.17/24) and docker0 \
                                 (172.17.0.1/16); is the server on, and does a firewall let UDP port 5003 through? \
                                 http://[fe80::1]:8080/whep";

    #[test]
    fn an_event_can_be_saved_and_cancelled_by_a_click() {
        for size in [Resolution::new(1280, 720), Resolution::new(320, 240)] {
            let TypingCard { area, buttons, .. } = TypingCard::of(size);
            let middle = |area: &Area| (area.x + area.width / 2, area.y + area.height / 2);
            assert_eq!(buttons.each_ref().map(|button| typing_at(size, middle(button))), [Some(true), Some(false)]);
            assert_eq!(typing_at(size, (area.x + 1, area.y + 1)), None, "the text");
            let end = area.y + area.height;
            assert!(
                end <= size.height as i32 && buttons.iter().all(|button| button.y + button.height <= end),
                "{size}"
            );
        }
    }

    #[test]
    fn a_long_text_lies_inside_the_window() {
        for size in [Resolution::new(1280, 720), Resolution::new(640, 480), Resolution::new(2560, 1440)] {
            let (width, height) = (size.width as usize, size.height as usize);
            for (title, detail) in [(NOTHING_FOUND, ""), ("Looking for a server…", NOTHING_FOUND)] {
                let pixels = drawn(size, |surface| draw_message(surface, &message(title, detail, Tone::Waiting)));
                let card = |x: usize, y: usize| pixels[y * width + x] != WHITE;
                let row: Vec<_> = (0..width).filter(|x| card(*x, height / 2)).collect();
                let column: Vec<_> = (0..height).filter(|y| card(width / 2, *y)).collect();
                let (left, right) = (row[0], row[row.len() - 1]);
                let (top, bottom) = (column[0], column[column.len() - 1]);
                assert!(left > 0 && right < width - 1 && top > 0 && bottom < height - 1, "{size} {left} {right}");
                // The card has an empty margin on all sides, so nothing of the text was cut off.
                let text: Vec<_> = (0..width * height).filter(|at| pixels[*at] == TEXT).collect();
                assert!(text.len() > 1000, "{size}: {}", text.len());
                let inside = |at: &usize| {
                    let (x, y) = (at % width, at / width);
                    left + 5 < x && x + 5 < right && top + 5 < y && y + 5 < bottom
                };
                assert!(text.iter().all(inside), "{size} {title}");
            }
        }
    }

    #[test]
    fn keys_and_statistics_lie_inside_the_smallest_window() {
        let size = Resolution::new(160, 90);
        let ends_inside = |pixels: &[u32]| {
            let lit = |x: usize, y: usize| [TEXT, LABEL].contains(&pixels[y * 160 + x]);
            (0..90).all(|y| !lit(0, y) && !lit(159, y)) && (0..160).all(|x| !lit(x, 0) && !lit(x, 89))
        };
        let pixels = drawn(size, draw_keys);
        assert!(ends_inside(&pixels) && pixels.iter().filter(|pixel| **pixel == TEXT).count() > 100);
        for notes in [Vec::new(), vec![NOTHING_FOUND.to_owned()]] {
            let data = OverlayData { notes, ..data() };
            assert!(ends_inside(&drawn(size, |surface| draw_stats(surface, &data, true))));
        }
    }

    #[test]
    fn of_a_text_that_is_typed_the_end_is_seen_and_more_of_it_makes_the_card_no_larger() {
        let size = Resolution::new(1280, 720);
        let typed = |text: &str| drawn(size, |surface| draw_typing(surface, text));
        let card = |pixels: &[u32]| pixels.iter().filter(|pixel| **pixel != WHITE).count();
        let (none, long) = (typed(""), typed(&"anemone ".repeat(40)));
        assert_eq!(card(&none), card(&long));
        assert_ne!(long, typed(&format!("{}!", "anemone ".repeat(40))), "the last letter is seen");
        assert!(none.contains(&BLUE) && long.iter().filter(|pixel| **pixel == TEXT).count() > 500);
    }

    #[test]
    fn each_key_is_where_it_is_drawn() {
        for (width, height) in [(320, 240), (1280, 720), (2560, 1440)] {
            let size = Resolution::new(width, height);
            let pixels = drawn(size, draw_keys);
            let middle = width as i32 / 2;
            // From top to bottom each once, in the order of the list.
            let mut found: Vec<_> = (0..height as i32).filter_map(|y| key_at(size, (middle, y))).collect();
            found.dedup();
            assert_eq!(found, KEYS.map(|(_, _, action)| action), "{size}");
            let written =
                (0..pixels.len()).filter(|at| pixels[*at] == LABEL).map(|at| (at as u32 % width, at as u32 / width));
            for (x, y) in written {
                assert!(key_at(size, (x as i32, y as i32)).is_some(), "{size}: {x} {y}");
            }
            assert_eq!(key_at(size, (0, 0)), None);
        }
    }

    #[test]
    fn without_a_name_the_statistics_are_headed_by_the_address() {
        let size = Resolution::new(1280, 720);
        let with = |server: &str, address: &str| {
            let data = OverlayData { server: server.into(), address: address.into(), ..OverlayData::default() };
            drawn(size, |surface| draw_stats(surface, &data, true))
        };
        assert!(with("", "10.0.0.1:80") == with("10.0.0.1:80", "10.0.0.1:80"));
        assert!(!with("", "").contains(&TEXT), "nothing is known, so nothing is said");
    }
}
