//! Pixels, boxes and text.

pub use rov_common::glyphs::known;
use rov_common::glyphs::{Face, Mask};
use rov_common::units::Resolution;

/// Of the window's height, in thousandths: no text is smaller.
const LEAST_HEIGHT: u32 = 23;

/// Pixels 0x00RRGGBB to draw into. Everything outside is cut off.
#[derive(Debug)]
pub struct Surface<'a> {
    pixels: &'a mut [u32],
    pub size: Resolution,
}

/// A rectangle in pixels; may reach over the edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Area {
    pub x: i32,
    pub y: i32,
    pub width: i32,
    pub height: i32,
}

impl Area {
    pub fn contains(&self, (x, y): (i32, i32)) -> bool {
        (self.x..self.x + self.width).contains(&x) && (self.y..self.y + self.height).contains(&y)
    }
}

/// Characters that fit into this width, at least a few.
fn room(face: Face, width: i32) -> usize {
    (width / face.advance()).max(8) as usize
}

/// Fonts and measures for a window's size.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    pub plain: Face,
    pub bold: Face,
    /// Between a box and what is in it.
    pub pad: i32,
    /// Lines and squares.
    pub scale: i32,
}

impl Look {
    pub fn of(window: Resolution) -> Self {
        let comfortable = if window.width >= 800 && window.height >= 450 { 18 } else { 0 };
        let least = (window.height * LEAST_HEIGHT).div_ceil(1000).max(comfortable) as i32;
        let (plain, bold) = Face::at_least(least);
        let edge = (window.width.min(window.height) / 18) as i32;
        Self { plain, bold, pad: (plain.height() * 2 / 3).min(edge.max(2)), scale: plain.scale() }
    }
}

impl<'a> Surface<'a> {
    /// None if there are not exactly as many pixels as `size` says.
    pub fn new(pixels: &'a mut [u32], size: Resolution) -> Option<Self> {
        (pixels.len() as u64 == size.pixels()).then_some(Self { pixels, size })
    }

    /// Mixes `color` into an area; `alpha` of 256.
    pub fn fill(&mut self, area: Area, color: u32, alpha: u32) {
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

    /// Fills an area with stripes of two colours at 45 degrees, which repeat after so many pixels.
    pub fn stripes(&mut self, area: Area, period: i32, colors: [u32; 2]) {
        let (width, height) = (self.size.width as i32, self.size.height as i32);
        for y in area.y.max(0)..(area.y + area.height).min(height) {
            for x in area.x.max(0)..(area.x + area.width).min(width) {
                let second = (x + y).rem_euclid(period.max(2)) * 2 >= period;
                self.pixels[(y * width + x) as usize] = colors[usize::from(second)];
            }
        }
    }

    /// Fills a circle.
    pub fn dot(&mut self, (x, y): (i32, i32), radius: i32, color: u32) {
        for dy in -radius..=radius {
            let half = f64::from(radius * radius - dy * dy).sqrt().round() as i32;
            self.fill(Area { x: x - half, y: y + dy, width: 2 * half + 1, height: 1 }, color, 256);
        }
    }

    /// Puts pixels of this size there, which must be inside.
    pub fn copy(&mut self, pixels: &[u32], size: Resolution, (x, y): (i32, i32)) {
        for (row, line) in pixels.chunks(size.width.max(1) as usize).enumerate() {
            let from = (y as usize + row) * self.size.width as usize + x as usize;
            if let Some(to) = self.pixels.get_mut(from..from + line.len()) {
                to.copy_from_slice(line);
            }
        }
    }

    /// Draws a line of text with its upper left corner at `x`, `y`.
    pub fn text(&mut self, text: &str, (x, y): (i32, i32), face: Face, color: u32) {
        let mask = Mask::of(text, face);
        for dy in 0..mask.height() {
            for dx in 0..mask.width() {
                let alpha = mask.coverage(dx, dy);
                if alpha > 0 {
                    self.fill(Area { x: x + dx, y: y + dy, width: 1, height: 1 }, color, alpha);
                }
            }
        }
    }
}

/// Centred lines of one size.
#[derive(Debug)]
pub struct Block {
    pub lines: Vec<String>,
    pub face: Face,
}

impl Block {
    pub fn new(text: &str, face: Face, width: i32) -> Self {
        Self { lines: wrapped(&known(text), room(face, width)), face }
    }

    /// As large as one line can be, up to about twice the size of other text; a sentence is no headline.
    pub fn title(text: &str, look: Look, width: i32) -> Self {
        Self::large(text, look, width, look.bold.height() * 9 / 4)
    }

