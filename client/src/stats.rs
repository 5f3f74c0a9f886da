//! What the viewer has seen so far, for the overlay, `--stats-json` and the tests.

use std::time::{Duration, Instant};

use rov_common::api::RecordingGap;
use rov_common::capture_clock::Captured;
use rov_common::clock_sync::Age;
use rov_common::stamp::Stamp;
use rov_common::units::Resolution;
use rov_common::window::RateWindow;
use serde::{Deserialize, Serialize};

use crate::clock::Unknown;

/// Pictures that are shown later than this after the one before count as a freeze.
const FREEZE: Duration = Duration::from_millis(200);
const WINDOW: Duration = Duration::from_secs(2);

/// When a picture passed each stage, on this machine's monotonic clock but for the first.
#[derive(Clone, Copy, Debug)]
pub struct Passage {
    /// By the server's clock.
    pub captured: Option<Captured>,
    /// How old it was when it was shown, or why that is not known.
    pub age: Result<Age, Unknown>,
    pub first_packet_at: Instant,
    pub last_packet_at: Instant,
    pub decoded_at: Instant,
    pub converted_at: Instant,
    pub shown_at: Instant,
}

/// Written by `--stats-json`; times in milliseconds, rates over the last two seconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    pub server_id: String,
    pub server_name: String,
    pub server: String,
    /// Which of its streams, where it has several.
    pub stream: String,
    /// `webrtc`, `rtp` or `rtsp`.
    pub transport: String,
    /// Why it is not by a better transport.
    pub fallback_reason: Option<String>,
    /// As `live`; `hangs` while the window's thread does: what is on the screen is old then.
    pub state: String,
    /// For how long it has, from 2 s on.
    #[serde(default)]
    pub window_hangs_s: Option<f64>,
    pub decoder: String,
    pub width: u32,
    pub height: u32,
    /// When the newest picture was captured, by the server's clock, in milliseconds since 1970; none where the
    /// transport does not tell.
    #[serde(default)]
    pub captured: Option<f64>,
    /// From capture to shown; none while nothing is shown, or where the age is not known.
    #[serde(default)]
    pub age_ms: Option<AgeReport>,
    /// Why it is not.
    #[serde(default)]
    pub age_unknown: Option<String>,
    /// From the start of the program to the first picture.
    pub first_picture_ms: Option<f64>,
    pub frames_shown: u64,
    pub frames_decoded: u64,
    /// Decoded, but replaced by a newer picture before they were shown.
    pub frames_replaced: u64,
    /// Left out because something before them was lost.
    pub frames_skipped: u64,
    /// Times that no picture was shown for more than 200 ms; also counts a pause that still lasts.
    pub freezes: u64,
    pub longest_gap_ms: f64,
    pub packets: u64,
    pub packets_lost: u64,
    /// Asked for by this viewer.
    pub keyframe_requests: u64,
    pub sessions: u64,
    pub fps: f64,
    pub bitrate_kbps: f64,
    pub rtt_ms: Option<f64>,
    /// First packet of a picture received to shown.
    pub receive_to_shown: Summary,
    pub receive: Summary,
    pub decode: Summary,
    /// Converting and scaling; nothing where the screen does that.
    #[serde(default)]
    pub convert: Summary,
    pub show: Summary,
    /// From the marks burned into test pictures; meaningful when both clocks agree, as on one machine.
    pub stamps: StampReport,
    /// Times that another stream was chosen, and from that to its first picture on the screen.
    #[serde(default)]
    pub stream_changes: u64,
    #[serde(default)]
    pub stream_change: Summary,
    /// While the tiles of the grid are aligned.
    #[serde(default)]
    pub alignment: Option<AlignmentReport>,
    /// Of the grid, while that is shown; the figures above are then of the first tile, and their counters of all.
    #[serde(default)]
    pub tiles: Vec<TileReport>,
    /// Once something was recorded, or is to be.
    #[serde(default)]
    pub recording: Option<RecordingReport>,
}

/// Recordings since the program started.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RecordingReport {
    pub on: bool,
    /// Why it does not go on now.
    pub reason: Option<String>,
    /// Of all files.
    pub bytes: u64,
    /// Those that came, and those that are known to be missing: they came in parts or too late, or would have come in a
    /// gap at the rate before it.
    pub pictures_expected: u64,
    /// On the disk.
    pub pictures_present: u64,
    pub gaps: u64,
    /// The newest of them, the last one of each recording last.
    #[serde(default)]
    pub newest_gaps: Vec<RecordingGap>,
    /// The files that are being written.
    pub writing: Vec<String>,
    /// How many have ended, and the newest of them.
    #[serde(default)]
    pub files_ended: u64,
    /// Of them, those that were not wholly compared with what the vehicle sent: more may be missing than is told.
    #[serde(default)]
    pub files_not_compared: u64,
    pub files: Vec<RecordedFile>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RecordedFile {
    pub file: String,
    pub bytes: u64,
    pub pictures_expected: u64,
    pub pictures_present: u64,
    pub gaps: u64,
    #[serde(default)]
    pub compared: bool,
}

