//! Text and boxes drawn into the window's pixels. Pure.
//!
//! The fonts of embedded-graphics are bitmaps of one size. Where the window is big they are enlarged and smoothed, so
//! that they keep their size to the eye. They know the characters of ISO 8859-1; others show as question marks.

use embedded_graphics::draw_target::DrawTarget;
use embedded_graphics::geometry::{OriginDimensions, Point, Size};
use embedded_graphics::mono_font::iso_8859_1::{FONT_6X13, FONT_6X13_BOLD, FONT_9X18, FONT_9X18_BOLD, FONT_10X20};
use embedded_graphics::mono_font::{MonoFont, MonoTextStyle};
use embedded_graphics::pixelcolor::BinaryColor;
use embedded_graphics::text::{Baseline, Text};
use embedded_graphics::{Drawable, Pixel};
use rov_common::units::Resolution;

const PANEL: u32 = 0x0a_0f_14;
const TEXT: u32 = 0xf2_f5_f7;
const LABEL: u32 = 0x93_a4_b3;
const GREEN: u32 = 0x3d_d6_8c;
const AMBER: u32 = 0xff_b0_20;
const BLUE: u32 = 0x4d_a3_ff;
/// Colours of the stages in the latency bar, one after the other.
const STAGES: [u32; 6] = [0x4d_a3_ff, 0x3d_d6_8c, 0xff_b0_20, 0xff_6b_6b, 0xb1_8c_ff, 0x5c_d9_e8];
/// Of 256: how much of the panel covers the picture.
const PANEL_OPACITY: u32 = 212;
/// Characters in a line of a note.
const NOTE_WIDTH: usize = 36;

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
}

/// The tone of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// Something is being waited for, as it should be.
    Waiting,
    /// Something is wrong.
    Warning,
}

/// Pixels 0x00RRGGBB to draw into. Everything outside is cut off.
#[derive(Debug)]
pub struct Surface<'a> {
    pixels: &'a mut [u32],
    size: Resolution,
}

/// A rectangle in pixels; may reach over the edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Area {
    x: i32,
    y: i32,
    width: i32,
    height: i32,
}

/// Fonts and measures for a window's size.
#[derive(Clone, Copy)]
struct Look {
    plain: &'static MonoFont<'static>,
    bold: &'static MonoFont<'static>,
    /// Every length is multiplied by this.
    scale: i32,
}

impl Look {
    fn of(size: Resolution) -> Self {
        let scale = (size.width / 1280).min(size.height / 720).clamp(1, 8) as i32;
        if size.width < 800 || size.height < 450 {
            Self { plain: &FONT_6X13, bold: &FONT_6X13_BOLD, scale }
        } else {
            Self { plain: &FONT_9X18, bold: &FONT_9X18_BOLD, scale }
        }
    }

    fn advance(self) -> i32 {
        self.plain.character_size.width as i32 * self.scale
    }

    fn line(self) -> i32 {
        self.plain.character_size.height as i32 * self.scale * 5 / 4
    }
}

impl<'a> Surface<'a> {
    /// None if there are not exactly as many pixels as `size` says.
    pub fn new(pixels: &'a mut [u32], size: Resolution) -> Option<Self> {
        (pixels.len() as u64 == size.pixels()).then_some(Self { pixels, size })
    }

    /// Mixes `color` into an area; `alpha` of 256.
    fn fill(&mut self, area: Area, color: u32, alpha: u32) {
        let (width, height) = (self.size.width as i32, self.size.height as i32);
        let (left, right) = (area.x.clamp(0, width), (area.x + area.width).clamp(0, width));
        let (top, bottom) = (area.y.clamp(0, height), (area.y + area.height).clamp(0, height));
        for y in top..bottom {
            let row = y as usize * self.size.width as usize;
            for pixel in &mut self.pixels[row + left as usize..row + right.max(left) as usize] {
                *pixel = mix(*pixel, color, alpha);
            }
        }
    }

