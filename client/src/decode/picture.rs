//! One decoded picture, in the form that the window draws.

use std::fmt;
use std::time::{Duration, Instant};

use gstreamer as gst;
use gstreamer::glib::translate::from_glib_none;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;
use gstreamer_video as gst_video;
use gstreamer_video::prelude::*;
use rov_common::capture_clock::Captured;
use rov_common::stamp::{self, Stamp};
use rov_common::units::Resolution;

use super::flow::Unit;
use super::output::packed_caps;

/// GStreamer's name (`GST_ALLOCATOR_SYSMEM`).
const SYSTEM_MEMORY: &str = "SystemMemory";

/// Of pictures that are kept.
const JPEG_QUALITY: u32 = 95;

/// A picture, already converted and scaled if that is not the screen's part.
pub struct Picture {
    /// As it is here.
    pub resolution: Resolution,
    /// As decoded, with square pixels, before scaling.
    pub source: Resolution,
    /// RTP timestamp (90 kHz) of the access unit it was made from; zero if that is not known.
    pub rtp_timestamp: u32,
    /// When the first and the last packet of its access unit came in.
    pub first_packet_at: Instant,
    pub last_packet_at: Instant,
    /// How much later than it should be the last packet came, as far as the sender's clock tells; see `due_at`.
    pub late_by: Duration,
    /// When it was captured, by the server's clock, which may be another than this machine's; none where the way in
    /// does not tell, or not yet: RTP and RTSP do with the first sender report.
    pub captured: Option<Captured>,
    /// When its access unit entered the decoder; from the last packet to here it waited for retransmissions.
    pub decode_started_at: Instant,
    /// When it left the decoder.
    pub decoded_at: Instant,
    /// When it was converted and scaled as well, where that is not the screen's part.
    pub converted_at: Instant,
    /// As it left the decoder, where it was converted since and could be kept.
    pub(super) whole: Option<(gst::Buffer, gst_video::VideoInfo)>,
    pixels: Pixels,
}

enum Pixels {
    /// GStreamer's own memory, given back to its pool when the picture is dropped.
    Mapped(Box<(gst::MappedBuffer<gst::buffer::Readable>, gst_video::VideoInfo)>),
    Owned(Vec<u32>),
    /// In the decoder's format.
    Decoded(Box<gst_video::VideoFrame<gst_video::video_frame::Readable>>),
}

/// A picture that the window need not have any more.
#[derive(Clone, Debug)]
pub struct Kept {
    buffer: gst::Buffer,
    info: gst_video::VideoInfo,
    /// With square pixels.
    pub size: Resolution,
    /// As it was decoded, not scaled to the window.
    pub is_whole: bool,
}

impl Kept {
    /// It as a JPEG, made by the calling thread alone. Blocks for as long as that takes; the error says why there is
    /// none.
    pub fn jpeg(self) -> Result<Vec<u8>, String> {
        // JFIF is full range and BT.601 (ITU-T T.871).
        let Resolution { width, height } = self.size;
        let text = format!(
            "videoscale name=in ! video/x-raw,width={width},height={height},pixel-aspect-ratio=1/1 \
             ! videoconvert ! video/x-raw,format=I420,colorimetry=(string)1:4:0:0 ! jpegenc quality={JPEG_QUALITY} \
             ! appsink name=out sync=false async=false"
        );
        let pipeline = gst::parse::launch(&text).map_err(|error| format!("no JPEG encoder: {}", error.message()))?;
        let pipeline = pipeline.downcast::<gst::Pipeline>().map_err(|_| "not a pipeline".to_owned())?;
        let sample = self.through(&pipeline);
        let _ = pipeline.set_state(gst::State::Null);
        let sample = sample?;
        let buffer = sample.buffer().ok_or("the JPEG encoder gives nothing")?;
        Ok(buffer.map_readable().map_err(|error| error.to_string())?.to_vec())
    }

