//! The matrix: what happens to the link, the server or the camera, and what the viewer is to make of it.

use std::time::Duration;

use anyhow::{Context, Result};
use rov_client::stats::Report;
use rov_common::api::ViewerStats;

use crate::bench::{Bench, FPS, Snapshot, ViewerKind};
use crate::figures::{Figure, Limit};
use crate::seen::{Seen, Span};
use crate::watch::now_us;

pub struct Row {
    pub name: &'static str,
    /// As the report says it.
    pub condition: &'static str,
    /// Beside those of every row.
    server: &'static [&'static str],
    client: &'static [&'static str],
    /// Whether Chromium can do it too.
    pub for_browsers: bool,
    measure: Measure,
}

/// How a row is measured.
enum Measure {
    /// Pictures come all the time, over this link.
    Steady { link: &'static str, judge: fn(&Steady) -> Vec<Figure> },
    /// Something happens, and the picture comes back.
    Event(fn(&mut Bench) -> Result<Vec<Figure>>),
}

const STEADY: Row = Row {
    name: LOSSLESS,
    condition: "no impairment",
    server: &[],
    client: &[],
    for_browsers: true,
    measure: Measure::Steady { link: "delay=2ms", judge: |run| vec![run.longest_freeze()] },
};

/// Keyframes in the short form, which has a dozen losses and more: without retransmission each of them needs one.
const REPAIRED: Limit = Limit::AtMost(8.0);
/// The row that others are compared with.
pub const LOSSLESS: &str = "lossless";

pub const ROWS: &[Row] = &[
    STEADY,
    Row {
        name: "loss-1",
        condition: "1 % random loss",
        measure: Measure::Steady {
            link: "loss=1%",
            judge: |run| {
                let freeze = run.longest_freeze().at_most(100.0).or_loosely(Limit::AtMost(1000.0));
                vec![freeze, run.above(25.0), run.keyframes_asked_for().or_loosely(REPAIRED)]
            },
        },
        ..STEADY
    },
    Row {
        name: "loss-5",
        condition: "5 % random loss",
        measure: Measure::Steady {
            link: "loss=5%",
            judge: |run| {
                let freeze = run.longest_freeze().at_most(200.0).or_loosely(Limit::AtMost(1500.0));
                vec![freeze, run.above(50.0), run.keyframes_asked_for().or_loosely(REPAIRED)]
            },
        },
        ..STEADY
    },
    Row {
        name: "loss-1-far",
        condition: "1 % random loss, 20 ± 5 ms delay each way",
        measure: Measure::Steady {
            link: "loss=1% delay=20ms jitter=5ms",
            judge: |run| {
                let freeze = run.longest_freeze().at_most(250.0).or_loosely(Limit::AtMost(1500.0));
                vec![freeze, run.keyframes_asked_for().or_loosely(REPAIRED)]
            },
        },
        ..STEADY
    },
    Row {
        name: "reordering",
        condition: "5 % of the packets reordered within 5 ms",
        measure: Measure::Steady {
            link: "reorder=5%/5ms",
            judge: |run| {
                let given_up = run.counted("pictures given up", |report| report.frames_skipped);
                let figures = vec![
                    run.longest_freeze(),
                    run.keyframes_asked_for().at_most(0.0).or_loosely(Limit::AtMost(1.0)),
                    // Each packet that is held back may be asked for once.
                    run.retransmissions().at_most(5.0).or_loosely(Limit::AtMost(15.0)),
                ];
                let given_up = given_up.map(|figure| figure.at_most(0.0).or_loosely(Limit::AtMost(15.0)));
                figures.into_iter().chain(given_up).collect()
            },
        },
        ..STEADY
    },
    Row { name: "rate", condition: "2 Mbit/s for 20 s, then no limit", measure: Measure::Event(rate), ..STEADY },
    Row { name: "outage-2s", condition: "outage of 2 s", measure: Measure::Event(short_outage), ..STEADY },
    Row { name: "outage-60s", condition: "outage of 60 s", measure: Measure::Event(long_outage), ..STEADY },
    Row {
        name: "server-killed",
        condition: "server killed and restarted",
        measure: Measure::Event(server_killed),
        ..STEADY
    },
    Row {
        name: "subnet",
        condition: "server's address moves to another subnet",
        // The page is at an address: only who reloads it at the new one can see it again.
        for_browsers: false,
        measure: Measure::Event(other_subnet),
        ..STEADY
    },
    Row { name: "camera-dies", condition: "camera dies for 3 s", measure: Measure::Event(camera_dies), ..STEADY },
    Row {
        name: "rtp",
        condition: "RTP multicast, 1 % loss",
        server: &["--transport", "webrtc,rtp"],
        client: &["--transport", "rtp"],
        for_browsers: false,
        measure: Measure::Steady {
            link: "loss=1%",
            judge: |run| vec![run.longest_freeze().at_most(1100.0).or_loosely(Limit::AtMost(2500.0))],
        },
    },
    Row {
        name: "rtp-fec",
        condition: "RTP multicast with forward error correction (35 %), 1 % loss",
        server: &["--transport", "webrtc,rtp", "--rtp-fec", "35"],
        client: &["--transport", "rtp"],
        for_browsers: false,
        measure: Measure::Steady {
            link: "loss=1%",
            judge: |run| vec![run.longest_freeze().at_most(100.0).or_loosely(Limit::AtMost(400.0))],
        },
    },
];

impl Row {
    pub fn named(name: &str) -> Result<&'static Self> {
        let names = || ROWS.iter().map(|row| row.name).collect::<Vec<_>>().join(", ");
        ROWS.iter().find(|row| row.name == name).with_context(|| format!("there is no row '{name}', but: {}", names()))
    }

