//! The address of an RTSP camera as people type it, and its password, which reaches no log.

use std::borrow::Cow;
use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use percent_encoding::percent_decode_str;
use url::{ParseError, Position, Url};

/// RFC 7826 section 4.2; `rtsps` has its own.
const PORT: u16 = 554;
const TLS_PORT: u16 = 322;
/// In the place of a secret.
pub(crate) const HIDDEN: &str = "...";

/// Who may see a stream.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// May be empty: some cameras know a password only.
    pub user: String,
    pub password: String,
}

/// Without the password, as this may go into logs.
impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("user", &self.user).finish_non_exhaustive()
    }
}

/// A camera's stream, and who may see it. Shown without anything that may be a password.
#[derive(Clone, PartialEq, Eq)]
pub struct CameraUrl {
    /// Without the credentials; yet path and query may have some as well.
    url: Url,
    credentials: Option<Credentials>,
}

impl CameraUrl {
    /// As [`parse_url`].
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        parse_url(text).map(Self::from)
    }

    /// With these where the URL had none.
    pub fn or_credentials(mut self, others: Option<&Credentials>) -> Self {
        self.credentials = self.credentials.or_else(|| others.cloned());
        self
    }

    /// Without user and password.
    pub fn url(&self) -> &Url {
        &self.url
    }

    pub fn credentials(&self) -> Option<&Credentials> {
        self.credentials.as_ref()
    }

    pub fn is_tls(&self) -> bool {
        self.url.scheme() == "rtsps"
    }

    pub fn port(&self) -> u16 {
        self.url.port().unwrap_or(if self.is_tls() { TLS_PORT } else { PORT })
    }

    /// As GStreamer has to be told it, without user and password: by TLS too it takes port 554 where none is given.
    pub fn location(&self) -> Url {
        let mut location = self.url.clone();
        if self.is_tls() {
            // It fails for URLs without a host only.
            let _ = location.set_port(Some(self.port()));
        }
        location
    }

    /// Host, and the port where it is given, for people.
    pub fn address(&self) -> String {
        let host = self.url.host_str().unwrap_or_default();
        self.url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
    }

    /// For people: without parameters, as many cameras have the password among them, be it in the query or in the path
    /// (`/user=admin&password=...`).
    pub fn path(&self) -> String {
        shown_path(&self.url[Position::BeforePath..]).into_owned()
    }
}

impl From<Url> for CameraUrl {
    fn from(mut url: Url) -> Self {
        let plain = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
        let given = !url.username().is_empty() || url.password().is_some();
        let credentials = given
            .then(|| Credentials { user: plain(url.username()), password: plain(url.password().unwrap_or_default()) });
        // Both fail for URLs without a host only, which have neither.
        let _ = (url.set_username(""), url.set_password(None));
        Self { url, credentials }
    }
}

impl fmt::Display for CameraUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}{}", self.url.scheme(), self.address(), self.path())
    }
}

impl fmt::Debug for CameraUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// Which certificate of a camera is taken, by `rtsps`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Trust {
    /// What the system trusts.
    #[default]
    System,
    /// That of this SHA-256 fingerprint too, in 64 small hexadecimal digits.
    Pinned(String),
    /// Each.
    Any,
}

impl Trust {
    /// Whether one that the system does not trust is taken.
    pub fn accepts(&self, fingerprint: &str) -> bool {
        match self {
            Self::System => false,
            Self::Pinned(pinned) => pinned == fingerprint,
            Self::Any => true,
        }
    }

    /// What to do about one that is not taken.
    pub fn advice(fingerprint: &str) -> String {
        format!(
            "certificate not trusted (SHA-256 {fingerprint}): if it is the camera's own, give --camera-certificate \
             {fingerprint}, or 'any' to take each"
        )
    }
}

impl FromStr for Trust {
    type Err = String;

    /// `system`, `any`, or a fingerprint, whose bytes may have colons between them.
    fn from_str(text: &str) -> Result<Self, String> {
        let digits = text.replace(':', "").to_ascii_lowercase();
        match text {
            "system" => Ok(Self::System),
            "any" => Ok(Self::Any),
            _ if digits.len() == 64 && digits.chars().all(|c| c.is_ascii_hexdigit()) => Ok(Self::Pinned(digits)),
            _ => {
                Err("give system, any, or the SHA-256 fingerprint of the certificate, 64 hexadecimal digits".to_owned())
            }
        }
    }
}

