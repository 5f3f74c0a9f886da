//! Recordings without gaps: what they miss is fetched from the vehicle's ring (`/api/ring`) in the background.
//!
//! Every two seconds what is in the files of each stream is compared with what the vehicle sent, by times of capture,
//! and what is missing is fetched, at a pace that the vehicle sets. One thread compares; four fetch, so that what is
//! lost while much is fetched is not forgotten by the ring meanwhile.

use std::collections::{HashMap, HashSet, VecDeque};
use std::io::{self, ErrorKind, Read};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rov_common::api::RingListing;
use rov_common::capture_clock::Captured;
use rov_common::codec::Codec;
use rov_common::recording::{self, CLOSE, Compared, Late, Picture, Present, Run, runs};
use rov_common::ring::{Head, Kept};
use rov_common::sync::lock;
use url::Url;

use crate::recording::Reel;
use crate::whep::{self, Api, Talk, WhepError};
use crate::who::Who;

/// Beside the statistics.
const RING: &str = "ring";
const PICTURES: &str = "ring/pictures";
/// Between two comparisons of a recording; and that is looked whether one has ended.
const EVERY: Duration = Duration::from_secs(2);
const TICK: Duration = Duration::from_millis(200);
/// Threads that fetch: what a server was asked for it holds, whatever its ring leaves out meanwhile.
const FETCH: usize = 4;
/// Runs of missing pictures that wait to be fetched; then the oldest is given up.
const MOST: usize = 1_024;
/// Until a vehicle that did not answer, or was busy, is asked again.
const AGAIN: Duration = Duration::from_secs(1);
/// Until one that gives nothing is asked again.
const REFUSED: Duration = Duration::from_secs(30);
/// What it refuses so often stays missing.
const REFUSALS: u32 = 2;
/// A recording that has ended is given up where the vehicle does not answer for so long, and whatever it does.
const SILENT: Duration = Duration::from_secs(30);
const LONGEST: Duration = Duration::from_secs(600);
/// Whoever waits for longer is told what for.
const SHORT: Duration = Duration::from_millis(500);
/// Until a vehicle that was silent is asked again, and by one at a time: the others are not kept waiting by all that is
/// missing of it.
const AWAY: Duration = Duration::from_secs(5);
/// The end of the program waits no longer for it where nothing is known to be missing.
const HANGS: Duration = Duration::from_secs(2);
/// For the disk to take some of the end of a recording, without which nothing can be compared, while the program waits.
const STUCK: Duration = Duration::from_secs(5);
/// For the disk to take a picture.
const DISK: Duration = Duration::from_secs(10);
/// More pictures than were asked for, which an answer may have.
const SURPLUS: usize = 64;
/// Pictures are written that were captured before others that are written already, by no more: what is that new is
/// compared later.
const UNORDERED: Duration = Duration::from_secs(1);
/// Lists for one comparison.
const PAGES: usize = 8;

/// Of the whole program. Its threads end with it.
#[derive(Default)]
pub struct Mender {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    /// There is something to fetch; something was fetched or settled.
    jobs: Condvar,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    has_begun: bool,
    is_over: bool,
    /// The program ends as soon as all is settled.
    is_waited_for: bool,
    /// Those that are new.
    reels: Vec<Arc<Reel>>,
    /// How many are not settled.
    open: usize,
    jobs: VecDeque<Job>,
    /// What is being fetched, and is not there yet: the beginnings, by recording.
    under_way: HashMap<u64, Vec<Captured>>,
    /// Vehicles that did not answer, and when each was asked last.
    silent: HashMap<Url, Instant>,
}

impl State {
    /// The next that is to be fetched now.
    fn next(&mut self, now: Instant) -> Option<Job> {
        let Self { jobs, silent, .. } = self;
        let mut may_ask =
            |job: &Job| job.reel.vehicle().is_none_or(|(vehicle, _)| may_ask(silent, &vehicle.stats, now, None));
        let due = jobs.iter().enumerate().filter(|(_, job)| job.not_before <= now).find(|(_, job)| may_ask(job));
        let due = due.map(|(at, _)| at)?;
        jobs.remove(due)
    }

    /// What came of asking it.
    fn heard(&mut self, vehicle: &Url, is_silent: bool) {
        if is_silent {
            self.silent.insert(vehicle.clone(), Instant::now());
        } else {
            self.silent.remove(vehicle);
        }
    }
}

