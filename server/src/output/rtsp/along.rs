//! Which packets were already waiting when the previous one was read, with the connection never empty since the last
//! packet of the same stream. Of a publisher by TCP; a packet waits where a part of it does. In front of a link that is
//! slower than its stream nearly all packets wait so, also the first ones of pictures.
//!
//! gst-rtsp-server reads on the thread of the server and leaves packets to another, where it is too late to look into
//! the socket: what was waiting there may have been read meanwhile.

use std::collections::HashSet;
use std::mem::MaybeUninit;
use std::sync::{Arc, Mutex};

use gstreamer::glib;
use gstreamer_rtsp_server::gio;
use gstreamer_rtsp_server::gio::prelude::{SocketExt, SocketExtManual};
use rov_common::rtp::{Header, PLAIN_LENGTH};
use rov_common::sync::lock;
use socket2::SockRef;

/// So much of what is read next is looked at: packets that were made for a network fit in.
const LOOK: usize = 2048;

#[derive(Debug, Default)]
pub struct Along {
    /// Of the stream that is looked at.
    ssrc: Option<u32>,
    /// Sequence numbers of the packets that nobody has asked about yet.
    packets: HashSet<u16>,
    /// What is read next is there as a whole.
    is_whole: bool,
    /// The connection was empty since a packet of the stream was last seen to wait.
    was_empty: bool,
}

impl Along {
    /// Looks into `socket` between the reads of gst-rtsp-server, for as long as the result is kept. To be called on its
    /// thread, when it reads from there already: of sources with the same priority, GLib dispatches the one that came
    /// last behind the others, so that each look follows a read, which takes one packet at most.
    pub fn watch(socket: &gio::Socket) -> Arc<Mutex<Self>> {
        let this = Arc::<Mutex<Self>>::default();
        let weak = Arc::downgrade(&this);
        let look = move |socket: &gio::Socket, _| {
            let mut next = [MaybeUninit::uninit(); LOOK];
            let Some(this) = weak.upgrade().filter(|_| !socket.is_closed()) else { return glib::ControlFlow::Break };
            match SockRef::from(socket).peek(&mut next) {
                Ok(0) => return glib::ControlFlow::Break,
                // SAFETY: so much of it was written.
                Ok(length) => lock(&this).note(unsafe { next[..length].assume_init_ref() }),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => lock(&this).nothing_waits(),
                Err(_) => return glib::ControlFlow::Break,
            }
            glib::ControlFlow::Continue
        };
        let (condition, priority) = (glib::IOCondition::IN, glib::Priority::DEFAULT);
        let source = socket.create_source(condition, gio::Cancellable::NONE, Some("rtsp-along"), priority, look);
        source.attach(glib::MainContext::thread_default().as_ref());
        this
    }

    /// What is read next begins so. In the middle of a packet it looks otherwise, and of less than the headers it
    /// cannot be told what it is.
    fn note(&mut self, next: &[u8]) {
        self.is_whole = false;
        // RFC 2326 section 10.12.
        let [b'$', _, long, short, packet @ ..] = next else { return };
        if packet.len() < PLAIN_LENGTH {
            return;
        }
        self.is_whole = packet.len() >= usize::from(u16::from_be_bytes([*long, *short]));
        // Sound that came just before may have waited for nothing.
        if let Some(header) = Header::parse(packet)
            && self.ssrc == Some(header.ssrc)
            && !std::mem::take(&mut self.was_empty)
        {
            self.packets.insert(header.sequence);
        }
    }

    /// In the middle of a packet that says nothing.
    fn nothing_waits(&mut self) {
        self.was_empty |= std::mem::take(&mut self.is_whole);
    }

    /// Whether this packet is one of them. Each is to be asked about, so that the next one with its
    /// number is not taken for it.
    pub fn take(&mut self, ssrc: u32, sequence: u16) -> bool {
        if self.ssrc.replace(ssrc) != Some(ssrc) {
            self.packets.clear();
        }
        self.packets.remove(&sequence)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::OwnedFd;

    use super::*;

    const SSRC: u32 = 0x0102_0304;

    /// An interleaved RTP packet with eight bytes of payload.
    fn packet(sequence: u16, ssrc: u32) -> Vec<u8> {
        let [high, low] = sequence.to_be_bytes();
        let head = [b'$', 0, 0, 20, 0x80, 0xe0, high, low, 0, 0, 0, 0];
        [&head[..], &ssrc.to_be_bytes(), &[b'$'; 8]].concat()
    }

    /// Reads one packet at each turn of a loop, as gst-rtsp-server does, and looks.
    #[test]
    fn packets_that_are_there_when_the_one_before_is_read_are_known() {
        let context = glib::MainContext::new();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut publisher = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut reader, _) = listener.accept().unwrap();
        let socket = gio::Socket::from_fd(OwnedFd::from(reader.try_clone().unwrap())).unwrap();
        let along = context.with_thread_default(|| {
            let (condition, priority) = (glib::IOCondition::IN, glib::Priority::DEFAULT);
            let read = move |_: &gio::Socket, _| {
                let mut taken = [0; 24];
                let _ = reader.read(&mut taken).unwrap();
                glib::ControlFlow::Continue
            };
            socket.create_source(condition, gio::Cancellable::NONE, None, priority, read).attach(Some(&context));
            Along::watch(&socket)
        });
        let along = along.unwrap();
        assert!(!lock(&along).take(SSRC, 0), "now it is known whose packets matter");
        let mut send = |bytes: &[u8]| {
            publisher.write_all(bytes).unwrap();
            // Loopback: it is there now.
            while context.iteration(false) {}
        };
        send(&packet(1, SSRC));
        send(&packet(2, SSRC));
        send(&[packet(3, SSRC), packet(4, 9), packet(5, SSRC), packet(6, SSRC)[..15].to_vec()].concat());
        send(&packet(6, SSRC)[15..]);
        send(&[packet(7, SSRC), packet(8, SSRC)[..16].to_vec()].concat());
        send(&packet(8, SSRC)[16..]);
        // Sound, of which the second packet is the last that was there; then sound with the picture behind it.
        send(&[packet(5, 9), packet(6, 9)].concat());
        send(&[packet(7, 9), packet(9, SSRC), packet(10, SSRC)].concat());
        let came: Vec<_> = (1..=10).filter(|sequence| lock(&along).take(SSRC, *sequence)).collect();
        // Of the sixth, too little was there to know it by.
        assert_eq!(came, [5, 8, 10]);
        assert!(!lock(&along).take(SSRC, 5), "once");
    }
}
