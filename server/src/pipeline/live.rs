//! Changes of a running pipeline: the encoder's bit rate for the size that was negotiated, and what `rate_control` wants
//! of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use gstreamer as gst;
use gstreamer::prelude::*;
use rov_common::sync::lock;
use rov_common::units::{Bitrate, Fps, Resolution};
use rov_gst::caps::format_of;
use rov_gst::element::{has_property, is_made_by, set_property};

use super::encoder::{EncoderRow, LiveSize, Settings};
use super::graph::{Branch, GraphError};
use super::plan::{self, BranchPlan};
use crate::rate_control::{Ceiling, Rate, Step};

impl Branch {
    /// What the encoder makes without a limit, once size and rate are known; none where nothing here encodes.
    pub fn ceiling(&self) -> Option<Ceiling> {
        *lock(&self.ceiling)
    }

    /// Makes it so; true when something but a pause has changed.
    pub fn apply(&self, rate: &Rate) -> Result<bool, GraphError> {
        if let Some(until) = rate.hold_until {
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

/// The caps filter before an encoder, with its caps for the full picture.
pub(super) struct Size {
    filter: gst::glib::WeakRef<gst::Element>,
    full: gst::Caps,
}

impl Size {
    /// Of an encoder whose row allows it.
    pub fn of(encoder: &gst::Element, row: &EncoderRow) -> Option<Self> {
        let filter = encoder.static_pad("sink")?.peer()?.parent_element()?;
        let is_filter = is_made_by(&filter, "capsfilter");
        (row.live_size != LiveSize::No && is_filter)
            .then(|| Self { full: filter.property("caps"), filter: filter.downgrade() })
    }
}

/// Sets what depends on bit rate and frame rate once these are known, just before the encoder is opened.
///
/// The text could only assume: a file of 25 frames a second gets another one-frame buffer than one of 30.
pub(super) fn fit_encoder(encoder: &gst::Element, row: &'static EncoderRow, plan: &BranchPlan, branch: &Arc<Branch>) {
    let Some(pad) = encoder.static_pad("sink") else { return };
    let (plan, branch, encoder) = (plan.clone(), Arc::downgrade(branch), encoder.downgrade());
    pad.add_probe(gst::PadProbeType::EVENT_DOWNSTREAM, move |_, info| {
        let Some(gst::EventView::Caps(caps)) = info.event().map(|event| event.view()) else {
            return gst::PadProbeReturn::Ok;
        };
        let Some((encoder, (resolution, fps))) = encoder.upgrade().zip(format_of(caps.caps())) else {
            return gst::PadProbeReturn::Ok;
        };
        let Some(branch) = branch.upgrade() else { return gst::PadProbeReturn::Ok };
        let settings = {
            let mut settings = lock(&branch.settings);
            settings.fps = fps.or(settings.fps);
            settings.resolution = Some(resolution);
            let bitrate = plan::bitrate_for(&plan, resolution, settings.fps);
            settings.bitrate = plan.limit.map_or(bitrate, |limit| limit.min(bitrate));
            let fps = settings.fps.map_or(30.0, Fps::as_f64);
            let ceiling =
                Ceiling { bitrate, resolution, fps, costly: row.live_rate_costs_keyframe, fixed_size: plan.fixed_size };
            *lock(&branch.ceiling) = Some(ceiling);
            *settings
        };
        for (property, value) in row.rate_properties(&settings, &has_property) {
            if !set_property(&encoder, property, &value) {
                tracing::warn!("{} {property}={value}: not taken, the encoder keeps its value", row.element);
            }
        }
        // Once: a later change of size goes to an open encoder, which takes few properties.
        gst::PadProbeReturn::Remove
    });
}

/// Leaves out what is not to be encoded: all pictures before `held_until`, and every second one at half the rate.
pub(super) fn leave_out(pad: &gst::Pad, branch: &Branch) {
    let (held_until, step) = (branch.held_until.clone(), branch.step.clone());
    let odd = AtomicBool::new(false);
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, _| {
        let held = held_until.get().is_some_and(|until| Instant::now() < until);
        let odd = !odd.fetch_xor(true, Ordering::Relaxed);
        let left_out = held || odd && step.load(Ordering::Relaxed) == Step::HalfRate as u8;
        // Handled and not Drop: with Drop, GStreamer would free again what the bindings have freed.
        if left_out { gst::PadProbeReturn::Handled } else { gst::PadProbeReturn::Ok }
    });
}
