//! `netlab soak`: hours of a robot's life in short. Viewers of every kind come and go, the link breaks in every way, a
//! source dies again and again; what the programs take and what the pilot sees is noted each second, and judged at the
//! end.

mod plot;
mod samples;
mod visitors;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Args;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rov_client::stats::Report;
use rov_tests::process::Process;
use rov_tests::wait;
use rov_tests::watcher::Watcher;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::bench::program;
use crate::figures::Figure;
use crate::lab::{Lab, ROV};
use crate::recorded::{Compared, FEWEST};
use crate::run::{is_stopped, stop_on_signals};
use samples::{Disturbance, PILOT, Record, Sample};
use visitors::Visitors;

const SECOND: Duration = Duration::from_secs(1);
/// Between two disturbances of the link, in seconds; long enough to see that the picture is well again.
const CALM: std::ops::Range<u64> = 12..30;
/// For what is left of visitors to be given back, before the last look at descriptors and threads.
const CLEARING: Duration = Duration::from_secs(40);
const END: Duration = Duration::from_secs(10);
/// The pilot's recording fetches what it misses before it ends.
const LAST_FETCH: Duration = Duration::from_secs(60);
/// The spectator's longest time without a picture: the longest outage, and while it lasts the source may have died.
const SPECTATOR_BACK: Duration = Duration::from_secs(30);
/// The verdict, beside the figures of the matrix.
pub const SUMMARY: &str = "soak.md";

/// What breaks: how the link is while it does, and how many seconds that lasts.
const BREAKS: [(&str, std::ops::Range<u64>); 8] = [
    ("both outage=on", 1..4),
    ("both outage=on", 8..16),
    ("to-topside loss=1%", 5..15),
    ("to-topside loss=5%", 5..15),
    ("both delay=20ms jitter=5ms loss=1%", 5..15),
    ("to-topside reorder=5%/5ms", 5..15),
    ("to-topside duplicate=5%", 5..10),
    ("to-topside rate=1Mbit queue=250ms", 8..15),
];
/// What the link is like in between.
const WELL: &str = "both clear delay=2ms";

#[derive(Args, Debug)]
pub struct SoakArgs {
    /// How long; below ten minutes memory is noted, but not judged
    #[arg(long, value_name = "MINUTES", default_value_t = 30.0, value_parser = minutes)]
    minutes: f64,

    /// Of all chances
    #[arg(long, default_value_t = 1)]
    seed: u64,

    /// Folder for the samples (soak.csv) and the verdict (soak.md), which `netlab report` takes up
    #[arg(long, value_name = "FOLDER", default_value = "target/netlab")]
    keep: PathBuf,

    /// Where the plot is written
    #[arg(long, value_name = "FILE", default_value = "docs/soak.svg")]
    plot: PathBuf,
}

fn minutes(text: &str) -> Result<f64, String> {
    let minutes: f64 = text.parse().map_err(|_| format!("{text:?} is not a number of minutes"))?;
    if (0.5..=1440.0).contains(&minutes) { Ok(minutes) } else { Err("0.5 to 1440 minutes".to_owned()) }
}

/// The programs that stay from the beginning to the end.
struct Residents {
    /// Serves the pilot and the visitors, with the mark in its pictures.
    server: Process,
    /// Its source dies every half minute.
    failing: Process,
    pilot: Process,
    /// Where it writes what it has recorded.
    pilot_stats: PathBuf,
    /// Watches the failing one.
    spectator: Process,
    /// Where it writes what it has shown.
    spectator_stats: PathBuf,
}

