//! Names of cameras and streams are parts of URLs: each address leads to one stream.

use super::{Config, ConfigError, MJPEG_PATH, RTSP_PATHS, StreamConfig, bad};

/// The longest CAMERA/STREAM: viewers of older versions cut longer ones off in announcements.
const MAX_ADDRESS: usize = 32;
/// Between the ports of two streams: RTP, RTCP, repair packets, and one that keeps RTP's even.
const RTP_STEP: u16 = 4;

/// A name that cannot be: of a camera, or of one of its streams.
pub(super) struct Misnamed {
    pub camera: usize,
    pub stream: Option<usize>,
    pub message: String,
}

impl Config {
    /// Whether each name leads to one stream.
    pub(super) fn check_names(&self) -> Result<(), Misnamed> {
        let firsts = &self.cameras[0].streams;
        let taken = firsts.iter().map(path_of).chain(RTSP_PATHS.into_iter().chain([MJPEG_PATH]).map(str::to_owned));
        let taken: Vec<_> = taken.collect();
        for (at, camera) in self.cameras.iter().enumerate() {
            // Those given lead to the first camera anyway.
            let given = self.given_paths().filter(|_| at > 0);
            let mut taken = taken.iter().chain(given);
            if let Some(path) = taken.find(|path| path.split('/').nth(1) == Some(&camera.name)) {
                let name = &camera.name;
                let message =
                    format!("name: a camera cannot have the name {name:?}, as RTSP serves {path}; take another");
                return Err(Misnamed { camera: at, stream: None, message });
            }
            let long = |stream: &StreamConfig| at > 0 && camera.name.len() + 1 + stream.name.len() > MAX_ADDRESS;
            if let Some(stream) = camera.streams.iter().position(long) {
                let address = format!("{}/{}", camera.name, camera.streams[stream].name);
                let message = format!(
                    "name: {address:?} has {} characters, and a camera and its stream may have {MAX_ADDRESS} together; \
                     take a shorter name",
                    address.len()
                );
                return Err(Misnamed { camera: at, stream: Some(stream), message });
            }
        }
        match firsts.iter().position(|stream| path_of(stream) == MJPEG_PATH) {
            Some(stream) => {
                let name = &firsts[stream].name;
                let message =
                    format!("name: a stream cannot have the name {name:?}, as RTSP serves {MJPEG_PATH}; take another");
                Err(Misnamed { camera: 0, stream: Some(stream), message })
            }
            None => Ok(()),
        }
    }

    /// Of each stream by RTP: its own, or by its place, so that it stays when another one is given; none where RTP is
    /// not sent.
    pub fn rtp_ports(&self) -> Vec<u16> {
        let Some(rtp) = &self.rtp else { return Vec::new() };
        // What is not there for too many shows as a port that is taken.
        let counted = |at: usize| rtp.port.saturating_add(RTP_STEP.saturating_mul(at as u16)).min(65_532);
        self.streams().enumerate().map(|(at, (_, stream))| stream.rtp_port.unwrap_or(counted(at))).collect()
    }

    /// Whether each stream has its ports, and what was given leads to the first.
    pub(super) fn validate_addresses(&self) -> Result<(), ConfigError> {
        let others = || self.cameras[0].streams.iter().skip(1);
        if let Some(path) = self.given_paths().find(|path| others().any(|stream| path_of(stream) == **path)) {
            return bad(format!("--rtsp-path {path}: leads to the stream of that name, take another"));
        }
        let ports = self.rtp_ports();
        let at = (0..ports.len()).find(|at| ports[..*at].iter().any(|port| port.abs_diff(ports[*at]) < RTP_STEP));
        if let Some(at) = at {
            return bad(format!(
                "--rtp-port {}: stream {} would have port {}, which another one has too (each takes three: RTP, RTCP, \
                 repair packets); give it another rtp-port in its [[camera.stream]], or a lower --rtp-port",
                self.rtp.as_ref().map_or(0, |rtp| rtp.port),
                self.streams().nth(at).map_or("", |(_, stream)| &stream.name),
                ports[at]
            ));
        }
        Ok(())
    }

