//! The parts that the benchmark plays itself, each in a process of its own: the references' senders and receivers, and
//! rov-client without its window.
//!
//! A receiver writes a line for each picture to standard output (`Shot::line`). What sends, or waits for a sender, says
//! [`READY`] on standard error first. They run until they are killed.

mod http;
mod janus;
mod page;
mod pipeline;
mod rov_client;
mod text;
mod units;
mod webrtcbin;

use std::io::Write;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use anyhow::Result;
use clap::ValueEnum;
use gstreamer as gst;
use gstreamer_video as gst_video;
use gstreamer_video::prelude::*;
use rov_bench::picture::{Range, wrong_patches};
use rov_common::stamp::{self, Stamp};

pub use self::janus::Place as JanusPlace;
pub use self::text::{DECODER, ENCODER};
pub use self::units::{ELEMENT as UNITS, hash as hash_of_unit};
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
    /// To a browser, with a page.
    WebrtcbinPage,
    /// WHEP before Janus.
    JanusWhep,
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
    /// Of the sender
    #[arg(long, default_value = "127.0.0.1")]
    server: Ipv4Addr,
    /// Of the receiver
    #[arg(long, default_value = "127.0.0.1")]
    client: Ipv4Addr,
    /// Of RTSP
    #[arg(long, default_value = "stream1")]
    path: String,
    /// H.264 in Annex B form that is sent as it is, again and again, in place of the test picture; what receives writes
    /// access units down
    #[arg(long)]
    clip: Option<PathBuf>,
    /// Of Janus
    #[arg(long, default_value = "")]
    api: String,
    /// rov-client comes for a second and goes, again and again, so that the encoder rests between
    #[arg(long)]
    visits: bool,
    /// For rov-client
    #[arg(last = true)]
    more: Vec<String>,
}

pub fn run(args: &RoleArgs) -> Result<()> {
    gst::init()?;
    rov_bench::source::register(None)?;
    units::register()?;
    match args.part {
        Part::RtspServer => pipeline::serve_rtsp(args),
        Part::WebrtcbinSender => webrtcbin::send(args),
        Part::WebrtcbinReceiver => webrtcbin::receive(args),
        Part::WebrtcbinPage => page::serve(args),
        Part::JanusWhep => janus::serve(args),
        Part::RovClient => rov_client::watch(args),
        part => pipeline::play(part, args),
    }
}

/// The mark of a picture in a format with luma first, and whether the picture is damaged; none without a mark.
fn look(frame: &gst_video::VideoFrameRef<&gst::BufferRef>) -> Option<(Stamp, bool)> {
    let (width, height) = (frame.width() as usize, frame.height() as usize);
    let (luma, stride) = (frame.plane_data(0).ok()?, usize::try_from(*frame.plane_stride().first()?).ok()?);
    let stamp = stamp::read_luma(luma, stride, width, height)?;
    let wrong = wrong_patches(stamp.frame, width, height, Range::Limited, |x, y| luma[y * stride + x]);
    Some((stamp, wrong > 0))
}

/// An access unit that nobody decodes is whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivered {
    pub rtp_timestamp: u32,
    pub at_us: u64,
    /// Where the receiver knows it.
    pub last_packet_us: Option<u64>,
}

impl Delivered {
    /// As a line of text, for the process that measures.
    fn line(self) -> String {
        let last_packet = self.last_packet_us.map_or(String::new(), |us| format!(" {us}"));
        format!("delivered {} {}{last_packet}", self.rtp_timestamp, self.at_us)
    }

    /// The reverse; none for any other text.
    pub fn parse(line: &str) -> Option<Self> {
        let mut numbers = line.strip_prefix("delivered ")?.split(' ').map(str::parse::<u64>);
        Some(Self {
            rtp_timestamp: u32::try_from(numbers.next()?.ok()?).ok()?,
            at_us: numbers.next()?.ok()?,
            last_packet_us: numbers.next().and_then(Result::ok),
        })
    }
}

/// Writes the line; the end of who reads it is the end of this process.
fn say(line: &str) {
    if writeln!(std::io::stdout(), "{line}").is_err() {
        std::process::exit(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delivery_survives_its_line_of_text() {
        let without = Delivered { rtp_timestamp: 7, at_us: 90, last_packet_us: None };
        for delivered in [without, Delivered { last_packet_us: Some(80), ..without }] {
            assert_eq!(Delivered::parse(&delivered.line()), Some(delivered));
        }
        for text in ["", "delivered", "delivered 1", "unit 1 2", "delivered 99999999999 1"] {
            assert_eq!(Delivered::parse(text), None, "{text}");
        }
    }
}
