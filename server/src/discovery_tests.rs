//! Discovery on the loopback interface: nothing leaves the machine.

use rov_common::discovery::{Query, RtpInfo, StreamInfo, VERSION};
use tokio::time::timeout;

use super::*;

const SOON: Duration = Duration::from_secs(30);

fn announcement(id: &str) -> Announcement {
    Announcement {
        v: VERSION,
        id: id.to_owned(),
        key: None,
        tls: None,
        run: None,
        name: format!("name of {id}"),
        version: "0.1.0".to_owned(),
        signal_port: 5002,
        whep: "/whep".to_owned(),
        transports: vec!["webrtc".to_owned()],
        rtp: None,
        rtsp: None,
        streams: vec![StreamInfo {
            name: "stream1".to_owned(),
            codec: "h264".to_owned(),
            width: 1280,
            height: 720,
            fps: 30.0,
        }],
    }
}

fn loopback(port: u16) -> DiscoveryConfig {
    DiscoveryConfig { port, host: Ipv4Addr::UNSPECIFIED.into(), interfaces: vec!["lo".to_owned()] }
}

/// A server that runs until the token is cancelled, and its port.
fn start(port: u16, id: &'static str) -> (u16, CancellationToken, tokio::task::JoinHandle<anyhow::Result<()>>) {
    let discovery = bind(loopback(port)).unwrap();
    let (port, shutdown) = (discovery.port(), CancellationToken::new());
    let task = tokio::spawn(discovery.run(move || announcement(id), shutdown.clone()));
    (port, shutdown, task)
}

async fn client() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.set_broadcast(true).unwrap();
    socket
}

async fn ask(socket: &UdpSocket, port: u16, query: Query) {
    socket.send_to(&encode(&Message::Query(query)), ("127.255.255.255", port)).await.unwrap();
}

/// The id of the next server that is heard.
async fn hear(socket: &UdpSocket) -> Option<String> {
    let mut buffer = [0; MAX_DATAGRAM + 1];
    let (length, _) = timeout(SOON, socket.recv_from(&mut buffer)).await.ok()?.unwrap();
    match decode(&buffer[..length]) {
        Ok(Message::Announce(announcement)) => Some(announcement.id),
        other => panic!("{other:?}"),
    }
}

async fn silent(socket: &UdpSocket) -> bool {
    timeout(Duration::from_millis(200), socket.recv_from(&mut [0; 16])).await.is_err()
}

#[tokio::test]
async fn a_query_is_answered_at_once_to_the_asker() {
    let (port, _shutdown, _task) = start(0, "one");
    let client = client().await;
    let begun = Instant::now();
    // One that waits for the next announcement does so each time, and a busy machine only sometimes.
    loop {
        let asked = Instant::now();
        ask(&client, port, Query::default()).await;
        assert_eq!(hear(&client).await.as_deref(), Some("one"));
        if asked.elapsed() < Duration::from_millis(200) {
            break;
        }
        assert!(begun.elapsed() < SOON, "each answer comes late, the last after {:?}", asked.elapsed());
    }
}

#[tokio::test]
async fn an_announcement_is_heard_without_asking() {
    let (port, _shutdown, _task) = start(0, "one");
    let listener = UdpSocket::from_std(broadcast_socket(port, true).unwrap()).unwrap();
    assert_eq!(hear(&listener).await.as_deref(), Some("one"));
    assert_eq!(hear(&listener).await.as_deref(), Some("one"));
}

#[tokio::test]
async fn two_servers_on_one_machine_both_answer() {
    let (port, _shutdown, _task) = start(0, "one");
    let (second_port, _shutdown2, _task2) = start(port, "two");
    assert_eq!(port, second_port);
    let client = client().await;
    ask(&client, port, Query::default()).await;
    let mut ids = [hear(&client).await.unwrap(), hear(&client).await.unwrap()];
    ids.sort();
    assert_eq!(ids, ["one", "two"]);
}

