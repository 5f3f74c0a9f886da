//! The rule, case by case. Each vehicle of these tests is a letter; the clock is moved by hand.

use rov_common::discovery::{StreamInfo, VERSION};

use super::*;

const NEMO: &str = "192.168.2.2:8080";
const ELSEWHERE: &str = "192.168.2.9:8080";

/// A world in which servers are heard, and time passes.
struct World {
    heard: Heard,
    wish: Wish,
    start: Instant,
    now: Instant,
    search: Instant,
}

fn server(id: &str, key: Option<&str>) -> Announcement {
    Announcement {
        v: VERSION,
        id: id.to_owned(),
        key: key.map(str::to_owned),
        tls: None,
        run: None,
        name: format!("rov {id}"),
        version: String::new(),
        signal_port: 8080,
        whep: "/whep".to_owned(),
        transports: vec!["webrtc".to_owned()],
        rtp: None,
        rtsp: None,
        streams: Vec::new(),
    }
}

impl World {
    fn new() -> Self {
        let start = Instant::now();
        Self { heard: Heard::default(), wish: Wish::default(), start, now: start, search: start }
    }

    fn pass(&mut self, ms: u64) {
        self.now += Duration::from_millis(ms);
    }

    fn hear(&mut self, announcement: &Announcement, address: &str) {
        let address: SocketAddr = address.parse().expect("an address");
        let announcement = Announcement { signal_port: address.port(), ..announcement.clone() };
        self.heard.hear(announcement, address.ip(), self.now);
    }

    fn next(&mut self) -> Next {
        self.heard.next(&self.wish, self.search, self.now)
    }

    /// Nemo, `a`, is watched at its address for ten seconds, in which `others` are heard too.
    fn watching(a: &Announcement, others: &[(&Announcement, &str)]) -> Self {
        let mut world = Self::new();
        world.hear(a, NEMO);
        let server = world.heard.since(world.start).remove(0);
        world.heard.watch(&server, world.wish.proves(a));
        for _ in 0..10 {
            world.pass(1_000);
            world.hear(a, NEMO);
            for (other, address) in others {
                world.hear(other, address);
            }
        }
        world
    }

    /// It falls silent and is looked for; the `others` are heard for two seconds.
    fn lose(&mut self, others: &[(&Announcement, &str)]) -> Next {
        self.pass(2_000);
        self.search = self.now;
        let mut next = Next::Listen;
        for _ in 0..20 {
            self.pass(100);
            for (other, address) in others {
                self.hear(other, address);
            }
            next = self.next();
            if matches!(next, Next::Watch { .. }) {
                break;
            }
        }
        next
    }
}

/// The address that is watched next, and whether the key has to be proven.
fn watched(next: &Next) -> Option<(String, bool)> {
    match next {
        Next::Watch { server, must_prove, .. } => Some((server.address.to_string(), *must_prove)),
        Next::Ask(_) | Next::Listen => None,
    }
}

fn said(next: &Next) -> &str {
    match next {
        Next::Watch { said, .. } => said.as_deref().unwrap_or_default(),
        Next::Ask(_) | Next::Listen => panic!("{next:?}"),
    }
}

fn question(next: Next) -> Question {
    match next {
        Next::Ask(question) => question,
        Next::Watch { .. } | Next::Listen => panic!("{next:?}"),
    }
}

fn addresses(question: &Question) -> Vec<&str> {
    question.offers.iter().map(|offer| offer.address.as_str()).collect()
}

#[test]
fn a_server_alone_is_taken_and_several_are_the_pilots_choice() {
    let mut world = World::new();
    assert_eq!(world.next(), Next::Listen);
    world.hear(&server("a", Some("ka")), NEMO);
    assert_eq!(watched(&world.next()), Some((NEMO.to_owned(), false)));
    // One forged announcement more.
    world.hear(&server("forged", None), ELSEWHERE);
    let asked = question(world.next());
    assert_eq!((addresses(&asked), asked.takes_first_at), (vec![NEMO, ELSEWHERE], None));
    let offer = asked.offers[0].clone();
    assert_eq!(world.heard.offered(&offer).map(|found| found.address.to_string()).as_deref(), Some(NEMO));
}

#[test]
fn a_name_chooses_and_a_wrong_one_shows_who_is_there() {
    let mut world = World::new();
    world.hear(&server("a", Some("ka")), NEMO);
    world.hear(&server("b", Some("kb")), ELSEWHERE);
    world.wish.name = Some("rov b".to_owned());
    assert_eq!(watched(&world.next()), Some((ELSEWHERE.to_owned(), false)));
    world.wish.name = Some("Nemo".to_owned());
    let asked = question(world.next());
    assert!(asked.text.contains("server \"Nemo\" not found"), "{}", asked.text);
    assert_eq!((addresses(&asked), asked.takes_first_at), (vec![NEMO, ELSEWHERE], None));
    // Another one of the same name.
    world.wish.name = Some("rov a".to_owned());
    world.hear(&Announcement { name: "rov a".to_owned(), ..server("c", None) }, "192.168.2.7:8080");
    assert_eq!(addresses(&question(world.next())), [NEMO, "192.168.2.7:8080"]);
}

#[test]
fn a_server_with_two_interfaces_is_one_entry_where_it_was_heard_first() {
    let mut world = World::new();
    let a = server("a", Some("ka"));
    world.hear(&a, NEMO);
    world.hear(&a, "10.0.0.2:8080");
    assert_eq!(watched(&world.next()), Some((NEMO.to_owned(), true)));
}

#[test]
fn copies_of_a_card_are_two_entries_with_a_note() {
    for (first, second) in [(Some("ka"), Some("kb")), (None, None), (Some("ka"), None)] {
        let mut world = World::new();
        world.hear(&server("a", first), NEMO);
        world.hear(&server("a", second), ELSEWHERE);
        let asked = question(world.next());
        assert_eq!(addresses(&asked), [NEMO, ELSEWHERE]);
        assert!(asked.offers.iter().all(|offer| offer.label.contains("a copied card, or an impostor")), "{asked:?}");
    }
}

