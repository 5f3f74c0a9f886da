//! A decoder that takes pictures and does not come back, as a driver that hangs. It is registered in this process, so
//! this file has no other test.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use gstreamer as gst;
use gstreamer::glib;
use gstreamer::prelude::*;
use gstreamer::subclass::prelude::*;
use rov_tests::in_process::Serving;
use rov_tests::jpeg;
use rov_tests::wait;
use tokio::runtime::Runtime;

static HANGS: AtomicBool = AtomicBool::new(false);
static RELEASED: AtomicBool = AtomicBool::new(false);

fn hang() -> Result<gst::FlowSuccess, gst::FlowError> {
    HANGS.store(true, Ordering::Relaxed);
    while !RELEASED.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(20));
    }
    Err(gst::FlowError::Flushing)
}

mod imp {
    use super::*;

    pub struct HungDecoder {
        pads: [gst::Pad; 2],
    }

    #[glib::object_subclass]
    impl ObjectSubclass for HungDecoder {
        const NAME: &'static str = "RovTestHungDecoder";
        type Type = super::HungDecoder;
        type ParentType = gst::Element;

        fn with_class(class: &Self::Class) -> Self {
            let [sink, src] = ["sink", "src"].map(|name| class.pad_template(name).expect("a template"));
            let sink = gst::Pad::builder_from_template(&sink).chain_function(|_, _, _| hang()).build();
            Self { pads: [sink, gst::Pad::builder_from_template(&src).build()] }
        }
    }

    impl ObjectImpl for HungDecoder {
        fn constructed(&self) {
            self.parent_constructed();
            self.pads.iter().for_each(|pad| self.obj().add_pad(pad).expect("a new name"));
        }
    }

    impl GstObjectImpl for HungDecoder {}

    impl ElementImpl for HungDecoder {
        fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
            static METADATA: std::sync::OnceLock<gst::subclass::ElementMetadata> = std::sync::OnceLock::new();
            Some(METADATA.get_or_init(|| {
                let kind = "Codec/Decoder/Video/Hardware";
                gst::subclass::ElementMetadata::new("Hung decoder", kind, "Hangs", "rov-tests")
            }))
        }

        fn pad_templates() -> &'static [gst::PadTemplate] {
            static TEMPLATES: std::sync::OnceLock<Vec<gst::PadTemplate>> = std::sync::OnceLock::new();
            TEMPLATES.get_or_init(|| {
                let template = |name, direction, caps: &str| {
                    let caps = caps.parse().expect("caps");
                    gst::PadTemplate::new(name, direction, gst::PadPresence::Always, &caps).expect("a template")
                };
                vec![
                    template("sink", gst::PadDirection::Sink, "video/x-h264"),
                    template("src", gst::PadDirection::Src, "video/x-raw"),
                ]
            })
        }
    }
}

glib::wrapper! {
    pub struct HungDecoder(ObjectSubclass<imp::HungDecoder>) @extends gst::Element, gst::Object;
}

#[test]
fn pictures_are_made_by_another_decoder_where_one_hangs_and_does_not_stop() {
    gst::init().expect("GStreamer");
    let rank = gst::Rank::PRIMARY + 1_000;
    gst::Element::register(None, "rovhungdecoder", rank, HungDecoder::static_type()).expect("a new name");
    let runtime = Runtime::new().expect("a runtime");
    let server = Serving::start(&runtime, &["--source", "test", "--width", "320", "--height", "240"], |_| ());
    let snapshot = || {
        let answer = jpeg::get(server.address, "/snapshot.jpg");
        (answer.status == 200).then(|| answer.body())
    };
    let picture = wait::until("a picture", 2 * wait::START, snapshot);
    assert_eq!(jpeg::decode(&picture).0, 320);
    assert!(HANGS.load(Ordering::Relaxed), "it was tried first");
    server.stop(&runtime);
    RELEASED.store(true, Ordering::Relaxed);
}
