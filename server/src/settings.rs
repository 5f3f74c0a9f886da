//! What can be changed while the server runs: one table (`table`), of the server, of each camera and of each stream. A
//! value that was given on the command line or in the configuration file wins, and cannot be changed here. What is
//! changed is kept in the state folder (`kept`), and is there again after a restart.
//!
//! A change of several settings is made as a whole or not at all: all are written into the options that were given, of
//! which one configuration is made, with the checks of the command line and the file. What is in effect (`running`) and
//! what is wanted are two configurations: where they differ, a restart is waited for.

mod kept;
mod table;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rov_common::api::{Alignment, IceServer, SettingsEvent};
use rov_common::sync::lock;
use serde::Serialize;
use serde_json::{Map, Value, json};
use thiserror::Error;

pub use self::kept::Values;
use self::kept::{Kept, KeptFile};
pub use self::table::{Access, Applies, Field, Kind, SETTINGS, Setting};
use crate::config::{Config, ConfigError, EncodeConfig, EncoderChoice, OptionsOf, OverlayConfig};
use crate::config_file::{self, Given};
use crate::output::recording::RecordingOutput;
use crate::overlay::Overlays;
use crate::pipeline::encoder;
use crate::supervisor::change::{Handle, Refused};

/// For a change of the same camera to be through.
const TURN_LIMIT: Duration = Duration::from_secs(10);

/// Whose settings: a camera and a stream by their places in the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    Server,
    Camera(usize),
    Stream(usize, usize),
}

/// All settings of a server.
pub struct Settings {
    /// As it was given, without what was changed.
    base: Config,
    /// Without anything given.
    usual: Config,
    state: Mutex<State>,
    /// Where what is changed is kept, or why nothing is.
    file: Result<Arc<KeptFile>, String>,
    /// One change at a time of the server, and of each camera.
    changing: Vec<tokio::sync::Mutex<()>>,
    writing: tokio::sync::Mutex<()>,
    /// By which cameras are changed while they run, in the order of the configuration; without any, all wait for a
    /// restart.
    cameras: Vec<Handle>,
    /// None, as without any cameras: those of all streams wait.
    overlays: Option<Arc<Overlays>>,
    /// Of each stream; empty where nothing can be recorded.
    recordings: Vec<Arc<RecordingOutput>>,
}

struct State {
    /// But for what its camera says of itself.
    running: Config,
    wanted: Config,
    kept: Kept,
}

/// Why nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    #[error("there is no setting {name:?} here, only {known}")]
    Unknown { name: String, known: String },
    #[error("{name}: can only be read")]
    ReadOnly { name: String },
    #[error("{name}: is given by {by}, which wins: take it out there to change it here")]
    Locked { name: String, by: Given },
    #[error("{name}: {message}")]
    Wrong { name: String, message: String },
    /// Several were to be changed, and nothing says which of them is wrong.
    #[error("{0}")]
    WrongTogether(String),
    #[error("{0}")]
    NotNow(String),
}

/// What has come of a change.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Changed {
    /// What is in effect.
    pub applied: Values,
    /// What waits for a restart of the server.
    pub waiting: Values,
    /// Why it is not there again after a restart.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_kept: Option<String>,
}

impl Settings {
    /// Those of a server with the configuration `base`, and with what was changed before and is kept in its folder.
    /// What of that cannot be read, or is not right any more, is logged and left out.
    pub fn of(base: Config) -> Self {
        let file = KeptFile::of(&base);
        let kept = file.as_ref().map(|file| Kept::read(&file.path)).unwrap_or_default();
        Self::with(base, kept, file)
    }

