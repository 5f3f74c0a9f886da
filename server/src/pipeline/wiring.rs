//! The probes of a running pipeline that look at its pictures: when they are due, how they are turned and interlaced,
//! and what is drawn into them. Each does little, as it runs on the thread of the pictures.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_video as gst_video;
use gstreamer_video::prelude::*;
use rov_common::stamp::Stamp;
use rov_common::sync::lock;
use rov_gst::clock::running_time;
use rov_gst::counter::Moment;
use rov_gst::element::{is_made_by, set_property};

use super::picture::I420;
use super::source::Drawing;

/// Notes for each buffer that reaches the pacing element when it will go on.
pub fn note_due(pad: &gst::Pad, pipeline: &gst::Pipeline, next_due: &Arc<Moment>) {
    let (pipeline, next_due) = (pipeline.downgrade(), next_due.clone());
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        let pts = info.buffer().and_then(|buffer| buffer.pts());
        if let Some((pts, pipeline)) = pts.zip(pipeline.upgrade()) {
            let now = running_time(pipeline.upcast_ref()).unwrap_or_default();
            next_due.set(Instant::now() + Duration::from(pts.saturating_sub(now)));
        }
        gst::PadProbeReturn::Ok
    });
}

/// Draws label, time and mark into each picture that passes `pad`, just before the queue in front of the encoder.
///
/// The test source counts frames for its timestamps. Where the machine is too slow for it they fall behind for ever,
/// though the picture is drawn now: a frame that is more than two intervals late gets the time at which it is drawn.
pub fn draw(pad: &gst::Pad, drawing: &Drawing) {
    let label = drawing.label.clone();
    let frame_number = AtomicU32::new(0);
    let last_pts = Mutex::new(None::<gst::ClockTime>);
    pad.add_probe(gst::PadProbeType::BUFFER, move |pad, info| {
        let picture = info.buffer_mut().zip(pad.current_caps());
        if let Some((buffer, caps)) = picture
            && let Ok(video) = gst_video::VideoInfo::from_caps(&caps)
            && let Ok(mut frame) = gst_video::VideoFrameRef::from_buffer_ref_writable(buffer.make_mut(), &video)
            && video.format() == gst_video::VideoFormat::I420
        {
            draw_frame(&mut frame, label.as_deref(), frame_number.fetch_add(1, Ordering::Relaxed));
        }
        let now = pad.parent_element().and_then(|element| running_time(&element));
        if let Some((buffer, now)) = info.buffer_mut().zip(now) {
            let (scheduled, interval) = (buffer.pts().unwrap_or(now), buffer.duration().unwrap_or_default());
            let pts = if scheduled + interval * 2 < now { now } else { scheduled };
            let mut last = last_pts.lock().unwrap_or_else(PoisonError::into_inner);
            let pts = last.map_or(pts, |last| pts.max(last + gst::ClockTime::from_useconds(1)));
            *last = Some(pts);
            if pts != scheduled {
                let buffer = buffer.make_mut();
                buffer.set_pts(pts);
                buffer.set_dts(gst::ClockTime::NONE);
            }
        }
        gst::PadProbeReturn::Ok
    });
}

/// The picture of a frame of I420.
pub fn to_paint<'a>(frame: &'a mut gst_video::VideoFrameRef<&mut gst::BufferRef>) -> I420<'a> {
    let (width, height) = (frame.width() as usize, frame.height() as usize);
    let (luma_stride, chroma_stride) = (frame.plane_stride()[0] as usize, frame.plane_stride()[1] as usize);
    let [luma, u, v, _] = frame.planes_data_mut();
    I420 { width, height, luma, luma_stride, chroma: [u, v], chroma_stride }
}

fn draw_frame(frame: &mut gst_video::VideoFrameRef<&mut gst::BufferRef>, label: Option<&str>, number: u32) {
    let mut picture = to_paint(frame);
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let clock = gst::glib::DateTime::now_local().and_then(|now| now.format("%H:%M:%S"));
    let clock = clock.map_or_else(|_| String::new(), |clock| clock.to_string());
    picture.text(label, &format!("{clock}.{:03}", unix.subsec_millis()));
    picture.mark(Stamp { frame: number, time_us: u64::try_from(unix.as_micros()).unwrap_or(0) });
}

/// [`first_field`] for each deinterlacer of `bin`.
pub fn first_fields(bin: &gst::Bin) {
    let elements = bin.iterate_elements().into_iter().flatten();
    elements.filter(|element| is_made_by(element, "deinterlace")).for_each(|element| first_field(&element));
}

