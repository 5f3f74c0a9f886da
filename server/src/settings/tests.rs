use std::path::Path;
use std::sync::Arc;

use clap::CommandFactory;
use tempfile::TempDir;

use super::*;
use crate::cli::Cli;
use crate::supervisor::change::Applied;

fn config(file: &str, arguments: &[&str], folder: &TempDir) -> Config {
    let path = folder.path().join("rov.toml");
    std::fs::write(&path, file).unwrap();
    let state = folder.path().to_str().unwrap();
    let line = ["rov-server", "--config", path.to_str().unwrap(), "--state-dir", state];
    let line = line.iter().chain(arguments).map(std::ffi::OsString::from);
    Config::new(&config_file::read(line).unwrap()).unwrap()
}

fn folder() -> TempDir {
    TempDir::new().expect("a temporary folder")
}

fn settings(arguments: &[&str], folder: &TempDir) -> Arc<Settings> {
    Arc::new(Settings::of(config("", arguments, folder)))
}

fn change(settings: &Arc<Settings>, scope: Scope, values: Value) -> Result<Changed, Refusal> {
    let values = serde_json::from_value(values).expect("an object");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    runtime.block_on(settings.change(scope, &values))
}

fn kept_in(folder: &TempDir) -> std::path::PathBuf {
    folder.path().join("settings-8080.json")
}

const STREAM: Scope = Scope::Stream(0, 0);

fn value(settings: &Settings, scope: Scope, name: &str, what: &str) -> Value {
    settings.one(scope, name).expect(name)[what].clone()
}

#[test]
fn each_setting_has_options_that_there_are_and_words_of_its_own() {
    let command = Cli::command();
    let is_typed = |key: &str| command.get_arguments().any(|option| option.get_long() == Some(key));
    for (at, setting) in SETTINGS.iter().enumerate() {
        assert!(SETTINGS[..at].iter().all(|other| other.name != setting.name), "{} is there twice", setting.name);
        assert!(!setting.about().is_empty(), "{} is not described", setting.name);
        let schema = setting.schema();
        assert!(schema.as_object().is_some_and(|all| all.values().all(|part| !part.is_null())), "{schema}");
        for key in setting.all_keys() {
            // Of what stands in a file alone, the mistake is about the value; a key that there is not is told.
            let file = match setting.access {
                Access::Camera(..) => format!("[[camera]]\n{key} = [[1]]"),
                Access::Server(..) => format!("{key} = [[1]]"),
                Access::Stream(..) => format!("[[camera]]\n[[camera.stream]]\n{key} = [[1]]"),
            };
            let mistake = config_file::parse(&file).expect_err("no value").message;
            assert!(mistake.starts_with(&format!("{key}: ")), "{}: {mistake}", setting.name);
            let is_of_files = ["alignment", "pip-enabled", "position", "scale", "border"].contains(&key);
            assert!(is_typed(key) || is_of_files, "{}: there is no --{key}", setting.name);
        }
    }
}

#[test]
fn the_readme_names_each_setting() {
    let readme = include_str!("../../../README.md");
    for setting in &SETTINGS {
        assert!(readme.contains(&format!("`{}`", setting.name)), "{}", setting.name);
    }
}

/// Values that a setting can have, and some that it cannot.
fn samples(kind: &Kind) -> (Vec<Value>, Vec<Value>) {
    let never = [json!([1]), json!({ "no such field": 1 }), json!("no such word")];
    let (right, mut wrong) = match kind {
        Kind::Switch => (vec![json!(true), json!(false)], vec![json!("on"), json!(1)]),
        Kind::Choice(choices) => (choices().into_iter().map(Value::from).collect(), vec![json!(1)]),
        Kind::Whole(range, extra) => {
            let zero = extra.zero.map(|_| json!(0));
            let over = json!(u64::from(*range.end()) + 1);
            ([json!(range.start()), json!(range.end())].into_iter().chain(zero).collect(), vec![over, json!(-1)])
        }
        Kind::Number(range, _) => {
            // Read back without a fraction where there is none.
            let plain = |end: f64| if end.fract() == 0.0 { json!(end as i64) } else { json!(end) };
            (vec![plain(*range.start()), plain(*range.end())], vec![json!(1e300), json!(-1)])
        }
        Kind::Size => (vec![json!("640x360"), json!("0x0")], vec![json!("640"), json!("641x360"), json!("8x8")]),
        Kind::Text => (vec![], vec![json!(1)]),
        Kind::Texts => (vec![], vec![json!("a")]),
        Kind::IceServers => (
            vec![
                json!([]),
                json!([{ "urls": ["stun:10.0.0.1"] }, { "urls": ["turn:a:1"], "username": "b", "credential": "c" }]),
            ],
            vec![
                json!([{ "urls": "stun:10.0.0.1" }]),
                json!([{ "urls": [] }]),
                json!([{ "urls": ["turn:10.0.0.1"] }]),
                json!([{ "urls": ["stun:10.0.0.1", "stun:10.0.0.2"] }, { "urls": vec!["stun:10.0.0.3"; 3] }]),
            ],
        ),
        Kind::Group(fields) => {
            let of_field = |field: &Field, values: Vec<Value>| {
                values.into_iter().map(|value| json!({ field.name: value })).collect::<Vec<_>>()
            };
            let right = fields.iter().flat_map(|field| of_field(field, samples(&field.kind).0)).collect();
            (right, fields.iter().flat_map(|field| of_field(field, samples(&field.kind).1)).collect())
        }
    };
    wrong.extend(never);
    (right, wrong)
}

