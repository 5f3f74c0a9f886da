//! Networks as they are found: two cards in one subnet, an address that comes later, a server behind a NAT. Each in a
//! network of its own.

use std::io::Write;
use std::process::{Command, Stdio};

use rov_client::discovery;
use rov_common::discovery::DEFAULT_PORT;
use rov_common::net;
use rov_common::sync::lock;
use rov_tests::process::{Process, binary, program};
use rov_tests::programs::{Client, Server, client_process, last_figures, server_process};
use rov_tests::wait::{self, until_true};
use rov_tests::{OFFER, http, namespace};
use socket2::SockRef;
use tempfile::TempDir;
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::runtime::Runtime;

/// A robot in a network of its own, at the same address as every robot; its card is moved there while it waits.
const ROBOT: &str = r#"
echo "in its network" >&2
read -r
ip link set lo up
ip address add 169.254.0.2/16 dev "$1"
ip link set "$1" up
exec "$0" --source test --width 320 --height 240 --host 0.0.0.0 --signal-port 8080 --name "$2" --state-dir "$3" \
    --transport webrtc,rtsp
"#;

fn ip(line: &str) {
    let status = Command::new(program("ip", "iproute2")).args(line.split(' ')).status().expect("ip runs");
    assert!(status.success(), "ip {line}");
}

/// A card, and its other end, which has no address; nothing but what is sent on purpose leaves it.
fn card(name: &str, far: &str, address: &str) {
    ip(&format!("link add {name} type veth peer name {far}"));
    for end in [name, far] {
        // It fails where there is no IPv6, which then sends nothing either.
        let quiet = Command::new("ip").args(["link", "set", end, "addrgenmode", "none"]).stderr(Stdio::null()).status();
        quiet.expect("ip runs");
    }
    ip(&format!("address add {address} dev {name}"));
    ip(&format!("link set {name} up"));
    ip(&format!("link set {far} up"));
}

/// A vehicle at the other end of a card.
struct Robot {
    _process: Process,
    _state: TempDir,
}

impl Robot {
    fn start(far: &str, name: &str) -> Self {
        let state = TempDir::new().expect("a temporary folder");
        let (stdin, mut moved) = std::io::pipe().expect("a pipe");
        let mut command = Command::new(program("unshare", "util-linux"));
        command.args(["--net", "bash", "-c", ROBOT]).arg(binary("rov-server")).args([far, name]).arg(state.path());
        let mut process = Process::spawn_with_input(name, command.env_remove("RUST_LOG").stdin(stdin));
        process.wait_for_line("its network", wait::START, |line| line.contains("in its network").then_some(()));
        ip(&format!("link set {far} netns {}", process.pid()));
        moved.write_all(b"\n").expect("it reads");
        process.wait_for_line("its address", wait::START, |line| line.contains("http://").then_some(()));
        Self { _process: process, _state: state }
    }
}

/// The names of the servers that a client with `--interface` hears, until two announcements have come by the `other`
/// one.
async fn heard_by(interface: &str, other: &str) -> Vec<String> {
    let mut discovery = discovery::bind(DEFAULT_PORT, vec![interface.to_owned()]).expect("sockets");
    let all = net::broadcast_socket(DEFAULT_PORT, true).and_then(UdpSocket::from_std).expect("a socket");
    let (began, other) = (discovery.begin(), net::interface_index(other));
    let mut buffer = [0; 2_000];
    let both = async {
        let mut announcements = 0;
        while announcements < 2 {
            let receive = || net::receive_by(&SockRef::from(&all), &mut buffer);
            tokio::select! {
                () = discovery.hear() => {}
                received = all.async_io(Interest::READABLE, receive) => {
                    let (.., by) = received.expect("a datagram");
                    announcements += usize::from(by == Some(other));
                }
            }
        }
    };
    tokio::time::timeout(wait::START, both).await.expect("announcements by the other card");
    let heard = lock(discovery.heard()).since(began);
    heard.into_iter().map(|found| found.announcement.name).collect()
}

fn has_veth() -> bool {
    let allowed = namespace::is_allowed("ip link add eth0 type veth peer name far0");
    if !allowed {
        rov_tests::skipped("this system does not allow network namespaces, or has no virtual Ethernet (veth)");
    }
    allowed
}

/// Packets that came to the other end of a card.
fn received(far: &str) -> u64 {
    let output = Command::new("ip").args(["-s", "-j", "link", "show", far]).output().expect("ip runs");
    let links: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    links[0]["stats64"]["rx"]["packets"].as_u64().expect("a number")
}

