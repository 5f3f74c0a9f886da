//! The ways in: each gives the RTP packets of one H.264 or H.265 stream, and says what it knows of itself.

pub mod packet;
pub mod reports;
pub mod rtp;
pub mod rtsp;
pub mod webrtc;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rov_common::camera::Trust;
use rov_common::codec::Codec;
use rov_common::lateness::Received;
use rov_common::net;
use thiserror::Error;
use tokio::sync::mpsc;
use url::Url;

use self::packet::Packet;
use crate::login::Login;
use crate::whep::{Http, WhepError};

/// The payload type of the packets that are handed on, whichever they came with.
pub const PAYLOAD_TYPE: u8 = 96;
/// Long enough for a retransmission, and for a second one when that is lost. By RTP, which nobody asks for one, long
/// enough for what rov-server sends with the next picture: repair packets that cover this one too.
const REPAIR_WAIT: Duration = Duration::from_millis(100);
/// Where nothing is sent again, only packets that overtook each other are worth waiting for. On a LAN that is a matter
/// of a millisecond, on Wi-Fi of some; what comes later is lost, and waiting for it would only delay the next keyframe.
const REORDER_WAIT: Duration = Duration::from_millis(20);

/// More packets than these, missing behind a pause longer than the longest wait, are an outage: they will not come.
/// Fewer may be of the picture that came after the pause, as at a low frame rate.
pub(crate) const OUTAGE_PACKETS: usize = 16;

/// How the video comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    WebRtc,
    Rtp,
    Rtsp,
}

/// For packets that are missing, at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waits {
    /// The decoder's jitter buffer.
    pub by_decoder: Duration,
    /// One in front of it, as RTSP has.
    pub before: Duration,
}

impl Transport {
    /// As in the announcement and in `--transport`.
    pub fn name(self) -> &'static str {
        match self {
            Self::WebRtc => "webrtc",
            Self::Rtp => "rtp",
            Self::Rtsp => "rtsp",
        }
    }

    /// The longest wait for a packet that is missing, if the user chose none.
    pub fn default_latency(self) -> Duration {
        match self {
            Self::WebRtc | Self::Rtp => REPAIR_WAIT,
            Self::Rtsp => REORDER_WAIT,
        }
    }

    /// Who does that waiting.
    pub fn waits(self, chosen: Option<Duration>) -> Waits {
        let wait = chosen.unwrap_or(self.default_latency());
        match self {
            Self::WebRtc | Self::Rtp => Waits { by_decoder: wait, before: Duration::ZERO },
            Self::Rtsp => Waits { by_decoder: Duration::ZERO, before: wait },
        }
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::WebRtc => "WebRTC",
            Self::Rtp => "RTP",
            Self::Rtsp => "RTSP",
        })
    }
}

/// How a server can be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Way {
    /// This WHEP endpoint.
    WebRtc(Url),
    Rtp(rtp::Source),
    Rtsp(rtsp::Camera),
}

impl Way {
    pub fn transport(&self) -> Transport {
        match self {
            Self::WebRtc(_) => Transport::WebRtc,
            Self::Rtp(_) => Transport::Rtp,
            Self::Rtsp(_) => Transport::Rtsp,
        }
    }

    /// What comes, where that is known before.
    pub fn codec(&self) -> Option<Codec> {
        match self {
            Self::Rtp(source) => Some(source.codec),
            Self::WebRtc(_) | Self::Rtsp(_) => None,
        }
    }

    /// Host and port, for people.
    pub fn address(&self) -> String {
        let url = match self {
            Self::WebRtc(url) => url,
            Self::Rtsp(camera) => {
                return format!("{}:{}", camera.url().host_str().unwrap_or_default(), camera.port());
            }
            Self::Rtp(source) => return source.destination(),
        };
        let host = url.host_str().unwrap_or_default();
        match url.port_or_known_default() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        }
    }
}

