//! The values that were changed, and the file that keeps them: JSON in the server's state folder.

use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use rov_common::state_file;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Scope;
use super::table::{SETTINGS, Setting};
use crate::config::Config;

/// It has some kilobytes.
const LARGEST_FILE: u64 = 64 << 10;

/// Values of settings by name.
pub type Values = BTreeMap<String, Value>;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Kept {
    #[serde(skip_serializing_if = "Values::is_empty")]
    server: Values,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    cameras: BTreeMap<String, OfCamera>,
    /// Of a newer version: nothing here, and written again.
    #[serde(flatten)]
    unknown: Values,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct OfCamera {
    #[serde(skip_serializing_if = "Values::is_empty")]
    settings: Values,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    streams: BTreeMap<String, Values>,
    #[serde(flatten)]
    unknown: Values,
}

/// Where what is changed of a server is kept.
#[derive(Debug)]
pub struct KeptFile {
    pub path: PathBuf,
    /// Held as long as the server is there, where nothing else tells it from others.
    _own: Option<File>,
}

impl KeptFile {
    /// # Errors
    /// Says why there is none.
    pub fn of(config: &Config) -> Result<Arc<Self>, String> {
        let Some(folder) = &config.state_dir else {
            return Err("there is no folder to keep it in: start the server with --state-dir".to_owned());
        };
        let path = folder.join(format!("settings-{}.json", config.signal_port));
        // A port has one server. Of those whose ports the system chooses, the first has the file.
        let own = match config.signal_port {
            0 => state_file::claim(&path).map(Some),
            _ => Ok(None),
        };
        match own {
            Err(TryLockError::WouldBlock) => {
                let why = format!(
                    "{} is that of another server that runs, whose port the system chose as well: give this one a \
                     --signal-port or a --state-dir of its own",
                    path.display()
                );
                tracing::warn!("settings are as they were given, and changes are not kept: {why}");
                Err(why)
            }
            // Where nothing can be written, that is told when something is to be.
            Err(TryLockError::Error(_)) => Ok(Arc::new(Self { path, _own: None })),
            Ok(own) => Ok(Arc::new(Self { path, _own: own })),
        }
    }
}

impl Kept {
    pub fn get(&self, config: &Config, scope: Scope) -> Option<&Values> {
        match scope {
            Scope::Server => Some(&self.server),
            Scope::Camera(camera) => Some(&self.cameras.get(&config.cameras[camera].name)?.settings),
            Scope::Stream(camera, stream) => {
                let camera = &config.cameras[camera];
                self.cameras.get(&camera.name)?.streams.get(&camera.streams[stream].name)
            }
        }
    }

    pub fn values(&mut self, config: &Config, scope: Scope) -> &mut Values {
        let camera = match scope {
            Scope::Server => return &mut self.server,
            Scope::Camera(camera) | Scope::Stream(camera, _) => &config.cameras[camera],
        };
        let of_camera = self.cameras.entry(camera.name.clone()).or_default();
        match scope {
            Scope::Stream(_, stream) => of_camera.streams.entry(camera.streams[stream].name.clone()).or_default(),
            _ => &mut of_camera.settings,
        }
    }

    /// What is to be so again after a restart.
    pub fn lasting(mut self) -> Self {
        let is_kept = |name: &str| SETTINGS.iter().find(|setting| setting.name == name).is_none_or(Setting::is_kept);
        let of_streams = self.cameras.values_mut().flat_map(|camera| camera.streams.values_mut());
        of_streams.for_each(|values| values.retain(|name, _| is_kept(name)));
        self
    }

    /// What the file has. One that cannot be read is logged and stays; one that is broken, as by a power cut, is set
    /// aside.
    pub fn read(file: &Path) -> Self {
        let name = file.display();
        let text = match state_file::read(file, LARGEST_FILE) {
            Ok(None) => return Self::default(),
            Ok(Some(text)) => text,
            Err(error) => {
                tracing::warn!("cannot read {name}, which stays: {error}; settings are as they were given");
                return Self::default();
            }
        };
        let kept: Self = serde_json::from_str(&text).unwrap_or_else(|error| {
            set_aside(file, &format!("has no settings ({error})"));
            Self::default()
        });
        let of_cameras = kept.cameras.values().flat_map(|camera| camera.unknown.keys());
        for unknown in kept.unknown.keys().chain(of_cameras) {
            tracing::warn!(
                "{name} has {unknown:?}, which this version does not know: it has no effect, and stays there"
            );
        }
        kept
    }

    /// Into the file, as a whole or not at all.
    pub fn write(&self, file: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self)? + "\n";
        state_file::write(file, &text).with_context(|| format!("cannot write {}", file.display()))
    }
}

/// Says why, and returns where it is now.
pub fn set_aside(file: &Path, why: &str) -> Option<PathBuf> {
    let aside = state_file::set_aside(file);
    let now = match &aside {
        Ok(aside) => format!("it is now {}", aside.display()),
        Err(failed) => format!("it stays: {failed}"),
    };
    tracing::warn!("{} {why}: {now}; settings are as they were given", file.display());
    aside.ok()
}
