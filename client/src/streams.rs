//! The streams of a server in the order of the keys 1 to 9, which of them are the tiles of the grid, and which
//! one is wanted. Pure.

use rov_common::api::{CaptureTime, PictureDoubt, Stats, StreamStats};

/// A stream that the server has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listed {
    /// As in addresses: `cam2/stream1`, of the first camera `stream1`.
    pub name: String,
    pub camera: String,
    /// Of its pictures; 0 before there was one.
    pixels: u64,
    pub doubt: Doubt,
    /// Whose time that of its pictures is.
    pub capture_time: CaptureTime,
    /// Seconds for which the server's ring has its pictures for certain.
    pub kept: Option<u64>,
}

/// Why pictures that come may not be live ones of the camera.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Doubt {
    #[default]
    None,
    /// The camera gives the same picture again and again.
    Frozen(String),
    /// It is a test picture in the place of a camera.
    Substitute(String),
}

impl From<PictureDoubt> for Doubt {
    fn from(told: PictureDoubt) -> Self {
        match told {
            PictureDoubt { substitute: true, reason, .. } => Self::Substitute(reason),
            PictureDoubt { frozen: true, reason, .. } => Self::Frozen(reason),
            _ => Self::None,
        }
    }
}

impl Doubt {
    /// As the server tells it.
    pub fn told(&self) -> Option<PictureDoubt> {
        let (substitute, reason) = match self {
            Self::None => return None,
            Self::Frozen(reason) => (false, reason.clone()),
            Self::Substitute(reason) => (true, reason.clone()),
        };
        Some(PictureDoubt { frozen: !substitute, substitute, reason })
    }
}

impl Listed {
    pub fn of(stream: &StreamStats) -> Self {
        let pixels = u64::from(stream.width) * u64::from(stream.height);
        let StreamStats { frozen, substitute, .. } = *stream;
        let doubt = PictureDoubt { frozen, substitute, reason: stream.reason.clone().unwrap_or_default() }.into();
        Self {
            name: stream.name.clone(),
            camera: stream.camera.clone(),
            pixels,
            doubt,
            capture_time: stream.capture_time,
            kept: stream.ring.as_ref().map(|ring| ring.limit_seconds),
        }
    }

    /// With its camera, also where that is the first.
    pub fn title(&self) -> String {
        match self.name.split_once('/') {
            None if !self.camera.is_empty() => format!("{}/{}", self.camera, self.name),
            _ => self.name.clone(),
        }
    }
}

/// Where the stream of this name is: as in addresses, or with its camera also where that is the first.
pub fn place_of(name: &str, streams: &[StreamStats]) -> Option<usize> {
    let with_camera = |stream: &StreamStats| name.strip_prefix(&stream.camera)?.strip_prefix('/').map(str::to_owned);
    streams.iter().position(|stream| name == stream.name || with_camera(stream).as_ref() == Some(&stream.name))
}

/// A stream as the user named it, by `--camera` and `--stream`, one of them at least.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    pub camera: Option<String>,
    pub stream: Option<String>,
}

impl Wanted {
    /// Its name in addresses; none: the first stream of the camera, whose name is the server's to tell.
    pub fn address_name(&self) -> Option<String> {
        let stream = self.stream.as_ref()?;
        Some(self.camera.as_ref().map_or_else(|| stream.clone(), |camera| format!("{camera}/{stream}")))
    }

    /// The place of the stream in the statistics.
    ///
    /// # Errors
    /// Names those that there are.
    pub fn place(&self, stats: &Stats) -> Result<usize, String> {
        let name = self.address_name();
        let place = match &name {
            Some(name) => place_of(name, &stats.streams),
            None => stats.streams.iter().position(|stream| self.camera.as_deref() == Some(&stream.camera)),
        };
        place.ok_or_else(|| {
            let streams = stats.streams.iter().map(|stream| stream.name.as_str()).collect::<Vec<_>>().join(", ");
            // A server of the last release has one camera, without a name.
            let cameras = stats.cameras.iter().map(|camera| camera.name.as_str()).collect::<Vec<_>>().join(", ");
            let cameras = if cameras.is_empty() { String::new() } else { format!(" of the cameras {cameras}") };
            let wanted = match (name, &self.camera) {
                (None, Some(camera)) => format!("camera {camera:?}"),
                (name, _) => format!("stream {:?}", name.unwrap_or_default()),
            };
            format!("there is no {wanted}, only the streams {streams}{cameras}")
        })
    }
}

