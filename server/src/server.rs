//! The composition root: owns everything, starts and stops it in order.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rov_common::api::WHEP_PATH;
use rov_common::codec::Codec;
use rov_common::discovery::{Announcement, StreamInfo};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::Config;
use crate::discovery::{self, Discovery, DiscoveryConfig};
use crate::http::{self, Api};
use crate::output::webrtc::{MediaSocket, WebRtcOutput};
use crate::stream::Stream;
use crate::supervisor::{self, Outcome};

const STREAM: &str = "stream1";
/// From the signal to the end of the process; pipelines have two seconds of it.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(4);
/// For connections that are still open when everything else has stopped.
const REST_LIMIT: Duration = Duration::from_millis(500);
const RESOLVE_INTERVAL: Duration = Duration::from_secs(20);

/// A server whose sockets are bound: a port that is taken has been noticed, and the ports that the system chose are
/// known.
pub struct Server {
    config: Config,
    id: String,
    http: TcpListener,
    media: MediaSocket,
    discovery: Option<Discovery>,
}

impl Server {
    /// Binds every socket.
    ///
    /// # Errors
    /// Names the port that is taken, and the option that changes it.
    pub async fn bind(config: Config) -> Result<Self> {
        let address = SocketAddr::new(config.host, config.signal_port);
        let http = TcpListener::bind(address).await.with_context(|| {
            format!(
                "cannot listen on TCP {address} for HTTP: choose another port with --signal-port, or another address \
                 with --host"
            )
        })?;
        let media = MediaSocket::bind(config.host, config.media_port)?;
        let discovery = match config.discovery_port {
            Some(port) => {
                let interfaces = config.interfaces.clone();
                Some(discovery::bind(DiscoveryConfig { port, host: config.host, interfaces })?)
            }
            None => None,
        };
        let id = discovery::server_id(&config.name);
        Ok(Self { config, id, http, media, discovery })
    }

    /// Address and port of the HTTP API.
    pub fn http_addr(&self) -> Result<SocketAddr> {
        Ok(self.http.local_addr()?)
    }

    /// Serves until `shutdown`, or until the source is over.
    ///
    /// # Errors
    /// A mistake in the configuration that shows only when the source is opened, or the death of a part that the rest
    /// cannot do without.
    pub async fn run(self, shutdown: CancellationToken) -> Result<()> {
        let Self { config, id, http, media, discovery } = self;
        let started = Instant::now();
        let (stream, control) = Stream::new(STREAM, started);
        let tasks = TaskTracker::new();
        let stop = shutdown.child_token();

        let stun = config.stun.as_deref().map(|url| resolve_stun(url, &tasks, &stop));
        let webrtc = Arc::new(WebRtcOutput::start(&stream, media, config.interfaces.clone(), stun).context("WebRTC")?);
        let http_addr = http.local_addr()?;
        tracing::info!(id, name = config.name, "http://{http_addr}, WebRTC media on UDP {}", webrtc.local_addr());

        let api = Arc::new(Api {
            id: id.clone(),
            name: config.name.clone(),
            started,
            stream: Arc::clone(&stream),
            webrtc: Arc::clone(&webrtc),
        });
        let http = tasks.spawn(http::serve(http, api, stop.clone()));
        if let Some(bound) = discovery {
            let announcement = announcer(&config, &id, http_addr.port(), Arc::clone(&stream));
            let token = stop.clone();
            tasks.spawn(async move {
                if let Err(error) = bound.run(announcement, token).await {
                    tracing::error!(error = format!("{error:#}"), "discovery has ended: viewers need --host now");
                }
            });
        }
        let mut supervisor = tasks.spawn(supervisor::run(config.capture, stream, control, stop.clone()));
        let mut http = http;
        let mut supervisor_ended = None;
        let cause = tokio::select! {
            ended = &mut supervisor => {
                supervisor_ended = Some(outcome(ended));
                Ok(())
            }
            served = &mut http => match served {
                // It ends by itself only when told to.
                Ok(Ok(())) => Ok(()),
                Ok(Err(error)) => Err(error.context("the HTTP server failed")),
                Err(panic) => Err(anyhow::anyhow!("the HTTP server ended: {panic}")),
            },
            () = media_thread_died(&webrtc) => Err(anyhow::anyhow!("the media thread has died")),
            () = stop.cancelled() => Ok(()),
        };
        stop.cancel();
        let deadline = tokio::time::Instant::now() + SHUTDOWN_LIMIT;
        // The viewers hear it first; the pipeline, which may take its time, stops beside that.
        let closing = tokio::task::spawn_blocking(move || webrtc.shutdown());
        if tokio::time::timeout_at(deadline, closing).await.is_err() {
            tracing::warn!("the viewers could not be told in time");
        }
        let supervised = match supervisor_ended {
            Some(ended) => ended,
            None => match tokio::time::timeout_at(deadline, supervisor).await {
                Ok(ended) => outcome(ended),
                Err(_) => {
                    tracing::warn!("the pipeline did not stop in time and is cut off");
                    Ok(())
                }
            },
        };
        // A request that is never finished does not hold up the end.
        tasks.close();
        let rest = deadline.min(tokio::time::Instant::now() + REST_LIMIT);
        if tokio::time::timeout_at(rest, tasks.wait()).await.is_err() {
            tracing::debug!("connections that were still open are cut off");
        }
        cause.and(supervised)
    }
}

