//! The matrix: what happens to the link, the server or the camera, and what the viewer is to make of it.

use anyhow::{Context, Result};

use crate::bench::{Bench, CONTROLLER, ViewerKind};
use crate::events;
use crate::figures::{Figure, Limit};
use crate::recorded::{self, Dive};
use crate::steady::Steady;

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
    /// The server alone.
    Alone(fn(&mut Bench, &Conduct) -> Result<Vec<Figure>>),
    /// Server and client record, and this happens; then their files are compared.
    Recorded(Dive),
}

const STEADY: Row = Row {
    name: LOSSLESS,
    condition: "no impairment",
    server: &[],
    client: &[],
    for_browsers: true,
    measure: Measure::Steady { link: "delay=2ms", judge: |run| vec![run.longest_freeze()] },
};

const RECORDED: Row = Row {
    server: &["--ring", "60s"],
    client: &["--auto"],
    for_browsers: false,
    measure: Measure::Recorded(recorded::DIVE),
    ..STEADY
};

/// Keyframes in the short form, which has a dozen losses and more: without retransmission eight are asked for, and
/// more.
const REPAIRED: Limit = Limit::AtMost(5.0);
/// In the short form a freeze may be the machine's own: a second is not rare where it is busy with other things.
const STALLED: Limit = Limit::AtMost(3000.0);
/// The row that others are compared with.
pub const LOSSLESS: &str = "lossless";
/// The name of a figure.
pub const NEW_SESSIONS: &str = "new sessions";

