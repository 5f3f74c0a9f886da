//! `rov-server` in this process, on loopback: for tests that look into it, or give it other limits than its own.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::time::Duration;

use rov_common::api::StreamStats;
use rov_common::capture_clock::CaptureClock;
use rov_server::config::Config;
use rov_server::config_file;
use rov_server::server::Server;
use rov_server::supervisor::change::Handle;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::{http, wait};

/// What the server promises for its end.
pub const END: Duration = Duration::from_secs(5);

pub struct Serving {
    /// Of the HTTP API.
    pub address: SocketAddr,
    /// By which the settings of each camera are changed.
    pub cameras: Vec<Handle>,
    pub stop: CancellationToken,
    pub run: JoinHandle<anyhow::Result<()>>,
}

impl Serving {
    /// Starts it with these options, which `change` may still change, and waits until pictures come.
    pub fn start(runtime: &Runtime, args: &[&str], change: impl FnOnce(&mut Config)) -> Self {
        Self::start_by(runtime, args, CaptureClock::start(), change)
    }

    /// The same with this clock for the times of capture.
    pub fn start_by(runtime: &Runtime, args: &[&str], clock: CaptureClock, change: impl FnOnce(&mut Config)) -> Self {
        let all = ["rov-server", "--host", "127.0.0.1", "--signal-port", "0", "--rtsp-port", "0", "--no-discovery"];
        let options = config_file::read(all.iter().chain(args).map(OsString::from)).expect("valid options");
        let mut config = Config::new(&options).expect("a valid configuration");
        if !args.contains(&"--state-dir") {
            config.state_dir = None;
        }
        change(&mut config);
        let server = runtime.block_on(Server::bind_by(config, clock)).expect("free ports");
        let address = server.http_addr().expect("the address of HTTP");
        let cameras = server.handles();
        let stop = CancellationToken::new();
        let run = runtime.spawn(server.run(stop.clone()));
        wait::until_true("the stream runs", wait::START, || http::health(address).0 == 200);
        Self { address, cameras, stop, run }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub fn stream(&self) -> StreamStats {
        http::stats(self.address).streams.remove(0)
    }

    /// Stops it as a signal would, and waits for it.
    pub fn stop(self, runtime: &Runtime) {
        self.stop.cancel();
        let ended = runtime.block_on(async { tokio::time::timeout(END, self.run).await });
        ended.expect("the server ends in time").expect("the server does not panic").expect("the server ends well");
    }
}
