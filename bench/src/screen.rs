//! A virtual X server whose screen is a file in memory: what is on it is read without asking anybody, many times a
//! millisecond.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rov_bench::clock;
use rov_bench::picture::{Range, wrong_patches};
use rov_common::stamp::{self, Stamp};
use rov_tests::process::Process;
use tempfile::TempDir;

use crate::figures::Shot;
use crate::system::{program, wait_for};

/// The screen is looked at this often.
const POLL: Duration = Duration::from_micros(250);

/// A screen of the size of the picture; a window at its upper left corner fills it.
pub struct Screen {
    process: Process,
    pub display: String,
    framebuffer: Arc<Framebuffer>,
    _folder: TempDir,
}

impl Screen {
    pub fn start(width: u32, height: u32) -> Result<Self> {
        let folder = TempDir::new().context("a temporary folder")?;
        let mut command = Command::new(program("Xvfb")?);
        // -displayfd: it takes a free display and writes its number, once it listens.
        command.args(["-displayfd", "2", "-nolisten", "tcp", "-screen", "0", &format!("{width}x{height}x24")]);
        command.arg("-fbdir").arg(folder.path());
        let mut process = Process::spawn("Xvfb", &mut command);
        let number = wait_for("the number of Xvfb's display", Duration::from_secs(20), || {
            ensure!(process.is_running(), "Xvfb ended: {}", process.stderr());
            Ok(process.stderr().lines().find_map(|line| line.trim().parse::<u32>().ok()))
        })?;
        let framebuffer = Framebuffer::open(&folder.path().join("Xvfb_screen0"))?;
        let size = (framebuffer.layout.width, framebuffer.layout.height);
        ensure!(size == (width as usize, height as usize), "Xvfb has a screen of {size:?}");
        Ok(Self { process, display: format!(":{number}"), framebuffer: Arc::new(framebuffer), _folder: folder })
    }

    /// Notes each picture that appears from now on. It may have so many `covered` patches: something lies over them.
    pub fn watch(&self, covered: usize) -> Watch {
        let (stop, shots) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let thread = {
            let (framebuffer, stop, shots) = (self.framebuffer.clone(), stop.clone(), Arc::clone(&shots));
            let from_us = clock::now_us();
            std::thread::spawn(move || watch(&framebuffer, from_us, covered, &stop, &shots))
        };
        Watch { stop, shots, thread: Some(thread) }
    }

    pub fn is_running(&mut self) -> bool {
        self.process.is_running()
    }

    pub fn pid(&self) -> u32 {
        self.process.pid()
    }
}

/// Ends when it is dropped.
pub struct Watch {
    stop: Arc<AtomicBool>,
    shots: Arc<Mutex<Vec<Shot>>>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// What appeared since the last call.
    pub fn take(&self) -> Vec<Shot> {
        std::mem::take(&mut *self.shots.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It only panics where the screen is not what it was, which the run has noticed.
            let _ = thread.join();
        }
    }
}

/// Pictures made before `from_us` are what a former window has left.
fn watch(framebuffer: &Framebuffer, from_us: u64, covered: usize, stop: &AtomicBool, shots: &Mutex<Vec<Shot>>) {
    // SAFETY: a system call without pointers. The default slack of 50 us would make the polls later.
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1) };
    let (width, height) = (framebuffer.layout.width, framebuffer.layout.height);
    let points = stamp::points(width, height);
    let mut last = 0;
    while !stop.load(Ordering::Relaxed) {
        let bits = points.iter().fold(0_u128, |bits, &(x, y)| bits << 1 | u128::from(framebuffer.green(x, y) > 127));
        if bits != last {
            let shown_us = clock::now_us();
            // Half of it may be drawn yet: then the checksum is wrong, and the next look sees the whole.
            if let Some(Stamp { frame, time_us }) = Stamp::from_bits(bits) {
                last = bits;
                if time_us >= from_us {
                    let sample = |x: usize, y: usize| framebuffer.green(x, y);
                    let is_damaged = wrong_patches(frame, width, height, Range::Full, sample) > covered;
                    let shot = Shot { frame, drawn_us: time_us, shown_us, is_damaged, ..Shot::default() };
                    shots.lock().unwrap_or_else(PoisonError::into_inner).push(shot);
                }
            }
        }
        std::thread::sleep(POLL);
    }
}

