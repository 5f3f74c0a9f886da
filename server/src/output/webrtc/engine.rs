//! All viewers of all streams behind one UDP socket: whose datagram is it, and what goes out when. Time is passed in
//! and datagrams go to a [`Transmit`], so it is tested with no network. Streams are known by their places in the
//! catalogue.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rov_common::api::{ViewerStats, public_id};
use rov_common::codec::Codec;
use rov_common::sync::lock;
use rov_common::units::Bitrate;
use rtc::peer_connection::RTCPeerConnection;
use rtc::sansio::Protocol;
use thiserror::Error;

use super::addresses::{Check, Crypto, Known, Owners};
use super::channel::Values;
use super::feedback::Pictures;
use super::offer::{self, Fragment, OfferError};
pub use super::session::Reach;
use super::session::{End, HEADROOM, Session};
use super::share::{Part, inherit, share};
use crate::output::pilots::{PilotLink, Pilots};
use crate::output::places::{Place, PlaceState, gives_way};
use crate::output::takers::{Taker, Takers};
use crate::packetize::Frame;
use crate::rate_control::{Ceiling, Rate, RateControl, ViewerLink};

/// Datagrams and bytes in one segmentation-offload run. 64 KiB is the limit of an IP packet, 64 datagrams that of
/// Linux; shorter runs let the first packets leave earlier.
const MAX_RUN_SEGMENTS: usize = 32;
const MAX_RUN_BYTES: usize = 60_000;

/// Between two looks at what the viewers' links carry, less than between two reports of a viewer.
const RATE_INTERVAL: Duration = Duration::from_millis(20);

/// Between two lines in the log that say that viewers give way.
const SAY_AGAIN: Duration = Duration::from_secs(30);

/// Sends a run of datagrams of `segment` bytes each, the last of which may be shorter.
pub trait Transmit {
    /// False when the socket is full and the run was not sent.
    fn transmit(&mut self, local: IpAddr, peer: SocketAddr, run: &[u8], segment: usize) -> bool;
}

#[derive(Debug, Error)]
pub enum AcceptError {
    #[error(transparent)]
    Offer(#[from] OfferError),
    #[error("all {0} places for viewers are taken (--max-viewers): close a viewer and try again")]
    Full(usize),
    #[error("the offer cannot be answered: {0}")]
    Core(#[from] rtc::shared::error::Error),
}

#[derive(Debug, Error)]
pub enum CandidateError {
    #[error("there is no viewer {0:?}: it has ended or never was")]
    NoSuchViewer(String),
    #[error("the entity tag is not that of the session, whose ICE was restarted since: ask with If-Match: *")]
    NotCurrent,
    #[error("ICE cannot be restarted: {0}")]
    Restart(rtc::shared::error::Error),
    #[error(
        "an ICE restart needs `a=ice-ufrag` of 4 to 256 characters and `a=ice-pwd` of 22 to 256 (RFC 8839 section 5.4)"
    )]
    NoPassword,
    #[error("candidate {candidate:?} is not valid: {source}")]
    Invalid { candidate: String, source: rtc::shared::error::Error },
}

pub struct Engine {
    streams: Vec<Encode>,
    /// The stream that the pilot watches, whose pictures leave first.
    pilot_stream: usize,
    /// Each viewer costs its own encryption of every packet.
    max_viewers: usize,
    viewers: HashMap<String, Viewer>,
    pictures: Pictures,
    by_address: Owners,
    /// By the ICE user name fragment that this side gave the viewer.
    by_ufrag: HashMap<String, String>,
    crypto: Crypto,
    run: Run,
    pilots: Arc<Mutex<Pilots>>,
    /// What may be sent to one address altogether, bit/s, and who else is sent streams there.
    tether: Option<(f64, Arc<Takers>)>,
    rate_due: Option<Instant>,
    /// When a viewer that had not connected gave way last.
    gave_way: Option<Instant>,
    /// Of telemetry; none: data channels are refused, as there is nothing to send by them.
    values: Option<Arc<Values>>,
    /// Those that viewers were sent, or will be.
    newest: Option<Arc<str>>,
}

/// What is known of a stream.
struct Encode {
    name: String,
    codec: Codec,
    /// None: the bit rate stays as it is.
    rate_control: Option<RateControl>,
    /// How many watch it or are connecting.
    viewers: usize,
    /// Bytes that viewers were sent who have gone.
    sent_before: u64,
    keyframe_wanted: bool,
}