impl Report {
    /// Adds the counters of another stream.
    pub fn count(&mut self, other: &Self) {
        self.frames_decoded += other.frames_decoded;
        self.frames_skipped += other.frames_skipped;
        self.frames_replaced += other.frames_replaced;
        self.packets += other.packets;
        self.packets_lost += other.packets_lost;
        self.keyframe_requests += other.keyframe_requests;
        self.sessions += other.sessions;
    }
}

/// How old pictures are when they are shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct AgeReport {
    /// The newest picture.
    pub now: f64,
    /// All pictures.
    pub p50: f64,
    pub p95: f64,
    pub p99: f64,
    /// By which `now` can be wrong at most.
    pub bound: f64,
}

/// Of the grid, aligned by the times of capture.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct AlignmentReport {
    /// What is aimed at.
    pub max_latency_ms: f64,
    pub sync_tolerance_ms: f64,
    /// How far the times of capture of pictures that were on the screen together were apart at most, over the last two
    /// seconds; none while less than two tiles are aligned.
    pub skew_ms: Option<f64>,
    /// How long pictures waited for those of other tiles at most, over the last two seconds.
    pub delay_ms: Option<f64>,
    /// The same since it began.
    pub skew: Summary,
    pub delay: Summary,
    /// Why each tile is not aligned; empty where it is.
    pub tiles: Vec<String>,
}

/// One tile of the grid.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TileReport {
    pub stream: String,
    pub state: String,
    pub width: u32,
    pub height: u32,
    pub frames_shown: u64,
    pub fps: f64,
    /// As in [`Report`].
    #[serde(default)]
    pub captured: Option<f64>,
    #[serde(default)]
    pub age_ms: Option<AgeReport>,
    #[serde(default)]
    pub age_unknown: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StampReport {
    pub read: u64,
    /// Pictures whose mark was older than, or the same as, the one before within a session.
    pub out_of_order: u64,
    /// Pictures of the source, by their numbers, that were not shown within a session.
    pub missing: u64,
    pub last_frame: Option<u32>,
    /// Mark drawn to shown.
    pub latency: Summary,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    pub p50_ms: f64,
    pub p95_ms: f64,
    pub p99_ms: f64,
    pub max_ms: f64,
}

/// Collected by whoever shows the pictures.
pub struct Shown {
    started: Instant,
    first: Option<Instant>,
    last: Option<Instant>,
    frames: u64,
    freezes: u64,
    longest_gap: Duration,
    resolution: Resolution,
    /// Of the newest picture.
    captured: Option<Captured>,
    age: Option<Result<Age, Unknown>>,
    ages: Histogram,
    recent_age_us: RateWindow,
    fps: RateWindow,
    total: Histogram,
    receive: Histogram,
    decode: Histogram,
    convert: Histogram,
    show: Histogram,
    stamps: Stamps,
    recent: [RateWindow; STAGES.len()],
    /// Since when another stream is waited for.
    asked: Option<Instant>,
    changes: Histogram,
}

/// A picture that has stood for longer has no mean age of late.
const STANDS: Duration = Duration::from_secs(1);

/// The stages of a picture on this machine, in the order of [`Shown::recent`].
const STAGES: [&str; 4] = ["receive", "decode", "convert", "show"];

#[derive(Default)]
struct Stamps {
    read: u64,
    out_of_order: u64,
    missing: u64,
    last: Option<u32>,
    latency: Histogram,
}

impl Shown {
    /// `started` is when the program was.
    pub fn new(started: Instant) -> Self {
        Self {
            started,
            first: None,
            last: None,
            frames: 0,
            freezes: 0,
            longest_gap: Duration::ZERO,
            resolution: Resolution::new(0, 0),
            captured: None,
            age: None,
            ages: Histogram::default(),
            recent_age_us: RateWindow::new(WINDOW),
            fps: RateWindow::new(WINDOW),
            total: Histogram::default(),
            receive: Histogram::default(),
            decode: Histogram::default(),
            convert: Histogram::default(),
            show: Histogram::default(),
            stamps: Stamps::default(),
            recent: std::array::from_fn(|_| RateWindow::new(WINDOW)),
            asked: None,
            changes: Histogram::default(),
        }
    }

