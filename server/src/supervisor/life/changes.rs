//! Settings that are changed while a pipeline is at work.

use std::sync::Arc;
use std::time::Instant;

use futures_util::future::BoxFuture;
use rov_common::codec::Codec;
use tokio::sync::mpsc;

use super::{Life, RunEnd};
use crate::config::CameraConfig;
use crate::pipeline::{self, BranchPlan, EncoderRow, Joint, Plan};
use crate::rate_control::Rate;
use crate::supervisor::change::{Applied, Ask, Refused, Wanted};
use crate::supervisor::encoders::row_for;
use crate::supervisor::{Fatal, STOP_LIMIT, Trial, joined};

/// What is asked of a camera, and what needed the pipeline that is at work.
pub(in crate::supervisor) struct Changes<'a> {
    pub asks: &'a mut mpsc::Receiver<Ask>,
    pub trial: &'a mut Option<Trial>,
}

/// A change on its way, which takes some time.
pub(super) struct Changing {
    /// None: it was put off while nobody looked.
    ask: Option<Ask>,
    before: Arc<CameraConfig>,
    changed: Arc<CameraConfig>,
    /// Whose branch is replaced, if it is one's alone.
    pub stream: Option<usize>,
    /// The other branch is at work, and the former one is being ended.
    has_taken_over: bool,
    work: BoxFuture<'static, Result<Result<Done, Refused>, Fatal>>,
}

/// What a change has come to.
pub(super) enum Done {
    /// Another branch is at work.
    Replaced,
    /// The source is to be started anew, for a stream with this encoder.
    Anew(Option<(usize, &'static EncoderRow)>),
}

/// What is needed for a change of a stream.
struct Change {
    stream: usize,
    before: Arc<CameraConfig>,
    changed: Arc<CameraConfig>,
    row: &'static EncoderRow,
    rows: Vec<&'static EncoderRow>,
    plan: Arc<Plan>,
    /// None: no picture has come yet.
    joint: Option<Joint>,
    /// What the viewers' links allow, and whether that is less than the encoder would make.
    rate: Option<(Rate, bool)>,
}

impl Changing {
    /// Whether the branch of this stream is to give way, and is still at work.
    pub fn replaces(&self, stream: usize) -> bool {
        self.stream == Some(stream) && !self.has_taken_over
    }
}

impl Life<'_> {
    /// One at a time.
    pub(super) fn takes_changes(&self) -> bool {
        self.trial.is_none() && self.changing.is_none()
    }

    /// Does what can be done at once, and begins the rest.
    pub(super) fn ask(&mut self, ask: Ask) {
        // Whoever asked may have given up.
        if ask.reply.is_closed() {
            return;
        }
        match self.at_once(&ask.wanted) {
            Ok(Ok(applied)) => drop(ask.reply.send(Ok(applied))),
            Ok(Err(changed)) => {
                let stream = match ask.wanted {
                    Wanted::Encode { stream, .. } => Some(stream),
                    Wanted::Flip(_) | Wanted::Pip(_) => None,
                };
                self.begin(stream, Some(ask), Arc::clone(&self.camera), Arc::new(changed));
            }
            Err(refused) => drop(ask.reply.send(Err(refused))),
        }
    }

    /// Else the configuration that is wanted.
    fn at_once(&mut self, wanted: &Wanted) -> Result<Result<Applied, CameraConfig>, Refused> {
        let changed = wanted.of(&self.camera)?;
        if changed == *self.camera {
            return Ok(Ok(Applied::Unchanged));
        }
        let untouched = |stream: usize| Refused::PassedThrough { stream: self.camera.streams[stream].name.clone() };
        let (stream, encode) = match wanted {
            Wanted::Encode { stream, encode } => (*stream, encode),
            Wanted::Pip(_) => {
                self.set(Arc::new(changed));
                return Ok(Ok(Applied::Live));
            }
            Wanted::Flip(flip) => {
                if self.watched[0].branch.is_passed() {
                    return Err(untouched(0));
                }
                let branches = || self.watched.iter().map(|watched| &watched.branch).filter(|branch| !branch.is_off());
                if !branches().all(|branch| branch.can_flip()) {
                    return Ok(Err(changed));
                }
                branches().for_each(|branch| branch.flip(*flip));
                self.set(Arc::new(changed));
                return Ok(Ok(Applied::Live));
            }
        };
        let watched = &mut self.watched[stream];
        if watched.branch.is_passed() {
            return Err(untouched(stream));
        }
        let before = &self.camera.streams[stream].encode;
        if before.differs_in_rate_alone(encode) && watched.change_rate(encode) {
            self.set(Arc::new(changed));
            return Ok(Ok(Applied::Live));
        }
        // By another preset an encoder may come to use what the profile allows.
        let is_higher =
            encode.codec == Codec::H264 && (encode.profile, encode.preset) != (before.profile, before.preset);
        let least =
            watched.stream.demand().least_decoder().filter(|(least, _)| is_higher && *least < encode.profile.idc());
        if let Some((_, viewer)) = least {
            return Err(Refused::Viewer { stream: self.camera.streams[stream].name.clone(), viewer });
        }
        let can_wait = before.encoder == encode.encoder;
        if let Some(option) = self.row(stream).filter(|_| can_wait).and_then(|row| pipeline::lacks(row, encode)) {
            return Err(self.lacks(stream, option));
        }
        let watched = &mut self.watched[stream];
        if can_wait && (watched.is_resting() || watched.is_out()) {
            let before = before.clone();
            if watched.is_out() {
                // The next encoder that is started begins so.
                self.set(Arc::new(changed));
                return Ok(Ok(Applied::AtStart));
            }
            watched.postpone(before, encode);
            self.set(Arc::new(changed));
            return Ok(Ok(Applied::WhenWatched));
        }
        if watched.encoder.is_none() {
            return Err(Refused::NotNow("its encoder has failed and is being replaced".to_owned()));
        }
        Ok(Err(changed))
    }

    fn lacks(&self, stream: usize, option: &'static str) -> Refused {
        let encoder = self.row(stream).map_or("its encoder", |row| row.element);
        Refused::Lacks { stream: self.camera.streams[stream].name.clone(), encoder, option }
    }

    /// The encoder of a stream; none where it goes out untouched.
    fn row(&self, stream: usize) -> Option<&'static EncoderRow> {
        self.watched[stream].branch.encoder().or(self.plan.branches[stream].encoder)
    }

