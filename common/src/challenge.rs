//! What an RTSP server asks for when it refuses a password. GStreamer says only that it was refused, also where it cannot
//! answer what was asked for.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::camera::CameraUrl;

/// For each of connecting and answering: a camera on a LAN answers in milliseconds.
const LIMIT: Duration = Duration::from_secs(1);
/// Of an answer.
const MAX_HEAD: usize = 16 << 10;

/// Asks the camera without a password, which costs no attempt; the digest it wants where GStreamer can answer none of its
/// challenges, as `SHA-256`. None too where it does not answer, and by TLS, which is not spoken here. Blocks, some seconds at most.
pub fn unknown_digest(camera: &CameraUrl) -> Option<String> {
    if camera.is_tls() {
        return None;
    }
    unknown(&ask(camera).ok()?)
}

/// What to do about one.
pub fn unknown_digest_advice(algorithm: &str) -> String {
    format!(
        "wants digest authentication with {algorithm}, which GStreamer does not know: choose digest with MD5, or basic, in \
         the camera's settings"
    )
}

fn ask(camera: &CameraUrl) -> io::Result<String> {
    let address =
        camera.url().socket_addrs(|| Some(camera.port()))?.into_iter().next().ok_or(io::ErrorKind::NotFound)?;
    let mut stream = TcpStream::connect_timeout(&address, LIMIT)?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.set_write_timeout(Some(LIMIT))?;
    write!(stream, "DESCRIBE {} RTSP/1.0\r\nCSeq: 1\r\nAccept: application/sdp\r\n\r\n", camera.url())?;
    let (mut head, mut part) = (Vec::new(), [0; 2048]);
    while head.len() < MAX_HEAD && !head.windows(4).any(|end| end == b"\r\n\r\n") {
        match stream.read(&mut part)? {
            0 => break,
            length => head.extend_from_slice(&part[..length]),
        }
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}

/// GStreamer answers the last digest, by MD5, which is meant too where no algorithm is named (RFC 2617 section 3.2.1); Basic only
/// where there is no digest.
fn unknown(head: &str) -> Option<String> {
    let values = head.lines().filter_map(|line| line.split_once(':')).filter_map(|(name, value)| {
        let (scheme, fields) = value.trim().split_once(' ')?;
        (name.trim().eq_ignore_ascii_case("www-authenticate")).then_some((scheme, fields))
    });
    let mut digests = values.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("digest"));
    let algorithm = digests.next_back().and_then(|(_, fields)| algorithm(fields))?;
    (!algorithm.eq_ignore_ascii_case("MD5")).then(|| algorithm.to_owned())
}

fn algorithm(fields: &str) -> Option<&str> {
    fields.split(',').find_map(|field| {
        let (key, value) = field.trim().split_once('=')?;
        key.trim().eq_ignore_ascii_case("algorithm").then(|| value.trim().trim_matches('"'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_that_gstreamer_does_not_know_is_named() {
        let digest = |algorithm: &str| format!("WWW-Authenticate: Digest realm=\"a, b\", nonce=\"1\"{algorithm}\r\n");
        let (sha, md5) = (digest(", algorithm=SHA-256, qop=\"auth\""), digest(", algorithm=\"MD5\""));
        let basic = "WWW-Authenticate: Basic realm=\"cam\"\r\n";
        for (challenges, expected) in [
            (sha.clone(), Some("SHA-256")),
            (md5.clone(), None),
            (digest(""), None),
            (basic.to_owned(), None),
            (format!("{sha}{md5}"), None),
            (format!("{md5}{sha}{basic}"), Some("SHA-256")),
            (String::new(), None),
        ] {
            let head = format!("RTSP/1.0 401 Unauthorized\r\nCSeq: 1\r\n{challenges}\r\n");
            assert_eq!(unknown(&head).as_deref(), expected, "{head}");
        }
    }
}
