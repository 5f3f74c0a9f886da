//! Who may use the HTTP API: the names by which the server may be asked, and the pages of other origins that may use
//! it.
//!
//! A page of the internet whose name leads to this machine (DNS rebinding) is of the same origin as this server for the
//! browser. Only the name in `Host` tells it, so names that are not this machine's own are refused. An IP address
//! cannot be rebound.
//!
//! Pages of other origins are kept out, unless their origin was named: by CORS, `Cross-Origin-Resource-Policy` (an
//! `<img>`) and `frame-ancestors`, which the browser enforces, and by `Sec-Fetch-Site`, which it sends to HTTPS and
//! localhost alone.

use std::fs::File;
use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use url::Url;

use super::failure::Failure;

const RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");
/// What pages of other origins may do, and what they may read of an answer beside its body.
const METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, POST, PATCH, DELETE");
const REQUEST_HEADERS: HeaderValue = HeaderValue::from_static("Authorization, Content-Type, If-Match, If-None-Match");
const EXPOSED: HeaderValue = HeaderValue::from_static(
    "Location, ETag, Accept-Patch, X-Timestamp, Content-Disposition, X-Content-Duration, X-Age, X-Server-Id, \
     X-Server-Key",
);
pub(super) const NOT_FOR_PAGES: &str =
    "pages of other origins may not use this server: start it with --allow-origin ORIGIN to let one";
/// In seconds; browsers ask again after that.
const PREFLIGHT_AGE: HeaderValue = HeaderValue::from_static("600");

/// Domains of local networks, which nobody on the internet can have (RFC 6762, RFC 8375, ICANN's `internal`, and what
/// routers use).
const LOCAL_DOMAINS: [&str; 5] = ["local", "home.arpa", "internal", "lan", "localdomain"];
const RESOLV_CONF: &str = "/etc/resolv.conf";
/// Of that file.
const MAX_RESOLV_CONF: u64 = 64 << 10;
const MAX_DOMAINS: usize = 32;

#[derive(Debug)]
pub(super) struct Access {
    /// `--allow-host`: in lower case.
    hosts: Vec<String>,
    /// In which this machine may have its name, besides [`LOCAL_DOMAINS`].
    domains: Vec<String>,
    /// `--allow-origin`: as browsers write them.
    origins: Vec<String>,
    /// Of `Content-Security-Policy`.
    frames: HeaderValue,
}

/// Whose page asks, as far as the browser tells.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Asker {
    /// This server's own page, or no page at all: a program, or a person who typed the address.
    Own,
    /// A page of an origin that may.
    Allowed(String),
    Foreign,
}

impl Access {
    pub fn new(hosts: &[String], domains: Vec<String>, origins: &[String]) -> Self {
        let ancestors = if origins.is_empty() { "'none'".to_owned() } else { origins.join(" ") };
        let frames = HeaderValue::from_str(&format!("frame-ancestors {ancestors}"));
        Self {
            hosts: hosts.iter().map(|host| host.to_ascii_lowercase()).collect(),
            domains,
            origins: origins.to_vec(),
            // Origins are ASCII.
            frames: frames.unwrap_or(HeaderValue::from_static("frame-ancestors 'none'")),
        }
    }

    /// RFC 9112 section 3.2: HTTP/1.1 has one `Host`, and the authority of the request's target counts where there is
    /// one.
    fn check_host(&self, request: &Request) -> Result<(), Failure> {
        let bad = |reason: &str| Err(Failure(StatusCode::BAD_REQUEST, reason.to_owned()));
        let mut given = request.headers().get_all(header::HOST).iter();
        let host = match (given.next(), given.next()) {
            (Some(_), Some(_)) => return bad("the request has two Host headers"),
            (None, _) if request.version() >= Version::HTTP_11 => return bad("the request has no Host header"),
            (host, _) => host,
        };
        let host = host.map(|host| host.to_str().ok().and_then(|host| host.parse::<Authority>().ok()));
        if host == Some(None) || host.iter().flatten().any(|host| host.as_str().contains('@')) {
            return bad("the Host header is no name or address");
        }
        let own = hostname::get().map(|name| name.to_string_lossy().to_ascii_lowercase()).unwrap_or_default();
        for host in host.flatten().iter().chain(request.uri().authority()) {
            let name = host.host().trim_end_matches('.').to_ascii_lowercase();
            if !is_address(&name) && !is_own(&name, &own, &self.domains) && !self.hosts.contains(&name) {
                let reason = format!(
                    "{name:?} is not a name of this machine: use its IP address, or start the server with \
                     --allow-host {name}"
                );
                return Err(Failure(StatusCode::MISDIRECTED_REQUEST, reason));
            }
        }
        Ok(())
    }

