use super::*;

const LIMITS: Limits = Limits { max_latency: Duration::from_millis(100), tolerance: Duration::from_millis(33) };
/// Of the server's clock at the start.
const UTC: Duration = Duration::from_secs(1_764_000_000);

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// A tile's camera, in milliseconds.
#[derive(Clone, Copy)]
struct Camera {
    interval: u64,
    /// Of its first picture.
    phase: u64,
    /// From capture to here.
    transit: u64,
    stops: Option<u64>,
    /// Without times of capture.
    untimed: bool,
    /// From then on, the clock of its pictures is ahead by so much.
    step: Option<(u64, i64)>,
}

fn camera(fps: u64) -> Camera {
    Camera { interval: 1000 / fps, phase: 0, transit: 10, stops: None, untimed: false, step: None }
}

/// A picture that was shown: of which tile, when it was really captured, when it came, and when it was shown.
#[derive(Clone, Copy, Debug)]
struct Shown {
    tile: usize,
    captured: u64,
    came: u64,
    at: u64,
}

struct Run {
    aligner: Aligner<(u64, u64)>,
    shown: Vec<Shown>,
    standings: Vec<Standing>,
    /// Of each millisecond.
    most_waiting: usize,
    skews: Vec<Option<Duration>>,
}

impl Run {
    fn of(cameras: &[Camera], until: u64) -> Self {
        Self::with(LIMITS, cameras, until)
    }

    fn with(limits: Limits, cameras: &[Camera], until: u64) -> Self {
        let base = Instant::now();
        let mut aligner = Aligner::new(cameras.len(), limits, base);
        let (mut shown, mut most_waiting, mut skews) = (Vec::new(), 0, Vec::new());
        for at in 0..until {
            let now = base + ms(at);
            for (tile, camera) in cameras.iter().enumerate() {
                let Some(captured) = at.checked_sub(camera.transit).filter(|captured| *captured >= camera.phase) else {
                    continue;
                };
                let is_over = camera.stops.is_some_and(|stops| captured >= stops);
                if !(captured - camera.phase).is_multiple_of(camera.interval) || is_over {
                    continue;
                }
                let ahead = camera.step.filter(|(from, _)| captured >= *from).map_or(0, |(_, ahead)| ahead);
                let said = UTC + ms(captured.checked_add_signed(ahead).unwrap_or_default());
                let said = if ahead < 0 { UTC + ms(captured) - ms(ahead.unsigned_abs()) } else { said };
                aligner.put(tile, (!camera.untimed).then_some(Captured(said)), now, (captured, at));
            }
            let due = aligner.due();
            let chosen = aligner.choose(now);
            for tile in 0..cameras.len() {
                if let Some((captured, came)) = aligner.take(tile) {
                    shown.push(Shown { tile, captured, came, at });
                }
            }
            most_waiting = most_waiting.max(aligner.tiles.iter().map(|tile| tile.waiting.len()).max().unwrap_or(0));
            skews.push(chosen.and_then(|chosen| chosen.skew));
            assert!(aligner.due().is_none_or(|next| next > now), "what is due is shown: {due:?}");
        }
        let standings = (0..cameras.len()).map(|tile| aligner.standing(tile)).collect();
        Self { aligner, shown, standings, most_waiting, skews }
    }

    fn largest_skew(&self) -> Option<Duration> {
        self.aligner.recent().and_then(|recent| recent.skew)
    }

    fn of_tile(&self, tile: usize, from: u64) -> Vec<Shown> {
        self.shown.iter().filter(|shown| shown.tile == tile && shown.at >= from).copied().collect()
    }

    /// The longest that a picture of the tile waited.
    fn waited(&self, tile: usize, from: u64) -> u64 {
        self.of_tile(tile, from).iter().map(|shown| shown.at - shown.came).max().unwrap_or(0)
    }

    /// The longest from one picture of the tile on the screen to the next.
    fn gap(&self, tile: usize, from: u64) -> u64 {
        self.of_tile(tile, from).windows(2).map(|two| two[1].at - two[0].at).max().unwrap_or(u64::MAX)
    }

    /// How far apart the tiles' pictures are at the end of each millisecond in which one was shown.
    fn apart(&self, tiles: &[usize], from: u64) -> Vec<u64> {
        let mut on_screen = vec![None; 1 + tiles.iter().max().expect("tiles")];
        let mut apart = Vec::new();
        for (place, shown) in self.shown.iter().enumerate() {
            if !tiles.contains(&shown.tile) {
                continue;
            }
            on_screen[shown.tile] = Some(shown.captured);
            let is_last = self.shown.get(place + 1).is_none_or(|next| next.at > shown.at);
            let times: Option<Vec<u64>> = tiles.iter().map(|tile| on_screen[*tile]).collect();
            if let Some(times) = times.filter(|_| is_last && shown.at >= from) {
                apart.push(times.iter().max().expect("one") - times.iter().min().expect("one"));
            }
        }
        apart
    }
}

/// After what is learnt at the start.
const SETTLED: u64 = 3_000;

