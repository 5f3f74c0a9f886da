//! HTTPS: the certificate that rov-client saw first, and another one.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;

use rov_tests::http;
use rov_tests::process::{Process, binary, program};
use rov_tests::programs::{Server, free_udp_port};
use rov_tests::rtp::free_rtp_port;
use rov_tests::wait;
use tempfile::TempDir;
use url::Url;

fn fingerprint(server: &Server) -> String {
    wait::until("a fingerprint in the log", wait::SOON, || {
        let log = server.process.stderr();
        let shown = log.split("HTTPS with the certificate of SHA-256 ").nth(1);
        shown.and_then(|rest| rest.get(..64)).map(str::to_owned)
    })
}

/// `rov-client` whose certificates are kept below `state`.
fn client(state: &TempDir, args: &[&str]) -> Process {
    let mut command = Command::new(binary("rov-client"));
    command.env_remove("RUST_LOG").env("XDG_STATE_HOME", state.path());
    command.args(["--headless", "--interface", "lo"]).args(args);
    Process::spawn("rov-client", &mut command)
}

fn shows(client: &Process) {
    wait::until_true("pictures", wait::START, || client.stdout().contains("live: "));
}

fn folder() -> TempDir {
    TempDir::new().expect("a temporary folder")
}

#[test]
fn https_is_served_with_the_servers_own_certificate_and_who_asks_in_clear_is_led_there() {
    let state = folder();
    let state = state.path().to_str().expect("a path");
    let server = Server::start(&["--tls", "--state-dir", state]);
    let first = fingerprint(&server);
    let in_clear = http::get_here(&server.url("/api/stats?stream=x"));
    let place = format!("https://{}/api/stats?stream=x", server.address);
    assert_eq!((in_clear.status, in_clear.header("location")), (308, place.as_str()));
    // Nobody is led to a name that is not this machine's.
    let mut foreign = TcpStream::connect(server.address).expect("a connection");
    foreign.write_all(b"GET / HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n").expect("a request");
    let mut answer = String::new();
    foreign.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 421") && !answer.to_lowercase().contains("location"), "{answer}");
    let mut curl = Command::new(program("curl", "curl"));
    curl.args(["-sk", "--max-time", "10", "-o", "/dev/null", "-w", "%{http_code}"])
        .arg(format!("https://{}/api/stats", server.address));
    let output = curl.output().expect("curl");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "200");
    drop(server);
    assert_eq!(fingerprint(&Server::start(&["--tls", "--state-dir", state])), first, "the same after a restart");
}

#[test]
fn rov_client_takes_what_it_saw_first_and_nothing_else_until_the_user_says_so() {
    let (known, discovery) = (folder(), free_udp_port().to_string());
    // The same each time: the server's id comes from it, too.
    let port = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a port").port().to_string();
    let rtp_port = free_rtp_port().to_string();
    let args = ["--tls", "--discovery-port", &discovery, "--signal-port", &port];
    let all = ["--transport", "webrtc,rtp,rtsp", "--rtp-host", "127.0.0.1", "--rtp-port", &rtp_port];
    let start = || Server::start(&[&args[..], &all].concat());
    let server = start();
    let first = fingerprint(&server);
    let named = format!("https://{}/whep", server.address);
    for args in [&["--discovery-port", &discovery][..], &["--url", &named]] {
        let client = client(&known, args);
        shows(&client);
        assert!(client.stderr().contains(&format!("is {first}")), "said at the first time: {}", client.stderr());
        drop(client);
    }
    drop(server);
    // The same server for whoever looks at name and port, with another key.
    let other = start();
    let second = fingerprint(&other);
    assert_ne!(first, second);
    let found = ["--discovery-port", &discovery];
    for args in [
        &found[..],
        &[&found[..], &["--transport", "rtsp"]].concat(),
        &[&found[..], &["--transport", "rtp"]].concat(),
        &["--url", &named],
    ] {
        let mut refused = client(&known, &[args, &["--no-wait"]].concat());
        assert_eq!(refused.wait(wait::START), 2, "{}", refused.stderr());
        let log = refused.stderr();
        assert!(log.contains("HAS CHANGED") && log.contains(&first) && log.contains(&second), "{log}");
        assert!(!refused.stdout().contains("live: "), "{}", refused.stdout());
    }
    // The user's word counts, once and from then on; a wrong one does not.
    let mut wrong = client(&known, &["--url", &named, "--no-wait", "--server-certificate", &first]);
    assert_eq!(wrong.wait(wait::START), 2, "{}", wrong.stderr());
    shows(&client(&known, &["--url", &named, "--server-certificate", &second]));
    shows(&client(&known, &["--url", &named]));
}

