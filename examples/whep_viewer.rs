//! A viewer of one's own, on the crate `webrtc`: it prints how many pictures come, and how fast.
//! `cargo run -p rov-examples --bin whep-viewer -- http://SERVER:8080/whep`

use std::net::UdpSocket;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use rtc::interceptor::Registry;
use rtc::peer_connection::configuration::interceptor_registry::register_default_interceptors;
use rtc::peer_connection::configuration::media_engine::{MIME_TYPE_H264, MediaEngine};
use rtc::peer_connection::sdp::RTCSessionDescription;
use rtc::rtp_transceiver::rtp_sender::{RTCPFeedback, RTCRtpCodec, RTCRtpCodecParameters, RtpCodecKind};
use rtc::rtp_transceiver::{RTCRtpTransceiverDirection, RTCRtpTransceiverInit};
use tokio::sync::mpsc;
use url::Url;
use webrtc::media_stream::track_remote::{TrackRemote, TrackRemoteEvent};
use webrtc::peer_connection::{
    PeerConnection, PeerConnectionBuilder, PeerConnectionEventHandler, RTCIceGatheringState, RTCPeerConnectionState,
};
use webrtc::runtime::TokioRuntime;

/// Nothing takes longer: not the server's answer, nor the connection, nor the next picture.
const LIMIT: Duration = Duration::from_secs(10);

/// Watches a stream of rov-server by WHEP, and prints how many pictures come, and how fast
#[derive(Parser)]
struct Args {
    /// As http://SERVER:8080/whep
    url: Url,

    /// End after so many pictures; 0: never
    #[arg(long, default_value_t = 0)]
    pictures: u64,
}

/// What the connection tells.
enum Event {
    Gathered,
    Track(Arc<dyn TrackRemote>),
    Over(RTCPeerConnectionState),
}

struct Handler(mpsc::UnboundedSender<Event>);

#[async_trait::async_trait]
impl PeerConnectionEventHandler for Handler {
    async fn on_ice_gathering_state_change(&self, state: RTCIceGatheringState) {
        if state == RTCIceGatheringState::Complete {
            let _ = self.0.send(Event::Gathered);
        }
    }

    async fn on_connection_state_change(&self, state: RTCPeerConnectionState) {
        if matches!(state, RTCPeerConnectionState::Failed | RTCPeerConnectionState::Closed) {
            let _ = self.0.send(Event::Over(state));
        }
    }