/// The stream that an offer asks for, as it is at that moment.
#[derive(Clone, Copy, Debug, Default)]
pub struct Asked {
    pub stream: usize,
    /// See `Stream::profile`.
    pub profile: Option<(u8, u8)>,
    pub ceiling: Option<Ceiling>,
}

struct Viewer {
    session: Session,
    /// That it watches.
    stream: usize,
    /// That of its offer.
    highest_profile: Option<u8>,
    /// Where its offer came from, and since when it has its place.
    address: IpAddr,
    since: Instant,
    /// That this side gave it, with the password that goes with it.
    ufrag: String,
    pwd: String,
    /// The viewer's own, by which an ICE restart is told from new candidates.
    remote_ufrag: String,
    /// The one before: candidates for it that come late are no restart.
    former_ufrag: String,
    known: Known,
    deadline: Instant,
    /// In the link of its address.
    part: Part,
}

impl Viewer {
    fn place(&self, now: Instant, pilot: bool) -> Place {
        let state = if self.session.is_connected() {
            PlaceState::Connected { silent: self.session.is_silent(now), pilot }
        } else {
            PlaceState::Connecting { checked: self.known.is_heard() }
        };
        Place { address: self.address, since: self.since, state }
    }
}

impl Engine {
    /// Of each stream the name, the codec, and with a floor its bit rate follows the link of the pilot among its
    /// viewers, and is never lower than that.
    pub fn new<'a>(
        streams: impl IntoIterator<Item = (&'a str, Codec, Option<Bitrate>)>,
        max_viewers: usize,
        pilots: Arc<Mutex<Pilots>>,
    ) -> Self {
        let encode = |(name, codec, floor): (&str, _, Option<Bitrate>)| Encode {
            name: name.to_owned(),
            codec,
            rate_control: floor.map(RateControl::new),
            viewers: 0,
            sent_before: 0,
            keyframe_wanted: false,
        };
        Self {
            streams: streams.into_iter().map(encode).collect(),
            pilot_stream: 0,
            max_viewers,
            viewers: HashMap::new(),
            by_address: Owners::default(),
            by_ufrag: HashMap::new(),
            crypto: Crypto::default(),
            run: Run::default(),
            pilots,
            pictures: Pictures::default(),
            tether: None,
            rate_due: None,
            gave_way: None,
            values: None,
            newest: None,
        }
    }

    /// Viewers that offer a data channel get these values of telemetry by it.
    pub fn with_values(self, values: Option<Arc<Values>>) -> Self {
        Self { values, ..self }
    }

    pub(super) fn values(&self) -> Option<Arc<Values>> {
        self.values.clone()
    }

    /// All streams of one viewer's address together, with those that others send it, have at most this bit rate.
    pub fn with_tether(self, tether: Option<Bitrate>, takers: Arc<Takers>) -> Self {
        Self { tether: tether.map(|tether| (tether.bps().into(), takers)), ..self }
    }

    /// How many viewers are connected.
    pub fn connected(&self) -> usize {
        self.viewers.values().filter(|viewer| viewer.session.is_connected()).count()
    }

    /// Whether somebody watches the stream, or is connecting to it.
    pub fn is_watched(&self, stream: usize) -> bool {
        self.streams[stream].viewers > 0
    }

    /// Of the viewers of a stream the one that decodes least of H.264's profiles, by `profile_idc`; none where none
    /// says so.
    pub fn least_decoder(&self, stream: usize) -> Option<(u8, IpAddr)> {
        let of_stream = self.viewers.values().filter(|viewer| viewer.stream == stream);
        of_stream.filter_map(|viewer| Some((viewer.highest_profile?, viewer.address))).min()
    }

    /// The stream whose pictures are to be sent first.
    pub fn pilot_stream(&self) -> usize {
        self.pilot_stream
    }

    /// So many frames of the stream were left out before they came here.
    pub fn left_out(&mut self, stream: usize, count: u64) {
        for viewer in self.viewers.values_mut().filter(|viewer| viewer.stream == stream) {
            viewer.session.left_out(count);
        }
    }

    /// Whether a viewer of the stream needs a keyframe, since that was asked last.
    pub fn take_keyframe_wanted(&mut self, stream: usize) -> bool {
        std::mem::take(&mut self.streams[stream].keyframe_wanted)
    }

