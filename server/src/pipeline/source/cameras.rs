//! The cameras that a machine may have, and which of them is meant. Pure: those that it has now come in as [`Machine`].

use rov_common::api::CaptureTime;

use super::{Machine, Missing};
use crate::config::{SourceConfig, SourceKind};
use crate::pipeline::mode::Mode;
use crate::pipeline::stable;

/// A camera that the machine has now.
#[derive(Clone, Debug, PartialEq)]
pub struct Camera {
    /// The source element, and its property that chooses the camera.
    pub element: &'static str,
    pub property: &'static str,
    /// The property's value: `/dev/video0`, or an index.
    pub id: String,
    /// Other paths that lead to it, whatever its number is: see `stable`. The surest first.
    pub paths: Vec<String>,
    /// What the camera calls itself.
    pub name: String,
    /// Empty: not known, negotiated when it starts.
    pub modes: Vec<Mode>,
}

/// A camera on the board's own connector.
#[derive(Clone, Debug, PartialEq)]
pub struct CsiCamera {
    pub row: &'static CsiRow,
    /// Value of the row's property.
    pub id: String,
}

/// A camera as the user names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// `Webcam` or `Csi`.
    pub kind: SourceKind,
    /// For `--device`: what leads to it after it was plugged in again, where the machine knows such a thing.
    pub device: String,
    /// Where it is now.
    pub id: String,
    /// What it calls itself.
    pub title: String,
    /// All that leads to it and to no other camera; empty where only numbers do.
    pub known_by: Vec<String>,
}

impl Found {
    pub(super) fn webcam(camera: &Camera) -> Self {
        Self {
            kind: SourceKind::Webcam,
            device: camera.paths.first().unwrap_or(&camera.id).clone(),
            id: camera.id.clone(),
            title: camera.name.clone(),
            known_by: stable::own(&camera.paths).to_vec(),
        }
    }

    pub(super) fn csi(camera: &CsiCamera) -> Self {
        let (device, id) = (camera.id.clone(), camera.id.clone());
        let title = format!("CSI {}", id.rsplit('/').next().unwrap_or_default());
        Self { kind: SourceKind::Csi, device, known_by: vec![id.clone()], id, title }
    }

    /// A part of URLs, the same as long as [`Self::device`] is: of what it calls itself, and a mark of its own.
    pub fn name(&self) -> String {
        let plain = self.title.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' });
        let words: String = plain.collect();
        let words: Vec<_> = words.split('-').filter(|word| !word.is_empty()).collect();
        let words: String = words.join("-").chars().take(MAX_TITLE).collect();
        // FNV-1a, as that of the standard library may change.
        let hash = self.device.bytes().fold(0x811c_9dc5_u32, |hash, b| (hash ^ u32::from(b)).wrapping_mul(0x0100_0193));
        format!("{}-{:04x}", if words.is_empty() { "camera" } else { words.trim_end_matches('-') }, hash >> 16)
    }
}

/// For the log: `/dev/v4l/by-id/usb-046d_C920-video-index0 (C920)`.
impl std::fmt::Display for Found {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.kind {
            SourceKind::Csi => write!(f, "CSI camera {}", self.device),
            _ => write!(f, "{} ({})", self.device, self.title),
        }
    }
}

/// So that with the mark and `/stream1` it is as short as announcements need it.
const MAX_TITLE: usize = 16;

/// An element for CSI cameras.
#[derive(Debug, PartialEq)]
pub struct CsiRow {
    pub element: &'static str,
    pub property: &'static str,
    /// Caps without size and rate.
    pub caps: &'static str,
    pub nvmm: bool,
    /// Whether it gives the sensor's time, in the pipeline's running time.
    pub capture_time: CaptureTime,
}

pub const CSI_ROWS: &[CsiRow] = &[
    CsiRow {
        element: "nvarguscamerasrc",
        property: "sensor-id",
        caps: "video/x-raw(memory:NVMM),format=NV12",
        nvmm: true,
        capture_time: CaptureTime::Arrival,
    },
    CsiRow {
        element: "libcamerasrc",
        property: "camera-name",
        caps: "video/x-raw,format=NV12",
        nvmm: false,
        capture_time: CaptureTime::Source,
    },
];

/// A webcam element of an operating system (`std::env::consts::OS`), best first.
#[derive(Debug, PartialEq)]
pub struct WebcamRow {
    pub os: &'static str,
    pub element: &'static str,
    /// The property that chooses the camera: a path, or an index.
    pub property: &'static str,
}

