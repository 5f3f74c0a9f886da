//! What was seen each second, and what is to be thought of it.

use std::fmt::Write;
use std::time::{Duration, Instant};

use rov_common::units::Resolution;
use rov_tests::process::Process;
use rov_tests::watcher::Shot;

use crate::figures::{Figure, median};

/// In the order in which they are sampled.
pub const PROGRAMS: [&str; 4] = ["rov-server", "rov-server, dying source", PILOT, "rov-client, of the dying source"];
pub const PILOT: &str = "rov-client";

/// Memory is judged from here on: by then every buffer has been used once.
const WARM: Duration = Duration::from_secs(5 * 60);
/// A program takes more or less memory by who visits it: so the trend of such medians is judged, and not one moment
/// against another.
const MEMORY_WINDOW: Duration = Duration::from_secs(60);
const MEMORY_GROWTH: f64 = 1.05;
/// The shortest run in which memory is judged.
const MEMORY_LEAST: Duration = Duration::from_secs(10 * 60);
/// After the link is well again, until the picture has to be.
const RECOVERY: Duration = Duration::from_secs(5);
/// Without a picture while the link is well: who is not the pilot gets a keyframe each two seconds until more goes.
const FROZEN: Duration = Duration::from_secs(3);
/// Half of the pictures of a second are older than this when they are shown, while the link is well: then they are not
/// live.
const LATE: Duration = Duration::from_secs(1);
/// In smaller pictures, of a slow link, the mark cannot be read; nor always in those of few bits, until so long after
/// it.
const FULL: Resolution = Resolution::new(640, 360);
const REGAINED: Duration = Duration::from_secs(20);
/// Descriptors and threads that may come and go at any moment.
const SLACK: usize = 4;

#[derive(Clone, Copy, Debug, Default)]
pub struct Footprint {
    pub resident_kb: u64,
    pub files: usize,
    pub threads: usize,
}

/// One second.
#[derive(Clone, Debug)]
pub struct Sample {
    pub at: Duration,
    /// None of a program that has ended.
    pub programs: [Option<Footprint>; 4],
    /// Mark drawn to shown, of the pictures of this second: 50 and 99 per cent. None when there was no picture.
    pub latency: Option<[Duration; 2]>,
    pub pictures: usize,
    pub visitors: usize,
}

impl Sample {
    pub fn take(at: Duration, programs: [&mut Process; 4], shots: &[Shot], visitors: usize) -> Self {
        let programs = programs.map(|program| {
            let footprint = program.is_running().then(|| program.footprint())?;
            Some(Footprint { resident_kb: footprint.resident_kb, files: footprint.files, threads: footprint.threads })
        });
        let latencies = shots.iter().filter_map(|shot| shot.latency).collect();
        Self { at, programs, latency: quantiles(latencies), pictures: shots.len(), visitors }
    }
}

fn quantiles(mut values: Vec<Duration>) -> Option<[Duration; 2]> {
    values.sort_unstable();
    let last = values.len().checked_sub(1)?;
    Some([0.5, 0.99].map(|share| values[(last as f64 * share) as usize]))
}

/// A time in which the link was not well.
#[derive(Clone, Debug)]
pub struct Disturbance {
    pub from: Duration,
    pub to: Duration,
    pub link: String,
}

#[derive(Default)]
pub struct Record {
    pub samples: Vec<Sample>,
    pub disturbances: Vec<Disturbance>,
    /// When each picture of the pilot was shown.
    shown: Vec<Duration>,
    /// When pictures with a mark that cannot be read were shown.
    unreadable: Vec<Duration>,
    pub visits: Vec<(&'static str, u64)>,
}

impl Record {
    pub fn add(&mut self, sample: Sample, shots: &[Shot], begun: Instant) {
        let at = |shot: &Shot| shot.shown_at.saturating_duration_since(begun);
        self.shown.extend(shots.iter().map(at));
        let unreadable = shots.iter().filter(|shot| shot.frame.is_none() && shot.resolution == FULL);
        self.unreadable.extend(unreadable.map(at));
        self.samples.push(sample);
    }

