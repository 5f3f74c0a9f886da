//! Rows in which something happens, and the picture comes back.

use std::time::Duration;

use anyhow::{Context, Result};

use crate::bench::{Bench, FPS, Snapshot, ViewerKind};
use crate::figures::{Figure, Limit};
use crate::rows::{Conduct, NEW_SESSIONS};
use crate::seen::Span;
use crate::watch::now_us;

/// The encoder's bitrate below the link's, the latency back, and the former bitrate when the limit is gone.
pub fn rate(bench: &mut Bench) -> Result<Vec<Figure>> {
    const LINK_KBPS: f64 = 2000.0;
    let before = bench.snapshot()?;
    let (former_target, former) = (target_kbps(&before), encoded_kbps(&before));
    let limited_for = bench.pick(20, 6);
    let limited = Phase::run(bench, "to-topside rate=2Mbit queue=250ms", limited_for, |now| {
        target_kbps(now).max(encoded_kbps(now)) <= LINK_KBPS
    })?;
    let free_for = bench.pick(25, 6);
    let free = Phase::run(bench, "to-topside rate=none", free_for, |now| {
        target_kbps(now) >= 0.9 * former_target && encoded_kbps(now) >= 0.9 * former
    })?;
    let is_short = bench.is_short;
    let seen = bench.written()?;
    let (during, after) = (Span::of(seen, limited.from, limited.to), Span::of(seen, free.from, free.to));
    let back = Figure::new(
        "all pictures younger than 150 ms after",
        during.settled_below_ms(Duration::from_millis(150)),
        "ms",
    );
    let regained = Figure::new("90 % of the former bitrate after", free.reached, "ms").at_most(20_000.0);
    Ok(vec![
        Figure::new("encoder below the limit after", limited.reached, "ms")
            .at_most(3000.0)
            .or_loosely(Limit::AtMost(5900.0)),
        back.at_most(5000.0).or_loosely(Limit::AtMost(5900.0)),
        // The short form ends before; that it rises is enough.
        if is_short {
            Figure::new("bitrate at the end", target_kbps(&free.last), "kbit/s").at_least(target_kbps(&limited.last))
        } else {
            regained
        },
        Figure::new("pictures shown while limited", 100.0 * during.shown_share(FPS), "%"),
        Figure::new("longest freeze while limited", during.longest_freeze_ms(), "ms"),
        Figure::new("picture moving again when the limit is gone, after", after.moving_after_ms(), "ms"),
        Figure::new("sent into the link while limited", limited.link_mbps, "Mbit/s"),
        Figure::new("corrupt pictures", (during.corrupt() + after.corrupt()) as f64, ""),
        // At the moment when its rate falls, x264 leaves a slice as it was for a picture or three, in the vehicle's own
        // recording too: what stands for longer is not that.
        Figure::new(
            "longest time for which a part of the picture stood",
            during.longest_damage_ms().max(after.longest_damage_ms()),
            "ms",
        )
        .at_most(150.0)
        .or_loosely(Limit::AtMost(300.0)),
    ])
}

/// What the encoder was asked for.
fn target_kbps(snapshot: &Snapshot) -> f64 {
    snapshot.stats.streams.first().map_or(0.0, |stream| f64::from(stream.target_bitrate_kbps))
}

/// What it gave, mean of two seconds. The test picture needs less than what it is asked for.
fn encoded_kbps(snapshot: &Snapshot) -> f64 {
    snapshot.stats.streams.first().map_or(0.0, |stream| stream.bitrate_kbps)
}

/// A time in which the link is what it is.
struct Phase {
    from: u64,
    to: u64,
    /// Milliseconds until the encoder's bitrate was good.
    reached: Option<f64>,
    last: Snapshot,
    link_mbps: f64,
}

impl Phase {
    fn run(bench: &mut Bench, link: &str, seconds: u64, is_good: impl Fn(&Snapshot) -> bool) -> Result<Self> {
        let first = bench.snapshot()?;
        bench.lab.link(link)?;
        let (from, mut reached, mut last) = (now_us(), None, first.clone());
        let to = from + seconds * 1_000_000;
        while last.at < to {
            bench.pass(Duration::from_millis(100))?;
            last = bench.snapshot()?;
            if is_good(&last) {
                reached.get_or_insert((last.at - from) as f64 / 1e3);
            }
        }
        let link_mbps = (last.link_bytes - first.link_bytes) as f64 * 8.0 / (last.at - first.at) as f64;
        Ok(Self { from, to, reached, last, link_mbps })
    }
}

