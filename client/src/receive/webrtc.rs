//! Receiving by WebRTC, on the async crate `webrtc`. This is the only module that imports it.

mod nack;

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use rov_common::codec::Codec;
use rov_common::net::grow_buffers;
use rtc::ice::mdns::MulticastDnsMode;
use rtc::interceptor::{ReceiverReportBuilder, Registry, Slot, TwccReceiverBuilder};
use rtc::peer_connection::configuration::RTCConfigurationBuilder;
use rtc::peer_connection::configuration::media_engine::{MIME_TYPE_H264, MIME_TYPE_HEVC, MediaEngine};
use rtc::peer_connection::configuration::setting_engine::SettingEngineBuilder;
use rtc::peer_connection::sdp::RTCSessionDescription;
use rtc::peer_connection::transport::{RTCDtlsTransportState, RTCIceServer};
use rtc::rtcp::payload_feedbacks::picture_loss_indication::PictureLossIndication;
use rtc::rtp_transceiver::rtp_sender::{
    RTCPFeedback, RTCRtpCodec, RTCRtpCodecParameters, RTCRtpHeaderExtensionCapability, RtpCodecKind,
};
use rtc::rtp_transceiver::{RTCRtpTransceiverDirection, RTCRtpTransceiverInit};
use rtc::shared::marshal::Marshal;
use rtc::statistics::StatsSelector;
use socket2::SockRef;
use tokio::sync::{mpsc, watch};
use url::Url;
use webrtc::media_stream::track_remote::{TrackRemote, TrackRemoteEvent};
use webrtc::peer_connection::{
    PeerConnection, PeerConnectionBuilder, PeerConnectionEventHandler, RTCIceGatheringState, RTCPeerConnectionState,
};
use webrtc::runtime::{
    AsyncInterval, AsyncTcpListener, AsyncTcpStream, AsyncUdpSocket, JoinHandle, Runtime, TokioRuntime,
};

use self::nack::NackGenerator;
use super::{ConnectError, PAYLOAD_TYPE};
use crate::whep::{self, Answer};

/// Every profile that decoders take; H.264 matching compares profile and packetisation mode, not the level
/// (RFC 6184 section 8.2.2).
const PROFILES: [&str; 5] = ["42e034", "420034", "4d0034", "640034", "640c34"];

/// Packets that may still come when newer ones did.
const HISTORY_PACKETS: u16 = 8192;

/// The RTP header extension of transport-wide congestion control, and how often the server is told when packets arrived: it lowers
/// its bit rate the sooner, the more often it hears (draft-holmer-rmcat-transport-wide-cc-extensions-01).
const TRANSPORT_CC_URI: &str = "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01";
const ARRIVAL_REPORTS: Duration = Duration::from_millis(50);

const GATHER_TIMEOUT: Duration = Duration::from_secs(3);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The server's goodbye is looked for so often.
const GOODBYE_INTERVAL: Duration = Duration::from_millis(100);
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
const ICE_DISCONNECTED: Duration = Duration::from_secs(2);
/// After that: as long in all as the server keeps a session that it does not hear, so that it goes on by itself after any
/// shorter outage. That the server is gone or elsewhere shows sooner, when it is asked.
const ICE_FAILED: Duration = Duration::from_secs(8);
const ICE_KEEPALIVE: Duration = Duration::from_millis(500);
/// Between connectivity checks, and how many for each candidate: three seconds. The default of 200 ms would delay the
/// first picture by as much.
const ICE_CHECK_INTERVAL: Duration = Duration::from_millis(20);
const ICE_CHECKS: u16 = 150;

/// What a connection is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    Connecting,
    Connected,
    /// The connection was closed, or ICE found no path any more.
    Ended(&'static str),
}

/// A WebRTC session with a server. End it by [`Connection::close`]: dropping it alone leaks sockets in the crate.
pub struct Connection {
    pc: Arc<dyn PeerConnection>,
    answer: Answer,
    link: watch::Receiver<State>,
}

