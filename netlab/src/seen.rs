//! What a viewer has shown, and what that says: pure.
//!
//! All times are microseconds of Unix time: the marks in the pictures have them, and both ends are one machine.

use std::fmt;
use std::time::Duration;

use rov_client::stats::Report;

/// One picture that was shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    pub at: u64,
    /// Number and time of drawing, if they could be read.
    pub mark: Option<(u32, u64)>,
    pub torn: bool,
    /// How old rov-client says that it is, and by how much that may be wrong, in microseconds, where it knows.
    pub age: Option<(u64, u64)>,
    /// The viewer's session; 0 where that is not known.
    pub session: u64,
}

/// A line that a viewer writes.
#[derive(Clone, Debug, PartialEq)]
pub enum Line {
    Seen(Seen),
    /// From this time on rov-client warns that pictures are late, or no longer.
    Late(u64, bool),
    Report(Box<Report>),
}

/// A picture moves again when so many come, none later than [`MOVING_GAP`] after the one before.
const MOVING: usize = 10;
const MOVING_GAP: u64 = 200_000;

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Seen(Seen { at, mark, torn, age, session }) => {
                write!(f, "picture {at} {session} {torn}")?;
                mark.map_or(Ok(()), |(frame, drawn)| write!(f, " {frame} {drawn}"))?;
                age.map_or(Ok(()), |(age, bound)| write!(f, " age {age} {bound}"))
            }
            Self::Late(at, is_late) => write!(f, "late {at} {is_late}"),
            Self::Report(report) => write!(f, "report {}", serde_json::to_string(report).map_err(|_| fmt::Error)?),
        }
    }
}

impl Line {
    /// None of what is no such line.
    pub fn parse(line: &str) -> Option<Self> {
        let (kind, rest) = line.split_once(' ')?;
        if kind == "report" {
            return Some(Self::Report(serde_json::from_str(rest).ok()?));
        }
        let mut words = rest.split(' ');
        if kind == "late" {
            return Some(Self::Late(words.next()?.parse().ok()?, words.next()?.parse().ok()?));
        }
        let (at, session) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        let torn = words.next()?.parse().ok()?;
        let rest: Vec<_> = words.collect();
        let at_age = rest.iter().position(|word| *word == "age").unwrap_or(rest.len());
        let pair = |words: &[&str]| Some((words.first()?.parse().ok()?, words.get(1)?.parse().ok()?));
        let mark = pair(&rest[..at_age]).map(|(frame, drawn): (u64, u64)| (frame as u32, drawn));
        let age = rest.get(at_age + 1..).and_then(pair);
        (kind == "picture").then_some(Self::Seen(Seen { at, mark, torn, age, session }))
    }
}

/// The pictures that were shown from one time to another.
#[derive(Clone, Copy, Debug)]
pub struct Span<'a> {
    pictures: &'a [Seen],
    /// The last one before.
    before: Option<Seen>,
    from: u64,
    to: u64,
}

impl<'a> Span<'a> {
    /// Of pictures in the order in which they were shown.
    pub fn of(all: &'a [Seen], from: u64, to: u64) -> Self {
        let begin = all.partition_point(|seen| seen.at < from);
        let end = all.partition_point(|seen| seen.at <= to);
        Self { pictures: &all[begin..end.max(begin)], before: begin.checked_sub(1).map(|at| all[at]), from, to }
    }

    /// The longest time without a new picture, in milliseconds; one that began before counts whole, and one that has
    /// not ended counts to the end.
    pub fn longest_freeze_ms(&self) -> f64 {
        let begin = self.before.map_or(self.from, |seen| seen.at);
        let times = std::iter::once(begin).chain(self.pictures.iter().map(|seen| seen.at)).chain([self.to]);
        let times: Vec<u64> = times.collect();
        times.windows(2).map(|pair| ms(pair[0], pair[1])).fold(0.0, f64::max)
    }

    /// From drawn to shown, of so many (0 to 1) of the pictures at most, in milliseconds.
    pub fn latency_ms(&self, share: f64) -> Option<f64> {
        let mut all: Vec<f64> = self.latencies().map(|(_, latency)| latency).collect();
        all.sort_by(f64::total_cmp);
        let last = all.len().checked_sub(1)?;
        Some(all[(last as f64 * share).round() as usize])
    }

    /// By how much this share of the ages that were told differs from the marks at most, and the bound that was told
    /// with this share at most, in milliseconds.
    pub fn age_error_ms(&self, share: f64) -> Option<(f64, f64)> {
        let of = |seen: &Seen| {
            let ((_, drawn), (age, bound)) = (seen.mark?, seen.age?);
            Some(((age as f64 - seen.at.saturating_sub(drawn) as f64).abs() / 1e3, bound as f64 / 1e3))
        };
        let (mut errors, mut bounds): (Vec<_>, Vec<_>) = self.pictures.iter().filter_map(of).unzip();
        errors.sort_by(f64::total_cmp);
        bounds.sort_by(f64::total_cmp);
        let at = (errors.len().checked_sub(1)? as f64 * share).round() as usize;
        Some((errors[at], bounds[at]))
    }