pub const ROWS: &[Row] = &[
    STEADY,
    Row {
        name: "loss-1",
        condition: "1 % random loss",
        measure: Measure::Steady {
            link: "loss=1%",
            judge: |run| {
                let freeze = run.longest_freeze().at_most(100.0).or_loosely(STALLED);
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
                let freeze = run.longest_freeze().at_most(200.0).or_loosely(STALLED);
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
                let freeze = run.longest_freeze().at_most(250.0).or_loosely(STALLED);
                vec![freeze, run.keyframes_asked_for().or_loosely(REPAIRED)]
            },
        },
        ..STEADY
    },
    Row {
        name: "age",
        condition: "age beside the mark: 2 ms each way",
        for_browsers: false,
        measure: Measure::Steady { link: "delay=2ms", judge: |run| run.age(5.0) },
        ..STEADY
    },
    Row {
        name: "age-far",
        condition: "age beside the mark: 20 ± 5 ms each way",
        for_browsers: false,
        measure: Measure::Steady { link: "delay=20ms jitter=5ms", judge: |run| run.age(5.0) },
        ..STEADY
    },
    Row {
        name: "age-asymmetric",
        condition: "age beside the mark: 5 ms to the vehicle, 35 ms back",
        for_browsers: false,
        measure: Measure::Steady {
            link: "to-rov delay=5ms; to-topside delay=35ms",
            // Half of the asymmetry cannot be known.
            judge: |run| run.age(20.0),
        },
        ..STEADY
    },
    Row {
        name: "age-lossy",
        condition: "age beside the mark: 20 ± 5 ms each way, 1 % loss",
        for_browsers: false,
        measure: Measure::Steady { link: "delay=20ms jitter=5ms loss=1%", judge: |run| run.age(5.0) },
        ..STEADY
    },
    Row {
        name: "late",
        condition: "a queue of 2 s before a link of 2 Mbit/s, which the server does not follow, then no limit",
        server: &["--adaptive", "off"],
        for_browsers: false,
        measure: Measure::Event(events::late),
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
    Row {
        name: "rate",
        condition: "2 Mbit/s for 20 s, then no limit",
        measure: Measure::Event(events::rate),
        ..STEADY
    },
    Row { name: "outage-2s", condition: "outage of 2 s", measure: Measure::Event(events::short_outage), ..STEADY },
    Row { name: "outage-60s", condition: "outage of 60 s", measure: Measure::Event(events::long_outage), ..STEADY },
    Row {
        name: "server-killed",
        condition: "server killed and restarted",
        measure: Measure::Event(events::server_killed),
        ..STEADY
    },
    Row {
        name: "subnet",
        condition: "server's address moves to another subnet",
        // The page is at an address: only who reloads it at the new one can see it again.
        for_browsers: false,
        measure: Measure::Event(events::other_subnet),
        ..STEADY
    },
    Row {
        name: "camera-dies",
        condition: "camera dies for 3 s",
        measure: Measure::Event(events::camera_dies),
        ..STEADY
    },
    Row {
        name: "recorded-killed",
        condition: "server killed while it records, 0 to 3 s after the recording began, 50 times",
        measure: Measure::Alone(recorded::killed),
        ..RECORDED
    },
    Row {
        name: "recorded-turns",
        condition: "8 s without and with a recording on the vehicle in turns",
        server: &["--record-when", "on-request", "--view", "open", "--user", CONTROLLER.0, "--password", CONTROLLER.1],
        measure: Measure::Alone(events::recording_in_turns),
        ..RECORDED
    },
    Row {
        name: "recorded-outage",
        condition: "recording at both ends: outage of 10 s",
        measure: Measure::Recorded(Dive { outage: Some((11, 11)), ..recorded::DIVE }),
        ..RECORDED
    },
    Row {
        name: "recorded-slow",
        condition: "recording at both ends: 3 Mbit/s, outage of 10 s",
        measure: Measure::Recorded(Dive {
            link: "to-topside rate=3Mbit queue=250ms",
            outage: Some((10, 3)),
            ..recorded::DIVE
        }),
        ..RECORDED
    },
    Row {
        name: "recorded-loss",
        condition: "recording at both ends: 5 % loss",
        measure: Measure::Recorded(Dive { link: "loss=5%", ..recorded::DIVE }),
        ..RECORDED
    },
    Row {
        name: "recorded-rtp",
        condition: "recording at both ends: RTP multicast, outage of 10 s",
        server: &["--ring", "240s", "--transport", "webrtc,rtp"],
        client: &["--auto", "--transport", "rtp"],
        measure: Measure::Recorded(Dive { outage: Some((10, 3)), is_timed: false, ..recorded::DIVE }),
        ..RECORDED
    },
    Row {
        name: "rtp",
        condition: "RTP multicast, 1 % loss",
        server: &["--transport", "webrtc,rtp"],
        client: &["--transport", "rtp"],
        for_browsers: false,
        measure: Measure::Steady {
            link: "loss=1%",
            judge: |run| vec![run.longest_freeze().at_most(1100.0).or_loosely(Limit::AtMost(3500.0))],
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
            judge: |run| vec![run.longest_freeze().at_most(100.0).or_loosely(Limit::AtMost(700.0))],
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

    /// Pictures come all the time, for as long as is wanted.
    pub fn is_steady(&self) -> bool {
        matches!(self.measure, Measure::Steady { .. })
    }

    /// What the client learnt of the server's clock over a better link would be of use over this one.
    fn is_so_from_the_start(&self) -> bool {
        matches!(self.name, "age-far" | "age-asymmetric" | "age-lossy")
    }

    /// Runs it. `lossless` is the 99th percentile of the latency of the lossless run, in milliseconds.
    pub fn run(&self, conduct: &Conduct) -> Result<Vec<Figure>> {
        let mut bench = Bench::new(conduct.viewer, conduct.seed, conduct.is_short, self.server)?;
        let mut figures = match &self.measure {
            Measure::Steady { link, judge } => {
                bench.start_server()?;
                if self.is_so_from_the_start() {
                    bench.lab.links(link)?;
                }
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
            Measure::Alone(measure) => measure(&mut bench, conduct)?,
            Measure::Recorded(dive) => dive.run(&mut bench, self.client, conduct)?,
        };
        let [_, late, _] = bench.lab.figures().late;
        figures.push(Figure::new("late on the link, 99th percentile", late.as_secs_f64() * 1e3, "ms"));
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