    fn through(self, pipeline: &gst::Pipeline) -> Result<gst::Sample, String> {
        let element = |name: &str| pipeline.by_name(name).ok_or_else(|| format!("no element {name}"));
        // A source would have a thread, of those that GStreamer lends to all pipelines: its priority cannot be given
        // back.
        let input = gst::Pad::builder(gst::PadDirection::Src).name("src").build();
        let peer = element("in")?.static_pad("sink").ok_or("no pad")?;
        input.link(&peer).map_err(|error| error.to_string())?;
        input.set_active(true).map_err(|error| error.to_string())?;
        let output = element("out")?.downcast::<gst_app::AppSink>().map_err(|_| "no appsink")?;
        let caps = self.info.to_caps().map_err(|error| error.to_string())?;
        let started = pipeline.set_state(gst::State::Playing).is_ok();
        input.push_event(gst::event::StreamStart::new("picture"));
        input.push_event(gst::event::Caps::new(&caps));
        input.push_event(gst::event::Segment::new(&gst::FormattedSegment::<gst::ClockTime>::new()));
        let given = started && input.push(self.buffer).is_ok();
        output.try_pull_sample(gst::ClockTime::ZERO).filter(|_| given).ok_or_else(|| {
            let error = pipeline.bus().and_then(|bus| rov_gst::message::pending_error(&bus));
            error.unwrap_or_else(|| "the JPEG encoder gives nothing".to_owned())
        })
    }
}

impl fmt::Debug for Picture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Picture({} of {}, rtp {})", self.resolution, self.source, self.rtp_timestamp)
    }
}

impl Picture {
    /// A picture made by hand, for tests and test pictures. None unless there are as many pixels as `resolution` says.
    pub fn from_pixels(resolution: Resolution, pixels: Vec<u32>, now: Instant) -> Option<Self> {
        (pixels.len() as u64 == resolution.pixels()).then_some(Self {
            resolution,
            source: resolution,
            rtp_timestamp: 0,
            first_packet_at: now,
            last_packet_at: now,
            late_by: Duration::ZERO,
            captured: None,
            decode_started_at: now,
            decoded_at: now,
            converted_at: now,
            whole: None,
            pixels: Pixels::Owned(pixels),
        })
    }

    /// Wraps a decoded buffer; copies 32-bit pixels only if their rows are padded.
    pub(super) fn from_buffer(
        buffer: gst::Buffer,
        info: &gst_video::VideoInfo,
        source: Resolution,
        unit: Option<Unit>,
        decoded_at: Instant,
        now: Instant,
    ) -> Option<Self> {
        let pixels = match info.format() {
            gst_video::VideoFormat::Bgrx | gst_video::VideoFormat::Xrgb => Self::pack(buffer, info)?,
            _ => Pixels::Decoded(Box::new(gst_video::VideoFrame::from_buffer_readable(buffer, info).ok()?)),
        };
        Some(Self {
            resolution: Resolution::new(info.width(), info.height()),
            source,
            rtp_timestamp: unit.map_or(0, |unit| unit.rtp_timestamp),
            first_packet_at: unit.map_or(now, |unit| unit.first_packet_at),
            last_packet_at: unit.map_or(now, |unit| unit.last_packet_at),
            late_by: unit.map_or(Duration::ZERO, |unit| unit.late_by),
            captured: unit.and_then(|unit| unit.captured),
            decode_started_at: unit.and_then(|unit| unit.decoding_since).unwrap_or(now),
            decoded_at,
            converted_at: now,
            whole: None,
            pixels,
        })
    }