#[test]
fn the_same_key_is_followed_anywhere_and_has_to_be_proven() {
    let a = server("a", Some("ka"));
    let mut world = World::watching(&a, &[]);
    let next = world.lose(&[(&a, ELSEWHERE)]);
    assert_eq!(watched(&next), Some((ELSEWHERE.to_owned(), true)));
    assert!(said(&next).contains("is at 192.168.2.9:8080 now"), "{}", said(&next));
    assert_eq!(world.heard.moved(&world.wish, world.now).map(|at| at.to_string()).as_deref(), Some(ELSEWHERE));
    // Where it was, it need not.
    world.hear(&a, NEMO);
    assert_eq!(watched(&world.next()), Some((NEMO.to_owned(), false)));
}

#[test]
fn a_replayed_announcement_that_is_not_proven_is_left_alone() {
    let a = server("a", Some("ka"));
    let mut world = World::watching(&a, &[]);
    assert_eq!(watched(&world.lose(&[(&a, ELSEWHERE)])), Some((ELSEWHERE.to_owned(), true)));
    world.heard.refuse(ELSEWHERE.parse().expect("an address"), world.now);
    assert_eq!(world.next(), Next::Listen);
    assert_eq!(world.heard.moved(&world.wish, world.now), None);
    world.hear(&a, NEMO);
    assert_eq!(watched(&world.next()), Some((NEMO.to_owned(), false)));
}

#[test]
fn the_other_copy_of_a_card_is_never_taken_without_being_asked() {
    for key in [Some("kb"), None] {
        let (a, copy) = (server("a", Some("ka")), server("a", key));
        for auto in [false, true] {
            for beside in [false, true] {
                let there: &[_] = &[(&copy, ELSEWHERE)];
                let mut world = World::watching(&a, if beside { there } else { &[] });
                world.wish.any = auto;
                assert_eq!(world.heard.warning(world.now).is_some(), beside);
                assert_eq!(world.heard.warning(world.now + FORGET_AFTER), None, "it is silent");
                assert_eq!(world.heard.moved(&world.wish, world.now), None);
                let asked = question(world.lose(there));
                assert_eq!(
                    (addresses(&asked), asked.takes_first_at),
                    (vec![ELSEWHERE], None),
                    "{key:?} {auto} {beside}"
                );
                assert!(asked.offers[0].label.contains("also at 192.168.2.2:8080"), "{asked:?}");
            }
        }
    }
}

#[test]
fn a_server_without_a_key_stays_at_its_address() {
    let a = server("a", None);
    let mut world = World::watching(&a, &[]);
    assert_eq!(watched(&world.lose(&[(&a, NEMO)])), Some((NEMO.to_owned(), false)));
    let mut world = World::watching(&a, &[]);
    world.wish.any = true;
    let asked = question(world.lose(&[(&a, ELSEWHERE)]));
    assert_eq!((addresses(&asked), asked.takes_first_at), (vec![ELSEWHERE], None));
}

#[test]
fn what_the_transport_cannot_prove_is_not_followed() {
    let a = Announcement { transports: vec!["rtp".to_owned()], ..server("a", Some("ka")) };
    let mut world = World::watching(&a, &[]);
    assert_eq!(addresses(&question(world.lose(&[(&a, ELSEWHERE)]))), [ELSEWHERE]);
    let a = server("a", Some("ka"));
    let mut world = World::watching(&a, &[]);
    world.wish.transport = Some(Transport::Rtsp);
    assert_eq!(addresses(&question(world.lose(&[(&a, ELSEWHERE)]))), [ELSEWHERE]);
}

/// What WebRTC does not carry.
fn of_mjpeg(announcement: Announcement) -> Announcement {
    let (name, codec) = ("stream1".to_owned(), "mjpeg".to_owned());
    Announcement { streams: vec![StreamInfo { name, codec, width: 1280, height: 720, fps: 30.0 }], ..announcement }
}

#[test]
fn a_server_of_mjpeg_never_has_to_prove_its_key_as_no_session_can() {
    let a = of_mjpeg(server("a", Some("ka")));
    let mut world = World::watching(&a, &[]);
    assert_eq!(addresses(&question(world.lose(&[(&a, ELSEWHERE)]))), [ELSEWHERE]);
    let mut world = World::new();
    world.hear(&a, NEMO);
    world.hear(&a, ELSEWHERE);
    let asked = question(world.next());
    assert_eq!(addresses(&asked), [NEMO, ELSEWHERE]);
    let chosen = world.heard.offered(&asked.offers[1]).expect("it is heard");
    assert!(!world.heard.has_to_prove(&chosen, &world.wish, world.now));
}

#[test]
fn a_server_that_proved_its_key_and_sends_mjpeg_by_now_is_the_pilots_choice_and_then_as_it_announces() {
    let before = server("a", Some("ka"));
    let after = of_mjpeg(before.clone());
    for address in [NEMO, ELSEWHERE] {
        let mut world = World::watching(&before, &[]);
        world.heard.learn(&world.heard.since(world.start).remove(0), Vec::new());
        let asked = question(world.lose(&[(&after, address)]));
        assert_eq!((addresses(&asked), asked.takes_first_at), (vec![address], None));
        let chosen = world.heard.offered(&asked.offers[0]).expect("it is heard");
        assert!(!world.heard.has_to_prove(&chosen, &world.wish, world.now));
        assert_eq!(world.heard.fallback(&chosen), None, "by what it announces");
        // Once it is watched so, it goes on where it is, and is not offered as the one before.
        world.heard.watch(&chosen, false);
        assert_eq!(world.heard.back(world.now), None);
        let next = world.lose(&[(&after, address)]);
        assert_eq!(watched(&next), Some((address.to_owned(), false)));
    }
}

