//! The paths by which udev knows a camera again after it was plugged in again or the machine was started again: by its
//! serial number (`/dev/v4l/by-id`) and by its place on the bus (`/dev/v4l/by-path`). The number of its node changes.
//! The by-id link of a camera without a serial number names its model only, and leads to any camera of that model.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Serial numbers with fewer letters and digits than this are fillers that every camera of a model has (SN0001,
/// 01.00.00).
const SERIAL_LENGTH: usize = 8;

/// Of all cameras, as they are now.
#[derive(Debug, Default)]
pub struct StablePaths {
    by_serial: BTreeMap<PathBuf, String>,
    by_path: BTreeMap<PathBuf, String>,
    by_model: BTreeMap<PathBuf, String>,
}

impl StablePaths {
    /// `dev` is `/dev`, `devices` is `/sys/class/video4linux`. Empty where udev makes no such links.
    pub fn read(dev: &Path, devices: &Path) -> Self {
        let by_path = links(&dev.join("v4l/by-path"));
        let by_id = links(&dev.join("v4l/by-id"));
        // Cameras of one model without serial numbers share one link, which leads to either of them. Who has none while
        // it is on USB has lost its own to another.
        let has_twin = |(node, path): (&PathBuf, &String)| path.contains("-usb-") && !by_id.contains_key(node);
        let by_id = if by_path.iter().any(has_twin) { BTreeMap::new() } else { by_id };
        let (by_serial, by_model) = by_id.into_iter().partition(|(node, _)| has_serial(devices, node));
        Self { by_serial, by_path, by_model }
    }

    /// Of the camera with this node, the surest first.
    pub fn of(&self, node: &Path) -> Vec<String> {
        let node = node.canonicalize().unwrap_or_else(|_| node.to_owned());
        let all = [&self.by_serial, &self.by_path, &self.by_model];
        all.into_iter().filter_map(|links| links.get(&node).cloned()).collect()
    }
}

/// Of the paths of a camera, those that lead to no other one of its model: what comes behind its place is the model's.
pub fn own(paths: &[String]) -> &[String] {
    let place = paths.iter().position(|path| path.contains("/by-path/"));
    &paths[..place.map_or(paths.len(), |at| at + 1)]
}

/// Whether the USB device of the node has a serial number, which its by-id link then ends with.
fn has_serial(devices: &Path, node: &Path) -> bool {
    // `device` is the interface, whose folder is in that of the device.
    let path = node.file_name().map(|name| devices.join(name).join("device/../serial"));
    let serial = path.and_then(|path| std::fs::read_to_string(path).ok()).unwrap_or_default();
    let serial: String = serial.chars().filter(char::is_ascii_alphanumeric).collect();
    serial.len() >= SERIAL_LENGTH && !is_date(&serial)
}

/// That of the firmware, as 20200512 or 202005121530: all cameras of the model have it.
fn is_date(serial: &str) -> bool {
    let number = |at: std::ops::Range<usize>| serial.get(at)?.parse::<u32>().ok();
    serial.bytes().all(|byte| byte.is_ascii_digit())
        && [8, 12, 14].contains(&serial.len())
        && number(0..4).is_some_and(|year| (2000..2100).contains(&year))
        && number(4..6).is_some_and(|month| (1..=12).contains(&month))
        && number(6..8).is_some_and(|day| (1..=31).contains(&day))
}

