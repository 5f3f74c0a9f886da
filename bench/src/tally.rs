//! From what is seen during a run to its figures, as it is seen, so that an hour takes no more memory than a second.
//! Pure.

use std::collections::HashMap;

use crate::figures::{Passage, Pictures, Shot, Spread, Stage};
use crate::tap::Sent;

const GAP_US: u64 = 200_000;
const MINUTE_US: u64 = 60_000_000;

/// Of pictures with marks, shown between two times.
#[derive(Debug)]
pub struct Tally {
    window: (u64, u64),
    interval_us: u64,
    /// Number of the first picture, and when it came.
    first: Option<(u32, u64)>,
    /// The same of the newest.
    newest: Option<(u32, u64)>,
    latency: Spread,
    /// Of the first and of the last minute.
    ends: [Spread; 2],
    stages: [Spread; STAGES.len()],
    counts: Pictures,
}

/// Since the mark was drawn, in order.
const STAGES: [&str; 6] =
    ["first packet sent", "last packet sent", "first packet received", RECEIVED, "decoded", "taken from the mailbox"];

impl Tally {
    /// Of what is shown from the one time to the other, in microseconds, of a source with this frame interval.
    pub fn new(window: (u64, u64), interval_us: u64) -> Self {
        Self {
            window,
            interval_us: interval_us.max(1),
            first: None,
            newest: None,
            latency: Spread::default(),
            ends: Default::default(),
            stages: Default::default(),
            counts: Pictures::default(),
        }
    }

    /// The next one.
    pub fn add(&mut self, shot: &Shot) {
        let (from_us, to_us) = self.window;
        if !(from_us..to_us).contains(&shot.shown_us) {
            return;
        }
        self.first.get_or_insert((shot.frame, shot.shown_us));
        if let Some((newest, at_us)) = self.newest {
            if shot.frame <= newest {
                self.counts.repeated += 1;
                return;
            }
            self.counts.gaps_over_200_ms += u64::from(shot.shown_us.saturating_sub(at_us) > GAP_US);
        }
        self.newest = Some((shot.frame, shot.shown_us));
        self.counts.shown += 1;
        self.counts.damaged += u64::from(shot.is_damaged);
        let latency_us = shot.shown_us.saturating_sub(shot.drawn_us);
        self.latency.add(latency_us);
        let [first_minute, last_minute] = &mut self.ends;
        if shot.shown_us < from_us + MINUTE_US {
            first_minute.add(latency_us);
        }
        if shot.shown_us + MINUTE_US >= to_us {
            last_minute.add(latency_us);
        }
        let (first_sent, last_sent) = shot.sent_us.unzip();
        let of = |time: fn(Passage) -> u64| shot.passage.map(time);
        let times = [
            first_sent,
            last_sent,
            of(|passage| passage.first_packet_us),
            of(|passage| passage.last_packet_us),
            of(|passage| passage.decoded_us),
            of(|passage| passage.taken_us),
        ];
        for (spread, at_us) in self.stages.iter_mut().zip(times) {
            if let Some(at_us) = at_us {
                spread.add(at_us.saturating_sub(shot.drawn_us));
            }
        }
    }

    pub fn pictures(self) -> Pictures {
        let (from_us, to_us) = self.window;
        let (Some((first, first_us)), Some((newest, last_us))) = (self.first, self.newest) else {
            return Pictures { made: (to_us - from_us) / self.interval_us, gaps_over_200_ms: 1, ..self.counts };
        };
        // At both ends pictures may be missing too: those for which there was time enough to come.
        let ends = [first_us - from_us, to_us - last_us].into_iter().filter(|gap_us| *gap_us > GAP_US);
        let missing: u64 = ends.clone().map(|gap_us| gap_us / self.interval_us).sum();
        let [first_minute, last_minute] = self.ends.map(|spread| spread.at(0.5));
        let is_long = to_us - from_us >= 2 * MINUTE_US;
        let minutes = first_minute.zip(last_minute).filter(|(first, _)| is_long && *first > 0.0);
        let stages = STAGES.iter().zip(&self.stages).filter(|(_, spread)| spread.at(0.5).is_some());
        Pictures {
            latency_ms: self.latency.quantiles(),
            made: u64::from(newest - first) + 1 + missing,
            gaps_over_200_ms: self.counts.gaps_over_200_ms + ends.count() as u64,
            stages_ms: stages.map(|(name, spread)| Stage::new(name, spread)).collect(),
            drift: minutes.map(|(first, last)| last / first),
            ..self.counts
        }
    }
}

/// Of access units that were passed through to one receiver.
#[derive(Debug, Default)]
pub struct Delivery {
    window: (u64, u64),
    /// Pictures that were sent before this are judged.
    judged_us: u64,
    /// When pictures were whole, by RTP timestamp: those that are not judged yet.
    whole: HashMap<u32, Whole>,
    last_unit_us: Option<u64>,
    latency: Spread,
    received: Spread,
    counts: Pictures,
}

/// When an access unit left the depayloader, and its last packet came where the receiver tells.
#[derive(Clone, Copy, Debug)]
struct Whole {
    at_us: u64,
    last_packet_us: Option<u64>,
}

