//! How much the log says of an address: whoever reaches the port decides how often there is something to say. Pure;
//! takes `now`.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

/// So many lines about an address within [`PERIOD`].
pub const LINES: u32 = 32;
pub const PERIOD: Duration = Duration::from_secs(30);
/// Addresses that have lines of their own; all others have theirs together.
const MAX_ADDRESSES: usize = 256;

#[derive(Debug, Default)]
pub struct Lines(HashMap<IpAddr, Period>);

#[derive(Debug)]
struct Period {
    since: Instant,
    lines: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line {
    Written,
    /// The last one of this period, which is to be said.
    Last,
    LeftOut,
}

impl Lines {
    /// What becomes of one more line about the address.
    pub fn next(&mut self, address: IpAddr, now: Instant) -> Line {
        let is_over = |period: &Period| now.saturating_duration_since(period.since) >= PERIOD;
        if self.0.len() >= MAX_ADDRESSES {
            self.0.retain(|_, period| !is_over(period));
        }
        let has_room = self.0.len() < MAX_ADDRESSES || self.0.contains_key(&address);
        let address = if has_room { address } else { Ipv4Addr::UNSPECIFIED.into() };
        let period = self.0.entry(address).or_insert(Period { since: now, lines: 0 });
        if is_over(period) {
            *period = Period { since: now, lines: 0 };
        }
        period.lines = period.lines.saturating_add(1);
        match period.lines {
            ..LINES => Line::Written,
            LINES => Line::Last,
            _ => Line::LeftOut,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_so_many_lines_in_each_period() {
        let (mut lines, start) = (Lines::default(), Instant::now());
        let [noisy, quiet] = [9, 8].map(|host| IpAddr::from([10, 0, 0, host]));
        let mut count = |at| (0..100).filter(|_| lines.next(noisy, start + at) != Line::LeftOut).count() as u32;
        assert_eq!([count(Duration::ZERO), count(PERIOD / 2), count(PERIOD)], [LINES, 0, LINES]);
        assert_eq!(lines.next(quiet, start + PERIOD), Line::Written);
    }

    #[test]
    fn many_addresses_have_lines_together() {
        let (mut lines, start) = (Lines::default(), Instant::now());
        let one_each = (0..10_000_u32).filter(|n| {
            let [.., high, low] = n.to_be_bytes();
            lines.next([10, 1, high, low].into(), start) != Line::LeftOut
        });
        assert_eq!(one_each.count(), MAX_ADDRESSES + LINES as usize);
        assert!(lines.0.len() <= MAX_ADDRESSES + 1);
        assert_eq!(lines.next([10, 2, 0, 1].into(), start + PERIOD), Line::Written, "later there is room again");
    }
}
