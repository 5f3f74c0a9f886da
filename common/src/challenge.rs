//! What an RTSP server asks for when it refuses a password. GStreamer says only that it was refused, also where it
//! cannot answer what was asked for.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::camera::CameraUrl;

/// Of connecting, and of the exchange: a camera on a LAN answers in milliseconds.
const LIMIT: Duration = Duration::from_secs(1);
/// Of an answer.
const MAX_HEAD: usize = 16 << 10;

/// Asks the camera without a password, which costs no attempt; the digest it wants where GStreamer can answer none of
/// its challenges, as `SHA-256`. None too where it does not answer, and by TLS, which is not spoken here. Blocks,
/// two seconds at most, and for as long as the system looks for the address of a name.
pub fn unknown_digest(camera: &CameraUrl) -> Option<String> {
    if camera.is_tls() {
        return None;
    }
    unknown(&ask(camera).ok()?)
}

/// The same over a connection to the camera that is there already, as by TLS. Each read and write has to end by itself.
pub fn unknown_digest_by(camera: &CameraUrl, from: impl Read, to: impl Write) -> Option<String> {
    unknown(&exchange(camera, from, to, |_| Ok(())).ok()?)
}

/// What to do about one.
pub fn unknown_digest_advice(algorithm: &str) -> String {
    format!(
        "wants digest authentication with {algorithm}, which GStreamer does not know: choose digest with MD5, or \
         basic, in the camera's settings"
    )
}

fn ask(camera: &CameraUrl) -> io::Result<String> {
    let address =
        camera.url().socket_addrs(|| Some(camera.port()))?.into_iter().next().ok_or(io::ErrorKind::NotFound)?;
    let stream = TcpStream::connect_timeout(&address, LIMIT)?;
    stream.set_write_timeout(Some(LIMIT))?;
    exchange(camera, &stream, &stream, |left| stream.set_read_timeout(Some(left)))
}

/// `limit` has the next read end within the time that is left.
fn exchange(
    camera: &CameraUrl,
    mut from: impl Read,
    mut to: impl Write,
    limit: impl Fn(Duration) -> io::Result<()>,
) -> io::Result<String> {
    let end = Instant::now() + LIMIT;
    write!(to, "DESCRIBE {} RTSP/1.0\r\nCSeq: 1\r\nAccept: application/sdp\r\n\r\n", camera.url())?;
    let (mut head, mut part) = (Vec::new(), [0; 2048]);
    while head.len() < MAX_HEAD && !head.windows(4).any(|end| end == b"\r\n\r\n") {
        // None is no time at all: the system takes zero for no limit.
        let left = Some(end.saturating_duration_since(Instant::now())).filter(|left| !left.is_zero());
        limit(left.ok_or(io::ErrorKind::TimedOut)?)?;
        match from.read(&mut part)? {
            0 => break,
            length => head.extend_from_slice(&part[..length]),
        }
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}

/// GStreamer answers the last digest, by MD5, which is meant too where no algorithm is named (RFC 2617 section 3.2.1);
/// Basic only where there is no digest.
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
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_camera_that_answers_a_byte_at_a_time_is_given_up_soon() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let camera = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            // Ends when the other side does; else after three seconds.
            for _ in 0..30 {
                if stream.write_all(b"a").is_err() {
                    return true;
                }
                std::thread::sleep(Duration::from_millis(100));
            }
            false
        });
        let url = CameraUrl::parse(&format!("rtsp://127.0.0.1:{port}/cam")).unwrap();
        let reason = ask(&url).unwrap_err().kind();
        assert!(matches!(reason, io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock), "{reason:?}");
        assert!(camera.join().unwrap(), "the camera was listened to to its end");
    }

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
