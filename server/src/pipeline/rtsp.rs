//! IP cameras by RTSP: what the pipeline's text does not hold. Where the camera is, and the password, which must not be
//! logged; which of the camera's streams are taken; when its pictures are too old; what its errors mean.

use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use gstreamer as gst;
use gstreamer::prelude::*;
use rov_common::challenge::unknown_digest_advice;
use rov_common::lateness::{Lateness, Received};
use rov_common::sync::lock;
use rov_gst::rtspsrc::{self, Refusal};
use rov_gst::{clock, message, rtp};

use super::capture::{Capture, GraphEvent};
use super::plan::Plan;
use super::source::RTSP;
use crate::config::{CameraUrl, Trust};

/// A camera on a LAN answers in milliseconds.
const LOOK_LIMIT: Duration = Duration::from_secs(1);

/// Whether the camera is there: its port takes a connection. So cheap that it can be asked all the time, where
/// `rtspsrc` would wait for five seconds each time, and miss a camera that comes meanwhile. The error says what to
/// check.
pub fn look(url: &CameraUrl) -> Result<(), String> {
    let failed = |to: &dyn std::fmt::Display, error: &std::io::Error| {
        format!("camera {url}: cannot connect to {to} ({error}); is it switched on, and is the cable plugged in?")
    };
    let addresses = url.url().socket_addrs(|| Some(url.port())).map_err(|error| failed(&url.address(), &error))?;
    let connect = |address: &SocketAddr| {
        TcpStream::connect_timeout(address, LOOK_LIMIT).map(drop).map_err(|error| failed(address, &error))
    };
    // A name may have several addresses: one that answers is enough.
    let mut result = Err(format!("camera {url}: its name has no address"));
    for address in &addresses {
        result = connect(address);
        if result.is_ok() {
            break;
        }
    }
    result
}

/// Tells the source where the camera is, and that the first video of the plan's codec is wanted and nothing else: no
/// sound, no metadata.
pub fn install(head: &gst::Bin, url: &CameraUrl, plan: &Plan, capture: &Arc<Capture>) {
    let codec = plan.codec;
    let Some(source) = head.by_name(RTSP) else { return };
    rtspsrc::set_address(&source, url);
    rtspsrc::limit_attempts(&source);
    rtspsrc::ask_for_keyframes(&source);
    if lock(&plan.links.path).is_tcp() {
        rtspsrc::take_tcp(&source);
    }
    let weak = Arc::downgrade(capture);
    rtspsrc::on_certificate(&source, plan.camera_certificate.clone(), move |fingerprint| {
        if let Some(capture) = weak.upgrade() {
            *lock(&capture.untrusted) = Some(fingerprint);
        }
    });
    let camera = url.clone();
    source.connect_pad_added(move |source, pad| {
        let link_runs_empty = Arc::new(AtomicBool::new(false));
        time_by_arrival(source, pad, Arc::clone(&link_runs_empty));
        let weak = source.downgrade();
        rtspsrc::watch_lateness(source, pad, &camera, link_runs_empty, move |late| {
            if let Some(source) = weak.upgrade() {
                end_late(&source, late);
            }
        });
    });
    let (chosen, capture) = (Mutex::new(None::<u32>), Arc::downgrade(capture));
    rtspsrc::on_stream(&source, move |number, media, encoding| {
        let (media, encoding) = (media.unwrap_or_default(), encoding.unwrap_or_default());
        let mut chosen = lock(&chosen);
        // After UDP in vain it is asked again about the same, for TCP.
        let had_one = chosen.is_some() && *chosen != Some(number);
        let wanted = media == "video" && encoding == codec.rtp_name() && !had_one;
        if wanted {
            *chosen = Some(number);
        }
        if let Some(capture) = capture.upgrade() {
            let mut left_out = lock(&capture.left_out);
            match wanted {
                true => left_out.clear(),
                false if had_one => {}
                false => left_out.push(format!("{encoding} {media}").trim().to_owned()),
            }
        }
        wanted
    });
}

/// The restart drops what waits in front of the link.
fn end_late(source: &gst::Element, late: Duration) {
    let reason = format!(
        "the camera's link is slower than its stream, its pictures came {} s late; give the camera a lower bit rate, \
         or a better link",
        late.as_secs()
    );
    gst::element_error!(source, gst::ResourceError::Read, ("{}", reason));
}

