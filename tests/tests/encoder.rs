//! An encoder that works on trial, alone, and hangs at work. It is registered in this process, so this file has no
//! other test.

use std::ffi::OsString;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use gstreamer as gst;
use gstreamer::glib;
use gstreamer::prelude::*;
use gstreamer::subclass::prelude::*;
use rov_common::api::StreamState;
use rov_server::config::Config;
use rov_server::config_file;
use rov_server::server::Server;
use rov_tests::http;
use rov_tests::wait::until_true;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

/// In the table before x264enc, and on no machine that runs these tests.
const ELEMENT: &str = "mpph264enc";

static MADE: AtomicU32 = AtomicU32::new(0);
static RELEASED: AtomicBool = AtomicBool::new(false);

mod imp {
    use super::*;

    /// x264enc; all but the first made take a picture and never come back.
    #[derive(Default)]
    pub struct Hanging;

    #[glib::object_subclass]
    impl ObjectSubclass for Hanging {
        const NAME: &'static str = "RovTestHangingEncoder";
        type Type = super::Hanging;
        type ParentType = gst::Bin;
    }

    impl ObjectImpl for Hanging {
        fn constructed(&self) {
            self.parent_constructed();
            let hangs = MADE.fetch_add(1, Ordering::Relaxed) > 0;
            let encoder = gst::ElementFactory::make("x264enc").property_from_str("tune", "zerolatency");
            let encoder = encoder.build().expect("x264enc");
            self.obj().add(&encoder).expect("an empty bin");
            for name in ["sink", "src"] {
                let pad = encoder.static_pad(name).expect("a pad of x264enc");
                if hangs && name == "sink" {
                    pad.add_probe(gst::PadProbeType::BUFFER, |_, _| {
                        while !RELEASED.load(Ordering::Relaxed) {
                            std::thread::sleep(Duration::from_millis(20));
                        }
                        gst::PadProbeReturn::Ok
                    });
                }
                let ghost = gst::GhostPad::builder_with_target(&pad).expect("an unlinked pad").name(name).build();
                self.obj().add_pad(&ghost).expect("a new name");
            }
        }
    }

    impl GstObjectImpl for Hanging {}

    impl ElementImpl for Hanging {
        fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
            static METADATA: std::sync::OnceLock<gst::subclass::ElementMetadata> = std::sync::OnceLock::new();
            Some(METADATA.get_or_init(|| {
                gst::subclass::ElementMetadata::new("Hanging encoder", "Codec/Encoder/Video", "Hangs", "rov-tests")
            }))
        }
    }

    impl BinImpl for Hanging {}
}

glib::wrapper! {
    pub struct Hanging(ObjectSubclass<imp::Hanging>) @extends gst::Bin, gst::Element, gst::Object;
}

#[test]
fn an_encoder_that_hangs_at_work_is_replaced_by_the_next_and_holds_up_no_other_stream() {
    gst::init().expect("GStreamer");
    gst::Element::register(None, ELEMENT, gst::Rank::NONE, Hanging::static_type()).expect("a new name");
    let args = "rov-server --host 127.0.0.1 --signal-port 0 --rtsp-port 0 --no-discovery --always-encode --source test \
                --width 320 --height 240 --stream2 160x120@15";
    let options = config_file::read(args.split_whitespace().map(OsString::from)).expect("valid options");
    let mut config = Config::new(&options).expect("a valid configuration");
    config.cameras[0].streams[1].always_encode = true;
    let runtime = Runtime::new().expect("a runtime");
    let server = runtime.block_on(Server::bind(config)).expect("free ports");
    let address = server.http_addr().expect("the address of HTTP");
    let stop = CancellationToken::new();
    let run = runtime.spawn(server.run(stop.clone()));
    let [first, second] = [0, 1].map(|at| move || http::stats(address).streams.remove(at));
    // Beside the first stream's it does not work on trial, as where a machine has one encoder: five seconds.
    until_true("the second stream", Duration::from_secs(30), || second().frames > 10);
    assert_eq!((second().encoder.as_str(), first().frames), ("x264enc", 0), "one hangs and holds up no other");
    // Five seconds until it is taken to hang, two for its pipeline to stop.
    until_true("the next encoder", Duration::from_secs(30), || {
        let stream = first();
        stream.state == StreamState::Running && stream.encoder == "x264enc"
    });
    assert_eq!(MADE.load(Ordering::Relaxed), 5, "alone, two beside each other, one beside x264enc, one at work");
    assert_eq!((first().restarts, second().restarts, second().encoder.as_str()), (1, 1, "x264enc"));
    stop.cancel();
    let ended = runtime.block_on(async { tokio::time::timeout(Duration::from_secs(10), run).await });
    RELEASED.store(true, Ordering::Relaxed);
    ended.expect("the server ends").expect("no panic").expect("it ends well");
}
