//! Measures what `rov-client --latency` costs and gains on a network that loses packets, the base of its default:
//! `cargo build --workspace --release && cargo run --release -p rov-tests --example latency_sweep`.

use std::time::Duration;

use clap::Parser;
use rov_tests::programs::Server;
use rov_tests::proxy::Proxy;
use rov_tests::relay::Network;
use rov_tests::watcher::{Order, Shot, Watcher};
use tokio::runtime::Runtime;

#[derive(Parser)]
struct Args {
    /// Seconds for each measurement
    #[arg(long, default_value_t = 15.0)]
    seconds: f64,

    /// Milliseconds each way
    #[arg(long, default_value_t = 2)]
    delay: u64,

    /// Datagrams lost on the way to the viewer, per cent
    #[arg(long, value_delimiter = ',', default_value = "1,5")]
    loss: Vec<f64>,

    /// Datagrams that others overtake, by up to 5 ms, per cent
    #[arg(long, default_value_t = 0.0)]
    reordered: f64,

    /// Of the encoder, in kbit/s
    #[arg(long, default_value_t = 4000)]
    bitrate: u32,

    /// Values of --latency, in milliseconds
    #[arg(long, value_delimiter = ',', default_value = "10,20,40,60,100,150")]
    latency: Vec<u64>,

    /// Size and rate of the picture
    #[arg(long, default_value = "1280x720@30")]
    picture: String,

    #[arg(long, default_value_t = 1)]
    seed: u64,
}

fn main() {
    let args = Args::parse();
    let (size, fps) = args.picture.split_once('@').expect("WIDTHxHEIGHT@FPS");
    let (width, height) = size.split_once('x').expect("WIDTHxHEIGHT");
    let bitrate = args.bitrate.to_string();
    let server = Server::start(&["--width", width, "--height", height, "--fps", fps, "--bitrate", &bitrate]);
    let runtime = Runtime::new().expect("a runtime");
    println!(
        "{}, {} ms each way, {} s each; latency from the mark to the screen",
        args.picture, args.delay, args.seconds
    );
    println!(
        "| loss | --latency | shown | freezes > 100 / 200 ms | longest gap | latency p50 / p99 / max | nacks | \
         keyframes asked |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    for loss in &args.loss {
        for latency in &args.latency {
            measure(&runtime, &server, &args, *loss, *latency);
        }
    }
}

fn measure(runtime: &Runtime, server: &Server, args: &Args, loss: f64, latency: u64) {
    let network = Network::new(Duration::from_millis(args.delay), args.seed);
    let proxy = Proxy::start(runtime, server.address, "", Some(network.clone()));
    let watcher = Watcher::start(runtime, &["--url", &proxy.url("/whep"), "--latency", &latency.to_string()]);
    watcher.wait_for_shots(30);
    network.set_loss(loss / 100.0);
    network.set_reordering(args.reordered / 100.0);
    let from = watcher.shown();
    std::thread::sleep(Duration::from_secs_f64(args.seconds));
    let shots = &watcher.shots()[from..];
    let (order, report) = (Order::of(shots), watcher.report());
    let nacks = server.stats().viewers.iter().map(|viewer| viewer.nacks).max().unwrap_or(0);
    let gaps: Vec<Duration> = shots.windows(2).map(|pair| pair[1].shown_at - pair[0].shown_at).collect();
    let over = |ms| gaps.iter().filter(|gap| **gap > Duration::from_millis(ms)).count();
    let shown = 100.0 * order.read as f64 / (order.read as f64 + order.missing as f64);
    println!(
        "| {loss} % | {latency} ms | {shown:.1} % | {} / {} | {:.0} ms | {:.1} / {:.1} / {:.1} ms | {nacks} | {} |",
        over(100),
        over(200),
        ms(gaps.iter().max().copied().unwrap_or_default()),
        quantile(shots, 0.5),
        quantile(shots, 0.99),
        quantile(shots, 1.0),
        report.keyframe_requests,
    );
    watcher.stop(runtime);
}

/// Of the time from the mark to the screen, in milliseconds.
fn quantile(shots: &[Shot], q: f64) -> f64 {
    let mut latencies: Vec<Duration> = shots.iter().filter_map(|shot| shot.latency).collect();
    latencies.sort();
    let at = (q * latencies.len() as f64).ceil() as usize;
    latencies.get(at.saturating_sub(1)).copied().map_or(0.0, ms)
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}
