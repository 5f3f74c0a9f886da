//! An RTSP camera: gst-rtsp-server in this process, on loopback, at a port that the system chose.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use gstreamer as gst;
use gstreamer::glib;
use gstreamer_rtsp_server as rtsp;
use gstreamer_rtsp_server::gst_rtsp;
use gstreamer_rtsp_server::prelude::*;
use rov_common::stamp::Stamp;

/// What a camera is like; by default one for everybody, by UDP and TCP, at a port that the system chose.
#[derive(Clone, Copy, Debug, Default)]
pub struct Settings<'a> {
    /// 0: one that the system chose.
    pub port: u16,
    pub tcp_only: bool,
    /// User and password, and whether they go by digest.
    pub user: Option<(&'a str, &'a str, bool)>,
}

pub struct Camera {
    context: glib::MainContext,
    main_loop: glib::MainLoop,
    thread: Option<std::thread::JoinHandle<()>>,
    frozen: Arc<AtomicBool>,
    /// As `rtsp://127.0.0.1:PORT/cam`.
    pub url: String,
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
        let frozen = Arc::new(AtomicBool::new(false));
        let freezes = Arc::clone(&frozen);
        factory.connect_media_configure(move |_, media| {
            let bin = media.element().downcast::<gst::Bin>().expect("a bin");
            if let Some(pad) = bin.by_name("mark").and_then(|element| element.static_pad("src")) {
                mark(&pad, Arc::clone(&freezes));
            }
        });
        if settings.tcp_only {
            factory.set_protocols(gst_rtsp::RTSPLowerTrans::TCP);
        }
        if let Some(user) = settings.user {
            protect(&server, &factory, user);
        }
        server.mount_points().expect("mount points").add_factory("/cam", factory);
        let main_loop = glib::MainLoop::new(Some(&context), false);
        server.attach(Some(&context)).expect("a port");
        let url = format!("rtsp://127.0.0.1:{}/cam", server.bound_port());
        let (run, owned) = (main_loop.clone(), context.clone());
        let thread = std::thread::spawn(move || {
            let served = owned.with_thread_default(|| run.run());
            served.expect("the context belongs to this thread");
            // Those that play would go on without the server.
            server.client_filter(Some(&mut |_, client| {
                client.close();
                rtsp::RTSPFilterResult::Remove
            }));
        });
        Self { context, main_loop, thread: Some(thread), frozen, url }
    }

    /// Gives no pictures any more, although it is there: one with an element named `mark`.
    pub fn freeze(&self, frozen: bool) {
        self.frozen.store(frozen, Ordering::Relaxed);
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
        gst::PadProbeReturn::Ok
    });
}

/// Lets only this user in.
fn protect(server: &rtsp::RTSPServer, factory: &rtsp::RTSPMediaFactory, (user, password, digest): (&str, &str, bool)) {
    let role =
        gst::Structure::builder("user").field("media.factory.access", true).field("media.factory.construct", true);
    factory.add_role_from_structure(&role.build());
    let token = rtsp::RTSPToken::builder().field("media.factory.role", "user").build();
    let auth = rtsp::RTSPAuth::new();
    if digest {
        auth.set_supported_methods(gst_rtsp::RTSPAuthMethod::Digest);
        auth.add_digest(user, password, &token);
    } else {
        auth.add_basic(&rtsp::RTSPAuth::make_basic(user, password), &token);
    }
    server.set_auth(Some(&auth));
}

impl Drop for Camera {
    fn drop(&mut self) {
        // From within, as a loop that has not begun would not hear it.
        let main_loop = self.main_loop.clone();
        self.context.invoke(move || main_loop.quit());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
