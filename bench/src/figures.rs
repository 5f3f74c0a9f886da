//! From what was seen in a run to its figures. Pure.

use std::collections::HashMap;

use serde::Serialize;

/// A picture that came out, with times in microseconds of CLOCK_MONOTONIC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shot {
    pub frame: u32,
    pub drawn_us: u64,
    pub shown_us: u64,
    pub is_damaged: bool,
    /// Where the receiver knows them.
    pub passage: Option<Passage>,
}

/// When a picture passed the stages of rov-client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Passage {
    pub rtp_timestamp: u32,
    pub first_packet_us: u64,
    pub last_packet_us: u64,
    pub decoded_us: u64,
    /// The first and the last packet, where somebody has listened.
    pub sent_us: Option<(u64, u64)>,
}

impl Shot {
    /// As a line of text, for the process that measures.
    pub fn line(&self) -> String {
        let mut line = format!("shot {} {} {} {}", self.frame, self.drawn_us, self.shown_us, u8::from(self.is_damaged));
        if let Some(passage) = self.passage {
            let Passage { rtp_timestamp, first_packet_us, last_packet_us, decoded_us, .. } = passage;
            line += &format!(" {rtp_timestamp} {first_packet_us} {last_packet_us} {decoded_us}");
        }
        line
    }

    /// The reverse of [`line`](Self::line); none for any other text.
    pub fn parse(line: &str) -> Option<Self> {
        let mut numbers = line.strip_prefix("shot ")?.split(' ').map(str::parse::<u64>);
        let mut next = || numbers.next()?.ok();
        let shot = Self {
            frame: u32::try_from(next()?).ok()?,
            drawn_us: next()?,
            shown_us: next()?,
            is_damaged: next()? != 0,
            passage: None,
        };
        let passage = next().and_then(|rtp_timestamp| {
            Some(Passage {
                rtp_timestamp: u32::try_from(rtp_timestamp).ok()?,
                first_packet_us: next()?,
                last_packet_us: next()?,
                decoded_us: next()?,
                sent_us: None,
            })
        });
        Some(Self { passage, ..shot })
    }
}

/// Of milliseconds; all zero where there were none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Quantiles {
    pub p50: f64,
    pub p95: f64,
    pub p99: f64,
    pub max: f64,
}

impl Quantiles {
    pub fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        // The smallest value that so large a part is not above.
        let at = |q: f64| {
            let rank = (q * values.len() as f64).ceil() as usize;
            values.get(rank.saturating_sub(1)).copied().unwrap_or_default()
        };
        Self { p50: at(0.5), p95: at(0.95), p99: at(0.99), max: at(1.0) }
    }
}

/// Of the pictures of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Pictures {
    /// From the mark drawn to the picture shown, milliseconds.
    pub latency_ms: Quantiles,
    /// By the source, as the numbers in the marks say.
    pub made: u64,
    /// Each counted once.
    pub shown: u64,
    /// Shown again, or after a later one.
    pub repeated: u64,
    pub damaged: u64,
    /// Times without a new picture.
    pub gaps_over_200_ms: u64,
    /// Since the mark was drawn, milliseconds; empty where the receiver does not tell.
    pub stages_ms: Vec<Stage>,
    /// Median of the last minute by that of the first; none of less than two minutes.
    pub drift: Option<f64>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Stage {
    pub name: String,
    pub p50: f64,
    pub p95: f64,
}

impl Stage {
    pub fn new(name: &str, values: impl IntoIterator<Item = f64>) -> Self {
        let quantiles = Quantiles::of(values);
        Self { name: name.to_owned(), p50: quantiles.p50, p95: quantiles.p95 }
    }
}

