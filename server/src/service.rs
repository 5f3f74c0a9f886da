//! What a service manager is told (sd_notify(3)): that the server is ready, what it does, that it is alive, that it
//! stops.
//!
//! <https://www.freedesktop.org/software/systemd/man/latest/sd_notify.html>

use std::sync::Arc;
use std::time::{Duration, Instant};

use rov_common::api::{StreamState, StreamStats};
use tokio_util::sync::CancellationToken;

use crate::progress::Parts;

/// The parts are looked at, and the status is told if it has changed, so often.
const INTERVAL: Duration = Duration::from_secs(1);
/// A camera that needs longer for its first picture does not hold up the start of the service: it may be missing.
const READY_AFTER: Duration = Duration::from_secs(5);

/// What is told of.
#[derive(Clone, Debug, Default)]
pub struct ServiceState {
    pub stream: StreamStats,
    /// As negotiated; 0: it varies, or is not known.
    pub fps: f64,
    pub viewers: u64,
    pub is_one_of_several: bool,
}

/// The manager that has started this process, if it wants to be told.
#[derive(Clone, Debug, Default)]
pub struct Service {
    manager: Option<Arc<Manager>>,
    /// How often it wants to hear that the server is alive, or else ends it.
    watchdog: Option<Duration>,
}

impl Service {
    /// By `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID` of the environment.
    pub fn from_env() -> Self {
        let Some(address) = std::env::var_os("NOTIFY_SOCKET").filter(|address| !address.is_empty()) else {
            return Self::default();
        };
        let manager = Manager::new(&address);
        if let Err(error) = &manager {
            tracing::warn!("NOTIFY_SOCKET={}: {error}; the service manager hears nothing", address.display());
        }
        let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
        let for_us = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
        let watchdog = number("WATCHDOG_USEC").filter(|us| for_us && *us > 0).map(Duration::from_micros);
        Self { manager: manager.ok().map(Arc::new), watchdog }
    }

    /// Tells it what `state` gives until `shutdown`, and says when a part hangs.
    pub async fn run(self, mut parts: Parts, state: impl Fn() -> ServiceState, shutdown: CancellationToken) {
        let started = Instant::now();
        let (mut ready, mut status, mut hung) = (false, String::new(), Vec::new());
        // Half of the time, as sd_watchdog_enabled(3) asks for.
        let interval = self.watchdog.map_or(INTERVAL, |limit| INTERVAL.min(limit / 2).max(Duration::from_millis(1)));
        let mut alive_at = started;
        let mut tick = tokio::time::interval(interval);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return self.tell("STOPPING=1\nSTATUS=stopping"),
                _ = tick.tick() => {}
            }
            let now = Instant::now();
            let hanging = parts.hanging(now);
            if hanging != hung {
                match hanging.is_empty() {
                    false => tracing::error!("no progress any more: {}", hanging.join(", ")),
                    true => tracing::info!("all parts make progress again"),
                }
            }
            let state = state();
            let line = if hanging.is_empty() { status_line(&state) } else { format!("hangs: {}", hanging.join(", ")) };
            hung = hanging;
            if status != line {
                self.tell(&format!("STATUS={line}"));
                status = line;
            }
            let settled =
                state.stream.state != StreamState::Starting || now.saturating_duration_since(started) >= READY_AFTER;
            if settled && !std::mem::replace(&mut ready, true) {
                self.tell("READY=1");
            }
            if let Some(limit) = self.watchdog
                && hung.is_empty()
                && now >= alive_at
            {
                self.tell("WATCHDOG=1");
                // The next tick is an interval away: not only the one after half of the time.
                alive_at = now + (limit / 2).saturating_sub(interval);
            }
        }
    }

    fn tell(&self, text: &str) {
        if let Some(Err(error)) = self.manager.as_ref().map(|manager| manager.send(text)) {
            tracing::debug!(%error, "the service manager cannot be told {text:?}");
        }
    }
}

/// What the stream does, in one line.
fn status_line(ServiceState { stream, fps, viewers, is_one_of_several }: &ServiceState) -> String {
    let reason = stream.reason.as_deref().unwrap_or("no reason given");
    let line = match stream.state {
        StreamState::Starting => "starting".to_owned(),
        StreamState::Stalled => format!("stalled: {reason}"),
        StreamState::Restarting => format!("restarting: {reason}"),
        StreamState::Ended => format!("ended: {reason}"),
        StreamState::Running => {
            let fps = if *fps > 0.0 { format!("@{}", (fps * 100.0).round() / 100.0) } else { String::new() };
            let target = f64::from(stream.target_bitrate_kbps) / 1000.0;
            let rate = if target > 0.0 { format!(" {target:.1} Mbit/s") } else { String::new() };
            let people = if *viewers == 1 { "viewer" } else { "viewers" };
            let doing = if stream.resting { "resting, nobody looks:" } else { "streaming" };
            let frozen = if stream.frozen { format!("; {reason}") } else { String::new() };
            let (width, height, encoder, source) = (stream.width, stream.height, &stream.encoder, &stream.source);
            format!("{doing} {width}x{height}{fps} {encoder}{rate} from {source}, {viewers} {people}{frozen}")
        }
    };
    let line = if *is_one_of_several { format!("{}: {line}", stream.name) } else { line };
    // A line end would begin the next assignment.
    line.replace(|c: char| c.is_control(), " ")
}

