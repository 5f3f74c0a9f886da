//! The address of the STUN server, from its name: without DNS that takes seconds, and may work later.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::sync::watch;

const RESOLVE_INTERVAL: Duration = Duration::from_secs(20);

/// In the background, for as long as somebody has what is returned. To be called where tokio runs.
pub(super) fn resolve(url: &str) -> watch::Receiver<Option<SocketAddr>> {
    let (found, receiver) = watch::channel(None);
    let server = url.trim_start_matches("stun:").to_owned();
    let server = if server.contains(':') { server } else { format!("{server}:3478") };
    tokio::spawn(async move {
        loop {
            let found_now = tokio::select! {
                () = found.closed() => return,
                found_now = tokio::net::lookup_host(&server) => found_now,
            };
            match found_now {
                Ok(mut addresses) => {
                    if let Some(address) = addresses.find(|a| matches!(a.ip(), IpAddr::V4(_))) {
                        found.send_replace(Some(address));
                        return;
                    }
                    tracing::warn!(server, "the STUN server has no IPv4 address, asking again in 20 s");
                }
                Err(error) => tracing::warn!(server, %error, "cannot resolve the STUN server, trying again in 20 s"),
            }
            tokio::select! {
                () = found.closed() => return,
                () = tokio::time::sleep(RESOLVE_INTERVAL) => {}
            }
        }
    });
    receiver
}