    /// A picture was shown. `source` is its size as decoded; `stamp` what its mark says, with the Unix time at which it
    /// was shown, in microseconds.
    pub fn add(&mut self, passage: Passage, source: Resolution, stamp: Option<(Stamp, u64)>) {
        let at = passage.shown_at;
        if let Some(asked) = self.asked.take() {
            self.changes.add(at.saturating_duration_since(asked));
        }
        if let Some(last) = self.last {
            let gap = at.saturating_duration_since(last);
            self.longest_gap = self.longest_gap.max(gap);
            self.freezes += u64::from(gap > FREEZE);
        }
        self.first.get_or_insert(at);
        self.last = Some(at);
        self.frames += 1;
        self.resolution = source;
        self.captured = passage.captured;
        self.age = Some(passage.age);
        if let Ok(Age { age, .. }) = passage.age {
            self.ages.add(age);
            self.recent_age_us.add(at, age.as_micros() as u64);
        }
        self.fps.add(at, 1);
        self.total.add(at.saturating_duration_since(passage.first_packet_at));
        let receive = passage.last_packet_at.saturating_duration_since(passage.first_packet_at);
        let decode = passage.decoded_at.saturating_duration_since(passage.last_packet_at);
        let convert = passage.converted_at.saturating_duration_since(passage.decoded_at);
        let show = at.saturating_duration_since(passage.converted_at);
        self.receive.add(receive);
        self.decode.add(decode);
        self.convert.add(convert);
        self.show.add(show);
        for (window, stage) in self.recent.iter_mut().zip([receive, decode, convert, show]) {
            window.add(at, stage.as_micros() as u64);
        }
        if let Some((stamp, now_us)) = stamp {
            self.stamps.add(stamp, now_us);
        }
    }

    /// Frame numbers start again: a new session, perhaps with a new server.
    pub fn new_session(&mut self) {
        self.stamps.last = None;
    }

    /// The pictures that follow are of another stream, for which the pilot waits since `asked`, if at all.
    pub fn change(&mut self, asked: Option<Instant>) {
        self.new_session();
        self.asked = asked;
    }

    /// Pictures shown per second, over the last two seconds.
    pub fn fps(&self, now: Instant) -> f64 {
        self.fps.per_second(now)
    }

    /// The stages and their delays in milliseconds, means over the last two seconds; empty when nothing was shown.
    pub fn recent(&self, now: Instant) -> Vec<(String, f64)> {
        if self.fps(now) == 0.0 {
            return Vec::new();
        }
        STAGES.iter().zip(&self.recent).map(|(name, w)| ((*name).to_owned(), w.mean(now) / 1000.0)).collect()
    }

    /// How old the pictures were that were shown, the mean over the last two seconds, with the bound of the newest; or
    /// why that is not known. None where none was shown.
    pub fn age(&self, now: Instant) -> Option<Result<Age, Unknown>> {
        self.age.filter(|_| self.stands(now) <= STANDS).map(|newest| {
            newest.map(|newest| Age { age: Duration::from_micros(self.recent_age_us.mean(now) as u64), ..newest })
        })
    }

    /// For how long the newest picture has been on the screen.
    fn stands(&self, now: Instant) -> Duration {
        self.last.map_or(Duration::ZERO, |last| now.saturating_duration_since(last))
    }

    /// Of all pictures: p50, p95 and p99 of how old they were, in milliseconds. None where that of none is known.
    pub fn ages(&self) -> Option<[f64; 3]> {
        let Summary { p50_ms, p95_ms, p99_ms, max_ms } = self.ages.summary();
        (max_ms > 0.0).then_some([p50_ms, p95_ms, p99_ms])
    }

    /// When the newest picture was shown, once there was one.
    pub fn last_shown(&self) -> Option<Instant> {
        self.last
    }

    /// The size of the video as decoded, once there was a picture.
    pub fn resolution(&self) -> Option<Resolution> {
        self.first.map(|_| self.resolution)
    }

