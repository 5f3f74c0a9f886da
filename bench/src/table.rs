//! Medians over the runs, as JSON and as a table in Markdown. Pure.

use netlab::figures::median;
use serde::Serialize;

use crate::figures::{Quantiles, Stage};
use crate::point::Point;
use crate::run::{Cost, Run};
use crate::subject::Subject;
use crate::verdict::Line;

/// All that was measured at a point.
#[derive(Debug, Serialize)]
pub struct Results {
    pub name: String,
    pub point: Point,
    /// A clip was passed through: latency is from the first packet sent to the access unit received.
    pub is_clip: bool,
    /// What the link between the two sides was made to do.
    pub impair: Vec<String>,
    pub seconds: f64,
    pub machine: String,
    /// Of the end, in UTC.
    pub date: String,
    pub rows: Vec<Row>,
    pub verdict: Vec<Line>,
}

/// A subject.
#[derive(Debug, Serialize)]
pub struct Row {
    pub subject: Subject,
    pub is_project: bool,
    /// Of each figure alone.
    pub median: Run,
    /// Median of the runs' p50 by that of plain UDP; none without both.
    pub to_udp: Option<f64>,
    pub runs: Vec<Run>,
    /// Runs that failed, and why.
    pub failures: Vec<String>,
}

impl Row {
    pub fn new(subject: Subject, runs: Vec<Run>, failures: Vec<String>) -> Self {
        Self { subject, is_project: subject.is_project(), median: medians(&runs), to_udp: None, runs, failures }
    }
}

/// Sets the ratios to plain UDP.
pub fn compare(rows: &mut [Row]) {
    let udp = rows.iter().find(|row| row.subject == Subject::Udp && !row.runs.is_empty());
    let udp = udp.map(|row| row.median.pictures.latency_ms.p50).filter(|p50| *p50 > 0.0);
    for row in rows.iter_mut().filter(|row| !row.runs.is_empty()) {
        row.to_udp = udp.map(|udp| row.median.pictures.latency_ms.p50 / udp);
    }
}

fn medians(runs: &[Run]) -> Run {
    let of = |value: &dyn Fn(&Run) -> f64| median(runs.iter().map(value)).unwrap_or_default();
    let some = |value: &dyn Fn(&Run) -> Option<f64>| median(runs.iter().filter_map(value));
    let count = |value: &dyn Fn(&Run) -> u64| of(&|run| value(run) as f64).round() as u64;
    let cost = |cost: &dyn Fn(&Run) -> Option<Cost>| {
        some(&|run| Some(cost(run)?.cpu_ms_per_s)).map(|cpu_ms_per_s| Cost {
            cpu_ms_per_s,
            network_cpu_ms_per_s: some(&|run| Some(cost(run)?.network_cpu_ms_per_s)).unwrap_or_default(),
            memory_mib: some(&|run| Some(cost(run)?.memory_mib)).unwrap_or_default(),
        })
    };
    let mut run = Run {
        first_picture_ms: some(&|run| run.first_picture_ms),
        server: cost(&|run| Some(run.server)).unwrap_or_default(),
        client: cost(&|run| run.client),
        idle_cpu_ms_per_s: some(&|run| run.idle_cpu_ms_per_s),
        x_server: cost(&|run| run.x_server),
        wire_mbps: of(&|run| run.wire_mbps),
        encode_ms: some(&|run| run.encode_ms),
        ..Run::default()
    };
    let pictures = &mut run.pictures;
    pictures.latency_ms = Quantiles {
        p50: of(&|run| run.pictures.latency_ms.p50),
        p95: of(&|run| run.pictures.latency_ms.p95),
        p99: of(&|run| run.pictures.latency_ms.p99),
        max: of(&|run| run.pictures.latency_ms.max),
    };
    pictures.made = count(&|run| run.pictures.made);
    pictures.shown = count(&|run| run.pictures.shown);
    pictures.repeated = count(&|run| run.pictures.repeated);
    pictures.damaged = count(&|run| run.pictures.damaged);
    pictures.drift = some(&|run| run.pictures.drift);
    pictures.gaps_over_200_ms = count(&|run| run.pictures.gaps_over_200_ms);
    let names = runs.first().map(|run| run.pictures.stages_ms.as_slice()).unwrap_or_default();
    let stage = |name: &str, value: fn(&Stage) -> f64| {
        let stages = runs.iter().filter_map(|run| run.pictures.stages_ms.iter().find(|stage| stage.name == name));
        median(stages.map(value)).unwrap_or_default()
    };
    pictures.stages_ms = names
        .iter()
        .map(|first| Stage {
            name: first.name.clone(),
            p50: stage(&first.name, |stage| stage.p50),
            p95: stage(&first.name, |stage| stage.p95),
        })
        .collect();
    run
}

