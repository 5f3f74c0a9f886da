use clap::ValueEnum;
use rov_common::api::{Alignment, Role, View};
use rov_common::latency_mode::LatencyMode;
use rov_common::units::{Bitrate, Fps, Resolution};

use super::*;
use crate::cli::tests::OF_RUST;
use crate::config::{Config, EncodeConfig, EncoderChoice, Profile, SourceKind, Transport};
use crate::users::{PasswordHash, TokenHash};

const TWO_CAMERAS: &str = "\
signal-port = 8081
user = 'pilot'
password = 'deep'

[[camera]]
name = 'nose'
source = 'test'

[[camera.stream]]
name = 'main'
width = 1280
height = 720

[[camera.stream]]
bitrate = 500

[[camera]]
device = 2
";

fn of_file(text: &str) -> (MachineOptions, CameraOptions, StreamOptions) {
    let mut options = parse(text).unwrap_or_else(|mistake| panic!("{text}: {mistake}"));
    let mut camera = options.cameras.remove(0);
    (options.machine.options, camera.source.options, camera.streams.remove(0).options)
}

fn read_with(text: &str, arguments: &[&str]) -> Result<Options, ReadError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rov.toml");
    std::fs::write(&path, text).unwrap();
    let line = [&["rov-server", "--config", path.to_str().unwrap()], arguments].concat();
    read(line.into_iter().map(OsString::from))
}

fn config_with(text: &str, arguments: &[&str]) -> Config {
    Config::new(&read_with(text, arguments).unwrap()).unwrap()
}

fn refused(text: &str, arguments: &[&str]) -> String {
    let options = read_with(text, arguments);
    options.map_or_else(|error| error.to_string(), |options| Config::new(&options).unwrap_err().to_string())
}

#[test]
fn a_file_says_what_the_command_line_would() {
    let text = "# A comment\nname = \"Nemo\"\nwidth = 1_280\nheight = 0x2d0\nrtp-keyframe-interval = 0.5\n\
                transport = [\"rtp\", \"webrtc\"]\nrtp-host = '10.0.0.1, 10.0.0.2'\ninterface = [\"eth0\", \"eth1\"]\n\
                no-discovery = true\nno-loop = false\nlow-latency = false\nverbose = 2\nstun = true\ndevice = 0\n";
    let (machine, camera, stream) = of_file(text);
    assert_eq!((machine.name.as_deref(), stream.width, stream.height), (Some("Nemo"), Some(1280), Some(720)));
    assert_eq!(
        (machine.rtp_keyframe_interval, machine.rtp_host.len(), machine.transport.map_or(0, |all| all.len())),
        (Some(0.5), 2, 2)
    );
    assert_eq!((machine.interface.len(), machine.verbose, camera.device.as_deref()), (2, Some(2), Some("0")));
    assert_eq!((machine.no_discovery, camera.no_loop, stream.low_latency), (Some(true), Some(false), Some(false)));
    assert!(machine.stun.is_some() && camera.name.is_none() && stream.name.is_none());
    let config = config_with(text, &[]);
    assert_eq!(
        (config.cameras[0].source.kind, config.default_stream().encode.latency),
        (SourceKind::Webcam, LatencyMode::Normal)
    );
    assert_eq!((config.cameras[0].name.as_str(), config.default_stream().name.as_str()), ("cam1", "stream1"));
}

#[test]
fn numbers_may_stand_for_texts_and_texts_for_lists() {
    for (text, num, den) in [
        ("fps = 29.97", 30_000, 1001),
        ("fps = '30000/1001'", 30_000, 1001),
        ("fps = 25", 25, 1),
        ("fps = 12.5", 25, 2),
    ] {
        assert_eq!(of_file(text).2.fps, Some(Fps { num, den }), "{text}");
    }
    assert_eq!(of_file("level = 4.1").2.level, "4.1".parse().ok());
    assert_eq!(of_file("password = 1234").0.password.as_deref(), Some("1234"));
    assert_eq!(of_file("keyframe-interval = 2").2.keyframe_interval, Some(2.0));
    assert_eq!(of_file("transport = 'rtp'").0.transport, Some(vec![Transport::Rtp]));
    assert_eq!(of_file("stun = false").0.stun, None);
    assert_eq!(of_file("stun = 'stun:a'").0.stun.as_deref(), Some("stun:a"));
}

