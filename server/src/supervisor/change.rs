//! Settings of a camera that are changed while it runs: how that is asked for, and what comes of it.
//!
//! All or nothing: what is refused leaves the streams as they are. One change of a camera at a time; those that come
//! meanwhile wait for it.

use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use rov_common::codec::Codec;
use rov_common::sync::lock;
use thiserror::Error;
use tokio::sync::{mpsc, oneshot};

use crate::config::{CameraConfig, ConfigError, EncodeConfig, Flip, PipConfig};
use crate::pipeline::NotReplaced;

/// Changes of a camera that wait.
const WAITING: usize = 8;

/// By which a camera's settings are changed. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Handle {
    current: Current,
    asks: mpsc::Sender<Ask>,
}

/// How a change was made. Viewers stay in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    /// Nothing was to be done.
    Unchanged,
    /// In the encoder at work.
    Live,
    /// By another branch, which has taken over at a keyframe.
    NewBranch,
    /// By starting the source anew, as it has to give other pictures.
    Restarted,
    /// There is no encoder at work: the next one that is started begins so.
    AtStart,
    /// Nobody looks, the encoder is paused: soon after somebody does.
    WhenWatched,
}

/// Why a change was not made.
#[derive(Debug, Error)]
pub enum Refused {
    #[error("there is no stream number {0} of this camera")]
    NoSuchStream(usize),
    #[error(transparent)]
    Invalid(#[from] ConfigError),
    #[error(
        "{stream}: is sent untouched as it comes from the source, nothing is encoded here: change it at the source, or \
         have it encoded"
    )]
    PassedThrough { stream: String },
    #[error(
        "{stream}: viewers have agreed on {from}, they cannot follow to {to}: set --codec {to} and restart the server"
    )]
    Codec { stream: String, from: Codec, to: Codec },
    #[error(
        "{stream}: the viewer at {viewer} has offered to decode no such profile of H.264: close it first, or keep the \
         profile and the preset"
    )]
    Viewer { stream: String, viewer: IpAddr },
    #[error("{stream}: {encoder} has no setting for {option}: leave it, or take another --encoder")]
    Lacks { stream: String, encoder: &'static str, option: &'static str },
    /// It was tried, and what was before is at work again.
    #[error("it does not work: {0}; what was before goes on")]
    Failed(String),
    /// As on a machine that has too much to do. It says nothing of what was wanted.
    #[error("it did not come about: {0}; what was before goes on: try again")]
    NotNow(String),
    #[error("{WAITING} changes of this camera are waiting already: try again when they are through")]
    Busy,
    #[error("the camera has ended: restart the server")]
    Ended,
}

impl From<NotReplaced> for Refused {
    fn from(error: NotReplaced) -> Self {
        match error {
            NotReplaced::Failed(reason) => Self::Failed(reason),
            NotReplaced::NotNow(reason) => Self::NotNow(reason),
        }
    }
}

/// What is wanted of a camera.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Wanted {
    Encode {
        stream: usize,
        encode: EncodeConfig,
    },
    Flip(Flip),
    /// Of a camera that shows two others, which stay the same.
    Pip(PipConfig),
}

pub(crate) struct Ask {
    pub wanted: Wanted,
    pub reply: oneshot::Sender<Result<Applied, Refused>>,
}

/// The other end of a [`Handle`].
pub struct Asked {
    pub(super) current: Current,
    pub(crate) asks: mpsc::Receiver<Ask>,
}

/// The configuration of a camera as it is in effect.
#[derive(Clone, Debug)]
pub(super) struct Current(Arc<Mutex<Arc<CameraConfig>>>);

impl Current {
    pub fn get(&self) -> Arc<CameraConfig> {
        Arc::clone(&lock(&self.0))
    }

    pub fn set(&self, camera: Arc<CameraConfig>) {
        *lock(&self.0) = camera;
    }
}

impl Handle {
    pub fn new(camera: CameraConfig) -> (Self, Asked) {
        let current = Current(Arc::new(Mutex::new(Arc::new(camera))));
        let (sender, asks) = mpsc::channel(WAITING);
        (Self { current: current.clone(), asks: sender }, Asked { current, asks })
    }

    /// The configuration that is in effect, with all that was changed.
    pub fn camera(&self) -> Arc<CameraConfig> {
        self.current.get()
    }

    /// Has a stream, by its place in the configuration, encoded like this from now on. Waits until it is, or until it
    /// is clear that it cannot be.
    pub async fn change(&self, stream: usize, encode: EncodeConfig) -> Result<Applied, Refused> {
        self.ask(Wanted::Encode { stream, encode }).await
    }

    /// Turns the picture of all of its streams; as [`Self::change`].
    pub async fn flip(&self, flip: Flip) -> Result<Applied, Refused> {
        self.ask(Wanted::Flip(flip)).await
    }

    /// Shows its two cameras like this; as [`Self::change`].
    pub async fn pip(&self, pip: PipConfig) -> Result<Applied, Refused> {
        self.ask(Wanted::Pip(pip)).await
    }

    async fn ask(&self, wanted: Wanted) -> Result<Applied, Refused> {
        let (reply, answer) = oneshot::channel();
        self.asks.try_send(Ask { wanted, reply }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => Refused::Busy,
            mpsc::error::TrySendError::Closed(_) => Refused::Ended,
        })?;
        answer.await.unwrap_or(Err(Refused::Ended))
    }
}

impl Wanted {
    /// The configuration with it, as far as that alone tells whether it can be.
    pub fn of(&self, camera: &CameraConfig) -> Result<CameraConfig, Refused> {
        let mut changed = camera.clone();
        let passed = |stream: usize| stream == 0 && camera.source.is_passed_through();
        match self {
            Self::Encode { stream, encode } => {
                let of_stream = changed.streams.get_mut(*stream).ok_or(Refused::NoSuchStream(*stream))?;
                let (name, before) = (of_stream.name.clone(), of_stream.encode.codec);
                if encode.codec != before {
                    return Err(Refused::Codec { stream: name, from: before, to: encode.codec });
                }
                if of_stream.encode != *encode && passed(*stream) {
                    return Err(Refused::PassedThrough { stream: name });
                }
                encode.validate(&camera.source, camera.source.is_passed_through() && *stream > 0)?;
                of_stream.encode = encode.clone();
            }
            Self::Flip(flip) => {
                if camera.source.flip != *flip && passed(0) {
                    return Err(Refused::PassedThrough { stream: camera.streams[0].name.clone() });
                }
                changed.source.flip = *flip;
            }
            Self::Pip(pip) => changed.source.pip = Some(pip.clone()),
        }
        Ok(changed)
    }
}
