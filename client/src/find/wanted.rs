//! Which stream of a server to watch, by `--camera` and `--stream`: its place among those there are, and its addresses.

use rov_common::api::{Stats, StreamStats, WHEP_PATH};
use url::Url;

use super::rtp_destination;
use crate::receive::Way;
use crate::receive::rtp::Source;
use crate::receive::rtsp::Camera;

/// As the user named it, one of them at least.
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
        let is_it = |stream: &StreamStats| match &name {
            Some(name) => *name == stream.name || *name == format!("{}/{}", stream.camera, stream.name),
            None => self.camera.as_deref() == Some(&stream.camera),
        };
        stats.streams.iter().position(is_it).ok_or_else(|| {
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

/// How the stream at `place` is reached where the default stream is reached by `way`; none: not at all.
pub fn way_to(way: Way, place: usize, stats: &Stats) -> Option<Way> {
    let name = &stats.streams.get(place)?.name;
    let way = match way {
        Way::WebRtc(url) => Way::WebRtc(to_default(url)),
        way => way,
    };
    if place == 0 {
        return Some(way);
    }
    Some(match way {
        Way::WebRtc(mut url) => {
            url.path_segments_mut().ok()?.pop_if_empty().extend(name.split('/'));
            Way::WebRtc(url)
        }
        Way::Rtp(source) => {
            let there = rtp_destination(stats, source.from?, place)?;
            Way::Rtp(Source { fec: source.fec, ..there })
        }
        Way::Rtsp(camera) => {
            let mut url = camera.url().clone();
            url.set_path(name);
            Way::Rtsp(Camera::from(url))
        }
    })
}

/// A WHEP endpoint of rov-server that may name a stream, without that.
fn to_default(mut url: Url) -> Url {
    if let Some((before, _)) = url.path().split_once(&format!("{WHEP_PATH}/")) {
        let path = format!("{before}{WHEP_PATH}");
        url.set_path(&path);
    }
    if url.query_pairs().any(|(key, _)| key == "stream") {
        url.set_query(None);
    }
    url
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use rov_common::api::{CameraInfo, RtpStats};

    use super::*;

    fn stats() -> Stats {
        let stream = |camera: &str, name: &str, port: u16| StreamStats {
            camera: camera.to_owned(),
            name: name.to_owned(),
            codec: "h264".to_owned(),
            rtp: ["10.0.0.9", "239.1.1.1"].map(|host| format!("{host}:{port}")).into(),
            ..StreamStats::default()
        };
        let camera = |name: &str| CameraInfo { name: name.to_owned(), streams: Vec::new() };
        Stats {
            cameras: vec![camera("bow"), camera("arm")],
            streams: vec![
                stream("bow", "stream1", 5004),
                stream("bow", "stream2", 5008),
                stream("arm", "arm/wide", 5012),
            ],
            rtp: Some(RtpStats::default()),
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

    #[test]
    fn each_stream_has_its_own_address_by_each_transport() {
        let stats = stats();
        let whep = Way::WebRtc(Url::parse("http://10.0.0.2:8080/whep").unwrap());
        for named in ["/whep/stream2", "/whep?stream=arm/wide", "/whep/arm/wide"] {
            let named = Way::WebRtc(Url::parse(&format!("http://10.0.0.2:8080{named}")).unwrap());
            assert_eq!(way_to(named, 0, &stats), Some(whep.clone()), "from one stream to another");
        }
        let source = rtp_destination(&stats, Ipv4Addr::new(10, 0, 0, 2), 0).unwrap();
        let rtp = Way::Rtp(Source { fec: true, ..source });
        let rtsp = Way::Rtsp(Camera::from(Url::parse("rtsp://10.0.0.2:8554/cam").unwrap()));
        for (place, port, path) in [(0, 5004, None), (1, 5008, Some("/stream2")), (2, 5012, Some("/arm/wide"))] {
            let Some(Way::WebRtc(url)) = way_to(whep.clone(), place, &stats) else { panic!("{place}") };
            assert_eq!(url.path(), format!("/whep{}", path.unwrap_or_default()));
            let Some(Way::Rtp(source)) = way_to(rtp.clone(), place, &stats) else { panic!("{place}") };
            assert_eq!((source.destination(), source.fec), (format!("239.1.1.1:{port}"), true));
            let Some(Way::Rtsp(camera)) = way_to(rtsp.clone(), place, &stats) else { panic!("{place}") };
            assert_eq!(camera.url().path(), path.unwrap_or("/cam"));
        }
        let silent = Stats { rtp: None, ..stats };
        assert_eq!(way_to(rtp, 1, &silent), None, "not what is sent of another");
    }
}