impl Residents {
    fn start(lab: &Lab, keep: &Path, [vehicle, surface]: [&Path; 2]) -> Result<Self> {
        let spectator_stats = keep.join("spectator.json");
        let plain =
            |path: &Path| path.to_str().map(str::to_owned).context("the folder for the samples has an odd name");
        let pilot_stats = keep.join("pilot.json");
        let (stats_file, pilot_file) = (&plain(&spectator_stats)?, &plain(&pilot_stats)?);
        let (vehicle, surface) = (plain(vehicle)?, plain(surface)?);
        let record = |folder| ["--record", folder, "--record-split", "2min", "--record-free", "100MB"];
        let (server, client) = (program("rov-server")?, program("rov-client")?);
        let rov = |args: &[&str]| {
            let mut command = lab.rov.command(&server);
            // The user's own server keeps its key.
            command.env_remove("RUST_LOG").env("STATE_DIRECTORY", keep).args(["-q"]).args(args);
            Process::spawn("rov-server", &mut command)
        };
        let topside = |args: &[&str]| {
            let mut command = lab.topside.command(&client);
            command.env_remove("RUST_LOG").args(["--headless", "-q"]).args(args);
            Process::spawn("rov-client", &mut command)
        };
        let dying =
            "videotestsrc is-live=true pattern=ball num-buffers=450 ! video/x-raw,width=320,height=240,framerate=15/1";
        Ok(Self {
            server: rov(&[
                &[
                    "--name",
                    "soak",
                    "--source",
                    "test",
                    "--width",
                    "640",
                    "--height",
                    "360",
                    "--bitrate",
                    "2000",
                    "--transport",
                    "webrtc,rtp,rtsp",
                    "--max-viewers",
                    "8",
                    "--ring",
                    "120s",
                ],
                &record(&vehicle)[..],
            ]
            .concat()),
            failing: rov(&[
                "--name",
                "failing",
                "--pipeline",
                dying,
                "--width",
                "320",
                "--height",
                "240",
                "--fps",
                "15",
                "--transport",
                "webrtc",
                "--signal-port",
                "8081",
                "--rtsp-port",
                "0",
            ]),
            pilot: topside(
                &[&["--auto", "--name", "soak", "--stats-json", pilot_file], &record(&surface)[..]].concat(),
            ),
            pilot_stats,
            spectator: topside(&[
                "--host",
                ROV,
                "--signal-port",
                "8081",
                "--transport",
                "webrtc",
                "--stats-json",
                stats_file,
            ]),
            spectator_stats,
        })
    }

    /// What the spectator has shown, which it writes each second.
    fn spectator_report(&self) -> Option<Report> {
        serde_json::from_slice(&fs::read(&self.spectator_stats).ok()?).ok()
    }

    /// What is wrong with the picture of the source that dies; the link is well.
    fn spectator_verdict(&self) -> Option<String> {
        let report = || self.spectator_report();
        // The file may be read while it is written.
        let moves = wait::within(END, report).and_then(|before| {
            wait::within(END, || report().filter(|report| report.frames_shown > before.frames_shown))
        });
        let Some(Report { longest_gap_ms: gap, .. }) = moves else {
            return Some("the picture of the dying source did not come back".to_owned());
        };
        (gap > SPECTATOR_BACK.as_secs_f64() * 1e3)
            .then(|| format!("the picture of the dying source was away for {:.1} s", gap / 1e3))
    }

    /// What the pilot has recorded, beside what the vehicle has.
    fn recorded(&self, vehicle: &Path, surface: &Path, lasted: Duration) -> Result<Vec<Figure>> {
        let report = fs::read(&self.pilot_stats).context("the pilot has written no statistics")?;
        let report: Report = serde_json::from_slice(&report).context("the pilot's statistics are none")?;
        let found = Compared::of(vehicle, surface)?;
        let mut figures = found.figures(lasted.as_secs_f64() * FEWEST);
        figures.extend(found.told(&report.recording.unwrap_or_default()));
        Ok(figures)
    }

    /// In the order of [`samples::PROGRAMS`].
    fn each(&mut self) -> [&mut Process; 4] {
        [&mut self.server, &mut self.failing, &mut self.pilot, &mut self.spectator]
    }
}

