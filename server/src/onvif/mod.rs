//! ONVIF, for recorders that know cameras by nothing else: profiles S and T as far as these need them. Each request is
//! a SOAP message to the HTTP server ([`crate::http`]), each answer is made anew of what is so; nothing is kept but
//! digests that were used and subscriptions to events. Being found is `discovery`.
//!
//! What an operation takes of who asks is in [`right`]; it is the same as by the HTTP API.

pub mod auth;
mod device;
pub mod discovery;
mod events;
mod fault;
mod media;
mod media2;
mod profile;
pub mod soap;
pub mod time;

use std::net::IpAddr;
use std::sync::Arc;

use anyhow::Result;

use self::auth::Digests;
use self::discovery::Discovery;
use self::events::Subscriptions;
pub use self::fault::Fault;
use self::soap::{Element, tag};
use crate::config::Config;
use crate::http::Api;
use crate::settings::{Scope, Values};

const TT: &str = "http://www.onvif.org/ver10/schema";
const TDS: &str = "http://www.onvif.org/ver10/device/wsdl";
const TRT: &str = "http://www.onvif.org/ver10/media/wsdl";
const TR2: &str = "http://www.onvif.org/ver20/media/wsdl";
const TEV: &str = "http://www.onvif.org/ver10/events/wsdl";
const TER: &str = "http://www.onvif.org/ver10/error";
const WSNT: &str = "http://docs.oasis-open.org/wsn/b-2";

/// Below this path, by their names.
pub const PATH: &str = "/onvif";
/// Any of them takes any operation: its namespace says whose it is, and clients mistake the paths.
pub const SERVICES: [&str; 4] = ["device_service", "media_service", "media2_service", "events_service"];
/// All together.
const MAX_SUBSCRIPTIONS: usize = 16;
/// Of the name of an operation, as it is told and logged.
const MAX_NAME: usize = 64;

pub struct Onvif {
    pub digests: Digests,
    subscriptions: Subscriptions,
    scheme: &'static str,
    /// As discovery takes them.
    interfaces: Vec<String>,
    host: IpAddr,
    /// By WS-Discovery.
    is_found: bool,
}

/// What an operation takes of who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Right {
    /// Nothing: without it no client could log in.
    None,
    /// To watch.
    Watch,
    /// To change things.
    Change,
}

/// A request, and where it came in.
pub struct Asked<'a> {
    pub api: &'a Api,
    pub onvif: &'a Onvif,
    /// Name or address and port by which the client asked.
    pub authority: String,
    pub from: IpAddr,
    /// The id in the path.
    pub subscription: Option<&'a str>,
}

/// What is to be done for a request that is right.
pub enum Answer {
    /// It is done: what goes into the body.
    Body(String),
    /// These settings are to be changed; then this goes into the body.
    Change(Scope, Values, String),
}

impl Onvif {
    /// With the socket on which it is found, where it is to be.
    ///
    /// # Errors
    /// Where another program has the port.
    pub fn bind(config: &Config) -> Result<(Arc<Self>, Option<Discovery>)> {
        let onvif = Self {
            digests: Digests::of(&config.logins)?,
            subscriptions: Subscriptions::default(),
            scheme: if config.tls.is_some() { "https" } else { "http" },
            interfaces: config.interfaces.clone(),
            host: config.host,
            is_found: config.discovery_port.is_some(),
        };
        let discovery = config.discovery_port.map(|_| Discovery::bind(config.host, config.interfaces.clone()));
        Ok((Arc::new(onvif), discovery.transpose()?))
    }

    fn is_tls(&self) -> bool {
        self.scheme == "https"
    }

    /// Where the device service is.
    pub fn address(&self, authority: &str) -> String {
        format!("{}://{authority}{PATH}/{}", self.scheme, SERVICES[0])
    }

