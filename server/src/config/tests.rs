use std::ffi::OsString;
use std::time::Duration;

use clap::CommandFactory;
use rov_common::api::{Role, View};
use rov_common::codec::Codec;
use rov_common::log::Form;
use rov_common::units::{Fps, Resolution};

use super::*;
use crate::cli::Cli;

fn config(args: &[&str]) -> Result<Config, ConfigError> {
    Config::new(&config_file::read(std::iter::once(&"rov-server").chain(args).map(OsString::from)).unwrap())
}

/// Without how it was said.
fn meaning(mut config: Config) -> Config {
    config.given = Table::default();
    for camera in &mut config.cameras {
        camera.given = Table::default();
        camera.streams.iter_mut().for_each(|stream| stream.given = Table::default());
    }
    config
}

fn source(args: &[&str]) -> SourceConfig {
    config(args).unwrap().cameras[0].source.clone()
}

fn encode(args: &[&str]) -> EncodeConfig {
    config(args).unwrap().default_stream().encode.clone()
}

#[test]
fn the_defaults_of_the_command_line_are_those_of_the_type() {
    let config = config(&[]).unwrap();
    assert_eq!((source(&[]), encode(&[])), (SourceConfig::default(), EncodeConfig::default()));
    assert_eq!((config.signal_port, config.media_port, config.discovery_port), (8080, 0, Some(5003)));
    assert!(!config.name.is_empty());
    assert!(config.webrtc && config.rtp.is_none());
    assert_eq!(config.rtsp.unwrap().paths, RTSP_PATHS);
}

#[test]
fn the_defaults_that_the_help_states_are_the_real_ones() {
    // With RTP and recording, whose options have no effect without them.
    let with = |args: &[&str]| {
        let all = ["--transport", "webrtc,rtp,rtsp", "--record", "dives"];
        meaning(config(&[&all, args].concat()).unwrap())
    };
    let mut compared = 0;
    for option in Cli::command().get_arguments().filter(|option| option.get_action().takes_values()) {
        let help = option.get_long_help().or(option.get_help()).map(ToString::to_string).unwrap_or_default();
        let stated = help.split_once("[default: ").and_then(|(_, rest)| rest.split_once(']')).unwrap().0;
        let long = option.get_long().unwrap();
        match (long, stated) {
            (_, "none" | "off")
            | (
                "name" | "device" | "level" | "keyframe-interval" | "interface" | "state-dir" | "role"
                | "overlay-fields" | "recording",
                _,
            ) => {}
            // By --latency-mode, and so not in the configuration.
            ("preset", "ultrafast") => {}
            ("log-format", stated) => assert_eq!(stated.parse(), Ok(Form::default())),
            ("transport", stated) => {
                assert_eq!(config(&["--transport", stated]).map(meaning), config(&[]).map(meaning))
            }
            _ => {
                assert_eq!(with(&[&format!("--{long}"), stated]), with(&[]), "--{long} {stated}");
                compared += 1;
            }
        }
    }
    assert!(compared > 20, "{compared}");
}

#[test]
fn transports_are_chosen_by_name_and_rtp_has_the_usual_group() {
    let config = config(&["--transport", "rtp"]).unwrap();
    assert!(!config.webrtc && config.rtsp.is_none());
    let rtp = config.rtp.unwrap();
    assert_eq!((rtp.hosts.as_slice(), rtp.port, rtp.ttl), (&[Ipv4Addr::new(239, 255, 0, 1)][..], 5004, 1));
    assert_eq!((rtp.keyframe_interval, rtp.fec_percent), (Duration::from_secs(1), None));
}

#[test]
fn a_password_closes_everything_unless_it_is_said_otherwise() {
    let with_user = ["--user", "pilot", "--password", "deep"];
    for (more, view, role) in [
        (&[][..], View::RequiresLogin, Role::Controller),
        (&["--role", "viewer"], View::RequiresLogin, Role::Viewer),
        (&["--view", "open"], View::Open, Role::Controller),
        (&["--view", "open", "--transport", "rtp"], View::Open, Role::Controller),
    ] {
        let logins = config(&[&with_user, more].concat()).unwrap().logins;
        assert_eq!((logins.view, logins.users[0].role), (view, role), "{more:?}");
    }
    assert_eq!(config(&[]).unwrap().logins, LoginConfig::default());
    let digest = |more: &[&str]| config(&[&with_user, more].concat()).unwrap().rtsp.unwrap().digest;
    assert!(digest(&[]).is_some());
}

