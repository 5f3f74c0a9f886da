//! The RTP thread: takes frames, puts headers on, sends them at their pace, and reports by RTCP.

use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use rov_common::fec::Encoder;

use super::Shared;
use super::keyframes::Keyframes;
use super::links::{Links, Port};
use super::pace::{Pacer, frame_interval};
use super::packet::Session;
use crate::config::RtpConfig;
use crate::packetize::{Anchor, Frame};
use crate::stream::{OutputQueue, Stream};

/// One source on a LAN may report so often (RFC 3550 section 6.2 counts in shares of the bandwidth: this is 100 bytes).
/// Receivers that come later know the clock this soon.
const REPORT_EVERY: Duration = Duration::from_secs(1);
/// At once where the time of capture is another by so much than what the last report says.
const MOVED: Duration = Duration::from_millis(5);
/// But not for each picture where it goes on moving.
const MOVED_EVERY: Duration = Duration::from_millis(100);

/// Repair packets of a keyframe, at least, in percent: without any, what is lost of it is seen until the keyframe after
/// it, and for a keyframe of 40 packets that is every third at 1 % loss. With these it is one in some thousands. They
/// are sent apart: copies among the media packets would help every player, but ffmpeg takes some of them for new
/// packets after a loss.
const KEYFRAME_PERCENT: u8 = 25;

pub(super) struct Sender {
    stream: Arc<Stream>,
    frames: Arc<OutputQueue>,
    links: Links,
    keyframes: Keyframes,
    pacer: Pacer,
    woken: Receiver<()>,
    shared: Arc<Shared>,
    session: Session,
    /// Of the newest frame; `None` before the first, and then nothing is reported.
    anchor: Option<Anchor>,
    /// By the last report.
    reported: Option<Anchor>,
    report_at: Instant,
    /// When one was sent last because it moved.
    moved_at: Option<Instant>,
    fec: Encoder,
    /// Of all frames; None: of keyframes alone.
    fec_percent: Option<u8>,
    /// Whether the frame before was one.
    keyframe: bool,
    /// The packets of the frame that is being sent.
    sent: Vec<Vec<u8>>,
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
        let session = Session::new(stream.codec().payload_type());
        Self {
            stream,
            frames,
            links,
            keyframes: Keyframes::new(config.keyframe_interval),
            pacer: Pacer::default(),
            woken,
            shared,
            session,
            anchor: None,
            reported: None,
            report_at: Instant::now(),
            moved_at: None,
            fec: Encoder::new(KEYFRAME_PERCENT, rand::random(), rand::random()),
            fec_percent: config.fec_percent,
            keyframe: false,
            sent: Vec::new(),
        }
    }

    /// The synchronisation source of all its packets.
    pub fn ssrc(&self) -> u32 {
        self.session.ssrc()
    }

    /// Until it is stopped.
    pub fn run(mut self) {
        while !self.shared.is_stopped() {
            self.shared.beat.beat();
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
            let now = Instant::now();
            let goodbye = self.session.goodbye(anchor, now);
            self.links.send(Port::Rtcp, &goodbye);
        }
    }

    fn send_frame(&mut self, frame: &Frame) {
        let start = Instant::now();
        let interval = frame_interval(self.stream.status().format().1);
        // Before it is sent: the encoder works meanwhile.
        if self.keyframes.wanted(start, frame.keyframe, interval) {
            self.stream.demand().request_keyframe();
        }
        let anchor = Anchor::from(frame);
        let may_report = self.moved_at.is_none_or(|at| start.saturating_duration_since(at) >= MOVED_EVERY);
        if may_report && self.reported.is_some_and(|before| anchor.moved(&before) > MOVED) {
            (self.anchor, self.report_at, self.moved_at) = (Some(anchor), start, Some(start));
            self.report(start);
        }
        let packets = frame.payloads.len();
        self.sent.resize_with(packets, Vec::new);
        // Where each frame is a keyframe, the next one is as good as a repair.
        let after_keyframe = std::mem::replace(&mut self.keyframe, frame.keyframe);
        let first_keyframe = frame.keyframe && !after_keyframe;
        let percent = self.fec_percent.max(first_keyframe.then_some(KEYFRAME_PERCENT));
        let repairs = percent.map_or(0, |percent| {
            self.fec.set_percent(percent);
            self.fec.repairs(packets)
        });
        let schedule = self.pacer.schedule(start, packets + repairs, interval);
        let wait_for = |index: usize| self.shared.wait_until(schedule.due(index));
        for (index, (payload, packet)) in frame.payloads.iter().zip(&mut self.sent).enumerate() {
            wait_for(index);
            self.session.media(payload, frame.timestamp, index + 1 == packets, packet);
            self.links.send(Port::Media, packet);
        }
        // Behind the frame at once, so that a loss costs no wait for the next one.
        if repairs > 0 {
            let timestamp = self.session.timestamp(anchor, Instant::now());
            for (index, repair) in self.fec.protect(&self.sent, timestamp).iter().enumerate() {
                wait_for(packets + index);
                self.links.send(Port::Repair, repair);
            }
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
            self.reported = Some(anchor);
            let report = self.session.report(anchor, now);
            self.links.send(Port::Rtcp, &report);
        }
    }
}
