//! Changes of a running pipeline: what `rate_control` wants of the encoder.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use gstreamer as gst;
use gstreamer::prelude::*;
use rov_common::sync::lock;
use rov_common::units::{Bitrate, Resolution};
use rov_gst::element::{has_property, set_property};

use super::capture::{Branch, GraphError};
use super::encoder::{LiveSize, Settings};
use crate::rate_control::{Ceiling, Rate, Step};

impl Branch {
    /// What the encoder makes without a limit, once size and rate are known; none where nothing here encodes.
    pub fn ceiling(&self) -> Option<Ceiling> {
        *lock(&self.ceiling)
    }

    /// Makes it so; true when something but a pause has changed.
    pub fn apply(&self, rate: &Rate) -> Result<bool, GraphError> {
        if let Some(until) = rate.pause_until {
            self.held_until.set(until);
        }
        let resized = self.set_step(rate.step);
        let changed = rate.bitrate != self.bitrate();
        if changed || resized {
            self.set_bitrate(rate.bitrate)?;
        }
        Ok(changed || resized)
    }

    /// Changes the bit rate while pictures flow.
    pub fn set_bitrate(&self, bitrate: Bitrate) -> Result<(), GraphError> {
        let output = self.output.get().and_then(|output| output.encoder.as_ref());
        let Some((encoder, row)) = output.and_then(|(encoder, row)| Some((encoder.upgrade()?, row))) else {
            return Err(GraphError::Bitrate(
                "the source's stream goes out untouched, nothing encodes it here".to_owned(),
            ));
        };
        let mut settings = lock(&self.settings);
        let wanted = Settings { bitrate, ..*settings };
        let halved = self.step.load(Ordering::Relaxed) == Step::HalfRate as u8 && row.live_size == LiveSize::RateByCaps;
        let asked = Bitrate::from_kbps(bitrate.kbps().saturating_mul(if halved { 2 } else { 1 }));
        let properties = row.live_rate_properties(&Settings { bitrate: asked, ..wanted }, &has_property);
        let all_set = properties.iter().filter(|(name, value)| !set_property(&encoder, name, value)).count() == 0;
        if properties.is_empty() || !all_set {
            return Err(GraphError::Bitrate(format!("{} does not take {bitrate}", row.element)));
        }
        *settings = wanted;
        Ok(())
    }

    /// Encodes a smaller picture, or the full one again, where the encoder can do that while pictures flow; true when
    /// that is a change. It costs a keyframe.
    fn set_step(&self, step: Step) -> bool {
        let Some(size) = self.output.get().and_then(|output| output.size.as_ref()) else { return false };
        let (Some(filter), Some(ceiling)) = (size.filter.upgrade(), self.ceiling()) else { return false };
        let before = self.step.swap(step as u8, Ordering::Relaxed);
        if !ceiling.fixed_size && (before == Step::Full as u8) != (step == Step::Full) {
            let mut caps = size.full.clone();
            if step != Step::Full {
                // Even, as 4:2:0 video has to be.
                let half = |side: u32| i32::try_from((side / 4 * 2).max(16)).unwrap_or(i32::MAX);
                let Resolution { width, height } = ceiling.resolution;
                let structure = caps.make_mut();
                structure.set("width", half(width));
                structure.set("height", half(height));
            }
            filter.set_property("caps", &caps);
        }
        before != step as u8
    }
}

/// Leaves out what is not to be encoded: all pictures before `held_until`, and every second one at half the rate.
pub(super) fn leave_out(pad: &gst::Pad, branch: &Branch) {
    let (held_until, step) = (branch.held_until.clone(), branch.step.clone());
    let odd = AtomicBool::new(false);
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, _| {
        let held = held_until.get().is_some_and(|until| Instant::now() < until);
        let odd = !odd.fetch_xor(true, Ordering::Relaxed);
        let left_out = held || odd && step.load(Ordering::Relaxed) == Step::HalfRate as u8;
        if left_out { gst::PadProbeReturn::Handled } else { gst::PadProbeReturn::Ok }
    });
}
