//! The RTP thread: takes frames, puts headers on, sends them at their pace, and reports by RTCP.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant, SystemTime};

use rov_common::fec::Encoder;

use super::Shared;
use super::keyframes::Keyframes;
use super::links::{Links, Port};
use super::pace::{Pace, frame_interval};
use super::packet::{Anchor, Session};
use crate::config::RtpConfig;
use crate::packetize::RtpFrame;
use crate::stream::{OutputQueue, Stream};

/// One source on a LAN may report so often (RFC 3550 section 6.2 counts in shares of the bandwidth: this is 100 bytes).
/// Receivers that come later know the clock this soon.
const REPORT_EVERY: Duration = Duration::from_secs(1);

pub(super) struct Sender {
    stream: Arc<Stream>,
    frames: Arc<OutputQueue>,
    links: Links,
    keyframes: Keyframes,
    woken: Receiver<()>,
    shared: Arc<Shared>,
    session: Session,
    /// Of the newest frame; `None` before the first, and then nothing is reported.
    anchor: Option<Anchor>,
    report_at: Instant,
    /// Of one packet, kept for its memory.
    packet: Vec<u8>,
    fec: Option<Encoder>,
    /// The packets of one frame that repair packets are to be made of; empty without forward error correction.
    protected: Vec<Vec<u8>>,
}

impl Sender {
    pub fn new(
        stream: Arc<Stream>,
        frames: Arc<OutputQueue>,
        links: Links,
        config: &RtpConfig,
        woken: Receiver<()>,
        shared: Arc<Shared>,
    ) -> Self {
        Self {
            stream,
            frames,
            links,
            keyframes: Keyframes::new(config.keyframe_interval),
            woken,
            shared,
            session: Session::new(),
            anchor: None,
            report_at: Instant::now(),
            packet: Vec::new(),
            fec: config.fec_percent.map(|percent| Encoder::new(percent, rand::random(), rand::random())),
            protected: Vec::new(),
        }
    }

    /// Until it is stopped.
    pub fn run(mut self) {
        while !self.is_stopped() {
            self.shared.beat.beat();
            let now = Instant::now();
            let next = match self.anchor {
                Some(_) => self.report_at.min(self.links.due()),
                None => self.links.due(),
            };
            // A wake, the time, or the end of the stream: each is looked at below.
            let _ = self.woken.recv_timeout(next.saturating_duration_since(now));
            while !self.is_stopped()
                && let Some(frame) = self.frames.take()
            {
                self.send_frame(&frame);
                self.report(Instant::now());
            }
            // Also while no frames come: receivers know then that the sender is there.
            self.report(Instant::now());
            self.links.refresh(Instant::now());
        }
        if let Some(anchor) = self.anchor {
            let goodbye = self.session.goodbye(anchor, Instant::now(), SystemTime::now());
            self.links.send(Port::Rtcp, &goodbye);
        }
    }

    fn send_frame(&mut self, frame: &RtpFrame) {
        let start = Instant::now();
        let interval = frame_interval(self.stream.format().1);
        // Before it is sent: the encoder works meanwhile.
        if self.keyframes.wanted(start, frame.keyframe, interval) {
            self.stream.request_keyframe();
        }
        let packets = frame.payloads.len();
        let repairs = self.fec.as_ref().map_or(0, |fec| fec.repairs(packets));
        let pace = Pace::new(packets + repairs, interval);
        for (index, payload) in frame.payloads.iter().enumerate() {
            self.wait_until(start + pace.due(index));
            let marker = index + 1 == packets;
            self.session.media(payload, frame.timestamp, marker, &mut self.packet);
            self.links.send(Port::Media, &self.packet);
            if self.fec.is_some() {
                self.protected.push(self.packet.clone());
            }
        }
        // Behind the frame at once, so that a loss costs no wait for the next one.
        let repairs = self.fec.as_mut().map(|fec| fec.protect(&self.protected)).unwrap_or_default();
        self.protected.clear();
        for (index, repair) in repairs.iter().enumerate() {
            self.wait_until(start + pace.due(packets + index));
            self.links.send(Port::Repair, repair);
        }
        if self.links.access_unit_sent() {
            self.keyframes.damaged();
        }
        self.anchor = Some(Anchor { timestamp: frame.timestamp, captured_at: frame.captured_at });
    }

    /// For the pace of a frame: half its interval at most.
    fn wait_until(&self, at: Instant) {
        let wait = at.saturating_duration_since(Instant::now());
        if !wait.is_zero() && !self.is_stopped() {
            std::thread::sleep(wait);
        }
    }

    fn report(&mut self, now: Instant) {
        let Some(anchor) = self.anchor else { return };
        if now >= self.report_at {
            self.report_at = now + REPORT_EVERY;
            let report = self.session.report(anchor, now, SystemTime::now());
            self.links.send(Port::Rtcp, &report);
        }
    }

    fn is_stopped(&self) -> bool {
        self.shared.stop.load(Ordering::Relaxed)
    }
}
