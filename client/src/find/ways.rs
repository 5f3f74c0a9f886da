//! How each stream of a server is reached, where the way to its first one is known.

use rov_common::api::{Stats, WHEP_PATH};
use url::Url;

use super::rtp_destination;
use crate::receive::Way;
use crate::receive::rtp::Source;
use crate::receive::rtsp::Camera;

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

    use rov_common::api::{RtpStats, StreamStats};

    use super::*;

    fn stats() -> Stats {
        let stream = |name: &str, port: u16| StreamStats {
            name: name.to_owned(),
            codec: "h264".to_owned(),
            rtp: ["10.0.0.9", "239.1.1.1"].map(|host| format!("{host}:{port}")).into(),
            ..StreamStats::default()
        };
        Stats {
            streams: vec![stream("stream1", 5004), stream("stream2", 5008), stream("arm/wide", 5012)],
            rtp: Some(RtpStats::default()),
            ..Stats::default()
        }
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