/// Whether to ask this vehicle now, of those that were silent: at once where it was not asked since a recording ended.
fn may_ask(silent: &mut HashMap<Url, Instant>, vehicle: &Url, now: Instant, ended: Option<Instant>) -> bool {
    let Some(asked) = silent.get_mut(vehicle) else { return true };
    let may_ask = now.saturating_duration_since(*asked) >= AWAY || ended.is_some_and(|ended| *asked < ended);
    if may_ask {
        *asked = now;
    }
    may_ask
}

struct Job {
    number: u64,
    reel: Arc<Reel>,
    run: u64,
    after: Captured,
    missing: Vec<Captured>,
    not_before: Instant,
    /// How often it could not be fetched although the vehicle answered.
    refusals: u32,
}

impl Mender {
    /// # Errors
    /// Where there is no thread for it.
    pub fn add(&self, reel: Arc<Reel>) -> std::io::Result<()> {
        let mut state = lock(&self.shared.state);
        if !state.has_begun {
            let thread = |name: &str| std::thread::Builder::new().name(name.to_owned());
            let shared = Arc::clone(&self.shared);
            thread("gaps").spawn(move || shared.run())?;
            for _ in 0..FETCH {
                let shared = Arc::clone(&self.shared);
                thread("gaps-fetch").spawn(move || shared.fetch())?;
            }
            state.has_begun = true;
        }
        state.open += 1;
        state.reels.push(reel);
        Ok(())
    }

    /// Waits until all recordings, which have ended, are settled.
    pub fn finish(&self, limit: Duration) {
        let is_open = |state: &mut State| state.open > 0;
        let mut state = lock(&self.shared.state);
        state.is_waited_for = true;
        for limit in [SHORT, limit.saturating_sub(SHORT)] {
            let waited = self.shared.changed.wait_timeout_while(state, limit, is_open);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
            if state.open > 0 && limit == SHORT {
                tracing::info!("recording: what is missing is fetched before the end");
            }
        }
    }
}

#[cfg(test)]
impl Mender {
    /// As if it had not answered just now.
    pub fn be_silent(&self, vehicle: &Url) {
        lock(&self.shared.state).heard(vehicle, true);
    }
}

impl Drop for Mender {
    fn drop(&mut self) {
        lock(&self.shared.state).is_over = true;
        self.shared.jobs.notify_all();
        self.shared.changed.notify_all();
    }
}

/// A recording, as the thread that compares knows it.
struct Watched {
    number: u64,
    reel: Arc<Reel>,
    talk: Option<(Url, String, Talk)>,
    /// When the vehicle last said that it gives nothing, and how often, one after the other.
    refused: Option<Instant>,
    refusals: u32,
    run: Option<u64>,
    compared: Option<Instant>,
    /// Up to there; and what the recorder was told.
    until: Option<Captured>,
    settled: Option<Captured>,
    /// The end is compared, too.
    is_whole: bool,
    /// It is not wanted any more, and when the disk took something of it since; and all of it is in files.
    left: Option<Instant>,
    written: u64,
    ended: Option<Instant>,
    answered: Instant,
    told: HashSet<String>,
}

impl Shared {
    fn run(&self) {
        let (mut all, mut number) = (Vec::<Watched>::new(), 0);
        loop {
            let state = lock(&self.state);
            let waited = self.changed.wait_timeout_while(state, TICK, |state| !state.is_over);
            let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
            if state.is_over {
                return;
            }
            let new = std::mem::take(&mut state.reels);
            drop(state);
            for reel in new {
                number += 1;
                all.push(Watched::new(number, reel));
            }
            // Of all at once: a vehicle that is silent is asked for all their ends once.
            all.iter_mut().for_each(Watched::look_for_end);
            all.retain_mut(|watched| {
                watched.look(self);
                let is_settled = self.settle(watched);
                if is_settled {
                    watched.reel.settle();
                    lock(&self.state).open -= 1;
                    self.changed.notify_all();
                }
                !is_settled
            });
        }
    }

