//! WS-Discovery (2005/04): a client asks by multicast which devices there are, and is answered by unicast with the
//! address of the interface on which it asked, and on no other. Nobody beyond the subnet of that interface is answered,
//! so that no forged sender is flooded. On each of its interfaces it says that it is there (Hello), and at the end that
//! it goes (Bye).

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use rov_common::discovery::interfaces::{Interface, chosen, is_neighbour, target};
use rov_common::net::{broadcast_socket, interface_index, interfaces, receive_by, send_by};
use socket2::SockRef;
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::TDS;
use super::device::scopes;
use super::soap::{Element, Envelope, Version, escaped, id};
use crate::discovery::AnswerLimit;

/// The group and the port that WS-Discovery has.
pub const GROUP: Ipv4Addr = Ipv4Addr::new(239, 255, 255, 250);
pub const PORT: u16 = 3702;
const EVERYBODY: SocketAddrV4 = SocketAddrV4::new(GROUP, PORT);

const DISCOVERY: &str = "http://schemas.xmlsoap.org/ws/2005/04/discovery";
const ADDRESSING: &str = "http://schemas.xmlsoap.org/ws/2004/08/addressing";
const NETWORK: &str = "http://www.onvif.org/ver10/network/wsdl";
/// By which scopes are compared where a client says nothing.
const BY_SEGMENTS: &str = "http://schemas.xmlsoap.org/ws/2005/04/discovery/rfc3986";
const BY_TEXT: &str = "http://schemas.xmlsoap.org/ws/2005/04/discovery/strcmp0";

/// Probes have about one kilobyte.
const MAX_DATAGRAM: usize = 8 << 10;
const LOOK_FOR_INTERFACES_EVERY: Duration = Duration::from_secs(3);
/// After a receive error, so that one that persists does not take a whole core.
const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(50);

/// What is told.
#[derive(Clone, Debug)]
pub struct About {
    pub id: String,
    pub name: String,
    /// `http` or `https`, and the port of it.
    pub scheme: &'static str,
    pub port: u16,
}

/// A bound socket that does not answer yet.
pub struct Discovery {
    socket: std::net::UdpSocket,
    host: IpAddr,
    wanted: Vec<String>,
}

impl Discovery {
    /// `host` and `interfaces` as this server's own discovery takes them.
    ///
    /// # Errors
    /// Where another program has the port and does not share it.
    pub fn bind(host: IpAddr, interfaces: Vec<String>) -> Result<Self> {
        let socket = broadcast_socket(PORT, true).with_context(|| {
            format!(
                "cannot use UDP port {PORT} for the WS-Discovery of --onvif: stop the program that uses it, or turn \
                 discovery off with --no-discovery"
            )
        })?;
        Ok(Self { socket, host, wanted: interfaces })
    }