#[test]
fn the_password_is_not_shown() {
    let config = config(&["--user", "pilot", "--password", "deep"]).unwrap();
    assert!(!format!("{config:?}").contains("deep"), "{config:?}");
}

#[test]
fn a_cameras_address_is_shown_without_what_is_secret() {
    for (url, shown) in [
        ("rtsp://pilot:d%65ep@10.0.0.3:554/cam", "rtsp://10.0.0.3:554/cam"),
        ("rtsp://pilot:1#deep@10.0.0.3:554/cam", "rtsp://10.0.0.3:554/cam"),
        ("rtsp://10.0.0.3/cam?token=deep", "rtsp://10.0.0.3/cam..."),
        ("rtsp://10.0.0.3/user=pilot&password=deep&channel=1", "rtsp://10.0.0.3/user..."),
    ] {
        let config = config(&["--url", url]).unwrap();
        assert_eq!(config.cameras[0].source.url.as_ref().unwrap().to_string(), shown);
        let text = format!("{config:?}");
        assert!(
            config.cameras[0].source.kind == SourceKind::Rtsp && !text.contains("deep") && text.contains(shown),
            "{text}"
        );
    }
    let refused = config(&["--source", "test", "--url", "rtsp://pilot:deep@10.0.0.3/"]).unwrap_err().0;
    assert!(!refused.contains("deep"), "{refused}");
}

#[test]
fn zero_means_the_sources_own_or_automatic() {
    let encode = encode(&["--width", "0", "--height", "0", "--fps", "0", "--bitrate", "0"]);
    assert_eq!((encode.resolution, encode.fps, encode.bitrate), (None, None, None));
}

#[test]
fn levels_are_named_as_usual() {
    let level = |text: &str| text.parse::<Level>().map(|level| (level.to_string(), level.idc()));
    assert_eq!(level("4.0"), Ok(("4".to_owned(), 40)));
    assert_eq!(level("4.1"), Ok(("4.1".to_owned(), 41)));
    assert!(level("6").is_err() && level("4.10").is_err());
    assert_eq!((Level::L4.idc(), Level::L4_2.idc(), Level::L5_1.idc()), (40, 42, 51));
}

#[test]
fn a_named_file_pipeline_or_device_decides_an_automatic_source() {
    assert_eq!(source(&["--file", "a.mp4"]).kind, SourceKind::File);
    assert_eq!(source(&["--pipeline", "videotestsrc"]).kind, SourceKind::Pipeline);
    assert_eq!(source(&["--device", "1"]).kind, SourceKind::Webcam);
}

