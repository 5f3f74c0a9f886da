//! Texts for people, in logs and errors, without what may be a password in them, whatever was typed. What a program
//! writes passes through here at the end, so that no single place must think of it.

use std::borrow::Cow;
use std::ffi::OsString;

use crate::camera::{HIDDEN, shown_path};

/// What our own messages give as an example.
const EXAMPLE: &str = "USER:PASSWORD@";
/// What holds a secret has one of these words in its name, as `user-pw`, `auth_token` or `--password`.
const SECRETS: [&str; 9] = ["pw", "pwd", "password", "passwd", "passphrase", "token", "secret", "credentials", "auth"];
/// What has this name is one in an address alone; an encoder has a `pass` too.
const SECRETS_OF_ADDRESSES: [&str; 4] = ["pass", "key", "apikey", "streamid"];

/// In addresses whatever is in front of the host, and parameters that hold a secret; of those of cameras all of them.
/// The same without a scheme (`USER:PASSWORD@HOST`). The values of what has the name of a secret.
pub fn redact(text: &str) -> Cow<'_, str> {
    let mut text = Cow::Borrowed(text);
    if text.contains("://") && text.contains('\n') {
        text = redact_broken(&text).into();
    }
    if text.contains('@') || text.contains("://") {
        let examples: Vec<_> = text.split(EXAMPLE).collect();
        let shown = examples.into_iter().map(|part| {
            part.split_inclusive('\n').map(|line| redact_bare(&redact_addresses(line))).collect::<String>()
        });
        text = shown.collect::<Vec<_>>().join(EXAMPLE).into();
    }
    if text.contains('=') {
        text = redact_values(&text).into();
    }
    text
}

/// The complaint about a command line, which repeats what was typed between quotation marks, without what may be a
/// password of it.
pub fn redact_typed(complaint: &str, arguments: impl IntoIterator<Item = OsString>) -> String {
    let (mut text, mut is_of_secret) = (complaint.to_owned(), false);
    for argument in arguments {
        let argument = argument.to_string_lossy();
        let (name, value) = match argument.split_once('=') {
            Some((name, value)) if name.starts_with("--") => (name, value),
            _ if argument.starts_with("--") => (&argument[..], ""),
            _ => ("", &argument[..]),
        };
        if !name.is_empty() {
            is_of_secret = is_secret(name, false);
        }
        if value.is_empty() {
            continue;
        }
        // The words behind `--password` that belonged into quotation marks too.
        let shown = match value.rfind('@') {
            _ if is_of_secret => HIDDEN.to_owned(),
            Some(at) if !value.contains("://") => format!("{HIDDEN}{}", &value[at..]),
            _ => redact(value).into_owned(),
        };
        if shown != value {
            for (before, behind) in [("'", "'"), ("-- ", "'"), ("=", "'")] {
                text = text.replace(&format!("{before}{value}{behind}"), &format!("{before}{shown}{behind}"));
            }
        }
    }
    redact(&text).into_owned()
}

/// Addresses with a line break in front of the host, in a password that was pasted.
fn redact_broken(text: &str) -> String {
    let (mut shown, mut rest) = (String::with_capacity(text.len()), text);
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        shown.push_str(before);
        let end = after.find(|c: char| c.is_whitespace() && !"\r\n".contains(c)).unwrap_or(after.len());
        let broken = after[..end].rfind('@').filter(|at| after[..*at].contains('\n') && !after[..*at].contains("://"));
        rest = match broken {
            Some(at) => {
                shown.push_str(HIDDEN);
                &after[at..]
            }
            None => after,
        };
    }
    shown + rest
}

