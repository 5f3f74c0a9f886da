//! One run of one subject, from its start to its figures.

use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Result};
use rov_bench::clock;
use rov_client::stats::Report;
use rov_tests::process::Process;
use serde::Serialize;

use crate::browser::COVERED_PATCHES;
use crate::clip::Clip;
use crate::figures::{Pictures, Shot, Stage, delivery, pictures, worst};
use crate::screen::Watch;
use crate::subject::{Programs, Running, Scene, Subject};
use crate::system::{pause, usage, wait_for};
use crate::tap::Tap;

const FIRST_PICTURE: Duration = Duration::from_secs(30);
/// Until rate control and connections have settled.
const SETTLE: Duration = Duration::from_secs(1);

/// The figures of a run.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Run {
    #[serde(flatten)]
    pub pictures: Pictures,
    /// From the start of the client, milliseconds; none where the client must be there first.
    pub first_picture_ms: Option<f64>,
    pub server: Cost,
    /// Of rov-server before there was a client.
    pub idle_cpu_ms_per_s: Option<f64>,
    /// Of all of them.
    pub client: Option<Cost>,
    /// Of the X server that shows the client's window.
    pub x_server: Option<Cost>,
    /// By loopback, with the headers of IP and Ethernet, both directions.
    pub wire_mbps: f64,
    /// Of rov-server: from capture to encoded, mean, milliseconds.
    pub encode_ms: Option<f64>,
}

/// Of a process and what it has started.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Cost {
    /// Milliseconds of processor time per second.
    pub cpu_ms_per_s: f64,
    pub memory_mib: f64,
}

impl Cost {
    fn plus(self, other: Self) -> Self {
        Self { cpu_ms_per_s: self.cpu_ms_per_s + other.cpu_ms_per_s, memory_mib: self.memory_mib + other.memory_mib }
    }
}

/// The process's output, or the screen.
enum Eyes {
    Process,
    Screen(Watch),
}

impl Eyes {
    fn shots(&self, running: &Running) -> Vec<Shot> {
        match self {
            Self::Process => running.readers()[0].stdout().lines().filter_map(Shot::parse).collect(),
            Self::Screen(watch) => watch.shots(),
        }
    }
}