#[test]
fn a_file_with_cameras_has_what_the_machine_has_at_the_top() {
    let options = parse(TWO_CAMERAS).unwrap();
    let [nose, other] = &options.cameras[..] else { panic!("{options:?}") };
    assert_eq!(options.machine.options.signal_port, Some(8081));
    assert_eq!(
        (nose.source.options.name.as_deref(), nose.source.options.source),
        (Some("nose"), Some(SourceKind::Test))
    );
    let [main, second] = &nose.streams[..] else { panic!("{options:?}") };
    assert_eq!((main.options.name.as_deref(), main.options.width), (Some("main"), Some(1280)));
    assert_eq!((second.options.name.as_deref(), second.options.bitrate), (None, Some(500)));
    assert_eq!((other.source.options.device.as_deref(), other.streams.len()), (Some("2"), 1));
    assert_eq!((main.lines.get("width"), second.lines.get("bitrate")), (Some(&11), Some(&15)));

    let one = "name = 'rov'\n[[camera]]\nname = 'nose'\nsource = 'test'\n[[camera.stream]]\nname = 'main'\nfps = 25";
    let config = config_with(one, &["--fps", "50"]);
    assert_eq!((config.name.as_str(), config.cameras[0].name.as_str()), ("rov", "nose"));
    assert_eq!(
        (config.default_stream().name.as_str(), config.default_stream().encode.fps),
        ("main", Some(Fps::whole(50)))
    );
}

#[test]
fn the_command_line_is_of_the_first_cameras_first_stream() {
    let options = read_with(TWO_CAMERAS, &["--width", "640", "--no-loop", "--signal-port", "8082"]).unwrap();
    let [nose, other] = &options.cameras[..] else { panic!("{options:?}") };
    assert_eq!((nose.streams[0].options.width, nose.streams[0].options.height), (Some(640), Some(720)));
    assert_eq!((nose.streams[1].options.width, other.streams[0].options.width), (None, None));
    assert_eq!((nose.source.options.no_loop, other.source.options.no_loop), (Some(true), None));
    assert_eq!(options.machine.options.signal_port, Some(8082));
    assert!(!nose.streams[0].lines.contains_key("width") && nose.streams[0].lines.contains_key("height"));
}

#[test]
fn the_command_line_wins() {
    let text =
        "width = 1280\nheight = 720\ntransport = [\"rtp\", \"webrtc\"]\nencoder = \"x264enc\"\nlow-latency = false\n";
    let config = config_with(text, &["--width", "640", "--transport", "rtsp", "--low-latency"]);
    let encode = &config.default_stream().encode;
    assert_eq!(encode.resolution.map(|size| (size.width, size.height)), Some((640, 720)));
    assert!(!config.webrtc && config.rtp.is_none() && config.rtsp.is_some() && encode.latency == LatencyMode::Low);
    assert_eq!(encode.encoder, EncoderChoice::Element("x264enc".to_owned()));
    let mode = config_with("low-latency = true", &["--no-low-latency"]).default_stream().encode.latency;
    assert_eq!(mode, LatencyMode::Normal);
}

#[test]
fn a_flag_has_two_names_that_must_agree() {
    let mode = |text: &str, arguments: &[&str]| config_with(text, arguments).default_stream().encode.latency;
    let is_low = |text: &str, arguments: &[&str]| mode(text, arguments) == LatencyMode::Low;
    assert!(!is_low("low-latency = false\nno-low-latency = true", &[]) && !is_low("no-low-latency = true", &[]));
    assert!(is_low("no-low-latency = false", &[]) && is_low("", &[]));
    assert!(is_low("", &["--no-low-latency", "--low-latency"]));
    assert!(!is_low("", &["--low-latency", "--no-low-latency"]));
    let both = refused("\nlow-latency = true\nno-low-latency = true", &[]);
    assert!(both.contains("rov.toml, line 2: --low-latency: contradicts --no-low-latency"), "{both}");
    assert_eq!(mode("latency-mode = \"high\"\nlow-latency = false", &[]), LatencyMode::High);
    assert_eq!(mode("latency-mode = \"low\"", &["--latency-mode", "normal"]), LatencyMode::Normal);
    let both = refused("\nlatency-mode = \"low\"\nno-low-latency = true", &[]);
    assert!(both.contains("rov.toml, line 2: --latency-mode: contradicts --low-latency or --no-low-latency"), "{both}");
}

