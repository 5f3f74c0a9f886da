//! An RTSP camera: gst-rtsp-server in this process, on loopback.

use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use gstreamer as gst;
use gstreamer::glib;
use gstreamer_rtsp_server as rtsp;
use gstreamer_rtsp_server::gst_rtsp::{RTSPAuthMethod, RTSPLowerTrans};
use gstreamer_rtsp_server::prelude::*;
use rov_common::stamp::Stamp;
use rov_common::sync::lock;

/// What a camera is like; by default one for everybody, by UDP and TCP, at a port that the system chose.
#[derive(Clone, Copy, Debug, Default)]
pub struct Settings<'a> {
    /// 0: one that the system chose.
    pub port: u16,
    pub tcp_only: bool,
    /// User and password, and whether they go by digest.
    pub user: Option<(&'a str, &'a str, bool)>,
    /// By `rtsps` alone, with a certificate that nobody trusts.
    pub tls: bool,
}

/// Certificate and key of a camera by TLS.
pub const CERTIFICATE: &str = include_str!("camera.pem");
/// SHA-256 of the certificate.
pub const FINGERPRINT: &str = "8d42a6945b29765eb704b292d2b799e25307a3a85ec985495ec29100f57e356e";

pub struct Camera {
    context: glib::MainContext,
    main_loop: glib::MainLoop,
    server: rtsp::RTSPServer,
    thread: Option<std::thread::JoinHandle<()>>,
    seen: Seen,
    /// As `rtsp://127.0.0.1:PORT/cam`.
    pub url: String,
    pub port: u16,
}

/// What the media and the test share.
#[derive(Clone, Default)]
struct Seen {
    frozen: Arc<AtomicBool>,
    /// The element named `tap`, of the media that is served now.
    tap: Arc<Mutex<Option<gst::Element>>>,
    /// The access units that have passed it, in Annex B form.
    sent: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Camera {
    /// `launch` is a bin that ends in a payloader named `pay0`, as `( videotestsrc ! x264enc ! rtph264pay name=pay0 )`.
    /// All clients share one. The pictures behind an element named `mark`, in I420, get the mark with the time.
    pub fn start(launch: &str) -> Self {
        Self::with(launch, Settings::default())
    }

    /// As [`Self::start`], with `settings`.
    pub fn with(launch: &str, settings: Settings<'_>) -> Self {
        gst::init().expect("GStreamer");
        let context = glib::MainContext::new();
        let server = rtsp::RTSPServer::new();
        server.set_address("127.0.0.1");
        server.set_service(&settings.port.to_string());
        let factory = rtsp::RTSPMediaFactory::new();
        factory.set_launch(launch);
        factory.set_shared(true);
        let seen = Seen::default();
        let watched = seen.clone();
        factory.connect_media_configure(move |_, media| {
            let bin = media.element().downcast::<gst::Bin>().expect("a bin");
            let source_pad = |name| bin.by_name(name).and_then(|element| element.static_pad("src"));
            if let Some(pad) = source_pad("mark") {
                mark(&pad, Arc::clone(&watched.frozen));
            }
            if let Some(pad) = source_pad("tap") {
                listen_in(&pad, Arc::clone(&watched.sent));
                *lock(&watched.tap) = bin.by_name("tap");
            }
        });
        if settings.tcp_only {
            factory.set_protocols(RTSPLowerTrans::TCP);
        }
        if settings.user.is_some() || settings.tls {
            protect(&server, &factory, settings);
        }
        server.mount_points().expect("mount points").add_factory("/cam", factory);
        let main_loop = glib::MainLoop::new(Some(&context), false);
        server.attach(Some(&context)).expect("a port");
        let port = u16::try_from(server.bound_port()).expect("a port");
        let scheme = if settings.tls { "rtsps" } else { "rtsp" };
        let url = format!("{scheme}://127.0.0.1:{port}/cam");
        let (run, owned) = (main_loop.clone(), context.clone());
        let thread = std::thread::spawn(move || {
            owned.with_thread_default(|| run.run()).expect("the context belongs to this thread");
        });
        Self { context, main_loop, server, thread: Some(thread), seen, url, port }
    }

    /// Gives no pictures any more, although it is there: one with an element named `mark`.
    pub fn freeze(&self, frozen: bool) {
        self.seen.frozen.store(frozen, Ordering::Relaxed);
    }

    /// Sends nothing any more, or sends again, with every connection kept: one with a `valve name=tap`.
    pub fn mute(&self, mute: bool) {
        let tap = lock(&self.seen.tap);
        tap.as_ref().expect("a client that plays, and an element named tap").set_property("drop", mute);
    }

    /// What has passed the element named `tap`.
    pub fn sent(&self) -> Vec<Vec<u8>> {
        lock(&self.seen.sent).clone()
    }
}

/// A camera program that writes a raw stream to a pipe or a connection, in this process. What is not read waits, and
/// then comes at once.
pub struct PipedCamera {
    pipeline: gst::Element,
    _output: OwnedFd,
}

impl PipedCamera {
    /// `launch` ends in an encoder; the pictures behind an element named `mark` get the mark.
    pub fn start(launch: &str, output: impl Into<OwnedFd>) -> Self {
        gst::init().expect("GStreamer");
        let output = output.into();
        let fd = output.as_raw_fd();
        let text = format!(
            "{launch} ! queue max-size-buffers=0 max-size-bytes=0 max-size-time=0 ! fdsink fd={fd} sync=false \
             async=false"
        );
        let pipeline = gst::parse::launch(&text).expect("a pipeline");
        let marked = pipeline.downcast_ref::<gst::Bin>().and_then(|bin| bin.by_name("mark")?.static_pad("src"));
        mark(&marked.expect("an element named mark"), Arc::default());
        pipeline.set_state(gst::State::Playing).expect("it starts");
        Self { pipeline, _output: output }
    }
}

impl Drop for PipedCamera {
    fn drop(&mut self) {
        let _ = self.pipeline.set_state(gst::State::Null);
    }
}

/// Draws number and time into each picture, as rov-server does.
fn mark(pad: &gst::Pad, frozen: Arc<AtomicBool>) {
    let frame = AtomicU32::new(0);
    pad.add_probe(gst::PadProbeType::BUFFER, move |pad, info| {
        if frozen.load(Ordering::Relaxed) {
            return gst::PadProbeReturn::Drop;
        }
        let caps = pad.current_caps().expect("caps before pictures");
        let size = |field| caps.structure(0).and_then(|s| s.get::<i32>(field).ok()).expect("a size") as usize;
        let (width, height) = (size("width"), size("height"));
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970");
        let stamp = Stamp { frame: frame.fetch_add(1, Ordering::Relaxed), time_us: now.as_micros() as u64 };
        let mut picture = info.buffer_mut().expect("a picture").make_mut().map_writable().expect("memory");
        assert!(stamp.draw(&mut picture, width.next_multiple_of(4), width, height), "the picture is too small");
        // Grey: what browsers give is RGB, where the brightness of strong colours is cut off.
        picture[width.next_multiple_of(4) * height.next_multiple_of(2)..].fill(128);
        gst::PadProbeReturn::Ok
    });
}

fn listen_in(pad: &gst::Pad, sent: Arc<Mutex<Vec<Vec<u8>>>>) {
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        if let Some(map) = info.buffer().and_then(|buffer| buffer.map_readable().ok()) {
            lock(&sent).push(map.to_vec());
        }
        gst::PadProbeReturn::Ok
    });
}