    /// Calls `set` with what the encoder of each stream is to do, by what the links of its viewers carry; `ceiling`
    /// gives what it would make without them. Not for streams of which nothing here says so or which nothing encodes,
    /// nor where it was said just now.
    pub fn rates(
        &mut self,
        now: Instant,
        ceiling: impl Fn(usize) -> Option<Ceiling>,
        mut set: impl FnMut(usize, Rate),
    ) {
        if self.rate_due.is_some_and(|due| now < due) {
            return;
        }
        self.rate_due = Some(now + RATE_INTERVAL);
        let ceilings: Vec<_> = (0..self.streams.len()).map(ceiling).collect();
        let is_watched = !self.viewers.is_empty();
        let connected = self.viewers.iter_mut().filter(|(_, viewer)| viewer.session.is_connected());
        let (mut viewers, mut links): (Vec<_>, Vec<_>) = connected
            .filter_map(|(id, viewer)| {
                let link = viewer.session.link(now, ceilings[viewer.stream])?;
                Some(((id, viewer), link))
            })
            .unzip();
        let tether = self.tether.as_ref().map(|(tether, takers)| (*tether, takers.all()));
        let known = tether.as_ref().map(|(tether, takers)| (*tether, !takers.is_empty()));
        let bounds = share_links(now, tether, &ceilings, &mut viewers, &mut links);
        let mut pilots = lock(&self.pilots);
        let of_all = pilots.choose(&links);
        // One that connects, or whose link is down, finds it free when it comes back.
        let unknown = || is_watched.then_some(PilotLink { carried: 0.0, is_free: false });
        pilots.set_link(pilot_link(now, known, of_all, &viewers, &links).or_else(unknown));
        // Of all viewers: who has a right to a place, and whose pictures leave first.
        if let Some(at) = of_all {
            let (id, viewer) = &viewers[at];
            self.pilot_stream = viewer.stream;
            pilots.note(viewer.address);
            let rivals = viewers.iter().filter(|(_, other)| other.stream == viewer.stream).count();
            let news = pilots.news(id, links[at].address, rivals);
            if let Some(news) = news.filter(|_| self.streams[viewer.stream].rate_control.is_some()) {
                let address = links[at].address.map(tracing::field::display);
                tracing::info!(viewer = public_id(id), address, "{news}");
            }
        }
        for (stream, (encode, ceiling)) in self.streams.iter_mut().zip(ceilings).enumerate() {
            let Some(control) = &mut encode.rate_control else { continue };
            let mine: Vec<_> = (0..viewers.len()).filter(|at| viewers[*at].1.stream == stream).collect();
            let mut of_stream: Vec<_> = mine.iter().map(|at| links[*at]).collect();
            let pilot = pilots.choose(&of_stream);
            for (at, viewer) in mine.into_iter().enumerate() {
                viewers[viewer].1.session.set_pilot(pilot == Some(at), ceiling.is_some());
            }
            if let Some(ceiling) = ceiling {
                let pilot = bound(now, (&bounds, pilots.address()), stream, &mut of_stream, pilot);
                set(stream, control.update(now, ceiling, &of_stream, pilot));
            }
        }
    }

    /// Looks for viewers that had to wait with their wish for a keyframe.
    pub fn look_for_keyframes(&mut self, now: Instant) {
        for viewer in self.viewers.values_mut() {
            self.streams[viewer.stream].keyframe_wanted |= viewer.session.keyframe_due(now);
        }
    }

