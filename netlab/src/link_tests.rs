use super::*;

const MS: Duration = Duration::from_millis(1);

/// What comes out of frames of 1000 bytes that come in at these milliseconds: their numbers and milliseconds.
fn pass(direction: &mut Direction, start: Instant, at: impl IntoIterator<Item = u32>) -> Vec<(u16, f64)> {
    let mut out = Vec::new();
    for (number, ms) in at.into_iter().enumerate() {
        let now = start + ms * MS;
        drain(direction, now, start, &mut out);
        let mut frame = vec![0; 1000];
        frame[..2].copy_from_slice(&(number as u16).to_be_bytes());
        direction.offer(now, frame);
    }
    drain(direction, start + Duration::from_secs(1000), start, &mut out);
    out
}

/// Asks only when it is time, as the bridge does.
fn drain(direction: &mut Direction, until: Instant, start: Instant, out: &mut Vec<(u16, f64)>) {
    while let Some(next) = direction.next().filter(|next| *next <= until) {
        while let Some((due, frame)) = direction.take(next) {
            assert!(due <= next);
            out.push((u16::from_be_bytes([frame[0], frame[1]]), (due - start).as_secs_f64() * 1e3));
        }
    }
}

fn through(conditions: Conditions, at: impl IntoIterator<Item = u32>) -> (Vec<(u16, f64)>, Counts) {
    let mut direction = Direction::new(conditions, 7);
    let out = pass(&mut direction, Instant::now(), at);
    (out, direction.counts)
}

fn numbers(out: &[(u16, f64)]) -> Vec<u16> {
    out.iter().map(|(number, _)| *number).collect()
}

#[test]
fn without_conditions_all_comes_at_once_and_in_order() {
    let (out, counts) = through(Conditions::default(), [0, 0, 5]);
    assert_eq!(out, [(0, 0.0), (1, 0.0), (2, 5.0)]);
    assert_eq!((counts.offered, counts.delivered, counts.offered_bytes), (3, 3, 3000));
}

#[test]
fn the_delay_is_exact() {
    let (out, _) = through(Conditions { delay: 20 * MS, ..Conditions::default() }, [0, 7]);
    assert_eq!(out, [(0, 20.0), (1, 27.0)]);
}

#[test]
fn jitter_uses_its_whole_range_and_keeps_the_order_unless_told_otherwise() {
    let conditions = Conditions { delay: 20 * MS, jitter: 5 * MS, ..Conditions::default() };
    let at = || (0..5000).map(|frame| frame / 4 * 3);
    let (out, _) = through(conditions, at());
    assert!(numbers(&out).is_sorted(), "the order stays");
    let delays: Vec<f64> = out.iter().zip(at()).map(|((_, due), at)| due - f64::from(at)).collect();
    let (least, most) = delays.iter().fold((f64::MAX, 0.0_f64), |(a, b), d| (a.min(*d), b.max(*d)));
    assert!((15.0..16.0).contains(&least) && (24.0..=25.0).contains(&most), "{least} to {most}");
    let mean = delays.iter().sum::<f64>() / delays.len() as f64;
    assert!((19.0..21.0).contains(&mean), "{mean}");

    let (out, _) = through(Conditions { unordered: true, ..conditions }, at());
    assert_eq!(out.len(), 5000);
    assert!(!numbers(&out).is_sorted(), "frames overtake one another");
}

#[test]
fn a_delay_that_shrinks_lets_no_frame_overtake() {
    let start = Instant::now();
    let mut direction = Direction::new(Conditions { delay: 50 * MS, ..Conditions::default() }, 1);
    direction.offer(start, vec![1; 100]);
    direction.set(start + MS, Conditions::default());
    direction.offer(start + 2 * MS, vec![2; 100]);
    assert_eq!(direction.take(start + 49 * MS), None);
    let out: Vec<u8> = std::iter::from_fn(|| Some(direction.take(start + 50 * MS)?.1[0])).collect();
    assert_eq!(out, [1, 2]);
}

#[test]
fn random_loss_has_its_share_and_comes_from_the_seed() {
    let lossy = |loss| through(Conditions { loss, ..Conditions::default() }, 0..20_000);
    let (five, counts) = lossy(0.05);
    assert!((900..1100).contains(&counts.lost), "{counts:?}");
    assert_eq!(five.len() as u64 + counts.lost, 20_000);
    assert_eq!(lossy(0.05).0, five);
    // What one per cent loses, five per cent loses too.
    let one = numbers(&lossy(0.01).0);
    assert!(numbers(&five).iter().all(|number| one.binary_search(number).is_ok()));
}

