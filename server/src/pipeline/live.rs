//! Changes of a running pipeline: what `rate_control` wants of the encoder.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use gstreamer as gst;
use gstreamer::prelude::*;
use rov_common::sync::lock;
use rov_common::units::{Bitrate, Fps, Resolution};
use rov_gst::element::{has_property, set_property};

use super::capture::{Branch, GraphError};
use super::encoder::{LiveSize, Settings};
use super::source;
use crate::config::{EncodeConfig, Flip, auto_bitrate};
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

    /// Has the encoder make what `encode` says without a limit. A limit stays.
    pub fn change_rate(&self, encode: &EncodeConfig) -> Result<(), GraphError> {
        let not_yet = || GraphError::Bitrate("the source has given no picture yet".to_owned());
        let (before, now) = (self.ceiling().ok_or_else(not_yet)?, self.bitrate());
        let fps = lock(&self.settings).fps.unwrap_or(Fps::whole(30));
        let by_size = || auto_bitrate(self.codec, before.resolution, fps, encode.max_quality);
        let bitrate = encode.bitrate.unwrap_or_else(by_size);
        self.set_bitrate(if now < before.bitrate { now.min(bitrate) } else { bitrate })?;
        *lock(&self.ceiling) = Some(Ceiling { bitrate, ..before });
        Ok(())
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
        let step = self.step.load(Ordering::Relaxed);
        let halved = step == Step::HalfRate as u8 && row.live_size == LiveSize::RateByCaps;
        let asked = Bitrate::from_kbps(bitrate.kbps().saturating_mul(if halved { 2 } else { 1 }));
        // Of a quarter of the pixels; full pictures at half the rate have no more, as each takes the link twice as long.
        let half = |full: Resolution| Resolution::new(full.width / 2, full.height / 2);
        let resolution = if step == Step::Full as u8 { wanted.resolution } else { wanted.resolution.map(half) };
        let properties = row.live_rate_properties(&Settings { bitrate: asked, resolution, ..wanted }, &has_property);
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
            self.set_in_stream(&filter, "caps", To::Caps(caps));
        }
        before != step as u8
    }

    /// Whether the pictures can be turned while they flow. A branch that has failed needs not.
    pub fn can_flip(&self) -> bool {
        self.has_failed() || self.flipping().is_some()
    }

    /// Turns the pictures from the next one on, if that can be.
    pub fn flip(&self, flip: Flip) {
        if let Some(element) = self.flipping() {
            self.set_in_stream(&element, "method", To::Text(source::turning(flip)));
        }
    }

    fn flipping(&self) -> Option<gst::Element> {
        self.output.get()?.flip.as_ref()?.upgrade()
    }

    /// Has a property of the tail set before the next picture goes into it.
    fn set_in_stream(&self, element: &gst::Element, property: &'static str, to: To) {
        let mut to_set = lock(&self.to_set);
        // One that has not been set yet is for nothing.
        to_set.retain(|other| !(other.property == property && other.element.upgrade().as_ref() == Some(element)));
        to_set.push(ToSet { element: element.downgrade(), property, to });
    }
}

/// A property that is to be set.
pub(super) struct ToSet {
    element: gst::glib::WeakRef<gst::Element>,
    property: &'static str,
    to: To,
}

enum To {
    Caps(gst::Caps),
    Text(&'static str),
}

/// Sets what is to be set between two pictures that pass `pad`, on their thread. From another one, the caps behind the
/// scaler could change while it makes a picture of the size before: the converter behind it then fails, as it cannot
/// make the new size of that.
pub(super) fn set_in_stream(pad: &gst::Pad, branch: &Arc<Branch>) {
    let branch = Arc::downgrade(branch);
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, _| {
        let to_set = branch.upgrade().map(|branch| std::mem::take(&mut *lock(&branch.to_set)));
        for ToSet { element, property, to } in to_set.into_iter().flatten() {
            match (element.upgrade(), to) {
                (Some(element), To::Caps(caps)) => element.set_property(property, caps),
                (Some(element), To::Text(text)) => drop(set_property(&element, property, text)),
                (None, _) => {}
            }
        }
        gst::PadProbeReturn::Ok
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
        if left_out { gst::PadProbeReturn::Handled } else { gst::PadProbeReturn::Ok }
    });
}
