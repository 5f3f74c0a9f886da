//! Scripted viewers.

use super::*;

const CEILING: Ceiling = Ceiling {
    bitrate: Bitrate::from_kbps(4_000),
    resolution: Resolution::new(1280, 720),
    fps: 30.0,
    costly: false,
    fixed_size: false,
};

struct World {
    start: Instant,
    ms: u64,
    pilot: Pilot,
    control: RateControl,
    links: Vec<ViewerLink>,
    changes: Vec<(u64, u32)>,
}

impl World {
    fn new(pilot: Pilot) -> Self {
        let control = RateControl::new(Bitrate::from_kbps(300));
        Self { start: Instant::now(), ms: 0, pilot, control, links: vec![], changes: vec![] }
    }

    fn now(&self) -> Instant {
        self.start + Duration::from_millis(self.ms)
    }

    fn join(&mut self, address: &str, mbps: f64) {
        let address = Some(address.parse().unwrap());
        self.links.push(ViewerLink { address, since: self.now(), silent: false, estimate: mbps * 1e6, drain: None });
        self.ms += 10;
    }

    /// Each 20 ms for so long.
    fn run(&mut self, ms: u64) -> Rate {
        let end = self.ms + ms;
        loop {
            let pilot = self.pilot.choose(&self.links);
            let rate = self.control.update(self.now(), CEILING, &self.links, pilot);
            if self.changes.last().is_none_or(|(_, last)| *last != rate.bitrate.kbps()) {
                self.changes.push((self.ms, rate.bitrate.kbps()));
            }
            if self.ms >= end {
                return rate;
            }
            self.ms += 20;
        }
    }
}

#[test]
fn without_viewers_the_rate_is_the_ceiling_at_once() {
    let mut world = World::new(Pilot::First);
    assert_eq!(world.run(100).bitrate, CEILING.bitrate);
    world.join("10.0.0.2", 1.0);
    assert_eq!(world.run(0).bitrate, Bitrate::from_kbps(950));
    world.links.clear();
    assert_eq!(world.run(0).bitrate, CEILING.bitrate);
}

#[test]
fn a_spectator_does_not_pull_the_pilot_down() {
    let mut world = World::new(Pilot::First);
    world.join("10.0.0.2", 5.0);
    world.join("10.0.0.3", 0.5);
    assert_eq!(world.run(5_000).bitrate, CEILING.bitrate);
    assert_eq!(world.pilot.choose(&world.links), Some(0));
    // The pilot leaves: whoever came next decides.
    world.links.remove(0);
    assert_eq!(world.run(0).bitrate, Bitrate::from_kbps(475));
}

#[test]
fn the_pilot_can_be_named_by_its_address() {
    let mut world = World::new("10.0.0.9".parse().unwrap());
    world.join("10.0.0.2", 1.0);
    assert_eq!(world.run(0).bitrate, Bitrate::from_kbps(950), "while the pilot is not there, the first decides");
    world.join("10.0.0.9", 3.0);
    world.join("10.0.0.9", 2.0);
    assert_eq!(world.pilot.choose(&world.links), Some(1));
    assert_eq!(world.run(2_000).bitrate, Bitrate::from_kbps(2_850));
    assert!(
        "second".parse::<Pilot>().is_err() && "::1".parse::<Pilot>().is_err() && "first".parse() == Ok(Pilot::First)
    );
}

#[test]
fn a_pilot_that_is_gone_without_a_word_does_not_decide_where_others_answer() {
    let mut world = World::new(Pilot::First);
    world.join("10.0.0.2", 1.0);
    world.links[0].silent = true;
    assert_eq!(world.run(0).bitrate, Bitrate::from_kbps(950), "alone it does, for when it comes back");
    world.join("10.0.0.2", 5.0);
    assert_eq!(world.pilot.choose(&world.links), Some(1));
}

