//! In what form the window wants the pictures: their size, their formats, and the memory to put them into.

use gstreamer as gst;
use gstreamer::prelude::*;
use rov_common::units::Resolution;

/// What is wanted of a decoder's pictures. Without anything they come as pixels, in their own size.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PictureForm {
    /// Scaled to fit into this, aspect ratio kept.
    pub bounds: Option<Resolution>,
    /// The formats that are taken as decoded; then the pictures are neither converted nor, whatever the bounds, scaled.
    pub formats: Option<gst::Caps>,
    /// A source pad whose peer lends memory for the pictures.
    pub memory: Option<gst::Pad>,
}

impl PictureForm {
    /// Pixels, scaled to fit into `bounds`, in any memory.
    pub fn within(bounds: Resolution) -> Self {
        Self { bounds: Some(bounds), ..Self::default() }
    }

    /// What the end of the decoder's pipeline asks for, once the picture's own size is known.
    pub(super) fn caps(&self, source: Option<Resolution>) -> gst::Caps {
        let size = source.map(|source| self.bounds.map_or(source, |bounds| source.fit_into(bounds)));
        self.formats.clone().unwrap_or_else(|| packed_caps(size))
    }

    /// Lets whoever lends the memory answer the question for it.
    pub(super) fn answer(&self, query: &mut gst::QueryRef) -> bool {
        self.memory.as_ref().is_some_and(|pad| pad.peer_query(query))
    }
}

/// Pixels of 0x??RRGGBB as a u32, which is BGRx in memory where that is little-endian.
pub(super) const PACKED: &str = if cfg!(target_endian = "little") { "BGRx" } else { "xRGB" };

/// Such pixels, square.
pub fn packed_caps(size: Option<Resolution>) -> gst::Caps {
    let caps =
        gst::Caps::builder("video/x-raw").field("format", PACKED).field("pixel-aspect-ratio", gst::Fraction::new(1, 1));
    match size {
        Some(size) => caps.field("width", size.width as i32).field("height", size.height as i32).build(),
        None => caps.build(),
    }
}
