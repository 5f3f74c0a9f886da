//! The content of every run: a texture that moves by a known step, patches whose brightness follows from the frame
//! number, and the mark of `rov_common::stamp` with number and time.
//!
//! The patches are what damage is counted by: they are flat, so that the encoder keeps their brightness, and each has
//! another one in the next picture with a probability of two thirds. A part of a picture that was lost, or repeated
//! from the one before, shows. The time in the mark is CLOCK_MONOTONIC, and drawn last.

use rov_common::stamp::{Stamp, mark_rect};

use crate::clock;

/// Side of the texture, which repeats; a power of two.
const TILE: usize = 512;
/// Pixels that the texture moves from picture to picture.
const STEP: (usize, usize) = (4, 2);
const PATCHES: (usize, usize) = (12, 7);
/// Luma of the patches, in limited range.
const LEVELS: [u8; 3] = [60, 126, 192];
/// What compression and scaling may change of a patch's mean: less than half of the way to the next level.
const TOLERANCE: i32 = 28;

/// How the samples that are judged are scaled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Range {
    /// Luma as video has it, 16 to 235.
    Limited,
    /// A channel of RGB, 0 to 255.
    Full,
}

/// A texture with detail of two sizes.
pub struct Texture {
    tile: Vec<u8>,
}

impl Default for Texture {
    fn default() -> Self {
        Self::new()
    }
}

impl Texture {
    pub fn new() -> Self {
        let mut tile = Vec::with_capacity(TILE * TILE);
        for y in 0..TILE {
            for x in 0..TILE {
                let value = 128.0 + 45.0 * noise(x, y, 64, 1) + 16.0 * noise(x, y, 8, 2);
                tile.push(value.clamp(16.0, 235.0) as u8);
            }
        }
        Self { tile }
    }

    /// All of picture `frame` but its mark, into a luma plane.
    pub fn draw(&self, luma: &mut [u8], stride: usize, width: usize, height: usize, frame: u32) {
        let (left, top) = (STEP.0 * frame as usize % TILE, STEP.1 * frame as usize % TILE);
        for (y, row) in luma.chunks_mut(stride).take(height).enumerate() {
            let source = &self.tile[(y + top) % TILE * TILE..][..TILE];
            let mut x = 0;
            while x < width {
                let from = (x + left) % TILE;
                let count = (TILE - from).min(width - x);
                row[x..x + count].copy_from_slice(&source[from..from + count]);
                x += count;
            }
        }
        for patch in patches(width, height) {
            let level = patch.level(frame);
            for row in luma.chunks_mut(stride).skip(patch.y).take(patch.side) {
                row[patch.x..patch.x + patch.side].fill(level);
            }
        }
    }
}

/// The mark with the time, which must be the last thing that is drawn.
pub fn mark(luma: &mut [u8], stride: usize, width: usize, height: usize, frame: u32) -> bool {
    Stamp { frame, time_us: clock::now_us() }.draw(luma, stride, width, height)
}

/// Patches of picture `frame` that do not look as they should, given the samples of a picture of this size.
pub fn wrong_patches(
    frame: u32,
    width: usize,
    height: usize,
    range: Range,
    sample: impl Fn(usize, usize) -> u8,
) -> usize {
    let wrong = |patch: &Patch| {
        let level = i32::from(patch.level(frame));
        let expected = match range {
            Range::Limited => level,
            Range::Full => (level - 16) * 255 / 219,
        };
        (patch.mean(&sample) - expected).abs() > TOLERANCE
    };
    patches(width, height).filter(wrong).count()
}

/// A square.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Patch {
    index: u32,
    x: usize,
    y: usize,
    side: usize,
}

impl Patch {
    fn level(&self, frame: u32) -> u8 {
        LEVELS[hash(frame, self.index) as usize % LEVELS.len()]
    }

    /// Of four times four points in its middle half.
    fn mean(&self, sample: &impl Fn(usize, usize) -> u8) -> i32 {
        let at = |from: usize, index: usize| from + self.side / 4 + self.side * index / 8;
        let points = (0..16).map(|index| i32::from(sample(at(self.x, index % 4), at(self.y, index / 4))));
        points.sum::<i32>() / 16
    }
}

/// All that do not touch the mark.
fn patches(width: usize, height: usize) -> impl Iterator<Item = Patch> {
    let side = (width / 64).max(1);
    let (columns, rows) = PATCHES;
    let free = mark_rect(width, height);
    (0..columns * rows).filter_map(move |index| {
        let x = ((2 * (index % columns) + 1) * width / (2 * columns)).checked_sub(side / 2)?;
        let y = ((2 * (index / columns) + 1) * height / (2 * rows)).checked_sub(side / 2)?;
        let covered = free.is_some_and(|(_, top, mark_width, _)| x < mark_width && y + side > top);
        (!covered).then_some(Patch { index: index as u32, x, y, side })
    })
}

