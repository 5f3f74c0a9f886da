//! Work that a driver may hang in, done on a thread of its own for a limited time.

use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

/// Runs `work` on a thread of this name. The error says why there is no result; then the thread is left behind, and
/// what it still gives is dropped there.
pub fn within<T: Send + 'static>(
    limit: Duration,
    thread: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, String> {
    let (sender, result) = channel();
    let run = move || drop(sender.send(work()));
    std::thread::Builder::new().name(thread.to_owned()).spawn(run).map_err(|error| format!("no thread: {error}"))?;
    result.recv_timeout(limit).map_err(|error| match error {
        RecvTimeoutError::Timeout => format!("not within {} s", limit.as_secs_f64()),
        RecvTimeoutError::Disconnected => "its thread panicked".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn what_takes_too_long_is_left_behind() {
        let start = Instant::now();
        assert_eq!(within(Duration::from_secs(60), "quick", || 7), Ok(7));
        let slow = || std::thread::sleep(Duration::from_secs(30));
        assert_eq!(within(Duration::from_millis(100), "slow", slow), Err("not within 0.1 s".to_owned()));
        assert!(start.elapsed() < Duration::from_secs(20));
    }
}
