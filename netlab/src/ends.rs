//! The two ends of the link: network namespaces that only this process holds, so that nothing is left of them when it
//! ends, however it ends. In each a TAP device, whose frames this process moves.

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Context, Result, bail};

/// The TAP device of each end, named as a port of a computer is.
pub const DEVICE: &str = "eth0";

/// From `linux/if_tun.h`: set the interface of an open `/dev/net/tun`.
const TUNSETIFF: libc::c_ulong = 0x4004_54ca;

/// One end: what runs in it has only loopback and the link.
pub struct End {
    name: &'static str,
    namespace: OwnedFd,
    /// Frames are read from it and written to it, one at a time; it does not block.
    pub tap: File,
}

impl End {
    /// `address` as 10.88.0.1/24; `mac` of the device.
    pub fn create(name: &'static str, address: &str, mac: &str) -> Result<Self> {
        // The thread that does it ends with it, as it cannot come back.
        let made = std::thread::scope(|scope| scope.spawn(create).join());
        let Ok(made) = made else { bail!("cannot make the network of {name}: the thread that does it panicked") };
        let (namespace, tap) = made?;
        let end = Self { name, namespace, tap };
        end.ip(&["link", "set", "lo", "up"])?;
        // IPv6 would send packets of its own that make runs differ.
        end.ip(&["link", "set", DEVICE, "addrgenmode", "none"])?;
        end.ip(&["link", "set", DEVICE, "address", mac, "txqueuelen", "10000", "up"])?;
        end.ip(&["address", "add", address, "broadcast", "+", "dev", DEVICE])?;
        // A pilot's computer has a default route, which multicast and 255.255.255.255 need.
        end.ip(&["route", "add", "default", "dev", DEVICE])?;
        Ok(end)
    }

    /// A command that will run in this end. It must be started by the process that has this.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        self.place(&mut command);
        command
    }

    /// Has `command` run in this end, while this exists.
    pub fn place(&self, command: &mut Command) {
        let namespace = self.namespace.as_raw_fd();
        // SAFETY: setns is a system call without pointers, and the descriptor is open until the child is started.
        unsafe {
            command.pre_exec(move || match libc::setns(namespace, libc::CLONE_NEWNET) {
                0 => Ok(()),
                _ => Err(io::Error::last_os_error()),
            });
        }
    }

    /// Runs `ip` here.
    pub fn ip(&self, args: &[&str]) -> Result<()> {
        let what = || format!("ip {} in the network of {}", args.join(" "), self.name);
        let output = self.command("ip").args(args).output();
        let output = output.with_context(|| format!("cannot run {}: is iproute2 installed?", what()))?;
        if !output.status.success() {
            bail!("{}: {}", what(), String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(())
    }

    /// What `work` gives, done by a thread in this end.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        let entered = std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                // SAFETY: a system call without pointers; it changes this thread alone, which ends here.
                match unsafe { libc::setns(self.namespace.as_raw_fd(), libc::CLONE_NEWNET) } {
                    0 => Ok(work()),
                    _ => Err(io::Error::last_os_error()),
                }
            });
            thread.join()
        });
        match entered {
            Ok(result) => result.with_context(|| format!("cannot enter the network of {}", self.name)),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}

/// Why there can be no lab on this machine, if so.
pub fn obstacle() -> Option<String> {
    let made = std::thread::scope(|scope| scope.spawn(create).join());
    // A panic has been printed; whoever starts a lab gets it too.
    Some(format!("{:#}", made.ok()?.err()?))
}

const ADVICE: &str = "run it as root (sudo), or in a user namespace: unshare --user --map-root-user COMMAND";

/// A namespace of this thread's own, and its TAP device.
fn create() -> Result<(OwnedFd, File)> {
    // SAFETY: a system call without pointers; it changes this thread alone.
    if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
        let error = io::Error::last_os_error();
        return Err(error).context(format!("cannot make a network namespace, which needs root: {ADVICE}"));
    }
    let namespace = File::open("/proc/thread-self/ns/net").context("cannot open the new network namespace")?;
    Ok((namespace.into(), tap(c"eth0")?))
}

fn tap(name: &CStr) -> Result<File> {
    let tap = File::options().read(true).write(true).open("/dev/net/tun");
    let tap = tap.context(
        "cannot open /dev/net/tun, of which the link is made: load the module (modprobe tun), and in a container pass \
         the device in (docker run --cap-add NET_ADMIN --device /dev/net/tun)",
    )?;
    // SAFETY: all zeros is a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.to_bytes()) {
        *to = *from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI) as libc::c_short;
    // SAFETY: the request reads and writes one ifreq, and F_SETFL sets a flag of an open descriptor.
    let result = unsafe {
        match libc::ioctl(tap.as_raw_fd(), TUNSETIFF, std::ptr::from_mut(&mut request)) {
            0 => libc::fcntl(tap.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK),
            error => error,
        }
    };
    if result != 0 {
        let error = io::Error::last_os_error();
        return Err(error).context(format!("cannot make a TAP device, which needs root: {ADVICE}"));
    }
    Ok(tap)
}