    fn asker(&self, headers: &HeaderMap) -> Asker {
        let origin = text(headers, &header::ORIGIN);
        // An `<img>` and a frame have no origin; most say the page that they are in.
        let of_page = origin.map(str::to_owned).or_else(|| origin_of(text(headers, &header::REFERER)?));
        if let Some(allowed) = of_page.filter(|origin| self.origins.contains(origin)) {
            return Asker::Allowed(allowed);
        }
        let is_own = match (fetch(headers, "site"), origin) {
            (Some(site), _) => matches!(site, "same-origin" | "none"),
            (None, Some(origin)) => is_of_host(origin, headers),
            (None, None) => true,
        };
        if is_own { Asker::Own } else { Asker::Foreign }
    }

    /// Whether the browser says that a page of another origin wants this. Whoever follows a link may, and frames are
    /// left to `frame-ancestors` where any may be.
    fn is_refused(&self, headers: &HeaderMap) -> bool {
        let navigates = fetch(headers, "mode") == Some("navigate")
            && (fetch(headers, "dest").is_none_or(|dest| dest == "document") || !self.origins.is_empty());
        fetch(headers, "site").is_some() && !navigates && self.asker(headers) == Asker::Foreign
    }

    /// What the browser is told to enforce.
    fn add_headers(&self, asker: &Asker, headers: &mut HeaderMap) {
        let policy = match headers.remove(header::CONTENT_SECURITY_POLICY) {
            Some(policy) => HeaderValue::from_bytes(&[policy.as_bytes(), b"; ", self.frames.as_bytes()].concat()),
            None => Ok(self.frames.clone()),
        };
        headers.insert(header::CONTENT_SECURITY_POLICY, policy.unwrap_or_else(|_| self.frames.clone()));
        if !self.origins.is_empty() {
            headers.append(header::VARY, HeaderValue::from_static("Origin, Referer"));
        }
        let allowed = match asker {
            Asker::Allowed(origin) => HeaderValue::from_str(origin).ok(),
            _ => None,
        };
        let reach = if allowed.is_some() { "cross-origin" } else { "same-origin" };
        headers.insert(RESOURCE_POLICY, HeaderValue::from_static(reach));
        if let Some(origin) = allowed {
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
            headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
        }
    }
}

/// Refuses what the API is not for, and tells browsers who else may see the answers.
pub(super) async fn guard(State(access): State<Arc<Access>>, request: Request, next: Next) -> Response {
    let asker = access.asker(request.headers());
    let is_preflight = request.method() == Method::OPTIONS
        && request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
        && matches!(asker, Asker::Allowed(_));
    let mut response = match access.check_host(&request) {
        Err(failure) => failure.into_response(),
        Ok(()) if is_preflight => preflight(),
        Ok(()) if access.is_refused(request.headers()) => {
            Failure(StatusCode::FORBIDDEN, NOT_FOR_PAGES.to_owned()).into_response()
        }
        Ok(()) => next.run(request).await,
    };
    access.add_headers(&asker, response.headers_mut());
    response
}

fn preflight() -> Response {
    let headers = [
        (header::ACCESS_CONTROL_ALLOW_METHODS, METHODS),
        (header::ACCESS_CONTROL_ALLOW_HEADERS, REQUEST_HEADERS),
        (header::ACCESS_CONTROL_MAX_AGE, PREFLIGHT_AGE),
    ];
    (StatusCode::NO_CONTENT, headers).into_response()
}

/// Whether a request that browsers send for any page without asking first comes from this server's own page, or from no
/// page, or from one that may.
pub(super) fn is_trusted(headers: &HeaderMap, access: &Access) -> bool {
    access.asker(headers) != Asker::Foreign
}

/// The IPv4 address that the viewer at `peer` asked, which need not be one of this machine: it may be behind a NAT. A
/// loopback address leads a viewer elsewhere to itself.
pub(super) fn asked_address(headers: &HeaderMap, peer: IpAddr) -> Option<Ipv4Addr> {
    let asked: Ipv4Addr = text(headers, &header::HOST)?.parse::<Authority>().ok()?.host().parse().ok()?;
    let is_of_one = !asked.is_unspecified() && !asked.is_multicast() && !asked.is_broadcast();
    let is_reached = !asked.is_loopback() || peer.to_canonical().is_loopback();
    (is_of_one && is_reached).then_some(asked)
}