pub const WEBCAM_ROWS: &[WebcamRow] = &[
    WebcamRow { os: "linux", element: "v4l2src", property: "device" },
    WebcamRow { os: "windows", element: "mfvideosrc", property: "device-index" },
    WebcamRow { os: "windows", element: "ksvideosrc", property: "device-index" },
    WebcamRow { os: "macos", element: "avfvideosrc", property: "device-index" },
];

/// The cameras that `--source` means now: where one was taken before, that one alone, and no other that has its number
/// meanwhile.
pub fn choice(config: &SourceConfig, machine: &Machine) -> Vec<Found> {
    let csi = csi_choice(config, machine).map(Found::csi);
    let webcams = webcam_choice(config, machine).map(Found::webcam);
    match config.kind {
        SourceKind::Auto => csi.chain(webcams).collect(),
        SourceKind::Csi => csi.collect(),
        SourceKind::Webcam => webcams.collect(),
        _ => Vec::new(),
    }
}

/// Of several that match, the one that was the surest first.
pub(super) fn webcam_choice<'a>(config: &'a SourceConfig, machine: &'a Machine) -> impl Iterator<Item = &'a Camera> {
    let all = machine.cameras.iter().filter(|_| config.taken.is_empty());
    let find = |path: &'a String| machine.cameras.iter().find(move |camera| camera.paths.contains(path));
    all.chain(config.taken.iter().find_map(find))
}

pub(super) fn csi_choice<'a>(config: &'a SourceConfig, machine: &'a Machine) -> impl Iterator<Item = &'a CsiCamera> {
    machine.csi.iter().filter(|camera| config.taken.is_empty() || config.taken.contains(&camera.id))
}

/// By index among the cameras, by path, or by a part of the name; the one that was taken before by what it is.
pub(super) fn find_webcam<'a>(config: &'a SourceConfig, machine: &'a Machine) -> Result<&'a Camera, Missing> {
    let cameras = &machine.cameras;
    let found = match config.device.as_deref() {
        _ if !config.taken.is_empty() => webcam_choice(config, machine).next(),
        None => cameras.first(),
        Some(device) => {
            // On Linux the index is that of /dev/videoN, as everywhere else there; a camera often has several such
            // nodes.
            let path = format!("/dev/video{device}");
            let name = device.to_lowercase();
            let leads =
                |camera: &&Camera| camera.paths.iter().chain([&camera.id]).any(|id| id == device || *id == path);
            let by_id = cameras.iter().find(leads);
            by_id.or_else(|| match device.parse::<usize>() {
                Ok(_) => None,
                Err(_) => cameras.iter().find(|camera| camera.name.to_lowercase().contains(&name)),
            })
        }
    };
    found.ok_or_else(|| {
        let list: Vec<_> = cameras.iter().map(|camera| Found::webcam(camera).to_string()).collect();
        let list = list.join(", ");
        Missing(match (config.taken.first().or(config.device.as_ref()), list.is_empty()) {
            (None, _) => "no webcam found: there is no camera, connect one, or use --source test".to_owned(),
            (Some(wanted), true) => {
                format!("no webcam {wanted}: there is no camera, connect one, or use --source test")
            }
            (Some(wanted), false) if config.taken.is_empty() => format!("no webcam {wanted}: there is {list}"),
            (Some(wanted), false) => {
                format!("webcam {wanted} is gone: there is {list}; to take another one, restart the server")
            }
        })
    })
}

pub(super) fn find_csi<'a>(config: &'a SourceConfig, machine: &'a Machine) -> Result<&'a CsiCamera, Missing> {
    let found = match config.device.as_deref() {
        _ if !config.taken.is_empty() => csi_choice(config, machine).next(),
        None => machine.csi.first(),
        Some(device) => {
            let by_id = machine.csi.iter().find(|camera| camera.id.contains(device));
            by_id.or_else(|| device.parse().ok().and_then(|index: usize| machine.csi.get(index)))
        }
    };
    found.ok_or_else(|| {
        let list: Vec<_> = machine.csi.iter().map(|camera| camera.id.clone()).collect();
        let wanted = config.device.as_deref().unwrap_or("camera");
        Missing(match list.is_empty() {
            true => "no CSI camera found: needs nvarguscamerasrc (Jetson) or libcamerasrc (Raspberry Pi) and a camera \
                     on the connector"
                .to_owned(),
            false => format!("no CSI {wanted}: there is {}", list.join(", ")),
        })
    })
}
