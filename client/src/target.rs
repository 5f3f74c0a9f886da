//! What the user wants to watch, and why it cannot be: what finding a server and the session with it both go by.

use std::time::Duration;

use rov_common::camera::Trust;
use rov_gst::decoders::DecoderChoice;
use thiserror::Error;
use url::Url;

use crate::decode::DecodeError;
use crate::receive::Transport;
use crate::receive::rtp;
use crate::receive::rtsp::Camera;
use crate::streams::Wanted;
use crate::whep::{Changed, Http};

/// Which server to watch.
#[derive(Clone, Debug)]
pub enum Target {
    /// The one that is found, of this name if one is given. `any`: another one, when that falls silent.
    Auto { name: Option<String>, any: bool },
    /// This WHEP endpoint.
    Url(Url),
    /// What is sent to this destination, of this host if one is given.
    Rtp { source: rtp::Source, host: Option<RtpHost> },
    /// This RTSP stream, and where a rov-server on that machine says what streams it has; none: the user named the one.
    Camera(Camera, Option<Url>),
}

/// A machine that sends RTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RtpHost {
    /// Or address.
    pub name: String,
    /// Where a rov-server on it says to which destination it sends; none: the user has said it.
    pub stats: Option<Url>,
}

#[derive(Clone, Debug)]
pub struct SessionConfig {
    pub target: Target,
    /// None: the default stream of the server, or what the URL of the target names.
    pub stream: Option<Wanted>,
    /// None: WebRTC, and what else the server announces where that fails.
    pub transport: Option<Transport>,
    pub discovery_port: u16,
    pub discovery_timeout: Duration,
    /// By which network interfaces, and who asks: RTSP is given the login too, where its URL has none.
    pub http: Http,
    /// Somebody can be asked: there is a window.
    pub can_ask: bool,
    /// Go on looking when nothing is found.
    pub wait: bool,
    pub decoder: DecoderChoice,
    /// The longest wait for a packet that is missing; none: as the transport does.
    pub latency: Option<Duration>,
    /// Pictures that are older when they are shown are warned of; none: never.
    pub max_age: Option<Duration>,
    pub stun: Option<String>,
    /// Of cameras, by `rtsps`.
    pub camera_certificate: Trust,
}

/// Why there is no session.
#[derive(Debug, Error)]
pub enum SessionError {
    #[error("{0}")]
    NothingFound(String),
    /// Nobody can be asked. What was found, and the list.
    #[error("{0}: start again with --name NAME, or with the ADDRESS:PORT of one of them\n{1}")]
    Ambiguous(String, String),
    #[error("{reason}")]
    NoWay {
        reason: String,
        is_final: bool,
        /// The password was refused.
        is_denied: bool,
    },
    #[error(transparent)]
    Decoder(#[from] DecodeError),
    #[error("{0:#}")]
    Other(#[from] anyhow::Error),
}

impl SessionError {
    /// Another machine may be in the server's place.
    pub fn changed(changed: &Changed) -> Self {
        Self::NoWay { reason: changed.to_string(), is_final: true, is_denied: false }
    }

    /// Trying again may help.
    pub fn no_way(reason: String) -> Self {
        Self::NoWay { reason, is_final: false, is_denied: false }
    }

    /// Whether the program ends with it, instead of trying again. In the middle of a dive a decoder that is busy for
    /// once, or a camera that is being set up, is no reason to give up; nothing is.
    pub fn ends_program(&self, has_stood: bool, wait: bool) -> bool {
        !has_stood
            && match self {
                Self::NothingFound(_) | Self::Ambiguous(..) | Self::Decoder(_) | Self::Other(_) => true,
                Self::NoWay { is_final, .. } => *is_final || !wait,
            }
    }
}
