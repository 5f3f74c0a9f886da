//! Measures the project and what others build on GStreamer, on the same machine, content, encoder and settings, in
//! turn: `scripts/bench`. `docs/performance.md` says how, and has the figures.

mod browser;
mod clip;
mod figures;
mod point;
mod roles;
mod run;
mod screen;
mod site;
mod subject;
mod system;
mod table;
mod tally;
mod tap;
mod verdict;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::{Parser, Subcommand};

use crate::clip::Clip;
use crate::point::PointName;
use crate::roles::RoleArgs;
use crate::screen::Screen;
use crate::site::Site;
use crate::subject::{Programs, Scene, Subject};
use crate::table::{Results, Row, compare, write_into};
use crate::verdict::verdict;

/// The gate's limit for the project's p50, in that of plain UDP in the same run.
const GATE: f64 = 1.5;
/// And the least share of the pictures that has to be shown: few pictures are easily quick.
const GATE_SHOWN: f64 = 0.9;

/// Too small for the second stream.
const SMALL_LINK: &str = "to-topside rate=300kbit queue=200ms";

/// Runs from this length on, in seconds, are about whether pictures come later and later.
const LONG: f64 = 120.0;

/// Measures rov-server and rov-client beside what others build on GStreamer.
#[derive(Debug, Parser)]
#[command(name = "scripts/bench", version, max_term_width = 100)]
struct Args {
    #[command(subcommand)]
    role: Option<Role>,

    /// What is encoded; several separated by commas
    #[arg(long, value_enum, value_delimiter = ',', default_value = "720p30")]
    point: Vec<PointName>,

    /// Runs of each; the table has the medians
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    repeat: u32,

    /// Seconds that each run is measured for
    #[arg(long, default_value_t = 5.0, value_parser = seconds)]
    seconds: f64,

    /// These alone, separated by commas [default: all]
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Subject>,

    /// Put an impaired link between the two sides, as "both delay=2ms" or "to-topside loss=1%"; several times for
    /// several settings. Needs root [default: loopback]
    #[arg(long, value_name = "SPEC")]
    impair: Vec<String>,

    /// Write everything that was measured into this file [default: none]
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// Put the tables into this document, between its marks, as docs/performance.md [default: none]
    #[arg(long, value_name = "FILE")]
    write: Option<PathBuf>,

    /// Only compare webrtc with udp: exit code 1 when its median latency is more than 1.5 times as long
    #[arg(long, conflicts_with = "only")]
    gate: bool,
}

#[derive(Debug, Subcommand)]
enum Role {
    /// A part that the benchmark plays itself; it starts these
    #[command(hide = true)]
    Role(RoleArgs),
}

fn main() -> ExitCode {
    let args = Args::parse();
    let result = match &args.role {
        Some(Role::Role(role)) => roles::run(role).map(|()| true),
        None => bench(&args),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::from(2)
        }
    }
}

/// False when something of it failed, or the gate is not met.
fn bench(args: &Args) -> Result<bool> {
    if let Err(error) = system::enter_own_network() {
        eprintln!("{error:#}; measuring on this machine's loopback, whose other traffic counts as ours");
    }
    system::watch_signals();
    let has_clip = args.point.iter().any(|point| point.is_clip());
    let has_interface = args.point.iter().any(|point| point.needs_interface());
    ensure!(
        args.impair.is_empty() || !(has_clip || has_interface),
        "--impair: the points with a clip or two streams are measured on loopback"
    );
    let programs = Programs::find()?;
    let subjects = subjects(args);
    if let Some(file) = &args.write {
        // Not after an hour of measuring.
        for name in &args.point {
            write(file, &section(*name, args), None)?;
        }
    }
    let mut all = Vec::new();
    for name in &args.point {
        let results = measure(*name, &subjects, args, &programs)?;
        println!("{}", results.markdown());
        if let Some(file) = &args.write {
            write(file, &results.name, Some(&results.markdown()))?;
        }
        all.push(results);
    }
    if let Some(file) = &args.json {
        let text = serde_json::to_string_pretty(&all)?;
        std::fs::write(file, text).with_context(|| file.display().to_string())?;
    }
    let rows = || all.iter().flat_map(|results| &results.rows);
    let complete = rows().all(|row| row.failures.is_empty());
    Ok(complete && (!args.gate || rows().filter(|row| row.subject == Subject::Webrtc).all(passes)))
}

/// Puts the table there, or finds out whether it could.
fn write(file: &Path, section: &str, table: Option<&str>) -> Result<()> {
    let what = || file.display().to_string();
    let document = std::fs::read_to_string(file).with_context(what)?;
    let written = write_into(&document, section, table.unwrap_or_default());
    let written = written.with_context(|| format!("{}: it has no line <!-- bench {section} -->", what()))?;
    if table.is_some() {
        std::fs::write(file, written).with_context(what)?;
    }
    Ok(())
}