#[test]
fn another_server_of_this_machine_that_sends_rtp_to_the_same_destination_is_warned_of_once() {
    let mut sender = Sender::new(loopback(0), 0);
    let to = |id: &str, port| {
        let rtp = RtpInfo { host: Ipv4Addr::new(239, 255, 0, 1), port, fec: false, ssrc: None };
        Announcement { rtp: Some(rtp), ..announcement(id) }
    };
    let (own, here, elsewhere) = (to("one", 5004), Ipv4Addr::LOCALHOST.into(), Ipv4Addr::new(192, 0, 2, 9).into());
    for (from, other) in [(here, to("one", 5004)), (here, to("two", 5008)), (elsewhere, to("two", 5004))] {
        assert_eq!(sender.rival(from, &other, &own), None, "{other:?}");
    }
    assert_eq!(sender.rival(here, &announcement("two"), &own), None, "sends no RTP");
    let warning = sender.rival(here, &to("two", 5004), &own).expect("a warning");
    assert!(
        warning.starts_with("the server name of two on this machine sends RTP to 239.255.0.1:5004, too"),
        "{warning}"
    );
    assert_eq!(sender.rival(here, &to("two", 5004), &own), None, "once");
}

#[tokio::test]
async fn only_the_server_that_was_asked_for_answers() {
    let (port, _shutdown, _task) = start(0, "one");
    let client = client().await;
    ask(&client, port, Query { id: Some("two".to_owned()), name: None }).await;
    assert!(silent(&client).await);
    ask(&client, port, Query { id: Some("one".to_owned()), name: Some("name of one".to_owned()) }).await;
    assert_eq!(hear(&client).await.as_deref(), Some("one"));
}

