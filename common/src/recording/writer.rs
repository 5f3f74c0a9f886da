//! The thread that writes: files begun, split and ended, what to do when the disk does not take them.

mod mend;
mod table;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use std::{io, mem};

use self::table::{NewRow, Row, head};
use super::folder::{Folder, Recording};
use super::mending::{Guess, Hole, Present};
use super::name::rfc3339;
use super::queue::{Gap, Order, QUEUE_BYTES, Queued, Recorded, Shared};
use super::telemetry::{Columns, Fields, Subtitles};
use super::{Bytes, Measure, Plan};
use crate::api::{RecordingGap, RecordingState};
use crate::backoff::Backoff;
use crate::capture_clock::Captured;
use crate::mp4::{Format, Muxer, Picture};
use crate::priority;

/// The most that is written at once, when much has come: a slow disk is seen to take something.
const WRITE: usize = QUEUE_BYTES / 16;
/// Between two attempts with a disk that failed, and between two looks at one that is full.
const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(10);
/// So much more has to be free than what must stay free before a recording that was full goes on.
const ROOM: u64 = 100_000_000;
/// Between two looks at the free space, and at what is to be deleted.
const LOOK_EVERY: Duration = Duration::from_secs(1);
const PRUNE_EVERY: Duration = Duration::from_secs(30);
/// Pictures of a fragment wait no longer for the next one.
const FLUSH_AFTER: Duration = Duration::from_secs(1);
/// Behind a longer gap a new file begins: nobody wants to see a picture stand still for so long.
const LONGEST_GAP: Duration = Duration::from_secs(60);
/// A write that takes longer is said.
const SLOW: Duration = Duration::from_secs(2);
/// The last picture of a file is shown for so long.
const LAST_SHOWN: Duration = Duration::from_millis(40);
/// Of the newest gaps.
const LISTED_GAPS: usize = 16;
/// Files that wait for what comes late; and for how long.
const WAITING: usize = 8;
const WAITING_TIME: Duration = Duration::from_secs(600);
/// Gaps that are remembered until they are compared, and those that may be filled.
const REMEMBERED: usize = 1_024;
/// The bit rate for the time that is left is that of about so many seconds.
const RATE_TIME: f64 = 30.0;

pub struct Writer {
    shared: Arc<Shared>,
    folder: Arc<Folder>,
    plan: Plan,
    order: Order,
    /// The last one that is of this order.
    last_session: u64,
    /// Of what is in the file.
    session: u64,
    file: Option<Current>,
    /// What is in no file since the last picture that is.
    missing: Option<Gap>,
    /// Why that is.
    why: &'static str,
    /// Something was recorded since it is on: what is missing from now on is a gap.
    has_begun: bool,
    paused: Option<Paused>,
    /// The disk has taken what was written last.
    works: bool,
    /// Why the last keyframe cannot be recorded.
    unreadable: Option<String>,
    backoff: Backoff,
    looked: Option<Instant>,
    pruned: Option<Instant>,
    /// Bytes of all recordings then.
    there: u64,
    rate: Rate,
    /// Of tables from now on.
    columns: Columns,
    /// Files that wait for what comes late, the oldest first.
    waiting: VecDeque<Current>,
    /// Of the next file.
    number: u64,
    /// What was found missing and is not compared, and what may come late.
    guesses: VecDeque<Guess>,
    holes: VecDeque<Hole>,
    /// It was said that not all is compared.
    told_uncompared: bool,
}

struct Paused {
    until: Instant,
    needs: u64,
}

/// The file that is being written.
struct Current {
    number: u64,
    recording: Recording,
    muxer: Muxer,
    /// What the muxer gave and is not written yet, and the rows of its pictures.
    bytes: Vec<u8>,
    rows: Vec<NewRow>,
    /// Of the fragment that is being collected.
    open_rows: Vec<NewRow>,
    /// Of the table, once it has its head.
    columns: Option<Columns>,
    /// None: they cannot be written.
    subtitles: Option<Subtitles>,
    /// The pictures of these, and those of the fragment that is being collected.
    unwritten: Option<Gap>,
    open: Option<Gap>,
    /// By how much its times of capture are ahead of those that pictures come with.
    ahead: Duration,
    begun: Duration,
    last: Duration,
    came: Instant,
    pictures: u64,
    /// Of those that are missing before one of these: how often, and how many.
    gaps: u64,
    missing: u64,
    /// Where pictures may come late: what stands in the table, and what was written last.
    table: Option<Vec<Row>>,
    written: Vec<Present>,
    /// All that there was is known up to then, from the last picture of the file before on.
    compared: Option<Captured>,
    /// Pictures that came late and are written.
    late: u64,
    /// When the file began to wait.
    ended: Option<Instant>,
    /// The table is another one than was written.
    is_mended: bool,
}