    /// Whether its limits need the lossless run.
    pub fn is_compared(&self) -> bool {
        matches!(self.name, "loss-1" | "loss-5")
    }

    /// Runs it. `lossless` is the 99th percentile of the latency of the lossless run, in milliseconds.
    pub fn run(&self, conduct: &Conduct) -> Result<Vec<Figure>> {
        let mut bench = Bench::new(conduct.viewer, conduct.seed, conduct.is_short, self.server)?;
        let mut figures = match &self.measure {
            Measure::Steady { link, judge } => {
                bench.start_server()?;
                bench.start_viewer(self.client)?;
                let run = Steady::measure(&mut bench, link, conduct)?;
                let mut figures = judge(&run);
                let common = run.common().into_iter();
                let common: Vec<_> = common.filter(|one| figures.iter().all(|own| own.name != one.name)).collect();
                figures.extend(common);
                figures
            }
            Measure::Event(event) => {
                if self.name == "camera-dies" {
                    bench.start_camera()?;
                }
                bench.start_server()?;
                bench.start_viewer(self.client)?;
                event(&mut bench)?
            }
        };
        if conduct.viewer == ViewerKind::Chromium {
            for figure in &mut figures {
                (figure.limit, figure.loose) = (None, None);
            }
        }
        Ok(figures)
    }
}

/// How a row is to be run.
#[derive(Clone, Copy, Debug)]
pub struct Conduct {
    pub viewer: ViewerKind,
    pub seed: u64,
    /// Of a steady row.
    pub seconds: u64,
    pub is_short: bool,
    /// The 99th percentile of the latency of the lossless run, in milliseconds.
    pub lossless_p99: Option<f64>,
}

/// The name of the figure of the lossless run with which others are compared.
pub const P99: &str = "latency, 99th percentile";

struct Steady<'a> {
    seen: Vec<Seen>,
    before: Snapshot,
    after: Snapshot,
    conduct: &'a Conduct,
}

impl<'a> Steady<'a> {
    fn measure(bench: &mut Bench, link: &str, conduct: &'a Conduct) -> Result<Self> {
        bench.lab.link(link)?;
        let before = bench.snapshot()?;
        bench.pass(Duration::from_secs(conduct.seconds))?;
        let after = bench.snapshot()?;
        Ok(Self { seen: bench.written()?.to_vec(), before, after, conduct })
    }

