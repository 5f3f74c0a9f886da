//! A GStreamer sink that draws into minifb's window: the pictures go to it from a pad of our own, on the window's
//! thread, so that there is no queue, and a picture is on its way to the glass when `show` returns.
//!
//! A sink that does not scale lends its memory, shared with the X server, to the decoder's pipeline: the picture is
//! converted and scaled straight into it.

use std::mem::ManuallyDrop;
use std::time::Duration;

use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_video as gst_video;
use gstreamer_video::prelude::*;
use raw_window_handle::{HasWindowHandle, RawWindowHandle};
use rov_common::units::Resolution;

use super::choice::{self, DisplayChoice, SinkRow, System};
use crate::decode::{Picture, PictureForm, packed_caps};
use crate::limit::within;

/// A graphics driver that hangs must not keep the window closed.
const OPEN_TIME: Duration = Duration::from_secs(3);
/// What the decoders give in memory that everybody can read.
const FORMATS: &str = "video/x-raw,format={I420,NV12,YV12,NV21,YUY2,UYVY}";

/// An open sink.
pub struct Sink {
    row: &'static SinkRow,
    /// Never stopped where it has lent memory: see `drop`.
    pipeline: ManuallyDrop<gst::Pipeline>,
    overlay: gst_video::VideoOverlay,
    /// Our end, from which the sink gets everything.
    pad: gst::Pad,
    /// The formats that it takes as decoded; none: it takes pixels.
    formats: Option<gst::Caps>,
    /// Of the picture before.
    info: Option<gst_video::VideoInfo>,
    canvas: Option<Canvas>,
}

/// Frames to paint, of the window's size.
struct Canvas {
    info: gst_video::VideoInfo,
    /// The sink's own memory, if it lends it.
    pool: Option<gst::BufferPool>,
}

impl Drop for Canvas {
    fn drop(&mut self) {
        if let Some(pool) = &self.pool {
            let _ = pool.set_active(false);
        }
    }
}

impl Sink {
    /// Opens the first sink of the choice that works in this window. The error says why none does; it is empty where
    /// there is nothing to try.
    pub fn open(choice: DisplayChoice, window: &minifb::Window) -> Result<Self, String> {
        if choice == DisplayChoice::Minifb {
            return Err(String::new());
        }
        let Some((system, handle)) = handle(window) else {
            return Err(match choice {
                DisplayChoice::Auto => String::new(),
                _ => "no sink can draw into a window of this system".to_owned(),
            });
        };
        let extensions = match system {
            System::X11 => extensions()?,
            _ => Vec::new(),
        };
        let mut reasons = Vec::new();
        for row in choice::sinks(choice, Some(system), &extensions) {
            match Self::open_row(row, handle) {
                Ok(sink) => return Ok(sink),
                Err(reason) => reasons.push(format!("{}: {reason}", row.element)),
            }
        }
        Err(reasons.join("; "))
    }

    fn open_row(row: &'static SinkRow, handle: usize) -> Result<Self, String> {
        gst::init().map_err(|error| error.to_string())?;
        let element = make(row.element, row.package)?;
        // Shown at once, whatever the clock says; the first picture need not come to get started; nothing is kept; and
        // the keys are minifb's.
        for property in ["sync", "async", "qos", "enable-last-sample", "handle-expose"] {
            if element.has_property(property) {
                element.set_property(property, false);
            }
        }
        let overlay =
            element.clone().dynamic_cast::<gst_video::VideoOverlay>().map_err(|_| "it has no overlay".to_owned())?;
        overlay.handle_events(false);
        // SAFETY: the window outlives the use of the sink, which is a field before it in the same struct.
        unsafe { overlay.set_window_handle(handle) };
        let pipeline = gst::Pipeline::new();
        pipeline.add(&element).map_err(|error| error.to_string())?;
        let mut first = element.clone();
        if let Some(name) = row.before {
            first = make(name, None)?;
            pipeline.add(&first).map_err(|error| error.to_string())?;
            first.link(&element).map_err(|error| error.to_string())?;
        }
        if let Some(bus) = pipeline.bus() {
            // Nobody reads the bus but for errors, so nothing else may pile up on it.
            bus.set_sync_handler(|_, message| match message.type_() {
                gst::MessageType::Error => gst::BusSyncReply::Pass,
                _ => gst::BusSyncReply::Drop,
            });
        }
        let pad = gst::Pad::builder(gst::PadDirection::Src).name("pictures").build();
        let mut sink =
            Self { row, pipeline: ManuallyDrop::new(pipeline), overlay, pad, formats: None, info: None, canvas: None };
        sink.start(&first, &element)?;
        Ok(sink)
    }

