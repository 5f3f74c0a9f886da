//! Replaces the branch of one stream while the others of its camera go on: its tail is taken out at the tee and ended,
//! and another one is put in, afterwards or (`handover`) beside it before.
//!
//! Limits: a tail that does not end is left to a thread of its own, as GStreamer cannot abandon it; another one of the
//! same text is refused as long as it hangs. What a branch fails by never reaches the tee, which would end the source.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_video as gst_video;
use rov_common::codec::Codec;
use rov_common::sync::lock;
use rov_gst::caps::format_of;
use rov_gst::message;

use super::capture::{Branch, Capture, Failure, Format, GraphError, GraphEvent, News, Relay};
use super::graph::START_LIMIT;
use super::handover::{Handover, Sign};
use super::plan::{self, BranchPlan};
use super::{at_rest, build};
use crate::hanging::{Hanging, STILL_HANGS};
use crate::rate_control::Rate;

/// For the picture that is on its way from the tee into a branch: the queue there takes it at once.
const IDLE_LIMIT: Duration = Duration::from_secs(1);

/// For the next branch to give its first picture.
const ALIVE_LIMIT: Duration = Duration::from_secs(5);
/// How often the next branch begins anew, if what it then gives comes late or does not begin with a keyframe; and how
/// long it takes at most for a picture to come.
const ATTEMPTS: usize = 8;
const ATTEMPT_LIMIT: Duration = Duration::from_secs(2);
/// Between two looks at how long one branch waits for the other.
const LOOK: Duration = Duration::from_millis(20);

/// Where a branch of a running pipeline is joined to the others.
#[derive(Clone)]
pub struct Joint {
    stream: usize,
    pipeline: gst::Pipeline,
    tee: gst::Element,
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

/// A branch has not taken over from the one at work, which goes on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotReplaced {
    /// It failed.
    #[error("{0}")]
    Failed(String),
    /// It gave nothing in time, as on a machine that has too much to do, or was not tried.
    #[error("{0}")]
    NotNow(String),
}

