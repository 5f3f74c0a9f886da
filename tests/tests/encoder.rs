//! An encoder that works on trial, alone, and hangs at work. This file has no other test: see `fake_encoder`.

use std::ffi::OsString;
use std::time::Duration;

use rov_common::api::StreamState;
use rov_server::config::Config;
use rov_server::config_file;
use rov_server::server::Server;
use rov_tests::fake_encoder::{self, Fate};
use rov_tests::http;
use rov_tests::wait::until_true;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

#[test]
fn an_encoder_that_hangs_at_work_is_replaced_by_the_next_and_holds_up_no_other_stream() {
    // All but the first.
    fake_encoder::register(|made| if made > 0 { Fate::Hangs(0) } else { Fate::Works });
    let args = "rov-server --host 127.0.0.1 --signal-port 0 --rtsp-port 0 --no-discovery --always-encode --source test \
                --width 320 --height 240 --stream2 160x120@15";
    let options = config_file::read(args.split_whitespace().map(OsString::from)).expect("valid options");
    let mut config = Config::new(&options).expect("a valid configuration");
    config.state_dir = None;
    config.cameras[0].streams[1].always_encode = true;
    let runtime = Runtime::new().expect("a runtime");
    let server = runtime.block_on(Server::bind(config)).expect("free ports");
    let address = server.http_addr().expect("the address of HTTP");
    let stop = CancellationToken::new();
    let run = runtime.spawn(server.run(stop.clone()));
    let [first, second] = [0, 1].map(|at| move || http::stats(address).streams.remove(at));
    // Beside the first stream's it does not work on trial, as where a machine has one encoder: five seconds.
    until_true("the second stream", Duration::from_secs(30), || second().frames > 10);
    assert_eq!((second().encoder.as_str(), first().frames), ("x264enc", 0), "one hangs and holds up no other");
    // Five seconds until it is taken to hang, two for it to stop.
    until_true("the next encoder", Duration::from_secs(30), || {
        let stream = first();
        stream.state == StreamState::Running && stream.encoder == "x264enc"
    });
    assert_eq!(fake_encoder::made(), 5, "alone, two beside each other, one beside x264enc, one at work");
    assert_eq!((first().restarts, second().restarts, second().encoder.as_str()), (1, 0, "x264enc"));
    stop.cancel();
    let ended = runtime.block_on(async { tokio::time::timeout(Duration::from_secs(10), run).await });
    fake_encoder::release();
    ended.expect("the server ends").expect("no panic").expect("it ends well");
}
