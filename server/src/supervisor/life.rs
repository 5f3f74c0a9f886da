//! One pipeline of a camera, from its start to its end.

mod changes;

use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use rov_common::api::StreamState;
use rov_common::sync::lock;
use tokio::sync::mpsc;

pub(super) use self::changes::Changes;
use self::changes::{Changing, through};
use super::change::Ask;
use super::encoders::Encoders;
use super::replacement::{End, Replaced, Replacement};
use super::reports::{Damage, frozen_watch, say_frozen};
use super::watched::Watched;
use super::{Fatal, START_LIMIT, STOP_LIMIT, Surroundings, Trial, joined, set_stopped};
use crate::config::{CameraConfig, SourceConfig, SourceKind};
use crate::inlet::Inlet;
use crate::pipeline::{self, Failure, Found, Graph, GraphError, GraphEvent, Joint, Plan};
use crate::stream::Control;
use crate::watchdog::{self, CameraLook, FrozenWatch, HEALTHY_AFTER};

/// While there is no camera, the machine's devices are listed so often.
const DEVICES_INTERVAL: Duration = Duration::from_millis(250);
const CHECK_INTERVAL: Duration = Duration::from_millis(100);
/// Checks that come this late were not made because the process did not run.
const STANDSTILL: Duration = Duration::from_millis(500);
/// Events of a pipeline that wait; more than these say nothing new.
const EVENT_CAPACITY: usize = 16;

/// How one pipeline came to its end.
pub(super) enum RunEnd {
    Stopped,
    SourceEnded(String),
    /// `well_for`: of each stream, from its first picture to its last, without its rests, if there was one.
    Broken {
        failure: Failure,
        well_for: Vec<Option<Duration>>,
    },
    /// An IP camera has refused the password. As of [`GraphEvent::Denied`] and of `Broken`.
    Denied {
        reason: String,
        if_right: Option<String>,
        well_for: Vec<Option<Duration>>,
    },
    /// What comes, or the pipeline's description, cannot work: a mistake in the configuration, unless it worked before.
    Refused {
        reason: String,
        well_for: Vec<Option<Duration>>,
    },
    /// An IP camera's packets are lost on their way by UDP, and its keyframes come too rarely for that.
    LosesPackets,
    /// A camera is there, and the test picture in its place is not needed any more.
    CameraFound(String),
    /// The configuration is another, for which the source has to be started anew.
    Changed,
}

impl RunEnd {
    fn not_started(failure: Failure) -> Self {
        Self::Broken { failure, well_for: Vec::new() }
    }

    /// A mistake in the configuration is the end of the camera. What has worked may do so again: one bad access unit
    /// must not end it for good. A few pictures are no proof, as B-frames come behind the first keyframe.
    pub(super) fn judged(self, has_worked: bool) -> Result<Self, Fatal> {
        let Self::Refused { reason, well_for } = self else { return Ok(self) };
        match has_worked || well_for.iter().flatten().any(|time| *time > HEALTHY_AFTER) {
            true => Ok(Self::Broken { failure: Failure::Source(reason), well_for }),
            false => Err(Fatal(reason)),
        }
    }
}