#[test]
fn each_setting_takes_what_it_says_and_refuses_the_rest_by_its_name() {
    let folder = folder();
    for setting in SETTINGS.iter().filter(|setting| setting.is_writable) {
        let (file, scope) = match setting.access {
            Access::Server(..) => ("", Scope::Server),
            Access::Camera(..) if setting.is_of_pip() => (PIP, Scope::Camera(2)),
            Access::Camera(..) => ("", Scope::Camera(0)),
            Access::Stream(..) => ("", STREAM),
        };
        // A level allows not all sizes, a lowest rate not all rates, and without a folder nothing is recorded.
        let needed: &[&str] = match setting.name {
            "minBitrate" => &["--bitrate", "500000"],
            "recording" => &["--record", "/nowhere", "--record-when", "on-request"],
            _ => &[],
        };
        let given = [&["--width", "16", "--height", "16"], needed].concat();
        let (right, wrong) = samples(&setting.kind);
        for value in right {
            let _ = std::fs::remove_file(kept_in(&folder));
            let settings = Arc::new(Settings::of(config(file, &given, &folder)));
            let settings = if setting.name == "streamResolution" { self::settings(&[], &folder) } else { settings };
            let name = setting.name;
            let changed = change(&settings, scope, json!({ name: value })).unwrap_or_else(|error| panic!("{error}"));
            let all: Values = changed.applied.into_iter().chain(changed.waiting).collect();
            assert_eq!((all.len(), changed.not_kept), (1, None), "{name}");
            let wanted = if value.is_object() { setting.kind.merged(Some(&all[name]), &value) } else { value };
            assert_eq!(all[name], wanted, "{name}");
            change(&settings, scope, json!({ name: null })).expect("the default");
            let now = settings.one(scope, name).expect(name);
            assert_eq!((&now["value"], &now["waiting"]), (&now["default"], &Value::Null), "{name}");
        }
        let settings = Arc::new(Settings::of(config(file, &[], &folder)));
        // Any text may be written over a picture.
        for value in wrong.into_iter().filter(|value| value["text"] != "no such word") {
            match change(&settings, scope, json!({ setting.name: value })) {
                Err(Refusal::Wrong { name, .. }) if name == setting.name => {}
                other => panic!("{} = {value}: {other:?}", setting.name),
            }
        }
    }
}

const PIP: &str = "[[camera]]\nname = 'bow'\nsource = 'test'\n[[camera]]\nname = 'arm'\nsource = 'test'\n\
                   [[camera]]\nname = 'both'\nsource = 'pip'\nmain = 'bow'\npip = 'arm'\n";

#[test]
fn recording_begins_at_the_start_as_the_options_say_whatever_was_set_before() {
    let folder = folder();
    let given = ["--record", "/nowhere"];
    let settings = self::settings(&given, &folder);
    let is_recorded = |settings: &Settings| settings.one(STREAM, "recording").expect("recording")["value"].clone();
    assert_eq!(is_recorded(&settings), json!(true));
    change(&settings, STREAM, json!({ "recording": false, "streamBitrate": 2000 })).expect("right");
    let again = self::settings(&given, &folder);
    assert_eq!(is_recorded(&again), json!(true), "nobody forgets to begin it again");
    assert_eq!(again.one(STREAM, "streamBitrate").expect("it")["value"], json!(2000));
    let without = self::settings(&[], &folder);
    let refusal = change(&without, STREAM, json!({ "recording": true })).expect_err("no folder");
    assert!(refusal.to_string().contains("--record FOLDER"), "{refusal}");
}

