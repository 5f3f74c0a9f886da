//! HTTP as far as signalling by few clients needs it: one request at a time, each on a connection of its own.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

const LIMIT: Duration = Duration::from_secs(10);
/// Of the body of a request.
const MAX_BODY: usize = 1 << 16;

pub struct Reply {
    /// Code and reason.
    pub status: &'static str,
    /// The type of the body, and further ones.
    pub headers: String,
    pub body: String,
}

impl Reply {
    pub fn ok(kind: &str, body: String) -> Self {
        Self { status: "200 OK", headers: format!("Content-Type: {kind}\r\n"), body }
    }

    fn not_found() -> Self {
        Self { status: "404 Not Found", headers: String::new(), body: String::new() }
    }
}

/// Listens on the port from here on.
pub fn listen(address: Ipv4Addr, port: u16) -> Result<TcpListener> {
    TcpListener::bind((address, port)).with_context(|| format!("TCP {address}:{port}"))
}

/// Answers with what `reply` gives for method, path and body; where that is nothing, with 404. A client whose request
/// fails gets no answer.
pub fn serve(listener: &TcpListener, mut reply: impl FnMut(&str, &str, &str) -> Result<Option<Reply>>) {
    for stream in listener.incoming().flatten() {
        if let Err(error) = answer(stream, &mut reply) {
            eprintln!("HTTP: {error:#}");
        }
    }
}

fn answer(mut stream: TcpStream, reply: &mut impl FnMut(&str, &str, &str) -> Result<Option<Reply>>) -> Result<()> {
    stream.set_read_timeout(Some(LIMIT))?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let (mut request, mut length) = (String::new(), 0);
    reader.read_line(&mut request)?;
    loop {
        let mut header = String::new();
        if reader.read_line(&mut header)? == 0 || header.trim().is_empty() {
            break;
        }
        if let Some(value) = header.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse()?;
        }
    }
    ensure!(length <= MAX_BODY, "a body of {length} bytes");
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let mut words = request.split(' ');
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let Reply { status, headers, body } =
        reply(method, path, &String::from_utf8(body)?)?.unwrap_or_else(Reply::not_found);
    let length = body.len();
    let head = format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {length}\r\nConnection: close\r\n\r\n");
    stream.write_all((head + &body).as_bytes())?;
    Ok(())
}
