//! What cameras the machine has now. Looked at anew for each start, as cameras come and go.

use std::path::Path;

use gstreamer as gst;
use gstreamer::prelude::*;
use rov_common::units::{Fps, Resolution};
use rov_gst::element::{exists, has_property};

use super::mode::{Encoding, Mode};
use super::source::{CSI_ROWS, Camera, CsiCamera, CsiRow, WEBCAM_ROWS, WebcamRow};
use super::stable::{self, StablePaths};

const DEV: &str = "/dev";
/// Where Linux describes the devices of the nodes.
const DEVICES: &str = "/sys/class/video4linux";

/// The webcams, those with a stable path first and by that, so that their order does not depend on which was found
/// first, then in the system's order; and the CSI cameras.
pub fn cameras() -> (Vec<Camera>, Vec<CsiCamera>) {
    let devices = video_sources();
    let csi: Vec<_> = CSI_ROWS.iter().filter(|row| exists(row.element)).flat_map(|row| csi(row, &devices)).collect();
    let os_rows = WEBCAM_ROWS.iter().filter(|row| row.os == std::env::consts::OS);
    let Some(row) = os_rows.into_iter().find(|row| exists(row.element)) else {
        return (Vec::new(), csi);
    };
    let cameras = devices.iter().filter_map(|device| webcam(row, device)).collect::<Vec<_>>();
    // On Windows and macOS the property is an index in the system's order.
    let numbered = |(index, camera): (usize, Camera)| {
        if camera.id.is_empty() { Camera { id: index.to_string(), ..camera } } else { camera }
    };
    let mut cameras: Vec<_> = cameras.into_iter().enumerate().map(numbered).collect();
    let stable = StablePaths::read(Path::new(DEV), Path::new(DEVICES));
    cameras.iter_mut().for_each(|camera| camera.paths = stable.of(Path::new(&camera.id)));
    let place = |camera: &Camera| stable::own(&camera.paths).last().cloned();
    cameras.sort_by_cached_key(|camera| (camera.paths.is_empty(), place(camera)));
    (cameras, csi)
}

/// Whether there can be a camera at all.
pub fn may_exist() -> bool {
    std::env::consts::OS != "linux" || !nodes().is_empty()
}

/// The nodes in `/dev` that cameras have on Linux, sorted: when they change, a camera has come or gone. So cheap that
/// it can be asked all the time. Empty on other systems.
pub fn nodes() -> Vec<String> {
    // libcamera's cameras show as media devices, all others as video devices.
    let is_camera = |name: &String| name.starts_with("video") || name.starts_with("media");
    let names = std::fs::read_dir(DEV).into_iter().flatten().flatten();
    let mut nodes: Vec<_> = names.filter_map(|node| node.file_name().into_string().ok()).filter(is_camera).collect();
    nodes.sort();
    nodes
}

/// A camera at a path that the device monitor does not list, as without udev.
pub fn camera_at(path: &str) -> Option<Camera> {
    let row = WEBCAM_ROWS.iter().find(|row| row.os == std::env::consts::OS && row.property == "device")?;
    let path = match path.parse::<u32>() {
        Ok(index) => format!("/dev/video{index}"),
        Err(_) => path.to_owned(),
    };
    if !Path::new(&path).exists() {
        return None;
    }
    let element = gst::ElementFactory::make(row.element).property(row.property, &path).build().ok()?;
    // Only an open device knows what it offers. One that cannot be opened is still tried, for the error message of the
    // start.
    let modes = match element.set_state(gst::State::Ready) {
        Ok(_) => element.static_pad("src").map(|pad| modes(&pad.query_caps(None))).unwrap_or_default(),
        Err(_) => Vec::new(),
    };
    // A device that does not close is in use here anyway, and the start will say so.
    let _ = element.set_state(gst::State::Null);
    let paths = StablePaths::read(Path::new(DEV), Path::new(DEVICES)).of(Path::new(&path));
    Some(Camera { element: row.element, property: row.property, id: path, paths, name: "camera".to_owned(), modes })
}

