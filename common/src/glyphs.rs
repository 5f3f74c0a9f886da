//! Letters: the bitmap fonts of embedded-graphics, of a few sizes, enlarged and smoothed where more is wanted. They
//! know the characters of ISO 8859-1; others show as question marks.

use std::ops::RangeInclusive;

use embedded_graphics::draw_target::DrawTarget;
use embedded_graphics::geometry::{OriginDimensions, Point, Size};
use embedded_graphics::mono_font::iso_8859_1::{FONT_6X13, FONT_6X13_BOLD, FONT_9X18, FONT_9X18_BOLD, FONT_10X20};
use embedded_graphics::mono_font::{MonoFont, MonoTextStyle};
use embedded_graphics::pixelcolor::BinaryColor;
use embedded_graphics::text::{Baseline, Text};
use embedded_graphics::{Drawable, Pixel};

const SCALES: RangeInclusive<i32> = 1..=16;

/// A font, enlarged.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Face {
    font: &'static MonoFont<'static>,
    scale: i32,
}

impl Face {
    /// The smallest plain one, and the bold one like it, that is at least so high.
    pub fn at_least(height: i32) -> (Self, Self) {
        let faces = [(&FONT_6X13, &FONT_6X13_BOLD), (&FONT_9X18, &FONT_9X18_BOLD)];
        let sizes = SCALES.flat_map(|scale| faces.map(|faces| (scale, faces)));
        let face = |scale: i32, (plain, bold): (&'static MonoFont, &'static MonoFont)| {
            (Self { font: plain, scale }, Self { font: bold, scale })
        };
        let sizes = sizes.map(|(scale, faces)| face(scale, faces));
        let fits = sizes.filter(|(plain, _)| plain.height() >= height).min_by_key(|(plain, _)| plain.height());
        fits.unwrap_or_else(|| face(*SCALES.end(), faces[1]))
    }

    /// All bold ones from `least` to `most` high.
    pub fn bold_between(least: i32, most: i32) -> impl Iterator<Item = Self> {
        let fonts = [&FONT_6X13_BOLD, &FONT_9X18_BOLD, &FONT_10X20];
        let faces = SCALES.flat_map(move |scale| fonts.map(|font| Self { font, scale }));
        faces.filter(move |face| (least..=most).contains(&face.height()))
    }

    pub fn scale(self) -> i32 {
        self.scale
    }

    /// From one character to the next.
    pub fn advance(self) -> i32 {
        self.font.character_size.width as i32 * self.scale
    }

    pub fn height(self) -> i32 {
        self.font.character_size.height as i32 * self.scale
    }

    /// From one line to the next.
    pub fn line(self) -> i32 {
        self.height() * 5 / 4
    }
}

/// Common characters that the fonts lack, in others that they have.
pub fn known(text: &str) -> String {
    text.replace('…', "...").replace(['–', '—'], "-").replace(['’', '‘'], "'").replace(['“', '”'], "\"")
}

/// A line of text as a bitmap.
pub struct Mask {
    /// Of the font's own size.
    bits: Vec<bool>,
    columns: usize,
    rows: usize,
    scale: i32,
}

impl Mask {
    pub fn of(text: &str, face: Face) -> Self {
        let font = face.font;
        let (columns, rows) = (
            text.chars().count() * (font.character_size.width + font.character_spacing) as usize,
            font.character_size.height as usize,
        );
        let mut mask = Self { bits: vec![false; columns * rows], columns, rows, scale: face.scale };
        let style = MonoTextStyle::new(font, BinaryColor::On);
        match Text::with_baseline(text, Point::zero(), style, Baseline::Top).draw(&mut mask) {
            Ok(_) => mask,
        }
    }

    pub fn width(&self) -> i32 {
        self.columns as i32 * self.scale
    }

    pub fn height(&self) -> i32 {
        self.rows as i32 * self.scale
    }

    fn bit(&self, x: i32, y: i32) -> bool {
        let inside = x >= 0 && y >= 0 && (x as usize) < self.columns && (y as usize) < self.rows;
        inside && self.bits[y as usize * self.columns + x as usize]
    }

    /// Of 256, how much of a pixel of the enlarged bitmap the text covers: interpolated and sharpened, so that slanted
    /// strokes have no steps.
    pub fn coverage(&self, x: i32, y: i32) -> u32 {
        if self.scale == 1 {
            return if self.bit(x, y) { 256 } else { 0 };
        }
        let place = |at: i32| (at as f32 + 0.5) / self.scale as f32 - 0.5;
        let (fx, fy) = (place(x), place(y));
        let (x0, y0) = (fx.floor(), fy.floor());
        let (tx, ty) = (fx - x0, fy - y0);
        let (x0, y0) = (x0 as i32, y0 as i32);
        let corners = [(0, 0), (1, 0), (0, 1), (1, 1)].map(|(dx, dy)| self.bit(x0 + dx, y0 + dy));
        if corners == [false; 4] {
            return 0;
        }
        let [a, b, c, d] = corners.map(|bit| f32::from(u8::from(bit)));
        let (upper, lower) = (a * (1.0 - tx) + b * tx, c * (1.0 - tx) + d * tx);
        let value = upper * (1.0 - ty) + lower * ty;
        // The edge lies at a third rather than a half: strokes one pixel wide would get thin otherwise.
        (((value - 0.36) * 2.5 * self.scale as f32 / 2.0 + 0.5).clamp(0.0, 1.0) * 256.0) as u32
    }
}

impl OriginDimensions for Mask {
    fn size(&self) -> Size {
        Size::new(self.columns as u32, self.rows as u32)
    }
}

impl DrawTarget for Mask {
    type Color = BinaryColor;
    type Error = std::convert::Infallible;

    fn draw_iter<I: IntoIterator<Item = Pixel<BinaryColor>>>(&mut self, pixels: I) -> Result<(), Self::Error> {
        for Pixel(point, color) in pixels {
            if let (Ok(x), Ok(y)) = (usize::try_from(point.x), usize::try_from(point.y))
                && x < self.columns
                && y < self.rows
            {
                self.bits[y * self.columns + x] = color.is_on();
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_of_any_size_cover_what_they_cover_in_the_smallest() {
        for height in [13, 18, 26, 36, 52] {
            let (plain, bold) = Face::at_least(height);
            assert_eq!((plain.height(), bold.height()), (height, height));
            let mask = Mask::of("8°", plain);
            let (width, height) = (mask.width(), mask.height());
            let covered = |from: i32, to: i32| (from..to).any(|x| (0..height).any(|y| mask.coverage(x, y) > 200));
            assert!(covered(0, width / 2) && covered(width / 2, width), "{plain:?}");
        }
        assert_eq!(Face::at_least(5000).0.height(), 18 * 16);
    }
}
