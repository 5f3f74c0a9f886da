//! Rows in which server and client record: their files are to have the same pictures.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rov_client::stats::RecordingReport;
use rov_tests::process::program;
use rov_tests::recorded::{Row, files, packets, table};
use rov_tests::wait;

use crate::bench::Bench;
use crate::figures::{Figure, Limit};
use crate::rows::Conduct;
use crate::watch::now_us;

/// What happens while both record.
#[derive(Clone, Copy, Debug)]
pub struct Dive {
    /// From a few seconds after the beginning on.
    pub link: &'static str,
    /// Behind that, in seconds: in the full form and in the short one.
    pub outage: Option<(u64, u64)>,
    /// The times of capture are known from the first picture on.
    pub is_timed: bool,
}

pub const DIVE: Dive = Dive { link: "delay=2ms", outage: None, is_timed: true };
const UNTIMED: &str = "at the surface without a time of capture";
const UNCOMPARED: &str = "files not compared, as rov-client tells";

/// Before anything happens: by RTP the time of capture is known by the first sender report.
const CALM: u64 = 8;
/// After it began, a recording is killed within this.
const LONGEST_LIFE_MS: u64 = 3000;
/// For what is fetched at a tenth of the link.
const PATIENCE: Duration = Duration::from_secs(180);
/// Times of capture of one picture that come by different ways may differ by so much.
const SAME_US: u64 = 1000;
/// Of the pictures that the server is asked for, so many each second at least are to be compared.
pub const FEWEST: f64 = 0.9 * 30.0;
/// The recording at the surface reaches so close to its end, in milliseconds.
const END_MS: f64 = 1000.0;

impl Dive {
    pub fn run(&self, bench: &mut Bench, client: &[&str], conduct: &Conduct) -> Result<Vec<Figure>> {
        let mut client = bench.start_recording(client)?;
        let recording = |bench: &Bench| bench.recorded().and_then(|report| report.recording).unwrap_or_default();
        wait::until_true("a recording at the surface", 2 * wait::START, || recording(bench).pictures_present > 30);
        let recorded = Instant::now();
        bench.pass(Duration::from_secs(bench.pick(CALM, 2)))?;
        bench.lab.link(self.link)?;
        bench.pass(Duration::from_secs(conduct.seconds))?;
        if let Some((full, short)) = self.outage {
            bench.lab.link("outage=on")?;
            bench.pass(Duration::from_secs(bench.pick(full, short)))?;
            bench.lab.link("outage=off")?;
        }
        let (begun, mut filled) = (Instant::now(), None);
        if self.outage.is_some() {
            let before = recording(bench).pictures_present;
            wait::within(PATIENCE, || {
                let now = recording(bench);
                filled = Some(begun.elapsed()).filter(|_| now.gaps == 0 && now.pictures_present > before);
                filled.map(|_| ())
            });
        }
        bench.pass(Duration::from_secs(bench.pick(5, 1)))?;
        let (seconds, stopped) = (recorded.elapsed().as_secs_f64(), now_us());
        match client.stop(libc::SIGTERM, PATIENCE) {
            0 => {}
            code => bail!("rov-client ended with code {code}: {}", client.stderr()),
        }
        let told = recording(bench);
        bench.stop_server()?;
        let found = Compared::of(&bench.recordings("vehicle"), &bench.recordings("surface"))?;
        let mut figures = found.figures(seconds * FEWEST);
        let before_end = stopped.saturating_sub(found.last) as f64 / 1e3;
        figures.push(
            Figure::new("the surface's last picture before rov-client's end", before_end, "ms")
                .at_most(END_MS)
                .or_loosely(Limit::AtMost(5.0 * END_MS)),
        );
        if self.outage.is_some() {
            let filled = filled.map(|after| after.as_secs_f64());
            figures.push(Figure::new("filled after the outage's end", filled, "s").at_most(PATIENCE.as_secs_f64()));
        }
        figures.push(Figure::new("fetched", fetched(&client.stderr()) as f64, ""));
        figures.extend(found.told(&told));
        if !self.is_timed {
            // What comes before the first sender report has no time, and its file is not compared whole.
            for figure in figures.iter_mut().filter(|figure| [UNTIMED, UNCOMPARED].contains(&figure.name.as_str())) {
                figure.limit = figure.loose;
            }
        }
        Ok(figures)
    }
}