/// The exit code is 1 when the verdict is that something is wrong.
pub fn run(args: &SoakArgs) -> Result<u8> {
    fs::create_dir_all(&args.keep).with_context(|| format!("cannot make the folder {}", args.keep.display()))?;
    let lab = Lab::start(args.seed)?;
    lab.link(WELL)?;
    stop_on_signals();
    // Not in memory, as /tmp may be.
    let recordings = TempDir::new_in(&args.keep).context("cannot make a folder for the recordings")?;
    let [vehicle, surface] = ["vehicle", "surface"].map(|end| recordings.path().join(end));
    let mut residents = Residents::start(&lab, &args.keep, [&vehicle, &surface])?;
    let (runtime, watcher) = lab.topside.enter(|| {
        let runtime = Runtime::new().context("cannot start a runtime")?;
        let watcher = Watcher::start(&runtime, &["--auto", "--name", "soak"]);
        Ok::<_, anyhow::Error>((runtime, watcher))
    })??;
    watcher.wait_for_shots(10);
    eprintln!("soak: {} minutes, or until Ctrl+C; the samples go to {}", args.minutes, args.keep.display());
    let begun = Instant::now();
    let record = live(args, &lab, &mut residents, &watcher)?;
    let lasted = begun.elapsed();
    let mut failures = record.verdict();
    failures.extend(residents.spectator_verdict());
    failures.extend(finish(&mut residents));
    let figures = residents.recorded(&vehicle, &surface, lasted)?;
    let unmet = figures.iter().filter(|figure| figure.is_met() == Some(false));
    let wrong: Vec<_> = unmet.map(|figure| format!("recordings: {figure}")).collect();
    if !wrong.is_empty() {
        let log = recordings.path().join("pilot.log");
        fs::write(&log, residents.pilot.stderr()).with_context(|| format!("cannot write {}", log.display()))?;
        eprintln!("soak: the recordings and what rov-client said are kept in {}", recordings.keep().display());
    }
    failures.extend(wrong);
    drop(watcher);
    drop(runtime);
    write(args, &record, &figures, &failures)?;
    println!("{}", record.summary(&figures, &failures));
    Ok(u8::from(!failures.is_empty()))
}

/// The time that is judged.
fn live(args: &SoakArgs, lab: &Lab, residents: &mut Residents, watcher: &Watcher) -> Result<Record> {
    let mut random = StdRng::seed_from_u64(args.seed);
    let mut visitors = Visitors::new(lab);
    let mut record = Record::default();
    let length = Duration::from_secs_f64(args.minutes * 60.0);
    let (begun, mut next_change) = (Instant::now(), Duration::from_secs(random.random_range(CALM)));
    let mut broken: Option<Disturbance> = None;
    let (mut tick, mut shown) = (0, watcher.shown());
    loop {
        tick += 1;
        std::thread::sleep((begun + SECOND * tick).saturating_duration_since(Instant::now()));
        let now = begun.elapsed();
        let ending = now >= length || is_stopped();
        // At the end the link is well.
        if if ending { broken.is_some() } else { now >= next_change } {
            match broken.take() {
                Some(disturbance) => {
                    lab.link(WELL)?;
                    record.disturbances.push(Disturbance { to: now, ..disturbance });
                    next_change = now + Duration::from_secs(random.random_range(CALM));
                }
                None => {
                    let (link, lasts) = &BREAKS[random.random_range(0..BREAKS.len())];
                    lab.link(link)?;
                    broken = Some(Disturbance { from: now, to: now, link: (*link).to_owned() });
                    next_change = now + Duration::from_secs(random.random_range(lasts.clone()));
                }
            }
        }
        if ending {
            visitors.leave();
        } else {
            visitors.come_and_go(&mut random)?;
        }
        let shots = watcher.shots();
        record.add(Sample::take(now, residents.each(), &shots[shown..], visitors.present()), &shots[shown..], begun);
        shown = shots.len();
        if ending && (now >= length + CLEARING || is_stopped()) {
            record.visits = visitors.visits().to_vec();
            return Ok(record);
        }
        if tick % 60 == 0 {
            eprintln!("soak: {}", record.line());
        }
    }
}

/// Ends the programs as systemd or a user would; what is wrong with that.
fn finish(residents: &mut Residents) -> Vec<String> {
    let mut failures = Vec::new();
    for (process, name) in residents.each().into_iter().zip(samples::PROGRAMS).rev() {
        if !process.is_running() {
            failures.push(format!("{name} had ended by itself:\n{}", process.stderr()));
            continue;
        }
        let code = process.stop(libc::SIGTERM, if name == PILOT { LAST_FETCH } else { END });
        if code != 0 {
            failures.push(format!("{name} ended with code {code}"));
        }
    }
    failures
}

fn write(args: &SoakArgs, record: &Record, recorded: &[Figure], failures: &[String]) -> Result<()> {
    let save =
        |path: &Path, text: String| fs::write(path, text).with_context(|| format!("cannot write {}", path.display()));
    save(&args.keep.join("soak.csv"), record.csv())?;
    save(&args.keep.join(SUMMARY), record.summary(recorded, failures))?;
    save(&args.plot, plot::svg(record)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_break_is_understood() {
        for link in BREAKS.map(|(link, _)| link).iter().chain([&WELL]) {
            crate::spec::link(link).unwrap_or_else(|error| panic!("{link}: {error}"));
        }
    }
}