    /// Draws a line of text with its upper left corner at `x`, `y`.
    fn text(&mut self, text: &str, (x, y): (i32, i32), font: &MonoFont<'_>, scale: i32, color: u32) {
        let mask = Mask::of(text, font);
        let (width, height) = (mask.width as i32 * scale, mask.height as i32 * scale);
        for dy in 0..height {
            for dx in 0..width {
                let alpha = mask.coverage(dx, dy, scale);
                if alpha > 0 {
                    self.fill(Area { x: x + dx, y: y + dy, width: 1, height: 1 }, color, alpha);
                }
            }
        }
    }
}

/// Draws the statistics into the upper left corner; `live` tells whether they are of the moment.
pub fn draw_stats(surface: &mut Surface<'_>, data: &OverlayData, live: bool) {
    let look = Look::of(surface.size);
    let rows = rows(data);
    let labels = rows.iter().map(|(label, _)| label.chars().count()).max().unwrap_or(0) as i32 + 2;
    let values = rows.iter().map(|(_, value)| value.chars().count()).max().unwrap_or(0) as i32;
    // Without a name the address; never a word that says how things are.
    let title = if data.server.is_empty() { &data.address } else { &data.server };
    let stages = data.latency.iter().map(|(stage, _)| stage.chars().count()).max().unwrap_or(0) as i32 + 2;
    let columns = (labels + values).max(title.chars().count() as i32 + 2).max(stages + 12);
    let (advance, line, pad) = (look.advance(), look.line(), 12 * look.scale);
    let latency_lines = if data.latency.is_empty() { 0 } else { data.latency.len() as i32 + 2 };
    let panel = Area {
        x: pad,
        y: pad,
        width: columns * advance + 2 * pad,
        height: (rows.len() as i32 + 1 + latency_lines) * line + 2 * pad,
    };
    surface.fill(panel, PANEL, PANEL_OPACITY);
    let accent = if live { GREEN } else { AMBER };
    surface.fill(Area { width: 3 * look.scale, ..panel }, accent, 256);
    let (left, mut y) = (panel.x + pad + 2 * look.scale, panel.y + pad);
    surface.text(title, (left, y), look.bold, look.scale, TEXT);
    y += line;
    for (label, value) in &rows {
        surface.text(label, (left, y), look.plain, look.scale, LABEL);
        surface.text(value, (left + labels * advance, y), look.plain, look.scale, TEXT);
        y += line;
    }
    if !data.latency.is_empty() {
        let bar = Area { x: left, y: y + line / 2, width: columns * advance, height: 0 };
        draw_latency(surface, look, &data.latency, bar, labels);
    }
}

/// The latency: a total, a bar of its parts, and a line for each.
fn draw_latency(surface: &mut Surface<'_>, look: Look, stages: &[(String, f64)], at: Area, labels: i32) {
    let total: f64 = stages.iter().map(|(_, ms)| ms.max(0.0)).sum();
    let (advance, line) = (look.advance(), look.line());
    surface.text("Latency", (at.x, at.y), look.plain, look.scale, LABEL);
    surface.text(&format!("{total:.1} ms"), (at.x + labels * advance, at.y), look.bold, look.scale, TEXT);
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
        let middle = (look.plain.character_size.height as i32 * look.scale - square) / 2;
        surface.fill(Area { x: at.x, y: y + middle, width: square, height: square }, color, 256);
        surface.text(stage, (at.x + 2 * advance, y), look.plain, look.scale, LABEL);
        let value = format!("{ms:.1} ms");
        let right = at.x + at.width - value.chars().count() as i32 * advance;
        surface.text(&value, (right, y), look.plain, look.scale, TEXT);
    }
}