/// Where its table is in a document: what is measured in another way does not replace what is measured as usual.
fn section(point: PointName, args: &Args) -> String {
    let long = if args.seconds >= LONG { " long" } else { "" };
    let impaired = if args.impair.is_empty() { "" } else { " impaired" };
    format!("{}{long}{impaired}", point.name())
}

fn subjects(args: &Args) -> Vec<Subject> {
    use clap::ValueEnum;
    let mut subjects = match (args.gate, args.only.is_empty()) {
        (true, _) => vec![Subject::Udp, Subject::Webrtc],
        (false, true) => Subject::value_variants().to_vec(),
        (false, false) => args.only.clone(),
    };
    subjects.sort_unstable();
    subjects.dedup();
    subjects
}

fn passes(row: &Row) -> bool {
    let Some(ratio) = row.to_udp else { return false };
    let pictures = &row.median.pictures;
    let (shown, made) = (pictures.shown, pictures.made);
    let passed = ratio <= GATE && shown as f64 >= made as f64 * GATE_SHOWN;
    let verdict = if passed { "passed" } else { "FAILED" };
    println!(
        "gate {verdict}: webrtc takes {ratio:.2} times as long as plain UDP (limit {GATE}) and shows {shown} of {made} \
         pictures"
    );
    passed
}

/// A B C A B C: what changes on the machine in the meantime changes for all.
fn measure(name: PointName, subjects: &[Subject], args: &Args, programs: &Programs) -> Result<Results> {
    let point = name.point();
    let clip = if name.is_clip() { Some(Clip::make(&point, &programs.clips)?) } else { None };
    let subjects: Vec<Subject> = subjects.iter().copied().filter(|subject| subject.takes(name)).collect();
    let mut screen = None;
    if subjects.iter().any(|subject| subject.needs_screen()) {
        screen = Some(Screen::start(point.width, point.height)?);
    }
    let mut runs = vec![(Vec::new(), Vec::new()); subjects.len()];
    for repeat in 1..=args.repeat {
        for (&subject, (runs, failures)) in subjects.iter().zip(&mut runs) {
            ensure!(screen.as_mut().is_none_or(Screen::is_running), "Xvfb has ended");
            let label = format!("{} {} ({repeat} of {})", name.name(), subject.name(), args.repeat);
            let time = Duration::from_secs_f64(args.seconds);
            let site = match !args.impair.is_empty() || subject.is_browser() {
                true => Site::link(&args.impair, u64::from(repeat)),
                false if name.needs_interface() => Site::interface_to(SMALL_LINK),
                false => Ok(Site::Loopback),
            };
            let run = site.and_then(|site| {
                let file = clip.as_ref().map(|clip| clip.file.as_path());
                let scene = Scene { point: &point, clip: file, screen: screen.as_ref(), site: &site };
                run::run(subject, scene, clip.as_ref(), programs, time)
            });
            match run {
                Ok(run) => {
                    eprintln!("{label}: {:.1} ms", run.pictures.latency_ms.p50);
                    runs.push(run);
                }
                Err(error) => {
                    // What the user wants ended is over; the failure of one subject says nothing of the others.
                    system::pause(Duration::ZERO)?;
                    eprintln!("{label}: {error:#}");
                    failures.push(format!("{error:#}"));
                }
            }
        }
    }
    let rows = subjects.into_iter().zip(runs).map(|(subject, (runs, failures))| Row::new(subject, runs, failures));
    let mut rows: Vec<Row> = rows.collect();
    compare(&mut rows);
    // What is to be reached holds for a link that does nothing to the packets.
    let verdict = if args.impair.is_empty() { verdict(name, &rows) } else { Vec::new() };
    Ok(Results {
        name: section(name, args),
        point,
        is_clip: clip.is_some(),
        impair: args.impair.clone(),
        seconds: args.seconds,
        machine: system::machine(),
        date: system::date(),
        rows,
        verdict,
    })
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (1.0..=86_400.0).contains(&seconds) => Ok(seconds),
        _ => Err("give a number of seconds, 1 to 86400".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::run::Run;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn each_subject_is_measured_once_in_a_fixed_order() {
        let only = |text: &str| subjects(&Args::try_parse_from(["bench", "--only", text]).unwrap());
        assert_eq!(only("webrtc,udp,webrtc"), [Subject::Udp, Subject::Webrtc]);
        let gate = Args::try_parse_from(["bench", "--gate"]).unwrap();
        assert_eq!(subjects(&gate), [Subject::Udp, Subject::Webrtc]);
    }

    #[test]
    fn the_gate_takes_neither_what_is_slow_nor_what_leaves_pictures_out() {
        let row = |ratio, shown| {
            let mut row = Row::new(Subject::Webrtc, vec![Run::default()], Vec::new());
            row.to_udp = ratio;
            (row.median.pictures.made, row.median.pictures.shown) = (90, shown);
            row
        };
        assert!(passes(&row(Some(1.4), 89)));
        assert!(!passes(&row(Some(1.6), 90)));
        assert!(!passes(&row(Some(0.5), 9)));
        assert!(!passes(&row(None, 90)));
    }
}
