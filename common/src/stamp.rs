//! A mark in the picture that a program can read: frame number and time, the base of every latency measurement.
//!
//! 128 bits as black and white cells, 32 columns by 4 rows, in the lower left corner:
//!
//! | bits | |
//! |---|---|
//! | 8 | the magic 0xA7 |
//! | 32 | frame number |
//! | 56 | microseconds of Unix time, the low 56 bits |
//! | 32 | CRC-32 (IEEE 802.3) of the 12 bytes before |
//!
//! The most significant bit comes first; rows run left to right, the upper row first; white is 1. A cell is a square
//! with a side of 1/64 of the picture's width, so that the mark covers the lower left half of the width and stays in
//! place when the picture is scaled with its aspect ratio. Cell edges are rounded to whole pixels. A cell below 4
//! pixels does not survive compression reliably: the smallest picture is 256 pixels wide and 16 high. The reader takes
//! a mark of half that size too, as the checksum guards it.

/// Columns and rows of cells.
const COLUMNS: usize = 32;
const ROWS: usize = 4;
const BITS: usize = COLUMNS * ROWS;
/// Cells of this size fit into the width of the picture.
const CELLS_PER_WIDTH: usize = 64;
const MAGIC: u8 = 0xa7;
const TIME_MASK: u64 = (1 << 56) - 1;

/// Black and white in limited range, as the encoders expect.
const BLACK: u8 = 16;
const WHITE: u8 = 235;

/// The narrowest pictures that are drawn into and read from.
pub const MIN_WIDTH: usize = 4 * CELLS_PER_WIDTH;
const MIN_READ_WIDTH: usize = MIN_WIDTH / 2;
/// Luminance between black and white cells, of 255, below which there is no mark: half of what a blurred mark has.
const MIN_CONTRAST: u32 = 64;
/// Points that are averaged along each axis of a cell, at most: enough against noise, and as cheap at 4K as at 480p.
const MAX_POINTS: usize = 8;

/// What the mark says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    pub frame: u32,
    /// Microseconds of Unix time; the mark keeps the low 56 bits, good until the year 4253.
    pub time_us: u64,
}

impl Stamp {
    /// Draws into a luma plane (NV12, I420 or grey, 8 bits, limited range); false, and nothing is drawn, if the picture
    /// is too small or the plane is shorter than it must be.
    ///
    /// The chroma of [`mark_rect`] is the caller's part: 128, or the mark is coloured.
    #[must_use]
    pub fn draw(&self, luma: &mut [u8], stride: usize, width: usize, height: usize) -> bool {
        if width < MIN_WIDTH || !holds_mark(width, height) || !is_plane(luma, stride, width, height) {
            return false;
        }
        let bits = self.bits();
        for (index, cell) in cells(width, height).enumerate() {
            let value = if bits >> (BITS - 1 - index) & 1 == 1 { WHITE } else { BLACK };
            for y in cell.top..cell.bottom {
                luma[y * stride + cell.left..y * stride + cell.right].fill(value);
            }
        }
        true
    }

    /// The 128 bits of the mark; the first cell is the most significant one.
    pub fn bits(&self) -> u128 {
        let payload = u128::from(MAGIC) << 88 | u128::from(self.frame) << 56 | u128::from(self.time_us & TIME_MASK);
        payload << 32 | u128::from(checksum(payload))
    }

    /// The reverse of [`bits`](Self::bits); `None` unless magic and checksum are right.
    pub fn from_bits(bits: u128) -> Option<Self> {
        let payload = bits >> 32;
        if payload >> 88 != u128::from(MAGIC) || bits as u32 != checksum(payload) {
            return None;
        }
        Some(Self { frame: (payload >> 56) as u32, time_us: payload as u64 & TIME_MASK })
    }
}

