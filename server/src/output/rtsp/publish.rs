//! The media that somebody sends to the server (ANNOUNCE, RECORD): of what is announced the first video of the stream's
//! codec goes to the pipeline of `--source publish`, and the rest nowhere.

use std::sync::{Arc, Mutex};
use std::time::Instant;

use gstreamer as gst;
use gstreamer::glib::translate::ToGlibPtr;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;
use gstreamer_rtsp::{RTSPLowerTrans, ffi as gst_rtsp};
use gstreamer_rtsp_server as rtsp;
use gstreamer_rtsp_server::prelude::*;
use gstreamer_sdp as gst_sdp;
use rov_common::backlog::Backlog;
use rov_common::codec::Codec;
use rov_common::numbering::Numbering;
use rov_common::rtp::Header;
use rov_common::sync::lock;
use rov_gst::rtp;

use super::along::Along;
use super::clients::{interleaved, key};
use super::feed::rtpbin;
use super::gate;
use crate::inlet::Inlet;

/// How long a gap waits for packets that were overtaken; what comes in order does not wait.
const LATENCY_MS: u32 = 40;
/// Media of an announcement: video, sound, and what else there may be.
const MAX_MEDIA: usize = 8;
/// The name of the element that gives the access units.
const OUT: &str = "published";

/// Whether the request that is handled now announces a stream.
pub fn is_announced() -> bool {
    rtsp::RTSPContext::with_current_context(|context| gate::method(context) == gst_rtsp::GST_RTSP_ANNOUNCE)
        == Some(true)
}

/// Whether somebody sends this media.
pub fn is_published(media: &rtsp::RTSPMedia) -> bool {
    media.transport_mode().contains(rtsp::RTSPTransportMode::RECORD)
}

/// What is announced, as `H264 video`.
fn announced(context: &rtsp::RTSPContext) -> Vec<String> {
    let Some(request) = context.request() else { return Vec::new() };
    let (mut data, mut size) = (std::ptr::null_mut(), 0);
    // SAFETY: the request outlives the call, and the body as long as it is looked at here.
    let body = unsafe {
        gst_rtsp::gst_rtsp_message_get_body(request.to_glib_none().0, &raw mut data, &raw mut size);
        if data.is_null() { &[][..] } else { std::slice::from_raw_parts(data, size as usize) }
    };
    // The connection ends it with a zero.
    let body = body.strip_suffix(&[0]).unwrap_or(body);
    let Ok(sdp) = gst_sdp::SDPMessage::parse_buffer(body) else { return Vec::new() };
    let name = |media: &gst_sdp::SDPMediaRef| {
        // As `96 H264/90000`.
        let map = media.attribute_val("rtpmap").and_then(|map| map.split_once(' ')?.1.split('/').next());
        format!("{} {}", map.unwrap_or("unknown").to_ascii_uppercase(), media.media().unwrap_or("media"))
    };
    sdp.medias().take(MAX_MEDIA + 1).map(name).collect()
}

/// Which of the media is taken, or why none.
fn chosen(announced: &[String], codec: Codec) -> Result<usize, String> {
    let wanted = format!("{} video", codec.rtp_name());
    if announced.len() > MAX_MEDIA {
        return Err(format!("more than {MAX_MEDIA} media are announced"));
    }
    announced.iter().position(|media| *media == wanted).ok_or_else(|| {
        let is_announced =
            |other: &Codec| other.has_parameter_sets() && announced.contains(&format!("{} video", other.rtp_name()));
        let other = codec.others().find(is_announced);
        let remedy = other.map_or_else(String::new, |other| format!("; start the server with --codec {other}"));
        format!("announced is {}, but {wanted} is needed{remedy}", announced.join(" and "))
    })
}

/// Why what is announced cannot be taken, if so.
pub fn problem(context: &rtsp::RTSPContext, codec: Codec) -> Option<String> {
    chosen(&announced(context), codec).err()
}

/// What the request of now announces, and whose it is.
fn of_now() -> Option<(Vec<String>, rtsp::RTSPClient)> {
    rtsp::RTSPContext::with_current_context(|context| Some((announced(context), context.client().cloned()?))).flatten()
}

/// What takes the media that the request of now announces.
pub fn element(inlet: &Arc<Inlet>, codec: Codec) -> Option<gst::Element> {
    let (media, client) = of_now()?;
    let (chosen, key) = (chosen(&media, codec).ok()?, key(&client));
    let text: Vec<_> = (0..media.len()).map(|index| branch(index, index == chosen, codec)).collect();
    let bin = match gst::parse::bin_from_description(&text.join("  "), false) {
        Ok(bin) => bin,
        Err(error) => {
            tracing::error!(%error, "RTSP: a publisher's stream cannot be taken");
            return None;
        }
    };
    let of_pictures = Arc::clone(inlet);
    // The RTSP server puts a decoder of FEC in front, which numbers packets anew.
    rtp::correct_packets(&bin, true, move |judged| of_pictures.picture_came(key, judged, Instant::now()));
    let sink = bin.by_name(OUT).and_downcast::<gst_app::AppSink>()?;
    let to = Arc::clone(inlet);
    let callbacks = gst_app::AppSinkCallbacks::builder().new_sample(move |sink| {
        let sample = sink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
        to.push(key, &sample, Instant::now());
        Ok(gst::FlowSuccess::Ok)
    });
    sink.set_callbacks(callbacks.build());
    Some(bin.upcast())
}

