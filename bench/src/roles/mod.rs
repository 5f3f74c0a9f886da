//! The parts that the benchmark plays itself, each in a process of its own: the references' senders and receivers, and
//! rov-client without its window.
//!
//! A receiver writes a line for each picture to standard output (`Shot::line`). What sends, or waits for a sender, says
//! [`READY`] on standard error first. They run until they are killed.

mod pipeline;
mod rov_client;
mod text;
mod webrtcbin;

use std::io::Write;

use anyhow::Result;
use clap::ValueEnum;
use gstreamer as gst;

pub use self::text::{DECODER, ENCODER};
use crate::figures::Shot;
use crate::point::Point;

/// The line that says that a part plays.
pub const READY: &str = "ready";

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Part {
    /// Encodes and decodes, without a network.
    Local,
    /// Plain RTP to loopback.
    UdpSender,
    UdpReceiver,
    /// Into a window on the display of the environment.
    UdpWindow,
    RtspServer,
    /// `rtspsrc`, by UDP.
    RtspReceiver,
    /// `rtspsrc`, by TCP.
    RtspTcpReceiver,
    WebrtcbinSender,
    WebrtcbinReceiver,
    /// The session and the decoder of rov-client.
    RovClient,
}

impl Part {
    pub fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }
}

#[derive(Clone, Debug, clap::Args)]
pub struct RoleArgs {
    #[arg(value_enum)]
    part: Part,
    #[command(flatten)]
    point: Point,
    /// Of UDP, RTSP or signalling
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// Of RTSP
    #[arg(long, default_value = "stream1")]
    path: String,
    /// For rov-client
    #[arg(last = true)]
    more: Vec<String>,
}

pub fn run(args: &RoleArgs) -> Result<()> {
    gst::init()?;
    rov_bench::source::register(None)?;
    match args.part {
        Part::RtspServer => pipeline::serve_rtsp(&args.point, args.port),
        Part::WebrtcbinSender => webrtcbin::send(&args.point, args.port),
        Part::WebrtcbinReceiver => webrtcbin::receive(args.port),
        Part::RovClient => rov_client::watch(&args.more),
        part => pipeline::play(part, args),
    }
}

/// Writes the line; the end of who reads it is the end of this process.
fn say(shot: &Shot) {
    if writeln!(std::io::stdout(), "{}", shot.line()).is_err() {
        std::process::exit(0);
    }
}
