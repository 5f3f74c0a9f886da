//! `netlab report` and `netlab row`: runs rows of the matrix, keeps their figures as JSON, and writes them down.

use std::fmt::Write as _;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::Args;
use serde::{Deserialize, Serialize};

use crate::bench::ViewerKind;
use crate::figures::Figure;
use crate::lab::Lab;
use crate::rows::{Conduct, LOSSLESS, ROWS, Row};
use crate::soak::SUMMARY;
use crate::steady::P99;

#[derive(Args, Debug)]
pub struct ReportArgs {
    /// Only this row, with what is kept of the others; may be given several times [default: all]
    #[arg(long, value_name = "ROW")]
    only: Vec<String>,

    /// Leave Chromium out, with what is kept of it
    #[arg(long)]
    no_browser: bool,

    /// Leave rov-client out, with what is kept of it
    #[arg(long, conflicts_with = "no_browser")]
    no_client: bool,

    /// Where the figures are written
    #[arg(long, value_name = "FILE", default_value = "docs/resilience.md")]
    out: PathBuf,

    /// Where the figures of each row are kept
    #[arg(long, value_name = "FOLDER", default_value = "target/netlab")]
    keep: PathBuf,

    #[command(flatten)]
    how: How,
}

#[derive(Args, Debug)]
pub struct RowArgs {
    /// Of the matrix, as loss-5
    name: String,

    /// Chromium instead of rov-client
    #[arg(long)]
    browser: bool,

    /// As the tests run it: shorter, with the limits of a busy machine
    #[arg(long)]
    short: bool,

    #[command(flatten)]
    how: How,
}

#[derive(Args, Debug)]
struct How {
    /// Seconds of the rows without an event [default: 60, with Chromium 30]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(2..=3600))]
    seconds: Option<u64>,

    /// Of the losses and all other chances
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

impl How {
    fn conduct(&self, viewer: ViewerKind, is_short: bool) -> Conduct {
        let seconds = match (viewer, is_short) {
            (_, true) => 4,
            (ViewerKind::Client, false) => 60,
            (ViewerKind::Chromium, false) => 30,
        };
        let seconds = self.seconds.unwrap_or(seconds);
        Conduct { viewer, seed: self.seed, seconds, is_short, lossless_p99: None }
    }
}

/// What is kept of a row.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Kept {
    row: String,
    date: String,
    seed: u64,
    /// Of a row without an event.
    #[serde(default)]
    seconds: Option<u64>,
    figures: Vec<Figure>,
    /// Why it could not be run.
    error: Option<String>,
}

impl Kept {
    fn is_met(&self) -> bool {
        self.error.is_none() && self.figures.iter().all(|figure| figure.is_met() != Some(false))
    }

    fn p99(&self) -> Option<f64> {
        self.figures.iter().find(|figure| figure.name == P99)?.value
    }
}

const VIEWERS: [(ViewerKind, &str); 2] = [(ViewerKind::Client, "rov-client"), (ViewerKind::Chromium, "chromium")];

const SOAK: &str = "
## Soak

Written by `scripts/soak`: viewers of every kind come and go, the link breaks in all the ways above, and the source of
a second server dies twice a minute. The server and the pilot record. What the programs take, and the latency of the
pilot's picture, are noted each second ([plot](soak.svg)).

";

