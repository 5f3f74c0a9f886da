//! Child processes that end with their test.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tempfile::TempDir;

use crate::wait;

/// Lines of a child's log that a failing test prints.
const LOG_TAIL: usize = 60;

/// A child process with what it wrote so far. Dropping it kills it, and whatever it started, and waits for it.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    ended: Option<ExitStatus>,
    out: Arc<Mutex<Vec<String>>>,
    err: Arc<Mutex<Vec<String>>>,
    readers: Vec<JoinHandle<()>>,
    /// Where it keeps what outlasts it, unless it is told otherwise.
    _state: TempDir,
}

impl Process {
    /// Starts `command`, with nothing on its standard input unless `command` says otherwise. Call it on the test's own
    /// thread: the child is killed when the thread that started it ends.
    pub fn spawn(name: &str, command: &mut Command) -> Self {
        command.stdin(Stdio::null());
        Self::spawn_with_input(name, command)
    }

    /// As [`Self::spawn`], with the standard input that `command` has.
    pub fn spawn_with_input(name: &str, command: &mut Command) -> Self {
        // A group of its own, so that what the child starts can be ended with it, and so that Ctrl+C in the terminal
        // reaches it only through the test.
        let state = TempDir::new().expect("a temporary folder");
        if command.get_envs().all(|(name, _)| name != "XDG_STATE_HOME") {
            command.env("XDG_STATE_HOME", state.path());
        }
        command.process_group(0).stdout(Stdio::piped()).stderr(Stdio::piped());
        // SAFETY: prctl is async-signal-safe and touches no memory of the parent.
        unsafe {
            command.pre_exec(|| {
                // When the test is killed, the child is as well.
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                Ok(())
            });
        }
        let mut child = command.spawn().unwrap_or_else(|error| panic!("cannot start {name} ({command:?}): {error}"));
        let (out, err) = (Arc::default(), Arc::default());
        let readers = vec![
            collect(child.stdout.take().expect("stdout is piped"), Arc::clone(&out)),
            collect(child.stderr.take().expect("stderr is piped"), Arc::clone(&err)),
        ];
        Self { name: name.to_owned(), child, ended: None, out, err, readers, _state: state }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it wrote to standard output so far.
    pub fn stdout(&self) -> String {
        lock(&self.out).join("\n")
    }

    /// What it wrote to standard output since the last call: for who reads a lot, for long.
    pub fn take_stdout(&self) -> Vec<String> {
        std::mem::take(&mut *lock(&self.out))
    }

    /// What it wrote to standard error so far.
    pub fn stderr(&self) -> String {
        lock(&self.err).join("\n")
    }

    /// Waits until standard error has all these texts: it is read a little later than it is written.
    ///
    /// # Panics
    /// When that takes too long.
    pub fn logs(&self, texts: &[&str]) {
        wait::until_true(&format!("{} logs {texts:?}", self.name), wait::SOON, || {
            let log = self.stderr();
            texts.iter().all(|text| log.contains(text))
        });
    }

    /// The first line on standard error that `find` makes something of.
    ///
    /// # Panics
    /// When there is none within `limit`, or the process ends without it.
    pub fn wait_for_line<T>(&mut self, what: &str, limit: Duration, find: impl Fn(&str) -> Option<T>) -> T {
        let what = format!("{}: {what}", self.name);
        wait::until(&what, limit, || {
            let ended = self.poll_exit();
            let found = lock(&self.err).iter().find_map(|line| find(line));
            if let (None, Some(status)) = (&found, ended) {
                panic!("{what}: it ended before that, {status}");
            }
            found
        })
    }

    /// What it takes of the system now.
    pub fn footprint(&self) -> Footprint {
        let folder = PathBuf::from(format!("/proc/{}", self.child.id()));
        let count = |name: &str| std::fs::read_dir(folder.join(name)).expect("a process that runs").count();
        let status = std::fs::read_to_string(folder.join("status")).expect("a process that runs");
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kilobytes = resident.and_then(|text| text.split_whitespace().next()?.parse().ok());
        Footprint { threads: count("task"), files: count("fd"), resident_kb: kilobytes.expect("VmRSS in kB") }
    }

    /// What it has taken of the processor so far (proc_pid_stat(5)).
    pub fn cpu(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).expect("a process that runs");
        // The name of the program, in parentheses, may have spaces in it.
        let fields: Vec<_> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks: f64 = fields[11..13].iter().map(|ticks| ticks.parse::<f64>().expect("clock ticks")).sum();
        // SAFETY: takes a number and gives one.
        Duration::from_secs_f64(ticks / unsafe { libc::sysconf(libc::_SC_CLK_TCK) } as f64)
    }

