//! `netlab run`: any commands at the two ends.

use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Args;

use crate::ends::End;
use crate::lab::{Lab, ROV, TOPSIDE};
use crate::link::Counts;
use crate::spec::{self, Change};

/// Both ends are looked at so often.
const TICK: Duration = Duration::from_millis(20);
/// After SIGTERM.
const END: Duration = Duration::from_secs(5);

#[derive(Args, Debug)]
#[command(after_help = spec::HELP)]
pub struct RunArgs {
    /// What the link does, as 'to-topside delay=2ms loss=1%'; may be given several times [default: it passes all at
    /// once]
    #[arg(long = "link", value_name = "LINK", value_parser = spec::link)]
    links: Vec<Change>,

    /// Changes of the link over time, from the start of the commands on
    #[arg(long, value_name = "FILE")]
    script: Option<PathBuf>,

    /// Of the losses and all other chances
    #[arg(long, default_value_t = 1)]
    seed: u64,

    /// End after so many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    seconds: u64,

    /// Shell command at the robot's end, 10.88.0.1
    #[arg(long, value_name = "COMMAND")]
    rov: Option<String>,

    /// Shell command at the pilot's end, 10.88.0.2; the run ends when it ends
    #[arg(long, value_name = "COMMAND")]
    topside: Option<String>,
}

/// Set by a signal: the run is to end.
static STOPPED: AtomicBool = AtomicBool::new(false);

/// The exit code is that of the topside command, or 0.
pub fn run(args: &RunArgs) -> Result<u8> {
    let script = match &args.script {
        Some(file) => {
            let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
            spec::script(&text).map_err(|error| anyhow::anyhow!("{}, {error}", file.display()))?
        }
        None => Vec::new(),
    };
    let lab = Lab::start(args.seed)?;
    for change in &args.links {
        lab.change(change);
    }
    eprintln!("netlab: rov is {ROV}, topside is {TOPSIDE}; ends after {} s, or by Ctrl+C", args.seconds);
    stop_on_signals();
    let mut rov = args.rov.as_ref().map(|command| Shell::start("rov", &lab.rov, command)).transpose()?;
    let mut topside =
        args.topside.as_ref().map(|command| Shell::start("topside", &lab.topside, command)).transpose()?;
    let (begun, mut done) = (Instant::now(), 0);
    let limit = Duration::from_secs(args.seconds);
    let mut code = 0;
    while begun.elapsed() < limit && !is_stopped() {
        let next;
        (done, next) = lab.follow(&script, begun, done);
        if let Some(status) = topside.as_mut().and_then(Shell::ended) {
            code = status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1);
            break;
        }
        if let Some(rov) = &mut rov {
            rov.ended();
        }
        std::thread::sleep(next.unwrap_or(TICK).min(TICK));
    }
    for shell in [topside, rov].into_iter().flatten() {
        shell.stop();
    }
    let figures = lab.figures();
    print_counts("to topside", &figures.to_topside);
    print_counts("to rov", &figures.to_rov);
    let [p50, p99, max] = figures.late;
    eprintln!("netlab: frames left later than due by {p50:?} (p50), {p99:?} (p99), {max:?} (max)");
    Ok(code)
}

fn print_counts(way: &str, counts: &Counts) {
    eprintln!(
        "netlab: {way}: {} frames ({} kB) in, {} out, {} lost, {} overflowed, {} cut by outages, {} doubled, {} held \
         back",
        counts.offered,
        counts.offered_bytes / 1000,
        counts.delivered,
        counts.lost,
        counts.overflowed,
        counts.cut,
        counts.duplicated,
        counts.held_back
    );
}

/// A shell command at an end, with all that it starts.
struct Shell {
    name: &'static str,
    child: Child,
    ended: Option<ExitStatus>,
}

impl Shell {
    fn start(name: &'static str, end: &End, text: &str) -> Result<Self> {
        // In a PID namespace, so that whatever the command starts ends with it, even when this program is killed.
        let mut command = Command::new("unshare");
        command.args(["--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", text]).process_group(0);
        end.place(&mut command);
        // SAFETY: prctl is async-signal-safe and touches no memory of the parent.
        unsafe {
            command.pre_exec(|| {
                // When this program is killed, the command is as well.
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                Ok(())
            });
        }
        let child =
            command.spawn().with_context(|| format!("cannot run unshare (of util-linux) for the command of {name}"))?;
        Ok(Self { name, child, ended: None })
    }

    /// Whether it has ended; said once.
    fn ended(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() {
            // An error is that it has been waited for, which happens here alone.
            self.ended = self.child.try_wait().ok().flatten();
            if let Some(status) = self.ended {
                let how = status.signal().map_or(status.to_string(), |signal| format!("signal {signal}"));
                eprintln!("netlab: the command of {} ended: {how}", self.name);
            }
        }
        self.ended
    }

    /// SIGTERM to all that it started, and SIGKILL to what does not end by it.
    fn stop(mut self) {
        let group = -(self.child.id() as libc::pid_t);
        if self.ended.is_none() {
            // SAFETY: system calls without pointers; the child leads its group and is not reaped yet.
            unsafe { libc::kill(group, libc::SIGTERM) };
            let end = Instant::now() + END;
            while self.child.try_wait().is_ok_and(|ended| ended.is_none()) && Instant::now() < end {
                std::thread::sleep(TICK);
            }
        }
        // SAFETY: as above; members of the group may be left, in which case its id is still taken.
        unsafe { libc::kill(group, libc::SIGKILL) };
        let _ = self.child.wait();
    }
}

/// Whether a signal has come that asks this program to end.
pub fn is_stopped() -> bool {
    STOPPED.load(Ordering::Relaxed)
}

/// From now on such a signal does no more than that.
pub fn stop_on_signals() {
    extern "C" fn stop(_: libc::c_int) {
        STOPPED.store(true, Ordering::Relaxed);
    }
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        // SAFETY: the handler only stores to an atomic.
        unsafe { libc::signal(signal, stop as extern "C" fn(libc::c_int) as libc::sighandler_t) };
    }
}