/// One life of a pipeline. `is_news`: worth a line in the log.
pub(super) async fn run_once(
    mut plan: Plan,
    is_news: bool,
    around: &Surroundings,
    encoders: &mut Encoders,
    controls: &mut [mpsc::Receiver<Control>],
    changes: Changes<'_>,
) -> Result<RunEnd, Fatal> {
    let Surroundings { current, links, streams, shutdown, .. } = around;
    let camera = current.get();
    if is_news {
        tracing::debug!(camera = camera.name, "source: {}", plan.source_label);
    }
    tracing::debug!(pipeline = plan.text());
    for (branch, stream) in plan.branches.iter_mut().zip(streams) {
        branch.limit = stream.limit();
    }
    let is_fallback = plan.substitute.is_some();
    let substitute = plan.substitute.clone();
    for tap in &links.taps {
        tap.set_frozen(None);
        tap.set_substitute(substitute.clone());
    }
    if let Some(reason) = substitute.as_ref().filter(|_| !camera.source.taken.is_empty()) {
        tracing::warn!(camera = camera.name, "{reason}");
    }
    around.set_latency_modes(&camera);
    for (stream, _) in streams.iter().zip(&plan.branches).filter(|(_, branch)| !branch.is_off) {
        stream.pipeline_starting(&plan.source_label, plan.capture_time, substitute.clone());
    }
    let (event_tx, mut events) = mpsc::channel(EVENT_CAPACITY);
    let (outputs, hanging) = (streams.clone(), around.hanging.clone());
    let plan = Arc::new(plan);
    let planned = Arc::clone(&plan);
    let start = tokio::task::spawn_blocking(move || {
        Graph::start(
            &hanging,
            &planned,
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
                Err(GraphError::Text(reason)) => return Ok(RunEnd::Refused { reason, well_for: Vec::new() }),
                Err(GraphError::Start(failure)) => return Ok(RunEnd::not_started(failure)),
                Err(error) => return Ok(RunEnd::not_started(Failure::Source(error.to_string()))),
            },
        },
    };
    let mut life = Life::new(&plan, around, &graph, encoders, changes.trial);
    let end = tokio::select! {
        end = life.watch(&mut events, controls, changes.asks) => end,
        cameras = a_camera(&camera.source), if is_fallback => Ok(RunEnd::CameraFound(cameras)),
    };
    life.interrupt();
    drop(life);
    if matches!(end, Ok(RunEnd::Changed)) {
        // Viewers that get nothing from a stream that runs would begin another session.
        let reason = "the source is started again with other settings";
        streams.iter().for_each(|stream| stream.status().set_changing(reason));
    }
    // Stopping can block for as long as a driver likes, within the limit.
    let stopped = tokio::task::spawn_blocking(move || graph.stop(STOP_LIMIT)).await;
    joined(stopped)?;
    end
}

/// A pipeline at work, and what is seen of it.
struct Life<'a> {
    /// As it was when the pipeline was planned, but for what has been changed since.
    camera: Arc<CameraConfig>,
    plan: &'a Arc<Plan>,
    around: &'a Surroundings,
    graph: &'a Graph,
    watched: Vec<Watched<'a>>,
    /// Branches that are being replaced, one of a stream at most.
    replacements: FuturesUnordered<BoxFuture<'a, Result<Replaced<'a>, Fatal>>>,
    /// What was asked for, and needed this pipeline; until it is at work.
    trial: &'a mut Option<Trial>,
    /// A change that takes some time.
    changing: Option<Changing>,
    damage: Damage,
    frozen: FrozenWatch,
    /// When it was looked at last, and since when the process has not stood still.
    looked: Instant,
    awake_since: Instant,
}

impl<'a> Life<'a> {
    fn new(
        plan: &'a Arc<Plan>,
        around: &'a Surroundings,
        graph: &'a Graph,
        encoders: &'a mut Encoders,
        trial: &'a mut Option<Trial>,
    ) -> Self {
        let camera = around.current.get();
        let branches = graph.branches().into_iter().zip(&around.streams).zip(&camera.streams).zip(&mut encoders.0);
        let watched = branches
            .map(|(((branch, stream), config), encoder)| Watched::new(branch, stream, config.encode.clone(), encoder))
            .collect();
        let now = Instant::now();
        let frozen = frozen_watch(&camera.source);
        Self {
            camera,
            plan,
            around,
            graph,
            watched,
            replacements: FuturesUnordered::new(),
            trial,
            changing: None,
            damage: Damage::default(),
            frozen,
            looked: now,
            awake_since: now,
        }
    }

