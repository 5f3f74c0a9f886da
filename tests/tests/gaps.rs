//! What a recording at the surface misses, and how it gets that: out of the vehicle's ring.

use std::time::{Duration, Instant};

use rov_common::api::RingListing;
use rov_common::ring::{Head, Kept};
use rov_tests::programs::Server;
use rov_tests::wait::{START, until};
use rov_tests::{http, jpeg};

const PICTURE: [&str; 6] = ["--width", "320", "--height", "240", "--fps", "15"];

fn start(args: &[&str]) -> Server {
    Server::start(&[&PICTURE[..], args].concat())
}

fn list(server: &Server, from: u64, to: u64) -> RingListing {
    let reply = http::get(&server.url(&format!("/api/ring?from={from}&to={to}")));
    assert_eq!(reply.status, 200, "{reply:?}");
    serde_json::from_str(&reply.body).expect("a list")
}

#[test]
fn a_ring_lists_its_pictures_and_gives_each_as_it_was_sent() {
    let server = start(&["--always-encode", "--keyframe-interval", "1", "--ring", "10s"]);
    let all = until("three seconds are kept", START, || {
        Some(list(&server, 0, u64::MAX)).filter(|all| all.pictures_us.len() > 45)
    });
    let times = &all.pictures_us;
    assert!(times.windows(2).all(|two| two[0] < two[1]), "{times:?}");
    assert_eq!((all.kept_from_us, all.until_us), (Some(times[0]), u64::MAX));
    let (from, to) = (times[10], times[30]);
    assert_eq!(list(&server, from, to).pictures_us, times[10..=30], "both ends with it");
    assert_eq!(list(&server, from + 1, from + 1).pictures_us, [0; 0]);
    let begun = Instant::now();
    let answer = jpeg::get(server.address, &format!("/api/ring/pictures?from={from}&to={to}"));
    assert_eq!((answer.status, answer.header("content-type")), (200, "application/octet-stream"), "{answer:?}");
    let length = answer.header("content-length").to_owned();
    let body = answer.body();
    assert_eq!(body.len().to_string(), length);
    assert!(begun.elapsed() < Duration::from_secs(5), "nobody watches: nothing is held back");
    let mut rest = &body[..];
    let head = Head::read(&mut rest).expect("a head");
    assert_eq!((head.run, head.pictures), (all.run, 21));
    let pictures: Vec<_> = (0..head.pictures).map(|_| Kept::read(&mut rest).expect("a picture")).collect();
    assert!(rest.is_empty());
    let captured: Vec<_> = pictures.iter().map(|picture| picture.captured.micros()).collect();
    assert_eq!(captured, times[10..=30]);
    assert!(pictures.iter().any(|picture| picture.keyframe));
    assert!(pictures.iter().all(|picture| picture.unit.starts_with(&[0, 0, 0, 1]) || picture.unit[..3] == [0, 0, 1]));
}

#[test]
fn where_nothing_is_kept_or_the_range_is_none_the_answer_says_why() {
    let off = start(&["--ring", "off"]);
    for path in ["/api/ring", "/api/ring/pictures"] {
        let reply = http::get(&off.url(&format!("{path}?from=1&to=2")));
        assert!(reply.status == 404 && reply.error().contains("--ring 30s"), "{reply:?}");
    }
    let server =
        start(&["--user", "pilot", "--password", "secret word", "--role", "viewer", "--view", "requires-login"]);
    let login = http::basic("pilot", "secret word");
    for path in ["/api/ring", "/api/ring/pictures"] {
        assert_eq!(http::get(&server.url(&format!("{path}?from=1&to=2"))).status, 401);
        let ask = |query: &str| http::get_as(&server.url(&format!("{path}{query}")), Some(&login));
        for query in ["", "?from=1", "?from=2&to=1", "?from=x&to=2", "?from=1&to=99999999999999999999"] {
            let reply = ask(query);
            assert!(reply.status == 422 && reply.error().contains("microseconds"), "{query}: {reply:?}");
        }
        assert_eq!(ask("?from=1&to=2&stream=sonar").status, 404);
    }
}
