//! Which requests are handled, when, and why others are not: the streams' paths alone, logins in their turn, a stream
//! when there is a picture, and one publisher.

use std::net::IpAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use gstreamer::glib;
use gstreamer_rtsp::ffi as gst_rtsp;
use gstreamer_rtsp::{RTSPStatusCode, rtsp_message::RTSPMessage};
use gstreamer_rtsp_server as rtsp;
use gstreamer_rtsp_server::prelude::*;
use rov_common::api::{StreamState, View};
use rov_common::sync::lock;

use super::super::paths::Content;
use super::super::{gate, publish};
use super::{State, described, key, shown};
use crate::users::{Caller, Check, Denied, Login};

/// Who asks for the stream before there is a picture waits so long for it: a server that has just started, or a camera
/// that is started again.
const PICTURE_LIMIT: Duration = Duration::from_secs(3);
/// A login of an address with many failed ones waits so long at most.
const LOGIN_LIMIT: Duration = Duration::from_secs(10);
/// Requests that wait are looked at so often.
const WAIT_INTERVAL: Duration = Duration::from_millis(20);

/// A request that is handled later.
pub(super) struct Waiting {
    client: rtsp::RTSPClient,
    request: RTSPMessage,
    need: Need,
}

/// What a request waits for.
enum Need {
    /// It has a password, and its address has failed to log in too often.
    Login,
    /// Whether its password is right; and the mark of the login.
    Verdict(Arc<OnceLock<bool>>, [u8; 32]),
    /// Of this stream.
    Picture(usize),
}

// SAFETY: the request is a copy of its own, and nothing in it belongs to a thread.
unsafe impl Send for Waiting {}

impl State {
    /// Whether a request is handled now, as far as logins go. If not, it has been answered, or waits.
    pub(super) fn admit(&self, context: &rtsp::RTSPContext) -> bool {
        let Some(client) = context.client() else { return true };
        gate::complete(context, self.rules.paths.to(Content { stream: 0, mjpeg: false }).next().unwrap_or_default());
        let logs_in = gate::header(context.request(), gst_rtsp::GST_RTSP_HDR_AUTHORIZATION).is_some();
        let Some(host) = self.with(client, |known| known.host) else { return true };
        let users = &self.rules.seats.users;
        let is_judged = || self.basic_login(context).is_some_and(|login| users.is_judged(host, &login, Instant::now()));
        if logs_in && !users.may_try(host, Instant::now()) && !is_judged() {
            if !self.wait(context, Need::Login, LOGIN_LIMIT) {
                self.refuse(context, RTSPStatusCode::ServiceUnavailable, "too many failed logins, try again later");
            }
            return false;
        }
        !self.needs_login(context) || self.knows(context, client, host)
    }

    /// Whether what a request is for can be had now: asked of who has logged in, where that is needed, as the others
    /// are told nothing. If not, it has been answered, or waits.
    pub(super) fn serves(&self, context: &rtsp::RTSPContext) -> bool {
        let Some(client) = context.client() else { return true };
        let Some(host) = self.with(client, |known| known.host) else { return true };
        if self.needs_login(context) && gate::is_for_media(context) {
            self.with(client, |known| known.turned_away = None);
        }
        let path = gate::path(context);
        let content = self.rules.paths.find(&path);
        let may_publish = self.why_not_publish(client);
        let (code, reason) = match (gate::method(context), content) {
            (gst_rtsp::GST_RTSP_ANNOUNCE | gst_rtsp::GST_RTSP_RECORD, _) if self.rules.inlet.is_none() => (
                RTSPStatusCode::MethodNotAllowed,
                "this server takes no stream from others; start it with --source publish for that".to_owned(),
            ),
            (gst_rtsp::GST_RTSP_DESCRIBE | gst_rtsp::GST_RTSP_SETUP | gst_rtsp::GST_RTSP_ANNOUNCE, None) => {
                (RTSPStatusCode::NotFound, format!("not served; served are {}", self.rules.paths.told()))
            }
            (gst_rtsp::GST_RTSP_ANNOUNCE | gst_rtsp::GST_RTSP_RECORD, _) if may_publish.is_some() => {
                let denied = may_publish.map(|denied| denied.to_string()).unwrap_or_default();
                let user = self.with(client, |known| known.user.clone()).flatten();
                self.rules.seats.users.refused(&Caller { from: host, user }, &described(context), &denied);
                (RTSPStatusCode::Forbidden, denied)
            }
            (gst_rtsp::GST_RTSP_ANNOUNCE, Some(content)) => match self.why_not_announce(context, client, content) {
                Some(refusal) => refusal,
                None => return true,
            },
            (gst_rtsp::GST_RTSP_DESCRIBE, Some(Content { stream, mjpeg: true }))
                if !self.served[stream].mjpeg.has_room() =>
            {
                (RTSPStatusCode::ServiceUnavailable, "as many as --max-viewers allows are watching MJPEG".to_owned())
            }
            (gst_rtsp::GST_RTSP_DESCRIBE, Some(Content { stream, .. })) => match self.why_no_picture(stream) {
                Some(_) if self.wait(context, Need::Picture(stream), PICTURE_LIMIT) => return false,
                Some(reason) => (RTSPStatusCode::ServiceUnavailable, reason),
                None => return true,
            },
            _ => return true,
        };
        self.refuse(context, code, &reason);
        false
    }