    fn start(&mut self, first: &gst::Element, element: &gst::Element) -> Result<(), String> {
        let pipeline = gst::Pipeline::clone(&self.pipeline);
        let started = within(OPEN_TIME, "display-start", move || pipeline.set_state(gst::State::Playing));
        if started.map_err(|error| format!("it does not start: {error}"))?.is_err() {
            return Err(self.reason("it does not start"));
        }
        let into = first.static_pad("sink").ok_or("it has no pad")?;
        self.pad.set_active(true).map_err(|error| error.to_string())?;
        self.pad.link(&into).map_err(|error| error.to_string())?;
        let packed = packed_caps(None);
        if !into.query_caps(None).can_intersect(&packed) {
            return Err(format!("it does not take {packed}"));
        }
        if self.row.scales {
            let wanted = FORMATS.parse::<gst::Caps>().map_err(|error| error.to_string())?;
            let own = element.static_pad("sink").ok_or("it has no pad")?.query_caps(None);
            // Not the memory of hardware: which needs the display's context in the decoder's pipeline.
            self.formats = Some(wanted.intersect(&own)).filter(|caps| !caps.is_empty());
        }
        self.pad.push_event(gst::event::StreamStart::new("pictures"));
        Ok(())
    }

    pub fn name(&self) -> &'static str {
        self.row.element
    }

    /// In what form it wants the pictures for a window of this size.
    pub fn output(&self, window: Resolution) -> PictureForm {
        let lent = (!self.row.scales).then(|| self.pad.clone());
        PictureForm { bounds: Some(window), formats: self.formats.clone(), memory: lent }
    }

    /// The window has another size.
    pub fn resized(&self) {
        self.overlay.expose();
    }

    /// The picture as it can be shown without painting; none if its size does not fit a window of this one.
    pub fn ready(&self, picture: &Picture, window: Resolution) -> Option<(gst::Buffer, gst_video::VideoInfo)> {
        let fits = self.row.scales || picture.resolution == picture.source.fit_into(window);
        picture.buffer().filter(|_| fits)
    }

    /// Shows a picture that is `ready`. The memory for painting, two frames of the window's size, is not needed
    /// meanwhile. The error says why the sink is of no use any more.
    pub fn show_ready(&mut self, buffer: gst::Buffer, info: &gst_video::VideoInfo) -> Result<(), String> {
        self.canvas = None;
        self.show(buffer, info)
    }

    /// Hands a frame to the screen.
    fn show(&mut self, buffer: gst::Buffer, info: &gst_video::VideoInfo) -> Result<(), String> {
        if self.info.as_ref() != Some(info) {
            let caps = info.to_caps().map_err(|error| error.to_string())?;
            let is_first = self.info.is_none();
            if !self.pad.push_event(gst::event::Caps::new(&caps)) {
                return Err(self.reason(&format!("it does not take {caps}")));
            }
            if is_first {
                let segment = gst::FormattedSegment::<gst::ClockTime>::new();
                self.pad.push_event(gst::event::Segment::new(&segment));
            }
            self.info = Some(info.clone());
        }
        match self.pad.push(buffer) {
            Ok(_) => Ok(()),
            Err(error) => Err(self.reason(&error.to_string())),
        }
    }

    /// Shows a frame of the window's size that `paint` paints, pixels 0x00RRGGBB.
    pub fn paint(&mut self, window: Resolution, paint: impl FnOnce(&mut [u32])) -> Result<(), String> {
        let (mut buffer, info) = self.blank(window)?;
        {
            let mut frame = gst_video::VideoFrameRef::from_buffer_ref_writable(buffer.make_mut(), &info)
                .map_err(|error| error.to_string())?;
            let stride = frame.plane_stride()[0];
            let data = frame.plane_data_mut(0).map_err(|error| error.to_string())?;
            // SAFETY: every pattern of bits is a valid u32, and `align_to_mut` leaves what is not aligned out.
            let (before, pixels, _) = unsafe { data.align_to_mut::<u32>() };
            let count = window.width as usize * window.height as usize;
            let plain = before.is_empty() && stride == window.width as i32 * 4;
            paint(pixels.get_mut(..count).filter(|_| plain).ok_or("its memory has padded rows")?);
        }
        self.show(buffer, &info)
    }

    fn blank(&mut self, size: Resolution) -> Result<(gst::Buffer, gst_video::VideoInfo), String> {
        let same = |canvas: &Canvas| (canvas.info.width(), canvas.info.height()) == (size.width, size.height);
        if !self.canvas.as_ref().is_some_and(same) {
            let caps = packed_caps(Some(size));
            let info = gst_video::VideoInfo::from_caps(&caps).map_err(|error| error.to_string())?;
            let pool = if self.row.scales { None } else { self.pool(&caps) };
            self.canvas = Some(Canvas { info, pool });
        }
        let canvas = self.canvas.as_ref().ok_or("no canvas")?;
        let buffer = match &canvas.pool {
            Some(pool) => pool.acquire_buffer(None).map_err(|error| error.to_string())?,
            None => gst::Buffer::with_size(canvas.info.size()).map_err(|error| error.to_string())?,
        };
        Ok((buffer, canvas.info.clone()))
    }

    /// The sink's own memory for frames of this kind.
    fn pool(&self, caps: &gst::Caps) -> Option<gst::BufferPool> {
        let mut query = gst::query::Allocation::new(Some(caps), true);
        if !self.pad.peer_query(query.query_mut()) {
            return None;
        }
        let (pool, size, min, max) = query.allocation_pools().next()?;
        let pool = pool?;
        let mut config = pool.config();
        config.set_params(Some(caps), size, min, max);
        pool.set_config(config).ok()?;
        pool.set_active(true).ok()?;
        Some(pool)
    }

    /// What the sink itself says that is wrong, or `otherwise`.
    fn reason(&self, otherwise: &str) -> String {
        let message = self.pipeline.bus().and_then(|bus| bus.pop_filtered(&[gst::MessageType::Error]));
        match message.as_ref().map(|message| message.view()) {
            Some(gst::MessageView::Error(error)) => error.error().to_string(),
            _ => otherwise.to_owned(),
        }
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.canvas = None;
        if self.row.scales {
            let pipeline = gst::Pipeline::clone(&self.pipeline);
            if let Err(error) = within(OPEN_TIME, "display-stop", move || pipeline.set_state(gst::State::Null)) {
                tracing::warn!("{}: left behind, it did not stop: {error}", self.row.element);
            } else {
                // SAFETY: dropped once, here.
                unsafe { ManuallyDrop::drop(&mut self.pipeline) };
            }
        }
        // Otherwise the decoder may still be taking memory from ximagesink, which would crash once it is stopped. Idle
        // it does nothing, and the X server frees what is its when the process ends, of which this is nearly the end.
    }
}

