//! The device service: what this machine is, and which services it has.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::time::SystemTime;

use rov_common::api::Role;
use rov_common::discovery::interfaces::{Interface, chosen};
use rov_common::net;
use time::OffsetDateTime;

use super::fault::Fault;
use super::soap::{Element, escaped, tag, tag_with, value};
use super::{Asked, MAX_SUBSCRIPTIONS, TDS, TEV, TR2, TRT};
use crate::users::User;

/// Of the specifications that this was made by: year and month.
const VERSION: (u32, u32) = (21, 6);

const NETWORK: &str = r#"IPFilter="false" ZeroConfiguration="false" IPVersion6="false" DynDNS="false""#;
const SYSTEM: &str = r#"DiscoveryResolve="true" DiscoveryBye="true" RemoteDiscovery="false" SystemBackup="false" SystemLogging="false" FirmwareUpgrade="false""#;

/// Where the time comes from: of chrony, ntpd and systemd, of which a system has one.
const NTP_FILES: [&str; 5] = [
    "/etc/chrony/chrony.conf",
    "/etc/chrony.conf",
    "/etc/ntpsec/ntp.conf",
    "/etc/ntp.conf",
    "/etc/systemd/timesyncd.conf",
];

/// What is within the response; none: there is no such operation.
pub fn answer(asked: &Asked, request: &Element) -> Option<Result<String, Fault>> {
    let within = match request.name.as_str() {
        "GetSystemDateAndTime" => Ok(date_and_time(SystemTime::now())),
        "GetCapabilities" => capabilities(asked, request),
        "GetServices" => Ok(services(asked, request)),
        "GetServiceCapabilities" => Ok(tag("tds:Capabilities", &own_capabilities(asked))),
        "GetDeviceInformation" => Ok(information(asked)),
        "GetScopes" => Ok(scopes(&asked.api.name)
            .iter()
            .map(|scope| tag("tds:Scopes", &(value("tt:ScopeDef", "Fixed") + &value("tt:ScopeItem", scope))))
            .collect()),
        "GetHostname" => {
            let name = hostname::get().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            Ok(tag("tds:HostnameInformation", &(value("tt:FromDHCP", false) + &value("tt:Name", name))))
        }
        "GetNetworkInterfaces" => network_interfaces(asked),
        "GetNetworkProtocols" => Ok(protocols(asked)),
        "GetNetworkDefaultGateway" => Ok(tag("tds:NetworkGateway", &gateways(&read("/proc/net/route")))),
        "GetDNS" => Ok(tag("tds:DNSInformation", &dns(&read("/etc/resolv.conf")))),
        "GetNTP" => Ok(tag("tds:NTPInformation", &ntp(&NTP_FILES.map(read).join("\n")))),
        "GetDiscoveryMode" => {
            let is_found = asked.onvif.is_found;
            Ok(value("tds:DiscoveryMode", if is_found { "Discoverable" } else { "NonDiscoverable" }))
        }
        "GetUsers" => Ok(asked.api.users.all().map(user).collect()),
        _ => return None,
    };
    Some(within)
}

/// Of a file of the system; one that is not there says nothing.
fn read(file: &str) -> String {
    fs::read_to_string(file).unwrap_or_default()
}

fn protocols(asked: &Asked) -> String {
    let one = |(name, port): (&str, u16)| {
        tag("tds:NetworkProtocols", &(value("tt:Name", name) + &value("tt:Enabled", true) + &value("tt:Port", port)))
    };
    let http = (if asked.onvif.is_tls() { "HTTPS" } else { "HTTP" }, asked.port());
    let rtsp = asked.api.outputs.rtsp.as_ref().map(|rtsp| ("RTSP", rtsp.info(0).port));
    std::iter::once(http).chain(rtsp).map(one).collect()
}

/// Of the routes as Linux lists them: those to everywhere, by the addresses of their gateways.
fn gateways(routes: &str) -> String {
    let gateway = |line: &str| {
        let mut fields = line.split_whitespace().skip(1);
        let (to, by) = (fields.next()?, fields.next()?);
        // In the byte order of the machine.
        let by = u32::from_str_radix(by, 16).ok().filter(|by| to == "00000000" && *by != 0)?;
        Some(value("tt:IPv4Address", Ipv4Addr::from(by.to_ne_bytes())))
    };
    routes.lines().filter_map(gateway).collect()
}

