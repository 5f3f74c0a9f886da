//! Keeps a camera's pipeline running for all of its streams: starts it, watches it, restarts it for ever, and ends it.

use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use rov_common::api::StreamState;
use rov_common::backoff::{Backoff, REFUSED_MAX, REFUSED_MIN};
use rov_common::units::{Bitrate, Fps, Resolution};
use thiserror::Error;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::config::{CameraConfig, EncodeConfig, EncoderChoice, SourceConfig, SourceKind};
use crate::inlet::Inlet;
use crate::pipeline::playable::{self, Problem};
use crate::pipeline::{
    self, Branch, BranchCounters, EncoderRow, Failure, Found, Graph, GraphError, GraphEvent, Hanging, Links, Plan,
    PrepareError, Tap,
};
use crate::rest::{Change, Rest};
use crate::stream::{Control, Stream};
use crate::watchdog::{self, CameraLook, EncoderWatch, FrozenWatch, HEALTHY_AFTER, KeyframeGate, Passed, Repeats};

/// Between restarts: a quarter of a second at first, doubled up to one second, so that a camera that is back is seen
/// soon.
const RESTART_MIN: Duration = Duration::from_millis(250);
const RESTART_MAX: Duration = Duration::from_secs(1);
/// Opening a camera can hang in its driver; past this the attempt is given up and left to its thread.
const START_LIMIT: Duration = Duration::from_secs(15);
const STOP_LIMIT: Duration = Duration::from_secs(2);
/// While there is no camera, the machine's devices are listed so often.
const DEVICES_INTERVAL: Duration = Duration::from_millis(250);
const CHECK_INTERVAL: Duration = Duration::from_millis(100);
/// Checks that come this late were not made because the process did not run.
const STANDSTILL: Duration = Duration::from_millis(500);
/// So long nothing is said of a stream that waits for a keyframe of its source.
const KEYFRAME_SOON: Duration = Duration::from_secs(1);
const KEYFRAME_AWAITED: &str = "begins at the source's next keyframe, which cannot be asked for: have the source make \
                                one every second or two";
/// Events of a pipeline that wait; more than these say nothing new.
const EVENT_CAPACITY: usize = 16;

/// How a stream came to its end without an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The server was told to stop.
    Stopped,
    /// The source is over, for the reason given.
    SourceEnded(String),
}

/// A mistake in the configuration: trying again would not help.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct Fatal(pub String);

