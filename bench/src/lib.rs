//! The picture that is measured: how it is drawn, how it is judged, and the GStreamer source that gives it.
//!
//! As a plugin (`librov_bench.so` in `GST_PLUGIN_PATH`) it adds the element `rovbenchsrc` to any program; `rov-bench`,
//! the benchmark itself, is the binary of this crate.

pub mod clock;
pub mod picture;
pub mod source;

use gstreamer as gst;

gst::plugin_define!(
    rov_bench,
    "Marked test pictures for latency measurements",
    register_plugin,
    env!("CARGO_PKG_VERSION"),
    "MIT/X11",
    "rov-streamer",
    "rov-streamer",
    "https://github.com/rov-streamer/rov-streamer"
);

fn register_plugin(plugin: &gst::Plugin) -> Result<(), gst::glib::BoolError> {
    source::register(Some(plugin))
}
