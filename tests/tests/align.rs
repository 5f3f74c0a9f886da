//! Two cameras whose pictures are captured at known times, beside each other in rov-client's aligned grid, and by
//! GStreamer's `rtspsrc`. The pictures come by UDP, so that a test decides when each is captured: when it sends it.

use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use clap::Parser;
use gstreamer as gst;
use gstreamer::prelude::*;
use rov_client::cli::Cli;
use rov_client::display::{Command, Layout, Stage};
use rov_client::feeds::Feeds;
use rov_client::stats::{AlignmentReport, Report};
use rov_common::sync::lock;
use rov_tests::programs::Server;
use rov_tests::rtp::free_rtp_port;
use rov_tests::wait::{self, until, until_true};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

/// Of the sources: from one picture to the next, twice the largest offset, so that no other one is nearer.
const INTERVAL: Duration = Duration::from_millis(100);
const SIZE: (u32, u32) = (160, 120);
/// How exactly a skew is to be read.
const EXACT_MS: f64 = 2.0;
/// Sets of pictures that are enough to say so.
const SETS: usize = 25;

/// Sends a raw picture to each of two cameras at each interval, to the second one later by an offset.
struct Shutter {
    offset_us: Arc<AtomicU64>,
    /// How much later each was really sent to the second one, in milliseconds.
    sent: Arc<Mutex<Vec<f64>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Shutter {
    fn start(ports: [u16; 2]) -> Self {
        let (offset_us, sent, stop) = (Arc::<AtomicU64>::default(), Arc::default(), Arc::<AtomicBool>::default());
        let (offset, noted, stopped) = (Arc::clone(&offset_us), Arc::clone(&sent), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            let socket = UdpSocket::bind("127.0.0.1:0").expect("a UDP socket");
            // I420, whose grey changes: a camera that gives one picture again and again is said to be frozen.
            let mut picture = vec![128; (SIZE.0 * SIZE.1 * 3 / 2) as usize];
            let begun = Instant::now();
            for number in 0.. {
                let due = begun + INTERVAL * number;
                picture[..(SIZE.0 * SIZE.1) as usize].fill((number * 8) as u8);
                let send_at = |port: u16, at: Instant| {
                    std::thread::sleep(at.saturating_duration_since(Instant::now()));
                    let now = Instant::now();
                    // Nobody is there before the server's pipelines are.
                    let _ = socket.send_to(&picture, ("127.0.0.1", port));
                    now
                };
                let first = send_at(ports[0], due);
                let second = send_at(ports[1], due + Duration::from_micros(offset.load(Ordering::Relaxed)));
                lock::<Vec<f64>>(&noted).push(second.duration_since(first).as_secs_f64() * 1000.0);
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
            }
        });
        Self { offset_us, sent, stop, thread: Some(thread) }
    }

    /// From the next picture on.
    fn set_offset(&self, offset: Duration) {
        self.offset_us.store(offset.as_micros() as u64, Ordering::Relaxed);
        let before = lock(&self.sent).len();
        until_true("pictures with the offset", wait::SOON, || lock(&self.sent).len() > before + 2);
        lock(&self.sent).clear();
    }

    /// The offset with which most were sent.
    fn offset_ms(&self) -> f64 {
        median(lock(&self.sent).clone())
    }
}

impl Drop for Shutter {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic of it has been printed.
            let _ = thread.join();
        }
    }
}

fn median(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}

/// A server of two cameras, `bow` and `arm`, that are fed by a shutter; between capture and encoder the second one has
/// `more`.
fn cameras(more: &str, alignment: &str, args: &[&str]) -> (Server, Shutter) {
    // Both are bound at once, so that they differ.
    let sockets = [(); 2].map(|()| UdpSocket::bind("127.0.0.1:0").expect("a UDP socket"));
    let ports = sockets.map(|socket| socket.local_addr().expect("its address").port());
    let camera = |name: &str, port: u16, more: &str| {
        let (width, height) = SIZE;
        format!(
            "[[camera]]\nname = '{name}'\nsource = 'pipeline'\npipeline = '''udpsrc address=127.0.0.1 port={port} \
             caps=\"video/x-raw,format=I420,width={width},height={height},framerate=10/1\" {more}'''\n\
             [[camera.stream]]\nwidth = {width}\nheight = {height}\n"
        )
    };
    let folder = TempDir::new().expect("a temporary folder");
    let file = folder.path().join("rov.toml");
    let text = format!("{alignment}{}{}", camera("bow", ports[0], ""), camera("arm", ports[1], more));
    std::fs::write(&file, text).expect("a file");
    let shutter = Shutter::start(ports);
    let (width, height) = (SIZE.0.to_string(), SIZE.1.to_string());
    let file = file.to_str().expect("plain characters");
    let config = ["--config", file, "--source", "pipeline", "--width", &width, "--height", &height];
    let server = Server::start(&[&config[..], args].concat());
    server.wait_until_running();
    (server, shutter)
}