    fn span(&self) -> Span<'_> {
        Span::of(&self.seen, self.before.at, self.after.at)
    }

    fn longest_freeze(&self) -> Figure {
        Figure::new("longest freeze", self.span().longest_freeze_ms(), "ms")
    }

    /// The latency, which is to be at most so much above that of the lossless run.
    fn above(&self, limit: f64) -> Figure {
        let p99 = self.span().latency_ms(0.99).zip(self.conduct.lossless_p99);
        let above = p99.map(|(p99, lossless)| p99 - lossless);
        Figure::new("latency above the lossless run, 99th percentile", above, "ms")
            .at_most(limit)
            .or_loosely(Limit::AtMost(500.0))
    }

    /// What rov-client has counted.
    fn counted(&self, name: &str, counter: impl Fn(&Report) -> u64) -> Option<Figure> {
        let is_known = self.conduct.viewer == ViewerKind::Client;
        let count = counter(&self.after.report).saturating_sub(counter(&self.before.report));
        is_known.then(|| Figure::new(name, count as f64, ""))
    }

    fn is_webrtc(&self) -> bool {
        self.after.stats.viewers.iter().any(|viewer| viewer.packets > 0)
    }

    /// By WebRTC, as the server counts them.
    fn keyframes_asked_for(&self) -> Figure {
        Figure::new("keyframes asked for", self.of_viewers(|viewer| viewer.plis) as f64, "")
    }

    /// Of the packets that were sent to the viewer, by WebRTC.
    fn retransmissions(&self) -> Figure {
        let (packets, asked) = (self.of_viewers(|viewer| viewer.packets), self.of_viewers(|viewer| viewer.nacks));
        let share = (packets > 0).then(|| 100.0 * asked as f64 / packets as f64);
        Figure::new("packets asked for again", share, "%")
    }

    fn of_viewers(&self, count: fn(&ViewerStats) -> u64) -> u64 {
        let sum = |snapshot: &Snapshot| snapshot.stats.viewers.iter().map(count).sum::<u64>();
        sum(&self.after).saturating_sub(sum(&self.before))
    }

    /// What every row shows beside its own.
    fn common(&self) -> Vec<Figure> {
        let span = self.span();
        let seconds = (self.after.at - self.before.at) as f64 / 1e6;
        let link = (self.after.link_bytes - self.before.link_bytes) as f64 * 8.0 / seconds / 1e6;
        let shown = Figure::new("pictures shown", 100.0 * span.shown_share(FPS), "%");
        let mut figures = vec![
            Figure::new("corrupt pictures", span.corrupt() as f64, "").at_most(0.0),
            // Plain RTP loses all up to the next keyframe.
            if self.is_webrtc() { shown.or_loosely(Limit::AtLeast(50.0)) } else { shown },
            Figure::new("latency, median", span.latency_ms(0.5), "ms"),
            Figure::new(P99, span.latency_ms(0.99), "ms"),
            Figure::new("longest pause of the source", span.longest_pause_of_source_ms(), "ms"),
            Figure::new("sent into the link", link, "Mbit/s"),
        ];
        if self.is_webrtc() {
            figures.extend([self.retransmissions(), self.keyframes_asked_for()]);
        }
        let renewed = self.counted(NEW_SESSIONS, |report| report.sessions);
        figures.extend(renewed.map(|figure| figure.or_loosely(Limit::AtMost(0.0))));
        figures
    }
}