impl Results {
    pub fn markdown(&self) -> String {
        let Point { width, height, fps, kbps } = self.point;
        let repeat = self.rows.iter().map(|row| row.runs.len()).max().unwrap_or(0);
        let mut text = format!(
            "{width}x{height} at {fps} fps, {} Mbit/s{}; median of {repeat} interleaved runs of {} s; {}; {}.\n\n",
            f64::from(kbps) / 1000.0,
            self.impair.iter().map(|spec| format!(", link: {spec}")).collect::<String>(),
            self.seconds,
            self.machine,
            self.date
        );
        let (latency, shown) = match self.is_clip {
            false => ("latency", "shown of made"),
            true => ("first packet sent to access unit received", "received of sent"),
        };
        text += &format!(
            "| | {latency} p50 / p95 / p99 / max, ms | p50 to UDP's | {shown} | repeated, damaged, gaps over 200 ms | \
                 first picture, ms | CPU server + client (+ X server), ms/s | memory server, client, MiB | on the \
                 wire, Mbit/s |\n\
                 |---|---|---|---|---|---|---|---|---|\n"
        );
        for row in &self.rows {
            text += &row.markdown();
        }
        let stages: String = self.rows.iter().filter_map(Row::stages).collect();
        if !stages.is_empty() {
            text += "\n| stages, p50 / p95 in ms | |\n|---|---|\n";
            text += &stages;
        }
        for row in &self.rows {
            if let Some(idle) = row.median.idle_cpu_ms_per_s {
                text += &format!(
                    "\nWithout a viewer rov-server takes {idle:.0} ms/s of CPU, with one {:.0}.\n",
                    row.median.server.cpu_ms_per_s
                );
            }
            if let Some((server, client)) = row.network() {
                let name = row.subject.name();
                text += &format!(
                    "\n{name}: of the CPU, sockets and encryption are {server:.0} ms/s of the server's and {client:.0} \
                     of the client's.\n"
                );
            }
            if let Some(drift) = row.median.pictures.drift {
                let name = row.subject.name();
                text += &format!("\n{name}: p50 of the last minute is {drift:.2} times that of the first.\n");
            }
            for failure in &row.failures {
                text += &format!("\nA run of {} failed: {}\n", row.subject.name(), failure.replace('\n', " "));
            }
        }
        if !self.verdict.is_empty() {
            text += "\n| what | to reach | measured | met |\n|---|---|---|---|\n";
            text.extend(self.verdict.iter().map(Line::markdown));
        }
        text
    }
}

impl Row {
    /// What sending and receiving take, where other threads do that than GStreamer's.
    fn network(&self) -> Option<(f64, f64)> {
        let is_own = matches!(self.subject, Subject::Webrtc | Subject::Webrtc8 | Subject::Webrtc32);
        let client = self.median.client.filter(|_| is_own)?;
        Some((self.median.server.network_cpu_ms_per_s, client.network_cpu_ms_per_s))
    }

    fn title(&self) -> String {
        let name = self.subject.name();
        if self.is_project { format!("**{name}**") } else { name }
    }

    fn markdown(&self) -> String {
        if self.runs.is_empty() {
            return format!("| {} | failed | | | | | | | |\n", self.title());
        }
        let Run { pictures, server, client, x_server, .. } = &self.median;
        let Quantiles { p50, p95, p99, max } = pictures.latency_ms;
        let ratio = self.to_udp.map_or("-".to_owned(), |ratio| format!("{ratio:.2}"));
        let first = self.median.first_picture_ms.map_or("-".to_owned(), |ms| format!("{ms:.0}"));
        let plus = |cost: &Option<Cost>| cost.map_or(String::new(), |cost| format!(" + {:.0}", cost.cpu_ms_per_s));
        let client_cpu = plus(client) + &plus(x_server);
        let client_memory = client.map_or(String::new(), |cost| format!(", {:.0}", cost.memory_mib));
        format!(
            "| {} | {p50:.1} / {p95:.1} / {p99:.1} / {max:.1} | {ratio} | {} of {} | {}, {}, {} | {first} | \
             {:.0}{client_cpu} | {:.0}{client_memory} | {:.1} |\n",
            self.title(),
            pictures.shown,
            pictures.made,
            pictures.repeated,
            pictures.damaged,
            pictures.gaps_over_200_ms,
            server.cpu_ms_per_s,
            server.memory_mib,
            self.median.wire_mbps,
        )
    }