#[test]
fn no_setting_opens_what_needs_a_login() {
    let folder = folder();
    let settings = settings(&["--user", "pilot", "--password", "deep"], &folder);
    let refusal = change(&settings, Scope::Server, json!({ "rtpEnabled": true })).expect_err("open to everybody");
    assert!(refusal.to_string().contains("RTP goes to whoever listens"), "{refusal}");
    change(&settings, STREAM, json!({ "streamBitrate": 2000 })).expect("right");
    let again = self::settings(&["--user", "pilot", "--password", "deep"], &folder);
    let rtsp = again.running().rtsp.expect("RTSP");
    assert_eq!((again.running().logins, rtsp.digest.is_some()), (again.base.logins.clone(), true));
}

#[test]
fn a_whole_number_may_be_written_with_a_point() {
    let folder = folder();
    let settings = settings(&[], &folder);
    let changed = change(&settings, STREAM, json!({ "streamBitrate": 900.0 })).expect("a whole number");
    assert_eq!(changed.waiting["streamBitrate"], json!(900));
    assert!(change(&settings, STREAM, json!({ "streamBitrate": 900.5 })).is_err());
    assert!(change(&settings, STREAM, json!({ "streamBitrate": -900.0 })).is_err());
}

#[test]
fn of_servers_whose_ports_the_system_chooses_one_has_what_is_kept() {
    let folder = folder();
    let start = || settings(&["--signal-port", "0"], &folder);
    let (first, second) = (start(), start());
    let frames = || json!({ "streamFramerate": 25 });
    assert_eq!(change(&first, STREAM, frames()).expect("right").not_kept, None);
    let why = change(&second, STREAM, frames()).expect("right").not_kept.expect("it is the other one's");
    assert!(why.contains("--signal-port") && why.contains("settings-0.json"), "{why}");
    drop((first, second));
    assert_eq!(value(&start(), STREAM, "streamFramerate", "value"), json!(25), "the next one is as the first was");
}

#[test]
fn several_of_which_nothing_says_which_is_wrong_blame_none() {
    let values = |names: &[&str]| names.iter().map(|name| ((*name).to_owned(), json!(1))).collect::<Values>();
    let fails = ConfigError("it does not work".to_owned());
    let both = values(&["keyframeInterval", "streamBitrate"]);
    assert!(matches!(wrong(&both, &fails), Refusal::WrongTogether(message) if message == "it does not work"));
    assert!(
        matches!(wrong(&values(&["streamBitrate"]), &fails), Refusal::Wrong { name, .. } if name == "streamBitrate")
    );
    let named = ConfigError("--bitrate 1: no".to_owned());
    assert!(matches!(wrong(&both, &named), Refusal::Wrong { name, .. } if name == "streamBitrate"));
}

#[test]
fn of_several_all_are_changed_or_none() {
    let folder = folder();
    let settings = settings(&[], &folder);
    let before = settings.everything();
    for (wrong, at) in [
        (json!({ "streamBitrate": 2000, "streamFramerate": "fast" }), "streamFramerate"),
        (json!({ "streamBitrate": 200, "minBitrate": 300 }), "minBitrate"),
        (json!({ "streamResolution": "1280x720", "encoderLevel": "1", "flip": "180" }), "flip"),
        (json!({ "encoderLevel": "1", "streamBitrate": 500 }), "encoderLevel"),
    ] {
        let refusal = change(&settings, STREAM, wrong).expect_err(at);
        match &refusal {
            Refusal::Wrong { name, .. } | Refusal::Unknown { name, .. } => assert_eq!(name, at, "{refusal}"),
            other => panic!("{other}"),
        }
        assert_eq!((settings.everything(), kept_in(&folder).exists()), (before.clone(), false), "{refusal}");
    }
    let changed = change(&settings, STREAM, json!({ "streamBitrate": 2000, "streamFramerate": 25 })).expect("right");
    let waiting = serde_json::to_value(changed.waiting).expect("JSON");
    assert_eq!(waiting, json!({ "streamBitrate": 2000, "streamFramerate": 25 }));
    assert_eq!(value(&settings, STREAM, "streamBitrate", "waiting"), json!(2000));
}

