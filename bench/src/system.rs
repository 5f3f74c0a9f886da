//! What the benchmark asks of the system: a network of its own, the cost of a process, and that Ctrl+C ends it in
//! order.

use std::io;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

static STOPPED: AtomicBool = AtomicBool::new(false);

extern "C" fn note_signal(_: libc::c_int) {
    STOPPED.store(true, Ordering::Relaxed);
}

/// From now on Ctrl+C and SIGTERM end the next [`pause`] or [`wait_for`], so that everything is stopped on the way out.
pub fn watch_signals() {
    let handler = note_signal as extern "C" fn(libc::c_int) as libc::sighandler_t;
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        // SAFETY: the handler only stores into an atomic.
        unsafe { libc::signal(signal, handler) };
    }
}

/// Waits; an error when the user wants the end.
pub fn pause(time: Duration) -> Result<()> {
    const SLICE: Duration = Duration::from_millis(50);
    let end = Instant::now() + time;
    loop {
        if STOPPED.load(Ordering::Relaxed) {
            bail!("stopped by a signal");
        }
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        std::thread::sleep(left.min(SLICE));
    }
}

/// What `poll` gives, within `limit`.
pub fn wait_for<T>(what: &str, limit: Duration, mut poll: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let end = Instant::now() + limit;
    loop {
        if let Some(value) = poll()? {
            return Ok(value);
        }
        if Instant::now() >= end {
            bail!("{what}: not within {} s", limit.as_secs());
        }
        pause(Duration::from_millis(2))?;
    }
}

/// Moves this process, which must have no other threads yet, into a network that has only loopback. So nothing gets
/// out, the counters of loopback are this run's alone, and every port is free.
pub fn enter_own_network() -> Result<()> {
    // SAFETY: plain system calls.
    let (user, group) = unsafe { (libc::geteuid(), libc::getegid()) };
    let flags = if user == 0 { libc::CLONE_NEWNET } else { libc::CLONE_NEWNET | libc::CLONE_NEWUSER };
    // SAFETY: as above; single-threaded.
    if unsafe { libc::unshare(flags) } != 0 {
        return Err(io::Error::last_os_error()).context("a network of its own (root can have one)");
    }
    if user != 0 {
        // Root in it, as whom loopback can be switched on.
        std::fs::write("/proc/self/setgroups", "deny").context("/proc/self/setgroups")?;
        std::fs::write("/proc/self/uid_map", format!("0 {user} 1")).context("/proc/self/uid_map")?;
        std::fs::write("/proc/self/gid_map", format!("0 {group} 1")).context("/proc/self/gid_map")?;
    }
    loopback_up().context("switching loopback on")
}

fn loopback_up() -> io::Result<()> {
    // SAFETY: an ifreq of zeros is valid; name and flags fit into it, and the socket is closed again.
    unsafe {
        let socket = libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0);
        if socket < 0 {
            return Err(io::Error::last_os_error());
        }
        let mut request: libc::ifreq = std::mem::zeroed();
        for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
            *to = *from as libc::c_char;
        }
        request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
        let result = libc::ioctl(socket, libc::SIOCSIFFLAGS, &request);
        let error = io::Error::last_os_error();
        libc::close(socket);
        if result == 0 { Ok(()) } else { Err(error) }
    }
}

/// The path of a program of the system.
pub fn program(name: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file());
    found.with_context(|| format!("{name} is not installed (scripts/bench installs it on Debian and Ubuntu)"))
}

/// What a process and all that it has started have used so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// Processor time of all threads, those that have ended as well.
    pub cpu: Duration,
    /// Of it that of threads which run no GStreamer element: sockets, encryption, HTTP.
    pub network_cpu: Duration,
    /// Memory in use now.
    pub resident_bytes: u64,
}

/// Of the process group that `leader` leads, as every process of `rov_tests::process` does.
pub fn usage(leader: u32) -> Result<Usage> {
    let mut sum = Usage::default();
    for entry in std::fs::read_dir("/proc").context("/proc")?.flatten() {
        // What ends in the meantime has no file any more.
        let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        if let Some((group, usage)) = parse_stat(&stat)
            && group == leader
        {
            sum.cpu += usage.cpu;
            sum.network_cpu += network_cpu(&entry.path());
            sum.resident_bytes += usage.resident_bytes;
        }
    }
    ensure!(sum.resident_bytes > 0, "process {leader} has ended");
    Ok(sum)
}

