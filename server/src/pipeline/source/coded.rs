//! A coded stream as launch text: the form in which everything behind the seam takes it. Pure.

use rov_common::codec::Codec;
use rov_gst::decoders::{coded_caps, parser};

use crate::pipeline::encoder::EncoderRow;

/// From a stream of any form to `coded_caps`, with parameter sets before each keyframe.
pub fn parsed(codec: Codec) -> String {
    let sets = if codec.has_parameter_sets() { " config-interval=-1" } else { "" };
    format!("{}{sets} ! {}", parser(codec), coded_caps(codec))
}

/// From an encoder to `coded_caps`.
pub fn access_units(encoder: &EncoderRow) -> String {
    if encoder.gives_access_units {
        // Written out, as one caps cannot follow another by themselves.
        format!("capsfilter caps={}", coded_caps(encoder.codec))
    } else {
        parsed(encoder.codec)
    }
}
