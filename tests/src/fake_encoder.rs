//! An encoder that works on trial and not at work. It is registered in this process, for all that is in it: a file of
//! tests that has one has no other test.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use gstreamer as gst;
use gstreamer::glib;
use gstreamer::prelude::*;
use gstreamer::subclass::prelude::*;

/// In the table before x264enc, and on no machine that runs these tests.
pub const ELEMENT: &str = "mpph264enc";

/// What becomes of one, once so many pictures came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Works,
    /// It takes a picture and does not come back before [`release`].
    Hangs(u32),
    /// It says that it has failed.
    Fails(u32),
    /// It says that it has failed after [`fail`].
    FailsWhenTold,
    /// It takes no more, and says nothing.
    Refuses(u32),
    /// It is not made before [`release`].
    OpensLate,
    /// It works, and does not end before [`release`].
    EndsLate,
    /// It works where no other one is at work, as where hardware encodes one stream.
    Alone,
}

static FATES: OnceLock<fn(u32) -> Fate> = OnceLock::new();
static MADE: AtomicU32 = AtomicU32::new(0);
static AT_WORK: AtomicU32 = AtomicU32::new(0);
static RELEASED: AtomicBool = AtomicBool::new(false);
static FAILS: AtomicBool = AtomicBool::new(false);
static MISSES: AtomicBool = AtomicBool::new(false);

/// Registers it; `fates`: of the first that is made (0), the second, and so on.
pub fn register(fates: fn(u32) -> Fate) {
    gst::init().expect("GStreamer");
    FATES.set(fates).expect("once in a process");
    gst::Element::register(None, ELEMENT, gst::Rank::NONE, FakeEncoder::static_type()).expect("a new name");
}

/// How many were made.
pub fn made() -> u32 {
    MADE.load(Ordering::Relaxed)
}

/// Ends what hangs.
pub fn release() {
    RELEASED.store(true, Ordering::Relaxed);
}

/// Those that wait for it fail at their next pictures.
pub fn fail() {
    FAILS.store(true, Ordering::Relaxed);
}

/// The next request for a keyframe does nothing, as where hardware is busy.
pub fn miss_next_request() {
    MISSES.store(true, Ordering::Relaxed);
}

/// Whether that has happened.
pub fn has_missed_request() -> bool {
    !MISSES.load(Ordering::Relaxed)
}

/// From now on what hangs hangs again.
pub fn hold() {
    RELEASED.store(false, Ordering::Relaxed);
}

fn wait_for_release() {
    while !RELEASED.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// By a probe at its input.
fn meet(fate: Fate, input: &gst::Pad, at: u32) -> Option<Result<gst::FlowSuccess, gst::FlowError>> {
    match fate {
        Fate::Hangs(after) if at >= after => {
            wait_for_release();
            None
        }
        Fate::Fails(after) if at >= after => fails(input, "it has failed"),
        Fate::FailsWhenTold if FAILS.load(Ordering::Relaxed) => fails(input, "it has failed"),
        Fate::Alone if at == 0 && AT_WORK.fetch_add(1, Ordering::Relaxed) > 0 => fails(input, "another one is at work"),
        Fate::Refuses(after) if at >= after => Some(Err(gst::FlowError::NotNegotiated)),
        _ => None,
    }
}

fn fails(input: &gst::Pad, reason: &str) -> Option<Result<gst::FlowSuccess, gst::FlowError>> {
    if let Some(encoder) = input.parent_element() {
        gst::element_error!(encoder, gst::StreamError::Encode, ("{reason}"));
    }
    Some(Err(gst::FlowError::Error))
}

mod imp {
    use super::*;

    /// x264enc, which meets its fate.
    #[derive(Default)]
    pub struct FakeEncoder {
        /// It has got a picture.
        works: Arc<AtomicBool>,
        fate: OnceLock<Fate>,
    }

    impl Drop for FakeEncoder {
        fn drop(&mut self) {
            AT_WORK.fetch_sub(u32::from(self.works.load(Ordering::Relaxed)), Ordering::Relaxed);
        }
    }

    #[glib::object_subclass]
    impl ObjectSubclass for FakeEncoder {
        const NAME: &'static str = "RovTestFakeEncoder";
        type Type = super::FakeEncoder;
        type ParentType = gst::Bin;
    }

    impl ObjectImpl for FakeEncoder {
        fn constructed(&self) {
            self.parent_constructed();
            let fate = FATES.get().expect("registered")(MADE.fetch_add(1, Ordering::Relaxed));
            self.fate.set(fate).expect("made once");
            if fate == Fate::OpensLate {
                wait_for_release();
            }
            let encoder = gst::ElementFactory::make("x264enc").property_from_str("tune", "zerolatency");
            let encoder = encoder.build().expect("x264enc");
            self.obj().add(&encoder).expect("an empty bin");
            for name in ["sink", "src"] {
                let pad = encoder.static_pad(name).expect("a pad of x264enc");
                if name == "sink" {
                    let (came, works) = (AtomicU32::new(0), Arc::clone(&self.works));
                    pad.add_probe(gst::PadProbeType::BUFFER, move |pad, info| {
                        works.store(fate == Fate::Alone, Ordering::Relaxed);
                        match meet(fate, pad, came.fetch_add(1, Ordering::Relaxed)) {
                            None => gst::PadProbeReturn::Ok,
                            Some(result) => {
                                info.flow_res = result;
                                gst::PadProbeReturn::Handled
                            }
                        }
                    });
                }
                pad.add_probe(gst::PadProbeType::EVENT_UPSTREAM, |_, info| {
                    let is_request = info
                        .event()
                        .and_then(|event| event.structure())
                        .is_some_and(|event| event.has_name("GstForceKeyUnit"));
                    match is_request && MISSES.swap(false, Ordering::Relaxed) {
                        true => gst::PadProbeReturn::Drop,
                        false => gst::PadProbeReturn::Ok,
                    }
                });
                let ghost = gst::GhostPad::builder_with_target(&pad).expect("an unlinked pad").name(name).build();
                self.obj().add_pad(&ghost).expect("a new name");
            }
        }
    }

    impl GstObjectImpl for FakeEncoder {}

    impl ElementImpl for FakeEncoder {
        fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
            static METADATA: OnceLock<gst::subclass::ElementMetadata> = OnceLock::new();
            Some(METADATA.get_or_init(|| {
                gst::subclass::ElementMetadata::new("Fake encoder", "Codec/Encoder/Video", "Fails", "rov-tests")
            }))
        }

        fn change_state(&self, transition: gst::StateChange) -> Result<gst::StateChangeSuccess, gst::StateChangeError> {
            if transition == gst::StateChange::PausedToReady && self.fate.get() == Some(&Fate::EndsLate) {
                wait_for_release();
            }
            self.parent_change_state(transition)
        }
    }

    impl BinImpl for FakeEncoder {}
}

glib::wrapper! {
    pub struct FakeEncoder(ObjectSubclass<imp::FakeEncoder>) @extends gst::Bin, gst::Element, gst::Object;
}
