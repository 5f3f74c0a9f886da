//! Keeps a camera's pipeline running for all of its streams: starts it, watches it, restarts it for ever, and ends it.
//!
//! `life` is one pipeline from its start to its end, `replacement` gives one of its streams another encoder meanwhile,
//! `encoders` knows which. What is seen of a stream is in `watched`, what the log says of it in `reports`. By `change`
//! its settings are changed.

pub mod change;
mod encoders;
mod life;
mod replacement;
mod reports;
mod watched;

use std::sync::Arc;
use std::time::{Duration, Instant};

use rov_common::api::StreamState;
use rov_common::backoff::{Backoff, REFUSED_MAX, REFUSED_MIN};
use rov_common::sync::lock;
use thiserror::Error;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use self::change::{Applied, Ask, Asked, Current, Refused};
use self::encoders::Encoders;
use self::life::{Changes, RunEnd, run_once};
use self::reports::Choice;
use crate::config::CameraConfig;
use crate::hanging::Hanging;
use crate::pipeline::{self, Failure, Found, Links, Plan, PrepareError};
use crate::stream::{Control, Stream};
use crate::watchdog::{HEALTHY_AFTER, Repeats};

/// Between restarts: a quarter of a second at first, doubled up to one second, so that a camera that is back is seen
/// soon.
const RESTART_MIN: Duration = Duration::from_millis(250);
const RESTART_MAX: Duration = Duration::from_secs(1);
/// Opening a camera, or looking at it, can hang in its driver; past this the attempt is given up and left to its
/// thread.
const START_LIMIT: Duration = Duration::from_secs(15);
const STOP_LIMIT: Duration = Duration::from_secs(2);
const LOOK: &str = "looking at the source";
const LOSES_PACKETS: &str = "packets of the camera are lost on their way by UDP, and it sends no keyframe when asked \
                             for one: starting a new session with it, by TCP; have it make a keyframe every second or \
                             two";

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

/// What the pipelines of a camera have around them, one after the other.
struct Surroundings {
    current: Current,
    links: Links,
    streams: Vec<Arc<Stream>>,
    /// Pipelines and branches that were left to a driver that does not let go of them.
    hanging: Hanging,
    shutdown: CancellationToken,
}

impl Surroundings {
    /// The configuration is this from now on, also where other cameras show this one, or this one shows others.
    fn set(&self, camera: Arc<CameraConfig>) {
        self.links.taps.iter().for_each(|tap| tap.set_flip(camera.source.flip));
        if let Some((pip, config)) = self.links.pip.as_ref().zip(camera.source.pip.as_ref()) {
            pip.set(config);
        }
        self.set_latency_modes(&camera);
        self.current.set(camera);
    }

    fn set_latency_modes(&self, camera: &CameraConfig) {
        for (stream, config) in self.streams.iter().zip(&camera.streams) {
            stream.set_latency_mode(config.encode.latency);
        }
    }
}

/// What was asked of a camera, and needs its pipeline to be started anew: until that is at work.
struct Trial {
    /// None: nobody waits for the answer.
    ask: Option<Ask>,
    /// What it goes back to.
    before: Arc<CameraConfig>,
    /// Whose settings were changed; none: those of the camera.
    stream: Option<usize>,
    /// It was put off, and the pipeline of before ended while it was made: no failure but its encoder's is its own.
    was_cut_short: bool,
    /// No pipeline has begun with it.
    is_next: bool,
}

impl Trial {
    /// Whether the failure is that of an encoder whose settings were changed.
    fn is_of(&self, failure: &Failure) -> bool {
        matches!(failure, Failure::Encoder { stream, .. } if self.stream.is_none_or(|changed| changed == *stream))
    }
}

