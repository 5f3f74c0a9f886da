//! Whether a link is idle between pictures. In front of one that is slower than the stream packets always wait: all
//! come as far apart as those of one picture do. Pure.

/// This share of the time, at least, is idle where nothing waits. Where something does, none is.
const IDLE: f64 = 0.7;

/// Large pictures that came longer ago than this weighs say nothing any more.
const FEWEST: f64 = 0.1;

/// How the packets come; the sums of what was lately, older things weigh less.
#[derive(Clone, Copy, Debug)]
pub struct Rhythm {
    /// Over this time packets are looked at, in seconds.
    memory: f64,
    /// Packets, and the seconds before them, in all and of those that are not the first of their picture.
    packets: f64,
    all: f64,
    within_packets: f64,
    within: f64,
}

impl Rhythm {
    pub const fn new(memory: f64) -> Self {
        Self { memory, packets: 0.0, all: 0.0, within_packets: 0.0, within: 0.0 }
    }

    /// A packet came so many seconds after the one before.
    pub fn packet(&mut self, passed: f64, is_first_of_picture: bool) {
        let kept = (1.0 - passed / self.memory).max(0.0);
        let within = if is_first_of_picture { 0.0 } else { 1.0 };
        self.packets = self.packets * kept + 1.0;
        self.all = self.all * kept + passed;
        self.within_packets = self.within_packets * kept + within;
        self.within = self.within * kept + passed * within;
    }

    /// False as well where pictures have one packet each, so that it cannot be told.
    pub fn is_idle_between(&self) -> bool {
        // What the packets would take one behind the other.
        let busy = self.packets * self.within / self.within_packets;
        self.within_packets >= FEWEST && busy <= self.all * (1.0 - IDLE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of pictures of one packet, and a tenth of them of ten, at 20 a second; each packet takes so long.
    fn idle(seconds: u32, packet: f64) -> bool {
        let mut rhythm = Rhythm::new(5.0);
        for picture in 0..seconds * 20 {
            let packets = if picture % 10 == 0 { 10 } else { 1 };
            let rest = (0.05 - f64::from(packets - 1) * packet).max(packet);
            (0..packets).for_each(|i| rhythm.packet(if i == 0 { rest } else { packet }, i == 0));
        }
        rhythm.is_idle_between()
    }

    #[test]
    fn large_pictures_now_and_then_show_it() {
        assert!(idle(10, 0.000_1));
        assert!(!idle(10, 0.026), "they come one behind the other");
    }

    #[test]
    fn without_any_it_cannot_be_told() {
        let mut rhythm = Rhythm::new(5.0);
        (0..1000).for_each(|_| rhythm.packet(0.05, true));
        assert!(!rhythm.is_idle_between());
    }
}
