//! Camera to access unit: the pipeline of one camera, with a branch for each stream of it.
//!
//! [`choose_encoder`] once, [`prepare`] before each start (the machine may have changed), then
//! [`Graph::start`].

mod at_rest;
mod build;
mod burn;
mod capture;
mod catch_up;
mod continuity;
mod decimate;
mod decoded;
mod devices;
pub mod encoder;
mod feed;
mod graph;
mod handover;
mod joint;
pub mod jpeg;
mod live;
mod local_time;
pub mod mode;
mod picture;
pub mod pip;
mod pip_text;
mod place;
pub mod plan;
pub mod playable;
pub mod probe;
mod rtsp;
mod scan;
pub mod source;
mod stable;
mod stdin;
mod still;
mod times;
mod valve;
mod wiring;

use gstreamer as gst;
use rov_common::descriptor;
use rov_gst::element::has_property;

use crate::config::{CameraConfig, EncodeConfig, SourceConfig, SourceKind};
pub use capture::{Branch, BranchCounters, Failure, Format, GraphError, GraphEvent};
pub use devices::nodes as device_nodes;
pub use encoder::EncoderRow;
pub use graph::Graph;
pub use joint::{Joint, NotPutIn, NotReplaced};
pub use pip::{Pip, Tap};
pub use plan::{BranchPlan, Links, Plan};
pub use probe::{Chosen, NoEncoder, Tried, choose_encoder, unused};
pub use source::Found;
use source::Machine;
pub use still::Still;

/// Why there is no plan.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PrepareError {
    /// The configuration is wrong, another try would end alike: a file that is missing or has no
    /// video, B-frames, an unknown element. Where it has worked before, a file may come back too.
    #[error("{0}")]
    Fatal(String),
    /// A camera is missing; it may come back.
    #[error("{0}")]
    Retry(String),
}

/// Looks at the machine and makes the plan for it, with an encoder for each stream. Blocks: up to three seconds for a
/// file, a second for an IP camera.
pub fn prepare(camera: &CameraConfig, encoders: &[&'static EncoderRow]) -> Result<Plan, PrepareError> {
    prepare_from(camera, encoders, 0)
}

/// `prepare` with the file descriptor that `--source stdin` reads.
pub fn prepare_from(
    camera: &CameraConfig,
    encoders: &[&'static EncoderRow],
    stdin_fd: i32,
) -> Result<Plan, PrepareError> {
    gst::init().map_err(|error| PrepareError::Fatal(format!("GStreamer does not start: {error}")))?;
    let (config, codec) = (&camera.source, camera.streams[0].encode.codec);
    if let Some(url) = &config.url {
        rtsp::look(url).map_err(PrepareError::Retry)?;
    }
    let container = match &config.file {
        Some(file) => scan::container(file).map_err(|error| PrepareError::Fatal(format!("--file {error}")))?,
        None => None,
    };
    let machine = Machine { container, stdin_fd, stdin_is_file: descriptor::is_file(stdin_fd), ..machine(config) };
    let plan = plan::plan(camera, &machine, encoders).map_err(|missing| match config.kind {
        SourceKind::File => PrepareError::Fatal(format!("--file {}", missing.0)),
        _ => PrepareError::Retry(missing.0),
    })?;
    if plan.branches.iter().any(|branch| branch.decodes) && decoded::decoder(codec, &machine).is_none() {
        return Err(PrepareError::Fatal(format!(
            "no decoder of {} works here, which each stream but the first needs: install gstreamer1.0-libav, or leave \
             these streams out",
            codec.title()
        )));
    }
    if let Some(file) = &config.file {
        let looked = match config.file_passthrough {
            true => scan::passthrough(file, codec, &plan.head_text()),
            false => scan::video(file, &plan.head_text()),
        };
        looked.map_err(|error| PrepareError::Fatal(format!("--file {error}")))?;
    }
    if config.kind == SourceKind::Pipeline {
        // Built, and dropped before it touches a device: a wrong text is the user's, and is said at once.
        gst::parse::bin_from_description(&plan.head_text(), false).map_err(|error| {
            let text = config.pipeline.as_deref().unwrap_or_default();
            let hint = match error.message().contains(source::END) {
                true => format!("; it must end in raw or {} video", codec.title()),
                false => String::new(),
            };
            PrepareError::Fatal(format!("--pipeline '{text}': {}{hint}", error.message()))
        })?;
    }
    Ok(plan)
}

/// The branch of a stream, with this encoder, for a pipeline of `plan` that runs. Blocks while a decoder is looked for.
pub fn prepare_branch(plan: &Plan, camera: &CameraConfig, stream: usize, encoder: &'static EncoderRow) -> BranchPlan {
    plan::branch(&plan.given(), camera, stream, encoder, &machine_with(Vec::new(), Vec::new()))
}

/// The option that was given and that this encoder has no setting for.
pub fn lacks(encoder: &'static EncoderRow, encode: &EncodeConfig) -> Option<&'static str> {
    encoder.lacks(&plan::settings(encode, probe::cores()), &has_property)
}

/// The cameras that [`prepare`] would choose among now, best first: empty while `--source auto` would show the test
/// picture ([`Plan::substitute`]), and for sources that are no cameras.
///
/// Blocks; without any video device it only reads `/dev`, otherwise it asks each device what it offers. A camera in
/// this list may still fail to start: whoever goes from the test picture to it stays with it (`prepare` does), or
/// remembers this list, so that picture and camera do not take turns.
pub fn cameras_present(config: &SourceConfig) -> Vec<Found> {
    // Without GStreamer there is no pipeline either, and `prepare` says why.
    match gst::init() {
        Ok(()) => source::choice(config, &machine(config)),
        Err(_) => Vec::new(),
    }
}

/// What there is for a source, with webcams and CSI cameras for one that is such.
fn machine(config: &SourceConfig) -> Machine<'static> {
    let (cameras, csi) = if config.kind.nature().is_local_camera && devices::may_exist() {
        devices::cameras_with(config.device.as_deref())
    } else {
        Default::default()
    };
    machine_with(cameras, csi)
}

fn machine_with(cameras: Vec<source::Camera>, csi: Vec<source::CsiCamera>) -> Machine<'static> {
    Machine {
        has_property: &has_property,
        cores: probe::cores(),
        cameras,
        csi,
        container: None,
        stdin_fd: 0,
        stdin_is_file: false,
        opens: &decoded::opens,
    }
}