/// GStreamer names its threads `element:pad`, and what these start has their name.
fn network_cpu(process: &Path) -> Duration {
    let threads = std::fs::read_dir(process.join("task")).into_iter().flatten().flatten();
    let stats = threads.filter_map(|thread| std::fs::read_to_string(thread.path().join("stat")).ok());
    let others = stats.filter(|stat| stat.rsplit_once(')').is_some_and(|(name, _)| !name.contains(':')));
    others.filter_map(|stat| Some(parse_stat(&stat)?.1.cpu)).sum()
}

/// Process group and usage (proc(5)), of a process or a thread. The second field may have spaces in it, and ends with
/// the last parenthesis.
fn parse_stat(stat: &str) -> Option<(u32, Usage)> {
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    // The first of these is field 3.
    let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
    // SAFETY: both only ask for constants.
    let (ticks, page) = unsafe { (libc::sysconf(libc::_SC_CLK_TCK), libc::sysconf(libc::_SC_PAGESIZE)) };
    let cpu = Duration::from_millis((number(14)? + number(15)?) * 1000 / ticks.max(1) as u64);
    let resident_bytes = number(24)? * page.max(0) as u64;
    Some((u32::try_from(number(5)?).ok()?, Usage { cpu, network_cpu: Duration::ZERO, resident_bytes }))
}

/// A port on loopback that nobody has now; even, as RTP wants it.
pub fn free_port() -> Result<u16> {
    for _ in 0..100 {
        let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = udp.local_addr()?.port();
        let next = UdpSocket::bind((Ipv4Addr::LOCALHOST, port.wrapping_add(1)));
        if port.is_multiple_of(2) && next.is_ok() && TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no free port on loopback")
}

/// Bytes that an interface of this thread's network has received and sent, with the headers of IP and Ethernet.
pub fn interface_bytes(interface: &str) -> Result<[u64; 2]> {
    const FILE: &str = "/proc/thread-self/net/dev";
    let text = std::fs::read_to_string(FILE).context(FILE)?;
    bytes(&text, interface).with_context(|| format!("no {interface} in {FILE}"))
}

fn bytes(table: &str, interface: &str) -> Option<[u64; 2]> {
    let row = table.lines().find_map(|line| line.trim().strip_prefix(interface)?.strip_prefix(':'))?;
    let column = |index: usize| row.split_whitespace().nth(index)?.parse().ok();
    Some([column(0)?, column(8)?])
}

/// The machine in words, as `2 x AMD EPYC, Linux 6.1, GStreamer 1.22.0`.
pub fn machine() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = text.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ").map(|(_, name)| name));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let gstreamer = gstreamer::version_string();
    format!("{cores} cores ({}), Linux {}, {gstreamer}", model.unwrap_or("?").trim(), kernel.trim())
}

/// Today, in UTC.
pub fn date() -> String {
    let now = gstreamer::glib::DateTime::now_utc().and_then(|now| now.format("%Y-%m-%d"));
    now.map_or_else(|_| String::new(), |date| date.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usage_is_found_behind_any_name() {
        let stat = "4321 (a) b) S 1 77 3 4 5 6 7 8 9 10 700 42 0 0 20 0 9 0 100 1 3 5";
        let (group, usage) = parse_stat(stat).unwrap();
        assert_eq!(group, 77);
        assert!(usage.cpu >= Duration::from_millis(742) && usage.resident_bytes >= 3 * 4096);
        assert!(parse_stat("1 (x) R").is_none() && parse_stat("").is_none());
    }

    #[test]
    fn a_process_counts_with_what_it_has_started() {
        let mut command = std::process::Command::new("sh");
        command.args(["-c", "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done & wait; exec sleep 60"]);
        let process = rov_tests::process::Process::spawn("sh", &mut command);
        let used = wait_for("some processor time", Duration::from_secs(30), || {
            Ok(Some(usage(process.pid())?).filter(|usage| usage.cpu > Duration::from_millis(50)))
        });
        assert!(used.unwrap().resident_bytes > 0);
    }

    #[test]
    fn the_bytes_of_an_interface_are_read_in_both_directions() {
        let table = "Inter-|   Receive  |  Transmit\n face |bytes packets|bytes\n  lo2: 1 2 3 4 5 6 7 8 9 10\n    lo: \
                     100 2 0 0 0 0 0 0 200 3 0 0 0 0 0 0\n";
        assert_eq!(bytes(table, "lo"), Some([100, 200]));
        assert_eq!(bytes(table, "eth0"), None);
    }
}