#[test]
fn every_option_can_stand_in_a_file() {
    let names = [value::names::<MachineOptions>(), value::names::<CameraOptions>(), value::names::<StreamOptions>()];
    let command = Cli::command();
    for option in command.get_arguments().filter(|option| option.get_long() != Some("help")) {
        let long = option.get_long().unwrap();
        let groups = names.iter().filter(|names| names.contains(&long)).count();
        let wanted = match long {
            "config" | "check-config" | "list-cameras" | "version" => 0,
            // Cameras and streams have names too, and streams ports, which no option gives.
            "name" => 3,
            "rtp-port" => 2,
            _ => 1,
        };
        assert_eq!(groups, wanted, "{long}");
        for value in option.get_possible_values() {
            let text = format!("{long} = {:?}", value.get_name());
            assert!(!option.get_action().takes_values() || parse(&text).is_ok(), "{text}: {:?}", parse(&text));
        }
    }
    // What is of several cameras.
    let of_files = ["alignment", "main", "pip", "pip-enabled", "position", "scale", "border"];
    let is_known = |name: &&str| command.get_arguments().any(|option| option.get_long() == Some(name));
    assert!(names.concat().iter().all(|name| is_known(name) != of_files.contains(name)));
    assert!(SourceKind::value_variants().len() > 5);
}

#[test]
fn no_complaint_about_a_value_of_a_file_is_that_of_a_parser_of_rust() {
    let names = [value::names::<MachineOptions>(), value::names::<CameraOptions>(), value::names::<StreamOptions>()];
    for name in names.concat() {
        for value in ["'x y'", "''", "['x y']", "-1", "99999999999999999999", "1e999", "true", "{ x = 1 }"] {
            let message = parse(&format!("{name} = {value}")).err().map(|mistake| mistake.message).unwrap_or_default();
            assert!(!OF_RUST.iter().any(|of_rust| message.contains(of_rust)), "{name} = {value}: {message}");
        }
    }
}