/// By the lines of rov-client.
fn fetched(log: &str) -> u64 {
    let counts = log.lines().filter_map(|line| line.split_once(" missing pictures were fetched")?.0.rsplit(' ').next());
    counts.filter_map(|count| count.parse::<u64>().ok()).sum()
}

/// rov-server is killed at random moments of its recording; what plays then, and what is lost.
pub fn killed(bench: &mut Bench, conduct: &Conduct) -> Result<Vec<Figure>> {
    let mut random = StdRng::seed_from_u64(conduct.seed);
    let (mut lost, mut damaged) = (Vec::new(), 0);
    let times = bench.pick(50, 3);
    for number in 0..times {
        let folder = bench.recordings(&format!("killed-{number}"));
        bench.start_recording_server(&folder)?;
        let file = wait::until("a recording", wait::START, || {
            let files = if folder.is_dir() { files(&folder) } else { Vec::new() };
            files.into_iter().find(|file| std::fs::metadata(file).is_ok_and(|file| file.len() > 0))
        });
        bench.pass(Duration::from_millis(random.random_range(0..LONGEST_LIFE_MS)))?;
        bench.kill_server();
        let killed = now_us();
        let (rows, played) = (table(&file), decoded(&file));
        damaged += usize::from(played.is_none());
        // Before the first fragment there is nothing to play yet: all is lost then.
        // The table is written behind the pictures.
        let newest = played.and_then(|played| rows.get(played.min(rows.len()).checked_sub(1)?)?.captured);
        let begun = rows.first().and_then(|row| row.captured).or_else(|| written(&file));
        lost.extend(newest.or(begun).map(|from| killed.saturating_sub(from) as f64 / 1e3));
    }
    lost.sort_by(f64::total_cmp);
    let longest = lost.last().copied().filter(|_| lost.len() == times);
    Ok(vec![
        Figure::new("files that play, of those killed", (times - damaged) as f64, "").at_least(times as f64),
        Figure::new("lost, median", lost.get(lost.len() / 2).copied(), "ms"),
        Figure::new("lost, most", longest, "ms").at_most(1000.0).or_loosely(Limit::AtMost(5000.0)),
    ])
}

/// Pictures that ffmpeg decodes; none where it does not play the file. What is cut off at its end it leaves out, or
/// says.
fn decoded(file: &Path) -> Option<usize> {
    let mut command = Command::new(program("ffmpeg", "ffmpeg"));
    command.args(["-v", "quiet", "-nostdin", "-i"]).arg(file);
    command.args(["-f", "null", "-progress", "-", "-"]);
    let output = command.output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let frames = text.lines().rev().find_map(|line| line.strip_prefix("frame=")?.trim().parse().ok());
    frames.filter(|_| output.status.success())
}

/// When the file was begun.
fn written(file: &Path) -> Option<u64> {
    let begun = std::fs::metadata(file).ok()?.created().ok()?;
    Some(begun.duration_since(UNIX_EPOCH).ok()?.as_micros() as u64)
}

/// The recordings of both ends.
pub struct Compared {
    /// Pictures that the vehicle recorded, in the time of the surface's recordings.
    pub vehicle: usize,
    /// Of them, not at the surface, and what is at the surface alone.
    pub missing: usize,
    pub foreign: usize,
    /// Times of capture that two pictures at the surface have.
    pub twice: usize,
    /// Pictures at the surface whose time of capture is not known.
    pub unknown: usize,
    /// Pictures at the surface by its tables, and what these say is missing.
    pub rows: u64,
    pub told_missing: u64,
    /// When the last one at the surface was captured.
    pub last: u64,
    /// By how many those at the surface differ from what ffprobe counts there.
    pub unplayable: u64,
    /// By which the times of capture differ at most, in microseconds.
    pub difference: u64,
}

