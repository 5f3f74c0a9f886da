//! One run of one subject, from its start to its figures.

use std::time::Duration;

use anyhow::{Context, Result};
use rov_bench::clock;
use rov_client::stats::Report;
use rov_tests::process::Process;
use serde::Serialize;

use crate::browser::COVERED_PATCHES;
use crate::clip::Clip;
use crate::figures::{Pictures, Shot, Stage, worst};
use crate::point::Point;
use crate::roles::Delivered;
use crate::screen::Watch;
use crate::subject::{Programs, Running, Scene, Subject};
use crate::system::{Usage, pause, usage, wait_for};
use crate::tally::{Delivery, Tally, UNDER_WAY_US, since_the_first};
use crate::tap::Tap;

const FIRST_PICTURE: Duration = Duration::from_secs(30);
/// Until rate control and connections have settled.
const SETTLE: Duration = Duration::from_secs(1);
/// What is seen is taken so often.
const TAKE: Duration = Duration::from_secs(1);

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
    /// Of it threads that run no GStreamer element: sockets, encryption, HTTP. Of rov-server and rov-client, what sends
    /// and receives.
    pub network_cpu_ms_per_s: f64,
    pub memory_mib: f64,
}

impl Cost {
    fn plus(self, other: Self) -> Self {
        Self {
            cpu_ms_per_s: self.cpu_ms_per_s + other.cpu_ms_per_s,
            network_cpu_ms_per_s: self.network_cpu_ms_per_s + other.network_cpu_ms_per_s,
            memory_mib: self.memory_mib + other.memory_mib,
        }
    }
}

/// What has been seen since the last call: on the screen, or by each reader.
fn take(screen: Option<&Watch>, running: &Running) -> Vec<Vec<Shot>> {
    let shots = |lines: Vec<String>| lines.iter().filter_map(|line| Shot::parse(line)).collect();
    let lines = running.take_lines();
    screen.map_or_else(|| lines.into_iter().map(shots).collect(), |watch| vec![watch.take()])
}

/// What becomes of what is seen.
enum Judge<'a> {
    /// Of each reader.
    Pictures(Vec<Tally>),
    /// Of a clip: each reader, and the source that sends to it once it is known.
    Units(&'a Clip, Vec<(Delivery, Option<u32>)>),
}

impl Judge<'_> {
    fn take(&mut self, screen: Option<&Watch>, running: &Running, tap: Option<&Tap>, point: &Point) {
        match self {
            Self::Pictures(tallies) => {
                for (tally, mut shots) in tallies.iter_mut().zip(take(screen, running)) {
                    if let Some(tap) = tap {
                        add_sent(&mut shots, tap);
                    }
                    shots.iter().for_each(|shot| tally.add(shot));
                }
            }
            Self::Units(clip, deliveries) => {
                let now_us = clock::now_us();
                let Some(tap) = tap else { return };
                let lines = running.take_lines();
                for ((lines, reader), (delivery, source)) in lines.iter().zip(running.readers()).zip(&mut *deliveries) {
                    for line in lines {
                        if let Some((hash, at_us)) = unit(line) {
                            delivery.add_unit(clip.has(hash), at_us);
                        } else if let Some(Delivered { rtp_timestamp, at_us, last_packet_us }) = Delivered::parse(line)
                        {
                            delivery.add_whole(rtp_timestamp, at_us, last_packet_us);
                        }
                    }
                    *source = source.or_else(|| tap.source(delivery.timestamps(), Some(&reader.udp_ports())));
                }
                let sources: Vec<u32> = deliveries.iter().filter_map(|(_, source)| *source).collect();
                let mut sent = tap.pictures(&sources);
                since_the_first(&mut sent, point.interval_us());
                for (delivery, source) in deliveries {
                    if let Some(sent) = source.and_then(|source| sent.get(&source)) {
                        delivery.judge(sent, now_us);
                    }
                }
            }
        }
    }

    fn pictures(self) -> Result<Pictures> {
        let receivers: Vec<Pictures> = match self {
            Self::Pictures(tallies) => tallies.into_iter().map(Tally::pictures).collect(),
            Self::Units(_, deliveries) => deliveries.into_iter().map(|(delivery, _)| delivery.pictures()).collect(),
        };
        worst(receivers).context("a receiver got no picture while it was measured")
    }
}