fn make(name: &str, package: Option<&str>) -> Result<gst::Element, String> {
    gst::ElementFactory::make(name).build().map_err(|_| match package {
        Some(package) => format!("GStreamer has no element {name}: install the package {package} (Debian, Ubuntu)"),
        None => format!("GStreamer has no element {name}"),
    })
}

/// What sinks draw into, and of which system it is.
fn handle(window: &minifb::Window) -> Option<(System, usize)> {
    match window.window_handle().ok()?.as_raw() {
        RawWindowHandle::Xlib(handle) => Some((System::X11, usize::try_from(handle.window).ok()?)),
        RawWindowHandle::Win32(handle) => Some((System::Windows, usize::try_from(handle.hwnd.get()).ok()?)),
        RawWindowHandle::AppKit(handle) => Some((System::MacOs, handle.ns_view.as_ptr() as usize)),
        _ => None,
    }
}

/// The X server's extensions.
#[cfg(all(unix, not(target_os = "macos")))]
fn extensions() -> Result<Vec<String>, String> {
    use x11rb::protocol::xproto::ConnectionExt;
    let failed = |error: String| format!("cannot ask the X server for its extensions: {error}");
    let (connection, _) = x11rb::connect(None).map_err(|error| failed(error.to_string()))?;
    let asked = connection.list_extensions().map_err(|error| failed(error.to_string()))?;
    let reply = asked.reply().map_err(|error| failed(error.to_string()))?;
    Ok(reply.names.iter().map(|name| String::from_utf8_lossy(&name.name).into_owned()).collect())
}

#[cfg(not(all(unix, not(target_os = "macos"))))]
fn extensions() -> Result<Vec<String>, String> {
    Ok(Vec::new())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_element_that_is_missing_is_named_with_its_package() {
        gst::init().unwrap();
        let error = make("nosuchsink", Some("gstreamer1.0-x")).unwrap_err();
        assert_eq!(error, "GStreamer has no element nosuchsink: install the package gstreamer1.0-x (Debian, Ubuntu)");
    }
}
