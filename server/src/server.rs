//! The composition root: owns everything, starts and stops it in order.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rov_common::api::{StreamState, View, WHEP_PATH};
use rov_common::capture_clock::{CaptureClock, TimeOfDay};
use rov_common::discovery::{Announcement, StreamInfo};
use rov_common::net;
use rov_common::recording::Folder;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::{CameraConfig, Config, SourceConfig, SourceKind};
use crate::discovery::{self, Discovery, DiscoveryConfig};
use crate::events::Events;
use crate::http::{self, Api, Clips, Downloads, Recorded, RingPlaces, Tls};
use crate::identity::{self, Identity};
use crate::inlet::Inlet;
use crate::onvif::Onvif;
use crate::onvif::discovery::{About, Discovery as OnvifDiscovery};
use crate::output::pilots::Pilots;
use crate::output::rtsp;
use crate::output::takers::{Taker, Takers};
use crate::output::{Given, Outputs};
use crate::overlay::Overlays;
use crate::pipeline::{self, Found, Links, Pip};
use crate::progress::{Beat, HANGS_AFTER, Parts};
use crate::service::{Service, ServiceState};
use crate::settings::Settings;
use crate::stream::{Control, Stream, Streams};
use crate::supervisor::change::{Asked, Handle};
use crate::supervisor::{self, Outcome};
use crate::telemetry::{Board, Receivers};
use crate::users::Users;

/// From the signal to the end of the process; pipelines have two seconds of it.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(4);
/// For connections that are still open when everything else has stopped.
const REST_LIMIT: Duration = Duration::from_millis(500);
/// Between two looks for the address of `--host`.
const LOOK_FOR_ADDRESS: Duration = Duration::from_millis(500);
/// Between two looks at which devices there are.
const LOOK_FOR_CAMERAS: Duration = Duration::from_secs(1);

/// A server whose sockets are bound: a port that is taken has been noticed, and the ports that the system chose are
/// known.
pub struct Server {
    config: Config,
    settings: Arc<Settings>,
    id: String,
    identity: Identity,
    tls: Option<Tls>,
    streams: Streams,
    /// Of each stream.
    requests: Vec<mpsc::Receiver<Control>>,
    http: TcpListener,
    outputs: Arc<Outputs>,
    downloads: Downloads,
    users: Arc<Users>,
    inlet: Option<Arc<Inlet>>,
    /// Of each camera that shows two others.
    pips: Vec<Arc<Pip>>,
    /// By which the settings of each camera are changed, and where that is heard.
    cameras: Vec<(Handle, Asked)>,
    recorded: Option<Arc<Folder>>,
    /// For what people read.
    day: TimeOfDay,
    overlays: Arc<Overlays>,
    board: Arc<Board>,
    receivers: Receivers,
    discovery: Option<Discovery>,
    onvif: Option<(Arc<Onvif>, Option<OnvifDiscovery>)>,
    service: Service,
}

impl Server {
    /// Binds every socket.
    ///
    /// # Errors
    /// Names the port that is taken, and the option that changes it. Where what was changed is to blame, it is set aside
    /// instead.
    pub async fn bind(config: Config) -> Result<Self> {
        Self::bind_by(config, CaptureClock::start()).await
    }

    /// The same with another clock than the system's for the times of capture.
    ///
    /// # Errors
    /// As [`Self::bind`].
    pub async fn bind_by(config: Config, clock: CaptureClock) -> Result<Self> {
        let settings = Settings::of(config);
        let Some(given) = settings.as_given() else { return Self::bind_with(settings, clock).await };
        let error = match Self::bind_with(settings, clock).await {
            Err(error) => error,
            bound => return bound,
        };
        let Ok(server) = Self::bind_with(given, clock).await else { return Err(error) };
        server.settings.set_aside(&error);
        Ok(server)
    }