#[test]
fn that_a_server_sends_mjpeg_by_now_is_not_believed_while_it_is_heard_otherwise() {
    let real = server("a", Some("ka"));
    let mut world = World::watching(&real, &[]);
    world.pass(1_000);
    world.search = world.now;
    for _ in 0..20 {
        world.pass(100);
        world.hear(&of_mjpeg(real.clone()), NEMO);
        assert_eq!(world.next(), Next::Listen);
    }
    world.hear(&real, NEMO);
    let Next::Watch { server, .. } = world.next() else { panic!() };
    assert_eq!(server.announcement, real);
    // Nor does it take the proof from one that is heard at two addresses.
    let mut world = World::new();
    world.hear(&real, NEMO);
    world.hear(&real, ELSEWHERE);
    world.hear(&of_mjpeg(real), NEMO);
    assert_eq!(watched(&world.next()), Some((NEMO.to_owned(), true)));
}

#[test]
fn who_comes_to_its_address_after_it_is_followed_and_said() {
    let (a, old) = (server("a", Some("ka")), server("a", None));
    // A swapped computer, a restart with another port, another name, and a key that could not be kept. After one
    // without a key, anybody.
    for (before, heir, address, must_prove) in [
        (&a, server("b", Some("kb")), NEMO, true),
        (&a, server("b", Some("ka")), "192.168.2.2:9090", true),
        (&a, server("b", Some("ka")), NEMO, true),
        (&a, server("a", Some("kb")), NEMO, true),
        (&old, server("a", Some("ka")), NEMO, false),
        (&old, server("b", None), NEMO, false),
        (&old, by_rtp(server("b", None)), NEMO, false),
    ] {
        let mut world = World::watching(before, &[]);
        let next = world.lose(&[(&heir, address)]);
        assert_eq!(watched(&next), Some((address.to_owned(), must_prove)), "{heir:?}");
        assert!(said(&next).contains("in the place of rov a"), "{}", said(&next));
    }
}

/// What proves nothing, whatever key it announces.
fn by_rtp(announcement: Announcement) -> Announcement {
    let rtp = rov_common::discovery::RtpInfo {
        host: "239.9.9.9".parse().expect("a group"),
        port: 5004,
        fec: false,
        ssrc: None,
    };
    Announcement { transports: vec!["rtp".to_owned()], rtp: Some(rtp), ..announcement }
}

#[test]
fn who_proves_no_key_does_not_come_after_a_server_that_did_without_being_asked() {
    let a = server("a", Some("ka"));
    let named = |heir: Announcement| Announcement { name: a.name.clone(), ..heir };
    // With the address of the server, also as that itself, and elsewhere. The last is one of the version before.
    for (heir, address) in [
        (named(by_rtp(server("forged", None))), NEMO),
        (named(by_rtp(server("forged", Some("kf")))), NEMO),
        (named(by_rtp(server("forged", None))), "192.168.2.2:9090"),
        (named(by_rtp(server("forged", None))), ELSEWHERE),
        (by_rtp(server("a", Some("kf"))), NEMO),
        (by_rtp(a.clone()), NEMO),
        (named(server("forged", None)), NEMO),
        (server("a", None), NEMO),
    ] {
        for name in [None, Some(a.name.clone())] {
            let mut world = World::watching(&a, &[]);
            (world.wish.any, world.wish.name) = (true, name);
            // It is believed to be without WebRTC only after a while.
            world.pass(2_000);
            let asked = question(world.lose(&[(&heir, address)]));
            assert_eq!((addresses(&asked), asked.takes_first_at), (vec![address], None), "{heir:?}");
            assert!(asked.offers[0].label.contains("impostor"), "{asked:?}");
            assert_eq!(world.heard.moved(&world.wish, world.now), None);
            // No time makes it better.
            for _ in 0..30 {
                world.pass(1_000);
                world.hear(&heir, address);
                assert!(matches!(world.next(), Next::Ask(_)), "{heir:?}");
            }
            // The server itself goes first when it is back.
            world.hear(&a, NEMO);
            assert_eq!(watched(&world.next()), Some((NEMO.to_owned(), false)), "{heir:?}");
        }
    }
}

#[test]
fn what_the_pilot_chose_stays_when_the_server_that_proved_its_key_is_back_and_that_is_said() {
    let a = server("a", Some("ka"));
    for heir in [by_rtp(server("b", None)), by_rtp(a.clone())] {
        let mut world = World::watching(&a, &[]);
        world.pass(2_000);
        let asked = question(world.lose(&[(&heir, NEMO)]));
        let chosen = world.heard.offered(&asked.offers[0]).expect("it is heard");
        assert!(!world.heard.has_to_prove(&chosen, &world.wish, world.now));
        world.heard.watch(&chosen, false);
        assert_eq!(world.heard.back(world.now), None);
        world.hear(&a, NEMO);
        let asked = world.heard.back(world.now).expect("it is back");
        let said = "rov a, verified by its key before, is back at 192.168.2.2:8080; still watching 192.168.2.2:8080, \
                    as chosen, which proves no key";
        assert_eq!((asked.text.as_str(), addresses(&asked), asked.takes_first_at), (said, vec![NEMO], None));
        assert_eq!(world.heard.back(world.now + FORGET_AFTER), None, "it is silent");
        // The pilot goes back to it: once, and it has to prove its key.
        let before = world.next();
        world.heard.choose(asked.offers[0].clone());
        let server = world.heard.take_chosen().expect("it is heard");
        assert_eq!((&server.announcement.id, &server.announcement.key), (&a.id, &a.key));
        assert_eq!(world.heard.take_chosen(), None);
        assert_eq!(world.next(), before, "where that fails, the one that is watched stays");
        world.heard.watch(&server, true);
        assert_eq!(world.heard.back(world.now), None);
    }
    // Chosen, another one that proves no key is as one of the version before.
    let (b, c) = (by_rtp(server("b", None)), by_rtp(server("c", None)));
    let mut world = World::watching(&a, &[]);
    let asked = question(world.lose(&[(&b, NEMO)]));
    let chosen = world.heard.offered(&asked.offers[0]).expect("it is heard");
    world.heard.watch(&chosen, false);
    assert_eq!(watched(&world.lose(&[(&c, NEMO)])), Some((NEMO.to_owned(), false)));
}

