//! What comes late: into the file that is being written, and into those that wait for it.

use std::io;
use std::time::Instant;

use super::{Current, REMEMBERED, Row, Trouble, WAITING_TIME, Writer};
use crate::api::RecordingGap;
use crate::capture_clock::Captured;
use crate::mp4::{Format, Picture};
use crate::recording::mending::{CLOSE, Compared, Guess, Hole, Late};

/// A picture that is to be written.
struct Placed {
    /// The file's number.
    file: u64,
    captured: Captured,
    row: Row,
}

impl Writer {
    /// Some of what has come late; whether there was any.
    pub(super) fn mend(&mut self) -> Result<bool, Trouble> {
        let (mut placed, mut settled) = (Vec::<Placed>::new(), None);
        let all = self.shared.take_late();
        let is_some = !all.is_empty();
        for late in all {
            match late {
                Late::Compared(compared) => self.compare(compared),
                Late::Picture(picture) if placed.iter().any(|one| Some(one.captured) == picture.captured) => {}
                Late::Picture(picture) => placed.extend(self.place(&picture)),
                Late::Settled(until) => settled = Some(until),
            }
        }
        self.write_late(placed)?;
        self.close_settled(settled);
        Ok(is_some)
    }

    pub(super) fn remember(&mut self, guess: Guess) {
        if !self.plan.mends {
            return;
        }
        if self.guesses.len() == REMEMBERED {
            self.guesses.pop_front();
        }
        self.guesses.push_back(guess);
    }

    fn compare(&mut self, compared: Compared) {
        let Compared { from, to, is_end, runs } = compared;
        for file in self.waiting.iter_mut().chain(&mut self.file) {
            if file.compared.or(file.first()).is_some_and(|known| from.0 <= known.0 + CLOSE) {
                file.compared = file.compared.max(Some(to));
            }
        }
        // Behind the last picture nothing is known but what is found missing there.
        let finds_end = is_end && runs.iter().any(|run| run.before.is_none());
        let is_known = |guess: &Guess| guess.before.map_or(finds_end, |before| from < before && before <= to);
        let (mut known, rest): (Vec<_>, Vec<_>) = self.guesses.drain(..).partition(is_known);
        self.guesses = rest.into();
        for run in runs {
            let before = run.before.map(|before| before.captured);
            let guess = known.iter().position(|guess| guess.before == before).map(|at| known.swap_remove(at));
            let into = self.file_at(run.after.captured);
            let of = guess.as_ref().map(|guess| guess.file).or_else(|| before.map(|before| self.file_at(before)));
            let mut hole = Hole::new(run, guess.as_ref(), from, (into, of.unwrap_or(into)));
            hole.at = hole.at.or_else(|| hole.wanted.first().map(|first| super::rfc3339(*first)));
            self.correct(guess.map_or(0, |guess| guess.missing), &hole);
            if self.holes.len() == REMEMBERED {
                self.forget_hole();
            }
            self.holes.push_back(hole);
        }
        // Nothing is missing there.
        for guess in known {
            self.recount(guess.missing, 0, guess.at.as_deref());
            self.shared.correct(-(guess.missing as i64));
            if let Some(file) = self.open(guess.file) {
                file.take_guess_back(&guess);
            }
        }
    }

    /// One that is filled, or the oldest: what its files say of it stays.
    fn forget_hole(&mut self) {
        let filled = self.holes.iter().position(|hole| hole.wanted.is_empty());
        let Some(hole) = self.holes.remove(filled.unwrap_or_default()) else { return };
        for file in self.waiting.iter_mut().chain(&mut self.file) {
            file.settle(std::iter::once(&hole));
        }
    }

    fn correct(&mut self, guessed: u64, hole: &Hole) {
        let pictures = hole.missing();
        self.recount(guessed, pictures, hole.at.as_deref());
        self.shared.correct(pictures as i64 - guessed as i64);
        let end = hole.before.map(|before| before.captured).or(hole.wanted.last().copied());
        let seconds = end.map_or(0.0, |end| end.0.saturating_sub(hole.after.captured.0).as_secs_f64());
        self.shared.set_stats(|stats| {
            if pictures > 0 && !stats.newest_gaps.iter().any(|gap| gap.at == hole.at) {
                let (at, reason) = (hole.at.clone(), "they did not get here".to_owned());
                stats.newest_gaps.push(RecordingGap { at, seconds, pictures, reason });
                stats.newest_gaps.sort_by(|one, other| one.at.cmp(&other.at));
                let surplus = stats.newest_gaps.len().saturating_sub(super::LISTED_GAPS);
                stats.newest_gaps.drain(..surplus);
            }
        });
    }