#[test]
fn where_a_change_costs_a_keyframe_there_are_fewer() {
    let mut world = World::new(Pilot::First);
    world.join("10.0.0.2", 1.0);
    let ceiling = Ceiling { costly: true, ..CEILING };
    let mut changes = Vec::new();
    for i in 0..1_000u64 {
        world.ms = i * 20;
        world.links[0].estimate = (1e6 * 1.0015_f64.powf(i as f64)).min(5e6);
        let kbps = world.control.update(world.now(), ceiling, &world.links, Some(0)).bitrate.kbps();
        if changes.last() != Some(&kbps) {
            changes.push(kbps);
        }
    }
    assert!((4..=7).contains(&changes.len()), "{changes:?}");
}

#[test]
fn down_at_once_and_up_by_steps_a_second_apart() {
    let mut world = World::new(Pilot::First);
    world.join("10.0.0.2", 5.0);
    world.run(1_000);
    world.changes.clear();
    world.links[0].estimate = 2e6;
    world.run(20);
    assert_eq!(world.changes, [(world.ms - 20, 1_900)]);
    for _ in 0..500 {
        world.links[0].estimate = (world.links[0].estimate * 1.004).min(5e6);
        world.run(20);
    }
    assert_eq!(world.changes.last().map(|(_, kbps)| *kbps), Some(4_000));
    for pair in world.changes.windows(2) {
        let ((before_ms, before), (ms, after)) = (pair[0], pair[1]);
        assert!(ms - before_ms >= 1_000 && (after == 4_000 || after >= before + before / 20), "{:?}", world.changes);
    }
}

#[test]
fn an_estimate_that_trembles_changes_nothing() {
    let mut world = World::new(Pilot::First);
    world.join("10.0.0.2", 2.0);
    world.run(0);
    world.changes.clear();
    for i in 0..200 {
        world.links[0].estimate = 2e6 * if i % 2 == 0 { 0.99 } else { 1.03 };
        world.run(20);
    }
    assert!(world.changes.len() <= 1, "{:?}", world.changes);
}

#[test]
fn the_rate_stays_between_floor_and_ceiling() {
    let mut world = World::new(Pilot::First);
    world.join("10.0.0.2", 0.01);
    assert_eq!(world.run(0).bitrate, Bitrate::from_kbps(300));
    world.links[0].estimate = 90e6;
    assert_eq!(world.run(2_000).bitrate, CEILING.bitrate);
    // A ceiling below the floor.
    let low = Ceiling { bitrate: Bitrate::from_kbps(200), ..CEILING };
    assert_eq!(world.control.update(world.now(), low, &world.links, Some(0)).bitrate, low.bitrate);
}

#[test]
fn a_restart_of_the_pipeline_keeps_the_rate() {
    let mut world = World::new(Pilot::First);
    world.join("10.0.0.2", 1.0);
    world.run(1_000);
    let other = Ceiling { bitrate: Bitrate::from_kbps(6_000), ..CEILING };
    let rate = world.control.update(world.now(), other, &world.links, Some(0));
    assert_eq!(rate.bitrate, Bitrate::from_kbps(950));
}

#[test]
fn pictures_are_left_out_while_the_pilots_queue_drains() {
    let mut world = World::new(Pilot::First);
    world.join("10.0.0.2", 2.0);
    world.join("10.0.0.3", 2.0);
    world.links[1].drain = Some(Duration::from_millis(300));
    assert_eq!(world.run(0).pause_until, None, "a spectator's queue is its own");
    world.links[0].drain = Some(Duration::from_millis(30));
    assert_eq!(world.run(0).pause_until, None, "not worth it");
    world.links[0].drain = Some(Duration::from_millis(200));
    let now = world.now();
    assert_eq!(world.run(0).pause_until, Some(now + Duration::from_millis(180)));
    world.ms += 200;
    assert_eq!(world.run(0).pause_until, None, "not one pause after another");
    world.ms += 1_000;
    world.links[0].drain = Some(Duration::from_secs(5));
    let now = world.now();
    assert_eq!(world.run(0).pause_until, Some(now + DRAIN_MAX), "it shall not look like a stall");
}

