//! What is encoded: size, rate and bit rate of the points that are measured.

use clap::ValueEnum;
use serde::Serialize;

/// By name, as on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PointName {
    #[value(name = "720p30")]
    P720At30,
    #[value(name = "1080p30")]
    P1080At30,
    #[value(name = "1080p60")]
    P1080At60,
    /// For four cameras
    #[value(name = "360p30")]
    P360At30,
    /// And a second stream, 640x360
    #[value(name = "720p30two")]
    P720Two,
    /// A clip that is passed through, 4 Mbit/s, to many viewers
    #[value(name = "720p30file")]
    P720File,
    /// A clip that is passed through, 20 Mbit/s
    #[value(name = "1080p30file")]
    P1080File,
    /// A clip that is passed through, 52 Mbit/s
    #[value(name = "4k60file")]
    P2160At60,
    /// The same, 250 Mbit/s
    #[value(name = "4k60file250")]
    P2160At60Large,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, clap::Args)]
pub struct Point {
    #[arg(long)]
    pub width: u32,
    #[arg(long)]
    pub height: u32,
    #[arg(long)]
    pub fps: u32,
    #[arg(long)]
    pub kbps: u32,
}

impl PointName {
    pub fn point(self) -> Point {
        let point = |width, height, fps, kbps| Point { width, height, fps, kbps };
        match self {
            Self::P360At30 => Point::SMALL,
            Self::P720At30 | Self::P720Two | Self::P720File => point(1280, 720, 30, 4_000),
            Self::P1080At30 => point(1920, 1080, 30, 8_000),
            Self::P1080At60 => point(1920, 1080, 60, 12_000),
            Self::P1080File => point(1920, 1080, 30, 20_000),
            Self::P2160At60 => point(3840, 2160, 60, 52_000),
            Self::P2160At60Large => point(3840, 2160, 60, 250_000),
        }
    }

    /// Nothing is encoded or decoded: a clip is sent, and access units are received.
    pub fn is_clip(self) -> bool {
        matches!(self, Self::P720File | Self::P1080File | Self::P2160At60 | Self::P2160At60Large)
    }

    /// Measured within one machine that has a network interface: Janus does not use loopback, and a viewer with a link
    /// of its own is at the other end of it.
    pub fn needs_interface(self) -> bool {
        matches!(self, Self::P720Two | Self::P720File)
    }

    pub fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }
}

impl Point {
    /// Of each of four cameras, and of a second stream.
    pub const SMALL: Self = Self { width: 640, height: 360, fps: 30, kbps: 1_000 };

    /// As arguments for [`crate::roles`].
    pub fn args(&self) -> Vec<String> {
        let pairs = [("--width", self.width), ("--height", self.height), ("--fps", self.fps), ("--kbps", self.kbps)];
        pairs.iter().flat_map(|(option, value)| [(*option).to_owned(), value.to_string()]).collect()
    }

    pub fn interval_us(&self) -> u64 {
        1_000_000 / u64::from(self.fps.max(1))
    }
}
