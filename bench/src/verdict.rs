//! What was to be reached, beside what was measured: ratios and differences of figures of one run, as absolute times
//! belong to the machine. Pure.

use netlab::figures::Figure;
use serde::Serialize;

use crate::figures::{Pictures, Quantiles};
use crate::point::PointName;
use crate::run::Run;
use crate::subject::Subject::{self, *};
use crate::table::Row;

/// A line of the verdict.
#[derive(Debug, Serialize)]
pub struct Line {
    pub figure: Figure,
    /// Which figures it comes from, in words; empty where it is one of the table itself.
    pub of: String,
}

impl Line {
    pub fn markdown(&self) -> String {
        let Self { figure, of } = self;
        let of = if of.is_empty() { String::new() } else { format!(" ({of})") };
        let met = if figure.is_met() == Some(true) { "yes" } else { "**no**" };
        format!("| {} | {} | {}{of} | {met} |\n", figure.name, figure.to_reach(), figure.measured())
    }
}

/// Of the rows of a point: a line for each demand whose subjects were to run.
pub fn verdict(point: PointName, rows: &[Row]) -> Vec<Line> {
    let mut verdict = Verdict { rows, lines: Vec::new() };
    match point {
        PointName::P720At30 | PointName::P1080At30 | PointName::P1080At60 => verdict.pictures(),
        PointName::P360At30 => verdict.cameras(),
        PointName::P720Two => verdict.second_stream(),
        PointName::P720File => verdict.fan_out(),
        PointName::P1080File => verdict.viewers(),
        PointName::P2160At60 => verdict.clip(),
        PointName::P2160At60Large => verdict.large_clip(),
    }
    if matches!(point, PointName::P1080At30 | PointName::P1080At60) {
        verdict.memory();
    }
    if point == PointName::P1080At30 {
        verdict.recorded();
    }
    verdict.lines
}

struct Verdict<'a> {
    rows: &'a [Row],
    lines: Vec<Line>,
}

