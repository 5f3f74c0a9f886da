//! Whether a viewer sees what it is sent, as far as its RTCP tells. Pure; takes `now`.

use std::time::{Duration, Instant};

/// A viewer that is sent pictures and sent no RTCP for so long is gone. While no pictures are sent, because the camera
/// is lost, ICE alone says whether it is there.
pub const GONE: Duration = Duration::from_secs(10);
/// Receivers report every 5 s at the least, and by chance up to 1.24 times as late (RFC 3550 section 6.3.1).
const SILENT: Duration = Duration::from_secs(7);
/// So long nothing may arrive by what it reports.
const NOTHING_ARRIVES: Duration = Duration::from_secs(3);

/// Of one viewer.
#[derive(Debug, Default)]
pub struct Liveness {
    /// Since when packets were sent without any RTCP in return.
    unanswered_since: Option<Instant>,
    sent_since_report: bool,
    /// The highest sequence number that it has reported; none before it received anything.
    highest: Option<u32>,
    /// Since when it reports that nothing new has arrived although packets were sent.
    stuck_since: Option<Instant>,
    /// What was said last.
    said: Option<&'static str>,
}

impl Liveness {
    pub fn sent(&mut self, now: Instant) {
        self.unanswered_since.get_or_insert(now);
        self.sent_since_report = true;
    }

    /// Any RTCP packet came.
    pub fn heard(&mut self) {
        self.unanswered_since = None;
    }

    /// A receiver report came, with this extended highest sequence number (RFC 3550 section 6.4.1), if it has received
    /// anything.
    pub fn reported(&mut self, now: Instant, highest: Option<u32>) {
        let sent = std::mem::take(&mut self.sent_since_report);
        if self.highest != highest {
            self.stuck_since = None;
        } else if sent {
            self.stuck_since.get_or_insert(now);
        }
        self.highest = highest;
    }

    /// For how long packets were sent without any RTCP in return.
    pub fn unanswered(&self, now: Instant) -> Option<Duration> {
        self.unanswered_since.map(|at| now.saturating_duration_since(at))
    }

    pub fn is_gone(&self, now: Instant) -> bool {
        lasts(self.unanswered_since, GONE, now)
    }

    /// Why it is not sure that it sees anything, if so.
    pub fn trouble(&self, now: Instant) -> Option<&'static str> {
        if lasts(self.unanswered_since, SILENT, now) {
            Some("it is sent pictures and reports nothing")
        } else if lasts(self.stuck_since, NOTHING_ARRIVES, now) {
            Some("it is sent pictures and reports that nothing arrives")
        } else {
            None
        }
    }

    /// The trouble when it has just begun or changed, and `Some(None)` when it has just ended.
    pub fn change(&mut self, now: Instant) -> Option<Option<&'static str>> {
        let trouble = self.trouble(now);
        (std::mem::replace(&mut self.said, trouble) != trouble).then_some(trouble)
    }
}

fn lasts(since: Option<Instant>, limit: Duration, now: Instant) -> bool {
    since.is_some_and(|since| now.saturating_duration_since(since) > limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_viewer_that_reports_nothing_is_said_and_then_gone() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut viewer = Liveness::default();
        viewer.sent(at(0));
        viewer.sent(at(5_000));
        assert_eq!(viewer.change(at(7_000)), None);
        let trouble = viewer.change(at(7_001)).flatten().expect("trouble");
        assert!(trouble.contains("reports nothing"), "{trouble}");
        assert_eq!(viewer.change(at(8_000)), None, "it is said once");
        assert!(!viewer.is_gone(at(10_000)) && viewer.is_gone(at(10_001)));
        viewer.heard();
        assert_eq!(viewer.change(at(10_001)), Some(None));
        assert!(!viewer.is_gone(at(60_000)), "nothing was sent since");
    }

    #[test]
    fn a_viewer_that_nothing_reaches_is_said() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        for reached in [None, Some(70_000)] {
            let mut viewer = Liveness::default();
            viewer.reported(at(0), reached);
            for second in 1..=4 {
                viewer.sent(at(second));
                viewer.heard();
                assert_eq!(viewer.trouble(at(second)), None, "{second}");
                viewer.reported(at(second), reached);
            }
            let trouble = viewer.change(at(5)).flatten().expect("trouble");
            assert!(trouble.contains("nothing arrives"), "{trouble}");
            viewer.reported(at(6), Some(70_001));
            assert_eq!(viewer.change(at(6)), Some(None));
        }
    }

    #[test]
    fn what_arrived_before_the_pictures_ended_is_no_trouble() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut viewer = Liveness::default();
        viewer.sent(at(0));
        viewer.reported(at(1), Some(70_000));
        for second in 2..=10 {
            viewer.heard();
            viewer.reported(at(second), Some(70_000));
            assert_eq!(viewer.trouble(at(second)), None, "{second}");
        }
    }

    #[test]
    fn while_nothing_is_sent_nothing_can_arrive() {
        let start = Instant::now();
        let mut viewer = Liveness::default();
        for second in 0..60 {
            viewer.reported(start + Duration::from_secs(second), Some(7));
        }
        assert_eq!(viewer.trouble(start + Duration::from_secs(60)), None);
    }
}
