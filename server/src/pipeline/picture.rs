//! What is drawn into pictures: into the test picture a label, the time of day, and the mark that latency tests read;
//! into another camera's a small picture, or why there is none. Text by hand and not by `textoverlay`, because that
//! needs Pango, which small GStreamer installations lack.

use rov_common::stamp::{Stamp, mark_rect};

use super::place::Place;

/// Columns of a glyph, one more is left free; rows.
const GLYPH: (usize, usize) = (5, 7);
const WHITE: u8 = 235;
/// Of a place without a picture.
const GREY: u8 = 80;

/// An I420 picture's planes with their strides.
pub struct I420<'a> {
    pub width: usize,
    pub height: usize,
    pub luma: &'a mut [u8],
    pub luma_stride: usize,
    /// U and V, half the size each way.
    pub chroma: [&'a mut [u8]; 2],
    pub chroma_stride: usize,
}

/// A plane of another picture.
pub struct Plane<'a> {
    pub bytes: &'a [u8],
    pub stride: usize,
}

impl Plane<'_> {
    /// Its upper left part to a rectangle (left, top, width, height) of another plane.
    fn copy_to(&self, to: &mut [u8], stride: usize, (left, top, width, height): (usize, usize, usize, usize)) {
        for row in 0..height {
            let (from, at) = (row * self.stride, (top + row) * stride + left);
            if let (Some(from), Some(to)) = (self.bytes.get(from..from + width), to.get_mut(at..at + width)) {
                to.copy_from_slice(from);
            }
        }
    }
}

impl I420<'_> {
    /// Text lines from the upper left corner, the first one twice as large, white on black; what does not fit is cut
    /// off.
    pub fn text(&mut self, label: Option<&str>, time: &str) {
        let unit = (self.width / 320).max(1);
        let mut top = unit * 8;
        if let Some(label) = label {
            top += self.line(label, unit * 8, top, unit * 3) + unit * 4;
        }
        self.line(time, unit * 8, top, unit * 2);
    }

    /// The mark, without colour; nothing where the picture is too small for it.
    pub fn mark(&mut self, stamp: Stamp) {
        let Some((x, y, width, height)) = mark_rect(self.width, self.height) else { return };
        if stamp.draw(self.luma, self.luma_stride, self.width, self.height) {
            self.uncolour(x, y, width, height);
        }
    }

    /// A white frame at the edges of a place, as wide as its border.
    pub fn frame(&mut self, place: &Place) {
        let Place { left, top, width, height, border } = *place;
        for (left, top, width, height) in [
            (left, top, width, border),
            (left, top + height - border, width, border),
            (left, top, border, height),
            (left + width - border, top, border, height),
        ] {
            self.fill(left, top, width, height, WHITE);
            self.uncolour(left, top, width, height);
        }
    }

    /// A picture of the size of the place; nothing of one of another size.
    pub fn paste(&mut self, place: &Place, small: &[Plane; 3]) {
        let (left, top, width, height) = (place.left, place.top, place.width, place.height);
        small[0].copy_to(self.luma, self.luma_stride, (left, top, width, height));
        for (plane, small) in self.chroma.iter_mut().zip(&small[1..]) {
            small.copy_to(plane, self.chroma_stride, (left / 2, top / 2, width / 2, height / 2));
        }
    }

    /// A grey place that says why there is no picture, in words that may stand below each other; without any it is grey
    /// alone.
    pub fn empty(&mut self, place: &Place, words: &[&str]) {
        let Place { left, top, width, height, .. } = *place;
        self.fill(left, top, width, height, GREY);
        self.uncolour(left, top, width, height);
        if words.is_empty() {
            return;
        }
        let advance = |text: &str| text.chars().count() * (GLYPH.0 + 1) + 1;
        let joined = words.join(" ");
        let lines = if advance(&joined) <= width { vec![joined.as_str()] } else { words.to_vec() };
        let longest = lines.iter().map(|line| advance(line)).max().unwrap_or(1);
        let scale = (width * 3 / 4 / longest).max(1);
        let line_height = (GLYPH.1 + 2) * scale;
        let count = lines.len().min(height / line_height);
        let mut y = top + (height - line_height * count) / 2;
        for line in lines.into_iter().take(count) {
            // Cut off where it is too long even in the smallest letters.
            let fits: String = line.chars().take((width / scale - 1) / (GLYPH.0 + 1)).collect();
            self.line(&fits, left + (width - advance(&fits) * scale) / 2, y, scale);
            y += line_height;
        }
    }

    /// Draws with pixels of `scale`; returns the height.
    fn line(&mut self, text: &str, left: usize, top: usize, scale: usize) -> usize {
        let (width, height) = ((text.chars().count() * (GLYPH.0 + 1) + 1) * scale, (GLYPH.1 + 2) * scale);
        self.fill(left, top, width, height, 16);
        self.uncolour(left, top, width, height);
        for (index, character) in text.chars().enumerate() {
            let x = left + (index * (GLYPH.0 + 1) + 1) * scale;
            for (row, bits) in glyph(character).into_iter().enumerate() {
                for column in (0..GLYPH.0).filter(|column| bits >> (GLYPH.0 - 1 - column) & 1 == 1) {
                    self.fill(x + column * scale, top + (row + 1) * scale, scale, scale, WHITE);
                }
            }
        }
        height
    }

    fn fill(&mut self, left: usize, top: usize, width: usize, height: usize, value: u8) {
        let right = (left + width).min(self.width);
        for y in top..(top + height).min(self.height) {
            if let Some(pixels) = self.luma.get_mut(y * self.luma_stride + left..y * self.luma_stride + right) {
                pixels.fill(value);
            }
        }
    }

    fn uncolour(&mut self, left: usize, top: usize, width: usize, height: usize) {
        // Rounded outwards: a half-covered chroma sample colours the edge.
        let right = (left + width).min(self.width).div_ceil(2);
        for y in top / 2..(top + height).min(self.height).div_ceil(2) {
            let row = y * self.chroma_stride;
            for plane in &mut self.chroma {
                if let Some(pixels) = plane.get_mut(row + left / 2..row + right) {
                    pixels.fill(128);
                }
            }
        }
    }
}

