//! What each of several sessions over one link may be sent. Pure: time is passed in.
//!
//! Each session measures the rate at which the link gives out its own packets while others' stand between them; all of
//! them together measure the link. Sessions of one address share a link, unless the queue that one sees is one that
//! another one, sent to at the time, does not see: behind a router, or through a relay, they may have one address and
//! several links.

use std::time::{Duration, Instant};

/// Share of the link for the stream watched first; the others split the rest evenly. What one cannot use goes to the
/// others.
const LARGE: f64 = 0.6;
/// Congestion that several sessions see within this has one cause. Reports come a few times within it.
const TOGETHER: Duration = Duration::from_millis(500);

/// Congestion that a session has seen: since when and until when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trouble {
    pub since: Instant,
    pub last: Instant,
}

/// What is known of a session.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    /// Bit/s that its link was seen to give it, and the most that it can use.
    pub estimate: f64,
    pub most: f64,
    pub trouble: Option<Trouble>,
    /// When its viewer last reported what arrived.
    pub reported: Option<Instant>,
    /// It is the picture that is large: the one watched first.
    pub large: bool,
}

impl Seen {
    pub fn is_limited(&self) -> bool {
        self.estimate < self.most * 0.99
    }
}

/// With whom a session has its link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Company {
    /// No congestion has shown it. It is taken to be that of the others when it begins, and then sees for itself.
    #[default]
    Unknown,
    Others,
    Nobody,
}

/// How a session takes part in sharing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Part {
    has_joined: bool,
    company: Company,
    /// The beginning of the last congestion that was judged by.
    judged: Option<Instant>,
}

impl Part {
    /// Whether it shares its link with the others of its address.
    pub fn is_together(&self) -> bool {
        self.company == Company::Others
    }
}

/// Of the sessions of one address, the bit/s that each may be sent; with what else goes there, each of `others` so much
/// at the most, no more than `tether` of all together. Gives the parts of the others, too.
pub fn share(now: Instant, tether: Option<f64>, sessions: &mut [(Part, Seen)], others: &[f64]) -> (Vec<f64>, Vec<f64>) {
    judge(now, sessions);
    let mut shares: Vec<_> = sessions.iter().map(|(_, seen)| seen.estimate.min(seen.most)).collect();
    let is_apart = |at: &usize| sessions[*at].0.company == Company::Nobody;
    let together: Vec<_> = (0..sessions.len()).filter(|at| !is_apart(at)).collect();
    let joined: Vec<_> = together.iter().copied().filter(|at| sessions[*at].0.has_joined).collect();
    let is_known = joined.iter().any(|at| sessions[*at].1.is_limited());
    let is_seen = joined.iter().filter(|at| sessions[**at].0.is_together()).count() > 1;
    if is_known && (is_seen || joined.len() < together.len()) {
        // A new one does not make the link wider.
        let total = joined.iter().map(|at| sessions[*at].1.estimate).sum();
        spread(total, &together, sessions, &mut shares);
    }
    shares.extend(others);
    if let Some(tether) = tether.filter(|tether| shares.iter().sum::<f64>() > *tether) {
        let other = |(number, most): (usize, &f64)| {
            let large = sessions.is_empty() && number == 0;
            (Part::default(), Seen { estimate: *most, most: *most, trouble: None, reported: None, large })
        };
        let all: Vec<_> = sessions.iter().copied().chain(others.iter().enumerate().map(other)).collect();
        spread(tether, &(0..all.len()).collect::<Vec<_>>(), &all, &mut shares);
    }
    sessions.iter_mut().for_each(|(part, _)| part.has_joined = true);
    let others = shares.split_off(sessions.len());
    (shares, others)
}

/// When one has gone, the bit/s that each of those who stay at its address may be sent: what it had is theirs, in
/// proportion to what they have, where nobody was seen to have a link of its own.
pub fn inherit((part, gone): &(Part, Seen), sessions: &[(Part, Seen)]) -> Vec<f64> {
    let mut shares: Vec<_> = sessions.iter().map(|(_, seen)| seen.estimate).collect();
    // Nothing is known of the link from one that was neither given a part of it nor said what arrived.
    let is_known = part.has_joined && (gone.reported.is_some() || gone.is_limited());
    if !is_known || part.company == Company::Nobody {
        return shares;
    }
    let growth = |at: &usize| sessions[*at].1.most / sessions[*at].1.estimate;
    let mut heirs: Vec<_> = (0..sessions.len()).filter(|at| sessions[*at].0.company != Company::Nobody).collect();
    heirs.sort_by(|one, other| growth(one).total_cmp(&growth(other)));
    let mut left = gone.estimate.min(gone.most);
    let mut had = heirs.iter().map(|at| shares[*at]).sum::<f64>();
    for at in heirs {
        let Seen { estimate, most, .. } = sessions[at].1;
        let more = (left * estimate / had).min(most - estimate).max(0.0);
        (left, had) = (left - more, had - estimate);
        shares[at] += more;
    }
    shares
}

fn spread(total: f64, which: &[usize], sessions: &[(Part, Seen)], shares: &mut [f64]) {
    let most = |at: usize| sessions[at].1.most;
    let (large, mut others): (Vec<_>, Vec<_>) = which.iter().copied().partition(|at| sessions[*at].1.large);
    let needed = others.iter().map(|at| most(*at)).sum::<f64>();
    let large_most = large.iter().map(|at| most(*at)).sum::<f64>();
    let for_large = (total * LARGE).max(total - needed).min(large_most);
    large.iter().for_each(|at| shares[*at] = for_large);
    others.sort_by(|one, other| most(*one).total_cmp(&most(*other)));
    let (mut left, count) = (total - for_large, others.len());
    for (number, at) in others.into_iter().enumerate() {
        shares[at] = most(at).min(left / (count - number) as f64);
        left -= shares[at];
    }
}

/// Whether congestion that one has seen was seen by the others.
fn judge(now: Instant, sessions: &mut [(Part, Seen)]) {
    for at in 0..sessions.len() {
        let (part, Seen { trouble: Some(trouble), .. }) = &mut sessions[at] else { continue };
        let since = trouble.since;
        if now.saturating_duration_since(since) < TOGETHER || part.judged == Some(since) {
            continue;
        }
        part.judged = Some(since);
        let has_seen = |seen: &Seen| seen.trouble.is_some_and(|trouble| trouble.last + TOGETHER >= since);
        let was_sent_to = |seen: &Seen| seen.reported.is_some_and(|at| at >= since);
        let several = sessions.iter().filter(|(_, seen)| has_seen(seen)).count() > 1;
        let any_other = sessions.iter().any(|(_, seen)| !has_seen(seen) && was_sent_to(seen));
        for (part, seen) in sessions.iter_mut() {
            part.company = match (has_seen(seen), several) {
                (true, true) => Company::Others,
                (true, false) if any_other => Company::Nobody,
                (false, true) if was_sent_to(seen) => Company::Nobody,
                _ => part.company,
            };
        }
    }
}

#[cfg(test)]
#[path = "share_tests.rs"]
mod tests;
