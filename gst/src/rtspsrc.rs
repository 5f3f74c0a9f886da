//! GStreamer's `rtspsrc`, which plays IP cameras: where the camera is, which of its streams are taken, how often and
//! whom it is asked, and how its packets come.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use gio::prelude::*;
use gstreamer as gst;
use gstreamer::glib;
use gstreamer::glib::translate::{ToGlibPtr, from_glib_none};
use gstreamer::prelude::*;
use gstreamer_rtsp::ffi as gst_rtsp;
use gstreamer_rtsp::rtsp_message::RTSPMessage;
use gstreamer_sdp::{SDPMediaRef, SDPMessageRef};
use rov_common::attempts::{Attempts, Request, Verdict};
use rov_common::backlog::Backlog;
use rov_common::camera::{CameraUrl, Credentials, Trust};
use rov_common::challenge;
use rov_common::numbering::Numbering;
use rov_common::sync::lock;
use rov_common::unread::Unread;

use crate::element::is_made_by;
use crate::rtp;

/// Of connecting to a camera, and of each read and write, in seconds.
const TLS_TIMEOUT: u32 = 1;

/// Times the latency that packets out of order are taken in.
const MISORDER: u32 = 30;

/// Tells the source where the camera is, and user and password.
pub fn set_address(source: &gst::Element, url: &CameraUrl) {
    source.set_property("location", url.location().as_str());
    // Of their own, as errors and logs of GStreamer name the location.
    if let Some(Credentials { user, password }) = url.credentials() {
        source.set_property("user-id", user);
        source.set_property("user-pw", password);
    }
}

/// Has the camera send by TCP alone, where nothing is lost on the way.
pub fn take_tcp(source: &gst::Element) {
    source.set_property_from_str("protocols", "tcp");
}

/// Has `GstForceKeyUnit` ask the camera for a keyframe by RTCP (PLI, RFC 4585 section 6.3.1), whether its SDP offers
/// that or not: many cameras answer it all the same, and others ignore what they do not know (RFC 3550 section 6.1).
pub fn ask_for_keyframes(source: &gst::Element) {
    source.connect("on-sdp", false, |values| {
        // SAFETY: the value holds a message, which may be modified during the call, as the signal's documentation says.
        let message = unsafe {
            glib::gobject_ffi::g_value_get_boxed(values.get(1)?.to_glib_none().0).cast::<SDPMessageRef>().as_mut()?
        };
        message.medias_mut().filter(|media| media.media() == Some("video")).for_each(offer_pli);
        None
    });
}

fn offer_pli(media: &mut SDPMediaRef) {
    // Not for all formats at once (`*`), which not every GStreamer knows.
    let formats: Vec<_> = media.formats().map(str::to_owned).collect();
    for format in formats {
        media.add_attribute("rtcp-fb", Some(&format!("{format} nack pli")));
    }
}

/// Has the source take the streams that `wanted` says: it gets the number, media and encoding name of each, as `video`
/// and `H264`. After UDP in vain it is asked again about the same, for TCP.
pub fn on_stream(
    source: &gst::Element,
    wanted: impl Fn(u32, Option<&str>, Option<&str>) -> bool + Send + Sync + 'static,
) {
    source.connect("select-stream", false, move |values| {
        let number = values.get(1)?.get::<u32>().ok()?;
        let caps = values.get(2)?.get::<gst::Caps>().ok();
        let structure = caps.as_ref().and_then(|caps| caps.structure(0));
        let text = |field| structure.and_then(|structure| structure.get::<&str>(field).ok());
        Some(wanted(number, text("media"), text("encoding-name")).to_value())
    });
}

/// Fails where a camera goes on refusing the password, or redirects again and again.
pub fn limit_attempts(source: &gst::Element) {
    let attempts = Mutex::new(Attempts::default());
    source.connect("before-send", false, move |values| {
        let message = values.get(1).and_then(|message| message.get::<RTSPMessage>().ok());
        let verdict = message.and_then(|message| request(&message)).map(|request| lock(&attempts).judge(request));
        let source = values[0].get::<gst::Element>().ok();
        match (verdict, source) {
            (Some(Verdict::Denied), Some(source)) => {
                gst::element_error!(source, gst::ResourceError::NotAuthorized, ("Unauthorized"));
            }
            (Some(Verdict::Astray), Some(source)) => {
                gst::element_error!(source, gst::ResourceError::Read, ("the camera redirects again and again"));
            }
            _ => {}
        }
        Some(matches!(verdict, Some(Verdict::Send) | None).to_value())
    });
}

/// How a camera refuses who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// By 401.
    Login,
    /// By 403, where it was given a login: as some do with a wrong password, and others while they are busy, or with
    /// whom they have locked out.
    Forbidden,
}