/// Runs what is asked for, and writes all that is known.
pub fn report(args: &ReportArgs) -> Result<u8> {
    for name in &args.only {
        Row::named(name)?;
    }
    fs::create_dir_all(&args.keep).with_context(|| format!("cannot make {}", args.keep.display()))?;
    let crossing = Lab::start(args.how.seed)?.crossing(1000, 1200)?;
    let mut all_met = true;
    for (viewer, viewer_name) in VIEWERS {
        let left_out = match viewer {
            ViewerKind::Client => args.no_client,
            ViewerKind::Chromium => args.no_browser,
        };
        if left_out {
            continue;
        }
        let mut conduct = args.how.conduct(viewer, false);
        for row in ROWS.iter().filter(|row| is_for(row, viewer)) {
            let path = kept_path(&args.keep, viewer_name, row.name);
            if args.only.is_empty() || args.only.iter().any(|only| only == row.name) {
                let kept = measure(row, &conduct);
                print(viewer_name, row, &kept);
                all_met &= viewer == ViewerKind::Chromium || kept.is_met();
                let json = serde_json::to_string_pretty(&kept).context("cannot write the figures as JSON")?;
                fs::write(&path, json).with_context(|| format!("cannot write {}", path.display()))?;
            }
            if row.name == LOSSLESS {
                conduct.lossless_p99 = read(&path)?.and_then(|kept| kept.p99());
            }
        }
    }
    let text = document(&args.keep, &args.how, crossing.map(|time| time.as_secs_f64() * 1e3))?;
    fs::write(&args.out, text).with_context(|| format!("cannot write {}", args.out.display()))?;
    println!("written: {}", args.out.display());
    Ok(u8::from(!all_met))
}

/// Runs one row, and a lossless one before it where it is compared with that.
pub fn row(args: &RowArgs) -> Result<u8> {
    let row = Row::named(&args.name)?;
    let (viewer, viewer_name) = VIEWERS[usize::from(args.browser)];
    if !is_for(row, viewer) {
        bail!("{} is not for browsers", row.name);
    }
    let mut conduct = args.how.conduct(viewer, args.short);
    if row.is_compared() {
        let lossless = measure(Row::named(LOSSLESS)?, &conduct);
        print(viewer_name, Row::named(LOSSLESS)?, &lossless);
        conduct.lossless_p99 = lossless.p99();
    }
    let kept = measure(row, &conduct);
    print(viewer_name, row, &kept);
    Ok(u8::from(!kept.is_met()))
}

fn is_for(row: &Row, viewer: ViewerKind) -> bool {
    viewer == ViewerKind::Client || row.for_browsers
}

/// A row that cannot be run is a result too: the others go on.
fn measure(row: &Row, conduct: &Conduct) -> Kept {
    let run = catch_unwind(AssertUnwindSafe(|| row.run(conduct)));
    let result = run.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
        Err(anyhow::anyhow!("{}", text.unwrap_or("it panicked")))
    });
    let (figures, error) = match result {
        Ok(figures) => (figures, None),
        Err(error) => (Vec::new(), Some(format!("{error:#}"))),
    };
    let seconds = row.is_steady().then_some(conduct.seconds);
    Kept { row: row.name.to_owned(), date: today(), seed: conduct.seed, seconds, figures, error }
}

fn print(viewer: &str, row: &Row, kept: &Kept) {
    println!("{viewer}, {}: {}", row.name, row.condition);
    for figure in &kept.figures {
        println!("    {figure}");
    }
    if let Some(error) = &kept.error {
        println!("    could not be run: {error}");
    }
}

fn kept_path(folder: &Path, viewer: &str, row: &str) -> PathBuf {
    folder.join(format!("{viewer}-{row}.json"))
}