    fn begin(
        &mut self,
        stream: Option<usize>,
        ask: Option<Ask>,
        before: Arc<CameraConfig>,
        changed: Arc<CameraConfig>,
    ) {
        let of_stream = stream.and_then(|stream| Some((stream, self.row(stream)?)));
        let work: BoxFuture<'static, _> = match of_stream {
            None => Box::pin(async { Ok(Ok(Done::Anew(None))) }),
            Some((stream, row)) => {
                let rows = (0..self.watched.len()).map(|stream| self.row(stream).unwrap_or(pipeline::unused()));
                let ceiling = self.watched[stream].branch.ceiling();
                let rate = self.around.streams[stream].demand().rate();
                let is_limited = |rate: &Rate| ceiling.is_some_and(|ceiling| rate.bitrate < ceiling.bitrate);
                let change = Change {
                    stream,
                    before: Arc::clone(&before),
                    changed: Arc::clone(&changed),
                    row,
                    rows: rows.collect(),
                    plan: Arc::clone(self.plan),
                    joint: self.graph.joint(stream).filter(|joint| joint.given().is_some()),
                    rate: rate.map(|rate| (rate, is_limited(&rate))),
                };
                Box::pin(change.run())
            }
        };
        self.changing = Some(Changing { ask, before, changed, stream, has_taken_over: false, work });
    }

    /// What is asked of a stream is asked of the branch that has taken over, also while the former one is still being
    /// ended, which may take seconds.
    pub(super) fn follow_takeover(&mut self) {
        let Some(Changing { ask, changed, stream: Some(stream), has_taken_over, .. }) = &mut self.changing else {
            return;
        };
        if *has_taken_over || !self.graph.has_taken_over(*stream) {
            return;
        }
        *has_taken_over = true;
        let (ask, changed, stream) = (ask.take(), Arc::clone(changed), *stream);
        self.set(changed);
        answer(ask, Ok(Applied::NewBranch));
        // A failure waits for the change to be through.
        let _ = self.took_over(stream);
    }

    /// A change is through.
    pub(super) fn changed(&mut self, result: Result<Done, Refused>) -> Option<RunEnd> {
        self.follow_takeover();
        let Changing { ask, before, changed, stream, has_taken_over, .. } = self.changing.take()?;
        match (result, stream) {
            (Ok(Done::Replaced), Some(stream)) if has_taken_over => {
                let failure = self.watched[stream].failure.take()?;
                self.fail(failure)
            }
            (Ok(Done::Replaced), Some(stream)) => {
                self.set(changed);
                answer(ask, Ok(Applied::NewBranch));
                self.took_over(stream)
            }
            (Ok(Done::Replaced), None) => None,
            (Ok(Done::Anew(row)), _) => {
                if let Some((stream, row)) = row {
                    self.watched[stream].encoder.as_mut()?.set_row(row);
                }
                self.set(changed);
                let stream = row.map(|(stream, _)| stream);
                *self.trial = Some(Trial { ask, before, stream, was_cut_short: false, is_next: false });
                Some(RunEnd::Changed)
            }
            (Err(refused), _) => {
                let camera = &self.camera.name;
                match &ask {
                    Some(_) => tracing::info!(camera, "settings not changed: {refused}"),
                    // Nobody waits for the answer.
                    None => tracing::warn!(camera, "the settings of before are taken again: {refused}"),
                }
                self.set(before);
                answer(ask, Err(refused));
                let stream = stream?;
                if !Arc::ptr_eq(&self.graph.branch(stream), &self.watched[stream].branch) {
                    // It was put in again.
                    return self.took_over(stream);
                }
                // What the one at work has failed by meanwhile.
                let failure = self.watched[stream].failure.take()?;
                self.fail(failure)
            }
        }
    }

    fn took_over(&mut self, stream: usize) -> Option<RunEnd> {
        let (source, encode) = (&self.camera.source, self.camera.streams[stream].encode.clone());
        let branch = self.graph.branch(stream);
        let watched = &mut self.watched[stream];
        let (encoder, format) = (watched.encoder.take()?, branch.format());
        if let Some(row) = branch.encoder() {
            encoder.set_row(row);
        }
        let (counters, status) = (watched.branch.counters(), watched.stream.status());
        status.set_counters(Instant::now(), counters.frames_in, counters.frames_dropped());
        status.encoder_changed();
        let failure = watched.restart(branch, encode, encoder);
        if let Some((resolution, fps)) = format {
            watched.set_format(source, resolution, fps);
        }
        failure.and_then(|failure| self.fail(failure))
    }

    /// Begins what was put off while nobody looked.
    pub(super) fn take_up(&mut self) {
        if !self.takes_changes() {
            return;
        }
        let due = |watched: &super::Watched| !watched.is_resting() && !watched.is_out() && watched.encoder.is_some();
        for stream in 0..self.watched.len() {
            let watched = &mut self.watched[stream];
            if due(watched)
                && let Some(encode) = watched.put_off.take()
            {
                let mut before = (*self.camera).clone();
                before.streams[stream].encode = encode;
                return self.begin(Some(stream), None, Arc::new(before), Arc::clone(&self.camera));
            }
        }
    }

    /// A pipeline that a change needed is at work, as far as that was changed: what another stream lacks says nothing
    /// of it.
    pub(super) fn check_trial(&mut self) {
        let Some(trial) = &self.trial else { return };
        let gives = |watched: &super::Watched| watched.branch.counters().frames_out > 0;
        let is_at_work = match trial.stream {
            Some(stream) => self.watched[stream].branch.is_off() || gives(&self.watched[stream]),
            None => self.watched.iter().any(gives),
        };
        if is_at_work && let Some(trial) = self.trial.take() {
            answer(trial.ask, Ok(Applied::Restarted));
        }
    }

    /// The pipeline ends before a change is through.
    pub(super) fn interrupt(&mut self) {
        self.follow_takeover();
        let changing = self.changing.take_if(|changing| !changing.has_taken_over);
        match changing {
            Some(Changing { ask: Some(ask), before, .. }) => {
                self.set(before);
                answer(Some(ask), Err(Refused::NotNow("the camera had to be started again meanwhile".to_owned())));
            }
            // It was told that this is so once somebody looks: the next pipeline begins with it.
            Some(Changing { ask: None, before, stream, .. }) => {
                *self.trial = Some(Trial { ask: None, before, stream, was_cut_short: true, is_next: true });
            }
            None => {}
        }
    }

    fn set(&mut self, changed: Arc<CameraConfig>) {
        self.around.set(Arc::clone(&changed));
        self.camera = changed;
    }
}