/// Whether it did.
pub fn refusal(error: &gst::message::Error, camera: &CameraUrl) -> Option<Refusal> {
    if error.error().matches(gst::ResourceError::NotAuthorized) {
        return Some(Refusal::Login);
    }
    let status = || error.details().and_then(|details| details.get::<u32>("rtsp-status-code").ok());
    (camera.credentials().is_some() && status() == Some(403)).then_some(Refusal::Forbidden)
}

/// None for what is no request.
fn request(message: &RTSPMessage) -> Option<Request> {
    let (mut method, mut address, mut version, mut transport) = (0, std::ptr::null(), 0, std::ptr::null_mut());
    // SAFETY: the message outlives the calls and keeps the texts, which are copied here.
    unsafe {
        let message = message.to_glib_none().0;
        let parsed =
            gst_rtsp::gst_rtsp_message_parse_request(message, &raw mut method, &raw mut address, &raw mut version);
        if parsed != gst_rtsp::GST_RTSP_OK {
            return None;
        }
        let name = gst_rtsp::gst_rtsp_method_as_text(method);
        gst_rtsp::gst_rtsp_message_get_header(message, gst_rtsp::GST_RTSP_HDR_TRANSPORT, &raw mut transport, 0);
        Some(Request {
            method: from_glib_none::<_, Option<String>>(name)?,
            address: from_glib_none::<_, Option<String>>(address)?,
            transport: from_glib_none(transport.cast_const()),
        })
    }
}

/// Has the source ask `trust` about a certificate that the system does not trust; `refused` gets the fingerprint of one
/// that is not taken.
pub fn on_certificate(source: &gst::Element, trust: Trust, refused: impl Fn(String) + Send + Sync + 'static) {
    source.connect("accept-certificate", false, move |values| {
        let certificate = values.get(2).and_then(|value| value.get::<gio::TlsCertificate>().ok());
        let fingerprint = certificate.map(|certificate| fingerprint(&certificate)).unwrap_or_default();
        let accepted = trust.accepts(&fingerprint);
        if !accepted {
            refused(fingerprint);
        }
        Some(accepted.to_value())
    });
}

/// Of SHA-256, in hexadecimal digits.
fn fingerprint(certificate: &gio::TlsCertificate) -> String {
    let der = certificate.certificate();
    let sum = der.and_then(|der| glib::compute_checksum_for_data(glib::ChecksumType::Sha256, &der));
    sum.map_or_else(String::new, |sum| sum.to_string())
}

/// As [`challenge::unknown_digest`], by TLS too.
pub fn unknown_digest(camera: &CameraUrl, trust: &Trust) -> Option<String> {
    if !camera.is_tls() {
        return challenge::unknown_digest(camera);
    }
    let (client, trust) = (gio::SocketClient::new(), trust.clone());
    client.set_tls(true);
    client.set_timeout(TLS_TIMEOUT);
    client.connect_event(move |_, event, _, connection| {
        let connection = connection.and_then(|connection| connection.downcast_ref::<gio::TlsConnection>());
        if let Some(connection) = connection.filter(|_| event == gio::SocketClientEvent::TlsHandshaking) {
            let trust = trust.clone();
            connection.connect_accept_certificate(move |_, certificate, _| trust.accepts(&fingerprint(certificate)));
        }
    });
    let host = camera.url().host_str()?;
    let connection = client.connect_to_host(host, camera.port(), gio::Cancellable::NONE).ok()?;
    let (from, to) = (connection.input_stream().into_read(), connection.output_stream().into_write());
    challenge::unknown_digest_by(camera, from, to)
}

/// Calls `on_late` once, where packets that come by TCP come later and later, with how late they are. To be called for
/// each pad that is added: after UDP in vain it comes again over TCP. Notes whether the link runs empty.
pub fn watch_lateness(
    source: &gst::Element,
    pad: &gst::Pad,
    camera: &CameraUrl,
    link_runs_empty: Arc<AtomicBool>,
    on_late: impl Fn(Duration) + Send + Sync + 'static,
) {
    // What a link does not take of UDP is lost, nothing of it waits.
    if has_udp(source) {
        return;
    }
    let input = input(source);
    let peers = camera.url().socket_addrs(|| Some(camera.port())).unwrap_or_default();
    let state = Mutex::new((Backlog::default(), Unread::new(peers)));
    let mask = gst::PadProbeType::BUFFER | gst::PadProbeType::BUFFER_LIST;
    input.as_ref().unwrap_or(pad).add_probe(mask, move |_, info| {
        let Some(header) = rtp::first_header(info) else { return gst::PadProbeReturn::Ok };
        let (backlog, unread) = &mut *lock(&state);
        let late = backlog.arrived(header.timestamp, header.marker, Instant::now(), || unread.waits());
        link_runs_empty.store(backlog.runs_empty(), Ordering::Relaxed);
        let Some(late) = late else { return gst::PadProbeReturn::Ok };
        on_late(late);
        gst::PadProbeReturn::Remove
    });
}

