//! Which requests are handled, when, and why others are not: the stream's paths alone, logins in their turn, a stream when there
//! is a picture, and one publisher.

use std::sync::Weak;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use gstreamer::glib;
use gstreamer_rtsp::ffi as gst_rtsp;
use gstreamer_rtsp::{RTSPStatusCode, rtsp_message::RTSPMessage};
use gstreamer_rtsp_server as rtsp;
use gstreamer_rtsp_server::prelude::*;
use rov_common::api::StreamState;
use rov_common::sync::lock;

use super::super::{gate, publish};
use super::{State, key, shown};
use crate::config::is_mjpeg;

/// Who asks for the stream before there is a picture waits so long for it: a server that has just started, or a camera that is
/// started again.
const PICTURE_LIMIT: Duration = Duration::from_secs(3);
/// A login of an address with many failed ones waits so long at most.
const LOGIN_LIMIT: Duration = Duration::from_secs(10);
/// Requests that wait are looked at so often.
const WAIT_INTERVAL: Duration = Duration::from_millis(20);

/// A request that is handled later.
pub(super) struct Waiting {
    client: rtsp::RTSPClient,
    request: RTSPMessage,
    /// It has a password, and its address has failed to log in too often; otherwise it waits for a picture.
    logs_in: bool,
}

// SAFETY: the request is a copy of its own, and nothing in it belongs to a thread.
unsafe impl Send for Waiting {}

impl State {
    /// Whether a request is handled now. If not, it has been answered, or waits.
    pub(super) fn admit(&self, context: &rtsp::RTSPContext) -> bool {
        let Some(client) = context.client() else { return true };
        gate::complete(context, &self.rules.paths[0]);
        let logs_in = gate::header(context.request(), gst_rtsp::GST_RTSP_HDR_AUTHORIZATION).is_some();
        let Some(host) = self.with(client, |known| known.host) else { return true };
        if logs_in && !lock(&self.guesses).may_try(host, Instant::now()) {
            if !self.wait(context, true, LOGIN_LIMIT) {
                self.refuse(context, RTSPStatusCode::ServiceUnavailable, "too many failed logins, try again later");
            }
            return false;
        }
        let path = gate::path(context);
        let (code, reason) = match gate::method(context) {
            gst_rtsp::GST_RTSP_ANNOUNCE | gst_rtsp::GST_RTSP_RECORD if self.rules.inlet.is_none() => (
                RTSPStatusCode::MethodNotAllowed,
                "this server takes no stream from others; start it with --source publish for that".to_owned(),
            ),
            gst_rtsp::GST_RTSP_DESCRIBE | gst_rtsp::GST_RTSP_SETUP | gst_rtsp::GST_RTSP_ANNOUNCE
                if !self.is_served(&path) =>
            {
                (RTSPStatusCode::NotFound, format!("not served; served are {}", self.rules.paths.join(", ")))
            }
            gst_rtsp::GST_RTSP_ANNOUNCE => match self.why_not_announce(context, client, &path) {
                Some(refusal) => refusal,
                None => return true,
            },
            gst_rtsp::GST_RTSP_DESCRIBE if is_mjpeg(&path) && !self.mjpeg.has_room() => {
                (RTSPStatusCode::ServiceUnavailable, "as many as --max-viewers allows are watching MJPEG".to_owned())
            }
            gst_rtsp::GST_RTSP_DESCRIBE => match self.why_no_picture() {
                Some(_) if self.wait(context, false, PICTURE_LIMIT) => return false,
                Some(reason) => (RTSPStatusCode::ServiceUnavailable, reason),
                None => return true,
            },
            _ => return true,
        };
        self.refuse(context, code, &reason);
        false
    }

    /// One publisher at a time; one of whom nothing comes any more gives way.
    fn why_not_announce(
        &self,
        context: &rtsp::RTSPContext,
        client: &rtsp::RTSPClient,
        path: &str,
    ) -> Option<(RTSPStatusCode, String)> {
        let own = self.with(client, |known| known.peer.clone());
        let inlet = self.rules.inlet.as_ref()?;
        let other = inlet.keeps_its_place(own.as_deref().unwrap_or_default(), Instant::now());
        if is_mjpeg(path) {
            return Some((RTSPStatusCode::MethodNotAllowed, format!("publish to {}", self.rules.paths.join(" or "))));
        }
        if let Some(other) = other.filter(|other| Some(other) != own.as_ref()) {
            return Some((
                RTSPStatusCode::Forbidden,
                format!("{other} is publishing already; one publisher at a time"),
            ));
        }
        let problem = publish::problem(context, self.feeder.stream.codec())?;
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
        let Some(inlet) = &self.rules.inlet else { return };
        self.with(client, |known| {
            let (peer, path, transport) = (&known.peer, shown(path), if known.by_tcp { "TCP" } else { "UDP" });
            self.say(known.host, || tracing::info!(peer, path, transport, "an RTSP publisher has begun"));
            known.recording = true;
            known.set_up_since = None;
            inlet.begins(key(client), &known.peer, known.by_tcp, Instant::now());
        });
    }

    /// Why a publisher cannot stay, if so. Else its session lives as long as it sends.
    pub(super) fn look_at_publisher(&self, client: &rtsp::RTSPClient, now: Instant) -> Option<String> {
        let inlet = self.rules.inlet.as_ref().filter(|inlet| inlet.publishes(key(client)))?;
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

    /// Whether the path, or what it begins with, leads to a media.
    fn is_served(&self, path: &str) -> bool {
        let leads =
            |to: &String| path.strip_prefix(to.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        is_mjpeg(path) || self.rules.paths.iter().any(leads)
    }

    /// A media without pictures would keep the client waiting in vain.
    fn why_no_picture(&self) -> Option<String> {
        let (state, reason) = self.feeder.stream.status().health();
        let has_picture = state == StreamState::Running && self.feeder.can_describe();
        (!has_picture).then(|| reason.unwrap_or_else(|| "there is no picture now".to_owned()))
    }

    /// Keeps the request until it can be handled, or has waited for `limit`; false when that is over, or another of the connection
    /// waits. The thread goes on.
    fn wait(&self, context: &rtsp::RTSPContext, logs_in: bool, limit: Duration) -> bool {
        let (Some(client), Some(request)) = (context.client(), context.request()) else { return false };
        let waits = self.with(client, |known| {
            if known.waiting.is_some() {
                return false;
            }
            let since = *known.waits_since.get_or_insert_with(Instant::now);
            let waits = since.elapsed() < limit;
            known.waiting = waits.then(|| Waiting { client: client.clone(), request: request.clone(), logs_in });
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
        let (now, ready) = (Instant::now(), self.why_no_picture().is_none());
        let due: Vec<_> = {
            let guesses = lock(&self.guesses);
            let mut known = lock(&self.known);
            let due = known.values_mut().filter_map(|known| {
                let waited = now.saturating_duration_since(known.waits_since?);
                let host = known.host;
                known.waiting.take_if(|waiting| match waiting.logs_in {
                    true => waited >= LOGIN_LIMIT || guesses.may_try(host, now),
                    false => waited >= PICTURE_LIMIT || ready,
                })
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
