//! Moves the frames between the two ends, on a thread that wakes up when a frame comes and when one is due.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rov_common::sync::lock;

use crate::link::{Conditions, Counts, Direction};

/// An Ethernet frame is shorter, as the kernel has cut large segments to the device's MTU.
const LARGEST: usize = 2048;
/// The thread gets these ahead of ordinary programs, so that a busy machine does not delay frames.
const PRIORITY: libc::c_int = 10;
/// Enough for 20 minutes of HD video; later frames are not noted.
const LARGEST_LOG: usize = 4_000_000;

/// The link of a run; it ends when it is dropped.
pub struct Bridge {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    link: Mutex<Link>,
    /// Wakes the thread: the conditions are others, or it is to end.
    wake: File,
    stop: AtomicBool,
}

struct Link {
    to_topside: Direction,
    to_rov: Direction,
    /// By how much frames were late, in microseconds.
    late: Vec<u32>,
    refused: u64,
}

/// What the bridge did, in both directions.
#[derive(Clone, Copy, Debug)]
pub struct Figures {
    pub to_topside: Counts,
    pub to_rov: Counts,
    /// How much later than due frames were given to the kernel: 50 and 99 per cent of them, and the latest.
    pub late: [Duration; 3],
    /// Frames that the kernel did not take.
    pub refused: u64,
}

impl Bridge {
    pub fn start(rov: File, topside: File, to_topside: Direction, to_rov: Direction) -> Result<Self> {
        // SAFETY: eventfd gives a new descriptor, or -1.
        let wake = unsafe { libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC) };
        if wake < 0 {
            return Err(io::Error::last_os_error()).context("cannot make an eventfd");
        }
        // SAFETY: the descriptor is new, so that nobody else has it.
        let wake = unsafe { File::from_raw_fd(wake) };
        let link = Mutex::new(Link { to_topside, to_rov, late: Vec::new(), refused: 0 });
        let shared = Arc::new(Shared { link, wake, stop: AtomicBool::new(false) });
        let thread = {
            let shared = Arc::clone(&shared);
            std::thread::Builder::new().name("netlab-bridge".to_owned()).spawn(move || shared.run(&rov, &topside))
        };
        Ok(Self { shared, thread: Some(thread.context("cannot start the thread of the bridge")?) })
    }

    /// Sets what the directions do from now on: each is given what it does, and gives what it is to do.
    pub fn change(
        &self,
        to_topside: impl FnOnce(Conditions) -> Conditions,
        to_rov: impl FnOnce(Conditions) -> Conditions,
    ) {
        let mut link = lock(&self.shared.link);
        let now = Instant::now();
        let conditions = to_topside(link.to_topside.conditions());
        link.to_topside.set(now, conditions);
        let conditions = to_rov(link.to_rov.conditions());
        link.to_rov.set(now, conditions);
        drop(link);
        self.shared.wake();
    }

    /// To topside, and to the robot.
    pub fn counts(&self) -> (Counts, Counts) {
        let link = lock(&self.shared.link);
        (link.to_topside.counts, link.to_rov.counts)
    }

    /// Takes its time with many frames: for the end of a run.
    pub fn figures(&self) -> Figures {
        let link = lock(&self.shared.link);
        let (to_topside, to_rov, refused) = (link.to_topside.counts, link.to_rov.counts, link.refused);
        let mut late = link.late.clone();
        drop(link);
        late.sort_unstable();
        let at = |share: f64| late.get(((late.len() as f64 - 1.0) * share) as usize).copied().unwrap_or(0);
        let late = [0.5, 0.99, 1.0].map(|share| Duration::from_micros(at(share).into()));
        Figures { to_topside, to_rov, late, refused }
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.shared.wake();
        if let Some(thread) = self.thread.take() {
            // A panic of it has been printed.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn wake(&self) {
        // The counter of an eventfd is never full here: the thread reads it.
        let _ = (&self.wake).write(&1_u64.to_ne_bytes());
    }

    fn run(&self, rov: &File, topside: &File) {
        be_prompt();
        let mut buffer = [0; LARGEST];
        while !self.stop.load(Ordering::Relaxed) {
            let next = {
                let mut link = lock(&self.link);
                while let Ok(length) = (&*rov).read(&mut buffer) {
                    link.to_topside.offer(Instant::now(), buffer[..length].to_vec());
                }
                while let Ok(length) = (&*topside).read(&mut buffer) {
                    link.to_rov.offer(Instant::now(), buffer[..length].to_vec());
                }
                link.deliver(rov, topside);
                [link.to_topside.next(), link.to_rov.next()].into_iter().flatten().min()
            };
            self.sleep(rov, topside, next);
        }
    }

    /// Until a frame comes, the conditions change, or `next`.
    fn sleep(&self, rov: &File, topside: &File, next: Option<Instant>) {
        let poll = |file: &File| libc::pollfd { fd: file.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        let mut files = [poll(rov), poll(topside), poll(&self.wake)];
        let left = next.map(|next| next.saturating_duration_since(Instant::now()));
        let left = left.map(|left| libc::timespec {
            tv_sec: left.as_secs() as libc::time_t,
            tv_nsec: left.subsec_nanos() as libc::c_long,
        });
        let timeout = left.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
        // SAFETY: the array and the time live until the call returns; no signal mask is given. An error is a signal: it
        // goes on.
        unsafe { libc::ppoll(files.as_mut_ptr(), files.len() as libc::nfds_t, timeout, std::ptr::null()) };
        let _ = (&self.wake).read(&mut [0; 8]);
    }
}

impl Link {
    fn deliver(&mut self, rov: &File, topside: &File) {
        for (direction, to) in [(&mut self.to_topside, topside), (&mut self.to_rov, rov)] {
            while let Some((due, frame)) = direction.take(Instant::now()) {
                let late = due.elapsed();
                self.refused += u64::from((&*to).write(&frame).is_err());
                if self.late.len() < LARGEST_LOG {
                    self.late.push(u32::try_from(late.as_micros()).unwrap_or(u32::MAX));
                }
            }
        }
    }
}

/// Where the system does not allow it, the figures of lateness tell what that does.
fn be_prompt() {
    let priority = libc::sched_param { sched_priority: PRIORITY };
    // SAFETY: 0 is this thread, and the parameter lives until the call returns. One nanosecond of timer slack: the
    // default of 50 microseconds is for saving power.
    unsafe {
        libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const priority);
        libc::prctl(libc::PR_SET_TIMERSLACK, 1);
    }
}
