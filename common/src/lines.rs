//! Standard output and standard error of a program that must go on whatever becomes of them: a reader that has gone or
//! has stopped reading, a full disk behind a redirection.
//!
//! A thread writes, so that no thread that logs waits for a reader. Bound: `QUEUE` lines; what does not fit is left
//! out, and counted in a line as soon as writing works again. A line that cannot be written is not tried again, the
//! next one is. Passwords in the addresses of cameras, wherever a text has them from, are left out.

use std::borrow::Cow;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};

use crate::redact::redact;

/// Lines that wait to be written: some seconds of the most talkative log.
const QUEUE: usize = 4096;
/// While the queue is full, [`Lines::drain`] looks again after this.
const FULL_PAUSE: Duration = Duration::from_millis(5);
/// In the place of a line that may hold a password.
const NOT_REDACTED: &str = "[a line left out: searching it for passwords failed; please report this]\n";

/// Takes whole lines; each `write` is one entry of the queue. It never fails and never waits.
#[derive(Clone, Debug)]
pub struct Lines {
    queue: SyncSender<Entry>,
    /// Left out, or not written, since the last line that was.
    lost: Arc<AtomicU64>,
}

#[derive(Debug)]
enum Entry {
    Text(Vec<u8>),
    /// Everything before it is done.
    Mark(SyncSender<()>),
}

impl Lines {
    /// Writes into standard error.
    pub fn stderr() -> Self {
        Self::into(io::stderr())
    }

    /// Writes into standard output.
    pub fn stdout() -> Self {
        Self::into(io::stdout())
    }

    /// Writes into `target`, on a thread of its own.
    pub fn into(target: impl Write + Send + 'static) -> Self {
        let (queue, entries) = sync_channel(QUEUE);
        let lost = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&lost);
        let writer = std::thread::Builder::new().name("log".to_owned());
        // Where not even this thread can be had the queue is closed, and what comes counts as lost.
        drop(writer.spawn(move || write_all(target, &entries, &counted)));
        Self { queue, lost }
    }

    /// Waits until what was handed over is written, at most for `limit`: for the end of the program.
    pub fn drain(&self, limit: Duration) {
        let end = Instant::now() + limit;
        let (done, written) = sync_channel(1);
        let mut entry = Entry::Mark(done);
        while let Err(TrySendError::Full(back)) = self.queue.try_send(entry) {
            if Instant::now() >= end {
                return;
            }
            entry = back;
            std::thread::sleep(FULL_PAUSE);
        }
        // A closed queue answers at once, too.
        let _ = written.recv_timeout(end.saturating_duration_since(Instant::now()));
    }
}

impl Write for Lines {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        if self.queue.try_send(Entry::Text(text.to_vec())).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn write_all(mut target: impl Write, entries: &Receiver<Entry>, lost: &AtomicU64) {
    for entry in entries {
        match entry {
            Entry::Text(text) => {
                let before = lost.swap(0, Ordering::Relaxed);
                let text = String::from_utf8_lossy(&text);
                let text = without_passwords(&text, redact);
                let note = if before > 0 {
                    format!("[{before} lines lost: they could not be written]\n")
                } else {
                    String::new()
                };
                let written = target.write_all(note.as_bytes()).and_then(|()| target.write_all(text.as_bytes()));
                if written.and_then(|()| target.flush()).is_err() {
                    lost.fetch_add(before + 1, Ordering::Relaxed);
                }
            }
            // Whoever waits may have given up.
            Entry::Mark(done) => drop(done.try_send(())),
        }
    }
}

/// The thread that writes must not end by a line that cannot be redacted; nor may that line be shown.
fn without_passwords(text: &str, redact: fn(&str) -> Cow<'_, str>) -> Cow<'_, str> {
    std::panic::catch_unwind(|| redact(text)).unwrap_or(NOT_REDACTED.into())
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::sync::lock;

    const LONG: Duration = Duration::from_secs(10);

    /// Keeps what is written, fails while `broken`, and waits while `held` is locked.
    #[derive(Clone, Default)]
    struct Target {
        text: Arc<Mutex<Vec<u8>>>,
        broken: Arc<AtomicU64>,
        held: Arc<Mutex<()>>,
    }

    impl Target {
        fn text(&self) -> String {
            String::from_utf8(lock(&self.text).clone()).unwrap()
        }
    }

    impl Write for Target {
        fn write(&mut self, text: &[u8]) -> io::Result<usize> {
            let _held = lock(&self.held);
            if self.broken.load(Ordering::Relaxed) > 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            lock(&self.text).extend(text);
            Ok(text.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_come_in_their_order() {
        let target = Target::default();
        let mut lines = Lines::into(target.clone());
        for number in 0..3 {
            writeln!(lines, "{number}").unwrap();
        }
        lines.drain(LONG);
        writeln!(lines, "rtsp://pilot:12#34@10.0.0.3/cam").unwrap();
        lines.drain(LONG);
        assert_eq!(target.text(), "0\n1\n2\nrtsp://...@10.0.0.3/cam\n");
    }

    #[test]
    fn a_line_that_cannot_be_redacted_is_left_out() {
        assert_eq!(without_passwords("ä=1\n", |text| text[1..].into()), NOT_REDACTED);
    }

    #[test]
    fn after_a_failure_the_next_line_is_tried_and_says_what_was_lost() {
        let target = Target::default();
        let mut lines = Lines::into(target.clone());
        target.broken.store(1, Ordering::Relaxed);
        assert_eq!(lines.write(b"a\n").unwrap() + lines.write(b"b\n").unwrap(), 4, "it never fails");
        lines.drain(LONG);
        target.broken.store(0, Ordering::Relaxed);
        lines.write_all(b"c\n").unwrap();
        lines.drain(LONG);
        assert_eq!(target.text(), "[2 lines lost: they could not be written]\nc\n");
    }

    #[test]
    fn a_reader_that_stands_still_holds_up_nobody() {
        let target = Target::default();
        let mut lines = Lines::into(target.clone());
        let held = lock(&target.held);
        for _ in 0..QUEUE + 100 {
            lines.write_all(b"x\n").unwrap();
        }
        lines.drain(Duration::from_millis(20));
        drop(held);
        lines.drain(LONG);
        lines.write_all(b"end\n").unwrap();
        lines.drain(LONG);
        let (written, text) = (target.text().matches('x').count(), target.text());
        // One more than the queue holds, where the thread has taken one already.
        let lost = QUEUE + 100 - written;
        assert!((99..=100).contains(&lost), "{lost}");
        assert!(text.contains(&format!("[{lost} lines lost")) && text.ends_with("end\n"), "{lost}");
    }
}