    /// What is wrong; empty when nothing is.
    pub fn verdict(&self) -> Vec<String> {
        let mut failures = Vec::new();
        for (which, name) in PROGRAMS.iter().enumerate() {
            if self.samples.last().is_some_and(|last| last.programs[which].is_none()) {
                failures.push(format!("{name} ended before its time"));
                continue;
            }
            match self.memory(which) {
                Some((early, late)) if late > early * MEMORY_GROWTH => {
                    failures.push(format!("the memory of {name} grew from {early:.1} to {late:.1} MiB"));
                }
                _ => {}
            }
            if let Some((before, after)) = self.rest(which)
                && (after.files > before.files + SLACK || after.threads > before.threads + SLACK)
            {
                failures.push(format!(
                    "{name} kept descriptors or threads: {before:?} before visitors came, {after:?} after"
                ));
            }
        }
        let slow: Vec<_> = self.disturbances.iter().filter(|d| d.link.contains("rate")).collect();
        let is_coarse = |at: Duration| slow.iter().any(|d| d.from <= at && at < d.to + REGAINED);
        let unreadable: Vec<_> = self.unreadable.iter().filter(|at| !is_coarse(**at)).collect();
        if let Some(first) = unreadable.first() {
            let (count, seconds) = (unreadable.len(), first.as_secs());
            failures.push(format!("{count} pictures with a mark that cannot be read were shown, first at {seconds} s"));
        }
        let late = self.samples.iter().filter(|sample| self.is_well(sample.at));
        let late: Vec<_> = late.filter(|sample| sample.latency.is_some_and(|[p50, _]| p50 > LATE)).collect();
        if let Some(first) = late.first() {
            let seconds = first.at.as_secs();
            failures.push(format!("old pictures were shown for {} s, first at {seconds} s", late.len()));
        }
        for (from, gap) in self.freezes() {
            let before = self.disturbances.iter().rfind(|d| d.to <= from).map_or("none", |d| &d.link);
            failures.push(format!(
                "no picture for {:.1} s at {:.0} s, although the link had been well for {} s (before that: {before})",
                gap.as_secs_f64(),
                from.as_secs_f64(),
                RECOVERY.as_secs()
            ));
        }
        failures
    }

    /// Whether the link had been well long enough all through the second before.
    fn is_well(&self, at: Duration) -> bool {
        let begun = at.saturating_sub(Duration::from_secs(1));
        !self.disturbances.iter().any(|d| d.from < at && begun < d.to + RECOVERY)
    }

    /// Memory in MiB after the warm-up and at the end, while visitors come and go, by the line through the medians of
    /// all minutes (Theil-Sen: its slope is the median of those between any two); none in a run too short for that.
    fn memory(&self, which: usize) -> Option<(f64, f64)> {
        let end = self.samples.iter().rfind(|sample| sample.visitors > 0)?.at;
        if end < MEMORY_LEAST {
            return None;
        }
        let starts = std::iter::successors(Some(WARM), |from| Some(*from + MEMORY_WINDOW));
        let minutes: Vec<_> = starts
            .take_while(|from| *from + MEMORY_WINDOW <= end)
            .filter_map(|from| {
                let window = self.samples.iter().filter(|sample| (from..from + MEMORY_WINDOW).contains(&sample.at));
                let kb = window.filter_map(|sample| Some(sample.programs[which]?.resident_kb as f64));
                Some(((from + MEMORY_WINDOW / 2).as_secs_f64(), median(kb)? / 1024.0))
            })
            .collect();
        let slopes = minutes.iter().enumerate().flat_map(|(i, (from, before))| {
            minutes[i + 1..].iter().map(move |(to, after)| (after - before) / (to - from))
        });
        let slope = median(slopes)?;
        let level = median(minutes.iter().map(|(at, mib)| mib - slope * at))?;
        Some((level + slope * WARM.as_secs_f64(), level + slope * end.as_secs_f64()))
    }

    /// What a program takes without visitors: before the first came, and after the last was forgotten.
    fn rest(&self, which: usize) -> Option<(Footprint, Footprint)> {
        let before = self.samples.iter().take_while(|sample| sample.visitors == 0);
        let before = before.filter_map(|sample| sample.programs[which]).max_by_key(|footprint| footprint.files)?;
        Some((before, self.samples.last().filter(|sample| sample.visitors == 0)?.programs[which]?))
    }