#[test]
fn a_mistake_is_told_with_its_line_and_what_to_do() {
    for (text, line, message) in [
        ("width = 1280\n\nwidht = 1", 3, "there is no option \"widht\": did you mean width?"),
        ("xyzzy = 1", 1, "there is no option \"xyzzy\": a key is a long option of rov-server --help"),
        ("ulr = 'rtsp://10.0.0.3/'", 1, "there is no option \"ulr\": did you mean url?"),
        ("rtsp_prot = 1", 1, "there is no option \"rtsp_prot\": did you mean rtsp-port?"),
        ("rtp_port = 5004", 1, "there is no option \"rtp_port\": did you mean rtp-port?"),
        ("config = \"other.toml\"", 1, "there is no option \"config\""),
        ("[rtp]\nport = 1", 1, "there is no option \"rtp\""),
        ("fps = \"fast\"", 1, "fps: give frames per second, as 30, 29.97 or 30000/1001"),
        ("fps = [30]", 1, "fps: expected a string in quotes, found a list"),
        ("fps = 99999999999999999999", 1, "fps: the number is too large"),
        ("\nwidth = \"1280\"", 2, "width: expected a whole number from 0 to 4294967295, found a string"),
        ("width = [1280]", 1, "width: expected a whole number from 0 to 4294967295, found a list"),
        ("width = 1280.5", 1, "width: expected a whole number from 0 to 4294967295, found a number with a fraction"),
        ("rtp-port = 70000", 1, "rtp-port: expected a whole number from 0 to 65535"),
        ("rtp-port.x = 1", 1, "rtp-port: expected a whole number from 0 to 65535, found a table"),
        ("verbose = -1", 1, "verbose: expected a whole number from 0 to 255"),
        ("name = true", 1, "name: expected a string in quotes, found true or false"),
        ("keyframe-interval = \"2\"", 1, "keyframe-interval: expected a number, found a string"),
        ("transport = [[\"rtp\"]]", 1, "transport: expected a string in quotes, found a list"),
        ("transport = true", 1, "transport: expected a list, found true or false"),
        ("no-discovery = 1", 1, "no-discovery: expected true or false, found a whole number"),
        ("host = \"rov\"", 1, "host: give an IPv4 address, as 192.168.2.2"),
        ("rtp-host = \"10.0.0.1, rov\"", 1, "rtp-host: give an IPv4 address, as 192.168.2.2"),
        ("pilot = \"me\"", 1, "pilot: give first, or the IPv4 address of the pilot's computer"),
        ("stun = 1", 1, "stun: expected true, false, or the URL of a STUN server in quotes"),
        (
            "source = \"mirror\"",
            1,
            "source: expected one of auto, webcam, csi, file, stdin, rtsp, publish, test, pipeline",
        ),
        ("password = [\"deep\"]", 1, "password: expected a string in quotes, found a list"),
        ("width = true\nfps = true\nname = true", 1, "width: "),
        ("width = 1\nwidth = 2", 2, "duplicate key"),
        ("width = \n", 1, ""),
        ("password = \"deep", 1, ""),
        ("password = deep", 1, ""),
        // Tables.
        (
            "width = 1280\n[[camera]]",
            1,
            "width does not belong here: with [[camera]] in a file it stands below [[camera.stream]]",
        ),
        (
            "[[camera]]\n[[camera.stream]]\ndevice = 1",
            3,
            "device does not belong here: with [[camera]] in a file it stands below [[camera]]",
        ),
        (
            "[[camera]]\nsignal-port = 1",
            2,
            "signal-port does not belong here: with [[camera]] in a file it stands at the top",
        ),
        (
            "[[stream]]\nwidth = 1280",
            1,
            "stream does not belong here: with [[camera]] in a file it stands below [[camera]], as [[",
        ),
        ("[[camera]]\nfps = 'x'", 2, "fps does not belong here"),
        ("[[camera]]\n[[camera.stream]]\nwidht = 1", 3, "there is no option \"widht\": did you mean width?"),
        ("[[camera]]\n[[camera.stream]]\nwidth = 'x'", 3, "width: expected a whole number"),
        ("[camera]\ndevice = 1", 1, "camera: expected tables that begin with [[camera]]"),
        ("camera = []", 1, "camera: expected tables that begin with [[camera]]"),
        ("camera = [1]", 1, "camera: expected tables that begin with [[camera]]"),
        ("[[camera]]\n[camera.stream]", 2, "stream: expected tables that begin with [[camera.stream]]"),
        ("[[camera]]\nname = 'a/b'", 2, "name: expected 1 to 32 letters (a to z), digits, - and _"),
        ("[[camera]]\n[[camera.stream]]\nname = ''", 3, "name: expected 1 to 32 letters (a to z), digits, - and _"),
    ] {
        let mistake = parse(text).expect_err(text);
        assert_eq!(mistake.line, line, "{text}: {mistake:?}");
        assert!(mistake.message.starts_with(message), "{text}: {mistake:?}");
        assert!(!mistake.message.is_empty() && !mistake.message.contains("deep"), "{mistake:?}");
    }
}

