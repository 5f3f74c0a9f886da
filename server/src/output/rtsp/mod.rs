//! RTSP by gst-rtsp-server: UDP, multicast and TCP, for players, recorders and computer vision.
//!
//! All clients of a stream share one media, fed with the shared encode while somebody watches, and another of MJPEG
//! previews. Everything that clients say is handled on one thread of its own with its own GLib context; pictures never
//! pass through that thread.

mod along;
mod clients;
mod factory;
mod feed;
mod gate;
mod mjpeg;
mod paths;
mod publish;
mod reports;
mod requests;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use gstreamer as gst;
use gstreamer::glib;
use gstreamer_rtsp_server as rtsp;
use gstreamer_rtsp_server::gio;
use gstreamer_rtsp_server::prelude::*;
use rov_common::api::{RtspStats, Stats};
use rov_common::discovery::{Announcement, RtspInfo, interfaces};
use rov_common::net;
use rov_common::sync::lock;
use tokio::runtime::Handle;

use self::clients::{Clients, Rules, Sessions};
use self::feed::Feeder;
use self::gate::Gate;
use self::mjpeg::Mjpeg;
use self::paths::{Content, Paths};
use super::{Given, Output, told_of};
use crate::config::RtspConfig;
use crate::inlet::Inlet;
use crate::output::jpeg::JpegOutput;
use crate::output::pilots::Pilots;
use crate::output::takers::Takers;
use crate::progress::Beat;
use crate::stream::Streams;
use crate::users::Users;

/// Sessions are looked after so often: the dead ones, those that are too slow, keyframes that are due.
const CARE_INTERVAL: Duration = Duration::from_millis(200);
/// From the wish to end to the end of the thread.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(1);
/// gst-rtsp-server waits on its thread for a media that gets no pictures, up to 20 s.
const HANGS_AFTER: Duration = Duration::from_secs(30);

/// How many there are, and who has a right to one.
pub struct Seats {
    /// Sessions at once.
    pub max_clients: usize,
    pub pilots: Arc<Mutex<Pilots>>,
    pub users: Arc<Users>,
    /// Told who plays.
    pub takers: Arc<Takers>,
}

pub struct RtspOutput {
    port: u16,
    paths: Paths,
    host: IpAddr,
    served: Arc<[Served]>,
    context: glib::MainContext,
    main_loop: glib::MainLoop,
    thread: JoinHandle<()>,
    /// Disconnected when the thread has ended.
    ended: Mutex<Receiver<()>>,
    stopping: AtomicBool,
    beat: Arc<Beat>,
    sessions: Sessions,
}

/// A stream, in the order of the catalogue.
struct Served {
    feeder: Arc<Feeder>,
    mjpeg: Arc<Mjpeg>,
}

impl RtspOutput {
    /// One for all streams; `jpeg` has the previews of each.
    pub(super) fn of(given: &Given, jpeg: &[Arc<JpegOutput>]) -> Result<Option<Arc<Self>>> {
        let Given { config, streams, .. } = given;
        let Some(rtsp) = config.rtsp.clone() else { return Ok(None) };
        let seats = Seats {
            max_clients: config.max_viewers.into(),
            pilots: Arc::clone(given.pilots),
            users: Arc::clone(given.users),
            takers: Arc::clone(given.takers),
        };
        let (inlet, interfaces) = (given.inlet.cloned(), config.interfaces.clone());
        Self::start(streams, jpeg, inlet, rtsp, config.host, interfaces, seats).map(|output| Some(Arc::new(output)))
    }