/// What the ways need to know.
#[derive(Clone, Debug)]
pub struct Options {
    pub stun: Option<String>,
    /// What the server's certificate has to be, as its announcement says.
    pub key: Option<String>,
    /// The longest wait for a packet that is missing; none: as the transport does.
    pub latency: Option<Duration>,
    /// Network interfaces to receive multicast on, and to connect by; empty: those that suit. And who asks, by RTSP
    /// too.
    pub http: Http,
    /// Of cameras, by `rtsps`.
    pub camera_certificate: Trust,
    /// Of the sessions before, where whoever sends to a destination is watched.
    pub senders: Option<Arc<Mutex<rtp::senders::Senders>>>,
    /// RTP is no way in unless a packet comes within this time; none: it is listened for without end.
    pub first_packet: Option<Duration>,
}

#[derive(Debug, Error)]
pub enum ConnectError {
    #[error(transparent)]
    Whep(#[from] WhepError),
    #[error("cannot reach {host}: {source}")]
    NoRoute { host: String, source: io::Error },
    #[error("WebRTC: {0}")]
    WebRtc(#[from] webrtc::Error),
    #[error("{host} answered by HTTP, but no media path to it was found within 5 s: is UDP blocked by a firewall?")]
    NoPath { host: String },
    #[error(
        "{host} does not prove the key that was announced for it: another machine answers there, or the announcement \
         is forged"
    )]
    NotProven { host: String },
    #[error("{0}")]
    Rtp(String),
    #[error(transparent)]
    Rtsp(#[from] rtsp::RtspError),
}

impl ConnectError {
    /// Nobody answered there.
    pub fn is_unreachable(&self) -> bool {
        matches!(self, Self::NoRoute { .. } | Self::Whep(WhepError::Unreachable { .. } | WhepError::Closed { .. }))
    }

    /// Nobody answered there by this way.
    pub fn is_unanswered(&self) -> bool {
        self.is_unreachable() || matches!(self, Self::NoPath { .. } | Self::Rtsp(rtsp::RtspError::NoAnswer { .. }))
    }

    /// Trying again cannot help. `was_right`: a password was taken before.
    pub fn is_final(&self, was_right: bool) -> bool {
        match self {
            Self::Rtsp(error) => error.is_final(was_right),
            Self::Whep(error) => {
                matches!(error, WhepError::Changed(_) | WhepError::NoLogin { .. } | WhepError::WrongLogin { .. })
            }
            _ => false,
        }
    }

    /// The password was refused: more attempts may lock out. `was_right`: it was taken before.
    pub fn is_denied(&self, was_right: bool) -> bool {
        match self {
            Self::Rtsp(error) => error.is_denied(was_right),
            Self::Whep(error) => matches!(error, WhepError::WrongLogin { .. }),
            _ => false,
        }
    }
}

/// GStreamer's RTSP goes where the system routes it: refused where that is by another interface than the user named, as
/// another machine may have the camera's address there.
async fn check_route(camera: &rtsp::Camera, named: &[String]) -> Result<(), ConnectError> {
    if named.is_empty() {
        return Ok(());
    }
    let host = camera.url().host_str().unwrap_or_default().to_owned();
    let found =
        tokio::net::lookup_host((host.as_str(), camera.port())).await.map(|mut all| all.find(SocketAddr::is_ipv4));
    // What cannot be resolved is said by RTSP itself.
    let Ok(Some(peer)) = found else { return Ok(()) };
    let checked = match net::interface_to(named, peer.ip()) {
        Ok(Some(interface)) => net::check_route(&interface, peer.ip()).map_err(|error| {
            io::Error::other(format!(
                "RTSP cannot be bound to a network interface, and {error}: give the interfaces different subnets, or \
                 unplug one"
            ))
        }),
        Ok(None) => Ok(()),
        Err(error) => Err(error),
    };
    checked.map_err(|source| ConnectError::NoRoute { host, source })
}

/// Gets every RTP packet, with payload type [`PAYLOAD_TYPE`], those that came together at once, with the time at which
/// they came; it must not block.
pub type OnPackets = Arc<dyn Fn(&mut dyn Iterator<Item = Packet>, Received) + Send + Sync>;

/// Hears which codec comes, before its packets do.
pub type OnCodec = Arc<dyn Fn(Codec) + Send + Sync>;

/// What a way knows of itself while it is open.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LinkState {
    /// For the overlay, as `RTSP over TCP`.
    pub transport: String,
    /// What is odd, for the overlay; empty: nothing.
    pub note: String,
    /// What to say when no packets come.
    pub silence: String,
    /// The sender said that it ends.
    pub goodbye: bool,
}