impl Connection {
    /// Offers to the WHEP endpoint `url` and waits until media can flow. Packets that are missing are asked for again during
    /// `latency`. `on_codec` gets what the server chose to send, before the first packet. `on_packet` gets every RTP packet,
    /// whole, with its arrival time; it must not block. For each message in `keyframe_wanted` the server is asked for a keyframe, by
    /// PLI (RFC 4585 section 6.3.1).
    pub async fn open(
        url: Url,
        stun: Option<&str>,
        latency: Duration,
        keyframe_wanted: mpsc::Receiver<()>,
        on_codec: impl FnOnce(Codec),
        on_packet: impl Fn(Bytes, Instant) + Send + Sync + 'static,
    ) -> Result<Self, ConnectError> {
        let host = url.host_str().unwrap_or_default().to_owned();
        let local = local_address(&url).await.map_err(|source| ConnectError::NoRoute { host: host.clone(), source })?;
        let (link_tx, mut link) = watch::channel(State::Connecting);
        let (gathered_tx, mut gathered) = watch::channel(false);
        let handler = Handler {
            link: link_tx,
            gathered: gathered_tx,
            on_packet: Arc::new(on_packet),
            wanted: tokio::sync::Mutex::new(Some(keyframe_wanted)),
        };
        let pc: Arc<dyn PeerConnection> = Arc::new(build(local, stun, latency, Arc::new(handler)).await?);
        let negotiated = negotiate(&pc, url, &mut gathered, on_codec).await;
        let answer = match negotiated {
            Ok(answer) => answer,
            Err(error) => {
                close(&pc).await;
                return Err(error);
            }
        };
        let connected = tokio::time::timeout(CONNECT_TIMEOUT, link.wait_for(|l| *l != State::Connecting)).await;
        let connected = connected.is_ok_and(|state| state.is_ok_and(|state| *state == State::Connected));
        let connection = Self { pc, answer, link };
        if !connected {
            connection.close().await;
            return Err(ConnectError::NoPath { host });
        }
        Ok(connection)
    }

    /// Waits for its end, and gives the reason. Safe to cancel.
    pub async fn ended(&self) -> String {
        let mut link = self.link.clone();
        loop {
            if self.closed_by_server().await {
                return "the server closed the connection".to_owned();
            }
            let end = |state: &State| matches!(state, State::Ended(_));
            match tokio::time::timeout(GOODBYE_INTERVAL, link.wait_for(end)).await {
                Ok(Ok(state)) if let State::Ended(reason) = *state => return reason.to_owned(),
                Ok(_) => return "the connection was dropped".to_owned(),
                Err(_) => {}
            }
        }
    }

    /// Whether the server said goodbye, by a DTLS close_notify. The crate does not report that as the end of the connection,
    /// so it has to be looked for.
    pub async fn closed_by_server(&self) -> bool {
        for receiver in self.pc.get_receivers().await {
            if let Ok(Some(dtls)) = receiver.transport().await
                && dtls.state().await.is_ok_and(|state| state == RTCDtlsTransportState::Closed)
            {
                return true;
            }
        }
        false
    }

    /// The server's name for this viewer, when it gave one.
    pub fn viewer_id(&self) -> Option<&str> {
        self.answer.viewer_id()
    }

    /// The round trip to the server, measured by ICE.
    pub async fn rtt(&self) -> Option<Duration> {
        let report = self.pc.get_stats(Instant::now(), StatsSelector::None).await;
        let seconds = report.candidate_pairs().map(|p| p.current_round_trip_time).fold(0.0, f64::max);
        (seconds > 0.0).then(|| Duration::from_secs_f64(seconds))
    }

    /// Ends the session and tells the server.
    pub async fn close(&self) {
        close(&self.pc).await;
        hang_up(&self.answer).await;
    }
}

async fn close(pc: &Arc<dyn PeerConnection>) {
    match tokio::time::timeout(CLOSE_TIMEOUT, pc.close()).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "closing the peer connection"),
        Err(_) => tracing::warn!("closing the peer connection took longer than a second"),
    }
}

