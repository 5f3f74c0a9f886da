//! An RTSP camera: gst-rtsp-server in this process, on loopback.

use std::sync::{Arc, Mutex};

use gstreamer as gst;
use gstreamer::glib;
use gstreamer_rtsp_server as rtsp;
use gstreamer_rtsp_server::gst_rtsp::{RTSPAuthMethod, RTSPLowerTrans};
use gstreamer_rtsp_server::prelude::*;
use rov_common::sync::lock;

/// The access units that a camera has sent, in Annex B form.
type Sent = Arc<Mutex<Vec<Vec<u8>>>>;

pub struct Camera {
    context: glib::MainContext,
    main_loop: glib::MainLoop,
    server: rtsp::RTSPServer,
    /// The element named `tap`, of the media that is served now.
    tap: Arc<Mutex<Option<gst::Element>>>,
    sent: Sent,
    thread: Option<std::thread::JoinHandle<()>>,
    /// As `rtsp://127.0.0.1:PORT/cam`.
    pub url: String,
    pub port: u16,
}

impl Camera {
    /// `launch` is a bin that ends in a payloader named `pay0`, as `( videotestsrc ! x264enc ! rtph264pay name=pay0 )`.
    /// All clients share one. At a port that the system chose.
    pub fn start(launch: &str) -> Self {
        Self::start_at(0, launch, None)
    }

    /// As [`Self::start`], at a port of before, or for those alone who give this user and password.
    pub fn start_at(port: u16, launch: &str, access: Option<(&str, &str)>) -> Self {
        Self::serve(port, launch, |server, factory| {
            let Some((user, password)) = access else { return };
            let auth = rtsp::RTSPAuth::new();
            auth.set_supported_methods(RTSPAuthMethod::Digest);
            let token = rtsp::RTSPToken::builder().field("media.factory.role", "viewer").build();
            auth.add_digest(user, password, &token);
            let allowed = gst::Structure::builder("viewer")
                .field("media.factory.access", true)
                .field("media.factory.construct", true)
                .build();
            factory.add_role_from_structure(&allowed);
            server.set_auth(Some(&auth));
        })
    }

    /// As [`Self::start`], for those alone who take the media by TCP.
    pub fn by_tcp(launch: &str) -> Self {
        Self::serve(0, launch, |_, factory| factory.set_protocols(RTSPLowerTrans::TCP))
    }

    fn serve(port: u16, launch: &str, set_up: impl FnOnce(&rtsp::RTSPServer, &rtsp::RTSPMediaFactory)) -> Self {
        gst::init().expect("GStreamer");
        let context = glib::MainContext::new();
        let server = rtsp::RTSPServer::new();
        server.set_address("127.0.0.1");
        server.set_service(&port.to_string());
        let factory = rtsp::RTSPMediaFactory::new();
        factory.set_launch(launch);
        factory.set_shared(true);
        let (tap, sent) = (Arc::default(), Sent::default());
        listen_in(&factory, &tap, &sent);
        set_up(&server, &factory);
        server.mount_points().expect("mount points").add_factory("/cam", factory);
        let main_loop = glib::MainLoop::new(Some(&context), false);
        server.attach(Some(&context)).expect("a port");
        let port = u16::try_from(server.bound_port()).expect("a port");
        let url = format!("rtsp://127.0.0.1:{port}/cam");
        let (run, owned) = (main_loop.clone(), context.clone());
        let thread = std::thread::spawn(move || {
            let served = owned.with_thread_default(|| run.run());
            served.expect("the context belongs to this thread");
        });
        Self { context, main_loop, server, tap, sent, thread: Some(thread), url, port }
    }
}

impl Camera {
    /// Sends nothing any more, or sends again, with every connection kept. `launch` must have a `valve name=tap`.
    pub fn mute(&self, mute: bool) {
        lock(&self.tap).as_ref().expect("a client that plays, and an element named tap").set_property("drop", mute);
    }

    /// What has passed the element named `tap`.
    pub fn sent(&self) -> Vec<Vec<u8>> {
        lock(&self.sent).clone()
    }
}

fn listen_in(factory: &rtsp::RTSPMediaFactory, tap: &Arc<Mutex<Option<gst::Element>>>, sent: &Sent) {
    let (tap, sent) = (Arc::clone(tap), Arc::clone(sent));
    factory.connect_media_configure(move |_, media| {
        let bin = media.element().downcast::<gst::Bin>().expect("a bin");
        let Some(element) = bin.by_name("tap") else { return };
        let sent = Arc::clone(&sent);
        element.static_pad("src").expect("a pad").add_probe(gst::PadProbeType::BUFFER, move |_, info| {
            if let Some(map) = info.buffer().and_then(|buffer| buffer.map_readable().ok()) {
                lock(&sent).push(map.to_vec());
            }
            gst::PadProbeReturn::Ok
        });
        *lock(&tap) = Some(element);
    });
}

impl Drop for Camera {
    /// Every connection is cut, as by a camera that restarts.
    fn drop(&mut self) {
        // From within, as a loop that has not begun would not hear it.
        let (main_loop, server) = (self.main_loop.clone(), self.server.clone());
        self.context.invoke(move || {
            server.client_filter(Some(&mut |_, _| rtsp::RTSPFilterResult::Remove));
            main_loop.quit();
        });
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