    fn with(base: Config, kept: Kept, file: Result<Arc<KeptFile>, String>) -> Self {
        // Nothing that was given cannot be wrong.
        let usual = config_file::parse("").ok().and_then(|options| Config::new(&options).ok());
        let usual = usual.unwrap_or_else(|| base.clone());
        let (kept, running) = right_of(&base, kept);
        let state = State { wanted: running.clone(), running, kept };
        Self {
            usual,
            state: Mutex::new(state),
            file,
            changing: (0..=base.cameras.len()).map(|_| tokio::sync::Mutex::default()).collect(),
            writing: tokio::sync::Mutex::default(),
            cameras: Vec::new(),
            overlays: None,
            recordings: Vec::new(),
            base,
        }
    }

    /// Those of the same server without what is kept; None: that makes no difference.
    pub fn as_given(&self) -> Option<Self> {
        let is_changed = lock(&self.state).running != self.base;
        is_changed.then(|| Self::with(self.base.clone(), Kept::default(), self.file.clone()))
    }

    /// Gives the file of what is kept, with which the server does not start, another name, which is returned.
    pub fn set_aside(&self, why: &anyhow::Error) -> Option<PathBuf> {
        let file = self.file.as_ref().ok()?;
        kept::set_aside(&file.path, &format!("keeps the server from its start ({why:#})"))
    }

    /// What was set aside was not to blame.
    pub fn take_back(&self, aside: &Path) {
        let Some(file) = self.file.as_ref().ok().map(|file| &file.path).filter(|file| !file.exists()) else { return };
        match std::fs::rename(aside, file) {
            Ok(()) => tracing::warn!("that is not for what was kept, which is {} again", file.display()),
            Err(error) => tracing::warn!("{} stays: {error}", aside.display()),
        }
    }

    /// With the handles of all cameras, in the order of the configuration.
    pub fn with_cameras(self, cameras: Vec<Handle>) -> Self {
        Self { cameras, ..self }
    }

    pub fn with_overlays(self, overlays: Arc<Overlays>) -> Self {
        Self { overlays: Some(overlays), ..self }
    }

    pub fn with_recordings(self, recordings: Vec<Arc<RecordingOutput>>) -> Self {
        Self { recordings, ..self }
    }

    /// What is in effect.
    pub fn running(&self) -> Config {
        let mut running = lock(&self.state).running.clone();
        for (config, handle) in running.cameras.iter_mut().zip(&self.cameras) {
            let now = handle.camera();
            config.source.flip = now.source.flip;
            config.source.pip.clone_from(&now.source.pip);
            for (stream, now) in config.streams.iter_mut().zip(&now.streams) {
                stream.encode.clone_from(&now.encode);
            }
        }
        running
    }

    /// What browsers are told.
    pub fn ice_servers(&self) -> Vec<IceServer> {
        lock(&self.state).running.ice_servers.clone()
    }

    pub fn alignment(&self) -> Alignment {
        lock(&self.state).running.alignment
    }

    /// A setting, with all that is known of it.
    ///
    /// # Errors
    /// Where there is none of this name.
    pub fn one(&self, scope: Scope, name: &str) -> Result<Value, Refusal> {
        let setting = self.find(scope, name)?;
        Ok(self.describe(&self.running(), &lock(&self.state).wanted, scope, setting))
    }

    /// All of `scope`, by name.
    pub fn all(&self, scope: Scope) -> Value {
        let (running, wanted) = (self.running(), lock(&self.state).wanted.clone());
        let describe = |setting: &Setting| self.describe(&running, &wanted, scope, setting);
        Value::Object(self.of_scope(scope).map(|setting| (setting.name.to_owned(), describe(setting))).collect())
    }

    /// All of the server, its cameras and their streams.
    pub fn everything(&self) -> Value {
        let cameras = self.base.cameras.iter().enumerate().map(|(at, camera)| {
            let streams = camera.streams.iter().enumerate();
            let streams = streams.map(|(number, stream)| (stream.name.clone(), self.all(Scope::Stream(at, number))));
            let streams: Map<_, _> = streams.collect();
            (camera.name.clone(), json!({ "settings": self.all(Scope::Camera(at)), "streams": streams }))
        });
        let cameras: Map<_, _> = cameras.collect();
        json!({ "server": self.all(Scope::Server), "cameras": cameras })
    }

