//! The element `rovbenchunits`: takes the place of a decoder where pictures are too large to be decoded. It writes down
//! each access unit that comes, by a hash of its slices, and gives a tiny grey picture for it.

use std::hash::{DefaultHasher, Hasher};
use std::io::Write;

use gstreamer as gst;
use gstreamer::glib;
use gstreamer::prelude::*;
use gstreamer::subclass::prelude::*;
use gstreamer_base as gst_base;
use gstreamer_base::subclass::prelude::*;

pub const ELEMENT: &str = "rovbenchunits";

const SIDE: i32 = 64;
const BYTES: usize = (SIDE * SIDE * 3 / 2) as usize;

glib::wrapper! {
    pub struct Units(ObjectSubclass<imp::Units>) @extends gst_base::BaseTransform, gst::Element, gst::Object;
}

/// Makes the element known to this process.
pub fn register() -> Result<(), glib::BoolError> {
    gst::Element::register(None, ELEMENT, gst::Rank::NONE, Units::static_type())
}

/// Of the slices of an access unit in Annex B form: parameter sets and the like may be added on the way, slices may not
/// change.
pub fn hash(unit: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    for nal in rov_common::codec::nal_units(unit) {
        let is_slice = nal.first().is_some_and(|header| matches!(header & 0x1f, 1 | 5));
        if is_slice {
            hasher.write(nal);
        }
    }
    hasher.finish()
}

mod imp {
    use std::sync::LazyLock;

    use super::*;

    #[derive(Default)]
    pub struct Units;

    #[glib::object_subclass]
    impl ObjectSubclass for Units {
        const NAME: &'static str = "RovBenchUnits";
        type Type = super::Units;
        type ParentType = gst_base::BaseTransform;
    }

    impl ObjectImpl for Units {}

    impl GstObjectImpl for Units {}

    impl ElementImpl for Units {
        fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
            static METADATA: LazyLock<gst::subclass::ElementMetadata> = LazyLock::new(|| {
                gst::subclass::ElementMetadata::new(
                    "Access units by hash",
                    "Codec/Decoder/Video",
                    "Writes down which access units come",
                    "rov-streamer",
                )
            });
            Some(&METADATA)
        }

        fn pad_templates() -> &'static [gst::PadTemplate] {
            static TEMPLATES: LazyLock<Vec<gst::PadTemplate>> = LazyLock::new(|| {
                let template = |name, direction, caps: gst::Caps| {
                    gst::PadTemplate::new(name, direction, gst::PadPresence::Always, &caps)
                };
                let sink = template("sink", gst::PadDirection::Sink, coded());
                let src = template("src", gst::PadDirection::Src, raw());
                sink.into_iter().chain(src).collect()
            });
            &TEMPLATES
        }
    }

    impl BaseTransformImpl for Units {
        const MODE: gst_base::subclass::BaseTransformMode = gst_base::subclass::BaseTransformMode::NeverInPlace;
        const PASSTHROUGH_ON_SAME_CAPS: bool = false;
        const TRANSFORM_IP_ON_PASSTHROUGH: bool = false;

        fn transform_caps(
            &self,
            direction: gst::PadDirection,
            _: &gst::Caps,
            filter: Option<&gst::Caps>,
        ) -> Option<gst::Caps> {
            let caps = if direction == gst::PadDirection::Sink { raw() } else { coded() };
            Some(filter.map_or_else(|| caps.clone(), |filter| filter.intersect(&caps)))
        }

        fn transform_size(&self, _: gst::PadDirection, _: &gst::Caps, _: usize, _: &gst::Caps) -> Option<usize> {
            Some(BYTES)
        }

        fn transform(
            &self,
            unit: &gst::Buffer,
            picture: &mut gst::BufferRef,
        ) -> Result<gst::FlowSuccess, gst::FlowError> {
            let at_us = rov_bench::clock::now_us();
            let unit = unit.map_readable().map_err(|_| gst::FlowError::Error)?;
            let line = format!("unit {} {at_us}", hash(&unit));
            if writeln!(std::io::stdout(), "{line}").is_err() {
                // Who reads it has ended.
                return Err(gst::FlowError::Eos);
            }
            picture.map_writable().map_err(|_| gst::FlowError::Error)?.fill(128);
            Ok(gst::FlowSuccess::Ok)
        }
    }

    fn coded() -> gst::Caps {
        let caps = gst::Caps::builder("video/x-h264");
        caps.field("stream-format", "byte-stream").field("alignment", "au").build()
    }

    fn raw() -> gst::Caps {
        gst::Caps::builder("video/x-raw")
            .field("format", "I420")
            .field("width", SIDE)
            .field("height", SIDE)
            .field("framerate", gst::Fraction::new(60, 1))
            .build()
    }
}