/// Why it does not go on now.
enum Trouble {
    Full(u64),
    Disk(&'static str, io::Error),
}

impl Writer {
    pub fn new(shared: Arc<Shared>, folder: Arc<Folder>, plan: Plan) -> Self {
        let columns = plan.columns.clone();
        Self {
            columns,
            shared,
            folder,
            plan,
            order: Order::Rest,
            last_session: 0,
            session: 0,
            file: None,
            missing: None,
            why: "",
            has_begun: false,
            paused: None,
            works: false,
            unreadable: None,
            backoff: Backoff::new(RETRY_MIN, RETRY_MAX),
            looked: None,
            pruned: None,
            there: 0,
            rate: Rate::default(),
            waiting: VecDeque::new(),
            number: 0,
            guesses: VecDeque::new(),
            holes: VecDeque::new(),
            told_uncompared: false,
        }
    }

    pub fn run(mut self) {
        // The pictures that are shown go first; what is to be written can wait for half a minute.
        priority::lower();
        while self.order != Order::Stop {
            let before = self.order;
            (self.order, self.last_session) = self.shared.order(before, self.last_session, self.paused.is_none());
            // That it is off is told when all of it is in files.
            if self.order != before && self.order == Order::Record {
                self.tell();
            }
            match self.order {
                Order::Record => self.record(),
                Order::Rest | Order::Stop => {
                    self.rest();
                    // Of files that wait: none that fails is this one.
                    while self.mend().is_ok_and(|is_some| is_some) {}
                }
            }
        }
        while let Some(file) = self.waiting.pop_front() {
            self.close_waiting(file, Ok(()));
        }
        self.shared.ended();
    }

    fn record(&mut self) {
        let now = Instant::now();
        if self.paused.as_ref().is_some_and(|paused| now < paused.until) {
            return;
        }
        if self.paused.is_some() {
            self.looked = None;
        }
        let worked = self.look(now).and_then(|()| self.take_all()).and_then(|()| self.mend());
        if let Err(trouble) = worked {
            self.pause(trouble);
        }
        self.tell();
    }

    /// Ends the file, with all that waits.
    fn rest(&mut self) {
        // A disk that failed may work by now.
        let is_full = self.paused.as_ref().is_some_and(|paused| paused.needs > 0);
        if !is_full && let Err(trouble) = self.take_all().and_then(|()| self.end()) {
            self.pause(trouble);
        }
        self.shared.close(false);
        let (lost, counted) = self.shared.clear(self.last_session);
        let missing = lost + counted + self.missing.map_or(0, |gap| gap.pictures);
        if missing > 0 && self.has_begun {
            self.remember(Guess { before: None, missing, at: None, file: self.number });
        }
        self.lose(lost);
        (self.paused, self.has_begun, self.works) = (None, false, false);
        self.unreadable = None;
        self.folder.set_rate(&self.plan.label, None);
        self.backoff.reset();
        self.tell();
    }

    fn take_all(&mut self) -> Result<(), Trouble> {
        // While it is on, what comes is of it, whatever was between.
        let last = if self.order == Order::Record { u64::MAX } else { self.last_session };
        while let Some(queued) = self.shared.pop(last) {
            self.take(queued)?;
            if self.file.as_ref().is_some_and(|file| file.bytes.len() >= WRITE) {
                self.write()?;
            }
        }
        if let Some(file) = self.file.as_mut().filter(|file| file.came.elapsed() >= FLUSH_AFTER) {
            file.flush();
        }
        self.write()
    }

