//! What sends telemetry all the time, from a thread of its own.

use std::net::UdpSocket;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::programs::Server;

/// Dropping it ends it.
pub struct Sensor {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Sensor {
    /// A depth that grows, ten times a second, to a server with `--telemetry`.
    pub fn start(server: &Server) -> Self {
        let address = server.stats().telemetry.expect("telemetry").addresses.remove(0);
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
        socket.connect(address.trim_start_matches("udp://")).expect("an address");
        let (stop, stopped) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            let mut centimetres = 0;
            while stopped.recv_timeout(Duration::from_millis(100)) == Err(RecvTimeoutError::Timeout) {
                centimetres += 10;
                let depth = format!("{{\"depth\": {}.{:02}}}", centimetres / 100, centimetres % 100);
                socket.send(depth.as_bytes()).expect("sent");
            }
        });
        Self { stop: Some(stop), thread: Some(thread) }
    }
}

impl Drop for Sensor {
    fn drop(&mut self) {
        drop(self.stop.take());
        // A panic of it has been printed.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}