/// Lets only the user of `settings` in, if there is one, and speaks TLS if they say so.
fn protect(server: &rtsp::RTSPServer, factory: &rtsp::RTSPMediaFactory, settings: Settings<'_>) {
    let role =
        gst::Structure::builder("user").field("media.factory.access", true).field("media.factory.construct", true);
    factory.add_role_from_structure(&role.build());
    let mut token = rtsp::RTSPToken::builder().field("media.factory.role", "user").build();
    let auth = rtsp::RTSPAuth::new();
    match settings.user {
        Some((user, password, true)) => {
            auth.set_supported_methods(RTSPAuthMethod::Digest);
            auth.add_digest(user, password, &token);
        }
        Some((user, password, false)) => auth.add_basic(&rtsp::RTSPAuth::make_basic(user, password), &token),
        None => auth.set_default_token(Some(&mut token)),
    }
    if settings.tls {
        let certificate = rtsp::gio::TlsCertificate::from_pem(CERTIFICATE).expect("a certificate");
        auth.set_tls_certificate(Some(&certificate));
    }
    server.set_auth(Some(&auth));
}

impl Drop for Camera {
    /// Every connection is cut, as by a camera that restarts.
    fn drop(&mut self) {
        // From within, as a loop that has not begun would not hear it.
        let (main_loop, server) = (self.main_loop.clone(), self.server.clone());
        self.context.invoke(move || {
            // Those that play would go on without the server.
            server.client_filter(Some(&mut |_, client| {
                client.close();
                rtsp::RTSPFilterResult::Remove
            }));
            main_loop.quit();
        });
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