#[tokio::test]
async fn garbage_and_oversized_datagrams_disturb_nothing() {
    let (port, _shutdown, task) = start(0, "one");
    let client = client().await;
    for round in 0..200_u8 {
        let _ = client.send_to(&vec![round; usize::from(round) * 7], ("127.0.0.1", port)).await;
    }
    // The longest that UDP carries; a megabyte cannot be sent at all.
    let _ = client.send_to(&vec![b'{'; 65_507], ("127.0.0.1", port)).await;
    let _ = client.send_to(br#"{"rov":"announce","v":1,"id":3}"#, ("127.0.0.1", port)).await;
    assert!(silent(&client).await);
    ask(&client, port, Query::default()).await;
    assert_eq!(hear(&client).await.as_deref(), Some("one"));
    assert!(!task.is_finished());
}

#[tokio::test]
async fn shutdown_ends_it() {
    let (_, shutdown, task) = start(0, "one");
    shutdown.cancel();
    timeout(SOON, task).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn a_server_on_loopback_alone_is_found_there() {
    let config = DiscoveryConfig { port: 0, host: Ipv4Addr::LOCALHOST.into(), interfaces: Vec::new() };
    let discovery = bind(config).unwrap();
    let port = discovery.port();
    tokio::spawn(discovery.run(|| announcement("one"), CancellationToken::new()));
    let listener = UdpSocket::from_std(broadcast_socket(port, true).unwrap()).unwrap();
    assert_eq!(hear(&listener).await.as_deref(), Some("one"));
}

#[test]
fn a_taken_port_is_named_with_what_to_do() {
    let other = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
    let port = other.local_addr().unwrap().port();
    let message = format!("{:#}", bind(loopback(port)).unwrap_err());
    for part in [&port.to_string(), "--discovery-port", "--no-discovery"] {
        assert!(message.contains(part), "{message}");
    }
}

#[test]
fn who_is_outside_the_chosen_interfaces_gets_no_answer() {
    let target = |address: &str| Target {
        interface: "eth0".to_owned(),
        address: address.parse().unwrap(),
        prefix: 24,
        broadcast: Ipv4Addr::UNSPECIFIED,
    };
    let sender = |host: &str, targets| Sender {
        targets: Some(targets),
        ..Sender::new(DiscoveryConfig { port: 5003, host: host.parse().unwrap(), interfaces: Vec::new() }, 5003)
    };
    let stranger = "10.0.0.1:4000".parse().unwrap();
    assert!(sender("0.0.0.0", vec![target("192.168.2.2")]).may_answer(stranger));
    assert!(!sender("192.168.2.2", vec![target("192.168.2.2")]).may_answer(stranger));
    assert!(sender("192.168.2.2", vec![target("192.168.2.2")]).may_answer("192.168.2.77:4000".parse().unwrap()));
    assert!(!sender("127.0.0.1", vec![]).may_answer(stranger));
    assert!(!sender("0.0.0.0", vec![]).may_answer("10.0.0.1:0".parse().unwrap()), "port 0 cannot be answered");
}

#[test]
fn answers_are_limited_for_each_peer_and_in_all() {
    let now = Instant::now();
    let mut limit = AnswerLimit::new(now);
    let mut count = |now, peers: u8| {
        (0..1000_u16)
            .filter(|number| limit.allows(now, Ipv4Addr::new(10, 0, 0, (number % u16::from(peers)) as u8).into()))
            .count()
    };
    assert_eq!(count(now, 1), 20);
    assert_eq!(count(now, 200), 30);
    assert_eq!(count(now + Duration::from_millis(999), 1), 0);
    assert_eq!(count(now + Duration::from_secs(1), 1), 20);
}

#[test]
fn the_id_depends_on_machine_name_host_and_port_alone() {
    let address = |text: &str| text.parse::<IpAddr>().unwrap();
    let (any, front, rear) = (address("0.0.0.0"), address("192.168.2.2"), address("10.0.0.2"));
    assert_eq!(server_id("Nemo", any, 5002), server_id("Nemo", any, 5002));
    assert_ne!(server_id("Nemo", any, 5002), server_id("Dory", any, 5002));
    assert_ne!(server_id("Nemo", any, 5002), server_id("Nemo", any, 5003));
    // Two servers with one port, at an address each.
    assert_eq!(server_id("Nemo", front, 5002), server_id("Nemo", front, 5002));
    assert_ne!(server_id("Nemo", front, 5002), server_id("Nemo", rear, 5002));
    assert_ne!(server_id("Nemo", front, 5002), server_id("Nemo", any, 5002));
    assert_eq!(server_id("Nemo", any, 5002), server_id("Nemo", address("::"), 5002));
    assert_ne!(id_from("a", "Nemo", any, 5002), id_from("b", "Nemo", any, 5002));
    // As every version had it.
    assert_eq!(id_from("a", "Nemo", any, 5002), "f317f91f-b249-521a-af22-e9182c6e9610");
}

#[test]
fn placeholders_are_not_machine_ids() {
    for id in ["", "uninitialized", "00000000000000000000000000000000", "00000000-0000-0000-0000-000000000000", "abc"] {
        assert!(!is_usable_machine_id(id), "{id}");
    }
    assert!(is_usable_machine_id("3d1219c7c4c5404aaa1f6d2a48adfda4"));
}

/// As on a machine with a copied image, whose D-Bus has an id of its own still.
#[test]
fn the_machine_id_of_systemd_goes_before_any_other() {
    let folder = tempfile::TempDir::new().unwrap();
    let file = folder.path().join("machine-id");
    let id = || machine_id::<()>(&file, || Ok("of D-Bus".to_owned())).unwrap();
    assert_eq!(id(), "of D-Bus", "there is none");
    std::fs::write(&file, "uninitialized\n").unwrap();
    assert_eq!(id(), "of D-Bus");
    std::fs::write(&file, "3d1219c7c4c5404aaa1f6d2a48adfda4\n").unwrap();
    assert_eq!(id(), "3d1219c7c4c5404aaa1f6d2a48adfda4");
}
