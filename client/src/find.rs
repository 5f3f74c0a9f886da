//! Which server to connect to: the given one, or the one that is found, and found again by its id.

use anyhow::Context;
use rov_common::api::WHEP_PATH;
use url::Url;

use crate::discovery::{self, Discovery, Found, Wanted};
use crate::session::{Fatal, SessionConfig, Target};
use crate::viewer::{Phase, Server, Viewer};

/// A server to connect to.
#[derive(Clone, Debug)]
pub struct Located {
    pub url: Url,
    pub label: String,
    id: String,
    name: String,
}

impl Located {
    /// For the window and the statistics.
    pub fn public(&self) -> Server {
        let host = self.url.host_str().unwrap_or_default();
        let address = match self.url.port_or_known_default() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        };
        Server { id: self.id.clone(), name: self.name.clone(), address }
    }
}

/// Finds the server again, by its id once that is known, as its address may change.
pub struct Finder {
    discovery: Option<Discovery>,
    known_id: Option<String>,
}

impl Finder {
    pub fn new(config: &SessionConfig) -> Result<Self, Fatal> {
        let discovery = match config.target {
            Target::Auto { .. } => Some(discovery::bind(config.discovery_port, config.interfaces.clone())?),
            Target::Url(_) => None,
        };
        Ok(Self { discovery, known_id: None })
    }

    /// Looks until there is one, unless the configuration says not to wait.
    pub async fn find(&mut self, config: &SessionConfig, viewer: &Viewer) -> Result<Located, Fatal> {
        let (name, discovery) = match (&config.target, &mut self.discovery) {
            (Target::Auto { name }, Some(discovery)) => (name, discovery),
            (Target::Url(url), _) => {
                return Ok(Located {
                    url: url.clone(),
                    label: url.to_string(),
                    id: String::new(),
                    name: String::new(),
                });
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
                    return Err(Fatal::NothingFound(nothing_found(discovery, name.as_deref(), config)));
                }
                [] => {
                    if self.known_id.is_none() {
                        viewer.set_phase(Phase::Searching(nothing_found(discovery, name.as_deref(), config)));
                    }
                }
                [one] => {
                    self.known_id = Some(one.announcement.id.clone());
                    return located(one);
                }
                several => return Err(Fatal::Ambiguous(list(several))),
            }
        }
    }
}

fn located(found: &Found) -> Result<Located, Fatal> {
    let path = if found.announcement.whep.starts_with('/') { &found.announcement.whep } else { WHEP_PATH };
    let url = Url::parse(&format!("http://{}{path}", found.address)).context("the announced address is no URL")?;
    Ok(Located {
        label: format!("{} ({})", found.announcement.name, found.address),
        url,
        id: found.announcement.id.clone(),
        name: found.announcement.name.clone(),
    })
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