    fn take(&mut self, queued: Queued) -> Result<(), Trouble> {
        if queued.session != self.session {
            // It was off in between: that is no gap.
            if let Err(trouble) = self.end() {
                self.shared.put_back(queued);
                return Err(trouble);
            }
            self.lose(0);
            (self.session, self.has_begun) = (queued.session, false);
        }
        let picture = &queued.picture;
        if let Some(gap) = queued.gap {
            let why = if gap.why.is_empty() { "the disk was too slow" } else { gap.why };
            self.why = if self.why.is_empty() { why } else { self.why };
            self.miss(gap);
        }
        if picture.keyframe {
            match Format::of(self.plan.codec, &picture.unit) {
                Ok(format) => {
                    self.unreadable = None;
                    let is_over = self.file.as_ref().is_some_and(|file| self.is_over(file, &format, picture));
                    let ended = if is_over { self.end() } else { Ok(()) };
                    let begun = ended.and_then(|()| match &self.file {
                        None => self.begin(format, picture),
                        Some(_) => Ok(()),
                    });
                    if let Err(trouble) = begun {
                        // It is tried again with the very picture.
                        self.shared.put_back(Queued { gap: None, ..queued });
                        return Err(trouble);
                    }
                }
                Err(error) => {
                    let reason = format!("a keyframe cannot be recorded: {error}");
                    if self.unreadable.as_ref() != Some(&reason) {
                        tracing::warn!("recording of {}: {reason}", self.plan.title);
                    }
                    self.unreadable = Some(reason);
                    self.why = "parameter sets could not be read";
                    self.leave_out(picture);
                    return Ok(());
                }
            }
        }
        let Some(file) = self.file.as_mut().filter(|_| picture.keyframe || self.missing.is_none()) else {
            self.leave_out(picture);
            return Ok(());
        };
        let missing = self.missing.take();
        if let Some(fields) = &queued.fields {
            self.columns.add(fields);
        }
        file.push(picture, queued.fields, missing.map_or(0, |gap| gap.pictures));
        let number = file.number;
        let is_due = file.is_long(&self.plan) || file.has_other_columns(&self.columns);
        if let Some(gap) = missing {
            self.count(gap, picture);
            // Without a time it is not compared, and stays as it is.
            if picture.captured.is_some() {
                let at = gap.captured.map(rfc3339);
                self.remember(Guess { before: picture.captured, missing: gap.pictures, at, file: number });
            }
        }
        (self.has_begun, self.why) = (true, "");
        self.shared.need_keyframe(is_due);
        Ok(())
    }

    /// Whether a keyframe belongs into a new file.
    fn is_over(&self, file: &Current, format: &Format, keyframe: &Picture) -> bool {
        let gap = keyframe.time.saturating_sub(file.last);
        // Within a file all times are of one clock.
        let is_other =
            file.muxer.format() != format || file.has_other_columns(&self.columns) || file.ahead != self.plan.clock().1;
        is_other || gap > LONGEST_GAP || file.is_long(&self.plan)
    }

    fn begin(&mut self, format: Format, first: &Picture) -> Result<(), Trouble> {
        self.check_space()?;
        let (clock, ahead) = self.plan.clock();
        let first = &told(first, ahead);
        let begun = first.captured.unwrap_or_else(now);
        let recording = self.folder.create(begun, &self.plan.label);
        let recording = recording.map_err(|error| Trouble::Disk("cannot begin a file", error))?;
        let subtitles = Some(Subtitles::new(format.size()));
        let (muxer, header) = Muxer::new(format, first, clock);
        tracing::info!(
            "recording {} into {}",
            self.plan.title,
            self.folder.path().join(recording.name.to_string()).display()
        );
        self.number += 1;
        self.file = Some(Current {
            number: self.number,
            recording,
            muxer,
            bytes: header,
            rows: Vec::new(),
            open_rows: Vec::new(),
            columns: None,
            subtitles,
            unwritten: None,
            open: None,
            ahead,
            begun: first.time,
            last: first.time,
            came: Instant::now(),
            pictures: 0,
            gaps: 0,
            missing: 0,
            table: self.plan.mends.then(Vec::new),
            written: Vec::new(),
            compared: self.waiting.back().and_then(Current::last),
            late: 0,
            ended: None,
            is_mended: false,
        });
        // That it can be written is still to be seen.
        self.tell();
        Ok(())
    }