fn video_sources() -> Vec<gst::Device> {
    let monitor = gst::DeviceMonitor::new();
    monitor.add_filter(Some("Video/Source"), None);
    // Without start() the monitor looks once, which is what is wanted.
    monitor.devices().into_iter().collect()
}

fn property(device: &gst::Device, name: &str) -> Option<String> {
    device.properties()?.get::<String>(name).ok()
}

/// The device as a webcam of this row's element; `None` for those of other elements (PipeWire lists the same cameras
/// again).
fn webcam(row: &WebcamRow, device: &gst::Device) -> Option<Camera> {
    let element = device.create_element(None).ok()?;
    if element.factory()?.name() != row.element {
        return None;
    }
    let id = if row.property == "device" {
        property(device, "device.path")
            .or_else(|| property(device, "api.v4l2.path"))
            .or_else(|| element.property(row.property))?
    } else {
        String::new()
    };
    // A CSI sensor of the Jetson or the Pi also shows as a V4L2 device, which gives raw Bayer pictures only.
    let modes = device.caps().map(|caps| modes(&caps)).unwrap_or_default();
    let offers_something = !modes.is_empty() || device.caps().is_none_or(|caps| caps.is_any());
    offers_something.then(|| Camera {
        element: row.element,
        property: row.property,
        id,
        paths: Vec::new(),
        name: device.display_name().to_string(),
        modes,
    })
}

fn csi(row: &'static CsiRow, devices: &[gst::Device]) -> Vec<CsiCamera> {
    if row.element == "nvarguscamerasrc" {
        // It lists no devices: each sensor has a V4L2 node of NVIDIA's driver.
        let nodes = std::fs::read_dir("/sys/class/video4linux").into_iter().flatten().flatten();
        let names = nodes.filter_map(|node| std::fs::read_to_string(node.path().join("name")).ok());
        let sensors = names.filter(|name| name.starts_with("vi-output")).count();
        return (0..sensors).map(|index| CsiCamera { row, id: index.to_string() }).collect();
    }
    let of_row = devices.iter().filter_map(|device| {
        let element = device.create_element(None).ok()?;
        (element.factory()?.name() == row.element).then(|| device.display_name().to_string())
    });
    // libcamera lists USB cameras too; its names are paths in the device tree.
    of_row.filter(|name| !name.to_lowercase().contains("usb")).map(|id| CsiCamera { row, id }).collect()
}

/// The modes of a camera's caps; formats that nothing here can use are left out.
pub fn modes(caps: &gst::CapsRef) -> Vec<Mode> {
    caps.iter().flat_map(structure_modes).collect()
}

fn structure_modes(structure: &gst::StructureRef) -> Vec<Mode> {
    let encodings = match structure.name().as_str() {
        "video/x-raw" => formats(structure).into_iter().map(Encoding::Raw).collect(),
        "image/jpeg" => vec![Encoding::Jpeg],
        "video/x-h264" => vec![Encoding::H264],
        _ => Vec::new(),
    };
    let Some((widths, heights)) = side(structure, "width").zip(side(structure, "height")) else { return Vec::new() };
    let fps = rates(structure);
    let mode = |encoding| Mode {
        encoding,
        min: Resolution::new(widths.0, heights.0),
        max: Resolution::new(widths.1, heights.1),
        fps: fps.clone(),
    };
    encodings.into_iter().map(mode).collect()
}

fn formats(structure: &gst::StructureRef) -> Vec<String> {
    if let Ok(format) = structure.get::<String>("format") {
        return vec![format];
    }
    let list = structure.get::<gst::List>("format");
    list.map(|list| list.iter().filter_map(|format| format.get::<String>().ok()).collect()).unwrap_or_default()
}