    /// Answers an offer that came `from` there; `id` names the new viewer from now on, and whoever knows it may end the
    /// session: what is shown of it is its [`public_id`] alone. Where all places are taken, another viewer may have to
    /// give way.
    #[expect(clippy::too_many_arguments, reason = "what is known of the offer")]
    pub fn accept(
        &mut self,
        now: Instant,
        id: &str,
        offer: &str,
        from: IpAddr,
        asked: Asked,
        reach: &Reach,
        net: &mut impl Transmit,
    ) -> Result<String, AcceptError> {
        let Asked { stream, profile, ceiling } = asked;
        let encode = &self.streams[stream];
        let adaptive = encode.rate_control.is_some();
        let mut offer = offer::parse(offer, encode.codec, profile)?;
        if self.values.is_some() {
            offer = offer.with_data();
        }
        let gives_way = if self.viewers.len() < self.max_viewers { None } else { Some(self.gives_way(now, from)?) };
        let name = public_id(id).to_owned();
        let accept = AssertUnwindSafe(|| Session::accept(now, name, &offer, reach, ceiling, adaptive));
        let panicked = |_| Err(rtc::shared::error::Error::Other("its session panicked".to_owned()));
        let (session, answer) = catch_unwind(accept).unwrap_or_else(panicked)?;
        self.pictures.add(public_id(id), session.feedback());
        let since = gives_way.and_then(|id| self.make_way(now, &id, from, net)).unwrap_or(now);
        let [ufrag, pwd] = credentials(&answer);
        self.by_ufrag.insert(ufrag.clone(), id.to_owned());
        let viewer = Viewer {
            session,
            stream,
            highest_profile: offer.highest_profile,
            address: from,
            since,
            ufrag,
            pwd,
            remote_ufrag: offer.ufrag,
            former_ufrag: String::new(),
            known: Known::default(),
            deadline: now,
            part: Part::default(),
        };
        self.viewers.insert(id.to_owned(), viewer);
        self.streams[stream].viewers += 1;
        self.note_followers();
        Ok(answer)
    }

    /// What is sent to the viewers.
    pub fn pictures(&self) -> Pictures {
        self.pictures.clone()
    }

    /// The viewer whose place one from this address gets.
    fn gives_way(&self, now: Instant, from: IpAddr) -> Result<String, AcceptError> {
        let (ids, pilots): (Vec<_>, _) = (self.viewers.keys().collect(), lock(&self.pilots));
        let places: Vec<_> = self.viewers.iter().map(|(id, viewer)| viewer.place(now, pilots.is_present(id))).collect();
        let at = gives_way(now, &places, from, |address| pilots.rank(address));
        at.map(|at| ids[at].clone()).ok_or(AcceptError::Full(self.max_viewers))
    }

    /// Ends viewer `id` for one that comes `from` there. Since when their address has been connecting, if it is the
    /// same.
    fn make_way(&mut self, now: Instant, id: &str, from: IpAddr, net: &mut impl Transmit) -> Option<Instant> {
        let viewer = self.viewers.get(id)?;
        let (address, since) = (viewer.address, viewer.since);
        let was_connected = viewer.session.is_connected();
        if was_connected {
            let viewer = public_id(id);
            tracing::warn!(viewer, %address, pilot = %from, "a viewer gives way to the pilot: all places are taken");
        } else if self.gave_way.is_none_or(|at| now.saturating_duration_since(at) >= SAY_AGAIN) {
            self.gave_way = Some(now);
            let said = "all places are taken: viewers that have not connected give way to new ones";
            tracing::warn!(%address, new = %from, "{said}");
        }
        self.remove(id, &End::GaveWay, net);
        (address == from && !was_connected).then_some(since)
    }

    /// What a viewer adds to its offer: candidates (trickle ICE, RFC 8838), or with a user name fragment other than
    /// before an ICE restart, whose answer is given. `tag` is the entity tag that the viewer knows, or `*`.
    pub fn patch(
        &mut self,
        now: Instant,
        id: &str,
        tag: &str,
        fragment: &Fragment,
    ) -> Result<Option<String>, CandidateError> {
        let viewer = self.viewers.get_mut(id).ok_or_else(|| CandidateError::NoSuchViewer(id.to_owned()))?;
        if tag != "*" && tag != entity_tag(&viewer.ufrag) {
            return Err(CandidateError::NotCurrent);
        }
        viewer.deadline = now;
        if !fragment.ufrag.is_empty() && fragment.ufrag == viewer.former_ufrag {
            return Err(CandidateError::NotCurrent);
        }
        if !fragment.ufrag.is_empty() && fragment.ufrag != viewer.remote_ufrag {
            if !fragment.has_credentials() {
                return Err(CandidateError::NoPassword);
            }
            let answer = viewer.session.restart(now, fragment).map_err(CandidateError::Restart)?;
            viewer.former_ufrag = std::mem::replace(&mut viewer.remote_ufrag, fragment.ufrag.clone());
            self.by_ufrag.remove(&viewer.ufrag);
            [viewer.ufrag, viewer.pwd] = credentials(&answer);
            self.by_ufrag.insert(viewer.ufrag.clone(), id.to_owned());
            tracing::info!(viewer = public_id(id), "viewer restarts ICE");
            return Ok(Some(answer));
        }
        for candidate in &fragment.candidates {
            viewer
                .session
                .add_remote_candidate(candidate)
                .map_err(|source| CandidateError::Invalid { candidate: candidate.clone(), source })?;
        }
        Ok(None)
    }

