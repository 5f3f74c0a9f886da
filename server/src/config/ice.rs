//! `--ice-server`: STUN and TURN servers by which browsers find a path where there is none to this machine. They are
//! told to browsers alone; this machine asks none of them.

use std::net::Ipv6Addr;

use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};
use rov_common::api::IceServer;

use super::{ConfigError, bad};

/// Browsers ask all of them, and complain of more.
pub const MAX_ICE_SERVERS: usize = 4;
/// Of a user name or a credential.
const MAX_LENGTH: usize = 256;
const FORM: &str = "expected stun:HOST[:PORT] or turn:USER:CREDENTIAL@HOST[:PORT][?transport=udp|tcp], also stuns: and \
                    turns:, with %25 for a %, %3A for a : and %40 for a @ in user and credential";
const ESCAPED: &AsciiSet = &CONTROLS.add(b' ').add(b'%').add(b':').add(b'@');

/// Of the options.
pub(super) fn ice_servers(texts: &[String]) -> Result<Vec<IceServer>, ConfigError> {
    if texts.len() > MAX_ICE_SERVERS {
        return bad(format!("--ice-server: {} of them, and {MAX_ICE_SERVERS} are the most", texts.len()));
    }
    // What is wrong is not repeated: it may have a password in it.
    let wrong = |at: usize| ConfigError(format!("--ice-server (number {}): {FORM}", at + 1));
    texts.iter().enumerate().map(|(at, text)| parsed(text).ok_or_else(|| wrong(at))).collect()
}

fn parsed(text: &str) -> Option<IceServer> {
    let (scheme, rest) = text.split_once(':')?;
    let (login, place) = rest.rsplit_once('@').map_or((None, rest), |(login, place)| (Some(login), place));
    let plain = |text: &str| Some(percent_decode_str(text).decode_utf8().ok()?.into_owned());
    let login = match login {
        Some(login) => Some(login.split_once(':').and_then(|(user, word)| Some((plain(user)?, plain(word)?)))?),
        None => None,
    };
    let (username, credential) = login.unzip();
    let server = IceServer { urls: vec![format!("{scheme}:{place}")], username, credential };
    check_ice_server(&server).is_ok().then_some(server)
}

/// As the options have them, one for each URL.
pub fn ice_options(servers: &[IceServer]) -> Vec<String> {
    let option = |server: &IceServer, url: &String| match (&server.username, &server.credential, url.split_once(':')) {
        (Some(user), Some(word), Some((scheme, place))) => {
            let [user, word] = [user, word].map(|text| utf8_percent_encode(text, ESCAPED));
            format!("{scheme}:{user}:{word}@{place}")
        }
        _ => url.clone(),
    };
    servers.iter().flat_map(|server| server.urls.iter().map(|url| option(server, url))).collect()
}

/// Whether browsers take it: of what they do not take they would show no picture at all.
///
/// # Errors
/// Says what is expected.
pub fn check_ice_server(server: &IceServer) -> Result<(), String> {
    let IceServer { urls, username, credential } = server;
    if urls.is_empty() {
        return Err("urls: expected one at least".to_owned());
    }
    for url in urls {
        let Some((scheme, place)) = url.split_once(':') else { return Err(format!("urls: {URL}")) };
        let (place, transport) = place.split_once('?').map_or((place, None), |(place, query)| (place, Some(query)));
        let is_turn = matches!(scheme, "turn" | "turns");
        let is_known = is_turn || matches!(scheme, "stun" | "stuns") && transport.is_none();
        let is_transport = transport.is_none_or(|query| matches!(query, "transport=udp" | "transport=tcp"));
        if !is_known || !is_transport || !is_place(place) {
            return Err(format!("urls: {URL}"));
        }
        if is_turn && (username.is_none() || credential.is_none()) {
            return Err("turn: needs username and credential".to_owned());
        }
    }
    for (name, text) in [("username", username), ("credential", credential)] {
        // They stand in a header of HTTP.
        let is_right =
            |text: &String| (1..=MAX_LENGTH).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
        if text.as_ref().is_some_and(|text| !is_right(text)) {
            return Err(format!("{name}: expected 1 to {MAX_LENGTH} characters of ASCII without spaces"));
        }
    }
    if username.is_some() != credential.is_some() {
        return Err("username and credential: expected both or none".to_owned());
    }
    Ok(())
}