#[test]
fn what_is_wrong_together_is_said_with_its_line() {
    for (text, arguments, said) in [
        ("\nwidth = 1281", &[][..], "rov.toml, line 2: --width 1281: must be even (4:2:0 video), try 1282"),
        ("height = 720\nwidth = 0", &[], "rov.toml, line 2: --width 0 --height 720: give both,"),
        ("height = 0", &[], "rov.toml, line 1: --width 1920 --height 0: give both,"),
        ("width = 1281", &["--width", "1283"], "--width 1283: must be even"),
        ("name = 'x'", &["--width", "1283"], "--width 1283: must be even"),
        ("url = 'http://a/'", &[], "rov.toml, line 1: --url http://a/: give the address of an RTSP camera"),
        ("max-viewers = 0", &[], "rov.toml, line 1: --max-viewers 0: must be at least 1"),
        ("min-bitrate = 300\nbitrate = 100", &[], "rov.toml, line 1: --min-bitrate 300: is above --bitrate 100"),
        (
            "min-bitrate = 15001",
            &[],
            "rov.toml, line 1: --min-bitrate 15001: is above the 15000 of 1920x1080 at 30 fps; give --bitrate 15001",
        ),
        ("transport = 'webrtc'\nsource = 'publish'", &[], "rov.toml, line 2: --source publish: streams are published"),
        ("[[camera]]\n[[camera.stream]]\nfps = 500", &[], "rov.toml, line 3: --fps 500: must be from 1 to 240"),
        ("[[camera]]\nsource = 'file'", &[], "rov.toml, line 2: --source file: needs --file FILE"),
        ("[[camera]]\nsource = 'stdin'\nflip = 180\n[[camera.stream]]", &[], "rov.toml, line 3: --flip: nothing is"),
    ] {
        let message = refused(text, arguments);
        assert!(message.contains(said) && message.starts_with("--") == said.starts_with("--"), "{message}");
    }
}

#[test]
fn names_are_given_once_and_cameras_do_not_take_each_others_sources() {
    for (text, said) in [
        ("[[camera]]\nname = 'a'\n[[camera]]\nname = 'a'", "line 4: name: two cameras have the name \"a\""),
        ("[[camera]]\nname = 'cam2'\n[[camera]]", "line 3: name: two cameras have the name \"cam2\""),
        (
            "[[camera]]\nsource = 'test'\n[[camera]]\nsource = 'test'\nname = 'live'",
            "line 5: name: a camera cannot have the name \"live\", as RTSP serves /live; take another",
        ),
        (
            "[[camera]]\n[[camera.stream]]\n[[camera.stream]]\nname = 'mjpeg'",
            "line 4: name: a stream cannot have the name \"mjpeg\", as RTSP serves /mjpeg; take another",
        ),
        (
            "[[camera]]\n[[camera.stream]]\nname = 'x'\n[[camera.stream]]\nname = 'x'",
            "line 5: name: two streams of a camera have the name \"x\"",
        ),
        ("[[camera]]\n[[camera]]", "rov.toml, line 2: --source auto: takes any camera, another one's too"),
        ("[[camera]]\ndevice = 1\n[[camera]]\ndevice = 1", "rov.toml, line 4: --device: two cameras may take the same"),
        ("[[camera]]\ndevice = 1\n[[camera]]\nsource = 'webcam'", "rov.toml, line 4: --device: two cameras may take"),
        ("[[camera]]\nsource = 'stdin'\n[[camera]]\nsource = 'stdin'", "rov.toml, line 4: --source stdin: another"),
        (
            "[[camera]]\nsource = 'stdin'\n[[camera.stream]]\n[[camera.stream]]",
            "rov.toml, line 4: --source stdin: its stream is passed through untouched, and a further one is encoded \
             from it: give width and height, fps or bitrate",
        ),
        (
            "[[camera]]\nsource = 'stdin'\n[[camera.stream]]\n[[camera.stream]]\nfps = 5\nwidth = 641",
            "rov.toml, line 6: --width 641: must be even",
        ),
        (
            "[[camera]]\nsource = 'stdin'\n[[camera.stream]]\nlevel = '4'\n[[camera.stream]]\nfps = 5",
            "rov.toml, line 4: --level: nothing is encoded here",
        ),
        ("[[camera]]\nstream2 = '641x360'", "rov.toml, line 2: --stream2: --width 641: must be even"),
        (
            "[[camera]]\nstream2 = '640x360'\n[[camera.stream]]\n[[camera.stream]]",
            "rov.toml, line 2: --stream2: the camera has a stream of this name already",
        ),
    ] {
        let message = refused(text, &[]);
        assert!(message.contains(said), "{text}: {message}");
    }
}