    /// Fills in what is known here.
    pub fn report(&self, now: Instant, report: &mut Report) {
        report.width = self.resolution.width;
        report.height = self.resolution.height;
        report.captured = self.captured.map(|captured| ms(captured.0));
        report.first_picture_ms = self.first.map(|at| ms(at.saturating_duration_since(self.started)));
        report.frames_shown = self.frames;
        let pause = self.stands(now);
        report.freezes = self.freezes + u64::from(pause > FREEZE);
        report.longest_gap_ms = ms(self.longest_gap.max(if pause > FREEZE { pause } else { Duration::ZERO }));
        let Summary { p50_ms: p50, p95_ms: p95, p99_ms: p99, .. } = self.ages.summary();
        let age = self.age.filter(|_| self.fps(now) > 0.0);
        let of = |Age { age, bound }| AgeReport { now: ms(age + pause), p50, p95, p99, bound: ms(bound) };
        report.age_ms = age.and_then(Result::ok).map(of);
        report.age_unknown = age.and_then(Result::err).map(|reason| reason.to_string());
        report.fps = self.fps.per_second(now);
        report.receive_to_shown = self.total.summary();
        report.receive = self.receive.summary();
        report.decode = self.decode.summary();
        report.convert = self.convert.summary();
        report.show = self.show.summary();
        report.stamps = StampReport {
            read: self.stamps.read,
            out_of_order: self.stamps.out_of_order,
            missing: self.stamps.missing,
            last_frame: self.stamps.last,
            latency: self.stamps.latency.summary(),
        };
        report.stream_changes = self.changes.count;
        report.stream_change = self.changes.summary();
    }
}

impl Stamps {
    fn add(&mut self, stamp: Stamp, now_us: u64) {
        self.read += 1;
        if let Some(last) = self.last {
            if stamp.frame <= last {
                self.out_of_order += 1;
            } else {
                self.missing += u64::from(stamp.frame - last - 1);
            }
        }
        self.last = Some(stamp.frame);
        self.latency.add(Duration::from_micros(now_us.saturating_sub(stamp.time_us)));
    }
}

/// Durations in steps of 0.1 ms up to half a second, and of 1 ms up to ten seconds; longer ones count as that, but for
/// the maximum.
#[derive(Default)]
pub struct Histogram {
    buckets: Vec<u32>,
    count: u64,
    max: Duration,
}

const STEP_US: u64 = 100;
const STEPS: usize = 5_000;
const LONG_STEP_US: u64 = 1_000;
const LONGEST: Duration = Duration::from_secs(10);

impl Histogram {
    fn bucket(value: Duration) -> usize {
        let us = value.min(LONGEST).as_micros() as u64;
        match us.checked_sub(STEPS as u64 * STEP_US) {
            None => (us / STEP_US) as usize,
            Some(more) => STEPS + (more / LONG_STEP_US) as usize,
        }
    }

    /// The upper edge of a bucket, in milliseconds.
    fn edge(bucket: usize) -> f64 {
        let (short, long) = ((bucket + 1).min(STEPS) as u64, (bucket + 1).saturating_sub(STEPS) as u64);
        (short * STEP_US + long * LONG_STEP_US) as f64 / 1000.0
    }

    pub fn add(&mut self, value: Duration) {
        let bucket = Self::bucket(value);
        if self.buckets.len() <= bucket {
            self.buckets.resize((bucket + 1).max(STEPS), 0);
        }
        self.buckets[bucket] = self.buckets[bucket].saturating_add(1);
        self.count += 1;
        self.max = self.max.max(value);
    }

    /// The upper edge of the bucket that holds the quantile.
    fn quantile(&self, q: f64) -> f64 {
        let rank = (q * self.count as f64).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (i, n) in self.buckets.iter().enumerate() {
            seen += u64::from(*n);
            if seen >= rank {
                return Self::edge(i).min(ms(self.max));
            }
        }
        0.0
    }

    pub fn summary(&self) -> Summary {
        Summary {
            p50_ms: self.quantile(0.5),
            p95_ms: self.quantile(0.95),
            p99_ms: self.quantile(0.99),
            max_ms: ms(self.max),
        }
    }
}

