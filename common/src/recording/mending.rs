//! What a recording misses, by when it was captured, and what of that comes late. Pure.
//!
//! Somebody else knows all pictures that there were: what the recording has is compared with that list, and what is
//! missing can be given to it in any order, each once.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::capture_clock::Captured;
use crate::mp4::Picture;

/// Times of one picture differ by so much at the least, as by RTP and RTSP they are made of two clocks.
pub const CLOSE: Duration = Duration::from_millis(1);
/// They are no further apart than half of what is between two pictures; but that is at least, and at most, so much.
const SAME: (Duration, Duration) = (CLOSE, Duration::from_millis(50));

/// No less than that of a file's times.
const TICK: Duration = Duration::from_micros(12);

/// A picture that is in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Present {
    pub captured: Captured,
    /// As in [`Picture`].
    pub time: Duration,
}

/// Pictures that are missing behind one that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    pub after: Present,
    /// None: the recording has ended.
    pub before: Option<Present>,
    pub missing: Vec<Captured>,
}

/// What came of a comparison.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compared {
    /// All pictures from there to there are known.
    pub from: Captured,
    pub to: Captured,
    /// Nothing comes behind.
    pub is_end: bool,
    pub runs: Vec<Run>,
}

/// For the writer of a recording.
#[derive(Clone, Debug)]
pub enum Late {
    Compared(Compared),
    Picture(Picture),
    /// What was captured before will not come any more.
    Settled(Captured),
}

impl Late {
    pub fn bytes(&self) -> usize {
        match self {
            Self::Picture(picture) => picture.unit.len(),
            _ => 0,
        }
    }
}

/// What of all pictures that there were is not present, both in their order. What was before the first that is present
/// does not count.
pub fn runs(present: &[Present], all: &[Captured]) -> Vec<Run> {
    let mut runs = Vec::<Run>::new();
    let mut next = 0;
    for (number, captured) in all.iter().enumerate() {
        let same = same(all, number);
        while present.get(next).is_some_and(|one| one.captured.0 + same < captured.0) {
            next += 1;
        }
        if present.get(next).is_some_and(|one| one.captured.0 <= captured.0 + same) {
            next += 1;
            continue;
        }
        let Some(after) = next.checked_sub(1).map(|last| present[last]) else { continue };
        match runs.last_mut().filter(|run| run.after == after) {
            Some(run) => run.missing.push(*captured),
            None => runs.push(Run { after, before: present.get(next).copied(), missing: vec![*captured] }),
        }
    }
    runs
}

/// How far a picture's time may be from that of this one.
fn same(all: &[Captured], number: usize) -> Duration {
    let apart = |two: &[Captured]| two[1].0.saturating_sub(two[0].0);
    let around = &all[number.saturating_sub(1)..all.len().min(number + 2)];
    let interval = around.windows(2).map(apart).min().unwrap_or_default();
    (interval / 2).clamp(SAME.0, SAME.1)
}

/// How much was found missing when it was written, before that was compared.
#[derive(Clone, Debug)]
pub struct Guess {
    /// The first picture behind; None: the recording has ended.
    pub before: Option<Captured>,
    pub missing: u64,
    /// As it is listed.
    pub at: Option<String>,
    /// The file that says so, by its number.
    pub file: u64,
}

/// Pictures that may come late.
#[derive(Clone, Debug)]
pub struct Hole {
    /// The file into which they belong.
    pub into: u64,
    /// The file whose picture is the first one behind.
    pub of: u64,
    pub after: Present,
    pub before: Option<Present>,
    /// Nobody knows any more which these were: at its beginning.
    pub forgotten: u64,
    pub wanted: BTreeSet<Captured>,
    /// How many came, and the last of them.
    pub came: u64,
    pub last: Option<Captured>,
    /// Its keyframes that came: whether they, and what follows each, are of the file's format.
    pub fits: BTreeMap<Captured, bool>,
    pub at: Option<String>,
}

impl Hole {
    /// By what is known of it: `guess` where it was noticed before.
    pub fn new(run: Run, guess: Option<&Guess>, from: Captured, (into, of): (u64, u64)) -> Self {
        let Run { after, before, missing } = run;
        let forgotten = guess.filter(|_| after.captured < from).map_or(0, |guess| {
            let Some(before) = before else { return guess.missing.saturating_sub(missing.len() as u64) };
            let whole = before.captured.0.saturating_sub(after.captured.0).as_secs_f64();
            let part = from.0.saturating_sub(after.captured.0).as_secs_f64();
            let apart = whole / (guess.missing + 1) as f64;
            ((part / apart.max(1e-6)).round() as u64).saturating_sub(1)
        });
        let at = guess.and_then(|guess| guess.at.clone());
        Self {
            into,
            of,
            after,
            before,
            forgotten,
            wanted: missing.into_iter().collect(),
            came: 0,
            last: None,
            fits: BTreeMap::new(),
            at,
        }
    }