#[test]
fn a_second_stream_in_short_is_as_the_first_but_for_what_it_says() {
    let streams = |text: &str, arguments: &[&str]| {
        let mut config = config_with(text, arguments);
        let [first, second] = &mut config.cameras[0].streams[..] else { panic!("two streams: {config:?}") };
        assert_eq!((first.name.as_str(), second.name.as_str()), ("stream1", "stream2"));
        (first.encode.clone(), second.encode.clone())
    };
    let first = ["--width", "1920", "--height", "1080", "--fps", "60", "--bitrate", "8000", "--profile", "high"];
    let second = ["--stream2", "1280x720@30,4000,main", "--level", "4.2", "--encoder", "x264enc"];
    let (first, second) = streams("", &[&first[..], &second].concat());
    let expected = EncodeConfig {
        resolution: Some(Resolution::new(1280, 720)),
        fps: Some(Fps::whole(30)),
        bitrate: Some(Bitrate::from_kbps(4000)),
        profile: Profile::Main,
        level: None,
        ..first.clone()
    };
    assert_eq!((second, first.profile), (expected, Profile::High));
    let (first, second) = streams("stream2 = '640x360'\nfps = 25\nbitrate = 9000", &[]);
    assert_eq!((second.fps, second.bitrate, second.profile), (first.fps, None, first.profile));
    for wrong in ["640", "640x", "640x360@", "640x360,x", "640x360,400,low", "640x360@30,400,main,", ""] {
        let message = read_with("", &["--stream2", wrong]).expect_err(wrong).to_string();
        assert!(message.contains("as 1280x720@30,4000,main"), "{wrong}: {message}");
    }
    let two = config_with(TWO_CAMERAS, &[]);
    assert_eq!(two.cameras.iter().map(|camera| camera.streams.len()).collect::<Vec<_>>(), [2, 1]);
}

#[test]
fn a_file_says_how_clients_align_the_cameras_and_mistakes_in_that_have_line_and_key() {
    let alignment = |text: &str| config_with(text, &[]).alignment;
    assert_eq!(alignment(""), Alignment::default());
    let usual = Alignment::default();
    assert_eq!((usual.enabled, usual.max_latency_ms, usual.sync_tolerance_ms), (false, 100, 33));
    let given = Alignment { enabled: true, max_latency_ms: 80, sync_tolerance_ms: 20, ..usual };
    for text in [
        "alignment = { enabled = true, method = \"timestamp\", max_latency_ms = 80, sync_tolerance_ms = 20 }",
        "name = 'rov'\n[alignment]\nenabled = true\nmax-latency-ms = 80\nsync-tolerance-ms = 20\n[[camera]]",
    ] {
        assert_eq!(alignment(text), given, "{text}");
    }
    for (options, said) in [
        ("true", "alignment: expected a table, as { enabled = true }, found true or false"),
        ("{ enable = true }", "alignment: there is no \"enable\" in it, only enabled, method"),
        ("{ method = 'ptp' }", "alignment: method: expected one of timestamp, found \"ptp\""),
        ("{ max_latency_ms = '1' }", "alignment: max_latency_ms: expected a whole number"),
        ("{ max_latency_ms = 0 }", "alignment: max_latency_ms = 0: must be from 1 to 500 milliseconds"),
        ("{ sync_tolerance_ms = 501 }", "alignment: sync_tolerance_ms = 501: must be from 1 to 500 milliseconds"),
    ] {
        let message = refused(&format!("\nalignment = {options}"), &[]);
        assert!(message.contains(&format!("rov.toml, line 2: {said}")), "{options}: {message}");
    }
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let refused = |path: &Path| {
        read(["rov-server".into(), "--config".into(), path.into()]).expect_err("no such file").to_string()
    };
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("missing.toml");
    assert!(refused(&missing).contains("missing.toml: No such file"), "{}", refused(&missing));
    let (binary, long) = (folder.path().join("binary"), folder.path().join("long"));
    std::fs::write(&binary, [0xff; 9]).unwrap();
    std::fs::write(&long, vec![b'#'; 70_000]).unwrap();
    assert!(refused(&binary).contains("UTF-8"), "{}", refused(&binary));
    assert!(refused(&long).contains("is longer than 65536 bytes"), "{}", refused(&long));
    let mistake = read_with("\nwidth = true", &[]).expect_err("a mistake").to_string();
    assert!(mistake.contains("rov.toml, line 2: width: expected a whole number"), "{mistake}");
}