    /// Answers until `shutdown`.
    ///
    /// # Errors
    /// When the socket cannot be handed to the runtime. Trouble with interfaces and peers is logged, and it carries on.
    pub async fn run(self, about: About, shutdown: CancellationToken) -> Result<()> {
        let socket = UdpSocket::from_std(self.socket).context("cannot use the socket of WS-Discovery")?;
        let mut places = Places { host: self.host, wanted: self.wanted, here: Vec::new(), failed: HashSet::new() };
        let mut limit = AnswerLimit::new(Instant::now());
        let mut tick = tokio::time::interval(LOOK_FOR_INTERFACES_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let started = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let mut sequence = (started, 0);
        let mut next = || {
            sequence.1 += 1;
            sequence
        };
        let mut buffer = [0; MAX_DATAGRAM];
        loop {
            let receive = || receive_by(&SockRef::from(&socket), &mut buffer);
            let received = tokio::select! {
                () = shutdown.cancelled() => break,
                _ = tick.tick() => {
                    for interface in places.look(&socket) {
                        let hello = notice(Notice::Hello, &about, interface.address, next());
                        send(&socket, &interface, hello.as_bytes(), EVERYBODY).await;
                    }
                    continue;
                }
                received = socket.async_io(Interest::READABLE, receive) => received,
            };
            let (length, peer, index) = match received {
                Ok(received) => received,
                Err(error) => {
                    tracing::debug!(%error, "WS-Discovery cannot receive");
                    tokio::time::sleep(PAUSE_AFTER_ERROR).await;
                    continue;
                }
            };
            let SocketAddr::V4(peer) = peer else { continue };
            let Some(interface) = places.asked_on(index, *peer.ip()) else { continue };
            let Some(text) = answer(&buffer[..length], &about, interface.address, next()) else { continue };
            if peer.port() != 0 && limit.allows(Instant::now(), (*peer.ip()).into()) {
                send(&socket, interface, text.as_bytes(), peer).await;
            }
        }
        for interface in &places.here {
            let bye = notice(Notice::Bye, &about, interface.address, next());
            send(&socket, interface, bye.as_bytes(), EVERYBODY).await;
        }
        Ok(())
    }
}

async fn send(socket: &UdpSocket, Interface { name, address, .. }: &Interface, datagram: &[u8], peer: SocketAddrV4) {
    let send = || send_by(&SockRef::from(socket), name, *address, datagram, peer);
    match socket.async_io(Interest::WRITABLE, send).await {
        Ok(_) => tracing::debug!("WS-Discovery: sent to {peer} on {name}"),
        Err(error) => tracing::debug!("WS-Discovery: cannot send to {peer} on {name}: {error}"),
    }
}

/// The interfaces on which clients may ask.
struct Places {
    host: IpAddr,
    wanted: Vec<String>,
    here: Vec<Interface>,
    /// Names and addresses of those of which that was said.
    failed: HashSet<(String, Ipv4Addr)>,
}

impl Places {
    /// Joins the group where it is not joined yet: cables are plugged while the server runs, and a card that is pulled
    /// and plugged between two looks has left it. Gives those that were not there before.
    fn look(&mut self, socket: &UdpSocket) -> Vec<Interface> {
        let before = match interfaces() {
            Ok(all) => {
                let now = chosen(&all, &self.wanted, self.host).into_iter().cloned().collect();
                std::mem::replace(&mut self.here, now)
            }
            // The old ones are the best guess; the next look may succeed.
            Err(error) => {
                tracing::debug!("cannot list the network interfaces: {error}");
                return Vec::new();
            }
        };
        let here: HashSet<_> = self.here.iter().map(|one| (one.name.clone(), one.address)).collect();
        self.failed.retain(|known| here.contains(known));
        for place in here {
            let (name, address) = &place;
            match SockRef::from(socket).join_multicast_v4(&GROUP, address) {
                Ok(()) => tracing::info!("ONVIF: answering WS-Discovery on {name} ({address})"),
                // It is there, perhaps by another address of the same interface.
                Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {}
                Err(error) => {
                    if self.failed.insert(place.clone()) {
                        tracing::warn!("ONVIF: no WS-Discovery on {name} ({address}), cannot join {GROUP}: {error}");
                    }
                    continue;
                }
            }
            self.failed.remove(&place);
        }
        let is_known = |one: &Interface| before.iter().any(|of| (&of.name, of.address) == (&one.name, one.address));
        self.here.iter().filter(|one| !is_known(one)).cloned().collect()
    }

    /// The interface with that index whose subnet the sender is in.
    fn asked_on(&self, index: Option<u32>, sender: Ipv4Addr) -> Option<&Interface> {
        self.here.iter().find(|interface| {
            let device = interface.name.split(':').next().unwrap_or_default();
            let is_near = target(interface).is_some_and(|target| is_neighbour(&[target], sender.into()));
            is_near && index.is_none_or(|index| index == interface_index(device))
        })
    }
}

/// What a datagram is answered with, where it asks for this device; `address` is that of the interface where it came.
/// `sequence`: when this program was started, and the number of the message since.
pub fn answer(datagram: &[u8], about: &About, address: Ipv4Addr, sequence: (u64, u64)) -> Option<String> {
    let envelope = Envelope::parse(datagram).ok().filter(|envelope| envelope.version == Version::Soap12)?;
    let request = &envelope.body;
    let name = format!("urn:uuid:{}", about.id);
    let kind = match request.name.as_str() {
        _ if *request.namespace != *DISCOVERY => return None,
        "Probe" if is_meant(&envelope, &scopes(&about.name)) => "Probe",
        "Resolve" if endpoint(request) == Some(&name) => "Resolve",
        _ => return None,
    };
    let message = escaped(id(envelope.header.value("MessageID").unwrap_or_default()));
    let header = format!("<a:RelatesTo>{message}</a:RelatesTo><a:To>{ADDRESSING}/role/anonymous</a:To>");
    let body =
        format!("<d:{kind}Matches><d:{kind}Match>{}</d:{kind}Match></d:{kind}Matches>", described(about, address));
    Some(envelope_of(&format!("{kind}Matches"), &header, sequence, &body))
}

/// What is told without being asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Notice {
    Hello,
    Bye,
}