/// Has a picture's time be that of its arrival, less what it came late. The camera's own time stamps may be slow or
/// jump: viewers would take what comes then for old.
fn time_by_arrival(source: &gst::Element, pad: &gst::Pad, link_runs_empty: Arc<AtomicBool>) {
    let source = source.downgrade();
    let state = Mutex::new((Lateness::default(), None::<(u32, gst::ClockTime)>));
    pad.add_probe(gst::PadProbeType::BUFFER, move |pad, info| {
        let now = source.upgrade().and_then(|source| clock::running_time(&source));
        let Some(buffer) = info.buffer_mut() else { return gst::PadProbeReturn::Ok };
        let Some((header, now)) = rtp::header(buffer).zip(now) else { return gst::PadProbeReturn::Ok };
        let mut state = lock(&state);
        let (lateness, last) = &mut *state;
        let received = Received { at: Instant::now(), link_runs_empty: link_runs_empty.load(Ordering::Relaxed) };
        let late = lateness.arrived(header.ssrc, header.sequence, header.timestamp, received);
        let late = gst::ClockTime::from_nseconds(u64::try_from(late.as_nanos()).unwrap_or(u64::MAX - 1));
        // All packets of a picture have one time.
        let of_picture = last.filter(|(timestamp, _)| *timestamp == header.timestamp).map(|(_, time)| time);
        let time = of_picture.unwrap_or_else(|| now.saturating_sub(late));
        *last = Some((header.timestamp, time));
        let segment = pad.sticky_event::<gst::event::Segment>(0);
        let segment = segment.as_ref().and_then(|event| event.segment().downcast_ref::<gst::ClockTime>());
        if let Some(time) = segment.and_then(|segment| segment.position_from_running_time(time)) {
            let buffer = buffer.make_mut();
            buffer.set_pts(time);
            buffer.set_dts(time);
        }
        gst::PadProbeReturn::Ok
    });
}

/// An error on the bus: what it means and what to do about it, where it is of an IP camera.
pub fn failure(error: &gst::message::Error, plan: &Plan, capture: &Capture) -> GraphEvent {
    let text = message::error_text(error);
    let failed = |reason: String| GraphEvent::Error(capture.failure(error.src(), reason));
    let Some(camera) = plan.camera.as_ref().filter(|_| error.src().is_some_and(|source| source.name() == RTSP)) else {
        return failed(text);
    };
    if let Some(fingerprint) = &*lock(&capture.untrusted) {
        return failed(format!("camera {camera}: {}", Trust::advice(fingerprint)));
    }
    if let Some(refusal) = rtspsrc::refusal(error, camera) {
        if camera.credentials().is_none() {
            let advice = "give user and password by --url rtsp://USER:PASSWORD@HOST/PATH";
            return failed(format!("{text}; {advice}"));
        }
        if let Some(algorithm) = rtspsrc::unknown_digest(camera, &plan.camera_certificate) {
            let reason = format!("camera {camera}: {}", unknown_digest_advice(&algorithm));
            return GraphEvent::Denied { reason, if_right: None };
        }
        let reason = format!("{text}; correct --url rtsp://USER:PASSWORD@HOST/PATH, where %25 is a %");
        let if_right = format!("{text}; it took the password before: it may have as many viewers as it takes");
        return GraphEvent::Denied { reason, if_right: Some(if_right).filter(|_| refusal == Refusal::Forbidden) };
    }
    if error.error().matches(gst::ResourceError::NotFound) {
        return failed(format!("{text}; look up the path of its stream, and give it by --url"));
    }
    if camera.is_tls() && text.contains("TLS support is not available") {
        return failed(format!("{text}; install glib-networking"));
    }
    let left_out = lock(&capture.left_out);
    let offers =
        if left_out.is_empty() { String::new() } else { format!("; the camera offers {}", left_out.join(", ")) };
    failed(format!("{text}{offers}"))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_camera_is_there_when_its_port_takes_a_connection_and_no_password_is_said_when_not() {
        let camera = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = camera.local_addr().unwrap().port();
        let url = CameraUrl::parse(&format!("rtsp://pilot:deep@127.0.0.1:{port}/cam")).unwrap();
        assert_eq!(look(&url), Ok(()));
        drop(camera);
        let reason = look(&url).unwrap_err();
        assert!(reason.contains(&format!("cannot connect to 127.0.0.1:{port}")), "{reason}");
        assert!(!reason.contains("deep") && !reason.contains("pilot"), "{reason}");
    }
}