    /// Tells the recorder up to when nothing comes any more; whether that is for ever.
    fn settle(&self, watched: &mut Watched) -> bool {
        let mut state = lock(&self.state);
        let waiting = state.jobs.iter().filter(|job| job.number == watched.number).map(|job| job.after);
        let fetched = state.under_way.get(&watched.number).into_iter().flatten().copied();
        let open = waiting.chain(fetched).min();
        // Where nothing is known to be missing, the end of the program does not wait for a vehicle that is off.
        let is_whole = open.is_none() && watched.reel.recorder.stats().missing == 0;
        let silent = if state.is_waited_for && is_whole { HANGS } else { SILENT };
        let is_late = watched.ended.is_some_and(|ended| {
            ended.elapsed() >= LONGEST || ended.elapsed() >= silent && watched.answered.elapsed() >= silent
        });
        // A slow disk has its time, unless somebody waits.
        let hanging = if state.is_waited_for { STUCK } else { SILENT };
        let hangs = watched.ended.is_none() && watched.left.is_some_and(|left| left.elapsed() >= hanging);
        let is_over = watched.ended.is_some() && (watched.is_whole && open.is_none() || is_late)
            || hangs
            || watched.reel.is_settled();
        if is_over {
            state.jobs.retain(|job| job.number != watched.number);
        }
        drop(state);
        let until = open.into_iter().chain(watched.until).min();
        if let Some(until) = until.filter(|until| watched.settled != Some(*until))
            && watched.reel.recorder.give(Late::Settled(until), Duration::ZERO)
        {
            watched.settled = Some(until);
        }
        is_over
    }

    fn fetch(&self) {
        loop {
            let mut state = lock(&self.state);
            let job = loop {
                if state.is_over {
                    return;
                }
                if let Some(job) = state.next(Instant::now()) {
                    break job;
                }
                let waited = self.jobs.wait_timeout(state, TICK);
                state = waited.unwrap_or_else(PoisonError::into_inner).0;
            };
            let (number, after) = (job.number, job.after);
            state.under_way.entry(number).or_default().push(after);
            drop(state);
            let vehicle = job.reel.vehicle().map(|(vehicle, _)| vehicle.stats);
            let fetched = job.fetch();
            let mut state = lock(&self.state);
            if let Some(vehicle) = vehicle {
                state.heard(&vehicle, matches!(fetched, Fetched::Silent(_)));
            }
            if let Some(under_way) = state.under_way.get_mut(&number) {
                if let Some(at) = under_way.iter().position(|begun| *begun == after) {
                    under_way.swap_remove(at);
                }
                if under_way.is_empty() {
                    state.under_way.remove(&number);
                }
            }
            if let Fetched::Again(job) | Fetched::Silent(job) = fetched {
                state.jobs.push_back(Job { not_before: Instant::now() + AGAIN, ..job });
            }
        }
    }

    fn add_jobs(&self, jobs: impl Iterator<Item = Job>) {
        let mut state = lock(&self.state);
        state.jobs.extend(jobs);
        let surplus = state.jobs.len().saturating_sub(MOST);
        let given_up: Vec<_> = state.jobs.drain(..surplus).collect();
        drop(state);
        self.jobs.notify_all();
        given_up.into_iter().for_each(|job| drop(job.give_up("too many others wait to be fetched")));
    }
}

impl Watched {
    fn new(number: u64, reel: Arc<Reel>) -> Self {
        Self {
            number,
            reel,
            talk: None,
            refused: None,
            refusals: 0,
            run: None,
            compared: None,
            until: None,
            settled: None,
            is_whole: false,
            left: None,
            written: 0,
            ended: None,
            answered: Instant::now(),
            told: HashSet::new(),
        }
    }

    fn look_for_end(&mut self) {
        if self.reel.has_ended() {
            let written = self.reel.recorder.stats().total_bytes;
            if self.left.is_none() || std::mem::replace(&mut self.written, written) != written {
                // A picture that comes is an answer, too: at a tenth of a slow link an outage takes minutes.
                (self.left, self.answered) = (Some(Instant::now()), Instant::now());
            }
        }
        if self.ended.is_none() && self.reel.ended().is_some() {
            self.ended = Some(Instant::now());
        }
    }