    pub fn wants(&self, captured: Captured) -> bool {
        let fits = self.fits.range(..=captured).next_back().is_none_or(|(_, fits)| *fits);
        self.wanted.contains(&captured) && fits
    }

    pub fn missing(&self) -> u64 {
        self.forgotten + self.wanted.len() as u64
    }

    /// When one of its pictures is shown, by the clock of those that are there: a tick of a file's times before the
    /// next.
    pub fn time(&self, captured: Captured) -> Duration {
        let time = self.after.time + captured.0.saturating_sub(self.after.captured.0);
        self.before.map_or(time, |before| time.min(before.time.saturating_sub(TICK)))
    }

    /// What is still missing before a picture of this file, the last of all those missing with it.
    pub fn missing_in(&self, file: u64) -> Vec<Captured> {
        let forgotten = std::iter::repeat_n(self.after.captured, self.forgotten as usize);
        let is_before_last = |captured: &Captured| self.last.is_some_and(|last| *captured < last);
        let is_here = |captured: &Captured| {
            let place = if is_before_last(captured) { self.into } else { self.of };
            place == file
        };
        forgotten.chain(self.wanted.iter().copied()).filter(is_here).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Captured {
        Captured(Duration::from_millis(1_700_000_000_000 + ms))
    }

    fn present(ms: u64) -> Present {
        Present { captured: at(ms), time: Duration::from_millis(ms) }
    }

    #[test]
    fn what_is_missing_is_found_between_what_is_there() {
        let there: Vec<_> = [0, 40, 80, 200, 240, 320].map(present).into();
        let all: Vec<_> = (0..9).map(|number| at(number * 40)).collect();
        let run = |after, before, missing: &[u64]| Run {
            after: present(after),
            before: Some(present(before)),
            missing: missing.iter().map(|ms| at(*ms)).collect(),
        };
        assert_eq!(runs(&there, &all), [run(80, 200, &[120, 160]), run(240, 320, &[280])]);
        assert_eq!(runs(&there[2..], &all), runs(&there, &all), "what was before the first does not count");
        // Times by two clocks differ by less than a millisecond.
        let near: Vec<_> = there
            .iter()
            .enumerate()
            .map(|(number, one)| {
                let off = Duration::from_micros(20);
                let captured = if number % 2 == 0 { one.captured.0 + off } else { one.captured.0 - off };
                Present { captured: Captured(captured), ..*one }
            })
            .collect();
        let missing = |runs: Vec<Run>| runs.into_iter().map(|run| run.missing).collect::<Vec<_>>();
        assert_eq!(missing(runs(&near, &all)), missing(runs(&there, &all)));
        // By RTSP, after a picture that was captured before the one that it follows.
        let shifted: Vec<_> = there
            .iter()
            .map(|one| Present { captured: Captured(one.captured.0 + Duration::from_millis(17)), ..*one })
            .collect();
        assert_eq!(missing(runs(&shifted, &all)), missing(runs(&there, &all)));
        let tail = runs(&there, &[all, vec![at(360)]].concat());
        assert_eq!(tail[2], Run { after: present(320), before: None, missing: vec![at(360)] });
    }

    #[test]
    fn of_what_nobody_knows_any_more_the_part_stays_that_was_guessed() {
        let run = Run { after: present(0), before: Some(present(1_000)), missing: vec![at(800), at(900)] };
        let guess = Guess { before: Some(at(1_000)), missing: 10, at: Some("then".to_owned()), file: 1 };
        let mut hole = Hole::new(run.clone(), Some(&guess), at(700), (1, 2));
        assert_eq!((hole.forgotten, hole.missing(), hole.at.as_deref()), (7, 9, Some("then")));
        assert_eq!((hole.missing_in(1).len(), hole.missing_in(2).len()), (0, 9));
        assert_eq!(hole.time(at(800)), Duration::from_millis(800));
        assert!(hole.time(at(1_001)) < Duration::from_secs(1), "it is sorted before the next");
        hole.wanted.remove(&at(800));
        hole.last = Some(at(800));
        assert_eq!((hole.missing_in(1).len(), hole.missing_in(2)), (7, vec![at(900)]));
        let end = Run { before: None, ..run.clone() };
        assert_eq!(Hole::new(end, Some(&guess), at(700), (1, 1)).missing(), 10, "of a pause at the end");
        assert_eq!(Hole::new(run, Some(&guess), at(0), (1, 1)).missing(), 2, "all of it is known");
    }
}