/// The stage of an access unit whose last packet has come, since its first was sent.
pub const RECEIVED: &str = "last packet received";

/// A picture of a clip, or of a stream that nobody decodes, is lost when it is not there after so long.
pub const UNDER_WAY_US: u64 = 1_000_000;

impl Delivery {
    /// Of what is sent from the one time to the other, in microseconds.
    pub fn new(window: (u64, u64)) -> Self {
        Self { window, judged_us: window.0, ..Self::default() }
    }

    /// The picture with this RTP timestamp was whole; when its last packet came, where the receiver tells.
    pub fn add_whole(&mut self, rtp_timestamp: u32, at_us: u64, last_packet_us: Option<u64>) {
        self.whole.insert(rtp_timestamp, Whole { at_us, last_packet_us });
    }

    /// An access unit came out.
    pub fn add_unit(&mut self, is_intact: bool, at_us: u64) {
        if (self.window.0..self.window.1).contains(&at_us) {
            self.counts.damaged += u64::from(!is_intact);
            let last_us = self.last_unit_us.replace(at_us).unwrap_or(self.window.0);
            self.counts.gaps_over_200_ms += u64::from(at_us.saturating_sub(last_us) > GAP_US);
        }
    }

    /// Timestamps of pictures that came lately: by these the sender's packets are found.
    pub fn timestamps(&self) -> impl Iterator<Item = u32> {
        self.whole.keys().copied()
    }

    /// Judges what was sent long enough before `now_us`; `sent` has at least that of the time since the last call.
    pub fn judge(&mut self, sent: &HashMap<u32, Sent>, now_us: u64) {
        let until_us = now_us.saturating_sub(UNDER_WAY_US).min(self.window.1);
        let due = self.judged_us..until_us;
        for (timestamp, sent) in sent.iter().filter(|(_, sent)| due.contains(&sent.first_us)) {
            self.counts.made += 1;
            if let Some(whole) = self.whole.get(timestamp) {
                self.counts.shown += 1;
                self.latency.add(whole.at_us.saturating_sub(sent.first_us));
                if let Some(at_us) = whole.last_packet_us {
                    self.received.add(at_us.saturating_sub(sent.first_us));
                }
            }
        }
        self.judged_us = self.judged_us.max(until_us);
        let judged_us = self.judged_us;
        self.whole.retain(|_, whole| whole.at_us >= judged_us);
    }

    pub fn pictures(self) -> Pictures {
        let silent_us = self.window.1 - self.last_unit_us.unwrap_or(self.window.0);
        Pictures {
            latency_ms: self.latency.quantiles(),
            gaps_over_200_ms: self.counts.gaps_over_200_ms + u64::from(silent_us > GAP_US),
            stages_ms: self.received.at(0.5).map(|_| Stage::new(RECEIVED, &self.received)).into_iter().collect(),
            ..self.counts
        }
    }
}

