//! Users and their roles: each right tried by each, over each protocol.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Instant;

use rov_server::users::{PasswordHash, TokenHash};
use rov_tests::devtools::DevTools;
use rov_tests::http::{self, Reply, basic, get_as};
use rov_tests::process::{Process, binary};
use rov_tests::programs::{Client, Server, client_process, free_udp_port};
use rov_tests::rtsp::Connection;
use rov_tests::wait::{self, until_true};
use rov_tests::{OFFER, jpeg};
use serde_json::{Value, json};
use tempfile::TempDir;

const LIVE: &str = "document.body?.dataset.state === 'live'";
const GUEST_TOKEN: &str = "rov_guest-token";
const PILOT_TOKEN: &str = "rov_pilot-token";
/// Has nothing for an encoder.
const SDP: &str = "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=x\r\nt=0 0\r\nm=audio 0 RTP/AVP 0\r\n";

/// A server with a viewer and a controller, each with a password and a token.
struct Guarded {
    server: Server,
    _file: TempDir,
}

impl Guarded {
    fn start(options: &str, args: &[&str]) -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        let file = folder.path().join("rov.toml");
        let hash = |password: &str| PasswordHash::of(password).expect("a hash").as_str().to_owned();
        let user = |name: &str, role: &str, password: &str, token: &str| {
            let (password, token) = (hash(password), TokenHash::of(token));
            format!("[[user]]\nname = '{name}'\nrole = '{role}'\npassword = '{password}'\ntoken = '{token}'\n")
        };
        let guest = user("guest", "viewer", "shallow", GUEST_TOKEN);
        let pilot = user("pilot", "controller", "deep sea", PILOT_TOKEN);
        std::fs::write(&file, format!("{options}\n{guest}{pilot}")).expect("the file");
        let file = file.to_str().expect("a path");
        let mut server = Server::start(&[&["--config", file], args].concat());
        server.login = Some(bearer(GUEST_TOKEN));
        Self { server, _file: folder }
    }

    fn log(&self) -> String {
        self.server.process.stderr()
    }
}

fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

/// The logins that open the picture, and those that do not.
fn logins() -> (Vec<String>, Vec<Option<String>>) {
    let right = vec![
        basic("guest", "shallow"),
        bearer(GUEST_TOKEN),
        basic("pilot", "deep sea"),
        bearer(PILOT_TOKEN),
        basic("anything", PILOT_TOKEN),
    ];
    let wrong = [basic("guest", "deep sea"), basic("nobody", "shallow"), bearer("rov_other"), bearer("shallow")];
    (right, std::iter::once(None).chain(wrong.map(Some)).collect())
}

fn post(server: &Server, path: &str, login: Option<&str>) -> Reply {
    let headers = [("Content-Type", "application/sdp"), ("Authorization", login.unwrap_or_default())];
    http::request_with("POST", &server.url(path), &headers[..1 + usize::from(login.is_some())], OFFER.as_bytes())
}

fn describe(url: &str, login: Option<&str>) -> u16 {
    let header = login.map(|login| format!("Authorization: {login}\r\n")).unwrap_or_default();
    Connection::open(url).request("DESCRIBE", "", &header).status
}