    /// One datagram from the network.
    pub fn handle_datagram(
        &mut self,
        now: Instant,
        local: SocketAddr,
        peer: SocketAddr,
        data: &[u8],
        net: &mut impl Transmit,
    ) {
        let Some(id) = self.viewer_of(peer, data) else { return };
        self.guard(&id, |this| {
            let Some(viewer) = this.viewers.get_mut(&id) else { return };
            viewer.session.handle_datagram(now, local, peer, data);
            this.serve(now, &id, net);
        });
    }

    /// Does `work` on this viewer. What its datagrams may do to the core ends its session alone.
    fn guard(&mut self, id: &str, work: impl FnOnce(&mut Self)) {
        if catch_unwind(AssertUnwindSafe(|| work(self))).is_err() {
            // What it had gathered to be sent.
            self.run = Run::default();
            drop(self.forget(id));
            tracing::error!(viewer = public_id(id), "viewer gone: its session panicked; the others go on");
        }
    }

    /// Whose datagram it is. A connectivity check names the viewer and proves it, and from then on the address is that
    /// viewer's, unless it is already the one on which another is sent its pictures: a sender's address can be forged.
    /// Everything else comes from an address that a viewer was heard from or sent to.
    fn viewer_of(&mut self, peer: SocketAddr, data: &[u8]) -> Option<String> {
        let Some(mut check) = Check::parse(data) else { return self.by_address.get(peer).cloned() };
        let id = self.by_ufrag.get(&check.ufrag)?.clone();
        if !check.is_by(&self.viewers.get(&id)?.pwd, &self.crypto) {
            return None;
        }
        if let Some(owner) = self.by_address.get(peer).filter(|owner| **owner != id)
            && self.viewers.get_mut(owner).is_some_and(|owner| owner.session.peer() == Some(peer))
        {
            return None;
        }
        let Viewer { session, known, .. } = self.viewers.get_mut(&id)?;
        self.by_address.heard(known, &id, peer, || session.peer());
        Some(id)
    }

    /// Sends one frame of the stream to each of its viewers.
    pub fn send_frame(&mut self, now: Instant, stream: usize, frame: &Frame, net: &mut impl Transmit) {
        let of_stream = self.viewers.iter().filter(|(_, viewer)| viewer.stream == stream);
        let mut ids: Vec<_> = of_stream.map(|(id, viewer)| (!viewer.session.is_pilot(), id.clone())).collect();
        ids.sort();
        for (_, id) in ids {
            self.guard(&id, |this| {
                let Some(Viewer { session, known, deadline, .. }) = this.viewers.get_mut(&id) else { return };
                let (run, by_address) = (&mut this.run, &mut this.by_address);
                let mut transmit = |core: &mut RTCPeerConnection| {
                    drain(core, run, net, &mut |peer| by_address.sent_to(known, &id, peer))
                };
                this.streams[stream].keyframe_wanted |= session.send_frame(now, frame, &mut transmit);
                // Its last packet may have to be sent a second time.
                *deadline = session.poll_timeout(now).min(*deadline);
            });
        }
    }

    /// Sends the newest values of telemetry, where there are others than before, to viewers that take them. A viewer to
    /// which those before are still on their way gets them when these have arrived.
    pub fn tell_values(&mut self, now: Instant, net: &mut impl Transmit) {
        let newest = self.values.as_ref().and_then(|values| values.newest());
        let is_same = match (&newest, &self.newest) {
            (Some(newest), Some(before)) => Arc::ptr_eq(newest, before),
            _ => newest.is_none(),
        };
        if is_same {
            return;
        }
        self.newest = newest;
        let takes = self.viewers.iter().filter(|(_, viewer)| viewer.session.has_channel());
        for id in takes.map(|(id, _)| id.clone()).collect::<Vec<_>>() {
            self.guard(&id, |this| this.serve(now, &id, net));
        }
    }

    fn note_followers(&self) {
        if let Some(values) = &self.values {
            values.set_followed(self.viewers.values().any(|viewer| viewer.session.has_channel()));
        }
    }