/// Runs the pipeline of `camera` for its `streams`, in the order of the configuration, until `shutdown`, the end of the
/// source, or a mistake in the configuration.
pub async fn run(
    camera: CameraConfig,
    links: Links,
    streams: Vec<(Arc<Stream>, mpsc::Receiver<Control>)>,
    shutdown: CancellationToken,
) -> Result<Outcome, Fatal> {
    let mut camera = Arc::new(camera);
    let (streams, mut controls): (Vec<_>, Vec<_>) = streams.into_iter().unzip();
    let mut encoders = tokio::select! {
        () = shutdown.cancelled() => return Ok(Outcome::Stopped),
        encoders = Encoders::choose(&camera) => encoders?,
    };
    let mut backoff = Backoff::new(RESTART_MIN, RESTART_MAX);
    let mut refusals = Backoff::new(REFUSED_MIN, REFUSED_MAX);
    let mut has_worked = false;
    let mut complaints = Repeats::default();
    let mut choice = Choice::default();
    // Pipelines that were left to a driver that does not let go of them.
    let hanging = Hanging::default();
    loop {
        let (camera_now, rows) = (Arc::clone(&camera), encoders.rows.clone());
        let prepare = tokio::task::spawn_blocking(move || pipeline::prepare(&camera_now, &rows));
        let prepared = tokio::select! {
            () = shutdown.cancelled() => return Ok(Outcome::Stopped),
            prepared = tokio::time::timeout(START_LIMIT, prepare) => prepared,
        };
        let mut least = Duration::ZERO;
        let reason = match prepared {
            Err(_) => format!("looking at the source took longer than {} s", START_LIMIT.as_secs()),
            Ok(plan) => match joined(plan)? {
                // What was right before, as a file on a disk that is gone for a moment, may be right again.
                Err(PrepareError::Fatal(reason)) if !has_worked => return Err(Fatal(reason)),
                Err(PrepareError::Fatal(reason) | PrepareError::Retry(reason)) => reason,
                Ok(plan) => {
                    let mut plan = Plan { links: links.clone(), ..plan };
                    let off = plan.branches.iter_mut().zip(&encoders.off).filter(|(_, off)| **off);
                    off.for_each(|(branch, _)| branch.turn_off());
                    choice.say(&camera.name, &plan);
                    let found = plan.found.clone();
                    match run_once(&camera, plan, !complaints.any(), &hanging, &streams, &mut controls, &shutdown)
                        .await?
                    {
                        RunEnd::Stopped => return Ok(Outcome::Stopped),
                        RunEnd::SourceEnded(reason) => {
                            set_stopped(&streams, StreamState::Ended, &reason);
                            return Ok(Outcome::SourceEnded(reason));
                        }
                        RunEnd::Broken { failure, well_for } => {
                            let reason = encoders.failed(&camera, &failure, &well_for, hanging.count() > 0).await;
                            let well_for = well_for.into_iter().flatten().max();
                            has_worked |= well_for.is_some();
                            if well_for.is_some() {
                                refusals.reset();
                                remember(&mut camera, found.as_ref());
                            }
                            if well_for.is_some_and(|time| time > HEALTHY_AFTER) {
                                backoff.reset();
                                complaints.reset();
                            }
                            reason
                        }
                        RunEnd::Denied(reason) => {
                            least = refusals.next_delay();
                            format!("{reason}; next attempt in {} s, as cameras lock out after some", least.as_secs())
                        }
                        RunEnd::CameraFound(cameras) => {
                            tracing::info!(camera = camera.name, "camera found: {cameras}");
                            backoff.reset();
                            continue;
                        }
                    }
                }
            },
        };
        let pause = backoff.next_delay().max(least);
        match complaints.say(&reason, Instant::now()) {
            Some(1) => tracing::warn!(camera = camera.name, "{reason}; restarting in {:.2} s", pause.as_secs_f64()),
            Some(times) => tracing::warn!(camera = camera.name, "{reason}; tried {times} times, trying on"),
            None => tracing::debug!(camera = camera.name, "{reason}"),
        }
        set_stopped(&streams, StreamState::Restarting, &reason);
        tokio::select! {
            () = shutdown.cancelled() => return Ok(Outcome::Stopped),
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// The camera that has given pictures is taken again, and no other one that has its number meanwhile. One that was
/// named by a path of udev's or the user's own is what that path leads to.
fn remember(camera: &mut Arc<CameraConfig>, found: Option<&Found>) {
    let follows_path = |device: &String| device.starts_with('/') && !device.starts_with("/dev/video");
    if camera.source.device.as_ref().is_some_and(follows_path) {
        return;
    }
    if let Some(Found { known_by, .. }) = found.filter(|found| found.known_by != camera.source.taken) {
        Arc::make_mut(camera).source.taken.clone_from(known_by);
    }
}

/// Says which cameras `--source auto` has not taken, when that changes.
#[derive(Default)]
struct Choice {
    said: Vec<Found>,
}

impl Choice {
    fn say(&mut self, camera: &str, plan: &Plan) {
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

/// The encoders of a camera's streams.
struct Encoders {
    rows: Vec<&'static EncoderRow>,
    /// Of each stream, those that worked on trial, and then not at work.
    failed: Vec<Vec<&'static str>>,
    watches: Vec<EncoderWatch>,
    /// Streams without an encoder that works: left out until the source fails, when trying again costs the others
    /// nothing.
    off: Vec<bool>,
}

impl Encoders {
    async fn choose(camera: &CameraConfig) -> Result<Self, Fatal> {
        let count = camera.streams.len();
        let (failed, off) = (vec![Vec::new(); count], vec![false; count]);
        let mut all = Self { rows: Vec::new(), failed, watches: Vec::new(), off };
        all.watches.resize_with(count, EncoderWatch::default);
        // The first stream has no encoder where it is passed through.
        let passed = camera.source.is_passed_through();
        for stream in 0..count {
            let encodes = camera.streams.iter().map(|stream| stream.encode.clone());
            let beside = all.rows.iter().copied().zip(encodes).skip(usize::from(passed)).collect();
            let row = match passed && stream == 0 {
                true => pipeline::unused(),
                false => all.choose_one(camera, stream, beside).await?,
            };
            all.rows.push(row);
        }
        Ok(all)
    }

    /// The first that works for this stream, beside others, and has not failed; says in the log which were tried.
    async fn choose_one(
        &self,
        camera: &CameraConfig,
        stream: usize,
        beside: Vec<(&'static EncoderRow, EncodeConfig)>,
    ) -> Result<&'static EncoderRow, Fatal> {
        let (config, failed) = (camera.streams[stream].encode.clone(), self.failed[stream].clone());
        let choose = tokio::task::spawn_blocking(move || pipeline::choose_encoder(&config, &failed, &beside));
        let chosen = joined(choose.await)?.map_err(|e| Fatal(e.to_string()))?;
        tracing::debug!("{}", chosen.summary());
        for tried in chosen.failures() {
            tracing::info!("encoder {} does not work here: {}", tried.element, tried.outcome);
        }
        Ok(chosen.row)
    }

    /// A pipeline has failed, of whose streams each was well for so long: takes the next encoder where it is time to.
    /// Returns the reason in words.
    async fn failed(
        &mut self,
        camera: &CameraConfig,
        failure: &Failure,
        well_for: &[Option<Duration>],
        hangs: bool,
    ) -> String {
        let (mut reason, mut replace) = (failure.to_string(), false);
        for (stream, watch) in self.watches.iter_mut().enumerate() {
            // What the encoder of another stream does says nothing of this one.
            let concerns = !matches!(failure, Failure::Encoder { stream: at, .. } if *at != stream);
            replace |= concerns && watch.failed(failure, well_for.get(stream).copied().flatten(), hangs);
        }
        let Failure::Encoder { stream, .. } = *failure else {
            self.off.fill(false);
            return reason;
        };
        let element = self.rows[stream].element;
        if !reason.contains(element) {
            reason = format!("{element}: {reason}");
        }
        if camera.streams.len() > 1 {
            reason = format!("{}: {reason}", camera.streams[stream].name);
        }
        if !replace {
            return reason;
        }
        // A named one stays.
        if camera.streams[stream].encode.encoder == EncoderChoice::Auto {
            self.failed[stream].push(element);
            // Not beside the others: they may be what does not work any more, and then none would.
            if let Ok(next) = self.choose_one(camera, stream, Vec::new()).await {
                self.rows[stream] = next;
                return reason;
            }
        }
        // The last one is as good as any for the first stream, which is the pilot's. No other one ends that again
        // and again.
        if stream > 0 {
            self.off[stream] = true;
            let name = &camera.streams[stream].name;
            reason.push_str(&format!("; {name} stays off until the camera is started again, so that the others go on"));
        }
        reason
    }
}

fn set_stopped(streams: &[Arc<Stream>], state: StreamState, reason: &str) {
    streams.iter().for_each(|stream| stream.status().set_stopped(state, reason.to_owned()));
}

enum RunEnd {
    Stopped,
    SourceEnded(String),
    /// `well_for`: of each stream, from its first picture to its last, if there was one.
    Broken {
        failure: Failure,
        well_for: Vec<Option<Duration>>,
    },
    /// An IP camera has refused the password.
    Denied(String),
    /// A camera is there, and the test picture in its place is not needed any more.
    CameraFound(String),
}

impl RunEnd {
    fn not_started(failure: Failure) -> Self {
        Self::Broken { failure, well_for: Vec::new() }
    }
}

/// One life of a pipeline. `is_news`: worth a line in the log.
async fn run_once(
    camera: &CameraConfig,
    mut plan: Plan,
    is_news: bool,
    hanging: &Hanging,
    streams: &[Arc<Stream>],
    controls: &mut [mpsc::Receiver<Control>],
    shutdown: &CancellationToken,
) -> Result<RunEnd, Fatal> {
    if is_news {
        tracing::debug!(camera = camera.name, "source: {}", plan.source_label);
    }
    tracing::debug!(pipeline = plan.text());
    for (branch, stream) in plan.branches.iter_mut().zip(streams) {
        branch.limit = stream.demand().rate().map(|rate| rate.bitrate);
    }
    let is_fallback = plan.substitute.is_some();
    let (links, substitute) = (plan.links.clone(), plan.substitute.clone());
    links.taps.iter().for_each(|tap| tap.set_frozen(None));
    if let Some(reason) = substitute.as_ref().filter(|_| !camera.source.taken.is_empty()) {
        tracing::warn!(camera = camera.name, "{reason}");
    }
    for (stream, _) in streams.iter().zip(&plan.branches).filter(|(_, branch)| !branch.is_off) {
        stream.pipeline_starting(&plan.source_label, plan.capture_time, substitute.clone());
    }
    let (event_tx, mut events) = mpsc::channel(EVENT_CAPACITY);
    let (outputs, hanging) = (streams.to_vec(), hanging.clone());
    let start = tokio::task::spawn_blocking(move || {
        Graph::start(
            &hanging,
            &plan,
            move |stream, unit| outputs[stream].publish(unit, Instant::now()),
            // A GStreamer thread only hands over. The channel is full only when the supervisor itself is stuck.
            move |event| drop(event_tx.try_send(event)),
        )
    });
    let graph = tokio::select! {
        () = shutdown.cancelled() => return Ok(RunEnd::Stopped),
        started = tokio::time::timeout(START_LIMIT, start) => match started {
            Err(_) => {
                let reason = format!("the pipeline did not start within {} s", START_LIMIT.as_secs());
                return Ok(RunEnd::not_started(Failure::Source(reason)));
            }
            Ok(graph) => match joined(graph)? {
                Ok(graph) => graph,
                Err(error @ GraphError::Text(_)) => return Err(Fatal(error.to_string())),
                Err(GraphError::Start(failure)) => return Ok(RunEnd::not_started(failure)),
                Err(error) => return Ok(RunEnd::not_started(Failure::Source(error.to_string()))),
            },
        },
    };
    let end = tokio::select! {
        end = watch(camera, &links, &graph, streams, &mut events, controls, shutdown) => end,
        cameras = a_camera(&camera.source), if is_fallback => Ok(RunEnd::CameraFound(cameras)),
    };
    // Stopping can block for as long as a driver likes, within the limit.
    let stopped = tokio::task::spawn_blocking(move || graph.stop(STOP_LIMIT)).await;
    joined(stopped)?;
    end
}

async fn watch(
    camera: &CameraConfig,
    links: &Links,
    graph: &Graph,
    streams: &[Arc<Stream>],
    events: &mut mpsc::Receiver<GraphEvent>,
    controls: &mut [mpsc::Receiver<Control>],
    shutdown: &CancellationToken,
) -> Result<RunEnd, Fatal> {
    let source = &camera.source;
    let (inlet, pip) = (links.inlet.as_deref(), links.pip.as_deref());
    let mut awake_since = Instant::now();
    let mut looked = awake_since;
    let branches = graph.branches().iter().zip(streams).zip(&camera.streams);
    let mut watched: Vec<_> =
        branches.map(|((branch, stream), config)| Watched::new(branch, stream, &config.encode)).collect();
    let mut damage = Damage::default();
    let mut frozen = frozen_watch(source);
    let mut tick = tokio::time::interval(CHECK_INTERVAL);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let keyframe_at = watched.iter().filter_map(|watched| watched.keyframes.deadline()).min();
        tokio::select! {
            () = shutdown.cancelled() => return Ok(RunEnd::Stopped),
            Some(event) = events.recv() => match event {
                GraphEvent::Format { stream, resolution, fps } => watched[stream].set_format(source, resolution, fps),
                GraphEvent::NoKeyframe { stream } => watched[stream].request_keyframe(),
                GraphEvent::Eos => return Ok(source_ended(source, well_for(graph))),
                GraphEvent::Denied(reason) => return Ok(RunEnd::Denied(reason)),
                GraphEvent::Error(failure) => return Ok(RunEnd::Broken { failure, well_for: well_for(graph) }),
                // An IP camera is set up from elsewhere, and comes back by itself when that is done.
                GraphEvent::Refused(reason) if matches!(source.kind, SourceKind::Rtsp | SourceKind::Publish) => {
                    if let Some(inlet) = inlet {
                        inlet.refuse(&reason);
                    }
                    return Ok(RunEnd::Broken { failure: Failure::Source(reason), well_for: well_for(graph) });
                }
                GraphEvent::Refused(reason) => return Err(Fatal(reason)),
            },
            (stream, request) = next_request(controls) => watched[stream].serve(request),
            () = sleep_until(keyframe_at), if keyframe_at.is_some() => {
                for watched in &mut watched {
                    if watched.keyframes.due(Instant::now()) {
                        watched.branch.force_keyframe();
                    }
                }
            }
            _ = tick.tick() => {
                let now = Instant::now();
                let counters = graph.counters();
                let shortest = watched.iter().map(|watched| watched.interval).min().unwrap_or_default();
                let limit = watchdog::stall_limit(shortest);
                let awaited = watchdog::keyframe_awaited(now, counters.keyframe_awaited, limit);
                damage.check(now, counters.frames_damaged, awaited.is_some(), &camera.name, streams);
                if let Some(change) = frozen.check(counters.still) {
                    say_frozen(&camera.name, streams, &links.taps, change);
                }
                if let Some(pip) = pip {
                    pip.look(now);
                    streams.iter().for_each(|stream| stream.status().set_frozen(pip.why_frozen()));
                }
                // The process itself stood still (a machine under load, a debugger): the pipeline gets its time again.
                if now.saturating_duration_since(looked) > STANDSTILL {
                    awake_since = now;
                }
                looked = now;
                // Publishers come and go as they like, a camera that is shown here has a supervisor of its own, and a
                // keyframe comes when the source likes: the pipeline waits.
                let silent = inlet.and_then(|inlet| inlet.why_silent(now));
                let silent = silent.or_else(|| pip?.why_silent(now, limit));
                if awaited.is_some() {
                    awake_since = now;
                }
                if let Some(reason) = silent.as_ref().or(awaited.as_ref().and_then(Option::as_ref)) {
                    awake_since = now;
                    set_stopped(streams, StreamState::Stalled, reason);
                }
                for watched in watched.iter_mut().filter(|watched| !watched.branch.is_off()) {
                    watched.look(now, source, silent.is_some() || awaited.is_some());
                    let interval = watched.interval.max(inlet.map_or(Duration::ZERO, Inlet::interval));
                    let stalled = watchdog::stalled(now, &watched.passed(awake_since), interval);
                    // A file that is paced may have its next picture only later.
                    let waits = counters.next_due.is_some_and(|due| now < due + watchdog::stall_limit(interval));
                    match stalled {
                        Some(failure) if source.kind == SourceKind::Stdin => {
                            // Whoever feeds standard input decides when: a pause there is not ours to mend, and a
                            // restart would lose what the pipe holds.
                            watched.stream.status().set_stopped(StreamState::Stalled, failure.to_string());
                        }
                        Some(failure) if !waits => return Ok(RunEnd::Broken { failure, well_for: well_for(graph) }),
                        _ => {}
                    }
                }
            }
        }
    }
}

/// The next request, and the number of the stream that it is for.
async fn next_request(controls: &mut [mpsc::Receiver<Control>]) -> (usize, Control) {
    std::future::poll_fn(|context| {
        let requests = controls.iter_mut().enumerate();
        let mut ready = requests.filter_map(|(stream, control)| match control.poll_recv(context) {
            Poll::Ready(Some(request)) => Some((stream, request)),
            _ => None,
        });
        ready.next().map_or(Poll::Pending, Poll::Ready)
    })
    .await
}

/// A stream while its pipeline runs.
struct Watched<'a> {
    branch: &'a Branch,
    stream: &'a Stream,
    encode: &'a EncodeConfig,
    /// From picture to picture.
    interval: Duration,
    keyframes: KeyframeGate,
    load: LoadReport,
    rates: Rates,
    rest: Rest,
    keyless: Option<Problem>,
    /// Since when it waits for a keyframe of the source.
    keyframe_awaited: Option<Instant>,
}

impl<'a> Watched<'a> {
    fn new(branch: &'a Branch, stream: &'a Stream, encode: &'a EncodeConfig) -> Self {
        Self {
            branch,
            stream,
            encode,
            interval: encode.fps.map_or(Duration::ZERO, |fps| fps.interval()),
            keyframes: KeyframeGate::default(),
            load: LoadReport::default(),
            rates: Rates::default(),
            rest: Rest::after(encode.rest_after),
            keyless: None,
            keyframe_awaited: None,
        }
    }

    fn set_format(&mut self, source: &SourceConfig, resolution: Resolution, fps: Option<Fps>) {
        let (stream, branch) = (self.stream, self.branch);
        let encoder = branch.encoder().map_or("passthrough", |row| row.element);
        let target = branch.encoder().map(|_| branch.bitrate());
        let fps_known = fps.or(self.encode.fps).map(|f| f.as_f64());
        stream.status().set_format(resolution, fps_known, encoder, target);
        say_streaming(stream, branch);
        stream.status().set_ceiling(branch.ceiling());
        if let Some(option) = self.encode.encoding_option(source).filter(|_| branch.encoder().is_none()) {
            tracing::warn!(stream = stream.name(), "{option} has no effect: the source gives a coded stream");
        }
        self.rates.apply(branch, stream);
        if let Some(fps) = fps {
            self.interval = fps.interval();
        }
    }

    fn request_keyframe(&mut self) {
        if self.keyframes.request(Instant::now()) {
            self.branch.force_keyframe();
        }
    }

    fn serve(&mut self, request: Control) {
        match request {
            Control::KeyframeWanted if self.rest.gives_keyframe(self.branch.counters().frames_out) => {}
            Control::KeyframeWanted => self.request_keyframe(),
            Control::RateChanged => self.rates.apply(self.branch, self.stream),
            Control::Wanted => self.rest_or_wake(),
        }
    }

    /// What is looked at now and then. `silent`: nothing comes from elsewhere.
    fn look(&mut self, now: Instant, source: &SourceConfig, silent: bool) {
        self.rates.apply(self.branch, self.stream);
        self.rest_or_wake();
        let (counters, status) = (self.branch.counters(), self.stream.status());
        let dropped = counters.frames_dropped();
        status.set_counters(now, counters.frames_in, dropped);
        self.load.check(now, self.stream.name(), counters.frames_wanted(), dropped);
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

    fn passed(&mut self, awake_since: Instant) -> Passed {
        let counters = self.branch.counters();
        // What waits for a keyframe of the source owes nothing.
        let started = counters.last_unwanted.map_or(awake_since, |at| at.max(awake_since));
        let last_out = self.rest.last_out(&counters).map(|at| at.max(started));
        let (first_in, last_in) = (counters.first_in, counters.last_in);
        Passed { stream: self.branch.number(), started, first_in, last_in, last_out }
    }

    /// Lets the encoder rest while nobody looks. What goes out untouched needs no work that could rest.
    fn rest_or_wake(&mut self) {
        let (branch, stream) = (self.branch, self.stream);
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

/// One line: what, and how it is encoded.
fn say_streaming(stream: &Stream, branch: &Branch) {
    let (source, (size, fps)) = (stream.stats(Instant::now()).source, stream.status().format());
    let rate = if fps > 0.0 { format!(" at {} fps", (fps * 100.0).round() / 100.0) } else { String::new() };
    let how = match branch.encoder() {
        Some(row) => format!("by {} ({}) at {}", row.element, row.title, branch.bitrate()),
        None => "passed through".to_owned(),
    };
    tracing::info!(stream = stream.name(), "streaming {source}, {size}{rate}, {} {how}", stream.codec().title());
}

/// Test pictures and files may be at rest, and so may what a user's pipeline shows; a camera's sensor never is. What
/// shows other cameras is told of them.
fn frozen_watch(source: &SourceConfig) -> FrozenWatch {
    let limit =
        source.frozen_after.filter(|_| !matches!(source.kind, SourceKind::Test | SourceKind::File | SourceKind::Pip));
    FrozenWatch::new(limit, source.kind == SourceKind::Pipeline)
}

fn say_frozen(camera: &str, streams: &[Arc<Stream>], taps: &[Tap], since: Option<Duration>) {
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

fn say_keyless(stream: &Stream, problem: Option<Problem>, source: SourceKind) {
    let Some(problem) = problem else {
        tracing::info!(stream = stream.name(), "a keyframe has come: viewers can start");
        return;
    };
    let reason = playable::refusal(stream.codec(), problem, source);
    tracing::warn!(stream = stream.name(), "{reason}");
    stream.status().set_keyless(reason);
}

/// How long pictures have been coming out of each branch of this pipeline.
fn well_for(graph: &Graph) -> Vec<Option<Duration>> {
    let lived = |counters: BranchCounters| Some(counters.last_out?.saturating_duration_since(counters.first_out?));
    graph.branches().iter().map(|branch| lived(branch.counters())).collect()
}

/// Only a file that is not to be looped, and standard input, are over at their end. A camera that says so has failed.
fn source_ended(source: &SourceConfig, well_for: Vec<Option<Duration>>) -> RunEnd {
    match (&source.file, source.kind) {
        (Some(file), SourceKind::File) if !source.looping => {
            RunEnd::SourceEnded(format!("{} is at its end", file.display()))
        }
        (_, SourceKind::Stdin) => RunEnd::SourceEnded("standard input is at its end".to_owned()),
        _ => RunEnd::Broken { failure: Failure::Source("the source ended".to_owned()), well_for },
    }
}

/// Waits until there is a camera. A look that fails to come back is not repeated.
async fn a_camera(source: &SourceConfig) -> String {
    let mut look = CameraLook::new(Instant::now(), pipeline::device_nodes());
    loop {
        tokio::time::sleep(DEVICES_INTERVAL).await;
        if !look.due(Instant::now(), pipeline::device_nodes()) {
            continue;
        }
        let source = source.clone();
        let found = tokio::task::spawn_blocking(move || pipeline::cameras_present(&source)).await;
        match found {
            Ok(cameras) if cameras.is_empty() => {}
            Ok(cameras) => return cameras.iter().map(Found::to_string).collect::<Vec<_>>().join(", "),
            Err(error) => {
                tracing::error!(%error, "looking for cameras failed");
                std::future::pending::<()>().await;
            }
        }
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

/// The result of a blocking task; a panic of one goes on here, so that the process ends and is started again.
fn joined<T>(result: Result<T, tokio::task::JoinError>) -> Result<T, Fatal> {
    match result {
        Ok(value) => Ok(value),
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(error) => Err(Fatal(format!("a task of the pipeline was cancelled: {error}"))),
    }
}

/// Has the encoder make what the viewers' links allow, and says so when that changes notably.
#[derive(Default)]
struct Rates {
    said: Option<Bitrate>,
    failed: bool,
}

impl Rates {
    fn apply(&mut self, branch: &Branch, stream: &Stream) {
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
struct Damage {
    counted: u64,
    said: u64,
    last: Option<Instant>,
}

impl Damage {
    const INTERVAL: Duration = Duration::from_secs(10);

    /// `awaited`: they are left out until a whole keyframe comes.
    fn check(&mut self, now: Instant, damaged: u64, awaited: bool, camera: &str, streams: &[Arc<Stream>]) {
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
struct LoadReport {
    last: Option<(Instant, u64, u64)>,
    overloaded: bool,
}

impl LoadReport {
    const INTERVAL: Duration = Duration::from_secs(5);

    fn check(&mut self, now: Instant, stream: &str, frames_in: u64, dropped: u64) {
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
                "the encoder is too slow: {dropped} of {frames_in} pictures of the last {:.0} s were left out, {fps:.1} \
                 fps go out, without added delay; lower --width and --height or --fps, or use a hardware encoder",
                elapsed.as_secs_f64()
            );
        } else if self.overloaded {
            tracing::info!(stream, "the encoder keeps up again");
        }
        self.overloaded = overloaded;
    }
}

#[cfg(test)]
#[path = "supervisor_tests.rs"]
mod tests;
