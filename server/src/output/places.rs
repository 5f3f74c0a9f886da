//! Who gives way to a new viewer by WebRTC or RTSP where all places are taken. Pure; takes `now`.
//!
//! Anybody can send offers and never connect. So a viewer that has not connected gives way: of the address that has
//! most of them, the oldest. And the pilot always gets a place, if need be that of a spectator. Who watches gives way
//! only to somebody of a higher rank, or once it is silent to its own address, so that two never displace each other in
//! turn. By RTSP, who does not play has not connected, and gives way at once.

use std::cmp::Reverse;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// A viewer that has not connected by then gives way to one of an address that has no fewer places. On a LAN it takes a
/// quarter of a second.
const TENURE: Duration = Duration::from_secs(2);

/// A place that a viewer has.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// Where its offer came from.
    pub address: IpAddr,
    /// Since when this viewer has it, or those of the same address that gave way to it.
    pub since: Instant,
    pub state: PlaceState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlaceState {
    /// `checked`: connectivity checks of it have come.
    Connecting { checked: bool },
    /// By RTSP: it does not play, which takes players one more request.
    Idle,
    /// `silent`: nothing was heard of it for a while.
    Connected { silent: bool, pilot: bool },
}

/// The rank of an address that the pilot's computer never had.
pub const SPECTATOR: usize = usize::MAX;