/// Smooth noise of -1 to 1 with this grid, which must divide [`TILE`].
fn noise(x: usize, y: usize, grid: usize, seed: u32) -> f32 {
    let at = |column: usize, row: usize| {
        let cells = TILE / grid;
        let index = (row % cells * cells + column % cells) as u32;
        (hash(index, seed) % 2001) as f32 / 1000.0 - 1.0
    };
    let (column, row) = (x / grid, y / grid);
    let smooth = |t: f32| t * t * (3.0 - 2.0 * t);
    let (dx, dy) = (smooth((x % grid) as f32 / grid as f32), smooth((y % grid) as f32 / grid as f32));
    let upper = at(column, row) * (1.0 - dx) + at(column + 1, row) * dx;
    let lower = at(column, row + 1) * (1.0 - dx) + at(column + 1, row + 1) * dx;
    upper * (1.0 - dy) + lower * dy
}

/// Scrambles two numbers (the finaliser of MurmurHash3).
fn hash(a: u32, b: u32) -> u32 {
    let mut value = a.wrapping_mul(0x9e37_79b1) ^ b.wrapping_mul(0x85eb_ca77);
    value ^= value >> 16;
    value = value.wrapping_mul(0x85eb_ca6b);
    value ^= value >> 13;
    value = value.wrapping_mul(0xc2b2_ae35);
    value ^ value >> 16
}

#[cfg(test)]
mod tests {
    use rov_common::stamp;

    use super::*;

    const SIZES: [(usize, usize); 3] = [(1280, 720), (1920, 1080), (3840, 2160)];

    fn drawn(width: usize, height: usize, frame: u32) -> Vec<u8> {
        let mut luma = vec![0; width * height];
        Texture::new().draw(&mut luma, width, width, height, frame);
        assert!(mark(&mut luma, width, width, height, frame));
        luma
    }

    #[test]
    fn a_picture_that_was_drawn_has_its_mark_and_no_wrong_patches() {
        for (width, height) in SIZES {
            let luma = drawn(width, height, 77);
            let read = stamp::read_luma(&luma, width, width, height).unwrap();
            assert_eq!(read.frame, 77);
            assert!(clock::now_us() - read.time_us < 60_000_000);
            assert_eq!(wrong_patches(77, width, height, Range::Limited, |x, y| luma[y * width + x]), 0);
            let full = |x: usize, y: usize| ((i32::from(luma[y * width + x]) - 16).max(0) * 255 / 219).min(255) as u8;
            assert_eq!(wrong_patches(77, width, height, Range::Full, full), 0);
        }
    }

    #[test]
    fn another_picture_has_most_patches_wrong() {
        let luma = drawn(1280, 720, 8);
        let wrong = wrong_patches(9, 1280, 720, Range::Limited, |x, y| luma[y * 1280 + x]);
        let all = patches(1280, 720).count();
        assert!(wrong * 2 > all && wrong < all, "{wrong} of {all}");
    }

    #[test]
    fn a_slice_repeated_from_the_picture_before_is_seen() {
        let (width, height) = (1280, 720);
        for first_row in [0, 150, 300, 450] {
            let (before, mut luma) = (drawn(width, height, 100), drawn(width, height, 101));
            let rows = first_row * width..(first_row + 200) * width;
            luma[rows.clone()].copy_from_slice(&before[rows]);
            assert!(wrong_patches(101, width, height, Range::Limited, |x, y| luma[y * width + x]) > 0, "{first_row}");
        }
    }

    #[test]
    fn a_grey_picture_is_wrong() {
        assert!(wrong_patches(5, 640, 360, Range::Limited, |_, _| 90) > 20);
    }

    #[test]
    fn rows_may_be_padded() {
        let (width, height, stride) = (640, 360, 704);
        let mut luma = vec![0; stride * height];
        Texture::new().draw(&mut luma, stride, width, height, 3);
        assert_eq!(wrong_patches(3, width, height, Range::Limited, |x, y| luma[y * stride + x]), 0);
        assert!(luma.chunks(stride).all(|row| row[width..].iter().all(|&padding| padding == 0)));
    }

    #[test]
    fn patches_lie_in_the_picture_and_not_on_the_mark() {
        for (width, height) in SIZES {
            let (_, top, right, _) = mark_rect(width, height).unwrap();
            for patch in patches(width, height) {
                assert!(patch.x + patch.side <= width && patch.y + patch.side <= height);
                assert!(patch.x >= right || patch.y + patch.side <= top);
            }
        }
    }
}