async fn negotiate(
    pc: &Arc<dyn PeerConnection>,
    url: Url,
    gathered: &mut watch::Receiver<bool>,
    on_codec: impl FnOnce(Codec),
) -> Result<Answer, ConnectError> {
    pc.add_transceiver_from_kind(
        RtpCodecKind::Video,
        Some(RTCRtpTransceiverInit { direction: RTCRtpTransceiverDirection::Recvonly, ..Default::default() }),
    )
    .await?;
    let offer = pc.create_offer(None).await?;
    pc.set_local_description(offer).await?;
    // Past the limit, the candidates found so far have to do.
    let _ = tokio::time::timeout(GATHER_TIMEOUT, gathered.wait_for(|done| *done)).await;
    let offer = pc.local_description().await.ok_or(webrtc::error::Error::ErrPeerConnLocalDescriptionNil)?;
    let answer = whep::offer(url, offer.sdp).await?;
    on_codec(answered_codec(&answer.sdp));
    match apply(pc, &answer).await {
        Ok(()) => Ok(answer),
        Err(error) => {
            hang_up(&answer).await;
            Err(error.into())
        }
    }
}

async fn apply(pc: &Arc<dyn PeerConnection>, answer: &Answer) -> Result<(), webrtc::error::Error> {
    pc.set_remote_description(RTCSessionDescription::answer(answer.sdp.clone())?).await
}

/// What the answer says that is sent: the codec of the first payload type of its video (RFC 3264 section 6.1). What says nothing
/// of H.265 is H.264.
pub fn answered_codec(sdp: &str) -> Codec {
    let video = sdp.lines().find_map(|line| line.strip_prefix("m=video "));
    let first = video.and_then(|video| video.split_whitespace().nth(2));
    let is_h265 = first.is_some_and(|payload_type| {
        let names = sdp.lines().filter_map(|line| line.strip_prefix("a=rtpmap:")?.split_once(' '));
        names.into_iter().any(|(number, name)| number == payload_type && name.to_ascii_uppercase().starts_with("H265/"))
    });
    if is_h265 { Codec::H265 } else { Codec::H264 }
}

/// The server shall not keep a session that nobody has.
async fn hang_up(answer: &Answer) {
    if let Some(resource) = answer.resource.clone()
        && let Err(error) = whep::delete(resource).await
    {
        tracing::debug!(%error, "the session was not deleted");
    }
}

async fn build(
    local: IpAddr,
    stun: Option<&str>,
    latency: Duration,
    handler: Arc<Handler>,
) -> Result<impl PeerConnection + use<>, webrtc::error::Error> {
    let mut media = MediaEngine::default();
    let h264 = PROFILES.map(|profile| {
        let fmtp = format!("level-asymmetry-allowed=1;packetization-mode=1;profile-level-id={profile}");
        rtp_codec(MIME_TYPE_H264, fmtp)
    });
    // Without parameters: any profile and level.
    let codecs = h264.into_iter().chain([rtp_codec(MIME_TYPE_HEVC, String::new())]);
    for (payload_type, rtp_codec) in (PAYLOAD_TYPE..).zip(codecs) {
        media.register_codec(RTCRtpCodecParameters { rtp_codec, payload_type }, RtpCodecKind::Video)?;
    }
    let extension = RTCRtpHeaderExtensionCapability { uri: TRANSPORT_CC_URI.to_owned() };
    media.register_header_extension(extension, RtpCodecKind::Video, None)?;
    // No RTX is offered: the crate unwraps it behind the NACK generator, which then goes on asking.
    let interceptors = Registry::new()
        .with(Slot::NackGenerator, NackGenerator::new(latency))
        .with(Slot::TwccReceiver, TwccReceiverBuilder::new().with_interval(ARRIVAL_REPORTS).build())
        .with(Slot::ReceiverReport, ReceiverReportBuilder::new().build());
    let settings = SettingEngineBuilder::new()
        .with_ice_timeouts(Some(ICE_DISCONNECTED), Some(ICE_FAILED), Some(ICE_KEEPALIVE))
        // Multicast DNS needs a route for multicast, which a laptop on an isolated LAN without a gateway does not have: the
        // crate then fails altogether. Servers give their addresses as they are.
        .with_multicast_dns_mode(MulticastDnsMode::Disabled)
        .with_ice_connection_attempts(Some(ICE_CHECK_INTERVAL), Some(ICE_CHECKS))
        // The default of 64 throws away retransmissions that come late.
        .with_srtp_replay_protection_window(usize::from(HISTORY_PACKETS))
        .build();
    let servers = stun.map(|url| RTCIceServer { urls: vec![url.to_owned()], ..Default::default() });
    PeerConnectionBuilder::new()
        .with_configuration(RTCConfigurationBuilder::new().with_ice_servers(servers.into_iter().collect()).build())
        .with_media_engine(media)
        .with_setting_engine(settings)
        .with_interceptor_registry(interceptors)
        .with_handler(handler)
        .with_runtime(Arc::new(LargeBuffers(TokioRuntime)))
        .with_udp_addrs(vec![SocketAddr::new(local, 0)])
        .build()
        .await
}