    fn look(&mut self, shared: &Shared) {
        let end = self.reel.ended().filter(|_| self.ended.is_some());
        let is_due = self.compared.is_none_or(|compared| compared.elapsed() >= EVERY) || end.is_some();
        if self.is_whole || !is_due || self.ended.is_some() && self.compared.is_some_and(|at| at.elapsed() < TICK) {
            return;
        }
        // Once more at the end.
        if end.is_none() && self.refused.is_some_and(|refused| refused.elapsed() < REFUSED) {
            return;
        }
        self.compared = Some(Instant::now());
        let mut journal = self.reel.recorder.journal();
        journal.sort_by_key(|present| present.captured);
        let Some(to) = reach(&journal, end.is_some()) else {
            self.is_whole = end.is_some();
            return;
        };
        let tail = end.flatten().filter(|tail| *tail > to);
        if to == journal[0].captured && end.is_none() {
            return;
        }
        let Some((vehicle, stream)) = self.reel.vehicle() else { return self.give_up(to, end.is_some()) };
        let of = vehicle.stats.clone();
        if !may_ask(&mut lock(&shared.state).silent, &of, Instant::now(), self.ended) {
            return;
        }
        let compared = self.compare(shared, &journal, tail.unwrap_or(to), (vehicle, &stream), end.is_some());
        lock(&shared.state).heard(&of, matches!(compared, Err(WhepError::Unreachable { .. })));
        match compared {
            Ok(is_taken) => {
                (self.answered, self.refused, self.refusals) = (Instant::now(), None, 0);
                if is_taken {
                    (self.until, self.is_whole) = (Some(to), end.is_some());
                }
            }
            // It has ended.
            Err(WhepError::Closed { .. }) if self.ended.is_some_and(|ended| ended.elapsed() >= HANGS) => {
                self.give_up(to, true);
            }
            // It is asked again.
            Err(WhepError::Unreachable { .. } | WhepError::Closed { .. }) => {}
            // Likewise: it may not be known yet who it is.
            Err(WhepError::OtherServer) if end.is_none() => {}
            Err(WhepError::Refused { status: 429 | 500..=599, .. }) => self.answered = Instant::now(),
            Err(error) => {
                (self.refused, self.refusals) = (Some(Instant::now()), self.refusals + 1);
                self.tell(format!("what is missing cannot be fetched: {}", reason(&error)));
                // It may give it next time, as where it was starting. Files wait for that, so not for ever.
                if self.refusals >= REFUSALS || end.is_some() {
                    self.give_up(to, end.is_some());
                }
            }
        }
    }

    /// Nothing up to there can be compared.
    fn give_up(&mut self, to: Captured, is_end: bool) {
        self.reel.recorder.compared(to);
        (self.until, self.is_whole) = (Some(to), is_end);
    }

    fn tell(&mut self, text: String) {
        if self.told.insert(text.clone()) {
            tracing::warn!("recording of {}: {text}", self.reel.title());
        }
    }

    /// False: the recorder does not take what came of it, and it is done again.
    fn compare(
        &mut self,
        shared: &Shared,
        journal: &[Present],
        to: Captured,
        (vehicle, stream): (Api, &str),
        is_end: bool,
    ) -> Result<bool, WhepError> {
        if self.talk.as_ref().is_none_or(|(of, named, _)| (of, named.as_str()) != (&vehicle.stats, stream)) {
            let url = place(&vehicle, RING, stream);
            self.talk = Some((vehicle.stats, stream.to_owned(), Talk::new(url, vehicle.http)));
        }
        let Some((.., talk)) = &self.talk else { return Ok(false) };
        let (first, last) = (journal[0].captured, journal[journal.len() - 1].captured);
        // The first one is in the list, or the next would be taken for it.
        let listing = list((talk, &vehicle.who), Captured(first.0.saturating_sub(CLOSE)), to)?;
        let is_other = self.run.is_some_and(|run| run != listing.run);
        if !is_other || self.left.is_none() {
            // What has ended does not go on in another.
            self.run = Some(listing.run);
        }
        if is_other {
            self.tell("the vehicle was started again: what was missing before is not known there".to_owned());
            // What it sent since is known, unless its clock of captures was put back.
            let goes_on = listing.kept_from_us > self.until.map(Captured::micros);
            if self.left.is_some() || !goes_on {
                self.reel.recorder.compared(last);
                return Ok(true);
            }
        }
        let compared = compared(journal, &listing, to, is_end);
        if !is_other && compared.from > first && compared.runs.iter().any(|run| run.after.captured < compared.from) {
            self.tell("the vehicle keeps what was sent for less time than it was missing (--ring)".to_owned());
        }
        let jobs: Vec<_> = compared.runs.iter().filter(|run| !run.missing.is_empty()).cloned().collect();
        // Before the pictures.
        if !self.reel.recorder.give(Late::Compared(compared), DISK) {
            return Ok(false);
        }
        self.reel.recorder.compared(to.min(last));
        shared.add_jobs(jobs.into_iter().map(|run| Job {
            number: self.number,
            reel: Arc::clone(&self.reel),
            run: listing.run,
            after: run.after.captured,
            missing: run.missing,
            not_before: Instant::now(),
            refusals: 0,
        }));
        Ok(true)
    }
}

