//! Waiting for a condition: asked for again and again, until a deadline.

use std::time::{Duration, Instant};

/// Between two looks: short at first, and longer where it takes long, as a look may be a request to the server.
const FIRST_PAUSE: Duration = Duration::from_millis(2);
const LONGEST_PAUSE: Duration = Duration::from_millis(25);

/// For what takes milliseconds: long enough for a machine that is busy with other things.
pub const SOON: Duration = Duration::from_secs(10);
/// For what may build a pipeline or start a browser.
pub const START: Duration = Duration::from_secs(30);

/// What `poll` gives, as soon as it gives something.
///
/// # Panics
/// When that is not within `limit`; `what` says what was waited for.
pub fn until<T>(what: &str, limit: Duration, poll: impl FnMut() -> Option<T>) -> T {
    within(limit, poll)
        .unwrap_or_else(|| panic!("waited {} s for this, which did not happen: {what}", limit.as_secs_f64()))
}

/// As [`until`], for a condition.
pub fn until_true(what: &str, limit: Duration, mut condition: impl FnMut() -> bool) {
    until(what, limit, || condition().then_some(()));
}

/// What `poll` gives within `limit`, if anything.
pub fn within<T>(limit: Duration, mut poll: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + limit;
    let mut pause = FIRST_PAUSE;
    loop {
        // Looked at before the poll: a condition that is true at the end counts, however long this thread slept.
        let last = Instant::now() >= end;
        if let Some(value) = poll() {
            return Some(value);
        }
        if last {
            return None;
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}
