//! All outputs of a server, built from its streams and fixed with them. A new one is a file and its line in
//! [`Outputs::start`]; those that HTTP serves something of have a field too.

use std::sync::{Arc, Mutex};

use anyhow::Result;
use rov_common::capture_clock::TimeOfDay;
use rov_common::recording::Folder;

use super::Output;
use super::jpeg::JpegOutput;
use super::pilots::Pilots;
use super::recording::RecordingOutput;
use super::ring::RingOutput;
use super::rtp::RtpOutput;
use super::rtsp::RtspOutput;
use super::takers::Takers;
use super::webrtc::WebRtcOutput;
use crate::config::Config;
use crate::identity::Identity;
use crate::inlet::Inlet;
use crate::stream::Streams;
use crate::telemetry::Board;
use crate::users::Users;

/// What outputs are built from.
pub struct Given<'a> {
    pub config: &'a Config,
    pub streams: &'a Streams,
    pub identity: &'a Identity,
    pub users: &'a Arc<Users>,
    pub pilots: &'a Arc<Mutex<Pilots>>,
    pub takers: &'a Arc<Takers>,
    /// Where the stream at this place is published.
    pub inlet: Option<&'a (usize, Arc<Inlet>)>,
    /// That of the recordings.
    pub folder: Option<&'a Arc<Folder>>,
    pub board: &'a Arc<Board>,
    /// For what people read.
    pub day: &'a TimeOfDay,
}

/// Those of a stream each are in the order of the streams; empty or none: not wanted.
pub struct Outputs {
    pub webrtc: Option<Arc<WebRtcOutput>>,
    pub rtp: Vec<Arc<RtpOutput>>,
    pub rtsp: Option<Arc<RtspOutput>>,
    pub jpeg: Vec<Arc<JpegOutput>>,
    pub recordings: Vec<Arc<RecordingOutput>>,
    /// The composition root has nothing to do with them.
    pub rings: Vec<RingOutput>,
    all: Vec<Arc<dyn Output>>,
}

impl Outputs {
    /// To be called where tokio runs.
    ///
    /// # Errors
    /// Names the port that is taken, and the option that changes it.
    pub fn start(given: &Given) -> Result<Self> {
        let webrtc = WebRtcOutput::of(given)?;
        let rtp = RtpOutput::of(given)?;
        let jpeg = JpegOutput::of(given);
        let rtsp = RtspOutput::of(given, &jpeg)?;
        let recordings = RecordingOutput::of(given)?;
        // In the order in which viewers should be told of the end.
        let all = each(&webrtc).chain(each(&rtp)).chain(each(&rtsp)).chain(each(&jpeg)).chain(each(&recordings));
        Ok(Self { all: all.collect(), webrtc, rtp, rtsp, jpeg, recordings, rings: RingOutput::of(given) })
    }

    /// In the order in which viewers should be told of the end.
    pub fn all(&self) -> impl Iterator<Item = &dyn Output> {
        self.all.iter().map(|output| &**output)
    }
}

fn each<'a, T: Output + 'static>(some: impl IntoIterator<Item = &'a Arc<T>>) -> impl Iterator<Item = Arc<dyn Output>> {
    some.into_iter().map(|output| Arc::clone(output) as Arc<dyn Output>)
}
