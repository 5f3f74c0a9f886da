//! What is drawn into the test picture: a label, the time of day, and the mark that latency tests read. By hand and not
//! by `textoverlay`, because that needs Pango, which small GStreamer installations lack.

use rov_common::stamp::{Stamp, mark_rect};

/// Columns of a glyph, one more is left free; rows.
const GLYPH: (usize, usize) = (5, 7);

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

    /// Draws with pixels of `scale`; returns the height.
    fn line(&mut self, text: &str, left: usize, top: usize, scale: usize) -> usize {
        let (width, height) = ((text.chars().count() * (GLYPH.0 + 1) + 1) * scale, (GLYPH.1 + 2) * scale);
        self.fill(left, top, width, height, 16);
        self.uncolour(left, top, width, height);
        for (index, character) in text.chars().enumerate() {
            let x = left + (index * (GLYPH.0 + 1) + 1) * scale;
            for (row, bits) in glyph(character).into_iter().enumerate() {
                for column in (0..GLYPH.0).filter(|column| bits >> (GLYPH.0 - 1 - column) & 1 == 1) {
                    self.fill(x + column * scale, top + (row + 1) * scale, scale, scale, 235);
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
        'C' => [0x0e, 0x11, 0x10, 0x10, 0x10, 0x11, 0x0e],
        'E' => [0x1f, 0x10, 0x10, 0x1e, 0x10, 0x10, 0x1f],
        'M' => [0x11, 0x1b, 0x15, 0x15, 0x11, 0x11, 0x11],
        'N' => [0x11, 0x19, 0x15, 0x13, 0x11, 0x11, 0x11],
        'O' => [0x0e, 0x11, 0x11, 0x11, 0x11, 0x11, 0x0e],
        'R' => [0x1e, 0x11, 0x11, 0x1e, 0x14, 0x12, 0x11],
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
        for character in "NO CAMERA 0123456789:.-".chars().filter(|character| *character != ' ') {
            assert_ne!(glyph(character), [0; 7], "{character}");
        }
    }

    #[test]
    fn a_tiny_picture_is_drawn_without_a_panic() {
        with_picture(16, 16, |picture| {
            picture.text(Some("NO CAMERA"), "12:34:56.789");
            picture.mark(Stamp { frame: 0, time_us: 0 });
        });
    }
}
