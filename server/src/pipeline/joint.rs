//! Replaces the branch of one stream while the others of its camera go on: its tail is taken out at the tee and ended,
//! and another one is put in.
//!
//! Limits: a tail that does not end is left to a thread of its own, as GStreamer cannot abandon it; another one of the
//! same text is refused as long as it hangs. What a branch fails by never reaches the tee, which would end the source.

use std::sync::atomic::Ordering;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use gstreamer as gst;
use gstreamer::prelude::*;
use rov_common::codec::Codec;
use rov_common::sync::lock;
use rov_gst::message;

use super::build;
use super::capture::{Branch, Capture, Failure, GraphError};
use super::graph::{Hanging, START_LIMIT, STILL_HANGS};
use super::plan::{self, BranchPlan};

/// For the picture that is on its way from the tee into a branch: the queue there takes it at once.
const IDLE_LIMIT: Duration = Duration::from_secs(1);

/// Where a branch of a running pipeline is joined to the others.
#[derive(Clone)]
pub struct Joint {
    stream: usize,
    pipeline: gst::Pipeline,
    /// That of the tee.
    pad: gst::Pad,
    capture: Arc<Capture>,
    hanging: Hanging,
}

/// A branch that was not put in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotPutIn {
    /// It failed. `hangs`: it has not come back from the driver, so that none like it can be started.
    Failed { failure: Failure, hangs: bool },
    /// A former one like it has not come back from the driver. It was not tried.
    StillHangs(Failure),
}

/// The branch cannot be taken out of the pipeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the tee does not let go of the branch")]
pub struct Stuck;

impl Joint {
    pub(super) fn new(
        pipeline: &gst::Pipeline,
        capture: &Arc<Capture>,
        stream: usize,
        hanging: &Hanging,
    ) -> Option<Self> {
        capture.branch(stream).encoder()?;
        let tee = pipeline.by_name(plan::TEE)?;
        // Linked one after the other.
        let pad = tee.static_pad(&format!("src_{stream}"))?;
        let (pipeline, capture, hanging) = (pipeline.clone(), Arc::clone(capture), hanging.clone());
        Some(Self { stream, pipeline, pad, capture, hanging })
    }

    /// Takes the branch out and ends it; false where it has not ended within `limit` and is left to itself.
    pub fn take_out(&self, limit: Duration) -> Result<bool, Stuck> {
        let branch = self.capture.branch(self.stream);
        // Nothing goes in any more; nor does anything go out, whenever it comes back.
        branch.fail();
        lock(&branch.valve).shut();
        let Some(tail) = self.pad.peer().and_then(|peer| peer.parent_element()) else { return Ok(true) };
        let (done, unlinked) = mpsc::channel();
        // While a picture passes, the end of the branch would be an error of the tee's.
        self.pad.add_probe(gst::PadProbeType::IDLE, move |pad, _| {
            let _ = done.send(pad.peer().is_none_or(|peer| pad.unlink(&peer).is_ok()));
            gst::PadProbeReturn::Remove
        });
        if unlinked.recv_timeout(IDLE_LIMIT) != Ok(true) || self.pipeline.remove(&tail).is_err() {
            return Err(Stuck);
        }
        let text = branch.text();
        let stopped = self.hanging.within(&text, limit, move || tail.set_state(gst::State::Null).is_ok());
        if stopped.is_none() {
            tracing::warn!("an encoder has not stopped after {} ms, leaving it to itself", limit.as_millis());
        }
        Ok(stopped.is_some())
    }

    /// Starts another branch in the place of the one that was taken out; waits for drivers 5 s at most. `source_codec`:
    /// of a coded source.
    pub fn put_in(&self, plan: &BranchPlan, source_codec: Codec) -> Result<(), NotPutIn> {
        let branch = Arc::new(Branch::new(self.stream, plan, Instant::now()));
        let failure = |reason: String| Failure::Encoder { stream: self.stream, reason };
        let failed = |reason: String, hangs| NotPutIn::Failed { failure: failure(reason), hangs };
        let caps = self.pad.current_caps();
        let text = caps.as_ref().and_then(|caps| build::text_for(&plan.tail, source_codec, caps));
        let text = text.ok_or_else(|| failed("the source has given no picture yet".to_owned(), false))?;
        if self.hanging.holds(text) {
            return Err(NotPutIn::StillHangs(failure(STILL_HANGS.to_owned())));
        }
        let tail = self.tail(plan, source_codec, text, &branch).map_err(|error| failed(error.to_string(), false))?;
        let (joint, joined) = (self.clone(), Arc::clone(&branch));
        match self.hanging.within(text, START_LIMIT, move || joint.start(&tail, &joined)) {
            Some(Ok(())) => Ok(()),
            Some(Err(reason)) => Err(failed(reason, false)),
            None => {
                // It has been joined to the pipeline just now, or will not be.
                let joining = lock(&self.capture.joining);
                branch.fail();
                drop(joining);
                if self.pad.is_linked() {
                    let _ = self.take_out(START_LIMIT);
                }
                Err(failed(format!("the encoder has not started after {} s", START_LIMIT.as_secs()), true))
            }
        }
    }

