//! The element `rovbenchsrc`: a live source of I420 pictures, of the size and rate that the caps behind it say.
//!
//! Pictures are due at whole intervals after the first; when something behind the source held it up for longer than
//! one, it leaves the missed ones out, as a camera does. The mark is drawn last, so the time in it is that at which the
//! picture leaves.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use gstreamer as gst;
use gstreamer::glib;
use gstreamer::prelude::*;
use gstreamer::subclass::prelude::*;
use gstreamer_base as gst_base;
use gstreamer_base::prelude::*;
use gstreamer_base::subclass::base_src::CreateSuccess;
use gstreamer_base::subclass::prelude::*;
use gstreamer_video as gst_video;
use gstreamer_video::prelude::*;

use crate::picture::{self, Texture};

glib::wrapper! {
    pub struct Source(ObjectSubclass<imp::Source>)
        @extends gst_base::PushSrc, gst_base::BaseSrc, gst::Element, gst::Object;
}

/// Makes the element known to the process, or as a part of `plugin`.
pub fn register(plugin: Option<&gst::Plugin>) -> Result<(), glib::BoolError> {
    gst::Element::register(plugin, "rovbenchsrc", gst::Rank::NONE, Source::static_type())
}

mod imp {
    use std::sync::LazyLock;

    use super::*;

    #[derive(Default)]
    pub struct Source {
        /// None until the caps are known.
        running: Mutex<Option<Running>>,
    }

    struct Running {
        info: gst_video::VideoInfo,
        pool: gst::BufferPool,
        texture: Texture,
        interval: Duration,
        due: Instant,
        frame: u32,
    }

    impl Drop for Running {
        fn drop(&mut self) {
            // It was active; there is nothing to do about a pool that does not stop.
            let _ = self.pool.set_active(false);
        }
    }

    #[glib::object_subclass]
    impl ObjectSubclass for Source {
        const NAME: &'static str = "RovBenchSrc";
        type Type = super::Source;
        type ParentType = gst_base::PushSrc;
    }

    impl ObjectImpl for Source {
        fn constructed(&self) {
            self.parent_constructed();
            let source = self.obj();
            source.set_live(true);
            source.set_format(gst::Format::Time);
            source.set_do_timestamp(true);
        }
    }

    impl GstObjectImpl for Source {}

    impl ElementImpl for Source {
        fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
            static METADATA: LazyLock<gst::subclass::ElementMetadata> = LazyLock::new(|| {
                gst::subclass::ElementMetadata::new(
                    "Marked test pictures",
                    "Source/Video",
                    "Moving pictures that carry their number and the time at which they were made",
                    "rov-streamer",
                )
            });
            Some(&METADATA)
        }