/// Closes gaps between the numbers of pictures that come by TCP, before the jitter buffer waits for what is missing.
pub fn number_packets(source: &gst::Element) {
    on_input(source, "recv_rtp_sink", |source, pad| {
        let (source, numbering) = (source.downgrade(), Mutex::new(None));
        pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
            let Some(packet) = info.buffer_mut() else { return gst::PadProbeReturn::Ok };
            let Some(header) = rtp::header(packet) else { return gst::PadProbeReturn::Ok };
            let mut numbering = lock(&numbering);
            // Its sockets are there before the first packet, and stay.
            if numbering.is_none() && source.upgrade().is_none_or(|source| has_udp(&source)) {
                return gst::PadProbeReturn::Remove;
            }
            let number = numbering.get_or_insert_with(Numbering::default).number(header);
            rtp::set_number(packet, header, number);
            gst::PadProbeReturn::Ok
        });
    });
}

/// Takes packets that come up to `latency` late for what they are. The source counts them by the rate of packets, of
/// which it knows little at the start: where they overtake each other it takes 40 a second for two, and what is more
/// than ten numbers behind then is dropped, as if the camera counted anew.
pub fn bear_disorder(source: &gst::Element, latency: Duration) {
    let time = u32::try_from(latency.as_millis()).unwrap_or(u32::MAX).saturating_mul(MISORDER);
    source.connect("new-manager", false, move |values| {
        let manager = values.get(1)?.get::<gst::Element>().ok()?;
        if manager.has_property("max-misorder-time") {
            manager.set_property("max-misorder-time", time);
        }
        None
    });
}

/// Calls `on_packet` with each compound RTCP packet that the source gets, by UDP and by TCP. Where its packets come in,
/// as `add-reference-timestamp-meta` is there from GStreamer 1.22 on alone.
pub fn on_control(source: &gst::Element, on_packet: impl Fn(&[u8]) + Send + Sync + 'static) {
    let on_packet = Arc::new(on_packet);
    on_input(source, "recv_rtcp_sink", move |_, pad| {
        let on_packet = Arc::clone(&on_packet);
        pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
            if let Some(map) = info.buffer().and_then(|buffer| buffer.map_readable().ok()) {
                on_packet(&map);
            }
            gst::PadProbeReturn::Ok
        });
    });
}

/// Calls `on_pad` with each pad of this name by which packets come in, also where UDP was in vain.
fn on_input(
    source: &gst::Element,
    name: &'static str,
    on_pad: impl Fn(&gst::Element, &gst::Pad) + Send + Sync + 'static,
) {
    let on_pad = Arc::new(on_pad);
    source.connect("new-manager", false, move |values| {
        let (source, manager) = (values[0].get::<gst::Element>().ok()?, values.get(1)?.get::<gst::Element>().ok()?);
        let (source, on_pad) = (source.downgrade(), Arc::clone(&on_pad));
        manager.connect_pad_added(move |_, pad| {
            if let Some(source) = source.upgrade().filter(|_| pad.name().starts_with(name)) {
                on_pad(&source, pad);
            }
        });
        None
    });
}

/// Whether media comes by UDP now.
pub fn has_udp(source: &gst::Element) -> bool {
    let is_udp = |element: gst::Element| is_made_by(&element, "udpsrc");
    source.downcast_ref::<gst::Bin>().is_some_and(|bin| bin.iterate_recurse().into_iter().flatten().any(is_udp))
}

/// Where packets by TCP come in, on the thread that reads them from the socket: behind the jitter buffer, the next ones
/// may be read already.
fn input(source: &gst::Element) -> Option<gst::Pad> {
    let is_manager = |element: &gst::Element| is_made_by(element, "rtpbin");
    let manager = source.downcast_ref::<gst::Bin>()?.iterate_elements().into_iter().flatten().find(is_manager)?;
    manager.sink_pads().into_iter().find(|pad| pad.name().starts_with("recv_rtp_sink"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_much_is_waited_for_a_packet_that_is_far_behind_is_no_restart() {
        gst::init().expect("GStreamer");
        let make = |name| gst::ElementFactory::make(name).build().expect("an element of the good plugins");
        let misorder = |latency: u64| {
            let (source, manager) = (make("rtspsrc"), make("rtpbin"));
            bear_disorder(&source, Duration::from_millis(latency));
            source.emit_by_name::<()>("new-manager", &[&manager]);
            manager.property::<u32>("max-misorder-time")
        };
        assert_eq!([500, 2_000].map(misorder), [15_000, 60_000]);
    }
}