#[test]
fn a_closed_view_asks_alike_by_every_protocol() {
    let guarded = Guarded::start("view = 'requires-login'", &["--max-viewers", "64"]);
    let server = &guarded.server;
    server.wait_until_running();
    let rtsp = server.rtsp.clone().expect("RTSP");
    let paths = ["/api/stats", "/api/clock", "/metrics", "/api/settings"];
    let (right, wrong) = logins();
    for login in &right {
        for path in paths {
            assert_eq!(get_as(&server.url(path), Some(login)).status, 200, "{path} by {login}");
        }
        assert_eq!(jpeg::get_as(server.address, "/snapshot.jpg", login).status, 200, "a picture by {login}");
        let watched = post(server, "/whep", Some(login));
        assert_eq!(watched.status, 201, "WHEP by {login}");
        let ended = http::request_with("DELETE", watched.location().as_str(), &[("Authorization", login)], b"");
        assert_eq!(ended.status, 200);
        assert_eq!(describe(&rtsp, Some(login)), 200, "RTSP by {login}");
    }
    for login in &wrong {
        let login = login.as_deref();
        // Each counts as a failed login, of which there are not to be too many.
        let all = paths.into_iter().chain(["/snapshot.jpg", "/stream.mjpg", "/stream.sdp"]);
        for path in all.take(if login.is_none() { usize::MAX } else { 3 }) {
            let refused = get_as(&server.url(path), login);
            assert_eq!(refused.status, 401, "{path} by {login:?}");
            let schemes: Vec<_> = refused.headers.get_all("www-authenticate").iter().map(|v| v.to_str()).collect();
            assert!(schemes.len() == 2 && !refused.error().is_empty(), "{refused:?}");
        }
        assert_eq!(post(server, "/whep", login).status, 401, "WHEP by {login:?}");
    }
    assert_eq!(post(server, "/offer", None).status, 401);
    // Nor is anybody told before what paths there are.
    let other = rtsp.replace("/stream1", "/nothing");
    for (url, login, status) in [
        (&rtsp, None, 401),
        (&rtsp, wrong[1].as_deref(), 401),
        (&other, None, 401),
        (&other, Some(right[1].as_str()), 404),
    ] {
        assert_eq!(describe(url, login), status, "{url} by {login:?}");
    }
    until_true("the audit line of who went without a login", wait::SOON, || {
        guarded.log().contains("audit: refused RTSP DESCRIBE /nothing: this needs a login")
    });
    // What is in a query gets into logs.
    for query in ["token", "access_token", "auth", "jwt"] {
        assert_eq!(http::get(&server.url(&format!("/api/stats?{query}={PILOT_TOKEN}"))).status, 401, "{query}");
        assert_eq!(describe(&format!("{rtsp}?{query}={PILOT_TOKEN}"), None), 401, "{query}");
    }
    // The page itself is for everybody, as it has the form; health says whether all is well and nothing else.
    assert_eq!(["/", "/viewer.js", "/login.js"].map(|path| http::get(&server.url(path)).status), [200; 3]);
    let (status, health) = http::health(server.address);
    assert_eq!((status, health.streams.len(), health.cameras.len()), (200, 0, 0));
    let log = guarded.log();
    assert!(log.contains("audit: refused GET /api/stats") && log.contains("from=127.0.0.1"), "{log}");
    for secret in ["shallow", "deep sea", GUEST_TOKEN, PILOT_TOKEN, "rov_other", "$argon2", "sha256:"] {
        assert!(!log.contains(secret), "{secret} in {log}");
    }
}

#[test]
fn previews_and_the_page_are_for_who_has_logged_in() {
    let guarded = Guarded::start("view = 'requires-login'", &[]);
    guarded.server.wait_until_running();
    let who = |login: Option<&str>| get_as(&guarded.server.url("/api/login"), login).json();
    let nobody = json!({"user": null, "role": null, "may_watch": false, "may_change": false, "view": "requires-login"});
    assert_eq!(who(None), nobody);
    assert_eq!(
        (who(Some(&bearer(GUEST_TOKEN)))["role"].clone(), who(Some(&basic("pilot", "deep sea")))["may_change"].clone()),
        (json!("viewer"), json!(true))
    );
    assert_eq!(who(Some(&bearer(GUEST_TOKEN)))["may_change"], json!(false));

    let mut chromium = DevTools::start();
    let text = |chromium: &mut DevTools, page, id: &str| {
        let text = chromium.evaluate(page, &format!("document.getElementById('{id}').textContent"));
        text.as_str().unwrap_or_default().to_owned()
    };
    // Neither without a login nor by the query.
    for path in ["/".to_owned(), format!("/?token={PILOT_TOKEN}")] {
        let page = chromium.open(&guarded.server.url(&path));
        chromium.wait_for(&page, "document.getElementById('login')?.hidden === false", wait::START);
    }
    let page = chromium.open(&guarded.server.url("/"));
    chromium.wait_for(&page, "document.getElementById('login')?.hidden === false", wait::START);
    let log_in = |password: &str| {
        format!(
            "document.getElementById('user').value = 'guest'; document.getElementById('password').value = \
             '{password}'; document.querySelector('#login button').click(); 0"
        )
    };
    chromium.evaluate(&page, &log_in("deep"));
    chromium.wait_for(&page, "document.getElementById('login-error').textContent !== ''", wait::START);
    assert!(text(&mut chromium, &page, "login-error").contains("wrong"));
    chromium.evaluate(&page, &log_in("shallow"));
    chromium.wait_for(&page, LIVE, wait::START);
    // A reload of the tab does not ask again.
    chromium.call(Some(&page), "Page.reload", json!({}));
    chromium.wait_for(&page, LIVE, wait::START);

    // A token in the fragment, which is taken out of the address at once.
    let page = chromium.open(&guarded.server.url(&format!("/?x#token={GUEST_TOKEN}")));
    chromium.wait_for(&page, LIVE, wait::START);
    assert_eq!(chromium.evaluate(&page, "location.hash + location.search"), Value::from("?x"));
}

