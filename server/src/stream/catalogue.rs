//! All streams of a server, fixed at its start, and the names by which they are found.
//!
//! Each stream is found by CAMERA/STREAM, those of the first camera by their own name too. So a name without a slash
//! never leads to another camera when one is added.

use std::ops::Deref;
use std::sync::Arc;

use rov_common::api::CameraInfo;
use rov_common::capture_clock::CaptureClock;
use rov_common::codec::Codec;
use thiserror::Error;
use tokio::sync::mpsc;

use super::{Control, Stream};

/// In the order of the configuration: a stream is known by its place in it too. The first is the default. Cheap to
/// clone.
#[derive(Clone)]
pub struct Streams(Arc<[Arc<Stream>]>);

#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("there is no stream {name:?}, only {known}")]
pub struct NoSuchStream {
    name: String,
    known: String,
}

impl Streams {
    /// Of camera, stream and codec each, one at least; and what is asked of each, in the same order. All times of
    /// capture are by `clock`.
    pub fn new<'a>(
        all: impl IntoIterator<Item = (&'a str, &'a str, Codec)>,
        clock: CaptureClock,
    ) -> (Self, Vec<mpsc::Receiver<Control>>) {
        let mut first = None;
        let made = all.into_iter().map(|(camera, stream, codec)| {
            if *first.get_or_insert(camera) == camera {
                Stream::new(camera, stream, codec, clock)
            } else {
                Stream::new(camera, &format!("{camera}/{stream}"), codec, clock)
            }
        });
        let (streams, requests): (Vec<_>, _) = made.unzip();
        (Self(streams.into()), requests)
    }

    /// The first stream of the first camera.
    pub fn default_stream(&self) -> &Arc<Stream> {
        &self[0]
    }

    /// The place of the stream of this name; without a name, of the default.
    ///
    /// # Errors
    /// Names those that there are.
    pub fn find(&self, name: Option<&str>) -> Result<usize, NoSuchStream> {
        let Some(name) = name else { return Ok(0) };
        self.iter().position(|stream| stream.names().any(|known| known == name)).ok_or_else(|| {
            let known: Vec<_> = self.iter().map(|stream| stream.name()).collect();
            NoSuchStream { name: name.to_owned(), known: known.join(", ") }
        })
    }

    /// The cameras and the names of their streams.
    pub fn cameras(&self) -> Vec<CameraInfo> {
        let of_camera = self.0.chunk_by(|one, next| one.camera() == next.camera());
        let camera = |streams: &[Arc<Stream>]| CameraInfo {
            name: streams[0].camera().to_owned(),
            streams: streams.iter().map(|stream| stream.name().to_owned()).collect(),
        };
        of_camera.map(camera).collect()
    }
}

impl Deref for Streams {
    type Target = [Arc<Stream>];

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn streams() -> Streams {
        let names = [("bow", "stream1"), ("bow", "stream2"), ("arm", "stream1"), ("arm", "wide")];
        Streams::new(names.map(|(camera, stream)| (camera, stream, Codec::H264)), CaptureClock::start()).0
    }

    #[test]
    fn streams_are_found_by_camera_and_name_and_those_of_the_first_camera_by_name() {
        let streams = streams();
        let all = ["stream1", "bow/stream1", "stream2", "bow/stream2", "arm/stream1", "arm/wide"];
        let found = all.map(|name| streams.find(Some(name)).expect(name));
        assert_eq!(found, [0, 0, 1, 1, 2, 3]);
        assert_eq!(streams.find(None), Ok(0));
        for unknown in ["", "wide", "arm", "bow/", "arm/stream2", "/stream1", "stream1/"] {
            let error = streams.find(Some(unknown)).expect_err(unknown).to_string();
            assert!(error.ends_with(", only stream1, stream2, arm/stream1, arm/wide"), "{error}");
        }
        let camera = |name: &str, streams: &[&str]| CameraInfo {
            name: name.to_owned(),
            streams: streams.iter().map(ToString::to_string).collect(),
        };
        let (bow, arm) = (camera("bow", &["stream1", "stream2"]), camera("arm", &["arm/stream1", "arm/wide"]));
        assert_eq!(streams.cameras(), [bow, arm]);
    }
}