#[test]
fn the_example_is_valid() {
    let text = include_str!("../../../scripts/rov-server.toml");
    config_with(text, &[]);
    // What is commented out there as well, prose having a space in front; the form with tables with two marks.
    let is_option = |line: &str| line.starts_with(|c: char| c.is_ascii_lowercase() || c == '[');
    let tables: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("##")).collect();
    let flat = text.lines().map(|line| line.strip_prefix('#').unwrap_or(line));
    let flat: Vec<_> = flat.filter(|line| is_option(line)).collect();
    assert!(flat.len() > 10 && tables.len() > 10);
    of_file(&flat.join("\n"));
    assert_eq!(config_with(&tables.join("\n"), &[]).cameras[0].name, "nose");
}

/// Two cameras, and a third that shows them with these options.
fn with_pip(options: &str) -> String {
    format!(
        "[[camera]]\nname = 'bow'\nsource = 'test'\nflip = '180'\n[[camera]]\nname = 'ip'\nurl = 'rtsp://10.0.0.3/a'\n\
         [[camera]]\nname = 'both'\nsource = 'pip'\n{options}\n[[camera]]\nname = 'arm'\nsource = 'test'\n"
    )
}

#[test]
fn a_camera_can_show_two_others_that_stand_before_and_behind_it() {
    use crate::config::{Flip, Position};

    let config = config_with(&with_pip("main = 'bow'\npip = 'arm'"), &[]);
    let pip = config.cameras[2].source.pip.as_ref().expect("what it shows");
    assert_eq!(pip.parts.each_ref().map(|part| part.name.as_str()), ["bow", "arm"]);
    assert_eq!(pip.parts.each_ref().map(|part| part.flip), [Flip::Half, Flip::None], "as in their own streams");
    let layout = pip.layout;
    assert_eq!((layout.position, layout.scale, layout.border), (Position::BottomRight, 0.25, 0));
    assert_eq!(config.cameras.iter().map(|camera| camera.is_part).collect::<Vec<_>>(), [true, false, false, true]);
    let summary = config.summary().join("\n");
    assert!(summary.contains("camera both: pip with arm in a corner (bottom-right) of bow"), "{summary}");

    let text = with_pip("main = 'arm'\npip = 'bow'\nposition = 'top-left'\nscale = 0.5\nborder = 4");
    let layout = config_with(&text, &[]).cameras[2].source.pip.as_ref().expect("what it shows").layout;
    assert_eq!((layout.position, layout.scale, layout.border), (Position::TopLeft, 0.5, 4));
}