/// Draws a message into the middle: a big text, and a smaller one below, both broken to fit.
pub fn draw_message(surface: &mut Surface<'_>, title: &str, detail: &str, tone: Tone) {
    let look = Look::of(surface.size);
    let (width, pad) = (surface.size.width as i32, 20 * look.scale);
    let title = Block::title(&known(title), look, width - 4 * pad);
    let detail = Block::new(&known(detail), look.plain, look.scale, width - 4 * pad);
    let gap = if detail.lines.is_empty() { 0 } else { 10 * look.scale };
    let (inner, height) = (title.width().max(detail.width()), title.height() + gap + detail.height() + 2 * pad);
    // What is too high for the window loses its end.
    let top = ((surface.size.height as i32 - height) / 2).max(0);
    let card = Area { x: (width - inner) / 2 - pad, y: top, width: inner + 2 * pad, height };
    let accent = match tone {
        Tone::Waiting => BLUE,
        Tone::Warning => AMBER,
    };
    surface.fill(card, PANEL, 225);
    surface.fill(Area { height: 3 * look.scale, ..card }, accent, 256);
    let title_color = if tone == Tone::Warning { accent } else { TEXT };
    title.draw(surface, card.y + pad, title_color);
    detail.draw(surface, card.y + pad + title.height() + gap, TEXT);
}

/// Centred lines of one size.
struct Block {
    lines: Vec<String>,
    font: &'static MonoFont<'static>,
    scale: i32,
}

impl Block {
    fn new(text: &str, font: &'static MonoFont<'static>, scale: i32, width: i32) -> Self {
        let room = (width / (font.character_size.width as i32 * scale)).max(8) as usize;
        Self { lines: wrapped(text, room), font, scale }
    }

    /// Twice the size of other text, unless that takes more than one line, or two at the smallest size.
    fn title(text: &str, look: Look, width: i32) -> Self {
        let small = look.scale == 1 && std::ptr::eq(look.plain, &FONT_6X13);
        let font = if small { look.bold } else { &FONT_10X20 };
        let fits = |scale: &i32| Self::new(text, font, *scale, width).lines.len() <= 1;
        let scale = (1..=2 * look.scale).rev().find(fits).unwrap_or(look.scale);
        let block = Self::new(text, font, scale, width);
        // A sentence is no headline.
        if block.lines.len() > 2 { Self::new(text, look.bold, look.scale, width) } else { block }
    }

    fn advance(&self) -> i32 {
        self.font.character_size.width as i32 * self.scale
    }

    fn line(&self) -> i32 {
        self.font.character_size.height as i32 * self.scale * 5 / 4
    }

    fn width(&self) -> i32 {
        self.lines.iter().map(|line| line.chars().count()).max().unwrap_or(0) as i32 * self.advance()
    }

    fn height(&self) -> i32 {
        self.lines.len() as i32 * self.line()
    }

    fn draw(&self, surface: &mut Surface<'_>, top: i32, color: u32) {
        for (line, y) in self.lines.iter().zip((top..).step_by(self.line().max(1) as usize)) {
            let x = (surface.size.width as i32 - line.chars().count() as i32 * self.advance()) / 2;
            surface.text(line, (x, y), self.font, self.scale, color);
        }
    }
}

