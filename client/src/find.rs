//! Which server to connect to: the given one, or the one that is found, and found again by its id.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use anyhow::Context;
use rov_common::api::WHEP_PATH;
use rov_common::discovery::Announcement;
use url::Url;

use crate::discovery::{self, Discovery, Found, Wanted};
use crate::receive::rtp::Source;
use crate::receive::rtsp::Camera;
use crate::receive::{PAYLOAD_TYPE, Transport, Way};
use crate::reconnect::Supply;
use crate::session::{SessionConfig, SessionError, Target};
use crate::viewer::{Phase, Server, Viewer};

const STATS_PATH: &str = "/api/stats";

/// A server to connect to.
#[derive(Clone, Debug)]
pub struct Located {
    /// How it can be reached, the best first; at least one.
    pub ways: Vec<Way>,
    pub label: String,
    /// Its statistics, if it has any.
    pub stats: Option<Url>,
    id: String,
    name: String,
    address: String,
}

impl Located {
    /// One that the user named, with nothing known of it.
    fn named(way: Way, label: String, stats: Option<Url>) -> Self {
        let address = way.address();
        Self { ways: vec![way], label, stats, id: String::new(), name: String::new(), address }
    }

    /// For the window and the statistics.
    pub fn public(&self) -> Server {
        Server { id: self.id.clone(), name: self.name.clone(), address: self.address.clone() }
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
}

impl Finder {
    pub fn new(config: &SessionConfig) -> Result<Self, SessionError> {
        let discovery = match config.target {
            Target::Auto { .. } => Some(discovery::bind(config.discovery_port, config.interfaces.clone())?),
            Target::Url(_) | Target::Rtp { .. } | Target::Camera(_) => None,
        };
        Ok(Self { discovery, known_id: None })
    }

    /// Looks until there is one, unless the configuration says not to wait.
    pub async fn find(&mut self, config: &SessionConfig, viewer: &Viewer) -> Result<Located, SessionError> {
        let (name, discovery) = match (&config.target, &mut self.discovery) {
            (Target::Auto { name }, Some(discovery)) => (name, discovery),
            (Target::Url(url), _) => {
                let stats = url.join(STATS_PATH).ok();
                return Ok(Located::named(Way::WebRtc(url.clone()), url.to_string(), stats));
            }
            (Target::Camera(camera), _) => {
                return Ok(Located::named(Way::Rtsp(camera.clone()), camera.url().to_string(), None));
            }
            (Target::Rtp { source, host }, _) => {
                let from = match host {
                    Some(host) => Some(resolve(host).await?),
                    None => None,
                };
                let source = Source { from, ..*source };
                let label = format!("RTP at {}", source.destination());
                return Ok(Located::named(Way::Rtp(source), label, None));
            }
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
    if let (Some(rtp), IpAddr::V4(from)) = (announcement.rtp, ip) {
        ways.push(Way::Rtp(Source {
            host: rtp.host,
            port: rtp.port,
            from: Some(from),
            payload_type: Some(PAYLOAD_TYPE),
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