#[test]
fn the_server_that_was_watched_first_is_offered_again_when_it_is_back() {
    let (a, b) = (server("a", Some("ka")), server("b", Some("kb")));
    let mut world = World::watching(&a, &[]);
    world.wish.any = true;
    let asked = question(world.lose(&[(&b, ELSEWHERE)]));
    assert!(asked.takes_first_at.is_some());
    let taken = world.heard.offered(&asked.offers[0]).expect("it is heard");
    world.heard.watch(&taken, true);
    assert_eq!(world.heard.back(world.now), None);
    world.hear(&a, NEMO);
    let asked = world.heard.back(world.now).expect("it is back");
    let said = "rov a is back at 192.168.2.2:8080; still watching rov b at 192.168.2.9:8080";
    assert_eq!((asked.text.as_str(), addresses(&asked), asked.takes_first_at), (said, vec![NEMO], None));
    let server = world.heard.offered(&asked.offers[0]).expect("it is heard");
    world.heard.watch(&server, true);
    assert_eq!(world.heard.back(world.now), None, "nobody comes back when it is watched again");
}

#[test]
fn a_session_without_webrtc_does_not_make_a_server_one_without_a_key() {
    let a = server("a", Some("ka"));
    let mut world = World::watching(&a, &[]);
    let server_by_rtsp = world.heard.since(world.start).remove(0);
    world.heard.watch(&server_by_rtsp, false);
    assert_eq!(addresses(&question(world.lose(&[(&by_rtp(server("b", None)), NEMO)]))), [NEMO]);
}

#[test]
fn the_same_machine_under_another_name_is_followed_to_another_address_if_it_proves_its_key() {
    let mut world = World::watching(&server("a", Some("ka")), &[]);
    let next = world.lose(&[(&server("b", Some("ka")), ELSEWHERE)]);
    assert_eq!(watched(&next), Some((ELSEWHERE.to_owned(), true)));
}

#[test]
fn a_neighbour_at_its_address_does_not_take_its_place() {
    // Two servers on one machine, and two machines with one address.
    let a = server("a", Some("ka"));
    for (neighbour, address) in [(server("b", Some("ka")), "192.168.2.2:9090"), (server("a", Some("kb")), NEMO)] {
        let there: &[_] = &[(&neighbour, address)];
        let mut world = World::watching(&a, there);
        world.wish.any = true;
        let asked = question(world.lose(there));
        assert_eq!((addresses(&asked), asked.takes_first_at), (vec![address], None));
    }
}

#[test]
fn video_alone_shows_that_a_server_is_there() {
    let (a, neighbour) = (server("a", Some("ka")), server("b", Some("kb")));
    let mut world = World::watching(&a, &[]);
    // Its announcements are lost; a neighbour comes while its picture is shown.
    world.pass(5_000);
    world.hear(&neighbour, "192.168.2.2:9090");
    world.pass(1_000);
    world.heard.alive(world.now);
    assert_eq!(addresses(&question(world.lose(&[(&neighbour, "192.168.2.2:9090")]))), ["192.168.2.2:9090"]);
}

#[test]
fn two_that_come_to_its_address_are_the_pilots_choice() {
    let mut world = World::watching(&server("a", Some("ka")), &[]);
    let (b, c) = (server("b", Some("kb")), server("c", Some("kb")));
    let asked = question(world.lose(&[(&b, NEMO), (&c, "192.168.2.2:9090")]));
    assert_eq!((addresses(&asked).len(), asked.takes_first_at), (2, None));
}

#[test]
fn a_name_that_was_chosen_is_not_given_up_without_being_asked() {
    let mut world = World::watching(&server("a", Some("ka")), &[]);
    (world.wish.name, world.wish.any) = (Some("rov a".to_owned()), true);
    let asked = question(world.lose(&[(&server("b", Some("kb")), NEMO)]));
    assert_eq!((addresses(&asked), asked.takes_first_at), (vec![NEMO], None));
    // Its name at its address is enough.
    let mut world = World::watching(&server("a", Some("ka")), &[]);
    world.wish.name = Some("rov a".to_owned());
    let swapped = Announcement { name: "rov a".to_owned(), ..server("b", Some("kb")) };
    assert_eq!(watched(&world.lose(&[(&swapped, NEMO)])), Some((NEMO.to_owned(), true)));
}

#[test]
fn another_one_elsewhere_is_offered_and_with_auto_taken_after_a_countdown() {
    let (a, b) = (server("a", Some("ka")), server("b", Some("kb")));
    for auto in [false, true] {
        let mut world = World::watching(&a, &[]);
        world.wish.any = auto;
        let asked = question(world.lose(&[(&b, ELSEWHERE)]));
        assert!(asked.text.contains("rov a is silent; rov b answers at 192.168.2.9:8080"), "{}", asked.text);
        assert_eq!(addresses(&asked), [ELSEWHERE]);
        assert_eq!(asked.takes_first_at.is_some(), auto);
        for _ in 0..12 {
            world.pass(1_000);
            world.hear(&b, ELSEWHERE);
            if let Next::Ask(again) = world.next() {
                assert_eq!(again.takes_first_at, asked.takes_first_at, "the countdown does not begin anew");
            }
        }
        world.hear(&b, ELSEWHERE);
        let next = world.next();
        assert_eq!(watched(&next), auto.then(|| (ELSEWHERE.to_owned(), true)), "{next:?}");
    }
}