    /// Likewise, of letters that are no higher than `largest`, unless other text is.
    pub fn large(text: &str, look: Look, width: i32, largest: i32) -> Self {
        let largest = largest.max(look.bold.height());
        let sizes = Face::bold_between(look.bold.height(), largest);
        let blocks = sizes.map(|face| Self::new(text, face, width)).filter(|block| block.lines.len() <= 1);
        blocks.max_by_key(|block| block.face.height()).unwrap_or_else(|| Self::new(text, look.bold, width))
    }

    pub fn width(&self) -> i32 {
        self.lines.iter().map(|line| line.chars().count()).max().unwrap_or(0) as i32 * self.face.advance()
    }

    pub fn height(&self) -> i32 {
        self.lines.len() as i32 * self.face.line()
    }

    /// Keeps the lines that this height has room for, at least one; the last then says that there would be more.
    pub fn cut(&mut self, height: i32) {
        let room = (height / self.face.line()).max(1) as usize;
        if self.lines.len() > room {
            self.lines.truncate(room);
            if let Some(last) = self.lines.last_mut() {
                let kept = last.chars().count().saturating_sub(3);
                *last = last.chars().take(kept).chain("...".chars()).collect();
            }
        }
    }

    pub fn draw(&self, surface: &mut Surface<'_>, top: i32, color: u32) {
        for (line, y) in self.lines.iter().zip((top..).step_by(self.face.line().max(1) as usize)) {
            let x = (surface.size.width as i32 - line.chars().count() as i32 * self.face.advance()) / 2;
            surface.text(line, (x, y), self.face, color);
        }
    }
}

/// Breaks `text` at spaces into lines of at most `room` characters, and longer words anywhere.
pub fn wrapped(text: &str, room: usize) -> Vec<String> {
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

/// At most `room` characters of it, with its end left out.
pub fn shortened(text: &str, room: usize) -> String {
    if text.chars().count() <= room {
        return text.to_owned();
    }
    text.chars().take(room.saturating_sub(3)).chain("...".chars()).take(room).collect()
}

/// `alpha` of 256 of `over` on `under`.
fn mix(under: u32, over: u32, alpha: u32) -> u32 {
    let channel = |shift: u32| {
        let (under, over) = (under >> shift & 0xff, over >> shift & 0xff);
        ((under * (256 - alpha) + over * alpha) >> 8) << shift
    };
    channel(16) | channel(8) | channel(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_is_smaller_than_people_can_read() {
        for (width, height) in [(160, 90), (320, 240), (640, 480), (1280, 720), (1920, 1080), (3840, 2160), (600, 2000)]
        {
            let look = Look::of(Resolution::new(width, height));
            assert!(look.plain.height() * 1000 >= height as i32 * 23, "{width}x{height}: {look:?}");
            assert!(look.plain.height() >= 13 && look.plain.height() * 20 <= height as i32 * 3, "{look:?}");
            assert_eq!(look.plain.height(), look.bold.height());
        }
    }

    #[test]
    fn long_texts_are_broken_at_spaces() {
        assert_eq!(wrapped("server lost, looking for it", 12), ["server lost,", "looking for", "it"]);
        assert_eq!(wrapped("abcdefghij", 4), ["abcd", "efgh", "ij"]);
        assert!(wrapped("", 4).is_empty());
        assert_eq!((shortened("Nemo", 4), shortened("Nautilus", 6)), ("Nemo".to_owned(), "Nau...".to_owned()));
    }

    #[test]
    fn mixing_keeps_the_channels_apart() {
        assert_eq!(mix(0x00ff_0080, 0x0000_ff80, 128), 0x007f_7f80);
        assert_eq!(mix(0x1234_5678, 0, 0), 0x0034_5678);
    }

    #[test]
    fn a_title_is_one_line_where_it_can_be() {
        let look = Look::of(Resolution::new(640, 480));
        let title = Block::title("NO VIDEO 3 s", look, 560);
        assert_eq!((title.lines.len(), title.face.height()), (1, 26));
        let long = "Connecting to a server with a really long name (192.168.2.2:8080)...";
        let title = Block::title(long, look, 560);
        assert_eq!((title.lines.len(), title.face.height()), (1, 13));
        let sentence = [long; 3].join(" ");
        assert_eq!(Block::title(&sentence, look, 560).lines.join(" "), sentence);
    }

    #[test]
    fn what_is_cut_says_so() {
        let mut block = Block::new("one two three four five", Look::of(Resolution::new(160, 90)).plain, 60);
        block.cut(2 * block.face.line());
        assert_eq!(block.lines, ["one two", "three f..."]);
    }
}
