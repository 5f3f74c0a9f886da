//! The sockets of telemetry.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rov_common::api::TelemetryStats;
use tokio::net::UdpSocket;
use tokio_util::sync::CancellationToken;

use super::mavlink::Link;
use super::whose::Whose;
use super::{Board, json};
use crate::config::TelemetryConfig;
use crate::log_limit::{Line, Lines};

/// Longer ones are refused.
const MAX_DATAGRAM: usize = 2048;
/// So many are read, and then none for [`PAUSE`]: 5,000 a second at most. What does not fit into the socket's buffer
/// meanwhile is lost before it costs anything.
const AT_ONCE: u32 = 50;
const PAUSE: Duration = Duration::from_millis(10);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Json,
    Mavlink,
}

/// The sockets that were asked for.
#[derive(Debug, Default)]
pub struct Receivers {
    sockets: Vec<(Form, UdpSocket, SocketAddr)>,
    /// As [`TelemetryConfig::system`].
    system: Option<u8>,
}

/// What has come so far.
#[derive(Debug, Default)]
pub struct Counters {
    addresses: Vec<String>,
    datagrams: AtomicU64,
    refused: AtomicU64,
}

impl Counters {
    /// None: no telemetry is asked for.
    pub fn stats(&self) -> Option<TelemetryStats> {
        (!self.addresses.is_empty()).then(|| TelemetryStats {
            addresses: self.addresses.clone(),
            datagrams: self.datagrams.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
        })
    }
}

impl Receivers {
    /// # Errors
    /// Names the address that is taken, and the option.
    pub async fn bind(config: &TelemetryConfig) -> Result<Self> {
        let asked =
            [(Form::Json, config.json, "--telemetry udp://"), (Form::Mavlink, config.mavlink, "--mavlink udpin:")];
        let mut sockets = Vec::new();
        for (form, address, option) in asked {
            let Some(address) = address else { continue };
            let socket = UdpSocket::bind(address).await;
            let socket = socket.with_context(|| format!("{option}{address}: cannot listen there"))?;
            let bound = socket.local_addr()?;
            sockets.push((form, socket, bound));
        }
        Ok(Self { sockets, system: config.system })
    }

    /// Takes what comes, until `stop`; a task for each socket. What has come so far is counted.
    pub fn run(
        self,
        board: &Arc<Board>,
        stop: &CancellationToken,
    ) -> (Arc<Counters>, Vec<impl Future<Output = ()> + use<>>) {
        let addresses = self.sockets.iter().map(|(form, _, address)| match form {
            Form::Json => format!("udp://{address}"),
            Form::Mavlink => format!("udpin:{address}"),
        });
        let counters = Arc::new(Counters { addresses: addresses.collect(), ..Counters::default() });
        let tasks = self.sockets.into_iter().map(|(form, socket, address)| {
            let (board, counters, stop) = (Arc::clone(board), Arc::clone(&counters), stop.clone());
            let link = Link::of(self.system);
            async move {
                let name = if form == Form::Json { "JSON" } else { "MAVLink" };
                tracing::info!("telemetry as {name} at UDP {address}");
                if !address.ip().is_loopback() {
                    tracing::warn!("whoever reaches UDP {address} can send telemetry: nothing in it says who does");
                }
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = receive(form, &socket, link, &board, &counters) => {}
                }
            }
        });
        let tasks = tasks.collect();
        (counters, tasks)
    }
}

async fn receive(form: Form, socket: &UdpSocket, mut link: Link, board: &Board, counters: &Counters) {
    // A byte more: by it, one that is too long is seen.
    let (mut buffer, mut lines) = (vec![0; MAX_DATAGRAM + 1], Lines::default());
    let mut whose = Whose::default();
    loop {
        for _ in 0..AT_ONCE {
            let (length, sender) = match socket.recv_from(&mut buffer).await {
                Ok(received) => received,
                Err(error) => {
                    tracing::debug!("telemetry: {error}");
                    break;
                }
            };
            counters.datagrams.fetch_add(1, Ordering::Relaxed);
            let (datagram, now) = (&buffer[..length], Instant::now());
            let taken = match form {
                _ if length > MAX_DATAGRAM => Err("it is longer than 2,048 bytes"),
                Form::Json => json::take(datagram, sender.ip(), &mut whose, board, now),
                Form::Mavlink => link.take(datagram, sender.ip(), board, now),
            };
            if let Err(reason) = taken {
                counters.refused.fetch_add(1, Ordering::Relaxed);
                match lines.next(sender.ip(), now) {
                    Line::Written => tracing::warn!(%sender, "telemetry not taken: {reason}"),
                    Line::Last => tracing::warn!(%sender, "telemetry not taken: {reason}; more of it is not logged"),
                    Line::LeftOut => {}
                }
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}
