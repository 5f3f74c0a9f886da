//! A reader of `/api/events`.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Instant;

use serde_json::Value;

use crate::wait;

pub struct Follower(BufReader<TcpStream>);

impl Follower {
    pub fn start(address: SocketAddr) -> Self {
        let mut connection = TcpStream::connect(address).expect("a connection");
        connection.set_read_timeout(Some(wait::START)).expect("a limit");
        let request = format!("GET /api/events HTTP/1.1\r\nHost: {address}\r\n\r\n");
        connection.write_all(request.as_bytes()).expect("a request");
        Self(BufReader::new(connection))
    }

    /// The next line that begins so, without that.
    ///
    /// # Panics
    /// When there is none within [`wait::START`], whatever else comes.
    pub fn line(&mut self, begin: &str) -> Option<String> {
        self.line_until(Instant::now() + wait::START, begin)
    }

    fn line_until(&mut self, end: Instant, begin: &str) -> Option<String> {
        let mut line = String::new();
        while self.0.read_line(&mut line).expect("an event in time") > 0 {
            assert!(Instant::now() < end, "no {begin} in time, but {line}");
            if let Some(rest) = line.strip_prefix(begin) {
                return Some(rest.trim().to_owned());
            }
            line.clear();
        }
        None
    }

    /// The next event of this name for which `wanted` is true.
    ///
    /// # Panics
    /// As [`Self::line`] does.
    pub fn wait_for(&mut self, name: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let end = Instant::now() + wait::START;
        loop {
            let event = self.line_until(end, "event: ").unwrap_or_else(|| panic!("no {name}"));
            let data = self.line_until(end, "data: ").expect("its data");
            let data = serde_json::from_str(&data).unwrap_or_else(|error| panic!("{data}: {error}"));
            if event == name && wanted(&data) {
                return data;
            }
        }
    }
}