/// Of one line.
fn redact_addresses(line: &str) -> String {
    let (mut shown, mut rest) = (String::with_capacity(line.len()), line);
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        shown.push_str(before);
        let scheme = before[..at].rsplit(|c: char| !c.is_ascii_alphanumeric()).next().unwrap_or_default();
        let is_camera = scheme.get(..4).is_some_and(|start| start.eq_ignore_ascii_case("rtsp"));
        // There may be anything in a camera's password, which is typed by hand. In JSON a quotation mark in it is
        // escaped.
        let end = match is_camera {
            true if is_json(line) => string_end(after),
            true => after.find('\n'),
            false => after.find(|c: char| c.is_whitespace() || "\"')".contains(c)),
        };
        let end = end.unwrap_or(after.len());
        rest = match after[..end].rfind('@') {
            Some(at) => {
                shown.push_str(HIDDEN);
                &after[at..]
            }
            None => after,
        };
        let end = if is_camera {
            let end = rest.find(|c: char| c.is_whitespace() || "\"',;)".contains(c)).unwrap_or(rest.len());
            let host = rest[..end].find(['/', '?']).unwrap_or(end);
            shown.push_str(&rest[..host]);
            shown.push_str(&shown_path(&rest[host..end]));
            end
        } else {
            let end = rest.find(|c: char| c.is_whitespace() || "\"')".contains(c)).unwrap_or(rest.len());
            shown.push_str(&redact_parameters(&rest[..end]));
            end
        };
        rest = &rest[end..];
    }
    shown + rest
}

/// Of an address.
fn redact_parameters(address: &str) -> String {
    let Some((place, parameters)) = address.split_once(['?', '#']) else { return address.to_owned() };
    let shown = parameters.split('&').map(|parameter| match parameter.split_once('=') {
        Some((name, _)) if is_secret(name, true) => format!("{name}={HIDDEN}"),
        _ => parameter.to_owned(),
    });
    format!("{place}{}{}", &address[place.len()..=place.len()], shown.collect::<Vec<_>>().join("&"))
}

/// `USER:PASSWORD@HOST` in a line, up to a blank on both sides.
fn redact_bare(line: &str) -> String {
    let separates = |c: char| c.is_whitespace() || (is_json(line) && c == '"');
    let hidden = |word: &str| {
        let at = word.rfind('@').filter(|at| word[at + 1..].starts_with(|c: char| c.is_alphanumeric() || c == '['));
        let Some(at) = at.filter(|_| !word.contains("://")) else { return word.to_owned() };
        // As in `host="..."`, `'...'` and `[...]`.
        let name = word[..at].find('=').filter(|end| !word[..*end].contains(':')).map_or(0, |end| end + 1);
        let start = name + word[name..at].find(|c: char| !"\"'`([{\\".contains(c)).unwrap_or(0);
        match word[start..at].contains(':') {
            true => format!("{}{HIDDEN}{}", &word[..start], &word[at..]),
            false => word.to_owned(),
        }
    };
    line.split_inclusive(separates)
        .map(|word| match word.char_indices().next_back().filter(|(_, last)| separates(*last)) {
            Some((end, last)) => format!("{}{last}", hidden(&word[..end])),
            None => hidden(word),
        })
        .collect()
}

fn is_json(line: &str) -> bool {
    line.trim_start().starts_with("{\"")
}

/// Where the JSON string ends that `text` begins in.
fn string_end(text: &str) -> Option<usize> {
    let mut is_escaped = false;
    let ends = |byte: u8| {
        let ends = byte == b'"' && !is_escaped;
        is_escaped = byte == b'\\' && !is_escaped;
        ends
    };
    text.bytes().position(ends)
}

fn is_secret(name: &str, is_in_address: bool) -> bool {
    let mut words = name.split(|c: char| !c.is_alphanumeric());
    words.any(|word| {
        let is = |secret: &&str| word.eq_ignore_ascii_case(secret);
        SECRETS.iter().any(is) || is_in_address && SECRETS_OF_ADDRESSES.iter().any(is)
    })
}