#[test]
fn the_countdown_ends_when_the_server_comes_back_or_another_one_comes() {
    let (a, b, c) = (server("a", Some("ka")), server("b", Some("kb")), server("c", Some("kc")));
    let mut world = World::watching(&a, &[]);
    world.wish.any = true;
    assert!(question(world.lose(&[(&b, ELSEWHERE)])).takes_first_at.is_some());
    world.hear(&c, "192.168.2.7:8080");
    assert_eq!(question(world.next()).takes_first_at, None, "two are there");
    world.hear(&a, NEMO);
    assert_eq!(watched(&world.next()), Some((NEMO.to_owned(), false)));
}

#[test]
fn a_vehicle_that_was_there_all_the_time_is_never_taken_by_itself() {
    let (a, b) = (server("a", Some("ka")), server("b", Some("kb")));
    let there: &[_] = &[(&b, ELSEWHERE)];
    let mut world = World::watching(&a, there);
    world.wish.any = true;
    let asked = question(world.lose(there));
    assert_eq!((addresses(&asked), asked.takes_first_at), (vec![ELSEWHERE], None));
}

#[test]
fn a_name_that_changes_there_and_back_is_followed_both_times() {
    let (a, b) = (server("a", Some("ka")), server("b", Some("ka")));
    let mut world = World::watching(&a, &[]);
    let Next::Watch { server: heir, .. } = world.lose(&[(&b, NEMO)]) else { panic!() };
    world.heard.watch(&heir, true);
    for _ in 0..5 {
        world.pass(1_000);
        world.hear(&b, NEMO);
    }
    assert_eq!(watched(&world.lose(&[(&a, NEMO)])), Some((NEMO.to_owned(), true)));
}

#[test]
fn an_announcement_with_the_address_of_the_server_and_a_key_of_its_own_is_asked_about_after_it_failed() {
    // The pilot chose the forged one of two that were heard at one address.
    let (forged, real) = (server("a", Some("kf")), server("a", Some("ka")));
    let there: &[_] = &[(&real, NEMO), (&forged, NEMO)];
    let mut world = World::watching(&forged, there);
    world.heard.refuse(NEMO.parse().expect("an address"), world.now);
    let asked = question(world.lose(there));
    assert_eq!(asked.offers.iter().map(|offer| offer.key.as_deref()).collect::<Vec<_>>(), [Some("ka")]);
}

#[test]
fn the_number_of_servers_is_bounded_and_a_flood_does_not_hide_the_one_that_is_watched() {
    let a = server("a", Some("ka"));
    let mut world = World::watching(&a, &[]);
    // With addresses of their own, and as the one that is watched too.
    for number in 0..1_000 {
        world.pass(1);
        let host = number % 200;
        world.hear(&server(&number.to_string(), None), &format!("10.1.0.{host}:8080"));
        world.hear(&a, &format!("10.1.1.{host}:8080"));
    }
    assert_eq!(world.heard.found.len(), MAX_FOUND);
    assert_eq!(watched(&world.next()), Some((NEMO.to_owned(), false)));
    // Those that are silent give way.
    world.pass(4_000);
    world.hear(&server("new", None), ELSEWHERE);
    assert!(world.heard.found.iter().any(|found| found.announcement.id == "new"));
    // Where it is watched it has room again, even if it was silent for so long that it had to give way.
    for host in 0..100 {
        world.hear(&a, &format!("10.1.1.{host}:8080"));
    }
    world.heard.found.retain(|found| found.address.to_string() != NEMO);
    world.hear(&a, "10.2.0.1:8080");
    assert_eq!(world.heard.found.len(), MAX_FOUND);
    world.hear(&a, NEMO);
    assert_eq!(watched(&world.next()), Some((NEMO.to_owned(), false)));
}

#[test]
fn one_host_cannot_fill_the_list() {
    let mut world = World::new();
    for number in 0..MAX_FOUND {
        world.hear(&server(&number.to_string(), None), ELSEWHERE);
    }
    // A server with two interfaces comes after them.
    let real = server("a", Some("ka"));
    world.hear(&real, NEMO);
    world.hear(&real, "10.0.0.2:8080");
    let asked = question(world.next());
    assert_eq!(asked.offers.len(), MAX_FOUND_AT_ONE_IP + 1);
    assert_eq!(addresses(&asked).last(), Some(&NEMO));
    assert_eq!(world.heard.found.len(), MAX_FOUND_AT_ONE_IP + 2);
    // Of that host, who is silent gives way.
    world.pass(4_000);
    world.hear(&server("new", None), ELSEWHERE);
    assert_eq!(world.heard.found.len(), MAX_FOUND_AT_ONE_IP + 2);
    assert!(world.heard.found.iter().any(|found| found.announcement.id == "new"));
}

#[test]
fn the_name_that_is_wanted_has_room_in_a_full_list() {
    // In the whole list, and among those that say to be at its address.
    for one_ip in [false, true] {
        let mut world = World::new();
        world.wish.name = Some("rov a".to_owned());
        world.heard.want(world.wish.name.clone());
        for number in 0..2 * MAX_FOUND {
            let address = if one_ip { NEMO.to_owned() } else { format!("10.1.0.{number}:8080") };
            world.hear(&server(&number.to_string(), None), &address);
        }
        world.hear(&server("a", Some("ka")), NEMO);
        assert_eq!(watched(&world.next()), Some((NEMO.to_owned(), false)));
        assert_eq!(world.heard.found.len(), if one_ip { MAX_FOUND_AT_ONE_IP } else { MAX_FOUND });
    }
}