    /// Says at the start who cannot log in as most clients do.
    pub fn say(&self) {
        let others = self.digests.others();
        if !others.is_empty() {
            tracing::warn!(
                "ONVIF: {} cannot log in by digest, which most recorders use: the file has only a hash of the \
                 password. Use --user and ROV_PASSWORD, or have the recorder send the password in clear, best with \
                 --tls",
                others.join(", ")
            );
        }
    }
}

impl Asked<'_> {
    /// Of a service or a subscription.
    fn address(&self, path: &str) -> String {
        format!("{}{PATH}/{path}", self.base())
    }

    fn base(&self) -> String {
        format!("{}://{}", self.onvif.scheme, self.authority)
    }

    fn port(&self) -> u16 {
        port(&self.authority, self.onvif.is_tls())
    }

    /// Without the port.
    fn host(&self) -> &str {
        match self.authority.rsplit_once(':') {
            Some((host, port)) if port.bytes().all(|digit| digit.is_ascii_digit()) => host,
            _ => &self.authority,
        }
    }
}

/// The name of an operation, as it may be told and logged.
pub fn name_of(request: &Element) -> String {
    request.name.chars().filter(|c| !c.is_control()).take(MAX_NAME).collect()
}

/// Of the operation of this name.
pub fn right(name: &str) -> Right {
    match name {
        // ONVIF's access class PRE_AUTH.
        "GetSystemDateAndTime" | "GetCapabilities" | "GetServices" | "GetServiceCapabilities" => Right::None,
        "CreatePullPointSubscription" | "PullMessages" | "Renew" | "Unsubscribe" | "SetSynchronizationPoint" => {
            Right::Watch
        }
        // Whoever knows the names has half of a login.
        "GetUsers" => Right::Change,
        name if name.starts_with("Get") => Right::Watch,
        _ => Right::Change,
    }
}

/// # Errors
/// What the client is told where it cannot be done, or is not known.
pub async fn answer(asked: &Asked<'_>, request: &Element) -> Result<Answer, Fault> {
    let (prefix, answered) = match &*request.namespace {
        TDS => ("tds", device::answer(asked, request).map(|within| within.map(Answer::Body))),
        TRT => ("trt", media::answer(asked, request)),
        TR2 => ("tr2", media2::answer(asked, request)),
        // They have prefixes of their own.
        TEV | WSNT => {
            return events::answer(asked, request).await.unwrap_or_else(|| unknown(request)).map(Answer::Body);
        }
        _ => return unknown(request),
    };
    let respond = |within: String| tag(&format!("{prefix}:{}Response", request.name), &within);
    Ok(match answered.unwrap_or_else(|| unknown(request))? {
        Answer::Body(within) => Answer::Body(respond(within)),
        Answer::Change(scope, values, within) => Answer::Change(scope, values, respond(within)),
    })
}

/// Clients leave out the one that is usual.
fn port(authority: &str, is_tls: bool) -> u16 {
    let given = authority.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
    given.unwrap_or(if is_tls { 443 } else { 80 })
}

fn unknown<T>(request: &Element) -> Result<T, Fault> {
    Err(Fault::not_supported(&name_of(request)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_is_that_of_the_address_or_the_usual_one() {
        let ports = ["rov1:8080", "rov1", "10.0.0.2", "[fe80::1]", "[fe80::1]:81"].map(|text| port(text, false));
        assert_eq!((ports, port("rov1", true)), ([8080, 80, 80, 80, 81], 443));
    }

    #[test]
    fn what_is_not_known_to_be_harmless_takes_a_controller() {
        for (name, expected) in [
            ("GetSystemDateAndTime", Right::None),
            ("GetProfiles", Right::Watch),
            ("PullMessages", Right::Watch),
            ("GetUsers", Right::Change),
            ("SetVideoEncoderConfiguration", Right::Change),
            ("SystemReboot", Right::Change),
            ("", Right::Change),
        ] {
            assert_eq!(right(name), expected, "{name}");
        }
    }
}