impl From<NotPutIn> for NotReplaced {
    fn from(error: NotPutIn) -> Self {
        match error {
            NotPutIn::Failed { failure, .. } => Self::Failed(failure.to_string()),
            NotPutIn::StillHangs(failure) => Self::NotNow(failure.to_string()),
        }
    }
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
        let (pipeline, capture, hanging) = (pipeline.clone(), Arc::clone(capture), hanging.clone());
        Some(Self { stream, tee: pipeline.by_name(plan::TEE)?, pipeline, capture, hanging })
    }

    /// What comes to all branches.
    fn caps(&self) -> Option<gst::Caps> {
        self.tee.static_pad("sink")?.current_caps()
    }

    /// Size and rate of the pictures that come to all branches.
    pub fn given(&self) -> Option<Format> {
        self.caps().and_then(|caps| format_of(&caps))
    }

    /// Takes the branch at work out and ends it; false where it has not ended within `limit` and is left to itself.
    pub fn take_out(&self, limit: Duration) -> Result<bool, Stuck> {
        self.remove(&self.capture.branch(self.stream), limit)
    }

    fn remove(&self, branch: &Branch, limit: Duration) -> Result<bool, Stuck> {
        // Nothing goes in any more; nor does anything go out, whenever it comes back.
        branch.fail();
        lock(&branch.valve).shut();
        let Some(tail) = branch.tail().and_downcast::<gst::Element>() else { return Ok(true) };
        let Some(pad) = tail.static_pad(ENTRANCE).and_then(|entrance| entrance.peer()) else { return Ok(true) };
        let (done, unlinked) = mpsc::channel();
        // While a picture passes, the end of the branch would be an error of the tee's.
        pad.add_probe(gst::PadProbeType::IDLE, move |pad, _| {
            let _ = done.send(pad.peer().is_none_or(|peer| pad.unlink(&peer).is_ok()));
            gst::PadProbeReturn::Remove
        });
        if unlinked.recv_timeout(IDLE_LIMIT) != Ok(true) || self.pipeline.remove(&tail).is_err() {
            return Err(Stuck);
        }
        self.tee.release_request_pad(&pad);
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
        self.add(plan, source_codec, &branch, true)
    }

    /// Has another branch, made beside the one at work, take over from it at a keyframe, and ends the former one within
    /// `limit`. No picture is missing then. `rate`: what the viewers' links allow, of the bit rate as `plan` says.
    /// Waits some seconds at most; where it does not come to life, the one at work goes on.
    pub fn replace(
        &self,
        plan: &BranchPlan,
        source_codec: Codec,
        rate: Option<&Rate>,
        limit: Duration,
    ) -> Result<(), NotReplaced> {
        let (former, next) =
            (self.capture.branch(self.stream), Arc::new(Branch::new(self.stream, plan, Instant::now())));
        let (news, heard) = mpsc::sync_channel(NEWS);
        let relay = Relay { former: Arc::clone(&former), next: Arc::clone(&next), handover: Handover::new(), news };
        *self.capture.relay(self.stream) = Some(relay);
        let added = self.add(plan, source_codec, &next, false).map_err(NotReplaced::from);
        let result = added.and_then(|()| self.hand_over(&next, rate, &heard));
        // It may have taken over at the last moment.
        let took_over = self.capture.end_relay(self.stream);
        let result = if took_over { Ok(()) } else { result };
        let over = if took_over { &former } else { &next };
        // What it still says is not heard once it is out.
        if self.remove(over, limit).is_err() {
            tracing::warn!("the tee does not let go of a branch that is over; nothing goes into it any more");
        }
        *self.capture.relay(self.stream) = None;
        result
    }

    /// Whether a branch like this comes to life beside the one at work: hardware may encode so many streams and no
    /// more.
    pub fn has_room_for(&self, plan: &BranchPlan, source_codec: Codec, limit: Duration) -> bool {
        let (former, next) =
            (self.capture.branch(self.stream), Arc::new(Branch::new(self.stream, plan, Instant::now())));
        let (news, heard) = mpsc::sync_channel(NEWS);
        let relay = Relay { former, next: Arc::clone(&next), handover: Handover::new(), news };
        *self.capture.relay(self.stream) = Some(relay);
        let lives = self.add(plan, source_codec, &next, false).is_ok() && alive(&heard).is_ok();
        self.capture.end_relay(self.stream);
        let is_out = self.remove(&next, limit).is_ok();
        *self.capture.relay(self.stream) = None;
        lives && is_out
    }

    /// As [`Self::replace`], but the branch at work is ended first: no picture comes until the next one gives some.
    /// Where that does not come to life, the one of `before` is put in again. The time without a picture.
    pub fn exchange(
        &self,
        plan: &BranchPlan,
        before: &BranchPlan,
        source_codec: Codec,
        limit: Duration,
    ) -> Result<Duration, NotReplaced> {
        let begun = Instant::now();
        // It gives no pictures any more, and is not gone either: only the whole pipeline can be started again.
        let stuck = |Stuck| {
            self.capture.event(GraphEvent::Error(Failure::Source(Stuck.to_string())));
            NotReplaced::Failed(Stuck.to_string())
        };
        self.take_out(limit).map_err(stuck)?;
        let reason = match self.put_in(plan, source_codec).and_then(|()| self.first_picture()) {
            Ok(()) => return Ok(begun.elapsed()),
            Err(error) => NotReplaced::from(error),
        };
        self.take_out(limit).map_err(stuck)?;
        match self.put_in(before, source_codec) {
            Ok(()) => Err(reason),
            // Whoever watches the branch hears that it has failed.
            Err(NotPutIn::Failed { failure, .. } | NotPutIn::StillHangs(failure)) => {
                self.capture.event(GraphEvent::Error(failure));
                Err(reason)
            }
        }
    }

    /// Waits for the first picture of the branch at work.
    fn first_picture(&self) -> Result<(), NotPutIn> {
        let (branch, end) = (self.capture.branch(self.stream), Instant::now() + ALIVE_LIMIT);
        while branch.counters().first_out.is_none() {
            if branch.has_failed() || Instant::now() > end {
                let failure = branch.failure("the encoder has given nothing".to_owned());
                return Err(NotPutIn::Failed { failure, hangs: false });
            }
            std::thread::sleep(LOOK);
        }
        Ok(())
    }

    /// Until the next branch has taken over.
    fn hand_over(&self, next: &Arc<Branch>, rate: Option<&Rate>, heard: &Receiver<News>) -> Result<(), NotReplaced> {
        alive(heard)?;
        if let Some(rate) = rate {
            let rate = Rate { bitrate: next.bitrate(), pause_until: None, ..*rate };
            next.apply(&rate).map_err(|error| NotReplaced::Failed(error.to_string()))?;
        }
        let mut attempts = 0;
        while attempts < ATTEMPTS {
            if let Some(News::Failed(reason)) = heard.try_iter().find(|news| matches!(news, News::Failed(_))) {
                return Err(NotReplaced::Failed(reason));
            }
            self.begin_anew(next);
            match self.attempt(heard)? {
                Sign::TookOver => return Ok(()),
                Sign::Rehearsed => {}
                Sign::Alive | Sign::GaveUp => attempts += 1,
                Sign::TooSlow => break,
            }
        }
        Err(NotReplaced::NotNow("the encoder has begun with no keyframe in time, again and again".to_owned()))
    }

    /// What has come of the next branch's beginning anew.
    fn attempt(&self, heard: &Receiver<News>) -> Result<Sign, NotReplaced> {
        let end = Instant::now() + ATTEMPT_LIMIT;
        loop {
            match heard.recv_timeout(LOOK) {
                Ok(News::Sign(Sign::Alive)) | Err(_) => {}
                Ok(News::Sign(sign)) => return Ok(sign),
                Ok(News::Failed(reason)) => return Err(NotReplaced::Failed(reason)),
            }
            if self.capture.look_at_relay(self.stream) {
                return Ok(Sign::TookOver);
            }
            if Instant::now() > end {
                return Ok(Sign::GaveUp);
            }
        }
    }

    /// The next branch begins anew with a keyframe, at the next picture that comes to the tee. That is settled before
    /// any branch has it: the former one may be through with it before the next one gets it.
    fn begin_anew(&self, next: &Arc<Branch>) {
        lock(&next.valve).shut();
        let Some(pad) = self.tee.static_pad("sink") else { return };
        let (capture, next) = (Arc::downgrade(&self.capture), Arc::downgrade(next));
        pad.add_probe(gst::PadProbeType::BUFFER, move |pad, info| {
            let time = at_rest::time_of(pad, info);
            if let Some(next) = next.upgrade().filter(|next| capture.upgrade().is_some_and(|c| c.begins(next, time))) {
                next.wake_from(time);
            }
            gst::PadProbeReturn::Remove
        });
    }

    /// Opens a branch beside the others, and takes it for the one `at_work` or leaves that to [`Self::hand_over`].
    fn add(&self, plan: &BranchPlan, source_codec: Codec, branch: &Arc<Branch>, at_work: bool) -> Result<(), NotPutIn> {
        let failure = |reason: String| Failure::Encoder { stream: self.stream, reason };
        let failed = |reason: String, hangs| NotPutIn::Failed { failure: failure(reason), hangs };
        let caps = self.caps();
        let text = caps.as_ref().and_then(|caps| build::text_for(&plan.tail, source_codec, caps));
        let text = text.ok_or_else(|| failed("the source has given no picture yet".to_owned(), false))?;
        if self.hanging.holds(text) {
            return Err(NotPutIn::StillHangs(failure(STILL_HANGS.to_owned())));
        }
        let tail = self.tail(plan, source_codec, text, branch).map_err(|error| failed(error.to_string(), false))?;
        let (joint, joined) = (self.clone(), Arc::clone(branch));
        match self.hanging.within(text, START_LIMIT, move || joint.start(&tail, &joined, at_work)) {
            Some(Ok(())) => Ok(()),
            Some(Err(reason)) => Err(failed(reason, false)),
            None => {
                // It has been joined to the pipeline just now, or will not be.
                let joining = lock(&self.capture.joining);
                branch.fail();
                drop(joining);
                let _ = self.remove(branch, START_LIMIT);
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
    fn start(&self, tail: &gst::Bin, branch: &Arc<Branch>, at_work: bool) -> Result<(), String> {
        let bus = gst::Bus::new();
        tail.set_bus(Some(&bus));
        let started = tail.set_state(gst::State::Paused).is_ok();
        let result = match started {
            true => self.join(tail, branch, at_work),
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

    fn join(&self, tail: &gst::Bin, branch: &Arc<Branch>, at_work: bool) -> Result<(), String> {
        let _joining = lock(&self.capture.joining);
        // Nobody waits for it any more.
        if self.capture.stopped.load(Ordering::Acquire) || branch.has_failed() {
            return Err("the pipeline is being stopped".to_owned());
        }
        let unfit = || "the encoder does not fit into the pipeline".to_owned();
        let entrance = tail.static_pad(ENTRANCE).ok_or_else(unfit)?;
        // What it says from here on is its own.
        if at_work {
            self.capture.set_branch(branch);
        }
        self.pipeline.add(tail).map_err(|_| unfit())?;
        build::join_time(tail, &self.pipeline);
        tail.sync_state_with_parent().map_err(|_| unfit())?;
        let pad = self.tee.request_pad_simple("src_%u").ok_or_else(unfit)?;
        // The source goes on as it is: to negotiate again would hold up the other branches.
        let checks = gst::PadLinkCheck::DEFAULT | gst::PadLinkCheck::NO_RECONFIGURE;
        if pad.link_full(&entrance, checks).is_err() {
            self.tee.release_request_pad(&pad);
            return Err(unfit());
        }
        // The pipeline is at its end only with all of its branches.
        let source = self.tee.static_pad("sink");
        if source.is_some_and(|pad| pad.sticky_event::<gst::event::Eos>(0).is_some()) {
            entrance.send_event(gst::event::Eos::new());
        }
        Ok(())
    }
}

/// Waits until the next branch has given something.
fn alive(heard: &Receiver<News>) -> Result<(), NotReplaced> {
    match heard.recv_timeout(ALIVE_LIMIT) {
        Ok(News::Sign(_)) => Ok(()),
        Ok(News::Failed(reason)) => Err(NotReplaced::Failed(reason)),
        Err(_) => Err(NotReplaced::NotNow(format!("the encoder has given nothing for {} s", ALIVE_LIMIT.as_secs()))),
    }
}

/// What is heard of the next branch and waits to be taken.
const NEWS: usize = 16;

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
    // They would wait for the encoder, and the source with all other streams for them: a source asks anew with each
    // change of its pictures. What memory it gives them in is its own, as branches come and go; all take rows of any
    // length.
    entrance.add_probe(gst::PadProbeType::QUERY_DOWNSTREAM, |_, info| match info.query_mut() {
        Some(query) if query.is_serialized() => match query.view_mut() {
            gst::QueryViewMut::Allocation(allocation) => {
                allocation.add_allocation_meta::<gst_video::VideoMeta>(None);
                gst::PadProbeReturn::Handled
            }
            _ => gst::PadProbeReturn::Drop,
        },
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