/// What the grid shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum GridOf {
    /// Each camera once, by the smallest of its streams; of one camera alone all streams.
    #[default]
    Cameras,
    /// Each stream of each camera.
    Streams,
}

/// A tile of the grid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tile {
    /// The key that makes it large, from 1.
    pub number: usize,
    pub title: String,
    /// The name of the stream that feeds it.
    pub stream: String,
}

/// In the order of the keys: the first stream of each camera, then the second of each, and so on. So a camera's number
/// is that of its first stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lineup(Vec<Listed>);

impl Lineup {
    /// `streams` as the server lists them, each camera's one after the other.
    pub fn of(streams: &[Listed]) -> Self {
        let place = |at: usize| streams[..at].iter().filter(|other| other.camera == streams[at].camera).count();
        let mut order: Vec<usize> = (0..streams.len()).collect();
        // Stable: the cameras keep their order.
        order.sort_by_key(|at| place(*at));
        Self(order.into_iter().map(|at| streams[at].clone()).collect())
    }

    /// The stream of this key, from 1.
    pub fn get(&self, number: usize) -> Option<&Listed> {
        self.0.get(number.checked_sub(1)?)
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The key of the stream of this name.
    pub fn number_of(&self, name: &str) -> Option<usize> {
        self.0.iter().position(|stream| stream.name == name).map(|at| at + 1)
    }

    /// The key of the stream behind that of this name; of the first, where there is none of this name.
    pub fn after(&self, name: &str) -> usize {
        self.number_of(name).filter(|number| *number < self.len()).map_or(1, |number| number + 1)
    }

    /// All of them, for people: `1 bow/stream1, 2 arm/stream1`.
    pub fn told(&self) -> String {
        let told: Vec<_> = self.0.iter().enumerate().map(|(at, it)| format!("{} {}", at + 1, it.title())).collect();
        told.join(", ")
    }

    pub fn tiles(&self, of: GridOf) -> Vec<Tile> {
        let first_of = |stream: &Listed| self.0.iter().position(|other| other.camera == stream.camera);
        let cameras = self.0.iter().enumerate().filter(|(at, stream)| first_of(stream) == Some(*at)).count();
        let tile =
            |at: usize, title: String, stream: &Listed| Tile { number: at + 1, title, stream: stream.name.clone() };
        if of == GridOf::Streams || cameras < 2 {
            return self.0.iter().enumerate().map(|(at, stream)| tile(at, stream.title(), stream)).collect();
        }
        let smallest = |camera: &str| {
            // Of those of the same size the last. One that had no picture yet is not known, but mostly small.
            self.0.iter().rev().filter(|stream| stream.camera == camera).min_by_key(|stream| stream.pixels)
        };
        let of_camera = |(at, first): (usize, &Listed)| {
            let title = first.camera.clone();
            smallest(&first.camera).map(|stream| tile(at, title, stream))
        };
        self.0[..cameras].iter().enumerate().filter_map(of_camera).collect()
    }
}

#[cfg(test)]
mod tests {
    use rov_common::api::CameraInfo;

    use super::*;

    fn stats() -> Stats {
        let stream = |camera: &str, name: &str| StreamStats {
            camera: camera.to_owned(),
            name: name.to_owned(),
            ..StreamStats::default()
        };
        let camera = |name: &str| CameraInfo { name: name.to_owned(), streams: Vec::new() };
        Stats {
            cameras: vec![camera("bow"), camera("arm")],
            streams: vec![stream("bow", "stream1"), stream("bow", "stream2"), stream("arm", "arm/wide")],
            ..Stats::default()
        }
    }