    /// A camera by its name, or a stream of it.
    pub fn scope(&self, camera: &str, stream: Option<&str>) -> Option<Scope> {
        let at = self.base.cameras.iter().position(|config| config.name == camera)?;
        let Some(stream) = stream else { return Some(Scope::Camera(at)) };
        let number = self.base.cameras[at].streams.iter().position(|config| config.name == stream)?;
        Some(Scope::Stream(at, number))
    }

    /// The names of all streams within their cameras, each once.
    pub fn stream_names(&self) -> Vec<String> {
        let names = self.base.streams().map(|(_, stream)| stream.name.clone());
        let mut names: Vec<_> = names.collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// Whose settings these are, in words.
    pub fn place(&self, scope: Scope) -> String {
        match scope {
            Scope::Server => "the server".to_owned(),
            Scope::Camera(camera) => format!("camera {}", self.base.cameras[camera].name),
            Scope::Stream(camera, stream) => {
                let camera = &self.base.cameras[camera];
                format!("stream {}/{}", camera.name, camera.streams[stream].name)
            }
        }
    }

    /// Whether the setting of this name was given at the start, which wins.
    pub fn is_locked(&self, scope: Scope, name: &str) -> bool {
        self.find(scope, name)
            .is_ok_and(|setting| setting.keys.iter().any(|key| given(&self.base, scope, key).is_some()))
    }

    /// What those who follow are told of a change `by` somebody.
    pub fn event(&self, scope: Scope, changed: &Changed, by: &str) -> SettingsEvent {
        let (camera, stream) = match scope {
            Scope::Server => (None, None),
            Scope::Camera(camera) => (Some(camera), None),
            Scope::Stream(camera, stream) => (Some(camera), Some((camera, stream))),
        };
        SettingsEvent {
            camera: camera.map(|camera| self.base.cameras[camera].name.clone()),
            stream: stream.map(|(camera, stream)| self.base.cameras[camera].streams[stream].name.clone()),
            applied: changed.applied.clone(),
            waiting: changed.waiting.clone(),
            by: by.to_owned(),
        }
    }

    /// Of what the setting of this name is, where the stream with this place in the catalogue is meant, and its camera.
    ///
    /// # Errors
    /// Where there is none of this name.
    pub fn scope_of(&self, name: &str, stream: usize) -> Result<Scope, Refusal> {
        let mut streams = Scope::all(&self.base).filter(|scope| matches!(scope, Scope::Stream(..)));
        let scope = streams.nth(stream).unwrap_or(Scope::Stream(0, 0));
        let Scope::Stream(camera, _) = scope else { return Ok(scope) };
        let places = [Scope::Server, Scope::Camera(camera), scope];
        let found = places.into_iter().find(|place| self.find(*place, name).is_ok());
        found.ok_or_else(|| {
            let known = places.iter().flat_map(|place| self.of_scope(*place)).map(|setting| setting.name);
            Refusal::Unknown { name: name.to_owned(), known: known.collect::<Vec<_>>().join(", ") }
        })
    }

    /// Gives settings of `scope` other values, all or none of them; null: what it would be without.
    ///
    /// # Errors
    /// By the first that cannot be.
    ///
    /// Has to be waited for to its end, which may take long: else what is in effect is not recorded.
    pub async fn change(&self, scope: Scope, values: &Values) -> Result<Changed, Refusal> {
        let place = match scope {
            Scope::Server => 0,
            Scope::Camera(camera) | Scope::Stream(camera, _) => camera + 1,
        };
        let turn = tokio::time::timeout(TURN_LIMIT, self.changing[place].lock()).await;
        let _one_at_a_time = turn.map_err(|_| {
            let place = self.place(scope);
            Refusal::NotNow(format!("another change of {place} or its camera is not through yet: try again"))
        })?;
        let mut kept = lock(&self.state).kept.clone();
        for (name, value) in values {
            let setting = self.find(scope, name)?;
            self.check(scope, setting, value)?;
            let of_scope = kept.values(&self.base, scope);
            match value {
                Value::Null => of_scope.remove(name),
                value => of_scope.insert(name.clone(), setting.kind.merged(of_scope.get(name), value)),
            };
        }
        let wanted = configured(&self.base, &kept).map_err(|error| wrong(values, &error))?;
        self.apply(scope, values, &wanted).await?;
        {
            // Others may have been changed meanwhile.
            let mut state = lock(&self.state);
            let of_scope = std::mem::take(kept.values(&self.base, scope));
            *state.kept.values(&self.base, scope) = of_scope;
            state.wanted = configured(&self.base, &state.kept).map_err(|error| wrong(values, &error))?;
        }
        let mut changed = Changed { not_kept: self.keep().await, ..Changed::default() };
        let running = self.running();
        for setting in values.keys().filter_map(|name| self.find(scope, name).ok()) {
            let (now, wanted) = (setting.read(&running, scope), setting.read(&wanted, scope));
            let place = if now == wanted { &mut changed.applied } else { &mut changed.waiting };
            place.insert(setting.name.to_owned(), wanted);
        }
        Ok(changed)
    }

    /// What can be in effect at once. What cannot at all is refused, and nothing is changed then.
    async fn apply(&self, scope: Scope, values: &Values, wanted: &Config) -> Result<(), Refusal> {
        let result = match scope {
            Scope::Server => {
                let mut state = lock(&self.state);
                state.running.alignment = wanted.alignment;
                state.running.ice_servers.clone_from(&wanted.ice_servers);
                return Ok(());
            }
            Scope::Camera(camera) => {
                let Some(handle) = self.cameras.get(camera) else { return Ok(()) };
                let source = &wanted.cameras[camera].source;
                match (&source.pip, &handle.camera().source.pip) {
                    (None, _) => handle.flip(source.flip).await,
                    (Some(pip), Some(now)) if pip.shows_cameras_of(now) => handle.pip(pip.clone()).await,
                    // Its pipeline is made for the cameras that it shows.
                    (Some(_), _) => return Ok(()),
                }
            }
            Scope::Stream(camera, stream) => {
                let Some(handle) = self.cameras.get(camera) else { return Ok(()) };
                // Viewers cannot follow to another codec: that one waits.
                let codec = handle.camera().streams[stream].encode.codec;
                let encode = EncodeConfig { codec, ..wanted.cameras[camera].streams[stream].encode.clone() };
                let overlay = &wanted.cameras[camera].streams[stream].overlay;
                let former = self.write_over(camera, stream, overlay).map_err(|error| wrong(values, &error))?;
                let changed = match handle.camera().streams[stream].encode == encode {
                    true => None,
                    false => Some(handle.change(stream, encode).await),
                };
                if changed.as_ref().is_some_and(Result::is_err) {
                    // What was so before can be so again.
                    let _ = self.write_over(camera, stream, &former);
                } else {
                    self.record(camera, stream, wanted.cameras[camera].streams[stream].is_recorded);
                }
                let Some(changed) = changed else { return Ok(()) };
                changed
            }
        };
        let refused = match result {
            Ok(_) => return Ok(()),
            Err(refused) => refused,
        };
        let message = refused.to_string();
        Err(match refused {
            Refused::Invalid(error) => wrong(values, &error),
            Refused::Busy | Refused::Ended | Refused::NotNow(_) => Refusal::NotNow(message),
            _ => wrong(values, &ConfigError(message)),
        })
    }

    /// Its place in the catalogue.
    fn place_of(&self, camera: usize, stream: usize) -> usize {
        self.base.cameras[..camera].iter().map(|camera| camera.streams.len()).sum::<usize>() + stream
    }

    /// Whether a stream is recorded from now on.
    fn record(&self, camera: usize, stream: usize, on: bool) {
        if let Some(recording) = self.recordings.get(self.place_of(camera, stream)) {
            recording.set_on(on);
            lock(&self.state).running.cameras[camera].streams[stream].is_recorded = on;
        }
    }

    /// What is written over a stream's pictures from now on; returns what was before.
    fn write_over(&self, camera: usize, stream: usize, overlay: &OverlayConfig) -> Result<OverlayConfig, ConfigError> {
        let at = self.place_of(camera, stream);
        let mut state = lock(&self.state);
        let running = &mut state.running.cameras[camera].streams[stream].overlay;
        let Some(overlays) = &self.overlays else { return Ok(running.clone()) };
        overlays.all()[at].set(overlay).map_err(ConfigError)?;
        Ok(std::mem::replace(running, overlay.clone()))
    }

    /// Returns why that cannot be.
    async fn keep(&self) -> Option<String> {
        let file = match &self.file {
            Ok(file) => file.path.clone(),
            Err(why) => return Some(why.clone()),
        };
        let _one_at_a_time = self.writing.lock().await;
        let kept = lock(&self.state).kept.clone().lasting();
        let written = tokio::task::spawn_blocking(move || kept.write(&file)).await;
        let error = written.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic())).err()?;
        tracing::warn!("the settings are as before after a restart: {error:#}");
        Some(format!("{error:#}"))
    }

    fn check(&self, scope: Scope, setting: &Setting, value: &Value) -> Result<(), Refusal> {
        let name = setting.name.to_owned();
        if !setting.is_writable {
            return Err(Refusal::ReadOnly { name });
        }
        if let Some(by) = setting.keys.iter().find_map(|key| given(&self.base, scope, key)) {
            return Err(Refusal::Locked { name, by });
        }
        if value.is_null() {
            return Ok(());
        }
        setting.kind.check(value).map_err(|message| Refusal::Wrong { name: name.clone(), message })?;
        let locked = setting.kind.fields().iter().filter(|field| value.get(field.name).is_some());
        match locked.filter_map(|field| Some((field.name, given(&self.base, scope, field.key)?))).next() {
            Some((field, by)) => Err(Refusal::Locked { name: format!("{name}.{field}"), by }),
            None => Ok(()),
        }
    }

    /// The settings that there are of `scope`.
    fn of_scope(&self, scope: Scope) -> impl Iterator<Item = &'static Setting> {
        SETTINGS.iter().filter(move |setting| match (scope, &setting.access) {
            (Scope::Server, Access::Server(..)) | (Scope::Stream(..), Access::Stream(..)) => true,
            // A camera that shows two others has a layout, and no picture of its own.
            (Scope::Camera(camera), Access::Camera(..)) => {
                self.base.cameras[camera].source.pip.is_some() == setting.is_of_pip()
            }
            _ => false,
        })
    }

    fn find(&self, scope: Scope, name: &str) -> Result<&'static Setting, Refusal> {
        self.of_scope(scope).find(|setting| setting.name == name).ok_or_else(|| {
            let known: Vec<_> = self.of_scope(scope).map(|setting| setting.name).collect();
            Refusal::Unknown { name: name.to_owned(), known: known.join(", ") }
        })
    }

    fn describe(&self, running: &Config, wanted: &Config, scope: Scope, setting: &Setting) -> Value {
        let by = setting.keys.iter().find_map(|key| given(&self.base, scope, key));
        let (value, wanted) = (setting.read(running, scope), setting.read(wanted, scope));
        let mut all = setting.schema();
        all["value"] = value;
        if wanted != all["value"] {
            all["waiting"] = wanted;
        }
        all["default"] = match by {
            // What it would be, is not known of one camera among several.
            Some(_) => setting.read(&self.usual, scope.usual()),
            None => setting.read(&self.base, scope),
        };
        all["read"] = json!("viewer");
        all["write"] = json!(if setting.is_writable { "controller" } else { "nobody" });
        all["applies"] = json!(setting.applies.name());
        if let Some(by) = by {
            all["locked"] = json!(by.to_string());
        }
        for field in setting.kind.fields() {
            if let Some(by) = given(&self.base, scope, field.key) {
                all["properties"][field.name]["locked"] = json!(by.to_string());
            }
        }
        all
    }
}