/// Label and value of each line.
fn rows(data: &OverlayData) -> Vec<(&'static str, String)> {
    let mut rows = Vec::new();
    if !data.address.is_empty() {
        rows.push(("Server", data.address.clone()));
    }
    if !data.transport.is_empty() {
        rows.push(("By", data.transport.clone()));
    }
    for note in &data.notes {
        rows.extend(wrapped(&known(note), NOTE_WIDTH).into_iter().map(|line| ("", line)));
    }
    let fps = data.fps.map(|fps| format!("{fps:.1} fps"));
    let video: Vec<_> = data.resolution.map(|size| size.to_string()).into_iter().chain(fps).collect();
    if !video.is_empty() {
        rows.push(("Video", video.join("  ")));
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

/// Breaks `text` at spaces into lines of at most `room` characters, and longer words anywhere.
fn wrapped(text: &str, room: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        let letters: Vec<char> = word.chars().collect();
        for piece in letters.chunks(room.max(1)) {
            match lines.last_mut() {
                Some(line) if line.chars().count() + 1 + piece.len() <= room => {
                    line.push(' ');
                    line.extend(piece);
                }
                _ => lines.push(piece.iter().collect()),
            }
        }
    }
    lines
}

/// Common characters that the fonts lack, in others that they have.
fn known(text: &str) -> String {
    text.replace('…', "...").replace(['–', '—'], "-").replace(['’', '‘'], "'").replace(['“', '”'], "\"")
}

/// `alpha` of 256 of `over` on `under`.
fn mix(under: u32, over: u32, alpha: u32) -> u32 {
    let channel = |shift: u32| {
        let (under, over) = (under >> shift & 0xff, over >> shift & 0xff);
        ((under * (256 - alpha) + over * alpha) >> 8) << shift
    };
    channel(16) | channel(8) | channel(0)
}

/// A line of text as a bitmap of the font's own size.
struct Mask {
    bits: Vec<bool>,
    width: usize,
    height: usize,
}

impl Mask {
    fn of(text: &str, font: &MonoFont<'_>) -> Self {
        let (width, height) = (
            text.chars().count() * (font.character_size.width + font.character_spacing) as usize,
            font.character_size.height as usize,
        );
        let mut mask = Self { bits: vec![false; width * height], width, height };
        let style = MonoTextStyle::new(font, BinaryColor::On);
        match Text::with_baseline(text, Point::zero(), style, Baseline::Top).draw(&mut mask) {
            Ok(_) => mask,
        }
    }

    fn bit(&self, x: i32, y: i32) -> f32 {
        let inside = x >= 0 && y >= 0 && (x as usize) < self.width && (y as usize) < self.height;
        f32::from(u8::from(inside && self.bits[y as usize * self.width + x as usize]))
    }

    /// Of 256, how much of a pixel of the enlarged bitmap the text covers: interpolated and sharpened, so that slanted
    /// strokes have no steps.
    fn coverage(&self, x: i32, y: i32, scale: i32) -> u32 {
        if scale == 1 {
            return if self.bit(x, y) > 0.5 { 256 } else { 0 };
        }
        let place = |at: i32| (at as f32 + 0.5) / scale as f32 - 0.5;
        let (fx, fy) = (place(x), place(y));
        let (x0, y0) = (fx.floor(), fy.floor());
        let (tx, ty) = (fx - x0, fy - y0);
        let (x0, y0) = (x0 as i32, y0 as i32);
        let upper = self.bit(x0, y0) * (1.0 - tx) + self.bit(x0 + 1, y0) * tx;
        let lower = self.bit(x0, y0 + 1) * (1.0 - tx) + self.bit(x0 + 1, y0 + 1) * tx;
        let value = upper * (1.0 - ty) + lower * ty;
        // The edge lies at a third rather than a half: strokes one pixel wide would get thin otherwise.
        (((value - 0.36) * 2.5 * scale as f32 / 2.0 + 0.5).clamp(0.0, 1.0) * 256.0) as u32
    }
}

impl OriginDimensions for Mask {
    fn size(&self) -> Size {
        Size::new(self.width as u32, self.height as u32)
    }
}

impl DrawTarget for Mask {
    type Color = BinaryColor;
    type Error = std::convert::Infallible;

    fn draw_iter<I: IntoIterator<Item = Pixel<BinaryColor>>>(&mut self, pixels: I) -> Result<(), Self::Error> {
        for Pixel(point, color) in pixels {
            if let (Ok(x), Ok(y)) = (usize::try_from(point.x), usize::try_from(point.y))
                && x < self.width
                && y < self.height
            {
                self.bits[y * self.width + x] = color.is_on();
            }
        }
        Ok(())
    }
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
        }
    }

    #[test]
    fn the_lines_say_what_is_known() {
        let expected = [
            ("Server", "192.168.2.2:8080"),
            ("By", "RTP"),
            ("", "WebRTC failed: no media path to it"),
            ("", "was found"),
            ("Video", "1920x1080  30.0 fps"),
            ("Bitrate", "14.8 Mbit/s"),
            ("Loss", "0.12 %"),
            ("RTT", "1.2 ms"),
            ("Decoder", "avdec_h264"),
            ("Display", "ximagesink"),
        ];
        let rows = rows(&data());
        assert_eq!(rows.iter().map(|(label, value)| (*label, value.as_str())).collect::<Vec<_>>(), expected);
        assert!(super::rows(&OverlayData::default()).is_empty());
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
        let pixels = drawn(size, |surface| draw_message(surface, "NO VIDEO for 3.4 s", "looking…", Tone::Warning));
        let column = |x: usize| (0..720).any(|y| pixels[y * 1280 + x] != WHITE);
        let (left, right) = ((0..1280).find(|x| column(*x)).unwrap(), (0..1280).rfind(|x| column(*x)).unwrap());
        assert!((left as i32 - (1279 - right as i32)).abs() <= 1, "{left} {right}");
        assert!(pixels.contains(&AMBER));
    }

    #[test]
    fn a_message_stays_on_its_card() {
        let size = Resolution::new(1280, 720);
        let pixels = drawn(size, |surface| draw_message(surface, "Looking for a server…", "", Tone::Waiting));
        let card = |x: usize| pixels[340 * 1280 + x] != WHITE;
        let (left, right) = ((0..1280).find(|x| card(*x)).unwrap(), (0..1280).rfind(|x| card(*x)).unwrap());
        let text = |x: usize| (0..720).any(|y| pixels[y * 1280 + x] == TEXT);
        assert!((0..1280).filter(|x| text(*x)).all(|x| left + 10 < x && x + 10 < right));
    }

    #[test]
    fn nothing_is_drawn_outside_of_a_tiny_window() {
        for size in [Resolution::new(1, 1), Resolution::new(40, 9), Resolution::new(160, 120)] {
            drawn(size, |surface| {
                draw_stats(surface, &data(), true);
                draw_message(surface, "Looking for a server…", "on every interface, port 5003", Tone::Waiting);
            });
        }
        assert!(Surface::new(&mut [0; 3], Resolution::new(2, 2)).is_none());
    }

    #[test]
    fn long_texts_are_broken_at_spaces() {
        assert_eq!(wrapped("server lost, looking for it", 12), ["server lost,", "looking for", "it"]);
        assert_eq!(wrapped("abcdefghij", 4), ["abcd", "efgh", "ij"]);
        assert!(wrapped("", 4).is_empty());
    }

    #[test]
    fn mixing_keeps_the_channels_apart() {
        assert_eq!(mix(0x00ff_0080, 0x0000_ff80, 128), 0x007f_7f80);
        assert_eq!(mix(0x1234_5678, 0, 0), 0x0034_5678);
    }

    /// What the session says when nothing answers.
    const NOTHING_FOUND: &str = "no server named \"rov-bow\" found within 3.0 s: asked by multicast 239.255.42.98 port 5003 \
                                 and broadcast on eth0 (192.168.2.1/24), wlan0 (10.42.0.17/24) and docker0 (172.17.0.1/16); \
                                 is the server on, and does a firewall let UDP port 5003 through? http://[fe80::1]:8080/whep";

    #[test]
    fn a_long_text_lies_inside_the_window() {
        for size in [Resolution::new(1280, 720), Resolution::new(640, 480), Resolution::new(2560, 1440)] {
            let (width, height) = (size.width as usize, size.height as usize);
            for (title, detail) in [(NOTHING_FOUND, ""), ("Looking for a server…", NOTHING_FOUND)] {
                let pixels = drawn(size, |surface| draw_message(surface, title, detail, Tone::Waiting));
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
                    left + 15 < x && x + 15 < right && top + 15 < y && y + 15 < bottom
                };
                assert!(text.iter().all(inside), "{size} {title}");
            }
        }
    }

    #[test]
    fn a_title_is_one_line_where_it_can_be() {
        let look = Look::of(Resolution::new(640, 480));
        let title = Block::title("NO VIDEO for 3.4 s", look, 560);
        assert_eq!((title.lines.len(), title.scale), (1, 2));
        let title = Block::title("Connecting to a server with a really long name (192.168.2.2:8080)...", look, 560);
        assert_eq!((title.lines.len(), title.scale), (1, 1));
        assert_eq!(Block::title(NOTHING_FOUND, look, 560).lines.concat().len(), {
            NOTHING_FOUND.split_whitespace().map(str::len).sum::<usize>() + NOTHING_FOUND.split_whitespace().count()
                - Block::title(NOTHING_FOUND, look, 560).lines.len()
        });
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