    /// What waits goes to the disk.
    fn write(&mut self) -> Result<(), Trouble> {
        let Some(file) = self.file.as_mut().filter(|file| file.unwritten.is_some()) else { return Ok(()) };
        let (began, length) = (Instant::now(), file.bytes.len());
        let pictures = file.unwritten.map_or(0, |written| written.pictures);
        file.write(&self.columns).map_err(|error| Trouble::Disk("cannot write", error))?;
        let took = began.elapsed();
        self.shared.note(&mem::take(&mut file.written));
        if took >= SLOW {
            let seconds = took.as_secs_f64();
            tracing::warn!(
                "recording of {}: the disk took {seconds:.1} s for {}",
                self.plan.title,
                Bytes(length as u64)
            );
        }
        self.rate.add(length);
        let (bytes, took) = (file.muxer.length(), took.as_secs_f64() * 1e3);
        let lasted = file.last.saturating_sub(file.begun).as_secs_f64();
        self.shared.set_stats(|stats| {
            (stats.bytes, stats.seconds) = (bytes, lasted);
            stats.total_bytes += length as u64;
            stats.pictures += pictures;
            stats.slowest_write_ms = stats.slowest_write_ms.max(took);
        });
        if !self.works {
            (self.works, self.paused) = (true, None);
            self.backoff.reset();
            self.tell();
        }
        self.look_for_file();
        Ok(())
    }

    /// What is written into a file that somebody has deleted would be lost: a new one begins with the next keyframe.
    fn look_for_file(&mut self) {
        let Some(mut file) = self.file.take_if(|file| !file.recording.video.is_there()) else { return };
        let name = file.recording.name.to_string();
        tracing::warn!(
            "recording of {}: {name} was deleted or moved away while it was written: a new file begins with the next \
             keyframe",
            self.plan.title
        );
        // It may lie elsewhere, and can be played there.
        file.flush();
        if let Err(error) = file.write(&self.columns).and_then(|()| file.finish()) {
            tracing::debug!("{name} has no index: {error}");
        }
        self.why = "their file was deleted or moved away";
        self.shared.need_keyframe(true);
        self.tell();
    }

    /// The file gets its index, and another one can begin.
    fn end(&mut self) -> Result<(), Trouble> {
        if let Some(file) = &mut self.file {
            file.flush();
        }
        self.write()?;
        self.look_for_file();
        let Some(mut file) = self.file.take() else { return Ok(()) };
        if !self.waits(&file) {
            return self.close(file, Ok(()));
        }
        file.ended = Some(Instant::now());
        self.waiting.push_back(file);
        if self.waiting.len() > WAITING
            && let Some(oldest) = self.waiting.pop_front()
        {
            self.close_early(oldest);
        }
        Ok(())
    }

    /// The file gets its index, unless what it ends with could not be `cut` off.
    fn close(&mut self, mut file: Current, cut: io::Result<()>) -> Result<(), Trouble> {
        file.settle(self.holes.iter());
        let lasted = file.last.saturating_sub(file.begun).as_secs_f64();
        let (mut recorded, ended) = (file.recorded(), cut.and_then(|()| file.finish()));
        if let Ok(bytes) = ended {
            let index = bytes - mem::replace(&mut recorded.bytes, bytes);
            self.shared.set_stats(|stats| stats.total_bytes += index);
        }
        let Recorded { name, bytes, pictures, gaps, missing, is_compared } = &recorded;
        let told = format!(
            "{name}: {lasted:.1} s, {}, pictures expected {}, present {pictures}, gaps {gaps}{}",
            Bytes(*bytes),
            pictures + missing,
            if *is_compared { "" } else { ", not compared with what was sent" }
        );
        if !is_compared && !mem::replace(&mut self.told_uncompared, true) {
            tracing::warn!(
                "recording of {}: not all of {name} was compared with what was sent: more may be missing than is told",
                self.plan.title
            );
        }
        self.shared.add_file(recorded);
        ended.map_err(|error| Trouble::Disk("cannot write the index of the file, which plays without", error))?;
        tracing::info!("recorded {told}");
        Ok(())
    }

