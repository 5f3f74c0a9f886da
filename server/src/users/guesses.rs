//! Failed logins of each address, over all its connections: some at once, then one at a time. The same wrong login
//! again is no guess, and does not count: a program with an old password keeps nobody else behind its address out.
//! Pure: takes `now`.
//!
//! Who goes on with different passwords from the pilot's own address takes the few places of those that wait, and so a
//! right password may not get one. To let what is right through before its turn would tell a guesser at once which
//! password is right, as often as it asks; to queue more of them would only be longer. What has been let in goes on
//! without another login, and a token, which cannot be guessed, is judged at once: that is the way out.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Failed logins of an address before it has to wait.
pub const FREE: u32 = 20;
/// From then on one each.
const INTERVAL: Duration = Duration::from_secs(1);
/// Attempts that were under way together, as on several connections, make an address wait so much longer at most.
const MOST_AHEAD: u32 = 9;
/// Addresses that are remembered; that with the fewest failures is forgotten first.
const MAX_ADDRESSES: usize = 256;
/// Wrong logins that are remembered of an address; the oldest is forgotten.
const MAX_WRONG: usize = 16;
/// An address that goes on is named again in the log after so long.
const SAY_AGAIN: Duration = Duration::from_secs(30);

#[derive(Debug, Default)]
pub struct Guesses(HashMap<IpAddr, Debt>);

#[derive(Debug)]
struct Debt {
    /// When all its failures are forgotten: each adds an interval.
    clear_at: Instant,
    said: Option<Instant>,
    wrong: VecDeque<Mark>,
}

/// That of a login: see `Users::mark`.
pub type Mark = [u8; 32];

impl Guesses {
    /// Notes a failed login, and which it was where that is known; true when that is worth a line in the log.
    pub fn failed(&mut self, address: IpAddr, login: Option<Mark>, now: Instant) -> bool {
        if login.is_some_and(|login| self.is_wrong(address, &login, now)) {
            return false;
        }
        self.0.retain(|_, debt| debt.clear_at > now);
        if self.0.len() >= MAX_ADDRESSES && !self.0.contains_key(&address) {
            let least = self.0.iter().min_by_key(|(_, debt)| debt.clear_at).map(|(address, _)| *address);
            least.and_then(|address| self.0.remove(&address));
        }
        let debt = self.0.entry(address).or_insert(Debt { clear_at: now, said: None, wrong: VecDeque::new() });
        debt.wrong.extend(login);
        if debt.wrong.len() > MAX_WRONG {
            debt.wrong.pop_front();
        }
        debt.clear_at = (debt.clear_at + INTERVAL).min(now + INTERVAL * (FREE + MOST_AHEAD));
        let news = debt.said.is_none_or(|said| now.saturating_duration_since(said) >= SAY_AGAIN);
        let say = news && debt.clear_at.saturating_duration_since(now) > INTERVAL * (FREE - 1);
        if say {
            debt.said = Some(now);
        }
        say
    }

    /// Whether this login of the address has failed before, until its failures are forgotten.
    pub fn is_wrong(&self, address: IpAddr, login: &Mark, now: Instant) -> bool {
        self.0.get(&address).is_some_and(|debt| debt.clear_at > now && debt.wrong.contains(login))
    }

    /// How long the address has to wait before it may try once more.
    pub fn wait(&self, address: IpAddr, now: Instant) -> Duration {
        let debt = self.0.get(&address).map(|debt| debt.clear_at.saturating_duration_since(now));
        debt.unwrap_or_default().saturating_sub(INTERVAL * (FREE - 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(host: u8) -> IpAddr {
        [10, 0, 0, host].into()
    }

    /// How often an address that tries all the time gets through within `time`.
    fn tries(guesses: &mut Guesses, start: Instant, time: Duration) -> u32 {
        let steps = (time.as_millis() / 10) as u32;
        let mut count = 0;
        for now in (0..steps).map(|step| start + Duration::from_millis(10) * step) {
            while guesses.wait(ip(9), now).is_zero() {
                guesses.failed(ip(9), None, now);
                count += 1;
            }
        }
        count
    }

    #[test]
    fn an_address_has_some_tries_and_then_one_a_second() {
        let (mut guesses, start) = (Guesses::default(), Instant::now());
        let count = tries(&mut guesses, start, Duration::from_secs(10));
        assert!((FREE + 8..=FREE + 10).contains(&count), "{count}");
        assert!(guesses.wait(ip(8), start).is_zero(), "another address");
        let later = start + Duration::from_secs(60);
        assert_eq!(tries(&mut guesses, later, Duration::from_millis(20)), FREE, "it is forgotten");
    }

    #[test]
    fn however_many_fail_at_once_the_wait_has_a_limit() {
        let (mut guesses, start) = (Guesses::default(), Instant::now());
        (0..FREE * 50).for_each(|_| _ = guesses.failed(ip(9), None, start));
        assert_eq!(guesses.wait(ip(9), start), INTERVAL * (MOST_AHEAD + 1));
    }

    #[test]
    fn only_the_first_of_many_failures_too_many_is_said() {
        let (mut guesses, start) = (Guesses::default(), Instant::now());
        let said = (0..FREE * 2).filter(|_| guesses.failed(ip(9), None, start)).count();
        assert_eq!(said, 1);
    }

    #[test]
    fn many_addresses_take_no_more_than_so_much_memory() {
        let (mut guesses, start) = (Guesses::default(), Instant::now());
        (0..FREE).for_each(|_| _ = guesses.failed(ip(9), None, start));
        (0..1_000_u32).for_each(|n| _ = guesses.failed([10, 1, (n / 250) as u8, (n % 250) as u8].into(), None, start));
        assert!(guesses.0.len() <= MAX_ADDRESSES);
        assert!(!guesses.wait(ip(9), start).is_zero(), "the worst is remembered");
    }

    #[test]
    fn the_same_wrong_login_again_is_no_guess() {
        let (mut guesses, start) = (Guesses::default(), Instant::now());
        (0..FREE * 9).for_each(|_| _ = guesses.failed(ip(9), Some([1; 32]), start));
        assert!(guesses.wait(ip(9), start).is_zero() && guesses.is_wrong(ip(9), &[1; 32], start));
        assert!(!guesses.is_wrong(ip(8), &[1; 32], start) && !guesses.is_wrong(ip(9), &[2; 32], start));
        assert!(!guesses.is_wrong(ip(9), &[1; 32], start + INTERVAL), "it is forgotten");
        (0..100).for_each(|n| _ = guesses.failed(ip(9), Some([n; 32]), start));
        assert!(guesses.0[&ip(9)].wrong.len() <= MAX_WRONG && !guesses.wait(ip(9), start).is_zero());
    }
}