/// From nodes to the links that lead to them, of several the first by name.
fn links(folder: &Path) -> BTreeMap<PathBuf, String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut links: Vec<_> = entries.filter_map(|entry| entry.path().to_str().map(str::to_owned)).collect();
    links.sort_unstable_by(|a, b| b.cmp(a));
    links.into_iter().filter_map(|link| Some((Path::new(&link).canonicalize().ok()?, link))).collect()
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::symlink;

    use tempfile::TempDir;

    use super::*;

    /// A folder as `/dev`, with links to nodes.
    struct Dev(TempDir);

    impl Dev {
        fn new(links: &[(&str, &str)]) -> Self {
            let dev = Self(tempfile::tempdir().expect("a temporary folder"));
            for folder in ["by-id", "by-path"] {
                std::fs::create_dir_all(dev.path(&format!("v4l/{folder}"))).expect("a folder");
            }
            links.iter().for_each(|(link, node)| dev.plug(link, node));
            dev
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }

        fn plug(&self, link: &str, node: &str) {
            std::fs::write(self.path(node), "").expect("a node");
            symlink(format!("../../{node}"), self.path(&format!("v4l/{link}"))).expect("a link");
        }

        fn unplug(&self, link: &str) {
            std::fs::remove_file(self.path(&format!("v4l/{link}"))).expect("a link");
        }

        /// The device of the node has this serial number.
        fn serial(&self, node: &str, serial: &str) {
            let (device, class) = (self.path(&format!("usb/{node}")), self.path(&format!("class/{node}")));
            std::fs::create_dir_all(device.join("1:1.0")).expect("a folder");
            std::fs::create_dir_all(&class).expect("a folder");
            std::fs::write(device.join("serial"), format!("{serial}\n")).expect("a serial number");
            symlink(device.join("1:1.0"), class.join("device")).expect("a link");
        }

        /// Of a node, without the temporary folder.
        fn of(&self, node: &str) -> Vec<String> {
            let prefix = format!("{}/v4l/", self.0.path().display());
            let paths = StablePaths::read(self.0.path(), &self.path("class")).of(&self.path(node));
            paths.into_iter().map(|path| path.strip_prefix(&prefix).expect("below v4l").to_owned()).collect()
        }
    }

    #[test]
    fn a_camera_has_the_same_paths_with_another_number() {
        let (id, place) =
            ("by-id/usb-046d_C920_1A2B3C4D-video-index0", "by-path/pci-0000:00:14.0-usb-0:1:1.0-video-index0");
        let dev = Dev::new(&[
            (id, "video0"),
            (place, "video0"),
            ("by-path/pci-0000:00:14.0-usbv2-0:1:1.0-video-index0", "video0"),
            ("by-path/platform-csi-video-index0", "video4"),
        ]);
        ["video0", "video7"].iter().for_each(|node| dev.serial(node, "1A2B3C4D"));
        assert_eq!(dev.of("video0"), [id, place]);
        assert_eq!(dev.of("video4"), ["by-path/platform-csi-video-index0"]);
        assert_eq!(dev.of("video9"), [""; 0]);
        [id, place].iter().for_each(|link| dev.unplug(link));
        dev.unplug("by-path/pci-0000:00:14.0-usbv2-0:1:1.0-video-index0");
        [id, place].iter().for_each(|link| dev.plug(link, "video7"));
        assert_eq!((dev.of("video7"), dev.of("video0").len()), (vec![id.to_owned(), place.to_owned()], 0));
    }

    #[test]
    fn cameras_without_serial_numbers_are_told_apart_by_their_places() {
        let (one, other) = ("by-path/pci-usb-0:1:1.0-video-index0", "by-path/pci-usb-0:2:1.0-video-index0");
        let dev = Dev::new(&[("by-id/usb-Sonix_Cam-video-index0", "video2"), (one, "video0"), (other, "video2")]);
        assert_eq!((dev.of("video0"), dev.of("video2")), (vec![one.to_owned()], vec![other.to_owned()]));
        dev.unplug(one);
        let alone = [other, "by-id/usb-Sonix_Cam-video-index0"];
        assert_eq!(dev.of("video2"), alone, "the link led to the other one before");
        dev.serial("video2", "SN0001");
        assert_eq!(dev.of("video2"), alone, "all of the model have this number");
        for (serial, is_one) in [("2020-05-12", false), ("202005121530", false), ("20201512", true), ("12345678", true)]
        {
            std::fs::write(dev.path("usb/video2/serial"), serial).expect("a serial number");
            assert_eq!(dev.of("video2") != alone, is_one, "{serial}");
        }
    }

    #[test]
    fn without_udev_there_are_none() {
        let dev = tempfile::tempdir().expect("a temporary folder");
        assert_eq!(StablePaths::read(dev.path(), dev.path()).of(Path::new("/dev/video0")), [""; 0]);
    }
}