fn side(structure: &gst::StructureRef, name: &str) -> Option<(u32, u32)> {
    let whole = |side: i32| u32::try_from(side).ok();
    if let Ok(side) = structure.get::<i32>(name) {
        return whole(side).zip(whole(side));
    }
    let range = structure.get::<gst::IntRange<i32>>(name).ok()?;
    whole(range.min()).zip(whole(range.max()))
}

fn rates(structure: &gst::StructureRef) -> Vec<(Fps, Fps)> {
    let rate = |fraction: gst::Fraction| {
        let (num, den) = (u32::try_from(fraction.numer()).ok()?, u32::try_from(fraction.denom()).ok()?);
        (num > 0 && den > 0).then_some(Fps { num, den })
    };
    if let Ok(fraction) = structure.get::<gst::Fraction>("framerate") {
        return rate(fraction).map(|fps| (fps, fps)).into_iter().collect();
    }
    if let Ok(range) = structure.get::<gst::FractionRange>("framerate") {
        // A range from zero has no slowest rate that could be asked for.
        let max = rate(range.max());
        return max.map(|max| (rate(range.min()).unwrap_or(Fps::whole(1)), max)).into_iter().collect();
    }
    let list = structure.get::<gst::List>("framerate");
    let fractions =
        list.map(|list| list.iter().filter_map(|value| value.get::<gst::Fraction>().ok()).collect::<Vec<_>>());
    fractions.unwrap_or_default().into_iter().filter_map(rate).map(|fps| (fps, fps)).collect()
}

/// Which cameras there are, with a path that only the file system knows.
pub fn cameras_with(device: Option<&str>) -> (Vec<Camera>, Vec<CsiCamera>) {
    let (mut cameras, csi) = cameras();
    let Some(device) = device else { return (cameras, csi) };
    // A link of udev's or the user's own.
    let node = Path::new(device).canonicalize().ok();
    if let Some(camera) = cameras.iter_mut().find(|camera| node.as_deref() == Some(Path::new(&camera.id))) {
        if camera.id != device && !camera.paths.iter().any(|path| path == device) {
            camera.paths.push(device.to_owned());
        }
    } else if !cameras.iter().any(|camera| camera.id == format!("/dev/video{device}"))
        && has_property("v4l2src", "device")
        && let Some(camera) = camera_at(device)
    {
        cameras.push(camera);
    }
    (cameras, csi)
}

#[cfg(test)]
mod tests {
    use std::str::FromStr;

    use super::*;

    #[test]
    fn the_caps_of_a_webcam_become_modes() {
        gst::init().unwrap();
        let caps = gst::Caps::from_str(
            "video/x-raw,format=YUY2,width=640,height=480,framerate={30/1,15/1}; \
             image/jpeg,width=1920,height=1080,framerate=30/1; \
             video/x-h264,width=1280,height=720,framerate=[1/1,60/1]; \
             video/x-bayer,format=rggb,width=640,height=480; \
             video/x-raw,format={NV12,I420},width=[32,2592],height=[32,1944],framerate=[0/1,90/1]",
        )
        .unwrap();
        let modes = modes(&caps);
        assert_eq!(modes.len(), 5);
        assert_eq!(modes[0].fps, [30, 15].map(|fps| (Fps::whole(fps), Fps::whole(fps))));
        assert_eq!((&modes[1].encoding, modes[1].max), (&Encoding::Jpeg, Resolution::new(1920, 1080)));
        assert_eq!(modes[2].fps, [(Fps::whole(1), Fps::whole(60))]);
        assert_eq!((modes[4].min, modes[4].max), (Resolution::new(32, 32), Resolution::new(2592, 1944)));
        assert_eq!(modes[4].fps, [(Fps::whole(1), Fps::whole(90))]);
    }

    #[test]
    fn a_path_that_is_not_there_is_no_camera() {
        gst::init().unwrap();
        assert_eq!(camera_at("/dev/video987"), None);
        assert_eq!(camera_at("987"), None);
    }
}