#[test]
fn without_a_login_a_server_is_open_to_watch_and_one_password_closes_it() {
    let open = Server::start(&["--user", "pilot", "--password", "deep", "--view", "open"]);
    open.wait_until_running();
    assert_eq!(http::get(&open.url("/api/stats")).status, 200);
    assert_eq!(describe(open.rtsp.as_deref().expect("RTSP"), None), 200);
    open.process.logs(&["are open to the whole network", "--view requires-login"]);
    // A wrong login is a mistake that its user wants to know of, also where none is needed.
    assert_eq!(get_as(&open.url("/api/stats"), Some(&basic("pilot", "shallow"))).status, 401);

    let closed = Server::start(&["--user", "pilot", "--password", "deep"]);
    assert_eq!(http::get(&closed.url("/api/stats")).status, 401);
    assert_eq!(post(&closed, "/whep", None).status, 401);
    closed.wait_until_running();
    let login = closed.login.as_deref().expect("its own");
    assert_eq!(jpeg::get_as(closed.address, "/snapshot.jpg", login).status, 200);

    // Who has a login for others is not kept from a server without users.
    let nobody = Server::start(&[]);
    assert_eq!(get_as(&nobody.url("/api/stats"), Some(&basic("pilot", "deep"))).status, 200);
}

#[test]
fn failed_logins_of_an_address_count_over_all_protocols_together() {
    let guarded = Guarded::start("view = 'requires-login'", &[]);
    let (url, rtsp) = (guarded.server.url("/api/stats"), guarded.server.rtsp.clone().expect("RTSP"));
    guarded.server.wait_until_running();
    let (url, wrong, start) = (&url, |n: usize| bearer(&format!("rov_other{n}")), Instant::now());
    // What is asked with the same wrong login again and again is no guess.
    for _ in 0..30 {
        assert_eq!(get_as(url, Some(&wrong(0))).status, 401);
    }
    for n in 0..9 {
        assert_eq!(get_as(url, Some(&wrong(n))).status, 401);
        assert_eq!(describe(&rtsp, Some(&basic("guest", &format!("deep{n}")))), 401);
    }
    // From then on once a second, by whatever protocol; who waits already comes first, and not too many may wait.
    let mut more = 0;
    let refused = loop {
        let replies = std::thread::scope(|scope| {
            let at_once = (0..6).map(|n| scope.spawn(move || get_as(url, Some(&wrong(100 * (more + 1) + n)))));
            at_once.collect::<Vec<_>>().into_iter().map(|reply| reply.join().expect("a reply")).collect::<Vec<_>>()
        });
        more += replies.iter().filter(|reply| reply.status == 401).count();
        if let Some(refused) = replies.into_iter().find(|reply| reply.status == 429) {
            break refused;
        }
    };
    // 20 at once, and one for each second that it took.
    assert!(18 + more as u64 <= 20 + start.elapsed().as_secs() + 1, "{more}");
    assert_eq!(refused.header("retry-after"), "1");
    assert!(refused.error().contains("too many failed logins"), "{refused:?}");
    assert_eq!(get_as(url, Some(&bearer(GUEST_TOKEN))).status, 200, "a token is no guess");
    let from_elsewhere = format!("Authorization: {}\r\n", basic("guest", "shallow"));
    assert_eq!(Connection::open_from([127, 0, 0, 2], &rtsp).request("DESCRIBE", "", &from_elsewhere).status, 200);
    let log = guarded.log();
    assert!(log.contains("failed logins from 127.0.0.1; it may try once a second now"), "{log}");
    assert_eq!(get_as(url, Some(&basic("guest", "shallow"))).status, 200, "it waits for its turn");
}