/// The same pictures with a recording on the vehicle and without, in turns, so that what changes by itself touches both.
pub fn recording_in_turns(bench: &mut Bench, _: &Conduct) -> Result<Vec<Figure>> {
    let folder = bench.recordings("vehicle");
    bench.start_recording_server(&folder)?;
    bench.start_viewer(&[])?;
    let (pairs, seconds) = bench.pick((30, 8), (1, 2));
    // Of both, the times and what the server took of the processor in them, in milliseconds.
    let mut turns: [Vec<(u64, u64)>; 2] = Default::default();
    let mut cpu_ms = [0.0; 2];
    for turn in (0..pairs).flat_map(|_| [0, 1]) {
        bench.set_recording(turn == 1)?;
        // A file begins with a keyframe, which is not of this.
        bench.pass(Duration::from_secs(1))?;
        let (from, cpu) = (now_us(), bench.server_cpu_ms()?);
        bench.pass(Duration::from_secs(seconds))?;
        cpu_ms[turn] += bench.server_cpu_ms()? - cpu;
        turns[turn].push((from, now_us()));
    }
    let files = rov_tests::recorded::files(&folder).len();
    let seen = bench.written()?;
    let latency = |turn: usize, share: f64| {
        let spans = turns[turn].iter().map(|(from, to)| Span::of(seen, *from, *to));
        let mut all: Vec<f64> = spans.flat_map(|span| span.latencies().collect::<Vec<_>>()).map(|one| one.1).collect();
        all.sort_by(f64::total_cmp);
        let last = all.len().checked_sub(1)?;
        Some(all[(last as f64 * share).round() as usize])
    };
    let more = |share: f64| latency(1, share).zip(latency(0, share)).map(|(with, without)| with - without);
    let took = f64::from(pairs) * seconds as f64;
    Ok(vec![
        Figure::new("latency without a recording, median", latency(0, 0.5), "ms"),
        Figure::new("latency without a recording, 99th percentile", latency(0, 0.99), "ms"),
        Figure::new("more with one, median", more(0.5), "ms").at_most(0.5).or_loosely(Limit::AtMost(2000.0)),
        Figure::new("more with one, 99th percentile", more(0.99), "ms").at_most(0.5).or_loosely(Limit::AtMost(2000.0)),
        Figure::new("CPU of the server without one", cpu_ms[0] / took, "ms/s"),
        Figure::new("CPU of the server, more with one", (cpu_ms[1] - cpu_ms[0]) / took, "ms/s")
            .at_most(20.0)
            .or_loosely(Limit::AtMost(2000.0)),
        Figure::new("files", files as f64, "").at_least(f64::from(pairs)),
    ])
}

/// The warning that the picture is late, and its end.
pub fn late(bench: &mut Bench) -> Result<Vec<Figure>> {
    let from = now_us();
    bench.lab.link("to-topside rate=2Mbit queue=2s")?;
    let (limited, free) = bench.pick((20, 10), (8, 5));
    bench.pass(Duration::from_secs(limited))?;
    bench.lab.link("to-topside rate=none")?;
    bench.pass(Duration::from_secs(free))?;
    let seen = bench.written()?;
    let span = Span::of(seen, from, now_us());
    let first = span.first_older_than(MAX_AGE).context("no picture was late")?;
    // Also a picture that stands is late.
    let young = span.settled_below_ms(MAX_AGE).map(|after| from + (after * 1e3) as u64);
    let oldest = span.latency_ms(1.0);
    // It may stand already, as the picture before that one stood.
    let stands = bench.warned().iter().rfind(|(at, _)| *at <= first).filter(|(_, is_late)| *is_late).map(|_| first);
    let raised = bench.warned().iter().find(|(at, is_late)| *is_late && *at >= first).map(|(at, _)| *at);
    let raised = stands.or(raised);
    let ended = bench.warned().last().filter(|(_, is_late)| !is_late).map(|(at, _)| *at);
    let ms = |from: Option<u64>, to: Option<u64>| Some((to? as f64 - from? as f64) / 1e3);
    Ok(vec![
        Figure::new("warning after the first picture older than 300 ms", ms(Some(first), raised), "ms")
            .at_most(200.0)
            .or_loosely(Limit::AtMost(2000.0)),
        Figure::new("warning over after the pictures are young again", ms(young, ended), "ms")
            .at_most(500.0)
            .or_loosely(Limit::AtMost(3000.0)),
        Figure::new("oldest picture", oldest, "ms").at_least(1500.0).or_loosely(Limit::AtLeast(300.0)),
    ])
}

