//! What a file descriptor of somebody else is, as standard input, and whether bytes come from it. It may be closed at
//! any time: that is no error here, nothing comes then.

use std::time::Duration;

/// Whether it is a regular file: all of it is there at once.
#[cfg(unix)]
pub fn is_file(descriptor: i32) -> bool {
    let mut status = std::mem::MaybeUninit::<libc::stat>::zeroed();
    // SAFETY: the call writes one `stat`, for which zeros are a valid value too.
    let status = unsafe {
        libc::fstat(descriptor, status.as_mut_ptr());
        status.assume_init()
    };
    status.st_mode & libc::S_IFMT == libc::S_IFREG
}

/// Whether bytes are there to be read, or come within `limit`; not at the end of a pipe.
#[cfg(unix)]
pub fn comes_within(descriptor: i32, limit: Duration) -> bool {
    let end = std::time::Instant::now() + limit;
    loop {
        let mut wanted = libc::pollfd { fd: descriptor, events: libc::POLLIN, revents: 0 };
        let left = end.saturating_duration_since(std::time::Instant::now()).as_micros().div_ceil(1000);
        // SAFETY: the pointer is to one pollfd.
        let ready = unsafe { libc::poll(&mut wanted, 1, libc::c_int::try_from(left).unwrap_or(libc::c_int::MAX)) };
        let interrupted =
            ready < 0 && std::io::Error::last_os_error().kind() == std::io::ErrorKind::Interrupted && left > 0;
        if !interrupted {
            return ready > 0 && wanted.revents & libc::POLLIN != 0;
        }
    }
}

#[cfg(not(unix))]
pub fn is_file(_descriptor: i32) -> bool {
    false
}

#[cfg(not(unix))]
pub fn comes_within(_descriptor: i32, _limit: Duration) -> bool {
    false
}

#[cfg(all(test, unix))]
mod tests {
    use std::io::Write;
    use std::os::fd::AsRawFd;

    use super::*;

    #[test]
    fn what_waits_in_a_pipe_is_seen_and_its_end_is_not_taken_for_bytes() {
        let (reader, mut writer) = std::io::pipe().unwrap();
        let comes = || comes_within(reader.as_raw_fd(), Duration::from_millis(1));
        assert!(!comes());
        writer.write_all(b"a").unwrap();
        assert!(comes());
        drop(writer);
        assert!(comes());
        std::io::Read::read_exact(&mut &reader, &mut [0]).unwrap();
        assert!(!comes());
    }

    #[test]
    fn a_file_is_told_from_a_pipe() {
        let (reader, _writer) = std::io::pipe().unwrap();
        assert!(!is_file(reader.as_raw_fd()) && !is_file(-1));
        let file = std::fs::File::open(std::env::current_exe().unwrap()).unwrap();
        assert!(is_file(file.as_raw_fd()));
    }
}