/// Tells everybody on the interface of this address.
fn notice(kind: Notice, about: &About, address: Ipv4Addr, sequence: (u64, u64)) -> String {
    let body = match kind {
        Notice::Hello => format!("<d:Hello>{}</d:Hello>", described(about, address)),
        Notice::Bye => format!("<d:Bye>{}</d:Bye>", reference(about)),
    };
    envelope_of(&format!("{kind:?}"), "<a:To>urn:schemas-xmlsoap-org:ws:2005:04:discovery</a:To>", sequence, &body)
}

fn envelope_of(action: &str, header: &str, (started, number): (u64, u64), body: &str) -> String {
    let own = Uuid::new_v4();
    format!(
        r#"<?xml version="1.0" encoding="UTF-8"?><s:Envelope xmlns:s="http://www.w3.org/2003/05/soap-envelope" xmlns:a="{ADDRESSING}" xmlns:d="{DISCOVERY}" xmlns:dn="{NETWORK}" xmlns:tds="{TDS}"><s:Header><a:MessageID>urn:uuid:{own}</a:MessageID>{header}<a:Action>{DISCOVERY}/{action}</a:Action><d:AppSequence InstanceId="{started}" MessageNumber="{number}"/></s:Header><s:Body>{body}</s:Body></s:Envelope>"#
    )
}

/// This device, as it is reached by this address.
fn described(about: &About, address: Ipv4Addr) -> String {
    let About { scheme, port, name, .. } = about;
    let (path, service, scopes) = (super::PATH, super::SERVICES[0], scopes(name).join(" "));
    format!(
        "{}<d:Types>dn:NetworkVideoTransmitter tds:Device</d:Types><d:Scopes>{}</d:Scopes>\
         <d:XAddrs>{scheme}://{address}:{port}{path}/{service}</d:XAddrs><d:MetadataVersion>1</d:MetadataVersion>",
        reference(about),
        escaped(scopes)
    )
}

fn reference(about: &About) -> String {
    let name = format!("urn:uuid:{}", about.id);
    format!("<a:EndpointReference><a:Address>{}</a:Address></a:EndpointReference>", escaped(name))
}

fn endpoint(request: &Element) -> Option<&str> {
    request.child("EndpointReference")?.value("Address")
}

/// Whether a Probe is for devices as this one: of all types and in all scopes that it names.
fn is_meant(probe: &Envelope, scopes: &[String]) -> bool {
    let types = probe.body.value("Types").unwrap_or_default().split_whitespace();
    let is_of_type = |text: &str| {
        let (namespace, name) = probe.qualified(text);
        let known = [(NETWORK, "NetworkVideoTransmitter"), (TDS, "Device")];
        known.into_iter().any(|(own, kind)| name == kind && namespace.is_none_or(|namespace| namespace == own))
    };
    let wanted = probe.body.child("Scopes");
    let by = wanted.and_then(|wanted| wanted.attribute("MatchBy")).unwrap_or(BY_SEGMENTS);
    let is_in_scope = |wanted: &str| match by {
        BY_SEGMENTS => scopes.iter().any(|scope| is_within(scope, wanted)),
        BY_TEXT => scopes.iter().any(|scope| scope == wanted),
        _ => false,
    };
    let wanted = wanted.map_or("", |wanted| &wanted.text).split_whitespace();
    { types }.all(is_of_type) && { wanted }.all(is_in_scope)
}

