//! An RTSP camera: gst-rtsp-server in this process, on loopback, at a port that the system chose.

use gstreamer as gst;
use gstreamer::glib;
use gstreamer_rtsp_server as rtsp;
use gstreamer_rtsp_server::prelude::*;

pub struct Camera {
    context: glib::MainContext,
    main_loop: glib::MainLoop,
    thread: Option<std::thread::JoinHandle<()>>,
    /// As `rtsp://127.0.0.1:PORT/cam`.
    pub url: String,
}

impl Camera {
    /// `launch` is a bin that ends in a payloader named `pay0`, as `( videotestsrc ! x264enc ! rtph264pay name=pay0 )`.
    /// All clients share one.
    pub fn start(launch: &str) -> Self {
        gst::init().expect("GStreamer");
        let context = glib::MainContext::new();
        let server = rtsp::RTSPServer::new();
        server.set_address("127.0.0.1");
        server.set_service("0");
        let factory = rtsp::RTSPMediaFactory::new();
        factory.set_launch(launch);
        factory.set_shared(true);
        server.mount_points().expect("mount points").add_factory("/cam", factory);
        let main_loop = glib::MainLoop::new(Some(&context), false);
        server.attach(Some(&context)).expect("a port");
        let url = format!("rtsp://127.0.0.1:{}/cam", server.bound_port());
        let (run, owned) = (main_loop.clone(), context.clone());
        let thread = std::thread::spawn(move || {
            let served = owned.with_thread_default(|| run.run());
            served.expect("the context belongs to this thread");
            drop(server);
        });
        Self { context, main_loop, thread: Some(thread), url }
    }
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
