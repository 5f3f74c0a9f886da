//! OBS Studio with a Media Source, recording what it shows. It asks its makers' servers for news at each start: run it
//! in a network of its own.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use rov_common::stamp::Stamp;
use serde_json::json;
use tempfile::TempDir;

use crate::media;
use crate::process::{Process, program};
use crate::screen::Screen;

/// Of its canvas, and of the stream, so that nothing is scaled.
const WIDTH: usize = 320;
const HEIGHT: usize = 240;

pub struct Obs {
    pub process: Process,
    // Dropped after the process, which draws on the one and writes into the other to the end.
    _screen: Screen,
    folder: TempDir,
    /// So many bytes of the recording were looked at.
    read: u64,
}

impl Obs {
    /// Starts it with `settings` of a Media Source, and it records.
    pub fn start(settings: serde_json::Value) -> Self {
        let screen = Screen::start();
        let folder = TempDir::new().expect("a temporary folder");
        let write = |name: &str, text: String| {
            let file = folder.path().join(name);
            fs::create_dir_all(file.parent().expect("a folder")).expect("folders");
            fs::write(file, text).expect("a file");
        };
        // Version 31 and newer keep in the second what was in the first.
        for name in ["global.ini", "user.ini"] {
            // Without the first, a wizard asks for settings.
            let text = "[General]\nFirstRun=true\nEnableAutoUpdates=false\n[Basic]\nProfile=rov\nProfileDir=rov\n\
                        SceneCollection=rov\nSceneCollectionFile=rov\n";
            write(&format!("obs-studio/{name}"), text.to_owned());
        }
        let profile = format!(
            "[General]\nName=rov\n[Video]\nBaseCX={WIDTH}\nBaseCY={HEIGHT}\nOutputCX={WIDTH}\nOutputCY={HEIGHT}\n\
             FPSType=1\nFPSInt=10\n[Output]\nMode=Simple\n[SimpleOutput]\nFilePath={}\nRecFormat=mkv\nRecFormat2=mkv\n\
             RecQuality=Stream\nStreamEncoder=x264\nPreset=ultrafast\nVBitrate=2000\n",
            folder.path().display()
        );
        write("obs-studio/basic/profiles/rov/basic.ini", profile);
        let item = json!({
            "name": "ROV", "id": 1, "visible": true, "pos": { "x": 0.0, "y": 0.0 }, "scale": { "x": 1.0, "y": 1.0 },
        });
        let scenes = json!({
            "name": "rov",
            "current_scene": "Scene",
            "current_program_scene": "Scene",
            "scene_order": [{ "name": "Scene" }],
            "sources": [
                { "id": "ffmpeg_source", "name": "ROV", "settings": settings },
                { "id": "scene", "name": "Scene", "settings": { "id_counter": 1, "items": [item] } },
            ],
        });
        write("obs-studio/basic/scenes/rov.json", scenes.to_string());

        let mut command = Command::new(program("obs", "obs-studio"));
        command.args(["--startrecording", "--multi", "--disable-updater"]);
        command.env_remove("WAYLAND_DISPLAY").env("DISPLAY", &screen.display).env("QT_QPA_PLATFORM", "xcb");
        for variable in ["HOME", "XDG_CONFIG_HOME", "XDG_RUNTIME_DIR"] {
            command.env(variable, folder.path());
        }
        Self { process: Process::spawn("obs", &mut command), _screen: screen, folder, read: 0 }
    }

    /// The marks of all pictures that it has recorded so far; none unless there is more than at the last call.
    pub fn recorded(&mut self) -> Option<Vec<Stamp>> {
        let file = self.recording()?;
        let length = fs::metadata(&file).expect("a file").len();
        let more = std::mem::replace(&mut self.read, length) < length;
        more.then(|| media::marks(&["-i", file.to_str().expect("plain characters")], WIDTH, HEIGHT))
    }

    fn recording(&self) -> Option<PathBuf> {
        let files = fs::read_dir(self.folder.path()).expect("the folder");
        files.filter_map(|file| Some(file.ok()?.path())).find(|file| file.extension().is_some_and(|end| end == "mkv"))
    }
}