/// Has the deinterlacer make each picture of its first field: for the other it would hold the picture until the next
/// one comes. NTSC begins with the bottom field, everything else with the top.
///
/// Of pictures that differ in kind or order (mode mixed) it holds some and loses others. So all of them are alike to
/// it: once one is interlaced, all are.
fn first_field(deinterlace: &gst::Element) {
    let Some(pad) = deinterlace.static_pad("sink") else { return };
    let deinterlace = deinterlace.downgrade();
    let state = Mutex::new((None, FieldOrder::default()));
    pad.add_probe(gst::PadProbeType::BUFFER | gst::PadProbeType::EVENT_DOWNSTREAM, move |_, info| {
        let mut state = lock(&state);
        let (interlaced, order) = &mut *state;
        if let Some(gst::EventView::Caps(caps)) = info.event().map(|event| event.view()) {
            *interlaced = gst_video::VideoInfo::from_caps(caps.caps()).ok().filter(gst_video::VideoInfo::is_interlaced);
        }
        let (Some(video), Some(buffer)) = (&*interlaced, info.buffer_mut()) else { return gst::PadProbeReturn::Ok };
        let (flags, tff) = (buffer.video_flags(), gst_video::VideoBufferFlags::TFF);
        let is_mixed = video.interlace_mode() == gst_video::VideoInterlaceMode::Mixed;
        let by_caps = match video.field_order() {
            gst_video::VideoFieldOrder::TopFieldFirst => Some(true),
            gst_video::VideoFieldOrder::BottomFieldFirst => Some(false),
            _ => None,
        };
        let is_progressive = is_mixed && !flags.contains(gst_video::VideoBufferFlags::INTERLACED);
        if !is_progressive && order.is_new(by_caps.unwrap_or(flags.contains(tff))) {
            let fields = if order.top_first == Some(true) { "top" } else { "bottom" };
            deinterlace.upgrade().map(|deinterlace| set_property(&deinterlace, "fields", fields));
            tracing::info!("interlaced source: deinterlaced, {fields} field first");
        }
        if let Some(top_first) = order.top_first.filter(|_| by_caps.is_none()) {
            let alike = gst_video::VideoBufferFlags::INTERLACED
                | if top_first { tff } else { gst_video::VideoBufferFlags::empty() };
            if flags & (gst_video::VideoBufferFlags::INTERLACED | tff) != alike {
                let buffer = buffer.make_mut();
                buffer.unset_video_flags(tff);
                buffer.set_video_flags(alike);
            }
        }
        gst::PadProbeReturn::Ok
    });
}

/// Which field comes first, as it was set last.
#[derive(Default)]
struct FieldOrder {
    top_first: Option<bool>,
    /// Pictures in a row of the other order.
    others: u32,
}

impl FieldOrder {
    /// Setting another order costs pictures: single ones that have it are not worth that.
    const MANY: u32 = 10;

    /// Whether the order of this picture is to be set.
    fn is_new(&mut self, top_first: bool) -> bool {
        self.others = if self.top_first == Some(top_first) { 0 } else { self.others + 1 };
        let is_new = self.others > 0 && (self.top_first.is_none() || self.others >= Self::MANY);
        if is_new {
            *self = Self { top_first: Some(top_first), others: 0 };
        }
        is_new
    }
}

/// Has `flip` turn the pictures as their source says. Its own automatic direction does not with GStreamer 1.22.0.
pub(super) fn turn(flip: &gst::Element) {
    let Some(pad) = flip.static_pad("sink") else { return };
    let flip = flip.downgrade();
    pad.add_probe(gst::PadProbeType::EVENT_DOWNSTREAM, move |_, info| {
        let Some(gst::EventView::Tag(tag)) = info.event().map(|event| event.view()) else {
            return gst::PadProbeReturn::Ok;
        };
        let direction = tag.tag().get::<gst::tags::ImageOrientation>().and_then(|tag| direction(tag.get()));
        if let Some((flip, direction)) = flip.upgrade().zip(direction) {
            set_property(&flip, "video-direction", direction);
        }
        gst::PadProbeReturn::Ok
    });
}