/// Seven rows of five bits, the leftmost the most significant. Unknown characters are blank.
fn glyph(character: char) -> [u8; 7] {
    match character.to_ascii_uppercase() {
        '0' => [0x0e, 0x11, 0x13, 0x15, 0x19, 0x11, 0x0e],
        '1' => [0x04, 0x0c, 0x04, 0x04, 0x04, 0x04, 0x0e],
        '2' => [0x0e, 0x11, 0x01, 0x02, 0x04, 0x08, 0x1f],
        '3' => [0x1f, 0x02, 0x04, 0x02, 0x01, 0x11, 0x0e],
        '4' => [0x02, 0x06, 0x0a, 0x12, 0x1f, 0x02, 0x02],
        '5' => [0x1f, 0x10, 0x1e, 0x01, 0x01, 0x11, 0x0e],
        '6' => [0x06, 0x08, 0x10, 0x1e, 0x11, 0x11, 0x0e],
        '7' => [0x1f, 0x01, 0x02, 0x04, 0x08, 0x08, 0x08],
        '8' => [0x0e, 0x11, 0x11, 0x0e, 0x11, 0x11, 0x0e],
        '9' => [0x0e, 0x11, 0x11, 0x0f, 0x01, 0x02, 0x0c],
        'A' => [0x0e, 0x11, 0x11, 0x1f, 0x11, 0x11, 0x11],
        'B' => [0x1e, 0x11, 0x11, 0x1e, 0x11, 0x11, 0x1e],
        'C' => [0x0e, 0x11, 0x10, 0x10, 0x10, 0x11, 0x0e],
        'D' => [0x1e, 0x11, 0x11, 0x11, 0x11, 0x11, 0x1e],
        'E' => [0x1f, 0x10, 0x10, 0x1e, 0x10, 0x10, 0x1f],
        'F' => [0x1f, 0x10, 0x10, 0x1e, 0x10, 0x10, 0x10],
        'G' => [0x0e, 0x11, 0x10, 0x17, 0x11, 0x11, 0x0f],
        'H' => [0x11, 0x11, 0x11, 0x1f, 0x11, 0x11, 0x11],
        'I' => [0x0e, 0x04, 0x04, 0x04, 0x04, 0x04, 0x0e],
        'J' => [0x07, 0x02, 0x02, 0x02, 0x02, 0x12, 0x0c],
        'K' => [0x11, 0x12, 0x14, 0x18, 0x14, 0x12, 0x11],
        'L' => [0x10, 0x10, 0x10, 0x10, 0x10, 0x10, 0x1f],
        'M' => [0x11, 0x1b, 0x15, 0x15, 0x11, 0x11, 0x11],
        'N' => [0x11, 0x19, 0x15, 0x13, 0x11, 0x11, 0x11],
        'O' => [0x0e, 0x11, 0x11, 0x11, 0x11, 0x11, 0x0e],
        'P' => [0x1e, 0x11, 0x11, 0x1e, 0x10, 0x10, 0x10],
        'Q' => [0x0e, 0x11, 0x11, 0x11, 0x15, 0x12, 0x0d],
        'R' => [0x1e, 0x11, 0x11, 0x1e, 0x14, 0x12, 0x11],
        'S' => [0x0f, 0x10, 0x10, 0x0e, 0x01, 0x01, 0x1e],
        'T' => [0x1f, 0x04, 0x04, 0x04, 0x04, 0x04, 0x04],
        'U' => [0x11, 0x11, 0x11, 0x11, 0x11, 0x11, 0x0e],
        'V' => [0x11, 0x11, 0x11, 0x11, 0x11, 0x0a, 0x04],
        'W' => [0x11, 0x11, 0x11, 0x15, 0x15, 0x1b, 0x11],
        'X' => [0x11, 0x11, 0x0a, 0x04, 0x0a, 0x11, 0x11],
        'Y' => [0x11, 0x11, 0x0a, 0x04, 0x04, 0x04, 0x04],
        'Z' => [0x1f, 0x01, 0x02, 0x04, 0x08, 0x10, 0x1f],
        '_' => [0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x1f],
        ':' => [0x00, 0x0c, 0x0c, 0x00, 0x0c, 0x0c, 0x00],
        '.' => [0x00, 0x00, 0x00, 0x00, 0x00, 0x0c, 0x0c],
        '-' => [0x00, 0x00, 0x00, 0x1f, 0x00, 0x00, 0x00],
        _ => [0; 7],
    }
}

