//! Which encoder each stream of a camera has, and which takes its place when it fails.

use std::time::Duration;

use rov_common::backoff::Backoff;

use super::change::Refused;
use super::{Fatal, RESTART_MAX, RESTART_MIN, joined};
use crate::config::{CameraConfig, EncodeConfig, EncoderChoice};
use crate::pipeline::{self, EncoderRow, Failure, Plan};
use crate::watchdog::{EncoderWatch, HEALTHY_AFTER, Repeats};

/// Those of a camera's streams, in the order of the configuration.
pub(super) struct Encoders(pub(super) Vec<StreamEncoder>);

/// That of a stream.
pub(super) struct StreamEncoder {
    stream: usize,
    pub row: &'static EncoderRow,
    /// Those that worked on trial, and then not at work.
    pub(super) failed: Vec<&'static str>,
    watch: EncoderWatch,
    /// None works: the stream is left out until the source fails.
    pub is_off: bool,
    /// Between the restarts of its branch alone.
    pub backoff: Backoff,
    pub complaints: Repeats,
    /// What was said of its stream when pictures came.
    pub announced: Repeats,
}

impl StreamEncoder {
    pub fn new(stream: usize, row: &'static EncoderRow) -> Self {
        Self {
            stream,
            row,
            failed: Vec::new(),
            watch: EncoderWatch::default(),
            is_off: false,
            backoff: Backoff::new(RESTART_MIN, RESTART_MAX),
            complaints: Repeats::default(),
            announced: Repeats::default(),
        }
    }

    /// Its stream has ended, which was well for so long. After a short life it says nothing new when pictures come
    /// again.
    fn ended(&mut self, well_for: Option<Duration>) {
        if well_for.is_some_and(|time| time > HEALTHY_AFTER) {
            self.announced.reset();
        }
    }

    /// Takes this one; what another one has failed by is not its fault.
    pub fn set_row(&mut self, row: &'static EncoderRow) {
        if self.row != row {
            *self = Self::new(self.stream, row);
        }
    }

    /// Its encoder has failed, which was well for so long: takes the next one where it is time to. `hangs`: it has not
    /// stopped. Returns the reason in words.
    pub async fn failed(
        &mut self,
        camera: &CameraConfig,
        failure: &Failure,
        well_for: Option<Duration>,
        hangs: bool,
    ) -> String {
        self.ended(well_for);
        let (element, stream) = (self.row.element, &camera.streams[self.stream]);
        let mut reason = failure.to_string();
        if !reason.contains(element) {
            reason = format!("{element}: {reason}");
        }
        if camera.streams.len() > 1 {
            reason = format!("{}: {reason}", stream.name);
        }
        if !self.watch.failed(failure, well_for, hangs) {
            return reason;
        }
        // A named one stays.
        if stream.encode.encoder == EncoderChoice::Auto {
            self.failed.push(element);
            // Not beside the others: they may be what does not work any more, and then none would.
            if let Ok(next) = choose(camera, self.stream, &self.failed, Vec::new()).await {
                self.row = next;
                return reason;
            }
        }
        // The last one is as good as any for the first stream, which is the pilot's. No other one is opened again and
        // again beside it.
        self.is_off = self.stream > 0;
        reason
    }
}

impl Encoders {
    pub async fn choose(camera: &CameraConfig) -> Result<Self, Fatal> {
        let mut all: Vec<StreamEncoder> = Vec::new();
        // The first stream has no encoder where it is passed through.
        let passed = camera.source.is_passed_through();
        for stream in 0..camera.streams.len() {
            let encodes = camera.streams.iter().map(|stream| stream.encode.clone());
            let rows = all.iter().map(|encoder| encoder.row);
            let beside = rows.zip(encodes).skip(usize::from(passed)).collect();
            let row = match passed && stream == 0 {
                true => pipeline::unused(),
                false => choose(camera, stream, &[], beside).await?,
            };
            all.push(StreamEncoder::new(stream, row));
        }
        Ok(Self(all))
    }

    pub fn rows(&self) -> Vec<&'static EncoderRow> {
        self.0.iter().map(|encoder| encoder.row).collect()
    }

    /// Takes those that the changed configuration needs.
    pub async fn fit(&mut self, before: &CameraConfig, changed: &CameraConfig) -> Result<(), Refused> {
        let mut rows = self.rows();
        for (stream, row) in rows.iter_mut().enumerate() {
            if before.streams[stream].encode != changed.streams[stream].encode {
                *row = row_for(before, changed, stream, row).await?;
            }
        }
        self.0.iter_mut().zip(rows).for_each(|(encoder, row)| encoder.set_row(row));
        Ok(())
    }

    /// Leaves the streams out for which none works.
    pub fn turn_off(&self, plan: &mut Plan) {
        let off = plan.branches.iter_mut().zip(&self.0).filter(|(_, encoder)| encoder.is_off);
        off.for_each(|(branch, _)| branch.turn_off());
    }

    /// A pipeline has failed, of whose streams each was well for so long: takes the next encoder where it is time to.
    /// Returns the reason in words.
    pub async fn failed(
        &mut self,
        camera: &CameraConfig,
        failure: &Failure,
        well_for: &[Option<Duration>],
        hangs: bool,
    ) -> String {
        let well_for = |stream: usize| well_for.get(stream).copied().flatten();
        if let Failure::Encoder { stream, .. } = *failure {
            let mut reason = self.0[stream].failed(camera, failure, well_for(stream), hangs).await;
            if self.0[stream].is_off {
                let name = &camera.streams[stream].name;
                reason.push_str(&format!(
                    "; {name} stays off until the camera is started again, so that the others go on"
                ));
            }
            return reason;
        }
        for encoder in &mut self.0 {
            encoder.ended(well_for(encoder.stream));
            encoder.watch.failed(failure, well_for(encoder.stream), hangs);
            encoder.is_off = false;
        }
        failure.to_string()
    }
}

/// The encoder of a stream whose configuration is changed, `row` at present: the one that is wanted now, if another one
/// is, and else the same, if it has the settings.
pub(super) async fn row_for(
    before: &CameraConfig,
    changed: &CameraConfig,
    stream: usize,
    row: &'static EncoderRow,
) -> Result<&'static EncoderRow, Refused> {
    let (encode, name) = (&changed.streams[stream].encode, &changed.streams[stream].name);
    if before.streams[stream].encode.encoder != encode.encoder {
        // Those of the other streams are at work beside it.
        return choose(changed, stream, &[], Vec::new()).await.map_err(|Fatal(reason)| Refused::Failed(reason));
    }
    match pipeline::lacks(row, encode) {
        Some(option) => Err(Refused::Lacks { stream: name.clone(), encoder: row.element, option }),
        None => Ok(row),
    }
}

/// The first that works for this stream, beside others, and has not failed; says in the log which were tried.
async fn choose(
    camera: &CameraConfig,
    stream: usize,
    failed: &[&'static str],
    beside: Vec<(&'static EncoderRow, EncodeConfig)>,
) -> Result<&'static EncoderRow, Fatal> {
    let (config, failed) = (camera.streams[stream].encode.clone(), failed.to_vec());
    let choose = tokio::task::spawn_blocking(move || pipeline::choose_encoder(&config, &failed, &beside));
    let chosen = joined(choose.await)?.map_err(|e| Fatal(e.to_string()))?;
    tracing::debug!("{}", chosen.summary());
    for tried in chosen.failures() {
        tracing::info!("encoder {} does not work here: {}", tried.element, tried.outcome);
    }
    Ok(chosen.row)
}