#[test]
fn a_wrong_value_is_refused_with_the_option_the_value_and_what_to_do() {
    for (args, message) in [
        (&["--width", "0"][..], "--width 0 --height 1080: give both, or 0 for both to take the source's own size"),
        (&["--width", "641"], "--width 641: must be even (4:2:0 video), try 642"),
        (&["--height", "8"], "--height 8: must be from 16 to 8192 pixels"),
        (&["--fps", "500"], "--fps 500: must be from 1 to 240, or 0 for the source's own"),
        (
            &["--source", "stdin", "--flip", "180"],
            "--flip: nothing is encoded here, the source's stream is sent untouched; leave it out",
        ),
        (&["--level", "3.1"], "--level 3.1: does not allow 1920x1080 at 30 fps; --level 4 does"),
        (&["--keyframe-interval", "0"], "--keyframe-interval 0: must be from 0.1 to 300 seconds"),
        (&["--bitrate", "5"], "--bitrate 5: must be from 50 to 500000 kbit/s, or 0 for auto"),
        (&["--source", "file"], "--source file: needs --file FILE"),
        (
            &["--source", "pipeline"],
            "--source pipeline: needs --pipeline DESCRIPTION, as \"videotestsrc is-live=true\"",
        ),
        (&["--source", "test", "--file", "a"], "--file a: needs --source file, but --source is test"),
        (&["--file-passthrough"], "--file-passthrough: needs --source file and --file FILE, but --source is auto"),
        (&["--source", "rtsp"], "--source rtsp: needs --url URL, as rtsp://10.0.0.3/stream"),
        (
            &["--url", "rtsp://admin:secret@:99999/x"],
            "--url: give an address as rtsp://USER:PASSWORD@10.0.0.3/stream (empty host)",
        ),
        (&["--url", "http://a/"], "--url http://a/: give the address of an RTSP camera, as rtsp://10.0.0.3/stream"),
        (
            &["--url", "rtsp://a/", "--camera-certificate", "any"],
            "--camera-certificate: needs --url rtsps://..., other addresses have no certificate",
        ),
        (&["--max-viewers", "0"], "--max-viewers 0: must be at least 1"),
        (
            &["--transport", "rtp", "--rtp-port", "5005"],
            "--rtp-port 5005: must be even, from 2 to 65532 (RTCP has the odd port above)",
        ),
        (
            &["--transport", "rtp", "--rtp-host", "0.0.0.0"],
            "--rtp-host 0.0.0.0: give the address of a receiver, or a multicast group as 239.255.0.1",
        ),
        (
            &["--transport", "rtp", "--rtp-host", "10.0.0.1,10.0.0.1"],
            "--rtp-host: an address is given twice, and its receivers would get each packet twice",
        ),
        (
            &["--transport", "rtp", "--rtp-keyframe-interval", "0"],
            "--rtp-keyframe-interval 0: must be from 0.1 to 60 seconds",
        ),
        (
            &["--transport", "rtp", "--rtp-fec", "101"],
            "--rtp-fec 101: must be from 1 to 100 percent, or 0 for keyframes alone",
        ),
        (
            &["--rtsp-path", "cam"],
            "--rtsp-path \"cam\": give a path as /cam, 64 bytes at most, of letters, digits, and - _ . /",
        ),
        (&["--user", "a"], "--user a: needs --password, or the variable ROV_PASSWORD"),
        (&["--user", "a:b"], "--user a: needs --password, or the variable ROV_PASSWORD"),
        (&["--password", "a"], "--password (or the variable ROV_PASSWORD): needs --user"),
        (&["--rtsp-path", "/mjpeg"], "--rtsp-path /mjpeg: /mjpeg is where MJPEG is served, take another"),
        (&["--rtsp-basic-auth"], "--rtsp-basic-auth: needs --user and --password"),
        (&["--role", "viewer"], "--role: needs --user and --password"),
        (
            &["--view", "requires-login"],
            "--view requires-login: there is no user: add --user, or [[user]] to the file of --config",
        ),
        (
            &["--transport", "webrtc,rtp", "--user", "pilot", "--password", "deep"],
            "--user: RTP goes to whoever listens, without a login: leave rtp out of --transport, or let everybody \
             watch with --view open",
        ),
        (
            &["--source", "publish", "--transport", "webrtc"],
            "--source publish: streams are published by RTSP: add rtsp to --transport",
        ),
        (&["--source", "test", "--device", "0"], "--device 0: needs --source webcam or csi, but --source is test"),
        (&["--stun", "example.org"], "--stun example.org: give a URL of the form stun:HOST[:PORT]"),
        (
            &["--public-address", "0.0.0.0"],
            "--public-address \"0.0.0.0\": give the IPv4 address that viewers reach, as 10.0.0.2, or with the UDP \
             port, as 10.0.0.2:40000",
        ),
        (
            &["--allow-host", "http://rov.lan"],
            "--allow-host \"http://rov.lan\": give a host name alone, as rov.lan, without http:// and port",
        ),
        (
            &["--allow-origin", "*"],
            "--allow-origin \"*\": give scheme, host and port of the page, as http://10.0.0.9:3000 (one for each; \
             there is no wildcard)",
        ),
        (
            &["--discovery-port", "0"],
            "--discovery-port 0: clients must know the port, give one from 1 to 65535, or --no-discovery",
        ),
    ] {
        assert_eq!(config(args).unwrap_err().0, message);
    }
}

#[test]
fn origins_and_addresses_are_kept_in_one_form() {
    let config = config(&[
        "--allow-origin",
        "HTTP://Dash.Example:80/",
        "--allow-host",
        "Rov.Lan.",
        "--public-address",
        "10.0.0.2",
        "--public-address",
        "10.0.0.3:40000",
    ])
    .unwrap();
    assert_eq!((config.allow_origins[0].as_str(), config.allow_hosts[0].as_str()), ("http://dash.example", "rov.lan"));
    assert_eq!(
        config.public_addresses.iter().map(|address| address.to_string()).collect::<Vec<_>>(),
        ["10.0.0.2:0", "10.0.0.3:40000"]
    );
}