    /// None where nothing is known of them.
    fn stages(&self) -> Option<String> {
        let encoded = self.median.encode_ms.map(|ms| format!("encoded {ms:.1} (mean)"));
        let others = self.median.pictures.stages_ms.iter();
        let others = others.map(|stage| format!("{} {:.1} / {:.1}", stage.name, stage.p50, stage.p95));
        let stages: Vec<String> = encoded.into_iter().chain(others).collect();
        (!stages.is_empty()).then(|| format!("| {} | {} |\n", self.title(), stages.join(", ")))
    }
}

/// `document` with `table` between the marks of the point's name; none where it has no such marks.
pub fn write_into(document: &str, name: &str, table: &str) -> Option<String> {
    let (begin, end) = (format!("<!-- bench {name} -->\n"), format!("<!-- end of {name} -->"));
    let (before, rest) = document.split_once(&begin)?;
    let (_, after) = rest.split_once(&end)?;
    Some(format!("{before}{begin}\n{}\n\n{end}{after}", table.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(p50: f64) -> Run {
        let mut run = Run {
            client: Some(Cost { cpu_ms_per_s: 90.0, memory_mib: 50.0, ..Cost::default() }),
            first_picture_ms: Some(10.0 * p50),
            ..Run::default()
        };
        run.pictures.latency_ms = Quantiles { p50, p95: p50 + 1.0, p99: p50 + 2.0, max: p50 + 3.0 };
        run.pictures.shown = 90;
        run.pictures.made = 91;
        run.pictures.stages_ms = vec![Stage { name: "decoded".to_owned(), p50, p95: p50 }];
        run
    }

    fn results() -> Results {
        let mut rows = vec![
            Row::new(Subject::Udp, vec![run(6.0), run(7.0), run(20.0)], Vec::new()),
            Row::new(Subject::Webrtc, vec![run(8.0), run(7.0)], vec!["no\npicture".to_owned()]),
            Row::new(Subject::Webrtcbin, Vec::new(), vec!["no plugin".to_owned()]),
        ];
        compare(&mut rows);
        let point = Point { width: 1280, height: 720, fps: 30, kbps: 4_500 };
        let (name, machine, date) = ("720p30".to_owned(), "a machine".to_owned(), "2026-11-21".to_owned());
        Results {
            name,
            point,
            is_clip: false,
            impair: Vec::new(),
            seconds: 8.0,
            machine,
            date,
            rows,
            verdict: Vec::new(),
        }
    }

    #[test]
    fn a_row_is_the_median_of_its_runs_and_its_ratio_to_udp() {
        let results = results();
        let [udp, webrtc, webrtcbin] = &results.rows[..] else { panic!("three rows") };
        assert_eq!(udp.median.pictures.latency_ms.p50, 7.0);
        assert_eq!(udp.to_udp, Some(1.0));
        assert_eq!(webrtc.median.first_picture_ms, Some(75.0));
        assert_eq!(webrtc.to_udp, Some(7.5 / 7.0));
        assert_eq!(webrtcbin.to_udp, None);
    }

    #[test]
    fn the_table_has_a_line_for_each_subject_and_says_what_failed() {
        let text = results().markdown();
        assert!(text.starts_with("1280x720 at 30 fps, 4.5 Mbit/s; median of 3 interleaved runs of 8 s; a machine; "));
        let columns = |line: &str| line.matches('|').count();
        let rows: Vec<&str> = text.lines().filter(|line| line.starts_with('|')).take(5).collect();
        assert!(rows.iter().all(|row| columns(row) == 10), "{text}");
        assert!(
            text.contains("| udp | 7.0 / 8.0 / 9.0 / 10.0 | 1.00 | 90 of 91 | 0, 0, 0 | 70 | 0 + 90 | 0, 50 | 0.0 |")
        );
        assert!(text.contains("| **webrtc** | decoded 7.5 / 7.5 |"), "{text}");
        assert!(text.contains("A run of webrtc failed: no picture\n"));
        assert!(text.contains("| webrtcbin | failed |"));
    }

    #[test]
    fn the_table_replaces_what_stood_between_its_marks() {
        let document = "a\n<!-- bench 720p30 -->\nold\n<!-- end of 720p30 -->\nb\n";
        let written = write_into(document, "720p30", "new\n").unwrap();
        assert_eq!(written, "a\n<!-- bench 720p30 -->\n\nnew\n\n<!-- end of 720p30 -->\nb\n");
        assert_eq!(write_into(&written, "720p30", "new"), Some(written.clone()));
        assert_eq!(write_into(document, "1080p30", "new"), None);
    }
}
