//! Tests that need multicast run in a network of their own that has only loopback, so that nothing gets out; and those
//! that fill a disk with mounts of their own.

use std::process::{Command, Stdio};

use crate::process::{Process, program};
use crate::wait;

const MARK: &str = "ROV_TEST_IN_NAMESPACE";

/// `script` with a network and mounts of its own, in which it is root; its arguments follow. A user namespace makes
/// that possible without being root, where the system allows it.
pub fn bash(script: &str) -> Command {
    let mut command = Command::new(program("unshare", "util-linux"));
    command.args(["--user", "--map-root-user", "--net", "--mount", "bash", "-c", script]);
    command
}

/// Whether the system allows what `script` does there.
pub fn is_allowed(script: &str) -> bool {
    bash(script).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

/// Whether the test named `test` runs in such a network already. If not, it runs there now, and has to pass.
pub fn is_inside(test: &str) -> bool {
    if std::env::var_os(MARK).is_some() {
        return true;
    }
    program("ip", "iproute2");
    if !is_allowed("true") {
        crate::skipped("this system does not allow network namespaces");
        return false;
    }
    let mut command = bash(r#"ip link set lo up && exec "$0" --exact "$1" --nocapture"#);
    command.arg(std::env::current_exe().expect("the path of this program")).arg(test).env(MARK, "1");
    let mut inside = Process::spawn(test, &mut command);
    let code = inside.wait(5 * wait::START);
    println!("{}", inside.stdout());
    assert_eq!(code, 0, "{test}, in a network of its own:\n{}", inside.stderr());
    assert!(inside.stdout().contains("1 passed"), "no test is named {test}");
    false
}