#[test]
fn a_copied_announcement_changes_nothing_of_what_is_known_of_the_server() {
    let rtsp = |port| Some(rov_common::discovery::RtspInfo { port, path: "/stream1".to_owned() });
    let real = Announcement { rtsp: rtsp(8554), ..server("a", Some("ka")) };
    let transports = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let forged = Announcement { rtsp: rtsp(9554), transports: transports(&["rtsp"]), ..real.clone() };
    // From elsewhere, and with the address of the server.
    for address in [ELSEWHERE, NEMO] {
        let mut world = World::new();
        world.hear(&real, NEMO);
        world.hear(&forged, address);
        let known = world.heard.found.iter().find(|found| found.address.to_string() == NEMO).expect("the server");
        assert_eq!(known.announcement, real, "{address}");
    }
    // With WebRTC, which has to be proven, it stands for the server elsewhere without a change of it.
    let mut world = World::watching(&real, &[]);
    world.hear(&Announcement { transports: transports(&["webrtc", "rtsp"]), ..forged.clone() }, ELSEWHERE);
    let Next::Watch { server, must_prove, .. } = world.next() else { panic!() };
    assert_eq!((server.announcement.rtsp, server.address.to_string().as_str()), (rtsp(8554), NEMO));
    assert!(!must_prove);
    // A server that was started again without WebRTC is believed when it was not heard with it for a while; one that
    // was watched by it is the pilot's choice.
    world.pass(3_000);
    world.hear(&forged, NEMO);
    world.pass(1_000);
    world.hear(&forged, NEMO);
    let server = world.heard.since(world.now).remove(0);
    assert_eq!(server.announcement, forged);
}

#[test]
fn of_two_in_its_place_one_that_is_heard_elsewhere_too_is_not_passed_over() {
    // The swapped computer has two interfaces, and is heard at the other one first.
    let (a, swapped, neighbour) = (server("a", Some("ka")), server("b", Some("kb")), server("c", Some("kc")));
    let mut world = World::watching(&a, &[]);
    let asked =
        question(world.lose(&[(&swapped, "10.0.0.2:8080"), (&swapped, NEMO), (&neighbour, "192.168.2.2:9090")]));
    assert_eq!(addresses(&asked).len(), 2);
    // Alone it is followed at the address of the one that it took the place of.
    let mut world = World::watching(&a, &[]);
    let next = world.lose(&[(&swapped, "10.0.0.2:8080"), (&swapped, NEMO)]);
    assert_eq!(watched(&next), Some((NEMO.to_owned(), true)));
}

#[test]
fn a_neighbour_that_is_known_is_not_newer_at_another_address() {
    // Two servers on one computer, which starts again with another address.
    let (front, rear) = (server("a", Some("k")), server("b", Some("k")));
    let mut world = World::watching(&front, &[(&rear, "192.168.2.2:9090")]);
    let asked = question(world.lose(&[(&rear, "192.168.2.9:9090")]));
    assert_eq!((addresses(&asked), asked.takes_first_at), (vec!["192.168.2.9:9090"], None));
    // The front one comes last, and is followed; the rear one is still the one that was beside it.
    world.hear(&front, ELSEWHERE);
    let next = world.next();
    assert_eq!(watched(&next), Some((ELSEWHERE.to_owned(), true)));
    let Next::Watch { server, .. } = next else { panic!() };
    world.heard.watch(&server, true);
    assert_eq!(addresses(&question(world.lose(&[(&rear, "192.168.2.7:9090")]))), ["192.168.2.7:9090"]);
}

#[test]
fn the_server_itself_comes_before_another_one_of_its_machine() {
    let (front, rear) = (server("a", Some("k")), server("b", Some("k")));
    let mut world = World::watching(&front, &[]);
    world.pass(2_000);
    world.search = world.now;
    world.pass(500);
    world.hear(&rear, "192.168.2.9:9090");
    assert_eq!(world.next(), Next::Listen);
    world.hear(&front, ELSEWHERE);
    assert_eq!(watched(&world.next()), Some((ELSEWHERE.to_owned(), true)));
}

#[test]
fn a_server_where_no_session_comes_about_does_not_hide_the_others() {
    // One host announces a port where nobody answers; the vehicle comes later, under another name or the same.
    for same_name in [false, true] {
        let (dead, mut real) = (server("a", Some("ka")), server("b", Some("kb")));
        if same_name {
            real.name.clone_from(&dead.name);
        }
        let mut world = World::new();
        world.wish.name = same_name.then(|| dead.name.clone());
        world.hear(&dead, NEMO);
        assert_eq!(watched(&world.next()), Some((NEMO.to_owned(), false)));
        world.heard.fail(NEMO.parse().expect("an address"), Duration::ZERO, world.now);
        assert_eq!(watched(&world.next()), Some((NEMO.to_owned(), false)), "alone it is tried again");
        world.hear(&real, ELSEWHERE);
        assert_eq!(addresses(&question(world.next())), [NEMO, ELSEWHERE]);
    }
}

#[test]
fn the_server_that_is_watched_gives_way_to_the_question_when_it_is_heard_and_does_not_answer() {
    let (a, b) = (server("a", Some("ka")), server("b", Some("kb")));
    let there: &[_] = &[(&a, NEMO), (&b, ELSEWHERE)];
    let mut world = World::watching(&a, &[]);
    world.wish.any = true;
    world.search = world.now;
    world.pass(1);
    world.heard.fail(NEMO.parse().expect("an address"), Duration::ZERO, world.now);
    world.pass(1_500);
    for (server, address) in there {
        world.hear(server, address);
    }
    let asked = question(world.next());
    assert!(asked.text.contains("rov a cannot be watched"), "{}", asked.text);
    assert_eq!((addresses(&asked), asked.takes_first_at), (vec![ELSEWHERE], None));
    // It is tried again, and at once where nobody else is.
    world.pass(2_000);
    world.hear(&a, NEMO);
    assert_eq!(watched(&world.next()), Some((NEMO.to_owned(), false)));
    let mut world = World::watching(&a, &[]);
    world.heard.fail(NEMO.parse().expect("an address"), Duration::ZERO, world.now);
    assert_eq!(watched(&world.next()), Some((NEMO.to_owned(), false)));
}

#[test]
fn one_in_its_place_that_cannot_be_watched_is_asked_about() {
    let (a, heir, other) = (server("a", Some("ka")), server("b", Some("kb")), server("c", Some("kc")));
    let mut world = World::watching(&a, &[]);
    let there: &[_] = &[(&heir, NEMO), (&other, ELSEWHERE)];
    assert_eq!(watched(&world.lose(there)), Some((NEMO.to_owned(), true)));
    world.heard.fail(NEMO.parse().expect("an address"), Duration::ZERO, world.now);
    world.hear(&other, ELSEWHERE);
    assert_eq!(addresses(&question(world.next())), [NEMO, ELSEWHERE]);
}