pub fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passage(at: Instant) -> Passage {
        Passage {
            captured: None,
            age: Err(Unknown::NoClock),
            first_packet_at: at,
            last_packet_at: at,
            decoded_at: at,
            converted_at: at,
            shown_at: at,
        }
    }

    #[test]
    fn quantiles_come_from_all_samples() {
        let mut histogram = Histogram::default();
        for i in 1..=100 {
            histogram.add(Duration::from_millis(i));
        }
        let summary = histogram.summary();
        assert!((summary.p50_ms - 50.0).abs() < 0.2, "{summary:?}");
        assert!((summary.p99_ms - 99.0).abs() < 0.2, "{summary:?}");
        assert_eq!(summary.max_ms, 100.0);
        for i in 1..=300 {
            histogram.add(Duration::from_millis(2_000 + i));
        }
        histogram.add(Duration::from_secs(60));
        let summary = histogram.summary();
        assert!((summary.p50_ms - 2_101.0).abs() < 2.0 && (summary.p99_ms - 2_297.0).abs() < 2.0, "{summary:?}");
        assert_eq!((summary.max_ms, histogram.quantile(1.0)), (60_000.0, 10_001.0));
        assert_eq!(Histogram::default().summary(), Summary::default());
    }

    #[test]
    fn frames_that_are_missing_or_late_are_counted_by_their_marks() {
        let now = Instant::now();
        let mut shown = Shown::new(now);
        for frame in [5, 6, 9, 8] {
            shown.add(passage(now), Resolution::new(320, 240), Some((Stamp { frame, time_us: 1_000 }, 3_000)));
        }
        let mut report = Report::default();
        shown.report(now, &mut report);
        assert_eq!((report.stamps.read, report.stamps.missing, report.stamps.out_of_order), (4, 2, 1));
        assert_eq!(report.stamps.latency.max_ms, 2.0);
        shown.new_session();
        shown.add(passage(now), Resolution::new(320, 240), Some((Stamp { frame: 0, time_us: 0 }, 0)));
        shown.report(now, &mut report);
        assert_eq!(report.stamps.out_of_order, 1, "numbers may start again in a new session");
    }

    #[test]
    fn each_stage_counts_from_the_one_before() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut shown = Shown::new(start);
        let captured = Some(Captured(Duration::from_millis(1_764_000_000_123)));
        let age = Ok(Age { age: Duration::from_millis(40), bound: Duration::from_millis(2) });
        let passage = Passage {
            captured,
            age,
            first_packet_at: at(10),
            last_packet_at: at(11),
            decoded_at: at(13),
            converted_at: at(17),
            shown_at: at(25),
        };
        shown.add(passage, Resolution::new(1, 1), None);
        let mut report = Report::default();
        shown.report(start, &mut report);
        assert_eq!(report.captured, Some(1_764_000_000_123.0));
        assert_eq!(report.age_ms, Some(AgeReport { now: 40.0, p50: 40.0, p95: 40.0, p99: 40.0, bound: 2.0 }));
        let stages = [report.receive, report.decode, report.convert, report.show].map(|stage| stage.max_ms);
        assert_eq!((stages, report.receive_to_shown.max_ms), ([1.0, 2.0, 4.0, 8.0], 15.0));
    }

    #[test]
    fn why_an_age_is_not_known_is_said_and_nothing_of_what_is_not_shown_any_more() {
        let start = Instant::now();
        let mut shown = Shown::new(start);
        shown.add(passage(start), Resolution::new(1, 1), None);
        let mut report = Report::default();
        shown.report(start, &mut report);
        assert_eq!((report.age_ms, report.age_unknown), (None, Some(Unknown::NoClock.to_string())));
        let mut report = Report::default();
        shown.report(start + Duration::from_secs(3), &mut report);
        assert_eq!((report.age_ms, report.age_unknown), (None, None));
    }

    #[test]
    fn a_picture_that_stands_grows_older() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut shown = Shown::new(start);
        let age = Age { age: Duration::from_millis(40), bound: Duration::ZERO };
        shown.add(Passage { age: Ok(age), ..passage(start) }, Resolution::new(1, 1), None);
        let mut report = Report::default();
        shown.report(at(1_500), &mut report);
        assert_eq!(report.age_ms.map(|age| (age.now, age.p50)), Some((1_540.0, 40.0)));
        assert_eq!((shown.age(at(900)), shown.age(at(1_500))), (Some(Ok(age)), None));
    }

    #[test]
    fn a_gap_of_more_than_200_ms_is_a_freeze() {
        let start = Instant::now();
        let mut shown = Shown::new(start);
        for ms in [0, 33, 66, 400] {
            shown.add(passage(start + Duration::from_millis(ms)), Resolution::new(1, 1), None);
        }
        let mut report = Report::default();
        let at = |ms| start + Duration::from_millis(ms);
        shown.report(at(600), &mut report);
        assert_eq!((report.freezes, report.longest_gap_ms), (1, 334.0));
        // One that still lasts, as at the end.
        shown.report(at(18_400), &mut report);
        assert_eq!((report.freezes, report.longest_gap_ms), (2, 18_000.0));
        shown.add(passage(at(18_500)), Resolution::new(1, 1), None);
        shown.report(at(18_500), &mut report);
        assert_eq!((report.freezes, report.longest_gap_ms), (2, 18_100.0));
    }
}
