//! Rows in which pictures come all the time, over a link that stays as it is.

use std::time::Duration;

use anyhow::Result;
use rov_client::stats::Report;
use rov_common::api::ViewerStats;

use crate::bench::{Bench, FPS, Snapshot, ViewerKind};
use crate::figures::{Figure, Limit};
use crate::rows::{Conduct, NEW_SESSIONS};
use crate::seen::{Seen, Span};

/// The name of the figure of the lossless run with which others are compared.
pub const P99: &str = "latency, 99th percentile";

/// What was seen and counted in the time of the row.
pub struct Steady<'a> {
    seen: Vec<Seen>,
    before: Snapshot,
    after: Snapshot,
    /// Warnings that pictures are late, which begin in this time.
    warnings: usize,
    conduct: &'a Conduct,
}

impl<'a> Steady<'a> {
    pub fn measure(bench: &mut Bench, link: &str, conduct: &'a Conduct) -> Result<Self> {
        bench.lab.links(link)?;
        let before = bench.snapshot()?;
        bench.pass(Duration::from_secs(conduct.seconds))?;
        let after = bench.snapshot()?;
        let seen = bench.written()?.to_vec();
        let began = |(at, is_late): &&(u64, bool)| *is_late && (before.at..=after.at).contains(at);
        let warnings = bench.warned().iter().filter(began).count();
        Ok(Self { seen, warnings, before, after, conduct })
    }

    fn span(&self) -> Span<'_> {
        Span::of(&self.seen, self.before.at, self.after.at)
    }

    pub fn longest_freeze(&self) -> Figure {
        Figure::new("longest freeze", self.span().longest_freeze_ms(), "ms")
    }

    /// The latency, which is to be at most so much above that of the lossless run.
    pub fn above(&self, limit: f64) -> Figure {
        let p99 = self.span().latency_ms(0.99).zip(self.conduct.lossless_p99);
        let above = p99.map(|(p99, lossless)| p99 - lossless);
        Figure::new("latency above the lossless run, 99th percentile", above, "ms")
            .at_most(limit)
            .or_loosely(Limit::AtMost(2000.0))
    }

    /// How far the ages that rov-client tells are from the marks of the same pictures, and the bound that it tells.
    pub fn age(&self, limit: f64) -> Vec<Figure> {
        let found = self.span().age_error_ms(0.95);
        let error = Figure::new("age beside the mark, 95 % within", found.map(|found| found.0), "ms").at_most(limit);
        vec![
            error.or_loosely(Limit::AtMost(100.0)),
            Figure::new("stated bound of the age", found.map(|found| found.1), "ms"),
            Figure::new("warnings that the picture is late", self.warnings as f64, "")
                .at_most(0.0)
                .or_loosely(Limit::AtMost(9.0)),
        ]
    }

    /// What rov-client has counted.
    pub fn counted(&self, name: &str, counter: impl Fn(&Report) -> u64) -> Option<Figure> {
        let is_known = self.conduct.viewer == ViewerKind::Client;
        let count = counter(&self.after.report).saturating_sub(counter(&self.before.report));
        is_known.then(|| Figure::new(name, count as f64, ""))
    }

    fn is_webrtc(&self) -> bool {
        self.after.stats.viewers.iter().any(|viewer| viewer.packets > 0)
    }

    /// By WebRTC, as the server counts them.
    pub fn keyframes_asked_for(&self) -> Figure {
        Figure::new("keyframes asked for", self.of_viewers(|viewer| viewer.plis) as f64, "")
    }

    /// Of the packets that were sent to the viewer, by WebRTC.
    pub fn retransmissions(&self) -> Figure {
        let (packets, asked) = (self.of_viewers(|viewer| viewer.packets), self.of_viewers(|viewer| viewer.nacks));
        let share = (packets > 0).then(|| 100.0 * asked as f64 / packets as f64);
        Figure::new("packets asked for again", share, "%")
    }

    fn of_viewers(&self, count: fn(&ViewerStats) -> u64) -> u64 {
        let sum = |snapshot: &Snapshot| snapshot.stats.viewers.iter().map(count).sum::<u64>();
        sum(&self.after).saturating_sub(sum(&self.before))
    }

    /// What every row shows beside its own.
    pub fn common(&self) -> Vec<Figure> {
        let span = self.span();
        let seconds = (self.after.at - self.before.at) as f64 / 1e6;
        let link = (self.after.link_bytes - self.before.link_bytes) as f64 * 8.0 / seconds / 1e6;
        let shown = Figure::new("pictures shown", 100.0 * span.shown_share(FPS), "%");
        let mut figures = vec![
            Figure::new("corrupt pictures", span.corrupt() as f64, "").at_most(0.0),
            // Plain RTP loses all up to the next keyframe.
            if self.is_webrtc() { shown.or_loosely(Limit::AtLeast(30.0)) } else { shown },
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