    /// Ends the file as well as that can be, and waits.
    fn pause(&mut self, trouble: Trouble) {
        self.why = match &trouble {
            Trouble::Full(_) => "the disk was full",
            Trouble::Disk(..) => "the disk failed",
        };
        if let Some(file) = &mut self.file {
            file.flush();
        }
        // There is still room for what waits.
        let is_written = matches!(trouble, Trouble::Full(_)) && self.write().is_ok();
        if let Some(mut file) = self.file.take() {
            let cut = if is_written { Ok(()) } else { file.take_back(&mut self.missing) };
            let name = file.recording.name.to_string();
            // With half a fragment behind it no index would be found, and the file not be played.
            let ended = if file.muxer.is_empty() {
                file.recording.discard()
            } else {
                file.settle(self.holes.iter());
                let recorded = file.recorded();
                let ended = cut.and_then(|()| file.finish());
                let bytes = *ended.as_ref().unwrap_or(&recorded.bytes);
                self.shared.add_file(Recorded { bytes, ..recorded });
                ended.map(drop)
            };
            if let Err(error) = ended {
                tracing::debug!("{name} has no index, and plays without: {error}");
            }
        }
        let (reason, needs) = match trouble {
            Trouble::Full(free) => {
                self.backoff.reset();
                let (free, spare) = (Bytes(free), Bytes(self.plan.spare));
                (format!("the disk is full: {free} are free, and {spare} stay free"), self.plan.spare + ROOM)
            }
            Trouble::Disk(what, error) => (format!("{what}: {error}"), 0),
        };
        let is_new = self.shared.stats().reason.as_ref() != Some(&reason);
        self.works = false;
        self.shared.close(needs > 0);
        self.paused = Some(Paused { until: Instant::now() + self.backoff.next_delay(), needs });
        // Not before something can be done with it.
        self.shared.need_keyframe(false);
        if is_new {
            let title = &self.plan.title;
            tracing::warn!("recording of {title} is paused: {reason}; it goes on by itself when that is over");
        }
        self.shared.set_stats(|stats| stats.reason = Some(reason));
        self.tell();
    }

    fn miss(&mut self, gap: Gap) {
        self.missing = Some(self.missing.map_or(gap, |missing| missing.and(gap)));
    }

    /// What is missing at the end, with so many pictures more, is followed by no picture.
    fn lose(&mut self, more: u64) {
        let lost = more + self.missing.take().map_or(0, |gap| gap.pictures - gap.counted);
        let why = mem::take(&mut self.why);
        if lost > 0 {
            tracing::warn!("recording of {}: its last {lost} pictures are missing: {why}", self.plan.title);
            self.shared.set_stats(|stats| {
                stats.gaps += 1;
                stats.missing += lost;
            });
        }
    }

    /// It cannot be decoded without what is missing.
    fn leave_out(&mut self, picture: &Picture) {
        // What comes before the first keyframe is missed by nobody.
        if self.has_begun {
            self.miss(Gap::of(picture));
        }
        // The next one will hardly be another.
        self.shared.need_keyframe(self.unreadable.is_none());
    }

    /// A gap is over with this picture.
    fn count(&mut self, gap: Gap, picture: &Picture) {
        let why = mem::take(&mut self.why);
        let seconds = picture.time.saturating_sub(gap.time).as_secs_f64();
        let ahead = self.plan.clock().1;
        let at = gap.captured.map(|captured| rfc3339(Captured(captured.0 + ahead)));
        tracing::warn!(
            "recording of {}: {} pictures are missing, {seconds:.1} s from {}: {why}",
            self.plan.title,
            gap.pictures,
            at.as_deref().unwrap_or("an unknown time")
        );
        self.shared.set_stats(|stats| {
            stats.gaps += u64::from(gap.counted == 0);
            stats.missing += gap.pictures - gap.counted;
            stats.newest_gaps.push(RecordingGap { at, seconds, pictures: gap.pictures, reason: why.to_owned() });
            let surplus = stats.newest_gaps.len().saturating_sub(LISTED_GAPS);
            stats.newest_gaps.drain(..surplus);
        });
    }

    /// Now and then: whether there is room, and what is to be deleted.
    fn look(&mut self, now: Instant) -> Result<(), Trouble> {
        if self.looked.is_some_and(|looked| now - looked < LOOK_EVERY) {
            return Ok(());
        }
        self.looked = Some(now);
        self.rate.tick(now);
        self.folder.set_rate(&self.plan.label, self.rate.per_second());
        if self.pruned.is_none_or(|pruned| now - pruned >= PRUNE_EVERY) {
            self.pruned = Some(now);
            self.prune();
        }
        self.check_space()
    }

    fn check_space(&mut self) -> Result<(), Trouble> {
        let free = self.folder.free().map_err(|error| Trouble::Disk("the folder cannot be used", error))?;
        let left = self.seconds_left(free);
        self.shared.set_stats(|stats| (stats.free_bytes, stats.seconds_left) = (Some(free), left));
        let needed = self.paused.as_ref().map_or(0, |paused| paused.needs).max(self.plan.spare);
        if free < needed {
            return Err(Trouble::Full(free));
        }
        // A disk that failed works when it has taken something.
        if self.paused.take_if(|paused| paused.needs > 0).is_some() {
            self.shared.close(false);
            self.shared.need_keyframe(true);
        }
        Ok(())
    }