    /// Gaps between pictures while the link had been well long enough: when each began, and how long it was.
    fn freezes(&self) -> Vec<(Duration, Duration)> {
        let end = self.samples.last().map_or(Duration::ZERO, |sample| sample.at);
        let times: Vec<_> = std::iter::once(Duration::ZERO).chain(self.shown.iter().copied()).chain([end]).collect();
        let gaps = times.windows(2).map(|pair| (pair[0], pair[1].saturating_sub(pair[0])));
        // The parts of a gap that lie in well times.
        let well = gaps.flat_map(|(from, gap)| {
            let to = from + gap;
            match self.disturbances.iter().find(|d| d.from < to && from < d.to + RECOVERY) {
                Some(d) => [(from, d.from.saturating_sub(from)), (d.to + RECOVERY, to.saturating_sub(d.to + RECOVERY))],
                None => [(from, gap), (to, Duration::ZERO)],
            }
        });
        well.filter(|(_, gap)| *gap > FROZEN).collect()
    }

    /// The newest sample, for whoever waits.
    pub fn line(&self) -> String {
        let Some(sample) = self.samples.last() else { return String::new() };
        let memory: Vec<_> =
            sample.programs.iter().map(|p| p.map_or(0, |p| p.resident_kb / 1024).to_string()).collect();
        let latency = sample.latency.map_or("no picture".to_owned(), |[p50, _]| format!("{:.1} ms", ms(p50)));
        let minutes = sample.at.as_secs() / 60;
        format!("{minutes} min: {latency}, memory {} MiB, {} visitors", memory.join("/"), sample.visitors)
    }

    /// The samples as a table, one line a second.
    pub fn csv(&self) -> String {
        let mut text = "second,latency p50 ms,latency p99 ms,pictures,visitors".to_owned();
        for name in PROGRAMS.map(|name| name.replace(',', "")) {
            let _ = write!(text, ",{name} kB,{name} fds,{name} threads");
        }
        for sample in &self.samples {
            let latency = sample.latency.map_or(",".to_owned(), |[a, b]| format!("{:.1},{:.1}", ms(a), ms(b)));
            let _ = write!(text, "\n{},{latency},{},{}", sample.at.as_secs(), sample.pictures, sample.visitors);
            for program in sample.programs.map(Option::unwrap_or_default) {
                let _ = write!(text, ",{},{},{}", program.resident_kb, program.files, program.threads);
            }
        }
        text + "\n"
    }

    /// For `docs/resilience.md`.
    pub fn summary(&self, recorded: &[Figure], failures: &[String]) -> String {
        let minutes = self.samples.last().map_or(0.0, |sample| sample.at.as_secs_f64() / 60.0);
        let visits: Vec<_> = self.visits.iter().map(|(name, count)| format!("{name} {count}")).collect();
        let mut text = format!(
            "{minutes:.0} minutes; {} disturbances of the link; visitors: {}.\n\n",
            self.disturbances.len(),
            visits.join(", ")
        );
        text += "| Program | memory after 5 min, at the end, by its trend (MiB) | descriptors before, after | threads \
                 before, after |\n|---|---|---|---|\n";
        for (which, name) in PROGRAMS.iter().enumerate() {
            let memory = self.memory(which).map_or("run too short".to_owned(), |(early, late)| {
                format!("{early:.1}, {late:.1} ({:+.1} %)", (late / early - 1.0) * 100.0)
            });
            let rest = self.rest(which).map_or("- | -".to_owned(), |(a, b)| {
                format!("{}, {} | {}, {}", a.files, b.files, a.threads, b.threads)
            });
            let _ = writeln!(text, "| {name} | {memory} | {rest} |");
        }
        let minute = |from: Duration| {
            let window = self.samples.iter().filter(|s| (from..from + Duration::from_secs(60)).contains(&s.at));
            quantiles(window.filter_map(|sample| Some(sample.latency?[0])).collect()).map_or(0.0, |[p50, _]| ms(p50))
        };
        let last =
            self.samples.last().map_or(Duration::ZERO, |sample| sample.at.saturating_sub(Duration::from_secs(100)));
        let _ = writeln!(
            text,
            "\nPictures shown to the pilot: {}. Latency, median of a minute: {:.1} ms in the first, {:.1} ms in the \
             last with visitors.\n",
            self.shown.len(),
            minute(Duration::ZERO),
            minute(last)
        );
        text += "Recordings of rov-server and rov-client, a file each two minutes and with each change of size: ";
        let told: Vec<_> = recorded.iter().map(ToString::to_string).collect();
        let _ = writeln!(text, "{}.\n", told.join("; "));
        match failures {
            [] => text += "Verdict: well.\n",
            _ => {
                text += "Verdict: **not well**.\n";
                for failure in failures {
                    let _ = writeln!(text, "- {failure}");
                }
            }
        }
        text
    }
}

pub fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    fn record(memory_kb: impl Fn(u64) -> u64, length: u64) -> Record {
        let program = |at| Some(Footprint { resident_kb: memory_kb(at), files: 20, threads: 10 });
        let samples = (1..=length).map(|at| Sample {
            at: Duration::from_secs(at),
            programs: [program(at); 4],
            latency: Some([s(0.01); 2]),
            pictures: 30,
            visitors: usize::from(at > 5 && at + 5 < length),
        });
        let shown = (0..length * 10).map(|tenth| s(tenth as f64 / 10.0)).collect();
        Record { samples: samples.collect(), shown, ..Record::default() }
    }