/// Judges what was shown between two times, in microseconds, of a source with this frame interval.
pub fn pictures(shots: &[Shot], (from_us, to_us): (u64, u64), interval_us: u64) -> Pictures {
    let shots: Vec<&Shot> = shots.iter().filter(|shot| (from_us..to_us).contains(&shot.shown_us)).collect();
    let (Some(first), Some(last)) = (shots.first(), shots.last()) else {
        let made = (to_us - from_us) / interval_us.max(1);
        return Pictures { made, gaps_over_200_ms: 1, ..Pictures::default() };
    };
    let mut newest: Option<u32> = None;
    let (mut fresh, mut repeated) = (Vec::new(), 0);
    for shot in &shots {
        if newest.is_some_and(|newest| shot.frame <= newest) {
            repeated += 1;
        } else {
            newest = Some(shot.frame);
            fresh.push(*shot);
        }
    }
    // At both ends pictures may be missing too: those for which there was time enough to come.
    let missing_in = |gap_us: u64| if gap_us > GAP_US { gap_us / interval_us.max(1) } else { 0 };
    let (before, after) = (first.shown_us - from_us, to_us - last.shown_us);
    let numbers = u64::from(newest.unwrap_or(first.frame).saturating_sub(first.frame)) + 1;
    let gaps = fresh.windows(2).map(|pair| pair[1].shown_us - pair[0].shown_us).chain([before, after]);
    Pictures {
        latency_ms: Quantiles::of(fresh.iter().map(|shot| ms(shot.shown_us.saturating_sub(shot.drawn_us)))),
        made: numbers + missing_in(before) + missing_in(after),
        shown: fresh.len() as u64,
        repeated,
        damaged: fresh.iter().filter(|shot| shot.is_damaged).count() as u64,
        gaps_over_200_ms: gaps.filter(|gap| *gap > GAP_US).count() as u64,
        stages_ms: stages(&fresh),
        drift: drift(&fresh, (from_us, to_us)),
    }
}

fn drift(shots: &[&Shot], (from_us, to_us): (u64, u64)) -> Option<f64> {
    const MINUTE: u64 = 60_000_000;
    let median_in = |window: std::ops::Range<u64>| {
        let within = shots.iter().filter(|shot| window.contains(&shot.shown_us));
        median(within.map(|shot| ms(shot.shown_us.saturating_sub(shot.drawn_us))))
    };
    let is_long = to_us - from_us >= 2 * MINUTE;
    let (first, last) = median_in(from_us..from_us + MINUTE).zip(median_in(to_us.checked_sub(MINUTE)?..to_us))?;
    (is_long && first > 0.0).then(|| last / first)
}

/// Of access units that were passed through: when each picture's first packet was sent by its RTP timestamp, when it was whole,
/// and the hashes of the units that came, with their times; `is_intact` knows those of the clip.
pub fn delivery(
    sent: &HashMap<u32, u64>,
    delivered: &[(u32, u64)],
    units: &[(u64, u64)],
    is_intact: impl Fn(u64) -> bool,
    (from_us, to_us): (u64, u64),
) -> Pictures {
    let within = |us: &u64| (from_us..to_us).contains(us);
    let latencies = delivered.iter().filter(|(_, us)| within(us)).filter_map(|(timestamp, us)| {
        let first_us = sent.get(timestamp)?;
        Some(ms(us.saturating_sub(*first_us)))
    });
    let units: Vec<&(u64, u64)> = units.iter().filter(|(_, us)| within(us)).collect();
    Pictures {
        latency_ms: Quantiles::of(latencies),
        made: sent.values().filter(|us| within(us)).count() as u64,
        shown: units.len() as u64,
        damaged: units.iter().filter(|(hash, _)| !is_intact(*hash)).count() as u64,
        gaps_over_200_ms: units.windows(2).filter(|pair| pair[1].1 - pair[0].1 > GAP_US).count() as u64,
        ..Pictures::default()
    }
}

