//! What those who play say of how it arrives: their RTCP receiver reports, as gst-rtsp-server's `rtpbin` keeps them.

use std::net::{IpAddr, SocketAddr};

use gstreamer as gst;
use gstreamer::glib;
use gstreamer::prelude::*;
use gstreamer_rtsp_server as rtsp;
use rov_common::api::RtspCarrier;

use super::feed::rtpbin;

/// Of the only stream of a media.
const SESSION: u32 = 0;
/// RTP's clock for video, H.264, H.265 and JPEG alike, in kHz.
const CLOCK_KHZ: f64 = 90.0;

/// The last report of one receiver (RFC 3550 section 6.4.1).
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Report {
    /// Where it came from: by TCP the other end of the connection, but from GStreamer before 1.18, where that is not
    /// known.
    from: Option<SocketAddr>,
    /// 0 to 1, since the one before.
    pub loss: f64,
    pub jitter_ms: f64,
    pub rtt_ms: Option<f64>,
}

/// Of all receivers of the media.
pub(super) fn of(media: &rtsp::RTSPMedia) -> Vec<Report> {
    let session = rtpbin(media).and_then(|rtpbin| {
        rtpbin.emit_by_name_with_values("get-internal-session", &[SESSION.to_value()])?.get::<glib::Object>().ok()
    });
    let sources = session.map(|session| session.property::<glib::ValueArray>("sources"));
    let sources = sources.iter().flat_map(|sources| sources.iter());
    let stats = sources.filter_map(|source| {
        source.get::<glib::Object>().ok().map(|source| source.property::<gst::Structure>("stats"))
    });
    stats.filter_map(|stats| read(&stats)).collect()
}

fn read(stats: &gst::StructureRef) -> Option<Report> {
    let is = |name| stats.get::<bool>(name) == Ok(true);
    if is("internal") || is("received-bye") || !is("have-rb") {
        return None;
    }
    let number = |name| stats.get::<u32>(name).ok().map(f64::from);
    Some(Report {
        from: stats.get::<&str>("rtcp-from").ok().and_then(|from| from.parse().ok()),
        loss: number("rb-fractionlost")? / 256.0,
        jitter_ms: number("rb-jitter")? / CLOCK_KHZ,
        // In units of 1/65536 s; none while it has had no sender report.
        rtt_ms: number("rb-round-trip").filter(|ticks| *ticks > 0.0).map(|ticks| ticks / 65.536),
    })
}

/// How a client is told from others that play the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Receiver {
    pub host: IpAddr,
    /// Where its reports come from: as it said itself, by TCP that of its connection; none by multicast.
    pub rtcp_port: Option<u16>,
    pub carrier: RtspCarrier,
}

/// That of `this` among those of all who play the media. None where it cannot be known whose a report is: those of
/// several receivers behind one address may come by other ports than they said.
pub(super) fn find(reports: &[Report], all: &[Receiver], this: Receiver) -> Option<Report> {
    let is_by_tcp = |receiver: &Receiver| receiver.carrier == RtspCarrier::Tcp;
    let is_at = |report: &Report, receiver: &Receiver| {
        let from = report.from.map(|from| (from.ip().to_canonical(), from.port()));
        receiver.rtcp_port.is_some_and(|port| from == Some((receiver.host, port)))
    };
    if let Some(report) = reports.iter().find(|report| is_at(report, &this)) {
        return Some(*report);
    }
    // Those that nobody said would come from there.
    let mut others = reports.iter().filter(|report| match report.from {
        None => is_by_tcp(&this),
        Some(from) => {
            !is_by_tcp(&this)
                && from.ip().to_canonical() == this.host
                && !all.iter().any(|receiver| is_at(report, receiver))
        }
    });
    let is_like =
        |other: &&Receiver| is_by_tcp(other) == is_by_tcp(&this) && (is_by_tcp(&this) || other.host == this.host);
    let only = others.next()?;
    (others.next().is_none() && all.iter().filter(is_like).count() == 1).then_some(*only)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(from: Option<&str>, loss: f64) -> Report {
        Report { from: from.map(|from| from.parse().unwrap()), loss, jitter_ms: 0.0, rtt_ms: None }
    }

    fn by_udp(host: [u8; 4], rtcp_port: u16) -> Receiver {
        Receiver { host: host.into(), rtcp_port: Some(rtcp_port), carrier: RtspCarrier::Udp }
    }

    fn by_tcp(host: [u8; 4], port: u16) -> Receiver {
        Receiver { host: host.into(), rtcp_port: Some(port), carrier: RtspCarrier::Tcp }
    }

    #[test]
    fn a_report_is_the_clients_from_whose_port_it_comes_or_of_the_only_one() {
        let (here, there) = ([10, 0, 0, 2], [10, 0, 0, 3]);
        let all =
            [by_udp(here, 5001), by_udp(here, 5003), by_udp(there, 5001), by_tcp(there, 7001), by_tcp(there, 7002)];
        let reports = [
            report(Some("10.0.0.2:5003"), 0.1),
            report(Some("10.0.0.2:5001"), 0.2),
            // Through a router that gives out ports of its own.
            report(Some("10.0.0.3:40001"), 0.3),
            report(Some("10.0.0.3:7001"), 0.4),
            report(Some("10.0.0.3:7002"), 0.5),
        ];
        let loss = |this| find(&reports, &all, this).map(|report| report.loss);
        assert_eq!(all.map(loss), [Some(0.2), Some(0.1), Some(0.3), Some(0.4), Some(0.5)]);
        assert_eq!(find(&reports[3..], &all, all[2]), None, "they are those of the ones by TCP");

        // Each has one of the two, and which cannot be known.
        let moved = [report(Some("10.0.0.2:40001"), 0.1), report(Some("10.0.0.2:40002"), 0.2)];
        assert_eq!(find(&moved, &all, all[0]), None);
        assert_eq!(find(&moved[..1], &all, all[0]), None, "the other may have sent it");
        // From where is not known.
        let unknown = [report(None, 0.6)];
        assert_eq!(find(&unknown, &all[3..], all[3]), None, "of two by TCP");
        assert_eq!(find(&unknown, &all[..4], all[3]).map(|report| report.loss), Some(0.6));
    }
}
