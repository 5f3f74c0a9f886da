//! What caps say.

use gstreamer as gst;
use rov_common::units::{Fps, Resolution};

/// Size and rate of video caps; no rate where it varies.
pub fn format_of(caps: &gst::CapsRef) -> Option<(Resolution, Option<Fps>)> {
    let structure = caps.structure(0)?;
    let side = |name| structure.get::<i32>(name).ok().and_then(|side| u32::try_from(side).ok());
    let rate = structure.get::<gst::Fraction>("framerate").ok();
    let rate = rate.and_then(|rate| Some((u32::try_from(rate.numer()).ok()?, u32::try_from(rate.denom()).ok()?)));
    let fps = rate.filter(|(num, den)| *num > 0 && *den > 0).map(|(num, den)| Fps { num, den });
    Some((Resolution::new(side("width")?, side("height")?), fps))
}