/// Without the address, which has another range each time.
fn reason(error: &WhepError) -> String {
    match error {
        WhepError::Refused { status, reason, .. } => format!("{reason} (HTTP {status})"),
        WhepError::NotWhep { reason, .. } => reason.clone(),
        WhepError::NoLogin { .. } => "the vehicle wants a user name and a password: give --user".to_owned(),
        WhepError::WrongLogin { .. } => "the vehicle refused the user name or the password".to_owned(),
        other => other.to_string(),
    }
}

fn place(vehicle: &Api, path: &str, stream: &str) -> Url {
    let mut url = vehicle.stats.join(path).unwrap_or_else(|_| vehicle.stats.clone());
    if !stream.is_empty() {
        url.query_pairs_mut().append_pair("stream", stream);
    }
    url
}

fn range(mut url: Url, from: Captured, to: Captured) -> Url {
    url.query_pairs_mut().append_pair("from", &from.micros().to_string()).append_pair("to", &to.micros().to_string());
    url
}

/// In several answers, where there are so many.
fn list((talk, who): (&Talk, &Who), from: Captured, to: Captured) -> Result<RingListing, WhepError> {
    let mut all: RingListing = talk.ask_at(&range(talk.url().clone(), from, to), who)?;
    for _ in 1..PAGES {
        if all.until_us >= to.micros() {
            break;
        }
        let next = Captured(Duration::from_micros(all.until_us + 1));
        let more: RingListing = talk.ask_at(&range(talk.url().clone(), next, to), who)?;
        if more.run != all.run {
            return Ok(more);
        }
        all.until_us = more.until_us;
        all.pictures_us.extend(more.pictures_us);
    }
    Ok(all)
}

/// Up to where a recording is compared: to a picture of it, which is no less than [`UNORDERED`] older than the newest
/// until its end.
fn reach(journal: &[Present], is_end: bool) -> Option<Captured> {
    let newest = journal.last()?.captured;
    let is_old = |captured: &Captured| is_end || captured.0 + UNORDERED <= newest.0;
    journal.iter().rev().map(|present| present.captured).find(is_old)
}

/// What is missing, as far as the vehicle knows it.
fn compared(journal: &[Present], listing: &RingListing, to: Captured, is_end: bool) -> Compared {
    let captured = |micros: u64| Captured(Duration::from_micros(micros));
    // What is told has whole microseconds.
    let to = if listing.until_us < to.micros() { captured(listing.until_us) } else { to };
    // Nothing is kept: nothing is known.
    let from = listing.kept_from_us.map_or(to, captured).max(journal[0].captured);
    let is_in = |at: &Captured| at.0 + CLOSE >= from.0;
    let mut all: Vec<_> = listing.pictures_us.iter().map(|micros| captured(*micros)).filter(is_in).collect();
    // They are listed as they were sent.
    all.sort_unstable();
    all.dedup();
    let mut runs = runs(journal, &all);
    // Of what was missing then, a part is forgotten.
    let next = journal.partition_point(|present| present.captured < from);
    if let (Some(after), Some(before)) = (next.checked_sub(1).map(|last| journal[last]), journal.get(next)) {
        let is_known = runs.iter().any(|run| run.after == after);
        if !is_known {
            runs.insert(0, Run { after, before: Some(*before), missing: Vec::new() });
        }
    }
    Compared { from, to, is_end, runs }
}

/// What came of a job; some of it is still to be fetched.
enum Fetched {
    Over,
    Again(Job),
    /// The vehicle did not answer.
    Silent(Job),
}