    /// When each was shown, and how long after it was drawn, in milliseconds.
    pub fn latencies(&self) -> impl Iterator<Item = (u64, f64)> {
        self.pictures.iter().filter_map(|seen| Some((seen.at, ms(seen.mark?.1, seen.at))))
    }

    /// When the first picture was shown that was older than `limit` then.
    pub fn first_older_than(&self, limit: Duration) -> Option<u64> {
        let limit = limit.as_secs_f64() * 1e3;
        self.latencies().find(|(_, latency)| *latency > limit).map(|(at, _)| at)
    }

    /// The longest time between the drawing of one picture and of the next, in milliseconds: what the machine, not the
    /// link, held up.
    pub fn longest_pause_of_source_ms(&self) -> f64 {
        let marks = self.pictures.iter().filter_map(|seen| seen.mark);
        let next = marks.clone().skip(1);
        let pauses = marks.zip(next).filter(|((a, _), (b, _))| a.checked_add(1) == Some(*b));
        pauses.map(|((_, a), (_, b))| ms(a, b)).fold(0.0, f64::max)
    }

    /// Of the pictures that come at so many a second, the share that was shown.
    pub fn shown_share(&self, fps: f64) -> f64 {
        self.pictures.len() as f64 / ((self.to - self.from) as f64 / 1e6 * fps)
    }

    pub fn shown(&self) -> usize {
        self.pictures.len()
    }

    /// Pictures that are damaged, or whose mark is.
    pub fn corrupt(&self) -> usize {
        self.pictures.iter().filter(|seen| seen.torn || seen.mark.is_none()).count()
    }

    /// The longest time for which damaged pictures were shown, one after the other, in milliseconds.
    pub fn longest_damage_ms(&self) -> f64 {
        let mut longest = 0.0_f64;
        let mut since = None;
        for seen in self.pictures {
            let is_damaged = seen.torn || seen.mark.is_none();
            longest = longest.max(since.map_or(0.0, |since| ms(since, seen.at)));
            since = if is_damaged { since.or(Some(seen.at)) } else { None };
        }
        longest.max(since.map_or(0.0, |since| ms(since, self.to)))
    }

    /// From the beginning to when the picture moves again, in milliseconds, counting only pictures that were drawn
    /// after the beginning.
    pub fn moving_after_ms(&self) -> Option<f64> {
        let fresh = |seen: &Seen| seen.mark.is_some_and(|(_, drawn)| drawn >= self.from);
        let moves =
            |run: &&[Seen]| run.iter().all(fresh) && run.windows(2).all(|pair| pair[1].at - pair[0].at <= MOVING_GAP);
        let first = self.pictures.windows(MOVING).find(moves)?;
        Some(ms(self.from, first[0].at))
    }

    /// From the beginning to when every picture was younger than `limit` when it was shown, in milliseconds, and the
    /// picture moved to the end.
    pub fn settled_below_ms(&self, limit: Duration) -> Option<f64> {
        let limit = limit.as_secs_f64() * 1e3;
        // A picture that stands still grows old as well, also the one that is there at the beginning.
        let times = || std::iter::once(self.from).chain(self.pictures.iter().map(|seen| seen.at));
        let still = times().zip(times().skip(1)).filter(|(before, at)| at - before > 2 * MOVING_GAP);
        let still = still.map(|(_, at)| at);
        let late = self.latencies().filter(|(_, latency)| *latency >= limit).map(|(at, _)| at);
        let unreadable = self.pictures.iter().filter(|seen| seen.mark.is_none()).map(|seen| seen.at);
        let since = still.chain(late).chain(unreadable).max().unwrap_or(self.from);
        let last = self.pictures.last()?.at;
        (last > since && self.to - last <= 2 * MOVING_GAP).then(|| ms(self.from, since))
    }
}