/// `GstVideoOrientationMethod` for GStreamer's tag `image-orientation`.
fn direction(orientation: &str) -> Option<&'static str> {
    Some(match orientation {
        "rotate-0" => "identity",
        "rotate-90" => "90r",
        "rotate-180" => "180",
        "rotate-270" => "90l",
        "flip-rotate-0" => "horiz",
        "flip-rotate-90" => "ur-ll",
        "flip-rotate-180" => "vert",
        "flip-rotate-270" => "ul-lr",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A picture in the test of the deinterlacer.
    #[derive(Clone, Copy)]
    struct Given {
        interlaced: bool,
        top_first: bool,
        /// Others were left out before it.
        after_gap: bool,
    }

    const WIDTH: usize = 320;
    const HEIGHT: usize = 240;

    /// A bar that moves by more than its width from field to field.
    fn bar(number: usize, given: &Given) -> gst::Buffer {
        let mut data = vec![16_u8; WIDTH * HEIGHT * 3 / 2];
        for (y, row) in data.chunks_mut(WIDTH).take(HEIGHT).enumerate() {
            let is_second = given.interlaced && (y % 2 == 0) != given.top_first;
            row[(2 * number + usize::from(is_second)) * 12 % 300..][..10].fill(235);
        }
        let mut buffer = gst::Buffer::from_mut_slice(data);
        let picture = buffer.get_mut().unwrap();
        picture.set_pts(gst::ClockTime::from_mseconds(number as u64 * 40));
        picture.set_duration(gst::ClockTime::from_mseconds(40));
        if given.interlaced {
            picture.set_video_flags(gst_video::VideoBufferFlags::INTERLACED);
        }
        if given.top_first {
            picture.set_video_flags(gst_video::VideoBufferFlags::TFF);
        }
        if given.after_gap {
            picture.set_flags(gst::BufferFlags::DISCONT);
        }
        buffer
    }

    /// The numbers of the pictures that come out of the deinterlacer at once for each that goes in.
    fn deinterlaced(mode: &str, pictures: &[Given]) -> Vec<Vec<u64>> {
        gst::init().unwrap();
        let text = format!(
            "appsrc name=in format=time \
             caps=video/x-raw,format=I420,width={WIDTH},height={HEIGHT},framerate=25/1,interlace-mode={mode} \
             ! deinterlace name=fields mode=auto-strict method=greedyl fields=top ! appsink name=out sync=false"
        );
        let pipeline = gst::parse::launch(&text).unwrap().downcast::<gst::Pipeline>().unwrap();
        let source = pipeline.by_name("in").unwrap().downcast::<gstreamer_app::AppSrc>().unwrap();
        let sink = pipeline.by_name("out").unwrap().downcast::<gstreamer_app::AppSink>().unwrap();
        let deinterlace = pipeline.by_name("fields").unwrap();
        first_field(&deinterlace);
        let (sender, fed) = std::sync::mpsc::channel();
        let sender = Mutex::new(sender);
        // Comes behind a picture, once that has been dealt with.
        deinterlace.static_pad("sink").unwrap().add_probe(gst::PadProbeType::EVENT_DOWNSTREAM, move |_, info| {
            if info.event().is_some_and(|event| event.type_() == gst::EventType::CustomDownstream) {
                lock(&sender).send(()).unwrap();
            }
            gst::PadProbeReturn::Ok
        });
        pipeline.set_state(gst::State::Playing).unwrap();
        let number = |sample: gst::Sample| {
            let buffer = sample.buffer().unwrap();
            let luma = buffer.map_readable().unwrap();
            let combs = (0..WIDTH * (HEIGHT - 1)).filter(|at| luma[*at].abs_diff(luma[at + WIDTH]) > 100).count();
            assert_eq!(combs, 0);
            (buffer.pts().unwrap() + gst::ClockTime::from_mseconds(1)).mseconds() / 40
        };
        let outs = pictures.iter().enumerate().map(|(at, given)| {
            source.push_buffer(bar(at, given)).unwrap();
            assert!(source.send_event(gst::event::CustomDownstream::new(gst::Structure::new_empty("fed"))));
            fed.recv_timeout(Duration::from_secs(10)).unwrap();
            std::iter::from_fn(|| sink.try_pull_sample(gst::ClockTime::ZERO)).map(number).collect()
        });
        let outs = outs.collect();
        pipeline.set_state(gst::State::Null).unwrap();
        outs
    }

    #[test]
    fn each_interlaced_picture_comes_out_at_once_and_whole_whatever_is_left_out_or_mixed() {
        let given = |interlaced, top_first, after_gap| Given { interlaced, top_first, after_gap };
        let pictures = |of: &dyn Fn(usize) -> Given| (0..24).map(of).collect::<Vec<_>>();
        let each: Vec<_> = (0..24).map(|number| vec![number]).collect();
        for (what, mode, pictures) in [
            ("nothing special", "interleaved", pictures(&|_| given(true, true, false))),
            ("bottom field first", "interleaved", pictures(&|_| given(true, false, false))),
            ("some left out before every second", "interleaved", pictures(&|i| given(true, true, i % 2 == 1))),
            ("some left out before each", "mixed", pictures(&|_| given(true, true, true))),
            ("progressive ones among them", "mixed", pictures(&|i| given(i % 3 != 0, i % 3 != 0, false))),
            ("progressive ones that have an order", "mixed", pictures(&|i| given(i % 8 >= 4, true, false))),
            ("progressive alone", "mixed", pictures(&|_| given(false, false, false))),
            ("either field first by turns", "mixed", pictures(&|i| given(true, i % 2 == 0, false))),
        ] {
            assert_eq!(deinterlaced(mode, &pictures), each, "{what}");
        }
        // Another order for good.
        let all: usize = deinterlaced("mixed", &pictures(&|i| given(true, i < 4, false))).iter().map(Vec::len).sum();
        assert!(all >= 23, "{all} of 24");
    }
}