impl fmt::Display for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::System => f.write_str("system"),
            Self::Pinned(fingerprint) => f.write_str(fingerprint),
            Self::Any => f.write_str("any"),
        }
    }
}

/// A URL as people type it: user and password may have in them what should be encoded there, `%`, `#`, `/`, `?` and
/// `@`. Only what looks like an encoded byte (`%40`) stands for another.
pub fn parse_url(text: &str) -> Result<Url, ParseError> {
    let text = text.trim();
    let found = text.split_once("://").and_then(|(scheme, rest)| Some((scheme, rest, user_info_end(rest)?)));
    let Some((scheme, rest, at)) = found else { return Url::parse(text) };
    let (user, password) = match rest[..at].split_once(':') {
        Some((user, password)) => (user, Some(password)),
        None => (&rest[..at], None),
    };
    let mut url = Url::parse(&format!("{scheme}://{}", &rest[at + 1..]))?;
    // As in `From`.
    let _ = (url.set_username(user), url.set_password(password));
    Ok(url)
}

/// Where the `@` behind user and password is, in what follows `://`. A password may have in it what ends the host in a
/// URL; where the text can be read both ways, it is a password if only then the host looks like one.
fn user_info_end(rest: &str) -> Option<usize> {
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let usual = rest[..end].rfind('@');
    let (host, port) = host_and_port(&rest[usual.map_or(0, |at| at + 1)..end]);
    // The address of a camera behind a proxy may be its path.
    let is_usual =
        is_likely_host(host) && port.is_none_or(is_port) || !rest[..end].contains(':') || rest.contains("://");
    let mut later = rest.rmatch_indices('@').map(|(at, _)| at).filter(|at| *at > end);
    if is_usual || later.clone().next().is_none() {
        return usual;
    }
    // No camera's address has a fragment, and no port has letters.
    let is_impossible = rest[end..].starts_with('#') || port.is_some_and(|port| !is_port(port));
    let likely = |at: &usize| {
        let place = &rest[at + 1..];
        let (host, port) = host_and_port(&place[..place.find(['/', '?', '#']).unwrap_or(place.len())]);
        is_likely_host(host) && port.is_none_or(is_port)
    };
    let last = later.clone().next().filter(|_| is_impossible);
    // Of names without dots neither is more likely than the other: then it is hidden, unless the port is one of
    // cameras.
    let hidden = later.clone().next().filter(|_| !port.is_some_and(|port| matches!(port, "554" | "8554" | "322")));
    later.find(likely).or(last).or(hidden).or(usual)
}

fn host_and_port(text: &str) -> (&str, Option<&str>) {
    match text.rsplit_once(':') {
        Some((host, port)) if !text.ends_with(']') => (host, Some(port)),
        _ => (text, None),
    }
}

fn is_port(text: &str) -> bool {
    text.is_empty() || text.parse::<u16>().is_ok()
}

/// An IP address, or a name of several parts.
fn is_likely_host(text: &str) -> bool {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
    text.parse::<Ipv4Addr>().is_ok()
        || (text.starts_with('[') && text.ends_with(']'))
        || text == "localhost"
        || (text.contains('.') && text.chars().all(is_name) && !text.starts_with('.'))
}

