//! The session description by which players open plain RTP (RFC 8866, RFC 6184 section 8.2, RFC 7798 section 7.2,
//! RFC 2435 section 3.1). Pure.

use std::net::IpAddr;
use std::net::Ipv4Addr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use rov_common::codec::{Codec, ParameterSets};

use crate::packetize::CLOCK_RATE;

/// What a description says.
#[derive(Clone, Debug)]
pub struct Description<'a> {
    /// Of the server; without control characters.
    pub name: &'a str,
    /// An address of this machine.
    pub origin: IpAddr,
    /// Seconds, of any clock: when the session began, and when this description was made.
    pub session: u64,
    pub version: u64,
    /// Where the packets go.
    pub host: Ipv4Addr,
    pub port: u16,
    /// Of multicast.
    pub ttl: u8,
    pub codec: Codec,
    /// Those of the newest keyframe; of MJPEG there are none.
    pub sets: &'a ParameterSets,
    /// Frames per second; 0 while unknown.
    pub fps: f64,
}

impl Description<'_> {
    /// The text, lines ended by CR LF.
    pub fn text(&self) -> String {
        let Self { name, origin, session, version, host, port, .. } = self;
        let payload_type = self.codec.payload_type();
        let family = if origin.is_ipv4() { "IP4" } else { "IP6" };
        // RFC 8866 section 5.7: multicast has its time to live there, unicast must not.
        let ttl = if host.is_multicast() { format!("/{}", self.ttl) } else { String::new() };
        let mut lines = vec![
            "v=0".to_owned(),
            format!("o=- {session} {version} IN {family} {origin}"),
            format!("s={name}"),
            format!("c=IN IP4 {host}{ttl}"),
            "t=0 0".to_owned(),
            "a=recvonly".to_owned(),
            format!("m=video {port} RTP/AVP {payload_type}"),
            format!("a=rtpmap:{payload_type} {}/{CLOCK_RATE}", self.codec.rtp_name()),
        ];
        lines.extend(self.format_parameters().map(|text| format!("a=fmtp:{payload_type} {text}")));
        if self.fps > 0.0 {
            // As 30 or 29.97.
            lines.push(format!("a=framerate:{}", (self.fps * 1000.0).round() / 1000.0));
        }
        lines.push(String::new());
        lines.join("\r\n")
    }

    fn format_parameters(&self) -> Option<String> {
        match self.codec {
            Codec::H264 => {
                let sps = &self.sets.sps;
                let level: String = sps.get(1..4)?.iter().map(|byte| format!("{byte:02x}")).collect();
                let sets: Vec<_> = std::iter::once(sps).chain(&self.sets.pps).map(|nal| BASE64.encode(nal)).collect();
                let sets = sets.join(",");
                Some(format!("packetization-mode=1;profile-level-id={level};sprop-parameter-sets={sets}"))
            }
            Codec::H265 => {
                let ParameterSets { vps, sps, pps } = self.sets;
                let pps: Vec<_> = pps.iter().map(|nal| BASE64.encode(nal)).collect();
                let (vps, sps, pps) = (BASE64.encode(vps), BASE64.encode(sps), pps.join(","));
                Some(format!("sprop-vps={vps};sprop-sps={sps};sprop-pps={pps}"))
            }
            Codec::Mjpeg => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn sets() -> ParameterSets {
        ParameterSets {
            vps: Bytes::new(),
            sps: Bytes::from_static(&[0x67, 0x42, 0xc0, 0x1f, 0xd9]),
            pps: vec![Bytes::from_static(&[0x68, 0xce, 0x3c]), Bytes::from_static(&[0x68, 0x53, 0x80, 0x01])],
        }
    }

    fn description(sets: &ParameterSets) -> Description<'_> {
        Description {
            name: "rov 1",
            origin: IpAddr::V4(Ipv4Addr::new(192, 168, 2, 2)),
            session: 11,
            version: 22,
            host: Ipv4Addr::new(239, 255, 0, 1),
            port: 5004,
            ttl: 1,
            codec: Codec::H264,
            sets,
            fps: 30.0,
        }
    }

    #[test]
    fn multicast_of_h264() {
        let expected = "v=0\r\n\
            o=- 11 22 IN IP4 192.168.2.2\r\n\
            s=rov 1\r\n\
            c=IN IP4 239.255.0.1/1\r\n\
            t=0 0\r\n\
            a=recvonly\r\n\
            m=video 5004 RTP/AVP 96\r\n\
            a=rtpmap:96 H264/90000\r\n\
            a=fmtp:96 packetization-mode=1;profile-level-id=42c01f;sprop-parameter-sets=Z0LAH9k=,aM48,aFOAAQ==\r\n\
            a=framerate:30\r\n";
        assert_eq!(description(&sets()).text(), expected);
    }

    #[test]
    fn unicast_has_no_time_to_live_and_an_unknown_frame_rate_is_left_out() {
        let sets = sets();
        let text = Description { host: Ipv4Addr::new(10, 0, 0, 7), fps: 0.0, ..description(&sets) }.text();
        assert!(text.contains("\r\nc=IN IP4 10.0.0.7\r\n"), "{text}");
        assert!(!text.contains("framerate"), "{text}");
        let text = Description { fps: 30_000.0 / 1001.0, ..description(&sets) }.text();
        assert!(text.ends_with("a=framerate:29.97\r\n"), "{text}");
    }

    #[test]
    fn mjpeg_has_its_own_payload_type_and_no_parameters() {
        let sets = ParameterSets::default();
        let text = Description { codec: Codec::Mjpeg, ..description(&sets) }.text();
        let end = "m=video 5004 RTP/AVP 26\r\na=rtpmap:26 JPEG/90000\r\na=framerate:30\r\n";
        assert!(text.ends_with(end) && !text.contains("a=fmtp"), "{text}");
    }

    #[test]
    fn h265_has_its_three_kinds_of_parameter_sets() {
        let sets = ParameterSets { vps: Bytes::from_static(&[0x40, 1, 12]), ..sets() };
        let text = Description { codec: Codec::H265, ..description(&sets) }.text();
        let lines =
            "\r\na=rtpmap:96 H265/90000\r\na=fmtp:96 sprop-vps=QAEM;sprop-sps=Z0LAH9k=;sprop-pps=aM48,aFOAAQ==\r\n";
        assert!(text.contains(lines), "{text}");
    }
}
