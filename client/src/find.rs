//! Which server to connect to: the given one, or the one that is found, and found again by its id.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::Duration;

use anyhow::Context;
use rov_common::api::{Stats, WHEP_PATH};
use rov_common::codec::Codec;
use rov_common::discovery::Announcement;
use url::Url;

use crate::discovery::{self, Discovery, Found, Wanted};
use crate::receive::rtp::{self, Source};
use crate::receive::rtsp::Camera;
use crate::receive::{PAYLOAD_TYPE, Transport, Way};
use crate::reconnect::Supply;
use crate::session::{RtpHost, SessionConfig, SessionError, Target};
use crate::viewer::{Phase, Server, Viewer};
use crate::whep;

/// A server that is heard at the address that is known is listened for again after this.
const HEARD_AGAIN: Duration = Duration::from_millis(500);

pub const STATS_PATH: &str = "/api/stats";

/// A server to connect to.
#[derive(Clone, Debug)]
pub struct Located {
    /// How it can be reached, the best first; at least one.
    pub ways: Vec<Way>,
    pub label: String,
    /// Its statistics, if it has any.
    pub stats: Option<Url>,
    /// What it sends, if it said so.
    pub codec: Option<Codec>,
    id: String,
    name: String,
    address: String,
}

impl Located {
    /// One that the user named, with nothing known of it.
    fn named(way: Way, label: String, stats: Option<Url>) -> Self {
        let (address, codec) = (way.address(), way.codec());
        Self { ways: vec![way], label, stats, codec, id: String::new(), name: String::new(), address }
    }

    /// For the window and the statistics.
    pub fn public(&self) -> Server {
        Server { id: self.id.clone(), name: self.name.clone(), address: self.address.clone() }
    }

    /// Other ways to a server that the user named by its WHEP endpoint: those that its statistics name.
    pub async fn other_ways(&self) -> Vec<Way> {
        let (true, [Way::WebRtc(url)], Some(stats)) = (self.id.is_empty(), self.ways.as_slice(), &self.stats) else {
            return Vec::new();
        };
        let (Some(host), Ok(stats)) = (url.host_str(), whep::stats(stats.clone()).await) else { return Vec::new() };
        let Ok(from) = resolve(host).await else { return Vec::new() };
        let rtp = rtp_destination(&stats, from).map(Way::Rtp);
        let rtsp = stats.rtsp.and_then(|rtsp| Url::parse(rtsp.urls.first()?).ok()).and_then(|mut url| {
            // The server may know itself by another address.
            url.set_host(Some(host)).ok()?;
            Some(Way::Rtsp(Camera::new(url)))
        });
        rtp.into_iter().chain(rtsp).collect()
    }

    /// What can be expected of its packets.
    pub fn supply(&self, way: &Way) -> Supply {
        match way {
            Way::WebRtc(_) => Supply::Connection,
            Way::Rtp(_) if self.stats.is_none() => Supply::Destination,
            Way::Rtp(_) | Way::Rtsp(_) => Supply::Stream,
        }
    }
}

/// Finds the server again, by its id once that is known, as its address may change.
pub struct Finder {
    discovery: Option<Discovery>,
    known_id: Option<String>,
    /// Its WHEP endpoint has answered.
    pub answers: bool,
}

impl Finder {
    pub fn new(config: &SessionConfig) -> Result<Self, SessionError> {
        let discovery = match config.target {
            Target::Auto { .. } => Some(discovery::bind(config.discovery_port, config.interfaces.clone())?),
            Target::Url(_) | Target::Rtp { .. } | Target::Camera(_) => None,
        };
        Ok(Self { discovery, known_id: None, answers: false })
    }

    /// Where the server that is watched at `address` is heard, when that is elsewhere; never, where nothing is discovered.
    pub async fn moved(&mut self, address: &str, config: &SessionConfig) -> String {
        let (Some(id), Some(discovery)) = (&self.known_id, &mut self.discovery) else {
            return std::future::pending().await;
        };
        let wanted = Wanted { id: Some(id.clone()), name: None };
        loop {
            let found = discovery.wait_for(&wanted, config.discovery_timeout).await;
            if let Some(found) = found.iter().find(|found| found.address.to_string() != address) {
                return found.address.to_string();
            }
            // It is heard where it was: the next announcement is waited for.
            tokio::time::sleep(HEARD_AGAIN).await;
        }
    }

