//! The link with its devices, and `netlab run`.

use std::fs;
use std::net::UdpSocket;
use std::process::Command;
use std::time::Duration;

use netlab::ends::{self, End};
use netlab::lab::{Lab, TOPSIDE};
use rov_tests::process::Process;
use rov_tests::{skipped, wait};

const NETLAB: &str = env!("CARGO_BIN_EXE_netlab");

/// A lab, unless this machine cannot have one.
fn lab() -> Option<Lab> {
    match ends::obstacle() {
        Some(obstacle) => {
            skipped(&format!("the lab of links: {obstacle}"));
            None
        }
        None => Some(Lab::start(1).expect("a lab")),
    }
}

fn socket(end: &End, address: &'static str) -> UdpSocket {
    let socket = end.enter(|| UdpSocket::bind(address)).expect("the network").expect("a socket");
    socket.set_read_timeout(Some(Duration::from_secs(1))).expect("a time limit");
    socket
}

#[test]
fn the_link_takes_the_time_that_it_is_told() {
    let Some(lab) = lab() else { return };
    lab.link("to-topside delay=50ms").expect("conditions");
    let [p50, _, longest] = lab.crossing(50, 1200).expect("datagrams that cross");
    assert!((50..150).contains(&p50.as_millis()), "{p50:?} {longest:?}");
    assert!(lab.figures().to_topside.delivered >= 50);
}

#[test]
fn broadcast_and_multicast_pass() {
    let Some(lab) = lab() else { return };
    let from = socket(&lab.rov, "10.88.0.1:0");
    from.set_broadcast(true).expect("broadcast");
    let to = socket(&lab.topside, "0.0.0.0:5003");
    to.join_multicast_v4(&"239.255.0.1".parse().expect("a group"), &TOPSIDE.parse().expect("an address"))
        .expect("joined");
    for address in ["10.88.0.255:5003", "255.255.255.255:5003", "239.255.0.1:5003", "10.88.0.2:5003"] {
        from.send_to(address.as_bytes(), address).expect(address);
        let mut buffer = [0; 100];
        let length = to.recv(&mut buffer).expect(address);
        assert_eq!(&buffer[..length], address.as_bytes());
    }
}

#[test]
fn nothing_passes_in_an_outage() {
    let Some(lab) = lab() else { return };
    let (from, to) = (socket(&lab.rov, "10.88.0.1:0"), socket(&lab.topside, "10.88.0.2:7000"));
    from.send_to(b"before", "10.88.0.2:7000").expect("sent");
    to.recv(&mut [0; 10]).expect("the first");
    lab.link("outage=on").expect("conditions");
    from.send_to(b"during", "10.88.0.2:7000").expect("sent");
    to.set_read_timeout(Some(Duration::from_millis(100))).expect("a time limit");
    to.recv(&mut [0; 10]).expect_err("nothing");
    lab.link("outage=off").expect("conditions");
    to.set_read_timeout(Some(wait::SOON)).expect("a time limit");
    // The kernel may ask for the address again first.
    from.send_to(b"after", "10.88.0.2:7000").expect("sent");
    let mut buffer = [0; 10];
    let length = to.recv(&mut buffer).expect("the last");
    assert_eq!(&buffer[..length], b"after");
    assert!(lab.figures().to_topside.cut >= 1);
}

#[test]
fn run_gives_the_exit_code_of_topside_and_ends_the_rest() {
    if lab().is_none() {
        return;
    }
    let rov = format!("sleep 7001.{}", std::process::id());
    let mut command = Command::new(NETLAB);
    command.args(["run", "--link", "loss=1%", "--rov", &rov, "--topside", "ip -br address; exit 3"]);
    let mut run = Process::spawn("netlab", &mut command);
    assert_eq!(run.wait(wait::START), 3, "{}", run.stderr());
    assert!(run.stdout().contains("10.88.0.2/24"), "{}", run.stdout());
    assert!(run.stderr().contains("to topside: "), "{}", run.stderr());
    assert!(!is_running(&rov), "{rov} is left");
}

#[test]
fn nothing_is_left_of_a_run_that_is_killed() {
    if lab().is_none() {
        return;
    }
    let rov = format!("sleep 7002.{}", std::process::id());
    // A shell of a shell, which a signal to the first would not reach.
    let mut command = Command::new(NETLAB);
    command.args(["run", "--rov", &format!("sh -c '{rov}; true'; true")]);
    let mut run = Process::spawn("netlab", &mut command);
    wait::until_true("the command runs", wait::START, || is_running(&rov));
    run.signal(libc::SIGKILL);
    wait::until_true("the command is gone", wait::SOON, || !is_running(&rov));
    wait::until_true("and netlab too", wait::SOON, || !run.is_running());
}

#[test]
fn a_mistake_is_said_with_what_to_write() {
    let mut command = Command::new(NETLAB);
    let mut run = Process::spawn("netlab", command.args(["run", "--link", "loss=1"]));
    assert_eq!(run.wait(wait::SOON), 2);
    assert!(run.stderr().contains("0% to 100%"), "{}", run.stderr());
    let mut command = Command::new(NETLAB);
    let mut row = Process::spawn("netlab", command.args(["row", "no-such-row"]));
    assert_eq!(row.wait(wait::SOON), 1);
    assert!(row.stderr().contains("loss-5"), "{}", row.stderr());
}

/// Whether a process has exactly this command line.
fn is_running(command: &str) -> bool {
    let processes =
        fs::read_dir("/proc").expect("processes").filter_map(|entry| Some(entry.ok()?.path().join("cmdline")));
    let mut lines = processes.filter_map(|file| fs::read(file).ok());
    lines.any(|line| {
        line.split(|byte| *byte == 0).filter(|word| !word.is_empty()).eq(command.as_bytes().split(|byte| *byte == b' '))
    })
}