    #[test]
    fn memory_that_grows_after_the_warm_up_is_a_failure() {
        assert_eq!(record(|_| 50_000, 1200).verdict(), [""; 0]);
        assert_eq!(record(|at| 50_000 + at.min(240) * 100, 1200).verdict(), [""; 0], "growth in the beginning");
        let failures = record(|at| 50_000 + at * 10, 1200).verdict();
        assert!(failures.len() == 4 && failures[0].contains("memory"), "{failures:?}");
        assert_eq!(record(|at| 50_000 + at * 100, 300).verdict(), [""; 0], "too short to say");
        let visited = |at: u64| 50_000 + at * 7919 % 600 / 60 * 500;
        assert_eq!(record(visited, 1800).verdict(), [""; 0], "visitors come and go");
        let failures = record(|at| visited(at) + at * 3, 1800).verdict();
        assert!(failures.len() == 4 && failures[0].contains("memory"), "{failures:?}");
    }

    #[test]
    fn what_is_kept_of_visitors_is_a_failure() {
        let mut record = record(|_| 50_000, 700);
        record.samples.last_mut().unwrap().programs[0].as_mut().unwrap().files = 40;
        let failures = record.verdict();
        assert!(failures.len() == 1 && failures[0].starts_with("rov-server kept"), "{failures:?}");
        record.samples.last_mut().unwrap().programs[0] = None;
        assert_eq!(record.verdict(), ["rov-server ended before its time"]);
    }

    #[test]
    fn old_pictures_count_where_the_link_is_well() {
        let mut record = record(|_| 50_000, 100);
        record.disturbances.push(Disturbance { from: s(20.0), to: s(25.0), link: "both outage".to_owned() });
        for second in 21..=30 {
            record.samples[second - 1].latency = Some([s(1.5); 2]);
        }
        assert_eq!(record.verdict(), [""; 0]);
        record.samples[39].latency = Some([s(1.5); 2]);
        assert_eq!(record.verdict(), ["old pictures were shown for 1 s, first at 40 s"]);
    }

    #[test]
    fn a_gap_counts_only_where_the_link_is_well() {
        let mut record = record(|_| 50_000, 100);
        let without = |record: &mut Record, from: f64, to: f64| record.shown.retain(|at| *at < s(from) || *at > s(to));
        record.disturbances.push(Disturbance { from: s(20.0), to: s(25.0), link: "both outage".to_owned() });
        without(&mut record, 20.0, 29.0);
        assert_eq!(record.freezes(), []);
        without(&mut record, 20.0, 35.0);
        assert_eq!(record.freezes().len(), 1, "5 s after the link was back");
        without(&mut record, 60.0, 65.0);
        assert_eq!(record.freezes().len(), 2);
        record.shown.retain(|at| *at < s(90.0));
        assert_eq!(record.freezes().len(), 3, "none up to the end");
    }
}
