//! The commands for ffplay that the README gives, with SDL's dummy display.

use std::process::Command;

use rov_tests::process::{Process, program};
use rov_tests::programs::Server;
use rov_tests::rtp::free_rtp_port;
use rov_tests::wait;

/// Plays `url` until thirty pictures went to the display, in which `showinfo` tells of each.
fn plays(url: &str, more: &[&str]) {
    let mut command = Command::new(program("ffplay", "ffmpeg"));
    command.env("SDL_VIDEODRIVER", "dummy").env("SDL_AUDIODRIVER", "dummy");
    command.args(["-hide_banner", "-fflags", "nobuffer", "-flags", "low_delay", "-framedrop"]);
    command.args(["-vf", "setpts=0,showinfo"]).args(more).arg(url);
    let mut player = Process::spawn("ffplay", &mut command);
    let pictures = player.wait_for_line("thirty pictures", wait::START, |line| {
        let (_, number) = line.split_once("Parsed_showinfo")?.1.split_once(" n:")?;
        number.split_whitespace().next()?.parse::<u32>().ok().filter(|number| *number >= 30)
    });
    println!("{pictures} pictures of {url}");
}

#[test]
fn ffplay_shows_the_stream_by_rtsp_and_by_the_description_of_plain_rtp() {
    let port = free_rtp_port().to_string();
    let rtp = ["--transport", "rtp,rtsp", "--rtp-host", "127.0.0.1", "--rtp-port", &port, "--interface", "lo"];
    let server = Server::start(&rtp);
    server.wait_until_running();
    let rtsp = server.rtsp.clone().expect("RTSP is among the transports");
    plays(&rtsp, &["-rtsp_transport", "udp"]);
    plays(&rtsp, &["-rtsp_transport", "tcp"]);
    plays(&server.url("/stream.sdp"), &["-protocol_whitelist", "file,http,rtp,udp,tcp"]);
}