fn rtp_codec(mime_type: &str, sdp_fmtp_line: String) -> RTCRtpCodec {
    let feedback = |typ: &str, parameter: &str| RTCPFeedback { typ: typ.to_owned(), parameter: parameter.to_owned() };
    RTCRtpCodec {
        mime_type: mime_type.to_owned(),
        clock_rate: 90_000,
        channels: 0,
        sdp_fmtp_line,
        rtcp_feedback: vec![
            feedback("nack", ""),
            feedback("nack", "pli"),
            feedback("ccm", "fir"),
            feedback("transport-cc", ""),
        ],
    }
}

/// The address of this machine from which the server of `url` is reached. Nothing is sent for it.
async fn local_address(url: &Url) -> io::Result<IpAddr> {
    let host = url.host_str().ok_or_else(|| io::Error::other("the URL names no host"))?;
    let port = url.port_or_known_default().unwrap_or(80);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let server = tokio::net::lookup_host((host, port))
        .await?
        .find(SocketAddr::is_ipv4)
        .ok_or_else(|| io::Error::other("it has no IPv4 address"))?;
    let probe = tokio::net::UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await?;
    probe.connect(server).await?;
    Ok(probe.local_addr()?.ip())
}

struct Handler {
    link: watch::Sender<State>,
    gathered: watch::Sender<bool>,
    on_packet: Arc<dyn Fn(Bytes, Instant) + Send + Sync>,
    wanted: tokio::sync::Mutex<Option<mpsc::Receiver<()>>>,
}

#[async_trait]
impl PeerConnectionEventHandler for Handler {
    async fn on_ice_gathering_state_change(&self, state: RTCIceGatheringState) {
        if state == RTCIceGatheringState::Complete {
            self.gathered.send_replace(true);
        }
    }

    async fn on_connection_state_change(&self, state: RTCPeerConnectionState) {
        tracing::debug!(%state, "peer connection");
        let link = match state {
            RTCPeerConnectionState::Connected => State::Connected,
            RTCPeerConnectionState::Closed => State::Ended("the server closed the connection"),
            RTCPeerConnectionState::Failed => State::Ended("no path to the server any more"),
            _ => return,
        };
        self.link.send_if_modified(|current| {
            // An end is final: the crate may report Closed after Failed.
            let changed = !matches!(current, State::Ended(_)) && *current != link;
            if changed {
                *current = link;
            }
            changed
        });
    }