/// What the end of the supervisor means for the server.
fn outcome(ended: Result<Result<Outcome, supervisor::Fatal>, tokio::task::JoinError>) -> Result<()> {
    match ended {
        Ok(Ok(Outcome::Stopped)) => Ok(()),
        Ok(Ok(Outcome::SourceEnded(reason))) => {
            tracing::info!("{reason}");
            Ok(())
        }
        Ok(Err(fatal)) => Err(fatal.into()),
        Err(panic) => Err(anyhow::anyhow!("the supervisor ended: {panic}")),
    }
}

/// Looks now and then, as the thread cannot tell.
async fn media_thread_died(webrtc: &WebRtcOutput) {
    while !webrtc.has_died() {
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

fn announcer(
    config: &Config,
    id: &str,
    signal_port: u16,
    stream: Arc<Stream>,
) -> impl Fn() -> Announcement + Send + Sync + 'static {
    let (id, name) = (id.to_owned(), config.name.clone());
    move || {
        let (resolution, fps) = stream.format();
        Announcement {
            v: 1,
            id: id.clone(),
            name: name.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            signal_port,
            whep: WHEP_PATH.to_owned(),
            transports: vec!["webrtc".to_owned()],
            streams: vec![StreamInfo {
                name: stream.name().to_owned(),
                codec: Codec::H264.to_string(),
                width: resolution.width,
                height: resolution.height,
                fps,
            }],
        }
    }
}

/// Resolves the name of the STUN server in the background: without DNS that takes seconds, and may work later.
fn resolve_stun(url: &str, tasks: &TaskTracker, stop: &CancellationToken) -> watch::Receiver<Option<SocketAddr>> {
    let (found, receiver) = watch::channel(None);
    let server = url.trim_start_matches("stun:").to_owned();
    let server = if server.contains(':') { server } else { format!("{server}:3478") };
    let stop = stop.clone();
    tasks.spawn(async move {
        loop {
            let found_now = tokio::select! {
                () = stop.cancelled() => return,
                found_now = tokio::net::lookup_host(&server) => found_now,
            };
            match found_now {
                Ok(mut addresses) => {
                    if let Some(address) = addresses.find(|a| matches!(a.ip(), IpAddr::V4(_))) {
                        found.send_replace(Some(address));
                        return;
                    }
                    tracing::warn!(server, "the STUN server has no IPv4 address, asking again in 20 s");
                }
                Err(error) => tracing::warn!(server, %error, "cannot resolve the STUN server, trying again in 20 s"),
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(RESOLVE_INTERVAL) => {}
            }
        }
    });
    receiver
}
