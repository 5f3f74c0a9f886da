//! How often a receiver cannot rebuild an access unit, at several losses and shares of repair packets. One frame
//! interval is waited, as rov-client does.
//!
//!     cargo run --release -p rov-common --example fec_rates [PACKETS OF A PICTURE [OF A KEYFRAME]]

use std::collections::HashSet;

use bytes::{BufMut, Bytes, BytesMut};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rov_common::fec::{Decoder, Encoder};

const FRAMES: u32 = 60_000;
const FPS: u32 = 30;

/// Gilbert and Elliott: packets are lost in a bad state alone, which lasts for some.
struct Channel {
    random: StdRng,
    loss: f64,
    /// Packets that the bad state lasts for on average.
    burst: f64,
    bad: bool,
}

impl Channel {
    fn loses(&mut self) -> bool {
        if self.burst <= 1.0 {
            return self.random.random_bool(self.loss);
        }
        let change = if self.bad { 1.0 / self.burst } else { self.loss / (1.0 - self.loss) / self.burst };
        self.bad ^= self.random.random_bool(change);
        self.bad
    }
}

fn packet(sequence: u16) -> Bytes {
    let mut out = BytesMut::new();
    out.put_slice(&[0x80, 96]);
    out.put_u16(sequence);
    out.put_slice(&[0, 0, 0, 0, 1, 2, 3, 4, sequence as u8]);
    out.freeze()
}

/// Of all access units: not whole at once, not whole with the repair packets of the next; repair packets for each
/// packet.
fn run(percent: u8, picture: usize, keyframe: usize, mut channel: Channel) -> (u32, u32, f64) {
    let (mut encoder, mut decoder) = (Encoder::new(percent, 7, 0), Decoder::default());
    let (mut sequence, mut late, mut never) = (0_u16, 0, 0);
    let (mut sources, mut repairs) = (0, 0);
    let mut missing: HashSet<u16> = HashSet::new();
    for frame in 0..FRAMES {
        let packets: Vec<Bytes> = (0..if frame % FPS == 0 { keyframe } else { picture })
            .map(|i| packet(sequence.wrapping_add(i as u16)))
            .collect();
        sequence = sequence.wrapping_add(packets.len() as u16);
        let mut came = Vec::new();
        let mut lost = HashSet::new();
        for packet in &packets {
            if channel.loses() {
                lost.insert(u16::from_be_bytes([packet[2], packet[3]]));
            } else {
                came.extend(decoder.source(packet));
            }
        }
        let made = encoder.protect(&packets, 0);
        (sources, repairs) = (sources + packets.len(), repairs + made.len());
        for repair in made {
            if !channel.loses() {
                came.extend(decoder.repair(&repair));
            }
        }
        for packet in came {
            let number = u16::from_be_bytes([packet[2], packet[3]]);
            missing.remove(&number);
            lost.remove(&number);
        }
        never += u32::from(!missing.is_empty());
        late += u32::from(!lost.is_empty());
        missing = lost;
    }
    (late, never, repairs as f64 / sources as f64)
}

fn main() {
    let mut args = std::env::args().skip(1).map(|arg| arg.parse().expect("a number of packets"));
    let picture = args.next().unwrap_or(13);
    let keyframe = args.next().unwrap_or(40);
    println!("{picture} packets each, keyframes {keyframe}; {FPS} access units a second; in 60 s:");
    println!("| loss | in bursts of | repair packets, % | sent, % | whole a frame late | not whole | without repair |");
    println!("|---|---|---|---|---|---|---|");
    for (loss, burst) in [(0.01, 1.0), (0.03, 1.0), (0.05, 1.0), (0.01, 3.0), (0.01, 8.0)] {
        for percent in [20, 25, 30, 50] {
            let channel = || Channel { random: StdRng::seed_from_u64(1), loss, burst, bad: false };
            let (late, never, sent) = run(percent, picture, keyframe, channel());
            let in_60_s = |count: u32| f64::from(count) * 60.0 * f64::from(FPS) / f64::from(FRAMES);
            let mut bare = channel();
            let damaged = (0..FRAMES).filter(|_| (0..picture).filter(|_| bare.loses()).count() > 0).count() as u32;
            println!(
                "| {:.0} % | {burst} | {percent} | {:.0} | {:.2} | {:.3} | {:.0} |",
                loss * 100.0,
                sent * 100.0,
                in_60_s(late - never.min(late)),
                in_60_s(never),
                in_60_s(damaged)
            );
        }
    }
}