#[cfg(test)]
mod tests {
    use rov_common::stamp::read_luma;

    use super::*;

    fn with_picture(width: usize, height: usize, draw: impl FnOnce(&mut I420)) -> (Vec<u8>, Vec<u8>) {
        let (mut luma, mut u, mut v) =
            (vec![100; width * height], vec![7; width * height / 4], vec![7; width * height / 4]);
        draw(&mut I420 {
            width,
            height,
            luma: &mut luma,
            luma_stride: width,
            chroma: [&mut u, &mut v],
            chroma_stride: width / 2,
        });
        (luma, u)
    }

    #[test]
    fn the_mark_can_be_read_and_has_no_colour() {
        let stamp = Stamp { frame: 42, time_us: 1_700_000_000_000_000 };
        let (luma, u) = with_picture(640, 480, |picture| picture.mark(stamp));
        assert_eq!(read_luma(&luma, 640, 640, 480), Some(stamp));
        assert_eq!(u[239 * 320], 128);
        assert_eq!(u[0], 7);
    }

    #[test]
    fn the_text_is_white_on_black_and_leaves_the_mark_alone() {
        let stamp = Stamp { frame: 1, time_us: 2 };
        let (luma, _) = with_picture(640, 480, |picture| {
            picture.text(Some("NO CAMERA"), "12:34:56.789");
            picture.mark(stamp);
        });
        assert!(luma.contains(&235) && luma.contains(&16) && luma.contains(&100));
        assert_eq!(read_luma(&luma, 640, 640, 480), Some(stamp));
    }

