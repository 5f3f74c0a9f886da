//! A stream while its pipeline runs: what is seen of it, and what is asked of its branch.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rov_common::api::StreamState;
use rov_common::units::{Fps, Resolution};

use super::encoders::StreamEncoder;
use super::reports::{LoadReport, Rates, say_keyless, say_streaming};
use crate::config::{EncodeConfig, SourceConfig};
use crate::pipeline::playable::Problem;
use crate::pipeline::{Branch, Failure};
use crate::rest::{Change, Rest};
use crate::stream::{Control, Stream};
use crate::watchdog::{self, KeyframeGate, Passed};

/// So long nothing is said of a stream that waits for a keyframe of its source.
const KEYFRAME_SOON: Duration = Duration::from_secs(1);
const KEYFRAME_AWAITED: &str = "begins at the source's next keyframe, which cannot be asked for: have the source make \
                                one every second or two";

/// A stream while its pipeline runs.
pub(super) struct Watched<'a> {
    pub branch: Arc<Branch>,
    pub stream: &'a Arc<Stream>,
    encode: EncodeConfig,
    /// Its encoder, lent to whoever replaces its branch.
    pub encoder: Option<&'a mut StreamEncoder>,
    /// What was heard while its branch was being replaced: the next one may have failed.
    pub failure: Option<Failure>,
    /// Likewise: what the next one gives.
    pub format: Option<(Resolution, Option<Fps>)>,
    /// What it goes back to if what was changed while it rested does not work.
    pub put_off: Option<EncodeConfig>,
    /// Since when the branch is there.
    since: Instant,
    /// From picture to picture.
    pub interval: Duration,
    pub keyframes: KeyframeGate,
    load: LoadReport,
    rates: Rates,
    rest: Rest,
    keyless: Option<Problem>,
    /// Since when it waits for a keyframe of the source.
    keyframe_awaited: Option<Instant>,
}

impl<'a> Watched<'a> {
    pub fn new(
        branch: Arc<Branch>,
        stream: &'a Arc<Stream>,
        encode: EncodeConfig,
        encoder: &'a mut StreamEncoder,
    ) -> Self {
        Self {
            branch,
            stream,
            encoder: Some(encoder),
            failure: None,
            format: None,
            put_off: None,
            since: Instant::now(),
            interval: encode.fps.map_or(Duration::ZERO, |fps| fps.interval()),
            keyframes: KeyframeGate::default(),
            load: LoadReport::default(),
            rates: Rates::default(),
            rest: Rest::after(encode.rest_after),
            keyless: None,
            keyframe_awaited: None,
            encode,
        }
    }

    /// Another branch is at work in the place of the former one, with the encoder that was lent. Returns by what it has
    /// failed already, if it has.
    pub fn restart(
        &mut self,
        branch: Arc<Branch>,
        encode: EncodeConfig,
        encoder: &'a mut StreamEncoder,
    ) -> Option<Failure> {
        let failure = self.failure.take();
        *self = Self::new(branch, self.stream, encode, encoder);
        failure.filter(|_| self.branch.has_failed())
    }

    pub fn is_resting(&self) -> bool {
        self.rest.is_resting()
    }

    /// How long it has worked; none before its first picture.
    pub fn lived(&self) -> Option<Duration> {
        self.rest.lived(&self.branch.counters())
    }

    /// Another configuration than that of `before` is wanted, once somebody looks.
    pub fn postpone(&mut self, before: EncodeConfig, wanted: &EncodeConfig) {
        let before = self.put_off.take().unwrap_or(before);
        self.put_off = (before != *wanted).then_some(before);
    }

    /// Whether there is no branch at work: it is being replaced, or left out.
    pub fn is_out(&self) -> bool {
        self.branch.is_off() || self.branch.has_failed()
    }

    pub fn set_format(&mut self, source: &SourceConfig, resolution: Resolution, fps: Option<Fps>) {
        let (stream, branch) = (self.stream, &self.branch);
        let encoder = branch.encoder().map_or("passthrough", |row| row.element);
        let target = branch.encoder().map(|_| branch.bitrate());
        let fps_known = fps.or(self.encode.fps).map(|f| f.as_f64());
        stream.status().set_format(resolution, fps_known, encoder, target);
        if let Some(encoder) = &mut self.encoder {
            say_streaming(stream, branch, &mut encoder.announced);
        }
        // What was no limit before is none now, however much more it is.
        if let Some((before, now)) = stream.status().ceiling().zip(branch.ceiling()) {
            stream.demand().ceiling_changed(before.bitrate, now.bitrate);
        }
        stream.status().set_ceiling(branch.ceiling());
        if let Some(option) = self.encode.encoding_option(source).filter(|_| branch.encoder().is_none()) {
            tracing::warn!(stream = stream.name(), "{option} has no effect: the source gives a coded stream");
        }
        self.rates.apply(branch, stream);
        if let Some(fps) = fps {
            self.interval = fps.interval();
        }
    }