#[test]
fn one_server_at_two_addresses_has_to_prove_its_key_at_first_too() {
    let mut world = World::new();
    let a = server("a", Some("ka"));
    world.hear(&a, NEMO);
    world.hear(&a, ELSEWHERE);
    assert_eq!(watched(&world.next()), Some((NEMO.to_owned(), true)));
    // Where it is not proven, the other address is tried.
    world.heard.refuse(NEMO.parse().expect("an address"), world.now);
    assert_eq!(watched(&world.next()), Some((ELSEWHERE.to_owned(), true)));
    // Nobody can say whose picture RTSP would be.
    let mut world = World::new();
    world.hear(&Announcement { transports: vec!["rtsp".to_owned()], ..a.clone() }, NEMO);
    world.hear(&a, ELSEWHERE);
    let asked = question(world.next());
    assert_eq!(addresses(&asked), [NEMO, ELSEWHERE]);
    assert!(asked.offers.iter().all(|offer| offer.label.contains("an impostor")), "{asked:?}");
    let chosen = world.heard.offered(&asked.offers[1]).expect("it is heard");
    assert!(world.heard.has_to_prove(&chosen, &world.wish, world.now));
    // No other machine sends from a loopback address.
    let mut world = World::new();
    world.wish.transport = Some(Transport::Rtsp);
    world.hear(&a, NEMO);
    world.hear(&a, "127.0.0.1:8080");
    assert_eq!(watched(&world.next()), Some(("127.0.0.1:8080".to_owned(), false)));
}

#[test]
fn no_row_moves_when_another_server_comes_or_changes_its_name() {
    let mut world = World::new();
    world.hear(&server("m", Some("km")), NEMO);
    world.hear(&server("n", Some("kn")), ELSEWHERE);
    let before = question(world.next());
    assert_eq!(addresses(&before), [NEMO, ELSEWHERE]);
    world.hear(&Announcement { name: "z".to_owned(), ..server("m", Some("km")) }, NEMO);
    assert!(is_same_offer(&question(world.next()).offers, &before.offers), "a name is not another server");
    world.hear(&server("a", Some("ka")), "192.168.2.1:8080");
    assert_eq!(addresses(&question(world.next())), [NEMO, ELSEWHERE, "192.168.2.1:8080"]);
}

#[test]
fn a_name_in_each_datagram_does_not_begin_the_countdown_anew() {
    let mut world = World::watching(&server("a", Some("ka")), &[]);
    world.wish.any = true;
    let asked = question(world.lose(&[(&server("b", Some("kb")), ELSEWHERE)]));
    world.pass(1_000);
    world.hear(&Announcement { name: "another name".to_owned(), ..server("b", Some("kb")) }, ELSEWHERE);
    assert_eq!(question(world.next()).takes_first_at, asked.takes_first_at);
}

#[test]
fn after_a_proof_the_other_ways_are_those_of_the_session_at_that_address_alone() {
    let rtp = |port| {
        Some(rov_common::discovery::RtpInfo { host: "239.255.0.1".parse().unwrap(), port, fec: false, ssrc: None })
    };
    let a = Announcement { rtp: rtp(5004), ..server("a", Some("ka")) };
    let found = |address: &str| Found::new(a.clone(), address.parse().unwrap(), Instant::now());
    let mut world = World::new();
    world.hear(&a, NEMO);
    let watched = world.heard.since(world.start).remove(0);
    world.heard.watch(&watched, false);
    assert_eq!(world.heard.fallback(&found(NEMO)), None, "it was not proved");
    world.heard.watch(&watched, true);
    assert_eq!(world.heard.fallback(&found(NEMO)), Some(Vec::new()));
    let said = vec![Way::WebRtc("http://10.0.0.2/whep".parse().unwrap())];
    world.heard.learn(&watched, said.clone());
    // Forged with all that is public.
    world.hear(&Announcement { rtp: rtp(6666), ..a.clone() }, NEMO);
    assert_eq!(world.heard.fallback(&found(NEMO)), Some(said.clone()));
    assert_eq!(world.heard.fallback(&found("192.168.2.2:9090")), Some(said.clone()), "its own address");
    assert_eq!(world.heard.fallback(&found(ELSEWHERE)), Some(Vec::new()));
    // Also after others, by a session without a proof too, but not after it proved its key elsewhere.
    for id in 0..MAX_PROVED - 1 {
        world.heard.watch(&Found::new(server(&id.to_string(), Some("k")), ELSEWHERE.parse().unwrap(), world.now), true);
    }
    world.heard.watch(&watched, false);
    assert_eq!(world.heard.fallback(&found(NEMO)), Some(said));
    world.heard.watch(&found(ELSEWHERE), true);
    assert_eq!(world.heard.fallback(&found(NEMO)), Some(Vec::new()));
    assert_eq!(world.heard.proved.len(), MAX_PROVED);
}

fn run(announcement: &Announcement, run: u32) -> Announcement {
    Announcement { run: Some(run), ..announcement.clone() }
}