fn dns(resolver: &str) -> String {
    let of = |key: &'static str| {
        let lines = resolver.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        lines.filter_map(move |words| Some(words.split_first().filter(|(first, _)| **first == key)?.1.to_vec()))
    };
    // Only the last line of `search` counts.
    let domains =
        of("search").next_back().unwrap_or_default().into_iter().map(|domain| value("tt:SearchDomain", domain));
    let servers = of("nameserver").flatten().filter(|address| address.parse::<IpAddr>().is_ok());
    let servers = servers.map(|address| tag("tt:DNSManual", &host(address)));
    value("tt:FromDHCP", false) + &domains.collect::<String>() + &servers.collect::<String>()
}

/// Of the lines of [`NTP_FILES`], as `server NAME iburst` and `NTP=NAME NAME`.
fn ntp(lines: &str) -> String {
    let named = |line: &str| -> Vec<String> {
        let own = |names: &str| names.split_whitespace().map(str::to_owned).collect();
        let mut words = line.split_whitespace();
        match (line.trim().strip_prefix("NTP="), words.next()) {
            (Some(names), _) => own(names),
            (None, Some("server" | "pool" | "peer")) => words.next().map(own).unwrap_or_default(),
            _ => Vec::new(),
        }
    };
    let servers = lines.lines().flat_map(named).map(|server| tag("tt:NTPManual", &host(&server)));
    value("tt:FromDHCP", false) + &servers.collect::<String>()
}

/// An address or a name.
fn host(host: &str) -> String {
    let (kind, name) = match host.parse() {
        Ok(IpAddr::V4(_)) => ("IPv4", "tt:IPv4Address"),
        Ok(IpAddr::V6(_)) => ("IPv6", "tt:IPv6Address"),
        Err(_) => ("DNS", "tt:DNSname"),
    };
    value("tt:Type", kind) + &value(name, host)
}

fn user(user: &User) -> String {
    let level = match user.role {
        Role::Controller => "Administrator",
        Role::Viewer => "User",
    };
    tag("tds:User", &(value("tt:Username", &user.name) + &value("tt:UserLevel", level)))
}

fn date_and_time(now: SystemTime) -> String {
    let now = OffsetDateTime::from(now);
    let time = value("tt:Hour", now.hour()) + &value("tt:Minute", now.minute()) + &value("tt:Second", now.second());
    let date = value("tt:Year", now.year()) + &value("tt:Month", u8::from(now.month())) + &value("tt:Day", now.day());
    // All times here are UTC.
    let within = [
        value("tt:DateTimeType", "Manual"),
        value("tt:DaylightSavings", false),
        tag("tt:TimeZone", &value("tt:TZ", "UTC0")),
        tag("tt:UTCDateTime", &(tag("tt:Time", &time) + &tag("tt:Date", &date))),
    ];
    tag("tds:SystemDateAndTime", &within.concat())
}

fn capabilities(asked: &Asked, request: &Element) -> Result<String, Fault> {
    let wanted: Vec<_> = request.children.iter().filter(|child| child.name == "Category").collect();
    let wants = |name: &str| wanted.is_empty() || wanted.iter().any(|known| known.text == name || known.text == "All");
    let flags =
        |names: &[&str], on: bool| names.iter().map(|name| value(&format!("tt:{name}"), on)).collect::<String>();
    let device = || {
        let network = flags(&["IPFilter", "ZeroConfiguration", "IPVersion6", "DynDNS"], false);
        let (major, minor) = VERSION;
        let system = [
            value("tt:DiscoveryResolve", true),
            value("tt:DiscoveryBye", true),
            flags(&["RemoteDiscovery", "SystemBackup", "SystemLogging", "FirmwareUpgrade"], false),
            tag("tt:SupportedVersions", &(value("tt:Major", major) + &value("tt:Minor", minor))),
        ];
        let io = value("tt:InputConnectors", 0) + &value("tt:RelayOutputs", 0);
        let others =
            ["OnboardKeyGeneration", "AccessPolicyConfig", "X.509Token", "SAMLToken", "KerberosToken", "RELToken"];
        let security =
            [value("tt:TLS1.1", false), value("tt:TLS1.2", asked.onvif.is_tls()), flags(&others, false)].concat();
        let parts = [
            value("tt:XAddr", asked.address("device_service")),
            tag("tt:Network", &network),
            tag("tt:System", &system.concat()),
            tag("tt:IO", &io),
            tag("tt:Security", &security),
        ];
        tag("tt:Device", &parts.concat())
    };
    let events = || {
        let parts = [
            value("tt:XAddr", asked.address("events_service")),
            value("tt:WSSubscriptionPolicySupport", false),
            value("tt:WSPullPointSupport", true),
            value("tt:WSPausableSubscriptionManagerInterfaceSupport", false),
        ];
        tag("tt:Events", &parts.concat())
    };
    let media = || {
        let is_served = asked.api.outputs.rtsp.is_some();
        let streaming = flags(&["RTPMulticast"], is_served)
            + &value("tt:RTP_TCP", is_served)
            + &value("tt:RTP_RTSP_TCP", is_served);
        tag(
            "tt:Media",
            &(value("tt:XAddr", asked.address("media_service")) + &tag("tt:StreamingCapabilities", &streaming)),
        )
    };
    let mut parts = String::new();
    // In the order of the schema.
    let known: [(&str, &dyn Fn() -> String); 3] = [("Device", &device), ("Events", &events), ("Media", &media)];
    for (_, part) in known.iter().filter(|(name, _)| wants(name)) {
        parts += &part();
    }
    if parts.is_empty() {
        return Err(Fault::no_service("no service of this category"));
    }
    Ok(tag("tds:Capabilities", &parts))
}

