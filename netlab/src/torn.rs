//! Tells a damaged test picture from a whole one.
//!
//! The bars of rov-server's test picture move sideways, and stand in every row of its upper two thirds at the same
//! place. What is lost is a slice, as large pictures are sent in a slice for each of the encoder's threads: where one
//! was not decoded, or was decoded from another picture than it refers to, the bars are behind. So the first row and
//! the last one are compared, which are in different slices; the mark in the lowest part is guarded by its checksum.
//! Rows between them say nothing: x264, when it is short of bits, leaves strips behind by itself, for a picture or
//! three, but not in the first macroblocks of a slice.

/// In the first row of macroblocks.
const FIRST: usize = 8;
/// From the lower edge of the bars, so that no coding block reaches over it.
const MARGIN: usize = 24;
/// Of 255, in any colour; the edges of the bars differ by 191.
const DIFFERENT: u8 = 96;
/// Of the right half, where no clock is, so many points may differ. Its three or four edges move 4 pixels a picture: in
/// a row that is behind by one picture, 12 of 640 points differ.
const MAX_SHARE: usize = 100;

/// `pixels` are 0x??RRGGBB, rows from the top. Is true of pictures that are not rov-server's test picture.
pub fn is_torn(pixels: &[u32], width: usize, height: usize) -> bool {
    let row = |y: usize| pixels.get(y * width + width / 2..(y + 1) * width);
    let (Some(first), Some(last)) = (row(FIRST), (height * 2 / 3).checked_sub(MARGIN).and_then(row)) else {
        return true;
    };
    let differing = first.iter().zip(last).filter(|(a, b)| differ(**a, **b)).count();
    differing > width / 2 / MAX_SHARE
}

fn differ(a: u32, b: u32) -> bool {
    // The upper eight bits mean nothing.
    a.to_be_bytes().into_iter().zip(b.to_be_bytes()).skip(1).any(|(a, b)| a.abs_diff(b) > DIFFERENT)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WIDTH: usize = 1280;
    const HEIGHT: usize = 720;

    /// Seven bars that begin at `shift`, with a clock, over something else.
    fn bars(shift: impl Fn(usize) -> usize) -> Vec<u32> {
        let colours = [0xbf_bf_bf, 0xbf_bf_00, 0x00_bf_bf, 0x00_bf_00, 0xbf_00_bf, 0xbf_00_00, 0x00_00_bf];
        let row = |y: usize| (0..WIDTH).map(move |x| (x, y));
        let colour = |(x, y): (usize, usize)| {
            let is_clock = (32..104).contains(&y) && (32..616).contains(&x);
            if y >= HEIGHT * 2 / 3 || is_clock { (x * y) as u32 } else { colours[(x + shift(y)) % WIDTH * 7 / WIDTH] }
        };
        (0..HEIGHT).flat_map(row).map(colour).collect()
    }

    #[test]
    fn a_whole_picture_is_not_torn() {
        assert!(!is_torn(&bars(|_| 40), WIDTH, HEIGHT));
    }

    #[test]
    fn a_slice_that_is_one_picture_behind_is_seen_wherever_the_bars_stand() {
        for shift in (0..WIDTH / 7).step_by(16) {
            assert!(is_torn(&bars(|y| if y < 360 { shift } else { shift + 4 }), WIDTH, HEIGHT), "{shift}");
        }
    }

    #[test]
    fn a_slice_that_is_grey_is_seen() {
        let mut picture = bars(|_| 0);
        picture[..180 * WIDTH].fill(0x80_80_80);
        assert!(is_torn(&picture, WIDTH, HEIGHT));
    }
}
