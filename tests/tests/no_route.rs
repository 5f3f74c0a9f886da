//! A machine on an isolated LAN has no gateway, and so no route for what is not its neighbour, multicast included.

use rov_tests::process::{Process, binary, program};
use rov_tests::programs::last_figures;
use rov_tests::wait;
use rov_tests::{namespace, skipped};

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
    program("ip", "iproute2");
    if !namespace::is_allowed("true") {
        skipped("this system does not allow network namespaces");
        return;
    }
    let mut command = namespace::bash(SCRIPT);
    command.env("SERVER", binary("rov-server")).env("CLIENT", binary("rov-client")).env_remove("RUST_LOG");
    let mut both = Process::spawn("server and client", &mut command);
    assert_eq!(both.wait(wait::START), 0);
    let (line, shown) = last_figures(&both);
    assert!(line.starts_with("live: ") && shown > 20, "{line}");
}
