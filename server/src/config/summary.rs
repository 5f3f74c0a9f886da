//! What a configuration would stream, in a few lines for people (`--check-config`).

use rov_common::api::{Role, View};

use super::{CameraConfig, Config, EncoderChoice, Layout, PipConfig, SourceKind, StreamConfig, auto_bitrate};
use crate::users::LoginConfig;

impl Config {
    /// One for each camera and each stream, and one for how they are served.
    pub fn summary(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for camera in &self.cameras {
            lines.push(format!("camera {}: {}", camera.name, source(camera)));
            lines.extend(camera.streams.iter().map(|one| format!("  stream {}: {}", one.name, stream(camera, one))));
        }
        let mut ways = vec![format!("HTTP on TCP {}:{}", self.host, self.signal_port)];
        ways.extend(self.webrtc.then(|| "WebRTC".to_owned()));
        ways.extend(self.rtp.as_ref().map(|rtp| {
            let hosts: Vec<_> = self
                .rtp_ports()
                .into_iter()
                .flat_map(|port| rtp.hosts.iter().map(move |host| format!("{host}:{port}")))
                .collect();
            format!("RTP to {}", hosts.join(" and "))
        }));
        ways.extend(self.rtsp.as_ref().map(|rtsp| format!("RTSP on TCP {}", rtsp.port)));
        ways.extend(self.onvif.then(|| "ONVIF".to_owned()));
        let found = if self.discovery_port.is_some() { "announced" } else { "not announced" };
        lines.push(format!("server {:?}, {found}: {}", self.name, ways.join(", ")));
        lines.extend(self.record.as_ref().map(|record| {
            let when = if record.is_on_start { "" } else { " when a controller wants it" };
            format!("recordings{when} in {}", record.folder.display())
        }));
        lines.push(self.who());
        lines
    }

    /// Who may watch, and who may change things.
    pub fn who(&self) -> String {
        let LoginConfig { view, users } = &self.logins;
        let of =
            |role| users.iter().filter(|user| user.role == role).map(|user| user.name.as_str()).collect::<Vec<_>>();
        let (viewers, controllers) = (of(Role::Viewer), of(Role::Controller));
        let watch = match view {
            View::Open => "everybody may watch".to_owned(),
            View::RequiresLogin => format!("{} may watch", [&controllers[..], &viewers].concat().join(", ")),
        };
        let change = match &controllers[..] {
            [] => "nobody may".to_owned(),
            names => format!("{} may", names.join(", ")),
        };
        format!("{watch}; {change} change things")
    }
}

fn source(camera: &CameraConfig) -> String {
    let source = &camera.source;
    let file = source.file.as_ref().map(|file| file.display().to_string());
    let named = file.or(source.url.as_ref().map(ToString::to_string));
    let named = named
        .or_else(|| source.pip.as_ref().map(pip))
        .or_else(|| source.device.clone())
        .or_else(|| source.pipeline.clone());
    match (named, source.kind) {
        (Some(named), kind) => format!("{} {named}", kind.name()),
        (None, SourceKind::Auto) => "the first that is found, else a test picture".to_owned(),
        (None, kind) => kind.name(),
    }
}

fn pip(config: &PipConfig) -> String {
    let [main, small] = &config.parts;
    let Layout { position, scale, border } = config.layout;
    if !config.is_enabled {
        return format!("{}, without {} (pip-enabled)", main.name, small.name);
    }
    let border = if border > 0 { format!(" with a border of {border} pixels") } else { String::new() };
    format!("with {} in a corner ({}) of {}, at {scale} of its size{border}", small.name, position.name(), main.name)
}

fn stream(camera: &CameraConfig, stream: &StreamConfig) -> String {
    let encode = &stream.encode;
    let codec = encode.codec;
    if camera.source.is_passed_through() && stream.name == camera.streams[0].name {
        return format!("{}, passed through", codec.title());
    }
    let size = encode.resolution.map_or_else(|| "the source's size".to_owned(), |size| size.to_string());
    let fps = encode.fps.map_or_else(|| "the source's rate".to_owned(), |fps| format!("{fps} fps"));
    let automatic = encode.resolution.zip(encode.fps);
    let automatic = automatic.map(|(size, fps)| auto_bitrate(codec, size, fps, encode.max_quality));
    let bitrate = encode.bitrate.or(automatic);
    let bitrate = bitrate.map_or_else(|| "a bit rate by size and rate".to_owned(), |bitrate| bitrate.to_string());
    let encoder = match &encode.encoder {
        EncoderChoice::Auto => "the first encoder that works",
        EncoderChoice::Element(element) => element,
    };
    format!("{}, {size} at {fps}, {bitrate}, by {encoder}", codec.title())
}