impl Compared {
    pub fn of(vehicle: &Path, surface: &Path) -> Result<Self> {
        let tables = |folder: &Path| files(folder).iter().flat_map(|file| table(file)).collect::<Vec<_>>();
        let captured = |rows: &[Row]| {
            let mut times: Vec<_> = rows.iter().filter_map(|row| row.captured).collect();
            times.sort_unstable();
            times
        };
        let rows = tables(surface);
        let (sent, here) = (captured(&tables(vehicle)), captured(&rows));
        let (first, last) = here.first().zip(here.last()).context("nothing was recorded at the surface")?;
        let span = first.saturating_sub(SAME_US)..=last + SAME_US;
        let sent: Vec<_> = sent.into_iter().filter(|time| span.contains(time)).collect();
        let nearest = |times: &[u64], time: u64| {
            let at = times.partition_point(|other| *other < time);
            let both = [at.checked_sub(1).map(|at| times[at]), times.get(at).copied()];
            both.into_iter().flatten().map(|other| other.abs_diff(time)).min().unwrap_or(u64::MAX)
        };
        let differences: Vec<_> = sent.iter().map(|time| nearest(&here, *time)).collect();
        let same = differences.iter().filter(|difference| **difference <= SAME_US);
        let played: usize = files(surface).iter().map(|file| packets(file).len()).sum();
        Ok(Self {
            vehicle: sent.len(),
            missing: differences.iter().filter(|difference| **difference > SAME_US).count(),
            foreign: here.iter().filter(|time| nearest(&sent, **time) > SAME_US).count(),
            twice: here.windows(2).filter(|two| two[1] - two[0] <= SAME_US).count(),
            unknown: rows.len() - here.len(),
            rows: rows.len() as u64,
            told_missing: rows.iter().map(|row| row.missing).sum(),
            last: *last,
            unplayable: rows.len().abs_diff(played) as u64,
            difference: same.copied().max().unwrap_or_default(),
        })
    }

    /// Of at least so many pictures.
    pub fn figures(&self, fewest: f64) -> Vec<Figure> {
        let count = |name: &str, count: usize| Figure::new(name, count as f64, "");
        vec![
            count("pictures recorded by the vehicle meanwhile", self.vehicle)
                .at_least(fewest.floor())
                .or_loosely(Limit::AtLeast(1.0)),
            count("of them missing at the surface", self.missing).at_most(0.0),
            count("at the surface alone", self.foreign).at_most(0.0),
            count("at the surface twice", self.twice).at_most(0.0),
            // By RTP, before the first sender report.
            count(UNTIMED, self.unknown).at_most(0.0).or_loosely(Limit::AtMost(300.0)),
            Figure::new("at the surface, other than ffprobe counts", self.unplayable as f64, "").at_most(0.0),
            Figure::new("times of capture differ by at most", self.difference as f64 / 1e3, "ms"),
        ]
    }

    /// What rov-client tells, beside its tables.
    pub fn told(&self, told: &RecordingReport) -> Vec<Figure> {
        let count = |name: &str, count: u64| Figure::new(name, count as f64, "").at_most(0.0);
        let missing = told.pictures_expected.saturating_sub(told.pictures_present);
        vec![
            count("gaps that rov-client tells", told.gaps),
            count("expected by rov-client, less present", missing),
            count("told as present, other than in the tables", told.pictures_present.abs_diff(self.rows)),
            count("told as missing, other than in the tables", missing.abs_diff(self.told_missing)),
            // One that begins without times of capture is none.
            count(UNCOMPARED, told.files_not_compared).or_loosely(Limit::AtMost(1.0)),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_is_what_is_in_the_tables() {
        let found = Compared {
            vehicle: 90,
            missing: 0,
            foreign: 0,
            twice: 0,
            unknown: 0,
            rows: 90,
            told_missing: 0,
            last: 0,
            unplayable: 0,
            difference: 0,
        };
        let wrong = |found: &Compared, report: &RecordingReport| {
            let all = [found.figures(90.0), found.told(report)].concat();
            all.into_iter()
                .filter(|figure| figure.is_met() == Some(false))
                .map(|figure| figure.name)
                .collect::<Vec<_>>()
        };
        let told = RecordingReport { pictures_expected: 90, pictures_present: 90, ..RecordingReport::default() };
        assert_eq!(wrong(&found, &told), [""; 0]);
        let more =
            RecordingReport { pictures_expected: 91, pictures_present: 91, files_not_compared: 1, ..told.clone() };
        let expected = ["told as present, other than in the tables", "files not compared, as rov-client tells"];
        assert_eq!(wrong(&found, &more), expected);
        let twice = Compared { vehicle: 89, twice: 1, unknown: 1, ..found };
        assert_eq!(wrong(&twice, &told).len(), 3);
    }

    #[test]
    fn what_was_fetched_is_summed_up() {
        let log = "12:00:01 INFO 9 missing pictures were fetched\nno\n12:00:02 INFO rov: 21 missing pictures were \
                   fetched, 3 more wait";
        assert_eq!(fetched(log), 30);
    }
}