/// The value of a setting as logs may have it: what may be a credential, by mistake too, is not in it.
pub fn shown(name: &str, value: &Value) -> Value {
    let is_of_servers = SETTINGS.iter().any(|setting| setting.name == name && matches!(setting.kind, Kind::IceServers));
    if is_of_servers { without_credentials(value) } else { value.clone() }
}

fn without_credentials(servers: &Value) -> Value {
    let hidden = || json!("***");
    let field = |(name, value): (&String, &Value)| match (name.as_str(), value) {
        ("urls", Value::Array(urls)) => {
            let is_plain = |url: &Value| url.as_str().is_some_and(|url| !url.contains('@'));
            (name.clone(), urls.iter().map(|url| if is_plain(url) { url.clone() } else { hidden() }).collect())
        }
        _ => (name.clone(), hidden()),
    };
    match servers {
        Value::Array(all) => all.iter().map(without_credentials).collect(),
        Value::Object(fields) => Value::Object(fields.iter().map(field).collect()),
        Value::Null => Value::Null,
        _ => hidden(),
    }
}

impl Scope {
    /// The same of a server with one camera and one stream.
    fn usual(self) -> Self {
        match self {
            Self::Server => Self::Server,
            Self::Camera(_) => Self::Camera(0),
            Self::Stream(..) => Self::Stream(0, 0),
        }
    }