/// The domains in which the resolver of this machine looks for names: in these its network knows it by its own.
pub(super) fn search_domains() -> Vec<String> {
    let mut bytes = Vec::new();
    // Without that file there are none.
    let _ = File::open(RESOLV_CONF).and_then(|file| file.take(MAX_RESOLV_CONF).read_to_end(&mut bytes));
    domains_of(&String::from_utf8_lossy(&bytes))
}

/// See resolv.conf(5).
fn domains_of(resolv_conf: &str) -> Vec<String> {
    let lines = resolv_conf.lines().map(str::split_whitespace);
    let lists = lines.filter_map(|mut words| matches!(words.next(), Some("search" | "domain")).then_some(words));
    let domains = lists.flatten().map(|domain| domain.trim_matches('.').to_ascii_lowercase());
    domains.filter(|domain| !domain.is_empty()).take(MAX_DOMAINS).collect()
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// Of the Fetch Metadata that browsers send: site, mode or dest.
fn fetch<'a>(headers: &'a HeaderMap, what: &str) -> Option<&'a str> {
    headers.get(format!("sec-fetch-{what}")).and_then(|value| value.to_str().ok())
}

fn origin_of(page: &str) -> Option<String> {
    Some(Url::parse(page).ok()?.origin().ascii_serialization())
}

/// Whether `origin` is that of this server as the browser sees it, by HTTP or behind a proxy by HTTPS.
fn is_of_host(origin: &str, headers: &HeaderMap) -> bool {
    let authority = origin.split_once("://").map(|(_, authority)| authority);
    authority.zip(text(headers, &header::HOST)).is_some_and(|(origin, host)| origin.eq_ignore_ascii_case(host))
}

fn is_address(host: &str) -> bool {
    let v6 = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    host.parse::<Ipv4Addr>().is_ok() || v6.is_some_and(|host| host.parse::<Ipv6Addr>().is_ok())
}

