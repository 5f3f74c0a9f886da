//! Which path leads to which stream, as video or as MJPEG. Pure.

use crate::config::MJPEG_PATH;
use crate::stream::Streams;

/// What a path leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Content {
    /// In the catalogue.
    pub stream: usize,
    pub mjpeg: bool,
}

/// Each stream by its names, those of the first camera by their number too (`/stream2`); the default also by the paths
/// of other servers and of the user, and its previews by [`MJPEG_PATH`] alone.
#[derive(Clone, Debug)]
pub(super) struct Paths(Vec<(String, Content)>);

impl Paths {
    /// `given` are those of the default stream beside its names; one that is another's name is left out.
    pub fn new(streams: &Streams, given: &[String]) -> Self {
        let video = |stream| Content { stream, mjpeg: false };
        let mut all: Vec<(String, Content)> = Vec::new();
        let other = |path: &str| streams[1..].iter().any(|stream| stream.names().any(|name| path[1..] == *name));
        all.extend(given.iter().filter(|path| !other(path)).map(|path| (path.clone(), video(0))));
        all.push((MJPEG_PATH.to_owned(), Content { stream: 0, mjpeg: true }));
        for (stream, names) in streams.iter().map(|stream| stream.names()).enumerate() {
            for name in names {
                all.push((format!("/{name}"), video(stream)));
                all.push((format!("{MJPEG_PATH}/{name}"), Content { stream, mjpeg: true }));
            }
        }
        // As IP cameras have them, whatever the streams of the first camera are called.
        let first = streams.iter().take_while(|stream| stream.camera() == streams[0].camera());
        all.extend(first.enumerate().map(|(at, _)| (format!("/stream{}", at + 1), video(at))));
        let mut known: Vec<String> = Vec::new();
        all.retain(|(path, _)| {
            let is_new = !known.contains(path);
            known.extend(is_new.then(|| path.clone()));
            is_new
        });
        Self(all)
    }

    /// What `path` leads to, or what it begins with: control URLs have more behind. The longest counts.
    pub fn find(&self, path: &str) -> Option<Content> {
        let leads = |to: &str| path.strip_prefix(to).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        let leading = self.0.iter().filter(|(to, _)| leads(to));
        leading.max_by_key(|(to, _)| to.len()).map(|(_, content)| *content)
    }

    /// All that lead there, the one that is told first.
    pub fn to(&self, content: Content) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |(_, leads)| *leads == content).map(|(path, _)| path.as_str())
    }

    /// Those to video, for who asked for another one: each stream once, then the others of the default.
    pub fn told(&self) -> String {
        let mut streams: Vec<_> = self.0.iter().map(|(_, content)| content.stream).collect();
        streams.sort_unstable();
        streams.dedup();
        let video = |stream| self.to(Content { stream, mjpeg: false });
        let told: Vec<_> =
            streams.into_iter().filter_map(|stream| video(stream).next()).chain(video(0).skip(1)).collect();
        told.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use rov_common::capture_clock::CaptureClock;
    use rov_common::codec::Codec;

    use super::*;
    use crate::config::RTSP_PATHS;

    fn paths(streams: &[(&str, &str)], given: &[&str]) -> Paths {
        let streams = streams.iter().map(|(camera, stream)| (*camera, *stream, Codec::H264));
        let given: Vec<_> = RTSP_PATHS.iter().chain(given).map(|path| (*path).to_owned()).collect();
        Paths::new(&Streams::new(streams, CaptureClock::start()).0, &given)
    }

    #[test]
    fn each_stream_has_the_paths_of_its_names_and_the_default_those_of_others_too() {
        let paths = paths(&[("bow", "stream1"), ("bow", "live"), ("arm", "stream1")], &["/cam/1"]);
        let leads = |path| paths.find(path).map(|content| (content.stream, content.mjpeg));
        for (stream, video) in [
            (0, &["/stream1", "/bow/stream1", "/stream", "/test", "/cam/1", "/stream1/stream=0"][..]),
            (1, &["/live", "/bow/live", "/live/stream=0", "/stream2"]),
            (2, &["/arm/stream1", "/arm/stream1/stream=0"]),
        ] {
            for path in video {
                assert_eq!(leads(path), Some((stream, false)), "{path}");
            }
        }
        for (path, stream) in
            [("/mjpeg", 0), ("/mjpeg/stream=0", 0), ("/mjpeg/live", 1), ("/mjpeg/arm/stream1/stream=0", 2)]
        {
            assert_eq!(leads(path), Some((stream, true)), "{path}");
        }
        for path in ["", "/", "/arm", "/arm/live", "/stream3", "/stream11", "/mjpegs"] {
            assert_eq!(leads(path), None, "{path}");
        }
        assert_eq!(paths.told(), "/stream1, /live, /arm/stream1, /stream, /test, /cam/1, /bow/stream1");
        let default: Vec<_> = paths.to(Content { stream: 0, mjpeg: true }).collect();
        assert_eq!(default, ["/mjpeg", "/mjpeg/stream1", "/mjpeg/bow/stream1"]);
    }
}