/// The rectangle of the mark: x, y, width and height in pixels; `None` if the picture is too small for it.
pub fn mark_rect(width: usize, height: usize) -> Option<(usize, usize, usize, usize)> {
    if width < MIN_WIDTH || !holds_mark(width, height) {
        return None;
    }
    let top = edge_from_bottom(0, width, height);
    Some((0, top, edge(COLUMNS, width), height - top))
}

/// Reads the mark of a luma plane; `None` if there is none, or it is damaged.
pub fn read_luma(luma: &[u8], stride: usize, width: usize, height: usize) -> Option<Stamp> {
    is_plane(luma, stride, width, height).then(|| read_with(width, height, |x, y| luma[y * stride + x]))?
}

/// Reads the mark of any picture, given the luminance (0 to 255, any range) at a point inside `width` by `height`.
pub fn read_with(width: usize, height: usize, luminance: impl Fn(usize, usize) -> u8) -> Option<Stamp> {
    if width < MIN_READ_WIDTH || !holds_mark(width, height) {
        return None;
    }
    let mut levels = [0; BITS];
    for (level, cell) in levels.iter_mut().zip(cells(width, height)) {
        *level = cell.mean(&luminance);
    }
    let (darkest, brightest) = (levels.iter().min()?, levels.iter().max()?);
    if brightest - darkest < MIN_CONTRAST {
        return None;
    }
    // The magic alone has cells of both kinds, so that the middle between the extremes separates them at any
    // brightness.
    let threshold = (brightest + darkest) / 2;
    Stamp::from_bits(levels.iter().fold(0, |bits, &level| bits << 1 | u128::from(level > threshold)))
}

/// The middle of each cell, from the most significant bit on: for who looks at a clean picture very often, and gives
/// the bits to [`Stamp::from_bits`]. Empty if the picture is too small for the mark.
pub fn points(width: usize, height: usize) -> Vec<(usize, usize)> {
    if mark_rect(width, height).is_none() {
        return Vec::new();
    }
    cells(width, height).map(|cell| (cell.left.midpoint(cell.right), cell.top.midpoint(cell.bottom))).collect()
}

/// In pixels; `right` and `bottom` are outside.
struct Cell {
    left: usize,
    right: usize,
    top: usize,
    bottom: usize,
}

impl Cell {
    /// Mean luminance of the middle of the cell: its edges are blurred by scaling and compression.
    fn mean(&self, luminance: &impl Fn(usize, usize) -> u8) -> u32 {
        let (xs, ys) = (middle(self.left, self.right), middle(self.top, self.bottom));
        let (mut sum, mut count) = (0, 0);
        for y in ys {
            for x in xs.clone() {
                sum += u32::from(luminance(x, y));
                count += 1;
            }
        }
        sum / count
    }
}

/// At most [`MAX_POINTS`] and at least one of the points in the middle half of `from..to`, which must not be empty.
fn middle(from: usize, to: usize) -> std::iter::StepBy<std::ops::Range<usize>> {
    let margin = (to - from) / 4;
    let range = from + margin..to - margin;
    let step = range.len().div_ceil(MAX_POINTS);
    range.step_by(step.max(1))
}

fn cells(width: usize, height: usize) -> impl Iterator<Item = Cell> {
    (0..BITS).map(move |index| {
        let (column, row) = (index % COLUMNS, index / COLUMNS);
        Cell {
            left: edge(column, width),
            right: edge(column + 1, width),
            top: edge_from_bottom(row, width, height),
            bottom: edge_from_bottom(row + 1, width, height),
        }
    })
}

/// The distance of `cells` cells in pixels, rounded.
fn edge(cells: usize, width: usize) -> usize {
    (cells * width + CELLS_PER_WIDTH / 2) / CELLS_PER_WIDTH
}

/// The upper edge of a row; row [`ROWS`] is the lower border of the picture.
fn edge_from_bottom(row: usize, width: usize, height: usize) -> usize {
    height - edge(ROWS - row, width)
}

fn holds_mark(width: usize, height: usize) -> bool {
    height >= edge(ROWS, width)
}

