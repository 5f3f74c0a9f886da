//! The RTP thread: takes frames, puts headers on, sends them at their pace, and reports by RTCP.

use std::sync::Arc;
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
    fec: Option<Encoder>,
    copies: Copies,
    /// The packets of the frame that is being sent.
    sent: Vec<Vec<u8>>,
}

/// The newest keyframe, while it is to be sent again. As nobody can ask for what is lost of it, a loss would else be seen until
/// the keyframe after it, and for a keyframe of 40 packets that is every third at 1 % loss.
///
/// The same packets come again, behind those of the next frame: neither a burst of losses nor a full buffer takes both, and
/// receivers drop by their sequence numbers what they have. Right behind the keyframe its last packet would follow itself, which
/// ffmpeg takes for a new one.
struct Copies {
    /// Of each keyframe.
    wanted: u8,
    left: u8,
    packets: Vec<Vec<u8>>,
}

impl Copies {
    /// What to send behind this frame.
    fn due(&mut self, keyframe: bool) -> &[Vec<u8>] {
        // Where each frame is a keyframe, the next one is as good as a copy.
        if keyframe || self.left == 0 {
            return &[];
        }
        self.left -= 1;
        &self.packets
    }

    fn keyframe(&mut self, packets: Vec<Vec<u8>>) {
        self.left = self.wanted;
        self.packets = packets;
    }
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
            fec: config.fec_percent.map(|percent| Encoder::new(percent, rand::random(), rand::random())),
            copies: Copies { wanted: config.keyframe_copies, left: 0, packets: Vec::new() },
            sent: Vec::new(),
        }
    }

    /// Until it is stopped.
    pub fn run(mut self) {
        while !self.shared.is_stopped() {
            let now = Instant::now();
            let next = match self.anchor {
                Some(_) => self.report_at.min(self.links.due()),
                None => self.links.due(),
            };
            // A wake, the time, or the end of the stream: each is looked at below.
            let _ = self.woken.recv_timeout(next.saturating_duration_since(now));
            while !self.shared.is_stopped()
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
        let anchor = Anchor { timestamp: frame.timestamp, captured_at: frame.captured_at };
        let packets = frame.payloads.len();
        self.sent.resize_with(packets, Vec::new);
        let repairs = self.fec.as_ref().map_or(0, |fec| fec.repairs(packets));
        let copies = self.copies.due(frame.keyframe);
        let pace = Pace::new(packets + repairs + copies.len(), interval);
        let wait_for = |index: usize| self.shared.wait_until(start + pace.due(index));
        for (index, (payload, packet)) in frame.payloads.iter().zip(&mut self.sent).enumerate() {
            wait_for(index);
            self.session.media(payload, frame.timestamp, index + 1 == packets, packet);
            self.links.send(Port::Media, packet);
        }
        // Behind the frame at once, so that a loss costs no wait for the next one.
        if let Some(fec) = &mut self.fec {
            let timestamp = self.session.timestamp(anchor, Instant::now());
            for (index, repair) in fec.protect(&self.sent, timestamp).iter().enumerate() {
                wait_for(packets + index);
                self.links.send(Port::Repair, repair);
            }
        }
        // Not counted in reports, which tell of packets, not of how often each was sent.
        for (index, copy) in copies.iter().enumerate() {
            wait_for(packets + repairs + index);
            self.links.send(Port::Media, copy);
        }
        if frame.keyframe {
            self.copies.keyframe(std::mem::take(&mut self.sent));
        }
        if self.links.access_unit_sent() {
            self.keyframes.damaged();
        }
        self.anchor = Some(anchor);
    }

    fn report(&mut self, now: Instant) {
        let Some(anchor) = self.anchor else { return };
        if now >= self.report_at {
            self.report_at = now + REPORT_EVERY;
            let report = self.session.report(anchor, now, SystemTime::now());
            self.links.send(Port::Rtcp, &report);
        }
    }
}