    async fn watch(
        &mut self,
        events: &mut mpsc::Receiver<GraphEvent>,
        controls: &mut [mpsc::Receiver<Control>],
        asks: &mut mpsc::Receiver<Ask>,
    ) -> Result<RunEnd, Fatal> {
        let mut tick = tokio::time::interval(CHECK_INTERVAL);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let keyframe_at = self.watched.iter().filter_map(|watched| watched.keyframes.deadline()).min();
            let end = tokio::select! {
                () = self.around.shutdown.cancelled() => Some(RunEnd::Stopped),
                Some(event) = events.recv() => self.hear(event),
                Some(replaced) = self.replacements.next(), if !self.replacements.is_empty() => self.replaced(replaced?),
                Some(ask) = asks.recv(), if self.takes_changes() => {
                    self.ask(ask);
                    None
                }
                result = through(&mut self.changing), if self.changing.is_some() => self.changed(result?),
                (stream, request) = next_request(controls) => {
                    self.follow_takeover();
                    self.watched[stream].serve(request);
                    self.take_up();
                    None
                }
                () = sleep_until(keyframe_at), if keyframe_at.is_some() => {
                    self.follow_takeover();
                    for watched in &mut self.watched {
                        if watched.keyframes.due(Instant::now()) {
                            watched.branch.force_keyframe();
                        }
                    }
                    None
                }
                _ = tick.tick() => self.look(Instant::now()),
            };
            if let Some(end) = end {
                return Ok(end);
            }
        }
    }

    /// What the pipeline tells.
    fn hear(&mut self, event: GraphEvent) -> Option<RunEnd> {
        let camera = Arc::clone(&self.camera);
        let source = &camera.source;
        match event {
            GraphEvent::Format { stream, resolution, fps } => {
                let watched = &mut self.watched[stream];
                match watched.encoder {
                    // It may be of the branch that takes over just now, whose format is asked for then.
                    Some(_) if self.changing.as_ref().is_some_and(|changing| changing.replaces(stream)) => {}
                    Some(_) => watched.set_format(source, resolution, fps),
                    // Of the branch that takes its place.
                    None => watched.format = Some((resolution, fps)),
                }
                None
            }
            GraphEvent::NoKeyframe { stream } => {
                self.watched[stream].request_keyframe();
                None
            }
            GraphEvent::Eos => Some(source_ended(source, self.well_for())),
            GraphEvent::Denied { reason, if_right } => {
                Some(RunEnd::Denied { reason, if_right, well_for: self.well_for() })
            }
            GraphEvent::Error(failure) => self.hear_failure(failure),
            // It comes back by itself when it is set up rightly.
            GraphEvent::Refused(reason) if source.kind.nature().is_remote => {
                if let Some(inlet) = &self.around.links.inlet {
                    inlet.refuse(&reason);
                }
                Some(self.broken(Failure::Source(reason)))
            }
            GraphEvent::Refused(reason) => {
                set_stopped(&self.around.streams, StreamState::Stalled, &reason);
                Some(RunEnd::Refused { reason, well_for: self.well_for() })
            }
        }
    }

    /// What is looked at now and then.
    fn look(&mut self, now: Instant) -> Option<RunEnd> {
        self.follow_takeover();
        self.check_trial();
        self.take_up();
        let (source, streams, links) = (&self.camera.source, &self.around.streams, &self.around.links);
        let (inlet, pip) = (links.inlet.as_deref(), links.pip.as_deref());
        let counters = self.graph.counters();
        let shortest = self.watched.iter().map(|watched| watched.interval).min().unwrap_or_default();
        let limit = watchdog::stall_limit(shortest);
        let awaited = watchdog::keyframe_awaited(now, counters.keyframe_awaited, limit);
        self.damage.check(now, counters.frames_damaged, awaited.is_some(), &self.camera.name, streams);
        if let Some(change) = self.frozen.check(counters.still) {
            say_frozen(&self.camera.name, streams, &links.taps, change);
        }
        if let Some(pip) = pip {
            pip.look(now);
            for stream in streams {
                stream.status().set_frozen(pip.why_frozen());
                stream.status().set_substitute(pip.why_substitute());
            }
        }
        if let Some(inlet) = inlet {
            streams.iter().for_each(|stream| stream.status().set_sender(inlet.sender(), inlet.news(now)));
        }
        // The process itself stood still (a machine under load, a debugger): the pipeline gets its time again.
        if now.saturating_duration_since(self.looked) > STANDSTILL {
            self.awake_since = now;
        }
        self.looked = now;
        // Publishers come and go as they like, a camera that is shown here has a supervisor of its own, and a keyframe
        // comes when the source likes: the pipeline waits.
        let silent = inlet.and_then(|inlet| inlet.why_silent(now));
        let silent = silent.or_else(|| pip?.why_silent(now, limit));
        if awaited.is_some() {
            self.awake_since = now;
        }
        if let Some(reason) = silent.as_ref().or(awaited.as_ref().and_then(Option::as_ref)) {
            self.awake_since = now;
            set_stopped(streams, StreamState::Stalled, reason);
        }
        let graph = self.graph;
        if graph.needs_tcp(now) && lock(&links.path).may_change(now) {
            return Some(RunEnd::LosesPackets);
        }
        let mut failures = Vec::new();
        for watched in self.watched.iter_mut().filter(|watched| !watched.is_out()) {
            watched.look(now, self.awake_since, source, silent.is_some() || awaited.is_some());
            let interval = watched.interval.max(inlet.map_or(Duration::ZERO, Inlet::interval));
            let stalled = watchdog::stalled(now, &watched.passed(self.awake_since), interval);
            // A file that is paced may have its next picture only later.
            let waits = counters.next_due.is_some_and(|due| now < due + watchdog::stall_limit(interval));
            match stalled {
                Some(failure) if source.kind == SourceKind::Stdin && !is_replaceable(graph, &failure) => {
                    // Whoever feeds standard input decides when: a pause there is not ours to mend, and a restart would
                    // lose what the pipe holds.
                    watched.stream.status().set_stopped(StreamState::Stalled, failure.to_string());
                }
                Some(failure) if !waits => failures.push(failure),
                _ => {}
            }
        }
        failures.into_iter().find_map(|failure| self.fail(failure))
    }

    fn hear_failure(&mut self, failure: Failure) -> Option<RunEnd> {
        if let Failure::Encoder { stream, .. } = failure
            && is_replaceable(self.graph, &failure)
        {
            let watched = &mut self.watched[stream];
            if watched.encoder.is_none() {
                watched.failure = Some(failure);
                return None;
            }
            // It is of the branch before.
            if !watched.branch.has_failed() {
                return None;
            }
        }
        self.fail(failure)
    }

    /// Of a branch that can be replaced, the others go on.
    fn fail(&mut self, failure: Failure) -> Option<RunEnd> {
        let Failure::Encoder { stream, .. } = failure else { return Some(self.broken(failure)) };
        // What was changed does not work: no other encoder is taken for that.
        if self.trial.as_ref().is_some_and(|trial| trial.stream == Some(stream)) {
            return Some(self.broken(failure));
        }
        let watched = &mut self.watched[stream];
        // Another one is being made and may take over, or has just done so.
        if self.changing.as_ref().is_some_and(|changing| changing.stream == Some(stream)) {
            watched.branch.fail();
            watched.failure = Some(failure);
            return None;
        }
        let Some(joint) = replaceable(self.graph, stream) else { return Some(self.broken(failure)) };
        let watched = &mut self.watched[stream];
        // It is being replaced already.
        let encoder = watched.encoder.take()?;
        watched.branch.fail();
        let replacement = Replacement {
            current: self.around.current.clone(),
            plan: Arc::clone(self.plan),
            stream,
            output: Arc::clone(watched.stream),
            joint,
        };
        let well_for = watched.lived();
        self.replacements.push(Box::pin(replacement.run(encoder, failure, well_for)));
        None
    }

    fn replaced(&mut self, replaced: Replaced<'a>) -> Option<RunEnd> {
        let Replaced { stream, encoder, end } = replaced;
        match end {
            End::Works(made) => {
                let (branch, watched) = (self.graph.branch(stream), &mut self.watched[stream]);
                let (format, encode) = (watched.format.take(), made.streams[stream].encode.clone());
                let failure = watched.restart(branch, encode.clone(), encoder);
                if let Some((resolution, fps)) = format {
                    watched.set_format(&self.camera.source, resolution, fps);
                }
                // What was changed while it was opened.
                if made.source.flip != self.camera.source.flip {
                    watched.branch.flip(self.camera.source.flip);
                }
                watched.postpone(encode, &self.camera.streams[stream].encode);
                failure.and_then(|failure| self.fail(failure))
            }
            End::Stuck(failure) => Some(self.broken(failure)),
        }
    }

    fn broken(&self, failure: Failure) -> RunEnd {
        // To stop it may take a while, in which viewers that get nothing from a stream that runs would begin another
        // session.
        set_stopped(&self.around.streams, StreamState::Stalled, &failure.to_string());
        RunEnd::Broken { failure, well_for: self.well_for() }
    }

    /// How long pictures have been coming out of each branch of this pipeline.
    fn well_for(&self) -> Vec<Option<Duration>> {
        self.watched.iter().map(Watched::lived).collect()
    }
}

/// Whether it is of a branch that can be replaced while the others go on.
fn is_replaceable(graph: &Graph, failure: &Failure) -> bool {
    matches!(failure, Failure::Encoder { stream, .. } if replaceable(graph, *stream).is_some())
}

/// Where the branch of a stream is joined to others.
fn replaceable(graph: &Graph, stream: usize) -> Option<Joint> {
    graph.joint(stream).filter(|_| graph.branches().len() > 1)
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
