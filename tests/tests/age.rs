//! How old pictures are, as the client and the page say it, beside the marks in the same pictures.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use clap::Parser;
use rov_client::cli::Cli;
use rov_client::clock::Unknown;
use rov_client::display::Stage;
use rov_client::feeds::Feeds;
use rov_client::late::Warning;
use rov_client::stats::AgeReport;
use rov_common::capture_clock::{CaptureClock, beside_monotonic};
use rov_common::sync::lock;
use rov_tests::in_process::Serving;
use rov_tests::programs::Server;
use rov_tests::proxy::Proxy;
use rov_tests::relay::Network;
use rov_tests::wait::{self, until_true};
use rov_tests::watcher::{Shot, Watcher};
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

/// In front of the encoder at least: what the element counts is less one picture.
const QUEUE: Duration = Duration::from_millis(900);
const HOUR: Duration = Duration::from_secs(3_600);
/// Of the vehicle's clock, which is an hour ahead.
fn wrong_clock() -> CaptureClock {
    let (now, utc) = beside_monotonic(SystemTime::now);
    CaptureClock::new(now, utc + HOUR)
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// Of a picture whose age is known: by how much that is wrong, by its capture and by its mark, and the bound that is
/// told, all in milliseconds.
fn errors(shot: &Shot) -> Option<(f64, f64, f64)> {
    let age = shot.age.ok()?;
    let truth = ms(shot.shown) - (ms(shot.captured?) - ms(HOUR));
    Some((ms(age.age) - truth, ms(age.age) - ms(shot.latency?), ms(age.bound)))
}

fn quantile(all: impl Iterator<Item = f64>, q: f64) -> f64 {
    let mut all: Vec<f64> = all.collect();
    all.sort_by(f64::total_cmp);
    all[((all.len() - 1) as f64 * q) as usize]
}

#[test]
fn over_any_link_and_with_a_clock_that_is_an_hour_off_the_age_agrees_with_the_mark() {
    let runtime = Runtime::new().expect("a runtime");
    let size = ["--source", "test", "--width", "320", "--height", "240"];
    let server = Serving::start_by(&runtime, &size, wrong_clock(), |_| ());
    let millis = Duration::from_millis;
    for (name, delay, asymmetry, jitter) in [("0 ms", 0, 0, 0), ("20 \u{b1} 5 ms", 20, 0, 5), ("5 and 35 ms", 5, 30, 0)]
    {
        let network = Network::uneven(millis(delay), millis(asymmetry), millis(jitter));
        let half_asymmetry = asymmetry as f64 / 2.0;
        let proxy = Proxy::start(&runtime, server.address, "", Some(network));
        let watcher = Watcher::start(&runtime, &["--url", &proxy.url("/whep")]);
        let known = || watcher.shots().iter().filter_map(errors).collect::<Vec<_>>();
        until_true("pictures whose age is known", wait::START, || known().len() >= 150);
        let all = known();
        for (error, _, bound) in &all {
            // The system's clock, by which the error is measured, is slewed, and read apart from the monotonic one.
            assert!(error.abs() <= bound + 1.0, "{name}: wrong by {error} ms, said to be within {bound} ms");
        }
        let by_capture = quantile(all.iter().map(|all| all.0.abs()), 0.95);
        // On a busy machine marks are drawn later than the picture is due.
        let by_mark = quantile(all.iter().map(|all| all.1), 0.5);
        let bound = quantile(all.iter().map(|all| all.2), 0.95);
        println!(
            "{name}: wrong by {by_capture:.2} ms (95 %), {by_mark:.2} ms from the mark (median), bound {bound:.2} ms"
        );
        assert!(by_capture < half_asymmetry + 5.0, "{name}: {by_capture} ms");
        assert!(by_mark.abs() < half_asymmetry + 15.0, "{name}: {by_mark} ms");
        watcher.stop(&runtime);
    }
    server.stop(&runtime);
}

/// The client without a window, as it shows pictures.
struct Pilot {
    runtime: Runtime,
    feeds: Option<Feeds>,
    late: Option<Warning>,
}

impl Pilot {
    fn start(args: &[&str]) -> Self {
        let cli = Cli::try_parse_from(["rov-client"].iter().chain(args)).unwrap_or_else(|e| panic!("{args:?}: {e}"));
        let config = cli.session().unwrap_or_else(|e| panic!("{args:?}: {e}"));
        let (runtime, stop) = (Runtime::new().expect("a runtime"), CancellationToken::new());
        let feeds = Feeds::start(runtime.handle().clone(), config, None, Arc::default(), (Instant::now(), stop))
            .expect("feeds");
        Self { runtime, feeds: Some(feeds), late: None }
    }

    /// What the window does in one round.
    fn look(&mut self) {
        let feeds = self.feeds.as_mut().expect("not ended");
        feeds.wait(Duration::from_millis(20));
        feeds.layout(Instant::now());
        if let Some(picture) = feeds.take(0) {
            feeds.shown(0, &picture, Instant::now());
        }
        self.late = feeds.late(0, Instant::now());
    }

    fn until(&mut self, what: &str, mut is_so: impl FnMut(&mut Self) -> bool) {
        let end = Instant::now() + wait::START;
        while !is_so(self) {
            assert!(Instant::now() < end, "{what}: not within {:?}; {:?}", wait::START, self.report());
            self.look();
        }
    }

    fn report(&mut self) -> (Option<AgeReport>, Option<String>) {
        let screen = self.feeds.as_mut().expect("not ended").screen();
        let report = lock(&screen).report(Instant::now());
        (report.age_ms, report.age_unknown)
    }

    fn end(mut self) {
        let feeds = self.feeds.take().expect("ended once");
        self.runtime.block_on(feeds.finish(wait::SOON)).expect("a good end");
    }
}

#[test]
fn a_queue_before_the_encoder_raises_the_alarm_and_is_told_by_each_transport() {
    // At this rate a second without a picture is none that the server would restart the camera for.
    let camera = "videotestsrc is-live=true pattern=ball ! video/x-raw,format=I420,width=320,height=240,framerate=4/1 \
                  ! queue min-threshold-time=1200000000 max-size-time=0 max-size-buffers=0 max-size-bytes=0";
    let server = Server::start(&["--source", "pipeline", "--pipeline", camera, "--width", "320", "--height", "240"]);
    server.wait_until_running();
    let address = server.address.to_string();
    let rtsp = server.rtsp.as_ref().and_then(|url| url.split(['/', ':']).nth(4)).expect("a port").to_owned();
    for transport in ["webrtc", "rtsp"] {
        let named = ["--host", &address, "--transport", transport, "--rtsp-port", &rtsp, "--stream", "stream1"];
        let mut pilot = Pilot::start(&named);
        pilot.until("an alarm", |pilot| matches!(pilot.late, Some(Warning::Old(age)) if age >= QUEUE));
        let (age, unknown) = pilot.report();
        let age = age.expect("an age");
        println!("{transport}: {age:?}");
        assert!(
            age.now >= ms(QUEUE) && age.p50 >= ms(QUEUE) && age.bound < 500.0 && unknown.is_none(),
            "{age:?} {unknown:?}"
        );
        pilot.end();
        let mut patient = Pilot::start(&[&named[..], &["--max-age", "60000"]].concat());
        patient.until("an age", |pilot| pilot.report().0.is_some_and(|age| age.now >= ms(QUEUE)));
        assert_eq!(patient.late, None);
        patient.end();
    }
}

#[test]
fn without_the_senders_clock_the_age_is_not_known_and_why_is_said() {
    let server = Server::start(&[]);
    server.wait_until_running();
    let url = server.rtsp.clone().expect("RTSP");
    let mut pilot = Pilot::start(&["--url", &url]);
    pilot.until("the reason", |pilot| pilot.report().1.is_some());
    assert_eq!(pilot.report().0, None);
    let reasons = [Unknown::NoClock, Unknown::NoCaptureTime].map(|reason| reason.to_string());
    assert!(reasons.contains(&pilot.report().1.unwrap_or_default()), "{:?}", pilot.report());
    pilot.end();
}