#[test]
fn a_recorder_with_an_old_password_keeps_nobody_else_of_its_address_out() {
    let guarded = Guarded::start("view = 'requires-login'", &[]);
    let plain = Server::start(&["--user", "guest", "--password", "shallow", "--rtsp-basic-auth"]);
    for server in [&guarded.server, &plain] {
        let rtsp = server.rtsp.clone().expect("RTSP");
        // Each on a connection of its own: a recorder comes again and again.
        for _ in 0..80 {
            assert_eq!(describe(&rtsp, Some(&basic("guest", "old"))), 401);
        }
        let log = server.process.stderr();
        assert!(!log.contains("failed logins from"), "{log}");
        assert_eq!(get_as(&server.url("/api/stats"), Some(&basic("guest", "shallow"))).status, 200);
    }
}

#[test]
fn only_a_controller_changes_settings_and_no_page_of_another_origin_does() {
    let guarded = Guarded::start("", &[]);
    let server = &guarded.server;
    server.wait_until_running();
    let change = |headers: &[(&str, &str)]| {
        let headers = [&[("Content-Type", "application/json")][..], headers].concat();
        let url = server.url("/api/cameras/cam1/streams/stream1/settings");
        http::request_with("PATCH", &url, &headers, br#"{"streamBitrate":900}"#)
    };
    let by = |login: &str| change(&[("Authorization", login)]);
    // Watching is open, and who changes something has to say who it is.
    assert_eq!(http::get(&server.url("/api/settings")).status, 200);
    let refused = change(&[]);
    assert!(refused.status == 401 && refused.header("www-authenticate").contains("Basic"), "{refused:?}");
    assert_eq!(by(&bearer("rov_other")).status, 401);
    for guest in [basic("guest", "shallow"), bearer(GUEST_TOKEN)] {
        let refused = by(&guest);
        assert!(refused.status == 403 && refused.error().contains("guest is a viewer"), "{refused:?}");
    }
    let pilot = basic("pilot", "deep sea");
    for foreign in [("Origin", "http://evil.example"), ("Sec-Fetch-Site", "cross-site")] {
        assert_eq!(change(&[("Authorization", &pilot), foreign]).status, 403, "{foreign:?}");
    }
    for pilot in [pilot, bearer(PILOT_TOKEN)] {
        let changed = by(&pilot);
        assert_eq!(changed.status, 200, "{changed:?}");
    }
    let log = guarded.log();
    for line in [
        "audit: refused PATCH /api/cameras/cam1/streams/stream1/settings",
        "user=\"guest\" role=\"viewer\" from=127.0.0.1",
        "user=\"pilot\" role=\"controller\" from=127.0.0.1",
    ] {
        assert!(log.contains(line), "{line} in {log}");
    }
}

#[test]
fn only_a_controller_publishes() {
    let guarded = Guarded::start("", &["--source", "publish"]);
    let url = guarded.server.rtsp.clone().expect("RTSP");
    let announce = |login: Option<String>| {
        let login = login.map(|login| format!("Authorization: {login}\r\n")).unwrap_or_default();
        let mut connection = Connection::open(&url);
        let request = format!(
            "ANNOUNCE {url} RTSP/1.0\r\nCSeq: 7\r\n{login}Content-Type: application/sdp\r\nContent-Length: \
             {}\r\n\r\n{SDP}",
            SDP.len()
        );
        connection.send(request.as_bytes());
        connection.reply().expect("an answer").status
    };
    assert_eq!(announce(None), 401);
    assert_eq!(announce(Some(basic("guest", "shallow"))), 403);
    assert_eq!(announce(Some(basic("pilot", "shallow"))), 401);
    // Let in, and found to have no video.
    assert_eq!(announce(Some(basic("pilot", "deep sea"))), 415);
    let log = guarded.log();
    assert!(log.contains("audit: refused RTSP ANNOUNCE") && log.contains("user=\"guest\" role=\"viewer\""), "{log}");
}

#[test]
fn rov_client_logs_in_by_each_transport_and_says_what_is_missing() {
    let discovery = free_udp_port().to_string();
    let guarded = Guarded::start("view = 'requires-login'", &["--discovery-port", &discovery]);
    guarded.server.wait_until_running();
    let whep = guarded.server.url("/whep");
    for (transport, expected) in [("auto", "webrtc"), ("rtsp", "rtsp")] {
        for login in [&["--token", GUEST_TOKEN][..], &["--user", "pilot", "--password", "deep sea"]] {
            let args = [&["--discovery-port", &discovery, "--transport", transport][..], login].concat();
            let mut client = Client::start(&args);
            assert_eq!(client.wait_for_frames(0, 10).transport, expected, "{login:?}");
            let log = client.process.stderr();
            assert!(!log.contains(GUEST_TOKEN) && !log.contains("deep sea"), "{log}");
        }
    }
    for (login, advice) in [
        (&[][..], "wants a user name and a password: give --user, and the password by the variable ROV_PASSWORD"),
        (&["--token", "rov_other"], "refused the user name or the password: correct --user and --password"),
    ] {
        let mut client = client_process(&[&["--headless", "--url", &whep][..], login].concat());
        assert_eq!(client.wait(wait::START), 2, "{login:?}: {}", client.stderr());
        assert!(client.stderr().contains(advice) && client.stderr().contains("ROV_TOKEN"), "{}", client.stderr());
    }
}

#[test]
fn hashes_and_tokens_are_made_by_the_server_itself() {
    let run = |what: &str, input: &str| {
        let mut child = Command::new(binary("rov-server"))
            .arg(what)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("rov-server");
        child.stdin.take().expect("its input").write_all(input.as_bytes()).expect("written");
        let output = child.wait_with_output().expect("its end");
        assert!(output.status.success(), "{what}");
        String::from_utf8(output.stdout).expect("UTF-8")
    };
    let hash = run("passwd", "deep sea\n");
    assert!(PasswordHash::parse(hash.trim_end()).is_ok(), "{hash}");
    let made = run("token", "");
    let [token, hash] = made.lines().collect::<Vec<_>>()[..] else { panic!("two lines: {made}") };
    assert_eq!(TokenHash::parse(hash), Some(TokenHash::of(token)));
    let mut none =
        Process::spawn_with_input("rov-server", Command::new(binary("rov-server")).arg("passwd").stdin(Stdio::null()));
    assert_eq!(none.wait(wait::SOON), 2);
    assert!(none.stderr().contains("must not be empty"), "{}", none.stderr());
}

#[test]
fn many_logins_at_once_neither_stop_the_picture_nor_wait_without_end() {
    let guarded = Guarded::start("view = 'requires-login'", &[]);
    let server = &guarded.server;
    server.wait_until_running();
    let mut watching = jpeg::get_as(server.address, "/stream.mjpg", &bearer(GUEST_TOKEN));
    watching.next_part().expect("a picture");
    let start = Instant::now();
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let guess = |n: usize| get_as(&server.url("/api/stats"), Some(&basic("guest", &format!("guess{n}")))).status;
        let guesses: Vec<_> = (0..40).map(|n| scope.spawn(move || guess(n))).collect();
        guesses.into_iter().map(|guess| guess.join().expect("no panic")).collect()
    });
    assert!(statuses.iter().all(|status| [401, 429, 503].contains(status)), "{statuses:?}");
    // What waits or is being hashed when the limit is reached comes to it.
    let guessed = statuses.iter().filter(|status| **status == 401).count() as u64;
    assert!(guessed <= 20 + 9 + start.elapsed().as_secs() + 1, "{statuses:?}");
    watching.next_part().expect("another picture");
}
