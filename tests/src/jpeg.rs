//! JPEG pictures of a server, as a simple viewer gets them.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};

use rov_common::stamp::{self, Stamp};

use crate::process::program;
use crate::wait;

/// An answer with whatever body.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    headers: Vec<(String, String)>,
    body: BufReader<TcpStream>,
}

/// Asks as HTTP/1.0, so that the body comes as it is.
pub fn get(address: SocketAddr, path: &str) -> Answer {
    ask(TcpStream::connect(address).expect("a connection"), path)
}

/// As [`get`], but POST.
pub fn post(address: SocketAddr, path: &str) -> Answer {
    ask_with(TcpStream::connect(address).expect("a connection"), "POST", path, "Content-Length: 0\r\n")
}

/// As [`get`], with this `Authorization`.
pub fn get_as(address: SocketAddr, path: &str, login: &str) -> Answer {
    let login = format!("Authorization: {login}\r\n");
    ask_with(TcpStream::connect(address).expect("a connection"), "GET", path, &login)
}

/// As [`get`], by a connection that is there already.
pub fn ask(stream: TcpStream, path: &str) -> Answer {
    ask_with(stream, "GET", path, "")
}

fn ask_with(mut stream: TcpStream, method: &str, path: &str, headers: &str) -> Answer {
    let address = stream.peer_addr().expect("a server");
    stream.set_read_timeout(Some(wait::START)).expect("a limit");
    let request = format!("{method} {path} HTTP/1.0\r\nHost: {address}\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).expect("a request");
    let mut body = BufReader::new(stream);
    let first = line(&mut body).expect("a status line");
    let status = first.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    let headers = self::headers(&mut body).expect("headers");
    Answer { status, headers, body }
}

impl Answer {
    pub fn header(&self, name: &str) -> &str {
        find(&self.headers, name)
    }

    /// All of the body.
    pub fn body(mut self) -> Vec<u8> {
        let mut body = Vec::new();
        self.body.read_to_end(&mut body).expect("the body");
        body
    }

    /// The next picture of `multipart/x-mixed-replace`, with its time of capture; None at the end.
    pub fn next_part(&mut self) -> Option<(Vec<u8>, f64)> {
        // The boundary may have an empty line before it.
        while !line(&mut self.body)?.starts_with("--") {}
        let headers = headers(&mut self.body)?;
        let length = find(&headers, "content-length").parse().expect("a length");
        let mut picture = vec![0; length];
        self.body.read_exact(&mut picture).ok()?;
        Some((picture, find(&headers, "x-timestamp").parse().expect("a time")))
    }
}

fn line(body: &mut impl BufRead) -> Option<String> {
    let mut line = String::new();
    match body.read_line(&mut line) {
        Ok(read) if read > 0 => Some(line.trim_end().to_owned()),
        _ => None,
    }
}

fn headers(body: &mut impl BufRead) -> Option<Vec<(String, String)>> {
    let mut headers = Vec::new();
    loop {
        let line = line(body)?;
        let Some((name, value)) = line.split_once(':') else { return Some(headers) };
        headers.push((name.to_lowercase(), value.trim().to_owned()));
    }
}

fn find<'a>(headers: &'a [(String, String)], name: &str) -> &'a str {
    headers.iter().find(|(header, _)| header == name).map_or("", |(_, value)| value)
}

/// Width, height and mark of a JPEG or PNG.
pub fn decode(jpeg: &[u8]) -> (usize, usize, Option<Stamp>) {
    let (width, height, luma) = luma(jpeg);
    (width, height, stamp::read_luma(&luma, width, width, height))
}

/// Width, height and luma of a JPEG or PNG, decoded by ffmpeg.
pub fn luma(jpeg: &[u8]) -> (usize, usize, Vec<u8>) {
    let format = if jpeg.starts_with(b"\x89PNG") { "png_pipe" } else { "jpeg_pipe" };
    let mut command = Command::new(program("ffmpeg", "ffmpeg"));
    command.args(["-hide_banner", "-loglevel", "error", "-f", format, "-i", "-"]);
    command.args(["-pix_fmt", "gray", "-f", "image2pipe", "-c:v", "pgm", "-"]);
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
    let mut ffmpeg = command.spawn().expect("ffmpeg starts");
    // It reads all of the picture before it writes.
    ffmpeg.stdin.take().expect("a pipe").write_all(jpeg).expect("ffmpeg reads");
    let pgm = ffmpeg.wait_with_output().expect("ffmpeg ends").stdout;
    // "P5\nWIDTH HEIGHT\n255\n", then the luma.
    let mut lines = pgm.splitn(4, |byte| *byte == b'\n').skip(1);
    let size = String::from_utf8(lines.next().expect("a size").to_vec()).expect("plain text");
    let (width, height) = size.split_once(' ').expect("two sides");
    let (width, height) = (width.parse().expect("a width"), height.parse().expect("a height"));
    (width, height, lines.nth(1).expect("the picture").to_vec())
}