#[test]
fn pictures_of_one_moment_are_shown_together_however_late_the_slower_camera_is() {
    for transit in [10, 25, 60, 105] {
        for (fast, slow) in [(0, 1), (1, 0)] {
            let mut cameras = [camera(25); 2];
            cameras[slow].transit = transit;
            let run = Run::of(&cameras, 6_000);
            assert!(run.apart(&[0, 1], SETTLED).iter().all(|apart| *apart == 0), "{transit}: {:?}", run.shown);
            assert_eq!((run.waited(fast, SETTLED), run.waited(slow, SETTLED)), (transit - 10, 0));
            assert_eq!((run.gap(0, SETTLED), run.gap(1, SETTLED)), (40, 40), "each picture is shown");
            assert_eq!(run.standings, [Standing::Aligned; 2]);
            assert_eq!(run.largest_skew(), Some(Duration::ZERO));
        }
    }
}

#[test]
fn the_skew_is_that_of_the_captures_and_nothing_waits_where_the_tolerance_cannot_be_met() {
    for (offset, waits, tolerance) in [(0, 0, 33), (20, 20, 33), (50, 0, 33), (40, 40, 45)] {
        for later in [0, 1] {
            let mut cameras = [camera(10); 2];
            cameras[later].phase = offset;
            let run = Run::with(Limits { tolerance: ms(tolerance), ..LIMITS }, &cameras, 6_000);
            let skews: Vec<_> = run.skews[SETTLED as usize..].iter().flatten().collect();
            assert!(skews.len() > 20 && skews.iter().all(|skew| **skew == ms(offset)), "{offset}: {skews:?}");
            assert!(run.apart(&[0, 1], SETTLED).iter().all(|apart| *apart == offset));
            let longest = run.waited(0, SETTLED).max(run.waited(1, SETTLED));
            assert_eq!(longest, waits, "{offset}");
        }
    }
}

#[test]
fn cameras_of_other_rates_are_shown_smoothly_and_within_the_tolerance_where_that_can_be() {
    for (fast, slow) in [(50, 25), (50, 20), (25, 20)] {
        let run = Run::of(&[camera(slow), camera(fast)], 6_000);
        assert!(run.apart(&[0, 1], SETTLED).iter().all(|apart| *apart <= 33), "{fast} and {slow}");
        let interval = 1000 / fast;
        assert!(run.gap(1, SETTLED) <= interval + 1, "{fast} beside {slow}: {} ms", run.gap(1, SETTLED));
        assert!(run.waited(0, SETTLED).max(run.waited(1, SETTLED)) <= 33);
    }
    // Most pictures of 50 fps have none of 4 fps within 33 ms: they are not held for that.
    let run = Run::of(&[camera(50), camera(4)], 6_000);
    assert_eq!((run.gap(0, SETTLED), run.gap(1, SETTLED)), (20, 250));
    assert!(run.waited(0, SETTLED) <= 33);
    assert!(run.largest_skew() > Some(LIMITS.tolerance), "and that is said");
}

#[test]
fn a_camera_that_is_later_than_the_maximum_holds_nobody() {
    for late in [0, 1, 2] {
        let mut cameras = [Camera { transit: 10, ..camera(25) }, Camera { transit: 50, ..camera(25) }, camera(25)];
        cameras[late].transit = 350;
        let run = Run::of(&cameras, 6_000);
        let others: Vec<_> = [0, 1, 2].into_iter().filter(|tile| *tile != late).collect();
        assert!(run.apart(&others, SETTLED).iter().all(|apart| *apart == 0), "{:?}", run.standings);
        assert_eq!(run.waited(late, SETTLED), 0);
        assert!(others.iter().all(|tile| run.waited(*tile, SETTLED) <= 40));
        assert_eq!(run.standings[late], Standing::Late);
    }
    let run = Run::of(&[camera(25), Camera { transit: 350, ..camera(50) }], 6_000);
    assert_eq!((run.waited(0, SETTLED), run.waited(1, SETTLED)), (0, 0), "one of two is left, which waits for nobody");
    assert_eq!(run.largest_skew(), None, "of one picture alone");
}

#[test]
fn no_picture_ever_waits_longer_than_the_maximum() {
    let mut random = 1_u64;
    let mut below = |limit: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % limit
    };
    for _ in 0..60 {
        let cameras: Vec<_> = (0..2 + below(3))
            .map(|_| Camera {
                interval: 10 + below(240),
                phase: below(200),
                transit: 1 + below(300),
                stops: (below(3) == 0).then(|| 1_000 + below(2_000)),
                untimed: below(8) == 0,
                step: (below(3) == 0).then(|| (1_000 + below(2_000), below(20_000).cast_signed() - 10_000)),
            })
            .collect();
        let run = Run::of(&cameras, 5_000);
        let longest = run.shown.iter().map(|shown| shown.at - shown.came).max();
        assert!(longest.is_some_and(|longest| longest <= 100), "{longest:?}");
        assert!(run.most_waiting <= MAX_WAITING);
        for tile in 0..cameras.len() {
            let order: Vec<_> = run.of_tile(tile, 0).iter().map(|shown| shown.captured).collect();
            assert!(order.windows(2).all(|two| two[0] < two[1]), "each once and in order: {order:?}");
        }
    }
}