#[test]
fn what_was_given_is_locked_and_says_where() {
    let folder = folder();
    let file = "[[camera]]\n[[camera.stream]]\nfps = 25\nbitrate = 4000\n";
    let settings = Arc::new(Settings::of(config(file, &["--bitrate", "5000", "--rtsp-port", "0"], &folder)));
    for (scope, name, by) in [
        (STREAM, "streamFramerate", "line 3 of the configuration file"),
        (STREAM, "streamBitrate", "the command line"),
        (Scope::Server, "rtspPort", "the command line"),
    ] {
        assert_eq!(value(&settings, scope, name, "locked"), json!(by));
        let refusal = change(&settings, scope, json!({ name: null })).expect_err("locked").to_string();
        assert!(refusal.starts_with(&format!("{name}: is given by {by}")), "{refusal}");
    }
    assert_eq!(value(&settings, STREAM, "streamBitrate", "value"), json!(5000));
    assert!(matches!(change(&settings, Scope::Server, json!({ "rtspPath": [] })), Err(Refusal::ReadOnly { .. })));
}

#[test]
fn a_second_stream_has_settings_of_its_own_and_what_was_said_of_it_is_locked() {
    let folder = folder();
    let settings = settings(&["--stream2", "640x360,800", "--profile", "high"], &folder);
    let second = Scope::Stream(0, 1);
    assert_eq!(settings.scope("cam1", Some("stream2")), Some(second));
    for (name, locked) in [("streamResolution", true), ("streamBitrate", true), ("streamFramerate", false)] {
        assert_eq!(value(&settings, second, name, "locked").is_string(), locked, "{name}");
        assert!(value(&settings, STREAM, name, "locked").is_null(), "{name}");
    }
    assert_eq!(value(&settings, second, "encoderProfile", "value"), json!("high"));
    change(&settings, STREAM, json!({ "streamFramerate": 15 })).expect("of the first alone");
    let again = self::settings(&["--stream2", "640x360,800", "--profile", "high"], &folder);
    assert_eq!(value(&again, STREAM, "streamFramerate", "value"), json!(15));
    assert_eq!(value(&again, second, "streamFramerate", "value"), json!(30));
}

#[test]
fn what_was_changed_is_there_after_a_restart_unless_it_is_given_now() {
    let folder = folder();
    let before = settings(&[], &folder);
    change(&before, STREAM, json!({ "streamBitrate": 2000, "encoderPreset": "fast" })).expect("right");
    change(&before, Scope::Camera(0), json!({ "flip": "180" })).expect("right");
    let alignment = json!({ "streamAlignment": { "maxLatencyMs": 50 } });
    let applied = change(&before, Scope::Server, alignment).expect("right").applied;
    assert_eq!((applied.len(), before.alignment().max_latency_ms), (1, 50), "at once");
    change(&before, Scope::Server, json!({ "streamAlignment": { "enabled": true } })).expect("right");

    let after = settings(&["--preset", "slow"], &folder);
    let encode = after.running().default_stream().encode.clone();
    assert_eq!(encode.bitrate.map(|bitrate| bitrate.kbps()), Some(2000));
    assert_eq!(encode.preset, Some(crate::config::Preset::Slow));
    assert_eq!(after.running().cameras[0].source.flip, crate::config::Flip::Half);
    assert_eq!((after.alignment().enabled, after.alignment().max_latency_ms), (true, 50));
    assert!(value(&after, STREAM, "streamBitrate", "waiting").is_null());
}

#[test]
fn only_the_fields_of_a_layout_that_a_file_says_are_locked() {
    let folder = folder();
    let file = format!("{PIP}border = 3\n");
    let settings = Arc::new(Settings::of(config(&file, &[], &folder)));
    let scope = settings.scope("both", None).expect("the camera");
    let refusal = change(&settings, scope, json!({ "pipLayout": { "pipBorder": 1 } })).expect_err("locked");
    assert!(refusal.to_string().starts_with("pipLayout.pipBorder: is given by line 12"), "{refusal}");
    let swap = json!({ "pipLayout": { "mainSource": "arm", "pipSource": "bow", "pipPosition": "top-left" } });
    change(&settings, scope, swap).expect("free");
    let lost = change(&settings, scope, json!({ "pipLayout": { "mainSource": "stern" } })).expect_err("no such");
    assert!(lost.to_string().contains("there is no camera \"stern\" to show; there is bow, arm"), "{lost}");
    let pip = Settings::of(config(&file, &[], &folder)).running().cameras[2].source.pip.clone().expect("two others");
    assert_eq!((pip.parts[0].name.as_str(), pip.layout.border), ("arm", 3));
}

