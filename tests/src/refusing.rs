//! An RTSP server that refuses every password, on loopback.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Ends with the test.
pub struct Refusing {
    pub port: u16,
    attempts: Arc<AtomicUsize>,
    ended: Arc<AtomicBool>,
}

impl Refusing {
    /// At `port`, 0 for one that the system chooses. `challenges` are the values of its `WWW-Authenticate` headers.
    pub fn start(port: u16, challenges: &[&str]) -> Self {
        // Under Unix, the standard library lets the address of a server that has just ended be used again.
        let listener = TcpListener::bind(("127.0.0.1", port)).expect("a port");
        let port = listener.local_addr().expect("its address").port();
        let refusing = Self { port, attempts: Arc::default(), ended: Arc::default() };
        let (attempts, ended) = (Arc::clone(&refusing.attempts), Arc::clone(&refusing.ended));
        let headers: String = challenges.iter().map(|value| format!("WWW-Authenticate: {value}\r\n")).collect();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten().take_while(|_| !ended.load(Ordering::Relaxed)) {
                let (headers, attempts) = (headers.clone(), Arc::clone(&attempts));
                std::thread::spawn(move || refuse(&client, &headers, &attempts));
            }
        });
        refusing
    }

    /// How many requests had a password.
    pub fn attempts(&self) -> usize {
        self.attempts.load(Ordering::Relaxed)
    }
}

impl Drop for Refusing {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        // The thread looks only when somebody comes.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

/// Answers until the client closes.
fn refuse(client: &TcpStream, challenges: &str, attempts: &AtomicUsize) {
    let mut lines = BufReader::new(client).lines().map_while(Result::ok);
    while let Some(request) = lines.next() {
        let headers: Vec<_> = lines.by_ref().take_while(|line| !line.is_empty()).collect();
        let sequence = headers.iter().find(|line| line.starts_with("CSeq:")).cloned().unwrap_or_default();
        let with_password = headers.iter().any(|line| line.starts_with("Authorization:"));
        attempts.fetch_add(usize::from(with_password), Ordering::Relaxed);
        let (status, more) = match request.split(' ').next() {
            Some("OPTIONS") => ("200 OK", "Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN\r\n"),
            _ => ("401 Unauthorized", challenges),
        };
        let mut to = client;
        if write!(to, "RTSP/1.0 {status}\r\n{sequence}\r\n{more}\r\n").is_err() {
            return;
        }
    }
}