/// By segments of the path, as RFC 3986 has them; scheme and host in any case.
fn is_within(scope: &str, wanted: &str) -> bool {
    let parts = |text: &str| {
        let (origin, path) = match text.split_once("://") {
            Some((scheme, rest)) => {
                let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
                (format!("{scheme}://{host}").to_ascii_lowercase(), path.to_owned())
            }
            None => (String::new(), text.to_owned()),
        };
        (origin, path.trim_end_matches('/').to_owned())
    };
    let ((origin, path), (wanted_origin, wanted_path)) = (parts(scope), parts(wanted));
    let rest = path.strip_prefix(&wanted_path);
    origin == wanted_origin
        && rest.is_some_and(|rest| rest.is_empty() || wanted_path.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);

    fn about() -> About {
        About { id: "1234".to_owned(), name: "bow 1".to_owned(), scheme: "http", port: 8080 }
    }

    fn message(body: &str) -> String {
        format!(
            r#"<e:Envelope xmlns:e="http://www.w3.org/2003/05/soap-envelope" xmlns:w="{ADDRESSING}" xmlns:d="{DISCOVERY}" xmlns:dn="{NETWORK}">
            <e:Header><w:MessageID>uuid:1 &amp; 2</w:MessageID><w:To>urn:schemas-xmlsoap-org:ws:2005:04:discovery</w:To></e:Header>
            <e:Body>{body}</e:Body></e:Envelope>"#
        )
    }

    fn asked(body: &str) -> Option<Envelope> {
        let text = answer(message(body).as_bytes(), &about(), HERE, (7, 9))?;
        Some(Envelope::parse(text.as_bytes()).expect("an envelope"))
    }

    #[test]
    fn an_answer_has_the_address_where_it_was_asked() {
        let answer = asked("<d:Probe><d:Types>dn:NetworkVideoTransmitter</d:Types></d:Probe>").expect("an answer");
        assert_eq!(answer.header.value("RelatesTo"), Some("uuid:1 & 2"));
        assert_eq!(answer.header.value("Action"), Some("http://schemas.xmlsoap.org/ws/2005/04/discovery/ProbeMatches"));
        assert_eq!(answer.header.child("AppSequence").and_then(|one| one.attribute("MessageNumber")), Some("9"));
        assert!(answer.body.is(DISCOVERY, "ProbeMatches"));
        let found = answer.body.child("ProbeMatch").expect("a match");
        assert_eq!(found.value("XAddrs"), Some("http://10.0.0.2:8080/onvif/device_service"));
        assert_eq!(endpoint(found), Some("urn:uuid:1234"));
        assert!(found.value("Scopes").is_some_and(|scopes| scopes.contains("/name/bow%201")));
        let found = asked(
            "<d:Resolve><w:EndpointReference><w:Address>urn:uuid:1234</w:Address></w:EndpointReference></d:Resolve>",
        );
        assert!(found.expect("an answer").body.child("ResolveMatch").is_some());
    }

    #[test]
    fn it_says_that_it_is_there_and_that_it_goes() {
        let hello = Envelope::parse(notice(Notice::Hello, &about(), HERE, (9, 1)).as_bytes()).unwrap();
        assert_eq!(hello.header.value("Action"), Some(&*format!("{DISCOVERY}/Hello")));
        let address = hello.body.value("XAddrs").unwrap();
        assert!(address.contains("://10.0.0.2:") && address.ends_with("/onvif/device_service"), "{address}");
        let bye = Envelope::parse(notice(Notice::Bye, &about(), HERE, (9, 2)).as_bytes()).unwrap();
        assert_eq!((&*bye.body.name, endpoint(&bye.body)), ("Bye", endpoint(&hello.body)));
        assert_eq!(bye.body.value("XAddrs"), None);
        // Its own messages come back by the group.
        for kind in [Notice::Hello, Notice::Bye] {
            assert_eq!(answer(notice(kind, &about(), HERE, (9, 3)).as_bytes(), &about(), HERE, (9, 4)), None);
        }
    }

    #[test]
    fn only_who_looks_for_such_a_device_is_answered() {
        let probe = |types: &str, scopes: &str| {
            let types = if types.is_empty() { String::new() } else { format!("<d:Types>{types}</d:Types>") };
            asked(&format!("<d:Probe>{types}{scopes}</d:Probe>")).is_some()
        };
        let scope = |scope: &str| format!("<d:Scopes>{scope}</d:Scopes>");
        let by = |by: &str, scope: &str| format!("<d:Scopes MatchBy='{DISCOVERY}/{by}'>{scope}</d:Scopes>");
        let device = format!("<d:Probe><d:Types xmlns:x='{TDS}'>x:Device</d:Types></d:Probe>");
        assert!(asked(&device).is_some());
        // That of Windows looks for printers, and some declare no prefix.
        assert!(asked(&device.replace(TDS, "http://schemas.xmlsoap.org/ws/2006/02/devprof")).is_none());
        assert!(probe("undeclared:NetworkVideoTransmitter", ""));
        assert!(probe("", "") && probe("dn:NetworkVideoTransmitter NetworkVideoTransmitter", ""));
        assert!(!probe("dn:NetworkVideoDisplay", "") && !probe("dn:NetworkVideoTransmitter dn:Other", ""));
        for (scopes, expected) in [
            (scope(""), true),
            (scope("onvif://www.onvif.org"), true),
            (scope("onvif://www.onvif.org/"), true),
            (scope("ONVIF://WWW.onvif.org/Profile/Streaming onvif://www.onvif.org/type/video_encoder"), true),
            (scope("onvif://www.onvif.org/Profile"), true),
            (scope("onvif://www.onvif.org/Prof"), false),
            (scope("onvif://www.onvif.org/profile"), false),
            (scope("onvif://www.onvif.org/Profile onvif://www.onvif.org/location/deck"), false),
            (by("strcmp0", "onvif://www.onvif.org/Profile/T"), true),
            (by("strcmp0", "onvif://www.onvif.org/Profile"), false),
            (by("ldap", "onvif://www.onvif.org/Profile/T"), false),
        ] {
            assert_eq!(probe("", &scopes), expected, "{scopes}");
        }
    }

    #[test]
    fn what_is_no_question_for_it_is_not_answered() {
        let other =
            "<d:Resolve><w:EndpointReference><w:Address>urn:uuid:12</w:Address></w:EndpointReference></d:Resolve>";
        let hello =
            "<d:Hello><w:EndpointReference><w:Address>urn:uuid:1234</w:Address></w:EndpointReference></d:Hello>";
        for body in [other, hello, "<d:Resolve/>", "<Probe/>", "<d:ProbeMatches/>", ""] {
            assert!(asked(body).is_none(), "{body}");
        }
        let probe = message("<d:Probe/>");
        assert!(answer(probe.as_bytes(), &about(), HERE, (0, 0)).is_some());
        for cut in 0..probe.len() {
            assert!(answer(&probe.as_bytes()[..cut], &about(), HERE, (0, 0)).is_none());
        }
        let old = probe.replace("http://www.w3.org/2003/05/soap-envelope", "http://schemas.xmlsoap.org/soap/envelope/");
        assert!(answer(old.as_bytes(), &about(), HERE, (0, 0)).is_none());
        let long = probe.replace("uuid:1", &"1".repeat(1000));
        assert!(answer(long.as_bytes(), &about(), HERE, (0, 0)).is_some_and(|text| text.len() < 2500));
    }

    #[tokio::test]
    async fn a_group_that_was_left_is_joined_at_the_next_look() {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a socket");
        let host = Ipv4Addr::LOCALHOST.into();
        let mut places = Places { host, wanted: Vec::new(), here: Vec::new(), failed: HashSet::new() };
        places.look(&socket);
        let here = places.here.first().expect("an interface").address;
        for _ in 0..2 {
            // As it is when a card is pulled.
            SockRef::from(&socket).leave_multicast_v4(&GROUP, &here).expect("it was joined");
            places.look(&socket);
            assert!(places.failed.is_empty(), "{:?}", places.failed);
        }
    }

    #[test]
    fn who_asks_on_an_interface_is_answered_there_and_nowhere_else() {
        let interface = |name: &str, address: [u8; 4]| Interface {
            name: name.to_owned(),
            address: address.into(),
            prefix: 24,
            is_up: true,
            is_point_to_point: false,
        };
        let here =
            vec![interface("lo", [127, 0, 0, 1]), interface("none1", [10, 0, 0, 2]), interface("lo", [10, 0, 1, 2])];
        let places = Places { host: HERE.into(), wanted: Vec::new(), here, failed: HashSet::new() };
        let found = |index, sender: [u8; 4]| places.asked_on(index, sender.into()).map(|one| one.address.octets());
        let lo = Some(interface_index("lo"));
        assert_eq!(found(lo, [127, 0, 0, 9]), Some([127, 0, 0, 1]));
        assert_eq!(found(lo, [10, 0, 1, 9]), Some([10, 0, 1, 2]));
        // Of another interface's subnet, of none, and without an index by the subnet alone.
        assert_eq!((found(lo, [10, 0, 0, 9]), found(lo, [192, 0, 2, 1])), (None, None));
        assert_eq!(found(None, [10, 0, 0, 9]), Some([10, 0, 0, 2]));
    }
}