/// Of one picture that goes to several receivers, by source: begins for all of them when the first packet was sent to
/// the first one. Its packets to all are sent within three quarters of a frame interval, or count as two pictures'.
pub fn since_the_first(sent: &mut HashMap<u32, HashMap<u32, Sent>>, interval_us: u64) {
    let mut all: Vec<&mut Sent> = sent.values_mut().flat_map(HashMap::values_mut).collect();
    all.sort_unstable_by_key(|sent| sent.first_us);
    let mut begun_us = None;
    for sent in all {
        let begun_us = begun_us.get_or_insert(sent.first_us);
        if sent.first_us - *begun_us > interval_us * 3 / 4 {
            *begun_us = sent.first_us;
        }
        sent.first_us = *begun_us;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: u64 = 33_333;

    /// Picture `frame`, drawn on time and shown 5 ms later.
    fn shot(frame: u32) -> Shot {
        let drawn_us = 1_000_000 + u64::from(frame) * INTERVAL;
        Shot { frame, drawn_us, shown_us: drawn_us + 5_000, ..Shot::default() }
    }

    fn pictures(shots: &[Shot], window: (u64, u64)) -> Pictures {
        let mut tally = Tally::new(window, INTERVAL);
        shots.iter().for_each(|shot| tally.add(shot));
        tally.pictures()
    }

    #[test]
    fn an_undisturbed_run_shows_what_was_made() {
        let shots: Vec<Shot> = (0..300).map(shot).collect();
        let pictures = pictures(&shots, (2_000_000, 5_000_000));
        assert_eq!((pictures.made, pictures.shown), (90, 90));
        assert_eq!((pictures.repeated, pictures.damaged, pictures.gaps_over_200_ms), (0, 0, 0));
        assert_eq!(pictures.latency_ms.p99, 5.0);
        assert!(pictures.stages_ms.is_empty());
    }

    #[test]
    fn missing_repeated_and_damaged_pictures_and_gaps_are_counted() {
        let mut shots: Vec<Shot> = (0..20).chain(30..60).map(shot).collect();
        shots.insert(10, Shot { shown_us: shots[9].shown_us + 1, ..shots[9] });
        shots[5].is_damaged = true;
        let end = shots.last().unwrap().shown_us + 1;
        let pictures = pictures(&shots, (1_000_000, end));
        assert_eq!((pictures.made, pictures.shown), (60, 50));
        assert_eq!((pictures.repeated, pictures.damaged, pictures.gaps_over_200_ms), (1, 1, 1));
    }

    #[test]
    fn a_picture_that_stops_counts_to_the_end() {
        let shots: Vec<Shot> = (0..30).map(shot).collect();
        let pictures = pictures(&shots, (1_000_000, 4_000_000));
        assert_eq!(pictures.shown, 30);
        assert!((88..=90).contains(&pictures.made), "{}", pictures.made);
        assert_eq!(pictures.gaps_over_200_ms, 1);
    }

    #[test]
    fn a_run_without_pictures_is_one_gap() {
        let pictures = pictures(&[], (0, 3_000_000));
        assert_eq!((pictures.made, pictures.shown, pictures.gaps_over_200_ms), (90, 0, 1));
    }

    #[test]
    fn a_long_run_tells_whether_pictures_come_later_and_later() {
        let frames = 180_000_000 / INTERVAL as u32;
        let late = |shot: Shot| Shot { shown_us: shot.shown_us + 5_000, ..shot };
        let shots: Vec<Shot> =
            (0..frames).map(shot).map(|shot| if shot.frame > frames / 2 { late(shot) } else { shot }).collect();
        assert_eq!(pictures(&shots, (1_000_000, 181_000_000)).drift, Some(2.0));
        assert_eq!(pictures(&shots, (1_000_000, 100_000_000)).drift, None);
    }

    #[test]
    fn stages_count_from_the_mark() {
        let with_passage = |shot: Shot| {
            let at = |ms: u64| shot.drawn_us + ms * 1000;
            let passage = Passage { first_packet_us: at(1), last_packet_us: at(2), decoded_us: at(4), taken_us: at(5) };
            Shot { sent_us: Some((at(0), at(1))), passage: Some(passage), ..shot }
        };
        let shots: Vec<Shot> = (0..10).map(shot).map(with_passage).collect();
        let stages = pictures(&shots, (0, 9_000_000)).stages_ms;
        assert_eq!(stages.iter().map(|stage| stage.p50).collect::<Vec<_>>(), [0.0, 1.0, 1.0, 2.0, 4.0, 5.0]);
    }

    fn sent(pictures: &[(u32, u64)]) -> HashMap<u32, Sent> {
        pictures.iter().map(|(timestamp, us)| (*timestamp, Sent { first_us: *us, last_us: *us })).collect()
    }

    #[test]
    fn the_delivery_of_a_picture_counts_from_its_first_packet() {
        let mut delivery = Delivery::new((1_000, 100_000));
        for (timestamp, at_us) in [(10, 2_500), (30, 37_000), (77, 38_000)] {
            delivery.add_whole(timestamp, at_us, Some(at_us - 500));
        }
        for (is_intact, at_us) in [(true, 2_400), (false, 20_000), (true, 36_000), (false, 200_000)] {
            delivery.add_unit(is_intact, at_us);
        }
        let sent = sent(&[(5, 900), (10, 1_000), (20, 18_000), (30, 35_000), (40, 900_000)]);
        // What may still be under way is not judged.
        delivery.judge(&sent, 40_000 + UNDER_WAY_US - 10_000);
        assert_eq!(delivery.counts.made, 2);
        delivery.judge(&sent, 5_000_000);
        delivery.judge(&sent, 9_000_000);
        assert_eq!(delivery.timestamps().count(), 0, "what is judged is forgotten");
        let pictures = delivery.pictures();
        assert_eq!((pictures.made, pictures.shown, pictures.damaged, pictures.gaps_over_200_ms), (3, 2, 1, 0));
        assert_eq!((pictures.latency_ms.p50, pictures.latency_ms.max), (1.5, 2.0));
        assert_eq!(pictures.stages_ms, [Stage { name: RECEIVED.to_owned(), p50: 1.0, p95: 1.5 }]);
    }

    #[test]
    fn a_picture_begins_for_all_receivers_with_the_first() {
        let mut by_source = HashMap::from([
            (1, sent(&[(10, 1_000), (20, 41_000)])),
            (2, sent(&[(77, 5_000), (88, 34_500)])),
            (3, sent(&[(7, 25_900)])),
        ]);
        since_the_first(&mut by_source, 33_333);
        let begins = |source: u32, timestamp: u32| by_source[&source][&timestamp].first_us;
        assert_eq!([begins(1, 10), begins(2, 77), begins(3, 7)], [1_000; 3]);
        assert_eq!([begins(2, 88), begins(1, 20)], [34_500; 2]);
        since_the_first(&mut HashMap::new(), 33_333);
    }

    #[test]
    fn a_receiver_that_gets_nothing_has_one_gap() {
        let mut delivery = Delivery::new((0, 900_000));
        delivery.judge(&sent(&[(1, 0), (2, 400_000)]), 9_000_000);
        let pictures = delivery.pictures();
        assert_eq!((pictures.made, pictures.shown, pictures.gaps_over_200_ms), (2, 0, 1));
    }
}