    /// Runs the timers that are due.
    pub fn handle_timeouts(&mut self, now: Instant, net: &mut impl Transmit) {
        let due: Vec<String> =
            self.viewers.iter().filter(|(_, v)| v.deadline <= now).map(|(id, _)| id.clone()).collect();
        for id in due {
            self.guard(&id, |this| {
                if let Some(viewer) = this.viewers.get_mut(&id) {
                    viewer.session.handle_timeout(now);
                }
                this.serve(now, &id, net);
            });
        }
    }

    pub fn next_timeout(&self) -> Option<Instant> {
        self.viewers.values().map(|v| v.deadline).min()
    }

    /// Events and datagrams of one viewer after something was put into its core; an ended one is removed.
    fn serve(&mut self, now: Instant, id: &str, net: &mut impl Transmit) {
        let Some(viewer) = self.viewers.get_mut(id) else { return };
        let was_connected = viewer.session.is_connected();
        self.streams[viewer.stream].keyframe_wanted |= viewer.session.poll_events(now);
        if let Some(newest) = &self.newest {
            viewer.session.tell(now, newest);
        }
        let (by_address, known) = (&mut self.by_address, &mut viewer.known);
        drain(viewer.session.core(), &mut self.run, net, &mut |peer| by_address.sent_to(known, id, peer));
        if !was_connected && viewer.session.is_connected() {
            let address = viewer.session.peer().map(tracing::field::display);
            let several = self.streams.len() > 1;
            let stream = several.then(|| self.streams[viewer.stream].name.as_str());
            tracing::info!(viewer = public_id(id), stream, address, "viewer connected");
        }
        viewer.deadline = viewer.session.poll_timeout(now);
        if let Some(end) = viewer.session.ended().cloned() {
            self.remove(id, &end, net);
        }
    }

    /// Ends a viewer's session and tells it. False when there is none of that name.
    pub fn close(&mut self, id: &str, net: &mut impl Transmit) -> bool {
        let known = self.viewers.contains_key(id);
        if known {
            self.remove(id, &End::Closed, net);
        }
        known
    }

    /// Ends every session and tells the viewers.
    pub fn close_all(&mut self, net: &mut impl Transmit) {
        for id in self.viewers.keys().cloned().collect::<Vec<_>>() {
            self.remove(&id, &End::Closed, net);
        }
    }

    fn remove(&mut self, id: &str, end: &End, net: &mut impl Transmit) {
        let Some(mut viewer) = self.forget(id) else { return };
        self.leave_share(&mut viewer);
        let goodbye = AssertUnwindSafe(|| {
            viewer.session.close();
            drain(viewer.session.core(), &mut self.run, net, &mut |_| ());
        });
        if catch_unwind(goodbye).is_err() {
            self.run = Run::default();
        }
        let reason = match end {
            End::Closed => "closed",
            End::Failed => "ICE or DTLS failed",
            End::Timeout(reason) => reason,
            // It was said already, and not for each.
            End::GaveWay => return,
        };
        tracing::info!(viewer = public_id(id), reason, "viewer gone");
    }

    fn forget(&mut self, id: &str) -> Option<Viewer> {
        let viewer = self.viewers.remove(id)?;
        self.streams[viewer.stream].viewers -= 1;
        self.streams[viewer.stream].sent_before += viewer.session.bytes();
        self.by_ufrag.remove(&viewer.ufrag);
        self.by_address.forget(id);
        self.note_followers();
        Some(viewer)
    }

    /// What a viewer that goes had of its link is the others'.
    fn leave_share(&mut self, gone: &mut Viewer) {
        let Some(address) = gone.session.peer().map(|peer| peer.ip()) else { return };
        let stays = |viewer: &mut Viewer| viewer.session.peer().is_some_and(|peer| peer.ip() == address);
        let heirs: Vec<_> = self.viewers.values_mut().filter_map(|viewer| stays(viewer).then_some(viewer)).collect();
        let sessions: Vec<_> = heirs.iter().map(|viewer| (viewer.part, viewer.session.seen(false))).collect();
        for (viewer, share) in heirs.iter().zip(inherit(&(gone.part, gone.session.seen(false)), &sessions)) {
            viewer.session.set_share(share);
        }
    }

    /// Of each viewer, with the stream that it watches.
    pub fn stats(&mut self, now: Instant) -> Vec<(usize, ViewerStats)> {
        let seen = |Viewer { session, stream, .. }: &mut Viewer| {
            let watched = self.streams[*stream].name.clone();
            (*stream, ViewerStats { stream: watched, ..session.stats(now) })
        };
        let mut all: Vec<_> = self.viewers.values_mut().map(seen).collect();
        all.sort_by(|(_, a), (_, b)| b.connected_s.total_cmp(&a.connected_s));
        all
    }