    fn all(config: &Config) -> impl Iterator<Item = Self> {
        let of_camera = |(at, camera): (usize, &crate::config::CameraConfig)| {
            let streams = (0..camera.streams.len()).map(move |number| Self::Stream(at, number));
            std::iter::once(Self::Camera(at)).chain(streams)
        };
        std::iter::once(Self::Server).chain(config.cameras.iter().enumerate().flat_map(of_camera))
    }
}

impl Setting {
    /// Its value in a configuration; null where it is of something else.
    fn read(&self, config: &Config, scope: Scope) -> Value {
        match (&self.access, scope) {
            (Access::Server(read, _), Scope::Server) => read(config),
            (Access::Camera(read, _), Scope::Camera(camera)) => read(&config.cameras[camera]),
            (Access::Stream(read, _), Scope::Stream(camera, stream)) => read(&config.cameras[camera].streams[stream]),
            _ => Value::Null,
        }
    }

    fn write(&self, options: &mut OptionsOf, value: &Value) {
        match (&self.access, options) {
            (Access::Server(_, write), OptionsOf::Server(options)) => write(options, value),
            (Access::Camera(_, write), OptionsOf::Camera(_, options)) => write(options, value),
            (Access::Stream(_, write), OptionsOf::Stream(.., options)) => write(options, value),
            _ => {}
        }
    }
}