    /// Binds the port and serves; `jpeg` has the previews of each stream, and `inlet` is where the stream at its place
    /// is published. `interfaces` are those for multicast, as discovery takes them. To be called where tokio runs.
    ///
    /// # Errors
    /// Names the port that is taken and the option that changes it, or the plugin that is missing.
    pub fn start(
        streams: &Streams,
        jpeg: &[Arc<JpegOutput>],
        inlet: Option<(usize, Arc<Inlet>)>,
        config: RtspConfig,
        host: IpAddr,
        interfaces: Vec<String>,
        seats: Seats,
    ) -> Result<Self> {
        gst::init().context("GStreamer")?;
        let context = glib::MainContext::new();
        let main_loop = glib::MainLoop::new(Some(&context), false);
        let server = rtsp::RTSPServer::new();
        server.set_address(&host.to_string());
        server.set_service(&config.port.to_string());
        let runtime = Handle::try_current().context("RTSP")?;
        let served: Arc<[_]> = streams
            .iter()
            .zip(jpeg)
            .map(|(stream, jpeg)| Served { feeder: Feeder::new(stream), mjpeg: Mjpeg::new(jpeg, runtime.clone()) })
            .collect();
        let paths = Paths::new(streams, &config.paths);
        let multicast = factory::Multicast::new(host, interfaces).context("RTSP")?;
        let mounts = server.mount_points().context("RTSP: no mount points")?;
        let mut factories = Vec::new();
        for (stream, Served { feeder, mjpeg }) in served.iter().enumerate() {
            let own = inlet.as_ref().filter(|(published, _)| *published == stream).map(|(_, inlet)| inlet);
            let video = factory::stream(feeder, own, streams[stream].codec(), &multicast).context("RTSP")?;
            let previews = factory::previews(mjpeg, &multicast).context("RTSP")?;
            for (factory, mjpeg) in [(video, false), (previews, true)] {
                paths.to(Content { stream, mjpeg }).for_each(|path| mounts.add_factory(path, factory.clone()));
                factories.push(factory);
            }
        }
        let gate = Gate::new();
        factory::ask_for_password(&gate, &factories, config.digest.as_ref(), config.basic_auth);
        server.set_auth(Some(&gate));
        if inlet.is_some() && seats.users.is_empty() {
            tracing::warn!("whoever reaches the RTSP port can publish; --user and --password ask for a password");
        }
        // No threads of their own for clients: everything is handled where `Clients` cares for them.
        server.thread_pool().context("RTSP: no thread pool")?.set_max_threads(0);
        let sessions = server.session_pool().context("RTSP: no session pool")?;
        let source = server.create_source(gio::Cancellable::NONE).map_err(|error| {
            anyhow!(
                "cannot listen on TCP {host}:{} for RTSP ({error}): choose another port with --rtsp-port, or leave \
                 RTSP out of --transport",
                config.port
            )
        })?;
        source.attach(Some(&context));
        let port = u16::try_from(server.bound_port()).context("RTSP: no port")?;

        let takes_basic = config.digest.is_none() || config.basic_auth;
        let rules = Rules { seats, takes_basic, paths: paths.clone(), inlet };
        let clients = Clients::new(&server, &gate, &context, Arc::clone(&served), rules);
        let playing = clients.sessions();
        let beat = Arc::<Beat>::default();
        let alive = Arc::clone(&beat);
        let care = glib::timeout_source_new(CARE_INTERVAL, Some("rtsp-care"), glib::Priority::DEFAULT, move || {
            alive.beat();
            sessions.cleanup();
            clients.care();
            glib::ControlFlow::Continue
        });
        care.attach(Some(&context));

        let (alive, ended) = mpsc::channel::<()>();
        let (run, owned) = (main_loop.clone(), context.clone());
        let thread = std::thread::Builder::new().name("rtsp".to_owned()).spawn(move || {
            let _alive = alive;
            let served = owned.with_thread_default(|| {
                run.run();
                close_all(&server, &owned);
            });
            if let Err(error) = served {
                tracing::error!(%error, "RTSP cannot be served");
            }
            care.destroy();
            source.destroy();
            // Before the end is told, whereupon the context goes: GLib before 2.80 uses it after it is freed where the
            // last of its sources go at the same time.
            drop((care, source, server, run, owned));
        })?;
        Ok(Self {
            port,
            paths,
            host,
            served,
            context,
            main_loop,
            thread,
            ended: Mutex::new(ended),
            stopping: AtomicBool::new(false),
            beat,
            sessions: playing,
        })
    }