#[test]
fn whoever_takes_the_place_of_a_server_without_its_https_is_not_shown() {
    let (known, discovery) = (folder(), free_udp_port().to_string());
    let port = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a port").port().to_string();
    let start =
        |args: &[&str]| Server::start(&[&["--discovery-port", &discovery, "--signal-port", &port], args].concat());
    let server = start(&["--tls"]);
    let address = server.address.to_string();
    shows(&client(&known, &["--discovery-port", &discovery]));
    shows(&client(&known, &["--url", &format!("http://{address}/whep")]));
    drop(server);
    let impostor = start(&[]);
    let named = format!("http://{address}/whep");
    let rtsp = Url::parse(impostor.rtsp.as_deref().expect("RTSP")).expect("a URL");
    let rtsp_port = rtsp.port().expect("a port").to_string();
    let found = ["--discovery-port", &discovery];
    for args in [
        &found[..],
        &[&found[..], &["--transport", "rtsp"]].concat(),
        &["--url", &named],
        &[&address, "--transport", "rtsp", "--rtsp-port", &rtsp_port],
        &[&address, "--transport", "rtp"],
    ] {
        let mut refused = client(&known, &[args, &["--no-wait"]].concat());
        assert_eq!(refused.wait(wait::START), 2, "{}", refused.stderr());
        let log = refused.stderr();
        assert!(log.contains("SHOWS NO CERTIFICATE") && log.contains("--server-certificate none"), "{log}");
        assert!(!refused.stdout().contains("live: "), "{}", refused.stdout());
    }
    shows(&client(&known, &["--discovery-port", &discovery, "--server-certificate", "none"]));
}

#[test]
fn whoever_takes_the_place_of_a_server_by_rtsp_alone_is_not_shown_in_the_same_run_either() {
    let known = folder();
    let port =
        || TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a port").port().to_string();
    let (http_port, rtsp_port) = (port(), port());
    let start = |args: &[&str]| Server::start(&[&["--rtsp-port", &rtsp_port], args].concat());
    let server = start(&["--tls", "--signal-port", &http_port]);
    let address = server.address.to_string();
    shows(&client(&known, &[&address, "--transport", "webrtc"]));
    let client = client(&known, &[&address, "--transport", "rtsp", "--rtsp-port", &rtsp_port]);
    shows(&client);
    drop(server);
    let impostor = start(&[]);
    let said = "has not shown its certificate by HTTPS";
    wait::until_true("that it is not taken", wait::START, || client.stderr().contains(said));
    assert_eq!(impostor.stats().rtsp.expect("RTSP").clients, 0);
}

#[test]
fn a_server_of_https_that_is_named_by_its_address_gets_the_login() {
    let server = Server::start(&["--tls", "--user", "pilot", "--password", "deep"]);
    let address = server.address.to_string();
    let known = folder();
    // The second knows the certificate.
    for _ in 0..2 {
        shows(&client(&known, &[&address, "--user", "pilot", "--password", "deep", "--transport", "webrtc"]));
    }
}

#[test]
fn a_certificate_of_the_users_own_is_served() {
    let folder = folder();
    let path = |name: &str| folder.path().join(name).to_str().expect("a path").to_owned();
    let (certificate, key) = (path("certificate.pem"), path("key.pem"));
    let mut openssl = Command::new(program("openssl", "openssl"));
    openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]);
    openssl.args(["-subj", "/CN=rov", "-keyout", &key, "-out", &certificate]);
    assert!(openssl.output().expect("openssl").status.success());
    let server = Server::start(&["--tls-certificate", &certificate, "--tls-key", &key]);
    let mut openssl = Command::new(program("openssl", "openssl"));
    openssl.args(["x509", "-noout", "-fingerprint", "-sha256", "-in", &certificate]);
    let shown = String::from_utf8(openssl.output().expect("openssl").stdout).expect("UTF-8");
    assert!(shown.replace(':', "").to_ascii_lowercase().contains(&fingerprint(&server)), "{shown}");
    let mut none = rov_tests::programs::server_process(&["--tls-certificate", &certificate, "--tls-key", &certificate]);
    assert_eq!(none.wait(wait::START), 2);
    assert!(none.stderr().contains("--tls-key"), "{}", none.stderr());
}
