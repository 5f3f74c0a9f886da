//! The tiles of the grid: where each lies, and its pixels, a caption above a small window of its own. Pure.

use rov_common::units::Resolution;

use super::Scene;
use crate::decode::Picture;
use crate::overlay::{self, Badge, Surface, Tone};

/// Behind and between the tiles.
const BACKGROUND: u32 = 0x05_08_0b;
/// Between tiles.
const GAP: u32 = 2;
/// Of the room for a picture: width to height as most cameras have it.
const SHAPE: (u32, u32) = (16, 9);
/// Lines at the bottom, which are there while there is something to say.
const MAX_LINES: usize = 3;

/// The places of some tiles in a window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places {
    window: Resolution,
    columns: u32,
    /// Of a tile, its caption included.
    cell: Resolution,
    /// Of the caption.
    caption: u32,
    /// Of the first tile.
    corner: (u32, u32),
    /// What is said below them: how it is, in a line each, and what is odd.
    status: Vec<(String, Tone)>,
    lines: Vec<String>,
}

impl Places {
    /// As large as `count` tiles can be, with `status` and `said` below them.
    pub fn of(count: usize, window: Resolution, status: Vec<(String, Tone)>, said: &[String]) -> Self {
        let in_line = |(text, tone)| Some((overlay::grid_lines(&[text], window, 1).pop()?, tone));
        let status: Vec<_> = status.into_iter().filter_map(in_line).collect();
        let lines = overlay::grid_lines(said, window, MAX_LINES);
        let line = overlay::caption_height(window);
        let bottom = ((lines.len() + status.len()) as u32 * line).min(window.height / 2);
        let room = Resolution::new(window.width, window.height - bottom);
        let count = count.max(1) as u32;
        let cell = |columns: u32| {
            let rows = count.div_ceil(columns);
            let (width, height) =
                ((room.width / columns).saturating_sub(GAP), (room.height / rows).saturating_sub(GAP));
            let picture = Resolution::new(SHAPE.0 * 100, SHAPE.1 * 100);
            let picture = picture.fit_into(Resolution::new(width.max(1), height.saturating_sub(line).max(1)));
            Resolution::new(picture.width, picture.height + line)
        };
        let columns = (1..=count).max_by_key(|columns| (cell(*columns).pixels(), u32::MAX - columns)).unwrap_or(1);
        let (cell, rows) = (cell(columns), count.div_ceil(columns));
        let middle = |all: u32, each: u32, number: u32| all.saturating_sub((each + GAP) * number - GAP) / 2;
        let corner = (middle(room.width, cell.width, columns), middle(room.height, cell.height, rows));
        Self { window, columns, cell, caption: line.min(cell.height), corner, status, lines }
    }

    /// The upper left corner of a tile.
    fn at(&self, tile: usize) -> (u32, u32) {
        let (column, row) = (tile as u32 % self.columns, tile as u32 / self.columns);
        (self.corner.0 + column * (self.cell.width + GAP), self.corner.1 + row * (self.cell.height + GAP))
    }

    /// Of a tile's picture.
    pub fn picture(&self) -> Resolution {
        Resolution::new(self.cell.width, self.cell.height - self.caption)
    }

    /// The tile at this place, of so many.
    pub fn tile_at(&self, (x, y): (i32, i32), count: usize) -> Option<usize> {
        (0..count).find(|tile| {
            let (left, top) = self.at(*tile);
            let within = |at: i32, from: u32, size: u32| (from as i32..(from + size) as i32).contains(&at);
            within(x, left, self.cell.width) && within(y, top, self.cell.height)
        })
    }

    /// Paints the tiles into the pixels of the window, each in its place.
    pub fn paint<'a>(&self, pixels: &mut [u32], tiles: impl Iterator<Item = &'a Tile>) {
        pixels.fill(BACKGROUND);
        let Some(mut surface) = Surface::new(pixels, self.window) else { return };
        for (at, tile) in tiles.enumerate() {
            let (x, y) = self.at(at);
            if tile.pixels.len() as u64 == self.cell.pixels() {
                surface.copy(&tile.pixels, self.cell, (x as i32, y as i32));
            }
        }
        overlay::draw_grid_lines(&mut surface, &self.status, &self.lines);
    }
}

/// The pixels of a tile, which are painted anew when something in it changes.
#[derive(Debug, Default)]
pub struct Tile {
    pixels: Vec<u32>,
    painted: Option<(Scene, Badge)>,
}

impl Tile {
    /// `scene` is that of a window of the size of its picture. Whether its pixels are others than before.
    pub fn paint(
        &mut self,
        places: &Places,
        scene: Scene,
        caption: Badge,
        picture: Option<&Picture>,
        is_new: bool,
    ) -> bool {
        let wanted = Some((scene, caption));
        if !is_new && self.painted == wanted {
            return false;
        }
        self.painted = wanted;
        self.pixels.resize(places.cell.pixels() as usize, 0);
        let (above, below) = self.pixels.split_at_mut((places.cell.width * places.caption) as usize);
        if let Some((scene, caption)) = &self.painted {
            let size = Resolution::new(places.cell.width, places.caption);
            if let Some(mut surface) = Surface::new(above, size) {
                overlay::draw_caption(&mut surface, caption, places.window);
            }
            if scene.size.pixels() > 0 {
                scene.paint(below, picture);
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_are_as_large_as_they_can_be_and_do_not_overlap() {
        for window in [(160, 90), (320, 240), (640, 480), (1280, 720), (1920, 1080), (600, 2000)] {
            let window = Resolution::new(window.0, window.1);
            for count in 1..=16 {
                let places = Places::of(count, window, Vec::new(), &[]);
                let all: Vec<_> = (0..count).map(|tile| places.at(tile)).collect();
                for (tile, (x, y)) in all.iter().enumerate() {
                    assert!(x + places.cell.width <= window.width, "{count} in {window}: {places:?}");
                    assert!(y + places.cell.height <= window.height, "{count} in {window}: {places:?}");
                    let middle = ((x + places.cell.width / 2) as i32, (y + places.cell.height / 2) as i32);
                    assert_eq!(places.tile_at(middle, count), Some(tile));
                }
            }
        }
        let columns = |count| Places::of(count, Resolution::new(1280, 720), Vec::new(), &[]).columns;
        assert_eq!([1, 2, 3, 4, 5, 9, 16].map(columns), [1, 2, 2, 2, 3, 3, 4]);
        assert_eq!(Places::of(2, Resolution::new(600, 2000), Vec::new(), &[]).columns, 1);
    }

    #[test]
    fn what_is_said_stands_below_the_tiles() {
        let window = Resolution::new(320, 240);
        let (status, note) = (("Aligned: skew 3 ms".to_owned(), Tone::Waiting), "17 more do not fit".to_owned());
        let places = Places::of(4, window, vec![status.clone()], std::slice::from_ref(&note));
        assert_eq!((&places.status, &places.lines), (&vec![status], &vec![note]));
        let (_, y) = places.at(3);
        assert!(y + places.cell.height + 2 * overlay::caption_height(window) <= window.height, "{places:?}");
        assert_eq!(places.tile_at((0, 239), 4), None);
    }
}