    /// Where the stream is, for the announcement and for who cannot watch otherwise.
    pub fn info(&self, stream: usize) -> RtspInfo {
        let path = self.paths.to(Content { stream, mjpeg: false }).next().unwrap_or_default();
        RtspInfo { port: self.port, path: path.to_owned() }
    }

    pub fn stats(&self) -> RtspStats {
        let addresses = addresses(self.host);
        let urls = |mjpeg| {
            let paths = (0..self.served.len()).flat_map(|stream| self.paths.to(Content { stream, mjpeg }));
            let paths: Vec<_> = paths.collect();
            let url = |address: &IpAddr, path: &str| format!("rtsp://{address}:{}{path}", self.port);
            addresses.iter().flat_map(|address| paths.iter().map(move |path| url(address, path))).collect()
        };
        RtspStats {
            urls: urls(false),
            mjpeg_urls: urls(true),
            clients: self.viewers(),
            skipped: self.served.iter().map(|served| served.feeder.skipped()).sum(),
            sessions: lock(&self.sessions).clone(),
        }
    }
}

impl Output for RtspOutput {
    fn name(&self) -> &'static str {
        "RTSP"
    }

    fn place(&self, _here: IpAddr) -> Option<String> {
        self.stats().urls.into_iter().next()
    }

    fn announce(&self, announcement: &mut Announcement) {
        announcement.transports.push("rtsp".to_owned());
        announcement.rtsp = Some(self.info(0));
    }

    /// Of those who play previews the first is among the viewers of `JpegOutput`, as is what they are sent.
    fn tell(&self, stats: &mut Stats) {
        for Served { feeder, mjpeg } in self.served.iter() {
            let viewers = feeder.playing() + mjpeg.playing().saturating_sub(1);
            told_of(stats, &feeder.stream, viewers as u64, feeder.sent());
        }
        stats.rtsp = Some(self.stats());
    }

    fn beat(&self) -> Option<(&Arc<Beat>, Duration)> {
        Some((&self.beat, HANGS_AFTER))
    }

    fn viewers(&self) -> u64 {
        self.served.iter().map(|served| (served.feeder.playing() + served.mjpeg.playing()) as u64).sum()
    }

    fn has_died(&self) -> bool {
        self.thread.is_finished() && !self.stopping.load(Ordering::Relaxed)
    }

    fn shutdown(&self) {
        self.stopping.store(true, Ordering::Relaxed);
        let main_loop = self.main_loop.clone();
        // From within, as a loop that has not begun would not hear it.
        let quit = glib::idle_source_new(Some("rtsp-end"), glib::Priority::HIGH, move || {
            main_loop.quit();
            glib::ControlFlow::Break
        });
        quit.attach(Some(&self.context));
        if lock(&self.ended).recv_timeout(SHUTDOWN_LIMIT) == Err(mpsc::RecvTimeoutError::Timeout) {
            tracing::warn!("the RTSP sessions could not be closed in time");
        }
    }
}

impl Drop for RtspOutput {
    fn drop(&mut self) {
        if !self.thread.is_finished() {
            self.shutdown();
        }
    }
}

/// Closes every connection, and lets the media behind them end.
fn close_all(server: &rtsp::RTSPServer, context: &glib::MainContext) {
    for client in server.client_filter(None) {
        client.close();
    }
    // Bounded, as new ones may come all the time.
    for _ in 0..1_000 {
        if !context.iteration(false) {
            break;
        }
    }
}

/// Addresses by which others reach this machine; looked up each time, as networks come and go.
pub(crate) fn addresses(host: IpAddr) -> Vec<IpAddr> {
    if !host.is_unspecified() {
        return vec![host];
    }
    let all = net::interfaces().unwrap_or_default();
    let addresses: Vec<_> =
        interfaces::select(&all, &[], host).into_iter().map(|target| target.address.into()).collect();
    if addresses.is_empty() { vec![Ipv4Addr::LOCALHOST.into()] } else { addresses }
}