    async fn bind_with(settings: Settings, clock: CaptureClock) -> Result<Self> {
        let config = settings.running();
        until_here(config.host).await;
        let address = SocketAddr::new(config.host, config.signal_port);
        let http = TcpListener::bind(address).await.with_context(|| {
            format!(
                "cannot listen on TCP {address} for HTTP: choose another port with --signal-port, or another address \
                 with --host"
            )
        })?;
        let all =
            config.streams().map(|(camera, stream)| (camera.name.as_str(), stream.name.as_str(), stream.encode.codec));
        let (streams, requests) = Streams::new(all, clock);
        let day = TimeOfDay::of(&clock);
        let pilots = Pilots::shared(config.pilot);
        let takers = Arc::<Takers>::default();
        let (sent, of_streams) = (Arc::clone(&takers), streams.clone());
        let downloads = Downloads::new(Arc::clone(&pilots), move |now| {
            let all = sent.all();
            let rate = |taker: &Taker| of_streams[taker.stream].stats(now).bitrate_kbps * 1e3 * taker.factor;
            (!all.is_empty()).then(|| all.iter().map(rate).sum())
        });
        let users = Arc::new(Users::new(&config.logins).context("cannot check logins")?);
        let published = config.streams().position(|(camera, _)| camera.source.kind == SourceKind::Publish);
        let inlet = published.zip(config.rtsp.as_ref()).map(|(at, rtsp)| {
            // Of the paths of the first stream the last is the user's own.
            let own = rtsp.paths.last().filter(|_| at == 0).cloned();
            (at, Arc::new(Inlet::new(&own.unwrap_or_else(|| format!("/{}", streams[at].name())))))
        });
        let shows = |camera: &CameraConfig| Some(Arc::new(Pip::new(&camera.name, camera.source.pip.as_ref()?)));
        let pips = config.cameras.iter().filter_map(shows).collect();
        let cameras: Vec<_> = config.cameras.iter().cloned().map(Handle::new).collect();
        let receivers = Receivers::bind(&config.telemetry).await?;
        let board = Arc::new(Board::new(config.telemetry.fields.clone()));
        let written = config.streams().map(|(_, stream)| &stream.overlay);
        let overlays = Arc::new(Overlays::new(&streams, written, Arc::clone(&board), config.telemetry.is_on()));
        let settings = settings.with_cameras(cameras.iter().map(|(handle, _)| handle.clone()).collect());
        let recorded = config.record.as_ref().map(|record| Folder::new(&record.folder));
        let discovery = match config.discovery_port {
            Some(port) => {
                let interfaces = config.interfaces.clone();
                Some(discovery::bind(DiscoveryConfig { port, host: config.host, interfaces })?)
            }
            None => None,
        };
        let onvif = config.onvif.then(|| Onvif::bind(&config)).transpose()?;
        let id = discovery::server_id(&config.name, config.host, config.signal_port);
        let identity = Identity::kept_in(config.state_dir.as_deref(), &identity::hardware());
        let identity = identity.context("cannot make a key for this server")?;
        let tls = config.tls.as_ref().map(|tls| Tls::new(tls.files.as_ref(), &identity)).transpose()?;
        let outputs = Arc::new(Outputs::start(&Given {
            config: &config,
            streams: &streams,
            identity: &identity,
            users: &users,
            pilots: &pilots,
            takers: &takers,
            inlet: inlet.as_ref(),
            folder: recorded.as_ref(),
            board: &board,
            day: &day,
        })?);
        let settings = settings.with_overlays(Arc::clone(&overlays)).with_recordings(outputs.recordings.clone());
        Ok(Self {
            config,
            settings: Arc::new(settings),
            id,
            identity,
            tls,
            streams,
            requests,
            http,
            outputs,
            downloads,
            users,
            inlet: inlet.map(|(_, inlet)| inlet),
            pips,
            cameras,
            recorded,
            day,
            overlays,
            board,
            receivers,
            discovery,
            onvif,
            service: Service::default(),
        })
    }

    /// Tells the service manager how it goes.
    pub fn managed_by(self, service: Service) -> Self {
        Self { service, ..self }
    }