fn services(asked: &Asked, request: &Element) -> String {
    let with_capabilities = matches!(request.value("IncludeCapability"), Some("true" | "1"));
    let own = own_capabilities(asked);
    let of_media = super::media::capabilities(asked);
    let of_media2 = super::media2::capabilities(asked);
    let all = [
        (TDS, "device_service", tag("tds:Capabilities", &own)),
        (TRT, "media_service", of_media),
        (TR2, "media2_service", of_media2),
        (TEV, "events_service", super::events::capabilities(MAX_SUBSCRIPTIONS)),
    ];
    let service = |(namespace, path, capabilities): (&str, &str, String)| {
        let (major, minor) = VERSION;
        let capabilities = if with_capabilities { tag("tds:Capabilities", &capabilities) } else { String::new() };
        let version = tag("tds:Version", &(value("tt:Major", major) + &value("tt:Minor", minor)));
        let parts = [value("tds:Namespace", namespace), value("tds:XAddr", asked.address(path)), capabilities, version];
        tag("tds:Service", &parts.concat())
    };
    all.into_iter().map(service).collect()
}

fn own_capabilities(asked: &Asked) -> String {
    let security = format!(
        r#"TLS1.0="false" TLS1.1="false" TLS1.2="{}" OnboardKeyGeneration="false" AccessPolicyConfig="false" DefaultAccessPolicy="false" RemoteUserHandling="false" X.509Token="false" SAMLToken="false" KerberosToken="false" UsernameToken="true" HttpDigest="{}" RELToken="false""#,
        asked.onvif.is_tls(),
        asked.onvif.digests.has_users()
    );
    tag_with("tds:Network", NETWORK, "")
        + &tag_with("tds:Security", &security, "")
        + &tag_with("tds:System", SYSTEM, "")
}

fn information(asked: &Asked) -> String {
    [
        value("tds:Manufacturer", "ROV streamer"),
        value("tds:Model", "rov-server"),
        value("tds:FirmwareVersion", env!("CARGO_PKG_VERSION")),
        value("tds:SerialNumber", &asked.api.id),
        value("tds:HardwareId", std::env::consts::ARCH),
    ]
    .concat()
}

/// By which clients find devices of a kind (Core specification, section 7.3.2.2).
pub fn scopes(name: &str) -> [String; 5] {
    let named = |name: &str| format!("onvif://www.onvif.org/name/{}", in_path(name));
    [
        "onvif://www.onvif.org/type/video_encoder".to_owned(),
        "onvif://www.onvif.org/Profile/Streaming".to_owned(),
        "onvif://www.onvif.org/Profile/T".to_owned(),
        "onvif://www.onvif.org/hardware/rov-server".to_owned(),
        named(name),
    ]
}

/// A part of a path (RFC 3986).
fn in_path(text: &str) -> String {
    let escaped = |byte: u8| match byte {
        b'-' | b'_' | b'.' | b'~' => (byte as char).to_string(),
        byte if byte.is_ascii_alphanumeric() => (byte as char).to_string(),
        byte => format!("%{byte:02X}"),
    };
    text.bytes().map(escaped).collect()
}