    /// Looks until there is one, unless the configuration says not to wait.
    pub async fn find(&mut self, config: &SessionConfig, viewer: &Viewer) -> Result<Located, SessionError> {
        let (name, discovery) = match (&config.target, &mut self.discovery) {
            (Target::Auto { name }, Some(discovery)) => (name, discovery),
            (Target::Url(url), _) => {
                let stats = url.join(STATS_PATH).ok();
                return Ok(Located::named(Way::WebRtc(url.clone()), whep::without_user(url).to_string(), stats));
            }
            (Target::Camera(camera), _) => {
                // No more of the URL: many cameras have a password in it.
                let way = Way::Rtsp(camera.clone());
                let label = way.address();
                return Ok(Located::named(way, label, None));
            }
            (Target::Rtp { source, host: None }, _) => {
                return Ok(Located::named(Way::Rtp(*source), format!("RTP at {}", source.destination()), None));
            }
            (Target::Rtp { source, host: Some(host) }, _) => return rtp_of_host(host, source).await,
            // `new` made one for each Auto.
            (Target::Auto { .. }, None) => return Err(anyhow::anyhow!("there is no discovery").into()),
        };
        if self.known_id.is_none() {
            viewer.set_phase(Phase::Searching("looking for a server".to_owned()));
        }
        let wanted = Wanted { id: self.known_id.clone(), name: name.clone() };
        loop {
            let found = discovery.wait_for(&wanted, config.discovery_timeout).await;
            match found.as_slice() {
                [] if !config.wait && self.known_id.is_none() => {
                    return Err(SessionError::NothingFound(nothing_found(discovery, name.as_deref(), config)));
                }
                [] => {
                    if self.known_id.is_none() {
                        viewer.set_phase(Phase::Searching(nothing_found(discovery, name.as_deref(), config)));
                    }
                }
                [one] => {
                    self.known_id = Some(one.announcement.id.clone());
                    return located(one, config.transport);
                }
                several => return Err(SessionError::Ambiguous(list(several))),
            }
        }
    }
}

/// RTP from `host`: to where a rov-server there says that it sends, else to where the user says.
async fn rtp_of_host(host: &RtpHost, source: &Source) -> Result<Located, SessionError> {
    let from = resolve(&host.name).await?;
    let mut source = Source { from: Some(from), ..*source };
    let mut api = host.stats.clone();
    if let Some(url) = &api {
        match whep::stats(url.clone()).await {
            Ok(stats) if stats.rtp.is_none() => {
                let reason = format!(
                    "{} does not send by rtp: start rov-server with rtp among its --transport, or this program without \
                     --transport rtp",
                    host.name
                );
                return Err(SessionError::NoWay { reason, is_final: false });
            }
            Ok(stats) => source = rtp_destination(&stats, from).unwrap_or(source),
            // A sender of another make.
            Err(_) => api = None,
        }
    }
    let label = format!("RTP from {} at {}", host.name, source.destination());
    Ok(Located::named(Way::Rtp(source), label, api))
}

/// Where a server sends RTP that can be received here: to a group rather than to one machine, which may be another.
fn rtp_destination(stats: &Stats, from: Ipv4Addr) -> Option<Source> {
    let destinations = stats.rtp.as_ref()?.destinations.iter();
    let addresses: Vec<SocketAddrV4> = destinations.filter_map(|text| text.parse().ok()).collect();
    let address = addresses.iter().find(|address| address.ip().is_multicast()).or(addresses.first())?;
    let port = Some(address.port()).filter(|port| (1..=rtp::HIGHEST_PORT).contains(port))?;
    let codec = stats.streams.first().map_or(Ok(Codec::H264), |stream| stream.codec.parse()).ok()?;
    Some(Source { host: *address.ip(), port, from: Some(from), payload_type: Some(PAYLOAD_TYPE), codec, fec: false })
}

fn located(found: &Found, chosen: Option<Transport>) -> Result<Located, SessionError> {
    let announcement = &found.announcement;
    let api = Url::parse(&format!("http://{}", found.address)).context("the announced address is no URL")?;
    let label = format!("{} ({})", announcement.name, found.address);
    let all = ways(announcement, found.address.ip(), &api);
    let has: Vec<_> = all.iter().map(|way| way.transport().name()).collect();
    let has = if has.is_empty() { "nothing that this program knows".to_owned() } else { has.join(", ") };
    let ways: Vec<_> = all.into_iter().filter(|way| chosen.is_none_or(|chosen| chosen == way.transport())).collect();
    if ways.is_empty() {
        let wanted = chosen.unwrap_or(Transport::WebRtc).name();
        let reason = format!(
            "{label} does not send by {wanted}, only by {has}: start rov-server with {wanted} among its --transport, or \
             this program with --transport auto"
        );
        return Err(SessionError::NoWay { reason, is_final: false });
    }
    Ok(Located {
        ways,
        label,
        stats: api.join(STATS_PATH).ok(),
        codec: announcement.streams.first().and_then(|stream| stream.codec.parse().ok()),
        id: announcement.id.clone(),
        name: announcement.name.clone(),
        address: found.address.to_string(),
    })
}

/// How a server that announces itself from `ip` can be reached, the best first: WebRTC recovers what is lost; RTP at
/// least has no delay of its own.
fn ways(announcement: &Announcement, ip: IpAddr, api: &Url) -> Vec<Way> {
    let mut ways = Vec::new();
    if announcement.transports.iter().any(|transport| transport == Transport::WebRtc.name()) {
        let path = if announcement.whep.starts_with('/') { &announcement.whep } else { WHEP_PATH };
        ways.extend(api.join(path).ok().map(Way::WebRtc));
    }
    // Without a stream in the announcement it is what it always was.
    let codec = announcement.streams.first().map_or(Ok(Codec::H264), |stream| stream.codec.parse());
    if let (Some(rtp), IpAddr::V4(from), Ok(codec)) = (announcement.rtp, ip, codec) {
        ways.push(Way::Rtp(Source {
            host: rtp.host,
            port: rtp.port,
            from: Some(from),
            payload_type: Some(PAYLOAD_TYPE),
            codec,
            fec: rtp.fec,
        }));
    }
    if let Some(rtsp) = &announcement.rtsp {
        let url = Url::parse(&format!("rtsp://{}{}", SocketAddr::new(ip, rtsp.port), rtsp.path)).ok();
        ways.extend(url.map(|url| Way::Rtsp(Camera::new(url))));
    }
    ways
}

