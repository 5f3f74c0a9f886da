//! IP cameras by RTSP: what the pipeline's text does not hold. Where the camera is, and the password, which must not be logged;
//! which of the camera's streams are taken; when its pictures are too old; what its errors mean.

use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use gstreamer as gst;
use gstreamer::prelude::*;
use rov_common::backlog::Backlog;
use rov_common::codec::Codec;
use rov_common::lateness::Lateness;
use rov_common::sync::lock;

use super::graph::Shared;
use super::wiring;
use crate::config::CameraUrl;

/// Name of the `rtspsrc`.
pub const ELEMENT: &str = "rov_rtsp";

/// RFC 7826 section 4.2.
const DEFAULT_PORT: u16 = 554;
/// A camera on a LAN answers in milliseconds.
const LOOK_LIMIT: Duration = Duration::from_secs(1);

/// Whether the camera is there: its port takes a connection. So cheap that it can be asked all the time, where `rtspsrc`
/// would wait for five seconds each time, and miss a camera that comes meanwhile. The error says what to check.
pub fn look(url: &CameraUrl) -> Result<(), String> {
    let failed = |to: &dyn std::fmt::Display, error: &std::io::Error| {
        format!("camera {url}: cannot connect to {to} ({error}); is it switched on, and is the cable plugged in?")
    };
    let addresses = url
        .0
        .socket_addrs(|| Some(DEFAULT_PORT))
        .map_err(|error| failed(&url.0.host_str().unwrap_or_default(), &error))?;
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

/// Tells the source where the camera is, and that the first video of `codec` is wanted and nothing else: no sound, no metadata.
pub fn install(head: &gst::Bin, url: &CameraUrl, codec: Codec, shared: &Arc<Shared>) {
    let Some(source) = head.by_name(ELEMENT) else { return };
    let mut location = url.0.clone();
    // They fail only where there is no host, and then there is neither user nor password.
    let _ = location.set_username("");
    let _ = location.set_password(None);
    source.set_property("location", location.as_str());
    // Of their own, as errors and logs of GStreamer name the location.
    let plain = |text: &str| gst::glib::uri_unescape_string(text, None::<&str>).map(|text| text.to_string());
    if !url.0.username().is_empty() {
        source.set_property("user-id", plain(url.0.username()));
        source.set_property("user-pw", plain(url.0.password().unwrap_or_default()));
    }
    source.connect_pad_added(|source, pad| {
        time_by_arrival(source, pad);
        // What a link does not take of UDP is lost, nothing of it waits. After UDP in vain, the pad comes again over TCP.
        if !has_udp(source) {
            end_when_late(source, pad);
        }
    });
    let (chosen, shared) = (Mutex::new(None::<u32>), Arc::downgrade(shared));
    source.connect("select-stream", false, move |values| {
        let number = values.get(1).and_then(|number| number.get::<u32>().ok());
        let caps = values.get(2).and_then(|caps| caps.get::<gst::Caps>().ok());
        let (media, encoding) = caps.as_ref().and_then(stream).unwrap_or_default();
        let mut chosen = lock(&chosen);
        // After UDP in vain it is asked again about the same, for TCP.
        let had_one = chosen.is_some() && *chosen != number;
        let wanted = media == "video" && encoding == codec.rtp_name() && !had_one;
        if wanted {
            *chosen = number;
        }
        if let Some(shared) = shared.upgrade() {
            let mut left_out = lock(&shared.left_out);
            match wanted {
                true => left_out.clear(),
                false if had_one => {}
                false => left_out.push(format!("{encoding} {media}").trim().to_owned()),
            }
        }
        Some(wanted.to_value())
    });
}

/// Whether media comes by UDP now.
fn has_udp(source: &gst::Element) -> bool {
    let is_udp = |element: gst::Element| element.factory().is_some_and(|factory| factory.name() == "udpsrc");
    source.downcast_ref::<gst::Bin>().is_some_and(|bin| bin.iterate_recurse().into_iter().flatten().any(is_udp))
}

/// The fixed part of an RTP packet's header (RFC 3550 section 5.1).
struct Header {
    sequence: u16,
    timestamp: u32,
    ssrc: u32,
}

impl Header {
    fn of(packet: &gst::BufferRef) -> Option<Self> {
        let mut bytes = [0; 12];
        packet.copy_to_slice(0, &mut bytes).ok()?;
        let word = |at: usize| u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        Some(Self { sequence: word(0) as u16, timestamp: word(4), ssrc: word(8) })
    }
}

/// Fails where the RTP packets come later and later: the restart drops what waits in front of the link.
fn end_when_late(source: &gst::Element, pad: &gst::Pad) {
    let (source, backlog) = (source.downgrade(), Mutex::new(Backlog::default()));
    pad.add_probe(gst::PadProbeType::BUFFER | gst::PadProbeType::BUFFER_LIST, move |_, info| {
        let packet = info.buffer().map(|buffer| buffer.as_ref()).or_else(|| info.buffer_list()?.get(0));
        let Some(header) = packet.and_then(Header::of) else { return gst::PadProbeReturn::Ok };
        let Some(late) = lock(&backlog).arrived(header.timestamp, Instant::now()) else {
            return gst::PadProbeReturn::Ok;
        };
        if let Some(source) = source.upgrade() {
            let reason = format!(
                "the camera's link is slower than its stream, its pictures came {} s late; give the camera a lower bit \
                 rate, or a better link",
                late.as_secs()
            );
            gst::element_error!(source, gst::ResourceError::Read, ("{}", reason));
        }
        gst::PadProbeReturn::Remove
    });
}

/// Has a picture's time be that of its arrival, less what it came late. The camera's own time stamps may be slow or jump: viewers
/// would take what comes then for old.
fn time_by_arrival(source: &gst::Element, pad: &gst::Pad) {
    let source = source.downgrade();
    let state = Mutex::new((Lateness::default(), None::<(u32, gst::ClockTime)>));
    pad.add_probe(gst::PadProbeType::BUFFER, move |pad, info| {
        let now = source.upgrade().and_then(|source| wiring::running_time(&source));
        let Some(buffer) = info.buffer_mut() else { return gst::PadProbeReturn::Ok };
        let Some((header, now)) = Header::of(buffer).zip(now) else { return gst::PadProbeReturn::Ok };
        let mut state = lock(&state);
        let (lateness, last) = &mut *state;
        let late = lateness.arrived(header.ssrc, header.sequence, header.timestamp, Instant::now());
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

/// Media and encoding name of a stream, as `video` and `H264`.
fn stream(caps: &gst::Caps) -> Option<(String, String)> {
    let structure = caps.structure(0)?;
    let text = |name| structure.get::<String>(name).unwrap_or_default();
    Some((text("media"), text("encoding-name")))
}

/// What to do about an error of an IP camera.
pub fn hint(error: &gst::message::Error, shared: &Shared) -> Option<String> {
    if error.src().is_none_or(|source| source.name() != ELEMENT) {
        return None;
    }
    let error = error.error();
    if error.matches(gst::ResourceError::NotAuthorized) {
        return Some("give user and password by --url rtsp://USER:PASSWORD@HOST/PATH".to_owned());
    }
    if error.matches(gst::ResourceError::NotFound) {
        return Some("look up the path of its stream, and give it by --url".to_owned());
    }
    let left_out = lock(&shared.left_out);
    (!left_out.is_empty()).then(|| format!("the camera offers {}", left_out.join(", ")))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use url::Url;

    use super::*;

    #[test]
    fn a_camera_is_there_when_its_port_takes_a_connection_and_no_password_is_said_when_not() {
        let camera = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = camera.local_addr().unwrap().port();
        let url = CameraUrl(Url::parse(&format!("rtsp://pilot:deep@127.0.0.1:{port}/cam")).unwrap());
        assert_eq!(look(&url), Ok(()));
        drop(camera);
        let reason = look(&url).unwrap_err();
        assert!(reason.contains(&format!("cannot connect to 127.0.0.1:{port}")), "{reason}");
        assert!(!reason.contains("deep") && !reason.contains("pilot"), "{reason}");
    }
}