const URL: &str = "expected stun:HOST[:PORT], stuns:..., turn:HOST[:PORT][?transport=udp|tcp] or turns:...";

/// `HOST[:PORT]`
fn is_place(place: &str) -> bool {
    let (host, port) = match place.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, port)) if address.parse::<Ipv6Addr>().is_ok() => (None, port.strip_prefix(':')),
        Some(_) => return false,
        None => place.split_once(':').map_or((Some(place), None), |(host, port)| (Some(host), Some(port))),
    };
    let is_name = |host: &str| {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
        (1..=253).contains(&host.len()) && host.bytes().all(is_plain)
    };
    host.is_none_or(is_name) && port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0))
}

/// As WHEP tells them (RFC 9725 section 4.6): values of `Link`.
pub fn links(servers: &[IceServer]) -> impl Iterator<Item = String> + '_ {
    let quoted = |text: &str| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
    let link = move |server: &IceServer, url: &str| {
        let login =
            server.username.as_deref().zip(server.credential.as_deref()).map_or_else(String::new, |(user, word)| {
                format!("; username={}; credential={}; credential-type=\"password\"", quoted(user), quoted(word))
            });
        format!("<{url}>; rel=\"ice-server\"{login}")
    };
    servers.iter().flat_map(move |server| server.urls.iter().map(move |url| link(server, url)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Result<Vec<IceServer>, String> {
        ice_servers(&[text.to_owned()]).map_err(|error| error.to_string())
    }

    #[test]
    fn a_server_is_read_as_it_is_written_and_told_as_whep_has_it() {
        for (text, url, login, link) in [
            ("stun:10.0.0.1", "stun:10.0.0.1", None, r#"<stun:10.0.0.1>; rel="ice-server""#),
            ("stuns:[fe80::1]:5349", "stuns:[fe80::1]:5349", None, r#"<stuns:[fe80::1]:5349>; rel="ice-server""#),
            (
                "turn:pilot:de%40ep%3A%25\"@rov.lan:3478?transport=tcp",
                "turn:rov.lan:3478?transport=tcp",
                Some(("pilot", "de@ep:%\"")),
                r#"<turn:rov.lan:3478?transport=tcp>; rel="ice-server"; username="pilot"; credential="de@ep:%\""; credential-type="password""#,
            ),
        ] {
            let servers = of(text).unwrap();
            let (username, credential) = login.map(|(user, word)| (user.to_owned(), word.to_owned())).unzip();
            assert_eq!(servers, [IceServer { urls: vec![url.to_owned()], username, credential }]);
            assert_eq!(
                (ice_options(&servers), links(&servers).collect::<Vec<_>>()),
                (vec![text.to_owned()], vec![link.to_owned()])
            );
        }
    }

    #[test]
    fn what_no_browser_takes_is_refused_and_not_repeated() {
        for wrong in [
            "",
            "10.0.0.1",
            "http://10.0.0.1",
            "stun:",
            "stun:10.0.0.1:0",
            "stun:10.0.0.1:99999",
            "stun:10.0.0.1?transport=udp",
            "stun:[::1",
            "stun:ho st",
            "turn:10.0.0.1",
            "turn:deep@10.0.0.1",
            "turn:pilot:@10.0.0.1",
            "turn:pilot:deep sea@10.0.0.1",
            "turn:pilot:d%0a@10.0.0.1",
            "turn:pilot:deep@10.0.0.1?transport=sctp",
        ] {
            let refused = of(wrong).expect_err(wrong);
            assert!(
                refused.contains("--ice-server (number 1): expected stun:HOST") && !refused.contains("deep@"),
                "{refused}"
            );
        }
        let many = vec!["stun:10.0.0.1".to_owned(); MAX_ICE_SERVERS + 1];
        assert!(ice_servers(&many).is_err());
        let both = IceServer { urls: vec!["stun:a".to_owned()], username: Some("a".to_owned()), credential: None };
        assert!(check_ice_server(&both).unwrap_err().contains("both or none"));
        assert!(check_ice_server(&IceServer { urls: Vec::new(), ..both }).is_err());
    }
}