    /// Whether somebody has to have logged in for it.
    fn needs_login(&self, context: &rtsp::RTSPContext) -> bool {
        let users = &self.rules.seats.users;
        match gate::method(context) {
            gst_rtsp::GST_RTSP_ANNOUNCE | gst_rtsp::GST_RTSP_RECORD => !users.is_empty(),
            _ => users.view() == View::RequiresLogin,
        }
    }

    /// Whether who sends it has still to log in.
    pub(super) fn asks(&self, context: &rtsp::RTSPContext) -> bool {
        let user = |login: Login| self.rules.seats.users.recognize(&login, Instant::now());
        self.needs_login(context) && self.basic_login(context).and_then(user).is_none()
    }

    /// A login in clear, where that is taken.
    pub(super) fn basic_login(&self, context: &rtsp::RTSPContext) -> Option<Login> {
        let given = gate::header(context.request(), gst_rtsp::GST_RTSP_HDR_AUTHORIZATION);
        given.filter(|_| self.rules.takes_basic).and_then(|given| Login::parse(&given))
    }

    /// Finds out who logs in in clear, if somebody does; false while the password is hashed, for which the request
    /// waits.
    fn knows(&self, context: &rtsp::RTSPContext, client: &rtsp::RTSPClient, host: IpAddr) -> bool {
        let (Some(login), users) = (self.basic_login(context), &self.rules.seats.users) else { return true };
        let mark = users.mark(&login);
        let user = match users.check(host, &login, Instant::now()) {
            Check::Right(user) => Some(user),
            Check::NeedsHash if self.with(client, |known| known.wrong != Some(mark)) == Some(true) => {
                let verdict = Arc::<OnceLock<bool>>::default();
                let told = Arc::clone(&verdict);
                let hashed = users.hash(login, move |user| _ = told.set(user.is_some()));
                if hashed.is_err() || !self.wait(context, Need::Verdict(verdict, mark), LOGIN_LIMIT) {
                    let reason = "too many passwords are being checked, try again later";
                    self.refuse(context, RTSPStatusCode::ServiceUnavailable, reason);
                }
                return false;
            }
            Check::Wrong => {
                // So that it is known as the one that failed, when that is counted.
                self.with(client, |known| known.wrong = Some(mark));
                None
            }
            Check::TooMany | Check::NeedsHash => None,
        };
        self.with(client, |known| known.user = user);
        true
    }

    /// Why the client may not publish, as far as it has said who it is.
    fn why_not_publish(&self, client: &rtsp::RTSPClient) -> Option<Denied> {
        let users = &self.rules.seats.users;
        let user = self.with(client, |known| known.user.clone()).flatten().or_else(|| users.only().cloned());
        user.and_then(|user| users.may_change(Some(&user)).err())
    }

    /// One publisher at a time; one of whom nothing comes any more gives way.
    fn why_not_announce(
        &self,
        context: &rtsp::RTSPContext,
        client: &rtsp::RTSPClient,
        content: Content,
    ) -> Option<(RTSPStatusCode, String)> {
        let own = self.with(client, |known| known.peer.clone());
        let (published, inlet) = self.rules.inlet.as_ref()?;
        let other = inlet.keeps_its_place(own.as_deref().unwrap_or_default(), Instant::now());
        let published = Content { stream: *published, mjpeg: false };
        if content != published {
            let paths: Vec<_> = self.rules.paths.to(published).collect();
            return Some((RTSPStatusCode::MethodNotAllowed, format!("publish to {}", paths.join(" or "))));
        }
        if let Some(other) = other.filter(|other| Some(other) != own.as_ref()) {
            return Some((
                RTSPStatusCode::Forbidden,
                format!("{other} is publishing already; one publisher at a time"),
            ));
        }
        let problem = publish::problem(context, self.served[content.stream].feeder.stream.codec())?;
        Some((RTSPStatusCode::UnsupportedMediaType, problem))
    }

    /// It was let in. Others that have not begun, or send nothing any more, give way.
    pub(super) fn announces(&self, client: &rtsp::RTSPClient) {
        for (other, known) in lock(&self.known).iter_mut() {
            if *other == key(client) {
                known.announced = true;
            } else if known.announced {
                known.leaving = Some("another publisher has come, and it sends no pictures".to_owned());
            }
        }
        self.close_leaving();
    }

