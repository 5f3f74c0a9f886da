//! The paths by which udev knows a camera again after it was plugged in again or the machine was started again: by its
//! serial number (`/dev/v4l/by-id`) and by its place on the bus (`/dev/v4l/by-path`). The number of its node changes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Of all cameras, as they are now.
#[derive(Debug, Default)]
pub struct StablePaths {
    by_id: BTreeMap<PathBuf, String>,
    by_path: BTreeMap<PathBuf, String>,
}

impl StablePaths {
    /// `dev` is `/dev`. Empty where udev makes no such links.
    pub fn read(dev: &Path) -> Self {
        let by_path = links(&dev.join("v4l/by-path"));
        let by_id = links(&dev.join("v4l/by-id"));
        // Cameras of one model without serial numbers share one link, which leads to either of them. Who has none while
        // it is on USB has lost its own to another.
        let has_twin = |(node, path): (&PathBuf, &String)| path.contains("-usb-") && !by_id.contains_key(node);
        let by_id = if by_path.iter().any(has_twin) { BTreeMap::new() } else { by_id };
        Self { by_id, by_path }
    }

    /// Of the camera with this node, the surest first.
    pub fn of(&self, node: &Path) -> Vec<String> {
        let node = node.canonicalize().unwrap_or_else(|_| node.to_owned());
        [&self.by_id, &self.by_path].into_iter().filter_map(|links| links.get(&node).cloned()).collect()
    }
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

        /// Of a node, without the temporary folder.
        fn of(&self, node: &str) -> Vec<String> {
            let prefix = format!("{}/v4l/", self.0.path().display());
            let paths = StablePaths::read(self.0.path()).of(&self.path(node));
            paths.into_iter().map(|path| path.strip_prefix(&prefix).expect("below v4l").to_owned()).collect()
        }
    }

    #[test]
    fn a_camera_has_the_same_paths_with_another_number() {
        let (id, place) =
            ("by-id/usb-046d_C920_1A2B-video-index0", "by-path/pci-0000:00:14.0-usb-0:1:1.0-video-index0");
        let dev = Dev::new(&[
            (id, "video0"),
            (place, "video0"),
            ("by-path/pci-0000:00:14.0-usbv2-0:1:1.0-video-index0", "video0"),
            ("by-path/platform-csi-video-index0", "video4"),
        ]);
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
        assert_eq!(dev.of("video2"), ["by-id/usb-Sonix_Cam-video-index0", other], "it is alone now");
    }

    #[test]
    fn without_udev_there_are_none() {
        let dev = tempfile::tempdir().expect("a temporary folder");
        assert_eq!(StablePaths::read(dev.path()).of(Path::new("/dev/video0")), [""; 0]);
    }
}
