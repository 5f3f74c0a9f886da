//! The grid while its tiles are aligned: their pictures, chosen by `align`, and what came of it. There only as long as
//! that is wanted; without it each tile shows its newest picture.

use std::sync::Arc;
use std::time::Instant;

use crate::align::{Aligner, Chosen, Limits, MAX_WAITING, Standing};
use crate::decode::Picture;
use crate::display::Tone;
use crate::feed::Feed;
use crate::stats::{AlignmentReport, Histogram, ms};

/// Of the pictures that wait, of all tiles together: on their way to the window, and there.
const MOST_BYTES: usize = 512 << 20;

pub struct Aligned {
    aligner: Aligner<Picture>,
    limits: Limits,
    tiles: Vec<Arc<Feed>>,
    /// How often the mailbox of each tile was cleared.
    cleared: Vec<u64>,
    /// How many pictures of each may wait, and whether it was said that more would have to.
    most: Vec<(usize, bool)>,
    skews: Histogram,
    delays: Histogram,
}

impl Aligned {
    pub fn begin(tiles: &[Arc<Feed>], limits: Limits, now: Instant) -> Self {
        for tile in tiles {
            tile.viewer.mailbox.set_depth(MAX_WAITING);
        }
        Self {
            aligner: Aligner::new(tiles.len(), limits, now),
            limits,
            tiles: tiles.to_vec(),
            cleared: tiles.iter().map(|tile| tile.viewer.mailbox.cleared()).collect(),
            most: vec![(MAX_WAITING, false); tiles.len()],
            skews: Histogram::default(),
            delays: Histogram::default(),
        }
    }

    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// Takes the pictures that came, and decides which are shown now.
    pub fn choose(&mut self, now: Instant) {
        let count = self.tiles.len();
        let known = self.cleared.iter_mut().zip(&mut self.most);
        for (at, (tile, (cleared, (most, is_said)))) in self.tiles.iter().zip(known).enumerate() {
            let mailbox = &tile.viewer.mailbox;
            // Of a session that is over none is shown.
            let times = mailbox.cleared();
            if std::mem::replace(cleared, times) != times {
                self.aligner.forget(at);
            }
            while let Some(picture) = mailbox.take() {
                let (bytes, before) = (picture.bytes(), *most);
                *most = may_wait(bytes, count);
                if *most != before {
                    mailbox.set_depth(*most);
                    self.aligner.set_most(at, *most);
                }
                let is_full = self.aligner.put(at, picture.captured, picture.converted_at, picture);
                if is_full && *most < MAX_WAITING && !std::mem::replace(is_said, true) {
                    tracing::warn!(
                        "{}: no more than {most} pictures of {} kB wait for those of other cameras, as memory is \
                         limited to {} MB: choose smaller streams for the grid, or a smaller --align-latency",
                        tile.viewer.called(),
                        bytes / 1_000,
                        MOST_BYTES >> 20
                    );
                }
            }
        }
        if let Some(chosen) = self.aligner.choose(now) {
            self.delays.add(chosen.delay);
            chosen.skew.into_iter().for_each(|skew| self.skews.add(skew));
        }
    }

    /// The one that was chosen, unless its session has ended since.
    pub fn take(&mut self, tile: usize) -> Option<Picture> {
        let is_over = self.tiles.get(tile).is_some_and(|of| of.viewer.mailbox.cleared() != self.cleared[tile]);
        self.aligner.take(tile).filter(|_| !is_over)
    }

    /// When there is something to show again, unless a picture comes before.
    pub fn due(&self) -> Option<Instant> {
        self.aligner.due()
    }

    pub fn report(&self) -> AlignmentReport {
        let recent = self.aligner.recent();
        let tiles = (0..self.tiles.len()).map(|tile| words(self.aligner.standing(tile)).to_owned());
        AlignmentReport {
            max_latency_ms: ms(self.limits.max_latency),
            sync_tolerance_ms: ms(self.limits.tolerance),
            skew_ms: recent.and_then(|recent| recent.skew).map(ms),
            delay_ms: recent.map(|recent| ms(recent.delay)),
            skew: self.skews.summary(),
            delay: self.delays.summary(),
            tiles: tiles.collect(),
        }
    }

    /// For the pilot, below the tiles.
    pub fn told(&self) -> (String, Tone) {
        told(self.aligner.recent(), self.limits)
    }

    /// Why the tile is not aligned, for its caption; empty where it is, or says by itself that nothing comes.
    pub fn remark(&self, tile: usize) -> &'static str {
        match self.aligner.standing(tile) {
            Standing::Silent => "",
            other => words(other),
        }
    }
}

/// How many pictures of this size may wait at each of two places, of one of so many tiles.
fn may_wait(bytes: usize, tiles: usize) -> usize {
    (MOST_BYTES / (2 * tiles * bytes).max(1)).clamp(1, MAX_WAITING)
}

fn told(recent: Option<Chosen>, limits: Limits) -> (String, Tone) {
    let Some((delay, skew)) = recent.and_then(|recent| Some((recent.delay, recent.skew?))) else {
        let text = "Not aligned: less than two cameras have pictures whose times of capture can be compared";
        return (text.to_owned(), Tone::Warning);
    };
    let (beyond, tone) = match skew > limits.tolerance {
        true => (format!(", more than {:.0} ms", ms(limits.tolerance)), Tone::Warning),
        false => (String::new(), Tone::Waiting),
    };
    (format!("Aligned: skew {:.0} ms{beyond}; pictures delayed by up to {:.0} ms", ms(skew), ms(delay)), tone)
}

/// Empty where it is aligned.
fn words(standing: Standing) -> &'static str {
    match standing {
        Standing::Aligned => "",
        Standing::Untimed => "no capture time",
        Standing::Silent => "silent",
        Standing::Late => "too late to align",
        Standing::Early => "clock is ahead",
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn large_pictures_of_many_tiles_are_fewer_that_wait() {
        let (hd, uhd) = (1920 * 1080 * 3 / 2, 3840 * 2160 * 3 / 2);
        assert_eq!([may_wait(hd, 2), may_wait(hd, 4), may_wait(hd, 16), may_wait(uhd, 4)], [16, 16, 5, 5]);
        for (bytes, tiles) in [(hd, 2), (hd, 16), (uhd, 4), (uhd, 16)] {
            assert!(2 * tiles * bytes * may_wait(bytes, tiles) <= MOST_BYTES, "{tiles} of {bytes}");
        }
        assert_eq!((may_wait(usize::MAX / 64, 16), may_wait(0, 0)), (1, MAX_WAITING));
    }

    #[test]
    fn the_line_warns_where_the_tolerance_is_not_met_and_where_nothing_can_be_aligned() {
        let ms = Duration::from_millis;
        let limits = Limits { max_latency: ms(100), tolerance: ms(33) };
        let line = |skew: Option<u64>| told(Some(Chosen { skew: skew.map(ms), delay: ms(48) }), limits);
        let good = "Aligned: skew 33 ms; pictures delayed by up to 48 ms".to_owned();
        assert_eq!(line(Some(33)), (good, Tone::Waiting));
        let bad = "Aligned: skew 61 ms, more than 33 ms; pictures delayed by up to 48 ms".to_owned();
        assert_eq!(line(Some(61)), (bad, Tone::Warning));
        assert!([line(None), told(None, limits)].iter().all(|line| line.0.starts_with("Not aligned")));
    }
}