#[test]
fn a_server_announces_by_both_of_two_cards_in_one_subnet_and_warns() {
    let name = "a_server_announces_by_both_of_two_cards_in_one_subnet_and_warns";
    if !has_veth() || !namespace::is_inside(name) {
        return;
    }
    card("eth0", "far0", "169.254.0.2/16");
    card("eth1", "far1", "169.254.0.3/16");
    let server = Server::start(&["--host", "0.0.0.0", "--discovery-port", "5003"]);
    let before = [received("far0"), received("far1")];
    until_true("announcements by both", wait::SOON, || {
        received("far0") >= before[0] + 2 && received("far1") >= before[1] + 2
    });
    server.process.logs(&["eth0 (169.254.0.2) and eth1 (169.254.0.3) are in one subnet"]);
}

#[test]
fn of_two_vehicles_with_one_address_that_of_the_interface_is_watched() {
    let name = "of_two_vehicles_with_one_address_that_of_the_interface_is_watched";
    if !has_veth() || !namespace::is_inside(name) {
        return;
    }
    card("eth0", "far0", "169.254.0.3/16");
    card("eth1", "far1", "169.254.0.4/16");
    let _robots = [Robot::start("far0", "Nemo"), Robot::start("far1", "Dory")];
    let found = Runtime::new().expect("a runtime").block_on(heard_by("eth1", "eth0"));
    assert_eq!(found, ["Dory"], "announcements by the other card are not for this client");
    let address = ["--host", "169.254.0.2:8080"];
    // Found, and given by its address.
    for args in [&[][..], &address[..]] {
        for (interface, robot) in [("eth0", "Nemo"), ("eth1", "Dory")] {
            let mut client = Client::start(&[args, &["--interface", interface]].concat());
            let report = client.wait_for("a vehicle", wait::START, |report| {
                report.frames_shown > 10 && !report.server_name.is_empty()
            });
            assert_eq!((report.server_name.as_str(), report.transport.as_str()), (robot, "webrtc"), "{interface}");
        }
    }
    // RTSP goes where the system routes it: refused rather than the other vehicle shown.
    let rtsp = ["--headless", "--no-wait", "--transport", "rtsp", "--host", "169.254.0.2"];
    let mut client = client_process(&[&rtsp[..], &["--interface", "eth1"]].concat());
    assert_ne!(client.wait(wait::START), 0);
    let log = client.stderr();
    assert!(log.contains("RTSP cannot be bound to a network interface") && log.contains("eth1"), "{log}");
}

#[test]
fn where_the_system_looks_on_the_wrong_card_the_error_names_both() {
    let name = "where_the_system_looks_on_the_wrong_card_the_error_names_both";
    if !has_veth() || !namespace::is_inside(name) {
        return;
    }
    card("eth0", "far0", "169.254.0.3/16");
    card("eth1", "far1", "169.254.0.4/16");
    let _robot = Robot::start("far1", "Nemo");
    for args in [&[][..], &["--host", "169.254.0.2:8080"][..]] {
        let mut client = client_process(&[&["--headless", "--no-wait"], args].concat());
        assert_ne!(client.wait(wait::START), 0);
        let log = client.stderr();
        assert!(log.contains("eth0 (169.254.0.3) and eth1 (169.254.0.4) are in the subnet of 169.254.0.2"), "{log}");
        assert!(log.contains("give --interface eth0 or --interface eth1"), "{log}");
    }
}

#[test]
fn an_address_that_comes_later_is_waited_for() {
    if !has_veth() || !namespace::is_inside("an_address_that_comes_later_is_waited_for") {
        return;
    }
    let mut server = server_process(&["--host", "10.99.0.2"]);
    server.wait_for_line("the warning", wait::START, |line| {
        line.contains("--host 10.99.0.2: no network interface has this address").then_some(())
    });
    card("eth0", "far0", "10.99.0.2/24");
    server.wait_for_line("its address", wait::START, |line| line.contains("http://10.99.0.2:").then_some(()));
    server.kill();
}