/// Runs the pipeline of the camera that is `asked` for its `streams`, in the order of the configuration, until
/// `shutdown`, the end of the source, or a mistake in the configuration.
pub async fn run(
    asked: Asked,
    links: Links,
    streams: Vec<(Arc<Stream>, mpsc::Receiver<Control>)>,
    shutdown: CancellationToken,
) -> Result<Outcome, Fatal> {
    let Asked { current, mut asks } = asked;
    let (streams, mut controls): (Vec<_>, Vec<_>) = streams.into_iter().unzip();
    let camera = current.get();
    let mut encoders = tokio::select! {
        () = shutdown.cancelled() => return Ok(Outcome::Stopped),
        encoders = Encoders::choose(&camera) => encoders?,
    };
    let around = Surroundings { current, links, streams, hanging: Hanging::default(), shutdown };
    let Surroundings { current, streams, shutdown, .. } = &around;
    let mut backoff = Backoff::new(RESTART_MIN, RESTART_MAX);
    let mut refusals = Backoff::new(REFUSED_MIN, REFUSED_MAX);
    let mut has_worked = false;
    let mut complaints = Repeats::default();
    let mut choice = Choice::default();
    let mut trial: Option<Trial> = None;
    loop {
        let (camera, rows) = (current.get(), encoders.rows());
        let (camera_now, hanging) = (Arc::clone(&camera), around.hanging.clone());
        let look = move || pipeline::prepare(&camera_now, &rows);
        let prepare = tokio::task::spawn_blocking(move || hanging.attempt(LOOK, START_LIMIT, look));
        let prepared = tokio::select! {
            () = shutdown.cancelled() => return Ok(Outcome::Stopped),
            prepared = prepare => joined(prepared)?,
        };
        let (mut least, mut is_its_encoder) = (Duration::ZERO, false);
        let reason = match prepared {
            Err(reason) => reason,
            Ok(plan) => match plan {
                // What was right before, as a file on a disk that is gone for a moment, may be right again.
                Err(PrepareError::Fatal(reason)) if !has_worked => return Err(Fatal(reason)),
                Err(PrepareError::Fatal(reason) | PrepareError::Retry(reason)) => reason,
                Ok(plan) => {
                    let mut plan = Plan { links: around.links.clone(), ..plan };
                    encoders.turn_off(&mut plan);
                    choice.say(&camera.name, &plan);
                    let (found, text) = (plan.found.clone(), plan.text());
                    if let Some(trial) = &mut trial {
                        trial.is_next = false;
                    }
                    let asked = Changes { asks: &mut asks, trial: &mut trial };
                    let end = run_once(plan, !complaints.any(), &around, &mut encoders, &mut controls, asked).await?;
                    match end.judged(has_worked)? {
                        RunEnd::Refused { .. } => unreachable!("it is judged"),
                        RunEnd::Stopped => return Ok(Outcome::Stopped),
                        RunEnd::SourceEnded(reason) => {
                            set_stopped(streams, StreamState::Ended, &reason);
                            return Ok(Outcome::SourceEnded(reason));
                        }
                        RunEnd::Broken { failure, well_for } => {
                            let hangs = around.hanging.holds(&text);
                            let reason = match &trial {
                                // What was changed is to blame, not the encoder.
                                Some(trial) if !trial.is_next && trial.is_of(&failure) => {
                                    is_its_encoder = true;
                                    failure.to_string()
                                }
                                _ => encoders.failed(&current.get(), &failure, &well_for, hangs).await,
                            };
                            let well_for = well_for.into_iter().flatten().max();
                            has_worked |= well_for.is_some();
                            if well_for.is_none() && lock(&around.links.path).failed(Instant::now()) {
                                tracing::warn!(camera = camera.name, "no picture came by TCP: taking UDP again");
                            }
                            if well_for.is_some() {
                                refusals.reset();
                                remember(current, found.as_ref());
                            }
                            if well_for.is_some_and(|time| time > HEALTHY_AFTER) {
                                backoff.reset();
                                complaints.reset();
                            }
                            reason
                        }
                        RunEnd::Denied { reason, if_right, well_for } => {
                            has_worked |= well_for.iter().any(Option::is_some);
                            match if_right.filter(|_| has_worked) {
                                Some(reason) => reason,
                                None => {
                                    least = refusals.next_delay();
                                    let seconds = least.as_secs();
                                    format!("{reason}; next attempt in {seconds} s, as cameras lock out after some")
                                }
                            }
                        }
                        RunEnd::LosesPackets => {
                            has_worked = true;
                            lock(&around.links.path).change();
                            tracing::warn!(camera = camera.name, "{LOSES_PACKETS}");
                            set_stopped(streams, StreamState::Restarting, LOSES_PACKETS);
                            continue;
                        }
                        RunEnd::CameraFound(cameras) => {
                            tracing::info!(camera = camera.name, "camera found: {cameras}");
                            backoff.reset();
                            continue;
                        }
                        RunEnd::Changed => {
                            remember(current, found.as_ref());
                            has_worked = true;
                            backoff.reset();
                            continue;
                        }
                    }
                }
            },
        };
        let is_its = |trial: &mut Trial| !trial.is_next && (is_its_encoder || !trial.was_cut_short);
        if let Some(Trial { ask, before, .. }) = trial.take_if(is_its) {
            tracing::warn!(camera = camera.name, "the changed settings do not work: {reason}; going back");
            let failed = current.get();
            around.set(Arc::clone(&before));
            if let Err(refused) = encoders.fit(&failed, &before).await {
                tracing::warn!(camera = camera.name, "{refused}");
            }
            if let Some(ask) = ask {
                let _ = ask.reply.send(Err(Refused::Failed(reason)));
            }
            continue;
        }
        let pause = backoff.next_delay().max(least);
        match complaints.say(&reason, Instant::now()) {
            Some(1) => tracing::warn!(camera = camera.name, "{reason}; restarting in {:.2} s", pause.as_secs_f64()),
            Some(times) => tracing::warn!(camera = camera.name, "{reason}; tried {times} times, trying on"),
            None => tracing::debug!(camera = camera.name, "{reason}"),
        }
        set_stopped(streams, StreamState::Restarting, &reason);
        tokio::select! {
            () = shutdown.cancelled() => return Ok(Outcome::Stopped),
            () = tokio::time::sleep(pause) => {}
            Some(ask) = asks.recv() => tokio::select! {
                () = shutdown.cancelled() => return Ok(Outcome::Stopped),
                () = take_change(ask, &around, &mut encoders, &mut trial) => {}
            },
        }
    }
}

