//! Tells a damaged test picture from a whole one.
//!
//! rov-server's test picture moves sideways, and all rows of its upper part are the same, but for the clock on the left. A part that was not decoded, or was
//! decoded from another picture than it refers to, is behind: its bars stand elsewhere than those of the rows around it. The mark
//! in the lower part is guarded by its own checksum.

/// Height of the strips that are compared: that of a macroblock.
const STRIP: usize = 16;
/// Of 255, in any colour; the edges of the bars differ by 191.
const DIFFERENT: u8 = 96;
/// Of the right half so many points may differ. Its three or four edges move 4 pixels a picture: in a strip that is behind by one
/// picture, 12 of 640 points differ.
const MAX_SHARE: usize = 100;

/// `pixels` are 0x??RRGGBB, rows from the top. Is true of pictures that are not rov-server's test picture.
pub fn is_torn(pixels: &[u32], width: usize, height: usize) -> bool {
    // The bars are two thirds; the last strip may hold an edge.
    let strips = height * 2 / 3 / STRIP;
    let row = |strip: usize| {
        let at = (strip * STRIP + STRIP / 2) * width;
        pixels.get(at + width / 2..at + width)
    };
    let Some(first) = row(0).filter(|_| strips > 2) else { return true };
    (1..strips - 1).any(|strip| {
        let differing = row(strip).unwrap_or_default().iter().zip(first).filter(|(a, b)| differ(**a, **b)).count();
        differing > width / 2 / MAX_SHARE
    })
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

    /// Seven bars that begin at `shift`, over something else.
    fn bars(shift: impl Fn(usize) -> usize) -> Vec<u32> {
        let colours = [0xbfbfbf, 0xbfbf00, 0x00bfbf, 0x00bf00, 0xbf00bf, 0xbf0000, 0x0000bf];
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
    fn a_strip_that_is_one_picture_behind_is_seen() {
        assert!(is_torn(&bars(|y| if (160..192).contains(&y) { 36 } else { 40 }), WIDTH, HEIGHT));
        assert!(is_torn(&bars(|y| if y > 240 { 36 } else { 40 }), WIDTH, HEIGHT));
    }

    #[test]
    fn a_grey_strip_is_seen() {
        let mut picture = bars(|_| 0);
        picture[100 * WIDTH..132 * WIDTH].fill(0x80_80_80);
        assert!(is_torn(&picture, WIDTH, HEIGHT));
    }
}
