//! Gives one stream of a camera another branch when its encoder fails, while the others go on and its viewers stay.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rov_common::api::StreamState;

use super::change::Current;
use super::encoders::StreamEncoder;
use super::{Fatal, STOP_LIMIT, joined};
use crate::config::CameraConfig;
use crate::pipeline::{self, BranchPlan, Failure, Joint, NotPutIn, Plan};
use crate::stream::Stream;
use crate::watchdog::HEALTHY_AFTER;

/// Before another try where no encoder works; the others go on meanwhile, so that it may be tried for ever.
const NONE_WORKS: Duration = Duration::from_secs(30);

/// The branch that is replaced.
pub(super) struct Replacement {
    pub current: Current,
    pub plan: Arc<Plan>,
    pub stream: usize,
    pub output: Arc<Stream>,
    pub joint: Joint,
}

/// How it came out, with the encoder that was lent.
pub(super) struct Replaced<'a> {
    pub stream: usize,
    pub encoder: &'a mut StreamEncoder,
    pub end: End,
}

pub(super) enum End {
    /// Another branch is at work, made as this says. What was changed while it was opened is not in it.
    Works(Arc<CameraConfig>),
    /// The pipeline does not let go of the branch: it has to be started again as a whole.
    Stuck(Failure),
}

impl Replacement {
    /// Until another branch is at work. `well_for`: how long the one that has failed was.
    pub async fn run<'a>(
        self,
        encoder: &'a mut StreamEncoder,
        mut failure: Failure,
        mut well_for: Option<Duration>,
    ) -> Result<Replaced<'a>, Fatal> {
        let stream = self.stream;
        // Viewers that get nothing from a stream that runs would begin another session.
        self.output.status().set_stopped(StreamState::Stalled, failure.to_string());
        let joint = self.joint.clone();
        let stopped = tokio::task::spawn_blocking(move || joint.take_out(STOP_LIMIT)).await;
        let Ok(stopped) = joined(stopped)? else {
            return Ok(Replaced { stream, encoder, end: End::Stuck(failure) });
        };
        let mut hangs = !stopped;
        if well_for.is_some_and(|time| time > HEALTHY_AFTER) {
            encoder.backoff.reset();
            encoder.complaints.reset();
        }
        loop {
            let reason = encoder.failed(&self.current.get(), &failure, well_for, hangs).await;
            // Tried anew then, as if it had not failed before.
            let none_works = std::mem::take(&mut encoder.is_off);
            let mut pause = if none_works { NONE_WORKS } else { encoder.backoff.next_delay() };
            self.say(encoder, reason, pause);
            (failure, hangs) = loop {
                tokio::time::sleep(pause).await;
                match self.put_in(encoder).await? {
                    Ok(made) => return Ok(Replaced { stream, encoder, end: End::Works(made) }),
                    Err(NotPutIn::Failed { failure, hangs }) => break (failure, hangs),
                    // That says nothing of the encoder but that it has to be waited for.
                    Err(NotPutIn::StillHangs(failure)) => {
                        pause = encoder.backoff.next_delay();
                        self.say(encoder, failure.to_string(), pause);
                    }
                }
            };
            well_for = None;
        }
    }

    async fn put_in(&self, encoder: &StreamEncoder) -> Result<Result<Arc<CameraConfig>, NotPutIn>, Fatal> {
        self.output.status().encoder_starting();
        let (camera, plan, joint) = (self.current.get(), Arc::clone(&self.plan), self.joint.clone());
        let (stream, row) = (self.stream, encoder.row);
        let limit = self.output.limit();
        let put_in = move || {
            let branch = pipeline::prepare_branch(&plan, &camera, stream, row);
            joint.put_in(&BranchPlan { limit, ..branch }, plan.codec).map(|()| camera)
        };
        joined(tokio::task::spawn_blocking(put_in).await)
    }

    /// `pause`: until it is tried again.
    fn say(&self, encoder: &mut StreamEncoder, reason: String, pause: Duration) {
        let camera = &self.current.get().name;
        match encoder.complaints.say(&reason, Instant::now()) {
            Some(1) => {
                let (element, seconds) = (encoder.row.element, pause.as_secs_f64());
                tracing::warn!(camera, "{reason}; starting {element} in {seconds:.2} s, the other streams go on");
            }
            Some(times) => tracing::warn!(camera, "{reason}; {times} attempts failed, still retrying"),
            None => tracing::debug!(camera, "{reason}"),
        }
        self.output.status().set_stopped(StreamState::Restarting, reason);
    }
}