#[test]
fn what_a_camera_cannot_show_is_told_with_its_line() {
    for (options, line, message) in [
        ("pip = 'arm'", 8, "main: source = \"pip\" needs the name of the [[camera]] that fills the picture"),
        ("main = 'arm'", 8, "pip: source = \"pip\" needs the name of the [[camera]] that is shown small"),
        ("main = 'bow'\npip = 'arms'", 12, "pip: there is no camera \"arms\" to show; there is bow, arm"),
        ("main = 'bow'\npip = 'bow'", 12, "pip: bow is the main camera already"),
        ("main = 'both'\npip = 'arm'", 11, "main: both would show itself"),
        ("main = 'ip'\npip = 'arm'", 11, "main: ip is passed through untouched (source rtsp)"),
        ("main = 'a b'\npip = 'arm'", 11, "main: expected 1 to 32 letters"),
        ("main = 'bow'\npip = 'arm'\nposition = 'middle'", 13, "position: "),
        ("main = 'bow'\npip = 'arm'\nscale = 0.9", 13, "scale: 0.9 must be from 0.1 to 0.5"),
        ("main = 'bow'\npip = 'arm'\nscale = '1/4'", 13, "scale: expected a number"),
        ("main = 'bow'\npip = 'arm'\nborder = 65", 13, "border: 65 must be from 0 to 64 pixels"),
        ("main = 'bow'\npip = 'arm'\nflip = '180'", 13, "flip: is set at the cameras that source = \"pip\" shows"),
        ("main = 'bow'\npip = 'arm'\ndevice = 0", 13, "--device 0: needs --source webcam or csi"),
    ] {
        let error = refused(&with_pip(options), &[]);
        assert!(error.contains(&format!("rov.toml, line {line}: {message}")), "{options}: {error}");
    }
    let of_pip = with_pip("main = 'bow'\npip = 'arm'") + "[[camera]]\nsource = 'pip'\nmain = 'both'\npip = 'arm'";
    let error = refused(&of_pip, &[]);
    assert!(error.contains("line 18: main: both is made of two cameras itself"), "{error}");
    let error = refused("[[camera]]\nsource = 'test'\nscale = 0.5", &[]);
    assert!(error.contains("line 3: scale: needs source = \"pip\", but the source is test"), "{error}");
    let error = refused("", &["--source", "pip"]);
    assert!(error.contains("main: source = \"pip\" needs the name"), "{error}");
}

#[test]
fn users_of_a_file_have_a_role_and_what_they_log_in_by() {
    let hash = PasswordHash::of("deep sea").unwrap();
    let password = format!("password = \"{}\"\n", hash.as_str());
    let token = format!("token = \"{}\"\n", TokenHash::of("rov_abc"));
    let pilot = format!("[[user]]\nname = 'pilot'\nrole = 'controller'\n{password}{token}");
    let guest = format!("[[user]]\nname = 'guest'\nrole = 'viewer'\n{password}");
    let config = config_with(&format!("width = 640\nheight = 360\n{pilot}{guest}"), &[]);
    let users: Vec<_> = config.logins.users.iter().map(|user| (user.name.as_str(), user.role)).collect();
    assert_eq!(users, [("pilot", Role::Controller), ("guest", Role::Viewer)]);
    assert_eq!(config.logins.view, View::Open);
    assert!(config.rtsp.unwrap().digest.is_none(), "no hash can be compared with a digest");
    assert_eq!(config.cameras[0].streams[0].encode.resolution, Some(Resolution::new(640, 360)));
    let closed = config_with(&format!("view = 'requires-login'\n{guest}"), &["--transport", "webrtc"]);
    assert_eq!(closed.logins.view, View::RequiresLogin);
    // That of the command line comes beside them.
    let both = config_with(&guest, &["--user", "pilot", "--password", "deep"]);
    assert!(both.logins.users.len() == 2 && both.rtsp.unwrap().digest.is_none());

    for (text, mistake) in [
        (guest.replace("guest", "a:b"), "rov.toml, line 2: name: give the user one"),
        (guest.replace("name = 'guest'\n", ""), "rov.toml, line 1: name: give the user one"),
        (guest.replace("viewer", "captain"), "rov.toml, line 3: role: must be viewer or controller"),
        (guest.replace("role = 'viewer'\n", ""), "rov.toml, line 1: role: give the user one, viewer or controller"),
        (guest.replace(&password, ""), "rov.toml, line 1: password: give the user one (rov-server passwd), or a token"),
        (
            guest.replace(hash.as_str(), "deep"),
            "rov.toml, line 4: password: is no Argon2 hash: rov-server passwd makes one",
        ),
        (pilot.replace("sha256:", ""), "rov.toml, line 5: token: is no hash of a token: rov-server token makes one"),
        (format!("{guest}{guest}"), "rov.toml, line 6: name: two users have the name \"guest\", give each its own"),
        (guest.replace("role", "rule"), "rov.toml, line 3: there is no option \"rule\": did you mean role?"),
        ("[user]\nname = 'pilot'\n".to_owned(), "rov.toml, line 1: user: expected"),
    ] {
        let refused = refused(&text, &[]);
        assert!(refused.contains(mistake), "{mistake}: {refused}");
    }
}
