//! Leaves out frames of a source that is faster than wanted, by the decisions of [`Decimator`].
//!
//! Not `videorate`: it ends the whole process by an assertion when a frame has no duration (JPEG and PNG files, and
//! cameras behind `jpegdec`), and does not take NVIDIA's memory before 1.20.

use std::sync::{Mutex, PoisonError};

use gstreamer as gst;
use gstreamer::prelude::*;
use rov_common::decimate::{Decimator, decimated_rate};
use rov_common::units::Fps;
use rov_gst::caps::format_of;
use rov_gst::clock::running_time;

/// Thins what comes through `pad` down to `wanted`. A source that states a rate is believed, as its frames may jitter;
/// one that states none is thinned by the times of its frames, and frames without times by when they come. What is
/// behind sees the rate that is left. A frame of which `is_awaited` says so goes on in any case.
pub fn install(
    pad: &gst::Pad,
    wanted: Fps,
    is_awaited: impl Fn(&gst::Pad, &gst::PadProbeInfo) -> bool + Send + Sync + 'static,
) {
    // The second: the stated rate is not above the wanted one.
    let decimator = Mutex::new((Decimator::new(wanted), false));
    let mask = gst::PadProbeType::BUFFER | gst::PadProbeType::EVENT_DOWNSTREAM;
    pad.add_probe(mask, move |pad, info| {
        let mut decimator = decimator.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(buffer) = info.buffer() {
            let now = || pad.parent_element().and_then(|element| running_time(&element));
            let time = match buffer.pts() {
                Some(_) if decimator.1 => None,
                time => time.or_else(now),
            };
            if is_awaited(pad, info) {
                decimator.0.begin_anew();
            }
            let keeps = time.is_none_or(|time| decimator.0.keeps(time.into()));
            return if keeps { gst::PadProbeReturn::Ok } else { gst::PadProbeReturn::Handled };
        }
        let Some(gst::EventView::Caps(caps)) = info.event().map(|event| event.view()) else {
            return gst::PadProbeReturn::Ok;
        };
        let own = format_of(caps.caps()).and_then(|(_, fps)| fps);
        let left = decimated_rate(own, wanted);
        decimator.1 = own.is_some() && left.is_none();
        let rate = left.and_then(|left| Some((i32::try_from(left.num).ok()?, i32::try_from(left.den).ok()?)));
        if let Some((num, den)) = rate {
            // The encoder divides its bits among as many frames as the caps say.
            let mut caps = caps.caps_owned();
            caps.make_mut().set("framerate", gst::Fraction::new(num, den));
            info.data = Some(gst::PadProbeData::Event(gst::event::Caps::new(&caps)));
        }
        gst::PadProbeReturn::Ok
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As of a pipe or of `udpsrc do-timestamp=false`: the rate in the caps is somebody's guess.
    #[test]
    fn frames_without_times_are_thinned_by_when_they_come_whatever_the_caps_say() {
        gst::init().unwrap();
        let text = "appsrc name=in is-live=true format=time \
                    caps=video/x-raw,format=GRAY8,width=16,height=16,framerate=10/1 ! identity name=thinned ! appsink \
                    name=out sync=false";
        let pipeline = gst::parse::launch(text).unwrap().downcast::<gst::Pipeline>().unwrap();
        let source = pipeline.by_name("in").unwrap().downcast::<gstreamer_app::AppSrc>().unwrap();
        let sink = pipeline.by_name("out").unwrap().downcast::<gstreamer_app::AppSink>().unwrap();
        install(&pipeline.by_name("thinned").unwrap().static_pad("sink").unwrap(), Fps::whole(10), |_, _| false);
        pipeline.set_state(gst::State::Playing).unwrap();
        let begun = std::time::Instant::now();
        for _ in 0..100 {
            source.push_buffer(gst::Buffer::from_slice([0_u8; 256])).unwrap();
        }
        source.end_of_stream().unwrap();
        let mut kept = 0;
        while sink.pull_sample().is_ok() {
            kept += 1;
        }
        let most = 2.0 + begun.elapsed().as_secs_f64() * 10.0;
        pipeline.set_state(gst::State::Null).unwrap();
        assert!(kept >= 1 && f64::from(kept) < most.min(100.0), "{kept} of 100");
    }
}
