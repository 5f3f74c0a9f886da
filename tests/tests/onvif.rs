//! ONVIF: what recorders find and do, and who may.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::process::Command;
use std::time::{Duration, Instant, SystemTime};

use rov_common::net::broadcast_socket;
use rov_server::onvif::discovery::{GROUP, PORT};
use rov_server::onvif::soap::{Element, Envelope};
use rov_server::onvif::time::date_time;
use rov_server::users::PasswordHash;
use rov_tests::http::{self, Reply, basic};
use rov_tests::in_process::Serving;
use rov_tests::onvif::{
    DEVICE, EVENTS, MEDIA, MEDIA2, NOTIFICATION, SOAP_11, SOAP_12, body, clear, digest, digest_at, fault, message,
    post, python, util,
};
use rov_tests::process::{Process, binary, program};
use rov_tests::programs::Server;
use rov_tests::wait::{self, until_true};
use rov_tests::{jpeg, namespace, skipped};
use serde_json::{Value, json};
use socket2::SockRef;
use tempfile::TempDir;
use tokio::runtime::Runtime;

const ADDRESSING: &str = "http://www.w3.org/2005/08/addressing";
const USER: [&str; 4] = ["--user", "pilot", "--password", "deep"];

/// Asks the device service, which takes all.
fn ask(server: &Server, header: &str, namespace: &str, name: &str, within: &str) -> Reply {
    post(&server.url("/onvif/device_service"), &[], &message(header, namespace, name, within))
}

/// What is in the answer to that.
fn answer(server: &Server, header: &str, namespace: &str, name: &str, within: &str) -> Element {
    let reply = ask(server, header, namespace, name, within);
    assert_eq!(reply.status, 200, "{name}: {reply:?}");
    let body = body(&reply);
    assert_eq!(body.name, format!("{name}Response"));
    body
}

/// A configuration of the encoder of stream1 with another bit rate.
fn with_bitrate(kbps: u32) -> String {
    format!(
        r#"<Configuration token="encoder.stream1"><RateControl><BitrateLimit>{kbps}</BitrateLimit></RateControl></Configuration>"#
    )
}

fn bitrate(server: &Server) -> Value {
    let reply = http::get_as(&server.url("/api/settings/streamBitrate"), server.login.as_deref());
    reply.json()["value"].clone()
}

