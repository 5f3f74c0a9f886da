//! Measures how Chromium shows the stream on a network that loses packets, the base of the server's playout delay:
//! `cargo build --workspace --release && cargo run --release -p rov-tests --example browser_loss`.

use std::time::Duration;

use clap::Parser;
use rov_tests::browser::{Browser, PAGE};
use rov_tests::programs::Server;
use rov_tests::proxy::Proxy;
use rov_tests::relay::Network;
use rov_tests::wait::{self, until};
use serde_json::Value;
use tokio::runtime::Runtime;

#[derive(Parser)]
struct Args {
    /// Seconds for each measurement
    #[arg(long, default_value_t = 15)]
    seconds: u64,

    /// Milliseconds each way
    #[arg(long, default_value_t = 2)]
    delay: u64,

    /// Datagrams lost each way, per cent
    #[arg(long, value_delimiter = ',', default_value = "0,1,5")]
    loss: Vec<f64>,

    /// Lose them on the way to the viewer alone
    #[arg(long)]
    one_way: bool,

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
    let server = Server::start(&["--width", width, "--height", height, "--fps", fps]);
    let runtime = Runtime::new().expect("a runtime");
    println!("{}, {} ms each way, {} s each", args.picture, args.delay, args.seconds);
    println!(
        "| loss | received | decoded | dropped | presented | freezeCount / s | gaps > 100 / 200 ms, longest | mark to \
         display p50 / p99 | jitter buffer | packets lost | PLIs |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|");
    for loss in &args.loss {
        measure(&runtime, &server, &args, *loss);
    }
}

fn measure(runtime: &Runtime, server: &Server, args: &Args, loss: f64) {
    let network = Network::new(Duration::from_millis(args.delay), args.seed);
    let proxy = Proxy::start(runtime, server.address, PAGE, Some(network.clone()));
    let mut browser = Browser::open(&proxy.url(&format!("/?frames=60&close&seconds={}", args.seconds)));
    let mut result = |count: usize, limit| {
        until("the page's result", limit, || {
            assert!(browser.is_running(), "chromium has ended");
            proxy.results().get(count - 1).cloned()
        })
    };
    let started = result(1, wait::START);
    assert_eq!(started["started"], true, "{started:#}");
    network.set_loss(loss / 100.0);
    network.set_loss_back(if args.one_way { 0.0 } else { loss / 100.0 });
    let r = result(2, Duration::from_secs(args.seconds) + wait::START);
    let number = |name: &str| r.get(name).and_then(Value::as_f64).unwrap_or(f64::NAN);
    println!(
        "| {loss} % | {} | {} | {} | {} | {} / {:.2} | {} / {}, {:.0} ms | {:.1} / {:.1} ms | {:.1} ms | {} | {} |",
        number("received"),
        number("decoded"),
        number("dropped"),
        number("presented"),
        number("freezeCount"),
        number("freezeSeconds"),
        number("gapsOver100"),
        number("gapsOver200"),
        number("longestGapMs"),
        number("latencyP50"),
        number("latencyP99"),
        number("jitterBufferMs"),
        number("packetsLost"),
        number("pliCount"),
    );
}