impl Verdict<'_> {
    fn pictures(&mut self) {
        for (name, quantile) in [("p50", P50), ("p99", P99)] {
            let what = |other| format!("rov-client's decoder by WebRTC: {name} over that of {other}");
            self.later(what("plain UDP"), [Webrtc, Udp], quantile, |figure| figure.at_most(0.5));
            self.later(what("webrtcbin"), [Webrtc, Webrtcbin], quantile, |figure| figure.at_most(0.0));
        }
        let what = "rov-client's window: p50 over that of plain UDP into a window".to_owned();
        self.later(what, [Window, UdpWindow], P50, |figure| figure.at_most(0.0));
        self.times(
            "rov-client's window: CPU of the client, to that of plain UDP into a window",
            1.1,
            [Window, UdpWindow],
            |run| Some(run.client?.cpu_ms_per_s),
        );
        for (subject, name) in [(Rtp, "RTP"), (Rtsp, "RTSP")] {
            let what = format!("{name} output: p50 over that of plain UDP");
            self.later(what, [subject, Udp], P50, |figure| figure.at_most(0.3));
        }
        let what = "Chromium: p50 under that of webrtcbin to Chromium".to_owned();
        self.later(what, [WebrtcbinBrowser, Browser], P50, |figure| figure.at_least(8.0));
        self.first_picture();
        self.idle();
        let drift = |run: &Run| Some(100.0 * (run.pictures.drift? - 1.0));
        if self.run(Webrtc).flatten().and_then(drift).is_some() {
            self.one("p50 of the last minute over that of the first", Webrtc, drift, "%", |figure| figure.at_most(5.0));
        }
    }

    fn first_picture(&mut self) {
        let subject = if self.run(Window).is_some() { Window } else { Webrtc };
        let name = "rov-client --auto: from its start to the first picture";
        self.one(name, subject, |run| run.first_picture_ms, "ms", |figure| figure.at_most(400.0));
        let others = [(Webrtcbin, "webrtcbin"), (RtspUdp, "RTSP")].into_iter();
        let others = others.filter_map(|(subject, name)| {
            let ms = self.run(subject)??.first_picture_ms?;
            Some(format!("{name} {ms:.0}"))
        });
        let of = others.collect::<Vec<_>>().join(", ");
        if let Some(line) = self.lines.last_mut().filter(|line| line.figure.name == name) {
            line.of = of;
        }
    }

    fn idle(&mut self) {
        let Some(run) = self.run(Webrtc) else { return };
        let idle = run.and_then(|run| Some((run.idle_cpu_ms_per_s?, run.server.cpu_ms_per_s)));
        let figure = Figure::new(
            "idle: CPU of the server without a viewer, to that with one",
            idle.map(|(idle, busy)| idle / busy),
            "times",
        );
        let of = idle.map_or(String::new(), |(idle, busy)| format!("{idle:.0} and {busy:.0} ms/s"));
        self.lines.push(Line { figure: figure.at_most(1.0 / 3.0), of });
        let name = "idle: first picture for a new viewer then";
        self.one(name, Webrtc, |run| run.first_picture_ms, "ms", |figure| figure.at_most(400.0));
    }

    fn memory(&mut self) {
        let server = |run: &Run| Some(run.server.memory_mib);
        self.one("memory of the server with 8 viewers", Webrtc8, server, "MiB", |figure| figure.at_most(100.0));
        let client = |run: &Run| Some(run.client?.memory_mib);
        self.one("memory of rov-client", Window, client, "MiB", |figure| figure.at_most(120.0));
    }

    fn recorded(&mut self) {
        let what = "while the server records: p99 over that without".to_owned();
        self.later(what, [Recorded, Webrtc], P99, |figure| figure.at_most(0.5));
        let Some(values) = self.both([Recorded, Webrtc], SERVER_CPU) else { return };
        let figure = Figure::new("while the server records: CPU of it more", values.map(|[on, off]| on - off), "ms/s");
        let of = values.map_or(String::new(), |[on, off]| format!("{on:.1} and {off:.1}"));
        self.lines.push(Line { figure: figure.at_most(20.0), of });
    }

    fn cameras(&mut self) {
        self.times("four cameras: CPU of the server to that with one", 4.0, [Cameras4, Webrtc], SERVER_CPU);
    }

    fn second_stream(&mut self) {
        let what = "a second stream that nobody watches: CPU of the server to that without";
        self.times(what, 1.05, [Stream2Resting, Webrtc], SERVER_CPU);
        self.times("a second stream: CPU of the server to that of two servers", 1.0, [Stream2, TwoServers], SERVER_CPU);
        // That has the second encode, and nothing else of the second stream.
        for (subject, how) in [(Stream2, "watched"), (Stream2Visits, "started and stopped"), (Stream2Choked, "choked")]
        {
            let what = format!("a second stream {how}: p99 of the first over that with two servers");
            self.later(what, [subject, TwoServers], P99, |figure| figure.at_most(1.0));
        }
    }

    /// Beside Janus, where that lasts.
    fn fan_out(&mut self) {
        for (viewers, subject, janus) in [(8, Webrtc8, Janus8), (32, Webrtc32, Janus32)] {
            self.intact(&format!("{viewers} viewers: "), subject);
            if self.run(janus).flatten().is_none() {
                continue;
            }
            let what = format!("{viewers} viewers: CPU of the server to that of Janus");
            self.times(&what, 0.5, [subject, janus], SERVER_CPU);
            let what = format!("{viewers} viewers: p99 of the worst over that by Janus");
            self.later(what, [subject, janus], P99, |figure| figure.at_most(0.0));
        }
    }

    fn clip(&mut self) {
        self.intact("", Webrtc);
        let p50 = |run: &Run| Some(run.pictures.latency_ms.p50);
        self.one("first packet sent to access unit received: p50", Webrtc, p50, "ms", |figure| figure.at_most(2.5));
        let cpu = |run: &Run| Some(run.server.cpu_ms_per_s);
        self.one("CPU of the server", Webrtc, cpu, "ms/s", |figure| figure.at_most(80.0));
    }

    fn large_clip(&mut self) {
        self.intact("", Webrtc);
        let received = |run: &Run| {
            let stages = &run.pictures.stages_ms;
            Some(stages.iter().find(|stage| stage.name == crate::tally::RECEIVED)?.p50)
        };
        self.one("first packet sent to last received: p50", Webrtc, received, "ms", |figure| figure.at_most(3.0));
        let sending = |run: &Run| Some(run.server.network_cpu_ms_per_s);
        self.one("CPU of the server's sending", Webrtc, sending, "ms/s", |figure| figure.at_most(110.0));
        let receiving = |run: &Run| Some(run.client?.network_cpu_ms_per_s);
        self.one("CPU of the client's receiving", Webrtc, receiving, "ms/s", |figure| figure.at_most(150.0));
    }

    fn viewers(&mut self) {
        let sending = |run: &Run| Some(run.server.network_cpu_ms_per_s);
        self.one("8 viewers: CPU of the server's sending", Webrtc8, sending, "ms/s", |figure| figure.at_most(80.0));
        self.intact("", Webrtc8);
        self.times("8 viewers: p99 of the worst, to that of a single one", 3.0, [Webrtc8, Webrtc], |run| {
            Some(run.pictures.latency_ms.p99)
        });
    }

    /// In all runs together: a median would leave out what one of them lost.
    fn intact(&mut self, whose: &str, subject: Subject) {
        let Some(row) = self.rows.iter().find(|row| row.subject == subject) else { return };
        let sum = |count: fn(&Pictures) -> u64| row.runs.iter().map(|run| count(&run.pictures)).sum::<u64>();
        let bad = sum(|pictures| pictures.made.saturating_sub(pictures.shown) + pictures.damaged);
        let bad = (!row.runs.is_empty()).then_some(bad as f64);
        let figure = Figure::new(&format!("{whose}access units lost or damaged"), bad, "").at_most(0.0);
        let of = if row.runs.is_empty() { String::new() } else { format!("of {}", sum(|pictures| pictures.made)) };
        self.lines.push(Line { figure, of });
    }

    /// The medians of a subject; none within where all its runs failed, none at all where it was not to run.
    fn run(&self, subject: Subject) -> Option<Option<&Run>> {
        let row = self.rows.iter().find(|row| row.subject == subject)?;
        Some((!row.runs.is_empty()).then_some(&row.median))
    }

    fn one(
        &mut self,
        name: &str,
        subject: Subject,
        value: impl Fn(&Run) -> Option<f64>,
        unit: &str,
        limit: fn(Figure) -> Figure,
    ) {
        let Some(run) = self.run(subject) else { return };
        let figure = limit(Figure::new(name, run.and_then(value), unit));
        self.lines.push(Line { figure, of: String::new() });
    }

    /// By how much the first is later than the second.
    fn later(&mut self, name: String, of: [Subject; 2], quantile: fn(&Quantiles) -> f64, limit: fn(Figure) -> Figure) {
        let Some(values) = self.both(of, |run| Some(quantile(&run.pictures.latency_ms))) else { return };
        let figure = limit(Figure::new(&name, values.map(|[one, other]| one - other), "ms"));
        let of = values.map_or(String::new(), |[one, other]| format!("{one:.1} and {other:.1}"));
        self.lines.push(Line { figure, of });
    }

    fn times(&mut self, name: &str, limit: f64, of: [Subject; 2], value: fn(&Run) -> Option<f64>) {
        let Some(values) = self.both(of, value) else { return };
        let ratio = values.filter(|[_, other]| *other > 0.0).map(|[one, other]| one / other);
        let of = values.map_or(String::new(), |[one, other]| format!("{one:.1} and {other:.1}"));
        self.lines.push(Line { figure: Figure::new(name, ratio, "times").at_most(limit), of });
    }

    fn both(&self, of: [Subject; 2], value: impl Fn(&Run) -> Option<f64>) -> Option<Option<[f64; 2]>> {
        let [one, other] = of.map(|subject| self.run(subject));
        let (one, other) = (one?, other?);
        Some(one.and_then(&value).zip(other.and_then(&value)).map(|(one, other)| [one, other]))
    }
}