    /// Of each stream: bytes that all its viewers were sent so far, with those who have gone.
    pub fn sent(&self) -> Vec<u64> {
        let mut sent: Vec<_> = self.streams.iter().map(|stream| stream.sent_before).collect();
        self.viewers.values().for_each(|viewer| sent[viewer.stream] += viewer.session.bytes());
        sent
    }

    #[cfg(test)]
    fn tables(&self) -> (usize, usize, usize) {
        (self.viewers.len(), self.by_ufrag.len(), self.by_address.len())
    }
}

/// The most that a stream may have, bit/s, for who is sent it as it is at an address.
#[derive(Clone, Copy, Debug)]
struct Bound {
    address: Option<IpAddr>,
    stream: usize,
    most: f64,
}

/// The pilot's link: what all viewers of its address may be sent, or, while nothing shows that it is less, its tether;
/// `tether` also says whether somebody else is sent streams. None where nobody watches whose link is known.
fn pilot_link(
    now: Instant,
    tether: Option<(f64, bool)>,
    pilot: Option<usize>,
    viewers: &[(&String, &mut Viewer)],
    links: &[ViewerLink],
) -> Option<PilotLink> {
    let Some(pilot) = pilot else {
        let tether = tether.filter(|(_, has_takers)| *has_takers);
        return tether.map(|(carried, _)| PilotLink { carried, is_free: false });
    };
    let there: Vec<_> = (0..links.len()).filter(|at| links[*at].address == links[pilot].address).collect();
    let estimated = there.iter().map(|at| links[*at].estimate).sum::<f64>();
    let is_limited = there.iter().any(|at| viewers[*at].1.session.seen(false).is_limited());
    let tether = tether.map(|(tether, _)| tether).filter(|_| !is_limited);
    let is_free = !is_limited && there.iter().all(|at| viewers[*at].1.session.is_way_free(now));
    match tether {
        Some(tether) => Some(PilotLink { carried: tether.max(estimated), is_free: false }),
        None => Some(PilotLink { carried: estimated, is_free }),
    }
}

/// The pilot of the stream among `links`, with no more than what its tether leaves beside what others send there. Other
/// addresses do not pull its picture down, whatever they play, but for that of `--pilot`, who may watch by RTSP or RTP;
/// where nobody watches by WebRTC they are the pilot.
fn bound(
    now: Instant,
    (bounds, named): (&[Bound], Option<IpAddr>),
    stream: usize,
    links: &mut Vec<ViewerLink>,
    pilot: Option<usize>,
) -> Option<usize> {
    let address = pilot.map(|pilot| links[pilot].address);
    let is_pilots = |bound: &Bound| bound.address.is_some() && bound.address == named;
    let counts = |bound: &&Bound| {
        bound.stream == stream && (address.is_none_or(|address| bound.address == address) || is_pilots(bound))
    };
    let most = bounds.iter().filter(counts).map(|bound| bound.most).min_by(f64::total_cmp);
    match (pilot, most) {
        (Some(pilot), Some(most)) => links[pilot].estimate = links[pilot].estimate.min(most),
        (None, Some(most)) => {
            links.push(ViewerLink { address: None, since: now, silent: false, estimate: most, drain: None });
            return Some(links.len() - 1);
        }
        (_, None) => {}
    }
    pilot
}