        fn pad_templates() -> &'static [gst::PadTemplate] {
            static TEMPLATES: LazyLock<Vec<gst::PadTemplate>> = LazyLock::new(|| {
                let side = gst::IntRange::<i32>::new(16, 8192);
                let rate = gst::FractionRange::new(gst::Fraction::new(1, 1), gst::Fraction::new(240, 1));
                let caps = gst::Caps::builder("video/x-raw")
                    .field("format", "I420")
                    .field("width", side)
                    .field("height", side)
                    .field("framerate", rate)
                    .build();
                let template = gst::PadTemplate::new("src", gst::PadDirection::Src, gst::PadPresence::Always, &caps);
                template.into_iter().collect()
            });
            &TEMPLATES
        }
    }

    impl BaseSrcImpl for Source {
        fn set_caps(&self, caps: &gst::Caps) -> Result<(), gst::LoggableError> {
            let failed = |what: &str| gst::loggable_error!(gst::CAT_RUST, "{what}: {caps}");
            let info = gst_video::VideoInfo::from_caps(caps).map_err(|_| failed("caps that are no video"))?;
            let (fps, size) = (info.fps(), u32::try_from(info.size()).map_err(|_| failed("too large"))?);
            let pool = gst_video::VideoBufferPool::new();
            let mut config = pool.config();
            config.set_params(Some(caps), size, 3, 0);
            pool.set_config(config).map_err(|_| failed("no pool for"))?;
            pool.set_active(true).map_err(|_| failed("no memory for"))?;
            let interval = Duration::from_secs(1) * fps.denom().unsigned_abs() / fps.numer().unsigned_abs().max(1);
            let running =
                Running { info, pool: pool.upcast(), texture: Texture::new(), interval, due: Instant::now(), frame: 0 };
            *self.lock() = Some(running);
            Ok(())
        }

        fn stop(&self) -> Result<(), gst::ErrorMessage> {
            *self.lock() = None;
            Ok(())
        }

        fn is_seekable(&self) -> bool {
            false
        }
    }

    impl PushSrcImpl for Source {
        /// Waits for at most one interval, so that a stop never waits longer.
        fn create(&self, _: Option<&mut gst::BufferRef>) -> Result<CreateSuccess, gst::FlowError> {
            let mut running = self.lock();
            let running = running.as_mut().ok_or(gst::FlowError::NotNegotiated)?;
            let now = Instant::now();
            if now > running.due + running.interval {
                running.due = now;
            }
            std::thread::sleep(running.due.saturating_duration_since(now));
            running.due += running.interval;
            let buffer = running.pool.acquire_buffer(None)?;
            let mut frame = gst_video::VideoFrame::from_buffer_writable(buffer, &running.info)
                .map_err(|_| gst::FlowError::Error)?;
            let (width, height) = (frame.width() as usize, frame.height() as usize);
            for plane in [1, 2] {
                frame.plane_data_mut(plane).map_err(|_| gst::FlowError::Error)?.fill(128);
            }
            let stride = frame.plane_stride()[0] as usize;
            let luma = frame.plane_data_mut(0).map_err(|_| gst::FlowError::Error)?;
            running.texture.draw(luma, stride, width, height, running.frame);
            if !picture::mark(luma, stride, width, height, running.frame) {
                gst::element_imp_error!(self, gst::StreamError::Format, ["too small for the mark: {width}x{height}"]);
                return Err(gst::FlowError::Error);
            }
            running.frame = running.frame.wrapping_add(1);
            Ok(CreateSuccess::NewBuffer(frame.into_buffer()))
        }
    }

    impl Source {
        fn lock(&self) -> std::sync::MutexGuard<'_, Option<Running>> {
            self.running.lock().unwrap_or_else(PoisonError::into_inner)
        }
    }
}

#[cfg(test)]
mod tests {
    use gstreamer_app as gst_app;
    use rov_common::stamp;

    use super::*;

    #[test]
    fn it_gives_pictures_with_their_numbers_in_order() {
        gst::init().unwrap();
        register(None).unwrap();
        let text = "rovbenchsrc ! video/x-raw,width=320,height=240,framerate=60/1 ! appsink name=out sync=false";
        let pipeline = gst::parse::launch(text).unwrap().downcast::<gst::Pipeline>().unwrap();
        let sink = pipeline.by_name("out").unwrap().downcast::<gst_app::AppSink>().unwrap();
        pipeline.set_state(gst::State::Playing).unwrap();
        for frame in 0..5 {
            let sample = sink.try_pull_sample(gst::ClockTime::from_seconds(20)).unwrap();
            let info = gst_video::VideoInfo::from_caps(sample.caps().unwrap()).unwrap();
            let picture = gst_video::VideoFrame::from_buffer_readable(sample.buffer_owned().unwrap(), &info).unwrap();
            let luma = picture.plane_data(0).unwrap();
            let stride = picture.plane_stride()[0] as usize;
            assert_eq!(stamp::read_luma(luma, stride, 320, 240).map(|stamp| stamp.frame), Some(frame));
            let sample = |x: usize, y: usize| luma[y * stride + x];
            assert_eq!(picture::wrong_patches(frame, 320, 240, picture::Range::Limited, sample), 0);
        }
        pipeline.set_state(gst::State::Null).unwrap();
    }
}