fn is_plane(luma: &[u8], stride: usize, width: usize, height: usize) -> bool {
    let Some(rows_before) = height.checked_sub(1) else { return false };
    stride >= width
        && rows_before
            .checked_mul(stride)
            .and_then(|bytes| bytes.checked_add(width))
            .is_some_and(|bytes| bytes <= luma.len())
}

/// CRC-32 of the 12 bytes of the payload. Bit by bit, as it is 96 bits once a frame.
fn checksum(payload: u128) -> u32 {
    const REVERSED_POLYNOMIAL: u32 = 0xedb8_8320;
    let crc = payload.to_be_bytes()[4..].iter().fold(u32::MAX, |crc, &byte| {
        (0..8)
            .fold(crc ^ u32::from(byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ REVERSED_POLYNOMIAL } else { crc >> 1 })
    });
    !crc
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAMP: Stamp = Stamp { frame: 0x1234_5678, time_us: 1_760_000_000_123_456 };

    /// A picture with detail all over, as a camera gives it, and the mark.
    fn marked(width: usize, height: usize, stride: usize) -> Vec<u8> {
        let mut luma: Vec<u8> = (0..stride * height).map(|at| (40 + at * 7 % 160) as u8).collect();
        assert!(STAMP.draw(&mut luma, stride, width, height), "{width}x{height}");
        luma
    }

    /// Bilinear, as a player's window scales.
    fn scaled(luma: &[u8], (width, height): (usize, usize), (new_width, new_height): (usize, usize)) -> Vec<u8> {
        let sample = |x: usize, y: usize| f64::from(luma[y.min(height - 1) * width + x.min(width - 1)]);
        let position = |at: usize, new: usize, old: usize| ((at as f64 + 0.5) * old as f64 / new as f64 - 0.5).max(0.0);
        let mut out = Vec::with_capacity(new_width * new_height);
        for y in 0..new_height {
            let fy = position(y, new_height, height);
            for x in 0..new_width {
                let fx = position(x, new_width, width);
                let (x0, y0) = (fx as usize, fy as usize);
                let (dx, dy) = (fx.fract(), fy.fract());
                let upper = sample(x0, y0) * (1.0 - dx) + sample(x0 + 1, y0) * dx;
                let lower = sample(x0, y0 + 1) * (1.0 - dx) + sample(x0 + 1, y0 + 1) * dx;
                out.push((upper * (1.0 - dy) + lower * dy).round() as u8);
            }
        }
        out
    }

    #[test]
    fn the_checksum_is_the_common_crc32() {
        // CRC-32 of "123456789012", as zlib computes it.
        assert_eq!(checksum(u128::from_be_bytes(*b"\0\0\0\x00123456789012")), 0x5d34eb96);
    }

    #[test]
    fn a_stamp_survives_drawing_and_reading_at_any_size() {
        for (width, height) in
            [(256, 16), (257, 99), (320, 240), (640, 360), (853, 480), (1280, 720), (1920, 1080), (3840, 2160)]
        {
            let stride = width + 13;
            let luma = marked(width, height, stride);
            assert_eq!(read_luma(&luma, stride, width, height), Some(STAMP), "{width}x{height}");
        }
    }

    #[test]
    fn extreme_values_survive() {
        for stamp in [Stamp { frame: 0, time_us: 0 }, Stamp { frame: u32::MAX, time_us: TIME_MASK }] {
            assert_eq!(Stamp::from_bits(stamp.bits()), Some(stamp));
        }
        let overlong = Stamp { frame: 1, time_us: u64::MAX };
        assert_eq!(Stamp::from_bits(overlong.bits()), Some(Stamp { frame: 1, time_us: TIME_MASK }));
    }

    #[test]
    fn a_stamp_survives_scaling_by_odd_factors() {
        let original = (1280, 720);
        let luma = marked(original.0, original.1, original.0);
        for new_width in [256, 333, 427, 511, 640, 853, 1001, 1279, 1366, 1919, 1920, 2557] {
            let size = (new_width, (new_width * original.1 + original.0 / 2) / original.0);
            let picture = scaled(&luma, original, size);
            assert_eq!(read_luma(&picture, size.0, size.0, size.1), Some(STAMP), "{size:?}");
        }
    }

    #[test]
    fn a_stamp_survives_noise_and_reduced_contrast() {
        let (width, height) = (640, 360);
        let mut random = 0x2545_f491_u32;
        let mut noise = || {
            random ^= random << 13;
            random ^= random >> 17;
            random ^= random << 5;
            i32::try_from(random % 81).unwrap() - 40
        };
        let picture: Vec<u8> = marked(width, height, width)
            .iter()
            .map(|&luma| (i32::from(luma) / 2 + 70 + noise()).clamp(0, 255) as u8)
            .collect();
        assert_eq!(read_luma(&picture, width, width, height), Some(STAMP));
    }

    #[test]
    fn a_stamp_is_read_from_a_colour_screenshot() {
        let (width, height) = (1280, 720);
        let bgrx: Vec<u8> = marked(width, height, width).iter().flat_map(|&luma| [luma, luma, luma, 0]).collect();
        let green = |x: usize, y: usize| bgrx[(y * width + x) * 4 + 1];
        assert_eq!(read_with(width, height, green), Some(STAMP));
    }

    #[test]
    fn one_point_of_each_cell_is_enough_of_a_clean_picture() {
        for (width, height) in [(256, 16), (1280, 720), (1921, 1080)] {
            let luma = marked(width, height, width);
            let points = points(width, height);
            let bits = points.iter().fold(0, |bits, (x, y)| bits << 1 | u128::from(luma[y * width + x] > 127));
            assert_eq!(Stamp::from_bits(bits), Some(STAMP));
        }
        assert!(points(255, 200).is_empty());
    }

    #[test]
    fn a_picture_without_a_mark_gives_none() {
        let (width, height) = (640, 360);
        let textured: Vec<u8> = (0..width * height).map(|at| (at * 31 % 251) as u8).collect();
        for picture in [vec![16; width * height], vec![235; width * height], textured] {
            assert_eq!(read_luma(&picture, width, width, height), None);
        }
    }

    #[test]
    fn a_single_wrong_cell_gives_none() {
        let (width, height) = (640, 360);
        let luma = marked(width, height, width);
        for (index, cell) in cells(width, height).enumerate() {
            let mut damaged = luma.clone();
            for y in cell.top..cell.bottom {
                damaged[y * width + cell.left..y * width + cell.right].iter_mut().for_each(|luma| *luma = 251 - *luma);
            }
            assert_eq!(read_luma(&damaged, width, width, height), None, "cell {index}");
        }
    }

    #[test]
    fn pictures_that_are_too_small_are_left_alone() {
        for (width, height, stride, bytes) in
            [(255, 200, 255, 51_000), (640, 39, 640, 24_960), (640, 360, 600, 999_999), (640, 360, 640, 100)]
        {
            let mut luma = vec![77; bytes];
            assert!(!STAMP.draw(&mut luma, stride, width, height));
            assert!(luma.iter().all(|&luma| luma == 77));
        }
        assert_eq!(read_luma(&[], 0, 0, 0), None);
        assert_eq!(read_luma(&[0; 10], usize::MAX, 640, 360), None);
        assert_eq!(mark_rect(255, 200), None);
    }

    #[test]
    fn the_mark_covers_its_rectangle_and_nothing_else() {
        let (width, height) = (1000, 500);
        let mut luma = vec![77; width * height];
        assert!(STAMP.draw(&mut luma, width, width, height));
        let (x, y, mark_width, mark_height) = mark_rect(width, height).unwrap();
        assert_eq!((x, y, mark_width, mark_height), (0, 437, 500, 63));
        for (at, &value) in luma.iter().enumerate() {
            let inside = at % width < mark_width && at / width >= y;
            assert_eq!(value != 77, inside, "at {},{}", at % width, at / width);
        }
    }
}