    /// Address and port of the HTTP API.
    pub fn http_addr(&self) -> Result<SocketAddr> {
        Ok(self.http.local_addr()?)
    }

    /// By which the settings of each camera are changed while it runs, in the order of the configuration.
    pub fn handles(&self) -> Vec<Handle> {
        self.cameras.iter().map(|(handle, _)| handle.clone()).collect()
    }

    /// Serves until `shutdown`, or until the source is over.
    ///
    /// # Errors
    /// A mistake in the configuration that shows only when the source is opened, or the death of a part that the rest
    /// cannot do without. A mistake in what was changed is set aside instead, and it starts again as it was given.
    pub async fn run(self, shutdown: CancellationToken) -> Result<()> {
        let (given, streams, service) = (self.settings.as_given(), self.streams.clone(), self.service.clone());
        let error = match self.serve(shutdown.clone()).await {
            Err(error) if is_of_start(&error, &streams) && !shutdown.is_cancelled() => error,
            ended => return ended,
        };
        let Some(given) = given else { return Err(error) };
        let Ok(server) = Self::bind_with(given, streams[0].clock()).await else { return Err(error) };
        let (settings, streams) = (Arc::clone(&server.settings), server.streams.clone());
        let aside = settings.set_aside(&error);
        let ended = server.managed_by(service).serve(shutdown).await;
        if let (Err(error), Some(aside)) = (&ended, aside)
            && is_of_start(error, &streams)
        {
            settings.take_back(&aside);
        }
        ended
    }