/// Those that discovery uses, each with its addresses.
fn network_interfaces(asked: &Asked) -> Result<String, Fault> {
    let all = net::interfaces().map_err(Fault::internal)?;
    let mut names: Vec<(&str, Vec<&Interface>)> = Vec::new();
    for interface in chosen(&all, &asked.onvif.interfaces, asked.onvif.host) {
        // Further addresses of a card may have labels, as `eth0:1`.
        let name = interface.name.split(':').next().unwrap_or_default();
        match names.iter_mut().find(|(known, _)| *known == name) {
            Some((_, addresses)) => addresses.push(interface),
            None => names.push((name, vec![interface])),
        }
    }
    let one = |(name, addresses): (&str, Vec<&Interface>)| {
        let manual = addresses.iter().map(|interface| {
            tag("tt:Manual", &(value("tt:Address", interface.address) + &value("tt:PrefixLength", interface.prefix)))
        });
        let config = manual.collect::<String>() + &value("tt:DHCP", false);
        let of_card = |what: &str| fs::read_to_string(Path::new("/sys/class/net").join(name).join(what)).ok();
        let hardware =
            of_card("address").map(|address| address.trim().to_owned()).filter(|address| !address.is_empty());
        let info = hardware.map(|address| {
            let mtu = of_card("mtu").and_then(|mtu| mtu.trim().parse::<u32>().ok());
            let mtu = mtu.map_or_else(String::new, |mtu| value("tt:MTU", mtu));
            tag("tt:Info", &(value("tt:Name", name) + &value("tt:HwAddress", address) + &mtu))
        });
        let parts = [
            value("tt:Enabled", addresses.iter().any(|interface| interface.is_up)),
            info.unwrap_or_default(),
            tag("tt:IPv4", &(value("tt:Enabled", true) + &tag("tt:Config", &config))),
        ];
        tag_with("tds:NetworkInterfaces", &format!(r#"token="{}""#, escaped(name)), &parts.concat())
    };
    Ok(names.into_iter().map(one).collect())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_time_is_utc() {
        let leap = SystemTime::UNIX_EPOCH + Duration::from_secs(951_782_399);
        let text = date_and_time(leap);
        for part in
            ["<tt:Year>2000<", "<tt:Month>2<", "<tt:Day>28<", "<tt:Hour>23<", "<tt:Minute>59<", "<tt:Second>59<"]
        {
            assert!(text.contains(part), "{part} in {text}");
        }
    }

    #[test]
    fn gateways_and_name_servers_are_those_of_the_system() {
        let routes = format!(
            "Iface\tDestination\tGateway \tFlags\neth0\t00000000\t{:08X}\t0003\neth0\t0002A8C0\t00000000\t0001\n",
            u32::from_ne_bytes([192, 168, 2, 1])
        );
        assert_eq!(gateways(&routes), "<tt:IPv4Address>192.168.2.1</tt:IPv4Address>");
        assert_eq!(gateways(""), "");
        let text =
            dns("# nameserver 10.0.0.9\nsearch old\nnameserver 10.0.0.1\nnameserver fe80::1%eth0\nsearch boat lan\n");
        let server = "<tt:DNSManual><tt:Type>IPv4</tt:Type><tt:IPv4Address>10.0.0.1</tt:IPv4Address></tt:DNSManual>";
        let domains = "<tt:SearchDomain>boat</tt:SearchDomain><tt:SearchDomain>lan</tt:SearchDomain>";
        assert_eq!(text, format!("<tt:FromDHCP>false</tt:FromDHCP>{domains}{server}"));
    }

    #[test]
    fn time_servers_are_those_of_the_system() {
        let chrony = "# server old\n  pool 2.debian.pool.ntp.org iburst\nserver 10.0.0.1 prefer\nserverstats\nserver\n";
        let systemd = "[Time]\n#NTP=\nNTP=fe80::1 boat<\nFallbackNTP=far\n";
        let server = |kind: &str, name: &str, text: &str| {
            format!("<tt:NTPManual><tt:Type>{kind}</tt:Type><tt:{name}>{text}</tt:{name}></tt:NTPManual>")
        };
        let expected = [
            "<tt:FromDHCP>false</tt:FromDHCP>".to_owned(),
            server("DNS", "DNSname", "2.debian.pool.ntp.org"),
            server("IPv4", "IPv4Address", "10.0.0.1"),
            server("IPv6", "IPv6Address", "fe80::1"),
            server("DNS", "DNSname", "boat&lt;"),
        ];
        assert_eq!(ntp(&format!("{chrony}{systemd}")), expected.concat());
        assert_eq!(ntp(""), expected[0], "none is known");
    }

    #[test]
    fn a_name_is_a_part_of_a_scope_whatever_is_in_it() {
        assert_eq!(scopes("bow 1/ä")[4], "onvif://www.onvif.org/name/bow%201%2F%C3%A4");
    }
}