    fn pack(buffer: gst::Buffer, info: &gst_video::VideoInfo) -> Option<Pixels> {
        let resolution = Resolution::new(info.width(), info.height());
        let row = info.width() as usize * 4;
        let (offset, stride) = match buffer.meta::<gst_video::VideoMeta>() {
            Some(meta) => (*meta.offset().first()?, usize::try_from(*meta.stride().first()?).ok()?),
            None => (*info.offset().first()?, usize::try_from(*info.stride().first()?).ok()?),
        };
        let map = buffer.into_mapped_buffer_readable().ok()?;
        let plain = offset == 0 && stride == row && as_pixels(&map, resolution).is_some();
        if plain {
            return Some(Pixels::Mapped(Box::new((map, info.clone()))));
        }
        let mut copy = Vec::with_capacity(usize::try_from(resolution.pixels()).ok()?);
        for y in 0..info.height() as usize {
            let at = offset + y * stride;
            let bytes = map.get(at..at + row)?;
            copy.extend(bytes.chunks_exact(4).map(|p| u32::from_ne_bytes([p[0], p[1], p[2], p[3]])));
        }
        Some(Pixels::Owned(copy))
    }

    /// Memory that it holds.
    pub fn bytes(&self) -> usize {
        let pixels = match &self.pixels {
            Pixels::Mapped(mapped) => mapped.0.size(),
            Pixels::Owned(pixels) => pixels.len() * 4,
            Pixels::Decoded(frame) => frame.buffer().size(),
        };
        pixels + self.whole.as_ref().map_or(0, |(buffer, _)| buffer.size())
    }

    /// When its last packet should have come: the time from which its age counts. A process that stood still gets old
    /// packets that look new.
    pub fn due_at(&self) -> Instant {
        self.last_packet_at.checked_sub(self.late_by).unwrap_or(self.last_packet_at)
    }

    /// Rows from the top without padding, each pixel 0x??RRGGBB; the upper eight bits mean nothing. Empty if it is in
    /// the decoder's format.
    pub fn pixels(&self) -> &[u32] {
        match &self.pixels {
            // Checked in `pack`, so never empty for want of alignment or length.
            Pixels::Mapped(mapped) => as_pixels(&mapped.0, self.resolution).unwrap_or_default(),
            Pixels::Owned(pixels) => pixels,
            Pixels::Decoded(_) => &[],
        }
    }

    /// The pixels of a picture in the decoder's format, scaled to `size`; none of others.
    pub fn converted(&self, size: Resolution) -> Option<Vec<u32>> {
        let Pixels::Decoded(frame) = &self.pixels else { return None };
        let packed = gst_video::VideoInfo::from_caps(&packed_caps(Some(size))).ok()?;
        // The converter refuses to change rate or interlacing.
        let info = gst_video::VideoInfo::builder(packed.format(), size.width, size.height)
            .fps(frame.info().fps())
            .interlace_mode(frame.info().interlace_mode())
            .build()
            .ok()?;
        let converter = gst_video::VideoConverter::new(frame.info(), &info, None).ok()?;
        let mut packed =
            gst_video::VideoFrame::from_buffer_writable(gst::Buffer::with_size(info.size()).ok()?, &info).ok()?;
        converter.frame(frame, &mut packed);
        let bytes = packed.plane_data(0).ok()?;
        Some(bytes.chunks_exact(4).map(|p| u32::from_ne_bytes([p[0], p[1], p[2], p[3]])).collect())
    }

    /// To be kept, apart from the window's memory: as it was decoded where that is there, else as it is here.
    pub fn to_keep(&self) -> Option<Kept> {
        let whole = match &self.pixels {
            Pixels::Decoded(frame) if may_keep(frame.buffer()) => self.buffer(),
            Pixels::Decoded(_) => self.copied(),
            _ => self.whole.clone(),
        };
        let is_whole = whole.is_some() || self.resolution == self.source;
        let (buffer, info) = whole.or_else(|| self.copied())?;
        let size = if is_whole { self.source } else { self.resolution };
        Some(Kept { buffer, info, size, is_whole })
    }

    fn copied(&self) -> Option<(gst::Buffer, gst_video::VideoInfo)> {
        if let Some((buffer, info)) = self.buffer() {
            return Some((buffer.copy_deep().ok()?, info));
        }
        let info = gst_video::VideoInfo::from_caps(&packed_caps(Some(self.resolution))).ok()?;
        let bytes: Vec<u8> = self.pixels().iter().flat_map(|pixel| pixel.to_ne_bytes()).collect();
        Some((gst::Buffer::from_slice(bytes), info))
    }