/// The encoder's bitrate below the link's, the latency back, and the former bitrate when the limit is gone.
fn rate(bench: &mut Bench) -> Result<Vec<Figure>> {
    const LINK_KBPS: f64 = 2000.0;
    let former = target_kbps(&bench.snapshot()?);
    let limited_for = bench.pick(20, 6);
    let limited = Phase::run(bench, "to-topside rate=2Mbit queue=250ms", limited_for, |target| target <= LINK_KBPS)?;
    let free_for = bench.pick(25, 6);
    let free = Phase::run(bench, "to-topside rate=none", free_for, |target| target >= 0.9 * former)?;
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
        Figure::new("encoder below the limit after", limited.reached, "ms").at_most(3000.0),
        back.at_most(5000.0).or_loosely(Limit::AtMost(5900.0)),
        // The short form ends before; that it rises is enough.
        if is_short {
            Figure::new("bitrate at the end", target_kbps(&free.last), "kbit/s").at_least(target_kbps(&limited.last))
        } else {
            regained
        },
        Figure::new("pictures shown while limited", 100.0 * during.shown_share(FPS), "%"),
        Figure::new("longest freeze while limited", during.longest_freeze_ms(), "ms"),
        Figure::new("longest freeze afterwards", after.longest_freeze_ms(), "ms"),
        Figure::new("sent into the link while limited", limited.link_mbps, "Mbit/s"),
        Figure::new("corrupt pictures", (during.corrupt() + after.corrupt()) as f64, "").at_most(0.0),
    ])
}

/// What the encoder was asked for.
fn target_kbps(snapshot: &Snapshot) -> f64 {
    snapshot.stats.streams.first().map_or(0.0, |stream| f64::from(stream.target_bitrate_kbps))
}

/// A time in which the link is what it is.
struct Phase {
    from: u64,
    to: u64,
    /// Milliseconds until the encoder's target was good.
    reached: Option<f64>,
    last: Snapshot,
    link_mbps: f64,
}

impl Phase {
    fn run(bench: &mut Bench, link: &str, seconds: u64, is_good: impl Fn(f64) -> bool) -> Result<Self> {
        let first = bench.snapshot()?;
        bench.lab.link(link)?;
        let (from, mut reached, mut last) = (now_us(), None, first.clone());
        let to = from + seconds * 1_000_000;
        while last.at < to {
            bench.pass(Duration::from_millis(100))?;
            last = bench.snapshot()?;
            if is_good(target_kbps(&last)) {
                reached.get_or_insert((last.at - from) as f64 / 1e3);
            }
        }
        let link_mbps = (last.link_bytes - first.link_bytes) as f64 * 8.0 / (last.at - first.at) as f64;
        Ok(Self { from, to, reached, last, link_mbps })
    }
}

fn short_outage(bench: &mut Bench) -> Result<Vec<Figure>> {
    let time = bench.pick(2000, 1000);
    let mut figures = outage(bench, Duration::from_millis(time), 500.0, Limit::AtMost(3000.0))?;
    // ICE outlives it: no new negotiation.
    for figure in figures.iter_mut().filter(|figure| figure.name == NEW_SESSIONS) {
        *figure = figure.clone().at_most(0.0);
    }
    Ok(figures)
}

fn long_outage(bench: &mut Bench) -> Result<Vec<Figure>> {
    // The short form is long enough for the session to be given up.
    let time = bench.pick(60, 8);
    outage(bench, Duration::from_secs(time), 3000.0, Limit::AtMost(12_000.0))
}

fn outage(bench: &mut Bench, time: Duration, limit: f64, loose: Limit) -> Result<Vec<Figure>> {
    let before = bench.snapshot()?;
    bench.lab.link("outage=on")?;
    bench.pass(time)?;
    bench.lab.link("outage=off")?;
    let figures = back(bench, "back after", before, now_us())?;
    Ok(with_limit(figures, limit, loose))
}

fn server_killed(bench: &mut Bench) -> Result<Vec<Figure>> {
    let before = bench.snapshot()?;
    bench.kill_server();
    let pause = bench.pick(5, 2);
    bench.pass(Duration::from_secs(pause))?;
    let listens = bench.start_server()?;
    let figures = back(bench, "back after it listens", before, listens)?;
    Ok(with_limit(figures, 3000.0, Limit::AtMost(12_000.0)))
}

fn other_subnet(bench: &mut Bench) -> Result<Vec<Figure>> {
    let before = bench.snapshot()?;
    let moved = bench.move_to_other_subnet()?;
    let figures = back(bench, "back after", before, moved)?;
    Ok(with_limit(figures, 5000.0, Limit::AtMost(15_000.0)))
}

fn camera_dies(bench: &mut Bench) -> Result<Vec<Figure>> {
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

const NEW_SESSIONS: &str = "new sessions";
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