/// Whether a host is this machine for everybody: localhost, or its name, in one of the `domains` or a local one too. By
/// multicast DNS a second machine of the name is called `NAME-2.local`.
fn is_own(host: &str, own: &str, domains: &[String]) -> bool {
    if host == "localhost" || host == "localhost.localdomain" || host.ends_with(".localhost") {
        return true;
    }
    let short = own.split('.').next().unwrap_or(own);
    if short.is_empty() {
        return false;
    }
    let rest = host.strip_prefix(short);
    let domain = rest.and_then(|rest| rest.strip_prefix('.'));
    let number = rest.and_then(|rest| rest.strip_prefix('-')?.strip_suffix(".local"));
    host == own
        || host == short
        || domain.is_some_and(|domain| LOCAL_DOMAINS.contains(&domain) || domains.iter().any(|own| own == domain))
        || number.is_some_and(|number| number.parse::<u16>().is_ok())
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    fn access() -> Access {
        Access::new(
            &["Rov.Lan".to_owned()],
            Vec::new(),
            &["http://10.0.0.9:3000".to_owned(), "https://dash.example".to_owned()],
        )
    }

    fn request(headers: &[(&str, &str)]) -> Request {
        let mut request = Request::builder().uri("/");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(Body::empty()).expect("a request")
    }

    fn asker(headers: &[(&str, &str)]) -> Asker {
        access().asker(request(headers).headers())
    }

    #[test]
    fn a_machine_has_its_own_names_and_no_others() {
        let domains = ["boat.example".to_owned()];
        for host in [
            "localhost",
            "localhost.localdomain",
            "a.localhost",
            "rov1",
            "rov1.sea.example",
            "rov1.boat.example",
            "rov1.local",
            "rov1-2.local",
            "rov1.lan",
            "rov1.home.arpa",
            "rov1.internal",
            "rov1.localdomain",
        ] {
            assert!(is_own(host, "rov1.sea.example", &domains), "{host}");
        }
        for host in [
            "rov2",
            "rov1.example",
            "rov1.evil.example",
            "rov1-x.local",
            "rov1-2.lan",
            "xrov1.local",
            "local",
            "rov2.lan",
            "rov1.x.lan",
            "rov1.lan.evil.example",
            "rov1.boat.example.evil.example",
            "sea.example",
            "boat.example",
        ] {
            assert!(!is_own(host, "rov1.sea.example", &domains), "{host}");
        }
        assert!(["", ".local", "-2.local", ".lan"].iter().all(|host| !is_own(host, "", &domains)));
    }

    #[test]
    fn the_domains_of_the_network_are_those_of_its_resolver() {
        let conf =
            "# search no.example\nnameserver 10.0.0.1\ndomain Sea.Example.\nsearch  boat.example lan\t.\nsearch\n";
        assert_eq!(domains_of(conf), ["sea.example", "boat.example", "lan"]);
        assert_eq!(domains_of(&format!("search {}", "a ".repeat(99))).len(), MAX_DOMAINS);
    }

    #[test]
    fn the_address_that_was_asked_is_one_that_leads_here() {
        let asked = |host: &str, peer: &str| {
            asked_address(request(&[("host", host)]).headers(), peer.parse().expect("an address")).is_some()
        };
        assert!(asked("192.0.2.5:8080", "10.0.0.3") && asked("192.0.2.5", "127.0.0.1"));
        assert!(asked("127.0.0.1:8080", "127.0.0.1") && asked("127.0.0.1:8080", "::ffff:127.0.0.1"));
        for host in ["127.0.0.1:8080", "127.9.9.9", "0.0.0.0", "239.1.2.3:8080", "255.255.255.255", "rov1", "[::1]"] {
            assert!(!asked(host, "10.0.0.3"), "{host}");
        }
    }

    #[test]
    fn the_host_is_an_address_or_a_name_that_is_known() {
        let status =
            |headers: &[(&str, &str)]| access().check_host(&request(headers)).err().map(|failure| failure.0.as_u16());
        for host in ["10.0.0.2", "10.0.0.2:8080", "[::1]:8080", "localhost:1", "rov.lan", "ROV.lan.:80"] {
            assert_eq!(status(&[("host", host)]), None, "{host}");
        }
        for host in ["evil.example", "evil.example:8080", "10.0.0.2.evil.example", "1.2.3", "rov.lan.evil.example"] {
            assert_eq!(status(&[("host", host)]), Some(421), "{host}");
        }
        for host in ["", "a b", "me@10.0.0.2", "10.0.0.2/x"] {
            assert_eq!(status(&[("host", host)]), Some(400), "{host:?}");
        }
        assert_eq!((status(&[]), status(&[("host", "10.0.0.2"), ("host", "10.0.0.2")])), (Some(400), Some(400)));
        let mut old = request(&[]);
        *old.version_mut() = Version::HTTP_10;
        assert!(access().check_host(&old).is_ok());
        let mut absolute = request(&[("host", "10.0.0.2")]);
        *absolute.uri_mut() = "http://evil.example/".parse().expect("a target");
        assert!(access().check_host(&absolute).is_err());
    }

    #[test]
    fn whose_page_asks_is_seen_by_what_browsers_say() {
        let host = ("host", "10.0.0.2:8080");
        for own in [
            &[host][..],
            &[host, ("origin", "http://10.0.0.2:8080")],
            &[host, ("origin", "https://proxy.example"), ("sec-fetch-site", "same-origin")],
            &[host, ("sec-fetch-site", "none")],
            &[host, ("referer", "http://elsewhere.example/")],
        ] {
            assert_eq!(asker(own), Asker::Own, "{own:?}");
        }
        for foreign in [
            &[host, ("origin", "http://10.0.0.2")][..],
            &[host, ("origin", "null")],
            &[host, ("origin", "http://10.0.0.2:8080"), ("sec-fetch-site", "cross-site")],
            &[host, ("origin", "http://10.0.0.9:3001")],
            &[host, ("sec-fetch-site", "same-site")],
            &[host, ("sec-fetch-site", "cross-site"), ("referer", "https://dash.example.evil.example/")],
        ] {
            assert_eq!(asker(foreign), Asker::Foreign, "{foreign:?}");
        }
        let allowed = Asker::Allowed("https://dash.example".to_owned());
        assert_eq!(asker(&[host, ("origin", "https://dash.example"), ("sec-fetch-site", "cross-site")]), allowed);
        assert_eq!(asker(&[host, ("referer", "https://dash.example/rov?x")]), allowed);
    }

    #[test]
    fn who_follows_a_link_is_let_in_and_what_a_page_loads_is_not() {
        let cross = ("sec-fetch-site", "cross-site");
        let closed = Access::new(&[], Vec::new(), &[]);
        for (headers, refused, refused_if_closed) in [
            (&[][..], false, false),
            (&[cross], true, true),
            (&[cross, ("sec-fetch-mode", "no-cors"), ("sec-fetch-dest", "image")], true, true),
            (&[cross, ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document")], false, false),
            (&[cross, ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "iframe")], false, true),
            (&[cross, ("origin", "https://dash.example")], false, true),
        ] {
            let is_refused = |access: &Access| access.is_refused(request(headers).headers());
            assert_eq!((is_refused(&access()), is_refused(&closed)), (refused, refused_if_closed), "{headers:?}");
        }
    }
}
