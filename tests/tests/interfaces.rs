//! Networks as they are found: two cards in one subnet, and an address that comes later. Each in a network of its own.

use std::process::{Command, Stdio};

use rov_tests::namespace;
use rov_tests::process::program;
use rov_tests::programs::{Server, server_process};
use rov_tests::wait::{self, until_true};
use tempfile::TempDir;

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
    let log = server.process.stderr();
    assert!(log.contains("eth0 (169.254.0.2) and eth1 (169.254.0.3) are in one subnet"), "{log}");
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
fn an_interface_without_broadcasts_says_what_viewers_need() {
    if !has_veth() || !namespace::is_inside("an_interface_without_broadcasts_says_what_viewers_need") {
        return;
    }
    card("tailscale0", "far0", "100.64.0.7/32");
    let state = TempDir::new().expect("a temporary folder");
    let more = ["--discovery-port", "5003", "--state-dir", state.path().to_str().expect("a path")];
    let mut server = server_process(&[&["--host", "0.0.0.0", "--interface", "tailscale0"], &more[..]].concat());
    server.wait_for_line("the advice", wait::START, |line| {
        line.contains("tailscale0 (100.64.0.7) has no broadcasts")
            .then(|| assert!(line.contains("rov-client --host 100.64.0.7")))
    });
    server.kill();
}