    fn wanted(camera: Option<&str>, stream: Option<&str>) -> Wanted {
        Wanted { camera: camera.map(str::to_owned), stream: stream.map(str::to_owned) }
    }

    #[test]
    fn a_stream_is_found_by_its_names_and_its_camera_and_an_unknown_one_is_told_those_that_are() {
        let stats = stats();
        for (camera, stream, place) in [
            (None, Some("stream1"), 0),
            (None, Some("stream2"), 1),
            (None, Some("bow/stream2"), 1),
            (None, Some("arm/wide"), 2),
            (Some("bow"), None, 0),
            (Some("arm"), None, 2),
            (Some("bow"), Some("stream2"), 1),
            (Some("arm"), Some("wide"), 2),
        ] {
            assert_eq!(wanted(camera, stream).place(&stats), Ok(place), "{camera:?} {stream:?}");
        }
        let known = ", only the streams stream1, stream2, arm/wide of the cameras bow, arm";
        for (camera, stream, told) in [
            (None, Some("wide"), "there is no stream \"wide\""),
            (Some("stern"), None, "there is no camera \"stern\""),
            (Some("arm"), Some("stream1"), "there is no stream \"arm/stream1\""),
        ] {
            assert_eq!(wanted(camera, stream).place(&stats), Err(format!("{told}{known}")));
        }
    }

    #[test]
    fn the_one_stream_of_an_older_server_is_found_by_its_name() {
        let streams = vec![StreamStats { name: "stream1".to_owned(), ..StreamStats::default() }];
        let stats = Stats { streams, ..Stats::default() };
        assert_eq!(wanted(None, Some("stream1")).place(&stats), Ok(0));
        let told = wanted(Some("bow"), None).place(&stats);
        assert_eq!(told, Err("there is no camera \"bow\", only the streams stream1".to_owned()));
    }

    fn lineup(streams: &[(&str, &str, u64)]) -> Lineup {
        let listed = |&(camera, name, pixels): &(&str, &str, u64)| Listed {
            name: name.to_owned(),
            camera: camera.to_owned(),
            pixels,
            doubt: Doubt::None,
            capture_time: CaptureTime::Source,
            kept: None,
        };
        Lineup::of(&streams.iter().map(listed).collect::<Vec<_>>())
    }

    fn three() -> Lineup {
        lineup(&[
            ("bow", "stream1", 900),
            ("bow", "stream2", 400),
            ("arm", "arm/stream1", 900),
            ("arm", "arm/small", 0),
            ("hand", "hand/stream1", 0),
        ])
    }

    #[test]
    fn the_first_streams_of_the_cameras_come_first() {
        let told = "1 bow/stream1, 2 arm/stream1, 3 hand/stream1, 4 bow/stream2, 5 arm/small";
        assert_eq!(three().told(), told);
        assert_eq!(three().get(2).map(|stream| stream.name.as_str()), Some("arm/stream1"));
        assert_eq!((three().get(0), three().get(6)), (None, None));
        assert_eq!([three().after("stream1"), three().after("arm/small"), three().after("gone")], [2, 1, 1]);
        assert_eq!(lineup(&[("", "stream1", 1)]).told(), "1 stream1", "of a server of the last release");
    }

    #[test]
    fn each_camera_is_a_tile_by_its_smallest_stream_and_has_its_number() {
        let tiles = |lineup: &Lineup, of| {
            let tiles = lineup.tiles(of).into_iter();
            tiles.map(|tile| format!("{} {} {}", tile.number, tile.title, tile.stream)).collect::<Vec<_>>()
        };
        assert_eq!(tiles(&three(), GridOf::Cameras), ["1 bow stream2", "2 arm arm/small", "3 hand hand/stream1"]);
        assert_eq!(tiles(&three(), GridOf::Streams).len(), 5);
        let one = lineup(&[("bow", "stream1", 900), ("bow", "stream2", 400)]);
        assert_eq!(tiles(&one, GridOf::Cameras), ["1 bow/stream1 stream1", "2 bow/stream2 stream2"]);
        assert!(tiles(&Lineup::default(), GridOf::Cameras).is_empty());
    }
}