pub fn short_outage(bench: &mut Bench) -> Result<Vec<Figure>> {
    let time = bench.pick(2000, 1000);
    let mut figures = outage(bench, Duration::from_millis(time), 500.0, Limit::AtMost(3000.0))?;
    // ICE outlives it: no new negotiation.
    for figure in figures.iter_mut().filter(|figure| figure.name == NEW_SESSIONS) {
        *figure = figure.clone().at_most(0.0);
    }
    Ok(figures)
}

pub fn long_outage(bench: &mut Bench) -> Result<Vec<Figure>> {
    // Both ends keep a session for ten seconds: the short form is long enough for it to be given up.
    let time = bench.pick(60, 13);
    let mut figures = outage(bench, Duration::from_secs(time), 3000.0, Limit::AtMost(12_000.0))?;
    for figure in figures.iter_mut().filter(|figure| figure.name == NEW_SESSIONS) {
        *figure = figure.clone().or_loosely(Limit::AtLeast(1.0));
    }
    Ok(figures)
}

fn outage(bench: &mut Bench, time: Duration, limit: f64, loose: Limit) -> Result<Vec<Figure>> {
    let before = bench.snapshot()?;
    bench.lab.link("outage=on")?;
    bench.pass(time)?;
    bench.lab.link("outage=off")?;
    let figures = back(bench, "back after", before, now_us())?;
    Ok(with_limit(figures, limit, loose))
}

pub fn server_killed(bench: &mut Bench) -> Result<Vec<Figure>> {
    let before = bench.snapshot()?;
    bench.kill_server();
    let pause = bench.pick(5, 2);
    bench.pass(Duration::from_secs(pause))?;
    let listens = bench.start_server()?;
    let figures = back(bench, "back after it listens", before, listens)?;
    // By ICE alone the loss would be noticed after ten seconds.
    Ok(with_limit(figures, 3000.0, Limit::AtMost(6000.0)))
}

pub fn other_subnet(bench: &mut Bench) -> Result<Vec<Figure>> {
    let before = bench.snapshot()?;
    let moved = bench.move_to_other_subnet()?;
    let figures = back(bench, "back after", before, moved)?;
    // As with a server that was killed.
    Ok(with_limit(figures, 5000.0, Limit::AtMost(9000.0)))
}

pub fn camera_dies(bench: &mut Bench) -> Result<Vec<Figure>> {
    let before = bench.snapshot()?;
    let sessions = before.report.sessions;
    bench.kill_camera();
    bench.pass(Duration::from_secs(3))?;
    let listens = bench.start_camera()?;
    let mut figures =
        with_limit(back(bench, "back after the camera", before, listens)?, 2000.0, Limit::AtMost(12_000.0));
    if bench.viewer == ViewerKind::Client {
        let renewed = bench.snapshot()?.report.sessions.saturating_sub(sessions);
        figures.retain(|figure| figure.name != NEW_SESSIONS);
        figures.push(Figure::new(NEW_SESSIONS, renewed as f64, "").at_most(0.0));
    }
    Ok(figures)
}

/// rov-client's own limit.
const MAX_AGE: Duration = Duration::from_millis(300);
/// The picture is waited for so long.
const PATIENCE: Duration = Duration::from_secs(30);

/// From `from` to when the picture moves again; the first figure is that.
fn back(bench: &mut Bench, name: &str, before: Snapshot, from: u64) -> Result<Vec<Figure>> {
    let back = bench.wait_until_moving(from, PATIENCE)?;
    // For what comes right behind.
    bench.pass(Duration::from_secs(1))?;
    let corrupt = Span::of(bench.written()?, before.at, now_us()).corrupt();
    let report = bench.snapshot()?.report;
    let mut figures =
        vec![Figure::new(name, back, "ms"), Figure::new("corrupt pictures", corrupt as f64, "").at_most(0.0)];
    if bench.viewer == ViewerKind::Client {
        figures.push(Figure::new(NEW_SESSIONS, (report.sessions - before.report.sessions) as f64, ""));
    }
    Ok(figures)
}

fn with_limit(mut figures: Vec<Figure>, limit: f64, loose: Limit) -> Vec<Figure> {
    if let Some(first) = figures.first_mut() {
        *first = first.clone().at_most(limit).or_loosely(loose);
    }
    figures
}