    fn tail(
        &self,
        plan: &BranchPlan,
        source_codec: Codec,
        text: &str,
        branch: &Arc<Branch>,
    ) -> Result<gst::Bin, GraphError> {
        let tail = build::parse(text, false)?;
        add_entrance(&tail, branch)?;
        build::fill_tail(&tail, plan, source_codec, text, true, branch, &self.capture)?;
        Ok(tail)
    }

    /// Opens the encoder outside the pipeline, where it holds up nothing, and then joins the branch to it.
    fn start(&self, tail: &gst::Bin, branch: &Arc<Branch>) -> Result<(), String> {
        let bus = gst::Bus::new();
        tail.set_bus(Some(&bus));
        let started = tail.set_state(gst::State::Paused).is_ok();
        let result = match started {
            true => self.join(tail, branch),
            false => Err(message::pending_error(&bus).unwrap_or_else(|| "the encoder does not start".to_owned())),
        };
        if result.is_err() {
            if tail.parent().is_some() {
                let _ = self.pipeline.remove(tail);
            }
            // It was not at work.
            let _ = tail.set_state(gst::State::Null);
        }
        result
    }

    fn join(&self, tail: &gst::Bin, branch: &Arc<Branch>) -> Result<(), String> {
        let _joining = lock(&self.capture.joining);
        // Nobody waits for it any more.
        if self.capture.stopped.load(Ordering::Acquire) || branch.has_failed() {
            return Err("the pipeline is being stopped".to_owned());
        }
        let unfit = || "the encoder does not fit into the pipeline".to_owned();
        let entrance = tail.static_pad(ENTRANCE).ok_or_else(unfit)?;
        // What it says from here on is its own.
        self.capture.set_branch(branch);
        self.pipeline.add(tail).map_err(|_| unfit())?;
        build::join_time(tail, &self.pipeline);
        tail.sync_state_with_parent().map_err(|_| unfit())?;
        // The source goes on as it is: to negotiate again would hold up the other branches.
        let checks = gst::PadLinkCheck::DEFAULT | gst::PadLinkCheck::NO_RECONFIGURE;
        self.pad.link_full(&entrance, checks).map_err(|_| unfit())?;
        // The pipeline is at its end only with all of its branches.
        if self.pad.sticky_event::<gst::event::Eos>(0).is_some() {
            entrance.send_event(gst::event::Eos::new());
        }
        Ok(())
    }
}

const ENTRANCE: &str = "sink";

/// Where a tail beside others takes what the tee gives. An error of what is behind it is posted, and hidden from the
/// tee, for which it would be the end of all.
pub(super) fn add_entrance(tail: &gst::Bin, branch: &Arc<Branch>) -> Result<(), GraphError> {
    let no_input = || GraphError::Text("nothing in the branch takes pictures".to_owned());
    let target = tail.find_unlinked_pad(gst::PadDirection::Sink).ok_or_else(no_input)?;
    let (of_one, of_several) = (Arc::clone(branch), Arc::clone(branch));
    let entrance = gst::GhostPad::builder_with_target(&target)
        .map_err(|_| no_input())?
        .name(ENTRANCE)
        .chain_function(move |pad, parent, buffer| enter(&of_one, || gst::ProxyPad::chain_default(pad, parent, buffer)))
        .chain_list_function(move |pad, parent, list| {
            enter(&of_several, || gst::ProxyPad::chain_list_default(pad, parent, list))
        })
        .build();
    // They would wait for the encoder, and the source with all other streams for them: a source asks anew with each change
    // of its pictures.
    entrance.add_probe(gst::PadProbeType::QUERY_DOWNSTREAM, |_, info| match info.query() {
        Some(query) if query.is_serialized() => gst::PadProbeReturn::Drop,
        _ => gst::PadProbeReturn::Ok,
    });
    tail.add_pad(&entrance).map_err(|_| no_input())
}

fn enter(
    branch: &Branch,
    pass: impl FnOnce() -> Result<gst::FlowSuccess, gst::FlowError>,
) -> Result<gst::FlowSuccess, gst::FlowError> {
    if branch.has_failed() {
        return Ok(gst::FlowSuccess::Ok);
    }
    match pass() {
        // The pipeline is being stopped.
        Err(error) if error != gst::FlowError::Flushing => {
            // Mostly the element that has failed has said why before.
            if let Some(encoder) = branch.element().filter(|_| !branch.has_failed()) {
                gst::element_error!(encoder, gst::StreamError::Failed, ("it takes no more pictures: {error:?}"));
            }
            Ok(gst::FlowSuccess::Ok)
        }
        result => result,
    }
}