/// Where an option of `scope` was given.
fn given(config: &Config, scope: Scope, key: &str) -> Option<Given> {
    match scope {
        Scope::Server => config.given.given(key),
        Scope::Camera(camera) => config.cameras[camera].given.given(key),
        Scope::Stream(camera, stream) => config.cameras[camera].streams[stream].given.given(key),
    }
}

/// The configuration with what is kept, but for what was given; such a one with which the server starts, as far as that
/// can be seen here.
fn configured(base: &Config, kept: &Kept) -> Result<Config, ConfigError> {
    let config = revised(base, kept)?;
    if let Some(rtsp) = config.rtsp.as_ref().filter(|rtsp| rtsp.port != 0 && rtsp.port == config.signal_port) {
        return Err(ConfigError(format!("--rtsp-port {}: is that of HTTP (--signal-port), take another", rtsp.port)));
    }
    for (_, stream) in config.streams() {
        if let EncoderChoice::Element(element) = &stream.encode.encoder
            && let Some(codec) = encoder::codec_of(element).filter(|codec| *codec != stream.encode.codec)
        {
            let message =
                format!("--encoder {element} encodes {}, --codec {} needs another", codec.title(), stream.encode.codec);
            return Err(ConfigError(message));
        }
    }
    Ok(config)
}