/// Of several receivers of one sender: the worst of their times, and the sums of their counts.
pub fn worst(receivers: impl IntoIterator<Item = Pictures>) -> Pictures {
    let add = |all: Pictures, one: Pictures| {
        let worse = |value: fn(&Quantiles) -> f64| value(&all.latency_ms).max(value(&one.latency_ms));
        Pictures {
            latency_ms: Quantiles {
                p50: worse(|quantiles| quantiles.p50),
                p95: worse(|quantiles| quantiles.p95),
                p99: worse(|quantiles| quantiles.p99),
                max: worse(|quantiles| quantiles.max),
            },
            made: all.made + one.made,
            shown: all.shown + one.shown,
            repeated: all.repeated + one.repeated,
            damaged: all.damaged + one.damaged,
            gaps_over_200_ms: all.gaps_over_200_ms + one.gaps_over_200_ms,
            stages_ms: one.stages_ms,
            drift: one.drift,
        }
    };
    receivers.into_iter().reduce(add).unwrap_or_default()
}

const GAP_US: u64 = 200_000;

fn stages(shots: &[&Shot]) -> Vec<Stage> {
    let passages: Vec<(u64, Passage)> = shots.iter().filter_map(|shot| Some((shot.drawn_us, shot.passage?))).collect();
    if passages.is_empty() {
        return Vec::new();
    }
    let stage = |name: &str, at: fn(&Passage) -> u64| {
        Stage::new(name, passages.iter().map(|(drawn, passage)| ms(at(passage).saturating_sub(*drawn))))
    };
    let sent: Vec<(u64, (u64, u64))> =
        passages.iter().filter_map(|(drawn, passage)| Some((*drawn, passage.sent_us?))).collect();
    let sent_stage = |name: &str, at: fn(&(u64, u64)) -> u64| {
        let values = sent.iter().map(|(drawn, sent)| ms(at(sent).saturating_sub(*drawn)));
        (!sent.is_empty()).then(|| Stage::new(name, values))
    };
    let stages = vec![
        sent_stage("first packet sent", |sent| sent.0),
        sent_stage("last packet sent", |sent| sent.1),
        Some(stage("first packet received", |passage| passage.first_packet_us)),
        Some(stage("last packet received", |passage| passage.last_packet_us)),
        Some(stage("decoded", |passage| passage.decoded_us)),
        Some(Stage::new("shown", shots.iter().map(|shot| ms(shot.shown_us.saturating_sub(shot.drawn_us))))),
    ];
    stages.into_iter().flatten().collect()
}

fn ms(us: u64) -> f64 {
    us as f64 / 1000.0
}

