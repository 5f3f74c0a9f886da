//! What the log says of a camera and its streams, each only as often as it is news.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rov_common::units::Bitrate;

use crate::config::{SourceConfig, SourceKind};
use crate::pipeline::playable::{self, Problem};
use crate::pipeline::{Branch, Found, Plan, Tap};
use crate::stream::Stream;
use crate::watchdog::{self, FrozenWatch, Repeats};

/// Says which cameras `--source auto` has not taken, when that changes.
#[derive(Default)]
pub(super) struct Choice {
    said: Vec<Found>,
}

impl Choice {
    pub fn say(&mut self, camera: &str, plan: &Plan) {
        if let Some(found) = plan.found.as_ref().filter(|_| !plan.others.is_empty() && self.said != plan.others) {
            self.said.clone_from(&plan.others);
            let others: Vec<_> = plan.others.iter().map(Found::to_string).collect();
            tracing::info!(
                camera,
                "taking {found}; also found: {}. --all-cameras takes all, --device PATH another one",
                others.join(", ")
            );
        }
    }
}

/// Has the encoder make what the viewers' links allow, and says so when that changes notably.
#[derive(Default)]
pub(super) struct Rates {
    said: Option<Bitrate>,
    failed: bool,
}

impl Rates {
    pub fn apply(&mut self, branch: &Branch, stream: &Stream) {
        let (Some(rate), Some(ceiling)) = (stream.demand().rate(), branch.ceiling()) else { return };
        if self.failed {
            return;
        }
        match branch.apply(&rate) {
            Ok(false) => return,
            Ok(true) => stream.status().set_target(branch.bitrate()),
            Err(error) => {
                self.failed = true;
                tracing::warn!(stream = stream.name(), "{error}; it stays as it is");
                return;
            }
        }
        let said = f64::from(self.said.unwrap_or(ceiling.bitrate).kbps());
        let differs = (f64::from(rate.bitrate.kbps()) / said.max(1.0)).ln().abs() > 0.2;
        if differs || rate.bitrate == ceiling.bitrate {
            self.said = Some(rate.bitrate);
            tracing::info!(stream = stream.name(), bitrate = %rate.bitrate, picture = ?rate.step, "bit rate, by what the pilot's link carries");
        }
    }
}

/// Says how many pictures came damaged; at most once in ten seconds.
#[derive(Default)]
pub(super) struct Damage {
    counted: u64,
    said: u64,
    last: Option<Instant>,
}

impl Damage {
    const INTERVAL: Duration = Duration::from_secs(10);

    /// `awaited`: they are left out until a whole keyframe comes.
    pub fn check(&mut self, now: Instant, damaged: u64, awaited: bool, camera: &str, streams: &[Arc<Stream>]) {
        streams.iter().for_each(|stream| stream.status().add_damaged(damaged - self.counted));
        self.counted = damaged;
        let is_due = self.last.is_none_or(|last| now.saturating_duration_since(last) >= Self::INTERVAL);
        if damaged > self.said && is_due {
            let count = damaged - self.said;
            let why = if awaited { watchdog::WAITS_AFTER_LOSS } else { "" };
            let separator = if awaited { "; " } else { "" };
            tracing::warn!(
                camera,
                "{why}{separator}{count} damaged pictures left out; check the source's cable or network"
            );
            (self.said, self.last) = (damaged, Some(now));
        }
    }
}

/// Says when the encoder cannot keep up, and when it can again; at most once in five seconds.
#[derive(Default)]
pub(super) struct LoadReport {
    last: Option<(Instant, u64, u64)>,
    overloaded: bool,
}

impl LoadReport {
    const INTERVAL: Duration = Duration::from_secs(5);

    /// After a standstill of the process pictures come at once.
    const SETTLING: Duration = Duration::from_secs(1);

