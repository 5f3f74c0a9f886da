//! Plain RTP to multicast groups and unicast addresses: whoever listens has the pictures, nobody is asked and nobody
//! can ask. So keyframes come by themselves, with repair packets, and large frames are paced.
//!
//! The payloads are those of the WebRTC viewers; only headers are put on here. RTCP goes to the port above.

mod keyframes;
mod links;
mod pace;
mod packet;
pub mod sdp;
mod sender;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rov_common::api::{RtpStats, Stats};
use rov_common::discovery::{Announcement, RtpInfo};
use rov_common::sync::lock;

use self::links::Links;
use self::sender::Sender;
use super::takers::Taker;
use super::{Given, Output, told_of};
use crate::config::RtpConfig;
use crate::progress::{Beat, HANGS_AFTER};
use crate::stream::{Awake, OutputQueue, Stream};

/// Dropping it ends the thread.
pub struct RtpOutput {
    stream: Arc<Stream>,
    config: RtpConfig,
    ssrc: u32,
    frames: Arc<OutputQueue>,
    shared: Arc<Shared>,
    wake: SyncSender<()>,
    thread: Mutex<Option<JoinHandle<()>>>,
    /// Who listens is not known.
    _awake: Awake,
}

/// Between the thread and its handle.
#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    packets: AtomicU64,
    bytes: AtomicU64,
    errors: AtomicU64,
    beat: Arc<Beat>,
}

impl Shared {
    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// For the pace of a frame: half its interval at most.
    fn wait_until(&self, at: Instant) {
        let wait = at.saturating_duration_since(Instant::now());
        if !wait.is_zero() && !self.is_stopped() {
            std::thread::sleep(wait);
        }
    }
}

impl RtpOutput {
    /// One for each stream, each at a port of its own.
    pub(super) fn of(given: &Given) -> Result<Vec<Arc<Self>>> {
        let Given { config, streams, .. } = given;
        let Some(rtp) = &config.rtp else { return Ok(Vec::new()) };
        let repair = rtp.fec_percent.map_or(0.0, |percent| f64::from(percent) / 100.0);
        let sent = |host: Ipv4Addr| (0..streams.len()).map(move |at| Taker::at(host.into(), at, 1.0 + repair));
        given.takers.set("RTP", rtp.hosts.iter().copied().flat_map(sent).collect());
        let start = |(stream, port): (&Arc<Stream>, u16)| {
            let rtp = RtpConfig { port, ..rtp.clone() };
            Self::start(stream, rtp, config.host, config.interfaces.clone()).map(Arc::new)
        };
        streams.iter().zip(config.rtp_ports()).map(start).collect()
    }

    /// Sends from now on. `host` is the address that the server listens on, and `interfaces` are those for multicast,
    /// as discovery takes both.
    pub fn start(stream: &Arc<Stream>, config: RtpConfig, host: IpAddr, interfaces: Vec<String>) -> Result<Self> {
        let shared = Arc::new(Shared::default());
        // One waiting wake is as good as many: the thread then takes all frames that are there.
        let (wake, woken) = sync_channel(1);
        let on_frame = wake.clone();
        let frames = stream.add_output(move |_| {
            let _ = on_frame.try_send(());
        });
        let links = Links::new(&config, host, interfaces, Arc::clone(&shared));
        let sender = Sender::new(Arc::clone(stream), Arc::clone(&frames), links, &config, woken, Arc::clone(&shared));
        let ssrc = sender.ssrc();
        let thread = std::thread::Builder::new()
            .name("rtp".to_owned())
            .spawn(move || sender.run())
            .context("cannot start the RTP thread")?;
        Ok(Self {
            stream: Arc::clone(stream),
            config,
            ssrc,
            frames,
            shared,
            wake,
            thread: Mutex::new(Some(thread)),
            _awake: stream.demand().keep_awake(),
        })
    }

    pub fn config(&self) -> &RtpConfig {
        &self.config
    }

    /// By which receivers tell its packets from those of others at the same destination.
    pub fn ssrc(&self) -> u32 {
        self.ssrc
    }

    /// The destination that most receivers can use: the first multicast group, or else the first address.
    pub fn main_host(&self) -> Ipv4Addr {
        let hosts = &self.config.hosts;
        hosts.iter().find(|host| host.is_multicast()).copied().unwrap_or(hosts[0])
    }

    pub fn stats(&self) -> RtpStats {
        RtpStats {
            destinations: self.config.hosts.iter().map(|host| format!("{host}:{}", self.config.port)).collect(),
            packets: self.shared.packets.load(Ordering::Relaxed),
            bytes: self.shared.bytes.load(Ordering::Relaxed),
            skipped: self.frames.skipped(),
            errors: self.shared.errors.load(Ordering::Relaxed),
        }
    }
}

impl Output for RtpOutput {
    fn name(&self) -> &'static str {
        "RTP"
    }

    fn place(&self, _here: IpAddr) -> Option<String> {
        Some(format!("RTP to {}", self.stats().destinations.join(" and ")))
    }

    fn announce(&self, announcement: &mut Announcement) {
        // The announcement has room for one destination, that of the default stream, which comes first.
        if announcement.rtp.is_none() {
            let (host, port) = (self.main_host(), self.config.port);
            announcement.transports.push("rtp".to_owned());
            let (fec, ssrc) = (self.config.fec_percent.is_some(), Some(self.ssrc));
            announcement.rtp = Some(RtpInfo { host, port, fec, ssrc });
        }
    }

    /// Whom it reaches is not known.
    fn tell(&self, stats: &mut Stats) {
        let own = self.stats();
        if let Some(told) = told_of(stats, &self.stream, 0, own.bytes) {
            told.rtp.clone_from(&own.destinations);
            told.rtp_ssrc = Some(self.ssrc);
        }
        stats.rtp = Some(stats.rtp.take().unwrap_or_default().and(own));
    }

    fn beat(&self) -> Option<(&Arc<Beat>, Duration)> {
        Some((&self.shared.beat, HANGS_AFTER))
    }

    fn has_died(&self) -> bool {
        lock(&self.thread).as_ref().is_some_and(JoinHandle::is_finished)
    }

    /// By RTCP BYE; blocks for milliseconds.
    fn shutdown(&self) {
        let Some(thread) = lock(&self.thread).take() else { return };
        self.shared.stop.store(true, Ordering::Relaxed);
        // A full channel wakes the thread as well.
        let _ = self.wake.try_send(());
        if thread.join().is_err() {
            tracing::error!("the RTP thread had panicked");
        }
    }
}

impl Drop for RtpOutput {
    fn drop(&mut self) {
        self.shutdown();
    }
}

#[cfg(test)]
mod tests;