impl Job {
    fn fetch(mut self) -> Fetched {
        let Some(((vehicle, stream), from, to)) = self.reel.vehicle().and_then(|vehicle| {
            let (from, to) = (self.missing.first()?, self.missing.last()?);
            Some((vehicle, *from, *to))
        }) else {
            return Fetched::Over;
        };
        let url = range(place(&vehicle, PICTURES, &stream), from, to);
        let answer = match whep::ring_pictures(&url, &vehicle.who, &vehicle.http) {
            Ok(answer) => answer,
            Err(WhepError::Unreachable { .. }) => return Fetched::Silent(self),
            // It is busy.
            Err(WhepError::Closed { .. } | WhepError::Refused { status: 429 | 500..=599, .. }) => {
                return Fetched::Again(self);
            }
            Err(error) => return self.refused(&reason(&error)),
        };
        let pictures = self.missing.len();
        let Self { reel, run, missing, .. } = &mut self;
        let expected = (*run, reel.codec);
        let answer = Until(answer, Instant::now() + LONGEST);
        match read(answer, expected, missing, |picture| reel.recorder.give(Late::Picture(picture), DISK)) {
            Ok(_) if self.missing.is_empty() => {
                tracing::debug!("recording of {}: {pictures} missing pictures came", self.reel.title());
                Fetched::Over
            }
            Ok(true) => self.give_up("the vehicle has left them out"),
            Ok(false) => self.refused("the disk did not take them in time"),
            Err(error) if error.kind() == ErrorKind::InvalidData => self.give_up(&error.to_string()),
            Err(error) => {
                tracing::debug!("recording of {}: fetching is broken off: {error}", self.reel.title());
                if self.missing.is_empty() { Fetched::Over } else { Fetched::Again(self) }
            }
        }
    }

    /// Nor is the next attempt the last one.
    fn refused(mut self, why: &str) -> Fetched {
        self.refusals += 1;
        if self.refusals < REFUSALS && !self.reel.is_settled() { Fetched::Again(self) } else { self.give_up(why) }
    }

    fn give_up(self, why: &str) -> Fetched {
        let at = self.missing.first().map(|first| recording::rfc3339(*first)).unwrap_or_default();
        let (title, pictures) = (self.reel.title(), self.missing.len());
        tracing::warn!("recording of {title}: {pictures} pictures from {at} on stay missing: {why}");
        Fetched::Over
    }
}

/// Takes what is missing out of an answer, of this run and codec. False: it is not taken.
fn read(
    mut answer: impl Read,
    (run, codec): (u64, Codec),
    missing: &mut Vec<Captured>,
    mut give: impl FnMut(Picture) -> bool,
) -> io::Result<bool> {
    let head = Head::read(&mut answer)?;
    if head.run != run {
        return Ok(true);
    }
    if head.codec != codec || head.pictures as usize > missing.len() + SURPLUS {
        return Err(io::Error::new(ErrorKind::InvalidData, "the vehicle gave other pictures than were asked for"));
    }
    for _ in 0..head.pictures {
        let Kept { captured, keyframe, unit } = Kept::read(&mut answer)?;
        let Ok(at) = missing.binary_search(&captured) else { continue };
        if !give(Picture { unit, time: Duration::ZERO, captured: Some(captured), keyframe }) {
            return Ok(false);
        }
        missing.remove(at);
    }
    Ok(true)
}

/// Is broken off then, however little comes.
struct Until<R>(R, Instant);