    /// `awake_since`: of the process.
    pub fn check(&mut self, now: Instant, awake_since: Instant, stream: &str, frames_in: u64, dropped: u64) {
        if now.saturating_duration_since(awake_since) < Self::SETTLING {
            self.last = None;
            return;
        }
        let (at, in_before, dropped_before) = *self.last.get_or_insert((now, frames_in, dropped));
        let elapsed = now.saturating_duration_since(at);
        if elapsed < Self::INTERVAL {
            return;
        }
        self.last = Some((now, frames_in, dropped));
        let (frames_in, dropped) = (frames_in.saturating_sub(in_before), dropped.saturating_sub(dropped_before));
        // It rests, or the source gives nothing: that says nothing of the encoder.
        if frames_in == 0 {
            return;
        }
        // A frame now and then is normal on a busy machine.
        let overloaded = dropped * 20 > frames_in;
        if overloaded {
            let fps = frames_in.saturating_sub(dropped) as f64 / elapsed.as_secs_f64();
            tracing::warn!(
                stream,
                "the encoder is too slow: {dropped} of {frames_in} pictures of the last {:.0} s were left out, \
                 {fps:.1} fps go out, without added delay; lower --width and --height or --fps, or use a hardware \
                 encoder",
                elapsed.as_secs_f64()
            );
        } else if self.overloaded {
            tracing::info!(stream, "the encoder keeps up again");
        }
        self.overloaded = overloaded;
    }
}

/// One line, once pictures come: what, and how it is encoded. Of a source that comes and goes, now and then.
pub(super) fn say_streaming(stream: &Stream, branch: &Branch, announced: &mut Repeats) {
    let (source, (size, fps)) = (stream.stats(Instant::now()).source, stream.status().format());
    let rate = if fps > 0.0 { format!(" at {} fps", (fps * 100.0).round() / 100.0) } else { String::new() };
    let how = match branch.encoder() {
        Some(row) => format!("by {} ({}) at {}", row.element, row.title, branch.bitrate()),
        None => "passed through".to_owned(),
    };
    let text = format!("streaming {source}, {size}{rate}, {} {how}", stream.codec().title());
    match announced.say(&text, Instant::now()) {
        Some(_) => tracing::info!(stream = stream.name(), "{text}"),
        None => tracing::debug!(stream = stream.name(), "{text}"),
    }
}

/// What a user's pipeline shows may be at rest as well; a camera's sensor never is.
pub(super) fn frozen_watch(source: &SourceConfig) -> FrozenWatch {
    let limit = source.frozen_after.filter(|_| !source.kind.nature().may_stand_still);
    FrozenWatch::new(limit, source.kind == SourceKind::Pipeline)
}

pub(super) fn say_frozen(camera: &str, streams: &[Arc<Stream>], taps: &[Tap], since: Option<Duration>) {
    let reason = since.map(|since| {
        format!("the picture has not changed at all for {:.0} s: the camera may have hung", since.as_secs_f64())
    });
    match &reason {
        Some(reason) => {
            tracing::warn!(camera, "{reason}; if it has, unplug it or switch it off and on")
        }
        None => tracing::info!(camera, "the picture changes again"),
    }
    taps.iter().for_each(|tap| tap.set_frozen(reason.clone()));
    streams.iter().for_each(|stream| stream.status().set_frozen(reason.clone()));
}

pub(super) fn say_keyless(stream: &Stream, problem: Option<Problem>, source: SourceKind) {
    let Some(problem) = problem else {
        tracing::info!(stream = stream.name(), "a keyframe has come: viewers can start");
        return;
    };
    let reason = playable::refusal(stream.codec(), problem, source);
    tracing::warn!(stream = stream.name(), "{reason}");
    stream.status().set_keyless(reason);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_encoder_is_called_too_slow_by_what_it_leaves_out_and_not_for_a_standstill() {
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let mut load = LoadReport::default();
        load.check(at(1), start, "stream1", 30, 0);
        load.check(at(7), start, "stream1", 210, 60);
        assert!(load.overloaded);
        load.check(at(13), start, "stream1", 390, 60);
        assert!(!load.overloaded);
        // It stands still until 20 s, and what waited comes at once.
        load.check(at(20), at(20), "stream1", 391, 60);
        load.check(at(21), at(20), "stream1", 600, 250);
        load.check(at(27), at(20), "stream1", 780, 250);
        assert!(!load.overloaded);
    }
}