    /// The UDP ports that it has open now, by `/proc/PID/net/udp`, as its network may be another one, each once.
    pub fn udp_ports(&self) -> Vec<u16> {
        let folder = PathBuf::from(format!("/proc/{}/fd", self.child.id()));
        let links = std::fs::read_dir(folder).expect("a process that runs").flatten();
        let links = links.filter_map(|entry| std::fs::read_link(entry.path()).ok());
        let ours: Vec<_> = links.map(|link| link.to_string_lossy().into_owned()).collect();
        let table = std::fs::read_to_string(format!("/proc/{}/net/udp", self.child.id())).expect("the sockets there");
        // sl, local address, remote address, state, queues, timer, retransmits, user, timeout, inode
        let port = |line: &str| {
            let fields: Vec<_> = line.split_whitespace().collect();
            let is_ours = ours.contains(&format!("socket:[{}]", fields.get(9)?));
            is_ours.then(|| u16::from_str_radix(fields[1].split_once(':')?.1, 16).ok()).flatten()
        };
        let mut ports: Vec<_> = table.lines().filter_map(port).collect();
        ports.sort_unstable();
        ports.dedup();
        ports
    }

    pub fn signal(&self, signal: libc::c_int) {
        assert!(self.ended.is_none(), "{} has ended already", self.name);
        // SAFETY: a system call without pointers. The child is not reaped yet, so the id is still its own.
        let result = unsafe { libc::kill(self.child.id() as libc::pid_t, signal) };
        assert_eq!(result, 0, "signal {signal} to {}: {}", self.name, std::io::Error::last_os_error());
    }

    pub fn is_running(&mut self) -> bool {
        self.ended().is_none()
    }

    /// How it ended; none while it runs.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.poll_exit()
    }

    /// Its exit code, and all that it wrote.
    ///
    /// # Panics
    /// When it is still there after `limit`, or a signal ended it.
    pub fn wait(&mut self, limit: Duration) -> i32 {
        let what = format!("the end of {}", self.name);
        let status = wait::until(&what, limit, || self.poll_exit());
        for reader in self.readers.drain(..) {
            reader.join().expect("a reader does not panic");
        }
        status.code().unwrap_or_else(|| panic!("{} was ended by signal {:?}", self.name, status.signal()))
    }

    /// Sends `signal`, and gives the exit code.
    pub fn stop(&mut self, signal: libc::c_int, limit: Duration) -> i32 {
        self.signal(signal);
        self.wait(limit)
    }

    /// SIGKILL, as a crash or a cut power line would.
    pub fn kill(&mut self) {
        if self.ended.is_none() {
            self.kill_group();
            self.ended = Some(self.child.wait().expect("waiting for a child that was killed"));
        }
    }

    /// True when nothing is left of what this child started.
    pub fn left_nothing(&self) -> bool {
        assert!(self.ended.is_some(), "{} has not ended", self.name);
        // SAFETY: signal 0 only asks. The group's id is free again when the group is empty.
        let result = unsafe { libc::kill(-(self.child.id() as libc::pid_t), 0) };
        result == -1 && std::io::Error::last_os_error().raw_os_error() == Some(libc::ESRCH)
    }

    fn poll_exit(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().expect("waiting for a child");
        }
        self.ended
    }

    fn kill_group(&self) {
        // SAFETY: a system call without pointers. The child leads its group and is not reaped yet, so the id is its
        // own.
        unsafe { libc::kill(-(self.child.id() as libc::pid_t), libc::SIGKILL) };
    }
}

/// Of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Footprint {
    pub threads: usize,
    pub files: usize,
    pub resident_kb: u64,
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        // What the child started may hold the pipes for a moment longer: the readers are not waited for.
        if std::thread::panicking() {
            for (stream, lines) in [("stdout", lock(&self.out)), ("stderr", lock(&self.err))] {
                let from = lines.len().saturating_sub(LOG_TAIL);
                eprintln!("--- {stream} of {} ({} lines):\n{}", self.name, lines.len(), lines[from..].join("\n"));
            }
        }
    }
}

/// The folder of the binaries, `target/<profile>`: tests run from its `deps`, examples from its `examples`.
fn binaries() -> PathBuf {
    let this = std::env::current_exe().expect("the path of this program");
    this.parent().and_then(|folder| folder.parent()).expect("cargo's folders").to_owned()
}

/// The path of one of the workspace's binaries.
///
/// # Panics
/// When it is not built.
pub fn binary(name: &str) -> PathBuf {
    let path = binaries().join(name);
    assert!(path.exists(), "{} is missing: run `cargo build --workspace` first", path.display());
    path
}

/// A program of the system, from `PATH`.
///
/// # Panics
/// When it is not installed; the message says how to get it.
pub fn program(name: &str, package: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file());
    found.unwrap_or_else(|| panic!("{name} is not installed: run `apt-get install {package}` (scripts/test does)"))
}

fn collect(from: impl Read + Send + 'static, into: Arc<Mutex<Vec<String>>>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let mut from = BufReader::new(from);
        let mut line = Vec::new();
        // The end of the pipe, or an error, is the end of the log.
        while from.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
            lock(&into).push(String::from_utf8_lossy(&line).trim_end().to_owned());
            line.clear();
        }
    })
}

fn lock(lines: &Mutex<Vec<String>>) -> MutexGuard<'_, Vec<String>> {
    lines.lock().unwrap_or_else(PoisonError::into_inner)
}