/// Whoever asked may have given up.
fn answer(ask: Option<Ask>, result: Result<Applied, Refused>) {
    if let Some(ask) = ask {
        let _ = ask.reply.send(result);
    }
}

/// The next result of a change that there is.
pub(super) async fn through(changing: &mut Option<Changing>) -> Result<Result<Done, Refused>, Fatal> {
    match changing {
        Some(changing) => (&mut changing.work).await,
        None => std::future::pending().await,
    }
}

impl Change {
    async fn run(self) -> Result<Result<Done, Refused>, Fatal> {
        let Self { stream, before, changed, row: former, mut rows, plan, joint, rate } = self;
        let row = match row_for(&before, &changed, stream, former).await {
            Ok(row) => row,
            Err(refused) => return Ok(Err(refused)),
        };
        let anew = Ok(Ok(Done::Anew(Some((stream, row)))));
        let Some(joint) = joint else { return anew };
        rows[stream] = row;
        let work = move || {
            if asks_for_more(&changed, stream, &joint) {
                let next = pipeline::prepare(&changed, &rows).map_err(|error| Refused::Failed(error.to_string()))?;
                if next.head_text() != plan.head_text() {
                    return Ok(false);
                }
            }
            let branch = pipeline::prepare_branch(&plan, &changed, stream, row);
            let limit = rate.filter(|(_, is_limited)| *is_limited).map(|(rate, _)| rate.bitrate);
            let (branch, rate) = (BranchPlan { limit, ..branch }, rate.map(|(rate, _)| rate));
            let Err(error) = joint.replace(&branch, plan.codec, rate.as_ref(), STOP_LIMIT) else {
                return Ok(true);
            };
            // If that of before does not come to life a second time either, it is not the settings' fault. Software has
            // no limit, but may be slow: the one at work is not ended for that.
            let again = pipeline::prepare_branch(&plan, &before, stream, former);
            if former.is_software() || joint.has_room_for(&again, plan.codec, STOP_LIMIT) {
                return Err(error.into());
            }
            let gap = joint.exchange(&branch, &again, plan.codec, STOP_LIMIT)?;
            let (name, ms) = (&changed.streams[stream].name, gap.as_millis());
            tracing::info!(stream = name, "the encoder works once only: no picture for {ms} ms");
            Ok(true)
        };
        match joined(tokio::task::spawn_blocking(work).await)? {
            Ok(true) => Ok(Ok(Done::Replaced)),
            Ok(false) => anew,
            Err(refused) => Ok(Err(refused)),
        }
    }
}

/// Whether a stream is to have larger pictures, or more of them, than a source gives that could give others.
fn asks_for_more(camera: &CameraConfig, stream: usize, joint: &Joint) -> bool {
    let encode = &camera.streams[stream].encode;
    camera.source.kind.nature().is_choosable
        && joint.given().is_some_and(|(resolution, fps)| {
            let is_larger = |wanted: &rov_common::units::Resolution| {
                wanted.width > resolution.width || wanted.height > resolution.height
            };
            let is_more = fps.zip(encode.fps).is_some_and(|(fps, wanted)| wanted.as_f64() > fps.as_f64() + 0.01);
            encode.resolution.as_ref().is_some_and(is_larger) || is_more
        })
}