#[test]
fn copies_of_a_card_with_one_key_are_told_by_their_runs_and_never_taken_for_each_other() {
    let a = server("a", Some("ka"));
    let (mine, copy) = (run(&a, 1), run(&a, 2));
    // At first: two entries.
    let mut world = World::new();
    world.hear(&mine, NEMO);
    world.hear(&copy, ELSEWHERE);
    let asked = question(world.next());
    assert_eq!(addresses(&asked), [NEMO, ELSEWHERE]);
    assert!(asked.offers.iter().all(|offer| offer.label.contains("a copied card")), "{asked:?}");
    assert_eq!(world.heard.since(world.start).len(), 2);
    // Beside the one that is watched: a warning, and no way to it but the pilot's.
    let there: &[_] = &[(&copy, ELSEWHERE)];
    let mut world = World::watching(&mine, there);
    world.wish.any = true;
    let said = world.heard.warning(world.now).unwrap_or_default();
    assert!(said.contains("192.168.2.9:8080 also claims to be rov a, with the same key: a copied card"), "{said}");
    assert_eq!(world.heard.moved(&world.wish, world.now), None);
    let asked = question(world.lose(there));
    assert_eq!((addresses(&asked), asked.takes_first_at), (vec![ELSEWHERE], None));
    assert_eq!(world.heard.moved(&world.wish, world.now), None);
    // Chosen, it is the one that is not left by itself.
    let chosen = world.heard.offered(&asked.offers[0]).expect("it is heard");
    world.heard.watch(&chosen, true);
    for _ in 0..5 {
        world.pass(1_000);
        world.hear(&copy, ELSEWHERE);
    }
    assert_eq!(addresses(&question(world.lose(&[(&mine, NEMO)]))), [NEMO]);
    // One that was seen to be a copy stays one when it starts again, when nothing else is heard any more.
    let mut world = World::watching(&mine, there);
    world.wish.any = true;
    for _ in 0..20 {
        world.pass(1_000);
        world.hear(&mine, NEMO);
    }
    let again: &[_] = &[(&run(&a, 3), ELSEWHERE)];
    let asked = question(world.lose(again));
    assert_eq!((addresses(&asked), asked.takes_first_at), (vec![ELSEWHERE], None));
    assert_eq!(world.heard.moved(&world.wish, world.now), None);
    // The pilot's own is watched again as soon as it is heard, with another number too.
    let both: &[_] = &[again[0], (&run(&a, 4), NEMO)];
    assert_eq!(watched(&world.lose(both)), Some((NEMO.to_owned(), false)));
    // Copies with one address too.
    let mut world = World::watching(&mine, &[(&copy, NEMO)]);
    let said = world.heard.warning(world.now).unwrap_or_default();
    assert!(said.contains("two machines announce rov a at 192.168.2.2:8080"), "{said}");
    world.pass(4_000);
    assert_eq!(world.heard.warning(world.now), None);
}

#[test]
fn a_server_that_starts_again_has_another_run_and_is_the_same() {
    let a = server("a", Some("ka"));
    let (before, after) = (run(&a, 1), run(&a, 2));
    let elsewhere = "10.0.0.2:8080";
    // It has two interfaces, comes back with both, and warns of nobody.
    let mut world = World::watching(&before, &[(&before, elsewhere)]);
    world.pass(300);
    for _ in 0..5 {
        world.hear(&after, elsewhere);
        world.hear(&after, NEMO);
        assert_eq!(world.heard.warning(world.now), None);
        assert_eq!(world.heard.since(world.start).len(), 1);
        world.pass(1_000);
    }
    assert_eq!(watched(&world.lose(&[(&after, elsewhere)])), Some((elsewhere.to_owned(), true)));
    // At another address, while nothing is heard of the former run.
    let mut world = World::watching(&before, &[]);
    assert_eq!(watched(&world.lose(&[(&after, ELSEWHERE)])), Some((ELSEWHERE.to_owned(), true)));
    // Watched there, it warns of nobody, unless the former run is heard again.
    let there = world.heard.since(world.search).remove(0);
    world.heard.watch(&there, true);
    assert_eq!((there.address.to_string().as_str(), world.heard.warning(world.now)), (ELSEWHERE, None));
    world.pass(500);
    world.hear(&before, NEMO);
    assert!(world.heard.warning(world.now).is_some());
    // Of a version that has no runs.
    let mut world = World::watching(&a, &[(&after, ELSEWHERE)]);
    assert_eq!(world.heard.warning(world.now), None);
    assert_eq!(watched(&world.lose(&[(&after, ELSEWHERE)])), Some((ELSEWHERE.to_owned(), true)));
}

#[test]
fn the_server_overtakes_whoever_is_tried_in_its_place() {
    let a = server("a", Some("ka"));
    let mut world = World::watching(&a, &[]);
    let Next::Watch { server: impostor, .. } = world.lose(&[(&a, ELSEWHERE)]) else { panic!() };
    let since = world.now;
    let overtaken = |world: &World, tried: &Found| world.heard.is_overtaken(tried, &world.wish, since, world.now);
    world.pass(1_000);
    world.hear(&a, ELSEWHERE);
    assert!(!overtaken(&world, &impostor));
    world.hear(&a, NEMO);
    assert!(overtaken(&world, &impostor));
    let real = world.heard.found.iter().find(|found| found.address.to_string() == NEMO).expect("it is heard").clone();
    assert!(!overtaken(&world, &real), "it is tried itself");
    // Where it was tried just now, the other one has its turn.
    world.heard.fail(NEMO.parse().expect("an address"), Duration::from_secs(5), world.now);
    assert!(!overtaken(&world, &impostor));
    world.pass(3_000);
    assert!(overtaken(&world, &impostor), "the watched one is not left alone for long");
    // Once a session stands there, nobody does.
    world.heard.watch(&impostor, true);
    assert!(!overtaken(&world, &impostor));
}

#[test]
fn an_address_that_never_answers_costs_a_fifth_of_the_time() {
    let a = server("a", Some("ka"));
    let mut world = World::watching(&a, &[]);
    let dead: SocketAddr = ELSEWHERE.parse().expect("an address");
    world.heard.fail(dead, Duration::from_secs(5), world.now);
    assert!(world.heard.is_shunned(dead, world.now + Duration::from_millis(19_999)));
    assert!(!world.heard.is_shunned(dead, world.now + Duration::from_secs(20)));
    world.heard.fail(dead, Duration::from_millis(10), world.now);
    assert!(!world.heard.is_shunned(dead, world.now + FAILED_FOR));
}