/// Which of `places` is to be given to a new viewer from `newcomer`; none: it is refused. `rank` of an address: the
/// smaller, the more it is the pilot's, up to [`SPECTATOR`].
pub fn gives_way(now: Instant, places: &[Place], newcomer: IpAddr, rank: impl Fn(IpAddr) -> usize) -> Option<usize> {
    let is_connecting = |place: &Place| matches!(place.state, PlaceState::Connecting { .. } | PlaceState::Idle);
    let connecting = |address| places.iter().filter(|p| is_connecting(p) && p.address == address).count();
    let outranks = |address| rank(newcomer) < rank(address);
    let would_have = connecting(newcomer) + 1;
    let waits = places.iter().enumerate().filter_map(|(at, place)| {
        let (checked, is_idle) = match place.state {
            PlaceState::Connecting { checked } => (checked, false),
            PlaceState::Idle => (false, true),
            PlaceState::Connected { .. } => return None,
        };
        let many = connecting(place.address);
        let overdue = now.saturating_duration_since(place.since) >= TENURE;
        // Many addresses that take turns would keep all places.
        let idle = is_idle && rank(newcomer) <= rank(place.address);
        let may = outranks(place.address) || place.address == newcomer || many > would_have || overdue || idle;
        may.then_some(((Reverse(many), Reverse(rank(place.address)), checked, place.since, at), at))
    });
    if let Some((_, at)) = waits.min() {
        return Some(at);
    }
    let of = |address| places.iter().filter(|place| place.address == address).count();
    let spectators = places.iter().enumerate().filter_map(|(at, place)| {
        let PlaceState::Connected { silent, pilot } = place.state else { return None };
        let is_of_its_own = rank(newcomer) != SPECTATOR && rank(newcomer) <= rank(place.address);
        let may = outranks(place.address) || silent && is_of_its_own;
        may.then_some(((pilot && !silent, !silent, Reverse(of(place.address)), Reverse(place.since), at), at))
    });
    spectators.min().map(|(_, at)| at)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PILOT: u8 = 2;
    const OTHER: u8 = 3;
    /// Who was taken for the pilot while that was away.
    const FORMER: u8 = 7;
    const HOSTILE: u8 = 66;

    fn ip(host: u8) -> IpAddr {
        [10, 0, 0, host].into()
    }

    struct World {
        start: Instant,
        places: Vec<Place>,
    }

    impl World {
        fn new() -> Self {
            Self { start: Instant::now(), places: Vec::new() }
        }

        fn at(&self, ms: u64) -> Instant {
            self.start + Duration::from_millis(ms)
        }

        fn with(mut self, host: u8, ms: u64, state: PlaceState) -> Self {
            self.places.push(Place { address: ip(host), since: self.at(ms), state });
            self
        }

        fn offer(&self, host: u8, ms: u64) -> Option<usize> {
            let rank = |address| match address {
                _ if address == ip(PILOT) => 1,
                _ if address == ip(FORMER) => 2,
                _ => SPECTATOR,
            };
            gives_way(self.at(ms), &self.places, ip(host), rank)
        }
    }

    const NEW: PlaceState = PlaceState::Connecting { checked: false };
    const CHECKED: PlaceState = PlaceState::Connecting { checked: true };
    const WATCHES: PlaceState = PlaceState::Connected { silent: false, pilot: false };
    const SILENT: PlaceState = PlaceState::Connected { silent: true, pilot: false };
    const PILOTS: PlaceState = PlaceState::Connected { silent: false, pilot: true };

    #[test]
    fn the_oldest_of_the_address_that_has_most_gives_way() {
        let world = World::new().with(OTHER, 0, NEW).with(HOSTILE, 20, NEW).with(HOSTILE, 10, NEW).with(4, 5, WATCHES);
        assert_eq!(world.offer(5, 100), Some(2), "to anybody");
        assert_eq!(world.offer(HOSTILE, 100), Some(2), "to its own");
        let world = World::new().with(HOSTILE, 20, NEW).with(HOSTILE, 10, CHECKED).with(HOSTILE, 30, NEW);
        assert_eq!(world.offer(OTHER, 100), Some(0), "one that has begun to connect goes last");
    }

    #[test]
    fn nobody_is_pushed_out_while_it_connects_by_an_address_that_would_have_as_many() {
        let world = World::new().with(OTHER, 0, CHECKED).with(4, 0, WATCHES);
        assert_eq!(world.offer(HOSTILE, 1_999), None);
        assert_eq!(world.offer(HOSTILE, 2_000), Some(0), "it has had its time");
        let world = World::new().with(OTHER, 0, NEW).with(HOSTILE, 0, NEW);
        assert_eq!(world.offer(HOSTILE, 100), Some(1), "its own, again and again");
        let world = World::new().with(OTHER, 500, NEW).with(HOSTILE, 0, NEW);
        assert_eq!(world.offer(5, 2_000), Some(1), "and it loses the place in the end");
    }

    #[test]
    fn by_rtsp_who_does_not_play_gives_way_at_once() {
        let world = World::new().with(OTHER, 10, PlaceState::Idle).with(4, 0, PlaceState::Idle).with(6, 0, WATCHES);
        assert_eq!(world.offer(5, 20), Some(1), "the oldest");
        let world = World::new().with(PILOT, 0, PlaceState::Idle);
        assert_eq!(world.offer(OTHER, 20), None, "not the pilot, who is about to play");
        assert_eq!(world.offer(OTHER, 2_000), Some(0));
    }

    #[test]
    fn who_watches_gives_way_to_the_pilot_alone() {
        let world = World::new().with(4, 0, WATCHES).with(OTHER, 10, WATCHES).with(OTHER, 5, WATCHES);
        assert_eq!(world.offer(5, 60_000), None);
        assert_eq!(world.offer(PILOT, 60_000), Some(1), "the last to come, of the address that has most");
        let world = World::new().with(4, 0, SILENT).with(OTHER, 10, WATCHES).with(OTHER, 5, WATCHES);
        assert_eq!(world.offer(PILOT, 60_000), Some(0), "who is gone already before others");
        let world = World::new().with(PILOT, 0, PILOTS).with(4, 10, WATCHES);
        assert_eq!(world.offer(PILOT, 60_000), Some(1), "the pilot's own picture last");
        assert_eq!(World::new().with(4, 0, PILOTS).offer(PILOT, 1), Some(0), "who only stands in for the pilot");
        let world = World::new().with(4, 0, WATCHES).with(OTHER, 100, CHECKED);
        assert_eq!(world.offer(PILOT, 101), Some(1), "before that, who has not connected");
    }

    #[test]
    fn two_never_displace_each_other_in_turn() {
        let world = World::new().with(PILOT, 0, PILOTS).with(PILOT, 10, WATCHES);
        assert_eq!(world.offer(PILOT, 60_000), None, "a third page of the pilot's");
        let world = World::new().with(PILOT, 0, PILOTS).with(PILOT, 10, SILENT);
        assert_eq!(world.offer(PILOT, 60_000), Some(1), "its own that is gone");
        let world = World::new().with(FORMER, 0, PILOTS);
        assert_eq!(world.offer(PILOT, 60_000), Some(0), "the pilot is back");
        let world = World::new().with(PILOT, 0, PILOTS);
        assert_eq!(world.offer(FORMER, 60_000), None, "and stays");
        let world = World::new().with(PILOT, 0, PlaceState::Connected { silent: true, pilot: true });
        assert_eq!(world.offer(FORMER, 60_000), None, "in a short outage, too");
        assert_eq!(world.offer(PILOT, 60_000), Some(0), "who starts again");
        let world = World::new().with(PILOT, 0, CHECKED);
        assert_eq!(world.offer(FORMER, 100), None, "while it connects, too");
    }

    #[test]
    fn offers_by_the_hundred_take_no_place_from_who_connects() {
        let mut world = World::new();
        for i in 0..16 {
            world = world.with(HOSTILE, i * 12, NEW);
        }
        let place = world.offer(OTHER, 200).expect("a place");
        world.places[place] = Place { address: ip(OTHER), since: world.at(200), state: NEW };
        for i in 0..1_000 {
            let ms = 201 + i * 12;
            let at = world.offer(HOSTILE, ms).expect("one of its own");
            assert_ne!(at, place, "{ms} ms");
            world.places[at] = Place { address: ip(HOSTILE), since: world.places[at].since, state: NEW };
        }
    }
}
