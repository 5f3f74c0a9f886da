//! Who the pilot is, and was: for the bit rate, and for the places of WebRTC and RTSP. Pure.

use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use super::places::SPECTATOR;
use crate::rate_control::{Pilot, ViewerLink};

/// Addresses of earlier pilots that are remembered: while the pilot's computer is away, others are taken for it.
const MAX_FORMER: usize = 4;

pub struct Pilots {
    config: Pilot,
    /// Where their offers came from, in the order in which they first were the pilot.
    former: Vec<Former>,
    /// Counts how often that was noted.
    notes: u64,
    /// The viewer that is the pilot, and whether there were others when that was looked at.
    present: Option<(String, bool)>,
    /// None: nobody watches, as far as is known.
    link: Option<PilotLink>,
}

/// The link over which the pilot watches.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PilotLink {
    /// Bit/s that it is known to carry.
    pub carried: f64,
    /// It has never been full of late, and nothing waits on the way: it may carry more.
    pub is_free: bool,
}

struct Former {
    address: IpAddr,
    /// The number of the note by which it was the pilot last.
    noted: u64,
}

impl Pilots {
    pub fn new(config: Pilot) -> Self {
        Self { config, former: Vec::new(), notes: 0, present: None, link: None }
    }

    /// For several outputs.
    pub fn shared(config: Pilot) -> Arc<Mutex<Self>> {
        Arc::new(Mutex::new(Self::new(config)))
    }

    /// That of `--pilot`.
    pub fn address(&self) -> Option<IpAddr> {
        match self.config {
            Pilot::First => None,
            Pilot::Address(address) => Some(address),
        }
    }

    /// Which of the viewers is the pilot.
    pub fn choose(&self, links: &[ViewerLink]) -> Option<usize> {
        self.config.choose(links)
    }

    /// The pilot's offer came from `address`. Of too many, the one that was the pilot longest ago is forgotten.
    pub fn note(&mut self, address: IpAddr) {
        self.notes += 1;
        if let Some(known) = self.former.iter_mut().find(|former| former.address == address) {
            known.noted = self.notes;
            return;
        }
        if self.former.len() == MAX_FORMER {
            let oldest = self.former.iter().map(|former| former.noted).min();
            self.former.retain(|former| Some(former.noted) != oldest);
        }
        self.former.push(Former { address, noted: self.notes });
    }

    /// The pilot's link; none: nobody watches, as far as is known.
    pub fn link(&self) -> Option<PilotLink> {
        self.link
    }

    pub fn set_link(&mut self, link: Option<PilotLink>) {
        self.link = link;
    }

    pub fn is_present(&self, id: &str) -> bool {
        self.present.as_ref().is_some_and(|(known, _)| known == id)
    }

    /// How much `address` is the pilot's, for [`super::places::gives_way`]: that of `--pilot` before those of earlier
    /// pilots, and of these the first, for which the others stood in.
    pub fn rank(&self, address: IpAddr) -> usize {
        if self.config == Pilot::Address(address) {
            return 0;
        }
        self.former.iter().position(|former| former.address == address).map_or(SPECTATOR, |at| at + 1)
    }

    /// What is to be said where viewer `id` at `address`, one of so many `viewers`, is the pilot: whose link it is
    /// matters where there are several.
    pub fn news(&mut self, id: &str, address: Option<IpAddr>, viewers: usize) -> Option<&'static str> {
        let several = viewers > 1;
        if self.present.as_ref().is_some_and(|(known, was)| known == id && *was == several) {
            return None;
        }
        self.present = Some((id.to_owned(), several));
        several.then_some(match self.config {
            Pilot::First => {
                "bit rate follows this viewer's link, connected longest of those that answer: choose another with \
                 --pilot ADDRESS"
            }
            Pilot::Address(pilot) if address == Some(pilot) => "bit rate follows the link of --pilot",
            Pilot::Address(_) => "bit rate follows this viewer's link while --pilot is not connected",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whose_link_rules_is_said_once_where_there_are_several_viewers() {
        let mut pilots = Pilots::new(Pilot::First);
        let address = Some(IpAddr::from([10, 0, 0, 2]));
        assert_eq!(pilots.news("a", address, 1), None);
        assert!(pilots.news("a", address, 2).is_some_and(|news| news.contains("--pilot ADDRESS")));
        assert_eq!(pilots.news("a", address, 3), None, "it is known");
        assert!(pilots.news("b", None, 2).is_some(), "another one");
        assert_eq!((pilots.news("b", None, 1), pilots.news("b", None, 2).is_some()), (None, true));
        assert!(pilots.is_present("b") && !pilots.is_present("a"));
        let mut named = Pilots::new(Pilot::Address([10, 0, 0, 2].into()));
        assert!(named.news("a", None, 2).is_some_and(|news| news.contains("not connected")));
        assert!(named.news("b", address, 2).is_some_and(|news| news.ends_with("of --pilot")));
    }

    #[test]
    fn who_stands_in_for_the_pilot_does_not_take_its_right_to_a_place() {
        let ip = |host| IpAddr::from([10, 0, 0, host]);
        let mut pilots = Pilots::new(Pilot::First);
        pilots.note(ip(2));
        for other in [3, 4, 3, 4, 5] {
            pilots.note(ip(other));
        }
        pilots.note(ip(2));
        assert_eq!([2, 3, 5, 6].map(|host| pilots.rank(ip(host))), [1, 2, 4, SPECTATOR]);
        for other in [6, 7, 8, 9] {
            pilots.note(ip(other));
            pilots.note(ip(2));
        }
        assert_eq!([2, 3, 7, 8, 9].map(|host| pilots.rank(ip(host))), [1, SPECTATOR, 2, 3, 4], "the latest of them");
        for other in [3, 4, 5, 6] {
            pilots.note(ip(other));
        }
        assert_eq!([2, 6].map(|host| pilots.rank(ip(host))), [SPECTATOR, 4], "who is away for all of that");
        assert_eq!(Pilots::new(Pilot::Address(ip(9))).rank(ip(9)), 0);
    }
}