/// Parameter sets come in the announcement, in the stream or in both: packed they are in the caps, from where the
/// parser of the pipeline writes them before each keyframe.
fn branch(index: usize, is_chosen: bool, codec: Codec) -> String {
    let packed = match codec {
        Codec::H264 => "avc",
        Codec::H265 => "hvc1",
        // Refused by `config`.
        Codec::Mjpeg => "",
    };
    match is_chosen {
        true => format!(
            "rtp{codec}depay name=depay{index} ! {},stream-format={packed},alignment=au \
             ! appsink name={OUT} sync=false async=false max-buffers=4",
            codec.media_type()
        ),
        false => format!("identity name=depay{index} ! fakesink sync=false async=false"),
    }
}

/// What somebody sends is nobody else's, waits for nothing, and does not grow old on its way.
pub fn configure(media: &rtsp::RTSPMedia, inlet: &Arc<Inlet>, codec: Codec) {
    media.set_shared(false);
    media.set_transport_mode(rtsp::RTSPTransportMode::RECORD);
    media.set_protocols(RTSPLowerTrans::UDP | RTSPLowerTrans::TCP);
    media.set_latency(LATENCY_MS);
    let Some((announced, client)) = of_now() else { return };
    let Ok(chosen) = chosen(&announced, codec) else { return };
    let (inlet, key) = (Arc::clone(inlet), key(&client));
    let along = interleaved(&client).map(|socket| Along::watch(&socket));
    media.connect_prepared(move |media| {
        // Before the jitter buffer, behind which packets have other numbers.
        let pad = rtpbin(media).and_then(|rtpbin| rtpbin.static_pad(&format!("recv_rtp_sink_{chosen}")));
        match pad {
            Some(pad) => {
                refuse_when_late(&pad, &inlet, key, along.clone());
                number_packets(&pad, &inlet, key);
            }
            None => {
                tracing::error!("RTSP: a publisher's packets cannot be looked at: its pictures may grow old unseen")
            }
        }
    });
}

/// By TCP a link that is slower than the stream lets nothing fall: pictures would come later and later, and look live.
/// `along` tells it from time stamps that are slow, where it is known.
fn refuse_when_late(pad: &gst::Pad, inlet: &Arc<Inlet>, key: usize, along: Option<Arc<Mutex<Along>>>) {
    let inlet = Arc::clone(inlet);
    // Whether bytes waited behind a packet is known when the next one comes.
    let state = Mutex::new((Backlog::default(), None::<(Header, Instant)>));
    pad.add_probe(gst::PadProbeType::BUFFER | gst::PadProbeType::BUFFER_LIST, move |_, info| {
        let Some(header) = rtp::first_header(info).filter(|_| inlet.is_by_tcp(key)) else {
            return gst::PadProbeReturn::Ok;
        };
        let waited = along.as_ref().map(|along| lock(along).take(header.ssrc, header.sequence));
        let (backlog, before) = &mut *lock(&state);
        let Some((before, at)) = before.replace((header, Instant::now())) else { return gst::PadProbeReturn::Ok };
        if let Some(late) = backlog.arrived(before.timestamp, before.marker, at, || waited) {
            inlet.refuse(&format!(
                "its link is slower than its stream, its pictures came {} s late; publish a lower bit rate",
                late.as_secs()
            ));
        }
        gst::PadProbeReturn::Ok
    });
}

/// As of cameras ([`rov_gst::rtspsrc::number_packets`]).
fn number_packets(pad: &gst::Pad, inlet: &Arc<Inlet>, key: usize) {
    let (inlet, numbering) = (Arc::clone(inlet), Mutex::new(Numbering::default()));
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        if let Some(packet) = info.buffer_mut().filter(|_| inlet.is_by_tcp(key))
            && let Some(header) = rtp::header(packet)
        {
            rtp::set_number(packet, header, lock(&numbering).number(header));
        }
        gst::PadProbeReturn::Ok
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_video_of_the_codec_is_taken() {
        let media = ["MPEG4-GENERIC audio", "H264 video", "H264 video"].map(str::to_owned);
        assert_eq!(chosen(&media, Codec::H264), Ok(1));
        let refused = chosen(&media, Codec::H265).unwrap_err();
        assert!(
            refused.contains("MPEG4-GENERIC audio and H264 video") && refused.contains("--codec h264"),
            "{refused}"
        );
        assert!(chosen(&[], Codec::H264).is_err());
    }
}