    async fn serve(self, shutdown: CancellationToken) -> Result<()> {
        let Self {
            config,
            settings,
            id,
            identity,
            tls,
            streams,
            requests,
            http,
            outputs,
            downloads,
            users,
            inlet,
            pips,
            cameras,
            recorded,
            day,
            overlays,
            board,
            receivers,
            discovery,
            onvif,
            service,
        } = self;
        let tasks = TaskTracker::new();
        let stop = shutdown.child_token();

        let is_followed = config.webrtc && config.streams().all(|(_, stream)| stream.adaptive_floor.is_some());
        if config.tether.is_some() && !is_followed && (config.rtsp.is_some() || config.rtp.is_some()) {
            tracing::warn!(
                "--tether does not bound what goes by RTSP and RTP: for that WebRTC has to be among --transport, and the bit \
                 rate of each stream must not be fixed (--adaptive off)"
            );
        }
        let always = streams.iter().zip(config.streams()).filter(|(_, (_, config))| config.always_encode);
        let _awake: Vec<_> = always.map(|(stream, _)| stream.demand().keep_awake()).collect();
        let http_addr = http.local_addr()?;
        tracing::info!(id, name = config.name, "rov-server {}", env!("CARGO_PKG_VERSION"));
        // Not 0.0.0.0, which no viewer can open.
        let addresses = rtsp::addresses(config.host);
        let (here, others) = addresses.split_first().map_or((config.host, &[][..]), |(here, others)| (*here, others));
        let scheme = if tls.is_some() { "https" } else { "http" };
        let mut ways = vec![format!("{scheme}://{here}:{}", http_addr.port())];
        ways.extend(outputs.all().filter_map(|output| output.place(here)));
        let others: Vec<_> = others.iter().map(IpAddr::to_string).collect();
        let also = if others.is_empty() { String::new() } else { format!("; also at {}", others.join(", ")) };
        tracing::info!("watch at {}{also}", ways.join(", "));
        if streams.len() > 1 {
            let names: Vec<_> = streams.iter().map(|stream| stream.name()).collect();
            tracing::info!("streams: {}; without a name it is the first", names.join(", "));
        }
        if let Some(tls) = &tls {
            tracing::info!("HTTPS with the certificate of SHA-256 {}", tls.fingerprint());
        }
        if !users.is_empty() {
            tracing::info!("{}", config.who());
        }
        if !users.is_empty() && users.view() == View::Open {
            let mut open: Vec<_> = outputs.all().map(|output| output.name()).collect();
            open.dedup();
            tracing::warn!(
                "users log in to change things alone: HTTP, {} are open to the whole network; --view requires-login closes them",
                open.join(", ")
            );
        }

        let (onvif, found) = onvif.unzip();
        if let Some(onvif) = &onvif {
            tracing::info!("ONVIF at {}", onvif.address(&format!("{here}:{}", http_addr.port())));
            onvif.say();
        }
        if let Some(found) = found.flatten() {
            let about = About { id: id.clone(), name: config.name.clone(), scheme, port: http_addr.port() };
            let token = stop.clone();
            tasks.spawn(async move {
                if let Err(error) = found.run(about, token).await {
                    tracing::error!(
                        error = format!("{error:#}"),
                        "WS-Discovery has ended: recorders need the address now"
                    );
                }
            });
        }
        let events =
            Events::new(stop.clone()).with_overlays(Arc::clone(&overlays)).with_recordings(outputs.recordings.clone());
        tasks.spawn(Arc::clone(&overlays).tell(events.clone()));
        if let Some(webrtc) = &outputs.webrtc {
            tasks.spawn(webrtc.tell_values(&events));
        }
        let (telemetry, received) = receivers.run(&board, &stop);
        received.into_iter().for_each(|receive| drop(tasks.spawn(receive)));
        for stream in streams.iter() {
            tasks.spawn(events.tell_of(Arc::clone(stream)));
        }
        for (recording, (_, stream)) in outputs.recordings.iter().zip(config.streams()) {
            tasks.spawn(events.tell_of_recording(Arc::clone(recording)));
            recording.set_on(stream.is_recorded);
        }
        let api = Arc::new(Api {
            id: id.clone(),
            key: identity.key().to_owned(),
            key_is_of_this_run: !identity.is_kept(),
            name: config.name.clone(),
            started: Instant::now(),
            day,
            streams: streams.clone(),
            outputs: Arc::clone(&outputs),
            recorded: recorded.map(Recorded::new),
            clips: Clips::new(streams.len()),
            ring_places: RingPlaces::default(),
            downloads,
            settings,
            events: events.clone(),
            telemetry,
            users,
            onvif,
            allow_hosts: config.allow_hosts.clone(),
            allow_origins: config.allow_origins.clone(),
            limits: config.http_limits,
        });
        let http_beat = Arc::<Beat>::default();
        let mut parts = Parts::default();
        parts.add("HTTP", &http_beat, HANGS_AFTER);
        let supervisor_beats: Vec<_> = config.cameras.iter().map(|_| Arc::<Beat>::default()).collect();
        for beat in &supervisor_beats {
            parts.add("the supervisor of the pipeline", beat, HANGS_AFTER);
        }
        for output in outputs.all() {
            if let Some((beat, limit)) = output.beat() {
                parts.add(output.name(), beat, limit);
            }
        }
        let (all_streams, all) = (streams.clone(), Arc::clone(&outputs));
        let state = move || {
            // One that does not run is what has to be known.
            let runs = |stream: &&Arc<Stream>| stream.status().health().0 == StreamState::Running;
            let stream = all_streams.iter().find(|stream| !runs(stream)).unwrap_or(all_streams.default_stream());
            ServiceState {
                stream: stream.stats(Instant::now()),
                fps: stream.status().format().1,
                viewers: all.all().map(|output| output.viewers()).sum(),
                is_one_of_several: all_streams.len() > 1,
            }
        };
        tasks.spawn(service.run(parts, state, stop.clone()));
        let fingerprint = tls.as_ref().map(|tls| tls.fingerprint().to_owned());
        let serve = http::serve(http, api, tls, stop.clone());
        let http = tasks.spawn(async move { http_beat.during(serve).await });
        if let Some(bound) = discovery {
            let mut announcement = Announcement {
                v: rov_common::discovery::VERSION,
                id: id.clone(),
                key: Some(identity.key().to_owned()),
                tls: fingerprint,
                run: Some(rand::random()),
                name: config.name.clone(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
                signal_port: http_addr.port(),
                whep: WHEP_PATH.to_owned(),
                transports: Vec::new(),
                rtp: None,
                rtsp: None,
                streams: Vec::new(),
            };
            outputs.all().for_each(|output| output.announce(&mut announcement));
            let announcement = announcer(announcement, streams.clone());
            let token = stop.clone();
            tasks.spawn(async move {
                if let Err(error) = bound.run(announcement, token).await {
                    tracing::error!(error = format!("{error:#}"), "discovery has ended: viewers need --host now");
                }
            });
        }
        if config.all_cameras && config.cameras[0].source.device.is_some() {
            tasks.spawn(late_cameras(config.cameras.clone(), stop.clone()));
        }
        let mut supervisors = JoinSet::new();
        let mut served = streams.iter().cloned().zip(requests);
        let mut written = overlays.all().iter().cloned();
        for (((_, asked), camera), beat) in cameras.into_iter().zip(&config.cameras).zip(supervisor_beats) {
            let served: Vec<_> = served.by_ref().take(camera.streams.len()).collect();
            let links = Links {
                inlet: inlet.clone().filter(|_| camera.source.kind == SourceKind::Publish),
                pip: pips.iter().find(|pip| pip.name() == camera.name).cloned(),
                taps: pips.iter().filter_map(|pip| pip.tap(&camera.name)).collect(),
                overlays: written.by_ref().take(camera.streams.len()).collect(),
                ..Links::default()
            };
            let of_camera = served.iter().map(|(stream, _)| Arc::clone(stream)).collect::<Vec<_>>();
            let supervise = supervisor::run(asked, links, served, stop.clone());
            supervisors.spawn(async move { (beat.during(supervise).await, of_camera) });
        }
        let mut http = http;
        let cause = tokio::select! {
            over = cameras_over(&mut supervisors) => over,
            served = &mut http => match served {
                // It ends by itself only when told to.
                Ok(Ok(())) => Ok(()),
                Ok(Err(error)) => Err(error.context("the HTTP server failed")),
                Err(panic) => Err(anyhow::anyhow!("the HTTP server ended: {panic}")),
            },
            name = output_died(&outputs) => Err(anyhow::anyhow!("the {name} output has died")),
            () = stop.cancelled() => Ok(()),
        };
        stop.cancel();
        outputs.all().for_each(|output| output.end());
        let deadline = tokio::time::Instant::now() + SHUTDOWN_LIMIT;
        // The viewers hear it first; the pipeline, which may take its time, stops beside that.
        let closing = tokio::task::spawn_blocking(move || {
            outputs.all().for_each(|output| output.shutdown());
        });
        if tokio::time::timeout_at(deadline, closing).await.is_err() {
            tracing::warn!("the viewers could not be told in time");
        }
        let supervised = match tokio::time::timeout_at(deadline, cameras_over(&mut supervisors)).await {
            Ok(over) => over,
            Err(_) => {
                tracing::warn!("a pipeline did not stop in time and is cut off");
                supervisors.detach_all();
                Ok(())
            }
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

/// Whether it is a mistake that has shown before any picture.
fn is_of_start(error: &anyhow::Error, streams: &Streams) -> bool {
    let now = Instant::now();
    error.is::<supervisor::Fatal>() && streams.iter().all(|stream| stream.stats(now).frames == 0)
}

/// Waits for an address that this machine does not have yet, as before DHCP gives it or an adapter is plugged in.
async fn until_here(host: IpAddr) {
    let mut is_said = host.is_unspecified() || host.is_loopback();
    if is_said {
        return;
    }
    loop {
        match net::interfaces() {
            Ok(all) if all.iter().all(|interface| host != interface.address) => {
                if !std::mem::replace(&mut is_said, true) {
                    let here: Vec<_> = all.iter().map(|i| format!("{} ({})", i.address, i.name)).collect();
                    tracing::warn!(
                        "--host {host}: no network interface has this address; waiting until one has. Here are {}",
                        here.join(", ")
                    );
                }
            }
            // What is wrong then, the sockets say.
            Ok(_) | Err(_) => return,
        }
        tokio::time::sleep(LOOK_FOR_ADDRESS).await;
    }
}

/// Says which cameras have come after the start, when the catalogue of streams was made.
async fn late_cameras(cameras: Vec<CameraConfig>, stop: CancellationToken) {
    let is_one_of = |found: &Found, source: &SourceConfig| {
        source.device.as_ref() == Some(&found.device) || found.known_by.iter().any(|path| source.taken.contains(path))
    };
    let is_known = |found: &Found| cameras.iter().any(|camera| is_one_of(found, &camera.source));
    let (mut nodes, mut changed, mut said) = (pipeline::device_nodes(), false, Vec::new());
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(LOOK_FOR_CAMERAS) => {}
        }
        // Looked for some time after it has come: it may not answer at once.
        let (now, was_changed) = (pipeline::device_nodes(), changed);
        changed = nodes != now;
        nodes = now;
        if changed || !was_changed {
            continue;
        }
        let source = SourceConfig::default();
        let Ok(found) = tokio::task::spawn_blocking(move || pipeline::cameras_present(&source)).await else { return };
        for new in found.into_iter().filter(|found| !is_known(found)) {
            if !said.contains(&new) {
                tracing::warn!("camera {new} has come after the start and is not shown: restart the server to take it");
                said.push(new);
            }
        }
    }
}

/// How a camera's supervisor has ended, and the streams of that camera.
type Supervised = (Result<Outcome, supervisor::Fatal>, Vec<Arc<Stream>>);

/// Waits until all cameras are over.
///
/// # Errors
/// At once, a mistake that shows before its camera has given any picture. One that shows later ends that camera alone.
async fn cameras_over(supervisors: &mut JoinSet<Supervised>) -> Result<()> {
    while let Some(ended) = supervisors.join_next().await {
        let is_last = supervisors.is_empty();
        ended.map_or_else(
            |panic: JoinError| Err(anyhow::anyhow!("the supervisor ended: {panic}")),
            |one| outcome(one, is_last),
        )?;
    }
    Ok(())
}

/// What the end of a supervisor means for the server.
fn outcome((ended, streams): Supervised, is_last: bool) -> Result<()> {
    let fatal = match ended {
        Ok(Outcome::Stopped) => return Ok(()),
        Ok(Outcome::SourceEnded(reason)) => {
            tracing::info!("{reason}");
            return Ok(());
        }
        Err(fatal) => fatal,
    };
    let now = Instant::now();
    if is_last || streams.iter().all(|stream| stream.stats(now).frames == 0) {
        return Err(fatal.into());
    }
    let camera = streams[0].camera();
    tracing::error!(camera, "{fatal}; this camera stays off until the server is restarted, the others go on");
    streams.iter().for_each(|stream| stream.status().set_stopped(StreamState::Ended, fatal.to_string()));
    Ok(())
}

/// The name of the output whose thread has died. Looks now and then, as the threads cannot tell.
async fn output_died(outputs: &Outputs) -> &'static str {
    loop {
        if let Some(dead) = outputs.all().find(|output| output.has_died()) {
            return dead.name();
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// The announcement with what the streams are now.
fn announcer(fixed: Announcement, streams: Streams) -> impl Fn() -> Announcement + Send + Sync + 'static {
    let info = |stream: &Arc<Stream>| {
        let (resolution, fps) = stream.status().format();
        StreamInfo {
            name: stream.name().to_owned(),
            codec: stream.codec().to_string(),
            width: resolution.width,
            height: resolution.height,
            fps,
        }
    };
    move || Announcement { streams: streams.iter().map(info).collect(), ..fixed.clone() }
}
