//! A camera that is made of two others of the file (`source = "pip"`): picture-in-picture.

use super::{CameraConfig, Flip, Position, SourceConfig, SourceKind};
use crate::cli::CameraOptions;

const DEFAULT_SCALE: f64 = 0.25;
/// At half the size each corner has a picture's place of its own.
pub const SCALES: std::ops::RangeInclusive<f64> = 0.1..=0.5;
/// In pixels.
pub const MAX_BORDER: u32 = 64;

#[derive(Clone, Debug, PartialEq)]
pub struct PipConfig {
    /// The one that fills the picture, and the one in its corner.
    pub parts: [Part; 2],
    pub layout: Layout,
    /// Whether the small one is shown.
    pub is_enabled: bool,
}

/// A camera that is shown.
#[derive(Clone, Debug, PartialEq)]
pub struct Part {
    /// Another camera's, whose pictures are raw.
    pub name: String,
    /// Of that camera.
    pub flip: Flip,
}

/// How the small picture lies in the large one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Layout {
    pub position: Position,
    /// Its width and height, of the large one's: 0.1 to 0.5.
    pub scale: f64,
    /// Pixels, within its place; 0: none.
    pub border: u32,
}

/// A key of a `[[camera]]` that cannot be as it is.
#[derive(Debug)]
pub(super) struct Misset {
    pub key: &'static str,
    pub message: String,
}

fn wrong<T>(key: &'static str, message: impl std::fmt::Display) -> Result<T, Misset> {
    Err(Misset { key, message: format!("{key}: {message}") })
}

impl PipConfig {
    /// What the options of a camera say; none for other sources.
    pub(super) fn new(kind: SourceKind, options: &CameraOptions) -> Result<Option<Self>, Misset> {
        if kind != SourceKind::Pip {
            let given = [
                ("main", options.main.is_some()),
                ("pip", options.pip.is_some()),
                ("pip-enabled", options.pip_enabled.is_some()),
                ("position", options.position.is_some()),
                ("scale", options.scale.is_some()),
                ("border", options.border.is_some()),
            ];
            return match given.iter().find(|(_, is_given)| *is_given) {
                Some((key, _)) => wrong(key, format!("needs source = \"pip\", but the source is {}", kind.name())),
                None => Ok(None),
            };
        }
        let of_parts = [("flip", options.flip.is_some()), ("frozen-after", options.frozen_after.is_some())];
        if let Some((key, _)) = of_parts.iter().find(|(_, is_given)| *is_given) {
            return wrong(key, "is set at the cameras that source = \"pip\" shows");
        }
        let part = |key, name: &Option<String>, what| match name {
            Some(name) => Ok(Part { name: name.clone(), flip: Flip::None }),
            None => wrong(key, format!("source = \"pip\" needs the name of the [[camera]] that {what}")),
        };
        let parts = [
            part("main", &options.main, "fills the picture")?,
            part("pip", &options.pip, "is shown small in a corner of it")?,
        ];
        let scale = options.scale.unwrap_or(DEFAULT_SCALE);
        if !SCALES.contains(&scale) {
            return wrong("scale", format!("{scale} must be from {} to {}", SCALES.start(), SCALES.end()));
        }
        let border = options.border.unwrap_or(0);
        if border > MAX_BORDER {
            return wrong("border", format!("{border} must be from 0 to {MAX_BORDER} pixels"));
        }
        let layout = Layout { position: options.position.unwrap_or_default(), scale, border };
        Ok(Some(Self { parts, layout, is_enabled: options.pip_enabled.unwrap_or(true) }))
    }

    /// Whether both show the same two cameras, whichever is large.
    pub fn shows_cameras_of(&self, other: &Self) -> bool {
        let shows = |part: &Part| other.parts.iter().any(|shown| shown.name == part.name);
        self.parts.iter().all(shows)
    }
}

/// Has each camera know by whom it is shown, and how those are turned that it shows. What is wrong comes with the
/// number of the camera.
pub(super) fn join(cameras: &mut [CameraConfig]) -> Result<(), (usize, Misset)> {
    for at in 0..cameras.len() {
        let Some(mut pip) = cameras[at].source.pip.take() else { continue };
        for (part, key) in pip.parts.iter_mut().zip(["main", "pip"]) {
            let shown = find(cameras, at, key, &part.name).map_err(|misset| (at, misset))?;
            part.flip = cameras[shown].source.flip;
            cameras[shown].is_part = true;
        }
        if pip.parts[0].name == pip.parts[1].name {
            let message = format!("{} is the main camera already: name another one", pip.parts[1].name);
            return wrong("pip", message).map_err(|misset| (at, misset));
        }
        cameras[at].source.pip = Some(pip);
    }
    Ok(())
}

/// The number of the camera of this name, which the camera `of` is to show.
fn find(cameras: &[CameraConfig], of: usize, key: &'static str, name: &str) -> Result<usize, Misset> {
    let Some(at) = cameras.iter().position(|camera| camera.name == name) else {
        let is_usable = |(at, camera): &(usize, &CameraConfig)| *at != of && unusable(&camera.source).is_none();
        let others = cameras.iter().enumerate().filter(is_usable);
        let names: Vec<_> = others.map(|(_, camera)| camera.name.as_str()).collect();
        let there = if names.is_empty() { "no other camera".to_owned() } else { names.join(", ") };
        return wrong(key, format!("there is no camera {name:?} to show; there is {there}"));
    };
    let source = &cameras[at].source;
    if at == of {
        return wrong(key, format!("{name} would show itself: name another camera"));
    }
    match unusable(source) {
        Some(reason) => wrong(key, format!("{name} {reason}")),
        None => Ok(at),
    }
}

/// Why a camera of this source cannot be shown by another one.
fn unusable(source: &SourceConfig) -> Option<String> {
    if source.kind == SourceKind::Pip {
        return Some("is made of two cameras itself: name one with pictures of its own".to_owned());
    }
    let kind = source.kind.name();
    source.is_passed_through().then(|| {
        format!(
            "is passed through untouched (source {kind}), so that there are no raw pictures to show: name a camera \
             that is encoded here"
        )
    })
}
