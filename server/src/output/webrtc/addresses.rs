//! Whose datagram it is, as all viewers share one socket: a connectivity check names its viewer and proves it,
//! everything else comes from an address that is known.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;

use rtc::crypto::{RTCCryptoProvider, default_provider};
use rtc::stun::attributes::ATTR_USERNAME;
use rtc::stun::integrity::MessageIntegrity;
use rtc::stun::message::{CLASS_REQUEST, Message, is_stun_message};

/// Addresses remembered for each viewer: those it was heard from, and those that were only sent to, which are as many
/// as it has candidates. The oldest are forgotten first.
pub const MAX_HEARD: usize = 16;
pub const MAX_SENT: usize = 64;

/// A connectivity check, which is a STUN request (RFC 8445 section 7.3). A response is none, although libnice puts the
/// user name into it.
pub struct Check {
    message: Message,
    /// The user name fragment that this side gave.
    pub ufrag: String,
}

impl Check {
    /// None where `datagram` is something else; a request without a user name has an empty one.
    pub fn parse(datagram: &[u8]) -> Option<Self> {
        let mut message = Message::new();
        let is_request = is_stun_message(datagram)
            && message.unmarshal_binary(datagram).is_ok()
            && message.typ.class == CLASS_REQUEST;
        if !is_request {
            return None;
        }
        let user = message.get(ATTR_USERNAME).unwrap_or_default();
        let ufrag = user.split(|byte| *byte == b':').next().unwrap_or_default();
        let ufrag = String::from_utf8_lossy(ufrag).into_owned();
        Some(Self { message, ufrag })
    }

    /// Whether the sender knows the password that this side gave: anybody on the network can read the user name.
    pub fn is_by(&mut self, pwd: &str, crypto: &Crypto) -> bool {
        MessageIntegrity::check(&mut self.message, pwd.as_bytes(), crypto.0.crypto()).is_ok()
    }
}

pub struct Crypto(Arc<dyn RTCCryptoProvider>);

impl Default for Crypto {
    fn default() -> Self {
        // It fails only where the crate was built without any.
        Self(default_provider().expect("a built-in cryptography provider"))
    }
}

/// Which viewer, by its id, each address is known to be of.
#[derive(Default)]
pub struct Owners(HashMap<SocketAddr, String>);

/// The addresses of one viewer.
#[derive(Default)]
pub struct Known {
    heard: VecDeque<SocketAddr>,
    sent: VecDeque<SocketAddr>,
}

impl Known {
    /// Whether it has proved an address to be its own.
    pub fn is_heard(&self) -> bool {
        !self.heard.is_empty()
    }
}

impl Owners {
    pub fn get(&self, peer: SocketAddr) -> Option<&String> {
        self.0.get(&peer)
    }

    /// Viewer `id` has proved that `peer` is its address. `chosen` is the one on the path that ICE chose.
    pub fn heard(
        &mut self,
        known: &mut Known,
        id: &str,
        peer: SocketAddr,
        chosen: impl FnOnce() -> Option<SocketAddr>,
    ) {
        let heard = &mut known.heard;
        if heard.back() == Some(&peer) && self.0.get(&peer).is_some_and(|owner| owner == id) {
            return;
        }
        heard.retain(|known| *known != peer);
        heard.push_back(peer);
        self.0.insert(peer, id.to_owned());
        if heard.len() > MAX_HEARD {
            if heard.front().copied() == chosen() {
                heard.rotate_left(1);
            }
            self.forget_oldest(heard, id);
        }
    }

    /// Something was sent to `peer` for viewer `id`: its answer will come from there, unless the address is known to be
    /// another viewer's.
    pub fn sent_to(&mut self, known: &mut Known, id: &str, peer: SocketAddr) {
        if self.0.contains_key(&peer) {
            return;
        }
        known.sent.push_back(peer);
        self.0.insert(peer, id.to_owned());
        if known.sent.len() > MAX_SENT {
            self.forget_oldest(&mut known.sent, id);
        }
    }

    pub fn forget(&mut self, id: &str) {
        self.0.retain(|_, owner| owner != id);
    }

    fn forget_oldest(&mut self, addresses: &mut VecDeque<SocketAddr>, id: &str) {
        if let Some(oldest) = addresses.pop_front()
            && self.0.get(&oldest).is_some_and(|owner| owner == id)
        {
            self.0.remove(&oldest);
        }
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.0.len()
    }
}
