//! One run of one subject, from its start to its figures.

use std::collections::HashMap;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Result};
use rov_bench::clock;
use rov_client::stats::Report;
use serde::Serialize;

use crate::clip::Clip;
use crate::figures::{Pictures, Shot, Stage, delivery, pictures};
use crate::screen::Watch;
use crate::subject::{Programs, Running, Scene, Subject};
use crate::system::{cpu_time, loopback_bytes, pause, resident_kib, wait_for};
use crate::tap::{Sent, Tap};

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
    pub client: Option<Cost>,
    /// Of the X server that shows the client's window.
    pub x_server: Option<Cost>,
    /// By loopback, with the headers of IP and Ethernet, both directions.
    pub wire_mbps: f64,
    /// Of rov-server: from capture to encoded, mean, milliseconds.
    pub encode_ms: Option<f64>,
}

/// Of a process.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Cost {
    /// Milliseconds of processor time per second.
    pub cpu_ms_per_s: f64,
    pub memory_mib: f64,
}

/// The process's output, or the screen.
enum Eyes {
    Process,
    Screen(Watch),
}

impl Eyes {
    fn shots(&self, running: &Running) -> Vec<Shot> {
        match self {
            Self::Process => running.reader().stdout().lines().filter_map(Shot::parse).collect(),
            Self::Screen(watch) => watch.shots(),
        }
    }
}

/// Runs it for so long after its first picture and some time to settle.
pub fn run(subject: Subject, scene: Scene, clip: Option<&Clip>, programs: &Programs, time: Duration) -> Result<Run> {
    let scene = Scene { screen: scene.screen.filter(|_| subject.needs_screen()), ..scene };
    let screen = scene.screen;
    let eyes = screen.map_or(Eyes::Process, |screen| Eyes::Screen(screen.watch()));
    // Not everybody may listen; the stages that it gives are left out then, and what cannot be without it fails below.
    let tap = Tap::start();
    let mut running = Running::start(subject, scene, programs)?;
    let first_us = wait_for("the first picture", FIRST_PICTURE, || {
        running.check()?;
        Ok(match clip {
            None => eyes.shots(&running).first().map(|shot| shot.shown_us),
            Some(_) => units(&running).first().map(|(_, at_us)| *at_us),
        })
    })
    .with_context(|| running.reader().stderr())?;
    pause(SETTLE)?;

    let server = Meter::start(running.server.pid())?;
    let client = running.client_pid().map(Meter::start).transpose()?;
    let x_server = screen.map(|screen| Meter::start(screen.pid())).transpose()?;
    let (from_us, from_bytes) = (clock::now_us(), loopback_bytes()?);
    pause(time)?;
    let (to_us, to_bytes) = (clock::now_us(), loopback_bytes()?);
    let server = server.stop(to_us - from_us)?;
    let client = client.map(|client| client.stop(to_us - from_us)).transpose()?;
    let x_server = x_server.map(|x_server| x_server.stop(to_us - from_us)).transpose()?;
    running.check()?;

    let window = (from_us, to_us);
    let mut pictures = match clip {
        None => {
            let mut shots = eyes.shots(&running);
            if let Ok(tap) = &tap {
                add_sent(&mut shots, &tap.pictures());
            }
            pictures(&shots, window, scene.point.interval_us())
        }
        Some(clip) => {
            let sent = tap.context("listening on loopback")?.pictures();
            let sent = sent.iter().map(|(timestamp, sent)| (*timestamp, sent.first_us)).collect();
            delivery(&sent, &lines(&running, "delivered"), &units(&running), |hash| clip.has(hash), window)
        }
    };
    if let Some(report) = running.client_report() {
        pictures.stages_ms = window_stages(&report);
    }
    let seconds = (to_us - from_us) as f64 / 1e6;
    let stats = running.server_stats();
    Ok(Run {
        first_picture_ms: running.client_started_us.map(|started| first_us.saturating_sub(started) as f64 / 1e3),
        server,
        client,
        x_server,
        wire_mbps: to_bytes.saturating_sub(from_bytes) as f64 * 8.0 / 1e6 / seconds,
        encode_ms: stats.and_then(|stats| Some(stats.streams.first()?.encode_latency_ms)),
        pictures,
    })
}

/// Hash and time of each access unit that came.
fn units(running: &Running) -> Vec<(u64, u64)> {
    lines(running, "unit")
}

/// The numbers of the lines that begin with this word.
fn lines<T: FromStr>(running: &Running, word: &str) -> Vec<(T, u64)> {
    let text = running.reader().stdout();
    let numbers = text.lines().filter_map(|line| line.strip_prefix(word)?.strip_prefix(' ')?.split_once(' '));
    numbers.filter_map(|(first, at_us)| Some((first.parse().ok()?, at_us.parse().ok()?))).collect()
}

fn add_sent(shots: &mut [Shot], sent: &HashMap<u32, Sent>) {
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
        Ok(Self { pid, before: cpu_time(pid)? })
    }

    fn stop(self, us: u64) -> Result<Cost> {
        let used = cpu_time(self.pid)?.saturating_sub(self.before);
        Ok(Cost {
            cpu_ms_per_s: used.as_secs_f64() * 1e3 / (us as f64 / 1e6),
            memory_mib: resident_kib(self.pid)? as f64 / 1024.0,
        })
    }
}