    async fn on_track(&self, track: Arc<dyn TrackRemote>) {
        let _ = self.0.send(Event::Track(track));
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let Args { url, pictures } = Args::parse();
    let (events, mut happened) = mpsc::unbounded_channel();
    let connection = connect(&url, events).await?;
    let watched = watch(&url, pictures, &connection, &mut happened).await;
    // Without it sockets and tasks stay behind.
    let closed = connection.close().await;
    watched?;
    Ok(closed?)
}

async fn connect(url: &Url, events: mpsc::UnboundedSender<Event>) -> Result<impl PeerConnection> {
    let mut media = MediaEngine::default();
    let feedback = |parameter: &str| RTCPFeedback { typ: "nack".to_owned(), parameter: parameter.to_owned() };
    let rtp_codec = RTCRtpCodec {
        mime_type: MIME_TYPE_H264.to_owned(),
        clock_rate: 90_000,
        channels: 0,
        sdp_fmtp_line: "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f".to_owned(),
        rtcp_feedback: vec![feedback(""), feedback("pli")],
    };
    media.register_codec(RTCRtpCodecParameters { rtp_codec, payload_type: 102 }, RtpCodecKind::Video)?;
    let registry = register_default_interceptors(Registry::new(), &mut media)?;
    // The address of this machine by which it reaches the server: one candidate is enough.
    let server = url.socket_addrs(|| None)?;
    let way = UdpSocket::bind("0.0.0.0:0")?;
    way.connect(server.as_slice()).with_context(|| format!("no way to {url}"))?;
    Ok(PeerConnectionBuilder::new()
        .with_media_engine(media)
        .with_interceptor_registry(registry)
        .with_handler(Arc::new(Handler(events)))
        .with_runtime(Arc::new(TokioRuntime))
        .with_udp_addrs(vec![format!("{}:0", way.local_addr()?.ip())])
        .build()
        .await?)
}

/// Watches until so many pictures have come.
async fn watch(
    url: &Url,
    pictures: u64,
    connection: &impl PeerConnection,
    happened: &mut mpsc::UnboundedReceiver<Event>,
) -> Result<()> {
    let direction = RTCRtpTransceiverDirection::Recvonly;
    let receive_only = RTCRtpTransceiverInit { direction, ..Default::default() };
    connection.add_transceiver_from_kind(RtpCodecKind::Video, Some(receive_only)).await?;
    let offer = connection.create_offer(None).await?;
    connection.set_local_description(offer).await?;
    ensure!(matches!(next(happened, "candidates").await?, Event::Gathered), "no candidates");
    let offer = connection.local_description().await.context("no offer")?;
    let address = url.clone();
    let (session, answer) = tokio::task::spawn_blocking(move || exchange(&address, &offer.sdp)).await??;
    let watched = async {
        connection.set_remote_description(RTCSessionDescription::answer(answer)?).await?;
        match next(happened, "video").await? {
            Event::Track(track) => count(track.as_ref(), pictures).await,
            Event::Over(state) => bail!("connection {state}"),
            Event::Gathered => bail!("candidates twice"),
        }
    };
    let watched = watched.await;
    let deleted = tokio::task::spawn_blocking(move || agent().delete(session.as_str()).call()).await?;
    watched?;
    deleted.context("the session was not ended")?;
    Ok(())
}

async fn next(happened: &mut mpsc::UnboundedReceiver<Event>, what: &str) -> Result<Event> {
    let event = tokio::time::timeout(LIMIT, happened.recv()).await;
    event.ok().flatten().with_context(|| format!("no {what} within {} s", LIMIT.as_secs()))
}

fn agent() -> ureq::Agent {
    ureq::Agent::config_builder().timeout_global(Some(LIMIT)).http_status_as_error(false).build().new_agent()
}

/// Offer and answer (WHEP): the session's address, by which it is ended, and the answer.
fn exchange(url: &Url, offer: &str) -> Result<(Url, String)> {
    let request = agent().post(url.as_str()).header("Content-Type", "application/sdp");
    let mut reply = request.send(offer).with_context(|| url.to_string())?;
    let text = reply.body_mut().read_to_string()?;
    ensure!(reply.status() == 201, "{url}: {} {text}", reply.status());
    let location = reply.headers().get("Location").context("no Location")?.to_str()?;
    Ok((url.join(location)?, text))
}

/// Counts pictures by the last packet of each, and prints the rate once a second.
async fn count(track: &dyn TrackRemote, pictures: u64) -> Result<()> {
    let (mut count, mut bytes) = (0_u64, 0);
    let mut said = (Instant::now(), 0_u64, 0);
    loop {
        let event = tokio::time::timeout(LIMIT, track.poll()).await.context("no more video")?;
        let packet = match event.context("the track has ended")? {
            TrackRemoteEvent::OnRtpPacket(packet) => packet,
            TrackRemoteEvent::OnEnded => bail!("the track has ended"),
            _ => continue,
        };
        bytes += packet.payload.len();
        if !packet.header.marker {
            continue;
        }
        count += 1;
        let (now, (at, before, bytes_before)) = (Instant::now(), said);
        let seconds = (now - at).as_secs_f64();
        if seconds >= 1.0 {
            let fps = (count - before) as f64 / seconds;
            let mbps = (bytes - bytes_before) as f64 * 8.0 / 1e6 / seconds;
            println!("{count} pictures, {fps:.1} fps, {mbps:.2} Mbit/s");
            said = (now, count, bytes);
        }
        if count == pictures {
            println!("{count} pictures");
            return Ok(());
        }
    }
}
