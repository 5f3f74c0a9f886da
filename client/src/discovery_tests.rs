//! Discovery on the loopback interface, with servers that are a socket and a loop: nothing leaves the machine.

use rov_common::discovery::{Announcement, VERSION};
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use super::*;

const LONG: Duration = Duration::from_secs(30);

fn announcement(id: &str, signal_port: u16) -> Announcement {
    Announcement {
        v: VERSION,
        id: id.to_owned(),
        key: None,
        tls: None,
        run: None,
        name: format!("name of {id}"),
        version: "0.1.0".to_owned(),
        signal_port,
        whep: "/whep".to_owned(),
        transports: vec!["webrtc".to_owned()],
        rtp: None,
        rtsp: None,
        streams: Vec::new(),
    }
}

fn loopback(port: u16) -> Discovery {
    bind(port, vec!["lo".to_owned()]).unwrap()
}

fn ids(found: &[Found]) -> Vec<&str> {
    found.iter().map(|found| found.announcement.id.as_str()).collect()
}

/// A port that the caller's servers and clients share, kept taken by the socket.
fn shared_port() -> (u16, UdpSocket) {
    let socket = UdpSocket::from_std(net::broadcast_socket(0, true).unwrap()).unwrap();
    (socket.local_addr().unwrap().port(), socket)
}

/// A server that answers queries and nothing else.
fn answering(port: u16, id: &'static str, signal_port: u16) -> AbortOnDropHandle<()> {
    answering_so_many(port, id, signal_port, usize::MAX)
}

/// As [`answering`], but only the first queries.
fn answering_so_many(port: u16, id: &'static str, signal_port: u16, answers: usize) -> AbortOnDropHandle<()> {
    let socket = UdpSocket::from_std(net::broadcast_socket(port, true).unwrap()).unwrap();
    let announcement = announcement(id, signal_port);
    AbortOnDropHandle::new(tokio::spawn(async move {
        let mut buffer = [0; MAX_DATAGRAM];
        for _ in 0..answers {
            let (length, peer) = socket.recv_from(&mut buffer).await.unwrap();
            if matches!(decode(&buffer[..length]), Ok(Message::Query(query)) if query.matches(&announcement)) {
                socket.send_to(&encode(&Message::Announce(announcement.clone())), peer).await.unwrap();
            }
        }
    }))
}

/// A server that announces ten times a second, and answers nothing.
fn announcing(port: u16, id: &'static str) -> AbortOnDropHandle<()> {
    let socket = UdpSocket::from_std(net::broadcast_socket(0, false).unwrap()).unwrap();
    AbortOnDropHandle::new(tokio::spawn(async move {
        loop {
            let datagram = encode(&Message::Announce(announcement(id, 5002)));
            socket.send_to(&datagram, ("127.255.255.255", port)).await.unwrap();
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }))
}

/// The servers, as soon as there are so many.
async fn wait_for(discovery: &mut Discovery, number: usize) -> Vec<Found> {
    let began = discovery.begin();
    let heard = async {
        while lock(discovery.heard()).since(began).len() < number {
            discovery.hear().await;
        }
    };
    let _ = timeout(LONG, heard).await;
    lock(discovery.heard()).since(began)
}

#[tokio::test]
async fn a_server_is_found_by_the_first_query() {
    let (port, _kept) = shared_port();
    let _server = answering_so_many(port, "one", 5002, 1);
    let found = wait_for(&mut loopback(port), 1).await;
    assert_eq!(ids(&found), ["one"]);
    assert_eq!(found[0].address.to_string(), "127.0.0.1:5002");
}

#[tokio::test]
async fn a_server_is_found_by_its_announcement() {
    let (port, _kept) = shared_port();
    let _server = announcing(port, "one");
    assert_eq!(ids(&wait_for(&mut loopback(port), 1).await), ["one"]);
}

#[tokio::test]
async fn all_servers_are_found_and_one_that_comes_late() {
    let (port, _kept) = shared_port();
    let _servers = [answering(port, "two", 5012), answering(port, "one", 5002)];
    let mut discovery = loopback(port);
    let late = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        // In an option, because a task in itself would be a future that a future returns.
        Some(answering(port, "three", 5022))
    };
    let (found, _server) = tokio::join!(wait_for(&mut discovery, 3), late);
    assert_eq!(ids(&found), ["one", "three", "two"]);
}