/// Codec, width and height of a stream, as ffprobe finds them.
fn probed(url: &str) -> String {
    let mut ffprobe = Command::new(program("ffprobe", "ffmpeg"));
    ffprobe.args(["-v", "error", "-rtsp_transport", "tcp", "-show_entries", "stream=codec_name,width,height"]);
    let output = ffprobe.args(["-of", "csv=p=0", url]).output().expect("ffprobe starts");
    assert!(output.status.success(), "{url}: {output:?}");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// What `recorder.py` prints of a server.
fn recorded(server: &Server, user: &str, password: &str, secret: &str) -> Option<Value> {
    let python = python()?;
    let (host, port) = (server.address.ip().to_string(), server.address.port().to_string());
    let mut command = Command::new(python);
    command.args(["-c", include_str!("../src/recorder.py"), &host, &port, user, password, secret]);
    let output = command.output().expect("Python starts");
    let (said, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{errors}\n{}", server.process.stderr());
    Some(serde_json::from_str(said.trim()).unwrap_or_else(|error| panic!("{error}: {said}")))
}

#[test]
fn onvif_zeep_finds_both_streams_and_changes_one() {
    let server = Server::start(&[&USER[..], &["--onvif", "--view", "open", "--stream2", "160x120@10"]].concat());
    server.wait_until_running();
    let Some(found) = recorded(&server, "pilot", "deep", "digest") else { return };
    let profiles = found["profiles"].as_array().expect("profiles");
    assert_eq!(profiles.len(), 2, "{found}");
    for (profile, (name, size)) in profiles.iter().zip([("stream1", [320, 240]), ("stream2", [160, 120])]) {
        assert_eq!((&profile["token"], &profile["source"]), (&json!(name), &json!("cam1")));
        assert_eq!((&profile["size"], &profile["encoding"]), (&json!(size), &json!("H264")));
        assert_eq!(profile["bitrates"], json!([50, 500_000]), "as in the table of settings");
        assert!(profile["sizes"].as_array().is_some_and(|sizes| sizes.contains(&json!(size))), "{profile}");
        let stream = profile["stream"].as_str().expect("an address");
        assert!(stream.ends_with(&format!("/{name}")), "{stream}");
        assert_eq!(probed(stream), format!("h264,{},{}", size[0], size[1]));
        let snapshot = profile["snapshot"].as_str().expect("an address");
        let curl =
            Command::new(program("curl", "curl")).args(["-sS", "--fail", snapshot]).output().expect("curl starts");
        assert!(curl.status.success() && curl.stdout.starts_with(&[0xff, 0xd8]), "{snapshot}: {curl:?}");
    }
    assert_eq!(
        (&found["sources"], &found["unchanged"], &found["changed"]),
        (&json!(["cam1"]), &Value::Null, &Value::Null)
    );
    assert_eq!((&found["rate"], bitrate(&server)), (&json!([10, 900]), json!(900)));
    let refused = |name: &str| found[name].as_str().unwrap_or_default().to_owned();
    assert!(refused("outside").contains("BitrateLimit 1: must be from 50 to 500000"), "{found}");
    assert!(refused("unknown").contains("operation GetOSDs is not supported"), "{found}");
    assert_eq!(found["services"], json!([DEVICE, MEDIA, MEDIA2, EVENTS]));
    assert_eq!(found["interfaces"], json!(["127.0.0.1"]));
    let port = server.address.port();
    assert!(found["protocols"]["HTTP"] == json!([port]) && found["protocols"]["RTSP"][0].is_number(), "{found}");
    assert_eq!((&found["users"], &found["dns"]), (&json!({ "pilot": "Administrator" }), &json!(false)));
    assert_eq!(found["ntp"], json!(false));
    assert!(found["gateways"].is_number() && found["discovery"] == "NonDiscoverable", "{found}");
    assert_eq!(found["capabilities"], json!(server.url("/onvif/media_service")));
    assert_eq!((&found["information"]["Model"], &found["digest"]), (&json!("rov-server"), &json!(true)));
    let messages: Vec<_> = found["messages"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    assert!(messages.iter().filter(|source| **source == "VideoSourceToken").count() >= 2, "both streams: {messages:?}");
    assert!(messages.contains(&"Token"), "the configuration that was changed: {messages:?}");
    server.process.logs(&["audit: changed settings of stream cam1/stream1", "user=\"pilot\""]);
}

/// A server with a viewer and a controller in a file.
fn with_file(view: &str) -> (Server, TempDir) {
    let folder = TempDir::new().expect("a temporary folder");
    let file = folder.path().join("rov.toml");
    let hash = |password: &str| PasswordHash::of(password).expect("a hash").as_str().to_owned();
    let user = |name: &str, role: &str, password: &str| {
        format!("[[user]]\nname = '{name}'\nrole = '{role}'\npassword = '{}'\n", hash(password))
    };
    let (guest, pilot) = (user("guest", "viewer", "shallow"), user("pilot", "controller", "deep"));
    std::fs::write(&file, format!("onvif = true\nview = '{view}'\n{guest}{pilot}")).expect("the file");
    let mut server = Server::start(&["--config", file.to_str().expect("a path")]);
    server.login = Some(basic("pilot", "deep"));
    (server, folder)
}

#[test]
fn users_of_a_file_log_in_by_a_password_in_clear_and_a_viewer_changes_nothing() {
    let (server, _file) = with_file("open");
    server.wait_until_running();
    let set = |header: &str, login: &[(&str, &str)]| {
        let message = message(header, MEDIA, "SetVideoEncoderConfiguration", &with_bitrate(800));
        post(&server.url("/onvif/media_service"), login, &message)
    };
    let guest = basic("guest", "shallow");
    for (header, login) in [(clear("guest", "shallow"), None), (String::new(), Some(("Authorization", &*guest)))] {
        let refused = set(&header, login.as_slice());
        assert_eq!((refused.status, fault(&refused).0), (403, "ter:NotAuthorized".to_owned()), "{refused:?}");
        assert!(fault(&refused).1.contains("guest is a viewer"), "{refused:?}");
    }
    assert_eq!(set("", &[]).status, 401, "nobody");
    // A hash cannot be compared with a digest, which is said at the start as well.
    let refused = set(&digest("pilot", "deep"), &[]);
    assert!(refused.status == 400 && fault(&refused).1.contains("a digest needs the plain password"), "{refused:?}");
    server.process.logs(&["ONVIF: guest, pilot cannot log in by digest"]);
    // So it is no guess, however often a recorder asks.
    assert!((0..40).all(|_| set(&digest("guest", "shallow"), &[]).status == 400));
    assert!(!server.process.stderr().contains("failed logins from"), "{}", server.process.stderr());
    let foreign = [("Authorization", &*basic("pilot", "deep")), ("Origin", "http://evil.example")];
    assert_eq!(set("", &foreign).status, 403, "a browser would add the password that it knows");
    // A page does not make guesses either.
    let url = server.url("/onvif/media_service");
    let guess = message(&clear("pilot", "wrong"), MEDIA, "GetProfiles", "");
    let guessed = http::request_with("POST", &url, &[("Origin", "http://evil.example")], guess.as_bytes());
    assert_eq!(guessed.status, 403, "{guessed:?}");
    assert_eq!(bitrate(&server), json!(0), "nothing was changed");
    let done = set(&clear("pilot", "deep"), &[]);
    assert_eq!((done.status, bitrate(&server)), (200, json!(800)), "{done:?}");
    let refused = "audit: refused POST /onvif/media_service SetVideoEncoderConfiguration: guest is a viewer";
    server.process.logs(&[refused, "user=\"guest\"", "audit: changed settings"]);
    let log = server.process.stderr();
    assert!(!log.contains("shallow") && !log.contains("deep"), "{log}");
    let Some(found) = recorded(&server, "pilot", "deep", "clear") else { return };
    assert_eq!((&found["rate"], &found["digest"]), (&json!([10, 900]), &json!(false)));
}

#[test]
fn a_closed_view_asks_for_a_login_once_for_each_request() {
    let server = Server::start(&[&USER[..], &["--onvif"]].concat());
    server.wait_until_running();
    let open = ["GetSystemDateAndTime", "GetCapabilities", "GetServices", "GetServiceCapabilities"];
    for name in open {
        answer(&server, "", DEVICE, name, "");
        // A client learns the time with a clock, or a password, that is wrong.
        answer(&server, &digest("pilot", "wrong"), DEVICE, name, "");
    }
    let closed = [(DEVICE, "GetDeviceInformation"), (MEDIA, "GetProfiles"), (EVENTS, "CreatePullPointSubscription")];
    for (namespace, name) in closed {
        let refused = ask(&server, "", namespace, name, "");
        assert_eq!((refused.status, fault(&refused).0), (401, "ter:NotAuthorized".to_owned()), "{name}");
        assert!(refused.header("www-authenticate").starts_with("Digest realm=\"rov-server\""), "{refused:?}");
        answer(&server, &digest("pilot", "deep"), namespace, name, "");
    }
    let now = SystemTime::now();
    let (hour, minute) = (Duration::from_secs(3600), Duration::from_secs(60));
    for (header, expected) in [
        (digest_at("pilot", "deep", now + hour - minute, b"1"), None),
        (digest_at("pilot", "deep", now - hour + minute, b"2"), None),
        (digest_at("pilot", "deep", now - hour - minute, b"3"), Some("more than an hour")),
        (digest_at("pilot", "deep", now + hour + minute, b"4"), Some("more than an hour")),
        (digest("pilot", "wrong"), Some("wrong user name or password")),
        (digest("nobody", "deep"), Some("wrong user name or password")),
        (clear("pilot", "wrong"), Some("the password is wrong")),
        (digest("pilot", "deep").replace("Nonce>", "Once>"), Some("incomplete login")),
    ] {
        let reply = ask(&server, &header, DEVICE, "GetDeviceInformation", "");
        match expected {
            None => assert_eq!(reply.status, 200, "{reply:?}"),
            Some(reason) => {
                assert_eq!((reply.status, fault(&reply).0), (400, "ter:NotAuthorized".to_owned()));
                assert!(fault(&reply).1.contains(reason), "{reply:?}");
            }
        }
    }
    // Somebody has seen a login on the wire.
    let seen = message(&digest("pilot", "deep"), MEDIA, "SetVideoEncoderConfiguration", &with_bitrate(800));
    assert_eq!(post(&server.url("/onvif/media_service"), &[], &seen).status, 200);
    let mut curl = Command::new(program("curl", "curl"));
    curl.args(["-sS", "--interface", "127.0.0.2", "-H", "Content-Type: text/xml", "-d", &seen.replace("800", "900")]);
    let output = curl.arg(server.url("/onvif/media_service")).output().expect("curl starts");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("nonce already used") && said.contains("NotAuthorized"), "{said}");
    assert_eq!(bitrate(&server), json!(800));
    let request = message("", DEVICE, "GetDeviceInformation", "");
    let by_curl = |args: &[&str]| {
        let mut curl = Command::new(program("curl", "curl"));
        curl.args(["-sS", "-o", "/dev/null", "-w", "%{http_code}", "-H", "Content-Type: application/soap+xml"])
            .args(args);
        let output = curl.args(["-d", &request, &server.url("/onvif/device_service")]).output().expect("curl starts");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    assert_eq!(by_curl(&["--digest", "-u", "pilot:deep"]), "200");
    assert_eq!(by_curl(&["--basic", "-u", "pilot:deep"]), "200");
    assert_eq!(by_curl(&["--digest", "-u", "pilot:wrong"]), "401");
    // The address of the picture asks for a login as well, and takes that of recorders.
    let token = "<ProfileToken>stream1</ProfileToken>";
    let uri = answer(&server, &digest("pilot", "deep"), MEDIA2, "GetSnapshotUri", token);
    let uri = uri.value("Uri").expect("an address").to_owned();
    let picture = |args: &[&str]| {
        let mut curl = Command::new(program("curl", "curl"));
        curl.args(["-sS", "-o", "/dev/null", "-w", "%{http_code} %{content_type}"]).args(args).arg(&uri);
        String::from_utf8_lossy(&curl.output().expect("curl starts").stdout).into_owned()
    };
    assert_eq!(picture(&["--digest", "-u", "pilot:deep"]), "200 image/jpeg");
    assert_eq!(picture(&["--basic", "-u", "pilot:deep"]), "200 image/jpeg");
    assert!(picture(&["--digest", "-u", "pilot:wrong"]).starts_with("401") && picture(&[]).starts_with("401"));
    let stats = server.url("/api/stats");
    let elsewhere = Command::new(program("curl", "curl")).args(["-sS", "-i", &stats]).output().expect("curl starts");
    assert!(!String::from_utf8_lossy(&elsewhere.stdout).contains("Digest"), "nowhere else: {elsewhere:?}");
    // All failed logins of an address count together, by whatever protocol.
    for n in 0..10 {
        let wrong = basic("pilot", &format!("wrong {n}"));
        assert_eq!(http::get_as(&server.url("/api/stats"), Some(&wrong)).status, 401);
    }
    // Some wait for their turn, as the right one behind them does; the others are too many.
    let status = |password: &str| ask(&server, &digest("pilot", password), DEVICE, "GetDeviceInformation", "").status;
    until_true("too many", wait::START, || {
        std::thread::scope(|scope| {
            let all: Vec<_> = (0..12).map(|_| scope.spawn(|| status("wrong"))).collect();
            all.into_iter().map(|one| one.join().expect("an answer")).filter(|status| *status == 429).count() > 0
        })
    });
    until_true("its turn", wait::START, || status("deep") == 200);
    // It is another one's turn now, and that one is late: who comes then waits, and is not refused.
    assert_eq!((status("wrong"), status("deep")), (400, 200));
}

#[test]
fn clients_write_soap_in_many_ways_and_what_is_none_is_refused() {
    let server = Server::start(&["--onvif"]);
    let url = server.url("/onvif/device_service");
    let send = |kind: Option<&str>, body: &str| {
        let headers: Vec<_> = kind.map(|kind| ("Content-Type", kind)).into_iter().collect();
        http::request_with("POST", &url, &headers, body.as_bytes())
    };
    let plain = message("", DEVICE, "GetHostname", "");
    let action = format!("application/soap+xml; charset=utf-8; action=\"{DEVICE}/GetHostname\"");
    for kind in ["application/soap+xml", &action, "text/xml; charset=utf-8", "Application/SOAP+XML", "application/xml"]
    {
        let reply = send(Some(kind), &plain);
        assert_eq!((reply.status, body(&reply).name), (200, "GetHostnameResponse".to_owned()), "{kind}");
        assert_eq!(reply.header("content-type"), "application/soap+xml; charset=utf-8");
    }
    assert_eq!(send(Some("application/json"), &plain).status, 415);
    // A page could send this without asking.
    assert_eq!(send(Some("text/plain"), &plain).status, 415);
    let prefixed = format!(
        r#"<SOAP-ENV:Envelope xmlns:SOAP-ENV="{SOAP_11}" xmlns:ns1="{DEVICE}"><SOAP-ENV:Body><ns1:GetHostname></ns1:GetHostname></SOAP-ENV:Body></SOAP-ENV:Envelope>"#
    );
    let old = send(Some("text/xml"), &prefixed);
    assert_eq!((old.status, old.header("content-type")), (200, "text/xml; charset=utf-8"));
    assert!(old.body.contains(SOAP_11) && !old.body.contains(SOAP_12));
    let unknown = send(Some("text/xml"), &prefixed.replace("GetHostname", "GetNothing"));
    assert_eq!((unknown.status, body(&unknown).value("faultcode")), (500, Some("s:Server")), "{unknown:?}");
    for (namespace, name) in [(DEVICE, "GetNothing"), ("urn:other", "GetHostname"), ("", "GetHostname")] {
        let reply = ask(&server, "", namespace, name, "");
        assert_eq!((reply.status, fault(&reply).0), (500, "ter:ActionNotSupported".to_owned()), "{namespace} {name}");
    }
    let with_entity = format!("<!DOCTYPE a [<!ENTITY x SYSTEM 'file:///etc/passwd'>]>{plain}");
    let deep = message("", DEVICE, "GetHostname", &format!("{}{}", "<a>".repeat(50), "</a>".repeat(50)));
    for text in
        ["", "{}", &plain[..plain.len() - 5], &with_entity, &deep, &plain.replace("GetHostname", "GetHostname&x;")]
    {
        let reply = send(Some("text/xml"), text);
        assert_eq!((reply.status, fault(&reply).0), (400, "ter:WellFormed".to_owned()), "{text}");
    }
    assert_eq!(send(Some("text/xml"), &plain.replace("s:Header", &" ".repeat(70_000))).status, 413);
    assert_eq!(http::get(&url).status, 405);
    assert_eq!(http::get(&server.url("/onvif/other")).status, 404);
    // As for all else: another name could be that of a page of the internet.
    let named =
        http::request_with("POST", &url, &[("Host", "evil.example"), ("Content-Type", "text/xml")], plain.as_bytes());
    assert_eq!(named.status, 421);
    let addressed = format!(
        r#"<MessageID xmlns="{ADDRESSING}">urn:7</MessageID><Action xmlns="{ADDRESSING}">{DEVICE}/GetHostname</Action>"#
    );
    for (name, action) in
        [("GetHostname", format!("{DEVICE}/GetHostnameResponse")), ("GetNothing", format!("{ADDRESSING}/soap/fault"))]
    {
        let reply = ask(&server, &addressed, DEVICE, name, "");
        let header = Envelope::parse(reply.body.as_bytes()).expect("SOAP").header;
        assert_eq!((header.value("RelatesTo"), header.value("Action")), (Some("urn:7"), Some(&*action)), "{reply:?}");
    }
    // A page sends bytes without a type, and its browser asks nobody.
    let by_page = [("Origin", "http://evil.example")];
    let watched = message("", EVENTS, "CreatePullPointSubscription", "");
    let refused = http::request_with("POST", &url, &by_page, watched.as_bytes());
    assert_eq!((refused.status, fault(&refused).0), (403, "ter:NotAuthorized".to_owned()), "{refused:?}");
    assert_eq!(http::request_with("POST", &url, &[], watched.as_bytes()).status, 200, "a program without a type");
    // Nobody changes anything where there is no user.
    let refused = ask(&server, "", MEDIA, "SetVideoEncoderConfiguration", &with_bitrate(800));
    assert!(refused.status == 403 && fault(&refused).1.contains("this server has no user"), "{refused:?}");
    // Without the option there is nothing.
    let other = Server::start(&[]);
    assert_eq!(ask(&other, "", DEVICE, "GetHostname", "").status, 404);
}

#[test]
fn addresses_are_those_by_which_it_was_asked_and_faults_say_what_cannot_be() {
    let server = Server::start(&[&USER[..], &["--onvif", "--view", "open", "--bitrate", "600"]].concat());
    server.wait_until_running();
    let port = server.address.port();
    let url = server.url("/onvif/device_service");
    let setup = "<StreamSetup><Stream>RTP-Unicast</Stream><Transport><Protocol>PROTOCOL</Protocol></Transport></StreamSetup>\
                 <ProfileToken>stream1</ProfileToken>";
    let uri = |host: &str, protocol: &str| {
        let message = message("", MEDIA, "GetStreamUri", &setup.replace("PROTOCOL", protocol));
        post(&url, &[("Host", host)], &message)
    };
    for host in ["127.0.0.1", "localhost", "10.9.8.7"] {
        for protocol in ["RTSP", "UDP", "TCP"] {
            let reply = uri(&format!("{host}:{port}"), protocol);
            let found = body(&reply).child("MediaUri").and_then(|uri| uri.value("Uri")).unwrap_or_default().to_owned();
            assert!(found.starts_with(&format!("rtsp://{host}:")) && found.ends_with("/stream1"), "{reply:?}");
        }
        let services = post(&url, &[("Host", host)], &message("", DEVICE, "GetServices", ""));
        let text = format!("<tds:XAddr>http://{host}:{port}/onvif/media2_service</tds:XAddr>");
        assert!(services.body.contains(&text), "some clients leave out the port that they ask: {services:?}");
    }
    assert_eq!(fault(&uri("127.0.0.1", "HTTP")).0, "ter:InvalidStreamSetup");
    for (name, within, code) in [
        ("GetProfile", "<ProfileToken>stream9</ProfileToken>", "ter:NoProfile"),
        ("GetProfile", "", "ter:InvalidArgs"),
        ("GetSnapshotUri", "<ProfileToken>cam1/stream1</ProfileToken>", "ter:NoProfile"),
        ("GetVideoEncoderConfiguration", "<ConfigurationToken>stream1</ConfigurationToken>", "ter:NoConfig"),
        ("GetVideoSourceConfiguration", "<ConfigurationToken>other</ConfigurationToken>", "ter:NoConfig"),
    ] {
        let reply = ask(&server, "", MEDIA, name, within);
        assert_eq!((reply.status, fault(&reply).0), (400, code.to_owned()), "{name} {within}");
    }
    let set = |within: &str| {
        let within = format!(r#"<Configuration token="encoder.stream1">{within}</Configuration>"#);
        ask(&server, &digest("pilot", "deep"), MEDIA, "SetVideoEncoderConfiguration", &within)
    };
    for (within, reason) in [
        ("<Encoding>MPEG4</Encoding>", "Encoding MPEG4"),
        ("<Resolution><Width>333</Width><Height>240</Height></Resolution>", "must be one of 3840x2160, "),
        ("<RateControl><FrameRateLimit>0</FrameRateLimit></RateControl>", "FrameRateLimit 0: must be from 1 to 240"),
        ("<RateControl><FrameRateLimit>many</FrameRateLimit></RateControl>", "is not a valid number"),
        ("<RateControl><EncodingInterval>2</EncodingInterval></RateControl>", "EncodingInterval 2"),
        ("<H264><GovLength>0</GovLength></H264>", "GovLength 0"),
        ("<H264><H264Profile>Extended</H264Profile></H264>", "Profile Extended"),
        ("<Quality>5</Quality>", "Quality 5"),
        // Given on the command line.
        (
            "<RateControl><FrameRateLimit>12</FrameRateLimit><BitrateLimit>800</BitrateLimit></RateControl>",
            "the command line",
        ),
    ] {
        let reply = set(within);
        assert_eq!((reply.status, fault(&reply).0), (400, "ter:ConfigModify".to_owned()), "{within}: {reply:?}");
        assert!(fault(&reply).1.contains(reason), "{within}: {reply:?}");
    }
    let fps = || http::get(&server.url("/api/settings/streamFramerate")).json()["value"].clone();
    assert_eq!(fps(), json!(30), "all or nothing");
    let done = set("<RateControl><FrameRateLimit>12</FrameRateLimit><BitrateLimit>600</BitrateLimit></RateControl>\
        <H264><GovLength>24</GovLength><H264Profile>Main</H264Profile></H264>");
    assert_eq!((done.status, fps()), (200, json!(12)), "{done:?}");
    let setting = |name: &str| http::get(&server.url(&format!("/api/settings/{name}"))).json()["value"].clone();
    assert_eq!((setting("keyframeInterval"), setting("encoderProfile")), (json!(2), json!("main")));
    let without = Server::start(&["--onvif", "--transport", "webrtc"]);
    let refused =
        ask(&without, "", MEDIA2, "GetStreamUri", "<Protocol>RTSP</Protocol><ProfileToken>stream1</ProfileToken>");
    assert!(fault(&refused).1.contains("RTSP is off"), "{refused:?}");
}

#[test]
fn profile_t_has_the_streams_of_all_cameras_and_says_what_waits_for_a_restart() {
    let folder = TempDir::new().expect("a temporary folder");
    let file = folder.path().join("rov.toml");
    let cameras = "[[camera]]\nname = 'bow'\nsource = 'test'\n[[camera.stream]]\nwidth = 320\nheight = 240\nfps = 15\n\
                   [[camera]]\nname = 'arm'\nsource = 'test'\n[[camera.stream]]\nname = 'wide'\nwidth = 160\nheight = \
                   120\n\
                   codec = 'h265'\n";
    std::fs::write(&file, cameras).expect("the file");
    let file = file.to_str().expect("a path");
    let server = Server::start(&[&USER[..], &["--onvif", "--view", "open", "--config", file]].concat());
    server.wait_until_running();
    let found = answer(&server, "", MEDIA2, "GetProfiles", "<Type>VideoEncoder</Type>");
    let profiles: Vec<_> = found
        .children
        .iter()
        .map(|profile| {
            let encoder =
                profile.child("Configurations").and_then(|one| one.child("VideoEncoder")).expect("an encoder");
            (profile.attribute("token").expect("a token"), encoder.value("Encoding").expect("an encoding"))
        })
        .collect();
    assert_eq!(profiles, [("stream1", "H264"), ("arm.wide", "H265")]);
    // Profile S knows no H.265.
    assert_eq!(answer(&server, "", MEDIA, "GetProfiles", "").children.len(), 1);
    assert_eq!(answer(&server, "", MEDIA, "GetVideoSources", "").children.len(), 2);
    let named = "<Protocol>RTSP</Protocol><ProfileToken>arm.wide</ProfileToken>";
    let uri = answer(&server, "", MEDIA2, "GetStreamUri", named).value("Uri").map(str::to_owned).expect("an address");
    assert!(uri.ends_with("/arm/wide"), "{uri}");
    assert_eq!(probed(&uri), "hevc,160,120");
    let uri = answer(&server, "", MEDIA2, "GetSnapshotUri", named).value("Uri").map(str::to_owned).expect("an address");
    let path = uri.strip_prefix(&server.url("")).expect("an address of this server");
    assert_eq!(jpeg::get(server.address, path).status, 200);
    let token = "<ConfigurationToken>encoder.stream1</ConfigurationToken>";
    let options = answer(&server, "", MEDIA2, "GetVideoEncoderConfigurationOptions", token);
    let encodings: Vec<_> = options.children.iter().filter_map(|one| one.value("Encoding")).collect();
    assert_eq!(
        (encodings, options.children[0].attribute("GovLengthRange")),
        (vec!["H264", "H265", "JPEG"], Some("2 4500"))
    );
    let configurations = answer(&server, "", MEDIA2, "GetVideoEncoderConfigurations", token);
    let one = &configurations.children[0];
    assert_eq!((one.attribute("GovLength"), one.attribute("Profile")), (Some("30"), Some("Baseline")));
    assert_eq!(answer(&server, "", MEDIA2, "GetVideoSourceConfigurations", "").children.len(), 2);
    let of_source = "<ConfigurationToken>source.arm</ConfigurationToken>";
    let options = answer(&server, "", MEDIA2, "GetVideoSourceConfigurationOptions", of_source);
    let bounds = options.child("Options").and_then(|options| options.child("BoundsRange")).expect("bounds");
    assert_eq!(bounds.child("WidthRange").and_then(|range| range.value("Max")), Some("160"), "its own");
    let other = of_source.replace("arm", "other");
    for namespace in [MEDIA, MEDIA2] {
        let refused = ask(&server, "", namespace, "GetVideoSourceConfigurationOptions", &other);
        assert_eq!(fault(&refused).0, "ter:NoConfig");
    }
    // Another codec is one that viewers cannot follow to.
    let change = r#"<Configuration token="encoder.stream1" GovLength="45"><Encoding>H265</Encoding></Configuration>"#;
    let message = message(&digest("pilot", "deep"), MEDIA2, "SetVideoEncoderConfiguration", change);
    let done = post(&server.url("/onvif/media2_service"), &[], &message);
    assert_eq!(done.status, 200, "{done:?}");
    let header = Envelope::parse(done.body.as_bytes()).expect("SOAP").header;
    assert_eq!(header.value("WaitsForRestart"), Some("videoEncoder"));
    server.process.logs(&["videoEncoder of stream bow/stream1 takes effect after a restart of the server"]);
    let interval = http::get(&server.url("/api/settings/keyframeInterval")).json();
    assert_eq!(interval["value"], json!(3), "{interval}");
}

#[test]
fn what_is_set_is_what_is_read_back() {
    // Neither the command line nor a file gives a size.
    let folder = TempDir::new().expect("a temporary folder");
    let small = r#"{"cameras":{"cam1":{"streams":{"stream1":{"streamResolution":"320x240"}}}}}"#;
    std::fs::write(folder.path().join("settings-0.json"), small).expect("a file");
    let runtime = Runtime::new().expect("a runtime");
    let state =
        ["--source", "test", "--onvif", "--view", "open", "--state-dir", folder.path().to_str().expect("a path")];
    let server = Serving::start(&runtime, &[&USER[..], &state].concat(), |_| {});
    let url = server.url("/onvif/media2_service");
    let get = |name: &str| {
        let token = "<ConfigurationToken>encoder.stream1</ConfigurationToken>";
        body(&post(&url, &[], &message("", MEDIA2, name, token)))
    };
    let sizes = || {
        let options = get("GetVideoEncoderConfigurationOptions");
        let sizes = options.children[0].children.iter().filter(|one| one.name == "ResolutionsAvailable");
        sizes.filter_map(|size| Some(format!("{}x{}", size.value("Width")?, size.value("Height")?))).collect::<Vec<_>>()
    };
    let set = |(width, height): (u32, u32), fps: u32, kbps: u32, gop: u32| {
        let within = format!(
            r#"<Configuration token="encoder.stream1" GovLength="{gop}"><Resolution><Width>{width}</Width><Height>{height}</Height></Resolution><RateControl><FrameRateLimit>{fps}</FrameRateLimit><BitrateLimit>{kbps}</BitrateLimit></RateControl></Configuration>"#
        );
        post(&url, &[], &message(&digest("pilot", "deep"), MEDIA2, "SetVideoEncoderConfiguration", &within))
    };
    let read = || {
        let found = get("GetVideoEncoderConfigurations").children.swap_remove(0);
        let (size, rate) = (found.child("Resolution").expect("a size"), found.child("RateControl").expect("a rate"));
        let number = |text: Option<&str>| text.and_then(|text| text.parse::<u32>().ok()).expect("a number");
        (
            (number(size.value("Width")), number(size.value("Height"))),
            number(rate.value("FrameRateLimit")),
            number(rate.value("BitrateLimit")),
            number(found.attribute("GovLength")),
        )
    };
    let (all, (_, _, kbps, gop)) = (sizes(), read());
    assert!(["1920x1080", "640x360", "320x240"].iter().all(|size| all.iter().any(|one| one == size)), "{all:?}");
    // Down and up again, with the bit rate and the distance that were read before: neither follows size or rate.
    for (size, fps) in [((640, 360), 15), ((1920, 1080), 10), ((320, 240), 30)] {
        let done = set(size, fps, kbps, gop);
        assert_eq!((done.status, read()), (200, (size, fps, kbps, gop)), "{done:?}");
        assert!(all.iter().all(|one| sizes().contains(one)), "{all:?}");
    }
    // At 5 frames per second 300 s are 1,500 frames.
    let refused = set((320, 240), 5, kbps, 2000);
    assert!(
        refused.status == 400 && fault(&refused).1.contains("GovLength 2000: must be from 1 to 1500"),
        "{refused:?}"
    );
    assert_eq!(set((320, 240), 60, kbps, 18_000).status, 200, "which 30 frames per second do not allow");
    assert_eq!(read(), ((320, 240), 60, kbps, 18_000));
    server.stop(&runtime);
}

#[test]
fn what_is_passed_through_is_told_as_it_is_and_nothing_of_it_can_be_set() {
    let coded = "videotestsrc is-live=true ! video/x-raw,width=352,height=288,framerate=15/1 ! \
                 x264enc tune=zerolatency key-int-max=15 ! video/x-h264,profile=baseline";
    let server = Server::start(&[&USER[..], &["--onvif", "--view", "open", "--pipeline", coded]].concat());
    server.wait_until_running();
    let token = "<ConfigurationToken>encoder.stream1</ConfigurationToken>";
    let found = answer(&server, "", MEDIA, "GetVideoEncoderConfiguration", token);
    let size = found.child("Configuration").and_then(|one| one.child("Resolution")).expect("a size").clone();
    assert_eq!((size.value("Width"), size.value("Height")), (Some("352"), Some("288")));
    let options = answer(&server, "", MEDIA, "GetVideoEncoderConfigurationOptions", token);
    let h264 = options.child("Options").and_then(|options| options.child("H264")).expect("options");
    let range = h264.child("FrameRateRange").map(|range| (range.value("Min"), range.value("Max")));
    assert_eq!(
        (h264.children.iter().filter(|one| one.name == "ResolutionsAvailable").count(), range),
        (1, Some((Some("15"), Some("15"))))
    );
    let set = |within: &str| {
        let within = format!(r#"<Configuration token="encoder.stream1">{within}</Configuration>"#);
        ask(&server, &digest("pilot", "deep"), MEDIA, "SetVideoEncoderConfiguration", &within).status
    };
    let as_read = "<RateControl><FrameRateLimit>15</FrameRateLimit><BitrateLimit>1</BitrateLimit></RateControl>";
    assert_eq!(set(as_read), 200, "as it is, with the rate that was measured a while ago");
    assert_eq!(set("<RateControl><FrameRateLimit>10</FrameRateLimit></RateControl>"), 400);
}

#[test]
fn beside_https_its_addresses_are_https() {
    let server = Server::start(&["--onvif", "--tls"]);
    let mut curl = Command::new(program("curl", "curl"));
    curl.args(["-sSk", "-H", "Content-Type: application/soap+xml", "-d", &message("", DEVICE, "GetServices", "")]);
    let output = curl.arg(format!("https://{}/onvif/device_service", server.address)).output().expect("curl starts");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains(&format!("<tds:XAddr>https://{}/onvif/media_service</tds:XAddr>", server.address)), "{said}");
}

#[test]
fn a_pull_waits_for_what_happens_no_longer_than_it_was_told() {
    let server = Server::start(&[&USER[..], &["--onvif", "--view", "open"]].concat());
    server.wait_until_running();
    let created = answer(
        &server,
        "",
        EVENTS,
        "CreatePullPointSubscription",
        "<InitialTerminationTime>PT60S</InitialTerminationTime>",
    );
    let address =
        created.child("SubscriptionReference").and_then(|one| one.value("Address")).expect("an address").to_owned();
    let pull = |timeout: &str| {
        let within = format!("<Timeout>{timeout}</Timeout><MessageLimit>10</MessageLimit>");
        let reply = post(&address, &[], &message("", EVENTS, "PullMessages", &within));
        assert_eq!(reply.status, 200, "{reply:?}");
        reply.body
    };
    let first = pull("PT10S");
    assert!(first.contains("SignalLoss") && first.contains("Initialized"), "{first}");
    let began = Instant::now();
    let nothing = pull("PT1.2S");
    assert!(!nothing.contains("NotificationMessage"), "nothing has happened");
    let pulled = Envelope::parse(nothing.as_bytes()).expect("SOAP").body;
    let time = |name: &str| pulled.value(name).and_then(date_time).expect("a time");
    let left = time("TerminationTime") - time("CurrentTime");
    // Of 60 s from its beginning, in whole seconds.
    assert!(left <= Duration::from_secs(59), "as if it lasted from the end of the wait: {left}");
    assert!((Duration::from_millis(1200)..Duration::from_secs(8)).contains(&began.elapsed()), "{:?}", began.elapsed());
    std::thread::scope(|scope| {
        let pulled = scope.spawn(|| pull("PT20S"));
        let changed = ask(&server, &digest("pilot", "deep"), MEDIA, "SetVideoEncoderConfiguration", &with_bitrate(700));
        assert_eq!(changed.status, 200, "{changed:?}");
        let pulled = pulled.join().expect("an answer");
        assert!(pulled.contains("ConfigurationChanged") && pulled.contains("encoder.stream1"), "{pulled}");
    });
    let renew = |time: &str| {
        let within = format!("<TerminationTime>{time}</TerminationTime>");
        post(&address, &[], &message("", NOTIFICATION, "Renew", &within))
    };
    assert_eq!((renew("PT120S").status, renew("never").status), (200, 400));
    // As it is, once more.
    assert_eq!(post(&address, &[], &message("", EVENTS, "SetSynchronizationPoint", "")).status, 200);
    assert!(pull("PT10S").contains("Initialized"));
    let end = || post(&address, &[], &message("", NOTIFICATION, "Unsubscribe", ""));
    assert_eq!(end().status, 200);
    assert_eq!((end().status, ask(&server, "", EVENTS, "PullMessages", "").status), (400, 400));
    let filtered = answer(
        &server,
        "",
        EVENTS,
        "CreatePullPointSubscription",
        r#"<Filter><TopicExpression xmlns="http://docs.oasis-open.org/wsn/b-2">tns1:RuleEngine//.</TopicExpression></Filter>"#,
    );
    let address = filtered.child("SubscriptionReference").and_then(|one| one.value("Address")).expect("an address");
    let within = "<Timeout>PT0.2S</Timeout><MessageLimit>10</MessageLimit>";
    let reply = post(address, &[], &message("", EVENTS, "PullMessages", within));
    assert!(reply.status == 200 && !reply.body.contains("NotificationMessage"), "{reply:?}");
}

/// A vehicle with two cards, which are moved into its network while it waits.
const ROBOT: &str = r#"
echo "in its network" >&2
read -r
ip link set lo up
for card in 1 2; do ip address add "10.$card.0.2/24" dev "far$card" && ip link set "far$card" up; done
exec "$0" --source test --width 320 --height 240 --host 0.0.0.0 --signal-port 8080 --name "bow 1" --state-dir "$1" \
    --onvif --user pilot --password deep --view open
"#;

fn ip(line: &str) {
    let status = Command::new(program("ip", "iproute2")).args(line.split(' ')).status().expect("ip runs");
    assert!(status.success(), "ip {line}");
}

/// What answers a probe from this address, and from where.
fn probe(from: Ipv4Addr, kind: &str) -> Option<(SocketAddr, String)> {
    let socket = UdpSocket::bind((from, 0)).expect("a socket");
    SockRef::from(&socket).set_multicast_if_v4(&from).expect("its interface");
    socket.set_read_timeout(Some(Duration::from_millis(500))).expect("a limit");
    let probe = format!(
        r#"<Envelope xmlns="{SOAP_12}" xmlns:a="http://schemas.xmlsoap.org/ws/2004/08/addressing" xmlns:n="http://www.onvif.org/ver10/network/wsdl"><Header><a:MessageID>uuid:7</a:MessageID></Header><Body><Probe xmlns="http://schemas.xmlsoap.org/ws/2005/04/discovery"><Types>{kind}</Types></Probe></Body></Envelope>"#
    );
    socket.send_to(probe.as_bytes(), (GROUP, PORT)).expect("it is sent");
    let mut buffer = [0; 8192];
    let (length, sender) = socket.recv_from(&mut buffer).ok()?;
    assert!(socket.recv_from(&mut buffer).is_err(), "one answer for each interface");
    Some((sender, String::from_utf8_lossy(&buffer[..length]).into_owned()))
}

/// What the vehicle tells everybody, on the network of each of its cards.
fn heard(group: &UdpSocket, kind: &str) -> [Element; 2] {
    group.set_nonblocking(true).expect("it does not wait");
    let mut told = [None, None];
    until_true(kind, wait::START, || {
        let mut buffer = [0; 8192];
        while let Ok((length, sender)) = group.recv_from(&mut buffer) {
            let Ok(Envelope { body, .. }) = Envelope::parse(&buffer[..length]) else { continue };
            let card = [1, 2].iter().position(|card| sender.ip() == IpAddr::from([10, *card, 0, 2]));
            if let Some(card) = card.filter(|_| body.name == kind) {
                told[card] = Some(body);
            }
        }
        told.iter().all(Option::is_some)
    });
    told.map(|told| told.expect("both"))
}

#[test]
fn it_is_found_on_each_network_by_its_address_there() {
    if !namespace::is_inside("it_is_found_on_each_network_by_its_address_there") {
        return;
    }
    let state = TempDir::new().expect("a temporary folder");
    let (stdin, mut moved) = std::io::pipe().expect("a pipe");
    let mut command = Command::new(program("unshare", "util-linux"));
    command.args(["--net", "bash", "-c", ROBOT]).arg(binary("rov-server")).arg(state.path());
    let mut robot = Process::spawn_with_input("the vehicle", command.env_remove("RUST_LOG").stdin(stdin));
    robot.wait_for_line("its network", wait::START, |line| line.contains("in its network").then_some(()));
    for card in [1, 2] {
        let (near, far) = (format!("near{card}"), format!("far{card}"));
        let made = Command::new("ip").args(["link", "add", &near, "type", "veth", "peer", "name", &far]).status();
        if !made.expect("ip runs").success() {
            return skipped("this system has no virtual Ethernet (veth)");
        }
        ip(&format!("address add 10.{card}.0.9/24 dev near{card}"));
        ip(&format!("link set near{card} up"));
        ip(&format!("link set far{card} netns {}", robot.pid()));
    }
    let group = broadcast_socket(PORT, true).expect("a socket");
    for card in [1, 2] {
        group.join_multicast_v4(&GROUP, &Ipv4Addr::new(10, card, 0, 9)).expect("its network");
    }
    moved.write_all(b"\n").expect("it reads");
    let hello = heard(&group, "Hello");
    for (card, hello) in [1, 2].iter().zip(&hello) {
        let address = format!("http://10.{card}.0.2:8080/onvif/device_service");
        assert_eq!(hello.value("XAddrs"), Some(&*address), "of the network where it is told");
    }
    for card in [1, 2] {
        let joined = format!("answering WS-Discovery on far{card} (10.{card}.0.2)");
        robot.wait_for_line("its group", wait::START, |line| line.contains(&joined).then_some(()));
        let here = Ipv4Addr::new(10, card, 0, 9);
        let (sender, text) = wait::until("an answer", wait::SOON, || probe(here, "n:NetworkVideoTransmitter"));
        assert_eq!((sender.ip(), sender.port()), (IpAddr::from([10, card, 0, 2]), PORT));
        let answer = Envelope::parse(text.as_bytes()).expect("SOAP");
        let found = answer.body.child("ProbeMatch").expect("a match");
        let address = format!("http://10.{card}.0.2:8080/onvif/device_service");
        assert_eq!((answer.header.value("RelatesTo"), found.value("XAddrs")), (Some("uuid:7"), Some(&*address)));
        assert!(found.value("Scopes").is_some_and(|scopes| scopes.contains("name/bow%201")), "{text}");
        let named = post(&address, &[], &message("", DEVICE, "GetServices", ""));
        assert!(named.body.contains(&address.replace("device", "events")), "{named:?}");
        assert_eq!(probe(here, "n:NetworkVideoDisplay"), None, "who looks for something else is not answered");
    }
    // By the system's choice of a network.
    ip("route add 224.0.0.0/4 dev near1");
    let Some(mut all) = util() else { return };
    let output = all.arg("-a").output().expect("onvif-util starts");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("10.1.0.2") && said.contains("bow 1 rov-server"), "{said}{output:?}");
    let Some(mut session) = util() else { return };
    session.args(["-u", "pilot", "-p", "deep", "10.1.0.2"]);
    let (commands, mut typed) = std::io::pipe().expect("a pipe");
    let mut session = Process::spawn_with_input("onvif-util", session.stdin(commands));
    for (command, shown) in [
        ("get rtsp", "rtsp://10.1.0.2:8554/stream1"),
        ("get video", "Bit Rate:   1266"),
        ("set bitrate 700", "Bitrate was set to 700"),
        ("get video", "Bit Rate:   700"),
    ] {
        typed.write_all(format!("{command}\n").as_bytes()).expect("it reads");
        until_true(shown, wait::START, || session.stdout().contains(shown) || !session.is_running());
        assert!(session.stdout().contains(shown), "{command}: {}{}", session.stdout(), robot.stderr());
    }
    robot.signal(libc::SIGTERM);
    let of = |told: &Element| told.child("EndpointReference").and_then(|of| of.value("Address").map(str::to_owned));
    assert_eq!(heard(&group, "Bye").each_ref().map(of), hello.each_ref().map(of), "it goes");
}
