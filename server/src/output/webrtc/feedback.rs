//! What viewers report by RTCP, taken out of the core on its way in.
//!
//! The core itself hands over a compound packet only when the first SSRC in it is that of the media. Chromium reports on
//! the retransmissions first, from the first one on: all that it says after that would be lost, keyframe requests too.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use rtc::interceptor::{Interceptor, Packet, StreamInfo, TaggedPacket};
use rtc::rtcp;
use rtc::sansio::Protocol;
use rtc::shared::error::Error;

/// The packets that came since they were last taken. Those of one datagram at most, as the session takes them after each.
#[derive(Clone, Default)]
pub struct Feedback(Arc<Mutex<Vec<Box<dyn rtcp::Packet>>>>);

impl Feedback {
    /// The interceptor that fills it.
    pub fn tap(&self) -> Tap {
        Tap { feedback: self.clone(), read: VecDeque::new(), write: VecDeque::new() }
    }

    pub fn take(&self) -> Vec<Box<dyn rtcp::Packet>> {
        std::mem::take(&mut self.lock())
    }

    /// A panic elsewhere cannot leave the list half written.
    fn lock(&self) -> MutexGuard<'_, Vec<Box<dyn rtcp::Packet>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub struct Tap {
    feedback: Feedback,
    read: VecDeque<TaggedPacket>,
    write: VecDeque<TaggedPacket>,
}

impl Protocol<TaggedPacket, TaggedPacket, ()> for Tap {
    type Rout = TaggedPacket;
    type Wout = TaggedPacket;
    type Eout = ();
    type Error = Error;
    type Time = Instant;

    fn handle_read(&mut self, packet: TaggedPacket) -> Result<(), Error> {
        if let Packet::Rtcp(packets) = &packet.message.packet {
            self.feedback.lock().extend(packets.iter().cloned());
        }
        self.read.push_back(packet);
        Ok(())
    }

    fn poll_read(&mut self) -> Option<TaggedPacket> {
        self.read.pop_front()
    }

    fn handle_write(&mut self, packet: TaggedPacket) -> Result<(), Error> {
        self.write.push_back(packet);
        Ok(())
    }

    fn poll_write(&mut self) -> Option<TaggedPacket> {
        self.write.pop_front()
    }
}

impl Interceptor for Tap {
    fn bind_local_stream(&mut self, _info: &StreamInfo) {}
    fn unbind_local_stream(&mut self, _info: &StreamInfo) {}
    fn bind_remote_stream(&mut self, _info: &StreamInfo) {}
    fn unbind_remote_stream(&mut self, _info: &StreamInfo) {}
}