#[test]
fn a_camera_that_stops_is_waited_for_no_more() {
    for stopping in [0, 1] {
        let mut cameras = [camera(25), Camera { transit: 80, ..camera(25) }, Camera { transit: 20, ..camera(25) }];
        cameras[stopping].stops = Some(3_000);
        let run = Run::of(&cameras, 6_000);
        let others: Vec<_> = [0, 1, 2].into_iter().filter(|tile| *tile != stopping).collect();
        assert!(run.apart(&others, 3_400).iter().all(|apart| *apart == 0), "{stopping}");
        for tile in &others {
            assert!(run.gap(*tile, SETTLED) <= 140, "{tile} goes on: {} ms", run.gap(*tile, SETTLED));
        }
        let wait = if stopping == 1 { 10 } else { 60 };
        assert_eq!(others.iter().map(|tile| run.waited(*tile, 4_000)).max(), Some(wait));
        assert_eq!(run.standings[stopping], Standing::Silent);
    }
}

#[test]
fn a_camera_without_times_of_capture_is_shown_at_once_and_holds_nobody() {
    let cameras = [camera(25), Camera { untimed: true, ..camera(25) }, Camera { transit: 50, ..camera(25) }];
    let run = Run::of(&cameras, 6_000);
    assert_eq!(run.standings, [Standing::Aligned, Standing::Untimed, Standing::Aligned]);
    assert_eq!((run.waited(0, SETTLED), run.waited(1, 0), run.gap(1, 0)), (40, 0, 40));
    let run = Run::of(&[camera(25), Camera { untimed: true, ..camera(25) }], 1_000);
    assert_eq!((run.waited(0, 0), run.waited(1, 0)), (0, 0));
}

#[test]
fn a_step_of_one_cameras_clock_holds_nobody_and_one_of_the_servers_is_followed() {
    for step in [-3_600_000, -500, 500, 3_600_000] {
        let stepping = Camera { step: Some((3_000, step)), ..camera(25) };
        let run = Run::of(&[camera(25), stepping, camera(25)], 6_000);
        assert!([0, 1, 2].iter().all(|tile| run.waited(*tile, 0) <= 100 && run.gap(*tile, 100) <= 140), "{step}");
        assert_eq!((run.waited(0, 5_100), run.waited(1, 5_100)), (0, 0), "{step}");
        assert_eq!(run.standings[1], if step < 0 { Standing::Late } else { Standing::Early }, "{step}");
        // A server that was started again: sooner or later all its cameras have the new clock.
        let run = Run::of(&[stepping, Camera { transit: 60, ..stepping }], 8_000);
        assert_eq!(run.standings, [Standing::Aligned; 2], "{step}");
        assert!(run.apart(&[0, 1], 5_500).iter().all(|apart| *apart == 0), "{step}");
        assert_eq!(run.waited(0, 5_500), 50);
    }
}

#[test]
fn what_waits_is_bounded_by_a_number_too() {
    let limits = Limits { max_latency: ms(500), ..LIMITS };
    let run = Run::with(limits, &[camera(200), Camera { transit: 400, ..camera(200) }], 3_000);
    assert_eq!(run.most_waiting, MAX_WAITING);
    for tile in 0..2 {
        assert!(run.gap(tile, 1_000) <= 20, "each goes on: {tile}, {} ms", run.gap(tile, 1_000));
    }
}

#[test]
fn what_the_pilot_wants_goes_before_what_the_server_says() {
    let server = Alignment { enabled: true, ..Alignment::default() };
    let ms = Duration::from_millis;
    let usual = Limits { max_latency: ms(100), tolerance: ms(33) };
    let wish = Wish::default();
    assert_eq!([wish.limits(server), wish.limits(Alignment::default())], [Some(usual), None]);
    let off = Wish { aligned: Some(false), ..wish };
    assert_eq!(off.limits(server), None);
    let on = Wish { aligned: Some(true), max_latency: Some(ms(60)), tolerance: None };
    assert_eq!(on.limits(Alignment::default()), Some(Limits { max_latency: ms(60), ..usual }));
}

#[test]
fn of_large_pictures_fewer_wait_and_the_oldest_is_shown_sooner() {
    let now = Instant::now();
    let mut aligner = Aligner::new(2, LIMITS, now);
    aligner.set_most(0, 2);
    let put = |aligner: &mut Aligner<u64>, tile, number: u64| {
        aligner.put(tile, Some(Captured(UTC + ms(number))), now + ms(number), number)
    };
    let full: Vec<_> = (0..4).map(|number| put(&mut aligner, 0, number)).collect();
    assert_eq!((full, aligner.take(0)), (vec![false, false, true, true], Some(1)));
    assert!((0..MAX_WAITING as u64).all(|number| !put(&mut aligner, 1, number)), "the other one");
    aligner.set_most(1, 1);
    assert!(put(&mut aligner, 1, 99), "they have become larger");
    assert_eq!(aligner.take(1), Some(MAX_WAITING as u64 - 1));
}