/// Runs it for so long after its first picture and some time to settle.
pub fn run(subject: Subject, scene: Scene, clip: Option<&Clip>, programs: &Programs, time: Duration) -> Result<Run> {
    let scene = Scene { screen: scene.screen.filter(|_| subject.needs_screen()), ..scene };
    let screen = scene.screen;
    let covered = if subject.is_browser() { COVERED_PATCHES } else { 0 };
    let eyes = screen.map_or(Eyes::Process, |screen| Eyes::Screen(screen.watch(covered)));
    // Not everybody may listen; the stages that it gives are left out then, and what cannot be without it fails below.
    let tap = Tap::start();
    let mut running = Running::start(subject, scene, programs)?;
    let first_us = wait_for("the first picture", FIRST_PICTURE, || {
        running.check()?;
        Ok(match clip {
            None => eyes.shots(&running).first().map(|shot| shot.shown_us),
            // All of them get pictures.
            Some(_) => {
                let firsts = running.readers().iter().map(|reader| units(reader).first().map(|(_, at_us)| *at_us));
                firsts.reduce(|one, other| Some(one?.max(other?))).flatten()
            }
        })
    })
    .with_context(|| running.readers()[0].stderr())?;
    pause(SETTLE)?;

    let server = Meter::start(running.server.pid())?;
    let clients: Vec<Meter> = running.clients.iter().map(|client| Meter::start(client.pid())).collect::<Result<_>>()?;
    let x_server = screen.map(|screen| Meter::start(screen.pid())).transpose()?;
    let (from_us, from_bytes) = (clock::now_us(), scene.site.wire_bytes()?);
    pause(time)?;
    let (to_us, to_bytes) = (clock::now_us(), scene.site.wire_bytes()?);
    let server = server.stop(to_us - from_us)?;
    let clients: Vec<Cost> = clients.into_iter().map(|client| client.stop(to_us - from_us)).collect::<Result<_>>()?;
    let x_server = x_server.map(|x_server| x_server.stop(to_us - from_us)).transpose()?;
    running.check()?;

    let window = (from_us, to_us);
    let mut pictures = match clip {
        None => {
            let mut shots = eyes.shots(&running);
            if let Ok(tap) = &tap {
                add_sent(&mut shots, tap);
            }
            pictures(&shots, window, scene.point.interval_us())
        }
        Some(clip) => {
            let tap = tap.context("listening on loopback")?;
            worst(running.readers().iter().map(|reader| {
                let delivered: Vec<(u32, u64)> = lines(reader, "delivered");
                let sent = tap.pictures(delivered.iter().map(|(timestamp, _)| *timestamp));
                let sent = sent.iter().map(|(timestamp, sent)| (*timestamp, sent.first_us)).collect();
                delivery(&sent, &delivered, &units(reader), |hash| clip.has(hash), window)
            }))
        }
    };
    if let Some(report) = running.client_report() {
        pictures.stages_ms = window_stages(&report);
    }
    let seconds = (to_us - from_us) as f64 / 1e6;
    let stats = running.server_stats().filter(|_| clip.is_none());
    Ok(Run {
        first_picture_ms: running.client_started_us.map(|started| first_us.saturating_sub(started) as f64 / 1e3),
        server,
        client: clients.into_iter().reduce(|sum, cost| sum.plus(cost)),
        idle_cpu_ms_per_s: running.idle_cpu_ms_per_s,
        x_server,
        wire_mbps: to_bytes.saturating_sub(from_bytes) as f64 * 8.0 / 1e6 / seconds,
        encode_ms: stats.and_then(|stats| Some(stats.streams.first()?.encode_latency_ms)),
        pictures,
    })
}

/// Hash and time of each access unit that came.
fn units(reader: &Process) -> Vec<(u64, u64)> {
    lines(reader, "unit")
}

/// The numbers of the lines that begin with this word.
fn lines<T: FromStr>(reader: &Process, word: &str) -> Vec<(T, u64)> {
    let text = reader.stdout();
    let numbers = text.lines().filter_map(|line| line.strip_prefix(word)?.strip_prefix(' ')?.split_once(' '));
    numbers.filter_map(|(first, at_us)| Some((first.parse().ok()?, at_us.parse().ok()?))).collect()
}

fn add_sent(shots: &mut [Shot], tap: &Tap) {
    let sent = tap.pictures(shots.iter().filter_map(|shot| Some(shot.passage?.rtp_timestamp)));
    for passage in shots.iter_mut().filter_map(|shot| shot.passage.as_mut()) {
        passage.sent_us = sent.get(&passage.rtp_timestamp).map(|sent| (sent.first_us, sent.last_us));
    }
}

/// As rov-client's own statistics have them: each stage alone, since its start.
fn window_stages(report: &Report) -> Vec<Stage> {
    let stages =
        [("of it receiving", report.receive), ("of it decoding", report.decode), ("of it drawing", report.show)];
    let stage = |(name, summary): &(&str, rov_client::stats::Summary)| Stage {
        name: (*name).to_owned(),
        p50: summary.p50_ms,
        p95: summary.p95_ms,
    };
    stages.iter().map(stage).collect()
}

/// The processor time of a process from here on.
struct Meter {
    pid: u32,
    before: Duration,
}

impl Meter {
    fn start(pid: u32) -> Result<Self> {
        Ok(Self { pid, before: usage(pid)?.cpu })
    }

    fn stop(self, us: u64) -> Result<Cost> {
        let now = usage(self.pid)?;
        Ok(Cost {
            cpu_ms_per_s: now.cpu.saturating_sub(self.before).as_secs_f64() * 1e9 / us as f64,
            memory_mib: now.resident_bytes as f64 / f64::from(1 << 20),
        })
    }
}