#[test]
fn a_name_that_viewers_could_not_find_is_refused() {
    let longest = "é".repeat(32);
    assert_eq!(config(&["--name", &longest]).unwrap().name, longest);
    assert_eq!(config(&["--name", " rov 1 "]).unwrap().name, "rov 1");
    let long = config(&["--name", &"é".repeat(33)]).unwrap_err().0;
    assert!(long.contains("has 66 bytes, must have 1 to 64"), "{long}");
    for name in ["", "  ", "a\u{7}b", "a\u{202e}b"] {
        let refused = config(&["--name", name]).unwrap_err().0;
        assert!(refused.starts_with("--name "), "{name:?}: {refused}");
    }
}

#[test]
fn an_address_that_media_cannot_use_is_refused() {
    for host in ["::1", "::", "fe80::1"] {
        let refused = config(&["--host", host]).unwrap_err().0;
        assert!(refused.starts_with(&format!("--host {host}: media and discovery are IPv4 only")), "{refused}");
    }
    assert!(config(&["--host", "127.0.0.1"]).is_ok());
}

#[test]
fn the_automatic_bitrate_follows_the_stated_formula() {
    let kbps = |w, h, fps, max| auto_bitrate(Codec::H264, Resolution::new(w, h), Fps::whole(fps), max).kbps();
    assert_eq!(auto_bitrate(Codec::H265, Resolution::new(1920, 1080), Fps::whole(30), false).kbps(), 9_000);
    assert_eq!(kbps(1920, 1080, 30, false), 15_000);
    assert_eq!(kbps(1920, 1080, 30, true), 30_000);
    assert_eq!(kbps(640, 480, 30, false), 3_582);
    assert_eq!(kbps(3840, 2160, 60, false), 71_352);
    assert_eq!(kbps(3840, 2160, 60, true), 100_000);
    assert_eq!(kbps(16, 16, 1, false), 500);
}

fn found(serial: u32) -> Found {
    let path = format!("/dev/v4l/by-id/usb-Deep_{serial}-video-index0");
    Found {
        kind: SourceKind::Webcam,
        device: path.clone(),
        id: format!("/dev/video{serial}"),
        title: "A webcam with a long name".to_owned(),
        known_by: vec![path],
    }
}

#[test]
fn all_cameras_that_are_found_have_the_same_streams_and_names_of_their_own() {
    let all = config(&["--all-cameras", "--stream2", "640x360", "--transport", "rtp,rtsp"]).unwrap();
    assert!(all.all_cameras && !config(&[]).unwrap().all_cameras);
    assert_eq!(all.clone().with_found(&[]), Ok(all.clone()));
    let cameras: Vec<_> = (0..MAX_CAMERAS as u32 + 1).map(found).collect();
    let config = all.clone().with_found(&cameras).unwrap();
    assert_eq!((config.cameras.len(), config.streams().count()), (8, 16));
    for (camera, found) in config.cameras.iter().zip(&cameras) {
        assert_eq!((&camera.name, camera.source.device.as_ref()), (&found.name(), Some(&found.device)));
        assert_eq!((camera.source.kind, &camera.source.taken), (SourceKind::Webcam, &found.known_by));
        assert_eq!(camera.streams, all.cameras[0].streams);
    }
    // A camera more or less changes no other one's name.
    let fewer = all.clone().with_found(&cameras[1..]).unwrap();
    assert_eq!(fewer.cameras[0], config.cameras[1]);
    let full = config_with_port(all, 65_520).with_found(&cameras).unwrap_err().0;
    assert!(full.contains("which another one has too"), "{full}");
}

fn config_with_port(mut config: Config, port: u16) -> Config {
    config.rtp.iter_mut().for_each(|rtp| rtp.port = port);
    config
}

#[test]
fn all_cameras_are_taken_of_the_automatic_source_alone() {
    for args in [&["--source", "test"][..], &["--device", "0"], &["--file", "a.mp4"]] {
        let error = config(&[args, &["--all-cameras"]].concat()).unwrap_err().0;
        assert!(error.starts_with("--all-cameras: needs --source auto"), "{error}");
    }
}