/// The middle value, or the mean of the two in the middle; none of none.
pub fn median(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let upper = *values.get(values.len() / 2)?;
    let lower = values[(values.len() - 1) / 2];
    Some((lower + upper) / 2.0)
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

    #[test]
    fn a_shot_survives_its_line_of_text() {
        let plain = Shot { is_damaged: true, ..shot(7) };
        let passage = Passage { rtp_timestamp: 9, first_packet_us: 1, last_packet_us: 2, decoded_us: 3, sent_us: None };
        for shot in [plain, Shot { passage: Some(passage), ..plain }] {
            assert_eq!(Shot::parse(&shot.line()), Some(shot));
        }
        for text in ["", "shot", "shot 1 2", "shot 1 2 x 0", "ready", "shot 99999999999 1 1 0"] {
            assert_eq!(Shot::parse(text), None, "{text}");
        }
    }

    #[test]
    fn quantiles_are_values_that_were_measured() {
        let quantiles = Quantiles::of((1..=100).rev().map(f64::from));
        assert_eq!(quantiles, Quantiles { p50: 50.0, p95: 95.0, p99: 99.0, max: 100.0 });
        assert_eq!(Quantiles::of([7.0]), Quantiles { p50: 7.0, p95: 7.0, p99: 7.0, max: 7.0 });
        assert_eq!(Quantiles::of([]), Quantiles::default());
    }

    #[test]
    fn the_median_of_an_even_count_lies_in_between() {
        assert_eq!(median([3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median([4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median([]), None);
    }

    #[test]
    fn an_undisturbed_run_shows_what_was_made() {
        let shots: Vec<Shot> = (0..300).map(shot).collect();
        let pictures = pictures(&shots, (2_000_000, 5_000_000), INTERVAL);
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
        let pictures = pictures(&shots, (1_000_000, end), INTERVAL);
        assert_eq!((pictures.made, pictures.shown), (60, 50));
        assert_eq!((pictures.repeated, pictures.damaged, pictures.gaps_over_200_ms), (1, 1, 1));
    }

    #[test]
    fn a_picture_that_stops_counts_to_the_end() {
        let shots: Vec<Shot> = (0..30).map(shot).collect();
        let pictures = pictures(&shots, (1_000_000, 4_000_000), INTERVAL);
        assert_eq!(pictures.shown, 30);
        assert!((88..=90).contains(&pictures.made), "{}", pictures.made);
        assert_eq!(pictures.gaps_over_200_ms, 1);
    }

    #[test]
    fn a_run_without_pictures_is_one_gap() {
        let pictures = pictures(&[], (0, 3_000_000), INTERVAL);
        assert_eq!((pictures.made, pictures.shown, pictures.gaps_over_200_ms), (90, 0, 1));
    }

    #[test]
    fn the_delivery_of_a_unit_counts_from_its_first_packet() {
        let sent = HashMap::from([(10, 1_000), (20, 18_000), (30, 35_000), (40, 900_000)]);
        let delivered = [(10, 2_500), (30, 37_000), (77, 38_000)];
        let units = [(1, 2_400), (99, 20_000), (2, 36_000)];
        let pictures = delivery(&sent, &delivered, &units, |hash| hash != 99, (0, 100_000));
        assert_eq!((pictures.made, pictures.shown, pictures.damaged), (3, 3, 1));
        assert_eq!((pictures.latency_ms.p50, pictures.latency_ms.max), (1.5, 2.0));
    }

    #[test]
    fn several_receivers_are_as_good_as_the_worst() {
        let one = |p99: f64, shown: u64| Pictures {
            latency_ms: Quantiles { p50: 1.0, p95: 1.0, p99, max: 9.0 },
            made: 10,
            shown,
            ..Pictures::default()
        };
        let all = worst([one(2.0, 10), one(4.0, 9), one(3.0, 10)]);
        assert_eq!((all.latency_ms.p99, all.latency_ms.max), (4.0, 9.0));
        assert_eq!((all.made, all.shown), (30, 29));
    }

    #[test]
    fn a_long_run_tells_whether_pictures_come_later_and_later() {
        let frames = 180_000_000 / INTERVAL as u32;
        let shots: Vec<Shot> = (0..frames)
            .map(shot)
            .map(|shot| if shot.frame > frames / 2 { Shot { shown_us: shot.shown_us + 5_000, ..shot } } else { shot })
            .collect();
        assert_eq!(pictures(&shots, (1_000_000, 181_000_000), INTERVAL).drift, Some(2.0));
        assert_eq!(pictures(&shots, (1_000_000, 100_000_000), INTERVAL).drift, None);
    }

    #[test]
    fn stages_count_from_the_mark() {
        let shots: Vec<Shot> = (0..10)
            .map(|frame| {
                let shot = shot(frame);
                let at = |ms: u64| shot.drawn_us + ms * 1000;
                let passage = Passage {
                    first_packet_us: at(1),
                    last_packet_us: at(2),
                    decoded_us: at(4),
                    sent_us: Some((at(0), at(1))),
                    ..Passage::default()
                };
                Shot { passage: Some(passage), ..shot }
            })
            .collect();
        let stages = pictures(&shots, (0, 9_000_000), INTERVAL).stages_ms;
        assert_eq!(stages.iter().map(|stage| stage.p50).collect::<Vec<_>>(), [0.0, 1.0, 1.0, 2.0, 4.0, 5.0]);
    }
}