/// The IPv4 address of the machine named `host`.
async fn resolve(host: &str) -> Result<Ipv4Addr, SessionError> {
    let failed =
        |reason: String| SessionError::NoWay { reason: format!("cannot find {host}: {reason}"), is_final: false };
    let found = tokio::net::lookup_host((host, 0)).await.map_err(|error| failed(error.to_string()))?;
    let ipv4 = found.filter_map(|address| match address.ip() {
        IpAddr::V4(ip) => Some(ip),
        IpAddr::V6(_) => None,
    });
    ipv4.into_iter().next().ok_or_else(|| failed("it has no IPv4 address".to_owned()))
}

fn nothing_found(discovery: &Discovery, name: Option<&str>, config: &SessionConfig) -> String {
    let what = name.map_or_else(|| "no server".to_owned(), |name| format!("no server named {name:?}"));
    format!("{what} found within {:.1} s: {}", config.discovery_timeout.as_secs_f64(), discovery.describe())
}

/// One line for each server, for people.
pub fn list(found: &[Found]) -> String {
    let line = |f: &Found| {
        let streams: Vec<String> = f
            .announcement
            .streams
            .iter()
            .map(|s| format!("{} {} {}x{} {:.0} fps", s.name, s.codec, s.width, s.height, s.fps))
            .collect();
        format!("  {}  {}  [{}]", f.announcement.name, f.address, streams.join(", "))
    };
    found.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use rov_common::api::{RtpStats, RtspStats};
    use rov_common::discovery::{RtpInfo, RtspInfo};

    use super::*;

    fn found() -> Found {
        let announcement = Announcement {
            v: 1,
            id: "7".to_owned(),
            name: "Nemo".to_owned(),
            version: String::new(),
            signal_port: 8080,
            whep: "/whep".to_owned(),
            transports: vec!["webrtc".to_owned(), "rtp".to_owned(), "rtsp".to_owned()],
            rtp: Some(RtpInfo { host: rtp::DEFAULT_HOST, port: 6000, fec: false }),
            rtsp: Some(RtspInfo { port: 8554, path: "/stream1".to_owned() }),
            streams: Vec::new(),
        };
        Found { announcement, address: "10.0.0.2:8080".parse().unwrap(), seen: std::time::Instant::now() }
    }

    #[test]
    fn the_ways_of_an_announcement_are_tried_from_the_best_on() {
        let server = located(&found(), None).unwrap();
        let addresses: Vec<_> = server.ways.iter().map(|way| (way.transport().name(), way.address())).collect();
        let expected = [("webrtc", "10.0.0.2:8080"), ("rtp", "239.255.0.1:6000"), ("rtsp", "10.0.0.2:8554")];
        assert_eq!(addresses, expected.map(|(name, address)| (name, address.to_owned())));
        assert!(matches!(&server.ways[1], Way::Rtp(source) if source.from == Some(Ipv4Addr::new(10, 0, 0, 2))));
        assert!(server.ways.iter().skip(1).all(|way| server.supply(way) == Supply::Stream));
    }

    #[test]
    fn a_transport_that_was_chosen_is_the_only_one_or_an_error_that_says_what_to_do() {
        let server = located(&found(), Some(Transport::Rtsp)).unwrap();
        assert!(matches!(server.ways.as_slice(), [Way::Rtsp(_)]));
        let without = Found { announcement: Announcement { rtp: None, ..found().announcement }, ..found() };
        let error = located(&without, Some(Transport::Rtp)).unwrap_err().to_string();
        assert!(error.contains("does not send by rtp, only by webrtc, rtsp: start rov-server with rtp"), "{error}");
    }

    #[test]
    fn of_several_destinations_a_group_is_taken() {
        let from = Ipv4Addr::new(10, 0, 0, 2);
        let stats = |destinations: &[&str]| {
            let destinations = destinations.iter().map(|text| (*text).to_owned()).collect();
            let rtp = Some(RtpStats { destinations, ..RtpStats::default() });
            rtp_destination(&Stats { rtp, rtsp: Some(RtspStats::default()), ..Stats::default() }, from)
        };
        let host = |found: Option<Source>| found.map(|source| source.destination());
        assert_eq!(host(stats(&["10.0.0.9:5004", "239.1.1.1:5004"])).as_deref(), Some("239.1.1.1:5004"));
        assert_eq!(host(stats(&["10.0.0.9:5004"])).as_deref(), Some("10.0.0.9:5004"));
        assert_eq!(host(stats(&["nonsense", "239.1.1.1:65535"])), None);
    }
}
