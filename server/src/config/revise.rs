//! The configuration with other options of its server, cameras and streams, but with the same cameras, names and
//! addresses, which its start has settled.

use super::{
    CameraConfig, Config, ConfigError, Misset, PipConfig, SourceConfig, StreamConfig, check_publish, logins, pip,
    transports,
};
use crate::cli::{CameraOptions, MachineOptions, StreamOptions};

/// Options as they were given, of a camera or a stream with their places in the configuration.
pub enum OptionsOf<'a> {
    Server(&'a mut MachineOptions),
    Camera(usize, &'a mut CameraOptions),
    Stream(usize, usize, &'a mut StreamOptions),
}

impl Config {
    /// Made again of what it was made of, after `revise` has changed that.
    ///
    /// # Errors
    /// Names the option that cannot be so.
    pub fn revised(&self, revise: impl Fn(OptionsOf)) -> Result<Self, ConfigError> {
        let cameras = self.cameras.iter().enumerate().map(|(at, camera)| camera.revised(at, &revise));
        let mut cameras = cameras.collect::<Result<Vec<_>, _>>()?;
        pip::join(&mut cameras).map_err(|(_, misset)| ConfigError::from(misset))?;
        let mut given = self.given.clone();
        revise(OptionsOf::Server(&mut given.options));
        let transports = transports(&given.options);
        cameras.iter().try_for_each(|camera| check_publish(&camera.source, transports))?;
        let mut new = Self::with(&given, transports, cameras)?;
        logins::check_rtp(self.logins.view, transports, "the server asks for a login")?;
        logins::set_digest(&mut new.rtsp, &self.logins);
        let revised = Self {
            cameras: new.cameras,
            webrtc: new.webrtc,
            rtp: new.rtp,
            rtsp: new.rtsp,
            max_viewers: new.max_viewers,
            tether: new.tether,
            alignment: new.alignment,
            ice_servers: new.ice_servers,
            ..self.clone()
        };
        revised.check_names().map_err(|misnamed| ConfigError(misnamed.message))?;
        Ok(revised)
    }
}

impl CameraConfig {
    fn revised(&self, at: usize, revise: &impl Fn(OptionsOf)) -> Result<Self, ConfigError> {
        let mut given = self.given.options.clone();
        revise(OptionsOf::Camera(at, &mut given));
        let new = SourceConfig::new(&given)?;
        let pip = PipConfig::new(self.source.kind, &given)?;
        // What is captured was settled at the start, as where all cameras that are found are taken.
        let source = SourceConfig { flip: new.flip, frozen_after: new.frozen_after, pip, ..self.source.clone() };
        let mut streams = Vec::new();
        for (number, stream) in self.streams.iter().enumerate() {
            let mut given = stream.given.clone();
            revise(OptionsOf::Stream(at, number, &mut given.options));
            let is_decoded = source.is_passed_through() && number > 0;
            let mut new = StreamConfig::new(stream.name.clone(), &source, is_decoded, &given)?;
            new.encode.rest_after = stream.encode.rest_after;
            streams.push(StreamConfig { given: stream.given.clone(), ..new });
        }
        Ok(Self { source, streams, ..self.clone() })
    }
}

impl From<Misset> for ConfigError {
    fn from(misset: Misset) -> Self {
        Self(format!("--{}", misset.message))
    }
}