fn revised(base: &Config, kept: &Kept) -> Result<Config, ConfigError> {
    base.revised(|mut options| {
        let scope = match &options {
            OptionsOf::Server(_) => Scope::Server,
            OptionsOf::Camera(camera, _) => Scope::Camera(*camera),
            OptionsOf::Stream(camera, stream, _) => Scope::Stream(*camera, *stream),
        };
        let is_given = |key: &str| given(base, scope, key).is_some();
        for (name, value) in kept.get(base, scope).into_iter().flatten() {
            let Some(setting) = SETTINGS.iter().find(|setting| setting.name == name) else { continue };
            if !setting.keys.iter().any(|key| is_given(key)) {
                let mut value = value.clone();
                let locked = setting.kind.fields().iter().filter(|field| is_given(field.key));
                if let Some(fields) = value.as_object_mut() {
                    locked.for_each(|field| drop(fields.remove(field.name)));
                }
                setting.write(&mut options, &value);
            }
        }
    })
}

/// Of what is kept, what can be so, and the configuration with it. What is left out is logged.
fn right_of(base: &Config, kept: Kept) -> (Kept, Config) {
    // That of a newer version has no effect, and stays.
    let is_known = |name: &str| SETTINGS.iter().any(|setting| setting.name == name);
    let is_right = |(name, value): (&String, &Value)| {
        if !is_known(name) {
            return true;
        }
        let setting = SETTINGS.iter().find(|setting| setting.name == name && setting.is_writable);
        setting.is_some_and(|setting| setting.kind.check(value).is_ok())
    };
    for (name, _) in Scope::all(base).filter_map(|scope| kept.get(base, scope)).flatten() {
        if !is_known(name) {
            tracing::warn!("a kept setting has no effect, and stays: this version does not know {name}");
        }
    }
    if Scope::all(base).all(|scope| kept.get(base, scope).into_iter().flatten().next().is_none()) {
        return (kept, base.clone());
    }
    let all_right = Scope::all(base).all(|scope| kept.get(base, scope).into_iter().flatten().all(is_right));
    if let (true, Ok(config)) = (all_right, configured(base, &kept)) {
        return (kept, config);
    }
    // With those of cameras that are absent now.
    let (mut right, mut config) = (kept.clone(), base.clone());
    for scope in Scope::all(base).filter(|scope| kept.get(base, *scope).is_some()) {
        right.values(base, scope).clear();
    }
    for scope in Scope::all(base) {
        for (name, value) in kept.get(base, scope).into_iter().flatten() {
            let mut more = right.clone();
            more.values(base, scope).insert(name.clone(), value.clone());
            match configured(base, &more) {
                Ok(with) if is_right((name, value)) => (right, config) = (more, with),
                Ok(_) => tracing::warn!("a kept setting is left out: {name} cannot be {}", shown(name, value)),
                Err(error) => {
                    tracing::warn!("a kept setting is left out: {name} cannot be {}: {error}", shown(name, value))
                }
            }
        }
    }
    (right, config)
}

/// What the configuration says is wrong, by the name of the setting: of those that were to be changed, the one whose
/// option it names, or the only one.
fn wrong(values: &Values, error: &ConfigError) -> Refusal {
    let is_of = |name: &str, option: &str| {
        SETTINGS.iter().any(|setting| setting.name == name && setting.all_keys().any(|key| key == option))
    };
    let named = error.options().find_map(|option| values.keys().find(|name| is_of(name, option)));
    let only = values.keys().next().filter(|_| values.len() == 1);
    let message = error.to_string();
    match named.or(only) {
        Some(name) => Refusal::Wrong { name: name.clone(), message },
        None => Refusal::WrongTogether(message),
    }
}
