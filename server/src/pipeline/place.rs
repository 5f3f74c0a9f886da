//! Where the small picture lies in the large one. Pure.

use rov_common::units::Resolution;

use crate::config::{Layout, Position};

/// Small pictures have at least this width and height.
const MIN_SIDE: u32 = 16;

/// A rectangle in pixels; everything is even, as 4:2:0 video has one colour for two pixels each way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub left: usize,
    pub top: usize,
    pub width: usize,
    pub height: usize,
    /// Pixels at each edge of it, around the picture.
    pub border: usize,
}

impl Place {
    /// In a picture of this size, whose sides are even.
    pub fn new(large: Resolution, layout: &Layout) -> Self {
        let side = |of: u32| {
            let half = (f64::from(of) * layout.scale / 2.0).round() as u32;
            (half * 2).max(MIN_SIDE).min(of)
        };
        let (width, height) = (side(large.width), side(large.height));
        let at_right = matches!(layout.position, Position::TopRight | Position::BottomRight);
        let at_bottom = matches!(layout.position, Position::BottomLeft | Position::BottomRight);
        let border = layout.border.next_multiple_of(2).min(width.min(height).saturating_sub(MIN_SIDE) / 4 * 2);
        Self {
            left: if at_right { large.width - width } else { 0 } as usize,
            top: if at_bottom { large.height - height } else { 0 } as usize,
            width: width as usize,
            height: height as usize,
            border: border as usize,
        }
    }

    /// Within the border.
    pub fn inner(&self) -> Self {
        Self {
            left: self.left + self.border,
            top: self.top + self.border,
            width: self.width - 2 * self.border,
            height: self.height - 2 * self.border,
            border: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HD: Resolution = Resolution::new(1920, 1080);

    fn place(large: Resolution, position: Position, scale: f64, border: u32) -> [usize; 5] {
        let place = Place::new(large, &Layout { position, scale, border });
        [place.left, place.top, place.width, place.height, place.border]
    }

    #[test]
    fn the_small_picture_lies_in_its_corner() {
        assert_eq!(place(HD, Position::BottomRight, 0.25, 0), [1440, 810, 480, 270, 0]);
        assert_eq!(place(HD, Position::BottomLeft, 0.25, 0), [0, 810, 480, 270, 0]);
        assert_eq!(place(HD, Position::TopRight, 0.25, 0), [1440, 0, 480, 270, 0]);
        assert_eq!(place(HD, Position::TopLeft, 0.5, 0), [0, 0, 960, 540, 0]);
    }

    #[test]
    fn all_that_is_drawn_is_even_and_within_the_picture() {
        let sizes = [HD, Resolution::new(1280, 720), Resolution::new(322, 182), Resolution::new(16, 16)];
        let positions = [Position::TopLeft, Position::TopRight, Position::BottomLeft, Position::BottomRight];
        for large in sizes {
            for (position, scale, border) in positions
                .into_iter()
                .flat_map(|p| [0.1, 0.25, 0.333, 0.5].map(|s| (p, s)))
                .flat_map(|(p, s)| [0, 1, 4, 64].map(|b| (p, s, b)))
            {
                let whole = Place::new(large, &Layout { position, scale, border });
                for Place { left, top, width, height, .. } in [whole, whole.inner()] {
                    let what = format!("{large} {position:?} {scale} {border}: {whole:?}");
                    assert!([left, top, width, height].iter().all(|side| side % 2 == 0), "{what}");
                    assert!(left + width <= large.width as usize && top + height <= large.height as usize, "{what}");
                    assert!(width >= 16 && height >= 16, "{what}");
                }
            }
        }
    }

    #[test]
    fn a_border_is_within_the_place_and_made_even() {
        let place = Place::new(HD, &Layout { position: Position::BottomRight, scale: 0.25, border: 3 });
        assert_eq!(place.border, 4);
        assert_eq!(place.inner(), Place { left: 1444, top: 814, width: 472, height: 262, border: 0 });
    }
}