const SERVER_CPU: fn(&Run) -> Option<f64> = |run| Some(run.server.cpu_ms_per_s);
const P50: fn(&Quantiles) -> f64 = |quantiles| quantiles.p50;
const P99: fn(&Quantiles) -> f64 = |quantiles| quantiles.p99;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figures::Stage;
    use crate::run::Cost;

    fn run(p50: f64, p99: f64) -> Run {
        let cost = |cpu_ms_per_s, memory_mib| Cost { cpu_ms_per_s, network_cpu_ms_per_s: 70.0, memory_mib };
        let mut run = Run {
            first_picture_ms: Some(300.0),
            server: cost(150.0, 60.0),
            client: Some(cost(100.0, 80.0)),
            ..Run::default()
        };
        run.pictures.latency_ms = Quantiles { p50, p99, ..Quantiles::default() };
        (run.pictures.made, run.pictures.shown) = (90, 90);
        run
    }

    fn row(subject: Subject, run: Run) -> Row {
        Row::new(subject, vec![run], Vec::new())
    }

    fn texts(point: PointName, rows: &[Row]) -> Vec<String> {
        verdict(point, rows).iter().map(Line::markdown).collect()
    }

    #[test]
    fn a_demand_is_a_difference_or_a_ratio_within_the_run() {
        let mut webrtc = run(6.4, 9.0);
        webrtc.idle_cpu_ms_per_s = Some(30.0);
        let rows = [row(Udp, run(6.0, 8.0)), row(Webrtc, webrtc), row(Webrtcbin, run(7.0, 8.5))];
        let expected = [
            "| rov-client's decoder by WebRTC: p50 over that of plain UDP | at most 0.50 ms | 0.40 ms (6.4 and 6.0) | \
             yes |\n",
            "| rov-client's decoder by WebRTC: p50 over that of webrtcbin | at most 0 ms | -0.60 ms (6.4 and 7.0) | \
             yes |\n",
            "| rov-client's decoder by WebRTC: p99 over that of plain UDP | at most 0.50 ms | 1 ms (9.0 and 8.0) | \
             **no** |\n",
            "| rov-client's decoder by WebRTC: p99 over that of webrtcbin | at most 0 ms | 0.50 ms (9.0 and 8.5) | \
             **no** |\n",
            "| rov-client --auto: from its start to the first picture | at most 400 ms | 300 ms (webrtcbin 300) | yes \
             |\n",
            "| idle: CPU of the server without a viewer, to that with one | at most 0.33 times | 0.20 times (30 and \
             150 ms/s) | yes |\n",
            "| idle: first picture for a new viewer then | at most 400 ms | 300 ms | yes |\n",
        ];
        assert_eq!(texts(PointName::P720At30, &rows), expected);
    }

    #[test]
    fn windows_browsers_and_outputs_are_beside_their_references() {
        let rows = [
            row(Udp, run(6.0, 8.0)),
            row(Rtp, run(6.2, 8.0)),
            row(Rtsp, run(6.5, 8.0)),
            row(Window, run(8.0, 9.0)),
            row(UdpWindow, Run { client: Some(Cost { cpu_ms_per_s: 80.0, ..Cost::default() }), ..run(9.0, 9.0) }),
            row(Browser, run(12.0, 20.0)),
            row(WebrtcbinBrowser, run(32.0, 40.0)),
            row(Webrtc8, run(6.0, 8.0)),
        ];
        let met: Vec<bool> =
            verdict(PointName::P1080At30, &rows).iter().map(|line| line.figure.is_met() == Some(true)).collect();
        // Window: p50, CPU; RTP, RTSP; Chromium; first picture; memory of server and client.
        assert_eq!(met, [true, false, true, false, true, true, true, true]);
    }

    #[test]
    fn what_failed_is_not_met_and_what_was_not_to_run_is_left_out() {
        let rows = [row(Udp, run(6.0, 8.0)), Row::new(Rtp, Vec::new(), vec!["no port".to_owned()])];
        let expected = "| RTP output: p50 over that of plain UDP | at most 0.30 ms | not at all | **no** |\n";
        assert_eq!(texts(PointName::P720At30, &rows), [expected]);
        assert!(texts(PointName::P2160At60, &rows).is_empty());
    }

    #[test]
    fn clips_must_arrive_whole() {
        let mut webrtc = run(1.5, 4.0);
        webrtc.pictures.shown = 89;
        webrtc.pictures.damaged = 1;
        webrtc.pictures.stages_ms = vec![Stage { name: crate::tally::RECEIVED.to_owned(), p50: 2.0, p95: 3.0 }];
        let rows = [row(Webrtc, webrtc), row(Webrtc8, run(2.0, 13.0))];
        let lost = "| access units lost or damaged | at most 0 | 2 (of 90) | **no** |\n";
        let small = texts(PointName::P2160At60, &rows);
        assert_eq!(small[0], lost);
        assert_eq!(small[2], "| CPU of the server | at most 80 ms/s | 150 ms/s | **no** |\n");
        let large = texts(PointName::P2160At60Large, &rows);
        assert_eq!(large[1], "| first packet sent to last received: p50 | at most 3 ms | 2 ms | yes |\n");
        assert_eq!(large[3], "| CPU of the client's receiving | at most 150 ms/s | 70 ms/s | yes |\n");
        let eight = texts(PointName::P1080File, &rows);
        assert_eq!(eight[0], "| 8 viewers: CPU of the server's sending | at most 80 ms/s | 70 ms/s | yes |\n");
        assert!(eight[2].ends_with("| at most 3 times | 3.25 times (13.0 and 4.0) | **no** |\n"), "{}", eight[2]);
    }

    #[test]
    fn a_second_stream_is_beside_the_same_encode_by_another_server() {
        let with_cpu = |subject, p99, cpu_ms_per_s| {
            row(subject, Run { server: Cost { cpu_ms_per_s, ..Cost::default() }, ..run(5.0, p99) })
        };
        let rows = [
            with_cpu(Webrtc, 7.0, 100.0),
            with_cpu(Stream2Resting, 7.0, 104.0),
            with_cpu(Stream2, 9.4, 150.0),
            with_cpu(Stream2Choked, 10.0, 130.0),
            with_cpu(TwoServers, 8.5, 160.0),
            with_cpu(Cameras4, 7.0, 390.0),
        ];
        let met = |point| -> Vec<bool> {
            verdict(point, &rows).iter().map(|line| line.figure.is_met() == Some(true)).collect()
        };
        assert_eq!(met(PointName::P720Two), [true, true, true, false]);
        assert_eq!(met(PointName::P360At30), [true]);
    }

    #[test]
    fn a_recording_is_beside_the_same_without() {
        let with_cpu = |subject, p99, cpu_ms_per_s| {
            row(subject, Run { server: Cost { cpu_ms_per_s, ..Cost::default() }, ..run(5.0, p99) })
        };
        let rows = [with_cpu(Webrtc, 7.0, 400.0), with_cpu(Recorded, 7.6, 410.0)];
        let lines: Vec<_> = verdict(PointName::P1080At30, &rows)
            .into_iter()
            .filter(|line| line.figure.name.starts_with("while the server records"))
            .map(|line| line.figure.is_met() == Some(true))
            .collect();
        assert_eq!(lines, [false, true]);
    }

    #[test]
    fn a_fan_out_is_beside_that_of_janus_where_it_lasts() {
        let janus = Run { server: Cost { cpu_ms_per_s: 250.0, ..Cost::default() }, ..run(3.0, 9.0) };
        let rows = [
            row(Webrtc8, run(1.0, 8.0)),
            row(Webrtc32, run(1.0, 8.0)),
            row(Janus8, janus),
            Row::new(Janus32, Vec::new(), vec!["it ended".to_owned()]),
        ];
        let expected = [
            "| 8 viewers: access units lost or damaged | at most 0 | 0 (of 90) | yes |\n",
            "| 8 viewers: CPU of the server to that of Janus | at most 0.50 times | 0.60 times (150.0 and 250.0) | \
             **no** |\n",
            "| 8 viewers: p99 of the worst over that by Janus | at most 0 ms | -1 ms (8.0 and 9.0) | yes |\n",
            "| 32 viewers: access units lost or damaged | at most 0 | 0 (of 90) | yes |\n",
        ];
        assert_eq!(texts(PointName::P720File, &rows), expected);
    }

    #[test]
    fn what_one_run_lost_is_lost() {
        let mut lossy = run(1.5, 4.0);
        lossy.pictures.shown = 83;
        let rows = [Row::new(Webrtc, vec![run(1.5, 4.0), lossy, run(1.5, 4.0)], Vec::new())];
        let expected = "| access units lost or damaged | at most 0 | 7 (of 270) | **no** |\n";
        assert_eq!(texts(PointName::P2160At60, &rows)[0], expected);
        let rows = [Row::new(Webrtc, Vec::new(), vec!["no path".to_owned()])];
        let expected = "| access units lost or damaged | at most 0 | not at all | **no** |\n";
        assert_eq!(texts(PointName::P2160At60, &rows)[0], expected);
    }

    #[test]
    fn an_hour_has_a_line_of_its_own() {
        let mut webrtc = run(6.0, 8.0);
        webrtc.pictures.drift = Some(1.06);
        let last = texts(PointName::P720At30, &[row(Webrtc, webrtc)]).pop().unwrap();
        assert_eq!(last, "| p50 of the last minute over that of the first | at most 5 % | 6.0 % | **no** |\n");
    }
}