    /// So many are missing there, instead of so many.
    fn recount(&self, before: u64, now: u64, at: Option<&str>) {
        self.shared.set_stats(|stats| {
            stats.missing = (stats.missing + now).saturating_sub(before);
            stats.gaps = (stats.gaps + u64::from(now > 0)).saturating_sub(u64::from(before > 0));
            let listed = stats.newest_gaps.iter().position(|gap| gap.at.is_some() && gap.at.as_deref() == at);
            match listed {
                Some(listed) if now == 0 => drop(stats.newest_gaps.remove(listed)),
                Some(listed) => stats.newest_gaps[listed].pictures = now,
                None => {}
            }
        });
    }

    /// The number of the file that has what was captured then; 0: none that is open.
    fn file_at(&self, captured: Captured) -> u64 {
        let all = self.waiting.iter().chain(&self.file);
        let has = |file: &&Current| file.first() <= Some(captured) && file.last() >= Some(captured);
        all.filter(has).map(|file| file.number).max().unwrap_or_default()
    }

    fn open(&mut self, number: u64) -> Option<&mut Current> {
        self.waiting.iter_mut().chain(&mut self.file).find(|file| file.number == number)
    }

    /// Each picture once, and only those that are missing.
    fn place(&mut self, picture: &Picture) -> Option<Placed> {
        let captured = picture.captured?;
        let place = self.holes.iter().position(|hole| hole.wanted.contains(&captured))?;
        let hole = &self.holes[place];
        let (number, time) = (hole.into, hole.time(captured));
        let codec = self.plan.codec;
        let file = self.open(number)?;
        if picture.keyframe {
            // A file has one size.
            let fits = Format::of(codec, &picture.unit).as_ref() == Ok(file.muxer.format());
            let hole = &mut self.holes[place];
            if !fits && hole.fits.values().all(|fits| *fits) {
                let at = super::rfc3339(captured);
                tracing::warn!(
                    "recording of {}: pictures from {at} on are of another size than their file, and stay missing",
                    self.plan.title
                );
            }
            hole.fits.insert(captured, fits);
        }
        if !self.holes[place].wants(captured) {
            return None;
        }
        let file = self.open(number)?;
        let picture = Picture { time, ..picture.clone() };
        let bytes = file.muxer.late(&picture);
        file.bytes.extend_from_slice(&bytes);
        let row = Row { time, captured: Some(captured), keyframe: picture.keyframe, missing: 0, line: 0 };
        Some(Placed { file: number, captured, row })
    }

    /// What is on the disk counts.
    fn write_late(&mut self, placed: Vec<Placed>) -> Result<(), Trouble> {
        let columns = self.columns.clone();
        let mut files: Vec<_> = placed.iter().map(|placed| placed.file).collect();
        files.dedup();
        for number in files {
            let is_current = self.file.as_ref().is_some_and(|file| file.number == number);
            if is_current {
                self.write()?;
            }
            let Some(file) = self.open(number) else { continue };
            let length = file.bytes.len() as u64;
            let written = if length > 0 { file.write(&columns) } else { Ok(()) };
            match written {
                Ok(()) => self.shared.set_stats(|stats| stats.total_bytes += length),
                Err(error) if is_current => return Err(Trouble::Disk("cannot write", error)),
                Err(error) => {
                    tracing::warn!("recording of {}: what came late cannot be written: {error}", self.plan.title);
                    let at = self.waiting.iter().position(|file| file.number == number);
                    if let Some(mut file) = at.and_then(|at| self.waiting.remove(at)) {
                        let cut = file.take_back(&mut None);
                        self.close_waiting(file, cut);
                    }
                }
            }
        }
        for Placed { file, captured, row } in placed {
            let Some(file) = self.open(file) else { continue };
            file.late += 1;
            if let Some(table) = &mut file.table {
                table.push(row);
            }
            let Some(hole) = self.holes.iter_mut().find(|hole| hole.wants(captured)) else { continue };
            let before = hole.missing();
            hole.wanted.remove(&captured);
            hole.last = hole.last.max(Some(captured));
            hole.came += 1;
            if hole.wanted.is_empty() {
                tracing::info!("recording of {}: {} missing pictures were fetched", self.plan.title, hole.came);
            }
            let (now, at) = (hole.missing(), hole.at.clone());
            self.shared.set_stats(|stats| stats.pictures += 1);
            self.recount(before, now, at.as_deref());
        }
        Ok(())
    }

