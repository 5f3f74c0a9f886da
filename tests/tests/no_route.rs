//! A machine on an isolated LAN has no gateway, and so no route for what is not its neighbour, multicast included.

use std::process::Command;

use rov_tests::process::{Process, binary, program};
use rov_tests::skipped;
use rov_tests::wait;

/// Server and client in a network of their own that has only loopback.
const SCRIPT: &str = r#"
ip link set lo up
"$SERVER" --source test --width 320 --height 240 --signal-port 0 2>/dev/null &
"$CLIENT" --auto --headless --duration 6
code=$?
kill %1
wait
exit $code
"#;

#[test]
fn without_any_route_the_client_finds_the_server_and_shows_its_pictures() {
    let unshare = program("unshare", "util-linux");
    program("ip", "iproute2");
    // A user namespace makes it possible without being root, where the system allows that.
    let allowed = Command::new(&unshare).args(["--user", "--map-root-user", "--net", "true"]).status();
    if !allowed.is_ok_and(|status| status.success()) {
        skipped("this system does not allow network namespaces");
        return;
    }
    let mut command = Command::new(unshare);
    command.args(["--user", "--map-root-user", "--net", "bash", "-c", SCRIPT]);
    command.env("SERVER", binary("rov-server")).env("CLIENT", binary("rov-client")).env_remove("RUST_LOG");
    let mut both = Process::spawn("server and client", &mut command);
    assert_eq!(both.wait(wait::START), 0);
    let last = both.stdout().lines().last().map(str::to_owned).expect("a line of figures each second");
    let shown = last.split(" shown").next().and_then(|l| l.rsplit(' ').next()).and_then(|n| n.parse::<u32>().ok());
    assert!(last.starts_with("live: ") && shown.is_some_and(|n| n > 20), "{last}");
}