    async fn on_track(&self, track: Arc<dyn TrackRemote>) {
        let Some(wanted) = self.wanted.lock().await.take() else {
            tracing::warn!("the server sends more than one track: only the first is shown");
            return;
        };
        tokio::spawn(send_keyframe_requests(Arc::clone(&track), wanted));
        let on_packet = Arc::clone(&self.on_packet);
        // This task does nothing else: the crate drops packets beyond 256 that wait here.
        tokio::spawn(async move {
            while let Some(event) = track.poll().await {
                let TrackRemoteEvent::OnRtpPacket(mut packet) = event else { continue };
                packet.header.payload_type = PAYLOAD_TYPE;
                match packet.marshal() {
                    Ok(bytes) => on_packet(bytes.freeze(), Instant::now()),
                    Err(error) => tracing::debug!(%error, "an RTP packet could not be written"),
                }
            }
        });
    }
}

async fn send_keyframe_requests(track: Arc<dyn TrackRemote>, mut wanted: mpsc::Receiver<()>) {
    while wanted.recv().await.is_some() {
        let Some(media_ssrc) = track.ssrcs().await.first().copied() else { continue };
        let pli = PictureLossIndication { sender_ssrc: 0, media_ssrc };
        if let Err(error) = track.write_rtcp(vec![Box::new(pli)]).await {
            tracing::debug!(%error, "a keyframe request was not sent");
        }
    }
}

/// Warns once, at the start, when the system does not grant the socket buffers that high bit rates need.
pub fn check_socket_buffers() {
    let Ok(socket) = std::net::UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)) else { return };
    for short in grow_buffers(&SockRef::from(&socket)) {
        tracing::warn!("{short}");
    }
}

/// Tokio, with socket buffers that hold a large keyframe: the usual 208 KB lose packets from 100 Mbit/s on.
#[derive(Debug)]
struct LargeBuffers(TokioRuntime);

impl Runtime for LargeBuffers {
    fn spawn(&self, future: std::pin::Pin<Box<dyn Future<Output = ()> + Send>>) -> Box<dyn JoinHandle> {
        self.0.spawn(future)
    }

    fn spawn_reactor(
        &self,
        pool_size: usize,
        future: std::pin::Pin<Box<dyn Future<Output = ()> + Send>>,
    ) -> Box<dyn JoinHandle> {
        self.0.spawn_reactor(pool_size, future)
    }

    fn wrap_udp_socket(&self, socket: std::net::UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        // What the system does not grant was said at the start.
        grow_buffers(&SockRef::from(&socket));
        self.0.wrap_udp_socket(socket)
    }

    fn wrap_tcp_listener(&self, listener: std::net::TcpListener) -> io::Result<Arc<dyn AsyncTcpListener>> {
        self.0.wrap_tcp_listener(listener)
    }

    fn connect_tcp<'a>(
        &'a self,
        remote: SocketAddr,
    ) -> std::pin::Pin<Box<dyn Future<Output = io::Result<Arc<dyn AsyncTcpStream>>> + Send + 'a>> {
        self.0.connect_tcp(remote)
    }

    fn resolve_host<'a>(
        &'a self,
        host: &'a str,
    ) -> std::pin::Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>> + Send + 'a>> {
        self.0.resolve_host(host)
    }

    fn sleep(&self, duration: Duration) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send + 'static>> {
        self.0.sleep(duration)
    }

    fn interval(&self, period: Duration) -> Box<dyn AsyncInterval> {
        self.0.interval(period)
    }

    fn block_on(&self, future: std::pin::Pin<Box<dyn Future<Output = ()> + '_>>) {
        self.0.block_on(future);
    }

    fn yield_now(&self) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send + 'static>> {
        self.0.yield_now()
    }

    fn name(&self) -> &'static str {
        self.0.name()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_says_which_codec_comes() {
        let answer = |first: u8| {
            format!(
                "v=0\r\nm=video 9 UDP/TLS/RTP/SAVPF {first} 96\r\na=rtpmap:96 H264/90000\r\na=rtpmap:101 H265/90000\r\n"
            )
        };
        assert_eq!(answered_codec(&answer(101)), Codec::H265);
        assert_eq!(answered_codec(&answer(96)), Codec::H264);
        assert_eq!(answered_codec("v=0\r\n"), Codec::H264);
    }
}
