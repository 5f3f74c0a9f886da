//! A lab: the robot's end, the pilot's end, and the link between them.

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::bridge::{Bridge, Figures};
use crate::ends::End;
use crate::link::{Conditions, Counts, Direction};
use crate::spec::{self, Change, Step};

pub const ROV: &str = "10.88.0.1";
pub const TOPSIDE: &str = "10.88.0.2";
/// Datagrams that do not come for so long are lost.
const SILENCE: Duration = Duration::from_secs(2);

pub struct Lab {
    pub rov: End,
    pub topside: End,
    bridge: Bridge,
}

impl Lab {
    /// A link that passes all at once, whose chances come from `seed`.
    pub fn start(seed: u64) -> Result<Self> {
        let rov = End::create("rov", &format!("{ROV}/24"), "02:00:00:88:00:01")?;
        let topside = End::create("topside", &format!("{TOPSIDE}/24"), "02:00:00:88:00:02")?;
        let taps = (rov.tap.try_clone(), topside.tap.try_clone());
        let (rov_tap, topside_tap) = (taps.0.context("cannot share a TAP")?, taps.1.context("cannot share a TAP")?);
        // The directions do not lose the same frames.
        let (to_topside, to_rov) = (2 * seed, 2 * seed + 1);
        let direction = |seed| Direction::new(Conditions::default(), seed);
        let bridge = Bridge::start(rov_tap, topside_tap, direction(to_topside), direction(to_rov))?;
        Ok(Self { rov, topside, bridge })
    }

    /// Changes the link now, as `spec` says.
    ///
    /// # Errors
    /// When it is not understood.
    pub fn link(&self, spec: &str) -> Result<()> {
        self.change(&spec::link(spec).map_err(anyhow::Error::msg)?);
        Ok(())
    }

    /// Several, with `; ` between them.
    pub fn links(&self, specs: &str) -> Result<()> {
        specs.split("; ").try_for_each(|spec| self.link(spec))
    }

    pub fn change(&self, change: &Change) {
        let apply = |is_meant: bool| move |now| if is_meant { change.apply(now) } else { now };
        self.bridge.change(apply(change.is_to_topside()), apply(change.is_to_rov()));
    }

    /// Does the steps of a script whose time has come, of those from `done` on; gives how many are done, and when the
    /// next is due.
    pub fn follow(&self, script: &[Step], begun: Instant, done: usize) -> (usize, Option<Duration>) {
        let passed = begun.elapsed();
        let due = script[done..].iter().take_while(|step| step.at <= passed);
        let due = due.inspect(|step| self.change(&step.change)).count();
        let next = script.get(done + due).map(|step| step.at.saturating_sub(passed));
        (done + due, next)
    }

    /// How long `count` datagrams of `size` bytes take from the robot's end to the pilot's, one each two milliseconds:
    /// 50 and 99 per cent of them, and the longest. Those that are lost are left out.
    pub fn crossing(&self, count: u32, size: usize) -> Result<[Duration; 3]> {
        let bind = |address: &'static str| move || UdpSocket::bind((address, 0));
        let from = self.rov.enter(bind(ROV))?.context("cannot open a socket at the robot's end")?;
        let to = self.topside.enter(bind(TOPSIDE))?.context("cannot open a socket at the pilot's end")?;
        to.set_read_timeout(Some(SILENCE)).context("cannot set a time limit")?;
        from.connect(to.local_addr()?).context("cannot address the pilot's end")?;
        let base = Instant::now();
        let sender = std::thread::spawn(move || {
            for _ in 0..count {
                let mut datagram = vec![0; size.max(8)];
                datagram[..8].copy_from_slice(&(base.elapsed().as_nanos() as u64).to_ne_bytes());
                // What is not sent does not come.
                let _ = from.send(&datagram);
                std::thread::sleep(Duration::from_millis(2));
            }
        });
        let (mut took, mut buffer) = (Vec::new(), [0; 2048]);
        while took.len() < count as usize
            && let Ok(length @ 8..) = to.recv(&mut buffer[..])
        {
            let mut sent = [0; 8];
            sent.copy_from_slice(&buffer[..8.min(length)]);
            took.push(base.elapsed().saturating_sub(Duration::from_nanos(u64::from_ne_bytes(sent))));
        }
        // It does not panic.
        let _ = sender.join();
        took.sort_unstable();
        let last = took.len().checked_sub(1).context("no datagram crossed the link")?;
        Ok([0.5, 0.99, 1.0].map(|share| took[(last as f64 * share) as usize]))
    }

    /// To topside, and to the robot.
    pub fn counts(&self) -> (Counts, Counts) {
        self.bridge.counts()
    }

    /// For the end of a run.
    pub fn figures(&self) -> Figures {
        self.bridge.figures()
    }
}