impl<R: Read> Read for Until<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if Instant::now() >= self.1 {
            return Err(ErrorKind::TimedOut.into());
        }
        self.0.read(buffer)
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

    fn listing(kept_from: Option<u64>, until: u64, pictures: &[u64]) -> RingListing {
        let micros = |ms: u64| at(ms).micros();
        RingListing {
            run: 1,
            kept_from_us: kept_from.map(micros),
            until_us: micros(until),
            pictures_us: pictures.iter().map(|ms| micros(*ms)).collect(),
        }
    }

    fn missing(compared: &Compared) -> Vec<(u64, Vec<u64>)> {
        let ms = |captured: Captured| (captured.0 - at(0).0).as_millis() as u64;
        let run = |run: &Run| (ms(run.after.captured), run.missing.iter().map(|captured| ms(*captured)).collect());
        compared.runs.iter().map(run).collect()
    }

    #[test]
    fn what_the_vehicle_sent_and_is_not_there_is_missing() {
        let journal: Vec<_> = [0, 40, 80, 200, 240].map(present).into();
        let all = [0, 40, 80, 120, 160, 200, 240];
        let whole = compared(&journal, &listing(Some(0), 240, &all), at(240), false);
        assert_eq!((whole.from, whole.to, missing(&whole)), (at(0), at(240), vec![(80, vec![120, 160])]));
        let end = [&all[..], &[280, 320]].concat();
        let tail = compared(&journal, &listing(Some(0), 320, &end), at(320), true);
        assert_eq!(missing(&tail)[1], (240, vec![280, 320]));
        assert!(tail.is_end && tail.runs[1].before.is_none());
        // Nanoseconds are not told.
        let last = Present { captured: Captured(at(240).0 + Duration::from_nanos(999)), ..present(240) };
        let finer = [&journal[..4], &[last]].concat();
        assert_eq!(compared(&finer, &listing(Some(0), 240, &all), last.captured, false).to, last.captured);
        // The next comparison begins with such a one, or by RTP a little later; the vehicle left pictures out as well.
        for nanos in [777, 20_000] {
            let first = Present { captured: Captured(at(0).0 + Duration::from_nanos(nanos)), ..present(0) };
            let journal: Vec<_> = std::iter::once(first).chain([400, 433].map(present)).collect();
            let irregular = compared(&journal, &listing(Some(0), 433, &[0, 33, 300, 333, 400, 433]), at(433), false);
            assert_eq!(missing(&irregular), vec![(0, vec![33, 300, 333])]);
        }
    }

    #[test]
    fn what_the_vehicle_has_left_out_is_not_known_and_of_the_rest_a_part_is() {
        let journal: Vec<_> = [0, 40, 200, 240].map(present).into();
        let part = compared(&journal, &listing(Some(120), 240, &[120, 160, 200, 240]), at(240), false);
        assert_eq!((part.from, missing(&part)), (at(120), vec![(40, vec![120, 160])]));
        let none = compared(&journal, &listing(Some(180), 240, &[200, 240]), at(240), false);
        assert_eq!((none.from, missing(&none)), (at(180), vec![(40, vec![])]), "of that a part was guessed");
        let nothing = compared(&journal, &listing(None, 240, &[]), at(240), false);
        assert_eq!(nothing.from, at(240), "nothing is known");
    }

    #[test]
    fn what_was_captured_before_pictures_that_are_written_may_still_come_until_the_end() {
        // The one of 150 ms comes with the next fragment.
        let journal: Vec<_> = [0, 40, 140, 180].map(present).into();
        assert_eq!(reach(&journal, true), Some(at(180)));
        assert_eq!(reach(&journal, false), None);
        let later: Vec<_> = [0, 40, 140, 150, 180, 1_160].map(present).into();
        assert_eq!((reach(&later, false), reach(&[], true)), (Some(at(150)), None), "up to a picture that is there");
    }

    /// Of a vehicle at this port.
    fn job(folder: &tempfile::TempDir, port: u16) -> Job {
        let stats = Url::parse(&format!("http://127.0.0.1:{port}/api/stats")).expect("a URL");
        let vehicle = Some((Api::new(stats, whep::Http::default()), String::new()));
        let reel = Arc::new(Reel::of(folder.path(), vehicle));
        Job { number: 1, reel, run: 1, after: at(0), missing: vec![at(40)], not_before: Instant::now(), refusals: 0 }
    }

    #[test]
    fn a_vehicle_that_is_silent_keeps_no_more_than_one_waiting_and_a_busy_one_is_asked_again_later() {
        let folder = tempfile::TempDir::new().expect("a folder");
        let jobs = [9, 9, 9, 10].map(|port| job(&folder, port)).into();
        let mut state = State { jobs, ..State::default() };
        let silent = Url::parse("http://127.0.0.1:9/api/stats").expect("a URL");
        let port = |job: Option<Job>| job.and_then(|job| job.reel.vehicle()?.0.stats.port());
        state.heard(&silent, true);
        let now = Instant::now();
        assert_eq!([port(state.next(now)), port(state.next(now))], [Some(10), None]);
        assert_eq!([port(state.next(now + AWAY)), port(state.next(now + AWAY))], [Some(9), None]);
        let mut is_asked = |ended: Instant| may_ask(&mut state.silent, &silent, now + AWAY, Some(ended));
        assert_eq!([is_asked(now + AWAY), is_asked(now + AWAY + TICK), is_asked(now)], [false, true, false]);
        state.heard(&silent, false);
        assert_eq!(port(state.next(now)), Some(9), "it answers");
        state.jobs[0].not_before = now + AGAIN;
        assert_eq!([port(state.next(now)), port(state.next(now + AGAIN))], [None, Some(9)]);
    }

    #[test]
    fn what_a_vehicle_refuses_once_is_asked_for_again() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("bound").port();
        let answer = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        std::thread::spawn(move || {
            for mut client in listener.incoming().flatten() {
                let mut lines = io::BufRead::lines(io::BufReader::new(&client));
                while lines.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
                let _ = io::Write::write_all(&mut client, answer);
            }
        });
        let folder = tempfile::TempDir::new().expect("a folder");
        let Fetched::Again(job) = job(&folder, port).fetch() else { panic!("it is given up") };
        assert!(matches!(job.fetch(), Fetched::Over));
    }

    #[test]
    fn a_slow_disk_has_its_time_to_take_the_end_of_a_recording_unless_the_program_waits_for_it() {
        let folder = tempfile::TempDir::new().expect("a folder");
        let shared = Shared::default();
        let mut watched = Watched::new(1, job(&folder, 9).reel);
        let began = Instant::now();
        watched.left = began.checked_sub(HANGS);
        assert!(!shared.settle(&mut watched));
        watched.left = began.checked_sub(SILENT);
        assert!(shared.settle(&mut watched), "it hangs");
        lock(&shared.state).is_waited_for = true;
        watched.left = began.checked_sub(HANGS);
        assert!(!shared.settle(&mut watched), "a slow one takes so long for one write");
        watched.left = began.checked_sub(STUCK);
        assert!(shared.settle(&mut watched));
        // It took something.
        watched.written = 5;
        watched.answered = began.checked_sub(SILENT).expect("a machine that has run");
        watched.reel.end(Instant::now(), None);
        watched.look_for_end();
        assert!(watched.left >= Some(began));
        assert!(watched.answered >= began, "the vehicle still gives what is missing");
    }

    #[test]
    fn a_stream_is_asked_for_by_its_name() {
        let stats = Url::parse("http://10.0.0.2:8080/api/stats").expect("a URL");
        let vehicle = Api::new(stats, whep::Http::default());
        let url = range(place(&vehicle, RING, "bow/stream 1"), at(0), at(1));
        let expected = "http://10.0.0.2:8080/api/ring?stream=bow%2Fstream+1&from=1700000000000000&to=1700000000001000";
        assert_eq!(url.as_str(), expected);
        assert_eq!(place(&vehicle, PICTURES, "").as_str(), "http://10.0.0.2:8080/api/ring/pictures");
    }

    #[test]
    fn a_picture_captured_before_the_one_that_it_follows_is_not_missing() {
        let journal: Vec<_> = [140, 150, 180, 190, 230].map(present).into();
        let listed = listing(Some(140), 230, &[140, 180, 150, 190, 230]);
        assert_eq!(missing(&compared(&journal, &listed, at(230), false)), []);
    }

    #[test]
    fn an_answer_that_is_none_of_what_was_asked_for_or_takes_too_long_is_broken_off() {
        let answer = |pictures: u32, codec: Codec| {
            let kept = Kept::head(at(40), true, 5);
            [&Head { run: 1, codec, pictures }.encode()[..], &kept, &[0, 0, 0, 1, 0x65]].concat()
        };
        let read = |answer: &[u8], end: Duration| {
            let (mut missing, mut given) = (vec![at(40)], 0);
            let answer = Until(answer, Instant::now() + end);
            let read = read(answer, (1, Codec::H264), &mut missing, |_| {
                given += 1;
                true
            });
            (read.map_err(|error| error.kind()), missing.len(), given)
        };
        assert_eq!(read(&answer(1, Codec::H264), LONGEST), (Ok(true), 0, 1));
        assert_eq!(read(&answer(1, Codec::H265), LONGEST), (Err(ErrorKind::InvalidData), 1, 0));
        assert_eq!(read(&answer(u32::MAX, Codec::H264), LONGEST), (Err(ErrorKind::InvalidData), 1, 0));
        assert_eq!(read(&answer(1, Codec::H264), Duration::ZERO), (Err(ErrorKind::TimedOut), 1, 0));
    }
}