/// Runs it for so long after its first picture and some time to settle.
pub fn run(subject: Subject, scene: Scene, clip: Option<&Clip>, programs: &Programs, time: Duration) -> Result<Run> {
    let scene = Scene { screen: scene.screen.filter(|_| subject.needs_screen()), ..scene };
    let screen = scene.screen;
    let covered = if subject.is_browser() { COVERED_PATCHES } else { 0 };
    let watch = screen.map(|screen| screen.watch(covered));
    let watch = watch.as_ref();
    // Not everybody may listen; the stages that it gives are left out then.
    let tap = scene.site.at_server(Tap::start)?;
    let tap = if clip.is_some() { Some(tap.context("listening on loopback")?) } else { tap.ok() };
    let mut running = Running::start(subject, scene, programs)?;
    let first_us = first_picture(&mut running, watch)?;
    pause(SETTLE)?;
    // What came until now counts for nothing.
    drop(running.take_lines());

    let (servers, clients) = (Meter::all(&running.servers)?, Meter::all(&running.clients)?);
    let x_server = screen.map(|screen| Meter::start(screen.pid())).transpose()?;
    let (from_us, from_bytes) = (clock::now_us(), scene.site.wire_bytes()?);
    let window = (from_us, from_us + time.as_micros() as u64);
    let readers = running.readers().iter();
    let mut judge = match clip {
        None => Judge::Pictures(readers.map(|_| Tally::new(window, scene.point.interval_us())).collect()),
        Some(clip) => Judge::Units(clip, readers.map(|_| (Delivery::new(window), None)).collect()),
    };
    let mut judge_all = |running: &Running| judge.take(watch, running, tap.as_ref(), scene.point);
    while let Some(left_us) = window.1.checked_sub(clock::now_us()).filter(|left_us| *left_us > 0) {
        pause(Duration::from_micros(left_us).min(TAKE))?;
        judge_all(&running);
        running.check()?;
    }
    let (to_us, to_bytes) = (clock::now_us(), scene.site.wire_bytes()?);
    let [server, client] = [servers, clients].map(|meters| Meter::stop_all(meters, to_us - from_us));
    let server = server?.context("no server")?;
    let x_server = x_server.map(|x_server| x_server.stop(to_us - from_us)).transpose()?;
    if clip.is_some() {
        // What was sent at the end may be under way.
        pause(Duration::from_micros(2 * UNDER_WAY_US))?;
        judge_all(&running);
    }

    let mut pictures = judge.pictures()?;
    if let Some(report) = running.client_report() {
        pictures.stages_ms.extend(window_stages(&report));
    }
    let seconds = (to_us - from_us) as f64 / 1e6;
    let stats = running.server_stats().filter(|_| clip.is_none());
    Ok(Run {
        first_picture_ms: running.client_started_us.map(|started| first_us.saturating_sub(started) as f64 / 1e3),
        server,
        client: client?,
        idle_cpu_ms_per_s: running.idle_cpu_ms_per_s,
        x_server,
        wire_mbps: to_bytes.saturating_sub(from_bytes) as f64 * 8.0 / 1e6 / seconds,
        encode_ms: stats.and_then(|stats| Some(stats.streams.first()?.encode_latency_ms)),
        pictures,
    })
}

/// When it came; of several readers, when all had theirs.
fn first_picture(running: &mut Running, screen: Option<&Watch>) -> Result<u64> {
    let mut firsts = vec![None; running.readers().len()];
    wait_for("the first picture", FIRST_PICTURE, || {
        running.check()?;
        if let Some(watch) = screen {
            return Ok(watch.take().first().map(|shot| shot.shown_us));
        }
        for (lines, first) in running.take_lines().iter().zip(&mut firsts) {
            let came = |line: &String| match unit(line) {
                Some((_, at_us)) => Some(at_us),
                None => Shot::parse(line).map(|shot| shot.shown_us),
            };
            *first = first.or_else(|| lines.iter().find_map(came));
        }
        Ok(firsts.iter().copied().reduce(|one, other| Some(one?.max(other?))).flatten())
    })
    .with_context(|| running.readers()[0].stderr())
}

/// Hash and time of an access unit, of a line that tells of one.
fn unit(line: &str) -> Option<(u64, u64)> {
    let (hash, at_us) = line.strip_prefix("unit ")?.split_once(' ')?;
    Some((hash.parse().ok()?, at_us.parse().ok()?))
}

fn add_sent(shots: &mut [Shot], tap: &Tap) {
    let timestamps = shots.iter().filter_map(|shot| shot.rtp_timestamp);
    let sent =
        tap.source(timestamps, None).and_then(|source| tap.pictures(&[source]).remove(&source)).unwrap_or_default();
    // A screen does not tell it. There it is the only picture that anybody began to send between the mark and the
    // screen, if it is the only one.
    let unknown = shots.iter().filter(|shot| shot.rtp_timestamp.is_none());
    let all = unknown.map(|shot| shot.drawn_us).min().map_or_else(Vec::new, |from_us| tap.since(from_us));
    for shot in shots {
        let mut between = all.iter().filter(|sent| (shot.drawn_us..shot.shown_us).contains(&sent.first_us));
        let sent = match (shot.rtp_timestamp, between.next(), between.next()) {
            (Some(timestamp), _, _) => sent.get(&timestamp).copied(),
            (None, Some(only), None) => Some(*only),
            _ => None,
        };
        shot.sent_us = sent.map(|sent| (sent.first_us, sent.last_us));
    }
}

/// As rov-client's own statistics have them: each stage alone, since its start.
fn window_stages(report: &Report) -> Vec<Stage> {
    let stages = [
        ("of it receiving", report.receive),
        ("decoding", report.decode),
        ("converting", report.convert),
        ("to the screen", report.show),
    ];
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
    before: Usage,
}

impl Meter {
    fn start(pid: u32) -> Result<Self> {
        Ok(Self { pid, before: usage(pid)? })
    }

    fn all(processes: &[Process]) -> Result<Vec<Self>> {
        processes.iter().map(|process| Self::start(process.pid())).collect()
    }

    /// The sum; none of none.
    fn stop_all(meters: Vec<Self>, us: u64) -> Result<Option<Cost>> {
        let costs: Vec<Cost> = meters.into_iter().map(|meter| meter.stop(us)).collect::<Result<_>>()?;
        Ok(costs.into_iter().reduce(Cost::plus))
    }

    fn stop(self, us: u64) -> Result<Cost> {
        let now = usage(self.pid)?;
        let ms_per_s = |now: Duration, before| now.saturating_sub(before).as_secs_f64() * 1e9 / us as f64;
        Ok(Cost {
            cpu_ms_per_s: ms_per_s(now.cpu, self.before.cpu),
            network_cpu_ms_per_s: ms_per_s(now.network_cpu, self.before.network_cpu),
            memory_mib: now.resident_bytes as f64 / f64::from(1 << 20),
        })
    }
}