/// The values of properties, settings and parameters, as `user-pw=deep`, `password = "deep blue"` or `&token=deep`.
fn redact_values(text: &str) -> String {
    let (mut shown, mut rest) = (String::with_capacity(text.len()), text);
    while let Some(at) = rest.find('=') {
        let before = rest[..at].trim_end_matches([' ', '\t']);
        let name =
            before.rsplit(|c: char| !c.is_ascii_alphanumeric() && c != '-' && c != '_').next().unwrap_or_default();
        let value_at = at + 1 + rest[at + 1..].find(|c| c != ' ' && c != '\t').unwrap_or(rest.len() - at - 1);
        let value = &rest[value_at..];
        // Not `==`, nor `name= ` at the end of a line.
        if !is_secret(name, false) || value.is_empty() || value.starts_with(['\n', '\r', '=']) {
            shown.push_str(&rest[..=at]);
            rest = &rest[at + 1..];
            continue;
        }
        shown.push_str(&rest[..value_at]);
        shown.push_str(HIDDEN);
        rest = &value[value_end(value)..];
    }
    shown + rest
}

fn value_end(value: &str) -> usize {
    let line = value.find(['\n', '\r']).unwrap_or(value.len());
    let quote = ["\\\"", "\"", "'"].into_iter().find(|quote| value.starts_with(quote));
    match quote {
        // One without an end holds all that follows in its line.
        Some(quote) => value[quote.len()..].find(quote).map_or(line, |end| end + 2 * quote.len()),
        None => value.find(|c: char| c.is_whitespace() || "&\"'!;,)".contains(c)).unwrap_or(value.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_shown_without_passwords() {
        for (text, shown) in [
            ("nothing in it", "nothing in it"),
            ("camera rtsp://admin:12#34@10.0.0.3/cam is gone", "camera rtsp://...@10.0.0.3/cam is gone"),
            ("unexpected argument 'rtsp://a:b c'd@h' found", "unexpected argument 'rtsp://...@h' found"),
            ("RTSPS://a:b@h/x?token=deep, more", "RTSPS://...@h/x..., more"),
            ("http://u:p@h/whep, and mail a@b", "http://...@h/whep, and mail a@b"),
            ("http://10.0.0.2:8080 rov@sub", "http://10.0.0.2:8080 rov@sub"),
            ("rtsp://h/a: give rtsp://USER:PASSWORD@HOST/PATH", "rtsp://h/a: give rtsp://USER:PASSWORD@HOST/PATH"),
            ("rtspsrc user-pw=deep ! x password=\"deep blue\" y", "rtspsrc user-pw=... ! x password=... y"),
            ("{\"message\":\"rtsp://a:b@h/\",\"x\":\"y@z\"}", "{\"message\":\"rtsp://...@h/\",\"x\":\"y@z\"}"),
            ("camera rtsp://admin:a\"b@10.0.0.3/cam is gone", "camera rtsp://...@10.0.0.3/cam is gone"),
            ("{\"m\":\"rtsp://a:p\\\"q\\\\@h/\",\"x\":\"y@z\"}", "{\"m\":\"rtsp://...@h/\",\"x\":\"y@z\"}"),
            ("rtspsrc location=rtsp://a:de\nep@h/ ! x", "rtspsrc location=rtsp://...@h/ ! x"),
            ("rtspsrc location=\"rtsp://a:1\r\n2\n3@h/\" ! x", "rtspsrc location=\"rtsp://...@h/\" ! x"),
            ("rtspsrc user-pw=\"de\nep\" ! x", "rtspsrc user-pw=... ! x"),
            ("rtspsrc user-pw='de\n\nep' ! x", "rtspsrc user-pw=... ! x"),
            ("first rtsp://a:b@h/\nsecond c@d\n", "first rtsp://...@h/\nsecond c@d\n"),
            ("\"user-pw=\\\"deep blue\\\" !\"", "\"user-pw=... !\""),
            ("rtspsrc user-pw = deep ! x password  =  \"deep blue\" y", "rtspsrc user-pw = ... ! x password  =  ... y"),
            (
                "srtsrc uri=srt://h:9?mode=caller&passphrase=deep&x=1",
                "srtsrc uri=srt://h:9?mode=caller&passphrase=...&x=1",
            ),
            ("srtsrc passphrase='deep blue' ! x", "srtsrc passphrase=... ! x"),
            ("whepsrc auth-token=deep ! x", "whepsrc auth-token=... ! x"),
            ("http://h/whep?token=de,ep: refused", "http://h/whep?token=... refused"),
            ("http://h/whep?stream=bow refused", "http://h/whep?stream=bow refused"),
            ("http://h/a#access_token=deep", "http://h/a#access_token=..."),
            ("cannot resolve admin:deep@10.0.0.3", "cannot resolve ...@10.0.0.3"),
            ("host=\"admin:d'e@ep@10.0.0.3\" x", "host=\"...@10.0.0.3\" x"),
            ("password = \"deep\n  ^ missing end", "password = ...\n  ^ missing end"),
            ("password = 'deep blue'", "password = ..."),
            ("camera size=1280x720@30 at 10.0.0.3:8554", "camera size=1280x720@30 at 10.0.0.3:8554"),
            ("x264enc pass=quant ! h264parse", "x264enc pass=quant ! h264parse"),
            ("passthrough=true bypass=1 a==b", "passthrough=true bypass=1 a==b"),
            ("--password=", "--password="),
            ("/ä=1", "/ä=1"),
            ("–pw=x", "–pw=..."),
        ] {
            assert_eq!(redact(text), shown);
        }
    }

    #[test]
    fn no_text_is_too_odd() {
        let parts = ["ä", "–", "😀", "=", "pw", "@", ":", "://", "rtsp", "?", "\"", "{\"", "\\", "\u{3000}", "\n", "/"];
        let odd = |mut number: usize| {
            let part = std::iter::from_fn(|| {
                let part = parts.get(number.checked_sub(1)? % parts.len());
                number = (number - 1) / parts.len();
                part.copied()
            });
            part.collect::<String>()
        };
        // All of up to four parts; then longer ones behind what leads into each branch.
        for text in (0..70_000).map(odd) {
            redact(&text);
            redact_typed(&format!("invalid value '{text}'"), [OsString::from(&text)]);
        }
        for text in (0..5_000).map(odd) {
            for start in ["rtsp://a:b@h", "http://h/?", "{\"m\":\"rtsp://", "user:ä@", "ä pw = \"", "--password="] {
                redact(&format!("{start}{text}"));
                redact(&format!("{text}{start}{text}"));
            }
        }
    }

    #[test]
    fn what_was_typed_is_repeated_without_passwords() {
        for (typed, complaint, shown) in [
            ("--host admin:de ep@10.0.0.3", "invalid value 'admin:de ep@10.0.0.3' for '--host'", "'...@10.0.0.3' for"),
            ("--host=admin:deep@10.0.0.3", "invalid value 'admin:deep@10.0.0.3' for '--host'", "'...@10.0.0.3' for"),
            ("--uri=u:deep@h", "unexpected argument '--uri=u:deep@h' found", "'--uri=...@h' found"),
            ("http://h/whep?token=deep", "unexpected argument 'http://h/whep?token=deep' found", "?token=...' found"),
            ("u:de'ep@h", "to pass 'u:de'ep@h' as a value, use '-- u:de'ep@h'", "'-- ...@h'"),
            ("--password no|deep", "unexpected argument 'deep' found", "'...' found"),
            ("--whep-token deep", "invalid value 'deep' for '--whep-token'", "'...' for"),
            ("--stream2 1280x720@30", "invalid value '1280x720@30' for '--fps'", "30' for"),
        ] {
            let (first, rest) = typed.split_once(' ').unwrap_or((typed, ""));
            let arguments = [first].into_iter().chain(rest.split('|')).map(OsString::from);
            let said = redact_typed(complaint, arguments);
            assert!(said.contains(shown) && !said.contains("deep") && !said.contains("ep@"), "{said}");
        }
    }
}