#[cfg(unix)]
#[derive(Debug)]
struct Manager {
    socket: std::os::unix::net::UnixDatagram,
    address: std::os::unix::net::SocketAddr,
}

#[cfg(unix)]
impl Manager {
    /// `address` is a path, or with `@` in front a name in Linux's abstract namespace.
    fn new(address: &std::ffi::OsStr) -> std::io::Result<Self> {
        use std::os::unix::ffi::OsStrExt;
        use std::os::unix::net::{SocketAddr, UnixDatagram};
        let address = match address.as_bytes() {
            [b'/', ..] => SocketAddr::from_pathname(address)?,
            #[cfg(target_os = "linux")]
            [b'@', name @ ..] => <SocketAddr as std::os::linux::net::SocketAddrExt>::from_abstract_name(name)?,
            _ => return Err(std::io::Error::other("neither a path nor an abstract name")),
        };
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        Ok(Self { socket, address })
    }

    fn send(&self, text: &str) -> std::io::Result<()> {
        self.socket.send_to_addr(text.as_bytes(), &self.address).map(drop)
    }
}

#[cfg(not(unix))]
#[derive(Debug)]
struct Manager;

#[cfg(not(unix))]
impl Manager {
    fn new(_address: &std::ffi::OsStr) -> std::io::Result<Self> {
        Err(std::io::Error::other("there is no such thing on this system"))
    }

    fn send(&self, _text: &str) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use crate::progress::{Beat, HANGS_AFTER};

    fn running() -> ServiceState {
        let stream = StreamStats {
            state: StreamState::Running,
            source: "test picture".to_owned(),
            encoder: "x264enc".to_owned(),
            width: 1280,
            height: 720,
            target_bitrate_kbps: 4_000,
            ..StreamStats::default()
        };
        ServiceState { stream, fps: 30.0, viewers: 1, is_one_of_several: false }
    }

    #[test]
    fn the_status_is_one_line() {
        let streaming = "streaming 1280x720@30 x264enc 4.0 Mbit/s from test picture, 1 viewer";
        assert_eq!(status_line(&running()), streaming);
        let resting = StreamStats { resting: true, ..running().stream };
        let line = status_line(&ServiceState { stream: resting, viewers: 0, ..running() });
        assert!(line.starts_with("resting, nobody looks: 1280x720@30 x264enc"), "{line}");
        let frozen = StreamStats { frozen: true, reason: Some("it rests".to_owned()), ..running().stream };
        assert!(
            status_line(&ServiceState { stream: frozen, viewers: 2, ..running() }).ends_with(", 2 viewers; it rests")
        );
        let reason = Some("gone\nREADY=1".to_owned());
        let lost = StreamStats { state: StreamState::Restarting, reason, ..running().stream };
        assert_eq!(status_line(&ServiceState { stream: lost, ..running() }), "restarting: gone READY=1");
        assert_eq!(status_line(&ServiceState::default()), "starting");
        let stream = StreamStats { name: "arm/stream1".to_owned(), ..StreamStats::default() };
        let several = ServiceState { stream, is_one_of_several: true, ..ServiceState::default() };
        assert_eq!(status_line(&several), "arm/stream1: starting");
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn the_manager_at_an_abstract_address_hears_of_life_until_a_part_hangs() {
        use std::os::linux::net::SocketAddrExt;
        use std::os::unix::net::{SocketAddr, UnixDatagram};
        let name = format!("rov-test-{}", uuid::Uuid::new_v4());
        let listener = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        listener.set_nonblocking(true).unwrap();
        let listener = tokio::net::UnixDatagram::from_std(listener).unwrap();
        let service = Service {
            manager: Some(Manager::new(format!("@{name}").as_ref()).unwrap().into()),
            watchdog: Some(Duration::from_millis(100)),
        };
        let (beat, hang) = (Arc::<Beat>::default(), Arc::new(AtomicBool::new(false)));
        let mut parts = Parts::default();
        parts.add("the camera", &beat, HANGS_AFTER);
        let stopped = Arc::clone(&hang);
        tokio::spawn(async move {
            while !stopped.load(Ordering::Relaxed) {
                beat.beat();
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        let shutdown = CancellationToken::new();
        let run = tokio::spawn(service.run(parts, running, shutdown.clone()));
        let mut buffer = [0; 1000];
        let mut next = async || {
            let received = tokio::time::timeout(Duration::from_secs(20), listener.recv(&mut buffer)).await;
            String::from_utf8(buffer[..received.expect("something is told").unwrap()].to_vec()).unwrap()
        };
        assert!(next().await.starts_with("STATUS=streaming"));
        assert_eq!([next().await, next().await, next().await], ["READY=1", "WATCHDOG=1", "WATCHDOG=1"]);
        hang.store(true, Ordering::Relaxed);
        let mut last = next().await;
        while last == "WATCHDOG=1" {
            last = next().await;
        }
        assert_eq!(last, "STATUS=hangs: the camera");
        shutdown.cancel();
        assert_eq!(next().await, "STOPPING=1\nSTATUS=stopping", "and no sign of life in between");
        run.await.unwrap();
    }
}