#[test]
fn too_few_bits_for_a_picture_make_it_smaller_and_then_rarer_and_enough_bring_it_back() {
    let mut world = World::new(Pilot::First);
    world.join("10.0.0.2", 5.0);
    assert_eq!(world.run(1_000).step, Step::Full);
    world.links[0].estimate = 0.4e6;
    assert_eq!(world.run(0).step, Step::Half);
    assert_eq!(world.run(10_000).step, Step::Half, "380 kbit/s are enough for 640x360");
    // 0.02 bit for each pixel of 640x360 at 30 is 138 kbit/s, below the floor.
    world.control.floor = Bitrate::from_kbps(50);
    world.links[0].estimate = 0.1e6;
    assert_eq!(world.run(3_000).step, Step::HalfRate);
    world.links[0].estimate = 0.7e6;
    assert_eq!(world.run(10_000).step, Step::Half, "{:?}", world.control.target);
    world.links[0].estimate = 5e6;
    assert_eq!(world.run(10_000).step, Step::Full);
}

/// As 720p with 600 kbit/s, and 2160p with 4 Mbit/s.
#[test]
fn a_ceiling_with_few_bits_for_its_picture_has_the_whole_picture_and_gets_it_back() {
    for (kbps, resolution) in [(600, CEILING.resolution), (4_000, Resolution::new(3840, 2160))] {
        let mut world = World::new(Pilot::First);
        world.join("10.0.0.2", 5.0);
        let ceiling = Ceiling { bitrate: Bitrate::from_kbps(kbps), resolution, ..CEILING };
        let mut run = |mbps: f64| {
            world.links[0].estimate = mbps * 1e6;
            world.ms += 10_000;
            world.control.update(world.now(), ceiling, &world.links, Some(0));
            world.control.update(world.now(), ceiling, &world.links, Some(0)).step
        };
        assert_eq!(run(5.0), Step::Full, "nothing limits it");
        assert_ne!(run(0.3), Step::Full);
        assert!((0..2).any(|_| run(5.0) == Step::Full), "{kbps}");
    }
}

#[test]
fn with_no_viewer_left_the_picture_is_whole_again() {
    let mut world = World::new(Pilot::First);
    world.join("10.0.0.2", 0.4);
    assert_eq!(world.run(0).step, Step::Half);
    world.links.clear();
    assert_eq!(world.run(0).step, Step::Full);
}

#[test]
fn loss_lowers_the_rate_by_a_fifth_and_room_raises_it_by_a_fifth() {
    let close = |a: f64, b: f64| (a - b).abs() < 1.0;
    assert!(close(by_loss(2e6, 0.06, 5e6), 1.6e6));
    assert!(close(by_loss(2e6, 0.03, 5e6), 2e6));
    assert!(close(by_loss(2e6, 0.0, 5e6), 2.4e6));
    assert!(close(by_loss(4e6, 0.0, 5e6), 4.2e6));
    assert!(close(by_loss(4.9e6, 0.0, 5e6), 5e6));
}

#[test]
fn a_fixed_size_gets_rarer_pictures_and_never_smaller_ones() {
    let fixed = Ceiling { fixed_size: true, ..CEILING };
    let mut control = RateControl::new(Bitrate::from_kbps(50));
    let start = Instant::now();
    let mut seen = Vec::new();
    for seconds in 0..40 {
        let estimate = if (5..20).contains(&seconds) { 200_000.0 } else { 9_000_000.0 };
        let link = ViewerLink { address: None, since: start, silent: false, estimate, drain: None };
        let step = control.update(start + Duration::from_secs(seconds), fixed, &[link], Some(0)).step;
        if seen.last() != Some(&step) {
            seen.push(step);
        }
    }
    assert_eq!(seen, [Step::Full, Step::HalfRate, Step::Full]);
}
