//! The outputs' part of the configuration: RTP, RTSP, and who may reach the server under which name.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::PathBuf;
use std::time::Duration;

use rov_common::camera::Credentials;
use rov_common::recording::{Keep, SPARE, Split};
use url::Url;

use super::{ConfigError, bad};
use crate::choices::RecordWhen;
use crate::cli::{MachineOptions, Switch};
use crate::http::CertificateFiles;

/// In the administratively scoped range (RFC 2365), which does not leave a site.
const RTP_GROUP: Ipv4Addr = Ipv4Addr::new(239, 255, 0, 1);

/// Plain RTP to whoever listens.
#[derive(Clone, Debug, PartialEq)]
pub struct RtpConfig {
    /// Multicast groups and unicast addresses; one at least, none twice.
    pub hosts: Vec<Ipv4Addr>,
    /// From which those of the streams are counted: even, 2 to 65532; RTCP goes to the port above, repair packets to
    /// the second above.
    pub port: u16,
    /// Of multicast.
    pub ttl: u8,
    /// From one keyframe to the next, at most.
    pub keyframe_interval: Duration,
    /// Repair packets in percent of media packets, 1 to 100; None: of keyframes alone.
    pub fec_percent: Option<u8>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct RtspConfig {
    /// 0: any free port.
    pub port: u16,
    /// Each as `/stream1`; the first is the one that is told.
    pub paths: Vec<String>,
    /// Who can log in by a digest. The password is needed for that.
    pub digest: Option<Credentials>,
    /// Take that password in clear too.
    pub basic_auth: bool,
}

/// Recordings on this machine.
#[derive(Clone, Debug, PartialEq)]
pub struct RecordConfig {
    pub folder: PathBuf,
    pub is_on_start: bool,
    pub split: Split,
    /// None: nothing is deleted.
    pub keep: Keep,
    /// Bytes that stay free on the disk.
    pub spare: u64,
}

/// The paths under which RTSP is served without `--rtsp-path`: ours, and those of the servers that it replaces.
pub const RTSP_PATHS: [&str; 4] = ["/stream1", "/stream", "/live", "/test"];
/// Where RTSP serves previews by MJPEG.
pub const MJPEG_PATH: &str = "/mjpeg";

/// Whether a path of RTSP leads to the previews by MJPEG.
pub fn is_mjpeg(path: &str) -> bool {
    path.strip_prefix(MJPEG_PATH).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

pub(super) fn public_address(text: &str) -> Result<SocketAddrV4, ConfigError> {
    let address = text.parse().or_else(|_| text.parse().map(|ip| SocketAddrV4::new(ip, 0)));
    match address {
        Ok(address) if !address.ip().is_unspecified() && !address.ip().is_multicast() => Ok(address),
        _ => bad(format!(
            "--public-address {text:?}: give the IPv4 address that viewers reach, as 10.0.0.2, or with the UDP port, \
             as 10.0.0.2:40000"
        )),
    }
}

pub(super) fn allow_host(name: &str) -> Result<String, ConfigError> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if name.is_empty() || !name.chars().all(is_name) {
        return bad(format!("--allow-host {name:?}: give a host name alone, as rov.lan, without http:// and port"));
    }
    Ok(name.trim_end_matches('.').to_ascii_lowercase())
}

/// As browsers write it: without a path, and without the port that the scheme means anyway.
pub(super) fn allow_origin(text: &str) -> Result<String, ConfigError> {
    let url = Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.path() == "/");
    match url.filter(|url| url.query().is_none() && url.fragment().is_none() && url.username().is_empty()) {
        Some(url) => Ok(url.origin().ascii_serialization()),
        None => bad(format!(
            "--allow-origin {text:?}: give scheme, host and port of the page, as http://10.0.0.9:3000 (one for each; \
             there is no wildcard)"
        )),
    }
}

/// HTTPS in the place of HTTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsConfig {
    /// None: the server's own certificate.
    pub files: Option<CertificateFiles>,
}

pub(super) fn tls(options: &MachineOptions) -> Result<Option<TlsConfig>, ConfigError> {
    let files = match (&options.tls_certificate, &options.tls_key) {
        (Some(certificate), Some(key)) => Some(CertificateFiles { certificate: certificate.clone(), key: key.clone() }),
        (None, None) => None,
        (Some(_), None) => return bad("--tls-certificate: needs --tls-key, the file of its private key"),
        (None, Some(_)) => return bad("--tls-key: needs --tls-certificate, the file of its certificate"),
    };
    let is_wanted = options.tls.unwrap_or_default() || files.is_some();
    Ok(is_wanted.then_some(TlsConfig { files }))
}