/// While no pipeline is at work, what is wanted of the camera is for the next one, which is tried at once then.
async fn take_change(ask: Ask, around: &Surroundings, encoders: &mut Encoders, trial: &mut Option<Trial>) {
    let before = around.current.get();
    let result = match ask.wanted.of(&before) {
        Ok(changed) => encoders.fit(&before, &changed).await.map(|()| {
            around.set(Arc::new(changed));
            // Nor does it go back behind what is wanted now.
            if let Some(trial) = trial
                && let Ok(before) = ask.wanted.of(&trial.before)
            {
                trial.before = Arc::new(before);
            }
            Applied::AtStart
        }),
        Err(refused) => Err(refused),
    };
    // Whoever asked may have given up.
    let _ = ask.reply.send(result);
}

/// The camera that has given pictures is taken again, and no other one that has its number meanwhile. One that was
/// named by a path of udev's or the user's own is what that path leads to.
fn remember(current: &Current, found: Option<&Found>) {
    let mut camera = current.get();
    let follows_path = |device: &String| device.starts_with('/') && !device.starts_with("/dev/video");
    if camera.source.device.as_ref().is_some_and(follows_path) {
        return;
    }
    if let Some(Found { known_by, .. }) = found.filter(|found| found.known_by != camera.source.taken) {
        Arc::make_mut(&mut camera).source.taken.clone_from(known_by);
        current.set(camera);
    }
}

fn set_stopped(streams: &[Arc<Stream>], state: StreamState, reason: &str) {
    streams.iter().for_each(|stream| stream.status().set_stopped(state, reason.to_owned()));
}

/// The result of a blocking task; a panic of one goes on here, so that the process ends and is started again.
fn joined<T>(result: Result<T, tokio::task::JoinError>) -> Result<T, Fatal> {
    match result {
        Ok(value) => Ok(value),
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(error) => Err(Fatal(format!("a task of the pipeline was cancelled: {error}"))),
    }
}

#[cfg(test)]
#[path = "supervisor_tests.rs"]
mod tests;