fn read(path: &Path) -> Result<Option<Kept>> {
    match fs::read(path) {
        Ok(text) => {
            let kept = serde_json::from_slice(&text).with_context(|| {
                format!("{} is not what this version writes: delete it, and run the row again", path.display())
            })?;
            Ok(Some(kept))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

/// The document, of what is kept.
fn document(keep: &Path, how: &How, crossing: [f64; 3]) -> Result<String> {
    let mut tables = String::new();
    let mut dates = Vec::new();
    for (viewer, viewer_name) in VIEWERS {
        let title = match viewer {
            ViewerKind::Client => "## rov-client\n\nIn bold what is not met.\n",
            ViewerKind::Chromium => "## Chromium\n\nThe page of the server; for comparison, with no limits of ours.\n",
        };
        writeln!(tables, "\n{title}\n| Condition | Figure | Measured | To reach |\n|---|---|---|---|")?;
        for row in ROWS.iter().filter(|row| is_for(row, viewer)) {
            let kept = read(&kept_path(keep, viewer_name, row.name))?;
            write_row(&mut tables, row, kept.as_ref(), how.conduct(viewer, false).seconds)?;
            dates.extend(kept.map(|kept| kept.date));
        }
    }
    let (first, last) =
        (dates.iter().min().cloned().unwrap_or_default(), dates.iter().max().cloned().unwrap_or_default());
    let date = if first == last { first } else { format!("{first} to {last}") };
    let soak = match fs::read_to_string(keep.join(SUMMARY)) {
        Ok(summary) => format!("{SOAK}{summary}"),
        Err(_) => String::new(),
    };
    let [p50, p99, max] = crossing;
    let seconds = |viewer| how.conduct(viewer, false).seconds;
    Ok(format!(
        "\
# What the picture survives

Written by `scripts/netlab report`, which anyone can run; do not edit it by hand.

Measured {date}. Machine: {}. Seed {}.

## How

Two network namespaces on one machine, `rov` and `topside`, are joined by a link in user space: it takes the Ethernet
frames of a TAP device on one side and gives them to the one on the other, later, not at all, twice or in another
order, as the row says, both ways and by a seeded generator. The link has a delay of 2 ms each way unless the row says
otherwise. Of its own it adds
{p50:.2} ms (median), {p99:.2} ms (99th percentile), {max:.2} ms (longest of 1000), one way.

`rov-server` sends its test picture, 1280x720 at 30 pictures a second; its encoder is asked for 4 Mbit/s, of which
this picture needs three quarters. The viewer finds it by discovery. In each picture is a mark with its number and the
time at which it was drawn. The viewer is rov-client's session and decoder, and reads the mark of each picture where
the window would show it; both ends have the same clock. Rows without an event are measured for {} s, with Chromium
for {} s.

- Latency: from the drawing of the mark to the shown picture, without camera and screen.
- Longest freeze: the longest time between one shown picture and the next.
- Longest pause of the source: between the drawing of one picture and the next, 33 ms on a machine with time to spare.
  A freeze of that length is the machine's, not the link's.
- Corrupt: the mark cannot be read, or the moving bars stand elsewhere in the first slice than in the last; in
  Chromium the mark alone.
- Back: until the first of ten pictures that come without a pause of 200 ms, all drawn after the event.
- Late on the link: by how much more than the row says frames were delayed, as the machine was busy.
- Sent into the link: all that the robot's end sends, retransmissions and repair packets included.
- Rate limit: the queue before it holds what the link carries in 250 ms, and drops what comes when it is full. It
  limits the way of the video; all other impairments are the same both ways. The encoder's bitrate is what it is asked
  for and what it gives (mean of two seconds), whichever is later to follow.
- Age: how old rov-client says that a picture is, beside what its mark says; both ends' clocks are one here, which
  rov-client does not know. Warnings are those of `--max-age`, which is 300 ms.
- Recording at both ends: rov-server and rov-client without a window, both with `--record`. Then the pictures in their
  files are compared by their times of capture, from the client's first picture to its last.
- Killed: by SIGKILL, at random moments; what is lost is from the newest picture that ffmpeg decodes to the signal.
- Another subnet: the pilot's computer has an address there from the same moment on.
{tables}{soak}
## Not measured

The time of the camera and the screen; real radio and powerline links, whose losses have other patterns; several
viewers with different links at once; hardware encoders and decoders; other browsers. Server, viewer and link share
the processors of one machine, so that each delays the others.
",
        machine(),
        how.seed,
        seconds(ViewerKind::Client),
        seconds(ViewerKind::Chromium),
    ))
}

/// Steady rows are measured for `usual` seconds; it is said where one was not.
fn write_row(tables: &mut String, row: &Row, kept: Option<&Kept>, usual: u64) -> std::fmt::Result {
    let Some(kept) = kept else { return writeln!(tables, "| {} | | not run | |", row.condition) };
    if let Some(error) = &kept.error {
        let reason = error.lines().next().unwrap_or_default().replace('|', "/");
        return writeln!(tables, "| {} | | **could not be run: {reason}** | |", row.condition);
    }
    for (at, figure) in kept.figures.iter().enumerate() {
        let condition = match kept.seconds.filter(|seconds| *seconds != usual) {
            _ if at > 0 => String::new(),
            Some(seconds) => format!("{}, for {seconds} s", row.condition),
            None => row.condition.to_owned(),
        };
        let measured = figure.measured();
        let measured = if figure.is_met() == Some(false) { format!("**{measured}**") } else { measured };
        writeln!(tables, "| {condition} | {} | {measured} | {} |", figure.name, figure.to_reach())?;
    }
    Ok(())
}

fn today() -> String {
    let output = Command::new("date").args(["-u", "+%Y-%m-%d"]).output();
    output.map_or_else(
        |_| "on an unknown day".to_owned(),
        |output| String::from_utf8_lossy(&output.stdout).trim().to_owned(),
    )
}

fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let cpu = read("/proc/cpuinfo");
    let model = cpu
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(':'))
        .map_or("unknown", |(_, model)| model.trim());
    let kernel = read("/proc/sys/kernel/osrelease");
    let load = read("/proc/loadavg");
    let load = load.split(' ').nth(2).unwrap_or("unknown");
    let (kernel, gstreamer) = (kernel.trim(), gstreamer::version_string());
    format!("{cores} cores of {model} with a load of {load} (mean of the last 15 minutes), Linux {kernel}, {gstreamer}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(figures: Vec<Figure>, error: Option<&str>) -> Kept {
        let (row, date) = ("loss-1".to_owned(), "2026-01-01".to_owned());
        Kept { row, date, seed: 1, seconds: Some(60), figures, error: error.map(str::to_owned) }
    }

    fn written(kept: Option<&Kept>) -> String {
        let mut text = String::new();
        write_row(&mut text, Row::named("loss-1").unwrap(), kept, 60).unwrap();
        text
    }

    #[test]
    fn a_row_of_the_document_says_what_was_measured_what_is_not_met_and_what_was_not_run() {
        let freeze = Figure::new("longest freeze", 120.0, "ms").at_most(100.0);
        let figures =
            vec![freeze, Figure::new("corrupt pictures", 0.0, "").at_most(0.0), Figure::new("shown", 99.5, "%")];
        let row = kept(figures, None);
        assert!(!row.is_met());
        let table = "\
            | 1 % random loss | longest freeze | **120 ms** | at most 100 ms |\n\
            |  | corrupt pictures | 0 | at most 0 |\n\
            |  | shown | 99.5 % |  |\n";
        assert_eq!(written(Some(&row)), table);
        let longer = Kept { seconds: Some(600), ..row };
        assert!(written(Some(&longer)).starts_with("| 1 % random loss, for 600 s | longest freeze | **120 ms** |"));
        assert_eq!(written(None), "| 1 % random loss | | not run | |\n");
        let failed = kept(Vec::new(), Some("no server\nat all"));
        assert!(!failed.is_met());
        assert_eq!(written(Some(&failed)), "| 1 % random loss | | **could not be run: no server** | |\n");
    }

    #[test]
    fn what_is_kept_is_read_back_and_what_is_not_there_is_no_mistake() {
        let folder = tempfile::TempDir::new().unwrap();
        let row = kept(vec![Figure::new(P99, 12.5, "ms"), Figure::new("back after", None, "ms").at_most(5.0)], None);
        let path = kept_path(folder.path(), "chromium", "loss-1");
        assert_eq!(read(&path).unwrap(), None);
        fs::write(&path, serde_json::to_string(&row).unwrap()).unwrap();
        let back = read(&path).unwrap().unwrap();
        assert_eq!((back.p99(), back.is_met(), back.date), (Some(12.5), false, row.date));
        fs::write(&path, "{}").unwrap();
        assert!(format!("{:#}", read(&path).unwrap_err()).contains("delete it"));
    }
}