    fn close_settled(&mut self, settled: Option<Captured>) {
        let is_settled =
            |file: &mut Current| file.last().is_none_or(|last| settled.is_some_and(|settled| settled > last));
        while let Some(file) = self.waiting.pop_front_if(is_settled) {
            self.close_waiting(file, Ok(()));
        }
        let is_over = |file: &mut Current| file.ended.is_some_and(|ended: Instant| ended.elapsed() >= WAITING_TIME);
        while let Some(file) = self.waiting.pop_front_if(is_over) {
            self.close_early(file);
        }
    }

    /// Although pictures may still come.
    pub(super) fn close_early(&mut self, file: Current) {
        let missing: usize =
            self.holes.iter().filter(|hole| hole.into == file.number).map(|hole| hole.wanted.len()).sum();
        if missing > 0 {
            let (title, name) = (&self.plan.title, &file.recording.name);
            tracing::warn!("recording of {title}: {missing} pictures stay missing: {name} waits for them no longer");
        }
        self.close_waiting(file, Ok(()));
    }

    pub(super) fn close_waiting(&mut self, file: Current, cut: io::Result<()>) {
        if let Err(Trouble::Disk(what, error)) = self.close(file, cut) {
            tracing::warn!("recording of {}: {what}: {error}", self.plan.title);
        }
        let open: Vec<_> = self.waiting.iter().chain(&self.file).map(|file| file.number).collect();
        self.holes.retain(|hole| open.contains(&hole.into) || open.contains(&hole.of));
    }

    /// Whether something may come late into it.
    pub(super) fn waits(&self, file: &Current) -> bool {
        let is_on = self.order != super::Order::Stop && !self.shared.is_stopping();
        self.plan.mends && is_on && file.last().is_some()
    }
}

impl Current {
    /// When its first picture was captured.
    fn first(&self) -> Option<Captured> {
        self.table.as_ref()?.first()?.captured
    }

    pub(super) fn last(&self) -> Option<Captured> {
        self.table.as_ref()?.iter().filter_map(|row| row.captured).max()
    }

    /// Nothing is missing before the picture of which that was guessed.
    fn take_guess_back(&mut self, guess: &Guess) {
        let is_it = |row: &&mut Row| guess.before.is_some() && row.captured == guess.before && row.missing > 0;
        let Some(row) = self.table.iter_mut().flatten().rev().find(is_it) else { return };
        self.missing = self.missing.saturating_sub(std::mem::take(&mut row.missing));
        self.gaps = self.gaps.saturating_sub(1);
        self.is_mended = true;
    }

    /// What is still missing, and before which picture, now that nothing comes any more.
    pub(super) fn settle<'a>(&mut self, holes: impl Iterator<Item = &'a Hole> + Clone) {
        let Some(table) = &mut self.table else { return };
        let number = self.number;
        let mut holes = holes.filter(|hole| hole.into == number || hole.of == number).peekable();
        if holes.peek().is_none() {
            return;
        }
        let all: Vec<_> = holes.collect();
        let guessed: Vec<_> = all.iter().filter_map(|hole| hole.before).map(|before| before.captured).collect();
        let is_guessed = |row: &&mut Row| row.captured.is_some_and(|captured| guessed.contains(&captured));
        table.iter_mut().filter(is_guessed).for_each(|row| row.missing = 0);
        table.sort_by_key(|row| row.time);
        for missing in all.iter().flat_map(|hole| hole.missing_in(number)) {
            let behind = table.iter_mut().find(|row| row.captured.is_some_and(|captured| captured > missing));
            behind.into_iter().for_each(|row| row.missing += 1);
        }
        self.gaps = table.iter().filter(|row| row.missing > 0).count() as u64;
        self.missing = table.iter().map(|row| row.missing).sum();
        self.is_mended = true;
    }
}