fn broken(text: &[u8]) -> (Value, TempDir) {
    let folder = folder();
    std::fs::write(kept_in(&folder), text).expect("a file");
    let settings = settings(&[], &folder);
    (settings.everything(), folder)
}

#[test]
fn a_broken_file_is_set_aside_and_one_that_is_not_right_any_more_loses_that_alone() {
    let usual = settings(&[], &folder()).everything();
    let whole = br#"{"cameras":{"cam1":{"streams":{"stream1":{"streamBitrate":2000}}}}}"#;
    assert_ne!(broken(whole).0, usual);
    for end in 0..whole.len() {
        let (all, folder) = broken(&whole[..end]);
        let aside = Path::with_extension(&kept_in(&folder), "json.broken");
        assert!(all == usual && aside.exists() && !kept_in(&folder).exists(), "{end}");
    }
    for text in [&b"[]"[..], b"\xff\xfe", b"{\"server\":{\"a\":1}}garbage", b"{\"pipeline\":\"x\"}"] {
        assert_eq!(broken(text).0, usual);
    }
    let some = br#"{"server":{"pipeline":"videotestsrc","rtspPath":["/x"],"maxViewers":0},
        "cameras":{"gone":{"settings":{"flip":"180"}},"cam1":{"streams":{"stream1":
        {"streamBitrate":2000,"minBitrate":3000,"streamFramerate":1000,"encoderPreset":"fast"}}}}}"#;
    let (all, folder) = broken(some);
    let stream = &all["cameras"]["cam1"]["streams"]["stream1"];
    assert_eq!((&stream["encoderPreset"]["value"], &stream["minBitrate"]["value"]), (&json!("fast"), &json!(3000)));
    assert_eq!((&stream["streamBitrate"]["value"], &stream["streamFramerate"]["value"]), (&json!(0), &json!(30)));
    assert_eq!(all["server"], usual["server"]);
    assert!(kept_in(&folder).exists(), "it is written with the next change alone");
}

#[test]
fn a_power_cut_while_the_file_is_written_leaves_what_was_there() {
    let folder = folder();
    let before = settings(&[], &folder);
    change(&before, STREAM, json!({ "streamBitrate": 2000 })).expect("right");
    // The next one was being written.
    let torn = folder.path().join(format!("settings-8080.json.{}", std::process::id()));
    std::fs::write(&torn, "{\"cameras\":{\"ca").expect("a file");
    let after = settings(&[], &folder);
    assert_eq!(value(&after, STREAM, "streamBitrate", "value"), json!(2000));
    change(&after, STREAM, json!({ "streamBitrate": 3000 })).expect("right");
    assert!(!torn.exists());
    assert_eq!(value(&settings(&[], &folder), STREAM, "streamBitrate", "value"), json!(3000));
}

#[test]
fn a_folder_that_cannot_be_written_is_told_and_the_change_holds_for_this_run() {
    let folder = folder();
    let mut config = config("", &[], &folder);
    config.state_dir = Some(folder.path().join("rov.toml"));
    let settings = Arc::new(Settings::of(config));
    let changed = change(&settings, Scope::Server, json!({ "streamAlignment": { "enabled": true } })).expect("right");
    assert!(changed.not_kept.is_some_and(|reason| reason.starts_with("cannot write ")));
    assert!(settings.alignment().enabled);
}

#[test]
fn what_would_keep_the_server_from_its_start_is_refused() {
    let folder = folder();
    let settings = settings(&["--encoder", "x264enc"], &folder);
    for (scope, values, name) in [
        (Scope::Server, json!({ "rtspPort": 8080 }), "rtspPort"),
        (STREAM, json!({ "videoEncoder": "h265" }), "videoEncoder"),
    ] {
        match change(&settings, scope, values) {
            Err(Refusal::Wrong { name: wrong, .. }) => assert_eq!(wrong, name),
            other => panic!("{name}: {other:?}"),
        }
    }
    assert!(!kept_in(&folder).exists());
    // What is given at the next start may differ, too.
    change(&self::settings(&[], &folder), STREAM, json!({ "videoEncoder": "h265" })).expect("right");
    let again = self::settings(&["--encoder", "x264enc"], &folder);
    assert_eq!(value(&again, STREAM, "videoEncoder", "value"), json!("h264"));
}