#[test]
fn burst_loss_has_the_share_and_the_length_of_its_model() {
    let burst = Some(Burst { enter: 0.01, leave: 0.25, loss: 1.0 });
    let (out, counts) = through(Conditions { burst, ..Conditions::default() }, 0..60_000);
    // enter / (enter + leave) = 3.8 %; a burst lasts 1 / leave = 4 frames.
    assert!((1900..2700).contains(&counts.lost), "{counts:?}");
    let bursts = numbers(&out).windows(2).filter(|pair| pair[1] - pair[0] > 1).count() as u64;
    let mean = counts.lost as f64 / bursts as f64;
    assert!((3.4..4.6).contains(&mean), "{mean}");
}

#[test]
fn reordering_holds_back_a_share_within_its_time_and_loses_nothing() {
    let reorder = Some(Reorder { share: 0.05, hold: 5 * MS });
    let (out, counts) = through(Conditions { delay: 2 * MS, reorder, ..Conditions::default() }, 0..10_000);
    assert_eq!(out.len(), 10_000);
    assert!((400..600).contains(&counts.held_back), "{counts:?}");
    let late = out.iter().filter(|(number, due)| due - f64::from(*number) > 2.001).count() as u64;
    assert!(late.abs_diff(counts.held_back) < 5, "{late}");
    assert!(out.iter().all(|(number, due)| due - f64::from(*number) <= 7.0));
    assert!(!numbers(&out).is_sorted());
}

#[test]
fn duplicates_come_right_behind_their_frame() {
    let (out, counts) = through(Conditions { duplicate: 0.1, ..Conditions::default() }, 0..1000);
    assert!((70..130).contains(&counts.duplicated), "{counts:?}");
    assert_eq!(out.len() as u64, 1000 + counts.duplicated);
    assert!(numbers(&out).is_sorted());
}

#[test]
fn the_rate_spaces_frames_and_a_full_queue_drops_at_its_end() {
    // 1000 bytes take 8 ms. One is being sent, three wait, the fifth finds no room.
    let conditions = Conditions { rate: Some(1_000_000), queue: Queue::Bytes(3000), ..Conditions::default() };
    let (out, counts) = through(conditions, [0, 0, 0, 0, 0, 100]);
    assert_eq!(out, [(0, 8.0), (1, 16.0), (2, 24.0), (3, 32.0), (5, 108.0)]);
    assert_eq!(counts.overflowed, 1);
    // As time: 24 ms are 3000 bytes.
    let as_time = Conditions { queue: Queue::Time(24 * MS), ..conditions };
    assert_eq!(through(as_time, [0, 0, 0, 0, 0, 100]).0, out);
}

#[test]
fn a_rate_that_changes_changes_what_waits() {
    let start = Instant::now();
    let limited = Conditions { rate: Some(1_000_000), queue: Queue::Bytes(10_000), ..Conditions::default() };
    let mut direction = Direction::new(limited, 1);
    for _ in 0..4 {
        direction.offer(start, vec![0; 1000]);
    }
    // The first is on its way; the others leave at the new rate.
    direction.set(start + 8 * MS, Conditions { rate: Some(8_000_000), ..limited });
    let mut out = Vec::new();
    drain(&mut direction, start + 1000 * MS, start, &mut out);
    let due: Vec<f64> = out.iter().map(|(_, due)| *due).collect();
    assert_eq!(due, [8.0, 16.0, 17.0, 18.0], "the second began before the change");
}

#[test]
fn a_link_that_stalls_keeps_its_queue_and_does_not_make_up_for_the_time() {
    let start = Instant::now();
    let stalled = Conditions { rate: Some(0), queue: Queue::Bytes(2000), ..Conditions::default() };
    let mut direction = Direction::new(stalled, 1);
    for _ in 0..3 {
        direction.offer(start, vec![0; 1000]);
    }
    assert_eq!((direction.next(), direction.backlog(), direction.counts.overflowed), (None, 2000, 1));
    direction.set(start + 100 * MS, Conditions { rate: Some(1_000_000), ..stalled });
    let mut out = Vec::new();
    drain(&mut direction, start + 1000 * MS, start, &mut out);
    let due: Vec<f64> = out.iter().map(|(_, due)| *due).collect();
    assert_eq!(due, [108.0, 116.0]);
}

#[test]
fn an_outage_loses_what_comes_and_what_is_on_its_way() {
    let start = Instant::now();
    let slow = Conditions { delay: 20 * MS, ..Conditions::default() };
    let mut direction = Direction::new(slow, 1);
    direction.offer(start, vec![0; 100]);
    direction.set(start + 10 * MS, Conditions { outage: true, ..slow });
    direction.offer(start + 15 * MS, vec![0; 100]);
    direction.set(start + 30 * MS, slow);
    direction.offer(start + 40 * MS, vec![0; 100]);
    assert_eq!(direction.next(), Some(start + 60 * MS));
    assert_eq!((direction.counts.cut, direction.counts.offered), (2, 3));
}