    /// Until the disk is full; None where that is never, or not known.
    fn seconds_left(&self, free: u64) -> Option<f64> {
        self.rate.per_second()?;
        // All streams that are recorded there fill it.
        let rate = self.folder.rate();
        let room = free.saturating_sub(self.plan.spare);
        match self.plan.keep {
            Some(Measure::Bytes(Bytes(most))) if most.saturating_sub(self.there) < room => None,
            _ => Some(room as f64 / rate),
        }
    }

    fn prune(&mut self) {
        self.there = self.folder.bytes().unwrap_or(0);
        match self.folder.prune(self.plan.keep, now()) {
            Ok(removed) => removed.iter().for_each(|name| tracing::info!("deleted {name}, the oldest recording")),
            Err(error) => tracing::warn!("recording: the oldest files cannot be deleted: {error}"),
        }
    }

    /// What has become another: the state, the file, the reason.
    fn tell(&mut self) {
        let is_on = self.order == Order::Record;
        let state = match (&self.paused, &self.file) {
            (Some(_), _) => RecordingState::Paused,
            (None, Some(_)) if self.works => RecordingState::Recording,
            (None, _) if is_on => RecordingState::Waiting,
            (None, _) => RecordingState::Off,
        };
        let file = self.file.as_ref().filter(|_| self.works).map(|file| file.recording.name.to_string());
        let unreadable = &self.unreadable;
        self.shared.set_stats(|stats| {
            if stats.file != file {
                (stats.bytes, stats.seconds) = (0, 0.0);
            }
            (stats.state, stats.file) = (state, file);
            if state != RecordingState::Paused {
                stats.reason.clone_from(unreadable);
            }
        });
        self.shared.tell(Instant::now());
    }
}

impl Current {
    fn push(&mut self, picture: &Picture, fields: Option<Arc<Fields>>, missing: u64) {
        let in_file = told(picture, self.ahead);
        if let Some(fragment) = self.muxer.push(&in_file) {
            self.give(&fragment);
        }
        self.open = Some(self.open.map_or(Gap::of(picture), |gap| gap.and(Gap::of(picture))));
        self.pictures += 1;
        self.gaps += u64::from(missing > 0);
        self.missing += missing;
        if let Some(subtitles) = &mut self.subtitles {
            subtitles.show(picture.time.saturating_sub(self.begun), fields.as_deref());
        }
        let (time, captured, keyframe) = (picture.time, in_file.captured, picture.keyframe);
        let row = Row { time, captured, keyframe, missing, line: self.pictures as u32 };
        self.open_rows.push(NewRow { row, fields });
        (self.last, self.came) = (picture.time.max(self.last), Instant::now());
    }

    fn flush(&mut self) {
        if let Some(fragment) = self.muxer.flush() {
            self.give(&fragment);
        }
    }

    fn give(&mut self, fragment: &[u8]) {
        self.bytes.extend_from_slice(fragment);
        self.rows.append(&mut self.open_rows);
        let open = self.open.take();
        self.unwritten = self.unwritten.map(|gap| open.map_or(gap, |open| gap.and(open))).or(open);
    }

    fn is_long(&self, plan: &Plan) -> bool {
        self.last - self.begun >= plan.split.time || self.muxer.length() >= plan.split.bytes
    }

    /// The table has its head, and something is measured now that has no column in it.
    fn has_other_columns(&self, columns: &Columns) -> bool {
        self.columns.as_ref().is_some_and(|own| own != columns)
    }

    /// `columns`: of the table, where it has no head yet.
    fn write(&mut self, columns: &Columns) -> io::Result<()> {
        let video = &mut self.recording.video;
        video.append(&self.bytes)?;
        video.sync()?;
        self.muxer.written();
        self.bytes.clear();
        self.unwritten = None;
        let mut table = if self.columns.is_none() { head(columns) } else { String::new() };
        let columns = self.columns.get_or_insert_with(|| columns.clone());
        for NewRow { row, fields } in self.rows.drain(..) {
            row.write(row.line.into(), self.begun, &columns.row(fields.as_deref()), &mut table);
            if let Some(all) = &mut self.table {
                self.written.extend(row.captured.map(|captured| Present { captured, time: row.time }));
                all.push(row);
            }
        }
        // Without the table the pictures are worth as much.
        if let Some(times) = &mut self.recording.times
            && times.append(table.as_bytes()).is_err()
        {
            self.recording.times = None;
        }
        self.write_subtitles();
        Ok(())
    }