/// A way in that is open. End it by [`OpenWay::close`].
pub enum OpenWay {
    WebRtc(Box<webrtc::Connection>),
    Rtp(rtp::Receiver),
    Rtsp(rtsp::Player),
}

impl OpenWay {
    /// Opens `way`. For each message in `keyframe_wanted` the sender is asked for a keyframe where it can be asked.
    pub async fn open(
        way: &Way,
        options: &Options,
        keyframe_wanted: mpsc::Receiver<()>,
        on_codec: OnCodec,
        on_packets: OnPackets,
    ) -> Result<Self, ConnectError> {
        let latency = options.latency.unwrap_or(way.transport().default_latency());
        Ok(match way {
            Way::WebRtc(url) => {
                let terms = webrtc::Terms {
                    key: options.key.as_deref(),
                    stun: options.stun.as_deref(),
                    http: options.http.clone(),
                };
                let open = webrtc::Connection::open(
                    url.clone(),
                    terms,
                    latency,
                    keyframe_wanted,
                    move |codec| on_codec(codec),
                    on_packets,
                );
                Self::WebRtc(Box::new(open.await?))
            }
            Way::Rtp(source) => {
                on_codec(source.codec);
                let senders = options.senders.clone();
                let open =
                    rtp::Receiver::open(source, &options.http.interfaces, senders, options.first_packet, on_packets);
                Self::Rtp(open.await?)
            }
            Way::Rtsp(camera) => {
                let login = options.http.login.as_ref().map(Login::for_rtsp);
                let camera = camera.clone().or_credentials(login.as_ref());
                let trust = options.camera_certificate.clone();
                check_route(&camera, &options.http.interfaces).await?;
                Self::Rtsp(rtsp::Player::open(&camera, trust, latency, keyframe_wanted, on_codec, on_packets).await?)
            }
        })
    }

    pub fn state(&self) -> LinkState {
        match self {
            Self::WebRtc(_) => LinkState {
                transport: Transport::WebRtc.to_string(),
                silence: "no video arrives".to_owned(),
                ..LinkState::default()
            },
            Self::Rtp(receiver) => receiver.state(),
            Self::Rtsp(player) => player.state(),
        }
    }

    /// Waits for its end, and gives the reason. Safe to cancel.
    pub async fn ended(&self) -> String {
        match self {
            Self::WebRtc(connection) => connection.ended().await,
            // Whoever listens to a destination is never told.
            Self::Rtp(_) => std::future::pending().await,
            Self::Rtsp(player) => player.ended().await,
        }
    }

    /// The server's name for this viewer, when it gave one.
    pub fn viewer_id(&self) -> Option<&str> {
        match self {
            Self::WebRtc(connection) => connection.viewer_id(),
            Self::Rtp(_) | Self::Rtsp(_) => None,
        }
    }

    /// What the server has proven to have, where it did.
    pub fn key(&self) -> Option<&str> {
        match self {
            Self::WebRtc(connection) => connection.key(),
            Self::Rtp(_) | Self::Rtsp(_) => None,
        }
    }

    /// The round trip, where it is measured.
    pub async fn rtt(&self) -> Option<Duration> {
        match self {
            Self::WebRtc(connection) => connection.rtt().await,
            Self::Rtp(_) | Self::Rtsp(_) => None,
        }
    }

    /// Ends it and tells the server.
    pub async fn close(self) {
        match self {
            Self::WebRtc(connection) => connection.close().await,
            Self::Rtp(receiver) => receiver.close().await,
            Self::Rtsp(player) => player.close().await,
        }
    }
}
