//! What is decided of the transports that requests offer, and what was agreed on, by their text. Pure.

use rov_common::api::RtspCarrier;

/// What is wrong with the transports that a request offers. gst-rtsp-server takes what it cannot read for multicast.
pub fn transport_problem(transport: &str) -> Option<String> {
    // The first word of each is the protocol (RFC 2326 section 12.39).
    let offers = || transport.split(',').map(str::trim).filter(|offer| !offer.is_empty());
    let is_known = |offer: &str| {
        let protocol = offer.split(';').next().unwrap_or(offer).trim().to_ascii_uppercase();
        let lower = protocol.strip_prefix("RTP/").and_then(|rest| rest.split_once('/'));
        let profile = lower.map_or_else(|| protocol.strip_prefix("RTP/"), |(profile, _)| Some(profile));
        let is_carried = lower.is_none_or(|(_, lower)| ["UDP", "TCP"].contains(&lower));
        is_carried && profile.is_some_and(|profile| ["AVP", "AVPF", "SAVP", "SAVPF"].contains(&profile))
    };
    if let Some(unknown) = offers().find(|offer| !is_known(offer)) {
        return Some(format!("{unknown:.60} is no transport, as RTP/AVP/TCP;unicast;interleaved=0-1 is"));
    }
    for part in transport.split([',', ';']).map(str::trim) {
        let Some((name, range)) = part.split_once('=') else { continue };
        let (least, most) = match name.trim().to_ascii_lowercase().as_str() {
            "client_port" | "server_port" | "port" => (1, 65_535),
            "interleaved" => (0, 255),
            "ttl" => (0, 255),
            _ => continue,
        };
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let number = |text: &str| text.trim().parse().ok().filter(|number| (least..=most).contains(number));
        if !matches!((number(first), number(last)), (Some(first), Some(last)) if first <= last) {
            return Some(format!("{part:.60} is not from {least} to {most}"));
        }
    }
    None
}

/// Whether one of the transports is multicast, which is meant where nothing else is said (RFC 2326 section 12.39).
pub fn wants_multicast(transport: &str) -> bool {
    let transport = transport.to_ascii_lowercase();
    let mut offers = transport.split(',').filter(|offer| !offer.trim().is_empty());
    offers.any(|offer| !offer.contains("unicast") && !offer.contains("/tcp"))
}

/// What the transport of an answer carries by, and to which port the client wants RTCP, from which it also sends it.
pub fn agreed(transport: &str) -> (RtspCarrier, Option<u16>) {
    let mut parts = transport.split(';').map(str::trim);
    let is = |part: &str| transport.split(';').any(|other| other.trim().eq_ignore_ascii_case(part));
    if parts.next().is_some_and(|protocol| protocol.to_ascii_uppercase().ends_with("/TCP")) {
        (RtspCarrier::Tcp, None)
    } else if is("multicast") {
        (RtspCarrier::Multicast, None)
    } else {
        let ports = parts.find_map(|part| part.strip_prefix("client_port="));
        (RtspCarrier::Udp, ports.and_then(|ports| ports.split_once('-')?.1.parse().ok()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_agreed_on_is_known_from_the_answer() {
        for (answer, agreed_on) in [
            ("RTP/AVP;unicast;client_port=5000-5001;server_port=6000-6001;ssrc=1", (RtspCarrier::Udp, Some(5001))),
            ("RTP/AVP/UDP;unicast;client_port=5000", (RtspCarrier::Udp, None)),
            ("RTP/AVP/TCP;unicast;interleaved=0-1;ssrc=1", (RtspCarrier::Tcp, None)),
            ("RTP/AVP;multicast;destination=239.255.8.1;ttl=1;port=16384-16385", (RtspCarrier::Multicast, None)),
        ] {
            assert_eq!(agreed(answer), agreed_on, "{answer}");
        }
    }

    #[test]
    fn a_transport_that_cannot_be_read_is_refused() {
        for bad in [
            "RTP/AVP;unicast;client_port=99999",
            "RTP/AVP;unicast;client_port=5000-99999",
            "RTP/AVP;unicast;client_port=0-1",
            "RTP/AVP;unicast;client_port=5001-5000",
            "RTP/AVP;unicast;client_port=x",
            "RTP/AVP/TCP;unicast;interleaved=300",
            "RTP/AVP/TCP;unicast;interleaved=254-256",
            "RTP/AVP;unicast;client_port=5000-5001,RTP/AVP/TCP;Interleaved=-1",
            "garbage",
            "x;y;z",
            "RTP/AVP/FOO;unicast",
            "RTP/XYZ;unicast",
            "RTP",
            "garbage,RTP/AVP/TCP;unicast;interleaved=0-1",
        ] {
            assert!(transport_problem(bad).is_some(), "{bad}");
        }
        for good in [
            "",
            "RTP/AVP",
            "RTP/AVP/UDP;unicast;client_port=5000-5001;mode=\"PLAY\"",
            "RTP/AVP;unicast;client_port=5000",
            "rtp/avp/tcp;unicast, RTP/AVPF;unicast;client_port=5000-5001",
            "RTP/AVP/TCP;unicast;interleaved=0-1;ssrc=12345678",
            "RTP/AVP;multicast;port=5000-5001;ttl=1;destination=239.0.0.1",
        ] {
            assert_eq!(transport_problem(good), None, "{good}");
        }
    }

    #[test]
    fn multicast_is_recognized_among_transports() {
        for yes in ["RTP/AVP;multicast", "RTP/AVP/UDP;Multicast;ttl=1", "RTP/AVP", "RTP/AVP;unicast,RTP/AVP;multicast"]
        {
            assert!(wants_multicast(yes), "{yes}");
        }
        for no in ["RTP/AVP;unicast;client_port=1-2", "RTP/AVP/TCP;interleaved=0-1", ""] {
            assert!(!wants_multicast(no), "{no}");
        }
    }
}