/// A path, and what follows it, up to where a password may begin.
pub(crate) fn shown_path(path: &str) -> Cow<'_, str> {
    if path.contains('@') {
        return Cow::Owned(format!("/{HIDDEN}"));
    }
    match path.find(['?', '=', '&', '#']) {
        Some(end) => Cow::Owned(format!("{}{HIDDEN}", &path[..end])),
        None => Cow::Borrowed(path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redact::redact;

    #[test]
    fn user_and_password_are_taken_as_they_are_typed() {
        for (typed, user, password) in [
            ("admin:secret", "admin", "secret"),
            ("admin:12#34", "admin", "12#34"),
            ("admin:12/34", "admin", "12/34"),
            ("admin:12?34", "admin", "12?34"),
            ("admin:a#b@c", "admin", "a#b@c"),
            ("admin:p@ss", "admin", "p@ss"),
            ("admin:p@ss/w?r#d%", "admin", "p@ss/w?r#d%"),
            ("admin:100%", "admin", "100%"),
            ("admin:50%2", "admin", "50%2"),
            ("admin:s%40cret%25", "admin", "s@cret%"),
            ("admin:a:b", "admin", "a:b"),
            ("admin", "admin", ""),
            (":secret", "", "secret"),
            ("us%40er:deep blue", "us@er", "deep blue"),
        ] {
            for place in ["10.0.0.3/cam", "10.0.0.3:8554/a@1", "cam.local", "[fd00::3]:554/x?y=1"] {
                let camera = CameraUrl::parse(&format!("rtsp://{typed}@{place}")).unwrap();
                let expected = Credentials { user: user.to_owned(), password: password.to_owned() };
                assert_eq!(camera.credentials(), Some(&expected), "{typed} at {place}");
                assert!(camera.url().as_str().starts_with(&format!("rtsp://{place}")), "{}", camera.url());
                assert!(!format!("{camera} {camera:?} {expected:?}").contains(password) || password.is_empty());
            }
        }
        let odd = CameraUrl::parse("rtsp://admin:12#34@cam/x").unwrap();
        assert_eq!((odd.to_string().as_str(), odd.credentials().unwrap().password.as_str()), ("rtsp://cam/x", "12#34"));
        for (typed, shown, password) in [
            ("rtsp://admin:1234/5678@raspi/s", "rtsp://raspi/s", Some("1234/5678")),
            ("rtsp://admin:1234?5678@raspi:8554/s", "rtsp://raspi:8554/s", Some("1234?5678")),
            ("rtsp://cam:8554/a@b", "rtsp://cam:8554/...", None),
        ] {
            let camera = CameraUrl::parse(typed).unwrap();
            assert_eq!(camera.credentials().map(|it| it.password.as_str()), password, "{typed}");
            assert_eq!(camera.to_string(), shown, "{typed}");
        }
    }

    #[test]
    fn an_at_sign_in_the_path_is_of_the_path() {
        for text in
            ["rtsp://10.0.0.3/cam@1", "rtsp://cam/cam@10.0.0.1", "rtsp://nvr:554/a@b", "rtsp://nvr.local:554/x@1.2.3.4"]
        {
            let camera = CameraUrl::parse(text).unwrap();
            assert_eq!((camera.credentials(), camera.url().as_str()), (None, text));
            assert!(camera.to_string().ends_with("/..."), "{camera}");
        }
        let proxied = "rtsp://proxy:8554/rtsp://me:secret@10.0.0.3/";
        assert_eq!(CameraUrl::parse(proxied).unwrap().to_string(), "rtsp://proxy:8554/...");
        assert!(!redact(proxied).contains("secret"));
        let both = CameraUrl::parse("rtsp://me:secret@10.0.0.3/cam@1").unwrap();
        assert_eq!(both.url().as_str(), "rtsp://10.0.0.3/cam@1");
        assert_eq!(both.credentials().unwrap().password, "secret");
    }

    #[test]
    fn a_certificate_is_trusted_by_its_fingerprint() {
        let (fingerprint, colons) = ("ab".repeat(32), ["AB"; 32].join(":"));
        let pinned: Trust = colons.parse().unwrap();
        assert_eq!(pinned, Trust::Pinned(fingerprint.clone()));
        assert!(pinned.accepts(&fingerprint) && !pinned.accepts(&"cd".repeat(32)) && Trust::Any.accepts(&fingerprint));
        assert!(!Trust::default().accepts(&fingerprint));
        assert!("ab".parse::<Trust>().is_err() && "".parse::<Trust>().is_err());
        for trust in [Trust::System, Trust::Any, pinned] {
            assert_eq!(trust.to_string().parse(), Ok(trust));
        }
    }

    #[test]
    fn ports_are_those_of_the_scheme() {
        let port = |text| CameraUrl::parse(text).unwrap().port();
        assert_eq!([port("rtsp://a/"), port("rtsps://a/"), port("rtsps://u:p@a:9/")], [554, 322, 9]);
    }

    #[test]
    fn passwords_in_the_path_or_the_query_are_not_shown() {
        for (url, shown) in [
            ("rtsp://10.0.0.3/user=admin&password=secret&channel=1", "rtsp://10.0.0.3/user..."),
            ("rtsp://10.0.0.3/admin_secret=x", "rtsp://10.0.0.3/admin_secret..."),
            ("rtsp://10.0.0.3:554/cam?user=admin&password=secret", "rtsp://10.0.0.3:554/cam..."),
            ("rtsp://10.0.0.3/h264&secret", "rtsp://10.0.0.3/h264..."),
            ("rtsps://me:secret@10.0.0.3/Streaming/Channels/101", "rtsps://10.0.0.3/Streaming/Channels/101"),
        ] {
            let camera = CameraUrl::parse(url).unwrap();
            assert_eq!((camera.to_string().as_str(), redact(url).replace("...@", "").as_str()), (shown, shown));
        }
    }
}