pub(super) fn record(options: &MachineOptions) -> Result<Option<RecordConfig>, ConfigError> {
    let Some(folder) = &options.record else {
        let given = [
            ("--record-when", options.record_when.is_some()),
            ("--record-split", options.record_split.is_some()),
            ("--record-keep", options.record_keep.is_some()),
            ("--record-free", options.record_free.is_some()),
        ];
        return match given.into_iter().find(|(_, is_given)| *is_given) {
            Some((option, _)) => bad(format!("{option}: needs --record FOLDER, in which recordings are kept")),
            None => Ok(None),
        };
    };
    if folder.as_os_str().is_empty() {
        return bad("--record \"\": give a folder, as /media/dives");
    }
    let split = options.record_split.map_or(Ok(Split::default()), Split::at);
    Ok(Some(RecordConfig {
        folder: folder.clone(),
        is_on_start: options.record_when.unwrap_or_default() == RecordWhen::OnStart,
        split: split.map_err(|reason| ConfigError(format!("--record-split: {reason}")))?,
        keep: options.record_keep,
        spare: options.record_free.unwrap_or(SPARE).0,
    }))
}

/// Whether a stream is recorded from the start.
pub(super) fn is_recorded(
    record: Option<&RecordConfig>,
    asked: Option<Switch>,
    is_first: bool,
) -> Result<bool, ConfigError> {
    match (asked, record) {
        (Some(Switch::On), None) => bad("--recording on: needs --record FOLDER, in which recordings are kept"),
        (Some(given), _) => Ok(given == Switch::On),
        (None, record) => Ok(is_first && record.is_some_and(|record| record.is_on_start)),
    }
}

pub(super) fn rtp_port(port: u16) -> Result<u16, ConfigError> {
    // RFC 3550 section 11: RTP has an even port and RTCP the odd one above.
    if !(2..=65_532).contains(&port) || !port.is_multiple_of(2) {
        return bad(format!("--rtp-port {port}: must be even, from 2 to 65532 (RTCP has the odd port above)"));
    }
    Ok(port)
}

pub(super) fn rtp(options: &MachineOptions) -> Result<RtpConfig, ConfigError> {
    let hosts = if options.rtp_host.is_empty() { vec![RTP_GROUP] } else { options.rtp_host.clone() };
    if hosts.iter().enumerate().any(|(at, host)| hosts[..at].contains(host)) {
        return bad("--rtp-host: an address is given twice, and its receivers would get each packet twice");
    }
    if let Some(host) = hosts.iter().find(|host| host.is_unspecified() || host.is_broadcast()) {
        return bad(format!("--rtp-host {host}: give the address of a receiver, or a multicast group as 239.255.0.1"));
    }
    let port = rtp_port(options.rtp_port.unwrap_or(5004))?;
    let interval = options.rtp_keyframe_interval.unwrap_or(1.0);
    if !(0.1..=60.0).contains(&interval) {
        return bad(format!("--rtp-keyframe-interval {interval}: must be from 0.1 to 60 seconds"));
    }
    let fec = options.rtp_fec.unwrap_or(0);
    if fec > 100 {
        return bad(format!("--rtp-fec {fec}: must be from 1 to 100 percent, or 0 for keyframes alone"));
    }
    Ok(RtpConfig {
        hosts,
        port,
        ttl: options.rtp_ttl.unwrap_or(1),
        keyframe_interval: Duration::from_secs_f64(interval),
        fec_percent: (fec > 0).then_some(fec),
    })
}

pub(super) fn rtsp(options: &MachineOptions) -> Result<RtspConfig, ConfigError> {
    let mut paths: Vec<String> = RTSP_PATHS.map(str::to_owned).into();
    for path in &options.rtsp_path {
        let plain = |c: char| c.is_ascii_alphanumeric() || "/-_.".contains(c);
        if path.len() < 2
            || path.len() > 64
            || !path.starts_with('/')
            || path.ends_with('/')
            || !path.chars().all(plain)
        {
            return bad(format!(
                "--rtsp-path {path:?}: give a path as /cam, 64 bytes at most, of letters, digits, and - _ . /"
            ));
        }
        if is_mjpeg(path) {
            return bad(format!("--rtsp-path {path}: {MJPEG_PATH} is where MJPEG is served, take another"));
        }
        if !paths.contains(path) {
            paths.push(path.clone());
        }
    }
    let basic_auth = options.rtsp_basic_auth.unwrap_or_default();
    if basic_auth && options.user.is_none() {
        return bad("--rtsp-basic-auth: needs --user and --password");
    }
    Ok(RtspConfig { port: options.rtsp_port.unwrap_or(8554), paths, digest: None, basic_auth })
}