#[test]
fn what_is_kept_of_absent_cameras_and_of_newer_versions_stays() {
    let folder = folder();
    let file = json!({
        "cameras": {
            "cam1": { "settings": { "lamp": 3 }, "streams": { "stream1": { "streamFramerate": 1000 } }, "more": [1] },
            "gone": { "settings": { "flip": "180" } },
        },
        "server": { "newer": true },
        "version": 2,
    });
    std::fs::write(kept_in(&folder), file.to_string()).expect("a file");
    let settings = settings(&[], &folder);
    change(&settings, STREAM, json!({ "streamBitrate": 2000 })).expect("right");
    let kept: Value = serde_json::from_slice(&std::fs::read(kept_in(&folder)).expect("the file")).expect("JSON");
    let mut wanted = file;
    wanted["cameras"]["cam1"]["streams"]["stream1"] = json!({ "streamBitrate": 2000 });
    assert_eq!(kept, wanted);
}

#[test]
fn files_that_were_set_aside_stay() {
    let folder = folder();
    for text in ["one", "two"] {
        std::fs::write(kept_in(&folder), text).expect("a file");
        settings(&[], &folder);
    }
    let aside = |end: &str| std::fs::read_to_string(folder.path().join(format!("settings-8080.json.{end}")));
    assert_eq!(
        (aside("broken").expect("the first"), aside("broken2").expect("the second")),
        ("one".into(), "two".into())
    );
    for _ in 0..20 {
        std::fs::write(kept_in(&folder), "more").expect("a file");
        settings(&[], &folder);
    }
    assert_eq!(std::fs::read_dir(folder.path()).expect("the folder").count(), 11, "ten and the configuration");
    assert_eq!(aside("broken").expect("the first"), "one");
}

#[tokio::test]
async fn a_change_of_a_camera_that_waits_holds_up_no_other_camera_and_is_kept_when_it_is_through() {
    let folder = folder();
    let cameras = "[[camera]]\nname = 'bow'\nsource = 'test'\n[[camera]]\nname = 'arm'\nsource = 'test'\n";
    let config = config(cameras, &[], &folder);
    let (handles, mut asked): (Vec<_>, Vec<_>) = config.cameras.iter().cloned().map(Handle::new).unzip();
    let settings = Arc::new(Settings::of(config).with_cameras(handles));
    let change = |scope, values: Value| {
        let (settings, values) = (Arc::clone(&settings), serde_json::from_value(values).expect("an object"));
        tokio::spawn(async move { settings.change(scope, &values).await })
    };
    let slow = change(Scope::Camera(0), json!({ "flip": "180" }));
    let waits = asked[0].asks.recv().await.expect("asked");
    change(Scope::Server, json!({ "maxViewers": 3 })).await.expect("no panic").expect("right");
    let other = change(Scope::Camera(1), json!({ "flip": "180" }));
    asked[1].asks.recv().await.expect("asked").reply.send(Ok(Applied::AtStart)).expect("awaited");
    other.await.expect("no panic").expect("right");
    waits.reply.send(Ok(Applied::AtStart)).expect("awaited");
    slow.await.expect("no panic").expect("right");
    let kept: Value = serde_json::from_slice(&std::fs::read(kept_in(&folder)).expect("the file")).expect("JSON");
    let turned = json!({ "settings": { "flip": "180" } });
    assert_eq!(kept, json!({ "server": { "maxViewers": 3 }, "cameras": { "bow": turned, "arm": turned } }));
}

#[tokio::test]
async fn what_cannot_be_now_blames_no_value_and_what_fails_the_one_that_was_changed() {
    let folder = folder();
    let config = config("", &[], &folder);
    let (handle, mut asked) = Handle::new(config.cameras[0].clone());
    let settings = Settings::of(config).with_cameras(vec![handle]);
    let both = json!({ "keyframeInterval": 2, "streamBitrate": 2000 });
    let fails = || Refused::Failed("it broke".to_owned());
    for (values, refused, field) in [
        (both.clone(), Refused::NotNow("too slow".to_owned()), Err("now")),
        (both, fails(), Err("one of them")),
        (json!({ "streamBitrate": 2000 }), fails(), Ok("streamBitrate")),
    ] {
        let values: Values = serde_json::from_value(values).expect("an object");
        let (result, ()) = tokio::join!(settings.change(STREAM, &values), async {
            asked.asks.recv().await.expect("asked").reply.send(Err(refused)).expect("awaited");
        });
        match (result.expect_err("refused"), field) {
            (Refusal::NotNow(_), Err("now")) | (Refusal::WrongTogether(_), Err("one of them")) => {}
            (Refusal::Wrong { name, .. }, Ok(field)) => assert_eq!(name, field),
            other => panic!("{other:?}"),
        }
        assert!(!kept_in(&folder).exists());
    }
}