#[test]
fn an_interface_without_broadcasts_says_what_viewers_need_and_is_offered_to_them() {
    let name = "an_interface_without_broadcasts_says_what_viewers_need_and_is_offered_to_them";
    if !has_veth() || !namespace::is_inside(name) {
        return;
    }
    card("tailscale0", "far0", "100.64.0.7/32");
    let args = ["--host", "0.0.0.0", "--interface", "tailscale0", "--discovery-port", "5003"];
    let mut server = Server::start(&args);
    server.process.wait_for_line("the advice", wait::START, |line| {
        line.contains("tailscale0 (100.64.0.7) has no broadcasts")
            .then(|| assert!(line.contains("rov-client --host 100.64.0.7")))
    });
    // Of itself, not as the address that was asked.
    let headers = [("Content-Type", "application/sdp"), ("Host", "localhost")];
    let reply = http::request_with("POST", &server.url("/whep"), &headers, OFFER.as_bytes());
    assert_eq!(reply.status, 201, "{reply:?}");
    let candidate = format!(" 100.64.0.7 {} typ host", server.media.expect("WebRTC").port());
    assert!(reply.body.contains(&candidate), "{candidate}: {}", reply.body);
    let mut client = Client::start(&["--host", &server.address.to_string()]);
    client.wait_for_frames(0, 10);
}

#[test]
fn behind_docker_s_bridge_with_forwarded_ports_the_client_gets_its_picture() {
    /// The server in a network of its own, as a container; its machine, which forwards HTTP and the media port to it
    /// and hides it behind its own address; a viewer's machine on the LAN.
    const SCRIPT: &str = r#"
in_a_network_of_its_own() {
    unshare --net sleep 300 &
    until [ "$(readlink /proc/$!/ns/net)" != "$(readlink /proc/self/ns/net)" ]; do sleep 0.05; done
}
in_a_network_of_its_own
container=$!
in_a_network_of_its_own
far=$!
ip link set lo up
ip link add bridge type veth peer name eth0 netns $container
ip link add lan type veth peer name eth0 netns $far
ip address add 172.17.0.1/16 dev bridge
ip link set bridge up
ip address add 192.168.2.2/24 dev lan
ip link set lan up
inside="nsenter --target $container --net --preserve-credentials"
viewer="nsenter --target $far --net --preserve-credentials"
$inside ip link set lo up
$inside ip address add 172.17.0.2/16 dev eth0
$inside ip link set eth0 up
$inside ip route add default via 172.17.0.1
$viewer ip address add 192.168.2.1/24 dev eth0
$viewer ip link set eth0 up
echo 1 >/proc/sys/net/ipv4/ip_forward
iptables -t nat -A PREROUTING -i lan -p tcp --dport 8080 -j DNAT --to-destination 172.17.0.2
iptables -t nat -A PREROUTING -i lan -p udp --dport "$PUBLIC_PORT" -j DNAT --to-destination 172.17.0.2:5004
iptables -t nat -A POSTROUTING -s 172.17.0.0/16 -o lan -j MASQUERADE
$inside "$SERVER" --source test --width 320 --height 240 --media-port 5004 --no-discovery --transport webrtc "$@" &
server=$!
$viewer "$CLIENT" --host 192.168.2.2:8080 --transport webrtc --headless --duration 6
code=$?
kill $container $far $server
exit $code
"#;
    if !has_veth() {
        return;
    }
    if !namespace::is_allowed("iptables -t nat -A POSTROUTING -j MASQUERADE") {
        rov_tests::skipped("iptables cannot change addresses in a network namespace here");
        return;
    }
    // By the address that the viewer typed; where the port is another outside, by `--public-address`.
    for (port, more) in [("5004", &[][..]), ("5999", &["--public-address", "192.168.2.2:5999"][..])] {
        let state = TempDir::new().expect("a temporary folder");
        let mut command = namespace::bash(SCRIPT);
        command.arg("behind a NAT").args(more).arg("--state-dir").arg(state.path()).env("PUBLIC_PORT", port);
        command.env("SERVER", binary("rov-server")).env("CLIENT", binary("rov-client")).env_remove("RUST_LOG");
        let mut all = Process::spawn("server, NAT and client", &mut command);
        assert_eq!(all.wait(wait::START), 0, "{}", all.stderr());
        let (line, shown) = last_figures(&all);
        assert!(line.starts_with("live: ") && shown > 20, "{more:?}: {line}");
    }
}

#[test]
fn a_server_at_the_second_address_of_a_card_is_found_there() {
    let name = "a_server_at_the_second_address_of_a_card_is_found_there";
    if !has_veth() || !namespace::is_inside(name) {
        return;
    }
    card("eth0", "far0", "192.168.2.2/24");
    ip("address add 192.168.2.77/24 dev eth0");
    let second = Server::start(&["--host", "192.168.2.77", "--discovery-port", "5003"]);
    let mut client = Client::start(&["--interface", "eth0"]);
    assert_eq!(client.wait_for_frames(0, 10).server, second.address.to_string());
}