/// A mapped XWD file.
struct Framebuffer {
    address: *const u8,
    length: usize,
    layout: Layout,
}

// SAFETY: the mapping is only read, by volatile reads, and lives as long as this.
unsafe impl Send for Framebuffer {}
// SAFETY: as above.
unsafe impl Sync for Framebuffer {}

impl Framebuffer {
    fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).with_context(|| path.display().to_string())?;
        let length = usize::try_from(file.metadata()?.len())?;
        // SAFETY: a new mapping of a file that is open; the address is checked.
        let address =
            unsafe { libc::mmap(std::ptr::null_mut(), length, libc::PROT_READ, libc::MAP_SHARED, file.as_raw_fd(), 0) };
        if address == libc::MAP_FAILED {
            return Err(std::io::Error::last_os_error()).context("mapping the screen");
        }
        // From here on it is unmapped whatever happens.
        let mut this = Self { address: address.cast(), length, layout: Layout::default() };
        let header: Vec<u8> = (0..length.min(100)).map(|at| this.byte(at)).collect();
        this.layout = Layout::parse(&header)?;
        ensure!(this.layout.end() <= length, "{}: shorter than its header says", path.display());
        Ok(this)
    }

    fn byte(&self, at: usize) -> u8 {
        assert!(at < self.length);
        // SAFETY: within the mapping. Volatile, as another process writes there.
        unsafe { self.address.add(at).read_volatile() }
    }

    /// The green of a pixel, which for grey is its brightness.
    fn green(&self, x: usize, y: usize) -> u8 {
        self.byte(self.layout.pixels + y * self.layout.stride + 4 * x + 1)
    }
}

impl Drop for Framebuffer {
    fn drop(&mut self) {
        // SAFETY: the mapping that `open` has made, once.
        unsafe { libc::munmap(self.address.cast_mut().cast(), self.length) };
    }
}

/// Where the pixels are in an XWD file (X11/XWDFile.h).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Layout {
    width: usize,
    height: usize,
    pixels: usize,
    stride: usize,
}

impl Layout {
    fn parse(header: &[u8]) -> Result<Self> {
        let field = |index: usize| -> Result<usize> {
            let bytes = header.get(4 * index..4 * index + 4).context("the header of the screen is too short")?;
            Ok(u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) as usize)
        };
        let (version, byte_order, bits_per_pixel) = (field(1)?, field(7)?, field(11)?);
        if (version, byte_order, bits_per_pixel) != (7, 0, 32) {
            bail!("a screen of {bits_per_pixel} bits per pixel, byte order {byte_order}, version {version}");
        }
        // Behind the header come the colours, 12 bytes each.
        Ok(Self { width: field(4)?, height: field(5)?, pixels: field(0)? + 12 * field(19)?, stride: field(12)? })
    }

    fn end(&self) -> usize {
        self.pixels + self.stride * self.height
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pixels_lie_behind_header_and_colours() {
        let mut fields = [0_u32; 25];
        for (index, value) in [(0, 160), (1, 7), (4, 1280), (5, 720), (11, 32), (12, 5120), (19, 256)] {
            fields[index] = value;
        }
        let header: Vec<u8> = fields.iter().flat_map(|field| field.to_be_bytes()).collect();
        let layout = Layout::parse(&header).unwrap();
        assert_eq!(layout, Layout { width: 1280, height: 720, pixels: 160 + 3072, stride: 5120 });
        assert!(Layout::parse(&header[..40]).is_err());
        fields[11] = 16;
        let header: Vec<u8> = fields.iter().flat_map(|field| field.to_be_bytes()).collect();
        assert!(Layout::parse(&header).unwrap_err().to_string().contains("16 bits"));
    }

    #[test]
    fn an_empty_screen_shows_no_picture() {
        let mut screen = Screen::start(640, 360).unwrap();
        let watch = screen.watch(0);
        std::thread::sleep(Duration::from_millis(20));
        assert!(screen.is_running());
        assert!(watch.take().is_empty());
    }
}