    /// The memory itself, for who can show it as it is.
    pub fn buffer(&self) -> Option<(gst::Buffer, gst_video::VideoInfo)> {
        match &self.pixels {
            Pixels::Mapped(mapped) => Some((mapped.0.buffer_owned(), mapped.1.clone())),
            Pixels::Decoded(frame) => Some((frame.buffer_owned(), frame.info().clone())),
            Pixels::Owned(_) => None,
        }
    }
}

/// Whether the decoder goes on while the window has its picture: a hardware decoder with few of them would wait for it,
/// whatever its pool says. So it must lie in memory of the system, of which there is enough.
pub(super) fn may_keep(buffer: &gst::BufferRef) -> bool {
    if !buffer.iter_memories().all(|memory| memory.is_type(SYSTEM_MEMORY)) {
        return false;
    }
    // SAFETY: a buffer that has a pool holds it until it is given back, and what is made of it here holds it too.
    let pool: Option<gst::BufferPool> = unsafe { from_glib_none((*buffer.as_ptr()).pool) };
    pool.is_none_or(|pool| pool.config().params().is_some_and(|(_, _, _, most)| most == 0))
}

/// The bytes as pixels, if they are aligned and enough for a picture of this size.
fn as_pixels(bytes: &[u8], resolution: Resolution) -> Option<&[u32]> {
    // SAFETY: every pattern of bits is a valid u32, and `align_to` leaves what is not aligned out of the middle part.
    let (before, pixels, _) = unsafe { bytes.align_to::<u32>() };
    let count = usize::try_from(resolution.pixels()).ok()?;
    if before.is_empty() { pixels.get(..count) } else { None }
}

/// Reads the test stamp out of a picture, if it carries one.
pub fn read_stamp(picture: &Picture) -> Option<Stamp> {
    let (width, height) = (picture.resolution.width as usize, picture.resolution.height as usize);
    if let Pixels::Decoded(frame) = &picture.pixels {
        // The formats that are asked for have 8 bits, and luma first.
        let (luma, stride) = (frame.comp_data(0).ok()?, usize::try_from(frame.comp_stride(0)).ok()?);
        let step = usize::try_from(frame.comp_pstride(0)).ok()?;
        return stamp::read_with(width, height, |x, y| luma.get(y * stride + x * step).copied().unwrap_or(0));
    }
    let pixels = picture.pixels();
    stamp::read_with(width, height, |x, y| pixels.get(y * width + x).map_or(0, |&pixel| luma(pixel)))
}

/// Brightness of a pixel, 0 to 255 (weights of ITU-R BT.601 in 1/256).
fn luma(pixel: u32) -> u8 {
    let (r, g, b) = (pixel >> 16 & 0xff, pixel >> 8 & 0xff, pixel & 0xff);
    ((77 * r + 150 * g + 29 * b) >> 8) as u8
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn a_picture_that_is_kept_is_encoded_by_the_thread_that_asks() {
        gst::init().expect("GStreamer");
        let pipeline = gst::parse::launch("videoscale name=in ! jpegenc ! appsink name=out sync=false async=false");
        let pipeline = pipeline.expect("a pipeline").downcast::<gst::Pipeline>().expect("a pipeline");
        let (say, said) = channel();
        let pad = pipeline.by_name("out").and_then(|out| out.static_pad("sink")).expect("a pad");
        pad.add_probe(gst::PadProbeType::BUFFER, move |_, _| {
            let _ = say.send(std::thread::current().id());
            gst::PadProbeReturn::Ok
        });
        let size = Resolution::new(32, 32);
        let picture = Picture::from_pixels(size, vec![0; 32 * 32], Instant::now()).expect("a picture");
        picture.to_keep().expect("kept").through(&pipeline).expect("a JPEG");
        pipeline.set_state(gst::State::Null).expect("it ends");
        assert_eq!(said.try_iter().collect::<Vec<_>>(), [std::thread::current().id()]);
    }
}
