//! What is seen of a picture, and the figures of a run. Pure; `tally` makes the one into the other.

use std::collections::BTreeMap;

use serde::Serialize;

/// A picture that came out, with times in microseconds of CLOCK_MONOTONIC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shot {
    pub frame: u32,
    pub drawn_us: u64,
    pub shown_us: u64,
    pub is_damaged: bool,
    /// Where the receiver knows it.
    pub rtp_timestamp: Option<u32>,
    /// The first and the last packet, where somebody has listened.
    pub sent_us: Option<(u64, u64)>,
    /// Of rov-client.
    pub passage: Option<Passage>,
}

/// When a picture passed the stages of rov-client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Passage {
    pub first_packet_us: u64,
    pub last_packet_us: u64,
    pub decoded_us: u64,
    /// When it was there for the window to take.
    pub taken_us: u64,
}

impl Shot {
    /// As a line of text, for the process that measures.
    pub fn line(&self) -> String {
        let mut line = format!("shot {} {} {} {}", self.frame, self.drawn_us, self.shown_us, u8::from(self.is_damaged));
        if let Some(rtp_timestamp) = self.rtp_timestamp {
            line += &format!(" {rtp_timestamp}");
            if let Some(Passage { first_packet_us, last_packet_us, decoded_us, taken_us }) = self.passage {
                line += &format!(" {first_packet_us} {last_packet_us} {decoded_us} {taken_us}");
            }
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
            rtp_timestamp: next().and_then(|number| u32::try_from(number).ok()),
            sent_us: None,
            passage: None,
        };
        let mut passage = || {
            Some(Passage { first_packet_us: next()?, last_packet_us: next()?, decoded_us: next()?, taken_us: next()? })
        };
        Some(Self { passage: passage(), ..shot })
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

/// Times, counted in steps of 10 us: of a run of any length it takes no more memory than of a short one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spread {
    counts: BTreeMap<u64, u64>,
    total: u64,
}

impl Spread {
    const STEP_US: u64 = 10;
    /// What took longer counts as this.
    const LONGEST_US: u64 = 60_000_000;

    pub fn add(&mut self, us: u64) {
        *self.counts.entry(us.min(Self::LONGEST_US) / Self::STEP_US).or_default() += 1;
        self.total += 1;
    }

    /// The smallest value that so large a part is not above, in milliseconds; none of none.
    pub fn at(&self, part: f64) -> Option<f64> {
        let rank = ((part * self.total as f64).ceil() as u64).max(1);
        let mut seen = 0;
        let step = self.counts.iter().find_map(|(step, count)| {
            seen += count;
            (seen >= rank).then_some(*step)
        })?;
        Some((step * Self::STEP_US) as f64 / 1000.0)
    }

    pub fn quantiles(&self) -> Quantiles {
        let at = |part| self.at(part).unwrap_or_default();
        Quantiles { p50: at(0.5), p95: at(0.95), p99: at(0.99), max: at(1.0) }
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
    /// Since the mark was drawn, or the first packet of a clip's picture was sent, milliseconds; empty where the
    /// receiver does not tell.
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
    pub fn new(name: &str, spread: &Spread) -> Self {
        let quantiles = spread.quantiles();
        Self { name: name.to_owned(), p50: quantiles.p50, p95: quantiles.p95 }
    }

    /// Of the same stage of two receivers.
    fn worse(&self, other: &Self) -> Self {
        Self { name: self.name.clone(), p50: self.p50.max(other.p50), p95: self.p95.max(other.p95) }
    }
}

/// Of several receivers of one sender: the worst of their times, and the sums of their counts. None where one got
/// nothing: its times would be zero, which is the best there is.
pub fn worst(receivers: Vec<Pictures>) -> Option<Pictures> {
    if receivers.iter().any(|one| one.shown == 0) {
        return None;
    }
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
            stages_ms: all.stages_ms.iter().zip(&one.stages_ms).map(|(all, one)| all.worse(one)).collect(),
            drift: one.drift,
        }
    };
    receivers.into_iter().reduce(add)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shot_survives_its_line_of_text() {
        let plain = Shot { frame: 7, drawn_us: 1, shown_us: 9, is_damaged: true, ..Shot::default() };
        let found = Shot { rtp_timestamp: Some(9), ..plain };
        let passage = Passage { first_packet_us: 1, last_packet_us: 2, decoded_us: 3, taken_us: 4 };
        for shot in [plain, found, Shot { passage: Some(passage), ..found }] {
            assert_eq!(Shot::parse(&shot.line()), Some(shot));
        }
        for text in ["", "shot", "shot 1 2", "shot 1 2 x 0", "ready", "shot 99999999999 1 1 0"] {
            assert_eq!(Shot::parse(text), None, "{text}");
        }
    }

    #[test]
    fn quantiles_are_values_that_were_measured() {
        let of = |values: &[u64]| {
            let mut spread = Spread::default();
            values.iter().for_each(|us| spread.add(*us));
            spread.quantiles()
        };
        let hundred: Vec<u64> = (1..=100).rev().map(|ms| ms * 1000).collect();
        assert_eq!(of(&hundred), Quantiles { p50: 50.0, p95: 95.0, p99: 99.0, max: 100.0 });
        assert_eq!(of(&[7_000]), Quantiles { p50: 7.0, p95: 7.0, p99: 7.0, max: 7.0 });
        assert_eq!(of(&[]), Quantiles::default());
        assert_eq!(of(&[u64::MAX]).max, 60_000.0);
    }

    #[test]
    fn several_receivers_are_as_good_as_the_worst() {
        let one = |p99: f64, shown: u64| Pictures {
            latency_ms: Quantiles { p50: 1.0, p95: 1.0, p99, max: 9.0 },
            made: 10,
            shown,
            stages_ms: vec![Stage { name: "received".to_owned(), p50: p99 - 1.0, p95: p99 }],
            ..Pictures::default()
        };
        let all = worst(vec![one(2.0, 10), one(4.0, 9), one(3.0, 10)]).unwrap();
        assert_eq!((all.latency_ms.p99, all.latency_ms.max), (4.0, 9.0));
        assert_eq!((all.made, all.shown), (30, 29));
        assert_eq!(all.stages_ms, [Stage { name: "received".to_owned(), p50: 3.0, p95: 4.0 }]);
    }

    #[test]
    fn a_receiver_that_gets_nothing_is_not_the_fastest() {
        let one = |shown| Pictures { made: shown, shown, ..Pictures::default() };
        assert_eq!(worst(vec![one(9), one(0)]), None);
        assert_eq!(worst(vec![one(0)]), None);
    }
}