    #[test]
    fn every_character_that_is_drawn_has_a_glyph() {
        // All that names of cameras have, too.
        let all = ('a'..='z').chain('0'..='9').chain(":.-_".chars());
        let glyphs: Vec<_> = all.map(|character| (character, glyph(character))).collect();
        for (at, (character, bits)) in glyphs.iter().enumerate() {
            assert_ne!(*bits, [0; 7], "{character}");
            let same = glyphs[..at].iter().find(|(_, other)| other == bits);
            assert!(same.is_none(), "{character} looks like {same:?}");
        }
    }

    #[test]
    fn a_small_picture_changes_its_place_alone() {
        let place = Place { left: 40, top: 20, width: 20, height: 10, border: 2 };
        let small: Vec<u8> = (0..32 * 6).map(|at| 100 + (at % 32) as u8).collect();
        let colour = vec![9; 16 * 3];
        let planes = [(&small, 32), (&colour, 16), (&colour, 16)].map(|(bytes, stride)| Plane { bytes, stride });
        let (luma, u) = with_picture(64, 32, |picture| {
            picture.luma.fill(50);
            picture.frame(&place);
            picture.paste(&place.inner(), &planes);
        });
        for (at, pixel) in luma.iter().enumerate() {
            let (x, y) = (at % 64, at / 64);
            let within = |place: Place| {
                (place.left..place.left + place.width).contains(&x)
                    && (place.top..place.top + place.height).contains(&y)
            };
            let wanted = match (within(place), within(place.inner())) {
                (false, _) => 50,
                (true, false) => WHITE,
                (true, true) => 100 + (x - 42) as u8,
            };
            assert_eq!(*pixel, wanted, "{x}, {y}");
        }
        assert_eq!((u[10 * 32 + 20], u[11 * 32 + 21], u[11 * 32 + 28], u[9 * 32 + 20]), (128, 9, 9, 7));
    }

    #[test]
    fn a_place_without_a_picture_says_so_within_its_bounds() {
        for (width, height) in [(480, 270), (80, 60), (16, 16)] {
            let place = Place { left: 560 - width, top: 40, width, height, border: 0 };
            let (luma, u) = with_picture(640, 360, |picture| {
                picture.luma.fill(50);
                picture.empty(&place, &["a-camera-at-the-front-of-the-arm:", "NO VIDEO"]);
            });
            let outside = luma.iter().enumerate().filter(|(at, _)| {
                !((place.left..560).contains(&(at % 640)) && (40..40 + height).contains(&(at / 640)))
            });
            assert!(outside.into_iter().all(|(_, pixel)| *pixel == 50), "{width}x{height}");
            assert!(luma.contains(&GREY) && luma.contains(&WHITE), "{width}x{height}");
            assert_eq!(u[40 / 2 * 320 + place.left / 2], 128);
        }
        let place = Place { left: 0, top: 0, width: 64, height: 48, border: 0 };
        let (luma, _) = with_picture(64, 48, |picture| picture.empty(&place, &[]));
        assert!(luma.iter().all(|pixel| *pixel == GREY));
    }

    #[test]
    fn a_tiny_picture_is_drawn_without_a_panic() {
        with_picture(16, 16, |picture| {
            picture.text(Some("NO CAMERA"), "12:34:56.789");
            picture.mark(Stamp { frame: 0, time_us: 0 });
        });
    }
}