/// Who looks at the grid.
struct Pilot {
    runtime: Runtime,
    feeds: Option<Feeds>,
    layout: Layout,
    /// How far the captures of the pictures that are on the screen were apart each time one changed, in milliseconds.
    apart: Vec<f64>,
    on_screen: [Option<f64>; 2],
}

impl Pilot {
    fn start(args: &[&str]) -> Self {
        let cli = Cli::try_parse_from(["rov-client"].iter().chain(args)).unwrap_or_else(|e| panic!("{args:?}: {e}"));
        let config = cli.session().unwrap_or_else(|e| panic!("{args:?}: {e}"));
        let (runtime, stop) = (Runtime::new().expect("a runtime"), CancellationToken::new());
        let mut feeds =
            Feeds::start(runtime.handle().clone(), config, cli.grid, Arc::default(), (Instant::now(), stop))
                .expect("feeds");
        feeds.align(cli.alignment());
        Self { runtime, feeds: Some(feeds), layout: Layout::default(), apart: Vec::new(), on_screen: [None; 2] }
    }

    fn feeds(&mut self) -> &mut Feeds {
        self.feeds.as_mut().expect("not ended")
    }

    fn report(&mut self) -> Report {
        lock(&self.feeds().screen()).report(Instant::now())
    }

    fn alignment(&mut self) -> Option<AlignmentReport> {
        self.report().alignment
    }

    /// What the window does in one round.
    fn look(&mut self) {
        self.feeds().wait(Duration::from_millis(20));
        self.layout = self.feeds().layout(Instant::now());
        let mut changed = false;
        for pane in 0..self.layout.panes.len() {
            let Some(picture) = self.feeds().take(pane) else { continue };
            self.feeds().shown(pane, &picture, Instant::now());
            if self.layout.grid.is_some() && pane < 2 {
                self.on_screen[pane] = picture.captured.map(|captured| captured.0.as_secs_f64() * 1000.0);
                changed = true;
            }
        }
        if let ([Some(first), Some(second)], true) = (self.on_screen, changed) {
            self.apart.push((first - second).abs());
        }
    }

    fn until(&mut self, what: &str, mut is_so: impl FnMut(&mut Self) -> bool) {
        let end = Instant::now() + wait::START;
        while !is_so(self) {
            let report = self.report();
            assert!(Instant::now() < end, "{what}: not within {:?}; {report:?}", wait::START);
            self.look();
        }
    }

    /// What is read of the pictures that are shown from now on, in milliseconds: the skew by the statistics, by the
    /// pictures themselves, and the delay.
    fn reads(&mut self) -> (f64, f64, f64) {
        // It begins anew, and learns.
        self.feeds().align(Cli::parse_from(["rov-client", "--align=off"]).alignment());
        self.look();
        self.feeds().align(Cli::parse_from(["rov-client", "--align"]).alignment());
        self.apart.clear();
        self.until("sets of two pictures", |this| this.apart.len() >= 2 * SETS);
        // The report is renewed twice a second.
        let end = Instant::now() + Duration::from_millis(600);
        self.until("a report of them", |_| Instant::now() >= end);
        let report = self.alignment().expect("an aligned grid");
        (report.skew.p50_ms, median(self.apart.clone()), report.delay.p50_ms)
    }

    fn end(mut self) {
        let feeds = self.feeds.take().expect("ended once");
        self.runtime.block_on(feeds.finish(wait::SOON)).expect("a good end");
    }
}

#[test]
fn the_skew_of_two_cameras_is_read_as_it_is_by_each_transport() {
    let port = free_rtp_port().to_string();
    let rtp = ["--transport", "webrtc,rtp,rtsp", "--rtp-host", "127.0.0.1", "--interface", "lo", "--rtp-port", &port];
    let (server, shutter) = cameras("", "", &rtp);
    let address = server.address.to_string();
    let rtsp = server.rtsp.as_ref().and_then(|url| url.split(['/', ':']).nth(4)).expect("a port").to_owned();
    for transport in ["webrtc", "rtp", "rtsp"] {
        // By RTSP an address is asked what streams it has only where one of them is named.
        let server = ["--host", &address, "--transport", transport, "--rtsp-port", &rtsp, "--stream", "stream1"];
        let mut pilot = Pilot::start(&[&server[..], &["--grid", "--align"]].concat());
        pilot.until("two tiles with times of capture", |pilot| {
            pilot.layout.panes.len() == 2 && pilot.on_screen.iter().all(Option::is_some)
        });
        let offsets: &[u64] = if transport == "webrtc" { &[0, 20, 50] } else { &[20] };
        for offset in offsets {
            shutter.set_offset(Duration::from_millis(*offset));
            let (skew, apart, delay) = pilot.reads();
            let sent = shutter.offset_ms();
            println!("{transport}, {offset} ms: sent {sent:.2}, skew {skew:.2}, shown {apart:.2}, delay {delay:.2} ms");
            assert!((skew - sent).abs() <= EXACT_MS, "{offset} ms by {transport}: {sent} ms, read as {skew} ms");
            assert!((apart - sent).abs() <= EXACT_MS, "{offset} ms by {transport}: {sent} ms, shown {apart} ms apart");
        }
        pilot.end();
    }
}