#[tokio::test]
async fn while_one_is_watched_the_others_stay_in_view() {
    let (port, _kept) = shared_port();
    let _server = answering(port, "one", 5002);
    let mut discovery = loopback(port);
    let asked = timeout(LONG, async {
        let began = Instant::now();
        let heard = Arc::clone(discovery.heard());
        let listening = discovery.listen();
        let seen = async {
            while lock(&heard).since(began).is_empty() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::select! { never = listening => match never {}, () = seen => {} }
    });
    assert!(asked.await.is_ok(), "nothing asks");
}

#[tokio::test]
async fn a_list_gives_each_server_as_it_is_heard_and_ends_soon_after_the_last() {
    let (port, _kept) = shared_port();
    let _server = answering(port, "one", 5002);
    let mut told = Vec::new();
    let mut discovery = loopback(port);
    let found =
        discovery.search(None, LONG, |server| told.push((server.announcement.id.clone(), Instant::now()))).await;
    assert_eq!(ids(&found), ["one"]);
    // In all of the time it asks more than thirty times.
    assert!(discovery.queries < 12, "{} queries", discovery.queries);
    assert_eq!(told.iter().map(|(id, _)| id.as_str()).collect::<Vec<_>>(), ["one"]);
    assert!(told[0].1.elapsed() >= QUIET, "told when it was heard");
}

#[tokio::test]
async fn a_list_ends_although_servers_come_all_the_time() {
    let (port, _kept) = shared_port();
    const MANY: u8 = 60;
    let _servers = AbortOnDropHandle::new(tokio::spawn(async move {
        for host in 1..=MANY {
            let socket = UdpSocket::bind((Ipv4Addr::new(127, 0, 0, host), 0)).await.unwrap();
            socket.set_broadcast(true).unwrap();
            let datagram = encode(&Message::Announce(announcement(&host.to_string(), 5002)));
            socket.send_to(&datagram, ("127.255.255.255", port)).await.unwrap();
            tokio::time::sleep(QUIET / 5).await;
        }
    }));
    let found = loopback(port).search(None, 2 * QUIET, |_| ()).await;
    assert!((1..usize::from(MANY)).contains(&found.len()), "{} servers", found.len());
}

#[tokio::test]
async fn a_list_by_name_has_no_other_server() {
    let (port, _kept) = shared_port();
    let _servers = [answering(port, "one", 5002), answering(port, "two", 5012)];
    let found = loopback(port).search(Some("name of two"), LONG, |_| ()).await;
    assert_eq!(ids(&found), ["two"]);
}

#[tokio::test]
async fn nothing_found_says_where_it_was_looked_for() {
    let (port, _kept) = shared_port();
    let mut discovery = loopback(port);
    assert_eq!(discovery.search(None, Duration::from_millis(100), |_| ()).await, []);
    let text = discovery.describe();
    for part in
        ["asked on lo (127.255.255.255)", &format!("UDP port {port}"), "listened", "firewall", "subnet", "--host"]
    {
        assert!(text.contains(part), "{text}");
    }
    let mut nowhere = bind(port, vec!["eth77".to_owned()]).unwrap();
    nowhere.search(None, Duration::from_millis(10), |_| ()).await;
    assert!(nowhere.describe().contains("no network interface named eth77"), "{}", nowhere.describe());
}

#[tokio::test]
async fn a_taken_port_leaves_asking_at_work() {
    // Without sharing, as another program would have it: its owner answers here itself.
    let owner = UdpSocket::from_std(net::broadcast_socket(0, false).unwrap()).unwrap();
    let port = owner.local_addr().unwrap().port();
    let mut discovery = loopback(port);
    assert!(discovery.describe().contains("could not listen"), "{}", discovery.describe());
    let answer = async {
        let mut buffer = [0; MAX_DATAGRAM];
        let (_, peer) = owner.recv_from(&mut buffer).await.unwrap();
        owner.send_to(&encode(&Message::Announce(announcement("one", 5002))), peer).await.unwrap();
    };
    let (found, ()) = tokio::join!(wait_for(&mut discovery, 1), answer);
    assert_eq!(ids(&found), ["one"]);
}

#[tokio::test]
async fn garbage_disturbs_nothing_and_a_newer_version_is_mentioned() {
    let (port, _kept) = shared_port();
    let mut discovery = loopback(port);
    let noise = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    noise.set_broadcast(true).unwrap();
    let asker = discovery.asking.local_addr().unwrap().port();
    let make_noise = async {
        for round in 0..100_u8 {
            let _ = noise.send_to(&vec![round; 600 * usize::from(round)], ("127.0.0.1", asker)).await;
            let _ = noise.send_to(br#"{"rov":"announce","v":9}"#, ("127.255.255.255", port)).await;
        }
        // In an option, because a task in itself would be a future that a future returns.
        Some(answering(port, "one", 5002))
    };
    let (found, _server) = tokio::join!(wait_for(&mut discovery, 1), make_noise);
    assert_eq!(ids(&found), ["one"]);
    assert!(discovery.describe().contains("newer version"), "{}", discovery.describe());
}

#[tokio::test]
async fn a_search_that_is_cancelled_again_and_again_still_finds() {
    let (port, _kept) = shared_port();
    let _servers = [answering(port, "one", 5002), answering(port, "two", 5012)];
    let mut discovery = loopback(port);
    let began = discovery.begin();
    for _ in 0..500 {
        let _ = timeout(Duration::from_millis(10), discovery.hear()).await;
        if ids(&lock(discovery.heard()).since(began)) == ["one", "two"] {
            return;
        }
    }
    panic!("cancelling starts the search over");
}

#[tokio::test]
async fn a_server_that_is_gone_is_not_found_again() {
    let (port, _kept) = shared_port();
    let server = announcing(port, "one");
    let mut discovery = loopback(port);
    assert_eq!(ids(&wait_for(&mut discovery, 1).await), ["one"]);
    // Some more announcements wait in the socket when the server ends.
    tokio::time::sleep(Duration::from_millis(300)).await;
    drop(server);
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(discovery.search(None, Duration::from_millis(300), |_| ()).await, []);
}

#[test]
fn queries_come_quickly_at_first_and_then_each_second() {
    let times: Vec<_> = (0..6).map(|number| query_time(number).as_millis()).collect();
    assert_eq!(times, [0, 50, 150, 1000, 2000, 3000]);
}

#[test]
fn loopback_is_asked_last_unless_interfaces_are_chosen() {
    let interface = |name: &str, address: [u8; 4], prefix| Interface {
        name: name.to_owned(),
        address: address.into(),
        prefix,
        is_up: true,
        is_point_to_point: false,
    };
    let all = [interface("lo", [127, 0, 0, 1], 8), interface("eth0", [192, 168, 2, 2], 24)];
    let names = |targets: Vec<Target>| targets.into_iter().map(|target| target.interface).collect::<Vec<_>>();
    assert_eq!(names(targets(&all, &[])), ["eth0", "lo"]);
    assert_eq!(names(targets(&all[..1], &[])), ["lo"]);
    assert_eq!(names(targets(&all, &["eth0".to_owned()])), ["eth0"]);
}