    /// Has the encoder at work make another bit rate; false where it cannot.
    pub fn change_rate(&mut self, encode: &EncodeConfig) -> bool {
        let Some(before) = self.branch.ceiling().filter(|_| !self.is_out()) else { return false };
        if let Err(error) = self.branch.change_rate(encode) {
            tracing::debug!(stream = self.stream.name(), "{error}");
            return false;
        }
        self.encode = encode.clone();
        if let Some(now) = self.branch.ceiling() {
            self.stream.demand().ceiling_changed(before.bitrate, now.bitrate);
            self.stream.status().set_ceiling(Some(now));
            self.stream.status().set_target(self.branch.bitrate());
            tracing::info!(stream = self.stream.name(), bitrate = %now.bitrate, "bit rate changed by its settings");
        }
        true
    }

    pub fn request_keyframe(&mut self) {
        if self.keyframes.request(Instant::now()) {
            self.branch.force_keyframe();
        }
    }

    pub fn serve(&mut self, request: Control) {
        match request {
            // The next branch begins with a keyframe, and with the rate that is wanted then.
            _ if self.is_out() => {}
            Control::KeyframeWanted if self.rest.gives_keyframe(self.branch.counters().frames_out) => {}
            Control::KeyframeWanted => self.request_keyframe(),
            Control::RateChanged => self.rates.apply(&self.branch, self.stream),
            Control::Wanted => self.rest_or_wake(),
        }
    }

    /// What is looked at now and then. `silent`: nothing comes from elsewhere.
    pub fn look(&mut self, now: Instant, awake_since: Instant, source: &SourceConfig, silent: bool) {
        self.rates.apply(&self.branch, self.stream);
        self.rest_or_wake();
        if self.stream.demand().keyframe_overdue(now) {
            self.serve(Control::KeyframeWanted);
        }
        let (counters, status) = (self.branch.counters(), self.stream.status());
        let dropped = counters.frames_dropped();
        status.set_counters(now, counters.frames_in, dropped);
        self.stream.look_for_troubles(now);
        self.load.check(now, awake_since, self.stream.name(), counters.frames_wanted(), dropped);
        let since = self.keyframe_awaited.filter(|_| self.branch.waits_for_keyframe());
        self.keyframe_awaited = self.branch.waits_for_keyframe().then(|| since.unwrap_or(now));
        if since.is_some_and(|since| now.saturating_duration_since(since) > KEYFRAME_SOON) {
            status.set_stopped(StreamState::Stalled, KEYFRAME_AWAITED.to_owned());
        }
        if !silent {
            let problem = status.keyless(now).and_then(|keyless| watchdog::keyless(&keyless));
            if std::mem::replace(&mut self.keyless, problem) != problem {
                say_keyless(self.stream, problem, source.kind);
            }
        }
    }

    pub fn passed(&mut self, awake_since: Instant) -> Passed {
        let counters = self.branch.counters();
        // What waits for a keyframe of the source owes nothing.
        let awake_since = awake_since.max(self.since);
        let started = counters.last_unwanted.map_or(awake_since, |at| at.max(awake_since));
        let last_out = self.rest.last_out(&counters).map(|at| at.max(started));
        let (first_in, last_in) = (counters.first_in, counters.last_in);
        Passed { stream: self.branch.number(), started, first_in, last_in, last_out }
    }

    /// Lets the encoder rest while nobody looks. What goes out untouched needs no work that could rest.
    fn rest_or_wake(&mut self) {
        let (branch, stream) = (&self.branch, self.stream);
        if branch.encoder().is_none() {
            return;
        }
        match self.rest.change(Instant::now(), stream.demand().idle_since(), &branch.counters()) {
            None => return,
            Some(Change::Rest) => {
                branch.rest();
                tracing::info!(stream = stream.name(), "nobody looks: the encoder rests");
            }
            Some(Change::Wake) => {
                branch.wake();
                tracing::info!(stream = stream.name(), "somebody looks: the encoder works again");
            }
        }
        stream.status().set_resting(self.rest.is_resting());
    }
}