fn ms(from: u64, to: u64) -> f64 {
    (to as f64 - from as f64) / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pictures that are shown at these milliseconds, drawn so many before.
    fn pictures(at: impl IntoIterator<Item = (u64, u64)>) -> Vec<Seen> {
        let seen = |(frame, (at, age)): (usize, (u64, u64))| Seen {
            at: at * 1000,
            mark: Some((frame as u32, (at - age) * 1000)),
            torn: false,
            age: Some((age * 1000 + 4_000, 500)),
            session: 1,
        };
        at.into_iter().enumerate().map(seen).collect()
    }

    fn span(all: &[Seen], from: u64, to: u64) -> Span<'_> {
        Span::of(all, from * 1000, to * 1000)
    }

    #[test]
    fn lines_are_read_as_they_are_written() {
        let seen = Seen { at: 5, mark: Some((7, 3)), torn: true, age: Some((40_000, 900)), session: 2 };
        for line in [
            Line::Seen(seen),
            Line::Seen(Seen { age: None, ..seen }),
            Line::Seen(Seen { mark: None, torn: false, ..seen }),
            Line::Seen(Seen { mark: None, age: None, ..seen }),
            Line::Late(8, true),
            Line::Report(Box::new(Report { packets: 9, ..Report::default() })),
        ] {
            assert_eq!(Line::parse(&line.to_string()), Some(line));
        }
        assert_eq!(Line::parse("picture 5"), None);
    }

    #[test]
    fn ages_are_compared_with_the_marks_of_the_same_pictures() {
        let all = pictures([(100, 10), (133, 80), (166, 10)]);
        assert_eq!(span(&all, 90, 170).age_error_ms(0.95), Some((4.0, 0.5)));
        assert_eq!(span(&all, 0, 50).age_error_ms(0.95), None);
    }

    #[test]
    fn the_first_of_the_old_pictures_is_found() {
        let all = pictures([(400, 90), (500, 310), (533, 20), (566, 310), (600, 10)]);
        let limit = Duration::from_millis(300);
        assert_eq!(span(&all, 0, 700).first_older_than(limit), Some(500_000));
        assert_eq!(span(&all, 580, 700).first_older_than(limit), None);
    }

    #[test]
    fn a_freeze_counts_over_the_edges_of_the_span() {
        let all = pictures([(100, 10), (200, 10), (500, 10), (533, 10)]);
        assert_eq!(span(&all, 400, 540).longest_freeze_ms(), 300.0);
        assert_eq!(span(&all, 510, 900).longest_freeze_ms(), 367.0);
        assert_eq!(span(&[], 0, 900).longest_freeze_ms(), 900.0);
    }

    #[test]
    fn latency_and_corruption_are_of_the_span_alone() {
        let mut all = pictures([(100, 90), (200, 10), (233, 20), (266, 30), (900, 90)]);
        all[2].torn = true;
        all[4].mark = None;
        let span = span(&all, 150, 300);
        assert_eq!([span.latency_ms(0.0), span.latency_ms(0.5), span.latency_ms(0.99)], [10.0, 20.0, 30.0].map(Some));
        assert_eq!((span.shown(), span.corrupt()), (3, 1));
        assert_eq!(Span::of(&all, 150_000, 950_000).corrupt(), 2);
        assert_eq!(
            [300_000, 920_000, 950_000].map(|to| Span::of(&all, 150_000, to).longest_damage_ms()),
            [33.0, 33.0, 50.0]
        );
        assert_eq!(Span::of(&all, 0, 1_000_000).shown_share(10.0), 0.5);
    }

    #[test]
    fn a_pause_of_the_source_is_between_pictures_whose_numbers_follow() {
        let mut all = pictures([(100, 10), (300, 10), (333, 30), (900, 10)]);
        assert_eq!(span(&all, 0, 1000).longest_pause_of_source_ms(), 587.0);
        // A picture that is missing was lost on its way.
        all[3].mark = Some((4, 890_000));
        assert_eq!(span(&all, 0, 1000).longest_pause_of_source_ms(), 200.0);
    }

    #[test]
    fn the_picture_moves_again_when_new_pictures_keep_coming() {
        // Two that were on their way, a single one, and then one after the other.
        let stale = [(1000, 900), (1033, 900), (1500, 10)];
        let all = pictures(stale.into_iter().chain((0..20).map(|n| (2000 + 33 * n, 10))));
        assert_eq!(span(&all, 950, 3000).moving_after_ms(), Some(1050.0));
        assert_eq!(span(&all, 2500, 3000).moving_after_ms(), None);
    }

    #[test]
    fn latency_has_settled_when_no_later_picture_is_old_or_waited_for() {
        let limit = Duration::from_millis(150);
        let age = |n: u64| if n == 10 { 300 } else { 20 };
        let all = pictures((0..60).map(|n| (1000 + 33 * n, age(n))));
        assert_eq!(span(&all, 1000, 3000).settled_below_ms(limit), Some(330.0));
        assert_eq!(span(&all, 1000, 9000).settled_below_ms(limit), None, "then none came");
        assert_eq!(span(&[], 1000, 9000).settled_below_ms(limit), None);
        let pause = pictures([(1000, 20), (1033, 20), (2000, 20), (2033, 20)]);
        assert_eq!(span(&pause, 1000, 2050).settled_below_ms(limit), Some(1000.0));
        assert_eq!(span(&pause[2..], 500, 2050).settled_below_ms(limit), Some(1500.0), "none at the beginning");
    }
}
