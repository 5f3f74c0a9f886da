//! The window's pixels where they are not simply the picture's: bars around it, dimming, bridging a resize. Pure.

use rov_common::units::Resolution;

/// Behind everything, while there is no picture: nearly black.
const BACKGROUND: u32 = 0x10_14_18;
/// The bars beside a picture.
const BARS: u32 = 0;

/// A buffer that is used again for each drawing.
#[derive(Debug, Default)]
pub struct Canvas {
    pixels: Vec<u32>,
}

/// A picture to paint: its pixels, their size, and the size of the video they were scaled from.
#[derive(Clone, Copy, Debug)]
pub struct Image<'a> {
    pub pixels: &'a [u32],
    pub resolution: Resolution,
    pub source: Resolution,
}

impl Image<'_> {
    /// Whether it can be put into a window as it is.
    pub fn fits(&self, window: Resolution) -> bool {
        self.resolution == self.source.fit_into(window)
    }
}

impl Canvas {
    /// The pixels of a window of `size`, painted by `paint`.
    pub fn painted(&mut self, size: Resolution, paint: impl FnOnce(&mut [u32])) -> &[u32] {
        self.pixels.resize(size.width as usize * size.height as usize, BACKGROUND);
        paint(&mut self.pixels);
        &self.pixels
    }
}

/// Fills the pixels of a window of `size` with the picture in the middle, dimmed on demand.
pub fn fill(pixels: &mut [u32], size: Resolution, image: Option<Image<'_>>, dimmed: bool) {
    pixels.fill(if image.is_some() { BARS } else { BACKGROUND });
    if let Some(image) = image.filter(|image| image.resolution.pixels() > 0 && size.pixels() > 0) {
        place(pixels, size, image.source.fit_into(size), image);
    }
    if dimmed {
        pixels.iter_mut().for_each(|pixel| *pixel = dim(*pixel));
    }
}

/// Puts the picture into an area of the size `area` in the middle; the nearest pixel where the sizes differ, as that
/// lasts only until the decoder gives the new size.
fn place(canvas: &mut [u32], size: Resolution, area: Resolution, image: Image<'_>) {
    let Image { pixels, resolution: picture, .. } = image;
    let (width, height) = (area.width as usize, area.height as usize);
    let left = (size.width as usize - width) / 2;
    let top = (size.height as usize - height) / 2;
    for y in 0..height {
        let from = y * picture.height as usize / height * picture.width as usize;
        let Some(source) = pixels.get(from..from + picture.width as usize) else { return };
        let to = (top + y) * size.width as usize + left;
        let row = &mut canvas[to..to + width];
        if row.len() == source.len() {
            row.copy_from_slice(source);
        } else {
            for (x, pixel) in row.iter_mut().enumerate() {
                *pixel = source[x * source.len() / width];
            }
        }
    }
}

/// A third of the brightness, and nearly grey, so that nobody takes it for live video.
fn dim(pixel: u32) -> u32 {
    let (r, g, b) = (pixel >> 16 & 0xff, pixel >> 8 & 0xff, pixel & 0xff);
    let grey = (77 * r + 150 * g + 29 * b) >> 8;
    let channel = |value: u32| (3 * grey + value) / 12;
    channel(r) << 16 | channel(g) << 8 | channel(b)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RED: u32 = 0xff_00_00;

    fn image(width: u32, height: u32, pixels: &[u32]) -> Option<Image<'_>> {
        let resolution = Resolution::new(width, height);
        Some(Image { pixels, resolution, source: resolution })
    }

    fn begin(size: Resolution, image: Option<Image<'_>>, dimmed: bool) -> Vec<u32> {
        Canvas::default().painted(size, |pixels| fill(pixels, size, image, dimmed)).to_vec()
    }

    #[test]
    fn a_wide_picture_gets_bars_above_and_below() {
        let pixels = begin(Resolution::new(4, 4), image(4, 2, &[RED; 8]), false);
        assert_eq!(pixels, [[BARS; 4], [RED; 4], [RED; 4], [BARS; 4]].concat());
    }

    #[test]
    fn a_picture_of_another_size_is_scaled_to_fit() {
        let picture = [RED, 1, RED, 1];
        let pixels = begin(Resolution::new(6, 4), image(2, 2, &picture), false);
        let row = [BARS, RED, RED, 1, 1, BARS];
        assert_eq!(pixels, [row; 4].concat());
        let pixels = begin(Resolution::new(1, 1), image(2, 2, &picture), false);
        assert_eq!(pixels, [RED]);
    }

    #[test]
    fn dimming_takes_brightness_and_colour_away() {
        let picture = [0x00ff_ffff, 0x00ff_0000];
        let pixels = begin(Resolution::new(2, 1), image(2, 1, &picture), true);
        assert_eq!(pixels[0], 0x0055_5555);
        let (r, b) = (pixels[1] >> 16, pixels[1] & 0xff);
        assert!(r < 0x40 && b > 0x08, "{:#x}", pixels[1]);
    }

    #[test]
    fn without_a_picture_the_window_is_dark() {
        assert_eq!(begin(Resolution::new(1, 1), None, false), [BACKGROUND]);
        assert!(begin(Resolution::new(0, 5), image(1, 1, &[1]), true).is_empty());
    }

    #[test]
    fn only_a_picture_of_the_best_size_fits() {
        let window = Resolution::new(1280, 800);
        let of_4k = |width, height| {
            let source = Resolution::new(3840, 2160);
            Image { pixels: &[], resolution: Resolution::new(width, height), source }.fits(window)
        };
        assert!(of_4k(1280, 720));
        assert!(!of_4k(3840, 2160));
        assert!(!of_4k(640, 360));
    }
}