#[test]
fn pictures_of_one_moment_are_shown_together_although_one_camera_is_slower_and_not_without_being_asked() {
    const LATE: f64 = 60.0;
    let (server, shutter) = cameras("! identity sleep-time=60000", "alignment = { enabled = true }\n", &[]);
    shutter.set_offset(Duration::ZERO);
    let address = server.address.to_string();
    let mut pilot = Pilot::start(&["--host", &address, "--grid"]);
    pilot.until("an aligned grid, as the server says", |pilot| pilot.alignment().is_some());
    let (skew, apart, delay) = pilot.reads();
    println!("skew {skew:.2}, shown {apart:.2} ms apart, delay {delay:.2} ms");
    assert!(skew <= EXACT_MS && apart <= EXACT_MS, "{skew} ms read, {apart} ms apart");
    assert!((LATE - 10.0..=100.0 + EXACT_MS).contains(&delay), "{delay} ms");
    let (told, _) = pilot.layout.grid.clone().expect("a grid").alignment.expect("a line");
    assert!(told.starts_with("Aligned: skew ") && told.contains("delayed by up to"), "{told}");

    pilot.feeds().obey(Command::Align, Instant::now());
    pilot.look();
    pilot.apart.clear();
    pilot.until("pictures without it", |pilot| pilot.apart.len() >= 2 * SETS);
    assert!(pilot.alignment().is_none() && pilot.layout.grid.clone().expect("a grid").alignment.is_none());
    // After each of the quick one, that of the slow one is still of the interval before.
    let one_interval = INTERVAL.as_secs_f64() * 1000.0;
    let old = pilot.apart.iter().filter(|apart| (**apart - one_interval).abs() < 10.0).count();
    assert!(old > SETS / 2, "{:?}", pilot.apart);
    pilot.end();
}

/// The times of capture by RTCP, as `rtspsrc` has them, in milliseconds.
fn times_by_rtsp(url: &str, pictures: usize) -> Vec<f64> {
    gst::init().expect("GStreamer");
    let text = format!(
        "rtspsrc location={url} protocols=tcp latency=0 add-reference-timestamp-meta=true ! rtph264depay \
         ! fakesink name=sink sync=false"
    );
    let pipeline = gst::parse::launch(&text).expect("the elements are installed");
    let pipeline = pipeline.downcast::<gst::Pipeline>().expect("a pipeline");
    let times: Arc<Mutex<Vec<f64>>> = Arc::default();
    let noted = Arc::clone(&times);
    let pad = pipeline.by_name("sink").and_then(|sink| sink.static_pad("sink")).expect("a sink");
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        let meta = info.buffer().and_then(|buffer| buffer.meta::<gst::ReferenceTimestampMeta>());
        if let Some(meta) = meta {
            lock(&noted).push(meta.timestamp().nseconds() as f64 / 1e6);
        }
        gst::PadProbeReturn::Ok
    });
    pipeline.set_state(gst::State::Playing).expect("it starts");
    // The first report comes after some seconds.
    let all = until("times of capture", wait::START, || {
        let times = lock(&times);
        (times.len() >= pictures).then(|| times.clone())
    });
    pipeline.set_state(gst::State::Null).expect("it stops");
    all
}

#[test]
fn by_rtspsrc_the_cameras_have_the_same_times_that_they_were_captured_at() {
    let (server, shutter) = cameras("", "", &[]);
    let url = server.rtsp.clone().expect("RTSP");
    let base = url.rsplit_once('/').map(|(base, _)| base.to_owned()).expect("a path");
    shutter.set_offset(Duration::from_millis(20));
    let [first, second] = ["bow", "arm"].map(|camera| {
        let url = format!("{base}/{camera}/stream1");
        std::thread::spawn(move || times_by_rtsp(&url, 60))
    });
    let [first, second] = [first, second].map(|times| times.join().expect("times"));
    let apart = |time: &f64| second.iter().map(|other| other - time).min_by(|a, b| a.abs().total_cmp(&b.abs()));
    // At its ends one of them has no picture of the other beside it.
    let apart: Vec<f64> = first.iter().filter_map(apart).filter(|apart| apart.abs() < 60.0).collect();
    let (read, sent, count) = (median(apart.clone()), shutter.offset_ms(), apart.len());
    println!("sent {sent:.2} ms apart, read {read:.2} ms apart, of {count} pictures");
    assert!(count > 20 && (read - sent).abs() <= EXACT_MS, "sent {sent} ms apart, read {read}: {apart:?}");
}