    pub(super) fn records(&self, client: &rtsp::RTSPClient, path: &str) {
        let Some((_, inlet)) = &self.rules.inlet else { return };
        self.with(client, |known| {
            let users = &self.rules.seats.users;
            let caller = Caller { from: known.host, user: known.user.clone().or_else(|| users.only().cloned()) };
            users.changed(&caller, &format!("the published stream {}", shown(path)));
            let (peer, path, transport) = (&known.peer, shown(path), if known.is_by_tcp() { "TCP" } else { "UDP" });
            self.say(known.host, || tracing::info!(peer, path, transport, "an RTSP publisher has begun"));
            known.recording = true;
            known.set_up_since = None;
            inlet.begins(key(client), &known.peer, known.is_by_tcp(), Instant::now());
        });
    }

    /// Why a publisher cannot stay, if so. Else its session lives as long as it sends.
    pub(super) fn look_at_publisher(&self, client: &rtsp::RTSPClient, now: Instant) -> Option<String> {
        let inlet = self.rules.inlet.as_ref().map(|(_, inlet)| inlet).filter(|inlet| inlet.publishes(key(client)))?;
        if let Some(silent) = inlet.gone_for(now) {
            return Some(format!("it has published nothing for {} s", silent.as_secs()));
        }
        client.session_filter(None).iter().for_each(|session| session.touch());
        inlet.take_refusal(key(client))
    }

    fn refuse(&self, context: &rtsp::RTSPContext, code: RTSPStatusCode, reason: &str) {
        let Some(client) = context.client() else { return };
        let path = gate::path(context);
        self.with(client, |known| {
            let (peer, path) = (&known.peer, shown(&path));
            self.say(known.host, || tracing::warn!(peer, path, "an RTSP client was refused: {reason}"));
        });
        gate::refuse(context, code, reason);
    }

    /// A media without pictures would keep the client waiting in vain.
    fn why_no_picture(&self, stream: usize) -> Option<String> {
        let feeder = &self.served[stream].feeder;
        let (state, reason) = feeder.stream.status().health();
        let has_picture = state == StreamState::Running && feeder.can_describe();
        (!has_picture).then(|| reason.unwrap_or_else(|| "there is no picture now".to_owned()))
    }

    /// Keeps the request until it can be handled, or has waited for `limit`; false when that is over, or another of the
    /// connection waits. The thread goes on.
    fn wait(&self, context: &rtsp::RTSPContext, need: Need, limit: Duration) -> bool {
        let (Some(client), Some(request)) = (context.client(), context.request()) else { return false };
        let waits = self.with(client, |known| {
            if known.waiting.is_some() {
                return false;
            }
            let since = *known.waits_since.get_or_insert_with(Instant::now);
            let waits = since.elapsed() < limit;
            known.waiting = waits.then(|| Waiting { client: client.clone(), request: request.clone(), need });
            waits
        });
        if waits == Some(true) && !self.looks.swap(true, Ordering::Relaxed) {
            let state = Weak::clone(&self.me);
            let look =
                glib::timeout_source_new(
                    WAIT_INTERVAL,
                    Some("rtsp-wait"),
                    glib::Priority::DEFAULT,
                    move || match state.upgrade().is_some_and(|state| state.handle_waiting()) {
                        true => glib::ControlFlow::Continue,
                        false => glib::ControlFlow::Break,
                    },
                );
            look.attach(Some(&self.context));
        }
        waits == Some(true)
    }

    /// Handles the requests whose time has come; false when none waits any more.
    fn handle_waiting(&self) -> bool {
        let now = Instant::now();
        let due: Vec<_> = {
            let users = &self.rules.seats.users;
            let mut known = lock(&self.known);
            let due = known.values_mut().filter_map(|known| {
                let waited = now.saturating_duration_since(known.waits_since?);
                let host = known.host;
                let due = known.waiting.take_if(|waiting| match &waiting.need {
                    Need::Login => waited >= LOGIN_LIMIT || users.may_try(host, now),
                    Need::Verdict(verdict, _) => waited >= LOGIN_LIMIT || verdict.get().is_some(),
                    Need::Picture(stream) => waited >= PICTURE_LIMIT || self.why_no_picture(*stream).is_none(),
                })?;
                if let Need::Verdict(verdict, mark) = &due.need
                    && verdict.get() == Some(&false)
                {
                    known.wrong = Some(*mark);
                }
                Some(due)
            });
            due.collect()
        };
        for Waiting { client, request, .. } in due {
            gate::handle(&client, &request);
            self.with(&client, |known| {
                // Unless it has to wait again.
                if known.waiting.is_none() {
                    known.waits_since = None;
                }
            });
        }
        let waits = lock(&self.known).values().any(|known| known.waiting.is_some());
        self.looks.store(waits, Ordering::Relaxed);
        waits
    }
}