/// Gives each viewer its part of the link that all of its address share; the queue in it is that of all. What others are
/// sent has its part of the tether: gives those that are less than all.
fn share_links(
    now: Instant,
    tether: Option<(f64, Vec<Taker>)>,
    ceilings: &[Option<Ceiling>],
    viewers: &mut [(&String, &mut Viewer)],
    links: &mut [ViewerLink],
) -> Vec<Bound> {
    let mut bounds = Vec::new();
    let (tether, takers) = tether.unzip();
    let takers = takers.unwrap_or_default();
    // What nothing here encodes has the rate that it has.
    let most = |taker: &Taker| Some(f64::from(ceilings[taker.stream]?.bitrate.bps()) * HEADROOM * taker.factor);
    let at = |address: Option<IpAddr>| {
        let there = takers.iter().filter(move |taker| taker.address.is_none() || taker.address == address);
        there.filter_map(|taker| Some((*taker, most(taker)?))).unzip::<_, _, Vec<_>, Vec<_>>()
    };
    let mut bound = |address: Option<IpAddr>, takers: Vec<Taker>, most: Vec<f64>, shares: Vec<f64>| {
        for ((Taker { stream, factor, .. }, most), share) in takers.into_iter().zip(most).zip(shares) {
            if share < most {
                bounds.push(Bound { address, stream, most: share / factor });
            }
        }
    };
    let addresses: Vec<_> = links.iter().map(|link| link.address).collect();
    let mut order: Vec<_> = (0..links.len()).collect();
    order.sort_by_key(|at| (links[*at].address, links[*at].since));
    for of_address in order.chunk_by(|one, next| addresses[*one] == addresses[*next]) {
        let seen = |(number, at): (usize, &usize)| (viewers[*at].1.part, viewers[*at].1.session.seen(number == 0));
        let mut sessions: Vec<_> = of_address.iter().enumerate().map(seen).collect();
        let address = addresses[of_address[0]];
        let (takers, most) = at(address);
        let (shares, others) = share(now, tether, &mut sessions, &most);
        bound(address, takers, most, others);
        let together = || of_address.iter().zip(&sessions).filter(|(_, (part, _))| part.is_together());
        let drain = together().filter_map(|(at, _)| links[*at].drain).max();
        for (at, _) in together() {
            links[*at].drain = drain;
        }
        for ((at, (part, _)), share) in of_address.iter().zip(sessions).zip(shares) {
            viewers[*at].1.part = part;
            viewers[*at].1.session.set_share(share);
            links[*at].estimate = share;
        }
    }
    // Those of whom nobody watches by WebRTC beside it.
    let mut alone: Vec<_> = takers.iter().map(|taker| taker.address).collect();
    alone.sort_unstable();
    alone.dedup();
    for address in alone.into_iter().filter(|address| !addresses.contains(address)) {
        let (takers, most) = at(address);
        let (_, shares) = share(now, tether, &mut [], &most);
        bound(address, takers, most, shares);
    }
    bounds
}

/// The user name fragment and the password in an answer.
fn credentials(answer: &str) -> [String; 2] {
    ["a=ice-ufrag:", "a=ice-pwd:"].map(|name| offer::value(answer, name).to_owned())
}

/// Of the ICE session with this user name fragment on our side: each restart has another (RFC 9725 section 4.3.1).
pub fn entity_tag(ufrag: &str) -> String {
    format!("\"{ufrag}\"")
}

/// Datagrams to one peer, gathered while they are equally long.
#[derive(Default)]
struct Run {
    bytes: Vec<u8>,
    segment: usize,
    last: usize,
    route: Option<(IpAddr, SocketAddr)>,
}

impl Run {
    fn fits(&self, route: (IpAddr, SocketAddr), len: usize) -> bool {
        self.route == Some(route)
            // A shorter datagram ends a run.
            && self.last == self.segment
            && len <= self.segment
            && self.bytes.len() + len <= MAX_RUN_BYTES
            && self.bytes.len() < MAX_RUN_SEGMENTS * self.segment
    }

    fn flush(&mut self, net: &mut impl Transmit) -> bool {
        let Some((local, peer)) = self.route.take() else { return true };
        let sent = net.transmit(local, peer, &self.bytes, self.segment);
        self.bytes.clear();
        sent
    }
}

/// Sends what the core wants sent. False when the socket was full; the rest is then thrown away, as late packets are
/// worth nothing: the viewer starts again at a keyframe.
fn drain(
    core: &mut RTCPeerConnection,
    run: &mut Run,
    net: &mut impl Transmit,
    seen: &mut impl FnMut(SocketAddr),
) -> bool {
    let mut sent = true;
    while let Some(datagram) = core.poll_write() {
        if !sent {
            // The run that did not go out is cleared already; the rest goes the same way.
            continue;
        }
        let route = (datagram.transport.local_addr.ip(), datagram.transport.peer_addr);
        if !run.fits(route, datagram.message.len()) {
            sent = run.flush(net);
            if !sent {
                continue;
            }
            seen(route.1);
            run.route = Some(route);
            run.segment = datagram.message.len();
        }
        run.last = datagram.message.len();
        run.bytes.extend_from_slice(&datagram.message);
    }
    run.flush(net) && sent
}

#[cfg(test)]
#[path = "engine_tests.rs"]
mod tests;