    /// Likewise.
    fn write_subtitles(&mut self) {
        let text = self.subtitles.as_mut().map(Subtitles::take).unwrap_or_default();
        if text.is_empty() {
            return;
        }
        let recording = &mut self.recording;
        let begun = if recording.subtitles.is_none() { recording.begin_subtitles() } else { Ok(()) };
        let written =
            begun.and_then(|()| recording.subtitles.iter_mut().try_for_each(|file| file.append(text.as_bytes())));
        if written.is_err() {
            (self.subtitles, recording.subtitles) = (None, None);
        }
    }

    /// What is not in the file is left out of it, and missing. A file that cannot be cut plays up to there all the
    /// same.
    fn take_back(&mut self, missing: &mut Option<Gap>) -> io::Result<()> {
        let length = self.muxer.take_back();
        self.bytes.clear();
        for gap in [self.unwritten.take(), self.open.take()].into_iter().flatten() {
            self.pictures -= gap.pictures;
            *missing = Some(missing.map_or(gap, |before| before.and(gap)));
        }
        self.recording.video.cut(length)
    }

    /// What is in it, once all was written that was given.
    fn recorded(&self) -> Recorded {
        let (name, bytes) = (self.recording.name.to_string(), self.muxer.length());
        let pictures = self.pictures + self.late;
        let is_whole = |last: Captured| self.compared >= Some(last);
        let is_compared = self.table.is_none() || self.last().is_some_and(is_whole);
        Recorded { name, bytes, pictures, gaps: self.gaps, missing: self.missing, is_compared }
    }

    /// Gives its size.
    fn finish(mut self) -> io::Result<u64> {
        let end = self.last.saturating_sub(self.begun) + LAST_SHOWN;
        self.subtitles.iter_mut().for_each(|subtitles| subtitles.end(end));
        self.write_subtitles();
        let Self { mut recording, muxer, table, columns, is_mended, begun, .. } = self;
        let length = muxer.length();
        let ending = muxer.finish();
        let length = length + ending.index.len() as u64;
        let video = &mut recording.video;
        video.append(&ending.index)?;
        // The index before what makes it that.
        video.sync()?;
        video.overwrite(ending.cover_at, &ending.cover)?;
        video.sync()?;
        let rows = table.filter(|_| is_mended);
        if let Err(error) = finish_beside(&mut recording, rows.as_deref(), &columns.unwrap_or_default(), begun) {
            // The video is worth as much without.
            tracing::warn!("{}: cannot write the end of its table or its subtitles: {error}", recording.name);
        }
        Ok(length)
    }
}

/// What lies beside a recording is on the disk; its table with these rows, where it is another than was written.
fn finish_beside(
    recording: &mut Recording,
    rows: Option<&[Row]>,
    columns: &Columns,
    begun: Duration,
) -> io::Result<()> {
    for beside in [&mut recording.times, &mut recording.subtitles].into_iter().flatten() {
        beside.sync()?;
    }
    match rows.filter(|_| recording.times.is_some()) {
        Some(rows) => recording.rewrite_times(|before, new| table::rewrite(before, new, rows, columns, begun)),
        None => Ok(()),
    }
}

/// Bytes per second, of the last time.
#[derive(Default)]
struct Rate {
    bytes: u64,
    since: Option<Instant>,
    mean: Option<f64>,
}

impl Rate {
    fn add(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
    }

    fn tick(&mut self, now: Instant) {
        let Some(since) = self.since.replace(now) else {
            self.bytes = 0;
            return;
        };
        let seconds = (now - since).as_secs_f64().max(1e-3);
        let rate = mem::take(&mut self.bytes) as f64 / seconds;
        let weight = (seconds / RATE_TIME).min(1.0);
        self.mean = Some(self.mean.map_or(rate, |mean| mean + (rate - mean) * weight));
    }

    fn per_second(&self) -> Option<f64> {
        self.mean.filter(|mean| *mean > 0.0)
    }
}

/// As it stands in a file whose times are so much ahead.
fn told(picture: &Picture, ahead: Duration) -> Picture {
    Picture { captured: picture.captured.map(|captured| Captured(captured.0 + ahead)), ..picture.clone() }
}

/// By the system's clock.
fn now() -> Captured {
    Captured(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}
