//! An RTSP server on loopback that refuses every password, by 401 or 403, or redirects whoever gives one.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Instant;

use gstreamer_rtsp_server::gio;
use gstreamer_rtsp_server::gio::prelude::*;
use rov_common::sync::lock;

use crate::camera::CERTIFICATE;

/// Ends with the test.
pub struct Refusing {
    pub port: u16,
    requests: Arc<Mutex<Vec<Request>>>,
    ended: Arc<AtomicBool>,
    listening: Option<JoinHandle<()>>,
}

/// One that came.
#[derive(Clone, Debug)]
pub struct Request {
    pub at: Instant,
    /// As `DESCRIBE rtsp://127.0.0.1:554/cam RTSP/1.0`.
    pub line: String,
    pub with_password: bool,
}

impl Refusing {
    /// At `port`, 0 for one that the system chooses. `challenges` are the values of its `WWW-Authenticate` headers.
    pub fn start(port: u16, challenges: &[&str]) -> Self {
        Self::with(port, challenges, false, |_| None)
    }

    /// As [`Self::start`], and answers a password by 403.
    pub fn forbidding(port: u16, challenges: &[&str]) -> Self {
        Self::with(port, challenges, false, |_| Some("403 Forbidden\r\n".to_owned()))
    }

    /// As [`Self::start`], by TLS, with the certificate of [`crate::camera`].
    pub fn by_tls(challenges: &[&str]) -> Self {
        Self::with(0, challenges, true, |_| None)
    }

    /// Sends whoever gives a password to the address `to`; none: to its own.
    pub fn redirecting(to: Option<&str>) -> Self {
        let to = to.map(str::to_owned);
        Self::with(0, &["Basic realm=\"cam\""], false, |port| {
            let to = to.unwrap_or(format!("rtsp://127.0.0.1:{port}/cam"));
            Some(format!("302 Moved Temporarily\r\nLocation: {to}\r\n"))
        })
    }

    /// `to_password`: status and headers of the answer to a request with one, where it is not as without, by the port.
    fn with(port: u16, challenges: &[&str], tls: bool, to_password: impl FnOnce(u16) -> Option<String>) -> Self {
        // Under Unix, the standard library lets the address of a server that has just ended be used again.
        let listener = TcpListener::bind(("127.0.0.1", port)).expect("a port");
        let port = listener.local_addr().expect("its address").port();
        let (requests, ended) = (Arc::<Mutex<Vec<Request>>>::default(), Arc::<AtomicBool>::default());
        let mut refusing = Self { port, requests: Arc::clone(&requests), ended: Arc::clone(&ended), listening: None };
        let challenges: String = challenges.iter().map(|value| format!("WWW-Authenticate: {value}\r\n")).collect();
        let to_password = to_password(port);
        refusing.listening = Some(std::thread::spawn(move || {
            for client in listener.incoming().flatten().take_while(|_| !ended.load(Ordering::Relaxed)) {
                let (challenges, to_password) = (challenges.clone(), to_password.clone());
                let requests = Arc::clone(&requests);
                std::thread::spawn(move || match tls {
                    true => answer_by_tls(client, &challenges, &requests),
                    false => answer(&client, &client, &challenges, to_password.as_deref(), &requests),
                });
            }
        }));
        refusing
    }

    pub fn requests(&self) -> Vec<Request> {
        lock(&self.requests).clone()
    }

    /// How many requests had a password.
    pub fn attempts(&self) -> usize {
        lock(&self.requests).iter().filter(|request| request.with_password).count()
    }
}

impl Drop for Refusing {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        // The thread looks only when somebody comes.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
        // Another may have its port then.
        let _ = self.listening.take().map(JoinHandle::join);
    }
}

fn answer_by_tls(client: TcpStream, challenges: &str, requests: &Mutex<Vec<Request>>) {
    let socket = gio::Socket::from_fd(OwnedFd::from(client)).expect("a socket");
    let connection = socket.connection_factory_create_connection();
    let certificate = gio::TlsCertificate::from_pem(CERTIFICATE).expect("a certificate");
    let by_tls = gio::TlsServerConnection::new(&connection, Some(&certificate)).expect("TLS");
    answer(by_tls.input_stream().into_read(), by_tls.output_stream().into_write(), challenges, None, requests);
}

/// Until the client closes.
fn answer(
    from: impl Read,
    mut to: impl Write,
    challenges: &str,
    to_password: Option<&str>,
    requests: &Mutex<Vec<Request>>,
) {
    let mut lines = BufReader::new(from).lines().map_while(Result::ok);
    while let Some(line) = lines.next() {
        let headers: Vec<_> = lines.by_ref().take_while(|line| !line.is_empty()).collect();
        let sequence = headers.iter().find(|line| line.starts_with("CSeq:")).cloned().unwrap_or_default();
        let with_password = headers.iter().any(|line| line.starts_with("Authorization:"));
        let refusal = format!("401 Unauthorized\r\n{challenges}");
        let answer = match (line.split(' ').next(), to_password) {
            (Some("OPTIONS"), _) => "200 OK\r\nPublic: OPTIONS, DESCRIBE, SETUP, PLAY, PAUSE, TEARDOWN\r\n",
            (_, Some(answer)) if with_password => answer,
            _ => &refusal,
        };
        lock(requests).push(Request { at: Instant::now(), line, with_password });
        if write!(to, "RTSP/1.0 {answer}{sequence}\r\n\r\n").is_err() {
            return;
        }
    }
}