    /// By the user, for the first stream.
    fn given_paths(&self) -> impl Iterator<Item = &String> {
        self.rtsp.iter().flat_map(|rtsp| &rtsp.paths).filter(|path| !RTSP_PATHS.contains(&path.as_str()))
    }
}

/// Of a stream of the first camera.
fn path_of(stream: &StreamConfig) -> String {
    format!("/{}", stream.name)
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::*;
    use crate::config::CameraConfig;
    use crate::config_file;

    fn config(args: &str, cameras: &[(&str, &[&str])]) -> Config {
        let options = config_file::read(args.split(' ').map(OsString::from)).expect("options");
        let mut config = Config::new(&options).expect("a configuration");
        let usual = config.cameras[0].clone();
        let camera = |(name, streams): &(&str, &[&str])| {
            let stream = |name: &&str| StreamConfig { name: name.to_string(), ..usual.streams[0].clone() };
            CameraConfig { name: name.to_string(), streams: streams.iter().map(stream).collect(), ..usual.clone() }
        };
        config.cameras = cameras.iter().map(camera).collect();
        config
    }

    fn refusal(config: &Config) -> String {
        let misnamed = config.check_names().err().map(|misnamed| misnamed.message);
        misnamed.or(config.validate_addresses().err().map(|error| error.to_string())).unwrap_or_default()
    }

    #[test]
    fn each_address_leads_to_one_stream() {
        let refused = |cameras: &[(&str, &[&str])]| refusal(&config("rov-server --rtsp-path /cam1", cameras));
        assert_eq!(refused(&[("cam1", &["stream1", "stream2"]), ("arm", &["stream1", "mjpeg"])]), "");
        assert_eq!(
            refused(&[("bow", &["stream1", "bow"])]),
            "name: a camera cannot have the name \"bow\", as RTSP serves /bow; take another"
        );
        for name in ["mjpeg", "stream1", "wide", "live", "cam1"] {
            let error = refused(&[("bow", &["stream1", "wide"]), (name, &["stream1"])]);
            assert!(error.contains(&format!("cannot have the name {name:?}")), "{error}");
        }
        assert!(refused(&[("bow", &["stream1", "mjpeg"])]).contains("a stream cannot have the name"));
        assert!(refused(&[("bow", &["stream1", "cam1"])]).starts_with("--rtsp-path /cam1: leads to"));
        let long = "a-camera-at-the-front-of-the-arm";
        assert!(refused(&[("bow", &["stream1"]), (long, &["s"])]).contains("has 34 characters"));
        assert_eq!(refused(&[(long, &["stream1"])]), "");
    }

    #[test]
    fn each_stream_has_its_ports_of_rtp() {
        let streams: &[(&str, &[&str])] = &[("bow", &["stream1", "stream2"]), ("arm", &["stream1"])];
        let mut config = config("rov-server --transport rtp", streams);
        assert_eq!(config.rtp_ports(), [5004, 5008, 5012]);
        config.cameras[0].streams[1].rtp_port = Some(6000);
        assert_eq!((config.rtp_ports(), refusal(&config)), (vec![5004, 6000, 5012], String::new()));
        for taken in [5002, 5004, 5006, 5014] {
            config.cameras[0].streams[1].rtp_port = Some(taken);
            assert!(refusal(&config).contains("which another one has too"), "{taken}: {}", refusal(&config));
        }
        config.cameras[0].streams[1].rtp_port = None;
        assert_eq!(refusal(&config), "");
        config.rtp.iter_mut().for_each(|rtp| rtp.port = 65_530);
        assert!(refusal(&config).contains("stream stream2 would have port 65532"), "{}", refusal(&config));
    }
}
